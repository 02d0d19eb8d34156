/* The real-time clock: the calendar, formats, setting it, flags and interrupts, CMOS RAM. */
#include "rig/rig.h"

enum { PORT = 0x70, A = 10, B = 11, C = 12, D = 13, CENTURY = 0x32 };
enum { SET = 0x80, PIE = 0x40, AIE = 0x20, UIE = 0x10, BINARY = 4, H24 = 2 };

struct fixture {
    struct rig *rig;
};

static void set_up(struct fixture *f, const void *unused)
{
    (void)unused;
    f->rig = rig_new(device_class_find("rtc"), NULL);
}

static void tear_down(struct fixture *f, const void *unused)
{
    (void)unused;
    g_assert_true(rig_round_trip(f->rig));
    rig_free(f->rig);
}

static unsigned get(struct rig *rig, unsigned index)
{
    rig_out(rig, PORT, 1, index);
    return rig_in(rig, PORT + 1, 1);
}

static void put(struct rig *rig, unsigned index, unsigned value)
{
    rig_out(rig, PORT, 1, index);
    rig_out(rig, PORT + 1, 1, value);
}

static void pass(struct rig *rig, uint64_t us)
{
    clock_advance(rig->board.clock, us * 1000, 0);
}

#define SECOND UINT64_C(1000000) /* in us */

/* century year month day weekday hours minutes seconds */
static void shows(struct rig *rig, const char *expected)
{
    g_autofree char *text = g_strdup_printf(
        "%02x%02x-%02x-%02x %02x %02x:%02x:%02x", get(rig, CENTURY), get(rig, 9), get(rig, 8),
        get(rig, 7), get(rig, 6), get(rig, 4), get(rig, 2), get(rig, 0));
    g_assert_cmpstr(text, ==, expected);
}

static void set_time(struct rig *rig, const uint8_t bytes[8])
{
    static const uint8_t places[] = { CENTURY, 9, 8, 7, 6, 4, 2, 0 };
    for (unsigned i = 0; i < 8; i++)
        put(rig, places[i], bytes[i]);
}

static bool line(struct rig *rig)
{
    return rig_line(rig, "irq")->level;
}

static void host_time(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    shows(rig, "2001-09-09 01 01:46:40");
    pass(rig, 80 * SECOND - 1);
    shows(rig, "2001-09-09 01 01:47:59");
    pass(rig, 1);
    shows(rig, "2001-09-09 01 01:48:00");
    pass(rig, 86400 * 365 * SECOND);
    shows(rig, "2002-09-09 02 01:48:00");
    g_assert_cmphex(get(rig, A), ==, 0x26);
    g_assert_cmphex(get(rig, B), ==, H24);
    g_assert_cmphex(get(rig, D), ==, 0x80);
}

/* Every day of 400 years, against GLib's calendar. */
static void calendar(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    GDate date;
    (void)unused;
    set_time(rig, (const uint8_t[]){ 0x19, 0x99, 0x12, 0x31, 6, 0, 0, 0 });
    g_date_clear(&date, 1);
    g_date_set_dmy(&date, 31, 12, 1999);
    for (unsigned i = 0; i < 146097; i += 1 + i % 3) {
        g_autofree char *expected = g_strdup_printf(
            "%04u-%02u-%02u %02u 00:00:00", g_date_get_year(&date), g_date_get_month(&date),
            g_date_get_day(&date), g_date_get_weekday(&date) % 7 + 1);
        shows(rig, expected);
        pass(rig, 86400 * SECOND * (1 + i % 3));
        g_date_add_days(&date, 1 + i % 3);
    }
}

static void formats(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    put(rig, B, SET | H24 | BINARY);
    set_time(rig, (const uint8_t[]){ 20, 24, 2, 28, 4, 23, 59, 58 });
    put(rig, B, H24 | BINARY);
    pass(rig, 2 * SECOND);
    shows(rig, "1418-02-1d 05 00:00:00");
    put(rig, B, SET); /* BCD, 12 hours */
    set_time(rig, (const uint8_t[]){ 0x20, 0x23, 2, 0x28, 7, 0x11, 0x59, 0x59 });
    put(rig, B, 0);
    pass(rig, SECOND);
    shows(rig, "2023-02-28 07 92:00:00"); /* noon */
    pass(rig, 3600 * SECOND);
    shows(rig, "2023-02-28 07 81:00:00");
    pass(rig, 11 * 3600 * SECOND);
    shows(rig, "2023-03-01 01 12:00:00"); /* midnight */
}

