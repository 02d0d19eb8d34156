/* The keyboard controller of a PS/2-style PC, with its keyboard and mouse (ps2.h).
 *
 * Manual: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
 * Controller"; Intel 8042/UPI-42 for the ports.
 *
 * Lines are levels while a byte is in the output buffer and fall between two bytes, so that
 * edge-triggered inputs see each of them. Scan codes and packets keep a little distance, as the
 * wire's clock gives them: handlers that read port 0x60 twice for one interrupt find the same byte.
 * A guest that polls, and looks after each byte whether there is another one, finds one at most and
 * has to look in vain before the next, however long it takes from byte to byte: what polls now and
 * then may have room for a few only (EDK2's driver, 32 that come within its 20 ms).
 * The machine's address line 20 is always on; the output port's bit for it is stored. */
#include "bus/device.h"
#include "devices/ps2.h"

enum { PORT_DATA = 0x60, PORT_COMMAND = 0x64 };
#define BYTE_NS UINT64_C(300000)  /* from reading a byte of an event to the next one */
#define LOOK_NS UINT64_C(5000000) /* how long the next one waits for a look in vain before */
enum { LOOKS_MAX = 3 };

/* Status register. */
enum {
    STATUS_FULL = 0x01,
    STATUS_SYSTEM = 0x04,
    STATUS_COMMAND = 0x08,
    STATUS_UNLOCKED = 0x10,
    STATUS_AUX = 0x20,
};
/* Controller command byte: byte 0 of its RAM. */
enum {
    CONFIG_KEYBOARD_IRQ = 0x01,
    CONFIG_AUX_IRQ = 0x02,
    CONFIG_SYSTEM = 0x04,
    CONFIG_KEYBOARD_OFF = 0x10,
    CONFIG_AUX_OFF = 0x20,
    CONFIG_TRANSLATE = 0x40,
};
enum { RAM_SIZE = 32, RAM_MASK = RAM_SIZE - 1 };
/* Output port. */
enum {
    OUTPUT_RUN = 0x01,
    OUTPUT_A20 = 0x02,
    OUTPUT_KEYBOARD_IRQ = 0x10,
    OUTPUT_AUX_IRQ = 0x20,
    OUTPUT_IDLE = 0xc0,
};
enum { KEYBOARD_RESET = 0xff }; /* a command of the keyboard */
enum { INPUT_PORT = 0xa0 };     /* not inhibited, no manufacturing jumper */
/* Commands with an operand, by the write to 0x60 that follows. */
enum {
    WRITE_RAM = 0x60,
    WRITE_OUTPUT_PORT = 0xd1,
    WRITE_KEYBOARD_BUFFER = 0xd2,
    WRITE_AUX_BUFFER = 0xd3,
    WRITE_AUX = 0xd4,
};

enum source { FROM_CONTROLLER, FROM_AUX_LOOP, FROM_KEYBOARD, FROM_AUX, SOURCES };

struct i8042_regs {
    struct ps2_mouse mouse;
    struct ps2_keyboard keyboard;
    uint64_t next_event; /* no scan code or packet byte before this time */
    uint8_t ram[RAM_SIZE];
    uint8_t command;     /* whose operand is awaited; 0: none */
    uint8_t output_port; /* bits 1:0 */
    uint8_t data;        /* the output buffer */
    uint8_t source;      /* of `data` */
    uint8_t reply;       /* of the controller, waiting for the output buffer */
    bool reply_waits, reply_aux;
    bool full;         /* the output buffer is */
    bool event;        /* `data` is a scan code or of a packet */
    bool last_command; /* the last write went to 0x64 */
    bool released;     /* the translation saw F0 */
    bool unlooked;     /* a byte of an event has been taken, and nobody looked in vain since */
    uint8_t looks;     /* the guest does, it polls: for how many bytes, less those for which not */
    uint8_t pad[3];
};

