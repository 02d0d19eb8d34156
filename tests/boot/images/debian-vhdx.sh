#!/bin/sh
# debian-vhdx.sh: the disk of debian.sh as a VHDX image. Prints its path.

. "$(dirname "$0")/lib.sh"
image debian.vhdx
need qemu-img:qemu-utils
disk=$("$images/debian.sh") || exit 1
qemu-img convert -O vhdx -o subformat=dynamic,block_size=1M "$disk" "$work/debian.vhdx"
publish "$work/debian.vhdx"
