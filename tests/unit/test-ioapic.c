/* The I/O APIC: registers, messages, edges and levels, and when the hypervisor is told of routes.
 */
#include "rig/rig.h"

enum { BASE = 0xfec00000, IOREGSEL = BASE, IOWIN = BASE + 0x10, EOI = BASE + 0x40 };
enum { LEVEL = 0x8000, REMOTE_IRR = 0x4000, MASKED = 0x10000, LOGICAL = 0x800 };

struct fixture {
    struct rig *rig;
};

static void set_up(struct fixture *f, const void *unused)
{
    (void)unused;
    f->rig = rig_new(device_class_find("ioapic"), NULL);
}

static void tear_down(struct fixture *f, const void *unused)
{
    (void)unused;
    g_assert_true(rig_round_trip(f->rig));
    rig_free(f->rig);
}

static uint32_t get(struct rig *rig, unsigned index)
{
    rig_store(rig, IOREGSEL, 4, index);
    return (uint32_t)rig_load(rig, IOWIN, 4);
}

static void put(struct rig *rig, unsigned index, uint32_t value)
{
    rig_store(rig, IOREGSEL, 4, index);
    rig_store(rig, IOWIN, 4, value);
}

static void line(struct rig *rig, unsigned pin, bool level)
{
    g_mutex_lock(&rig->dev->lock);
    rig->dev->class->controller->input(rig->dev, pin, level);
    g_mutex_unlock(&rig->dev->lock);
}

static void eoi(struct rig *rig, uint8_t vector)
{
    g_mutex_lock(&rig->dev->lock);
    rig->dev->class->controller->eoi(rig->dev, vector);
    g_mutex_unlock(&rig->dev->lock);
}

static void registers(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    g_assert_cmphex(get(rig, 1), ==, 0x00170020);
    put(rig, 0, 0xffffffff);
    g_assert_cmphex(get(rig, 0), ==, 0x0f000000);
    g_assert_cmphex(get(rig, 2), ==, 0x0f000000);
    g_assert_cmphex(get(rig, 0x10), ==, MASKED);
    put(rig, 0x3e, 0xffffffff);
    put(rig, 0x3f, 0xffffffff);
    g_assert_cmphex(get(rig, 0x3e), ==, 0x1afff); /* delivery status and remote IRR stay */
    g_assert_cmphex(get(rig, 0x3f), ==, 0xff000000);
    g_assert_cmphex(get(rig, 0x40), ==, 0); /* there are 24 */
    rig_store(rig, IOREGSEL, 1, 1);         /* the index register is 8 bits wide */
    g_assert_cmphex(rig_load(rig, IOREGSEL, 1), ==, 1);
    g_assert_cmphex(rig_load(rig, IOWIN + 2, 1), ==, 0x17);
    rig_store(rig, IOWIN, 1, 0xff); /* the window takes double words only */
    g_assert_cmphex(get(rig, 0x3e), ==, 0x1afff);
}

static void messages(struct fixture *f, const void *unused)
{
    static const struct {
        uint32_t low, high, address, data;
    } cases[] = {
        { 0x31, 0x05000000, 0xfee05000, 0x4031 },
        { 0x31 | LOGICAL, 0x81000000, 0xfee81004, 0x4031 },
        { 0x31 | 0x100 | LOGICAL, 0xff000000, 0xfeeff00c, 0x4131 }, /* lowest priority: hint */
        { 0x200, 0, 0xfee00000, 0x4200 },                           /* SMI */
        { 0x431, 0, 0xfee00000, 0x4400 },                           /* NMI: vector is ignored */
        { 0x400 | LEVEL, 0, 0xfee00000, 0x4400 },                   /* always an edge */
        { 0x500, 0x02000000, 0xfee02000, 0x4500 },                  /* INIT */
        { 0x700, 0, 0xfee00000, 0x4700 },                           /* ExtINT */
        { 0x31 | LEVEL | 0x2000, 0, 0xfee00000, 0xc031 },           /* active low is asserted too */
    };
    struct rig *rig = f->rig;
    (void)unused;
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        put(rig, 0x11 + 2 * i, cases[i].high);
        put(rig, 0x10 + 2 * i, cases[i].low);
        line(rig, i, true);
        g_assert_cmpuint(rig->msis, ==, i + 1);
        g_assert_cmphex(rig->last_msi.address, ==, cases[i].address);
        g_assert_cmphex(rig->last_msi.data, ==, cases[i].data);
    }
    put(rig, 0x3e, 0x331); /* reserved */
    line(rig, 23, true);
    g_assert_cmpuint(rig->msis, ==, G_N_ELEMENTS(cases));
}

static void edges(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    line(rig, 4, true); /* masked: ignored, and not held */
    put(rig, 0x18, 0x34);
    g_assert_cmpuint(rig->msis, ==, 0);
    line(rig, 4, true);
    g_assert_cmpuint(rig->msis, ==, 0);
    line(rig, 4, false);
    for (unsigned i = 1; i < 4; i++) { /* each rise, EOI or not */
        line(rig, 4, true);
        line(rig, 4, false);
        g_assert_cmpuint(rig->msis, ==, i);
    }
    g_assert_cmphex(get(rig, 0x18), ==, 0x34);
}

