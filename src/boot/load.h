/* What the loaders of kernels share (direct.c, linux.c, pvh.c, multiboot.c): files, the memory map,
 * and where in RAM something is. */
#pragma once
#include "boot/direct.h"

/* Types of the memory map (ACPI 6.4, table 15-5); multiboot and PVH have the same. */
enum { MAP_RAM = 1, MAP_RESERVED = 2, MAP_MAX = 16 };

struct map_entry {
    uint64_t base, size;
    uint32_t type;
};

struct range {
    uint64_t base, size;
};

/* Where low memory is free for what hv tells the kernel: above the BIOS data area, below the EBDA.
 */
enum { BIOS_DATA = 0x400, LOW_START = 0x1000, LOW_END = 0x9f000, EBDA = 0x9fc00 };
/* The F segment is shown as RAM: the RSDP, the SMBIOS entry point and the reset vector are there.
 */
enum { F_SEGMENT = 0xf0000, F_SEGMENT_END = 0x100000, RESET_VECTOR = 0xffff0 };

struct loader {
    struct guest *guest;
    const struct boot_kernel *kernel;
    struct entry *entry;
    uint64_t size; /* of the kernel's file */
    uint64_t rsdp;
    struct map_entry map[MAP_MAX];
    unsigned map_count;
    GArray *taken; /* of struct range: what something lies in already */
};

/* --- files ---------------------------------------------------------------------------------- */

/* The size of a file; false when it is empty or not readable. */
bool load_size(const struct boot_file *file, uint64_t *size, GError **error);
/* Exactly these bytes. */
bool load_read(const struct boot_file *file, uint64_t offset, void *to, size_t size,
               GError **error);

/* --- RAM ------------------------------------------------------------------------------------ */

/* Claims a range that the kernel asks for: all of it RAM, none of it taken. */
bool load_take(struct loader *l, uint64_t at, uint64_t size, GError **error);
/* Finds the highest (or lowest) free place between two addresses and claims it. */
bool load_place(struct loader *l, uint64_t size, uint64_t align, struct range between, bool highest,
                const char *what, uint64_t *at, GError **error);
/* The host's memory of a range that is taken. */
void *load_at(struct loader *l, uint64_t at, uint64_t size);
/* Is the address in something that is taken? */
bool load_taken(const struct loader *l, uint64_t at);
/* A part of a file, straight into a range that is taken. */
bool load_file(struct loader *l, const struct boot_file *file, uint64_t offset, uint64_t at,
               uint64_t size, GError **error);

/* Bytes for the kernel to read, somewhere in low memory. */
bool load_low(struct loader *l, const void *bytes, size_t size, uint64_t *at, GError **error);

/* The GDT that Linux's boot protocols want: flat code in 0x10, flat data in 0x18. */
bool load_gdt(struct loader *l, bool wide, GError **error);
/* Page tables that show the first 4 GiB one to one. */
bool load_page_tables(struct loader *l, GError **error);

/* All initrds, one behind the other, as high as they may lie; size 0 when there are none. */
bool load_initrds(struct loader *l, uint64_t last, struct range *where, GError **error);

/* --- the kinds of kernels ------------------------------------------------------------------- */

/* An ELF file (elf.c). */
struct elf_segment {
    uint64_t offset, virtual_at, at, file_size, size, align;
    uint32_t type;
};
enum { ELF_SEGMENTS_MAX = 64, ELF_LOAD = 1, ELF_NOTE = 4 };
struct elf {
    bool wide;
    uint64_t entry;
    unsigned count;
    struct elf_segment segments[ELF_SEGMENTS_MAX];
};
bool elf_is(const void *head, size_t size);
bool elf_read(struct loader *l, struct elf *elf, GError **error);
bool elf_load(struct loader *l, const struct elf *elf, GError **error);
/* The Xen note with the 32-bit entry; *found is false when there is none. */
bool elf_pvh_entry(struct loader *l, const struct elf *elf, bool *found, uint64_t *entry,
                   GError **error);

/* `head` is the start of the file, `size` bytes of it. */
enum { LOAD_HEAD = 8192 };
bool linux_is(const uint8_t *head, size_t size);
bool linux_load(struct loader *l, const uint8_t *head, size_t size, GError **error);
bool linux_load_elf(struct loader *l, const struct elf *elf, GError **error);
bool pvh_load(struct loader *l, const struct elf *elf, uint64_t entry, GError **error);
bool multiboot_is(const uint8_t *head, size_t size);
bool multiboot_load(struct loader *l, const uint8_t *head, size_t size, GError **error);

/* For a kernel's real-mode code: the few BIOS calls that it makes (real.c). */
void real_services(struct loader *l);

/* The tables of l->kernel->tables (tables.c); adds what they take to the memory map. */
bool load_tables(struct loader *l, GError **error);
