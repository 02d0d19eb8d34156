#!/usr/bin/env python3
"""remote.py HV GUESTS: disks on servers, as TAP: hv-remote by hand, beside qemu-nbd and a web server of
its own, then hv's commands, then machines (which need KVM, any)."""
import array, errno, fcntl, http.server, json, mmap, os, re, shutil, signal, socket, struct, subprocess
import sys, tempfile, threading, time

HV, GUESTS = os.path.realpath(sys.argv[1]), os.path.realpath(sys.argv[2])
REMOTE = os.path.join(os.path.dirname(HV), 'hv-remote')
work = tempfile.mkdtemp(prefix='hv-remote.', dir='/var/tmp')
os.chdir(work)
os.environ['XDG_RUNTIME_DIR'] = work
MIB = 1 << 20
SIZE = 64 * MIB
OPEN, READ, WRITE, FLUSH, DISCARD, ZERO, GIVE_UP = range(7)
SLOT = 128 << 10

number = 0
def test(name, right, note=''):
    global number
    number += 1
    if not right:
        print('\n'.join('# ' + line for line in str(note).splitlines()))
    print('ok' if right else 'not ok', number, '-', name, flush=True)

def skip(name, why):
    global number
    number += 1
    print('ok', number, '-', name, '# SKIP', why, flush=True)

def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()

# --- servers ---------------------------------------------------------------------------------------

class Web(http.server.BaseHTTPRequestHandler):
    """Files with ranges; the first folder of a path may ask for something else."""
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def head(self, status, *headers):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self):
        _, manner, name = ('/' + self.path.split('?')[0]).rsplit('/', 2)
        self.server.asked.append(self.headers.get('Range'))
        if manner == 'moved':
            return self.head(302, ('Location', '/' + name), ('Content-Length', '0'))
        if not os.path.exists(name):
            return self.head(404, ('Content-Length', '0'))
        with open(name, 'rb') as file:
            size, changed = os.fstat(file.fileno()).st_size, os.fstat(file.fileno()).st_mtime_ns
            asked = re.match(r'bytes=(\d+)-(\d+)$', self.headers.get('Range', ''))
            first, last = int(asked[1]), min(int(asked[2]), size - 1)
            file.seek(first)
            data = file.read(last - first + 1)
        if manner == 'whole':
            return self.head(200, ('Content-Length', '0'))
        if manner == 'lies':
            first += 512
        if manner == 'packed':
            return self.head(206, ('Content-Range', f'bytes {first}-{last}/{size}'),
                             ('Content-Encoding', 'gzip'), ('Content-Length', '0'))
        extra = b'x' * 1000 if manner == 'long' else b''
        self.head(206, ('Content-Range', f'bytes {first}-{last}/{size}'), ('ETag', f'"{changed:x}"'),
                  ('Content-Length', str(len(data + extra))))
        if manner == 'short':
            data = data[:1000]
            self.close_connection = True
        try:
            self.wfile.write(data + extra)
        except OSError:
            pass

class WebServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    def handle_error(self, *_):
        pass

def web_start(port=0):
    server = WebServer(('127.0.0.1', port), Web)
    server.asked = []
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server

def nbd_start(path, *options):
    if os.path.exists('nbd'):
        os.unlink('nbd')
    server = subprocess.Popen(['qemu-nbd', '-t', '-f', 'raw', '-k', work + '/nbd', *options, path],
                              stderr=subprocess.DEVNULL)
    wait_for(lambda: os.path.exists('nbd'))
    return server

def nbd_kill(server):
    server.kill()
    server.wait()

# --- hv-remote by hand -----------------------------------------------------------------------------

