/* The PC: which devices exist, at which port, on which line. One thread, before the machine runs.
 */
#pragma once
#include "machine/machine.h"

struct fw_cfg;
struct net;

#define PCI64_WINDOW (32 * GIB)
enum { ISA_LINES = 16, PIRQ_LINES = 8, SERIAL_PORTS = 4 };

struct pc {
    struct board *board;
    struct irq_wire isa[ISA_LINES], pirq[PIRQ_LINES];
    GPtrArray *devices;
    GPtrArray *irqs; /* every source on a wire */
    struct fw_cfg *fw_cfg;
    struct net *net;          /* the network card's; NULL: none */
    uint64_t pci64_base;      /* of the PCI window above RAM, PCI64_WINDOW large */
    struct bus_reader reader; /* the machine's own accesses: where no firmware makes them */
    unsigned slot;            /* the next free one of PCI bus 0 */
    struct device *pic, *ioapic, *lpc, *vga, *ahci;
    unsigned floppies;  /* their kinds, as in CMOS byte 0x10 */
    struct device *fdc; /* NULL: there is no floppy drive */
    struct dma fdc_dma;
};

/* Shows the guest its RAM and, below 4 GiB, the firmware. Before the devices start. */
bool pc_show_memory(struct guest *guest, GBytes *firmware, GError **error);
/* Builds and starts every device. */
bool pc_build(struct pc *pc, struct board *board, const struct config *config,
              const struct machine_files *files, GError **error);
void pc_finish(struct pc *pc);
