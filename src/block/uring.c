/* The io_uring of a disk; see uring.h, and io_uring(7).
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
#include <poll.h>

enum {
    ENTRIES = 128,      /* in the ring at once; the completion queue has room for twice as many */
    BATCH = 64,         /* completions in a turn of the loop */
    LARGE = 128 * 1024, /* bytes: a copy that would hold up a vCPU */
};

struct uring {
    struct io_uring ring;
    struct disk *disk;
    const struct uring_events *events;
    struct loop *own; /* NULL: the source is the owner's loop's */
    struct loop_source source;

    struct disk_request *first, **last; /* not in the ring yet */
    unsigned in_ring;
    bool broken;   /* takes no more */
    bool draining; /* nobody else reaps */
};

/* --- submission ---------------------------------------------------------------------------------
 */

static void prepare(struct uring *uring, struct io_uring_sqe *sqe, struct disk_request *request)
{
    unsigned flags = IOSQE_FIXED_FILE;
    bool write = request->op == DISK_WRITE;
    if (request->op == DISK_FLUSH)
        io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
    else if (request->iov_count == 1)
        io_uring_prep_rw(write ? IORING_OP_WRITE : IORING_OP_READ, sqe, 0, request->iov->iov_base,
                         (unsigned)request->length, request->offset);
    else
        io_uring_prep_rw(write ? IORING_OP_WRITEV : IORING_OP_READV, sqe, 0, request->iov,
                         request->iov_count, request->offset);
    /* Without a loop the kick may come from a vCPU, which has better things to do. */
    if (uring->own && request->length >= LARGE)
        flags |= IOSQE_ASYNC;
    sqe->flags = (uint8_t)flags;
    io_uring_sqe_set_data(sqe, request);
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
    if (uring->broken) {
        refuse_waiting(uring);
        return;
    }
    while (uring->first && uring->in_ring < ENTRIES) {
        struct disk_request *request = uring->first;
        struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
        if (!sqe)
            break;
        uring->first = request->next;
        prepare(uring, sqe, request);
        uring->in_ring++;
    }
    if (!uring->first)
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

/* At most a batch. True when there was something. `result` may submit and kick. */
static bool reap(struct uring *uring)
{
    const struct io_uring_cq *cq = &uring->ring.cq;
    unsigned count = MIN(io_uring_cq_ready(&uring->ring), BATCH);
    for (unsigned i = 0; i < count; i++) {
        const struct io_uring_cqe *cqe = &cq->cqes[*cq->khead & cq->ring_mask];
        struct disk_request *request = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cq_advance(&uring->ring, 1);
        uring->in_ring--;
        uring->events->result(uring->disk, request, result);
    }
    if (count)
        uring_kick(uring); /* what found no room, and what is tried again */
    return count > 0;
}

bool uring_poll(struct uring *uring)
{
    return !uring->draining && reap(uring);
}

static bool source_ready(struct loop_source *source, uint32_t events)
{
    struct uring *uring = source->opaque;
    (void)events; /* readable as long as there is more */
    uring_poll(uring);
    return false;
}

bool uring_busy(const struct uring *uring)
{
    return uring->first || uring->in_ring;
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
            continue;
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
static int make_ring(struct uring *uring, int fd)
{
    struct io_uring_params params = { 0 };
    int error = io_uring_queue_init_params(ENTRIES, &uring->ring, &params);
    if (error < 0)
        return -error;
    if (!(params.features & IORING_FEAT_EXT_ARG)) /* Linux 5.11: has all that is used here */
        error = -ENOSYS;
    if (!error)
        error = io_uring_register_files(&uring->ring, &fd, 1);
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
    uring->events = events;
    uring->last = &uring->first;
    int error = make_ring(uring, fd);
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
    io_uring_queue_exit(&uring->ring);
    g_free(uring);
}
