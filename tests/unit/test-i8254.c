/* The 8254: what is read, OUT and the edges of IRQ0, tick by tick. */
#include "rig/rig.h"

enum { PIT = 0x40, CONTROL = 0x43, PORT_B = 0x61, HZ = 1193182 };

struct fixture {
    struct rig *rig;
};

static void set_up(struct fixture *f, const void *unused)
{
    (void)unused;
    f->rig = rig_new(device_class_find("i8254"), NULL);
}

static void tear_down(struct fixture *f, const void *unused)
{
    (void)unused;
    g_assert_true(rig_round_trip(f->rig));
    rig_free(f->rig);
}

/* Lets time pass up to the beginning of a tick. */
static void at(struct rig *rig, uint64_t tick)
{
    uint64_t ns = (tick * NS_PER_SECOND + HZ - 1) / HZ, now = clock_now(rig->board.clock);
    g_assert_cmpuint(ns, >=, now);
    clock_advance(rig->board.clock, ns - now, 0);
}

static void program(struct rig *rig, unsigned channel, unsigned mode, uint16_t count)
{
    rig_out(rig, CONTROL, 1, channel << 6 | 0x30 | mode << 1);
    rig_out(rig, PIT + channel, 1, count & 0xff);
    rig_out(rig, PIT + channel, 1, count >> 8);
}

static unsigned count(struct rig *rig, unsigned channel)
{
    rig_out(rig, CONTROL, 1, channel << 6);
    unsigned low = rig_in(rig, PIT + channel, 1);
    return low | rig_in(rig, PIT + channel, 1) << 8;
}

static unsigned status(struct rig *rig, unsigned channel)
{
    rig_out(rig, CONTROL, 1, 0xe0 | 2u << channel);
    return rig_in(rig, PIT + channel, 1);
}

static bool out2(struct rig *rig)
{
    return rig_in(rig, PORT_B, 1) & 0x20;
}

static unsigned edges(struct rig *rig)
{
    return rig_line(rig, "irq")->rises;
}

/* Interrupt on terminal count: N + 1 pulses after the write, once. */
static void mode0(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    at(rig, 1000);
    program(rig, 0, 0, 5);
    g_assert_cmphex(status(rig, 0), ==, 0x70); /* OUT low, null count, both bytes, mode 0 */
    at(rig, 1001);
    g_assert_cmphex(status(rig, 0), ==, 0x30);
    g_assert_cmpuint(count(rig, 0), ==, 5);
    at(rig, 1005);
    g_assert_cmpuint(count(rig, 0), ==, 1);
    g_assert_cmpuint(edges(rig), ==, 0);
    at(rig, 1006);
    g_assert_cmpuint(edges(rig), ==, 1);
    g_assert_cmphex(status(rig, 0), ==, 0xb0);
    at(rig, 1007);
    g_assert_cmphex(count(rig, 0), ==, 0xffff); /* goes on, wrapping */
    at(rig, 1001 + 3 * 65536 + 1);
    g_assert_cmpuint(count(rig, 0), ==, 4);
    g_assert_cmpuint(edges(rig), ==, 1);
    rig_out(rig, PIT, 1, 9); /* the first byte stops it and lowers OUT */
    g_assert_cmphex(status(rig, 0) & 0x80, ==, 0);
    at(rig, 300000);
    g_assert_cmpuint(edges(rig), ==, 1);
    rig_out(rig, PIT, 1, 0);
    at(rig, 300010);
    g_assert_cmpuint(edges(rig), ==, 2);
}

static void mode0_gate(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    program(rig, 2, 0, 100); /* with the gate low */
    at(rig, 50);
    g_assert_cmpuint(count(rig, 2), ==, 100);
    rig_out(rig, PORT_B, 1, 1);
    at(rig, 90);
    g_assert_cmpuint(count(rig, 2), ==, 60);
    rig_out(rig, PORT_B, 1, 0);
    at(rig, 1000);
    g_assert_cmpuint(count(rig, 2), ==, 60);
    g_assert_false(out2(rig));
    rig_out(rig, PORT_B, 1, 1);
    at(rig, 1059);
    g_assert_false(out2(rig));
    at(rig, 1060);
    g_assert_true(out2(rig));
}

