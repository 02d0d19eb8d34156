/* Linux's own boot protocols (Linux Documentation/arch/x86/boot.rst and zero-page.rst): bzImages,
 * and ELF kernels that are entered as such. All ways but the 16-bit one skip the kernel's
 * real-mode code and hand it its result, struct boot_params. */
#include "boot/load.h"

#include "base/error.h"

#include <string.h>

/* The setup header: offsets in the file, and in struct boot_params. */
enum {
    SETUP_SECTS = 0x1f1,
    SYSSIZE = 0x1f4,
    BOOT_FLAG = 0x1fe,
    JUMP = 0x201, /* how far behind 0x202 the header goes */
    MAGIC = 0x202,
    VERSION = 0x206,
    LOADER_TYPE = 0x210,
    LOADFLAGS = 0x211,
    CODE32_START = 0x214,
    RAMDISK_IMAGE = 0x218,
    RAMDISK_SIZE = 0x21c,
    HEAP_END = 0x224,
    CMDLINE = 0x228,
    INITRD_MAX = 0x22c,
    ALIGNMENT = 0x230,
    RELOCATABLE = 0x234,
    XLOADFLAGS = 0x236,
    CMDLINE_SIZE = 0x238,
    PREFERRED = 0x258,
    INIT_SIZE = 0x260,
    HEADER_START = SETUP_SECTS,
    HEADER_MAX = 0x290, /* here something else begins in struct boot_params */
};
/* The rest of struct boot_params. */
enum {
    SCREEN = 0x000, /* struct screen_info */
    RSDP = 0x070,
    E820_COUNT = 0x1e8,
    E820 = 0x2d0,
    PARAMS_SIZE = 4096,
};
enum { LOADED_HIGH = 1, KERNEL_64 = 1 /* of xloadflags */, LOADER_UNKNOWN = 0xff };
enum { SECTOR = 512, ENTRY_64 = 0x200, OLD_SETUP_SECTS = 4 };
/* What is so where the header is too old to say. */
enum { OLD_CMDLINE_SIZE = 255, OLD_INITRD_MAX = 0x37ffffff, CMDLINE_MAX = 65536 };
/* Protocol versions and what they brought. */
enum {
    V_HEAP = 0x201,
    V_CMDLINE_POINTER = 0x202,
    V_INITRD_MAX = 0x203,
    V_SYSSIZE_32 = 0x204,
    V_RELOCATABLE = 0x205,
    V_CMDLINE_SIZE = 0x206,
    V_PREFERRED = 0x20a,
    V_XLOADFLAGS = 0x20c,
    V_LATEST = 0x20f,
};

/* The header, judged. */
struct setup {
    const uint8_t *head; /* of the file */
    unsigned version;
    uint64_t setup_size, code_size; /* the file's two parts: real mode, protected mode */
    uint64_t load, run_size;        /* where the latter is to lie; from there it uses so much */
    uint64_t initrd_max;
    size_t cmdline_max; /* without the NUL */
    bool entry_64, entry_32;
};

static uint64_t get(const uint8_t *at, unsigned offset, unsigned width)
{
    uint64_t value = 0;
    memcpy(&value, at + offset, width);
    return value;
}

static void put(uint8_t *at, unsigned offset, unsigned width, uint64_t value)
{
    memcpy(at + offset, &value, width);
}

bool linux_is(const uint8_t *head, size_t size)
{
    return size >= HEADER_MAX && get(head, BOOT_FLAG, 2) == 0xaa55 &&
           !memcmp(head + MAGIC, "HdrS", 4);
}

/* --- the header ----------------------------------------------------------------------------- */

static bool read_sizes(struct loader *l, struct setup *s, GError **error)
{
    uint64_t sectors = s->head[SETUP_SECTS] ? s->head[SETUP_SECTS] : OLD_SETUP_SECTS;
    s->setup_size = (sectors + 1) * SECTOR;
    if (l->size <= s->setup_size)
        return hv_fail(error, HV_USAGE,
                       "%s is cut off: its setup code has %" G_GUINT64_FORMAT
                       " bytes, the file %" G_GUINT64_FORMAT,
                       l->kernel->file.name, s->setup_size, l->size);
    uint64_t rest = l->size - s->setup_size;
    s->code_size = rest;
    if (s->version >= V_SYSSIZE_32) {
        uint64_t wanted = get(s->head, SYSSIZE, 4) * 16;
        if (wanted > rest + 15)
            return hv_fail(error, HV_USAGE,
                           "%s is cut off: %" G_GUINT64_FORMAT " KiB of its kernel are missing",
                           l->kernel->file.name, (wanted - rest + KIB - 1) / KIB);
        s->code_size = wanted ? MIN(wanted, rest) : rest;
    }
    return true;
}

