/* Virtio over PCI (virtio 1.2 sections 2 to 4.1); see virtio.h.
 *
 * The driver's settings of a queue are copied and checked when it enables the queue. Doorbells are
 * eventfds on the device's loop from DRIVER_OK to reset: the hypervisor signals them at a write to
 * the notification address, and where it cannot, the register's write function wakes the source. */
#include "bus/virtio.h"

#include "base/error.h"
#include "base/log.h"
#include "bus/ring.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

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

/* The BAR: four windows of a page each (section 4.1.4). */
enum {
    BAR = 4,
    WINDOW = 0x1000,
    WINDOW_COMMON = 0,
    WINDOW_ISR = 1,
    WINDOW_CONFIG = 2,
    WINDOW_NOTIFY = 3,
    NOTIFY_STRIDE = 4,
    BAR_SIZE = 4 * WINDOW,
};
/* Capabilities (section 4.1.4). */
enum {
    CAPABILITY_VENDOR = 9,
    CAP_TYPE = 3,
    CAP_BAR = 4,
    CAP_OFFSET = 8,
    CAP_LENGTH = 12,
    CAP_SIZE = 16,
    CAP_NOTIFY_MULTIPLIER = 16,
    CAP_DATA = 16,
    TYPE_COMMON = 1,
    TYPE_NOTIFY = 2,
    TYPE_ISR = 3,
    TYPE_DEVICE = 4,
    TYPE_PCI = 5,
};
/* The common configuration (section 4.1.4.3). */
enum common {
    DEVICE_FEATURE_SELECT = 0,
    DEVICE_FEATURE = 4,
    DRIVER_FEATURE_SELECT = 8,
    DRIVER_FEATURE = 12,
    CONFIG_VECTOR = 16,
    NUM_QUEUES = 18,
    DEVICE_STATUS = 20,
    CONFIG_GENERATION = 21,
    QUEUE_SELECT = 22,
    QUEUE_SIZE = 24,
    QUEUE_VECTOR = 26,
    QUEUE_ENABLE = 28,
    QUEUE_NOTIFY_OFFSET = 30,
    QUEUE_DESCRIPTORS = 32,
    QUEUE_DRIVER = 40,
    QUEUE_DEVICE = 48,
    QUEUE_NOTIFY_DATA = 56,
    QUEUE_RESET = 58,
    COMMON_SIZE = 60,
};
static const uint8_t common_widths[COMMON_SIZE] = {
    [DEVICE_FEATURE_SELECT] = 4, [DEVICE_FEATURE] = 4,
    [DRIVER_FEATURE_SELECT] = 4, [DRIVER_FEATURE] = 4,
    [CONFIG_VECTOR] = 2,         [NUM_QUEUES] = 2,
    [DEVICE_STATUS] = 1,         [CONFIG_GENERATION] = 1,
    [QUEUE_SELECT] = 2,          [QUEUE_SIZE] = 2,
    [QUEUE_VECTOR] = 2,          [QUEUE_ENABLE] = 2,
    [QUEUE_NOTIFY_OFFSET] = 2,   [QUEUE_DESCRIPTORS] = 8,
    [QUEUE_DRIVER] = 8,          [QUEUE_DEVICE] = 8,
    [QUEUE_NOTIFY_DATA] = 2,     [QUEUE_RESET] = 2,
};

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
};

struct virtio {
    struct device *dev;
    const struct virtio_class *class;
    unsigned count; /* of queues */
    uint64_t offered;
    bool running;
    uint8_t draining;        /* the status that is shown until nothing is in flight; 0: none */
    uint64_t queue_draining; /* queues in reset, a bit each */
    uint64_t notify_base;    /* of the doorbells that are registered; 0: none */
    unsigned windows;        /* offset of the pci-cfg capability */
    struct virtqueue *queues[VIRTIO_QUEUES];
    struct door doors[VIRTIO_QUEUES];
    struct virtio_regs regs; /* saved */
};

