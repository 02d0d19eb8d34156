/* A triple fault: an invalid instruction without an interrupt table (Intel SDM vol. 3, 6.15,
 * "double fault"). The machine resets, or stops where that was asked for. A second start
 * is known by the CMOS byte 0x7c and ends with status 0. */
#include "boot.inc"
start:
    movb $0x7c, %al
    outb %al, $0x70
    inb $0x71, %al
    cmpb $0x5a, %al
    je again
    movb $0x5a, %al
    outb %al, $0x71
    lgdtl %cs:gdt_pointer
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $8, $(protected + 0xf0000)

    .code32
protected:
    lidtl no_idt + 0xf0000
    ud2

    .code16
again:
    xorb %al, %al
    outb %al, $0x71
    leave_with 0

    .balign 8
/* In ROM, so with the accessed bit set: the processor would try to set it. */
gdt:
    .quad 0, 0x00cf9b000000ffff
gdt_pointer:
    .word 15
    .long gdt + 0xf0000
no_idt:
    .word 0
    .long 0
