#!/bin/sh
# linux-initrd.sh [--arch i386] [--init FILE] [MODULE...]: Debian's kernel and an initrd for it, for
# hv run --kernel. Prints a folder with both: vmlinuz and initrd.
#
#   d=$(tests/boot/images/linux-initrd.sh --init task virtio_pci virtio_blk)
#   hv run --headless --serial stdio --append 'console=ttyS0 quiet' --kernel $d/vmlinuz \
#       --initrd $d/initrd
#
# The initrd has busybox-static, the MODULEs of the kernel's package with all that they need, and an
# /init that mounts /proc, /sys and /dev, loads the modules, runs FILE (a shell script) and powers
# off. Modules are, say, virtio_pci virtio_blk virtio_net virtio_rng virtio_console virtio_balloon
# virtio_input vmw_vsock_virtio_transport e1000 nvme ahci sd_mod. What the kernel knows nothing of in
# --append, FILE finds in /proc/cmdline.

. "$(dirname "$0")/lib.sh"

arch=amd64 task=
while [ $# -gt 0 ]; do
    case $1 in
    --arch) arch=$2; shift 2 ;;
    --init) task=$(readlink -f "$2"); shift 2 ;;
    --) shift; break ;;
    -*) die "unknown option $1" ;;
    *) break ;;
    esac
done
case $arch in
amd64) meta=linux-image-amd64 ;;
i386) meta=linux-image-686 ;;
*) die "no such architecture: $arch" ;;
esac
need cpio:cpio python3:python3

# foreign COMMAND...: apt for another architecture, with lists of its own: this system keeps its
# architectures. A list that is not to be had now matters only when it is the one with the packages.
foreign() {
    command=$1
    shift
    "$command" -o APT::Architecture="$arch" -o APT::Architectures="$arch" \
        -o Dir::State::lists="$cache/apt-$arch/lists" -o Dir::Cache="$cache/apt-$arch/cache" \
        -o Dir::State::status="$cache/apt-$arch/status" -o APT::Sandbox::User=root "$@"
}

exec 8>"$cache/linux-$arch.lock"
flock 8
if [ $arch = amd64 ]; then
    package_lists
    package=$(apt-cache depends $meta | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
else
    mkdir -p "$cache/apt-$arch/lists/partial" "$cache/apt-$arch/cache/archives/partial"
    : >"$cache/apt-$arch/status"
    ls "$cache/apt-$arch"/lists/*Packages* >/dev/null 2>&1 || foreign apt-get update -qq >&2 || true
    package=$(foreign apt-cache depends $meta | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' |
        head -1)
fi
[ -n "$package" ] || die "no $meta in the package lists"

# The unpacked packages, one folder for each version of the kernel; then what is made of them.
tree=$cache/$package
if [ ! -d "$tree" ]; then
    work=$(mktemp -d "$cache/linux.XXXXXX")
    trap 'cleanup' EXIT
    trap 'exit 1' HUP INT TERM
    if [ $arch = amd64 ]; then
        unpack "$package" busybox-static
    else
        mkdir "$work/root" "$work/deb"
        (cd "$work/deb" && foreign apt-get download -qq "$package" busybox-static >/dev/null) ||
            die "cannot download $package"
        for deb in "$work"/deb/*.deb; do dpkg -x "$deb" "$work/root"; done
    fi
    mv "$work/root" "$tree"
fi
flock -u 8

key=$(cat "$script" "$images/../../lab/kernel.py" "${task:-/dev/null}" | cksum | cut -d' ' -f1)
list=$(echo "$arch $*" | cksum | cut -d' ' -f1)
result=$cache/linux-$arch-$key-$list
if [ -s "$result/initrd" ] && [ -s "$result/vmlinuz" ]; then
    echo "$result"
    exit
fi
[ -n "${work:-}" ] || work=$(mktemp -d "$cache/linux.XXXXXX")
trap 'cleanup' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$work/initrd/bin" "$work/initrd/modules" "$work/initrd/proc" "$work/initrd/sys" \
    "$work/initrd/dev"
cp "$tree/bin/busybox" "$work/initrd/bin/busybox"
: >"$work/initrd/modules/order"
if [ $# -gt 0 ]; then
    python3 "$images/../../lab/kernel.py" modules "$tree"/lib/modules/* "$work/initrd/modules" "$@"
fi
if [ -n "$task" ]; then cp "$task" "$work/initrd/task"; else echo : >"$work/initrd/task"; fi
cat >"$work/initrd/init" <<'END'
#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
[ ! -s /modules/order ] || while read -r module; do
    [ -z "$module" ] || insmod "/modules/$module.ko" || echo "init: $module failed"
done </modules/order
sh /task
poweroff -f
END
chmod 755 "$work/initrd/init"
mkdir "$work/result"
ln -s "$tree"/boot/vmlinuz-* "$work/result/vmlinuz"
(cd "$work/initrd" && find . | sort | cpio -o -H newc --quiet) >"$work/result/initrd"
rm -rf "$result"
mv "$work/result" "$result"
echo "$result"
