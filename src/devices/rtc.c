/* Real-time clock and CMOS RAM (Motorola MC146818A datasheet; the second bank at ports 0x72 and
 * 0x73: ICH9 datasheet 13.6).
 *
 * Nothing ticks. The time bytes hold the time of the second that began at `second_at`; each access
 * first moves them on by the seconds that have passed. So they are plain bytes, as in the chip, for
 * a guest that sets them one by one, and while SET or the divider stops the clock. The flags of
 * register C are made up in the same way, and the timer is armed only for an interrupt that is
 * enabled and not flagged yet: no periodic ticks come before the guest has read register C.
 *
 * A battery keeps the time and the RAM: they come from the host when the machine is made, and stay
 * over a reset. The sizes of the memory and the
 * equipment are written at each reset, as firmware would. */
#include "bus/device.h"

enum { PORT = 0x70, BANK_SIZE = 128, NMI_OFF = 0x80 };

/* The address map (figure 11), and bytes of PC firmware. */
enum {
    SECONDS = 0x00,
    SECONDS_ALARM = 0x01,
    MINUTES = 0x02,
    MINUTES_ALARM = 0x03,
    HOURS = 0x04,
    HOURS_ALARM = 0x05,
    WEEKDAY = 0x06, /* 1: Sunday */
    DAY = 0x07,
    MONTH = 0x08,
    YEAR = 0x09,
    A = 0x0a,
    B = 0x0b,
    C = 0x0c,
    D = 0x0d,
    FLOPPIES = 0x10, /* kinds of the first (high) and second drive */
    EQUIPMENT = 0x14,
    BASE_MEMORY = 0x15,     /* KiB below 640 KiB */
    EXTENDED_MEMORY = 0x17, /* KiB above 1 MiB, also at 0x30 */
    SUM_FIRST = 0x10,
    SUM_LAST = 0x2d,
    SUM = 0x2e, /* high byte first */
    EXTENDED_MEMORY_2 = 0x30,
    CENTURY = 0x32,
    MEMORY_16M = 0x34, /* 64 KiB units above 16 MiB */
    MEMORY_4G = 0x5b,  /* 64 KiB units above 4 GiB, three bytes */
};

enum { A_UIP = 0x80, A_DIVIDER = 0x70, A_RUNS = 0x20, A_RATE = 0x0f, A_INITIAL = 0x26 };
enum { B_SET = 0x80, B_ENABLES = 0x70, B_UIE = 0x10, B_SQWE = 0x08, B_BINARY = 0x04, B_24H = 0x02 };
enum { C_IRQF = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10 }; /* B enables them by the same bits */
enum { D_VALID = 0x80 };

enum { PM = 0x80, ALARM_ANY = 0xc0 };
enum { HZ = 32768, UIP_NS = 244000, DAY_SECONDS = 86400 };
#define NEVER UINT64_MAX

struct rtc_regs {
    uint64_t seen;     /* guest time up to which register C is right */
    int64_t second_at; /* guest time at which the second of the time bytes began */
    uint8_t ram[BANK_SIZE];
    uint8_t extended[BANK_SIZE];
    uint8_t index, extended_index;
    bool nmi_off; /* bit 7 of port 0x70; nothing here raises an NMI */
    uint8_t pad[5];
};

struct rtc {
    struct device dev;
    struct irq *irq;
    uint64_t floppies; /* byte 0x10 */
    struct timer timer;
    struct rtc_regs regs;
};

static const struct field rtc_fields[] = {
    SAVED(struct rtc_regs, seen),
    SAVED(struct rtc_regs, second_at),
    SAVED_ARRAY(struct rtc_regs, ram),
    SAVED_ARRAY(struct rtc_regs, extended),
    SAVED_MAX(struct rtc_regs, index, BANK_SIZE - 1),
    SAVED_MAX(struct rtc_regs, extended_index, BANK_SIZE - 1),
    SAVED(struct rtc_regs, nmi_off),
    SAVED_PAD(struct rtc_regs, pad),
    SAVED_END,
};

/* --- the time bytes ------------------------------------------------------------------------- */

static unsigned from_byte(const struct rtc *rtc, uint8_t byte)
{
    return rtc->regs.ram[B] & B_BINARY ? byte : (byte >> 4) * 10u + (byte & 15u);
}

