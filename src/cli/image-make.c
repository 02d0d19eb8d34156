/* hv image create, convert and resize. */
#include "base/error.h"
#include "block/copy.h"
#include "block/format.h"
#include "block/image.h"
#include "cli/cli.h"
#include "cli/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* What a new image shall be, as its options say. */
struct making {
    bool force, compress, trust;
    const char *format, *from_format, *backing, *backing_format, *cluster;
    struct format_wish wish;
    const struct format *kind;
};

/* qcow2 unless the name says something else. */
static const char *format_of_name(const char *path)
{
    const char *dot = strrchr(path, '.');
    if (dot && (!strcmp(dot, ".img") || !strcmp(dot, ".raw")))
        return "raw";
    return dot && format_named(dot + 1) ? dot + 1 : "qcow2";
}

static bool judge(struct making *making, const char *path, GError **error)
{
    struct format_wish *wish = &making->wish;
    making->kind = image_format(making->format ? making->format : format_of_name(path), error);
    if (!making->kind)
        return false;
    if (!making->kind->create)
        return hv_fail(error, HV_USAGE, "%s: hv cannot make %s", path, making->kind->what);
    if (making->cluster && !image_size(making->cluster, &wish->cluster, error))
        return false;
    if (making->compress && !making->kind->pack)
        return hv_fail(error, HV_USAGE, "%s: hv cannot compress %s", path, making->kind->what);
    wish->below = making->backing;
    wish->below_format = making->backing_format;
    return true;
}

/* Is the image's own file the one with this identity? Those of all its files are lines. */
static bool is_file(const struct disk *disk, const char *identity)
{
    size_t length = identity ? strlen(identity) : 0;
    return length && disk->identity && g_str_has_prefix(disk->identity, identity) &&
           (!disk->identity[length] || disk->identity[length] == '\n');
}

/* What a new image takes the place of at `path` must be used by nobody until that has happened, for
 * what a machine writes to it would be lost: *fd keeps it locked. It may be the image that is read
 * (`from`, or NULL), which is locked against writers. */
static bool claim(const char *path, const struct disk *from, int *fd, GError **error)
{
    *fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    g_autofree char *own = *fd >= 0 ? image_identity(*fd) : NULL;
    g_autofree char *machines = machines_dir(NULL); /* only to name who has the image */
    return *fd < 0 || (from && is_file(from, own)) || image_lock(*fd, path, true, machines, error);
}

/* --- create ---------------------------------------------------------------------------------- */

/* What the new image lies on: it must be there, and gives its format and, without another, size. */
static bool look_below(struct making *making, const char *path, GError **error)
{
    struct format_wish *wish = &making->wish;
    const struct chain_rules rules = { .readonly = true, .format = wish->below_format };
    g_autofree char *folder = g_path_get_dirname(path);
    g_autofree char *below = g_path_is_absolute(wish->below)
                                 ? g_strdup(wish->below)
                                 : g_build_filename(folder, wish->below, NULL);
    struct image image;
    if (!image_start(&image, below, rules, error))
        return false;
    wish->below_format = image.chain->format->name;
    if (!wish->size)
        wish->size = image.disk->size;
    image_end(&image);
    return true;
}

static bool create(struct making *making, const char *path, const char *size, GError **error)
{
    struct format_wish *wish = &making->wish;
    struct new_file file;
    int old = -1;
    if (!judge(making, path, error) || (size && !image_size(size, &wish->size, error)) ||
        (wish->below && !look_below(making, path, error)))
        return false;
    if (!wish->size || wish->size % SECTOR)
        return hv_fail(error, HV_USAGE, "%s: a size in whole sectors of 512 bytes is wanted", path);
    bool ok = new_file_start(&file, path, making->force, error) && claim(path, NULL, &old, error) &&
              making->kind->create(file.fd, path, wish, error) && new_file_finish(&file, error);
    new_file_drop(&file);
    if (old >= 0)
        close(old);
    return ok;
}

int image_create_verb(int argc, char **argv)
{
    struct making making = { .force = false };
    const struct flag flags[] = {
        { "format", NULL, &making.format },
        { "backing", NULL, &making.backing },
        { "backing-format", NULL, &making.backing_format },
        { "cluster", NULL, &making.cluster },
        { "compression", NULL, &making.wish.compression },
        { "force", &making.force, NULL },
        { .name = NULL },
    };
    GError *error = NULL;
    int count = cli_flags("image", argc, argv, flags);
    if (count < 0)
        return count == -2 ? HV_OK : HV_USAGE;
    if (count < 1 || count > 2 || (count == 1 && !making.backing))
        return cli_usage("image", "create: a file and a size are wanted");
    if (create(&making, argv[0], count == 2 ? argv[1] : NULL, &error))
        return HV_OK;
    return cli_fail(error);
}

/* --- convert --------------------------------------------------------------------------------- */

