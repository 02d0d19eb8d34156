/* Disks: raw files with real descriptors, on io_uring and on threads; throwaway overlays; locks;
 * recognition. */
#include "base/error.h"
#include "block/disk.h"
#include "block/image.h"
#include "block/overlay.h"
#include "block/raw.h"
#include "rig/ways.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = 256 * 1024 };

/* What a device would be: the owner of the disk and of one request at a time. */
struct owner {
    GMutex lock;
    GCond cond;
    struct disk *disk;
    bool finished;
    int error, full;
};

static int file_of(size_t size, uint8_t fill)
{
    int fd = way_file();
    g_autofree uint8_t *data = g_malloc(size + 1);
    memset(data, fill, size);
    g_assert_cmpint(write(fd, data, size), ==, (ssize_t)size);
    return fd;
}

static void on_done(struct disk_request *request, int error)
{
    struct owner *owner = request->owner;
    owner->error = error;
    owner->finished = true;
    g_cond_signal(&owner->cond);
}

static void on_full(void *opaque, struct disk *disk, int error)
{
    struct owner *owner = opaque;
    g_assert_true(disk == owner->disk);
    g_mutex_lock(&owner->lock);
    owner->full = error;
    g_cond_signal(&owner->cond);
    g_mutex_unlock(&owner->lock);
}

static void attach(struct owner *owner, struct disk *disk)
{
    *owner = (struct owner){ .disk = disk };
    g_mutex_init(&owner->lock);
    g_cond_init(&owner->cond);
    disk_attach(disk, &owner->lock, NULL);
    disk_set_full(disk, on_full, owner);
}

static struct disk *open_raw(struct owner *owner, int fd, bool readonly)
{
    g_autoptr(GError) error = NULL;
    struct disk *disk = raw_open(fd, "test.img", readonly, &error);
    g_assert_no_error(error);
    if (way == WAY_THREADS)
        raw_use_threads(disk);
    attach(owner, disk);
    return disk;
}

static void start(struct owner *owner, struct disk_request *request)
{
    request->done = on_done;
    request->owner = owner;
    g_mutex_lock(&owner->lock); /* a device submits with its lock held */
    owner->finished = false;
    disk_submit(owner->disk, request);
    disk_kick(owner->disk);
    g_assert_false(owner->finished); /* never from inside these */
    g_mutex_unlock(&owner->lock);
}

static int await(struct owner *owner)
{
    g_mutex_lock(&owner->lock);
    while (!owner->finished)
        g_cond_wait(&owner->cond, &owner->lock);
    g_mutex_unlock(&owner->lock);
    return owner->error;
}

static int transfer(struct owner *owner, enum disk_op op, uint64_t offset, void *data,
                    size_t length)
{
    /* In uneven parts, as guests' buffers are. */
    size_t a = length / 3, b = length / 2;
    struct iovec iov[3] = { { data, a },
                            { (uint8_t *)data + a, b - a },
                            { (uint8_t *)data + b, length - b } };
    struct disk_request request = {
        .op = op, .offset = offset, .length = length, .iov = iov, .iov_count = 3
    };
    start(owner, &request);
    return await(owner);
}

static bool all(const uint8_t *data, size_t length, uint8_t value)
{
    for (size_t i = 0; i < length; i++)
        if (data[i] != value)
            return false;
    return true;
}

/* --- raw ------------------------------------------------------------------------------------- */

static void raw_reads_and_writes(void)
{
    struct owner owner;
    int fd = file_of(SIZE, 0x11);
    struct disk *disk = open_raw(&owner, fd, false);
    uint8_t data[8192], seen[8192];
    memset(data, 0xa5, sizeof data);
    g_assert_cmpint(transfer(&owner, DISK_WRITE, 1024, data, sizeof data), ==, 0);
    g_assert_cmpint(transfer(&owner, DISK_READ, 1024, seen, sizeof seen), ==, 0);
    g_assert_cmpmem(data, sizeof data, seen, sizeof seen);
    g_assert_cmpint(pread(fd, seen, 1024, 0), ==, 1024);
    g_assert_true(all(seen, 1024, 0x11));
    g_assert_cmpint(transfer(&owner, DISK_FLUSH, 0, NULL, 0), ==, 0);
    disk_free(disk);
}