static const struct field queue_fields[] = {
    SAVED(struct queue_regs, descriptors), SAVED(struct queue_regs, driver),
    SAVED(struct queue_regs, device),      SAVED(struct queue_regs, size),
    SAVED(struct queue_regs, vector),      SAVED(struct queue_regs, next_avail),
    SAVED(struct queue_regs, next_used),   SAVED_MAX(struct queue_regs, enabled, 1),
    SAVED_PAD(struct queue_regs, pad),     SAVED_END,
};
static const struct field virtio_fields[] = {
    SAVED_STRUCTS(struct virtio_regs, queue, queue_fields),
    SAVED(struct virtio_regs, features),
    SAVED(struct virtio_regs, device_select),
    SAVED(struct virtio_regs, driver_select),
    SAVED(struct virtio_regs, config_vector),
    SAVED(struct virtio_regs, queue_select),
    SAVED(struct virtio_regs, status),
    SAVED(struct virtio_regs, generation),
    SAVED_MAX(struct virtio_regs, isr, ISR_QUEUE | ISR_CONFIG),
    SAVED_PAD(struct virtio_regs, pad),
    SAVED_END,
};
const struct state virtio_state = STATE(struct virtio, regs, 1, virtio_fields);

/* --- for devices ---------------------------------------------------------------------------- */

struct virtqueue *virtio_queue(struct device *dev, unsigned index)
{
    return dev->virtio->queues[index];
}

bool virtio_has(const struct device *dev, unsigned feature)
{
    return dev->virtio->regs.features >> feature & 1;
}

bool virtio_running(const struct device *dev)
{
    return dev->virtio->running;
}

void virtio_wake(struct device *dev, unsigned index)
{
    loop_wake(&dev->virtio->doors[index].source);
}

/* --- interrupts (section 4.1.5) ------------------------------------------------------------- */

static void interrupt(struct device *dev, uint16_t vector, uint8_t isr)
{
    struct virtio *v = dev->virtio;
    if (pci_msix_enabled(dev)) {
        if (vector != NO_VECTOR)
            pci_msix_notify(dev, vector);
        return;
    }
    v->regs.isr |= isr;
    pci_interrupt(dev, true);
}

void virtio_interrupt(struct device *dev, unsigned index)
{
    interrupt(dev, dev->virtio->regs.queue[index].vector, ISR_QUEUE);
}

void virtio_config_changed(struct device *dev)
{
    struct virtio *v = dev->virtio;
    v->regs.generation++;
    if (v->regs.status & STATUS_DRIVER_OK)
        interrupt(dev, v->regs.config_vector, ISR_CONFIG);
}

void virtio_broken(struct device *dev, const char *why)
{
    struct virtio *v = dev->virtio;
    guest_bug(dev, "%s: the device needs a reset", why);
    v->running = false;
    for (unsigned i = 0; i < v->count; i++)
        virtqueue_disable(v->queues[i]);
    if (v->regs.status & STATUS_NEEDS_RESET)
        return;
    v->regs.status |= STATUS_NEEDS_RESET;
    if (v->regs.status & STATUS_DRIVER_OK)
        interrupt(dev, v->regs.config_vector, ISR_CONFIG);
}

/* --- doorbells ------------------------------------------------------------------------------ */

static bool serve(struct door *door)
{
    struct virtio *v = door->dev->virtio;
    struct virtqueue *queue = v->queues[door->index];
    if (!v->running || !virtqueue_is_active(queue) || !pci_master(door->dev))
        return false;
    if (!virtqueue_waits(queue))
        virtqueue_notify(queue, false);
    return v->class->serve(door->dev, door->index) && v->running;
}

static bool door_ready(struct loop_source *source, uint32_t events)
{
    (void)events;
    return serve(source->opaque);
}

static bool has_work(const struct virtqueue *queue)
{
    return !virtqueue_waits(queue) && virtqueue_pending(queue);
}

static bool door_poll(struct loop_source *source)
{
    struct door *door = source->opaque;
    struct virtio *v = door->dev->virtio;
    bool found = v->running && pci_master(door->dev) && has_work(v->queues[door->index]);
    if (found && serve(door))
        loop_wake(source);
    if (door->index == 0 && v->running && v->class->poll)
        found |= v->class->poll(door->dev);
    return found;
}

