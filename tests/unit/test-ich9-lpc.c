/* The LPC bridge: PIRQ routing, the ACPI PM block, resets, what stands behind RCBA. */
#include "rig/rig.h"

enum { PM = 0x600, PM1_STS = PM, PM1_EN = PM + 2, PM1_CNT = PM + 4, PM_TMR = PM + 8 };
enum { PIRQA = 0x60, PIRQE = 0x68 };
#define CARRY_NS UINT64_C(2343484438) /* 2^23 ticks of 3.579545 MHz, rounded up */

/* As firmware leaves it: PMBASE at 0x600, ACPI on. */
static struct rig *setup(void)
{
    struct rig *rig = rig_new(device_class_find("ich9-lpc"), NULL);
    rig_config_write(rig, 0x40, 4, PM | 1);
    rig_config_write(rig, 0x44, 1, 0x80);
    return rig;
}

static void pirq(struct rig *rig, unsigned pin, bool level)
{
    struct irq_input input = device_irq_input(rig->dev, pin);
    input.set(input.opaque, input.pin, level);
}

static bool level(struct rig *rig, const char *line)
{
    return rig_line(rig, line)->level;
}

static void routing(void)
{
    struct rig *rig = setup();
    g_assert_cmphex(rig_config_read(rig, PIRQA, 4), ==, 0x80808080);
    pirq(rig, 0, true);
    for (unsigned i = 0; i < 17; i++)
        g_assert_false(rig->lines[i].level); /* not routed at reset */
    rig_config_write(rig, PIRQA, 1, 10);
    g_assert_true(level(rig, "irq10"));
    rig_config_write(rig, PIRQA, 1, 11); /* moves while it is high */
    g_assert_false(level(rig, "irq10"));
    g_assert_true(level(rig, "irq11"));
    rig_config_write(rig, PIRQE + 3, 1, 11); /* H shares it */
    pirq(rig, 7, true);
    pirq(rig, 0, false);
    g_assert_true(level(rig, "irq11"));
    pirq(rig, 7, false);
    g_assert_false(level(rig, "irq11"));
    rig_config_write(rig, PIRQE + 3, 1, 8); /* reserved */
    pirq(rig, 7, true);
    g_assert_false(level(rig, "irq8"));
    rig_free(rig);
}

static void routing_after_load(void)
{
    struct rig *a = setup(), *b = rig_new(device_class_find("ich9-lpc"), NULL);
    rig_config_write(a, PIRQA, 1, 5);
    g_autoptr(GByteArray) out = g_byte_array_new();
    device_save(a->dev, out);
    const uint8_t *in = out->data;
    size_t length = out->len;
    g_assert_true(device_load(b->dev, &in, &length, NULL));
    pirq(b, 0, true);
    g_assert_true(level(b, "irq5"));
    g_assert_cmphex(rig_in(b, PM1_CNT, 2), ==, 1); /* the PM block is back */
    g_assert_cmphex(rig_config_read(b, 0x40, 4), ==, PM | 1);
    g_assert_cmphex(rig_config_read(b, 0x04, 2), ==, 7);
    rig_free(a);
    rig_free(b);
}

static void pmbase(void)
{
    struct rig *rig = rig_new(device_class_find("ich9-lpc"), NULL);
    g_assert_cmphex(rig_config_read(rig, 0, 4), ==, 0x29188086);
    g_assert_cmphex(rig_config_read(rig, 0x0e, 1), ==, 0x80);
    g_assert_cmphex(rig_config_read(rig, 0x40, 4), ==, 1);
    rig_config_write(rig, 0x40, 4, 0xffffffff);
    g_assert_cmphex(rig_config_read(rig, 0x40, 4), ==, 0xff81);
    rig_config_write(rig, 0x40, 4, PM);
    g_assert_cmphex(rig_in(rig, PM1_CNT, 2), ==, 0xffff); /* ACPI_EN is off */
    rig_config_write(rig, 0x44, 1, 0x80);
    g_assert_cmphex(rig_in(rig, PM1_CNT, 2), ==, 1);
    rig_config_write(rig, 0x40, 4, 0xb000);
    g_assert_cmphex(rig_in(rig, PM1_CNT, 2), ==, 0xffff);
    g_assert_cmphex(rig_in(rig, 0xb004, 2), ==, 1);
    device_reset(rig->dev);
    g_assert_cmphex(rig_in(rig, 0xb004, 2), ==, 0xffff);
    rig_free(rig);
}

