/* The settings of a machine; see config.h. */
#include "machine/config.h"

#include "base/error.h"
#include "block/format.h"
#include "memory/guest.h"

#include <string.h>

#define AT(m) offsetof(struct config, m)

const char *const drive_bus_names[] = { "ahci", "virtio", "nvme", "floppy", NULL };

const struct setting config_settings[] = {
    { "memory", 'm', SETTING_SIZE, AT(memory), "SIZE",
      "the guest's RAM: 512M, 4G (a quarter of the "
      "host's, at most 4G)",
      MIB, 1024 * GIB },
    { "cpus", 'c', SETTING_UINT, AT(cpus), "N", "virtual CPUs (the host's, at most 4)", 1, 64 },
    { "cpu", 0, SETTING_STRING, AT(cpu), "host[,-FEATURE]...", "what the guest sees of the CPU" },
    { "disk", 0, SETTING_DRIVE, AT(disks),
      "FILE[,bus=ahci|virtio|nvme][,format=NAME][,backing=FILE][,detect-zeroes=on|unmap][,readonly]"
      "[,OPTION=VALUE]...",
      "another hard disk (repeatable; hv devices lists options of virtio-blk and nvme)" },
    { "cdrom", 0, SETTING_DRIVE, AT(cdroms), "FILE", "a CD or DVD (repeatable)" },
    { "floppy", 0, SETTING_DRIVE, AT(floppies), "FILE[,format=raw][,readonly]|none",
      "a floppy drive, or two (none: without a floppy in it)" },
    { "boot", 0, SETTING_STRING, AT(boot), "disk,cd,floppy,net",
      "what to boot from, in this order" },
    { "firmware", 0, SETTING_STRING, AT(firmware), "bios|FILE", "the firmware (SeaBIOS)" },
    { "kernel", 0, SETTING_STRING, AT(kernel), "FILE",
      "a kernel to start without firmware (Linux, ELF with PVH)" },
    { "initrd", 0, SETTING_LIST, AT(initrds), "FILE",
      "its initial RAM disk (repeatable: one after the other)" },
    { "append", 0, SETTING_STRING, AT(append), "TEXT", "its command line" },
    { "multiboot", 0, SETTING_BOOL, AT(multiboot), NULL,
      "it is a multiboot kernel; --initrd 'FILE ARGUMENTS' are modules" },
    { "net", 0, SETTING_STRING, AT(net),
      "none|user[,restrict]|tap=NAME|socket=PATH[,mac=MAC][,model=virtio|e1000][,pcap=FILE]"
      "[,OPTION=VALUE]...",
      "what the network card leads to (user: by way of this host)" },
    { "publish", 'p', SETTING_LIST, AT(publish), "[ADDRESS:]HOST:GUEST[/udp]",
      "a port of this host that leads into the guest (127.0.0.1; repeatable)" },
    { "headless", 0, SETTING_BOOL, AT(headless), NULL, "no window; hv open NAME opens one later" },
    { "serial", 0, SETTING_STRING, AT(serial), "stdio|FILE|pty|none",
      "where the first serial port leads (headless on a terminal: stdio; else none)" },
    { "serial2", 0, SETTING_STRING, AT(serial2), "FILE|none",
      "where what the guest writes to the second one goes (none)" },
    { "console", 0, SETTING_STRING, AT(console), "serial|virtio",
      "what leads there: that port, or a virtio console, hvc0, in its place (serial)" },
    { "device", 0, SETTING_LIST, AT(devices), "CLASS[,OPTION=VALUE]...",
      "one more device (repeatable; hv devices lists them)" },
    { "layout", 0, SETTING_STRING, AT(layout), "NAME",
      "the guest's keyboard layout, by which text is typed: de, fr, de(nodeadkeys) (us)" },
    { "name", 0, SETTING_STRING, AT(name), "NAME", "the machine's name (from the image's)" },
    { "throwaway", 0, SETTING_BOOL, AT(throwaway), NULL, "writes to the disks vanish at the end" },
    { "volatile", 0, SETTING_UINT, AT(volatile_seed), "SEED",
      "a pulled plug loses what the guest did not flush to its disks; the number says what", 1,
      UINT32_MAX },
    { "trust-backing", 0, SETTING_BOOL, AT(trust_backing), NULL,
      "disk images may lie on any file that they name" },
    { "clock", 0, SETTING_STRING, AT(clock), "[utc|local][+|-AMOUNT]|DATE[THH:MM:SS]",
      "what its clock shows at the start: local, +2y, 2028-02-29 (utc; Windows: local)" },
    { "hpet", 0, SETTING_BOOL, AT(hpet), NULL, "give the machine an HPET" },
    { "cid", 0, SETTING_UINT, AT(cid), "N",
      "the guest's address on its virtio socket (from the machine's name)", 3, UINT32_MAX - 1 },
    { "trace", 0, SETTING_STRING, AT(trace), "all|ports|mmio|firmware|CLASS[,...]",
      "print the guest's device accesses, or its firmware's log, on stderr" },
    { .name = NULL },
};

