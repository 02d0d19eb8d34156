/* Images and the files they name; see chain.h. What an image says of other files is hostile: a name
 * leads into the image's own folder, or to a file that the user has listed. */
#include "block/chain.h"

#include "base/error.h"
#include "block/format.h"
#include "block/image.h"
#include "block/raw.h"
#include "block/remote.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

struct chain *chain_new(int fd, const char *name, const struct format *format, bool readonly)
{
    struct chain *chain = g_new0(struct chain, 1);
    chain->fd = fd;
    chain->name = g_strdup(name);
    chain->format = format;
    chain->readonly = readonly;
    chain->parts = g_ptr_array_new_with_free_func((GDestroyNotify)chain_free);
    return chain;
}

void chain_free(struct chain *chain)
{
    if (!chain)
        return;
    if (chain->fd >= 0)
        close(chain->fd);
    chain_free(chain->below);
    g_ptr_array_unref(chain->parts);
    g_free(chain->name);
    g_free(chain->path);
    g_free(chain->named);
    g_free(chain);
}

static void add_identities(const struct chain *chain, GString *text)
{
    g_autofree char *own = image_identity(chain->fd);
    g_string_append_printf(text, "%s%s", text->len ? "\n" : "", own ? own : "");
    for (guint i = 0; i < chain->parts->len; i++)
        add_identities(g_ptr_array_index(chain->parts, i), text);
    if (chain->below)
        add_identities(chain->below, text);
}

char *chain_identities(const struct chain *chain)
{
    GString *text = g_string_new(NULL);
    add_identities(chain, text);
    return g_string_free(text, FALSE);
}

/* --- opening --------------------------------------------------------------------------------- */

/* Where a file stands that is being opened. */
struct place {
    const struct place *above; /* the image that named this one; NULL: the user did */
    struct chain *chain;
    unsigned depth;
};

struct opening {
    const struct chain_rules *rules;
    unsigned files;
};

static struct chain *open_at(struct opening *opening, int fd, char *path, const char *format,
                             bool readonly, const struct place *above, GError **error);

