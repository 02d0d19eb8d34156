/* What virtio-keyboard.c and virtio-tablet.c share; see virtio-input.h. */
#include "devices/virtio-input.h"

#include <string.h>

/* The device configuration (section 5.8.4): a question and its answer. */
enum { SELECT, SUBSELECT, SIZE, UNION = 8, UNION_SIZE = 128 };
enum {
    ID_NAME = 1,
    ID_SERIAL = 2,
    ID_DEVICE_IDS = 3,
    PROPERTY_BITS = 0x10,
    EVENT_BITS = 0x11,
    AXIS_INFO = 0x12,
};
enum { BUS_VIRTUAL = 6, VERSION = 1, QUEUE_SIZE = 64 };

struct device_ids {
    le16 bus, vendor, product, version;
};
struct axis_info {
    le32 min, max, fuzz, flat, resolution;
};

static unsigned text(uint8_t *to, const char *from)
{
    unsigned length = (unsigned)MIN(strlen(from), UNION_SIZE);
    memcpy(to, from, length);
    return length;
}

static unsigned event_bits(const struct input_info *info, unsigned type, uint8_t *bits)
{
    unsigned size = UNION_SIZE;
    info->codes(type, bits);
    while (size && !bits[size - 1])
        size--;
    return size;
}

/* The answer's size; 0: there is none. */
static unsigned answer(const struct input_info *info, const uint8_t query[2], uint8_t *to)
{
    const struct device_ids ids = { le16_of(BUS_VIRTUAL), le16_of(VIRTIO_VENDOR),
                                    le16_of(info->product), le16_of(VERSION) };
    const struct axis_info axis = { .max = le32_of(info->axis_max) };
    switch (query[SELECT]) {
    case ID_NAME:
        return text(to, info->name);
    case ID_SERIAL:
        return text(to, "0");
    case ID_DEVICE_IDS:
        memcpy(to, &ids, sizeof ids);
        return sizeof ids;
    case EVENT_BITS:
        return event_bits(info, query[SUBSELECT], to);
    case AXIS_INFO:
        if (!info->axis_max || query[SUBSELECT] > ABS_Y)
            return 0;
        memcpy(to, &axis, sizeof axis);
        return sizeof axis;
    case PROPERTY_BITS: /* neither is a touch pad or a screen */
    default:
        return 0;
    }
}

void input_config_read(const struct input_info *info, const uint8_t query[2], uint8_t *config)
{
    config[SELECT] = query[SELECT];
    config[SUBSELECT] = query[SUBSELECT];
    config[SIZE] = (uint8_t)answer(info, query, config + UNION);
}

void input_config_write(uint8_t query[2], unsigned offset, uint32_t value)
{
    if (offset == SELECT || offset == SUBSELECT)
        query[offset] = (uint8_t)value;
}

const struct virtio_queue_class *input_queue_class(struct device *dev, unsigned index)
{
    static const struct virtio_queue_class queues[INPUT_QUEUES] = {
        [INPUT_EVENTS] = { .name = "eventq", .size = QUEUE_SIZE, .waits = true },
        [INPUT_STATUS] = { .name = "statusq", .size = QUEUE_SIZE },
    };
    (void)dev;
    return &queues[index == INPUT_STATUS];
}

bool input_active(struct device *dev)
{
    return virtio_running(dev) && pci_master(dev);
}

bool input_send(struct device *dev, unsigned type, unsigned code, int32_t value)
{
    const struct input_event event = { le16_of((uint16_t)type), le16_of((uint16_t)code),
                                       le32_of((uint32_t)value) };
    struct chain *chain = virtqueue_pop(virtio_queue(dev, INPUT_EVENTS));
    if (!chain)
        return false;
    bool fits = chain_write(chain, &event, sizeof event);
    virtqueue_push(chain, fits ? sizeof event : 0);
    if (!fits)
        virtio_broken(dev, "a buffer for events is too small");
    return fits;
}

bool input_take_status(struct device *dev,
                       void (*take)(struct device *dev, const struct input_event *event))
{
    struct virtqueue *queue = virtio_queue(dev, INPUT_STATUS);
    struct chain *chain;
    for (unsigned i = 0; i < VIRTQUEUE_BATCH && (chain = virtqueue_pop(queue)); i++) {
        struct input_event event;
        if (chain_read(chain, &event, sizeof event))
            take(dev, &event);
        virtqueue_push(chain, 0);
    }
    virtqueue_flush(queue);
    return virtqueue_pending(queue);
}
