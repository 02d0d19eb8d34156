#!/bin/sh
# remade.sh RAW QCOW2 FORMAT: what qemu-img makes of a qcow2 image, in that format, is the same disk as RAW.
size=
[ "$3" != vpc ] || size=force_size=on # not what cylinders make of it
qemu-img convert -O "$3" ${size:+-o "$size"} "$2" made && qemu-img compare -q -f raw -F "$3" "$1" made
