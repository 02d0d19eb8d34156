/* OVF descriptions; see import-ovf.h. Elements and attributes are known by their local names: the
 * programs that write them do not agree on name spaces. */
#include "cli/import-ovf.h"

#include "base/error.h"
#include "cli/import-xml.h"
#include "machine/config.h"
#include "memory/guest.h"

#include <libxml/tree.h>
#include <stdlib.h>
#include <string.h>

enum {
    ITEMS_MAX = 512, /* of hardware, files and disks each */
    CPUS_MAX = 64,
};

/* CIM_ResourceAllocationSettingData.ResourceType. */
enum resource {
    RES_CPU = 3,
    RES_MEMORY = 4,
    RES_IDE = 5,
    RES_SCSI = 6,
    RES_NIC = 10,
    RES_FLOPPY = 14,
    RES_CD = 15,
    RES_DVD = 16,
    RES_DISK = 17,
    RES_STORAGE = 20, /* SATA, NVMe */
    RES_SERIAL = 21,
    RES_PARALLEL = 22,
    RES_USB = 23,
    RES_GRAPHICS = 24,
    RES_SOUND = 35,
};

/* What hv's machine does not get; a word alone is enough to say what it is. */
static const struct {
    enum resource type;
    const char *what;
} strangers[] = {
    { RES_FLOPPY, "a floppy drive" },    { RES_SERIAL, "a serial port" },
    { RES_PARALLEL, "a parallel port" }, { RES_USB, "a USB controller" },
    { RES_SOUND, "a sound card" },
};

struct item {
    unsigned type, address, index;
    char *id, *parent, *subtype, *resource, *units;
    uint64_t quantity;
};

struct file {
    char *id, *href;
    bool split, packed;
};

struct disk_entry {
    char *id, *file, *format;
    uint64_t capacity;
    bool delta;
};

struct reading {
    struct ovf *ovf;
    const char *name; /* of the description */
    GPtrArray *files, *disks, *items;
    GPtrArray *controllers; /* of struct item, borrowed */
    char *configuration;    /* which of several is meant; NULL: there is but one */
    unsigned empty_cds, ahci;
    bool scsi_told;
};

static void item_free(void *data)
{
    struct item *item = data;
    g_free(item->id);
    g_free(item->parent);
    g_free(item->subtype);
    g_free(item->resource);
    g_free(item->units);
    g_free(item);
}

static void file_free(void *data)
{
    struct file *file = data;
    g_free(file->id);
    g_free(file->href);
    g_free(file);
}

static void disk_entry_free(void *data)
{
    struct disk_entry *disk = data;
    g_free(disk->id);
    g_free(disk->file);
    g_free(disk->format);
    g_free(disk);
}

static void drive_free(void *data)
{
    struct ovf_drive *drive = data;
    g_free(drive->file);
    g_free(drive);
}

void ovf_free(struct ovf *ovf)
{
    if (!ovf)
        return;
    g_free(ovf->name);
    g_ptr_array_unref(ovf->drives);
    g_ptr_array_unref(ovf->differences);
    g_free(ovf);
}

