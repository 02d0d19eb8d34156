/* A volatile write cache: what was flushed stays, and what was not may be lost, by chance. */
#include "block/volatile.h"

#include "block/disk.h"
#include "block/qcow2.h"
#include "block/raw.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BLOCK = 4096, SIZE = 16 << 20 };

struct rig {
    struct disk *disk;
    int fd; /* of the file, beside the disk's own */
};

static struct rig open_disk(uint64_t size, uint32_t seed, const struct raw_io *io)
{
    g_autoptr(GError) error = NULL;
    int fd = memfd_create("volatile", MFD_CLOEXEC);
    struct rig rig = { .fd = dup(fd) };
    g_assert_cmpint(ftruncate(fd, (off_t)size), ==, 0);
    struct disk *file = raw_open(fd, "disk", false, &error);
    g_assert_no_error(error);
    if (io)
        raw_set_io(file, io);
    rig.disk = volatile_open(file, seed);
    return rig;
}

static void close_disk(struct rig *rig)
{
    disk_free(rig->disk);
    close(rig->fd);
}

static int act(struct rig *rig, enum disk_op op, uint64_t at, uint64_t length)
{
    const struct disk_request request = { .op = op, .offset = at, .length = length };
    return disk_now(rig->disk, &request);
}

static void fill(struct rig *rig, uint64_t at, uint64_t length, int byte)
{
    g_autofree uint8_t *data = g_malloc(length);
    memset(data, byte, length);
    g_assert_cmpint(disk_write(rig->disk, data, length, at), ==, 0);
}

/* The byte that a whole range of the disk has, or of the file below; -1: it has several. */
static int seen(struct rig *rig, bool below, uint64_t at, uint64_t length)
{
    g_autofree uint8_t *data = g_malloc(length);
    if (below)
        g_assert_cmpint(pread(rig->fd, data, length, (off_t)at), ==, (ssize_t)length);
    else
        g_assert_cmpint(disk_read(rig->disk, data, length, at), ==, 0);
    return memcmp(data, data + 1, length - 1) == 0 ? data[0] : -1;
}

static void reads_see_writes(void)
{
    struct rig rig = open_disk(SIZE, 1, NULL);
    fill(&rig, 0, 4 * BLOCK, 1);
    g_assert_cmpint(act(&rig, DISK_FLUSH, 0, 0), ==, 0);
    fill(&rig, BLOCK - 512, 1024, 2); /* the end of a block and the beginning of the next */
    g_assert_cmpint(act(&rig, DISK_WRITE_ZEROES, 2 * BLOCK + 512, 512), ==, 0);
    fill(&rig, 2 * BLOCK + 1024, 512, 3); /* beside zeros that have no memory */
    g_assert_cmpint(seen(&rig, true, 0, 4 * BLOCK), ==, 1);
    for (unsigned below = 0; below < 2; below++) {
        g_assert_cmpint(seen(&rig, below, 0, BLOCK - 512), ==, 1);
        g_assert_cmpint(seen(&rig, below, BLOCK - 512, 1024), ==, 2);
        g_assert_cmpint(seen(&rig, below, BLOCK + 512, BLOCK), ==, 1);
        g_assert_cmpint(seen(&rig, below, 2 * BLOCK + 512, 512), ==, 0);
        g_assert_cmpint(seen(&rig, below, 2 * BLOCK + 1024, 512), ==, 3);
        g_assert_cmpint(seen(&rig, below, 2 * BLOCK + 1536, 2 * BLOCK - 1536), ==, 1);
        g_assert_cmpint(act(&rig, DISK_FLUSH, 0, 0), ==, 0);
    }
    close_disk(&rig);
}

