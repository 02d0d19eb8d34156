/* The engines of raw disks under stress: many requests in flight, answers that come late, short or
 * not at all, drains from other threads, hosts that forbid io_uring or threads. */
#include "base/loop.h"
#include "block/disk.h"
#include "block/raw.h"
#include "rig/ways.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MANY = 400, UNIT = 4096, SIZE = MANY * UNIT };

/* What a device would be. */
struct owner {
    GMutex lock;
    GCond cond;
    struct disk *disk;
    struct loop *loop; /* NULL: the disk's own */
    unsigned in_flight, done, failed, full;
    int error;   /* the last one */
    bool inside; /* disk_submit or disk_kick */
};

struct request {
    struct disk_request disk;
    struct iovec iov[3];
    uint8_t data[UNIT];
    bool in_flight;
};

static int file_of(size_t size)
{
    int fd = way_file();
    g_assert_cmpint(ftruncate(fd, (off_t)size), ==, 0);
    for (size_t at = 0; at < size; at += UNIT) {
        uint8_t data[UNIT];
        memset(data, (uint8_t)(at / UNIT), sizeof data);
        g_assert_cmpint(pwrite(fd, data, sizeof data, (off_t)at), ==, sizeof data);
    }
    return fd;
}

static void on_full(void *opaque, struct disk *disk, int error)
{
    struct owner *owner = opaque;
    (void)disk;
    g_assert_cmpint(error, ==, ENOSPC);
    g_mutex_lock(&owner->lock); /* is nobody's */
    owner->full++;
    g_cond_broadcast(&owner->cond);
    g_mutex_unlock(&owner->lock);
}

static void open_disk(struct owner *owner, int fd, struct loop *loop)
{
    g_autoptr(GError) error = NULL;
    memset(owner, 0, sizeof *owner);
    g_mutex_init(&owner->lock);
    g_cond_init(&owner->cond);
    owner->loop = loop;
    owner->disk = raw_open(fd, "test.img", false, &error);
    g_assert_no_error(error);
    if (way == WAY_THREADS)
        raw_use_threads(owner->disk);
    disk_attach(owner->disk, &owner->lock, loop);
    disk_set_full(owner->disk, on_full, owner);
}

static void close_disk(struct owner *owner)
{
    disk_free(owner->disk);
    g_assert_cmpuint(owner->in_flight, ==, 0);
    loop_free(owner->loop);
    g_mutex_clear(&owner->lock);
    g_cond_clear(&owner->cond);
}

static void on_done(struct disk_request *disk_request, int error)
{
    struct owner *owner = disk_request->owner;
    struct request *request = (struct request *)disk_request;
    g_assert_false(owner->inside);
    g_assert_true(request->in_flight); /* once */
    request->in_flight = false;
    owner->in_flight--;
    owner->done++;
    owner->failed += error != 0;
    owner->error = error;
    g_cond_broadcast(&owner->cond);
}

/* A unit, in one part or three. The lock is held. */
static void submit(struct owner *owner, struct request *request, enum disk_op op, unsigned unit,
                   bool parts)
{
    request->iov[0] = (struct iovec){ request->data, parts ? 1000 : UNIT };
    request->iov[1] = (struct iovec){ request->data + 1000, 24 };
    request->iov[2] = (struct iovec){ request->data + 1024, UNIT - 1024 };
    request->disk = (struct disk_request){
        .op = op,
        .offset = (uint64_t)unit * UNIT,
        .length = op == DISK_FLUSH ? 0 : UNIT,
        .iov = request->iov,
        .iov_count = parts ? 3 : 1,
        .done = on_done,
        .owner = owner,
    };
    g_assert_false(request->in_flight);
    request->in_flight = true;
    owner->in_flight++;
    owner->inside = true;
    disk_submit(owner->disk, &request->disk);
    owner->inside = false;
}

static void kick(struct owner *owner)
{
    owner->inside = true;
    disk_kick(owner->disk);
    owner->inside = false;
}

static void await(struct owner *owner, unsigned done)
{
    int64_t end = g_get_monotonic_time() + 60 * G_TIME_SPAN_SECOND;
    g_mutex_lock(&owner->lock);
    while (owner->done < done)
        g_assert_true(g_cond_wait_until(&owner->cond, &owner->lock, end));
    g_mutex_unlock(&owner->lock);
}

