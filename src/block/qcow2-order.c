/* In which order the changes to a qcow2 image reach its file, so that at each moment, with any part
 * of what was not synced, all that the file names is there and nothing is named twice:
 *
 *   data, new tables and refcounts; sync; the refcount table; sync;
 *   L2 tables, which name the data; sync; the L1 table, which names the L2 tables; sync;
 *   only then are references taken away from what none of them names any more, and room used anew.
 *
 * A table is written when a flush asks for that, or when its piece of the cache must be had. */
#include "block/qcow2-core.h"

#include "block/raw.h"

#include <errno.h>

/* Losses: then everything is written, so that they come to an end. */
enum { MANY = 4096, MANY_BYTES = 256 << 20 };

/* --- losses ---------------------------------------------------------------------------------- */

static bool make_room(struct qcow2 *qcow2)
{
    if (qcow2->lost_count < qcow2->lost_room)
        return true;
    size_t room = qcow2->lost_room ? qcow2->lost_room * 2 : 64;
    struct qcow2_loss *lost = g_try_renew(struct qcow2_loss, qcow2->lost, room);
    if (!lost)
        return false;
    qcow2->lost = lost;
    qcow2->lost_room = room;
    return true;
}

void qcow2_lose(struct qcow2 *qcow2, uint64_t first, uint64_t count)
{
    uint64_t stamp = mapped_age(&qcow2->mapped);
    qcow2->lost_clusters += count;
    struct qcow2_loss *last = qcow2->lost_count ? &qcow2->lost[qcow2->lost_count - 1] : NULL;
    if (last && qcow2->lost_count > qcow2->lost_settling && last->stamp == stamp &&
        last->first + last->count == first)
        last->count += count;
    else if (make_room(qcow2))
        qcow2->lost[qcow2->lost_count++] = (struct qcow2_loss){ first, count, stamp };
    else
        qcow2->losing = true;
}

void qcow2_lose_entry(struct qcow2 *qcow2, uint64_t entry)
{
    uint64_t at = entry & ENTRY_OFFSET, length;
    if (entry & ENTRY_PACKED) {
        qcow2_forget_unpacked(qcow2);
        if (!qcow2_packed_range(qcow2, entry, &at, &length))
            return;
        uint64_t first = at >> qcow2->bits, last = (at + length - 1) >> qcow2->bits;
        qcow2_lose(qcow2, first, last - first + 1);
    } else if (at && qcow2_sane(qcow2, at)) {
        qcow2_lose(qcow2, at >> qcow2->bits, 1);
    }
}

static int settle(struct qcow2 *qcow2)
{
    size_t done = 0;
    int error = 0;
    for (; done < qcow2->lost_settling && !error; done++) {
        const struct qcow2_loss *loss = &qcow2->lost[done];
        if (!mapped_settled(&qcow2->mapped, loss->stamp))
            break;
        error = qcow2_release(qcow2, loss->first, loss->count);
    }
    if (error)
        qcow2->losing = true;
    qcow2->lost_count -= done;
    qcow2->lost_settling -= done;
    if (done)
        memmove(qcow2->lost, qcow2->lost + done, qcow2->lost_count * sizeof *qcow2->lost);
    return error;
}

int qcow2_settle(struct qcow2 *qcow2)
{
    if (!qcow2->lost_count)
        return 0;
    int error = 0;
    if (qcow2->lost_count - qcow2->lost_settling >= MANY ||
        qcow2->lost_clusters << qcow2->bits >= MANY_BYTES)
        error = qcow2_write_back(qcow2);
    return error ? error : settle(qcow2);
}

/* --- writing --------------------------------------------------------------------------------- */

int qcow2_write_back(struct qcow2 *qcow2)
{
    struct table_change *change = &qcow2->l1_change;
    int error = qcow2_write_refcounts(qcow2);
    if (!error && qcow2->l2.dirty) {
        error = table_write(qcow2, &qcow2->l2, qcow2_slice_at);
        if (!error)
            error = qcow2_sync(qcow2);
    }
    if (!error && change->first != change->end) {
        error = table_write_change(qcow2->mapped.file, qcow2->header.l1_at, qcow2->l1, change);
        if (!error)
            error = qcow2_sync(qcow2);
    }
    if (!error) {
        qcow2->lost_settling = qcow2->lost_count;
        qcow2->lost_clusters = 0;
    }
    return error;
}

int qcow2_flush(struct mapped *mapped)
{
    struct qcow2 *qcow2 = qcow2_of(mapped);
    int error = qcow2_write_back(qcow2);
    if (error)
        return error;
    mapped_lock(mapped);
    mapped->dirty = false;
    mapped_unlock(mapped);
    settle(qcow2); /* what comes of it can wait */
    return 0;
}

bool qcow2_owes(struct mapped *mapped)
{
    return qcow2_of(mapped)->lost_count;
}

void qcow2_end(struct qcow2 *qcow2)
{
    struct qcow2_header *header = &qcow2->header;
    bool changed = qcow2->marked || qcow2->refcounts.dirty || qcow2->l2.dirty ||
                   qcow2->lost_count || qcow2->l1_change.end || qcow2->mapped.dirty;
    if (!changed)
        return;
    qcow2->lazy = false;
    int error = qcow2_write_back(qcow2);
    if (!error && qcow2->lost_count) {
        error = settle(qcow2);
        if (!error)
            error = qcow2_write_refcounts(qcow2);
    }
    if (!error && qcow2->marked && !qcow2->losing && !qcow2->lost_count && !qcow2->corrupt) {
        header->incompatible &= ~(uint64_t)QCOW2_DIRTY;
        error = qcow2_write_header(qcow2);
        if (!error)
            error = qcow2_sync(qcow2);
    }
    if (error)
        log_warn(qcow2->name, "closing it failed: %s", g_strerror(error));
}
