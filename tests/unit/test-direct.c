/* Kernels started without firmware: files built here byte by byte, loaded into RAM, and looked at
 * as the kernel would see it; and all the ways in which a file can lie. */
#include "boot/assign.h"
#include "boot/boot.h"
#include "boot/direct.h"
#include "bus/pci.h"
#include "rig/rig.h"

#include "base/error.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { RAM = 64 << 20, FILE_MAX = 96 << 10 };

struct setup {
    struct guest *guest;
    struct fw_cfg *fw;
    uint8_t data[FILE_MAX]; /* of the kernel's file */
    size_t size;
    struct boot_file initrds[3];
    struct boot_kernel kernel;
    struct entry entry;
};

static int file_with(const void *data, size_t size)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(write(fd, data, size), ==, (ssize_t)size);
    return fd;
}

static struct setup *setup_new(uint64_t ram)
{
    struct setup *s = g_new0(struct setup, 1);
    s->guest = guest_new(ram, NULL);
    s->fw = fw_cfg_new();
    const struct boot_config config = {
        .guest = s->guest, .cpus = 2, .serials = 1, .ecam = BOOT_ECAM_SEABIOS, .version = "1"
    };
    g_assert_true(boot_tables(s->fw, &config, NULL));
    s->kernel = (struct boot_kernel){
        .file = { .fd = -1, .name = "kernel", .text = "kernel" },
        .initrds = s->initrds,
        .append = "quiet root=/dev/vda",
        .tables = s->fw,
        .ecam = BOOT_ECAM_SEABIOS,
    };
    return s;
}

static void setup_free(struct setup *s)
{
    for (unsigned i = 0; i < s->kernel.initrd_count; i++)
        close(s->initrds[i].fd);
    fw_cfg_free(s->fw);
    guest_free(s->guest);
    g_free(s);
}

static void add_initrd(struct setup *s, const char *data, const char *text)
{
    s->initrds[s->kernel.initrd_count++] =
        (struct boot_file){ file_with(data, strlen(data)), "initrd", text };
}

static bool load(struct setup *s, GError **error)
{
    s->kernel.file.fd = file_with(s->data, s->size);
    bool ok = boot_direct(s->guest, &s->kernel, &s->entry, error);
    close(s->kernel.file.fd);
    return ok;
}

/* Loading fails with that status, and a message that has this. */
static void refused(struct setup *s, int status, const char *message)
{
    g_autoptr(GError) error = NULL;
    g_assert_false(load(s, &error));
    g_assert_error(error, HV_ERROR, status);
    if (!strstr(error->message, message))
        g_error("\"%s\" has no \"%s\"", error->message, message);
    guest_ram_clear(s->guest);
}

static void put(struct setup *s, size_t at, unsigned width, uint64_t value)
{
    memcpy(s->data + at, &value, width);
}

static const uint8_t *ram(struct setup *s, uint64_t at, uint64_t size)
{
    const uint8_t *host = guest_ram_host(s->guest, GPA(at), size);
    g_assert_nonnull(host);
    return host;
}

static uint64_t get(struct setup *s, uint64_t at, unsigned width)
{
    uint64_t value = 0;
    memcpy(&value, ram(s, at, width), width);
    return value;
}

static const char *text_at(struct setup *s, uint64_t at)
{
    return (const char *)ram(s, at, 1);
}

static uint8_t sum(const uint8_t *bytes, size_t size)
{
    uint8_t total = 0;
    while (size--)
        total = (uint8_t)(total + *bytes++);
    return total;
}

/* --- bzImage -------------------------------------------------------------------------------- */

enum { SETUP = 1024, CODE = 8192, PREFERRED = 4 << 20, INIT_SIZE = 2 << 20 };

/* A header of protocol 2.15 with a 64-bit entry, and code that is a pattern. */
static void bzimage(struct setup *s)
{
    memset(s->data, 0, sizeof s->data);
    s->size = SETUP + CODE;
    put(s, 0x1f1, 1, 1);
    put(s, 0x1f4, 4, CODE / 16);
    put(s, 0x1fe, 2, 0xaa55);
    put(s, 0x200, 2, 0x66eb);
    memcpy(s->data + 0x202, "HdrS", 4);
    put(s, 0x206, 2, 0x20f);
    put(s, 0x211, 1, 1);
    put(s, 0x214, 4, 0x100000);
    put(s, 0x22c, 4, 0x7fffffff);
    put(s, 0x230, 4, 0x200000);
    put(s, 0x234, 1, 1);
    put(s, 0x236, 2, 1);
    put(s, 0x238, 4, 2047);
    put(s, 0x258, 8, PREFERRED);
    put(s, 0x260, 4, INIT_SIZE);
    for (unsigned i = 0; i < CODE; i++)
        s->data[SETUP + i] = (uint8_t)(i * 7);
}

