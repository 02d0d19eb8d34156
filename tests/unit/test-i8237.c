/* The DMA controllers: programming, directions, terminal count, autoinitialisation, decrementing,
 * the page, words, masks and the cascade. */
#include "rig/rig.h"

#include <string.h>

enum { COMMAND = 8, MASK = 10, MODE = 11, CLEAR = 12, MASTER = 13, UNMASK = 14, ALL_MASK = 15 };
enum { SECOND = 0xc0, PAGE2 = 0x81, PAGE5 = 0x8b };
enum { WRITE = 0x44, READ = 0x48, VERIFY = 0x40, AUTOINIT = 0x10, DOWN = 0x20, CASCADE = 0xc0 };

struct fixture {
    struct rig *rig;
};

static void set_up(struct fixture *f, const void *unused)
{
    (void)unused;
    f->rig = rig_new(device_class_find("i8237"), NULL);
    rig_out(f->rig, SECOND + 2 * MODE, 1, CASCADE);
    rig_out(f->rig, SECOND + 2 * MASK, 1, 0);
}

static void tear_down(struct fixture *f, const void *unused)
{
    (void)unused;
    g_assert_true(rig_round_trip(f->rig));
    rig_free(f->rig);
}

/* Channel 2, as a floppy driver does it; `count` bytes. */
static void program(struct rig *rig, unsigned mode, uint32_t at, unsigned count)
{
    rig_out(rig, MASK, 1, 4 | 2);
    rig_out(rig, CLEAR, 1, 0);
    rig_out(rig, MODE, 1, mode | 2);
    rig_out(rig, 4, 1, at & 0xff);
    rig_out(rig, 4, 1, at >> 8 & 0xff);
    rig_out(rig, PAGE2, 1, at >> 16);
    rig_out(rig, 5, 1, (count - 1) & 0xff);
    rig_out(rig, 5, 1, (count - 1) >> 8 & 0xff);
    rig_out(rig, MASK, 1, 2);
}

static size_t move(struct rig *rig, unsigned channel, enum dma_direction direction, void *data,
                   size_t length, bool *end)
{
    struct dma dma = device_dma(rig->dev, channel);
    return dma_move(&dma, direction, data, length, end, NULL);
}

static unsigned word(struct rig *rig, unsigned port)
{
    rig_out(rig, CLEAR, 1, 0);
    unsigned low = rig_in(rig, port, 1);
    return low | rig_in(rig, port, 1) << 8;
}

static void to_memory(struct fixture *f, const void *unused)
{
    uint8_t data[600], seen[600];
    bool end;
    (void)unused;
    memset(data, 0x5a, sizeof data);
    program(f->rig, WRITE, 0x45678, 1000);
    g_assert_cmpuint(move(f->rig, 2, DMA_TO_MEMORY, data, 600, &end), ==, 600);
    g_assert_false(end);
    guest_read(f->rig->board.guest, GPA(0x45678), seen, 600);
    g_assert_cmpmem(seen, 600, data, 600);
    g_assert_cmphex(word(f->rig, 4), ==, 0x5678 + 600);
    g_assert_cmpuint(word(f->rig, 5), ==, 399);
    g_assert_cmphex(rig_in(f->rig, COMMAND, 1), ==, 0);
    /* The terminal count: no more is taken, the channel is masked, the status says so once. */
    g_assert_cmpuint(move(f->rig, 2, DMA_TO_MEMORY, data, 600, &end), ==, 400);
    g_assert_true(end);
    g_assert_cmphex(word(f->rig, 5), ==, 0xffff);
    g_assert_cmphex(rig_in(f->rig, COMMAND, 1), ==, 0x04);
    g_assert_cmphex(rig_in(f->rig, COMMAND, 1), ==, 0x00);
    g_assert_cmphex(rig_in(f->rig, ALL_MASK, 1), ==, 0xff);
    g_assert_cmpuint(move(f->rig, 2, DMA_TO_MEMORY, data, 1, &end), ==, 0);
    g_assert_cmphex(rig_in(f->rig, COMMAND, 1), ==, 0x40); /* and it is asked for */
    g_assert_cmpuint(move(f->rig, 2, DMA_TO_MEMORY, data, 0, &end), ==, 0);
    g_assert_cmphex(rig_in(f->rig, COMMAND, 1), ==, 0x00);
}

