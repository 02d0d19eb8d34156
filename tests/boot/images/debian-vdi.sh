#!/bin/sh
# debian-vdi.sh: the disk of debian.sh as a VDI image. Prints its path.

. "$(dirname "$0")/lib.sh"
image debian.vdi
need qemu-img:qemu-utils
disk=$("$images/debian.sh") || exit 1
qemu-img convert -O vdi "$disk" "$work/debian.vdi"
publish "$work/debian.vdi"
