/* The io_uring of a disk; see uring.h, and io_uring(7).
 *
 * A file that lies in memory (tmpfs) is read and written on the spot: the kernel cannot do so
 * without waiting there, by its own rules, and would wake a thread for each request.
 *
 * Requests wait in a list of their own until the kick, so a full ring needs no special case. The
 * ring's descriptor is readable while there are completions: the loop sleeps on that, and one that
 * was polled empty does not wake it. Any thread may submit, so the flags that make a ring faster
 * for a single one are not used. */
#include "block/uring.h"

#include "base/log.h"
#include "base/loop.h"

#include <errno.h>
#include <liburing.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/vfs.h>

enum {
    ENTRIES = 128,      /* in the ring at once; the completion queue has room for twice as many */
    BATCH = 64,         /* completions in a turn of the loop */
    LARGE = 128 * 1024, /* bytes: a copy that would hold up a vCPU */
    HUGE = 2 * 1024 * 1024, /* one that would hold up a loop, and who waits for its lock */
};

struct uring {
    struct io_uring ring;
    struct disk *disk;
    const struct uring_events *events;
    int fd;
    struct loop *own; /* NULL: the source is the owner's loop's */
    struct loop_source source;

    struct disk_request *first, **last;           /* not in the ring yet */
    struct disk_request *through, **through_last; /* done on the spot, their result in `error` */
    unsigned in_ring;
    bool in_memory;
    bool broken;   /* takes no more */
    bool draining; /* nobody else reaps */
};

/* --- submission ---------------------------------------------------------------------------------
 */

static void prepare(const struct uring *uring, struct io_uring_sqe *sqe,
                    struct disk_request *request)
{
    /* The kernel copies what is in the page cache on the spot. Without a loop the kick may come
     * from a vCPU, which has better things to do. */
    bool later = request->length >= (uring->own ? LARGE : HUGE);
    *sqe = (struct io_uring_sqe){
        .flags = (uint8_t)(later ? IOSQE_FIXED_FILE | IOSQE_ASYNC : IOSQE_FIXED_FILE),
        .user_data = (uintptr_t)request,
    };
    if (request->op == DISK_FLUSH) {
        sqe->opcode = IORING_OP_FSYNC;
        sqe->fsync_flags = IORING_FSYNC_DATASYNC;
        return;
    }
    bool write = request->op == DISK_WRITE;
    sqe->off = request->at;
    if (request->iov_count == 1) {
        sqe->opcode = write ? IORING_OP_WRITE : IORING_OP_READ;
        sqe->addr = (uintptr_t)request->iov->iov_base;
        sqe->len = (uint32_t)request->length;
    } else {
        sqe->opcode = write ? IORING_OP_WRITEV : IORING_OP_READV;
        sqe->addr = (uintptr_t)request->iov;
        sqe->len = request->iov_count;
    }
}

static void refuse(struct uring *uring, struct disk_request *request)
{
    uring->events->refused(uring->disk, request);
}

/* `refused` may submit others. */
static void refuse_waiting(struct uring *uring)
{
    while (uring->first) {
        struct disk_request *request = uring->first;
        uring->first = request->next;
        if (!uring->first)
            uring->last = &uring->first;
        refuse(uring, request);
    }
}

/* The kernel takes no more. What it has already, it will answer; what it has not looked at yet lies
 * at the end of the submission queue, and since nothing is submitted any more, it never will. */
static void fail(struct uring *uring, int error)
{
    const struct io_uring_sq *sq = &uring->ring.sq;
    unsigned left = io_uring_sq_ready(&uring->ring);
    log_warn(uring->disk->name, "io_uring failed (%s): threads serve it from now on",
             g_strerror(error));
    uring->broken = true;
    uring->in_ring -= left;
    for (unsigned at = sq->sqe_tail - left; left; at++, left--)
        refuse(uring, (void *)(uintptr_t)sq->sqes[at & sq->ring_mask].user_data);
    refuse_waiting(uring);
}

/* --- on the spot --------------------------------------------------------------------------------
 */