static void mode1(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    program(rig, 2, 1, 10);
    at(rig, 100);
    g_assert_true(out2(rig));
    g_assert_cmphex(status(rig, 2), ==, 0xf2); /* null until the trigger */
    rig_out(rig, PORT_B, 1, 1);
    g_assert_true(out2(rig));
    at(rig, 101);
    g_assert_false(out2(rig));
    rig_out(rig, PORT_B, 1, 0); /* the gate's fall is nothing */
    at(rig, 105);
    rig_out(rig, PORT_B, 1, 1); /* its rise begins again */
    g_assert_false(out2(rig));
    at(rig, 115);
    g_assert_false(out2(rig));
    at(rig, 116);
    g_assert_true(out2(rig));
    rig_out(rig, PIT + 2, 1, 3);
    rig_out(rig, PIT + 2, 1, 0);
    at(rig, 120);
    g_assert_true(out2(rig));
    rig_out(rig, PORT_B, 1, 0);
    rig_out(rig, PORT_B, 1, 1);
    at(rig, 123);
    g_assert_false(out2(rig));
    at(rig, 124);
    g_assert_true(out2(rig));
}

static void mode2(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    program(rig, 0, 2, 4);
    at(rig, 1);
    g_assert_cmpuint(count(rig, 0), ==, 4);
    at(rig, 4);
    g_assert_cmpuint(count(rig, 0), ==, 1);
    g_assert_cmphex(status(rig, 0), ==, 0x34); /* low for one pulse */
    at(rig, 5);
    g_assert_cmpuint(count(rig, 0), ==, 4);
    g_assert_cmphex(status(rig, 0), ==, 0xb4);
    g_assert_cmpuint(edges(rig), ==, 1);
    at(rig, 6);
    rig_out(rig, PIT, 1, 10);
    rig_out(rig, PIT, 1, 0);                   /* from the next period on */
    g_assert_cmphex(status(rig, 0), ==, 0xf4); /* null count */
    at(rig, 9);
    g_assert_cmpuint(edges(rig), ==, 2);
    g_assert_cmpuint(count(rig, 0), ==, 10);
    at(rig, 18);
    g_assert_cmpuint(edges(rig), ==, 2);
    at(rig, 19);
    g_assert_cmpuint(edges(rig), ==, 3);
    program(rig, 0, 2, 1); /* forbidden, harmless */
    at(rig, 1000);
    g_assert_cmpuint(edges(rig), ==, 3);
}

/* No drift: one hour at 18.2 Hz. */
static void frequency(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    program(rig, 0, 2, 0);
    clock_advance(rig->board.clock, 3600 * NS_PER_SECOND, 0);
    g_assert_cmpuint(edges(rig), ==, (3600ull * HZ - 1) / 65536);
}

static void mode3(struct fixture *f, const void *unused)
{
    static const unsigned even[] = { 6, 4, 2, 6, 4, 2 }, odd[] = { 4, 2, 0, 4, 2 };
    struct rig *rig = f->rig;
    (void)unused;
    rig_out(rig, PORT_B, 1, 1);
    program(rig, 2, 3, 6);
    for (unsigned i = 0; i < 18; i++) {
        at(rig, 1 + i);
        g_assert_cmpuint(count(rig, 2), ==, even[i % 6]);
        g_assert_true(out2(rig) == (i % 6 < 3));
    }
    at(rig, 99);
    program(rig, 2, 3, 5);
    for (unsigned i = 0; i < 15; i++) {
        at(rig, 100 + i);
        g_assert_cmpuint(count(rig, 2), ==, odd[i % 5]);
        g_assert_true(out2(rig) == (i % 5 < 3));
    }
    at(rig, 116); /* in the high half: the new count begins with the low one */
    rig_out(rig, PIT + 2, 1, 20);
    rig_out(rig, PIT + 2, 1, 0);
    at(rig, 118);
    g_assert_false(out2(rig));
    g_assert_cmpuint(count(rig, 2), ==, 20);
    at(rig, 127);
    g_assert_false(out2(rig));
    at(rig, 128);
    g_assert_true(out2(rig));
    rig_out(rig, PORT_B, 1, 0); /* the gate stops it, high */
    at(rig, 140);
    g_assert_true(out2(rig));
    rig_out(rig, PORT_B, 1, 1); /* and begins anew */
    at(rig, 150);
    g_assert_true(out2(rig));
    at(rig, 151);
    g_assert_false(out2(rig));
}

