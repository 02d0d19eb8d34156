/* Writing to qcow2 images: clusters for new data, zeros, discards. What is changed here is in
 * memory only; qcow2-order.c has it written. */
#include "block/qcow2-core.h"

#include "block/raw.h"

#include <errno.h>

enum { AT_ONCE = 16 << 20 /* bytes of a place, so that other requests have their turn */ };

static bool extended(const struct qcow2 *qcow2)
{
    return qcow2->entry_bits > 3;
}

/* --- L2 tables ------------------------------------------------------------------------------- */

static void name_table(struct qcow2 *qcow2, size_t i, uint64_t at)
{
    mapped_lock(&qcow2->mapped);
    qcow2->l1[i] = at | ENTRY_COPIED;
    qcow2->mapped.dirty = true;
    mapped_unlock(&qcow2->mapped);
    table_changed(&qcow2->l1_change, i);
}

static int copy_cluster(struct qcow2 *qcow2, uint64_t from, uint64_t to)
{
    uint8_t *copy = g_try_malloc(qcow2->cluster);
    if (!copy)
        return ENOMEM;
    int error = raw_read(qcow2->mapped.file, copy, qcow2->cluster, from);
    if (!error)
        error = raw_write(qcow2->mapped.file, copy, qcow2->cluster, to);
    g_free(copy);
    return error;
}

/* A table of one's own for that L1 entry: empty, or, when it is a snapshot's too, a copy. */
static int make_table(struct qcow2 *qcow2, size_t i)
{
    uint64_t old = qcow2->l1[i] & ENTRY_OFFSET, first, count;
    bool blank;
    if (old && !qcow2_sane(qcow2, old))
        return qcow2_corrupt(qcow2, "the place of an L2 table", old);
    int error = qcow2_allocate_clusters(qcow2, 1, &first, &count, &blank);
    if (error)
        return error;
    uint64_t at = first << qcow2->bits;
    /* Even where it is blank: a full disk must not be found when it is flushed. */
    error = old ? copy_cluster(qcow2, old, at) : raw_zero(qcow2->mapped.file, at, qcow2->cluster);
    if (error) {
        qcow2_release(qcow2, first, 1);
        return error;
    }
    name_table(qcow2, i, at);
    if (old)
        qcow2_lose(qcow2, old >> qcow2->bits, 1);
    return 0;
}

int qcow2_own_slice(struct qcow2 *qcow2, uint64_t offset, struct table_piece **slice)
{
    size_t i = offset >> qcow2->l1_bits;
    int error = qcow2_begin(qcow2);
    if (!error && !(qcow2->l1[i] & ENTRY_COPIED && qcow2->l1[i] & ENTRY_OFFSET))
        error = make_table(qcow2, i);
    return error ? error : qcow2_slice(qcow2, offset, slice);
}

/* --- places for new data --------------------------------------------------------------------- */

/* Zeros that have a cluster, which only they use. */
static bool preallocated(const struct qcow2 *qcow2, uint64_t entry)
{
    return !(entry & ENTRY_PACKED) && entry & ENTRY_ZERO && entry & ENTRY_COPIED &&
           qcow2_sane(qcow2, entry & ENTRY_OFFSET) && qcow2->header.version > 2;
}

static bool in_place(uint64_t entry)
{
    return !(entry & (ENTRY_PACKED | ENTRY_ZERO)) && entry & ENTRY_COPIED && entry & ENTRY_OFFSET;
}

/* How many entries from `i` on want a cluster, up to `most`. */
static unsigned wanting(const struct qcow2 *qcow2, const struct table_piece *slice, unsigned i,
                        unsigned most)
{
    unsigned n = 0;
    while (n < most) {
        uint64_t entry = be64_at(qcow2_entry(qcow2, slice, i + n));
        bool has = extended(qcow2) ? entry & (ENTRY_PACKED | ENTRY_OFFSET)
                                   : preallocated(qcow2, entry) || in_place(entry);
        if (has)
            break;
        n++;
    }
    return n;
}

/* How many from `i` on, up to `most`, have clusters that follow each other, from `at` on. */
static unsigned having(const struct qcow2 *qcow2, const struct table_piece *slice, unsigned i,
                       unsigned most, uint64_t at)
{
    unsigned n = 1;
    while (n < most) {
        uint64_t entry = be64_at(qcow2_entry(qcow2, slice, i + n));
        if (!preallocated(qcow2, entry) || (entry & ENTRY_OFFSET) != at + n * qcow2->cluster)
            break;
        n++;
    }
    return n;
}

