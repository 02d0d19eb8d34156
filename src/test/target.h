/* A machine under test: an `hv run` of its own, and what can be seen of it: the serial port's text,
 * the screen's, and its events. One thread, which calls target_pump when one of the descriptors is
 * ready. */
#pragma once
#include "cli/cli.h"
#include "cli/view.h"
#include "test/script.h"

#include <poll.h>

enum { TARGET_FDS = 5 };

struct target {
    const struct vm *vm;
    char *name;    /* the machine's */
    char *network; /* the socket of the network that all machines of a test share; NULL: one machine
                    */
    char *folder;  /* of the script: file names start there */

    GPid pid; /* of hv run; 0: it does not run */
    int input, output, errors;
    struct client *control, *events;
    struct client *asks; /* of hv-net, which asks the guest for a port; NULL: nobody waits */
    unsigned open_port;  /* its answer; 0: none yet */
    struct view view;

    GString *log;      /* the serial port's text of all starts, without escape sequences */
    size_t log_start;  /* where that of this start begins */
    size_t log_seen;   /* what `see` has found there lies before this */
    char *said;        /* by the last `guest`; NULL: there was none */
    int escape;        /* of the filter: enum in target.c */
    GString *messages; /* of hv, of this start */
    char *screen;      /* its text; "" without any */
    const char *screen_source;
    unsigned guessed;  /* `changes` when it was guessed at last */
    unsigned columns;  /* of a text screen; 0: it shows graphics */
    bool screen_old;   /* it has changed since it was read */
    gint64 changed_at; /* when the picture changed last */
    unsigned changes;
    GQueue happened;        /* char *: events, and states come into, that nobody waited for yet */
    char *stands_still;     /* why: the host has no room, and nobody waited for that event yet */
    char *crash;            /* what crashed; NULL: nothing yet */
    bool crash_wanted;      /* the crash of this start was waited for: no other counts */
    size_t log_judged;      /* by the watch */
    unsigned screen_judged; /* `changes` when the watch looked at the screen last */
    gint64 screen_judged_at;
    size_t log_noted;  /* what is before this is among the moments */
    bool expected_end; /* it may end now */
    int status;        /* of hv, after its end */
    bool cuts;         /* a power cut is to lose what the guest did not flush */
    uint32_t seed;     /* of what it loses; 1 more for each start */
};

struct target *target_new(const struct vm *vm, const char *name, const char *folder,
                          const char *network);
void target_free(struct target *target);

/* Starts it; true when the machine runs. */
bool target_start(struct target *target, bool throwaway, GError **error);
/* In a new process of the test's: signals are for it as for any program, and it ends with us. */
void target_set_up_child(void *unused);
/* Ends it at once, as a power cut does. */
void target_kill(struct target *target);

/* What there is to be waited for; how many were set. */
unsigned target_fds(const struct target *target, struct pollfd *fds);
/* Takes all news there are, without waiting. */
void target_pump(struct target *target);
/* The screen's text, read anew if the picture has changed. */
const char *target_screen(struct target *target);

/* Guesses by tesseract at what the picture says beside the letters that are known, when it has been
 * still for a while: takes seconds, and is done once for a picture. True when the text is another.
 */
bool target_guess(struct target *target);
/* The words on it, of struct word; NULL: it cannot be read. Until the next call of either. */
const GArray *target_words(struct target *target);
/* The process of hv-vmm; 0: there is none. */
pid_t target_vmm(struct target *target);
/* What its processors do, a line for each that runs or halted; NULL when they cannot be asked.
 * `stuck`: none of them will ever do anything again. To be freed. */
char *target_cpus(struct target *target, bool *stuck);

/* From now on open_port tells when the guest accepts TCP connections at the port, until nobody asks
 * any more, or `asks` is NULL: then hv-net has gone. */
bool target_ask_port(struct target *target, unsigned port, GError **error);
void target_ask_no_port(struct target *target);
/* Calls a method; false with an error. */
bool target_call(struct target *target, const char *method, json_t *params, GError **error);
/* Writes to the serial port. */
bool target_write(struct target *target, const char *text, GError **error);
/* A file that the script names: from its folder on. To be freed. */
char *target_file(const struct target *target, const char *name);
/* Keeps the picture. */
bool target_picture(struct target *target, const char *path, GError **error);
