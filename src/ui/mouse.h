/* The mouse. Grabbed, motion of the host's pointer becomes relative motion of the guest's; else,
 * for guests that take positions, the host's pointer in the picture is the guest's. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "ui/connection.h"

struct SDL_Window;
struct mouse {
    bool grabbed, pending;
    int32_t dx, dy, wheel; /* not sent yet */
    uint32_t x, y;         /* the position in the picture, 0..POINTER_RANGE */
    bool at;               /* positions are sent, not motion */
    uint32_t buttons;      /* enum pointer_button */
};

/* Hides the host's pointer and keeps it, and the keys of the desktop, in the window; or lets go of
 * both and of all buttons. False when the display server refuses. */
bool mouse_grab(struct mouse *mouse, struct SDL_Window *window, bool grab);

void mouse_move(struct mouse *mouse, int dx, int dy, int wheel);
void mouse_point(struct mouse *mouse, uint32_t x, uint32_t y);
/* All buttons up. */
void mouse_let_go(struct mouse *mouse);
/* An SDL button. What was moved before goes out before. */
void mouse_button(struct mouse *mouse, unsigned sdl_button, bool down,
                  struct connection *connection);
/* Sends what is pending as one message. */
void mouse_flush(struct mouse *mouse, struct connection *connection);
