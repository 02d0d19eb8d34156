#!/bin/bash
# image.sh HV: hv image, with qemu-img as the judge, as TAP. No machine is started, so no KVM is needed.
set -u
HV=$(readlink -f "$1")
work=$(mktemp -d /var/tmp/hv-image.XXXXXX)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit
export XDG_RUNTIME_DIR=$work LC_ALL=C

: >said
n=0
# test NAME COMMAND...: the command succeeds.
test() {
    local name=$1
    shift
    n=$((n + 1))
    if "$@" >out 2>&1; then
        echo "ok $n - $name"
    else
        sed 's/^/# /' out
        echo "not ok $n - $name"
    fi
}
# refuses PATTERN ARGUMENTS...: hv image says so, ends with a status that is not 0, and makes no file.
refuses() {
    local pattern=$1 before status=0
    shift
    before=$(echo *)
    "$HV" image "$@" >said 2>&1 || status=$?
    [ $status != 0 ] && grep -qE -- "$pattern" said && [ "$(echo *)" = "$before" ] && return
    echo "status $status: $(cat said)"
    return 1
}
same() { qemu-img compare "$@"; }
right() { qemu-img check -q "$1" && "$HV" image check "$1"; }
field() { "$HV" image info --json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$2"; }
is() { [ "$(field "$1" "$2")" = "$3" ] || { field "$1" "$2"; return 1; }; }

# A disk with data, holes, and zeros that are written.
truncate -s 24M disk.img
dd if=/dev/urandom of=disk.img bs=64k count=50 seek=16 conv=notrunc status=none
dd if=/dev/zero of=disk.img bs=64k count=16 seek=100 conv=notrunc status=none
dd if=/dev/urandom of=disk.img bs=512 count=3 seek=49149 conv=notrunc status=none

for format in qcow2 vdi vpc:vhd vhdx vmdk; do
    theirs=${format%:*} ours=${format#*:}
    size=()
    [ "$theirs" != vpc ] || size=(-o force_size=on) # not what cylinders make of it
    qemu-img convert -O "$theirs" "${size[@]}" disk.img "disk.$theirs"
    test "$ours: its format is seen" is "disk.$theirs" format "$ours"
    test "$ours: its size is right" is "disk.$theirs" size 25165824
    test "$ours: converted to raw" "$HV" image convert "disk.$theirs" back.raw --force
    test "$ours: the same as before" same -f raw disk.img -F raw back.raw
    test "$ours: converted to qcow2" "$HV" image convert "disk.$theirs" back.qcow2 --force
    test "$ours: the same again" same -f raw disk.img -F qcow2 back.qcow2
    test "$ours: a right image" right back.qcow2
done
for compression in zlib zstd; do
    qemu-img convert -c -O qcow2 -o compression_type=$compression disk.img packed.qcow2
    test "$compression: converted" "$HV" image convert packed.qcow2 back.raw --force
    test "$compression: the same" same -f raw disk.img -F raw back.raw
done
for options in '--compress' '--compression zstd' '--compress --cluster 4K' '--compress --cluster 2M' \
    '--compress --cluster 512'; do
    test "convert $options" "$HV" image convert $options disk.img packed-here.qcow2 --force
    test "convert $options: the same" same -f raw disk.img -F qcow2 packed-here.qcow2
    test "convert $options: right" right packed-here.qcow2
done
# Text, which gets smaller.
{ head -c 512 /dev/zero; seq 3000000 | head -c $((16384 * 1024 - 512)); } >text.img
for compression in zlib zstd; do
    "$HV" image convert --compression $compression text.img text.qcow2 --force
    qemu-img convert -c -O qcow2 -o compression_type=$compression text.img theirs.qcow2
    test "$compression: the same text" same -f raw text.img -F qcow2 text.qcow2
    test "$compression: a right image of it" right text.qcow2
    test "$compression: as small as others make it" [ "$(stat -c %s text.qcow2)" -le \
        $(($(stat -c %s theirs.qcow2) * 101 / 100)) ]
    qemu-io -c 'write -P 7 1M 300k' -c 'discard 2M 1M' text.qcow2 >/dev/null
    qemu-img convert -O raw text.qcow2 text.raw
    test "$compression: written to" right text.qcow2
    test "$compression: and read again" "$HV" image convert text.qcow2 back.raw --force
    test "$compression: as it was written" cmp text.raw back.raw
done
test 'raw is not compressed' refuses 'cannot compress a raw' convert --compress text.qcow2 text.raw

# A conversion that is killed leaves no half file, and nothing else.
killed() {
    local i pid names
    rm -f kill.qcow2
    names=$(echo *)
    for i in $(seq 15); do
        "$HV" image convert --compress text.img kill.qcow2 &
        pid=$!
        sleep "0.0$((RANDOM % 60 + 10))"
        kill -KILL $pid 2>/dev/null
        wait $pid
        if [ -e kill.qcow2 ]; then
            same -f raw text.img -F qcow2 kill.qcow2 || return
            rm kill.qcow2
        fi
        [ "$(echo *)" = "$names" ] || return
    done
}
test 'convert: killed at any moment' killed

test 'blocks of zeros take no room' [ "$(du -k back.qcow2 | cut -f1)" -lt 4000 ]

test 'a disk is made' "$HV" image create new.qcow2 1G
test 'it is right' right new.qcow2
test 'it is as large' is new.qcow2 size 1073741824
test 'it has other clusters' "$HV" image create --cluster 4K small.qcow2 64M
test 'which are seen' is small.qcow2 cluster 4096
test 'an overlay is made' "$HV" image create top.qcow2 --backing back.qcow2
test 'it shows what it lies on' same disk.img top.qcow2
qemu-io -c 'write -P 7 1M 300k' -c 'write -z 5M 64k' -c 'write -P 9 23M 4k' top.qcow2 >/dev/null
qemu-img convert -O raw top.qcow2 expected.raw
test 'the map names both' python3 - "$HV" <<'END'
import json, subprocess, sys
pieces = json.loads(subprocess.check_output([sys.argv[1], 'image', 'map', '--json', 'top.qcow2']))
assert {p['depth'] for p in pieces if not p['zero']} == {0, 1}, pieces
theirs = json.loads(subprocess.check_output(['qemu-img', 'map', '--output=json', 'top.qcow2']))
def data(list):
    return [b for p in list if not p['zero'] for b in range(p['start'] // 512, (p['start'] + p['length']) // 512)]
assert set(data(theirs)) <= set(data(pieces)) # which looks for holes in the file as well
END
test 'it is committed' "$HV" image commit top.qcow2
test 'what is below has it' same expected.raw back.qcow2
test 'what is above is empty' is top.qcow2 allocated "$(field new.qcow2 allocated)"
test 'and shows the same' same expected.raw top.qcow2

# In another folder, by a link, with its rights, from elsewhere.
mkdir -p far/inner
"$HV" image create far/inner/base.qcow2 1M
qemu-img create -q -f qcow2 -b inner/base.qcow2 -F qcow2 -o cluster_size=4k far/top.qcow2
chmod 600 far/top.qcow2
ln -s top.qcow2 far/link.qcow2
qemu-io -c 'write -P 5 64k 64k' far/top.qcow2 >/dev/null
qemu-img convert -O raw far/top.qcow2 expected-far.raw
test 'one in a folder is committed' "$HV" image commit far/top.qcow2
test 'and lies on the same still' same expected-far.raw far/top.qcow2
test 'which has the data' same expected-far.raw far/inner/base.qcow2
test 'its rights are what they were' [ "$(stat -c %a far/top.qcow2)" = 600 ]
test 'its clusters too' is far/top.qcow2 cluster 4096
test 'by the link' "$HV" image commit far/link.qcow2
test 'that is there still' [ -L far/link.qcow2 ]
qemu-img snapshot -c one far/top.qcow2
test 'snapshots are not lost' refuses 'has snapshots' commit far/top.qcow2
test 'they are told' is far/top.qcow2 'snapshot 1' one

# Bases that are longer, shorter, and like one another in some places only.
head -c 20M disk.img >short.img
dd if=/dev/urandom of=short.img bs=64k count=20 seek=30 conv=notrunc status=none
cp disk.img long.img
truncate -s 40M long.img
dd if=/dev/urandom of=long.img bs=64k count=30 seek=400 conv=notrunc status=none
qemu-img convert -O qcow2 long.img long.qcow2
# rebased OPTIONS FROM TO...: an overlay of 32 MiB over FROM shows the same over each TO in turn.
rebased() {
    local options=$1 from=$2 to
    shift 2
    qemu-img create -q -f qcow2 -o "$options" -b "$from" -F "$(kind "$from")" re.qcow2 32M
    qemu-io -c 'write -P 7 1M 300k' -c 'write -z 5M 128k' -c 'write -P 9 23M 4k' re.qcow2 >/dev/null
    qemu-img convert -O raw re.qcow2 before.raw
    for to; do
        "$HV" image rebase re.qcow2 --backing "$to" || return
        right re.qcow2 && same -f raw before.raw -F qcow2 re.qcow2 || return
        [ "$to" = none ] || is re.qcow2 backing "$to" >/dev/null ||
            qemu-img info re.qcow2 | grep -qF "backing file: $to" || return
    done
}
kind() { case $1 in *.qcow2) echo qcow2 ;; *) echo raw ;; esac }
for options in compat=1.1 compat=0.10 cluster_size=512 cluster_size=4k \
    cluster_size=2M,extended_l2=on compression_type=zstd; do
    test "rebase: $options" rebased $options short.img long.qcow2 disk.img none
    test "rebase: $options, another way" rebased $options long.qcow2 short.img none long.img
done
qemu-img create -q -f qcow2 -b long.qcow2 -F qcow2 re.qcow2 32M
qemu-img create -q -f qcow2 -b re.qcow2 -F qcow2 on-re.qcow2
test 'rebase to what is below that' "$HV" image rebase on-re.qcow2 --backing long.qcow2
test 'copies nothing' is on-re.qcow2 allocated "$(field re.qcow2 allocated)"
test 'not on itself' refuses 'cannot lie on itself' rebase long.qcow2 --backing on-re.qcow2
test 'rebase in name only' "$HV" image rebase on-re.qcow2 --unsafe --backing re.qcow2
test 'has that name' grep -q 'backing file: re.qcow2' <(qemu-img info on-re.qcow2)
mv re.qcow2 gone.qcow2
test 'though it is gone' "$HV" image rebase on-re.qcow2 --unsafe --backing gone.qcow2
test 'or is not there yet' "$HV" image rebase on-re.qcow2 --unsafe --backing later.img \
    --backing-format raw
test 'in which format?' refuses 'backing-format' rebase on-re.qcow2 --unsafe --backing later.img
test 'with --unsafe only' refuses 'later.img' rebase on-re.qcow2 --backing gone.qcow2
test 'nothing is lost by that' grep -q 'backing file: later.img' <(qemu-img info on-re.qcow2)
test 'outside: said' grep -q 'outside its folder' \
    <("$HV" image rebase on-re.qcow2 --unsafe --backing "$work/long.img" 2>&1)
test 'a raw image' refuses 'lies on no other' rebase disk.img --backing long.img
test 'on what?' refuses 'or --backing none, is wanted' rebase on-re.qcow2

# Killed at any moment, it shows the same.
qemu-img create -q -f qcow2 -b short.img -F raw re.qcow2 32M
qemu-io -c 'write -P 7 1M 300k' re.qcow2 >/dev/null
qemu-img convert -O raw re.qcow2 before.raw
cp re.qcow2 first.qcow2
killed() {
    local i pid
    for i in $(seq 20); do
        [ $((i % 10)) != 0 ] || cp first.qcow2 re.qcow2
        "$HV" image rebase re.qcow2 \
            --backing "$([ $((i % 2)) = 0 ] && echo short.img || echo long.qcow2)" &
        pid=$!
        sleep "0.0$((RANDOM % 60 + 10))"
        kill -KILL $pid 2>/dev/null
        wait $pid
        same -f raw before.raw -F qcow2 re.qcow2 || return
    done
    "$HV" image rebase re.qcow2 --backing long.qcow2 && right re.qcow2 &&
        same -f raw before.raw -F qcow2 re.qcow2
}
test 'rebase: killed at any moment' killed

test 'an image grows' "$HV" image resize back.qcow2 +8M
test 'its data stay' same expected.raw back.qcow2
test 'it shrinks' "$HV" image resize --shrink back.qcow2 8M
test 'it is right still' right back.qcow2
qemu-io -c 'write -P 0 0 4M' new.qcow2 >/dev/null
full=$(du -k new.qcow2 | cut -f1)
qemu-img create -q -f qcow2 -o compat=0.10 -b short.img -F raw old.qcow2 8M
test 'an old image on another one grows' "$HV" image resize old.qcow2 24M
{ head -c 8M short.img; head -c 16M /dev/zero; } >expected.raw
test 'and shows nothing of that there' same -f raw expected.raw -F qcow2 old.qcow2
test 'it is right too' right old.qcow2
qemu-img snapshot -c one old.qcow2
test 'one with snapshots' refuses 'qemu-img amend -o compat=1.1' resize old.qcow2 32M
qemu-img amend -o compat=1.1 old.qcow2
test 'which helps' "$HV" image resize old.qcow2 32M
test 'zeros are given back' "$HV" image compact new.qcow2
test 'the file is smaller' [ "$(du -k new.qcow2 | cut -f1)" -lt $((full - 3000)) ]
test 'and right' right new.qcow2

# The refcount of a cluster that is in use, set to 0, by way of the table at 48 in the header.
python3 - <<'END'
import struct
with open('packed.qcow2', 'r+b') as f:
    f.seek(48)
    table = struct.unpack('>Q', f.read(8))[0]
    f.seek(table)
    block = struct.unpack('>Q', f.read(8))[0]
    f.seek(block + 2 * 3)
    f.write(b'\0\0')
END
test 'damage is seen' refuses 'is corrupt: --repair' check packed.qcow2
test 'damage is mended' "$HV" image check --repair packed.qcow2
test 'qemu-img agrees' right packed.qcow2
test 'the data are there' same disk.img packed.qcow2

test 'no file' refuses 'nowhere: No such file' info nowhere
test 'no verb' refuses 'there is no verb "inof"; did you mean "info"' inof disk.img
test 'no option' refuses 'unknown option --forse; did you mean --force' convert --forse disk.img x.raw
test 'no size' refuses 'a size such as 512M' create x.raw 12Q
test 'no sector' refuses 'whole sectors' create x.raw 100
test 'too few' refuses 'a file and a size are wanted' create x.raw
test 'there already' refuses 'exists: --force replaces it' convert disk.img back.qcow2
test 'no such format' refuses '"qcow2"' create --format qcow9 x 1M
test 'not to be made' refuses 'hv cannot make a V' create x.vmdk 1M
test 'not to be resized' refuses 'cannot write|cannot resize' resize disk.vdi +1M
test 'loses data' refuses 'would lose its last .*--shrink' resize disk.img -1M
test 'less than nothing' refuses 'bytes only' resize --shrink disk.img -1G
test 'nothing to check' refuses 'nothing to check' check disk.img
test 'lies on nothing' refuses 'lies on no other' commit disk.img
qemu-img create -q -u -f qcow2 -b /etc/passwd -F raw thief.qcow2 1M
test 'the file of somebody else' refuses 'outside its folder' info thief.qcow2
echo "1..$n"
