/* What a machine comes in: an OVA, which is a tar archive, or an OVF description with its files
 * beside it. Its manifest, where there is one, is checked. Nothing is ever opened by a name that an
 * archive has. On one thread. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* By the content, whatever the file is called. NULL with an error. */
struct package *package_open(const char *path, GError **error);
void package_free(struct package *package);
typedef struct package open_package; /* for g_autoptr */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(open_package, package_free)

/* The description's text, which the package owns. */
const char *package_description(const struct package *package, size_t *length);
/* Does it lack a manifest? */
bool package_unchecked(const struct package *package);

/* A file as a path, when it can be used where it is; else NULL, without an error for an archive. */
char *package_path(const struct package *package, const char *name, GError **error);
/* Writes a file into an empty one. False when that fails, when the manifest has another sum of it,
 * or when a signal is pending. */
bool package_copy(const struct package *package, const char *name, int to, GError **error);

/* Is one of the signals that end a program pending? With an error; they are blocked meanwhile. */
bool package_interrupted(GError **error);
