/* A kernel in the dress of a bzImage (Linux Documentation/arch/x86/boot.rst): prints by which entry it
 * came and its command line, then the first bytes of its initrd; exit 0 when what it was given is
 * right. With -DENTRY=64 it has a 64-bit entry, with 32 only a 32-bit one. */
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
    .word 0x20f
    .long 0
    .word 0, 0
    .byte 0, 1                        /* loadflags: LOADED_HIGH */
    .word 0
    .long 0x100000                    /* code32_start */
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
#if ENTRY == 64
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
