#!/bin/sh
# The same menu as syslinux.sh's, on a CD booted by isolinux (El Torito without emulation).

. "$(dirname "$0")/lib.sh"
image isolinux.iso
need xorriso:xorriso
unpack isolinux syslinux-common

mkdir -p "$work/cd"
cp "$work/root/usr/lib/ISOLINUX/isolinux.bin" "$work/cd/"
for file in ldlinux vesamenu libcom32 libutil meminfo reboot poweroff; do
    cp "$work/root/usr/lib/syslinux/modules/bios/$file.c32" "$work/cd/"
done
cat >"$work/cd/isolinux.cfg" <<'EOF'
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
xorriso -as mkisofs -quiet -V ISOLINUX -b isolinux.bin -c boot.cat -no-emul-boot \
    -boot-load-size 4 -boot-info-table -o "$work/disk.iso" "$work/cd" >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    die 'xorriso failed'
}
publish "$work/disk.iso"
