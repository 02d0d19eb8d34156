#!/bin/sh
# The budgets, counted: hv beside a floor VMM (floor.c) and QEMU's q35, on the ROMs of tests/guests.
# Counts and not times, so that a busy or nested machine gives the same numbers.
#
#   bench.sh BUILD-DIRECTORY
#
# HV         the program (default BUILD-DIRECTORY/src/hv); "none" leaves it out
# HV_VMM     name of the process that is the machine (default hv-vmm)
# HV_OPTIONS what `hv run` gets besides the ROM
# QEMU       the program (default qemu-system-x86_64 when installed); "none" leaves it out
# IDLE       seconds over which wake-ups are counted (default 10)
#
# Exit status: 0 within all budgets, 1 over one, 2 something is missing.
set -u
LC_ALL=C
export LC_ALL

build=${1:?usage: bench.sh BUILD-DIRECTORY}
roms=$build/tests/guests
floor=$build/tests/bench/floor
HV=${HV:-$build/src/hv}
HV_VMM=${HV_VMM:-hv-vmm}
HV_OPTIONS=${HV_OPTIONS:---headless --memory 256M --cpus 1 --serial stdio --device debug-exit}
QEMU=${QEMU:-$(command -v qemu-system-x86_64 || echo none)}
IDLE=${IDLE:-10}
RAM_KIB=262144
COUNT=4000

fail() {
    echo "bench: $*" >&2
    exit 2
}

for tool in valgrind strace awk timeout; do
    command -v $tool >/dev/null || fail "$tool is not installed"
done
[ -w /dev/kvm ] || fail "/dev/kvm is missing or not writable"
[ -x "$floor" ] || fail "$floor is missing: build first"
[ "$HV" = none ] || [ -x "$HV" ] || fail "$HV is missing: build first, or set HV"

work=$(mktemp -d) || exit 2
running=
# shellcheck disable=SC2317 # called by the trap
finish() {
    for pid in $running; do
        kill -KILL "$pid" 2>/dev/null
    done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 2' INT TERM HUP

vmms=
[ "$HV" = none ] || vmms="hv"
vmms="$vmms floor"
[ "$QEMU" = none ] || vmms="$vmms qemu"

# The command line that starts a ROM in a VMM. QEMU's default is the I/O APIC in the kernel, where
# an access to it is no exit: for MMIO its own is counted.
irqchip=on
command_of() {
    case $1 in
    hv) echo "$HV run $HV_OPTIONS --firmware $2" ;;
    floor) echo "$floor $2" ;;
    qemu)
        echo "$QEMU -M q35,kernel_irqchip=$irqchip -accel kvm -cpu host,-arch-capabilities -m 256" \
            "-nodefaults -display none -serial stdio -bios $2" \
            "-device isa-debug-exit,iobase=0xf4,iosize=4"
        ;;
    esac
}

# The name of the executable that is the machine.
process_of() {
    case $1 in
    hv) echo "$HV_VMM" ;;
    floor) basename "$floor" ;;
    qemu) basename "$QEMU" ;;
    esac
}

put() { # vmm metric value
    echo "$3" >"$work/$1.$2"
}

get() { # vmm metric
    cat "$work/$1.$2" 2>/dev/null || echo -
}

# User instructions of the machine's process for one run of a ROM. callgrind writes a file for each
# process; a fork that did not exec has the same command, the largest is the machine.
instructions() { # vmm rom
    rm -f "$work"/callgrind.*
    # shellcheck disable=SC2046
    timeout 300 valgrind --quiet --tool=callgrind --trace-children=yes \
        --callgrind-out-file="$work/callgrind.%p" $(command_of "$1" "$roms/$2.rom") \
        </dev/null >"$work/out" 2>"$work/err"
    for file in "$work"/callgrind.*; do
        [ -f "$file" ] || continue
        awk -v want="$(process_of "$1")" '
            /^cmd:/ { n = split($2, path, "/"); mine = path[n] == want }
            /^totals:/ && mine { print $2 }' "$file"
    done | sort -n | tail -1 >"$work/total"
    if [ ! -s "$work/total" ]; then
        cat "$work/err" >&2
        fail "$1 gave no count for $2"
    fi
    cat "$work/total"
}

