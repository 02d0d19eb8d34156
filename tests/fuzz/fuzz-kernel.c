/* The loaders of kernels: the input is a kernel's file, whose last byte says how it is booted.
 * Shared by libFuzzer and the replay of the corpus, as fuzz-device.c. */
#include "boot/boot.h"
#include "boot/direct.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RAM = 16 << 20, MULTIBOOT = 1, INITRD = 2 };

/* Made once: neither changes by a load but for the RAM. */
static struct guest *guest;
static struct fw_cfg *tables;
static int kernel_fd, initrd_fd;

static void prepare(void)
{
    guest = guest_new(RAM, NULL);
    tables = fw_cfg_new();
    const struct boot_config config = {
        .guest = guest, .cpus = 1, .ecam = BOOT_ECAM_SEABIOS, .version = "1"
    };
    boot_tables(tables, &config, NULL);
    kernel_fd = memfd_create("kernel", MFD_CLOEXEC);
    initrd_fd = memfd_create("initrd", MFD_CLOEXEC);
    if (write(initrd_fd, "initrd", 6) != 6)
        g_error("no initrd");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GError) error = NULL;
    struct entry entry;
    if (!guest)
        prepare();
    uint8_t how = size ? data[size - 1] : 0;
    if (ftruncate(kernel_fd, 0) < 0 || pwrite(kernel_fd, data, size, 0) != (ssize_t)size)
        g_error("no file");
    const struct boot_file initrd = { initrd_fd, "initrd", "initrd" };
    const struct boot_kernel kernel = {
        .file = { kernel_fd, "kernel", "kernel" },
        .initrds = &initrd,
        .initrd_count = how & INITRD ? 1 : 0,
        .append = "text",
        .multiboot = how & MULTIBOOT,
        .tables = tables,
        .ecam = BOOT_ECAM_SEABIOS,
    };
    bool ok = boot_direct(guest, &kernel, &entry, &error);
    if (ok != !error)
        g_error("%s", ok ? error->message : "a failure without a word");
    if (ok && entry.mode != ENTRY_REAL && !guest_ram_host(guest, GPA(entry.ip), 1))
        g_error("the entry is not in RAM");
    guest_ram_clear(guest);
    return 0;
}
