/* The VGA against its manuals: planes and write modes, text, graphics and dispi modes as pictures,
 * palette, status, EDID. With VGA_PICTURES=FOLDER in the environment, each picture that a test
 * looks at is written there as a PPM file. */
#include "rig/rig.h"

#include <stdio.h>
#include <string.h>

enum { WINDOW = 0xa0000, TEXT = 0xb8000, MISC = 0x3c2, SEQ = 0x3c4, GC = 0x3ce, CRTC = 0x3d4 };
enum { DISPI_INDEX = 0x1ce, DISPI_DATA = 0x1cf };
enum { XRES = 1, YRES, BPP, ENABLE, BANK, VIRT_WIDTH, VIRT_HEIGHT, X_OFFSET, Y_OFFSET, MEMORY };

static struct picture picture;
static struct rectangle changed;
static unsigned pictures;

/* --- helpers -------------------------------------------------------------------------------- */

static void set(struct rig *rig, unsigned port, unsigned index, unsigned value)
{
    rig_out(rig, port, 2, value << 8 | index);
}

static void attribute(struct rig *rig, unsigned index, unsigned value)
{
    rig_in(rig, 0x3da, 1);
    rig_out(rig, 0x3c0, 1, index);
    rig_out(rig, 0x3c0, 1, value);
    rig_out(rig, 0x3c0, 1, 0x20);
}

/* The parameters of IBM's video BIOS for the modes used here. */
static const struct mode {
    uint8_t misc, sr[4], cr[25], gr[9], ar[20];
} text_mode = {
    0x67,
    { 0x00, 0x03, 0x00, 0x02 },
    { 0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00,
      0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff },
    { 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff },
    { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x0c, 0x00, 0x0f, 0x08 },
}, planar_mode = {
    0xe3,
    { 0x01, 0x0f, 0x00, 0x06 },
    { 0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0x00, 0x40, 0x00, 0x00, 0x00,
      0x00, 0x00, 0x00, 0xea, 0x8c, 0xdf, 0x28, 0x00, 0xe7, 0x04, 0xe3, 0xff },
    { 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x0f, 0xff },
    { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x01, 0x00, 0x0f, 0x00 },
}, mode_13h = {
    0x63,
    { 0x01, 0x0f, 0x00, 0x0e },
    { 0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0x41, 0x00, 0x00, 0x00,
      0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff },
    { 0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x05, 0x0f, 0xff },
    { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x41, 0x00, 0x0f, 0x00 },
}, cga_mode = {
    0x63,
    { 0x09, 0x03, 0x00, 0x02 },
    { 0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0x00, 0x00, 0x00,
      0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x14, 0x00, 0x96, 0xb9, 0xa2, 0xff },
    { 0x00, 0x00, 0x00, 0x00, 0x00, 0x30, 0x0f, 0x0f, 0xff },
    { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x01, 0x00, 0x03, 0x00 },
};

/* DAC entry i is 4 * i in the three colours' 6 bits: easy to tell apart. */
static uint32_t gray(unsigned i)
{
    uint32_t six = i * 4 & 0x3f;
    return (six << 2 | six >> 4) * 0x010101;
}

static void set_mode(struct rig *rig, const struct mode *mode)
{
    rig_out(rig, MISC, 1, mode->misc);
    set(rig, SEQ, 0, 1);
    for (unsigned i = 0; i < 4; i++)
        set(rig, SEQ, i + 1, mode->sr[i]);
    set(rig, SEQ, 0, 3);
    set(rig, CRTC, 0x11, 0);
    for (unsigned i = 0; i < 25; i++)
        set(rig, CRTC, i, mode->cr[i]);
    for (unsigned i = 0; i < 9; i++)
        set(rig, GC, i, mode->gr[i]);
    for (unsigned i = 0; i < 20; i++)
        attribute(rig, i, mode->ar[i]);
    rig_out(rig, 0x3c8, 1, 0);
    for (unsigned i = 0; i < 256 * 3; i++)
        rig_out(rig, 0x3c9, 1, i / 3 * 4);
}

static void write_picture(void)
{
    const char *folder = g_getenv("VGA_PICTURES");
    if (!folder)
        return;
    g_autofree char *path = g_strdup_printf("%s/vga-%02u.ppm", folder, pictures++);
    FILE *file = fopen(path, "wb");
    g_assert_nonnull(file);
    fprintf(file, "P6 %u %u 255\n", picture.width, picture.height);
    for (uint32_t i = 0; i < picture.width * picture.height; i++) {
        uint32_t p = picture.pixels[i];
        const uint8_t rgb[3] = { (uint8_t)(p >> 16), (uint8_t)(p >> 8), (uint8_t)p };
        fwrite(rgb, 1, 3, file);
    }
    fclose(file);
}

static bool look(struct rig *rig, bool whole)
{
    g_mutex_lock(&rig->dev->lock);
    bool any = rig->dev->class->screen->render(rig->dev, &picture, &changed, whole);
    g_mutex_unlock(&rig->dev->lock);
    write_picture();
    return any;
}

static uint32_t pixel(uint32_t x, uint32_t y)
{
    g_assert_cmpuint(x, <, picture.width);
    g_assert_cmpuint(y, <, picture.height);
    return picture.pixels[y * picture.width + x];
}

static void assert_changed(uint32_t x, uint32_t y, uint32_t width, uint32_t height)
{
    g_assert_cmpuint(changed.x, ==, x);
    g_assert_cmpuint(changed.y, ==, y);
    g_assert_cmpuint(changed.width, ==, width);
    g_assert_cmpuint(changed.height, ==, height);
}

static struct rig *start(const struct mode *mode)
{
    struct rig *rig = rig_new(device_class_find("vga"), NULL);
    if (mode)
        set_mode(rig, mode);
    return rig;
}

static const uint8_t *vram(struct rig *rig)
{
    return rig->dev->pci->bars[0].host;
}

static void assert_planes(struct rig *rig, uint32_t address, unsigned p0, unsigned p1, unsigned p2,
                          unsigned p3)
{
    const uint8_t *at = vram(rig) + address * 4;
    g_assert_cmphex(at[0], ==, p0);
    g_assert_cmphex(at[1], ==, p1);
    g_assert_cmphex(at[2], ==, p2);
    g_assert_cmphex(at[3], ==, p3);
}

