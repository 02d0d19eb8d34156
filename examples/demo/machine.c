/* What a guest can find out about its machine, and how it ends: CPUID, ACPI's tables (ACPI 6.5,
 * section 5.2), PCI configuration mechanism 1 (PCI 3.0, 3.2.2.3), the MC146818 clock. */
#include "demo.h"

enum {
    PCI_ADDRESS = 0xcf8,
    PCI_DATA = 0xcfc,
    RESET_CONTROL = 0xcf9,
    RTC_INDEX = 0x70,
    RTC_DATA = 0x71
};
enum { SLP_EN = 1 << 13 };

struct registers {
    uint32_t eax, ebx, ecx, edx;
};

static struct registers cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct registers r;
    __asm__ volatile("cpuid"
                     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                     : "a"(leaf), "c"(subleaf));
    return r;
}

static void take_text(char *to, const uint32_t *words, unsigned count)
{
    for (unsigned i = 0; i < 4 * count; i++)
        to[i] = (char)(words[i / 4] >> 8 * (i % 4));
    to[4 * count] = '\0';
}

enum { EBX, ECX, EDX };

static const struct {
    uint32_t leaf;
    uint8_t reg, bit;
    char name[10];
} features[] = {
    { 0x80000001, EDX, 29, "x86-64" },
    { 0x80000001, EDX, 20, "nx" },
    { 1, EDX, 26, "sse2" },
    { 1, ECX, 20, "sse4.2" },
    { 1, ECX, 25, "aes" },
    { 1, ECX, 28, "avx" },
    { 7, EBX, 5, "avx2" },
    { 7, EBX, 16, "avx512f" },
    { 7, EBX, 29, "sha" },
    { 1, ECX, 30, "rdrand" },
    { 1, ECX, 21, "x2apic" },
    { 1, ECX, 24, "tsc-dl" },
    { 1, ECX, 5, "vmx" },
    { 0x80000001, ECX, 2, "svm" },
};

static void find_processor(struct machine *machine)
{
    struct registers r = cpuid(0, 0);
    take_text(machine->vendor, (const uint32_t[]){ r.ebx, r.edx, r.ecx }, 3);
    uint32_t most = r.eax, extended = cpuid(0x80000000, 0).eax;

    r = cpuid(1, 0);
    machine->stepping = r.eax & 15;
    machine->model = (r.eax >> 4 & 15) | (r.eax >> 12 & 0xf0);
    machine->family = (r.eax >> 8 & 15) + (r.eax >> 20 & 255);
    if (r.ecx >> 31) {
        struct registers hypervisor = cpuid(0x40000000, 0);
        take_text(machine->hypervisor,
                  (const uint32_t[]){ hypervisor.ebx, hypervisor.ecx, hypervisor.edx }, 3);
    }
    if (extended >= 0x80000004) {
        for (uint32_t i = 0; i < 3; i++) {
            r = cpuid(0x80000002 + i, 0);
            take_text(machine->brand + 16 * i, (const uint32_t[]){ r.eax, r.ebx, r.ecx, r.edx }, 4);
        }
    }
    for (unsigned i = 0; i < sizeof features / sizeof features[0]; i++) {
        if (features[i].leaf > (features[i].leaf >= 0x80000000 ? extended : most))
            continue;
        r = cpuid(features[i].leaf, 0);
        uint32_t word = features[i].reg == EBX ? r.ebx : features[i].reg == ECX ? r.ecx : r.edx;
        if (word >> features[i].bit & 1) {
            line_text(&machine->features, features[i].name);
            line_char(&machine->features, ' ');
        }
    }
}

static uint32_t pci_read(uint32_t bus, uint32_t slot, uint32_t function, uint32_t reg)
{
    outl(PCI_ADDRESS, 0x80000000 | bus << 16 | slot << 11 | function << 8 | reg);
    return inl(PCI_DATA);
}

/* Buses beyond bridges come out in the order the firmware numbered them. */
static void find_pci(struct machine *machine, uint32_t bus, int depth)
{
    for (uint32_t slot = 0; slot < 32; slot++) {
        uint32_t functions = 1;
        for (uint32_t function = 0; function < functions; function++) {
            uint32_t id = pci_read(bus, slot, function, 0);
            if ((id & 0xffff) == 0xffff || machine->pci_count == PCI_MOST)
                continue;
            uint32_t class = pci_read(bus, slot, function, 8);
            uint32_t header = pci_read(bus, slot, function, 12) >> 16 & 255;
            if (function == 0 && header & 0x80)
                functions = 8;
            machine->pci[machine->pci_count++] = (struct pci_function){
                .bus = (uint8_t)bus,
                .slot = (uint8_t)slot,
                .function = (uint8_t)function,
                .class = (uint8_t)(class >> 24),
                .subclass = (uint8_t)(class >> 16),
                .interface = (uint8_t)(class >> 8),
                .vendor = (uint16_t)id,
                .device = (uint16_t)(id >> 16),
            };
            uint32_t secondary = pci_read(bus, slot, function, 0x18) >> 8 & 255;
            if ((header & 0x7f) == 1 && secondary > bus && depth > 0)
                find_pci(machine, secondary, depth - 1);
        }
    }
}

