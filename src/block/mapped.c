/* The disk over a format's map; see mapped.h. */
#include "block/mapped.h"

#include "block/cursor.h"
#include "block/raw.h"

#include <errno.h>
#include <string.h>

enum {
    SPANS = 64, /* of a request, in one system call */
    KEEP_AT_ONCE = 1 << 20,
    KEPT_MOST = 32 << 20,   /* without a flush */
    PATIENCE = 5 * 1000000, /* microseconds, as long as Linux waits with a commit */
};

static struct mapped *of(struct disk *disk)
{
    return (struct mapped *)disk;
}

/* --- reading --------------------------------------------------------------------------------- */

/* Any bytes of `file` or of the disk below, unlike what an owner may ask for. */
static int read_disk(struct disk *disk, struct cursor *cursor, uint64_t at, uint64_t length)
{
    struct iovec iov[SPANS];
    int error = 0;
    size_t n;
    for (; length && !error; at += n, length -= n) {
        struct disk_request request = { .op = DISK_READ, .at = at, .iov = iov };
        request.iov_count = cursor_take(cursor, length, iov, SPANS, &n);
        request.length = n;
        error = disk->ops->now(disk, &request);
    }
    return error;
}

/* The disk below may be shorter than this one. */
static int read_below(struct mapped *mapped, struct cursor *cursor, uint64_t offset,
                      uint64_t length)
{
    const struct disk *below = mapped->below;
    uint64_t there = below && offset < below->size ? MIN(length, below->size - offset) : 0;
    int error = read_disk(mapped->below, cursor, offset, there);
    if (!error)
        cursor_zero(cursor, length - there);
    return error;
}

static int read_packed(struct mapped *mapped, const struct extent *extent, struct cursor *cursor,
                       uint64_t offset, uint64_t length)
{
    int error = 0;
    for (uint64_t n; length && !error; offset += n, length -= n) {
        n = MIN(length, mapped->granule);
        error = mapped->format->unpack(mapped, extent, offset, mapped->bounce, n);
        if (!error)
            cursor_write(cursor, mapped->bounce, n);
    }
    return error;
}

static bool keep(struct mapped *mapped, uint64_t offset, uint64_t length);

static int read_range(struct mapped *mapped, struct cursor *cursor, uint64_t offset,
                      uint64_t length)
{
    int error = 0;
    for (uint64_t n; length && !error; offset += n, length -= n) {
        struct extent extent = { .length = 0 };
        error = mapped->format->map(mapped, offset, length, &extent);
        if (!error && extent.kind == EXTENT_BELOW && mapped->worker.disk.gathers &&
            !mapped->keeping && keep(mapped, offset, MIN(length, extent.length)))
            error = mapped->format->map(mapped, offset, length, &extent);
        n = MIN(length, extent.length);
        if (error)
            break;
        switch (extent.kind) {
        case EXTENT_BELOW:
            error = read_below(mapped, cursor, offset, n);
            break;
        case EXTENT_DATA:
            error = read_disk(mapped->file, cursor, extent.at, n);
            break;
        case EXTENT_ZERO:
            cursor_zero(cursor, n);
            break;
        case EXTENT_PACKED:
            error = read_packed(mapped, &extent, cursor, offset, n);
            break;
        }
    }
    return error;
}

int mapped_read(struct mapped *mapped, uint64_t offset, void *to, size_t length)
{
    struct iovec iov = { to, length };
    struct cursor cursor = { &iov, 0 };
    return length ? read_range(mapped, &cursor, offset, length) : 0;
}

/* --- writing --------------------------------------------------------------------------------- */

/* A NULL cursor stands for zeros. */
static int write_file(struct mapped *mapped, struct cursor *cursor, uint64_t at, uint64_t length)
{
    struct iovec iov[SPANS];
    int error = 0;
    size_t n;
    if (!cursor)
        return raw_zero(mapped->file, at, length);
    for (; length && !error; at += n, length -= n) {
        unsigned count = cursor_take(cursor, length, iov, SPANS, &n);
        error = raw_move(mapped->file, true, iov, count, at);
    }
    return error;
}