/* As a BIOS loads a font: plane 2, one character each 32 bytes. The glyph's row r is row(code, r).
 */
static void load_font(struct rig *rig, unsigned map, uint8_t (*row)(unsigned code, unsigned r))
{
    set(rig, SEQ, 2, 4);
    set(rig, SEQ, 4, 7);
    set(rig, GC, 4, 2);
    set(rig, GC, 5, 0);
    set(rig, GC, 6, 4);
    for (unsigned code = 0; code < 256; code++)
        for (unsigned r = 0; r < 16; r++)
            rig_store(rig, WINDOW + map * 0x2000 + code * 32 + r, 1, row(code, r));
    set(rig, SEQ, 2, 3);
    set(rig, SEQ, 4, 2);
    set(rig, GC, 4, 0);
    set(rig, GC, 5, 0x10);
    set(rig, GC, 6, 0x0e);
}

static uint8_t glyph(unsigned code, unsigned r)
{
    return (uint8_t)(code + r);
}

static uint8_t other_glyph(unsigned code, unsigned r)
{
    return (uint8_t) ~(code + r);
}

static void put(struct rig *rig, unsigned column, unsigned row, uint8_t code, uint8_t attr)
{
    rig_store(rig, TEXT + (row * 80 + column) * 2, 2, (uint64_t)attr << 8 | code);
}

static void dispi(struct rig *rig, unsigned index, unsigned value)
{
    rig_out(rig, DISPI_INDEX, 2, index);
    rig_out(rig, DISPI_DATA, 2, value);
}

static unsigned dispi_get(struct rig *rig, unsigned index)
{
    rig_out(rig, DISPI_INDEX, 2, index);
    return rig_in(rig, DISPI_DATA, 2);
}

static void dispi_mode(struct rig *rig, unsigned width, unsigned height, unsigned bpp)
{
    dispi(rig, ENABLE, 0);
    dispi(rig, BPP, bpp);
    dispi(rig, XRES, width);
    dispi(rig, YRES, height);
    dispi(rig, ENABLE, 0x41);
    rig_in(rig, 0x3ba, 1); /* one of both resets the flip-flop */
    rig_in(rig, 0x3da, 1);
    rig_out(rig, 0x3c0, 1, 0x20);
}

static void lfb_store(struct rig *rig, uint64_t offset, uint32_t value, unsigned bytes)
{
    g_assert_true(guest_write(rig->board.guest, GPA(rig_bar(rig, 0) + offset), &value, bytes));
}

/* --- text ----------------------------------------------------------------------------------- */

static void assert_cell(unsigned column, unsigned row, uint8_t (*rows)(unsigned, unsigned),
                        uint8_t code, uint32_t ink, uint32_t paper)
{
    for (unsigned r = 0; r < 16; r++)
        for (unsigned i = 0; i < 9; i++) {
            bool last = (code & 0xe0) == 0xc0 && rows(code, r) & 1;
            bool on = i < 8 ? rows(code, r) >> (7 - i) & 1 : last;
            g_assert_cmphex(pixel(column * 9 + i, row * 16 + r), ==, on ? ink : paper);
        }
}

static void text_cells(void)
{
    struct rig *rig = start(&text_mode);
    load_font(rig, 0, glyph);
    set(rig, CRTC, 0x0a, 0x20); /* no cursor */
    put(rig, 0, 0, 'A', 0x17);
    put(rig, 79, 24, 0xcd, 0x4e); /* a line character: the ninth dot repeats the eighth */
    g_assert_true(look(rig, true));
    g_assert_cmpuint(picture.width, ==, 720);
    g_assert_cmpuint(picture.height, ==, 400);
    assert_cell(0, 0, glyph, 'A', gray(7), gray(1));
    assert_cell(79, 24, glyph, 0xcd, gray(14), gray(4));

    /* Only what changes is drawn. */
    g_assert_false(look(rig, false));
    put(rig, 3, 2, 'B', 0x07);
    g_assert_true(look(rig, false));
    assert_changed(27, 32, 9, 16);
    put(rig, 5, 4, 'C', 0x07);
    put(rig, 2, 6, 'C', 0x07);
    g_assert_true(look(rig, false));
    assert_changed(18, 64, 36, 48);

    /* Attribute bit 7 is blink (steady here), or the paper's intensity. */
    put(rig, 0, 0, 'A', 0x97);
    look(rig, false);
    assert_cell(0, 0, glyph, 'A', gray(7), gray(1));
    attribute(rig, 0x10, 0x04);
    look(rig, false);
    assert_cell(0, 0, glyph, 'A', gray(7), gray(9));
    rig_free(rig);
}

/* SR03: the font of attribute bit 3 in bits 5, 3 and 2; 4 to 7 are at 8 KiB and each 16 KiB on. */
static void text_fonts(void)
{
    struct rig *rig = start(&text_mode);
    load_font(rig, 0, glyph);
    load_font(rig, 5, other_glyph); /* 40 KiB: font 6 */
    set(rig, CRTC, 0x0a, 0x20);
    put(rig, 0, 0, 'x', 0x07);
    put(rig, 1, 0, 'x', 0x0f);
    look(rig, true);
    assert_cell(1, 0, glyph, 'x', gray(15), 0);
    set(rig, SEQ, 3, 0x28);
    look(rig, false);
    assert_cell(0, 0, glyph, 'x', gray(7), 0);
    assert_cell(1, 0, other_glyph, 'x', gray(15), 0);
    set(rig, SEQ, 3, 0x12); /* the other one: bits 4, 1 and 0 */
    look(rig, false);
    assert_cell(0, 0, other_glyph, 'x', gray(7), 0);
    assert_cell(1, 0, glyph, 'x', gray(15), 0);
    rig_free(rig);
}

