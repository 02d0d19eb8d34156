/* Debug port 0x402: where SeaBIOS, OVMF and coreboot write their log (the Bochs and QEMU
 * convention). A read answers 0xe9, by which a firmware knows that somebody listens. No state. */
#include "bus/device.h"

enum { PORT = 0x402, PRESENT = 0xe9 };

struct debug_port {
    struct device dev;
    struct stream *log;
};

static uint64_t debug_port_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)dev, (void)offset, (void)width;
    return PRESENT;
}

static void debug_port_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    (void)offset, (void)width;
    uint8_t byte = (uint8_t)value;
    stream_write(((struct debug_port *)dev)->log, &byte, 1);
}

const struct device_class debug_port_class = {
    .name = "debug-port",
    .help = "port 0x402, the firmware's log",
    .size = sizeof(struct debug_port),
    .regions =
        (const struct region[]){
            { REGION_PORTS, PORT, 1, W8, debug_port_read, debug_port_write },
            { .kind = REGION_END },
        },
    .plugs =
        (const struct plug[]){
            { "log", PLUG_STREAM, offsetof(struct debug_port, log) },
            { .name = NULL },
        },
    .state = { .name = "debug-port", .version = 1 },
};
