/* The 16550A: FIFOs, interrupts and their priorities, the loop. */
#include "rig/rig.h"

#include <string.h>

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };
enum { OUT2 = 8, LOOP = 0x10 };
/* 4 characters of 10 bits at 115200 baud. */
#define TIMEOUT_NS (UINT64_C(4) * 10 * NS_PER_SECOND / 115200)

static unsigned readies;

static void count_ready(struct stream *stream)
{
    (void)stream;
    readies++;
}

/* 115200 8N1, interrupts gated through. */
static struct rig *setup(void)
{
    struct rig *rig = rig_new(device_class_find("serial"), NULL);
    readies = 0;
    rig->stream.ready = count_ready;
    rig_out(rig, LCR, 1, 0x80);
    rig_out(rig, 0, 1, 1);
    rig_out(rig, 1, 1, 0);
    rig_out(rig, LCR, 1, 0x03);
    rig_out(rig, MCR, 1, OUT2);
    return rig;
}

static size_t give(struct rig *rig, const char *text)
{
    g_mutex_lock(&rig->dev->lock);
    size_t taken = rig->dev->class->receive(rig->dev, (const uint8_t *)text, strlen(text));
    g_mutex_unlock(&rig->dev->lock);
    return taken;
}

static bool irq(struct rig *rig)
{
    return rig_line(rig, "irq")->level;
}

static void at_reset(void)
{
    struct rig *rig = rig_new(device_class_find("serial"), NULL);
    static const uint8_t values[] = { 0, 0, 1, 0, 0, 0x60, 0xb0, 0 };
    for (unsigned i = 1; i < 8; i++)
        g_assert_cmphex(rig_in(rig, i, 1), ==, values[i]);
    rig_out(rig, SCR, 1, 0x5a);
    rig_out(rig, IER, 1, 0xff);
    g_assert_cmphex(rig_in(rig, SCR, 1), ==, 0x5a);
    g_assert_cmphex(rig_in(rig, IER, 1), ==, 0x0f);
    rig_free(rig);
}

static void transmits(void)
{
    struct rig *rig = setup();
    for (const char *c = "hello\xff"; *c; c++)
        rig_out(rig, DATA, 1, (uint8_t)*c);
    g_assert_cmpmem(rig->output->data, rig->output->len, "hello\xff", 6);
    rig_out(rig, LCR, 1, 0x02); /* 7 bits */
    rig_out(rig, DATA, 1, 0xc1);
    g_assert_cmphex(rig->output->data[6], ==, 0x41);
    rig_out(rig, LCR, 1, 0x83); /* the divisor latch is no data */
    rig_out(rig, DATA, 1, 12);
    g_assert_cmpuint(rig->output->len, ==, 7);
    g_assert_cmphex(rig_in(rig, DATA, 1), ==, 12);
    rig_free(rig);
}

static void thr_empty_interrupt(void)
{
    struct rig *rig = setup();
    rig_out(rig, IER, 1, 2); /* enabling tells at once */
    g_assert_true(irq(rig));
    g_assert_cmphex(rig_in(rig, IIR, 1), ==, 0x02);
    g_assert_false(irq(rig)); /* reading IIR was the acknowledgement */
    g_assert_cmphex(rig_in(rig, IIR, 1), ==, 0x01);
    rig_out(rig, IER, 1, 2); /* enabled already: no edge */
    g_assert_false(irq(rig));
    rig_out(rig, DATA, 1, 'a');
    g_assert_true(irq(rig));
    unsigned rises = rig_line(rig, "irq")->rises;
    rig_out(rig, DATA, 1, 'b'); /* each byte gives an edge, read or not */
    g_assert_cmpuint(rig_line(rig, "irq")->rises, ==, rises + 1);
    rig_out(rig, IER, 1, 0);
    g_assert_false(irq(rig));
    rig_out(rig, MCR, 1, 0);
    rig_out(rig, IER, 1, 2);
    g_assert_false(irq(rig)); /* OUT2 cuts the line */
    g_assert_cmphex(rig_in(rig, IIR, 1), ==, 0x02);
    rig_free(rig);
}

static void without_fifo(void)
{
    struct rig *rig = setup();
    rig_out(rig, IER, 1, 1);
    g_assert_cmpuint(give(rig, "ab"), ==, 1);
    g_assert_true(irq(rig));
    g_assert_cmphex(rig_in(rig, IIR, 1), ==, 0x04);
    g_assert_cmphex(rig_in(rig, LSR, 1), ==, 0x61);
    g_assert_cmpuint(readies, ==, 0);
    g_assert_cmphex(rig_in(rig, DATA, 1), ==, 'a');
    g_assert_cmpuint(readies, ==, 1);
    g_assert_false(irq(rig));
    g_assert_cmphex(rig_in(rig, LSR, 1), ==, 0x60);
    g_assert_cmpuint(give(rig, "b"), ==, 1);
    g_assert_cmphex(rig_in(rig, DATA, 1), ==, 'b');
    g_assert_cmpuint(readies, ==, 1); /* nothing was refused */
    rig_free(rig);
}

static void fifo_trigger(void)
{
    static const unsigned levels[] = { 1, 4, 8, 14 };
    for (unsigned i = 0; i < 4; i++) {
        struct rig *rig = setup();
        rig_out(rig, IER, 1, 1);
        rig_out(rig, IIR, 1, 0x07 | i << 6);
        for (unsigned n = 1; n <= levels[i]; n++) {
            g_assert_false(irq(rig));
            give(rig, "x");
        }
        g_assert_true(irq(rig));
        g_assert_cmphex(rig_in(rig, IIR, 1), ==, 0xc4);
        rig_in(rig, DATA, 1);
        g_assert_false(irq(rig)); /* below the level */
        rig_free(rig);
    }
}

