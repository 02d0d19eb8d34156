/* Copying disks; see copy.h. */
#include "block/copy.h"

#include "base/error.h"
#include "block/disk.h"

#include <string.h>

enum {
    STEP = 2 << 20,
    BLOCK = 4096, /* zeros are looked for in blocks of this size */
    UNIT = 65536, /* and differences in those */
};

/* The first of `left` bytes. */
static bool block_is_zero(const uint8_t *data, uint64_t left)
{
    return !data[0] && !memcmp(data, data + 1, MIN(BLOCK, left) - 1);
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
        bool zero = block_is_zero(data + start, length - start);
        for (end = start; end < length && block_is_zero(data + end, length - end) == zero;)
            end += MIN(BLOCK, length - end);
        int reason = zero ? 0 : disk_write(copy->to, data + start, end - start, at + start);
        if (reason)
            return failed(copy->to, "written", reason, error);
    }
    return true;
}

/* Whole steps at most, and the data of a piece that has some. */
static bool read_piece(struct disk *from, uint64_t at, struct disk_piece *piece, uint8_t *data,
                       GError **error)
{
    int reason = disk_piece(from, at, from->size - at, piece);
    if (!reason && !piece->zero) {
        piece->length = MIN(piece->length, STEP);
        reason = disk_read(from, data, piece->length, at);
    }
    return !reason || failed(from, "read", reason, error);
}

static bool finish(struct disk *disk, GError **error)
{
    const struct disk_request flush = { .op = DISK_FLUSH };
    int reason = disk_now(disk, &flush);
    return !reason || failed(disk, "written", reason, error);
}

static bool copy_all(const struct copy *copy, uint8_t *data, GError **error)
{
    struct disk_piece piece;
    uint64_t size = copy->from->size;
    for (uint64_t at = 0; at < size; at += piece.length) {
        if (!read_piece(copy->from, at, &piece, data, error) ||
            (!piece.zero && !write_data(copy, data, piece.length, at, error)))
            return false;
        if (copy->progress && !copy->progress(copy->opaque, at + piece.length, size))
            return false;
    }
    return true;
}

/* Is a step all zeros, by what the disk knows of itself? */
static int step_is_zero(struct disk *disk, uint64_t at, uint64_t length, bool *zero)
{
    struct disk_piece piece = { .length = 0 };
    int reason = 0;
    *zero = true;
    for (uint64_t done = 0; done < length && *zero && !reason; done += piece.length) {
        reason = disk_piece(disk, at + done, length - done, &piece);
        *zero = piece.zero;
    }
    return reason;
}

static bool pack_all(const struct copy *copy, uint8_t *data, GError **error)
{
    uint64_t size = copy->from->size;
    for (uint64_t at = 0, n; at < size; at += n) {
        bool zero;
        n = MIN(STEP, size - at);
        int reason = step_is_zero(copy->from, at, n, &zero);
        if (!reason && !zero)
            reason = disk_read(copy->from, data, n, at);
        if (reason)
            return failed(copy->from, "read", reason, error);
        reason = zero ? 0 : copy->pack(copy->to, data, n, at);
        if (reason)
            return failed(copy->to, "written", reason, error);
        if (copy->progress && !copy->progress(copy->opaque, at + n, size))
            return false;
    }
    return true;
}

bool copy_disk(const struct copy *copy, GError **error)
{
    g_autofree uint8_t *data = g_malloc(STEP);
    return (copy->pack ? pack_all : copy_all)(copy, data, error) && finish(copy->to, error);
}

static int clear(struct disk *disk, enum disk_op op, uint64_t length, uint64_t at)
{
    const struct disk_request request = { .op = op, .offset = at, .length = length };
    return disk_now(disk, &request);
}

bool copy_own(struct disk *from, struct disk *to, GError **error)
{
    g_autofree uint8_t *data = g_malloc(STEP);
    struct disk_piece piece;
    for (uint64_t at = 0; at < from->size; at += piece.length) {
        if (!read_piece(from, at, &piece, data, error))
            return false;
        int reason = 0;
        if (!piece.depth)
            reason = piece.zero ? clear(to, DISK_WRITE_ZEROES, piece.length, at)
                                : disk_write(to, data, piece.length, at);
        if (reason)
            return failed(to, "written", reason, error);
    }
    return finish(to, error);
}

