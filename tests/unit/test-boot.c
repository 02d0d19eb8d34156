/* What firmware is handed: loaded and linked here as a firmware does it, then read as a system
 * does, and given to the tools that know the formats (iasl, acpiexec, dmidecode). */
#include "boot/boot.h"

#include "base/error.h"

#include <glib/gstdio.h>
#include <string.h>

/* --- a machine and its tables --------------------------------------------------------------- */

struct loaded {
    const char *name;
    uint64_t at; /* where this firmware puts it */
    uint8_t *data;
    gsize size;
};

struct setup {
    struct guest *guest;
    struct fw_cfg *fw;
    struct boot_config config;
    struct loaded rsdp, tables;
};

static const uint8_t uuid[16] = { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                  0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff };

static struct setup *setup_new(uint64_t ram)
{
    struct setup *s = g_new0(struct setup, 1);
    s->guest = guest_new(ram, NULL);
    s->fw = fw_cfg_new();
    s->config = (struct boot_config){
        .guest = s->guest,
        .cpus = 2,
        .serials = 2,
        .pvpanic = true,
        .ecam = BOOT_ECAM_SEABIOS,
        .name = "tester",
        .version = "0.1.0",
    };
    memcpy(s->config.uuid, uuid, sizeof uuid);
    return s;
}

static void setup_free(struct setup *s)
{
    g_free(s->rsdp.data);
    g_free(s->tables.data);
    fw_cfg_free(s->fw);
    guest_free(s->guest);
    g_free(s);
}

static uint64_t number(const void *at, unsigned width)
{
    uint64_t value = 0;
    memcpy(&value, at, width);
    return value;
}

static uint8_t sum(const void *bytes, size_t size)
{
    uint8_t total = 0;
    for (size_t i = 0; i < size; i++)
        total = (uint8_t)(total + ((const uint8_t *)bytes)[i]);
    return total;
}

/* --- the loader (SeaBIOS src/fw/romfile_loader.h) -------------------------------------------- */

static struct loaded *find(struct setup *s, const uint8_t *name)
{
    g_assert_nonnull(memchr(name, 0, 56));
    struct loaded *all[] = { &s->rsdp, &s->tables };
    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++)
        if (!strcmp(all[i]->name, (const char *)name))
            return all[i];
    g_error("the loader names an unknown file");
}

static void allocate(struct setup *s, const uint8_t *command)
{
    struct loaded *file = find(s, command + 4);
    uint64_t align = number(command + 60, 4);
    GBytes *bytes = fw_cfg_find_file(s->fw, file->name);
    g_assert_nonnull(bytes);
    g_assert_null(file->data); /* once for each file */
    g_assert_cmpuint(file->at % align, ==, 0);
    g_assert_cmpuint(command[64], ==, file == &s->rsdp ? 2 : 1); /* F segment, high memory */
    file->data = g_memdup2(g_bytes_get_data(bytes, &file->size), g_bytes_get_size(bytes));
}

static void add_pointer(struct setup *s, const uint8_t *command)
{
    struct loaded *in = find(s, command + 4), *to = find(s, command + 60);
    uint64_t offset = number(command + 116, 4);
    unsigned size = command[120];
    g_assert_nonnull(in->data);
    g_assert_nonnull(to->data);
    g_assert_true(size == 4 || size == 8);
    g_assert_cmpuint(offset + size, <=, in->size);
    uint64_t value = number(in->data + offset, size);
    g_assert_cmpuint(value, <, to->size);
    value += to->at;
    memcpy(in->data + offset, &value, size);
}

static void add_checksum(struct setup *s, const uint8_t *command)
{
    struct loaded *file = find(s, command + 4);
    uint64_t offset = number(command + 60, 4), start = number(command + 64, 4);
    uint64_t length = number(command + 68, 4);
    g_assert_cmpuint(start + length, <=, file->size);
    g_assert_true(offset >= start && offset < start + length);
    g_assert_cmpuint(file->data[offset], ==, 0); /* as OVMF wants it */
    file->data[offset] = (uint8_t)-sum(file->data + start, length);
}

