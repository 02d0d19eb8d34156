/* Throwaway disks; see overlay.h.
 *
 * The overlay file has the same offsets as the base; one bit for each block of 4 KiB says who has
 * it. All work is done on the overlay's own thread, by way of a buffer, which waits for the base
 * where it must read from it: the base's owner is the overlay. */
#include "block/overlay.h"

#include "base/error.h"
#include "block/raw.h"
#include "block/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BLOCK = 4096, CHUNK = 65536 };

struct overlay {
    struct worker worker;
    struct disk *base;
    int fd;

    /* The worker's thread. */
    uint8_t *own; /* bit map: blocks that the overlay has */
    uint8_t chunk[CHUNK];

    GMutex lock; /* of the base: protects what follows */
    GCond done;
    bool finished;
    int error;
};

static bool owns(const struct overlay *overlay, uint64_t at)
{
    uint64_t block = at / BLOCK;
    return overlay->own[block / 8] >> block % 8 & 1;
}

/* The blocks of a range that begins with a whole one. */
static void set_own(struct overlay *overlay, uint64_t at, uint64_t end)
{
    for (uint64_t block = at / BLOCK; block * BLOCK < end; block++)
        overlay->own[block / 8] |= (uint8_t)(1 << block % 8);
}

/* --- transfers between the chunk and what is below it ---------------------------------------- */

static void base_done(struct disk_request *request, int error)
{
    struct overlay *overlay = request->owner;
    overlay->finished = true;
    overlay->error = error;
    g_cond_signal(&overlay->done);
}

static int base_read(struct overlay *overlay, uint8_t *to, uint64_t at, uint64_t length)
{
    struct iovec iov = { to, length };
    struct disk_request request = {
        .op = DISK_READ,
        .offset = at,
        .length = length,
        .iov = &iov,
        .iov_count = 1,
        .done = base_done,
        .owner = overlay,
    };
    g_mutex_lock(&overlay->lock);
    overlay->finished = false;
    disk_submit(overlay->base, &request);
    disk_kick(overlay->base);
    disk_poll(overlay->base); /* what was in the page cache is here already */
    while (!overlay->finished)
        g_cond_wait(&overlay->done, &overlay->lock);
    g_mutex_unlock(&overlay->lock);
    return overlay->error;
}

static int own_transfer(struct overlay *overlay, bool write, uint8_t *data, uint64_t at,
                        uint64_t length)
{
    struct iovec iov = { data, length };
    return raw_transfer(&raw_system_io, overlay->fd, write, &iov, 1, at);
}

/* Reads a range into memory, each block from who has it. */
static int fetch(struct overlay *overlay, uint8_t *to, uint64_t at, uint64_t length)
{
    int error = 0;
    while (length && !error) {
        bool own = owns(overlay, at);
        uint64_t end = (at / BLOCK + 1) * BLOCK;
        while (end < at + length && owns(overlay, end) == own)
            end += BLOCK;
        uint64_t n = MIN(end - at, length);
        error = own ? own_transfer(overlay, false, to, at, n) : base_read(overlay, to, at, n);
        at += n;
        to += n;
        length -= n;
    }
    return error;
}

/* Writes a range that lies in the chunk, which holds the blocks from `start` to `end` that it
 * touches. What the range leaves of the first and the last block comes from below. */
static int store(struct overlay *overlay, uint64_t start, uint64_t end, uint64_t at,
                 uint64_t length)
{
    uint64_t tail = at + length;
    int error = fetch(overlay, overlay->chunk, start, at - start);
    if (!error)
        error = fetch(overlay, overlay->chunk + (tail - start), tail, end - tail);
    if (!error)
        error = own_transfer(overlay, true, overlay->chunk, start, end - start);
    if (!error)
        set_own(overlay, start, end);
    return error;
}

/* --- requests -------------------------------------------------------------------------------- */

/* Where a transfer stands in the memory of its request. */
struct cursor {
    const struct iovec *iov;
    size_t skip; /* bytes of *iov that are done */
};

