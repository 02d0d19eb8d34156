/* Refcounts of a qcow2 image, and with them which clusters are free ("Host cluster management").
 *
 * A refcount that is too high only wastes room, so those in memory may be written at any time:
 * references are added here before anything names the cluster, and taken away when nothing in the
 * file does any more (qcow2-order.c). */
#include "block/qcow2-core.h"

#include "block/raw.h"

#include <errno.h>

enum {
    SEARCH = 4096, /* pieces looked at for a free cluster; then the file grows */
    MOST_REUSE = 256,
};

/* --- counts ---------------------------------------------------------------------------------- */

/* Widths of less than a byte begin at the least significant bit. */
static uint64_t get_count(const uint8_t *counts, unsigned order, size_t i)
{
    switch (order) {
    case 3:
        return counts[i];
    case 4:
        return be16_at(counts + i * 2);
    case 5:
        return be32_at(counts + i * 4);
    case 6:
        return be64_at(counts + i * 8);
    default:
        return counts[(i << order) / 8] >> ((i << order) % 8) & ((1U << (1U << order)) - 1);
    }
}

void qcow2_put_count(uint8_t *counts, unsigned order, size_t i, uint64_t count)
{
    unsigned shift = (unsigned)((i << order) % 8);
    uint8_t *byte = &counts[(i << order) / 8];
    switch (order) {
    case 3:
        *byte = (uint8_t)count;
        break;
    case 4:
        put_be16(byte, (uint16_t)count);
        break;
    case 5:
        put_be32(byte, (uint32_t)count);
        break;
    case 6:
        put_be64(byte, count);
        break;
    default:
        *byte &= (uint8_t) ~(((1U << (1U << order)) - 1) << shift);
        *byte |= (uint8_t)(count << shift);
    }
}

static uint64_t piece_at(const struct qcow2 *qcow2, uint64_t index)
{
    unsigned shift = qcow2->block_bits - qcow2->refs_bits;
    return qcow2->refcount_table[index >> shift] +
           (index & ((1ULL << shift) - 1)) * qcow2->refcounts.size;
}

/* The piece with the refcount of a cluster; NULL: there is no block, they are all 0. */
static int find_piece(struct qcow2 *qcow2, uint64_t cluster, struct table_piece **piece)
{
    uint64_t index = cluster >> qcow2->refs_bits, block = cluster >> qcow2->block_bits;
    *piece = NULL;
    if (block >= qcow2->refcount_table_used || !qcow2->refcount_table[block])
        return 0;
    *piece = table_find(&qcow2->refcounts, index);
    if (*piece) {
        (*piece)->used = true;
        return 0;
    }
    if (!qcow2_sane(qcow2, qcow2->refcount_table[block]))
        return qcow2_corrupt(qcow2, "the place of a refcount block", qcow2->refcount_table[block]);
    struct table_piece *found = table_victim(&qcow2->refcounts, index);
    if (!found) {
        int error = table_write(qcow2, &qcow2->refcounts, piece_at);
        if (error)
            return error;
        found = table_victim(&qcow2->refcounts, index);
    }
    found->index = NO_PIECE;
    if (!found->data)
        found->data = g_try_malloc(qcow2->refcounts.size);
    if (!found->data)
        return ENOMEM;
    int error =
        raw_read(qcow2->mapped.file, found->data, qcow2->refcounts.size, piece_at(qcow2, index));
    if (error)
        return error;
    found->index = index;
    found->used = true;
    *piece = found;
    return 0;
}

static size_t within(const struct qcow2 *qcow2, uint64_t cluster)
{
    return cluster & ((1ULL << qcow2->refs_bits) - 1);
}

int qcow2_get_refcount(struct qcow2 *qcow2, uint64_t cluster, uint64_t *count)
{
    struct table_piece *piece;
    int error = find_piece(qcow2, cluster, &piece);
    *count = 0;
    if (!error && piece)
        *count = get_count(piece->data, qcow2->header.refcount_order, within(qcow2, cluster));
    return error;
}

/* --- what must not be used twice ------------------------------------------------------------- */