/* Zeros that are nowhere. */
static bool reads_zeros(const struct mapped *mapped, const struct extent *extent, uint64_t offset)
{
    const struct disk *below = mapped->below;
    return extent->kind == EXTENT_ZERO ||
           (extent->kind == EXTENT_BELOW && (!below || offset >= below->size));
}

static bool is_zero(const uint8_t *data, size_t length)
{
    return !data[0] && !memcmp(data, data + 1, length - 1);
}

/* What the guest sees now from `offset` on to the same range in the new place. */
static int copy_up(struct mapped *mapped, const struct place *place, uint64_t offset,
                   uint64_t length)
{
    struct extent extent = { .length = 0 };
    int error = 0;
    if (!length)
        return 0;
    if (place->blank) { /* often all of it is zeros, and stays unwritten */
        error = mapped->format->map(mapped, offset, length, &extent);
        if (error)
            return error;
        if (reads_zeros(mapped, &extent, offset) && extent.length >= length)
            return 0;
    }
    uint8_t *copy = g_try_malloc(length); /* MiB at most, see struct place */
    if (!copy)
        return ENOMEM;
    error = mapped_read(mapped, offset, copy, length);
    if (!error && !(place->blank && is_zero(copy, length)))
        error = raw_write(mapped->file, copy, length, place->at + (offset - place->start));
    g_free(copy);
    return error;
}

/* Writes the beginning of a range to where there is no place for it yet; *length becomes what was
 * written. */
static int write_new(struct mapped *mapped, struct cursor *cursor, uint64_t offset,
                     uint64_t *length)
{
    struct place place = { .length = 0 };
    int error = mapped->format->allocate(mapped, offset, *length, &place);
    if (error)
        return error;
    uint64_t end = MIN(place.start + place.length, mapped->worker.disk.size);
    *length = MIN(*length, end - offset);
    uint64_t tail = offset + *length;
    error = copy_up(mapped, &place, place.start, offset - place.start);
    if (!error && (cursor || !place.blank))
        error = write_file(mapped, cursor, place.at + (offset - place.start), *length);
    if (!error)
        error = copy_up(mapped, &place, tail, end - tail);
    if (!error)
        return mapped->format->commit(mapped, &place);
    mapped->format->cancel(mapped, &place);
    return error;
}

/* Writes here what is far away and was asked for, or the beginning of it; false when it stays where
 * it is: there is nothing to it, or no room. */
static bool keep(struct mapped *mapped, uint64_t offset, uint64_t length)
{
    struct disk *below = mapped->below;
    struct disk_piece piece;
    struct place place = { .length = 0 };
    if (offset >= below->size ||
        disk_piece(below, offset, MIN(length, below->size - offset), &piece) || piece.zero ||
        mapped->format->allocate(mapped, offset, MIN(piece.length, KEEP_AT_ONCE), &place))
        return false;
    uint64_t end = MIN(place.start + place.length, mapped->worker.disk.size);
    mapped->keeping = true;
    int error = copy_up(mapped, &place, place.start, end - place.start);
    mapped->keeping = false;
    if (error) {
        mapped->format->cancel(mapped, &place);
        return false;
    }
    mapped->kept += place.length;
    return !mapped->format->commit(mapped, &place);
}

static int write_range(struct mapped *mapped, struct cursor *cursor, uint64_t offset,
                       uint64_t length)
{
    int error = 0;
    for (uint64_t n; length && !error; offset += n, length -= n) {
        struct extent extent = { .length = 0 };
        error = mapped->format->map(mapped, offset, length, &extent);
        n = length;
        if (error)
            break;
        if (!cursor && reads_zeros(mapped, &extent, offset)) {
            n = MIN(length, extent.length);
        } else if (extent.kind == EXTENT_DATA && extent.writable) {
            n = MIN(length, extent.length);
            error = write_file(mapped, cursor, extent.at, n);
        } else {
            error = write_new(mapped, cursor, offset, &n);
        }
    }
    return error;
}

