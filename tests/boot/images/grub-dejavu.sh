#!/bin/sh
# A CD whose GRUB writes in DejaVu Sans Mono: a font that hv does not know, for what reads pictures.
. "$(dirname "$0")/lib.sh"
image grub-dejavu.iso
need grub-mkrescue:grub-common xorriso:xorriso mformat:mtools
unpack grub-pc-bin fonts-dejavu-core

mkdir -p "$work/cd/boot/grub"
grub-mkfont -s 24 -r 0x20-0x7e -o "$work/cd/boot/grub/mono.pf2" \
    "$work/root/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf"
cat >"$work/cd/boot/grub/grub.cfg" <<'END'
insmod vbe
insmod gfxterm
loadfont /boot/grub/mono.pf2
set gfxmode=640x480
terminal_output gfxterm
clear
echo "Welcome to the garden"
echo
echo "Press a key to water the flowers"
read answer
clear
echo "The flowers say thank you"
sleep 1000
END
grub-mkrescue -d "$work/root/usr/lib/grub/i386-pc" -o "$work/disk.iso" --fonts= --locales= --themes= \
    --install-modules="normal iso9660 font gfxterm vbe echo read sleep" "$work/cd" \
    >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    die 'grub-mkrescue failed'
}
publish "$work/disk.iso"
