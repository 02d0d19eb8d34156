/* A guest that abuses every ring it finds, for ever: of all virtio devices, NVMe, AHCI and e1000,
 * all of them at work at the same time. What it queues is partly what keeps a device busiest (full
 * rings of the longest and most expensive requests), partly wrong (loops, jumping indices,
 * addresses that are no memory, lengths of gigabytes), and rings lie where the devices write.
 * Doorbells are rung without end; what is broken is reset and set up otherwise. Ends by being
 * killed: right is that hv lives and answers meanwhile.
 *
 * Virtio 1.2 section 4.1 and 2.7; NVMe 1.4; AHCI 1.3.1; 82540EM manual (e1000). At CPL 3, natively
 * even on a software KVM. The guest needs 64 MiB; devices are given addresses above 16 MiB only, so
 * they never write over it. A letter on COM1 for each thing set up. */
#include "guest.h"

#include <stddef.h>

enum { KIB = 1024, MIB = 1 << 20, BARS = 0xe0000000u, BAR_SIZE = 2 * MIB, BARS_MAX = 32 };
enum { RAM = 64 * MIB, ARENA = 16 * MIB, BULK = 48 * MIB, BULK_SIZE = 16 * MIB };
enum { STACK_END = 0x70000 };
#define HOME UINT64_C(0xe00000)
enum { TARGETS = 32, QUEUES = 8, QUEUE_SPACE = 64 * KIB };

struct target;
struct kind {
    char letter;
    void (*set_up)(struct target *t);
    void (*hit)(struct target *t); /* one stroke */
};

struct target {
    const struct kind *kind;
    uint32_t function, device; /* device: virtio's device id */
    uint32_t bar[6];
    uint32_t common, notify, stride, config; /* virtio */
    uint32_t count;                          /* of queues, or ports */
    uint32_t size[QUEUES];
    uint32_t index[QUEUES];
    uint32_t space; /* in the arena */
};

static struct target targets[TARGETS];
static uint32_t target_count, bars_used;

/* --- memory --------------------------------------------------------------------------------- */

static void write8(uint32_t at, uint32_t value)
{
    *(volatile uint8_t *)(uint64_t)at = (uint8_t)value;
}

static void write16(uint32_t at, uint32_t value)
{
    *(volatile uint16_t *)(uint64_t)at = (uint16_t)value;
}

static void write64(uint32_t at, uint64_t value)
{
    *(volatile uint64_t *)(uint64_t)at = value;
}

static uint8_t read8(uint32_t at)
{
    return *(volatile uint8_t *)(uint64_t)at;
}

static uint16_t read16(uint32_t at)
{
    return *(volatile uint16_t *)(uint64_t)at;
}

/* True once in n. */
static bool seldom(uint32_t n)
{
    return random_next() % n == 0;
}

static uint32_t below(uint32_t n)
{
    return random_next() % n;
}

/* RAM above 16 MiB for a buffer of that size; now and then, rings. */
static uint32_t some_memory(uint32_t size)
{
    if (seldom(256))
        return ARENA + below(BULK - ARENA);
    return BULK + (size < BULK_SIZE ? below(BULK_SIZE - size) : 0);
}

/* Where no buffer may be, but where nothing of the guest is either. */
static uint64_t wrong_address(void)
{
    static const uint64_t edges[] = {
        RAM - 1,    RAM,         0xe0000000,         0xfed00000, 0xfffffffffffff000, 0xfee00000,
        0xffffffff, 0x100000000, 0x7fffffffffffffff, BARS + 64,  0x8000000000000000, RAM - 4096
    };
    return seldom(3) ? (uint64_t)random_next() << 32 | random_next()
                     : edges[below(sizeof edges / sizeof edges[0])];
}

static void letter(char c)
{
    outb(COM1, (uint8_t)c);
}

/* --- virtio --------------------------------------------------------------------------------- */

enum { NET = 1, BLOCK, CONSOLE, RNG, BALLOON, INPUT = 18, VSOCK };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
enum { HEADER = 64, AVAILABLE = 0x4000, USED = 0x5000, HEADERS = 0x8000, TABLES = 0xc000 };

