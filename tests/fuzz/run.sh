#!/bin/bash
# run.sh SECONDS [CLASS]: runs the fuzzer of every device class, or of one, for SECONDS each.
#
# BUILD (build-fuzz) has them: CC=clang meson setup build-fuzz -Dfuzz=true
#   -Db_sanitize=address,undefined -Db_lundef=false (./dev fuzz does that). What a fuzzer finds worth
# keeping goes to BUILD/corpus/CLASS and is where the next run goes on; the seeds in corpus/ beside
# this script are read only. The first crash ends everything, with the input that leads to it.
set -u
here=$(dirname "$(readlink -f "$0")")
cd "$here/../.." || exit
build=${BUILD:-build-fuzz}
seconds=${1:-}
class=${2:-}
if ! [[ $seconds =~ ^[1-9][0-9]*$ ]]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
fi

fuzzers=()
for fuzzer in "$build"/tests/fuzz/fuzz-${class:-*}; do
    [ -f "$fuzzer" ] && [ -x "$fuzzer" ] && fuzzers+=("$fuzzer")
done
if [ ${#fuzzers[@]} = 0 ]; then
    echo "fuzz: no fuzzer${class:+ of $class} is in $build/tests/fuzz" >&2
    exit 2
fi

export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}
crashes=$build/crashes
mkdir -p "$crashes"
printf '%-14s %10s %8s %9s %8s\n' class exec/s inputs coverage 'MiB'
for fuzzer in "${fuzzers[@]}"; do
    name=${fuzzer##*/fuzz-}
    found=$build/corpus/$name seeds=tests/fuzz/corpus/$name log=$build/fuzz-$name.log
    mkdir -p "$found"
    [ -d "$seeds" ] || seeds=
    "$fuzzer" -max_total_time="$seconds" -timeout=10 -print_final_stats=1 -verbosity=1 \
        -artifact_prefix="$crashes/$name-" "$found" ${seeds:+"$seeds"} >"$log" 2>&1
    status=$?
    awk -v name="$name" '
        /^stat::average_exec_per_sec/ { speed = $2 }
        /^stat::peak_rss_mb/ { memory = $2 }
        / cov: [0-9]+ / { for (i = 1; i < NF; i++) if ($i == "cov:") coverage = $(i + 1) }
        / corp: / { for (i = 1; i < NF; i++) if ($i == "corp:") { split($(i + 1), c, "/"); inputs = c[1] } }
        END { printf "%-14s %10s %8s %9s %8s\n", name, speed, inputs, coverage, memory }' "$log"
    if [ $status != 0 ]; then
        echo
        grep -nE -m1 -A12 'ERROR: |runtime error:|^ERROR' "$log"
        input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
        echo
        echo "fuzz: $name failed (status $status); the whole log is $log"
        [ -z "$input" ] || echo "fuzz: again: $fuzzer $input"
        exit 1
    fi
done
