/* Checks and repairs of qcow2 images: counts what names each cluster, and compares that with its
 * refcount; then the flags of L1 and L2 entries that depend on it. The image is not in use.
 *
 * Memory is bounded: the counts are those of a window of the file, and all tables are read again
 * for each window that has something. */
#include "block/qcow2-core.h"

#include "base/error.h"
#include "block/raw.h"

#include <errno.h>

enum {
    WINDOW = 1 << 21,      /* clusters at most; 8 MiB of counts */
    CHUNK = 64 * 1024,     /* bytes of a table */
    MAX_BITMAPS = 16 << 20 /* bytes of their directory */
};

struct check {
    struct qcow2 *qcow2;
    struct format_report *report;
    uint8_t *chunk;
    uint32_t *counts;
    uint64_t window; /* clusters */
    uint64_t base;   /* the first of them */
    uint64_t next;   /* the first cluster behind it that something names */
    uint64_t most;   /* the cluster behind the last one that something names */
    uint64_t budget; /* bytes left; UINT64_MAX: any number */
    bool repair;
    bool first; /* the tables are read for the first time: what is wrong in them is counted */
};

/* --- counting -------------------------------------------------------------------------------- */

static void fault(struct check *check)
{
    if (check->first)
        check->report->corruptions++;
}

static void refer(struct check *check, uint64_t at, uint64_t length)
{
    unsigned bits = check->qcow2->bits;
    uint64_t end = (at + length + check->qcow2->cluster - 1) >> bits;
    uint64_t from = MAX(at >> bits, check->base), to = MIN(end, check->base + check->window);
    if (!length)
        return;
    for (uint64_t i = from; i < to; i++) {
        uint32_t *count = &check->counts[i - check->base];
        *count += *count < UINT32_MAX;
    }
    if (end > check->base + check->window)
        check->next = MIN(check->next, MAX(at >> bits, check->base + check->window));
    check->most = MAX(check->most, end);
}

/* A table within the file, or what is said to be one. */
static bool refer_table(struct check *check, uint64_t at, uint64_t length)
{
    const struct qcow2 *qcow2 = check->qcow2;
    if (length && (!qcow2_sane(qcow2, at) || length > qcow2->end - at)) {
        fault(check);
        return false;
    }
    refer(check, at, length);
    return true;
}

static int take_budget(struct check *check, size_t length)
{
    if (check->budget == UINT64_MAX)
        return 0;
    if (check->budget < length)
        return E2BIG;
    check->budget -= length;
    return 0;
}

/* Calls `entries` for a table of `size` bytes, a chunk at a time. */
static int each_chunk(struct check *check, uint64_t at, uint64_t size,
                      void (*entries)(struct check *check, const uint8_t *chunk, size_t length,
                                      bool active),
                      bool active)
{
    int error = 0;
    size_t n;
    for (uint64_t done = 0; done < size && !error; done += n) {
        n = (size_t)MIN(size - done, CHUNK);
        error = take_budget(check, n);
        if (!error)
            error = raw_read(check->qcow2->mapped.file, check->chunk, n, at + done);
        if (!error)
            entries(check, check->chunk, n, active);
    }
    return error;
}

static void count_entries(struct check *check, const uint8_t *chunk, size_t length, bool active)
{
    const struct qcow2 *qcow2 = check->qcow2;
    struct format_report *report = check->report;
    bool tally = active && check->first;
    for (size_t i = 0; i < length; i += 1ULL << qcow2->entry_bits) {
        uint64_t entry = be64_at(chunk + i), at = entry & ENTRY_OFFSET, size = qcow2->cluster;
        bool packed = entry & ENTRY_PACKED;
        if (!packed && !at)
            continue;
        if (packed ? !qcow2_packed_range(qcow2, entry, &at, &size) : !qcow2_sane(qcow2, at)) {
            fault(check);
            continue;
        }
        if (packed) { /* to the end of its last cluster, from the start of its first */
            size += at & (qcow2->cluster - 1);
            at &= ~(qcow2->cluster - 1);
        }
        refer(check, at, size);
        report->allocated += tally;
        report->packed += tally && packed;
    }
}

