/* A serial port: the 16550A UART of a PC.
 *
 * Manual: National Semiconductor PC16550D data sheet (June 1995), section 8 "Registers"; the gating
 * of the interrupt by OUT2 is the PC's wiring.
 *
 * Transmission takes no time: a byte written to THR goes to the stream within the access, and THR
 * is empty at once. Reception is never faster than the guest: `receive` takes what the FIFO has
 * room for. The far end always shows CTS, DSR and DCD. The only timer is the FIFO timeout, set when
 * its interrupt is enabled and bytes below the trigger level wait. */
#include "bus/device.h"

enum { RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR, PORTS };
enum { DLL = 0, DLM = 1 }; /* with LCR_DLAB */
enum {
    IER_RECEIVED = 1,
    IER_THR_EMPTY = 2,
    IER_LINE_STATUS = 4,
    IER_MODEM_STATUS = 8,
    IER_BITS = 0x0f,
};
enum {
    IIR_NONE = 1,
    IIR_MODEM_STATUS = 0,
    IIR_THR_EMPTY = 2,
    IIR_RECEIVED = 4,
    IIR_LINE_STATUS = 6,
    IIR_TIMEOUT = 0x0c,
    IIR_FIFOS = 0xc0,
};
enum { FCR_ENABLE = 1, FCR_CLEAR_RECEIVER = 2, FCR_TRIGGER = 0xc0, FCR_TRIGGER_SHIFT = 6 };
enum { LCR_LENGTH = 3, LCR_STOP = 4, LCR_PARITY = 8, LCR_DLAB = 0x80 };
enum { MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 0x10, MCR_BITS = 0x1f };
enum { LSR_READY = 1, LSR_OVERRUN = 2, LSR_THR_EMPTY = 0x20, LSR_EMPTY = 0x40 };
enum { MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80, MSR_DELTAS = 0x0f };
enum { FIFO_SIZE = 16, FIFO_MASK = FIFO_SIZE - 1, BAUD_BASE = 115200, DIVISOR_PRESET = 12 };

struct serial_regs {
    uint64_t timeout_at; /* 4 characters after the FIFO was last touched, in guest ns */
    uint8_t fifo[FIFO_SIZE];
    uint8_t head, count;
    uint8_t interrupts; /* IER */
    uint8_t fifo_control;
    uint8_t line_control, modem_control;
    uint8_t overrun;      /* LSR_OVERRUN or 0 */
    uint8_t modem_deltas; /* MSR bits 3:0 */
    uint8_t scratch;
    uint8_t divisor[2];
    bool thr_emptied; /* the THR-empty interrupt is pending */
    uint8_t pad[4];
};

struct serial {
    struct device dev;
    struct serial_regs regs;
    struct timer timeout;
    bool waiting; /* it was armed, and may have run since */
    struct stream *line;
    struct irq *irq;
    bool refused; /* the stream waits to hear that there is room */
};

static const struct field serial_fields[] = {
    SAVED(struct serial_regs, timeout_at),
    SAVED_ARRAY(struct serial_regs, fifo),
    SAVED_MAX(struct serial_regs, head, FIFO_MASK),
    SAVED_MAX(struct serial_regs, count, FIFO_SIZE),
    SAVED_MAX(struct serial_regs, interrupts, IER_BITS),
    SAVED(struct serial_regs, fifo_control),
    SAVED(struct serial_regs, line_control),
    SAVED_MAX(struct serial_regs, modem_control, MCR_BITS),
    SAVED_MAX(struct serial_regs, overrun, LSR_OVERRUN),
    SAVED_MAX(struct serial_regs, modem_deltas, MSR_DELTAS),
    SAVED(struct serial_regs, scratch),
    SAVED_ARRAY(struct serial_regs, divisor),
    SAVED(struct serial_regs, thr_emptied),
    SAVED_PAD(struct serial_regs, pad),
    SAVED_END,
};

static struct serial *serial_of(struct device *dev)
{
    return (struct serial *)dev;
}

/* --- the receiver's FIFO -------------------------------------------------------------------- */

static bool has_fifo(const struct serial_regs *r)
{
    return r->fifo_control & FCR_ENABLE;
}

static unsigned capacity(const struct serial_regs *r)
{
    return has_fifo(r) ? FIFO_SIZE : 1;
}

static unsigned trigger(const struct serial_regs *r)
{
    static const uint8_t levels[] = { 1, 4, 8, 14 };
    return has_fifo(r) ? levels[r->fifo_control >> FCR_TRIGGER_SHIFT] : 1;
}

/* How long 4 characters take: start, data, parity and stop bits. */
static uint64_t timeout_ns(const struct serial_regs *r)
{
    unsigned divisor = r->divisor[DLL] | (unsigned)r->divisor[DLM] << 8;
    unsigned bits = 1 + 5 + (r->line_control & LCR_LENGTH) +
                    (r->line_control & LCR_PARITY ? 1 : 0) + (r->line_control & LCR_STOP ? 2 : 1);
    return 4 * bits * NS_PER_SECOND * (divisor ? divisor : 1) / BAUD_BASE;
}

