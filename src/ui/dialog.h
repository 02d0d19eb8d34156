/* Questions, asked over the picture and answered with the mouse or the keys; and the help. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum dialog_kind { DIALOG_NONE, DIALOG_CLOSE, DIALOG_RESET, DIALOG_POWER_OFF };

struct viewer;
struct dialog {
    enum dialog_kind kind; /* DIALOG_NONE: none is shown */
    unsigned chosen;       /* the button that Enter presses */
};

void dialog_draw(struct viewer *viewer);
void dialog_motion(struct viewer *viewer, int x, int y);
void dialog_click(struct viewer *viewer, int x, int y);
void dialog_key(struct viewer *viewer, uint8_t usage);

/* The shortcuts, on a card. */
void help_draw(struct viewer *viewer);
