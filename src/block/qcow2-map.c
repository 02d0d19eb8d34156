/* Where a qcow2 image has what: from L1 and L2 entries to pieces of the disk ("Cluster mapping",
 * "Extended L2 Entries"). Entries are judged when they are used. */
#include "block/qcow2-core.h"

#include "block/raw.h"

#include <errno.h>

uint64_t qcow2_slice_at(const struct qcow2 *qcow2, uint64_t index)
{
    unsigned shift = qcow2->l1_bits - qcow2->bits - qcow2->slice_bits; /* pieces of a table */
    uint64_t table = qcow2->l1[index >> shift] & ENTRY_OFFSET;
    return table + (index & ((1ULL << shift) - 1)) * qcow2->l2.size;
}

bool qcow2_packed_range(const struct qcow2 *qcow2, uint64_t entry, uint64_t *at, uint64_t *length)
{
    unsigned x = 62 - (qcow2->bits - 8);
    uint64_t sectors = (entry & (ENTRY_PACKED - 1)) >> x;
    *at = entry & ((1ULL << x) - 1);
    *length = (sectors + 1) * SECTOR - *at % SECTOR;
    return *at >= qcow2->cluster && *at < qcow2->end;
}

/* --- pieces of one cluster ------------------------------------------------------------------- */

/* Granules from `sub` on that are alike, within the cluster of that L2 entry. */
struct run {
    enum extent_kind kind;
    bool writable;
    uint64_t at; /* of the first granule */
    unsigned count;
};

/* How many bits from the lowest on are as that is. */
static unsigned alike(uint32_t bits, unsigned most)
{
    uint32_t changes = bits & 1 ? ~bits : bits;
    return changes ? MIN((unsigned)__builtin_ctz(changes), most) : most;
}

static bool data_run(const struct qcow2 *qcow2, uint64_t entry, unsigned sub, struct run *run)
{
    uint64_t at = entry & ENTRY_OFFSET;
    run->kind = EXTENT_DATA;
    run->writable = entry & ENTRY_COPIED && qcow2->writable && !qcow2->corrupt;
    run->at = at + ((uint64_t)sub << qcow2->sub_bits);
    return qcow2_sane(qcow2, at);
}

static bool sub_run(const struct qcow2 *qcow2, uint64_t entry, const uint8_t *map, unsigned sub,
                    struct run *run)
{
    uint32_t zero = be32_at(map) >> sub, data = be32_at(map + 4) >> sub;
    if (zero & data)
        return false;
    run->count = MIN(alike(zero, SUBCLUSTERS - sub), alike(data, SUBCLUSTERS - sub));
    if (data & 1)
        return data_run(qcow2, entry, sub, run);
    run->kind = zero & 1 ? EXTENT_ZERO : EXTENT_BELOW;
    return true;
}

/* False: the entry cannot be right. */
static bool look_at(const struct qcow2 *qcow2, const uint8_t *place, unsigned sub, struct run *run)
{
    uint64_t entry = be64_at(place);
    bool extended = qcow2->entry_bits > 3;
    *run = (struct run){ .kind = EXTENT_BELOW, .count = 1 };
    if (entry & ENTRY_PACKED) {
        uint64_t at, length;
        run->kind = EXTENT_PACKED;
        run->at = entry;
        run->count = extended ? SUBCLUSTERS - sub : 1;
        return qcow2_packed_range(qcow2, entry, &at, &length);
    }
    if (extended)
        return sub_run(qcow2, entry, place + 8, sub, run);
    if (entry & ENTRY_ZERO && qcow2->header.version > 2)
        run->kind = EXTENT_ZERO;
    else if (entry & ENTRY_OFFSET)
        return data_run(qcow2, entry, sub, run);
    return true;
}

static bool follows(const struct run *next, const struct run *first, uint64_t distance)
{
    if (next->kind != first->kind || next->kind == EXTENT_PACKED)
        return false;
    return next->kind != EXTENT_DATA ||
           (next->at == first->at + distance && next->writable == first->writable);
}

/* The piece at `offset` by a piece of its L2 table. False: the first entry cannot be right. */
static bool look(const struct qcow2 *qcow2, const struct table_piece *slice, uint64_t offset,
                 uint64_t length, struct extent *extent)
{
    unsigned i = qcow2_slice_entry(qcow2, offset), entries = 1U << qcow2->slice_bits;
    unsigned sub = (unsigned)((offset & (qcow2->cluster - 1)) >> qcow2->sub_bits);
    uint64_t within = offset & ((1ULL << qcow2->sub_bits) - 1);
    struct run first, next;
    if (!look_at(qcow2, qcow2_entry(qcow2, slice, i), sub, &first))
        return false;
    uint64_t had = (uint64_t)first.count << qcow2->sub_bits;
    next = first;
    /* On to the next cluster, when this one is alike to its end. */
    while (had - within < length && sub + next.count == qcow2->cluster >> qcow2->sub_bits &&
           ++i < entries && look_at(qcow2, qcow2_entry(qcow2, slice, i), 0, &next) &&
           follows(&next, &first, had)) {
        had += (uint64_t)next.count << qcow2->sub_bits;
        sub = 0;
    }
    *extent = (struct extent){
        .kind = first.kind,
        .writable = first.writable,
        .length = had - within,
        .at = first.kind == EXTENT_DATA ? first.at + within : first.at,
    };
    return true;
}