static void bzimage_64(void)
{
    struct setup *s = setup_new(RAM);
    bzimage(s);
    add_initrd(s, "first", NULL);
    add_initrd(s, "second", NULL);
    g_assert_true(load(s, NULL));
    g_assert_cmpint(s->entry.mode, ==, ENTRY_LONG);
    g_assert_cmphex(s->entry.ip, ==, PREFERRED + 0x200);
    g_assert_cmpmem(ram(s, PREFERRED, CODE), CODE, s->data + SETUP, CODE);
    uint64_t params = s->entry.si;
    g_assert_cmpmem(ram(s, params + 0x202, 4), 4, "HdrS", 4);
    g_assert_cmphex(get(s, params + 0x210, 1), ==, 0xff);
    g_assert_cmphex(get(s, params + 0x214, 4), ==, PREFERRED);
    g_assert_cmpstr(text_at(s, get(s, params + 0x228, 4)), ==, "quiet root=/dev/vda");
    /* The second initrd begins at a multiple of 4. */
    uint64_t initrd = get(s, params + 0x218, 4);
    g_assert_cmpuint(get(s, params + 0x21c, 4), ==, 14);
    g_assert_cmpmem(ram(s, initrd, 14), 14, "first\0\0\0second", 14);
    g_assert_cmpuint(initrd % 4096, ==, 0);
    /* The page tables show 4 GiB one to one; selectors are those of the protocol. */
    uint64_t pdpt = get(s, s->entry.cr3, 8) & ~UINT64_C(0xfff);
    uint64_t last = get(s, pdpt + 3 * 8, 8) & ~UINT64_C(0xfff);
    g_assert_cmphex(get(s, last + 511 * 8, 8), ==, 0xffe00083);
    g_assert_cmphex(s->entry.code, ==, 0x10);
    g_assert_cmphex(get(s, s->entry.gdt + 0x10, 8), ==, 0x00af9b000000ffff);
    g_assert_cmphex(get(s, s->entry.gdt + 0x18, 8), ==, 0x00cf93000000ffff);
    setup_free(s);
}

static void bzimage_32(void)
{
    struct setup *s = setup_new(RAM);
    bzimage(s);
    put(s, 0x236, 2, 0);
    g_assert_true(load(s, NULL));
    g_assert_cmpint(s->entry.mode, ==, ENTRY_PROTECTED);
    g_assert_cmphex(s->entry.ip, ==, PREFERRED);
    g_assert_cmphex(get(s, s->entry.gdt + 0x10, 8), ==, 0x00cf9b000000ffff);
    g_assert_cmpuint(get(s, s->entry.si + 0x21c, 4), ==, 0); /* no initrd */
    guest_ram_clear(s->guest);
    put(s, 0x234, 1, 0); /* not relocatable: where it has always been */
    g_assert_true(load(s, NULL));
    g_assert_cmphex(s->entry.ip, ==, 0x100000);
    g_assert_cmphex(get(s, s->entry.si + 0x214, 4), ==, 0x100000);
    guest_ram_clear(s->guest);
    put(s, 0x206, 2, 0x203); /* a header without what came later */
    put(s, 0x22c, 4, 0x1ffffff);
    add_initrd(s, "low", NULL);
    g_assert_true(load(s, NULL));
    g_assert_cmphex(get(s, s->entry.si + 0x218, 4), <, 0x2000000);
    setup_free(s);
}

