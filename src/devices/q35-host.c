/* The host bridge of a Q35 PC: configuration cycles, the PAM shadow of the BIOS area, SMRAM.
 *
 * Manual: Intel 3 Series Express Chipset Family datasheet (316966), chapter 5, "DRAM Controller
 * Registers (D0:F0)", and chapter 3, "System Address Map"; PCI 3.0 section 3.2.2.3.2
 * (mechanism #1) and PCIe Base 4.0 section 7.2.2 (ECAM).
 *
 * Locks: CONFIG_ADDRESS, CONFIG_DATA and ECAM run without this device's lock, for the cycle they
 * make takes the lock of the function it is for, which may be this one. All else is under the lock
 * as usual. The device must start before ich9-lpc, whose reset port 0xCF9 lies inside 0xCF8's
 * dword: mapped later, it takes the byte accesses, and the dword ones begin at 0xCF8.
 *
 * Not offered: SMM (SMRAM and TSEG are registers only), MCHBAR, DMIBAR and PXPEPBAR (they read as
 * disabled), the 15 MiB hole, and the "remap" registers, which keep their defaults. */
#include "base/error.h"
#include "bus/pci.h"

#include <stdlib.h>
#include <string.h>

enum { PORT_ADDRESS = 0xcf8, PORT_DATA = 0xcfc };
#define ADDRESS_ENABLE   UINT32_C(0x80000000)
#define ADDRESS_WRITABLE UINT32_C(0x80fffffc)

/* Registers (sections 5.1.x), where they differ from zero at reset or can be written. */
enum {
    GGC = 0x52,
    DEVEN = 0x54,
    PCIEXBAR = 0x60,
    PAM = 0x90,
    REMAPBASE = 0x98,
    SMRAM = 0x9d,
    ESMRAMC = 0x9e,
    TOM = 0xa0,
    TOLUD = 0xb0,
    SKPD = 0xdc, /* scratch */
};
enum { PCIEXBAR_ENABLE = 1, PCIEXBAR_LENGTH = 6 };
enum { SMRAM_OPEN = 0x40, SMRAM_CLOSED = 0x20, SMRAM_LOCK = 0x10, SMRAM_ENABLE = 0x08 };
enum { ESMRAMC_SETTINGS = 0x87, ESMRAMC_ERROR = 0x40 };

/* The BIOS area: twelve segments of 16 KiB, two to a register PAM1-6, and the upper 64 KiB. */
enum {
    AREA = 0xc0000,
    AREA_SIZE = 0x40000,
    SEGMENT = 0x4000,
    TOP_SEGMENT = 0x30000, /* 0xF0000, from AREA */
    SEGMENTS = 13,
    ROM_START = 0x20000, /* 0xE0000, from AREA: here begins what the flash answers */
    ROM_SIZE = 0x20000,
};
enum { PAM_READ = 1, PAM_WRITE = 2 }; /* to DRAM; else to the bus */

struct q35_regs {
    uint32_t address; /* CONFIG_ADDRESS; no lock, atomic */
};

struct q35 {
    struct device dev;
    struct q35_regs regs;
    GBytes *rom_blob;
    uint8_t *rom;      /* its last 128 KiB, page-aligned; NULL: none */
    uint8_t *rom_copy; /* where they had to be copied for that */
    uint8_t *ram;      /* behind the area */
    unsigned slots[SEGMENTS];
    struct view {
        uint64_t size; /* 0: nothing */
        void *host;
        unsigned flags;
    } shown[SEGMENTS];
    const struct region *ecam; /* as shown; NULL: not */
    uint64_t ecam_base;
    bool shadowing; /* the region that takes writes of write-only segments is shown */
};

static const struct field q35_fields[] = {
    SAVED(struct q35_regs, address),
    SAVED_END,
};

static struct q35 *q35_of(struct device *dev)
{
    return (struct q35 *)dev;
}

/* --- configuration cycles, without the device's lock ---------------------------------------- */

static uint64_t address_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)offset, (void)width;
    return __atomic_load_n(&q35_of(dev)->regs.address, __ATOMIC_RELAXED);
}

static void address_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    (void)offset, (void)width;
    __atomic_store_n(&q35_of(dev)->regs.address, (uint32_t)value & ADDRESS_WRITABLE,
                     __ATOMIC_RELAXED);
}

/* Which function and register CONFIG_ADDRESS selects; false when none of bus 0. */
static bool selected(struct device *dev, unsigned *devfn, unsigned *reg)
{
    uint32_t address = __atomic_load_n(&q35_of(dev)->regs.address, __ATOMIC_RELAXED);
    *devfn = address >> 8 & 0xff;
    *reg = address & 0xfc;
    return address & ADDRESS_ENABLE && (address >> 16 & 0xff) == 0;
}