static void load(struct setup *s)
{
    g_autoptr(GError) error = NULL;
    boot_tables(s->fw, &s->config, &error);
    g_assert_no_error(error);
    s->rsdp = (struct loaded){ .name = "etc/acpi/rsdp", .at = 0xf5a10 };
    s->tables = (struct loaded){ .name = "etc/acpi/tables", .at = 0x7ffd1040 };
    gsize size;
    const uint8_t *script = g_bytes_get_data(fw_cfg_find_file(s->fw, "etc/table-loader"), &size);
    g_assert_cmpuint(size % 128, ==, 0);
    for (gsize i = 0; i < size; i += 128) {
        const uint8_t *command = script + i;
        switch (number(command, 4)) {
        case 1:
            allocate(s, command);
            break;
        case 2:
            add_pointer(s, command);
            break;
        case 3:
            add_checksum(s, command);
            break;
        default:
            g_error("unknown loader command");
        }
    }
}

/* --- as a system reads them ------------------------------------------------------------------ */

/* The table at an address; its length and checksum are right. */
static const uint8_t *table_at(const struct setup *s, uint64_t at, bool summed)
{
    g_assert_true(at >= s->tables.at && at - s->tables.at + 8 <= s->tables.size);
    const uint8_t *table = s->tables.data + (at - s->tables.at);
    uint64_t length = number(table + 4, 4);
    g_assert_cmpuint(at - s->tables.at + length, <=, s->tables.size);
    if (summed)
        g_assert_cmpuint(sum(table, length), ==, 0);
    return table;
}

/* A table from the RSDT (width 4) or the XSDT (8), or NULL. */
static const uint8_t *listed(const struct setup *s, const char *signature, unsigned width)
{
    const uint8_t *list = table_at(s, number(s->rsdp.data + (width == 4 ? 16 : 24), width), true);
    g_assert_cmpmem(list, 4, width == 4 ? "RSDT" : "XSDT", 4);
    for (uint64_t i = 36; i < number(list + 4, 4); i += width) {
        const uint8_t *table = table_at(s, number(list + i, width), true);
        if (!memcmp(table, signature, 4))
            return table;
    }
    return NULL;
}

static const uint8_t *get_dsdt(const struct setup *s)
{
    return table_at(s, number(listed(s, "FACP", 8) + 140, 8), true);
}

static void links(void)
{
    struct setup *s = setup_new(64 * MIB);
    s->config.hpet = true;
    load(s);
    g_assert_cmpmem(s->rsdp.data, 8, "RSD PTR ", 8);
    g_assert_cmpuint(sum(s->rsdp.data, 20), ==, 0);
    g_assert_cmpuint(sum(s->rsdp.data, s->rsdp.size), ==, 0);
    static const char *const names[] = { "FACP", "APIC", "MCFG", "HPET", "WAET", "SSDT" };
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_assert_nonnull(listed(s, names[i], 8));
        g_assert_true(listed(s, names[i], 4) == listed(s, names[i], 8));
    }
    g_assert_null(listed(s, "DSDT", 8)); /* only by way of the FADT */
    const uint8_t *fadt = listed(s, "FACP", 8);
    g_assert_cmpuint(number(fadt + 40, 4), ==, number(fadt + 140, 8)); /* DSDT, both ways */
    g_assert_cmpmem(get_dsdt(s), 4, "DSDT", 4);
    uint64_t facs = number(fadt + 36, 4);
    g_assert_cmpuint(facs % 64, ==, 0);
    g_assert_cmpmem(table_at(s, facs, false), 4, "FACS", 4);
    setup_free(s);
}

static void fadt_registers(void)
{
    struct setup *s = setup_new(64 * MIB);
    load(s);
    const uint8_t *fadt = listed(s, "FACP", 8);
    g_assert_cmpuint(number(fadt + 46, 2), ==, 9);     /* SCI */
    g_assert_cmphex(number(fadt + 48, 4), ==, 0);      /* no SMI command */
    g_assert_cmphex(number(fadt + 56, 4), ==, 0x600);  /* PM1a event */
    g_assert_cmphex(number(fadt + 64, 4), ==, 0x604);  /* PM1a control */
    g_assert_cmphex(number(fadt + 76, 4), ==, 0x608);  /* timer */
    g_assert_cmphex(number(fadt + 80, 4), ==, 0x620);  /* GPE0 */
    g_assert_cmpmem(fadt + 88, 5, "\4\2\0\4\20", 5);   /* their lengths */
    g_assert_cmphex(fadt[108], ==, 0x32);              /* century */
    g_assert_cmphex(fadt[116], ==, 1);                 /* the reset register is a port */
    g_assert_cmphex(number(fadt + 120, 8), ==, 0xcf9); /* this one */
    g_assert_cmphex(fadt[128], ==, 0x0f);
    uint64_t flags = number(fadt + 112, 4);
    g_assert_cmphex(flags & (1 << 10), !=, 0);         /* reset supported */
    g_assert_cmphex(flags & (1 << 4 | 1 << 8), ==, 0); /* fixed power button, 24-bit timer */
    g_assert_cmphex(number(fadt + 152, 8), ==, 0x600); /* the same in 64 bits */
    g_assert_cmphex(number(fadt + 176, 8), ==, 0x604);
    g_assert_cmphex(number(fadt + 212, 8), ==, 0x608);
    g_assert_cmphex(number(fadt + 224, 8), ==, 0x620);
    setup_free(s);
}

