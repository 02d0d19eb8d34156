/* Machines from command lines, as those of vm in a script. Anybody may call everything here. */
#pragma once
#include "test/script.h"

/* A machine's settings, empty. */
GPtrArray *vm_words_new(void);
/* value: NULL for a switch. */
void vm_words_add(GPtrArray *list, const char *key, const char *value);
/* Takes a word of hv run's command line, an option in full or the image, with its value: *i is the
 * last one taken then, `end` how many there are. False with an error: it is none, or one that hv
 * test sets itself. */
bool vm_words_take(GPtrArray *list, char **argv, int *i, int end, GError **error);