/* Neither 64 nor 32 bits: real mode at 0x90000, and a BIOS that answers in the F segment. */
static void bzimage_16(void)
{
    struct setup *s = setup_new(RAM);
    bzimage(s);
    put(s, 0x206, 2, 0x201);
    add_initrd(s, "initrd", NULL);
    g_assert_true(load(s, NULL));
    g_assert_cmpint(s->entry.mode, ==, ENTRY_REAL);
    g_assert_cmphex(s->entry.code, ==, 0x9020);
    g_assert_cmphex(s->entry.data, ==, 0x9000);
    g_assert_cmphex(s->entry.ip, ==, 0);
    g_assert_cmpmem(ram(s, 0x100000, CODE), CODE, s->data + SETUP, CODE);
    g_assert_cmphex(get(s, 0x90020, 2), ==, 0xa33f); /* the old way */
    g_assert_cmpstr(text_at(s, 0x90000 + get(s, 0x90022, 2)), ==, "quiet root=/dev/vda");
    g_assert_cmphex(get(s, 0x90211, 1), ==, 0x81); /* there is a heap */
    g_assert_cmpmem(ram(s, get(s, 0x90218, 4), 6), 6, "initrd", 6);
    g_assert_cmphex(get(s, 0x15 * 4 + 2, 2), ==, 0xf000);
    g_assert_cmphex(get(s, 0x15 * 4, 2), !=, get(s, 0x03 * 4, 2));
    g_assert_cmphex(get(s, 0xf0000 + get(s, 0x03 * 4, 2), 1), ==, 0xcf); /* iret */
    guest_ram_clear(s->guest);
    put(s, 0x206, 2, 0x202); /* the new way */
    put(s, 0x211, 1, 0);     /* a zImage */
    g_assert_true(load(s, NULL));
    g_assert_cmpint(s->entry.mode, ==, ENTRY_REAL);
    g_assert_cmpmem(ram(s, 0x10000, CODE), CODE, s->data + SETUP, CODE);
    g_assert_cmpstr(text_at(s, get(s, 0x90228, 4)), ==, "quiet root=/dev/vda");
    guest_ram_clear(s->guest);
    put(s, 0x1f1, 1, 127); /* its setup code would reach the EBDA */
    s->size = sizeof s->data;
    refused(s, HV_USAGE, "too long for 16 bits");
    setup_free(s);
}

static void memory_map(void)
{
    struct setup *s = setup_new(3 * GIB);
    bzimage(s);
    g_assert_true(load(s, NULL));
    uint64_t params = s->entry.si, count = get(s, params + 0x1e8, 1), ram_size = 0, top = 0;
    for (unsigned i = 0; i < count; i++) {
        uint64_t at = params + 0x2d0 + 20 * i, base = get(s, at, 8), size = get(s, at + 8, 8);
        g_assert_cmphex(base, >=, top); /* in order, and apart */
        top = base + size;
        if (get(s, at + 16, 4) == 1)
            ram_size += size;
        else
            g_assert_cmphex(get(s, at + 16, 4), ==, 2);
        g_assert_false(s->entry.si >= base && s->entry.si < top && get(s, at + 16, 4) != 1);
    }
    g_assert_cmphex(top, ==, 5 * GIB);
    /* All of it but the hole below 1 MiB and what the tables take. */
    g_assert_cmphex(ram_size, <, 3 * GIB - 0x60000);
    g_assert_cmphex(ram_size, >, 3 * GIB - 0x60000 - 0x10000);
    setup_free(s);
}

static void tables(void)
{
    struct setup *s = setup_new(RAM);
    bzimage(s);
    g_assert_true(load(s, NULL));
    uint64_t rsdp = get(s, s->entry.si + 0x70, 8);
    g_assert_cmphex(rsdp, >=, 0xe0000);
    g_assert_cmphex(rsdp, <, 0x100000);
    g_assert_cmpuint(rsdp % 16, ==, 0);
    g_assert_cmpmem(ram(s, rsdp, 8), 8, "RSD PTR ", 8);
    g_assert_cmpuint(sum(ram(s, rsdp, 36), 36), ==, 0);
    uint64_t xsdt = get(s, rsdp + 24, 8), length = get(s, xsdt + 4, 4);
    g_assert_cmpuint(sum(ram(s, xsdt, length), length), ==, 0);
    for (uint64_t at = xsdt + 36; at < xsdt + length; at += 8) {
        uint64_t table = get(s, at, 8), size = get(s, table + 4, 4);
        g_assert_cmpuint(sum(ram(s, table, size), size), ==, 0);
    }
    uint64_t anchor = 0xf0000;
    while (memcmp(ram(s, anchor, 4), "_SM_", 4))
        anchor += 16;
    g_assert_cmpuint(sum(ram(s, anchor, 31), 31), ==, 0);
    g_assert_cmpuint(sum(ram(s, anchor + 16, 15), 15), ==, 0);
    uint64_t smbios = get(s, anchor + 24, 4);
    g_assert_cmpmem(ram(s, smbios, 1), 1, "\0", 1); /* the first structure: BIOS information */
    g_assert_cmphex(get(s, 0x413, 2), ==, 639);
    g_assert_cmphex(get(s, 0x40e, 2), ==, 0x9fc0);
    setup_free(s);
}