class Remote:
    """The other end of base/remote-protocol.h."""
    def __init__(self, url):
        self.socket, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(20)
        self.process = subprocess.Popen([REMOTE, str(end.fileno()), url], pass_fds=[end.fileno()],
                                        stderr=open('log', 'a'))
        end.close()
        fd = os.memfd_create('area', os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, 64 * SLOT)
        F_ADD_SEALS, F_SEAL_SHRINK = 1033, 2
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK)
        self.area = mmap.mmap(fd, 64 * SLOT)
        self.id = 0
        message = struct.pack('=IIQQQ', OPEN, 0, 0, 0, 0)
        self.socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [fd]))])
        os.close(fd)
        hello = self.socket.recv(4096)
        version, self.status, self.flags, _, self.size = struct.unpack('=IiIIQ', hello[:24])
        self.mark, self.text = (hello[at:at + size].split(b'\0')[0].decode()
                                for at, size in ((24, 40), (64, 400)))

    def start(self, op, slot, offset=0, length=0):
        self.id += 1
        self.socket.send(struct.pack('=IIQQQ', op, slot, self.id, offset, length))
        return self.id

    def answer(self):
        data = self.socket.recv(64)
        return struct.unpack('=QIi', data) if data else None

    def call(self, op, offset=0, length=0):
        wanted = self.start(op, 0, offset, length)
        got = self.answer()
        return got[2] if got and got[0] == wanted else got

    def write(self, data, offset):
        self.area[:len(data)] = data
        return self.call(WRITE, offset, len(data))

    def read(self, offset, length):
        error = self.call(READ, offset, length)
        return error or self.area[:length]

    def end(self):
        """Its status, once nobody has the socket."""
        self.socket.close()
        try:
            return self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return 'it lives'

def content(path, offset, length):
    with open(path, 'rb') as file:
        file.seek(offset)
        return file.read(length)

def make_disk(path):
    with open(path, 'wb') as file:
        file.write(os.urandom(5 * MIB))
        file.truncate(SIZE)

def test_nbd():
    url = f'nbd+unix:///?socket={work}/nbd'
    make_disk('disk.img')
    server = nbd_start('disk.img', '--discard=unmap')
    remote = Remote(url)
    test('nbd: it opens', remote.status == 0 and remote.size == SIZE, remote.text)
    test('nbd: reads', remote.read(MIB, SLOT) == content('disk.img', MIB, SLOT))
    data = os.urandom(8192)
    test('nbd: writes', remote.write(data, 4096) == 0 and remote.call(FLUSH) == 0 and
         content('disk.img', 4096, 8192) == data)
    test('nbd: zeros', remote.call(ZERO, 4096, 4096) == 0 and remote.call(FLUSH) == 0 and
         content('disk.img', 4096, 8192) == bytes(4096) + data[4096:])
    before = os.stat('disk.img').st_blocks
    test('nbd: discards', remote.call(DISCARD, MIB, 2 * MIB) == 0 and remote.call(FLUSH) == 0 and
         os.stat('disk.img').st_blocks < before)
    for slot in range(64):
        remote.start(READ, slot, 4 * MIB + slot * 4096, 4096)
    got = [remote.answer() for _ in range(64)]
    test('nbd: 64 at once', all(g[2] == 0 for g in got) and all(
        remote.area[s * SLOT:s * SLOT + 4096] == content('disk.img', 4 * MIB + s * 4096, 4096)
        for s in range(64)))

    # The server is killed and comes back.
    nbd_kill(server)
    remote.start(READ, 0, 4096, 8192)
    time.sleep(0.3)
    server = nbd_start('disk.img')
    got = remote.answer()
    test('nbd: a read waits for the server to come back', got[2] == 0 and
         remote.area[:8192] == content('disk.img', 4096, 8192), got)
    test('nbd: nothing was lost, flushes go on', remote.call(FLUSH) == 0)
    remote.write(data, 0)
    nbd_kill(server)
    server = nbd_start('disk.img')
    test('nbd: after writes that were not flushed, a flush fails', remote.call(FLUSH) == errno.EIO)
    test('nbd: and the next one', remote.call(FLUSH) == errno.EIO)
    test('nbd: writes go on', remote.write(data, 512) == 0 and content('disk.img', 512, 512) == data[:512])

    # A server that stops answers nothing; given up, all fails soon.
    server.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    remote.start(READ, 3, 0, 512)
    remote.start(READ, 4, 512, 512)
    remote.socket.send(struct.pack('=IIQQQ', GIVE_UP, 0, 0, 0, 0))
    got = [remote.answer(), remote.answer()]
    test('nbd: what is given up fails within seconds',
         all(g[2] == errno.EIO for g in got) and time.monotonic() - began < 15, got)
    server.send_signal(signal.SIGCONT)
    nbd_kill(server)
    remote.start(READ, 0, 0, 512)
    test('nbd: it ends with its socket, server or not', remote.end() == 0)

    deaf = socket.socket(socket.AF_UNIX)
    deaf.bind('deaf')
    deaf.listen()
    hv = subprocess.Popen([HV, 'image', 'info', f'nbd+unix:///?socket={work}/deaf'], stdin=subprocess.DEVNULL)
    wait_for(remotes)
    time.sleep(0.3)
    hv.kill()
    hv.wait()
    test('nbd: it ends with hv, while it waits for a server', wait_for(lambda: not remotes(), 3))
    server = nbd_start('disk.img')
    remote = Remote(url)
    remote.start(READ, 64, 0, 512)
    test('nbd: a wrong request ends it', remote.answer() is None and remote.process.wait(5) == 0)
    remote = Remote(url)
    remote.start(READ, 0, SIZE, 512)
    test('nbd: so does one behind the end', remote.answer() is None and remote.process.wait(5) == 0)
    remote = Remote(url)
    make_disk('other.img')
    os.truncate('other.img', MIB)
    nbd_kill(server)
    server = nbd_start('other.img')
    remote.start(READ, 0, 0, 512)
    time.sleep(1)
    remote.socket.send(struct.pack('=IIQQQ', GIVE_UP, 0, 0, 0, 0))
    test('nbd: another disk in its place is not read', remote.answer()[2] == errno.EIO)
    remote.end()
    nbd_kill(server)
    server = nbd_start('disk.img', '-r')
    remote = Remote(url)
    test('nbd: a disk that is only read says so', remote.flags & 1)
    remote.end()
    nbd_kill(server)
    remote = Remote(url)
    test('nbd: no server', remote.status == 1 and 'refused' in remote.text, remote.text)
    remote.end()