/* What a device finds at the front of a request, by its kind; how long it is. */
static uint32_t virtio_header(const struct target *t, uint32_t queue, uint32_t at)
{
    static const uint8_t block_types[] = { 0, 0, 0, 1, 1, 4, 8, 11, 11, 13, 13, 14, 99 };
    for (uint32_t i = 0; i < HEADER; i += 4)
        mmio_write(at + i, random_next());
    switch (t->device) {
    case BLOCK:
        mmio_write(at, block_types[below(sizeof block_types)]);
        write64(at + 8, below(128 * 1024));
        write64(at + 16, below(128 * 1024)); /* a range of a discard */
        mmio_write(at + 24, seldom(2) ? 128 * 1024 : below(4096));
        mmio_write(at + 28, seldom(4));
        return seldom(4) ? HEADER : seldom(2) ? 32 : 16;
    case NET:
        write16(at, (uint32_t)(below(4) | below(6) << 8)); /* flags, gso_type */
        write16(at + 2, below(128));
        write16(at + 4, below(2000));
        if (queue && seldom(4)) { /* the control queue's classes and commands */
            write8(at, below(6));
            write8(at + 1, below(6));
        }
        mmio_write(at + 24, 0x00450008); /* IPv4 */
        return seldom(2) ? HEADER : 12;
    case VSOCK:
        write64(at, mmio_read(t->config));
        write64(at + 8, 2);
        mmio_write(at + 16, seldom(2) ? 1024 : below(4));
        mmio_write(at + 20, seldom(2) ? 1024 : below(4));
        mmio_write(at + 24, seldom(8) ? random_next() : below(4096));
        mmio_write(at + 28, 1 | below(10) << 16); /* type, operation */
        return 44;
    case BALLOON:
        for (uint32_t i = 0; i < HEADER; i += 4)
            mmio_write(at + i, (ARENA >> 12) + below((RAM - ARENA) >> 12));
        return HEADER;
    default:
        return 1 + below(HEADER);
    }
}

/* Queues whose buffers the device fills. */
static bool receives(const struct target *t, uint32_t queue)
{
    switch (t->device) {
    case NET:
        return queue % 2 == 0 && queue + 1 != t->count;
    case CONSOLE:
    case VSOCK:
        return queue % 2 == 0;
    case BALLOON:
        return queue >= 3;
    case INPUT:
        return queue == 0;
    default:
        return t->device == RNG;
    }
}

static void descriptor(uint32_t at, uint64_t address, uint32_t length, uint32_t flags,
                       uint32_t next)
{
    write64(at, address);
    mmio_write(at + 8, length);
    write16(at + 12, flags);
    write16(at + 14, next);
}

/* Pages for the balloon, none beside the one before. */
static void fill_pages(uint32_t at, uint32_t bytes)
{
    uint32_t page = below(4096);
    for (uint32_t i = 0; i < bytes; i += 4) {
        page = (page + 7) % ((RAM - ARENA) >> 12);
        mmio_write(at + i, (ARENA >> 12) + page);
    }
}

static uint32_t long_length(void)
{
    static const uint32_t lengths[] = { 1, 512, 4096, 65536, 65536, MIB, BULK_SIZE, 0x7fffffff, 0 };
    uint32_t n = below(seldom(500) ? 9 : 7);
    return lengths[n];
}

/* A chain of `length` descriptors from `first` in a table of `size`. */
static void chain(const struct target *t, uint32_t queue, uint32_t table, uint32_t size,
                  uint32_t first, uint32_t length)
{
    uint32_t base = t->space + queue * QUEUE_SPACE;
    uint32_t header = base + HEADERS + HEADER * below(64);
    bool in = receives(t, queue) && !seldom(500);
    uint32_t outs = in ? 0 : seldom(3) ? length : 1 + below(length);
    in |= t->device == BLOCK;
    for (uint32_t i = 0; i < length; i++) {
        uint32_t bytes = i ? long_length() : virtio_header(t, queue, header);
        uint64_t at = i ? some_memory(bytes) : header;
        if (i && t->device == BLOCK) /* whole sectors, and the status */
            bytes = i + 1 == length ? 1 : bytes & ~511u;
        descriptor(table + (first + i) % size * 16, at, bytes,
                   (i + 1 < length ? NEXT : 0) | (i >= outs || (in && i + 1 == length) ? WRITE : 0),
                   (first + i + 1) % size);
    }
}

