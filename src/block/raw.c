/* Raw images and block devices; see raw.h.
 *
 * Reads, writes and flushes go to the kernel by io_uring. What is rare, and what did not come back
 * from there as it should (short, interrupted, no room, an error), is done by the worker's threads,
 * from the start: that is always right, for the memory of a request does not change before `done`.
 * Where io_uring is forbidden they do everything. */
#include "block/raw.h"

#include "base/error.h"
#include "base/log.h"
#include "block/image.h"
#include "block/uring.h"
#include "block/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

struct raw {
    struct worker worker;
    int fd;
    const struct raw_io *io;

    /* The owner's lock. */
    bool decided; /* whether there is a ring */
    struct uring *uring;
    /* One flush at a time is in the ring: of two, the kernel would tell only one what went wrong.
     * Those that come meanwhile wait, and then one flush stands for all of them. */
    struct disk_request *flushing;
    struct disk_request *covered, *waiting; /* lists: by that flush, for the next one */

    GMutex flush; /* held around a thread's flush, for the same reason; a leaf */
    /* The errno of the first flush that failed. The kernel forgets the pages that it could not
     * write, so a later fsync that succeeds means nothing. */
    atomic_int flush_failed;
};

enum { IOV_AT_ONCE = 1024 }; /* IOV_MAX of Linux */

_Static_assert(DISK_READ == 0 && DISK_WRITE == 1, "fits_ring");

const struct raw_io raw_system_io = {
    .readv = preadv,
    .writev = pwritev,
    .sync = fdatasync,
    .allocate = fallocate,
    .truncate = ftruncate,
};

static void zero_rest(const struct iovec *iov, unsigned count, size_t skip)
{
    for (unsigned i = 0; i < count; i++, skip = 0)
        memset((uint8_t *)iov[i].iov_base + skip, 0, iov[i].iov_len - skip);
}

