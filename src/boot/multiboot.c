/* Multiboot kernels (Multiboot Specification version 0.6.96): ELF, or any file whose header has the
 * addresses itself (the "a.out kludge"). */
#include "boot/load.h"

#include "base/error.h"

#include <string.h>

#define HEADER_MAGIC UINT32_C(0x1badb002)
#define LOADER_MAGIC UINT32_C(0x2badb002)

/* Header (section 3.1). Flags 0 to 15 are demands: who does not know one must not boot it. */
struct header {
    uint32_t magic, flags, checksum;
    uint32_t header_at, load_at, load_end, bss_end, entry;
    uint32_t video[4];
};
enum {
    PAGE_ALIGN = 1,
    MEMORY_INFO = 2,
    VIDEO = 4, /* a wish */
    ADDRESSES = 0x10000,
    DEMANDS = 0xffff,
};
enum { SHORT_HEADER = 12, ADDRESS_HEADER = 32 };

/* What the kernel is told (section 3.3). */
struct info {
    uint32_t flags, memory_low, memory_high, boot_device, cmdline, module_count, modules;
    uint32_t symbols[4];
    uint32_t map_size, map, drives_size, drives, config, loader_name, apm;
    uint8_t vbe[16];
    uint64_t frame;
    uint32_t pitch, width, height;
    uint8_t bits, frame_kind;
    uint8_t colours[6]; /* place and size of red, green and blue */
} __attribute__((packed));
G_STATIC_ASSERT(sizeof(struct info) == 116);
enum {
    HAS_MEMORY = 1 << 0,
    HAS_CMDLINE = 1 << 2,
    HAS_MODULES = 1 << 3,
    HAS_MAP = 1 << 6,
    HAS_LOADER_NAME = 1 << 9,
    HAS_FRAME = 1 << 12,
};
enum { FRAME_RGB = 1 };

struct module {
    uint32_t start, end, text, reserved;
};

struct memory {
    uint32_t size; /* of what follows */
    uint64_t base, length;
    uint32_t type;
} __attribute__((packed));

/* --- the header ----------------------------------------------------------------------------- */

/* In the first 8192 bytes, at a multiple of 4. What the file has no room for reads as zero. */
static bool find_header(const uint8_t *head, size_t size, struct header *header, size_t *at)
{
    for (size_t i = 0; i + SHORT_HEADER <= MIN(size, LOAD_HEAD); i += 4) {
        memset(header, 0, sizeof *header);
        memcpy(header, head + i, MIN(sizeof *header, size - i));
        if (header->magic != HEADER_MAGIC ||
            (uint32_t)(header->magic + header->flags + header->checksum) != 0)
            continue;
        *at = i;
        return !(header->flags & ADDRESSES) || i + ADDRESS_HEADER <= MIN(size, LOAD_HEAD);
    }
    return false;
}

bool multiboot_is(const uint8_t *head, size_t size)
{
    struct header header;
    size_t at;
    return find_header(head, size, &header, &at);
}

static bool load_by_header(struct loader *l, const struct header *h, uint64_t header_offset,
                           GError **error)
{
    uint64_t before = (uint64_t)h->header_at - h->load_at;
    bool sane = h->header_at >= h->load_at && before <= header_offset &&
                (!h->load_end || h->load_end > h->load_at);
    if (!sane)
        return hv_fail(error, HV_USAGE, "%s: the addresses in its multiboot header are wrong",
                       l->kernel->file.name);
    uint64_t offset = header_offset - before;
    uint64_t size = h->load_end ? h->load_end - h->load_at : l->size - offset;
    uint64_t memory = h->bss_end > h->load_at ? h->bss_end - h->load_at : 0;
    if (size > l->size - offset)
        return hv_fail(error, HV_USAGE, "%s is cut off: its multiboot header wants more of it",
                       l->kernel->file.name);
    l->entry->ip = h->entry;
    return load_take(l, h->load_at, MAX(size, memory), error) &&
           load_file(l, &l->kernel->file, offset, h->load_at, size, error);
}

/* The entry is a physical address; of kernels that have a virtual one there, it is translated. */
static bool load_by_elf(struct loader *l, GError **error)
{
    g_autofree struct elf *elf = g_new0(struct elf, 1);
    if (!elf_read(l, elf, error) || !elf_load(l, elf, error))
        return false;
    l->entry->ip = elf->entry;
    for (unsigned i = 0; i < elf->count; i++) {
        const struct elf_segment *s = &elf->segments[i];
        if (s->type == ELF_LOAD && elf->entry - s->virtual_at < s->size) {
            l->entry->ip = elf->entry - s->virtual_at + s->at;
            break;
        }
    }
    return true;
}

/* --- what it is told ------------------------------------------------------------------------ */

static bool put_text(struct loader *l, const char *text, uint32_t *where, GError **error)
{
    uint64_t at;
    if (!load_low(l, text, strlen(text) + 1, &at, error))
        return false;
    *where = (uint32_t)at;
    return true;
}

