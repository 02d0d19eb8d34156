/* Character cells; see cell.h. */
#include "reading/cell.h"

#include <emmintrin.h>
#include <string.h>

/* Pixels of a glyph that is there on purpose: a picture has apostrophes by chance. */
enum { SOLID = 12 };

static uint32_t row_mask(const struct shape *shape)
{
    return (uint32_t)((1ull << shape->width) - 1);
}

/* A pixel that is not of the cell's first colour. */
static void see_other(struct dots *dots, uint32_t colour)
{
    if (dots->uniform) {
        dots->uniform = false;
        dots->colours[1] = colour;
    } else if (colour != dots->colours[1]) {
        dots->mixed = true;
    }
}

/* One line of dots of the size of pixels; four of them at once, for this is where the time goes. */
static uint32_t scan_line(const uint32_t *p, unsigned width, struct dots *dots)
{
    static const uint8_t reversed[16] = { 0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15 };
    const __m128i first = _mm_set1_epi32((int)dots->colours[0]);
    uint32_t bits = 0;
    unsigned i = 0;
    for (; i + 4 <= width; i += 4) {
        __m128i four = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        __m128i same = _mm_cmpeq_epi32(four, first);
        unsigned others = (unsigned)_mm_movemask_ps(_mm_castsi128_ps(same)) ^ 15;
        bits = bits << 4 | reversed[others];
        if (!others)
            continue;
        if (dots->uniform)
            see_other(dots, p[i + (unsigned)__builtin_ctz(others)]);
        __m128i other = _mm_cmpeq_epi32(four, _mm_set1_epi32((int)dots->colours[1]));
        if (_mm_movemask_ps(_mm_castsi128_ps(_mm_or_si128(same, other))) != 15)
            dots->mixed = true;
    }
    for (; i < width; i++) {
        bool other = p[i] != dots->colours[0];
        bits = bits << 1 | other;
        if (other)
            see_other(dots, p[i]);
    }
    return bits;
}

/* The same for larger dots, and for what stands beside the glyph. */
static uint32_t scan_dots(const uint32_t *p, const struct shape *shape, struct dots *dots)
{
    uint32_t line[GLYPH_WIDTH_MAX + 1];
    unsigned count = shape->step;
    for (unsigned i = 0; i < count; i++) {
        line[i] = p[i * shape->dot];
        if (shape->dot > 1 && p[i * shape->dot + 1] != line[i])
            dots->mixed = true;
    }
    /* The ninth column is paper or goes on with the eighth: a colour that the cell has. */
    uint32_t bits = scan_line(line, count, dots);
    return bits >> (count - shape->width);
}

void cell_scan(const struct canvas *canvas, const struct shape *shape, uint32_t x, uint32_t y,
               bool quick, struct dots *dots)
{
    const uint32_t *p = canvas->pixels + (size_t)y * canvas->width + x;
    bool plain = shape->dot == 1 && shape->step == shape->width;
    *dots = (struct dots){ .colours = { p[0], p[0] }, .uniform = true };
    for (unsigned i = 0; i < shape->height; i++, p += canvas->width) {
        dots->rows[i] = plain ? scan_line(p, shape->width, dots) : scan_dots(p, shape, dots);
        if (shape->line > 1) {
            const uint32_t *above = p;
            p += canvas->width;
            if (memcmp(above, p, shape_cell_width(shape) * sizeof *p))
                dots->mixed = true;
        }
        if (dots->mixed && quick)
            return;
    }
}

/* Letters have lines of at least two kinds. */
static bool is_strong(const uint32_t *rows, unsigned height, uint32_t flip, uint32_t code)
{
    uint32_t first = 0;
    if (code >= 0x2500 && code < 0x2600) /* boxes and shades */
        return false;
    for (unsigned i = 0; i < height; i++) {
        uint32_t row = rows[i] ^ flip;
        if (!row || row == first)
            continue;
        if (first)
            return true;
        first = row;
    }
    return false;
}

/* Tries the dots as they are and in inverse, first with that of the two colours as paper. */
static bool known(const uint32_t *rows, const struct dots *dots, const struct shape *shape,
                  unsigned paper, struct cell *cell)
{
    for (unsigned i = 0; i < 2; i++, paper ^= 1) {
        uint32_t flip = paper ? row_mask(shape) : 0;
        uint32_t code = font_character(shape->width, shape->height, rows, flip);
        if (!code)
            continue;
        *cell = (struct cell){ .code = code,
                               .ink = dots->colours[!paper],
                               .paper = dots->colours[paper],
                               .kind = CELL_KNOWN,
                               .strong = is_strong(rows, shape->height, flip, code) };
        return true;
    }
    return false;
}

