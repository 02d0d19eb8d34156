#!/bin/sh
# elf-to-c.sh OBJCOPY ELF OUTPUT.inc: the code of an ELF file as the bytes of a C array's initialiser.
set -eu
"$1" -O binary -j .text "$2" "${3%.inc}.bin"
bytes=$(od -An -v -tx1 "${3%.inc}.bin")
echo "$bytes" | sed 's/ \([0-9a-f][0-9a-f]\)/0x\1,/g' >"$3"
