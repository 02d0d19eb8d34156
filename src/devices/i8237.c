/* The pair of DMA controllers of a PC: two Intel 8237A as the ICH9 has them (ICH9 datasheet 5.4 and
 * 13.2; 82C37A data sheet), with their page registers.
 *
 * Channels 0 to 3 move bytes within 64 KiB, 5 to 7 words within 128 KiB; channel 4 is where the
 * first controller's requests pass through the second. A device that requests service calls in with
 * its own lock held (bus/dma.h); register accesses come from vCPU threads. Nothing waits and no
 * time passes here: a request is served as far as it goes, or when the guest has unmasked its
 * channel. As in the ICH9 there are no transfers from memory to memory, no requests by software and
 * no choice of timing; priorities cannot be seen. */
#include "bus/device.h"

#include <string.h>

enum { PORT_FIRST = 0x00, PORT_PAGE = 0x80, PORT_SECOND = 0xc0 };
enum { CHANNELS = 8, PER_CONTROLLER = 4, PAGES = 16, CASCADE = 4 };

/* Registers of one controller behind its channels' (13.2, table 13-2); bytes apart in the first,
 * words apart in the second. */
enum {
    COMMAND_STATUS = 8,
    REQUEST = 9,
    SINGLE_MASK = 10,
    MODE = 11,
    CLEAR_POINTER = 12,
    MASTER_CLEAR = 13,
    CLEAR_MASK = 14,
    ALL_MASK = 15,
};
enum { COMMAND_DISABLE = 1 << 2 };
enum { CHANNEL_BITS = 3, MASK_SET = 1 << 2 };
/* Mode register (13.2.8). */
enum {
    MODE_WRITE = 1 << 2, /* to memory */
    MODE_READ = 2 << 2,
    MODE_TRANSFER = 3 << 2,
    MODE_AUTOINIT = 1 << 4,
    MODE_DECREMENT = 1 << 5,
    MODE_CASCADE = 3 << 6,
};

struct channel_regs {
    uint16_t base_address, base_count, address, count;
    uint8_t mode; /* without the channel's number */
    uint8_t pad;
};
struct controller_regs {
    uint8_t command;
    uint8_t mask;    /* a bit for each channel */
    uint8_t ended;   /* terminal counts, until the status is read */
    uint8_t request; /* DREQ is high and was not served */
    bool high;       /* the byte pointer: the next access is to the high byte */
};
struct i8237_regs {
    struct channel_regs channels[CHANNELS];
    struct controller_regs controllers[2];
    uint8_t pages[PAGES]; /* ports 0x80 to 0x8f */
};

struct i8237 {
    struct device dev;
    struct i8237_regs regs;
    struct timer *sleepers[CHANNELS]; /* of who requests */
};

/* 13.2.3: which page register belongs to a channel. The others only keep what is written. */
static const uint8_t page_of[CHANNELS] = { 7, 3, 1, 2, 15, 11, 9, 10 };

static const struct field channel_fields[] = {
    SAVED(struct channel_regs, base_address),
    SAVED(struct channel_regs, base_count),
    SAVED(struct channel_regs, address),
    SAVED(struct channel_regs, count),
    SAVED(struct channel_regs, mode),
    SAVED_PAD(struct channel_regs, pad),
    SAVED_END,
};
static const struct field controller_fields[] = {
    SAVED(struct controller_regs, command),        SAVED_MAX(struct controller_regs, mask, 0xf),
    SAVED_MAX(struct controller_regs, ended, 0xf), SAVED_MAX(struct controller_regs, request, 0xf),
    SAVED(struct controller_regs, high),           SAVED_END,
};
static const struct field i8237_fields[] = {
    SAVED_STRUCTS(struct i8237_regs, channels, channel_fields),
    SAVED_STRUCTS(struct i8237_regs, controllers, controller_fields),
    SAVED_ARRAY(struct i8237_regs, pages),
    SAVED_END,
};

/* --- transfers (5.4) -------------------------------------------------------------------------- */

/* Is a request on the channel granted? Those of the first controller pass through channel 4. */
static bool granted(const struct i8237 *d, unsigned channel)
{
    const struct controller_regs *own = &d->regs.controllers[channel / PER_CONTROLLER];
    const struct controller_regs *second = &d->regs.controllers[1];
    bool open = !(own->command & COMMAND_DISABLE) && !(own->mask >> channel % PER_CONTROLLER & 1);
    if (channel < CASCADE)
        open = open && !(second->command & COMMAND_DISABLE) && !(second->mask & 1);
    return open && (d->regs.channels[channel].mode & MODE_CASCADE) != MODE_CASCADE;
}