/* Zeros, or a discard: whole granules by the format; of others a discard is a hint not taken. */
static int zero_range(struct mapped *mapped, uint64_t offset, uint64_t length, bool discard)
{
    uint64_t granule = mapped->granule, end = offset + length;
    uint64_t first = (offset + granule - 1) / granule * granule;
    uint64_t last = end == mapped->worker.disk.size ? end : end / granule * granule;
    int error = ENOTSUP;
    if (first < last && mapped->format->zero)
        error = mapped->format->zero(mapped, first, last - first, discard);
    if (discard)
        return error == ENOTSUP ? 0 : error;
    if (error)
        return error == ENOTSUP ? write_range(mapped, NULL, offset, length) : error;
    error = write_range(mapped, NULL, offset, first - offset);
    return error ? error : write_range(mapped, NULL, last, end - last);
}

/* --- on the thread --------------------------------------------------------------------------- */

static int flush(struct mapped *mapped)
{
    mapped->kept = 0;
    if (mapped->worker.disk.readonly)
        return 0;
    return mapped->format->flush ? mapped->format->flush(mapped) : raw_sync(mapped->file);
}

/* A guest that only reads never flushes. An error will be found by the one that does. */
static void flush_kept(struct mapped *mapped)
{
    if (mapped->kept >= KEPT_MOST)
        flush(mapped);
}

static int carry_out(struct mapped *mapped, const struct disk_request *request)
{
    struct cursor cursor = { request->iov, 0 };
    uint64_t at = request->at, length = request->length;
    switch (request->op) {
    case DISK_READ:
        return read_range(mapped, &cursor, at, length);
    case DISK_WRITE:
        return write_range(mapped, &cursor, at, length);
    case DISK_DISCARD:
    case DISK_WRITE_ZEROES:
        return zero_range(mapped, at, length, request->op == DISK_DISCARD);
    case DISK_FLUSH:
        return flush(mapped);
    }
    return EINVAL;
}

static bool owes(struct mapped *mapped)
{
    return mapped->format->owes && mapped->format->owes(mapped);
}

static int mapped_run(struct worker *worker, const struct disk_request *request)
{
    struct mapped *mapped = (struct mapped *)worker;
    g_mutex_lock(&mapped->work);
    uint64_t size = mapped->worker.disk.size; /* which may have got smaller again */
    bool fits = request->length <= size && request->at <= size - request->length;
    int error = fits ? carry_out(mapped, request) : EINVAL;
    flush_kept(mapped);
    if (owes(mapped))
        worker_later(worker, mapped->patience);
    g_mutex_unlock(&mapped->work);
    return error;
}

/* The guest has not flushed the disk since it gave up room. What fails here fails again with the
 * next flush that it asks for; what requests are still on their way to is for the next time. */
static void pay(struct worker *worker)
{
    struct mapped *mapped = (struct mapped *)worker;
    g_mutex_lock(&mapped->work);
    if (owes(mapped) && !flush(mapped) && owes(mapped))
        worker_later(worker, mapped->patience);
    g_mutex_unlock(&mapped->work);
}

static int piece_below(struct mapped *mapped, uint64_t offset, uint64_t length,
                       struct disk_piece *piece)
{
    struct disk *below = mapped->below;
    piece->zero = !below || offset >= below->size;
    if (piece->zero)
        return 0;
    int error = disk_piece(below, offset, MIN(length, below->size - offset), piece);
    piece->depth++;
    return error;
}

static int mapped_piece(struct disk *disk, uint64_t offset, uint64_t length,
                        struct disk_piece *piece)
{
    struct mapped *mapped = (struct mapped *)disk;
    struct extent extent = { .length = 0 };
    g_mutex_lock(&mapped->work);
    int error = mapped->format->map(mapped, offset, length, &extent);
    piece->length = MIN(length, extent.length);
    piece->zero = extent.kind == EXTENT_ZERO;
    piece->mapped = extent.kind == EXTENT_DATA;
    piece->at = extent.at;
    if (!error && extent.kind == EXTENT_BELOW)
        error = piece_below(mapped, offset, piece->length, piece);
    g_mutex_unlock(&mapped->work);
    return error;
}

void mapped_lock(struct mapped *mapped)
{
    if (mapped->worker.disk.lock)
        g_mutex_lock(mapped->worker.disk.lock);
}

void mapped_unlock(struct mapped *mapped)
{
    if (mapped->worker.disk.lock)
        g_mutex_unlock(mapped->worker.disk.lock);
}

