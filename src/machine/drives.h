/* The machine's drives: which disk is at which controller, and what is done with all of them.
 *
 * The table is made before the machine starts; only the disk of a CD or floppy drive changes later,
 * on the machine's thread, under the lock (drives_activity may be called from any thread). */
#pragma once
#include "block/faults.h"
#include "block/floppy.h"
#include "block/format.h"
#include "bus/device.h"
#include "machine/config.h"

#include <stdatomic.h>

struct machine_drive {
    struct disk *disk;  /* NULL: a CD or floppy drive without one */
    struct disk *image; /* what `format` opened: it, or the one that it lies on */
    struct disk *cache; /* between them, for power cuts (block/volatile.h); NULL: none */
    enum drive_bus bus;
    bool is_cd;
    const struct format *format; /* of its image; NULL: none, or what is written vanishes */
    const char *options;         /* of its controller, as struct drive has them */
    /* pc_build says whose drive it is, and which of that device's. */
    struct device *device;
    unsigned index;
    enum floppy_drive floppy; /* the kind of a floppy drive */
};

struct drives {
    struct machine_drive drive[DRIVES_MAX];
    unsigned count;
    GMutex lock;         /* a leaf */
    atomic_uint ejected; /* by the guest: a bit for each drive; any thread */
};

void drives_on_trouble(struct drives *drives, void (*full)(void *, struct disk *, int),
                       void (*failed)(void *, struct disk *, int), void *opaque);
/* A write that waits for space on the host's disk, now or in a moment, is given up: nobody would
 * answer it while this thread waits here. The guest was never told that it is done. */
void drives_drain(struct drives *drives);
/* The same for good: disks that gather write down what they have. */
void drives_end(struct drives *drives);
/* The power is cut; on the machine's thread, before drives_close. */
void drives_cut(struct drives *drives);
void drives_retry(struct drives *drives);
/* All disks' end, once nobody submits anything any more: images get what is still to be written. */
void drives_close(struct drives *drives);
uint32_t drives_activity(struct drives *drives);

/* The first drive of the kind, or the first with a medium in it; NULL when there is none. */
enum medium { MEDIUM_CD, MEDIUM_FLOPPY };
struct machine_drive *drives_for(struct drives *drives, enum medium kind, bool full);
struct machine_drive *drives_find(struct drives *drives, const struct device *dev, unsigned index);
/* The guest opened the tray of drive `index` of dev. With the device's lock held. */
void drives_note_ejected(struct drives *drives, const struct device *dev, unsigned index);
/* Another medium (NULL: none) for a CD or floppy drive, and the end of the old one. The drive
 * forgets it first: a guest that opened the tray may have closed it again. `list` is written anew.
 */
void drives_change_medium(struct drives *drives, struct machine_drive *drive, struct disk *disk,
                          int list);
/* The hard disk of that number, from 1 on; NULL. */
struct machine_drive *drives_disk(struct drives *drives, unsigned number);
/* Makes a hard disk larger while the machine runs, and tells its guest. `more`: by `size`. */
bool drives_grow(struct machine_drive *drive, uint64_t size, bool more, GError **error);
/* The faults of a hard disk from now on (block/faults.h). */
void drives_set_faults(struct machine_drive *drive, const struct disk_faults *faults);
/* Writes the identities of all disks to fd (block/image.h). */
void drives_write_list(const struct drives *drives, int fd);
