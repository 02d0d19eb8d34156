/* The entries of kernel.c: a multiboot kernel (with -DADDRESSES one whose header has the addresses),
 * and the same with a PVH note. Both come in 32-bit mode, with the magic in eax and the information
 * in ebx; PVH has no magic there. */
#define HEADER_MAGIC 0x1badb002
#ifdef ADDRESSES
#define FLAGS 0x10003
#else
#define FLAGS 3
#endif

    .section .head, "ax"
    .code32
    .global start
start:
    jmp enter
    .balign 4
header:
    .long HEADER_MAGIC, FLAGS, -(HEADER_MAGIC + FLAGS)
    .long header, start, load_end, bss_end, start

    .global pvh_start
pvh_start:
    xorl %eax, %eax
enter:
    movl $stack_end, %esp
    pushl %ebx
    pushl %eax
    call main
    outb %al, $0xf4
1:  cli
    hlt
    jmp 1b

    .section .note.xen, "a", @note
    .long 4, 4, 18                    /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long pvh_start

    .bss
    .balign 16
    .skip 8192
stack_end:
