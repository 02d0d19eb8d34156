/* Where on a picture the character cells are. Any thread. */
#pragma once
#include "bus/screen.h"
#include "reading/cell.h"

/* Cells cover the picture from x, y on, which are less than a cell's size. */
struct grid {
    const struct shape *shape; /* NULL: none */
    uint32_t x, y, columns, rows;
};

/* Looks for text: samples of what stands on the picture are read in all shapes at all places, and
 * what explains most of them wins. False when it is no text in a known font. */
bool grid_find(const struct canvas *canvas, struct grid *grid);