static void raw_checks_ranges(void)
{
    struct owner owner;
    struct disk *disk = open_raw(&owner, file_of(SIZE, 0), false);
    uint8_t data[1024] = { 0 };
    g_assert_cmpint(transfer(&owner, DISK_READ, SIZE - 512, data, 1024), ==, EINVAL);
    g_assert_cmpint(transfer(&owner, DISK_WRITE, UINT64_MAX - 511, data, 1024), ==, EINVAL);
    g_assert_cmpint(transfer(&owner, DISK_READ, 100, data, 512), ==, EINVAL);
    g_assert_cmpint(transfer(&owner, DISK_READ, SIZE - 512, data, 512), ==, 0);
    disk_free(disk);

    disk = open_raw(&owner, file_of(SIZE, 0), true);
    g_assert_cmpint(transfer(&owner, DISK_WRITE, 0, data, 512), ==, EROFS);
    g_assert_cmpint(transfer(&owner, DISK_DISCARD, 0, data, 512), ==, EROFS);
    disk_free(disk);
}

static void raw_pads_the_tail(void)
{
    struct owner owner;
    int fd = file_of(1000, 0x22);
    struct disk *disk = open_raw(&owner, fd, false);
    uint8_t data[512];
    g_assert_cmpuint(disk->size, ==, 1024);
    memset(data, 0xff, sizeof data);
    g_assert_cmpint(transfer(&owner, DISK_READ, 512, data, 512), ==, 0);
    g_assert_true(all(data, 488, 0x22) && all(data + 488, 24, 0));
    g_assert_cmpint(transfer(&owner, DISK_WRITE, 512, data, 512), ==, 0);
    g_assert_cmpint(lseek(fd, 0, SEEK_END), ==, 1024);
    disk_free(disk);
}

static void raw_refuses(void)
{
    g_autoptr(GError) error = NULL;
    int null = open("/dev/null", O_RDWR), empty = file_of(0, 0);
    g_assert_null(raw_open(null, "null", false, &error));
    g_assert_nonnull(strstr(error->message, "no disk image"));
    g_clear_error(&error);
    g_assert_null(raw_open(empty, "empty.img", false, &error));
    g_assert_nonnull(strstr(error->message, "empty.img is empty"));
    close(null); /* they stayed ours */
    close(empty);
}

static void raw_discards(void)
{
    struct owner owner;
    struct disk *disk = open_raw(&owner, file_of(SIZE, 0x33), false);
    uint8_t data[8192];
    struct disk_request request = { .op = DISK_DISCARD, .offset = 4096, .length = 4096 };
    start(&owner, &request);
    g_assert_cmpint(await(&owner), ==, 0);
    g_assert_cmpint(transfer(&owner, DISK_READ, 0, data, 8192), ==, 0);
    g_assert_true(all(data, 4096, 0x33) && all(data + 4096, 4096, 0)); /* memfds have holes */
    disk_free(disk);
}

static void raw_writes_zeroes(void)
{
    struct owner owner;
    struct disk *disk = open_raw(&owner, file_of(SIZE, 0x33), false);
    uint8_t *data = g_malloc(SIZE);
    struct disk_request request = { .op = DISK_WRITE_ZEROES, .offset = 512, .length = 100352 };
    start(&owner, &request);
    g_assert_cmpint(await(&owner), ==, 0);
    g_assert_cmpint(transfer(&owner, DISK_READ, 0, data, SIZE), ==, 0);
    g_assert_true(all(data, 512, 0x33) && all(data + 512, 100352, 0));
    g_assert_true(all(data + 512 + 100352, SIZE - 512 - 100352, 0x33));
    g_free(data);
    disk_free(disk);
}

/* A host that interrupts, transfers in crumbs, is full, and loses what it should flush. */
static struct {
    gint interruptions; /* atomic */
    int room, sync_error;
} host;

