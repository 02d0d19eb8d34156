#!/usr/bin/env python3
"""control.py NAME WAIT TEXT: drives a machine that runs over its control socket, with nothing but
Python's standard library. Waits until the screen of the machine NAME has the text WAIT, types
TEXT and the Enter key, and prints what happens until the machine is off. `man hv-control` describes
the socket; hv-control.schema.json all that goes over it."""
import json
import os
import socket
import sys


class Machine:
    def __init__(self, name):
        folder = os.environ.get("XDG_RUNTIME_DIR")
        folder = folder + "/hv" if folder else f"/tmp/hv-{os.getuid()}"
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(f"{folder}/{name}/control")
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.id = 0
        self.events = []  # that came while an answer was awaited

    def receive(self):
        line = self.lines.readline()
        if not line:
            raise EOFError("the machine has ended")
        return json.loads(line)

    def call(self, method, **params):
        """The result of a method; RuntimeError with the machine's words when it fails."""
        self.id += 1
        request = {"jsonrpc": "2.0", "id": self.id, "method": method, "params": params}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while (message := self.receive()).get("id") != self.id:
            self.events.append(message)
        if "error" in message:
            raise RuntimeError(message["error"]["message"])
        return message["result"]

    def event(self):
        """The next event: its name and its parameters."""
        message = self.events.pop(0) if self.events else self.receive()
        return message["method"], message["params"]

    def wait_for(self, wanted):
        while (event := self.event())[0] != wanted:
            pass
        return event[1]

    def type(self, text):
        """Types text; back when the guest has taken all of it."""
        while text:
            result = self.call("send.text", text=text[:4096])
            text = text[result["accepted"]:]
            if result["left_out"]:
                print("not on the guest's keyboard:", result["first_left_out"])
            if result["typing"]:
                self.wait_for("typed")


def main(name, wanted, text):
    machine = Machine(name)
    print("it is", machine.call("events")["state"])
    machine.call("screen.watch", text=wanted)
    print("on the screen:", machine.wait_for("screen")["line"])
    machine.type(text + "\n")
    print("typed")
    while True:
        name, params = machine.event()
        print(name, *params.values())
        if name == "state" and params["state"] == "off":
            return params["status"]


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
