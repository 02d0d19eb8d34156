/* High precision event timer: a 100 MHz counter and three comparators (IA-PC HPET specification
 * 1.0a; section numbers below).
 *
 * Nothing counts: the main counter is computed from the clock, and `seen` is the count up to which
 * comparators and status are right. A host timer is armed for a match only where it interrupts.
 * Matches that were missed are not made up for: one interrupt stands for all of them.
 *
 * Legacy replacement (2.3.5) sends timer 0 to IRQ0 and timer 1 to IRQ8. It adds a source to those
 * lines; it doesn't cut off the 8254 and the RTC, which an operating system stops anyway when it
 * turns this on. */
#include "bus/device.h"

enum { BASE = 0xfed00000, SIZE = 1024, TIMERS = 3, NS_PER_TICK = 10 };
#define FS_PER_TICK UINT64_C(10000000)

/* Registers (2.3.3); each timer has four of 8 bytes from 0x100. */
enum { CAPABILITIES = 0x00, CONFIG = 0x10, STATUS = 0x20, COUNTER = 0xf0, TIMER = 0x100 };
enum { TIMER_CONFIG = 0x00, TIMER_COMPARATOR = 0x08, TIMER_STRIDE = 0x20 };

/* 2.3.4: Intel, legacy replacement, 64 bits, three timers, revision 1. */
#define CAPABILITY (FS_PER_TICK << 32 | UINT64_C(0x8086a001) | (TIMERS - 1) << 8)
enum { CONFIG_ENABLE = 1, CONFIG_LEGACY = 2, CONFIG_MASK = 3, STATUS_MASK = (1 << TIMERS) - 1 };

/* 2.3.8: 64 bits, periodic, and no FSB interrupts for each of them. */
enum {
    TIMER_LEVEL = 0x02,
    TIMER_ENABLE = 0x04,
    TIMER_PERIODIC = 0x08,
    TIMER_VALUE_SET = 0x40,
    TIMER_32 = 0x100,
    TIMER_ROUTE = 0x3e00,
    TIMER_WRITABLE = 0x014e, /* and the route */
    TIMER_CAPABILITY = 0x30,
};
#define TIMER_ROUTES (UINT64_C(0xf00000) << 32) /* I/O APIC pins 20 to 23 */

enum { LINE_IRQ0, LINE_IRQ8, LINE_IRQ20, LINES = LINE_IRQ20 + 4, NO_LINE = LINES };
enum { FIRST_PIN = 20, LAST_PIN = 23 };

/* A period shorter than this would only keep the host busy. */
enum { MIN_PERIOD_NS = 10000 };

struct hpet_timer {
    uint64_t config;     /* writable bits */
    uint64_t comparator; /* the next match, for what is periodic */
    uint64_t period;
};

struct hpet_regs {
    struct hpet_timer timers[TIMERS];
    uint64_t count; /* at started_at, or while halted */
    uint64_t started_at;
    uint64_t seen;
    uint8_t config, status;
    uint8_t pad[6];
};

struct hpet {
    struct device dev;
    struct irq *lines[LINES];
    struct timer timer; /* for the next match of all */
    struct hpet_regs regs;
};

static const struct field timer_fields[] = {
    SAVED_MAX(struct hpet_timer, config, TIMER_WRITABLE | TIMER_ROUTE),
    SAVED(struct hpet_timer, comparator),
    SAVED(struct hpet_timer, period),
    SAVED_END,
};
static const struct field hpet_fields[] = {
    SAVED_STRUCTS(struct hpet_regs, timers, timer_fields),
    SAVED(struct hpet_regs, count),
    SAVED(struct hpet_regs, started_at),
    SAVED(struct hpet_regs, seen),
    SAVED_MAX(struct hpet_regs, config, CONFIG_MASK),
    SAVED_MAX(struct hpet_regs, status, STATUS_MASK),
    SAVED_PAD(struct hpet_regs, pad),
    SAVED_END,
};

