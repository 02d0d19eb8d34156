/* The crash watch: what on the serial port or the screen means that the guest has crashed, so that
 * no wait goes on for what cannot come any more. Any thread. */
#pragma once
#include <stdbool.h>

enum crash_set {
    CRASH_LINUX = 1, /* a kernel that ends, and what its checkers find */
    CRASH_WARN = 2,  /* its warnings */
    CRASH_BOOT = 4,  /* boot loaders and firmware */
};

/* The set called so in a `watch` line; false when there is none. */
bool crash_named(const char *name, unsigned *set);
extern const char *const crash_names[]; /* ends with NULL */

/* What in the text, line by line, is a crash of these sets: to be freed; NULL: nothing. */
char *crash_find(const char *text, unsigned sets);
