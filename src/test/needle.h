/* Looking for a picture on a screen. Anybody may call everything here. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "bus/screen.h"

struct needle {
    uint32_t width, height;
    uint32_t *pixels; /* 0xXXRRGGBB */
    GByteArray *mask; /* a byte for each pixel: 0 is any colour */
};

enum { NEEDLE_MAX = 4096 }; /* pixels of a side */

/* Reads a PNG; what is transparent may be anything. NULL with an error. */
struct needle *needle_read(const char *path, GError **error);
void needle_free(struct needle *needle);
/* Any colour will do there; what is outside of it does not count. */
void needle_ignore(struct needle *needle, struct rectangle area);

/* Where on a screen of that size the picture is most like what is there: true when at least a part
 * of 1 of its pixels are of nearly the same colour, `wanted`. *best: how many are, at *x, *y. Of
 * the places the 16 are compared as a whole that are the most alike in a few pixels with contrast.
 */
bool needle_find(const struct needle *needle, const uint32_t *pixels, uint32_t width,
                 uint32_t height, double wanted, uint32_t *x, uint32_t *y, double *best);
