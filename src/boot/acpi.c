/* The ACPI tables (ACPI 6.4, chapter 5), and the commands by which the firmware loads and links
 * them: QEMU's linker/loader interface, as SeaBIOS src/fw/romfile_loader.h describes it. All tables
 * but the RSDP are one file; a pointer is first the offset of its target in that file, to which the
 * firmware adds where it put it. Numbers are little-endian in the tables, as on every host of hv.
 */
#include "boot/boot.h"
#include "boot/table-loader.h"

#include <string.h>

static const uint8_t dsdt[] = {
#include "dsdt.inc"
};

/* Where the chipset answers. PMBASE is where SeaBIOS puts it. */
enum {
    PM1_EVENT = 0x600,
    PM1_CONTROL = 0x604,
    PM_TIMER = 0x608,
    GPE0 = 0x620,
    SCI = 9,
    RESET_PORT = 0xcf9,
    RESET_VALUE = 0x0f, /* a full reset of CPU and system */
    CMOS_CENTURY = 0x32,
    LAPIC_BASE = 0xfee00000,
    IOAPIC_BASE = 0xfec00000,
    HPET_BASE = 0xfed00000,
    HPET_ID = 0x8086a201, /* the low half of its capabilities: revision 1, 3 timers, 64 bits */
};

/* --- layouts -------------------------------------------------------------------------------- */

/* 5.2.6 */
struct header {
    char signature[4];
    uint32_t length;
    uint8_t revision, checksum;
    char oem[6], oem_table[8];
    uint32_t oem_revision;
    char creator[4];
    uint32_t creator_revision;
} __attribute__((packed));
G_STATIC_ASSERT(sizeof(struct header) == 36);

/* 5.2.3.2 */
struct gas {
    uint8_t space, bits, offset, access;
    uint64_t address;
} __attribute__((packed));
enum { SPACE_MEMORY = 0, SPACE_IO = 1 };
#define GAS_IO(port, bits_)                                                                        \
    {                                                                                              \
        SPACE_IO, (bits_), 0, 0, port                                                              \
    }

/* 5.2.5.3 */
struct rsdp {
    char signature[8];
    uint8_t checksum;
    char oem[6];
    uint8_t revision;
    uint32_t rsdt, length;
    uint64_t xsdt;
    uint8_t extended_checksum, reserved[3];
} __attribute__((packed));
enum { RSDP_V1_SIZE = 20 };
G_STATIC_ASSERT(sizeof(struct rsdp) == 36);

/* 5.2.9 */
struct fadt {
    struct header header;
    uint32_t facs, dsdt;
    uint8_t reserved, profile;
    uint16_t sci;
    uint32_t smi_command;
    uint8_t acpi_enable, acpi_disable, s4bios, pstate;
    uint32_t pm1a_event, pm1b_event, pm1a_control, pm1b_control, pm2_control, pm_timer, gpe0, gpe1;
    uint8_t pm1_event_size, pm1_control_size, pm2_control_size, pm_timer_size, gpe0_size, gpe1_size,
        gpe1_base, cstate;
    uint16_t c2_latency, c3_latency, flush_size, flush_stride;
    uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
    uint16_t boot_arch;
    uint8_t reserved2;
    uint32_t flags;
    struct gas reset;
    uint8_t reset_value;
    uint16_t arm_boot_arch;
    uint8_t minor;
    uint64_t x_facs, x_dsdt;
    struct gas x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control, x_pm2_control,
        x_pm_timer, x_gpe0, x_gpe1, sleep_control, sleep_status;
    uint64_t hypervisor;
} __attribute__((packed));
enum { FADT_MAJOR = 6, FADT_MINOR = 0 };
G_STATIC_ASSERT(sizeof(struct fadt) == 276);

enum fadt_flags {
    FADT_WBINVD = 1,
    FADT_C1 = 1 << 2,
    FADT_SLEEP_BUTTON = 1 << 5, /* no fixed one; the power button is (bit 4 is 0) */
    FADT_RESET = 1 << 10,
    FADT_PLATFORM_CLOCK = 1 << 15, /* the PM timer is to be preferred to the TSC */
    FADT_APIC_CLUSTER = 1 << 18,   /* logical mode for more than eight local APICs */
};
enum { BOOT_ARCH_LEGACY = 1, BOOT_ARCH_8042 = 2 };
enum { PROFILE_DESKTOP = 1, NO_C2 = 101, NO_C3 = 1001, FLAT_CPUS_MAX = 8 };