static int new_clusters(struct qcow2 *qcow2, unsigned want, struct place *place)
{
    uint64_t first, count;
    int error = qcow2_allocate_clusters(qcow2, want, &first, &count, &place->blank);
    if (error)
        return error;
    place->at = first << qcow2->bits;
    place->length = count << qcow2->bits;
    place->pieces = (unsigned)count;
    return 0;
}

/* Subclusters of the cluster that the entry has. */
static int place_within(struct qcow2 *qcow2, const uint8_t *entry, uint64_t offset, uint64_t length,
                        struct place *place)
{
    uint64_t at = be64_at(entry) & ENTRY_OFFSET, start = offset & ~(qcow2->cluster - 1);
    unsigned sub = (unsigned)((offset - start) >> qcow2->sub_bits);
    uint32_t has = be32_at(entry + 12);
    uint64_t end = (offset + length - start + (1ULL << qcow2->sub_bits) - 1) >> qcow2->sub_bits;
    end = MIN(end, (uint64_t)SUBCLUSTERS);
    unsigned last = sub;
    if (!qcow2_sane(qcow2, at))
        return qcow2_corrupt(qcow2, "the place of a cluster", at);
    while (last < end && !(has >> last & 1))
        last++;
    uint64_t skip = (uint64_t)sub << qcow2->sub_bits;
    *place = (struct place){
        .start = start + skip,
        .length = (uint64_t)(last - sub) << qcow2->sub_bits,
        .at = at + skip,
    };
    return last > sub ? 0 : EINVAL; /* it is there */
}

/* With subclusters: in the cluster that is there; in a new one, into which all of it is copied; or
 * in as many new ones as are wanted, only as far as is wanted. */
static int place_extended(struct qcow2 *qcow2, const struct table_piece *slice, uint64_t offset,
                          uint64_t length, unsigned most, struct place *place)
{
    unsigned i = qcow2_slice_entry(qcow2, offset);
    const uint8_t *place_of = qcow2_entry(qcow2, slice, i);
    uint64_t entry = be64_at(place_of), sub = 1ULL << qcow2->sub_bits;
    place->start = offset & ~(qcow2->cluster - 1);
    if (entry & ENTRY_PACKED)
        return new_clusters(qcow2, 1, place);
    if (entry & ENTRY_OFFSET)
        return entry & ENTRY_COPIED ? place_within(qcow2, place_of, offset, length, place)
                                    : new_clusters(qcow2, 1, place);
    int error = new_clusters(qcow2, wanting(qcow2, slice, i, most), place);
    if (error)
        return error;
    uint64_t skip = (offset - place->start) / sub * sub;
    uint64_t end = MIN(place->start + place->length, (offset + length + sub - 1) / sub * sub);
    place->start += skip;
    place->at += skip;
    place->length = end - place->start;
    return 0;
}

int qcow2_allocate(struct mapped *mapped, uint64_t offset, uint64_t length, struct place *place)
{
    struct qcow2 *qcow2 = qcow2_of(mapped);
    struct table_piece *slice;
    int error = qcow2_own_slice(qcow2, offset, &slice);
    if (error)
        return error;
    unsigned i = qcow2_slice_entry(qcow2, offset), left = (1U << qcow2->slice_bits) - i;
    uint64_t start = offset & ~(qcow2->cluster - 1);
    length = MIN(length, (uint64_t)AT_ONCE);
    unsigned most = (unsigned)((offset + length - start + qcow2->cluster - 1) >> qcow2->bits);
    most = MIN(most, left);
    if (extended(qcow2))
        return place_extended(qcow2, slice, offset, length, most, place);
    uint64_t entry = be64_at(qcow2_entry(qcow2, slice, i));
    place->start = start;
    if (!preallocated(qcow2, entry))
        return new_clusters(qcow2, MAX(wanting(qcow2, slice, i, most), 1), place);
    place->at = entry & ENTRY_OFFSET;
    place->length = (uint64_t)having(qcow2, slice, i, most, place->at) << qcow2->bits;
    return 0;
}

/* --- the end of a write ---------------------------------------------------------------------- */