static bool meets(uint64_t first, uint64_t count, uint64_t at, uint64_t length, unsigned bits)
{
    uint64_t from = at >> bits, to = (at + length + (1ULL << bits) - 1) >> bits;
    return length && first < to && from < first + count;
}

/* Do these clusters, which are free by their refcounts, have something that is needed? Clusters
 * that nothing in the file named when it was opened were given out by the refcounts only. */
static bool overlaps(const struct qcow2 *qcow2, uint64_t first, uint64_t count)
{
    const struct qcow2_header *header = &qcow2->header;
    unsigned bits = qcow2->bits;
    if (first >= qcow2->virgin)
        return false;
    if (!first || meets(first, count, header->l1_at, header->l1_size * 8ULL, bits) ||
        meets(first, count, header->refcount_table_at,
              (uint64_t)header->refcount_table_clusters << bits, bits) ||
        meets(first, count, header->snapshots_at, qcow2->snapshot_table_length, bits))
        return true;
    for (size_t i = 0; i < qcow2->refcount_table_used; i++)
        if ((qcow2->refcount_table[i] >> bits) - first < count)
            return true;
    for (size_t i = 0; i < qcow2->l1_size; i++)
        if (((qcow2->l1[i] & ENTRY_OFFSET) >> bits) - first < count)
            return true;
    for (uint32_t i = 0; i < header->snapshots; i++)
        if (meets(first, count, qcow2->snapshots[i].l1_at, qcow2->snapshots[i].l1_size * 8, bits))
            return true;
    return false;
}

/* --- blocks and their table ------------------------------------------------------------------ */

static void use_to(struct qcow2 *qcow2, uint64_t end)
{
    if (end <= qcow2->end)
        return;
    mapped_lock(&qcow2->mapped);
    qcow2->end = end;
    mapped_unlock(&qcow2->mapped);
}

static void name_block(struct qcow2 *qcow2, size_t i, uint64_t cluster)
{
    qcow2->refcount_table[i] = cluster << qcow2->bits;
    qcow2->refcount_table_used = MAX(qcow2->refcount_table_used, i + 1);
    table_changed(&qcow2->refcount_table_change, i);
}

/* Room for a larger table, which begins where the old one's clusters end: first the blocks for
 * that room, then the table. Both sizes depend on each other. */
static bool plan_table(const struct qcow2 *qcow2, uint64_t first, uint64_t *blocks,
                       uint64_t *clusters)
{
    *blocks = *clusters = 1;
    for (;;) {
        uint64_t last = (first + *blocks + *clusters - 1) >> qcow2->block_bits;
        uint64_t b = last - (first >> qcow2->block_bits) + 1;
        uint64_t c = ((last + 1) * 3 / 2 * 8 + qcow2->cluster - 1) >> qcow2->bits;
        if ((last + 1) * 8 > MAX_REFCOUNT_TABLE)
            return false;
        c = MIN(c, (uint64_t)MAX_REFCOUNT_TABLE >> qcow2->bits);
        if (b <= *blocks && c <= *clusters)
            return true;
        *blocks = MAX(*blocks, b);
        *clusters = MAX(*clusters, c);
    }
}

static int grow_table(struct qcow2 *qcow2, uint64_t first)
{
    uint64_t blocks, clusters, base;
    int error = qcow2->next_table_clusters ? qcow2_write_refcounts(qcow2) : 0;
    if (error)
        return error;
    first = MAX(first, MAX(qcow2->virgin, qcow2->end >> qcow2->bits));
    base = first >> qcow2->block_bits;
    if (!plan_table(qcow2, first, &blocks, &clusters))
        return EFBIG;
    size_t size = (size_t)(clusters * qcow2->cluster / 8);
    error = raw_zero(qcow2->mapped.file, first << qcow2->bits, (blocks + clusters) << qcow2->bits);
    if (error)
        return error;
    uint64_t *table = g_try_renew(uint64_t, qcow2->refcount_table, size);
    if (!table)
        return ENOMEM;
    memset(table + qcow2->refcount_table_size, 0, (size - qcow2->refcount_table_size) * 8);
    qcow2->refcount_table = table;
    qcow2->refcount_table_size = size;
    qcow2->next_table_at = (first + blocks) << qcow2->bits;
    qcow2->next_table_clusters = clusters;
    use_to(qcow2, (first + blocks + clusters) << qcow2->bits);
    for (uint64_t i = 0; i < blocks; i++)
        name_block(qcow2, base + i, first + i);
    for (uint64_t i = 0; i < blocks + clusters && !error; i++)
        error = qcow2_set_refcount(qcow2, first + i, 1);
    if (error) /* what is in memory now must not get into the file */
        qcow2->broken = true;
    return error ? error : qcow2_write_refcounts(qcow2);
}