static void screen(void)
{
    struct setup *s = setup_new(RAM);
    bzimage(s);
    s->kernel.screen = (struct boot_screen){ 0xc0000000, 16 * MIB, 1024, 768, 4096 };
    g_assert_true(load(s, NULL));
    uint64_t info = s->entry.si;
    g_assert_cmphex(get(s, info + 0x0f, 1), ==, 0x23);
    g_assert_cmphex(get(s, info + 0x18, 4), ==, 0xc0000000);
    g_assert_cmpuint(get(s, info + 0x12, 2), ==, 1024);
    g_assert_cmpuint(get(s, info + 0x24, 2), ==, 4096);
    g_assert_cmpuint(get(s, info + 0x1c, 4), ==, 16 * MIB / 65536);
    setup_free(s);
}

static void bzimage_lies(void)
{
    static const struct {
        uint16_t at;
        uint8_t width;
        uint64_t value;
        const char *message;
    } lies[] = {
        { 0x1f1, 1, 255, "cut off" },            /* setup code */
        { 0x1f4, 4, UINT32_MAX, "cut off" },     /* the kernel's size */
        { 0x1f4, 4, CODE / 16 + 2, "cut off" },  /* the kernel's size */
        { 0x230, 4, 0, "cannot run" },           /* alignment */
        { 0x230, 4, 3, "cannot run" },           /* alignment */
        { 0x258, 8, 0, "cannot run" },           /* preferred address */
        { 0x258, 8, UINT64_MAX, "cannot run" },  /* preferred address */
        { 0x258, 8, 0x200001, "cannot run" },    /* preferred address */
        { 0x258, 8, RAM, "no such RAM" },        /* preferred address */
        { 0x258, 8, INT64_MIN, "no such RAM" },  /* preferred address */
        { 0x258, 8, 0x80000000, "no such RAM" }, /* preferred address */
        { 0x260, 4, UINT32_MAX, "no such RAM" }, /* the memory it uses */
        { 0x238, 4, 3, "at most 3" },            /* the longest command line */
        { 0x22c, 4, 0, "room for the initrd" },  /* the initrd's highest address */
        { 0x22c, 4, 0xfffff, "room for the initrd" },
    };
    struct setup *s = setup_new(RAM);
    add_initrd(s, "x", NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(lies); i++) {
        bzimage(s);
        put(s, lies[i].at, lies[i].width, lies[i].value);
        refused(s, HV_USAGE, lies[i].message);
    }
    bzimage(s);
    for (s->size = 1; s->size < SETUP + CODE; s->size += 97)
        refused(s, HV_USAGE, "kernel");
    setup_free(s);
}

static void no_room(void)
{
    struct setup *s = setup_new(8 * MIB);
    g_autofree char *large = g_malloc(4 * MIB);
    memset(large, 'x', 4 * MIB - 1);
    large[4 * MIB - 1] = 0;
    bzimage(s);
    add_initrd(s, large, NULL);
    refused(s, HV_USAGE, "no room for the initrd");
    add_initrd(s, large, NULL);
    add_initrd(s, large, NULL);
    refused(s, HV_USAGE, "more --memory");
    setup_free(s);
    s = setup_new(MIB);
    bzimage(s);
    refused(s, HV_USAGE, "2 MiB");
    setup_free(s);
}

static void no_kernel(void)
{
    struct setup *s = setup_new(RAM);
    memset(s->data, 'x', 4096);
    s->size = 4096;
    refused(s, HV_USAGE, "no kernel that hv can start");
    s->kernel.multiboot = true;
    refused(s, HV_USAGE, "no multiboot header");
    s->size = 0;
    refused(s, HV_USAGE, "is empty");
    setup_free(s);
}

