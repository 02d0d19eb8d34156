# The part `login` of bench.sh, which sources this: the same login test by hv test (login.hvt) and by a
# script for QEMU's monitor and tesseract (login-qemu.py), in turns, on a busy host. The rest of bench.sh
# counts; this takes times and is not judged.
#
# GUEST      linux: busybox's login by Debian's kernel, without firmware (default); debian: a whole
#            Debian; grub: GRUB legacy answers two commands, for a KVM that runs no Linux
# RUNS       of each (default 50)
# ACCEL      QEMU's accelerator: kvm (default), or tcg where KVM runs no Linux; hv has none but KVM
# LOAD       busy loops and the guest's CPU are so many times the processors (default 4; 0: no loops)
#
# Where KVM is emulated: lab -t 3000 'PARTS=login RUNS=5 tests/bench/bench.sh BUILD'.
# shellcheck shell=sh disable=SC2154
GUEST=${GUEST:-linux}
RUNS=${RUNS:-50}
LOAD=${LOAD:-4}
ACCEL=${ACCEL:-kvm}
bench=$(dirname "$(readlink -f "$0")")

# What the guest is, for hv as lines of a vm and for QEMU as options; what it shows and what is typed.
login_guest() {
    first='bench login:' user=root prompt=root@ command=id answer='uid=0 gid=0' extra=
    cpu=host,-arch-capabilities
    [ "$ACCEL" = kvm ] || cpu=max
    [ -z "${HV_LAB:-}" ] || cpu=host,-xsave extra='  cpu host,-xsave'
    case $GUEST in
    linux)
        folder=$("$bench/../boot/images/linux-login.sh" | tail -1)
        login_image=$folder/vmlinuz
        extra="$extra
  initrd $folder/initrd
  append quiet"
        options="-kernel $folder/vmlinuz -initrd $folder/initrd -append quiet"
        ;;
    debian)
        login_image=$("$bench/../boot/images/debian.sh" | tail -1)
        first=login:
        ;;
    grub)
        login_image=$("$bench/../boot/images/grub-legacy.sh" | tail -1)
        first='grub>' user='find /invaders.exec' prompt='(hd0' command='help cat' \
            answer='Print the contents'
        ;;
    *) fail "GUEST: there is no $GUEST" ;;
    esac
    [ -s "$login_image" ] || fail "there is no image of $GUEST"
    [ "$GUEST" = linux ] || options="-snapshot -drive file=$login_image,format=raw"
    echo "$extra" | sed -e '/^$/d' >"$work/extra"
    sed "/^  image/r $work/extra" "$bench/login.hvt" >"$work/login.hvt"
}

# Of brackets and blanks tesseract makes what it likes.
pattern() {
    echo "$1" | sed 's/[^A-Za-z0-9=]/./g'
}

login_run() { # hv or qemu
    enter='
'
    case $1 in
    hv)
        "$bench/cost.py" "$HV" test --output "$work/failed" --set \
            "image=$login_image,first=$first,user=$user\n,prompt=$prompt,command=$command\n,answer=$answer" \
            "$work/login.hvt" >"$work/said" 2>&1
        ;;
    qemu)
        # shellcheck disable=SC2086
        "$bench/cost.py" "$bench/login-qemu.py" "$(pattern "$first")" "$user$enter" \
            "$(pattern "$prompt")" "$command$enter" "$(pattern "$answer")" -accel "$ACCEL" -M q35 \
            -m 512 -cpu $cpu -nodefaults -vga std $options >"$work/said" 2>&1
        ;;
    esac
    echo "$(tail -1 "$work/said") $(cut -d' ' -f1 /proc/loadavg)" >>"$work/$1.login"
    tail -1 "$work/$1.login" | sed "s/^/login, $1: /" >&2
    [ "$(tail -1 "$work/$1.login" | cut -d' ' -f1)" = 0 ] || cat "$work/said" >&2
}

measure_login() {
    for tool in tesseract convert python3; do
        command -v $tool >/dev/null || fail "$tool is not installed"
    done
    login_guest
    loops=$(($(nproc) * LOAD - 1))
    while [ $loops -gt 0 ]; do
        sh -c 'while :; do :; done' &
        running="$running $!"
        loops=$((loops - 1))
    done
    round=0
    while [ $round -lt "$RUNS" ]; do
        round=$((round + 1))
        [ "$HV" = none ] || login_run hv
        [ "$QEMU" = none ] || login_run qemu
    done
    end_running
}

# Medians of those that did not fail.
login_row() { # name column
    for vmm in hv qemu; do
        awk -v c="$2" '$1 == 0 { print c == "own" ? $3 - $4 : $c }' "$work/$vmm.login" | median
    done | paste -sd' ' | awk -v name="$1" '{
        printf "%-42s %11s %11s %9s\n", name, $1, $2, $2 + 0 ? sprintf("%.3g", $1 / $2) : "-" }'
}

# Lines that are neither empty nor comments.
login_lines() {
    sed -e '/^"""/,/^"""$/d' -e '/^ *#/d' -e '/^ *$/d' "$1" | wc -l
}

show_login() {
    touch "$work/hv.login" "$work/qemu.login"
    printf '\n%-42s %11s %11s %9s\n' "a login, $GUEST, load $LOAD" hv QEMU hv/QEMU
    printf '%-42s %11s %11s\n' 'lines of script' "$(login_lines "$bench/login.hvt")" \
        "$(login_lines "$bench/login-qemu.py")"
    printf '%-42s %11s %11s\n' runs "$(wc -l <"$work/hv.login")" "$(wc -l <"$work/qemu.login")" \
        'of them failed' "$(grep -vc '^0 ' "$work/hv.login")" "$(grep -vc '^0 ' "$work/qemu.login")"
    login_row 'time, seconds' 2
    login_row 'processor time, seconds' 3
    login_row "  without the guest's own" own
    login_row "the host's load average then" 5
}