static void text_cursor(void)
{
    struct rig *rig = start(&text_mode);
    load_font(rig, 0, other_glyph);
    for (unsigned i = 0; i < 4; i++)
        put(rig, i, 0, 0xff, 0x02);
    set(rig, CRTC, 0x0f, 1);
    look(rig, true);
    for (unsigned x = 9; x < 18; x++) { /* lines 13 and 14, by CR0A and CR0B */
        g_assert_cmphex(pixel(x, 13), ==, gray(2));
        g_assert_cmphex(pixel(x, 14), ==, gray(2));
    }
    g_assert_cmphex(pixel(17, 12), ==, 0);
    g_assert_cmphex(pixel(17, 15), ==, 0);
    set(rig, CRTC, 0x0f, 2); /* moves: two cells change */
    g_assert_true(look(rig, false));
    assert_changed(9, 0, 18, 16);
    g_assert_cmphex(pixel(17, 13), ==, 0);
    g_assert_cmphex(pixel(26, 13), ==, gray(2));
    set(rig, CRTC, 0x0b, 0x2e); /* skewed by one to the right */
    look(rig, false);
    g_assert_cmphex(pixel(26, 13), ==, 0);
    g_assert_cmphex(pixel(35, 13), ==, gray(2));
    set(rig, CRTC, 0x0a, 0x2d); /* off */
    look(rig, false);
    g_assert_cmphex(pixel(35, 13), ==, 0);
    g_assert_false(look(rig, false));
    rig_free(rig);
}

static void text_underline(void)
{
    struct rig *rig = start(&text_mode);
    load_font(rig, 0, glyph);
    set(rig, CRTC, 0x0a, 0x20);
    attribute(rig, 0x10, 0x0e); /* monochrome attributes */
    set(rig, CRTC, 0x14, 12);
    put(rig, 0, 0, 0, 0x01);
    put(rig, 1, 0, 0, 0x02);
    look(rig, true);
    for (unsigned x = 0; x < 9; x++)
        g_assert_cmphex(pixel(x, 12), ==, gray(1));
    g_assert_cmphex(pixel(9 + 8, 12), ==, 0);
    rig_free(rig);
}

/* 80 x 50 with 8 lines a row, 8 dots wide; a start address; a split; panning. */
static void text_geometry(void)
{
    struct rig *rig = start(&text_mode);
    load_font(rig, 0, glyph);
    set(rig, CRTC, 0x0a, 0x20);
    set(rig, CRTC, 9, 0x47);
    set(rig, SEQ, 1, 1);
    for (unsigned i = 0; i < 80 * 60; i++)
        put(rig, i % 80, i / 80, (uint8_t)(i / 80 * 8), 0x07);
    look(rig, true);
    g_assert_cmpuint(picture.width, ==, 640);
    g_assert_cmphex(pixel(7, 8 * 49 + 1), ==, gray(7)); /* row 49: code 136, line 1 has bit 0 */
    g_assert_cmphex(pixel(7, 8 * 49), ==, 0);

    /* One row further, by the start address. */
    put(rig, 0, 1, 0xff, 0x07);
    set(rig, CRTC, 0x0d, 80);
    look(rig, false);
    for (unsigned x = 0; x < 8; x++)
        g_assert_cmphex(pixel(x, 0), ==, gray(7));

    /* The lower part, from line 201, shows address 0 (row 0: code 0). */
    set(rig, CRTC, 0x18, 200);
    set(rig, CRTC, 7, 0x0f);
    set(rig, CRTC, 9, 0x07);
    put(rig, 0, 0, 0xff, 0x03);
    look(rig, false);
    g_assert_cmphex(pixel(0, 200), ==, gray(7)); /* row 26: code 208 */
    g_assert_cmphex(pixel(0, 201), ==, gray(3));
    g_assert_cmphex(pixel(0, 202), ==, 0); /* code 0xff + line 1 */

    /* Panned by three dots to the left; then not so in the lower part. */
    attribute(rig, 0x13, 3);
    look(rig, false);
    g_assert_cmphex(pixel(4, 0), ==, gray(7));
    g_assert_cmphex(pixel(5, 0), ==, 0); /* the next cell: code 8, bit 3 is the fifth dot */
    g_assert_cmphex(pixel(5, 201), ==, 0);
    attribute(rig, 0x10, 0x2c);
    look(rig, false);
    g_assert_cmphex(pixel(5, 201), ==, gray(3));

    /* A whole character by byte panning. */
    attribute(rig, 0x13, 0);
    set(rig, CRTC, 8, 0x20);
    look(rig, false);
    g_assert_cmphex(pixel(0, 0), ==, 0);
    rig_free(rig);
}

static void text_40_columns(void)
{
    struct rig *rig = start(&text_mode);
    load_font(rig, 0, glyph);
    set(rig, CRTC, 0x0a, 0x20);
    set(rig, SEQ, 1, 8);
    set(rig, CRTC, 0x11, 0);
    set(rig, CRTC, 1, 39);
    set(rig, CRTC, 0x13, 20);
    rig_store(rig, TEXT + 39 * 2, 2, 0x0780); /* dots 0x80: the leftmost, twice as wide */
    look(rig, true);
    g_assert_cmpuint(picture.width, ==, 720);
    g_assert_cmphex(pixel(39 * 18, 0), ==, gray(7));
    g_assert_cmphex(pixel(39 * 18 + 1, 0), ==, gray(7));
    g_assert_cmphex(pixel(39 * 18 + 2, 0), ==, 0);
    rig_free(rig);
}

static void text_readback(void)
{
    struct rig *rig = start(&text_mode);
    g_autofree struct screen_text *text = g_new0(struct screen_text, 1);
    const char *words = "No bootable device.";
    for (unsigned i = 0; words[i]; i++)
        put(rig, i, 24, (uint8_t)words[i], 0x1e);
    rig->dev->class->screen->text(rig->dev, text);
    g_assert_cmpuint(text->columns, ==, 80);
    g_assert_cmpuint(text->rows, ==, 25);
    for (unsigned i = 0; words[i]; i++) {
        g_assert_cmpint(text->cell[24 * 80 + i].code, ==, words[i]);
        g_assert_cmphex(text->cell[24 * 80 + i].attribute, ==, 0x1e);
    }
    set_mode(rig, &mode_13h);
    rig->dev->class->screen->text(rig->dev, text);
    g_assert_cmpuint(text->columns, ==, 0);
    rig_free(rig);
}

static void blanked(void)
{
    struct rig *rig = start(&text_mode);
    load_font(rig, 0, glyph);
    put(rig, 0, 0, 0xff, 0x07);
    look(rig, true);
    g_assert_cmphex(pixel(0, 0), ==, gray(7));
    set(rig, SEQ, 1, 0x20);
    g_assert_true(look(rig, false));
    g_assert_cmpuint(picture.width, ==, 720);
    g_assert_cmphex(pixel(0, 0), ==, 0);
    set(rig, SEQ, 1, 0);
    g_assert_true(look(rig, false));
    g_assert_cmphex(pixel(0, 0), ==, gray(7));
    rig_in(rig, 0x3da, 1);
    rig_out(rig, 0x3c0, 1, 0); /* the palette goes to the processor */
    look(rig, false);
    g_assert_cmphex(pixel(0, 0), ==, 0);
    rig_free(rig);
}

