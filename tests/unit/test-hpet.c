/* The HPET: counter, one-shot and periodic comparators, routing, edges and levels. */
#include "rig/rig.h"

#define BASE UINT64_C(0xfed00000)
enum { CONFIG = 0x10, STATUS = 0x20, COUNTER = 0xf0, TIMER = 0x100, COMPARATOR = 8, STRIDE = 0x20 };
enum { LEVEL = 2, ENABLE = 4, PERIODIC = 8, VALUE_SET = 0x40, BITS_32 = 0x100, PIN = 9 };

struct fixture {
    struct rig *rig;
};

static void set_up(struct fixture *f, const void *unused)
{
    (void)unused;
    f->rig = rig_new(device_class_find("hpet"), NULL);
}

static void tear_down(struct fixture *f, const void *unused)
{
    (void)unused;
    g_assert_true(rig_round_trip(f->rig));
    rig_free(f->rig);
}

static uint64_t get(struct rig *rig, unsigned offset)
{
    return rig_load(rig, BASE + offset, 8);
}

static void put(struct rig *rig, unsigned offset, uint64_t value)
{
    rig_store(rig, BASE + offset, 8, value);
}

/* Lets ticks of 10 ns pass. */
static void pass(struct rig *rig, uint64_t ticks)
{
    clock_advance(rig->board.clock, ticks * 10, 0);
}

static unsigned rises(struct rig *rig, const char *line)
{
    return rig_line(rig, line)->rises;
}

static void registers(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    g_assert_cmphex(get(rig, 0), ==, 0x009896808086a201);
    g_assert_cmphex(rig_load(rig, BASE + 4, 4), ==, 10000000); /* fs */
    put(rig, 0, 0);
    put(rig, CONFIG, 0xfffffffffffffffe);
    g_assert_cmphex(get(rig, CONFIG), ==, 2);
    for (unsigned i = 0; i < 3; i++) {
        unsigned timer = TIMER + i * STRIDE;
        g_assert_cmphex(get(rig, timer), ==, 0x00f0000000000030);
        g_assert_cmphex(get(rig, timer + COMPARATOR), ==, UINT64_MAX);
        put(rig, timer, 22 << PIN | LEVEL);
        put(rig, timer, 5 << PIN | LEVEL); /* leads nowhere: the old route stays */
        g_assert_cmphex(get(rig, timer), ==, 0x00f0000000000030 | 22 << PIN | LEVEL);
    }
    g_assert_cmphex(get(rig, TIMER + 3 * STRIDE), ==, 0);
}

static void counter(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    pass(rig, 100);
    g_assert_cmpuint(get(rig, COUNTER), ==, 0);
    rig_store(rig, BASE + COUNTER, 4, 0xffffff00);
    rig_store(rig, BASE + COUNTER + 4, 4, 7);
    put(rig, CONFIG, 1);
    pass(rig, 0x100);
    g_assert_cmphex(get(rig, COUNTER), ==, 0x800000000);
    g_assert_cmphex(rig_load(rig, BASE + COUNTER + 4, 4), ==, 8);
    pass(rig, 5);
    put(rig, CONFIG, 0);
    pass(rig, 5);
    g_assert_cmphex(get(rig, COUNTER), ==, 0x800000005);
    put(rig, CONFIG, 1);
    pass(rig, 5);
    g_assert_cmphex(get(rig, COUNTER), ==, 0x80000000a);
}

static void one_shot(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    put(rig, TIMER, 20 << PIN | ENABLE);
    put(rig, TIMER + COMPARATOR, 1000);
    pass(rig, 2000); /* halted */
    put(rig, CONFIG, 1);
    pass(rig, 999);
    g_assert_cmpuint(rises(rig, "irq20"), ==, 0);
    pass(rig, 1);
    g_assert_cmpuint(rises(rig, "irq20"), ==, 1);
    pass(rig, UINT64_C(1) << 33);
    g_assert_cmpuint(rises(rig, "irq20"), ==, 1);
    put(rig, TIMER + COMPARATOR, 5000); /* over: not before it wraps */
    pass(rig, UINT64_C(1) << 33);
    g_assert_cmpuint(rises(rig, "irq20"), ==, 1);

    put(rig, TIMER, 21 << PIN | ENABLE | BITS_32);
    g_assert_cmphex(get(rig, TIMER + COMPARATOR), ==, 5000);
    put(rig, TIMER + COMPARATOR, UINT64_C(0x700000000) | 6000); /* 32 bits come round */
    pass(rig, UINT64_C(1) << 33);
    g_assert_cmpuint(rises(rig, "irq21"), ==, 2);
    g_assert_cmphex(get(rig, STATUS), ==, 0);
}

