/* pvpanic: the guest tells its host that it crashed (QEMU docs/specs/pvpanic.txt).
 * A read gives the events that are understood, a write raises them. The ACPI device QEMU0001 leads
 * Linux and Windows drivers here. No state. */
#include "bus/device.h"

enum { PORT = 0x505, PANICKED = 1, CRASH_LOADED = 2 };

static uint64_t pvpanic_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)dev, (void)offset, (void)width;
    return PANICKED | CRASH_LOADED;
}

static void pvpanic_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    (void)offset, (void)width;
    /* "Crash loaded" means that the guest has its own crash kernel: it goes on by itself. */
    if (value & PANICKED)
        device_request(dev, BOARD_PANIC, 0);
}

const struct device_class pvpanic_class = {
    .name = "pvpanic",
    .help = "port 0x505, on which a guest tells that it crashed",
    .size = sizeof(struct device),
    .regions =
        (const struct region[]){
            { REGION_PORTS, PORT, 1, W8, pvpanic_read, pvpanic_write },
            { .kind = REGION_END },
        },
    .state = { .name = "pvpanic", .version = 1 },
};
