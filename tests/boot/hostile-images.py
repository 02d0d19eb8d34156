#!/usr/bin/python3
# hostile-images.py HV: images that are wrong in one place, of each format, as TAP: hv image looks at
# them, converts them and mends them, and that ends soon, takes little memory, is no crash, and never
# shows a file that the image has no business with. The images are made here, from good ones that
# qemu-img makes; which they are does not change from run to run.
import json, os, resource, shutil, struct, subprocess, sys, tempfile

hv = os.path.realpath(sys.argv[1])
SECONDS, KIB = 1.0, 64 << 10 # of processor time; of memory
work = tempfile.mkdtemp(prefix='hv-hostile.', dir='/var/tmp')
os.chdir(work)
os.environ['XDG_RUNTIME_DIR'] = work
SECRET = b'root:x:0:0' # of /etc/passwd

# Who starts hv is another process, which stays small: Linux counts the memory of the one that forked.
def limits():
    resource.setrlimit(resource.RLIMIT_CPU, (5, 6))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, 1 << 40))

def serve(orders, answers):
    for line in orders:
        with open('said', 'wb') as said:
            child = subprocess.Popen([hv, 'image', *json.loads(line)], stdin=subprocess.DEVNULL, stdout=said,
                                     stderr=said, preexec_fn=limits)
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = 0
        answers.write(json.dumps([status, used.ru_utime + used.ru_stime, used.ru_maxrss]) + '\n')
        answers.flush()

orders, answers = os.pipe(), os.pipe()
if os.fork() == 0:
    os.close(orders[1])
    serve(os.fdopen(orders[0]), os.fdopen(answers[1], 'w'))
    os._exit(0)
os.close(orders[0])
orders, answers = os.fdopen(orders[1], 'w'), os.fdopen(answers[0])

def start(arguments):
    orders.write(json.dumps(arguments) + '\n')
    orders.flush()
    return json.loads(answers.readline())

def qemu(*arguments):
    subprocess.run(['qemu-img', *arguments], check=True, stdout=subprocess.DEVNULL)

data = b''.join(struct.pack('<Q', i * 0x9e3779b97f4a7c15 & (1 << 64) - 1) for i in range(1 << 16))
with open('disk.raw', 'wb') as f:
    f.write(data)
    f.truncate(4 << 20)
qemu('create', '-q', '-f', 'raw', 'base.raw', '4M')

def good(format, *options):
    qemu('convert', '-O', format, *options, 'disk.raw', 'good')
    with open('good', 'rb') as f:
        return f.read()

WORDS = { 2: (0, 7, 0x7fff, 0xffff), 4: (0, 1, 7, 0x1ff, 0x10001, 0x7fffffff, 0x80000000, 0xffffffff),
          8: (0, 1, 0x201, 0x10000, 1 << 40, 1 << 55, (1 << 62) + 512, (1 << 63) - 512, (1 << 64) - 1) }

def put(image, at, size, value, order):
    return image[:at] + (value & (1 << 8 * size) - 1).to_bytes(size, order) + image[at + size:]

def fields(name, image, order, list, mend=lambda image: image):
    """Each field with each of the words."""
    for at, size in list:
        for value in WORDS[size]:
            yield f'{name}: {size} bytes at {at:#x} are {value:#x}', mend(put(image, at, size, value, order))

