#!/usr/bin/env python3
"""login.hvt as one writes it for QEMU: keys by the monitor's sendkey, the screen by screendump and
tesseract each second, as NixOS's test driver does it.

  login-qemu.py FIRST USER PROMPT COMMAND ANSWER QEMU-OPTION...

FIRST, PROMPT and ANSWER are patterns of what is to be seen, USER and COMMAND what is typed.
"""
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

KEYS = {' ': 'spc', '-': 'minus', '.': 'dot', '/': 'slash', '=': 'equal', '\n': 'ret'}
SCALE = ['-colorspace', 'gray', '-resize', '300%', '-normalize', '-negate', '-density', '300']
LIMIT = 600


def monitor(command):
    connection.sendall(command.encode() + b'\n')
    answer = b''
    while not answer.endswith(b'(qemu) '):
        answer += connection.recv(4096)


def send_text(text):
    for character in text:
        monitor('sendkey ' + KEYS.get(character, character))
        time.sleep(0.01)


def wait_for_text(pattern):
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        monitor('screendump screen.ppm')
        subprocess.run(['convert', 'screen.ppm', *SCALE, 'screen.png'], check=True)
        text = subprocess.run(['tesseract', 'screen.png', '-', '--psm', '6'], check=True, text=True,
                              capture_output=True).stdout
        if re.search(pattern, text):
            return
        time.sleep(1)
    sys.exit(f'{pattern} is not there in {LIMIT} s, but: {text}')


first, user, prompt, command, answer, *options = sys.argv[1:]
os.chdir(tempfile.mkdtemp())
qemu = subprocess.Popen(['qemu-system-x86_64', '-display', 'none',
                         '-monitor', 'unix:monitor,server,nowait', *options])
try:
    connection = socket.socket(socket.AF_UNIX)
    while connection.connect_ex('monitor'):
        time.sleep(0.1)
    wait_for_text(first)
    send_text(user)
    wait_for_text(prompt)
    send_text(command)
    wait_for_text(answer)
finally:
    qemu.kill()
    qemu.wait()
