#!/bin/bash
# deb-repository.sh FOLDER MIB: makes it a Debian repository with a package hv-test of that size.
mkdir -p "$1"
cd "$1" || exit
head -c "${2}M" /dev/urandom >big.deb
printf 'Package: hv-test\nVersion: 1\nArchitecture: all\nFilename: ./big.deb\nDescription: none\n' >Packages
printf 'Size: %s\nSHA256: %s\n\n' "$(stat -c %s big.deb)" "$(sha256sum big.deb | cut -d' ' -f1)" >>Packages
