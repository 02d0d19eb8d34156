/* What the screen says, for the control socket: cells of a text screen, known glyphs of a picture.
 *
 * The display's thread reads, when the picture changes and as long as somebody watches or asks; the
 * machine's thread is told. Called from the machine's thread. */
#pragma once
#include "machine/display.h"

struct screen_reader;

/* Before display_start. `changed` is called when the text is another one, while watched. */
struct screen_reader *screen_reader_new(struct machine *machine, struct display *display,
                                        void (*changed)(void *opaque), void *opaque);
/* `changed` comes from now on, and once soon whether or not the text changes; or no more. */
void screen_reader_watch(struct screen_reader *reader, bool on);

struct screen_says {
    char *text; /* all lines, each with its end; the caller's */
    uint32_t columns, rows;
};
/* What was read last. */
struct screen_says screen_reader_last(struct screen_reader *reader);
/* Reads the screen now: some milliseconds. False when the display has no time for a second. */
bool screen_reader_read(struct screen_reader *reader, struct screen_says *says);
