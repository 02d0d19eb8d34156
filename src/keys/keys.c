/* Keys and characters; see keys.h. HID usages: HUT 1.12 section 10. */
#include "keys/keys.h"

#include "base/error.h"

#include <string.h>

enum { SHIFT = 0xe1, CHARACTERS_MAX = 8192 };

struct key_map {
    GArray *list; /* struct keystrokes, by character */
};

static const struct {
    const char *name;
    uint8_t usage;
} key_names[] = {
    { "enter", 0x28 },      { "return", 0x28 },   { "esc", 0x29 },     { "escape", 0x29 },
    { "backspace", 0x2a },  { "tab", 0x2b },      { "space", 0x2c },   { "minus", 0x2d },
    { "equal", 0x2e },      { "capslock", 0x39 }, { "f1", 0x3a },      { "f2", 0x3b },
    { "f3", 0x3c },         { "f4", 0x3d },       { "f5", 0x3e },      { "f6", 0x3f },
    { "f7", 0x40 },         { "f8", 0x41 },       { "f9", 0x42 },      { "f10", 0x43 },
    { "f11", 0x44 },        { "f12", 0x45 },      { "print", 0x46 },   { "sysrq", 0x46 },
    { "scrolllock", 0x47 }, { "pause", 0x48 },    { "insert", 0x49 },  { "home", 0x4a },
    { "pageup", 0x4b },     { "delete", 0x4c },   { "del", 0x4c },     { "end", 0x4d },
    { "pagedown", 0x4e },   { "right", 0x4f },    { "left", 0x50 },    { "down", 0x51 },
    { "up", 0x52 },         { "numlock", 0x53 },  { "kpenter", 0x58 }, { "menu", 0x65 },
    { "ctrl", 0xe0 },       { "shift", 0xe1 },    { "alt", 0xe2 },     { "super", 0xe3 },
    { "win", 0xe3 },        { "meta", 0xe3 },     { "rctrl", 0xe4 },   { "rshift", 0xe5 },
    { "ralt", 0xe6 },       { "altgr", 0xe6 },    { "rsuper", 0xe7 },  { "plus", 0x57 },
};

/* The keys of a US keyboard from usage 0x04 on, those of control characters left out: without
 * shift, and with it. */
static const char us_plain[] = "abcdefghijklmnopqrstuvwxyz1234567890\r\r\r\r -=[]\\\r;'`,./";
static const char us_shift[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ!@#$%^&*()\r\r\r\r\r_+{}|\r:\"~<>?";
enum { US_FIRST = 0x04 };

uint8_t key_named(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(key_names); i++)
        if (!g_ascii_strcasecmp(key_names[i].name, name))
            return key_names[i].usage;
    char c = name[0] && !name[1] ? g_ascii_tolower(name[0]) : '\r';
    const char *at = c == '\r' ? NULL : strchr(us_plain, c);
    return at ? (uint8_t)(US_FIRST + (at - us_plain)) : 0;
}

const char *key_name(uint8_t usage)
{
    for (size_t i = 0; i < G_N_ELEMENTS(key_names); i++)
        if (key_names[i].usage == usage)
            return key_names[i].name;
    const size_t at = (size_t)usage - US_FIRST;
    const char name[] = { usage >= US_FIRST && at + 1 < sizeof us_plain ? us_plain[at] : '\r', 0 };
    return *name == '\r' ? NULL : g_intern_string(name);
}

const char *key_near(const char *name)
{
    const char *names[G_N_ELEMENTS(key_names) + 1] = { NULL };
    for (size_t i = 0; i < G_N_ELEMENTS(key_names); i++)
        names[i] = key_names[i].name;
    return hv_nearest(name, names);
}

/* --- chords --------------------------------------------------------------------------------- */

unsigned chord_keys(const struct chord *chord)
{
    unsigned count = 0;
    while (count < CHORD_KEYS && chord->usage[count])
        count++;
    return count;
}

json_t *chord_to_json(const struct chord *chord)
{
    json_t *json = json_array();
    for (unsigned i = 0; i < chord_keys(chord); i++)
        json_array_append_new(json, json_integer(chord->usage[i]));
    return json;
}

