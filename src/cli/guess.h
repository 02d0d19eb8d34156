/* What kind of system a guest is, guessed from what is on its images. */
#pragma once
#include "machine/config.h"

struct guess {
    bool virtio;  /* it has drivers for virtio */
    bool windows; /* it is Windows */
};

/* It has virtio's drivers with a Linux or BSD file system on a disk and none of another system, or,
 * when the disks are empty, with a CD that a Linux or BSD boot loader starts, or when a kernel is
 * booted directly. It is Windows with a Windows file system on any disk, or, when the disks are
 * empty, with a CD of Windows. Files that cannot be read say nothing. */
struct guess guess_guest(const struct config *config);