/* Subclusters [first, end) of the cluster have data now; of a new cluster that replaces another,
 * all have. */
static void enter_extended(uint8_t *place_of, uint64_t entry, bool replaces, unsigned first,
                           unsigned end)
{
    uint32_t range = (uint32_t)((1ULL << end) - (1ULL << first));
    uint32_t zero = be32_at(place_of + 8), data = be32_at(place_of + 12);
    put_be64(place_of, entry);
    put_be32(place_of + 8, replaces ? 0 : zero & ~range);
    put_be32(place_of + 12, replaces ? UINT32_MAX : data | range);
}

static void enter(struct qcow2 *qcow2, struct table_piece *slice, const struct place *place)
{
    uint64_t cluster = qcow2->cluster, end = place->start + place->length;
    for (uint64_t at = place->start; at < end; at = (at & ~(cluster - 1)) + cluster) {
        uint8_t *place_of = qcow2_entry(qcow2, slice, qcow2_slice_entry(qcow2, at));
        uint64_t within = at & (cluster - 1), start = at - within, old = be64_at(place_of);
        uint64_t entry = (place->at + (at - place->start) - within) | ENTRY_COPIED;
        if (extended(qcow2))
            enter_extended(place_of, entry, place->pieces && old & (ENTRY_OFFSET | ENTRY_PACKED),
                           (unsigned)(within >> qcow2->sub_bits),
                           (unsigned)(MIN(end - start, cluster) >> qcow2->sub_bits));
        else
            put_be64(place_of, entry);
    }
}

int qcow2_commit(struct mapped *mapped, const struct place *place)
{
    struct qcow2 *qcow2 = qcow2_of(mapped);
    uint64_t cluster = qcow2->cluster, end = place->start + place->length;
    struct table_piece *slice;
    int error = qcow2_slice(qcow2, place->start, &slice); /* it is still in memory */
    if (error || !slice || qcow2->corrupt) {
        qcow2_cancel(mapped, place);
        return error ? error : EIO;
    }
    for (uint64_t at = place->start & ~(cluster - 1); at < end && place->pieces; at += cluster)
        qcow2_lose_entry(qcow2, be64_at(qcow2_entry(qcow2, slice, qcow2_slice_entry(qcow2, at))));
    mapped_lock(mapped);
    enter(qcow2, slice, place);
    mapped->dirty = true;
    mapped_unlock(mapped);
    table_dirty(&qcow2->l2, slice);
    return 0;
}

void qcow2_cancel(struct mapped *mapped, const struct place *place)
{
    struct qcow2 *qcow2 = qcow2_of(mapped);
    if (place->pieces && qcow2_release(qcow2, place->at >> qcow2->bits, place->pieces))
        qcow2->losing = true;
}

/* --- zeros ----------------------------------------------------------------------------------- */

struct zeroing {
    struct qcow2 *qcow2;
    bool discard;
    bool below; /* something may show through */
};

/* What becomes of an entry (and *zero, *data: its subclusters, of which `range` are meant). */
static uint64_t zeroed(const struct zeroing *how, uint64_t entry, uint32_t range, uint32_t *zero,
                       uint32_t *data)
{
    bool keep = !how->discard && !(entry & ENTRY_PACKED) && entry & ENTRY_COPIED;
    if (!extended(how->qcow2)) {
        uint64_t nothing = how->below ? ENTRY_ZERO : 0;
        if (!(entry & (ENTRY_PACKED | ENTRY_OFFSET)))
            return how->discard || entry & ENTRY_ZERO ? entry : nothing;
        return keep ? entry | ENTRY_ZERO : nothing;
    }
    if (entry & ENTRY_PACKED) { /* all of it */
        *zero = UINT32_MAX;
        return 0;
    }
    *zero |= how->discard ? *data & range : range;
    *data &= ~range;
    return *data || keep ? entry : 0;
}

/* Zeros for a part of a compressed cluster, which has no room for that: it is unpacked. */
static int rewrite(struct qcow2 *qcow2, uint64_t start, uint64_t offset, uint64_t length)
{
    struct mapped *mapped = &qcow2->mapped;
    struct place place = { .length = 0 };
    uint64_t whole = MIN(qcow2->cluster, mapped->worker.disk.size - start);
    uint8_t *copy = g_try_malloc(whole);
    int error = copy ? qcow2_allocate(mapped, start, 1, &place) : ENOMEM;
    if (!error) {
        error = mapped_read(mapped, start, copy, whole);
        memset(copy + (offset - start), 0, length);
        if (!error)
            error = raw_write(mapped->file, copy, whole, place.at);
        if (error)
            qcow2_cancel(mapped, &place);
        else
            error = qcow2_commit(mapped, &place);
    }
    g_free(copy);
    return error;
}

