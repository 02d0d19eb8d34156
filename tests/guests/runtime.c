/* The C guests' runtime (guest.h). UART: National PC16550D; PIC: Intel 8259A; I/O APIC: Intel
 * 82093AA; gates: Intel SDM vol. 3, 6.14. */
#include "guest.h"

#include <stddef.h>

/* The compiler may call these two. */
void *memset(void *to, int value, size_t size)
{
    void *at = to;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(value) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, size_t size)
{
    void *at = to;
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(size) : : "memory");
    return to;
}

_Noreturn void leave(uint8_t status)
{
    outb(EXIT_PORT, status);
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* 115200 baud, 8N1, FIFO on, no interrupts, no loop-back: also after someone hammered on it. */
void serial_init(void)
{
    outb(COM1 + 3, 0x80);
    outb(COM1 + 0, 1);
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 0x03);
    outb(COM1 + 1, 0);
    outb(COM1 + 2, 0x07);
    outb(COM1 + 4, 0x0b);
}

static void print_char(char c)
{
    for (int patience = 100000; patience > 0 && !(inb(COM1 + 5) & 0x20); patience--)
        ;
    outb(COM1, (uint8_t)c);
}

void print(const char *text)
{
    for (; *text; text++)
        print_char(*text);
}

void print_number(uint32_t value)
{
    char digits[11];
    char *at = digits + sizeof digits - 1;
    *at = '\0';
    do {
        *--at = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    print(at);
}

void print_hex(uint32_t value)
{
    for (int shift = 28; shift >= 0; shift -= 4)
        print_char("0123456789abcdef"[value >> shift & 15]);
}

uint32_t pci_read(uint32_t function, uint32_t reg)
{
    outl(0xcf8, 0x80000000u | function << 8 | (reg & 0xfc));
    return inl(0xcfc);
}

void pci_write(uint32_t function, uint32_t reg, uint32_t value)
{
    outl(0xcf8, 0x80000000u | function << 8 | (reg & 0xfc));
    outl(0xcfc, value);
}

#ifndef SEED
#define SEED 2463534242u /* not 0 */
#endif

/* Xorshift, of G. Marsaglia, "Xorshift RNGs", 2003. */
uint32_t random_next(void)
{
    static uint32_t state = SEED;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

struct gate {
    uint16_t offset_low, selector;
    uint8_t stack, type;
    uint16_t offset_middle;
    uint32_t offset_high, zero;
};

struct frame;

static struct gate idt[48];
static irq_handler *const *irq_handlers;
static bool irq_by_apic;

static _Noreturn void exception(uint32_t vector)
{
    serial_init();
    print("\nexception ");
    print_number(vector);
    print("\n");
    leave(99);
}

static void interrupt(unsigned irq)
{
    if (irq_handlers[irq])
        irq_handlers[irq]();
    if (irq_by_apic) {
        mmio_write(LAPIC + LAPIC_EOI, 0);
        return;
    }
    if (irq >= 8)
        outb(PIC2, 0x20);
    outb(PIC1, 0x20);
}

#define EXCEPTION(n)                                                                               \
    __attribute__((interrupt)) static void exception_##n(struct frame *frame)                      \
    {                                                                                              \
        (void)frame;                                                                               \
        exception(n);                                                                              \
    }
#define IRQ(n)                                                                                     \
    __attribute__((interrupt)) static void irq_##n(struct frame *frame)                            \
    {                                                                                              \
        (void)frame;                                                                               \
        interrupt(n);                                                                              \
    }
#define EACH_16(X)                                                                                 \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

EACH_16(EXCEPTION)
EACH_16(IRQ)

static void gate_set(unsigned vector, void (*entry)(struct frame *))
{
    uint64_t offset = (uint64_t)entry;
    idt[vector] = (struct gate){
        .offset_low = (uint16_t)offset,
        .selector = 24,
        .type = 0x8e,
        .offset_middle = (uint16_t)(offset >> 16),
        .offset_high = (uint32_t)(offset >> 32),
    };
}

static void pic_start(void)
{
    static const uint8_t words[2][4] = { { 0x11, 0x20, 4, 1 }, { 0x11, 0x28, 2, 1 } };
    for (int chip = 0; chip < 2; chip++) {
        uint16_t port = chip ? PIC2 : PIC1;
        outb(port, words[chip][0]);
        for (int i = 1; i < 4; i++)
            outb(port + 1, words[chip][i]);
        outb(port + 1, 0xff);
    }
}

static void ioapic_write(uint32_t reg, uint32_t value)
{
    mmio_write(IOAPIC, reg);
    mmio_write(IOAPIC + 0x10, value);
}

void interrupts_start(irq_handler *const handlers[16], bool apic)
{
#define SET_EXCEPTION(n) gate_set(n, exception_##n);
#define SET_IRQ(n)       gate_set(32 + n, irq_##n);
    EACH_16(SET_EXCEPTION)
    EACH_16(SET_IRQ)
    struct __attribute__((packed)) {
        uint16_t limit;
        uint64_t base;
    } pointer = { sizeof idt - 1, (uint64_t)idt };
    __asm__ volatile("lidt %0" : : "m"(pointer));

    irq_handlers = handlers;
    irq_by_apic = apic;
    pic_start();
    mmio_write(LAPIC + LAPIC_SVR, 0x1ff);
    mmio_write(LAPIC + LAPIC_LVT0, apic ? 0x10000 : 0x700);
    if (!apic) {
        uint16_t open = 1 << 2;
        for (unsigned irq = 0; irq < 16; irq++)
            if (handlers[irq])
                open |= (uint16_t)(1 << irq);
        outb(PIC1 + 1, (uint8_t)~open);
        outb(PIC2 + 1, (uint8_t)(~open >> 8));
        return;
    }
    for (unsigned irq = 0; irq < 16; irq++) {
        unsigned pin = irq == 0 ? 2 : irq; /* the timer's wire, as the MADT tells */
        if (!handlers[irq])
            continue;
        ioapic_write(0x11 + 2 * pin, mmio_read(LAPIC + LAPIC_ID));
        ioapic_write(0x10 + 2 * pin, 0x20 + irq);
    }
}
