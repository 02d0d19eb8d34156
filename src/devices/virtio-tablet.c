/* Virtio tablet: a pointer with absolute positions, so that the host's own pointer is the guest's;
 * see virtio-input.h.
 *
 * What the user did waits in a short list, motion joined and clicks kept apart, until the driver
 * gives buffers. Between the first report of the list and what the driver was told lie the events
 * that are still to be sent, one by one, so that a queue of any size will do. */
#include "devices/virtio-input.h"

#include <string.h>

enum { CLASS_CODE = 0x098000 /* input, other */, PRODUCT = 2 };
enum { REPORTS = 16, WHEEL_MAX = 100, BUTTONS = BUTTON_LEFT | BUTTON_RIGHT | BUTTON_MIDDLE };

struct report {
    uint32_t x, y;
    uint32_t buttons; /* enum pointer_button */
    uint32_t wheel;   /* steps, as int32_t */
};

struct tablet_regs {
    struct report reports[REPORTS]; /* the first `count` wait */
    struct report told;
    uint32_t count;
    uint8_t query[2];
    bool open; /* something was told, and not yet that this was all */
    uint8_t pad[1];
};

struct tablet {
    struct device dev;
    struct tablet_regs regs;
};

static const struct field report_fields[] = {
    SAVED_MAX(struct report, x, POINTER_RANGE),
    SAVED_MAX(struct report, y, POINTER_RANGE),
    SAVED_MAX(struct report, buttons, BUTTONS),
    SAVED(struct report, wheel),
    SAVED_END,
};

static const struct field tablet_fields[] = {
    SAVED_STRUCTS(struct tablet_regs, reports, report_fields),
    { .name = "told",
      .type = FIELD_STRUCT,
      .since = 1,
      .offset = offsetof(struct tablet_regs, told),
      .width = sizeof(struct report),
      .count = 1,
      .fields = report_fields },
    SAVED_MAX(struct tablet_regs, count, REPORTS),
    SAVED_ARRAY(struct tablet_regs, query),
    SAVED(struct tablet_regs, open),
    SAVED_PAD(struct tablet_regs, pad),
    SAVED_END,
};

static const struct {
    enum pointer_button button;
    uint16_t code;
} buttons[] = {
    { BUTTON_LEFT, BTN_LEFT },
    { BUTTON_RIGHT, BTN_RIGHT },
    { BUTTON_MIDDLE, BTN_MIDDLE },
};

static struct tablet *tablet_of(struct device *dev)
{
    return (struct tablet *)dev;
}

/* --- events --------------------------------------------------------------------------------- */

static bool tell(struct tablet *tablet, unsigned type, unsigned code, uint32_t value)
{
    if (!input_send(&tablet->dev, type, code, (int32_t)value))
        return false;
    tablet->regs.open = type != EV_SYN;
    return true;
}

static bool tell_axis(struct tablet *tablet, unsigned code, uint32_t *told, uint32_t value)
{
    if (*told != value && !tell(tablet, EV_ABS, code, value))
        return false;
    *told = value;
    return true;
}

/* Sends of the first report what the driver does not know; true when that is all. */
static bool tell_report(struct tablet *tablet, struct report *report)
{
    struct report *told = &tablet->regs.told;
    if (!tell_axis(tablet, ABS_X, &told->x, report->x) ||
        !tell_axis(tablet, ABS_Y, &told->y, report->y))
        return false;
    if (report->wheel && !tell(tablet, EV_REL, REL_WHEEL, report->wheel))
        return false;
    report->wheel = 0;
    for (size_t i = 0; i < G_N_ELEMENTS(buttons); i++) {
        uint32_t bit = buttons[i].button;
        if (!((told->buttons ^ report->buttons) & bit))
            continue;
        if (!tell(tablet, EV_KEY, buttons[i].code, (report->buttons & bit) != 0))
            return false;
        told->buttons ^= bit;
    }
    return !tablet->regs.open || tell(tablet, EV_SYN, 0, 0);
}

