/* 8254 interval timer with the speaker gate, port 0x61 (Intel 82C54 datasheet, order 231244; port
 * 0x61: ICH9 datasheet 13.7.1).
 *
 * Nothing counts. A counter remembers the tick (of 1193182 Hz, from guest time 0) at which its
 * count was loaded, and what it holds, OUT and the next edge follow from the clock. A write acts
 * at the tick it falls into, the load at the next one, as the chip does on the CLK pulse after it.
 *
 * The timer is armed for the next rising edge of OUT0 only. An edge that would change nothing
 * (IRQ0 still latched or masked) puts it to sleep until a controller pokes it. Late edges are not
 * made up for: after a delay one comes, then the next that is due. The line gets a pulse for an
 * edge, as IRQ0 is edge-triggered in every PC. */
#include "bus/device.h"

enum { PORT = 0x40, PORT_CONTROL = 3, PORT_B = 0x61 };
enum { CHANNELS = 3, SPEAKER = 2, HZ = 1193182 };

/* Control word (82C54 figure 7); the status byte shows the low six bits. */
enum { CONTROL_BCD = 1, CONTROL_MASK = 0x3f, ACCESS_LATCH = 0, ACCESS_HIGH = 2, ACCESS_BOTH = 3 };
enum { SELECT_READ_BACK = 3, READ_BACK_NO_COUNT = 0x20, READ_BACK_NO_STATUS = 0x10 };
enum { STATUS_OUT = 0x80, STATUS_NULL = 0x40 };
/* What no program has chosen: both bytes, mode 3, OUT high. */
enum { CONTROL_RESET = 0x36 };

/* Port 0x61, NMI status and control. Bits 2 and 3 enable NMIs that nothing here raises. */
enum { GATE2 = 0x01, PORT_B_WRITABLE = 0x0f, PORT_B_REFRESH = 0x10, PORT_B_OUT2 = 0x20 };
enum { REFRESH_TICKS = 18 }; /* 15 us */

struct channel {
    uint64_t start;     /* the tick of the load, or where the period would have begun */
    uint64_t held;      /* ticks counted, while it doesn't run */
    uint64_t reload_at; /* modes 2, 3: the tick at which `written` is loaded, when `waiting` */
    uint16_t count;     /* as loaded */
    uint16_t written;   /* as written, when `waiting` */
    uint16_t latch;     /* valid with `latched` */
    uint8_t control;
    uint8_t status; /* valid with `status_latched` */
    uint8_t low;    /* the first of two bytes */
    bool loaded;    /* the counting element holds a count */
    bool waiting;   /* a count waits for a trigger or the end of a period */
    bool running;   /* not held by the gate */
    bool gate;
    bool before; /* OUT until the load */
    bool latched, status_latched;
    bool read_high, write_high;
    uint8_t pad[6];
};

struct i8254_regs {
    uint64_t edge_at; /* the tick of the next edge of OUT0 */
    struct channel channels[CHANNELS];
    uint8_t port_b;
    uint8_t pad[7];
};

struct i8254 {
    struct device dev;
    struct irq *irq;
    struct timer timer;
    bool asleep; /* nobody wants edges; those that went by meanwhile are nothing */
    struct i8254_regs regs;
};

static const struct field channel_fields[] = {
    SAVED(struct channel, start),
    SAVED(struct channel, held),
    SAVED(struct channel, reload_at),
    SAVED(struct channel, count),
    SAVED(struct channel, written),
    SAVED(struct channel, latch),
    SAVED_MAX(struct channel, control, CONTROL_MASK),
    SAVED(struct channel, status),
    SAVED(struct channel, low),
    SAVED(struct channel, loaded),
    SAVED(struct channel, waiting),
    SAVED(struct channel, running),
    SAVED(struct channel, gate),
    SAVED(struct channel, before),
    SAVED(struct channel, latched),
    SAVED(struct channel, status_latched),
    SAVED(struct channel, read_high),
    SAVED(struct channel, write_high),
    SAVED_PAD(struct channel, pad),
    SAVED_END,
};
static const struct field i8254_fields[] = {
    SAVED(struct i8254_regs, edge_at),
    SAVED_STRUCTS(struct i8254_regs, channels, channel_fields),
    SAVED_MAX(struct i8254_regs, port_b, PORT_B_WRITABLE),
    SAVED_PAD(struct i8254_regs, pad),
    SAVED_END,
};

/* --- ticks ---------------------------------------------------------------------------------- */

static uint64_t tick_now(const struct i8254 *pit)
{
    return muldiv64(device_now(&pit->dev), HZ, NS_PER_SECOND);
}

