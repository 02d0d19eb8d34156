/* COUNT random reads of 4 KiB from the first virtio disk, DEPTH of them always in flight, then exit
 * with status 0 (tests/bench). A driver that polls: it never sleeps, takes no interrupt, and kicks
 * only when the device asks for it, so what is measured is the host's. Prints the ticks of the TSC
 * that the reads took.
 *
 * The disk is a PCI function, or where there is none, one of a microvm's virtio-mmio devices.
 *
 * Virtio 1.2: section 4.1.4 (PCI), 4.2.2 (MMIO), 3.1.1 (initialization), 2.7 (split rings), 5.2
 * (block device). The reads run at CPL 3, which a software KVM executes natively. */
#include "guest.h"

#include <stddef.h>

enum { MIB = 1 << 20, PAGE = 4096, SECTOR = 512, SIZE = 128, BAR_AT = 0xe0000000u };
enum { MMIO_AT = 0xfeb00000u, MMIO_STRIDE = 512, MMIO_DEVICES = 32, MMIO_MAGIC = 0x74726976 };
enum { UNITS = 64 * MIB / PAGE }; /* of the image, which has 64 MiB at least */
enum { F_VERSION_1 = 32, ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
enum { NEXT = 1, WRITE = 2, NO_INTERRUPT = 1, NO_NOTIFY = 1 };

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};
struct available {
    uint16_t flags, index, ring[SIZE];
};
struct used {
    uint16_t flags, index;
    struct {
        uint32_t id, length;
    } ring[SIZE];
};
struct header {
    uint32_t type, reserved;
    uint64_t sector;
};

static _Alignas(4096) struct descriptor descriptors[SIZE];
static _Alignas(4096) volatile struct available available;
static _Alignas(4096) volatile struct used used;
static struct header headers[SIZE];
static volatile uint8_t statuses[SIZE];
static uint32_t common, notify;
static bool mmio;

/* --- the device over PCI -------------------------------------------------------------------- */

static void write8(uint32_t at, uint8_t value)
{
    *(volatile uint8_t *)(uint64_t)at = value;
}

static void write16(uint32_t at, uint16_t value)
{
    *(volatile uint16_t *)(uint64_t)at = value;
}

enum { NO_FUNCTION = 256 };
static uint32_t find_function(void)
{
    for (uint32_t function = 0; function < NO_FUNCTION; function++) {
        uint32_t id = pci_read(function, 0);
        if (id == 0x10421af4 || id == 0x10011af4)
            return function;
    }
    return NO_FUNCTION;
}

/* The capabilities lead to the two windows that are used here. */
static void find_windows(uint32_t function)
{
    uint32_t stride = 0, bar = 0;
    for (uint32_t at = pci_read(function, 0x34) & 0xfc; at;
         at = pci_read(function, at) >> 8 & 0xfc) {
        uint32_t head = pci_read(function, at), type = head >> 24;
        if ((head & 0xff) != 9 || (type != 1 && type != 2))
            continue;
        bar = pci_read(function, at + 4) & 7;
        *(type == 1 ? &common : &notify) = BAR_AT + pci_read(function, at + 8);
        if (type == 2)
            stride = pci_read(function, at + 16);
    }
    if (!common || !notify || !stride) {
        print("no modern virtio\n");
        leave(3);
    }
    pci_write(function, 0x10 + 4 * bar, BAR_AT);
    if (pci_read(function, 0x10 + 4 * bar) & 4)
        pci_write(function, 0x14 + 4 * bar, 0);
    pci_write(function, 4, 6); /* memory, bus master */
}

static void set_area(uint32_t offset, const volatile void *area)
{
    mmio_write(common + offset, (uint32_t)(uint64_t)area);
    mmio_write(common + offset + 4, 0);
}