static bool is_in_memory(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

static int transfer(const struct uring *uring, const struct disk_request *request)
{
    int count = (int)request->iov_count;
    off_t offset = (off_t)request->at;
    ssize_t result = request->op == DISK_WRITE ? pwritev(uring->fd, request->iov, count, offset)
                                               : preadv(uring->fd, request->iov, count, offset);
    return result < 0 ? -errno : (int)result;
}

/* Those at the head of the list for which that is better. */
static void transfer_first(struct uring *uring)
{
    struct disk_request *request = uring->first;
    for (; request && request->op != DISK_FLUSH && request->length < LARGE;
         request = uring->first) {
        uring->first = request->next;
        request->next = NULL;
        request->error = transfer(uring, request);
        *uring->through_last = request;
        uring->through_last = &request->next;
    }
    if (!uring->first)
        uring->last = &uring->first;
    if (uring->through)
        loop_wake(&uring->source);
}

/* --- the ring -----------------------------------------------------------------------------------
 */

void uring_submit(struct uring *uring, struct disk_request *request)
{
    request->next = NULL;
    *uring->last = request;
    uring->last = &request->next;
}

void uring_kick(struct uring *uring)
{
    if (!uring->first)
        return;
    if (uring->in_memory)
        transfer_first(uring);
    if (uring->broken) {
        refuse_waiting(uring);
        return;
    }
    struct io_uring_sq *sq = &uring->ring.sq; /* empty, and with room for all that may be in it */
    struct disk_request *request = uring->first;
    unsigned tail = sq->sqe_tail;
    for (unsigned room = ENTRIES - uring->in_ring; request && room; room--) {
        prepare(uring, &sq->sqes[tail++ & sq->ring_mask], request);
        request = request->next;
    }
    uring->in_ring += tail - sq->sqe_tail;
    sq->sqe_tail = tail;
    uring->first = request;
    if (!request)
        uring->last = &uring->first;
    while (io_uring_sq_ready(&uring->ring)) { /* it stops after one that it refuses */
        int count = io_uring_submit(&uring->ring);
        if (count > 0 || count == -EINTR)
            continue;
        fail(uring, count ? -count : EIO);
        return;
    }
}

/* --- completion ---------------------------------------------------------------------------------
 */

static unsigned reap_through(struct uring *uring)
{
    unsigned count = 0;
    while (uring->through && count < BATCH) {
        struct disk_request *request = uring->through;
        uring->through = request->next;
        if (!uring->through)
            uring->through_last = &uring->through;
        count++;
        int result = request->error;
        request->error = 0;
        uring->events->result(uring->disk, request, result);
    }
    return count;
}

/* At most a batch of each kind. True when there was something. `result` may submit and kick. */
static bool reap(struct uring *uring)
{
    const struct io_uring_cq *cq = &uring->ring.cq;
    unsigned through = uring->through ? reap_through(uring) : 0;
    unsigned ready = io_uring_cq_ready(&uring->ring), count = MIN(ready, BATCH);
    if (!count && !through)
        return false;
    for (unsigned i = 0; i < count; i++) {
        const struct io_uring_cqe *cqe = &cq->cqes[*cq->khead & cq->ring_mask];
        struct disk_request *request = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cq_advance(&uring->ring, 1);
        uring->in_ring--;
        uring->events->result(uring->disk, request, result);
    }
    disk_end_batch(uring->disk);
    uring_kick(uring); /* what found no room, and what is tried again */
    return true;
}

bool uring_poll(struct uring *uring)
{
    return (uring->in_ring || uring->through) && !uring->draining && reap(uring);
}

static bool source_ready(struct loop_source *source, uint32_t events)
{
    struct uring *uring = source->opaque;
    (void)events;
    uring_poll(uring);
    return uring->through && !uring->draining; /* the ring says itself that there is more */
}

bool uring_busy(const struct uring *uring)
{
    return uring->first || uring->in_ring || uring->through;
}

void uring_drain(struct uring *uring)
{
    struct pollfd wait = { .fd = uring->ring.ring_fd, .events = POLLIN };
    if (!uring_busy(uring))
        return;
    uring->draining = true;
    loop_change(&uring->source, 0);
    while (uring_busy(uring)) {
        uring_kick(uring);
        if (reap(uring) || !uring->in_ring)
            continue; /* what was not in the ring is through, or refused */
        g_mutex_unlock(uring->disk->lock);
        poll(&wait, 1, -1);
        g_mutex_lock(uring->disk->lock);
    }
    uring->draining = false;
    loop_change(&uring->source, EPOLLIN);
}

/* --- life ---------------------------------------------------------------------------------------
 */

/* 0 or a positive errno. */
static int make_ring(struct uring *uring)
{
    struct io_uring_params params = { 0 };
    int error = io_uring_queue_init_params(ENTRIES, &uring->ring, &params);
    if (error < 0)
        return -error;
    if (!(params.features & IORING_FEAT_EXT_ARG)) /* Linux 5.11: has all that is used here */
        error = -ENOSYS;
    if (!error)
        error = io_uring_register_files(&uring->ring, &uring->fd, 1);
    if (error < 0)
        io_uring_queue_exit(&uring->ring);
    return -error;
}

static bool watch(struct uring *uring)
{
    struct disk *disk = uring->disk;
    uring->source = (struct loop_source){
        .fd = uring->ring.ring_fd,
        .lock = disk->lock,
        .opaque = uring,
        .ready = source_ready,
    };
    if (!disk->loop)
        uring->own = loop_new("disk");
    if (loop_add(disk->loop ? disk->loop : uring->own, &uring->source, EPOLLIN))
        return true;
    loop_free(uring->own);
    io_uring_queue_exit(&uring->ring);
    return false;
}

struct uring *uring_new(struct disk *disk, int fd, const struct uring_events *events)
{
    struct uring *uring = g_try_new0(struct uring, 1);
    if (!uring)
        return NULL;
    uring->disk = disk;
    uring->fd = fd;
    uring->events = events;
    uring->in_memory = is_in_memory(fd);
    uring->last = &uring->first;
    uring->through_last = &uring->through;
    int error = make_ring(uring);
    if (error)
        log_info(disk->name, "no io_uring (%s): threads serve it", g_strerror(error));
    if (error || !watch(uring)) {
        g_free(uring);
        return NULL;
    }
    return uring;
}

void uring_free(struct uring *uring)
{
    GMutex *lock = uring->disk->lock;
    g_mutex_lock(lock);
    uring_drain(uring);
    loop_remove(&uring->source);
    g_mutex_unlock(lock);
    if (uring->own)
        loop_free(uring->own);
    else
        loop_settle(uring->disk->loop);
    io_uring_unregister_files(&uring->ring); /* else the kernel keeps the file a while longer */
    io_uring_queue_exit(&uring->ring);
    g_free(uring);
}
