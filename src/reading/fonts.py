#!/usr/bin/env python3
"""fonts.py SHARE LINUX-GLYPHS TABLE SAMPLES: what the bitmap fonts of consoles look like.

Reads the fonts of the distribution's packages below SHARE (/usr/share) and writes TABLE, the C
source that font.c includes: one number for each glyph, its hash above and its character below.
SAMPLES has the glyphs themselves, for the tests. A package that is not there leaves its fonts out.

  console-setup-linux  the fonts that setfont loads: PSF 1 and 2 with Unicode tables
  seabios              the 8x8, 8x14 and 8x16 fonts of the VGA BIOS, code page 437
  grub-common          GRUB's unifont: PF2 (GRUB's manual, "GRUB font format")
  ovmf                 EDK2's narrow glyphs, 8x19: EFI_NARROW_GLYPH (UEFI 34.3.2), in an LZMA
                       section of the firmware volume (PI 3, GUIDed section EE4E5898-...)

Characters that look the same in one size cannot be told apart: ASCII comes first, then what PC
text screens have, then the lowest code.
"""
import glob
import gzip
import itertools
import lzma
import os
import re
import struct
import sys
import unicodedata

CODE_BITS = 21
BUCKET_BITS = 12
MASK = (1 << 64) - 1
CP437 = (
    '\0☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼' + ''.join(map(chr, range(32, 127))) + '⌂'
    'ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀'
    'αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\xa0')
LZMA_GUID = bytes.fromhex('98584eee143959429d6edc7bd79403cf')


class Fonts:
    def __init__(self):
        self.glyphs = {}  # (width, height, rows) -> character
        self.faces = {}  # (name, width, height) -> {rows: None}, in order
        self.missing = []

    def add(self, face, width, height, data, codes):
        """data: rows of whole bytes, the leftmost pixel highest."""
        pitch = (width + 7) // 8
        rows = tuple(int.from_bytes(data[i * pitch:(i + 1) * pitch], 'big') >> pitch * 8 - width
                     for i in range(height))
        full = (1 << width) - 1
        if len(set(rows)) == 1 and rows[0] in (0, full):
            return  # of one colour: a space
        codes = [c for c in codes if 0x20 < c < 0x110000 and not 0x7f <= c < 0xa0]
        if not codes:
            return
        key = (width, height, rows)
        code = min(codes, key=rank)
        self.faces.setdefault((face, width, height), {})[rows] = None
        if key not in self.glyphs or rank(code) < rank(self.glyphs[key]):
            self.glyphs[key] = code


def rank(code):
    if code < 0x7f:
        group = 0
    elif chr(code) in CP437:
        group = 1
    elif 0xe000 <= code < 0xf900 or 0xf0000 <= code:  # for private use
        group = 3
    else:
        group = 2
    return group, code


def glyph_hash(width, height, rows):
    """The same as in font.c."""
    h = width << 8 | height
    for row in rows:
        h = (h ^ row) * 0x9e3779b97f4a7c15 & MASK
        h ^= h >> 32
    return h * 0xd6e8feb86659fd93 & MASK


