/* The VGA's registers and what they make of video memory: pictures, text, and what a processor's
 * access does to the planes. Pure functions without locks or devices; vga.c owns the registers and
 * calls them. */
#pragma once
#include "bus/screen.h"

enum { VGA_PAGE = 4096, VGA_PLANES_SIZE = 256 << 10, VGA_EDID_SIZE = 128 };

/* Bochs display interface ("dispi"), by index. */
enum vga_dispi {
    DISPI_ID,
    DISPI_XRES,
    DISPI_YRES,
    DISPI_BPP,
    DISPI_ENABLE,
    DISPI_BANK,
    DISPI_VIRT_WIDTH,
    DISPI_VIRT_HEIGHT, /* computed */
    DISPI_X_OFFSET,
    DISPI_Y_OFFSET,
    DISPI_MEMORY_64K, /* computed */
    DISPI_COUNT,
};
enum {
    DISPI_ENABLED = 0x01,
    DISPI_GETCAPS = 0x02,
    DISPI_8BIT_DAC = 0x20,
    DISPI_LFB = 0x40,
    DISPI_NOCLEARMEM = 0x80,
};

/* The registers by their names in the IBM manual: CRxx, SRxx, GRxx, ARxx. Saved. */
enum { VGA_CR = 0x19, VGA_SR = 5, VGA_GR = 9, VGA_AR = 0x15, VGA_DAC = 256 * 3 };
struct vga_regs {
    uint32_t latch; /* plane 0 in the low byte, as in video memory */
    uint16_t dispi[DISPI_COUNT];
    uint16_t dispi_index;
    uint8_t dac[VGA_DAC]; /* as written: 6 or 8 bits */
    uint8_t cr[VGA_CR], sr[VGA_SR], gr[VGA_GR], ar[VGA_AR];
    uint8_t cr_index, sr_index, gr_index;
    uint8_t ar_index; /* with the palette address source, bit 5 */
    uint8_t misc, feature, pel_mask;
    uint8_t dac_write_index, dac_read_index;
    uint8_t dac_write_part, dac_read_part; /* 0 to 2: red, green, blue */
    uint8_t dac_held[2];                   /* red and green wait for blue */
    bool dac_reading;                      /* the state that port 0x3c7 reads */
    bool ar_data;                          /* the flip-flop: 0x3c0 takes data next */
    bool enabled;                          /* port 0x3c3 */
    bool big_endian;                       /* of pixels of 15 bits and more */
    uint8_t pad[3];
};

enum vga_kind { VGA_BLANK, VGA_TEXT, VGA_PLANAR, VGA_LINEAR };

/* All that decides which byte of video memory becomes which dot; compared to find out whether the
 * picture must be drawn anew. No padding. */
struct vga_layout {
    uint64_t start; /* VGA_LINEAR: the first byte; VGA_PLANAR: counter value */
    uint32_t kind;  /* enum vga_kind */
    uint32_t width, height;
    uint32_t stride;       /* VGA_LINEAR: bytes; else steps of the address counter, for each row */
    uint32_t depth, pixel; /* VGA_LINEAR: bits of a pixel, and the bytes it takes */
    uint32_t big_endian;
    uint32_t columns;     /* character clocks in a line */
    uint32_t cell;        /* dots in a character clock: 8 or 9 */
    uint32_t dot;         /* pixels for each dot: 1, or 2 with the halved dot clock */
    uint32_t row_lines;   /* row scans of a row (CR09 + 1) */
    uint32_t line_repeat; /* 2: double scan */
    uint32_t preset_row;
    uint32_t split;          /* the line on which addresses begin at 0 again */
    uint32_t pan, split_pan; /* dots */
    uint32_t pan_bytes, split_pan_bytes;
    uint32_t plane_mask; /* of plane addresses */
    uint32_t addressing; /* CR17, CR14 bit 6 and chain-4: which bits form the address */
    uint32_t shift;      /* GR05 bits 5-6, AR10 bit 6 */
    uint32_t fonts;      /* SR03: plane 2 addresses of both fonts, 16 bits each */
    uint32_t pad;
    uint32_t attributes; /* AR10: blink, mono, line graphics; CR14: underline */
};

