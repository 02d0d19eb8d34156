/* An archive that Linux unpacks as its first root file system: cpio in its "newc" format
 * (Documentation/driver-api/early-userspace/buffer-format.rst). All in it belongs to root. One
 * thread. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct newc {
    int fd;
    uint64_t size, limit; /* bytes so far, and at most */
    uint32_t number;      /* of the last file */
    GHashTable *paths;    /* char *: what is in there */
};

/* Writes to a file, at most `limit` bytes. */
void newc_start(struct newc *newc, int fd, uint64_t limit);
/* The end of the archive; to be called before newc_finish. */
bool newc_end(struct newc *newc, GError **error);
void newc_finish(struct newc *newc);

/* Paths are absolute. The folders that a path needs are made before it; what is in there already
 * is not put there again, which is no error. */
bool newc_folder(struct newc *newc, const char *path, GError **error);
bool newc_text(struct newc *newc, const char *path, unsigned mode, const void *data, size_t length,
               GError **error);
bool newc_link(struct newc *newc, const char *path, const char *to, GError **error);
bool newc_device(struct newc *newc, const char *path, unsigned major, unsigned minor,
                 GError **error); /* of characters */
/* The content of a file of the host, which must be a regular one. */
bool newc_file(struct newc *newc, const char *path, const char *from, GError **error);
/* All that is in a folder of the host, becoming the root. Sockets are left out, and what the user
 * may not read is an error. */
bool newc_tree(struct newc *newc, const char *folder, GError **error);