static bool all(const struct request *request, uint8_t value)
{
    for (unsigned i = 0; i < UNIT; i++)
        if (request->data[i] != value)
            return false;
    return true;
}

/* --- many in flight -------------------------------------------------------------------------- */

/* More than the ring holds, with one kick. */
static void one_kick(struct loop *loop)
{
    struct owner owner;
    struct request *requests = g_new0(struct request, MANY);
    open_disk(&owner, file_of(SIZE), loop);
    for (unsigned round = 0; round < 3; round++) {
        enum disk_op op = round == 1 ? DISK_WRITE : DISK_READ;
        g_mutex_lock(&owner.lock);
        for (unsigned i = 0; i < MANY; i++) {
            if (round == 1)
                memset(requests[i].data, (uint8_t)(i * 3 + 1), UNIT);
            submit(&owner, &requests[i], op, i, i % 3);
        }
        kick(&owner);
        g_mutex_unlock(&owner.lock);
        await(&owner, (round + 1) * MANY);
        for (unsigned i = 0; i < MANY; i++)
            g_assert_true(all(&requests[i], (uint8_t)(round ? i * 3 + 1 : i)));
    }
    g_assert_cmpuint(owner.failed, ==, 0);
    close_disk(&owner);
    g_free(requests);
}

static void many_with_own_loop(void)
{
    one_kick(NULL);
}

static void many_with_owners_loop(void)
{
    one_kick(loop_new("owner"));
}

/* An owner that polls needs no other thread. */
static void polls(void)
{
    struct owner owner;
    struct request requests[32] = { 0 };
    way = WAY_RING;
    open_disk(&owner, file_of(SIZE), loop_new(NULL));
    g_mutex_lock(&owner.lock);
    g_assert_false(disk_poll(owner.disk));
    for (unsigned i = 0; i < 32; i++)
        submit(&owner, &requests[i], DISK_READ, i, false);
    kick(&owner);
    while (owner.done < 32)
        disk_poll(owner.disk);
    g_assert_false(disk_poll(owner.disk));
    g_mutex_unlock(&owner.lock);

    /* One that does not is told by its loop. */
    g_mutex_lock(&owner.lock);
    submit(&owner, &requests[0], DISK_READ, 7, false);
    kick(&owner);
    g_mutex_unlock(&owner.lock);
    while (owner.done < 33)
        loop_turn(owner.loop);
    g_assert_true(all(&requests[0], 7));
    close_disk(&owner);
}

/* A request may have more parts than a system call takes. */
static void many_parts(void)
{
    enum { PARTS = 3000 };
    struct owner owner;
    struct request request = { 0 };
    struct iovec *iov = g_new(struct iovec, PARTS);
    uint8_t *data = g_malloc0(PARTS * 512);
    open_disk(&owner, file_of(SIZE), NULL);
    for (unsigned i = 0; i < PARTS; i++)
        iov[i] = (struct iovec){ data + i * 512, 512 };
    request.disk = (struct disk_request){ .op = DISK_READ,
                                          .length = PARTS * 512,
                                          .iov = iov,
                                          .iov_count = PARTS,
                                          .done = on_done,
                                          .owner = &owner };
    request.in_flight = true;
    owner.in_flight++;
    g_mutex_lock(&owner.lock);
    disk_submit(owner.disk, &request.disk);
    disk_kick(owner.disk);
    g_mutex_unlock(&owner.lock);
    await(&owner, 1);
    for (unsigned i = 0; i < PARTS; i++)
        g_assert_cmpuint(data[i * 512], ==, (uint8_t)(i / 8));
    close_disk(&owner);
    g_free(data);
    g_free(iov);
}

/* A file that the host has to fetch from its disk; and a submitter that is gone by then, as a vCPU
 * might be. */
static gpointer submit_and_go(gpointer data)
{
    struct owner *owner = data;
    g_mutex_lock(&owner->lock);
    kick(owner);
    g_mutex_unlock(&owner->lock);
    return NULL;
}

