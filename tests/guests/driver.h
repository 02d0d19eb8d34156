/* What the guests that drive a virtio device share: finding it, starting it, and its split rings.
 * Virtio 1.2: section 4.1.4 (PCI), 4.2.2 (MMIO), 3.1.1 (initialization), 2.7 (split rings). */
#pragma once
#include "guest.h"

enum { RING_MAX = 256 };
enum { DESC_NEXT = 1, DESC_WRITE = 2, RING_NO_INTERRUPT = 1, RING_NO_NOTIFY = 1 };

struct ring_descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

struct ring {
    struct ring_descriptor descriptors[RING_MAX];
    struct {
        uint16_t flags, index, ring[RING_MAX];
    } available;
    _Alignas(4096) struct {
        uint16_t flags, index;
        struct {
            uint32_t id, length;
        } ring[RING_MAX];
    } used;
    uint32_t notify;
    uint16_t size; /* at most RING_MAX, chosen before the start */
    uint16_t index, offered, taken;
} __attribute__((aligned(4096)));

/* Starts the first device that has this ID (section 5), a PCI function or where there is none one
 * of a microvm's virtio-mmio devices, with those of the features that it offers, and these queues
 * from the first on; the features. Ends the guest when there is none. */
uint64_t virtio_start(uint16_t id, uint64_t features, struct ring *const *rings, unsigned count);

/* Makes the chain that begins with `descriptor` available; ring_show tells the device of all that
 * are new, with a notification if it wants one. */
void ring_offer(struct ring *ring, uint16_t descriptor);
void ring_show(struct ring *ring);
/* The next chain that came back; false: none has. */
bool ring_take(struct ring *ring, uint16_t *descriptor, uint32_t *length);

uint64_t ticks(void);

/* Goes on with `entry` at CPL 3 (guest.h), with the device and the first 32 MiB. */
_Noreturn void driver_run(void (*entry)(void));