/* Bits of registers that vga_layout's members keep, by the manual's places. */
enum {
    GR05_INTERLEAVED = 0x20,
    GR05_256 = 0x40,
    AR10_MONO = 0x02,
    AR10_LINE_GRAPHICS = 0x04,
    AR10_BLINK = 0x08,
    CR17_ROW0_FOR_A13 = 0x01, /* both are active low */
    CR17_ROW1_FOR_A14 = 0x02,
    CR17_A15_FOR_A0 = 0x20,
    CR17_BYTES = 0x40,
    /* vga_layout.addressing: CR17, and above it */
    ADDRESS_DOUBLE_WORD = 0x100,
    ADDRESS_CHAIN4 = 0x200,
    /* vga_layout.shift: GR05, and above it */
    SHIFT_8BIT = 0x100,
};

struct vga_palette {
    uint32_t color[256];    /* by DAC index, after the PEL mask */
    uint32_t attribute[16]; /* by the four bits of planar pixels and text */
};

/* What the picture shows now; host state of whoever has the picture. */
struct vga_view {
    struct vga_layout layout;
    struct vga_palette palette;
    uint32_t *cells; /* VGA_CELLS of them, as drawn last */
};
enum { VGA_CELL_COLUMNS = 257, VGA_CELL_ROWS = 1026, VGA_CELLS = VGA_CELL_COLUMNS * VGA_CELL_ROWS };

struct vga_memory {
    uint8_t *bytes;
    uint64_t size; /* a power of two, at least VGA_PLANES_SIZE */
};

static inline bool vga_dispi_on(const struct vga_regs *regs)
{
    return regs->dispi[DISPI_ENABLE] & DISPI_ENABLED;
}
/* Dispi modes with packed pixels: the legacy window shows a 64 KiB bank of linear memory. */
static inline bool vga_is_linear(const struct vga_regs *regs)
{
    return vga_dispi_on(regs) && regs->dispi[DISPI_BPP] != 4;
}
/* --- vga-registers.c: the register ports ---------------------------------------------------------
 */

/* Ports 0x3b0 to 0x3df, a byte each; `now` in nanoseconds says where the beam is. */
uint8_t vga_port_read(struct vga_regs *regs, unsigned port, uint64_t now);
void vga_port_write(struct vga_regs *regs, unsigned port, uint8_t value);

/* --- vga-layout.c: what the registers say of the picture -----------------------------------------
 */

/* The width of a row in pixels, and bytes of one, in a linear mode. */
uint32_t vga_virtual_width(const struct vga_regs *regs);
uint64_t vga_stride(const struct vga_regs *regs);
/* Displayed lines of a frame (CR12 with its high bits), and where in the planes it begins (CR0C).
 */
unsigned vga_lines_shown(const struct vga_regs *regs);
uint32_t vga_start_address(const struct vga_regs *regs);
void vga_layout(const struct vga_regs *regs, uint64_t memory_size, struct vga_layout *layout);
void vga_palette(const struct vga_regs *regs, struct vga_palette *palette);

/* --- vga-draw.c: the picture --------------------------------------------------------------------
 */

/* Brings the picture up to date: all of it with `whole` or when layout or colours changed, else the
 * character cells that differ, or the lines with a page in `dirty` (a bit for each VGA_PAGE). As
 * screen_class.render. */
bool vga_draw(struct vga_view *view, const struct vga_regs *regs, struct vga_memory memory,
              const uint64_t *dirty, bool whole, struct picture *picture,
              struct rectangle *changed);

void vga_read_text(const struct vga_regs *regs, struct vga_memory memory, struct screen_text *text);

/* --- vga-planes.c: the processor's path to video memory --------------------------------------- */

/* A byte of the legacy window, at an address within the part that GR06 maps. Reading fills the
 * latches. Writing returns where in video memory something changed. Not for linear modes. */
uint8_t vga_plane_read(struct vga_regs *regs, struct vga_memory memory, uint32_t address);
uint64_t vga_plane_write(const struct vga_regs *regs, struct vga_memory memory, uint32_t address,
                         uint8_t byte);
/* Would a write now change a font? */
bool vga_font_selected(const struct vga_regs *regs);

/* --- vga-edid.c ------------------------------------------------------------------------------- */

/* EDID 1.4 of a monitor that likes this mode best (at most 4095 x 2160). */
void vga_edid(uint8_t edid[VGA_EDID_SIZE], unsigned width, unsigned height);
