/* Drawing of what a VGA shows; see vga-draw.h.
 *
 * IBM PS/2 Hardware Interface Technical Reference, Video Subsystem (1991), "Video Graphics Array":
 * the address counter and its multiplexer (CR14, CR17), the serializers (GR05), the attribute
 * controller (AR10-AR14). Blinking characters and the cursor are drawn steady, so that a still
 * screen costs nothing.
 *
 * The guest writes video memory meanwhile: every value read from it is used at most as an index
 * that its type bounds. */
#include "vga-draw.h"

#include <glib.h>
#include <string.h>

enum { CR0A_CURSOR_OFF = 0x20 };

/* --- video memory --------------------------------------------------------------------------- */

/* The plane address that the counter's value selects in a row scan (CR14, CR17). */
static uint32_t plane_address(const struct vga_layout *l, uint64_t counter, unsigned row)
{
    uint32_t c = (uint32_t)counter, mode = l->addressing;
    /* In chain-4, processor addresses are kept linear (vga.c): the counter counts four bytes. */
    if (mode & ADDRESS_CHAIN4)
        return c & l->plane_mask;
    if (mode & ADDRESS_DOUBLE_WORD)
        c = c << 2 | (c >> 14 & 3);
    else if (!(mode & CR17_BYTES))
        c = c << 1 | (c >> (mode & CR17_A15_FOR_A0 ? 15 : 13) & 1);
    if (!(mode & CR17_ROW0_FOR_A13))
        c = (c & ~(1u << 13)) | (row & 1) << 13;
    if (!(mode & CR17_ROW1_FOR_A14))
        c = (c & ~(1u << 14)) | (row >> 1 & 1) << 14;
    return c & l->plane_mask;
}

static uint32_t load32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static bool is_dirty(const uint64_t *dirty, uint64_t from, uint64_t length)
{
    for (uint64_t page = from / VGA_PAGE; page <= (from + length - 1) / VGA_PAGE; page++)
        if (dirty[page / 64] >> page % 64 & 1)
            return true;
    return false;
}

/* One band of lines that show the same row, from scan line y. */
struct band {
    uint32_t y, lines;
    uint32_t row;     /* the row scan of its first line */
    uint64_t counter; /* of its first column */
    uint32_t pan;
    uint32_t number;
};

static void band_first(const struct vga_layout *l, uint64_t start, struct band *band)
{
    *band = (struct band){ .row = l->preset_row, .counter = start + l->pan_bytes, .pan = l->pan };
    band->lines = MIN((l->row_lines - band->row) * l->line_repeat, l->height);
    if (l->split < band->lines)
        band->lines = l->split;
}

/* False at the end of the picture. */
static bool band_next(const struct vga_layout *l, struct band *band)
{
    band->y += band->lines;
    band->number++;
    band->counter += l->stride;
    band->row = 0;
    if (band->y == l->split) {
        band->counter = l->split_pan_bytes;
        band->pan = l->split_pan;
    }
    band->lines = MIN(l->row_lines * l->line_repeat, l->height - band->y);
    if (band->y < l->split)
        band->lines = MIN(band->lines, l->split - band->y);
    return band->y < l->height;
}

static void grow(struct rectangle *r, uint32_t x, uint32_t y, uint32_t width, uint32_t height)
{
    if (!r->width) {
        *r = (struct rectangle){ x, y, width, height };
        return;
    }
    uint32_t right = MAX(r->x + r->width, x + width), bottom = MAX(r->y + r->height, y + height);
    r->x = MIN(r->x, x);
    r->y = MIN(r->y, y);
    r->width = right - r->x;
    r->height = bottom - r->y;
}

/* --- text ----------------------------------------------------------------------------------- */

/* A cell as drawn: code, attribute, and the cursor's shape where it stands. */
enum { CELL_CURSOR = 1 << 16, CELL_CURSOR_START = 17, CELL_CURSOR_END = 22 };

/* Where the cursor is, as counter value, and how it looks; 0 when it is off. */
static uint32_t cursor_shape(const struct vga_regs *regs, uint32_t *at)
{
    uint32_t start = regs->cr[0x0a] & 0x1f, end = regs->cr[0x0b] & 0x1f;
    *at = (regs->cr[0x0e] << 8 | regs->cr[0x0f]) + (regs->cr[0x0b] >> 5 & 3u);
    *at &= 0xffff;
    if (regs->cr[0x0a] & CR0A_CURSOR_OFF || start > end)
        return 0;
    return CELL_CURSOR | start << CELL_CURSOR_START | end << CELL_CURSOR_END;
}

