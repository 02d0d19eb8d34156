/* PCI functions and bus 0; see pci.h.
 *
 * Every byte of configuration space has a write mask; what no mask allows is read-only, so that a
 * driver's write never reaches host state unchecked. */
#include "bus/pci.h"

#include "base/error.h"
#include "bus/msix.h"

#include <stdlib.h>
#include <string.h>

struct pci_bus {
    struct device *functions[PCI_SLOTS * 8];
};

/* MSI capability with a 64-bit address, no masking (PCI 3.0 section 6.8.1). */
enum {
    MSI_CONTROL = 2,
    MSI_ADDRESS = 4,
    MSI_DATA = 12,
    MSI_SIZE = 14,
    MSI_ENABLE = 1,
    MSI_64BIT = 0x80,
};
enum { CAPABILITY_MSI = 0x05, STATUS_CAPABILITIES = 0x10, ROM_ENABLE = 1, FIRST_CAPABILITY = 0x40 };

static const struct field pci_fields[] = {
    SAVED_ARRAY(struct pci_regs, config),
    SAVED_END,
};
const struct state pci_state = STATE(struct pci_function, regs, 1, pci_fields);

struct pci_bus *pci_bus_new(void)
{
    return g_new0(struct pci_bus, 1);
}

void pci_bus_free(struct pci_bus *bus)
{
    g_free(bus);
}

struct device *pci_device(struct pci_bus *bus, unsigned devfn)
{
    return devfn < G_N_ELEMENTS(bus->functions) ? bus->functions[devfn] : NULL;
}

/* --- fields --------------------------------------------------------------------------------- */

uint32_t pci_get(const struct device *dev, unsigned offset, unsigned width)
{
    uint32_t value = 0;
    memcpy(&value, &dev->pci->regs.config[offset], width);
    return value;
}

void pci_put(struct device *dev, unsigned offset, unsigned width, uint32_t value)
{
    memcpy(&dev->pci->regs.config[offset], &value, width);
}

void pci_allow(struct device *dev, unsigned offset, uint8_t mask)
{
    dev->pci->mask[offset] |= mask;
}

static void allow(struct pci_function *pci, unsigned offset, unsigned width, uint64_t mask)
{
    memcpy(&pci->mask[offset], &mask, width);
}

/* --- BARs ----------------------------------------------------------------------------------- */

static unsigned bar_offset(unsigned bar)
{
    return bar == PCI_ROM ? (unsigned)PCI_ROM_BAR : (unsigned)PCI_BAR + 4 * bar;
}

static enum bar_kind bar_kind(const struct pci_function *pci, unsigned bar)
{
    return bar == PCI_ROM ? BAR_MEMORY32 : pci->class->bars[bar];
}

static bool is_wide(enum bar_kind kind)
{
    return kind == BAR_MEMORY64 || kind == BAR_PREFETCH64;
}

/* The read-only low bits (PCI 3.0 section 6.2.5.1). */
static uint32_t bar_type(const struct pci_function *pci, unsigned bar)
{
    static const uint32_t bits[] = {
        [BAR_PORTS] = 1,      [BAR_MEMORY32] = 0,     [BAR_MEMORY64] = 4,
        [BAR_PREFETCH32] = 8, [BAR_PREFETCH64] = 0xc,
    };
    return bits[bar_kind(pci, bar)];
}

/* Lets software write the address bits of a BAR whose size is known now. */
static void bar_size(struct pci_function *pci, unsigned bar, uint64_t size)
{
    uint64_t mask = ~(size - 1);
    pci->bars[bar].size = size;
    allow(pci, bar_offset(bar), is_wide(bar_kind(pci, bar)) ? 8 : 4, mask);
    if (bar == PCI_ROM)
        pci->mask[PCI_ROM_BAR] |= ROM_ENABLE;
    pci_put(pci->dev, bar_offset(bar), 4, bar_type(pci, bar));
}

void pci_bar_memory(struct device *dev, unsigned bar, void *host, uint64_t size, unsigned flags)
{
    struct pci_function *pci = dev->pci;
    bar_size(pci, bar, size);
    pci->bars[bar].host = host;
    pci->bars[bar].slot_flags = flags;
    pci->bars[bar].slot = guest_slot_new(dev->board->guest);
}

