/* Copies of whole disks, for tools: sparse, and no more than what differs from zeros. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct disk;

struct copy {
    struct disk *from, *to; /* `to` is at least as large, and reads as zeros */
    /* After each step; false ends it. NULL: nobody asks. */
    bool (*progress)(void *opaque, uint64_t done, uint64_t whole);
    void *opaque;
    /* How whole steps of 2 MiB are written (struct format); NULL: as they are. */
    int (*pack)(struct disk *disk, const void *from, uint64_t length, uint64_t offset);
};

/* What `from` has itself, and not from a disk below it, into another disk that is as large. */
bool copy_own(struct disk *from, struct disk *to, GError **error);
/* `to` lies on `from` (NULL: on nothing), and shall show the same when it lies on `other` instead
 * (NULL: on nothing): it gets what is different there. Otherwise as copy_disk. */
bool copy_differences(const struct copy *copy, struct disk *other, GError **error);
/* Gives back the room of a disk's blocks of zeros. */
bool copy_compact(struct disk *disk, GError **error);

/* False with an error that names the disk, or, when `progress` ended it, without one. Flushes at
 * the end. On a thread that may wait. */
bool copy_disk(const struct copy *copy, GError **error);