/* Refcounts for the region of a cluster that has none: the cluster becomes their block, in which it
 * is the first that is not free. */
static int new_block(struct qcow2 *qcow2, uint64_t cluster)
{
    size_t i = cluster >> qcow2->block_bits;
    if (i >= qcow2->refcount_table_size)
        return grow_table(qcow2, cluster);
    if (overlaps(qcow2, cluster, 1))
        return qcow2_corrupt(qcow2, "a cluster without a refcount is used", cluster << qcow2->bits);
    int error = raw_zero(qcow2->mapped.file, cluster << qcow2->bits, qcow2->cluster);
    if (error)
        return error;
    use_to(qcow2, (cluster + 1) << qcow2->bits);
    name_block(qcow2, i, cluster);
    error = qcow2_set_refcount(qcow2, cluster, 1);
    if (error)
        qcow2->refcount_table[i] = 0;
    return error;
}

int qcow2_set_refcount(struct qcow2 *qcow2, uint64_t cluster, uint64_t count)
{
    struct table_piece *piece;
    unsigned order = qcow2->header.refcount_order;
    int error = find_piece(qcow2, cluster, &piece);
    if (error || (!piece && !count))
        return error;
    if (!piece)
        return ENOENT;
    if (order < 6 && count >> (1U << order))
        return ERANGE;
    qcow2_put_count(piece->data, order, within(qcow2, cluster), count);
    table_dirty(&qcow2->refcounts, piece);
    return 0;
}

int qcow2_rebuild_block(struct qcow2 *qcow2, size_t i)
{
    struct table_piece *piece = NULL;
    uint64_t at = 0;
    int error = 0;
    while (!error && !piece) { /* a free cluster whose own refcount has a place */
        at = MAX(qcow2->virgin, qcow2->end >> qcow2->bits);
        error = find_piece(qcow2, at, &piece);
        if (!error && !piece)
            error = new_block(qcow2, at);
        if (i < qcow2->refcount_table_size && qcow2->refcount_table[i])
            return error;
    }
    if (!error)
        error = raw_zero(qcow2->mapped.file, at << qcow2->bits, qcow2->cluster);
    if (error)
        return error;
    use_to(qcow2, (at + 1) << qcow2->bits);
    name_block(qcow2, i, at);
    return qcow2_set_refcount(qcow2, at, 1);
}

void qcow2_drop_block(struct qcow2 *qcow2, size_t i)
{
    struct table_cache *cache = &qcow2->refcounts;
    for (unsigned k = 0; k < cache->sets * TABLE_WAYS; k++) {
        struct table_piece *piece = &cache->pieces[k];
        if (piece->index == NO_PIECE || piece->index >> (qcow2->block_bits - qcow2->refs_bits) != i)
            continue;
        cache->dirty -= piece->dirty;
        piece->dirty = false;
        piece->index = NO_PIECE;
    }
    qcow2->refcount_table[i] = 0;
    table_changed(&qcow2->refcount_table_change, i);
}

/* --- finding free clusters ------------------------------------------------------------------- */

