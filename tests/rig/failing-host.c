/* A host whose calls fail; see failing-host.h. */
#include "rig/failing-host.h"

#include "block/uring.h"

#include <errno.h>

#undef pread /* and the others: these are the host's */
#undef pwrite
#undef preadv
#undef pwritev
#undef ftruncate
#undef fsync
#undef linkat
#undef rename

const struct failure_kind failures[] = {
    [FAIL_EIO] = { "EIO", EIO },
    [FAIL_ENOSPC] = { "ENOSPC", ENOSPC },
    [FAIL_EINTR] = { "EINTR", EINTR },
    [FAIL_EAGAIN] = { "EAGAIN", EAGAIN },
    [FAIL_SHORT] = { "a short transfer", 0 },
    [FAIL_FULL] = { "a full disk", ENOSPC }, /* also for all that follow, until it is freed */
    [NONE] = { "nothing", 0 },
};

#define BIT(failure) (1U << (failure))

const unsigned possible_failures[] = {
    [CALL_READ] = BIT(FAIL_EIO) | BIT(FAIL_EINTR) | BIT(FAIL_EAGAIN) | BIT(FAIL_SHORT),
    [CALL_WRITE] = BIT(NONE) - 1,
    [CALL_SYNC] = BIT(FAIL_EIO) | BIT(FAIL_ENOSPC) | BIT(FAIL_EINTR) | BIT(FAIL_EAGAIN),
    [CALL_ROOM] = (BIT(NONE) - 1) & ~BIT(FAIL_SHORT),
    [CALL_NAME] = BIT(FAIL_EIO) | BIT(FAIL_ENOSPC),
};

struct failing_host host;

static _Thread_local struct site *inside[DEEPEST];
static _Thread_local unsigned depth;
static _Thread_local struct site *marked, *marked_raw;

void site_enter(struct site *site)
{
    g_assert_cmpuint(depth, <, DEEPEST - 2);
    inside[depth++] = site;
}

void site_leave(void)
{
    depth--;
}

void site_mark(struct site *site)
{
    marked = site;
}

void site_mark_raw(struct site *site)
{
    marked_raw = site;
}

/* How this call fails; NONE. */
static enum failure judge_call(enum call call, struct site *self)
{
    struct trace trace = { .call = call };
    unsigned count = 0;
    for (; count < depth; count++)
        trace.sites[count] = inside[count];
    trace.sites[count++] = self ? self : marked_raw;
    trace.sites[count++] = marked;
    marked = marked_raw = NULL;
    if (!host.on)
        return NONE;
    g_mutex_lock(&host.mutex);
    bool now = ++host.calls == host.at;
    enum failure failure = now ? host.failure : NONE;
    if (!host.at)
        g_array_append_val(host.traces, trace);
    if (now) {
        host.failed = true;
        host.what = call;
        host.full = failure == FAIL_FULL;
        for (unsigned i = 0; i < count; i++)
            if (trace.sites[i])
                trace.sites[i]->failed |= BIT(failure);
    } else if (host.full && (call == CALL_WRITE || call == CALL_ROOM)) {
        failure = FAIL_FULL;
    }
    g_mutex_unlock(&host.mutex);
    return failure;
}

static ssize_t transfer(enum call call, int fd, const struct iovec *iov, int count, off_t offset,
                        ssize_t (*real)(int, const struct iovec *, int, off_t))
{
    enum failure failure = judge_call(call, NULL);
    struct iovec part = *iov;
    if (failure == FAIL_SHORT) {
        part.iov_len = MAX(part.iov_len / 2, 1);
        return real(fd, &part, 1, offset);
    }
    if (failure == NONE)
        return real(fd, iov, count, offset);
    errno = failures[failure].error;
    return -1;
}

static int answer(enum call call)
{
    enum failure failure = judge_call(call, NULL);
    errno = failures[failure].error;
    return failure == NONE ? 0 : -1;
}

#define WRAP(result, name, ...)                                                                    \
    result __wrap_##name(__VA_ARGS__);                                                             \
    result __real_##name(__VA_ARGS__);                                                             \
    result __wrap_##name(__VA_ARGS__)

WRAP(ssize_t, preadv64, int fd, const struct iovec *iov, int count, off_t offset)
{
    return transfer(CALL_READ, fd, iov, count, offset, __real_preadv64);
}

WRAP(ssize_t, pwritev64, int fd, const struct iovec *iov, int count, off_t offset)
{
    return transfer(CALL_WRITE, fd, iov, count, offset, __real_pwritev64);
}

WRAP(ssize_t, pread64, int fd, void *to, size_t length, off_t offset)
{
    struct iovec iov = { to, length };
    return transfer(CALL_READ, fd, &iov, 1, offset, __real_preadv64);
}

WRAP(ssize_t, pwrite64, int fd, const void *from, size_t length, off_t offset)
{
    struct iovec iov = { (void *)(uintptr_t)from, length };
    return transfer(CALL_WRITE, fd, &iov, 1, offset, __real_pwritev64);
}

WRAP(int, fdatasync, int fd)
{
    (void)fd;
    return answer(CALL_SYNC);
}

WRAP(int, fsync, int fd)
{
    (void)fd;
    return answer(CALL_SYNC);
}

WRAP(int, fallocate64, int fd, int mode, off_t offset, off_t length)
{
    return answer(CALL_ROOM) ? -1 : __real_fallocate64(fd, mode, offset, length);
}

WRAP(int, ftruncate64, int fd, off_t size)
{
    return answer(CALL_ROOM) ? -1 : __real_ftruncate64(fd, size);
}

WRAP(int, rename, const char *from, const char *to)
{
    return answer(CALL_NAME) ? -1 : __real_rename(from, to);
}

WRAP(int, linkat, int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    return answer(CALL_NAME) ? -1 : __real_linkat(from_folder, from, to_folder, to, flags);
}

/* What io_uring answers. */
static struct site ring_sites[] = {
    [DISK_READ] = { "io_uring", "read", 0, 0, 0 },
    [DISK_WRITE] = { "io_uring", "write", 0, 0, 0 },
    [DISK_FLUSH] = { "io_uring", "fsync", 0, 0, 0 },
};

static void ring_result(struct disk *disk, struct disk_request *request, int result)
{
    static const enum call calls[] = { CALL_READ, CALL_WRITE, CALL_SYNC };
    enum failure failure = judge_call(calls[request->op], &ring_sites[request->op]);
    if (failure == FAIL_SHORT)
        result /= 2;
    else if (failure != NONE)
        result = -failures[failure].error;
    host.events->result(disk, request, result);
}

static void ring_refused(struct disk *disk, struct disk_request *request)
{
    host.events->refused(disk, request);
}

WRAP(struct uring *, uring_new, struct disk *disk, int fd, const struct uring_events *events)
{
    static const struct uring_events mine = { ring_result, ring_refused };
    host.events = events;
    return __real_uring_new(disk, fd, &mine);
}

void host_on_full(void *opaque, struct disk *disk, int error)
{
    (void)opaque;
    g_assert_cmpint(error, ==, ENOSPC);
    if (++host.pauses > 1)
        host.full = false;
    disk_retry(disk);
}

void host_start(enum failure failure, unsigned at)
{
    host.calls = host.pauses = 0;
    host.failure = failure;
    host.at = at;
    host.failed = host.full = false;
    host.on = true;
}

void host_stop(void)
{
    host.on = host.full = false;
}

bool host_hides(void)
{
    return host.failure == FAIL_EINTR || host.failure == FAIL_SHORT;
}
