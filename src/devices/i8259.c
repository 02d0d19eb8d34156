/* The pair of 82C59A interrupt controllers of a PC, cascaded at IR2, with the edge/level control
 * registers of an ICH (Intel 82C59A datasheet, order 231201; ICH9 datasheet 13.4 and 13.7).
 *
 * Pins 0 to 7 are the master's, 8 to 15 the slave's; pin 2 is the cascade and ignored from outside.
 * Differences from a lone 82C59A are the chipset's: ELCR instead of LTIM, no MCS-80 mode, no
 * external buffers. An edge stays latched in IRR until it is acknowledged even when its line falls
 * (devices pulse their lines), so a spurious IRQ7 comes from level-triggered lines and masks only.
 */
#include "bus/device.h"

/* Ports: A0 = 0 takes ICW1, OCW2, OCW3 and gives IRR, ISR or the poll word; A0 = 1 takes ICW2 to
 * ICW4 and OCW1 (IMR), and gives IMR. */
enum { MASTER_PORT = 0x20, SLAVE_PORT = 0xa0, ELCR_PORT = 0x4d0 };

enum { MASTER, SLAVE, CHIPS };
enum { CASCADE = 2, CASCADE_BIT = 1 << CASCADE, SPURIOUS = 7, PINS = 16, NONE = 8 };

enum { ICW1 = 0x10, ICW1_IC4 = 0x01, ICW1_SINGLE = 0x02 };
enum { ICW2_BASE = 0xf8 };
enum { ICW4_AUTO_EOI = 0x02, ICW4_SPECIAL_NESTED = 0x10, ICW4_MASK = 0x1f };
enum { OCW2_ROTATE = 0x80, OCW2_SPECIFIC = 0x40, OCW2_EOI = 0x20, OCW2_LEVEL = 7 };
enum {
    OCW3 = 0x08,
    OCW3_ESMM = 0x40,
    OCW3_SMM = 0x20,
    OCW3_POLL = 0x04,
    OCW3_RR = 2,
    OCW3_RIS = 1
};
enum { POLL_PENDING = 0x80 };

/* What the chip waits for at A0 = 1. */
enum { WAIT_ICW1, WAIT_ICW2, WAIT_ICW3, WAIT_ICW4, READY };

/* IRQ 0, 1, 2, 8 and 13 are always edge-triggered (ICH9 13.7.13, 13.7.14). */
static const uint8_t elcr_mask[CHIPS] = { 0xf8, 0xde };

struct chip {
    uint8_t lines;   /* the levels of the inputs */
    uint8_t latched; /* edges that wait */
    uint8_t imr, isr, elcr;
    uint8_t icw1, icw2, icw3, icw4;
    uint8_t stage;
    uint8_t lowest; /* the level of the lowest priority */
    bool read_isr, poll, special_mask, rotate_auto;
    bool output; /* INT */
};

struct i8259_regs {
    struct chip chips[CHIPS];
};

struct i8259 {
    struct device dev;
    struct irq_input intr;
    bool intr_level;
    uint16_t sleeping; /* pins with a sleeper */
    struct timer *sleepers[PINS];
    struct i8259_regs regs;
};

static const struct field chip_fields[] = {
    SAVED(struct chip, lines),
    SAVED(struct chip, latched),
    SAVED(struct chip, imr),
    SAVED(struct chip, isr),
    SAVED(struct chip, elcr),
    SAVED(struct chip, icw1),
    SAVED(struct chip, icw2),
    SAVED(struct chip, icw3),
    SAVED(struct chip, icw4),
    SAVED_MAX(struct chip, stage, READY),
    SAVED_MAX(struct chip, lowest, 7),
    SAVED(struct chip, read_isr),
    SAVED(struct chip, poll),
    SAVED(struct chip, special_mask),
    SAVED(struct chip, rotate_auto),
    SAVED(struct chip, output),
    SAVED_END,
};
static const struct field i8259_fields[] = {
    SAVED_STRUCTS(struct i8259_regs, chips, chip_fields),
    SAVED_END,
};

/* --- priorities ----------------------------------------------------------------------------- */

static uint8_t requests(const struct chip *chip)
{
    return (uint8_t)(chip->latched | (chip->lines & chip->elcr));
}

/* The level of the highest priority in `bits`, NONE when there is none. */
static unsigned highest(const struct chip *chip, uint8_t bits)
{
    for (unsigned i = 1; i <= 8; i++) {
        unsigned level = (chip->lowest + i) & 7;
        if (bits >> level & 1)
            return level;
    }
    return NONE;
}

/* How far from the top; NONE is below all. */
static unsigned rank(const struct chip *chip, unsigned level)
{
    return level == NONE ? NONE : (level - chip->lowest - 1) & 7;
}

/* The level that INT stands for, NONE when INT is low. Requests of the level in service and of
 * those below wait; in special mask mode only unmasked levels in service hold others back, and in
 * the special fully nested mode the cascade doesn't hold back itself. */