static void submitters_end(void)
{
    struct owner owner;
    struct request *requests = g_new0(struct request, MANY);
    g_autofree char *path = NULL;
    int cold = g_file_open_tmp("hv-test-XXXXXX", &path, NULL), warm = file_of(SIZE);
    g_assert_cmpint(cold, >=, 0);
    for (off_t at = 0; at < SIZE; at += UNIT) {
        uint8_t unit[UNIT];
        g_assert_cmpint(pread(warm, unit, UNIT, at), ==, UNIT);
        g_assert_cmpint(pwrite(cold, unit, UNIT, at), ==, UNIT);
    }
    fsync(cold);
    close(warm);
    unlink(path);
    open_disk(&owner, cold, NULL);
    for (unsigned round = 0; round < 10; round++) {
        posix_fadvise(cold, 0, 0, POSIX_FADV_DONTNEED);
        g_mutex_lock(&owner.lock);
        for (unsigned i = 0; i < MANY; i++)
            submit(&owner, &requests[i], i % 50 ? DISK_READ : DISK_FLUSH, i * 7 % MANY, i % 3);
        g_mutex_unlock(&owner.lock);
        g_thread_join(g_thread_new("submitter", submit_and_go, &owner));
        await(&owner, (round + 1) * MANY);
        for (unsigned i = 0; i < MANY; i++)
            g_assert_true(i % 50 == 0 || all(&requests[i], (uint8_t)(i * 7 % MANY)));
    }
    g_assert_cmpuint(owner.failed, ==, 0);
    close_disk(&owner);
    g_free(requests);
}

/* --- flushes --------------------------------------------------------------------------------- */

static struct {
    unsigned syncs;
    int fail_at; /* the sync that fails, counted from 1 */
} host;

static int counted_sync(int fd)
{
    (void)fd;
    errno = EIO;
    return (int)++host.syncs == host.fail_at ? -1 : 0;
}

static int counted_result(struct disk_request *request, int result)
{
    if (request->op != DISK_FLUSH)
        return result;
    return (int)++host.syncs == host.fail_at ? -EIO : result;
}

static const struct raw_io counting_io = {
    preadv, pwritev, counted_sync, fallocate, ftruncate, counted_result,
};

/* The kernel tells one of several flushes at once what went wrong: all must hear it. */
static void flushes_fail_together(void)
{
    struct owner owner;
    struct request requests[20] = { 0 };
    open_disk(&owner, file_of(SIZE), NULL);
    raw_set_io(owner.disk, &counting_io);
    host.syncs = 0;
    host.fail_at = 2;
    g_mutex_lock(&owner.lock);
    submit(&owner, &requests[0], DISK_FLUSH, 0, false);
    kick(&owner);
    g_mutex_unlock(&owner.lock);
    await(&owner, 1);
    g_assert_cmpuint(owner.failed, ==, 0);
    g_mutex_lock(&owner.lock);
    for (unsigned i = 0; i < 20; i++)
        submit(&owner, &requests[i], DISK_FLUSH, 0, false);
    kick(&owner);
    g_mutex_unlock(&owner.lock);
    await(&owner, 21);
    g_assert_cmpuint(owner.failed, ==, 20);
    g_assert_cmpuint(host.syncs, <=, 3);
    close_disk(&owner);
}

/* --- waiting --------------------------------------------------------------------------------- */

static gpointer drain(gpointer data)
{
    struct owner *owner = data;
    disk_drain(owner->disk);
    g_mutex_lock(&owner->lock);
    g_assert_cmpuint(owner->in_flight, ==, 0);
    g_mutex_unlock(&owner->lock);
    return NULL;
}

/* While the owner's loop is paused nobody else calls `done`. */
static void drains_while_paused(void)
{
    struct owner owner;
    struct request *requests = g_new0(struct request, MANY);
    struct loop *loop = loop_new("owner");
    open_disk(&owner, file_of(SIZE), loop);
    for (unsigned round = 0; round < 20; round++) {
        loop_pause(loop);
        g_mutex_lock(&owner.lock);
        for (unsigned i = 0; i < MANY; i++)
            submit(&owner, &requests[i], i % 9 ? DISK_READ : DISK_FLUSH, i, i % 2);
        if (round % 2) /* without a kick it is drain's business, too */
            kick(&owner);
        g_mutex_unlock(&owner.lock);
        if (way != WAY_THREADS)
            g_assert_cmpuint(owner.in_flight, ==, MANY);
        g_thread_join(g_thread_new("drain", drain, &owner));
        g_assert_cmpuint(owner.done, ==, (round + 1) * MANY);
        loop_resume(loop);
    }
    close_disk(&owner);
    g_free(requests);
}

