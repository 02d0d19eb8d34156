/* Messages, routes and lines, over a KVM that counts, and refuses when it is told to. */
#include "machine/interrupts.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static struct {
    int refuses;
    unsigned tables, entries; /* taken; of the last */
    uint64_t address;         /* of the last message without a route */
    unsigned messages;
    int fd; /* of the last line */
} fake;

int kvm_vm_set_routing(const struct kvm_vm *vm, const struct kvm_irq_routing *table)
{
    (void)vm;
    if (fake.refuses)
        return fake.refuses;
    fake.tables++;
    fake.entries = table->nr;
    return 0;
}

int kvm_vm_signal_msi(const struct kvm_vm *vm, uint64_t address, uint32_t data)
{
    (void)vm, (void)data;
    fake.address = address;
    fake.messages++;
    return 1;
}

int kvm_vm_irqfd(const struct kvm_vm *vm, int fd, uint32_t gsi, bool on)
{
    (void)vm, (void)gsi;
    fake.fd = on ? fd : -1;
    return 0;
}

static struct interrupts *fresh(void)
{
    struct interrupts *in = g_new0(struct interrupts, 1);
    memset(&fake, 0, sizeof fake);
    interrupts_init(in, NULL);
    in->ready = true;
    return in;
}

/* How often the line's irqfd was signalled since the last look. */
static uint64_t signals(void)
{
    uint64_t count = 0;
    return read(fake.fd, &count, sizeof count) == sizeof count ? count : 0;
}

static void line(void)
{
    struct interrupts *in = fresh();
    int number = interrupts_open_line(in);
    interrupts_route_line(in, number, 0xfee00000, 0x41);
    g_assert_cmpuint(fake.tables, ==, 0); /* not before it is needed */
    interrupts_send_line(in, number);
    interrupts_send_line(in, number);
    g_assert_cmpuint(fake.tables, ==, 1);
    g_assert_cmpuint(fake.entries, ==, 1);
    g_assert_cmpuint(signals(), ==, 2);
    g_assert_cmpuint(fake.messages, ==, 0);
    interrupts_close_line(in, number);
    g_free(in);
}

/* The kernel does not take the table: the message reaches the new address all the same, and the
 * table is offered again. */
static void refused(void)
{
    struct interrupts *in = fresh();
    int number = interrupts_open_line(in);
    interrupts_route_line(in, number, 0xfee00000, 0x41);
    interrupts_send_line(in, number);
    g_assert_cmpuint(signals(), ==, 1);
    fake.refuses = -ENOMEM;
    interrupts_route_line(in, number, 0xfee01000, 0x42);
    interrupts_send_line(in, number);
    g_assert_cmpuint(signals(), ==, 0); /* it leads to the old address */
    g_assert_cmpuint(fake.messages, ==, 1);
    g_assert_cmphex(fake.address, ==, 0xfee01000);
    fake.refuses = 0;
    interrupts_send_line(in, number);
    g_assert_cmpuint(signals(), ==, 1);
    g_assert_cmpuint(fake.messages, ==, 1);
    g_assert_cmpuint(fake.tables, ==, 2);
    interrupts_close_line(in, number);
    g_free(in);
}

/* An address that is no local APIC's: nobody is interrupted, and the other routes are good. */
static void no_message(void)
{
    struct interrupts *in = fresh();
    int good = interrupts_open_line(in), bad = interrupts_open_line(in);
    const struct msi_route pins[2] = { { .address = 0xfee00000, .data = 0x30 },
                                       { .address = 0x1000, .data = 0x31 } };
    interrupts_route_line(in, good, 0xfee00000, 0x41);
    interrupts_route_line(in, bad, UINT64_C(0x12fee00000), 0x42);
    interrupts_set_pins(in, pins, 2);
    g_assert_cmpuint(fake.entries, ==, 2); /* a pin and a line */
    interrupts_send(in, 0x1000, 0x31);
    g_assert_cmpuint(fake.messages, ==, 0);
    interrupts_close_line(in, bad);
    interrupts_close_line(in, good);
    g_free(in);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/interrupts/line", line);
    g_test_add_func("/interrupts/refused", refused);
    g_test_add_func("/interrupts/no-message", no_message);
    return g_test_run();
}