/* --- counting ------------------------------------------------------------------------------- */

static bool runs(const struct hpet *hpet)
{
    return hpet->regs.config & CONFIG_ENABLE;
}

static uint64_t counter(const struct hpet *hpet)
{
    const struct hpet_regs *regs = &hpet->regs;
    if (!runs(hpet))
        return regs->count;
    return regs->count + (device_now(&hpet->dev) - regs->started_at) / NS_PER_TICK;
}

static uint64_t size_mask(const struct hpet_timer *t)
{
    return t->config & TIMER_32 ? UINT32_MAX : UINT64_MAX;
}

/* Ticks from `seen` to the next match, less 1: a match at `seen` itself is over, so it is a whole
 * round away. */
static uint64_t before_match(const struct hpet *hpet, const struct hpet_timer *t)
{
    return (t->comparator - hpet->regs.seen - 1) & size_mask(t);
}

static unsigned line_of(const struct hpet *hpet, unsigned number)
{
    unsigned pin = (unsigned)(hpet->regs.timers[number].config & TIMER_ROUTE) >> 9;
    if (hpet->regs.config & CONFIG_LEGACY && number < 2)
        return number == 0 ? LINE_IRQ0 : LINE_IRQ8;
    return pin < FIRST_PIN || pin > LAST_PIN ? NO_LINE : LINE_IRQ20 + pin - FIRST_PIN;
}

/* Timer `number` matched in the ticks gone by. */
static void match(struct hpet *hpet, unsigned number)
{
    const struct hpet_timer *t = &hpet->regs.timers[number];
    unsigned line = line_of(hpet, number);
    if (t->config & TIMER_LEVEL)
        hpet->regs.status |= (uint8_t)(1 << number);
    else if (t->config & TIMER_ENABLE && line != NO_LINE)
        irq_pulse(hpet->lines[line]);
}

static void catch_up(struct hpet *hpet)
{
    uint64_t now = counter(hpet), passed = now - hpet->regs.seen;
    for (unsigned i = 0; i < TIMERS; i++) {
        struct hpet_timer *t = &hpet->regs.timers[i];
        uint64_t before = before_match(hpet, t);
        if (before >= passed)
            continue;
        if (t->config & TIMER_PERIODIC && t->period) {
            uint64_t periods = (passed - before - 1) / t->period + 1;
            t->comparator = (t->comparator + periods * t->period) & size_mask(t);
        }
        match(hpet, i);
    }
    hpet->regs.seen = now;
}

/* The guest time at which timer `number` interrupts next. */
static uint64_t deadline(const struct hpet *hpet, unsigned number)
{
    const struct hpet_regs *regs = &hpet->regs;
    const struct hpet_timer *t = &regs->timers[number];
    if (!(t->config & TIMER_ENABLE) || line_of(hpet, number) == NO_LINE ||
        (t->config & TIMER_LEVEL && regs->status >> number & 1))
        return TIMER_NEVER;
    uint64_t done = regs->seen - regs->count, before = before_match(hpet, t), ticks, ns;
    if (__builtin_add_overflow(done, before, &ticks) || __builtin_add_overflow(ticks, 1, &ticks) ||
        __builtin_mul_overflow(ticks, NS_PER_TICK, &ns) ||
        __builtin_add_overflow(ns, regs->started_at, &ns))
        return TIMER_NEVER;
    if (t->config & TIMER_PERIODIC && t->period < MIN_PERIOD_NS / NS_PER_TICK)
        ns = MAX(ns, device_now(&hpet->dev) + MIN_PERIOD_NS);
    return ns;
}