/* Many writes of any size, against a model; the normal end writes all down. */
static void follows_a_model(void)
{
    struct rig rig = open_disk(SIZE, 1, NULL);
    g_autofree uint8_t *model = g_malloc0(SIZE), *data = g_malloc(SIZE);
    int fd = dup(rig.fd);
    for (unsigned i = 0; i < 4000; i++) {
        uint64_t at = (uint64_t)g_test_rand_int_range(0, 4096) * 512;
        uint64_t length = (uint64_t)g_test_rand_int_range(1, 64) * 512;
        unsigned what = (unsigned)g_test_rand_int_range(0, 100);
        if (what == 0)
            g_assert_cmpint(act(&rig, DISK_FLUSH, 0, 0), ==, 0);
        else if (what < 20)
            g_assert_cmpint(act(&rig, DISK_WRITE_ZEROES, at, length), ==, 0);
        else if (what < 60)
            fill(&rig, at, length, (int)i % 255 + 1);
        else
            g_assert_cmpint(disk_read(rig.disk, data, length, at), ==, 0);
        if (what && what < 60)
            memset(model + at, what < 20 ? 0 : (int)i % 255 + 1, length);
        else if (what)
            g_assert_cmpint(memcmp(data, model + at, length), ==, 0);
    }
    close_disk(&rig);
    g_assert_cmpint(pread(fd, data, SIZE, 0), ==, SIZE);
    g_assert_cmpint(memcmp(data, model, SIZE), ==, 0);
    close(fd);
}

/* The file after a cut: the first MiB was flushed, the next was changed without. */
static uint8_t *after_cut(uint32_t seed)
{
    enum { MIB = 1 << 20 };
    struct rig rig = open_disk(SIZE, seed, NULL);
    uint8_t *data = g_malloc(SIZE);
    int fd = dup(rig.fd);
    fill(&rig, 0, 2 * MIB, 1);
    g_assert_cmpint(act(&rig, DISK_FLUSH, 0, 0), ==, 0);
    fill(&rig, MIB, MIB, 2);
    fill(&rig, 2 * MIB + 512, 1024, 2);
    volatile_cut(rig.disk);
    close_disk(&rig);
    g_assert_cmpint(pread(fd, data, SIZE, 0), ==, SIZE);
    close(fd);
    for (unsigned i = 0; i < MIB; i++)
        g_assert_cmpuint(data[i], ==, 1);
    for (unsigned i = 2 * MIB; i < SIZE; i++) /* only what was written can be there */
        g_assert_true(!data[i] || (i >= 2 * MIB + 512 && i < 2 * MIB + 1536));
    return data;
}

static void a_cut_loses_some(void)
{
    g_autofree uint8_t *a = after_cut(7), *again = after_cut(7), *b = after_cut(8);
    unsigned whole = 0, lost = 0, torn = 0;
    g_assert_cmpint(memcmp(a, again, SIZE), ==, 0);
    g_assert_cmpint(memcmp(a, b, SIZE), !=, 0);
    for (const uint8_t *block = a + (1 << 20); block < a + (2 << 20); block += BLOCK) {
        unsigned left = 0;
        for (unsigned at = 0; at < BLOCK; at += 512) {
            g_assert_true(block[at] == 1 || block[at] == 2);
            g_assert_cmpint(memcmp(block + at, block + at + 1, 511), ==, 0); /* no torn sector */
            left += block[at] == 2;
        }
        whole += left == 8;
        lost += left == 0;
        torn += left > 0 && left < 8;
    }
    g_assert_cmpuint(whole, >, 40);
    g_assert_cmpuint(lost, >, 40);
    g_assert_cmpuint(torn, >, 40);
}

