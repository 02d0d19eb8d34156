/* The mouse; see mouse.h. The window's thread. */
#include "ui/mouse.h"

#include <SDL.h>

#include "bus/input.h"

bool mouse_grab(struct mouse *mouse, struct SDL_Window *window, bool grab)
{
    if (SDL_SetRelativeMouseMode(grab ? SDL_TRUE : SDL_FALSE) < 0)
        return false;
    SDL_SetWindowKeyboardGrab(window, grab ? SDL_TRUE : SDL_FALSE);
    mouse->grabbed = grab;
    mouse->at &= !grab;
    mouse_let_go(mouse);
    return true;
}

void mouse_let_go(struct mouse *mouse)
{
    mouse->pending |= mouse->buttons != 0;
    mouse->buttons = 0;
}

void mouse_point(struct mouse *mouse, uint32_t x, uint32_t y)
{
    mouse->pending |= x != mouse->x || y != mouse->y || !mouse->at;
    mouse->x = x;
    mouse->y = y;
    mouse->at = true;
}

void mouse_move(struct mouse *mouse, int dx, int dy, int wheel)
{
    mouse->at &= !dx && !dy;
    mouse->dx += dx;
    mouse->dy += dy;
    mouse->wheel += wheel;
    mouse->pending = true;
}

void mouse_button(struct mouse *mouse, unsigned sdl_button, bool down,
                  struct connection *connection)
{
    static const uint8_t bits[] = { [SDL_BUTTON_LEFT] = BUTTON_LEFT,
                                    [SDL_BUTTON_MIDDLE] = BUTTON_MIDDLE,
                                    [SDL_BUTTON_RIGHT] = BUTTON_RIGHT };
    if (sdl_button >= SDL_arraysize(bits) || !bits[sdl_button])
        return;
    if (!down && !(mouse->buttons & bits[sdl_button]))
        return; /* the end of the click that grabbed the mouse */
    mouse_flush(mouse, connection);
    if (down)
        mouse->buttons |= bits[sdl_button];
    else
        mouse->buttons &= ~(uint32_t)bits[sdl_button];
    mouse->pending = true;
    mouse_flush(mouse, connection);
}

void mouse_flush(struct mouse *mouse, struct connection *connection)
{
    if (!mouse->pending)
        return;
    struct display_message message = { .kind = mouse->at ? DISPLAY_POINTER_AT : DISPLAY_POINTER,
                                       .a = mouse->at ? mouse->x : (uint32_t)mouse->dx,
                                       .b = mouse->at ? mouse->y : (uint32_t)mouse->dy,
                                       .c = (uint32_t)mouse->wheel,
                                       .d = mouse->buttons };
    connection_send(connection, &message);
    mouse->dx = mouse->dy = mouse->wheel = 0;
    mouse->pending = false;
}
