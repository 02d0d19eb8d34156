/* libkvm: on the host's /dev/kvm where there is one, and what it says of descriptors that are none.
 */
#include "libkvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LOAD = 0x1000, MEMORY = 0x10000 };

static void not_kvm(void)
{
    struct kvm kvm = { .fd = 7, .run_size = 7 };
    g_assert_cmpint(kvm_open(&kvm, "/dev/does-not-exist"), ==, -ENOENT);
    g_assert_cmpint(kvm_open(&kvm, "/"), ==, -EISDIR);
    g_assert_cmpint(kvm_adopt(&kvm, -1), ==, -EBADF);
    g_assert_cmpint(kvm_open(&kvm, "/dev/null"), ==, -ENOTSUP); /* a device of another kind */
    int file = memfd_create("test", MFD_CLOEXEC);
    g_assert_cmpint(kvm_adopt(&kvm, file), ==, -ENOTSUP);
    g_assert_true(fcntl(file, F_GETFD) >= 0); /* what is not taken over stays its owner's */
    close(file);
    g_assert_cmpint(kvm.fd, ==, 7);
}

/* Every call on closed descriptors fails with the reason, and no function of a count lies. */
static void bad_descriptors(void)
{
    const struct kvm kvm = { .fd = -1, .run_size = sizeof(struct kvm_run) };
    const struct kvm_vm no_vm = { .kvm = &kvm, .fd = -1 };
    const struct kvm_vcpu no_vcpu = { .fd = -1 };
    struct kvm_vm vm;
    struct kvm_vcpu vcpu;
    g_autofree struct kvm_cpuid_table *cpuid = g_new0(struct kvm_cpuid_table, 1);
    g_autofree struct kvm_msr_names *names = g_new0(struct kvm_msr_names, 1);
    g_autofree struct kvm_msr_values *values = g_new0(struct kvm_msr_values, 1);
    g_autofree uint8_t *part = g_malloc0(kvm_part_max);
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_clock_data clock = { 0 };
    struct kvm_irq_routing routing = { 0 };
    uint64_t physical = 1;

    g_assert_cmpint(kvm_check(&kvm, KVM_CAP_NR_MEMSLOTS), ==, 0);
    g_assert_cmpint(kvm_supported_cpuid(&kvm, cpuid), ==, -EBADF);
    g_assert_cmpuint(cpuid->head.nent, ==, 0);
    g_assert_cmpint(kvm_msr_index_list(&kvm, names), ==, -EBADF);
    g_assert_cmpuint(names->head.nmsrs, ==, 0);
    g_assert_cmpint(kvm_vm_create(&kvm, &vm), ==, -EBADF);

    g_assert_cmpint(kvm_vm_check(&no_vm, KVM_CAP_NR_MEMSLOTS), ==, 0);
    g_assert_cmpint(kvm_vm_enable(&no_vm, KVM_CAP_SPLIT_IRQCHIP, 24), ==, -EBADF);
    g_assert_cmpint(kvm_vm_split_irqchip(&no_vm, 24), ==, -EBADF);
    g_assert_cmpint(kvm_vm_reserve(&no_vm, 0xfeffc000, 0xfeffd000), ==, -EBADF);
    g_assert_cmpint(kvm_vm_memory(&no_vm, 0, 0, 0, 4096, part), ==, -EBADF);
    g_assert_cmpint(kvm_vm_dirty_log(&no_vm, 0, part), ==, -EBADF);
    g_assert_cmpint(kvm_vm_signal_msi(&no_vm, 0xfee00000, 0x30), ==, -EBADF);
    g_assert_cmpint(kvm_vm_set_routing(&no_vm, &routing), ==, -EBADF);
    g_assert_cmpint(kvm_vm_get_clock(&no_vm, &clock), ==, -EBADF);
    g_assert_cmpint(kvm_vm_set_clock(&no_vm, &clock), ==, -EBADF);

    g_assert_cmpint(kvm_vcpu_create(&no_vm, &vcpu, 0), ==, -EBADF);
    g_assert_cmpint(kvm_vcpu_run(&no_vcpu), ==, -EBADF);
    g_assert_cmpint(kvm_vcpu_set_cpuid(&no_vcpu, cpuid), ==, -EBADF);
    g_assert_cmpint(kvm_vcpu_interrupt(&no_vcpu, 0x20), ==, -EBADF);
    g_assert_cmpint(kvm_vcpu_nmi(&no_vcpu), ==, -EBADF);
    g_assert_cmpint(kvm_vcpu_clock_stopped(&no_vcpu), ==, -EBADF);
    g_assert_cmpint(kvm_vcpu_translate(&no_vcpu, 0, &physical), ==, -EBADF);
    g_assert_cmpuint(physical, ==, 1);
    g_assert_cmpint(kvm_vcpu_get_regs(&no_vcpu, &regs), ==, -EBADF);
    g_assert_cmpint(kvm_vcpu_set_regs(&no_vcpu, &regs), ==, -EBADF);
    g_assert_cmpint(kvm_vcpu_get_sregs(&no_vcpu, &sregs), ==, -EBADF);
    g_assert_cmpint(kvm_vcpu_set_sregs(&no_vcpu, &sregs), ==, -EBADF);
    g_assert_cmpint(kvm_vcpu_get_msrs(&no_vcpu, values), ==, -EBADF);
    g_assert_cmpint(kvm_vcpu_set_msrs(&no_vcpu, values), ==, -EBADF);
    for (size_t i = 0; i < kvm_part_count; i++) {
        g_assert_cmpint(kvm_vcpu_get_part(&no_vcpu, &kvm_parts[i], part), ==, -EBADF);
        g_assert_cmpint(kvm_vcpu_set_part(&no_vcpu, &kvm_parts[i], part), ==, -EBADF);
    }
}

