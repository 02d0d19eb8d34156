#!/bin/sh
# A CD with the Debian installer: the text mode kernel and initial file system of the netboot
# package, started by GRUB. It stays in VGA text mode and talks English to its first dialog.

. "$(dirname "$0")/lib.sh"
image installer.iso
unpack debian-installer-12-netboot-amd64

mkdir -p "$work/cd/boot/grub"
text=$work/root/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64
cp "$text/linux" "$text/initrd.gz" "$work/cd/boot/"
cat >"$work/cd/boot/grub/grub.cfg" <<'EOF'
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=1
menuentry 'Install Debian 12' {
    linux /boot/linux vga=normal fb=false nomodeset mitigations=off --- quiet
    initrd /boot/initrd.gz
}
EOF
grub_iso "$work/cd"
publish "$work/disk.iso"
