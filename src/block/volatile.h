/* A disk with a volatile write cache, for tests: what its guest has not flushed can be lost.
 *
 * Writes and zeros are kept in memory and are done at once; reads see them. A flush writes all of
 * them to the disk below and flushes that, and is done then. At most VOLATILE_MAX bytes are kept:
 * beyond that the oldest go down, as a real cache may write back at any time. A discard first has
 * written down what is kept of its range.
 *
 * When it is freed, all goes down, unless the power was cut: then chance, which has `seed`, says
 * for each block of 4 KiB whether all, none or some of its kept sectors go down. The rest is lost,
 * and a message tells how many. In hv all that pulls the plug cuts the power: the control method
 * "stop" with "kill", a window's button for that, and a second SIGTERM. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct disk;

enum { VOLATILE_MAX = 64 << 20 };

/* It owns the disk below, which nobody else may write to. */
struct disk *volatile_open(struct disk *below, uint32_t seed);
/* The power is cut: disk_free comes next, on the same thread. */
void volatile_cut(struct disk *disk);
/* The disk below has another size. With the owner's lock held. */
void volatile_follow(struct disk *disk);
