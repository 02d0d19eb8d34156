/* Code page 437, the characters of PC text screens, as Unicode. Any thread. */
#pragma once
#include <glib.h>
#include <stdint.h>

/* The Unicode character of a code; 0 and 255 look like spaces and are. */
gunichar cp437_character(uint8_t code);