/* --- planes --------------------------------------------------------------------------------- */

/* The latches hold 0x0f, 0xf0, 0xcc, 0xaa of address 0 before each write to address 1. */
static struct rig *with_latches(void)
{
    static const uint8_t planes[4] = { 0x0f, 0xf0, 0xcc, 0xaa };
    struct rig *rig = start(&planar_mode);
    for (unsigned p = 0; p < 4; p++) {
        set(rig, SEQ, 2, 1U << p);
        rig_store(rig, WINDOW, 1, planes[p]);
    }
    set(rig, SEQ, 2, 0x0f);
    rig_load(rig, WINDOW, 1);
    return rig;
}

static void write_mode_0(void)
{
    struct rig *rig = with_latches();
    rig_store(rig, WINDOW + 1, 1, 0x5a);
    assert_planes(rig, 1, 0x5a, 0x5a, 0x5a, 0x5a);
    set(rig, SEQ, 2, 0x05); /* map mask */
    rig_store(rig, WINDOW + 1, 1, 0x11);
    assert_planes(rig, 1, 0x11, 0x5a, 0x11, 0x5a);
    set(rig, SEQ, 2, 0x0f);
    set(rig, GC, 0, 0x02); /* set/reset in planes 0 and 1 */
    set(rig, GC, 1, 0x03);
    rig_store(rig, WINDOW + 1, 1, 0x33);
    assert_planes(rig, 1, 0x00, 0xff, 0x33, 0x33);
    set(rig, GC, 1, 0);
    set(rig, GC, 8, 0xf0); /* bit mask */
    rig_store(rig, WINDOW + 1, 1, 0x66);
    assert_planes(rig, 1, 0x6f, 0x60, 0x6c, 0x6a);
    set(rig, GC, 8, 0xff);
    static const uint8_t expect[4][4] = {
        { 0x3c, 0x3c, 0x3c, 0x3c }, /* 0x78 turned right by one */
        { 0x0c, 0x30, 0x0c, 0x28 }, /* and */
        { 0x3f, 0xfc, 0xfc, 0xbe }, /* or */
        { 0x33, 0xcc, 0xf0, 0x96 }, /* xor */
    };
    for (unsigned op = 0; op < 4; op++) {
        set(rig, GC, 3, op << 3 | 1);
        rig_store(rig, WINDOW + 1, 1, 0x78);
        assert_planes(rig, 1, expect[op][0], expect[op][1], expect[op][2], expect[op][3]);
    }
    rig_free(rig);
}

static void write_modes_1_to_3(void)
{
    struct rig *rig = with_latches();
    set(rig, GC, 5, 1); /* the latches as they are */
    rig_store(rig, WINDOW + 1, 1, 0xff);
    assert_planes(rig, 1, 0x0f, 0xf0, 0xcc, 0xaa);
    set(rig, GC, 5, 2); /* a colour, in the bits of the bit mask */
    set(rig, GC, 8, 0x3c);
    rig_store(rig, WINDOW + 1, 1, 0x09);
    assert_planes(rig, 1, 0x3f, 0xc0, 0xc0, 0xbe);
    set(rig, GC, 5, 3); /* the data narrow the bit mask, set/reset is the colour */
    set(rig, GC, 0, 0x06);
    rig_store(rig, WINDOW + 1, 1, 0xf0);
    assert_planes(rig, 1, 0x0f, 0xf0, 0xfc, 0x8a);
    rig_free(rig);
}

static void read_modes(void)
{
    struct rig *rig = with_latches();
    static const uint8_t planes[4] = { 0x0f, 0xf0, 0xcc, 0xaa };
    for (unsigned p = 0; p < 4; p++) {
        set(rig, GC, 4, p);
        g_assert_cmphex(rig_load(rig, WINDOW, 1), ==, planes[p]);
    }
    set(rig, GC, 5, 8); /* which pixels have colour 9 (planes 0 and 3, not 1 and 2)? */
    set(rig, GC, 2, 9);
    set(rig, GC, 7, 0x0f);
    g_assert_cmphex(rig_load(rig, WINDOW, 1), ==, 0x0f & 0xaa & ~0xf0 & ~0xcc);
    set(rig, GC, 7, 0x01); /* only plane 0 counts */
    g_assert_cmphex(rig_load(rig, WINDOW, 1), ==, 0x0f);
    set(rig, GC, 7, 0);
    g_assert_cmphex(rig_load(rig, WINDOW, 1), ==, 0xff);
    rig_free(rig);
}

static void odd_even(void)
{
    struct rig *rig = start(&text_mode);
    rig_store(rig, TEXT + 6, 4, 0x44332211);
    assert_planes(rig, 6, 0x11, 0x22, 0, 0);
    assert_planes(rig, 8, 0x33, 0x44, 0, 0);
    g_assert_cmphex(rig_load(rig, TEXT + 6, 8), ==, 0x44332211);
    g_assert_cmphex(rig_load(rig, WINDOW, 1), ==, 0xff); /* GR06: only B8000 answers */
    rig_out(rig, MISC, 1, 0x65);                         /* and nothing without Enable RAM */
    g_assert_cmphex(rig_load(rig, TEXT + 6, 1), ==, 0xff);
    rig_free(rig);
}

static void chain_4(void)
{
    struct rig *rig = start(&mode_13h);
    rig_store(rig, WINDOW + 0x1230, 8, UINT64_C(0x8877665544332211));
    for (unsigned i = 0; i < 8; i++)
        g_assert_cmphex(vram(rig)[0x1230 + i], ==, 0x11 * (i + 1));
    g_assert_cmphex(rig_load(rig, WINDOW + 0x1233, 1), ==, 0x44);
    g_assert_cmphex(rig_load(rig, WINDOW + 0x1234, 4), ==, 0x88776655);
    set(rig, SEQ, 2, 0x05); /* the map mask counts here too */
    rig_store(rig, WINDOW, 4, 0x04030201);
    assert_planes(rig, 0, 1, 0, 3, 0);
    rig_free(rig);
}

