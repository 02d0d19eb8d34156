#!/bin/bash
# vhost-threads.sh COUNT: so many threads of the kernel serve the machine: each is named after that of the
# machine which asked for it.
pid=$("$HV" info "$HV_MACHINE" | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')
names=$(ls "/proc/$pid/task" | tr '\n' '|')
threads=$(cat /proc/[0-9]*/comm "/proc/$pid/task/"*/comm 2>/dev/null | grep -cxE "vhost-(${names%|})")
[ "$threads" = "$1" ] || { echo "$threads threads, not $1"; exit 1; }
