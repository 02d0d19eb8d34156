#!/usr/bin/env python3
"""Takes from an unpacked kernel package of Debian what the lab boots.

kernel.py vmlinux VMLINUZ OUT      the kernel inside a compressed image, as ELF: QEMU starts it
                                   by PVH, without real mode and without unpacking it emulated
kernel.py modules TREE OUT NAME... the modules and what they need, and OUT/order, the names in
                                   the order of loading; the signatures are cut off, because
                                   checking them is slow under emulation
"""
import lzma
import os
import re
import struct
import sys

SIGNATURE_END = b'~Module signature appended~\n'


def vmlinux(image, out):
    with open(image, 'rb') as f:
        data = f.read()
    payload = data[data.index(b'\xfd7zXZ\0'):]
    with open(out, 'wb') as f:
        f.write(lzma.LZMADecompressor().decompress(payload))


def unsigned(module):
    """Documentation/admin-guide/module-signing.rst: the signature, 12 bytes about it of which
    the last four are its length, and the end mark."""
    if not module.endswith(SIGNATURE_END):
        return module
    body = module[:-len(SIGNATURE_END)]
    length, = struct.unpack('>I', body[-4:])
    return body[:-12 - length]


def modules(tree, out, *names):
    paths = {}
    for folder, _, files in os.walk(tree):
        for name in files:
            if name.endswith('.ko'):
                paths[name[:-3].replace('-', '_')] = os.path.join(folder, name)
    with open(os.path.join(tree, 'modules.builtin')) as f:
        builtin = {os.path.basename(line.strip())[:-3].replace('-', '_') for line in f}
    order = []

    def add(name):
        name = name.replace('-', '_')
        if name in builtin or name in order:
            return
        with open(paths[name], 'rb') as f:
            data = f.read()
        for key in rb'\0depends=([^\0]+)\0', rb'\0softdep=pre: ([^\0]+)\0':
            found = re.search(key, data)
            for other in re.split('[, ]', found.group(1).decode()) if found else []:
                # a soft dependency may name what this kernel hasn't got
                if other in paths or b'depends' in key:
                    add(other)
        order.append(name)
        with open(os.path.join(out, name + '.ko'), 'wb') as f:
            f.write(unsigned(data))

    for name in names:
        add(name)
    with open(os.path.join(out, 'order'), 'w') as f:
        f.write('\n'.join(order) + '\n')


if __name__ == '__main__':
    {'vmlinux': vmlinux, 'modules': modules}[sys.argv[1]](*sys.argv[2:])