/* The order in which the kernel needs them, and a buffer of kvm_part_max that fits each. */
static void parts_table(void)
{
    int sregs = -1, lapic = -1;
    for (size_t i = 0; i < kvm_part_count; i++) {
        g_assert_cmpuint(kvm_parts[i].size, >, 0);
        g_assert_cmpuint(kvm_parts[i].size, <=, kvm_part_max);
        sregs = strcmp(kvm_parts[i].name, "sregs") ? sregs : (int)i;
        lapic = strcmp(kvm_parts[i].name, "lapic") ? lapic : (int)i;
    }
    g_assert_cmpint(sregs, >=, 0);
    g_assert_cmpint(lapic, >, sregs); /* the APIC base first */
    g_assert_cmpstr(kvm_parts[kvm_part_count - 1].name, ==, "mp_state");
}

/* --- on the host's KVM ---------------------------------------------------------------------- */

struct host {
    struct kvm kvm;
    struct kvm_vm vm;
    struct kvm_vcpu vcpu;
    uint8_t *memory;
};

static bool skipped(struct kvm *kvm)
{
    int error = kvm_open(kvm, NULL);
    if (error == 0)
        return false;
    g_autofree char *why = g_strdup_printf("/dev/kvm: %s", g_strerror(-error));
    g_test_skip(why);
    return true;
}

/* A vCPU in real mode that is about to run `program` with ax = ds = 0. */
static bool start(struct host *h, const uint8_t *program, size_t size)
{
    if (skipped(&h->kvm))
        return false;
    g_assert_cmpint(kvm_vm_create(&h->kvm, &h->vm), ==, 0);
    h->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    g_assert_true(h->memory != MAP_FAILED);
    memcpy(h->memory + LOAD, program, size);
    g_assert_cmpint(kvm_vm_memory(&h->vm, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, MEMORY, h->memory), ==, 0);
    g_assert_cmpint(kvm_vcpu_create(&h->vm, &h->vcpu, 0), ==, 0);
    struct kvm_sregs sregs;
    g_assert_cmpint(kvm_vcpu_get_sregs(&h->vcpu, &sregs), ==, 0);
    sregs.cs.base = sregs.cs.selector = 0;
    g_assert_cmpint(kvm_vcpu_set_sregs(&h->vcpu, &sregs), ==, 0);
    const struct kvm_regs regs = { .rip = LOAD, .rflags = 2 };
    g_assert_cmpint(kvm_vcpu_set_regs(&h->vcpu, &regs), ==, 0);
    return true;
}

