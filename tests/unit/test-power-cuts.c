/* Power cuts: what a disk asked of its host is written down, and the file is made anew as it may be
 * after a cut at any moment: all up to the last sync, and of the rest any sectors. Such an image is
 * right, and what was flushed is there. `-m slow` cuts each workload 200 times. */
#include "block/copy.h"
#include "block/format.h"
#include "block/mapped.h"
#include "block/raw.h"
#include "rig/image.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

enum {
    MOST = HISTORY_DISK + (2 << 20), /* bytes of a disk */
    ROUNDS = 80,
    DEPTH = 8, /* requests at once */
    CUTS = 6,
    SLOW_CUTS = 200,
};

/* --- the host ---------------------------------------------------------------------------------
 */

/* What a file was asked to do, in order. A write is noted when it is through: a sync is only good
 * for those that were before it began. */
struct host_call {
    enum { HOST_WRITE, HOST_ZERO, HOST_SIZE, HOST_SYNC } what;
    uint64_t at, length;
    uint8_t *data;
};

static struct {
    GMutex mutex;
    GArray *calls;
} host;

static void clear_call(void *data)
{
    g_free(((struct host_call *)data)->data);
}

static GArray *new_calls(void)
{
    GArray *calls = g_array_new(false, false, sizeof(struct host_call));
    g_array_set_clear_func(calls, clear_call);
    return calls;
}

static guint calls_made(void)
{
    g_mutex_lock(&host.mutex);
    guint count = host.calls->len;
    g_mutex_unlock(&host.mutex);
    return count;
}

static void note(int what, uint64_t at, uint64_t length, uint8_t *data)
{
    struct host_call call = { what, at, length, data };
    g_mutex_lock(&host.mutex);
    g_array_append_val(host.calls, call);
    g_mutex_unlock(&host.mutex);
}

static ssize_t host_write(int fd, const struct iovec *iov, int count, off_t offset)
{
    GByteArray *all = g_byte_array_new();
    for (int i = 0; i < count; i++)
        g_byte_array_append(all, iov[i].iov_base, (guint)iov[i].iov_len);
    guint length = all->len;
    ssize_t result = pwritev(fd, iov, count, offset);
    g_assert_cmpint(result, ==, length);
    note(HOST_WRITE, (uint64_t)offset, length, g_byte_array_free(all, false));
    return result;
}

static int host_sync(int fd)
{
    (void)fd;
    note(HOST_SYNC, 0, 0, NULL);
    return 0;
}

static int host_allocate(int fd, int mode, off_t offset, off_t length)
{
    int result = fallocate(fd, mode, offset, length);
    if (result == 0)
        note(HOST_ZERO, (uint64_t)offset, (uint64_t)length, NULL);
    return result;
}

static int host_truncate(int fd, off_t size)
{
    int result = ftruncate(fd, size);
    note(HOST_SIZE, (uint64_t)size, 0, NULL);
    return result;
}

static const struct raw_io host_io = { preadv,        host_write,    host_sync,
                                       host_allocate, host_truncate, NULL };

static struct disk *open_on_host(const char *path)
{
    struct disk *file = image_open_file(path, false);
    raw_set_io(file, &host_io);
    raw_use_threads(file);
    return file;
}

static void set_length(GByteArray *file, uint64_t length)
{
    guint before = file->len;
    g_byte_array_set_size(file, (guint)length);
    if (file->len > before)
        memset(file->data + before, 0, file->len - before);
}

/* What a call did to the file; of its sectors those that are lucky: `luck` of 3. */
static void redo(GByteArray *file, const struct host_call *call, GRand *rand, int luck)
{
    if (call->what == HOST_SIZE)
        set_length(file, call->at);
    for (uint64_t done = 0, n; done < call->length; done += n) {
        uint64_t at = call->at + done;
        n = MIN(call->length - done, SECTOR - at % SECTOR);
        if (luck < 3 && g_rand_int_range(rand, 0, 3) >= luck)
            continue;
        if (call->what == HOST_ZERO) { /* does not make it longer */
            if (at < file->len)
                memset(file->data + at, 0, MIN(n, file->len - at));
            continue;
        }
        set_length(file, MAX(file->len, at + n));
        memcpy(file->data + at, call->data + done, n);
    }
}

