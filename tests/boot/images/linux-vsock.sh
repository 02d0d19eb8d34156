#!/bin/sh
# linux-vsock.sh: Linux with a program for its virtio socket, for vsock.hvt. Prints the folder that
# linux-initrd.sh made.

. "$(dirname "$0")/lib.sh"
need gcc:gcc
folder=$(mktemp -d "$cache/vsock.XXXXXX")
trap 'rm -rf "$folder"' EXIT
gcc -O2 -static -s -o "$folder/vsock" "$images/../guest/vsock.c" || die 'the program for the guest'
{
    echo 'base64 -d >/vsock <<END'
    base64 "$folder/vsock"
    echo 'END'
    cat <<'END'
chmod +x /vsock
echo serving
/vsock listen 1000 </dev/null | md5sum >/sum
echo "came: $(cat /sum)"
yes 0123456789abcde | head -c 1048576 >/piece
for i in $(seq 100); do cat /piece; done | /vsock listen 1001
echo sent
for i in 1 2 3; do echo "call $i" | /vsock connect 2000; done
/vsock connect 2001 </dev/null || echo refused
sleep 1
END
} >"$folder/init"
"$images/linux-initrd.sh" --init "$folder/init" virtio_pci vmw_vsock_virtio_transport
