#!/bin/sh
# linux-shell.sh [ARCHITECTURE [MODULE...]]: Linux with every driver for hv's drives and network cards,
# and those modules, whose /init does what it is told on the serial port (../steps/linux-shell.hvt), or
# powers off with "off" on its command line. Prints the folder that linux-initrd.sh made.

. "$(dirname "$0")/lib.sh"
arch=${1:-amd64}
[ $# = 0 ] || shift # the rest are modules
folder=$(mktemp -d "$cache/shell.XXXXXX")
trap 'rm -rf "$folder"' EXIT
if [ "$arch" = amd64 ]; then
    need gcc:gcc
    gcc -O2 -static -s -o "$folder/echo" "$images/../guest/echo.c" || die 'the program for the guest'
else # whose compiler and C library are not at hand: busybox serves one call after the other
    printf '#!/bin/sh\nexec nc -ll -p "$1" -e cat\n' >"$folder/echo"
fi
{
    echo 'base64 -d >/bin/echo-server <<END'
    base64 "$folder/echo"
    echo 'END'
    cat <<'END'
chmod +x /bin/echo-server
cat >/bin/dhcp <<'SCRIPT'
#!/bin/sh
case $1 in
bound | renew)
    ip address add "$ip/$mask" dev "$interface" 2>/dev/null
    ip route replace default via "$router"
    echo "nameserver $dns" >/etc/resolv.conf
    echo "lease: $ip router $router dns $dns"
    ;;
esac
SCRIPT
chmod +x /bin/dhcp
mkdir -p /etc /tmp /mnt
ip link set lo up
stty -echo
echo =READY
! grep -qw off /proc/cmdline || poweroff -f
while IFS= read -r line; do
    eval "$line"
    echo "=END $?"
done
END
} >"$folder/init"
"$images/linux-initrd.sh" --arch "$arch" --init "$folder/init" virtio_pci virtio_blk virtio_net e1000 ahci sd_mod nvme ext4 \
    crc32c_generic "$@"