static uint32_t cell_at(const struct vga_layout *l, struct vga_memory memory, uint64_t counter,
                        uint32_t cursor, uint32_t cursor_at)
{
    const uint8_t *at = memory.bytes + (uint64_t)plane_address(l, counter, 0) * 4;
    return at[0] | (uint32_t)at[1] << 8 | ((counter & 0xffff) == cursor_at ? cursor : 0);
}

/* The dots of one line of a cell, the leftmost in bit 8. */
static uint32_t cell_dots(const struct vga_layout *l, struct vga_memory memory, uint32_t cell,
                          uint32_t row)
{
    uint8_t code = (uint8_t)cell, attribute = (uint8_t)(cell >> 8);
    uint32_t font = attribute & 8 ? l->fonts >> 16 : l->fonts & 0xffff;
    uint32_t dots = memory.bytes[((font + code * 32u + row) & 0xffff) * 4 + 2] * 2u;
    if (l->attributes & AR10_LINE_GRAPHICS && (code & 0xe0) == 0xc0)
        dots |= dots >> 1 & 1;
    if (l->attributes & AR10_MONO && (attribute & 7) == 1 && row == (l->attributes >> 8 & 0x1f))
        dots = 0x1ff;
    if (cell & CELL_CURSOR && row >= (cell >> CELL_CURSOR_START & 0x1f) &&
        row <= (cell >> CELL_CURSOR_END & 0x1f))
        dots = 0x1ff;
    return dots;
}

/* Draws the cell whose left edge is pixel x of the row, perhaps outside the picture. */
static void cell_draw(const struct vga_view *view, struct vga_memory memory,
                      const struct band *band, uint32_t cell, int32_t x, struct picture *picture)
{
    const struct vga_layout *l = &view->layout;
    uint8_t attribute = (uint8_t)(cell >> 8);
    uint32_t paper = attribute >> 4 & (l->attributes & AR10_BLINK ? 7 : 15);
    const uint32_t colors[2] = { view->palette.attribute[paper],
                                 view->palette.attribute[attribute & 15] };
    int32_t width = (int32_t)(l->cell * l->dot);
    int32_t from = MAX(0, -x), to = MIN(width, (int32_t)l->width - x);
    for (uint32_t line = 0; line < band->lines; line++) {
        uint32_t dots = cell_dots(l, memory, cell, band->row + line / l->line_repeat);
        uint32_t *pixels = picture->pixels + (size_t)(band->y + line) * l->width;
        for (int32_t i = from; i < to; i++)
            pixels[x + i] = colors[dots >> (8 - (uint32_t)i / l->dot) & 1];
    }
}

static void draw_text(struct vga_view *view, const struct vga_regs *regs, struct vga_memory memory,
                      bool whole, struct picture *picture, struct rectangle *changed)
{
    const struct vga_layout *l = &view->layout;
    uint32_t cursor_at, cursor = cursor_shape(regs, &cursor_at);
    int32_t step = (int32_t)(l->cell * l->dot);
    struct band band;
    band_first(l, vga_start_address(regs), &band);
    do {
        uint32_t *cells = &view->cells[MIN(band.number, VGA_CELL_ROWS - 1u) * VGA_CELL_COLUMNS];
        uint32_t columns = MIN(l->columns + (band.pan != 0), (uint32_t)VGA_CELL_COLUMNS);
        for (uint32_t i = 0; i < columns; i++) {
            uint32_t cell = cell_at(l, memory, band.counter + i, cursor, cursor_at);
            if (!whole && cells[i] == cell)
                continue;
            cells[i] = cell;
            int32_t x = (int32_t)i * step - (int32_t)(band.pan * l->dot);
            int32_t left = MAX(x, 0), right = MIN(x + step, (int32_t)l->width);
            if (right <= left)
                continue;
            cell_draw(view, memory, &band, cell, x, picture);
            grow(changed, (uint32_t)left, band.y, (uint32_t)(right - left), band.lines);
        }
    } while (band_next(l, &band));
}

void vga_read_text(const struct vga_regs *regs, struct vga_memory memory, struct screen_text *text)
{
    struct vga_layout layout;
    struct band band;
    vga_layout(regs, memory.size, &layout);
    text->columns = text->rows = 0;
    if (layout.kind != VGA_TEXT)
        return;
    text->columns = MIN(layout.columns, (uint32_t)SCREEN_MAX_COLUMNS);
    band_first(&layout, vga_start_address(regs), &band);
    do {
        for (uint32_t i = 0; i < text->columns; i++) {
            uint32_t cell = cell_at(&layout, memory, band.counter + i, 0, 0);
            uint32_t at = text->rows * text->columns + i;
            text->cell[at].code = (uint8_t)cell;
            text->cell[at].attribute = (uint8_t)(cell >> 8);
        }
        text->rows++;
    } while (band_next(&layout, &band) && text->rows < SCREEN_MAX_ROWS);
}