static void mode3_edges(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    program(rig, 0, 3, 10);
    at(rig, 11);
    g_assert_cmpuint(edges(rig), ==, 1);
    at(rig, 13); /* high half, which ends at 16; then 50 low */
    rig_out(rig, PIT, 1, 100);
    rig_out(rig, PIT, 1, 0);
    at(rig, 65);
    g_assert_cmpuint(edges(rig), ==, 1);
    at(rig, 66);
    g_assert_cmpuint(edges(rig), ==, 2);
    at(rig, 166);
    g_assert_cmpuint(edges(rig), ==, 3);
}

static void strobes(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    program(rig, 0, 4, 3); /* low in tick 4, so an edge at 5 */
    at(rig, 4);
    g_assert_cmphex(status(rig, 0), ==, 0x38);
    g_assert_cmpuint(edges(rig), ==, 0);
    at(rig, 5);
    g_assert_cmpuint(edges(rig), ==, 1);
    at(rig, 70000);
    g_assert_cmpuint(edges(rig), ==, 1);

    program(rig, 2, 5, 3);
    at(rig, 70010);
    g_assert_true(out2(rig));
    rig_out(rig, PORT_B, 1, 1);
    at(rig, 70013);
    g_assert_true(out2(rig));
    at(rig, 70014);
    g_assert_false(out2(rig));
    at(rig, 70015);
    g_assert_true(out2(rig));
}

static void bcd(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    rig_out(rig, CONTROL, 1, 0x35); /* mode 2, BCD */
    rig_out(rig, PIT, 1, 0x00);
    rig_out(rig, PIT, 1, 0x10); /* 1000 */
    at(rig, 2);
    g_assert_cmphex(count(rig, 0), ==, 0x0999);
    at(rig, 2001);
    g_assert_cmpuint(edges(rig), ==, 2);
    rig_out(rig, CONTROL, 1, 0x31); /* mode 0 */
    rig_out(rig, PIT, 1, 0);
    rig_out(rig, PIT, 1, 0); /* 10000 */
    at(rig, 2002);
    g_assert_cmphex(count(rig, 0), ==, 0);
    at(rig, 2003);
    g_assert_cmphex(count(rig, 0), ==, 0x9999);
}

static void access_modes(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    rig_out(rig, CONTROL, 1, 0x14); /* low byte only, mode 2 */
    rig_out(rig, PIT, 1, 200);
    at(rig, 11);
    g_assert_cmpuint(rig_in(rig, PIT, 1), ==, 190);
    g_assert_cmpuint(rig_in(rig, PIT, 1), ==, 190);
    rig_out(rig, CONTROL, 1, 0x24); /* high byte only */
    rig_out(rig, PIT, 1, 2);
    at(rig, 11 + 1 + 0x1f);
    g_assert_cmphex(rig_in(rig, PIT, 1), ==, 1); /* 0x1e1 */
    rig_out(rig, CONTROL, 1, 0x34);
    rig_out(rig, PIT, 1, 0x34);
    rig_out(rig, PIT, 1, 0x12);
    at(rig, 44);
    g_assert_cmphex(rig_in(rig, PIT, 1), ==, 0x34); /* the two bytes in turn */
    g_assert_cmphex(rig_in(rig, PIT, 1), ==, 0x12);
    g_assert_cmphex(rig_in(rig, PIT, 1), ==, 0x34);
    g_assert_cmphex(rig_in(rig, PIT, 1), ==, 0x12);
}

