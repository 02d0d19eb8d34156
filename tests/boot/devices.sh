#!/bin/bash
# devices.sh HV: which drives, card and clock hv run gives a guest by what is on its images, as TAP.
# Nothing is started: --dry-run prints the machine.
set -u
HV=$(readlink -f "$1")
work=$(mktemp -d /tmp/hv-devices.XXXXXX)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit
PATH=$PATH:/sbin:/usr/sbin

# Images: file systems as their tools make them, and the first bytes of an NTFS (its boot sector and
# the record that libblkid looks at).
image() { truncate -s 16M "$1"; }
linux() { image "$1"; mke2fs -q -F "$1"; }
swap() { image "$1"; mkswap "$1" >/dev/null 2>&1; }
at() { dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
windows() {
    image "$1"
    printf '\xeb\x52\x90NTFS    \x00\x02\x08' | at "$1" 0
    printf '\xf8' | at "$1" 21
    printf '\xff\x7f\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x08' | at "$1" 40
    printf '\xf6\x00\x00\x00\x01' | at "$1" 64
    printf '\x55\xaa' | at "$1" 510
    printf 'FILE' | at "$1" 16384
    printf 'FILE' | at "$1" 19456 # record 3: the volume
}
# partitioned IMAGE FILE...: an MBR with each FILE as a partition.
partitioned() {
    local disk=$1 start=2048 entry=446
    shift
    truncate -s 64M "$disk"
    printf '\x55\xaa' | at "$disk" 510
    for part; do
        printf '\x00\x00\x00\x00\x83\x00\x00\x00%b%b' "$(le32 $start)" "$(le32 32768)" |
            at "$disk" $entry
        dd if="$part" of="$disk" bs=512 seek=$start conv=notrunc status=none
        start=$((start + 32768)) entry=$((entry + 16))
    done
}
le32() { printf '\\x%02x\\x%02x\\x%02x\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24)); }
cd_image() { # FILE LOADER: an ISO 9660 volume whose El Torito image says LOADER
    truncate -s 2M "$1"
    printf '\001CD001\001' | at "$1" $((16 * 2048))
    printf '\000CD001\001EL TORITO SPECIFICATION' | at "$1" $((17 * 2048))
    printf '%b' "$(le32 20)" | at "$1" $((17 * 2048 + 71))
    printf '\377CD001\001' | at "$1" $((18 * 2048))
    printf '\001\000\000' | at "$1" $((20 * 2048))
    printf '\210\000\000\000\000\000\004\000%b' "$(le32 21)" | at "$1" $((20 * 2048 + 32))
    printf '%s' "$2" | at "$1" $((21 * 2048 + 100))
}

export TZ=UTC-5:30 # India's
local=+19800s
number=0 failed=0
# gives TITLE WANTED ARGUMENT...: in a row the disks' buses, the card, and how much the clock is ahead.
gives() {
    local title=$1 wanted=$2 got
    shift 2
    got=$("$HV" run --dry-run --headless "$@" 2>&1 | python3 -c '
import json, sys
m = json.load(sys.stdin)
net = m.get("net", "none")
card = [w[6:] for w in net.split(",") if w.startswith("model=")] or ["none"]
print(*[d["bus"] for d in m.get("disk", [])], card[0], *filter(None, [m.get("clock")]))' 2>&1)
    if [ "$got" = "$wanted" ]; then
        echo "ok $((number += 1)) - $title"
    else
        echo "not ok $((number += 1)) - $title"
        echo "# wanted: $wanted, got: $got"
        failed=1
    fi
}

linux linux.img
swap swap.img
windows windows.img
image empty.img
partitioned both.img linux.img windows.img
partitioned parts.img swap.img linux.img
cd_image linux.iso 'ISOLINUX 6.04'
cd_image grub.iso 'cdrom read fails'
cd_image openbsd.iso '>> OpenBSD/amd64 CDBOOT 3.65'
cd_image windows.iso "CDBOOT: Couldn't find BOOTMGR"
cd_image other.iso 'a loader'

gives 'a Linux file system: virtio' 'virtio virtio' linux.img
gives 'Linux partitions: virtio' 'virtio virtio' parts.img
gives 'Windows: what it has drivers for' "ahci e1000 $local" windows.img
gives 'Windows beside Linux: what both have' "ahci e1000 $local" both.img
gives 'Windows on another disk' "ahci ahci e1000 $local" linux.img --disk windows.img
gives 'an empty disk says nothing' 'ahci e1000' empty.img
gives 'an empty disk and a CD with a Linux boot loader' 'virtio virtio' linux.iso --disk empty.img
gives "a CD with GRUB 2" 'virtio virtio' grub.iso --disk empty.img
gives "OpenBSD's CD" 'virtio virtio' openbsd.iso --disk empty.img
gives "Windows' CD" "ahci e1000 $local" windows.iso --disk empty.img
gives 'an empty disk and another CD' 'ahci e1000' other.iso --disk empty.img
gives 'what the user says counts' 'nvme e1000' --disk linux.img,bus=nvme --net user,model=e1000
gives 'each disk for itself' 'nvme virtio virtio' --disk empty.img,bus=nvme --disk linux.img
gives 'a clock that the user has set' 'ahci e1000 +5400s' --clock +90m windows.img
gives 'no card' 'virtio none' linux.img --net none
echo "1..$number"
exit $failed