struct i8042 {
    struct device dev;
    struct i8042_regs regs;
    struct timer timer;
    struct irq *keyboard_irq, *mouse_irq;
    struct input_source *input;
    bool refused; /* the source was told that there is no room */
    uint8_t lost; /* enum key_loss */
};

#define SAVED_ONE(T, m, fields_)                                                                   \
    {                                                                                              \
        .name = #m, .type = FIELD_STRUCT, .since = 1, .offset = offsetof(T, m),                    \
        .width = sizeof STATE_MEMBER(T, m), .count = 1, .fields = (fields_)                        \
    }

static const struct field i8042_fields[] = {
    SAVED_ONE(struct i8042_regs, mouse, ps2_mouse_fields),
    SAVED_ONE(struct i8042_regs, keyboard, ps2_keyboard_fields),
    SAVED(struct i8042_regs, next_event),
    SAVED_ARRAY(struct i8042_regs, ram),
    SAVED(struct i8042_regs, command),
    SAVED_MAX(struct i8042_regs, output_port, OUTPUT_RUN | OUTPUT_A20),
    SAVED(struct i8042_regs, data),
    SAVED_MAX(struct i8042_regs, source, SOURCES - 1),
    SAVED(struct i8042_regs, reply),
    SAVED(struct i8042_regs, reply_waits),
    SAVED(struct i8042_regs, reply_aux),
    SAVED(struct i8042_regs, full),
    SAVED(struct i8042_regs, event),
    SAVED(struct i8042_regs, last_command),
    SAVED(struct i8042_regs, released),
    SAVED(struct i8042_regs, unlooked),
    SAVED_MAX(struct i8042_regs, looks, LOOKS_MAX),
    SAVED_PAD(struct i8042_regs, pad),
    SAVED_END,
};

static struct i8042 *i8042_of(struct device *dev)
{
    return (struct i8042 *)dev;
}

/* --- the output buffer ---------------------------------------------------------------------- */

static bool is_aux(const struct i8042_regs *r)
{
    return r->source == FROM_AUX || r->source == FROM_AUX_LOOP;
}

static void fill(struct i8042_regs *r, enum source source, uint8_t data, bool event)
{
    r->data = data;
    r->source = (uint8_t)source;
    r->event = event;
    r->full = true;
}

/* A byte of the keyboard, translated unless that is off. The release prefix vanishes in the
 * translation: then the next byte is looked at. */
static void fill_from_keyboard(struct i8042_regs *r, enum ps2_next next)
{
    for (unsigned i = 0; i < 2 && !r->full; i++) {
        uint8_t byte = ps2_keyboard_take(&r->keyboard);
        if (!(r->ram[0] & CONFIG_TRANSLATE) || ps2_translate(&r->released, &byte))
            fill(r, FROM_KEYBOARD, byte, next == PS2_EVENT);
        else if (ps2_keyboard_next(&r->keyboard) != next)
            return;
    }
}

/* Whose turn it is, if its port is on and its time has come; `waits` says that one must wait. */
static enum ps2_next turn(enum ps2_next next, bool off, bool early, bool *waits)
{
    if (off || (next == PS2_EVENT && early)) {
        *waits |= !off;
        return PS2_NOTHING;
    }
    return next;
}

static void fill_next(struct i8042 *i8042)
{
    struct i8042_regs *r = &i8042->regs;
    bool early = device_now(&i8042->dev) < r->next_event, waits = false;
    enum ps2_next keyboard =
        turn(ps2_keyboard_next(&r->keyboard), r->ram[0] & CONFIG_KEYBOARD_OFF, early, &waits);
    enum ps2_next mouse =
        turn(ps2_mouse_next(&r->mouse), r->ram[0] & CONFIG_AUX_OFF, early, &waits);
    if (r->reply_waits) {
        r->reply_waits = false;
        fill(r, r->reply_aux ? FROM_AUX_LOOP : FROM_CONTROLLER, r->reply, false);
    } else if (keyboard == PS2_REPLY || (keyboard && mouse != PS2_REPLY)) {
        fill_from_keyboard(r, keyboard);
    } else if (mouse) {
        fill(r, FROM_AUX, ps2_mouse_take(&r->mouse), mouse == PS2_EVENT);
    }
    if (r->full && r->event && r->unlooked) {
        r->unlooked = false;
        if (r->looks)
            r->looks--;
    }
    timer_set(&i8042->timer, waits && !r->full ? r->next_event : TIMER_NEVER);
}

