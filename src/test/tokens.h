/* The words of a line in a test script (man hv-test(5)). Anybody may call everything here; errors
 * say what is wrong and leave it to the caller to say where, but for the column. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

enum token_kind {
    TOKEN_BARE,   /* see, 10s, disk.qcow2 */
    TOKEN_STRING, /* "text", with \n and the like replaced */
    TOKEN_REGEX,  /* /pattern/ or /pattern/i */
    TOKEN_SECRET, /* secret:NAME, the value of an environment variable that is never shown */
};

struct token {
    enum token_kind kind;
    unsigned column; /* of its first character, from 1 */
    unsigned at;     /* the same in bytes of the line, from 0 */
    char *text;      /* what it says, without quotes, slashes or "secret:" */
    GRegex *regex;   /* of a TOKEN_REGEX; else NULL */
    int64_t number;  /* what a value of its type is: token_number, token_duration ... */
    int64_t second;  /* Y of a point */
};

/* Takes a line apart. The words (struct token, freed with the array) up to its end or to a comment,
 * which begins with a # at the start of a word; NULL with an error, and the column. */
GPtrArray *tokens_split(const char *line, unsigned *column, GError **error);

/* Is the word a value of that kind? Then `number` is set: to microseconds, a count, a point's X
 * (and `second` to Y). */
bool token_duration(struct token *word); /* 500ms, 10s, 2m, 1h; up to 100 days */
bool token_count(struct token *word);    /* up to 10^9 */
bool token_port(struct token *word);     /* from 1 to 65535 */
bool token_point(struct token *word);    /* 400,300; up to 32767 each */
bool token_percent(struct token *word);  /* 5% */