static void planar_picture(void)
{
    struct rig *rig = start(&planar_mode);
    set(rig, GC, 5, 2);
    set(rig, GC, 8, 0x10); /* the fourth pixel of eight */
    rig_load(rig, WINDOW + 80 * 479 + 79, 1);
    rig_store(rig, WINDOW + 80 * 479 + 79, 1, 0x0b);
    look(rig, true);
    g_assert_cmpuint(picture.width, ==, 640);
    g_assert_cmpuint(picture.height, ==, 480);
    g_assert_cmphex(pixel(79 * 8 + 3, 479), ==, gray(11));
    g_assert_cmphex(pixel(79 * 8 + 4, 479), ==, 0);
    g_assert_false(look(rig, false));

    /* Only the lines of a written page are drawn: line 102 begins in the page of 8160. */
    rig_store(rig, WINDOW + 80 * 102 + 1, 1, 0x0f);
    g_assert_true(look(rig, false));
    g_assert_cmphex(pixel(8 + 3, 102), ==, gray(15));
    g_assert_cmpuint(changed.y, <=, 102);
    g_assert_cmpuint(changed.y + changed.height, >, 102);
    g_assert_cmpuint(changed.height, <, 20);

    attribute(rig, 0x12, 0x03); /* only planes 0 and 1 are shown */
    look(rig, false);
    g_assert_cmphex(pixel(8 + 3, 102), ==, gray(3));
    attribute(rig, 0x14, 0x04); /* colour select: bits 6-7 of the DAC index */
    attribute(rig, 0x12, 0x0f);
    look(rig, false);
    g_assert_cmphex(pixel(8 + 3, 102), ==, gray(0x40 + 15));
    attribute(rig, 0x13, 2); /* pel panning */
    look(rig, false);
    g_assert_cmphex(pixel(8 + 1, 102), ==, gray(0x40 + 15));
    rig_free(rig);
}

static void picture_13h(void)
{
    struct rig *rig = start(&mode_13h);
    rig_store(rig, WINDOW + 320 * 100 + 5, 1, 0x07);
    rig_store(rig, WINDOW + 320 * 199 + 319, 1, 0x0c);
    look(rig, true);
    g_assert_cmpuint(picture.width, ==, 640);
    g_assert_cmpuint(picture.height, ==, 400);
    for (unsigned y = 200; y < 202; y++)
        for (unsigned x = 10; x < 12; x++)
            g_assert_cmphex(pixel(x, y), ==, gray(7));
    g_assert_cmphex(pixel(12, 200), ==, 0);
    g_assert_cmphex(pixel(10, 202), ==, 0);
    g_assert_cmphex(pixel(639, 399), ==, gray(12));
    g_assert_cmphex(pixel(637, 399), ==, 0);
    rig_out(rig, 0x3c6, 1, 0x04); /* PEL mask */
    look(rig, false);
    g_assert_cmphex(pixel(10, 200), ==, gray(4));
    rig_free(rig);
}

/* Mode X: chain-4 off, byte addresses; each plane has a quarter of the pixels. */
static void mode_x(void)
{
    struct rig *rig = start(&mode_13h);
    set(rig, SEQ, 4, 0x06);
    set(rig, CRTC, 0x14, 0x00);
    set(rig, CRTC, 0x17, 0xe3);
    set(rig, SEQ, 2, 0x04);
    rig_store(rig, WINDOW + 80 * 3 + 10, 1, 0x09);
    look(rig, true);
    g_assert_cmphex(pixel((10 * 4 + 2) * 2, 6), ==, gray(9));
    g_assert_cmphex(pixel((10 * 4 + 1) * 2, 6), ==, 0);
    /* The second page, by the start address. */
    rig_store(rig, WINDOW + 0x8000, 1, 0x0a);
    set(rig, CRTC, 0x0c, 0x80);
    look(rig, false);
    g_assert_cmphex(pixel(4, 0), ==, gray(10));
    rig_free(rig);
}

/* From line 300 on, the top of memory again; above, the picture begins in the second row. */
static void split_picture(void)
{
    struct rig *rig = start(&mode_13h);
    rig_store(rig, WINDOW, 1, 0x0d);
    rig_store(rig, WINDOW + 320, 1, 0x0e);
    set(rig, CRTC, 0x0d, 80);
    set(rig, CRTC, 0x18, 299 & 0xff);
    set(rig, CRTC, 7, 0x10); /* line compare bit 8; the others are protected */
    set(rig, CRTC, 9, 0x01);
    look(rig, true);
    g_assert_cmphex(pixel(0, 0), ==, gray(14));
    g_assert_cmphex(pixel(0, 299), ==, 0);
    g_assert_cmphex(pixel(0, 300), ==, gray(13));
    g_assert_cmphex(pixel(0, 302), ==, gray(14));
    /* Smooth scrolling: the first row from its second line. */
    set(rig, CRTC, 8, 1);
    look(rig, false);
    g_assert_cmphex(pixel(0, 0), ==, gray(14));
    g_assert_cmphex(pixel(0, 1), ==, 0);
    g_assert_cmphex(pixel(0, 300), ==, gray(13));
    rig_free(rig);
}

static void cga_picture(void)
{
    struct rig *rig = start(&cga_mode);
    rig_store(rig, TEXT, 1, 0x1b);          /* line 0: pixels 0, 1, 2, 3 */
    rig_store(rig, TEXT + 0x2000, 1, 0xe4); /* line 1: 3, 2, 1, 0 */
    rig_store(rig, TEXT + 80 + 1, 1, 0xc0); /* line 2, pixel 4: 3 */
    look(rig, true);
    g_assert_cmpuint(picture.width, ==, 640);
    g_assert_cmpuint(picture.height, ==, 400);
    for (unsigned i = 0; i < 4; i++) {
        g_assert_cmphex(pixel(i * 2, 0), ==, gray(i));
        g_assert_cmphex(pixel(i * 2 + 1, 1), ==, gray(i)); /* each line twice */
        g_assert_cmphex(pixel(i * 2, 2), ==, gray(3 - i));
    }
    g_assert_cmphex(pixel(8, 4), ==, gray(3));
    g_assert_cmphex(pixel(8, 2), ==, 0);
    rig_free(rig);
}

/* --- dispi ---------------------------------------------------------------------------------- */

