#!/bin/sh
# debian-kernel.sh: kernel and initrd of the disk of debian.sh, as vmlinuz and initrd.img in a folder.
# Prints its path.

. "$(dirname "$0")/lib.sh"
image debian-kernel
need debugfs:e2fsprogs
disk=$("$images/debian.sh") || exit 1
rm -rf "$result"
mkdir "$work/files"
for file in vmlinuz initrd.img; do
    name=$(debugfs -R "stat $file" "$disk?offset=1048576" 2>/dev/null | sed -n 's/^Fast link dest: "\(.*\)"/\1/p')
    debugfs -R "dump /$name $work/files/$file" "$disk?offset=1048576" 2>/dev/null
    [ -s "$work/files/$file" ] || die "the disk has no $file"
done
publish "$work/files"