def test_web():
    web = web_start()
    port = web.server_address[1]
    base = f'http://127.0.0.1:{port}/'
    remote = Remote(base + 'disk.img')
    test('web: it opens', remote.status == 0 and remote.size == SIZE and remote.mark, remote.text)
    test('web: reads', remote.read(MIB - 4096, SLOT) == content('disk.img', MIB - 4096, SLOT))
    asked = -1
    while asked != len(web.asked): # what is read ahead
        asked = len(web.asked)
        time.sleep(0.3)
    remote.read(MIB - 8192, 4096)
    test('web: what is near is there already', len(web.asked) == asked, web.asked)
    test('web: writes are refused', remote.call(WRITE, 0, 512) == errno.EROFS)
    for slot in range(64):
        remote.start(READ, slot, slot * MIB, 4096)
    got = [remote.answer() for _ in range(64)]
    test('web: 64 at once', all(g[2] == 0 for g in got) and all(
        remote.area[s * SLOT:s * SLOT + 4096] == content('disk.img', s * MIB, 4096) for s in range(64)))
    for block in range(256):
        remote.read(block * 256 * 1024, 512)
    memory = int(re.search(r'VmRSS:\s+(\d+)', open(f'/proc/{remote.process.pid}/status').read())[1])
    test('web: no more memory than its cache', memory < 90 * 1024, memory)

    # The server goes and comes back.
    web.shutdown()
    web.server_close()
    remote.start(READ, 0, 33 * MIB + 65536, 512)
    time.sleep(0.3)
    web = web_start(port)
    remote.socket.settimeout(30)
    got = remote.answer()
    test('web: a read waits for the server to come back', got[2] == 0 and
         remote.area[:512] == content('disk.img', 33 * MIB + 65536, 512), got)
    first = Remote(base + 'disk.img')
    os.utime('disk.img')
    test('web: a file that changes is an error', first.call(READ, 20 * MIB, 512) == errno.EIO)
    test('web: also where it was read before', first.call(READ, 0, 512) == errno.EIO)
    second = Remote(base + 'disk.img')
    test('web: its mark is another', second.mark and second.mark != first.mark)
    test('web: it ends with its socket', first.end() == 0 and second.end() == 0 and remote.end() == 0)
    remote = Remote(base + 'moved/disk.img')
    test('web: follows to another place', remote.status == 0 and remote.mark == second.mark)
    remote.end()
    open('empty', 'w').close()
    for path, says in (('whole/disk.img', 'no parts'), ('lies/disk.img', 'no parts'),
                       ('packed/disk.img', 'no parts'), ('nothing.img', '404'),
                       ('long/disk.img', ''), ('short/disk.img', '')):
        remote = Remote(base + path)
        test(f'web: refused: {path}', remote.status == 1 and says in remote.text and remote.text,
             remote.text)
        remote.end()
    return web, base