/* Which of the two colours is the paper: the neighbours', else that which there is more of. */
static unsigned paper_of(const struct dots *dots, const struct shape *shape, uint32_t paper)
{
    if (dots->colours[0] == paper || dots->colours[1] == paper)
        return dots->colours[1] == paper;
    unsigned set = 0;
    for (unsigned i = 0; i < shape->height; i++)
        set += (unsigned)__builtin_popcount(dots->rows[i]);
    return set * 2 > (unsigned)shape->width * shape->height;
}

void cell_read(const struct dots *dots, const struct shape *shape, uint32_t paper,
               struct cell *cell)
{
    *cell = (struct cell){ .code = ' ', .paper = dots->colours[0], .kind = CELL_BLANK };
    if (dots->uniform)
        return;
    unsigned which = paper_of(dots, shape, paper);
    if (dots->mixed) {
        cell->kind = CELL_PICTURE;
    } else if (!known(dots->rows, dots, shape, which, cell)) {
        cell->kind = CELL_UNKNOWN;
        cell->code = 0xfffd;
        cell->ink = dots->colours[!which];
        cell->paper = dots->colours[which];
    }
}

bool cell_read_cursor(const struct dots *dots, const struct shape *shape, struct cell *cell)
{
    uint32_t rows[GLYPH_HEIGHT_MAX], mask = row_mask(shape);
    unsigned paper = cell->paper == dots->colours[1];
    for (unsigned first = 0; first < shape->height; first++) {
        memcpy(rows, dots->rows, sizeof rows);
        for (unsigned i = first; i < shape->height; i++) {
            rows[i] ^= mask;
            if (known(rows, dots, shape, paper, cell))
                return true;
        }
    }
    return false;
}

bool cell_read_ink(const struct canvas *canvas, const struct shape *shape, uint32_t x, uint32_t y,
                   uint32_t ink, struct cell *cell)
{
    const uint32_t *p = canvas->pixels + (size_t)y * canvas->width + x;
    uint32_t rows[GLYPH_HEIGHT_MAX] = { 0 };
    unsigned set = 0;
    for (unsigned i = 0; i < shape->height; i++, p += (size_t)canvas->width * shape->line) {
        rows[i] = 0;
        for (unsigned j = 0; j < shape->width; j++)
            rows[i] = rows[i] << 1 | (p[j * shape->dot] == ink);
        set += (unsigned)__builtin_popcount(rows[i]);
    }
    uint32_t code = font_character(shape->width, shape->height, rows, 0);
    if (!code)
        return false;
    *cell = (struct cell){ .code = code,
                           .ink = ink,
                           .paper = ink,
                           .kind = CELL_KNOWN,
                           .strong = set >= SOLID && is_strong(rows, shape->height, 0, code) };
    return true;
}

unsigned cell_colours(const struct canvas *canvas, const struct shape *shape, uint32_t x,
                      uint32_t y, uint32_t colours[CELL_COLOURS])
{
    /* Misra and Gries: what more than a SEEN-th of the pixels have is among the counted at the end.
     */
    enum { SEEN = 8 };
    struct {
        uint32_t colour;
        unsigned count;
    } seen[SEEN] = { 0 };
    unsigned found = 0;
    const uint32_t *p = canvas->pixels + (size_t)y * canvas->width + x;
    for (unsigned i = 0; i < shape->height; i++, p += (size_t)canvas->width * shape->line) {
        for (unsigned j = 0; j < shape->width; j++) {
            uint32_t colour = p[j * shape->dot];
            unsigned k = 0, unused = SEEN;
            for (; k < SEEN && !(seen[k].count && seen[k].colour == colour); k++)
                unused = seen[k].count ? unused : k;
            if (k < SEEN) {
                seen[k].count++;
            } else if (unused < SEEN) {
                seen[unused].colour = colour;
                seen[unused].count = 1;
            } else {
                for (k = 0; k < SEEN; k++)
                    seen[k].count--;
            }
        }
    }
    while (found < CELL_COLOURS) {
        unsigned most = 0, best = 0;
        for (unsigned k = 0; k < SEEN; k++) {
            if (seen[k].count > most) {
                most = seen[k].count;
                best = k;
            }
        }
        if (!most)
            break;
        colours[found++] = seen[best].colour;
        seen[best].count = 0;
    }
    return found;
}

bool cell_is_underline(const struct dots *dots, const struct shape *shape)
{
    uint32_t mask = row_mask(shape), blank = dots->rows[0];
    unsigned i = 0;
    if (dots->uniform || dots->mixed || (blank != 0 && blank != mask))
        return false;
    while (i < shape->height && dots->rows[i] == blank)
        i++;
    if (i * 2 < (unsigned)shape->height)
        return false;
    while (i < shape->height && dots->rows[i] == (blank ^ mask))
        i++;
    while (i < shape->height && dots->rows[i] == blank)
        i++;
    return i == shape->height;
}