/* The first guest time that lies in a tick. */
static uint64_t tick_time(uint64_t tick)
{
    uint64_t ns = muldiv64(tick, NS_PER_SECOND, HZ);
    return ns == TIMER_NEVER ? ns : ns + (muldiv64(ns, HZ, NS_PER_SECOND) < tick);
}

/* Is tick a after tick b? They may have come from a saved file, so no more is asked of them. */
static bool after(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b) > 0;
}

/* --- what a counter holds ------------------------------------------------------------------- */

static unsigned mode(const struct channel *c)
{
    unsigned m = c->control >> 1 & 7;
    return m > 5 ? m - 4 : m;
}

static bool periodic(const struct channel *c)
{
    return mode(c) == 2 || mode(c) == 3;
}

static bool triggered(const struct channel *c)
{
    return mode(c) == 1 || mode(c) == 5;
}

static uint32_t modulus(const struct channel *c)
{
    return c->control & CONTROL_BCD ? 10000 : 0x10000;
}

/* The number of ticks that a written count stands for: at least 1. */
static uint32_t ticks(const struct channel *c, uint16_t count)
{
    if (!count)
        return modulus(c);
    if (!(c->control & CONTROL_BCD))
        return count;
    return (count >> 12) * 1000u + (count >> 8 & 15) * 100u + (count >> 4 & 15) * 10u +
           (count & 15);
}

static bool counting(const struct channel *c, uint64_t now)
{
    return c->loaded && !(c->running && after(c->start, now));
}

static uint64_t elapsed(const struct channel *c, uint64_t now)
{
    return c->running ? now - c->start : c->held;
}

/* Mode 3 is high for the longer half. */
static uint32_t high_half(uint32_t n)
{
    return (n + 1) / 2;
}

static bool out(const struct channel *c, uint64_t now)
{
    uint32_t n = ticks(c, c->count);
    uint64_t e = elapsed(c, now);
    if (!counting(c, now))
        return c->before;
    switch (mode(c)) {
    case 0:
    case 1:
        return e >= n;
    case 2:
        return !c->running || e % n != n - 1;
    case 3:
        return !c->running || e % n < high_half(n);
    default:
        return e != n;
    }
}

/* What the counting element shows, as it is read. */
static uint16_t value(const struct channel *c, uint64_t now)
{
    uint32_t n = ticks(c, c->count), m = modulus(c), v;
    uint64_t e = elapsed(c, now);
    if (!counting(c, now))
        return c->count;
    if (mode(c) == 2) {
        v = n - (uint32_t)(e % n);
    } else if (mode(c) == 3) {
        uint32_t at = (uint32_t)(e % n);
        v = (n & ~1U) - 2 * (at < high_half(n) ? at : at - high_half(n));
    } else {
        v = n + m - (uint32_t)(e % m);
    }
    v %= m;
    if (c->control & CONTROL_BCD)
        v = v / 1000 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10;
    return (uint16_t)v;
}

static uint8_t status(const struct channel *c, uint64_t now)
{
    bool null = !counting(c, now) || c->waiting;
    return (uint8_t)((out(c, now) ? STATUS_OUT : 0) | (null ? STATUS_NULL : 0) | c->control);
}

/* The tick after `now` at which OUT rises by itself. */
static uint64_t next_rise(const struct channel *c, uint64_t now)
{
    uint32_t n = ticks(c, c->count);
    if (!c->loaded || !c->running)
        return TIMER_NEVER;
    if (!periodic(c)) {
        uint64_t rise = c->start + n + (mode(c) >= 4);
        return after(rise, now) ? rise : TIMER_NEVER;
    }
    if (n < 2) /* the manual forbids 1 */
        return TIMER_NEVER;
    uint64_t periods = after(now, c->start) ? (now - c->start) / n : 0;
    uint64_t rise = c->start + (periods + 1) * n;
    /* A new count that comes in the middle of mode 3 makes the low half shorter or longer. */
    if (c->waiting && after(rise, c->reload_at))
        rise = c->reload_at + ticks(c, c->written) / 2;
    return rise;
}

/* --- what happens to a counter -------------------------------------------------------------- */

/* A count goes into the counting element, at the next CLK. */
static void load(struct channel *c, uint64_t now)
{
    c->before = mode(c) != 0 && out(c, now);
    if (c->waiting)
        c->count = c->written;
    c->waiting = false;
    c->loaded = true;
    c->running = c->gate || triggered(c);
    c->start = now + 1;
    c->held = 0;
}

/* Takes over a count whose period has begun. In mode 3 that may be the low half. */
static void settle(struct channel *c, uint64_t now)
{
    if (!c->waiting || !periodic(c) || !c->loaded || !c->running || after(c->reload_at, now))
        return;
    bool middle = (c->reload_at - c->start) % ticks(c, c->count);
    c->count = c->written;
    c->waiting = false;
    c->start = c->reload_at - (middle ? high_half(ticks(c, c->count)) : 0);
}