/* The file after a cut when `end` calls were made. */
static void replay(GByteArray *file, GRand *rand, const GArray *calls, guint end)
{
    guint synced = 0;
    for (guint i = 0; i < end; i++)
        if (g_array_index(calls, struct host_call, i).what == HOST_SYNC)
            synced = i;
    for (guint i = 0; i < end; i++) {
        const struct host_call *call = &g_array_index(calls, struct host_call, i);
        int luck = i < synced ? 3 : g_rand_int_range(rand, 0, 4);
        if (call->what != HOST_SYNC && luck)
            redo(file, call, rand, luck);
    }
}

static GByteArray *load(const char *path)
{
    char *all = NULL;
    gsize length = 0;
    g_assert_true(g_file_get_contents(path, &all, &length, NULL));
    return g_byte_array_new_take((uint8_t *)all, length);
}

static void save(const char *path, const GByteArray *file)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    g_assert_cmpint(write(fd, file->data, file->len), ==, file->len);
    close(fd);
}

static guint any_moment(GRand *rand, const GArray *calls)
{
    return (guint)g_rand_int_range(rand, 0, (int)calls->len + 1);
}

/* --- workloads ---------------------------------------------------------------------------------
 */

enum what { WRITE, WRITE_NOTHING, FLUSH, DISCARD, ZEROES, RESIZE, COMPACT, REOPEN, WHATS };

struct mix {
    const char *name;
    uint8_t weights[WHATS];
    unsigned depth; /* requests at once */
    size_t most;    /* bytes of a request */
    bool snapshot;  /* the image has one */
};

/* The first is made of all shapes of images, of the others each run takes its part. */
static const struct mix mixes[] = {
    { "mixed",
      { [WRITE] = 6, [FLUSH] = 2, [DISCARD] = 2, [ZEROES] = 2 },
      .depth = 1,
      .most = MOST },
    { "churn",
      { [WRITE] = 5, [FLUSH] = 4, [DISCARD] = 4, [REOPEN] = 1 },
      .depth = 2,
      .most = 131072 },
    { "resize",
      { [WRITE] = 6, [FLUSH] = 2, [DISCARD] = 1, [ZEROES] = 1, [RESIZE] = 3 },
      .depth = 1,
      .most = MOST },
    { "deep",
      { [WRITE] = 9, [FLUSH] = 1, [DISCARD] = 2, [ZEROES] = 2 },
      .depth = DEPTH,
      .most = 262144 },
    { "snapshot",
      { [WRITE] = 6, [FLUSH] = 2, [DISCARD] = 2, [ZEROES] = 2, [REOPEN] = 1 },
      .depth = 2,
      .most = MOST,
      .snapshot = true },
    { "care",
      { [WRITE] = 5,
        [WRITE_NOTHING] = 3,
        [FLUSH] = 1,
        [ZEROES] = 1,
        [COMPACT] = 2,
        [RESIZE] = 1,
        [REOPEN] = 2 },
      .depth = 1,
      .most = MOST,
      .snapshot = true },
};

struct workload {
    const struct image_shape *shape;
    const struct mix *mix;
};

/* What was asked of the disk, when `calls` of the host's were made. */
struct wish {
    enum what what;
    size_t at, length; /* RESIZE: from the new end on */
    unsigned round;
    guint calls;
};

struct flush {
    guint wishes, calls; /* so many were there when it was answered */
    size_t disk;
    uint8_t *model;
};

struct run {
    struct history history;
    const struct mix *mix;
    GArray *wishes, *flushes;
    GByteArray *base; /* the image before them */
    uint8_t *then;    /* what the snapshot has */
};

static void clear_flush(void *data)
{
    g_free(((struct flush *)data)->model);
}

static void add_flush(struct run *run)
{
    struct flush flush = { run->wishes->len, calls_made(), run->history.disk,
                           g_memdup2(run->history.model, MOST) };
    g_array_append_val(run->flushes, flush);
}

