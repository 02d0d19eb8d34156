#!/bin/sh
# this-end.sh DEVICE: 10.0.2.2 is this host's end of that tap device, and of no other.
set -e
ip address flush to 10.0.2.2
ip address replace 10.0.2.2/24 dev "$1"
ip link set "$1" up
