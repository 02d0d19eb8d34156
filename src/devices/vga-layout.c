/* What a VGA's registers say of its picture: where each dot comes from, and its colours. See
 * vga-draw.h for the manual, and for how it is drawn vga-draw.c.
 *
 * IBM PS/2 Hardware Interface Technical Reference, Video Subsystem (1991), "Video Graphics Array";
 * Bochs' VBE display interface (iodev/display/vbe.h). Picture sizes are those that a monitor gets:
 * dots of a halved dot clock and doubled lines appear twice, so mode 13h is 640 x 400. */
#include "vga-draw.h"

#include <glib.h>
#include <string.h>

enum {
    SR01_8_DOTS = 0x01,
    SR01_HALF_CLOCK = 0x08,
    SR01_SCREEN_OFF = 0x20,
    SR04_CHAIN4 = 0x08,
    GR06_GRAPHICS = 0x01,
    AR10_SPLIT_STILL = 0x20,
    AR10_8BIT = 0x40,
    AR10_P54 = 0x80,
    AR_INDEX_SOURCE = 0x20, /* the palette feeds the screen */
    CR09_DOUBLE = 0x80,
    CR14_DOUBLE_WORD = 0x40,
    SMALLEST = 64, /* of a side of a picture that a monitor would show */
};

G_STATIC_ASSERT(sizeof(struct vga_layout) == sizeof(uint64_t) + 24 * sizeof(uint32_t));

unsigned vga_lines_shown(const struct vga_regs *regs)
{
    return (regs->cr[0x12] | (regs->cr[7] & 0x02) << 7 | (regs->cr[7] & 0x40) << 3) + 1u;
}

static unsigned line_compare(const struct vga_regs *regs)
{
    return regs->cr[0x18] | (regs->cr[7] & 0x10u) << 4 | (regs->cr[9] & 0x40u) << 3;
}

uint32_t vga_start_address(const struct vga_regs *regs)
{
    return (uint32_t)regs->cr[0x0c] << 8 | regs->cr[0x0d];
}

uint32_t vga_virtual_width(const struct vga_regs *regs)
{
    return MAX(regs->dispi[DISPI_VIRT_WIDTH], regs->dispi[DISPI_XRES]);
}

static uint32_t pixel_bytes(const struct vga_regs *regs)
{
    return MAX(regs->dispi[DISPI_BPP] + 7u, 8u) / 8;
}

uint64_t vga_stride(const struct vga_regs *regs)
{
    uint64_t width = vga_virtual_width(regs);
    return vga_is_linear(regs) ? width * pixel_bytes(regs) : width / 8;
}

static void dispi_layout(const struct vga_regs *regs, uint64_t size, struct vga_layout *layout)
{
    uint32_t x = regs->dispi[DISPI_X_OFFSET], y = regs->dispi[DISPI_Y_OFFSET];
    layout->width = CLAMP(regs->dispi[DISPI_XRES], 1, SCREEN_MAX_WIDTH);
    layout->height = CLAMP(regs->dispi[DISPI_YRES], 1, SCREEN_MAX_HEIGHT);
    layout->stride = (uint32_t)vga_stride(regs);
    layout->split = UINT32_MAX;
    if (vga_is_linear(regs)) {
        layout->kind = VGA_LINEAR;
        layout->depth = regs->dispi[DISPI_BPP];
        layout->pixel = pixel_bytes(regs);
        layout->start = (uint64_t)y * layout->stride + (uint64_t)x * pixel_bytes(regs);
        layout->big_endian = regs->big_endian;
        return;
    }
    layout->kind = VGA_PLANAR;
    layout->start = (uint64_t)y * layout->stride + x / 8;
    layout->pan = x % 8;
    layout->columns = (layout->width + 7) / 8;
    layout->cell = 8;
    layout->dot = layout->row_lines = layout->line_repeat = 1;
    layout->plane_mask = (uint32_t)(size / 4 - 1);
    layout->addressing = CR17_ROW0_FOR_A13 | CR17_ROW1_FOR_A14 | CR17_BYTES;
}

/* AR13 (pel panning): in nine dots wide text, 8 is no shift and n one of n + 1 dots. */
static uint32_t panning(const struct vga_regs *regs, uint32_t cell)
{
    uint32_t pan = regs->ar[0x13] & 0x0f;
    if (cell == 9)
        return pan >= 8 ? 0 : pan + 1;
    return pan & 7;
}

/* SR03: 8 KiB maps, the even ones first. */
static uint32_t font_address(unsigned map)
{
    return (map & 3) << 14 | (map & 4) << 11;
}

