/* MSI-X; see msix.h. While a driver is ready (pci_msix_claim) each vector has a line of the board,
 * an eventfd that sends its message; before, and where the host has none, messages are sent one by
 * one. */
#include "bus/msix.h"

#include <string.h>

/* The capability, the table's entries and the pending bits (sections 6.8.2.3 to 6.8.2.9). */
enum {
    CAPABILITY_MSIX = 0x11,
    CAPABILITY_SIZE = 12,
    CONTROL = 2,
    CONTROL_MASK_ALL = 0x4000,
    CONTROL_ENABLE = 0x8000,
    TABLE = 4,
    PBA = 8,
    PBA_OFFSET = 0x800,

    ENTRY_ADDRESS = 0,
    ENTRY_UPPER = 1,
    ENTRY_DATA = 2,
    ENTRY_CONTROL = 3,
    ENTRY_MASKED = 1,
};
enum { LINE_NONE = -1, LINE_FAILED = -2 };

static const struct field msix_fields[] = {
    SAVED_ARRAY(struct msix_regs, table),
    SAVED_ARRAY(struct msix_regs, pending),
    SAVED_END,
};
const struct state msix_state = STATE(struct msix, regs, 1, msix_fields);

static uint32_t *entry(struct msix *msix, unsigned vector)
{
    return &msix->regs.table[vector * 4];
}

static bool bit(const uint64_t *bits, unsigned i)
{
    return bits[i / 64] >> i % 64 & 1;
}

static void set_bit(uint64_t *bits, unsigned i, bool on)
{
    bits[i / 64] = (bits[i / 64] & ~(UINT64_C(1) << i % 64)) | (uint64_t)on << i % 64;
}

static uint32_t control(const struct device *dev)
{
    return pci_get(dev, dev->pci->msix->capability + CONTROL, 2);
}

bool pci_msix_enabled(const struct device *dev)
{
    return dev->pci->msix && dev->pci->msix->vectors && control(dev) & CONTROL_ENABLE;
}

/* --- sending -------------------------------------------------------------------------------- */

static bool is_masked(struct device *dev, unsigned vector)
{
    return control(dev) & CONTROL_MASK_ALL || !pci_master(dev) ||
           entry(dev->pci->msix, vector)[ENTRY_CONTROL] & ENTRY_MASKED;
}

static uint64_t address_of(const uint32_t *e)
{
    return (e[ENTRY_ADDRESS] & ~3u) | (uint64_t)e[ENTRY_UPPER] << 32;
}

/* The line of a vector, open and routed; false: there is none. */
static bool prepare_line(struct device *dev, unsigned vector)
{
    struct msix *msix = dev->pci->msix;
    const struct board *board = dev->board;
    int *line = &msix->lines[vector];
    if (*line == LINE_NONE) {
        *line = board->ops->line_open ? board->ops->line_open(board->opaque) : -1;
        *line = *line < 0 ? LINE_FAILED : *line;
        set_bit(msix->stale, vector, true);
    }
    if (*line >= 0 && bit(msix->stale, vector)) {
        const uint32_t *e = entry(msix, vector);
        board->ops->line_route(board->opaque, *line, address_of(e), e[ENTRY_DATA]);
        set_bit(msix->stale, vector, false);
    }
    return *line >= 0;
}

static void send(struct device *dev, unsigned vector)
{
    struct msix *msix = dev->pci->msix;
    const struct board *board = dev->board;
    const uint32_t *e = entry(msix, vector);
    set_bit(msix->regs.pending, vector, false);
    if (msix->claimed && prepare_line(dev, vector))
        board->ops->line_send(board->opaque, msix->lines[vector]);
    else
        board->ops->send_msi(board->opaque, address_of(e), e[ENTRY_DATA]);
}

void pci_msix_notify(struct device *dev, unsigned vector)
{
    if (!pci_msix_enabled(dev) || vector >= dev->pci->msix->vectors)
        return;
    if (is_masked(dev, vector))
        set_bit(dev->pci->msix->regs.pending, vector, true);
    else
        send(dev, vector);
}

int pci_msix_line(struct device *dev, unsigned vector)
{
    struct msix *msix = dev->pci->msix;
    const struct board *board = dev->board;
    if (!pci_msix_enabled(dev) || vector >= msix->vectors || !msix->claimed ||
        is_masked(dev, vector) || !board->ops->line_fd || !prepare_line(dev, vector))
        return -1;
    return board->ops->line_fd(board->opaque, msix->lines[vector]);
}

