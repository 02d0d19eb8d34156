/* Virtqueues; see virtqueue.h. What is common to both kinds of ring: the pool of chains, and how a
 * chain is made of descriptors. The rings themselves: ring-split.c and ring-packed.c. */
#include "bus/virtqueue.h"

#include "bus/ring.h"
#include "bus/virtio.h"

#include <string.h>

/* --- chains --------------------------------------------------------------------------------- */

static size_t rounded(size_t size)
{
    return (size + 15) & ~(size_t)15;
}

static struct iovec *own_list(struct virtqueue *queue, struct chain *chain)
{
    return (struct iovec *)((uint8_t *)(chain + 1) + rounded(queue->class->request_size));
}

static struct chain *chain_at(struct virtqueue *queue, unsigned i)
{
    return (struct chain *)((uint8_t *)queue->pool + i * queue->stride);
}

/* Never more than the ring's size are out: each holds a descriptor of the ring. */
static struct chain *chain_new(struct virtqueue *queue)
{
    struct chain *chain = queue->idle;
    if (chain) {
        queue->idle = chain->next;
    } else if (queue->made < queue->size) {
        chain = chain_at(queue, queue->made++);
        chain->queue = queue;
        chain->list = own_list(queue, chain);
        chain->limit = chain->list + RING_OWN_SEGMENTS;
    }
    return chain;
}

static void chain_forget(struct virtqueue *queue, struct chain *chain)
{
    chain->next = queue->idle;
    queue->idle = chain;
}

static bool has_grown(const struct chain *chain)
{
    return chain->limit - chain->list > RING_OWN_SEGMENTS;
}

/* Room for the longest chain that may be, for one that is longer than most. */
static bool chain_grow(struct chain *chain)
{
    if (has_grown(chain))
        return false;
    struct iovec *list = g_try_new(struct iovec, CHAIN_SEGMENTS);
    if (!list)
        return false;
    memcpy(list, chain->list, (size_t)(chain->end - chain->list) * sizeof *list);
    if (chain->way)
        chain->in = list + (chain->in - chain->list);
    chain->end = list + (chain->end - chain->list);
    chain->limit = list + CHAIN_SEGMENTS;
    chain->list = list;
    return true;
}

static bool chain_span(struct chain *chain, uint64_t at, uint32_t length)
{
    bool in = chain->way;
    struct virtqueue *queue = chain->queue;
    void *host = guest_host(queue->guest, GPA(at), length, in);
    if (host && chain->end < chain->limit) {
        *chain->end++ = (struct iovec){ host, length };
        return true;
    }
    /* Spans join neighbours, and a chain's two lists are not neighbours. */
    struct iovec *start = in ? chain->in : chain->list;
    unsigned used = (unsigned)(chain->end - start), room = (unsigned)(chain->limit - start);
    if (!guest_span(queue->guest, GPA(at), length, in, start, &used, room))
        return false;
    chain->end = start + used;
    return true;
}

const char *ring_add_other(struct chain *chain, uint64_t at, uint32_t length)
{
    if (length && !chain_span(chain, at, length) &&
        (!chain_grow(chain) || !chain_span(chain, at, length)))
        return "a buffer outside RAM, or too many of them";
    chain->bytes += length;
    return NULL;
}

/* --- taking from a chain -------------------------------------------------------------------- */

static void take(struct iovec **list, unsigned *count, void *local, size_t length, bool in)
{
    while (length) {
        struct iovec *first = *list;
        size_t n = MIN(length, first->iov_len);
        if (in)
            memcpy(first->iov_base, local, n);
        else
            memcpy(local, first->iov_base, n);
        if (!in)
            guest_watch(first->iov_base, n, WATCH_FETCH);
        local = (uint8_t *)local + n;
        first->iov_base = (uint8_t *)first->iov_base + n;
        first->iov_len -= n;
        length -= n;
        if (!first->iov_len) {
            ++*list;
            --*count;
        }
    }
}

bool chain_read_pieces(struct chain *chain, void *to, size_t length)
{
    if (length > chain->out_bytes)
        return false;
    take(&chain->out, &chain->out_count, to, length, false);
    chain->out_bytes -= (uint32_t)length;
    return true;
}