static void text_layout(const struct vga_regs *regs, struct vga_layout *layout)
{
    uint8_t maps = regs->sr[3];
    layout->kind = VGA_TEXT;
    layout->fonts = font_address((maps & 3) | (maps & 0x10) >> 2) |
                    font_address((maps >> 2 & 3) | (maps & 0x20) >> 3) << 16;
    layout->attributes = (regs->ar[0x10] & (AR10_MONO | AR10_LINE_GRAPHICS | AR10_BLINK)) |
                         (regs->cr[0x14] & 0x1fu) << 8;
}

static void planar_layout(const struct vga_regs *regs, struct vga_layout *layout)
{
    layout->kind = VGA_PLANAR;
    layout->start = vga_start_address(regs);
    layout->shift = (regs->gr[5] & (GR05_INTERLEAVED | GR05_256)) |
                    (regs->ar[0x10] & AR10_8BIT ? SHIFT_8BIT : 0);
}

static void crtc_layout(const struct vga_regs *regs, struct vga_layout *layout)
{
    bool text = !(regs->gr[6] & GR06_GRAPHICS);
    layout->cell = text && !(regs->sr[1] & SR01_8_DOTS) ? 9 : 8;
    layout->dot = regs->sr[1] & SR01_HALF_CLOCK ? 2 : 1;
    uint32_t step = layout->cell * layout->dot;
    layout->width = MIN((regs->cr[1] + 1u) * step, (uint32_t)SCREEN_MAX_WIDTH);
    layout->height = vga_lines_shown(regs);
    layout->columns = (layout->width + step - 1) / step;
    layout->stride = regs->cr[0x13] * 2u;
    layout->row_lines = (regs->cr[9] & 0x1fu) + 1;
    layout->line_repeat = regs->cr[9] & CR09_DOUBLE ? 2 : 1;
    layout->preset_row = MIN(regs->cr[8] & 0x1fu, layout->row_lines - 1);
    layout->split = line_compare(regs) + 1;
    layout->pan = panning(regs, layout->cell);
    layout->pan_bytes = regs->cr[8] >> 5 & 3;
    if (!(regs->ar[0x10] & AR10_SPLIT_STILL)) {
        layout->split_pan = layout->pan;
        layout->split_pan_bytes = layout->pan_bytes;
    }
    layout->plane_mask = VGA_PLANES_SIZE / 4 - 1;
    layout->addressing = regs->cr[0x17] |
                         (regs->cr[0x14] & CR14_DOUBLE_WORD ? ADDRESS_DOUBLE_WORD : 0) |
                         (regs->sr[4] & SR04_CHAIN4 ? ADDRESS_CHAIN4 : 0);
    if (text)
        text_layout(regs, layout);
    else
        planar_layout(regs, layout);
}

void vga_layout(const struct vga_regs *regs, uint64_t memory_size, struct vga_layout *layout)
{
    memset(layout, 0, sizeof *layout);
    bool dispi = vga_dispi_on(regs);
    if (dispi)
        dispi_layout(regs, memory_size, layout);
    else
        crtc_layout(regs, layout);
    bool tiny = !dispi && (layout->width < SMALLEST || layout->height < SMALLEST);
    if (tiny || regs->sr[1] & SR01_SCREEN_OFF || !(regs->ar_index & AR_INDEX_SOURCE)) {
        *layout = (struct vga_layout){ .kind = VGA_BLANK,
                                       .width = tiny ? 640 : layout->width,
                                       .height = tiny ? 480 : layout->height };
    }
}

void vga_palette(const struct vga_regs *regs, struct vga_palette *palette)
{
    bool wide = regs->dispi[DISPI_ENABLE] & DISPI_8BIT_DAC;
    for (unsigned i = 0; i < 256; i++) {
        const uint8_t *dac = &regs->dac[(i & regs->pel_mask) * 3];
        uint32_t color = 0;
        for (unsigned part = 0; part < 3; part++) {
            uint8_t v = dac[part];
            color = color << 8 | ((wide ? v : v << 2 | (v >> 4 & 3)) & 0xffu);
        }
        palette->color[i] = color;
    }
    for (unsigned i = 0; i < 16; i++) {
        uint8_t index = regs->ar[i & regs->ar[0x12] & 0x0f] & 0x3f;
        if (regs->ar[0x10] & AR10_P54)
            index = (uint8_t)((index & 0x0f) | (regs->ar[0x14] & 3) << 4);
        palette->attribute[i] = palette->color[index | (regs->ar[0x14] & 0x0c) << 4];
    }
}
