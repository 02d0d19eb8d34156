#!/usr/bin/python3
# import.py HV: hv image import, as TAP, with machines as VirtualBox and VMware export them, whose disks
# qemu-img makes, and with packages that are wrong or mean. No machine is started, so no KVM is needed.
import hashlib, io, json, os, re, shutil, signal, subprocess, sys, tarfile, tempfile, time

hv = os.path.realpath(sys.argv[1])
work = tempfile.mkdtemp(prefix='hv-import.', dir='/var/tmp')
os.chdir(work)
os.environ['XDG_RUNTIME_DIR'] = work
MIB = 1 << 20

number = failed = 0
def test(name, wrong):
    global number, failed
    number += 1
    if wrong:
        failed += 1
        for line in str(wrong).splitlines():
            print('#', line)
    print('not ok' if wrong else 'ok', number, '-', name, flush=True)

def run(*arguments, **more):
    return subprocess.run([hv, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors='replace', timeout=120, **more)

def qemu(*arguments):
    subprocess.run(['qemu-img', *arguments], check=True, stdout=subprocess.DEVNULL)

# --- packages ---------------------------------------------------------------------------------

ENVELOPE = '''<?xml version="1.0"?>
<Envelope ovf:version="1.0" xml:lang="en-US" xmlns="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:vbox="http://www.virtualbox.org/ovf/machine"
 xmlns:vmw="http://www.vmware.com/schema/ovf"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
 xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
'''
STREAM = 'http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized'

def item(type, id, **more):
    rest = ''.join(f'<rasd:{k}>{v}</rasd:{k}>' for k, v in more.items())
    return f'<Item><rasd:InstanceID>{id}</rasd:InstanceID><rasd:ResourceType>{type}</rasd:ResourceType>{rest}</Item>'

def envelope(files, disks, items, name='', more='', id='machine', units=''):
    """files: (id, href); disks: (id, fileRef or None, capacity)."""
    return (ENVELOPE + '<References>' +
            ''.join(f'<File ovf:id="{i}" ovf:href="{h}"/>' for i, h in files) +
            '</References><DiskSection><Info>disks</Info>' +
            ''.join(f'<Disk ovf:diskId="{i}" ovf:capacity="{c}"{units} ovf:format="{STREAM}"' +
                    (f' ovf:fileRef="{f}"' if f else '') + '/>' for i, f, c in disks) +
            f'</DiskSection><VirtualSystem ovf:id="{id}"><Info>A machine</Info>{name}'
            '<VirtualHardwareSection><Info>hardware</Info>' + ''.join(items) +
            f'</VirtualHardwareSection>{more}</VirtualSystem></Envelope>').encode()

def ova(path, members, manifest='SHA1', first=True):
    """members: (name, bytes or path); a manifest of them, in front or, as VirtualBox has it, last."""
    def content(data):
        return data if isinstance(data, bytes) else open(data, 'rb').read()
    if manifest:
        lines = ''.join(f'{manifest} ({n}) = {hashlib.new(manifest.lower(), content(d)).hexdigest()}\n'
                        for n, d in members).encode()
        members = list(members)
        members.insert(1 if first else len(members), (members[0][0][:-4] + '.mf', lines))
    with tarfile.open(path, 'w', format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            data = content(data)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

data = os.urandom(3 * MIB)
def disk(name, size, at):
    with open(name + '.raw', 'wb') as f:
        f.truncate(size)
        f.seek(at)
        f.write(data)
    qemu('convert', '-O', 'vmdk', '-o', 'subformat=streamOptimized', name + '.raw', name + '.vmdk')
disk('one', 32 * MIB, 5 * MIB)
disk('two', 24 * MIB, 0)
with open('cd.img', 'wb') as f:
    f.truncate(MIB)
    f.seek(32768)
    f.write(b'\1CD001\1')

virtualbox = envelope(
    [('file1', 'Old box-disk001.vmdk'), ('file2', 'Old box-disk002.iso')],
    [('vmdisk1', 'file1', 32 * MIB)],
    [item(3, 1, VirtualQuantity=2, Caption='2 virtual CPU'),
     item(4, 2, VirtualQuantity=512, AllocationUnits='MegaBytes'),
     item(5, 3, ResourceSubType='PIIX4', Address=0), item(5, 4, ResourceSubType='PIIX4', Address=1),
     item(20, 5, ResourceSubType='AHCI', Address=0),
     item(23, 6, Caption='usb'), item(35, 7, ResourceSubType='ensoniq1371'),
     item(17, 8, AddressOnParent=0, HostResource='/disk/vmdisk1', Parent=5),
     item(15, 9, AddressOnParent=0, HostResource='ovf:/file/file2', Parent=4),
     item(10, 10, ResourceSubType='E1000', Connection='NAT')],
    id='Old box', more='<vbox:Machine name="Old box"><Hardware><BIOS/></Hardware></vbox:Machine>')
vmware = envelope(
    [('f1', 'photon-disk1.vmdk'), ('f2', 'photon-disk2.vmdk'), ('f3', 'photon-file1.nvram')],
    [('d1', 'f1', 32), ('d2', 'f2', 24), ('d3', None, 64)],
    [item(3, 1, VirtualQuantity=4, AllocationUnits='hertz * 10^6'),
     item(4, 2, VirtualQuantity=2, AllocationUnits='byte * 2^30'),
     item(6, 3, ResourceSubType='VirtualSCSI', Address=0),
     item(20, 4, ResourceSubType='vmware.nvme.controller', Address=0),
     item(17, 5, AddressOnParent=1, HostResource='ovf:/disk/d2', Parent=3),
     item(17, 6, AddressOnParent=0, HostResource='ovf:/disk/d1', Parent=3),
     item(17, 7, AddressOnParent=0, HostResource='ovf:/disk/d3', Parent=4),
     item(24, 8), item(10, 9, ResourceSubType='VmxNet3'), item(10, 10, ResourceSubType='E1000e')],
    name='<Name>Photon &lt;5&gt; #1</Name>', units=' ovf:capacityAllocationUnits="byte * 2^20"',
    more='<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>')

# --- machines ---------------------------------------------------------------------------------

def machine(folder):
    result = run('run', '-n', folder)
    return json.loads(result.stdout) if result.returncode == 0 else result.stdout

def same(raw, image):
    result = subprocess.run(['qemu-img', 'compare', '-f', 'raw', raw, image], stdout=subprocess.PIPE)
    check = subprocess.run(['qemu-img', 'check', '-q', image])
    return result.stdout.decode() if result.returncode or check.returncode else None

ova('box.ova', [('box.ovf', virtualbox), ('Old box-disk001.vmdk', 'one.vmdk'), ('Old box-disk002.iso', 'cd.img')],
    first=False)
result = run('image', 'import', 'box.ova')
test("VirtualBox's: imported", result.returncode and result.stdout)
test('its name is the directory\'s', not os.path.isdir('Old-box') and os.listdir())
test('it says how to start it', 'hv run Old-box' not in result.stdout and result.stdout)
test('sound and USB are told', not (re.search('sound card is left out', result.stdout) and
                                    re.search('USB controller is left out', result.stdout)) and result.stdout)
test('nothing else is there', sorted(os.listdir('Old-box')) != ['cd1.iso', 'disk1.qcow2', 'vm.conf'] and
     os.listdir('Old-box'))
test('the disk is the same', same('one.raw', 'Old-box/disk1.qcow2'))
test('the CD is the same', open('cd.img', 'rb').read() != open('Old-box/cd1.iso', 'rb').read())
m = machine('Old-box')
try:
    wrong = not (m['cpus'] == 2 and m['memory'] == 512 * MIB and m['name'] == 'Old-box' and 'model=e1000' in m['net'] and
                 [(d['file'], d['bus']) for d in m['disk']] == [('Old-box/disk1.qcow2', 'ahci')] and
                 [d['file'] for d in m['cdrom']] == ['Old-box/cd1.iso']) and m
except TypeError:
    wrong = m
test('hv run knows the machine', wrong)
os.rename('Old-box', 'moved')
test('it can be moved', machine('moved')['disk'][0]['file'] != 'moved/disk1.qcow2')
test('the command line counts more', json.loads(run('run', '-n', '-m', '1G', 'moved').stdout)['memory'] != 1024 * MIB)

ova('photon.ova', [('photon.ovf', vmware), ('photon-disk1.vmdk', 'one.vmdk'), ('photon-disk2.vmdk', 'two.vmdk'),
                   ('photon-file1.nvram', b'x')], 'SHA256')
result = run('image', 'import', 'photon.ova', 'made/')
test("VMware's: imported", result.returncode and result.stdout)
m = machine('made')
try:
    wrong = not (m['cpus'] == 4 and m['memory'] == 2048 * MIB and m['name'] == 'made' and
                 [d['file'] for d in m['disk']] == ['made/disk1.qcow2', 'made/disk2.qcow2', 'made/disk3.qcow2'] and
                 m['disk'][2]['bus'] == 'nvme') and m
except TypeError:
    wrong = m
test('hv run knows that too', wrong)
test('disks are in the order of their addresses', same('one.raw', 'made/disk1.qcow2') or same('two.raw', 'made/disk2.qcow2'))
test('a disk without a file is empty', run('image', 'info', 'made/disk3.qcow2').stdout.find('64 MiB') < 0)
for what in ('SCSI', 'VmxNet3', 'further network card', 'UEFI', 'nvram is left out'):
    test(f'{what}: what is different is told', what not in result.stdout and result.stdout)
test('a CD drive that is empty is nothing to tell', 'CD' in result.stdout and result.stdout)

os.mkdir('folder')
shutil.copy('one.vmdk', 'folder/Old box-disk001.vmdk')
shutil.copy('cd.img', 'folder/Old box-disk002.iso')
with open('folder/box.ovf', 'wb') as f:
    f.write(virtualbox)
result = run('image', 'import', 'folder/box.ovf', 'beside')
test('a description with files beside it', result.returncode and result.stdout)
test('no manifest is told', 'no manifest' not in result.stdout and result.stdout)
test('the disk is right', same('one.raw', 'beside/disk1.qcow2'))
test('the files stay', sorted(os.listdir('folder')) != ['Old box-disk001.vmdk', 'Old box-disk002.iso', 'box.ovf'])
with open('folder/box.mf', 'w') as f:
    for name in ('box.ovf', 'Old box-disk001.vmdk', 'Old box-disk002.iso'):
        with open('folder/' + name, 'rb') as g:
            f.write(f'SHA512({name})= {hashlib.sha512(g.read()).hexdigest()}\n')
result = run('image', 'import', 'folder/box.ovf', 'beside2')
test('with a manifest', (result.returncode or 'no manifest' in result.stdout) and result.stdout)

# --- what is wrong ----------------------------------------------------------------------------

def refused(name, pattern, *arguments, status=1, keep=(), **more):
    before = sorted(os.listdir())
    began = time.monotonic()
    result = run('image', 'import', *arguments, **more)
    wrong = (result.returncode != status or not re.search(pattern, result.stdout) or
             sorted(os.listdir()) != before or '\033' in result.stdout or 'root:x' in result.stdout)
    if time.monotonic() - began > 10:
        wrong = 'it takes long'
    test(name, wrong and f'status {result.returncode}: {result.stdout} {sorted(set(os.listdir()) - set(before))}')

def refused_ova(name, pattern, members, manifest=None, **more):
    ova('bad.ova', members, manifest)
    refused(name, pattern, 'bad.ova', 'bad', **more)

one = [item(17, 8, HostResource='/disk/d')]
def simple(href='d.vmdk', items=one, **more):
    return envelope([('f', href)], [('d', 'f', 32 * MIB)], items, **more)
good = ('d.vmdk', 'one.vmdk')

refused('there already', 'made exists', 'photon.ova', 'made', status=4)
refused('no file', 'none.ova: No such file', 'none.ova')
refused('no archive', 'neither an OVA', 'one.vmdk', status=2)
refused('a directory', 'a file is wanted', 'folder', status=2)
refused('no argument', 'an OVA or OVF file is wanted', status=2)
refused('nowhere', 'no/where: No such file', 'box.ova', 'no/where')
os.mkdir('alone')
shutil.copy(hv, 'alone/hv')
result = subprocess.run(['alone/hv', 'image', 'import', 'box.ova'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
test('hv-import is not there', result.returncode != 6 or b'built without' not in result.stdout and result.stdout)
refused('an option', 'unknown option --force', '--force', 'box.ova', status=2)
refused_ova('no description', 'holds no OVF description', [good], status=2)
refused_ova('two descriptions', 'two descriptions', [('a.ovf', simple()), ('b.ovf', simple()), good])
refused_ova('a member that is missing', 'does not hold d.vmdk', [('a.ovf', simple())])
refused_ova('a member twice', 'holds d.vmdk twice', [('a.ovf', simple()), good, good])
refused_ova('a member above', 'leads elsewhere', [('a.ovf', simple()), good, ('../../evil', b'x')])
refused_ova('a member with a path', 'leads elsewhere', [('a.ovf', simple()), good, ('/etc/evil', b'x')])
refused_ova('a member of another folder', 'beside the description only', [('a.ovf', simple('x/d.vmdk')), good])
refused_ova('a file above', 'beside the description only', [('a.ovf', simple('../d.vmdk')), good])
refused_ova('a file with a path', 'beside the description only', [('a.ovf', simple('/etc/passwd')), good])
refused_ova('a file of the network', 'beside the description only', [('a.ovf', simple('http://h/d.vmdk')), good])
refused_ova('a disk that is none', 'd.vmdk', [('a.ovf', simple()), ('d.vmdk', b'root:x:0:0:' * 1000)])
refused_ova('a disk of zeros', 'd.vmdk', [('a.ovf', simple()), ('d.vmdk', bytes(MIB))])
def descriptor(extent):
    return (f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
            f'RW 4 FLAT "{extent}" 0\n').encode().ljust(2048, b'\n')
refused_ova('a disk that names a file', 'outside its folder', [('a.ovf', simple()), ('d.vmdk', descriptor('/etc/passwd'))])
refused_ova('a disk that names one above', 'outside its folder|No such', [('a.ovf', simple()), ('d.vmdk', descriptor('../one.raw'))])
refused_ova('a disk that names itself', 'lies on itself|No such', [('a.ovf', simple()), ('d.vmdk', descriptor('source'))])
qemu('create', '-q', '-u', '-f', 'qcow2', '-b', '/etc/passwd', '-F', 'raw', 'thief.qcow2', '1M')
refused_ova('a disk that lies on a file', 'outside its folder', [('a.ovf', simple()), ('d.vmdk', 'thief.qcow2')])
with open('one.vmdk', 'rb') as f:
    whole = f.read()
refused_ova('a disk that is cut off', 'd.vmdk', [('a.ovf', simple()), ('d.vmdk', whole[:len(whole) // 2])])
refused_ova('XML that is cut off', 'well-formed', [('a.ovf', simple()[:-20]), good])
refused_ova('another encoding', 'UTF-8', [('a.ovf', simple().decode().encode('utf-16')), good])
refused_ova('an empty description', 'well-formed', [('a.ovf', b''), good])
refused_ova('another XML', 'no OVF description', [('a.ovf', b'<html/>'), good])
entities = (b'<?xml version="1.0"?><!DOCTYPE Envelope [<!ENTITY a "aaaaaaaaaa">' +
            b''.join(b'<!ENTITY %c "%s">' % (98 + i, b'&%c;' % (97 + i) * 10) for i in range(12)) +
            b']><Envelope>&m;</Envelope>')
refused_ova('a billion laughs', 'document type', [('a.ovf', entities), good])
refused_ova('a file as an entity', 'document type', [('a.ovf', b'<!DOCTYPE Envelope [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
            b'<Envelope>&x;</Envelope>'), good])
refused_ova('a huge description', 'more than 1024 KiB', [('a.ovf', simple() + b' ' * (2 * MIB)), good])
refused_ova('a deep description', 'well-formed', [('a.ovf', b'<a>' * 100000), good])
refused_ova('many attributes', 'short tags', [('a.ovf', b'<a ' + b' '.join(b'a%x=""' % i for i in range(90000)) + b'/>'), good])
refused_ova('many items', 'more than 512 items', [('a.ovf', simple(items=[item(1, 1)] * 600)), good])
refused_ova('no disk of that name', 'which it does not list', [('a.ovf', simple(items=[item(17, 8, HostResource='/disk/x')])), good])
refused_ova('one file, two drives', 'two drives', [('a.ovf', simple(items=one * 2)), good])
refused_ova('too much memory', 'memory', [('a.ovf', simple(items=one + [item(4, 2, VirtualQuantity=1 << 40, AllocationUnits='GB')])), good])
refused_ova('no memory', 'memory', [('a.ovf', simple(items=one + [item(4, 2, VirtualQuantity=1 << 23)])), good])
refused_ova('a unit of memory', 'unit "bananas"', [('a.ovf', simple(items=one + [item(4, 2, VirtualQuantity=1, AllocationUnits='bananas')])), good])
refused_ova('a number of CPUs', 'no number', [('a.ovf', simple(items=one + [item(3, 2, VirtualQuantity='-1')])), good])
two = simple().replace(b'</Envelope>', b'<VirtualSystem/></Envelope>')
refused_ova('two machines', 'describes 2 machines', [('a.ovf', two), good])
refused_ova('chunks', 'cut into chunks', [('a.ovf', simple().replace(b'ovf:id="f"', b'ovf:id="f" ovf:chunkSize="9"')), good])
refused_ova('a compressed file', 'compressed', [('a.ovf', simple().replace(b'ovf:id="f"', b'ovf:id="f" ovf:compression="gzip"')), good])
refused_ova('a snapshot', 'lies on another', [('a.ovf', simple().replace(b'ovf:diskId', b'ovf:parentRef="x" ovf:diskId')), good])
refused_ova('control characters', 'does not list', [('a.ovf', simple(items=[item(17, 8, HostResource='/disk/\u009b2J&#10;x')])), good])

lines = lambda digest: b'SHA1(d.vmdk)= ' + digest + b'\nSHA1(a.ovf)= ' + hashlib.sha1(simple()).hexdigest().encode()
refused_ova('another sum', 'd.vmdk is damaged', [('a.ovf', simple()), good, ('a.mf', lines(b'0' * 40))])
refused_ova('no sum', 'no sum of d.vmdk', [('a.ovf', simple()), good, ('a.mf', lines(b'')[lines(b'').index(b'\n') + 1:])])
refused_ova('no manifest', 'line 1 of its manifest', [('a.ovf', simple()), good, ('a.mf', b'hello\n')])
refused_ova('two manifests', 'two manifests', [('a.ovf', simple()), good, ('a.mf', b''), ('b.mf', b'')])
refused_ova('a description that was changed', 'a.ovf is damaged', [('a.ovf', simple(id='x')), good, ('a.mf', lines(b'0' * 40))])

with open('photon.ova', 'rb') as f:
    start = f.read(2 * MIB)
with open('bad.ova', 'wb') as f:
    f.write(start)
refused('an archive that is cut off', 'the archive has no room for', 'bad.ova', 'bad')
with tarfile.open('bad.ova', 'w') as tar:
    info = tarfile.TarInfo('a.ovf')
    info.type, info.linkname = tarfile.SYMTYPE, '/etc/passwd'
    tar.addfile(info)
refused('a description that is a link', 'no OVF description', 'bad.ova', 'bad', status=2)
ova('bad.ova', [('a.ovf', simple())], None)
with tarfile.open('bad.ova', 'a') as tar:
    info = tarfile.TarInfo('d.vmdk')
    info.type, info.linkname = tarfile.SYMTYPE, '/etc/passwd'
    tar.addfile(info)
refused('a disk that is a link', 'does not hold d.vmdk', 'bad.ova', 'bad')
os.unlink('folder/box.mf')
os.rename('folder/Old box-disk001.vmdk', 'folder/x')
os.symlink('x', 'folder/Old box-disk001.vmdk')
refused('a link beside a description', 'a link', 'folder/box.ovf', 'bad')
os.mkfifo('pipe')
refused('a pipe', 'a file is wanted', 'pipe', status=2)

# A grain of one megabyte of ones that is in the file once, and in the disk everywhere.
def bomb():
    with open('ones.raw', 'wb') as f:
        f.write(b'\1' * (200 * MIB))
    qemu('convert', '-O', 'vmdk', '-o', 'subformat=streamOptimized', 'ones.raw', 'ones.vmdk')
    os.unlink('ones.raw')
bomb()
refused_ova('a bomb', 'takes that for a trap', [('a.ovf', simple()), ('d.vmdk', 'ones.vmdk')])
limit = lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN), __import__('resource').setrlimit(
    __import__('resource').RLIMIT_FSIZE, (2 * MIB, 2 * MIB)))
refused('no room', 'File too large', 'photon.ova', 'bad', preexec_fn=limit)

# Ended in the middle: by a signal, at some moments.
before = sorted(os.listdir())
wrong = None
for i in range(12):
    child = subprocess.Popen([hv, 'image', 'import', 'bad.ova', 'ended'], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(i * 0.03)
    child.send_signal(signal.SIGTERM if i % 2 else signal.SIGINT)
    child.communicate()
    if sorted(os.listdir()) != before:
        wrong = sorted(set(os.listdir()) - set(before))
test('nothing is left when it is ended', wrong)

print(f'1..{number}')
os.chdir('/')
shutil.rmtree(work)
sys.exit(failed > 0)
