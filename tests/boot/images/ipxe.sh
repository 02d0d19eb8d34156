#!/bin/sh
# iPXE's CD, as Debian's package has it.
. "$(dirname "$0")/lib.sh"
image ipxe.iso
unpack ipxe
publish "$work/root/usr/lib/ipxe/ipxe.iso"