/* --- ELF ------------------------------------------------------------------------------------ */

enum { TEXT = 0x1000, TEXT_SIZE = 0x800, NOTES = 0x200, AT = 0x200000 };

/* A file with one segment to load and, perhaps, the PVH note. */
static void elf64(struct setup *s, bool pvh)
{
    memset(s->data, 0, sizeof s->data);
    s->size = TEXT + TEXT_SIZE;
    memcpy(s->data, "\177ELF\2\1\1", 7);
    put(s, 16, 2, 2);
    put(s, 18, 2, 62);
    put(s, 24, 8, AT + 0x100); /* e_entry */
    put(s, 32, 8, 64);         /* e_phoff */
    put(s, 54, 2, 56);
    put(s, 56, 2, 2);
    put(s, 64, 4, 1); /* PT_LOAD */
    put(s, 72, 8, TEXT);
    put(s, 80, 8, 0xffffffff80000000 + AT);
    put(s, 88, 8, AT);
    put(s, 96, 8, TEXT_SIZE);
    put(s, 104, 8, 2 * TEXT_SIZE);
    put(s, 120, 4, pvh ? 4 : 0); /* PT_NOTE */
    put(s, 128, 8, NOTES);
    put(s, 152, 8, 40);
    put(s, 160, 8, 40);
    put(s, 168, 8, 4);
    put(s, NOTES, 4, 4); /* another note first */
    put(s, NOTES + 4, 4, 4);
    put(s, NOTES + 8, 4, 1);
    memcpy(s->data + NOTES + 12, "GNU", 4);
    put(s, NOTES + 20, 4, 4);
    put(s, NOTES + 24, 4, 4);
    put(s, NOTES + 28, 4, 18);
    memcpy(s->data + NOTES + 32, "Xen", 4);
    put(s, NOTES + 36, 4, AT + 0x200);
    memset(s->data + TEXT, 0x90, TEXT_SIZE);
}

static void pvh(void)
{
    struct setup *s = setup_new(RAM);
    elf64(s, true);
    add_initrd(s, "the initrd", NULL);
    g_assert_true(load(s, NULL));
    g_assert_cmpint(s->entry.mode, ==, ENTRY_PROTECTED);
    g_assert_cmphex(s->entry.ip, ==, AT + 0x200);
    g_assert_cmpmem(ram(s, AT, TEXT_SIZE), TEXT_SIZE, s->data + TEXT, TEXT_SIZE);
    g_assert_cmphex(get(s, AT + TEXT_SIZE, 8), ==, 0);
    uint64_t info = s->entry.bx, module = get(s, info + 16, 8);
    g_assert_cmphex(get(s, info, 4), ==, 0x336ec578);
    g_assert_cmpuint(get(s, info + 4, 4), ==, 1);
    g_assert_cmpuint(get(s, info + 12, 4), ==, 1);
    g_assert_cmpuint(get(s, module + 8, 8), ==, 10);
    g_assert_cmpmem(ram(s, get(s, module, 8), 10), 10, "the initrd", 10);
    g_assert_cmpstr(text_at(s, get(s, info + 24, 8)), ==, "quiet root=/dev/vda");
    g_assert_cmpmem(ram(s, get(s, info + 32, 8), 8), 8, "RSD PTR ", 8);
    uint64_t map = get(s, info + 40, 8);
    g_assert_cmpuint(get(s, info + 48, 4), >=, 5);
    g_assert_cmphex(get(s, map, 8), ==, 0);
    g_assert_cmphex(get(s, map + 16, 4), ==, 1);
    setup_free(s);
}

static void linux_elf(void)
{
    struct setup *s = setup_new(RAM);
    elf64(s, false);
    g_assert_true(load(s, NULL));
    g_assert_cmpint(s->entry.mode, ==, ENTRY_LONG);
    g_assert_cmphex(s->entry.ip, ==, AT + 0x100);
    g_assert_cmpmem(ram(s, s->entry.si + 0x202, 4), 4, "HdrS", 4);
    g_assert_cmpstr(text_at(s, get(s, s->entry.si + 0x228, 4)), ==, "quiet root=/dev/vda");
    setup_free(s);
}

