/* A disk that keeps what is written to it apart from its base (hv run --throwaway). */
#pragma once
#include "block/disk.h"

/* A disk that shows `base` and never writes to it: what the guest writes goes to a sparse file and
 * vanishes with it. `fd` is an unlinked file, or -1 for memory (a memfd). The overlay owns both
 * from then on; on failure they stay the caller's. Flushes promise nothing. */
struct disk *overlay_open(struct disk *base, int fd, GError **error);
