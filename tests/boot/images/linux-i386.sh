#!/bin/sh
# Debian's 32-bit kernel (linux-image-686) and an initrd with linux-task in it. Prints the folder.
here=$(dirname "$(readlink -f "$0")")
exec "$here/linux-initrd.sh" --arch i386 --init "$here/linux-task" ahci
