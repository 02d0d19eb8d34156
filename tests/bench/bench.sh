#!/bin/sh
# The budgets, counted: hv beside a floor VMM (floor.c) and QEMU's q35, for disks its microvm too, on
# the ROMs of tests/guests.
# Counts and not times, so that a busy or nested machine gives the same numbers.
#
# An access counts twice: whole, which is all that the machine's process does for it, and its
# dispatch, which has the budget: from KVM_RUN's return to the device's function and from there back
# to KVM_RUN, without the ioctl and without what the device does.
#
#   bench.sh BUILD-DIRECTORY
#
# HV         the program (default BUILD-DIRECTORY/src/hv); "none" leaves it out
# HV_VMM     name of the process that is the machine (default hv-vmm)
# HV_OPTIONS what `hv run` gets besides the ROM
# QEMU       the program (default qemu-system-x86_64 when installed); "none" leaves it out
# ROUNDS     of the disk's times, which are reported and not judged (default 5)
# IDLE       seconds over which wake-ups are counted (default 10)
# PARTS      what is measured (default "idle start exits disk qcow2 network"); qcow2.sh has one of
#            them, and login.sh one more: login
#
# With Xvfb installed, hv's wake-ups are counted with a window too.
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
PARTS=${PARTS:-idle start exits disk qcow2 network}
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
display=
# shellcheck disable=SC2317 # called by the trap
finish() {
    for pid in $running $display; do
        kill -KILL "$pid" 2>/dev/null
    done
    end_strays
    rm -rf "$work"
}
# What a run of a VMM has left behind, by the mark that its environment has: under valgrind a child
# does not always see its parent end.
export HV_BENCH_RUN=bench-$$
end_strays() {
    for dir in /proc/[0-9]*; do
        [ "${dir#/proc/}" = $$ ] || { tr '\0' '\n' 2>/dev/null <"$dir/environ" |
            grep -q "^HV_BENCH_RUN=$HV_BENCH_RUN\$" && tr '\0' '\n' <"$dir/cmdline" |
            grep -q "hv-\(net\|vmm\)\$" && kill -KILL "${dir#/proc/}" 2>/dev/null; }
    done
}
trap finish EXIT
trap 'exit 2' INT TERM HUP

vmms=
[ "$HV" = none ] || vmms="hv"
vmms="$vmms floor"
[ "$QEMU" = none ] || vmms="$vmms qemu"

# The command line that starts a ROM in a VMM. QEMU's default is the I/O APIC in the kernel, where
# an access to it is no exit: for MMIO its own is counted.
# With `disk` set, the machine has that virtio disk, for QEMU in that `format`; QEMU's is served by an iothread. With `fast`,
# the floor polls it and QEMU uses io_uring, as hv does both at all times. With `network` set, it has a
# virtio network card on the user-mode network of each.
irqchip=on
network=
disk=
format=
fast=
qemu_of() { # machine virtio-blk-device rom
    echo "$QEMU -M $1 -accel kvm -cpu host,-arch-capabilities -m 256" \
        "-nodefaults -display none -serial stdio -bios $3" \
        "-device isa-debug-exit,iobase=0xf4,iosize=4" \
        ${disk:+-object iothread,id=loop -device $2,drive=d,iothread=loop} \
        ${disk:+-drive if=none,id=d,format=${format:-raw},file=$disk,aio=${fast:-threads}} \
        ${network:+-netdev user,id=n -device virtio-net-pci,netdev=n,romfile=}
}
command_of() {
    case $1 in
    hv)
        echo "$HV run --name $HV_BENCH_RUN $HV_OPTIONS" \
            "${disk:+--net none --disk $disk,bus=virtio}" \
            "${network:+--net user,model=virtio} --firmware $2"
        ;;
    floor) echo "$floor $2 $disk ${fast:+poll}" ;;
    qemu) qemu_of "q35,kernel_irqchip=$irqchip" virtio-blk-pci "$2" ;;
    microvm)
        qemu_of microvm,pit=off,pic=off,rtc=off,x-option-roms=off virtio-blk-device \
            "$2 -global virtio-mmio.force-legacy=false"
        ;;
    esac
}

# The names of the executables that are the machine: of hv also the one that is its network, where
# that is measured.
process_of() {
    case $1 in
    hv) echo "$HV_VMM${network:+ hv-net}" ;;
    floor) basename "$floor" ;;
    qemu | microvm) basename "$QEMU" ;;
    esac
}

