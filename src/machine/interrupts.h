/* How interrupts reach the local APICs in the kernel: messages, the I/O APIC's routes, and lines
 * (irqfds) for the MSI-X vectors of ready drivers; and doorbells (ioeventfds), their counterpart.
 *
 * Any thread; the lock is a leaf. The routes of all lines and of the I/O APIC are one table in the
 * kernel, which costs it a grace period to change: lines only note a new route, and the next
 * message through any of them commits all. While the kernel refuses the table, messages are sent
 * one by one. */
#pragma once
#include "base/log.h"
#include "bus/device.h"
#include "libkvm/kvm.h"

enum { IOAPIC_PINS = 24, LINES = 256 };

struct interrupts {
    const struct kvm_vm *vm;
    bool ready; /* the irqchip is there */

    GMutex lock; /* protects what follows */
    struct msi_route pins[IOAPIC_PINS];
    struct line {
        int fd; /* of an eventfd, while `open` */
        bool open, routed;
        uint64_t address;
        uint32_t data;
    } lines[LINES];
    bool stale; /* the kernel's table is not this one; atomic */
    struct log_limit log;
};

void interrupts_init(struct interrupts *interrupts, const struct kvm_vm *vm);

void interrupts_send(struct interrupts *interrupts, uint64_t address, uint32_t data);
void interrupts_set_pins(struct interrupts *interrupts, const struct msi_route *routes,
                         unsigned count);

/* As board_ops has them (bus/device.h). */
int interrupts_open_line(struct interrupts *interrupts);
void interrupts_route_line(struct interrupts *interrupts, int line, uint64_t address,
                           uint32_t data);
void interrupts_send_line(struct interrupts *interrupts, int line);
void interrupts_close_line(struct interrupts *interrupts, int line);
int interrupts_line_fd(struct interrupts *interrupts, int line);
