/* The bitmap fonts that are known: a table made at build time (fonts.py). Any thread. */
#pragma once
#include <stdint.h>

enum { GLYPH_WIDTH_MAX = 16, GLYPH_HEIGHT_MAX = 32 };

/* The character that looks like that in some font, 0 for none. A row's lowest bit is its rightmost
 * pixel; `flip` is added to each row (exclusive or): all pixels of a row for a glyph in inverse. */
uint32_t font_character(unsigned width, unsigned height, const uint32_t *rows, uint32_t flip);

/* The fonts that hv was built without, for people; "" when it has all. */
const char *font_missing(void);