/* 5.2.10 */
struct facs {
    char signature[4];
    uint32_t length, hardware_signature, waking_vector, global_lock, flags;
    uint64_t x_waking_vector;
    uint8_t version, reserved[3];
    uint32_t ospm_flags;
    uint8_t reserved2[24];
} __attribute__((packed));
enum { FACS_ALIGN = 64, FACS_VERSION = 2 };
G_STATIC_ASSERT(sizeof(struct facs) == 64);

/* 5.2.12 */
struct madt {
    struct header header;
    uint32_t lapic, flags;
} __attribute__((packed));
struct madt_lapic {
    uint8_t type, length, uid, id;
    uint32_t flags;
} __attribute__((packed));
struct madt_ioapic {
    uint8_t type, length, id, reserved;
    uint32_t address, gsi_base;
} __attribute__((packed));
struct madt_override {
    uint8_t type, length, bus, source;
    uint32_t gsi;
    uint16_t flags;
} __attribute__((packed));
struct madt_nmi {
    uint8_t type, length, uid;
    uint16_t flags;
    uint8_t lint;
} __attribute__((packed));
enum { MADT_LAPIC = 0, MADT_IOAPIC = 1, MADT_OVERRIDE = 2, MADT_NMI = 4 };
enum {
    MADT_8259 = 1,
    MADT_ENABLED = 1,
    MADT_CONFORMS = 0,      /* to the bus: ISA is edge-triggered, active high */
    MADT_LEVEL_HIGH = 0x0d, /* active high, level-triggered */
    MADT_ALL_CPUS = 0xff,
};

/* PCI Firmware Specification 3.2, 4.1.2 */
struct mcfg {
    struct header header;
    uint8_t reserved[8];
    uint64_t base;
    uint16_t segment;
    uint8_t first_bus, last_bus;
    uint32_t reserved2;
} __attribute__((packed));

/* IA-PC HPET Specification 1.0a, 3.2.4 */
struct hpet {
    struct header header;
    uint32_t id;
    struct gas address;
    uint8_t number;
    uint16_t minimum_tick;
    uint8_t protection;
} __attribute__((packed));

/* Windows ACPI Emulated Devices Table */
struct waet {
    struct header header;
    uint32_t flags;
} __attribute__((packed));
enum { WAET_PM_TIMER_GOOD = 2 }; /* one read is enough */

/* --- building ------------------------------------------------------------------------------- */

enum { TABLES_MAX = 8, TABLE_ALIGN = 8 };

struct tables {
    GByteArray *file;             /* TABLES_FILE */
    GArray *commands, *checksums; /* of struct command; checksums come after all pointers */
    uint32_t listed[TABLES_MAX];  /* offsets of those that RSDT and XSDT list */
    unsigned count;
};

static void add_allocate(struct tables *t, const char *file, uint32_t align, uint8_t zone)
{
    struct command c = { .command = COMMAND_ALLOCATE };
    g_strlcpy(c.allocate.file, file, FILE_NAME);
    c.allocate.align = align;
    c.allocate.zone = zone;
    g_array_append_val(t->commands, c);
}

static void add_pointer(struct tables *t, const char *in, size_t offset, uint8_t size)
{
    struct command c = { .command = COMMAND_POINTER };
    g_strlcpy(c.pointer.in, in, FILE_NAME);
    g_strlcpy(c.pointer.to, TABLES_FILE, FILE_NAME);
    c.pointer.offset = (uint32_t)offset;
    c.pointer.size = size;
    g_array_append_val(t->commands, c);
}

static void add_checksum(struct tables *t, const char *file, size_t offset, size_t start,
                         size_t length)
{
    struct command c = { .command = COMMAND_CHECKSUM };
    g_strlcpy(c.checksum.file, file, FILE_NAME);
    c.checksum.offset = (uint32_t)offset;
    c.checksum.start = (uint32_t)start;
    c.checksum.length = (uint32_t)length;
    g_array_append_val(t->checksums, c);
}

/* Room at the next aligned offset; where it is. */
static uint32_t align_file(struct tables *t, unsigned align)
{
    guint old = t->file->len, start = (old + align - 1) / align * align;
    g_byte_array_set_size(t->file, start);
    if (start > old)
        memset(t->file->data + old, 0, start - old);
    return start;
}

static void append(struct tables *t, const void *bytes, size_t size)
{
    g_byte_array_append(t->file, bytes, (guint)size);
}

static struct header table_header(const char *signature, uint8_t revision)
{
    struct header header = {
        .revision = revision,
        .oem = "HV    ",
        .oem_table = "HVPC    ",
        .oem_revision = 1,
        .creator = "HV  ",
        .creator_revision = 1,
    };
    memcpy(header.signature, signature, sizeof header.signature);
    return header;
}