static void periodic(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    unsigned timer = TIMER + STRIDE;
    (void)unused;
    put(rig, timer, 23 << PIN | ENABLE | PERIODIC | VALUE_SET);
    put(rig, timer + COMPARATOR, 3000); /* the first match */
    g_assert_cmphex(get(rig, timer) & VALUE_SET, ==, 0);
    put(rig, timer + COMPARATOR, 2000); /* then every 2000 */
    put(rig, CONFIG, 1);
    pass(rig, 2999);
    g_assert_cmpuint(rises(rig, "irq23"), ==, 0);
    pass(rig, 1);
    g_assert_cmpuint(rises(rig, "irq23"), ==, 1);
    g_assert_cmpuint(get(rig, timer + COMPARATOR), ==, 5000);
    pass(rig, 20000);
    g_assert_cmpuint(rises(rig, "irq23"), ==, 11);
    put(rig, timer, 23 << PIN | PERIODIC); /* counts on without interrupts, nor a host timer */
    pass(rig, 100000);
    g_assert_cmpuint(rises(rig, "irq23"), ==, 11);
    g_assert_cmpuint(get(rig, timer + COMPARATOR), ==, 125000);
    put(rig, timer, 23 << PIN | ENABLE | PERIODIC | VALUE_SET | BITS_32);
    put(rig, timer + COMPARATOR, 125000);
    put(rig, timer + COMPARATOR, 1); /* a storm is thinned out */
    clock_advance(rig->board.clock, 10 * NS_PER_SECOND / 1000, 0);
    g_assert_cmpuint(rises(rig, "irq23"), <, 1100);
    g_assert_cmpuint(rises(rig, "irq23"), >, 900);
}

/* Level-triggered: active until its status bit is cleared. */
static void levels(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    unsigned timer = TIMER + 2 * STRIDE;
    (void)unused;
    put(rig, CONFIG, 1);
    put(rig, timer, 20 << PIN | LEVEL | PERIODIC | VALUE_SET);
    put(rig, timer + COMPARATOR, 1000);
    pass(rig, 1000);
    g_assert_cmphex(get(rig, STATUS), ==, 4); /* status also without an interrupt */
    g_assert_false(rig_line(rig, "irq20")->level);
    put(rig, timer, 20 << PIN | LEVEL | PERIODIC | ENABLE);
    g_assert_true(rig_line(rig, "irq20")->level);
    put(rig, STATUS, 3);
    g_assert_true(rig_line(rig, "irq20")->level);
    pass(rig, 5000);
    put(rig, STATUS, 4);
    g_assert_false(rig_line(rig, "irq20")->level);
    pass(rig, 999);
    g_assert_false(rig_line(rig, "irq20")->level);
    pass(rig, 1);
    g_assert_true(rig_line(rig, "irq20")->level);
    put(rig, CONFIG, 0); /* halted: no interrupts */
    g_assert_false(rig_line(rig, "irq20")->level);
}

static void legacy(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    for (unsigned i = 0; i < 3; i++) {
        put(rig, TIMER + i * STRIDE, 22 << PIN | ENABLE);
        put(rig, TIMER + i * STRIDE + COMPARATOR, 1000);
    }
    put(rig, CONFIG, 3);
    pass(rig, 1000);
    g_assert_cmpuint(rises(rig, "irq0"), ==, 1);
    g_assert_cmpuint(rises(rig, "irq8"), ==, 1);
    g_assert_cmpuint(rises(rig, "irq22"), ==, 1);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *path;
        void (*run)(struct fixture *f, const void *unused);
    } tests[] = {
        { "/hpet/registers", registers }, { "/hpet/counter", counter },
        { "/hpet/one-shot", one_shot },   { "/hpet/periodic", periodic },
        { "/hpet/levels", levels },       { "/hpet/legacy", legacy },
    };
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add(tests[i].path, struct fixture, NULL, set_up, tests[i].run, tear_down);
    return g_test_run();
}
