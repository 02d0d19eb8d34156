/* Files, RAM and the start of the memory map for the loaders of kernels; see load.h. */
#include "boot/load.h"

#include "base/error.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- files ---------------------------------------------------------------------------------- */

bool load_size(const struct boot_file *file, uint64_t *size, GError **error)
{
    struct stat info;
    if (fstat(file->fd, &info) < 0)
        return hv_fail(error, HV_FAILED, "%s: %s", file->name, g_strerror(errno));
    if (!S_ISREG(info.st_mode) || info.st_size <= 0)
        return hv_fail(error, HV_USAGE, "%s is %s: a file with a kernel or an initrd is wanted",
                       file->name, S_ISREG(info.st_mode) ? "empty" : "no file");
    *size = (uint64_t)info.st_size;
    return true;
}

bool load_read(const struct boot_file *file, uint64_t offset, void *to, size_t size, GError **error)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = pread(file->fd, (char *)to + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return hv_fail(error, HV_FAILED, "%s: %s", file->name, g_strerror(errno));
        if (n == 0)
            return hv_fail(error, HV_USAGE, "%s is cut off: it ends before byte %" G_GUINT64_FORMAT,
                           file->name, offset + size);
        done += (size_t)n;
    }
    return true;
}

/* --- RAM ------------------------------------------------------------------------------------ */

static bool is_ram(const struct loader *l, uint64_t at, uint64_t size)
{
    if (at < LEGACY_END)
        return at <= EBDA && size <= EBDA - at;
    return guest_ram_host(l->guest, GPA(at), size) != NULL;
}

/* What is taken of the range; NULL when nothing is. */
static const struct range *overlap(const struct loader *l, uint64_t at, uint64_t size)
{
    for (guint i = 0; i < l->taken->len; i++) {
        const struct range *r = &g_array_index(l->taken, struct range, i);
        if (at < r->base + r->size && r->base < at + size)
            return r;
    }
    return NULL;
}

static void add_taken(struct loader *l, uint64_t at, uint64_t size)
{
    const struct range range = { at, size };
    if (size)
        g_array_append_val(l->taken, range);
}

bool load_take(struct loader *l, uint64_t at, uint64_t size, GError **error)
{
    const char *name = l->kernel->file.name;
    if (!is_ram(l, at, size))
        return hv_fail(error, HV_USAGE,
                       "%s wants to lie at %#" G_GINT64_MODIFIER "x, with %" G_GUINT64_FORMAT
                       " KiB: the machine has no such RAM; does it need more (--memory)?",
                       name, at, size / KIB);
    if (overlap(l, at, size))
        return hv_fail(error, HV_USAGE,
                       "%s: its parts overlap at %#" G_GINT64_MODIFIER
                       "x: it cannot be loaded as it says",
                       name, at);
    add_taken(l, at, size);
    return true;
}

static bool place_highest(struct loader *l, uint64_t size, uint64_t align, struct range between,
                          uint64_t *at)
{
    uint64_t end = between.base + between.size;
    while (end >= size && end - size >= between.base) {
        uint64_t base = (end - size) / align * align;
        const struct range *r = base < between.base ? NULL : overlap(l, base, size);
        if (base < between.base)
            return false;
        if (!r) {
            *at = base;
            return true;
        }
        end = r->base;
    }
    return false;
}

static bool place_lowest(struct loader *l, uint64_t size, uint64_t align, struct range between,
                         uint64_t *at)
{
    uint64_t end = between.base + between.size, base = between.base;
    for (;;) {
        base = (base + align - 1) / align * align;
        if (base > end || size > end - base)
            return false;
        const struct range *r = overlap(l, base, size);
        if (!r) {
            *at = base;
            return true;
        }
        base = r->base + r->size;
    }
}

bool load_place(struct loader *l, uint64_t size, uint64_t align, struct range between, bool highest,
                const char *what, uint64_t *at, GError **error)
{
    bool found = highest ? place_highest(l, size, align, between, at)
                         : place_lowest(l, size, align, between, at);
    if (!found || !is_ram(l, *at, size))
        return hv_fail(error, HV_USAGE,
                       "%s: there is no room for %s (%" G_GUINT64_FORMAT
                       " KiB): the machine needs more --memory, or a smaller one",
                       l->kernel->file.name, what, (size + KIB - 1) / KIB);
    add_taken(l, *at, size);
    return true;
}

