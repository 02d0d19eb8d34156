/* Messages, routes and lines; see interrupts.h. */
#include "machine/interrupts.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

void interrupts_init(struct interrupts *in, const struct kvm_vm *vm)
{
    in->vm = vm;
    g_mutex_init(&in->lock);
    for (unsigned i = 0; i < IOAPIC_PINS; i++)
        in->pins[i].masked = true;
}

/* Is a write there a message to a local APIC (Intel SDM volume 3, 11.11.1)? A guest may program
 * anything; KVM would make an interrupt of it, or refuse it and all routes beside it. */
static bool is_message(uint64_t address)
{
    return address >> 20 == 0xfee;
}

void interrupts_send(struct interrupts *in, uint64_t address, uint32_t data)
{
    if (is_message(address))
        kvm_vm_signal_msi(in->vm, address, data);
}

static struct kvm_irq_routing_entry entry(uint32_t gsi, uint64_t address, uint32_t data)
{
    return (struct kvm_irq_routing_entry){
        .gsi = gsi,
        .type = KVM_IRQ_ROUTING_MSI,
        .u.msi = { .address_lo = (uint32_t)address,
                   .address_hi = (uint32_t)(address >> 32),
                   .data = data },
    };
}

/* Hands the kernel the table. It takes all or nothing: what it refuses (for lack of memory) stays
 * stale and is offered again with the next message. Locked. */
static void commit(struct interrupts *in)
{
    struct {
        struct kvm_irq_routing head;
        struct kvm_irq_routing_entry entry[IOAPIC_PINS + LINES];
    } table;
    unsigned count = 0;
    table.head = (struct kvm_irq_routing){ .nr = 0 };
    for (uint32_t i = 0; i < IOAPIC_PINS; i++)
        if (!in->pins[i].masked && is_message(in->pins[i].address))
            table.entry[count++] = entry(i, in->pins[i].address, in->pins[i].data);
    for (uint32_t i = 0; i < LINES; i++)
        if (in->lines[i].open && in->lines[i].routed && is_message(in->lines[i].address))
            table.entry[count++] = entry(IOAPIC_PINS + i, in->lines[i].address, in->lines[i].data);
    table.head.nr = count;
    int result = kvm_vm_set_routing(in->vm, &table.head);
    if (result < 0 && log_limit_pass(&in->log, "interrupts"))
        log_warn("interrupts", "KVM refuses the routes: %s", g_strerror(-result));
    __atomic_store_n(&in->stale, result < 0, __ATOMIC_RELEASE);
}

void interrupts_set_pins(struct interrupts *in, const struct msi_route *routes, unsigned count)
{
    if (!in->ready)
        return; /* nothing is routed at reset */
    g_mutex_lock(&in->lock);
    for (unsigned i = 0; i < IOAPIC_PINS; i++)
        in->pins[i] = i < count ? routes[i] : (struct msi_route){ .masked = true };
    commit(in);
    g_mutex_unlock(&in->lock);
}

int interrupts_open_line(struct interrupts *in)
{
    int number = -1;
    g_mutex_lock(&in->lock);
    for (int i = 0; i < LINES && number < 0; i++)
        if (!in->lines[i].open)
            number = i;
    if (number >= 0) {
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        bool open =
            fd >= 0 && kvm_vm_irqfd(in->vm, fd, (uint32_t)(IOAPIC_PINS + number), true) >= 0;
        in->lines[number] = (struct line){ .fd = fd, .open = open };
        if (!open && fd >= 0)
            close(fd);
        number = open ? number : -1;
    }
    g_mutex_unlock(&in->lock);
    return number;
}

void interrupts_route_line(struct interrupts *in, int number, uint64_t address, uint32_t data)
{
    g_mutex_lock(&in->lock);
    struct line *line = &in->lines[number];
    line->routed = true;
    line->address = address;
    line->data = data;
    __atomic_store_n(&in->stale, true, __ATOMIC_RELEASE);
    g_mutex_unlock(&in->lock);
}

/* Does the kernel have all routes by now? */
static bool fresh(struct interrupts *in)
{
    bool stale = __atomic_load_n(&in->stale, __ATOMIC_ACQUIRE);
    if (stale) {
        g_mutex_lock(&in->lock);
        if (in->stale)
            commit(in);
        stale = in->stale;
        g_mutex_unlock(&in->lock);
    }
    return !stale;
}

int interrupts_line_fd(struct interrupts *in, int number)
{
    return fresh(in) ? in->lines[number].fd : -1; /* the caller's line */
}

/* While the kernel does not have the route, the message is sent without: dearer, but not lost, and
 * not where the line led before. */
void interrupts_send_line(struct interrupts *in, int number)
{
    const struct line *line = &in->lines[number]; /* the caller's */
    uint64_t one = 1;
    if (!fresh(in)) {
        if (line->routed)
            interrupts_send(in, line->address, line->data);
        return;
    }
    ssize_t ignored = write(line->fd, &one, sizeof one);
    (void)ignored;
}

void interrupts_close_line(struct interrupts *in, int number)
{
    g_mutex_lock(&in->lock);
    struct line *line = &in->lines[number];
    kvm_vm_irqfd(in->vm, line->fd, (uint32_t)(IOAPIC_PINS + number), false);
    close(line->fd);
    *line = (struct line){ .open = false };
    __atomic_store_n(&in->stale, true, __ATOMIC_RELEASE);
    g_mutex_unlock(&in->lock);
}