put() { # vmm metric value
    echo "$3" >"$work/$1.$2"
}

get() { # vmm metric
    cat "$work/$1.$2" 2>/dev/null || echo -
}

# User instructions of the machine's processes for one run of a ROM, which reads $input: whole, and
# without what is not dispatch. callgrind writes a file for each process; a fork that did not exec has
# the same command, the largest of each name counts. Not dispatch is what run_vcpu's calls of kvm_vcpu_run and the bus's
# calls of the devices cost, all within included.
input=
instructions() { # vmm rom
    echo "$input" >"$work/in"
    rm -f "$work"/callgrind.*
    # shellcheck disable=SC2046
    timeout 300 valgrind --quiet --tool=callgrind --trace-children=yes \
        --compress-strings=no --compress-pos=no \
        --callgrind-out-file="$work/callgrind.%p" $(command_of "$1" "$roms/$2.rom") \
        <"$work/in" >"$work/out" 2>"$work/err"
    for file in "$work"/callgrind.*; do
        [ -f "$file" ] || continue
        awk -v want="$(process_of "$1")" '
            function plain(name) { # without the suffix of a part that the compiler split off
                sub(/[.\047].*/, "", name)
                return name
            }
            /^cmd:/ { n = split($2, path, "/"); mine = index(" " want " ", " " path[n] " ") }
            /^fn=/ { caller = plain(substr($0, 4)) }
            /^cfn=/ { called = plain(substr($0, 5)) }
            /^calls=/ { # the next line has the cost
                getline
                bus = caller ~ /^(bus_(in|out|load|store)|access_(slow|split|once))$/
                if (called == "kvm_vcpu_run" ||
                    (bus && called !~ /^(bus|access|g_mutex|find)_/))
                    beyond += $2
            }
            /^totals:/ && mine { print path[n], $2, $2 - beyond }' "$file"
    done | sort -k 2 -n | awk '
        { total[$1] = $2; dispatch[$1] = $3 }
        END { for (name in total) { a += total[name]; b += dispatch[name] } if (a) print a, b }
        ' >"$work/total"
    end_strays
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

# Starts the idle guest; leaves the machine's process in $work/VMM.pid once the guest ran, and that
# of hv's window, if it has one, in $work/view.pid.
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
        comm=$(cat "$dir/comm" 2>/dev/null)
        [ "$comm" = "$name" ] || [ "$comm" = hv-view ] || continue
        tr '\0' '\n' 2>/dev/null <"$dir/environ" | grep -q "^HV_BENCH_TAG=$tag\$" || continue
        if [ "$comm" = hv-view ]; then
            echo "${dir#/proc/}" >"$work/view.pid"
            running="$running ${dir#/proc/}"
        else
            echo "${dir#/proc/}" >"$work/$1.pid"
        fi
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

# Wake-ups a second of each of these processes, over IDLE seconds.
count_wakeups() { # vmm...
    for vmm in "$@"; do
        put "$vmm" before "$(switches "$(cat "$work/$vmm.pid")")"
    done
    sleep "$IDLE"
    for vmm in "$@"; do
        put "$vmm" wakeups "$(awk -v a="$(get "$vmm" before)" -v s="$IDLE" \
            -v b="$(switches "$(cat "$work/$vmm.pid")")" 'BEGIN { printf "%.1f", (b - a) / s }')"
    done
}

end_running() {
    for pid in $running; do
        kill -KILL "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    running=
}

# hv's machine and its window, which shows a still picture. Without Xvfb there is no such row.
measure_window() {
    [ "$HV" != none ] && command -v Xvfb >/dev/null || return 0
    Xvfb -displayfd 3 -nolisten tcp -screen 0 1024x768x24 3>"$work/display" >/dev/null 2>&1 &
    display=$!
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        [ -s "$work/display" ] && break
        sleep 0.5
    done
    [ -s "$work/display" ] || fail "Xvfb does not start"
    DISPLAY=:$(cat "$work/display")
    export DISPLAY
    options=$HV_OPTIONS
    HV_OPTIONS=$(echo "$HV_OPTIONS" | sed 's/--headless//')
    put hv wakeups-still "$(get hv wakeups)"
    start_idle hv
    HV_OPTIONS=$options
    [ -s "$work/view.pid" ] || fail "hv's window did not open: $(cat "$work/err")"
    sleep 4 # until the picture counts as still
    count_wakeups hv view
    end_running
    kill "$display"
    wait "$display" 2>/dev/null
    display=
    put hv wakeups-window "$(get hv wakeups)"
    put hv wakeups-view "$(get view wakeups)"
    put hv wakeups "$(get hv wakeups-still)"
}

# The MMIO kinds last.
kinds="port-write port-read unassigned-write config mmio-writes mmio-reads mmio-nothing"

measure_all_idle() {
    for vmm in $vmms; do
        start_idle "$vmm"
    done
    sleep 1
    for vmm in $vmms; do
        measure_idle "$vmm"
    done
    # shellcheck disable=SC2086
    count_wakeups $vmms
    end_running
    measure_window
}

measure_start() { # vmm
    count=$(instructions "$1" first) || exit 2
    put "$1" start "${count% *}"
    count=$(ioctls "$1") || exit 2
    put "$1" ioctls "$count"
}

measure_exits() { # vmm
    vmm=$1
    base=$(instructions "$vmm" exits-port-write-0) || exit 2
    for kind in $kinds; do
        if [ "$kind" = mmio-writes ] && [ "$vmm" = qemu ]; then
            irqchip="split"
            base=$(instructions "$vmm" exits-mmio-writes-0) || exit 2
        fi
        total=$(instructions "$vmm" "exits-$kind-$COUNT") || exit 2
        each=$(echo "$base $total" | awk -v n=$COUNT -v kind="$kind" '{
            n *= kind == "config" ? 2 : 1
            printf "%.0f %.0f", ($3 - $1) / n, ($4 - $2) / n
        }')
        put "$vmm" "$kind" "${each% *}"
        [ "$vmm" != hv ] || put hv "$kind-dispatch" "${each#* }"
    done
}

# Reads of 4 KiB from the page cache by a guest that polls, DEPTH in flight: instructions for each,
# and how long they take, in turns, so that what else the host does hits all alike.
ROUNDS=${ROUNDS:-5}
READS=20000
ticks() { # vmm rom
    # shellcheck disable=SC2046
    timeout 120 $(command_of "$1" "$roms/$2.rom") </dev/null 2>/dev/null |
        sed -n 's/.*ticks \([0-9]*\) K.*/\1/p'
}

median() {
    sort -n | awk '{ v[NR] = $1 } END { print NR ? v[int((NR + 1) / 2)] : "-" }'
}

measure_disk() {
    disk=$work/disk.img
    head -c 67108864 /dev/zero >"$disk" || fail "no room for a disk of 64 MiB"
    [ "$QEMU" = none ] || vmms="$vmms microvm"
    for depth in 1 32; do
        for vmm in $vmms; do
            base=$(instructions "$vmm" "blk-$depth-0") || exit 2
            total=$(instructions "$vmm" "blk-$depth-$READS") || exit 2
            put "$vmm" "read-$depth" "$(echo "$base $total" |
                awk -v n=$READS '{ printf "%.0f", ($3 - $1) / n }')"
        done
        round=0
        while [ $round -lt "$ROUNDS" ]; do
            round=$((round + 1))
            for vmm in $vmms; do
                ticks "$vmm" "blk-$depth-$READS" >>"$work/$vmm.ticks-$depth"
                fast=io_uring
                [ "$vmm" = hv ] || ticks "$vmm" "blk-$depth-$READS" >>"$work/$vmm.ticks-fast-$depth"
                fast=
            done
        done
        for vmm in $vmms; do
            put "$vmm" "time-$depth" "$(median <"$work/$vmm.ticks-$depth")"
            put "$vmm" "fast-$depth" "$(get "$vmm" "time-$depth")"
            [ "$vmm" = hv ] || put "$vmm" "fast-$depth" "$(median <"$work/$vmm.ticks-fast-$depth")"
        done
    done
    disk=
}

