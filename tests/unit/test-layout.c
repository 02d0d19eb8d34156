/* Layouts: what types a character on keyboards of several countries (xkb-data's layouts, HUT 1.12
 * section 10), and wrong names. */
#include "keys/layout.h"

#include "base/error.h"

#include <string.h>

enum { SHIFT = 0xe1, ALTGR = 0xe6, CAPS = 0x39, SPACE = 0x2c };

static key_map *opened(const char *name)
{
    g_autoptr(GError) error = NULL;
    key_map *map = layout_open(name, &error);
    g_assert_no_error(error);
    return map;
}

/* The character's keys, as bytes: a chord, 0, perhaps another. */
static void types(const key_map *map, gunichar character, const char *first, const char *second)
{
    const struct keystrokes *keys = key_map_find(map, character);
    const char *const wanted[] = { first, second };
    if (!keys)
        g_error("U+%04X is on no key", character);
    for (unsigned i = 0; i < KEYSTROKES; i++) {
        char chord[CHORD_KEYS + 1] = "";
        memcpy(chord, keys->chord[i].usage, CHORD_KEYS);
        if (strcmp(chord, wanted[i]))
            g_error("U+%04X: chord %u is wrong: %02x %02x %02x", character, i,
                    (unsigned)(uint8_t)chord[0], (unsigned)(uint8_t)chord[1],
                    (unsigned)(uint8_t)chord[2]);
    }
}

static void german(void)
{
    g_autoptr(key_map) map = opened("de");
    types(map, 'z', "\x1c", ""); /* where a US keyboard has y */
    types(map, 'Z', "\xe1\x1c", "");
    types(map, '@', "\xe6\x14", "");
    types(map, '{', "\xe6\x24", "");
    types(map, '<', "\x64", "");
    types(map, '|', "\xe6\x64", "");
    types(map, '-', "\x38", "");
    types(map, '/', "\xe1\x24", "");
    types(map, 0xe4, "\x34", "");       /* a with diaeresis */
    types(map, 0xdf, "\x2d", "");       /* sharp s */
    types(map, 0x20ac, "\xe6\x08", ""); /* euro */
    types(map, 0xe9, "\x2e", "\x08");   /* e with acute: a dead key, then e */
    types(map, 0xc9, "\x2e", "\xe1\x08");
    types(map, 0xea, "\x35", "\x08");
    types(map, '^', "\x35", "\x2c"); /* the dead key by itself */
    types(map, '`', "\xe1\x2e", "\x2c");
    types(map, '\n', "\x28", "");
    g_assert_null(key_map_find(map, 0x4e2d)); /* a Chinese character */
    g_assert_null(key_map_find(map, 0xb4));   /* guests do not agree on an acute by itself */
}

static void german_without_dead_keys(void)
{
    g_autoptr(key_map) map = opened("de(nodeadkeys)");
    types(map, '^', "\x35", "");
    types(map, 0xb4, "\x2e", "");
    types(map, '@', "\xe6\x14", "");
    g_assert_null(key_map_find(map, 0xe9));
}

static void french(void)
{
    g_autoptr(key_map) map = opened("fr");
    types(map, 'a', "\x14", "");
    types(map, 'q', "\x04", "");
    types(map, '1', "\xe1\x1e", "");
    types(map, '&', "\x1e", "");
    types(map, 0xe9, "\x1f", ""); /* has a key: no dead one */
    types(map, '@', "\xe6\x27", "");
    types(map, '.', "\xe1\x36", "");
    types(map, 0xea, "\x2f", "\x08");
}

static void british(void)
{
    g_autoptr(key_map) map = opened("gb");
    types(map, '@', "\xe1\x34", "");
    types(map, '"', "\xe1\x1f", "");
    types(map, '#', "\x31", "");
    types(map, '\\', "\x64", "");
    types(map, 0xa3, "\xe1\x20", ""); /* pound */
}

/* Levels 3 and 5 by keys that are no AltGr. */
static void neo(void)
{
    g_autoptr(key_map) map = opened("de(neo)");
    const struct keystrokes *at = key_map_find(map, '@');
    g_assert_nonnull(at);
    g_assert_true(at->chord[0].usage[0] == CAPS || at->chord[0].usage[0] == 0x31);
    g_assert_cmpuint(chord_keys(&at->chord[0]), ==, 2);
}

/* The built-in US layout is that of X, for all that can be printed. */
static void american(void)
{
    g_autoptr(key_map) ours = opened("us"), theirs = opened("us(basic)");
    const struct keystrokes *keys;
    for (unsigned i = 0; (keys = key_map_at(ours, i)); i++)
        g_assert_cmpmem(keys, sizeof *keys, key_map_find(theirs, keys->character), sizeof *keys);
    for (gunichar c = ' '; c <= '~'; c++)
        g_assert_nonnull(key_map_find(ours, c));
    g_assert_null(key_map_find(ours, 0xe4));
}

/* What a machine is handed is what there was, and bounded. */
static void handed_over(void)
{
    static const char *const names[] = {
        "de", "fr", "us(intl)", "vn", "gr(polytonic)", "jp", "ru"
    };
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autoptr(key_map) map = opened(names[i]), again = NULL;
        const struct keystrokes *keys;
        json_t *json = key_map_to_json(map);
        g_autofree char *text = json_dumps(json, JSON_COMPACT);
        g_test_message("%s: %zu bytes", names[i], strlen(text));
        g_assert_cmpuint(strlen(text), <, 64000);
        again = key_map_from_json(json);
        g_assert_nonnull(again);
        for (unsigned j = 0; (keys = key_map_at(map, j)); j++)
            g_assert_cmpmem(keys, sizeof *keys, key_map_at(again, j), sizeof *keys);
        json_decref(json);
    }
    static const char *const wrong[] = {
        "{}",
        "[1]",
        "[[97]]",
        "[[97,[]]]",
        "[[97,[0]]]",
        "[[97,[256]]]",
        "[[0,[4]]]",
        "[[97,[\"a\"]]]",
        "[[-1,[4]]]",
        "[[97,[4],[4],[4]]]",
        "[[97,[1,2,3,4,5,6,7,8,9]]]",
        "[[1114112,[4]]]",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        json_t *json = json_loads(wrong[i], 0, NULL);
        g_assert_null(key_map_from_json(json));
        json_decref(json);
    }
}

static void wrong_names(void)
{
    static const struct {
        const char *name, *says;
    } wrong[] = {
        { "ed", "did you mean" }, { "uk", "\"gb\"" },     { "de(nodeadkey)", "no such" },
        { "", "no such" },        { "de(", "no such" },   { "de()", "no such" },
        { "de+fr", "no such" },   { "../de", "no such" }, { "de(x)y", "no such" },
        { "zz", "no such" },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_null(layout_open(wrong[i].name, &error));
        g_assert_cmpint(hv_exit_status(error), ==, HV_USAGE);
        if (!strstr(error->message, wrong[i].says))
            g_error("%s: %s", wrong[i].name, error->message);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_setenv("XKB_DEFAULT_OPTIONS", "ctrl:swapcaps",
             true); /* the host's own wishes are no matter */
    g_test_add_func("/layout/de", german);
    g_test_add_func("/layout/de-nodeadkeys", german_without_dead_keys);
    g_test_add_func("/layout/fr", french);
    g_test_add_func("/layout/gb", british);
    g_test_add_func("/layout/de-neo", neo);
    g_test_add_func("/layout/us", american);
    g_test_add_func("/layout/handed-over", handed_over);
    g_test_add_func("/layout/wrong-names", wrong_names);
    return g_test_run();
}
