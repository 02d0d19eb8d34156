/* All processors: the boot processor wakes the others by INIT and SIPI (Intel SDM vol. 3, 9.4.4.1),
 * each counts itself in real mode and sleeps. Their number is what fw_cfg says (QEMU
 * docs/specs/fw_cfg.txt, NB_CPUS). Status 0 when all came. */
#include "guest.h"

enum { TRAMPOLINE = 0x8000, COUNTER = 0x9000, PATIENCE = 1000000 };

/* lock incl [0x9000]; cli; hlt; jmp to cli, in 16-bit code. */
static const uint8_t trampoline[] = { 0x31, 0xc0, 0x8e, 0xd8, 0xf0, 0x66, 0xff,
                                      0x06, 0x00, 0x90, 0xfa, 0xf4, 0xeb, 0xfc };

static void delay(int accesses)
{
    while (accesses-- > 0)
        inb(0x80);
}

static void ipi(uint32_t command)
{
    mmio_write(LAPIC + LAPIC_ICR, 0xc0000 | command); /* all but oneself */
    for (int i = 0; i < 1000 && mmio_read(LAPIC + LAPIC_ICR) & 0x1000; i++)
        ;
}

uint8_t main(void)
{
    serial_init();
    outw(FW_CFG, FW_CFG_CPUS);
    uint32_t cpus = inb(FW_CFG + 1);
    cpus |= (uint32_t)inb(FW_CFG + 1) << 8;

    volatile uint8_t *code = (volatile uint8_t *)TRAMPOLINE;
    volatile uint32_t *counter = (volatile uint32_t *)COUNTER;
    for (unsigned i = 0; i < sizeof trampoline; i++)
        code[i] = trampoline[i];
    *counter = 1;

    mmio_write(LAPIC + LAPIC_SVR, 0x1ff);
    if (cpus > 1) {
        ipi(0x4500);
        delay(300);
        ipi(0x4600 | TRAMPOLINE >> 12);
        delay(10);
        if (*counter < cpus)
            ipi(0x4600 | TRAMPOLINE >> 12);
    }
    for (int i = 0; i < PATIENCE && *counter < cpus; i++)
        delay(1);

    print_number(*counter);
    print(" of ");
    print_number(cpus);
    print(" processors\n");
    return *counter != cpus;
}
