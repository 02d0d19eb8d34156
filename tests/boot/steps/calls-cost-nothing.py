#!/usr/bin/env python3
"""calls-cost-nothing.py ADDRESS PORT COUNT: so many connections to the guest, where somebody echoes, 16 at a
time, after some hundreds that fill what is kept for the next: they cost no descriptor and no memory, neither
hv-net nor the machine."""
import json, os, re, subprocess, sys, time

hv, address, port, count = os.environ['HV'], *sys.argv[1:3], int(sys.argv[3])
program = os.path.join(os.path.dirname(hv), '../tests/boot/calls')


def call(count):
    subprocess.run([program, address, port, str(count), '16'], check=True)


def pids():
    info = json.loads(subprocess.check_output([hv, 'info', os.environ['HV_MACHINE']]))
    return {'hv-net': info['network']['pid'], 'the machine': info['pid']}


def holds(pid):
    """Its descriptors, and the KiB of memory of its own."""
    with open(f'/proc/{pid}/status') as status:
        memory = re.search(r'^RssAnon:\s*(\d+) kB', status.read(), re.M)
    return len(os.listdir(f'/proc/{pid}/fd')), int(memory[1])


def settled(of):
    """What they hold when hv-net has got rid of what lingers: libslirp keeps the socket of a connection that is
    over for ten seconds, so nothing has changed for longer than that then."""
    quiet, patience = 12, 60
    start = changed = time.monotonic()
    last = holds(of['hv-net'])[0]
    while (now := time.monotonic()) - changed < quiet and now - start < patience:
        time.sleep(0.5)
        if (held := holds(of['hv-net'])[0]) != last:
            last, changed = held, time.monotonic()
    return {name: holds(pid) for name, pid in of.items()}


call(min(count, 1000))
these = pids()
before = settled(these)
began = time.monotonic()
call(count)
print(f'{count} calls in {time.monotonic() - began:.1f} s')
if pids() != these:
    sys.exit('hv-net has been started anew')
for name, after in settled(these).items():
    print('%s: %d descriptors and %d KiB before, %d and %d after' % (name, *before[name], *after))
    if after[0] > before[name][0] or after[1] > before[name][1] + 4096:
        sys.exit('the calls leave something behind')