static void elf_lies(void)
{
    static const struct {
        uint16_t at;
        uint8_t width;
        uint64_t value;
        const char *message;
    } lies[] = {
        { 4, 1, 3, "not for a PC" },
        { 5, 1, 2, "not for a PC" },
        { 16, 2, 3, "no kernel" },      /* a shared object */
        { 18, 2, 183, "not for a PC" }, /* another processor */
        { 32, 8, UINT64_MAX, "cut off" },
        { 32, 8, TEXT + TEXT_SIZE - 8, "cut off" },
        { 54, 2, 57, "program headers" },
        { 56, 2, 0, "program headers" },
        { 56, 2, UINT16_MAX, "program headers" },
        { 64, 4, 7, "nothing to load" },
        { 72, 8, UINT64_MAX, "cut off" },      /* where in the file */
        { 96, 8, UINT64_MAX, "cut off" },      /* how much of the file */
        { 104, 8, 1, "more in the file" },     /* less in memory */
        { 104, 8, UINT64_MAX, "no such RAM" }, /* memory */
        { 88, 8, UINT64_MAX - 16, "no such RAM" },
        { 88, 8, 0x9f800, "no such RAM" }, /* into the EBDA */
        { 88, 8, 0xc0000, "no such RAM" },
        { 88, 8, RAM - TEXT_SIZE, "no such RAM" },
        { 88, 8, RAM - 2 * TEXT_SIZE, "overlap" }, /* where the tables are */
        { NOTES + 36, 4, 0x1000, "is not in what it loads" },
        { 24, 8, 0x1000, NULL }, /* not asked for where there is a note */
        { NOTES + 4, 4, UINT32_MAX, NULL },
        { NOTES + 20, 4, UINT32_MAX, NULL },
        { NOTES, 4, UINT32_MAX, NULL },
        { 152, 8, 13, NULL },
    };
    struct setup *s = setup_new(RAM);
    for (size_t i = 0; i < G_N_ELEMENTS(lies); i++) {
        elf64(s, true);
        put(s, lies[i].at, lies[i].width, lies[i].value);
        if (lies[i].message) {
            refused(s, HV_USAGE, lies[i].message);
            continue;
        }
        g_assert_true(load(s, NULL));
        guest_ram_clear(s->guest);
    }
    elf64(s, false);
    put(s, 24, 8, 0x1000);
    refused(s, HV_USAGE, "entry is not in what it loads");
    elf64(s, false);
    memcpy(s->data + 120, s->data + 64, 56); /* the same segment twice */
    refused(s, HV_USAGE, "overlap");
    elf64(s, true);
    for (s->size = 1; s->size < TEXT + TEXT_SIZE; s->size += 61)
        refused(s, HV_USAGE, "kernel");
    setup_free(s);
}

/* --- multiboot ------------------------------------------------------------------------------ */

static void multiboot_header(struct setup *s, size_t at, uint32_t flags)
{
    put(s, at, 4, 0x1badb002);
    put(s, at + 4, 4, flags);
    put(s, at + 8, 4, (uint32_t) - (0x1badb002 + flags));
}

/* A flat file of 4 KiB whose header is in its middle, to be loaded at 1 MiB but for 16 bytes. */
static void flat(struct setup *s)
{
    memset(s->data, 0xcc, sizeof s->data);
    s->size = 4096;
    s->kernel.multiboot = true;
    multiboot_header(s, 0x800, 0x10003);
    put(s, 0x80c, 4, 0x1007f0); /* header */
    put(s, 0x810, 4, 0x100000); /* load */
    put(s, 0x814, 4, 0);        /* to the file's end */
    put(s, 0x818, 4, 0x102000); /* bss */
    put(s, 0x81c, 4, 0x100010); /* entry */
}