/* Fills entries of a queue in one of several ways. */
static void fill(const struct target *t, uint32_t queue)
{
    uint32_t base = t->space + queue * QUEUE_SPACE, size = t->size[queue];
    uint32_t first = below(size);
    switch (seldom(50) ? below(2) : 2 + below(8)) {
    case 0: /* a loop */
        chain(t, queue, base, size, first, 1 + below(size));
        write16(base + first * 16 + 12, NEXT);
        write16(base + first * 16 + 14, seldom(2) ? first : below(65536));
        break;
    case 1: /* nonsense */
        descriptor(base + first * 16, wrong_address(), random_next(), random_next(), random_next());
        break;
    case 2: /* an indirect table, seldom of a wrong length */
    case 3:
    case 4: {
        uint32_t length = 1 + below(seldom(4) ? 512 : 64);
        chain(t, queue, base + TABLES, 512, 0, length);
        descriptor(base + first * 16, base + TABLES, seldom(200) ? random_next() : length * 16,
                   INDIRECT | (seldom(200) ? NEXT : 0), below(size));
        break;
    }
    case 5: /* one chain with all there is */
        chain(t, queue, base, size, first, size);
        break;
    case 6: /* a long list of pages, of which nothing is free */
        fill_pages(BULK, 32 * KIB);
        descriptor(base + first * 16, BULK, 32 * KIB, 0, 0);
        break;
    default:
        chain(t, queue, base, size, first, 1 + below(4));
    }
    if (first < 16 && seldom(4)) /* every head is the same */
        for (uint32_t i = 0; i < size; i++)
            write16(base + AVAILABLE + 4 + 2 * i, first);
    else
        write16(base + AVAILABLE + 4 + 2 * below(size), first);
}

static void virtio_features(uint32_t common, bool all)
{
    for (uint32_t half = 0; half < 2; half++) {
        mmio_write(common, half);
        uint32_t offered = mmio_read(common + 4);
        if (!all)
            offered &= random_next();
        if (half) /* the packed ring is left out: this guest's are split */
            offered = (offered & ~4u) | 1;
        mmio_write(common + 8, half);
        mmio_write(common + 12, offered);
    }
}

static void rewind(struct target *t, uint32_t queue)
{
    uint32_t base = t->space + queue * QUEUE_SPACE;
    t->index[queue] = 0;
    write16(base + AVAILABLE + 2, 0);
    write16(base + USED + 2, 0);
}

static void virtio_set_up(struct target *t)
{
    uint32_t common = t->common;
    write8(common + 20, 0);
    for (int i = 0; i < 1000 && read8(common + 20); i++)
        ;
    write8(common + 20, 1);
    write8(common + 20, 3);
    virtio_features(common, seldom(2));
    write8(common + 20, 11);
    if (!(read8(common + 20) & 8)) { /* not all combinations are taken */
        virtio_features(common, true);
        write8(common + 20, 11);
    }
    write16(common + 16, seldom(2) ? 0 : 0xffff);
    t->count = read16(common + 18);
    for (uint32_t q = 0; q < QUEUES && q < t->count; q++) {
        uint32_t base = t->space + q * QUEUE_SPACE;
        write16(common + 22, q);
        uint32_t size = read16(common + 24);
        while (size > 1 && (size > 512 || seldom(4)))
            size /= 2;
        t->size[q] = size ? size : 1;
        write16(common + 24, size);
        write16(common + 26, seldom(2) ? q : 0xffff);
        write64(common + 32, base);
        write64(common + 40, base + AVAILABLE);
        write64(common + 48, base + USED);
        for (uint32_t i = 0; i < t->size[q]; i++)
            write16(base + AVAILABLE + 4 + 2 * i, i);
        write16(base + AVAILABLE, seldom(2)); /* no interrupts */
        rewind(t, q);
        for (uint32_t i = 0; i < 16; i++)
            chain(t, q, base, t->size[q], i * 4, 1 + below(4));
        if (!seldom(16))
            write16(common + 28, 1);
    }
    write8(common + 20, 15);
}

