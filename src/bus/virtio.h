/* Virtio devices (virtio 1.2): what a device says of itself, and what the core does for it.
 *
 * A class with `virtio` is a modern PCI function (section 4.1): the core owns the transport, the
 * feature negotiation, the queues and their state, doorbells, interrupts and reset. The device's
 * file holds only what its section 5.x says. Its functions run with the device's lock held: on the
 * device's loop (device->loop) where they serve queues, else on the thread of the register access.
 *
 * Reset: `stop` cancels what the device can cancel; until the last chain in flight is pushed (what
 * is pushed then, the driver does not see), device_status does not read as 0 (section 4.1.4.3.2)
 * and the driver waits. Nothing is written to guest memory after that. */
#pragma once
#include "base/loop.h"
#include "bus/pci.h"
#include "bus/virtqueue.h"

enum { VIRTIO_QUEUES = 33, VIRTIO_VENDOR = 0x1af4, VIRTIO_ANY = UINT32_MAX };

/* Feature bits of all devices (section 6). The core offers and handles them. */
enum {
    VIRTIO_INDIRECT_DESC = 28,
    VIRTIO_EVENT_IDX = 29,
    VIRTIO_VERSION_1 = 32,
    VIRTIO_RING_PACKED = 34,
    VIRTIO_RING_RESET = 40,
};

struct virtio_queue_class {
    const char *name;    /* for messages */
    uint16_t size;       /* entries offered: a power of two, at most VIRTQUEUE_MAX */
    size_t request_size; /* bytes of the device's own in each chain */
    /* Its buffers wait for what the device has to say (input, received packets): that there are
     * some is no work. `serve` is called when the driver added some to a queue that was empty. */
    bool waits;
};

/* A queue as whoever serves it in the device's place must know it. */
struct virtio_ring {
    uint16_t size;
    bool packed;
    void *descriptors, *driver, *device; /* host memory of the three areas */
    uint16_t next_avail, next_used;      /* where it goes on (packed: bit 15 is the wrap counter) */
    int kick;                            /* an eventfd that the driver's notifications signal */
    int call;                            /* an eventfd that interrupts the driver */
};

/* Who serves lent queues, as the kernel does (bus/vhost.h). */
struct virtio_server {
    /* From now on; false: it cannot, the device serves the queue itself. */
    bool (*begin)(struct device *dev, unsigned index, const struct virtio_ring *ring);
    /* Another eventfd interrupts the driver: the guest masked or moved the interrupt. */
    void (*set_call)(struct device *dev, unsigned index, int call);
    /* No longer: sets the ring's positions. Nothing of it is in flight then. False: it does not
     * know where it got to, and the device needs a reset. */
    bool (*end)(struct device *dev, unsigned index, struct virtio_ring *ring);
};

struct virtio_class {
    uint16_t id;        /* section 5 */
    unsigned queues;    /* at most; `queue_count` says how many this device has */
    size_t config_size; /* bytes of device configuration */
    uint64_t features;  /* the device's own, all it may offer */

    /* What queue `index` is. */
    const struct virtio_queue_class *(*queue)(struct device *dev, unsigned index);
    unsigned (*queue_count)(struct device *dev); /* NULL: `queues` */
    uint64_t (*offer)(struct device *dev);       /* NULL: `features`; which of them are offered */
    /* The driver accepted `features`; false: they do not go together (FEATURES_OK stays off). */
    bool (*accept)(struct device *dev, uint64_t features); /* NULL: all do */

    /* The device configuration as the driver reads it: config_size bytes, zeroed before. */
    void (*config_read)(struct device *dev, uint8_t *config);
    void (*config_write)(struct device *dev, unsigned offset, unsigned width, uint32_t value);

    /* DRIVER_OK. The queues are served from now on. NULL: nothing to do. */
    void (*start)(struct device *dev);
    /* Serves queue `index`: at most VIRTQUEUE_BATCH chains, then virtqueue_flush. True: it left
     * work over. Also called when there is nothing. */
    bool (*serve)(struct device *dev, unsigned index);
    /* Looks for completions while the loop polls and queue 0 has nothing to serve; true when there
     * were some. NULL: none come so. */
    bool (*poll)(struct device *dev);
    /* Reset, or (index not VIRTIO_ANY) the reset of one queue: forget or push back all chains held
     * that nothing is in flight for. Also called without a start before. */
    void (*stop)(struct device *dev, uint32_t index);

    const struct virtio_server *server; /* for virtio_lend; NULL: it serves all queues itself */
};

/* For device_class.pci and .regions of a virtio device. code: base class, subclass, interface. */
#define VIRTIO_PCI(id_, code_)                                                                     \
    &(const struct pci_class)                                                                      \
    {                                                                                              \
        .vendor = VIRTIO_VENDOR, .device = 0x1040 + (id_), .class_code = (code_), .revision = 1,   \
        .subsystem_vendor = VIRTIO_VENDOR, .subsystem = 0x1100, .interrupt_pin = 1,                \
        .bars = { [1] = BAR_MEMORY32, [4] = BAR_MEMORY32 }, .msix_bar = 1,                         \
        .config_written = virtio_config_written, .config_read = virtio_config_read,                \
        .msix_written = virtio_msix_written                                                        \
    }
extern const struct region virtio_regions[];
/* For device_class.options. */
#define VIRTIO_OPTION_PACKED                                                                       \
    {                                                                                              \
        "packed", "offer packed virtqueues", OPTION_BOOL, offsetof(struct device, packed), "off",  \
            0, 0                                                                                   \
    }
void virtio_config_written(struct device *dev, unsigned offset, unsigned width);
void virtio_config_read(struct device *dev, unsigned offset, unsigned width);
void virtio_msix_written(struct device *dev);

/* --- for devices, under their own lock ------------------------------------------------------ */

/* Queue `index`, whether or not the driver has enabled it (a queue that is off pops nothing). */
struct virtqueue *virtio_queue(struct device *dev, unsigned index);
bool virtio_has(const struct device *dev, unsigned feature); /* negotiated? */
bool virtio_running(const struct device *dev);               /* DRIVER_OK, no reset, not broken */
/* The device configuration changed by itself: generation and interrupt (section 2.5). */
void virtio_config_changed(struct device *dev);
/* Has `serve` called for the queue soon. */
void virtio_wake(struct device *dev, unsigned index);
/* Lends queue `index`, of which no chain is held, to the class's server until virtio_recall or the
 * reset of the device: it pops nothing meanwhile, and `serve` is not called for it. The core takes
 * it back for as long as the machine stands still, the queue is off or the device may do no DMA.
 * False: the server cannot have it. */
bool virtio_lend(struct device *dev, unsigned index);
void virtio_recall(struct device *dev, unsigned index);
bool virtio_is_lent(const struct device *dev, unsigned index); /* just now */
/* The driver broke the protocol: DEVICE_NEEDS_RESET (section 2.1.2), logged at a limited rate. */
void virtio_broken(struct device *dev, const char *why);

/* --- called by the framework (device.c) ----------------------------------------------------- */

struct virtio;
struct virtio *virtio_new(struct device *dev);
bool virtio_start(struct device *dev, GError **error);
void virtio_reset(struct device *dev);
/* Nobody may serve its queues but the device, for pauses and for saving; gives what was so before.
 */
bool virtio_hold(struct device *dev, bool still);
void virtio_save(struct device *dev, GByteArray *out);
void virtio_loaded(struct device *dev);
void virtio_finish(struct device *dev);
extern const struct state virtio_state; /* of a struct virtio */