static void madt_entries(void)
{
    static const uint32_t ids[] = { 0, 1, 4, 5 };
    struct setup *s = setup_new(64 * MIB);
    s->config.cpus = 4;
    s->config.apic_ids = ids;
    load(s);
    const uint8_t *madt = listed(s, "APIC", 8);
    unsigned cpus = 0, overrides = 0, others = 0;
    g_assert_cmphex(number(madt + 36, 4), ==, 0xfee00000);
    for (const uint8_t *e = madt + 44; e < madt + number(madt + 4, 4); e += e[1]) {
        g_assert_cmpuint(e[1], >=, 6);
        if (e[0] == 0) {
            g_assert_cmpuint(e[2], ==, cpus);
            g_assert_cmpuint(e[3], ==, ids[cpus++]);
            g_assert_cmpuint(e[4], ==, 1);
        } else if (e[0] == 1) {
            g_assert_cmphex(number(e + 4, 4), ==, 0xfec00000);
            others++;
        } else if (e[0] == 2) {
            bool timer = e[3] == 0;
            g_assert_cmpuint(e[4], ==, timer ? 2 : e[3]);
            g_assert_cmphex(number(e + 8, 2), ==, timer ? 0 : 0x0d);
            overrides |= 1u << e[3];
        } else {
            g_assert_cmpmem(e, 6, "\4\6\377\0\0\1", 6);
            others++;
        }
    }
    g_assert_cmpuint(cpus, ==, 4);
    g_assert_cmphex(overrides, ==, 1 << 0 | 1 << 5 | 1 << 9 | 1 << 10 | 1 << 11);
    g_assert_cmpuint(others, ==, 2);
    setup_free(s);
}

/* The windows of the PCI bus, told from its resources: memory of `width` bytes an address. */
static unsigned windows(const struct setup *s, unsigned width, uint64_t (*out)[2])
{
    const uint8_t *ssdt = listed(s, "SSDT", 8);
    const uint8_t *at = memmem(ssdt, number(ssdt + 4, 4), "\x08_CRS\x11", 6);
    unsigned count = 0;
    g_assert_nonnull(at);
    for (at += 12; *at != 0x79;) { /* after the lengths of package and buffer */
        if (!(*at & 0x80)) {
            at += 1 + (*at & 7);
            continue;
        }
        uint8_t kind = width == 4 ? 0x87 : 0x8a;
        if (*at == kind && at[3] == 0) {
            g_assert_cmpuint(count, <, 8);
            out[count][0] = number(at + 6 + width, width);
            out[count][1] = number(at + 6 + 2 * width, width);
            g_assert_cmphex(number(at + 6 + 4 * width, width), ==,
                            out[count][1] - out[count][0] + 1);
            count++;
        }
        at += 3 + number(at + 1, 2);
    }
    return count;
}

