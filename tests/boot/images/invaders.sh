#!/bin/sh
# A CD with GRUB Invaders, a game that is its own multiboot kernel: protected mode, VGA text,
# PIT and keyboard without any BIOS call.

. "$(dirname "$0")/lib.sh"
image invaders.iso
unpack grub-invaders

mkdir -p "$work/cd/boot/grub"
cp "$work/root/boot/invaders.exec" "$work/cd/boot/"
cat >"$work/cd/boot/grub/grub.cfg" <<'EOF'
set timeout=0
menuentry 'Invaders' {
    multiboot /boot/invaders.exec
}
EOF
grub_iso "$work/cd"
publish "$work/disk.iso"