static void pm_timer(void)
{
    struct rig *rig = setup();
    g_assert_cmphex(rig_in(rig, PM_TMR, 4), ==, 0);
    clock_advance(rig->board.clock, NS_PER_SECOND, 0);
    g_assert_cmpuint(rig_in(rig, PM_TMR, 4), ==, 3579545);
    clock_advance(rig->board.clock, 4 * NS_PER_SECOND, 0);
    g_assert_cmpuint(rig_in(rig, PM_TMR, 4), ==, 5 * 3579545 - (1 << 24));
    device_reset(rig->dev);
    rig_config_write(rig, 0x40, 4, PM | 1);
    rig_config_write(rig, 0x44, 1, 0x80);
    g_assert_cmpuint(rig_in(rig, PM_TMR, 4), ==, 0);
    rig_free(rig);
}

static void carry_interrupt(void)
{
    struct rig *rig = setup();
    clock_advance(rig->board.clock, CARRY_NS - 1000, 0);
    g_assert_cmphex(rig_in(rig, PM1_STS, 2), ==, 0);
    clock_advance(rig->board.clock, 1000, 0);
    g_assert_cmphex(rig_in(rig, PM1_STS, 2), ==, 1); /* status comes without being enabled */
    g_assert_false(level(rig, "sci"));
    rig_out(rig, PM1_STS, 2, 1);
    g_assert_cmphex(rig_in(rig, PM1_STS, 2), ==, 0);
    rig_out(rig, PM1_EN, 2, 1);
    clock_advance(rig->board.clock, CARRY_NS - 2000, 0);
    g_assert_false(level(rig, "sci"));
    clock_advance(rig->board.clock, 3000, 0);
    g_assert_true(level(rig, "sci"));
    rig_out(rig, PM1_STS, 2, 0x0020); /* another bit */
    g_assert_true(level(rig, "sci"));
    rig_out(rig, PM1_STS, 4, 0x00010001);
    g_assert_false(level(rig, "sci"));
    clock_advance(rig->board.clock, CARRY_NS, 0);
    g_assert_cmpuint(rig_line(rig, "sci")->rises, ==, 2);
    rig_free(rig);
}

static void count(void *owner)
{
    ++*(unsigned *)owner;
}

static void idle_arms_nothing(void)
{
    struct rig *rig = setup();
    GMutex lock;
    struct timer later;
    unsigned runs = 0;
    g_mutex_init(&lock);
    timer_init(&later, rig->board.clock, &lock, count, &runs);
    timer_set(&later, 90 * NS_PER_SECOND);
    /* One callback is allowed: it is the later one, for the device has set none. */
    clock_advance(rig->board.clock, 100 * NS_PER_SECOND, 1);
    g_assert_cmpuint(runs, ==, 1);
    g_assert_cmphex(rig_in(rig, PM1_STS, 2), ==, 1);
    timer_finish(&later);
    g_mutex_clear(&lock);
    rig_free(rig);
}

static void press(struct rig *rig)
{
    g_mutex_lock(&rig->dev->lock);
    rig->dev->class->power_button(rig->dev);
    g_mutex_unlock(&rig->dev->lock);
}

static void button(void)
{
    struct rig *rig = setup();
    press(rig);
    g_assert_cmphex(rig_in(rig, PM1_STS, 2), ==, 0x100);
    g_assert_false(level(rig, "sci"));
    rig_out(rig, PM1_EN + 1, 1, 1); /* PWRBTN_EN, as a byte */
    g_assert_true(level(rig, "sci"));
    rig_config_write(rig, 0x44, 1, 0x81); /* the SCI on IRQ10 */
    g_assert_false(level(rig, "sci"));
    g_assert_true(level(rig, "irq10"));
    rig_config_write(rig, 0x44, 1, 0x80);
    rig_out(rig, PM1_STS + 1, 1, 1);
    g_assert_false(level(rig, "sci"));
    rig_free(rig);
}

static void sleep_types(void)
{
    struct rig *rig = setup();
    rig_out(rig, PM1_CNT, 2, 7 << 10); /* a type, no SLP_EN */
    g_assert_cmphex(rig_in(rig, PM1_CNT, 2), ==, 7 << 10 | 1);
    g_assert_cmpuint(rig->requests[BOARD_POWER_OFF], ==, 0);
    rig_out(rig, PM1_CNT, 2, 0x2000); /* S5 of the DSDT */
    g_assert_cmpuint(rig->requests[BOARD_POWER_OFF], ==, 1);
    g_assert_cmphex(rig_in(rig, PM1_CNT, 2), ==, 1); /* SLP_EN is write-only */
    rig_out(rig, PM1_CNT, 2, 0x2000 | 1 << 10);
    g_assert_cmpuint(rig->requests[BOARD_SUSPEND], ==, 1);
    g_assert_cmphex(rig_in(rig, PM1_STS, 2) & 0x8000, ==, 0x8000);
    rig_out(rig, PM1_CNT, 2, 0x2000 | 3 << 10); /* nothing */
    g_assert_cmpuint(rig->requests[BOARD_SUSPEND] + rig->requests[BOARD_POWER_OFF], ==, 2);
    rig_free(rig);
}

