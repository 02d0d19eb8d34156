/* Runs a test script: its machines, its steps, and what came of them. One thread. */
#pragma once
#include "test/patience.h"
#include "test/result.h"
#include "test/target.h"

/* The name of a machine: of the process that does the script, and what the script calls it. */
#define RUN_MACHINE "test-%d-%s"

struct run {
    struct script *script;
    char *folder;       /* the script's ${folder} */
    GPtrArray *targets; /* struct target */
    GPtrArray *results; /* struct result */
    struct result *now; /* the step that is done */
    GArray *helpers;    /* GPid: process groups of host commands that end with the test */
    char *output;       /* the folder for pictures and logs; made when it is needed */
    gint64 began;       /* monotonic */
    struct patience whole;
    unsigned watch;                                                 /* enum crash_set */
    void (*finished)(struct run *run, const struct result *result); /* told of each step */
    bool pictures; /* of each step's end; else only of failures */
    uint32_t seed; /* of what is left to chance */
    unsigned halt; /* at the step with this number `halted` is called, and that is all; 0: never */
    void (*halted)(struct run *run);
    int stop;     /* readable when all shall end; -1: nothing tells */
    bool stopped; /* it does */
    bool skip;    /* the rest of the script */

    /* What is done again to come to a mark (restore.c): the commands after the first one (NULL:
     * all) and before the last one (NULL: all), without a word. */
    const struct command *after, *until;
    bool arrived; /* at `until` */
    bool silent;
};

/* Does what the source says with the values (char * to char *), in which script_parse found no
 * problem; `output` is where files of failures go. ${folder} is an empty one at the start, and gone
 * at the end. False when a step failed. */
bool run_source(struct run *run, const struct source *source, GHashTable *values,
                const char *output);
void run_finish(struct run *run);

/* SIGINT and SIGTERM are blocked from now on, in what is forked too: a descriptor that is readable
 * when one has come, for `stop`. */
int run_signals(void);

/* --- for the verbs (acts.h) ------------------------------------------------------------- */

/* A moment of the step. */
void run_note(struct run *run, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* The step is a soft failure, unless it becomes a hard one. */
void run_fail_softly(struct run *run, const struct command *command, const char *message);
void run_file(struct run *run, enum moment_kind kind, const char *path);
/* The machine that a command is about. */
struct target *run_target(struct run *run, const struct command *command);

/* What a wait is for: true when it is there. `note` may say where it was found. */
typedef bool wait_test(struct target *target, void *data, char **note);
/* Waits for it, at most `within` microseconds of guest time. False with an error when the time is
 * over, the guest crashed or the machine ended. */
bool run_wait(struct run *run, struct target *target, wait_test *test, void *data, gint64 within,
              GError **error);

/* Lets time pass, and takes the news meanwhile. */
void run_pause(struct run *run, gint64 us);

/* Ends the host commands that go on while the test does. */
void run_end_helpers(struct run *run);
/* Does the commands of the script that lie between these; false with an error. */
bool run_between(struct run *run, const struct command *after, const struct command *until,
                 GError **error);
/* Brings all machines to the mark; false with an error. restore.c. */
bool run_restore(struct run *run, const struct command *mark, GError **error);
/* Takes the machines' news while something else goes on, until there is some or one of `others`
 * (-1: none) is readable. False with an error when the test's limit is over or the test is to end.
 */
bool run_attend(struct run *run, const int *others, unsigned number, GError **error);

/* Does one command; false with an error. acts.c. */
bool verb_do(struct run *run, const struct command *command, GError **error);
