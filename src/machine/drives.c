/* The machine's drives; see drives.h. */
#include "machine/drives.h"

#include "base/error.h"
#include "block/image.h"
#include "block/volatile.h"
#include "block/zeroes.h"

#include <errno.h>

void drives_on_trouble(struct drives *drives, void (*full)(void *, struct disk *, int),
                       void (*failed)(void *, struct disk *, int), void *opaque)
{
    for (unsigned i = 0; i < drives->count; i++)
        if (drives->drive[i].disk) {
            disk_set_full(drives->drive[i].disk, full, opaque);
            disk_set_failed(drives->drive[i].disk, failed, opaque);
        }
}

void drives_drain(struct drives *drives)
{
    for (unsigned i = 0; i < drives->count; i++)
        if (drives->drive[i].disk) {
            disk_give_up(drives->drive[i].disk);
            disk_drain(drives->drive[i].disk);
        }
}

void drives_end(struct drives *drives)
{
    const struct disk_request flush = { .op = DISK_FLUSH };
    drives_drain(drives);
    for (unsigned i = 0; i < drives->count; i++)
        if (drives->drive[i].image && drives->drive[i].image->gathers)
            disk_now(drives->drive[i].image, &flush);
}

void drives_cut(struct drives *drives)
{
    for (unsigned i = 0; i < drives->count; i++)
        if (drives->drive[i].cache)
            volatile_cut(drives->drive[i].cache);
}

void drives_retry(struct drives *drives)
{
    for (unsigned i = 0; i < drives->count; i++)
        if (drives->drive[i].disk)
            disk_retry(drives->drive[i].disk);
}

void drives_close(struct drives *drives)
{
    for (unsigned i = 0; i < drives->count; i++) {
        g_mutex_lock(&drives->lock);
        struct disk *disk = g_steal_pointer(&drives->drive[i].disk);
        g_mutex_unlock(&drives->lock);
        disk_free(disk);
    }
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
    drive->disk = drive->image = disk;
    g_mutex_unlock(&drives->lock);
    disk_free(old); /* the guest submits nothing to it any more: this ends */
    drives_write_list(drives, list);
}

/* --- growing --------------------------------------------------------------------------------- */

struct machine_drive *drives_disk(struct drives *drives, unsigned number)
{
    for (unsigned i = 0, n = 0; i < drives->count; i++) {
        struct machine_drive *drive = &drives->drive[i];
        if (!drive->is_cd && drive->bus != DRIVE_FLOPPY && ++n == number)
            return drive;
    }
    return NULL;
}

static const char *why_not(const struct machine_drive *drive)
{
    if (drive->disk->readonly)
        return "is read-only";
    if (!drive->format)
        return "keeps its size: with --throwaway nothing of it would stay";
    return drive->format->resize ? NULL : "is in a format that hv cannot resize";
}

/* A sentence for what the host said. */
static const char *explain(int reason)
{
    switch (reason) {
    case EINVAL:
        return "its image cannot have that size: a block device grows by the host's tools, before "
               "the machine starts";
    case ENOTSUP:
        return "its image is of an old version, with snapshots that keep no size of their own";
    default:
        return g_strerror(reason);
    }
}

bool drives_grow(struct machine_drive *drive, uint64_t size, bool more, GError **error)
{
    struct device *dev = drive->device;
    struct disk *disk = drive->disk;
    const char *fault = why_not(drive);
    if (fault)
        return hv_fail(error, HV_WRONG_STATE, "%s %s", disk->name, fault);
    if (size > INT64_MAX / 2 || size % SECTOR)
        return hv_fail(error, HV_USAGE, "disk: a size in whole sectors of 512 bytes is wanted");
    size += more ? disk->size : 0;
    if (size <= disk->size)
        return hv_fail(error, HV_USAGE,
                       "%s has %" G_GUINT64_FORMAT
                       " bytes: while the machine runs it can only grow; `hv image resize "
                       "--shrink` makes it smaller when the machine is off",
                       disk->name, disk->size);
    int reason = drive->format->resize(drive->image, size);
    if (reason)
        return hv_fail(error, HV_FAILED, "%s cannot grow: %s", disk->name, explain(reason));
    device_lock(dev);
    if (drive->cache)
        volatile_follow(drive->cache);
    if (disk != (drive->cache ? drive->cache : drive->image))
        zeroes_follow(disk);
    if (dev->class->disk_resized)
        dev->class->disk_resized(dev, drive->index);
    device_unlock(dev);
    return true;
}

/* --- faults ---------------------------------------------------------------------------------- */

void drives_set_faults(struct machine_drive *drive, const struct disk_faults *faults)
{
    device_lock(drive->device);
    faults_set(drive->disk, drive->device->board->clock, faults);
    device_unlock(drive->device);
}