static void dispi_identity(void)
{
    struct rig *rig = start(NULL);
    g_assert_cmphex(dispi_get(rig, 0), ==, 0xb0c5);
    dispi(rig, 0, 0xb0c0); /* a driver asks for the interface that it knows */
    g_assert_cmphex(dispi_get(rig, 0), ==, 0xb0c0);
    dispi(rig, 0, 0xb0c6);
    g_assert_cmphex(dispi_get(rig, 0), ==, 0xb0c0);
    g_assert_cmpuint(dispi_get(rig, MEMORY), ==, 1024); /* of 64 KiB */
    dispi(rig, ENABLE, 2);                              /* capabilities */
    g_assert_cmpuint(dispi_get(rig, XRES), ==, 4096);
    g_assert_cmpuint(dispi_get(rig, YRES), ==, 2160);
    g_assert_cmpuint(dispi_get(rig, BPP), ==, 32);
    dispi(rig, ENABLE, 0);
    dispi(rig, XRES, 5000);
    dispi(rig, BPP, 13);
    g_assert_cmpuint(dispi_get(rig, XRES), ==, 4096);
    g_assert_cmpuint(dispi_get(rig, BPP), ==, 8);
    g_assert_cmpuint(rig_in(rig, 0x1d0, 2), ==, 8); /* the other data port */
    dispi(rig, 77, 1);
    g_assert_cmpuint(dispi_get(rig, 77), ==, 0);
    rig_free(rig);
}

static void dispi_32(void)
{
    struct rig *rig = start(NULL);
    lfb_store(rig, 0, 0xffffff, 4);
    dispi_mode(rig, 800, 600, 32);
    g_assert_true(look(rig, true));
    g_assert_cmpuint(picture.width, ==, 800);
    g_assert_cmpuint(picture.height, ==, 600);
    g_assert_cmphex(pixel(0, 0), ==, 0); /* cleared by the mode set */
    g_assert_false(look(rig, false));
    lfb_store(rig, (300 * 800 + 17) * 4, 0xff123456, 4);
    g_assert_true(look(rig, false)); /* found by the slot's log */
    g_assert_cmphex(pixel(17, 300), ==, 0x123456);
    g_assert_cmpuint(changed.height, <=, 3);
    g_assert_cmpuint(changed.width, ==, 800);
    g_assert_false(look(rig, false));

    /* A larger virtual screen. */
    dispi(rig, VIRT_WIDTH, 1024);
    g_assert_cmpuint(dispi_get(rig, VIRT_HEIGHT), ==, (64 << 20) / 4096);
    dispi(rig, X_OFFSET, 10);
    dispi(rig, Y_OFFSET, 1000);
    lfb_store(rig, (1001 * 1024 + 12) * 4, 0x00aabbcc, 4);
    g_assert_true(look(rig, false));
    g_assert_cmphex(pixel(2, 1), ==, 0xaabbcc);
    g_assert_cmphex(pixel(17, 300), ==, 0);

    /* Kept, with the flag that says so. */
    dispi(rig, ENABLE, 0);
    dispi(rig, ENABLE, 0xc1);
    look(rig, false);
    g_assert_cmphex(pixel((300 * 800 + 17) % 800, 300), ==, 0x123456);
    rig_free(rig);
}

static void dispi_depths(void)
{
    static const struct {
        unsigned bpp, bytes, value, expect;
    } depths[] = {
        { 8, 1, 0x0d, 0 },           { 15, 2, 0x7c1f, 0xff00ff },   { 16, 2, 0x07e0, 0x00ff00 },
        { 16, 2, 0x8410, 0x848284 }, { 24, 3, 0x123456, 0x123456 }, { 32, 4, 0x123456, 0x123456 },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(depths); i++) {
        struct rig *rig = start(&mode_13h);
        dispi_mode(rig, 321, 200, depths[i].bpp);
        lfb_store(rig, (321 * 7 + 5) * depths[i].bytes, depths[i].value, depths[i].bytes);
        lfb_store(rig, (321 * 8 - 1) * depths[i].bytes, depths[i].value, depths[i].bytes);
        look(rig, true);
        uint32_t expect = depths[i].expect ? depths[i].expect : gray(13);
        g_assert_cmphex(pixel(5, 7), ==, expect);
        g_assert_cmphex(pixel(320, 7), ==, expect);
        g_assert_cmphex(pixel(4, 7), ==, 0);
        rig_free(rig);
    }
}

static void dispi_bank(void)
{
    struct rig *rig = start(&mode_13h);
    dispi_mode(rig, 1024, 768, 8);
    set(rig, GC, 6, 5);
    dispi(rig, BANK, 3);
    g_assert_cmpuint(dispi_get(rig, BANK), ==, 3);
    rig_store(rig, WINDOW + 0x10, 4, 0x04030201);
    g_assert_cmphex(rig_load(rig, WINDOW + 0x11, 2), ==, 0x0302);
    g_assert_cmphex(vram(rig)[0x30012], ==, 3);
    look(rig, false);
    g_assert_cmphex(pixel(0x12, 192), ==, gray(3));
    dispi(rig, BANK, 1024); /* beyond the memory */
    g_assert_cmpuint(dispi_get(rig, BANK), ==, 3);
    dispi(rig, BANK, 1023);
    rig_store(rig, WINDOW + 0xfff8, 8, 1);
    g_assert_cmphex(vram(rig)[(64 << 20) - 8], ==, 1);
    rig_free(rig);
}

/* 16 colours beyond 64 KiB of a plane. */
static void dispi_planar(void)
{
    struct rig *rig = start(&planar_mode);
    dispi_mode(rig, 1280, 1024, 4);
    dispi(rig, BANK, 1);
    rig_store(rig, WINDOW, 1, 0x80); /* all planes: byte 65536, line 409, pixel 96 * 8 */
    look(rig, true);
    g_assert_cmpuint(picture.width, ==, 1280);
    g_assert_cmphex(pixel(96 * 8, 409), ==, gray(15));
    g_assert_cmphex(pixel(96 * 8 + 1, 409), ==, 0);
    rig_free(rig);
}