/* Beyond the bound the oldest blocks go down, and no more of them than must. */
static void is_bounded(void)
{
    enum { MIB = 1 << 20 };
    struct rig rig = open_disk(VOLATILE_MAX + 8 * MIB, 1, NULL);
    for (uint64_t at = 0; at < VOLATILE_MAX; at += MIB)
        fill(&rig, at, MIB, 1);
    g_assert_cmpint(seen(&rig, true, 0, VOLATILE_MAX), ==, 0);
    fill(&rig, VOLATILE_MAX, MIB, 1);
    g_assert_cmpint(seen(&rig, true, 0, MIB), ==, 1);
    g_assert_cmpint(seen(&rig, true, 2 * MIB, VOLATILE_MAX - 2 * MIB), ==, 0);
    g_assert_cmpint(seen(&rig, false, 0, VOLATILE_MAX + MIB), ==, 1);
    /* Zeros of more than the cache has go through, and what it kept there is void. */
    g_assert_cmpint(act(&rig, DISK_WRITE_ZEROES, 0, VOLATILE_MAX + 8 * MIB), ==, 0);
    g_assert_cmpint(act(&rig, DISK_FLUSH, 0, 0), ==, 0);
    g_assert_cmpint(seen(&rig, true, 0, VOLATILE_MAX + 8 * MIB), ==, 0);
    close_disk(&rig);
}

/* Zeros and a discard behind them: what was there before never comes back. */
static void discards(void)
{
    struct rig rig = open_disk(SIZE, 1, NULL);
    fill(&rig, 0, 4 * BLOCK, 1);
    g_assert_cmpint(act(&rig, DISK_FLUSH, 0, 0), ==, 0);
    g_assert_cmpint(act(&rig, DISK_WRITE_ZEROES, BLOCK, BLOCK), ==, 0);
    fill(&rig, 3 * BLOCK, BLOCK, 2);
    g_assert_cmpint(act(&rig, DISK_DISCARD, BLOCK, BLOCK), ==, 0);
    g_assert_cmpint(seen(&rig, false, BLOCK, BLOCK), ==, 0);
    g_assert_cmpint(seen(&rig, true, BLOCK, BLOCK), ==, 0);
    g_assert_cmpint(seen(&rig, true, 3 * BLOCK, BLOCK), ==, 1); /* others are kept */
    g_assert_cmpint(seen(&rig, false, 3 * BLOCK, BLOCK), ==, 2);
    close_disk(&rig);
}

static ssize_t no_write(int fd, const struct iovec *iov, int count, off_t offset)
{
    (void)fd, (void)iov, (void)count, (void)offset;
    errno = EIO;
    return -1;
}

static void a_flush_tells_errors(void)
{
    struct raw_io io = raw_system_io;
    io.writev = no_write;
    struct rig rig = open_disk(SIZE, 1, &io);
    fill(&rig, 0, BLOCK, 1);
    g_assert_cmpint(act(&rig, DISK_FLUSH, 0, 0), ==, EIO);
    g_assert_cmpint(act(&rig, DISK_FLUSH, 0, 0), ==, EIO); /* it was not forgotten */
    g_assert_cmpint(seen(&rig, false, 0, BLOCK), ==, 1);
    g_assert_cmpint(act(&rig, DISK_WRITE, SIZE, BLOCK), ==, EINVAL);
    close_disk(&rig);
}

/* --- as a device asks ---------------------------------------------------------------------------
 */

struct owner {
    GMutex lock;
    GCond cond;
    bool full, done;
    int error;
};

static ssize_t no_room(int fd, const struct iovec *iov, int count, off_t offset)
{
    (void)fd, (void)iov, (void)count, (void)offset;
    errno = ENOSPC;
    return -1;
}

static void on_done(struct disk_request *request, int error)
{
    struct owner *owner = request->owner;
    owner->done = true;
    owner->error = error;
    g_cond_broadcast(&owner->cond);
}

static void on_full(void *opaque, struct disk *disk, int error)
{
    struct owner *owner = opaque;
    (void)disk, (void)error;
    g_mutex_lock(&owner->lock);
    owner->full = true;
    g_cond_broadcast(&owner->cond);
    g_mutex_unlock(&owner->lock);
}

