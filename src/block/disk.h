/* The disk interface: what a drive's controller (AHCI, virtio-blk, NVMe) needs of an image.
 *
 * Requests are asynchronous: submit a batch, kick, and go on; `done` is called later, on a thread
 * of the disk, the owner's loop or in disk_drain, with the lock of the owner (disk_attach) held,
 * and never from inside disk_submit or disk_kick. Requests may finish in any order; a flush covers
 * the writes that were done before it was submitted. What `done` reported for a flush is on stable
 * storage. Host errors arrive as errno values, but a full host disk does not: such a write is held,
 * the machine is told (disk_set_full), pauses, and asks for another try (disk_retry), so a device
 * never sees ENOSPC. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

enum { SECTOR = 512 };

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_WRITE_ZEROES };

/* Owned by the submitter; neither it nor the memory of iov may change until `done`. */
struct disk_request {
    enum disk_op op;
    uint64_t offset;   /* bytes, a multiple of SECTOR */
    uint64_t length;   /* bytes, a multiple of SECTOR, equal to the sum over iov (but for
                        * discard and write zeroes, which have none) */
    struct iovec *iov; /* host memory, from guest_span or the submitter's own */
    unsigned iov_count;
    void (*done)(struct disk_request *request, int error); /* 0 or a positive errno */
    void *owner;
    /* The disk's while in flight. */
    struct disk_request *next;
    uint64_t at;     /* where it goes: `offset`, or what a disk made of it for the one below */
    unsigned *tally; /* counts those in flight that somebody waits for; NULL: nobody does */
    int error;       /* why disk_submit refused it; 0 when it did not */
};

/* A piece of a disk that is alike, for tools. */
struct disk_piece {
    uint64_t length; /* bytes, more than 0 and no more than was asked for */
    bool zero;       /* reads as zeros, and takes no room, or hardly any */
    bool mapped;     /* lies byte for byte in a file, at: */
    uint64_t at;     /* bytes */
    unsigned depth;  /* in which one: 0 the disk's own, 1 that of the disk below ... */
};

struct disk;
struct loop;

/* What a kind of disk implements (raw files: block/raw.c; tests: a disk in memory). A request with
 * an `error` set is finished with it, untouched otherwise. Requests are for the range from `at`;
 * `offset` is what their owner knows. */
struct disk_ops {
    void (*submit)(struct disk *disk, struct disk_request *request);
    void (*kick)(struct disk *disk); /* NULL: submit starts each request itself */
    bool (*poll)(struct disk *disk); /* NULL: its own threads call `done` */
    bool (*busy)(struct disk *disk); /* is anything in flight? With the owner's lock held */
    int (*now)(struct disk *disk, const struct disk_request *request); /* see disk_now */
    int (*piece)(struct disk *disk, uint64_t offset, uint64_t length, struct disk_piece *piece);
    void (*drain)(struct disk *disk);
    void (*free)(struct disk *disk);
    void (*retry)(struct disk *disk, bool give_up); /* NULL: it holds nothing */
};
struct disk {
    const struct disk_ops *ops;
    GMutex *lock; /* the owner's, held around `done`; disk_attach */
    struct loop *loop;
    uint64_t size; /* bytes, a multiple of SECTOR */
    bool readonly;
    bool far;     /* what was read of it is worth keeping by who lies on it */
    bool gathers; /* it keeps what it reads of such a one, and forgets that without a last flush */
    char *name;   /* for messages: the image's file name */
    char *identity; /* of the image's file (block/image.h); NULL: it has none */
    char *mark;     /* what an image calls its content, for those that lie on it; NULL: nothing */
    void (*full)(void *opaque, struct disk *disk, int error);
    void *full_opaque;
    void (*failed)(void *opaque, struct disk *disk, int error); /* NULL: nobody */
    void *failed_opaque;
    void (*batch)(void *opaque); /* disk_set_batch; NULL: nobody */
    void *batch_opaque;
    guint activity;        /* requests so far, for the lamp; atomic */
    struct faults *faults; /* block/faults.h; NULL: there never was one */
};

/* Whose lock `done` holds, and the loop that a disk without threads of its own may use (NULL: it
 * makes one). Before the first request. Both must outlive the disk. */
static inline void disk_attach(struct disk *disk, GMutex *lock, struct loop *loop)
{
    disk->lock = lock;
    disk->loop = loop;
}

/* With the owner's lock held. A range outside the disk is answered with EINVAL, a write to a
 * read-only one with EROFS. */
