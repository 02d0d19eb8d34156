/* Faults that are set on a disk: what a request meets, that none is lost, and that nothing of it is
 * left when they end. The disk is a file in memory, the clock one that the test advances. */
#include "block/faults.h"

#include "base/clock.h"
#include "block/raw.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = 1 << 20, PIECE = 4096, MANY = 64 };

struct owner {
    GMutex lock;
    GCond cond;
    struct disk *disk;
    const struct disk_ops *own;
    struct clock *clock;
    unsigned finished, failed, fulls, batches, events;
    int error;
    uint8_t data[MANY][PIECE];
    struct iovec iov[MANY];
    struct disk_request request[MANY];
};

static void on_done(struct disk_request *request, int error)
{
    struct owner *o = request->owner;
    o->finished++;
    o->failed += error != 0;
    o->error = error ? error : o->error;
    g_cond_signal(&o->cond);
}

static void on_full(void *opaque, struct disk *disk, int error)
{
    struct owner *o = opaque;
    g_assert_true(disk == o->disk);
    g_assert_cmpint(error, ==, ENOSPC);
    o->fulls++;
}

static void on_failed(void *opaque, struct disk *disk, int error)
{
    struct owner *o = opaque;
    g_assert_true(disk == o->disk);
    g_assert_cmpint(error, ==, EIO);
    o->events++;
}

static void on_batch(void *opaque)
{
    struct owner *o = opaque;
    o->batches++;
}

static void open_disk(struct owner *o)
{
    g_autoptr(GError) error = NULL;
    int fd = memfd_create("faults", MFD_CLOEXEC);
    g_assert_cmpint(ftruncate(fd, SIZE), ==, 0);
    *o = (struct owner){ .clock = clock_new(true) };
    g_mutex_init(&o->lock);
    o->disk = raw_open(fd, "disk", false, &error);
    g_assert_no_error(error);
    o->own = o->disk->ops;
    disk_attach(o->disk, &o->lock, NULL);
    disk_set_full(o->disk, on_full, o);
    disk_set_failed(o->disk, on_failed, o);
    disk_set_batch(o->disk, on_batch, o);
}

static void close_disk(struct owner *o)
{
    disk_free(o->disk);
    clock_free(o->clock);
}

static void set(struct owner *o, struct disk_faults faults)
{
    g_mutex_lock(&o->lock);
    faults_set(o->disk, o->clock, &faults);
    g_mutex_unlock(&o->lock);
}

/* Request number `i`, of one piece or none. */
static void submit(struct owner *o, unsigned i, enum disk_op op, uint64_t sector)
{
    bool data = op == DISK_READ || op == DISK_WRITE;
    o->iov[i] = (struct iovec){ o->data[i], PIECE };
    o->request[i] = (struct disk_request){
        .op = op,
        .offset = sector * SECTOR,
        .length = op == DISK_FLUSH ? 0 : PIECE,
        .iov = data ? &o->iov[i] : NULL,
        .iov_count = data,
        .done = on_done,
        .owner = o,
    };
    g_mutex_lock(&o->lock);
    unsigned before = o->finished;
    disk_submit(o->disk, &o->request[i]);
    disk_kick(o->disk);
    g_assert_cmpuint(o->finished, ==, before); /* never from inside these */
    g_mutex_unlock(&o->lock);
}

static void wait_for(struct owner *o, unsigned finished)
{
    g_mutex_lock(&o->lock);
    while (o->finished < finished)
        g_cond_wait(&o->cond, &o->lock);
    g_mutex_unlock(&o->lock);
}

/* One request alone, in time: 0 or what it failed with. */
static int transfer(struct owner *o, enum disk_op op, uint64_t sector)
{
    o->error = 0;
    unsigned before = o->finished;
    submit(o, 0, op, sector);
    clock_advance(o->clock, 0, 0);
    wait_for(o, before + 1);
    return o->error;
}

static bool busy(struct owner *o)
{
    g_mutex_lock(&o->lock);
    bool is = o->disk->ops->busy(o->disk);
    g_mutex_unlock(&o->lock);
    return is;
}

/* --- tests --------------------------------------------------------------------------------------
 */

static void bad_sectors(void)
{
    struct owner o;
    open_disk(&o);
    set(&o, (struct disk_faults){ .bad = { { 100, 100, true, true },
                                           { 200, 215, true, false },
                                           { 300, 300, false, true },
                                           { UINT64_MAX, UINT64_MAX, true, true } },
                                  .bad_count = 4 });
    static const struct {
        uint64_t sector;
        int read, write;
    } expected[] = {
        { 92, 0, 0 },  { 93, EIO, EIO }, { 100, EIO, EIO }, { 101, 0, 0 },
        { 192, 0, 0 }, { 193, EIO, 0 },  { 208, EIO, 0 },   { 215, EIO, 0 },
        { 216, 0, 0 }, { 293, 0, EIO },  { 300, 0, EIO },   { 301, 0, 0 },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(expected); i++) {
        g_assert_cmpint(transfer(&o, DISK_READ, expected[i].sector), ==, expected[i].read);
        g_assert_cmpint(transfer(&o, DISK_WRITE, expected[i].sector), ==, expected[i].write);
        g_assert_cmpint(transfer(&o, DISK_WRITE_ZEROES, expected[i].sector), ==, expected[i].write);
        g_assert_cmpint(transfer(&o, DISK_DISCARD, expected[i].sector), ==, 0);
    }
    g_assert_cmpint(transfer(&o, DISK_FLUSH, 100), ==, 0); /* which has no place */
    g_assert_cmpuint(o.events, ==, o.failed);
    g_assert_cmpuint(o.batches, >=, o.failed);
    g_assert_cmpint(transfer(&o, DISK_READ, SIZE / SECTOR), ==, EINVAL);
    set(&o, (struct disk_faults){ .delay = 0 });
    g_assert_true(o.disk->ops == o.own); /* nothing is in a request's way */
    g_assert_cmpint(transfer(&o, DISK_READ, 100), ==, 0);
    close_disk(&o);
}

