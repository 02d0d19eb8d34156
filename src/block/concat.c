/* Disks strung together; see concat.h. A request within one part goes on to it as it is; others
 * are carried out by a thread, piece by piece. */
#include "block/concat.h"

#include "block/cursor.h"
#include "block/worker.h"

#include <string.h>

enum { SPANS = 64 };

struct part {
    struct disk *disk;
    uint64_t start; /* bytes of the whole */
    bool active;    /* it is on the list */
};

struct concat {
    struct worker worker; /* of one thread */
    struct part *parts;
    unsigned count;
    bool attached; /* the parts have the owner's lock and loop */
    /* Parts that have had requests since they were last found idle: of hundreds, only these are
     * kicked and polled. The owner's lock. */
    unsigned *active, active_count;
};

static struct part *part_at(const struct concat *concat, uint64_t at)
{
    unsigned low = 0, high = concat->count;
    while (high - low > 1) {
        unsigned middle = low + (high - low) / 2;
        if (concat->parts[middle].start <= at)
            low = middle;
        else
            high = middle;
    }
    return &concat->parts[low];
}

/* --- on the thread, or in disk_now ------------------------------------------------------------ */

static int flush_all(const struct concat *concat)
{
    const struct disk_request flush = { .op = DISK_FLUSH };
    int error = 0;
    for (unsigned i = 0; i < concat->count; i++) {
        struct disk *disk = concat->parts[i].disk;
        int failed = disk->ops->now(disk, &flush);
        error = error ? error : failed;
    }
    return error;
}

/* The beginning of a range, as far as one part and one system call go; *length becomes that. */
static int do_piece(const struct concat *concat, enum disk_op op, uint64_t at, uint64_t *length,
                    struct cursor *cursor)
{
    const struct part *part = part_at(concat, at);
    struct iovec iov[SPANS];
    struct disk_request request = { .op = op, .at = at - part->start, .iov = iov };
    uint64_t most = part->disk->size;
    size_t n = 0;
    *length = MIN(*length, most > request.at ? most - request.at : 0);
    if (op <= DISK_WRITE) {
        request.iov_count = cursor_take(cursor, *length, iov, SPANS, &n);
        *length = n;
    }
    request.length = *length;
    return *length ? part->disk->ops->now(part->disk, &request) : 0;
}

_Static_assert(DISK_READ == 0 && DISK_WRITE == 1, "do_piece");

/* What is read behind the end is zeros: who has a disk over this one reads whole pages. */
static int concat_run(struct worker *worker, const struct disk_request *request)
{
    const struct concat *concat = (struct concat *)worker;
    struct cursor cursor = { request->iov, 0 };
    uint64_t at = request->at, left = request->length;
    int error = 0;
    if (request->op == DISK_FLUSH)
        return flush_all(concat);
    for (uint64_t n; left && !error; at += n, left -= n) {
        n = left;
        error = do_piece(concat, request->op, at, &n, &cursor);
        if (!n)
            break;
    }
    if (!error && request->op == DISK_READ)
        cursor_zero(&cursor, left);
    return error;
}

/* --- the disk's operations, with the owner's lock held -----------------------------------------
 */

static void attach_parts(struct concat *concat)
{
    for (unsigned i = 0; i < concat->count; i++)
        disk_lay_under(concat->parts[i].disk, &concat->worker.disk);
    concat->attached = true;
}

static void concat_submit(struct disk *disk, struct disk_request *request)
{
    struct concat *concat = (struct concat *)disk;
    if (!concat->attached)
        attach_parts(concat);
    struct part *part = part_at(concat, request->at);
    if (request->error || request->op == DISK_FLUSH ||
        request->at - part->start > part->disk->size ||
        request->length > part->disk->size - (request->at - part->start)) {
        worker_forgive(&concat->worker);
        worker_take(&concat->worker, request);
        return;
    }
    if (!part->active)
        concat->active[concat->active_count++] = (unsigned)(part - concat->parts);
    part->active = true;
    request->at -= part->start;
    part->disk->ops->submit(part->disk, request);
}