static void virtio_hit(struct target *t)
{
    uint32_t queue = below(t->count < QUEUES ? t->count : QUEUES), size = t->size[queue];
    uint32_t base = t->space + queue * QUEUE_SPACE;
    if (read8(t->common + 20) & 0xc0 || seldom(2000)) {
        virtio_set_up(t);
        letter(t->kind->letter);
        return;
    }
    if (seldom(4))
        fill(t, queue);
    t->index[queue] += seldom(2000) ? random_next() : seldom(2) ? size : 1 + below(size);
    /* No more than fits behind what the device has used, but seldom. */
    uint32_t used = read16(base + USED + 2);
    if ((uint16_t)(t->index[queue] - used) > size && !seldom(2000))
        t->index[queue] = used + size;
    __asm__ volatile("" : : : "memory");
    write16(base + AVAILABLE + 2, t->index[queue]);
    for (uint32_t i = 1 + below(4); i; i--)
        write16(t->notify + queue * t->stride, queue);
    if (seldom(400)) { /* one queue alone is reset and enabled anew */
        write16(t->common + 22, queue);
        write16(t->common + 58, 1);
        rewind(t, queue);
        write16(t->common + 28, 1);
    }
    if (seldom(100))
        write8(t->config + below(64), random_next());
    if (seldom(100))
        write16(t->common + 16 + 2 * below(24), random_next() & ~0x1fu); /* never a good status */
}

/* --- NVMe ----------------------------------------------------------------------------------- */

enum { NVME_ENTRIES = 256, NVME_IO = 4 };

static uint32_t nvme_queue(const struct target *t, uint32_t queue, bool completion)
{
    return t->space + queue * 2 * QUEUE_SPACE / 2 + (completion ? 0x8000 : 0);
}

static void nvme_command(uint32_t at, uint32_t opcode, uint32_t namespace, uint64_t prp1,
                         uint64_t prp2)
{
    mmio_write(at, (opcode & 0xffff) | random_next() << 16);
    mmio_write(at + 4, namespace);
    write64(at + 24, prp1);
    write64(at + 32, prp2);
    for (uint32_t i = 40; i < 64; i += 4)
        mmio_write(at + i, random_next());
}

static void nvme_submit(struct target *t, uint32_t queue, uint32_t commands)
{
    t->index[queue] = (t->index[queue] + commands) % NVME_ENTRIES;
    mmio_write(t->bar[0] + 0x1000 + 8 * queue, t->index[queue]);
}

static void nvme_set_up(struct target *t)
{
    uint32_t r = t->bar[0];
    mmio_write(r + 0x14, 0);
    for (int i = 0; i < 10000 && mmio_read(r + 0x1c) & 1; i++)
        ;
    mmio_write(r + 0x24, (NVME_ENTRIES - 1) << 16 | (NVME_ENTRIES - 1));
    write64(r + 0x28, nvme_queue(t, 0, false));
    write64(r + 0x30, nvme_queue(t, 0, true));
    mmio_write(r + 0x14, 0x460001);
    for (int i = 0; i < 10000 && !(mmio_read(r + 0x1c) & 1); i++)
        ;
    for (uint32_t q = 0; q <= NVME_IO; q++)
        t->index[q] = 0;
    for (uint32_t q = 1; q <= NVME_IO; q++) {
        for (uint32_t submission = 0; submission < 2; submission++) {
            uint32_t at = nvme_queue(t, 0, false) + 64 * (2 * (q - 1) + submission);
            nvme_command(at, submission ? 1 : 5, 0, nvme_queue(t, q, !submission), 0);
            mmio_write(at + 40, (NVME_ENTRIES - 1) << 16 | q);
            mmio_write(at + 44, submission ? q << 16 | 1 : 1);
        }
    }
    nvme_submit(t, 0, 2 * NVME_IO);
    for (int i = 0; i < 1000; i++)
        mmio_read(r + 0x1c);
}