/* One piece, whose addresses go up without a wrap, or one unit. What is no memory takes nothing and
 * gives ones; a transfer that goes the other way than the device's only counts, as a verification
 * does. */
static void move_piece(struct i8237 *d, uint64_t at, enum dma_direction direction,
                       const struct channel_regs *c, uint8_t *data, size_t length)
{
    struct guest *guest = d->dev.board->guest;
    unsigned transfer = c->mode & MODE_TRANSFER;
    if (direction == DMA_TO_MEMORY && transfer == MODE_WRITE)
        guest_write(guest, GPA(at), data, length);
    else if (direction == DMA_TO_DEVICE &&
             (transfer != MODE_READ || !guest_read(guest, GPA(at), data, length)))
        memset(data, 0xff, length);
}

/* The count has passed 0 (5.4.2). */
static void end_of_count(struct i8237 *d, unsigned channel)
{
    struct channel_regs *c = &d->regs.channels[channel];
    struct controller_regs *own = &d->regs.controllers[channel / PER_CONTROLLER];
    own->ended |= (uint8_t)(1 << channel % PER_CONTROLLER);
    if (c->mode & MODE_AUTOINIT) {
        c->address = c->base_address;
        c->count = c->base_count;
    } else {
        own->mask |= (uint8_t)(1 << channel % PER_CONTROLLER);
    }
}

/* At most as many units as are left of the count and, going up, of the page. */
static size_t move_some(struct i8237 *d, unsigned channel, enum dma_direction direction,
                        uint8_t *data, size_t units, bool *end)
{
    struct channel_regs *c = &d->regs.channels[channel];
    bool wide = channel >= CASCADE, down = c->mode & MODE_DECREMENT;
    uint8_t page = d->regs.pages[page_of[channel]];
    uint64_t at = wide ? (uint64_t)(page & 0xfe) << 16 | (uint64_t)c->address << 1
                       : (uint64_t)page << 16 | c->address;
    units = MIN(units, (size_t)c->count + 1);
    units = down ? 1 : MIN(units, (size_t)UINT16_MAX + 1 - c->address);
    move_piece(d, at, direction, c, data, units << wide);
    *end = units == (size_t)c->count + 1;
    c->address = (uint16_t)(down ? c->address - 1u : c->address + units);
    c->count = (uint16_t)(c->count - units);
    if (*end)
        end_of_count(d, channel);
    return units;
}

static size_t i8237_move(struct device *dev, unsigned channel, enum dma_direction direction,
                         uint8_t *data, size_t length, bool *end, struct timer *sleeper)
{
    struct i8237 *d = (struct i8237 *)dev;
    channel %= CHANNELS;
    bool wide = channel >= CASCADE;
    struct controller_regs *own = &d->regs.controllers[channel / PER_CONTROLLER];
    uint8_t bit = (uint8_t)(1 << channel % PER_CONTROLLER);
    size_t units = length >> wide, done = 0;
    own->request &= (uint8_t)~bit;
    d->sleepers[channel] = NULL;
    *end = false;
    if (!units)
        return 0;
    if (channel == CASCADE || !granted(d, channel)) {
        own->request |= bit;
        d->sleepers[channel] = sleeper;
        return 0;
    }
    while (done < units && !*end) /* each turn moves something */
        done += move_some(d, channel, direction, data + (done << wide), units - done, end);
    return done << wide;
}

/* Whoever waits may try again. */
static void wake(struct i8237 *d)
{
    for (unsigned i = 0; i < CHANNELS; i++)
        if (d->sleepers[i] && granted(d, i))
            timer_poke(d->sleepers[i]);
}

/* --- ports ------------------------------------------------------------------------------------ */

static void master_clear(struct controller_regs *c)
{
    *c = (struct controller_regs){ .mask = 0xf, .request = c->request };
}

static uint8_t get_half(struct controller_regs *c, uint16_t value)
{
    c->high = !c->high;
    return (uint8_t)(c->high ? value : value >> 8);
}

static uint16_t put_half(struct controller_regs *c, uint16_t old, uint8_t value)
{
    c->high = !c->high;
    return (uint16_t)(c->high ? (old & 0xff00) | value : (old & 0x00ff) | value << 8);
}