static void lines(struct i8042 *i8042)
{
    const struct i8042_regs *r = &i8042->regs;
    bool aux = is_aux(r);
    irq_set(i8042->keyboard_irq, r->full && !aux && r->ram[0] & CONFIG_KEYBOARD_IRQ);
    irq_set(i8042->mouse_irq, r->full && aux && r->ram[0] & CONFIG_AUX_IRQ);
}

static void update(struct i8042 *i8042)
{
    if (!i8042->regs.full)
        fill_next(i8042);
    else
        timer_set(&i8042->timer, TIMER_NEVER);
    lines(i8042);
}

static void timer_due(void *owner)
{
    update(owner);
}

static bool idle(struct device *dev)
{
    const struct i8042_regs *r = &i8042_of(dev)->regs;
    return r->keyboard.scanning && !r->keyboard.codes.count &&
           !(r->full && r->source == FROM_KEYBOARD && r->event);
}

static unsigned lost(struct device *dev)
{
    unsigned loss = i8042_of(dev)->lost;
    i8042_of(dev)->lost = 0;
    return loss;
}

/* --- ports ---------------------------------------------------------------------------------- */

static uint64_t data_read(struct device *dev, uint64_t offset, unsigned width)
{
    struct i8042 *i8042 = i8042_of(dev);
    struct i8042_regs *r = &i8042->regs;
    (void)offset, (void)width;
    uint8_t data = r->data;
    bool key = r->full && r->event && r->source == FROM_KEYBOARD;
    if (r->full && r->event) {
        r->next_event = device_now(dev) + (r->looks ? LOOK_NS : BYTE_NS);
        r->unlooked = true;
    }
    r->full = false;
    lines(i8042); /* they fall, before the next byte may raise one again */
    update(i8042);
    if (key && (i8042->refused || idle(dev))) {
        i8042->refused = false;
        input_changed(i8042->input);
    }
    return data;
}

static void look_in_vain(struct i8042 *i8042)
{
    struct i8042_regs *r = &i8042->regs;
    if (!r->unlooked)
        return;
    r->unlooked = false;
    if (r->looks < LOOKS_MAX)
        r->looks++;
    r->next_event = MIN(r->next_event, device_now(&i8042->dev) + BYTE_NS);
    update(i8042);
}

static uint64_t status_read(struct device *dev, uint64_t offset, unsigned width)
{
    struct i8042 *i8042 = i8042_of(dev);
    struct i8042_regs *r = &i8042->regs;
    (void)offset, (void)width;
    if (!r->full)
        update(i8042); /* who polls need not wait for the timer's thread */
    if (!r->full)
        look_in_vain(i8042);
    return STATUS_UNLOCKED | (r->full ? STATUS_FULL : 0) |
           (r->ram[0] & CONFIG_SYSTEM ? STATUS_SYSTEM : 0) |
           (r->last_command ? STATUS_COMMAND : 0) | (r->full && is_aux(r) ? STATUS_AUX : 0);
}

static void controller_reply(struct i8042_regs *r, uint8_t byte, bool aux)
{
    r->reply = byte;
    r->reply_waits = true;
    r->reply_aux = aux;
}

static void set_output_port(struct i8042 *i8042, uint8_t value)
{
    i8042->regs.output_port = value & (OUTPUT_RUN | OUTPUT_A20);
    if (!(value & OUTPUT_RUN))
        device_request(&i8042->dev, BOARD_RESET, 0);
}

