#!/bin/sh
# GRUB legacy on a 1.44 MB floppy, as its manual makes one: stage1 and behind it stage2.

. "$(dirname "$0")/lib.sh"
image grub-floppy.img
unpack grub-legacy

stage=$work/root/usr/lib/grub/x86_64-pc
truncate -s 1440K "$work/floppy.img"
dd if="$stage/stage1" of="$work/floppy.img" conv=notrunc status=none
dd if="$stage/stage2" of="$work/floppy.img" bs=512 seek=1 conv=notrunc status=none
publish "$work/floppy.img"