/* Where the kernel prefers to be: there it need not move itself. */
static bool read_place(struct loader *l, struct setup *s, GError **error)
{
    uint64_t code32 = get(s->head, CODE32_START, 4);
    s->load = LEGACY_END;
    s->run_size = s->code_size;
    if (s->version >= V_PREFERRED) {
        uint64_t preferred = get(s->head, PREFERRED, 8), init = get(s->head, INIT_SIZE, 4);
        uint64_t align = get(s->head, ALIGNMENT, 4);
        if (s->head[RELOCATABLE]) {
            if (!align || align & (align - 1) || preferred % align || preferred < LEGACY_END)
                return hv_fail(error, HV_USAGE,
                               "%s: its header asks for an address that it cannot run at",
                               l->kernel->file.name);
            s->load = preferred;
        }
        s->run_size = MAX(s->code_size, init);
    }
    bool high = s->head[LOADFLAGS] & LOADED_HIGH;
    s->entry_64 = high && s->version >= V_XLOADFLAGS && get(s->head, XLOADFLAGS, 2) & KERNEL_64;
    /* Images that have no 32-bit code (boot loaders dressed as kernels) say so by no address. */
    s->entry_32 = high && s->version >= V_CMDLINE_POINTER && code32 >= LEGACY_END;
    return true;
}

static bool read_header(struct loader *l, struct setup *s, GError **error)
{
    s->version = (unsigned)get(s->head, VERSION, 2);
    s->initrd_max =
        s->version >= V_INITRD_MAX ? get(s->head, INITRD_MAX, 4) : (uint64_t)OLD_INITRD_MAX;
    uint64_t most =
        s->version >= V_CMDLINE_SIZE ? get(s->head, CMDLINE_SIZE, 4) : (uint64_t)OLD_CMDLINE_SIZE;
    s->cmdline_max = (size_t)MIN(most, CMDLINE_MAX - 1);
    return read_sizes(l, s, error) && read_place(l, s, error);
}

/* --- struct boot_params --------------------------------------------------------------------- */

/* A linear frame buffer as VESA has it: 32 bits, 8 for each colour. */
static void put_screen(uint8_t *params, const struct boot_screen *screen)
{
    enum { VIDEO_VLFB = 0x23, SIZE_UNIT = 64 << 10 };
    uint8_t *info = params + SCREEN;
    if (!screen->size)
        return;
    put(info, 0x0f, 1, VIDEO_VLFB);
    put(info, 0x12, 2, screen->width);
    put(info, 0x14, 2, screen->height);
    put(info, 0x16, 2, 32);
    put(info, 0x18, 4, screen->base);
    put(info, 0x1c, 4, screen->size / SIZE_UNIT);
    put(info, 0x24, 2, screen->stride);
    static const uint8_t colours[8] = { 8, 16, 8, 8, 8, 0, 8, 24 }; /* size and place of each */
    memcpy(info + 0x26, colours, sizeof colours);
}

static void put_map(const struct loader *l, uint8_t *params)
{
    put(params, E820_COUNT, 1, l->map_count);
    for (unsigned i = 0; i < l->map_count; i++) {
        put(params, E820 + 20 * i, 8, l->map[i].base);
        put(params, E820 + 20 * i + 8, 8, l->map[i].size);
        put(params, E820 + 20 * i + 16, 4, l->map[i].type);
    }
}

static bool put_cmdline(struct loader *l, uint8_t *params, size_t most, GError **error)
{
    const char *text = l->kernel->append ? l->kernel->append : "";
    uint64_t at;
    if (strlen(text) > most)
        return hv_fail(error, HV_USAGE,
                       "--append: %zu bytes are too many: this kernel takes at most %zu",
                       strlen(text), most);
    if (!load_low(l, text, strlen(text) + 1, &at, error))
        return false;
    put(params, CMDLINE, 4, at);
    return true;
}

/* All but the header, and how the kernel is entered with it. */
static bool finish(struct loader *l, uint8_t *params, const struct range *initrd, bool wide,
                   GError **error)
{
    params[LOADER_TYPE] = LOADER_UNKNOWN;
    put(params, RAMDISK_IMAGE, 4, initrd->base);
    put(params, RAMDISK_SIZE, 4, initrd->size);
    put(params, RSDP, 8, l->rsdp);
    put_map(l, params);
    put_screen(params, &l->kernel->screen);
    l->entry->mode = wide ? ENTRY_LONG : ENTRY_PROTECTED;
    return load_gdt(l, wide, error) && (!wide || load_page_tables(l, error)) &&
           load_low(l, params, PARAMS_SIZE, &l->entry->si, error);
}

/* --- bzImage -------------------------------------------------------------------------------- */

/* The 16-bit entry: the real-mode code runs where it always did, with heap and command line in its
 * segment. */