static void latches(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    program(rig, 0, 2, 0x1234);
    program(rig, 1, 2, 18);
    at(rig, 1);
    rig_out(rig, CONTROL, 1, 0xc2 | 0x04); /* read-back: count and status of 0 and 1 */
    at(rig, 9);
    rig_out(rig, CONTROL, 1, 0); /* latched already: ignored */
    g_assert_cmphex(rig_in(rig, PIT, 1), ==, 0xb4);
    g_assert_cmphex(rig_in(rig, PIT, 1), ==, 0x34);
    g_assert_cmphex(rig_in(rig, PIT, 1), ==, 0x12);
    g_assert_cmphex(rig_in(rig, PIT, 1), ==, 0x2c); /* live again */
    g_assert_cmphex(rig_in(rig, PIT + 1, 1), ==, 0xb4);
    g_assert_cmphex(rig_in(rig, PIT + 1, 1), ==, 18);
    rig_out(rig, CONTROL, 1, 0x34); /* programming forgets latches and halves */
    rig_out(rig, PIT, 1, 2);
    rig_out(rig, PIT, 1, 0);
    g_assert_cmphex(rig_in(rig, PIT, 1), ==, 2);
}

static void port_b(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    rig_out(rig, PORT_B, 1, 0xfe);
    g_assert_cmphex(rig_in(rig, PORT_B, 1) & 0xcf, ==, 0x0e);
    unsigned toggles = 0, last = rig_in(rig, PORT_B, 1) & 0x10;
    for (unsigned tick = 1; tick <= 180; tick++) {
        at(rig, tick);
        unsigned now = rig_in(rig, PORT_B, 1) & 0x10;
        toggles += now != last;
        last = now;
    }
    g_assert_cmpuint(toggles, ==, 10);
}

/* Programming mode 2 raises OUT: an edge where it was low, none where it was high. */
static void edge_by_programming(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    program(rig, 0, 2, 1000);
    g_assert_cmpuint(edges(rig), ==, 0);
    program(rig, 0, 0, 1000);
    at(rig, 10);
    program(rig, 0, 2, 1000);
    g_assert_cmpuint(edges(rig), ==, 1);
}

static bool is_wanted;
static unsigned asked;
static struct timer *sleeper;
static bool wanted(void *opaque, unsigned pin, struct timer *timer)
{
    (void)opaque, (void)pin;
    asked++;
    sleeper = timer;
    return is_wanted;
}

/* Nobody wants edges: one question, then silence until the poke; what went by is lost. */
static void sleeps(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    rig_line(rig, "irq")->wire.input[0].wanted = wanted;
    asked = 0;
    is_wanted = true;
    program(rig, 0, 2, 1000);
    at(rig, 2001);
    g_assert_cmpuint(edges(rig), ==, 2);
    is_wanted = false;
    at(rig, 500500);
    g_assert_cmpuint(edges(rig), ==, 2);
    g_assert_cmpuint(asked, ==, 3);
    g_assert_false(timer_armed(sleeper));
    is_wanted = true;
    timer_poke(sleeper);
    at(rig, 500999);
    g_assert_cmpuint(edges(rig), ==, 2);
    at(rig, 501001); /* in phase */
    g_assert_cmpuint(edges(rig), ==, 3);
    is_wanted = false;
    at(rig, 600000);
    program(rig, 0, 0, 10); /* a new program is asked about anew */
    is_wanted = true;
    at(rig, 600011);
    g_assert_cmpuint(edges(rig), ==, 4);
}

static void ring(void *owner)
{
    *(bool *)owner = true;
}

/* Lets a second pass, in which fewer than `callbacks` timers run. */
static bool quiet(struct rig *rig, unsigned callbacks)
{
    struct timer end;
    GMutex lock;
    bool rang = false;
    g_mutex_init(&lock);
    timer_init(&end, rig->board.clock, &lock, ring, &rang);
    timer_set(&end, clock_now(rig->board.clock) + NS_PER_SECOND);
    clock_advance(rig->board.clock, NS_PER_SECOND, callbacks);
    timer_finish(&end);
    g_mutex_clear(&lock);
    return rang;
}

