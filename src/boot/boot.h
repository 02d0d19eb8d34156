/* What a firmware is handed through fw_cfg: the memory map, the boot order, ACPI and SMBIOS tables.
 * Written once, before the machine starts, from what the machine has. No locks: nothing here is
 * kept. */
#pragma once
#include "bus/fw-cfg.h"
#include "memory/guest.h"

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

enum { BOOT_CPUS_MAX = 64, BOOT_SERIALS_MAX = 4 };

/* Where firmware puts PCIEXBAR (256 MiB): the tables must say the same. */
#define BOOT_ECAM_SEABIOS UINT64_C(0xb0000000)
#define BOOT_ECAM_OVMF    UINT64_C(0xe0000000)

/* The machine has one bus and no bridge to another. The tables say so: a system that believes in
 * 256 of them looks for devices on each, and every look is an exit. */
enum { BOOT_LAST_BUS = 0 };

struct boot_config {
    const struct guest *guest; /* the sizes of RAM */
    unsigned cpus;             /* 1 to BOOT_CPUS_MAX */
    const uint32_t *apic_ids;  /* of each CPU, below 255; NULL: its number */
    unsigned cores, threads;   /* of a socket, of a core; 0: all CPUs are cores of one socket */
    unsigned serials;          /* COM1 to at most COM4 */
    bool hpet, pvpanic, floppy;
    bool smbios3;                    /* the 64-bit entry point, which UEFI firmware takes */
    bool boot_menu;                  /* "Press ESC for boot menu" */
    unsigned boot_menu_wait;         /* ms; 0: the firmware's own 2.5 s */
    uint16_t firmware_console;       /* port of a UART on which SeaBIOS also shows its screen; 0 */
    uint64_t ecam;                   /* BOOT_ECAM_... */
    uint64_t pci64_base, pci64_size; /* the PCI window above RAM; size 0: none */
    const char *const *boot_order;   /* firmware device paths, NULL-terminated; NULL: none */
    const char *name;                /* of the machine; NULL: none */
    const char *version;             /* of hv */
    uint8_t uuid[16];                /* in the order of its text form */
};

/* Adds all items. False when the configuration cannot be described. */
bool boot_tables(struct fw_cfg *fw, const struct boot_config *config, GError **error);

/* Its parts, for boot.c. */
void boot_acpi(struct fw_cfg *fw, const struct boot_config *config);
void boot_smbios(struct fw_cfg *fw, const struct boot_config *config);
/* The body of the SSDT, which has what depends on the configuration. */
void boot_ssdt(GByteArray *out, const struct boot_config *config);

/* The local APIC id of a CPU. */
static inline uint32_t boot_apic_id(const struct boot_config *config, unsigned cpu)
{
    return config->apic_ids ? config->apic_ids[cpu] : cpu;
}
