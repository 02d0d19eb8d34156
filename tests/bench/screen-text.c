/* What it costs to read a screen: 1280 x 800 full of letters in the VGA's font, read again and
 * again.
 *
 *   screen-text SAMPLES ROUNDS [search | line]
 *
 * SAMPLES is src/reading's glyph-samples.bin. With "search", each round is a reader's first: it has
 * to find the grid. With "line", only one line of letters has changed. For callgrind, with
 * --toggle-collect=reading_update; the median of the rounds' times is on the standard output. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reading/reading.h"

enum { WIDTH = 1280, HEIGHT = 800, ROUNDS_MAX = 10000 };

/* The VGA's letters, 8 x 16: rows by character. */
static bool load(const char *path, uint32_t letters[128][16])
{
    g_autofree char *data = NULL;
    gsize length;
    if (!g_file_get_contents(path, &data, &length, NULL))
        return false;
    for (gsize at = 0; at + 36 <= length;) {
        uint32_t head[3];
        memcpy(head, data + at + 24, sizeof head);
        bool wanted = !strcmp(data + at, "VGA") && head[0] == 8 && head[1] == 16;
        at += 36;
        for (uint32_t i = 0; i < head[2]; i++, at += (head[1] + 1) * 4) {
            uint32_t code;
            memcpy(&code, data + at, sizeof code);
            if (wanted && code < 128)
                memcpy(letters[code], data + at + 4, 64);
        }
    }
    return letters['A'][7] != 0;
}

static int compare(gconstpointer a, gconstpointer b)
{
    gint64 difference = *(const gint64 *)a - *(const gint64 *)b;
    return (difference > 0) - (difference < 0);
}

int main(int argc, char **argv)
{
    static uint32_t pixels[WIDTH * HEIGHT], letters[128][16];
    static gint64 took[ROUNDS_MAX];
    struct rectangle all = { 0, 0, WIDTH, HEIGHT };
    if (argc < 3 || !load(argv[1], letters)) {
        fprintf(stderr, "usage: screen-text SAMPLES ROUNDS [search | line]\n");
        return EXIT_FAILURE;
    }
    for (unsigned y = 0; y < HEIGHT; y++) {
        for (unsigned x = 0; x < WIDTH; x++) {
            unsigned cell = y / 16 * (WIDTH / 8) + x / 8, code = 33 + cell * 7 % 94;
            pixels[y * WIDTH + x] = letters[code][y % 16] >> (7 - x % 8) & 1 ? 0xaaaaaa : 0;
        }
    }
    unsigned rounds = (unsigned)CLAMP(strtol(argv[2], NULL, 10), 1, ROUNDS_MAX);
    bool search = argc > 3 && !strcmp(argv[3], "search");
    struct rectangle line = { 0, HEIGHT / 2, WIDTH, 16 };
    struct rectangle changed = argc > 3 && !search ? line : all;
    struct reading *reading = reading_new();
    if (!search)
        reading_update(reading, pixels, WIDTH, HEIGHT, all);
    for (unsigned i = 0; i < rounds; i++) {
        if (search) {
            reading_free(reading);
            reading = reading_new();
        }
        gint64 start = g_get_monotonic_time();
        reading_update(reading, pixels, WIDTH, HEIGHT, changed);
        took[i] = g_get_monotonic_time() - start;
    }
    qsort(took, rounds, sizeof *took, compare);
    printf("%.2f ms for a %s\n", (double)took[rounds / 2] / 1000,
           changed.height == HEIGHT ? "screen" : "line");
    reading_free(reading);
    return EXIT_SUCCESS;
}
