/* VGA: PCI function 1234:1111, the one that Bochs and QEMU ("-vga std") made known to firmware,
 * boot loaders and drivers.
 *
 * Bochs' VBE display interface ("dispi", iodev/display/vbe.h) for modes beyond VGA's; QEMU
 * docs/specs/standard-vga for BAR 2. VGA's own registers are in vga-registers.c, the planes in
 * vga-planes.c, the picture in vga-layout.c and vga-draw.c.
 *
 * Video memory holds the four planes interleaved, plane address * 4 + plane, in its first 256 KiB.
 * Chain-4 processor addresses go there unchanged, so that mode 13h and the 8-bit dispi modes are
 * linear in BAR 0 as well (a real VGA leaves gaps). Content of video memory is no device state: the
 * machine saves it with RAM, as the slot of BAR 0. There is no vertical interrupt, as on other PCI
 * VGAs. */
#include "base/error.h"
#include "bus/pci.h"
#include "vga-draw.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

enum { BAR_VRAM, BAR_MMIO = 2 };
enum { PORTS_MONO = 0x3b0, PORTS = 0x3c0, WINDOW = 0xa0000, WINDOW_SIZE = 0x20000, BANK = 0x10000 };
/* BAR 2 (QEMU docs/specs/standard-vga). */
enum {
    MMIO_EDID = 0,
    MMIO_PORTS = 0x400,
    MMIO_DISPI = 0x500,
    MMIO_QEMU = 0x600,
    MMIO_QEMU_SIZE = 8,
    PORTS_COUNT = 0x20,
};
static const uint32_t big_endian_word = 0xbebebebe, little_endian_word = 0x1e1e1e1e;
enum { MISC_RAM = 0x02 }; /* the processor sees video memory */
enum { DISPI_ID0 = 0xb0c0, DISPI_ID5 = 0xb0c5 };

struct vga {
    struct device dev;
    struct screen *screen;
    GBytes *rom;
    uint64_t vram_size, width, height; /* options */
    uint8_t *vram;
    uint8_t edid[VGA_EDID_SIZE];
    struct vga_view view;
    bool touched;             /* by an access, since the last look */
    bool redraw;              /* something that no comparison finds: fonts, a moved BAR */
    uint64_t *dirty, *logged; /* by page: written here, and what the slot's log says */
    struct vga_regs regs;
};

static const struct field vga_fields[] = {
    SAVED(struct vga_regs, latch),
    SAVED_ARRAY(struct vga_regs, dispi),
    SAVED(struct vga_regs, dispi_index),
    SAVED_ARRAY(struct vga_regs, dac),
    SAVED_ARRAY(struct vga_regs, cr),
    SAVED_ARRAY(struct vga_regs, sr),
    SAVED_ARRAY(struct vga_regs, gr),
    SAVED_ARRAY(struct vga_regs, ar),
    SAVED(struct vga_regs, cr_index),
    SAVED(struct vga_regs, sr_index),
    SAVED(struct vga_regs, gr_index),
    SAVED(struct vga_regs, ar_index),
    SAVED(struct vga_regs, misc),
    SAVED(struct vga_regs, feature),
    SAVED(struct vga_regs, pel_mask),
    SAVED(struct vga_regs, dac_write_index),
    SAVED(struct vga_regs, dac_read_index),
    SAVED_MAX(struct vga_regs, dac_write_part, 2),
    SAVED_MAX(struct vga_regs, dac_read_part, 2),
    SAVED_ARRAY(struct vga_regs, dac_held),
    SAVED(struct vga_regs, dac_reading),
    SAVED(struct vga_regs, ar_data),
    SAVED(struct vga_regs, enabled),
    SAVED(struct vga_regs, big_endian),
    SAVED_PAD(struct vga_regs, pad),
    SAVED_END,
};

/* --- the legacy window ---------------------------------------------------------------------- */

static struct vga_memory memory(const struct vga *vga)
{
    return (struct vga_memory){ vga->vram, vga->vram_size };
}

/* What shows may have changed. */
static void touch(struct vga *vga)
{
    vga->touched = true;
    screen_changed(vga->screen);
}