/* A file that the user has listed; -1: it is none of them. */
static int open_allowed(const struct chain_rules *rules, const char *path, bool writable)
{
    g_autofree char *real = realpath(path, NULL);
    for (guint i = 0; real && rules->allowed && i < rules->allowed->len; i++) {
        g_autofree char *other = realpath(g_ptr_array_index(rules->allowed, i), NULL);
        if (!g_strcmp0(real, other))
            return open(real, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
    }
    return -1;
}

/* A file below the image's folder, however its name gets there; -1 with errno. */
static int open_beneath(const char *folder, const char *name, bool writable)
{
    struct open_how how = {
        .flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    int dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    long fd = dir < 0 ? -1 : syscall(SYS_openat2, dir, name, &how, sizeof how);
    int reason = errno;
    if (dir >= 0)
        close(dir);
    errno = reason;
    return (int)fd;
}

bool chain_reaches(const char *path, const char *name)
{
    g_autofree char *folder = g_path_get_dirname(path);
    int fd = g_path_is_absolute(name) ? -1 : open_beneath(folder, name, false);
    bool outside = fd < 0 && (g_path_is_absolute(name) || errno == EXDEV);
    if (fd >= 0)
        close(fd);
    return !outside;
}

/* Names such as nbd://host/disk and json:{...}. */
static bool is_protocol(const char *name)
{
    size_t word = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789+-.");
    return word && name[word] == ':';
}

/* Opens what an image names; -1 with an error. *path becomes the file's. */
static int open_link(const struct opening *opening, const struct chain *from,
                     const struct format_link *link, bool writable, char **path, GError **error)
{
    const struct chain_rules *rules = opening->rules;
    const char *role = link->below ? "lies on" : "has a part";
    g_autofree char *folder = g_path_get_dirname(from->path);
    g_autofree char *shown = g_utf8_make_valid(link->name, -1);
    if (!*link->name || is_protocol(link->name)) {
        hv_fail(error, HV_USAGE, "%s %s \"%s\", which is no file: hv opens files only", from->name,
                role, shown);
        return -1;
    }
    bool absolute = g_path_is_absolute(link->name);
    bool here = absolute || !strcmp(folder, ".");
    *path = here ? g_strdup(link->name) : g_build_filename(folder, link->name, NULL);
    int fd = open_allowed(rules, *path, writable);
    if (fd < 0 && rules->trusted)
        fd = open(*path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
    else if (fd < 0 && !absolute)
        fd = open_beneath(folder, link->name, writable);
    else if (fd < 0)
        errno = EXDEV;
    if (fd >= 0)
        return fd;
    if (errno == EXDEV)
        hv_fail(error, HV_USAGE,
                "%s %s \"%s\", outside its folder: if that is right, say so with backing=FILE, "
                "or trust the image with --trust-backing",
                from->name, role, shown);
    else
        hv_fail(error, HV_FAILED, "%s %s \"%s\": %s", from->name, role, shown, g_strerror(errno));
    g_clear_pointer(path, g_free);
    return -1;
}

/* The format of what an image names: as it says, for a guest may have written there what looks like
 * another. */
static const char *format_of_link(const struct opening *opening, const struct chain *from,
                                  const struct format_link *link, int fd, GError **error)
{
    if (link->format && format_named(link->format))
        return link->format;
    g_autofree char *shown = link->format ? g_utf8_make_valid(link->format, -1) : NULL;
    if (shown) {
        hv_fail(error, HV_FAILED,
                "%s lies on an image in the format \"%s\", which hv does not know", from->name,
                shown);
        return NULL;
    }
    const struct format *seen = format_probe(fd);
    if (seen == &raw_format || (seen && opening->rules->trusted))
        return seen->name;
    hv_fail(error, HV_USAGE,
            "%s does not say in which format the image is that it lies on: if it is %s, "
            "write that into it (qemu-img rebase -u -F FORMAT), or trust the image with "
            "--trust-backing",
            from->name, seen ? seen->name : "a known one");
    return NULL;
}

/* What the image lies on has been opened already, if it is what the image means. */
static bool add_ground(const struct opening *opening, struct chain *from,
                       const struct format_link *link, GError **error)
{
    const struct chain_rules *rules = opening->rules;
    g_autofree char *shown = g_utf8_make_valid(link->name, -1);
    if (from->below || !*rules->ground || strcmp(link->name, rules->ground_name))
        return hv_fail(error, HV_WRONG_STATE,
                       "%s has the changes of \"%s\", but there is now \"%s\": what is on the "
                       "server has changed, or is another file; move %s away to begin anew",
                       from->name, shown, rules->ground_name, from->name);
    from->below = g_steal_pointer(rules->ground);
    from->below->named = g_strdup(link->name);
    return true;
}

static bool add_link(struct opening *opening, const struct place *place,
                     const struct format_link *link, GError **error)
{
    struct chain *from = place->chain;
    char *path = NULL;
    if (opening->rules->ground && link->below && place->depth == 1)
        return add_ground(opening, from, link, error);
    bool writable =
        !from->readonly && (!link->below || (place->depth == 1 && opening->rules->commits));
    if (++opening->files > CHAIN_FILES || (link->below && place->depth >= CHAIN_DEPTH))
        return hv_fail(error, HV_FAILED, "%s: it needs too many files (more than %d, or %d deep)",
                       from->name, CHAIN_FILES, CHAIN_DEPTH);
    int fd = open_link(opening, from, link, writable, &path, error);
    const char *format = fd < 0 ? NULL : format_of_link(opening, from, link, fd, error);
    if (!format) {
        if (fd >= 0)
            close(fd);
        g_free(path);
        return false;
    }
    struct chain *chain = open_at(opening, fd, path, format, !writable, place, error);
    if (!chain)
        return false;
    chain->named = g_strdup(link->name);
    if (!link->below) {
        g_ptr_array_add(from->parts, chain);
    } else if (from->below) {
        chain_free(chain);
        return hv_fail(error, HV_FAILED, "%s lies on two images", from->name);
    } else {
        from->below = chain;
    }
    return true;
}

static bool add_links(struct opening *opening, const struct place *place, GError **error)
{
    struct chain *chain = place->chain;
    if (!chain->format->links || opening->rules->alone)
        return true;
    int fd = fcntl(chain->fd, F_DUPFD_CLOEXEC, 3);
    struct disk *file = fd < 0 ? NULL : raw_open(fd, chain->name, true, error);
    if (!file) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    g_autoptr(GPtrArray) links = g_ptr_array_new_with_free_func(format_link_free);
    bool ok = chain->format->links(file, chain->name, links, error);
    for (guint i = 0; ok && i < links->len; i++)
        ok = add_link(opening, place, g_ptr_array_index(links, i), error);
    disk_free(file);
    return ok;
}

/* The attribute of a file in which it is written down that it is a raw disk. Its guest may write
 * anything there, the beginning of a qcow2 image with somebody's file below it too. Where the file
 * system has no attributes, the rules for what an image may name are all there is. */
static const char pin[] = "user.hv.format";

/* The format of an image that the user named without one. */
static const struct format *settle_format(int fd, const char *shown, const struct image_info *info,
                                          bool readonly, GError **error)
{
    char pinned[16] = "";
    const struct format *raw = &raw_format;
    bool known = fgetxattr(fd, pin, pinned, sizeof pinned - 1) > 0 && !strcmp(pinned, raw->name);
    if (info->device)
        return raw;
    if (known && info->format != raw) {
        hv_fail(error, HV_USAGE,
                "%s was a raw disk when hv last wrote to it, and looks like %s now: if a guest "
                "wrote that, use it with format=raw, else with format=%s",
                shown, info->format->what, info->format->name);
        return NULL;
    }
    if (!readonly && !known && info->format == raw)
        fsetxattr(fd, pin, raw->name, strlen(raw->name), 0);
    return info->format;
}

/* The user says what it is. */
static void pin_format(int fd, const struct format *format, bool readonly)
{
    if (readonly)
        return;
    if (format == &raw_format)
        fsetxattr(fd, pin, format->name, strlen(format->name), 0);
    else
        fremovexattr(fd, pin);
}

static bool named_above(const struct place *place)
{
    g_autofree char *own = image_identity(place->chain->fd);
    for (const struct place *p = place->above; p; p = p->above) {
        g_autofree char *other = image_identity(p->chain->fd);
        if (!g_strcmp0(own, other))
            return true;
    }
    return false;
}

/* It owns fd and path. `format` is NULL for an image that the user named without one. */
static struct chain *open_at(struct opening *opening, int fd, char *path, const char *format,
                             bool readonly, const struct place *above, GError **error)
{
    g_autofree char *shown = g_utf8_make_valid(path, -1);
    g_autoptr(image_chain) chain =
        chain_new(fd, shown, format ? format_named(format) : NULL, readonly);
    struct place place = { above, chain, above ? above->depth + 1 : 1 };
    struct image_info info;
    chain->path = path;
    if (!image_probe(fd, shown, &info, error) ||
        (!chain->format && !image_usable(&info, path, error)))
        return NULL;
    if (named_above(&place)) {
        hv_fail(error, HV_FAILED, "%s: this image lies on itself", shown);
        return NULL;
    }
    if (!image_lock(fd, shown, !readonly, opening->rules->machines, error))
        return NULL;
    if (!chain->format)
        chain->format = settle_format(fd, shown, &info, readonly, error);
    else if (!above)
        pin_format(fd, chain->format, readonly);
    if (!chain->format || !add_links(opening, &place, error))
        return NULL;
    return g_steal_pointer(&chain);
}

struct chain *chain_open(const char *path, const struct chain_rules *rules, GError **error)
{
    struct opening opening = { rules, 1 };
    /* Not to wait for the other end of a pipe; for what can be an image it means nothing. */
    int fd = open(path, (rules->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0)
        return open_at(&opening, fd, g_strdup(path), rules->format, rules->readonly, NULL, error);
    g_autofree char *shown = g_utf8_make_valid(path, -1);
    hv_fail(error, HV_FAILED, "%s: %s%s", shown, g_strerror(errno),
            errno == EACCES && !rules->readonly ? "; --throwaway or readonly needs no writing"
                                                : "");
    return NULL;
}

/* --- the disk -------------------------------------------------------------------------------- */

static struct disk *disk_of(struct chain *chain, GError **error);

/* The disks of all parts, or none with an error. */
static bool open_parts(struct chain *chain, GPtrArray *parts, GError **error)
{
    for (guint i = 0; i < chain->parts->len; i++) {
        struct disk *part = disk_of(g_ptr_array_index(chain->parts, i), error);
        if (!part)
            return false;
        g_ptr_array_add(parts, part);
    }
    return true;
}

static struct disk *disk_of(struct chain *chain, GError **error)
{
    struct disk *file =
        (chain->remote ? remote_open : raw_open)(chain->fd, chain->name, chain->readonly, error);
    struct disk *below = NULL, *disk = NULL;
    g_autoptr(GPtrArray) parts = g_ptr_array_new();
    if (!file)
        return NULL;
    chain->fd = -1;
    if ((!chain->below || (below = disk_of(chain->below, error))) &&
        open_parts(chain, parts, error))
        disk = chain->format->open(
            &(struct format_parts){
                .name = chain->name,
                .file = file,
                .below = below,
                .part = (struct disk *const *)parts->pdata,
                .part_count = parts->len,
            },
            error);
    chain->disk = disk;
    if (disk)
        return disk;
    disk_free(file);
    disk_free(below);
    for (guint i = 0; i < parts->len; i++)
        disk_free(g_ptr_array_index(parts, i));
    return NULL;
}

struct disk *chain_disk(struct chain *chain, GError **error)
{
    g_autofree char *identities = chain_identities(chain);
    if (!chain->readonly && !chain->format->written) {
        hv_fail(error, HV_USAGE, "%s: hv cannot write %s", chain->name, chain->format->what);
        return NULL;
    }
    struct disk *disk = disk_of(chain, error);
    if (disk) {
        g_free(disk->identity);
        disk->identity = g_steal_pointer(&identities);
    }
    return disk;
}