static void multiboot_flat(void)
{
    struct setup *s = setup_new(RAM);
    flat(s);
    add_initrd(s, "one", "one a b");
    add_initrd(s, "other", "other");
    g_assert_true(load(s, NULL));
    g_assert_cmpint(s->entry.mode, ==, ENTRY_PROTECTED);
    g_assert_cmphex(s->entry.ax, ==, 0x2badb002);
    g_assert_cmphex(s->entry.ip, ==, 0x100010);
    g_assert_cmpmem(ram(s, 0x1007f0, 64), 64, s->data + 0x800, 64);
    g_assert_cmphex(get(s, 0x100fef, 1), ==, 0xcc);
    g_assert_cmphex(get(s, 0x100ff0, 1), ==, 0);
    uint64_t info = s->entry.bx, modules = get(s, info + 24, 4);
    g_assert_cmphex(get(s, info, 4), ==, 0x24d);
    g_assert_cmpuint(get(s, info + 4, 4), ==, 639);
    g_assert_cmpuint(get(s, info + 8, 4), <, RAM / 1024 - 1024);
    g_assert_cmpuint(get(s, info + 8, 4), >, RAM / 1024 - 1024 - 64);
    g_assert_cmpstr(text_at(s, get(s, info + 16, 4)), ==, "kernel quiet root=/dev/vda");
    g_assert_cmpuint(get(s, info + 20, 4), ==, 2);
    g_assert_cmphex(get(s, modules, 4), ==, 0x102000); /* behind the bss, on pages */
    g_assert_cmphex(get(s, modules + 4, 4), ==, 0x102003);
    g_assert_cmpmem(ram(s, 0x102000, 3), 3, "one", 3);
    g_assert_cmpstr(text_at(s, get(s, modules + 8, 4)), ==, "one a b");
    g_assert_cmphex(get(s, modules + 16, 4), ==, 0x103000);
    uint64_t map = get(s, info + 48, 4);
    g_assert_cmpuint(get(s, map, 4), ==, 20);
    g_assert_cmphex(get(s, map + 4, 8), ==, 0);
    g_assert_cmpuint(get(s, map + 20, 4), ==, 1);
    g_assert_cmpuint(get(s, info + 44, 4) % 24, ==, 0);
    setup_free(s);
}

static void multiboot_elf(void)
{
    struct setup *s = setup_new(RAM);
    elf64(s, false);
    put(s, 24, 8, 0xffffffff80000000 + AT + 8); /* a virtual entry */
    multiboot_header(s, TEXT, 3);
    refused(s, HV_USAGE, "--multiboot starts it");
    s->kernel.multiboot = true;
    s->kernel.append = NULL;
    g_assert_true(load(s, NULL));
    g_assert_cmphex(s->entry.ip, ==, AT + 8);
    g_assert_cmpstr(text_at(s, get(s, s->entry.bx + 16, 4)), ==, "kernel");
    setup_free(s);
}

static void multiboot_lies(void)
{
    static const struct {
        uint16_t at;
        uint32_t value;
        const char *message;
    } lies[] = {
        { 0x80c, 0xfffff, "addresses" },      /* the header before the start */
        { 0x80c, 0x101000, "addresses" },     /* or before the file */
        { 0x814, 0x100000, "addresses" },     /* ends where it begins */
        { 0x814, 0x102000, "cut off" },       /* ends behind the file */
        { 0x818, 0xffffffff, "no such RAM" }, /* bss */
        { 0x81c, 0x103000, "entry" },         /* the entry outside */
        { 0x808, 0, "no multiboot header" },  /* check sum */
    };
    struct setup *s = setup_new(RAM);
    for (size_t i = 0; i < G_N_ELEMENTS(lies); i++) {
        flat(s);
        put(s, lies[i].at, 4, lies[i].value);
        refused(s, HV_USAGE, lies[i].message);
    }
    flat(s);
    multiboot_header(s, 0x800, 0x10103);
    refused(s, HV_USAGE, "demands");
    flat(s);
    put(s, 0x810, 4, 0x1000); /* the header says where, and that is far before the file */
    refused(s, HV_USAGE, "addresses");
    flat(s);
    for (s->size = 1; s->size < 0x820; s->size += 31)
        refused(s, HV_USAGE, "kernel");
    setup_free(s);
}

/* --- PCI ------------------------------------------------------------------------------------ */

/* The display and AHCI on one board, with the host bridge and the LPC bridge that are programmed.
 */