static unsigned acknowledge(struct device *pic)
{
    g_mutex_lock(&pic->lock);
    unsigned vector = pic->class->controller->acknowledge(pic);
    g_mutex_unlock(&pic->lock);
    return vector;
}

/* As in a PC: IRQ0 ends in pin 0 of the 8259 and pin 2 of the I/O APIC. While neither can use an
 * edge, no timer runs; the 8259 keeps one edge as ever, the I/O APIC none. */
static void idle_pc(struct fixture *f, const void *unused)
{
    static const uint8_t icws[][2] = { { 0x20, 0x11 }, { 0x21, 8 }, { 0x21, 4 }, { 0x21, 1 } };
    struct rig *rig = f->rig;
    struct device *pic = device_create(device_class_find("i8259"), &rig->board, NULL);
    struct device *ioapic = device_create(device_class_find("ioapic"), &rig->board, NULL);
    struct irq_wire *wire = &rig_line(rig, "irq")->wire;
    (void)unused;
    g_assert_true(device_start(pic, NULL) && device_start(ioapic, NULL));
    wire->inputs = 0;
    irq_wire_to(wire, device_irq_input(pic, 0));
    irq_wire_to(wire, device_irq_input(ioapic, 2));
    for (unsigned i = 0; i < G_N_ELEMENTS(icws); i++)
        rig_out(rig, icws[i][0], 1, icws[i][1]);
    rig_out(rig, 0x21, 1, 0xff);
    program(rig, 0, 2, 11932); /* 100 Hz */
    g_assert_true(quiet(rig, 3));
    g_assert_true(quiet(rig, 1));
    g_assert_cmphex(rig_in(rig, 0x20, 1), ==, 0x01); /* one edge waits */
    g_assert_cmpuint(rig->msis, ==, 0);

    rig_out(rig, 0x21, 1, 0xfe);
    g_assert_cmphex(acknowledge(pic), ==, 0x08);
    rig_out(rig, 0x20, 1, 0x20);
    g_assert_cmphex(rig_in(rig, 0x20, 1), ==, 0); /* those that went by are not made up for */
    clock_advance(rig->board.clock, NS_PER_SECOND / 100, 0);
    g_assert_cmphex(acknowledge(pic), ==, 0x08);
    rig_out(rig, 0x20, 1, 0x20);
    g_assert_false(quiet(rig, 1));

    rig_out(rig, 0x21, 1, 0xff);
    g_assert_true(quiet(rig, 3));
    rig_store(rig, 0xfec00000, 4, 0x14);
    rig_store(rig, 0xfec00010, 4, 0x30);
    g_assert_cmpuint(rig->msis, ==, 0);
    clock_advance(rig->board.clock, NS_PER_SECOND, 0);
    g_assert_cmpuint(rig->msis, ==, 100);

    device_destroy(ioapic);
    device_destroy(pic);
    wire->inputs = 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *path;
        void (*run)(struct fixture *f, const void *unused);
    } tests[] = {
        { "/i8254/mode-0", mode0 },
        { "/i8254/mode-0-gate", mode0_gate },
        { "/i8254/mode-1", mode1 },
        { "/i8254/mode-2", mode2 },
        { "/i8254/frequency", frequency },
        { "/i8254/mode-3", mode3 },
        { "/i8254/mode-3-edges", mode3_edges },
        { "/i8254/modes-4-and-5", strobes },
        { "/i8254/bcd", bcd },
        { "/i8254/access", access_modes },
        { "/i8254/latches", latches },
        { "/i8254/port-b", port_b },
        { "/i8254/edge-by-programming", edge_by_programming },
        { "/i8254/sleep", sleeps },
        { "/i8254/idle-pc", idle_pc },
    };
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add(tests[i].path, struct fixture, NULL, set_up, tests[i].run, tear_down);
    return g_test_run();
}