void msix_update(struct device *dev)
{
    struct msix *msix = dev->pci->msix;
    if (!msix || !pci_msix_enabled(dev))
        return;
    for (unsigned i = 0; i < msix->vectors; i++)
        if (bit(msix->regs.pending, i) && !is_masked(dev, i))
            send(dev, i);
}

void pci_msix_claim(struct device *dev)
{
    struct msix *msix = dev->pci->msix;
    if (!msix || msix->claimed)
        return;
    msix->claimed = true;
    /* All at once: the first message commits their routes together. */
    for (unsigned i = 0; i < msix->vectors && pci_msix_enabled(dev); i++)
        if (!is_masked(dev, i))
            prepare_line(dev, i);
}

void pci_msix_release(struct device *dev)
{
    struct msix *msix = dev->pci->msix;
    if (!msix || !msix->claimed)
        return;
    msix->claimed = false;
    for (unsigned i = 0; i < msix->vectors; i++) {
        if (msix->lines[i] >= 0)
            dev->board->ops->line_close(dev->board->opaque, msix->lines[i]);
        msix->lines[i] = LINE_NONE;
    }
}

/* --- the BAR -------------------------------------------------------------------------------- */

static uint32_t read_dword(const struct msix *msix, unsigned offset)
{
    if (offset < msix->vectors * 16)
        return msix->regs.table[offset / 4];
    if (offset >= PBA_OFFSET && offset < PBA_OFFSET + MSIX_VECTORS / 8)
        return (uint32_t)(msix->regs.pending[(offset - PBA_OFFSET) / 8] >> offset % 8 * 8);
    return 0;
}

static uint64_t msix_read(struct device *dev, uint64_t offset, unsigned width)
{
    const struct msix *msix = dev->pci->msix;
    uint64_t value = read_dword(msix, (unsigned)offset);
    return width == 8 ? value | (uint64_t)read_dword(msix, (unsigned)offset + 4) << 32 : value;
}

static void write_dword(struct device *dev, unsigned offset, uint32_t value)
{
    struct msix *msix = dev->pci->msix;
    if (offset >= msix->vectors * 16)
        return;
    unsigned vector = offset / 16, member = offset / 4 % 4;
    msix->regs.table[offset / 4] = member == ENTRY_CONTROL ? value & ENTRY_MASKED : value;
    if (member != ENTRY_CONTROL)
        set_bit(msix->stale, vector, true);
    else if (pci_msix_enabled(dev) && bit(msix->regs.pending, vector) && !is_masked(dev, vector))
        send(dev, vector);
}

static void msix_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    write_dword(dev, (unsigned)offset, (uint32_t)value);
    if (width == 8)
        write_dword(dev, (unsigned)offset + 4, (uint32_t)(value >> 32));
    if (dev->pci->class->msix_written)
        dev->pci->class->msix_written(dev);
}

const struct region msix_region = {
    REGION_BAR, 0, MSIX_BAR_SIZE, W32 | W64, msix_read, msix_write
};

/* --- life ----------------------------------------------------------------------------------- */

void pci_msix_vectors(struct device *dev, unsigned vectors)
{
    struct msix *msix = dev->pci->msix;
    msix->vectors = MIN(vectors, MSIX_VECTORS);
    msix->capability = pci_capability(dev, CAPABILITY_MSIX, CAPABILITY_SIZE);
    pci_put(dev, msix->capability + CONTROL, 2, msix->vectors - 1);
    pci_put(dev, msix->capability + TABLE, 4, dev->pci->class->msix_bar);
    pci_put(dev, msix->capability + PBA, 4, PBA_OFFSET | dev->pci->class->msix_bar);
    pci_allow(dev, msix->capability + CONTROL + 1, (CONTROL_ENABLE | CONTROL_MASK_ALL) >> 8);
}

void msix_reset(struct device *dev)
{
    struct msix *msix = dev->pci->msix;
    pci_msix_release(dev);
    memset(&msix->regs, 0, sizeof msix->regs);
    for (unsigned i = 0; i < MSIX_VECTORS; i++) {
        msix->lines[i] = LINE_NONE;
        entry(msix, i)[ENTRY_CONTROL] = ENTRY_MASKED;
    }
}
