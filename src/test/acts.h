/* What the verbs of a test script do: one function each, acts.c has the table of them. Each does
 * its command and returns false with an error when that failed. See run.h. */
#pragma once
#include "test/run.h"

/* Seconds of patience when the script says none: for what a guest does by itself, and for its end.
 */
enum { ACT_PATIENCE_S = 60, ACT_END_S = 120 };

typedef bool act_function(struct run *run, struct target *target, const struct command *command,
                          GError **error);
act_function act_skip;
act_function act_boot;
act_function act_reboot;
act_function act_poweroff;
act_function act_off;
act_function act_power_cut;
act_function act_reset;
act_function act_pause;
act_function act_resume;
act_function act_restore;
act_function act_see;
act_function act_see_image;
act_function act_not_see;
act_function act_log;
act_function act_not_log;
act_function act_still;
act_function act_change;
act_function act_event;
act_function act_port;
act_function act_crash;
act_function act_type;
act_function act_key;
act_function act_click;
act_function act_move;
act_function act_scroll;
act_function act_set;
act_function act_run;
act_function act_guest;
act_function act_copy;
act_function act_host;
act_function act_net;
act_function act_disk;
act_function act_eject;
act_function act_screenshot;

/* Microseconds of [within DURATION]; the preset is in seconds. */
gint64 act_within(const struct command *command, unsigned seconds);
/* The text of an argument; NULL when it is not there. */
const char *act_text(const struct command *command, const char *name);

/* --- shared by several (acts-see.c, acts-input.c) --------------------------------------------- */

/* What a see or log looks for, and where. */
struct look {
    const struct command *command;
    bool screen, serial, consume; /* consume: what was found on the serial port counts once */
    size_t from;
    unsigned changes;
    gint64 quiet;
    const char *crash;
};

/* Where a text or a pattern begins; NULL when it is not in there. */
const char *act_find(const struct token *wanted, const char *text);
const char *act_find_part(const struct token *wanted, const char *text, size_t *length);
/* Adds what came nearest to the command's texts to the error. */
void act_add_nearest(struct target *target, const struct command *command, GError **error);
/* Waits for the command's picture; its middle, in pixels of the screen. */
bool act_find_picture(struct run *run, struct target *target, const struct command *command,
                      uint32_t *x, uint32_t *y, GError **error);
/* The last line of a text that is not empty ends as prompts of shells do. */
bool act_prompt(const char *text);
/* For run_wait, with a struct look: there is a prompt. */
wait_test act_test_prompt;
/* Types it, and waits until the guest has taken all. */
bool act_type_text(struct run *run, struct target *target, const char *text, GError **error);