static void start_pci(uint32_t function)
{
    find_windows(function);
    write8(common + 20, 0);
    write8(common + 20, ACKNOWLEDGE | DRIVER);
    mmio_write(common + 8, 0);
    mmio_write(common + 12, 0);
    mmio_write(common + 8, 1);
    mmio_write(common + 12, 1u << (F_VERSION_1 - 32));
    write8(common + 20, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    write16(common + 22, 0);
    write16(common + 24, SIZE);
    set_area(32, descriptors);
    set_area(40, &available);
    set_area(48, &used);
    write16(common + 28, 1);
    write8(common + 20, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

/* --- the device over MMIO ------------------------------------------------------------------- */

static void find_mmio(void)
{
    for (uint32_t at = MMIO_AT; at < MMIO_AT + MMIO_DEVICES * MMIO_STRIDE; at += MMIO_STRIDE)
        if (mmio_read(at) == MMIO_MAGIC && mmio_read(at + 4) == 2 && mmio_read(at + 8) == 2)
            common = at;
    if (!common) {
        print("no virtio disk\n");
        leave(2);
    }
    notify = common + 0x50;
}

static void start_mmio(void)
{
    find_mmio();
    mmio = true;
    mmio_write(common + 0x70, 0);
    mmio_write(common + 0x70, ACKNOWLEDGE | DRIVER);
    mmio_write(common + 0x24, 0);
    mmio_write(common + 0x20, 0);
    mmio_write(common + 0x24, 1);
    mmio_write(common + 0x20, 1u << (F_VERSION_1 - 32));
    mmio_write(common + 0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    mmio_write(common + 0x30, 0);
    mmio_write(common + 0x38, SIZE);
    set_area(0x80, descriptors);
    set_area(0x90, &available);
    set_area(0xa0, &used);
    mmio_write(common + 0x44, 1);
    mmio_write(common + 0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

/* --- the reads ------------------------------------------------------------------------------ */

static uint16_t offered;

static void offer(uint32_t slot)
{
    headers[slot].sector = (uint64_t)(random_next() % UNITS) * (PAGE / SECTOR);
    statuses[slot] = 0xff;
    available.ring[offered++ % SIZE] = (uint16_t)(3 * slot);
}

static void show(void)
{
    __asm__ volatile("" : : : "memory");
    available.index = offered;
    __asm__ volatile("lock; addl $0, (%%rsp)" : : : "memory");
    if (used.flags & NO_NOTIFY)
        return;
    if (mmio)
        mmio_write(notify, 0);
    else
        write16(notify, 0);
}

static uint64_t ticks(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static void prepare(void)
{
    available.flags = NO_INTERRUPT;
    for (uint32_t slot = 0; slot < DEPTH; slot++) {
        struct descriptor *d = &descriptors[3 * slot];
        uint16_t next = (uint16_t)(3 * slot);
        d[0] = (struct descriptor){ (uint64_t)&headers[slot], 16, NEXT, ++next };
        d[1] = (struct descriptor){ 16 * MIB + slot * PAGE, PAGE, NEXT | WRITE, ++next };
        d[2] = (struct descriptor){ (uint64_t)&statuses[slot], 1, WRITE, 0 };
    }
}

static _Noreturn void user_main(void)
{
    uint16_t taken = 0;
    uint32_t begun = 0, done = 0;
    prepare();
    uint64_t start = ticks();
    for (; begun < DEPTH && begun < COUNT; begun++)
        offer(begun);
    if (begun)
        show();
    while (done < COUNT) {
        while (taken == used.index)
            __asm__ volatile("pause");
        while (taken != used.index) {
            uint32_t slot = used.ring[taken++ % SIZE].id / 3;
            if (statuses[slot]) {
                print("a read failed\n");
                leave(4);
            }
            done++;
            if (begun < COUNT) {
                offer(slot);
                begun++;
            }
        }
        show();
    }
    print("ticks ");
    print_number((uint32_t)((ticks() - start) >> 10));
    print(" K\n");
    leave(0);
}

uint8_t main(void)
{
    serial_init();
    outb(COM1, 0xa7);
    uint32_t function = find_function();
    if (function == NO_FUNCTION)
        start_mmio();
    else
        start_pci(function);
    user_run(user_main, 32 * MIB, mmio ? MMIO_AT & -(2u * MIB) : BAR_AT, 2 * MIB);
}
