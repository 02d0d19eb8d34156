/* The io_uring of a disk: reads, writes and flushes of one descriptor without a thread for each.
 *
 * Everything here but uring_free runs with the lock of the disk's owner held. What completes is
 * reaped by uring_poll, by the loop of the owner (or one of the ring's own where the owner has
 * none) or by who drains, and never from inside uring_submit or uring_kick. */
#pragma once
#include "block/disk.h"

struct uring;

struct uring_events {
    /* A request is through: what the system call would have returned, or a negative errno. */
    void (*result)(struct disk *disk, struct disk_request *request, int result);
    /* The ring failed: it never started this request. Called from inside uring_kick too. */
    void (*refused)(struct disk *disk, struct disk_request *request);
};

/* NULL where the host has no io_uring for us: too old, forbidden, no room. */
struct uring *uring_new(struct disk *disk, int fd, const struct uring_events *events);
/* With the lock not held; drains. */
void uring_free(struct uring *uring);

/* Reads and writes of 1 to IOV_MAX spans and at most URING_LENGTH bytes, and flushes. */
enum { URING_LENGTH = 16 << 20 }; /* more goes to threads, which a drain can stop */
void uring_submit(struct uring *uring, struct disk_request *request);
void uring_kick(struct uring *uring);
bool uring_poll(struct uring *uring);
bool uring_busy(const struct uring *uring);
/* Lets go of the lock while it waits, and is called by one thread at a time. */
void uring_drain(struct uring *uring);
