#!/bin/sh
# as-user.sh COMMAND...: as a user without any rights, who may write to the folder user, and use KVM and tap devices.
set -eu
chmod 711 . # for what is in it
install -d -m 700 -o 65534 -g 65534 user
chmod 666 /dev/kvm /dev/net/tun
XDG_RUNTIME_DIR=$PWD/user exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
