/* From the reset vector to C in 64-bit mode: copies the C part to RAM, maps the first 4 GiB one to
 * one with 2 MiB pages and enters long mode straight from real mode (AMD64 APM vol. 2, 14.6). The
 * instructions are few and plain: a software KVM interprets them one by one. */
#include "boot.inc"

#define PML4  0x1000
#define PDPT  0x2000
#define PD    0x3000
#define STACK 0x70000

start:
    cli
    cld
    lgdtl %cs:gdt_pointer
    movl %cr0, %eax                   /* a moment of 32-bit mode for the copies */
    orb $1, %al
    movl %eax, %cr0
    ljmpl $8, $(protected + 0xf0000)

    .code32
protected:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss

    movl $0xe0040, %esi
    movl $ram_start, %edi
    movl $ram_words, %ecx
    rep movsl
    xorl %eax, %eax
    movl $bss_start, %edi
    movl $bss_words, %ecx
    rep stosl
    movl $PML4, %edi
    movl $(0x6000 / 4), %ecx
    rep stosl

    movl $(PDPT + 3), PML4
    movl $(PD + 0x0003), PDPT
    movl $(PD + 0x1003), PDPT + 8
    movl $(PD + 0x2003), PDPT + 16
    movl $(PD + 0x3003), PDPT + 24
    movl $PD, %edi
    movl $0x83, %eax                  /* present, writable, 2 MiB */
1:  movl %eax, (%edi)
    addl $8, %edi
    addl $0x200000, %eax
    jnc 1b

    movl %cr4, %eax
    orl $0x20, %eax                   /* PAE */
    movl %eax, %cr4
    movl $PML4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx            /* EFER.LME */
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    ljmpl $24, $(long_mode + 0xf0000)

    .code64
long_mode:
    movl $STACK, %esp
    movl $main, %eax
    call *%rax
    outb %al, $0xf4                   /* what main returns is the status */
1:  cli
    hlt
    jmp 1b

    .balign 8
/* In ROM, so with the accessed bit set: the processor would try to set it. */
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff          /* 8: 32-bit code */
    .quad 0x00cf93000000ffff          /* 16: data */
    .quad 0x00af9b000000ffff          /* 24: 64-bit code */
gdt_pointer:
    .word 31
    .long gdt + 0xf0000