# --- hv --------------------------------------------------------------------------------------------

def run(*words, seconds=60):
    done = subprocess.run([HV, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=seconds)
    return done.returncode, done.stdout.decode(errors='replace')

def remotes():
    """Those that live and were started by this test."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            if os.readlink(f'/proc/{pid}/exe') == REMOTE and os.readlink(f'/proc/{pid}/cwd') == work:
                found.append(int(pid))
        except OSError:
            pass
    return found

def refuses(name, status, says, *words):
    got, said = run(*words)
    test(name, got == status and re.search(says, said) and said.count('\n') == 1, f'{got}: {said}')

def test_commands(web, base):
    nbd = f'nbd+unix:///?socket={work}/nbd'
    subprocess.run(['qemu-img', 'convert', '-O', 'qcow2', '-c', '-f', 'raw', 'disk.img', 'packed.qcow2'])
    server = nbd_start('disk.img', '-r')
    for url in (base + 'disk.img', base + 'packed.qcow2', base + 'moved/packed.qcow2', nbd):
        status, said = run('image', 'convert', url, 'copy.img', '--force')
        test(f'hv image convert {url}', status == 0 and
             subprocess.run(['cmp', 'disk.img', 'copy.img']).returncode == 0, said)
    info = json.loads(run('image', 'info', '--json', base + 'packed.qcow2')[1])
    test('hv image info', info['format'] == 'qcow2' and info['size'] == SIZE, info)
    test('hv image map', run('image', 'map', base + 'packed.qcow2')[0] == 0)
    refuses('no such file', 1, '404', 'image', 'info', base + 'nothing')
    refuses('no ranges', 1, 'fetch the file', 'image', 'info', base + 'whole/disk.img')
    refuses('an empty export', 1, 'nbd', 'image', 'info', 'nbd://127.0.0.1:1/')
    refuses('a password is not told', 1, r'http://127[^@]*/nothing: ', 'image', 'info',
            base.replace('//', '//me:secret@') + 'nothing?token=secret')
    with open('text', 'w') as file:
        file.write('hello\n' * 1000)
    refuses('a text file', 2, 'a text file', 'run', base + 'text')
    refuses('a disk that is only read', 1, 'lets nobody write', 'run', '--headless', nbd)
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', '/etc/passwd', '-F', 'raw', 'bad.qcow2',
                    '1M'])
    refuses('an image that lies on another', 2, 'one file', 'image', 'info', base + 'bad.qcow2')
    nbd_kill(server)
    server = nbd_start('packed.qcow2', '-r')
    refuses('a server of disks has raw ones', 2, 'looks like', 'image', 'info', nbd)
    test('unless its user knows better', run('image', 'info', '--format', 'qcow2', nbd)[0] == 0)
    nbd_kill(server)
    test('nothing of it goes on', wait_for(lambda: not remotes()), remotes())

def machine(guest, *words):
    return ('run', '--headless', '--serial', 'stdio', '--net', 'none', '--memory', '64M', '--cpus', '1',
            '--device', 'debug-exit', '--firmware', f'{GUESTS}/{guest}.rom', *words)

def test_machines(web, base):
    nbd = f'nbd+unix:///?socket={work}/nbd,bus=virtio'
    reads = machine('blk-32-20000', '--disk')
    for file in ('disk.img', 'packed.qcow2'):
        overlay = file + '.hv.qcow2'
        status, said = run(*reads, base + file + ',bus=virtio')
        test(f'{file}: a machine reads it from the web', status == 0 and 'goes to ' + overlay in said, said)
        web.asked.clear()
        status, said = run(*reads, base + file + ',bus=virtio')
        test(f'{file}: once only', status == 0 and len(web.asked) < 40, f'{status} {len(web.asked)}')
        test(f'{file}: a right overlay', run('image', 'check', overlay, '--format', 'qcow2')[0] == 0)
        subprocess.run(['qemu-img', 'rebase', '-u', '-f', 'qcow2', '-b', file, '-F',
                        'raw' if file == 'disk.img' else 'qcow2', overlay])
        test(f'{file}: with the same content', subprocess.run(
            ['qemu-img', 'compare', '-q', '-f', 'raw', 'disk.img', '-F', 'qcow2', overlay]).returncode == 0)
        refuses(f'{file}: that does not lie on it', 4, 'move .* away', *reads, base + file + ',bus=virtio')
        os.unlink(overlay)
    before = content('disk.img', 0, SIZE)
    status, said = run(*machine('blk-write-32-20000', '--disk'), base + 'disk.img,bus=virtio')
    test('what it writes goes to the overlay', status == 0 and content('disk.img', 0, SIZE) == before, said)
    os.unlink('disk.img.hv.qcow2')
    status, said = run(*reads, base + 'packed.qcow2,bus=virtio', '--throwaway')
    test('--throwaway', status == 0 and not os.path.exists('packed.qcow2.hv.qcow2'), said)
    run(*machine('blk-32-0', '--disk'), base + 'disk.img,bus=virtio')
    refuses('an overlay alone', 2, 'is no file', 'image', 'info', 'disk.img.hv.qcow2')
    os.utime('disk.img')
    refuses('a file that has changed', 4, 'has changed', *reads, base + 'disk.img,bus=virtio')
    os.unlink('disk.img.hv.qcow2')
    server = nbd_start('disk.img')
    status, said = run(*reads, nbd)
    test('a machine reads from an NBD server', status == 0, said)
    before = content('disk.img', 0, SIZE)
    status, said = run(*machine('blk-write-32-20000', '--disk'), nbd)
    test('and writes to it', status == 0 and content('disk.img', 0, SIZE) != before, said)
    long = subprocess.Popen([HV, *machine('blk-32-400000', '--disk'), nbd], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    wait_for(lambda: len(remotes()) == 1 and long.poll() is None)
    time.sleep(1)
    nbd_kill(server)
    time.sleep(0.5)
    server = nbd_start('disk.img')
    time.sleep(1)
    test('a machine outlives its server', long.poll() is None)
    for pid in remotes():
        os.kill(pid, signal.SIGKILL)
    said = long.communicate(timeout=30)[0].decode(errors='replace')
    test('and has read errors without hv-remote', long.returncode == 4 and 'failed' in said,
         f'{long.returncode}: {said}')
    nbd_kill(server)
    test('no hv-remote is left', wait_for(lambda: not remotes()), remotes())

try:
    if not shutil.which('qemu-nbd') or not os.path.exists(REMOTE):
        print('1..0 # SKIP there is no qemu-nbd, or no hv-remote')
    else:
        test_nbd()
        web, base = test_web()
        test_commands(web, base)
        if os.path.exists('/dev/kvm'):
            test_machines(web, base)
        else:
            skip('machines', 'no /dev/kvm')
        print(f'1..{number}')
finally:
    os.chdir('/')
    shutil.rmtree(work)
