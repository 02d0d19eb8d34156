#!/usr/bin/env python3
"""A name server on 127.0.0.1, to which example is 192.0.2.7, and of nothing else anything is known."""
import socket

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(('127.0.0.1', 53))
print('ready', flush=True)
while True:
    query, who = server.recvfrom(4096)
    end = query.index(b'\0', 12) + 5
    question = query[12:end]
    known = question.startswith(b'\x07example\0\0\x01')  # its IPv4 address
    flags = b'\x81\x80' if question.startswith(b'\x07example\0') else b'\x81\x83'  # no such name
    count = b'\0\x01' if known else b'\0\0'
    answer = b'\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04' + bytes([192, 0, 2, 7]) if known else b''
    server.sendto(query[:2] + flags + b'\0\x01' + count + b'\0\0\0\0' + question + answer, who)
