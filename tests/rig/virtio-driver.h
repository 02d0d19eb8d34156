/* A virtio driver for tests (virtio 1.2 sections 3, 4.1, 2.7 and 2.8): it finds the structures of
 * the rig's PCI function, negotiates, puts split or packed queues into the rig's RAM, adds buffers,
 * and collects what the device used. Nothing is hidden: tests may write wrong things into rings by
 * themselves.
 *
 *   struct driver *driver = driver_start(rig, ~0ull);
 *   uint64_t at = driver_room(driver, 16);
 *   unsigned id = driver_add(driver, 0, &(struct driver_buffer){ at, 16, true }, 1);
 *   driver_run(driver, 0);
 *   g_assert_true(driver_used(driver, 0, &id, &written));
 */
#pragma once
#include "bus/virtio.h"
#include "rig/rig.h"

enum { DRIVER_ENTRIES = 256, DRIVER_BUFFERS = 16 };

/* The common configuration structure (section 4.1.4.3). */
enum {
    DRIVER_DEVICE_FEATURE_SELECT = 0x00,
    DRIVER_DEVICE_FEATURE = 0x04,
    DRIVER_FEATURE_SELECT = 0x08,
    DRIVER_FEATURE = 0x0c,
    DRIVER_CONFIG_VECTOR = 0x10,
    DRIVER_NUM_QUEUES = 0x12,
    DRIVER_STATUS = 0x14,
    DRIVER_GENERATION = 0x15,
    DRIVER_QUEUE_SELECT = 0x16,
    DRIVER_QUEUE_SIZE = 0x18,
    DRIVER_QUEUE_VECTOR = 0x1a,
    DRIVER_QUEUE_ENABLE = 0x1c,
    DRIVER_QUEUE_NOTIFY_OFF = 0x1e,
    DRIVER_QUEUE_DESC = 0x20,
    DRIVER_QUEUE_DRIVER = 0x28,
    DRIVER_QUEUE_DEVICE = 0x30,
    DRIVER_QUEUE_NOTIFY_DATA = 0x38,
    DRIVER_QUEUE_RESET = 0x3a,
};
enum { /* device status (section 2.1) */
       DRIVER_ACKNOWLEDGE = 1,
       DRIVER_DRIVER = 2,
       DRIVER_OK = 4,
       DRIVER_FEATURES_OK = 8,
       DRIVER_NEEDS_RESET = 64,
};

struct driver_buffer {
    uint64_t at;
    uint32_t length;
    bool in; /* device-writable; these come last in a chain */
};

struct driver_queue {
    uint16_t size; /* 0: not set up */
    bool packed;
    bool quiet; /* driver_used asks for no interrupt: the test does (driver_event) */
    uint64_t desc, avail, used; /* the three parts: descriptors, the driver's, the device's */
    uint64_t doorbell;
    /* Where the next chain goes, and the next one that comes back. Split: indices of the available
     * and the used ring; packed: positions in the ring, and a wrap counter in bit 15. */
    uint16_t available, seen;
    uint16_t added;      /* since the last kick; packed: descriptors */
    uint16_t free, left; /* a list of free descriptors (packed: ids) through `next` */
    uint16_t next[DRIVER_ENTRIES], chained[DRIVER_ENTRIES];
    uint64_t table[DRIVER_ENTRIES]; /* by id: room for an indirect table; 0: none yet */
};

struct driver {
    struct rig *rig;
    uint64_t common, notify, isr, config; /* addresses of the four structures */
    uint32_t notify_multiplier;
    uint64_t features; /* accepted */
    uint64_t top;      /* free RAM of the rig from here */
    bool indirect;     /* chains go into indirect tables, if that was accepted */
    struct driver_queue queue[VIRTIO_QUEUES];
};

/* All of it: reset, the features of `wanted` that are offered (and VERSION_1), each queue with at
 * most 64 entries, DRIVER_OK. Without MSI-X: the line "intx" and the ISR tell of interrupts. */
struct driver *driver_start(struct rig *rig, uint64_t wanted);
void driver_free(struct driver *driver);

/* The steps, for tests that stray. */
struct driver *driver_find(struct rig *rig); /* the structures, and nothing written yet */
void driver_reset(struct driver *driver);    /* and the wait until status reads 0 */
uint64_t driver_offered(struct driver *driver);
bool driver_negotiate(struct driver *driver, uint64_t features); /* exactly these; FEATURES_OK? */
bool driver_queue(struct driver *driver, unsigned index, unsigned size); /* false: there is none */
void driver_ok(struct driver *driver);
/* Vector 0 is the configuration's, vector i + 1 queue i's; messages are address 0xfee00000 and data
 * 0x40 + vector. Before driver_queue. */
void driver_msix(struct driver *driver);

uint64_t driver_read(struct driver *driver, unsigned offset, unsigned width); /* common structure */
void driver_write(struct driver *driver, unsigned offset, unsigned width, uint64_t value);
uint8_t driver_status(struct driver *driver);
uint64_t driver_config(struct driver *driver, unsigned offset, unsigned width); /* device's own */
void driver_config_write(struct driver *driver, unsigned offset, unsigned width, uint64_t value);
uint8_t driver_isr(struct driver *driver); /* read, and so cleared */

/* RAM of the rig that nobody uses, aligned to 4096 from a page on, else to 16; zeroed. */
uint64_t driver_room(struct driver *driver, uint64_t size);
void driver_put(struct driver *driver, uint64_t at, const void *data, size_t length);
void driver_get(struct driver *driver, uint64_t at, void *data, size_t length);

/* Makes a chain available; gives its id (split: the head descriptor). The test fails when there is
 * no room in the ring. */
unsigned driver_add(struct driver *driver, unsigned queue, const struct driver_buffer *buffers,
                    unsigned count);
/* By hand: a descriptor of a table (a, b: flags and next, or of a packed queue id and flags); the
 * next entry of the available ring; a descriptor of a packed ring, available for that position. */
void driver_descriptor(struct driver *driver, uint64_t table, unsigned index, uint64_t at,
                       uint32_t length, unsigned a, unsigned b);
void driver_offer(struct driver *driver, struct driver_queue *queue, unsigned head);
void driver_offer_packed(struct driver *driver, struct driver_queue *queue, uint16_t position,
                         uint64_t at, uint32_t length, unsigned id, unsigned flags);
/* Does the device want to be told of what was added since the last kick? (used flags, avail_event)
 */
bool driver_wanted(struct driver *driver, unsigned queue);
void driver_kick(struct driver *driver, unsigned queue);
/* Turns the device's loop until it has nothing to do. */
void driver_turn(struct driver *driver);
/* Kick and turn. */
void driver_run(struct driver *driver, unsigned queue);
/* Does the driver want interrupts? (avail flags; packed: the driver's event flags) */
void driver_interrupts(struct driver *driver, unsigned queue, bool on);
/* With EVENT_IDX: an interrupt when more than `after` entries of those not seen yet are used. */
void driver_event(struct driver *driver, unsigned queue, unsigned after);
/* The next chain that came back; false when there is none. Both results may be NULL. */
bool driver_used(struct driver *driver, unsigned queue, unsigned *id, uint32_t *written);
