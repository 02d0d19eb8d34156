/* Faults that somebody sets on a disk while its machine runs, to see what the guest makes of them:
 * it answers late, cannot read or write some sectors, or the host has no room for what is written.
 *
 * While none is set nothing of this is in a request's way: the disk's own operations are in place.
 * Faults are no part of the machine's state, and a disk that is freed has none. */
#pragma once
#include "block/disk.h"

struct clock;

enum { FAULTS_RANGES = 16 };

struct fault_range {
    uint64_t first, last; /* sectors of 512 bytes */
    bool read, write;     /* what fails there, with EIO */
};

struct disk_faults {
    bool full;      /* writes are held, as they are when the host has no room: see disk_set_full */
    uint64_t delay; /* of each request, in ns of guest time */
    struct fault_range bad[FAULTS_RANGES];
    unsigned bad_count;
};

/* The faults that count from now on, in place of those from before; none: what they held back goes
 * on. With the owner's lock held, on the thread that drains and frees the disk. The clock must
 * outlive the disk. */
void faults_set(struct disk *disk, struct clock *clock, const struct disk_faults *set);
/* Those that are set. On the same thread. */
struct disk_faults faults_get(const struct disk *disk);
/* For disk_free. */
void faults_free(struct disk *disk);
