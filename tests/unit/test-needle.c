/* Looking for a picture on a screen: src/test/needle.c. */
#include "test/needle.h"

#include <glib/gstdio.h>
#include <png.h>
#include <string.h>
#include <unistd.h>

enum { WIDTH = 320, HEIGHT = 200, SIDE = 24 };

static uint32_t noise(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8 | 0xff000000;
}

static uint32_t *new_screen(uint32_t seed)
{
    uint32_t *screen = g_new(uint32_t, WIDTH * HEIGHT);
    for (unsigned i = 0; i < WIDTH * HEIGHT; i++)
        screen[i] = noise(&seed);
    return screen;
}

/* A part of a screen, by way of a file. */
static struct needle *cut(const uint32_t *screen, uint32_t x, uint32_t y, uint32_t alpha)
{
    uint32_t part[SIDE * SIDE];
    GError *error = NULL;
    g_autofree char *path = NULL;
    int fd = g_file_open_tmp("needle-XXXXXX", &path, &error);
    png_image image = {
        .version = PNG_IMAGE_VERSION, .width = SIDE, .height = SIDE, .format = PNG_FORMAT_BGRA
    };
    for (unsigned i = 0; i < SIDE * SIDE; i++)
        part[i] = (screen[(y + i / SIDE) * WIDTH + x + i % SIDE] & 0xffffff) | alpha << 24;
    g_assert_true(png_image_write_to_file(&image, path, 0, part, 0, NULL));
    struct needle *needle = needle_read(path, &error);
    g_assert_no_error(error);
    close(fd);
    g_unlink(path);
    return needle;
}

static void finds(const struct needle *needle, const uint32_t *screen, bool found, uint32_t at_x,
                  uint32_t at_y)
{
    uint32_t x, y;
    double best;
    g_assert_cmpint(needle_find(needle, screen, WIDTH, HEIGHT, 0.95, &x, &y, &best), ==, found);
    if (found) {
        g_assert_cmpuint(x, ==, at_x);
        g_assert_cmpuint(y, ==, at_y);
    }
}

/* Where it is, at the corners too; nowhere on another screen; also when colours are a little off.
 */
static void found_and_not(void)
{
    static const uint32_t places[][2] = {
        { 0, 0 },    { WIDTH - SIDE, 0 }, { 0, HEIGHT - SIDE }, { WIDTH - SIDE, HEIGHT - SIDE },
        { 101, 57 },
    };
    g_autofree uint32_t *screen = new_screen(1), *other = new_screen(2);
    for (size_t i = 0; i < G_N_ELEMENTS(places); i++) {
        struct needle *needle = cut(screen, places[i][0], places[i][1], 0xff);
        finds(needle, screen, true, places[i][0], places[i][1]);
        finds(needle, other, false, 0, 0);
        needle_free(needle);
    }
    struct needle *needle = cut(screen, 50, 60, 0xff);
    for (unsigned i = 0; i < WIDTH * HEIGHT; i++)
        screen[i] ^= 0x0f0f0f;
    finds(needle, screen, true, 50, 60);
    needle_free(needle);
}

/* As many pixels as may be wrong, and more; what is ignored does not count. */
static void similarity(void)
{
    g_autofree uint32_t *screen = new_screen(3);
    struct needle *needle = cut(screen, 40, 30, 0xff);
    for (unsigned y = 0; y < 5; y++) /* 4 % of 576 pixels */
        for (unsigned x = 0; x < 5; x++)
            screen[(30 + y) * WIDTH + 40 + x] ^= 0x808080;
    finds(needle, screen, true, 40, 30);
    for (unsigned y = 0; y < 10; y++)
        for (unsigned x = 0; x < 10; x++)
            screen[(30 + y) * WIDTH + 40 + x] |= 0xffffff;
    finds(needle, screen, false, 0, 0);
    needle_ignore(needle, (struct rectangle){ 0, 0, 10, 10 });
    finds(needle, screen, true, 40, 30);
    needle_ignore(needle, (struct rectangle){ SIDE - 1, SIDE - 1, 100, UINT32_MAX });
    needle_ignore(needle, (struct rectangle){ UINT32_MAX, UINT32_MAX, 1, 1 });
    finds(needle, screen, true, 40, 30);
    needle_free(needle);
}

/* A needle without contrast, one that is all ignored, one larger than the screen. */
static void plain_ones(void)
{
    g_autofree uint32_t *screen = new_screen(4), *plain = g_new0(uint32_t, WIDTH * HEIGHT);
    uint32_t x, y;
    double best;
    struct needle *needle = cut(plain, 0, 0, 0xff), *any = cut(plain, 0, 0, 0x80);
    finds(needle, screen, false, 0, 0);
    for (unsigned i = 0; i < SIDE * SIDE; i++)
        screen[(90 + i / SIDE) * WIDTH + 33 + i % SIDE] = 0;
    finds(needle, screen, true, 33, 90);
    finds(any, screen, true, 0, 0);
    g_assert_false(needle_find(needle, screen, SIDE - 1, SIDE, 0.1, &x, &y, &best));
    needle_free(needle);
    needle_free(any);
}

static void wrong_files(void)
{
    g_autoptr(GError) none = NULL, text = NULL;
    g_autofree char *path = NULL;
    close(g_file_open_tmp("needle-XXXXXX", &path, NULL));
    g_assert_true(g_file_set_contents(path, "no picture", -1, NULL));
    g_assert_null(needle_read(path, &text));
    g_assert_nonnull(strstr(text->message, path));
    g_unlink(path);
    g_assert_null(needle_read(path, &none));
    g_assert_nonnull(none);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/needle/found-and-not", found_and_not);
    g_test_add_func("/needle/similarity", similarity);
    g_test_add_func("/needle/plain-ones", plain_ones);
    g_test_add_func("/needle/wrong-files", wrong_files);
    return g_test_run();
}