static bool load_16(struct loader *l, const struct setup *s, GError **error)
{
    enum {
        BASE = 0x90000,
        TEXT = 0x9800, /* in the segment: the command line, up to the EBDA */
        TEXT_END = 0xfc00,
        HEAP_GAP = 0x200,
        CAN_USE_HEAP = 0x80,
        OLD_CMDLINE_MAGIC = 0x20,
        OLD_CMDLINE = 0x22,
    };
    const struct boot_kernel *k = l->kernel;
    const char *text = k->append ? k->append : "";
    uint64_t low = s->head[LOADFLAGS] & LOADED_HIGH ? LEGACY_END : 0x10000;
    struct range initrd;
    if (s->setup_size > TEXT - HEAP_GAP || strlen(text) > MIN(s->cmdline_max, TEXT_END - TEXT - 1))
        return hv_fail(error, HV_USAGE, "%s: its setup code or --append is too long for 16 bits",
                       k->file.name);
    if (!load_take(l, BASE, TEXT_END, error) || !load_take(l, low, s->code_size, error) ||
        !load_file(l, &k->file, 0, BASE, s->setup_size, error) ||
        !load_file(l, &k->file, s->setup_size, low, s->code_size, error) ||
        !load_initrds(l, s->initrd_max, &initrd, error))
        return false;
    uint8_t *setup = load_at(l, BASE, TEXT_END);
    memcpy(setup, s->head, MIN(s->setup_size, (uint64_t)LOAD_HEAD)); /* what was judged */
    strcpy((char *)setup + TEXT, text);
    setup[LOADER_TYPE] = LOADER_UNKNOWN;
    put(setup, RAMDISK_IMAGE, 4, initrd.base);
    put(setup, RAMDISK_SIZE, 4, initrd.size);
    if (s->version >= V_HEAP) {
        put(setup, HEAP_END, 2, TEXT - HEAP_GAP);
        setup[LOADFLAGS] |= CAN_USE_HEAP;
    }
    if (s->version >= V_CMDLINE_POINTER) {
        put(setup, CMDLINE, 4, BASE + TEXT);
    } else {
        put(setup, OLD_CMDLINE_MAGIC, 2, 0xa33f);
        put(setup, OLD_CMDLINE, 2, TEXT);
    }
    real_services(l);
    *l->entry = (struct entry){
        .mode = ENTRY_REAL,
        .code = (BASE + SECTOR) >> 4,
        .data = BASE >> 4,
        .sp = TEXT - HEAP_GAP,
    };
    return true;
}

bool linux_load(struct loader *l, const uint8_t *head, size_t size, GError **error)
{
    struct setup s = { .head = head };
    struct range initrd;
    uint8_t params[PARAMS_SIZE] = { 0 };
    (void)size; /* linux_is has seen that there is a header */
    if (!read_header(l, &s, error))
        return false;
    if (!s.entry_64 && !s.entry_32)
        return load_16(l, &s, error);
    if (!load_take(l, s.load, s.run_size, error) ||
        !load_file(l, &l->kernel->file, s.setup_size, s.load, s.code_size, error) ||
        !load_initrds(l, s.initrd_max, &initrd, error))
        return false;
    size_t end = MIN((size_t)MAGIC + head[JUMP], (size_t)HEADER_MAX);
    memcpy(params + HEADER_START, head + HEADER_START, end - HEADER_START);
    params[LOADFLAGS] = LOADED_HIGH;
    put(params, CODE32_START, 4, s.load);
    l->entry->ip = s.load + (s.entry_64 ? ENTRY_64 : 0);
    return put_cmdline(l, params, s.cmdline_max, error) &&
           finish(l, params, &initrd, s.entry_64, error);
}

/* --- ELF ------------------------------------------------------------------------------------ */

/* A vmlinux: the entry is that of the 64-bit or 32-bit protocol, and there is no header to copy. */
bool linux_load_elf(struct loader *l, const struct elf *elf, GError **error)
{
    enum { CMDLINE_LONGEST = 2047 }; /* COMMAND_LINE_SIZE of x86 */
    struct range initrd;
    uint8_t params[PARAMS_SIZE] = { 0 };
    if (!elf_load(l, elf, error) || !load_initrds(l, OLD_INITRD_MAX, &initrd, error))
        return false;
    put(params, BOOT_FLAG, 2, 0xaa55);
    memcpy(params + MAGIC, "HdrS", 4);
    put(params, VERSION, 2, V_LATEST);
    params[LOADFLAGS] = LOADED_HIGH;
    put(params, ALIGNMENT, 4, 2 * MIB);
    l->entry->ip = elf->entry;
    return put_cmdline(l, params, CMDLINE_LONGEST, error) &&
           finish(l, params, &initrd, elf->wide, error);
}