static void assign(void)
{
    static const struct {
        const char *class;
        unsigned devfn;
    } parts[] = { { "i8259", 0 },
                  { "q35-host", PCI_DEVFN(0, 0) },
                  { "ich9-lpc", PCI_DEVFN(31, 0) },
                  { "vga", PCI_DEVFN(1, 0) },
                  { "ahci", PCI_DEVFN(31, 2) } };
    enum { PARTS = G_N_ELEMENTS(parts) };
    struct rig *rig = rig_new(device_class_find("pvpanic"), NULL);
    struct guest *guest = rig->board.guest;
    guest_slot_set(guest, 0, GPA(0), LEGACY_BASE, guest_ram_host(guest, GPA(0), LEGACY_BASE), 0);
    struct device *devices[PARTS];
    for (size_t i = 0; i < PARTS; i++) {
        devices[i] = device_create(device_class_find(parts[i].class), &rig->board, NULL);
        if (devices[i]->class->pci)
            pci_place(devices[i], parts[i].devfn, NULL);
        g_assert_true(device_start(devices[i], NULL));
    }
    struct boot_screen on = { .size = 1 };
    const struct boot_windows windows = { BOOT_ECAM_SEABIOS, 8 * GIB, GIB };
    boot_assign(&rig->board, &rig->reader, &windows, PCI_DEVFN(1, 0), &on);
    struct pci_bus *bus = rig->board.pci;
    uint32_t frame = pci_config_read(bus, PCI_DEVFN(1, 0), 0x10, 4) & ~15u;
    uint32_t mmio = pci_config_read(bus, PCI_DEVFN(1, 0), 0x18, 4);
    uint32_t ahci = pci_config_read(bus, PCI_DEVFN(31, 2), 0x24, 4);
    g_assert_cmphex(frame, ==, 0xc0000000); /* the largest first */
    g_assert_cmphex(mmio, >, frame);
    g_assert_cmphex(ahci, >, frame);
    g_assert_cmphex(ahci, !=, mmio);
    g_assert_cmphex(ahci, <, 0xfec00000);
    g_assert_cmphex(pci_config_read(bus, PCI_DEVFN(31, 2), PCI_COMMAND, 1) & 3, ==, 3);
    g_assert_cmpuint(pci_config_read(bus, PCI_DEVFN(31, 2), PCI_INTERRUPT_LINE, 1), ==, 10);
    g_assert_cmphex(pci_config_read(bus, PCI_DEVFN(31, 0), 0x60, 4), ==, 0x0b0b0a0a);
    g_assert_cmphex(pci_config_read(bus, PCI_DEVFN(31, 0), 0x40, 4), ==, 0x601);
    g_assert_cmphex(rig_load(rig, 0xb0000000, 4), ==, 0x29c08086); /* ECAM */
    g_assert_cmphex(rig_in(rig, 0x4d1, 1), ==, 0x0c);
    for (unsigned i = 1; i <= 6; i++) /* a search of 0xC0000 to 0xFFFFF is no series of exits */
        g_assert_cmphex(pci_config_read(bus, PCI_DEVFN(0, 0), 0x90 + i, 1), ==, 0x11);
    g_assert_cmphex(rig_load(rig, ahci + 0x10, 4), ==, 0x00010301); /* AHCI 1.3.1 answers there */
    /* The screen is on, and what is written to the frame is its memory. */
    g_assert_cmphex(on.base, ==, frame);
    g_assert_cmpuint(on.stride, ==, 4096);
    g_assert_cmpuint(on.size, >=, 3 * MIB);
    g_assert_true(guest_write(guest, GPA(frame + 4096), "x", 1));
    for (size_t i = PARTS; i-- > 0;)
        device_destroy(devices[i]);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/direct/bzimage/64-bit", bzimage_64);
    g_test_add_func("/direct/bzimage/32-bit", bzimage_32);
    g_test_add_func("/direct/bzimage/16-bit", bzimage_16);
    g_test_add_func("/direct/bzimage/lies", bzimage_lies);
    g_test_add_func("/direct/memory-map", memory_map);
    g_test_add_func("/direct/tables", tables);
    g_test_add_func("/direct/screen", screen);
    g_test_add_func("/direct/no-room", no_room);
    g_test_add_func("/direct/no-kernel", no_kernel);
    g_test_add_func("/direct/elf/pvh", pvh);
    g_test_add_func("/direct/elf/linux", linux_elf);
    g_test_add_func("/direct/elf/lies", elf_lies);
    g_test_add_func("/direct/multiboot/flat", multiboot_flat);
    g_test_add_func("/direct/multiboot/elf", multiboot_elf);
    g_test_add_func("/direct/multiboot/lies", multiboot_lies);
    g_test_add_func("/direct/assign", assign);
    return g_test_run();
}
