/* The SMBIOS tables (DMTF DSP0134, version 2.8; 3.0 for its 64-bit entry point): what the machine
 * says that it is. Numbers are little-endian, as on every host of hv. Types 0, 1, 3, 4, 16, 17, 19,
 * 32 and 127. */
#include "boot/boot.h"

#include <string.h>

#define ANCHOR_FILE "etc/smbios/smbios-anchor"
#define TABLES_FILE "etc/smbios/smbios-tables"

#define MANUFACTURER "hv"
#define PRODUCT      "Standard PC"

/* Handles: the type, and a number where there are several. */
#define HANDLE(type, number) ((uint16_t)((type) << 8 | (number)))

/* --- layouts (chapter 7 for the structures, without their headers) --------------------------- */

/* 5.2.1 */
struct anchor {
    char signature[4];
    uint8_t checksum, length, major, minor;
    uint16_t largest;
    uint8_t revision, formatted[5];
    char dmi[5];
    uint8_t dmi_checksum;
    uint16_t size;
    uint32_t address; /* the firmware's part */
    uint16_t count;
    uint8_t bcd;
} __attribute__((packed));
G_STATIC_ASSERT(sizeof(struct anchor) == 31);

/* 5.2.2 */
struct anchor3 {
    char signature[5];
    uint8_t checksum, length, major, minor, docrev, revision, reserved;
    uint32_t size;
    uint64_t address; /* the firmware's part */
} __attribute__((packed));
G_STATIC_ASSERT(sizeof(struct anchor3) == 24);

struct head {
    uint8_t type, length;
    uint16_t handle;
} __attribute__((packed));

/* In the structures, a number of a string is its place in the list given with them, from 1. */
struct bios {
    uint8_t vendor, version;
    uint16_t segment;
    uint8_t date, rom_size;
    uint64_t characteristics;
    uint8_t characteristics2[2], major, minor, ec_major, ec_minor;
} __attribute__((packed));
enum { BIOS_NO_CHARACTERISTICS = 1 << 3, BIOS2_TARGETED_CONTENT = 1 << 2, BIOS2_VIRTUAL = 1 << 4 };

struct system {
    uint8_t manufacturer, product, version, serial, uuid[16], wake_up, sku, family;
} __attribute__((packed));
enum { WAKE_POWER_SWITCH = 6 };

struct enclosure {
    uint8_t manufacturer, type, version, serial, asset, boot_state, power_state, thermal_state,
        security;
    uint32_t oem;
    uint8_t height, cords, elements, element_size, sku;
} __attribute__((packed));
enum { ENCLOSURE_OTHER = 1, STATE_SAFE = 3, SECURITY_UNKNOWN = 2 };

struct processor {
    uint8_t socket, type, family, manufacturer;
    uint32_t signature, features;
    uint8_t version, voltage;
    uint16_t clock, max_speed, speed;
    uint8_t status, upgrade;
    uint16_t l1, l2, l3;
    uint8_t serial, asset, part, cores, cores_enabled, threads;
    uint16_t characteristics, family2;
} __attribute__((packed));
enum {
    PROCESSOR_CPU = 3,
    PROCESSOR_OTHER = 1,
    PROCESSOR_ENABLED = 0x41, /* and its socket populated */
    PROCESSOR_64BIT = 1 << 2,
    NO_CACHE = 0xffff,
};

struct memory_array {
    uint8_t location, use, correction;
    uint32_t capacity; /* KiB */
    uint16_t error_handle, devices;
    uint64_t capacity64; /* bytes */
} __attribute__((packed));
enum {
    LOCATION_OTHER = 1,
    USE_SYSTEM = 3,
    CORRECTION_MULTI_BIT = 6,
    NO_ERROR_HANDLE = 0xfffe,
};
#define CAPACITY_LONG UINT32_C(0x80000000)

struct memory_device {
    uint16_t array, error_handle, total_width, data_width, size; /* MiB */
    uint8_t form, set, locator, bank, type;
    uint16_t detail, speed;
    uint8_t manufacturer, serial, asset, part, attributes;
    uint32_t size_long; /* MiB */
    uint16_t configured_speed, min_voltage, max_voltage, voltage;
} __attribute__((packed));
enum {
    UNKNOWN_WIDTH = 0xffff,
    FORM_DIMM = 9,
    MEMORY_RAM = 7,
    DETAIL_OTHER = 2,
    SIZE_LONG = 0x7fff
};

struct mapped {
    uint32_t start, end; /* KiB; the last, not the next */
    uint16_t array;
    uint8_t width;
    uint64_t start64, end64; /* bytes, when the others are all ones */
} __attribute__((packed));
#define MAPPED_LONG UINT32_MAX

