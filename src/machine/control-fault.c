/* The method "fault" of the control socket: what the machine's disks and its network are to do
 * wrong, for tests of its guest. See block/faults.h and net_set_faults. */
#include "machine/control-core.h"

#include "base/error.h"

#include <string.h>

enum { MS_MAX = 3600 * 1000 };
#define NS_PER_MS UINT64_C(1000000)

struct wish {
    json_int_t disk, sector, last, ms, seed; /* -1: not given */
    double percent;                          /* -1: not given */
    const char *of;                          /* NULL: not given */
};

/* --- parameters -------------------------------------------------------------------------------
 */

static bool take_number(const json_t *params, const char *name, json_int_t least, json_int_t most,
                        json_int_t *number, GError **error)
{
    const json_t *value = json_object_get(params, name);
    *number = value ? json_integer_value(value) : -1;
    return !value || (json_is_integer(value) && *number >= least && *number <= most) ||
           hv_fail(error, HV_USAGE,
                   "%s: a number from %" JSON_INTEGER_FORMAT " to %" JSON_INTEGER_FORMAT
                   " is wanted",
                   name, least, most);
}

static bool take(const json_t *params, struct wish *wish, GError **error)
{
    const json_t *percent = json_object_get(params, "percent"), *of = json_object_get(params, "of");
    wish->percent = percent ? json_number_value(percent) : -1;
    wish->of = json_string_value(of);
    if (percent && (!json_is_number(percent) || !(wish->percent >= 0 && wish->percent <= 100)))
        return hv_fail(error, HV_USAGE, "percent: a number from 0 to 100 is wanted");
    if (of && (!wish->of || (strcmp(wish->of, "read") && strcmp(wish->of, "write"))))
        return hv_fail(error, HV_USAGE, "of: \"read\" or \"write\" is wanted; both without it");
    return take_number(params, "disk", 1, DRIVES_MAX, &wish->disk, error) &&
           take_number(params, "sector", 0, INT64_MAX, &wish->sector, error) &&
           take_number(params, "last", 0, INT64_MAX, &wish->last, error) &&
           take_number(params, "ms", 0, MS_MAX, &wish->ms, error) &&
           take_number(params, "seed", 0, UINT32_MAX, &wish->seed, error);
}

/* --- disks ------------------------------------------------------------------------------------
 */

static bool add_full(const struct machine_drive *drive, const struct wish *wish,
                     struct disk_faults *faults, GError **error)
{
    (void)wish;
    faults->full = true;
    return !drive->disk->readonly ||
           hv_fail(error, HV_WRONG_STATE, "%s is read-only", drive->disk->name);
}

static bool add_bad(const struct machine_drive *drive, const struct wish *wish,
                    struct disk_faults *faults, GError **error)
{
    uint64_t sectors = drive->disk->size / SECTOR, first = (uint64_t)wish->sector;
    uint64_t last = wish->last < 0 ? first : (uint64_t)wish->last;
    if (wish->sector < 0)
        return hv_fail(error, HV_USAGE, "sector: which one? A number from 0 on is wanted");
    if (last < first)
        return hv_fail(error, HV_USAGE, "last: a number from \"sector\" on is wanted");
    if (last >= sectors)
        return hv_fail(error, HV_USAGE, "%s has sectors 0 to %" G_GUINT64_FORMAT, drive->disk->name,
                       sectors - 1);
    if (faults->bad_count == FAULTS_RANGES)
        return hv_fail(error, HV_WRONG_STATE,
                       "%s has %d ranges of bad sectors, which are all it can have",
                       drive->disk->name, FAULTS_RANGES);
    faults->bad[faults->bad_count++] = (struct fault_range){
        .first = first,
        .last = last,
        .read = !wish->of || !strcmp(wish->of, "read"),
        .write = !wish->of || !strcmp(wish->of, "write"),
    };
    return true;
}

static bool add_slow(const struct machine_drive *drive, const struct wish *wish,
                     struct disk_faults *faults, GError **error)
{
    (void)drive;
    faults->delay = (uint64_t)wish->ms * NS_PER_MS;
    return wish->ms >= 0 || hv_fail(error, HV_USAGE, "ms: how long is each request to take?");
}

static bool end_all(const struct machine_drive *drive, const struct wish *wish,
                    struct disk_faults *faults, GError **error)
{
    (void)drive, (void)wish, (void)error;
    *faults = (struct disk_faults){ .delay = 0 };
    return true;
}