static void dispi_limits(void)
{
    static const char *const small[] = { "vram", "8M", NULL };
    struct rig *rig = rig_new(device_class_find("vga"), small);
    g_assert_cmpuint(dispi_get(rig, MEMORY), ==, 128);
    dispi_mode(rig, 4096, 2160, 32); /* 33 MiB: the rest is black */
    lfb_store(rig, (8 << 20) - 4, 0x00ffeedd, 4);
    look(rig, true);
    g_assert_cmpuint(picture.height, ==, 2160);
    g_assert_cmphex(pixel(4095, 511), ==, 0xffeedd);
    g_assert_cmphex(pixel(0, 512), ==, 0);
    dispi(rig, VIRT_WIDTH, 0xffff);
    dispi(rig, X_OFFSET, 0xffff);
    dispi(rig, Y_OFFSET, 0xffff);
    look(rig, false);
    g_assert_cmphex(pixel(4095, 511), ==, 0);
    rig_free(rig);
}

static void mmio(void)
{
    struct rig *rig = start(&text_mode);
    uint64_t bar = rig_bar(rig, 2);
    g_assert_cmphex(rig_load(rig, bar + 0x500, 2), ==, 0xb0c5);
    g_assert_cmphex(rig_load(rig, bar + 0x40c, 1), ==, 0x67); /* 3cc */
    rig_store(rig, bar + 0x414, 2, 0x1234 & ~0xffU);          /* 3d4: CR00 */
    rig_store(rig, bar + 0x40e, 2, 0x5508);                   /* 3ce: GR08 */
    rig_out(rig, GC, 1, 8);
    g_assert_cmphex(rig_in(rig, GC + 1, 1), ==, 0x55);
    rig_store(rig, bar + 0x502, 2, 640);
    rig_store(rig, bar + 0x504, 2, 480);
    rig_store(rig, bar + 0x506, 2, 32);
    rig_store(rig, bar + 0x508, 2, 0x41);
    lfb_store(rig, 4, 0x00112233, 4);
    look(rig, true);
    g_assert_cmphex(pixel(1, 0), ==, 0x112233);
    g_assert_cmphex(rig_load(rig, bar + 0x600, 4), ==, 8);
    g_assert_cmphex(rig_load(rig, bar + 0x604, 4), ==, 0x1e1e1e1e);
    rig_store(rig, bar + 0x604, 4, 0xbebebebe);
    look(rig, false);
    g_assert_cmphex(pixel(1, 0), ==, 0x221100);
    rig_store(rig, bar + 0x506, 2, 16);
    look(rig, false);
    g_assert_cmphex(pixel(2, 0), ==, 0x316510); /* bytes 33 22: 0x3322 */
    rig_free(rig);
}

static void edid(void)
{
    static const char *const wish[] = { "width", "1920", "height", "1080", NULL };
    struct rig *rig = rig_new(device_class_find("vga"), wish);
    uint8_t bytes[128], sum = 0;
    for (unsigned i = 0; i < 128; i++)
        sum = (uint8_t)(sum + (bytes[i] = (uint8_t)rig_load(rig, rig_bar(rig, 2) + i, 1)));
    g_assert_cmpuint(sum, ==, 0);
    static const uint8_t header[8] = { 0, 255, 255, 255, 255, 255, 255, 0 };
    g_assert_cmpmem(bytes, 8, header, 8);
    const uint8_t *d = bytes + 54;
    unsigned clock = d[0] | d[1] << 8, width = d[2] | (d[4] & 0xf0U) << 4;
    unsigned height = d[5] | (d[7] & 0xf0U) << 4;
    g_assert_cmpuint(width, ==, 1920);
    g_assert_cmpuint(height, ==, 1080);
    unsigned total = (width + d[3]) * (height + d[6]);
    g_assert_cmpuint(clock * 10000 / total, >=, 59);
    g_assert_cmpuint(clock * 10000 / total, <=, 60);
    rig_free(rig);
}

/* --- registers ------------------------------------------------------------------------------ */

static void dac(void)
{
    struct rig *rig = start(&text_mode);
    rig_out(rig, 0x3c8, 1, 10);
    g_assert_cmpuint(rig_in(rig, 0x3c7, 1), ==, 0);
    rig_out(rig, 0x3c9, 1, 0xff); /* six bits */
    rig_out(rig, 0x3c9, 1, 0x01);
    rig_out(rig, 0x3c7, 1, 10); /* two parts are not an entry */
    g_assert_cmpuint(rig_in(rig, 0x3c9, 1), ==, 40);
    g_assert_cmpuint(rig_in(rig, 0x3c7, 1), ==, 3);
    rig_out(rig, 0x3c8, 1, 255);
    for (unsigned i = 0; i < 6; i++) /* wraps to entry 0 */
        rig_out(rig, 0x3c9, 1, 0x41 + i);
    g_assert_cmpuint(rig_in(rig, 0x3c8, 1), ==, 1);
    rig_out(rig, 0x3c7, 1, 255);
    for (unsigned i = 0; i < 6; i++)
        g_assert_cmpuint(rig_in(rig, 0x3c9, 1), ==, 1 + i);

    dispi(rig, ENABLE, 0x20); /* eight bits */
    rig_out(rig, 0x3c8, 1, 0);
    for (unsigned i = 0; i < 3; i++)
        rig_out(rig, 0x3c9, 1, 0xf1 + i);
    look(rig, true);
    g_assert_cmphex(pixel(0, 0), ==, 0xf1f2f3);
    rig_free(rig);
}

static void decoding(void)
{
    struct rig *rig = start(&text_mode);
    rig_out(rig, 0x3b4, 1, 7);
    g_assert_cmphex(rig_in(rig, 0x3b4, 1), ==, 0xff);
    rig_out(rig, MISC, 1, 0x66); /* monochrome */
    rig_out(rig, 0x3b4, 1, 0x0f);
    rig_out(rig, 0x3b5, 1, 0x77);
    g_assert_cmphex(rig_in(rig, 0x3b5, 1), ==, 0x77);
    g_assert_cmphex(rig_in(rig, 0x3d5, 1), ==, 0xff);
    g_assert_cmphex(rig_in(rig, 0x3cc, 1), ==, 0x66);
    rig_out(rig, 0x3c3, 1, 0); /* off, but for this port */
    g_assert_cmphex(rig_in(rig, 0x3cc, 1), ==, 0xff);
    rig_out(rig, 0x3c3, 1, 1);
    g_assert_cmphex(rig_in(rig, 0x3cc, 1), ==, 0x66);
    rig_free(rig);
}