static const struct {
    uint16_t vendor, device;
    const char *name;
} pci_ids[] = {
    { 0x8086, 0x29c0, "Q35 host bridge" },
    { 0x8086, 0x2918, "ICH9 LPC bridge" },
    { 0x8086, 0x2922, "ICH9 SATA, AHCI" },
    { 0x8086, 0x2930, "ICH9 SMBus" },
    { 0x8086, 0x10d3, "82574L Ethernet" },
    { 0x8086, 0x100e, "82540EM Ethernet" },
    { 0x8086, 0x1237, "440FX host bridge" },
    { 0x8086, 0x7000, "PIIX3 ISA bridge" },
    { 0x8086, 0x7010, "PIIX3 IDE" },
    { 0x8086, 0x7113, "PIIX4 ACPI" },
    { 0x1234, 0x1111, "VGA, Bochs display" },
    { 0x1af4, 0x1041, "virtio network card" },
    { 0x1af4, 0x1042, "virtio disk" },
    { 0x1af4, 0x1043, "virtio console" },
    { 0x1af4, 0x1044, "virtio random numbers" },
    { 0x1af4, 0x1050, "virtio graphics" },
    { 0x1af4, 0x1052, "virtio input" },
    { 0x1b36, 0x000d, "USB 3 controller, xHCI" },
    { 0x1b36, 0x0010, "NVMe drive" },
};

/* PCI Code and ID Assignment 1.11, section 1; 0xff is any subclass. */
static const struct {
    uint8_t class, subclass;
    const char *name;
} pci_classes[] = {
    { 0x01, 0x06, "SATA controller" },
    { 0x01, 0x08, "NVMe drive" },
    { 0x01, 0xff, "storage controller" },
    { 0x02, 0xff, "network card" },
    { 0x03, 0xff, "display" },
    { 0x04, 0xff, "sound" },
    { 0x06, 0x00, "host bridge" },
    { 0x06, 0x01, "ISA bridge" },
    { 0x06, 0x04, "PCI bridge" },
    { 0x06, 0xff, "bridge" },
    { 0x07, 0xff, "communication" },
    { 0x08, 0xff, "system device" },
    { 0x09, 0xff, "input" },
    { 0x0c, 0x03, "USB controller" },
    { 0x0c, 0x05, "SMBus" },
};

const char *pci_name(const struct pci_function *f)
{
    for (unsigned i = 0; i < sizeof pci_ids / sizeof pci_ids[0]; i++)
        if (pci_ids[i].vendor == f->vendor && pci_ids[i].device == f->device)
            return pci_ids[i].name;
    for (unsigned i = 0; i < sizeof pci_classes / sizeof pci_classes[0]; i++)
        if (pci_classes[i].class == f->class &&
            (pci_classes[i].subclass == f->subclass || pci_classes[i].subclass == 0xff))
            return pci_classes[i].name;
    return "device";
}

const char *e820_name(uint32_t type)
{
    static const char *const names[] = {
        "?", "usable", "reserved", "ACPI data", "ACPI NVS", "bad"
    };
    return names[type < sizeof names / sizeof names[0] ? type : 0];
}

/* ACPI tables lie unaligned. */
static uint32_t read32(uint64_t at)
{
    return *(const volatile uint32_t *)at;
}

static uint8_t read8(uint64_t at)
{
    return *(const volatile uint8_t *)at;
}

static const uint64_t mapped = 1ull << 32;

enum {
    RSDP_STEP = 16,
    TABLE_HEADER = 36,
    MADT_ENTRIES = 44,
    FADT_DSDT = 40,
    FADT_PM1A_CONTROL = 64
};

static void count_processors(struct machine *machine, uint64_t madt, uint32_t length)
{
    for (uint32_t at = MADT_ENTRIES; at + 2 <= length;) {
        uint8_t type = read8(madt + at), size = read8(madt + at + 1);
        if (size < 2)
            return;
        if (type == 0 || type == 9) /* local APIC, local x2APIC: enabled? */
            machine->processors += read32(madt + at + (type == 0 ? 4 : 8)) & 1;
        at += size;
    }
}

