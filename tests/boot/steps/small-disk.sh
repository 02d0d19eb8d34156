#!/bin/sh
# small-disk.sh FOLDER: a file system in memory of 2 GiB there, until SIGTERM.
# small-disk.sh FOLDER --room MIB: it has so much room left.
set -eu
if [ "$(id -u)" = 0 ]; then sudo=; else sudo='sudo -n'; fi
if [ "${2:-}" = --room ]; then
    exec $sudo mount -o "remount,size=$(($(du -m "$1/debian.img" | cut -f1) + $3))M" "$PWD/$1"
fi
mkdir "$1"
trap '$sudo umount -l "$PWD/$1"; exit' EXIT
trap exit TERM
$sudo mount -t tmpfs -o "size=2G,uid=$(id -u)" small "$PWD/$1"
echo mounted
while :; do sleep 60 & wait; done
