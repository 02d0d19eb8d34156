/* Drafts of test scripts; see recorder.h. */
#include "test/recorder.h"

#include <string.h>

enum { SHORTEST = 3, LONGEST = 60 }; /* characters of a text that is to be seen */

void recorder_init(struct recorder *r, const struct key_map *map)
{
    *r = (struct recorder){ .script = g_string_new(NULL), .typed = g_string_new(NULL), .map = map };
}

void recorder_finish(struct recorder *r)
{
    g_string_free(r->script, true);
    g_string_free(r->typed, true);
}

/* A string as tokens.c reads it. */
static void append_string(GString *out, const char *text)
{
    g_string_append_c(out, '"');
    for (const char *at = text; *at; at = g_utf8_next_char(at)) {
        gunichar c = g_utf8_get_char(at);
        if (c == '\n')
            g_string_append(out, "\\n");
        else if (c == '\t')
            g_string_append(out, "\\t");
        else if (c == '"' || c == '\\')
            g_string_append_printf(out, "\\%c", (char)c);
        else if (c < ' ' || c == 0x7f)
            g_string_append_printf(out, "\\x%02x", c);
        else
            g_string_append_unichar(out, c);
    }
    g_string_append_c(out, '"');
}

static void flush(struct recorder *r)
{
    if (!r->typed->len)
        return;
    g_string_append(r->script, "  type ");
    append_string(r->script, r->typed->str);
    g_string_append_c(r->script, '\n');
    g_string_truncate(r->typed, 0);
}

void recorder_line(struct recorder *r, const char *line)
{
    flush(r);
    g_string_append_printf(r->script, "  %s\n", line);
}

void recorder_text(struct recorder *r, const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);
    g_string_append(r->typed, valid);
}

/* --- keys ------------------------------------------------------------------------------------ */

/* HUT 1.12 section 10: the usages of keys that change others. */
static bool is_modifier(uint8_t usage)
{
    return usage >= 0xe0 && usage <= 0xe7;
}

static bool is_held(const struct recorder *r, uint8_t usage)
{
    return memchr(r->held, usage, CHORD_KEYS);
}

static void hold(struct recorder *r, uint8_t usage, bool down)
{
    uint8_t *at = memchr(r->held, usage, CHORD_KEYS);
    if (at && !down)
        *at = 0;
    at = at ? NULL : memchr(r->held, 0, CHORD_KEYS);
    if (at && down)
        *at = usage;
}

/* Does the key, with those that are held, type that? */
static bool types(const struct recorder *r, const struct keystrokes *keys, uint8_t usage)
{
    const uint8_t *chord = keys->chord[0].usage;
    unsigned held = 0, count = chord_keys(&keys->chord[0]);
    if (!count || chord_keys(&keys->chord[1]) || chord[count - 1] != usage)
        return false;
    for (unsigned i = 0; i < CHORD_KEYS; i++)
        held += r->held[i] != 0;
    for (unsigned i = 0; i + 1 < count; i++)
        if (!is_held(r, chord[i]) && !is_held(r, chord[i] + 4)) /* the right one does, too */
            return false;
    return held == count - 1;
}

static void key_line(struct recorder *r, uint8_t usage)
{
    const char *name = key_name(usage);
    g_autoptr(GString) line = g_string_new("key ");
    for (unsigned i = 0; i < CHORD_KEYS; i++)
        if (r->held[i])
            g_string_append_printf(line, "%s+", key_name(r->held[i]));
    if (name)
        g_string_append(line, name);
    else
        g_string_assign(line, "# a key without a name was pressed");
    recorder_line(r, line->str);
}

void recorder_key(struct recorder *r, uint8_t usage, bool down)
{
    const struct keystrokes *keys;
    if (is_modifier(usage)) {
        hold(r, usage, down);
        return;
    }
    if (!down)
        return;
    for (unsigned i = 0; (keys = key_map_at(r->map, i)); i++)
        if (types(r, keys, usage)) {
            g_string_append_unichar(r->typed, keys->character);
            return;
        }
    key_line(r, usage);
}

/* --- the mouse -------------------------------------------------------------------------------- */

void recorder_click(struct recorder *r, const char *button, unsigned x, unsigned y,
                    const char *text)
{
    g_autoptr(GString) line = g_string_new(NULL);
    g_string_printf(line, "click %s", button);
    if (text)
        append_string(line, text);
    else
        g_string_append_printf(line, "at %u,%u", x, y);
    recorder_line(r, line->str);
}

void recorder_scroll(struct recorder *r, int steps)
{
    g_autofree char *line = g_strdup_printf("scroll %s %d", steps > 0 ? "up" : "down", ABS(steps));
    recorder_line(r, line);
}

/* --- the screen ------------------------------------------------------------------------------- */

/* The longest part of a line without digits: times and numbers are others next time. */
static char *lasting_part(const char *line)
{
    char *best = NULL;
    g_auto(GStrv) parts = g_regex_split_simple("[0-9]+", line, 0, 0);
    for (char **part = parts; *part; part++) {
        g_strstrip(*part);
        if (g_utf8_strlen(*part, -1) >= SHORTEST && (!best || strlen(*part) > strlen(best)))
            best = *part;
    }
    return best ? g_utf8_substring(best, 0, MIN(g_utf8_strlen(best, -1), LONGEST)) : NULL;
}

void recorder_saw(struct recorder *r, const char *before, const char *now)
{
    g_auto(GStrv) lines = g_strsplit(now, "\n", -1);
    for (guint i = g_strv_length(lines); i-- > 0;) {
        g_autofree char *part = strstr(before, lines[i]) ? NULL : lasting_part(lines[i]);
        if (!part || strstr(before, part))
            continue;
        g_autoptr(GString) line = g_string_new("see screen ");
        append_string(line, part);
        recorder_line(r, line->str);
        return;
    }
}

const char *recorder_lines(struct recorder *r)
{
    flush(r);
    return r->script->str;
}
