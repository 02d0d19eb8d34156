/* The machine's drives; see drives.h. */
#include "machine/drives.h"

#include "block/image.h"

void drives_on_full(struct drives *drives, void (*full)(void *, struct disk *, int), void *opaque)
{
    for (unsigned i = 0; i < drives->count; i++)
        if (drives->drive[i].disk)
            disk_set_full(drives->drive[i].disk, full, opaque);
}

void drives_drain(struct drives *drives)
{
    for (unsigned i = 0; i < drives->count; i++)
        if (drives->drive[i].disk) {
            disk_give_up(drives->drive[i].disk);
            disk_drain(drives->drive[i].disk);
        }
}

void drives_retry(struct drives *drives)
{
    for (unsigned i = 0; i < drives->count; i++)
        if (drives->drive[i].disk)
            disk_retry(drives->drive[i].disk);
}

uint32_t drives_activity(struct drives *drives)
{
    uint32_t sum = 0;
    g_mutex_lock(&drives->lock);
    for (unsigned i = 0; i < drives->count; i++)
        if (drives->drive[i].disk)
            sum += disk_activity(drives->drive[i].disk);
    g_mutex_unlock(&drives->lock);
    return sum;
}

struct machine_drive *drives_for(struct drives *drives, enum medium kind, bool full)
{
    for (unsigned i = 0; i < drives->count; i++) {
        struct machine_drive *drive = &drives->drive[i];
        bool fits = kind == MEDIUM_CD ? drive->is_cd : drive->bus == DRIVE_FLOPPY;
        if (fits && (drive->disk || !full))
            return drive;
    }
    return NULL;
}

struct machine_drive *drives_find(struct drives *drives, const struct device *dev, unsigned index)
{
    for (unsigned i = 0; i < drives->count; i++)
        if (drives->drive[i].device == dev && drives->drive[i].index == index)
            return &drives->drive[i];
    return NULL;
}

void drives_note_ejected(struct drives *drives, const struct device *dev, unsigned index)
{
    struct machine_drive *drive = drives_find(drives, dev, index);
    if (drive)
        atomic_fetch_or(&drives->ejected, 1u << (drive - drives->drive));
}

void drives_write_list(const struct drives *drives, int fd)
{
    struct disk *disks[DRIVES_MAX];
    for (unsigned i = 0; i < drives->count; i++)
        disks[i] = drives->drive[i].disk;
    image_write_list(fd, disks, drives->count);
}

void drives_change_medium(struct drives *drives, struct machine_drive *drive, struct disk *disk,
                          int list)
{
    struct device *dev = drive->device;
    struct disk *old = drive->disk;
    if (disk)
        disk_attach(disk, &dev->lock, dev->loop);
    device_lock(dev);
    dev->class->change_medium(dev, drive->index, disk);
    /* What the guest ejected was the old one. */
    atomic_fetch_and(&drives->ejected, ~(1u << (drive - drives->drive)));
    device_unlock(dev);
    g_mutex_lock(&drives->lock);
    drive->disk = disk;
    g_mutex_unlock(&drives->lock);
    disk_free(old); /* the guest submits nothing to it any more: this ends */
    drives_write_list(drives, list);
}
