/* Keys: their names, chords of them, and which chords type which characters. Keys are HID usages of
 * page 7 (bus/input.h). What hv and hv-vmm share; the world's layouts are hv's alone (layout.h).
 * Any thread. */
#pragma once
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Keys pressed in this order and released in the reverse one; 0: no more. */
enum { CHORD_KEYS = 8 };
struct chord {
    uint8_t usage[CHORD_KEYS];
};

/* A character and the chords that type it: one, or with a dead key two. */
enum { KEYSTROKES = 2 };
struct keystrokes {
    gunichar character;
    struct chord chord[KEYSTROKES];
};

/* All characters of a layout. */
typedef struct key_map key_map; /* for g_autoptr */
struct key_map *key_map_us(void);
struct key_map *key_map_new(void); /* Enter, Tab and the like, which all layouts have */
void key_map_free(struct key_map *map);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(key_map, key_map_free)
/* What is there already stays as it is. */
void key_map_add(struct key_map *map, const struct keystrokes *keys);
/* NULL: the layout lacks it. */
const struct keystrokes *key_map_find(const struct key_map *map, gunichar character);
const struct keystrokes *key_map_at(const struct key_map *map, unsigned index); /* NULL: the end */

/* As [[CHARACTER, [USAGE...]...]...]. */
json_t *key_map_to_json(const struct key_map *map);
struct key_map *key_map_from_json(const json_t *json); /* NULL: it is wrong */

unsigned chord_keys(const struct chord *chord);
json_t *chord_to_json(const struct chord *chord);

/* A key by its name ("ctrl", "f2", "del", "a"); 0 when there is none. */
uint8_t key_named(const char *name);
/* Its name, and the other way round; NULL when it has none. */
const char *key_name(uint8_t usage);
/* The name nearest to a wrong one, for the message; NULL when none is near. */
const char *key_near(const char *name);