static void to_device(struct fixture *f, const void *unused)
{
    uint8_t data[4] = { 0 };
    bool end;
    (void)unused;
    guest_write(f->rig->board.guest, GPA(0x1000), "\1\2\3\4", 4);
    program(f->rig, READ, 0x1000, 4);
    g_assert_cmpuint(move(f->rig, 2, DMA_TO_DEVICE, data, 4, &end), ==, 4);
    g_assert_true(end);
    g_assert_cmpmem(data, 4, "\1\2\3\4", 4);
    /* Where there is no memory, the bus floats. */
    program(f->rig, READ, 0xff0000, 4);
    move(f->rig, 2, DMA_TO_DEVICE, data, 4, &end);
    g_assert_cmpmem(data, 4, "\xff\xff\xff\xff", 4);
}

/* Verification, and a channel that goes the other way: the count runs, memory stays. */
static void no_transfer(struct fixture *f, const void *unused)
{
    static const unsigned modes[] = { VERIFY, READ };
    (void)unused;
    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        uint8_t data[2] = { 9, 9 }, seen[2];
        bool end;
        guest_write(f->rig->board.guest, GPA(0x1000), "\1\2", 2);
        program(f->rig, modes[i], 0x1000, 2);
        g_assert_cmpuint(move(f->rig, 2, DMA_TO_MEMORY, data, 2, &end), ==, 2);
        g_assert_true(end);
        guest_read(f->rig->board.guest, GPA(0x1000), seen, 2);
        g_assert_cmpmem(seen, 2, "\1\2", 2);
    }
}

static void again(struct fixture *f, const void *unused)
{
    uint8_t data[8] = { 0 };
    bool end;
    (void)unused;
    program(f->rig, WRITE | AUTOINIT, 0x2000, 8);
    g_assert_cmpuint(move(f->rig, 2, DMA_TO_MEMORY, data, 8, &end), ==, 8);
    g_assert_true(end);
    g_assert_cmphex(word(f->rig, 4), ==, 0x2000);
    g_assert_cmpuint(word(f->rig, 5), ==, 7);
    g_assert_cmphex(rig_in(f->rig, ALL_MASK, 1), ==, 0xfb);
    g_assert_cmpuint(move(f->rig, 2, DMA_TO_MEMORY, data, 3, &end), ==, 3);
}

/* Addresses stay within their 64 KiB, in both directions. */
static void page(struct fixture *f, const void *unused)
{
    uint8_t data[4] = { 1, 2, 3, 4 }, seen[2];
    bool end;
    (void)unused;
    program(f->rig, WRITE, 0x3fffe, 4);
    g_assert_cmpuint(move(f->rig, 2, DMA_TO_MEMORY, data, 4, &end), ==, 4);
    guest_read(f->rig->board.guest, GPA(0x3fffe), seen, 2);
    g_assert_cmpmem(seen, 2, "\1\2", 2);
    guest_read(f->rig->board.guest, GPA(0x30000), seen, 2);
    g_assert_cmpmem(seen, 2, "\3\4", 2);
    program(f->rig, WRITE | DOWN, 0x30001, 4);
    g_assert_cmpuint(move(f->rig, 2, DMA_TO_MEMORY, data, 4, &end), ==, 4);
    guest_read(f->rig->board.guest, GPA(0x30000), seen, 2);
    g_assert_cmpmem(seen, 2, "\2\1", 2);
    guest_read(f->rig->board.guest, GPA(0x3fffe), seen, 2);
    g_assert_cmpmem(seen, 2, "\4\3", 2);
}

