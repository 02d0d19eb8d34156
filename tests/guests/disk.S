/* A boot sector that writes DISK_CHUNKS times 32 KiB to the disk it comes from, behind its first 32 KiB,
 * through the firmware (INT 13h, extended), each sector with other words, and then reads all and
 * compares. It ends the machine by the debug exit: 32, or 33 when a write fails, 34 a read, 35 when it
 * reads what it did not write. */
    .set SECTORS, 64 /* of a chunk */
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
pass:
    movl $SECTORS, place
chunk:
    cmpb $0x43, function
    jne transfer
    call walk
transfer:
    mov function, %ah
    xor %al, %al
    movw $SECTORS, count
    mov $packet, %si
    mov drive, %dl
    int $0x13
    jc refused
    cmpb $0x42, function
    jne next
    call walk
    jne different
next:
    addl $SECTORS, place
    cmpl $(SECTORS * (1 + DISK_CHUNKS)), place
    jb chunk
    decb function           /* from writing to reading */
    cmpb $0x42, function
    je pass
    mov $32, %al
    jmp stop
refused:
    mov $0x43 + 33, %al
    sub function, %al
    jmp stop
different:
    mov $35, %al
stop:
    out %al, $0xf4
1:  hlt
    jmp 1b

/* Fills the buffer when writing; else compares, and is "equal" or not. Each sector has its own word. */
walk:
    mov $0x1000, %ax
    mov %ax, %es
    xor %di, %di
    mov place, %ebx
1:  imul $0x9e3779b1, %ebx, %eax
    mov $128, %cx
    cmpb $0x42, function
    je 2f
    rep stosl
    jmp 3f
2:  repe scasl
    jne 4f
3:  inc %ebx
    cmp $(SECTORS * 512), %di
    jb 1b
    cmp %ax, %ax
4:  ret

function: .byte 0x43
drive: .byte 0
    .balign 4
packet:
    .byte 16, 0
count: .word 0
    .word 0, 0x1000         /* the buffer, a 64 KiB page of its own */
place: .long 0, 0
    .org 510
    .word 0xaa55