bool chain_write(struct chain *chain, const void *from, size_t length)
{
    if (length > chain->in_bytes)
        return false;
    for (size_t left = length, i = 0; left; i++) {
        size_t n = MIN(left, chain->in[i].iov_len);
        guest_host_written(chain->queue->guest, chain->in[i].iov_base, n);
        left -= n;
    }
    take(&chain->in, &chain->in_count, (void *)(uintptr_t)from, length, true);
    chain->in_bytes -= (uint32_t)length;
    chain->written += (uint32_t)length;
    return true;
}

bool chain_in_address(const struct chain *chain, unsigned segment, gpa *at)
{
    return segment < chain->in_count &&
           guest_address(chain->queue->guest, chain->in[segment].iov_base, at);
}

/* --- the queue ------------------------------------------------------------------------------ */

struct chain *virtqueue_pop(struct virtqueue *queue)
{
    if (!virtqueue_pending(queue)) {
        if (!queue->class->waits)
            return NULL;
        virtqueue_notify(queue, true); /* the loop, which asks for the others, may be asleep */
        queue->asking = true;
        if (!virtqueue_pending(queue))
            return NULL;
    }
    struct chain *chain = chain_new(queue);
    const char *wrong = chain ? NULL : "more chains than the ring has entries";
    if (!wrong) {
        chain->end = chain->list;
        chain->way = 0;
        chain->bytes = 0;
        wrong = queue->ops->take(queue, chain);
    }
    if (!wrong && chain->bytes > UINT32_MAX)
        wrong = "a chain of 4 GiB or more"; /* section 2.7.4.2 */
    if (wrong) {
        if (chain)
            chain_forget(queue, chain);
        virtio_broken(queue->dev, wrong);
        return NULL;
    }
    if (!chain->way)
        ring_add_in(chain);
    chain->out = chain->list;
    chain->out_count = (unsigned)(chain->in - chain->list);
    chain->in_count = (unsigned)(chain->end - chain->in);
    chain->in_bytes = (uint32_t)chain->bytes - chain->out_bytes;
    chain->written = 0;
    chain->status = NULL;
    queue->in_flight++;
    if (queue->asking) { /* nobody waits any more: no exit for each buffer that is added */
        queue->asking = false;
        virtqueue_notify(queue, false);
    }
    return chain;
}

bool virtqueue_pending(const struct virtqueue *queue)
{
    return queue->active && queue->ops->pending(queue);
}

bool virtqueue_ahead(const struct virtqueue *queue, unsigned count)
{
    return !count || (queue->active && count <= queue->size && queue->ops->ahead(queue, count));
}

void virtqueue_unpop(struct chain *chain)
{
    struct virtqueue *queue = chain->queue;
    if (queue->active)
        queue->ops->put_back(queue, chain);
    queue->lost |= queue->muted;
    guest_watch(NULL, 0, WATCH_AGAIN);
    chain_forget(queue, chain);
    queue->in_flight--;
    virtio_drained(queue->dev);
}

static inline void push(struct chain *chain, uint32_t written)
{
    struct virtqueue *queue = chain->queue;
    chain_forget(queue, chain);
    queue->in_flight--;
    if (queue->active) {
        queue->given = true;
        queue->ops->give(queue, chain, written);
    } else {
        queue->lost |= queue->muted;
        virtio_drained(queue->dev);
    }
}

void virtqueue_push(struct chain *chain, uint32_t written)
{
    push(chain, written);
}

void virtqueue_push_status(struct chain *chain, uint32_t written, uint8_t status)
{
    if (chain->queue->active) {
        *chain->status = status;
        guest_host_written(chain->queue->guest, chain->status, 1);
    }
    push(chain, written + 1);
}

void virtqueue_flush(struct virtqueue *queue)
{
    if (!queue->given)
        return;
    queue->given = false;
    if (queue->active && queue->ops->publish(queue))
        virtio_interrupt(queue->dev, queue->index);
}

unsigned virtqueue_in_flight(const struct virtqueue *queue)
{
    return queue->in_flight;
}

unsigned virtqueue_index(const struct virtqueue *queue)
{
    return queue->index;
}