static int count_table(struct check *check, uint64_t l1_entry, bool active)
{
    uint64_t at = l1_entry & ENTRY_OFFSET, size = check->qcow2->cluster;
    if (!at || !refer_table(check, at, size))
        return 0;
    return each_chunk(check, at, size, count_entries, active);
}

static int count_snapshot(struct check *check, const struct qcow2_snapshot *snapshot)
{
    struct disk *file = check->qcow2->mapped.file;
    uint64_t some[512];
    int error = 0;
    size_t n;
    if (!refer_table(check, snapshot->l1_at, snapshot->l1_size * 8))
        return 0;
    for (uint64_t i = 0; i < snapshot->l1_size && !error; i += n) {
        n = MIN(snapshot->l1_size - i, G_N_ELEMENTS(some));
        error = take_budget(check, n * 8);
        if (!error)
            error = table_read_all(file, snapshot->l1_at + i * 8, some, n);
        for (size_t k = 0; k < n && !error; k++)
            error = count_table(check, some[k], false);
    }
    return error;
}

/* --- bitmaps, of which only the clusters matter ------------------------------------------------
 */

static void count_bitmap_entries(struct check *check, const uint8_t *chunk, size_t length,
                                 bool active)
{
    (void)active;
    for (size_t i = 0; i < length; i += 8) {
        uint64_t at = be64_at(chunk + i) & ENTRY_OFFSET;
        if (at)
            refer_table(check, at, check->qcow2->cluster);
    }
}

static int count_bitmaps(struct check *check)
{
    struct qcow2 *qcow2 = check->qcow2;
    struct disk *file = qcow2->mapped.file;
    size_t length = 0;
    g_autofree uint8_t *extension = qcow2_extension(file, &qcow2->header, EXT_BITMAPS, &length);
    if (!extension || length < 24)
        return 0;
    uint64_t size = be64_at(extension + 8), directory = be64_at(extension + 16), done = 0;
    uint8_t entry[24];
    int error = 0;
    if (size > MAX_BITMAPS || !refer_table(check, directory, size))
        return 0;
    for (; done + sizeof entry <= size && !error;) {
        error = take_budget(check, sizeof entry);
        if (!error)
            error = raw_read(file, entry, sizeof entry, directory + done);
        uint64_t table = be64_at(entry), bytes = be32_at(entry + 8) * 8ULL;
        if (!error && refer_table(check, table, bytes))
            error = each_chunk(check, table, bytes, count_bitmap_entries, false);
        done += (sizeof entry + be16_at(entry + 18) + (uint64_t)be32_at(entry + 20) + 7) / 8 * 8;
    }
    return error;
}

/* --- a window -------------------------------------------------------------------------------- */

static int count_all(struct check *check)
{
    struct qcow2 *qcow2 = check->qcow2;
    const struct qcow2_header *header = &qcow2->header;
    int error = 0;
    memset(check->counts, 0, check->window * sizeof *check->counts);
    if (!check->first && check->next >= check->base + check->window)
        return 0; /* nothing is named there: only refcounts are */
    check->next = UINT64_MAX;
    refer(check, 0, qcow2->cluster);
    refer_table(check, header->l1_at, header->l1_size * 8ULL);
    refer_table(check, header->refcount_table_at,
                (uint64_t)header->refcount_table_clusters << qcow2->bits);
    refer_table(check, header->snapshots_at, qcow2->snapshot_table_length);
    for (size_t i = 0; i < qcow2->refcount_table_used; i++)
        if (qcow2->refcount_table[i])
            refer(check, qcow2->refcount_table[i], qcow2->cluster);
    for (size_t i = 0; i < qcow2->l1_size && !error; i++)
        error = count_table(check, qcow2->l1[i], true);
    for (uint32_t i = 0; i < header->snapshots && !error; i++)
        error = count_snapshot(check, &qcow2->snapshots[i]);
    if (!error)
        error = count_bitmaps(check);
    check->first = false;
    return error;
}

static uint32_t counted(const struct check *check, uint64_t cluster)
{
    return cluster - check->base < check->window ? check->counts[cluster - check->base] : 0;
}

/* Refcounts for which there is no block, or one that is something else too, get one. True in
 * *made: count once more. */