static void open_run(struct run *run)
{
    struct history *history = &run->history;
    struct format_parts parts = { history->path, open_on_host(history->path),
                                  history_below(history), NULL, 0 };
    g_autoptr(GError) error = NULL;
    struct disk *disk = qcow2_format.open(&parts, &error);
    g_assert_no_error(error);
    ((struct mapped *)disk)->patience = 1; /* room is given back whenever it can be */
    image_own(&history->owner, disk);
    g_assert_cmpuint(disk->size, ==, history->disk);
}

/* --- asking ---------------------------------------------------------------------------------- */

struct batch {
    struct image_owner *owner;
    unsigned left;
    struct disk_request requests[DEPTH];
    struct iovec iov[DEPTH];
    size_t end; /* of the last range: those of a batch do not meet */
};

static void on_one(struct disk_request *request, int error)
{
    struct batch *batch = request->owner;
    g_assert_cmpint(error, ==, 0);
    if (!--batch->left)
        g_cond_signal(&batch->owner->cond);
}

static void submit(struct batch *batch, unsigned count)
{
    struct image_owner *owner = batch->owner;
    g_mutex_lock(&owner->lock);
    batch->left = count;
    for (unsigned i = 0; i < count; i++)
        disk_submit(owner->disk, &batch->requests[i]);
    disk_kick(owner->disk);
    while (batch->left)
        g_cond_wait(&owner->cond, &owner->lock);
    g_mutex_unlock(&owner->lock);
}

static enum what pick_what(struct run *run)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < WHATS; i++)
        sum += run->mix->weights[i];
    unsigned luck = (unsigned)g_rand_int_range(run->history.rand, 0, (int)sum);
    for (unsigned i = 0; i < WHATS; i++) {
        if (luck < run->mix->weights[i])
            return i;
        luck -= run->mix->weights[i];
    }
    g_assert_not_reached();
}

static void wish_for(struct run *run, enum what what, size_t at, size_t length, unsigned round)
{
    struct wish wish = { what, at, length, round, calls_made() };
    g_array_append_val(run->wishes, wish);
}

/* What concerns the disk as a whole, with nothing in flight. */
static void care(struct run *run, enum what what, unsigned round)
{
    struct history *history = &run->history;
    g_autoptr(GError) error = NULL;
    if (what == FLUSH) {
        g_assert_cmpint(image_transfer(&history->owner, DISK_FLUSH, 0, NULL, 0), ==, 0);
        add_flush(run);
    } else if (what == COMPACT) {
        copy_compact(history->owner.disk, &error);
        g_assert_no_error(error);
    } else if (what == REOPEN) {
        history_close(history);
        open_run(run);
    } else {
        size_t size = (size_t)g_rand_int_range(history->rand, MOST / 3, MOST) / SECTOR * SECTOR;
        size_t from = MIN(size, history->disk);
        wish_for(run, RESIZE, size, MOST - size, round);
        disk_drain(history->owner.disk);
        g_assert_cmpint(qcow2_format.resize(history->owner.disk, size), ==, 0);
        memset(history->model + from, 0, MOST - from);
        history->disk = size;
    }
}

static void add_request(struct run *run, struct batch *batch, enum what what, unsigned round)
{
    static const enum disk_op ops[] = {
        [WRITE] = DISK_WRITE,
        [WRITE_NOTHING] = DISK_WRITE,
        [DISCARD] = DISK_DISCARD,
        [ZEROES] = DISK_WRITE_ZEROES,
    };
    struct history *history = &run->history;
    size_t at, length;
    history_pick(history, &at, &length);
    length = MIN(length, run->mix->most);
    at = MIN(MAX(at, batch->end), history->disk);
    length = MIN(length, history->disk - at);
    if (!length)
        return;
    batch->end = at + length;
    wish_for(run, what, at, length, round);
    if (what == WRITE)
        image_fill(history->model + at, at, length, round);
    else if (what != DISCARD)
        memset(history->model + at, 0, length);
    memcpy(history->data + at, history->model + at, length);
    bool moves = ops[what] == DISK_WRITE;
    batch->iov[batch->left] = (struct iovec){ history->data + at, length };
    batch->requests[batch->left] = (struct disk_request){
        .op = ops[what],
        .offset = at,
        .length = length,
        .iov = moves ? &batch->iov[batch->left] : NULL,
        .iov_count = moves,
        .done = on_one,
        .owner = batch,
    };
    batch->left++;
}

