/* A draft of a test script, from what a user does in a window. It knows keys, clicks and texts, and
 * nothing of where they come from. One thread. */
#pragma once
#include "keys/keys.h"

struct recorder {
    GString *script;          /* the lines so far, of a boot's block */
    GString *typed;           /* characters that follow each other: not yet a line */
    uint8_t held[CHORD_KEYS]; /* keys that only change others: shift, ctrl ... */
    const struct key_map *map;
};

void recorder_init(struct recorder *recorder, const struct key_map *map);
void recorder_finish(struct recorder *recorder);

void recorder_key(struct recorder *recorder, uint8_t usage, bool down);
/* Text that was pasted. */
void recorder_text(struct recorder *recorder, const char *text);
/* A button went down there; what stands there, when that is to be seen once on the screen: NULL
 * else. button: "" is the left one, else "right " or "middle ". */
void recorder_click(struct recorder *recorder, const char *button, unsigned x, unsigned y,
                    const char *text);
void recorder_scroll(struct recorder *recorder, int steps);
/* A line of the script as it is. */
void recorder_line(struct recorder *recorder, const char *line);
/* There was a pause, and the screen went from one text to the other: a `see` with something new of
 * it that does not look as if it were another one next time. */
void recorder_saw(struct recorder *recorder, const char *before, const char *now);
/* The lines, all of them. */
const char *recorder_lines(struct recorder *recorder);