static void nvme_io(const struct target *t, uint32_t queue, uint32_t slot)
{
    static const uint8_t opcodes[] = { 2, 2, 2, 1, 1, 0, 4, 5, 8, 8, 9, 9 };
    uint32_t at = nvme_queue(t, queue, false) + 64 * slot;
    nvme_command(at, seldom(16) ? random_next() : opcodes[below(sizeof opcodes)], 1,
                 seldom(32) ? wrong_address() : BULK + 4096 * below(1024),
                 seldom(32) ? wrong_address() : BULK + 4096 * below(1024) + 8 * below(2) * 511);
    write64(at + 40, below(128 * 1024));
    mmio_write(at + 48, seldom(2) ? below(65536) : below(256));
}

static void nvme_hit(struct target *t)
{
    uint32_t queue = below(NVME_IO + 1);
    if (mmio_read(t->bar[0] + 0x1c) & 2 || seldom(1000)) {
        nvme_set_up(t);
        letter(t->kind->letter);
        return;
    }
    if (seldom(4)) /* PRP lists that point to themselves and to everything */
        for (uint32_t i = 0, at = BULK + 4096 * below(1024); i < 512; i++)
            write64(at + 8 * i, seldom(64) ? wrong_address() : BULK + 4096 * below(1024));
    for (uint32_t i = below(NVME_ENTRIES / 4); i; i--) {
        uint32_t slot = below(NVME_ENTRIES);
        if (queue)
            nvme_io(t, queue, slot);
        else
            nvme_command(nvme_queue(t, 0, false) + 64 * slot, seldom(4) ? random_next() : below(32),
                         below(3), BULK + 4096 * below(1024), wrong_address());
    }
    nvme_submit(t, queue, seldom(1000) ? random_next() : below(NVME_ENTRIES));
    mmio_write(t->bar[0] + 0x1004 + 8 * queue, seldom(1000) ? random_next() : below(NVME_ENTRIES));
}

/* --- AHCI ----------------------------------------------------------------------------------- */

enum { AHCI_SLOTS = 32, AHCI_PORTS = 6, AHCI_TABLES = 0x2000 };

static void ahci_set_up(struct target *t)
{
    uint32_t r = t->bar[5];
    mmio_write(r + 4, 0x80000001);
    for (int i = 0; i < 1000 && mmio_read(r + 4) & 1; i++)
        ;
    mmio_write(r + 4, 0x80000002);
    for (uint32_t p = 0; p < AHCI_PORTS; p++) {
        uint32_t port = r + 0x100 + 0x80 * p, base = t->space + p * QUEUE_SPACE;
        write64(port, base);
        write64(port + 8, base + 0x1000);
        mmio_write(port + 0x14, 0xffffffff);
        mmio_write(port + 0x30, 0xffffffff);
        mmio_write(port + 0x18, 0x11);
    }
}

static void ahci_slot(const struct target *t, uint32_t port, uint32_t slot)
{
    static const uint8_t commands[] = { 0x25, 0x35, 0xec, 0xea, 0x60, 0x61, 0x06, 0xa0, 0xa1,
                                        0xc8, 0xca, 0x20, 0x30, 0xef, 0x42, 0x2f, 0xe7, 0xb0 };
    uint32_t base = t->space + port * QUEUE_SPACE, header = base + 32 * slot;
    uint32_t table = base + AHCI_TABLES + 0x400 * (slot % 16);
    uint32_t entries = seldom(8) ? 65535 : 1 + below(64);
    mmio_write(header, 5 | (random_next() & 0x4e0) | entries << 16);
    mmio_write(header + 4, 0);
    write64(header + 8, seldom(64) ? wrong_address() : table);
    for (uint32_t i = 0; i < 64; i += 4)
        mmio_write(table + i, random_next());
    write8(table, 0x27);
    write8(table + 1, 0x80);
    write8(table + 2, seldom(16) ? random_next() : commands[below(sizeof commands)]);
    write16(table + 5, 0x4000);
    write8(table + 7, 0x40);
    mmio_write(table + 0x40, 0x28 | random_next() << 8); /* SCSI: READ (10) */
    for (uint32_t i = 0; i < 56; i++) {
        uint32_t at = table + 0x80 + 16 * i;
        write64(at, seldom(200) ? wrong_address() : (some_memory(65536) & ~1u));
        mmio_write(at + 12, seldom(8) ? 0x3fffff : 0xffff);
    }
}

