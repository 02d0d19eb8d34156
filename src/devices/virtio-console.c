/* Virtio console: a terminal without a serial port's registers (virtio 1.2 section 5.3).
 *
 * One port, number 0, which is a console (hvc0 in Linux). With MULTIPORT the driver and the device
 * speak over the control queues, as drivers that look for /dev/virtio-ports want; without it the
 * port's two queues are all there is. What the guest writes is passed on as it is, no faster than
 * TURN_BYTES a turn; the stream drops what nobody reads. Input is given into the driver's buffers
 * when it comes, and refused while there are none. Served on the device's loop; input comes on the
 * stream's thread. */
#include "bus/virtio.h"

#include <string.h>

enum {
    ID = 3,
    CLASS_CODE = 0x078000, /* communication, other */
    PORT = 0,
    TURN_BYTES = 65536,
};

/* Features, section 5.3.3. */
enum { F_SIZE, F_MULTIPORT, F_EMERGENCY_WRITE };
#define BIT(feature) (UINT64_C(1) << (feature))

enum { RECEIVE, TRANSMIT, CONTROL_TO_DRIVER, CONTROL_TO_DEVICE, QUEUES }; /* section 5.3.2 */

/* The device configuration, section 5.3.4. */
struct console_config {
    le16 columns, rows;
    le32 ports, emergency;
};
enum { CONFIG_EMERGENCY = 8 };

/* Control messages, section 5.3.6.2. */
struct control {
    le32 port;
    le16 event, value;
};
enum {
    DEVICE_READY,
    PORT_ADD,
    PORT_REMOVE,
    PORT_READY,
    CONSOLE_PORT,
    RESIZE,
    PORT_OPEN,
};

/* What follows a RESIZE. The specification has the columns first, but Linux, the only driver that
 * knows this message, reads the rows first. */
struct size {
    le16 rows, columns;
};

struct console_regs {
    uint32_t due;    /* control messages that the driver has not got yet: bits of their numbers */
    bool port_ready; /* the driver has set the port up */
    uint8_t pad[3];
};

struct console {
    struct device dev;
    struct console_regs regs;
    uint64_t columns, rows; /* of the host's terminal: nothing that a reset changes */
    struct stream *line;
    bool refused; /* the stream waits to hear that there is room */
};

static const struct field console_fields[] = {
    SAVED_MAX(struct console_regs, due, (1 << (PORT_OPEN + 1)) - 1),
    SAVED(struct console_regs, port_ready),
    SAVED_PAD(struct console_regs, pad),
    SAVED_END,
};

static struct console *console_of(struct device *dev)
{
    return (struct console *)dev;
}

/* --- control messages ----------------------------------------------------------------------- */

static void put_message(struct console *console, struct chain *chain, unsigned event)
{
    const struct size size = { le16_of((uint16_t)console->rows),
                               le16_of((uint16_t)console->columns) };
    const struct control control = {
        .port = le32_of(PORT),
        .event = le16_of((uint16_t)event),
        .value = le16_of(event == CONSOLE_PORT || event == PORT_OPEN),
    };
    uint32_t length = sizeof control;
    bool fits = chain_write(chain, &control, sizeof control);
    if (fits && event == RESIZE) {
        fits = chain_write(chain, &size, sizeof size);
        length += (uint32_t)sizeof size;
    }
    if (!fits)
        virtio_broken(&console->dev, "a buffer for control messages is too small");
    virtqueue_push(chain, fits ? length : 0);
}

/* Sends what is due, as far as the driver has buffers for it. */
static void tell_driver(struct console *console)
{
    struct virtqueue *queue = virtio_queue(&console->dev, CONTROL_TO_DRIVER);
    struct chain *chain;
    while (console->regs.due && (chain = virtqueue_pop(queue))) {
        unsigned event = (unsigned)__builtin_ctz(console->regs.due);
        console->regs.due &= console->regs.due - 1;
        put_message(console, chain, event);
    }
    virtqueue_flush(queue);
}

static void due(struct console *console, unsigned event)
{
    console->regs.due |= 1u << event;
}

static void take_message(struct console *console, const struct control *control)
{
    struct console_regs *r = &console->regs;
    bool yes = le16_get(control->value) == 1;
    switch (le16_get(control->event)) {
    case DEVICE_READY:
        if (yes)
            due(console, PORT_ADD);
        break;
    case PORT_READY:
        if (le32_get(control->port) != PORT)
            break;
        r->port_ready = yes;
        if (yes) {
            due(console, CONSOLE_PORT);
            due(console, PORT_OPEN);
            if (console->columns && virtio_has(&console->dev, F_SIZE))
                due(console, RESIZE);
        }
        break;
    default:
        break; /* PORT_OPEN: whether a program has the port open makes no difference to a console */
    }
}

/* --- the port ------------------------------------------------------------------------------- */

static bool listens(struct console *console)
{
    return virtio_running(&console->dev) &&
           (console->regs.port_ready || !virtio_has(&console->dev, F_MULTIPORT));
}

/* Bytes for the guest, from the stream's thread. */
static size_t receive(struct device *dev, const uint8_t *data, size_t length)
{
    struct console *console = console_of(dev);
    struct virtqueue *queue = virtio_queue(dev, RECEIVE);
    struct chain *chain;
    size_t taken = 0;
    while (listens(console) && taken < length && (chain = virtqueue_pop(queue))) {
        size_t n = MIN(length - taken, chain->in_bytes);
        bool fits = n && chain_write(chain, data + taken, n);
        if (!n)
            virtio_broken(dev, "a buffer for input has no room");
        virtqueue_push(chain, fits ? (uint32_t)n : 0);
        taken += fits ? n : 0;
    }
    if (taken)
        virtqueue_flush(queue);
    console->refused = taken < length;
    return taken;
}