static void pci_windows(void)
{
    uint64_t w[8][2];
    struct setup *s = setup_new(128 * MIB);
    load(s);
    g_assert_cmpuint(windows(s, 4, w), ==, 3);
    g_assert_cmphex(w[0][0], ==, 0xa0000);
    g_assert_cmphex(w[0][1], ==, 0xbffff);
    g_assert_cmphex(w[1][0], ==, 0x8000000);
    g_assert_cmphex(w[1][1], ==, 0xafffffff);
    g_assert_cmphex(w[2][0], ==, 0xc0000000);
    g_assert_cmphex(w[2][1], ==, 0xfebfffff);
    g_assert_cmpuint(windows(s, 8, w), ==, 0);
    g_assert_cmphex(number(listed(s, "MCFG", 8) + 44, 8), ==, 0xb0000000);
    g_assert_cmphex(number(listed(s, "MCFG", 8) + 54, 2), ==, 0x0000); /* buses 0 to 0 */
    g_assert_null(listed(s, "HPET", 8));
    setup_free(s);

    s = setup_new(3 * GIB);
    s->config.ecam = BOOT_ECAM_OVMF;
    s->config.pci64_base = 8 * GIB;
    s->config.pci64_size = 16 * GIB;
    load(s);
    g_assert_cmpuint(windows(s, 4, w), ==, 3);
    g_assert_cmphex(w[1][0], ==, 0x80000000);
    g_assert_cmphex(w[1][1], ==, 0xdfffffff);
    g_assert_cmphex(w[2][0], ==, 0xf0000000);
    g_assert_cmpuint(windows(s, 8, w), ==, 1);
    g_assert_cmphex(w[0][0], ==, 8 * GIB);
    g_assert_cmphex(w[0][1], ==, 24 * GIB - 1);
    g_assert_cmphex(number(listed(s, "MCFG", 8) + 44, 8), ==, 0xe0000000);
    setup_free(s);
}

/* --- what SeaBIOS's parser of the DSDT understands (src/fw/dsdt_parser.c) --------------------- */

static size_t name_size(const uint8_t *at)
{
    size_t size = 0;
    while (at[size] == '\\' || at[size] == '^')
        size++;
    if (at[size] == 0)
        return size + 1;
    if (at[size] == 0x2e)
        return size + 9;
    return at[size] == 0x2f ? size + 2 + at[size + 1] * 4u : size + 4;
}

static size_t package(const uint8_t *at, size_t *length)
{
    unsigned more = at[0] >> 6;
    *length = more ? at[0] & 0x0f : at[0] & 0x3f;
    for (unsigned i = 0; i < more; i++)
        *length |= (size_t)at[1 + i] << (4 + 8 * i);
    return 1 + more;
}

static size_t constant_size(const uint8_t *at)
{
    static const uint8_t sizes[] = { [0x00] = 1, [0x01] = 1, [0x0a] = 2, [0x0b] = 3, [0x0c] = 5 };
    g_assert_true(*at < sizeof sizes && sizes[*at]);
    return sizes[*at];
}

static unsigned definitions(const uint8_t *at, const uint8_t *end);

/* One definition that begins at `at`; its size. Counts keyboards. */
static size_t definition(const uint8_t *at, unsigned *keyboards)
{
    size_t length, head = at[0] == 0x5b ? 2 : 1, size;
    switch (at[0] == 0x5b ? 0x5b00 | at[1] : at[0]) {
    case 0x08: /* Name */
        size = 1 + name_size(at + 1);
        *keyboards += !memcmp(at + 1, "_HID\x0c\x41\xd0\x03\x03", 9);
        return size + definition(at + size, keyboards);
    case 0x0d: /* a string */
        return strlen((const char *)at) + 1;
    case 0x10:   /* Scope */
    case 0x5b82: /* Device */
        size = package(at + head, &length);
        *keyboards +=
            definitions(at + head + size + name_size(at + head + size), at + head + length);
        return head + length;
    case 0x11:   /* Buffer */
    case 0x12:   /* Package */
    case 0x14:   /* Method */
    case 0x5b81: /* Field */
        package(at + head, &length);
        return head + length;
    case 0x5b80: /* OperationRegion */
        size = 2 + name_size(at + 2) + 1;
        size += constant_size(at + size);
        return size + constant_size(at + size);
    default:
        return constant_size(at);
    }
}

static unsigned definitions(const uint8_t *at, const uint8_t *end)
{
    unsigned keyboards = 0;
    while (at < end)
        at += definition(at, &keyboards);
    g_assert_true(at == end);
    return keyboards;
}

static void seabios_parses(void)
{
    struct setup *s = setup_new(64 * MIB);
    load(s);
    const uint8_t *dsdt = get_dsdt(s);
    g_assert_cmpuint(definitions(dsdt + 36, dsdt + number(dsdt + 4, 4)), ==, 1);
    setup_free(s);
}

/* --- tools ---------------------------------------------------------------------------------- */

/* A folder for what tools read and write. */
static char *folder_new(void)
{
    g_autoptr(GError) error = NULL;
    char *folder = g_dir_make_tmp("hv-boot-XXXXXX", &error);
    g_assert_no_error(error);
    return folder;
}

