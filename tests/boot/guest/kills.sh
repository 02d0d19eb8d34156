#!/bin/sh
# kills.sh: in the guest of images/linux-shell.sh with the disk of images/linux-fio.sh on /mnt, until /tmp/stop
# is there: fio, one verified run after the other; a flood of pings, each sent when the one before is answered
# (or after a second); ten pings a second, whose gaps tell how long the network was gone; and a picture that
# changes.
# kills.sh KILLS GAP: ends all of it; fio has found no error, pings were lost no more than so many kills explain, and
# at most GAP of the ten a second in a row.
if [ $# = 0 ]; then
    (
        while [ ! -e /tmp/stop ]; do
            /mnt/ld.so --library-path /mnt/lib /mnt/fio --name=kills --filename=/dev/vda --direct=1 --thread \
                --ioengine=libaio --rw=randrw --bsrange=4k-64k --size=1m --iodepth=16 --verify=crc32c --do_verify=1 \
                --verify_fatal=1 --eta=never --minimal --output=/tmp/out || { cp /tmp/out /tmp/bad; break; }
            echo >>/tmp/runs
        done
    ) >/dev/null 2>&1 &
    echo $! >/tmp/fio
    ping -A -q 10.0.2.2 >/tmp/flood 2>&1 &
    echo $! >/tmp/pids
    ping -i 0.1 10.0.2.2 >/tmp/pings 2>&1 &
    echo $! >>/tmp/pids
    while [ ! -e /tmp/stop ]; do uptime >/dev/tty0; sleep 0.5; done 2>/dev/null &
    exit
fi

gone() { while [ -d "/proc/$1" ]; do sleep 0.1; done; }

kill -INT $(cat /tmp/pids)
for pid in $(cat /tmp/pids); do gone "$pid"; done
touch /tmp/stop
gone "$(cat /tmp/fio)"
[ ! -e /tmp/bad ] || { cat /tmp/bad; exit 1; }
echo "$(wc -l </tmp/runs) runs of fio without an error"
set -- "$@" $(sed -n 's/^\([0-9]*\) packets transmitted, \([0-9]*\) packets received.*/\1 \2/p' /tmp/flood)
echo "$3 pings of the flood, $(($3 - $4)) without an answer"
# What was on its way, and what was sent while nobody was there.
[ "$4" -gt $(($1 * 10)) ] && [ $(($3 - $4)) -le $(($1 * 2)) ] || exit
sed -n 's/.* seq=\([0-9]*\) .*/\1/p' /tmp/pings |
    awk -v limit="$2" 'NR > 1 && $1 - last > most { most = $1 - last } { last = $1 }
        END { print NR " pings at ten a second, at most " most - 1 " in a row without an answer"; exit most - 1 > limit }'