static bool door_rest(struct loop_source *source)
{
    struct door *door = source->opaque;
    struct virtio *v = door->dev->virtio;
    struct virtqueue *queue = v->queues[door->index];
    if (!v->running || !pci_master(door->dev)) /* asking is a write to memory, too */
        return false;
    if (!virtqueue_waits(queue))
        virtqueue_notify(queue, true);
    return has_work(queue);
}

static void doorbells(struct virtio *v, bool on)
{
    const struct board *board = v->dev->board;
    for (unsigned i = 0; i < v->count; i++) {
        struct door *door = &v->doors[i];
        uint64_t address = v->notify_base + NOTIFY_STRIDE * i;
        if (door->source.fd < 0 || !door->source.loop || door->registered == on ||
            !board->ops->doorbell)
            continue;
        bool done = board->ops->doorbell(board->opaque, address, door->source.fd, on);
        door->registered = on && done;
    }
}

/* Puts the doorbells where the BAR is. */
static void place_doorbells(struct virtio *v)
{
    uint64_t base = 0;
    if (v->running && pci_bar_address(v->dev, BAR, &base))
        base += WINDOW_NOTIFY * WINDOW;
    else
        base = 0;
    if (base != v->notify_base)
        doorbells(v, false);
    v->notify_base = base;
    if (base)
        doorbells(v, true);
}

static void open_door(struct virtio *v, unsigned index)
{
    struct door *door = &v->doors[index];
    if (door->source.loop || !v->regs.queue[index].enabled)
        return;
    door->source.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); /* without: woken by the register */
    if (!loop_add(v->dev->loop, &door->source, EPOLLIN | EPOLLET) && door->source.fd >= 0) {
        close(door->source.fd);
        door->source.fd = -1;
    }
}

static void close_door(struct virtio *v, unsigned index)
{
    struct door *door = &v->doors[index];
    loop_remove(&door->source);
    if (door->source.fd >= 0)
        close(door->source.fd);
    door->source.fd = -1;
}

/* --- reset and start ------------------------------------------------------------------------ */

static void queue_fresh(struct virtio *v, unsigned index)
{
    v->regs.queue[index] = (struct queue_regs){
        .size = v->queues[index]->class->size,
        .vector = NO_VECTOR,
    };
}

static void regs_fresh(struct virtio *v)
{
    memset(&v->regs, 0, sizeof v->regs);
    v->regs.config_vector = NO_VECTOR;
    for (unsigned i = 0; i < v->count; i++)
        queue_fresh(v, i);
}

static bool is_drained(const struct virtio *v)
{
    for (unsigned i = 0; i < v->count; i++)
        if (virtqueue_in_flight(v->queues[i]))
            return false;
    return true;
}

void virtio_drained(struct device *dev)
{
    struct virtio *v = dev->virtio;
    for (unsigned i = 0; i < v->count; i++)
        if (v->queue_draining >> i & 1 && !virtqueue_in_flight(v->queues[i]))
            v->queue_draining &= ~(UINT64_C(1) << i);
    if (v->draining && is_drained(v))
        v->draining = 0;
}

/* Stops everything and forgets what the driver set. */
static void begin_reset(struct virtio *v)
{
    uint8_t shown = v->regs.status;
    v->running = false;
    place_doorbells(v); /* away */
    for (unsigned i = 0; i < v->count; i++) {
        close_door(v, i);
        virtqueue_disable(v->queues[i]);
    }
    if (v->class->stop)
        v->class->stop(v->dev, VIRTIO_ANY);
    pci_msix_release(v->dev);
    regs_fresh(v);
    pci_interrupt(v->dev, false);
    v->queue_draining = 0;
    if (!v->draining && !is_drained(v))
        v->draining = shown ? shown : STATUS_ACKNOWLEDGE;
}

static bool enable_queue(struct virtio *v, unsigned index)
{
    struct queue_regs *q = &v->regs.queue[index];
    struct device *dev = v->dev;
    const struct ring_setup setup = {
        .descriptors = q->descriptors,
        .driver = q->driver,
        .device = q->device,
        .size = q->size,
        .packed = virtio_has(dev, VIRTIO_RING_PACKED),
        .event_idx = virtio_has(dev, VIRTIO_EVENT_IDX),
        .indirect = virtio_has(dev, VIRTIO_INDIRECT_DESC),
        .next_avail = q->next_avail,
        .next_used = q->next_used,
    };
    const char *wrong = virtqueue_enable(v->queues[index], &setup);
    if (wrong)
        virtio_broken(dev, wrong);
    return !wrong;
}