static ssize_t crumb(int fd, const struct iovec *iov, off_t offset, bool write)
{
    if (g_atomic_int_add(&host.interruptions, -1) > 0) {
        errno = EINTR;
        return -1;
    }
    size_t n = MIN(iov->iov_len, 100);
    if (write && !host.room) {
        errno = ENOSPC;
        return -1;
    }
    return write ? pwrite(fd, iov->iov_base, n, offset) : pread(fd, iov->iov_base, n, offset);
}

static ssize_t bad_readv(int fd, const struct iovec *iov, int count, off_t offset)
{
    g_assert_cmpint(count, >, 0);
    return crumb(fd, iov, offset, false);
}

static ssize_t bad_writev(int fd, const struct iovec *iov, int count, off_t offset)
{
    g_assert_cmpint(count, >, 0);
    return crumb(fd, iov, offset, true);
}

static int bad_sync(int fd)
{
    (void)fd;
    errno = host.sync_error;
    return host.sync_error ? -1 : 0;
}

/* The same host by way of io_uring. */
static int bad_result(struct disk_request *request, int result)
{
    if (request->op == DISK_FLUSH)
        return -host.sync_error;
    if (g_atomic_int_add(&host.interruptions, -1) > 0)
        return -EINTR;
    if (request->op == DISK_WRITE && !host.room)
        return -ENOSPC;
    return MIN(result, 100);
}

static const struct raw_io bad_io = {
    bad_readv, bad_writev, bad_sync, fallocate, ftruncate, bad_result,
};

static void raw_completes_short_transfers(void)
{
    struct owner owner;
    struct disk *disk = open_raw(&owner, file_of(SIZE, 0), false);
    uint8_t data[4096], seen[4096];
    raw_set_io(disk, &bad_io);
    host.interruptions = 3;
    host.room = 1;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);
    g_assert_cmpint(transfer(&owner, DISK_WRITE, 512, data, sizeof data), ==, 0);
    host.interruptions = 2;
    g_assert_cmpint(transfer(&owner, DISK_READ, 512, seen, sizeof seen), ==, 0);
    g_assert_cmpmem(data, sizeof data, seen, sizeof seen);
    disk_free(disk);
}

static void raw_failed_flush_stays_failed(void)
{
    struct owner owner;
    struct disk *disk = open_raw(&owner, file_of(SIZE, 0), false);
    raw_set_io(disk, &bad_io);
    host.sync_error = EIO;
    g_assert_cmpint(transfer(&owner, DISK_FLUSH, 0, NULL, 0), ==, EIO);
    host.sync_error = 0;
    g_assert_cmpint(transfer(&owner, DISK_FLUSH, 0, NULL, 0), ==, EIO);
    disk_free(disk);
}

static void await_full(struct owner *owner)
{
    g_mutex_lock(&owner->lock);
    while (!owner->full)
        g_cond_wait(&owner->cond, &owner->lock);
    g_assert_cmpint(owner->full, ==, ENOSPC);
    g_assert_false(owner->finished);
    owner->full = 0;
    g_mutex_unlock(&owner->lock);
}

static void raw_full_host(void)
{
    struct owner owner;
    uint8_t data[512] = { 1 };
    struct iovec iov = { data, sizeof data };
    struct disk_request request = {
        .op = DISK_WRITE, .length = sizeof data, .iov = &iov, .iov_count = 1
    };
    struct disk *disk = open_raw(&owner, file_of(SIZE, 0), false);
    raw_set_io(disk, &bad_io);
    host.room = 0;
    disk_retry(disk); /* nothing is held: nothing happens */
    start(&owner, &request);
    await_full(&owner);
    disk_retry(disk); /* still full: told again */
    await_full(&owner);
    host.room = 1;
    disk_retry(disk);
    g_assert_cmpint(await(&owner), ==, 0);

    struct disk_request more = request; /* given up with it, without another question */
    host.room = 0;
    start(&owner, &request);
    start(&owner, &more);
    await_full(&owner);
    disk_give_up(disk);
    disk_drain(disk);
    g_assert_cmpint(owner.error, ==, EIO);
    g_assert_cmpint(owner.full, ==, 0);

    start(&owner, &request);
    await_full(&owner);
    disk_free(disk); /* a machine that ends does not wait for space */
    g_assert_cmpint(await(&owner), ==, EIO);
}

