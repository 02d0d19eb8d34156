/* What came of the steps of a test, as values and as JSON: a test runs in a process of its own,
 * whose results come over a pipe. One thread. */
#pragma once
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

/* What there is to say of a moment of a step. */
struct moment {
    enum moment_kind {
        MOMENT_NOTE,    /* the evidence of a wait, and the like */
        MOMENT_PICTURE, /* `text` is a PNG file */
        MOMENT_LOG,     /* `text` is a file */
        MOMENT_SERIAL,  /* a line from the serial port; the other results have it in the log */
    } kind;
    gint64 at; /* microseconds since the script began */
    char *text;
};

enum outcome { OUTCOME_OK, OUTCOME_SOFT, OUTCOME_FAILED, OUTCOME_SKIPPED };

/* What came of a step. */
struct result {
    char *title;
    enum outcome outcome;
    char *message;      /* why it is not OK; NULL: it is */
    GPtrArray *moments; /* struct moment, in their order */
    gint64 began;       /* microseconds since the script began */
    gint64 wall, busy;  /* microseconds; busy: while the host had other things to do */
};

struct result *result_new(const char *title);
void result_free(void *result);
/* `text` becomes the result's. */
void result_add(struct result *result, enum moment_kind kind, gint64 at, char *text);
/* A line for people: "picture: FILE"; NULL: it is none. To be freed. */
char *moment_line(const struct moment *moment);

/* A line of JSON with its end. To be freed. */
char *result_to_json(const struct result *result);
/* NULL when the text is none. */
struct result *result_from_json(const char *text);
