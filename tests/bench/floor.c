/* The floor: the least a program can do to run a guest on KVM, as the yardstick of tests/bench. It
 * maps RAM and a ROM, makes an interrupt controller and one vCPU, runs, passes COM1's bytes to
 * stdout and ends with what the guest writes to port 0xf4. Nothing else exists: reads give ones.
 * Linux Documentation/virt/kvm/api.rst.
 *
 *   floor ROM [DISK [poll]]
 *
 * With a disk there is a virtio-mmio block device (virtio 1.2 sections 4.2.2 and 5.2) that believes
 * all that its driver says: one thread reads straight to guest memory, and sleeps until the driver
 * kicks, or with `poll` looks for requests itself for 50 us before. Reads of three descriptors are
 * all it knows. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
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

/* --- the disk ------------------------------------------------------------------------------- */

enum { DISK_AT = 0xfeb00000, DISK_END = DISK_AT + 0x200, DRIVER_OK = 4, NO_NOTIFY = 1 };
enum { SECTOR = 512, POLL_NS = 50000 };

static struct {
    uint8_t *ram;
    uint32_t registers[0x200 / 4];
    int file, kick;
    bool polls;
} disk = { .file = -1 };

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};
struct available {
    uint16_t flags, index, ring[];
};
struct used {
    uint16_t flags, index;
    struct {
        uint32_t id, length;
    } ring[];
};

static void *area(unsigned offset)
{
    return disk.ram + disk.registers[offset / 4];
}

static void read_one(const struct descriptor *table, uint16_t head)
{
    const struct descriptor *data = &table[table[head].next], *status = &table[data->next];
    uint64_t sector;
    memcpy(&sector, disk.ram + table[head].address + 8, sizeof sector);
    ssize_t got = pread(disk.file, disk.ram + data->address, data->length, (off_t)sector * SECTOR);
    disk.ram[status->address] = got != data->length;
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void *serve(void *unused)
{
    const struct descriptor *table = area(0x80);
    volatile struct available *available = area(0x90);
    volatile struct used *used = area(0xa0);
    uint16_t size = (uint16_t)disk.registers[0x38 / 4], taken = 0;
    uint64_t count;
    int64_t start = 0; /* of polling in vain */
    used->flags = disk.polls ? NO_NOTIFY : 0;
    for (;;) {
        while (taken != available->index) {
            uint16_t head = available->ring[taken % size];
            read_one(table, head);
            used->ring[taken % size].id = head;
            used->ring[taken % size].length = 1;
            taken++;
            start = 0;
        }
        __atomic_store_n(&used->index, taken, __ATOMIC_SEQ_CST);
        if (disk.polls && !start)
            start = now();
        if (disk.polls && now() - start < POLL_NS)
            continue;
        used->flags = 0;
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        if (taken == available->index)
            check((int)read(disk.kick, &count, sizeof count), "read");
        used->flags = disk.polls ? NO_NOTIFY : 0;
    }
    return unused;
}

static void start_disk(int vm)
{
    pthread_t thread;
    struct kvm_ioeventfd bell = { .addr = DISK_AT + 0x50, .len = 4, .fd = disk.kick };
    check(ioctl(vm, KVM_IOEVENTFD, &bell), "KVM_IOEVENTFD");
    check(-pthread_create(&thread, NULL, serve, NULL), "pthread_create");
}

static uint32_t disk_register(uint64_t offset)
{
    static const uint32_t known[] = { 0x74726976, 2, 2 }; /* magic, version, block device */
    return offset < sizeof known ? known[offset / 4] : 0;
}

static void mmio(int vm, struct kvm_run *run)
{
    uint64_t at = run->mmio.phys_addr;
    bool here = disk.file >= 0 && at >= DISK_AT && at < DISK_END && run->mmio.len == 4;
    uint32_t value = here ? disk_register(at - DISK_AT) : UINT32_MAX;
    if (!run->mmio.is_write) {
        memset(run->mmio.data, 0xff, sizeof run->mmio.data);
        memcpy(run->mmio.data, &value, sizeof value);
    } else if (here) {
        memcpy(&disk.registers[(at - DISK_AT) / 4], run->mmio.data, sizeof value);
        if (at == DISK_AT + 0x70 && run->mmio.data[0] & DRIVER_OK)
            start_disk(vm);
    }
}

/* --- the machine ---------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    int kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
    int file = check(open(argc > 1 ? argv[1] : "", O_RDONLY | O_CLOEXEC), "usage: floor ROM");
    uint8_t *ram = map(RAM_SIZE), *rom = map(ROM_SIZE);
    check(read(file, rom, ROM_SIZE) == ROM_SIZE ? 0 : -1, "ROM of 128 KiB");
    if (argc > 2) {
        disk.file = check(open(argv[2], O_RDONLY | O_CLOEXEC), argv[2]);
        disk.kick = check(eventfd(0, EFD_CLOEXEC), "eventfd");
        disk.ram = ram;
        disk.polls = argc > 3;
    }

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
            mmio(vm, run);
            break;
        default:
            fprintf(stderr, "exit reason %u\n", run->exit_reason);
            return 1;
        }
    }
}