struct boot_status {
    uint8_t reserved[6], status;
} __attribute__((packed));

/* --- building ------------------------------------------------------------------------------- */

struct smbios {
    GByteArray *table;
    uint16_t count, largest;
};

/* Appends a structure; its strings end with NULL, and empty ones are told as "Not Specified", for
 * the format has no empty string. */
static void add(struct smbios *s, uint8_t type, uint16_t handle, const void *body, size_t size,
                const char *const *strings)
{
    struct head head = { type, (uint8_t)(sizeof head + size), handle };
    guint start = s->table->len;
    g_byte_array_append(s->table, (const uint8_t *)&head, sizeof head);
    g_byte_array_append(s->table, body, (guint)size);
    bool any = strings && *strings;
    for (; strings && *strings; strings++) {
        const char *string = **strings ? *strings : "Not Specified";
        g_byte_array_append(s->table, (const uint8_t *)string, (guint)strlen(string) + 1);
    }
    g_byte_array_append(s->table, (const uint8_t *)"\0", any ? 1 : 2);
    s->count++;
    s->largest = (uint16_t)MAX(s->largest, s->table->len - start);
}

#define STRINGS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static const char *text(const char *string)
{
    return string ? string : "";
}

static void add_bios(struct smbios *s, const struct boot_config *config)
{
    const struct bios bios = {
        .vendor = 1,
        .version = 2,
        .segment = 0xe800,
        .date = 3,
        .characteristics = BIOS_NO_CHARACTERISTICS,
        .characteristics2 = { 0, BIOS2_TARGETED_CONTENT | BIOS2_VIRTUAL },
        .ec_major = 0xff, /* none */
        .ec_minor = 0xff,
    };
    add(s, 0, HANDLE(0, 0), &bios, sizeof bios,
        STRINGS(MANUFACTURER, text(config->version), "01/01/2024"));
}

/* 7.2.1: the first three fields of a UUID are little-endian. */
static void put_uuid(uint8_t *out, const uint8_t *uuid)
{
    static const uint8_t order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
    for (unsigned i = 0; i < sizeof order; i++)
        out[i] = uuid[order[i]];
}

static void add_system(struct smbios *s, const struct boot_config *config)
{
    struct system system = {
        .manufacturer = 1,
        .product = 2,
        .version = 3,
        .wake_up = WAKE_POWER_SWITCH,
        .family = config->name ? 4 : 0,
    };
    put_uuid(system.uuid, config->uuid);
    add(s, 1, HANDLE(1, 0), &system, sizeof system,
        STRINGS(MANUFACTURER, PRODUCT, text(config->version), config->name));
}

static void add_enclosure(struct smbios *s, const struct boot_config *config)
{
    const struct enclosure enclosure = {
        .manufacturer = 1,
        .type = ENCLOSURE_OTHER,
        .version = 2,
        .boot_state = STATE_SAFE,
        .power_state = STATE_SAFE,
        .thermal_state = STATE_SAFE,
        .security = SECURITY_UNKNOWN,
    };
    add(s, 3, HANDLE(3, 0), &enclosure, sizeof enclosure,
        STRINGS(MANUFACTURER, text(config->version)));
}

static void add_processors(struct smbios *s, const struct boot_config *config)
{
    unsigned threads = MAX(config->threads, 1);
    unsigned cores = config->cores ? config->cores : (config->cpus + threads - 1) / threads;
    unsigned sockets = (config->cpus + cores * threads - 1) / (cores * threads);
    for (unsigned i = 0; i < sockets; i++) {
        const struct processor processor = {
            .socket = 1,
            .type = PROCESSOR_CPU,
            .family = PROCESSOR_OTHER,
            .manufacturer = 2,
            .version = 3,
            .status = PROCESSOR_ENABLED,
            .upgrade = PROCESSOR_OTHER,
            .l1 = NO_CACHE,
            .l2 = NO_CACHE,
            .l3 = NO_CACHE,
            .cores = (uint8_t)cores,
            .cores_enabled = (uint8_t)cores,
            .threads = (uint8_t)(cores * threads),
            .characteristics = PROCESSOR_64BIT,
            .family2 = PROCESSOR_OTHER,
        };
        char socket[16];
        g_snprintf(socket, sizeof socket, "CPU %u", i);
        add(s, 4, HANDLE(4, i), &processor, sizeof processor,
            STRINGS(socket, MANUFACTURER, text(config->version)));
    }
}