/* DRIVER_OK. */
static void start(struct virtio *v)
{
    v->running = true;
    for (unsigned i = 0; i < v->count; i++)
        open_door(v, i);
    place_doorbells(v);
    pci_msix_claim(v->dev);
    if (v->class->start)
        v->class->start(v->dev);
    for (unsigned i = 0; i < v->count; i++)
        loop_wake(&v->doors[i].source); /* drivers may fill queues before */
}

static bool features_fit(struct virtio *v)
{
    uint64_t features = v->regs.features;
    return !(features & ~v->offered) && features >> VIRTIO_VERSION_1 & 1 &&
           (!v->class->accept || v->class->accept(v->dev, features));
}

/* Bits can be set, one after the other, and all cleared by 0 (section 2.1.2). */
static void set_status(struct virtio *v, uint8_t value)
{
    uint8_t set = value & (uint8_t)~v->regs.status;
    if (!value) {
        begin_reset(v);
        return;
    }
    if (set & STATUS_FEATURES_OK && !features_fit(v))
        set &= (uint8_t)~STATUS_FEATURES_OK;
    set &=
        STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK | STATUS_FAILED;
    if (set & STATUS_DRIVER_OK && !((v->regs.status | set) & STATUS_FEATURES_OK))
        set &= (uint8_t)~STATUS_DRIVER_OK;
    v->regs.status |= set;
    if (set & STATUS_DRIVER_OK && !(v->regs.status & STATUS_NEEDS_RESET))
        start(v);
}

static void set_enable(struct virtio *v, unsigned index)
{
    struct queue_regs *q = &v->regs.queue[index];
    bool packed = virtio_has(v->dev, VIRTIO_RING_PACKED);
    if (q->enabled || v->queue_draining >> index & 1 || !(v->regs.status & STATUS_FEATURES_OK) ||
        v->regs.status & STATUS_NEEDS_RESET)
        return;
    q->next_avail = q->next_used = packed ? 0x8000 : 0;
    q->enabled = enable_queue(v, index);
    if (q->enabled && v->running) { /* after a reset of this queue alone */
        open_door(v, index);
        place_doorbells(v);
        loop_wake(&v->doors[index].source);
    }
}

/* Section 2.6.1. */
static void reset_queue(struct virtio *v, unsigned index)
{
    if (!virtio_has(v->dev, VIRTIO_RING_RESET) || !v->regs.queue[index].enabled)
        return;
    struct door *door = &v->doors[index];
    const struct board *board = v->dev->board;
    if (door->registered)
        board->ops->doorbell(board->opaque, v->notify_base + NOTIFY_STRIDE * index, door->source.fd,
                             false);
    door->registered = false;
    close_door(v, index);
    virtqueue_disable(v->queues[index]);
    if (v->class->stop)
        v->class->stop(v->dev, index);
    queue_fresh(v, index);
    if (virtqueue_in_flight(v->queues[index]))
        v->queue_draining |= UINT64_C(1) << index;
}

/* --- the common configuration --------------------------------------------------------------- */

static uint64_t common_get(struct virtio *v, enum common field)
{
    const struct virtio_regs *r = &v->regs;
    unsigned index = r->queue_select;
    const struct queue_regs *q = index < v->count ? &r->queue[index] : NULL;
    switch (field) {
    case DEVICE_FEATURE_SELECT:
        return r->device_select;
    case DEVICE_FEATURE:
        return r->device_select < 2 ? (uint32_t)(v->offered >> 32 * r->device_select) : 0;
    case DRIVER_FEATURE_SELECT:
        return r->driver_select;
    case DRIVER_FEATURE:
        return r->driver_select < 2 ? (uint32_t)(r->features >> 32 * r->driver_select) : 0;
    case CONFIG_VECTOR:
        return r->config_vector;
    case NUM_QUEUES:
        return v->count;
    case DEVICE_STATUS:
        return v->draining ? v->draining : r->status;
    case CONFIG_GENERATION:
        return r->generation;
    case QUEUE_SELECT:
        return index;
    case QUEUE_SIZE:
        return q ? q->size : 0;
    case QUEUE_VECTOR:
        return q ? q->vector : NO_VECTOR;
    case QUEUE_ENABLE:
        return q ? q->enabled : 0;
    case QUEUE_NOTIFY_OFFSET:
    case QUEUE_NOTIFY_DATA:
        return index;
    case QUEUE_DESCRIPTORS:
        return q ? q->descriptors : 0;
    case QUEUE_DRIVER:
        return q ? q->driver : 0;
    case QUEUE_DEVICE:
        return q ? q->device : 0;
    case QUEUE_RESET:
        return q ? v->queue_draining >> index & 1 : 0;
    case COMMON_SIZE:
        break;
    }
    return 0;
}

