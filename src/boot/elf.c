/* ELF files as kernels come in them (System V ABI, chapters 4 and 5; the Intel386 and AMD64
 * supplements): program headers and notes, by physical addresses. */
#include "boot/load.h"

#include "base/error.h"

#include <string.h>

/* e_ident and the header's fields. */
enum {
    CLASS = 4,
    CLASS_32 = 1,
    CLASS_64 = 2,
    DATA = 5,
    DATA_LITTLE = 1,
    TYPE_FIXED = 2, /* ET_EXEC */
    MACHINE_386 = 3,
    MACHINE_X86_64 = 62,
    HEADER_32 = 52,
    HEADER_64 = 64,
    SEGMENT_32 = 32,
    SEGMENT_64 = 56,
};
/* Notes: a name, a description, each padded. */
enum { NOTE_HEADER = 12, NOTES_MAX = 65536, XEN_PHYS32_ENTRY = 18 };

static uint64_t number(const uint8_t *at, unsigned width)
{
    uint64_t value = 0;
    memcpy(&value, at, width); /* little-endian, as every host of hv */
    return value;
}

bool elf_is(const void *head, size_t size)
{
    return size >= HEADER_32 && !memcmp(head, "\177ELF", 4);
}

static struct elf_segment segment(const uint8_t *h, bool wide)
{
    if (wide)
        return (struct elf_segment){
            .type = (uint32_t)number(h, 4),
            .offset = number(h + 8, 8),
            .virtual_at = number(h + 16, 8),
            .at = number(h + 24, 8),
            .file_size = number(h + 32, 8),
            .size = number(h + 40, 8),
            .align = number(h + 48, 8),
        };
    return (struct elf_segment){
        .type = (uint32_t)number(h, 4),
        .offset = number(h + 4, 4),
        .virtual_at = number(h + 8, 4),
        .at = number(h + 12, 4),
        .file_size = number(h + 16, 4),
        .size = number(h + 20, 4),
        .align = number(h + 28, 4),
    };
}

/* Lies all of the segment in the file, and not more of it than in memory? */
static bool check_segment(struct loader *l, const struct elf_segment *s, GError **error)
{
    const char *name = l->kernel->file.name;
    if (s->offset > l->size || s->file_size > l->size - s->offset)
        return hv_fail(error, HV_USAGE, "%s is cut off: a segment ends behind the file", name);
    return s->type != ELF_LOAD || s->file_size <= s->size ||
           hv_fail(error, HV_USAGE, "%s: a segment has more in the file than in memory", name);
}

bool elf_read(struct loader *l, struct elf *elf, GError **error)
{
    uint8_t header[HEADER_64] = { 0 };
    const struct boot_file *file = &l->kernel->file;
    if (!load_read(file, 0, header, MIN(l->size, sizeof header), error))
        return false;
    bool wide = header[CLASS] == CLASS_64;
    unsigned machine = (unsigned)number(header + 18, 2);
    if ((header[CLASS] != CLASS_32 && !wide) || header[DATA] != DATA_LITTLE ||
        (machine != MACHINE_386 && machine != MACHINE_X86_64) || (wide && l->size < HEADER_64))
        return hv_fail(error, HV_USAGE, "%s: an ELF file, but not for a PC", file->name);
    if (number(header + 16, 2) != TYPE_FIXED)
        return hv_fail(error, HV_USAGE,
                       "%s is an ELF file, but no kernel: it has no addresses of its own",
                       file->name);
    elf->wide = wide;
    elf->entry = wide ? number(header + 24, 8) : number(header + 24, 4);
    uint64_t table = wide ? number(header + 32, 8) : number(header + 28, 4);
    unsigned entry_size = (unsigned)number(header + (wide ? 54 : 42), 2);
    elf->count = (unsigned)number(header + (wide ? 56 : 44), 2);
    unsigned wanted = wide ? SEGMENT_64 : SEGMENT_32;
    if (!elf->count || elf->count > ELF_SEGMENTS_MAX || entry_size != wanted)
        return hv_fail(error, HV_USAGE,
                       "%s: an ELF file with %u program headers: it is no program to load (1 to %d "
                       "are possible)",
                       file->name, elf->count, ELF_SEGMENTS_MAX);
    uint8_t headers[ELF_SEGMENTS_MAX * SEGMENT_64];
    if (table > l->size)
        return hv_fail(error, HV_USAGE, "%s is cut off: it has no program headers", file->name);
    if (!load_read(file, table, headers, elf->count * wanted, error))
        return false;
    for (unsigned i = 0; i < elf->count; i++) {
        elf->segments[i] = segment(headers + i * wanted, wide);
        if (!check_segment(l, &elf->segments[i], error))
            return false;
    }
    return true;
}

bool elf_load(struct loader *l, const struct elf *elf, GError **error)
{
    unsigned loaded = 0;
    for (unsigned i = 0; i < elf->count; i++) {
        const struct elf_segment *s = &elf->segments[i];
        if (s->type != ELF_LOAD || !s->size)
            continue;
        /* RAM is all zeros: what is behind the file's part needs no clearing. */
        if (!load_take(l, s->at, s->size, error) ||
            !load_file(l, &l->kernel->file, s->offset, s->at, s->file_size, error))
            return false;
        loaded++;
    }
    return loaded ||
           hv_fail(error, HV_USAGE, "%s: an ELF file with nothing to load", l->kernel->file.name);
}

/* The value of the note in one segment of notes. */
static bool find_note(const uint8_t *notes, size_t size, size_t align, uint64_t *value)
{
    size_t at = 0;
    while (size - at >= NOTE_HEADER) {
        uint64_t name_size = number(notes + at, 4), value_size = number(notes + at + 4, 4);
        uint32_t type = (uint32_t)number(notes + at + 8, 4);
        size_t name = at + NOTE_HEADER;
        if (name_size > size - name)
            return false;
        uint64_t desc = (name + name_size + align - 1) / align * align;
        if (desc > size || value_size > size - desc)
            return false;
        if (type == XEN_PHYS32_ENTRY && name_size == 4 && !memcmp(notes + name, "Xen", 4) &&
            (value_size == 4 || value_size == 8)) {
            *value = number(notes + desc, (unsigned)value_size);
            return true;
        }
        at = MIN((desc + value_size + align - 1) / align * align, size);
    }
    return false;
}

bool elf_pvh_entry(struct loader *l, const struct elf *elf, bool *found, uint64_t *entry,
                   GError **error)
{
    *found = false;
    for (unsigned i = 0; i < elf->count && !*found; i++) {
        const struct elf_segment *s = &elf->segments[i];
        if (s->type != ELF_NOTE || s->file_size > NOTES_MAX || !s->file_size)
            continue;
        g_autofree uint8_t *notes = g_malloc(s->file_size);
        if (!load_read(&l->kernel->file, s->offset, notes, s->file_size, error))
            return false;
        *found = find_note(notes, s->file_size, s->align == 8 ? 8 : 4, entry);
    }
    return true;
}