/* The driver has buffers: tells the stream, once for each time that it was refused. */
static void offer_room(struct console *console)
{
    if (!console->refused || !listens(console) ||
        !virtqueue_pending(virtio_queue(&console->dev, RECEIVE)))
        return;
    console->refused = false;
    stream_ready(console->line);
}

static bool transmit(struct console *console, struct virtqueue *queue)
{
    struct chain *chain;
    size_t sent = 0;
    for (unsigned i = 0; i < VIRTQUEUE_BATCH && sent < TURN_BYTES; i++) {
        if (!(chain = virtqueue_pop(queue)))
            break;
        for (unsigned s = 0; s < chain->out_count && sent < TURN_BYTES; s++) {
            size_t n = MIN(chain->out[s].iov_len, TURN_BYTES - sent);
            stream_write(console->line, chain->out[s].iov_base, n);
            sent += n;
        }
        virtqueue_push(chain, 0);
    }
    virtqueue_flush(queue);
    return virtqueue_pending(queue);
}

static bool take_messages(struct console *console, struct virtqueue *queue)
{
    struct chain *chain;
    for (unsigned i = 0; i < VIRTQUEUE_BATCH && (chain = virtqueue_pop(queue)); i++) {
        struct control control;
        if (chain_read(chain, &control, sizeof control))
            take_message(console, &control);
        virtqueue_push(chain, 0);
    }
    virtqueue_flush(queue);
    tell_driver(console);
    offer_room(console);
    return virtqueue_pending(queue);
}

/* --- the device ----------------------------------------------------------------------------- */

static bool serve(struct device *dev, unsigned index)
{
    struct console *console = console_of(dev);
    struct virtqueue *queue = virtio_queue(dev, index);
    switch (index) {
    case RECEIVE:
        offer_room(console);
        return false;
    case TRANSMIT:
        return transmit(console, queue);
    case CONTROL_TO_DRIVER:
        tell_driver(console);
        return false;
    default:
        return take_messages(console, queue);
    }
}

static const struct virtio_queue_class *queue_class(struct device *dev, unsigned index)
{
    static const struct virtio_queue_class queues[QUEUES] = {
        [RECEIVE] = { .name = "receiveq", .size = 64, .waits = true },
        [TRANSMIT] = { .name = "transmitq", .size = 64 },
        [CONTROL_TO_DRIVER] = { .name = "control receiveq", .size = 64, .waits = true },
        [CONTROL_TO_DEVICE] = { .name = "control transmitq", .size = 64 },
    };
    (void)dev;
    return &queues[index & (QUEUES - 1)];
}

static void start(struct device *dev)
{
    offer_room(console_of(dev));
}

static void stop(struct device *dev, uint32_t index)
{
    if (index == VIRTIO_ANY)
        console_of(dev)->regs = (struct console_regs){ .due = 0 };
}

static void config_read(struct device *dev, uint8_t *bytes)
{
    const struct console *console = console_of(dev);
    const struct console_config config = {
        .columns = le16_of((uint16_t)console->columns),
        .rows = le16_of((uint16_t)console->rows),
        .ports = le32_of(1),
    };
    memcpy(bytes, &config, sizeof config);
}

/* A character of who has no queues yet, or no longer (section 5.3.6.1). */
static void config_write(struct device *dev, unsigned offset, unsigned width, uint32_t value)
{
    const uint8_t character = (uint8_t)value;
    (void)width;
    if (offset == CONFIG_EMERGENCY)
        stream_write(console_of(dev)->line, &character, 1);
}

static void terminal_resized(struct device *dev, unsigned columns, unsigned rows)
{
    struct console *console = console_of(dev);
    console->columns = MIN(columns, UINT16_MAX);
    console->rows = MIN(rows, UINT16_MAX);
    if (!listens(console) || !virtio_has(dev, F_SIZE))
        return;
    if (virtio_has(dev, F_MULTIPORT)) {
        due(console, RESIZE);
        tell_driver(console);
    } else {
        virtio_config_changed(dev);
    }
}

static void reset(struct device *dev)
{
    stop(dev, VIRTIO_ANY);
}

static void loaded(struct device *dev)
{
    console_of(dev)->refused = true; /* whatever the stream holds, it offers when there is room */
    offer_room(console_of(dev));
}

const struct device_class virtio_console_class = {
    .name = "virtio-console",
    .help = "a terminal for the guest, hvc0",
    .size = sizeof(struct console),
    .flags = CLASS_LOOP,
    .regions = virtio_regions,
    .pci = VIRTIO_PCI(ID, CLASS_CODE),
    .virtio =
        &(const struct virtio_class){
            .id = ID,
            .queues = QUEUES,
            .config_size = sizeof(struct console_config),
            .features = BIT(F_SIZE) | BIT(F_MULTIPORT) | BIT(F_EMERGENCY_WRITE),
            .queue = queue_class,
            .config_read = config_read,
            .config_write = config_write,
            .start = start,
            .serve = serve,
            .stop = stop,
        },
    .options =
        (const struct option[]){
            { "columns", "of the terminal; 0: unknown", OPTION_UINT,
              offsetof(struct console, columns), "0", 0, UINT16_MAX },
            { "rows", "of the terminal; 0: unknown", OPTION_UINT, offsetof(struct console, rows),
              "0", 0, UINT16_MAX },
            VIRTIO_OPTION_PACKED,
            { .name = NULL },
        },
    .plugs =
        (const struct plug[]){
            { "line", PLUG_STREAM, offsetof(struct console, line) },
            { .name = NULL },
        },
    .state = STATE(struct console, regs, 1, console_fields),
    .reset = reset,
    .loaded = loaded,
    .receive = receive,
    .terminal_resized = terminal_resized,
};