/* An age ends when all that began in the one before are through. */
static void grow_older(struct mapped *mapped)
{
    if (!mapped->flights[!(mapped->age & 1)])
        mapped->age++;
}

uint64_t mapped_age(struct mapped *mapped)
{
    return mapped->age; /* changed with `work` held */
}

bool mapped_settled(struct mapped *mapped, uint64_t stamp)
{
    mapped_lock(mapped);
    for (unsigned i = 0; i < 2 && mapped->age < stamp + 2; i++)
        grow_older(mapped);
    mapped_unlock(mapped);
    return mapped->age >= stamp + 2;
}

/* --- the disk's operations, with the owner's lock held ---------------------------------------- */

static void attach(struct mapped *mapped)
{
    disk_lay_under(mapped->file, &mapped->worker.disk);
    if (mapped->below)
        disk_lay_under(mapped->below, &mapped->worker.disk);
    mapped->attached = true;
}

static void go_to_file(struct mapped *mapped, struct disk_request *request)
{
    request->tally = &mapped->flights[mapped->age & 1];
    ++*request->tally;
    mapped->file->ops->submit(mapped->file, request);
}

/* The piece at `offset` for one of the parts of a request; false: it is for the thread. */
static bool peek_part(struct mapped *mapped, enum disk_op op, uint64_t offset, uint64_t length,
                      struct extent *extent)
{
    const struct disk *below = mapped->below;
    if (!mapped->format->peek(mapped, offset, length, extent))
        return false;
    extent->length = MIN(extent->length, length);
    if (extent->kind == EXTENT_DATA)
        return op == DISK_READ || extent->writable;
    if (extent->kind == EXTENT_BELOW) {
        extent->at = offset;
        if (!below || offset >= below->size)
            extent->kind = EXTENT_ZERO;
        else
            extent->length = MIN(extent->length, below->size - offset);
    }
    bool far = extent->kind == EXTENT_BELOW && mapped->worker.disk.gathers;
    return op == DISK_READ && extent->kind != EXTENT_PACKED && !far;
}

/* Cuts it into parts as the pieces are; with the kind of each. False: something of it is for the
 * thread, or there are too many. */
static bool cut_up(struct mapped *mapped, struct split *split, enum extent_kind *kinds)
{
    const struct disk_request *request = split->whole;
    while (split->cut < request->length) {
        struct extent extent = { .length = 0 };
        if (!peek_part(mapped, request->op, request->at + split->cut, request->length - split->cut,
                       &extent))
            return false;
        if (extent.kind == EXTENT_ZERO) {
            split_zero(split, extent.length);
            continue;
        }
        kinds[split->part_count % SPLIT_PARTS] = extent.kind;
        if (!split_cut(split, extent.length, extent.at))
            return false;
    }
    return split->part_count; /* zeros alone have nobody who would say that they are done */
}

/* A request in a few pieces, each of which could go on as it is. */
G_GNUC_NO_INLINE static bool go_in_parts(struct mapped *mapped, struct disk_request *request)
{
    enum extent_kind kinds[SPLIT_PARTS];
    if (request->length > SPLIT_LENGTH)
        return false;
    struct split *split = split_begin(&mapped->splits, request);
    if (!split)
        return false;
    if (!cut_up(mapped, split, kinds)) {
        split_give_up(split);
        return false;
    }
    unsigned count = split->part_count; /* none is done before this is through */
    for (unsigned i = 0; i < count; i++) {
        if (kinds[i] == EXTENT_DATA)
            go_to_file(mapped, &split->parts[i]);
        else
            mapped->below->ops->submit(mapped->below, &split->parts[i]);
    }
    return true;
}

static bool go_fast(struct mapped *mapped, struct disk_request *request)
{
    struct extent extent;
    const struct disk *disk = &mapped->worker.disk;
    struct disk *below = mapped->below;
    if (request->op > DISK_WRITE || request->error ||
        !mapped->format->peek(mapped, request->at, request->length, &extent))
        return false;
    if (extent.length < request->length)
        return go_in_parts(mapped, request);
    if (extent.kind == EXTENT_DATA && (request->op == DISK_READ || extent.writable)) {
        request->at = extent.at;
        go_to_file(mapped, request);
        return true;
    }
    if (extent.kind != EXTENT_BELOW || request->op != DISK_READ || !below || disk->gathers)
        return false;
    if (request->at + request->length > below->size)
        return go_in_parts(mapped, request);
    below->ops->submit(below, request);
    return true;
}