static void settle(struct tablet *tablet)
{
    struct tablet_regs *r = &tablet->regs;
    while (r->count && tell_report(tablet, &r->reports[0])) {
        memmove(r->reports, r->reports + 1, --r->count * sizeof r->reports[0]);
        r->reports[r->count] = (struct report){ .x = 0 };
    }
    virtqueue_flush(virtio_queue(&tablet->dev, INPUT_EVENTS));
}

static void pointer_at(struct device *dev, unsigned x, unsigned y, int wheel, unsigned pressed)
{
    struct tablet_regs *r = &tablet_of(dev)->regs;
    if (!virtio_running(dev))
        return;
    struct report new = { MIN(x, POINTER_RANGE), MIN(y, POINTER_RANGE), pressed & BUTTONS,
                          (uint32_t)CLAMP(wheel, -WHEEL_MAX, WHEEL_MAX) };
    struct report *last = r->count ? &r->reports[r->count - 1] : NULL;
    if (last && (last->buttons == new.buttons || r->count == REPORTS)) {
        int joined = (int)CLAMP((int32_t)last->wheel, -WHEEL_MAX, WHEEL_MAX) + (int32_t) new.wheel;
        new.wheel = (uint32_t)joined;
        *last = new;
    } else {
        r->reports[r->count++] = new;
    }
    settle(tablet_of(dev));
}

/* --- the device ----------------------------------------------------------------------------- */

static void ignore(struct device *dev, const struct input_event *event)
{
    (void)dev, (void)event; /* a tablet has nothing to be set */
}

static bool serve(struct device *dev, unsigned index)
{
    if (index == INPUT_STATUS)
        return input_take_status(dev, ignore);
    settle(tablet_of(dev));
    return false;
}

static void stop(struct device *dev, uint32_t index)
{
    if (index == VIRTIO_ANY)
        tablet_of(dev)->regs = (struct tablet_regs){ .count = 0 };
}

static void reset(struct device *dev)
{
    stop(dev, VIRTIO_ANY);
}

static void bits(unsigned type, uint8_t *to)
{
    for (size_t i = 0; type == EV_KEY && i < G_N_ELEMENTS(buttons); i++)
        input_set_bit(to, buttons[i].code);
    if (type == EV_REL)
        input_set_bit(to, REL_WHEEL);
    if (type == EV_ABS) {
        input_set_bit(to, ABS_X);
        input_set_bit(to, ABS_Y);
    }
}

static void config_read(struct device *dev, uint8_t *config)
{
    static const struct input_info info = {
        .name = "hv virtio tablet", .product = PRODUCT, .codes = bits, .axis_max = POINTER_RANGE
    };
    input_config_read(&info, tablet_of(dev)->regs.query, config);
}

static void config_write(struct device *dev, unsigned offset, unsigned width, uint32_t value)
{
    (void)width;
    input_config_write(tablet_of(dev)->regs.query, offset, value);
}

const struct device_class virtio_tablet_class = {
    .name = "virtio-tablet",
    .help = "pointer that needs no grab, for guests with virtio",
    .size = sizeof(struct tablet),
    .flags = CLASS_LOOP,
    .regions = virtio_regions,
    .pci = VIRTIO_PCI(INPUT_ID, CLASS_CODE),
    .virtio =
        &(const struct virtio_class){
            .id = INPUT_ID,
            .queues = INPUT_QUEUES,
            .config_size = INPUT_CONFIG_SIZE,
            .queue = input_queue_class,
            .config_read = config_read,
            .config_write = config_write,
            .serve = serve,
            .stop = stop,
        },
    .options =
        (const struct option[]){
            VIRTIO_OPTION_PACKED,
            { .name = NULL },
        },
    .state = STATE(struct tablet, regs, 1, tablet_fields),
    .reset = reset,
    .input = &(const struct input_class){ .pointer_at = pointer_at, .active = input_active },
};
