/* Virtqueues of a device of class FUZZ_CLASS, from bytecode: a driver that adds chains of all
 * shapes to split and packed rings, kicks, suppresses, resets the device and its queues between any
 * two steps, while the backend finishes requests late, in another order, or with errors.
 *
 * The first byte says how: a tidy driver follows the specification (then virtio-blk must answer all
 * and never break); a wild one also writes anything into rings, tables and registers. With FLIP the
 * guest changes everything that the device has fetched at once after that: a tidy driver's device
 * must not notice, as it reads nothing twice.
 *
 * What is checked: every byte that the device writes lies in a writable buffer of a chain it may
 * hold, in its used ring or its event structure; nothing is written after a reset is complete; each
 * byte of a descriptor, an available entry or a request's header is fetched once (tidy); the loop
 * comes to rest; nothing stays in flight after a reset; the state can be saved and loaded. */
#include "base/loop.h"
#include "bus/ring.h"
#include "rig/virtio-driver.h"

#include <errno.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The memory that the driver uses. */
enum {
    QUEUES = 4,
    IDS = 16, /* entries of a ring at most */
    ARENA = 0x10000,
    RINGS = ARENA, /* of each queue: descriptors, the driver's part, the device's part */
    RING_SIZE = 0x800,
    DRIVER_PART = 0x400,
    DEVICE_PART = 0x600,
    TABLES = RINGS + QUEUES * RING_SIZE, /* of each chain */
    TABLE_SIZE = 0x100,
    BUFFERS = TABLES + QUEUES * IDS * TABLE_SIZE,
    BUFFER_SIZE = 0x400,
    END = BUFFERS + QUEUES * IDS * BUFFER_SIZE,
    SIZE = END - ARENA,
};
enum { TIDY = 1, PACKED = 2, EVENTS = 4, INDIRECT = 8, MSIX = 16, FLIP = 32, RESETS = 64 };
enum { REST_TURNS = 500 };
enum { D_NEXT = 1, D_WRITE = 2, D_INDIRECT = 4, D_AVAIL = 1 << 7, D_USED = 1 << 15, WRAP = 0x8000 };

struct slot {
    bool busy;
    uint32_t out, in; /* bytes: `in` behind `out` in its buffer */
    unsigned entries; /* of the ring */
    uint16_t descriptor[IDS];
};
struct queue {
    bool on, resetting;
    unsigned size, left;
    uint16_t available, seen;
    bool taken[IDS]; /* split: descriptors */
    struct slot slot[IDS];
};
struct fuzz {
    struct rig *rig;
    struct driver *driver;
    const uint8_t *code;
    size_t length;
    unsigned how, count; /* of queues */
    bool resetting, outside, in_device;
    unsigned polls;
    uint8_t *ram;
    struct queue queue[QUEUES];
    uint8_t shadow[SIZE]; /* the arena as it was before the device's turn */
    bool fetched[SIZE];   /* since the driver wrote it */
    bool writable[SIZE];  /* wild: by any descriptor that was seen since the reset */
    bool scanned;         /* the arena has no descriptor that is not in `writable` */
};

static struct fuzz *current; /* for guest_watch */

static bool is(const struct fuzz *f, unsigned bit)
{
    return f->how & bit;
}

static uint64_t take(struct fuzz *f, unsigned bytes)
{
    uint64_t value = 0;
    size_t n = MIN(bytes, f->length);
    memcpy(&value, f->code, n);
    f->code += n;
    f->length -= n;
    return value;
}

/* --- what the device reads and writes ------------------------------------------------------- */

static void mark(struct fuzz *f, uint64_t at, uint64_t length)
{
    if (at < RIG_RAM && (at < ARENA || at + length > END || at + length < at))
        f->outside = true; /* the rest of RAM is not looked at then */
    if (at + length < at)
        return;
    uint64_t from = MAX(at, ARENA), to = MIN(at + length, END);
    if (from < to)
        memset(f->writable + (from - ARENA), true, to - from);
}

