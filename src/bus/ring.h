/* Between virtqueue.c, the two kinds of ring, and virtio.c, which enables them. Devices do not
 * include this. */
#pragma once
#include "bus/virtqueue.h"

struct device;
struct virtio_queue_class;
struct virtio_ring;

enum { RING_OWN_SEGMENTS = 18 }; /* of a chain; more are allocated when a chain has more */

/* What the driver says of a queue, copied. */
struct ring_setup {
    uint64_t descriptors, driver, device; /* addresses of the three areas */
    uint16_t size;
    bool packed, event_idx, indirect;
    uint16_t next_avail,
        next_used; /* where the device goes on (packed: bit 15 is the wrap counter) */
};

/* A kind of ring. Texts say what is wrong with it. */
struct ring_ops {
    const char *(*enable)(struct virtqueue *queue, const struct ring_setup *setup);
    bool (*pending)(const struct virtqueue *queue);
    bool (*ahead)(const struct virtqueue *queue, unsigned count);
    const char *(*take)(struct virtqueue *queue, struct chain *chain);
    void (*put_back)(struct virtqueue *queue, const struct chain *chain);
    void (*give)(struct virtqueue *queue, const struct chain *chain, uint32_t written);
    bool (*publish)(struct virtqueue *queue); /* true: interrupt the driver */
    void (*notify)(struct virtqueue *queue, bool on);
    uint16_t (*position)(const struct virtqueue *queue); /* next_avail without what is in flight */
};
extern const struct ring_ops ring_split, ring_packed;

/* Flags of a descriptor, and its size. */
enum { RING_NEXT = 1, RING_WRITE = 2, RING_INDIRECT = 4, RING_DESCRIPTOR = 16 };

struct virtqueue {
    struct device *dev;
    struct guest *guest;
    unsigned index;
    const struct virtio_queue_class *class;

    /* From enable to disable: */
    bool active;
    bool muted; /* it was, and the function may not master the bus now: nothing is taken or given */
    bool lost;  /* what came back meanwhile */
    const struct ring_ops *ops;
    uint16_t size;
    bool event_idx, indirect;
    uint8_t *descriptors, *driver, *device; /* host memory of the three areas */
    uint16_t next_avail, next_used;
    uint16_t seen;        /* split: the driver's index as last read */
    uint16_t unsignalled; /* used entries since the last decision to interrupt or not */
    bool given;           /* pushed, not flushed */
    bool asking;          /* the driver has been asked to tell of what a device waits for */

    unsigned in_flight, in_flight_descriptors;
    void *pool; /* `size` chains of `stride` bytes, of which `made` were in use once */
    size_t stride;
    unsigned made;
    struct chain *idle;
};

/* The first device-writable buffer comes next, or the end. */
static inline void ring_add_in(struct chain *chain)
{
    chain->way = RING_WRITE;
    chain->in = chain->end;
    chain->out_bytes = (uint32_t)chain->bytes;
}
/* Adds a buffer to a chain that is being made. way: RING_WRITE or 0. */
const char *ring_add_other(struct chain *chain, uint64_t at, uint32_t length);
static inline const char *ring_add(struct chain *chain, const struct guest *guest, uint64_t at,
                                   uint32_t length, unsigned way)
{
    if (way != chain->way) {
        if (!way)
            return "a readable buffer behind a writable one";
        ring_add_in(chain);
    }
    uint8_t *host = guest_plain(guest, GPA(at), length);
    if (!host || !length || chain->end == chain->limit)
        return ring_add_other(chain, at, length); /* rare, or wrong */
    *chain->end++ = (struct iovec){ host, length };
    chain->bytes += length;
    return NULL;
}

/* A descriptor as it lies in memory (section 2.7.5; packed: 2.8.13 has its two halves otherwise),
 * read once: two loads that no compiler repeats. */
struct ring_descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t a, b; /* split: flags, next. packed: buffer id, flags */
};
static inline struct ring_descriptor ring_descriptor(const uint8_t *at)
{
    const uint64_t *words = (const uint64_t *)(const void *)at;
    uint64_t first = __atomic_load_n(words, __ATOMIC_RELAXED);
    uint64_t second = __atomic_load_n(words + 1, __ATOMIC_RELAXED);
    guest_watch(at, 16, WATCH_FETCH);
    return (struct ring_descriptor){ first, (uint32_t)second, (uint16_t)(second >> 32),
                                     (uint16_t)(second >> 48) };
}
/* An index or flags, in order with what is read after. */
static inline uint16_t ring_load(const uint8_t *at)
{
    uint16_t value = __atomic_load_n((const uint16_t *)(const void *)at, __ATOMIC_ACQUIRE);
    guest_watch(at, 2, WATCH_POLL);
    return value;
}
static inline void ring_store(uint8_t *at, uint16_t value)
{
    __atomic_store_n((uint16_t *)(void *)at, value, __ATOMIC_RELEASE);
}

/* Did the index pass `event` on its last `added` steps to `index`? (section 2.7.7.1) */
static inline bool ring_event(uint16_t event, uint16_t index, uint16_t added)
{
    return (uint16_t)(index - event - 1) < added;
}

/* --- for virtio.c --- */

struct virtqueue *virtqueue_new(struct device *dev, unsigned index,
                                const struct virtio_queue_class *class);
void virtqueue_free(struct virtqueue *queue); /* NULL is allowed */
/* NULL, or what is wrong: then the queue stays off. Nothing may be in flight. */
const char *virtqueue_enable(struct virtqueue *queue, const struct ring_setup *setup);
void virtqueue_disable(struct virtqueue *queue);
/* Lends the queue: where its ring is and goes on. False: it is off, or chains are held. */
bool virtqueue_lend(struct virtqueue *queue, struct virtio_ring *ring);
void virtqueue_ring(const struct virtqueue *queue, struct virtio_ring *ring);
/* It is back, and goes on where `ring` says; false: that is no position, it goes on where it was.
 */
bool virtqueue_return(struct virtqueue *queue, const struct virtio_ring *ring);
bool virtqueue_is_enabled(const struct virtqueue *queue); /* active, or muted */
/* Without bus mastering a function reads and writes no memory (PCI 3.0 section 6.2.2): an enabled
 * queue is mute, devices see it empty. False when it speaks again and has lost a request. */
bool virtqueue_mute(struct virtqueue *queue, bool on);
void virtqueue_positions(const struct virtqueue *queue, uint16_t *next_avail, uint16_t *next_used);
/* Asks the driver for notifications, or not. Look at virtqueue_pending after asking. */
void virtqueue_notify(struct virtqueue *queue, bool on);

/* What the queue tells virtio.c. */
void virtio_interrupt(struct device *dev, unsigned index);
void virtio_drained(struct device *dev); /* a chain came back while the queue was off */