static void ahci_hit(struct target *t)
{
    uint32_t p = below(AHCI_PORTS), port = t->bar[5] + 0x100 + 0x80 * p;
    if (seldom(2000)) {
        ahci_set_up(t);
        letter(t->kind->letter);
        return;
    }
    for (uint32_t i = below(8); i; i--)
        ahci_slot(t, p, below(AHCI_SLOTS));
    mmio_write(port + 0x34, random_next()); /* SACT */
    mmio_write(port + 0x38, seldom(2) ? 0xffffffff : random_next());
    if (mmio_read(port + 0x30) & 0x78000000 || seldom(50)) { /* an error stops it: off and on */
        mmio_write(port + 0x18, 0x10);
        mmio_write(port + 0x30, 0xffffffff);
        mmio_write(port + 0x18, 0x11);
    }
    if (seldom(200)) {
        mmio_write(port + 0x2c, 1);
        mmio_write(port + 0x2c, 0);
    }
}

/* --- e1000 ---------------------------------------------------------------------------------- */

enum { E1000_ENTRIES = 4096, E1000_RECEIVE = 0x10000 };

static void e1000_set_up(struct target *t)
{
    uint32_t r = t->bar[0];
    mmio_write(r, 1u << 26);
    mmio_write(r, 0x40);
    write64(r + 0x3800, t->space);
    mmio_write(r + 0x3808, E1000_ENTRIES * 16);
    write64(r + 0x2800, t->space + E1000_RECEIVE);
    mmio_write(r + 0x2808, E1000_ENTRIES * 16);
    for (uint32_t i = 0; i < E1000_ENTRIES; i++)
        write64(t->space + E1000_RECEIVE + 16 * i, some_memory(2048));
    mmio_write(r + 0x400, 0x0004010a);
    mmio_write(r + 0x100, 0x0000801a | (random_next() & 0x02030020));
    mmio_write(r + 0xd0, random_next());
    mmio_write(r + 0x2818, E1000_ENTRIES - 1);
}

static void e1000_hit(struct target *t)
{
    uint32_t r = t->bar[0];
    if (seldom(2000)) {
        e1000_set_up(t);
        letter(t->kind->letter);
        return;
    }
    for (uint32_t i = below(512); i; i--) {
        uint32_t at = t->space + 16 * below(E1000_ENTRIES);
        uint32_t kind = below(8) ? (seldom(4) ? 0u << 20 : 1u << 20) | 1u << 29 : 0;
        write64(at, seldom(200) ? wrong_address() : some_memory(65536));
        mmio_write(at + 8, (seldom(8) ? below(1 << 20) : below(2048)) | kind | random_next() << 24);
        mmio_write(at + 12, random_next());
    }
    mmio_write(r + 0x3818, seldom(100) ? random_next() : below(E1000_ENTRIES));
    mmio_write(r + 0x2818, seldom(100) ? random_next() : below(E1000_ENTRIES));
    (void)mmio_read(r + 0xc0);
    if (seldom(50))
        mmio_write(r + 0xc4, below(65536));
    if (seldom(50))
        mmio_write(r + 0xc8, random_next());
}

/* --- the machine ---------------------------------------------------------------------------- */

static const struct kind kinds[] = {
    { 'v', virtio_set_up, virtio_hit },
    { 'n', nvme_set_up, nvme_hit },
    { 'a', ahci_set_up, ahci_hit },
    { 'e', e1000_set_up, e1000_hit },
};

