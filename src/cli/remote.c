/* Disks on servers; see remote.h. */
#include "cli/remote.h"

#include "base/error.h"
#include "block/disk.h"
#include "block/format.h"
#include "block/image.h"
#include "block/remote.h"
#include "cli/cli.h"
#include "cli/url.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* The socket of an hv-remote for the URL; -1 with an error. */
static int start(const char *url, GError **error)
{
    int ends[2];
    g_autofree char *program = program_path("hv-remote");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
        hv_fail(error, HV_HOST, "socketpair: %s", g_strerror(errno));
        return -1;
    }
    g_autofree char *number = g_strdup_printf("%d", ends[1]);
    char *argv[] = { (char *)"hv-remote", number, (char *)(uintptr_t)url, NULL };
    int result = program_start(program, argv, &ends[1], 1, false);
    close(ends[1]);
    if (!result)
        return ends[0];
    hv_fail(error, HV_HOST, "%s cannot be started: %s", program, g_strerror(result));
    close(ends[0]);
    return -1;
}

/* Another disk over the same socket, for as long as that has no other. */
static struct disk *look(int socket, const char *name, bool readonly, GError **error)
{
    int fd = fcntl(socket, F_DUPFD_CLOEXEC, 3);
    struct disk *disk = fd < 0 ? NULL : remote_open(fd, name, readonly, error);
    if (!disk && fd >= 0)
        close(fd);
    return disk;
}

/* A sparse file in memory, as large as the disk, with what image_probe looks at; -1. */
static int sample(struct disk *disk)
{
    enum { HEAD = 64 << 10 };
    uint64_t tail = disk->size - SECTOR;
    g_autofree uint8_t *data = g_malloc0(HEAD);
    size_t head = MIN((uint64_t)HEAD, disk->size);
    int fd = memfd_create("hv-sample", MFD_CLOEXEC);
    bool ok = fd >= 0 && ftruncate(fd, (off_t)disk->size) == 0 && !disk_read(disk, data, head, 0) &&
              pwrite(fd, data, head, 0) == (ssize_t)head && !disk_read(disk, data, SECTOR, tail) &&
              pwrite(fd, data, SECTOR, (off_t)tail) == SECTOR;
    if (ok)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool probe(struct disk *disk, struct image_info *info, GError **error)
{
    int fd = sample(disk);
    if (fd < 0)
        return hv_fail(error, HV_FAILED, "%s: cannot be read", disk->name);
    bool ok = image_probe(fd, disk->name, info, error);
    close(fd);
    return ok;
}

bool remote_probe(const char *url, struct image_info *info, GError **error)
{
    g_autofree char *name = url_plain(url);
    int socket = start(url, error);
    struct disk *disk = socket < 0 ? NULL : look(socket, name, true, error);
    bool ok = disk && probe(disk, info, error);
    disk_free(disk);
    if (socket >= 0)
        close(socket);
    return ok;
}

/* What is there: a file on a web server may be an image of any format; a server of disks has disks,
 * and what a guest wrote there does not make it anything else. */
static const struct format *settle_format(const char *url, struct disk *disk, GError **error)
{
    struct image_info info;
    if (!probe(disk, &info, error) || !image_usable(&info, disk->name, error))
        return NULL;
    if (info.format == &raw_format || url_is_web(url))
        return info.format;
    hv_fail(error, HV_USAGE,
            "%s looks like %s: if it is one, use it with format=%s,readonly, and if a guest wrote "
            "that, with format=raw (--disk URL,format=...)",
            disk->name, info.format->what, info.format->name);
    return NULL;
}

/* An image on a server is one file. */
static bool stands_alone(const struct format *format, struct disk *disk, GError **error)
{
    g_autoptr(GPtrArray) links = g_ptr_array_new_with_free_func(format_link_free);
    if (format->links && !format->links(disk, disk->name, links, error))
        return false;
    return !links->len ||
           hv_fail(error, HV_USAGE,
                   "%s lies on another file, or has parts: from a server, hv reads images that are "
                   "one file",
                   disk->name);
}

static const struct format *judge(const char *url, int socket, const char *name,
                                  const struct chain_rules *rules, GError **error)
{
    struct disk *disk = look(socket, name, rules->readonly, error);
    const struct format *format = NULL;
    if (disk)
        format = rules->format ? format_named(rules->format) : settle_format(url, disk, error);
    bool ok = format && (rules->alone || stands_alone(format, disk, error));
    if (ok && !rules->readonly && format != &raw_format)
        ok = hv_fail(error, HV_USAGE,
                     "%s: over the network, hv writes raw disks only: readonly or --throwaway "
                     "needs no writing",
                     name);
    disk_free(disk);
    return ok ? format : NULL;
}

struct chain *remote_chain(const char *url, const struct chain_rules *rules, GError **error)
{
    g_autofree char *name = url_plain(url);
    int socket = start(url, error);
    if (socket < 0)
        return NULL;
    struct chain *chain = chain_new(socket, name, NULL, rules->readonly);
    chain->remote = true;
    chain->path = g_steal_pointer(&name);
    chain->format = judge(url, socket, chain->name, rules, error);
    if (!chain->format)
        g_clear_pointer(&chain, chain_free);
    return chain;
}

bool remote_measure(const struct chain *chain, uint64_t *size, char **named, GError **error)
{
    int fd = fcntl(chain->fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return hv_fail(error, HV_FAILED, "%s: %s", chain->name, g_strerror(errno));
    struct disk *disk = look(chain->fd, chain->name, true, error);
    if (!disk) {
        close(fd);
        return false;
    }
    *named = g_strdup_printf("%s#%s", chain->name, disk->mark ? disk->mark : "");
    disk_free(disk);
    g_autoptr(image_chain) copy = chain_new(fd, chain->name, chain->format, true);
    copy->remote = true;
    disk = chain_disk(copy, error);
    if (!disk)
        return false;
    *size = disk->size;
    disk_free(disk);
    return true;
}

struct chain *remote_or_file(const char *path, const struct chain_rules *rules, GError **error)
{
    return url_is_disk(path) ? remote_chain(path, rules, error) : chain_open(path, rules, error);
}
