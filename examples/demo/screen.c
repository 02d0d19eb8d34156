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

void screen_clear(void)
{
    for (int y = 0; y < screen_height(); y++)
        fill_row(0, y, screen_width(), screen_backdrop(y));
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

/* A letter at up to eight times its size, a byte a pixel. */
struct shape {
    int width, height;
    uint8_t pixels[8 * GLYPH_HEIGHT * 8 * GLYPH_WIDTH];
};

static uint8_t shape_get(const struct shape *shape, int x, int y)
{
    if (x < 0 || y < 0 || x >= shape->width || y >= shape->height)
        return 0;
    return shape->pixels[y * shape->width + x];
}

/* Twice as large, diagonal steps smoothed (the Scale2x rule). */
static void shape_double(const struct shape *from, struct shape *to)
{
    to->width = 2 * from->width;
    to->height = 2 * from->height;
    for (int y = 0; y < from->height; y++) {
        for (int x = 0; x < from->width; x++) {
            uint8_t here = shape_get(from, x, y);
            uint8_t up = shape_get(from, x, y - 1), down = shape_get(from, x, y + 1);
            uint8_t left = shape_get(from, x - 1, y), right = shape_get(from, x + 1, y);
            uint8_t *out = &to->pixels[2 * y * to->width + 2 * x];
            bool corner = up != down && left != right;
            out[0] = corner && left == up ? left : here;
            out[1] = corner && up == right ? right : here;
            out[to->width] = corner && left == down ? left : here;
            out[to->width + 1] = corner && down == right ? right : here;
        }
    }
}

/* Four pixels of the shape become one of the screen. */
static void shape_draw(const struct shape *shape, int x, int y, uint32_t colour)
{
    int width = shape->width / 2, height = shape->height / 2;
    if (x < 0 || y < 0 || x + width > screen_width() || y + height > screen_height())
        return;
    for (int row = 0; row < height; row++) {
        const uint8_t *in = &shape->pixels[2 * row * shape->width];
        uint32_t *out = pixel_at(x, y + row);
        for (int column = 0; column < width; column++, in += 2, out++) {
            int covered = in[0] + in[1] + in[shape->width] + in[shape->width + 1];
            if (covered)
                *out = covered == 4 ? colour : mix(*out, colour, covered, 4);
        }
    }
}

void screen_big_text(int x, int y, const char *text, uint32_t colour, int level)
{
    static struct shape shapes[2];
    for (; *text; text++, x += GLYPH_WIDTH << level) {
        const uint8_t *rows = FONT + (uint8_t)*text * GLYPH_HEIGHT;
        struct shape *shape = &shapes[0], *other = &shapes[1];
        shape->width = GLYPH_WIDTH;
        shape->height = GLYPH_HEIGHT;
        for (int i = 0; i < GLYPH_WIDTH * GLYPH_HEIGHT; i++)
            shape->pixels[i] = rows[i / GLYPH_WIDTH] >> (7 - i % GLYPH_WIDTH) & 1;
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