static uint64_t data_read(struct device *dev, uint64_t offset, unsigned width)
{
    unsigned devfn, reg;
    if (!selected(dev, &devfn, &reg))
        return UINT64_MAX;
    return pci_config_read(dev->board->pci, devfn, reg + (unsigned)offset, width);
}

static void data_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    unsigned devfn, reg;
    if (selected(dev, &devfn, &reg))
        pci_config_write(dev->board->pci, devfn, reg + (unsigned)offset, width, (uint32_t)value);
}

/* ECAM: bus in bits 27:20, device and function in 19:12, register in 11:0. */
static uint64_t ecam_read(struct device *dev, uint64_t offset, unsigned width)
{
    if (offset >> 20)
        return UINT64_MAX;
    return pci_config_read(dev->board->pci, offset >> 12 & 0xff, offset & 0xfff, width);
}

static void ecam_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    if (!(offset >> 20))
        pci_config_write(dev->board->pci, offset >> 12 & 0xff, offset & 0xfff, width,
                         (uint32_t)value);
}

static const struct region address_region = {
    REGION_PORTS, 0, 4, W32, address_read, address_write
};
static const struct region data_region = {
    REGION_PORTS, 0, 4, W8 | W16 | W32, data_read, data_write
};
/* By the length field of PCIEXBAR: 256, 128, 64 MiB. */
static const struct region ecam_regions[] = {
    { REGION_MMIO, 0, 256 * MIB, W8 | W16 | W32, ecam_read, ecam_write },
    { REGION_MMIO, 0, 128 * MIB, W8 | W16 | W32, ecam_read, ecam_write },
    { REGION_MMIO, 0, 64 * MIB, W8 | W16 | W32, ecam_read, ecam_write },
};

static void ecam_update(struct q35 *q35)
{
    struct device *dev = &q35->dev;
    uint32_t low = pci_get(dev, PCIEXBAR, 4);
    unsigned length = (low & PCIEXBAR_LENGTH) >> 1;
    const struct region *wanted = NULL;
    if (low & PCIEXBAR_ENABLE && length < G_N_ELEMENTS(ecam_regions)) /* 3 is reserved */
        wanted = &ecam_regions[length];
    /* The address bits below the window's size are part of the mask: they read as zero. */
    uint32_t base_mask = ~(uint32_t)((256 * MIB >> MIN(length, 2)) - 1);
    low &= base_mask | PCIEXBAR_ENABLE | PCIEXBAR_LENGTH;
    pci_put(dev, PCIEXBAR, 4, low);
    uint64_t base = (low & base_mask) | (uint64_t)pci_get(dev, PCIEXBAR + 4, 4) << 32;
    if (wanted == q35->ecam && (!wanted || base == q35->ecam_base))
        return;
    if (q35->ecam)
        bus_unmap(dev->board->bus, dev, q35->ecam);
    if (wanted && !bus_map(dev->board->bus, dev, NULL, wanted, SPACE_MMIO, base))
        wanted = NULL;
    q35->ecam = wanted;
    q35->ecam_base = base;
}

/* --- the BIOS area -------------------------------------------------------------------------- */

/* PAM0 holds the top segment, in its high half; PAM1-6 two segments each. */
static unsigned segment_mode(const struct q35 *q35, unsigned segment)
{
    unsigned reg = segment == SEGMENTS - 1 ? 0 : 1 + segment / 2;
    unsigned shift = segment == SEGMENTS - 1 || segment & 1 ? 4 : 0;
    return pci_get(&q35->dev, PAM + reg, 1) >> shift & (PAM_READ | PAM_WRITE);
}

/* What the guest reads from a segment. A segment that reads from the bus but writes to DRAM is
 * shown as if read-only; its writes come to shadow_write. */
static struct view segment_view(const struct q35 *q35, unsigned segment)
{
    unsigned start = segment * SEGMENT, mode = segment_mode(q35, segment);
    struct view view = { .size = segment == SEGMENTS - 1 ? AREA_SIZE - TOP_SEGMENT : SEGMENT };
    if (mode & PAM_READ) {
        view.host = q35->ram + start;
        view.flags = mode & PAM_WRITE ? 0 : SLOT_READONLY;
    } else if (q35->rom && start >= ROM_START) {
        view.host = q35->rom + (start - ROM_START);
        view.flags = SLOT_READONLY;
    } else {
        view.size = 0;
    }
    return view;
}

static bool view_equal(const struct view *a, const struct view *b)
{
    return a->size == b->size && (!a->size || (a->host == b->host && a->flags == b->flags));
}

/* Segments of one register that look the same share a slot. Joining more would save slots, but cost
 * changes of slots, which are dear: firmware sets register after register. */
