/* What a device is: a const class, that the framework allocates, wires, locks, saves and fuzzes.
 *
 * Locking rule. Every op of a class (register access, reset, save, load, timer, backend completion,
 * input, rendering) runs with the device's own lock held, taken by the caller. An op touches its
 * own struct, guest memory, its lines, its timers and its backend, and posts requests to the
 * machine; never another device. Lock order: device, then one leaf (wire and interrupt controller,
 * bus map, slots, clock, log). There is no locking inside a device.
 *
 * A new device is one file in src/devices, one line in its meson.build, and one line in
 * machine/pc.c when it is a fixed part of the PC. */
#pragma once
#include "base/clock.h"
#include "base/loop.h"
#include "base/state.h"
#include "bus/dma.h"
#include "bus/input.h"
#include "bus/irq.h"
#include "bus/screen.h"
#include "bus/stream.h"
#include "memory/bus.h"
#include "memory/guest.h"

struct device;
struct disk;
struct fw_cfg;
struct host_socket;
struct loop;
struct net;
struct pci_class;
struct pci_function;
struct virtio;
struct virtio_class;

/* What users may set, parsed and documented by the framework. The member at `offset` has the type
 * that stands with the kind. */
enum option_kind {
    OPTION_BOOL,   /* bool: on, off */
    OPTION_UINT,   /* uint64_t, with limits */
    OPTION_SIZE,   /* uint64_t bytes: 64K, 16M, 4G */
    OPTION_STRING, /* char *, freed by the framework */
};
struct option {
    const char *name, *help;
    enum option_kind kind;
    size_t offset;
    const char *preset; /* as a user would write it */
    uint64_t min, max;
};

/* What the machine connects: a pointer member of the device, of the type that stands with the kind.
 * All may stay NULL. */
enum plug_kind {
    PLUG_IRQ,    /* struct irq * */
    PLUG_INPUT,  /* struct irq_input: an output that has one fixed end (INTR of the 8259) */
    PLUG_DISK,   /* struct disk * */
    PLUG_NET,    /* struct net * */
    PLUG_STREAM, /* struct stream * */
    PLUG_SCREEN, /* struct screen * */
    PLUG_SOURCE, /* struct input_source * */
    PLUG_BLOB,   /* GBytes *: a ROM, a table */
    PLUG_FW_CFG, /* struct fw_cfg * */
    PLUG_SOCKET, /* struct host_socket * */
    PLUG_DMA,    /* struct dma * */
};
struct plug {
    const char *name;
    enum plug_kind kind;
    size_t offset;
};

/* What a device may ask of the machine; carried out after the access, on the machine's thread. */
enum board_request {
    BOARD_RESET,
    BOARD_POWER_OFF,
    BOARD_SUSPEND,     /* S3: the machine sleeps until a wake event */
    BOARD_EXIT,        /* end hv with this status (debug-exit) */
    BOARD_PANIC,       /* the guest says that it crashed (pvpanic) */
    BOARD_MEDIA_EJECT, /* the guest opened the tray: forget the medium */
};

/* A pin of the I/O APIC as the MSI it sends. */
struct msi_route {
    uint64_t address;
    uint32_t data;
    bool masked;
};

/* What the devices of one machine share. */
struct board_ops {
    void (*request)(void *opaque, struct device *dev, enum board_request what, uint32_t value);
    /* An MSI: a write of data to address, by a function or the I/O APIC. Any lock may be held. */
    void (*send_msi)(void *opaque, uint64_t address, uint32_t data);
    /* The I/O APIC's pins as MSIs, when one that is level-triggered changed: the hypervisor must
     * know which vectors' EOIs to report. */
    void (*set_routes)(void *opaque, const struct msi_route *routes, unsigned count);
    uint64_t (*host_time)(void *opaque); /* seconds since 1970, for the RTC */

    /* Short ways past the devices' register functions, for a data plane. All may be NULL, and may
     * fail (-1, false): then the long way is taken. Any lock may be held.
     *
     * A line is an eventfd that sends a message when it is written to (irqfd). */
    int (*line_open)(void *opaque); /* a line's number */
    void (*line_route)(void *opaque, int line, uint64_t address, uint32_t data);
    void (*line_send)(void *opaque, int line); /* commits the routes changed before */
    void (*line_close)(void *opaque, int line);
    int (*line_fd)(void *opaque, int line); /* the eventfd; commits as line_send does, or -1 */
    /* A write of any width to `address` in memory signals fd instead of leaving the guest. */
    bool (*doorbell)(void *opaque, uint64_t address, int fd, bool on);
};
struct board {
    struct guest *guest;
    struct bus *bus;
    struct clock *clock;
    struct pci_bus *pci;
    const struct board_ops *ops;
    void *opaque;
    bool threads; /* device loops have threads; else (tests) they are turned by hand */
};

/* What a guest may say of its memory, by the tags of virtio 1.2 section 5.5.6.4; bytes and counts.
 */
enum memory_statistic {
    MEMORY_SWAPPED_IN,
    MEMORY_SWAPPED_OUT,
    MEMORY_MAJOR_FAULTS,
    MEMORY_MINOR_FAULTS,
    MEMORY_FREE,
    MEMORY_TOTAL,
    MEMORY_AVAILABLE,
    MEMORY_CACHES,
    MEMORY_HUGE_TAKEN,
    MEMORY_HUGE_FAILED,
    MEMORY_STATISTICS,
};
struct memory_statistics {
    uint64_t value[MEMORY_STATISTICS];
    uint32_t known; /* a bit for each of them */
    bool reported;  /* they have come, at `time` in guest ns */
    uint64_t time;
    uint64_t balloon; /* bytes that the guest has given to the host */
};

