/* PCI and the chipset as SeaBIOS would leave them (its src/fw/pciinit.c and src/hw/pic.c; PCI 3.0,
 * section 6.2.5 for the BARs): the ACPI tables describe that. */
#include "boot/assign.h"

#include "bus/pci.h"

#include <string.h>

/* The LPC bridge's and the host bridge's registers (ICH9 datasheet 13.1, 3 Series datasheet 5.1).
 */
enum {
    HOST = PCI_DEVFN(0, 0),
    HOST_PCIEXBAR = 0x60,
    HOST_PAM = 0x90,
    LPC = PCI_DEVFN(0x1f, 0),
    LPC_PMBASE = 0x40,
    LPC_ACPI_CNTL = 0x44,
    LPC_PIRQA_ROUT = 0x60,
    LPC_PIRQE_ROUT = 0x68,
    LPC_RCBA = 0xf0,
    ACPI_ENABLE = 0x80,
    PM_BASE = 0x600,
    ELCR = 0x4d0,
    PAM_BOTH_READ = 0x11, /* both halves: reads from DRAM, writes to nobody */
    PAM_HIGH_READ = 0x10,
};
#define RCBA_BASE UINT32_C(0xfed1c000)

/* The ISA lines that PIRQA to D, and E to H, are routed to. */
static const uint8_t pirq_lines[4] = { 10, 10, 11, 11 };

enum { DEVFNS = PCI_SLOTS * 8, LAST_ROTATED = 24, BARS_MAX = 256 };
enum { PORTS_FIRST = 0xc000, PORTS_END = 0x10000, BAR_IS_PORTS = 1, BAR_IS_64 = 4, ROM_ON = 1 };
enum { COMMAND_SERR = 0x100, HEADER_KIND = 0x7f };
#define IOAPIC_BASE UINT64_C(0xfec00000)
#define ECAM_SIZE   UINT64_C(0x10000000)

/* --- BARs ----------------------------------------------------------------------------------- */

struct bar_wish {
    unsigned devfn, offset;
    uint64_t size;
    bool wide;
};

struct window {
    uint64_t next, end;
};

struct assign {
    struct pci_bus *bus;
    struct bar_wish ports[BARS_MAX], narrow[BARS_MAX], wide[BARS_MAX];
    unsigned port_count, narrow_count, wide_count;
    struct window port_window, low, high;
};

static uint32_t read32(struct assign *a, unsigned devfn, unsigned offset)
{
    return pci_config_read(a->bus, devfn, offset, 4);
}

static void write32(struct assign *a, unsigned devfn, unsigned offset, uint32_t value)
{
    pci_config_write(a->bus, devfn, offset, 4, value);
}

/* Sizes a BAR as any firmware does: ones are written, and what sticks is the address. */
static struct bar_wish size_bar(struct assign *a, unsigned devfn, unsigned offset, bool *ports)
{
    bool rom = offset == PCI_ROM_BAR;
    struct bar_wish wish = { .devfn = devfn, .offset = offset };
    write32(a, devfn, offset, rom ? ~(uint32_t)ROM_ON : UINT32_MAX);
    uint32_t low = read32(a, devfn, offset);
    *ports = !rom && low & BAR_IS_PORTS;
    wish.wide = !rom && !*ports && low & BAR_IS_64;
    uint64_t mask = low & ~(rom ? UINT32_C(0x7ff) : *ports ? UINT32_C(3) : UINT32_C(0xf));
    if (*ports && mask)
        mask |= 0xffff0000;
    if (wish.wide) {
        write32(a, devfn, offset + 4, UINT32_MAX);
        mask |= (uint64_t)read32(a, devfn, offset + 4) << 32;
        write32(a, devfn, offset + 4, 0);
    } else if (mask) {
        mask |= UINT64_C(0xffffffff00000000);
    }
    write32(a, devfn, offset, 0);
    wish.size = mask ? ~mask + 1 : 0;
    return wish;
}

static void add_wish(struct bar_wish *list, unsigned *count, const struct bar_wish *wish)
{
    unsigned at = (*count)++;
    for (; at > 0 && list[at - 1].size < wish->size; at--) /* the largest first */
        list[at] = list[at - 1];
    list[at] = *wish;
}