/* Eight-byte steps: where a table may lie, and the offsets of flags in both kinds. */
static void mark_descriptor(struct fuzz *f, unsigned offset)
{
    uint64_t at, second;
    memcpy(&at, f->ram + ARENA + offset, 8);
    memcpy(&second, f->ram + ARENA + offset + 8, 8);
    if (second >> 32 & D_WRITE || second >> 48 & D_WRITE)
        mark(f, at, (uint32_t)second);
}

static struct virtqueue *virtqueue(const struct fuzz *f, unsigned i)
{
    return virtio_queue(f->rig->dev, i);
}

static unsigned device_queues(const struct fuzz *f)
{
    const struct virtio_class *class = f->rig->dev->class->virtio;
    return class->queue_count ? class->queue_count(f->rig->dev) : class->queues;
}

/* Wild: all that the device may write from now on. */
static void scan(struct fuzz *f)
{
    bool active = false;
    for (unsigned i = 0; i < device_queues(f); i++) {
        const struct virtqueue *q = virtqueue(f, i);
        active |= q->active || q->in_flight;
        if (!q->active)
            continue;
        bool packed = q->ops == &ring_packed;
        mark(f, (uint64_t)(q->device - f->ram), packed ? 4 : 6 + 8u * q->size);
        if (packed)
            mark(f, (uint64_t)(q->descriptors - f->ram), 16u * q->size);
    }
    for (unsigned i = 0; active && !f->scanned && i + 16 <= SIZE; i += 8)
        mark_descriptor(f, i);
    f->scanned |= active;
}

static bool in_part(uint64_t offset, uint64_t start, uint64_t length)
{
    return offset - start < length;
}

static bool may_write(const struct fuzz *f, uint64_t at)
{
    if (!is(f, TIDY))
        return f->writable[at - ARENA];
    if (at < TABLES) {
        const struct queue *q = &f->queue[(at - RINGS) / RING_SIZE];
        uint64_t offset = (at - RINGS) % RING_SIZE;
        if (!q->on)
            return false;
        if (is(f, PACKED))
            return offset < 16 * q->size || in_part(offset, DEVICE_PART, 4);
        return in_part(offset, DEVICE_PART, 6 + 8 * q->size);
    }
    if (at < BUFFERS)
        return false;
    unsigned index = (unsigned)(at - BUFFERS) / BUFFER_SIZE, offset = (at - BUFFERS) % BUFFER_SIZE;
    const struct queue *q = &f->queue[index / IDS];
    const struct slot *slot = &q->slot[index % IDS];
    return q->on && slot->busy && in_part(offset, slot->out, slot->in);
}

/* After everything that the device may have done. */
static void verify(struct fuzz *f)
{
    const uint8_t *arena = f->ram + ARENA;
    if (!memcmp(arena, f->shadow, SIZE))
        return;
    for (unsigned i = 0; i < SIZE; i++) {
        if (i % 64 == 0 && !memcmp(arena + i, f->shadow + i, 64))
            i += 63;
        if (arena[i] == f->shadow[i])
            continue;
        if (!may_write(f, ARENA + i))
            g_error("%s: it wrote to %#x", FUZZ_CLASS, ARENA + i);
        f->shadow[i] = arena[i];
    }
    f->scanned = false;
}

static void flip(struct fuzz *f, unsigned offset, size_t length)
{
    for (unsigned i = offset; i < offset + length; i++) {
        uint8_t mask = 0xff;
        /* Whether a packed descriptor is available goes on to count, one lap later. */
        bool flags = is(f, PACKED) && i < QUEUES * RING_SIZE && i % RING_SIZE < 16 * IDS;
        if (flags && i % 16 >= 14)
            mask = 0x7f;
        f->ram[ARENA + i] ^= mask;
        f->shadow[i] = f->ram[ARENA + i];
    }
    for (unsigned i = offset >= 8 ? (offset - 8) & ~7u : 0; i < offset + length && i + 16 <= SIZE;
         i += 8)
        if (!is(f, TIDY))
            mark_descriptor(f, i);
}

