/* One character cell of a picture: its dots, and the character they show. Any thread. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "reading/font.h"

/* Pixels 0xXXRRGGBB in rows without gaps; they may change under us. */
struct canvas {
    const uint32_t *pixels;
    uint32_t width, height;
};

/* How glyphs stand in cells: the glyph's size, the cell's width in dots (VGA text has nine with
 * glyphs of eight), and how many pixels a dot is wide and high. */
struct shape {
    uint8_t width, height, step, dot, line;
};
static inline uint32_t shape_cell_width(const struct shape *shape)
{
    return (uint32_t)shape->step * shape->dot;
}
static inline uint32_t shape_cell_height(const struct shape *shape)
{
    return (uint32_t)shape->height * shape->line;
}

enum cell_kind {
    CELL_BLANK,   /* of one colour */
    CELL_KNOWN,   /* a glyph */
    CELL_HALF,    /* the right half of a glyph that is two cells wide */
    CELL_UNKNOWN, /* two colours, and no glyph: U+FFFD */
    CELL_PICTURE, /* more colours, and no glyph in front of them: no text */
};

struct cell {
    uint32_t code;       /* ' ' when there is no text */
    uint32_t ink, paper; /* colours; paper alone in a blank cell */
    uint8_t kind;        /* enum cell_kind */
    bool strong;         /* a shape that is hardly there by chance: letters, no lines and dots */
};

/* A cell's dots: bits of row[i] are set where the colour is not that of the first pixel. */
struct dots {
    uint32_t rows[GLYPH_HEIGHT_MAX];
    uint32_t colours[2];
    bool uniform; /* of colours[0] alone */
    bool mixed;   /* there are more than two colours, or halves of dots */
};

/* Looks at the cell whose left upper pixel is x, y; all of it is in the picture. With `quick`,
 * stops at the third colour. */
void cell_scan(const struct canvas *canvas, const struct shape *shape, uint32_t x, uint32_t y,
               bool quick, struct dots *dots);

/* What dots of two colours or one show. `paper` is the colour of the cell's neighbourhood, by which
 * shapes are told from their inverse. */
void cell_read(const struct dots *dots, const struct shape *shape, uint32_t paper,
               struct cell *cell);

/* The same for an unknown cell that a cursor may lie on: lines of it filled or inverted. */
bool cell_read_cursor(const struct dots *dots, const struct shape *shape, struct cell *cell);

/* A glyph of the colour `ink` before any background. */
bool cell_read_ink(const struct canvas *canvas, const struct shape *shape, uint32_t x, uint32_t y,
                   uint32_t ink, struct cell *cell);

/* The colours that are most frequent in a cell; how many were found. */
enum { CELL_COLOURS = 4 };
unsigned cell_colours(const struct canvas *canvas, const struct shape *shape, uint32_t x,
                      uint32_t y, uint32_t colours[CELL_COLOURS]);

/* Is it nothing but some full lines in its lower half? That is how a cursor looks on an empty cell.
 */
bool cell_is_underline(const struct dots *dots, const struct shape *shape);