static void mark_dirty(struct vga *vga, uint64_t offset)
{
    uint64_t page = offset / VGA_PAGE;
    vga->dirty[page / 64] |= UINT64_C(1) << page % 64;
}

/* GR06 bits 2-3: which part of the 128 KiB window answers. */
static bool in_map(const struct vga_regs *regs, uint64_t offset, uint32_t *address)
{
    static const struct {
        uint32_t base, size;
    } maps[] = { { 0, 0x20000 }, { 0, 0x10000 }, { 0x10000, 0x8000 }, { 0x18000, 0x8000 } };
    uint32_t base = maps[regs->gr[6] >> 2 & 3].base, size = maps[regs->gr[6] >> 2 & 3].size;
    *address = (uint32_t)offset - base;
    return regs->enabled && regs->misc & MISC_RAM && *address < size;
}

/* The window in a linear dispi mode; NULL when nothing is there. */
static uint8_t *bank(struct vga *vga, uint64_t offset)
{
    uint64_t at = offset + (uint64_t)vga->regs.dispi[DISPI_BANK] * BANK;
    return offset < BANK && at < vga->vram_size ? vga->vram + at : NULL;
}

static uint64_t window_read(struct device *dev, uint64_t offset, unsigned width)
{
    struct vga *vga = (struct vga *)dev;
    uint64_t value = 0;
    uint32_t address;
    if (!in_map(&vga->regs, offset, &address))
        return UINT64_MAX;
    if (vga_is_linear(&vga->regs)) {
        const uint8_t *at = bank(vga, offset);
        if (!at)
            return UINT64_MAX;
        memcpy(&value, at, width);
        return value;
    }
    for (unsigned i = 0; i < width; i++)
        value |= (uint64_t)vga_plane_read(&vga->regs, memory(vga), address + i) << i * 8;
    return value;
}

static void window_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct vga *vga = (struct vga *)dev;
    uint32_t address;
    if (!in_map(&vga->regs, offset, &address))
        return;
    if (vga_is_linear(&vga->regs)) {
        uint8_t *at = bank(vga, offset);
        if (!at)
            return;
        memcpy(at, &value, width);
        mark_dirty(vga, (uint64_t)(at - vga->vram));
    } else {
        for (unsigned i = 0; i < width; i++)
            mark_dirty(vga, vga_plane_write(&vga->regs, memory(vga), address + i,
                                            (uint8_t)(value >> i * 8)));
        vga->redraw |= vga_font_selected(&vga->regs);
    }
    touch(vga);
}

/* --- dispi ---------------------------------------------------------------------------------- */

static uint16_t dispi_read_register(const struct vga *vga, unsigned index)
{
    const struct vga_regs *regs = &vga->regs;
    bool limits = regs->dispi[DISPI_ENABLE] & DISPI_GETCAPS;
    switch (index) {
    case DISPI_XRES:
        return limits ? SCREEN_MAX_WIDTH : regs->dispi[index];
    case DISPI_YRES:
        return limits ? SCREEN_MAX_HEIGHT : regs->dispi[index];
    case DISPI_BPP:
        return limits ? 32 : regs->dispi[index];
    case DISPI_VIRT_WIDTH:
        return (uint16_t)vga_virtual_width(regs);
    case DISPI_VIRT_HEIGHT: {
        uint64_t room = vga_is_linear(regs) ? vga->vram_size : vga->vram_size / 4;
        return (uint16_t)MIN(room / MAX(vga_stride(regs), 1), UINT16_MAX);
    }
    case DISPI_MEMORY_64K:
        return (uint16_t)(vga->vram_size / BANK);
    default:
        return index < DISPI_COUNT ? regs->dispi[index] : 0;
    }
}

/* Turning it on begins a mode: no panning, and a black screen unless asked not to. */
static void dispi_enable(struct vga *vga, uint16_t value)
{
    struct vga_regs *regs = &vga->regs;
    bool was_on = vga_dispi_on(regs);
    regs->dispi[DISPI_ENABLE] =
        value & (DISPI_ENABLED | DISPI_GETCAPS | DISPI_8BIT_DAC | DISPI_LFB | DISPI_NOCLEARMEM);
    if (!vga_dispi_on(regs) || was_on)
        return;
    regs->dispi[DISPI_BANK] = 0;
    regs->dispi[DISPI_VIRT_WIDTH] = regs->dispi[DISPI_XRES];
    regs->dispi[DISPI_X_OFFSET] = regs->dispi[DISPI_Y_OFFSET] = 0;
    if (value & DISPI_NOCLEARMEM)
        return;
    uint64_t size = vga_stride(regs) * regs->dispi[DISPI_YRES] * (vga_is_linear(regs) ? 1 : 4);
    memset(vga->vram, 0, MIN(size, vga->vram_size));
    vga->redraw = true;
}

