/* What the virtio input devices share (virtio 1.2 section 5.8): the queries of the configuration,
 * and events, whose types and codes are those of Linux's evdev (section 5.8.4; the numbers are
 * those of its include/uapi/linux/input-event-codes.h).
 *
 * An event goes into a buffer of its own. Buffers are not taken before there is an event, so a
 * device holds none, and what finds no buffer stays in the device's registers. */
#pragma once
#include "bus/virtio.h"

enum { INPUT_EVENTS, INPUT_STATUS, INPUT_QUEUES }; /* section 5.8.2 */
enum { INPUT_ID = 18, INPUT_CONFIG_SIZE = 136 };

enum { EV_SYN, EV_KEY, EV_REL, EV_ABS, EV_LED = 0x11 };
enum { REL_WHEEL = 8, ABS_X = 0, ABS_Y = 1 };
enum { BTN_LEFT = 0x110, BTN_RIGHT, BTN_MIDDLE };
enum { LED_NUM, LED_CAPS, LED_SCROLL };

/* An event, both ways (section 5.8.6). */
struct input_event {
    le16 type, code;
    le32 value;
};

/* What a device says of itself. */
struct input_info {
    const char *name;
    uint16_t product;
    /* Puts the bits of the codes that it has of an event type into `bits`, of 128 bytes. */
    void (*codes)(unsigned type, uint8_t *bits);
    uint32_t axis_max; /* of ABS_X and ABS_Y; 0: it has none */
};

/* virtio_class.config_read and .config_write, with what they need: `query` are the two bytes that
 * drivers write (section 5.8.4). */
void input_config_read(const struct input_info *info, const uint8_t query[2], uint8_t *config);
void input_config_write(uint8_t query[2], unsigned offset, uint32_t value);
const struct virtio_queue_class *input_queue_class(struct device *dev, unsigned index);
/* input_class.active: there is a driver that listens. */
bool input_active(struct device *dev);

static inline void input_set_bit(uint8_t *bits, unsigned bit)
{
    bits[bit / 8 & 127] |= (uint8_t)(1u << bit % 8);
}

/* Puts an event into the driver's next buffer; false when there is none. Shown by virtqueue_flush.
 */
bool input_send(struct device *dev, unsigned type, unsigned code, int32_t value);
/* Serves the status queue: gives each event of the driver to `take`. */
bool input_take_status(struct device *dev,
                       void (*take)(struct device *dev, const struct input_event *event));