static void protection(void)
{
    struct rig *rig = start(&text_mode);
    set(rig, CRTC, 0x11, 0x8e);
    set(rig, CRTC, 0, 0x11);
    set(rig, CRTC, 7, 0x00);
    rig_out(rig, CRTC, 1, 0);
    g_assert_cmphex(rig_in(rig, CRTC + 1, 1), ==, 0x5f);
    rig_out(rig, CRTC, 1, 7);
    g_assert_cmphex(rig_in(rig, CRTC + 1, 1), ==, 0x0f); /* but bit 4, of line compare */
    rig_free(rig);
}

static void flip_flop(void)
{
    struct rig *rig = start(&text_mode);
    rig_in(rig, 0x3da, 1);
    rig_out(rig, 0x3c0, 1, 0x2b);
    rig_out(rig, 0x3c0, 1, 0x15);
    rig_out(rig, 0x3c0, 1, 0x2c); /* an index again */
    rig_in(rig, 0x3da, 1);
    rig_out(rig, 0x3c0, 1, 0x2b);
    g_assert_cmphex(rig_in(rig, 0x3c0, 1), ==, 0x2b);
    g_assert_cmphex(rig_in(rig, 0x3c1, 1), ==, 0x15);
    rig_free(rig);
}

/* Over one frame of 1/70 s, in steps of 10 us. */
static void status(void)
{
    struct rig *rig = start(&text_mode);
    unsigned retrace = 0, blank = 0, rises = 0;
    bool was = false;
    for (unsigned i = 0; i < 14260 * 7 / 10; i++) {
        unsigned bits = rig_in(rig, 0x3da, 1);
        rises += bits & 8 && !was;
        was = bits & 8;
        retrace += was;
        blank += bits & 1;
        g_assert_true(!was || bits & 1); /* never a picture in the retrace */
        clock_advance(rig->board.clock, 10000, 0);
    }
    g_assert_cmpuint(rises, ==, 7);
    g_assert_cmpuint(retrace, >, 100);
    g_assert_cmpuint(retrace, <, 2000);
    g_assert_cmpuint(blank, >, 2000); /* a fifth of each line, and 49 lines */
    g_assert_cmpuint(blank, <, 4000);
    g_assert_cmpuint(rig_in(rig, 0x3c2, 1) & 0x10, ==, 0x10);
    rig_free(rig);
}

/* Nonsense in the CRTC: whoever polls gets both values of both bits. */
static void status_nonsense(void)
{
    for (unsigned value = 0; value < 256; value += 51) {
        struct rig *rig = start(&text_mode);
        set(rig, CRTC, 0x11, 0);
        for (unsigned i = 0; i < 25; i++)
            set(rig, CRTC, i, i == 0x11 ? value & 0x7f : value);
        unsigned ones = 0, zeros = 0;
        for (unsigned i = 0; i < 20000; i++) {
            unsigned bits = rig_in(rig, 0x3da, 1);
            ones |= bits;
            zeros |= ~bits;
            clock_advance(rig->board.clock, 13000, 0);
        }
        g_assert_cmphex(ones & zeros & 9, ==, 9);
        rig_free(rig);
    }
}

/* The screen is told of what may show, and the picture survives a save. */
static void notices(void)
{
    struct rig *rig = start(&text_mode);
    unsigned before = rig->screen_changes;
    put(rig, 0, 0, 'x', 7);
    g_assert_cmpuint(rig->screen_changes, >, before);
    g_assert_true(rig_round_trip(rig));
    rig_free(rig);
}

/* Every value of each register in turn, with a picture for each. */
static void any_register(void)
{
    static const struct {
        unsigned port, count;
    } groups[] = { { CRTC, 25 }, { SEQ, 5 }, { GC, 9 } };
    const struct mode *modes[] = { &text_mode, &planar_mode, &mode_13h, &cga_mode };
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    g_autofree struct screen_text *text = g_new0(struct screen_text, 1);
    for (unsigned i = 0; i < 400; i++) {
        struct rig *rig = start(modes[i % 4]);
        set(rig, CRTC, 0x11, 0);
        for (unsigned n = 0; n < 3; n++) {
            unsigned group = (unsigned)g_rand_int_range(rand, 0, 3);
            unsigned index = (unsigned)g_rand_int_range(rand, 0, (int)groups[group].count);
            set(rig, groups[group].port, index, g_rand_int(rand) & 0xff);
        }
        look(rig, false);
        g_assert_cmpuint(picture.width, <=, SCREEN_MAX_WIDTH);
        g_assert_cmpuint(picture.height, <=, SCREEN_MAX_HEIGHT);
        rig->dev->class->screen->text(rig->dev, text);
        rig_free(rig);
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
        { "text/cells", text_cells },
        { "text/fonts", text_fonts },
        { "text/cursor", text_cursor },
        { "text/underline", text_underline },
        { "text/geometry", text_geometry },
        { "text/40-columns", text_40_columns },
        { "text/readback", text_readback },
        { "blanked", blanked },
        { "planes/write-mode-0", write_mode_0 },
        { "planes/write-modes-1-3", write_modes_1_to_3 },
        { "planes/read-modes", read_modes },
        { "planes/odd-even", odd_even },
        { "planes/chain-4", chain_4 },
        { "planes/picture", planar_picture },
        { "mode-13h", picture_13h },
        { "mode-x", mode_x },
        { "split", split_picture },
        { "cga", cga_picture },
        { "dispi/identity", dispi_identity },
        { "dispi/32-bits", dispi_32 },
        { "dispi/depths", dispi_depths },
        { "dispi/bank", dispi_bank },
        { "dispi/planar", dispi_planar },
        { "dispi/limits", dispi_limits },
        { "mmio", mmio },
        { "edid", edid },
        { "dac", dac },
        { "decoding", decoding },
        { "protection", protection },
        { "flip-flop", flip_flop },
        { "status", status },
        { "status-nonsense", status_nonsense },
        { "notices", notices },
        { "any-register", any_register },
    };
    g_test_init(&argc, &argv, NULL);
    picture.pixels = g_new(uint32_t, SCREEN_MAX_WIDTH * SCREEN_MAX_HEIGHT);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_autofree char *path = g_strdup_printf("/vga/%s", tests[i].name);
        g_test_add_func(path, tests[i].run);
    }
    int result = g_test_run();
    g_free(picture.pixels);
    return result;
}
