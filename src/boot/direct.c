/* A kernel without firmware: which kind it is, and the part of RAM that all kinds find alike: BIOS
 * data area, tables, reset vector. */
#include "boot/load.h"

#include "base/error.h"

#include <string.h>

/* What stands at the reset vector: mov dx, 0xcf9; mov al, 6; out dx, al; hlt; jmp to the hlt. The
 * machine's reset is what starts the kernel again. */
static const uint8_t reset_code[] = { 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xf4, 0xeb, 0xfd };

void boot_reset_rom(uint8_t *rom, size_t size)
{
    memcpy(rom + size - (F_SEGMENT_END - RESET_VECTOR), reset_code, sizeof reset_code);
}

/* The few numbers in the BIOS data area that systems look at, and the EBDA's size in KiB. */
static void put_bios_data(struct loader *l)
{
    enum { SERIALS = 0, EBDA_SEGMENT = 0x0e, BASE_KIB = 0x13 };
    static const uint16_t serials[4] = { 0x3f8, 0x2f8, 0x3e8, 0x2e8 };
    uint8_t *data = load_at(l, BIOS_DATA, 256), *ebda = load_at(l, EBDA, 1);
    const uint16_t segment = EBDA / 16, kib = EBDA / KIB;
    memcpy(data + SERIALS, serials, sizeof serials);
    memcpy(data + EBDA_SEGMENT, &segment, sizeof segment);
    memcpy(data + BASE_KIB, &kib, sizeof kib);
    ebda[0] = 1;
    boot_reset_rom(load_at(l, F_SEGMENT, F_SEGMENT_END - F_SEGMENT), F_SEGMENT_END - F_SEGMENT);
}

static bool wants_multiboot(const struct loader *l, GError **error)
{
    return hv_fail(error, HV_USAGE, "%s is a multiboot kernel: --multiboot starts it",
                   l->kernel->file.name);
}

static bool load_elf_kernel(struct loader *l, bool multiboot, GError **error)
{
    g_autofree struct elf *elf = g_new0(struct elf, 1);
    uint64_t entry = 0;
    bool pvh;
    if (!elf_read(l, elf, error) || !elf_pvh_entry(l, elf, &pvh, &entry, error))
        return false;
    if (pvh)
        return pvh_load(l, elf, entry, error);
    return multiboot ? wants_multiboot(l, error) : linux_load_elf(l, elf, error);
}

static bool load_kernel(struct loader *l, GError **error)
{
    const struct boot_kernel *k = l->kernel;
    g_autofree uint8_t *head = g_malloc0(LOAD_HEAD);
    size_t size = MIN(l->size, LOAD_HEAD);
    if (!load_read(&k->file, 0, head, size, error))
        return false;
    if (k->multiboot)
        return multiboot_load(l, head, size, error);
    if (linux_is(head, size))
        return linux_load(l, head, size, error);
    if (elf_is(head, size))
        return load_elf_kernel(l, multiboot_is(head, size), error);
    if (multiboot_is(head, size))
        return wants_multiboot(l, error);
    return hv_fail(error, HV_USAGE,
                   "%s is no kernel that hv can start: a Linux bzImage, an ELF file or, with "
                   "--multiboot, a multiboot kernel is wanted",
                   k->file.name);
}

/* A kernel that begins where nothing is would run into a triple fault, and nobody knew why. */
static bool check_entry(const struct loader *l, GError **error)
{
    const struct entry *entry = l->entry;
    return entry->mode == ENTRY_REAL ||
           (load_taken(l, entry->ip) && (entry->mode == ENTRY_LONG || entry->ip <= UINT32_MAX)) ||
           hv_fail(error, HV_USAGE, "%s: its entry is not in what it loads", l->kernel->file.name);
}

bool boot_direct(struct guest *guest, const struct boot_kernel *kernel, struct entry *entry,
                 GError **error)
{
    struct loader l = {
        .guest = guest,
        .kernel = kernel,
        .entry = entry,
        .taken = g_array_new(FALSE, FALSE, sizeof(struct range)),
    };
    *entry = (struct entry){ .mode = ENTRY_PROTECTED };
    bool ok = guest_low_ram(guest) >= 2 * MIB ||
              hv_fail(error, HV_USAGE, "--memory: a kernel needs 2 MiB at the least");
    ok = ok && load_size(&kernel->file, &l.size, error) && load_tables(&l, error);
    if (ok) {
        put_bios_data(&l);
        ok = load_kernel(&l, error) && check_entry(&l, error);
    }
    g_array_unref(l.taken);
    return ok;
}
