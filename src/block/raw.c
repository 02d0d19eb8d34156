/* Raw images and block devices; see raw.h. All system calls are made on the worker's thread. */
#include "block/raw.h"

#include "base/error.h"
#include "base/log.h"
#include "block/image.h"
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
    /* Worker's thread: the errno of the first flush that failed. The kernel forgets the pages that
     * it could not write, so a later fsync that succeeds means nothing. */
    int flush_failed;
};

enum { IOV_AT_ONCE = 1024 }; /* IOV_MAX of Linux */

const struct raw_io raw_system_io = { preadv, pwritev, fdatasync };

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

static int raw_flush(struct raw *raw)
{
    int result;
    if (raw->flush_failed)
        return raw->flush_failed;
    do
        result = raw->io->sync(raw->fd);
    while (result < 0 && errno == EINTR);
    raw->flush_failed = result < 0 ? errno : 0;
    return raw->flush_failed;
}

/* A hint: only a failing medium is an error. */
static int raw_discard(const struct raw *raw, const struct disk_request *request)
{
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    if (!request->length ||
        fallocate(raw->fd, mode, (off_t)request->offset, (off_t)request->length) == 0)
        return 0;
    return errno == EIO ? EIO : 0;
}

/* Zeros that need not be written where the host's file system can do that. */
static int raw_write_zeroes(const struct raw *raw, const struct disk_request *request)
{
    static const uint8_t zeros[65536];
    if (!request->length || fallocate(raw->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                      (off_t)request->offset, (off_t)request->length) == 0)
        return 0;
    int error = 0;
    for (uint64_t done = 0; done < request->length && !error; done += sizeof zeros) {
        struct iovec iov = { (void *)(uintptr_t)zeros,
                             (size_t)MIN(sizeof zeros, request->length - done) };
        error = raw_transfer(raw->io, raw->fd, true, &iov, 1, request->offset + done);
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
                            request->iov_count, request->offset);
    case DISK_FLUSH:
        return raw->worker.disk.readonly ? 0 : raw_flush(raw);
    case DISK_DISCARD:
        return raw_discard(raw, request);
    case DISK_WRITE_ZEROES:
        return raw_write_zeroes(raw, request);
    }
    return EINVAL;
}

static void raw_finish(struct worker *worker)
{
    close(((struct raw *)worker)->fd);
}

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
    if (size % SECTOR)
        log_warn(name,
                 "its size, %" G_GUINT64_FORMAT " bytes, is no multiple of 512: the last "
                 "sector is filled up with zeros",
                 size);
    struct raw *raw = g_new0(struct raw, 1);
    worker_init(&raw->worker, name, raw_run, raw_finish);
    raw->worker.disk.size = (size + SECTOR - 1) / SECTOR * SECTOR;
    raw->worker.disk.readonly = readonly;
    raw->worker.disk.identity = image_identity(fd);
    raw->fd = fd;
    raw->io = &raw_system_io;
    return &raw->worker.disk;
}

void raw_set_io(struct disk *disk, const struct raw_io *io)
{
    ((struct raw *)disk)->io = io;
}