static void write_count(struct channel *c, uint16_t count, uint64_t now)
{
    c->written = count;
    c->waiting = true;
    if (triggered(c))
        return;
    if (!periodic(c) || !c->loaded || (c->running && !counting(c, now))) {
        load(c, now);
    } else if (c->running) {
        uint32_t n = ticks(c, c->count), at = (uint32_t)((now - c->start) % n);
        bool first = mode(c) == 3 && at < high_half(n);
        c->reload_at = now - at + (first ? high_half(n) : n);
    }
}

static void write_byte(struct channel *c, uint8_t byte, uint64_t now)
{
    unsigned access = c->control >> 4;
    if (access == ACCESS_BOTH && !c->write_high) {
        c->low = byte;
        c->write_high = true;
        if (mode(c) == 0) { /* counting stops, OUT is low at once */
            c->loaded = false;
            c->before = false;
        }
        return;
    }
    unsigned count = byte;
    if (access == ACCESS_BOTH)
        count = (unsigned)byte << 8 | c->low;
    else if (access == ACCESS_HIGH)
        count = (unsigned)byte << 8;
    c->write_high = false;
    write_count(c, (uint16_t)count, now);
}

static void set_gate(struct channel *c, bool gate, uint64_t now)
{
    if (gate == c->gate)
        return;
    c->gate = gate;
    if (triggered(c)) {
        if (gate && (c->loaded || c->waiting))
            load(c, now);
    } else if (!gate) {
        c->held = counting(c, now) ? elapsed(c, now) : 0;
        c->running = false;
    } else if (periodic(c) && c->loaded) {
        load(c, now);
    } else {
        c->start = now - c->held;
        c->running = true;
    }
}

static void program(struct channel *c, uint8_t control)
{
    c->control = control & CONTROL_MASK;
    c->loaded = false;
    c->waiting = false;
    c->before = mode(c) != 0;
    c->latched = false;
    c->status_latched = false;
    c->read_high = false;
    c->write_high = false;
}

/* A latch holds until it is read: later commands don't change it. */
static void latch_count(struct channel *c, uint64_t now)
{
    if (!c->latched)
        c->latch = value(c, now);
    c->latched = true;
}

static void latch_status(struct channel *c, uint64_t now)
{
    if (!c->status_latched)
        c->status = status(c, now);
    c->status_latched = true;
}

static uint8_t read_byte(struct channel *c, uint64_t now)
{
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    unsigned access = c->control >> 4;
    uint16_t v = c->latched ? c->latch : value(c, now);
    bool high = access == ACCESS_BOTH ? c->read_high : access == ACCESS_HIGH;
    c->read_high = access == ACCESS_BOTH && !high;
    if (!c->read_high)
        c->latched = false;
    return (uint8_t)(high ? v >> 8 : v);
}

/* --- the edges of OUT0 ---------------------------------------------------------------------- */

static void arm(struct i8254 *pit)
{
    uint64_t edge = pit->regs.edge_at;
    timer_set(&pit->timer, edge == TIMER_NEVER || !pit->irq ? TIMER_NEVER : tick_time(edge));
}

/* Brings the counters up to `now`. */
static void catch_up(struct i8254 *pit, uint64_t now)
{
    for (unsigned i = 0; i < CHANNELS; i++)
        settle(&pit->regs.channels[i], now);
}

/* The edge that is due, or a poke. */
static void run_timer(void *owner)
{
    struct i8254 *pit = owner;
    uint64_t now = tick_now(pit);
    bool due = pit->regs.edge_at <= now;
    catch_up(pit, now);
    if (due)
        pit->regs.edge_at = next_rise(&pit->regs.channels[0], now);
    if (due && !pit->asleep) {
        pit->asleep = !irq_wanted(pit->irq, &pit->timer);
        if (pit->asleep) /* from here on a poke may come, which arming would lose */
            return;
        irq_pulse(pit->irq);
    }
    pit->asleep = false;
    arm(pit);
}

/* Around a command for counter 0: before, an edge that the clock's thread is late with; after, one
 * that the write itself made, as when mode 2 is programmed while OUT is low. */
static bool before_write(struct i8254 *pit, uint64_t now)
{
    if (pit->regs.edge_at <= now && !pit->asleep)
        irq_pulse(pit->irq);
    settle(&pit->regs.channels[0], now);
    return out(&pit->regs.channels[0], now);
}

static void after_write(struct i8254 *pit, bool was_high, uint64_t now)
{
    struct channel *c = &pit->regs.channels[0];
    if (!was_high && out(c, now))
        irq_pulse(pit->irq);
    pit->regs.edge_at = next_rise(c, now);
    pit->asleep = false;
    arm(pit);
}

