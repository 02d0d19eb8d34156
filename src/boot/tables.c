/* The ACPI and SMBIOS tables without a firmware: what SeaBIOS would do with the items of fw_cfg is
 * done here. The tables go to the top of low RAM, and what systems search memory for (RSDP, SMBIOS
 * entry point) into the F segment. */
#include "boot/load.h"
#include "boot/table-loader.h"

#include "base/error.h"

#include <string.h>

#define ANCHOR_FILE "etc/smbios/smbios-anchor"
#define SMBIOS_FILE "etc/smbios/smbios-tables"

enum { PAGE = 4096, PLACES_MAX = 4, ALIGN_MAX = PAGE };

/* Where a file of fw_cfg was put. */
struct place {
    char name[FILE_NAME + 1];
    uint64_t at, size;
    uint8_t *host;
};

struct linker {
    struct loader *l;
    uint64_t low, high; /* free: in the F segment from here up; below this, down */
    struct place places[PLACES_MAX];
    unsigned count;
};

static bool broken(GError **error)
{
    return hv_fail(error, HV_FAILED, "the table loader's script is wrong");
}

static const struct place *find(const struct linker *k, const char *name)
{
    for (unsigned i = 0; i < k->count; i++)
        if (!strncmp(k->places[i].name, name, FILE_NAME))
            return &k->places[i];
    return NULL;
}

/* Puts a file into the F segment or to the top of RAM. */
static const struct place *put(struct linker *k, const char *name, uint64_t align, bool fseg)
{
    struct place *p = &k->places[k->count];
    if (k->count == PLACES_MAX || !align || align > ALIGN_MAX || align & (align - 1))
        return NULL;
    g_snprintf(p->name, sizeof p->name, "%.*s", FILE_NAME, name);
    GBytes *bytes = fw_cfg_find_file(k->l->kernel->tables, p->name);
    if (!bytes)
        return NULL;
    gsize size;
    const void *data = g_bytes_get_data(bytes, &size);
    p->size = size;
    p->at = fseg ? (k->low + align - 1) & ~(align - 1) : (k->high - size) & ~(align - 1);
    if (fseg ? p->at + size > RESET_VECTOR : size > k->high || p->at < LEGACY_END)
        return NULL;
    p->host = guest_ram_host(k->l->guest, GPA(p->at), size);
    if (!p->host)
        return NULL;
    memcpy(p->host, data, size);
    if (fseg)
        k->low = p->at + size;
    else
        k->high = p->at;
    k->count++;
    return p;
}

static bool add_pointer(struct linker *k, const struct command *c)
{
    const struct place *in = find(k, c->pointer.in), *to = find(k, c->pointer.to);
    uint64_t value = 0;
    if (!in || !to || c->pointer.size > sizeof value ||
        (uint64_t)c->pointer.offset + c->pointer.size > in->size)
        return false;
    memcpy(&value, in->host + c->pointer.offset, c->pointer.size);
    value += to->at;
    memcpy(in->host + c->pointer.offset, &value, c->pointer.size);
    return true;
}

static uint8_t sum(const uint8_t *bytes, size_t size)
{
    uint8_t total = 0;
    for (size_t i = 0; i < size; i++)
        total = (uint8_t)(total + bytes[i]);
    return total;
}

static bool add_checksum(struct linker *k, const struct command *c)
{
    const struct place *in = find(k, c->checksum.file);
    if (!in || c->checksum.offset >= in->size ||
        (uint64_t)c->checksum.start + c->checksum.length > in->size)
        return false;
    uint8_t *at = in->host + c->checksum.offset;
    *at = (uint8_t)(*at - sum(in->host + c->checksum.start, c->checksum.length));
    return true;
}

static bool link_acpi(struct linker *k, GError **error)
{
    GBytes *script = fw_cfg_find_file(k->l->kernel->tables, LOADER_FILE);
    gsize size = 0;
    const struct command *c = script ? g_bytes_get_data(script, &size) : NULL;
    for (gsize i = 0; i < size / sizeof *c; i++) {
        bool ok = false;
        if (c[i].command == COMMAND_ALLOCATE)
            ok = put(k, c[i].allocate.file, c[i].allocate.align, c[i].allocate.zone == ZONE_FSEG);
        else if (c[i].command == COMMAND_POINTER)
            ok = add_pointer(k, &c[i]);
        else if (c[i].command == COMMAND_CHECKSUM)
            ok = add_checksum(k, &c[i]);
        if (!ok)
            return broken(error);
    }
    const struct place *rsdp = find(k, RSDP_FILE);
    k->l->rsdp = rsdp ? rsdp->at : 0;
    return rsdp || broken(error);
}

/* The entry point of SMBIOS 2.8 (DSP0134, 5.2.1): the table's address, and its checksums anew. */
static bool link_smbios(struct linker *k, GError **error)
{
    enum { CHECKSUM = 4, LENGTH = 5, DMI = 16, DMI_CHECKSUM = 21, ADDRESS = 24, SIZE = 31 };
    const struct place *table = put(k, SMBIOS_FILE, 16, false);
    const struct place *anchor = put(k, ANCHOR_FILE, 16, true);
    if (!table || !anchor || anchor->size != SIZE)
        return broken(error);
    uint32_t at = (uint32_t)table->at;
    uint8_t *a = anchor->host;
    memcpy(a + ADDRESS, &at, sizeof at);
    a[DMI_CHECKSUM] = (uint8_t)(a[DMI_CHECKSUM] - sum(a + DMI, SIZE - DMI));
    a[CHECKSUM] = (uint8_t)(a[CHECKSUM] - sum(a, SIZE));
    return true;
}

static void add_map(struct loader *l, uint64_t base, uint64_t end, uint32_t type)
{
    if (base < end)
        l->map[l->map_count++] = (struct map_entry){ base, end - base, type };
}

/* As SeaBIOS leaves it, in order: ECAM and the chipset's registers are no RAM and no PCI window. */
static void make_map(struct loader *l, uint64_t tables)
{
    enum { RCBA_SIZE = 0x4000, ECAM_SIZE = 256 << 20 };
    const uint64_t rcba = 0xfed1c000, kvm_pages = 0xfeffc000, kvm_pages_end = 0xff000000;
    uint64_t low = guest_low_ram(l->guest), high = guest_high_ram(l->guest);
    add_map(l, 0, EBDA, MAP_RAM);
    add_map(l, EBDA, LEGACY_BASE, MAP_RESERVED);
    add_map(l, F_SEGMENT, F_SEGMENT_END, MAP_RESERVED);
    add_map(l, LEGACY_END, tables, MAP_RAM);
    add_map(l, tables, low, MAP_RESERVED);
    add_map(l, l->kernel->ecam, l->kernel->ecam + ECAM_SIZE, MAP_RESERVED);
    add_map(l, rcba, rcba + RCBA_SIZE, MAP_RESERVED);
    add_map(l, kvm_pages, kvm_pages_end, MAP_RESERVED);
    add_map(l, HIGH_RAM_BASE, HIGH_RAM_BASE + high, MAP_RAM);
}

bool load_tables(struct loader *l, GError **error)
{
    uint64_t low = guest_low_ram(l->guest);
    struct linker k = { .l = l, .low = F_SEGMENT, .high = low };
    if (!link_acpi(&k, error) || !link_smbios(&k, error))
        return false;
    uint64_t tables = k.high / PAGE * PAGE;
    make_map(l, tables);
    return load_take(l, tables, low - tables, error);
}