static int mend_blocks(struct check *check, bool *made)
{
    struct qcow2 *qcow2 = check->qcow2;
    for (size_t i = 0; i < qcow2->refcount_table_used; i++)
        if (qcow2->refcount_table[i] &&
            counted(check, qcow2->refcount_table[i] >> qcow2->bits) > 1) {
            qcow2_drop_block(qcow2, i);
            check->report->corruptions++;
            check->report->corruptions_fixed++;
            *made = true;
        }
    for (uint64_t k = 0; k < check->window; k++) {
        size_t i = (check->base + k) >> qcow2->block_bits;
        if (!check->counts[k] || (i < qcow2->refcount_table_size && qcow2->refcount_table[i]))
            continue;
        int error = qcow2_rebuild_block(qcow2, i);
        if (error)
            return error;
        *made = true;
    }
    return 0;
}

static int compare_one(struct check *check, uint64_t cluster)
{
    struct qcow2 *qcow2 = check->qcow2;
    struct format_report *report = check->report;
    uint64_t stored, real = counted(check, cluster);
    int error = qcow2_get_refcount(qcow2, cluster, &stored);
    if (error || stored == real)
        return error;
    if (stored < real)
        report->corruptions++;
    else
        report->leaks++;
    if (!check->repair)
        return 0;
    error = qcow2_set_refcount(qcow2, cluster, real);
    if (error == ERANGE) /* more than the width of refcounts allows */
        return 0;
    if (stored < real)
        report->corruptions_fixed += !error;
    else
        report->leaks_fixed += !error;
    if (!real && !error)
        raw_punch(qcow2->mapped.file, cluster << qcow2->bits, qcow2->cluster);
    return error;
}

static int check_window(struct check *check)
{
    struct qcow2 *qcow2 = check->qcow2;
    bool made = false;
    int error = count_all(check);
    if (!error && check->repair)
        error = mend_blocks(check, &made);
    if (!error && made)
        error = qcow2_write_refcounts(qcow2); /* a table that grew is where it is then */
    check->next = made ? 0 : check->next;
    if (!error && made)
        error = count_all(check);
    uint64_t per_piece = 1ULL << qcow2->refs_bits;
    for (uint64_t k = 0, n; k < check->window && !error; k += n) {
        uint64_t cluster = check->base + k, block = cluster >> qcow2->block_bits;
        bool none = block >= qcow2->refcount_table_used || !qcow2->refcount_table[block];
        n = MIN(per_piece - cluster % per_piece, check->window - k);
        for (uint64_t i = 0; i < n && !error; i++)
            if (!none || check->counts[k + i])
                error = compare_one(check, cluster + i);
    }
    return error;
}

/* The next window in which there is a reference, or a block of refcounts; 0: none. */
static uint64_t next_window(const struct check *check)
{
    const struct qcow2 *qcow2 = check->qcow2;
    uint64_t end = check->base + check->window, next = check->next;
    for (size_t i = end >> qcow2->block_bits; i < qcow2->refcount_table_used; i++)
        if (qcow2->refcount_table[i]) {
            next = MIN(next, MAX(end, (uint64_t)i << qcow2->block_bits));
            break;
        }
    return next == UINT64_MAX ? 0 : next;
}

/* --- flags ----------------------------------------------------------------------------------- */

/* Sets or clears the flag of an entry for a cluster as its refcount wants; true when it was wrong.
 */
static int mend_flag(struct check *check, uint64_t *entry, bool *wrong)
{
    struct qcow2 *qcow2 = check->qcow2;
    uint64_t at = *entry & ENTRY_OFFSET, count;
    *wrong = false;
    if (*entry & ENTRY_PACKED || !at || !qcow2_sane(qcow2, at))
        return 0;
    int error = qcow2_get_refcount(qcow2, at >> qcow2->bits, &count);
    *wrong = !error && (count == 1) != !!(*entry & ENTRY_COPIED);
    if (*wrong) {
        *entry ^= ENTRY_COPIED;
        check->report->corruptions++;
        check->report->corruptions_fixed += check->repair;
    }
    return error;
}