void guest_watch(const void *host, size_t length, enum guest_watch how)
{
    struct fuzz *f = current;
    if (!f || !f->in_device)
        return;
    if (how == WATCH_AGAIN) {
        memset(f->fetched, 0, sizeof f->fetched);
        return;
    }
    uint64_t offset = (uint64_t)((uintptr_t)host - (uintptr_t)(f->ram + ARENA));
    if (offset >= SIZE || length > SIZE - offset)
        return;
    if (how == WATCH_POLL) {
        if (is(f, FLIP) && !is(f, TIDY) && ++f->polls % 4 == 0)
            flip(f, (unsigned)offset, 1);
        return;
    }
    for (size_t i = offset; i < offset + length && is(f, TIDY); i++) {
        if (f->fetched[i])
            g_error("%s: it fetched the byte at %#zx twice", FUZZ_CLASS, ARENA + i);
        f->fetched[i] = true;
    }
    if (is(f, FLIP))
        flip(f, (unsigned)offset, length);
}

/* --- the driver ----------------------------------------------------------------------------- */

static void put(struct fuzz *f, uint64_t at, const void *data, size_t length)
{
    memcpy(f->ram + at, data, length);
    memcpy(f->shadow + (at - ARENA), data, length);
    memset(f->fetched + (at - ARENA), 0, length);
    f->scanned = false;
}

static void put16(struct fuzz *f, uint64_t at, unsigned value)
{
    put(f, at, &(uint16_t){ (uint16_t)value }, 2);
}

static uint16_t get16(const struct fuzz *f, uint64_t at)
{
    uint16_t value;
    memcpy(&value, f->ram + at, 2);
    return value;
}

static uint64_t ring_of(unsigned queue)
{
    return RINGS + queue * RING_SIZE;
}

static uint16_t advance(const struct queue *q, uint16_t position, unsigned by)
{
    unsigned index = (position & ~WRAP) + by, wrap = position & WRAP;
    return (uint16_t)(index < q->size ? index | wrap : (index - q->size) | (wrap ^ WRAP));
}

static void put_descriptor(struct fuzz *f, uint64_t to, uint64_t at, uint32_t length, unsigned a,
                           unsigned b)
{
    const struct {
        uint64_t at;
        uint32_t length;
        uint16_t a, b;
    } d = { at, length, (uint16_t)a, (uint16_t)b };
    put(f, to, &d, sizeof d);
}

struct segment {
    uint64_t at;
    uint32_t length;
    bool in;
};

/* A chain's bytes in `pieces`, of which the last has the rest. */
static unsigned cut(struct segment *list, uint64_t at, uint32_t bytes, unsigned pieces, bool in)
{
    for (unsigned i = 0; i < pieces; i++) {
        uint32_t length = i + 1 < pieces ? bytes / pieces : bytes - bytes / pieces * (pieces - 1);
        list[i] = (struct segment){ at, length, in };
        at += length;
    }
    return pieces;
}

static unsigned descriptor_flags(const struct segment *list, unsigned i, unsigned count)
{
    return (i + 1 < count ? D_NEXT : 0) | (list[i].in ? D_WRITE : 0);
}

static void put_packed(struct fuzz *f, unsigned queue, uint16_t position, const struct segment *s,
                       unsigned id, unsigned flags)
{
    put_descriptor(f, ring_of(queue) + 16 * (position & ~WRAP), s->at, s->length, id,
                   flags | (position & WRAP ? D_AVAIL : D_USED));
}