/* A request that leads to the next one, as a command of many parts does. */
static void on_link(struct disk_request *disk_request, int error)
{
    struct owner *owner = disk_request->owner;
    struct request *request = (struct request *)disk_request;
    on_done(disk_request, error);
    if (owner->done >= 300)
        return;
    submit(owner, request, owner->done % 3 ? DISK_READ : DISK_WRITE, owner->done, false);
    request->disk.done = on_link;
    disk_kick(owner->disk);
}

static void drains_chains(void)
{
    struct owner owner;
    struct request request = { 0 };
    open_disk(&owner, file_of(SIZE), NULL);
    g_mutex_lock(&owner.lock);
    submit(&owner, &request, DISK_READ, 0, false);
    request.disk.done = on_link;
    disk_kick(owner.disk);
    g_mutex_unlock(&owner.lock);
    drain(&owner);
    g_assert_cmpuint(owner.done, ==, 300);
    close_disk(&owner);
}

/* --- storms ---------------------------------------------------------------------------------- */

/* A host that answers whatever comes to its mind; its files have no room now and then. */
static gint dice; /* atomic */

static unsigned roll(void)
{
    return (unsigned)g_atomic_int_add(&dice, 1) * 2654435761u >> 16;
}

static int wild_result(struct disk_request *request, int result)
{
    static const int answers[] = { -EINTR, -EAGAIN, -ECANCELED, -EIO, -ENOSPC, -EINVAL, 0, 512 };
    if (roll() % 2)
        return result;
    int answer = answers[roll() % G_N_ELEMENTS(answers)];
    if (request->op == DISK_FLUSH) /* not what stays for good */
        return answer == -EINTR || answer == -ECANCELED ? answer : result;
    return MIN(answer, result);
}

static ssize_t wild_readv(int fd, const struct iovec *iov, int count, off_t offset)
{
    unsigned chance = roll() % 8;
    if (chance == 0) {
        errno = EINTR;
        return -1;
    }
    return chance < 4 ? pread(fd, iov->iov_base, MIN(iov->iov_len, 700), offset)
                      : preadv(fd, iov, count, offset);
}

static ssize_t wild_writev(int fd, const struct iovec *iov, int count, off_t offset)
{
    unsigned chance = roll() % 16;
    if (chance < 2) {
        errno = chance ? ENOSPC : EINTR;
        return -1;
    }
    return chance < 8 ? pwrite(fd, iov->iov_base, MIN(iov->iov_len, 700), offset)
                      : pwritev(fd, iov, count, offset);
}

static const struct raw_io wild_io = {
    wild_readv, wild_writev, fdatasync, fallocate, ftruncate, wild_result,
};

struct storm {
    struct owner owner;
    gint stop; /* atomic */
};

/* A guest's queue: its own requests on its own units, read back as they were written. */
static gpointer guest(gpointer data)
{
    struct storm *storm = data;
    struct owner *owner = &storm->owner;
    struct request *requests = g_new0(struct request, 16);
    unsigned base = (unsigned)g_atomic_int_add(&dice, 0) % 8 * 16;
    while (!g_atomic_int_get(&storm->stop)) {
        g_mutex_lock(&owner->lock);
        for (unsigned i = 0; i < 16; i++) {
            unsigned chance = roll() % 16;
            if (requests[i].in_flight)
                continue;
            submit(owner, &requests[i],
                   chance == 0  ? DISK_FLUSH
                   : chance < 8 ? DISK_WRITE
                                : DISK_READ,
                   base + i, chance % 2);
        }
        kick(owner);
        if (roll() % 4 == 0)
            disk_poll(owner->disk);
        g_mutex_unlock(&owner->lock);
        if (roll() % 8 == 0)
            g_usleep(roll() % 200);
    }
    g_mutex_lock(&owner->lock);
    for (unsigned i = 0; i < 16; i++)
        while (requests[i].in_flight)
            g_cond_wait(&owner->cond, &owner->lock);
    g_mutex_unlock(&owner->lock);
    g_free(requests);
    return NULL;
}

