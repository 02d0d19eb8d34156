/* Which devices a guest has drivers for, guessed from what is on its images. */
#pragma once
#include "machine/config.h"

/* Does the guest know virtio? Yes for a Linux or BSD file system on a disk and no Windows one, or
 * when the disks are empty, for a CD that a Linux or BSD boot loader starts, or for a kernel that
 * is booted directly. Files that cannot be read say nothing: no. */
bool guess_virtio(const struct config *config);
