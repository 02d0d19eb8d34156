/* COUNT requests of 4 KiB (or BYTES) to the first virtio disk, DEPTH of them always in flight, then
 * exit with status 0 (tests/bench). They are reads, or with WRITE writes; at random places of its
 * first 64 MiB, or, with STRIDE, each so many bytes behind the one before. A driver that polls: it
 * never sleeps, takes no interrupt, and kicks only when the device asks for it, so what is measured
 * is the host's. Prints the ticks of the TSC that the requests took. Writes are made stable at the
 * end. Virtio 1.2 section 5.2. */
#include "driver.h"

enum { MIB = 1 << 20, PAGE = 4096, SECTOR = 512, DISK = 2 };
#ifndef BYTES
#define BYTES PAGE
#endif
#ifdef WRITE
/* With F_FLUSH, so that a write need not be on stable storage when it is answered. */
enum { TYPE = 1, TO_DRIVER = 0, FEATURES = 1 << 9 };
#else
enum { TYPE = 0, TO_DRIVER = DESC_WRITE, FEATURES = 0 };
#endif

struct header {
    uint32_t type, reserved;
    uint64_t sector;
};

static struct ring ring = { .size = 128 };
static struct header headers[DEPTH];
static volatile uint8_t statuses[DEPTH];

static uint64_t next_sector(void)
{
#ifdef STRIDE
    static uint64_t next;
    return next++ * (STRIDE / SECTOR);
#else
    return (uint64_t)(random_next() % ((64 * MIB - BYTES) / PAGE + 1)) * (PAGE / SECTOR);
#endif
}

static void offer(uint32_t slot)
{
    headers[slot].sector = next_sector();
    statuses[slot] = 0xff;
    ring_offer(&ring, (uint16_t)(3 * slot));
}

static void prepare(void)
{
    for (uint32_t slot = 0; slot < DEPTH; slot++) {
        struct ring_descriptor *d = &ring.descriptors[3 * slot];
        uint64_t data = 16 * MIB + slot * BYTES;
        uint16_t next = (uint16_t)(3 * slot);
        headers[slot].type = TYPE;
        *(uint64_t *)data = slot + 1; /* no zeros */
        d[0] = (struct ring_descriptor){ (uint64_t)&headers[slot], 16, DESC_NEXT, ++next };
        d[1] = (struct ring_descriptor){ data, BYTES, DESC_NEXT | TO_DRIVER, ++next };
        d[2] = (struct ring_descriptor){ (uint64_t)&statuses[slot], 1, DESC_WRITE, 0 };
    }
}

static void flush(void)
{
    uint16_t descriptor;
    uint32_t length;
    headers[0].type = 4;
    headers[0].sector = 0;
    ring.descriptors[0].next = 2; /* no data */
    ring_offer(&ring, 0);
    ring_show(&ring);
    while (!ring_take(&ring, &descriptor, &length))
        __asm__ volatile("pause");
    if (statuses[0]) {
        print("the flush failed\n");
        leave(4);
    }
}

static void user_main(void)
{
    uint32_t begun = 0, done = 0, length;
    uint16_t descriptor;
    prepare();
    uint64_t start = ticks();
    for (; begun < DEPTH && begun < COUNT; begun++)
        offer(begun);
    if (begun)
        ring_show(&ring);
    while (done < COUNT) {
        if (!ring_take(&ring, &descriptor, &length)) {
            __asm__ volatile("pause");
            continue;
        }
        do {
            uint32_t slot = descriptor / 3;
            if (statuses[slot]) {
                print("a request failed\n");
                leave(4);
            }
            done++;
            if (begun < COUNT) {
                offer(slot);
                begun++;
            }
        } while (ring_take(&ring, &descriptor, &length));
        ring_show(&ring);
    }
    print("ticks ");
    print_number((uint32_t)((ticks() - start) >> 10));
    print(" K\n");
    if (TYPE)
        flush();
    leave(0);
}

uint8_t main(void)
{
    struct ring *const rings[] = { &ring };
    serial_init();
    outb(COM1, 0xa7);
    virtio_start(DISK, FEATURES, rings, 1);
    driver_run(user_main);
}
