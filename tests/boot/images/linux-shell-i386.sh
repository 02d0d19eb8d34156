#!/bin/sh
# The same as linux-shell.sh with Debian's 32-bit kernel (linux-image-686) and busybox.
exec "$(dirname "$(readlink -f "$0")")/linux-shell.sh" i386
