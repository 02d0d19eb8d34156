/* The menu strip above the picture: menus, name and state, lamps, who has the mouse. In full screen
 * it comes when the free pointer touches the top. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "ui/command.h"

struct panel {
    enum menu open;  /* MENU_NONE: closed */
    enum menu hover; /* the menu's name under the pointer */
    int item;        /* chosen in the open menu: an index of commands[]; -1: none */
    bool touched;    /* the pointer is at the top edge */
};

void panel_draw(struct viewer *viewer);
/* The card over the picture that says why the machine does not run, if it does not. */
void panel_draw_state(struct viewer *viewer);
/* True when the strip stands over the picture or above it. */
bool panel_visible(const struct viewer *viewer);

/* The pointer, in pixels. True when the strip took it (a click also closes an open menu). */
bool panel_motion(struct viewer *viewer, int x, int y);
bool panel_click(struct viewer *viewer, int x, int y);
/* A key while a menu is open. */
void panel_key(struct viewer *viewer, uint8_t usage);
void panel_open_menu(struct viewer *viewer, enum menu menu);

/* "running", "paused"... */
const char *panel_state_word(const struct viewer *viewer);
