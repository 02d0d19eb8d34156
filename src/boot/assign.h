/* What firmware does to PCI and the chipset before a system starts, where there is no firmware. */
#pragma once
#include "boot/direct.h"
#include "bus/device.h"

/* The PCI windows that the ACPI tables tell of. */
struct boot_windows {
    uint64_t ecam, pci64_base, pci64_size;
};

/* Gives every function its BARs and interrupt line, and programs the chipset as the ACPI tables say
 * it is. With `screen`, the display at function `display` is turned on, with a linear frame buffer;
 * *screen is left empty when it cannot be. All devices have been reset and no vCPU runs. `reader`
 * is the caller's own. */
void boot_assign(struct board *board, struct bus_reader *reader, const struct boot_windows *windows,
                 unsigned display, struct boot_screen *screen);
