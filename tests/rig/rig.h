/* The rig: a device on a fake board, without KVM and without threads.
 *
 * 1 MiB of RAM from address 0, both buses, a hand-wound clock, recorded lines, MSIs and requests,
 * and a disk in memory whose requests finish when the test says so. Everything a class can plug is
 * plugged. Used by the unit tests, the generic class tests and the fuzz targets. */
#pragma once
#include "block/disk.h"
#include "bus/device.h"
#include "bus/fw-cfg.h"
#include "bus/pci.h"
#include "net/net.h"

/* RIG_TURNS: how often the device's loop is turned after each access. */
enum { RIG_TURNS = 8 };
enum { RIG_RAM = 1 << 20, RIG_IRQS = 24, RIG_DISK_SIZE = 1 << 20, RIG_DEVFN = PCI_DEVFN(3, 0) };

struct rig;

/* A line of the device as the other end sees it. */
struct rig_line {
    const char *plug;
    bool level;
    unsigned rises;
    struct irq irq;
    struct irq_wire wire;
};

/* A disk in memory: requests wait until rig_disk_step or rig_disk_run, and never finish inside
 * submit, as disk.h says. */
struct rig_disk {
    struct disk disk;
    uint8_t data[RIG_DISK_SIZE];
    struct disk_request *first, **last; /* in flight */
    int fail;                           /* errno for the next requests; 0: none */
    unsigned submitted, waiting;
};

/* A DMA channel that is always programmed: from `at` on, `left` bytes up to the terminal count,
 * then the same once more. */
struct rig_dma {
    struct dma dma;
    uint64_t start, at;
    size_t length, left;
    bool masked, requested;
    struct timer *sleeper;
};
enum { RIG_DMA = 0x8000, RIG_FLOPPY_SIZE = 720 << 10 };

struct rig {
    struct board board;
    struct bus_reader reader;
    struct device *dev;
    char **options;
    struct rig_line lines[RIG_IRQS];
    unsigned line_count;
    struct rig_disk *disk;
    struct rig_dma dma;
    struct stream stream;
    GByteArray *output; /* what the device wrote to its stream, at most RIG_OUTPUT bytes */
    struct screen screen;
    unsigned screen_changes;
    struct input_source source;
    struct net *net; /* on a socket, whose other end is `far` */
    int far;
    unsigned turns;        /* RIG_TURNS; 0: the test turns the loop itself */
    struct fw_cfg *fw_cfg; /* its own items, and the file "etc/rig" */
    unsigned source_changes;
    struct msi {
        uint64_t address;
        uint32_t data;
    } last_msi;
    unsigned msis;
    unsigned requests[16]; /* by enum board_request */
    uint32_t request_value;
    uint64_t host_time;
    unsigned route_updates;
    struct msi_route routes[64];
};

/* A started device of the class; options are NULL-terminated pairs of name and value, or NULL. PCI
 * functions sit at RIG_DEVFN with BARs from 0x10000000 (memory) and 0xc000 (ports), decoding on. */
struct rig *rig_new(const struct device_class *class, const char *const *options);
/* The same, but the device's loop has a thread, as in a machine. */
struct rig *rig_new_threaded(const struct device_class *class, const char *const *options);
void rig_free(struct rig *rig);

uint32_t rig_in(struct rig *rig, uint64_t port, unsigned width);
void rig_out(struct rig *rig, uint64_t port, unsigned width, uint32_t value);
uint64_t rig_load(struct rig *rig, uint64_t address, unsigned width);
void rig_store(struct rig *rig, uint64_t address, unsigned width, uint64_t value);
/* Where BAR `bar` was put. */
uint64_t rig_bar(struct rig *rig, unsigned bar);
uint32_t rig_config_read(struct rig *rig, unsigned offset, unsigned width);
void rig_config_write(struct rig *rig, unsigned offset, unsigned width, uint32_t value);

struct rig_line *rig_line(struct rig *rig, const char *plug);
/* Programs the DMA channel, and opens it. */
void rig_dma_program(struct rig *rig, uint64_t at, size_t length);

/* Finishes the oldest request in flight; false when there is none. */
bool rig_disk_step(struct rig *rig);
/* Finishes the one that `n` others came before. */
bool rig_disk_finish(struct rig *rig, unsigned n);
/* Finishes all, also those that come meanwhile. */
void rig_disk_run(struct rig *rig);

/* Turns the device's loop until it is idle, at most `turns` times. */
void rig_turn(struct rig *rig, unsigned turns);
/* The cable: a packet with its struct net_header comes in (false: no room), or what the device has
 * sent (its length, 0: nothing). rig_hang_up: nobody is at the far end any more. */
bool rig_packet_in(struct rig *rig, const void *packet, size_t length);
size_t rig_packet_out(struct rig *rig, void *packet, size_t room);
void rig_hang_up(struct rig *rig);

/* Runs `size` bytes of bytecode against the device: the fuzz targets' input (fuzz-device.c). */
void rig_run(struct rig *rig, const uint8_t *code, size_t size);

/* Save, load into a second device of the class, save that: the same bytes? */
bool rig_round_trip(struct rig *rig);
