/* Throwaway disks; see overlay.h. The file has the same offsets as the disk below; one bit for each
 * block of 4 KiB says who has it. */
#include "block/overlay.h"

#include "base/error.h"
#include "block/mapped.h"
#include "block/raw.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BLOCK = 4096, MAP_AT_ONCE = 16 << 20 };

struct overlay {
    struct mapped mapped;
    uint8_t *own; /* bit map: blocks that the file has */
};

static bool owns(const struct overlay *overlay, uint64_t at)
{
    uint64_t block = at / BLOCK;
    return overlay->own[block / 8] >> block % 8 & 1;
}

static bool peek(struct mapped *mapped, uint64_t offset, uint64_t length, struct extent *extent)
{
    const struct overlay *overlay = (struct overlay *)mapped;
    uint64_t end = MIN(offset + length, mapped->worker.disk.size);
    uint64_t at = (offset / BLOCK + 1) * BLOCK;
    bool own = owns(overlay, offset);
    end = MIN(end, offset + MAP_AT_ONCE);
    while (at < end && owns(overlay, at) == own)
        at += BLOCK;
    *extent = (struct extent){
        .kind = own ? EXTENT_DATA : EXTENT_BELOW,
        .writable = own,
        .length = at - offset,
        .at = offset,
    };
    return true;
}

static int map(struct mapped *mapped, uint64_t offset, uint64_t length, struct extent *extent)
{
    peek(mapped, offset, length, extent);
    return 0;
}

/* Blocks were never written, or hold what a write that failed left there. */
static int allocate(struct mapped *mapped, uint64_t offset, uint64_t length, struct place *place)
{
    uint64_t start = offset / BLOCK * BLOCK;
    (void)mapped;
    length = MIN(length, MAP_AT_ONCE);
    *place = (struct place){
        .start = start,
        .length = (offset + length - start + BLOCK - 1) / BLOCK * BLOCK,
        .at = start,
    };
    return 0;
}

static int commit(struct mapped *mapped, const struct place *place)
{
    struct overlay *overlay = (struct overlay *)mapped;
    uint64_t first = place->start / BLOCK, count = place->length / BLOCK;
    mapped_lock(mapped);
    for (uint64_t block = first; block < first + count; block++)
        overlay->own[block / 8] |= (uint8_t)(1 << block % 8);
    mapped_unlock(mapped);
    return 0;
}

static void cancel(struct mapped *mapped, const struct place *place)
{
    (void)mapped;
    (void)place;
}

static int zero(struct mapped *mapped, uint64_t offset, uint64_t length, bool discard)
{
    struct place place = {
        .start = offset,
        .length = (length + BLOCK - 1) / BLOCK * BLOCK,
        .at = offset,
    };
    int error = raw_zero(mapped->file, offset, length);
    (void)discard; /* zeros of a file in memory take no room, or little */
    return error ? error : commit(mapped, &place);
}

/* Promises nothing. */
static int flush(struct mapped *mapped)
{
    (void)mapped;
    return 0;
}

static void close_overlay(struct mapped *mapped)
{
    g_free(((struct overlay *)mapped)->own);
}

static const struct mapped_format format = {
    .name = "throwaway",
    .peek = peek,
    .map = map,
    .allocate = allocate,
    .commit = commit,
    .cancel = cancel,
    .zero = zero,
    .flush = flush,
    .close = close_overlay,
};

static struct disk *open_file(const struct disk *below, GError **error)
{
    int fd = memfd_create("hv-throwaway", MFD_CLOEXEC);
    struct disk *file = NULL;
    if (fd < 0 || TEMP_FAILURE_RETRY(ftruncate(fd, (off_t)below->size)) < 0)
        hv_fail(error, HV_HOST, "%s: cannot make the place for throwaway writes: %s", below->name,
                g_strerror(errno));
    else
        file = raw_open(fd, below->name, false, error);
    if (!file && fd >= 0)
        close(fd);
    return file;
}

struct disk *overlay_open(struct disk *below, GError **error)
{
    struct disk *file = open_file(below, error);
    if (!file)
        return NULL;
    uint64_t blocks = (below->size + BLOCK - 1) / BLOCK;
    struct overlay *overlay = g_new0(struct overlay, 1);
    overlay->own = g_try_malloc0(blocks / 8 + 1);
    if (!overlay->own || !mapped_init(&overlay->mapped, &format, below->name, file, below, BLOCK)) {
        hv_fail(error, HV_HOST, "%s: there is no memory for throwaway writes", below->name);
        g_free(overlay->own);
        g_free(overlay);
        disk_free(file);
        return NULL;
    }
    struct disk *disk = &overlay->mapped.worker.disk;
    disk->size = below->size;
    g_free(disk->identity); /* the machine has the disk below, not the file */
    disk->identity = g_strdup(below->identity);
    overlay->mapped.dirty = true; /* no flush reaches the file */
    return disk;
}
