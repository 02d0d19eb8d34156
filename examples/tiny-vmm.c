/* The smallest use of libkvm: a 16-bit guest that adds two numbers and says so on a port.
 *
 *   $ tiny-vmm
 *   the guest says: 2 + 2 = 4
 */
#include "libkvm/kvm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* Real mode, loaded at 0x1000: al = al + bl + '0'; out 0xe9, al; hlt */
static const unsigned char program[] = { 0x00, 0xd8, 0x04, '0', 0xe6, 0xe9, 0xf4 };
enum { LOAD = 0x1000, MEMORY = 0x10000 };

static int fail(const char *what, int error)
{
    fprintf(stderr, "tiny-vmm: %s: %s\n", what, strerror(-error));
    return 1;
}

static int run(struct kvm_vcpu *vcpu)
{
    for (;;) {
        int error = kvm_vcpu_run(vcpu);
        if (error == -EINTR)
            continue;
        if (error < 0)
            return fail("run", error);
        const struct kvm_run *exit = vcpu->run;
        switch (exit->exit_reason) {
        case KVM_EXIT_IO:
            printf("the guest says: 2 + 2 = %c\n", *((const char *)exit + exit->io.data_offset));
            break;
        case KVM_EXIT_HLT:
            return 0;
        default:
            fprintf(stderr, "tiny-vmm: exit reason %u\n", exit->exit_reason);
            return 1;
        }
    }
}

int main(void)
{
    struct kvm kvm;
    struct kvm_vm vm;
    struct kvm_vcpu vcpu;
    int error = kvm_open(&kvm, NULL);
    if (error < 0)
        return fail("/dev/kvm", error);
    if ((error = kvm_vm_create(&kvm, &vm)) < 0)
        return fail("create a VM", error);

    void *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return fail("memory", -errno);
    memcpy((char *)memory + LOAD, program, sizeof program);
    if ((error = kvm_vm_memory(&vm, 0, 0, 0, MEMORY, memory)) < 0)
        return fail("give it memory", error);

    if ((error = kvm_vcpu_create(&vm, &vcpu, 0)) < 0)
        return fail("create a vCPU", error);
    struct kvm_sregs sregs;
    if ((error = kvm_vcpu_get_sregs(&vcpu, &sregs)) < 0)
        return fail("registers", error);
    sregs.cs.base = sregs.cs.selector = 0; /* from the reset vector down to segment 0 */
    const struct kvm_regs regs = { .rip = LOAD, .rflags = 2, .rax = 2, .rbx = 2 };
    if ((error = kvm_vcpu_set_sregs(&vcpu, &sregs)) < 0 ||
        (error = kvm_vcpu_set_regs(&vcpu, &regs)) < 0)
        return fail("registers", error);
    return run(&vcpu);
}
