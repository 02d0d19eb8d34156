/* Kernels that hv starts itself, without firmware: what is to be booted, and the call that puts it
 * into RAM. The files are not trusted: every number in them is judged before it is used, and what
 * is judged is a copy. Nothing is kept: after a reset everything is read again. One thread, with no
 * vCPU running. */
#pragma once
#include "base/entry.h"
#include "bus/fw-cfg.h"
#include "memory/guest.h"

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* A linear frame buffer of 32 bits a pixel that is on: blue in the lowest byte, then green, red. */
struct boot_screen {
    uint64_t base, size; /* size 0: the screen is off */
    uint32_t width, height, stride;
};

struct boot_file {
    int fd;
    const char *name; /* for messages */
    const char *text; /* what a module is told: its name and arguments; NULL: nothing */
};

struct boot_kernel {
    struct boot_file file;
    const struct boot_file *initrds;
    unsigned initrd_count;
    const char *append; /* the command line; NULL: none */
    bool multiboot;
    const struct fw_cfg *tables; /* the ACPI and SMBIOS tables, as boot_tables made them */
    uint64_t ecam;               /* BOOT_ECAM_... */
    struct boot_screen screen;
};

/* Puts the kernel, what belongs to it and the tables into RAM, which must be all zeros, and says
 * how to enter it. */
bool boot_direct(struct guest *guest, const struct boot_kernel *kernel, struct entry *entry,
                 GError **error);

/* A ROM with a reset vector that resets the machine, for when there is no firmware. `rom` has
 * `size` bytes of zeros, at least 16. */
void boot_reset_rom(uint8_t *rom, size_t size);