static void ask(struct run *run, unsigned round)
{
    struct history *history = &run->history;
    struct batch batch = { .owner = &history->owner };
    enum what what = FLUSH;
    for (unsigned i = 0; i < run->mix->depth; i++) {
        what = pick_what(run);
        if (what != WRITE && what != WRITE_NOTHING && what != DISCARD && what != ZEROES)
            break;
        add_request(run, &batch, what, round);
        what = WRITE;
    }
    unsigned count = batch.left;
    if (count)
        submit(&batch, count);
    for (unsigned i = 0; i < count; i++)
        if (batch.requests[i].op == DISK_DISCARD)
            history_learn_discard(history, batch.requests[i].offset, batch.requests[i].length);
    if (what != WRITE)
        care(run, what, round);
}

/* --- judging --------------------------------------------------------------------------------- */

static bool may_be(const struct wish *wish, size_t at, const uint8_t *now)
{
    uint8_t sector[SECTOR] = { 0 };
    if (wish->what == WRITE)
        image_fill(sector, at, SECTOR, wish->round);
    return at >= wish->at && at < wish->at + wish->length && !memcmp(now, sector, SECTOR);
}

/* Every sector is as it was flushed, or as something later would have it. */
static void check_survivors(struct run *run, const struct flush *last, guint end)
{
    struct history *history = &run->history;
    size_t size = history->owner.disk->size;
    bool sized = size == last->disk;
    guint until = last->wishes; /* what was asked for by then */
    for (; until < run->wishes->len; until++) {
        const struct wish *wish = &g_array_index(run->wishes, struct wish, until);
        if (wish->calls >= end)
            break;
        sized |= wish->what == RESIZE && size == wish->at;
    }
    g_assert_true(sized);
    g_assert_cmpint(image_transfer(&history->owner, DISK_READ, 0, history->data, size), ==, 0);
    for (size_t at = 0; at < size; at += SECTOR) {
        bool good = !memcmp(history->data + at, last->model + at, SECTOR);
        for (guint i = last->wishes; i < until && !good; i++)
            good = may_be(&g_array_index(run->wishes, struct wish, i), at, history->data + at);
        if (!good)
            g_error("%s, %s: sector %zu is lost", history->shape->name, run->mix->name,
                    at / SECTOR);
    }
}

/* What lay behind the end does not come back. */
static void check_growing(struct run *run)
{
    struct history *history = &run->history;
    size_t size = history->owner.disk->size;
    disk_drain(history->owner.disk);
    g_assert_cmpint(qcow2_format.resize(history->owner.disk, MOST), ==, 0);
    g_assert_cmpint(image_transfer(&history->owner, DISK_READ, 0, history->data, MOST), ==, 0);
    for (size_t at = size; at < MOST; at++)
        g_assert_cmpuint(history->data[at], ==, 0);
}

static void check_snapshot(struct run *run)
{
    struct history *history = &run->history;
    struct format_parts parts = { history->path, image_open_file(history->path, true),
                                  history_below(history), NULL, 0 };
    g_autoptr(GError) error = NULL;
    struct disk *disk = qcow2_open_snapshot(&parts, "then", &error);
    g_assert_no_error(error);
    g_assert_cmpint(disk_read(disk, history->data, HISTORY_DISK, 0), ==, 0);
    g_assert_true(!memcmp(history->data, run->then, HISTORY_DISK));
    disk_free(disk);
}

