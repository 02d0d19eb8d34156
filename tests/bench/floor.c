/* The floor: the least a program can do to run a guest on KVM, as the yardstick of tests/bench. It
 * maps RAM and a ROM, makes an interrupt controller and one vCPU, runs, passes COM1's bytes to
 * stdout and ends with what the guest writes to port 0xf4. Nothing else exists: reads give ones.
 * Linux Documentation/virt/kvm/api.rst. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LOW = 0xe0000, ROM_SIZE = 128 << 10, RAM_SIZE = 256 << 20, COM1 = 0x3f8, EXIT_PORT = 0xf4 };
enum { IOAPIC_PINS = 24, CPUID_ENTRIES = 128 };

static int check(int result, const char *what)
{
    if (result >= 0)
        return result;
    perror(what);
    exit(1);
}

static void *map(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(memory == MAP_FAILED ? -1 : 0, "mmap");
    return memory;
}

static void slot(int vm, uint32_t number, uint64_t guest, uint64_t size, void *host, uint32_t flags)
{
    struct kvm_userspace_memory_region region = { number, flags, guest, size, (uintptr_t)host };
    check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
}

static void cpuid(int kvm, int vcpu)
{
    static struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entries[CPUID_ENTRIES];
    } table = { .head.nent = CPUID_ENTRIES };
    check(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &table), "KVM_GET_SUPPORTED_CPUID");
    check(ioctl(vcpu, KVM_SET_CPUID2, &table), "KVM_SET_CPUID2");
}

static void port(struct kvm_run *run)
{
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    if (run->io.direction == KVM_EXIT_IO_IN)
        memset(data, 0xff, (size_t)run->io.size * run->io.count);
    else if (run->io.port == EXIT_PORT)
        _exit(*data);
    else if (run->io.port == COM1)
        check((int)write(STDOUT_FILENO, data, run->io.count), "write");
}

int main(int argc, char **argv)
{
    int kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
    int file = check(open(argc > 1 ? argv[1] : "", O_RDONLY | O_CLOEXEC), "usage: floor ROM");
    uint8_t *ram = map(RAM_SIZE), *rom = map(ROM_SIZE);
    check(read(file, rom, ROM_SIZE) == ROM_SIZE ? 0 : -1, "ROM of 128 KiB");

    int vm = check(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    slot(vm, 0, 0, LOW, ram, 0);
    slot(vm, 1, LOW, ROM_SIZE, rom, KVM_MEM_READONLY);
    slot(vm, 2, 1 << 20, RAM_SIZE - (1 << 20), ram + (1 << 20), 0);
    slot(vm, 3, (1ull << 32) - ROM_SIZE, ROM_SIZE, rom, KVM_MEM_READONLY);
    struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { IOAPIC_PINS } };
    check(ioctl(vm, KVM_ENABLE_CAP, &split), "KVM_CAP_SPLIT_IRQCHIP");

    int vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    size_t run_size =
        (size_t)check(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
    struct kvm_run *run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    check(run == MAP_FAILED ? -1 : 0, "mmap");
    cpuid(kvm, vcpu);

    for (;;) {
        check(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
        switch (run->exit_reason) {
        case KVM_EXIT_IO:
            port(run);
            break;
        case KVM_EXIT_MMIO:
            if (!run->mmio.is_write)
                memset(run->mmio.data, 0xff, sizeof run->mmio.data);
            break;
        default:
            fprintf(stderr, "exit reason %u\n", run->exit_reason);
            return 1;
        }
    }
}