static void differs(struct reading *reading, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void differs(struct reading *reading, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_ptr_array_add(reading->ovf->differences, g_strdup_vprintf(format, args));
    va_end(args);
}

/* --- sections -------------------------------------------------------------------------------- */

/* A number of units in bytes. */
static bool in_bytes(const struct reading *reading, const char *what, uint64_t quantity,
                     const char *units, const char *preset, uint64_t *bytes, GError **error)
{
    unsigned shift;
    const char *unit = units && *units ? units : preset;
    if (!ovf_unit_shift(unit, &shift))
        return hv_fail(error, HV_FAILED, "%s: %s: hv does not know the unit \"%s\"", reading->name,
                       what, unit);
    if (quantity > (UINT64_C(1) << 62) >> shift)
        return hv_fail(error, HV_FAILED, "%s: %s: %" G_GUINT64_FORMAT " %s are too many",
                       reading->name, what, quantity, unit);
    *bytes = quantity << shift;
    return true;
}

static bool room(const struct reading *reading, const GPtrArray *list, const char *what,
                 GError **error)
{
    return list->len < ITEMS_MAX ||
           hv_fail(error, HV_FAILED, "%s: it has more than %d %s", reading->name, ITEMS_MAX, what);
}

static bool read_files(struct reading *reading, const xmlNode *section, GError **error)
{
    for (const xmlNode *node = section ? section->children : NULL; node; node = node->next) {
        if (!xml_is(node, "File"))
            continue;
        if (!room(reading, reading->files, "files", error))
            return false;
        g_autofree char *compression = xml_attribute(node, "compression");
        g_autofree char *chunk = xml_attribute(node, "chunkSize");
        struct file *file = g_new0(struct file, 1);
        file->id = xml_attribute(node, "id");
        file->href = xml_attribute(node, "href");
        file->split = chunk;
        file->packed = compression && *compression && strcmp(compression, "identity") != 0;
        g_ptr_array_add(reading->files, file);
    }
    return true;
}

static bool read_disks(struct reading *reading, const xmlNode *section, GError **error)
{
    for (const xmlNode *node = section ? section->children : NULL; node; node = node->next) {
        if (!xml_is(node, "Disk"))
            continue;
        if (!room(reading, reading->disks, "disks", error))
            return false;
        g_autofree char *capacity = xml_attribute(node, "capacity");
        g_autofree char *units = xml_attribute(node, "capacityAllocationUnits");
        g_autofree char *parent = xml_attribute(node, "parentRef");
        struct disk_entry *disk = g_new0(struct disk_entry, 1);
        g_ptr_array_add(reading->disks, disk);
        disk->id = xml_attribute(node, "diskId");
        disk->file = xml_attribute(node, "fileRef");
        disk->format = xml_attribute(node, "format");
        disk->delta = parent;
        uint64_t value;
        if (xml_number(capacity, &value) && !in_bytes(reading, "the capacity of a disk", value,
                                                      units, "byte", &disk->capacity, error))
            return false;
    }
    return true;
}

/* Of several sizes of one machine, the preset one. */
static char *preset_configuration(const xmlNode *envelope)
{
    char *chosen = NULL;
    const xmlNode *section = xml_child(envelope, "DeploymentOptionSection");
    for (const xmlNode *node = section ? section->children : NULL; node; node = node->next) {
        if (!xml_is(node, "Configuration"))
            continue;
        g_autofree char *preset = xml_attribute(node, "default");
        bool is_preset = preset && (!strcmp(preset, "true") || !strcmp(preset, "1"));
        if (chosen && !is_preset)
            continue;
        g_free(chosen);
        chosen = xml_attribute(node, "id");
        if (is_preset)
            break;
    }
    return chosen;
}

/* Is the item meant for the machine, and not a limit or for another configuration? */
static bool is_meant(const struct reading *reading, const xmlNode *node)
{
    g_autofree char *bound = xml_attribute(node, "bound");
    g_autofree char *configuration = xml_attribute(node, "configuration");
    if (bound && *bound && strcmp(bound, "normal") != 0)
        return false;
    if (!configuration || !reading->configuration)
        return !configuration;
    g_auto(GStrv) words = g_strsplit(configuration, " ", -1);
    return g_strv_contains((const char *const *)words, reading->configuration);
}

static bool read_items(struct reading *reading, const xmlNode *section, GError **error)
{
    for (const xmlNode *node = section->children; node; node = node->next) {
        if ((!xml_is(node, "Item") && !xml_is(node, "StorageItem") &&
             !xml_is(node, "EthernetPortItem")) ||
            !is_meant(reading, node))
            continue;
        if (!room(reading, reading->items, "items of hardware", error))
            return false;
        g_autofree char *quantity = xml_text(node, "VirtualQuantity");
        struct item *item = g_new0(struct item, 1);
        item->index = reading->items->len;
        g_ptr_array_add(reading->items, item);
        item->type = xml_child_number(node, "ResourceType");
        item->address = xml_child_number(node, "AddressOnParent");
        item->id = xml_text(node, "InstanceID");
        item->parent = xml_text(node, "Parent");
        item->subtype = xml_text(node, "ResourceSubType");
        item->resource = xml_text(node, "HostResource");
        item->units = xml_text(node, "AllocationUnits");
        if (!xml_number(quantity, &item->quantity) && quantity && *quantity)
            return hv_fail(error, HV_FAILED, "%s: \"%s\" is no number of anything", reading->name,
                           quantity);
    }
    return true;
}

/* VirtualBox's <Firmware type="EFI">, VMware's <Config key="firmware" value="efi">. */
static bool wants_efi(const xmlNode *node)
{
    for (; node; node = node->next) {
        if (node->type != XML_ELEMENT_NODE)
            continue;
        g_autofree char *type = xml_is(node, "Firmware") ? xml_attribute(node, "type") : NULL;
        g_autofree char *key = xml_is(node, "Config") ? xml_attribute(node, "key") : NULL;
        g_autofree char *value = key ? xml_attribute(node, "value") : NULL;
        if ((type && !g_ascii_strncasecmp(type, "EFI", 3)) ||
            (value && !strcmp(key, "firmware") && !g_ascii_strcasecmp(value, "efi")) ||
            wants_efi(node->children))
            return true;
    }
    return false;
}

/* --- drives ---------------------------------------------------------------------------------- */

static bool has_word(const char *text, const char *word)
{
    g_autofree char *lower = g_ascii_strdown(text ? text : "", -1);
    return strstr(lower, word);
}

static const struct item *controller_of(const struct reading *reading, const struct item *item)
{
    for (guint i = 0; item->parent && i < reading->controllers->len; i++) {
        const struct item *controller = g_ptr_array_index(reading->controllers, i);
        if (!g_strcmp0(controller->id, item->parent))
            return controller;
    }
    return NULL;
}

/* What a disk of the controller is on in hv; NULL: what suits the guest. */
static const char *bus_of(struct reading *reading, const struct item *controller)
{
    if (!controller)
        return NULL;
    if (has_word(controller->subtype, "virtio"))
        return drive_bus_names[DRIVE_VIRTIO];
    if (controller->type == RES_SCSI) {
        if (!reading->scsi_told)
            differs(reading,
                    "hv has no SCSI controller: those disks are on virtio or SATA, what the "
                    "guest seems to have drivers for (bus=)");
        reading->scsi_told = true;
        return NULL;
    }
    return drive_bus_names[has_word(controller->subtype, "nvme") ? DRIVE_NVME : DRIVE_AHCI];
}

static const struct file *find_file(const struct reading *reading, const char *id)
{
    for (guint i = 0; id && i < reading->files->len; i++) {
        const struct file *file = g_ptr_array_index(reading->files, i);
        if (!g_strcmp0(file->id, id))
            return file;
    }
    return NULL;
}

/* Names of plain files only: what is beside the description. */
static bool take_file(const struct reading *reading, const char *id, struct ovf_drive *drive,
                      GError **error)
{
    const struct file *file = find_file(reading, id);
    const char *href = file ? file->href : NULL;
    if (!file || !href || !*href)
        return hv_fail(error, HV_FAILED, "%s: a drive has the file \"%s\", which it does not list",
                       reading->name, id);
    if (strpbrk(href, "/\\:") || *href == '.')
        return hv_fail(error, HV_FAILED,
                       "%s: a drive has the file \"%s\": hv takes files beside the description "
                       "only",
                       reading->name, href);
    if (file->split || file->packed)
        return hv_fail(error, HV_FAILED, "%s: %s is %s, which hv does not read: export it again",
                       reading->name, href, file->split ? "cut into chunks" : "compressed");
    for (guint i = 0; i < reading->ovf->drives->len; i++) {
        const struct ovf_drive *other = g_ptr_array_index(reading->ovf->drives, i);
        if (!g_strcmp0(other->file, href))
            return hv_fail(error, HV_FAILED, "%s: two drives have the file \"%s\"", reading->name,
                           href);
    }
    drive->file = g_strdup(href);
    return true;
}

static bool take_disk(const struct reading *reading, const char *id, struct ovf_drive *drive,
                      GError **error)
{
    const struct disk_entry *disk = NULL;
    for (guint i = 0; !disk && i < reading->disks->len; i++) {
        const struct disk_entry *entry = g_ptr_array_index(reading->disks, i);
        if (!g_strcmp0(entry->id, id))
            disk = entry;
    }
    if (!disk)
        return hv_fail(error, HV_FAILED, "%s: a drive has the disk \"%s\", which it does not list",
                       reading->name, id);
    if (disk->delta)
        return hv_fail(error, HV_FAILED,
                       "%s: the disk \"%s\" lies on another one: export the machine without "
                       "snapshots",
                       reading->name, id);
    drive->capacity = disk->capacity;
    drive->packed_format = has_word(disk->format, "vmdk") || has_word(disk->format, "vhd") ||
                           has_word(disk->format, "vdi") || has_word(disk->format, "qcow");
    if (disk->file && *disk->file)
        return take_file(reading, disk->file, drive, error);
    return disk->capacity ||
           hv_fail(error, HV_FAILED, "%s: the disk \"%s\" has neither a file nor a capacity",
                   reading->name, id);
}

/* "ovf:/disk/ID" or "ovf:/file/ID"; earlier ones lack the "ovf:". */
static bool take_resource(const struct reading *reading, const char *resource,
                          struct ovf_drive *drive, GError **error)
{
    const char *path = g_str_has_prefix(resource, "ovf:") ? resource + 4 : resource;
    if (g_str_has_prefix(path, "//"))
        path++;
    if (g_str_has_prefix(path, "/disk/"))
        return take_disk(reading, path + 6, drive, error);
    if (g_str_has_prefix(path, "/file/"))
        return take_file(reading, path + 6, drive, error);
    return hv_fail(error, HV_FAILED, "%s: a drive has \"%s\", which is neither a disk nor a file",
                   reading->name, resource);
}

static bool add_drive(struct reading *reading, const struct item *item, GError **error)
{
    bool cd = item->type != RES_DISK;
    struct ovf *ovf = reading->ovf;
    if (!item->resource || !*item->resource) {
        if (!cd)
            differs(reading, "a disk that is part of no file is left out");
        else if (reading->empty_cds++)
            differs(reading, "another empty CD drive is left out");
        return true;
    }
    if (ovf->drives->len == DRIVES_MAX)
        return hv_fail(error, HV_FAILED, "%s: it has more than %d drives", reading->name,
                       DRIVES_MAX);
    struct ovf_drive *drive = g_new0(struct ovf_drive, 1);
    drive->cd = cd;
    drive->bus = cd ? drive_bus_names[DRIVE_AHCI] : bus_of(reading, controller_of(reading, item));
    if (!take_resource(reading, item->resource, drive, error)) {
        drive_free(drive);
        return false;
    }
    g_ptr_array_add(ovf->drives, drive);
    if (g_strcmp0(drive->bus, drive_bus_names[DRIVE_AHCI]) || ++reading->ahci <= AHCI_PORTS)
        return true;
    if (cd)
        return hv_fail(error, HV_FAILED, "%s: it has more CDs than there are SATA ports (%d)",
                       reading->name, AHCI_PORTS);
    drive->bus = drive_bus_names[DRIVE_NVME];
    differs(reading, "hv has %d SATA ports: a further disk is on NVMe", AHCI_PORTS);
    return true;
}

static int by_place(const void *left, const void *right, void *opaque)
{
    const struct item *a = *(struct item *const *)left, *b = *(struct item *const *)right;
    const struct item *on_a = controller_of(opaque, a), *on_b = controller_of(opaque, b);
    unsigned place_a = on_a ? on_a->index : ITEMS_MAX, place_b = on_b ? on_b->index : ITEMS_MAX;
    if (place_a != place_b)
        return place_a < place_b ? -1 : 1;
    if (a->address != b->address)
        return a->address < b->address ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

static bool add_drives(struct reading *reading, GError **error)
{
    g_autoptr(GPtrArray) places = g_ptr_array_new();
    for (guint i = 0; i < reading->items->len; i++) {
        struct item *item = g_ptr_array_index(reading->items, i);
        if (item->type == RES_IDE || item->type == RES_SCSI || item->type == RES_STORAGE)
            g_ptr_array_add(reading->controllers, item);
        else if (item->type == RES_DISK || item->type == RES_CD || item->type == RES_DVD)
            g_ptr_array_add(places, item);
    }
    g_ptr_array_sort_with_data(places, by_place, reading);
    for (guint i = 0; i < places->len; i++)
        if (!add_drive(reading, g_ptr_array_index(places, i), error))
            return false;
    return true;
}

/* --- the rest of the machine ----------------------------------------------------------------- */

static void add_nic(struct reading *reading, const struct item *item)
{
    struct ovf *ovf = reading->ovf;
    const char *kind = item->subtype && *item->subtype ? item->subtype : "an unnamed kind";
    if (ovf->nic) {
        differs(reading, "a further network card (%s) is left out: hv has one", kind);
        return;
    }
    ovf->nic = true;
    if (has_word(kind, "virtio"))
        ovf->model = "virtio";
    else if (has_word(kind, "e1000"))
        ovf->model = "e1000";
    else
        differs(reading,
                "hv has no network card %s: it is virtio or an e1000, what the guest seems to "
                "have a driver for (model=)",
                kind);
}

static bool add_item(struct reading *reading, const struct item *item, GError **error)
{
    struct ovf *ovf = reading->ovf;
    switch (item->type) {
    case RES_CPU:
        ovf->cpus = MAX(item->quantity, 1);
        if (ovf->cpus > CPUS_MAX) {
            differs(reading, "of %" G_GUINT64_FORMAT " CPUs it has %d, the most there can be",
                    ovf->cpus, CPUS_MAX);
            ovf->cpus = CPUS_MAX;
        }
        return true;
    case RES_MEMORY:
        return in_bytes(reading, "memory", item->quantity, item->units, "MegaBytes", &ovf->memory,
                        error);
    case RES_NIC:
        add_nic(reading, item);
        return true;
    case RES_IDE:
    case RES_SCSI:
    case RES_STORAGE:
    case RES_DISK:
    case RES_CD:
    case RES_DVD:
    case RES_GRAPHICS: /* there always is a VGA */
        return true;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(strangers); i++)
        if (strangers[i].type == item->type) {
            differs(reading, "%s is left out", strangers[i].what);
            return true;
        }
    differs(reading, "a device of the kind %u%s%s%s is left out", item->type,
            item->subtype ? " (" : "", item->subtype ? item->subtype : "",
            item->subtype ? ")" : "");
    return true;
}

static void tell_unused(struct reading *reading)
{
    for (guint i = 0; i < reading->files->len; i++) {
        const struct file *file = g_ptr_array_index(reading->files, i);
        bool used = false;
        for (guint d = 0; d < reading->ovf->drives->len; d++) {
            const struct ovf_drive *drive = g_ptr_array_index(reading->ovf->drives, d);
            used = used || !g_strcmp0(drive->file, file->href);
        }
        if (!used)
            differs(reading, "the file %s is left out", file->href ? file->href : "without a name");
    }
}

/* The machine, of which there must be one. */
static const xmlNode *only_system(const struct reading *reading, const xmlNode *envelope,
                                  GError **error)
{
    const xmlNode *collection = xml_child(envelope, "VirtualSystemCollection"), *found = NULL;
    unsigned count = 0;
    for (const xmlNode *node = collection ? collection->children : envelope->children; node;
         node = node->next)
        if (xml_is(node, "VirtualSystem")) {
            found = node;
            count++;
        }
    if (count == 1)
        return found;
    hv_fail(error, HV_FAILED, "%s: it describes %u machines%s", reading->name, count,
            count ? "; hv imports one: export each alone" : "");
    return NULL;
}

static bool read_envelope(struct reading *reading, const xmlNode *envelope, GError **error)
{
    if (!envelope || !xml_is(envelope, "Envelope"))
        return hv_fail(error, HV_FAILED, "%s: this is no OVF description", reading->name);
    const xmlNode *system = only_system(reading, envelope, error);
    if (!system)
        return false;
    const xmlNode *hardware = xml_child(system, "VirtualHardwareSection");
    if (!hardware)
        return hv_fail(error, HV_FAILED, "%s: the machine has no hardware", reading->name);
    struct ovf *ovf = reading->ovf;
    ovf->name = xml_text(system, "Name");
    if (!ovf->name || !*ovf->name) {
        g_free(ovf->name);
        ovf->name = xml_attribute(system, "id");
    }
    reading->configuration = preset_configuration(envelope);
    if (!read_files(reading, xml_child(envelope, "References"), error) ||
        !read_disks(reading, xml_child(envelope, "DiskSection"), error) ||
        !read_items(reading, hardware, error) || !add_drives(reading, error))
        return false;
    for (guint i = 0; i < reading->items->len; i++)
        if (!add_item(reading, g_ptr_array_index(reading->items, i), error))
            return false;
    if (wants_efi(system->children))
        differs(reading, "it was made for UEFI, which hv has not: it may not boot with a BIOS");
    tell_unused(reading);
    return true;
}

struct ovf *ovf_parse(const char *text, size_t length, const char *name, GError **error)
{
    xmlDoc *doc = xml_read(text, length, name, error);
    if (!doc)
        return NULL;
    struct ovf *ovf = g_new0(struct ovf, 1);
    ovf->drives = g_ptr_array_new_with_free_func(drive_free);
    ovf->differences = g_ptr_array_new_with_free_func(g_free);
    struct reading reading = {
        .ovf = ovf,
        .name = name,
        .files = g_ptr_array_new_with_free_func(file_free),
        .disks = g_ptr_array_new_with_free_func(disk_entry_free),
        .items = g_ptr_array_new_with_free_func(item_free),
        .controllers = g_ptr_array_new(),
    };
    bool ok = read_envelope(&reading, xmlDocGetRootElement(doc), error);
    g_ptr_array_unref(reading.files);
    g_ptr_array_unref(reading.disks);
    g_ptr_array_unref(reading.items);
    g_ptr_array_unref(reading.controllers);
    g_free(reading.configuration);
    xmlFreeDoc(doc);
    if (ok)
        return ovf;
    ovf_free(ovf);
    return NULL;
}
