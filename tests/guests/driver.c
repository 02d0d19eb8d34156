/* The driver's side of virtio; see driver.h. */
#include "driver.h"

enum { BAR_AT = 0xe0000000u, MIB = 1 << 20, LARGE_PAGE = 2 * MIB };
enum { MMIO_AT = 0xfeb00000u, MMIO_STRIDE = 512, MMIO_DEVICES = 32, MMIO_MAGIC = 0x74726976 };
enum { F_VERSION_1 = 32, ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };

static uint32_t common, notify, stride; /* of a PCI function; stride 0: a virtio-mmio device */

static void write8(uint32_t at, uint8_t value)
{
    *(volatile uint8_t *)(uint64_t)at = value;
}

static void write16(uint32_t at, uint16_t value)
{
    *(volatile uint16_t *)(uint64_t)at = value;
}

static uint16_t read16(uint32_t at)
{
    return *(volatile uint16_t *)(uint64_t)at;
}

static void set_area(uint32_t offset, const volatile void *area)
{
    mmio_write(common + offset, (uint32_t)(uint64_t)area);
    mmio_write(common + offset + 4, 0);
}

/* --- over PCI ------------------------------------------------------------------------------- */

enum { NO_FUNCTION = 256 };
static uint32_t find_function(uint16_t id)
{
    uint32_t modern = 0x10401af4 + ((uint32_t)id << 16);
    uint32_t transitional = 0x0fff1af4 + ((uint32_t)id << 16); /* of networks and disks */
    for (uint32_t function = 0; function < NO_FUNCTION; function++) {
        uint32_t found = pci_read(function, 0);
        if (found == modern || found == transitional)
            return function;
    }
    return NO_FUNCTION;
}

/* The capabilities lead to the two windows that are used here. */
static void find_windows(uint32_t function)
{
    uint32_t bar = 0;
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

static void set_status_pci(uint8_t status)
{
    write8(common + 20, status);
}

static uint32_t accept_pci(uint32_t half, uint32_t wanted)
{
    mmio_write(common, half);
    wanted &= mmio_read(common + 4);
    mmio_write(common + 8, half);
    mmio_write(common + 12, wanted);
    return wanted;
}

static void start_ring_pci(struct ring *ring)
{
    write16(common + 22, ring->index);
    if (ring->size > read16(common + 24))
        ring->size = read16(common + 24);
    write16(common + 24, ring->size);
    ring->notify = notify + read16(common + 30) * stride;
    set_area(32, ring->descriptors);
    set_area(40, &ring->available);
    set_area(48, &ring->used);
    write16(common + 28, 1);
}

/* --- over MMIO ------------------------------------------------------------------------------ */

static void find_mmio(uint16_t id)
{
    for (uint32_t at = MMIO_AT; at < MMIO_AT + MMIO_DEVICES * MMIO_STRIDE; at += MMIO_STRIDE)
        if (mmio_read(at) == MMIO_MAGIC && mmio_read(at + 4) == 2 && mmio_read(at + 8) == id)
            common = at;
    if (!common) {
        print("no such virtio device\n");
        leave(2);
    }
}

static void set_status_mmio(uint8_t status)
{
    mmio_write(common + 0x70, status);
}

static uint32_t accept_mmio(uint32_t half, uint32_t wanted)
{
    mmio_write(common + 0x14, half);
    wanted &= mmio_read(common + 0x10);
    mmio_write(common + 0x24, half);
    mmio_write(common + 0x20, wanted);
    return wanted;
}

static void start_ring_mmio(struct ring *ring)
{
    mmio_write(common + 0x30, ring->index);
    mmio_write(common + 0x38, ring->size);
    ring->notify = common + 0x50;
    set_area(0x80, ring->descriptors);
    set_area(0x90, &ring->available);
    set_area(0xa0, &ring->used);
    mmio_write(common + 0x44, 1);
}

/* --- either --------------------------------------------------------------------------------- */

uint64_t virtio_start(uint16_t id, uint64_t features, struct ring *const *rings, unsigned count)
{
    uint32_t function = find_function(id);
    uint64_t accepted = 0;
    if (function != NO_FUNCTION)
        find_windows(function);
    else
        find_mmio(id);
    void (*set_status)(uint8_t status) = stride ? set_status_pci : set_status_mmio;
    set_status(0);
    set_status(ACKNOWLEDGE | DRIVER);
    features |= UINT64_C(1) << F_VERSION_1;
    for (uint32_t half = 0; half < 2; half++) {
        uint32_t wanted = (uint32_t)(features >> 32 * half);
        wanted = stride ? accept_pci(half, wanted) : accept_mmio(half, wanted);
        accepted |= (uint64_t)wanted << 32 * half;
    }
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    for (unsigned i = 0; i < count; i++) {
        rings[i]->index = (uint16_t)i;
        rings[i]->available.flags = RING_NO_INTERRUPT;
        (stride ? start_ring_pci : start_ring_mmio)(rings[i]);
    }
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    return accepted;
}

/* --- rings ---------------------------------------------------------------------------------- */

static void barrier(void)
{
    __asm__ volatile("lock; addl $0, (%%rsp)" : : : "memory");
}

void ring_offer(struct ring *ring, uint16_t descriptor)
{
    ring->available.ring[ring->offered++ % ring->size] = descriptor;
}

void ring_show(struct ring *ring)
{
    barrier();
    *(volatile uint16_t *)&ring->available.index = ring->offered;
    barrier();
    if (*(volatile uint16_t *)&ring->used.flags & RING_NO_NOTIFY)
        return;
    if (stride)
        write16(ring->notify, ring->index);
    else
        mmio_write(ring->notify, ring->index);
}

bool ring_take(struct ring *ring, uint16_t *descriptor, uint32_t *length)
{
    if (*(volatile uint16_t *)&ring->used.index == ring->taken)
        return false;
    barrier();
    *descriptor = (uint16_t)ring->used.ring[ring->taken % ring->size].id;
    *length = ring->used.ring[ring->taken++ % ring->size].length;
    return true;
}

uint64_t ticks(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

_Noreturn void driver_run(void (*entry)(void))
{
    uint32_t window = stride ? BAR_AT : MMIO_AT & -(uint32_t)LARGE_PAGE;
    user_run(entry, 32 * MIB, window, LARGE_PAGE);
}