static void finish(struct host *h)
{
    kvm_vcpu_close(&h->vcpu);
    g_assert_cmpint(h->vcpu.fd, ==, -1);
    kvm_vm_close(&h->vm);
    kvm_close(&h->kvm);
    munmap(h->memory, MEMORY);
}

static unsigned run(struct host *h)
{
    int error;
    do
        error = kvm_vcpu_run(&h->vcpu);
    while (error == -EINTR);
    g_assert_cmpint(error, ==, 0);
    return h->vcpu.run->exit_reason;
}

static void system_questions(void)
{
    struct kvm kvm;
    g_autofree struct kvm_cpuid_table *cpuid = g_new0(struct kvm_cpuid_table, 1);
    g_autofree struct kvm_msr_names *names = g_new0(struct kvm_msr_names, 1);
    if (skipped(&kvm))
        return;
    g_assert_true(fcntl(kvm.fd, F_GETFD) & FD_CLOEXEC);
    g_assert_cmpuint(kvm.run_size, >=, sizeof(struct kvm_run));
    g_assert_cmpint(kvm_check(&kvm, KVM_CAP_USER_MEMORY), >, 0);
    g_assert_cmpint(kvm_check(&kvm, 0x7ffffff), ==, 0);
    g_assert_cmpint(kvm_supported_cpuid(&kvm, cpuid), ==, 0);
    g_assert_cmpuint(cpuid->head.nent, >, 4);
    g_assert_cmpuint(cpuid->head.nent, <=, KVM_CPUID_ROOM);
    g_assert_cmpint(kvm_msr_index_list(&kvm, names), ==, 0);
    g_assert_cmpuint(names->head.nmsrs, >, 0);
    g_assert_cmpuint(names->head.nmsrs, <=, KVM_MSR_ROOM);
    kvm_close(&kvm);
    g_assert_cmpint(kvm.fd, ==, -1);
}

static void runs_and_exits(void)
{
    /* mov al, 7; out 0xe9, al; in al, 0x60; mov [0x2345], al; hlt */
    static const uint8_t program[] = { 0xb0, 7, 0xe6, 0xe9, 0xe4, 0x60, 0xa2, 0x45, 0x23, 0xf4 };
    struct host h;
    struct kvm_regs regs;
    uint64_t physical, dirty[1] = { 0 };
    if (!start(&h, program, sizeof program))
        return;
    g_assert_cmpint(kvm_vcpu_translate(&h.vcpu, 0x1234, &physical), ==, 0);
    g_assert_cmpuint(physical, ==, 0x1234);

    g_assert_cmpuint(run(&h), ==, KVM_EXIT_IO);
    g_assert_cmpuint(h.vcpu.run->io.port, ==, 0xe9);
    g_assert_cmpuint(*((uint8_t *)h.vcpu.run + h.vcpu.run->io.data_offset), ==, 7);
    g_assert_cmpuint(run(&h), ==, KVM_EXIT_IO);
    g_assert_cmpuint(h.vcpu.run->io.direction, ==, KVM_EXIT_IO_IN);
    *((uint8_t *)h.vcpu.run + h.vcpu.run->io.data_offset) = 0x5a;
    g_assert_cmpuint(run(&h), ==, KVM_EXIT_HLT);
    g_assert_cmpint(kvm_vcpu_get_regs(&h.vcpu, &regs), ==, 0);
    g_assert_cmpuint(regs.rax & 0xff, ==, 0x5a);
    g_assert_cmpuint(h.memory[0x2345], ==, 0x5a);
    g_assert_cmpint(kvm_vm_dirty_log(&h.vm, 0, dirty), ==, 0);
    g_assert_true(dirty[0] & 1 << 2); /* the page of 0x2345, and of no other data */
    g_assert_false(dirty[0] & 1 << 5);
    g_assert_cmpint(kvm_vm_dirty_log(&h.vm, 0, dirty), ==, 0); /* fetching clears */
    g_assert_cmpuint(dirty[0], ==, 0);
    finish(&h);
}

