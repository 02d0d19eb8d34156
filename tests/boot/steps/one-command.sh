#!/bin/bash
# one-command.sh KERNEL CPU: hv test --kernel hands on what a command prints and its status.
status=0
"$HV" test --kernel "$1" --cpu "$2" --memory 256M --cpus 1 --append quiet --ktap -- \
    'echo "ok 1 $(uname -s)"; exec sh -c "exit 42"' >out 2>errors || status=$?
[ $status = 42 ] && [ "$(cat out)" = 'ok 1 Linux' ] && exit
echo "status $status: $(cat out) $(tail -3 errors)"
exit 1