static void folder_free(char *folder)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        g_unlink(path);
    }
    g_rmdir(folder);
    g_free(folder);
}

static void put_file(const char *folder, const char *name, const void *data, size_t size)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);
    g_autoptr(GError) error = NULL;
    g_file_set_contents(path, data, (gssize)size, &error);
    g_assert_no_error(error);
}

/* Runs a command in the folder; its output, of both streams, and it must succeed. */
static char *run(const char *folder, const char *command)
{
    g_autofree char *line = g_strdup_printf("( %s ) 2>&1", command);
    const char *argv[] = { "/bin/sh", "-c", line, NULL };
    char *out = NULL;
    int status;
    g_autoptr(GError) error = NULL;
    g_spawn_sync(folder, (char **)(uintptr_t)argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, &out, NULL,
                 &status, &error);
    g_assert_no_error(error);
    if (!g_spawn_check_wait_status(status, NULL))
        g_error("%s:\n%s", command, out);
    return out;
}

/* The file of each table, named by its signature in small letters. */
static void put_tables(const struct setup *s, const char *folder)
{
    static const char *const names[] = { "FACP", "APIC", "MCFG", "HPET", "WAET", "SSDT" };
    const uint8_t *dsdt = get_dsdt(s);
    put_file(folder, "dsdt.dat", dsdt, number(dsdt + 4, 4));
    const uint8_t *facs = table_at(s, number(listed(s, "FACP", 8) + 36, 4), false);
    put_file(folder, "facs.dat", facs, number(facs + 4, 4));
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        const uint8_t *table = listed(s, names[i], 8);
        g_autofree char *lower = g_ascii_strdown(names[i], -1);
        g_autofree char *name = g_strconcat(lower, ".dat", NULL);
        if (table)
            put_file(folder, name, table, number(table + 4, 4));
    }
}

static void recompile(const char *folder, const char *command, const char *table)
{
    g_autofree char *decode = g_strdup_printf("%s %s.dat", command, table);
    g_autofree char *decoded = run(folder, decode);
    g_assert_null(strstr(decoded, "Error"));
    g_assert_null(strstr(decoded, "Warning"));
    g_autofree char *encode = g_strdup_printf("iasl -tc %s.dsl", table);
    g_autofree char *out = run(folder, encode);
    if (!strstr(out, "0 Errors, 0 Warnings"))
        g_error("%s: %s", table, out);
}

/* iasl reads all tables that a guest sees, but the RSDP, which it does not know; and compiles what
 * it read. */
static void iasl_recompiles(void)
{
    struct setup *s = setup_new(5 * GIB);
    s->config.hpet = s->config.floppy = true;
    s->config.cpus = BOOT_CPUS_MAX;
    s->config.serials = BOOT_SERIALS_MAX;
    s->config.pci64_base = 16 * GIB;
    s->config.pci64_size = 16 * GIB;
    load(s);
    char *folder = folder_new();
    put_tables(s, folder);
    static const char *const data[] = { "facp", "facs", "apic", "mcfg", "hpet", "waet" };
    for (unsigned i = 0; i < G_N_ELEMENTS(data); i++)
        recompile(folder, "iasl -d", data[i]);
    recompile(folder, "iasl -e ssdt.dat -d", "dsdt");
    recompile(folder, "iasl -e dsdt.dat -d", "ssdt");
    folder_free(folder);
    setup_free(s);
}

/* ACPICA's own interpreter loads the tables and runs commands of its debugger, one a line. */
static void evaluate(const char *folder, const char *commands, const char *const *wanted)
{
    g_autofree char *script = g_strconcat(commands, "\nquit\n", NULL);
    put_file(folder, "script", script, strlen(script));
    g_autofree char *out = run(folder, "acpiexec dsdt.dat ssdt.dat <script");
    if (strstr(out, "Error") || strstr(out, "Warning") || strstr(out, "Exception"))
        g_error("%s: %s", commands, out);
    for (; *wanted; wanted++)
        if (!strstr(out, *wanted))
            g_error("%s does not give %s: %s", commands, *wanted, out);
}

