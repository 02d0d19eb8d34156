/* Drawing on the linear frame buffer, 32 bits a pixel. Frugal: where the processor is interpreted
 * (nested or software KVM) a pixel costs a microsecond, so areas are filled by string instructions,
 * and text sets only the pixels of its letters. */
#include "demo.h"

enum { BACKDROP_TOP = 0x0a1024, BACKDROP_BOTTOM = 0x1d2950 };
enum { POINTER_WIDTH = 12, POINTER_HEIGHT = 19 };

static uint32_t *pixel_at(int x, int y)
{
    return (uint32_t *)((uint64_t)BOOT_INFO->frame_buffer + (uint64_t)y * BOOT_INFO->pitch) + x;
}

int screen_width(void)
{
    return BOOT_INFO->width;
}

int screen_height(void)
{
    return BOOT_INFO->height;
}

static uint32_t mix(uint32_t a, uint32_t b, int part, int whole)
{
    uint32_t result = 0;
    for (int shift = 0; shift <= 16; shift += 8) {
        int from = (int)(a >> shift & 255), to = (int)(b >> shift & 255);
        result |= (uint32_t)(from + (to - from) * part / whole) << shift;
    }
    return result;
}

uint32_t screen_backdrop(int y)
{
    return mix(BACKDROP_TOP, BACKDROP_BOTTOM, y, screen_height());
}

static void fill_row(int x, int y, int width, uint32_t colour)
{
    if (x < 0) {
        width += x;
        x = 0;
    }
    if (x + width > screen_width())
        width = screen_width() - x;
    if (width <= 0 || y < 0 || y >= screen_height())
        return;
    uint32_t *at = pixel_at(x, y);
    uint64_t count = (uint64_t)width;
    __asm__ volatile("rep stosl" : "+D"(at), "+c"(count) : "a"(colour) : "memory");
}

void screen_fill(struct box box, uint32_t colour)
{
    for (int row = 0; row < box.height; row++)
        fill_row(box.x, box.y + row, box.width, colour);
}

/* The background, but for the insides of boxes that will be painted anyway; they are given from
 * left to right. */
void screen_clear(const struct box *covered, unsigned count)
{
    enum { CORNER = 5 };
    for (int y = 0; y < screen_height(); y++) {
        int x = 0;
        uint32_t colour = screen_backdrop(y);
        for (unsigned i = 0; i < count; i++) {
            const struct box *box = &covered[i];
            if (y < box->y + CORNER || y >= box->y + box->height - CORNER)
                continue;
            fill_row(x, y, box->x - x, colour);
            x = box->x + box->width;
        }
        fill_row(x, y, screen_width() - x, colour);
    }
}

/* A filled box with round corners and a border of one pixel. */
void screen_panel(struct box box, uint32_t fill, uint32_t border)
{
    static const int8_t round[] = { 5, 3, 2, 1, 1 };
    enum { ROWS = sizeof round };
    for (int row = 0; row < box.height; row++) {
        int edge = row < box.height - 1 - row ? row : box.height - 1 - row;
        int inset = edge < ROWS ? round[edge] : 0;
        int next = edge == 0 ? box.width / 2 : edge <= ROWS ? round[edge - 1] : 0;
        int rim = next > inset ? next - inset : 1;
        int width = box.width - 2 * inset;
        if (edge == 0) {
            fill_row(box.x + inset, box.y + row, width, border);
            continue;
        }
        fill_row(box.x + inset, box.y + row, rim, border);
        fill_row(box.x + inset + rim, box.y + row, width - 2 * rim, fill);
        fill_row(box.x + inset + width - rim, box.y + row, rim, border);
    }
}

static void glyph(int x, int y, uint8_t c, uint32_t colour)
{
    if (x < 0 || y < 0 || x + GLYPH_WIDTH > screen_width() || y + GLYPH_HEIGHT > screen_height())
        return;
    const uint8_t *shape = FONT + c * GLYPH_HEIGHT;
    for (int row = 0; row < GLYPH_HEIGHT; row++) {
        uint32_t *at = pixel_at(x, y + row);
        for (uint8_t bits = shape[row]; bits; bits = (uint8_t)(bits << 1), at++)
            if (bits & 0x80)
                *at = colour;
    }
}

void screen_text(int x, int y, const char *text, uint32_t colour)
{
    for (; *text; text++, x += GLYPH_WIDTH)
        glyph(x, y, (uint8_t)*text, colour);
}

/* A letter at up to eight times its size, a bit a pixel, the leftmost in bit `width` - 1. Whole
 * rows are worked on at once. */
struct shape {
    int width, height;
    uint64_t rows[8 * GLYPH_HEIGHT];
};

