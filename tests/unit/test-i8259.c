/* The 8259 pair: initialisation, priorities, the ways to end an interrupt, cascade, triggering. */
#include "rig/rig.h"

enum { MASTER = 0x20, SLAVE = 0xa0, ELCR = 0x4d0 };

struct fixture {
    struct rig *rig;
};

static void initialise(struct rig *rig, uint8_t icw4)
{
    static const uint8_t master[] = { 0x08, 0x04 }, slave[] = { 0x70, 0x02 };
    rig_out(rig, MASTER, 1, 0x11);
    rig_out(rig, SLAVE, 1, 0x11);
    for (unsigned i = 0; i < 2; i++) {
        rig_out(rig, MASTER + 1, 1, master[i]);
        rig_out(rig, SLAVE + 1, 1, slave[i]);
    }
    rig_out(rig, MASTER + 1, 1, icw4);
    rig_out(rig, SLAVE + 1, 1, icw4 & 0x0f);
}

static void set_up(struct fixture *f, const void *unused)
{
    (void)unused;
    f->rig = rig_new(device_class_find("i8259"), NULL);
    initialise(f->rig, 0x01);
}

static void tear_down(struct fixture *f, const void *unused)
{
    (void)unused;
    g_assert_true(rig_round_trip(f->rig));
    rig_free(f->rig);
}

static void line(struct rig *rig, unsigned pin, bool level)
{
    g_mutex_lock(&rig->dev->lock);
    rig->dev->class->controller->input(rig->dev, pin, level);
    g_mutex_unlock(&rig->dev->lock);
}

static void edge(struct rig *rig, unsigned pin)
{
    line(rig, pin, true);
    line(rig, pin, false);
}

static unsigned acknowledge(struct rig *rig)
{
    g_mutex_lock(&rig->dev->lock);
    unsigned vector = rig->dev->class->controller->acknowledge(rig->dev);
    g_mutex_unlock(&rig->dev->lock);
    return vector;
}

static bool intr(struct rig *rig)
{
    return rig_line(rig, "intr")->level;
}

static unsigned isr(struct rig *rig, uint64_t port)
{
    rig_out(rig, port, 1, 0x0b);
    unsigned value = rig_in(rig, port, 1);
    rig_out(rig, port, 1, 0x0a);
    return value;
}

/* Nothing comes out before ICW4; ICW1 clears masks and forgets edges. */
static void icws(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    rig_out(rig, MASTER + 1, 1, 0xfe);
    g_assert_cmphex(rig_in(rig, MASTER + 1, 1), ==, 0xfe);
    line(rig, 0, true);
    g_assert_true(intr(rig));
    rig_out(rig, MASTER, 1, 0x11);
    g_assert_false(intr(rig));
    g_assert_cmphex(rig_in(rig, MASTER, 1), ==, 0);     /* IRR: the edge is gone */
    g_assert_cmphex(rig_in(rig, MASTER + 1, 1), ==, 0); /* IMR */
    rig_out(rig, MASTER + 1, 1, 0x47);                  /* its low bits are ignored */
    rig_out(rig, MASTER + 1, 1, 0x04);
    edge(rig, 1);
    g_assert_false(intr(rig));
    rig_out(rig, MASTER + 1, 1, 0x01);
    g_assert_true(intr(rig));
    g_assert_cmphex(acknowledge(rig), ==, 0x41);
    line(rig, 0, false);
}

/* Fully nested: IR0 is the highest; what is in service holds back itself and what is below. */
static void nesting(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    edge(rig, 3);
    edge(rig, 5);
    g_assert_cmphex(rig_in(rig, MASTER, 1), ==, 0x28);
    g_assert_cmphex(acknowledge(rig), ==, 0x0b);
    g_assert_cmphex(isr(rig, MASTER), ==, 0x08);
    g_assert_false(intr(rig));
    edge(rig, 3);
    g_assert_false(intr(rig));
    edge(rig, 1);
    g_assert_true(intr(rig));
    g_assert_cmphex(acknowledge(rig), ==, 0x09);
    rig_out(rig, MASTER, 1, 0x20); /* non-specific: ends 1 */
    g_assert_cmphex(isr(rig, MASTER), ==, 0x08);
    g_assert_false(intr(rig));
    rig_out(rig, MASTER, 1, 0x63); /* specific: ends 3 */
    g_assert_cmphex(acknowledge(rig), ==, 0x0b);
    rig_out(rig, MASTER, 1, 0x20);
    g_assert_cmphex(acknowledge(rig), ==, 0x0d);
}

