/* Keyboard layouts, as libxkbcommon knows them (package xkb-data): which keys type a character on
 * the guest's keyboard. hv only: a machine is handed the map. */
#pragma once
#include "keys/keys.h"

/* The map of a layout such as "de", "fr" or "de(nodeadkeys)"; NULL with an error. */
struct key_map *layout_open(const char *name, GError **error);
