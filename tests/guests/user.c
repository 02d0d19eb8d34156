/* To CPL 3 (guest.h). Ports are opened by the bitmap of the TSS (AMD64 APM vol. 2, 12.2.5), for
 * IOPL means nothing to a software KVM. */
#include "guest.h"

enum { USER_STACK = 16, USER_CODE = 24, TSS = 32, TSS_BITMAP = 104, MAP_SHIFT = 21 };
static _Alignas(16) uint8_t tss[TSS_BITMAP + 8192 + 1];
static _Alignas(16) uint64_t gdt[6] = {
    0, 0x00af9b000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff, 0, 0
};
static _Alignas(16) uint8_t stack[4096];

/* start.S has mapped the first 4 GiB by 2 MiB pages, for the kernel alone. */
static void open_pages(uint32_t from, uint32_t bytes)
{
    uint64_t *pml4 = (uint64_t *)0x1000, *pdpt = (uint64_t *)0x2000, *pd = (uint64_t *)0x3000;
    pml4[0] |= 4;
    for (int i = 0; i < 4; i++)
        pdpt[i] |= 4;
    for (uint32_t i = 0; i < bytes >> MAP_SHIFT; i++)
        pd[(from >> MAP_SHIFT) + i] |= 4;
    __asm__ volatile("mov %%cr3, %%rax; mov %%rax, %%cr3" : : : "rax", "memory");
}

_Noreturn void user_run(void (*entry)(void), uint32_t ram, uint32_t mmio, uint32_t bytes)
{
    uint64_t base = (uint64_t)tss;
    struct __attribute__((packed)) {
        uint16_t limit;
        uint64_t base;
    } pointer = { sizeof gdt - 1, (uint64_t)gdt };
    *(uint16_t *)(tss + 102) = TSS_BITMAP;
    tss[sizeof tss - 1] = 0xff;
    gdt[4] = (sizeof tss - 1) | (base & 0xffffff) << 16 | UINT64_C(0x89) << 40 | base >> 24 << 56;
    open_pages(0, ram);
    open_pages(mmio, bytes);
    __asm__ volatile("lgdt %0\n\t"
                     "ltr %w1\n\t"
                     "pushq %2\n\t"
                     "pushq %3\n\t"
                     "pushq $0x3002\n\t"
                     "pushq %4\n\t"
                     "pushq %5\n\t"
                     "iretq"
                     :
                     : "m"(pointer), "r"(TSS), "r"((uint64_t)(USER_STACK | 3)),
                       "r"((uint64_t)(stack + sizeof stack - 8)), "r"((uint64_t)(USER_CODE | 3)),
                       "r"((uint64_t)entry)
                     : "memory");
    __builtin_unreachable();
}
