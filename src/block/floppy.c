/* The formats of PC floppies; see floppy.h. */
#include "block/floppy.h"

/* 5.25 inch disks of double density turn at 300 or at 360 rounds per minute, as the drive is made,
 * and so come at 250 or at 300 kbit/s. The drive for a DMF disk (21 sectors) is the largest:
 * firmware allows sectors up to the number that the drive's own format has. */
static const struct floppy_format formats[] = {
    { 40, 1, 8, FLOPPY_250 | FLOPPY_300, FLOPPY_360K, "160 KB" },
    { 40, 1, 9, FLOPPY_250 | FLOPPY_300, FLOPPY_360K, "180 KB" },
    { 40, 2, 8, FLOPPY_250 | FLOPPY_300, FLOPPY_360K, "320 KB" },
    { 40, 2, 9, FLOPPY_250 | FLOPPY_300, FLOPPY_360K, "360 KB" },
    { 80, 2, 9, FLOPPY_250, FLOPPY_1440K, "720 KB" },
    { 80, 2, 15, FLOPPY_500, FLOPPY_1200K, "1.2 MB" },
    { 80, 2, 18, FLOPPY_500, FLOPPY_1440K, "1.44 MB" },
    { 80, 2, 21, FLOPPY_500, FLOPPY_2880K, "1.68 MB" },
    { 82, 2, 21, FLOPPY_500, FLOPPY_2880K, "1.72 MB" },
    { 80, 2, 36, FLOPPY_1000, FLOPPY_2880K, "2.88 MB" },
};

const struct floppy_format *floppy_format(uint64_t size)
{
    for (size_t i = 0; i < G_N_ELEMENTS(formats); i++)
        if (floppy_size(&formats[i]) == size)
            return &formats[i];
    return NULL;
}

static bool is_small(enum floppy_drive drive)
{
    return drive == FLOPPY_1440K || drive == FLOPPY_2880K;
}

/* A 1.44 MB drive reads whatever has that density, however many sectors there are. */
bool floppy_fits(enum floppy_drive drive, const struct floppy_format *format)
{
    if (drive == FLOPPY_NO_DRIVE || is_small(drive) != is_small(format->drive))
        return false;
    return drive == FLOPPY_1440K ? !(format->rates & FLOPPY_1000) : format->drive <= drive;
}

const char *floppy_drive_name(enum floppy_drive drive)
{
    switch (drive) {
    case FLOPPY_360K:
        return "5.25 inch, up to 360 KB";
    case FLOPPY_1200K:
        return "5.25 inch, up to 1.2 MB";
    case FLOPPY_1440K:
        return "3.5 inch, up to 1.72 MB";
    case FLOPPY_2880K:
        return "3.5 inch, up to 2.88 MB";
    case FLOPPY_NO_DRIVE:
        break;
    }
    return "no drive";
}