/* On pages of their own, from the kernel's end up: where other loaders put them too. */
static bool put_modules(struct loader *l, struct info *info, uint64_t kernel_end, GError **error)
{
    enum { PAGE = 4096 };
    unsigned count = l->kernel->initrd_count;
    g_autofree struct module *modules = g_new0(struct module, count + 1);
    uint64_t from = MAX(kernel_end, LEGACY_END), list, end = guest_low_ram(l->guest);
    for (unsigned i = 0; i < count; i++) {
        const struct boot_file *file = &l->kernel->initrds[i];
        uint64_t size, at;
        struct range between = { from, end > from ? end - from : 0 };
        if (!load_size(file, &size, error) ||
            !load_place(l, size, PAGE, between, false, file->name, &at, error) ||
            !load_file(l, file, 0, at, size, error) ||
            !put_text(l, file->text ? file->text : "", &modules[i].text, error))
            return false;
        modules[i].start = (uint32_t)at;
        modules[i].end = (uint32_t)(at + size);
        from = at + size;
    }
    info->module_count = count;
    info->flags |= HAS_MODULES;
    if (!load_low(l, modules, MAX(count, 1) * sizeof *modules, &list, error))
        return false;
    info->modules = (uint32_t)list;
    return true;
}

static bool put_memory(struct loader *l, struct info *info, GError **error)
{
    struct memory map[MAP_MAX];
    uint64_t at;
    for (unsigned i = 0; i < l->map_count; i++) {
        const struct map_entry *e = &l->map[i];
        map[i] = (struct memory){ sizeof map[i] - sizeof map[i].size, e->base, e->size, e->type };
        if (e->type == MAP_RAM && e->base == 0)
            info->memory_low = (uint32_t)(e->size / KIB);
        if (e->type == MAP_RAM && e->base == LEGACY_END)
            info->memory_high = (uint32_t)(e->size / KIB);
    }
    if (!load_low(l, map, l->map_count * sizeof *map, &at, error))
        return false;
    info->map = (uint32_t)at;
    info->map_size = (uint32_t)(l->map_count * sizeof *map);
    info->flags |= HAS_MEMORY | HAS_MAP;
    return true;
}

static void put_frame(struct info *info, const struct boot_screen *screen)
{
    static const uint8_t colours[6] = { 16, 8, 8, 8, 0, 8 };
    if (!screen->size)
        return;
    info->frame = screen->base;
    info->pitch = screen->stride;
    info->width = screen->width;
    info->height = screen->height;
    info->bits = 32;
    info->frame_kind = FRAME_RGB;
    memcpy(info->colours, colours, sizeof colours);
    info->flags |= HAS_FRAME;
}

static bool put_info(struct loader *l, uint64_t kernel_end, GError **error)
{
    const struct boot_kernel *k = l->kernel;
    struct info info = { .flags = HAS_CMDLINE | HAS_LOADER_NAME };
    g_autofree char *cmdline =
        g_strconcat(k->file.text ? k->file.text : "", k->append ? " " : "", k->append, NULL);
    put_frame(&info, &k->screen);
    uint32_t cmdline_at, loader_at;
    if (!put_modules(l, &info, kernel_end, error) || !put_memory(l, &info, error) ||
        !put_text(l, cmdline, &cmdline_at, error) || !put_text(l, "hv", &loader_at, error))
        return false;
    info.cmdline = cmdline_at;
    info.loader_name = loader_at;
    return load_low(l, &info, sizeof info, &l->entry->bx, error);
}

bool multiboot_load(struct loader *l, const uint8_t *head, size_t size, GError **error)
{
    struct header header;
    size_t at;
    guint first = l->taken->len;
    const char *name = l->kernel->file.name;
    if (!find_header(head, size, &header, &at))
        return hv_fail(error, HV_USAGE, "%s has no multiboot header in its first %d bytes", name,
                       LOAD_HEAD);
    uint32_t unknown = header.flags & DEMANDS & ~(uint32_t)(PAGE_ALIGN | MEMORY_INFO | VIDEO);
    if (unknown)
        return hv_fail(error, HV_USAGE,
                       "%s: its multiboot header demands what hv does not know (flags %#x)", name,
                       unknown);
    bool ok =
        header.flags & ADDRESSES ? load_by_header(l, &header, at, error) : load_by_elf(l, error);
    if (!ok)
        return false;
    uint64_t end = 0;
    for (guint i = first; i < l->taken->len; i++) {
        const struct range *r = &g_array_index(l->taken, struct range, i);
        end = MAX(end, r->base < HIGH_RAM_BASE ? r->base + r->size : 0);
    }
    l->entry->mode = ENTRY_PROTECTED;
    l->entry->ax = LOADER_MAGIC;
    return load_gdt(l, false, error) && put_info(l, end, error);
}