static void add_packed(struct fuzz *f, unsigned queue, unsigned id, const struct segment *list,
                       unsigned count, uint64_t table)
{
    struct queue *q = &f->queue[queue];
    for (unsigned i = count; i--;)
        if (table)
            put_descriptor(f, table + 16 * i, list[i].at, list[i].length, 0,
                           list[i].in ? D_WRITE : 0);
        else
            put_packed(f, queue, advance(q, q->available, i), &list[i], id,
                       descriptor_flags(list, i, count));
    if (table)
        put_packed(f, queue, q->available, &(struct segment){ table, 16 * count, false }, id,
                   D_INDIRECT);
    q->available = advance(q, q->available, table ? 1 : count);
}

static void add_split(struct fuzz *f, unsigned queue, struct slot *slot, const struct segment *list,
                      unsigned count, uint64_t table)
{
    struct queue *q = &f->queue[queue];
    for (unsigned i = 0, n = 0; i < q->size && n < slot->entries; i++)
        if (!q->taken[i]) {
            q->taken[i] = true;
            slot->descriptor[n++] = (uint16_t)i;
        }
    for (unsigned i = 0; i < count; i++) {
        unsigned flags = descriptor_flags(list, i, count), next = table ? i + 1 : 0;
        if (!table && i + 1 < count)
            next = slot->descriptor[i + 1];
        put_descriptor(f, table ? table + 16 * i : ring_of(queue) + 16 * slot->descriptor[i],
                       list[i].at, list[i].length, flags, next);
    }
    if (table)
        put_descriptor(f, ring_of(queue) + 16 * slot->descriptor[0], table, 16 * count, D_INDIRECT,
                       0);
    put16(f, ring_of(queue) + DRIVER_PART + 4 + 2 * (q->available % q->size), slot->descriptor[0]);
    put16(f, ring_of(queue) + DRIVER_PART + 2, ++q->available);
}

/* Operands: the sizes, the shape, and the first readable bytes. */
static void add(struct fuzz *f)
{
    unsigned queue = (unsigned)take(f, 1) % f->count, shape = (unsigned)take(f, 1);
    uint32_t out = (uint32_t)take(f, 2) % BUFFER_SIZE, in = (uint32_t)take(f, 2) % BUFFER_SIZE;
    unsigned told = (unsigned)take(f, 1) % 64, id = 0;
    uint8_t bytes[64];
    for (unsigned i = 0; i < told; i++)
        bytes[i] = (uint8_t)take(f, 1);
    struct queue *q = &f->queue[queue];
    in = MIN(in, BUFFER_SIZE - out);
    while (id < q->size && q->slot[id].busy)
        id++;
    if (!q->on || id == q->size)
        return;
    uint64_t at = BUFFERS + (queue * IDS + id) * BUFFER_SIZE;
    uint64_t table = is(f, INDIRECT) && shape & 0x80 ? TABLES + (queue * IDS + id) * TABLE_SIZE : 0;
    struct segment list[8];
    unsigned count = cut(list, at, out, out ? 1 + (shape & 3) : 0, false);
    count += cut(list + count, at + out, in, in ? 1 + (shape >> 2 & 3) : 0, true);
    if (!count)
        count = cut(list, at, 0, 1, shape & 4);
    unsigned entries = table ? 1 : count;
    if (q->left < entries)
        return;
    q->left -= entries;
    struct slot *slot = &q->slot[id];
    *slot = (struct slot){ .busy = true, .out = out, .in = in, .entries = entries };
    uint8_t content[BUFFER_SIZE];
    memset(content, 0x44, sizeof content); /* no flag of a descriptor that counts */
    memcpy(content, bytes, MIN(told, out));
    put(f, at, content, sizeof content);
    if (is(f, PACKED))
        add_packed(f, queue, id, list, count, table);
    else
        add_split(f, queue, slot, list, count, table);
}