static const struct kind *kind_of(uint32_t function)
{
    uint32_t id = pci_read(function, 0), class = pci_read(function, 8) >> 8;
    if ((id & 0xffff) == 0x1af4)
        return &kinds[0];
    if (class == 0x010802)
        return &kinds[1];
    if (class == 0x010601)
        return &kinds[2];
    return id == 0x100e8086 ? &kinds[3] : NULL;
}

/* Every memory BAR gets a place of its own, as far as there are some. */
static void place(struct target *t)
{
    for (uint32_t i = 0; i < 6; i++) {
        uint32_t reg = 0x10 + 4 * i;
        pci_write(t->function, reg, 0xffffffff);
        uint32_t mask = pci_read(t->function, reg);
        if (!(mask & ~15u) || mask & 1 || bars_used == BARS_MAX)
            continue;
        t->bar[i] = BARS + BAR_SIZE * bars_used++;
        pci_write(t->function, reg, t->bar[i]);
        if (mask & 4)
            pci_write(t->function, 0x14 + 4 * i++, 0);
    }
    pci_write(t->function, 4, 6); /* memory, bus master */
}

static void find_windows(struct target *t)
{
    t->device = (pci_read(t->function, 0) >> 16) - 0x1040;
    for (uint32_t at = pci_read(t->function, 0x34) & 0xfc; at;
         at = pci_read(t->function, at) >> 8 & 0xfc) {
        uint32_t head = pci_read(t->function, at);
        uint32_t where = t->bar[pci_read(t->function, at + 4) % 6] + pci_read(t->function, at + 8);
        if ((head & 0xff) == 0x11 && t->device % 2) /* MSI-X, for every other device */
            pci_write(t->function, at, pci_read(t->function, at) | 1u << 31);
        if ((head & 0xff) != 9)
            continue;
        if (head >> 24 == 1)
            t->common = where;
        if (head >> 24 == 4)
            t->config = where;
        if (head >> 24 != 2)
            continue;
        t->notify = where;
        t->stride = pci_read(t->function, at + 16);
    }
}

static void find_targets(void)
{
    for (uint32_t function = 0; function < 256 && target_count < TARGETS; function++) {
        const struct kind *kind = pci_read(function, 0) == 0xffffffff ? NULL : kind_of(function);
        if (!kind)
            continue;
        struct target *t = &targets[target_count];
        t->kind = kind;
        t->function = function;
        t->space = ARENA + target_count * MIB;
        place(t);
        if (kind == &kinds[0])
            find_windows(t);
        if (kind == &kinds[0] && (!t->common || !t->notify))
            continue;
        if (!t->config)
            t->config = t->common + 64;
        target_count++;
    }
}

static _Noreturn void user_main(void)
{
    for (;;) {
        struct target *t = &targets[below(target_count)];
        for (uint32_t i = below(64); i; i--)
            t->kind->hit(t);
    }
}

/* What devices take for an address is often a small number, and the guest lives low: it moves,
 * tables and all, to where such numbers do not lead. Linear addresses stay. */
static void move_home(void)
{
    memcpy((void *)HOME, (const void *)0, STACK_END);
    *(volatile uint64_t *)(HOME + 0x1000) = HOME + 0x2003;
    for (uint64_t i = 0; i < 4; i++)
        *(volatile uint64_t *)(HOME + 0x2000 + 8 * i) = HOME + 0x3003 + 0x1000 * i;
    *(volatile uint64_t *)(HOME + 0x3000) = HOME | 0x83;
    __asm__ volatile("mov %0, %%cr3" : : "r"(HOME + 0x1000) : "memory");
}

uint8_t main(void)
{
    serial_init();
    move_home();
    find_targets();
    for (uint32_t i = 0; i < target_count; i++)
        targets[i].kind->set_up(&targets[i]);
    print("rings: ");
    print_number(target_count);
    print("\n");
    user_run(user_main, RAM, BARS, BAR_SIZE * BARS_MAX);
}
