/* Overlays beside images; see beside.h. */
#include "cli/beside.h"

#include "base/error.h"
#include "block/disk.h"
#include "block/format.h"
#include "block/qcow2.h"
#include "cli/image.h"
#include "cli/remote.h"
#include "cli/url.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* An empty overlay of that size over what `below` names. */
static bool make_overlay(const char *overlay, const char *below, const struct format *format,
                         uint64_t size, GError **error)
{
    const struct format_wish wish = { .size = size, .below = below, .below_format = format->name };
    struct new_file file;
    bool ok = new_file_start(&file, overlay, false, error) &&
              qcow2_format.create(file.fd, overlay, &wish, error) && new_file_finish(&file, error);
    new_file_drop(&file);
    return ok;
}

/* The same over the image. */
static bool make_over_file(const char *overlay, const char *path, const struct chain_rules *rules,
                           GError **error)
{
    struct chain_rules reading = *rules;
    reading.readonly = true;
    g_autoptr(image_chain) chain = chain_open(path, &reading, error);
    struct disk *disk = chain ? chain_disk(chain, error) : NULL;
    if (!disk)
        return false;
    g_autofree char *base = g_path_get_basename(path);
    bool ok = make_overlay(overlay, base, chain->format, disk->size, error);
    disk_free(disk);
    return ok;
}

/* The overlay, if it lies on the image. */
static struct chain *open_overlay(const char *overlay, const char *path,
                                  const struct chain_rules *rules, GError **error)
{
    struct chain_rules writing = *rules;
    writing.format = qcow2_format.name;
    /* The user has named the image, which may be a link to another folder. */
    g_autoptr(GPtrArray) allowed = g_ptr_array_new();
    for (guint i = 0; rules->allowed && i < rules->allowed->len; i++)
        g_ptr_array_add(allowed, g_ptr_array_index(rules->allowed, i));
    g_autofree char *image = g_strdup(path);
    g_ptr_array_add(allowed, image);
    writing.allowed = allowed;
    g_autoptr(image_chain) chain = chain_open(overlay, &writing, error);
    if (!chain)
        return NULL;
    g_autofree char *base = g_path_get_basename(path);
    g_autofree char *below = chain->below ? g_path_get_basename(chain->below->path) : NULL;
    if (!g_strcmp0(base, below))
        return g_steal_pointer(&chain);
    hv_fail(error, HV_WRONG_STATE,
            "%s does not lie on %s, whose changes it should have: move it away", overlay, base);
    return NULL;
}

/* A file on a web server: what of it was read is in the overlay too. */
static struct chain *open_web(const char *url, const struct chain_rules *rules, const char *folder,
                              GError **error)
{
    struct chain_rules writing = *rules, reading = *rules;
    uint64_t size = 0;
    g_autofree char *named = NULL, *base = url_name(url);
    g_autofree char *file = g_strdup_printf("%s.hv.qcow2", base);
    g_autofree char *overlay = folder ? g_build_filename(folder, file, NULL) : g_strdup(file);
    reading.readonly = true;
    g_autoptr(image_chain) ground = remote_chain(url, &reading, error);
    if (!ground || !remote_measure(ground, &size, &named, error))
        return NULL;
    writing.format = qcow2_format.name;
    writing.ground = &ground;
    writing.ground_name = named;
    bool there = access(overlay, F_OK) == 0;
    if (!there && !make_overlay(overlay, named, ground->format, size, error))
        return NULL;
    struct chain *chain = chain_open(overlay, &writing, error);
    if (chain && !chain->below) {
        hv_fail(error, HV_WRONG_STATE, "%s does not lie on %s: move it away", overlay, named);
        g_clear_pointer(&chain, chain_free);
    }
    if (chain)
        fprintf(stderr, "hv: what the machine reads and writes of %s %s %s\n", chain->below->name,
                there ? "is in" : "goes to", overlay);
    return chain;
}

struct chain *beside_open(const char *path, const struct chain_rules *rules, const char *folder,
                          GError **error)
{
    if (url_is_disk(path))
        return rules->readonly || !url_is_web(path) ? remote_chain(path, rules, error)
                                                    : open_web(path, rules, folder, error);
    struct chain *chain = chain_open(path, rules, error);
    if (!chain || rules->readonly || chain->format->written)
        return chain;
    const char *what = chain->format->what;
    chain_free(chain); /* and its locks */
    g_autofree char *overlay = g_strdup_printf("%s.hv.qcow2", path);
    bool there = access(overlay, F_OK) == 0;
    if (!there && !make_over_file(overlay, path, rules, error))
        return NULL;
    chain = open_overlay(overlay, path, rules, error);
    if (chain)
        fprintf(stderr, "hv: %s is %s and stays as it is: what the machine writes %s %s\n", path,
                what, there ? "is in" : "goes to", overlay);
    return chain;
}