/* ....abcd becomes a0b0c0d0, as far as 32 bits go. */
static uint64_t spread(uint64_t bits)
{
    bits = (bits | bits << 16) & 0x0000ffff0000ffff;
    bits = (bits | bits << 8) & 0x00ff00ff00ff00ff;
    bits = (bits | bits << 4) & 0x0f0f0f0f0f0f0f0f;
    bits = (bits | bits << 2) & 0x3333333333333333;
    bits = (bits | bits << 1) & 0x5555555555555555;
    return bits << 1;
}

static uint64_t choose(uint64_t mask, uint64_t yes, uint64_t no)
{
    return (yes & mask) | (no & ~mask);
}

/* Twice as large, diagonal steps smoothed (the Scale2x rule). */
static void shape_double(const struct shape *from, struct shape *to)
{
    to->width = 2 * from->width;
    to->height = 2 * from->height;
    for (int y = 0; y < from->height; y++) {
        uint64_t here = from->rows[y], left = here >> 1, right = here << 1;
        uint64_t up = y > 0 ? from->rows[y - 1] : 0;
        uint64_t down = y + 1 < from->height ? from->rows[y + 1] : 0;
        uint64_t corner = (up ^ down) & (left ^ right) & ((1ull << from->width) - 1);
        to->rows[2 * y] = spread(choose(corner & ~(left ^ up), left, here)) |
                          spread(choose(corner & ~(up ^ right), right, here)) >> 1;
        to->rows[2 * y + 1] = spread(choose(corner & ~(left ^ down), left, here)) |
                              spread(choose(corner & ~(down ^ right), right, here)) >> 1;
    }
}

/* Four pixels of the shape become one of the screen. */
static void shape_draw(const struct shape *shape, int x, int y, uint32_t colour)
{
    static const uint8_t ones[] = { 0, 1, 1, 2 };
    int width = shape->width / 2, height = shape->height / 2;
    if (x < 0 || y < 0 || x + width > screen_width() || y + height > screen_height())
        return;
    for (int row = 0; row < height; row++) {
        uint64_t upper = shape->rows[2 * row], lower = shape->rows[2 * row + 1];
        uint32_t *out = pixel_at(x, y + row) + width - 1;
        for (; upper | lower; upper >>= 2, lower >>= 2, out--) {
            int covered = ones[upper & 3] + ones[lower & 3];
            if (covered)
                *out = covered == 4 ? colour : mix(*out, colour, covered, 4);
        }
    }
}

void screen_big_text(int x, int y, const char *text, uint32_t colour, int level)
{
    static struct shape shapes[2];
    for (; *text; text++, x += GLYPH_WIDTH << level) {
        struct shape *shape = &shapes[0], *other = &shapes[1];
        shape->width = GLYPH_WIDTH;
        shape->height = GLYPH_HEIGHT;
        for (int row = 0; row < GLYPH_HEIGHT; row++)
            shape->rows[row] = FONT[(uint8_t)*text * GLYPH_HEIGHT + row];
        for (int doubling = 0; doubling <= level; doubling++) {
            shape_double(shape, other);
            struct shape *swap = shape;
            shape = other;
            other = swap;
        }
        shape_draw(shape, x, y, colour);
    }
}

/* The pointer lies over the picture; what it covers is kept. */
static struct {
    bool shown;
    int x, y;
    uint32_t under[POINTER_HEIGHT][POINTER_WIDTH];
} pointer;

static const char pointer_shape[POINTER_HEIGHT][POINTER_WIDTH + 1] = {
    "#           ", "##          ", "#.#         ", "#..#        ", "#...#       ",
    "#....#      ", "#.....#     ", "#......#    ", "#.......#   ", "#........#  ",
    "#.........# ", "#......#####", "#...#..#    ", "#..##..#    ", "#.#  #..#   ",
    "##   #..#   ", "#     #..#  ", "      #..#  ", "       ##   ",
};

void pointer_hide(void)
{
    if (!pointer.shown)
        return;
    for (int row = 0; row < POINTER_HEIGHT && pointer.y + row < screen_height(); row++) {
        uint32_t *at = pixel_at(pointer.x, pointer.y + row);
        for (int i = 0; i < POINTER_WIDTH && pointer.x + i < screen_width(); i++)
            if (pointer_shape[row][i] != ' ')
                at[i] = pointer.under[row][i];
    }
    pointer.shown = false;
}

void pointer_show(int x, int y)
{
    pointer_hide();
    pointer.x = x;
    pointer.y = y;
    pointer.shown = true;
    for (int row = 0; row < POINTER_HEIGHT && y + row < screen_height(); row++) {
        uint32_t *at = pixel_at(x, y + row);
        for (int i = 0; i < POINTER_WIDTH && x + i < screen_width(); i++) {
            char c = pointer_shape[row][i];
            if (c == ' ')
                continue;
            pointer.under[row][i] = at[i];
            at[i] = c == '#' ? 0x000000 : 0xffffff;
        }
    }
}