static void drain_waits(void)
{
    struct owner owner;
    struct disk *disk = open_raw(&owner, file_of(SIZE, 0x44), false);
    static uint8_t data[64][512];
    struct iovec iov[64];
    struct disk_request requests[64];
    disk_drain(disk); /* nothing was ever submitted */
    for (unsigned i = 0; i < 64; i++) {
        iov[i] = (struct iovec){ data[i], 512 };
        requests[i] = (struct disk_request){
            .op = DISK_READ, .offset = i * 512, .length = 512, .iov = &iov[i], .iov_count = 1
        };
        requests[i].done = on_done;
        requests[i].owner = &owner;
        g_mutex_lock(&owner.lock);
        disk_submit(disk, &requests[i]);
        if (i % 5 == 0)
            disk_kick(disk);
        g_mutex_unlock(&owner.lock);
    }
    disk_drain(disk); /* those that were not kicked are its business too */
    g_assert_true(all(data[0], sizeof data, 0x44));
    disk_free(disk);
}

/* --- overlay --------------------------------------------------------------------------------- */

static void overlay_keeps_the_base(void)
{
    enum { ROUNDS = 300, ODD = SIZE - 1536 }; /* the disk ends inside a block */
    struct owner owner;
    g_autoptr(GError) error = NULL;
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    g_autofree uint8_t *model = g_malloc(ODD), *data = g_malloc(ODD);
    int fd = file_of(ODD, 0x55), look = dup(fd);
    struct disk *base = raw_open(fd, "base.img", true, NULL);
    if (way == WAY_THREADS)
        raw_use_threads(base);
    struct disk *disk = overlay_open(base, &error);
    g_assert_no_error(error);
    g_assert_false(disk->readonly);
    attach(&owner, disk);
    memset(model, 0x55, ODD);
    for (int round = 0; round < ROUNDS; round++) {
        size_t at = (size_t)g_rand_int_range(rand, 0, ODD / 512) * 512;
        size_t length = (size_t)g_rand_int_range(rand, 1, 300) * 512;
        length = MIN(length, ODD - at);
        if (round % 3 == 2) {
            g_assert_cmpint(transfer(&owner, DISK_READ, at, data, length), ==, 0);
            g_assert_true(memcmp(data, model + at, length) == 0);
            continue;
        }
        length = round % 3 ? length : MIN(length, 1024);
        memset(data, (uint8_t)round, length);
        memset(model + at, (uint8_t)round, length);
        g_assert_cmpint(transfer(&owner, DISK_WRITE, at, data, length), ==, 0);
    }
    struct disk_request request = { .op = DISK_DISCARD, .offset = 512, .length = 12288 };
    start(&owner, &request);
    g_assert_cmpint(await(&owner), ==, 0);
    memset(model + 4096, 0, 8192);
    g_assert_cmpint(transfer(&owner, DISK_READ, 0, data, ODD), ==, 0);
    g_assert_cmpmem(data, ODD, model, ODD);
    g_assert_cmpint(transfer(&owner, DISK_FLUSH, 0, NULL, 0), ==, 0);
    disk_free(disk);
    g_assert_cmpint(pread(look, data, ODD, 0), ==, ODD);
    g_assert_true(all(data, ODD, 0x55)); /* bit-identical */
    close(look);
}

/* --- images ---------------------------------------------------------------------------------- */

static int content(size_t size, size_t offset, const char *bytes, size_t length)
{
    int fd = file_of(size, 0);
    g_assert_cmpint(pwrite(fd, bytes, length, (off_t)offset), ==, (ssize_t)length);
    return fd;
}