static void dispi_write_register(struct vga *vga, unsigned index, uint16_t value)
{
    struct vga_regs *regs = &vga->regs;
    int limit = index == DISPI_XRES ? SCREEN_MAX_WIDTH : SCREEN_MAX_HEIGHT;
    if (index >= DISPI_COUNT)
        return;
    uint16_t *reg = &regs->dispi[index];
    switch (index) {
    case DISPI_ID:
        if (value >= DISPI_ID0 && value <= DISPI_ID5)
            *reg = value;
        break;
    case DISPI_XRES:
    case DISPI_YRES:
        if (value)
            *reg = (uint16_t)MIN(value, limit);
        break;
    case DISPI_BPP: /* 0 is 8: the first version of the interface had no other */
        if (value == 0 || value == 4 || value == 8 || value == 15 || value == 16 || value == 24 ||
            value == 32)
            *reg = value ? value : 8;
        break;
    case DISPI_ENABLE:
        dispi_enable(vga, value);
        break;
    case DISPI_BANK: /* drivers find the last bank by reading back */
        if (value < vga->vram_size / BANK / (vga_is_linear(regs) ? 1 : 4))
            *reg = value;
        break;
    case DISPI_VIRT_WIDTH:
    case DISPI_X_OFFSET:
    case DISPI_Y_OFFSET:
        *reg = value;
        break;
    default:
        break;
    }
    touch(vga);
}

static uint64_t dispi_index_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)offset, (void)width;
    return ((struct vga *)dev)->regs.dispi_index;
}

static void dispi_index_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    (void)offset, (void)width;
    ((struct vga *)dev)->regs.dispi_index = (uint16_t)value;
}

static uint64_t dispi_data_read(struct device *dev, uint64_t offset, unsigned width)
{
    const struct vga *vga = (struct vga *)dev;
    (void)offset, (void)width;
    return dispi_read_register(vga, vga->regs.dispi_index);
}

static void dispi_data_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct vga *vga = (struct vga *)dev;
    (void)offset, (void)width;
    dispi_write_register(vga, vga->regs.dispi_index, (uint16_t)value);
}

/* --- ports --------------------------------------------------------------------------------- */

/* A word goes to an index and its data at once. */
static uint64_t ports_read(struct vga *vga, unsigned port, unsigned width)
{
    uint64_t value = 0, now = device_now(&vga->dev);
    for (unsigned i = 0; i < width; i++)
        value |= (uint64_t)vga_port_read(&vga->regs, port + i, now) << i * 8;
    return value;
}

static void ports_write(struct vga *vga, unsigned port, unsigned width, uint64_t value)
{
    for (unsigned i = 0; i < width; i++)
        vga_port_write(&vga->regs, port + i, (uint8_t)(value >> i * 8));
    touch(vga);
}

static uint64_t mono_read(struct device *dev, uint64_t offset, unsigned width)
{
    return ports_read((struct vga *)dev, (unsigned)(PORTS_MONO + offset), width);
}

static void mono_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    ports_write((struct vga *)dev, (unsigned)(PORTS_MONO + offset), width, value);
}

static uint64_t color_read(struct device *dev, uint64_t offset, unsigned width)
{
    return ports_read((struct vga *)dev, (unsigned)(PORTS + offset), width);
}

static void color_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    ports_write((struct vga *)dev, (unsigned)(PORTS + offset), width, value);
}

/* --- BAR 2 ---------------------------------------------------------------------------------- */

