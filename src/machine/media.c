/* Changing CDs and floppies; see media.h. On the machine's thread. */
#include "machine/media.h"

#include "base/error.h"
#include "block/overlay.h"
#include "block/raw.h"

#include <fcntl.h>
#include <string.h>

bool media_eject(struct machine *machine, const json_t *params, GError **error)
{
    const json_t *drive = json_object_get(params, "drive");
    const char *word = drive ? json_string_value(drive) : "cd";
    bool floppy = word && !strcmp(word, "fd");
    if (!floppy && (!word || strcmp(word, "cd")))
        return hv_fail(error, HV_USAGE, "drive: \"cd\" or \"fd\" is wanted");
    return machine_eject(machine, floppy ? MEDIUM_FLOPPY : MEDIUM_CD, error);
}

/* A floppy can be written to as its file can; with --throwaway, what is written vanishes. */
static struct disk *open_medium(struct machine *machine, enum medium kind, const char *name,
                                int *file, GError **error)
{
    int flags = fcntl(*file, F_GETFL);
    bool readonly = kind == MEDIUM_CD || flags < 0 || (flags & O_ACCMODE) == O_RDONLY;
    bool overlay = !readonly && machine_config(machine)->throwaway;
    struct disk *disk = raw_open(*file, name, readonly || overlay, error);
    if (disk)
        *file = -1;
    struct disk *shown = disk && overlay ? overlay_open(disk, error) : disk;
    if (disk && !shown)
        disk_free(disk);
    return shown;
}

bool media_set(struct machine *machine, enum medium kind, const json_t *value, int *file,
               GError **error)
{
    const char *name = json_string_value(value);
    if (json_is_null(value))
        return machine_eject(machine, kind, error);
    if (!name || *file < 0)
        return hv_fail(error, HV_USAGE,
                       "%s: null, or a name and beside it an open file, are wanted",
                       kind == MEDIUM_CD ? "cd" : "fd");
    struct disk *disk = open_medium(machine, kind, name, file, error);
    if (!disk)
        return false;
    if (machine_insert(machine, kind, disk, error))
        return true;
    disk_free(disk);
    return false;
}
