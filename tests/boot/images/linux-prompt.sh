#!/bin/sh
# Debian's amd64 kernel and an initrd with busybox, the driver of virtio-blk and ext4, and root's shell on the
# serial port, as the examples' shell-initrd makes one. Prints the folder that linux-initrd.sh made.
. "$(dirname "$0")/lib.sh"
task=$(mktemp "$cache/prompt.XXXXXX")
trap 'rm -f "$task"' EXIT
echo "PS1='# ' exec setsid cttyhack sh </dev/ttyS0 >/dev/ttyS0 2>&1" >"$task"
"$images/linux-initrd.sh" --init "$task" virtio_pci virtio_blk ext4 crc32c_generic
