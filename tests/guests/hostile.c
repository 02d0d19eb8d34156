/* A guest that means harm: ROUNDS times it hammers random ports, the memory-mapped hole, and every
 * PCI configuration register with random values, and moves BARs about, also over other devices,
 * while using them. A fixed generator makes every run the same.
 *
 * It keeps away from what ends or resets the machine and from DMA onto itself, so it must
 * come to its end with status 0. With -DWILD only the ports that end it at once are spared: the
 * machine may reset (the guest goes on counting, RAM outlives a reset), power off, or overwrite the
 * guest; only hv must survive. -DSEED=N makes it another run.
 */
#include "guest.h"

enum { ACCESSES = 1500, MAX_FUNCTIONS = 32, COMMAND = 0x04, BAR0 = 0x10, ROM_BAR = 0x30 };

#ifdef WILD
static const bool wild = true;
#else
static const bool wild = false;
#endif

struct range {
    uint32_t from, to;
};

static uint32_t functions[MAX_FUNCTIONS], function_count;

static const struct range known_ports[] = {
    { 0x00, 0xff },     { 0x1ce, 0x1cf },   { 0x1d0, 0x1d4 },   { 0x2e8, 0x2ef },
    { 0x2f8, 0x2ff },   { 0x3b0, 0x3df },   { 0x3e8, 0x3ef },   { 0x3f8, 0x3ff },
    { 0x402, 0x403 },   { 0x4d0, 0x4d1 },   { 0x505, 0x505 },   { 0x510, 0x51b },
    { 0x600, 0x67f },   { 0xae00, 0xae17 }, { 0xb000, 0xb07f }, { 0xc000, 0xc0ff },
    { 0x1000, 0x10ff },
};

/* Mostly device pages; the rest is drawn from the whole hole. */
static const struct range known_mmio[] = {
    { 0xa0000, 0xbffff },       { 0xc0000, 0xfffff },       { 0xfec00000, 0xfec000ff },
    { 0xfed00000, 0xfed003ff }, { 0xfed1c000, 0xfed1ffff }, { 0xb0000000, 0xb00fffff },
    { 0xe0000000, 0xe00fffff }, { 0xfd000000, 0xfeb7ffff }, { 0xfffc0000, 0xffffffff },
    { 0xc0000000, 0xfebfffff },
};

static const struct range spared_ports[] = {
    { 0xf4, 0xf7 },     /* debug exit, also in the wild */
    { 0x505, 0x505 },   /* pvpanic, also in the wild: nearly every run would end by it, and early */
    { 0x60, 0x60 },     /* after 0xD1, bit 0 clear resets */
    { 0x64, 0x64 },     /* commands 0xF0..0xFF pulse the reset line */
    { 0x92, 0x92 },     /* port A: fast reset */
    { 0xb2, 0xb3 },     /* SMI */
    { 0x514, 0x51b },   /* fw_cfg's DMA */
    { 0x600, 0x67f },   /* ACPI, when enabled: sleep, watchdog */
    { 0xcf8, 0xcff },   /* configuration has its own turn; 0xCF9 resets */
    { 0xb000, 0xb07f }, /* QEMU's ACPI block */
};

enum { SPARED_IN_THE_WILD = 2 };

static const struct range spared_mmio[] = {
    { 0xfee00000, 0xfeefffff }, /* INIT to oneself */
};

/* { function's vendor and device, registers }: what moves RAM or the code away, or the ports above.
 */
static const struct {
    uint32_t id;
    struct range regs;
} spared_registers[] = {
    { 0x29c08086, { 0x60, 0x67 } }, /* PCIEXBAR, could cover RAM */
    { 0x29c08086, { 0x9c, 0x9f } }, /* SMRAM, TSEG */
    { 0x29188086, { 0x40, 0x47 } }, /* PMBASE, ACPI_CNTL */
    { 0x29188086, { 0xf0, 0xf3 } }, /* RCBA, could cover RAM */
};

static bool overlaps(const struct range *list, unsigned count, uint32_t at, unsigned width)
{
    for (unsigned i = 0; i < count; i++)
        if (at <= list[i].to && at + (width - 1) >= list[i].from)
            return true;
    return false;
}

#define COUNT_OF(a) (sizeof(a) / sizeof(a)[0])

static bool register_spared(uint32_t function, uint32_t reg)
{
    uint32_t id = pci_read(function, 0);
    for (unsigned i = 0; i < COUNT_OF(spared_registers) && !wild; i++)
        if (spared_registers[i].id == id && overlaps(&spared_registers[i].regs, 1, reg, 4))
            return true;
    return false;
}

static uint32_t pick(const struct range *list, unsigned count)
{
    const struct range *r = &list[random_next() % count];
    return r->from + random_next() % (r->to - r->from + 1);
}

static uint32_t pick_value(void)
{
    static const uint32_t favourites[] = { 0, 0xffffffff, 0x80000000, 0x7fffffff, 0x01010101, 1 };
    uint32_t r = random_next();
    return r & 3 ? random_next() : favourites[(r >> 2) % COUNT_OF(favourites)];
}

static void touch_port(uint32_t port)
{
    uint32_t r = random_next();
    unsigned width = 1u << r % 3;
    port &= 0xffff;
    if (r & 0x10) {
        if (width == 1)
            inb((uint16_t)port);
        else if (width == 2)
            inw((uint16_t)port);
        else
            inl((uint16_t)port);
        return;
    }
    if (overlaps(spared_ports, wild ? SPARED_IN_THE_WILD : COUNT_OF(spared_ports), port, width))
        return;
    uint32_t value = pick_value();
    if (width == 1)
        outb((uint16_t)port, (uint8_t)value);
    else if (width == 2)
        outw((uint16_t)port, (uint16_t)value);
    else
        outl((uint16_t)port, value);
}

