/* The display socket's server: the picture to every viewer, their keys and mouse to the machine.
 *
 * It has a thread of its own, so that a slow viewer or a large picture never holds up a vCPU or the
 * control socket. With no viewer it does nothing: no rendering, no timer. With a still picture it
 * looks twice a second. Called from the machine's thread. */
#pragma once
#include "machine/machine.h"

struct display;

/* For viewers that connect to the listening socket; pasted text goes to the typist. They are served
 * from display_start on, which comes after the settings below. */
struct display *display_new(struct machine *machine, int listener, GError **error);
void display_start(struct display *display);

struct typist;
void display_set_typist(struct display *display, struct typist *typist);

/* How many viewers are connected. Any thread. */
unsigned display_viewers(struct display *display);
/* The last viewer may be what keeps a crashed machine: told on the machine's thread. */
void display_on_last_gone(struct display *display, void (*gone)(void *opaque), void *opaque);
/* Somebody in this process who looks at the picture too. Told on the display's thread: first, at
 * once, of the whole picture (of 0 x 0 pixels when there is none), then of what changed. */
struct onlooker {
    void (*seen)(struct onlooker *onlooker, const struct picture *picture, struct rectangle changed,
                 bool first);
};
/* Before display_start. */
void display_set_onlooker(struct display *display, struct onlooker *onlooker);
/* Tells the onlooker from now on, beginning anew when it is told already; or no more (a last time
 * may still be under way). */
void display_look_on(struct display *display, bool on);
/* Sends what is left to say (the machine is off) and ends the thread. */
void display_stop(struct display *display);