# A TCP connection between guest and host through the user-mode network: instructions and system
# calls of the machine and its network for each KiB. A copy by `rep movsb` would count as an
# instruction for each byte, others as one for 32 bytes: the tunable makes all of them alike.
NET_MIB=16
system_calls() { # vmm rom
    echo "$input" >"$work/in"
    # shellcheck disable=SC2046
    timeout 300 strace -f -qq -c -e signal=none -o "$work/calls" \
        $(command_of "$1" "$roms/$2.rom") <"$work/in" >"$work/out" 2>"$work/err"
    end_strays
    grep -q ticks "$work/out" || fail "$1: the guest says: $(cat "$work/out" "$work/err")"
    awk '$NF == "total" { print $4 }' "$work/calls"
}

measure_way() { # send or receive, what the guest does
    for vmm in $vmms; do
        case $vmm in floor | microvm) continue ;; esac
        for mib in 0 $NET_MIB; do
            input="$1 $(cat "$work/port") $mib"
            total=$(instructions "$vmm" net) || exit 2
            put "$vmm" "instructions-$mib" "${total% *}"
            total=$(system_calls "$vmm" net) || exit 2
            put "$vmm" "calls-$mib" "$total"
        done
        for what in instructions calls; do
            put "$vmm" "$1-$what" "$(echo "$(get "$vmm" $what-0)" "$(get "$vmm" $what-$NET_MIB)" |
                awk -v kib=$((NET_MIB * 1024)) '{ printf "%.4g", ($2 - $1) / kib }')"
        done
    done
    input=
}