static const struct {
    const char *kind, *params;
    bool (*add)(const struct machine_drive *drive, const struct wish *wish,
                struct disk_faults *faults, GError **error);
} of_disks[] = {
    { "disk-full", "disk", add_full },
    { "disk-error", "disk sector last of", add_bad },
    { "disk-slow", "disk ms", add_slow },
    { "disk-good", "disk", end_all },
};

static bool fault_disk(struct client *c, size_t kind, const struct wish *wish, GError **error)
{
    struct drives *drives = machine_drives(c->control->machine);
    struct machine_drive *drive = drives_disk(drives, wish->disk < 0 ? 1 : (unsigned)wish->disk);
    if (wish->disk < 0 && drives_disk(drives, 2))
        return hv_fail(error, HV_USAGE, "disk: it has more than one: which number?");
    if (!drive)
        return hv_fail(error, HV_WRONG_STATE, "disk: it has no such disk");
    struct disk_faults faults = faults_get(drive->disk);
    if (!of_disks[kind].add(drive, wish, &faults, error))
        return false;
    drives_set_faults(drive, &faults);
    return true;
}

/* --- the network ------------------------------------------------------------------------------
 */

static bool add_loss(const struct wish *wish, struct net_faults *faults, GError **error)
{
    faults->loss = (uint32_t)(MAX(wish->percent, 0) * (NET_LOSS_ALL / 100) + 0.5);
    faults->seed = wish->seed < 0 ? g_random_int() : (uint32_t)wish->seed;
    return wish->percent >= 0 || hv_fail(error, HV_USAGE, "percent: how many packets get lost?");
}

static bool add_delay(const struct wish *wish, struct net_faults *faults, GError **error)
{
    faults->delay = (uint64_t)wish->ms * NS_PER_MS;
    return wish->ms >= 0 || hv_fail(error, HV_USAGE, "ms: how late is each packet?");
}

static bool end_net(const struct wish *wish, struct net_faults *faults, GError **error)
{
    (void)wish, (void)error;
    *faults = (struct net_faults){ .loss = 0 };
    return true;
}

static const struct {
    const char *kind, *params;
    bool (*add)(const struct wish *wish, struct net_faults *faults, GError **error);
} of_net[] = {
    { "net-loss", "percent seed", add_loss },
    { "net-delay", "ms", add_delay },
    { "net-good", "", end_net },
};

static json_t *fault_net(struct client *c, size_t kind, const struct wish *wish, GError **error)
{
    struct machine *machine = c->control->machine;
    struct net_faults faults;
    if (!machine_net_faults(machine, &faults)) {
        hv_fail(error, HV_WRONG_STATE, "it has no network card");
        return NULL;
    }
    if (!of_net[kind].add(wish, &faults, error) || !machine_set_net_faults(machine, &faults, error))
        return NULL;
    return faults.loss ? json_pack("{s:I}", "seed", (json_int_t)faults.seed) : json_object();
}

/* --- the method -------------------------------------------------------------------------------
 */

/* A parameter that is not for this kind would be one that does nothing. */
static bool all_known(const char *kind, const char *known, const json_t *params, GError **error)
{
    g_auto(GStrv) words = g_strsplit(known, " ", -1);
    void *at = json_object_iter((json_t *)(uintptr_t)params);
    for (; at; at = json_object_iter_next((json_t *)(uintptr_t)params, at)) {
        const char *key = json_object_iter_key(at);
        if (strcmp(key, "kind") && !g_strv_contains((const char *const *)words, key))
            return hv_fail(error, HV_USAGE, "%s is not for %s", key, kind);
    }
    return true;
}

json_t *control_fault(struct client *c, const json_t *params, GError **error)
{
    const char *kind = json_string_value(json_object_get(params, "kind"));
    const char *kinds[G_N_ELEMENTS(of_disks) + G_N_ELEMENTS(of_net) + 1] = { NULL };
    struct wish wish;
    size_t n = 0;
    if (!take(params, &wish, error))
        return NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(of_disks); kinds[n++] = of_disks[i++].kind)
        if (kind && !strcmp(kind, of_disks[i].kind))
            return all_known(kind, of_disks[i].params, params, error) &&
                           fault_disk(c, i, &wish, error)
                       ? json_object()
                       : NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(of_net); kinds[n++] = of_net[i++].kind)
        if (kind && !strcmp(kind, of_net[i].kind))
            return all_known(kind, of_net[i].params, params, error) ? fault_net(c, i, &wish, error)
                                                                    : NULL;
    g_autofree char *list = g_strjoinv(", ", (char **)(uintptr_t)kinds);
    hv_fail(error, HV_USAGE, "kind: one of %s is wanted", list);
    return NULL;
}