static int mend_table(struct check *check, uint64_t at)
{
    struct qcow2 *qcow2 = check->qcow2;
    int error = 0;
    size_t n;
    for (uint64_t done = 0; done < qcow2->cluster && !error; done += n) {
        bool changed = false;
        n = (size_t)MIN(qcow2->cluster - done, CHUNK);
        error = take_budget(check, n);
        if (!error)
            error = raw_read(qcow2->mapped.file, check->chunk, n, at + done);
        for (size_t i = 0; i < n && !error; i += 1ULL << qcow2->entry_bits) {
            uint64_t entry = be64_at(check->chunk + i);
            bool wrong;
            error = mend_flag(check, &entry, &wrong);
            put_be64(check->chunk + i, entry);
            changed |= wrong;
        }
        if (!error && changed && check->repair)
            error = raw_write(qcow2->mapped.file, check->chunk, n, at + done);
    }
    return error;
}

static int mend_flags(struct check *check)
{
    struct qcow2 *qcow2 = check->qcow2;
    int error = 0;
    for (size_t i = 0; i < qcow2->l1_size && !error; i++) {
        uint64_t entry = qcow2->l1[i], at = entry & ENTRY_OFFSET;
        bool wrong;
        if (!at || !qcow2_sane(qcow2, at))
            continue;
        error = mend_flag(check, &entry, &wrong);
        if (!error)
            error = mend_table(check, at);
        if (wrong && check->repair) {
            qcow2->l1[i] = entry;
            table_changed(&qcow2->l1_change, i);
        }
    }
    return error;
}

/* --- all ------------------------------------------------------------------------------------- */

/* Entries of the refcount table that cannot be are counted, and forgotten. */
static void judge_blocks(struct check *check)
{
    struct qcow2 *qcow2 = check->qcow2;
    for (size_t i = 0; i < qcow2->refcount_table_used; i++)
        if (qcow2->refcount_table[i] && !qcow2_sane(qcow2, qcow2->refcount_table[i])) {
            check->report->corruptions++;
            check->report->corruptions_fixed += check->repair;
            qcow2_drop_block(qcow2, i);
        }
}

int qcow2_compare(struct qcow2 *qcow2, bool repair, uint64_t budget, struct format_report *report)
{
    struct check check = {
        .qcow2 = qcow2,
        .report = report,
        .repair = repair,
        .budget = budget ? budget : UINT64_MAX,
        .first = true,
        .chunk = g_try_malloc(CHUNK),
        .window = 1024,
    };
    while (check.window < WINDOW && check.window < qcow2->virgin)
        check.window *= 2;
    check.counts = g_try_new(uint32_t, check.window);
    bool lazy = qcow2->lazy;
    qcow2->lazy = false;
    int error = check.chunk && check.counts ? 0 : ENOMEM;
    *report = (struct format_report){
        .clusters = (qcow2->header.size + qcow2->cluster - 1) >> qcow2->bits,
    };
    if (!error && repair)
        error = qcow2_begin(qcow2);
    if (!error)
        judge_blocks(&check);
    do {
        error = error ? error : check_window(&check);
        check.base = error ? 0 : next_window(&check);
    } while (check.base && !error);
    if (!error && repair)
        error = qcow2_write_refcounts(qcow2);
    if (!error)
        error = mend_flags(&check);
    if (!error && repair)
        error = qcow2_write_back(qcow2);
    report->end = check.most << qcow2->bits;
    qcow2->lazy = lazy;
    g_free(check.chunk);
    g_free(check.counts);
    return error;
}

bool qcow2_check(struct disk *file, const char *name, bool repair, struct format_report *report,
                 GError **error)
{
    struct qcow2 qcow2 = { 0 };
    struct qcow2_header *header = &qcow2.header;
    bool ok = qcow2_load(&qcow2, file, name, true, error);
    if (ok && repair && file->readonly)
        ok = hv_fail(error, HV_USAGE, "%s is readonly and cannot be repaired", name);
    if (ok) {
        int failure = qcow2_compare(&qcow2, repair, 0, report);
        if (!failure && repair && report->corruptions == report->corruptions_fixed) {
            header->incompatible &= ~(uint64_t)(QCOW2_DIRTY | QCOW2_CORRUPT);
            failure = qcow2_write_header(&qcow2);
            if (!failure)
                failure = qcow2_sync(&qcow2);
        }
        ok = !failure ||
             hv_fail(error, HV_FAILED, "%s: cannot be checked: %s", name, g_strerror(failure));
    }
    qcow2_unload(&qcow2);
    return ok;
}
