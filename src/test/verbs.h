/* The verbs of the test language: one table, for the parser, the runner, `hv test --help` and the
 * test that compares it with man/hv-test.5. */
#pragma once
#include "test/tokens.h"

/* Where a verb may stand. */
enum verb_place {
    IN_FILE = 1, /* not indented */
    IN_BODY = 2, /* what is done: in a step, a boot, a repeat; not indented, too */
    IN_VM = 4,
};

enum verb_block {
    BLOCK_NONE,
    BLOCK_MAY, /* lines of IN_BODY may follow, indented */
    BLOCK_MUST,
    BLOCK_VM,     /* lines of IN_VM */
    BLOCK_MATRIX, /* lines KEY = VALUE, ... */
};

enum verb_id {
    VERB_TEST,
    VERB_VM,
    VERB_WATCH,
    VERB_LIMIT,
    VERB_INCLUDE,
    VERB_FROM,
    VERB_MATRIX,
    VERB_SKIP,
    VERB_BOOT,
    VERB_STEP,
    VERB_REPEAT,
    VERB_REBOOT,
    VERB_POWEROFF,
    VERB_OFF,
    VERB_POWER_CUT,
    VERB_RESET,
    VERB_PAUSE,
    VERB_RESUME,
    VERB_MARK,
    VERB_RESTORE,
    VERB_SEE,
    VERB_SEE_IMAGE,
    VERB_NOT_SEE,
    VERB_LOG,
    VERB_NOT_LOG,
    VERB_STILL,
    VERB_CHANGE,
    VERB_EVENT,
    VERB_PORT,
    VERB_CRASH,
    VERB_TYPE,
    VERB_KEY,
    VERB_CLICK,
    VERB_MOVE,
    VERB_SCROLL,
    VERB_SET,
    VERB_RUN,
    VERB_GUEST,
    VERB_COPY,
    VERB_HOST,
    VERB_NET,
    VERB_DISK,
    VERB_EJECT,
    VERB_SCREENSHOT,
    VERB_KEEP,
    VERB_SHA256,
};

/* `arguments` is what may follow, and is read by the parser:
 *
 *   word      that word
 *   NAME      a value; the table `types` in grammar.c says which there are
 *   [ ]       may be left out          ( | )  one of them
 *   ...       what stands before it, once more or several times
 *
 * One word of look-ahead decides: alternatives begin differently. */
struct test_verb {
    enum verb_id id;
    const char *name; /* one word or two */
    const char *arguments;
    const char *help;
    unsigned places; /* of enum verb_place */
    enum verb_block block;
};
extern const struct test_verb test_verbs[]; /* ends with a NULL name */

/* A value that was given: `name` is the word before it in `arguments` if there is one, as in
 * [within DURATION], else its type; a word that stands for itself is a value, too. */
struct argument {
    const char *name;
    struct token *word; /* of the line */
};

/* Reads the words from `from` on as the verb's arguments, into an array of struct argument whose
 * names are the array's own. NULL with an error and the number of the word it is about (the line's
 * end: their count). */
GArray *grammar_match(const struct test_verb *verb, GPtrArray *words, unsigned from,
                      unsigned *wrong, GError **error);