/* \_S5: the name, then a package whose first element is SLP_TYPa (ACPI 6.5, 7.4.2 and 20.2). */
static unsigned find_sleep_type(uint64_t dsdt)
{
    uint32_t length = read32(dsdt + 4);
    for (uint32_t at = TABLE_HEADER; at + 8 < length; at++) {
        if (read8(dsdt + at) != '_' || read32(dsdt + at) != 0x5f35535f ||
            read8(dsdt + at + 4) != 0x12)
            continue;
        uint64_t element = dsdt + at + 5 + (read8(dsdt + at + 5) >> 6) + 2;
        return (read8(element) == 0x0a ? read8(element + 1) : read8(element)) & 7;
    }
    return 0;
}

static void take_table(struct machine *machine, uint64_t table)
{
    if (table == 0 || table >= mapped - TABLE_HEADER || machine->table_count == TABLES_MOST)
        return;
    uint32_t signature = read32(table), length = read32(table + 4);
    take_text(machine->tables[machine->table_count++], &signature, 1);
    if (signature == 0x43495041) /* APIC */
        count_processors(machine, table, length);
    if (signature == 0x50434146) { /* FACP */
        machine->sleep_port = read32(table + FADT_PM1A_CONTROL);
        uint64_t dsdt = read32(table + FADT_DSDT);
        if (dsdt)
            machine->sleep_type = find_sleep_type(dsdt);
    }
}

static void find_acpi(struct machine *machine)
{
    for (uint64_t rsdp = 0xe0000; rsdp < 0x100000; rsdp += RSDP_STEP) {
        if (read32(rsdp) != 0x20445352 || read32(rsdp + 4) != 0x20525450) /* "RSD PTR " */
            continue;
        bool wide = read8(rsdp + 15) >= 2 && read32(rsdp + 24) && !read32(rsdp + 28);
        uint64_t root = read32(rsdp + (wide ? 24 : 16));
        uint32_t length = read32(root + 4), step = wide ? 8 : 4;
        for (uint32_t at = TABLE_HEADER; at + step <= length && at < 4096; at += step)
            take_table(machine, read32(root + at));
        break;
    }
    /* Without tables: the PM block of the ICH9's LPC bridge (Intel 316972, 13.1.13). */
    if (!machine->sleep_port && pci_read(0, 31, 0, 0) == 0x29188086)
        machine->sleep_port = (pci_read(0, 31, 0, 0x40) & 0xff80) + 4;
    if (!machine->processors)
        machine->processors = 1;
}

void machine_find(struct machine *machine)
{
    find_processor(machine);
    find_pci(machine, 0, 4);
    find_acpi(machine);
    for (unsigned i = 0; i < BOOT_INFO->e820_count; i++)
        if (E820[i].type == 1)
            machine->memory += E820[i].length;
}

static unsigned rtc_register(uint8_t index)
{
    outb(RTC_INDEX, index);
    return inb(RTC_DATA);
}

/* Called right after the clock's update, so nothing changes while it is read. */
void rtc_read(struct moment *now)
{
    unsigned control = rtc_register(0x0b), hour = rtc_register(4), century = rtc_register(0x32);
    unsigned values[] = { rtc_register(0), rtc_register(2), hour & 0x7f, rtc_register(7),
                          rtc_register(8), rtc_register(9), century };
    if (!(control & 4)) /* BCD */
        for (unsigned i = 0; i < sizeof values / sizeof values[0]; i++)
            values[i] = (values[i] >> 4) * 10 + (values[i] & 15);
    if (!(control & 2)) /* 12 hours */
        values[2] = values[2] % 12 + (hour & 0x80 ? 12 : 0);
    now->second = values[0];
    now->minute = values[1];
    now->hour = values[2];
    now->day = values[3];
    now->month = values[4];
    now->year = (values[6] >= 19 && values[6] <= 21 ? values[6] : 20) * 100 + values[5];
    /* Sakamoto's rule: the chip's own weekday is seldom right. */
    static const uint8_t shift[] = { 0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4 };
    unsigned year = now->year - (now->month < 3), month = now->month % 13;
    now->weekday =
        (year + year / 4 - year / 100 + year / 400 + shift[month ? month - 1 : 0] + now->day) % 7;
}

void machine_power_off(const struct machine *machine)
{
    if (machine->sleep_port)
        outw((uint16_t)machine->sleep_port, (uint16_t)(machine->sleep_type << 10 | SLP_EN));
}

void machine_reboot(void)
{
    outb(RESET_CONTROL, 2);
    outb(RESET_CONTROL, 6);
}