static bool next_used(const struct fuzz *f, unsigned queue, uint32_t *id, uint32_t *written)
{
    const struct queue *q = &f->queue[queue];
    uint64_t entry = ring_of(queue) + DEVICE_PART + 4 + 8u * (q->seen % q->size);
    if (is(f, PACKED)) {
        entry = ring_of(queue) + 16 * (q->seen & ~WRAP);
        unsigned flags = get16(f, entry + 14), wrap = q->seen & WRAP ? D_AVAIL | D_USED : 0;
        *id = get16(f, entry + 12);
        memcpy(written, f->ram + entry + 8, 4);
        return (flags & (D_AVAIL | D_USED)) == wrap;
    }
    memcpy(id, f->ram + entry, 4);
    memcpy(written, f->ram + entry + 4, 4);
    return get16(f, ring_of(queue) + DEVICE_PART + 2) != q->seen;
}

static unsigned slot_of(const struct fuzz *f, const struct queue *q, uint32_t id)
{
    unsigned i = is(f, PACKED) ? id : 0;
    while (i < q->size && !is(f, PACKED) && !(q->slot[i].busy && q->slot[i].descriptor[0] == id))
        i++;
    return i < q->size && q->slot[i].busy ? i : IDS;
}

static void collect(struct fuzz *f, unsigned queue)
{
    struct queue *q = &f->queue[queue];
    uint32_t id, written;
    for (unsigned n = 0; q->on && n < IDS && next_used(f, queue, &id, &written); n++) {
        unsigned i = slot_of(f, q, id);
        struct slot *slot = &q->slot[i % IDS];
        if (i == IDS || written > slot->in) {
            if (is(f, TIDY))
                g_error("%s: queue %u: %u comes back with %u bytes", FUZZ_CLASS, queue, id,
                        written);
            break;
        }
        slot->busy = false;
        q->left += slot->entries;
        for (unsigned j = 0; j < slot->entries && !is(f, PACKED); j++)
            q->taken[slot->descriptor[j]] = false;
        q->seen = is(f, PACKED) ? advance(q, q->seen, slot->entries) : q->seen + 1;
    }
}

static void suppress(struct fuzz *f)
{
    unsigned queue = (unsigned)take(f, 1) % f->count, value = (unsigned)take(f, 1);
    const struct queue *q = &f->queue[queue];
    uint64_t part = ring_of(queue) + DRIVER_PART;
    if (!q->on)
        return;
    if (is(f, PACKED)) {
        put16(f, part, advance(q, q->seen, value % q->size));
        put16(f, part + 2, value >> 4 & (is(f, EVENTS) ? 3 : 1));
    } else if (is(f, EVENTS)) {
        put16(f, part + 4 + 2 * q->size, q->seen + value);
    } else {
        put16(f, part, value & 1);
    }
}

/* --- life ----------------------------------------------------------------------------------- */

static void enable(struct fuzz *f, unsigned queue, unsigned size)
{
    static const unsigned sizes[] = { 16, 8, 4, 2 }, packed_sizes[] = { 16, 7, 5, 1 };
    struct queue *q = &f->queue[queue];
    size = (is(f, PACKED) ? packed_sizes : sizes)[size % 4];
    driver_write(f->driver, DRIVER_QUEUE_SELECT, 2, queue);
    size = MIN(size, (unsigned)driver_read(f->driver, DRIVER_QUEUE_SIZE, 2));
    if (!size || driver_read(f->driver, DRIVER_QUEUE_ENABLE, 2))
        return;
    *q = (struct queue){ .size = size, .left = size };
    q->available = q->seen = is(f, PACKED) ? WRAP : 0;
    static const uint8_t zeroes[RING_SIZE];
    put(f, ring_of(queue), zeroes, sizeof zeroes);
    const uint64_t parts[] = { ring_of(queue), ring_of(queue) + DRIVER_PART,
                               ring_of(queue) + DEVICE_PART };
    for (unsigned i = 0; i < 3; i++)
        driver_write(f->driver, DRIVER_QUEUE_DESC + 8 * i, 8, parts[i]);
    driver_write(f->driver, DRIVER_QUEUE_SIZE, 2, size);
    if (is(f, MSIX))
        driver_write(f->driver, DRIVER_QUEUE_VECTOR, 2, queue + 1);
    driver_write(f->driver, DRIVER_QUEUE_ENABLE, 2, 1);
    q->on = driver_read(f->driver, DRIVER_QUEUE_ENABLE, 2) == 1;
    if (!q->on && is(f, TIDY) && !(driver_status(f->driver) & DRIVER_NEEDS_RESET))
        g_error("%s: queue %u does not start", FUZZ_CLASS, queue);
}