static uint8_t output_port(const struct i8042_regs *r)
{
    unsigned irq = !r->full ? 0 : is_aux(r) ? OUTPUT_AUX_IRQ : OUTPUT_KEYBOARD_IRQ;
    return (uint8_t)(OUTPUT_IDLE | irq | r->output_port);
}

static void keyboard_write(struct i8042 *i8042, uint8_t byte)
{
    struct i8042_regs *r = &i8042->regs;
    uint8_t before = r->keyboard.lamps;
    bool busy = !idle(&i8042->dev), codes = r->keyboard.codes.count;
    r->released = false;
    r->ram[0] &= (uint8_t)~CONFIG_KEYBOARD_OFF; /* sending turns the port on */
    ps2_keyboard_write(&r->keyboard, byte);
    if (codes && !r->keyboard.codes.count)
        i8042->lost |= KEYS_LOST;
    if (byte == KEYBOARD_RESET)
        i8042->lost |= KEYS_FORGOTTEN;
    if (before != r->keyboard.lamps || i8042->refused || (busy && idle(&i8042->dev))) {
        i8042->refused = false;
        input_changed(i8042->input);
    }
}

static void data_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct i8042 *i8042 = i8042_of(dev);
    struct i8042_regs *r = &i8042->regs;
    (void)offset, (void)width;
    uint8_t byte = (uint8_t)value, command = r->command;
    r->command = 0;
    r->last_command = false;
    if (command >= WRITE_RAM && command < WRITE_RAM + RAM_SIZE) {
        r->ram[command & RAM_MASK] = byte;
    } else if (command == WRITE_OUTPUT_PORT) {
        set_output_port(i8042, byte);
    } else if (command == WRITE_KEYBOARD_BUFFER || command == WRITE_AUX_BUFFER) {
        controller_reply(r, byte, command == WRITE_AUX_BUFFER);
    } else if (command == WRITE_AUX) {
        r->ram[0] &= (uint8_t)~CONFIG_AUX_OFF;
        ps2_mouse_write(&r->mouse, byte);
    } else {
        keyboard_write(i8042, byte);
    }
    update(i8042);
}

static void controller_command(struct i8042 *i8042, uint8_t byte)
{
    struct i8042_regs *r = &i8042->regs;
    switch (byte) {
    case 0x20 ... 0x3f: /* read RAM; 0x20 is the command byte */
        controller_reply(r, r->ram[byte & RAM_MASK], false);
        break;
    case 0x60 ... 0x7f:
    case WRITE_OUTPUT_PORT:
    case WRITE_KEYBOARD_BUFFER:
    case WRITE_AUX_BUFFER:
    case WRITE_AUX:
        r->command = byte;
        break;
    case 0xa4: /* is a password installed? */
        controller_reply(r, 0xf1, false);
        break;
    case 0xa7:
        r->ram[0] |= CONFIG_AUX_OFF;
        break;
    case 0xa8:
        r->ram[0] &= (uint8_t)~CONFIG_AUX_OFF;
        break;
    case 0xa9: /* test of the mouse's port */
    case 0xab: /* and of the keyboard's: clock and data are good */
        controller_reply(r, 0, false);
        break;
    case 0xaa: /* self-test */
        r->ram[0] |= CONFIG_SYSTEM;
        controller_reply(r, 0x55, false);
        break;
    case 0xad:
        r->ram[0] |= CONFIG_KEYBOARD_OFF;
        break;
    case 0xae:
        r->ram[0] &= (uint8_t)~CONFIG_KEYBOARD_OFF;
        break;
    case 0xc0:
        controller_reply(r, INPUT_PORT, false);
        break;
    case 0xd0:
        controller_reply(r, output_port(r), false);
        break;
    case 0xdd: /* address line 20 off, on */
    case 0xdf:
        set_output_port(i8042, (uint8_t)(OUTPUT_RUN | (byte == 0xdf ? OUTPUT_A20 : 0)));
        break;
    case 0xe0: /* test inputs: both clocks low */
        controller_reply(r, 0, false);
        break;
    case 0xf0 ... 0xff: /* pulses the output bits that are 0 in the command; bit 0 is reset */
        if (!(byte & OUTPUT_RUN))
            device_request(&i8042->dev, BOARD_RESET, 0);
        break;
    default:
        guest_bug(&i8042->dev, "unknown command %#x", byte);
    }
}