/* --- ports ---------------------------------------------------------------------------------- */

static uint64_t pit_read(struct device *dev, uint64_t offset, unsigned width)
{
    struct i8254 *pit = (struct i8254 *)dev;
    uint64_t now = tick_now(pit);
    (void)width;
    if (offset >= CHANNELS)
        return 0xff; /* the control word cannot be read */
    catch_up(pit, now);
    return read_byte(&pit->regs.channels[offset], now);
}

static void read_back(struct i8254 *pit, uint8_t command, uint64_t now)
{
    for (unsigned i = 0; i < CHANNELS; i++) {
        if (!(command >> (i + 1) & 1))
            continue;
        if (!(command & READ_BACK_NO_COUNT))
            latch_count(&pit->regs.channels[i], now);
        if (!(command & READ_BACK_NO_STATUS))
            latch_status(&pit->regs.channels[i], now);
    }
}

static void pit_write(struct device *dev, uint64_t offset, unsigned width, uint64_t data)
{
    struct i8254 *pit = (struct i8254 *)dev;
    uint64_t now = tick_now(pit);
    uint8_t byte = (uint8_t)data;
    bool is_control = offset == PORT_CONTROL;
    unsigned number = is_control ? byte >> 6 : (unsigned)offset;
    (void)width;
    if (is_control && number == SELECT_READ_BACK) {
        catch_up(pit, now);
        read_back(pit, byte, now);
        return;
    }
    struct channel *c = &pit->regs.channels[number];
    bool was_high = number == 0 && before_write(pit, now);
    settle(c, now);
    if (!is_control)
        write_byte(c, byte, now);
    else if ((byte >> 4 & 3) == ACCESS_LATCH)
        latch_count(c, now);
    else
        program(c, byte);
    if (number == 0)
        after_write(pit, was_high, now);
}

static uint64_t port_b_read(struct device *dev, uint64_t offset, unsigned width)
{
    struct i8254 *pit = (struct i8254 *)dev;
    uint64_t now = tick_now(pit);
    (void)offset, (void)width;
    catch_up(pit, now);
    return pit->regs.port_b | (now / REFRESH_TICKS & 1 ? PORT_B_REFRESH : 0u) |
           (out(&pit->regs.channels[SPEAKER], now) ? PORT_B_OUT2 : 0u);
}

static void port_b_write(struct device *dev, uint64_t offset, unsigned width, uint64_t data)
{
    struct i8254 *pit = (struct i8254 *)dev;
    uint64_t now = tick_now(pit);
    (void)offset, (void)width;
    catch_up(pit, now);
    pit->regs.port_b = data & PORT_B_WRITABLE;
    set_gate(&pit->regs.channels[SPEAKER], data & GATE2, now);
}

/* --- life ----------------------------------------------------------------------------------- */

static bool i8254_init(struct device *dev, GError **error)
{
    struct i8254 *pit = (struct i8254 *)dev;
    (void)error;
    timer_init(&pit->timer, dev->board->clock, &dev->lock, run_timer, pit);
    return true;
}

static void i8254_reset(struct device *dev)
{
    struct i8254 *pit = (struct i8254 *)dev;
    pit->regs = (struct i8254_regs){ .edge_at = TIMER_NEVER };
    for (unsigned i = 0; i < CHANNELS; i++) {
        program(&pit->regs.channels[i], CONTROL_RESET);
        pit->regs.channels[i].gate = i != SPEAKER; /* counters 0 and 1 always count */
    }
    pit->asleep = false;
    arm(pit);
}

static void i8254_loaded(struct device *dev)
{
    struct i8254 *pit = (struct i8254 *)dev;
    pit->asleep = false;
    arm(pit);
}

static void i8254_finish(struct device *dev)
{
    timer_finish(&((struct i8254 *)dev)->timer);
}

const struct device_class i8254_class = {
    .name = "i8254",
    .help = "the 8254 interval timer and the speaker gate",
    .size = sizeof(struct i8254),
    .regions =
        (const struct region[]){
            { REGION_PORTS, PORT, 4, W8, pit_read, pit_write },
            { REGION_PORTS, PORT_B, 1, W8, port_b_read, port_b_write },
            { .kind = REGION_END },
        },
    .plugs =
        (const struct plug[]){
            { "irq", PLUG_IRQ, offsetof(struct i8254, irq) },
            { .name = NULL },
        },
    .state = STATE(struct i8254, regs, 1, i8254_fields),
    .init = i8254_init,
    .reset = i8254_reset,
    .loaded = i8254_loaded,
    .finish = i8254_finish,
};
