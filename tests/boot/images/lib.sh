# shellcheck shell=sh
# What the scripts that make guest images share. Each script makes one image from packages of
# Debian's archive and prints its path:
#
#   . "$(dirname "$0")/lib.sh"
#   image NAME.img              ends here, with the path, when the cache has it from this script
#   ...                         builds in $work, which vanishes at the end
#   publish "$work/disk.img"    moves it into the cache, whole or not at all
#
# The cache is $HV_TEST_CACHE, or hv-tests in the user's cache folder.

set -eu
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

script=$(readlink -f "$0")
images=$(dirname "$script")
cache=${HV_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hv-tests}
mkdir -p "$cache"
cache=$(readlink -f "$cache")

if [ "$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# image NAME: the script makes $cache/NAME. The image is made again when the script's text has
# changed, which a check sum tells and the time of a fresh checkout does not.
image() {
    result=$cache/$1
    recipe=$(cat "$script" "$images/lib.sh" | cksum)
    exec 9>"$result.lock"
    flock 9
    if [ -s "$result" ] && [ "$(cat "$result.recipe" 2>/dev/null)" = "$recipe" ]; then
        echo "$result"
        exit 0
    fi
    work=$(mktemp -d "$cache/${0##*/}.XXXXXX")
    trap 'cleanup' EXIT
    trap 'exit 1' HUP INT TERM
}

# What root put there (a Debian root file system) only root can remove.
cleanup() { rm -rf "$work" 2>/dev/null || $sudo rm -rf "$work"; }

publish() {
    rm -f "$result.recipe"
    mv -f "$1" "$result"
    echo "$recipe" >"$result.recipe"
    echo "$result"
}

# need COMMAND:PACKAGE...: install the packages whose command is missing.
need() {
    missing=
    for pair; do
        command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
    done
    [ -n "$missing" ] || return 0
    package_lists
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends \
        $missing >/dev/null 9>&- || die "cannot install:$missing"
}

package_lists() {
    ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1 || $sudo apt-get update -qq
}

# unpack PACKAGE...: the packages' files in $work/root, nothing installed.
unpack() {
    package_lists
    mkdir -p "$work/root" "$work/deb"
    (cd "$work/deb" && apt-get download -qq "$@" >/dev/null 2>"$work/apt.log") || {
        cat "$work/apt.log" >&2
        die "cannot download: $*"
    }
    for deb in "$work"/deb/*.deb; do dpkg -x "$deb" "$work/root"; done
    rm -rf "$work/deb"
}

# le32 NUMBER: four bytes, lowest first.
le32() {
    printf "\\$(printf %o $(($1 & 255)))\\$(printf %o $(($1 >> 8 & 255)))"
    printf "\\$(printf %o $(($1 >> 16 & 255)))\\$(printf %o $(($1 >> 24 & 255)))"
}

# partition DISK START SECTORS TYPE: one active primary partition in a new partition table. The
# cylinder fields say "beyond CHS", as for every disk over 8 GB; all loaders go by LBA.
partition() {
    {
        printf '\200\376\377\377'
        printf "\\$(printf %o "$4")\\376\\377\\377"
        le32 "$2"
        le32 "$3"
    } | dd of="$1" bs=1 seek=446 conv=notrunc status=none
    printf '\125\252' | dd of="$1" bs=1 seek=510 conv=notrunc status=none
}

# grub_iso FOLDER: $work/disk.iso, a CD that GRUB boots, with FOLDER's files and its
# boot/grub/grub.cfg.
grub_iso() {
    need grub-mkrescue:grub-common xorriso:xorriso mformat:mtools
    unpack grub-pc-bin
    grub-mkrescue -d "$work/root/usr/lib/grub/i386-pc" -o "$work/disk.iso" --fonts= --locales= \
        --themes= --install-modules="normal linux multiboot part_msdos iso9660 serial terminal \
        echo ls cat boot test minicmd reboot halt configfile" "$1" >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        die 'grub-mkrescue failed'
    }
}
