/* COUNT accesses of one KIND, then exit with status 0: the host's instructions for one are the
 * difference to the same guest with COUNT=0, divided by COUNT. */
#include "guest.h"

enum { SCRATCH = COM1 + 7, POST = 0x80, UNASSIGNED = 0x1d0 };
enum {
    port_write,
    port_read,
    post_write,
    unassigned_write,
    mmio_reads,
    mmio_writes,
    mmio_nothing,
    config
};

uint8_t main(void)
{
    outb(COM1 + 3, 3);
    outb(COM1, 0xa7);
    for (uint32_t i = 0; i < COUNT; i++) {
        switch (KIND) {
        case port_write:
            outb(SCRATCH, 0x55);
            break;
        case port_read:
            inb(SCRATCH);
            break;
        case post_write:
            outb(POST, 0x55);
            break;
        case unassigned_write:
            outb(UNASSIGNED, 0x55);
            break;
        case mmio_reads: /* IOREGSEL */
            mmio_read(IOAPIC);
            break;
        case mmio_writes:
            mmio_write(IOAPIC, 0);
            break;
        case mmio_nothing: /* between the host bridge's windows and the I/O APIC */
            mmio_read(0xfeb80000u);
            break;
        case config: /* two exits */
            pci_read(0, 0);
            break;
        }
    }
    return 0;
}
