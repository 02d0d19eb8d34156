#!/bin/sh
# debian-qcow2.sh: the disk of debian.sh as a qcow2 image with compressed clusters. Prints its path.

. "$(dirname "$0")/lib.sh"
image debian.qcow2
need qemu-img:qemu-utils
disk=$("$images/debian.sh") || exit 1
qemu-img convert -c -O qcow2 "$disk" "$work/debian.qcow2"
publish "$work/debian.qcow2"
