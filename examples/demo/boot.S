/* From the boot sector to C. The BIOS loads the first sector at 0x7c00 with the drive in DL; it
 * loads the rest by INT 13h extensions. In real mode the BIOS is asked for what only it knows: the
 * memory map (INT 15h E820), the character shapes (INT 10h 1130h) and a graphics mode (VBE 3.0:
 * 4F00h..4F02h). Then 64-bit mode with the first 4 GiB mapped one to one (AMD64 APM vol. 2,
 * 14.6). */

#define VBE_INFO   0x2000
#define MODE_INFO  0x2200
#define FONT       0x4000
#define E820       0x5000
#define E820_MOST  64
#define INFO       0x5f00             /* struct boot_info in demo.h */
#define INFO_COUNT (INFO + 0)
#define INFO_MODE  (INFO + 2)
#define INFO_WIDTH (INFO + 4)
#define INFO_HEIGHT (INFO + 6)
#define INFO_PITCH (INFO + 8)
#define INFO_FRAME (INFO + 12)
#define PML4       0x70000
#define PDPT       0x71000
#define PD         0x72000
#define STACK      0x70000
#define CHUNK      32                 /* sectors of one read: 16 KiB */

    .section .boot, "ax"
    .code16
    .globl boot
boot:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    sti
    cld
    ljmp $0, $1f
1:  movb %dl, drive
    movw $disk_chunks, %cx
2:  pushw %cx
    movb drive, %dl
    movw $packet, %si
    movb $0x42, %ah
    int $0x13
    jc unreadable
    addw $(CHUNK * 512 / 16), packet_segment
    addl $CHUNK, packet_sector
    popw %cx
    loop 2b
    jmp real_mode

unreadable:
    movw $unreadable_text, %si
say_and_stop:
    lodsb
    testb %al, %al
    jz 1f
    movb $0x0e, %ah
    movw $7, %bx
    int $0x10
    jmp say_and_stop
1:  sti
    hlt
    jmp 1b

unreadable_text:
    .asciz "hv demo: the disk cannot be read\r\n"

    .balign 4
packet:
    .byte 16, 0
    .word CHUNK, 0
packet_segment:
    .word 0x7e0
packet_sector:
    .quad 1
drive:
    .byte 0

    .org 446
    .byte 0x80, 0, 2, 0, 0x7f, 0xff, 0xff, 0xff
    .long 1, 2047
    .org 510
    .word 0xaa55

    .section .real_mode, "ax"
real_mode:
    movw $E820, %di
    xorl %ebx, %ebx
    movw $0, INFO_COUNT
1:  movl $1, 20(%di)
    movl $0xe820, %eax
    movl $24, %ecx
    movl $0x534d4150, %edx            /* "SMAP" */
    int $0x15
    jc 2f
    cmpl $0x534d4150, %eax
    jne 2f
    addw $24, %di
    incw INFO_COUNT
    cmpw $E820_MOST, INFO_COUNT
    jae 2f
    testl %ebx, %ebx
    jnz 1b
2:
    movw $0x1130, %ax                 /* the 8x16 shapes: at ES:BP */
    movb $6, %bh
    int $0x10
    pushw %ds
    pushw %es
    popw %ds
    movw %bp, %si
    xorw %ax, %ax
    movw %ax, %es
    movw $FONT, %di
    movw $(4096 / 4), %cx
    rep movsl
    popw %ds

    movl $0x32454256, VBE_INFO        /* "VBE2" */
    movw $0x4f00, %ax
    movw $VBE_INFO, %di
    int $0x10
    cmpw $0x004f, %ax
    jne no_mode
    movw $0, INFO_WIDTH
    lfsw VBE_INFO + 14, %si
next_mode:
    movw %fs:(%si), %cx
    addw $2, %si
    cmpw $0xffff, %cx
    je last_mode
    pushw %si
    pushw %cx
    pushw %fs
    movw $0x4f01, %ax
    movw $MODE_INFO, %di
    int $0x10
    popw %fs
    popw %cx
    popw %si
    cmpw $0x004f, %ax
    jne next_mode
    movw MODE_INFO, %ax               /* supported, graphics, linear frame buffer */
    andw $0x91, %ax
    cmpw $0x91, %ax
    jne next_mode
    cmpb $32, MODE_INFO + 0x19
    jne next_mode
    movw MODE_INFO + 0x12, %ax
    cmpw $1024, %ax                   /* the widest up to 1024 */
    ja next_mode
    cmpw INFO_WIDTH, %ax
    jbe next_mode
    movw %ax, INFO_WIDTH
    movw %cx, INFO_MODE
    movw MODE_INFO + 0x14, %bx
    movw %bx, INFO_HEIGHT
    movw MODE_INFO + 0x10, %dx
    movw %dx, INFO_PITCH
    movl MODE_INFO + 0x28, %edx
    movl %edx, INFO_FRAME
    cmpw $1024, %ax
    jne next_mode
    cmpw $768, %bx
    jne next_mode
last_mode:
    cmpw $0, INFO_WIDTH
    je no_mode
    movw $0x4f02, %ax
    movw INFO_MODE, %bx
    orw $0x4000, %bx
    int $0x10
    cmpw $0x004f, %ax
    jne no_mode

    cli
    lgdtl gdt_pointer
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $8, $protected

no_mode:
    movw $no_mode_text, %si
    jmp say_and_stop
no_mode_text:
    .asciz "hv demo: the VGA BIOS has no graphics mode of 32 bits a pixel\r\n"

    .code32
protected:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
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
    ljmpl $24, $long_mode

    .code64
long_mode:
    movl $STACK, %esp
    call main
1:  cli
    hlt
    jmp 1b

    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff          /* 8: 32-bit code */
    .quad 0x00cf93000000ffff          /* 16: data */
    .quad 0x00af9b000000ffff          /* 24: 64-bit code */
gdt_pointer:
    .word 31
    .long gdt