# ioctls of the machine's process up to the first KVM_RUN. Two passes: a thread's own lines
# may come before its creator's clone line.
ioctls() { # vmm
    # shellcheck disable=SC2046
    timeout 120 strace -f -qq -e signal=none -e trace=execve,clone,clone3,fork,vfork,ioctl \
        -o "$work/strace" $(command_of "$1" "$roms/first.rom") </dev/null >/dev/null 2>&1
    awk -v want="$(process_of "$1")" '
        FNR == 1 { pass++ }
        pass == 1 && /execve\("/ {
            split($0, quoted, "\""); n = split(quoted[2], path, "/")
            if (path[n] == want && !/ = -1 /) { machine[$1] = 1; from[$1] = FNR }
        }
        pass == 1 && /(clone3?|v?fork)(\(| resumed).* = [0-9]+$/ && ($1 in machine) {
            machine[$NF] = 1
        }
        pass == 2 && / ioctl\(/ && ($1 in machine) && FNR > from[$1] {
            if (/KVM_RUN/) { print count + 0; exit }
            count++
        }' "$work/strace" "$work/strace" >"$work/count"
    [ -s "$work/count" ] || fail "$1: no KVM_RUN seen"
    cat "$work/count"
}

# Starts the idle guest; leaves the machine's process in $work/VMM.pid once the guest ran.
start_idle() { # vmm
    tag=bench-$$-$1
    : >"$work/$1.idle"
    # shellcheck disable=SC2046
    env HV_BENCH_TAG="$tag" $(command_of "$1" "$roms/idle.rom") \
        </dev/null >"$work/$1.idle" 2>"$work/err" &
    started=$!
    running="$running $started"
    name=$(process_of "$1" | cut -c1-15)
    marker=$(printf '\247')
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        grep -q "$marker" "$work/$1.idle" && break
        sleep 0.5
    done
    grep -q "$marker" "$work/$1.idle" || {
        cat "$work/err" >&2
        fail "$1: the idle guest did not start"
    }
    for dir in /proc/[0-9]*; do
        [ "$(cat "$dir/comm" 2>/dev/null)" = "$name" ] || continue
        tr '\0' '\n' <"$dir/environ" 2>/dev/null | grep -q "^HV_BENCH_TAG=$tag\$" || continue
        echo "${dir#/proc/}" >"$work/$1.pid"
    done
    [ -s "$work/$1.pid" ] || echo "$started" >"$work/$1.pid"
    pid=$(cat "$work/$1.pid")
    [ "$pid" = "$started" ] || running="$running $pid"
}

# Times any thread of the process was switched away from: each wake-up ends in one.
switches() { # pid
    cat /proc/"$1"/task/*/status | awk '/ctxt_switches/ { sum += $2 } END { print sum + 0 }'
}

measure_idle() { # vmm
    pid=$(cat "$work/$1.pid")
    put "$1" faults "$(sed 's/.*) //' "/proc/$pid/stat" | awk '{ print $8 }')"
    put "$1" threads "$(find "/proc/$pid/task" -mindepth 1 -maxdepth 1 | wc -l)"
    put "$1" libraries "$(awk '$2 ~ /x/ && $6 ~ /\.so/ && $6 !~ /\/ld-linux/ { seen[$6] = 1 }
        END { for (s in seen) n++; print n + 0 }' "/proc/$pid/maps")"
    # Guest memory is in memfds, or in a mapping as large as the guest.
    put "$1" rss "$(awk -v ram=$RAM_KIB '
        /^[0-9a-f]+-[0-9a-f]+ / { guest = /\/memfd:/ }
        /^Size:/ && $2 >= ram - 1024 { guest = 1 }
        /^Rss:/ && !guest { sum += $2 }
        END { print sum + 0 }' "/proc/$pid/smaps")"
}

# The MMIO kinds last.
kinds="port-write port-read unassigned-write config mmio-writes mmio-reads mmio-nothing"

for vmm in $vmms; do
    start_idle "$vmm"
done
sleep 1
for vmm in $vmms; do
    measure_idle "$vmm"
    put "$vmm" before "$(switches "$(cat "$work/$vmm.pid")")"
done
sleep "$IDLE"
for vmm in $vmms; do
    put "$vmm" wakeups "$(awk -v a="$(get "$vmm" before)" -v s="$IDLE" \
        -v b="$(switches "$(cat "$work/$vmm.pid")")" 'BEGIN { printf "%.1f", (b - a) / s }')"
done
for pid in $running; do
    kill -KILL "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
done
running=

for vmm in $vmms; do
    count=$(instructions "$vmm" first) || exit 2
    put "$vmm" start "$count"
    count=$(ioctls "$vmm") || exit 2
    put "$vmm" ioctls "$count"
    base=$(instructions "$vmm" exits-port-write-0) || exit 2
    for kind in $kinds; do
        if [ "$kind" = mmio-writes ] && [ "$vmm" = qemu ]; then
            irqchip="split"
            base=$(instructions "$vmm" exits-mmio-writes-0) || exit 2
        fi
        total=$(instructions "$vmm" "exits-$kind-$COUNT") || exit 2
        put "$vmm" "$kind" "$(awk -v a="$base" -v b="$total" -v n=$COUNT -v kind="$kind" \
            'BEGIN { printf "%.0f", (b - a) / n / (kind == "config" ? 2 : 1) }')"
    done
done

over=0
row() { # name metric budget
    hv=$(get hv "$2")
    verdict=
    if [ "$3" != - ] && [ "$hv" != - ]; then
        if awk -v a="$hv" -v b="$3" 'BEGIN { exit !(a <= b) }'; then
            verdict=ok
        else
            verdict=OVER
            over=1
        fi
    fi
    awk -v name="$1" -v hv="$hv" -v floor="$(get floor "$2")" -v qemu="$(get qemu "$2")" \
        -v budget="$3" -v verdict="$verdict" '
        function ratio(a, b) {
            return a == "-" || b == "-" || b + 0 == 0 ? "-" : sprintf("%.3g", a / b)
        }
        BEGIN {
            printf "%-42s %11s %11s %11s %9s %9s %10s  %s\n", name, hv, floor, qemu,
                ratio(hv, floor), ratio(hv, qemu), budget, verdict
        }'
}

printf '%-42s %11s %11s %11s %9s %9s %10s\n' '' hv floor 'QEMU q35' hv/floor hv/QEMU budget
row 'start and exit, user instructions' start 1500000
row 'ioctls before the first guest instruction' ioctls 60
row 'shared libraries' libraries 8
row 'minor faults' faults 300
row 'resident above guest RAM, KiB' rss 4096
row 'threads' threads -
row 'wake-ups a second, idle guest' wakeups 0
row 'port write, instructions' port-write 150
row 'port read, instructions' port-read 150
row 'port write to nothing, instructions' unassigned-write 150
row 'MMIO write, instructions' mmio-writes 120
row 'MMIO read, instructions' mmio-reads 120
row 'MMIO read of nothing, instructions' mmio-nothing 120
row 'configuration access (CF8, CFC), each' config -
exit $over