static void masks(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    rig_out(rig, MASTER + 1, 1, 0x10);
    edge(rig, 4);
    g_assert_false(intr(rig));
    g_assert_cmphex(rig_in(rig, MASTER, 1), ==, 0x10); /* latched although masked */
    rig_out(rig, MASTER + 1, 1, 0);
    g_assert_true(intr(rig));
    rig_out(rig, MASTER + 1, 1, 0x10);
    g_assert_false(intr(rig));
    g_assert_cmphex(acknowledge(rig), ==, 0x0f); /* the CPU was on its way: spurious IRQ7 */
    g_assert_cmphex(isr(rig, MASTER), ==, 0);
}

static void cascade(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    line(rig, 2, true); /* leads nowhere on a PC */
    g_assert_false(intr(rig));
    edge(rig, 12);
    g_assert_cmphex(rig_in(rig, MASTER, 1), ==, 0x04);
    g_assert_cmphex(acknowledge(rig), ==, 0x74);
    g_assert_cmphex(isr(rig, MASTER), ==, 0x04);
    g_assert_cmphex(isr(rig, SLAVE), ==, 0x10);
    edge(rig, 8); /* above 12 on the slave, but IR2 is in service on the master */
    g_assert_false(intr(rig));
    rig_out(rig, MASTER, 1, 0x20);
    g_assert_cmphex(acknowledge(rig), ==, 0x70);
    rig_out(rig, SLAVE, 1, 0x20);
    rig_out(rig, MASTER, 1, 0x20);
    rig_out(rig, SLAVE, 1, 0x20);
    g_assert_cmphex(isr(rig, SLAVE), ==, 0);

    edge(rig, 14);
    rig_out(rig, SLAVE + 1, 1, 0xff);
    g_assert_true(intr(rig)); /* the master has latched it */
    g_assert_cmphex(acknowledge(rig), ==, 0x77);
    g_assert_cmphex(isr(rig, SLAVE), ==, 0); /* IRQ15 is spurious: only the master wants an EOI */
    g_assert_cmphex(isr(rig, MASTER), ==, 0x04);
}

static void special_fully_nested(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    initialise(rig, 0x11);
    edge(rig, 12);
    g_assert_cmphex(acknowledge(rig), ==, 0x74);
    edge(rig, 13);
    g_assert_false(intr(rig));
    edge(rig, 8);
    g_assert_true(intr(rig));
    g_assert_cmphex(acknowledge(rig), ==, 0x70);
}

/* A level-triggered line asks as long as it is high. */
static void level_triggered(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    rig_out(rig, ELCR, 1, 0xff);
    rig_out(rig, ELCR + 1, 1, 0xff);
    g_assert_cmphex(rig_in(rig, ELCR, 2), ==, 0xdef8);
    line(rig, 10, true);
    for (unsigned i = 0; i < 3; i++) {
        g_assert_cmphex(acknowledge(rig), ==, 0x72);
        g_assert_cmphex(rig_in(rig, SLAVE, 1), ==, 0x04);
        rig_out(rig, SLAVE, 1, 0x20);
        rig_out(rig, MASTER, 1, 0x20);
        g_assert_true(intr(rig));
    }
    line(rig, 10, false);
    g_assert_cmphex(rig_in(rig, SLAVE, 1), ==, 0);
    line(rig, 5, true);
    g_assert_true(intr(rig));
    line(rig, 5, false); /* withdrawn before the CPU came */
    rig_out(rig, MASTER, 1, 0x20);
    g_assert_cmphex(acknowledge(rig), ==, 0x77); /* the slave's rise was latched */
    g_assert_cmphex(acknowledge(rig), ==, 0x0f);
}

/* An edge-triggered line asks once for each rise. */
static void edge_triggered(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    line(rig, 6, true);
    g_assert_cmphex(acknowledge(rig), ==, 0x0e);
    rig_out(rig, MASTER, 1, 0x20);
    line(rig, 6, true);
    g_assert_false(intr(rig));
    line(rig, 6, false);
    line(rig, 6, true);
    g_assert_true(intr(rig));
    line(rig, 6, false);
}

static void rotation(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    rig_out(rig, MASTER, 1, 0xc4); /* IR4 lowest, so IR5 highest */
    edge(rig, 0);
    edge(rig, 4);
    edge(rig, 6);
    g_assert_cmphex(acknowledge(rig), ==, 0x0e);
    rig_out(rig, MASTER, 1, 0xa0); /* rotate on non-specific EOI: IR6 lowest */
    g_assert_cmphex(acknowledge(rig), ==, 0x08);
    rig_out(rig, MASTER, 1, 0xe0); /* rotate on specific EOI: IR0 lowest */
    g_assert_cmphex(acknowledge(rig), ==, 0x0c);
    edge(rig, 0);
    g_assert_false(intr(rig)); /* below 4 now */
    edge(rig, 1);
    g_assert_true(intr(rig));
}

