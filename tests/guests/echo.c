/* Sends back what comes in on COM1, by interrupt, asleep in between; 'q' ends it. */
#include "guest.h"

static volatile bool done;

static void on_serial(void)
{
    (void)inb(COM1 + 2);
    while (inb(COM1 + 5) & 1) {
        uint8_t c = inb(COM1);
        outb(COM1, c);
        done |= c == 'q';
    }
}

static irq_handler *const handlers[16] = { [4] = on_serial };

uint8_t main(void)
{
    serial_init();
    interrupts_start(handlers, false);
    print("echo ready\n");
    outb(COM1 + 1, 1);
    while (!done)
        sleep_once();
    return 0;
}
