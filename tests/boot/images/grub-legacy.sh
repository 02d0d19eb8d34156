#!/bin/sh
# A disk with GRUB legacy: stage1 in the MBR and stage2 in the sectors after it, where stage1
# looks unless told otherwise. It ends at its prompt; a FAT partition has a file to find.

. "$(dirname "$0")/lib.sh"
image grub-legacy.img
need mformat:mtools
unpack grub-legacy grub-invaders

first=2048
sectors=30720
disk=$work/disk.img
stage=$work/root/usr/lib/grub/x86_64-pc
[ "$(stat -c %s "$stage/stage2")" -le $(((first - 1) * 512)) ] || die 'stage2 is too large'
truncate -s $(((first + sectors) * 512)) "$disk"
dd if="$stage/stage1" of="$disk" bs=440 count=1 conv=notrunc status=none
dd if="$stage/stage2" of="$disk" bs=512 seek=1 conv=notrunc status=none
partition "$disk" $first $sectors 6

part=$disk@@$((first * 512))
mformat -i "$part" -T $sectors -h 16 -s 63 -H $first -v LEGACY ::
mcopy -i "$part" "$work/root/boot/invaders.exec" ::
publish "$disk"
