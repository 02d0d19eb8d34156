/* A kernel that is started without firmware, by multiboot or PVH: prints what it was told and looks
 * at what firmware should have left: tables, memory map, PCI, chipset. Then it resets the machine
 * and demands the same again. Exit 0 when all is right; "WRONG: ..." says what is not. */
#include <stdbool.h>
#include <stdint.h>

uint32_t main(uint32_t magic, uint32_t info);

enum { COM1 = 0x3f8, RESET = 0xcf9, CMOS = 0x70, CMOS_FREE = 0x50, FIRST = 0xa5 };

static unsigned wrong;
static uint32_t untouched = 0x12345678; /* a reset brings it back */
static uint32_t zero;                   /* and this too */

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void print(const char *text)
{
    for (; *text; text++)
        outb(COM1, (uint8_t)*text);
}

static void hex(uint32_t value)
{
    char text[9];
    for (int i = 0; i < 8; i++)
        text[i] = "0123456789abcdef"[value >> (28 - 4 * i) & 15];
    text[8] = 0;
    print(text);
}

static void check(bool ok, const char *what)
{
    if (ok)
        return;
    print("WRONG: ");
    print(what);
    print("\n");
    wrong++;
}

static uint32_t at(uint32_t address)
{
    return *(volatile uint32_t *)address;
}

/* A function of bus 0 is slot << 3 | function. */
static uint32_t pci(uint32_t function, uint32_t reg)
{
    outl(0xcf8, 0x80000000u | function << 8 | (reg & 0xfc));
    return inl(0xcfc);
}

static uint8_t sum(uint32_t address, uint32_t size)
{
    uint8_t total = 0;
    for (uint32_t i = 0; i < size; i++)
        total = (uint8_t)(total + *(volatile uint8_t *)(address + i));
    return total;
}

/* --- what firmware leaves ------------------------------------------------------------------- */

/* Looks for a signature of 8 bytes where systems do: in the BIOS area, at paragraphs. */
static uint32_t find(const char *signature)
{
    const uint32_t *wanted = (const uint32_t *)signature;
    for (uint32_t address = 0xe0000; address < 0x100000; address += 16)
        if (at(address) == wanted[0] && at(address + 4) == wanted[1])
            return address;
    return 0;
}

static void check_tables(uint32_t rsdp)
{
    static const char rsd_ptr[] __attribute__((aligned(4))) = "RSD PTR ";
    uint32_t found = find(rsd_ptr);
    check(found, "no RSDP in the BIOS area");
    check(!rsdp || rsdp == found, "another RSDP in the start information");
    check(sum(found, 20) == 0 && sum(found, 36) == 0, "the RSDP's check sums");
    uint32_t rsdt = at(found + 16), madt = 0;
    check(at(rsdt) == 0x54445352 && sum(rsdt, at(rsdt + 4)) == 0, "the RSDT");
    for (uint32_t i = 36; i < at(rsdt + 4); i += 4) {
        uint32_t table = at(rsdt + i);
        check(sum(table, at(table + 4)) == 0, "the check sum of an ACPI table");
        if (at(table) == 0x43495041)
            madt = table;
    }
    check(madt, "no MADT");
    uint32_t anchor = 0xf0000;
    while (anchor < 0x100000 && at(anchor) != 0x5f4d535f)
        anchor += 16;
    check(anchor < 0x100000 && sum(anchor, 31) == 0, "no SMBIOS entry point");
    check(anchor < 0x100000 && *(volatile uint8_t *)at(anchor + 24) == 0, "no SMBIOS table");
}

static void check_chipset(void)
{
    const uint32_t lpc = 0x1f << 3;
    check((pci(0, 0x60) & 0xf0000001) == 0xb0000001, "PCIEXBAR");
    check((pci(lpc, 0x40) & 0xff80) == 0x600 && pci(lpc, 0x44) & 0x80, "PMBASE");
    check(pci(lpc, 0x60) == 0x0b0b0a0a && pci(lpc, 0x68) == 0x0b0b0a0a, "PIRQ routes");
    check((inb(0x4d1) & 0x0c) == 0x0c, "ELCR");
    check(pci(8, 0x10) >= 0xc0000000 && pci(8, 4) & 2, "the display's BAR");
    check(pci(lpc + 2, 0x24) >= 0xc0000000 && pci(lpc + 2, 4) & 2, "AHCI's BAR");
    check((pci(lpc + 2, 0x3c) & 0xff) == 10, "AHCI's interrupt line");
    check(at(0xb0000000) == pci(0, 0), "ECAM");
}

/* --- what the kernel is told ---------------------------------------------------------------- */

/* A module of the test is text that ends with a line. */
static void print_module(uint32_t start, uint32_t end, uint32_t text)
{
    print("module ");
    print(text ? (const char *)text : "");
    print(": ");
    for (; start < end && end - start < 4096; start++)
        outb(COM1, *(volatile uint8_t *)start);
}

static void multiboot(uint32_t info)
{
    print("multiboot\n");
    check((at(info) & 0x24d) == 0x24d, "the information's flags");
    check(at(info + 4) == 639 && at(info + 8) > 1024, "memory sizes");
    print("cmdline ");
    print((const char *)at(info + 16));
    print("\n");
    for (uint32_t i = 0; i < at(info + 20); i++) {
        uint32_t module = at(info + 24) + 16 * i;
        check((at(module) & 0xfff) == 0, "a module's alignment");
        print_module(at(module), at(module + 4), at(module + 8));
    }
    bool found = false;
    for (uint32_t i = 0; i < at(info + 44); i += at(at(info + 48) + i) + 4)
        found |= at(at(info + 48) + i + 4) == 0x100000 && at(at(info + 48) + i + 20) == 1;
    check(found, "the memory map has no RAM at 1 MiB");
    check_tables(0);
}

static void pvh(uint32_t info)
{
    print("pvh\n");
    check(at(info) == 0x336ec578 && at(info + 4) >= 1, "the magic");
    print("cmdline ");
    print((const char *)at(info + 24));
    print("\n");
    for (uint32_t i = 0; i < at(info + 12); i++) {
        uint32_t module = at(info + 16) + 32 * i;
        print_module(at(module), at(module) + at(module + 8), at(module + 16));
    }
    bool found = false;
    for (uint32_t i = 0; i < at(info + 48); i++)
        found |= at(at(info + 40) + 24 * i) == 0x100000 && at(at(info + 40) + 24 * i + 16) == 1;
    check(found, "the memory map has no RAM at 1 MiB");
    check_tables(at(info + 32));
}

static uint8_t cmos(uint8_t value)
{
    outb(CMOS, CMOS_FREE);
    uint8_t old = inb(CMOS + 1);
    outb(CMOS, CMOS_FREE);
    outb(CMOS + 1, value);
    return old;
}

uint32_t main(uint32_t magic, uint32_t info)
{
    outb(COM1 + 3, 3);
    check(untouched == 0x12345678 && zero == 0, "memory is not as in the file");
    untouched = zero = info + 1;
    if (magic == 0x2badb002)
        multiboot(info);
    else
        pvh(info);
    check_chipset();
    if (cmos(FIRST) != FIRST && !wrong) { /* the battery remembers that this was the first time */
        print("reset\n");
        outb(RESET, 6);
        for (;;)
            __asm__ volatile("cli; hlt");
    }
    cmos(0);
    print(wrong ? "bad\n" : "all is well ");
    hex(untouched - 1 - info);
    print("\n");
    return wrong != 0;
}