static uint64_t mmio_read(struct device *dev, uint64_t offset, unsigned width)
{
    struct vga *vga = (struct vga *)dev;
    uint64_t value = 0;
    if (offset < MMIO_PORTS) {
        if (offset < VGA_EDID_SIZE)
            memcpy(&value, vga->edid + offset, width);
    } else if (offset < MMIO_PORTS + PORTS_COUNT) {
        value = ports_read(vga, (unsigned)(PORTS + offset - MMIO_PORTS), width);
    } else if (offset >= MMIO_DISPI && offset < MMIO_DISPI + 2 * DISPI_COUNT) {
        unsigned index = (unsigned)(offset - MMIO_DISPI) / 2;
        value = dispi_read_register(vga, index);
        if (width == 4)
            value |= (uint64_t)dispi_read_register(vga, index + 1) << 16;
        value >>= offset % 2 * 8;
    } else if (offset >= MMIO_QEMU && offset < MMIO_QEMU + MMIO_QEMU_SIZE) {
        value = vga->regs.big_endian ? big_endian_word : little_endian_word;
        if (offset < MMIO_QEMU + 4)
            value = MMIO_QEMU_SIZE;
        value >>= offset % 4 * 8;
    }
    return value;
}

static void mmio_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct vga *vga = (struct vga *)dev;
    if (offset >= MMIO_PORTS && offset < MMIO_PORTS + PORTS_COUNT) {
        ports_write(vga, (unsigned)(PORTS + offset - MMIO_PORTS), width, value);
    } else if (offset >= MMIO_DISPI && offset < MMIO_DISPI + 2 * DISPI_COUNT && width > 1) {
        unsigned index = (unsigned)(offset - MMIO_DISPI) / 2;
        dispi_write_register(vga, index, (uint16_t)value);
        if (width == 4)
            dispi_write_register(vga, index + 1, (uint16_t)(value >> 16));
    } else if (offset == MMIO_QEMU + 4 && width == 4) {
        if (value == big_endian_word || value == little_endian_word)
            vga->regs.big_endian = value == big_endian_word;
        touch(vga);
    }
}

/* --- the screen ----------------------------------------------------------------------------- */

/* Collects in `dirty` what the guest wrote to BAR 0; false when that is nothing. */
static bool fetch_log(struct vga *vga)
{
    size_t words = vga->vram_size / VGA_PAGE / 64;
    memset(vga->logged, 0, words * sizeof *vga->logged);
    if (!guest_slot_dirty(vga->dev.board->guest, vga->dev.pci->bars[BAR_VRAM].slot, vga->logged))
        return false;
    /* Text is compared, fonts are not: they are in the first 256 KiB. */
    if (vga->view.layout.kind == VGA_TEXT)
        for (size_t i = 0; i < VGA_PLANES_SIZE / VGA_PAGE / 64; i++)
            vga->redraw |= vga->logged[i] != 0;
    for (size_t i = 0; i < words; i++)
        vga->dirty[i] |= vga->logged[i];
    return true;
}

static bool render(struct device *dev, struct picture *picture, struct rectangle *changed,
                   bool whole)
{
    struct vga *vga = (struct vga *)dev;
    bool logged = fetch_log(vga);
    whole = whole || vga->redraw || picture->width != vga->view.layout.width ||
            picture->height != vga->view.layout.height;
    if (!whole && !logged && !vga->touched)
        return false;
    bool any = vga_draw(&vga->view, &vga->regs, memory(vga), vga->dirty, whole, picture, changed);
    vga->redraw = vga->touched = false;
    memset(vga->dirty, 0, vga->vram_size / VGA_PAGE / 8);
    return any;
}

static void text(struct device *dev, struct screen_text *cells)
{
    struct vga *vga = (struct vga *)dev;
    vga_read_text(&vga->regs, memory(vga), cells);
}

/* --- life ----------------------------------------------------------------------------------- */

/* A BAR that moves takes the log of its slot along. */
static void config_written(struct device *dev, unsigned offset, unsigned length)
{
    (void)offset, (void)length;
    ((struct vga *)dev)->redraw = true;
}

static void loaded(struct device *dev)
{
    struct vga *vga = (struct vga *)dev;
    vga->redraw = true;
    touch(vga);
}

