/* Archives for Linux's initramfs; see newc.h. */
#include "test/newc.h"

#include "base/error.h"
#include "memory/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { ALIGN = 4, PIECE = 1 << 16 };

struct entry {
    mode_t mode;
    uint64_t size;
    dev_t device;
    gint64 time;
};

void newc_start(struct newc *newc, int fd, uint64_t limit)
{
    *newc = (struct newc){ .fd = fd, .limit = limit };
    newc->paths = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

void newc_finish(struct newc *newc)
{
    g_clear_pointer(&newc->paths, g_hash_table_unref);
}

static bool put(struct newc *newc, const void *data, size_t length, GError **error)
{
    const char *bytes = data;
    newc->size += length;
    while (length) {
        ssize_t n = write(newc->fd, bytes, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return hv_fail(error, HV_HOST, "the guest's root file system cannot be written: %s",
                           g_strerror(errno));
        bytes += n;
        length -= (size_t)n;
    }
    return true;
}

static bool pad(struct newc *newc, GError **error)
{
    return put(newc, "\0\0\0", (ALIGN - newc->size % ALIGN) % ALIGN, error);
}

static bool head(struct newc *newc, const char *path, const struct entry *entry, GError **error)
{
    const char *name = path + (*path == '/');
    size_t length = strlen(name) + 1;
    uint64_t after = newc->size + entry->size + length + 128;
    if (entry->size > UINT32_MAX)
        return hv_fail(error, HV_USAGE,
                       "%s: a file of %" G_GUINT64_FORMAT
                       " MiB is too large for a root file system in RAM: leave it out",
                       path, entry->size / MIB);
    if (after > newc->limit)
        return hv_fail(error, HV_USAGE,
                       "%s: up to here the root file system takes %" G_GUINT64_FORMAT
                       " MiB, and the machine's RAM has room for %" G_GUINT64_FORMAT
                       " MiB of it: more --memory, or a smaller folder",
                       path, after / MIB, newc->limit / MIB);
    g_autofree char *text = g_strdup_printf(
        "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", ++newc->number,
        (unsigned)entry->mode, 0u, 0u, S_ISDIR(entry->mode) ? 2u : 1u,
        (unsigned)CLAMP(entry->time, 0, UINT32_MAX), (unsigned)entry->size, 0u, 0u,
        major(entry->device), minor(entry->device), (unsigned)length, 0u);
    return put(newc, text, strlen(text), error) && put(newc, name, length, error) &&
           pad(newc, error);
}

/* Is it new? Then the folders that it is in are there too. */
static bool enter(struct newc *newc, const char *path, bool *new, GError **error)
{
    *new = g_hash_table_add(newc->paths, g_strdup(path));
    g_autofree char *folder = g_path_get_dirname(path);
    return !*new || !strcmp(folder, "/") || newc_folder(newc, folder, error);
}

bool newc_folder(struct newc *newc, const char *path, GError **error)
{
    const struct entry entry = { .mode = S_IFDIR | 0755 };
    bool new;
    return enter(newc, path, &new, error) && (!new || head(newc, path, &entry, error));
}

static bool put_data(struct newc *newc, const char *path, const struct entry *entry,
                     const void *data, GError **error)
{
    bool new;
    return enter(newc, path, &new, error) &&
           (!new || (head(newc, path, entry, error) && put(newc, data, entry->size, error) &&
                     pad(newc, error)));
}

bool newc_text(struct newc *newc, const char *path, unsigned mode, const void *data, size_t length,
               GError **error)
{
    const struct entry entry = { .mode = S_IFREG | mode, .size = length };
    return put_data(newc, path, &entry, data, error);
}

bool newc_link(struct newc *newc, const char *path, const char *to, GError **error)
{
    const struct entry entry = { .mode = S_IFLNK | 0777, .size = strlen(to) };
    return put_data(newc, path, &entry, to, error);
}

bool newc_device(struct newc *newc, const char *path, unsigned major, unsigned minor,
                 GError **error)
{
    const struct entry entry = { .mode = S_IFCHR | 0600, .device = makedev(major, minor) };
    return put_data(newc, path, &entry, "", error);
}

/* As many bytes as its head says, also when the file gets shorter meanwhile. */
static bool copy(struct newc *newc, const char *from, int fd, uint64_t size, GError **error)
{
    g_autofree char *piece = g_malloc(PIECE);
    while (size) {
        ssize_t n = read(fd, piece, MIN(size, PIECE));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return hv_fail(error, HV_FAILED, "%s: %s", from,
                           n ? g_strerror(errno) : "it changes while it is read");
        if (!put(newc, piece, (size_t)n, error))
            return false;
        size -= (uint64_t)n;
    }
    return pad(newc, error);
}

bool newc_file(struct newc *newc, const char *path, const char *from, GError **error)
{
    struct stat st;
    bool new, ok = true;
    /* A FIFO would wait for its writer. */
    int fd = open(from, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0)
        ok = hv_fail(error, HV_FAILED, "%s: %s", from, g_strerror(errno));
    else if (!S_ISREG(st.st_mode))
        ok = hv_fail(error, HV_USAGE, "%s: a file is wanted", from);
    const struct entry entry = { st.st_mode, (uint64_t)st.st_size, 0, st.st_mtime };
    ok = ok && enter(newc, path, &new, error) &&
         (!new || (head(newc, path, &entry, error) && copy(newc, from, fd, entry.size, error)));
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool put_link(struct newc *newc, const char *path, const char *from, GError **error)
{
    g_autoptr(GError) why = NULL;
    g_autofree char *to = g_file_read_link(from, &why);
    return to ? newc_link(newc, path, to, error)
              : hv_fail(error, HV_FAILED, "%s: %s", from, why->message);
}

static bool put_folder(struct newc *newc, const char *path, const char *from, GError **error);

static bool put_any(struct newc *newc, const char *path, const char *from, GError **error)
{
    struct stat st;
    if (lstat(from, &st) < 0)
        return hv_fail(error, HV_FAILED, "%s: %s", from, g_strerror(errno));
    const struct entry entry = { .mode = st.st_mode,
                                 .device = S_ISFIFO(st.st_mode) ? 0 : st.st_rdev,
                                 .time = st.st_mtime };
    switch (st.st_mode & S_IFMT) {
    case S_IFREG:
        return newc_file(newc, path, from, error);
    case S_IFLNK:
        return put_link(newc, path, from, error);
    case S_IFDIR: {
        const struct entry folder = { .mode = st.st_mode, .time = st.st_mtime };
        bool new;
        return enter(newc, path, &new, error) && (!new || head(newc, path, &folder, error)) &&
               put_folder(newc, path, from, error);
    }
    case S_IFSOCK:
        return true;
    default:
        return put_data(newc, path, &entry, "", error);
    }
}

static bool put_folder(struct newc *newc, const char *path, const char *from, GError **error)
{
    g_autoptr(GError) why = NULL;
    g_autoptr(GDir) dir = g_dir_open(from, 0, &why);
    const char *name;
    bool ok = dir || hv_fail(error, HV_FAILED, "%s: %s", from, why->message);
    while (ok && (name = g_dir_read_name(dir))) {
        g_autofree char *inside = g_build_filename(*path ? path : "/", name, NULL);
        g_autofree char *outside = g_build_filename(from, name, NULL);
        ok = put_any(newc, inside, outside, error);
    }
    return ok;
}

bool newc_tree(struct newc *newc, const char *folder, GError **error)
{
    return put_folder(newc, "", folder, error);
}

bool newc_end(struct newc *newc, GError **error)
{
    const struct entry none = { 0 };
    return head(newc, "TRAILER!!!", &none, error);
}