/* A flush that finds no room is held, as a write is. */
static void a_full_host_is_told(void)
{
    struct raw_io io = raw_system_io;
    struct owner owner = { .full = false };
    io.writev = no_room;
    struct rig rig = open_disk(SIZE, 1, &io);
    struct disk_request flush = { .op = DISK_FLUSH, .done = on_done, .owner = &owner };
    g_mutex_init(&owner.lock);
    g_cond_init(&owner.cond);
    disk_attach(rig.disk, &owner.lock, NULL);
    disk_set_full(rig.disk, on_full, &owner);
    fill(&rig, 0, BLOCK, 1);
    g_mutex_lock(&owner.lock);
    disk_submit(rig.disk, &flush);
    disk_kick(rig.disk);
    for (unsigned tries = 0; tries < 2; tries++) {
        while (!owner.full)
            g_cond_wait(&owner.cond, &owner.lock);
        g_assert_false(owner.done);
        owner.full = false;
        g_mutex_unlock(&owner.lock);
        if (tries)
            io.writev = raw_system_io.writev;
        disk_retry(rig.disk);
        g_mutex_lock(&owner.lock);
    }
    while (!owner.done)
        g_cond_wait(&owner.cond, &owner.lock);
    g_mutex_unlock(&owner.lock);
    g_assert_cmpint(owner.error, ==, 0);
    g_assert_cmpint(seen(&rig, true, 0, BLOCK), ==, 1);
    close_disk(&rig);
}

/* A cut above a qcow2 image, which has grown meanwhile: what was flushed is there and the image is
 * right, whatever was lost. */
static void lies_on_qcow2(void)
{
    const struct qcow2_options options = { .size = SIZE, .cluster = BLOCK };
    g_autoptr(GError) error = NULL;
    for (uint32_t seed = 1; seed <= 8; seed++) {
        int fd = memfd_create("volatile", MFD_CLOEXEC), again = dup(fd);
        g_assert_true(qcow2_create(fd, "disk", &options, &error));
        struct format_parts parts = { .name = "disk", .file = raw_open(fd, "disk", false, &error) };
        struct disk *image = qcow2_format.open(&parts, &error);
        g_assert_no_error(error);
        struct rig rig = { .disk = volatile_open(image, seed), .fd = -1 };
        fill(&rig, SIZE - 4 * BLOCK, 4 * BLOCK, 1);
        g_assert_cmpint(qcow2_format.resize(image, 2 * SIZE), ==, 0);
        volatile_follow(rig.disk);
        g_assert_cmpuint(rig.disk->size, ==, 2 * SIZE);
        fill(&rig, 2 * SIZE - 4 * BLOCK, 4 * BLOCK, 2);
        g_assert_cmpint(act(&rig, DISK_FLUSH, 0, 0), ==, 0);
        fill(&rig, SIZE, SIZE / 2, 3);
        volatile_cut(rig.disk);
        disk_free(rig.disk);

        struct format_report report = { 0 };
        parts.file = raw_open(again, "disk", false, &error);
        g_assert_no_error(error);
        g_assert_true(qcow2_check(parts.file, "disk", false, &report, &error));
        g_assert_cmpuint(report.corruptions, ==, 0);
        rig.disk = qcow2_format.open(&parts, &error);
        g_assert_no_error(error);
        g_assert_cmpint(seen(&rig, false, SIZE - 4 * BLOCK, 4 * BLOCK), ==, 1);
        g_assert_cmpint(seen(&rig, false, 2 * SIZE - 4 * BLOCK, 4 * BLOCK), ==, 2);
        g_assert_cmpint(seen(&rig, false, SIZE, SIZE / 2), ==, -1); /* some is lost */
        disk_free(rig.disk);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/volatile/reads", reads_see_writes);
    g_test_add_func("/volatile/model", follows_a_model);
    g_test_add_func("/volatile/cut", a_cut_loses_some);
    g_test_add_func("/volatile/bound", is_bounded);
    g_test_add_func("/volatile/discard", discards);
    g_test_add_func("/volatile/errors", a_flush_tells_errors);
    g_test_add_func("/volatile/qcow2", lies_on_qcow2);
    g_test_add_func("/volatile/full", a_full_host_is_told);
    return g_test_run();
}