static void touch_mmio(uint32_t at)
{
    uint32_t r = random_next();
    unsigned width = 1u << r % 4;
    volatile void *address = (volatile void *)(uint64_t)at;
    bool reading = r & 0x10;
    if (!wild && overlaps(spared_mmio, COUNT_OF(spared_mmio), at, width))
        return;
    uint64_t value = (uint64_t)pick_value() << 32 | pick_value();
    switch (width) {
    case 1:
        if (reading)
            (void)*(volatile uint8_t *)address;
        else
            *(volatile uint8_t *)address = (uint8_t)value;
        break;
    case 2:
        if (reading)
            (void)*(volatile uint16_t *)address;
        else
            *(volatile uint16_t *)address = (uint16_t)value;
        break;
    case 4:
        if (reading)
            (void)*(volatile uint32_t *)address;
        else
            *(volatile uint32_t *)address = (uint32_t)value;
        break;
    default:
        if (reading)
            (void)*(volatile uint64_t *)address;
        else
            *(volatile uint64_t *)address = value;
    }
}

/* I/O and memory decoding at random; bus mastering only in the wild. */
static uint32_t pick_command(void)
{
    return random_next() & (wild ? 0xffff : 0xfffb);
}

static void find_functions(void)
{
    function_count = 0;
    for (uint32_t f = 0; f < 256 && function_count < MAX_FUNCTIONS; f++)
        if (pci_read(f, 0) != 0xffffffff)
            functions[function_count++] = f;
}

/* No BAR hides COM1 or the exit port any more. */
static void quiet_functions(void)
{
    for (uint32_t i = 0; i < function_count; i++)
        pci_write(functions[i], COMMAND, 0);
}

static void hammer_ports(void)
{
    for (int i = 0; i < ACCESSES; i++)
        touch_port(i & 1 ? random_next() : pick(known_ports, COUNT_OF(known_ports)));
}

static void hammer_mmio(void)
{
    for (int i = 0; i < ACCESSES; i++)
        touch_mmio(pick(known_mmio, COUNT_OF(known_mmio)));
}

static void hammer_configuration(void)
{
    for (uint32_t i = 0; i < function_count; i++) {
        for (uint32_t reg = 0; reg < 256; reg += 4) {
            pci_read(functions[i], reg);
            if (reg == COMMAND)
                pci_write(functions[i], reg, pick_command() | pick_value() << 16);
            else if (!register_spared(functions[i], reg))
                pci_write(functions[i], reg, pick_value());
        }
    }
    for (int i = 0; i < 100; i++) { /* absent ones and odd widths too */
        uint32_t f = random_next() & 0xffff;
        outl(0xcf8, (random_next() & 0xff000003) | f << 8 | (random_next() & 0xfc));
        inb((uint16_t)(0xcfc + (random_next() & 3)));
        inw((uint16_t)(0xcfc + (random_next() & 3)));
    }
    quiet_functions();
}

/* Each BAR somewhere else, decoded, used, moved while decoded, used at both places. */
static void move_bars(void)
{
    for (uint32_t i = 0; i < function_count; i++) {
        uint32_t f = functions[i];
        for (uint32_t reg = BAR0; reg <= 0x24; reg += 4) {
            pci_write(f, COMMAND, 0);
            pci_write(f, reg, 0xffffffff);
            uint32_t mask = pci_read(f, reg);
            if (mask == 0 || mask == 0xffffffff)
                continue;
            bool io = mask & 1;
            uint32_t size = io ? ~(mask & ~3u) + 1 : ~(mask & ~15u) + 1;
            uint32_t old = 0;
            for (int turn = 0; turn < 6; turn++) {
                uint32_t base = io ? random_next() & 0xffff & ~(size - 1)
                                   : 0xc0000000u + (random_next() % 0x3e000000u & ~(size - 1));
                if (io && !wild && base < 0x1000) /* not over COM1 and the exit port */
                    base |= 0x1000;
                pci_write(f, reg, base);
                pci_write(f, COMMAND, turn & 4 ? pick_command() : 3);
                for (int k = 0; k < 10; k++) {
                    uint32_t at = (k & 1 ? base : old) + random_next() % (size ? size : 1);
                    if (io)
                        touch_port(at);
                    else if (at >= 0xc0000000u)
                        touch_mmio(at);
                }
                old = base;
            }
        }
        pci_write(f, ROM_BAR, pick_value() | 1);
    }
    quiet_functions();
}

/* What outlives a reset: .bss is cleared on every start, this page (rom.ld) is not. */
extern volatile struct {
    uint32_t magic, starts, round;
} kept;
enum { MAGIC = 0x6c696877, MAX_STARTS = 200 };

uint8_t main(void)
{
    if (kept.magic != MAGIC || !wild) {
        kept.starts = kept.round = 0;
        kept.magic = MAGIC;
    }
    kept.starts++;
    for (uint32_t i = 1; i < kept.starts; i++)
        random_next();
    while (kept.round < ROUNDS && kept.starts < MAX_STARTS) {
        serial_init();
        print("\nround ");
        print_number(kept.round++);
        print("\n");
        find_functions();
        hammer_ports();
        hammer_mmio();
        hammer_configuration();
        move_bars();
    }
    kept.magic = 0;
    serial_init();
    print("\nhostile: survived\n");
    return 0;
}
