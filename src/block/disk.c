/* Dispatch of disk requests, and the one place where their ranges are checked; see disk.h. */
#include "block/disk.h"

#include "block/faults.h"

#include <errno.h>

int disk_refusal(const struct disk *disk, const struct disk_request *request)
{
    if (request->op == DISK_FLUSH)
        return 0;
    if ((request->offset | request->length) % SECTOR)
        return EINVAL;
    if (request->offset > disk->size || request->length > disk->size - request->offset)
        return EINVAL;
    return disk->readonly && request->op != DISK_READ ? EROFS : 0;
}

int disk_now(struct disk *disk, const struct disk_request *request)
{
    int error = disk_refusal(disk, request);
    struct disk_request copy = *request;
    copy.at = request->offset;
    return error ? error : disk->ops->now(disk, &copy);
}

static void pass_full(void *opaque, struct disk *disk, int error)
{
    struct disk *upper = opaque;
    (void)disk;
    upper->full(upper->full_opaque, upper, error);
}

static void pass_failed(void *opaque, struct disk *disk, int error)
{
    struct disk *upper = opaque;
    (void)disk;
    disk_tell_failed(upper, error);
}

void disk_lay_under(struct disk *lower, struct disk *upper)
{
    disk_attach(lower, upper->lock, upper->loop);
    disk_set_full(lower, upper->full ? pass_full : NULL, upper);
    disk_set_failed(lower, upper->failed ? pass_failed : NULL, upper);
    disk_set_batch(lower, upper->batch, upper->batch_opaque);
}

static int transfer(struct disk *disk, enum disk_op op, void *data, uint64_t length,
                    uint64_t offset)
{
    struct iovec iov = { data, length };
    struct disk_request request = {
        .op = op, .offset = offset, .length = length, .iov = &iov, .iov_count = 1
    };
    return disk_now(disk, &request);
}

int disk_read(struct disk *disk, void *to, uint64_t length, uint64_t offset)
{
    return transfer(disk, DISK_READ, to, length, offset);
}

int disk_write(struct disk *disk, const void *from, uint64_t length, uint64_t offset)
{
    return transfer(disk, DISK_WRITE, (void *)(uintptr_t)from, length, offset);
}

int disk_piece(struct disk *disk, uint64_t offset, uint64_t length, struct disk_piece *piece)
{
    *piece = (struct disk_piece){ .length = length };
    int error = disk->ops->piece ? disk->ops->piece(disk, offset, length, piece) : 0;
    piece->length = MIN(piece->length, length);
    return error;
}

void disk_retry(struct disk *disk)
{
    if (disk->ops->retry)
        disk->ops->retry(disk, false);
}

void disk_give_up(struct disk *disk)
{
    if (disk->ops->retry)
        disk->ops->retry(disk, true);
}

void disk_drain(struct disk *disk)
{
    if (disk)
        disk->ops->drain(disk);
}

void disk_free(struct disk *disk)
{
    if (!disk)
        return;
    faults_free(disk);
    disk->ops->free(disk);
}