static void collect(struct assign *a, unsigned devfn)
{
    static const uint8_t offsets[] = { 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, PCI_ROM_BAR };
    if (pci_config_read(a->bus, devfn, PCI_HEADER_TYPE, 1) & HEADER_KIND)
        return; /* a bridge */
    for (unsigned i = 0; i < G_N_ELEMENTS(offsets); i++) {
        bool ports;
        struct bar_wish wish = size_bar(a, devfn, offsets[i], &ports);
        if (wish.wide)
            i++;
        if (!wish.size)
            continue;
        if (ports && a->port_count < BARS_MAX)
            add_wish(a->ports, &a->port_count, &wish);
        else if (!ports && wish.wide && a->wide_count < BARS_MAX)
            add_wish(a->wide, &a->wide_count, &wish);
        else if (!ports && !wish.wide && a->narrow_count < BARS_MAX)
            add_wish(a->narrow, &a->narrow_count, &wish);
    }
}

static bool place(struct assign *a, const struct bar_wish *wish, struct window *window)
{
    uint64_t at = (window->next + wish->size - 1) & ~(wish->size - 1);
    if (at < window->next || at > window->end || wish->size > window->end - at)
        return false;
    window->next = at + wish->size;
    write32(a, wish->devfn, wish->offset, (uint32_t)at);
    if (wish->wide)
        write32(a, wish->devfn, wish->offset + 4, (uint32_t)(at >> 32));
    return true;
}

/* 32-bit BARs first; 64-bit ones take what is left below 4 GiB, where every system finds them, and
 * go above when that is full. What fits nowhere stays at 0, which decodes nothing. */
static void place_all(struct assign *a)
{
    for (unsigned i = 0; i < a->port_count; i++)
        place(a, &a->ports[i], &a->port_window);
    for (unsigned i = 0; i < a->narrow_count; i++)
        place(a, &a->narrow[i], &a->low);
    for (unsigned i = 0; i < a->wide_count; i++)
        if (!place(a, &a->wide[i], &a->low))
            place(a, &a->wide[i], &a->high);
}

/* --- functions and chipset ------------------------------------------------------------------ */

/* Slots up to 24 share PIRQE to H in turns, the others have A to D by pin. */
static uint8_t line_of(unsigned slot, unsigned pin)
{
    return pirq_lines[slot <= LAST_ROTATED ? (slot + pin - 1) % 4 : (pin - 1) % 4];
}

static void enable(struct assign *a, unsigned devfn)
{
    unsigned pin = pci_config_read(a->bus, devfn, PCI_INTERRUPT_PIN, 1);
    if (pin)
        pci_config_write(a->bus, devfn, PCI_INTERRUPT_LINE, 1, line_of(devfn >> 3, pin));
    uint32_t command = pci_config_read(a->bus, devfn, PCI_COMMAND, 2);
    command |= PCI_COMMAND_IO | PCI_COMMAND_MEMORY | COMMAND_SERR;
    pci_config_write(a->bus, devfn, PCI_COMMAND, 2, command);
}

enum { DMA_MASK = 0xd4, DMA_MODE = 0xd6, DMA_CASCADE = 0xc0 };