static void automatic_eoi(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    initialise(rig, 0x03);
    rig_out(rig, MASTER, 1, 0x80); /* rotate in automatic EOI mode */
    edge(rig, 3);
    edge(rig, 5);
    g_assert_cmphex(acknowledge(rig), ==, 0x0b);
    g_assert_cmphex(isr(rig, MASTER), ==, 0);
    edge(rig, 3);
    g_assert_cmphex(acknowledge(rig), ==, 0x0d);
    g_assert_cmphex(acknowledge(rig), ==, 0x0b);
    edge(rig, 9);
    edge(rig, 10);
    g_assert_cmphex(acknowledge(rig), ==, 0x71);
    g_assert_true(intr(rig)); /* the slave's INT fell and rose again */
    g_assert_cmphex(acknowledge(rig), ==, 0x72);
}

static void polled(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    rig_out(rig, MASTER, 1, 0x0c);
    g_assert_cmphex(rig_in(rig, MASTER, 1), ==, 0);
    edge(rig, 7);
    edge(rig, 4);
    rig_out(rig, MASTER, 1, 0x0c);
    g_assert_cmphex(rig_in(rig, MASTER, 1), ==, 0x84);
    g_assert_cmphex(rig_in(rig, MASTER, 1), ==, 0x80); /* IRR again: 7 waits */
    g_assert_cmphex(isr(rig, MASTER), ==, 0x10);
    g_assert_false(intr(rig));
}

static void special_mask(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    edge(rig, 1);
    g_assert_cmphex(acknowledge(rig), ==, 0x09);
    edge(rig, 6);
    g_assert_false(intr(rig));
    rig_out(rig, MASTER + 1, 1, 0x02);
    g_assert_false(intr(rig));
    rig_out(rig, MASTER, 1, 0x68); /* special mask mode: 1, masked, holds nobody back */
    g_assert_true(intr(rig));
    g_assert_cmphex(acknowledge(rig), ==, 0x0e);
    rig_out(rig, MASTER, 1, 0x20);
    rig_out(rig, MASTER, 1, 0x20); /* doesn't end a masked level */
    g_assert_cmphex(isr(rig, MASTER), ==, 0x02);
    rig_out(rig, MASTER, 1, 0x48);
    rig_out(rig, MASTER, 1, 0x20);
    g_assert_cmphex(isr(rig, MASTER), ==, 0);
}

static void count(void *owner)
{
    ++*(unsigned *)owner;
}

/* A source whose edge would change nothing sleeps until the latch is clear. */
static void sleepers(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    struct irq_input input = device_irq_input(rig->dev, 0);
    GMutex lock;
    struct timer timer;
    unsigned woken = 0;
    (void)unused;
    g_mutex_init(&lock);
    timer_init(&timer, rig->board.clock, &lock, count, &woken);
    rig_out(rig, MASTER + 1, 1, 0x01);
    g_assert_true(input.wanted(input.opaque, 0, &timer));
    edge(rig, 0);
    g_assert_false(input.wanted(input.opaque, 0, &timer));
    rig_out(rig, MASTER + 1, 1, 0x00);
    clock_advance(rig->board.clock, 1, 0);
    g_assert_cmpuint(woken, ==, 0);
    acknowledge(rig);
    clock_advance(rig->board.clock, 1, 0);
    g_assert_cmpuint(woken, ==, 1);
    g_assert_true(input.wanted(input.opaque, 0, &timer));
    timer_finish(&timer);
    g_mutex_clear(&lock);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *path;
        void (*run)(struct fixture *f, const void *unused);
    } tests[] = {
        { "/i8259/icws", icws },
        { "/i8259/nesting", nesting },
        { "/i8259/masks", masks },
        { "/i8259/cascade", cascade },
        { "/i8259/special-fully-nested", special_fully_nested },
        { "/i8259/level-triggered", level_triggered },
        { "/i8259/edge-triggered", edge_triggered },
        { "/i8259/rotation", rotation },
        { "/i8259/automatic-eoi", automatic_eoi },
        { "/i8259/poll", polled },
        { "/i8259/special-mask", special_mask },
        { "/i8259/sleepers", sleepers },
    };
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add(tests[i].path, struct fixture, NULL, set_up, tests[i].run, tear_down);
    return g_test_run();
}