static void start(struct fuzz *f, unsigned size)
{
    uint64_t wanted = driver_offered(f->driver);
    static const struct {
        unsigned how, feature;
    } choices[] = { { PACKED, VIRTIO_RING_PACKED },
                    { EVENTS, VIRTIO_EVENT_IDX },
                    { INDIRECT, VIRTIO_INDIRECT_DESC },
                    { RESETS, VIRTIO_RING_RESET } };
    for (unsigned i = 0; i < G_N_ELEMENTS(choices); i++)
        if (!is(f, choices[i].how))
            wanted &= ~(UINT64_C(1) << choices[i].feature);
    if (driver_status(f->driver))
        return;
    if (!driver_negotiate(f->driver, wanted) && is(f, TIDY))
        g_error("%s: it refuses its own features", FUZZ_CLASS);
    if (is(f, MSIX))
        driver_msix(f->driver);
    for (unsigned i = 0; i < f->count; i++)
        enable(f, i, size);
    driver_ok(f->driver);
}

static void reset_device(struct fuzz *f)
{
    driver_write(f->driver, DRIVER_STATUS, 1, 0);
    f->resetting = true;
}

static void reset_queue(struct fuzz *f)
{
    unsigned queue = (unsigned)take(f, 1) % f->count;
    if (!is(f, RESETS) || f->resetting || !f->queue[queue].on)
        return;
    driver_write(f->driver, DRIVER_QUEUE_SELECT, 2, queue);
    driver_write(f->driver, DRIVER_QUEUE_RESET, 2, 1);
    f->queue[queue].resetting = true;
}

/* From the moment at which a reset is complete, what was lent to the device is the driver's. */
static void look_for_resets(struct fuzz *f)
{
    if (!driver_status(f->driver)) {
        f->resetting = false;
        memset(f->queue, 0, sizeof f->queue);
        memset(f->writable, 0, sizeof f->writable);
        f->scanned = false;
    }
    for (unsigned i = 0; i < f->count && !f->resetting; i++)
        if (f->queue[i].resetting) {
            driver_write(f->driver, DRIVER_QUEUE_SELECT, 2, i);
            if (!driver_read(f->driver, DRIVER_QUEUE_RESET, 2))
                f->queue[i] = (struct queue){ .on = false };
        }
}

static void rest(struct fuzz *f)
{
    for (unsigned turns = 0; loop_turn(f->rig->dev->loop); turns++)
        if (turns == REST_TURNS)
            g_error("%s: its loop does not come to rest", FUZZ_CLASS);
}

/* --- operations ----------------------------------------------------------------------------- */

static uint64_t wild_address(struct fuzz *f)
{
    uint64_t value = take(f, 2);
    switch (value & 7) {
    case 0:
        return RIG_RAM - 32 + (value >> 3 & 63);
    case 1:
        return (uint64_t)0 - (value >> 3);
    case 2:
        return rig_bar(f->rig, 4) + (value >> 3);
    default:
        return ARENA + (value >> 3) * 16 % SIZE;
    }
}

/* Anything into a descriptor, or into any place of the arena. */
static void scribble(struct fuzz *f)
{
    unsigned what = (unsigned)take(f, 1);
    if (what & 0x80) {
        uint64_t to = what & 0x40 ? TABLES + take(f, 2) * 16 % (BUFFERS - TABLES)
                                  : ring_of(what % f->count) + (what >> 2 & 15) * 16;
        uint64_t at = wild_address(f);
        uint32_t length = (uint32_t)take(f, 2);
        unsigned a = (unsigned)take(f, 2), b = (unsigned)take(f, 2);
        put_descriptor(f, to, at, length & 0x8000 ? length << 16 : length, a, b);
    } else {
        uint64_t to = ARENA + (take(f, 2) * 2) % (SIZE - 8);
        uint64_t value = take(f, 8);
        put(f, to, &value, 1 + what % 8);
    }
}

