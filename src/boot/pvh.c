/* The x86/HVM direct boot ABI, "PVH" (Xen docs/misc/pvh.pandoc and
 * public/arch-x86/hvm/start_info.h): ELF kernels with a note that names a 32-bit entry. */
#include "boot/load.h"

#include <string.h>

#define START_MAGIC UINT32_C(0x336ec578)
enum { START_VERSION = 1, INITRD_LAST = 0x37ffffff };

struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, cmdline, rsdp;
    uint64_t map; /* from version 1 */
    uint32_t map_count, reserved;
};
G_STATIC_ASSERT(sizeof(struct start_info) == 56);

struct module {
    uint64_t at, size, cmdline, reserved;
};

struct memory {
    uint64_t base, size;
    uint32_t type, reserved;
};
G_STATIC_ASSERT(sizeof(struct memory) == 24);

/* One module: all initrds, as Linux wants it. */
static bool put_module(struct loader *l, struct start_info *info, GError **error)
{
    struct range initrd;
    if (!load_initrds(l, INITRD_LAST, &initrd, error))
        return false;
    const struct module module = { .at = initrd.base, .size = initrd.size };
    info->modules = initrd.size != 0;
    return !initrd.size || load_low(l, &module, sizeof module, &info->module_list, error);
}

static bool put_map(struct loader *l, struct start_info *info, GError **error)
{
    struct memory map[MAP_MAX] = { { 0 } };
    for (unsigned i = 0; i < l->map_count; i++)
        map[i] = (struct memory){ l->map[i].base, l->map[i].size, l->map[i].type, 0 };
    info->map_count = l->map_count;
    return load_low(l, map, l->map_count * sizeof *map, &info->map, error);
}

bool pvh_load(struct loader *l, const struct elf *elf, uint64_t entry, GError **error)
{
    const char *append = l->kernel->append ? l->kernel->append : "";
    struct start_info info = { .magic = START_MAGIC, .version = START_VERSION, .rsdp = l->rsdp };
    if (!elf_load(l, elf, error))
        return false;
    l->entry->mode = ENTRY_PROTECTED;
    l->entry->ip = entry;
    return put_module(l, &info, error) && put_map(l, &info, error) &&
           load_low(l, append, strlen(append) + 1, &info.cmdline, error) &&
           load_gdt(l, false, error) && load_low(l, &info, sizeof info, &l->entry->bx, error);
}
