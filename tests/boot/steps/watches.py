#!/usr/bin/env python3
"""watches.py TEXT...: waits over the control socket until the machine's picture says one text after the other, and
finds each in all that it says."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + '/../../../examples')
sys.dont_write_bytecode = True
from control import Machine

machine = Machine(os.environ['HV_MACHINE'])
for text in sys.argv[1:]:
    machine.call('screen.watch', text=text)
    said = machine.wait_for('screen')
    print(said, flush=True)
    if text not in said['line'] or said['text'] != text:
        sys.exit('another line')
    picture = machine.call('screen.text', glyphs=True)
    if not picture['graphics'] or machine.call('screen.text')['lines']:
        sys.exit('a text screen')
    if len(picture['lines']) != picture['rows'] or not any(text in line for line in picture['lines']):
        sys.exit('\n'.join(picture['lines']))
