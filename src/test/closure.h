/* What a program of the host needs beside itself to run elsewhere: its ELF interpreter, the shared
 * libraries that it and they name (DT_NEEDED), and for a script the program in its first line.
 * What is loaded later by name (dlopen: name services, character sets) is not seen. One thread. */
#pragma once
#include <glib.h>
#include <stdbool.h>

struct closure {
    GPtrArray *files;   /* char *: absolute paths as the guest has to have them, each once */
    GPtrArray *folders; /* char *: where libraries are looked for */
};

/* `folders`: where libraries are, ending with NULL; NULL: those of this host (ld.so.conf). */
void closure_start(struct closure *closure, const char *const *folders);
void closure_finish(struct closure *closure);
/* Adds a file and all that it needs; a file that is no program needs nothing. */
bool closure_add(struct closure *closure, const char *path, GError **error);
