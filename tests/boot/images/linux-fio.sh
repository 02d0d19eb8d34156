#!/bin/sh
# linux-fio.sh: an ext4 file system with Debian's fio and blkdiscard and the libraries they need. Prints its
# path.

. "$(dirname "$0")/lib.sh"
image fio.img
need mke2fs:e2fsprogs
package_lists
# shellcheck disable=SC2046 # a list of words
unpack $(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances fio util-linux | grep -E '^(fio|util-linux|lib[a-z0-9.+-]*|zlib1g)$' | sort -u)
mkdir -p "$work/disk/lib"
cp "$work/root/usr/bin/fio" "$work/root/sbin/blkdiscard" "$work/disk"
folders=$(find "$work/root" -name '*.so*' -printf '%h\n' | sort -u | tr '\n' ':')
loader=$(find "$work/root" -name 'ld-linux-x86-64.so.2' -print -quit)
for program in fio blkdiscard; do
    "$loader" --library-path "$folders" --list "$work/disk/$program" | sed -n 's/.*=> \(.*\) (0x.*/\1/p' |
        while read -r library; do cp -L "$library" "$work/disk/lib"; done
done
cp -L "$loader" "$work/disk/ld.so"
truncate -s 96M "$work/disk.img"
mke2fs -q -F -t ext4 -m 0 -L fio -d "$work/disk" "$work/disk.img"
publish "$work/disk.img"