static unsigned pending(const struct chip *chip, bool master)
{
    if (chip->stage != READY)
        return NONE;
    uint8_t holding = chip->isr;
    if (chip->special_mask)
        holding &= (uint8_t)~chip->imr;
    if (master && chip->icw4 & ICW4_SPECIAL_NESTED)
        holding &= (uint8_t)~CASCADE_BIT;
    unsigned level = highest(chip, requests(chip) & (uint8_t)~chip->imr);
    return rank(chip, level) < rank(chip, highest(chip, holding)) ? level : NONE;
}

/* Follows a change: INT of the slave into IR2 of the master, INT of the master out. A rise of the
 * slave's INT is latched like any edge, so if the slave then has nothing, IRQ15 is spurious. */
static void update(struct i8259 *pic)
{
    struct chip *master = &pic->regs.chips[MASTER], *slave = &pic->regs.chips[SLAVE];
    bool output = pending(slave, false) != NONE;
    if (output && !slave->output)
        master->latched |= CASCADE_BIT;
    slave->output = output;
    master->output = pending(master, true) != NONE;
    if (master->output != pic->intr_level) {
        pic->intr_level = master->output;
        if (pic->intr.set)
            pic->intr.set(pic->intr.opaque, pic->intr.pin, pic->intr_level);
    }
    unsigned latched = master->latched | (unsigned)slave->latched << 8;
    for (unsigned awake = pic->sleeping & ~latched; awake; awake &= awake - 1)
        timer_poke(pic->sleepers[__builtin_ctz(awake)]);
    pic->sleeping &= (uint16_t)latched;
}

/* --- the inputs and the acknowledge cycle --------------------------------------------------- */

static void i8259_input(struct device *dev, unsigned pin, bool level)
{
    struct i8259 *pic = (struct i8259 *)dev;
    if (pin >= PINS || pin == CASCADE)
        return;
    struct chip *chip = &pic->regs.chips[pin >> 3];
    uint8_t bit = (uint8_t)(1 << (pin & 7));
    if (level && !(chip->lines & bit) && !(chip->elcr & bit))
        chip->latched |= bit;
    chip->lines = level ? chip->lines | bit : chip->lines & (uint8_t)~bit;
    update(pic);
}

/* An edge on a latched line changes nothing until the latch is clear, masked or not. */
static bool i8259_wanted(struct device *dev, unsigned pin, struct timer *sleeper)
{
    struct i8259 *pic = (struct i8259 *)dev;
    if (pin >= PINS || pin == CASCADE)
        return false;
    if (!(pic->regs.chips[pin >> 3].latched >> (pin & 7) & 1))
        return true;
    pic->sleepers[pin] = sleeper;
    pic->sleeping |= (uint16_t)(1 << pin);
    return false;
}

/* INTA for one chip: the level goes from IRR to ISR. INT falls, to rise again for the next. */
static void take(struct chip *chip, unsigned level)
{
    uint8_t bit = (uint8_t)(1 << level);
    chip->latched &= (uint8_t)~bit;
    chip->output = false;
    if (!(chip->icw4 & ICW4_AUTO_EOI))
        chip->isr |= bit;
    else if (chip->rotate_auto)
        chip->lowest = (uint8_t)level;
}

static uint8_t i8259_acknowledge(struct device *dev)
{
    struct i8259 *pic = (struct i8259 *)dev;
    struct chip *master = &pic->regs.chips[MASTER], *slave = &pic->regs.chips[SLAVE];
    unsigned level = pending(master, true);
    unsigned vector = master->icw2 | (level == NONE ? SPURIOUS : level);
    if (level != NONE)
        take(master, level);
    bool cascaded = !(master->icw1 & ICW1_SINGLE) && master->icw3 & CASCADE_BIT;
    if (level == CASCADE && cascaded) {
        unsigned below = pending(slave, false);
        /* A slave that does not know its number stays silent, and the bus floats. */
        if ((slave->icw3 & 7) != CASCADE || slave->stage != READY)
            vector = 0xff;
        else
            vector = slave->icw2 | (below == NONE ? SPURIOUS : below);
        if (below != NONE && vector != 0xff)
            take(slave, below);
    }
    update(pic);
    return (uint8_t)vector;
}

/* --- registers ------------------------------------------------------------------------------ */

static void write_icw1(struct chip *chip, uint8_t value)
{
    chip->icw1 = value;
    chip->stage = WAIT_ICW2;
    chip->latched = 0; /* a request needs a new edge */
    chip->imr = 0;
    chip->isr = 0;
    chip->lowest = 7;
    chip->special_mask = chip->rotate_auto = chip->read_isr = chip->poll = false;
    if (!(value & ICW1_IC4))
        chip->icw4 = 0;
}

static void write_ocw2(struct chip *chip, uint8_t value)
{
    unsigned level = value & OCW2_LEVEL;
    if (!(value & OCW2_EOI)) {
        if (value & OCW2_SPECIFIC && value & OCW2_ROTATE)
            chip->lowest = (uint8_t)level; /* set priority */
        else if (!(value & OCW2_SPECIFIC))
            chip->rotate_auto = value & OCW2_ROTATE;
        return;
    }
    if (!(value & OCW2_SPECIFIC)) {
        /* In special mask mode a masked level stays in service. */
        level = highest(chip, chip->special_mask ? chip->isr & (uint8_t)~chip->imr : chip->isr);
        if (level == NONE)
            return;
    }
    chip->isr &= (uint8_t) ~(1 << level);
    if (value & OCW2_ROTATE)
        chip->lowest = (uint8_t)level;
}

