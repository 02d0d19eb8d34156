/* What ACPI tells of the machine that depends on its settings: the windows of the PCI bus, CPUs,
 * serial ports, the HPET, pvpanic, the floppy controller. The rest is firmware/dsdt.asl. */
#include "boot/aml.h"
#include "boot/boot.h"

#define ECAM_SIZE    UINT64_C(0x10000000)
#define IOAPIC_BASE  UINT64_C(0xfec00000) /* the end of the 32-bit window */
#define HPET_BASE    0xfed00000
#define HPET_SIZE    0x400
#define PVPANIC_PORT 0x505

static void add_window32(GByteArray *out, uint64_t first, uint64_t end)
{
    if (first < end)
        aml_window(out, AML_WINDOW_MEMORY, 4, AML_READ_WRITE, first, end - 1);
}

/* Bus numbers, I/O ports, video memory, and the memory around ECAM that is not RAM. */
static void add_pci_windows(GByteArray *out, const struct boot_config *config)
{
    size_t scope = aml_scope(out, "\\_SB.PCI0");
    size_t crs = aml_crs(out);
    aml_window(out, AML_WINDOW_BUS, 2, 0, 0, BOOT_LAST_BUS);
    aml_io(out, 0xcf8, 8);
    aml_window(out, AML_WINDOW_IO, 2, AML_ENTIRE_RANGE, 0, 0xcf7);
    aml_window(out, AML_WINDOW_IO, 2, AML_ENTIRE_RANGE, 0xd00, 0xffff);
    aml_window(out, AML_WINDOW_MEMORY, 4, AML_READ_WRITE | AML_CACHEABLE, LEGACY_BASE, 0xbffff);
    add_window32(out, guest_low_ram(config->guest), config->ecam);
    add_window32(out, config->ecam + ECAM_SIZE, IOAPIC_BASE);
    if (config->pci64_size)
        aml_window(out, AML_WINDOW_MEMORY, 8, AML_READ_WRITE | AML_CACHEABLE, config->pci64_base,
                   config->pci64_base + config->pci64_size - 1);
    aml_crs_close(out, crs);
    aml_close(out, scope);
}

/* ECAM is nobody's window: reserved as a board resource (PCI Firmware Specification 3.2, 4.1.2). */
static void add_ecam(GByteArray *out, const struct boot_config *config)
{
    size_t device = aml_device(out, "ECAM");
    aml_name_eisaid(out, "_HID", "PNP0C02");
    aml_name_integer(out, "_UID", 2); /* 1 is in the DSDT */
    size_t crs = aml_crs(out);
    aml_memory32(out, (uint32_t)config->ecam, ECAM_SIZE);
    aml_crs_close(out, crs);
    aml_close(out, device);
}

static void add_hpet(GByteArray *out)
{
    size_t device = aml_device(out, "HPET");
    aml_name_eisaid(out, "_HID", "PNP0103");
    aml_name_integer(out, "_UID", 0);
    size_t crs = aml_crs(out);
    aml_memory32(out, HPET_BASE, HPET_SIZE);
    aml_crs_close(out, crs);
    aml_close(out, device);
}

static void add_cpus(GByteArray *out, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char name[8];
        g_snprintf(name, sizeof name, "C%03X", i & 0xfff);
        size_t device = aml_device(out, name);
        aml_name_string(out, "_HID", "ACPI0007");
        aml_name_integer(out, "_UID", i); /* the processor's UID in the MADT */
        aml_close(out, device);
    }
}

static void add_serials(GByteArray *out, unsigned count)
{
    static const struct {
        uint16_t port;
        uint8_t irq;
    } com[BOOT_SERIALS_MAX] = { { 0x3f8, 4 }, { 0x2f8, 3 }, { 0x3e8, 4 }, { 0x2e8, 3 } };
    for (unsigned i = 0; i < count; i++) {
        char name[] = { 'C', 'O', 'M', (char)('1' + i), 0 };
        size_t device = aml_device(out, name);
        aml_name_eisaid(out, "_HID", "PNP0501");
        aml_name_integer(out, "_UID", i + 1);
        size_t crs = aml_crs(out);
        aml_io(out, com[i].port, 8);
        aml_irq(out, com[i].irq);
        aml_crs_close(out, crs);
        aml_close(out, device);
    }
}

static void add_pvpanic(GByteArray *out)
{
    size_t device = aml_device(out, "PEVT");
    aml_name_string(out, "_HID", "QEMU0001");
    aml_name_integer(out, "_STA", 0x0f);
    size_t crs = aml_crs(out);
    aml_io(out, PVPANIC_PORT, 1);
    aml_crs_close(out, crs);
    aml_close(out, device);
}

static void add_floppy(GByteArray *out)
{
    enum { PORTS = 0x3f2, RATE = 0x3f7, IRQ = 6, CHANNEL = 2 };
    size_t device = aml_device(out, "FDC0");
    aml_name_eisaid(out, "_HID", "PNP0700");
    size_t crs = aml_crs(out);
    aml_io(out, PORTS, 4);
    aml_io(out, RATE, 1);
    aml_irq(out, IRQ);
    aml_dma8(out, CHANNEL);
    aml_crs_close(out, crs);
    aml_close(out, device);
}

void boot_ssdt(GByteArray *out, const struct boot_config *config)
{
    add_pci_windows(out, config);
    size_t scope = aml_scope(out, "\\_SB");
    add_ecam(out, config);
    add_cpus(out, config->cpus);
    if (config->hpet)
        add_hpet(out);
    aml_close(out, scope);
    scope = aml_scope(out, "\\_SB.PCI0.ISA");
    add_serials(out, config->serials);
    if (config->pvpanic)
        add_pvpanic(out);
    if (config->floppy)
        add_floppy(out);
    aml_close(out, scope);
}
