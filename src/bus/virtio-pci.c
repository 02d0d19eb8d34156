/* The registers of virtio over PCI (virtio 1.2 section 4.1.4): the common configuration, ISR,
 * device configuration and notifications in a BAR, and the window to it in configuration space. */
#include "bus/virtio-core.h"

#include <string.h>

/* The BAR: four windows of a page each (section 4.1.4). */
enum {
    BAR = VIRTIO_BAR,
    WINDOW = 0x1000,
    WINDOW_COMMON = 0,
    WINDOW_ISR = 1,
    WINDOW_CONFIG = 2,
    WINDOW_NOTIFY = 3,
    NOTIFY_STRIDE = VIRTIO_NOTIFY_STRIDE,
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

static void set_vector(struct virtio *v, struct queue_regs *q, uint16_t vector)
{
    q->vector = vector;
    virtio_place_calls(v);
}

/* What belongs to a queue; only while it is off. */
static void queue_set(struct virtio *v, unsigned index, enum common field, uint64_t value)
{
    struct queue_regs *q = &v->regs.queue[index];
    if (field == QUEUE_RESET && value == 1)
        virtio_reset_queue(v, index);
    else if (field == QUEUE_VECTOR)
        set_vector(v, q, vector_or_none(v, value));
    else if (q->enabled)
        return;
    else if (field == QUEUE_SIZE)
        q->size = (uint16_t)value;
    else if (field == QUEUE_ENABLE && value == 1)
        virtio_enable_queue(v, index);
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
        virtio_set_status(v, (uint8_t)value);
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
            virtio_ring_bell(&v->doors[at / NOTIFY_STRIDE]);
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
        virtio_place_doorbells(dev->virtio);
    virtio_master(dev->virtio);
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

void virtio_add_capabilities(struct virtio *v)
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
