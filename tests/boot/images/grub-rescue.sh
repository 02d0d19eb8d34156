#!/bin/sh
# GRUB's rescue CD. The same file is an image for a USB stick or disk.

. "$(dirname "$0")/lib.sh"
image grub-rescue.iso
unpack grub-rescue-pc
publish "$work/root/usr/lib/grub-rescue/grub-rescue-cdrom.iso"
