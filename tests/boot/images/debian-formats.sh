#!/bin/sh
# debian-formats.sh: the disk of debian.sh in formats that hv reads, of all kinds, as files in a folder.
# Prints its path. They take 3 GiB, so they are made when $long is set only (../run --long).

. "$(dirname "$0")/lib.sh"
[ -n "${long:-}" ] || die 'only with run --long'
image debian-formats
need qemu-img:qemu-utils python3:python3
disk=$("$images/debian.sh") || exit 1
rm -rf "$result"
mkdir "$work/files"
cd "$work/files"

# make FILE FORMAT OPTIONS [SOURCE]
make() { qemu-img convert -f raw -O "$2" -o "$3" "${4:-$disk}" "$1"; }
make flat.vmdk vmdk subformat=monolithicFlat
make two.vmdk vmdk subformat=twoGbMaxExtentSparse
make stream.vmdk vmdk subformat=streamOptimized
make fixed.vdi vdi static=on
make fixed.vhd vpc subformat=fixed,force_size=on
make dynamic.vhd vpc subformat=dynamic,force_size=on
make fixed.vhdx vhdx subformat=fixed

# A differencing VHD image, which qemu-img cannot make: of every third block of 2 MiB that has data, all
# sectors or every second one are the child's, and nonsense in the parent.
python3 - "$disk" "$work/parent.raw" child.vhd <<'END' || die 'no differencing image'
import struct, sys
disk, parent, child = sys.argv[1:]
BLOCK, SECTOR, TABLE, NAME, FIRST = 2 << 20, 512, 2048, 8192, 16384
size = 0
own = {}
with open(disk, 'rb') as f, open(parent, 'wb') as p:
    while block := f.read(BLOCK):
        number, size = size // BLOCK, size + len(block)
        if any(block):
            if number % 3 == 0:
                step = 1 + number % 2
                own[number] = (step, block)
                block = bytearray(block)
                for i in range(0, len(block), step * SECTOR):
                    block[i:i + SECTOR] = b'\xee' * SECTOR
            p.seek(number * BLOCK)
            p.write(block)
    p.truncate(size)

def summed(data, at):
    return data[:at] + struct.pack('>I', ~sum(data) & 0xffffffff) + data[at + 4:]

def footer(kind, data_at, identity):
    return summed(struct.pack('>8sIIQI4sI4sQQHBBII16s', b'conectix', 2, 0x10000, data_at, 0, b'hv  ', 0x10000,
        b'Wi2k', size, size, 2080, 16, 63, kind, 0, identity).ljust(512, b'\0'), 64)

entries = -(-size // BLOCK)
name = 'parent.vhd'.encode('utf-16-le')
header = struct.pack('>8sQQIII', b'cxsparse', 2 ** 64 - 1, TABLE, 0x10000, entries, BLOCK)
header = bytearray(header.ljust(1024, b'\0'))
header[40:56] = b'parent of debian'
header[64:64 + len(name)] = 'parent.vhd'.encode('utf-16-be')
header[576:600] = struct.pack('>IIIIQ', 0x57327275, 512, len(name), 0, NAME)
header = summed(bytes(header), 36)
table = [0xffffffff] * entries
with open(child, 'wb') as f:
    f.seek(FIRST)
    for number, (step, block) in own.items():
        table[number] = f.tell() // SECTOR
        f.write((b'\xff' if step == 1 else b'\xaa') * 512)
        f.write(block.ljust(BLOCK, b'\0'))
    end = footer(4, 512, b'child of  debian')
    f.write(end)
    f.seek(0)
    f.write(end + header)
    f.seek(TABLE)
    f.write(struct.pack(f'>{entries}I', *table))
    f.seek(NAME)
    f.write(name)
END
make parent.vhd vpc subformat=dynamic,force_size=on "$work/parent.raw"
# The identity that the child knows.
python3 - parent.vhd <<'END' || die 'no parent'
import struct, sys
with open(sys.argv[1], 'r+b') as f:
    end = f.seek(-512, 2)
    footer = bytearray(f.read(512))
    footer[68:84], footer[64:68] = b'parent of debian', bytes(4)
    footer[64:68] = struct.pack('>I', ~sum(footer) & 0xffffffff)
    for at in (0, end):
        f.seek(at)
        f.write(footer)
END
publish "$work/files"
