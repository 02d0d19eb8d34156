/* An idle guest: the marker 0xA7 on COM1, then cli and hlt for ever. */
#include "boot.inc"
start:
    send $0xa7
9:  cli
    hlt
    jmp 9b