static void drive_free(void *data)
{
    struct drive *drive = data;
    g_free(drive->file);
    g_free(drive->bus);
    g_free(drive->format);
    g_free(drive->options);
    g_free(drive->zeroes);
    g_ptr_array_unref(drive->backing);
    g_free(drive);
}

struct drive *drive_new(const char *file, bool cd)
{
    struct drive *drive = g_new0(struct drive, 1);
    drive->file = g_strdup(file);
    drive->backing = g_ptr_array_new_with_free_func(g_free);
    drive->cd = cd;
    return drive;
}

struct config *config_new(void)
{
    struct config *config = g_new0(struct config, 1);
    config->disks = g_ptr_array_new_with_free_func(drive_free);
    config->cdroms = g_ptr_array_new_with_free_func(drive_free);
    config->floppies = g_ptr_array_new_with_free_func(drive_free);
    config->devices = g_ptr_array_new_with_free_func(g_free);
    config->initrds = g_ptr_array_new_with_free_func(g_free);
    config->publish = g_ptr_array_new_with_free_func(g_free);
    return config;
}

void config_free(struct config *config)
{
    if (!config)
        return;
    for (const struct setting *s = config_settings; s->name; s++)
        if (s->kind == SETTING_STRING)
            g_free(*(char **)((char *)config + s->offset));
    g_free(config->image);
    g_free(config->folder);
    g_ptr_array_unref(config->disks);
    g_ptr_array_unref(config->cdroms);
    g_ptr_array_unref(config->floppies);
    g_ptr_array_unref(config->devices);
    g_ptr_array_unref(config->initrds);
    g_ptr_array_unref(config->publish);
    g_free(config);
}

/* --- values --------------------------------------------------------------------------------- */

/* A limit, as one would write it. */
static char *as_typed(const struct setting *s, uint64_t number)
{
    bool mib = s->kind == SETTING_SIZE;
    return g_strdup_printf("%" G_GUINT64_FORMAT "%s", mib ? number / MIB : number, mib ? "M" : "");
}

static bool set_number(const struct setting *s, const char *value, uint64_t *to, GError **error)
{
    static const char units[] = "KMGT";
    char *end = NULL;
    uint64_t number = g_ascii_isdigit(value[0]) ? g_ascii_strtoull(value, &end, 10) : 0;
    bool ok = end && end != value;
    if (ok && s->kind == SETTING_SIZE) {
        /* A bare number means MiB, as with every other hypervisor. */
        const char *unit = *end ? strchr(units, g_ascii_toupper(*end)) : units + 1;
        unsigned shift = unit && *unit ? 10 * (unsigned)(unit - units + 1) : 0;
        ok = shift && number < UINT64_C(1) << (63 - shift);
        number = ok ? number << shift : 0;
        end += *end != 0;
        if (ok && (*end == 'B' || *end == 'b'))
            end++;
    }
    if (!ok || *end)
        return hv_fail(error, HV_USAGE, "--%s %s: %s is wanted", s->name, value,
                       s->kind == SETTING_SIZE ? "a size such as 512M or 4G" : "a number");
    if (number < s->min || number > s->max) {
        g_autofree char *low = as_typed(s, s->min), *high = as_typed(s, s->max);
        return hv_fail(error, HV_USAGE, "--%s %s: from %s to %s is possible", s->name, value, low,
                       high);
    }
    *to = number;
    return true;
}

static bool set_bool(const struct setting *s, const char *value, bool *to, GError **error)
{
    bool on = !value || !strcmp(value, "on");
    if (!on && strcmp(value, "off"))
        return hv_fail(error, HV_USAGE, "--%s %s: on or off is wanted, or nothing (on)", s->name,
                       value);
    *to = on;
    return true;
}

void config_add_option(char **options, const char *word)
{
    char *all = *options ? g_strjoin(",", *options, word, NULL) : g_strdup(word);
    g_free(*options);
    *options = all;
}

static bool is_floppy(const struct drive *drive)
{
    return drive->bus && !strcmp(drive->bus, drive_bus_names[DRIVE_FLOPPY]);
}