static uint8_t read_register(struct i8237 *d, unsigned which, unsigned number)
{
    struct controller_regs *c = &d->regs.controllers[which];
    const struct channel_regs *channel =
        &d->regs.channels[which * PER_CONTROLLER + (number >> 1 & CHANNEL_BITS)];
    if (number < COMMAND_STATUS)
        return get_half(c, number & 1 ? channel->count : channel->address);
    if (number == COMMAND_STATUS) {
        uint8_t status = (uint8_t)(c->request << 4 | c->ended);
        c->ended = 0;
        return status;
    }
    return number == ALL_MASK ? 0xf0 | c->mask : 0;
}

static void write_channel(struct i8237 *d, unsigned which, unsigned number, uint8_t value)
{
    struct controller_regs *c = &d->regs.controllers[which];
    struct channel_regs *channel =
        &d->regs.channels[which * PER_CONTROLLER + (number >> 1 & CHANNEL_BITS)];
    uint16_t *base = number & 1 ? &channel->base_count : &channel->base_address;
    uint16_t *current = number & 1 ? &channel->count : &channel->address;
    *base = *current = put_half(c, *base, value);
}

static void write_register(struct i8237 *d, unsigned which, unsigned number, uint8_t value)
{
    struct controller_regs *c = &d->regs.controllers[which];
    uint8_t bit = (uint8_t)(1 << (value & CHANNEL_BITS));
    switch (number) {
    case COMMAND_STATUS:
        c->command = value;
        break;
    case REQUEST: /* not in the ICH9 */
        return;
    case SINGLE_MASK:
        c->mask = value & MASK_SET ? c->mask | bit : c->mask & (uint8_t)~bit;
        break;
    case MODE:
        d->regs.channels[which * PER_CONTROLLER + (value & CHANNEL_BITS)].mode =
            value & (uint8_t)~CHANNEL_BITS;
        break;
    case CLEAR_POINTER:
        c->high = false;
        return;
    case MASTER_CLEAR:
        master_clear(c);
        return;
    case CLEAR_MASK:
        c->mask = 0;
        break;
    case ALL_MASK:
        c->mask = value & 0xf;
        break;
    default:
        write_channel(d, which, number, value);
        return;
    }
    wake(d);
}

static uint64_t first_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)width;
    return read_register((struct i8237 *)dev, 0, (unsigned)offset);
}

static void first_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    (void)width;
    write_register((struct i8237 *)dev, 0, (unsigned)offset, (uint8_t)value);
}

/* Both ports of a pair lead to the same register. */
static uint64_t second_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)width;
    return read_register((struct i8237 *)dev, 1, (unsigned)offset >> 1);
}

static void second_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    (void)width;
    write_register((struct i8237 *)dev, 1, (unsigned)offset >> 1, (uint8_t)value);
}

static uint64_t page_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)width;
    return ((struct i8237 *)dev)->regs.pages[offset & (PAGES - 1)];
}

static void page_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    (void)width;
    ((struct i8237 *)dev)->regs.pages[offset & (PAGES - 1)] = (uint8_t)value;
}

/* --- life ------------------------------------------------------------------------------------- */

static void i8237_reset(struct device *dev)
{
    struct i8237 *d = (struct i8237 *)dev;
    d->regs = (struct i8237_regs){ .controllers = { { .mask = 0xf }, { .mask = 0xf } } };
    memset(d->sleepers, 0, sizeof d->sleepers);
}

/* Whoever requests will do so again. */
static void i8237_loaded(struct device *dev)
{
    struct i8237 *d = (struct i8237 *)dev;
    memset(d->sleepers, 0, sizeof d->sleepers);
    for (unsigned i = 0; i < CHANNELS; i++)
        d->regs.channels[i].mode &= (uint8_t)~CHANNEL_BITS;
}

const struct device_class i8237_class = {
    .name = "i8237",
    .help = "the pair of ISA DMA controllers",
    .size = sizeof(struct i8237),
    .regions =
        (const struct region[]){
            { REGION_PORTS, PORT_FIRST, 16, W8, first_read, first_write },
            { REGION_PORTS, PORT_PAGE, PAGES, W8, page_read, page_write },
            { REGION_PORTS, PORT_SECOND, 32, W8, second_read, second_write },
            { .kind = REGION_END },
        },
    .state = STATE(struct i8237, regs, 1, i8237_fields),
    .dma = &(const struct dma_controller){ i8237_move },
    .reset = i8237_reset,
    .loaded = i8237_loaded,
};