static void levels(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    line(rig, 16, true);
    put(rig, 0x30, 0x50 | LEVEL); /* unmasked while asserted */
    g_assert_cmpuint(rig->msis, ==, 1);
    g_assert_cmphex(get(rig, 0x30), ==, (0x50 | LEVEL | REMOTE_IRR));
    line(rig, 16, false);
    line(rig, 16, true); /* not before the EOI */
    g_assert_cmpuint(rig->msis, ==, 1);
    eoi(rig, 0x51);
    g_assert_cmpuint(rig->msis, ==, 1);
    eoi(rig, 0x50); /* still asserted: again */
    g_assert_cmpuint(rig->msis, ==, 2);
    line(rig, 16, false);
    rig_store(rig, EOI, 4, 0x50); /* the directed EOI */
    g_assert_cmphex(get(rig, 0x30), ==, (0x50 | LEVEL));
    g_assert_cmpuint(rig->msis, ==, 2);

    line(rig, 16, true);
    put(rig, 0x30, 0x50 | LEVEL | MASKED); /* masked in service; the EOI counts all the same */
    eoi(rig, 0x50);
    g_assert_cmphex(get(rig, 0x30), ==, (0x50 | LEVEL | MASKED));
    g_assert_cmpuint(rig->msis, ==, 3);
    put(rig, 0x30, 0x50 | LEVEL);
    g_assert_cmpuint(rig->msis, ==, 4);
    put(rig, 0x30, 0x50 | MASKED); /* to edge and back ends it without an EOI */
    put(rig, 0x30, 0x50 | LEVEL);
    g_assert_cmpuint(rig->msis, ==, 5);
}

static void shared_vector(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    put(rig, 0x30, 0x50 | LEVEL);
    put(rig, 0x32, 0x50 | LEVEL);
    line(rig, 16, true);
    line(rig, 17, true);
    line(rig, 16, false);
    g_assert_cmpuint(rig->msis, ==, 2);
    eoi(rig, 0x50);
    g_assert_cmphex(get(rig, 0x30), ==, (0x50 | LEVEL));
    g_assert_cmphex(get(rig, 0x32), ==, (0x50 | LEVEL | REMOTE_IRR));
    g_assert_cmpuint(rig->msis, ==, 3);
}

static void routes(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    (void)unused;
    put(rig, 0x10, 0x30); /* an edge is nobody's business */
    put(rig, 0x33, 0x01000000);
    put(rig, 0x32, 0x51 | LEVEL | MASKED);
    g_assert_cmpuint(rig->route_updates, ==, 0);
    put(rig, 0x32, 0x51 | LEVEL);
    g_assert_cmpuint(rig->route_updates, ==, 1);
    g_assert_cmphex(rig->routes[17].address, ==, 0xfee01000);
    g_assert_cmphex(rig->routes[17].data, ==, 0xc051);
    g_assert_false(rig->routes[17].masked);
    g_assert_true(rig->routes[16].masked);
    put(rig, 0x32, 0x51 | LEVEL | MASKED); /* masked for a moment: its EOI is still wanted */
    put(rig, 0x32, 0x51 | LEVEL);
    g_assert_cmpuint(rig->route_updates, ==, 1);
    put(rig, 0x33, 0x02000000);
    g_assert_cmpuint(rig->route_updates, ==, 2);
    put(rig, 0x32, MASKED);
    g_assert_cmpuint(rig->route_updates, ==, 3);
    put(rig, 0x32, 0x51 | LEVEL);
    device_reset(rig->dev);
    g_assert_cmpuint(rig->route_updates, ==, 5);
    g_assert_true(rig->routes[17].masked);
}

static void count(void *owner)
{
    ++*(unsigned *)owner;
}

/* A source of edges sleeps while the pin is masked. */
static void sleepers(struct fixture *f, const void *unused)
{
    struct rig *rig = f->rig;
    struct irq_input input = device_irq_input(rig->dev, 2);
    GMutex lock;
    struct timer timer;
    unsigned woken = 0;
    (void)unused;
    g_mutex_init(&lock);
    timer_init(&timer, rig->board.clock, &lock, count, &woken);
    g_assert_false(input.wanted(input.opaque, 2, &timer));
    put(rig, 0x15, 0);
    put(rig, 0x14, 0x30 | MASKED);
    clock_advance(rig->board.clock, 1, 0);
    g_assert_cmpuint(woken, ==, 0);
    put(rig, 0x14, 0x30);
    put(rig, 0x14, 0x31);
    clock_advance(rig->board.clock, 1, 0);
    g_assert_cmpuint(woken, ==, 1);
    g_assert_true(input.wanted(input.opaque, 2, &timer));
    timer_finish(&timer);
    g_mutex_clear(&lock);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *path;
        void (*run)(struct fixture *f, const void *unused);
    } tests[] = {
        { "/ioapic/registers", registers },
        { "/ioapic/messages", messages },
        { "/ioapic/edges", edges },
        { "/ioapic/levels", levels },
        { "/ioapic/shared-vector", shared_vector },
        { "/ioapic/routes", routes },
        { "/ioapic/sleepers", sleepers },
    };
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add(tests[i].path, struct fixture, NULL, set_up, tests[i].run, tear_down);
    return g_test_run();
}
