/* Guest RAM and its slots; see guest.h. */
#include "memory/guest.h"

#include "base/error.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, MAX_SLOTS = 128 };

struct slot {
    uint64_t base, size; /* size 0: nothing here */
    uint8_t *host;
    unsigned flags;
    uint64_t *written; /* SLOT_LOG: pages that guest_write changed */
};

struct guest {
    struct guest_ram ram; /* the first: guest_plain */
    int fd;

    GMutex lock; /* protects what follows; a leaf */
    struct slot slots[MAX_SLOTS];
    unsigned count;
    const struct slot_provider *provider;
    void *opaque;
};

struct guest *guest_new(uint64_t size, GError **error)
{
    int fd = memfd_create("hv-ram", MFD_CLOEXEC);
    void *ram = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, (off_t)size) == 0)
        ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (ram == MAP_FAILED) {
        hv_fail(error, HV_HOST,
                "cannot get %" G_GUINT64_FORMAT " MiB of memory for the guest: %s; ask for less "
                "with --memory",
                size / MIB, g_strerror(errno));
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    madvise(ram, size, MADV_HUGEPAGE);
    struct guest *guest = g_new0(struct guest, 1);
    guest->ram.size = size;
    guest->ram.low = MIN(size, LOW_RAM_LIMIT);
    guest->ram.host = ram;
    guest->fd = fd;
    g_mutex_init(&guest->lock);
    return guest;
}

void guest_free(struct guest *guest)
{
    if (!guest)
        return;
    for (unsigned i = 0; i < guest->count; i++)
        g_free(guest->slots[i].written);
    munmap(guest->ram.host, guest->ram.size);
    close(guest->fd);
    g_mutex_clear(&guest->lock);
    g_free(guest);
}

void guest_set_provider(struct guest *guest, const struct slot_provider *provider, void *opaque)
{
    guest->provider = provider;
    guest->opaque = opaque;
}

uint64_t guest_ram_size(const struct guest *guest)
{
    return guest->ram.size;
}

uint64_t guest_low_ram(const struct guest *guest)
{
    return guest->ram.low;
}

uint64_t guest_high_ram(const struct guest *guest)
{
    return guest->ram.size - guest->ram.low;
}

void *guest_ram_host(struct guest *guest, gpa at, uint64_t size)
{
    uint64_t offset = at.raw;
    uint64_t end = guest->ram.low;
    if (at.raw >= HIGH_RAM_BASE) {
        offset = at.raw - HIGH_RAM_BASE + guest->ram.low;
        end = guest->ram.size;
    }
    return offset < end && size <= end - offset ? guest->ram.host + offset : NULL;
}

static bool show(struct guest *guest, uint64_t at, uint64_t size)
{
    return !size || guest_slot_set(guest, guest_slot_new(guest), GPA(at), size,
                                   guest_ram_host(guest, GPA(at), size), 0);
}

bool guest_show_ram(struct guest *guest)
{
    bool ok = show(guest, 0, LEGACY_BASE) && show(guest, LEGACY_END, guest->ram.low - LEGACY_END) &&
              show(guest, HIGH_RAM_BASE, guest_high_ram(guest));
    if (ok) {
        guest->ram.legacy_end = LEGACY_BASE;
        guest->ram.low_end = guest->ram.low;
        guest->ram.high_end = guest->ram.size;
    }
    return ok;
}

unsigned guest_pieces(const struct guest *guest, struct guest_piece pieces[GUEST_PIECES])
{
    const struct guest_ram *ram = &guest->ram;
    const struct guest_piece all[GUEST_PIECES] = {
        { GPA(0), ram->legacy_end, ram->host },
        { GPA(LEGACY_END), ram->low_end - MIN(ram->low_end, LEGACY_END), ram->host + LEGACY_END },
        { GPA(HIGH_RAM_BASE), ram->high_end - MIN(ram->high_end, ram->low), ram->host + ram->low },
    };
    unsigned count = 0;
    for (unsigned i = 0; i < GUEST_PIECES; i++)
        if (all[i].size)
            pieces[count++] = all[i];
    return count;
}

void guest_ram_clear(struct guest *guest)
{
    if (madvise(guest->ram.host, guest->ram.size, MADV_REMOVE) < 0)
        memset(guest->ram.host, 0, guest->ram.size);
}

unsigned guest_slot_new(struct guest *guest)
{
    g_assert(guest->count < MAX_SLOTS); /* made by our own parts list, not by guests */
    return guest->count++;
}

static bool overlaps(const struct guest *guest, unsigned except, uint64_t base, uint64_t size)
{
    for (unsigned i = 0; i < guest->count; i++) {
        const struct slot *slot = &guest->slots[i];
        if (i != except && slot->size && base < slot->base + slot->size && slot->base < base + size)
            return true;
    }
    return false;
}

