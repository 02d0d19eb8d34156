/* Guest memory: the only types and calls through which it is reached.
 *
 * The guest sees slots: ranges of guest-physical addresses backed by host memory (RAM, ROM, video
 * memory). One memfd holds all RAM; it is mapped once and never unmapped while the machine lives,
 * so a host span stays valid although its slot moves. Everything is whole or nothing, and goes to
 * RAM only: a device's DMA never reaches MMIO, so there is no re-entrancy. Locks: the slot table
 * has its own, a leaf; any thread may call everything here. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

/* A guest-physical address. Neither an integer nor a host pointer. */
typedef struct {
    uint64_t raw;
} gpa;
#define GPA(address) ((gpa){ (address) })

/* Integers as they lie in guest memory; read them with le16_get() and kin. */
typedef struct {
    uint16_t raw;
} le16;
typedef struct {
    uint32_t raw;
} le32;
typedef struct {
    uint64_t raw;
} __attribute__((packed, aligned(4))) le64;

static inline uint16_t le16_get(le16 v)
{
    return v.raw;
}
static inline uint32_t le32_get(le32 v)
{
    return v.raw;
}
static inline uint64_t le64_get(le64 v)
{
    return v.raw;
}
static inline le16 le16_of(uint16_t v)
{
    return (le16){ v };
}
static inline le32 le32_of(uint32_t v)
{
    return (le32){ v };
}
static inline le64 le64_of(uint64_t v)
{
    return (le64){ v };
}

struct guest;

/* Test builds (tests/fuzz/fuzz-ring.c) see what is read of the guest's structures, byte for byte,
 * and change it behind: WATCH_FETCH what is judged and used, WATCH_POLL an index or a flag that is
 * looked at again and again, WATCH_AGAIN (all of) what is read again because it was put back. */
enum guest_watch { WATCH_FETCH, WATCH_POLL, WATCH_AGAIN };
#ifdef GUEST_WATCH
void guest_watch(const void *host, size_t length, enum guest_watch how);
#else
static inline void guest_watch(const void *host, size_t length, enum guest_watch how)
{
    (void)host, (void)length, (void)how;
}
#endif

enum slot_flags {
    SLOT_READONLY = 1, /* guest writes become MMIO exits */
    SLOT_LOG = 2,      /* dirty logging */
};

/* Who tells the hypervisor about slots: KVM in a machine, nobody in a test. Called with the slot
 * table locked; size 0 deletes. `dirty` fetches and clears the bitmap of a logged slot, one bit for
 * each 4 KiB page. Both return 0 or -errno. */
struct slot_provider {
    int (*set)(void *opaque, unsigned slot, gpa at, uint64_t size, void *host, unsigned flags);
    int (*dirty)(void *opaque, unsigned slot, uint64_t *bitmap);
};

/* RAM goes below this and from 4 GiB; between lie ECAM, PCI and the chipset. */
#define LOW_RAM_LIMIT (2 * GIB)
#define HIGH_RAM_BASE (4 * GIB)
#define LEGACY_BASE   0xa0000 /* the hole below 1 MiB: VGA, option ROMs, BIOS */
#define LEGACY_END    0x100000

/* RAM of `size` bytes (a multiple of 1 MiB, at least 1 MiB), without slots yet. */
struct guest *guest_new(uint64_t size, GError **error);
void guest_free(struct guest *guest);
void guest_set_provider(struct guest *guest, const struct slot_provider *provider, void *opaque);

uint64_t guest_ram_size(const struct guest *guest);
uint64_t guest_low_ram(const struct guest *guest);  /* the end of RAM below 4 GiB */
uint64_t guest_high_ram(const struct guest *guest); /* the size of RAM above 4 GiB */
/* The host memory behind RAM at `at`, whether or not a slot shows it (PAM shadows); NULL when the
 * range is not in RAM. Only for who makes slots, and who fills RAM before the guest runs. */
void *guest_ram_host(struct guest *guest, gpa at, uint64_t size);
/* All of RAM is zeros again, and the host gets its memory back. No vCPU runs. */
void guest_ram_clear(struct guest *guest);

/* Makes the slots of all RAM but the legacy hole (LEGACY_BASE to LEGACY_END), which stay as long as
 * the machine lives. False when the hypervisor refuses. */
