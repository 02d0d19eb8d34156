/* Pictures on a screen; see needle.h. */
#include "test/needle.h"

#include "base/error.h"

#include <png.h>
#include <string.h>

enum {
    NEARLY = 16,     /* by how much a colour's part may be off: dithering, other drivers */
    CONTRAST = 48,   /* and by how much neighbours differ where something is to be seen */
    SAMPLES = 64,    /* pixels that are compared everywhere */
    CANDIDATES = 16, /* places that are compared as a whole */
};

struct needle *needle_read(const char *path, GError **error)
{
    png_image image = { .version = PNG_IMAGE_VERSION };
    struct needle *needle = NULL;
    if (!png_image_begin_read_from_file(&image, path)) {
        hv_fail(error, HV_FAILED, "%s: %s", path, image.message);
    } else if (image.width > NEEDLE_MAX || image.height > NEEDLE_MAX) {
        hv_fail(error, HV_FAILED, "%s: it has %u x %u pixels: at most %d a side can be looked for",
                path, image.width, image.height, NEEDLE_MAX);
    } else {
        needle = g_new0(struct needle, 1);
        needle->width = image.width;
        needle->height = image.height;
        needle->pixels = g_new(uint32_t, (gsize)image.width * image.height);
        needle->mask = g_byte_array_new();
        image.format = PNG_FORMAT_BGRA;
        if (!png_image_finish_read(&image, NULL, needle->pixels, 0, NULL)) {
            hv_fail(error, HV_FAILED, "%s: %s", path, image.message);
            g_clear_pointer(&needle, needle_free);
        }
    }
    png_image_free(&image);
    for (gsize i = 0; needle && i < (gsize)needle->width * needle->height; i++) {
        uint8_t counts = needle->pixels[i] >> 24 == 0xff;
        g_byte_array_append(needle->mask, &counts, 1);
    }
    return needle;
}

void needle_free(struct needle *needle)
{
    if (!needle)
        return;
    g_free(needle->pixels);
    g_byte_array_free(needle->mask, true);
    g_free(needle);
}

void needle_ignore(struct needle *needle, struct rectangle area)
{
    for (uint32_t y = area.y; y < needle->height && y - area.y < area.height; y++)
        for (uint32_t x = area.x; x < needle->width && x - area.x < area.width; x++)
            needle->mask->data[(gsize)y * needle->width + x] = 0;
}

static int part_off(uint32_t a, uint32_t b, unsigned shift)
{
    return ABS((int)(a >> shift & 0xff) - (int)(b >> shift & 0xff));
}

static bool differs(uint32_t a, uint32_t b, int by)
{
    return part_off(a, b, 0) > by || part_off(a, b, 8) > by || part_off(a, b, 16) > by;
}

/* --- the few pixels -------------------------------------------------------------------------- */

struct sample {
    uint32_t x, y, pixel;
};

/* Evenly chosen of the pixels that count; `contrast`: of those that differ from the one to their
 * right. They go to `samples` from the n-th on; how many there are then. */
static unsigned choose(const struct needle *needle, bool contrast, struct sample *samples,
                       unsigned n)
{
    for (gsize pass = 0, step = 1; pass < 2; pass++) { /* the first one counts */
        gsize seen = 0;
        for (uint32_t y = 0; y < needle->height; y++)
            for (uint32_t x = 0; x + contrast < needle->width; x++) {
                gsize at = (gsize)y * needle->width + x;
                if (!needle->mask->data[at] ||
                    (contrast && !differs(needle->pixels[at], needle->pixels[at + 1], CONTRAST)))
                    continue;
                if (pass && seen % step == 0 && n < SAMPLES)
                    samples[n++] = (struct sample){ x, y, needle->pixels[at] };
                seen++;
            }
        step = MAX(seen / MAX(SAMPLES - n, 1u), 1);
    }
    return n;
}

struct candidate {
    uint32_t x, y;
    unsigned wrong; /* of the samples */
};

/* How many samples are wrong there; it stops at `most`. */
static unsigned count_wrong(const struct sample *samples, unsigned count, const uint32_t *at,
                            uint32_t width, unsigned most)
{
    unsigned wrong = 0;
    for (unsigned i = 0; i < count && wrong < most; i++)
        wrong += differs(samples[i].pixel, at[(gsize)samples[i].y * width + samples[i].x], NEARLY);
    return wrong;
}

/* Keeps the best ones in order. */
static void offer(struct candidate *candidates, unsigned *count, struct candidate new)
{
    unsigned i = *count < CANDIDATES ? (*count)++ : CANDIDATES - 1;
    for (; i > 0 && candidates[i - 1].wrong > new.wrong; i--)
        candidates[i] = candidates[i - 1];
    candidates[i] = new;
}

/* --- the whole ------------------------------------------------------------------------------- */

/* The part of the pixels that count which are nearly the same. */
static double compare(const struct needle *needle, const uint32_t *at, uint32_t width)
{
    gsize all = 0, same = 0;
    for (uint32_t y = 0; y < needle->height; y++)
        for (uint32_t x = 0; x < needle->width; x++) {
            gsize i = (gsize)y * needle->width + x;
            if (!needle->mask->data[i])
                continue;
            all++;
            same += !differs(needle->pixels[i], at[(gsize)y * width + x], NEARLY);
        }
    return all ? (double)same / (double)all : 1;
}

bool needle_find(const struct needle *needle, const uint32_t *pixels, uint32_t width,
                 uint32_t height, double wanted, uint32_t *x, uint32_t *y, double *best)
{
    struct sample samples[SAMPLES];
    struct candidate candidates[CANDIDATES];
    unsigned count = 0, found = 0;
    *best = 0;
    *x = *y = 0;
    if (needle->width > width || needle->height > height)
        return false;
    count = choose(needle, true, samples, 0);
    count = choose(needle, false, samples, count);
    for (uint32_t row = 0; row <= height - needle->height; row++)
        for (uint32_t column = 0; column <= width - needle->width; column++) {
            unsigned most = found < CANDIDATES ? SAMPLES + 1 : candidates[CANDIDATES - 1].wrong;
            unsigned wrong =
                count_wrong(samples, count, pixels + (gsize)row * width + column, width, most);
            if (wrong < most)
                offer(candidates, &found, (struct candidate){ column, row, wrong });
        }
    for (unsigned i = 0; i < found; i++) {
        double alike =
            compare(needle, pixels + (gsize)candidates[i].y * width + candidates[i].x, width);
        if (alike <= *best)
            continue;
        *best = alike;
        *x = candidates[i].x;
        *y = candidates[i].y;
    }
    return *best >= wanted;
}