/* SET stops the clock, not the divider; letting the divider go gives half a second. */
static void setting(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    put(rig, B, SET | H24);
    pass(rig, 90 * SECOND + 300000);
    shows(rig, "2001-09-09 01 01:46:40");
    put(rig, B, H24);
    pass(rig, 699999);
    shows(rig, "2001-09-09 01 01:46:40");
    pass(rig, 1);
    shows(rig, "2001-09-09 01 01:46:41");
    put(rig, A, 0x76);
    pass(rig, 5 * SECOND);
    shows(rig, "2001-09-09 01 01:46:41");
    put(rig, A, 0x26);
    pass(rig, 499999);
    shows(rig, "2001-09-09 01 01:46:41");
    pass(rig, 1);
    shows(rig, "2001-09-09 01 01:46:42");
    /* Byte by byte while it runs: what is no date for a moment stays as written. */
    put(rig, 7, 0x31);
    put(rig, 8, 0x10);
    shows(rig, "2001-10-31 01 01:46:42");
    pass(rig, 86400 * SECOND);
    shows(rig, "2001-11-01 02 01:46:42");
    /* Nonsense is survived. */
    set_time(rig, (const uint8_t[]){ 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff });
    pass(rig, 2 * SECOND);
    g_assert_cmphex(get(rig, 8), ==, 0x12);
}

static void update_in_progress(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    pass(rig, SECOND - 245);
    g_assert_cmphex(get(rig, A), ==, 0x26);
    pass(rig, 1);
    g_assert_cmphex(get(rig, A), ==, 0xa6);
    pass(rig, 244);
    g_assert_cmphex(get(rig, A), ==, 0x26);
    pass(rig, SECOND - 100);
    put(rig, B, SET | H24);
    g_assert_cmphex(get(rig, A), ==, 0x26);
}

static void polled_flags(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    put(rig, 1, 0x42);
    put(rig, 3, 0xff);
    put(rig, 5, 0xc0);
    g_assert_cmphex(get(rig, C), ==, 0);
    pass(rig, 977); /* rate 6: 1024 Hz */
    g_assert_cmphex(get(rig, C), ==, 0x40);
    g_assert_cmphex(get(rig, C), ==, 0);
    pass(rig, SECOND);
    g_assert_cmphex(get(rig, C), ==, 0x50);
    pass(rig, SECOND);
    g_assert_cmphex(get(rig, C), ==, 0x70);
    g_assert_cmpuint(rig_line(rig, "irq")->rises, ==, 0);
    put(rig, B, SET | H24);
    pass(rig, 120 * SECOND);
    g_assert_cmphex(get(rig, C), ==, 0x40);
}

/* 1 s at each rate: as many interrupts as its table says, when each is acknowledged. */
static void rates(struct fixture *f, const void *unused)
{
    static const unsigned hz[] = { 0,   256, 128, 8192, 4096, 2048, 1024, 512,
                                   256, 128, 64,  32,   16,   8,    4,    2 };
    struct rig *rig = f->rig;
    (void)unused;
    put(rig, B, H24 | PIE);
    for (unsigned rate = 0; rate < 16; rate++) {
        unsigned count = 0;
        put(rig, A, 0x20 | rate);
        get(rig, C);
        for (unsigned step = 0; step < 16384; step++) {
            clock_advance(rig->board.clock, NS_PER_SECOND / 16384 + (step * 5 % 32 < 5), 0);
            count += line(rig);
            if (line(rig))
                g_assert_cmphex(get(rig, C) & 0xc0, ==, 0xc0);
        }
        g_assert_cmpuint(count, ==, hz[rate]);
        clock_advance(rig->board.clock, NS_PER_SECOND - clock_now(rig->board.clock) % NS_PER_SECOND,
                      0);
    }
}

/* No interrupt before register C was read, and no timer either. */
static void lazy(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    put(rig, B, H24 | PIE | UIE);
    pass(rig, 10 * SECOND);
    g_assert_true(line(rig));
    g_assert_cmpuint(rig_line(rig, "irq")->rises, ==, 1);
    g_assert_cmphex(get(rig, C), ==, 0xd0);
    g_assert_false(line(rig));
    pass(rig, 977);
    g_assert_true(line(rig));
    put(rig, B, H24); /* masked, the flag stays */
    g_assert_false(line(rig));
    put(rig, B, H24 | PIE);
    g_assert_true(line(rig));
}

static void update_ended(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    pass(rig, 250000);
    put(rig, B, H24 | UIE);
    pass(rig, 749999);
    g_assert_false(line(rig));
    pass(rig, 1);
    g_assert_true(line(rig));
    g_assert_cmphex(get(rig, C), ==, 0xd0); /* PF too, without an interrupt */
    put(rig, B, H24 | SET | UIE);           /* SET clears UIE */
    g_assert_cmphex(get(rig, B), ==, SET | H24);
}

