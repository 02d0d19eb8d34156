#!/bin/sh
# GRUB's rescue floppy, as large as the floppy that it is meant to be copied to.

. "$(dirname "$0")/lib.sh"
image grub-rescue-floppy.img
unpack grub-rescue-pc
cp "$work/root/usr/lib/grub-rescue/grub-rescue-floppy.img" "$work/floppy.img"
truncate -s 1440K "$work/floppy.img"
publish "$work/floppy.img"
