/* A kernel in the dress of a bzImage (Linux Documentation/arch/x86/boot.rst): prints by which entry it
 * came and its command line, then the first bytes of its initrd; exit 0 when what it was given is
 * right. With -DENTRY=64 it has a 64-bit entry, with 32 only a 32-bit one, with 16 neither: then it
 * also asks the BIOS for the memory map. */
    .text
    .code16
    .org 0x1f1
setup_sects:
    .byte 1
    .word 0
    .long (code_end - code) / 16      /* syssize */
    .word 0, 0xffff, 0
    .word 0xaa55
    .byte 0xeb, header_end - 0f
0:  .ascii "HdrS"
#if ENTRY == 16
    .word 0x201
#else
    .word 0x20f
#endif
    .long 0
    .word 0, 0
    .byte 0, 1                        /* loadflags: LOADED_HIGH */
    .word 0
#if ENTRY == 16
    .long 0                           /* code32_start */
#else
    .long 0x100000
#endif
    .long 0, 0, 0
    .word 0, 0
    .long 0                           /* cmd_line_ptr */
    .long 0x7fffffff                  /* initrd_addr_max */
    .long 0x200000                    /* kernel_alignment */
    .byte 1, 21                       /* relocatable, min_alignment */
#if ENTRY == 64
    .word 1                           /* xloadflags */
#else
    .word 0
#endif
    .long 255                         /* cmdline_size */
    .long 0
    .quad 0
    .long 0, 0                        /* payload */
    .quad 0                           /* setup_data */
    .quad 0x400000                    /* pref_address */
    .long 0x100000                    /* init_size */
    .long 0
header_end:
#if ENTRY == 16
/* At 9020:0000 + (header_end - 0x200), with DS and all others 9000. */
.macro send
    movw $0x3f8, %dx
    outb %al, %dx
.endm
    movw $0x3fb, %dx
    movb $3, %al
    outb %al, %dx
    movb $'1', %al
    send
    movb $'6', %al
    send
    movb $' ', %al
    send
    cmpw $0xa33f, 0x20                /* the old way to tell the command line */
    jne 8f
    movw 0x22, %si
1:  movb (%si), %al
    testb %al, %al
    jz 2f
    send
    addw $1, %si
    jmp 1b
2:  movb $'\n', %al
    send
    xorl %ebx, %ebx                   /* the memory map: is there RAM at 1 MiB? */
3:  movl $0xe820, %eax
    movl $0x534d4150, %edx
    movl $20, %ecx
    movw $0x8000, %di
    int $0x15
    jc 8f
    cmpl $0x534d4150, %eax
    jne 8f
    cmpl $0x100000, 0x8000
    je 4f
    testl %ebx, %ebx
    jnz 3b
    jmp 8f
4:  cmpl $1, 0x8010
    jne 8f
    int $0x12
    cmpw $639, %ax
    jne 8f
    movb $0, %al
    jmp 9f
8:  movb $1, %al
9:  outb %al, $0xf4
    hlt
    jmp 9b
#endif
    .org 1024

/* Instructions that both modes have. */
.macro print_byte
    movw $0x3f8, %dx
    outb %al, %dx
.endm

.macro body
    movw $0x3fb, %dx
    movb $3, %al
    outb %al, %dx
    movb $'0' + ENTRY / 10, %al
    print_byte
    movb $'0' + ENTRY % 10, %al
    print_byte
    movb $' ', %al
    print_byte
    movl %esi, %ebp
    movl 0x228(%ebp), %esi            /* the command line */
1:  movb (%esi), %al
    testb %al, %al
    jz 2f
    print_byte
    addl $1, %esi
    jmp 1b
2:  movb $'\n', %al
    print_byte
    movl 0x218(%ebp), %esi            /* the initrd */
    movl 0x21c(%ebp), %edi
3:  testl %edi, %edi
    jz 4f
    movb (%esi), %al
    print_byte
    addl $1, %esi
    subl $1, %edi
    jmp 3b
4:  movb $0, %al
    cmpl $0x53726448, 0x202(%ebp)     /* "HdrS" */
    jne 5f
    cmpb $8, 0x1e8(%ebp)              /* entries of the memory map */
    jb 5f
    cmpl $0, 0x70(%ebp)               /* the RSDP */
    je 5f
    jmp 6f
5:  movb $1, %al
6:  outb %al, $0xf4
7:  hlt
    jmp 7b
.endm

code:
#if ENTRY == 16
    .skip 16
#elif ENTRY == 64
    .code32
    movb $2, %al                      /* nobody comes here */
    outb %al, $0xf4
    .org 1024 + 0x200
    .code64
    body
#else
    .code32
    body
#endif
    .balign 16
code_end:
