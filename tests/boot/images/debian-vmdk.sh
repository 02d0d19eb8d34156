#!/bin/sh
# debian-vmdk.sh: the disk of debian.sh as a VMDK image (monolithicSparse). Prints its path.

. "$(dirname "$0")/lib.sh"
image debian.vmdk
need qemu-img:qemu-utils
disk=$("$images/debian.sh") || exit 1
qemu-img convert -O vmdk -o subformat=monolithicSparse "$disk" "$work/debian.vmdk"
publish "$work/debian.vmdk"
