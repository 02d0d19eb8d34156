/* Image files as the `hv` command sees them, before a machine starts: who may use one, and what it
 * is. hv-vmm gets open descriptors and a format; of all this it needs the identities only. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct disk;
struct format;

enum image_kind {
    IMAGE_BLANK,   /* a disk without a boot sector */
    IMAGE_DISK,    /* a disk with a boot sector or a partition table */
    IMAGE_CD,      /* ISO 9660 or UDF, hybrid images included */
    IMAGE_FLOPPY,  /* as large as a PC floppy, and no disk with partitions */
    IMAGE_KERNEL,  /* a Linux kernel or an ELF file: not a disk */
    IMAGE_FOREIGN, /* a disk in a format that hv does not know, or packed: not usable as it is */
    IMAGE_OTHER,   /* no disk at all: empty, a directory, text, too small */
};

struct image_info {
    enum image_kind kind;
    bool bootable;               /* it has a boot sector, a GPT, or an El Torito boot record */
    bool device;                 /* a block device */
    const struct format *format; /* block/format.h; raw for all that is none */
    uint64_t size;               /* of the file, bytes */
    const char *what;            /* "a qcow2 disk image" */
    const char *advice; /* what to do, where `kind` cannot be used as a disk; else NULL. In it, IN
                           stands for the image's path. */
};

/* Recognises the file by its content, never by its name. False when it cannot be read. The file
 * position stays. */
bool image_probe(int fd, const char *path, struct image_info *info, GError **error);

/* Is it a disk or a CD? If not, the error says what it is and what to do. */
bool image_usable(const struct image_info *info, const char *path, GError **error);

/* Locks the image for as long as the open file lives: the descriptor can be passed to another
 * process, and the lock goes with it. Writers are alone; readers share. `machines` is the directory
 * with one directory for each running machine (NULL: not known), to name the holder in the error:
 * locks of this kind have no owner to ask for. */
bool image_lock(int fd, const char *path, bool exclusive, const char *machines, GError **error);

/* What a running machine writes into the file "images" of its directory, one line for each image
 * it uses, so that image_lock can name it. A disk of several files has a line for each. */
char *image_identity(int fd);
/* Writes that file anew when the disks of the machine have changed; -1: there is none. */
void image_write_list(int fd, struct disk *const disks[], unsigned count);

/* Does the machine live whose directory is `name` in `machines`? Those of dead ones may stay. */
bool machine_runs(const char *machines, const char *name);