/* --- planes --------------------------------------------------------------------------------- */

/* The bits of a byte as eight bytes, the highest first. */
static uint64_t bits_to_bytes(uint32_t byte)
{
    return (byte * UINT64_C(0x8040201008040201) & UINT64_C(0x8080808080808080)) >> 7;
}

/* The eight dots of one character clock from the four planes' bytes (GR05: the serializers). */
static void eight_dots(const struct vga_view *view, uint32_t planes, uint32_t dots[8])
{
    uint32_t shift = view->layout.shift;
    const struct vga_palette *p = &view->palette;
    if (shift & GR05_256) {
        for (unsigned i = 0; i < 8; i++) {
            uint8_t byte = (uint8_t)(planes >> i / 2 * 8);
            dots[i] =
                shift & SHIFT_8BIT ? p->color[byte] : p->attribute[byte >> (i & 1 ? 0 : 4) & 15];
        }
    } else if (shift & GR05_INTERLEAVED) {
        for (unsigned i = 0; i < 8; i++) {
            uint32_t pair = planes >> (i / 4 * 8) >> (6 - i % 4 * 2);
            dots[i] = p->attribute[(pair & 3) | (pair >> 14 & 0x0c)];
        }
    } else {
        uint64_t eight = bits_to_bytes(planes & 0xff) | bits_to_bytes(planes >> 8 & 0xff) << 1 |
                         bits_to_bytes(planes >> 16 & 0xff) << 2 | bits_to_bytes(planes >> 24) << 3;
        for (unsigned i = 0; i < 8; i++, eight >>= 8)
            dots[i] = p->attribute[eight & 15];
    }
}

/* One line; `dirty` NULL draws it in any case. False when it was not drawn. */
static bool planar_line(const struct vga_view *view, struct vga_memory memory,
                        const uint64_t *dirty, const struct band *band, uint32_t row,
                        uint32_t *pixels)
{
    const struct vga_layout *l = &view->layout;
    uint32_t dots[8], x = -(band->pan * l->dot); /* wraps: beyond the width while it is left of 0 */
    uint32_t columns = l->columns + (band->pan != 0);
    uint32_t first = plane_address(l, band->counter, row);
    uint32_t last = plane_address(l, band->counter + columns - 1, row);
    /* Addresses that wrap in the line are not worth a closer look. */
    if (dirty && first <= last && last - first < 4 * columns &&
        !is_dirty(dirty, (uint64_t)first * 4, (uint64_t)(last - first + 1) * 4))
        return false;
    for (uint32_t i = 0; i < columns; i++) {
        uint64_t at = (uint64_t)plane_address(l, band->counter + i, row) * 4;
        eight_dots(view, load32(memory.bytes + at), dots);
        if (l->dot == 1 && x < l->width && l->width - x >= 8) {
            memcpy(pixels + x, dots, sizeof dots);
            x += 8;
            continue;
        }
        for (uint32_t dot = 0; dot < 8 * l->dot; dot++, x++)
            if (x < l->width)
                pixels[x] = dots[dot / l->dot];
    }
    return true;
}

static void draw_planar(const struct vga_view *view, struct vga_memory memory,
                        const uint64_t *dirty, struct picture *picture, struct rectangle *changed)
{
    const struct vga_layout *l = &view->layout;
    uint32_t both = CR17_ROW0_FOR_A13 | CR17_ROW1_FOR_A14;
    bool row_counts = !(l->addressing & ADDRESS_CHAIN4) && (l->addressing & both) != both;
    struct band band;
    band_first(l, l->start, &band);
    do {
        bool drawn = false;
        for (uint32_t i = 0; i < band.lines; i++) {
            uint32_t *pixels = picture->pixels + (size_t)(band.y + i) * l->width;
            bool same = i && (!row_counts || i % l->line_repeat);
            if (!same)
                drawn =
                    planar_line(view, memory, dirty, &band, band.row + i / l->line_repeat, pixels);
            else if (drawn)
                memcpy(pixels, pixels - l->width, l->width * sizeof *pixels);
            if (drawn)
                grow(changed, 0, band.y + i, l->width, 1);
        }
    } while (band_next(l, &band));
}

/* --- linear frame buffers ------------------------------------------------------------------- */

static uint16_t load16(const uint8_t *at, bool big_endian)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return big_endian ? GUINT16_SWAP_LE_BE(value) : value;
}

static void line_8(const struct vga_view *view, const uint8_t *from, uint32_t *to)
{
    for (uint32_t x = 0; x < view->layout.width; x++)
        to[x] = view->palette.color[from[x]];
}