static void poke(struct fuzz *f)
{
    unsigned offset = (unsigned)take(f, 1) % 64, width = 1u << take(f, 1) % 4;
    uint64_t value = offset >= DRIVER_QUEUE_DESC && offset < DRIVER_QUEUE_NOTIFY_DATA
                         ? wild_address(f)
                         : take(f, 4);
    if (width == 8)
        offset &= ~7u;
    driver_write(f->driver, offset, width, value);
    driver_read(f->driver, offset, width);
}

static void configure(struct fuzz *f)
{
    unsigned offset = (unsigned)take(f, 1), value = (unsigned)take(f, 4);
    if (is(f, TIDY))
        rig_config_write(f->rig, PCI_COMMAND, 2, value & 1 ? 2 : 6); /* bus mastering */
    else
        rig_config_write(f->rig, offset & 0xfc, 4, value);
}

static void device_config(struct fuzz *f)
{
    unsigned offset = (unsigned)take(f, 1), value = (unsigned)take(f, 4);
    if (!f->driver->config)
        return;
    driver_config(f->driver, offset, 1u << (value & 3));
    if (!is(f, TIDY) || value & 4)
        driver_config_write(f->driver, offset, 1u << (value >> 4 & 3), value);
}

/* The user, time, packets: the rig's own operations that do not touch the driver's side. */
static void outside_world(struct fuzz *f)
{
    uint8_t bytes[6] = { (uint8_t[]){ 13, 13, 10, 14 }[take(f, 1) % 4] };
    for (unsigned i = 1; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)take(f, 1);
    rig_run(f->rig, bytes, bytes[0] == 13 ? 3 : bytes[0] == 10 ? 5 : 1);
}

static void step(struct fuzz *f)
{
    unsigned op = (unsigned)take(f, 1), queue = op >> 4 & 3;
    switch (op & 15) {
    case 0:
    case 1:
        add(f);
        break;
    case 2:
        if (f->driver->notify)
            rig_store(f->rig, f->driver->notify + queue % f->count * f->driver->notify_multiplier,
                      2, queue);
        break;
    case 3:
        loop_turn(f->rig->dev->loop);
        break;
    case 4:
        rest(f);
        break;
    case 5:
        rig_disk_finish(f->rig, op >> 4);
        break;
    case 6:
        f->rig->disk->fail = op & 0x10 ? EIO : 0;
        break;
    case 7:
        collect(f, queue % f->count);
        break;
    case 8:
        suppress(f);
        break;
    case 9:
        if (op & 0x10)
            reset_device(f);
        else
            reset_queue(f);
        break;
    case 10:
        start(f, queue);
        if (!f->resetting && driver_status(f->driver) & DRIVER_OK && !f->queue[queue % f->count].on)
            enable(f, queue % f->count, op >> 6);
        break;
    case 11:
        outside_world(f);
        break;
    case 12:
        configure(f);
        break;
    case 13:
        device_config(f);
        break;
    case 14:
        if (!is(f, TIDY))
            scribble(f);
        break;
    case 15:
        if (!is(f, TIDY))
            poke(f);
        break;
    }
}