bool guest_slot_set(struct guest *guest, unsigned number, gpa at, uint64_t size, void *host,
                    unsigned flags)
{
    if ((at.raw | size) % PAGE || at.raw + size < at.raw)
        return false;
    g_mutex_lock(&guest->lock);
    struct slot *slot = &guest->slots[number];
    bool ok = !size || !overlaps(guest, number, at.raw, size);
    bool same =
        slot->base == at.raw && slot->size == size && slot->host == host && slot->flags == flags;
    if (ok && !same && guest->provider) {
        /* KVM can change the flags or the address of a slot, not its size or its memory. */
        if (slot->size &&
            (slot->size != size || slot->host != host || (slot->flags ^ flags) & SLOT_READONLY)) {
            guest->provider->set(guest->opaque, number, GPA(slot->base), 0, slot->host, 0);
            slot->size = 0;
        }
        if (size || slot->size)
            ok = guest->provider->set(guest->opaque, number, at, size, host, flags) == 0;
    }
    if (ok && !same) {
        g_free(slot->written);
        *slot = (struct slot){ .base = at.raw, .size = size, .host = host, .flags = flags };
        if (flags & SLOT_LOG && size)
            slot->written = g_try_new0(uint64_t, size / PAGE / 64 + 1);
    }
    g_mutex_unlock(&guest->lock);
    return ok;
}

bool guest_slot_dirty(struct guest *guest, unsigned number, uint64_t *bitmap)
{
    g_mutex_lock(&guest->lock);
    struct slot *slot = &guest->slots[number];
    size_t words = (slot->size / PAGE + 63) / 64;
    uint64_t any = 0;
    if (slot->flags & SLOT_LOG) {
        memset(bitmap, 0, words * sizeof *bitmap);
        if (guest->provider && guest->provider->dirty(guest->opaque, number, bitmap) != 0)
            memset(bitmap, 0xff, words * sizeof *bitmap);
        for (size_t i = 0; i < words; i++) {
            if (slot->written) {
                bitmap[i] |= slot->written[i];
                slot->written[i] = 0;
            }
            any |= bitmap[i];
        }
    }
    g_mutex_unlock(&guest->lock);
    return any;
}

/* The slot that holds `at`, with the bytes left in it from there; NULL when none. Table locked. */
static struct slot *slot_at(struct guest *guest, uint64_t at, uint64_t *left)
{
    for (unsigned i = 0; i < guest->count; i++) {
        struct slot *slot = &guest->slots[i];
        if (at - slot->base < slot->size) {
            *left = slot->size - (at - slot->base);
            return slot;
        }
    }
    return NULL;
}

static void mark(struct slot *slot, uint64_t offset, uint64_t length)
{
    if (!slot->written || !length)
        return;
    for (uint64_t page = offset / PAGE; page <= (offset + length - 1) / PAGE; page++)
        slot->written[page / 64] |= UINT64_C(1) << page % 64;
}

/* All of the range in slots (writable ones, for a write)? Table locked. */
static bool covered(struct guest *guest, uint64_t at, uint64_t length, bool write)
{
    if (at + length < at)
        return false;
    while (length) {
        uint64_t left;
        const struct slot *slot = slot_at(guest, at, &left);
        if (!slot || (write && slot->flags & SLOT_READONLY))
            return false;
        left = MIN(left, length);
        at += left;
        length -= left;
    }
    return true;
}

static bool copy(struct guest *guest, uint64_t at, void *buffer, uint64_t length, bool write)
{
    uint8_t *local = buffer, *host = guest_plain(guest, GPA(at), length);
    if (host && length) {
        memcpy(write ? host : local, write ? local : host, length);
        if (!write)
            guest_watch(host, length, WATCH_FETCH);
        return true;
    }
    g_mutex_lock(&guest->lock);
    bool ok = covered(guest, at, length, write);
    while (ok && length) {
        uint64_t left;
        struct slot *slot = slot_at(guest, at, &left);
        uint64_t offset = at - slot->base;
        left = MIN(left, length);
        if (write) {
            memcpy(slot->host + offset, local, left);
            mark(slot, offset, left);
        } else {
            memcpy(local, slot->host + offset, left);
            guest_watch(slot->host + offset, left, WATCH_FETCH);
        }
        at += left;
        local += left;
        length -= left;
    }
    g_mutex_unlock(&guest->lock);
    return ok;
}

bool guest_read(struct guest *guest, gpa from, void *to, size_t length)
{
    return copy(guest, from.raw, to, length, false);
}

