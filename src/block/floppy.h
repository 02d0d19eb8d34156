/* The floppies that PCs have had, by the sizes of their images, and the drives that take them. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* Drives, as CMOS byte 0x10 counts them (IBM AT, PS/2). */
enum floppy_drive {
    FLOPPY_NO_DRIVE = 0,
    FLOPPY_360K = 1,  /* 5.25", 40 cylinders */
    FLOPPY_1200K = 2, /* 5.25", 80 cylinders */
    FLOPPY_1440K = 4, /* 3.5" */
    FLOPPY_2880K = 5, /* 3.5", perpendicular recording */
};

/* Data rates, as bits of `rates`: the numbers of the 82077AA's data rate select. */
enum { FLOPPY_500 = 1 << 0, FLOPPY_300 = 1 << 1, FLOPPY_250 = 1 << 2, FLOPPY_1000 = 1 << 3 };

enum { FLOPPY_SECTOR = 512 };

struct floppy_format {
    uint8_t cylinders, heads, sectors; /* of a track; 512 bytes each */
    uint8_t rates;                     /* at which it can be read */
    enum floppy_drive drive;           /* the PC that boots from it has this one */
    const char *name;                  /* "1.44 MB" */
};

/* NULL: no floppy is that large. */
const struct floppy_format *floppy_format(uint64_t size);
static inline uint64_t floppy_size(const struct floppy_format *format)
{
    return (uint64_t)format->cylinders * format->heads * format->sectors * FLOPPY_SECTOR;
}
/* Does the disk fit into the drive, and can the drive read it? */
bool floppy_fits(enum floppy_drive drive, const struct floppy_format *format);
/* "5.25 inch, up to 1.2 MB" */
const char *floppy_drive_name(enum floppy_drive drive);