/* A disk answers everything that a driver makes available properly, and never breaks. */
static void check_answers(struct fuzz *f)
{
    if (!is(f, TIDY) || strcmp(FUZZ_CLASS, "virtio-blk") != 0 || f->resetting)
        return;
    rig_config_write(f->rig, PCI_COMMAND, 2, 6);
    for (unsigned i = 0; i < 50; i++) {
        rest(f);
        rig_disk_run(f->rig);
    }
    verify(f);
    look_for_resets(f);
    if (driver_status(f->driver) & DRIVER_NEEDS_RESET)
        g_error("%s: it broke", FUZZ_CLASS);
    for (unsigned i = 0; i < f->count; i++) {
        collect(f, i);
        if (f->queue[i].on && f->queue[i].left != f->queue[i].size)
            g_error("%s: queue %u keeps chains", FUZZ_CLASS, i);
    }
}

static bool is_zero(const uint8_t *bytes, size_t length)
{
    return !bytes[0] && !memcmp(bytes, bytes + 1, length - 1);
}

static void finish(struct fuzz *f)
{
    rest(f);
    verify(f);
    if (!is(f, TIDY))
        rig_config_write(f->rig, PCI_COMMAND, 2, 6);
    check_answers(f);
    driver_write(f->driver, DRIVER_STATUS, 1, 0);
    rig_disk_run(f->rig);
    rest(f);
    verify(f);
    if (is(f, TIDY) && driver_status(f->driver))
        g_error("%s: its reset does not end", FUZZ_CLASS);
    /* A NIC that was loaded announces itself, so its state may be another then. */
    bool announces = !is(f, TIDY) && !strcmp(FUZZ_CLASS, "virtio-net");
    if (!announces && !rig_round_trip(f->rig))
        g_error("%s: saved and loaded, its state is another", FUZZ_CLASS);
    device_reset(f->rig->dev);
    for (unsigned i = 0; i < device_queues(f); i++)
        if (virtqueue_in_flight(virtqueue(f, i)))
            g_error("%s: queue %u keeps something in flight", FUZZ_CLASS, i);
    memset(f->queue, 0, sizeof f->queue);
    memset(f->writable, 0, sizeof f->writable);
    rest(f);
    verify(f);
    if (!f->outside && (!is_zero(f->ram, ARENA) || !is_zero(f->ram + END, RIG_RAM - END)))
        g_error("%s: it wrote outside what the driver uses", FUZZ_CLASS);
}

static bool has_option(const struct device_class *class, const char *name)
{
    const struct option *option = class->options;
    while (option && option->name && strcmp(option->name, name) != 0)
        option++;
    return option && option->name;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz *f = g_new0(struct fuzz, 1);
    f->code = data;
    f->length = size;
    f->how = (unsigned)take(f, 1);
    unsigned sizes = (unsigned)take(f, 1);
    /* A balloon throws pages of the driver away, as told. */
    if (!strcmp(FUZZ_CLASS, "virtio-balloon"))
        f->how &= ~(unsigned)TIDY;
    /* These put chains back, and read them again as they are then. */
    if (is(f, TIDY) && (!strcmp(FUZZ_CLASS, "virtio-net") || !strcmp(FUZZ_CLASS, "virtio-vsock")))
        f->how &= ~(unsigned)FLIP;
    const char *const options[] = { "packed", "on", NULL };
    const struct device_class *class = device_class_find(FUZZ_CLASS);
    if (!has_option(class, "packed"))
        f->how &= ~(unsigned)PACKED;
    f->rig = rig_new(class, is(f, PACKED) ? options : NULL);
    f->driver = driver_find(f->rig);
    f->ram = guest_ram_host(f->rig->board.guest, GPA(0), RIG_RAM);
    f->count = MIN((unsigned)driver_read(f->driver, DRIVER_NUM_QUEUES, 2), QUEUES);
    start(f, sizes);
    current = f;
    while (f->length) {
        if (!is(f, TIDY))
            scan(f);
        f->in_device = true;
        step(f);
        f->in_device = false;
        verify(f);
        look_for_resets(f);
    }
    f->in_device = true;
    if (!is(f, TIDY))
        scan(f);
    finish(f);
    current = NULL;
    driver_free(f->driver);
    rig_free(f->rig);
    g_free(f);
    return 0;
}
