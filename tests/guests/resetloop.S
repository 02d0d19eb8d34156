/* Resets in every way a PC knows but a triple fault, one after the other: the reset control register
 * 0xCF9, the keyboard controller's command 0xFE, its output port, port 0x92. Two CMOS bytes that
 * outlive a reset count them (0x7c a magic, 0x7d the count). After RESETS of them the guest writes
 * '0' + count on COM1 and exits with status 0; with RESETS=0 it never does. */
#include "boot.inc"
start:
    movb $0x7c, %al
    outb %al, $0x70
    inb $0x71, %al
    cmpb $0x5a, %al
    je counted
    movb $0x5a, %al                   /* the first start */
    outb %al, $0x71
    movb $0x7d, %al
    outb %al, $0x70
    xorb %al, %al
    outb %al, $0x71
counted:
    movb $0x7d, %al
    outb %al, $0x70
    inb $0x71, %al
#if RESETS
    cmpb $RESETS, %al
    jae enough
#endif
    movb %al, %bl
    incb %al
    outb %al, $0x71
    movb %bl, %al                     /* the way is the count modulo 4 */
    andb $3, %al
    cmpb $0, %al
    je by_reset_control
    cmpb $1, %al
    je by_keyboard_command
    cmpb $2, %al
    je by_output_port
    jmp by_port_92

by_reset_control:
    movw $0xcf9, %dx
    movb $2, %al
    outb %al, %dx
    movb $6, %al
    outb %al, %dx
    jmp wait

by_keyboard_command:
    movb $0xfe, %al
    outb %al, $0x64
    jmp wait

by_output_port:
    movb $0xd1, %al
    outb %al, $0x64
1:  inb $0x64, %al                    /* the controller takes the command */
    testb $2, %al
    jnz 1b
    movb $2, %al
    outb %al, $0x60
    jmp wait

by_port_92:
    movb $2, %al                      /* the bit resets when it rises */
    outb %al, $0x92
    movb $3, %al
    outb %al, $0x92
    jmp wait

#if RESETS
enough:
    addb $'0', %al
    movb %al, %bl
    send %bl
    movb $0x7c, %al
    outb %al, $0x70
    xorb %al, %al
    outb %al, $0x71
    leave_with 0
#endif

/* The reset may take a moment; one that never comes is status 1. */
wait:
    movl $100000, %ecx
1:  inb $0x80, %al
    decl %ecx
    jnz 1b
    leave_with 1
