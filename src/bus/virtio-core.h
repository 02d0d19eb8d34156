/* Between virtio.c, which keeps queues, doorbells and life of a virtio device, and virtio-pci.c,
 * its registers. Devices do not include this. */
#pragma once
#include "bus/virtio.h"

/* Section 2.1. */
enum {
    STATUS_ACKNOWLEDGE = 1,
    STATUS_DRIVER = 2,
    STATUS_DRIVER_OK = 4,
    STATUS_FEATURES_OK = 8,
    STATUS_NEEDS_RESET = 64,
    STATUS_FAILED = 128,
};
enum { NO_VECTOR = 0xffff, ISR_QUEUE = 1, ISR_CONFIG = 2 };

/* Where the doorbells are in the BAR (section 4.1.4.4). */
enum { VIRTIO_BAR = 4, VIRTIO_NOTIFY = 0x3000, VIRTIO_NOTIFY_STRIDE = 4 };

/* What the driver set of a queue, and where the device goes on with it. */
struct queue_regs {
    uint64_t descriptors, driver, device;
    uint16_t size, vector;
    uint16_t next_avail, next_used; /* as of the last save */
    uint8_t enabled;
    uint8_t pad[7];
};

struct virtio_regs {
    struct queue_regs queue[VIRTIO_QUEUES];
    uint64_t features; /* the driver's */
    uint32_t device_select, driver_select;
    uint16_t config_vector, queue_select;
    uint8_t status, generation, isr;
    uint8_t pad;
};

/* The way from a doorbell to the device's `serve`. */
struct door {
    struct loop_source source;
    struct device *dev;
    unsigned index;
    bool registered; /* with the hypervisor, at `notify_base` */
    bool stuck;      /* the last turn took nothing of what is there */

    bool wanted; /* the device lends the queue whenever that may be */
    bool lent;   /* and it is: `source` is not on the loop, its eventfd the server's */
    int call;    /* while lent: what interrupts the driver, a line's eventfd or that of `called` */
    struct loop_source called;
};

struct virtio {
    struct device *dev;
    const struct virtio_class *class;
    unsigned count; /* of queues */
    uint64_t offered;
    bool running;
    uint8_t draining;        /* the status that is shown until nothing is in flight; 0: none */
    uint64_t queue_draining; /* queues in reset, a bit each */
    bool still;              /* virtio_hold */
    uint64_t notify_base;    /* of the doorbells that are registered; 0: none */
    unsigned windows;        /* offset of the pci-cfg capability */
    struct virtqueue *queues[VIRTIO_QUEUES];
    struct door doors[VIRTIO_QUEUES];
    struct virtio_regs regs; /* saved */
};

/* virtio.c, for the registers. */
void virtio_set_status(struct virtio *v, uint8_t value);
void virtio_enable_queue(struct virtio *v, unsigned index);
void virtio_reset_queue(struct virtio *v, unsigned index);
void virtio_place_doorbells(struct virtio *v); /* where the BAR is now */
void virtio_master(struct virtio *v);          /* bus mastering may have come or gone */

/* virtio-lend.c: each queue is where it may be now, and so are the interrupts of those lent. */
void virtio_update_lent(struct virtio *v);
void virtio_place_calls(struct virtio *v);
bool virtio_called(struct loop_source *source, uint32_t events); /* door.called is ready */
/* A notification that came by the register. */
void virtio_ring_bell(struct door *door);

/* virtio-pci.c: the capabilities that say where the registers are. In init. */
void virtio_add_capabilities(struct virtio *v);
