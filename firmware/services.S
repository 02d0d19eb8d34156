/* The little of a BIOS that a kernel's real-mode code asks for when hv starts one that has no other
 * entry (src/boot/real.c): memory sizes, and polite refusals. It lies at F000:8000 in RAM that is
 * read-only to the guest. Calls as in Ralf Brown's interrupt list; flags are returned on the stack.
 */
    .code16
    .text
/* Read by hv: where each interrupt's handler is, 0 at the end; then where the numbers below are. */
    .word 0x10, int_10
    .word 0x11, int_11
    .word 0x12, int_12
    .word 0x13, int_13
    .word 0x15, int_15
    .word 0x16, int_16
    .word 0x1a, int_1a
    .word 0, numbers
    .org 0x40
nothing:                              /* all other interrupts: offset 0x8040 */
    iretw

/* Failure: carry set, AH the reason. */
refuse:
    movb $0x86, %ah
carry:
    pushw %bp
    movw %sp, %bp
    orw $1, 6(%bp)
    popw %bp
    iretw
no_carry:
    pushw %bp
    movw %sp, %bp
    andw $0xfffe, 6(%bp)
    popw %bp
    iretw

/* Video: the mode is 80x25 text; all else is done by doing nothing. */
int_10:
    cmpb $0x0f, %ah
    jne nothing
    movw $0x5003, %ax
    movb $0, %bh
    iretw

int_11:                               /* equipment: 80x25 colour */
    movw $0x0020, %ax
    iretw

int_12:
    movw %cs:low_kib, %ax
    iretw

int_13:                               /* no such disk */
    movb $1, %ah
    jmp carry

/* Memory. */
int_15:
    cmpw $0xe820, %ax
    je map
    cmpw $0xe801, %ax
    je sizes
    cmpb $0x88, %ah
    jne refuse
    movw %cs:high_kib, %ax
    jmp no_carry

sizes:                                /* up to 16 MiB in KiB, beyond in 64 KiB */
    movw %cs:below_16m, %ax
    movw %cs:above_16m, %bx
    movw %ax, %cx
    movw %bx, %dx
    jmp no_carry

map:                                  /* entry EBX to ES:DI; EBX is the next one, 0 after the last */
    cmpl $0x534d4150, %edx
    jne refuse
    cmpl $20, %ecx
    jb refuse
    movzwl %cs:map_count, %eax
    cmpl %eax, %ebx
    jae refuse
    pushw %si
    pushw %di
    movw %bx, %ax
    movw $20, %cx
    mulw %cx                          /* DX:AX; SMAP comes back below */
    movw %ax, %si
    addw $map_entries, %si
1:  movb %cs:(%si), %al
    movb %al, %es:(%di)
    incw %si
    incw %di
    loop 1b
    popw %di
    popw %si
    incl %ebx
    movzwl %cs:map_count, %eax
    cmpl %eax, %ebx
    jb 2f
    xorl %ebx, %ebx
2:  movl $0x534d4150, %edx
    movl %edx, %eax
    movl $20, %ecx
    jmp no_carry

/* Keyboard: no key is there (ZF), no shift is pressed. */
int_16:
    andb $0xef, %ah
    cmpb $1, %ah
    movw $0, %ax
    jne nothing
    pushw %bp
    movw %sp, %bp
    orw $0x40, 6(%bp)
    popw %bp
    iretw

int_1a:                               /* no PCI BIOS, no ticks, no clock */
    movw $0, %cx
    movw $0, %dx
    jmp carry

/* Written by hv. */
    .org 0x180
numbers:
low_kib:
    .word 0
high_kib:
    .word 0
below_16m:
    .word 0
above_16m:
    .word 0
map_count:
    .word 0
    .org 0x190
map_entries:
    .skip 16 * 20
