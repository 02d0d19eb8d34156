/* What a machine's devices say of themselves and their guest; see info.h. */
#include "machine/info.h"

#include "bus/virtio.h"

#define NS_PER_MS UINT64_C(1000000)

struct device *info_find(struct machine *machine, bool (*has)(const struct device_class *class))
{
    const GPtrArray *devices = machine_devices(machine);
    for (guint i = 0; i < devices->len; i++) {
        struct device *dev = g_ptr_array_index(devices, i);
        if (has(dev->class))
            return dev;
    }
    return NULL;
}

bool info_has_memory(const struct device_class *class)
{
    return class->memory_wish && class->memory_ask;
}

json_t *info_memory(struct machine *machine)
{
    static const char *const names[MEMORY_STATISTICS] = {
        [MEMORY_SWAPPED_IN] = "swapped-in",
        [MEMORY_SWAPPED_OUT] = "swapped-out",
        [MEMORY_MAJOR_FAULTS] = "major-faults",
        [MEMORY_MINOR_FAULTS] = "minor-faults",
        [MEMORY_FREE] = "free",
        [MEMORY_TOTAL] = "total",
        [MEMORY_AVAILABLE] = "available",
        [MEMORY_CACHES] = "caches",
        [MEMORY_HUGE_TAKEN] = "huge-taken",
        [MEMORY_HUGE_FAILED] = "huge-failed",
    };
    struct device *dev = info_find(machine, info_has_memory);
    struct memory_statistics said;
    if (!dev)
        return NULL;
    device_lock(dev);
    bool speaks = dev->class->memory_ask(dev, &said);
    device_unlock(dev);
    if (!speaks)
        return NULL;
    json_t *json = json_pack("{s:I}", "balloon", (json_int_t)said.balloon);
    if (said.reported)
        json_object_set_new(json, "age-ms",
                            json_integer((json_int_t)((device_now(dev) - said.time) / 1000000)));
    for (unsigned i = 0; i < MEMORY_STATISTICS; i++)
        if (said.reported && said.known >> i & 1)
            json_object_set_new(json, names[i],
                                json_integer((json_int_t)MIN(said.value[i], INT64_MAX)));
    return json;
}

static bool has_cable(const struct device_class *class)
{
    return class->set_cable;
}

json_t *info_vhost(struct machine *machine)
{
    const char *net = machine_config(machine)->net;
    struct device *dev = info_find(machine, has_cable);
    int pairs = 0;
    if (!dev || !net || !g_str_has_prefix(net, "tap="))
        return NULL;
    device_lock(dev);
    for (unsigned i = 0; dev->virtio && i < NIC_PAIRS_MAX; i++)
        pairs += virtio_is_lent(dev, 2 * i) && virtio_is_lent(dev, 2 * i + 1);
    device_unlock(dev);
    return json_integer(pairs);
}

json_t *info_net_faults(struct machine *machine)
{
    struct net_faults faults;
    if (!machine_net_faults(machine, &faults) || (!faults.loss && !faults.delay))
        return NULL;
    return json_pack("{s:f, s:I, s:I}", "loss-percent", (double)faults.loss / (NET_LOSS_ALL / 100),
                     "seed", (json_int_t)faults.seed, "delay-ms",
                     (json_int_t)(faults.delay / NS_PER_MS));
}

static json_t *disk_faults(const struct disk *disk)
{
    const struct disk_faults faults = faults_get(disk);
    if (!faults.full && !faults.delay && !faults.bad_count)
        return NULL;
    json_t *json = json_object(), *bad = json_array();
    if (faults.full)
        json_object_set_new(json, "full", json_true());
    if (faults.delay)
        json_object_set_new(json, "slow-ms", json_integer((json_int_t)(faults.delay / NS_PER_MS)));
    for (unsigned i = 0; i < faults.bad_count; i++) {
        const struct fault_range *range = &faults.bad[i];
        json_array_append_new(bad,
                              json_pack("{s:I, s:I, s:b, s:b}", "sector", (json_int_t)range->first,
                                        "last", (json_int_t)range->last, "read", (int)range->read,
                                        "write", (int)range->write));
    }
    if (faults.bad_count)
        json_object_set(json, "errors", bad);
    json_decref(bad);
    return json;
}

json_t *info_disks(struct machine *machine)
{
    json_t *list = json_array();
    const struct machine_drive *drive;
    for (unsigned n = 1; (drive = drives_disk(machine_drives(machine), n)); n++)
        json_array_append_new(
            list, json_pack("{s:i, s:s, s:s, s:I, s:s*, s:b, s:o*}", "number", (int)n, "name",
                            drive->disk->name, "bus", drive_bus_names[drive->bus], "size",
                            (json_int_t)drive->disk->size, "format",
                            drive->format ? drive->format->name : NULL, "readonly",
                            (int)drive->disk->readonly, "faults", disk_faults(drive->disk)));
    return list;
}

json_t *info_cpus(struct machine *machine, GError **error)
{
    static const char *const doing[] = { "running", "halted", "stuck", "waiting" };
    struct vcpu_look looks[MAX_VCPUS];
    if (!machine_look(machine, looks, error))
        return NULL;
    json_t *list = json_array();
    for (int id = 0; id < (int)machine_config(machine)->cpus; id++) {
        char address[sizeof "0x" + 16];
        g_snprintf(address, sizeof address, "0x%" G_GINT64_MODIFIER "x", looks[id].address);
        json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:i, s:i}", "number", id, "state",
                                              doing[looks[id].doing], "address", address, "bits",
                                              (int)looks[id].bits, "ring", (int)looks[id].ring));
    }
    return list;
}