static void fifo_order_and_room(void)
{
    struct rig *rig = setup();
    rig_out(rig, IIR, 1, 0x01);
    g_assert_cmpuint(give(rig, "0123456789abcdefgh"), ==, 16);
    for (unsigned i = 0; i < 5; i++)
        g_assert_cmphex(rig_in(rig, DATA, 1), ==, '0' + i);
    g_assert_cmpuint(give(rig, "ghijkl"), ==, 5);
    for (const char *c = "56789abcdefghijk"; *c; c++) {
        g_assert_cmphex(rig_in(rig, LSR, 1), ==, 0x61);
        g_assert_cmphex(rig_in(rig, DATA, 1), ==, *c);
    }
    g_assert_cmphex(rig_in(rig, LSR, 1), ==, 0x60);
    g_assert_cmpuint(readies, ==, 1);
    give(rig, "xyz");
    rig_out(rig, IIR, 1, 0x03); /* clear */
    g_assert_cmphex(rig_in(rig, LSR, 1), ==, 0x60);
    give(rig, "xyz");
    rig_out(rig, IIR, 1, 0x00); /* switching the FIFO empties it */
    g_assert_cmphex(rig_in(rig, LSR, 1), ==, 0x60);
    rig_free(rig);
}

static void fifo_timeout(void)
{
    struct rig *rig = setup();
    rig_out(rig, IIR, 1, 0x81); /* 8 */
    rig_out(rig, IER, 1, 1);
    give(rig, "ab");
    clock_advance(rig->board.clock, TIMEOUT_NS - 10, 0);
    g_assert_false(irq(rig));
    clock_advance(rig->board.clock, 20, 0);
    g_assert_true(irq(rig));
    g_assert_cmphex(rig_in(rig, IIR, 1), ==, 0xcc);
    g_assert_true(irq(rig));
    rig_in(rig, DATA, 1); /* acknowledges, and starts the time for the other byte */
    g_assert_false(irq(rig));
    clock_advance(rig->board.clock, TIMEOUT_NS, 0);
    g_assert_true(irq(rig));
    rig_in(rig, DATA, 1);
    clock_advance(rig->board.clock, TIMEOUT_NS, 0);
    g_assert_false(irq(rig));
    rig_free(rig);
}

static void priorities(void)
{
    struct rig *rig = setup();
    rig_out(rig, MCR, 1, LOOP | OUT2);
    rig_in(rig, MSR, 1);
    rig_out(rig, DATA, 1, 1);
    rig_out(rig, DATA, 1, 2);              /* overrun */
    rig_out(rig, MCR, 1, LOOP | OUT2 | 1); /* DSR */
    rig_out(rig, IER, 1, 0x0f);
    g_assert_cmphex(rig_in(rig, IIR, 1), ==, 0x06);
    g_assert_cmphex(rig_in(rig, LSR, 1), ==, 0x63);
    g_assert_cmphex(rig_in(rig, IIR, 1), ==, 0x04);
    g_assert_cmphex(rig_in(rig, DATA, 1), ==, 2); /* without a FIFO the new byte stays */
    g_assert_cmphex(rig_in(rig, IIR, 1), ==, 0x02);
    g_assert_cmphex(rig_in(rig, IIR, 1), ==, 0x00);
    g_assert_true(irq(rig));
    g_assert_cmphex(rig_in(rig, MSR, 1), ==, 0xa2);
    g_assert_cmphex(rig_in(rig, IIR, 1), ==, 0x01);
    g_assert_false(irq(rig));
    rig_free(rig);
}

static void loop(void)
{
    struct rig *rig = setup();
    rig_out(rig, MCR, 1, LOOP | 0x0f);
    g_assert_cmphex(rig_in(rig, MSR, 1) & 0xf0, ==, 0xf0);
    rig_out(rig, MCR, 1, LOOP);
    g_assert_cmphex(rig_in(rig, MSR, 1), ==, 0x0f);
    g_assert_cmphex(rig_in(rig, MSR, 1), ==, 0x00);
    rig_out(rig, MCR, 1, LOOP | 4);
    g_assert_cmphex(rig_in(rig, MSR, 1), ==, 0x40); /* TERI is the falling edge */
    rig_out(rig, IIR, 1, 0x01);
    for (unsigned i = 0; i < 17; i++)
        rig_out(rig, DATA, 1, i);
    g_assert_cmphex(rig_in(rig, LSR, 1), ==, 0x63);
    g_assert_cmphex(rig_in(rig, LSR, 1), ==, 0x61);
    for (unsigned i = 0; i < 16; i++)
        g_assert_cmphex(rig_in(rig, DATA, 1), ==, i);
    g_assert_cmpuint(rig->output->len, ==, 0);
    g_assert_cmpuint(give(rig, "a"), ==, 0); /* the line is cut off */
    rig_out(rig, MCR, 1, 0);
    g_assert_cmpuint(readies, ==, 1);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/serial/at-reset", at_reset);
    g_test_add_func("/serial/transmits", transmits);
    g_test_add_func("/serial/thr-empty-interrupt", thr_empty_interrupt);
    g_test_add_func("/serial/without-fifo", without_fifo);
    g_test_add_func("/serial/fifo-trigger", fifo_trigger);
    g_test_add_func("/serial/fifo-order-and-room", fifo_order_and_room);
    g_test_add_func("/serial/fifo-timeout", fifo_timeout);
    g_test_add_func("/serial/priorities", priorities);
    g_test_add_func("/serial/loop", loop);
    return g_test_run();
}
