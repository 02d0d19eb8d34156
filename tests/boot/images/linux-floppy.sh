#!/bin/sh
# linux-shell.sh with Linux's floppy driver too.
exec "$(dirname "$0")/linux-shell.sh" amd64 floppy
