/* Direct boot; see direct.h. What is done here a firmware does in other machines. */
#include "machine/direct.h"

#include "boot/assign.h"
#include "boot/boot.h"
#include "bus/pci.h"

#include <sys/mman.h>

enum { ROM_SIZE = 64 * 1024 };

static void unmap(void *rom)
{
    munmap(rom, ROM_SIZE);
}

GBytes *direct_rom(void)
{
    void *rom = mmap(NULL, ROM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (rom == MAP_FAILED)
        return g_bytes_new(NULL, 0); /* which is no ROM: machine_new says so */
    boot_reset_rom(rom, ROM_SIZE);
    return g_bytes_new_with_free_func(rom, ROM_SIZE, unmap, rom);
}

bool direct_load(struct pc *pc, const struct boot_kernel *kernel, bool screen, bool again,
                 struct entry *entry, GError **error)
{
    struct boot_kernel what = *kernel;
    const struct boot_windows windows = {
        .ecam = BOOT_ECAM_SEABIOS,
        .pci64_base = pc->pci64_base,
        .pci64_size = PCI64_WINDOW,
    };
    if (again)
        guest_ram_clear(pc->board->guest);
    boot_assign(pc->board, &pc->reader, &windows, pc->vga->pci->devfn,
                screen ? &what.screen : NULL);
    what.tables = pc->fw_cfg;
    what.ecam = windows.ecam;
    return boot_direct(pc->board->guest, &what, entry, error);
}