static void fifo_touched(struct serial *serial)
{
    serial->regs.timeout_at = device_now(&serial->dev) + timeout_ns(&serial->regs);
}

/* The next byte, or the last one again when there is none. */
static uint8_t fifo_take(struct serial *serial)
{
    struct serial_regs *r = &serial->regs;
    uint8_t byte = r->fifo[r->head & FIFO_MASK];
    if (r->count) {
        r->count--;
        if (r->count)
            r->head = (r->head + 1) & FIFO_MASK;
        fifo_touched(serial);
    }
    return byte;
}

/* A byte that came over the line, or the loop. */
static void fifo_put(struct serial *serial, uint8_t byte)
{
    struct serial_regs *r = &serial->regs;
    if (r->count >= capacity(r)) {
        r->overrun = LSR_OVERRUN;
        if (!has_fifo(r)) /* the register is overwritten, the FIFO is not (section 8.4) */
            r->fifo[r->head & FIFO_MASK] = byte;
        return;
    }
    if (!r->count)
        r->head = 0;
    r->fifo[(r->head + r->count) & FIFO_MASK] = byte;
    r->count++;
    fifo_touched(serial);
}

/* The guest made room: tells the stream, once for each time that it was refused. */
static void offer_room(struct serial *serial)
{
    if (!serial->refused || serial->regs.count || serial->regs.modem_control & MCR_LOOP)
        return;
    serial->refused = false;
    stream_ready(serial->line);
}

/* --- interrupts ----------------------------------------------------------------------------- */

/* Bytes below the trigger level, untouched for 4 characters (section 8.6.1). */
static bool timed_out(const struct serial *serial)
{
    const struct serial_regs *r = &serial->regs;
    return has_fifo(r) && r->count && device_now(&serial->dev) >= r->timeout_at;
}

/* IIR: the interrupt of the highest priority (table III). */
static uint8_t identify(const struct serial *serial)
{
    const struct serial_regs *r = &serial->regs;
    if (r->interrupts & IER_LINE_STATUS && r->overrun)
        return IIR_LINE_STATUS;
    if (r->interrupts & IER_RECEIVED && r->count >= trigger(r))
        return IIR_RECEIVED;
    if (r->interrupts & IER_RECEIVED && timed_out(serial))
        return IIR_TIMEOUT;
    if (r->interrupts & IER_THR_EMPTY && r->thr_emptied)
        return IIR_THR_EMPTY;
    if (r->interrupts & IER_MODEM_STATUS && r->modem_deltas)
        return IIR_MODEM_STATUS;
    return IIR_NONE;
}

static void update(struct serial *serial)
{
    const struct serial_regs *r = &serial->regs;
    bool waits = r->interrupts & IER_RECEIVED && has_fifo(r) && r->count && r->count < trigger(r) &&
                 !timed_out(serial);
    if (waits || serial->waiting) /* mostly neither, and then the clock's lock is spared */
        timer_set(&serial->timeout, waits ? r->timeout_at : TIMER_NEVER);
    serial->waiting = waits;
    irq_set(serial->irq, r->modem_control & MCR_OUT2 && identify(serial) != IIR_NONE);
}

static void timeout(void *owner)
{
    update(owner);
}

/* --- registers ------------------------------------------------------------------------------ */