/* After any change: level-triggered lines, and the timer. */
static void update(struct hpet *hpet)
{
    bool levels[LINES + 1] = { false };
    uint64_t next = TIMER_NEVER;
    for (unsigned i = 0; runs(hpet) && i < TIMERS; i++) {
        uint64_t config = hpet->regs.timers[i].config;
        if (config & TIMER_LEVEL && config & TIMER_ENABLE && hpet->regs.status >> i & 1)
            levels[line_of(hpet, i)] = true;
        next = MIN(next, deadline(hpet, i));
    }
    for (unsigned i = 0; i < LINES; i++)
        irq_set(hpet->lines[i], levels[i]);
    timer_set(&hpet->timer, next);
}

static void run_timer(void *owner)
{
    catch_up(owner);
    update(owner);
}

/* --- registers ------------------------------------------------------------------------------ */

static uint64_t read_register(struct hpet *hpet, uint64_t offset)
{
    switch (offset) {
    case CAPABILITIES:
        return CAPABILITY;
    case CONFIG:
        return hpet->regs.config;
    case STATUS:
        return hpet->regs.status;
    case COUNTER:
        return counter(hpet);
    default:
        break;
    }
    uint64_t number = (offset - TIMER) / TIMER_STRIDE;
    if (offset < TIMER || number >= TIMERS)
        return 0;
    const struct hpet_timer *t = &hpet->regs.timers[number];
    switch (offset % TIMER_STRIDE) {
    case TIMER_CONFIG:
        return t->config | TIMER_CAPABILITY | TIMER_ROUTES;
    case TIMER_COMPARATOR:
        return t->comparator;
    default:
        return 0; /* no FSB routes */
    }
}

static uint64_t hpet_read(struct device *dev, uint64_t offset, unsigned width)
{
    struct hpet *hpet = (struct hpet *)dev;
    /* The counter, which is read most, needs none of this. */
    if (offset >= CONFIG && (offset & ~UINT64_C(7)) != COUNTER) {
        catch_up(hpet);
        update(hpet);
    }
    uint64_t value = read_register(hpet, offset & ~UINT64_C(7)) >> (offset & 4) * 8;
    return width == W32 ? (uint32_t)value : value;
}

static void write_config(struct hpet *hpet, uint64_t value)
{
    struct hpet_regs *regs = &hpet->regs;
    if ((value ^ regs->config) & CONFIG_ENABLE) {
        regs->count = regs->seen;
        regs->started_at = device_now(&hpet->dev);
    }
    regs->config = value & CONFIG_MASK;
}

static void write_timer_config(struct hpet *hpet, unsigned number, uint64_t value)
{
    struct hpet_timer *t = &hpet->regs.timers[number];
    uint64_t pin = (value & TIMER_ROUTE) >> 9, route = t->config & TIMER_ROUTE;
    if (TIMER_ROUTES >> 32 >> pin & 1) /* others don't stick: so software finds what there is */
        route = value & TIMER_ROUTE;
    t->config = (value & TIMER_WRITABLE) | route;
    if (!(value & TIMER_PERIODIC))
        t->config &= ~(uint64_t)TIMER_VALUE_SET;
    t->comparator &= size_mask(t);
    t->period &= size_mask(t);
    if (!(value & TIMER_LEVEL))
        hpet->regs.status &= (uint8_t) ~(1 << number);
}

/* A periodic timer takes the value as its period, and as its next match too with VAL_SET, which a
 * write of the low half clears (2.3.9.2.2). */
static void write_comparator(struct hpet_timer *t, uint64_t value, uint64_t mask)
{
    bool periodic = t->config & TIMER_PERIODIC;
    if (!periodic || t->config & TIMER_VALUE_SET)
        t->comparator = ((t->comparator & ~mask) | (value & mask)) & size_mask(t);
    if (periodic)
        t->period = ((t->period & ~mask) | (value & mask)) & size_mask(t);
    if (mask & 1)
        t->config &= ~(uint64_t)TIMER_VALUE_SET;
}