/* Uses up to `want` clusters from `first` on, as far as they are free. */
static int claim(struct qcow2 *qcow2, uint64_t first, uint64_t want, uint64_t *count)
{
    struct table_piece *piece;
    unsigned order = qcow2->header.refcount_order;
    size_t i = within(qcow2, first), most = (1ULL << qcow2->refs_bits) - i, n = 0;
    int error = find_piece(qcow2, first, &piece);
    *count = 0;
    if (error || !piece)
        return error;
    while (n < MIN(want, most) && !get_count(piece->data, order, i + n))
        n++;
    if (n && overlaps(qcow2, first, n))
        return qcow2_corrupt(qcow2, "a cluster is used that its refcount says is free",
                             first << qcow2->bits);
    for (size_t k = 0; k < n; k++)
        qcow2_put_count(piece->data, order, i + k, 1);
    if (n)
        table_dirty(&qcow2->refcounts, piece);
    *count = n;
    return 0;
}

/* Makes *at the first free cluster from there on. ENOENT: none was found yet, and that is where to
 * go on. */
static int search(struct qcow2 *qcow2, uint64_t *at)
{
    unsigned order = qcow2->header.refcount_order;
    for (unsigned looked = 0; looked < SEARCH; looked++) {
        struct table_piece *piece;
        if (*at >= MAX_FILE >> qcow2->bits)
            return EFBIG;
        int error = find_piece(qcow2, *at, &piece);
        if (!error && !piece) {
            error = new_block(qcow2, *at);
            if (!error)
                continue;
        }
        if (error)
            return error;
        for (size_t i = within(qcow2, *at); i < 1ULL << qcow2->refs_bits; i++, ++*at)
            if (!get_count(piece->data, order, i))
                return 0;
    }
    return ENOENT;
}

static int take_reuse(struct qcow2 *qcow2, uint64_t want, uint64_t *first, uint64_t *count)
{
    *count = 0;
    while (qcow2->reuse_count && !*count) {
        struct qcow2_loss *range = &qcow2->reuse[qcow2->reuse_count - 1];
        int error = claim(qcow2, range->first, MIN(want, range->count), count);
        if (error)
            return error;
        *first = range->first;
        range->first += *count;
        range->count -= *count;
        if (!*count || !range->count)
            qcow2->reuse_count--;
    }
    return 0;
}

int qcow2_allocate_clusters(struct qcow2 *qcow2, uint64_t want, uint64_t *first, uint64_t *count,
                            bool *blank)
{
    int error = qcow2_begin(qcow2);
    if (!error)
        error = qcow2_settle(qcow2);
    if (!error)
        error = take_reuse(qcow2, want, first, count);
    *blank = false;
    if (error || *count)
        return error;
    error = search(qcow2, &qcow2->cursor);
    uint64_t at = qcow2->cursor;
    bool passed = error == ENOENT;
    if (passed) { /* by a long way; on from there the next time */
        at = MAX(at, qcow2->end >> qcow2->bits);
        error = search(qcow2, &at);
    }
    if (error)
        return error == ENOENT ? qcow2_corrupt(qcow2, "refcounts behind the end", at) : error;
    uint64_t end = qcow2->end >> qcow2->bits;
    *blank = at >= end;
    error = claim(qcow2, at, *blank ? want : MIN(want, end - at), count);
    *first = at;
    if (error)
        return error;
    if (!passed)
        qcow2->cursor = at + *count;
    use_to(qcow2, (at + *count) << qcow2->bits);
    return 0;
}

int qcow2_allocate_row(struct qcow2 *qcow2, uint64_t count, uint64_t *first)
{
    int error = qcow2_begin(qcow2);
    *first = MAX(qcow2->virgin, qcow2->end >> qcow2->bits);
    use_to(qcow2, (*first + count) << qcow2->bits);
    for (uint64_t i = 0; i < count && !error; i++) {
        struct table_piece *piece;
        error = find_piece(qcow2, *first + i, &piece);
        if (!error && !piece)
            error = qcow2_rebuild_block(qcow2, (*first + i) >> qcow2->block_bits);
        if (!error)
            error = qcow2_set_refcount(qcow2, *first + i, 1);
    }
    if (error)
        qcow2->losing = true;
    return error;
}

/* --- giving back ----------------------------------------------------------------------------- */

