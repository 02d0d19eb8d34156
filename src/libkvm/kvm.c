/* libkvm; see kvm.h. */
#include "libkvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int call(int fd, unsigned long request, unsigned long argument)
{
    int result = ioctl(fd, request, argument);
    return result < 0 ? -errno : result;
}

static int call_with(int fd, unsigned long request, const void *argument)
{
    return call(fd, request, (unsigned long)argument);
}

/* --- the system ----------------------------------------------------------------------------- */

int kvm_open(struct kvm *kvm, const char *path)
{
    int fd = open(path ? path : "/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = kvm_adopt(kvm, fd);
    if (result < 0)
        close(fd);
    return result;
}

int kvm_adopt(struct kvm *kvm, int fd)
{
    int version = call(fd, KVM_GET_API_VERSION, 0);
    if (version == -EBADF)
        return version;
    if (version != KVM_API_VERSION)
        return -ENOTSUP;
    int size = call(fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run))
        return -ENOTSUP;
    *kvm = (struct kvm){ .fd = fd, .run_size = (size_t)size };
    return 0;
}

void kvm_close(struct kvm *kvm)
{
    close(kvm->fd);
    kvm->fd = -1;
}

int kvm_check(const struct kvm *kvm, long capability)
{
    int result = call(kvm->fd, KVM_CHECK_EXTENSION, (unsigned long)capability);
    return result < 0 ? 0 : result;
}

int kvm_supported_cpuid(const struct kvm *kvm, struct kvm_cpuid_table *cpuid)
{
    cpuid->head.nent = KVM_CPUID_ROOM;
    int result = call_with(kvm->fd, KVM_GET_SUPPORTED_CPUID, cpuid);
    if (result < 0)
        cpuid->head.nent = 0;
    return result;
}

int kvm_msr_index_list(const struct kvm *kvm, struct kvm_msr_names *names)
{
    names->head.nmsrs = KVM_MSR_ROOM;
    int result = call_with(kvm->fd, KVM_GET_MSR_INDEX_LIST, names);
    if (result < 0)
        names->head.nmsrs = 0; /* with -E2BIG the kernel says how many there are: more than room */
    return result;
}

/* --- a virtual machine ---------------------------------------------------------------------- */

int kvm_vm_create(const struct kvm *kvm, struct kvm_vm *vm)
{
    int fd;
    do /* a signal while the kernel makes its worker threads is no failure */
        fd = call(kvm->fd, KVM_CREATE_VM, 0);
    while (fd == -EINTR);
    if (fd < 0)
        return fd;
    *vm = (struct kvm_vm){ .kvm = kvm, .fd = fd };
    return 0;
}

void kvm_vm_close(struct kvm_vm *vm)
{
    close(vm->fd);
    vm->fd = -1;
}

int kvm_vm_check(const struct kvm_vm *vm, long capability)
{
    int result = call(vm->fd, KVM_CHECK_EXTENSION, (unsigned long)capability);
    return result < 0 ? 0 : result;
}

int kvm_vm_enable(const struct kvm_vm *vm, uint32_t capability, uint64_t argument)
{
    struct kvm_enable_cap enable = { .cap = capability, .args = { argument } };
    return call_with(vm->fd, KVM_ENABLE_CAP, &enable);
}

int kvm_vm_reserve(const struct kvm_vm *vm, uint64_t identity_map, uint64_t tss)
{
    int result = call_with(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
    return result < 0 ? result : call(vm->fd, KVM_SET_TSS_ADDR, tss);
}

int kvm_vm_memory(const struct kvm_vm *vm, uint32_t slot, uint32_t flags, uint64_t at,
                  uint64_t size, void *host)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot,
        .flags = flags,
        .guest_phys_addr = at,
        .memory_size = size,
        .userspace_addr = (uintptr_t)host,
    };
    return call_with(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

int kvm_vm_dirty_log(const struct kvm_vm *vm, uint32_t slot, void *bitmap)
{
    struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = bitmap };
    return call_with(vm->fd, KVM_GET_DIRTY_LOG, &log);
}

int kvm_vm_split_irqchip(const struct kvm_vm *vm, unsigned pins)
{
    return kvm_vm_enable(vm, KVM_CAP_SPLIT_IRQCHIP, pins);
}

int kvm_vm_signal_msi(const struct kvm_vm *vm, uint64_t address, uint32_t data)
{
    struct kvm_msi msi = {
        .address_lo = (uint32_t)address,
        .address_hi = (uint32_t)(address >> 32),
        .data = data,
    };
    return call_with(vm->fd, KVM_SIGNAL_MSI, &msi);
}

int kvm_vm_set_routing(const struct kvm_vm *vm, const struct kvm_irq_routing *routing)
{
    return call_with(vm->fd, KVM_SET_GSI_ROUTING, routing);
}

int kvm_vm_irqfd(const struct kvm_vm *vm, int fd, uint32_t gsi, bool on)
{
    struct kvm_irqfd irqfd = {
        .fd = (uint32_t)fd,
        .gsi = gsi,
        .flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
    };
    return call_with(vm->fd, KVM_IRQFD, &irqfd);
}

int kvm_vm_ioeventfd(const struct kvm_vm *vm, int fd, uint64_t address, bool on)
{
    struct kvm_ioeventfd ioeventfd = {
        .addr = address,
        .fd = fd,
        .flags = on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN,
    };
    return call_with(vm->fd, KVM_IOEVENTFD, &ioeventfd);
}