int raw_transfer(const struct raw_io *io, int fd, bool write, const struct iovec *iov,
                 unsigned count, uint64_t offset)
{
    size_t skip = 0; /* bytes of iov[0] that are done */
    while (count) {
        struct iovec rest = { (uint8_t *)iov->iov_base + skip, iov->iov_len - skip };
        const struct iovec *next = skip ? &rest : iov;
        int n = skip ? 1 : (int)MIN(count, IOV_AT_ONCE);
        ssize_t done =
            write ? io->writev(fd, next, n, (off_t)offset) : io->readv(fd, next, n, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return errno;
        if (done == 0 && write)
            return EIO;
        if (done == 0) {
            zero_rest(iov, count, skip);
            return 0;
        }
        offset += (uint64_t)done;
        skip += (size_t)done;
        while (count && skip >= iov->iov_len) {
            skip -= iov->iov_len;
            iov++;
            count--;
        }
    }
    return 0;
}

/* --- on the worker's threads --------------------------------------------------------------------
 */

/* A flush that finds no room has lost what it was to write: another try would not bring it back. */
static int flush_error(int error)
{
    return error == ENOSPC || error == EDQUOT ? EIO : error;
}

static int raw_flush(struct raw *raw)
{
    g_mutex_lock(&raw->flush);
    int result = 0;
    while (!raw->flush_failed && (result = raw->io->sync(raw->fd)) < 0)
        if (errno != EINTR)
            raw->flush_failed = flush_error(errno);
    g_mutex_unlock(&raw->flush);
    return raw->flush_failed;
}

/* A hint: only a failing medium is an error. */
static int punch(const struct raw *raw, uint64_t at, uint64_t length)
{
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    if (!length || raw->io->allocate(raw->fd, mode, (off_t)at, (off_t)length) == 0)
        return 0;
    return errno == EIO ? EIO : 0;
}

/* Zeros that need not be written where the host's file system can do that. */
static int zero(const struct raw *raw, uint64_t at, uint64_t length)
{
    static const uint8_t zeros[65536];
    static const int modes[] = { FALLOC_FL_ZERO_RANGE, FALLOC_FL_PUNCH_HOLE };
    for (unsigned i = 0; i < G_N_ELEMENTS(modes); i++)
        if (!length || raw->io->allocate(raw->fd, modes[i] | FALLOC_FL_KEEP_SIZE, (off_t)at,
                                         (off_t)length) == 0)
            return 0;
    int error = 0;
    for (uint64_t done = 0; done < length && !error; done += sizeof zeros) {
        struct iovec iov = { (void *)(uintptr_t)zeros, (size_t)MIN(sizeof zeros, length - done) };
        error = raw_transfer(raw->io, raw->fd, true, &iov, 1, at + done);
    }
    return error;
}

static int raw_run(struct worker *worker, const struct disk_request *request)
{
    struct raw *raw = (struct raw *)worker;
    switch (request->op) {
    case DISK_READ:
    case DISK_WRITE:
        return raw_transfer(raw->io, raw->fd, request->op == DISK_WRITE, request->iov,
                            request->iov_count, request->at);
    case DISK_FLUSH:
        return raw->worker.disk.readonly ? 0 : raw_flush(raw);
    case DISK_DISCARD:
        return punch(raw, request->at, request->length);
    case DISK_WRITE_ZEROES:
        return zero(raw, request->at, request->length);
    }
    return EINVAL;
}

static void raw_finish(struct worker *worker)
{
    struct raw *raw = (struct raw *)worker;
    close(raw->fd);
    g_mutex_clear(&raw->flush);
}

/* --- through the ring, with the owner's lock held -----------------------------------------------
 */

static void start_flush(struct raw *raw, struct disk_request *requests)
{
    raw->flushing = requests;
    raw->covered = requests->next;
    uring_submit(raw->uring, requests);
}

static void submit_flush(struct raw *raw, struct disk_request *request)
{
    if (!raw->flushing) {
        start_flush(raw, request);
        return;
    }
    request->next = raw->waiting;
    raw->waiting = request;
}

/* The list of those that the flush stood for; the next one starts. */
static struct disk_request *end_flush(struct raw *raw)
{
    struct disk_request *through = raw->flushing, *next = raw->waiting;
    through->next = raw->covered;
    raw->flushing = raw->covered = raw->waiting = NULL;
    if (next)
        start_flush(raw, next);
    return through;
}

static void flush_result(struct raw *raw, int result)
{
    if (result == -EINTR || result == -EAGAIN || result == -ECANCELED) { /* a thread has ended */
        uring_submit(raw->uring, raw->flushing);
        return;
    }
    if (result < 0 && !raw->flush_failed) {
        raw->flush_failed = flush_error(-result);
        log_warn(raw->worker.disk.name, "flush failed: %s", g_strerror(-result));
        disk_tell_failed(&raw->worker.disk, -result);
    }
    struct disk_request *next, *request = end_flush(raw);
    for (; request; request = next) {
        next = request->next;
        disk_finish(request, raw->flush_failed);
    }
}

static void raw_result(struct disk *disk, struct disk_request *request, int result)
{
    struct raw *raw = (struct raw *)disk;
    if (raw->io->result)
        result = raw->io->result(request, result);
    if (request->op == DISK_FLUSH)
        flush_result(raw, result);
    else if (result == (int)request->length) /* which fits: URING_LENGTH */
        disk_finish(request, 0);
    else
        worker_take(&raw->worker, request);
}

static void raw_refused(struct disk *disk, struct disk_request *request)
{
    struct raw *raw = (struct raw *)disk;
    if (request->op != DISK_FLUSH) {
        worker_take(&raw->worker, request);
        return;
    }
    struct disk_request *next;
    for (request = end_flush(raw); request; request = next) {
        next = request->next;
        worker_take(&raw->worker, request);
    }
}

/* --- the disk's operations ----------------------------------------------------------------------
 */

static void decide(struct raw *raw)
{
    static const struct uring_events events = { raw_result, raw_refused };
    struct disk *disk = &raw->worker.disk;
    raw->decided = true;
    if (disk->lock)
        raw->uring = uring_new(disk, raw->fd, &events);
}

static bool fits_ring(const struct disk_request *request)
{
    return request->op <= DISK_WRITE && request->iov_count - 1 < IOV_AT_ONCE &&
           request->length <= URING_LENGTH && !request->error;
}

G_GNUC_NO_INLINE static void submit_rare(struct raw *raw, struct disk_request *request)
{
    if (!raw->decided)
        decide(raw);
    if (!raw->uring || !uring_busy(raw->uring))
        worker_forgive(&raw->worker);
    if (raw->uring && fits_ring(request))
        uring_submit(raw->uring, request);
    else if (raw->uring && request->op == DISK_FLUSH && !raw->worker.disk.readonly)
        submit_flush(raw, request);
    else
        worker_take(&raw->worker, request);
}

static void raw_submit(struct disk *disk, struct disk_request *request)
{
    struct raw *raw = (struct raw *)disk;
    if (raw->uring && fits_ring(request) &&
        !atomic_load_explicit(&raw->worker.giving_up, memory_order_relaxed))
        uring_submit(raw->uring, request);
    else
        submit_rare(raw, request);
}

static void raw_kick(struct disk *disk)
{
    struct raw *raw = (struct raw *)disk;
    if (raw->uring)
        uring_kick(raw->uring);
}

static bool raw_poll(struct disk *disk)
{
    struct raw *raw = (struct raw *)disk;
    return raw->uring && uring_poll(raw->uring);
}

/* What comes back from the ring may go on to the threads, and `done` may submit more. */
static void raw_drain(struct disk *disk)
{
    struct raw *raw = (struct raw *)disk;
    bool busy = disk->lock;
    while (busy) {
        g_mutex_lock(disk->lock);
        if (raw->uring)
            uring_drain(raw->uring);
        busy = worker_busy(&raw->worker);
        g_mutex_unlock(disk->lock);
        if (busy)
            worker_drain(disk);
    }
}

/* By the holes of the file; a device, or a file system that cannot tell, has none. */
static int raw_piece(struct disk *disk, uint64_t offset, uint64_t length, struct disk_piece *piece)
{
    const struct raw *raw = (struct raw *)disk;
    off_t start = (off_t)offset, data = lseek(raw->fd, start, SEEK_DATA);
    piece->mapped = true;
    piece->at = offset;
    piece->zero = data > start || (data < 0 && errno == ENXIO);
    off_t end = piece->zero ? data : lseek(raw->fd, start, SEEK_HOLE);
    if (end > start)
        piece->length = MIN(length, ((uint64_t)end - offset + SECTOR - 1) / SECTOR * SECTOR);
    return 0;
}

static bool raw_busy(struct disk *disk)
{
    struct raw *raw = (struct raw *)disk;
    return worker_busy(&raw->worker) || (raw->uring && uring_busy(raw->uring));
}

static void raw_free(struct disk *disk)
{
    struct raw *raw = (struct raw *)disk;
    worker_retry(disk, true);
    raw_drain(disk);
    if (raw->uring)
        uring_free(raw->uring);
    worker_free(disk);
}

static const struct disk_ops raw_ops = {
    .submit = raw_submit,
    .kick = raw_kick,
    .poll = raw_poll,
    .busy = raw_busy,
    .now = worker_now,
    .piece = raw_piece,
    .drain = raw_drain,
    .free = raw_free,
    .retry = worker_retry,
};

/* The size in bytes of the file or device. */
static bool find_size(int fd, const char *name, uint64_t *size, GError **error)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return hv_fail(error, HV_FAILED, "%s: %s", name, g_strerror(errno));
    if (S_ISREG(st.st_mode))
        *size = (uint64_t)st.st_size;
    else if (!S_ISBLK(st.st_mode))
        return hv_fail(error, HV_USAGE, "%s is no disk image: a file or a block device is wanted",
                       name);
    else if (ioctl(fd, BLKGETSIZE64, size) < 0)
        return hv_fail(error, HV_FAILED, "%s: cannot get its size: %s", name, g_strerror(errno));
    if (!*size)
        return hv_fail(error, HV_USAGE, "%s is empty", name);
    return true;
}