static uint16_t vector_or_none(const struct virtio *v, uint64_t value)
{
    return value <= v->count ? (uint16_t)value : NO_VECTOR;
}

/* What belongs to a queue; only while it is off. */
static void queue_set(struct virtio *v, unsigned index, enum common field, uint64_t value)
{
    struct queue_regs *q = &v->regs.queue[index];
    if (field == QUEUE_RESET && value == 1)
        reset_queue(v, index);
    else if (field == QUEUE_VECTOR)
        q->vector = vector_or_none(v, value);
    else if (q->enabled)
        return;
    else if (field == QUEUE_SIZE)
        q->size = (uint16_t)value;
    else if (field == QUEUE_ENABLE && value == 1)
        set_enable(v, index);
    else if (field == QUEUE_DESCRIPTORS)
        q->descriptors = value;
    else if (field == QUEUE_DRIVER)
        q->driver = value;
    else if (field == QUEUE_DEVICE)
        q->device = value;
}

static void common_set(struct virtio *v, enum common field, uint64_t value)
{
    struct virtio_regs *r = &v->regs;
    uint64_t half = UINT64_C(0xffffffff) << 32 * (r->driver_select & 1);
    if (v->draining && (field != DEVICE_STATUS || value))
        return; /* the driver has to wait */
    switch (field) {
    case DEVICE_FEATURE_SELECT:
        r->device_select = (uint32_t)value;
        break;
    case DRIVER_FEATURE_SELECT:
        r->driver_select = (uint32_t)value;
        break;
    case DRIVER_FEATURE:
        if (r->driver_select < 2 && !(r->status & STATUS_FEATURES_OK))
            r->features = (r->features & ~half) | value << 32 * r->driver_select;
        break;
    case CONFIG_VECTOR:
        r->config_vector = vector_or_none(v, value);
        break;
    case DEVICE_STATUS:
        set_status(v, (uint8_t)value);
        break;
    case QUEUE_SELECT:
        r->queue_select = (uint16_t)value;
        break;
    default:
        if (r->queue_select < v->count)
            queue_set(v, r->queue_select, field, value);
    }
}

/* The field that holds an offset. */
static enum common field_at(unsigned offset)
{
    while (offset && !common_widths[offset])
        offset--;
    return offset;
}

static uint64_t common_read(struct virtio *v, unsigned offset)
{
    if (offset >= COMMON_SIZE)
        return 0;
    enum common field = field_at(offset);
    return common_get(v, field) >> 8 * (offset - field);
}

/* Fields are written whole, those of 64 bits also by halves (section 4.1.3.1). */
static void common_write(struct virtio *v, unsigned offset, unsigned width, uint64_t value)
{
    if (offset >= COMMON_SIZE)
        return;
    enum common field = field_at(offset);
    unsigned shift = 8 * (offset - field);
    if (common_widths[field] == 8 && width == 4)
        value = (common_get(v, field) & ~(UINT64_C(0xffffffff) << shift)) | value << shift;
    else if (width != common_widths[field] || shift)
        return;
    common_set(v, field, value);
}

/* --- the BAR and its window in configuration space ------------------------------------------ */

static uint64_t config_get(struct virtio *v, unsigned offset, unsigned width)
{
    uint8_t config[256] = { 0 };
    uint64_t value = 0;
    if (offset + width > v->class->config_size)
        return 0;
    v->class->config_read(v->dev, config);
    memcpy(&value, config + offset, width);
    return value;
}

