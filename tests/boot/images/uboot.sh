#!/bin/sh
# U-Boot for the 32-bit PC, a firmware that is not SeaBIOS.

. "$(dirname "$0")/lib.sh"
image u-boot.rom
unpack u-boot-qemu
publish "$work/root/usr/lib/u-boot/qemu-x86/u-boot.rom"
