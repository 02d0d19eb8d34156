/* I/O APIC: 24 pins, each of which sends a message to local APICs (Intel 82093AA datasheet, order
 * 290566; the EOI register and version 0x20 are the ICH's, ICH9 datasheet 13.5).
 *
 * Messages go out as MSIs, as on a processor system bus, and are accepted at once: delivery status
 * is always idle. Wires carry "asserted" whatever their voltage, so the polarity bit is kept but
 * inverts nothing: a driver sets it to what ACPI says of the pin, which describes that same wire.
 */
#include "bus/device.h"

enum { BASE = 0xfec00000, SIZE = 4096, PINS = 24, VERSION = 0x20 };

/* Memory-mapped registers (3.1; EOI: ICH9 13.5.4). */
enum { IOREGSEL = 0x00, IOWIN = 0x10, EOI = 0x40 };

/* Registers behind the window (3.2). */
enum { REGISTER_ID = 0, REGISTER_VERSION = 1, REGISTER_ARBITRATION = 2, REGISTER_TABLE = 0x10 };
enum { ID_MASK = 0x0f000000 };

/* Redirection table entries (3.2.4). */
#define ENTRY_VECTOR      UINT64_C(0xff)
#define ENTRY_DELIVERY    UINT64_C(0x700)
#define ENTRY_LOGICAL     UINT64_C(0x800)
#define ENTRY_REMOTE_IRR  UINT64_C(0x4000)
#define ENTRY_LEVEL       UINT64_C(0x8000)
#define ENTRY_MASKED      UINT64_C(0x10000)
#define ENTRY_WRITABLE    UINT64_C(0xff0000000001afff)
#define ENTRY_DESTINATION 56

enum { FIXED, LOWEST, SMI, NMI = 4, INIT, EXTINT = 7 };

/* MSIs (Intel SDM volume 3, 11.11). */
enum { MSI_ADDRESS = 0xfee00000, MSI_LOGICAL = 4, MSI_HINT = 8, MSI_DESTINATION = 12 };
enum { MSI_ASSERT = 0x4000, MSI_LEVEL = 0x8000 };

struct ioapic_regs {
    uint64_t entries[PINS];
    uint32_t lines; /* asserted pins */
    uint32_t id;
    uint8_t index;
    uint8_t pad[7];
};

struct ioapic {
    struct device dev;
    struct msi_route routes[PINS]; /* as the hypervisor was told */
    uint32_t sleeping;             /* pins with a sleeper */
    struct timer *sleepers[PINS];
    struct ioapic_regs regs;
};

static const struct field ioapic_fields[] = {
    SAVED_ARRAY(struct ioapic_regs, entries),
    SAVED_MAX(struct ioapic_regs, lines, (1U << PINS) - 1),
    SAVED(struct ioapic_regs, id),
    SAVED(struct ioapic_regs, index),
    SAVED_PAD(struct ioapic_regs, pad),
    SAVED_END,
};

/* --- messages ------------------------------------------------------------------------------- */

static unsigned delivery(uint64_t entry)
{
    return (unsigned)(entry & ENTRY_DELIVERY) >> 8;
}

/* All modes but fixed and lowest priority are edge-triggered, whatever the entry says. */
static bool is_level(uint64_t entry)
{
    return entry & ENTRY_LEVEL && delivery(entry) <= LOWEST;
}

static struct msi_route message(uint64_t entry)
{
    unsigned mode = delivery(entry);
    uint64_t address = MSI_ADDRESS | entry >> ENTRY_DESTINATION << MSI_DESTINATION;
    uint32_t data = (uint32_t)(mode << 8) | MSI_ASSERT;
    if (mode <= LOWEST || mode == EXTINT)
        data |= (uint32_t)(entry & ENTRY_VECTOR);
    if (entry & ENTRY_LOGICAL)
        address |= MSI_LOGICAL;
    if (mode == LOWEST)
        address |= MSI_HINT;
    if (is_level(entry))
        data |= MSI_LEVEL;
    return (struct msi_route){ address, data, entry & ENTRY_MASKED };
}