/* --- characters ----------------------------------------------------------------------------- */

/* Where the character is, or belongs. */
static guint place(const struct key_map *map, gunichar character)
{
    guint low = 0, high = map->list->len;
    while (low < high) {
        guint middle = (low + high) / 2;
        if (g_array_index(map->list, struct keystrokes, middle).character < character)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct keystrokes *key_map_at(const struct key_map *map, unsigned index)
{
    return index < map->list->len ? &g_array_index(map->list, struct keystrokes, index) : NULL;
}

const struct keystrokes *key_map_find(const struct key_map *map, gunichar character)
{
    const struct keystrokes *keys = key_map_at(map, place(map, character));
    return keys && keys->character == character ? keys : NULL;
}

void key_map_add(struct key_map *map, const struct keystrokes *keys)
{
    if (!key_map_find(map, keys->character))
        g_array_insert_vals(map->list, place(map, keys->character), keys, 1);
}

struct key_map *key_map_new(void)
{
    static const struct keystrokes controls[] = {
        { '\b', { { { 0x2a } } } }, { '\t', { { { 0x2b } } } },   { '\n', { { { 0x28 } } } },
        { '\r', { { { 0x28 } } } }, { '\033', { { { 0x29 } } } },
    };
    struct key_map *map = g_new(struct key_map, 1);
    map->list = g_array_new(false, true, sizeof(struct keystrokes));
    for (size_t i = 0; i < G_N_ELEMENTS(controls); i++)
        key_map_add(map, &controls[i]);
    return map;
}

void key_map_free(struct key_map *map)
{
    if (map)
        g_array_unref(map->list);
    g_free(map);
}

struct key_map *key_map_us(void)
{
    struct key_map *map = key_map_new();
    for (unsigned i = 0; i < sizeof us_plain - 1; i++) {
        uint8_t usage = (uint8_t)(US_FIRST + i);
        key_map_add(map, &(struct keystrokes){ (guchar)us_plain[i], { { { usage } } } });
        key_map_add(map, &(struct keystrokes){ (guchar)us_shift[i], { { { SHIFT, usage } } } });
    }
    return map;
}

json_t *key_map_to_json(const struct key_map *map)
{
    json_t *json = json_array();
    const struct keystrokes *keys;
    for (unsigned i = 0; (keys = key_map_at(map, i)); i++) {
        json_t *item = json_pack("[I]", (json_int_t)keys->character);
        for (unsigned j = 0; j < KEYSTROKES && chord_keys(&keys->chord[j]); j++)
            json_array_append_new(item, chord_to_json(&keys->chord[j]));
        json_array_append_new(json, item);
    }
    return json;
}

static bool chord_from_json(struct chord *chord, const json_t *json)
{
    size_t count = json_array_size(json);
    for (size_t i = 0; i < MIN(count, CHORD_KEYS); i++) {
        json_int_t usage = json_integer_value(json_array_get(json, i));
        if (usage <= 0 || usage > UINT8_MAX)
            return false;
        chord->usage[i] = (uint8_t)usage;
    }
    return count && count <= CHORD_KEYS;
}

struct key_map *key_map_from_json(const json_t *json)
{
    g_autoptr(key_map) map = key_map_new();
    if (!json_is_array(json) || json_array_size(json) > CHARACTERS_MAX)
        return NULL;
    size_t i;
    json_t *item;
    json_array_foreach(json, i, item)
    {
        json_int_t character = json_integer_value(json_array_get(item, 0));
        size_t count = json_array_size(item);
        struct keystrokes keys = { .character = (gunichar)character };
        if (character <= 0 || character > 0x10ffff || count < 2 || count > 1 + KEYSTROKES)
            return NULL;
        for (size_t j = 1; j < count; j++)
            if (!chord_from_json(&keys.chord[j - 1], json_array_get(item, j)))
                return NULL;
        key_map_add(map, &keys);
    }
    return g_steal_pointer(&map);
}