/* Memory is told as modules of at most 16 GiB, more where there would be too many. */
static void add_memory(struct smbios *s, uint64_t ram)
{
    uint64_t module = MAX(16 * GIB, (ram / 16 + GIB - 1) / GIB * GIB);
    unsigned count = (unsigned)((ram + module - 1) / module);
    bool long_capacity = ram / KIB >= CAPACITY_LONG;
    const struct memory_array array = {
        .location = LOCATION_OTHER,
        .use = USE_SYSTEM,
        .correction = CORRECTION_MULTI_BIT,
        .capacity = long_capacity ? CAPACITY_LONG : (uint32_t)(ram / KIB),
        .error_handle = NO_ERROR_HANDLE,
        .devices = (uint16_t)count,
        .capacity64 = long_capacity ? ram : 0,
    };
    add(s, 16, HANDLE(16, 0), &array, sizeof array, NULL);
    for (unsigned i = 0; i < count; i++) {
        uint32_t size = (uint32_t)(MIN(module, ram - i * module) / MIB);
        const struct memory_device device = {
            .array = HANDLE(16, 0),
            .error_handle = NO_ERROR_HANDLE,
            .total_width = UNKNOWN_WIDTH,
            .data_width = UNKNOWN_WIDTH,
            .size = (uint16_t)MIN(size, SIZE_LONG),
            .form = FORM_DIMM,
            .locator = 1,
            .type = MEMORY_RAM,
            .detail = DETAIL_OTHER,
            .manufacturer = 2,
            .size_long = size >= SIZE_LONG ? size : 0,
        };
        char locator[16];
        g_snprintf(locator, sizeof locator, "DIMM %u", i);
        add(s, 17, HANDLE(17, i), &device, sizeof device, STRINGS(locator, MANUFACTURER));
    }
}

static void add_mapped(struct smbios *s, unsigned number, uint64_t base, uint64_t size)
{
    if (!size)
        return;
    uint64_t last = base + size - 1;
    bool fits = last / KIB < MAPPED_LONG;
    const struct mapped mapped = {
        .start = fits ? (uint32_t)(base / KIB) : MAPPED_LONG,
        .end = fits ? (uint32_t)(last / KIB) : MAPPED_LONG,
        .array = HANDLE(16, 0),
        .width = 1,
        .start64 = fits ? 0 : base,
        .end64 = fits ? 0 : last,
    };
    add(s, 19, HANDLE(19, number), &mapped, sizeof mapped, NULL);
}

static void add_structures(struct smbios *s, const struct boot_config *config)
{
    const struct boot_status status = { .status = 0 };
    add_bios(s, config);
    add_system(s, config);
    add_enclosure(s, config);
    add_processors(s, config);
    add_memory(s, guest_ram_size(config->guest));
    add_mapped(s, 0, 0, guest_low_ram(config->guest));
    add_mapped(s, 1, HIGH_RAM_BASE, guest_high_ram(config->guest));
    add(s, 32, HANDLE(32, 0), &status, sizeof status, NULL);
    add(s, 127, HANDLE(127, 0), NULL, 0, NULL);
}

/* --- entry points --------------------------------------------------------------------------- */

static uint8_t checksum(const void *bytes, size_t size)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < size; i++)
        sum = (uint8_t)(sum + ((const uint8_t *)bytes)[i]);
    return (uint8_t)-sum;
}

/* The firmware puts in the address, and new checksums. */
static GBytes *make_anchor(const struct smbios *s)
{
    struct anchor anchor = {
        .signature = "_SM_",
        .length = sizeof anchor,
        .major = 2,
        .minor = 8,
        .largest = s->largest,
        .dmi = "_DMI_",
        .size = (uint16_t)s->table->len,
        .count = s->count,
        .bcd = 0x28,
    };
    size_t dmi = offsetof(struct anchor, dmi);
    anchor.dmi_checksum = checksum(anchor.dmi, sizeof anchor - dmi);
    anchor.checksum = checksum(&anchor, sizeof anchor);
    return g_bytes_new(&anchor, sizeof anchor);
}

static GBytes *make_anchor3(const struct smbios *s)
{
    struct anchor3 anchor = {
        .signature = "_SM3_",
        .length = sizeof anchor,
        .major = 3,
        .revision = 1,
        .size = s->table->len,
    };
    anchor.checksum = checksum(&anchor, sizeof anchor);
    return g_bytes_new(&anchor, sizeof anchor);
}

void boot_smbios(struct fw_cfg *fw, const struct boot_config *config)
{
    struct smbios s = { .table = g_byte_array_new() };
    add_structures(&s, config);
    fw_cfg_add_file(fw, ANCHOR_FILE, config->smbios3 ? make_anchor3(&s) : make_anchor(&s));
    fw_cfg_add_file(fw, TABLES_FILE, g_byte_array_free_to_bytes(s.table));
}
