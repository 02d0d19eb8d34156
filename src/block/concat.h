/* Disks strung together: one begins where the one before ends. For images in several files. */
#pragma once
#include "block/disk.h"

/* A disk of `count` others, at least one, which it owns from then on; their owner is its owner. It
 * is readonly when one of them is. NULL where there is no memory, or the sizes are beyond all
 * bounds; the parts stay the caller's then. */
struct disk *concat_new(const char *name, struct disk *const *parts, unsigned count);
/* Undoes that, before the first request: the parts are the caller's again. */
void concat_dissolve(struct disk *disk);