int kvm_vm_get_clock(const struct kvm_vm *vm, struct kvm_clock_data *clock)
{
    return call_with(vm->fd, KVM_GET_CLOCK, clock);
}

int kvm_vm_set_clock(const struct kvm_vm *vm, const struct kvm_clock_data *clock)
{
    return call_with(vm->fd, KVM_SET_CLOCK, clock);
}

/* --- a virtual CPU -------------------------------------------------------------------------- */

int kvm_vcpu_create(const struct kvm_vm *vm, struct kvm_vcpu *vcpu, unsigned id)
{
    int fd = call(vm->fd, KVM_CREATE_VCPU, id);
    if (fd < 0)
        return fd;
    size_t size = vm->kvm->run_size;
    void *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (run == MAP_FAILED) {
        int result = -errno;
        close(fd);
        return result;
    }
    *vcpu = (struct kvm_vcpu){ .fd = fd, .run = run, .run_size = size };
    return 0;
}

void kvm_vcpu_close(struct kvm_vcpu *vcpu)
{
    munmap(vcpu->run, vcpu->run_size);
    close(vcpu->fd);
    *vcpu = (struct kvm_vcpu){ .fd = -1 };
}

int kvm_vcpu_run(const struct kvm_vcpu *vcpu)
{
    return call(vcpu->fd, KVM_RUN, 0);
}

int kvm_vcpu_set_cpuid(const struct kvm_vcpu *vcpu, const struct kvm_cpuid_table *cpuid)
{
    return call_with(vcpu->fd, KVM_SET_CPUID2, cpuid);
}

int kvm_vcpu_interrupt(const struct kvm_vcpu *vcpu, uint8_t vector)
{
    struct kvm_interrupt interrupt = { .irq = vector };
    return call_with(vcpu->fd, KVM_INTERRUPT, &interrupt);
}

int kvm_vcpu_nmi(const struct kvm_vcpu *vcpu)
{
    return call(vcpu->fd, KVM_NMI, 0);
}

int kvm_vcpu_clock_stopped(const struct kvm_vcpu *vcpu)
{
    return call(vcpu->fd, KVM_KVMCLOCK_CTRL, 0);
}

int kvm_vcpu_translate(const struct kvm_vcpu *vcpu, uint64_t linear, uint64_t *physical)
{
    struct kvm_translation translation = { .linear_address = linear };
    int result = call_with(vcpu->fd, KVM_TRANSLATE, &translation);
    if (result < 0)
        return result;
    *physical = translation.physical_address;
    return translation.valid ? 0 : -EFAULT;
}

int kvm_vcpu_get_regs(const struct kvm_vcpu *vcpu, struct kvm_regs *regs)
{
    return call_with(vcpu->fd, KVM_GET_REGS, regs);
}

int kvm_vcpu_set_regs(const struct kvm_vcpu *vcpu, const struct kvm_regs *regs)
{
    return call_with(vcpu->fd, KVM_SET_REGS, regs);
}

int kvm_vcpu_get_sregs(const struct kvm_vcpu *vcpu, struct kvm_sregs *sregs)
{
    return call_with(vcpu->fd, KVM_GET_SREGS, sregs);
}

int kvm_vcpu_set_sregs(const struct kvm_vcpu *vcpu, const struct kvm_sregs *sregs)
{
    return call_with(vcpu->fd, KVM_SET_SREGS, sregs);
}

int kvm_vcpu_get_mp_state(const struct kvm_vcpu *vcpu, struct kvm_mp_state *state)
{
    return call_with(vcpu->fd, KVM_GET_MP_STATE, state);
}

int kvm_vcpu_get_msrs(const struct kvm_vcpu *vcpu, struct kvm_msr_values *values)
{
    return call_with(vcpu->fd, KVM_GET_MSRS, values);
}

int kvm_vcpu_set_msrs(const struct kvm_vcpu *vcpu, const struct kvm_msr_values *values)
{
    return call_with(vcpu->fd, KVM_SET_MSRS, values);
}

/* Set in this order: the special registers hold the APIC base, which must be right before the local
 * APIC is filled; events and the run state come last, as they depend on all the rest. */
const struct kvm_part kvm_parts[] = {
    { "sregs", KVM_GET_SREGS, KVM_SET_SREGS, sizeof(struct kvm_sregs) },
    { "regs", KVM_GET_REGS, KVM_SET_REGS, sizeof(struct kvm_regs) },
    { "xcrs", KVM_GET_XCRS, KVM_SET_XCRS, sizeof(struct kvm_xcrs) },
    { "xsave", KVM_GET_XSAVE, KVM_SET_XSAVE, sizeof(struct kvm_xsave) },
    { "debugregs", KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, sizeof(struct kvm_debugregs) },
    { "lapic", KVM_GET_LAPIC, KVM_SET_LAPIC, sizeof(struct kvm_lapic_state) },
    { "events", KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, sizeof(struct kvm_vcpu_events) },
    { "mp_state", KVM_GET_MP_STATE, KVM_SET_MP_STATE, sizeof(struct kvm_mp_state) },
};
const size_t kvm_part_count = sizeof kvm_parts / sizeof kvm_parts[0];
const size_t kvm_part_max = sizeof(struct kvm_xsave);

int kvm_vcpu_get_part(const struct kvm_vcpu *vcpu, const struct kvm_part *part, void *to)
{
    return call_with(vcpu->fd, part->get, to);
}

int kvm_vcpu_set_part(const struct kvm_vcpu *vcpu, const struct kvm_part *part, const void *from)
{
    return call_with(vcpu->fd, part->set, from);
}
