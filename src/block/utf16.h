/* Names in images that Windows programs make: UTF-16, and paths of that system. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Text of that many bytes, up to a 0, as UTF-8 to be freed; NULL when it is none. At most a few KiB
 * make sense. */
char *utf16_text(const uint8_t *bytes, size_t length, bool big_endian);
/* A path as this system has it: with "/", and of an absolute one only the last name, for its drive
 * is elsewhere. To be freed; NULL when nothing is left. */
char *utf16_path(const uint8_t *bytes, size_t length, bool big_endian);
/* The same of a text. */
char *windows_path(const char *text);
