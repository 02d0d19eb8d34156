# The part `qcow2` of bench.sh, which sources this: disks in qcow2 images beside raw ones, in hv and
# in QEMU's q35 with an iothread. What one request costs is the difference between two runs of the
# same guest, with 20000 requests and with none, each on an image that is made anew: instructions as
# callgrind counts them, and system calls, which strace counts, both of all threads.
#
# DEPTHS     how many requests are in flight (default 32)
# KINDS      what is measured (default all, see below)
# shellcheck shell=sh disable=SC2034,SC2154
DEPTHS=${DEPTHS:-32}

# Guest, and what it has as disk.
KINDS=${KINDS:-raw-read raw-write read write first over-raw over-qcow2 raw-large large}
qcow2_guest() {
    case $1 in
    *write) echo blk-write ;;
    first) echo blk-first ;;
    *large) echo blk-large ;;
    *) echo blk ;;
    esac
}

image() {
    "$HV" image "$@" >/dev/null || fail "hv image $* did not work"
}

# What the images are made of: 64 MiB of data, also in clusters of which none follows the one before,
# which a guest has written in no order.
make_sources() {
    head -c 67108864 /dev/urandom >"$work/data.img" || fail "no room for a disk of 64 MiB"
    image convert "$work/data.img" "$work/data.qcow2"
    image create "$work/mixed.qcow2" 64M
    disk=$work/mixed.qcow2
    ticks hv blk-write-32-20000 >/dev/null
}

make_disk() { # kind
    rm -f "$work"/disk.*
    format=qcow2
    case $1 in
    raw-*)
        format=raw
        cp "$work/data.img" "$work/disk.raw"
        ;;
    read | write) cp "$work/data.qcow2" "$work/disk.qcow2" ;;
    large) cp "$work/mixed.qcow2" "$work/disk.qcow2" ;;
    first) image create "$work/disk.qcow2" 1280M ;;
    over-raw)
        image create --backing data.img --backing-format raw "$work/disk.qcow2"
        ;;
    over-qcow2)
        image create --backing data.qcow2 --backing-format qcow2 "$work/disk.qcow2"
        ;;
    esac
    disk=$work/disk.$format
}

# How often the last run counted called one of these functions.
called() { # functions
    cat "$work"/callgrind.* | awk -v want=" $1 " '
        /^cfn=/ { name = substr($0, 5); sub(/[@\047].*/, "", name) }
        /^calls=/ && index(want, " " name " ") { split($1, part, "="); sum += part[2] }
        END { print sum + 0 }'
}

measure_kind() { # vmm kind depth
    for count in 0 $READS; do
        make_disk "$2"
        total=$(instructions "$1" "$(qcow2_guest "$2")-$3-$count") || exit 2
        put "$1" "instructions-$count" "${total% *}"
        put "$1" "allocations-$count" "$(called 'malloc calloc realloc posix_memalign')"
        put "$1" "locks-$count" "$(called 'g_mutex_lock pthread_mutex_lock')"
        make_disk "$2"
        total=$(system_calls "$1" "$(qcow2_guest "$2")-$3-$count") || exit 2
        put "$1" "calls-$count" "$total"
    done
    for what in instructions calls allocations locks; do
        put "$1" "$2-$3-$what" "$(echo "$(get "$1" $what-0)" "$(get "$1" "$what-$READS")" |
            awk -v n="$READS" '{ printf "%.4g", ($2 - $1) / n }')"
    done
}

# hv opens what an image lies on with openat2, which valgrind does not know, unless it trusts the name.
measure_qcow2() {
    [ "$HV" != none ] || fail "the part qcow2 needs hv, which makes its images"
    options=$HV_OPTIONS
    HV_OPTIONS="$HV_OPTIONS --trust-backing"
    make_sources
    for depth in $DEPTHS; do
        for kind in $KINDS; do
            for vmm in $vmms; do
                case $vmm in hv | qemu) measure_kind "$vmm" "$kind" "$depth" ;; esac
            done
        done
    done
    HV_OPTIONS=$options
    disk=
    format=
}

# At most half of what QEMU has, and of clusters that are there 1.3 times what a raw disk has.
qcow2_budget() { # metric raw-metric
    echo "$(get qemu "$1")" "$(get hv "${2:-none}")" | awk '{
        budget = $1 == "-" ? "-" : $1 / 2
        if ($2 != "-" && (budget == "-" || $2 * 1.3 < budget)) budget = $2 * 1.3
        print budget }'
}

qcow2_row() { # name kind depth raw-kind
    [ "$(get hv "$2-$3-instructions")" != - ] || return 0 # not one of KINDS
    row "$1, instructions" "$2-$3-instructions" \
        "$(qcow2_budget "$2-$3-instructions" "${4:+$4-$3-instructions}")"
    row '  system calls' "$2-$3-calls" "$(qcow2_budget "$2-$3-calls")"
    [ -z "${4:-}" ] || row '  allocations' "$2-$3-allocations" 0.01
    [ -z "${4:-}" ] || row '  locks' "$2-$3-locks" "$([ "$3" = 1 ] && echo - || echo 1)"
}

show_qcow2() {
    for depth in $DEPTHS; do
        echo "4 KiB, $depth in flight:"
        qcow2_row 'raw, read' raw-read "$depth"
        qcow2_row 'raw, write' raw-write "$depth"
        qcow2_row 'qcow2, read' read "$depth" raw-read
        qcow2_row 'qcow2, write' write "$depth" raw-write
        qcow2_row 'qcow2, first write to a cluster' first "$depth"
        qcow2_row 'qcow2 over raw, read below' over-raw "$depth"
        qcow2_row 'qcow2 over qcow2, read below' over-qcow2 "$depth"
        echo "64 KiB, $depth in flight:"
        qcow2_row 'raw, read' raw-large "$depth"
        qcow2_row 'qcow2, read of two clusters' large "$depth"
    done
}
