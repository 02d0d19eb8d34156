/* Virtio keyboard; see virtio-input.h.
 *
 * A press that finds no buffer is refused, as input.h has it; a release is owed until the driver
 * gives buffers. Repetition is left to the host, as with the PS/2 keyboard: a key that is down and
 * goes down again. */
#include "devices/virtio-input.h"

enum { CLASS_CODE = 0x090000 /* keyboard */, PRODUCT = 1, KEYS = 256 };
enum { RELEASED, PRESSED, REPEATED }; /* values of EV_KEY */

struct keyboard_regs {
    uint8_t query[2];
    uint8_t lamps;          /* enum lamp */
    bool open;              /* a key was told of, and not yet that this was all */
    uint8_t told[KEYS / 8]; /* by usage: keys that the driver knows to be down */
    uint8_t owed[KEYS / 8]; /* those of them that are up, which it does not know yet */
};

struct virtio_keyboard {
    struct device dev;
    struct keyboard_regs regs;
    struct input_source *source;
    unsigned full; /* buffers that the driver has given when it has taken all events */
    uint8_t lost;  /* enum key_loss */
};

static const struct field keyboard_fields[] = {
    SAVED_ARRAY(struct keyboard_regs, query),
    SAVED_MAX(struct keyboard_regs, lamps, LAMP_SCROLL | LAMP_NUM | LAMP_CAPS),
    SAVED(struct keyboard_regs, open),
    SAVED_ARRAY(struct keyboard_regs, told),
    SAVED_ARRAY(struct keyboard_regs, owed),
    SAVED_END,
};

/* clang-format off */
/* Key codes by usage of HID page 7, as Linux has them for USB keyboards; 0: no such key. Multimedia
 * keys stand where they stand in ps2-keyboard.c. */
static const uint8_t codes[KEYS] = {
    /* a to z */
    [0x04] = 30, 48, 46, 32, 18, 33, 34, 35, 23, 36, 37, 38, 50, 49, 24, 25, 16, 19, 31, 20, 22, 47,
    17, 45, 21, 44,
    /* 1 to 9, 0; Enter, Esc, Backspace, Tab, Space */
    [0x1e] = 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 28, 1, 14, 15, 57,
    /* - = [ ] \ (and its place on European keyboards) ; ' ` , . / Caps Lock */
    [0x2d] = 12, 13, 26, 27, 43, 43, 39, 40, 41, 51, 52, 53, 58,
    /* F1 to F12; PrintScreen, Scroll Lock, Pause */
    [0x3a] = 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 87, 88, 99, 70, 119,
    /* Insert, Home, PgUp, Delete, End, PgDn, right, left, down, up */
    [0x49] = 110, 102, 104, 111, 107, 109, 106, 105, 108, 103,
    /* keypad: Num Lock, / * - + Enter, 1 to 9, 0, . */
    [0x53] = 69, 98, 55, 74, 78, 96, 79, 80, 81, 75, 76, 77, 71, 72, 73, 82, 83,
    /* the key beside the left Shift, Application, Power, keypad =, F13 to F24 */
    [0x64] = 86, 127, 116, 117, 183, 184, 185, 186, 187, 188, 189, 190, 191, 192, 193, 194,
    /* Execute, Help, Menu, Select, Stop, Again, Undo, Cut, Copy, Paste, Find; mute, louder, softer */
    [0x74] = 134, 138, 130, 132, 128, 129, 131, 137, 133, 135, 136, 113, 115, 114,
    /* Brazil: keypad .; with Japan: Ro, Katakana/Hiragana, Yen, Henkan, Muhenkan, keypad , */
    [0x85] = 121, [0x87] = 89, 93, 124, 92, 94, 95,
    /* Korea: Hangul, Hanja; Japan: Katakana, Hiragana, Zenkaku */
    [0x90] = 122, 123, 90, 91, 85,
    /* left Ctrl, Shift, Alt, GUI; right ones */
    [0xe0] = 29, 42, 56, 125, 97, 54, 100, 126,
    /* play, stop, previous, next, eject; louder, softer, mute; WWW, back, forward, stop, search */
    [0xe8] = 164, 166, 165, 163, 161, 115, 114, 113, 150, 158, 159, 128, 136,
    /* scroll up, scroll down, edit; sleep, screen lock, refresh, calculator */
    [0xf5] = 177, 178, 176, 142, 152, 173, 140,
};
/* clang-format on */

static struct virtio_keyboard *keyboard_of(struct device *dev)
{
    return (struct virtio_keyboard *)dev;
}

static bool has(const uint8_t *keys, uint8_t usage)
{
    return keys[usage / 8] >> usage % 8 & 1;
}

static void set(uint8_t *keys, uint8_t usage, bool on)
{
    uint8_t bit = (uint8_t)(1u << usage % 8);
    keys[usage / 8] = (uint8_t)(on ? keys[usage / 8] | bit : keys[usage / 8] & ~bit);
}

/* --- events --------------------------------------------------------------------------------- */

static bool tell(struct virtio_keyboard *keyboard, uint8_t usage, int value)
{
    if (!input_send(&keyboard->dev, EV_KEY, codes[usage], value))
        return false;
    keyboard->regs.open = true;
    set(keyboard->regs.told, usage, value != RELEASED);
    return true;
}