bool guest_show_ram(struct guest *guest);

/* A new slot number, with nothing in it. */
unsigned guest_slot_new(struct guest *guest);
/* Puts, moves or (size 0) removes a slot. Page-aligned, and apart from all other slots: false, and
 * no change, otherwise or when the hypervisor refuses. */
bool guest_slot_set(struct guest *guest, unsigned slot, gpa at, uint64_t size, void *host,
                    unsigned flags);

/* Page bits of a SLOT_LOG slot that changed since the last call, by the guest or by guest_write;
 * false when there is none (or the hypervisor failed: then all bits are set). `bitmap` has room for
 * the slot's pages, rounded up to 64. */
bool guest_slot_dirty(struct guest *guest, unsigned slot, uint64_t *bitmap);

/* RAM that is always shown at its place, and so needs neither the table of slots nor its lock:
 * host memory for a range, NULL for all else. What struct guest begins with. */
struct guest_ram {
    uint8_t *host;
    uint64_t size, low;
    /* Ends of the three pieces that guest_show_ram has shown, as offsets; 0 before. */
    uint64_t legacy_end, low_end, high_end;
};
static inline uint8_t *guest_plain(const struct guest *guest, gpa at, uint64_t length)
{
    const struct guest_ram *ram = (const struct guest_ram *)(const void *)guest;
    uint64_t offset = at.raw, end = ram->low_end;
    if (offset < LEGACY_END) {
        end = ram->legacy_end;
    } else if (offset >= HIGH_RAM_BASE) {
        offset = offset - HIGH_RAM_BASE + ram->low;
        end = ram->high_end;
    }
    return offset < end && length <= end - offset ? ram->host + offset : NULL;
}

/* That RAM, for a peer that finds its way in it alone (vhost): at most GUEST_PIECES. How many. */
struct guest_piece {
    gpa at;
    uint64_t size;
    void *host;
};
enum { GUEST_PIECES = 3 };
unsigned guest_pieces(const struct guest *guest, struct guest_piece pieces[GUEST_PIECES]);

/* Copies, whole or nothing: false when any byte of the range is outside the slots, or when writing,
 * in a read-only one. */
bool guest_read(struct guest *guest, gpa from, void *to, size_t length);
bool guest_write(struct guest *guest, gpa to, const void *from, size_t length);

/* Zero copy, for disk and network payload only, never to be parsed in place: appends spans of host
 * memory for the range to iov, of which *used of `room` are taken; neighbours are joined. False,
 * with *used as it was, when it does not fit or is not writable RAM (readable, when !write). */
bool guest_span(struct guest *guest, gpa at, size_t length, bool write, struct iovec *iov,
                unsigned *used, unsigned room);
/* Payload was put into a span got with write: tells dirty tracking. */
void guest_span_written(struct guest *guest, gpa at, size_t length);

/* The same for rings and their payload, which come in single pieces: host memory for a range, or
 * NULL when it is not in one piece, or not writable RAM (readable, when !write). */
void *guest_host(struct guest *guest, gpa at, size_t length, bool write);
void guest_slot_written(struct guest *guest, const void *host, size_t length);
static inline void guest_host_written(struct guest *guest, const void *host, size_t length)
{
    const struct guest_ram *ram = (const struct guest_ram *)(const void *)guest;
    /* No slot of RAM has a log; video memory has. */
    if ((uintptr_t)host - (uintptr_t)ram->host >= ram->size)
        guest_slot_written(guest, host, length);
}
static inline void guest_list_written(struct guest *guest, const struct iovec *iov, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        guest_host_written(guest, iov[i].iov_base, iov[i].iov_len);
}
/* The address at which the guest sees host memory got with guest_host or guest_span; false when it
 * does not see it any more. */
bool guest_address(struct guest *guest, const void *host, gpa *at);

/* The guest does not need what is in the range: the host has the memory back at once, and the guest
 * finds zeroes there. Whole pages of writable RAM only (no ROM, no video memory); what else lies in
 * the range stays as it is. Gives the bytes that were discarded. */
uint64_t guest_discard(struct guest *guest, gpa at, uint64_t length);