static void probe_recognises(void)
{
    static const struct {
        size_t size, offset;
        const char *bytes;
        size_t length;
        enum image_kind kind;
        bool bootable;
        const char *advice;
    } cases[] = {
        { 65536, 510, "\x55\xaa", 2, IMAGE_DISK, true, NULL },
        { 1474560, 510, "\x55\xaa", 2, IMAGE_FLOPPY, true, NULL },
        { 1474560, 0, "\xeb\x3c\x90", 3, IMAGE_FLOPPY, false, NULL },
        { 1474560, 512, "EFI PART", 8, IMAGE_DISK, true, NULL },
        { 1474560, 32768, "\1CD001\1", 7, IMAGE_CD, false, NULL },
        { 1475072, 510, "\x55\xaa", 2, IMAGE_DISK, true, NULL },
        { 65536, 512, "EFI PART", 8, IMAGE_DISK, true, NULL },
        { 65536, 32768, "\1CD001\1", 7, IMAGE_CD, false, NULL },
        { 65536, 34816, "\0CD001\1EL TORITO SPECIFICATION", 30, IMAGE_BLANK, false, NULL },
        { 65536, 0, "", 0, IMAGE_BLANK, false, NULL },
        { 65536, 0, "QFI\xfb", 4, IMAGE_DISK, true, NULL },
        { 65536, 64, "\x7f\x10\xda\xbe", 4, IMAGE_DISK, true, NULL },
        { 65536, 65024, "conectix", 8, IMAGE_FOREIGN, false, "another copy" },
        { 65536, 0, "\x1f\x8b\x08", 3, IMAGE_FOREIGN, false, "gunzip -k 'a b'" },
        { 65536, 0,
          "\xfd"
          "7zXZ",
          6, IMAGE_FOREIGN, false, "unxz" },
        { 65536, 0x202, "HdrS", 4, IMAGE_KERNEL, false, "hv run --kernel" },
        { 65536, 0,
          "\x7f"
          "ELF",
          4, IMAGE_KERNEL, false, "hv run --kernel" },
        { 0, 0, "", 0, IMAGE_OTHER, false, "truncate" },
        { 100, 0, "", 0, IMAGE_OTHER, false, "disk or CD image" },
        { 12, 0, "hello world\n", 12, IMAGE_OTHER, false, "disk or CD image" },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct image_info info;
        g_autoptr(GError) error = NULL;
        int fd = content(cases[i].size, cases[i].offset, cases[i].bytes, cases[i].length);
        g_assert_true(image_probe(fd, "a b", &info, &error));
        g_assert_cmpint(info.kind, ==, cases[i].kind);
        g_assert_cmpint(info.bootable, ==, cases[i].bootable);
        g_assert_cmpint(image_usable(&info, "a b", &error), ==, cases[i].advice == NULL);
        if (cases[i].advice)
            g_assert_nonnull(strstr(error->message, cases[i].advice));
        close(fd);
    }
}

/* As large as a floppy, but with a table of partitions: a disk. Code in its place is none. */
static void probe_partitions(void)
{
    static const uint8_t partition[16] = {
        0x80, 0, 2, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0x3f, 0x0b, 0, 0
    };
    struct image_info info;
    int fd = content(1474560, 510, "\x55\xaa", 2);
    g_assert_cmpint(pwrite(fd, partition, 16, 446), ==, 16);
    g_assert_true(image_probe(fd, "x", &info, NULL));
    g_assert_cmpint(info.kind, ==, IMAGE_DISK);
    g_assert_cmpint(pwrite(fd, "\x40", 1, 446 + 13), ==, 1); /* beyond the end */
    g_assert_true(image_probe(fd, "x", &info, NULL));
    g_assert_cmpint(info.kind, ==, IMAGE_FLOPPY);
    g_assert_cmpint(pwrite(fd, partition, 16, 446), ==, 16);
    g_assert_cmpint(pwrite(fd, "\xe8", 1, 446 + 32), ==, 1); /* neither active nor not */
    g_assert_true(image_probe(fd, "x", &info, NULL));
    g_assert_cmpint(info.kind, ==, IMAGE_FLOPPY);
    close(fd);
}