/* Begins a table with `size` bytes that begin with its header; where it is. */
static uint32_t begin_table(struct tables *t, const void *bytes, size_t size)
{
    uint32_t start = align_file(t, TABLE_ALIGN);
    append(t, bytes, size);
    return start;
}

static void end_table(struct tables *t, uint32_t start)
{
    uint32_t length = t->file->len - start;
    memcpy(t->file->data + start + offsetof(struct header, length), &length, sizeof length);
    add_checksum(t, TABLES_FILE, start + offsetof(struct header, checksum), start,
                 t->file->len - start);
}

static void list_table(struct tables *t, uint32_t start)
{
    g_assert(t->count < TABLES_MAX); /* by our own list below */
    t->listed[t->count++] = start;
}

/* A table that is a struct. */
static void add_table(struct tables *t, const void *bytes, size_t size)
{
    uint32_t start = begin_table(t, bytes, size);
    end_table(t, start);
    list_table(t, start);
}

/* --- tables --------------------------------------------------------------------------------- */

static uint32_t add_facs(struct tables *t)
{
    const struct facs facs = {
        .signature = "FACS",
        .length = sizeof facs,
        .version = FACS_VERSION,
    };
    uint32_t start = align_file(t, FACS_ALIGN);
    append(t, &facs, sizeof facs);
    return start;
}

static uint32_t add_dsdt(struct tables *t)
{
    uint32_t start = align_file(t, TABLE_ALIGN);
    append(t, dsdt, sizeof dsdt); /* iasl gave it length and checksum */
    return start;
}

static void add_fadt(struct tables *t, const struct boot_config *config, uint32_t facs,
                     uint32_t dsdt_at)
{
    const struct fadt fadt = {
        .header = table_header("FACP", FADT_MAJOR),
        .facs = facs,
        .dsdt = dsdt_at,
        .profile = PROFILE_DESKTOP,
        .sci = SCI,
        .pm1a_event = PM1_EVENT, /* no SMI command: ACPI mode is always on */
        .pm1a_control = PM1_CONTROL,
        .pm_timer = PM_TIMER,
        .gpe0 = GPE0,
        .pm1_event_size = 4,
        .pm1_control_size = 2,
        .pm_timer_size = 4,
        .gpe0_size = 16,
        .c2_latency = NO_C2,
        .c3_latency = NO_C3,
        .century = CMOS_CENTURY,
        .boot_arch = BOOT_ARCH_LEGACY | BOOT_ARCH_8042,
        .flags = FADT_WBINVD | FADT_C1 | FADT_SLEEP_BUTTON | FADT_RESET | FADT_PLATFORM_CLOCK |
                 (config->cpus > FLAT_CPUS_MAX ? FADT_APIC_CLUSTER : 0),
        .reset = GAS_IO(RESET_PORT, 8),
        .reset_value = RESET_VALUE,
        .minor = FADT_MINOR,
        .x_dsdt = dsdt_at,
        .x_pm1a_event = GAS_IO(PM1_EVENT, 32),
        .x_pm1a_control = GAS_IO(PM1_CONTROL, 16),
        .x_pm_timer = GAS_IO(PM_TIMER, 32),
        .x_gpe0 = GAS_IO(GPE0, 128),
    };
    uint32_t start = begin_table(t, &fadt, sizeof fadt);
    add_pointer(t, TABLES_FILE, start + offsetof(struct fadt, facs), 4);
    add_pointer(t, TABLES_FILE, start + offsetof(struct fadt, dsdt), 4);
    add_pointer(t, TABLES_FILE, start + offsetof(struct fadt, x_dsdt), 8);
    end_table(t, start);
    list_table(t, start);
}

static void add_madt(struct tables *t, const struct boot_config *config)
{
    const struct madt madt = {
        .header = table_header("APIC", 5),
        .lapic = LAPIC_BASE,
        .flags = MADT_8259,
    };
    uint32_t start = begin_table(t, &madt, sizeof madt);
    for (unsigned i = 0; i < config->cpus; i++) {
        const struct madt_lapic lapic = {
            MADT_LAPIC, sizeof lapic, (uint8_t)i, (uint8_t)boot_apic_id(config, i), MADT_ENABLED,
        };
        append(t, &lapic, sizeof lapic);
    }
    const struct madt_ioapic ioapic = {
        MADT_IOAPIC,
        sizeof ioapic,
        .address = IOAPIC_BASE,
    };
    append(t, &ioapic, sizeof ioapic);
    /* The timer, the SCI, and the lines that PCI interrupts take by way of the 8259s. */
    static const uint8_t overrides[][3] = {
        { 0, 2, MADT_CONFORMS },     { 5, 5, MADT_LEVEL_HIGH },   { SCI, SCI, MADT_LEVEL_HIGH },
        { 10, 10, MADT_LEVEL_HIGH }, { 11, 11, MADT_LEVEL_HIGH },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(overrides); i++) {
        const struct madt_override override = {
            MADT_OVERRIDE, sizeof override, 0, overrides[i][0], overrides[i][1], overrides[i][2],
        };
        append(t, &override, sizeof override);
    }
    const struct madt_nmi nmi = { MADT_NMI, sizeof nmi, MADT_ALL_CPUS, .lint = 1 };
    append(t, &nmi, sizeof nmi);
    end_table(t, start);
    list_table(t, start);
}

