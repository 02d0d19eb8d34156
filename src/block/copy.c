/* Copying disks; see copy.h. */
#include "block/copy.h"

#include "base/error.h"
#include "block/disk.h"

#include <string.h>

enum { STEP = 2 << 20, BLOCK = 4096 /* zeros are looked for in blocks of this size */ };

static bool is_zero(const uint8_t *data, uint64_t length)
{
    return !data[0] && !memcmp(data, data + 1, length - 1);
}

static bool failed(const struct disk *disk, const char *verb, int reason, GError **error)
{
    return hv_fail(error, HV_FAILED, "%s: cannot be %s: %s", disk->name, verb, g_strerror(reason));
}

/* Writes the runs of blocks that are not zeros. */
static bool write_data(const struct copy *copy, const uint8_t *data, uint64_t length, uint64_t at,
                       GError **error)
{
    for (uint64_t start = 0, end; start < length; start = end) {
        bool zero = is_zero(data + start, MIN(BLOCK, length - start));
        for (end = start; end < length && is_zero(data + end, MIN(BLOCK, length - end)) == zero;)
            end += MIN(BLOCK, length - end);
        int reason = zero ? 0 : disk_write(copy->to, data + start, end - start, at + start);
        if (reason)
            return failed(copy->to, "written", reason, error);
    }
    return true;
}

static bool copy_all(const struct copy *copy, uint8_t *data, GError **error)
{
    uint64_t size = copy->from->size;
    for (uint64_t at = 0; at < size;) {
        struct disk_piece piece;
        int reason = disk_piece(copy->from, at, size - at, &piece);
        uint64_t length = piece.zero ? piece.length : MIN(piece.length, STEP);
        if (!reason && !piece.zero)
            reason = disk_read(copy->from, data, length, at);
        if (reason)
            return failed(copy->from, "read", reason, error);
        if (!piece.zero && !write_data(copy, data, length, at, error))
            return false;
        at += length;
        if (copy->progress && !copy->progress(copy->opaque, at, size))
            return false;
    }
    return true;
}

bool copy_disk(const struct copy *copy, GError **error)
{
    struct disk_request flush = { .op = DISK_FLUSH };
    uint8_t *data = g_malloc(STEP);
    bool ok = copy_all(copy, data, error);
    g_free(data);
    if (!ok)
        return false;
    int reason = disk_now(copy->to, &flush);
    return !reason || failed(copy->to, "written", reason, error);
}