/* `mask` has the bits that the access covers. */
static void write_register(struct hpet *hpet, uint64_t offset, uint64_t value, uint64_t mask)
{
    struct hpet_regs *regs = &hpet->regs;
    uint64_t whole = (read_register(hpet, offset) & ~mask) | (value & mask);
    switch (offset) {
    case CONFIG:
        write_config(hpet, whole);
        return;
    case STATUS:
        regs->status &= (uint8_t) ~(value & mask);
        return;
    case COUNTER:
        regs->count = regs->seen = whole;
        regs->started_at = device_now(&hpet->dev);
        return;
    default:
        break;
    }
    uint64_t number = (offset - TIMER) / TIMER_STRIDE;
    if (offset < TIMER || number >= TIMERS)
        return;
    if (offset % TIMER_STRIDE == TIMER_CONFIG)
        write_timer_config(hpet, (unsigned)number, whole);
    else if (offset % TIMER_STRIDE == TIMER_COMPARATOR)
        write_comparator(&regs->timers[number], value, mask);
}

static void hpet_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct hpet *hpet = (struct hpet *)dev;
    uint64_t shift = (offset & 4) * 8, mask = width == W32 ? UINT32_MAX : UINT64_MAX;
    catch_up(hpet);
    write_register(hpet, offset & ~UINT64_C(7), value << shift, mask << shift);
    update(hpet);
}

/* --- life ----------------------------------------------------------------------------------- */

static bool hpet_init(struct device *dev, GError **error)
{
    struct hpet *hpet = (struct hpet *)dev;
    (void)error;
    timer_init(&hpet->timer, dev->board->clock, &dev->lock, run_timer, hpet);
    return true;
}

static void hpet_reset(struct device *dev)
{
    struct hpet *hpet = (struct hpet *)dev;
    hpet->regs = (struct hpet_regs){ .count = 0 };
    for (unsigned i = 0; i < TIMERS; i++)
        hpet->regs.timers[i].comparator = UINT64_MAX;
    update(hpet);
}

static void hpet_loaded(struct device *dev)
{
    struct hpet *hpet = (struct hpet *)dev;
    struct hpet_regs *regs = &hpet->regs;
    regs->started_at = MIN(regs->started_at, device_now(dev));
    /* Between the start of the count and now. */
    if (regs->seen - regs->count > counter(hpet) - regs->count)
        regs->seen = counter(hpet);
    for (unsigned i = 0; i < TIMERS; i++) {
        regs->timers[i].comparator &= size_mask(&regs->timers[i]);
        regs->timers[i].period &= size_mask(&regs->timers[i]);
    }
    update(hpet);
}

static void hpet_finish(struct device *dev)
{
    timer_finish(&((struct hpet *)dev)->timer);
}

const struct device_class hpet_class = {
    .name = "hpet",
    .help = "the high precision event timer",
    .size = sizeof(struct hpet),
    .regions =
        (const struct region[]){
            { REGION_MMIO, BASE, SIZE, W32 | W64, hpet_read, hpet_write },
            { .kind = REGION_END },
        },
    .plugs =
        (const struct plug[]){
            { "irq0", PLUG_IRQ, offsetof(struct hpet, lines[LINE_IRQ0]) },
            { "irq8", PLUG_IRQ, offsetof(struct hpet, lines[LINE_IRQ8]) },
            { "irq20", PLUG_IRQ, offsetof(struct hpet, lines[LINE_IRQ20]) },
            { "irq21", PLUG_IRQ, offsetof(struct hpet, lines[LINE_IRQ20 + 1]) },
            { "irq22", PLUG_IRQ, offsetof(struct hpet, lines[LINE_IRQ20 + 2]) },
            { "irq23", PLUG_IRQ, offsetof(struct hpet, lines[LINE_IRQ20 + 3]) },
            { .name = NULL },
        },
    .state = STATE(struct hpet, regs, 1, hpet_fields),
    .init = hpet_init,
    .reset = hpet_reset,
    .loaded = hpet_loaded,
    .finish = hpet_finish,
};