static bool copy_into(struct making *making, struct disk *from, const char *path,
                      struct new_file *file, GError **error)
{
    int fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 3);
    if (!making->kind->create(file->fd, path, &making->wish, error)) {
        close(fd);
        return false;
    }
    g_autoptr(image_chain) chain = chain_new(fd, path, making->kind, false);
    struct disk *to = chain_disk(chain, error);
    if (!to)
        return false;
    struct copy copy = { .from = from, .to = to };
    copy.pack = making->compress ? making->kind->pack : NULL;
    struct image_progress progress;
    image_progress_start(&progress, &copy);
    bool ok = copy_disk(&copy, error);
    image_progress_end(&progress);
    disk_free(to);
    return ok;
}

static bool convert(struct making *making, const char *from, const char *to, GError **error)
{
    const struct chain_rules rules = { .readonly = true,
                                       .trusted = making->trust,
                                       .format = making->from_format };
    struct image image;
    struct new_file file;
    if (!judge(making, to, error) || (rules.format && !image_format(rules.format, error)) ||
        !image_start(&image, from, rules, error))
        return false;
    making->wish.size = image.disk->size;
    int old = -1;
    bool ok = new_file_start(&file, to, making->force, error) &&
              claim(to, image.disk, &old, error) &&
              copy_into(making, image.disk, to, &file, error) && new_file_finish(&file, error);
    new_file_drop(&file);
    image_end(&image);
    if (old >= 0)
        close(old);
    return ok;
}

int image_convert_verb(int argc, char **argv)
{
    struct making making = { .force = false };
    const struct flag flags[] = {
        { "format", NULL, &making.format },
        { "from-format", NULL, &making.from_format },
        { "trust-backing", &making.trust, NULL },
        { "cluster", NULL, &making.cluster },
        { "compress", &making.compress, NULL },
        { "compression", &making.compress, &making.wish.compression },
        { "force", &making.force, NULL },
        { .name = NULL },
    };
    GError *error = NULL;
    int count = cli_flags("image", argc, argv, flags);
    if (count < 0)
        return count == -2 ? HV_OK : HV_USAGE;
    if (count != 2)
        return cli_usage("image", "convert: two files are wanted, FROM and TO");
    if (convert(&making, argv[0], argv[1], &error))
        return HV_OK;
    return cli_fail(error);
}

/* --- resize ---------------------------------------------------------------------------------- */

/* What a wish such as 20G, +4G or -1G comes to. */
static bool new_size(const struct disk *disk, const char *wish, bool shrink, uint64_t *size,
                     GError **error)
{
    bool relative = *wish == '+' || *wish == '-';
    if (!image_size(wish + relative, size, error))
        return false;
    if (*wish == '-' && *size >= disk->size)
        return hv_fail(error, HV_USAGE, "%s: it has %" G_GUINT64_FORMAT " bytes only", disk->name,
                       disk->size);
    if (relative)
        *size = *wish == '-' ? disk->size - *size : disk->size + *size;
    if (!*size || *size % SECTOR)
        return hv_fail(error, HV_USAGE, "%s: a size in whole sectors of 512 bytes is wanted",
                       disk->name);
    return *size >= disk->size || shrink ||
           hv_fail(error, HV_USAGE,
                   "%s would lose its last %" G_GUINT64_FORMAT " bytes: --shrink means it",
                   disk->name, disk->size - *size);
}

static bool resize(const struct image *image, const char *wish, bool shrink, GError **error)
{
    const struct format *format = image->chain->format;
    struct disk *disk = image->disk;
    uint64_t size;
    if (!format->resize)
        return hv_fail(error, HV_USAGE, "%s: hv cannot resize %s", disk->name, format->what);
    if (!new_size(disk, wish, shrink, &size, error))
        return false;
    int reason = format->resize(disk, size);
    if (reason == ENOTSUP)
        return hv_fail(error, HV_USAGE,
                       "%s is of an old version and has snapshots, which keep no size of their own "
                       "in that: `qemu-img amend -o compat=1.1 %s` makes it a new one",
                       disk->name, disk->name);
    return !reason || hv_fail(error, HV_FAILED, "%s: %s", disk->name, g_strerror(reason));
}

int image_resize_verb(int argc, char **argv)
{
    bool shrink = false;
    const char *format = NULL;
    const struct flag flags[] = {
        { "shrink", &shrink, NULL },
        { "format", NULL, &format },
        { .name = NULL },
    };
    GError *error = NULL;
    int count = cli_flags("image", argc, argv, flags);
    if (count < 0)
        return count == -2 ? HV_OK : HV_USAGE;
    if (count != 2)
        return cli_usage("image", "resize: a file and a size are wanted");
    const struct chain_rules rules = { .format = format };
    struct image image;
    if ((!format || image_format(format, &error)) && image_start(&image, argv[0], rules, &error)) {
        resize(&image, argv[1], shrink, &error);
        image_end(&image);
    }
    return error ? cli_fail(error) : HV_OK;
}
