/* The guest's text, selected with the mouse while the host key is held, and copied to the
 * clipboard: whatever shows it, a BIOS, a boot loader or a kernel that panicked. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct viewer;
struct reading;
struct selection {
    struct reading *reading; /* of the picture as it was when the drag began; NULL: no drag */
    uint32_t from[2], to[2]; /* column and row */
};

/* Positions in the window, in pixels. */
void selection_begin(struct viewer *viewer, int x, int y);
void selection_move(struct viewer *viewer, int x, int y);
/* Copies what is selected; or drops it. */
void selection_end(struct viewer *viewer, bool copy);
void selection_draw(struct viewer *viewer);