bool copy_compact(struct disk *disk, GError **error)
{
    g_autofree uint8_t *data = g_malloc(STEP);
    struct disk_piece piece;
    for (uint64_t at = 0; at < disk->size; at += piece.length) {
        if (!read_piece(disk, at, &piece, data, error))
            return false;
        for (uint64_t start = 0, end; !piece.zero && !piece.depth && start < piece.length;
             start = end) {
            bool zero = block_is_zero(data + start, piece.length - start);
            for (end = start;
                 end < piece.length && block_is_zero(data + end, piece.length - end) == zero;)
                end += MIN(BLOCK, piece.length - end);
            int reason = zero ? clear(disk, DISK_DISCARD, end - start, at + start) : 0;
            if (reason)
                return failed(disk, "written", reason, error);
        }
    }
    return finish(disk, error);
}

/* --- differences ----------------------------------------------------------------------------- */

/* Zeros where there is something below are said in short. Behind its end a format may take that for
 * nothing to be done: there they are written. */
static int settle(const struct copy *copy, const uint8_t *data, uint64_t length, uint64_t at)
{
    bool below = copy->from && at + length <= copy->from->size;
    bool zero = !data[0] && !memcmp(data, data + 1, length - 1);
    return zero && below ? clear(copy->to, DISK_WRITE_ZEROES, length, at)
                         : disk_write(copy->to, data, length, at);
}

static int write_differences(const struct copy *copy, const uint8_t *ours, const uint8_t *theirs,
                             uint64_t length, uint64_t at)
{
    int reason = 0;
    for (uint64_t start = 0, n; start < length && !reason; start += n) {
        n = MIN(UNIT - (at + start) % UNIT, length - start);
        if (memcmp(ours + start, theirs + start, n) != 0)
            reason = settle(copy, ours + start, n, at + start);
    }
    return reason;
}

/* A disk that may be shorter, or none. */
static int other_piece(struct disk *other, uint64_t at, struct disk_piece *piece)
{
    uint64_t left = other && at < other->size ? other->size - at : 0;
    if (left)
        return disk_piece(other, at, MIN(left, piece->length), piece);
    piece->zero = true;
    return 0;
}

/* What is alike at `at`; *length becomes how much that is. `data` has room for two steps. */
static bool compare(const struct copy *copy, struct disk *other, uint8_t *data, uint64_t at,
                    uint64_t *length, GError **error)
{
    struct disk_piece ours, theirs;
    int reason = disk_piece(copy->to, at, copy->to->size - at, &ours);
    if (reason)
        return failed(copy->to, "read", reason, error);
    *length = ours.length;
    if (!ours.depth && !ours.zero)
        return true; /* it has that itself */
    theirs = ours;
    reason = other_piece(other, at, &theirs);
    *length = MIN(*length, theirs.length);
    if (!reason && ours.zero && theirs.zero)
        return true;
    *length = MIN(*length, STEP);
    memset(data + STEP, 0, *length);
    if (!reason && !theirs.zero)
        reason = disk_read(other, data + STEP, *length, at);
    if (reason)
        return failed(other, "read", reason, error);
    reason = disk_read(copy->to, data, *length, at);
    if (reason)
        return failed(copy->to, "read", reason, error);
    reason = write_differences(copy, data, data + STEP, *length, at);
    return !reason || failed(copy->to, "written", reason, error);
}

bool copy_differences(const struct copy *copy, struct disk *other, GError **error)
{
    g_autofree uint8_t *data = g_malloc(2 * STEP);
    uint64_t size = copy->to->size, length = 0;
    for (uint64_t at = 0; at < size; at += length) {
        if (!compare(copy, other, data, at, &length, error))
            return false;
        if (copy->progress && !copy->progress(copy->opaque, at + length, size))
            return false;
    }
    return finish(copy->to, error);
}
