/* Between reading.c and guess.c: what a reader consists of. hv-vmm links the former alone. */
#pragma once
#include "reading/grid.h"
#include "reading/reading.h"

struct reading {
    struct grid grid; /* of the cells; shape NULL with those of a text screen */
    struct cell *cells;
    uint32_t width, height; /* of the picture */
    enum reading_source source;
    struct rectangle stale; /* has changed, and has no glyphs: tesseract's */
    GArray *guessed;        /* struct word that tesseract found; their text is theirs */

    GString *text; /* made when asked for; NULL */
    GArray *words;
    GStringChunk *strings; /* their text */
};

/* The text is another one now. */
void reading_forget_text(struct reading *reading);