/* Where no L2 table is: all that it would be for. */
static void look_below(const struct qcow2 *qcow2, uint64_t offset, struct extent *extent)
{
    uint64_t covered = 1ULL << qcow2->l1_bits;
    *extent = (struct extent){
        .kind = EXTENT_BELOW,
        .length = covered - (offset & (covered - 1)),
    };
}

/* --- from the file --------------------------------------------------------------------------- */

static int load_slice(struct qcow2 *qcow2, uint64_t index, struct table_piece **slice)
{
    struct mapped *mapped = &qcow2->mapped;
    mapped_lock(mapped);
    struct table_piece *piece = table_victim(&qcow2->l2, index);
    if (piece)
        piece->index = NO_PIECE;
    mapped_unlock(mapped);
    if (!piece)
        return EBUSY;
    if (!piece->data)
        piece->data = g_try_malloc(qcow2->l2.size);
    if (!piece->data)
        return ENOMEM;
    int error = raw_read(mapped->file, piece->data, qcow2->l2.size, qcow2_slice_at(qcow2, index));
    if (error)
        return error;
    mapped_lock(mapped);
    piece->index = index;
    piece->used = true;
    mapped_unlock(mapped);
    *slice = piece;
    return 0;
}

int qcow2_slice(struct qcow2 *qcow2, uint64_t offset, struct table_piece **slice)
{
    uint64_t index = qcow2_slice_index(qcow2, offset);
    uint64_t l1 = qcow2->l1[offset >> qcow2->l1_bits] & ENTRY_OFFSET;
    *slice = NULL;
    if (!l1)
        return 0;
    *slice = table_find(&qcow2->l2, index);
    if (*slice)
        return 0;
    if (!qcow2_sane(qcow2, l1))
        return qcow2_corrupt(qcow2, "the place of an L2 table", l1);
    int error = load_slice(qcow2, index, slice);
    if (error != EBUSY)
        return error;
    error = qcow2_write_back(qcow2);
    return error ? error : load_slice(qcow2, index, slice);
}

/* --- the calls of struct mapped_format ------------------------------------------------------- */

/* What most requests are: some bytes of one cluster that only this disk has. */
static inline bool look_quickly(const struct qcow2 *qcow2, const struct table_piece *slice,
                                uint64_t offset, uint64_t length, struct extent *extent)
{
    uint64_t entry = be64_at(slice->data + ((size_t)qcow2_slice_entry(qcow2, offset) << 3));
    uint64_t at = entry & ~ENTRY_COPIED, within = offset & (qcow2->cluster - 1);
    if (!qcow2->quick || at == entry || !qcow2_sane(qcow2, at) || length > qcow2->cluster - within)
        return false;
    extent->kind = EXTENT_DATA;
    extent->writable = qcow2->writable;
    extent->length = length;
    extent->at = at + within;
    return true;
}

bool qcow2_peek(struct mapped *mapped, uint64_t offset, uint64_t length, struct extent *extent)
{
    const struct qcow2 *qcow2 = qcow2_of(mapped);
    struct table_piece *slice = table_find(&qcow2->l2, qcow2_slice_index(qcow2, offset));
    if (slice) {
        slice->used = true;
        if (look_quickly(qcow2, slice, offset, length, extent))
            return true;
        return look(qcow2, slice, offset, length, extent);
    }
    if (qcow2->l1[offset >> qcow2->l1_bits] & ENTRY_OFFSET)
        return false;
    look_below(qcow2, offset, extent);
    return true;
}

int qcow2_map(struct mapped *mapped, uint64_t offset, uint64_t length, struct extent *extent)
{
    struct qcow2 *qcow2 = qcow2_of(mapped);
    struct table_piece *slice;
    int error = qcow2_slice(qcow2, offset, &slice);
    if (error)
        return error;
    if (!slice)
        look_below(qcow2, offset, extent);
    else if (!look(qcow2, slice, offset, length, extent))
        return qcow2_corrupt(qcow2, "an L2 entry for the disk's offset", offset);
    return 0;
}
