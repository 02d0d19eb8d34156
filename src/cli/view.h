/* The viewer's end of a machine's display socket, and what its screen says: for hv screen and
 * hv test. One thread. The machine holds the guest, so nothing it says is trusted. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/display-protocol.h"
#include "bus/screen.h"
#include "reading/reading.h"

struct view {
    int fd;                   /* the socket; readable when there is news for view_take */
    const uint32_t *frame;    /* the picture, changing under us */
    size_t frame_bytes;       /* how much of it there is */
    uint32_t width, height;   /* 0 before the first picture */
    struct rectangle changed; /* joined until view_read or the user takes it */
    struct reading *reading;
};

/* Connects to a machine's screen. False with an error; view_close is due in either case. */
bool view_open(struct view *view, const char *name, GError **error);
void view_close(struct view *view);

/* A picture that has not changed for so long is worth guessing at what it says: reading_guess. */
enum { VIEW_STILL_MS = 2000 };

enum view_news { VIEW_NOTHING, VIEW_CHANGED, VIEW_ENDED };
/* Takes what the socket has without waiting; VIEW_CHANGED when the picture came or changed. */
enum view_news view_take(struct view *view);
/* The same, but waits for a change or the machine's end, at most so long; VIEW_NOTHING then. */
enum view_news view_wait(struct view *view, int timeout_ms);

/* Brings `reading` up to date with what changed of the picture. True when the text is another. */
bool view_read(struct view *view);

/* Writes the picture as PNG; "-" is the standard output. */
bool view_png(const struct view *view, const char *path, GError **error);
