#!/bin/bash
# floppy-sum.sh FILE KIB: what tests/guests/floppy.S says when it has read all of it.
read=$(($2 == 1722 ? 1680 : $2)) # firmware has no more than 80 cylinders
head -c $((read * 1024)) "$1" | od -An -v -tu4 -w4 |
    awk '{ s = s * 2; if (s >= 4294967296) s -= 4294967295; s += $1
           if (s >= 4294967296) s -= 4294967296 } END { printf "SUM %04x%04x ALL READ", s / 65536, s % 65536 }'