struct disk *raw_open(int fd, const char *name, bool readonly, GError **error)
{
    uint64_t size = 0;
    if (!find_size(fd, name, &size, error))
        return NULL;
    struct raw *raw = g_new0(struct raw, 1);
    worker_init(&raw->worker, name, WORKER_THREADS, raw_run, raw_finish);
    raw->worker.disk.ops = &raw_ops;
    raw->worker.disk.size = (size + SECTOR - 1) / SECTOR * SECTOR;
    raw->worker.disk.readonly = readonly;
    raw->worker.disk.identity = image_identity(fd);
    raw->fd = fd;
    raw->io = &raw_system_io;
    g_mutex_init(&raw->flush);
    return &raw->worker.disk;
}

/* --- the file below a format --------------------------------------------------------------------
 *
 * Of a disk of another kind there is no file; it is read as it is. */

/* By one of its operations: with faults (block/faults.h) it has a table of its own. */
static bool is_raw(const struct disk *disk)
{
    return disk->ops->piece == raw_piece;
}

int raw_move(struct disk *disk, bool write, const struct iovec *iov, unsigned count, uint64_t at)
{
    const struct raw *raw = (struct raw *)disk;
    if (!is_raw(disk)) {
        struct disk_request request = { .op = DISK_READ, .at = at, .iov_count = count };
        request.iov = (struct iovec *)(uintptr_t)iov;
        for (unsigned i = 0; i < count; i++)
            request.length += iov[i].iov_len;
        return write ? EROFS : disk->ops->now(disk, &request);
    }
    return raw_transfer(raw->io, raw->fd, write, iov, count, at);
}

