/* From a package to a machine's directory. On one thread. */
#pragma once
#include <glib.h>
#include <stdbool.h>

/* Makes the directory (NULL: named after the machine, in this one) of an OVA or OVF file, whole or
 * not at all, and says what it is. */
bool import_machine(const char *file, const char *folder, GError **error);
