/* libkvm: a typed wrapper of the KVM ioctls that a PC needs (Linux Documentation/virt/kvm/api.rst).
 *
 * C and libc only, no state but the descriptors, usable alone (examples/tiny-vmm.c). Every function
 * that returns int gives 0 or more on success and -errno on failure. System and VM functions may be
 * called from any thread; vCPU functions from the thread that runs the vCPU (or before it runs),
 * but for kvm_vcpu_kick's store. */
#pragma once
#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- the system: /dev/kvm ------------------------------------------------------------------- */

struct kvm {
    int fd;
    size_t run_size; /* of the area shared with each vCPU */
};

/* Opens `path` (NULL: /dev/kvm). -ENOTSUP: not the KVM interface of Linux 2.6.22 and later. */
int kvm_open(struct kvm *kvm, const char *path);
/* Takes over an open descriptor of /dev/kvm. */
int kvm_adopt(struct kvm *kvm, int fd);
void kvm_close(struct kvm *kvm);

/* KVM_CHECK_EXTENSION: 0 when the host lacks it, else 1 or a count. */
int kvm_check(const struct kvm *kvm, long capability);

enum { KVM_CPUID_ROOM = 256, KVM_MSR_ROOM = 512 };

/* What a guest may be told of the host's CPU; no entries after a failure. */
struct kvm_cpuid_table {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 entry[KVM_CPUID_ROOM];
};
int kvm_supported_cpuid(const struct kvm *kvm, struct kvm_cpuid_table *cpuid);

/* The MSRs that hold guest state; none after a failure. */
struct kvm_msr_names {
    struct kvm_msr_list head;
    uint32_t index[KVM_MSR_ROOM];
};
int kvm_msr_index_list(const struct kvm *kvm, struct kvm_msr_names *names);

/* --- a virtual machine ---------------------------------------------------------------------- */

struct kvm_vm {
    const struct kvm *kvm;
    int fd;
};

int kvm_vm_create(const struct kvm *kvm, struct kvm_vm *vm);
void kvm_vm_close(struct kvm_vm *vm);

int kvm_vm_check(const struct kvm_vm *vm, long capability);
int kvm_vm_enable(const struct kvm_vm *vm, uint32_t capability, uint64_t argument);

/* Four pages below 4 GiB that no slot uses, wanted by Intel's real mode. */
int kvm_vm_reserve(const struct kvm_vm *vm, uint64_t identity_map, uint64_t tss);

/* KVM_SET_USER_MEMORY_REGION; size 0 deletes. flags: KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY. */
int kvm_vm_memory(const struct kvm_vm *vm, uint32_t slot, uint32_t flags, uint64_t at,
                  uint64_t size, void *host);
/* Fetches and clears the dirty bitmap, one bit for each 4 KiB page of the slot. */
int kvm_vm_dirty_log(const struct kvm_vm *vm, uint32_t slot, void *bitmap);

/* The local APICs in the kernel, the I/O APIC (with `pins` pins) and the PIC in user space. */
int kvm_vm_split_irqchip(const struct kvm_vm *vm, unsigned pins);
int kvm_vm_signal_msi(const struct kvm_vm *vm, uint64_t address, uint32_t data);
int kvm_vm_set_routing(const struct kvm_vm *vm, const struct kvm_irq_routing *routing);
/* A write to the eventfd `fd` raises line `gsi`, as the routing says; or no longer does. */
int kvm_vm_irqfd(const struct kvm_vm *vm, int fd, uint32_t gsi, bool on);
/* A write of any width to `address` signals the eventfd `fd` instead of leaving the guest; or no
 * longer does. */
int kvm_vm_ioeventfd(const struct kvm_vm *vm, int fd, uint64_t address, bool on);

int kvm_vm_get_clock(const struct kvm_vm *vm, struct kvm_clock_data *clock);
int kvm_vm_set_clock(const struct kvm_vm *vm, const struct kvm_clock_data *clock);

/* --- a virtual CPU -------------------------------------------------------------------------- */

struct kvm_vcpu {
    int fd;
    struct kvm_run *run; /* shared with the kernel */
    size_t run_size;
};

int kvm_vcpu_create(const struct kvm_vm *vm, struct kvm_vcpu *vcpu, unsigned id);
void kvm_vcpu_close(struct kvm_vcpu *vcpu);

/* KVM_RUN: 0 with run->exit_reason, -EINTR after a signal or immediate_exit, -EAGAIN when a waiting
 * vCPU was woken; other errors are the machine's end. */
int kvm_vcpu_run(const struct kvm_vcpu *vcpu);
/* Makes the present or the next KVM_RUN return -EINTR, once the vCPU's thread gets a signal. */
static inline void kvm_vcpu_set_immediate_exit(const struct kvm_vcpu *vcpu, bool on)
{
    __atomic_store_n(&vcpu->run->immediate_exit, on, __ATOMIC_SEQ_CST);
}

int kvm_vcpu_set_cpuid(const struct kvm_vcpu *vcpu, const struct kvm_cpuid_table *cpuid);
/* Injects an external interrupt; only while run->ready_for_interrupt_injection. */
int kvm_vcpu_interrupt(const struct kvm_vcpu *vcpu, uint8_t vector);
int kvm_vcpu_nmi(const struct kvm_vcpu *vcpu);
/* Tells the guest's kvmclock watchdog that time stood still. */
int kvm_vcpu_clock_stopped(const struct kvm_vcpu *vcpu);
/* Guest-virtual to guest-physical, by the page tables the vCPU uses now. */
int kvm_vcpu_translate(const struct kvm_vcpu *vcpu, uint64_t linear, uint64_t *physical);

int kvm_vcpu_get_regs(const struct kvm_vcpu *vcpu, struct kvm_regs *regs);
int kvm_vcpu_set_regs(const struct kvm_vcpu *vcpu, const struct kvm_regs *regs);
int kvm_vcpu_get_sregs(const struct kvm_vcpu *vcpu, struct kvm_sregs *sregs);
int kvm_vcpu_set_sregs(const struct kvm_vcpu *vcpu, const struct kvm_sregs *sregs);
int kvm_vcpu_get_mp_state(const struct kvm_vcpu *vcpu, struct kvm_mp_state *state);

struct kvm_msr_values {
    struct kvm_msrs head;
    struct kvm_msr_entry entry[KVM_MSR_ROOM];
};
/* Both return how many of head.nmsrs were done; the next one is what the host refuses. */
int kvm_vcpu_get_msrs(const struct kvm_vcpu *vcpu, struct kvm_msr_values *values);
int kvm_vcpu_set_msrs(const struct kvm_vcpu *vcpu, const struct kvm_msr_values *values);

/* The rest of a vCPU's state: parts of fixed size, each with one ioctl to get and one to set it, in
 * the order in which they must be set. */
struct kvm_part {
    const char *name;
    unsigned long get, set;
    size_t size;
};
extern const struct kvm_part kvm_parts[];
extern const size_t kvm_part_count, kvm_part_max; /* how many; the largest size */
int kvm_vcpu_get_part(const struct kvm_vcpu *vcpu, const struct kvm_part *part, void *to);
int kvm_vcpu_set_part(const struct kvm_vcpu *vcpu, const struct kvm_part *part, const void *from);