static void views_wanted(const struct q35 *q35, struct view views[SEGMENTS])
{
    for (unsigned i = 0; i < SEGMENTS; i++)
        views[i] = segment_view(q35, i);
    for (unsigned i = 0; i + 1 < SEGMENTS; i += 2) {
        const struct view *a = &views[i], *b = &views[i + 1];
        if (!a->size || !b->size || a->flags != b->flags ||
            (uint8_t *)a->host + a->size != (uint8_t *)b->host)
            continue;
        views[i].size += b->size;
        views[i + 1].size = 0;
    }
}

/* Writes to segments that read from the bus but write to DRAM. That memory has no slot while it is
 * so, and nothing else can reach it. */
static void shadow_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct q35 *q35 = q35_of(dev);
    unsigned segment = offset < TOP_SEGMENT ? (unsigned)offset / SEGMENT : SEGMENTS - 1;
    if (segment_mode(q35, segment) == PAM_WRITE)
        memcpy(q35->ram + offset, &value, width);
}

static const struct region shadow_region = { REGION_MMIO,          0,    AREA_SIZE,
                                             W8 | W16 | W32 | W64, NULL, shadow_write };

static void area_update(struct q35 *q35)
{
    struct device *dev = &q35->dev;
    struct view wanted[SEGMENTS];
    views_wanted(q35, wanted);
    /* First away with what changes, so that nothing overlaps when the rest is put. */
    for (unsigned i = 0; i < SEGMENTS; i++)
        if (q35->shown[i].size && !view_equal(&q35->shown[i], &wanted[i])) {
            guest_slot_set(dev->board->guest, q35->slots[i], GPA(0), 0, NULL, 0);
            q35->shown[i].size = 0;
        }
    bool write_only = false;
    for (unsigned i = 0; i < SEGMENTS; i++) {
        write_only |= segment_mode(q35, i) == PAM_WRITE;
        if (view_equal(&q35->shown[i], &wanted[i]))
            continue;
        if (guest_slot_set(dev->board->guest, q35->slots[i], GPA(AREA + i * SEGMENT),
                           wanted[i].size, wanted[i].host, wanted[i].flags))
            q35->shown[i] = wanted[i];
        else
            guest_bug(dev, "the segment at %#x cannot be shown", AREA + i * SEGMENT);
    }
    if (write_only && !q35->shadowing)
        q35->shadowing =
            bus_map(dev->board->bus, dev, &dev->lock, &shadow_region, SPACE_MMIO, AREA);
    else if (!write_only && q35->shadowing) {
        bus_unmap(dev->board->bus, dev, &shadow_region);
        q35->shadowing = false;
    }
}

/* --- configuration registers ---------------------------------------------------------------- */

/* Section 5.1: SMRAM's lock bit makes itself, D_OPEN, and the settings of both registers read-only
 * until reset, and closes D_OPEN. */
static void smram_update(struct device *dev)
{
    uint32_t smram = pci_get(dev, SMRAM, 1);
    bool locked = smram & SMRAM_LOCK;
    if (locked)
        pci_put(dev, SMRAM, 1, smram & ~(uint32_t)SMRAM_OPEN);
    dev->pci->mask[SMRAM] =
        locked ? SMRAM_CLOSED : SMRAM_OPEN | SMRAM_CLOSED | SMRAM_LOCK | SMRAM_ENABLE;
    dev->pci->mask[ESMRAMC] = locked ? 0 : ESMRAMC_SETTINGS;
}

static void update(struct q35 *q35)
{
    smram_update(&q35->dev);
    ecam_update(q35);
    area_update(q35);
}

static void config_written(struct device *dev, unsigned offset, unsigned length)
{
    (void)length;
    if (offset >= PCIEXBAR && offset < PCI_HEADER_SIZE)
        update(q35_of(dev));
}

/* Reset values; with `fixed`, of the bits that software cannot change. */
static void put_defaults(struct device *dev, bool fixed)
{
    static const struct {
        uint8_t offset, width;
        uint32_t value;
    } defaults[] = {
        { PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER },
        { GGC, 2, 0x0030 },
        { DEVEN, 4, 0x000023db },
        { PCIEXBAR, 4, 0xe0000000 },
        { REMAPBASE, 2, 0x03ff },
        { SMRAM, 1, 0x02 },
        { ESMRAMC, 1, 0x38 },
        { TOM, 2, 0x0001 },
        { TOLUD, 2, 0x0010 },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(defaults); i++)
        for (unsigned b = 0; b < defaults[i].width; b++) {
            unsigned at = defaults[i].offset + b;
            uint8_t keep = fixed ? dev->pci->mask[at] | dev->pci->clear[at] : 0;
            uint8_t value = (uint8_t)(defaults[i].value >> b * 8);
            pci_put(dev, at, 1, (pci_get(dev, at, 1) & keep) | (value & ~(uint32_t)keep));
        }
}