static void gpe_and_smi(void)
{
    struct rig *rig = setup();
    rig_out(rig, PM + 0x28, 4, 0x12345678);
    rig_out(rig, PM + 0x2d, 1, 0xab);
    g_assert_cmphex(rig_in(rig, PM + 0x28, 4), ==, 0x12345678);
    g_assert_cmphex(rig_in(rig, PM + 0x2c, 4), ==, 0xab00);
    g_assert_cmphex(rig_in(rig, PM + 0x30, 4) & 0x21, ==, 0x21);
    rig_out(rig, PM + 0x30, 4, 0);
    g_assert_cmphex(rig_in(rig, PM + 0x30, 4), ==, 0x21); /* locked */
    rig_out(rig, PM1_EN, 2, 0x20);
    rig_out(rig, PM + 0x30, 4, 0x80); /* BIOS_RLS raises GBL_STS */
    g_assert_true(level(rig, "sci"));
    rig_out(rig, PM1_CNT, 2, 4); /* GBL_RLS raises BIOS_STS */
    g_assert_cmphex(rig_in(rig, PM + 0x34, 4), ==, 4);
    rig_out(rig, PM + 0x34, 4, 4);
    g_assert_cmphex(rig_in(rig, PM + 0x34, 4), ==, 0);
    g_assert_cmphex(rig_in(rig, PM + 0x68, 2) & 0x800, ==, 0x800); /* the watchdog is halted */
    rig_free(rig);
}

static void resets(void)
{
    struct rig *rig = setup();
    rig_out(rig, 0xcf9, 1, 0x02);
    g_assert_cmpuint(rig->requests[BOARD_RESET], ==, 0);
    rig_out(rig, 0xcf9, 1, 0x06);
    g_assert_cmpuint(rig->requests[BOARD_RESET], ==, 1);
    rig_out(rig, 0xcf9, 1, 0x0e); /* no rise */
    g_assert_cmpuint(rig->requests[BOARD_RESET], ==, 1);
    g_assert_cmphex(rig_in(rig, 0xcf9, 1), ==, 0x0e);
    rig_out(rig, 0x92, 1, 0x02);
    g_assert_cmphex(rig_in(rig, 0x92, 1), ==, 0x02);
    g_assert_cmpuint(rig->requests[BOARD_RESET], ==, 1);
    rig_out(rig, 0x92, 1, 0x03);
    rig_out(rig, 0x92, 1, 0x01);
    g_assert_cmpuint(rig->requests[BOARD_RESET], ==, 2);
    rig_out(rig, 0xb2, 2, 0x1234);
    g_assert_cmphex(rig_in(rig, 0xb3, 1), ==, 0x12);
    rig_free(rig);
}

static void rcba(void)
{
    struct rig *rig = setup();
    rig_config_write(rig, 0xf0, 4, 0xfed1c001);
    g_assert_cmphex(rig_load(rig, 0xfed1f410, 4), ==, 0xc20);
    rig_store(rig, 0xfed1f410, 4, 0); /* NO_REBOOT is strapped */
    g_assert_cmphex(rig_load(rig, 0xfed1f410, 4), ==, 0xc20);
    rig_store(rig, 0xfed1f1ff, 1, 1); /* OIC */
    g_assert_cmphex(rig_load(rig, 0xfed1f1fc, 4), ==, 0x01000000);
    g_assert_cmphex(rig_load(rig, 0xfed1f1ff, 1), ==, 1);
    g_assert_cmphex(rig_load(rig, 0xfed1f140, 2), ==, 0x3210);
    g_assert_cmphex(rig_load(rig, 0xfed1c000, 4), ==, 0);
    rig_config_write(rig, 0xf0, 4, 0xfed1c000);
    g_assert_cmphex(rig_load(rig, 0xfed1f410, 4), ==, 0xffffffff);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/ich9-lpc/routing", routing);
    g_test_add_func("/ich9-lpc/routing-after-load", routing_after_load);
    g_test_add_func("/ich9-lpc/pmbase", pmbase);
    g_test_add_func("/ich9-lpc/pm-timer", pm_timer);
    g_test_add_func("/ich9-lpc/carry-interrupt", carry_interrupt);
    g_test_add_func("/ich9-lpc/idle-arms-nothing", idle_arms_nothing);
    g_test_add_func("/ich9-lpc/button", button);
    g_test_add_func("/ich9-lpc/sleep-types", sleep_types);
    g_test_add_func("/ich9-lpc/gpe-and-smi", gpe_and_smi);
    g_test_add_func("/ich9-lpc/resets", resets);
    g_test_add_func("/ich9-lpc/rcba", rcba);
    return g_test_run();
}