/* The time is the guest's; each request takes that much longer, and they do not wait for each
 * other. */
static void slow(void)
{
    struct owner o;
    open_disk(&o);
    set(&o, (struct disk_faults){ .delay = 1000 });
    for (unsigned i = 0; i < MANY; i++) {
        submit(&o, i, i % 3 ? DISK_WRITE : DISK_FLUSH, i * 8);
        clock_advance(o.clock, 10, 0);
    }
    g_assert_cmpuint(o.finished, ==, 0);
    g_assert_true(busy(&o));
    clock_advance(o.clock, 1000 - MANY * 10 - 1, 0);
    g_assert_cmpuint(o.finished, ==, 0);
    clock_advance(o.clock, 1, 0);
    wait_for(&o, 1);
    clock_advance(o.clock, 10 * MANY, 0);
    wait_for(&o, MANY);
    g_assert_cmpuint(o.failed, ==, 0);
    disk_drain(o.disk);
    g_assert_false(busy(&o));
    close_disk(&o);
}

/* A reset waits for all that is in flight, whose time does not come while the machine stands. */
static void drained(void)
{
    struct owner o;
    open_disk(&o);
    set(&o, (struct disk_faults){
                .delay = 1000, .bad = { { 0, 7, true, true } }, .bad_count = 1, .full = true });
    for (unsigned i = 0; i < MANY; i++)
        submit(&o, i, i % 2 ? DISK_READ : DISK_WRITE, i % 4 * 8);
    disk_give_up(o.disk);
    disk_drain(o.disk);
    g_assert_cmpuint(o.finished, ==, MANY);
    g_assert_cmpuint(o.failed, ==, MANY / 2); /* the writes; and no read is of sector 0 */
    g_assert_cmpuint(o.fulls, ==, 0);
    submit(&o, 0, DISK_WRITE, 8); /* the next one is held again */
    clock_advance(o.clock, 1000, 0);
    g_assert_cmpuint(o.fulls, ==, 1);
    disk_drain(o.disk);
    g_assert_cmpuint(o.finished, ==, MANY + 1);
    close_disk(&o);
}

static void no_room(void)
{
    struct owner o;
    open_disk(&o);
    set(&o, (struct disk_faults){ .full = true });
    g_assert_cmpint(transfer(&o, DISK_READ, 0), ==, 0);
    for (unsigned i = 0; i < 3; i++) {
        memset(o.data[i], (int)i + 1, PIECE);
        submit(&o, i, DISK_WRITE, 0);
    }
    clock_advance(o.clock, 5000, 0);
    g_assert_cmpuint(o.finished, ==, 1);
    g_assert_cmpuint(o.fulls, ==, 1); /* once for each try */
    disk_retry(o.disk);
    clock_advance(o.clock, 0, 0);
    g_assert_cmpuint(o.finished, ==, 1);
    g_assert_cmpuint(o.fulls, ==, 2);
    set(&o, (struct disk_faults){ .delay = 0 });
    disk_retry(o.disk);
    wait_for(&o, 4);
    g_assert_cmpuint(o.failed, ==, 0);
    g_assert_cmpint(transfer(&o, DISK_READ, 0), ==, 0);
    g_assert_cmpint(o.data[0][0], !=, 0);
    close_disk(&o);
}

/* Others are set while requests wait; and a disk that ends with some. */
static void changed(void)
{
    struct owner o;
    open_disk(&o);
    struct disk_faults faults = { .delay = NS_PER_SECOND };
    set(&o, faults);
    for (unsigned i = 0; i < 4; i++)
        submit(&o, i, DISK_READ, i * 8);
    faults.delay = 5;
    set(&o, faults);
    wait_for(&o, 4);
    submit(&o, 4, DISK_READ, 0);
    clock_advance(o.clock, 5, 0);
    wait_for(&o, 5);
    faults.full = true;
    set(&o, faults);
    g_assert_cmpuint(faults_get(o.disk).delay, ==, 5);
    submit(&o, 5, DISK_WRITE, 0);
    clock_advance(o.clock, 5, 0);
    submit(&o, 6, DISK_READ, 0);
    faults_free(o.disk);
    g_assert_cmpuint(o.finished, ==, 7);
    g_assert_cmpuint(o.failed, ==, 1);
    g_assert_true(o.disk->ops == o.own);
    set(&o, faults);
    submit(&o, 7, DISK_WRITE, 0);
    close_disk(&o);
    g_assert_cmpuint(o.finished, ==, 8);
}

/* A host's file that grows has no part in it. */
static void growing(void)
{
    struct owner o;
    open_disk(&o);
    set(&o, (struct disk_faults){ .delay = 1 });
    g_assert_cmpint(raw_resize(o.disk, 2 * SIZE), ==, 0);
    g_assert_cmpuint(o.disk->size, ==, 2 * SIZE);
    close_disk(&o);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/faults/bad-sectors", bad_sectors);
    g_test_add_func("/faults/slow", slow);
    g_test_add_func("/faults/drained", drained);
    g_test_add_func("/faults/no-room", no_room);
    g_test_add_func("/faults/changed", changed);
    g_test_add_func("/faults/growing", growing);
    return g_test_run();
}