static uint64_t bar_read(struct device *dev, uint64_t offset, unsigned width)
{
    struct virtio *v = dev->virtio;
    unsigned at = offset % WINDOW;
    uint8_t isr = v->regs.isr;
    uint64_t mask = width == 8 ? UINT64_MAX : (UINT64_C(1) << 8 * width) - 1;
    switch (offset / WINDOW) {
    case WINDOW_COMMON:
        return common_read(v, at) & mask;
    case WINDOW_ISR:
        if (at)
            return 0;
        v->regs.isr = 0;
        pci_interrupt(dev, false);
        return isr;
    case WINDOW_CONFIG:
        return config_get(v, at, width);
    default:
        return 0;
    }
}

static void bar_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct virtio *v = dev->virtio;
    unsigned at = offset % WINDOW;
    switch (offset / WINDOW) {
    case WINDOW_COMMON:
        common_write(v, at, width, value);
        break;
    case WINDOW_CONFIG:
        if (v->class->config_write && width <= 4 && at + width <= v->class->config_size &&
            !v->draining)
            v->class->config_write(dev, at, width, (uint32_t)value);
        break;
    case WINDOW_NOTIFY:
        if (at / NOTIFY_STRIDE < v->count)
            loop_wake(&v->doors[at / NOTIFY_STRIDE].source);
        break;
    }
}

const struct region virtio_regions[] = {
    { REGION_BAR, BAR, BAR_SIZE, W8 | W16 | W32 | W64, bar_read, bar_write },
    { .kind = REGION_END },
};

/* An access that software makes through the pci-cfg capability (section 4.1.4.9): how many bytes,
 * and where in the BAR; false when it makes none. */
static bool window(struct device *dev, unsigned offset, unsigned *at, unsigned *width)
{
    unsigned capability = dev->virtio->windows;
    if (offset != capability + CAP_DATA || pci_get(dev, capability + CAP_BAR, 1) != BAR)
        return false;
    *at = pci_get(dev, capability + CAP_OFFSET, 4);
    *width = pci_get(dev, capability + CAP_LENGTH, 4);
    return (*width == 1 || *width == 2 || *width == 4) && *at % *width == 0 &&
           *at <= BAR_SIZE - *width;
}

void virtio_config_written(struct device *dev, unsigned offset, unsigned length)
{
    unsigned at, width;
    (void)length;
    if (window(dev, offset, &at, &width))
        bar_write(dev, at, width, pci_get(dev, offset, 4) & (UINT32_MAX >> (32 - 8 * width)));
    else
        place_doorbells(dev->virtio);
    for (unsigned i = 0; i < dev->virtio->count && dev->virtio->running; i++)
        loop_wake(&dev->virtio->doors[i].source); /* bus mastering may have come back */
}

void virtio_config_read(struct device *dev, unsigned offset, unsigned length)
{
    unsigned at, width;
    (void)length;
    if (window(dev, offset, &at, &width))
        pci_put(dev, offset, 4, (uint32_t)bar_read(dev, at, width));
}

static unsigned add_capability(struct device *dev, unsigned type, unsigned win, unsigned length,
                               unsigned extra)
{
    unsigned offset = pci_capability(dev, CAPABILITY_VENDOR, CAP_SIZE + extra);
    pci_put(dev, offset + 2, 1, CAP_SIZE + extra);
    pci_put(dev, offset + CAP_TYPE, 1, type);
    pci_put(dev, offset + CAP_BAR, 1, BAR);
    pci_put(dev, offset + CAP_OFFSET, 4, win * WINDOW);
    pci_put(dev, offset + CAP_LENGTH, 4, length);
    return offset;
}

