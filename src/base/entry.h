/* How a kernel is entered that no firmware starts: what its boot protocol wants of the first CPU.
 * The boot code fills it in, the vCPU code carries it out. All segments are flat, interrupts are
 * off, caches on; what is not named is 0. */
#pragma once
#include <stdint.h>

enum entry_mode {
    ENTRY_REAL,      /* 16 bits; `code` and `data` are segments, all else is as after a reset */
    ENTRY_PROTECTED, /* 32 bits, no paging */
    ENTRY_LONG,      /* 64 bits, with the page tables at cr3 */
};

struct entry {
    enum entry_mode mode;
    uint16_t code, data; /* selectors of the GDT (ENTRY_REAL: segments) */
    uint16_t gdt_limit;
    uint64_t gdt; /* where it lies */
    uint64_t cr3;
    uint64_t ip, sp;
    uint64_t ax, bx, si;
};
