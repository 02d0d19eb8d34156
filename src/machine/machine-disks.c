/* What happens to a machine's disks while it runs: media that are changed, and trouble of the
 * host's.
 */
#include "machine/machine-core.h"

#include "base/error.h"
#include "base/log.h"
#include "block/disk.h"
#include "machine/drives.h"

/* --- from the disks' threads ---------------------------------------------------------------- */

static void disk_is_full(void *opaque, struct disk *disk, int error)
{
    struct machine *m = opaque;
    (void)error;
    g_mutex_lock(&m->lock);
    m->full = disk;
    g_mutex_unlock(&m->lock);
    machine_post(m, MAIL_DISK_FULL);
}

static void disk_has_failed(void *opaque, struct disk *disk, int error)
{
    struct machine *m = opaque;
    g_mutex_lock(&m->lock);
    g_free(m->disk_error);
    m->disk_error = g_strdup_printf("%s: %s", disk->name, g_strerror(error));
    g_mutex_unlock(&m->lock);
    machine_post(m, MAIL_DISK_ERROR);
}

void machine_watch_disks(struct machine *m)
{
    drives_on_trouble(m->files.drives, disk_is_full, disk_has_failed, m);
}

/* --- on the machine's thread ---------------------------------------------------------------- */

static const char *const media[] = { [MEDIUM_CD] = "CD", [MEDIUM_FLOPPY] = "floppy" };

bool machine_eject(struct machine *m, enum medium kind, GError **error)
{
    struct machine_drive *drive = drives_for(m->files.drives, kind, true);
    if (!drive)
        return hv_fail(error, HV_WRONG_STATE, "no %s is in a drive", media[kind]);
    drives_change_medium(m->files.drives, drive, NULL, m->files.images);
    machine_tell(m, "eject", kind == MEDIUM_CD ? "" : "floppy");
    return true;
}

bool machine_insert(struct machine *m, enum medium kind, struct disk *disk, GError **error)
{
    struct machine_drive *drive = drives_for(m->files.drives, kind, false);
    const struct floppy_format *format = floppy_format(disk->size);
    if (!drive)
        return hv_fail(error, HV_WRONG_STATE, "it has no %s drive", media[kind]);
    if (kind == MEDIUM_FLOPPY && (!format || !floppy_fits(drive->floppy, format)))
        return hv_fail(error, HV_WRONG_STATE, "%s does not fit into the drive (%s)", disk->name,
                       floppy_drive_name(drive->floppy));
    disk_set_full(disk, disk_is_full, m);
    disk_set_failed(disk, disk_has_failed, m);
    drives_change_medium(m->files.drives, drive, disk, m->files.images);
    machine_tell(m, "insert", disk->name);
    return true;
}

void machine_guest_ejected(struct machine *m)
{
    struct drives *drives = m->files.drives;
    unsigned ejected = atomic_exchange(&drives->ejected, 0);
    for (unsigned i = 0; i < drives->count; i++)
        if (ejected & 1u << i && drives->drive[i].disk) {
            drives_change_medium(drives, &drives->drive[i], NULL, m->files.images);
            machine_tell(m, "eject", "by the guest");
        }
}

void machine_disk_full(struct machine *m)
{
    g_mutex_lock(&m->lock);
    struct disk *disk = g_steal_pointer(&m->full);
    g_mutex_unlock(&m->lock);
    if (!disk || m->state == STATE_OFF || m->state == STATE_CRASHED)
        return;
    machine_stop(m);
    g_autofree char *why =
        g_strdup_printf("no space is left on the host for %s: free some, then resume", disk->name);
    log_error(NULL, "%s", why);
    if (m->state != STATE_CRASHED) /* which resuming would not mend */
        machine_set_state(m, STATE_DISK_FULL, why);
}

void machine_disk_failed(struct machine *m)
{
    g_mutex_lock(&m->lock);
    g_autofree char *text = g_steal_pointer(&m->disk_error);
    g_mutex_unlock(&m->lock);
    if (text)
        machine_tell(m, "disk-error", text);
}

uint32_t machine_disk_activity(struct machine *m)
{
    return drives_activity(m->files.drives);
}
