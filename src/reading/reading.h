/* The screen as text: a picture's characters, read exactly by the shapes of known fonts.
 *
 * A reader remembers where the character cells are and what they show; after a change it looks at
 * the cells that changed alone. Colours do not matter, nor does a cursor. What is of two colours
 * and no known glyph is U+FFFD; what has more colours is a picture and no text; a cell of one
 * colour is a space. One thread at a time. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "bus/screen.h"

enum reading_source {
    READING_NONE,
    READING_CELLS,  /* the guest's own text screen */
    READING_GLYPHS, /* shapes of known fonts */
    READING_OCR,    /* guessed by tesseract */
};
/* "cells", "glyphs", "ocr"; "none". */
const char *reading_source_name(enum reading_source source);

/* What stands between spaces in a line. Pixels of the picture. */
struct word {
    const char *text; /* UTF-8 */
    uint32_t x, y, width, height;
    uint32_t line; /* which one of the text, from 0 */
    enum reading_source source;
};

struct reading;
struct reading *reading_new(void);
void reading_free(struct reading *reading);

/* Reads what changed of a picture of width x height pixels, 0xXXRRGGBB, without gaps between rows;
 * they may go on changing meanwhile. True when the text is another one now. */
bool reading_update(struct reading *reading, const uint32_t *pixels, uint32_t width,
                    uint32_t height, struct rectangle changed);

/* The text is that of a text screen, whose picture has width x height pixels (may be 0). */
void reading_set_cells(struct reading *reading, const gunichar *codes, uint32_t columns,
                       uint32_t rows, uint32_t width, uint32_t height);

/* Reads by tesseract what has changed since the last call and has no known glyphs; seconds rather
 * than milliseconds. False with an error when that is not installed or fails. */
bool reading_guess(struct reading *reading, const uint32_t *pixels, uint32_t width, uint32_t height,
                   GError **error);

/* All lines, each with its end; without spaces at their ends. Until the next change. */
const char *reading_text(struct reading *reading);
/* The words, of struct word, line by line. Until the next change. */
const GArray *reading_words(struct reading *reading);
/* Where most of the text comes from. */
enum reading_source reading_source(const struct reading *reading);
/* How many cells there are; 0 without any. */
void reading_size(const struct reading *reading, uint32_t *columns, uint32_t *rows);

/* The cell at a pixel, the nearest one outside of them. False when there are none. */
bool reading_cell_at(const struct reading *reading, uint32_t x, uint32_t y, uint32_t *column,
                     uint32_t *row);
/* Where a cell is. */
struct rectangle reading_cell_box(const struct reading *reading, uint32_t column, uint32_t row);
/* The text from one cell to another, both with it, as terminals select: to the ends of lines. */
char *reading_between(const struct reading *reading, uint32_t column, uint32_t row,
                      uint32_t last_column, uint32_t last_row);