/* An idle part leaves the list; `i` is the next one's place in it. */
static unsigned prune(struct concat *concat, unsigned i)
{
    struct part *part = &concat->parts[concat->active[i]];
    if (part->disk->ops->busy(part->disk))
        return i + 1;
    part->active = false;
    concat->active[i] = concat->active[--concat->active_count];
    return i;
}

static void concat_kick(struct disk *disk)
{
    struct concat *concat = (struct concat *)disk;
    for (unsigned i = 0; i < concat->active_count; i = prune(concat, i))
        disk_kick(concat->parts[concat->active[i]].disk);
}

/* `done` may submit more, to any part. */
static bool concat_poll(struct disk *disk)
{
    struct concat *concat = (struct concat *)disk;
    bool some = false;
    for (unsigned i = 0; i < concat->active_count; i = prune(concat, i))
        some |= disk_poll(concat->parts[concat->active[i]].disk);
    return some;
}

static bool concat_busy(struct disk *disk)
{
    const struct concat *concat = (struct concat *)disk;
    bool busy = worker_busy((struct worker *)disk);
    for (unsigned i = 0; i < concat->active_count && !busy; i++) {
        struct disk *part = concat->parts[concat->active[i]].disk;
        busy = part->ops->busy(part);
    }
    return busy;
}

static void concat_drain(struct disk *disk)
{
    struct concat *concat = (struct concat *)disk;
    bool busy = disk->lock && concat->attached;
    while (busy) {
        worker_drain(disk);
        for (unsigned i = 0; i < concat->count; i++)
            disk_drain(concat->parts[i].disk);
        g_mutex_lock(disk->lock);
        busy = concat_busy(disk);
        g_mutex_unlock(disk->lock);
    }
}

static void concat_retry(struct disk *disk, bool give_up)
{
    const struct concat *concat = (struct concat *)disk;
    worker_retry(disk, give_up);
    for (unsigned i = 0; i < concat->count; i++) {
        struct disk *part = concat->parts[i].disk;
        if (part->ops->retry)
            part->ops->retry(part, give_up);
    }
}

static void concat_free(struct disk *disk)
{
    concat_retry(disk, true);
    concat_drain(disk);
    worker_free(disk);
}

static void concat_finish(struct worker *worker)
{
    struct concat *concat = (struct concat *)worker;
    for (unsigned i = 0; i < concat->count; i++)
        disk_free(concat->parts[i].disk);
    g_free(concat->parts);
    g_free(concat->active);
}

static const struct disk_ops concat_ops = {
    .submit = concat_submit,
    .kick = concat_kick,
    .poll = concat_poll,
    .busy = concat_busy,
    .now = worker_now,
    .drain = concat_drain,
    .free = concat_free,
    .retry = concat_retry,
};

/* Their places; false when the sum does not fit. */
static bool string_together(struct concat *concat, struct disk *const *parts)
{
    uint64_t end = 0;
    for (unsigned i = 0; i < concat->count; i++) {
        concat->parts[i] = (struct part){ .disk = parts[i], .start = end };
        if (parts[i]->size > INT64_MAX - end)
            return false;
        end += parts[i]->size;
        concat->worker.disk.readonly |= parts[i]->readonly;
    }
    concat->worker.disk.size = end;
    return true;
}

struct disk *concat_new(const char *name, struct disk *const *parts, unsigned count)
{
    struct concat *concat = g_try_new0(struct concat, 1);
    if (!concat)
        return NULL;
    concat->count = count;
    concat->parts = g_try_new0(struct part, count);
    concat->active = g_try_new0(unsigned, count);
    if (!concat->parts || !concat->active || !string_together(concat, parts)) {
        g_free(concat->parts);
        g_free(concat->active);
        g_free(concat);
        return NULL;
    }
    worker_init(&concat->worker, name, 1, concat_run, concat_finish);
    concat->worker.disk.ops = &concat_ops;
    concat->worker.disk.identity = g_strdup(parts[0]->identity);
    return &concat->worker.disk;
}

void concat_dissolve(struct disk *disk)
{
    ((struct concat *)disk)->count = 0;
    disk_free(disk);
}