/* They are free now. */
static void give_back(struct qcow2 *qcow2, uint64_t first, uint64_t count)
{
    if (!count)
        return;
    raw_punch(qcow2->mapped.file, first << qcow2->bits, count << qcow2->bits);
    if (!qcow2->reuse)
        qcow2->reuse = g_try_new(struct qcow2_loss, MOST_REUSE);
    struct qcow2_loss *last = qcow2->reuse_count ? &qcow2->reuse[qcow2->reuse_count - 1] : NULL;
    if (last && last->first + last->count == first)
        last->count += count;
    else if (qcow2->reuse && qcow2->reuse_count < MOST_REUSE)
        qcow2->reuse[qcow2->reuse_count++] = (struct qcow2_loss){ first, count, 0 };
    else
        qcow2->cursor = MIN(qcow2->cursor, first);
}

int qcow2_release(struct qcow2 *qcow2, uint64_t first, uint64_t count)
{
    uint64_t freed = 0, had, i;
    int error = 0;
    for (i = 0; i < count && !error; i++) {
        error = qcow2_get_refcount(qcow2, first + i, &had);
        if (!error && !had)
            error = qcow2_corrupt(qcow2, "the refcount 0 of a cluster in use",
                                  (first + i) << qcow2->bits);
        if (!error)
            error = qcow2_set_refcount(qcow2, first + i, had - 1);
        if (error)
            break;
        if (had == 1) {
            freed++;
            continue;
        }
        give_back(qcow2, first + i - freed, freed);
        freed = 0;
    }
    give_back(qcow2, first + i - freed, freed);
    return error;
}

/* --- writing --------------------------------------------------------------------------------- */

uint64_t qcow2_refcount_table_at(const struct qcow2 *qcow2)
{
    return qcow2->next_table_clusters ? qcow2->next_table_at : qcow2->header.refcount_table_at;
}

int qcow2_sync(struct qcow2 *qcow2)
{
    return raw_sync(qcow2->mapped.file) ? EIO : 0;
}

/* No cluster in use may lie behind the end of the file as a whole. */
static int extend(struct qcow2 *qcow2)
{
    uint64_t length;
    int error = raw_length(qcow2->mapped.file, &length);
    if (error || length > qcow2->end - qcow2->cluster)
        return error;
    error = raw_truncate(qcow2->mapped.file, qcow2->end);
    return error == EINVAL ? ENOSPC : error; /* a device */
}

static int move_table(struct qcow2 *qcow2)
{
    struct qcow2_header *header = &qcow2->header;
    uint64_t old = header->refcount_table_at, old_clusters = header->refcount_table_clusters;
    qcow2->refcount_table_change = (struct table_change){ 0, qcow2->refcount_table_size };
    int error = table_write_change(qcow2->mapped.file, qcow2->next_table_at, qcow2->refcount_table,
                                   &qcow2->refcount_table_change);
    if (!error)
        error = qcow2_sync(qcow2);
    if (error)
        return error;
    header->refcount_table_at = qcow2->next_table_at;
    header->refcount_table_clusters = (uint32_t)qcow2->next_table_clusters;
    error = qcow2_write_header(qcow2);
    if (!error)
        error = qcow2_sync(qcow2);
    if (error) { /* whether it has moved is not known: neither is given up */
        header->refcount_table_at = old;
        header->refcount_table_clusters = (uint32_t)old_clusters;
        return error;
    }
    qcow2->next_table_clusters = 0;
    return qcow2_release(qcow2, old >> qcow2->bits, old_clusters);
}

int qcow2_write_refcounts(struct qcow2 *qcow2)
{
    int error = qcow2->broken ? EIO : extend(qcow2);
    if (!error && !qcow2->lazy)
        error = table_write(qcow2, &qcow2->refcounts, piece_at);
    if (!error)
        error = qcow2_sync(qcow2);
    if (error)
        return error;
    if (qcow2->next_table_clusters)
        return move_table(qcow2);
    struct table_change *change = &qcow2->refcount_table_change;
    if (change->first == change->end)
        return 0;
    error = table_write_change(qcow2->mapped.file, qcow2->header.refcount_table_at,
                               qcow2->refcount_table, change);
    return error ? error : qcow2_sync(qcow2);
}
