/* Split virtqueues (virtio 1.2 section 2.7). */
#include "bus/ring.h"

/* The available and the used ring (sections 2.7.6, 2.7.8). */
enum {
    AVAIL_FLAGS = 0,
    AVAIL_INDEX = 2,
    AVAIL_RING = 4,
    AVAIL_NO_INTERRUPT = 1,
    USED_FLAGS = 0,
    USED_INDEX = 2,
    USED_RING = 4,
    USED_ENTRY = 8,
    USED_NO_NOTIFY = 1,
};

static uint8_t *used_event(const struct virtqueue *queue)
{
    return queue->driver + AVAIL_RING + 2 * queue->size;
}

static uint8_t *avail_event(const struct virtqueue *queue)
{
    return queue->device + USED_RING + USED_ENTRY * queue->size;
}

static const char *enable(struct virtqueue *queue, const struct ring_setup *setup)
{
    unsigned size = setup->size;
    if (size & (size - 1))
        return "a queue size that is no power of two";
    if (setup->descriptors % 16 || setup->driver % 2 || setup->device % 4)
        return "a ring that is not aligned";
    queue->descriptors = guest_host(queue->guest, GPA(setup->descriptors), 16 * size, false);
    queue->driver = guest_host(queue->guest, GPA(setup->driver), AVAIL_RING + 2 * size + 2, false);
    queue->device =
        guest_host(queue->guest, GPA(setup->device), USED_RING + USED_ENTRY * size + 2, true);
    queue->seen = queue->next_avail;
    return queue->descriptors && queue->driver && queue->device ? NULL : "a ring outside RAM";
}

static bool pending(const struct virtqueue *queue)
{
    return queue->seen != queue->next_avail ||
           ring_load(queue->driver + AVAIL_INDEX) != queue->next_avail;
}

static bool ahead(const struct virtqueue *queue, unsigned count)
{
    return (uint16_t)(ring_load(queue->driver + AVAIL_INDEX) - queue->next_avail) >= count;
}

/* What is wrong with an indirect descriptor and its table (section 2.7.5.3)? */
static const char *table_fault(const struct virtqueue *queue, struct ring_descriptor d)
{
    if (!queue->indirect || d.a & RING_NEXT || !d.length || d.length % RING_DESCRIPTOR ||
        d.address % 8)
        return "a wrong indirect descriptor";
    if (d.length / RING_DESCRIPTOR > CHAIN_SEGMENTS)
        return "an indirect table that is too long";
    return NULL;
}

/* The address of no local variable is taken: they stay in registers. A table is one more list of
 * descriptors. */
static const char *walk(struct virtqueue *queue, struct chain *chain, unsigned head)
{
    const uint8_t *table = queue->descriptors;
    unsigned entries = queue->size, at = head;
    bool indirect = false;
    for (unsigned steps = 0; steps <= entries; steps++) {
        if (at >= entries)
            return "a descriptor index outside the table";
        struct ring_descriptor d = ring_descriptor(table + RING_DESCRIPTOR * at);
        if (d.a & RING_INDIRECT) {
            const char *wrong = indirect ? "an indirect table in another" : table_fault(queue, d);
            if (wrong)
                return wrong;
            table = guest_host(queue->guest, GPA(d.address), d.length, false);
            if (!table)
                return "an indirect table outside RAM";
            entries = d.length / RING_DESCRIPTOR;
            indirect = true;
            at = 0;
            steps = 0;
            continue;
        }
        const char *wrong = ring_add(chain, queue->guest, d.address, d.length, d.a & RING_WRITE);
        if (wrong)
            return wrong;
        if (!(d.a & RING_NEXT))
            return NULL;
        at = d.b;
    }
    return "a chain that does not end";
}

static const char *take(struct virtqueue *queue, struct chain *chain)
{
    if (queue->seen == queue->next_avail)
        queue->seen = ring_load(queue->driver + AVAIL_INDEX);
    if ((uint16_t)(queue->seen - queue->next_avail) > queue->size)
        return "an available index beyond the ring";
    const uint8_t *entry = queue->driver + AVAIL_RING + 2 * (queue->next_avail & (queue->size - 1));
    unsigned head = __atomic_load_n((const uint16_t *)(const void *)entry, __ATOMIC_RELAXED);
    guest_watch(entry, 2, WATCH_FETCH);
    chain->id = (uint16_t)head;
    const char *wrong = walk(queue, chain, head);
    if (!wrong)
        queue->next_avail++;
    return wrong;
}

static void put_back(struct virtqueue *queue, const struct chain *chain)
{
    (void)chain;
    queue->next_avail--;
}

static void give(struct virtqueue *queue, const struct chain *chain, uint32_t written)
{
    uint8_t *entry =
        queue->device + USED_RING + USED_ENTRY * (queue->next_used & (queue->size - 1));
    *(le32 *)(void *)entry = le32_of(chain->id);
    *(le32 *)(void *)(entry + 4) = le32_of(written);
    queue->next_used++;
    queue->unsignalled++;
}

static bool publish(struct virtqueue *queue)
{
    ring_store(queue->device + USED_INDEX, queue->next_used);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* before what the driver wants is read */
    uint16_t added = queue->unsignalled;
    queue->unsignalled = 0;
    if (queue->event_idx)
        return ring_event(ring_load(used_event(queue)), queue->next_used, added);
    return !(ring_load(queue->driver + AVAIL_FLAGS) & AVAIL_NO_INTERRUPT);
}

static void notify(struct virtqueue *queue, bool on)
{
    if (!queue->event_idx)
        ring_store(queue->device + USED_FLAGS, on ? 0 : USED_NO_NOTIFY);
    else if (on)
        ring_store(avail_event(queue), queue->next_avail);
    if (on)
        __atomic_thread_fence(__ATOMIC_SEQ_CST); /* before the driver's index is read again */
}

static uint16_t position(const struct virtqueue *queue)
{
    return (uint16_t)(queue->next_avail - queue->in_flight);
}

const struct ring_ops ring_split = { enable, pending, ahead,  take,    put_back,
                                     give,   publish, notify, position };
