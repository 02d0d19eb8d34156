/* The typist: types keys and text on the machine's keyboard, no faster than the guest takes them.
 *
 * A queue of key strokes; the next goes in when the keyboard's queue has room, and for text when
 * the guest has read all that came before. Which keyboard that is, it asks before each turn; what
 * was pressed on one is released there. Any thread, with no device's lock held. */
#pragma once
#include "bus/device.h"

struct typist;

/* `keyboard` gives the keyboard that the guest listens to now, or NULL; it is called with no
 * device's lock held. */
struct typist *typist_new(struct board *board, struct device *(*keyboard)(void *opaque),
                          void *opaque);
/* What keyboards tell when the guest took something: their plug. */
struct input_source *typist_source(struct typist *typist);

/* One key of a person at the keyboard: HID usage, down or up. */
void typist_key(struct typist *typist, uint8_t usage, bool down);
/* UTF-8 text of `length` bytes, typed on a US layout. Returns how many characters were left out:
 * that layout lacks them, or too much waits already. 64 KiB have room when nothing else waits. */
unsigned typist_text(struct typist *typist, const char *text, size_t length);
/* Keys pressed in order and released in reverse, as in ctrl+alt+del; at most TYPIST_CHORD. False
 * when too much waits already. */
enum { TYPIST_CHORD = 8 };
bool typist_chord(struct typist *typist, const uint8_t *usages, unsigned count);
/* Is anything waiting to be typed? */
bool typist_busy(struct typist *typist);

/* A key by its name ("ctrl", "f2", "del", "a"); 0 when there is none. */
uint8_t typist_key_named(const char *name);
/* The name nearest to a wrong one, for the message; NULL when none is near. */
const char *typist_key_near(const char *name);
