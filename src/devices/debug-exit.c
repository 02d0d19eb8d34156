/* Debug exit: a guest's write to the port ends hv with the written value as exit status. For tests;
 * only there when asked for (`--device debug-exit`). QEMU's isa-debug-exit sits at the same port,
 * but turns the value into 2n+1. No state. */
#include "bus/device.h"

enum { PORT = 0xf4, STATUS_MASK = 0xff };

static void debug_exit_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    (void)offset, (void)width;
    device_request(dev, BOARD_EXIT, value & STATUS_MASK);
}

const struct device_class debug_exit_class = {
    .name = "debug-exit",
    .help = "a write to port 0xf4 ends hv with that exit status (tests)",
    .size = sizeof(struct device),
    .regions =
        (const struct region[]){
            { REGION_PORTS, PORT, 4, W8 | W16 | W32, NULL, debug_exit_write },
            { .kind = REGION_END },
        },
    .state = { .name = "debug-exit", .version = 1 },
};