def qcow2():
    header = [(4, 4), (8, 8), (16, 4), (20, 4), (24, 8), (32, 4), (36, 4), (40, 8), (48, 8), (56, 4), (60, 4),
              (64, 8), (72, 8), (80, 8), (88, 8), (96, 4), (100, 4)]
    for name, options in (('qcow2', ()), ('packed qcow2', ('-c',)), ('subclusters', ('-o', 'extended_l2=on'))):
        image = good('qcow2', *options)
        l1, table = struct.unpack('>QQ', image[40:56])
        l2 = struct.unpack('>Q', image[l1:l1 + 8])[0] & 0xfffffffffffe00
        block = struct.unpack('>Q', image[table:table + 8])[0]
        if name == 'qcow2':
            yield from fields(name, image, 'big', header + [(table, 8), (table + 8, 8)])
        for what, at in (('L1 entry', l1), ('L2 entry', l2), ('second L2 entry', l2 + 8)):
            for flag in (0, 1 << 63, 1 << 62, 3 << 62):
                for value in (0, 512, l1, table, block, l2, len(image), len(image) - 512, 1 << 55, (1 << 62) - 512):
                    yield f'{name}: the {what} is {value | flag:#x}', put(image, at, 8, value | flag, 'big')
        yield f'{name}: no refcounts', image[:block] + bytes(65536) + image[block + 65536:]
        for cut in (3, 100, 512, 70000, len(image) // 2):
            yield f'{name}: only {cut} bytes', image[:cut]
    for below, format in (('/etc/passwd', 'raw'), ('../../etc/passwd', 'raw'), ('nbd://localhost/', 'raw'),
                          ('json:{"driver":"file","filename":"/etc/passwd"}', 'raw'), ('x.qcow2', 'qcow2'),
                          ('/dev/zero', 'raw'), ('/proc/self/mem', 'raw'), ('.', 'raw'), ('a' * 1000, 'raw'),
                          ('/dev/stdin', 'raw'), ('file:/etc/passwd', 'raw'), ('base.raw', 'nosuch')):
        qemu('create', '-q', '-u', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'good', '4M')
        image = open('good', 'rb').read()
        at = struct.unpack('>Q', image[8:16])[0]
        extension = image.index(struct.pack('>II', 0xe2792aca, 3))
        image = image[:extension + 4] + struct.pack('>I', len(format)) + format.encode().ljust(8, b'\0') + image[extension + 16:]
        image = put(image, 16, 4, len(below), 'big')
        yield f'qcow2: it lies on {below[:40]} ({format})', image[:at] + below.encode() + image[at + len(below):]

def vdi():
    image = good('vdi')
    yield from fields('vdi', image, 'little', [(0x44, 4), (0x48, 4), (0x4c, 4), (0x154, 4), (0x158, 4), (0x168, 4),
                                               (0x170, 8), (0x178, 4), (0x17c, 4), (0x180, 4), (0x184, 4),
                                               (0x200, 4), (0x204, 4)])

total = sum

def vhd():
    image = good('vpc')
    def mend(image):
        for at, size, sum in ((0, 512, 64), (512, 1024, 36), (len(image) - 512, 512, 64)):
            part = put(image[at:at + size], sum, 4, 0, 'big')
            image = put(image, at + sum, 4, ~total(part), 'big')
        return image
    bat = struct.unpack('>Q', image[512 + 16:512 + 24])[0]
    yield from fields('vhd', image, 'big', [(16, 8), (40, 8), (48, 8), (60, 4), (512 + 8, 8), (512 + 16, 8), (512 + 28, 4),
                                            (512 + 32, 4), (512 + 576, 4), (bat, 4), (bat + 4, 4)], mend)

def vhdx():
    image = good('vhdx')
    yield from fields('vhdx', image, 'little', [(64 << 10, 4), (128 << 10, 4), (192 << 10, 4), (256 << 10, 4),
                                                (2 << 20, 8), (3 << 20, 8)])
    for cut in (8, 65536, 200000, 1 << 20, 3 << 20):
        yield f'vhdx: only {cut} bytes', image[:cut]

def vmdk():
    image = good('vmdk')
    directory = struct.unpack('<Q', image[56:64])[0] * 512
    table = struct.unpack('<I', image[directory:directory + 4])[0] * 512
    yield from fields('vmdk', image, 'little', [(4, 4), (8, 4), (12, 8), (20, 8), (28, 8), (36, 8), (44, 4), (48, 8), (56, 8),
                                                (64, 8), (77, 2), (directory, 4), (table, 4)])
    stream = good('vmdk', '-o', 'subformat=streamOptimized')
    yield from fields('stream', stream, 'little', [(56, 8), (65536, 8), (65544, 4), (len(stream) - 1024 + 56, 8)])
    for extent in ('RW 8192 FLAT "/etc/passwd" 0', 'RW 8192 FLAT "../../etc/passwd" 0', 'RW 99999999999999999999 ZERO',
                   'RW 8192 FLAT "x" 0', 'RW 8192 SPARSE "x"', 'RW 0 ZERO', 'RW 8192 FLAT "disk.raw" 18446744073709551615'):
        text = f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="custom"\n{extent}\n'
        yield f'vmdk: {extent}', text.encode()
    text = '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="custom"\n' + 'RW 1 ZERO\n' * 5000
    yield 'vmdk: 5000 extents', text.encode()

def run(*arguments):
    """What is wrong with what hv image does; None: nothing."""
    status, seconds, kib = start(arguments)
    with open('said', 'rb') as said:
        text = said.read()
    if os.WIFSIGNALED(status):
        return f'{arguments[0]}: signal {os.WTERMSIG(status)}'
    if seconds > SECONDS:
        return f'{arguments[0]}: {seconds:.1f} s'
    if kib > KIB:
        return f'{arguments[0]}: {kib} KiB'
    if os.WEXITSTATUS(status) and not text:
        return f'{arguments[0]}: status {os.WEXITSTATUS(status)} without a word'
    if SECRET in text:
        return f'{arguments[0]}: it shows /etc/passwd'
    return None

def holds_secret(path):
    if not os.path.exists(path):
        return False
    with open(path, 'rb') as f:
        return SECRET in f.read(1 << 20)

number = failed = 0
for make in (qcow2, vdi, vhd, vhdx, vmdk):
    for name, image in make():
        with open('x', 'wb') as f:
            f.write(image)
        wrong = run('info', 'x') or run('convert', '--force', '--format', 'raw', 'x', 'out')
        if not wrong and holds_secret('out'):
            wrong = 'the copy has /etc/passwd in it'
        if not wrong and make is qcow2:
            wrong = run('check', 'x') or run('check', '--repair', 'x') or run('compact', 'x')
        if os.path.exists('out'):
            os.unlink('out')
        number += 1
        if wrong:
            failed += 1
            print(f'not ok {number} - {name}: {wrong}', flush=True)
        else:
            print(f'ok {number} - {name}', flush=True)
print(f'1..{number}')
shutil.rmtree(work)
sys.exit(failed > 0)