static void write_ocw3(struct chip *chip, uint8_t value)
{
    if (value & OCW3_ESMM)
        chip->special_mask = value & OCW3_SMM;
    if (value & OCW3_POLL)
        chip->poll = true;
    else if (value & OCW3_RR)
        chip->read_isr = value & OCW3_RIS;
}

static void write_data(struct chip *chip, uint8_t value)
{
    switch (chip->stage) {
    case WAIT_ICW2:
        chip->icw2 = value & ICW2_BASE;
        if (!(chip->icw1 & ICW1_SINGLE))
            chip->stage = WAIT_ICW3;
        else
            chip->stage = chip->icw1 & ICW1_IC4 ? WAIT_ICW4 : READY;
        break;
    case WAIT_ICW3:
        chip->icw3 = value;
        chip->stage = chip->icw1 & ICW1_IC4 ? WAIT_ICW4 : READY;
        break;
    case WAIT_ICW4:
        chip->icw4 = value & ICW4_MASK;
        chip->stage = READY;
        break;
    default:
        chip->imr = value;
    }
}

static void write_chip(struct device *dev, unsigned number, uint64_t offset, uint8_t value)
{
    struct i8259 *pic = (struct i8259 *)dev;
    struct chip *chip = &pic->regs.chips[number];
    if (offset)
        write_data(chip, value);
    else if (value & ICW1)
        write_icw1(chip, value);
    else if (value & OCW3)
        write_ocw3(chip, value);
    else
        write_ocw2(chip, value);
    update(pic);
}

/* The poll word; the read is an acknowledge cycle of this chip alone. */
static uint8_t poll(struct i8259 *pic, unsigned number)
{
    struct chip *chip = &pic->regs.chips[number];
    unsigned level = pending(chip, number == MASTER);
    chip->poll = false;
    if (level == NONE)
        return 0;
    take(chip, level);
    update(pic);
    return (uint8_t)(POLL_PENDING | level);
}

static uint8_t read_chip(struct device *dev, unsigned number, uint64_t offset)
{
    struct i8259 *pic = (struct i8259 *)dev;
    const struct chip *chip = &pic->regs.chips[number];
    if (chip->poll)
        return poll(pic, number);
    if (offset)
        return chip->imr;
    return chip->read_isr ? chip->isr : requests(chip);
}

static uint64_t master_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)width;
    return read_chip(dev, MASTER, offset);
}
static void master_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    (void)width;
    write_chip(dev, MASTER, offset, (uint8_t)value);
}
static uint64_t slave_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)width;
    return read_chip(dev, SLAVE, offset);
}
static void slave_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    (void)width;
    write_chip(dev, SLAVE, offset, (uint8_t)value);
}

static uint64_t elcr_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)width;
    return ((struct i8259 *)dev)->regs.chips[offset & 1].elcr;
}

static void elcr_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct i8259 *pic = (struct i8259 *)dev;
    struct chip *chip = &pic->regs.chips[offset & 1];
    (void)width;
    chip->elcr = (uint8_t)(value & elcr_mask[offset & 1]);
    chip->latched &= (uint8_t)~chip->elcr;
    update(pic);
}

/* --- life ----------------------------------------------------------------------------------- */

/* After a reset every line is low: all devices are reset together. */
static void i8259_reset(struct device *dev)
{
    struct i8259 *pic = (struct i8259 *)dev;
    pic->regs = (struct i8259_regs){ 0 };
    for (unsigned i = 0; i < CHIPS; i++)
        pic->regs.chips[i].lowest = 7;
    update(pic);
}

static void i8259_loaded(struct device *dev)
{
    struct i8259 *pic = (struct i8259 *)dev;
    for (unsigned i = 0; i < CHIPS; i++)
        pic->regs.chips[i].elcr &= elcr_mask[i];
    update(pic);
}

const struct device_class i8259_class = {
    .name = "i8259",
    .help = "the two 8259 interrupt controllers",
    .size = sizeof(struct i8259),
    .regions =
        (const struct region[]){
            { REGION_PORTS, MASTER_PORT, 2, W8, master_read, master_write },
            { REGION_PORTS, SLAVE_PORT, 2, W8, slave_read, slave_write },
            { REGION_PORTS, ELCR_PORT, 2, W8, elcr_read, elcr_write },
            { .kind = REGION_END },
        },
    .plugs =
        (const struct plug[]){
            { "intr", PLUG_INPUT, offsetof(struct i8259, intr) },
            { .name = NULL },
        },
    .state = STATE(struct i8259, regs, 1, i8259_fields),
    .reset = i8259_reset,
    .loaded = i8259_loaded,
    .controller =
        &(const struct irq_controller){
            .input = i8259_input,
            .wanted = i8259_wanted,
            .acknowledge = i8259_acknowledge,
        },
};