static void command_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct i8042 *i8042 = i8042_of(dev);
    (void)offset, (void)width;
    i8042->regs.command = 0;
    i8042->regs.last_command = true;
    controller_command(i8042, (uint8_t)value);
    update(i8042);
}

/* --- the user ------------------------------------------------------------------------------- */

static bool key(struct device *dev, uint8_t usage, bool down)
{
    struct i8042 *i8042 = i8042_of(dev);
    bool taken = ps2_keyboard_key(&i8042->regs.keyboard, usage, down);
    i8042->refused |= !taken;
    update(i8042);
    return taken;
}

static void pointer(struct device *dev, int dx, int dy, int wheel, unsigned buttons)
{
    ps2_mouse_move(&i8042_of(dev)->regs.mouse, dx, dy, wheel, buttons);
    update(i8042_of(dev));
}

static unsigned lamps(struct device *dev)
{
    return i8042_of(dev)->regs.keyboard.lamps;
}

/* --- life ----------------------------------------------------------------------------------- */

static bool init(struct device *dev, GError **error)
{
    (void)error;
    timer_init(&i8042_of(dev)->timer, dev->board->clock, &dev->lock, timer_due, dev);
    return true;
}

static void reset(struct device *dev)
{
    struct i8042 *i8042 = i8042_of(dev);
    i8042->regs = (struct i8042_regs){
        .ram = { CONFIG_TRANSLATE },
        .output_port = OUTPUT_RUN | OUTPUT_A20,
        .looks = LOOKS_MAX,
    };
    ps2_keyboard_reset(&i8042->regs.keyboard);
    ps2_mouse_reset(&i8042->regs.mouse);
    i8042->refused = false;
    i8042->lost = 0;
    update(i8042);
    input_changed(i8042->input); /* the lamps are out, the queue is empty */
}

static void loaded(struct device *dev)
{
    struct i8042 *i8042 = i8042_of(dev);
    i8042->regs.next_event = MIN(i8042->regs.next_event, device_now(dev) + LOOK_NS);
    update(i8042);
    input_changed(i8042->input);
}

static void finish(struct device *dev)
{
    timer_finish(&i8042_of(dev)->timer);
}

const struct device_class i8042_class = {
    .name = "i8042",
    .help = "keyboard controller with keyboard and wheel mouse",
    .size = sizeof(struct i8042),
    .regions =
        (const struct region[]){
            { REGION_PORTS, PORT_DATA, 1, W8, data_read, data_write },
            { REGION_PORTS, PORT_COMMAND, 1, W8, status_read, command_write },
            { .kind = REGION_END },
        },
    .plugs =
        (const struct plug[]){
            { "kbd", PLUG_IRQ, offsetof(struct i8042, keyboard_irq) },
            { "mouse", PLUG_IRQ, offsetof(struct i8042, mouse_irq) },
            { "source", PLUG_SOURCE, offsetof(struct i8042, input) },
            { .name = NULL },
        },
    .state = STATE(struct i8042, regs, 1, i8042_fields),
    .init = init,
    .reset = reset,
    .loaded = loaded,
    .finish = finish,
    .input =
        &(const struct input_class){
            .key = key,
            .pointer = pointer,
            .lamps = lamps,
            .idle = idle,
            .lost = lost,
        },
};