/* --- for virtio.c --------------------------------------------------------------------------- */

struct virtqueue *virtqueue_new(struct device *dev, unsigned index,
                                const struct virtio_queue_class *class)
{
    struct virtqueue *queue = g_new0(struct virtqueue, 1);
    queue->dev = dev;
    queue->guest = dev->board->guest;
    queue->index = index;
    queue->class = class;
    queue->stride = sizeof(struct chain) + rounded(class->request_size) +
                    RING_OWN_SEGMENTS * sizeof(struct iovec);
    return queue;
}

static void free_pool(struct virtqueue *queue)
{
    for (unsigned i = 0; i < queue->made; i++)
        if (has_grown(chain_at(queue, i)))
            g_free(chain_at(queue, i)->list);
    g_clear_pointer(&queue->pool, g_free);
    queue->idle = NULL;
    queue->made = 0;
}

void virtqueue_free(struct virtqueue *queue)
{
    if (!queue)
        return;
    free_pool(queue);
    g_free(queue);
}

const char *virtqueue_enable(struct virtqueue *queue, const struct ring_setup *setup)
{
    if (!setup->size || setup->size > queue->class->size)
        return "a queue size that was not offered";
    if (queue->in_flight)
        return "requests that are still in flight";
    free_pool(queue);
    queue->size = setup->size;
    queue->event_idx = setup->event_idx;
    queue->indirect = setup->indirect;
    queue->next_avail = setup->next_avail;
    queue->next_used = setup->next_used;
    queue->given = false;
    queue->asking = queue->class->waits; /* as the driver made the ring */
    queue->unsignalled = 0;
    queue->in_flight_descriptors = 0; /* what came back while it was off was not counted */
    queue->ops = setup->packed ? &ring_packed : &ring_split;
    const char *wrong = queue->ops->enable(queue, setup);
    if (!wrong && !(queue->pool = g_try_malloc0_n(queue->size, queue->stride)))
        wrong = "the host has no memory for its requests";
    queue->active = !wrong;
    queue->muted = queue->lost = false;
    return wrong;
}

bool virtqueue_mute(struct virtqueue *queue, bool on)
{
    bool *from = on ? &queue->active : &queue->muted;
    bool *to = on ? &queue->muted : &queue->active;
    if (*from) {
        *from = false;
        *to = true;
    }
    return on || !queue->lost;
}

void virtqueue_disable(struct virtqueue *queue)
{
    queue->active = queue->muted = queue->lost = false;
    if (!queue->in_flight)
        free_pool(queue);
}

void virtqueue_ring(const struct virtqueue *queue, struct virtio_ring *ring)
{
    *ring = (struct virtio_ring){
        .size = queue->size,
        .packed = queue->ops == &ring_packed,
        .descriptors = queue->descriptors,
        .driver = queue->driver,
        .device = queue->device,
        .next_avail = queue->next_avail,
        .next_used = queue->next_used,
        .kick = -1,
        .call = -1,
    };
}

bool virtqueue_lend(struct virtqueue *queue, struct virtio_ring *ring)
{
    if (!queue->active || queue->in_flight)
        return false;
    virtqueue_flush(queue);
    virtqueue_ring(queue, ring);
    queue->active = false;
    return true;
}

bool virtqueue_return(struct virtqueue *queue, const struct virtio_ring *ring)
{
    enum { WRAP = 0x8000 };
    bool sane = !ring->packed || ((ring->next_avail & ~WRAP) < queue->size &&
                                  (ring->next_used & ~WRAP) < queue->size);
    if (sane) {
        queue->next_avail = queue->seen = ring->next_avail;
        queue->next_used = ring->next_used;
    }
    queue->unsignalled = 0;
    queue->active = true;
    return sane;
}

void virtqueue_positions(const struct virtqueue *queue, uint16_t *next_avail, uint16_t *next_used)
{
    *next_avail = queue->ops->position(queue);
    *next_used = queue->next_used;
}

bool virtqueue_is_enabled(const struct virtqueue *queue)
{
    return queue->active || queue->muted;
}

void virtqueue_notify(struct virtqueue *queue, bool on)
{
    if (queue->active)
        queue->ops->notify(queue, on);
}