/* Where the BAR decodes now; false when it does not. */
static bool bar_decodes(const struct pci_function *pci, unsigned bar, uint64_t *address)
{
    const struct device *dev = pci->dev;
    enum bar_kind kind = bar_kind(pci, bar);
    uint32_t command = pci_get(dev, PCI_COMMAND, 2);
    if (!(command & (kind == BAR_PORTS ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
        return false;
    if (bar == PCI_ROM && !(pci_get(dev, PCI_ROM_BAR, 4) & ROM_ENABLE))
        return false;
    uint64_t base = pci_get(dev, bar_offset(bar), 4);
    if (is_wide(kind))
        base |= (uint64_t)pci_get(dev, bar_offset(bar) + 4, 4) << 32;
    base &= ~(pci->bars[bar].size - 1);
    if (kind == BAR_PORTS)
        base &= 0xffff;
    *address = base;
    /* 0 is what an unassigned BAR holds; the top is what sizing leaves for a moment. */
    return base != 0 && base + pci->bars[bar].size > base &&
           (kind == BAR_PORTS || is_wide(kind) || base + pci->bars[bar].size <= 4 * GIB - 4096);
}

bool pci_bar_address(const struct device *dev, unsigned bar, uint64_t *address)
{
    return dev->pci->bars[bar].size && bar_decodes(dev->pci, bar, address);
}

static void bar_hide(struct pci_function *pci, struct bar *bar)
{
    if (!bar->shown)
        return;
    if (bar->host)
        guest_slot_set(pci->dev->board->guest, bar->slot, GPA(0), 0, NULL, 0);
    else
        bus_unmap(pci->dev->board->bus, pci->dev, bar->region);
    bar->shown = false;
}

/* Shows each BAR where the registers say, and nowhere else. */
static void bars_update(struct pci_function *pci)
{
    struct device *dev = pci->dev;
    for (unsigned i = 0; i < PCI_BARS; i++) {
        struct bar *bar = &pci->bars[i];
        uint64_t address = 0;
        bool decodes = bar->size && bar_decodes(pci, i, &address);
        if (bar->shown && (!decodes || bar->shown_at != address))
            bar_hide(pci, bar);
        if (!decodes || bar->shown)
            continue;
        if (bar->host)
            bar->shown = guest_slot_set(dev->board->guest, bar->slot, GPA(address), bar->size,
                                        bar->host, bar->slot_flags);
        else if (bar->region)
            bar->shown = bus_map(dev->board->bus, dev, &dev->lock, bar->region,
                                 bar_kind(pci, i) == BAR_PORTS ? SPACE_PORTS : SPACE_MMIO, address);
        bar->shown_at = address;
    }
}

bool pci_option_rom(struct device *dev, GBytes *rom, GError **error)
{
    gsize length = 0;
    const uint8_t *data = rom ? g_bytes_get_data(rom, &length) : NULL;
    if (!length)
        return true;
    if (length < 3 || data[0] != 0x55 || data[1] != 0xaa || length > 16 * MIB)
        return hv_fail(error, HV_FAILED, "%s: not an option ROM (no 55 AA at its start)",
                       dev->name);
    uint64_t size = 4096;
    while (size < length)
        size *= 2;
    if (size == length && (uintptr_t)data % 4096 == 0) {
        dev->pci->rom = g_bytes_ref(rom);
    } else {
        uint8_t *copy = aligned_alloc(4096, size);
        if (!copy)
            return hv_fail(error, HV_HOST, "%s: no memory for the option ROM", dev->name);
        memcpy(copy, data, length);
        memset(copy + length, 0xff, size - length);
        dev->pci->rom = g_bytes_new_with_free_func(copy, size, free, copy);
    }
    void *host = (void *)(uintptr_t)g_bytes_get_data(dev->pci->rom, NULL);
    pci_bar_memory(dev, PCI_ROM, host, size, SLOT_READONLY);
    return true;
}

/* --- interrupts and DMA --------------------------------------------------------------------- */

static unsigned msi(const struct device *dev)
{
    return dev->pci->class->msi_offset;
}

bool pci_msi_enabled(const struct device *dev)
{
    return msi(dev) && pci_get(dev, msi(dev) + MSI_CONTROL, 2) & MSI_ENABLE;
}

bool pci_master(const struct device *dev)
{
    return pci_get(dev, PCI_COMMAND, 2) & PCI_COMMAND_MASTER;
}

static void intx_update(struct pci_function *pci)
{
    uint8_t *status = &pci->regs.config[PCI_STATUS];
    *status = (uint8_t)((*status & ~PCI_STATUS_INTX) | (pci->level ? PCI_STATUS_INTX : 0));
    bool masked = pci_get(pci->dev, PCI_COMMAND, 2) & PCI_COMMAND_NO_INTX;
    irq_set(pci->intx,
            pci->level && !masked && !pci_msi_enabled(pci->dev) && !pci_msix_enabled(pci->dev));
}

static void msi_send(struct device *dev)
{
    uint64_t address = pci_get(dev, msi(dev) + MSI_ADDRESS, 4) |
                       (uint64_t)pci_get(dev, msi(dev) + MSI_ADDRESS + 4, 4) << 32;
    if (pci_master(dev))
        dev->board->ops->send_msi(dev->board->opaque, address,
                                  pci_get(dev, msi(dev) + MSI_DATA, 2));
}

void pci_interrupt(struct device *dev, bool level)
{
    struct pci_function *pci = dev->pci;
    bool rises = level && !pci->level;
    pci->level = level;
    if (rises && pci_msi_enabled(dev))
        msi_send(dev);
    intx_update(pci);
}

bool pci_read(struct device *dev, gpa from, void *to, size_t length)
{
    return pci_master(dev) && guest_read(dev->board->guest, from, to, length);
}

bool pci_write(struct device *dev, gpa to, const void *from, size_t length)
{
    return pci_master(dev) && guest_write(dev->board->guest, to, from, length);
}

/* --- configuration cycles ------------------------------------------------------------------- */

uint32_t pci_config_read(struct pci_bus *bus, unsigned devfn, unsigned offset, unsigned width)
{
    struct device *dev = pci_device(bus, devfn);
    uint32_t value = UINT32_MAX;
    if (!dev || offset + width > PCI_CONFIG_SIZE)
        return value;
    if (offset + width > PCI_HEADER_SIZE)
        return 0;
    device_lock(dev);
    if (dev->pci->class->config_read)
        dev->pci->class->config_read(dev, offset, width);
    value = pci_get(dev, offset, width);
    device_unlock(dev);
    return value;
}

static void config_write(struct pci_function *pci, unsigned offset, unsigned width, uint32_t value)
{
    struct device *dev = pci->dev;
    for (unsigned i = 0; i < width; i++) {
        uint8_t byte = (uint8_t)(value >> i * 8), *at = &pci->regs.config[offset + i];
        uint8_t mask = pci->mask[offset + i];
        *at = (uint8_t)((*at & ~mask) | (byte & mask));
        *at &= (uint8_t) ~(byte & pci->clear[offset + i]);
    }
    bars_update(pci);
    intx_update(pci);
    msix_update(dev);
    if (pci->class->config_written)
        pci->class->config_written(dev, offset, width);
}

void pci_config_write(struct pci_bus *bus, unsigned devfn, unsigned offset, unsigned width,
                      uint32_t value)
{
    struct device *dev = pci_device(bus, devfn);
    if (!dev || offset + width > PCI_HEADER_SIZE)
        return;
    device_lock(dev);
    config_write(dev->pci, offset, width, value);
    device_unlock(dev);
}

/* --- life ----------------------------------------------------------------------------------- */

void pci_place(struct device *dev, unsigned devfn, struct irq *intx)
{
    struct pci_function *pci = g_new0(struct pci_function, 1);
    pci->dev = dev;
    pci->class = dev->class->pci;
    pci->devfn = devfn;
    pci->intx = intx;
    dev->pci = pci;
}

static void write_identity(struct device *dev)
{
    const struct pci_class *class = dev->pci->class;
    pci_put(dev, PCI_VENDOR, 2, class->vendor);
    pci_put(dev, PCI_DEVICE, 2, class->device);
    pci_put(dev, PCI_REVISION, 1, class->revision);
    pci_put(dev, PCI_CLASS, 3, class->class_code);
    pci_put(dev, PCI_HEADER_TYPE, 1, class->multifunction ? 0x80 : 0);
    pci_put(dev, PCI_SUBSYSTEM, 2, class->subsystem_vendor);
    pci_put(dev, PCI_SUBSYSTEM + 2, 2, class->subsystem);
    pci_put(dev, PCI_INTERRUPT_PIN, 1, class->interrupt_pin);
    for (unsigned bar = 0; bar < PCI_BARS; bar++)
        if (dev->pci->bars[bar].size)
            pci_put(dev, bar_offset(bar), 4, bar_type(dev->pci, bar));
    if (class->msi_offset) {
        dev->pci->free = class->msi_offset;
        pci_put(dev, pci_capability(dev, CAPABILITY_MSI, MSI_SIZE) + MSI_CONTROL, 2, MSI_64BIT);
    }
}

static void write_masks(struct pci_function *pci)
{
    const struct pci_class *class = pci->class;
    allow(pci, PCI_COMMAND, 2,
          PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | 0x140 | PCI_COMMAND_NO_INTX);
    pci->clear[PCI_STATUS + 1] = 0xf9; /* the error bits */
    allow(pci, 0x0c, 1, 0xff);         /* cache line size: read-write for old software */
    allow(pci, PCI_INTERRUPT_LINE, 1, 0xff);
    if (class->msi_offset) {
        allow(pci, class->msi_offset + MSI_CONTROL, 1, MSI_ENABLE);
        allow(pci, class->msi_offset + MSI_ADDRESS, 8, ~UINT64_C(3));
        allow(pci, class->msi_offset + MSI_DATA, 2, 0xffff);
    }
    for (const struct pci_mask *m = class->writable; m && m->mask; m++)
        pci->mask[m->offset] |= m->mask;
}

unsigned pci_capability(struct device *dev, uint8_t id, unsigned length)
{
    struct pci_function *pci = dev->pci;
    unsigned offset = pci->free, link = pci->capability ? pci->capability + 1 : PCI_CAPABILITIES;
    g_assert(offset + length <= PCI_HEADER_SIZE); /* classes are ours */
    pci_put(dev, offset, 1, id);
    pci_put(dev, link, 1, offset);
    pci_put(dev, PCI_STATUS, 1, STATUS_CAPABILITIES);
    pci->capability = offset;
    pci->free = (offset + length + 3) & ~3u;
    return offset;
}

void pci_start(struct device *dev)
{
    struct pci_function *pci = dev->pci;
    pci->free = FIRST_CAPABILITY;
    write_identity(dev);
    write_masks(pci);
    if (pci->class->msix_bar) {
        pci->msix = g_new0(struct msix, 1);
        pci->bars[pci->class->msix_bar].region = &msix_region;
        bar_size(pci, pci->class->msix_bar, MSIX_BAR_SIZE);
    }
    for (const struct region *r = dev->class->regions; r && r->kind != REGION_END; r++)
        if (r->kind == REGION_BAR) {
            pci->bars[r->base].region = r;
            bar_size(pci, (unsigned)r->base, r->size);
        }
    dev->board->pci->functions[pci->devfn] = dev;
}

void pci_started(struct device *dev)
{
    memcpy(dev->pci->fresh, dev->pci->regs.config, sizeof dev->pci->fresh);
}

/* As after power-up. */
static void write_fresh(struct pci_function *pci)
{
    memset(&pci->regs, 0, sizeof pci->regs);
    memcpy(pci->regs.config, pci->fresh, sizeof pci->fresh);
}

void pci_reset(struct device *dev)
{
    dev->pci->level = false;
    if (dev->pci->msix)
        msix_reset(dev);
    write_fresh(dev->pci);
    bars_update(dev->pci);
    intx_update(dev->pci);
}

void pci_loaded(struct device *dev)
{
    struct pci_function *pci = dev->pci;
    g_autofree struct pci_regs *loaded = g_new(struct pci_regs, 1);
    *loaded = pci->regs;
    write_fresh(pci); /* a hostile file sets no bit that software could not */
    for (unsigned i = 0; i < PCI_HEADER_SIZE; i++) {
        uint8_t settable = pci->mask[i] | pci->clear[i];
        pci->regs.config[i] =
            (uint8_t)((pci->regs.config[i] & ~settable) | (loaded->config[i] & settable));
    }
    bars_update(pci);
    intx_update(pci);
}

void pci_save(struct device *dev, GByteArray *out)
{
    state_save(&pci_state, dev->pci, out);
    if (dev->pci->msix)
        state_save(&msix_state, dev->pci->msix, out);
}

bool pci_load(struct device *dev, const uint8_t **in, size_t *length, GError **error)
{
    if (!state_load(&pci_state, dev->pci, in, length, error))
        return false;
    return !dev->pci->msix || state_load(&msix_state, dev->pci->msix, in, length, error);
}

void pci_finish(struct device *dev)
{
    struct pci_function *pci = dev->pci;
    for (unsigned i = 0; i < PCI_BARS; i++)
        bar_hide(pci, &pci->bars[i]);
    pci_msix_release(dev);
    g_free(pci->msix);
    g_clear_pointer(&pci->rom, g_bytes_unref);
    dev->board->pci->functions[pci->devfn] = NULL;
    g_free(pci);
}