/* The machine: it answers when the disk is full, and drains as a reset does. */
static gpointer machine(gpointer data)
{
    struct storm *storm = data;
    int64_t patience = g_get_monotonic_time() + G_USEC_PER_SEC / 2;
    while (g_atomic_int_get(&storm->stop) < 2) {
        unsigned chance = roll() % 8;
        if (chance == 0 && g_get_monotonic_time() > patience) {
            loop_pause(storm->owner.loop);
            disk_give_up(storm->owner.disk);
            if (g_atomic_int_get(&storm->stop)) /* others go on: it may not end, else */
                disk_drain(storm->owner.disk);
            loop_resume(storm->owner.loop);
        } else {
            disk_retry(storm->owner.disk);
        }
        g_usleep(roll() % 300);
    }
    return NULL;
}

static void storm(struct loop *loop)
{
    struct storm storm = { 0 };
    GThread *guests[3];
    open_disk(&storm.owner, file_of(SIZE), loop);
    raw_set_io(storm.owner.disk, &wild_io);
    GThread *boss = g_thread_new("machine", machine, &storm);
    for (unsigned i = 0; i < 3; i++)
        guests[i] = g_thread_new("guest", guest, &storm);
    g_usleep(g_test_slow() ? 20 * G_USEC_PER_SEC : G_USEC_PER_SEC);
    g_atomic_int_set(&storm.stop, 1);
    for (unsigned i = 0; i < 3; i++)
        g_thread_join(guests[i]);
    g_atomic_int_set(&storm.stop, 2);
    g_thread_join(boss);
    g_test_message("%u requests, %u failed, full %u times", storm.owner.done, storm.owner.failed,
                   storm.owner.full);
    g_assert_cmpuint(storm.owner.done, >, 100);
    g_assert_cmpuint(storm.owner.full, >, 0);
    close_disk(&storm.owner);
}

static void storm_with_own_loop(void)
{
    storm(NULL);
}

static void storm_with_owners_loop(void)
{
    storm(loop_new("owner"));
}

/* Resets: submit, stop in the middle, drain, look that nothing comes any more; a new disk now and
 * then, freed with all in flight. */
static void resets(void)
{
    struct owner owner;
    struct request *requests = g_new0(struct request, MANY);
    for (unsigned disk = 0; disk < 10; disk++) {
        struct loop *loop = disk % 2 ? loop_new("owner") : NULL;
        open_disk(&owner, file_of(SIZE), loop);
        raw_set_io(owner.disk, &wild_io);
        for (unsigned round = 0; round < 20; round++) {
            unsigned count = roll() % MANY;
            g_mutex_lock(&owner.lock);
            for (unsigned i = 0; i < count; i++)
                submit(&owner, &requests[i], roll() % 2 ? DISK_READ : DISK_WRITE, i, i % 2);
            kick(&owner);
            g_mutex_unlock(&owner.lock);
            if (round % 3 == 0)
                g_usleep(roll() % 500);
            if (round == 19)
                break;
            if (disk % 4 < 2)
                loop_pause(loop);
            disk_give_up(owner.disk);
            disk_drain(owner.disk);
            g_assert_cmpuint(owner.in_flight, ==, 0);
            if (disk % 4 < 2)
                loop_resume(loop);
        }
        close_disk(&owner); /* answers all of them */
        for (unsigned i = 0; i < MANY; i++)
            g_assert_false(requests[i].in_flight);
    }
    g_free(requests);
}

/* --- hosts that forbid things ---------------------------------------------------------------- */

/* From here on this thread gets `error` for the system call. */
static void forbid(int number, int error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { G_N_ELEMENTS(filter), filter };
    g_assert_cmpint(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), ==, 0);
    g_assert_cmpint(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), ==, 0);
}