static void send(struct ioapic *ioapic, uint64_t entry)
{
    const struct board *board = ioapic->dev.board;
    static const uint8_t known =
        1 << FIXED | 1 << LOWEST | 1 << SMI | 1 << NMI | 1 << INIT | 1 << EXTINT;
    if (!(known >> delivery(entry) & 1))
        return;
    struct msi_route msi = message(entry);
    board->ops->send_msi(board->opaque, msi.address, msi.data);
}

/* A level-triggered pin that is asserted sends one message, and the next after its EOI. */
static void serve_level(struct ioapic *ioapic, unsigned pin)
{
    uint64_t *entry = &ioapic->regs.entries[pin];
    if (!is_level(*entry) || *entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR) ||
        !(ioapic->regs.lines >> pin & 1))
        return;
    *entry |= ENTRY_REMOTE_IRR;
    send(ioapic, *entry);
}

/* Tells the hypervisor which vectors' EOIs are wanted. That is expensive, so only when a
 * level-triggered pin that is unmasked has changed; one that was masked may still be in service and
 * wants its EOI, and mostly comes back as it was, so it stays as told. */
static void update_routes(struct ioapic *ioapic, bool changed)
{
    const struct board *board = ioapic->dev.board;
    for (unsigned pin = 0; pin < PINS; pin++) {
        struct msi_route *told = &ioapic->routes[pin], now = message(ioapic->regs.entries[pin]);
        bool was_level = told->data & MSI_LEVEL && !told->masked, level = now.data & MSI_LEVEL;
        if (level && now.masked)
            continue;
        bool same = told->address == now.address && told->data == now.data;
        changed |= level != was_level || (level && !same);
        *told = now;
    }
    if (changed)
        board->ops->set_routes(board->opaque, ioapic->routes, PINS);
}

/* --- pins ----------------------------------------------------------------------------------- */

static void ioapic_input(struct device *dev, unsigned pin, bool level)
{
    struct ioapic *ioapic = (struct ioapic *)dev;
    if (pin >= PINS)
        return;
    uint32_t bit = 1U << pin;
    bool rises = level && !(ioapic->regs.lines & bit);
    ioapic->regs.lines = level ? ioapic->regs.lines | bit : ioapic->regs.lines & ~bit;
    uint64_t entry = ioapic->regs.entries[pin];
    if (is_level(entry))
        serve_level(ioapic, pin);
    else if (rises && !(entry & ENTRY_MASKED)) /* while masked, edges are ignored and not held */
        send(ioapic, entry);
}

static bool ioapic_wanted(struct device *dev, unsigned pin, struct timer *sleeper)
{
    struct ioapic *ioapic = (struct ioapic *)dev;
    if (pin >= PINS)
        return false;
    if (!(ioapic->regs.entries[pin] & ENTRY_MASKED))
        return true;
    ioapic->sleepers[pin] = sleeper;
    ioapic->sleeping |= 1U << pin;
    return false;
}

static void ioapic_eoi(struct device *dev, uint8_t vector)
{
    struct ioapic *ioapic = (struct ioapic *)dev;
    for (unsigned pin = 0; pin < PINS; pin++) {
        uint64_t *entry = &ioapic->regs.entries[pin];
        if ((*entry & ENTRY_VECTOR) != vector || !is_level(*entry))
            continue;
        *entry &= ~ENTRY_REMOTE_IRR;
        serve_level(ioapic, pin);
    }
}

/* --- registers ------------------------------------------------------------------------------ */

static uint32_t window_read(const struct ioapic *ioapic)
{
    unsigned index = ioapic->regs.index, half = index - REGISTER_TABLE;
    if (index >= REGISTER_TABLE && half < 2 * PINS)
        return (uint32_t)(ioapic->regs.entries[half / 2] >> (half & 1) * 32);
    switch (index) {
    case REGISTER_ID:
    case REGISTER_ARBITRATION: /* follows the ID */
        return ioapic->regs.id;
    case REGISTER_VERSION:
        return (PINS - 1) << 16 | VERSION;
    default:
        return 0;
    }
}