measure_network() {
    GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=1000000000
    export GLIBC_TUNABLES
    network=yes
    for ways in send:receive receive:send; do
        rm -f "$work/port"
        "$build/tests/bench/peer" ${ways#*:} >"$work/port" &
        running="$running $!"
        until [ -s "$work/port" ]; do sleep 0.1; done
        measure_way ${ways%:*}
        end_running
    done
    network=
    unset GLIBC_TUNABLES
}

# What is allowed where a share of what QEMU has is.
share() { # metric divisor
    get qemu "$1" | awk -v n="$2" '{ print $1 == "-" ? "-" : int($1 / n) }'
}

. "$(dirname "$0")/qcow2.sh"
. "$(dirname "$0")/login.sh"

for part in $PARTS; do
    case $part in
    idle) measure_all_idle ;;
    start) for vmm in $vmms; do measure_start "$vmm"; done ;;
    exits) for vmm in $vmms; do measure_exits "$vmm"; done ;;
    disk) measure_disk ;;
    qcow2) measure_qcow2 ;;
    network) measure_network ;;
    login) measure_login ;;
    *) fail "PARTS: there is no $part" ;;
    esac
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
        -v microvm="$(get microvm "$2")" \
        -v budget="$3" -v verdict="$verdict" '
        function ratio(a, b) {
            return a == "-" || b == "-" || b + 0 == 0 ? "-" : sprintf("%.3g", a / b)
        }
        BEGIN {
            printf "%-42s %11s %11s %11s %11s %9s %9s %10s  %s\n", name, hv, floor, qemu, microvm,
                ratio(hv, floor), ratio(hv, qemu), budget, verdict
        }'
}

printf '%-42s %11s %11s %11s %11s %9s %9s %10s\n' '' hv floor 'QEMU q35' microvm hv/floor hv/q35 \
    budget
row 'start and exit, user instructions' start 1500000
row 'ioctls before the first guest instruction' ioctls 60
row 'shared libraries' libraries 8
row 'minor faults' faults -
row 'resident above guest RAM, KiB' rss 4096
row 'threads' threads -
row 'wake-ups a second, idle guest' wakeups 0
if [ -n "$(get hv wakeups-window | tr -d -)" ]; then
    row 'the same with a still window' wakeups-window 2
    row "the window's own" wakeups-view -
fi
row 'port write, dispatch, instructions' port-write-dispatch 150
row '  whole, with ioctl and device' port-write -
row 'port read, dispatch' port-read-dispatch 150
row '  whole' port-read -
row 'MMIO write, dispatch' mmio-writes-dispatch 120
row '  whole' mmio-writes -
row 'MMIO read, dispatch' mmio-reads-dispatch 120
row '  whole' mmio-reads -
row 'port write to nothing, whole' unassigned-write -
row 'MMIO read of nothing, whole' mmio-nothing -
row 'configuration access (CF8, CFC), whole' config -
row 'read of 4 KiB, 32 in flight, instructions' read-32 600
row 'read of 4 KiB, one in flight, instructions' read-1 1200
row '20000 reads, 32 in flight, K ticks' time-32 -
row '  floor polls, QEMU has io_uring' fast-32 -
row '20000 reads, one in flight, K ticks' time-1 -
row '  floor polls, QEMU has io_uring' fast-1 -
row 'TCP from the guest, instructions a KiB' send-instructions "$(share send-instructions 2)"
row '  system calls a KiB' send-calls -
row 'TCP to the guest, instructions a KiB' receive-instructions "$(share receive-instructions 2)"
row '  system calls a KiB' receive-calls -
case " $PARTS " in *" qcow2 "*) show_qcow2 ;; esac
case " $PARTS " in *" login "*) show_login ;; esac
exit $over
