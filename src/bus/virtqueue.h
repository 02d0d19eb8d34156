/* Virtqueues, split and packed (virtio 1.2 sections 2.7 and 2.8): the only code that reads rings.
 *
 * A device sees chains: requests that are popped, owned, answered and pushed. What the driver may
 * change at any time is copied once and judged as a copy; ring addresses, sizes and features are
 * copied and checked when the queue is enabled and never read again. Whatever the driver does, a
 * pop gives a bounded chain of memory that exists, or none and a device that needs a reset.
 *
 * All functions are called with the device's lock held. */
#pragma once
#include "memory/guest.h"

#include <string.h>

enum {
    VIRTQUEUE_MAX = 1024,  /* entries of a ring at most */
    CHAIN_SEGMENTS = 1024, /* of one chain at most */
    VIRTQUEUE_BATCH = 64,  /* chains that a device takes in one turn, so that others have theirs */
};

struct virtqueue;

/* A request of the driver. The lists are what is left: chain_read and chain_write take from their
 * fronts. Payload is passed on as iovecs, never parsed in place. */
struct chain {
    struct virtqueue *queue;
    struct iovec *out, *in; /* device-readable, device-writable */
    unsigned out_count, in_count;
    uint32_t out_bytes, in_bytes;
    uint32_t written; /* bytes put into `in` so far by chain_write; virtqueue_push tells */
    /* the queue's */
    uint16_t id, descriptors; /* of the ring */
    uint16_t way;             /* of the last descriptor: RING_WRITE once `in` has begun, or 0 */
    uint64_t bytes;           /* of both lists */
    struct iovec *list, *end, *limit; /* both in one: what is used of it, and where its room ends */
    uint8_t *status;                  /* chain_cut_status */
    struct chain *next;
};

/* The device's own part of a chain: as many bytes as its queue class asks for (virtio.h). */
static inline void *chain_request(struct chain *chain)
{
    return chain + 1;
}
static inline struct chain *chain_of(void *request)
{
    return (struct chain *)request - 1;
}

/* Copies from the front of `out` or to the front of `in`; whole, or false and nothing. */
bool chain_read_pieces(struct chain *chain, void *to, size_t length);
static inline bool chain_read(struct chain *chain, void *to, size_t length)
{
    if (!chain->out_count || chain->out->iov_len != length) /* no buffer of its own */
        return chain_read_pieces(chain, to, length);
    memcpy(to, chain->out->iov_base, length);
    __asm__ volatile("" : : : "memory"); /* the guest's memory is not read again instead */
    guest_watch(chain->out->iov_base, length, WATCH_FETCH);
    chain->out++;
    chain->out_count--;
    chain->out_bytes -= (uint32_t)length;
    return true;
}
bool chain_write(struct chain *chain, const void *from, size_t length);
/* Cuts the last byte off `in` (a status at the end, section 5.2.6); false when there is none. It is
 * set by virtqueue_push_status. */
static inline bool chain_cut_status(struct chain *chain)
{
    if (!chain->in_bytes)
        return false;
    struct iovec *last = &chain->in[chain->in_count - 1];
    chain->status = (uint8_t *)last->iov_base + --last->iov_len;
    chain->in_bytes--;
    if (!last->iov_len)
        chain->in_count--;
    return true;
}
/* The guest's address of segment `segment` of `in`; false when there is none. */
bool chain_in_address(const struct chain *chain, unsigned segment, gpa *at);

/* The next request, or NULL: none, or the queue is off. */
struct chain *virtqueue_pop(struct virtqueue *queue);
/* Is there one? Cheap. */
bool virtqueue_pending(const struct virtqueue *queue);
/* Are there so many, each in one descriptor? They are not looked at. */
bool virtqueue_ahead(const struct virtqueue *queue, unsigned count);
/* Puts back the chain that was popped last, as if it had not been. */
void virtqueue_unpop(struct chain *chain);
/* The answer: `written` bytes of `in` are filled. The driver sees it after virtqueue_flush. */
void virtqueue_push(struct chain *chain, uint32_t written);
void virtqueue_push_status(struct chain *chain, uint32_t written, uint8_t status);
/* Shows the driver all that was pushed and interrupts it once, if it wants that. */
void virtqueue_flush(struct virtqueue *queue);

/* Chains popped and not pushed. */
unsigned virtqueue_in_flight(const struct virtqueue *queue);
unsigned virtqueue_index(const struct virtqueue *queue);