/* A kick that is set before KVM_RUN holds: not one instruction of the guest runs. */
static void immediate_exit(void)
{
    static const uint8_t program[] = { 0xb0, 7, 0xf4 };
    struct host h;
    struct kvm_regs regs;
    if (!start(&h, program, sizeof program))
        return;
    kvm_vcpu_set_immediate_exit(&h.vcpu, true);
    g_assert_cmpint(kvm_vcpu_run(&h.vcpu), ==, -EINTR);
    g_assert_cmpint(kvm_vcpu_get_regs(&h.vcpu, &regs), ==, 0);
    g_assert_cmpuint(regs.rip, ==, LOAD);
    kvm_vcpu_set_immediate_exit(&h.vcpu, false);
    g_assert_cmpuint(run(&h), ==, KVM_EXIT_HLT);
    finish(&h);
}

/* What the kernel refuses comes back as its error and harms nothing. */
static void refusals(void)
{
    static const uint8_t program[] = { 0xf4 };
    struct host h;
    struct kvm_vcpu second;
    if (!start(&h, program, sizeof program))
        return;
    g_assert_cmpint(kvm_vcpu_create(&h.vm, &second, 0), ==, -EEXIST);
    g_assert_cmpint(kvm_vcpu_create(&h.vm, &second, 1u << 20), ==, -EINVAL);
    g_assert_cmpint(kvm_vm_memory(&h.vm, 1, 0, 0x800, 4096, h.memory), ==, -EINVAL); /* crooked */
    g_assert_cmpint(kvm_vm_memory(&h.vm, 1, 0, 0, 4096, h.memory), ==, -EEXIST);     /* overlaps */
    g_assert_cmpint(kvm_vm_dirty_log(&h.vm, 5, h.memory), <, 0);
    g_assert_cmpint(kvm_vm_split_irqchip(&h.vm, 24), ==, -EEXIST); /* a vCPU is there already */
    g_assert_cmpuint(run(&h), ==, KVM_EXIT_HLT);
    finish(&h);
}

/* Each part that is read can be set again, and gives the same bytes then. */
static void parts_round_trip(void)
{
    static const uint8_t program[] = { 0xf4 };
    struct host h;
    if (skipped(&h.kvm))
        return;
    g_assert_cmpint(kvm_vm_create(&h.kvm, &h.vm), ==, 0);
    g_assert_cmpint(kvm_vm_split_irqchip(&h.vm, 24), ==, 0); /* else there is no LAPIC to save */
    g_assert_cmpint(kvm_vcpu_create(&h.vm, &h.vcpu, 0), ==, 0);
    h.memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(h.memory, program, sizeof program);
    g_autofree uint8_t *first = g_malloc0(kvm_part_max), *second = g_malloc0(kvm_part_max);
    for (size_t i = 0; i < kvm_part_count; i++) {
        const struct kvm_part *part = &kvm_parts[i];
        g_assert_cmpint(kvm_vcpu_get_part(&h.vcpu, part, first), ==, 0);
        g_assert_cmpint(kvm_vcpu_set_part(&h.vcpu, part, first), ==, 0);
        g_assert_cmpint(kvm_vcpu_get_part(&h.vcpu, part, second), ==, 0);
        g_assert_cmpint(memcmp(first, second, part->size), ==, 0);
    }
    finish(&h);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/kvm/not-kvm", not_kvm);
    g_test_add_func("/kvm/bad-descriptors", bad_descriptors);
    g_test_add_func("/kvm/parts-table", parts_table);
    g_test_add_func("/kvm/system", system_questions);
    g_test_add_func("/kvm/runs-and-exits", runs_and_exits);
    g_test_add_func("/kvm/immediate-exit", immediate_exit);
    g_test_add_func("/kvm/refusals", refusals);
    g_test_add_func("/kvm/parts-round-trip", parts_round_trip);
    return g_test_run();
}