_Static_assert(DISK_READ == 0 && DISK_WRITE == 1, "go_fast");

static void mapped_submit(struct disk *disk, struct disk_request *request)
{
    struct mapped *mapped = of(disk);
    if (!mapped->attached)
        attach(mapped);
    if (go_fast(mapped, request))
        return;
    if (request->op == DISK_FLUSH && !request->error && !disk->readonly && !mapped->dirty &&
        !worker_busy(&mapped->worker)) {
        mapped->file->ops->submit(mapped->file, request);
        return;
    }
    worker_forgive(&mapped->worker);
    worker_take(&mapped->worker, request);
}

static void mapped_kick(struct disk *disk)
{
    struct mapped *mapped = of(disk);
    disk_kick(mapped->file);
    if (mapped->below)
        disk_kick(mapped->below);
}

static bool mapped_poll(struct disk *disk)
{
    struct mapped *mapped = of(disk);
    bool below = mapped->below && disk_poll(mapped->below);
    return disk_poll(mapped->file) || below;
}

static bool mapped_busy(struct disk *disk)
{
    struct mapped *mapped = of(disk);
    return worker_busy(&mapped->worker) || mapped->file->ops->busy(mapped->file) ||
           (mapped->below && mapped->below->ops->busy(mapped->below));
}

/* What is done may lead to new requests, which take any way. */
static void mapped_drain(struct disk *disk)
{
    struct mapped *mapped = of(disk);
    bool busy = disk->lock && mapped->attached;
    while (busy) {
        worker_drain(disk);
        disk_drain(mapped->below);
        disk_drain(mapped->file);
        g_mutex_lock(disk->lock);
        busy = mapped_busy(disk);
        g_mutex_unlock(disk->lock);
    }
}

static void mapped_retry(struct disk *disk, bool give_up)
{
    struct mapped *mapped = of(disk);
    worker_retry(disk, give_up);
    if (mapped->file->ops->retry)
        mapped->file->ops->retry(mapped->file, give_up);
    if (mapped->below && mapped->below->ops->retry)
        mapped->below->ops->retry(mapped->below, give_up);
}

static void mapped_free(struct disk *disk)
{
    mapped_retry(disk, true);
    mapped_drain(disk);
    worker_free(disk);
}

static void mapped_finish(struct worker *worker)
{
    struct mapped *mapped = (struct mapped *)worker;
    if (mapped->format->close)
        mapped->format->close(mapped);
    disk_free(mapped->file);
    disk_free(mapped->below);
    g_free(mapped->bounce);
    splits_free(&mapped->splits);
    g_mutex_clear(&mapped->work);
}

static const struct disk_ops mapped_ops = {
    .submit = mapped_submit,
    .kick = mapped_kick,
    .poll = mapped_poll,
    .busy = mapped_busy,
    .now = worker_now,
    .piece = mapped_piece,
    .drain = mapped_drain,
    .free = mapped_free,
    .retry = mapped_retry,
};

bool mapped_init(struct mapped *mapped, const struct mapped_format *format, const char *name,
                 struct disk *file, struct disk *below, uint64_t granule)
{
    mapped->bounce = g_try_malloc(granule);
    if (!mapped->bounce)
        return false;
    worker_init(&mapped->worker, name, 1, mapped_run, mapped_finish);
    mapped->worker.disk.ops = &mapped_ops;
    mapped->worker.later = pay;
    mapped->patience = PATIENCE;
    mapped->worker.disk.identity = g_strdup(file->identity);
    mapped->format = format;
    mapped->file = file;
    mapped->below = below;
    mapped->granule = granule;
    mapped->worker.disk.far = file->far;
    mapped->worker.disk.gathers = format->keeps && below && below->far && !file->readonly;
    g_mutex_init(&mapped->work);
    return true;
}