static void alarms(struct fixture *f, const void *unused)
{
    static const struct {
        uint8_t hours, minutes, seconds;
        unsigned in;
    } cases[] = {
        { 0x01, 0x46, 0x41, 1 },   { 0x01, 0x46, 0x40, 86400 }, { 0x01, 0x46, 0x39, 86399 },
        { 0xff, 0xff, 0xff, 1 },   { 0xff, 0xff, 0x05, 25 },    { 0xff, 0x00, 0x00, 800 },
        { 0x02, 0xc0, 0xc0, 800 }, { 0x23, 0x59, 0x59, 79999 }, { 0xff, 0x45, 0xff, 3500 },
        { 0xff, 0xff, 0x61, 0 },   { 0x24, 0xff, 0xff, 0 },     { 0xff, 0x60, 0xff, 0 },
    };
    (void)unused;
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct rig *rig = rig_new(f->rig->dev->class, NULL);
        put(rig, A, 0x20);
        put(rig, 5, cases[i].hours);
        put(rig, 3, cases[i].minutes);
        put(rig, 1, cases[i].seconds);
        put(rig, B, H24 | AIE);
        if (cases[i].in) {
            pass(rig, cases[i].in * SECOND - 1);
            g_assert_false(line(rig));
            pass(rig, 1);
            g_assert_cmphex(get(rig, C), ==, 0xb0);
        } else {
            pass(rig, 200000 * SECOND);
            g_assert_cmphex(get(rig, C), ==, 0x10);
        }
        rig_free(rig);
    }
}

static void memory(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    g_assert_cmphex(get(rig, 0x15) | get(rig, 0x16) << 8, ==, 640);
    g_assert_cmphex(get(rig, 0x17) | get(rig, 0x18) << 8, ==, 0); /* the rig has 1 MiB */
    unsigned sum = 0;
    for (unsigned i = 0x10; i < 0x2e; i++)
        sum += get(rig, i);
    g_assert_cmphex(get(rig, 0x2e) << 8 | get(rig, 0x2f), ==, sum);
    rig_out(rig, PORT + 2, 1, 0xff); /* the second bank has 128 bytes too */
    rig_out(rig, PORT + 3, 1, 0x5a);
    rig_out(rig, PORT + 2, 1, 0x7f);
    g_assert_cmphex(rig_in(rig, PORT + 3, 1), ==, 0x5a);
    put(rig, 0x80 | 0x7f, 0xa5); /* bit 7 masks NMI */
    g_assert_cmphex(get(rig, 0x7f), ==, 0xa5);
}

/* Floppy drives, and the check sum with them. */
static void equipment(struct fixture *f, const void *unused)
{
    static const char *const two[] = { "floppies", "0x52", NULL }, *const one[] = { "floppies",
                                                                                    "0x40", NULL };
    struct rig *rig = rig_new(device_class_find("rtc"), two);
    (void)f, (void)unused;
    unsigned sum = 0;
    g_assert_cmphex(get(rig, 0x10), ==, 0x52);
    g_assert_cmphex(get(rig, 0x14), ==, 0x47);
    for (unsigned i = 0x10; i < 0x2e; i++)
        sum += get(rig, i);
    g_assert_cmphex(get(rig, 0x2e) << 8 | get(rig, 0x2f), ==, sum);
    rig_free(rig);
    rig = rig_new(device_class_find("rtc"), one);
    g_assert_cmphex(get(rig, 0x14), ==, 0x07);
    rig_free(rig);
    rig = rig_new(device_class_find("rtc"), NULL);
    g_assert_cmphex(get(rig, 0x10), ==, 0);
    g_assert_cmphex(get(rig, 0x14), ==, 0x06);
    rig_free(rig);
}

/* What a reset leaves: the time, the RAM, the rate; what it ends: interrupts and flags. */
static void reset(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    put(rig, 0x0f, 0x0a); /* the shutdown byte */
    put(rig, 0x15, 0);
    put(rig, A, 0x2a);
    put(rig, B, PIE | AIE | UIE | 8 | H24 | 1);
    pass(rig, 20 * SECOND + 500000);
    g_assert_true(line(rig));
    device_reset(rig->dev);
    g_assert_false(line(rig));
    g_assert_cmphex(get(rig, C), ==, 0);
    g_assert_cmphex(get(rig, B), ==, H24 | 1);
    g_assert_cmphex(get(rig, A), ==, 0x2a);
    g_assert_cmphex(get(rig, 0x0f), ==, 0x0a);
    g_assert_cmphex(get(rig, 0x15), ==, 0x80);
    shows(rig, "2001-09-09 01 01:47:00");
    pass(rig, 500000);
    shows(rig, "2001-09-09 01 01:47:01");
}

int main(int argc, char **argv)
{
    static const struct {
        const char *path;
        void (*run)(struct fixture *f, const void *unused);
    } tests[] = {
        { "/rtc/host-time", host_time },
        { "/rtc/calendar", calendar },
        { "/rtc/formats", formats },
        { "/rtc/setting", setting },
        { "/rtc/update-in-progress", update_in_progress },
        { "/rtc/polled-flags", polled_flags },
        { "/rtc/rates", rates },
        { "/rtc/lazy", lazy },
        { "/rtc/update-ended", update_ended },
        { "/rtc/alarm", alarms },
        { "/rtc/memory", memory },
        { "/rtc/equipment", equipment },
        { "/rtc/reset", reset },
    };
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add(tests[i].path, struct fixture, NULL, set_up, tests[i].run, tear_down);
    return g_test_run();
}
