/* MSI-X of a PCI function (PCI 3.0 section 6.8.2); the part of pci.h that has a table of its own.
 */
#pragma once
#include "bus/pci.h"

enum { MSIX_VECTORS = 128, MSIX_BAR_SIZE = 4096 };

struct msix_regs {
    uint32_t table[MSIX_VECTORS * 4]; /* address, upper address, data, vector control */
    uint64_t pending[MSIX_VECTORS / 64];
};

struct msix {
    unsigned vectors, capability; /* its offset */
    bool claimed;
    int lines[MSIX_VECTORS];           /* board_ops.line_open; LINE_NONE, LINE_FAILED */
    uint64_t stale[MSIX_VECTORS / 64]; /* the line's route is not that of the table */
    struct msix_regs regs;             /* saved */
};

extern const struct region msix_region;
extern const struct state msix_state; /* of a struct msix */

/* Called by pci.c, under the device's lock. */
void msix_reset(struct device *dev);
/* Control, bus mastering or the whole state changed: sends what was pending and now may go. */
void msix_update(struct device *dev);
