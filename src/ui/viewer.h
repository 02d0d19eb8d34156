/* The viewer: the window with all its parts, and what they do to each other. Everything here is
 * the window's thread's. */
#pragma once
#include "ui/connection.h"
#include "ui/dialog.h"
#include "ui/draw.h"
#include "ui/keyboard.h"
#include "ui/mouse.h"
#include "ui/panel.h"
#include "ui/select.h"
#include "ui/window.h"

struct viewer {
    struct connection *connection;
    struct window window;
    struct draw *draw;
    struct keyboard keyboard;
    struct mouse mouse;
    struct panel panel;
    struct dialog dialog;
    struct selection selection;
    struct update update; /* what the machine told last */
    char *name;           /* of the machine */
    char *title;          /* what the window's title bar says now */
    char *message;        /* shown in the strip until message_end */
    bool help;            /* the help overlay is shown */
    bool dirty;           /* something on the screen is out of date */
    bool leaving;
    int status;                    /* the exit status */
    uint32_t event_type;           /* of SDL: the connection has news */
    uint32_t disk_seen;            /* the disk's counter when the lamp was lit */
    int64_t disk_end, message_end; /* monotonic us; 0: not lit, no message */
};

bool viewer_start(struct viewer *viewer, int socket, GError **error);
void viewer_finish(struct viewer *viewer);

/* What an SDL event does (event.c); the connection's own calls viewer_take_news. */
void viewer_event(struct viewer *viewer, const SDL_Event *event);
void viewer_take_news(struct viewer *viewer);
/* After a batch of events: sends motion, ends lamps and messages, repaints if anything changed. */
void viewer_settle(struct viewer *viewer);
/* Milliseconds until viewer_settle has something to do; -1: never. */
int viewer_patience(const struct viewer *viewer);

/* For the commands. */
void viewer_key(struct viewer *viewer, uint8_t usage, bool down);
void viewer_action(struct viewer *viewer, enum display_action action);
void viewer_say(struct viewer *viewer, const char *format, ...) G_GNUC_PRINTF(2, 3);
void viewer_grab(struct viewer *viewer, bool grab);
/* Keys and mouse are the viewer's own now: the guest's keys go up, the mouse is free. */
void viewer_take_input(struct viewer *viewer);
void viewer_show_dialog(struct viewer *viewer, enum dialog_kind kind);
void viewer_leave(struct viewer *viewer, int status);

/* Is the host's pointer the guest's while it is in the picture? */
bool viewer_points(const struct viewer *viewer);
/* Nothing will change any more: the guest crashed, or its program is gone. */
bool viewer_is_over(const struct viewer *viewer);
