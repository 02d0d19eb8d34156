# shellcheck shell=bash disable=SC2154 # name, boot and the images' paths are the runner's
# What the boot tests and their runner share. hv's own command does everything: a test says what a
# user would type and what the screen then shows.
#
# A test is a file NAME.hvt, which `hv test` does (man hv-test.5), or, when more than its language is
# wanted, NAME.test, run by bash -e; both in a folder of their own. What it shows is said by the .hvt's
# first line and in the .test's comment; further lines of comment tell the runner what it needs:
#
#   # image: SCRIPT...   images/SCRIPT.sh makes an image; its path is in $SCRIPT, ${SCRIPT} (- becomes _)
#   # long               it is done only with --long
#   # lab                the guest wants hardware's KVM: where there is none it boots in the lab only
#   # once               where it has run on a software KVM, the lab shows nothing new
#   # seconds: N         give up after (120)
#
# $long is set when the runner was told --long: tests that do something many times do it more often then.
# In a .hvt, ${long} is 1 then, else 0; ${cpu} is what hv run's --cpu is to be, ${demo} the demo disk,
# ${guests} the folder of our own guests, ${port} a free port of this host. Steps that several share are
# in steps/, and host commands find this folder as $boot.

hardware_kvm() { [ -w /dev/kvm ] && grep -qwE '^flags.*(svm|vmx)' /proc/cpuinfo; }

# The lines of a kernel's log without time stamps, without what differs from boot to boot, and
# without complaints that only say how slow and uneven an emulated host is.
kernel_lines() {
    tr -d '\r' | sed -E 's/^\[ *[0-9.]+\] //; s/0x[0-9a-f]+/0xN/g; s/[0-9]+\.[0-9]+/N/g' |
        grep -vE 'clocksource: Long readout|hrtimer: interrupt took|interrupt took too long' |
        sort -u
}

# Programs that end with the test.
helpers=()