int raw_read(struct disk *disk, void *to, size_t length, uint64_t at)
{
    struct iovec iov = { to, length };
    return raw_move(disk, false, &iov, 1, at);
}

int raw_write(struct disk *disk, const void *from, size_t length, uint64_t at)
{
    struct iovec iov = { (void *)(uintptr_t)from, length };
    return raw_move(disk, true, &iov, 1, at);
}

int raw_sync(struct disk *disk)
{
    return is_raw(disk) ? raw_flush((struct raw *)disk) : EROFS;
}

int raw_punch(struct disk *disk, uint64_t at, uint64_t length)
{
    return is_raw(disk) ? punch((struct raw *)disk, at, length) : EROFS;
}

int raw_zero(struct disk *disk, uint64_t at, uint64_t length)
{
    return is_raw(disk) ? zero((struct raw *)disk, at, length) : EROFS;
}

int raw_truncate(struct disk *disk, uint64_t size)
{
    const struct raw *raw = (struct raw *)disk;
    int result;
    if (!is_raw(disk))
        return ENOTSUP;
    do
        result = raw->io->truncate(raw->fd, (off_t)size);
    while (result < 0 && errno == EINTR);
    return result < 0 ? errno : 0;
}

int raw_resize(struct disk *disk, uint64_t size)
{
    int error = raw_truncate(disk, size);
    if (disk->lock)
        g_mutex_lock(disk->lock);
    if (!error)
        disk->size = size;
    if (disk->lock)
        g_mutex_unlock(disk->lock);
    return error;
}

int raw_length(struct disk *disk, uint64_t *length)
{
    const struct raw *raw = (struct raw *)disk;
    *length = disk->size;
    if (!is_raw(disk))
        return 0;
    off_t end = lseek(raw->fd, 0, SEEK_END); /* of a block device too; the position is not used */
    *length = end < 0 ? 0 : (uint64_t)end;
    return end < 0 ? errno : 0;
}

void raw_set_io(struct disk *disk, const struct raw_io *io)
{
    ((struct raw *)disk)->io = io;
}

void raw_use_threads(struct disk *disk)
{
    ((struct raw *)disk)->decided = true;
}
