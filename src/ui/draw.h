/* Drawing of the viewer's own things over the picture: boxes and text, in pixels, sized in points
 * (`draw_px`) so that they are as large on a HiDPI screen. The window's thread. */
#pragma once
#include <SDL.h>
#include <glib.h>
#include <stdbool.h>

#include "ui/geometry.h"

struct draw;

enum draw_font { FONT_TEXT, FONT_TITLE, FONTS };

/* The palette: 0xRRGGBBAA. */
enum draw_colour {
    COLOUR_STRIP,
    COLOUR_EDGE,
    COLOUR_PANEL,
    COLOUR_HOVER,
    COLOUR_ACCENT,
    COLOUR_DANGER,
    COLOUR_TEXT,
    COLOUR_FAINT,
    COLOUR_LAMP,
    COLOUR_DISK,
    COLOUR_OFF,
    COLOUR_GOOD,
    COLOUR_SELECTION, /* over the text that is selected */
    COLOUR_DIM,       /* over the picture of a machine that does not run */
    COLOURS
};

struct draw *draw_new(SDL_Renderer *renderer);
void draw_free(struct draw *draw);

/* Pixels per point; fonts are opened anew when it changes. */
void draw_set_density(struct draw *draw, double density);
int draw_px(const struct draw *draw, int points);

void draw_box(struct draw *draw, struct box box, enum draw_colour colour);
void draw_frame(struct draw *draw, struct box box, enum draw_colour colour);
/* A box of a card: shadow, panel, edge. */
void draw_card(struct draw *draw, struct box box);

int draw_text_width(struct draw *draw, enum draw_font font, const char *text);
int draw_text_height(struct draw *draw, enum draw_font font);
/* Text from x, vertically in the middle of [y, y + height). Returns its width. Nothing without a
 * font. */
int draw_text(struct draw *draw, enum draw_font font, enum draw_colour colour, const char *text,
              int x, int y, int height);
/* The text, cut and ended by an ellipsis if it is wider than `width`. */
char *draw_shorten(struct draw *draw, enum draw_font font, const char *text, int width);
/* Text of several lines, wrapped at `width`, centred in it. Returns its height. */
int draw_paragraph(struct draw *draw, enum draw_font font, enum draw_colour colour,
                   const char *text, int x, int y, int width);

static inline bool box_has(struct box box, int x, int y)
{
    return x >= box.x && y >= box.y && x < box.x + box.width && y < box.y + box.height;
}