static void write_and_read(struct owner *owner, struct request *requests, unsigned count,
                           uint8_t value)
{
    unsigned done = owner->done;
    for (unsigned round = 0; round < 2; round++) {
        g_mutex_lock(&owner->lock);
        for (unsigned i = 0; i < count; i++) {
            memset(requests[i].data, round ? 0 : value, UNIT);
            submit(owner, &requests[i], round ? DISK_READ : DISK_WRITE, i, i % 2);
        }
        kick(owner);
        g_mutex_unlock(&owner->lock);
        await(owner, done += count);
    }
    for (unsigned i = 0; i < count; i++)
        g_assert_true(all(&requests[i], value));
    g_mutex_lock(&owner->lock);
    for (unsigned i = 0; i < 5; i++)
        submit(owner, &requests[i], DISK_FLUSH, 0, false);
    kick(owner);
    g_mutex_unlock(&owner->lock);
    await(owner, done + 5);
    g_assert_cmpuint(owner->failed, ==, 0);
}

static void without_ring(void)
{
    struct owner owner;
    struct request requests[40] = { 0 };
    forbid(SYS_io_uring_setup, EPERM);
    open_disk(&owner, file_of(SIZE), NULL);
    write_and_read(&owner, requests, 40, 0x5a);
    close_disk(&owner);
}

/* A sandbox that closes later, with requests in the ring's queue. */
static void ring_fails(void)
{
    struct owner owner;
    struct request *requests = g_new0(struct request, MANY);
    open_disk(&owner, file_of(SIZE), NULL);
    write_and_read(&owner, requests, 40, 0x5a);
    forbid(SYS_io_uring_enter, EPERM);
    write_and_read(&owner, requests, MANY, 0xa5);
    write_and_read(&owner, requests, 7, 0x11);
    close_disk(&owner);
    g_free(requests);
}

/* No ring, no thread: an error, and no end of the machine. */
static void without_threads(void)
{
    struct owner owner;
    struct request requests[2] = { 0 };
    open_disk(&owner, file_of(SIZE), NULL);
    forbid(SYS_clone3, EAGAIN);
    forbid(SYS_clone, EAGAIN);
    for (unsigned round = 0; round < 2; round++) {
        g_mutex_lock(&owner.lock);
        for (unsigned i = 0; i < 2; i++)
            submit(&owner, &requests[i], DISK_READ, i, false);
        kick(&owner);
        g_mutex_unlock(&owner.lock);
        g_assert_cmpuint(owner.done, ==, round * 2);
        if (round)
            disk_drain(owner.disk);
        else
            while (g_main_context_iteration(NULL, FALSE))
                continue;
        g_assert_cmpuint(owner.done, ==, (round + 1) * 2);
        g_assert_cmpint(owner.error, ==, EAGAIN);
    }
    while (g_main_context_iteration(NULL, FALSE)) /* nothing is left for it */
        continue;
    close_disk(&owner);
}

/* Each in a process of its own: a filter stays. */
static void in_subprocess(gconstpointer data)
{
    void (*run)(void) = ((const struct way_test *)data)->run;
    if (g_test_subprocess()) {
        run();
        _exit(0); /* a leak checker would need the forbidden */
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
}

/* --- all ways ------------------------------------------------------------------------------- */

static const struct way_test all_ways[] = {
    { "/many/own-loop", many_with_own_loop },
    { "/many/owners-loop", many_with_owners_loop },
    { "/many/parts", many_parts },
    { "/submitters-end", submitters_end },
    { "/flushes-fail-together", flushes_fail_together },
    { "/drains/while-paused", drains_while_paused },
    { "/drains/chains", drains_chains },
    { "/storm/own-loop", storm_with_own_loop },
    { "/storm/owners-loop", storm_with_owners_loop },
    { "/resets", resets },
};

static const struct way_test forbidding[] = {
    { "/forbidden/ring", without_ring },
    { "/forbidden/ring-fails", ring_fails },
    { "/forbidden/threads", without_threads },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    way_add_tests(all_ways, G_N_ELEMENTS(all_ways));
    g_test_add_func("/ring/polls", polls);
    for (gsize i = 0; i < G_N_ELEMENTS(forbidding); i++)
        g_test_add_data_func(forbidding[i].path, &forbidding[i], in_subprocess);
    return g_test_run();
}