static void window_write(struct ioapic *ioapic, uint32_t value)
{
    unsigned index = ioapic->regs.index, half = index - REGISTER_TABLE, pin = half / 2;
    if (index == REGISTER_ID)
        ioapic->regs.id = value & ID_MASK;
    if (index < REGISTER_TABLE || pin >= PINS)
        return;
    uint64_t *entry = &ioapic->regs.entries[pin], shift = (half & 1) * 32;
    uint64_t mask = ENTRY_WRITABLE & UINT64_C(0xffffffff) << shift;
    *entry = (*entry & ~mask) | ((uint64_t)value << shift & mask);
    /* Drivers of chips without the EOI register end an interrupt by a trip to edge and back. */
    if (!is_level(*entry))
        *entry &= ~ENTRY_REMOTE_IRR;
    if (ioapic->sleeping >> pin & 1 && !(*entry & ENTRY_MASKED)) {
        ioapic->sleeping &= ~(1U << pin);
        timer_poke(ioapic->sleepers[pin]);
    }
    update_routes(ioapic, false); /* before the message, whose EOI may come at once */
    serve_level(ioapic, pin);
}

static uint64_t ioapic_read(struct device *dev, uint64_t offset, unsigned width)
{
    const struct ioapic *ioapic = (struct ioapic *)dev;
    uint32_t value = 0;
    if ((offset & ~3U) == IOREGSEL)
        value = ioapic->regs.index;
    else if ((offset & ~3U) == IOWIN)
        value = window_read(ioapic);
    value >>= (offset & 3) * 8;
    return width == 1 ? value & 0xff : value;
}

/* The index register may be written as a byte, the others only whole. */
static void ioapic_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct ioapic *ioapic = (struct ioapic *)dev;
    if (offset == IOREGSEL)
        ioapic->regs.index = (uint8_t)value;
    else if (offset == IOWIN && width == W32)
        window_write(ioapic, (uint32_t)value);
    else if (offset == EOI && width == W32)
        ioapic_eoi(dev, (uint8_t)value);
}

/* --- life ----------------------------------------------------------------------------------- */

/* After a reset every line is low: all devices are reset together. */
static void ioapic_reset(struct device *dev)
{
    struct ioapic *ioapic = (struct ioapic *)dev;
    ioapic->regs = (struct ioapic_regs){ .lines = 0 };
    for (unsigned pin = 0; pin < PINS; pin++)
        ioapic->regs.entries[pin] = ENTRY_MASKED;
    update_routes(ioapic, false);
}

static void ioapic_loaded(struct device *dev)
{
    struct ioapic *ioapic = (struct ioapic *)dev;
    for (unsigned pin = 0; pin < PINS; pin++) {
        uint64_t *entry = &ioapic->regs.entries[pin];
        *entry &= ENTRY_WRITABLE | (is_level(*entry) ? ENTRY_REMOTE_IRR : 0);
        if (*entry & ENTRY_REMOTE_IRR) /* masked or not, its EOI is wanted */
            ioapic->routes[pin] = message(*entry & ~ENTRY_MASKED);
    }
    ioapic->regs.id &= ID_MASK;
    update_routes(ioapic, true);
}

const struct device_class ioapic_class = {
    .name = "ioapic",
    .help = "the I/O interrupt controller (82093AA)",
    .size = sizeof(struct ioapic),
    .regions =
        (const struct region[]){
            { REGION_MMIO, BASE, SIZE, W8 | W32, ioapic_read, ioapic_write },
            { .kind = REGION_END },
        },
    .state = STATE(struct ioapic, regs, 1, ioapic_fields),
    .reset = ioapic_reset,
    .loaded = ioapic_loaded,
    .controller =
        &(const struct irq_controller){
            .input = ioapic_input,
            .wanted = ioapic_wanted,
            .eoi = ioapic_eoi,
        },
};