/* Sends releases that found no buffer, and the end of a report; true when nothing is left. */
static bool settle(struct virtio_keyboard *keyboard)
{
    struct keyboard_regs *r = &keyboard->regs;
    bool paid = true;
    for (unsigned usage = 0; paid && usage < KEYS; usage++) {
        if (usage % 8 == 0 && !r->owed[usage / 8]) {
            usage += 7;
            continue;
        }
        if (!has(r->owed, (uint8_t)usage))
            continue;
        paid = !has(r->told, (uint8_t)usage) || tell(keyboard, (uint8_t)usage, RELEASED);
        set(r->owed, (uint8_t)usage, !paid);
    }
    if (r->open)
        r->open = !input_send(&keyboard->dev, EV_SYN, 0, 0);
    return paid && !r->open;
}

static bool press(struct virtio_keyboard *keyboard, uint8_t usage)
{
    bool again = has(keyboard->regs.told, usage) && !has(keyboard->regs.owed, usage);
    if (!settle(keyboard) || !tell(keyboard, usage, again ? REPEATED : PRESSED))
        return again; /* a repetition is nothing that has to be made up for */
    settle(keyboard);
    return true;
}

static bool key(struct device *dev, uint8_t usage, bool down)
{
    struct virtio_keyboard *keyboard = keyboard_of(dev);
    bool taken = true;
    if (!virtio_running(dev) || !codes[usage])
        return true;
    if (down) {
        taken = press(keyboard, usage);
    } else if (has(keyboard->regs.told, usage)) {
        set(keyboard->regs.owed, usage, true);
        settle(keyboard);
    }
    virtqueue_flush(virtio_queue(dev, INPUT_EVENTS));
    return taken;
}

/* A driver gives the buffer of each event back when it has taken it. */
static bool idle(struct device *dev)
{
    struct virtio_keyboard *keyboard = keyboard_of(dev);
    const struct virtqueue *queue = virtio_queue(dev, INPUT_EVENTS);
    if (keyboard->regs.open)
        return false;
    while (virtqueue_ahead(queue, keyboard->full + 1))
        keyboard->full++;
    return virtqueue_ahead(queue, keyboard->full);
}

static unsigned lost(struct device *dev)
{
    unsigned loss = keyboard_of(dev)->lost;
    keyboard_of(dev)->lost = 0;
    return loss;
}

static unsigned lamps(struct device *dev)
{
    return keyboard_of(dev)->regs.lamps;
}

static void take_lamp(struct device *dev, const struct input_event *event)
{
    static const uint8_t leds[] = {
        [LED_NUM] = LAMP_NUM, [LED_CAPS] = LAMP_CAPS, [LED_SCROLL] = LAMP_SCROLL
    };
    struct keyboard_regs *r = &keyboard_of(dev)->regs;
    unsigned led = le16_get(event->code);
    if (le16_get(event->type) != EV_LED || led >= G_N_ELEMENTS(leds))
        return;
    r->lamps = (uint8_t)(le32_get(event->value) ? r->lamps | leds[led] : r->lamps & ~leds[led]);
}

/* --- the device ----------------------------------------------------------------------------- */

static bool serve(struct device *dev, unsigned index)
{
    struct virtio_keyboard *keyboard = keyboard_of(dev);
    if (index == INPUT_STATUS)
        return input_take_status(dev, take_lamp);
    settle(keyboard);
    virtqueue_flush(virtio_queue(dev, INPUT_EVENTS));
    if (virtqueue_pending(virtio_queue(dev, INPUT_EVENTS)))
        input_changed(keyboard->source);
    return false;
}

static void stop(struct device *dev, uint32_t index)
{
    struct virtio_keyboard *keyboard = keyboard_of(dev);
    if (index != VIRTIO_ANY)
        return;
    if (keyboard->full) /* it may have taken all; its ring says no more */
        keyboard->lost |= KEYS_LOST | KEYS_FORGOTTEN;
    keyboard->regs = (struct keyboard_regs){ .lamps = 0 };
    keyboard->full = 0;
    input_changed(keyboard->source);
}

static void reset(struct device *dev)
{
    stop(dev, VIRTIO_ANY);
}

static void bits(unsigned type, uint8_t *to)
{
    for (unsigned usage = 0; type == EV_KEY && usage < KEYS; usage++)
        if (codes[usage])
            input_set_bit(to, codes[usage]);
    for (unsigned led = LED_NUM; type == EV_LED && led <= LED_SCROLL; led++)
        input_set_bit(to, led);
}

static void config_read(struct device *dev, uint8_t *config)
{
    static const struct input_info info = { .name = "hv virtio keyboard",
                                            .product = PRODUCT,
                                            .codes = bits };
    input_config_read(&info, keyboard_of(dev)->regs.query, config);
}

static void config_write(struct device *dev, unsigned offset, unsigned width, uint32_t value)
{
    (void)width;
    input_config_write(keyboard_of(dev)->regs.query, offset, value);
}

const struct device_class virtio_keyboard_class = {
    .name = "virtio-keyboard",
    .help = "keyboard for guests with virtio",
    .size = sizeof(struct virtio_keyboard),
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
    .plugs =
        (const struct plug[]){
            { "source", PLUG_SOURCE, offsetof(struct virtio_keyboard, source) },
            { .name = NULL },
        },
    .options =
        (const struct option[]){
            VIRTIO_OPTION_PACKED,
            { .name = NULL },
        },
    .state = STATE(struct virtio_keyboard, regs, 1, keyboard_fields),
    .reset = reset,
    .input =
        &(const struct input_class){
            .key = key,
            .active = input_active,
            .lamps = lamps,
            .idle = idle,
            .silent = true,
            .lost = lost,
        },
};
