/* A boot sector that reads a whole floppy through the firmware (INT 13h), track by track, and shows
 * the check sum that tests/boot/steps/floppy-sum.sh computes too: of all 32-bit words, each added
 * to what came before, turned left by one. CYLINDERS, HEADS and SECTORS are the floppy's; CHECKED
 * of its cylinders are read, for firmware counts no more than 80. */
    .code16
    .globl _start
_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $0x7c00, %sp
    sti
    cld
    mov %dl, drive
    mov $0x1000, %ax        /* the buffer: a 64 KiB page of its own */
    mov %ax, %es
    xor %ebp, %ebp
track:
    movb $3, tries
read:
    mov $(0x0200 + SECTORS), %ax
    mov cylinder, %ch
    mov $1, %cl
    mov head, %dh
    mov drive, %dl
    xor %bx, %bx
    int $0x13
    jnc add
    xor %ax, %ax            /* reset, and again */
    mov drive, %dl
    int $0x13
    decb tries
    jnz read
    mov $failed, %si
    call show
    mov cylinder, %al
    call show_byte
    jmp stop
add:
    mov $(SECTORS * 128), %cx
    xor %si, %si
1:  rol $1, %ebp
    add %es:(%si), %ebp
    add $4, %si
    loop 1b
    incb head
    cmpb $HEADS, head
    jb track
    movb $0, head
    incb cylinder
    cmpb $CHECKED, cylinder
    jb track
    mov $sum, %si
    call show
    mov $4, %cx
2:  rol $8, %ebp
    mov %ebp, %eax
    call show_byte
    loop 2b
    mov $end, %si
    call show
stop:
    hlt
    jmp stop

/* The text at %si, up to a 0. */
show:
    lodsb
    test %al, %al
    jz 3f
    call put
    jmp show
3:  ret

/* %al, as two digits. */
show_byte:
    push %ax
    shr $4, %al
    call digit
    pop %ax
    and $15, %al
digit:
    add $'0', %al
    cmp $'9', %al
    jbe put
    add $('a' - '0' - 10), %al
put:
    mov $0x0e, %ah
    mov $7, %bx
    int $0x10
    ret

drive: .byte 0
cylinder: .byte 0
head: .byte 0
tries: .byte 0
sum: .asciz "SUM "
failed: .asciz "FAILED AT "
end: .asciz " ALL READ\r\n"
    .org 510
    .word 0xaa55