static uint8_t to_byte(const struct rtc *rtc, unsigned value)
{
    return (uint8_t)(rtc->regs.ram[B] & B_BINARY ? value : value / 10 % 10 << 4 | value % 10);
}

static unsigned from_hour(const struct rtc *rtc, uint8_t byte)
{
    if (rtc->regs.ram[B] & B_24H)
        return from_byte(rtc, byte);
    unsigned hour = from_byte(rtc, byte & (uint8_t)~PM);
    if (hour < 1 || hour > 12)
        return hour + 24; /* no hour */
    return hour % 12 + (byte & PM ? 12 : 0);
}

static uint8_t to_hour(const struct rtc *rtc, unsigned hour)
{
    if (rtc->regs.ram[B] & B_24H)
        return to_byte(rtc, hour);
    return to_byte(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? PM : 0);
}

/* Days from 1 January of the year 0 (Gregorian) to the first day of a year. */
static uint64_t days_before_year(uint64_t year)
{
    return year * 365 + (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
}

static bool is_leap(uint64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static unsigned month_days(uint64_t year, unsigned month)
{
    static const uint8_t days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    return days[month - 1] + (month == 2 && is_leap(year) ? 1u : 0u);
}

static unsigned second_of_day(const struct rtc *rtc)
{
    const uint8_t *ram = rtc->regs.ram;
    return from_hour(rtc, ram[HOURS]) % 24 * 3600 + from_byte(rtc, ram[MINUTES]) % 60 * 60 +
           from_byte(rtc, ram[SECONDS]) % 60;
}

/* The day that the bytes stand for; what is no date is taken for one nearby. */
static uint64_t day_number(const struct rtc *rtc)
{
    const uint8_t *ram = rtc->regs.ram;
    uint64_t year = from_byte(rtc, ram[CENTURY]) * 100u + from_byte(rtc, ram[YEAR]);
    unsigned months = CLAMP(from_byte(rtc, ram[MONTH]), 1, 12);
    uint64_t days = days_before_year(year);
    for (unsigned month = 1; month < months; month++)
        days += month_days(year, month);
    return days + CLAMP(from_byte(rtc, ram[DAY]), 1, 31) - 1;
}

static void put_time(struct rtc *rtc, uint64_t day, unsigned second)
{
    uint8_t *ram = rtc->regs.ram;
    uint64_t year = day * 400 / 146097 + 1; /* at most two too many */
    while (days_before_year(year) > day)
        year--;
    unsigned left = (unsigned)(day - days_before_year(year)), month = 1;
    for (; left >= month_days(year, month); month++)
        left -= month_days(year, month);
    ram[SECONDS] = to_byte(rtc, second % 60);
    ram[MINUTES] = to_byte(rtc, second / 60 % 60);
    ram[HOURS] = to_hour(rtc, second / 3600);
    ram[DAY] = to_byte(rtc, left + 1);
    ram[MONTH] = to_byte(rtc, month);
    ram[YEAR] = to_byte(rtc, (unsigned)(year % 100));
    ram[CENTURY] = to_byte(rtc, (unsigned)(year / 100));
}

/* Moves the bytes on. The weekday counts for itself: nothing says that it fits the date. */
static void add_seconds(struct rtc *rtc, uint64_t seconds)
{
    uint64_t second = second_of_day(rtc) + seconds, days = second / DAY_SECONDS;
    uint8_t *weekday = &rtc->regs.ram[WEEKDAY];
    put_time(rtc, day_number(rtc) + days, (unsigned)(second % DAY_SECONDS));
    *weekday = to_byte(rtc, (unsigned)((from_byte(rtc, *weekday) + 6 + days) % 7 + 1));
}

/* Seconds from the time bytes to the next one that matches the alarm: 1 to 86400, or NEVER. */
static uint64_t alarm_in(const struct rtc *rtc)
{
    const uint8_t *ram = rtc->regs.ram;
    bool any_second = ram[SECONDS_ALARM] >= ALARM_ANY, any_minute = ram[MINUTES_ALARM] >= ALARM_ANY;
    bool any_hour = ram[HOURS_ALARM] >= ALARM_ANY;
    unsigned second = from_byte(rtc, ram[SECONDS_ALARM]), hour = from_hour(rtc, ram[HOURS_ALARM]);
    unsigned minute = from_byte(rtc, ram[MINUTES_ALARM]), now = second_of_day(rtc), step;
    if ((!any_second && second > 59) || (!any_minute && minute > 59) || (!any_hour && hour > 23))
        return NEVER;
    /* At most 24 wrong hours, 60 wrong minutes and 60 wrong seconds are skipped, twice. */
    for (unsigned in = 1; in <= DAY_SECONDS; in += step) {
        unsigned at = (now + in) % DAY_SECONDS;
        if (!any_hour && at / 3600 != hour)
            step = 3600 - at % 3600;
        else if (!any_minute && at / 60 % 60 != minute)
            step = 60 - at % 60;
        else if (!any_second && at % 60 != second)
            step = 1;
        else
            return in;
    }
    return NEVER;
}

/* --- the course of time --------------------------------------------------------------------- */

static bool divider_runs(const struct rtc *rtc)
{
    return (rtc->regs.ram[A] & A_DIVIDER) == A_RUNS;
}

static bool clock_runs(const struct rtc *rtc)
{
    return divider_runs(rtc) && !(rtc->regs.ram[B] & B_SET);
}

/* Time since the second of the time bytes began (while SET: since some second began). */
static uint64_t since(const struct rtc *rtc, uint64_t at)
{
    return at - (uint64_t)rtc->regs.second_at;
}

/* The period of PF in units of 1/32768 s (table 5); 0 for none. */
static uint64_t period(const struct rtc *rtc)
{
    unsigned rate = rtc->regs.ram[A] & A_RATE;
    if (!rate || !divider_runs(rtc))
        return 0;
    return rate < 3 ? 64u << rate : 1u << (rate - 1);
}

static uint64_t next_period(const struct rtc *rtc, uint64_t now)
{
    uint64_t every = period(rtc);
    uint64_t tick = (muldiv64(since(rtc, now), HZ, NS_PER_SECOND) / every + 1) * every;
    return (uint64_t)rtc->regs.second_at + (tick * NS_PER_SECOND + HZ - 1) / HZ;
}

/* Brings the time bytes and the flags up to now. */
static void catch_up(struct rtc *rtc)
{
    struct rtc_regs *regs = &rtc->regs;
    uint64_t now = device_now(&rtc->dev);
    if (period(rtc) && next_period(rtc, regs->seen) <= now)
        regs->ram[C] |= C_PF;
    regs->seen = now;
    uint64_t seconds = divider_runs(rtc) ? since(rtc, now) / NS_PER_SECOND : 0;
    regs->second_at = (int64_t)((uint64_t)regs->second_at + seconds * NS_PER_SECOND);
    if (!seconds || !clock_runs(rtc))
        return;
    regs->ram[C] |= alarm_in(rtc) <= seconds ? C_UF | C_AF : C_UF;
    add_seconds(rtc, seconds);
}

/* After catch_up and any change: the line, and the timer for what can change it. */
static void update(struct rtc *rtc)
{
    const uint8_t *ram = rtc->regs.ram;
    uint64_t deadline = TIMER_NEVER, second_at = (uint64_t)rtc->regs.second_at;
    uint8_t missing = ram[B] & (uint8_t)~ram[C];
    if (missing & C_PF && period(rtc))
        deadline = next_period(rtc, rtc->regs.seen);
    if (missing & C_UF && clock_runs(rtc))
        deadline = MIN(deadline, second_at + NS_PER_SECOND);
    if (missing & C_AF && clock_runs(rtc)) {
        uint64_t seconds = alarm_in(rtc);
        if (seconds != NEVER)
            deadline = MIN(deadline, second_at + seconds * NS_PER_SECOND);
    }
    timer_set(&rtc->timer, deadline);
    irq_set(rtc->irq, ram[B] & ram[C] & B_ENABLES);
}

static void run_timer(void *owner)
{
    catch_up(owner);
    update(owner);
}

/* --- ports ---------------------------------------------------------------------------------- */

static uint8_t read_a(const struct rtc *rtc)
{
    bool soon = since(rtc, rtc->regs.seen) >= NS_PER_SECOND - UIP_NS;
    return rtc->regs.ram[A] | (clock_runs(rtc) && soon ? A_UIP : 0);
}

static uint8_t read_c(struct rtc *rtc)
{
    uint8_t *ram = rtc->regs.ram, flags = ram[C];
    if (flags & ram[B] & B_ENABLES)
        flags |= C_IRQF;
    ram[C] = 0;
    return flags;
}

static uint8_t read_ram(struct rtc *rtc)
{
    unsigned index = rtc->regs.index & (BANK_SIZE - 1);
    if (index > D && index != CENTURY)
        return rtc->regs.ram[index];
    catch_up(rtc);
    uint8_t value = rtc->regs.ram[index];
    if (index == A)
        value = read_a(rtc);
    else if (index == C)
        value = read_c(rtc);
    else if (index == D)
        value = D_VALID;
    update(rtc); /* a flag may have come before its timer */
    return value;
}

static void write_a(struct rtc *rtc, uint8_t value)
{
    bool ran = divider_runs(rtc);
    rtc->regs.ram[A] = value & (uint8_t)~A_UIP;
    /* When the divider is let go, the first update comes half a second later. */
    if (!ran && divider_runs(rtc))
        rtc->regs.second_at = (int64_t)(rtc->regs.seen - NS_PER_SECOND / 2);
}

static void write_ram(struct rtc *rtc, uint8_t value)
{
    unsigned index = rtc->regs.index & (BANK_SIZE - 1);
    if (index > D && index != CENTURY) {
        rtc->regs.ram[index] = value;
        return;
    }
    catch_up(rtc);
    if (index == A)
        write_a(rtc, value);
    else if (index == B)
        rtc->regs.ram[B] = value & B_SET ? value & (uint8_t)~B_UIE : value;
    else if (index != C && index != D)
        rtc->regs.ram[index] = value;
    update(rtc);
}

static uint64_t rtc_read(struct device *dev, uint64_t offset, unsigned width)
{
    struct rtc *rtc = (struct rtc *)dev;
    (void)width;
    switch (offset) {
    case 1:
        return read_ram(rtc);
    case 2:
        return rtc->regs.extended_index;
    case 3:
        return rtc->regs.extended[rtc->regs.extended_index & (BANK_SIZE - 1)];
    default:
        return 0xff; /* the index, with the NMI bit, cannot be read */
    }
}

static void rtc_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct rtc *rtc = (struct rtc *)dev;
    uint8_t byte = (uint8_t)value;
    (void)width;
    switch (offset) {
    case 0:
        rtc->regs.index = byte & (BANK_SIZE - 1);
        rtc->regs.nmi_off = byte & NMI_OFF;
        break;
    case 1:
        write_ram(rtc, byte);
        break;
    case 2:
        rtc->regs.extended_index = byte & (BANK_SIZE - 1);
        break;
    default:
        rtc->regs.extended[rtc->regs.extended_index & (BANK_SIZE - 1)] = byte;
    }
}

/* --- life ----------------------------------------------------------------------------------- */

static void put_number(struct rtc *rtc, unsigned at, uint64_t value, unsigned bytes)
{
    value = MIN(value, (UINT64_C(1) << 8 * bytes) - 1);
    for (unsigned i = 0; i < bytes; i++)
        rtc->regs.ram[at + i] = (uint8_t)(value >> 8 * i);
}

/* As INT 11h knows it: bit 0 says that there are floppy drives, bits 7:6 one less than how many. */
static void put_equipment(struct rtc *rtc)
{
    enum { FLOPPY = 1 << 0, COPROCESSOR = 1 << 1, MOUSE = 1 << 2, SECOND = 1 << 6 };
    unsigned first = (unsigned)rtc->floppies & 0xf0, second = (unsigned)rtc->floppies & 0x0f;
    rtc->regs.ram[FLOPPIES] = (uint8_t)rtc->floppies;
    rtc->regs.ram[EQUIPMENT] = (uint8_t)(COPROCESSOR | MOUSE | (first || second ? FLOPPY : 0) |
                                         (first && second ? SECOND : 0));
}

static void put_memory(struct rtc *rtc)
{
    const struct guest *guest = rtc->dev.board->guest;
    uint64_t low = guest_low_ram(guest), high = guest_high_ram(guest);
    uint64_t extended = low > MIB ? (low - MIB) / KIB : 0;
    unsigned sum = 0;
    put_number(rtc, BASE_MEMORY, LEGACY_BASE / KIB, 2);
    put_number(rtc, EXTENDED_MEMORY, extended, 2);
    put_number(rtc, EXTENDED_MEMORY_2, extended, 2);
    put_number(rtc, MEMORY_16M, low > 16 * MIB ? (low - 16 * MIB) / (64 * KIB) : 0, 2);
    put_number(rtc, MEMORY_4G, high / (64 * KIB), 3);
    for (unsigned i = SUM_FIRST; i <= SUM_LAST; i++)
        sum += rtc->regs.ram[i];
    rtc->regs.ram[SUM] = (uint8_t)(sum >> 8);
    rtc->regs.ram[SUM + 1] = (uint8_t)sum;
}

static bool rtc_init(struct device *dev, GError **error)
{
    struct rtc *rtc = (struct rtc *)dev;
    uint64_t now = dev->board->ops->host_time(dev->board->opaque), day = now / DAY_SECONDS;
    (void)error;
    timer_init(&rtc->timer, dev->board->clock, &dev->lock, run_timer, rtc);
    rtc->regs.ram[A] = A_INITIAL;
    rtc->regs.ram[B] = B_24H;
    rtc->regs.second_at = (int64_t)device_now(dev);
    put_time(rtc, day + days_before_year(1970), (unsigned)(now % DAY_SECONDS));
    rtc->regs.ram[WEEKDAY] = to_byte(rtc, (unsigned)((day + 4) % 7 + 1)); /* it was a Thursday */
    return true;
}

/* The RESET pin: no interrupts, no flags. */
static void rtc_reset(struct device *dev)
{
    struct rtc *rtc = (struct rtc *)dev;
    catch_up(rtc);
    rtc->regs.ram[B] &= (uint8_t) ~(B_ENABLES | B_SQWE);
    rtc->regs.ram[C] = 0;
    rtc->regs.index = 0;
    rtc->regs.extended_index = 0;
    rtc->regs.nmi_off = false;
    put_equipment(rtc);
    put_memory(rtc);
    update(rtc);
}

static void rtc_loaded(struct device *dev)
{
    struct rtc *rtc = (struct rtc *)dev;
    uint64_t now = device_now(dev);
    rtc->regs.seen = MIN(rtc->regs.seen, now);
    rtc->regs.ram[A] &= (uint8_t)~A_UIP;
    rtc->regs.ram[C] &= B_ENABLES;
    /* Not before the machine was made, but for the half second of write_a. */
    if (rtc->regs.second_at < -(int64_t)NS_PER_SECOND ||
        rtc->regs.second_at > (int64_t)rtc->regs.seen)
        rtc->regs.second_at = (int64_t)rtc->regs.seen;
    update(rtc);
}

static void rtc_finish(struct device *dev)
{
    timer_finish(&((struct rtc *)dev)->timer);
}

const struct device_class rtc_class = {
    .name = "rtc",
    .help = "the real-time clock and CMOS RAM",
    .size = sizeof(struct rtc),
    .regions =
        (const struct region[]){
            { REGION_PORTS, PORT, 4, W8, rtc_read, rtc_write },
            { .kind = REGION_END },
        },
    .options =
        (const struct option[]){
            { "floppies", "the kinds of the floppy drives, as in byte 0x10", OPTION_UINT,
              offsetof(struct rtc, floppies), "0", 0, UINT8_MAX },
            { .name = NULL },
        },
    .plugs =
        (const struct plug[]){
            { "irq", PLUG_IRQ, offsetof(struct rtc, irq) },
            { .name = NULL },
        },
    .state = STATE(struct rtc, regs, 1, rtc_fields),
    .flags = CLASS_KEEPS_STATE, /* the battery */
    .init = rtc_init,
    .reset = rtc_reset,
    .loaded = rtc_loaded,
    .finish = rtc_finish,
};