def psf(data):
    """Width, height, glyphs and the characters of each."""
    if data[:2] == b'\x36\x04':
        mode, height = data[2], data[3]
        count = 512 if mode & 1 else 256
        glyphs = [data[4 + i * height:4 + (i + 1) * height] for i in range(count)]
        rest = data[4 + count * height:]
        codes, now, sequence = [], [], False
        for (unit,) in struct.iter_unpack('<H', rest[:len(rest) // 2 * 2]):
            if unit == 0xffff:
                codes.append(now)
                now, sequence = [], False
            elif unit == 0xfffe:
                sequence = True
            elif not sequence:
                now.append(unit)
        return 8, height, glyphs, codes
    _, _, start, flags, count, size, height, width = struct.unpack('<8I', data[:32])
    glyphs = [data[start + i * size:start + (i + 1) * size] for i in range(count)]
    codes = []
    if flags & 1:
        for entry in data[start + count * size:].split(b'\xff')[:count]:
            codes.append([ord(c) for c in entry.split(b'\xfe')[0].decode('utf-8', 'ignore')])
    return width, height, glyphs, codes


def console_fonts(fonts, share):
    for path in sorted(glob.glob(share + '/consolefonts/*-*.psf.gz')):
        name = re.match(r'[^-]*-([A-Za-z]+)', os.path.basename(path)).group(1)
        with gzip.open(path) as file:
            width, height, glyphs, codes = psf(file.read())
        for data, chars in zip(glyphs, codes):
            fonts.add(name, width, height, data, chars)
    return ('Terminus', 16, 32) in fonts.faces


def vga_fonts(fonts, share):
    """A letter A finds each font in the ROM."""
    letters = {
        8: '3078ccccfccccc00',
        14: '000010386cc6c6fec6c6c6000000',
        16: '000010386cc6c6fec6c6c6c600000000',
    }
    try:
        with open(share + '/seabios/vgabios-stdvga.bin', 'rb') as file:
            rom = file.read()
    except OSError:
        return False
    for height, letter in letters.items():
        start = rom.find(bytes.fromhex(letter)) - ord('A') * height
        if start < 0:
            return False
        for code, char in enumerate(CP437):
            fonts.add('VGA', 8, height, rom[start + code * height:][:height], [ord(char)])
    return True


def unifont(fonts, share):
    try:
        with open(share + '/grub/unicode.pf2', 'rb') as file:
            data = file.read()
    except OSError:
        return False
    sections, at = {}, 0
    while at + 8 <= len(data):
        name, length = struct.unpack('>4sI', data[at:at + 8])
        if name == b'DATA':
            break
        sections[name] = data[at + 8:at + 8 + length]
        at += 8 + length
    ascent, = struct.unpack('>H', sections[b'ASCE'])
    for code, _, offset in struct.iter_unpack('>IBI', sections[b'CHIX']):
        width, height, left, bottom, device = struct.unpack('>HHhhh', data[offset:offset + 10])
        if device not in (8, 16) or not width or not height:
            continue
        if code > 0x10ffff or unicodedata.category(chr(code)).startswith('M'):
            continue  # stands on another character, never alone
        bits = int.from_bytes(data[offset + 10:][:(width * height + 7) // 8], 'big')
        bits >>= -width * height % 8
        top = ascent - bottom - height
        if left < 0 or left + width > device or top < 0 or top + height > 16:
            continue
        rows = [0] * 16
        for y in range(height):
            row = bits >> (height - 1 - y) * width & ((1 << width) - 1)
            rows[top + y] = row << device - left - width
        fonts.add('unifont', device, 16, b''.join(r.to_bytes(device // 8, 'big') for r in rows),
                  [code])
    return True


def edk2(fonts, share):
    glyph = struct.Struct('<HB19s')
    first = re.compile(re.escape(glyph.pack(0x20, 0, bytes(19)) + b'\x21\0\0'))
    for path in sorted(glob.glob(share + '/OVMF/OVMF_CODE*.fd')):
        with open(path, 'rb') as file:
            volume = file.read()
        for section in re.finditer(re.escape(LZMA_GUID), volume):
            # Behind the GUID: where the data begin, counted from the section's head.
            start, = struct.unpack_from('<H', volume, section.end())
            try:
                plain = lzma.LZMADecompressor(format=lzma.FORMAT_ALONE).decompress(
                    volume[section.start() - 4 + start:])
            except lzma.LZMAError:
                continue
            found = first.search(plain)
            if not found:
                continue
            at = found.start()
            code, attributes, rows = glyph.unpack_from(plain, at)
            while code and attributes == 0:
                fonts.add('EDK2', 8, 19, rows, [code])
                at += glyph.size
                code, attributes, rows = glyph.unpack_from(plain, at)
            return True
    return False


def linux_fonts(fonts, path):
    with open(path, encoding='utf-8') as file:
        for line in file:
            if line.strip() and not line.startswith('#'):
                width, height, char, bits = line.split()
                width, height = int(width), int(height)
                fonts.add('Linux', width, height, bytes.fromhex(bits), [ord(char)])


def cursors(fonts):
    """GRUB and VGA fill two lines for the cursor. Of letters that reach below the line that leaves
    not enough to know them, so they are in the table once more as they look then."""
    result = {}
    for (width, height, rows), code in fonts.glyphs.items():
        if width != 8 or height != 16 or not 0x20 < code < 0x7f:
            continue
        for first in 13, 14:
            if (rows[first] or rows[first + 1]) and any(rows[:first]):
                under = rows[:first] + (0xff, 0xff) + rows[first + 2:]
                result.setdefault((width, height, under), set()).add(code)
    return {key: codes.pop() for key, codes in result.items()
            if len(codes) == 1 and key not in fonts.glyphs}


def drop_pairs(fonts):
    """Glyphs of two cells' width that look like two others are read as those; ideographs are not."""
    for width, height, rows in [key for key in fonts.glyphs if key[:2] == (16, 16)]:
        halves = tuple(row >> 8 for row in rows), tuple(row & 0xff for row in rows)
        if all(set(h) in ({0}, {0xff}) or (8, 16, h) in fonts.glyphs for h in halves):
            code = fonts.glyphs[width, height, rows]
            if 0x4e00 <= code <= 0x9fff and all(any(h) for h in halves):
                continue
            del fonts.glyphs[width, height, rows]
            del fonts.faces['unifont', width, height][rows]


def main():
    share, linux, table, samples = sys.argv[1:]
    fonts = Fonts()
    for package, what, read in (
            ('seabios', 'VGA', vga_fonts), ('console-setup-linux', 'the Linux console', console_fonts),
            ('grub-common', 'GRUB', unifont), ('ovmf', 'EDK2', edk2)):
        if not read(fonts, share):
            fonts.missing.append(f'{what} ({package})')
            print(f'hv will not read the fonts of {what}: no package {package}', file=sys.stderr)
    linux_fonts(fonts, linux)
    drop_pairs(fonts)

    numbers = {}
    for (width, height, rows), code in list(cursors(fonts).items()) + list(fonts.glyphs.items()):
        numbers[glyph_hash(width, height, rows) >> CODE_BITS] = code
    with open(table, 'w', encoding='utf-8') as file:
        file.write('static const char missing_fonts[] = "%s";\n' % ', '.join(fonts.missing))
        file.write('static const uint64_t glyphs[] = {\n')
        for h in sorted(numbers):
            file.write('0x%x,\n' % (h << CODE_BITS | numbers[h]))
        file.write('UINT64_MAX };\n')
        starts = [0] * ((1 << BUCKET_BITS) + 1)
        for h in numbers:
            starts[(h << CODE_BITS >> 64 - BUCKET_BITS) + 1] += 1
        file.write('static const uint32_t buckets[] = { %s };\n' %
                   ', '.join(map(str, itertools.accumulate(starts))))
    with open(samples, 'wb') as file:
        for (name, width, height), rows in sorted(fonts.faces.items()):
            file.write(struct.pack('<24sIII', name.encode(), width, height, len(rows)))
            for r in rows:
                file.write(struct.pack('<I%dI' % height, fonts.glyphs[width, height, r], *r))


main()