# by_hv_test FILE: the test that it is.
by_hv_test() {
    local image file=$1 port set
    set="cpu=$cpu,long=${long:+1},demo=${HV_DEMO:-},guests=$(readlink -f "$(dirname "$HV")/../tests/guests")"
    set=${set/long=,/long=0,}
    port=$((20000 + RANDOM % 10000))
    while (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done # taken
    set+=,port=$port
    for image in $(sed -n 's/^# image: *//p' "$file"); do
        image=${image//-/_}
        set+=,$image=${!image}
    done
    ln -s "$file" "$boot/steps" .
    export boot
    "$HV" test --set "$set" "$name.hvt" >tap
}

# The lab's emulated AMD-V cannot pass XSAVE on (tests/lab/lab).
cpu=host${HV_LAB:+,-xsave}

fail() {
    echo "# $*"
    exit 1
}

# start ARGUMENTS: `hv run`, without a window unless $headless is empty, until the machine answers. $name
# is its name.
headless=--headless
start() {
    "$HV" run $headless --name "$name" --cpu "$cpu" "$@" >hv.out 2>&1 \
        </dev/null &
    hv_pid=$!
    for _ in $(seq 75); do
        "$HV" info "$name" >/dev/null 2>&1 && return
        kill -0 $hv_pid 2>/dev/null || fail "hv run $* has ended: $(tail -3 hv.out)"
        sleep 0.2
    done
    fail "hv run $*: no machine answers to $name"
}

# see REGEX SECONDS: the screen shows it, at once or within the time.
see() {
    "$HV" screen "$name" --wait "$1" --timeout "$2" >screen || fail "the screen has no '$1' in $2 s"
}

# type TEXT, with \n for Enter; key NAME.
type() { "$HV" send "$name" text "$1"; }
key() { "$HV" send "$name" key "$1"; }

# serial_has PATTERN SECONDS [COUNT]: that many lines of the serial port's file have it.
serial_has() {
    local end=$((SECONDS + $2))
    until [ "$(grep -cE -- "$1" serial 2>/dev/null)" -ge "${3:-1}" ]; do
        [ $SECONDS -lt $end ] || fail "the serial port has no '$1' (${3:-1}) in $2 s"
        kill -0 $hv_pid 2>/dev/null || fail "hv has ended, the serial port had no '$1'"
        sleep 0.2
    done
}

# ended SECONDS: hv itself ends, with status 0.
ended() {
    local end=$((SECONDS + $1)) status=0
    while kill -0 $hv_pid 2>/dev/null; do
        [ $SECONDS -lt $end ] || fail "the machine still runs after $1 s"
        sleep 0.2
    done
    wait $hv_pid || status=$?
    hv_pid=
    [ $status = 0 ] || fail "hv ended with status $status: $(tail -3 hv.out)"
}

# What happened, for the log of a test that failed; and nothing of a test outlives it.
aftermath() {
    local status=$?
    if [ $status != 0 ]; then
        [ ! -s tap ] || sed 's/^# //' tap >&2
        [ -z "${hv_pid:-}" ] || timeout 5 "$HV" screen "$name" --text 2>/dev/null | sed 's/^/# screen: /; s/ *$//'
        tail -n 15 serial 2>/dev/null | tr -d '\r\033' | cut -c1-200 | sed 's/^/# serial: /'
        tail -n 5 hv.out 2>/dev/null | sed 's/^/# hv: /'
    fi
    for pid in "${helpers[@]}"; do kill "$pid" 2>/dev/null || true; done
    if [ -n "${hv_pid:-}" ]; then
        timeout 5 "$HV" stop "$name" --kill >/dev/null 2>&1 || kill -KILL "$hv_pid" || true
        wait "$hv_pid" 2>/dev/null || true
    fi
    exit $status
}

# debian_login: root's shell on the VGA console, from the login prompts on both consoles.
debian_login() {
    serial_has 'hvguest login:' 400 "$1"
    see 'hvguest login:' 60
    type 'root\n'
    see 'root@hvguest' 60
}

# linux_says ARCHITECTURE CPUS [COUNT]: a kernel with images/linux-task has come up so often, with
# the tables of hv, and has no complaint but those in the file `known`.
linux_says() {
    serial_has "^MARK $1 $2 CPUs, hv [1-9]" 120 "${3:-1}"
    serial_has '^MARK-END' 60 "${3:-1}"
    sed -n 's/^complaint: <.>//p' serial | kernel_lines >complaints
    if grep -vxF -f known complaints >new; then
        sed 's/^/# kernel: /' new
        fail 'the kernel complains'
    fi
}

# guest_shell SECONDS: the guest of images/linux-shell.sh, started with --serial pty, takes commands.
# Descriptor 3 is its serial port; all it says goes to the file `serial`.
guest_shell() {
    exec 3<>"$(sed -n 's/^serial port: //p' hv.out)"
    guest_line '=READY' "$1"
}

# guest_line PATTERN SECONDS: lines of the guest, kept in `said`, up to one that has the pattern, which
# is in $line then.
guest_line() {
    local end=$((SECONDS + $2))
    : >said
    while [ $SECONDS -lt $end ]; do
        IFS= read -r -t $((end - SECONDS + 1)) line <&3 || break
        line=${line%$'\r'}
        echo "$line" >>serial
        case $line in *$1*) return ;; esac
        echo "$line" >>said
    done
    fail "the guest does not say '$1' in $2 s"
}

# guest COMMAND [SECONDS]: runs one line of shell in the guest; its output is in `said`.
guest() {
    echo "+ $1" >>serial
    echo "$1" >&3
    guest_line '=END' "${2:-60}"
    [ "$line" = '=END 0' ] || fail "in the guest, status ${line#=END }: $1"
}

# guest_quiet: its kernel has had nothing to complain of but what the file `known` lists.
guest_quiet() {
    guest "dmesg -r | grep '^<[0-4]>' | cut -d'>' -f2-; true"
    kernel_lines <said >complaints
    if grep -vxF -f known complaints >new; then
        sed 's/^/# kernel: /' new
        fail 'the kernel complains'
    fi
}

# guest_off: the guest powers off.
guest_off() {
    echo 'poweroff -f' >&3
    ended 60
}
