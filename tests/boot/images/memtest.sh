#!/bin/sh
# Memtest86+'s own CD.

. "$(dirname "$0")/lib.sh"
image memtest.iso
unpack memtest86+
publish "$work/root/usr/lib/memtest86+/memtest86+x64.iso"
