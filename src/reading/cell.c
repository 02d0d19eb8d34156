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

/* Which of eight pixels are not of the colour `first`, the leftmost in the highest bit; of `known`
 * remain the bytes of those that are of `first` or `second`, the latter taken from the first pixel
 * that differs. */
static uint32_t scan_eight(const uint32_t *p, __m128i first, struct dots *dots, __m128i *known)
{
    enum { REVERSE = 0x1b }; /* _MM_SHUFFLE(0, 1, 2, 3) */
    __m128i left = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i right = _mm_loadu_si128((const __m128i *)(const void *)(p + 4));
    __m128i left_same = _mm_cmpeq_epi32(left, first), right_same = _mm_cmpeq_epi32(right, first);
    __m128i same = _mm_packs_epi32(_mm_shuffle_epi32(right_same, REVERSE),
                                   _mm_shuffle_epi32(left_same, REVERSE));
    uint32_t others = 0xff & ~(uint32_t)_mm_movemask_epi8(_mm_packs_epi16(same, same));
    if (!others)
        return 0;
    if (dots->uniform) {
        dots->uniform = false;
        dots->colours[1] = p[__builtin_clz(others) - 24];
    }
    __m128i second = _mm_set1_epi32((int)dots->colours[1]);
    __m128i left_known = _mm_or_si128(left_same, _mm_cmpeq_epi32(left, second));
    __m128i right_known = _mm_or_si128(right_same, _mm_cmpeq_epi32(right, second));
    *known = _mm_and_si128(*known, _mm_and_si128(left_known, right_known));
    return others;
}

/* Cells of eight or sixteen pixels: nearly all there are, and this is where the time goes. */
static void scan_cell(const uint32_t *p, uint32_t pitch, const struct shape *shape, bool quick,
                      struct dots *dots)
{
    const __m128i first = _mm_set1_epi32((int)dots->colours[0]);
    __m128i known = _mm_set1_epi32(-1);
    const unsigned height = shape->height, width = shape->width;
    for (unsigned i = 0; i < height; i++, p += pitch) {
        uint32_t bits = scan_eight(p, first, dots, &known);
        if (width > 8)
            bits = bits << 8 | scan_eight(p + 8, first, dots, &known);
        dots->rows[i] = bits;
        if (quick && bits && _mm_movemask_epi8(known) != 0xffff)
            break;
    }
    dots->mixed = _mm_movemask_epi8(known) != 0xffff;
}

/* One line of dots. */
static uint32_t scan_line(const uint32_t *p, unsigned width, struct dots *dots)
{
    uint32_t bits = 0;
    for (unsigned i = 0; i < width; i++) {
        bool other = p[i] != dots->colours[0];
        bits = bits << 1 | other;
        if (other && dots->uniform) {
            dots->uniform = false;
            dots->colours[1] = p[i];
        }
        dots->mixed |= other && p[i] != dots->colours[1];
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
    if (plain && shape->line == 1 && shape->width % 8 == 0) {
        scan_cell(p, canvas->width, shape, quick, dots);
        return;
    }
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
