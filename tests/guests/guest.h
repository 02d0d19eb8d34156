/* What the C guests stand on: ports, memory-mapped registers, COM1, PCI configuration, interrupts.
 * One processor, 64-bit mode, the first 4 GiB mapped one to one, no operating system. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { COM1 = 0x3f8, EXIT_PORT = 0xf4, FW_CFG = 0x510, FW_CFG_CPUS = 5 };
enum { PIC1 = 0x20, PIC2 = 0xa0, PIT0 = 0x40, PIT_COMMAND = 0x43, RTC = 0x70 };
enum { KBD_DATA = 0x60, KBD_COMMAND = 0x64 };

#define IOAPIC 0xfec00000u
#define LAPIC  0xfee00000u
enum { LAPIC_ID = 0x20, LAPIC_EOI = 0xb0, LAPIC_SVR = 0xf0, LAPIC_ICR = 0x300, LAPIC_LVT0 = 0x350 };

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint16_t inw(uint16_t port)
{
    uint16_t value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint32_t mmio_read(uint32_t address)
{
    uint32_t value;
    __asm__ volatile("movl (%1), %0" : "=r"(value) : "r"((uint64_t)address) : "memory");
    return value;
}

static inline void mmio_write(uint32_t address, uint32_t value)
{
    __asm__ volatile("movl %0, (%1)" : : "r"(value), "r"((uint64_t)address) : "memory");
}

/* Sleeps until an interrupt; interrupts are off before and after. */
static inline void sleep_once(void)
{
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}

/* The guest's work; its result is the exit status. */
uint8_t main(void);

void serial_init(void);
void print(const char *text);
void print_number(uint32_t value);
void print_hex(uint32_t value);
_Noreturn void leave(uint8_t status);

/* Goes on with `entry` at CPL 3, which a software KVM executes natively, with all ports, the first
 * `ram` bytes and the `bytes` at `mmio`. Whole units of 2 MiB. */
_Noreturn void user_run(void (*entry)(void), uint32_t ram, uint32_t mmio, uint32_t bytes);

void *memset(void *to, int value, __SIZE_TYPE__ size);
void *memcpy(void *to, const void *from, __SIZE_TYPE__ size);

/* A function is bus << 8 | device << 3 | function; configuration mechanism 1. */
uint32_t pci_read(uint32_t function, uint32_t reg);
void pci_write(uint32_t function, uint32_t reg, uint32_t value);

/* Marsaglia's xorshift32: the same accesses on every run. */
uint32_t random_next(void);

/* Interrupt `irq` of the sixteen ISA ones arrives in `handlers[irq]`, through the PIC pair, or with
 * `apic` through the I/O APIC. An exception prints itself and leaves with status 99. */
typedef void irq_handler(void);
void interrupts_start(irq_handler *const handlers[16], bool apic);
