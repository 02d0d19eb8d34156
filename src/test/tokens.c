/* The words of a line in a test script; see tokens.h. */
#include "test/tokens.h"

#include "base/error.h"

#include <string.h>

enum { LONGEST_LINE = 65536 };

static void token_free(void *data)
{
    struct token *word = data;
    g_free(word->text);
    if (word->regex)
        g_regex_unref(word->regex);
    g_free(word);
}

/* What stands behind a backslash in a string, but for those with a number. */
static const struct {
    char letter, means;
} escapes[] = {
    { 'n', '\n' }, { 't', '\t' }, { 'e', '\033' }, { 'b', '\b' }, { '"', '"' }, { '\\', '\\' },
};

/* \xHH or \uHHHH, of which `at` is the letter. */
static bool take_numbered(const char **at, GString *text, GError **error)
{
    unsigned digits = **at == 'x' ? 2 : 4, value = 0;
    for (unsigned i = 1; i <= digits; i++) {
        int digit = g_ascii_xdigit_value((*at)[i]);
        if (digit < 0)
            return hv_fail(error, HV_USAGE, "\\%c wants %u hexadecimal digits", **at, digits);
        value = value << 4 | (unsigned)digit;
    }
    if (!value || !g_unichar_validate(value))
        return hv_fail(error, HV_USAGE, "\\%c%.*s is no character", **at, (int)digits, *at + 1);
    g_string_append_unichar(text, value);
    *at += digits + 1;
    return true;
}

static bool take_string(const char **at, GString *text, GError **error)
{
    while (**at != '"') {
        if (!**at)
            return hv_fail(error, HV_USAGE, "the string has no end: \" is missing");
        if (**at != '\\') {
            g_string_append_c(text, *(*at)++);
            continue;
        }
        size_t i = 0;
        char letter = *++*at;
        if (letter == 'x' || letter == 'u') {
            if (!take_numbered(at, text, error))
                return false;
            continue;
        }
        while (i < G_N_ELEMENTS(escapes) && escapes[i].letter != letter)
            i++;
        if (i == G_N_ELEMENTS(escapes))
            return hv_fail(error, HV_USAGE,
                           "\\%c means nothing in a string: \\n, \\t, \\e, \\b, \\\", \\\\, \\xHH "
                           "and \\uHHHH are known",
                           letter ? letter : ' ');
        g_string_append_c(text, escapes[i].means);
        ++*at;
    }
    ++*at;
    return true;
}

/* The end of a pattern: the slash that a space or the line's end follows, perhaps with an `i`
 * between; NULL when there is none, and it is a path. In a pattern, \/ is a slash. */
static const char *pattern_end(const char *from)
{
    for (const char *at = from; *at && *at != '/'; at++) {
        if (*at == '\\' && at[1])
            at++;
        if (at[1] == '/' && strchr(" \t\r", at[2 + (at[2] == 'i')]))
            return at + 1;
    }
    return NULL;
}

static bool take_regex(const char **at, const char *end, struct token *word, GString *text,
                       GError **error)
{
    g_autoptr(GError) wrong = NULL;
    GRegexCompileFlags flags = G_REGEX_MULTILINE | G_REGEX_OPTIMIZE;
    for (const char *from = *at; from < end; from++)
        if (*from != '\\' || from[1] != '/')
            g_string_append_c(text, *from);
    *at = end + 1;
    if (**at == 'i') {
        flags |= G_REGEX_CASELESS;
        ++*at;
    }
    word->regex = g_regex_new(text->str, flags, 0, &wrong);
    return word->regex || hv_fail(error, HV_USAGE, "the pattern is none: %s", wrong->message);
}

static bool take_bare(const char **at, struct token *word, GString *text)
{
    size_t length = strcspn(*at, " \t");
    const char *from = *at;
    *at += length;
    if (g_str_has_prefix(from, "secret:") && length > strlen("secret:")) {
        word->kind = TOKEN_SECRET;
        from += strlen("secret:");
    }
    g_string_append_len(text, from, *at - from);
    return true;
}

/* Takes the word at `*at`, which is one. */
static bool take(const char **at, struct token *word, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    const char *end = **at == '/' ? pattern_end(*at + 1) : NULL;
    bool ok;
    if (**at == '"') {
        word->kind = TOKEN_STRING;
        ++*at;
        ok = take_string(at, text, error);
    } else if (end) {
        word->kind = TOKEN_REGEX;
        ++*at;
        ok = take_regex(at, end, word, text, error);
    } else {
        ok = take_bare(at, word, text);
    }
    if (ok && **at && **at != ' ' && **at != '\t')
        ok = hv_fail(error, HV_USAGE, "a space is missing behind it");
    word->text = g_string_free(g_steal_pointer(&text), false);
    return ok;
}

GPtrArray *tokens_split(const char *line, unsigned *column, GError **error)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(token_free);
    const char *at = line;
    *column = 1;
    if (strlen(line) > LONGEST_LINE || !g_utf8_validate(line, -1, NULL)) {
        hv_fail(error, HV_USAGE, "the line is %s",
                strlen(line) > LONGEST_LINE ? "too long" : "not UTF-8 text");
        return NULL;
    }
    for (;;) {
        at += strspn(at, " \t\r");
        if (!*at || *at == '#')
            return g_steal_pointer(&words);
        struct token *word = g_new0(struct token, 1);
        g_ptr_array_add(words, word);
        word->at = (unsigned)(at - line);
        word->column = *column = (unsigned)g_utf8_pointer_to_offset(line, at) + 1;
        if (!take(&at, word, error))
            return NULL;
    }
}

/* --- values --------------------------------------------------------------------------------- */

/* The number at the start of a bare word and what follows it. */
static bool leading(const struct token *word, int64_t max, int64_t *number, const char **rest)
{
    enum { DIGITS = 10 };
    size_t digits = strspn(word->text, "0123456789");
    if (word->kind != TOKEN_BARE || !digits || digits > DIGITS)
        return false;
    *number = g_ascii_strtoll(word->text, (char **)(uintptr_t)rest, 10);
    return *number <= max;
}

bool token_duration(struct token *word)
{
    static const struct {
        const char *unit;
        int64_t us;
    } units[] = {
        { "ms", 1000 },
        { "s", G_USEC_PER_SEC },
        { "m", (int64_t)60 * G_USEC_PER_SEC },
        { "h", (int64_t)3600 * G_USEC_PER_SEC },
    };
    const int64_t longest = (int64_t)100 * 24 * 3600 * G_USEC_PER_SEC;
    const char *rest;
    int64_t number;
    if (!leading(word, INT32_MAX, &number, &rest))
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(units); i++) {
        if (strcmp(rest, units[i].unit) || number > longest / units[i].us)
            continue;
        word->number = number * units[i].us;
        return true;
    }
    return false;
}

bool token_count(struct token *word)
{
    const char *rest;
    return leading(word, 1000000000, &word->number, &rest) && !*rest;
}

bool token_port(struct token *word)
{
    const char *rest;
    return leading(word, UINT16_MAX, &word->number, &rest) && !*rest && word->number;
}

bool token_point(struct token *word)
{
    struct token y = { .kind = word->kind };
    const char *rest;
    if (!leading(word, INT16_MAX, &word->number, &rest) || *rest != ',')
        return false;
    y.text = (char *)(uintptr_t)(rest + 1);
    return leading(&y, INT16_MAX, &word->second, &rest) && !*rest;
}

bool token_percent(struct token *word)
{
    const char *rest;
    return leading(word, 100, &word->number, &rest) && !strcmp(rest, "%");
}