/* --- life ----------------------------------------------------------------------------------- */

/* The end of the firmware is shown as it lies there when it fills the area, page by page; a smaller
 * one, or one at an odd address, is shown by a copy. */
static bool place_rom(struct q35 *q35, GError **error)
{
    gsize length = 0;
    const uint8_t *data = q35->rom_blob ? g_bytes_get_data(q35->rom_blob, &length) : NULL;
    if (!data)
        return true;
    if (length >= ROM_SIZE && (uintptr_t)(data + length) % 4096 == 0) {
        q35->rom = (uint8_t *)(uintptr_t)(data + length - ROM_SIZE);
        return true;
    }
    q35->rom_copy = aligned_alloc(4096, ROM_SIZE);
    if (!q35->rom_copy)
        return hv_fail(error, HV_HOST, "%s: no memory for the firmware", q35->dev.name);
    gsize part = MIN(length, ROM_SIZE);
    memset(q35->rom_copy, 0xff, ROM_SIZE - part);
    memcpy(q35->rom_copy + ROM_SIZE - part, data + length - part, part);
    q35->rom = q35->rom_copy;
    return true;
}

static bool init(struct device *dev, GError **error)
{
    struct q35 *q35 = q35_of(dev);
    q35->ram = guest_ram_host(dev->board->guest, GPA(AREA), AREA_SIZE); /* RAM is 1 MiB or more */
    if (!place_rom(q35, error))
        return false;
    for (unsigned i = 0; i < SEGMENTS; i++)
        q35->slots[i] = guest_slot_new(dev->board->guest);
    /* A host bridge always decodes memory and masters the bus (section 5.1.3). */
    dev->pci->mask[PCI_COMMAND] &= 0x40;
    dev->pci->mask[PCI_COMMAND + 1] &= 0x01;
    dev->pci->clear[ESMRAMC] = ESMRAMC_ERROR;
    smram_update(dev);
    return bus_map(dev->board->bus, dev, NULL, &address_region, SPACE_PORTS, PORT_ADDRESS) &&
           bus_map(dev->board->bus, dev, NULL, &data_region, SPACE_PORTS, PORT_DATA);
}

static void reset(struct device *dev)
{
    put_defaults(dev, false);
    __atomic_store_n(&q35_of(dev)->regs.address, 0, __ATOMIC_RELAXED);
    update(q35_of(dev));
}

static void loaded(struct device *dev)
{
    put_defaults(dev, true);
    update(q35_of(dev));
}

static void finish(struct device *dev)
{
    struct q35 *q35 = q35_of(dev);
    bus_unmap(dev->board->bus, dev, &address_region);
    bus_unmap(dev->board->bus, dev, &data_region);
    bus_unmap(dev->board->bus, dev, &shadow_region);
    if (q35->ecam)
        bus_unmap(dev->board->bus, dev, q35->ecam);
    for (unsigned i = 0; i < SEGMENTS; i++)
        if (q35->shown[i].size)
            guest_slot_set(dev->board->guest, q35->slots[i], GPA(0), 0, NULL, 0);
    free(q35->rom_copy);
}

static const struct pci_mask q35_writable[] = {
    { PCIEXBAR, PCIEXBAR_ENABLE | PCIEXBAR_LENGTH },
    { PCIEXBAR + 3, 0xfc },
    { PCIEXBAR + 4, 0x0f },
    { PAM + 0, 0x30 },
    { PAM + 1, 0x33 },
    { PAM + 2, 0x33 },
    { PAM + 3, 0x33 },
    { PAM + 4, 0x33 },
    { PAM + 5, 0x33 },
    { PAM + 6, 0x33 },
    { SKPD + 0, 0xff },
    { SKPD + 1, 0xff },
    { SKPD + 2, 0xff },
    { SKPD + 3, 0xff },
    { .mask = 0 },
};

const struct device_class q35_host_class = {
    .name = "q35-host",
    .help = "82G33 host bridge: PCI configuration, BIOS shadow",
    .size = sizeof(struct q35),
    .plugs =
        (const struct plug[]){
            { "rom", PLUG_BLOB, offsetof(struct q35, rom_blob) },
            { .name = NULL },
        },
    .state = STATE(struct q35, regs, 1, q35_fields),
    .pci =
        &(const struct pci_class){
            .vendor = 0x8086,
            .device = 0x29c0,
            .class_code = 0x060000,
            .revision = 2,
            .writable = q35_writable,
            .config_written = config_written,
        },
    .init = init,
    .reset = reset,
    .loaded = loaded,
    .finish = finish,
};