int disk_refusal(const struct disk *disk, const struct disk_request *request);
static inline void disk_submit(struct disk *disk, struct disk_request *request)
{
    uint64_t at = request->offset, length = request->length;
    bool plain = !((at | length) % SECTOR) && request->op == DISK_READ && length <= disk->size &&
                 at <= disk->size - length;
    request->next = NULL;
    request->at = at;
    request->tally = NULL;
    request->error = plain ? 0 : disk_refusal(disk, request);
    __atomic_fetch_add(&disk->activity, 1, __ATOMIC_RELAXED);
    disk->ops->submit(disk, request);
}
/* Starts all that was submitted. With the owner's lock held. */
static inline void disk_kick(struct disk *disk)
{
    if (disk->ops->kick)
        disk->ops->kick(disk);
}
/* Calls `done` for what has finished, now; true when there was some. On the owner's loop, with its
 * lock held: for an owner that polls. */
static inline bool disk_poll(struct disk *disk)
{
    return disk->ops->poll && disk->ops->poll(disk);
}

/* For kinds of disks: the request is through. With the owner's lock held. */
static inline void disk_finish(struct disk_request *request, int error)
{
    if (request->tally)
        --*request->tally;
    request->done(request, error);
}
/* Carries a request out before it returns, without its `done`: for disks that lie on others, and
 * for tools. 0 or a positive errno; ENOSPC is one of them here. On a thread that may wait, without
 * the owner's lock; beside requests of the other kind. */
int disk_now(struct disk *disk, const struct disk_request *request);

/* Reads or writes so, from memory in one piece. */
int disk_read(struct disk *disk, void *to, uint64_t length, uint64_t offset);
int disk_write(struct disk *disk, const void *from, uint64_t length, uint64_t offset);
/* What the disk has at `offset`, as far as `length` bytes of it are alike; the range is the disk's.
 * As disk_now. */
int disk_piece(struct disk *disk, uint64_t offset, uint64_t length, struct disk_piece *piece);

/* Who is told that one or more requests are `done` and no other follows at once: an owner that
 * shows its guest all of them together. On the same thread, with the lock held. Before the first
 * request.
 */
static inline void disk_set_batch(struct disk *disk, void (*batch)(void *opaque), void *opaque)
{
    disk->batch = batch;
    disk->batch_opaque = opaque;
}
/* For kinds of disks. */
static inline void disk_end_batch(const struct disk *disk)
{
    if (disk->batch)
        disk->batch(disk->batch_opaque);
}

/* Who is told that a write is held because the host's disk is full (ENOSPC, EDQUOT); once for each
 * try; maybe with the owner's lock held. Before the first request. */
static inline void disk_set_full(struct disk *disk,
                                 void (*full)(void *opaque, struct disk *disk, int error),
                                 void *opaque)
{
    disk->full = full;
    disk->full_opaque = opaque;
}
/* Who is told that the host failed a request for another reason; maybe with the owner's lock held.
 * Before the first request. */
static inline void disk_set_failed(struct disk *disk,
                                   void (*failed)(void *opaque, struct disk *disk, int error),
                                   void *opaque)
{
    disk->failed = failed;
    disk->failed_opaque = opaque;
}
/* For kinds of disks. */
static inline void disk_tell_failed(struct disk *disk, int error)
{
    if (disk->failed)
        disk->failed(disk->failed_opaque, disk, error);
}
/* For disks that lie on others: the owner of `upper` is that of `lower` too, and is told what it is
 * told. Before the first request to `lower`, and once `upper` has its owner. */
void disk_lay_under(struct disk *lower, struct disk *upper);

/* Tries the held write again; or gives it up (EIO), and all others of those in flight that find no
 * room, for who stops or resets a machine that waits for space and must not wait in disk_drain. */
void disk_retry(struct disk *disk);
void disk_give_up(struct disk *disk);

/* Waits until nothing is in flight, a held write included; requests that were not kicked are. The
 * owner's lock must not be held, the loop may be paused, but this is not its thread; one thread at
 * a time. NULL is allowed. disk_free gives up what is held, and drains; on the main loop's thread.
 */
void disk_drain(struct disk *disk);
void disk_free(struct disk *disk);

/* A counter that moves with every request. Any thread. */
static inline guint disk_activity(const struct disk *disk)
{
    return __atomic_load_n(&disk->activity, __ATOMIC_RELAXED);
}
