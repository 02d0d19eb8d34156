#!/bin/sh
# storage.sh DISK CPUS LONG: fio on /dev/DISK, in the guest of images/linux-shell.sh with the disk of
# images/linux-fio.sh on /mnt. Every block that is written carries a check sum, which is read back.
# With one CPU sizes of blocks, with several the ways to ask; with LONG (1) all, and four times the data.
disk=$1 cpus=$2 long=$3

# mib N: that many, or more.
mib() { echo $(($1 * (1 + 3 * long)))m; }

tool() {
    program=$1
    shift
    /mnt/ld.so --library-path /mnt/lib "/mnt/$program" "$@"
}

job() {
    tool fio --filename="/dev/$disk" --direct=1 --thread --ioengine=libaio --do_verify=1 --verify_fatal=1 \
        --eta=never --minimal --output=/tmp/out "$@" && return
    echo "fio $*"
    cat /tmp/out
    exit 1
}

# zeroes FROM COUNT: these MiB of the disk read as zeroes.
zeroes() {
    [ "$(dd if="/dev/$disk" bs=1M skip="$1" count="$2" iflag=direct 2>/dev/null | tr -d '\0' | wc -c)" = 0 ] && return
    echo "what should be zeroes is not, from MiB $1"
    exit 1
}

# Sizes of blocks and kinds of check sums.
sizes() {
    job --name=small --rw=randwrite --bs=4k --size="$(mib 1)" --iodepth=32 --verify=crc32c
    job --name=large --rw=write --bs=1m --size="$(mib 16)" --iodepth=4 --verify=md5
    job --name=mixed --rw=randrw --bsrange=4k-64k --size="$(mib 2)" --iodepth=8 --verify=sha1 --fsync=16
    job --name=meta --rw=randwrite --bs=16k --size="$(mib 2)" --iodepth=8 --verify=pattern \
        --verify_pattern=0xdeadbeef
    job --name=sync --rw=randwrite --bs=4k --size=128k --ioengine=psync --fdatasync=4 --verify=crc64
}

# Ways to ask, depths of queues, several at a time, and what is no read or write.
modes() {
    job --name=uring --ioengine=io_uring --rw=randrw --bs=4k --size="$(mib 2)" --iodepth=128 --verify=crc32c
    job --name=jobs --numjobs=4 --offset_increment=8m --rw=randwrite --bsrange=512-128k --size="$(mib 1)" \
        --iodepth=16 --verify=crc32c --group_reporting
    job --name=flushed --ioengine=psync --numjobs=2 --offset_increment=8m --rw=randwrite --bs=4k --size=64k \
        --sync=1 --fsync=1 --verify=crc32c
    job --name=trimmed --rw=trimwrite --bs=64k --size="$(mib 2)" --iodepth=4 --verify=crc32c
    job --name=trim --rw=randtrim --bs=64k --size="$(mib 4)" --iodepth=4
    job --name=again --rw=write --bs=256k --size="$(mib 8)" --iodepth=8 --verify=crc32c
    tool blkdiscard -z -o 2097152 -l 4194304 "/dev/$disk" || exit # zeroed, not discarded
    zeroes 2 4
    job --name=again --rw=write --bs=256k --size=2m --verify=crc32c --verify_only
}

if [ "$cpus" = 1 ] || [ "$long" = 1 ]; then sizes; fi
if [ "$cpus" != 1 ] || [ "$long" = 1 ]; then modes; fi
# What is discarded reads as zeroes: hv frees its blocks.
blkdiscard -o 0 -l 16777216 "/dev/$disk" || exit
zeroes 0 16
