#!/usr/bin/env python3
"""web.py PORT [ADDRESS...]: a web server with random bytes, on 127.0.0.1 and ::1 unless other addresses are
named. /N is N MiB, /N.md5 what md5sum says of them, and it says the same of what is posted to it."""
import hashlib, http.server, os, socket, sys, threading

piece = os.urandom(1 << 20).replace(b'\0', b'\1')  # busybox's wget posts nothing behind a zero


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, length):
        self.send_response(200)
        self.send_header('Content-Length', str(length))
        self.end_headers()

    def say(self, pieces):
        digest = hashlib.md5()
        for some in pieces:
            digest.update(some)
        text = f'{digest.hexdigest()}  -\n'.encode()
        self.answer(len(text))
        self.wfile.write(text)

    def do_GET(self):
        count, _, md5 = self.path[1:].partition('.')
        pieces = [piece] * int(count)
        if md5:
            self.say(pieces)
        else:
            self.answer(len(piece) * len(pieces))
            self.wfile.writelines(pieces)

    def do_POST(self):
        self.say([self.rfile.read(int(self.headers['Content-Length']))])


class Server(http.server.ThreadingHTTPServer):
    def __init__(self, address):
        self.address_family = socket.AF_INET6 if ':' in address else socket.AF_INET
        super().__init__((address, int(sys.argv[1])), Handler)


servers = [Server(address) for address in sys.argv[2:] or ('127.0.0.1', '::1')]
for server in servers:
    threading.Thread(target=server.serve_forever).start()
print('ready', flush=True)