static void add_small_tables(struct tables *t, const struct boot_config *config)
{
    const struct mcfg mcfg = {
        .header = table_header("MCFG", 1),
        .base = config->ecam,
        .last_bus = BOOT_LAST_BUS,
    };
    add_table(t, &mcfg, sizeof mcfg);
    if (config->hpet) {
        const struct hpet hpet = {
            .header = table_header("HPET", 1),
            .id = HPET_ID,
            .address = { SPACE_MEMORY, 64, 0, 0, HPET_BASE },
            .minimum_tick = 100,
        };
        add_table(t, &hpet, sizeof hpet);
    }
    const struct waet waet = {
        .header = table_header("WAET", 1),
        .flags = WAET_PM_TIMER_GOOD,
    };
    add_table(t, &waet, sizeof waet);
}

static void add_ssdt(struct tables *t, const struct boot_config *config)
{
    const struct header header = table_header("SSDT", 1);
    uint32_t start = begin_table(t, &header, sizeof header);
    boot_ssdt(t->file, config);
    end_table(t, start);
    list_table(t, start);
}

/* The RSDT for old systems and SeaBIOS (width 4), the XSDT for others (width 8). */
static uint32_t add_list(struct tables *t, const char *signature, uint8_t width)
{
    const struct header header = table_header(signature, 1);
    uint32_t start = begin_table(t, &header, sizeof header);
    for (unsigned i = 0; i < t->count; i++) {
        uint64_t entry = t->listed[i];
        add_pointer(t, TABLES_FILE, t->file->len, width);
        append(t, &entry, width);
    }
    end_table(t, start);
    return start;
}

static GBytes *make_rsdp(struct tables *t, uint32_t rsdt, uint32_t xsdt)
{
    const struct rsdp rsdp = {
        .signature = "RSD PTR ",
        .oem = "HV    ",
        .revision = 2,
        .rsdt = rsdt,
        .length = sizeof rsdp,
        .xsdt = xsdt,
    };
    add_pointer(t, RSDP_FILE, offsetof(struct rsdp, rsdt), 4);
    add_pointer(t, RSDP_FILE, offsetof(struct rsdp, xsdt), 8);
    add_checksum(t, RSDP_FILE, offsetof(struct rsdp, checksum), 0, RSDP_V1_SIZE);
    add_checksum(t, RSDP_FILE, offsetof(struct rsdp, extended_checksum), 0, sizeof rsdp);
    return g_bytes_new(&rsdp, sizeof rsdp);
}

void boot_acpi(struct fw_cfg *fw, const struct boot_config *config)
{
    struct tables t = {
        .file = g_byte_array_new(),
        .commands = g_array_new(FALSE, TRUE, sizeof(struct command)),
        .checksums = g_array_new(FALSE, TRUE, sizeof(struct command)),
    };
    add_allocate(&t, RSDP_FILE, 16, ZONE_FSEG);
    add_allocate(&t, TABLES_FILE, FACS_ALIGN, ZONE_HIGH);
    uint32_t facs = add_facs(&t);
    uint32_t dsdt_at = add_dsdt(&t);
    add_fadt(&t, config, facs, dsdt_at);
    add_madt(&t, config);
    add_small_tables(&t, config);
    add_ssdt(&t, config);
    uint32_t rsdt = add_list(&t, "RSDT", 4);
    uint32_t xsdt = add_list(&t, "XSDT", 8);
    fw_cfg_add_file(fw, RSDP_FILE, make_rsdp(&t, rsdt, xsdt));
    fw_cfg_add_file(fw, TABLES_FILE, g_byte_array_free_to_bytes(t.file));
    g_array_append_vals(t.commands, t.checksums->data, t.checksums->len);
    fw_cfg_add_file(fw, LOADER_FILE,
                    g_bytes_new(t.commands->data, t.commands->len * sizeof(struct command)));
    g_array_unref(t.commands);
    g_array_unref(t.checksums);
}
