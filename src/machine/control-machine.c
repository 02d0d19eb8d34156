/* Methods of the control socket about the machine itself: info, stop, eject, set. */
#include "machine/control-core.h"

#include "base/error.h"
#include "machine/display.h"
#include "machine/info.h"
#include "machine/media.h"
#include "machine/typist.h"

#include <string.h>
#include <unistd.h>

json_t *control_info(struct client *c, const json_t *params, GError **error)
{
    const struct config *config = machine_config(c->control->machine);
    (void)params, (void)error;
    return json_pack(
        "{s:s, s:s, s:s, s:i, s:I, s:I, s:i, s:b, s:s, s:s*, s:o, s:o*, s:o*, s:o*}", "name",
        config->name, "state", control_state_word(c->control->machine), "why",
        machine_why(c->control->machine), "pid", (int)getpid(), "memory",
        (json_int_t)config->memory, "cpus", (json_int_t)config->cpus, "viewers",
        (int)display_viewers(c->control->display), "typing", typist_busy(c->control->typist),
        "layout", config->layout ? config->layout : "us", "net", config->net, "disks",
        info_disks(c->control->machine), "guest-memory", info_memory(c->control->machine), "vhost",
        info_vhost(c->control->machine), "net-faults", info_net_faults(c->control->machine));
}

json_t *control_cpus(struct client *c, const json_t *params, GError **error)
{
    json_t *list = info_cpus(c->control->machine, error);
    (void)params;
    return list ? json_pack("{s:o}", "cpus", list) : NULL;
}

enum { ANY_STATE = ~0u };

/* What "stop" does, and in which states that means anything. */
static const struct {
    const char *how;
    void (*run)(struct machine *machine);
    unsigned states; /* bits of enum display_state */
    const char *otherwise;
} stops[] = {
    { "shutdown", machine_press_power, 1u << STATE_RUNNING,
      "its power button is heard only while it runs; --resume or --kill" },
    { "kill", machine_pull_plug, ANY_STATE, NULL },
    { "reset", machine_reset, ANY_STATE & ~(1u << STATE_DISK_FULL),
      "what it writes would be lost; --resume when there is space, or --kill" },
    { "pause", machine_pause, 1u << STATE_RUNNING, "only a running machine can be paused" },
    { "resume", machine_resume, 1u << STATE_PAUSED | 1u << STATE_DISK_FULL,
      "only a paused machine can be resumed" },
};

json_t *control_stop(struct client *c, const json_t *params, GError **error)
{
    struct machine *machine = c->control->machine;
    const json_t *wish = json_object_get(params, "how");
    const char *how = wish ? json_string_value(wish) : "shutdown";
    for (size_t i = 0; how && i < G_N_ELEMENTS(stops); i++) {
        if (strcmp(stops[i].how, how))
            continue;
        if (!(stops[i].states & 1u << machine_state(machine))) {
            hv_fail(error, HV_WRONG_STATE, "it is %s: %s", control_state_word(machine),
                    stops[i].otherwise);
            return NULL;
        }
        stops[i].run(machine);
        return json_pack("{s:s}", "state", control_state_word(machine));
    }
    hv_fail(error, HV_USAGE, "how: \"%s\": shutdown, kill, reset, pause or resume is wanted",
            how ? how : "");
    return NULL;
}

json_t *control_eject(struct client *c, const json_t *params, GError **error)
{
    return media_eject(c->control->machine, params, error) ? json_object() : NULL;
}

static bool set_cd(struct client *c, const json_t *value, GError **error)
{
    return media_set(c->control->machine, MEDIUM_CD, value, &c->passed, error);
}

static bool set_fd(struct client *c, const json_t *value, GError **error)
{
    return media_set(c->control->machine, MEDIUM_FLOPPY, value, &c->passed, error);
}

