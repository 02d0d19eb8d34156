#!/bin/bash
# one-command.sh KERNEL CPU: hv test --kernel hands on what a command prints and its status, on a root
# file system of its own making, on a folder, and on an initrd.
kernel=$1 cpu=$2

# gives STATUS TEXT WORD...: what is printed, and the status.
gives() {
    local status=0 wanted=$1 text=$2
    shift 2
    "$HV" test --kernel "$kernel" --cpu "$cpu" --memory 256M --cpus 1 --append quiet "$@" >out 2>errors || status=$?
    [ $status = "$wanted" ] && [ "$(cat out)" = "$text" ] && return
    echo "$*: status $status: $(cat out) $(tail -3 errors)"
    exit 1
}
gives 42 'ok 1 Linux' --ktap -- 'echo "ok 1 $(uname -s)"; exec sh -c "exit 42"'

# A shell with its libraries, and a file that only the folder has.
mkdir root
ldd /bin/sh | grep -o '/[^ ]*' | xargs cp -L --parents -t root /bin/sh
echo 'from the folder' >root/note
gives 7 'from the folder' --root root -- /bin/sh -c 'read -r line </note; echo "$line"; exit 7'

(cd root && echo 'from the initrd' >note && find . | cpio -o -H newc --quiet >../root.cpio)
gives 0 'from the initrd' --initrd root.cpio -- /bin/sh -c 'read -r line </note; echo "$line"'

# Again and again: a test point for each time.
"$HV" test --kernel "$kernel" --cpu "$cpu" --memory 256M --cpus 1 --append quiet --repeat 3 -j 2 -- 'echo again' >out &&
    [ "$(grep -c '^ok [123] - echo again' out)" = 3 ] && [ "$(cat hv-test/command*/output.txt | grep -c '^again')" = 3 ] ||
    { cat out; exit 1; }
! "$HV" test --kernel "$kernel" --cpu "$cpu" --memory 256M --cpus 1 --append quiet --until-fail -- 'echo no; exit 3' >out &&
    grep -qx '# no' out && grep -q '^# 1 runs, 1 failed' out || { cat out; exit 1; }
