#!/bin/sh
# asl-to-c.sh IASL SOURCE OUTPUT.inc: compiles ACPI source to AML (OUTPUT.aml), and that to the bytes
# of a C array's initialiser.
set -eu
prefix=${3%.inc}
log=$("$1" -we -p "$prefix" "$2" 2>&1) || { echo "$log" >&2; exit 1; }
bytes=$(od -An -v -tx1 "$prefix.aml")
echo "$bytes" | sed 's/ \([0-9a-f][0-9a-f]\)/0x\1,/g' >"$3"
