#!/bin/sh
# A disk with a FAT partition that syslinux boots into its graphical menu (VESA 640x480).

. "$(dirname "$0")/lib.sh"
image syslinux.img
need mformat:mtools
unpack syslinux syslinux-common

first=2048
sectors=30720
disk=$work/disk.img
truncate -s $(((first + sectors) * 512)) "$disk"
partition "$disk" $first $sectors 6
dd if="$work/root/usr/lib/syslinux/mbr/mbr.bin" of="$disk" bs=440 count=1 conv=notrunc status=none

part=$disk@@$((first * 512))
mformat -i "$part" -T $sectors -h 16 -s 63 -H $first -v SYSLINUX ::
cat >"$work/syslinux.cfg" <<'EOF'
serial 0 115200
ui vesamenu.c32
menu title hv boot test
label meminfo
  menu label Memory map
  com32 meminfo.c32
label restart
  menu label Restart
  com32 reboot.c32
label off
  menu label Power off
  com32 poweroff.c32
EOF
modules=$work/root/usr/lib/syslinux/modules/bios
for file in vesamenu libcom32 libutil meminfo reboot poweroff; do
    mcopy -i "$part" "$modules/$file.c32" ::
done
mcopy -i "$part" "$work/syslinux.cfg" ::
"$work/root/usr/bin/syslinux" --offset $((first * 512)) --install "$disk"
publish "$disk"