static void copy(struct cursor *cursor, uint8_t *data, uint64_t length, bool to_iov)
{
    while (length) {
        uint8_t *at = (uint8_t *)cursor->iov->iov_base + cursor->skip;
        size_t n = MIN(cursor->iov->iov_len - cursor->skip, length);
        memcpy(to_iov ? at : data, to_iov ? data : at, n);
        data += n;
        length -= n;
        cursor->skip += n;
        if (cursor->skip == cursor->iov->iov_len)
            *cursor = (struct cursor){ cursor->iov + 1, 0 };
    }
}

static int transfer(struct overlay *overlay, const struct disk_request *request)
{
    struct cursor cursor = { request->iov, 0 };
    uint64_t at = request->offset, left = request->length;
    int error = 0;
    while (left && !error) {
        uint64_t start = at / BLOCK * BLOCK;
        uint64_t n = MIN(left, start + CHUNK - at);
        uint64_t end = MIN((at + n + BLOCK - 1) / BLOCK * BLOCK, overlay->worker.disk.size);
        if (request->op == DISK_WRITE) {
            copy(&cursor, overlay->chunk + (at - start), n, false);
            error = store(overlay, start, end, at, n);
        } else {
            error = fetch(overlay, overlay->chunk, at, n);
            if (!error)
                copy(&cursor, overlay->chunk, n, true);
        }
        at += n;
        left -= n;
    }
    return error;
}

/* Whole blocks become holes, which read as zeros; of others the discard is a hint not taken. */
static int discard(struct overlay *overlay, const struct disk_request *request)
{
    uint64_t start = (request->offset + BLOCK - 1) / BLOCK * BLOCK;
    uint64_t end = (request->offset + request->length) / BLOCK * BLOCK;
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    if (start < end && fallocate(overlay->fd, mode, (off_t)start, (off_t)(end - start)) == 0)
        set_own(overlay, start, end);
    return 0;
}

static int write_zeroes(struct overlay *overlay, const struct disk_request *request)
{
    static const uint8_t zeros[CHUNK];
    int error = 0;
    for (uint64_t done = 0; done < request->length && !error; done += CHUNK) {
        struct iovec iov = { (void *)(uintptr_t)zeros, (size_t)MIN(CHUNK, request->length - done) };
        struct disk_request part = { .op = DISK_WRITE,
                                     .offset = request->offset + done,
                                     .length = iov.iov_len,
                                     .iov = &iov,
                                     .iov_count = 1 };
        error = transfer(overlay, &part);
    }
    return error;
}

static int overlay_run(struct worker *worker, const struct disk_request *request)
{
    struct overlay *overlay = (struct overlay *)worker;
    switch (request->op) {
    case DISK_READ:
    case DISK_WRITE:
        return transfer(overlay, request);
    case DISK_DISCARD:
        return discard(overlay, request);
    case DISK_WRITE_ZEROES:
        return write_zeroes(overlay, request);
    case DISK_FLUSH:
        return 0;
    }
    return EINVAL;
}

static void overlay_finish(struct worker *worker)
{
    struct overlay *overlay = (struct overlay *)worker;
    disk_free(overlay->base);
    close(overlay->fd);
    g_free(overlay->own);
    g_mutex_clear(&overlay->lock);
    g_cond_clear(&overlay->done);
}

struct disk *overlay_open(struct disk *base, int fd, GError **error)
{
    int own_fd = fd >= 0 ? fd : memfd_create("hv-throwaway", MFD_CLOEXEC);
    uint64_t blocks = (base->size + BLOCK - 1) / BLOCK;
    uint8_t *own = g_try_malloc0(blocks / 8 + 1);
    if (own_fd < 0 || !own || ftruncate(own_fd, (off_t)base->size) < 0) {
        hv_fail(error, HV_HOST, "%s: cannot make the place for throwaway writes: %s", base->name,
                g_strerror(errno));
        if (own_fd >= 0 && own_fd != fd)
            close(own_fd);
        g_free(own);
        return NULL;
    }
    struct overlay *overlay = g_new0(struct overlay, 1);
    worker_init(&overlay->worker, base->name, 1, overlay_run, overlay_finish);
    overlay->worker.disk.size = base->size;
    overlay->worker.disk.identity = g_strdup(base->identity);
    overlay->base = base;
    overlay->fd = own_fd;
    overlay->own = own;
    g_mutex_init(&overlay->lock);
    g_cond_init(&overlay->done);
    disk_attach(base, &overlay->lock, NULL);
    return &overlay->worker.disk;
}
