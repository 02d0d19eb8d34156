/* The items that firmware reads from fw_cfg, but for the ACPI and SMBIOS tables: numbers under
 * fixed keys, the memory map, the boot order. What SeaBIOS and OVMF make of them is in SeaBIOS
 * src/fw/paravirt.c and docs/Runtime_config.md. */
#include "boot/boot.h"

#include "base/error.h"

#include <string.h>

/* Keys that only PCs have. */
enum { KEY_IRQ0_OVERRIDE = 0x8002 };

/* ACPI 6.4, table 15-5: address range types. */
enum { E820_RAM = 1, E820_RESERVED = 2 };

/* Numbers are little-endian in all items but the directory, as on every host of hv. */
struct e820_entry {
    uint64_t base, size;
    uint32_t type;
} __attribute__((packed));
G_STATIC_ASSERT(sizeof(struct e820_entry) == 20);

/* Where KVM may keep pages of its own (an identity map and a TSS, for old Intel CPUs). */
#define KVM_PAGES_BASE UINT64_C(0xfeffc000)
#define KVM_PAGES_SIZE UINT64_C(0x4000)

static void add_memory_map(struct fw_cfg *fw, const struct guest *guest)
{
    const struct e820_entry map[] = {
        { KVM_PAGES_BASE, KVM_PAGES_SIZE, E820_RESERVED },
        { 0, guest_low_ram(guest), E820_RAM },
        { HIGH_RAM_BASE, guest_high_ram(guest), E820_RAM },
    };
    size_t count = guest_high_ram(guest) ? 3 : 2;
    fw_cfg_add_file(fw, "etc/e820", g_bytes_new(map, count * sizeof *map));
}

static void add_boot_order(struct fw_cfg *fw, const char *const *order)
{
    g_autoptr(GString) text = g_string_new(NULL);
    for (; order && *order; order++)
        g_string_append_printf(text, "%s\n", *order);
    if (text->len) /* with the NUL at its end */
        fw_cfg_add_file(fw, "bootorder", g_bytes_new(text->str, text->len + 1));
}

static void add_file_number(struct fw_cfg *fw, const char *name, uint64_t value, size_t width)
{
    uint64_t number = value;
    fw_cfg_add_file(fw, name, g_bytes_new(&number, width));
}

static void add_settings(struct fw_cfg *fw, const struct boot_config *config)
{
    /* For S0 to S5, bit 7: there is, bits 6:0: SLP_TYP. Neither S3 nor S4 (yet). */
    static const uint8_t states[6] = { 0x80, 0, 0, 1, 2, 0x80 };
    fw_cfg_add(fw, FW_CFG_UUID, g_bytes_new(config->uuid, sizeof config->uuid));
    fw_cfg_add_number(fw, FW_CFG_RAM_SIZE, guest_ram_size(config->guest), 8);
    fw_cfg_add_number(fw, FW_CFG_NOGRAPHIC, 0, 2);
    fw_cfg_add_number(fw, FW_CFG_NB_CPUS, config->cpus, 2);
    fw_cfg_add_number(fw, FW_CFG_MAX_CPUS, config->cpus, 2);
    fw_cfg_add_number(fw, FW_CFG_BOOT_MENU, config->boot_menu, 2);
    fw_cfg_add_number(fw, KEY_IRQ0_OVERRIDE, 1, 1); /* the PIT is on pin 2 of the I/O APIC */
    fw_cfg_add_file(fw, "etc/system-states", g_bytes_new_static(states, sizeof states));
    /* No reboots by itself when nothing boots. */
    add_file_number(fw, "etc/boot-fail-wait", UINT32_MAX, 4);
    if (config->boot_menu && config->boot_menu_wait)
        add_file_number(fw, "etc/boot-menu-wait", config->boot_menu_wait, 4);
    if (config->firmware_console)
        add_file_number(fw, "etc/sercon-port", config->firmware_console, 2);
}

static bool check(const struct boot_config *config, GError **error)
{
    if (config->cpus < 1 || config->cpus > BOOT_CPUS_MAX)
        return hv_fail(error, HV_USAGE, "%u CPUs: a machine can have 1 to %d", config->cpus,
                       BOOT_CPUS_MAX);
    for (unsigned i = 0; i < config->cpus; i++)
        if (boot_apic_id(config, i) >= 255)
            return hv_fail(error, HV_USAGE, "CPU %u has APIC id %u: ids must be below 255", i,
                           boot_apic_id(config, i));
    if (config->serials > BOOT_SERIALS_MAX)
        return hv_fail(error, HV_USAGE, "%u serial ports: a machine can have at most %d",
                       config->serials, BOOT_SERIALS_MAX);
    return true;
}

bool boot_tables(struct fw_cfg *fw, const struct boot_config *config, GError **error)
{
    if (!check(config, error))
        return false;
    add_settings(fw, config);
    add_memory_map(fw, config->guest);
    add_boot_order(fw, config->boot_order);
    boot_acpi(fw, config);
    boot_smbios(fw, config);
    return true;
}
