/* Test scripts: from files to commands (man hv-test(5)).
 *
 * A source is the lines of a file and of those it includes; it is read once. A script is what they
 * say with certain values of the matrix: commands in the order in which they are done. One thread.
 */
#pragma once
#include "test/verbs.h"

struct place {
    const char *file; /* as the user named it; the source's */
    unsigned line, column;
};

struct line {
    struct place place;
    unsigned indent; /* levels of two spaces */
    char *text;      /* without them */
};

/* A setting of the matrix and its values. */
struct matrix_key {
    char *name;
    GPtrArray *values; /* char * */
    struct place place;
};

struct source {
    char *path;
    GPtrArray *files;    /* char *: names that places point to */
    GPtrArray *lines;    /* struct line */
    GPtrArray *keys;     /* struct matrix_key */
    GPtrArray *problems; /* char *: FILE:LINE:COLUMN: what is wrong */
};

/* An option of hv run, from a line of a vm. */
struct vm_setting {
    const char *key; /* of config_settings, or "image" */
    char *value;     /* NULL: a switch */
    char *sha256;    /* of its file; NULL: any */
    struct place place;
};

/* Of an array of them. */
void vm_setting_free(void *setting);

struct vm {
    char *name; /* "vm" when the script does not say */
    bool keep;
    GPtrArray *settings; /* struct vm_setting */
    struct place place;
};

struct command {
    const struct test_verb *verb;
    struct place place;
    char *text;        /* its line */
    GPtrArray *words;  /* struct token */
    GArray *arguments; /* struct argument; NULL: a line of a matrix */
    char *rest;        /* of a verb with REST: the line behind it */
    char *machine;     /* `on NAME`; NULL: the first one, or the block's */
    bool soft;         /* its failure does not fail the test */
    char *bug;         /* bug=ID, of a soft failure; NULL: it has none */
    int64_t after;     /* microseconds to wait before */
    bool background;   /* a guest or host command with & at its end */
    GPtrArray *block;  /* struct command; NULL: it has none */
};

struct script {
    char *title;    /* of `test`; else the file's name */
    GPtrArray *vms; /* struct vm; at least one, when the script is right */
    GPtrArray *commands;
    GPtrArray *problems; /* as a source's */
};

/* Reads a file, and what it includes. Never NULL: what is wrong is in `problems`. */
struct source *source_read(const char *path);
void source_free(struct source *source);

/* Adds FILE:LINE:COLUMN: and the message. */
void script_problem(GPtrArray *problems, const struct place *place, const char *format, ...)
    G_GNUC_PRINTF(3, 4);

/* The name by which a script speaks of a folder of its run's own (run_source). */
#define SCRIPT_FOLDER "folder"

/* The commands, with ${NAME} replaced by what `values` (char * to char *) has for NAME, and
 * ${folder} by `folder`. */
struct script *script_parse(const struct source *source, GHashTable *values, const char *folder);
void script_free(struct script *script);

/* The mark of that name among the commands; NULL when there is none. Names are the script's own. */
const struct command *script_mark(const struct script *script, const char *name);
/* The last `restore` or `from` that stands before the mark: its path leads over the mark of that.
 * NULL: from the start. */
const struct command *script_restored(const struct script *script, const struct command *mark);
/* Of a `restore` or `from`: the name of its mark. */
const struct token *command_mark(const struct command *command);
/* Adds to the problems what is wrong with marks and their uses. marks.c. */
void script_check_marks(struct script *script);

/* The value of that name in a command's arguments (struct argument says which names there are): the
 * n-th from 0, NULL when there are not so many. */
const struct token *command_value(const struct command *command, const char *name, unsigned n);
/* Is that word there? */
bool command_has(const struct command *command, const char *name);
