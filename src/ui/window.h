/* The SDL window and the guest's picture in it. The window's thread. */
#pragma once
#include <SDL.h>
#include <glib.h>
#include <stdbool.h>

#include "bus/screen.h"
#include "ui/geometry.h"

enum { STRIP_POINTS = 30 }; /* the height of the menu strip above the picture */

struct window {
    SDL_Window *window;
    SDL_Renderer *renderer;
    SDL_Texture *picture; /* width x height of the mode */
    SDL_Texture *sharp;   /* the picture enlarged by whole numbers, on its way to another size */
    uint32_t width, height;
    enum scaling scaling;
    bool full_screen;
    bool user_sized;  /* somebody chose the size: keep it at a change of mode */
    struct box asked; /* the size that we last gave it, in points */
    double density;   /* pixels per point */
    struct box room;  /* all of the window, in pixels */
};

/* Opens it in the size of a text screen. The video subsystem of SDL is up. */
bool window_open(struct window *window, const char *title, GError **error);
void window_close(struct window *window);

/* A new mode; what the picture holds is not known until window_upload. False when there is no
 * memory for it. */
bool window_mode(struct window *window, uint32_t width, uint32_t height);
/* Takes the damaged part of the frame, whose rows have the mode's width. */
void window_upload(struct window *window, const uint32_t *pixels, struct rectangle damage);

/* The window has another size or moved to another screen. */
void window_resized(struct window *window);
void window_set_scaling(struct window *window, enum scaling scaling);
void window_set_full_screen(struct window *window, bool full);

/* Where the picture is, in pixels. */
struct box window_place(const struct window *window);
/* Clears all and draws the picture, or black before the first mode. */
void window_draw_picture(struct window *window);
