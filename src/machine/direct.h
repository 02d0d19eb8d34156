/* Direct boot: the machine's part in starting a kernel without firmware. The machine's thread, with
 * no vCPU running. */
#pragma once
#include "base/entry.h"
#include "machine/pc.h"

/* What stands in the firmware's place: a ROM with a reset vector. */
GBytes *direct_rom(void);

/* After the devices have started, or were reset (`again`: RAM is then cleared first): PCI and the
 * chipset as firmware would leave them, kernel and tables in RAM. How the kernel is entered. */
bool direct_load(struct pc *pc, const struct boot_kernel *kernel, bool screen, bool again,
                 struct entry *entry, GError **error);