static uint8_t modem_inputs(uint8_t control)
{
    if (!(control & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD;
    return (uint8_t)((control & MCR_RTS ? MSR_CTS : 0) | (control & MCR_DTR ? MSR_DSR : 0) |
                     (control & MCR_OUT1 ? MSR_RI : 0) | (control & MCR_OUT2 ? MSR_DCD : 0));
}

static void set_modem_control(struct serial *serial, uint8_t value)
{
    struct serial_regs *r = &serial->regs;
    uint8_t before = modem_inputs(r->modem_control);
    r->modem_control = value & MCR_BITS;
    uint8_t after = modem_inputs(r->modem_control);
    uint8_t changed = before ^ after;
    if (after & MSR_RI)
        changed &= (uint8_t)~MSR_RI; /* TERI tells of the trailing edge only */
    r->modem_deltas |= changed >> 4;
    offer_room(serial);
}

static void transmit(struct serial *serial, uint8_t value)
{
    struct serial_regs *r = &serial->regs;
    uint8_t byte = value & (uint8_t)(0xff >> (3 - (r->line_control & LCR_LENGTH)));
    r->thr_emptied = false;
    update(serial); /* the line falls while THR is full, so that its rise is an edge again */
    if (r->modem_control & MCR_LOOP)
        fifo_put(serial, byte);
    else
        stream_write(serial->line, &byte, 1);
    r->thr_emptied = true;
}

static void set_fifo_control(struct serial *serial, uint8_t value)
{
    struct serial_regs *r = &serial->regs;
    uint8_t changed = r->fifo_control ^ value;
    r->fifo_control = value & FCR_ENABLE ? value & (FCR_ENABLE | FCR_TRIGGER) : 0;
    if (changed & FCR_ENABLE || (value & FCR_ENABLE && value & FCR_CLEAR_RECEIVER))
        r->count = 0;
    offer_room(serial);
}

static uint8_t read_iir(struct serial *serial)
{
    uint8_t iir = identify(serial);
    if (iir == IIR_THR_EMPTY)
        serial->regs.thr_emptied = false;
    return iir | (has_fifo(&serial->regs) ? IIR_FIFOS : 0);
}

static uint8_t read_lsr(struct serial_regs *r)
{
    uint8_t lsr = LSR_THR_EMPTY | LSR_EMPTY | r->overrun | (r->count ? LSR_READY : 0);
    r->overrun = 0;
    return lsr;
}

static uint8_t read_register(struct serial *serial, unsigned offset)
{
    struct serial_regs *r = &serial->regs;
    uint8_t value;
    switch (offset) {
    case RBR_THR:
        if (r->line_control & LCR_DLAB)
            return r->divisor[DLL];
        value = fifo_take(serial);
        offer_room(serial);
        return value;
    case IER:
        return r->line_control & LCR_DLAB ? r->divisor[DLM] : r->interrupts;
    case IIR_FCR:
        return read_iir(serial);
    case LCR:
        return r->line_control;
    case MCR:
        return r->modem_control;
    case LSR:
        return read_lsr(r);
    case MSR:
        value = modem_inputs(r->modem_control) | r->modem_deltas;
        r->modem_deltas = 0;
        return value;
    default:
        return r->scratch;
    }
}

static void write_register(struct serial *serial, unsigned offset, uint8_t value)
{
    struct serial_regs *r = &serial->regs;
    bool divisor = r->line_control & LCR_DLAB && offset <= DLM;
    if (divisor) {
        r->divisor[offset & 1] = value;
        return;
    }
    switch (offset) {
    case RBR_THR:
        transmit(serial, value);
        break;
    case IER:
        if (value & ~r->interrupts & IER_THR_EMPTY)
            r->thr_emptied = true; /* THR is empty, so enabling interrupts at once */
        r->interrupts = value & IER_BITS;
        break;
    case IIR_FCR:
        set_fifo_control(serial, value);
        break;
    case LCR:
        r->line_control = value;
        break;
    case MCR:
        set_modem_control(serial, value);
        break;
    case SCR:
        r->scratch = value;
        break;
    default:
        break; /* LSR and MSR: factory tests only */
    }
}

static uint64_t serial_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)width;
    static const uint8_t with_effect = 1 << RBR_THR | 1 << IIR_FCR | 1 << LSR | 1 << MSR;
    uint8_t value = read_register(serial_of(dev), (unsigned)offset & 7);
    if (with_effect >> (offset & 7) & 1)
        update(serial_of(dev));
    return value;
}

static void serial_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    (void)width;
    write_register(serial_of(dev), (unsigned)offset & 7, (uint8_t)value);
    if (offset != SCR)
        update(serial_of(dev));
}

/* --- the line and life ---------------------------------------------------------------------- */

static size_t receive(struct device *dev, const uint8_t *data, size_t length)
{
    struct serial *serial = serial_of(dev);
    size_t taken = 0;
    if (!(serial->regs.modem_control & MCR_LOOP))
        while (taken < length && serial->regs.count < capacity(&serial->regs))
            fifo_put(serial, data[taken++]);
    serial->refused = taken < length;
    update(serial);
    return taken;
}

static bool init(struct device *dev, GError **error)
{
    (void)error;
    struct serial *serial = serial_of(dev);
    timer_init(&serial->timeout, dev->board->clock, &dev->lock, timeout, serial);
    return true;
}

static void reset(struct device *dev)
{
    struct serial *serial = serial_of(dev);
    serial->regs = (struct serial_regs){ .divisor = { DIVISOR_PRESET, 0 } };
    offer_room(serial);
    update(serial);
}

static void loaded(struct device *dev)
{
    serial_of(dev)->refused = true; /* whatever the stream holds, it offers when there is room */
    update(serial_of(dev));
}

static void finish(struct device *dev)
{
    timer_finish(&serial_of(dev)->timeout);
}

const struct device_class serial_class = {
    .name = "serial",
    .help = "16550A serial port",
    .size = sizeof(struct serial),
    .regions =
        (const struct region[]){
            { REGION_PORTS, 0, PORTS, W8, serial_read, serial_write },
            { .kind = REGION_END },
        },
    .plugs =
        (const struct plug[]){
            { "line", PLUG_STREAM, offsetof(struct serial, line) },
            { "irq", PLUG_IRQ, offsetof(struct serial, irq) },
            { .name = NULL },
        },
    .state = STATE(struct serial, regs, 1, serial_fields),
    .init = init,
    .reset = reset,
    .loaded = loaded,
    .finish = finish,
    .receive = receive,
};
