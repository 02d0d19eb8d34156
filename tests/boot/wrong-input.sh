#!/bin/bash
# wrong-input.sh HV GUESTS DEMO: what hv says and does when something is wrong, as TAP: each wrong
# input has a message that names the thing and the way out, and the exit status of man/hv.1; dying
# programs harm nobody else. GUESTS: the folder of the test ROMs; DEMO: the demo disk.
# shellcheck disable=SC2016 # single quotes hold scripts for another shell
set -u
HV=$(readlink -f "$1") guests=$(readlink -f "$2") demo=$(readlink -f "$3")

# Statuses, as in src/base/error.h.
FAILED=1 USAGE=2 NOT_FOUND=3 WRONG_STATE=4 HOST=6 CRASHED=7

if [ ! -w /dev/kvm ]; then
    echo '1..0 # SKIP no /dev/kvm here'
    exit
fi
work=$(mktemp -d /tmp/hv-wrong.XXXXXX)
mkdir -m 700 "$work/run"
export XDG_RUNTIME_DIR=$work/run
unset DISPLAY WAYLAND_DISPLAY SDL_VIDEODRIVER
cd "$work" || exit

pids=()
clean_up() {
    local pid
    for name in "$work"/run/hv/*/; do
        "$HV" stop "$(basename "$name")" --kill
    done >/dev/null 2>&1
    for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null; done
    wait 2>/dev/null
    rm -rf "$work"
}
trap clean_up EXIT

# --- TAP --------------------------------------------------------------------------------------

number=0 failed=0
ok() { echo "ok $((number += 1)) - $1"; }
skip() { echo "ok $((number += 1)) - $1 # SKIP $2"; }
not_ok() { # TITLE WHY...
    echo "not ok $((number += 1)) - $1"
    failed=$((failed + 1))
    shift
    printf '%s\n' "$@" | head -n 40 | sed 's/^/# /'
}

# says TITLE STATUS REGEX COMMAND...: the command ends with the status, and its stderr has REGEX.
says() {
    local title=$1 wanted=$2 regex=$3 status
    shift 3
    timeout -k 5 60 "$@" </dev/null >out 2>err
    status=$?
    if [ $status = "$wanted" ] && { [ -z "$regex" ] || grep -Eq -- "$regex" err; }; then
        ok "$title"
    else
        not_ok "$title" "status $status, wanted $wanted; stderr, wanted /$regex/:" "$(cat err)"
    fi
}

# holds TITLE COMMAND...: the command succeeds.
holds() {
    local title=$1
    shift
    if "$@" >held 2>&1; then ok "$title"; else not_ok "$title" "$*: $?" "$(cat held)"; fi
}

# eventually COMMAND...: succeeds within 20 seconds.
eventually() {
    local tries=200
    until "$@"; do
        [ $((tries -= 1)) -gt 0 ] || return 1
        sleep 0.1
    done
}

# --- machines ---------------------------------------------------------------------------------

tiny=(--headless --memory 16M --cpus 1)
idle=("${tiny[@]}" --firmware "$guests/idle.rom")

# start NAME ARGUMENTS...: hv run in the background, until the machine answers; hv's pid in $pid.
start() {
    local name=$1
    shift
    "$HV" run --name "$name" "$@" </dev/null >"$name.out" 2>"$name.err" &
    pid=$!
    pids+=("$pid")
    eventually "$HV" info "$name" >info.out 2>&1
}
is() { "$HV" info "$1" 2>/dev/null | grep -q "\"$2\": \"\?$3\"\?"; } # NAME KEY VALUE
gone() { ! kill -0 "$1" 2>/dev/null; }
vmm_of() { "$HV" info "$1" | sed -n '0,/"pid"/s/.*"pid": \([0-9]*\).*/\1/p'; }
power_off() { "$HV" stop "$1" --kill && wait "$2"; } # NAME PID
# child PID NAME: the process of that name that PID started.
child() {
    local stat
    for stat in /proc/[0-9]*/stat; do
        sed -n "s/^\([0-9]*\) ($2) [A-Z] $1 .*/\1/p" "$stat"
    done 2>/dev/null | head -n 1 | grep .
}

# ends TITLE PID STATUS: the process ends, with that status.
ends() {
    local status
    if ! eventually gone "$2"; then
        not_ok "$1" 'it does not end'
        return
    fi
    wait "$2"
    status=$?
    if [ $status = "$3" ]; then ok "$1"; else not_ok "$1" "status $status, wanted $3"; fi
}

# --- images -----------------------------------------------------------------------------------

truncate -s 1M disk.img
printf '\125\252' | dd of=disk.img bs=1 seek=510 conv=notrunc status=none
: >empty.img
mkdir folder.img
printf 'QFI\373\0\0\0\3' | dd of=disk.qcow2 bs=512 conv=sync status=none
echo 'hello, this is a letter' >letter.txt
cp disk.img secret.img

says 'image missing' $FAILED '^hv: nowhere.img: No such file' "$HV" run --headless nowhere.img
says 'image empty' $USAGE 'empty.img is empty.*truncate -s' "$HV" run --headless empty.img
mkdir conf
conf() { # TITLE STATUS PATTERN LINE: of a machine's directory.
    echo "$4" >conf/vm.conf
    says "vm.conf: $1" "$2" "$3" "$HV" run --headless conf
}
conf 'a wrong name' $USAGE 'conf/vm.conf:1: .*"memry".*did you mean "memory"' 'memry = 1G'
conf 'a wrong value' $USAGE 'conf/vm.conf:1: memory lots: a size such as' 'memory = lots'
conf 'a wrong disk' $FAILED 'conf/none.img: No such file' 'disk = none.img'
says 'image a directory' $USAGE 'folder.img is a directory.*disk or CD image' "$HV" run --headless folder.img
says 'a qcow2 that is none' $FAILED '^hv: disk.qcow2: the header.*its cluster size' \
    "$HV" run --headless disk.qcow2
says 'the same as --disk' $FAILED 'disk.qcow2: the header.*its cluster size' \
    "$HV" run "${idle[@]}" --disk disk.qcow2
says 'image a text' $USAGE 'letter.txt is a text file' "$HV" run --headless letter.txt
says 'image a terminal' $USAGE 'neither a file nor a block device' "$HV" run --headless /dev/zero
says '--cdrom missing' $FAILED '^hv: no.iso: No such file' "$HV" run "${idle[@]}" --cdrom no.iso
if [ "$(id -u)" != 0 ]; then
    chmod 0 secret.img
    may_not=(env)
elif chown 65534 secret.img 2>/dev/null && chmod 600 secret.img &&
    setpriv --bounding-set=-dac_override,-dac_read_search true 2>/dev/null; then
    may_not=(setpriv '--bounding-set=-dac_override,-dac_read_search')
else
    may_not=()
fi
if [ ${#may_not[@]} -gt 0 ]; then
    says 'image unreadable' $FAILED '^hv: secret.img: Permission denied' \
        "${may_not[@]}" "$HV" run --headless secret.img
else
    skip 'image unreadable' 'root, and setpriv cannot take its privilege away'
fi
chmod 444 disk.img
if [ ${#may_not[@]} -gt 0 ] && [ "$(id -u)" != 0 ] || chown 65534 disk.img 2>/dev/null; then
    says 'image not writable' $FAILED 'disk.img: Permission denied.*--throwaway or readonly' \
        "${may_not[@]}" "$HV" run "${idle[@]}" disk.img
    [ "$(id -u)" != 0 ] || chown 0 disk.img
else
    skip 'image not writable' 'root'
fi
chmod 644 disk.img

start holder "${idle[@]}" disk.img
says 'image held by another machine' $WRONG_STATE 'disk.img is in use by machine holder: stop that' \
    "$HV" run "${idle[@]}" --name other disk.img
says 'image held, --throwaway too' $WRONG_STATE 'in use by machine holder' \
    "$HV" run "${idle[@]}" --name other --throwaway disk.img
says 'name taken' $WRONG_STATE 'machine "holder" runs already.*--name' "$HV" run "${idle[@]}" --name holder
holds 'the holder is not harmed' is holder state running
power_off holder "$pid"

# --- options ----------------------------------------------------------------------------------

says 'memory 0' $USAGE '--memory 0: from 1M' "$HV" run "${idle[@]}" --memory 0
says 'memory nonsense' $USAGE '--memory lots: a size such as 512M or 4G' "$HV" run "${idle[@]}" -m lots
says 'memory negative' $USAGE '--memory -1: a size' "$HV" run "${idle[@]}" -m -1
says 'memory larger than possible' $USAGE '--memory 2T: from 1M to' "$HV" run "${idle[@]}" -m 2T
says "memory larger than the host's" $HOST '--memory: this host has [0-9]+ MiB in all' \
    "$HV" run "${idle[@]}" -m 1T
says 'no CPU' $USAGE '--cpus 0: from 1 to 64' "$HV" run "${idle[@]}" --cpus 0
says 'unknown CPU feature' $USAGE 'unknown feature "avx512g"; did you mean "avx512f"' \
    "$HV" run "${idle[@]}" --cpu host,-avx512g
says 'unknown option' $USAGE 'unknown option --memroy; did you mean --memory\?' \
    "$HV" run "${idle[@]}" --memroy 1G
says 'unknown verb' $USAGE 'no verb "rnu"; did you mean "run"' "$HV" rnu
says 'unknown option of a verb' $USAGE 'unknown option --kil; did you mean --kill' "$HV" stop --kil
says 'option without its value' $USAGE '--memory wants a value' "$HV" run --headless --memory
says 'unknown key of --disk' $USAGE '--disk: unknown key "reedonly"; did you mean "readonly"' \
    "$HV" run "${idle[@]}" --disk disk.img,reedonly
says 'an unknown option of its controller' $USAGE 'virtio-blk has no option "pakked"; did you mean "packed"' \
    "$HV" run "${idle[@]}" --disk disk.img,bus=virtio,pakked=on
says 'an option of a disk on AHCI' $USAGE 'a disk on AHCI has no option "packed=on"' \
    "$HV" run "${idle[@]}" --disk disk.img,bus=ahci,packed=on
says 'zeros that are looked for otherwise' $USAGE '"off", "on" or "unmap" is wanted' \
    "$HV" run "${idle[@]}" --disk disk.img,detect-zeroes=yes
says 'a clock that is no time' $USAGE '--clock 12:00: "utc", "local"' \
    "$HV" run "${idle[@]}" --clock 12:00 disk.img
says 'a clock of another age' $USAGE '--clock .8000y: the years 1970 to 9999' \
    "$HV" run "${idle[@]}" --clock +8000y disk.img
says 'a seed that is no number' $USAGE '--volatile foo: a number is wanted' \
    "$HV" run "${idle[@]}" --volatile foo disk.img
says 'a seed of 0' $USAGE '--volatile 0: from 1 to 4294967295' \
    "$HV" run "${idle[@]}" --volatile 0 disk.img
says 'two images' $USAGE 'one IMAGE is enough, "b.img" is too much; --disk' "$HV" run disk.img b.img
says 'unknown device' $USAGE 'debug-exti.*did you mean.*debug-exit' "$HV" run "${idle[@]}" --device debug-exti
says 'a floppy of an odd size' $USAGE '--floppy disk.img: 1048576 bytes: floppies have 160' \
    "$HV" run "${idle[@]}" --floppy disk.img
says 'a third floppy' $USAGE '--floppy: at most 2' \
    "$HV" run "${idle[@]}" --floppy none --floppy none --floppy none
says 'a floppy as --disk' $USAGE 'bus=floppy: for a floppy drive there is --floppy FILE' \
    "$HV" run "${idle[@]}" --disk disk.img,bus=floppy
says 'an fdc as --device' $USAGE 'comes with its drives: --floppy' "$HV" run "${idle[@]}" --device fdc
says 'an hpet as --device' $USAGE 'of its own: --hpet' "$HV" run "${idle[@]}" --device hpet
says 'unknown key of --device' $USAGE 'debug-exit.*colour' \
    "$HV" run "${idle[@]}" --device debug-exit,colour=red
says 'unknown thing to trace' $USAGE 'prots' "$HV" run "${idle[@]}" --trace prots
says 'wrong --boot' $USAGE '--boot tape: "tape"' "$HV" run "${idle[@]}" --boot tape
says 'wrong --name' $USAGE '--name \.\./x: up to 40 letters' "$HV" run "${idle[@]}" --name ../x
says 'wrong --serial' $FAILED '--serial /nowhere/log: No such file' "$HV" run "${idle[@]}" --serial /nowhere/log
head -c 1000 /dev/zero >odd.rom
says 'ROM of a wrong size' $FAILED '--firmware odd.rom: 1000 bytes: a ROM image has 64 KiB' \
    "$HV" run "${tiny[@]}" --firmware odd.rom
head -c 66000 /dev/zero >odd.rom
says 'ROM of no whole pages' $FAILED 'odd.rom: 66000 bytes.*whole 4 KiB' \
    "$HV" run "${tiny[@]}" --firmware odd.rom
says 'ROM missing' $FAILED '--firmware no.rom: No such file' "$HV" run "${tiny[@]}" --firmware no.rom

# --- kernels ----------------------------------------------------------------------------------

direct=("${tiny[@]}" --device debug-exit)
truncate -s 7M large.img
head -c 700 "$guests/linux-64.bz" >cut.bz
head -c 100 "$guests/kernel.elf" >cut.elf
says '--initrd without a kernel' $USAGE '--initrd is for a kernel: --kernel FILE' \
    "$HV" run "${tiny[@]}" --initrd disk.img disk.img
says '--append without a kernel' $USAGE '--append is for a kernel' \
    "$HV" run "${tiny[@]}" --append quiet disk.img
says '--multiboot without a kernel' $USAGE '--multiboot is for a kernel' \
    "$HV" run "${tiny[@]}" --multiboot disk.img
says '--kernel with --firmware' $USAGE '--firmware: a kernel is started without firmware' \
    "$HV" run "${idle[@]}" --kernel "$guests/kernel.elf"
says '--kernel with --boot' $USAGE '--boot: a kernel is started without firmware' \
    "$HV" run "${tiny[@]}" --boot cd --kernel "$guests/kernel.elf"
says '--kernel missing' $FAILED '--kernel nowhere: No such file' "$HV" run "${direct[@]}" --kernel nowhere
says '--kernel a directory' $USAGE '--kernel folder.img: a file is wanted, this is a directory' \
    "$HV" run "${direct[@]}" --kernel folder.img
says '--kernel a terminal' $USAGE '--kernel /dev/zero: a file is wanted' \
    "$HV" run "${direct[@]}" --kernel /dev/zero
says '--kernel empty' $USAGE 'empty.img is empty' "$HV" run "${direct[@]}" --kernel empty.img
says '--kernel a text' $USAGE 'letter.txt is no kernel that hv can start' \
    "$HV" run "${direct[@]}" --kernel letter.txt
says '--kernel a disk' $USAGE 'disk.img is no kernel' "$HV" run "${direct[@]}" --kernel disk.img
says '--kernel cut off' $USAGE 'cut.bz is cut off' "$HV" run "${direct[@]}" --kernel cut.bz
says '--kernel an ELF cut off' $USAGE 'cut.elf is cut off' "$HV" run "${direct[@]}" --kernel cut.elf
says '--kernel a program' $USAGE '/bin/true is an ELF file, but no kernel' \
    "$HV" run "${direct[@]}" --kernel /bin/true
says '--multiboot and no such header' $USAGE 'has no multiboot header' \
    "$HV" run "${direct[@]}" --multiboot "$guests/linux-64.bz"
says 'a multiboot kernel without --multiboot' $USAGE '--multiboot starts it' \
    "$HV" run "${direct[@]}" --kernel "$guests/kernel-flat.bin"
says '--initrd missing' $FAILED '--initrd nowhere: No such file' \
    "$HV" run "${direct[@]}" --initrd nowhere "$guests/linux-64.bz"
says '--initrd empty' $USAGE 'empty.img is empty' \
    "$HV" run "${direct[@]}" --initrd empty.img "$guests/linux-64.bz"
says '--initrd larger than the RAM' $USAGE 'large.img.*more --memory' \
    "$HV" run "${direct[@]}" --memory 6M --initrd large.img "$guests/linux-64.bz"
says 'too little RAM for a kernel' $USAGE 'no such RAM.*--memory' \
    "$HV" run "${direct[@]}" --memory 4M "$guests/linux-64.bz"
says '--append too long for the kernel' $USAGE '--append: 300 bytes are too many.* at most 255' \
    "$HV" run "${direct[@]}" --append "$(printf '%300s' x)" "$guests/linux-64.bz"
says '--append too long' $USAGE '--append: at most' \
    "$HV" run "${direct[@]}" --append "$(printf '%20000s' x)" "$guests/linux-64.bz"
says 'a kernel as --disk' $USAGE 'linux-64.bz is a Linux kernel, not a raw disk: start it: hv run --kernel' \
    "$HV" run "${idle[@]}" --disk "$guests/linux-64.bz"
says 'two kernels' $USAGE 'is a Linux kernel, not a raw disk' \
    "$HV" run "${direct[@]}" --kernel "$guests/kernel.elf" "$guests/linux-64.bz"
many=()
for ((i = 0; i < 33; i++)); do many+=(--initrd disk.img); done
says 'too many initrds' $USAGE '--initrd: at most 32' "$HV" run "${direct[@]}" "${many[@]}" "$guests/linux-64.bz"
cp "$guests/linux-64.bz" kernel.bz
start again "${tiny[@]}" kernel.bz
"$HV" stop again --reset
holds 'a reset starts a kernel again' is again state running
: >kernel.bz
"$HV" stop again --reset
ends 'a reset without its kernel is a crash' "$pid" $CRASHED
holds 'which says why' grep -q 'kernel.bz is empty' again.err

# --- no machine --------------------------------------------------------------------------------

says 'no machine runs' $NOT_FOUND 'no machine' "$HV" info
says 'no machine of that name' $NOT_FOUND 'no machine "x" runs' "$HV" stop x
says 'no display for a window' $HOST 'no display to open a window on: --headless' "$HV" run disk.img
holds 'what failed left no machine' test -z "$("$HV" list)"

# --- /dev/kvm ---------------------------------------------------------------------------------

# Scripts in single quotes run where mounts are their own.
elsewhere=(unshare -m)
[ "$(id -u)" = 0 ] || elsewhere+=(-r)
if "${elsewhere[@]}" mount -t tmpfs none /dev 2>/dev/null; then
    says '/dev/kvm missing' $HOST '/dev/kvm: there is none.*modprobe' \
        "${elsewhere[@]}" bash -c 'mount -t tmpfs none /dev && "$0" run "$@"' "$HV" "${idle[@]}"
    says '/dev/kvm is something else' $HOST '/dev/kvm.*not KVM' \
        "${elsewhere[@]}" bash -c 'mount --bind /dev/null /dev/kvm && "$0" run "$@"' "$HV" "${idle[@]}"
else
    skip '/dev/kvm missing' 'mount namespaces are not allowed here'
    skip '/dev/kvm is something else' 'mount namespaces are not allowed here'
fi
if [ "$(id -u)" = 0 ] && [ ${#may_not[@]} -gt 0 ]; then
    says '/dev/kvm unreadable' $HOST '/dev/kvm: you may not use it: add yourself to its group' \
        "${elsewhere[@]}" bash -c 'touch kvm && chmod 0 kvm && chown 65534 kvm && mount --bind kvm /dev/kvm &&
            setpriv --bounding-set=-dac_override,-dac_read_search "$0" run "$@"' "$HV" "${idle[@]}"
else
    skip '/dev/kvm unreadable' 'it is readable, and only root can change that'
fi

# --- guests -----------------------------------------------------------------------------------

says 'a triple fault' $CRASHED 'the guest crashed: triple fault' \
    "$HV" run "${tiny[@]}" --firmware "$guests/triple.rom"
holds 'its report has the registers' grep -Eq '^rip [0-9a-f]{16}' err
holds 'its report has the code' grep -Eq '^code( [0-9a-f]{2}){8}' err
says 'resets in a row' 0 '' "$HV" run "${tiny[@]}" --device debug-exit --serial reset.log \
    --firmware "$guests/resetloop.rom"
holds 'each of them reset' grep -q 8 reset.log
says 'a hostile guest' 0 '' "$HV" run "${tiny[@]}" --device debug-exit --firmware "$guests/hostile.rom"

# A guest that resets all the time cannot end a pause, and goes on resetting after it.
start resets "${tiny[@]}" --device debug-exit --firmware "$guests/resetloop-endless.rom"
ended=0
for _ in {1..20}; do
    "$HV" stop resets --pause
    sleep 0.02
    is resets state paused || ended=$((ended + 1))
    "$HV" stop resets --resume
done 2>/dev/null
holds 'a pause outlasts the reset that the guest asks for' [ $ended = 0 ]
holds 'and the guest goes on resetting' is resets state running
holds 'until it is killed' power_off resets "$pid"

# A guest may end itself in any way, but hv may not.
"$HV" run "${tiny[@]}" --name wild --device debug-exit --firmware "$guests/hostile-wild.rom" \
    </dev/null >out 2>err &
pid=$!
pids+=("$pid")
for _ in {1..100}; do
    gone "$pid" && break
    sleep 0.1
done
"$HV" stop wild --kill >/dev/null 2>&1
wait $pid
status=$?
if [ $status -lt 128 ] && ! grep -q 'ended by signal' err; then
    ok 'a guest that hits everything'
else
    not_ok 'a guest that hits everything' "status $status" "$(cat err)"
fi

# mov al, 42; out 0xf4, al; hlt, at the reset vector
{ head -c 65520 /dev/zero; printf '\260\052\346\364\364'; head -c 11 /dev/zero; } >exit.rom
says "the guest's own status" 42 '' "$HV" run "${tiny[@]}" --device debug-exit --firmware exit.rom

# A boot sector that writes sector 2 by the BIOS, and exits with 32, or 33 when that fails: xor ax,
# ax; mov ds, ax; mov es, ax; mov ax, 0x301; mov bx, 0x7c00; mov cx, 2; mov dx, 0x80; int 0x13;
# setc al; add al, 32; out 0xf4, al; hlt; jmp $-1
printf '\061\300\216\330\216\300\270\001\003\273\000\174\271\002\000\272\200\000\315\023\017\222\300\004\040\346\364\364\353\375' |
    dd of=disk.img conv=notrunc status=none
cp disk.img before.img
disk=(--headless --memory 16M --cpus 1 --device debug-exit)
says '--throwaway lets the guest write' 32 '' "$HV" run "${disk[@]}" --throwaway disk.img
holds '--throwaway leaves the image as it is' cmp disk.img before.img
says 'readonly lets no guest write' 33 '' "$HV" run "${disk[@]}" --disk disk.img,readonly
holds 'readonly leaves the image as it is' cmp disk.img before.img
says 'without them the guest writes' 32 '' "$HV" run "${disk[@]}" disk.img
if cmp -s disk.img before.img; then not_ok 'and the image has it' ''; else ok 'and the image has it'; fi

# --- images on each other ------------------------------------------------------------------------

"$HV" image create base.qcow2 1M
"$HV" image create top.qcow2 --backing base.qcow2
"$HV" image create side.qcow2 --backing base.qcow2
start holder "${idle[@]}" top.qcow2
held='base.qcow2 is in use by machine holder: stop that'
says 'what a machine lies on, to write to' $WRONG_STATE "$held" "$HV" run "${idle[@]}" --name other base.qcow2
says 'an overlay in use' $WRONG_STATE 'top.qcow2 is in use by machine holder' \
    "$HV" run "${idle[@]}" --name other --throwaway top.qcow2
says 'committing an overlay in use' $WRONG_STATE 'top.qcow2 is in use by machine holder' "$HV" image commit top.qcow2
says 'committing into what a machine lies on' $WRONG_STATE "$held" "$HV" image commit side.qcow2
says 'resizing it' $WRONG_STATE "$held" "$HV" image resize base.qcow2 +1M
says 'compacting it' $WRONG_STATE "$held" "$HV" image compact base.qcow2
says 'mending it' $WRONG_STATE "$held" "$HV" image check --repair base.qcow2
says 'replacing it' $WRONG_STATE "$held" "$HV" image convert --force disk.img base.qcow2
says 'replacing it by an empty one' $WRONG_STATE "$held" "$HV" image create --force base.qcow2 1M
says 'an overlay on an image that is written' $WRONG_STATE 'top.qcow2 is in use by machine holder' \
    "$HV" run "${idle[@]}" --name other --disk disk.img --disk top.qcow2
first=$pid
start beside "${idle[@]}" side.qcow2
holds 'two machines on overlays of one image' is beside state running
kill -9 "$(vmm_of holder)" "$first"
wait "$first" 2>/dev/null
says 'one killed: the other holds what they lie on' $WRONG_STATE 'base.qcow2 is in use by machine beside' \
    "$HV" image commit top.qcow2
power_off beside "$pid"
holds 'and is gone: committed' "$HV" image commit top.qcow2
holds 'and converted into itself' "$HV" image convert --force base.qcow2 base.qcow2
start holder "${idle[@]}" base.qcow2
held='base.qcow2 is in use by machine holder: stop that'
says 'an overlay on what a machine writes' $WRONG_STATE "$held" "$HV" run "${idle[@]}" --name other top.qcow2
kill -9 "$(vmm_of holder)" "$pid"
wait "$pid" 2>/dev/null
start holder "${idle[@]}" --disk top.qcow2
holds 'the lock of a killed machine is none' is holder state running
power_off holder "$pid"

# --- a host whose disk is full ---------------------------------------------------------------------

# The disk is a tmpfs of one's own, which is enlarged at a word. A guest writes 3 MiB and reads them.
mkdir full
mkfifo word
unshare --user --map-root-user --mount sh -c 'mount -t tmpfs -o size=2M tmpfs full && : >full/there || exit
    while read -r size; do mount -o "remount,size=$size" full; done' <>word 2>full.err &
space=$!
pids+=("$space")
full=/proc/$space/root$work/full
truncate -s 8M writes.img
dd if="$guests/disk.bin" of=writes.img conv=notrunc status=none
# Refused as long as what remains of the last machine has the file.
small() {
    echo 2M >word
    sleep 0.2
    [ "$(stat -f -c %b "$full")" -lt 2048 ]
}
for format in raw qcow2; do
    name=full-$format
    if ! { [ -e "$full/there" ] || { sleep 1 && [ -e "$full/there" ]; }; }; then
        skip "$name" "no file system of one's own: $(tail -n 1 full.err)"
        continue
    fi
    "$HV" image convert writes.img "$full/writes.$format"
    start "$name" --headless --memory 16M --cpus 1 --device debug-exit "$full/writes.$format"
    holds "$name: the machine waits" eventually is "$name" state disk-full
    holds "$name: and says why" grep -q "no space is left on the host for .*writes.$format" "$name.err"
    "$HV" stop "$name" --resume
    holds "$name: without space it waits again" eventually is "$name" state disk-full
    echo 16M >word
    holds "$name: there is space" eventually sh -c "[ \$(stat -f -c %b '$full') -gt 2048 ]"
    "$HV" stop "$name" --resume
    ends "$name: with space it goes on, and reads all it wrote" "$pid" 32
    cp --sparse=always "$full/writes.$format" .
    rm -f "$full/writes.$format"
    eventually small
done
if [ -e writes.qcow2 ]; then
    holds 'the image is right' "$HV" image check writes.qcow2
    "$HV" image convert writes.qcow2 written.raw
    holds 'and the same in both formats' cmp writes.raw written.raw
fi

# --- the network --------------------------------------------------------------------------------

# A host without tap devices says so first.
tap_status=$USAGE tap_says='this is no tap device'
(exec 3<>/dev/net/tun) 2>/dev/null || tap_status=$HOST tap_says='/dev/net/tun'

says 'an unknown keyboard layout' $USAGE 'no such keyboard layout' "$HV" run "${idle[@]}" --layout 'de(nodead)'
says 'an unknown network' $USAGE 'none, user, tap=NAME or socket=PATH.*did you mean "user"' "$HV" run "${idle[@]}" --net usr
says 'an unknown key of it' $USAGE 'unknown key "retrict"; did you mean "restrict"' "$HV" run "${idle[@]}" --net user,retrict
says 'a wrong MAC' $USAGE 'six bytes' "$HV" run "${idle[@]}" --net user,mac=52:54:00
says 'a MAC of many cards' $USAGE 'of many cards' "$HV" run "${idle[@]}" --net user,mac=01:00:5e:00:00:01
says 'an unknown option of the card' $USAGE 'e1000 has no option "queues"' \
    "$HV" run "${idle[@]}" --net user,model=e1000,queues=2
says 'an unknown card' $USAGE '"virtio" or "e1000"' "$HV" run "${idle[@]}" --net user,model=ne2000
says 'restrict of another network' $USAGE 'restrict is for' "$HV" run "${idle[@]}" --net socket=lab,restrict
says 'a tap device without a name' $USAGE 'tap=NAME' "$HV" run "${idle[@]}" --net tap
says 'a tap device that cannot be one' $USAGE 'no name of a device' "$HV" run "${idle[@]}" --net tap=a/b
mkfifo pipe
says 'a capture into a pipe' $USAGE 'pcap=pipe: a file is wanted' "$HV" run "${idle[@]}" --net user,pcap=pipe
says 'a tap device that is none' "$tap_status" "$tap_says" "$HV" run "${idle[@]}" --net tap=lo
says 'vhost of another network' $USAGE 'vhost is for tap devices' "$HV" run "${idle[@]}" --net user,vhost=on
says 'vhost half on' $USAGE '"on" or "off"' "$HV" run "${idle[@]}" --net tap=hv0,vhost=half
says 'vhost of a card that has none' $USAGE 'model=virtio' "$HV" run "${idle[@]}" --net tap=hv0,vhost=on,model=e1000
says 'vhost and a capture' $USAGE 'pcap=' "$HV" run "${idle[@]}" --net tap=hv0,vhost=on,pcap=file
says 'a capture that cannot be written' $FAILED 'pcap=/none/x: No such file' "$HV" run "${idle[@]}" --net user,pcap=/none/x
says 'a meeting point nowhere' $FAILED 'socket=/none/lab: No such file' "$HV" run "${idle[@]}" --net socket=/none/lab
echo mine >file
says 'a meeting point that is a file' $FAILED 'something else than a socket' "$HV" run "${idle[@]}" --net socket=file
holds 'it is left alone' grep -q mine file
says 'a rule without a guest port' $USAGE 'HOST:GUEST' "$HV" run "${idle[@]}" -p 8080
says 'a rule with an address that is none' $USAGE '"nowhere" is no IPv4 address' "$HV" run "${idle[@]}" -p nowhere:80:80
says 'an address of another host' $HOST 'does not have that address' "$HV" run "${idle[@]}" -p 192.0.2.1:8000:80
says 'a rule twice' $WRONG_STATE 'published already' "$HV" run "${idle[@]}" -p 8000:80 -p 8000:81
says 'ports of a network that needs none' $USAGE 'for the network "user"' "$HV" run "${idle[@]}" --net none -p 8000:80

start ported "${idle[@]}" -p 127.0.0.1:38080:80
ported() { "$HV" info ported | grep -q "$1"; }
holds 'hv info lists the port' ported '127.0.0.1:38080:80/tcp'
says 'a port in use' $WRONG_STATE 'another program of this host uses TCP port 38080' \
    "$HV" run "${idle[@]}" --name second -p 38080:80
holds 'another is added' "$HV" set ported port+=0.0.0.0:38081:53/udp
holds 'and listed' ported '0.0.0.0:38081:53/udp'
says 'the same again' $WRONG_STATE 'published already' "$HV" set ported port+=38080:81
says 'a wrong one' $USAGE 'HOST:GUEST' "$HV" set ported port+=80
says 'taking one away that is not there' $WRONG_STATE 'not published' "$HV" set ported port-=4000
holds 'taking one away' "$HV" set ported port-=38080
if ported 38080; then not_ok 'it is gone' ''; else ok 'it is gone'; fi
serving() { "$HV" info ported | sed -n '/"network"/,$s/.*"pid": \([0-9]*\).*/\1/p'; }
was=$(serving)
kill -9 "$was"
again() { [ -n "$(serving)" ] && [ "$(serving)" != "$was" ]; }
holds 'hv-net killed: another comes' eventually again
holds 'hv-net killed: the machine goes on' is ported state running
holds 'hv-net killed: its ports stay' ported '0.0.0.0:38081:53/udp'
was=$(serving)
"$HV" stop ported --kill
ends 'the machine ends' "$pid" 0
holds 'and hv-net with it' eventually gone "$was"

start one "${idle[@]}" --net socket=lab
first=$pid
holds 'machines meet' test -S lab
start two "${idle[@]}" --net socket=lab
says 'their network has no ports' $WRONG_STATE 'not the network "user"' "$HV" set one port+=38080:80
"$HV" stop one --kill
ends 'the first leaves' "$first" 0
holds 'the network stays' test -S lab
"$HV" stop two --kill
ends 'the last leaves' "$pid" 0
holds 'the network ends' eventually test ! -e lab

# --- signals ----------------------------------------------------------------------------------

# signal_twice TITLE PID: the idle guest does not hear its power button, the second pulls the plug.
signal_twice() { # TITLE SIGNAL TARGET PID NAME
    kill "-$2" "$3"
    sleep 0.3 # long enough to go wrong; not needed to go right
    holds "$1: the first asks the guest" is "$5" state running
    again() { gone "$4" || { kill "-$2" "$3"; sleep 0.2; gone "$4"; }; }
    eventually again "$@" 2>/dev/null
    ends "$1: the second powers off" "$4" 0
}
for signal in TERM INT HUP; do
    start signalled "${idle[@]}"
    signal_twice "SIG$signal to hv" $signal "$pid" "$pid" signalled
done
start signalled "${idle[@]}"
signal_twice 'SIGTERM to hv-vmm' TERM "$(vmm_of signalled)" "$pid" signalled

start shot "${idle[@]}"
kill -9 "$(vmm_of shot)"
ends 'hv-vmm killed: hv ends' "$pid" $FAILED
holds 'hv-vmm killed: hv says so' grep -q 'ended by signal 9 (Killed)' shot.err
holds 'hv-vmm killed: hv list has it no more' test -z "$("$HV" list)"
holds 'hv-vmm killed: its folder is gone' test ! -e run/hv/shot

start left "${idle[@]}"
kill -9 "$pid"
wait "$pid" 2>/dev/null
holds 'hv killed: the machine goes on' is left state running
vmm=$(vmm_of left)
holds 'hv killed: the machine can be stopped' "$HV" stop left --kill
holds 'hv killed: then it is gone' eventually gone "$vmm"

# --- a machine that runs ----------------------------------------------------------------------

start live "${idle[@]}"
says 'an unknown key' $USAGE 'no key "ctlr"; did you mean "ctrl"' "$HV" send live key ctlr+c
says 'no key' $USAGE 'key' "$HV" send live key ''
says 'too many keys' $USAGE 'at most 8' "$HV" send live key a+b+c+d+e+f+g+h+i
says 'text that no key types' $FAILED '1 characters were left out' "$HV" send live text 'ä'
says 'an unknown layout for a text' $USAGE 'did you mean "gb"' "$HV" send live text --layout uk a
says 'nothing to send' $USAGE 'click, key, move, paste, scroll or text' "$HV" send live
says 'an unknown thing to send' $USAGE 'click, key, move, paste, scroll or text' "$HV" send live txet a
says 'two texts' $USAGE 'one text' "$HV" send live text a b
says 'text that is not UTF-8' $USAGE 'not UTF-8' "$HV" send live text '\377'
says 'a place without a tablet' $WRONG_STATE 'takes no positions' "$HV" send live move 1,1
says 'a place outside the picture' $USAGE 'pixels' "$HV" send live click at 100000,1
says 'a place that is none' $USAGE 'two numbers' "$HV" send live move 1
says 'an unknown button' $USAGE 'did you mean "right"' "$HV" send live click rigth
says 'half a click' $USAGE 'click: ' "$HV" send live click left at
says 'a wheel of letters' $USAGE 'a number of steps' "$HV" send live scroll up
says 'no CD to eject' $WRONG_STATE 'no CD' "$HV" eject live
says 'no floppy to eject' $WRONG_STATE 'no floppy' "$HV" eject live fd
says 'a floppy without a drive' $WRONG_STATE 'no floppy drive' "$HV" set live fd=disk.img
says 'no such drive' $USAGE 'cd or fd' "$HV" eject live tape
says 'resume of what runs' $WRONG_STATE 'only a paused machine' "$HV" stop live --resume
says 'two wishes at once' $USAGE 'one of' "$HV" stop live --pause --reset
says 'a wrong pattern' $USAGE 'pattern|regular' "$HV" screen live --wait '('
says 'text and JSON at once' $USAGE 'one of --text, --json' "$HV" screen live --text --json
says 'pixels without text' $USAGE '--pixels is how text is read' "$HV" screen live --pixels --png -
says 'a wrong time' $USAGE '--timeout' "$HV" screen live --wait x --timeout soon
says 'a text that never comes' 5 'not seen in time: /never/' "$HV" screen live --wait never --timeout 1
says 'a machine of nearly that name' $NOT_FOUND 'no machine "liev" runs; did you mean "live"' "$HV" info liev
says 'no window without a display' $HOST 'display' "$HV" open live
holds 'pause' "$HV" stop live --pause
holds 'it is paused' is live state paused
says 'a paused guest hears no power button' $WRONG_STATE 'it is paused.*--resume or --kill' "$HV" stop live
holds 'resume' "$HV" stop live --resume
holds 'it runs again' is live state running
holds 'reset' "$HV" stop live --reset
holds 'it runs after the reset' is live state running
"$HV" stop live --pause
"$HV" stop live --reset
holds 'a reset of a paused machine starts it' is live state running
"$HV" stop live --kill
ends 'kill ends it with status 0' "$pid" 0

# A machine with two disks, one of them on an image that grows with it.
qemu-img create -q -f qcow2 grows.qcow2 8M
truncate -s 4M other.img
start disks "${idle[@]}" --disk grows.qcow2,bus=virtio,detect-zeroes=on --disk other.img,bus=ahci,readonly
says 'a disk without a number' $USAGE 'more than one: disk1' "$HV" set disks disk=16M
says 'a disk that is not there' $WRONG_STATE 'disk3: it has no such disk' "$HV" set disks disk3=16M
says 'a disk of no size' $USAGE 'a size such as 512M' "$HV" set disks disk1=large
says 'a disk of half a sector' $USAGE 'whole sectors of 512' "$HV" set disks disk1=9000000
says 'a smaller disk' $USAGE 'it can only grow.*hv image resize --shrink' "$HV" set disks disk1=4M
says 'a larger read-only disk' $WRONG_STATE 'other.img is read-only' "$HV" set disks disk2=16M
holds 'a larger disk' "$HV" set disks disk1=16M
holds 'and once more' "$HV" set disks disk1=+16M
holds 'hv info says so' grep -q '"size": 33554432' <("$HV" info disks)
"$HV" stop disks --kill
ends 'it ends' "$pid" 0
holds 'its image has grown' grep -q '"virtual-size": 33554432' <(qemu-img info --output=json grows.qcow2)
holds 'and is right' qemu-img check -q grows.qcow2
start away "${idle[@]}" --throwaway --disk other.img,bus=virtio
says 'a larger disk that is thrown away' $WRONG_STATE 'with --throwaway' "$HV" set away disk=16M
"$HV" stop away --kill
ends 'it ends, too' "$pid" 0

# --- tests in hv's language -------------------------------------------------------------------

printf 'vm\n  memry 1G\nstep "x"\n  se "y"\n' >wrong.hvt
printf 'vm\n  image none.img\n  sha256 %064d\nboot\n' 0 >file.hvt
printf 'vm\n  firmware %s/triple.rom\n  memory 16M\n  net none\nboot\nsee "never"\n' "$guests" >triple.hvt
says 'no script' $USAGE 'a script is wanted' "$HV" test
says 'a script that is not there' $USAGE '^none.hvt: No such file' "$HV" test --check none.hvt
says 'a wrong script: its first line' $USAGE 'wrong.hvt:2:3: "memry".*did you mean "memory"' "$HV" test --check wrong.hvt
says 'a wrong script: all its lines' $USAGE 'wrong.hvt:4:3: "se" is no verb; did you mean "see"' "$HV" test --check wrong.hvt
says 'a wrong script is not run' 99 'wrong.hvt:2:3' "$HV" test wrong.hvt
printf 'vm\n  firmware triple.rom\nboot\n  mark up\nrestore op\n' >mark.hvt
says 'a mark that is none' $USAGE 'mark.hvt:5:9: there is no mark "op" above; did you mean "up"' "$HV" test --check mark.hvt
printf 'vm\n  firmware %s/keys.rom\n  memory 16M\n  net none\nboot\n  see "keys ready"\n  type "one"\n  log "one"\n  mark up\n  type "two"\n' "$guests" >base.hvt
printf 'from base.hvt up\nstep "x"\n  not log "two"\n  type "tri"\n  log "onetri"\n  restore up\n  type "four"\n  log "onefour"\n' >marks.hvt
says 'a test that begins at the mark of another and goes back to it' 0 '' "$HV" test marks.hvt
holds 'going back is told' grep -q '^# played again up to the mark up: ' out
sed -i 's/"one"$/"on"/; s/log "on"/log "three" within 100ms/' base.hvt
says 'what fails on the way to a mark' $FAILED '' "$HV" test marks.hvt
holds 'is told with its line' grep -q '^# marks.hvt:1: from base.hvt up: base.hvt:8: log "three"' out
says 'a value that is none' $USAGE 'KEY=VALUE,... is wanted' "$HV" test --set a wrong.hvt
says 'a kernel under test without a command' $USAGE '-- COMMAND' "$HV" test --kernel wrong.hvt
says 'a kernel under test without -- before the command' $USAGE '"true".*behind --' "$HV" test --kernel wrong.hvt true
says 'a kernel under test that is none' 125 'wrong.hvt is no kernel' "$HV" test --kernel wrong.hvt -- true
says 'a kernel under test that is not there' 125 'none.*No such file' "$HV" test --kernel none -- true
says 'a root that is no folder' $USAGE '--root none: a folder' "$HV" test --kernel wrong.hvt --root none -- true
says 'a root that is too large' 125 'room for 25 MiB.*--memory' \
    "$HV" test --kernel wrong.hvt --memory 64M --root /usr/lib -- true
says 'a program that is not there' 125 './none: this host has no such program' \
    "$HV" test --kernel wrong.hvt -- ./none 1
says 'an option that no kernel under test has' $USAGE 'did you mean --append' \
    "$HV" test --kernel wrong.hvt --apend x -- true
says 'a wrong limit' $USAGE 'a time is wanted' "$HV" test --kernel wrong.hvt --limit 5 -- true
says 'wrong usage ends a bisection' 128 '--limit' "$HV" test --kernel a --bisect --limit 5 -- true
says 'a kernel under test so often' $USAGE '--repeat 0: a number' "$HV" test --kernel a --repeat 0 -- true
says 'a repeated kernel with a wrong option' $USAGE '--memry.*did you mean --memory' \
    "$HV" test --kernel a --repeat 2 --memry 1 -- true
says 'wrong usage ends a bisection that repeats' 128 'what shall run' "$HV" test --kernel a --bisect --repeat 2
says 'a kernel that is missing each time' $FAILED '' "$HV" test --kernel none --repeat 2 -j 2 -- true
holds 'each time is a test point' [ "$(grep -c '^not ok [12] - true .#[12]: the command' out)" = 2 ]
says 'a version that cannot be tried, however often' 125 '' "$HV" test --kernel none --bisect --repeat 2 -- true
says 'a test without its image' $FAILED '' "$HV" test file.hvt
holds 'what is missing is told' grep -q '^# file.hvt:4: boot: .*none.img: No such file' out
printf 'vm\n  firmware %s/idle.rom\n  memory 16M\n  net none\nboot\n  port 22 open\n' "$guests" >port.hvt
says 'a port of a machine without a network' $FAILED '' "$HV" test port.hvt
holds 'is told' grep -q '^# port.hvt:6: .*its network is not the network "user"' out
says 'a guest that crashes ends its test at once' $FAILED '' "$HV" test triple.hvt
holds 'the crash is told' grep -q '^# triple.hvt:[56]: .*vm crashed: vCPU 0: the guest crashed: triple fault' out
printf 'vm\n  firmware %s/idle.rom\n  memory 16M\n  net none\nboot\n  see "never" within 1h\n' "$guests" >idle.hvt
says 'a guest that can do nothing any more ends its test' $FAILED '' "$HV" test --html page.html idle.hvt
holds 'where it stands is told' grep -q '^# idle.hvt:6: .*no progress: CPU 0: halted with interrupts off at 0xff' out
holds 'how to open it is told' grep -q "^# open it: hv test --resume 'hv-test/idle.hvt@1'" out
printf 'vm A\n  firmware %s/idle.rom\nvm B\n  firmware %s/idle.rom\non B boot\nsee "x" within 1h\n' "$guests" "$guests" >wrong.hvt
says 'a wait for a machine that does not run' $FAILED '' "$HV" test wrong.hvt
holds 'ends at once' grep -q '^# wrong.hvt:6: .*: A does not run$' out
printf 'vm\n  disk writes.img\n  net none\n  memory 16M\n  device debug-exit\nboot\n  disk 1 full\n  see "never"\n' >full.hvt
says 'a machine that has stopped unnoticed ends its test' $FAILED '' "$HV" test full.hvt
holds 'and why it has' grep -q '^# full.hvt:8: .*no progress: no space is left on the host for writes.img' out
says 'no jobs at a time' $USAGE '--jobs 0: a number from 1 on' "$HV" test -j 0 idle.hvt
says 'a repetition that is no number' $USAGE '--repeat x: a number' "$HV" test --repeat x idle.hvt
says 'an option without its value' $USAGE '--jobs wants a value' "$HV" test idle.hvt -j
says 'a wrong seed' $USAGE 'from 0 to 4294967295' "$HV" test --seed 4294967296 triple.hvt
says 'the first failure ends all' $FAILED '' "$HV" test -j 2 --until-fail --output often triple.hvt triple.hvt
holds 'and is the last one' test "$(grep -c '^not ok' out)" = 1 -a "$(grep -c '^# 1 runs, 1 failed' out)" = 1
# kill_of TITLE SIGNAL WHOM STATUS: the signal to hv test, or to the process that does a script.
kill_of() {
    "$HV" test -j 2 --output killed idle.hvt idle.hvt >killed.out 2>&1 &
    local test=$! whom
    pids+=("$test")
    two() { [ "$("$HV" list | grep -c test-)" = 2 ]; }
    none() { ! "$HV" list | grep -q test-; }
    eventually two
    whom=$test
    [ "$3" = parent ] || whom=$(child "$test" hv)
    kill "-$2" "$whom"
    ends "$1" "$test" "$4" 2>/dev/null
    holds "$1: no machine is left" eventually none
}
kill_of 'hv test ended from outside' TERM parent $FAILED
holds 'it says so' grep -q '^Bail out! ended by a signal' killed.out
holds 'and where each was' test "$(grep -c '^# idle.hvt:6: .*the test was ended from outside' killed.out)" = 2
kill_of 'hv test killed' KILL parent 137
kill_of 'the process of a script killed' KILL job $FAILED
holds 'it is a failed step' grep -q '^not ok .*hv test itself' killed.out
printf 'vm\n  firmware %s/idle.rom\nhost rmdir ${folder}; mkdir ${folder}; echo x >${folder}/x\n' "$guests" >own.hvt
mkdir tmp
says 'a folder for each run' 0 '' env "TMPDIR=$PWD/tmp" "$HV" test -j 4 --repeat 8 own.hvt
holds 'nothing of them is left' rmdir tmp
says 'another folder for each run' $USAGE '--set folder: it is a folder of the run' "$HV" test --set folder=x own.hvt
mkdir same
sed 's/1h$/100ms/' idle.hvt | tee same/a.hvt >a.hvt
says 'two scripts of one name' $FAILED '' "$HV" test -j 2 --output same/o a.hvt same/a.hvt
holds 'each has its folder' test -f same/o/a.hvt/vm-1.png -a -f 'same/o/a.hvt (2)/vm-1.png'
says 'a recording without a name' $USAGE '--record wants the name of a script' "$HV" test --record
says 'a recording of two machines' $USAGE 'one IMAGE is enough' "$HV" test --record r.hvt a b
says 'a run without a step' $USAGE '--resume x: RUN@STEP is wanted' "$HV" test --resume x
says 'a run that is not there' $FAILED 'none/run.json' "$HV" test --resume none@1
mkdir -p none && echo '{"script":3}' >none/run.json
says 'a run that is none' $FAILED 'none/run.json: is not what hv test writes' "$HV" test --resume none@1
rm -r none
holds 'the page of results has it' grep -q 'class="failed">idle.hvt:6: see &quot;never&quot;.*no progress' page.html
holds 'the page has the picture' grep -q 'src="data:image/png;base64,iVBOR' page.html
printf 'matrix\n  one = a, b\n  two = ${one}${base}, c\nvm\n  image ${two}\nhost echo "<${two}>" >>values\n' >matrix.hvt
says 'values of a matrix that name others' 0 '' "$HV" test --set base=-x matrix.hvt
holds 'they are replaced' sh -c 'test "$(sort -u values | tr -d "\n")" = "<a-x><b-x><c>"'
printf 'matrix\n  file = files/*.x, %s/files/?.y, files/*.z\nvm\n  image ${file}\nhost echo "<${file}>" >>files/all\n' "$PWD" >files.hvt
mkdir files && touch files/a.x 'files/b c.x' files/d.y
says 'values of a matrix that are files' 0 '' env -C / "$HV" test --output "$PWD/files/out" "$PWD/files.hvt"
holds 'there is one for each' sh -c "LC_ALL=C sort files/all | tr -d '\n' | grep -qxF '<$PWD/files/d.y><files/*.z><files/a.x><files/b c.x>'"
says 'values of a matrix that name what is not known' $USAGE 'matrix.hvt:3:3: .*: a value knows those' \
    "$HV" test --check matrix.hvt
printf 'vm\n  firmware %s/idle.rom\n  memory 16M\n  net none\nboot\n  host echo $$ >pid; exec sleep 1000 &\n  host test ${list} = a,-b && echo "$HV_MACHINE is there"\n' "$guests" >host.hvt
says 'commands of the host, and a value with commas' 0 '' "$HV" test --set list=a,-b --set other=x host.hvt
holds 'what a command printed is told' grep -q '^# test-[0-9]*-vm is there' out
holds 'a command that goes on ends with the test' sh -c '! kill -0 "$(cat pid)"'
printf 'skip unless file triple.hvt\nlimit 1m\n' | cat - triple.hvt >limit.hvt
says 'a test whose condition is met, with a limit' $FAILED '' "$HV" test limit.hvt
holds 'conditions and limits are no steps' grep -q '^# limit.hvt:[78]: .*the guest crashed' out
sed 's/see "never".*/see image none.png/' idle.hvt >image.hvt
says 'a picture that is not there' $FAILED '' "$HV" test image.hvt
holds 'is told' grep -q '^# image.hvt:6: see image none.png: .*none.png' out
sed 's/see "never".*/copy none.txt to \/x/' idle.hvt >copy.hvt
says 'a file to copy that is not there' $FAILED '' "$HV" test copy.hvt
holds 'is told, too' grep -q '^# copy.hvt:6: copy none.txt to /x: .*none.txt' out
for text in 'triple fault' panic; do
    sed "s/^see .*/crash \"$text\"/" triple.hvt >"crash-$text.hvt"
done
says 'a crash that the script waits for' 0 '' "$HV" test 'crash-triple fault.hvt'
holds 'it is told' grep -q '^# vm crashed, as it should: ' out
says 'another crash than the script waits for' $FAILED '' "$HV" test crash-panic.hvt
holds 'what crashed is told' grep -q '^# crash-panic.hvt:6: .*it crashed otherwise: vCPU 0: the guest crashed: triple fault' out
says 'a page that cannot be written' $FAILED 'none/page.html' "$HV" test --html none/page.html triple.hvt

says 'no command behind --' $USAGE 'behind -- a command is wanted' "$HV" run disk.img --
says 'an option that a command has no use for' $USAGE '--name: this machine has its own' "$HV" run --name x disk.img -- ls
says 'a limit that is no time' $USAGE '--limit x: a time is wanted' "$HV" run --limit x disk.img -- ls
says 'a command in what is not there' 125 'none.img: No such file' "$HV" run none.img -- ls
says 'a guest that lets nobody in' 124 'the limit of it all is over' \
    "$HV" run --firmware "$guests/keys.rom" --memory 64M --net none --limit 2s --throwaway -- ls

# --- windows ----------------------------------------------------------------------------------

window_checks=11
# screen_server: an X server of our own, for $DISPLAY; its pid in $xvfb.
screen_server() {
    : >display
    Xvfb -displayfd 3 -screen 0 1024x768x24 -nolisten tcp 3>display >xvfb.log 2>&1 &
    xvfb=$!
    pids+=("$xvfb")
    eventually grep -q '[0-9]' display || return 1
    DISPLAY=:$(cat display)
    export DISPLAY
}
if [ ! -x "$(dirname "$HV")/hv-view" ] || ! command -v Xvfb >/dev/null || ! screen_server; then
    for ((i = 0; i < window_checks; i++)); do skip "windows $i" 'no hv-view or no Xvfb'; done
else
    start shown --memory 64M --cpus 1 --throwaway --serial serial.log "$demo"
    holds 'a window is there' eventually is shown viewers 1
    view=$(child "$pid" hv-view)
    kill -9 "$view" # while the firmware and the demo draw
    holds 'hv-view killed: the machine goes on' eventually is shown viewers 0
    holds 'hv-view killed: hv says so' eventually grep -q 'window is gone; shown runs on: hv open' shown.err
    holds 'hv-view killed: the guest comes up' eventually grep -q 'demo: ready' serial.log
    "$HV" open shown </dev/null >open.out 2>&1 &
    open=$!
    holds 'hv open shows it again' eventually is shown viewers 1
    "$HV" open shown </dev/null >open2.out 2>&1 &
    second=$!
    eventually is shown viewers 2
    kill -TERM "$(child $second hv-view)"
    holds 'the second window closed: the first stays' eventually is shown viewers 1
    wait $second
    kill -9 "$xvfb"
    wait "$xvfb" 2>/dev/null
    holds 'display server dead: the windows end' eventually gone $open
    holds 'display server dead: the machine goes on' eventually is shown viewers 0
    "$HV" send shown key space
    holds 'display server dead: the guest answers keys' eventually grep -q 'demo: key' serial.log
    "$HV" stop shown --kill
    ends 'it can still be ended' "$pid" 0
    says 'no display where DISPLAY says' $HOST 'no display.*--headless' \
        "$HV" run --name nowhere --memory 64M --cpus 1 --throwaway "$demo"
fi

echo "1..$number"
[ $failed = 0 ]
