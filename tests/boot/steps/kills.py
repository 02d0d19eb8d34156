#!/usr/bin/env python3
"""kills.py COUNT: so often hv-net and the machine's window are killed. Each time both are there and at work, then
both are killed; hv-net comes back by itself, and the window by `hv open`."""
import json, os, random, signal, socket, subprocess, sys, time

hv, kills = os.environ['HV'], int(sys.argv[1])
folder = '{XDG_RUNTIME_DIR}/hv/{HV_MACHINE}'.format_map(os.environ)
limit = 10 if os.environ.get('HV_LAB') else 2
# The window is a real one that nobody sees.
display = os.environ | {'SDL_VIDEODRIVER': 'dummy'}
display.setdefault('DISPLAY', 'none')


def info(which):
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(os.path.join(folder, which))
            s.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "info"}\n')
            return json.loads(s.makefile().readline())['result']
    except (OSError, ValueError):
        return None


def wait(what, seconds, ask):
    end = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > end:
            sys.exit(f'no {what} in {seconds} s')
        time.sleep(0.01)
    return answer


def serving(old):
    net = info('net')
    return net if net and net['pid'] != old and net['received'] > 1 and net['sent'] > 1 else None


def viewer():
    with open(f'/proc/{window.pid}/task/{window.pid}/children') as f:
        return next((int(pid) for pid in f.read().split()), None)


others = info('control')['viewers']
old, gone = 0, []
for n in range(kills + 1):
    window = subprocess.Popen([hv, 'open', os.environ['HV_MACHINE']], env=display)
    seen = wait('window', 60, viewer)
    wait('window at the machine', 60, lambda: info('control')['viewers'] == others + 1)
    if n == kills:
        break
    server = wait('network', limit, lambda: serving(old))['pid']
    time.sleep(random.random() / 2)
    os.kill(seen, signal.SIGKILL)
    os.kill(server, signal.SIGKILL)
    began, old = time.monotonic(), server
    wait('network', limit, lambda: serving(old))
    gone.append(time.monotonic() - began)
    if window.wait(20) != 1:
        sys.exit(f'hv open ends with {window.returncode} when its window was killed')
    wait('end of the window', 20, lambda: info('control')['viewers'] == others)
os.kill(seen, signal.SIGTERM)
window.wait(20)
gone.sort()
print(f'pings answered {gone[len(gone) // 2] * 1000:.0f} ms after a kill (median), {gone[-1] * 1000:.0f} ms (most)')