/* How much of its memory the guest is to use. Done when its balloon driver has got there. */
static bool set_memory(struct client *c, const json_t *value, GError **error)
{
    uint64_t most = machine_config(c->control->machine)->memory;
    json_int_t bytes = json_integer_value(value);
    struct device *dev = info_find(c->control->machine, info_has_memory);
    if (bytes < (json_int_t)MIB || (uint64_t)bytes > most)
        return hv_fail(error, HV_USAGE,
                       "memory: from 1 MiB to the machine's %" G_GUINT64_FORMAT
                       " MiB are possible, in bytes",
                       most / MIB);
    if (!dev)
        return hv_fail(error, HV_WRONG_STATE, "memory: the machine has no virtio-balloon");
    device_lock(dev);
    bool heard = dev->class->memory_wish(dev, (uint64_t)bytes);
    device_unlock(dev);
    return heard || hv_fail(error, HV_WRONG_STATE,
                            "memory: the guest has no balloon driver running; it will hear of it "
                            "when it starts one");
}

static bool has_terminal(const struct device_class *class)
{
    return class->terminal_resized;
}

static bool set_terminal(struct client *c, const json_t *value, GError **error)
{
    int columns, rows;
    struct device *dev = info_find(c->control->machine, has_terminal);
    if (json_unpack((json_t *)(uintptr_t)value, "{s:i, s:i}", "columns", &columns, "rows", &rows) ||
        columns < 0 || columns > UINT16_MAX || rows < 0 || rows > UINT16_MAX)
        return hv_fail(error, HV_USAGE, "terminal: numbers of columns and rows are wanted");
    if (!dev)
        return hv_fail(error, HV_WRONG_STATE, "terminal: the machine has no virtio-console");
    device_lock(dev);
    dev->class->terminal_resized(dev, (unsigned)columns, (unsigned)rows);
    device_unlock(dev);
    return true;
}

static bool set_net(struct client *c, const json_t *value, GError **error)
{
    const char *word = json_string_value(value);
    bool in = word && !strcmp(word, "on");
    if (!in && (!word || strcmp(word, "off")))
        return hv_fail(error, HV_USAGE, "net: \"on\" or \"off\" is wanted");
    return machine_set_cable(c->control->machine, in, error);
}

/* Only larger. Without a number it is the machine's one disk. */
static bool set_disk(struct client *c, const json_t *value, GError **error)
{
    struct drives *drives = machine_drives(c->control->machine);
    json_int_t size = 0;
    int number = 0, more = false;
    if (json_unpack((json_t *)(uintptr_t)value, "{s:I, s?i, s?b}", "size", &size, "number", &number,
                    "more", &more) ||
        size <= 0 || number < 0)
        return hv_fail(error, HV_USAGE, "disk: a size in bytes, and which number, are wanted");
    if (!number && drives_disk(drives, 2))
        return hv_fail(error, HV_USAGE, "disk: it has more than one: disk1, disk2 ...");
    struct machine_drive *drive = drives_disk(drives, number ? (unsigned)number : 1);
    if (!drive)
        return hv_fail(error, HV_WRONG_STATE, "disk%d: it has no such disk", number ? number : 1);
    if (machine_state(c->control->machine) == STATE_DISK_FULL)
        return hv_fail(error, HV_WRONG_STATE,
                       "disk: the machine waits for room on the host's disk: `hv stop --resume` "
                       "lets it go on when there is some");
    return drives_grow(drive, (uint64_t)size, more, error);
}

json_t *control_set(struct client *c, const json_t *params, GError **error)
{
    static const struct {
        const char *key;
        bool (*set)(struct client *c, const json_t *value, GError **error);
    } things[] = {
        { "cd", set_cd },         { "disk", set_disk }, { "fd", set_fd },
        { "memory", set_memory }, { "net", set_net },   { "terminal", set_terminal },
    };
    const char *keys[G_N_ELEMENTS(things) + 1] = { NULL };
    const char *key = json_object_iter_key(json_object_iter((json_t *)(uintptr_t)params));
    if (!key || json_object_size(params) != 1) {
        hv_fail(error, HV_USAGE, "one thing to be set is wanted, such as cd");
        return NULL;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(things); i++) {
        if (!strcmp(things[i].key, key))
            return things[i].set(c, json_object_get(params, key), error) ? json_object() : NULL;
        keys[i] = things[i].key;
    }
    const char *near = hv_nearest(key, keys);
    hv_fail(error, HV_USAGE, "there is nothing called \"%s\" to be set%s%s%s", key,
            near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return NULL;
}