static void words(struct fixture *f, const void *unused)
{
    uint8_t data[6] = { 1, 2, 3, 4, 5, 6 }, seen[6];
    bool end;
    (void)unused;
    rig_out(f->rig, SECOND + 2 * CLEAR, 1, 0);
    rig_out(f->rig, SECOND + 2 * MODE, 1, WRITE | 1);
    rig_out(f->rig, SECOND + 4, 1, 0x00); /* word 0x8000 of the page: byte 0x10000 */
    rig_out(f->rig, SECOND + 4, 1, 0x80);
    rig_out(f->rig, SECOND + 6, 1, 2);
    rig_out(f->rig, SECOND + 6, 1, 0);
    rig_out(f->rig, PAGE5, 1, 0x05); /* bit 0 does not count */
    rig_out(f->rig, SECOND + 2 * MASK, 1, 1);
    g_assert_cmpuint(move(f->rig, 5, DMA_TO_MEMORY, data, 6, &end), ==, 6);
    g_assert_true(end);
    guest_read(f->rig->board.guest, GPA(0x50000), seen, 6);
    g_assert_cmpmem(seen, 6, data, 6);
}

static void expect_closed(struct rig *rig, bool closed)
{
    uint8_t byte = 0;
    bool end;
    g_assert_cmpuint(move(rig, 2, DMA_TO_MEMORY, &byte, 1, &end), ==, !closed);
    move(rig, 2, DMA_TO_MEMORY, &byte, 0, &end);
}

static void masks(struct fixture *f, const void *unused)
{
    (void)unused;
    program(f->rig, WRITE, 0x1000, 100);
    expect_closed(f->rig, false);
    rig_out(f->rig, COMMAND, 1, 4); /* the controller is off */
    expect_closed(f->rig, true);
    rig_out(f->rig, COMMAND, 1, 0);
    rig_out(f->rig, SECOND + 2 * MASK, 1, 4); /* channel 4 is masked: nothing passes */
    expect_closed(f->rig, true);
    rig_out(f->rig, SECOND + 2 * MASK, 1, 0);
    expect_closed(f->rig, false);
    rig_out(f->rig, MASTER, 1, 0);
    expect_closed(f->rig, true);
    rig_out(f->rig, UNMASK, 1, 0);
    expect_closed(f->rig, false);
    rig_out(f->rig, ALL_MASK, 1, 4);
    expect_closed(f->rig, true);
    rig_out(f->rig, ALL_MASK, 1, 0xb);
    expect_closed(f->rig, false);
    rig_out(f->rig, MODE, 1, CASCADE | 2);
    expect_closed(f->rig, true);
}

static void woken(void *owner)
{
    ++*(unsigned *)owner;
}

/* Whoever found its channel masked hears when it is open. */
static void sleeper(struct fixture *f, const void *unused)
{
    struct dma dma = device_dma(f->rig->dev, 2);
    struct timer timer;
    GMutex lock;
    unsigned count = 0;
    uint8_t byte = 0;
    bool end;
    (void)unused;
    g_mutex_init(&lock);
    timer_init(&timer, f->rig->board.clock, &lock, woken, &count);
    g_assert_cmpuint(dma_move(&dma, DMA_TO_MEMORY, &byte, 1, &end, &timer), ==, 0);
    program(f->rig, WRITE, 0x1000, 100);
    clock_advance(f->rig->board.clock, 1, 0);
    g_assert_cmpuint(count, ==, 1);
    g_assert_cmpuint(dma_move(&dma, DMA_TO_MEMORY, &byte, 1, &end, &timer), ==, 1);
    rig_out(f->rig, MASK, 1, 2);
    clock_advance(f->rig->board.clock, 1, 0);
    g_assert_cmpuint(count, ==, 1);
    timer_finish(&timer);
    g_mutex_clear(&lock);
}

/* All page registers keep what is written: POST codes go to some of them. */
static void pages(struct fixture *f, const void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < 16; i++)
        rig_out(f->rig, 0x80 + i, 1, 0xa0 + i);
    for (unsigned i = 0; i < 16; i++)
        g_assert_cmphex(rig_in(f->rig, 0x80 + i, 1), ==, 0xa0 + i);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(struct fixture *f, const void *unused);
    } tests[] = {
        { "to-memory", to_memory }, { "to-device", to_device }, { "no-transfer", no_transfer },
        { "autoinit", again },      { "page", page },           { "words", words },
        { "masks", masks },         { "sleeper", sleeper },     { "pages", pages },
    };
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_autofree char *path = g_strdup_printf("/i8237/%s", tests[i].name);
        g_test_add(path, struct fixture, NULL, set_up, tests[i].run, tear_down);
    }
    return g_test_run();
}
