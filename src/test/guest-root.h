/* The root file system that `hv test --kernel` gives its guest, as an archive (newc.h) with the
 * init and what it is to do (guest/init.h). One thread. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct guest_root {
    const char *folder; /* becomes the root; NULL: see `bare` */
    bool bare;          /* nothing but the init: another initrd has the root */
    char *const *words; /* the command, ending with NULL; one word is a line for a shell */
    uint64_t limit;     /* of the archive, in bytes */
};

/* Writes it to a file. Without a folder and not bare, the root has the programs and files of the
 * command's words with their libraries, a shell, and the host's current folder as the guest's. */
bool guest_root_write(const struct guest_root *root, const char *file, GError **error);
