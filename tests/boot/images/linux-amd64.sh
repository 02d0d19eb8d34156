#!/bin/sh
# Debian's amd64 kernel and an initrd with linux-task in it; also vmlinux, the ELF file in the kernel
# (PVH). Prints the folder.
set -e
here=$(dirname "$(readlink -f "$0")")
folder=$("$here/linux-initrd.sh" --init "$here/linux-task" ahci | tail -1)
if [ ! -s "$folder/vmlinux" ]; then
    python3 "$here/../../lab/kernel.py" vmlinux "$folder/vmlinuz" "$folder/vmlinux.new"
    mv "$folder/vmlinux.new" "$folder/vmlinux"
fi
echo "$folder"