/* Within one cluster. */
static int zero_cluster(const struct zeroing *how, struct table_piece *slice, uint64_t offset,
                        uint64_t length)
{
    struct qcow2 *qcow2 = how->qcow2;
    uint64_t start = offset & ~(qcow2->cluster - 1);
    uint8_t *place_of = qcow2_entry(qcow2, slice, qcow2_slice_entry(qcow2, offset));
    uint64_t entry = be64_at(place_of);
    uint32_t zero = 0, data = 0, range = 0;
    if (extended(qcow2)) {
        unsigned first = (unsigned)((offset - start) >> qcow2->sub_bits);
        uint64_t end = (offset + length - start + (1ULL << qcow2->sub_bits) - 1) >> qcow2->sub_bits;
        if (offset + length == qcow2->mapped.worker.disk.size)
            end = SUBCLUSTERS;
        range = (uint32_t)((1ULL << end) - (1ULL << first));
        zero = be32_at(place_of + 8);
        data = be32_at(place_of + 12);
        if (entry & ENTRY_PACKED && range != UINT32_MAX)
            return how->discard ? 0 : rewrite(qcow2, start, offset, length);
    }
    uint64_t now = zeroed(how, entry, range, &zero, &data);
    bool same = now == entry && (!extended(qcow2) ||
                                 (zero == be32_at(place_of + 8) && data == be32_at(place_of + 12)));
    if (same)
        return 0;
    if ((now & ENTRY_OFFSET) != (entry & ENTRY_OFFSET) || entry & ENTRY_PACKED)
        qcow2_lose_entry(qcow2, entry);
    mapped_lock(&qcow2->mapped);
    put_be64(place_of, now);
    if (extended(qcow2)) {
        put_be32(place_of + 8, zero);
        put_be32(place_of + 12, data);
    }
    qcow2->mapped.dirty = true;
    mapped_unlock(&qcow2->mapped);
    table_dirty(&qcow2->l2, slice);
    return 0;
}

/* Within one piece of an L2 table. */
static int zero_slice(const struct zeroing *how, uint64_t offset, uint64_t length)
{
    struct qcow2 *qcow2 = how->qcow2;
    struct table_piece *slice;
    int error = qcow2_slice(qcow2, offset, &slice);
    if (error || (!slice && (how->discard || !how->below)))
        return error;
    for (uint64_t n; length && !error; offset += n, length -= n) {
        n = MIN(length, qcow2->cluster - (offset & (qcow2->cluster - 1)));
        error = qcow2_own_slice(qcow2, offset, &slice); /* in memory, but for the first time */
        if (!error)
            error = zero_cluster(how, slice, offset, n);
    }
    return error;
}

/* `below`: bytes of the disk below that may show through. */
static int zero_all(struct qcow2 *qcow2, uint64_t offset, uint64_t length, bool discard,
                    uint64_t below)
{
    uint64_t slice = 1ULL << (qcow2->bits + qcow2->slice_bits);
    int error = qcow2_begin(qcow2);
    for (uint64_t n; length && !error; offset += n, length -= n) {
        struct zeroing how = {
            .qcow2 = qcow2,
            .discard = discard || qcow2->header.version < 3,
            .below = offset < below,
        };
        n = MIN(length, slice - (offset & (slice - 1)));
        error = zero_slice(&how, offset, n);
        if (!error)
            error = qcow2_settle(qcow2);
    }
    return error;
}

int qcow2_zero(struct mapped *mapped, uint64_t offset, uint64_t length, bool discard)
{
    struct qcow2 *qcow2 = qcow2_of(mapped);
    if (qcow2->header.version < 3 && mapped->below)
        return ENOTSUP; /* has no zeros: what is below would show through */
    return zero_all(qcow2, offset, length, discard, mapped->below ? mapped->below->size : 0);
}

int qcow2_drop(struct qcow2 *qcow2, uint64_t offset, uint64_t length)
{
    return zero_all(qcow2, offset, length, true, 0);
}
