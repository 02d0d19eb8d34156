#!/usr/bin/env python3
"""mend-qemu.py OUT: OUT/qemu-system-x86_64 and OUT/modules, Debian 12's QEMU with five errors of
its AMD-V emulation mended. Each ends or hangs the lab while a nested guest does ordinary things.

Every mend looks for the machine code around the error and refuses a QEMU in which it is not found
exactly once. A QEMU that is newer than Debian 12's has the errors mended or is unknown here.
"""
import os
import re
import struct
import sys

QEMU = '/usr/bin/qemu-system-x86_64'
TCG = '/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so'


def one(found, what):
    found = list(found)
    if len(found) != 1:
        sys.exit(f'mend-qemu: {what}: {len(found)} places instead of one; this QEMU is unknown')
    return found[0]


def mend_interrupt_assertion(code):
    """tcg_handle_interrupt() asserts that the caller holds QEMU's big lock. A nested guest's write
    to CR8 with a virtual interrupt pending calls it without. OVMF and Windows do that.

    call qemu_mutex_iothread_locked; test al,al; jne over the assertion, to `or [rbx+..],ebp`
    (09 ab). The jump is made unconditional."""
    def target_is_or(m):
        target = m.end() + m.group(1)[0]
        return code[target:target + 2] == b'\x09\xab'

    matches = re.finditer(rb'\xe8....\x84\xc0\x75(.)', bytes(code), re.S)
    jump = one(filter(target_is_or, matches), 'interrupt assertion')
    code[jump.start(1) - 1] = 0xeb


def file_to_address(code):
    """A function from file offsets to addresses, by the ELF program headers."""
    start, = struct.unpack_from('<Q', code, 32)
    count, = struct.unpack_from('<H', code, 56)
    headers = [struct.unpack_from('<IIQQQQQQ', code, start + i * 56) for i in range(count)]
    loads = [(h[2], h[3], h[5]) for h in headers if h[0] == 1]

    def address(offset):
        for file_start, address_start, size in loads:
            if file_start <= offset < file_start + size:
                return address_start + offset - file_start
        return None
    return address


def mend_busy_tss(code):
    """get_ss_esp_from_tss() refuses a busy TSS. KVM leaves the busy bit in the VMCB's TR, so any
    nested 32-bit guest with code at CPL 3 dies of "invalid tss type".

    Found from the message: lea of the string, jne to that lea, before it `and reg,7; cmp reg,1`.
    The mask becomes 5, which ignores the busy bit."""
    address = file_to_address(code)
    image = bytes(code)
    text = address(image.index(b'invalid tss type\0'))

    def loads_text(m):
        at = address(m.start())
        return at is not None and at + 7 + struct.unpack('<i', m.group()[3:])[0] == text

    lea = one(filter(loads_text, re.finditer(
        rb'\x48\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]....', image, re.S)), 'TSS message')
    jump = one((m for m in re.finditer(rb'\x0f\x85....', image, re.S)
                if m.end() + struct.unpack('<i', m.group()[2:])[0] == lea.start()), 'TSS check')
    before = image[jump.start() - 24:jump.start()]
    mask = max(before.rfind(b'\x83' + bytes([reg]) + b'\x07') for reg in range(0xe0, 0xe8))
    if mask < 0 or b'\x01' not in before[mask + 3:]:
        sys.exit('mend-qemu: TSS check: other code than known')
    code[jump.start() - 24 + mask + 2] = 5


def mend_injected_interrupt(code):
    """helper_vmrun() with an interrupt to inject leaves the vector in exception_index. A kick of
    the vCPU's thread before the next #VMEXIT then delivers it a second time, even with interrupts
    off, and loses the request to exit: the guest hangs.

    movzx esi,r12b; mov [rbx+..],ebp; mov [rbx-..],esi (exception_index, becomes a no-op); mov
    dword [rbx+..],0."""
    store = one(re.finditer(
        rb'\x41\x0f\xb6\xf4\x44\x89\xab..\x00\x00(\x89\xb3..\xff\xff)\xc7\x83..\x00\x00' + bytes(4),
        bytes(code), re.S), 'interrupt injection')
    code[store.start(1):store.end(1)] = b'\x66\x0f\x1f\x44\x00\x00'


def mend_lost_interrupt(code):
    """helper_vmrun() and do_vmexit() change the virtual interrupt's bit of interrupt_request, a word
    that the I/O thread changes too: `or` and `and` of the whole word, without its lock. What the
    other put there in that moment is lost, a timer's interrupt say, and the lab sleeps for ever.

    or dword [rbx+N],0x100 and and dword [rbx+N],~0x100 become lock or and lock and of the one byte
    at N+1, and a nop of two bytes."""
    sets = one(re.finditer(rb'\x81\x8b(..\xff\xff)\x00\x01\x00\x00', bytes(code), re.S),
               'virtual interrupt set')
    word = sets.group(1)
    clears = one(re.finditer(rb'\x81\xa3' + re.escape(word) + rb'\xff\xfe\xff\xff', bytes(code)),
                 'virtual interrupt cleared')
    byte = struct.pack('<i', struct.unpack('<i', word)[0] + 1)
    code[sets.start():sets.end()] = b'\xf0\x80\x8b' + byte + b'\x01\x66\x90'
    code[clears.start():clears.end()] = b'\xf0\x80\xa3' + byte + b'\xfe\x66\x90'


def mend_shared_flags(code):
    """FNINIT and FNCLEX call cpu_clear_ignne(), and a write to port F0h cpu_set_ignne(). From any
    vCPU's thread, both change a bit of the first vCPU's hflags2 with an `and` or `or` of the whole
    word. What the first vCPU changes in that moment, at VMRUN, #VMEXIT or STGI, is lost: with HF2_NPT
    still set, the nesting host's memory is read through the guest's page tables and written into the
    guest's; with HF2_GIF still clear, the vCPU hears of no interrupt any more.

    and dword [rax+N],~0x80 and or dword [rax+N],0x80 become lock and and lock or of the byte at N,
    and a nop of two bytes. The first vCPU's own changes are not locked; what they can lose is IGNNE,
    which no system of these days uses."""
    clears = one(re.finditer(rb'\x81\xa0(..\x00\x00)\x7f\xff\xff\xff', bytes(code), re.S),
                 'IGNNE cleared')
    word = clears.group(1)
    sets = one(re.finditer(rb'\x81\x88' + re.escape(word) + rb'\x80\x00\x00\x00', bytes(code)),
               'IGNNE set')
    code[clears.start():clears.end()] = b'\xf0\x80\xa0' + word + b'\x7f\x66\x90'
    code[sets.start():sets.end()] = b'\xf0\x80\x88' + word + b'\x80\x66\x90'


def mend(source, target, *mends):
    with open(source, 'rb') as f:
        code = bytearray(f.read())
    for each in mends:
        each(code)
    with open(target, 'wb') as f:
        f.write(code)
    os.chmod(target, 0o755)


if __name__ == '__main__':
    out = sys.argv[1]
    os.makedirs(out + '/modules', exist_ok=True)
    mend(TCG, out + '/modules/' + os.path.basename(TCG), mend_interrupt_assertion)
    mend(QEMU, out + '/qemu-system-x86_64', mend_busy_tss, mend_injected_interrupt,
         mend_lost_interrupt, mend_shared_flags)
