#!/bin/bash
# held.sh FILE: the machine says that it uses it.
grep -qx "$(stat -c %d:%i "$1")" "$XDG_RUNTIME_DIR/hv/$HV_MACHINE/images"