static void reset(struct device *dev)
{
    struct vga *vga = (struct vga *)dev;
    memset(&vga->regs, 0, sizeof vga->regs);
    vga->regs.enabled = true;
    vga->regs.pel_mask = 0xff;
    vga->regs.dispi[DISPI_ID] = DISPI_ID5;
    vga->regs.dispi[DISPI_BPP] = 8;
    loaded(dev);
}

static bool init(struct device *dev, GError **error)
{
    struct vga *vga = (struct vga *)dev;
    if (vga->vram_size & (vga->vram_size - 1))
        return hv_fail(error, HV_USAGE, "%s: vram=%" G_GUINT64_FORMAT "M: a power of two is wanted",
                       dev->name, vga->vram_size / MIB);
    void *vram = mmap(NULL, vga->vram_size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (vram == MAP_FAILED)
        return hv_fail(error, HV_HOST,
                       "%s: no memory for the screen: %s; ask for less with vram=", dev->name,
                       g_strerror(errno));
    vga->vram = vram;
    vga->dirty = g_new0(uint64_t, vga->vram_size / VGA_PAGE / 64);
    vga->logged = g_new0(uint64_t, vga->vram_size / VGA_PAGE / 64);
    vga->view.cells = g_new0(uint32_t, VGA_CELLS);
    vga_edid(vga->edid, (unsigned)vga->width, (unsigned)vga->height);
    pci_bar_memory(dev, BAR_VRAM, vga->vram, vga->vram_size, SLOT_LOG);
    return pci_option_rom(dev, vga->rom, error);
}

static void finish(struct device *dev)
{
    struct vga *vga = (struct vga *)dev;
    if (vga->vram)
        munmap(vga->vram, vga->vram_size);
    g_free(vga->dirty);
    g_free(vga->logged);
    g_free(vga->view.cells);
}

const struct device_class vga_class = {
    .name = "vga",
    .help = "VGA with Bochs modes (QEMU's std)",
    .size = sizeof(struct vga),
    .regions =
        (const struct region[]){
            { REGION_PORTS, PORTS_MONO, 12, W8 | W16, mono_read, mono_write },
            { REGION_PORTS, PORTS, PORTS_COUNT, W8 | W16, color_read, color_write },
            /* Two bytes each: where they overlap, the later one answers, so that every word port
             * is aligned in its region. */
            { REGION_PORTS, 0x1ce, 2, W16, dispi_index_read, dispi_index_write },
            { REGION_PORTS, 0x1cf, 2, W16, dispi_data_read, dispi_data_write },
            { REGION_PORTS, 0x1d0, 2, W16, dispi_data_read, dispi_data_write },
            { REGION_MMIO, WINDOW, WINDOW_SIZE, W8 | W16 | W32 | W64, window_read, window_write },
            { REGION_BAR, BAR_MMIO, 4096, W8 | W16 | W32, mmio_read, mmio_write },
            { .kind = REGION_END },
        },
    .options =
        (const struct option[]){
            { "vram", "video memory, a power of two", OPTION_SIZE, offsetof(struct vga, vram_size),
              "64M", 8 * MIB, 256 * MIB },
            { "width", "of the mode that the monitor likes best", OPTION_UINT,
              offsetof(struct vga, width), "1280", 640, 3840 },
            { "height", "of that mode", OPTION_UINT, offsetof(struct vga, height), "800", 480,
              SCREEN_MAX_HEIGHT },
            { .name = NULL },
        },
    .plugs =
        (const struct plug[]){
            { "screen", PLUG_SCREEN, offsetof(struct vga, screen) },
            { "rom", PLUG_BLOB, offsetof(struct vga, rom) },
            { .name = NULL },
        },
    .state = STATE(struct vga, regs, 1, vga_fields),
    .pci =
        &(const struct pci_class){
            .vendor = 0x1234,
            .device = 0x1111,
            .class_code = 0x030000,
            .revision = 2, /* has the registers at MMIO_QEMU */
            .subsystem_vendor = 0x1af4,
            .subsystem = 0x1100,
            .bars = { [BAR_VRAM] = BAR_PREFETCH32, [BAR_MMIO] = BAR_MEMORY32 },
            .config_written = config_written,
        },
    .screen = &(const struct screen_class){ render, text },
    .init = init,
    .reset = reset,
    .loaded = loaded,
    .finish = finish,
};
