/* Pictures, read as text: whatever they show and whatever is said to have changed, a reader ends in
 * bounded time with valid text, and what it gives lies in the picture.
 *
 * Input: 2 bytes of width, 2 of height, then steps: a byte of what to do and its operands. */
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "reading/reading.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *data;
    size_t left;
};

static uint32_t take(struct input *input, unsigned bytes)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < bytes && input->left; i++, input->left--)
        value = value << 8 | *input->data++;
    return value;
}

/* A part of the picture: blots of bits in two colours, or the next bytes as colours. */
static void draw(struct input *input, uint32_t *pixels, uint32_t width, uint32_t height)
{
    uint32_t x = take(input, 2) % width, y = take(input, 2) % height;
    uint32_t ink = take(input, 3), paper = take(input, 3), rows = take(input, 1) % 33;
    for (uint32_t i = 0; i < rows && y + i < height; i++) {
        uint32_t bits = take(input, 2);
        for (uint32_t j = 0; j < 16 && x + j < width; j++)
            pixels[(size_t)(y + i) * width + x + j] = bits >> (15 - j) & 1 ? ink : paper;
    }
}

static void copy(struct input *input, uint32_t *pixels, uint32_t width, uint32_t height)
{
    uint32_t from = take(input, 2) % height, to = take(input, 2) % height;
    uint32_t rows = take(input, 1);
    rows = MIN(rows, height - MAX(from, to));
    memmove(pixels + (size_t)to * width, pixels + (size_t)from * width,
            (size_t)rows * width * sizeof *pixels);
}

static void check(struct reading *reading, uint32_t width, uint32_t height)
{
    if (!g_utf8_validate(reading_text(reading), -1, NULL))
        abort();
    const GArray *words = reading_words(reading);
    for (unsigned i = 0; i < words->len; i++) {
        const struct word *word = &g_array_index(words, struct word, i);
        if (!*word->text || word->x + word->width > width || word->y + word->height > height)
            abort();
    }
    uint32_t column, row;
    if (reading_cell_at(reading, width / 2, height / 2, &column, &row))
        g_free(reading_between(reading, 0, 0, column, row));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { STEPS = 24 };
    struct input input = { data, size };
    uint32_t width = take(&input, 2) % 400 + 1, height = take(&input, 2) % 300 + 1;
    g_autofree uint32_t *pixels = g_new0(uint32_t, (size_t)width * height);
    struct reading *reading = reading_new();
    for (unsigned i = 0; i < STEPS && input.left; i++) {
        struct rectangle changed;
        switch (take(&input, 1) % 4) {
        case 0:
            draw(&input, pixels, width, height);
            break;
        case 1:
            copy(&input, pixels, width, height);
            break;
        case 2:
            changed = (struct rectangle){ take(&input, 2), take(&input, 2), take(&input, 2),
                                          take(&input, 4) };
            reading_update(reading, pixels, width, height, changed);
            check(reading, width, height);
            break;
        default:
            changed = (struct rectangle){ 0, 0, width, height };
            reading_update(reading, pixels, width, height, changed);
            check(reading, width, height);
        }
    }
    reading_free(reading);
    return 0;
}
