#!/bin/bash
# direct.sh BUILD-DIRECTORY [KIND]...: what a kernel costs from nothing to its init, in instructions.
#
# Debian's kernel and an initrd whose init ends the machine (direct-init.c), started without firmware
# by hv and with QEMU's -kernel on microvm and q35, in the lab with its instruction clock: there a
# nanosecond of processor time is an instruction, of the VMM, of its system calls and of the guest.
# Each VMM runs twice and the second run counts: the first fills the lab's page cache.
#
# KIND is hv, hv-full (with what a plain hv run has), microvm, microvm-small (without what QEMU's manual
# leaves out for the fastest start, but for the RTC: Linux asks one that is not there 20000 times),
# microvm-qboot, q35, each with -elf for vmlinux in place of the
# bzImage. DETAIL=1 adds where the exits to the VMM were. APPEND is more of the command line.
set -u
here=$(dirname "$(readlink -f "$0")")
build=$(readlink -f "${1:?usage: direct.sh BUILD-DIRECTORY [KIND]...}")
shift
if [ $# = 0 ]; then
    set -- hv hv-full microvm microvm-small microvm-qboot q35
    set -- "$@" hv-elf microvm-elf
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/direct.XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
folder=$("$here/../boot/images/linux-amd64.sh" | tail -1)
[ -s "$folder/vmlinux" ] || { echo 'direct.sh: no kernel' >&2; exit 2; }
mkdir "$work/root"
cp "$build/tests/bench/direct-init" "$work/root/init"
(cd "$work/root" && find . | cpio -o -H newc --quiet) >"$work/initrd" || exit 2

# The machines are alike in what costs: one CPU, 512 MiB, a serial console of which Linux makes
# little use. No XSAVE: see the lab.
cat >"$work/inside" <<'END'
build=$1 kernel=$2 work=$3 append=$4
shift 4
mkdir -m 700 /run/own
cp "$kernel/vmlinuz" "$kernel/vmlinux" "$work/initrd" "$build"/src/hv "$build"/src/hv-vmm \
    "$build"/src/hv-net /run
export XDG_RUNTIME_DIR=/run/own
qemu='qemu-system-x86_64 -accel kvm -cpu host,-xsave -m 512 -smp 1 -nodefaults -no-user-config
    -display none -no-reboot -serial file:/run/serial -device isa-debug-exit,iobase=0xf4,iosize=4'
hv='/run/hv run --headless --cpu host,-xsave --memory 512M --cpus 1 --serial /run/serial
    --device debug-exit'
for kind; do
    image=/run/vmlinuz
    case $kind in *-elf) image=/run/vmlinux ;; esac
    case ${kind%-elf} in
    hv) start="$hv --net none" ;;
    hv-full) start=$hv ;;
    q35) start="$qemu -M q35" ;;
    microvm) start="$qemu -M microvm" ;;
    microvm-small)
        start="$qemu -M microvm,x-option-roms=off,pit=off,pic=off,rtc=on,acpi=off -no-acpi" ;;
    microvm-qboot) start="$qemu -M microvm -bios /usr/share/qemu/qboot.rom" ;;
    esac
    for round in 1 2; do
        rm -f /run/marks /run/serial
        env LD_PRELOAD="$build/tests/bench/kvm-marks.so" KVM_MARKS=/run/marks \
            ${DETAIL:+KVM_MARKS_DETAIL=1} \
            timeout 30000 $start --kernel $image --initrd /run/initrd --append "$append" \
            </dev/null >/run/said 2>&1
    done
    [ -s /run/marks ] || { echo "$kind: no init"; tail -n 5 /run/said /run/serial; continue; }
    awk -v kind="$kind" '
        $2 == "first" {
            printf "%-18s %8.1f %8.1f %8.1f %8d %8d\n", kind, $3 / 1e6, ($5 - $3) / 1e6, $5 / 1e6,
                $7, $9
            next
        }
        { print }' /run/marks
    ! [ "${DETAIL:-}" ] || cp /run/serial "$work/out/$kind.serial"
done
END
# The family of the processors of today: for the oldest AMD64 ones Linux looks for an AGP bridge on 256
# buses, twice, with 33000 exits in every VMM.
cpu=max,+svm,-la57,family=23,model=49,stepping=0
mkdir "$work/out"
printf '%-18s %8s %8s %8s %8s %8s\n' 'M instructions' before to-init whole exits 'to VMM'
"$here/../lab/lab" -i -x "-cpu $cpu" -t "${LIMIT:-3000}" ${DETAIL:+-w "$work/out"} \
    "DETAIL=${DETAIL:-} bash $work/inside $build $folder $work 'console=ttyS0 quiet ${APPEND:-}' $*"
status=$?
[ -z "${DETAIL:-}" ] || cp "$work"/out/*.serial .
exit $status