static void line_15(const struct vga_view *view, const uint8_t *from, uint32_t *to)
{
    bool big = view->layout.big_endian;
    for (uint32_t x = 0; x < view->layout.width; x++) {
        uint32_t v = load16(from + x * 2, big);
        uint32_t wide = (v & 0x7c00) << 9 | (v & 0x3e0) << 6 | (v & 0x1f) << 3;
        to[x] = wide | (wide >> 5 & 0x070707);
    }
}

static void line_16(const struct vga_view *view, const uint8_t *from, uint32_t *to)
{
    bool big = view->layout.big_endian;
    for (uint32_t x = 0; x < view->layout.width; x++) {
        uint32_t v = load16(from + x * 2, big);
        uint32_t wide = (v & 0xf800) << 8 | (v & 0x7e0) << 5 | (v & 0x1f) << 3;
        to[x] = wide | (wide >> 5 & 0x070007) | (wide >> 6 & 0x000300);
    }
}

static void line_24(const struct vga_view *view, const uint8_t *from, uint32_t *to)
{
    unsigned first = view->layout.big_endian ? 2 : 0;
    for (uint32_t x = 0; x < view->layout.width; x++, from += 3)
        to[x] = (uint32_t)from[2 - first] << 16 | (uint32_t)from[1] << 8 | from[first];
}

static void line_32(const struct vga_view *view, const uint8_t *from, uint32_t *to)
{
    /* The byte above the colours is not the viewer's; two pixels at a time. */
    const uint64_t mask = UINT64_C(0x00ffffff00ffffff);
    uint32_t count = view->layout.width;
    for (; count >= 2; count -= 2, to += 2, from += 8) {
        uint64_t two;
        memcpy(&two, from, sizeof two);
        two &= mask;
        memcpy(to, &two, sizeof two);
    }
    if (count)
        *to = load32(from) & 0xffffff;
}

static void line_32_big(const struct vga_view *view, const uint8_t *from, uint32_t *to)
{
    for (uint32_t x = 0; x < view->layout.width; x++)
        to[x] = GUINT32_SWAP_LE_BE(load32(from + x * 4)) & 0xffffff;
}

typedef void linear_line(const struct vga_view *view, const uint8_t *from, uint32_t *to);

/* NULL for a depth that only a forged state holds. */
static linear_line *line_of(const struct vga_layout *l)
{
    switch (l->depth) {
    case 8:
        return line_8;
    case 15:
        return line_15;
    case 16:
        return line_16;
    case 24:
        return line_24;
    case 32:
        return l->big_endian ? line_32_big : line_32;
    default:
        return NULL;
    }
}

static void draw_linear(const struct vga_view *view, struct vga_memory memory,
                        const uint64_t *dirty, struct picture *picture, struct rectangle *changed)
{
    const struct vga_layout *l = &view->layout;
    linear_line *line = line_of(l);
    uint64_t bytes = (uint64_t)l->width * l->pixel;
    for (uint32_t y = 0; y < l->height; y++) {
        uint64_t at = l->start + (uint64_t)y * l->stride;
        uint32_t *pixels = picture->pixels + (size_t)y * l->width;
        bool inside = line && at + bytes <= memory.size;
        if (dirty && !(inside && is_dirty(dirty, at, bytes)))
            continue;
        if (inside)
            line(view, memory.bytes + at, pixels);
        else
            memset(pixels, 0, l->width * sizeof *pixels);
        grow(changed, 0, y, l->width, 1);
    }
}

/* --- the picture ---------------------------------------------------------------------------- */

bool vga_draw(struct vga_view *view, const struct vga_regs *regs, struct vga_memory memory,
              const uint64_t *dirty, bool whole, struct picture *picture, struct rectangle *changed)
{
    struct vga_layout layout;
    struct vga_palette colors;
    vga_layout(regs, memory.size, &layout);
    vga_palette(regs, &colors);
    whole = whole || picture->width != layout.width || picture->height != layout.height ||
            memcmp(&layout, &view->layout, sizeof layout) != 0 ||
            memcmp(&colors, &view->palette, sizeof colors) != 0;
    view->layout = layout;
    view->palette = colors;
    picture->width = layout.width;
    picture->height = layout.height;
    *changed = (struct rectangle){ 0 };
    switch ((enum vga_kind)layout.kind) {
    case VGA_TEXT:
        draw_text(view, regs, memory, whole, picture, changed);
        break;
    case VGA_PLANAR:
        draw_planar(view, memory, whole ? NULL : dirty, picture, changed);
        break;
    case VGA_LINEAR:
        draw_linear(view, memory, whole ? NULL : dirty, picture, changed);
        break;
    case VGA_BLANK:
        if (whole)
            memset(picture->pixels, 0, (size_t)layout.width * layout.height * sizeof(uint32_t));
        break;
    }
    if (whole)
        *changed = (struct rectangle){ 0, 0, layout.width, layout.height };
    return changed->width != 0;
}
