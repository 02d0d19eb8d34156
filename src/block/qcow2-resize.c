/* Another size for the disk in a qcow2 image. Larger, also while it is used: what is new reads as
 * zeros, whatever the disk below has there. Smaller: what is behind the new end is given back,
 * after the header says so. */
#include "block/qcow2-core.h"

#include "block/raw.h"

#include <errno.h>

static int put_size(struct qcow2 *qcow2, uint64_t size)
{
    uint64_t before = qcow2->header.size;
    qcow2->header.size = size;
    int error = qcow2_write_header(qcow2);
    if (!error)
        error = qcow2_sync(qcow2);
    if (error)
        qcow2->header.size = before;
    return error;
}

/* --- larger ---------------------------------------------------------------------------------- */

/* An L1 table with room for more entries takes the place of the one that is there. */
static int grow_l1(struct qcow2 *qcow2, size_t size)
{
    struct qcow2_header *header = &qcow2->header;
    uint64_t clusters = (size * 8 + qcow2->cluster - 1) >> qcow2->bits, first;
    uint64_t old = header->l1_at, old_size = header->l1_size;
    struct table_change all = { 0, size };
    uint64_t *l1 = g_try_new0(uint64_t, size);
    if (!l1)
        return ENOMEM;
    memcpy(l1, qcow2->l1, qcow2->l1_size * 8);
    int error = qcow2_allocate_row(qcow2, clusters, &first);
    if (error) {
        g_free(l1);
        return error;
    }
    error = table_write_change(qcow2->mapped.file, first << qcow2->bits, l1, &all);
    if (!error)
        error = qcow2_write_back(qcow2);
    if (error) {
        if (qcow2_release(qcow2, first, clusters))
            qcow2->losing = true;
        g_free(l1);
        return error;
    }
    header->l1_at = first << qcow2->bits;
    header->l1_size = (uint32_t)size;
    error = qcow2_write_header(qcow2);
    if (!error)
        error = qcow2_sync(qcow2);
    if (error) {
        header->l1_at = old;
        header->l1_size = (uint32_t)old_size;
        /* Which of them the file names is not known, unless this can be written. */
        if (error != ENOSPC && error != EDQUOT && qcow2_write_header(qcow2))
            qcow2->broken = true;
        qcow2->losing = true;
        g_free(l1);
        return error;
    }
    mapped_lock(&qcow2->mapped);
    g_free(qcow2->l1);
    qcow2->l1 = l1;
    qcow2->l1_size = size;
    mapped_unlock(&qcow2->mapped);
    return old_size ? qcow2_release(qcow2, old >> qcow2->bits,
                                    (old_size * 8 + qcow2->cluster - 1) >> qcow2->bits)
                    : 0;
}

/* Requests come and go meanwhile. */
static void show_size(struct qcow2 *qcow2, uint64_t size)
{
    mapped_lock(&qcow2->mapped);
    qcow2->mapped.worker.disk.size = size;
    qcow2->mapped.dirty = true;
    mapped_unlock(&qcow2->mapped);
}

/* What a shrinking that did not come to its end has left behind the end of the disk. */
static int drop_rest(struct qcow2 *qcow2, uint64_t from, uint64_t size)
{
    uint64_t whole = 1ULL << qcow2->l1_bits, end;
    int error = 0;
    for (; from < size && !error; from = end) {
        end = MIN(from / whole * whole + whole, size);
        if (qcow2->l1[from >> qcow2->l1_bits] & ENTRY_OFFSET)
            error = qcow2_drop(qcow2, from, end - from);
    }
    return error;
}

static int grow(struct qcow2 *qcow2, uint64_t size)
{
    struct disk *disk = &qcow2->mapped.worker.disk;
    const struct disk *below = qcow2->mapped.below;
    uint64_t before = disk->size, cluster = qcow2->cluster;
    size_t l1_size = (size + (1ULL << qcow2->l1_bits) - 1) >> qcow2->l1_bits;
    int error = l1_size > qcow2->l1_size ? grow_l1(qcow2, l1_size) : 0;
    if (error)
        return error;
    /* The rest of the last cluster, and what would show through from below, in whole clusters. */
    uint64_t whole = MAX(before, below ? below->size : 0);
    whole += (cluster - whole % cluster) % cluster;
    uint64_t end = MIN(whole, size);
    show_size(qcow2, size);
    struct disk_request zeros = {
        .op = DISK_WRITE_ZEROES, .offset = before, .at = before, .length = end - before
    };
    if (end > before) {
        g_mutex_unlock(&qcow2->mapped.work);
        error = disk->ops->now(disk, &zeros);
        g_mutex_lock(&qcow2->mapped.work);
    }
    if (!error)
        error = drop_rest(qcow2, whole, size);
    if (!error)
        error = qcow2_write_back(qcow2);
    if (!error)
        error = put_size(qcow2, size);
    if (error)
        show_size(qcow2, before);
    return error;
}

/* --- smaller --------------------------------------------------------------------------------- */

/* All that an L2 table names, and the table. */
static int drop_table(struct qcow2 *qcow2, size_t i)
{
    uint64_t start = (uint64_t)i << qcow2->l1_bits,
             step = 1ULL << (qcow2->bits + qcow2->slice_bits);
    int error = 0;
    for (uint64_t at = 0; at < 1ULL << qcow2->l1_bits && !error; at += step) {
        struct table_piece *slice;
        error = qcow2_own_slice(qcow2, start + at, &slice);
        for (unsigned k = 0; k < 1U << qcow2->slice_bits && !error; k++) {
            uint8_t *entry = qcow2_entry(qcow2, slice, k);
            qcow2_lose_entry(qcow2, be64_at(entry));
            memset(entry, 0, 1ULL << qcow2->entry_bits);
        }
        if (!error) {
            table_dirty(&qcow2->l2, slice);
            error = qcow2_settle(qcow2);
        }
    }
    return error;
}

/* The L2 tables stay: they are small. */
static int shrink(struct qcow2 *qcow2, uint64_t size)
{
    struct disk *disk = &qcow2->mapped.worker.disk;
    uint64_t whole = 1ULL << qcow2->l1_bits, cluster = qcow2->cluster;
    uint64_t before = disk->size, from = (size + cluster - 1) / cluster * cluster;
    uint64_t part = MIN((from + whole - 1) / whole * whole, before);
    int error = put_size(qcow2, size);
    if (error)
        return error;
    if (from < part)
        error = qcow2_drop(qcow2, from, part - from);
    for (size_t i = (from + whole - 1) / whole; i << qcow2->l1_bits < before && !error; i++)
        if (qcow2->l1[i] & ENTRY_OFFSET)
            error = drop_table(qcow2, i);
    if (!error)
        error = qcow2_write_back(qcow2);
    show_size(qcow2, size);
    return error;
}

int qcow2_resize(struct disk *disk, uint64_t size)
{
    struct qcow2 *qcow2 = (struct qcow2 *)disk;
    if (disk->readonly || !size || size % SECTOR || size > (uint64_t)INT64_MAX - qcow2->cluster ||
        (size + (1ULL << qcow2->l1_bits) - 1) >> qcow2->l1_bits > MAX_L1 / 8)
        return EINVAL;
    if (qcow2->header.version < 3 && qcow2->header.snapshots)
        return ENOTSUP; /* they keep no size of their own */
    g_mutex_lock(&qcow2->mapped.work);
    int error = qcow2_begin(qcow2);
    if (!error && size != disk->size)
        error = size > disk->size ? grow(qcow2, size) : shrink(qcow2, size);
    g_mutex_unlock(&qcow2->mapped.work);
    return error;
}
