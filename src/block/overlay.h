/* A disk that keeps what is written to it apart from its base (hv run --throwaway). */
#pragma once
#include "block/disk.h"

/* A disk that shows `below` and never writes to it: what the guest writes goes to a sparse file in
 * memory and vanishes with it. It owns `below` from then on; on failure that stays the caller's.
 * Flushes promise nothing. */
struct disk *overlay_open(struct disk *below, GError **error);