static void acpica_runs(void)
{
    g_autofree char *tool = g_find_program_in_path("acpiexec");
    if (!tool) {
        g_test_skip("no acpiexec");
        return;
    }
    struct setup *s = setup_new(64 * MIB);
    load(s);
    char *folder = folder_new();
    put_tables(s, folder);
    static const struct {
        const char *commands, *wanted[4];
    } checks[] = {
        /* Slot 1, INTA: PIRQ F by its link, or pin 21 of the I/O APIC. */
        { "evaluate \\_SB.PCI0.ROUT 4", { "= 000000000001FFFF", "Name LNKF Device" } },
        { "evaluate \\_PIC 1\nevaluate \\_SB.PCI0.ROUT 4",
          { "= 000000000001FFFF", "= 0000000000000015" } },
        /* Slot 31, INTB: PIRQ B, pin 17. */
        { "evaluate \\_SB.PCI0.ROUT 0x7D",
          { "= 00000000001FFFFF", "= 0000000000000001", "Name LNKB Device" } },
        { "evaluate \\_PIC 1\nevaluate \\_SB.PCI0.ROUT 0x7D",
          { "= 00000000001FFFFF", "= 0000000000000001", "= 0000000000000011" } },
        { "evaluate \\_SB.PCI0.ISA.LCRS 0xB", { "89 06 00 09 01 0B 00 00 00 79" } },
        { "evaluate \\_SB.PCI0.ISA.LCRS 0x8B", { "89 06 00 09 01 00 00 00 00 79" } },
        { "evaluate \\_SB.PCI0.ISA.LSTA 0x8B", { "= 0000000000000009" } },
        { "evaluate \\_SB.PCI0.ISA.LSTA 0xB", { "= 000000000000000B" } },
        { "evaluate \\_SB.PCI0.ISA.LSRS (8906000901050000007900)", { "= 0000000000000005" } },
        { "resources \\_SB.PCI0.ISA.LNKA", { "Dword02 : 0000000B" } },
        /* Query: of all controls asked for, PME, AER and the PCI Express capability are given. */
        { "evaluate \\_SB.PCI0._OSC (5B4DDB33F71F1C4096577441C03DD766) 1 3 "
          "(01000000000000001F000000)",
          { "11 00 00 00 00 00 00 00 1C 00 00 00" } },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(checks); i++)
        evaluate(folder, checks[i].commands, checks[i].wanted);
    folder_free(folder);
    setup_free(s);
}

/* --- the rest ------------------------------------------------------------------------------- */

static const uint8_t *file(const struct setup *s, const char *name, gsize *size)
{
    GBytes *bytes = fw_cfg_find_file(s->fw, name);
    g_assert_nonnull(bytes);
    return g_bytes_get_data(bytes, size);
}

static void smbios_decoded(void)
{
    g_autofree char *found = g_find_program_in_path("dmidecode");
    const char *tool = found ? found : "/usr/sbin/dmidecode";
    if (!g_file_test(tool, G_FILE_TEST_IS_EXECUTABLE)) {
        g_test_skip("no dmidecode");
        return;
    }
    for (int v3 = 0; v3 < 2; v3++) {
        struct setup *s = setup_new(40 * GIB);
        s->config.smbios3 = v3;
        s->config.cpus = 8;
        s->config.cores = 2;
        s->config.threads = 2;
        load(s);
        /* As dmidecode --dump-bin writes it: the anchor, and the table at 32. */
        gsize anchor_size, size;
        const uint8_t *anchor = file(s, "etc/smbios/smbios-anchor", &anchor_size);
        const uint8_t *table = file(s, "etc/smbios/smbios-tables", &size);
        g_assert_cmpuint(anchor_size, ==, v3 ? 24 : 31);
        g_assert_cmpuint(sum(anchor, anchor_size), ==, 0);
        g_autofree uint8_t *dump = g_malloc0(32 + size);
        memcpy(dump, anchor, anchor_size);
        memcpy(dump + 32, table, size);
        dump[v3 ? 16 : 24] = 32;
        dump[v3 ? 5 : 21] = (uint8_t)(dump[v3 ? 5 : 21] - 32);
        char *folder = folder_new();
        put_file(folder, "dump", dump, 32 + size);
        g_autofree char *line = g_strdup_printf("%s --from-dump dump", tool);
        g_autofree char *out = run(folder, line);
        static const char *const wanted[] = {
            "Manufacturer: hv\n",
            "Product Name: Standard PC\n",
            "UUID: 00112233-4455-6677-8899-aabbccddeeff\n",
            "Family: tester\n",
            "System is a virtual machine",
            "Socket Designation: CPU 1\n",
            "Core Count: 2\n",
            "Thread Count: 4\n",
            "Maximum Capacity: 40 GB\n",
            "Number Of Devices: 3\n",
            "Locator: DIMM 2\n",
            "Size: 8 GB\n",
            "End Of Table\n",
        };
        static const char *const bad[] = { "BAD",   "OUT OF SPEC", "broken",  "runcated",
                                           "Wrong", "Invalid",     "CPU 2\n", "DIMM 3\n" };
        for (unsigned i = 0; i < G_N_ELEMENTS(wanted); i++)
            if (!strstr(out, wanted[i]))
                g_error("dmidecode does not say \"%s\":\n%s", wanted[i], out);
        for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
            if (strstr(out, bad[i]))
                g_error("dmidecode says \"%s\":\n%s", bad[i], out);
        folder_free(folder);
        setup_free(s);
    }
}