static bool drive_option(const char *option, struct drive *drive, const char *word, GError **error)
{
    static const char *const known[] = { "backing", "bus",      "detect-zeroes",
                                         "format",  "readonly", NULL };
    const char *equals = strchr(word, '=');
    g_autofree char *key = equals ? g_strndup(word, (gsize)(equals - word)) : g_strdup(word);
    if (!strcmp(key, "readonly")) {
        if (equals)
            return hv_fail(error, HV_USAGE, "--%s: readonly takes no value", option);
        drive->readonly = true;
        return true;
    }
    if (!strcmp(key, "bus")) {
        bool floppy = is_floppy(drive), fixed = drive->cd || floppy;
        if (equals && !fixed && !strcmp(equals + 1, drive_bus_names[DRIVE_FLOPPY]))
            return hv_fail(error, HV_USAGE, "--%s: %s: for a floppy drive there is --floppy FILE",
                           option, word);
        if (!equals || !g_strv_contains(drive_bus_names, equals + 1) ||
            (fixed && strcmp(equals + 1, drive->bus)))
            return hv_fail(error, HV_USAGE, "--%s: %s: %s is what there is", option, word,
                           drive->cd ? "\"ahci\""
                           : floppy  ? "\"floppy\""
                                     : "\"ahci\", \"virtio\" or \"nvme\"");
        g_free(drive->bus);
        drive->bus = g_strdup(equals + 1);
        return true;
    }
    if (!strcmp(key, "format")) {
        if (!equals || !format_named(equals + 1)) {
            g_autofree char *names = format_names();
            return hv_fail(error, HV_USAGE, "--%s: %s: %s is what there is", option, word, names);
        }
        g_free(drive->format);
        drive->format = g_strdup(equals + 1);
        return true;
    }
    if (!strcmp(key, "detect-zeroes") && !drive->cd && !is_floppy(drive)) {
        static const char *const words[] = { "off", "on", "unmap", NULL };
        if (!equals || !g_strv_contains(words, equals + 1))
            return hv_fail(error, HV_USAGE, "--%s: %s: \"off\", \"on\" or \"unmap\" is wanted",
                           option, word);
        g_free(drive->zeroes);
        drive->zeroes = g_strdup(equals + 1);
        return true;
    }
    if (!strcmp(key, "backing")) {
        if (!equals || !equals[1])
            return hv_fail(error, HV_USAGE, "--%s: backing: a file name is wanted", option);
        g_ptr_array_add(drive->backing, g_strdup(equals + 1));
        return true;
    }
    const char *near = hv_nearest(key, known);
    if (equals && *key && !near && !drive->cd && !is_floppy(drive)) { /* its controller's: pc.c */
        config_add_option(&drive->options, word);
        return true;
    }
    return hv_fail(error, HV_USAGE, "--%s: unknown key \"%s\"%s%s%s", option, key,
                   near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

static bool add_drive(const char *option, GPtrArray *drives, const char *value, const char *bus,
                      bool cd, GError **error)
{
    g_auto(GStrv) words = g_strsplit(value, ",", -1);
    struct drive *drive = drive_new(words[0] ? words[0] : "", cd);
    drive->bus = g_strdup(bus); /* of a disk: what the guest has drivers for */
    drive->readonly = cd;
    g_ptr_array_add(drives, drive);
    for (char **word = words[0] ? words + 1 : words; *word; word++)
        if (!drive_option(option, drive, *word, error))
            return false;
    return *drive->file || hv_fail(error, HV_USAGE, "--%s: a file name is wanted", option);
}

bool config_set(struct config *config, const struct setting *s, const char *value, GError **error)
{
    void *at = (char *)config + s->offset;
    switch (s->kind) {
    case SETTING_STRING:
        g_free(*(char **)at);
        *(char **)at = g_strdup(value);
        return true;
    case SETTING_SIZE:
    case SETTING_UINT:
        return set_number(s, value, at, error);
    case SETTING_BOOL:
        return set_bool(s, value, at, error);
    case SETTING_DRIVE:
        return add_drive(s->name, *(GPtrArray **)at, value,
                         at == &config->cdroms     ? drive_bus_names[DRIVE_AHCI]
                         : at == &config->floppies ? drive_bus_names[DRIVE_FLOPPY]
                                                   : NULL,
                         at == &config->cdroms, error);
    case SETTING_LIST:
        g_ptr_array_add(*(GPtrArray **)at, g_strdup(value));
        return true;
    }
    return false;
}

/* --- JSON ----------------------------------------------------------------------------------- */

/* File names are bytes; JSON is UTF-8, and hv-vmm uses names in messages only. */
static json_t *string_to_json(const char *bytes)
{
    g_autofree char *text = bytes ? g_utf8_make_valid(bytes, -1) : NULL;
    return text ? json_string(text) : NULL;
}

static json_t *list_to_json(const GPtrArray *list)
{
    json_t *array = json_array();
    for (guint i = 0; i < list->len; i++)
        json_array_append_new(array, string_to_json(g_ptr_array_index(list, i)));
    return array;
}

static json_t *drives_to_json(const GPtrArray *drives)
{
    json_t *array = json_array();
    for (guint i = 0; i < drives->len; i++) {
        const struct drive *d = g_ptr_array_index(drives, i);
        json_t *backing = d->backing->len ? list_to_json(d->backing) : NULL;
        json_array_append_new(array, json_pack("{s:o, s:s*, s:s*, s:o*, s:b, s:o*, s:s*}", "file",
                                               string_to_json(d->file), "bus", d->bus, "format",
                                               d->format, "options", string_to_json(d->options),
                                               "readonly", d->readonly, "backing", backing,
                                               "detect-zeroes", d->zeroes));
    }
    return array;
}

json_t *config_to_json(const struct config *config)
{
    json_t *json = json_object();
    for (const struct setting *s = config_settings; s->name; s++) {
        const void *at = (const char *)config + s->offset;
        json_t *value = NULL;
        switch (s->kind) {
        case SETTING_STRING:
            value = string_to_json(*(char *const *)at);
            break;
        case SETTING_SIZE:
        case SETTING_UINT:
            if (*(const uint64_t *)at) /* else it is not set */
                value = json_integer((json_int_t) * (const uint64_t *)at);
            break;
        case SETTING_BOOL:
            value = json_boolean(*(const bool *)at);
            break;
        case SETTING_DRIVE:
            value = drives_to_json(*(GPtrArray *const *)at);
            break;
        case SETTING_LIST:
            value = list_to_json(*(GPtrArray *const *)at);
            break;
        }
        if (value)
            json_object_set_new(json, s->name, value);
    }
    return json;
}

static bool drives_from_json(GPtrArray *drives, const json_t *array, bool cd)
{
    size_t i;
    json_t *item;
    json_array_foreach(array, i, item)
    {
        const char *file = NULL, *bus = NULL, *format = NULL, *options = NULL, *zeroes = NULL;
        int readonly = 0;
        if (json_unpack(item, "{s:s, s?s, s?s, s?s, s:b, s?s}", "file", &file, "bus", &bus,
                        "format", &format, "options", &options, "readonly", &readonly,
                        "detect-zeroes", &zeroes))
            return false;
        struct drive *drive = drive_new(file, cd);
        drive->bus = g_strdup(bus);
        drive->format = g_strdup(format);
        drive->options = g_strdup(options);
        drive->zeroes = g_strdup(zeroes);
        drive->readonly = readonly;
        g_ptr_array_add(drives, drive);
    }
    return true;
}

static bool from_json(struct config *config, const struct setting *s, const json_t *value)
{
    void *at = (char *)config + s->offset;
    size_t i;
    json_t *item;
    switch (s->kind) {
    case SETTING_STRING:
        *(char **)at = g_strdup(json_string_value(value));
        return json_is_string(value);
    case SETTING_SIZE:
    case SETTING_UINT:
        *(uint64_t *)at = (uint64_t)json_integer_value(value);
        return *(uint64_t *)at >= s->min && *(uint64_t *)at <= s->max;
    case SETTING_BOOL:
        *(bool *)at = json_is_true(value);
        return json_is_boolean(value);
    case SETTING_DRIVE:
        return json_is_array(value) &&
               drives_from_json(*(GPtrArray **)at, value, at == &config->cdroms);
    case SETTING_LIST:
        json_array_foreach(value, i, item)
        {
            if (!json_is_string(item))
                return false;
            g_ptr_array_add(*(GPtrArray **)at, g_strdup(json_string_value(item)));
        }
        return json_is_array(value);
    }
    return false;
}

struct config *config_from_json(const json_t *json, GError **error)
{
    g_autoptr(settings) config = config_new();
    if (!json_is_object(json)) {
        hv_fail(error, HV_USAGE, "the machine's description: it is no JSON object");
        return NULL;
    }
    for (const struct setting *s = config_settings; s->name; s++) {
        const json_t *value = json_object_get(json, s->name);
        if (value && !from_json(config, s, value)) {
            hv_fail(error, HV_USAGE, "the machine's description: \"%s\" is wrong", s->name);
            return NULL;
        }
    }
    return g_steal_pointer(&config);
}