enum class_flags {
    CLASS_KEEPS_STATE =
        1,          /* some state survives a reset (a battery, media): its own test says what */
    CLASS_LOOP = 2, /* it has a data plane: device->loop */
};

struct device_class {
    const char *name, *help;
    size_t size; /* of the instance, whose first member is the device */
    const struct region *regions;
    const struct option *options;
    const struct plug *plugs;
    struct state state;
    const struct pci_class *pci;       /* a PCI function: bus/pci.h */
    const struct virtio_class *virtio; /* a virtio device: bus/virtio.h */
    unsigned flags;

    /* Options are parsed and plugs connected before init. Reset follows init. All may be NULL. */
    bool (*init)(struct device *dev, GError **error);
    void (*reset)(struct device *dev);
    void (*loaded)(struct device *dev); /* after a restore: rederive what is not saved */
    void (*finish)(struct device *dev);

    /* Roles: what the machine asks of some devices. */
    const struct irq_controller *controller;
    const struct dma_controller *dma;
    const struct screen_class *screen;
    const struct input_class *input;
    /* Bytes from the device's stream; returns how many it took, and calls stream_ready when there
     * is room again. */
    size_t (*receive)(struct device *dev, const uint8_t *data, size_t length);
    /* The user pressed the power button (ACPI PM). */
    void (*power_button)(struct device *dev);
    /* Another medium (NULL: none), for drives that can change it (CD-ROM). `index` counts the
     * drives of the controller. */
    void (*change_medium)(struct device *dev, unsigned index, struct disk *disk);
    /* The cable of a NIC goes in or out. */
    void (*set_cable)(struct device *dev, bool in);
    /* The terminal of a console has another size; 0 by 0: unknown. */
    void (*terminal_resized)(struct device *dev, unsigned columns, unsigned rows);
    /* The guest is to make do with so many bytes of its RAM. False: it does not listen now. */
    bool (*memory_wish)(struct device *dev, uint64_t bytes);
    /* What the guest last said of its memory, and it is asked to say it again. False: it does not
     * speak. */
    bool (*memory_ask)(struct device *dev, struct memory_statistics *statistics);
    /* The disk has another size. `index` as above. */
    void (*disk_resized)(struct device *dev, unsigned index);
};

struct device {
    const struct device_class *class;
    char *name; /* for messages: the class, and a number where there are several */
    GMutex lock;
    struct board *board;
    uint64_t base;            /* added to the base of its port and MMIO regions */
    struct pci_function *pci; /* NULL when it is no PCI function */
    struct virtio *virtio;    /* NULL when it is no virtio device */
    bool packed;              /* it offers packed virtqueues (VIRTIO_OPTION_PACKED) */
    struct loop *loop;        /* NULL when its class has no data plane */
};

/* All classes, ending with NULL; the list is src/devices/meson.build. */
extern const struct device_class *const device_classes[];
const struct device_class *device_class_find(const char *name);

/* A life: create, set and plug, start (init, regions onto the bus, reset), ..., destroy. */
struct device *device_create(const struct device_class *class, struct board *board,
                             const char *name);
bool device_set(struct device *dev, const char *option, const char *value, GError **error);
/* Connects a plug of the given name; false when the class has none. `what` points to a struct
 * irq_input for PLUG_INPUT (copied), else it is the pointer itself. */
bool device_plug(struct device *dev, const char *plug, void *what);
bool device_start(struct device *dev, GError **error);
/* The machine's threads no longer call it. NULL is allowed. */
void device_destroy(struct device *dev);

/* The machine stands still, after its vCPUs: whoever serves the device's queues rests until
 * device_resume. */
void device_pause(struct device *dev);
void device_resume(struct device *dev);

/* These take the device's lock. */
void device_reset(struct device *dev);
void device_save(struct device *dev, GByteArray *out);
/* Resets the device first. Who loads a machine resets all of it before: the lines that one device
 * lowers move the registers of others. */
bool device_load(struct device *dev, const uint8_t **in, size_t *length, GError **error);

/* An input pin of a controller, as the end of a wire. */
struct irq_input device_irq_input(struct device *dev, unsigned pin);
/* A channel of a DMA controller, as the end of a DREQ line. */
struct dma device_dma(struct device *dev, unsigned channel);

/* The device's lock, for threads that have to go on soon whatever the guest does: not behind more
 * than one turn of its loop. */
static inline void device_lock(struct device *dev)
{
    loop_lock(dev->loop, &dev->lock);
}
static inline void device_unlock(struct device *dev)
{
    g_mutex_unlock(&dev->lock);
}

/* For devices. */
static inline uint64_t device_now(const struct device *dev)
{
    return clock_now(dev->board->clock);
}
static inline void device_request(struct device *dev, enum board_request what, uint32_t value)
{
    dev->board->ops->request(dev->board->opaque, dev, what, value);
}
/* The guest did what no driver should: counted, and logged at a limited rate. */
void guest_bug(struct device *dev, const char *format, ...) G_GNUC_PRINTF(2, 3);
