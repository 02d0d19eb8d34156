/* The glyph table; see font.h. */
#include "reading/font.h"

#include <stddef.h>

#include "glyphs.inc"

/* Of a number in the table: its hash above the character, sorted. With 43 bits of hash, one in a
 * hundred million shapes that are no glyph would be taken for one. */
enum { CODE_BITS = 21 };
/* `buckets` tells where in it those begin whose first bits are the bucket's number. */
enum { BUCKET_BITS = 12 };

/* The same as in fonts.py. */
static uint64_t glyph_hash(unsigned width, unsigned height, const uint32_t *rows, uint32_t flip)
{
    uint64_t h = (uint64_t)width << 8 | height;
    for (unsigned i = 0; i < height; i++) {
        h = (h ^ (rows[i] ^ flip)) * 0x9e3779b97f4a7c15;
        h ^= h >> 32;
    }
    return h * 0xd6e8feb86659fd93;
}

uint32_t font_character(unsigned width, unsigned height, const uint32_t *rows, uint32_t flip)
{
    uint64_t key = glyph_hash(width, height, rows, flip) >> CODE_BITS << CODE_BITS;
    const uint32_t *bucket = &buckets[key >> (64 - BUCKET_BITS)];
    size_t low = bucket[0], high = bucket[1]; /* the table's last one is never less */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (glyphs[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    uint64_t found = glyphs[low];
    return found >> CODE_BITS == key >> CODE_BITS ? (uint32_t)(found & ((1 << CODE_BITS) - 1)) : 0;
}

const char *font_missing(void)
{
    return missing_fonts;
}