static void probe_hybrid_and_directory(void)
{
    struct image_info info;
    int fd = content(65536, 510, "\x55\xaa", 2);
    g_assert_cmpint(pwrite(fd, "\1CD001\1", 7, 32768), ==, 7);
    g_assert_cmpint(pwrite(fd, "\0CD001\1EL TORITO SPECIFICATION", 30, 34816), ==, 30);
    g_assert_true(image_probe(fd, "x", &info, NULL));
    g_assert_cmpint(info.kind, ==, IMAGE_CD);
    g_assert_true(info.bootable);
    close(fd);
    fd = open("/", O_RDONLY | O_DIRECTORY);
    g_assert_true(image_probe(fd, "/", &info, NULL));
    g_assert_cmpstr(info.what, ==, "a directory");
    close(fd);
}

static void locks(void)
{
    g_autofree char *dir = g_dir_make_tmp("hv-test-XXXXXX", NULL);
    g_autofree char *machine = g_build_filename(dir, "web-server", NULL);
    g_autofree char *note = g_build_filename(machine, "images", NULL);
    g_autofree char *lock_path = g_build_filename(machine, "lock", NULL);
    g_autofree char *path = g_build_filename(dir, "disk.img", NULL);
    g_autoptr(GError) error = NULL;
    g_assert_true(g_file_set_contents(path, "x", 1, NULL));
    int a = open(path, O_RDWR), b = open(path, O_RDWR), c = open(path, O_RDONLY);
    g_assert_true(image_lock(b, path, false, NULL, &error));
    g_assert_true(image_lock(c, path, false, NULL, &error)); /* readers share */
    g_assert_false(image_lock(a, path, true, NULL, &error));
    g_assert_cmpint(error->code, ==, HV_WRONG_STATE);
    g_assert_nonnull(strstr(error->message, "another machine"));
    g_clear_error(&error);
    close(b);
    close(c);
    g_assert_true(image_lock(a, path, true, NULL, &error));

    g_autofree char *identity = image_identity(a);
    g_autofree char *line = g_strdup_printf("1:1\n%s\n", identity);
    g_assert_cmpint(g_mkdir(machine, 0700), ==, 0);
    g_assert_true(g_file_set_contents(note, line, -1, NULL));
    b = open(path, O_RDWR);
    int passed = dup(a); /* what a process that got the descriptor holds */
    close(a);
    g_assert_false(image_lock(b, path, true, dir, &error)); /* by whom? */
    g_assert_nonnull(strstr(error->message, "another machine"));
    g_clear_error(&error);
    int life = open(lock_path, O_RDWR | O_CREAT, 0600);
    g_assert_true(image_lock(life, lock_path, true, NULL, &error)); /* as a machine that lives */
    g_assert_false(image_lock(b, path, true, dir, &error));
    g_assert_nonnull(strstr(error->message, "machine web-server"));
    close(life);
    close(passed); /* it ends, and the lock with it */
    g_assert_true(image_lock(b, path, true, dir, NULL));
    close(b);
    unlink(note);
    unlink(lock_path);
    rmdir(machine);
    unlink(path);
    rmdir(dir);
}

/* --- all ways ------------------------------------------------------------------------------- */

static const struct way_test all_ways[] = {
    { "/raw/reads-and-writes", raw_reads_and_writes },
    { "/raw/checks-ranges", raw_checks_ranges },
    { "/raw/pads-the-tail", raw_pads_the_tail },
    { "/raw/refuses", raw_refuses },
    { "/raw/discards", raw_discards },
    { "/raw/writes-zeroes", raw_writes_zeroes },
    { "/raw/completes-short-transfers", raw_completes_short_transfers },
    { "/raw/failed-flush-stays-failed", raw_failed_flush_stays_failed },
    { "/raw/full-host", raw_full_host },
    { "/raw/drain-waits", drain_waits },
    { "/overlay/keeps-the-base", overlay_keeps_the_base },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    way_add_tests(all_ways, G_N_ELEMENTS(all_ways));
    g_test_add_func("/image/probe", probe_recognises);
    g_test_add_func("/image/probe-hybrid", probe_hybrid_and_directory);
    g_test_add_func("/image/partitions", probe_partitions);
    g_test_add_func("/image/locks", locks);
    return g_test_run();
}
