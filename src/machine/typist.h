/* The typist: types keys and text on the machine's keyboard, no faster than the guest takes them.
 *
 * A queue of chords; of text and chords the next key goes in when the guest has taken the one
 * before, and what the guest threw away untaken (it reset the keyboard) is typed again. A person's
 * keys fill the keyboard's own queue. Which keyboard that is, it asks before each turn; what was
 * pressed on one is released there. A Caps Lock whose lamp is on is turned off before text. Any
 * thread, with no device's lock held. */
#pragma once
#include "bus/device.h"
#include "keys/keys.h"

struct typist;

/* `keyboard` gives the keyboard that the guest listens to now, or NULL; it is called with no
 * device's lock held. */
struct typist *typist_new(struct board *board, struct device *(*keyboard)(void *opaque),
                          void *opaque);
void typist_free(struct typist *typist);
/* What keyboards tell when the guest took something: their plug. */
struct input_source *typist_source(struct typist *typist);
/* The guest's layout, for text; takes it over. US without. Before the machine runs. */
void typist_set_map(struct typist *typist, struct key_map *map);
/* Told, on any thread, when the guest has taken the last of what was to be typed. Before the
 * machine runs. */
void typist_on_typed(struct typist *typist, void (*typed)(void *opaque), void *opaque);

/* One key of a person at the keyboard: HID usage, down or up. */
void typist_key(struct typist *typist, uint8_t usage, bool down);
/* Keys pressed in order and released in reverse, as in ctrl+alt+del. `hold`: down as long as a
 * finger would hold them, for guests that look at the keyboard now and then. False when too much
 * waits already. */
bool typist_chord(struct typist *typist, const struct chord *chord, bool hold);
/* UTF-8 text on the guest's layout. The rest of it has no room when taken < length. 64 KiB have
 * room when nothing else waits. */
struct typist_answer {
    size_t taken;        /* bytes */
    unsigned characters; /* in them */
    unsigned left_out;   /* of these: the layout lacks them */
    gunichar first;      /* of those */
};
struct typist_answer typist_text(struct typist *typist, const char *text, size_t length);
/* Is there anything that the guest has not taken yet? */
bool typist_busy(struct typist *typist);