static void add_capabilities(struct virtio *v)
{
    struct device *dev = v->dev;
    add_capability(dev, TYPE_COMMON, WINDOW_COMMON, COMMON_SIZE, 0);
    add_capability(dev, TYPE_ISR, WINDOW_ISR, 1, 0);
    if (v->class->config_size)
        add_capability(dev, TYPE_DEVICE, WINDOW_CONFIG, (unsigned)v->class->config_size, 0);
    unsigned notify = add_capability(dev, TYPE_NOTIFY, WINDOW_NOTIFY, NOTIFY_STRIDE * v->count, 4);
    pci_put(dev, notify + CAP_NOTIFY_MULTIPLIER, 4, NOTIFY_STRIDE);
    v->windows = add_capability(dev, TYPE_PCI, 0, 0, 4);
    pci_put(dev, v->windows + CAP_BAR, 1, 0);
    pci_allow(dev, v->windows + CAP_BAR, 0xff);
    for (unsigned i = CAP_OFFSET; i < CAP_DATA + 4; i++)
        pci_allow(dev, v->windows + i, 0xff);
}

/* --- life ----------------------------------------------------------------------------------- */

struct virtio *virtio_new(struct device *dev)
{
    struct virtio *v = g_new0(struct virtio, 1);
    v->dev = dev;
    v->class = dev->class->virtio;
    for (unsigned i = 0; i < VIRTIO_QUEUES; i++)
        v->doors[i] = (struct door){
            .source = { .fd = -1,
                        .lock = &dev->lock,
                        .opaque = &v->doors[i],
                        .ready = door_ready,
                        .poll = door_poll,
                        .rest = door_rest },
            .dev = dev,
            .index = i,
        };
    return v;
}

bool virtio_start(struct device *dev, GError **error)
{
    struct virtio *v = dev->virtio;
    if (!dev->pci)
        return hv_fail(error, HV_FAILED, "%s: a virtio device wants a PCI slot", dev->name);
    v->count = v->class->queue_count ? v->class->queue_count(dev) : v->class->queues;
    for (unsigned i = 0; i < v->count; i++)
        v->queues[i] = virtqueue_new(dev, i, v->class->queue(dev, i));
    v->offered = (v->class->offer ? v->class->offer(dev) : v->class->features) |
                 UINT64_C(1) << VIRTIO_INDIRECT_DESC | UINT64_C(1) << VIRTIO_EVENT_IDX |
                 UINT64_C(1) << VIRTIO_VERSION_1 | UINT64_C(1) << VIRTIO_RING_RESET |
                 (uint64_t)dev->packed << VIRTIO_RING_PACKED;
    add_capabilities(v);
    pci_msix_vectors(dev, v->count + 1);
    return true;
}

void virtio_reset(struct device *dev)
{
    begin_reset(dev->virtio);
}

void virtio_save(struct device *dev, GByteArray *out)
{
    struct virtio *v = dev->virtio;
    for (unsigned i = 0; i < v->count; i++)
        if (virtqueue_is_active(v->queues[i]))
            virtqueue_positions(v->queues[i], &v->regs.queue[i].next_avail,
                                &v->regs.queue[i].next_used);
    state_save(&virtio_state, v, out);
}

void virtio_loaded(struct device *dev)
{
    struct virtio *v = dev->virtio;
    bool negotiated = v->regs.status & (STATUS_FEATURES_OK | STATUS_DRIVER_OK);
    if (negotiated) /* until then the driver may ask for anything */
        v->regs.features &= v->offered;
    for (unsigned i = negotiated ? v->count : 0; i < VIRTIO_QUEUES; i++)
        v->regs.queue[i].enabled = 0;
    for (unsigned i = 0; i < v->count; i++)
        if (v->regs.queue[i].enabled && !(v->regs.status & STATUS_NEEDS_RESET))
            v->regs.queue[i].enabled = enable_queue(v, i);
    if (v->regs.status & STATUS_DRIVER_OK && !(v->regs.status & STATUS_NEEDS_RESET))
        start(v);
    pci_interrupt(dev, v->regs.isr && !pci_msix_enabled(dev));
}

void virtio_finish(struct device *dev)
{
    struct virtio *v = dev->virtio;
    g_mutex_lock(&dev->lock); /* the loop's thread runs still */
    if (v->count)
        begin_reset(v);
    g_mutex_unlock(&dev->lock);
    loop_settle(dev->loop);
    for (unsigned i = 0; i < v->count; i++)
        virtqueue_free(v->queues[i]);
    g_free(v);
    dev->virtio = NULL;
}