static void memory_map(void)
{
    struct setup *s = setup_new(3 * GIB);
    load(s);
    gsize size;
    const uint8_t *map = file(s, "etc/e820", &size);
    g_assert_cmpuint(size, ==, 3 * 20);
    g_assert_cmphex(number(map + 16, 4), ==, 2);
    g_assert_cmphex(number(map + 20, 8), ==, 0);
    g_assert_cmphex(number(map + 28, 8), ==, 2 * GIB);
    g_assert_cmphex(number(map + 36, 4), ==, 1);
    g_assert_cmphex(number(map + 40, 8), ==, 4 * GIB);
    g_assert_cmphex(number(map + 48, 8), ==, GIB);
    setup_free(s);
    s = setup_new(256 * MIB);
    load(s);
    file(s, "etc/e820", &size);
    g_assert_cmpuint(size, ==, 2 * 20); /* nothing above 4 GiB */
    setup_free(s);
}

static void settings(void)
{
    static const char *const order[] = { "/pci@i0cf8/*@1f,2/drive@0/disk@0", "HALT", NULL };
    struct setup *s = setup_new(64 * MIB);
    s->config.boot_order = order;
    s->config.cpus = 3;
    s->config.firmware_console = 0x3f8;
    load(s);
    gsize size;
    const char *text = (const char *)file(s, "bootorder", &size);
    g_assert_cmpstr(text, ==, "/pci@i0cf8/*@1f,2/drive@0/disk@0\nHALT\n");
    g_assert_cmpuint(size, ==, strlen(text) + 1);
    g_assert_cmpmem(file(s, "etc/sercon-port", &size), 2, "\xf8\x03", 2);
    GBytes *cpus = fw_cfg_find(s->fw, FW_CFG_NB_CPUS);
    g_assert_cmpmem(g_bytes_get_data(cpus, NULL), (int)g_bytes_get_size(cpus), "\3\0", 2);
    GBytes *id = fw_cfg_find(s->fw, FW_CFG_UUID);
    g_assert_cmpmem(g_bytes_get_data(id, NULL), (int)g_bytes_get_size(id), uuid, 16);
    setup_free(s);
}

static void refused(void)
{
    static const uint32_t ids[] = { 0, 255 };
    struct setup *s = setup_new(64 * MIB);
    g_autoptr(GError) error = NULL;
    s->config.cpus = BOOT_CPUS_MAX + 1;
    g_assert_false(boot_tables(s->fw, &s->config, &error));
    g_assert_error(error, HV_ERROR, HV_USAGE);
    s->config.cpus = 2;
    s->config.apic_ids = ids;
    g_assert_false(boot_tables(s->fw, &s->config, NULL));
    s->config.apic_ids = NULL;
    s->config.serials = BOOT_SERIALS_MAX + 1;
    g_assert_false(boot_tables(s->fw, &s->config, NULL));
    setup_free(s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/boot/acpi/links", links);
    g_test_add_func("/boot/acpi/fadt", fadt_registers);
    g_test_add_func("/boot/acpi/madt", madt_entries);
    g_test_add_func("/boot/acpi/pci-windows", pci_windows);
    g_test_add_func("/boot/acpi/seabios-parses", seabios_parses);
    g_test_add_func("/boot/acpi/iasl-recompiles", iasl_recompiles);
    g_test_add_func("/boot/acpi/acpica-runs", acpica_runs);
    g_test_add_func("/boot/smbios/decoded", smbios_decoded);
    g_test_add_func("/boot/memory-map", memory_map);
    g_test_add_func("/boot/settings", settings);
    g_test_add_func("/boot/refused", refused);
    return g_test_run();
}