static void set_chipset(struct assign *a, struct bus *bus, struct bus_reader *reader, uint64_t ecam)
{
    uint8_t level[2] = { 0, 0 }, cascade = DMA_CASCADE, open = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(pirq_lines); i++) {
        pci_config_write(a->bus, LPC, LPC_PIRQA_ROUT + i, 1, pirq_lines[i]);
        pci_config_write(a->bus, LPC, LPC_PIRQE_ROUT + i, 1, pirq_lines[i]);
        level[pirq_lines[i] / 8] |= (uint8_t)(1U << pirq_lines[i] % 8);
    }
    bus_out(bus, reader, ELCR, &level[0], 1);
    bus_out(bus, reader, ELCR + 1, &level[1], 1);
    bus_out(bus, reader, DMA_MODE, &cascade, 1); /* channels 0 to 3 go through channel 4 */
    bus_out(bus, reader, DMA_MASK, &open, 1);
    write32(a, LPC, LPC_PMBASE, PM_BASE | 1);
    pci_config_write(a->bus, LPC, LPC_ACPI_CNTL, 1, ACPI_ENABLE);
    write32(a, LPC, LPC_RCBA, RCBA_BASE | 1);
    write32(a, HOST, HOST_PCIEXBAR + 4, (uint32_t)(ecam >> 32));
    write32(a, HOST, HOST_PCIEXBAR, (uint32_t)ecam | 1);
    /* 0xC0000 to 0xFFFFF, where systems look for tables and option ROMs byte by byte: from DRAM
     * that is no exit. */
    for (unsigned i = 1; i <= 6; i++)
        pci_config_write(a->bus, HOST, HOST_PAM + i, 1, PAM_BOTH_READ);
    pci_config_write(a->bus, HOST, HOST_PAM, 1, PAM_HIGH_READ);
}

/* --- the screen ----------------------------------------------------------------------------- */

/* Bochs' display interface: the registers that turn the linear frame buffer on. */
static void set_screen(struct assign *a, struct bus *bus, struct bus_reader *reader,
                       unsigned display, struct boot_screen *screen)
{
    enum { INDEX = 0x1ce, DATA = 0x1cf, XRES = 1, YRES, BPP, ENABLE, ON = 1, LFB = 0x40 };
    enum { WIDTH = 1024, HEIGHT = 768, FRAME_BAR = PCI_BAR };
    enum { VGA_ATTRIBUTE = 0x3c0, VGA_COLOUR = 0x3c2, VGA_STATUS = 0x3da, PALETTE_SOURCE = 0x20 };
    static const uint16_t registers[][2] = {
        { XRES, WIDTH }, { YRES, HEIGHT }, { BPP, 32 }, { ENABLE, ON | LFB }
    };
    *screen = (struct boot_screen){ .size = 0 };
    uint64_t base = read32(a, display, FRAME_BAR) & ~UINT32_C(0xf);
    if (!base || base == (UINT32_MAX & ~UINT32_C(0xf)))
        return;
    for (unsigned i = 0; i < G_N_ELEMENTS(registers); i++) {
        uint16_t index = registers[i][0], value = registers[i][1];
        bus_out(bus, reader, INDEX, &index, 2);
        bus_out(bus, reader, DATA, &value, 2);
    }
    /* Registers at 3Dx, as in colour modes; the screen is blank until the attribute controller has
     * its palette. */
    uint8_t colour = 0x67, status, source = PALETTE_SOURCE;
    bus_out(bus, reader, VGA_COLOUR, &colour, 1);
    bus_in(bus, reader, VGA_STATUS, &status, 1);
    bus_out(bus, reader, VGA_ATTRIBUTE, &source, 1);
    for (unsigned i = 0; i < a->narrow_count; i++)
        if (a->narrow[i].devfn == display && a->narrow[i].offset == FRAME_BAR)
            *screen = (struct boot_screen){ base, a->narrow[i].size, WIDTH, HEIGHT, WIDTH * 4 };
}

void boot_assign(struct board *board, struct bus_reader *reader, const struct boot_windows *windows,
                 unsigned display, struct boot_screen *screen)
{
    g_autofree struct assign *a = g_new0(struct assign, 1);
    a->bus = board->pci;
    a->port_window = (struct window){ PORTS_FIRST, PORTS_END };
    a->low = (struct window){ windows->ecam + ECAM_SIZE, IOAPIC_BASE };
    a->high = (struct window){ windows->pci64_base, windows->pci64_base + windows->pci64_size };
    bus_hold(board->bus);
    for (unsigned devfn = 0; devfn < DEVFNS; devfn++)
        if (pci_device(board->pci, devfn))
            collect(a, devfn);
    place_all(a);
    for (unsigned devfn = 0; devfn < DEVFNS; devfn++)
        if (pci_device(board->pci, devfn))
            enable(a, devfn);
    set_chipset(a, board->bus, reader, windows->ecam);
    bus_release(board->bus);
    if (screen)
        set_screen(a, board->bus, reader, display, screen);
}
