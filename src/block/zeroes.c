/* Zeros instead of writes of zeros; see zeroes.h. To find out that a write has something else takes
 * a look at its beginning, as a rule; that it has not, one pass over it, which is less than to
 * write it. All with the owner's lock held; no thread of its own. */
#include "block/zeroes.h"

#include "block/disk.h"

#include <string.h>

enum { BLOCK = 4096 };

struct zeroes {
    struct disk disk;
    struct disk *below;
    bool unmap, attached;
};

/* The request that stands for a write. */
struct stand_in {
    struct disk_request request;
    struct disk_request *write;
    struct zeroes *zeroes;
};

static struct zeroes *of(struct disk *disk)
{
    return (struct zeroes *)disk;
}

static bool all_zeros(const struct disk_request *request)
{
    for (unsigned i = 0; i < request->iov_count; i++) {
        const uint8_t *data = request->iov[i].iov_base;
        size_t length = request->iov[i].iov_len;
        if (length && (data[0] || memcmp(data, data + 1, length - 1) != 0))
            return false;
    }
    return true;
}

/* Room is given back once there are zeros: a discard alone leaves anything. */
static void on_done(struct disk_request *request, int error)
{
    struct stand_in *stand_in = request->owner;
    struct disk *below = stand_in->zeroes->below;
    if (!error && stand_in->zeroes->unmap && request->op == DISK_WRITE_ZEROES) {
        request->op = DISK_DISCARD;
        disk_submit(below, request);
        disk_kick(below);
        return;
    }
    struct disk_request *write = stand_in->write;
    error = request->op == DISK_DISCARD ? 0 : error; /* which was a hint */
    g_free(stand_in);
    disk_finish(write, error);
}

static bool replace(struct zeroes *zeroes, struct disk_request *write)
{
    struct stand_in *stand_in = g_try_new0(struct stand_in, 1);
    if (!stand_in)
        return false;
    *stand_in = (struct stand_in){
        .request = {
            .op = DISK_WRITE_ZEROES,
            .offset = write->at,
            .length = write->length,
            .done = on_done,
            .owner = stand_in,
        },
        .write = write,
        .zeroes = zeroes,
    };
    disk_submit(zeroes->below, &stand_in->request);
    return true;
}

static void zeroes_submit(struct disk *disk, struct disk_request *request)
{
    struct zeroes *zeroes = of(disk);
    if (!zeroes->attached)
        disk_lay_under(zeroes->below, disk);
    zeroes->attached = true;
    bool whole = request->op == DISK_WRITE && !request->error && request->length &&
                 !((request->at | request->length) % BLOCK);
    if (!whole || !all_zeros(request) || !replace(zeroes, request))
        zeroes->below->ops->submit(zeroes->below, request);
}

static void zeroes_kick(struct disk *disk)
{
    disk_kick(of(disk)->below);
}

static bool zeroes_poll(struct disk *disk)
{
    return disk_poll(of(disk)->below);
}

static bool zeroes_busy(struct disk *disk)
{
    struct disk *below = of(disk)->below;
    return below->ops->busy(below);
}

static int zeroes_now(struct disk *disk, const struct disk_request *request)
{
    struct disk *below = of(disk)->below;
    return below->ops->now(below, request);
}

static int zeroes_piece(struct disk *disk, uint64_t offset, uint64_t length,
                        struct disk_piece *piece)
{
    return disk_piece(of(disk)->below, offset, length, piece);
}

static void zeroes_drain(struct disk *disk)
{
    disk_drain(of(disk)->below);
}

static void zeroes_retry(struct disk *disk, bool give_up)
{
    struct disk *below = of(disk)->below;
    if (below->ops->retry)
        below->ops->retry(below, give_up);
}

static void zeroes_free(struct disk *disk)
{
    disk_free(of(disk)->below);
    g_free(disk->name);
    g_free(disk->identity);
    g_free(disk->mark);
    g_free(disk);
}

static const struct disk_ops zeroes_ops = {
    .submit = zeroes_submit,
    .kick = zeroes_kick,
    .poll = zeroes_poll,
    .busy = zeroes_busy,
    .now = zeroes_now,
    .piece = zeroes_piece,
    .drain = zeroes_drain,
    .free = zeroes_free,
    .retry = zeroes_retry,
};

struct disk *zeroes_open(struct disk *below, bool unmap)
{
    struct zeroes *zeroes = g_new0(struct zeroes, 1);
    struct disk *disk = &zeroes->disk;
    zeroes->below = below;
    zeroes->unmap = unmap;
    disk->ops = &zeroes_ops;
    disk->size = below->size;
    disk->readonly = below->readonly;
    disk->name = g_strdup(below->name);
    disk->identity = g_strdup(below->identity);
    disk->mark = g_strdup(below->mark);
    return disk;
}

void zeroes_follow(struct disk *disk)
{
    disk->size = of(disk)->below->size;
}