bool guest_write(struct guest *guest, gpa to, const void *from, size_t length)
{
    return copy(guest, to.raw, (void *)(uintptr_t)from, length, true);
}

bool guest_span(struct guest *guest, gpa at, size_t length, bool write, struct iovec *iov,
                unsigned *used, unsigned room)
{
    unsigned n = *used;
    size_t joined = n ? iov[n - 1].iov_len : 0;
    uint64_t from = at.raw;
    g_mutex_lock(&guest->lock);
    bool ok = covered(guest, from, length, write);
    while (ok && length) {
        uint64_t left;
        const struct slot *slot = slot_at(guest, from, &left);
        uint8_t *host = slot->host + (from - slot->base);
        left = MIN(left, length);
        if (n && (uint8_t *)iov[n - 1].iov_base + iov[n - 1].iov_len == host)
            iov[n - 1].iov_len += left;
        else if (n < room)
            iov[n++] = (struct iovec){ host, left };
        else
            ok = false;
        from += left;
        length -= left;
    }
    g_mutex_unlock(&guest->lock);
    if (ok)
        *used = n;
    else if (*used)
        iov[*used - 1].iov_len = joined;
    return ok;
}

void guest_span_written(struct guest *guest, gpa at, size_t length)
{
    uint64_t from = at.raw;
    g_mutex_lock(&guest->lock);
    while (length) {
        uint64_t left;
        struct slot *slot = slot_at(guest, from, &left);
        if (!slot)
            break;
        left = MIN(left, length);
        mark(slot, from - slot->base, left);
        from += left;
        length -= left;
    }
    g_mutex_unlock(&guest->lock);
}

void *guest_host(struct guest *guest, gpa at, size_t length, bool write)
{
    void *host = guest_plain(guest, at, length);
    struct iovec iov;
    unsigned used = 0;
    if (host || !guest_span(guest, at, length, write, &iov, &used, 1) || !used)
        return host;
    return iov.iov_base;
}

bool guest_address(struct guest *guest, const void *host, gpa *at)
{
    bool found = false;
    g_mutex_lock(&guest->lock);
    for (unsigned i = 0; i < guest->count && !found; i++) {
        const struct slot *slot = &guest->slots[i];
        uint64_t offset = (uint64_t)((uintptr_t)host - (uintptr_t)slot->host);
        found = offset < slot->size;
        if (found)
            *at = GPA(slot->base + offset);
    }
    g_mutex_unlock(&guest->lock);
    return found;
}

void guest_slot_written(struct guest *guest, const void *host, size_t length)
{
    gpa at;
    if (guest_address(guest, host, &at))
        guest_span_written(guest, at, length);
}

/* How far it is from `at`, which is in no slot, to the next one. Table locked. */
static uint64_t gap_at(const struct guest *guest, uint64_t at)
{
    uint64_t gap = UINT64_MAX;
    for (unsigned i = 0; i < guest->count; i++)
        if (guest->slots[i].size && guest->slots[i].base > at)
            gap = MIN(gap, guest->slots[i].base - at);
    return gap;
}

/* The next piece of RAM to be discarded in the range, which is cut down to what comes after it.
 */
static uint64_t discardable(struct guest *guest, uint64_t *at, uint64_t *length, uint8_t **host)
{
    uint64_t piece = 0;
    g_mutex_lock(&guest->lock);
    while (!piece && *length) {
        uint64_t left;
        struct slot *slot = slot_at(guest, *at, &left);
        uint64_t step = MIN(slot ? left : gap_at(guest, *at), *length);
        uint8_t *here = slot ? slot->host + (*at - slot->base) : NULL;
        bool ram = slot && here >= guest->ram.host && here < guest->ram.host + guest->ram.size;
        if (ram && !(slot->flags & SLOT_READONLY)) {
            mark(slot, *at - slot->base, step);
            *host = here;
            piece = step;
        }
        *at += step;
        *length -= step;
    }
    g_mutex_unlock(&guest->lock);
    return piece;
}

uint64_t guest_discard(struct guest *guest, gpa from, uint64_t size)
{
    if (size > UINT64_MAX - PAGE || from.raw > UINT64_MAX - PAGE - size)
        return 0;
    uint64_t at = (from.raw + PAGE - 1) / PAGE * PAGE, end = (from.raw + size) / PAGE * PAGE;
    uint64_t length = end > at ? end - at : 0, piece, done = 0;
    uint8_t *host = NULL;
    /* Without the table's lock: this takes a while, and RAM stays mapped. */
    while ((piece = discardable(guest, &at, &length, &host)))
        if (madvise(host, piece, MADV_REMOVE) == 0)
            done += piece;
    return done;
}