/* hv image check, on the host above when that is to be noted. */
static void mend(const char *path, bool noted)
{
    struct format_report report;
    g_autoptr(GError) error = NULL;
    struct disk *file = noted ? open_on_host(path) : image_open_file(path, false);
    qcow2_check(file, path, true, &report, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(report.corruptions, ==, report.corruptions_fixed);
    g_assert_cmpuint(report.leaks, ==, report.leaks_fixed);
    disk_free(file);
}

/* The power goes once more, while the image that `file` is gets repaired. */
static void cut_repair(struct run *run, GByteArray *file)
{
    struct history *history = &run->history;
    GArray *calls = host.calls;
    host.calls = new_calls();
    if (g_rand_boolean(history->rand)) {
        mend(history->path, true);
    } else {
        struct format_parts parts = { history->path, open_on_host(history->path),
                                      history_below(history), NULL, 0 };
        disk_free(qcow2_format.open(&parts, NULL));
    }
    replay(file, history->rand, host.calls, any_moment(history->rand, host.calls));
    save(history->path, file);
    g_array_unref(host.calls);
    host.calls = calls;
}

static void cut(struct run *run)
{
    struct history *history = &run->history;
    const struct image_shape *shape = history->shape;
    GByteArray *file = g_byte_array_new();
    guint end = any_moment(history->rand, host.calls);
    const struct flush *last = &g_array_index(run->flushes, struct flush, 0);
    struct format_report report;
    for (guint i = 1; i < run->flushes->len; i++)
        if (g_array_index(run->flushes, struct flush, i).calls <= end)
            last = &g_array_index(run->flushes, struct flush, i);
    g_byte_array_append(file, run->base->data, run->base->len);
    replay(file, history->rand, host.calls, end);
    save(history->path, file);
    if (g_rand_int_range(history->rand, 0, 4) == 0)
        cut_repair(run, file);
    g_byte_array_unref(file);

    if (!shape->made.lazy) {
        struct disk *look = image_open_file(history->path, true);
        g_assert_true(qcow2_check(look, history->path, false, &report, NULL));
        g_assert_cmpuint(report.corruptions, ==, 0);
        disk_free(look);
    }
    image_open_disk(&history->owner, history->path, false, history_below(history));
    check_survivors(run, last, end);
    if (run->mix->weights[RESIZE])
        check_growing(run);
    history_close(history);
    if (image_is_old(shape)) /* does not say that it was not closed */
        mend(history->path, false);
    image_check(history->path, false);
    if (run->then)
        check_snapshot(run);
}

/* --- a workload ------------------------------------------------------------------------------ */

static void take_snapshot(struct run *run)
{
    struct history *history = &run->history;
    history_reopen(history);
    for (unsigned round = 1; round <= 20; round++)
        history_step(history, 1000 + round);
    history_close(history);
    g_assert_cmpint(image_run(NULL, "qemu-img snapshot -c then %s", history->path), ==, 0);
    run->then = g_memdup2(history->model, HISTORY_DISK);
}

static void power_cuts(gconstpointer data)
{
    const struct workload *workload = data;
    const unsigned cuts = g_test_slow() ? SLOW_CUTS : CUTS;
    struct run run = {
        .mix = workload->mix,
        .wishes = g_array_new(false, false, sizeof(struct wish)),
        .flushes = g_array_new(false, false, sizeof(struct flush)),
    };
    if (!image_have_judge())
        return;
    g_array_set_clear_func(run.flushes, clear_flush);
    host.calls = new_calls();
    history_start(&run.history, workload->shape, MOST);
    if (run.mix->snapshot)
        take_snapshot(&run);
    run.base = load(run.history.path);
    add_flush(&run);
    open_run(&run);
    for (unsigned round = 1; round <= ROUNDS; round++)
        ask(&run, round);
    history_close(&run.history);
    for (unsigned i = 0; i < cuts; i++)
        cut(&run);
    history_end(&run.history);
    g_array_unref(host.calls);
    g_array_unref(run.wishes);
    g_array_unref(run.flushes);
    g_byte_array_unref(run.base);
    g_free(run.then);
}

/* Of each kind of image what its format, and qemu-img's part, allow. */
static bool possible(const struct workload *workload)
{
    const struct image_shape *shape = workload->shape;
    const struct mix *mix = workload->mix;
    bool old = image_is_old(shape) && (mix->snapshot || shape->below);
    return !(mix->snapshot && shape->made.refcount == 1) && !(mix->weights[RESIZE] && old);
}

/* --- commit ----------------------------------------------------------------------------------- */

/* The image is written into what it lies on. Whatever is left of that, both show what they did. */
static void commits(gconstpointer data)
{
    const struct image_shape *shape = data; /* of the image below; NULL: raw */
    const unsigned cuts = g_test_slow() ? SLOW_CUTS : CUTS;
    static const struct image_shape upper_shape = {
        "upper", NULL, { .size = HISTORY_DISK, .format = "raw" }, true, false
    };
    struct history history;
    g_autofree char *lower = image_path("lower");
    g_autoptr(GError) error = NULL;
    if (!image_have_judge())
        return;
    history_start(&history, &upper_shape, HISTORY_DISK);
    history_reopen(&history);
    for (unsigned round = 1; round <= 60; round++)
        history_step(&history, round);
    history_close(&history);
    if (shape)
        g_assert_cmpint(image_run(NULL, "qemu-img convert -f raw -O qcow2 -o %s %s %s",
                                  shape->options, history.below, lower),
                        ==, 0);
    else
        g_assert_cmpint(image_run(NULL, "cp %s %s", history.below, lower), ==, 0);

    const struct format *format = shape ? &qcow2_format : &raw_format;
    GByteArray *base = load(lower);
    host.calls = new_calls();
    struct format_parts parts = { lower, open_on_host(lower), NULL, NULL, 0 };
    struct disk *below = format->open(&parts, &error);
    g_assert_no_error(error);
    struct disk *upper = image_try_open(history.path, false, below, &error);
    g_assert_no_error(error);
    g_assert_cmpint(format->resize(below, HISTORY_DISK), ==, 0);
    copy_own(upper, below, &error);
    g_assert_no_error(error);
    disk_free(upper);
    for (unsigned i = 0; i <= cuts; i++) {
        guint end = i ? any_moment(history.rand, host.calls) : host.calls->len;
        GByteArray *file = g_byte_array_new();
        g_byte_array_append(file, base->data, base->len);
        replay(file, history.rand, host.calls, end);
        save(lower, file);
        g_byte_array_unref(file);
        parts.file = image_open_file(lower, false);
        below = format->open(&parts, &error);
        g_assert_no_error(error);
        if (!i) {
            g_assert_cmpint(disk_read(below, history.data, HISTORY_DISK, 0), ==, 0);
            g_assert_true(!memcmp(history.data, history.model, HISTORY_DISK));
        }
        image_open_disk(&history.owner, history.path, true, below);
        history_check_read(&history, 0, HISTORY_DISK);
        history_close(&history);
        if (shape && image_is_old(shape))
            mend(lower, false);
        if (shape)
            image_check(lower, false);
    }
    g_array_unref(host.calls);
    g_byte_array_unref(base);
    g_unlink(lower);
    history_end(&history);
}

int main(int argc, char **argv)
{
    static const struct image_shape lower[] = {
        { .name = "qcow2", .options = "compat=1.1" },
        { .name = "v2", .options = "compat=0.10,cluster_size=4k" },
        { .name = "c512", .options = "cluster_size=512" },
        { .name = "c2m", .options = "cluster_size=2M" },
        { .name = "sub", .options = "extended_l2=on,cluster_size=32k" },
        { .name = "lazy", .options = "lazy_refcounts=on,cluster_size=8k" },
        { .name = "64bit", .options = "refcount_bits=64,cluster_size=2k" },
    };
    g_test_init(&argc, &argv, NULL);
    image_folder_make(IN_MEMORY);
    GPtrArray *all = g_ptr_array_new_with_free_func(g_free);
    for (size_t m = 0; m < G_N_ELEMENTS(mixes); m++)
        for (size_t i = 0; i < image_shape_count; i++) {
            struct workload workload = { &image_shapes[i], &mixes[m] };
            g_autofree char *path =
                g_strconcat("/power-cuts/", mixes[m].name, "/", image_shapes[i].name, NULL);
            bool turn = !m || g_test_slow() || i % (G_N_ELEMENTS(mixes) - 1) == m - 1;
            if (!turn || !possible(&workload))
                continue;
            g_ptr_array_add(all, g_memdup2(&workload, sizeof workload));
            g_test_add_data_func(path, all->pdata[all->len - 1], power_cuts);
        }
    g_test_add_data_func("/power-cuts/commit/raw", NULL, commits);
    for (size_t i = 0; i < G_N_ELEMENTS(lower); i++) {
        g_autofree char *path = g_strconcat("/power-cuts/commit/", lower[i].name, NULL);
        g_test_add_data_func(path, &lower[i], commits);
    }
    int result = g_test_run();
    g_ptr_array_unref(all);
    image_folder_drop();
    return result;
}