bool load_taken(const struct loader *l, uint64_t at)
{
    return overlap(l, at, 1) != NULL;
}

void *load_at(struct loader *l, uint64_t at, uint64_t size)
{
    return guest_ram_host(l->guest, GPA(at), size);
}

bool load_file(struct loader *l, const struct boot_file *file, uint64_t offset, uint64_t at,
               uint64_t size, GError **error)
{
    return !size || load_read(file, offset, load_at(l, at, size), size, error);
}

bool load_low(struct loader *l, const void *bytes, size_t size, uint64_t *at, GError **error)
{
    const struct range low = { LOW_START, LOW_END - LOW_START };
    if (!load_place(l, size, 16, low, true, "what the kernel is told", at, error))
        return false;
    memcpy(load_at(l, *at, size), bytes, size);
    return true;
}

bool load_gdt(struct loader *l, bool wide, GError **error)
{
    const uint64_t gdt[] = {
        0, 0, wide ? UINT64_C(0x00af9b000000ffff) : UINT64_C(0x00cf9b000000ffff), /* 0x10: code */
        UINT64_C(0x00cf93000000ffff),                                             /* 0x18: data */
    };
    l->entry->code = 0x10;
    l->entry->data = 0x18;
    l->entry->gdt_limit = sizeof gdt - 1;
    return load_low(l, gdt, sizeof gdt, &l->entry->gdt, error);
}

bool load_page_tables(struct loader *l, GError **error)
{
    /* A PML4, a PDPT, and a directory of 2 MiB pages for each GiB. */
    enum { PAGE = 4096, ENTRIES = PAGE / 8, GIBS = 4, PRESENT = 3, LARGE = 0x80 };
    const struct range low = { LOW_START, LOW_END - LOW_START };
    uint64_t at;
    if (!load_place(l, (2 + GIBS) * PAGE, PAGE, low, true, "its page tables", &at, error))
        return false;
    le64 *table = load_at(l, at, (2 + GIBS) * PAGE);
    table[0] = le64_of((at + PAGE) | PRESENT);
    for (unsigned i = 0; i < GIBS; i++)
        table[ENTRIES + i] = le64_of((at + (2 + i) * PAGE) | PRESENT);
    for (uint64_t i = 0; i < GIBS * ENTRIES; i++)
        table[2 * ENTRIES + i] = le64_of(i * 2 * MIB | PRESENT | LARGE);
    l->entry->cr3 = at;
    return true;
}

bool load_initrds(struct loader *l, uint64_t last, struct range *where, GError **error)
{
    enum { ALIGN = 4, PAGE = 4096 };
    const struct boot_kernel *k = l->kernel;
    uint64_t total = 0, size = 0;
    *where = (struct range){ 0, 0 };
    for (unsigned i = 0; i < k->initrd_count; i++) {
        if (!load_size(&k->initrds[i], &size, error))
            return false;
        if (size > guest_ram_size(l->guest) - total)
            return hv_fail(error, HV_USAGE,
                           "%s: %" G_GUINT64_FORMAT
                           " MiB are more than the machine's RAM holds: it needs more --memory",
                           k->initrds[i].name, size / MIB);
        total = (total + ALIGN - 1) / ALIGN * ALIGN + size;
    }
    if (!total)
        return true;
    uint64_t end = MIN(guest_low_ram(l->guest) - 1, last) + 1;
    struct range between = { LEGACY_END, end > LEGACY_END ? end - LEGACY_END : 0 };
    if (!load_place(l, total, PAGE, between, true, "the initrd", &where->base, error))
        return false;
    uint64_t at = where->base, room_end = where->base + total;
    for (unsigned i = 0; i < k->initrd_count; i++) {
        /* Once more: a file that grew since must not reach into its neighbour. */
        if (!load_size(&k->initrds[i], &size, error))
            return false;
        at = (at + ALIGN - 1) / ALIGN * ALIGN;
        if (size > room_end - at)
            return hv_fail(error, HV_FAILED, "%s changes while it is read", k->initrds[i].name);
        if (!load_file(l, &k->initrds[i], 0, at, size, error))
            return false;
        at += size;
    }
    where->size = at - where->base;
    return true;
}
