/* Packed virtqueues (virtio 1.2 section 2.8). A position is an index, and a wrap counter in bit 15.
 */
#include "bus/ring.h"

/* Descriptor: address, length, buffer id, flags (section 2.8.13); event suppression structures:
 * offset and wrap counter, flags (section 2.8.14). */
enum {
    DESCRIPTOR_LENGTH = 8,
    DESCRIPTOR_ID = 12,
    DESCRIPTOR_FLAGS = 14,
    AVAIL = 1 << 7,
    USED = 1 << 15,
    WRAP = 1 << 15,
    EVENT_OFFSET = 0,
    EVENT_FLAGS = 2,
    EVENT_SIZE = 4,
    EVENTS_ON = 0,
    EVENTS_OFF = 1,
    EVENTS_AT = 2,
};

static uint16_t advance(const struct virtqueue *queue, uint16_t position, unsigned by)
{
    unsigned index = (position & ~WRAP) + by;
    unsigned wrap = position & WRAP;
    if (index >= queue->size) {
        index -= queue->size;
        wrap ^= WRAP;
    }
    return (uint16_t)(index | wrap);
}

static uint16_t retreat(const struct virtqueue *queue, uint16_t position, unsigned by)
{
    unsigned index = position & ~WRAP, wrap = position & WRAP;
    if (by > index) {
        index += queue->size;
        wrap ^= WRAP;
    }
    return (uint16_t)((index - by) | wrap);
}

static uint8_t *entry(const struct virtqueue *queue, uint16_t position)
{
    return queue->descriptors + RING_DESCRIPTOR * (position & ~WRAP);
}

static const char *enable(struct virtqueue *queue, const struct ring_setup *setup)
{
    unsigned size = setup->size;
    if (setup->descriptors % 16 || setup->driver % 4 || setup->device % 4)
        return "a ring that is not aligned";
    if ((setup->next_avail & ~WRAP) >= size || (setup->next_used & ~WRAP) >= size)
        return "a position outside the ring";
    queue->descriptors = guest_host(queue->guest, GPA(setup->descriptors), 16 * size, true);
    queue->driver = guest_host(queue->guest, GPA(setup->driver), EVENT_SIZE, false);
    queue->device = guest_host(queue->guest, GPA(setup->device), EVENT_SIZE, true);
    return queue->descriptors && queue->driver && queue->device ? NULL : "a ring outside RAM";
}

static bool is_available(uint16_t flags, uint16_t position)
{
    bool wrap = position & WRAP;
    return !!(flags & AVAIL) == wrap && !!(flags & USED) != wrap;
}

static bool pending(const struct virtqueue *queue)
{
    return is_available(ring_load(entry(queue, queue->next_avail) + DESCRIPTOR_FLAGS),
                        queue->next_avail);
}

static bool ahead(const struct virtqueue *queue, unsigned count)
{
    uint16_t at = advance(queue, queue->next_avail, count - 1);
    return is_available(ring_load(entry(queue, at) + DESCRIPTOR_FLAGS), at);
}

static const char *take_table(struct virtqueue *queue, struct chain *chain,
                              const struct ring_descriptor *d)
{
    unsigned count = d->length / RING_DESCRIPTOR;
    const char *wrong = NULL;
    if (!queue->indirect || d->b & RING_NEXT || !count || d->length % RING_DESCRIPTOR ||
        d->address % 8)
        return "a wrong indirect descriptor";
    if (count > CHAIN_SEGMENTS)
        return "an indirect table that is too long";
    const uint8_t *table = guest_host(queue->guest, GPA(d->address), d->length, false);
    if (!table)
        return "an indirect table outside RAM";
    for (unsigned i = 0; i < count && !wrong; i++) {
        struct ring_descriptor each = ring_descriptor(table + RING_DESCRIPTOR * i);
        wrong = ring_add(chain, queue->guest, each.address, each.length, each.b & RING_WRITE);
    }
    return wrong;
}

static const char *take(struct virtqueue *queue, struct chain *chain)
{
    uint16_t position = queue->next_avail;
    chain->descriptors = 0;
    for (;;) {
        struct ring_descriptor d = ring_descriptor(entry(queue, position));
        const char *wrong;
        if (chain->descriptors++ == queue->size)
            return "a chain that does not end";
        chain->id = d.a; /* that of the last one counts (section 2.8.6) */
        position = advance(queue, position, 1);
        if (d.b & RING_INDIRECT) {
            if (chain->descriptors > 1)
                return "an indirect descriptor within a chain";
            wrong = take_table(queue, chain, &d);
        } else {
            wrong = ring_add(chain, queue->guest, d.address, d.length, d.b & RING_WRITE);
        }
        if (wrong)
            return wrong;
        if (!(d.b & RING_NEXT))
            break;
    }
    if (queue->in_flight_descriptors + chain->descriptors > queue->size)
        return "more descriptors than the ring has";
    queue->in_flight_descriptors += chain->descriptors;
    queue->next_avail = position;
    return NULL;
}

static void put_back(struct virtqueue *queue, const struct chain *chain)
{
    queue->next_avail = retreat(queue, queue->next_avail, chain->descriptors);
    queue->in_flight_descriptors -= chain->descriptors;
}

static void give(struct virtqueue *queue, const struct chain *chain, uint32_t written)
{
    uint8_t *at = entry(queue, queue->next_used);
    uint16_t flags = (queue->next_used & WRAP ? AVAIL | USED : 0) | (written ? RING_WRITE : 0);
    *(le32 *)(void *)(at + DESCRIPTOR_LENGTH) = le32_of(written);
    *(le16 *)(void *)(at + DESCRIPTOR_ID) = le16_of(chain->id);
    ring_store(at + DESCRIPTOR_FLAGS, flags);
    queue->next_used = advance(queue, queue->next_used, chain->descriptors);
    queue->unsignalled = (uint16_t)(queue->unsignalled + chain->descriptors);
    queue->in_flight_descriptors -= chain->descriptors;
}

static bool publish(struct virtqueue *queue)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the flags, before what the driver wants is read */
    uint16_t added = queue->unsignalled;
    uint16_t flags = ring_load(queue->driver + EVENT_FLAGS);
    queue->unsignalled = 0;
    if (flags != EVENTS_AT || !queue->event_idx)
        return flags != EVENTS_OFF;
    uint16_t at = ring_load(queue->driver + EVENT_OFFSET);
    uint16_t event = at & (uint16_t)~WRAP;
    if ((at ^ queue->next_used) & WRAP)
        event = (uint16_t)(event - queue->size);
    return ring_event(event, queue->next_used & (uint16_t)~WRAP, added);
}

static void notify(struct virtqueue *queue, bool on)
{
    if (on && queue->event_idx)
        ring_store(queue->device + EVENT_OFFSET, queue->next_avail);
    ring_store(queue->device + EVENT_FLAGS, !on                ? EVENTS_OFF
                                            : queue->event_idx ? EVENTS_AT
                                                               : EVENTS_ON);
    if (on)
        __atomic_thread_fence(__ATOMIC_SEQ_CST); /* before the next descriptor is read again */
}

static uint16_t position(const struct virtqueue *queue)
{
    return retreat(queue, queue->next_avail, queue->in_flight_descriptors);
}

const struct ring_ops ring_packed = { enable, pending, ahead,  take,    put_back,
                                      give,   publish, notify, position };
