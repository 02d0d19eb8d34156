#!/bin/bash
# lint.sh [--quick] [BUILD]: what a compiler does not check. BUILD (build) must be built.
#
# --quick: the rules on how the source is put together (a meson test). Without it, also the
# formatter, cppcheck and clang-tidy (./dev lint). Every exception has its reason in this file.
set -u
cd "$(dirname "$0")/.." || exit
quick=
[ "${1:-}" != --quick ] || { quick=yes; shift; }
build=${1:-build}
[ -d "$build/src" ] || { echo "lint: $build: build first (./dev build)" >&2; exit 2; }
map=docs/architecture.md
failed=0

# report TITLE: fails when there is input, and shows it.
report() {
    local lines
    lines=$(cat)
    if [ -n "$lines" ]; then
        failed=1
        printf 'FAILED: %s\n%s\n' "$1" "$lines"
    else
        echo "ok: $1"
    fi
}

# except LIST: drops lines whose first word is on the list, and complains about entries that are
# not needed any more. A list has a word and its reason on each line.
except() {
    awk -v list="$1" '
        BEGIN {
            n = split(list, lines, "\n")
            for (i = 1; i <= n; i++) if (split(lines[i], word, " ") > 1) reason[word[1]] = 1
        }
        $1 in reason { used[$1] = 1; next }
        { print }
        END { for (w in reason) if (!(w in used)) print w ": this exception is not needed" }'
}

sources() { find src -name '*.[ch]' -o -name '*.h.in' | sort; }

# objects: "source object" of each object file whose source exists.
objects() {
    find "$build/src" -name '*.c.o' | while read -r object; do
        dir=${object#"$build/"}
        dir=${dir%/*/*}
        name=${object##*/}
        name=${name%.o}
        source=$dir/${name/_//}
        [ ! -f "$source" ] || echo "$source $object"
    done | sort -u -k1,1
}

# --- the map of the source ------------------------------------------------------------------------

# In the chapter "The source", under a heading with the folder, a file stands in the list once:
# - `name.c`, `name.h`: what it is
mapped() {
    awk '
        /^## / { on = /^## The source/ }
        on && /^### / { match($0, /`[^`]*`/); folder = substr($0, RSTART + 1, RLENGTH - 2) }
        on && /^- `/ {
            sub(/:.*/, "")
            n = split($0, part, "`")
            for (i = 2; i <= n; i += 2) print folder part[i]
        }' "$map" | sort
}
{
    comm -3 <(sources) <(mapped | uniq) | sed 's/^\t\(.*\)/\1: on the map, but no such file/
                                               t
                                               s/$/: not on the map/'
    mapped | uniq -d | sed 's/$/: more than once on the map/'
} 2>&1 | report "$map names every source file once"

{
    grep -oE '`(src|tests|docs|man|firmware|examples)/[^` ]*`' README.md docs/*.md | tr -d '`' |
        while IFS=: read -r document path; do
            case $path in
            *[A-Z]*) ;; # a place holder
            *) [ -e "$path" ] || echo "$document: $path: there is no such file" ;;
            esac
        done
} 2>&1 | report 'documents name files that exist'

# The pages name every verb, option, method and exit status. named FILE TABLE-PATTERN PAGE MACRO:
named() {
    sed -nE "s/$2/\\1/p" "$1" | while read -r name; do
        grep -qE -- "^\.It (.*[^a-z])?$4 ?$name( |$)" "$3" || echo "$3: nothing about $name ($1)"
    done
}
{
    named src/cli/main.c '^    \{ "([a-z]+)", .* verb_.*' man/hv.1 Cm
    named src/machine/config.c '^    \{ "([a-z]+)", .*SETTING_.*' man/hv-run.1 -
    named src/net/net-control.c '^ .*\{ "([a-z.]+)", method_.*' man/hv-control.7 Cm
    named src/machine/control.c '^    \{ "([a-z.]+)", .*_[a-z]+ \},$' man/hv-control.7 Cm
    named src/base/error.h '^ *HV_[A-Z_]+ = ([0-9]),.*' man/hv.1 ''
} 2>&1 | report 'the manual names every verb, option, method and exit status'

# The verbs of hv test and their arguments, in the table and on the page.
diff <(tr '\n' ' ' <src/test/verbs.c | grep -oE '\{ VERB_[A-Z0-9_]+, *"[^"]*", *"[^"]*"' |
    sed -E 's/^[^"]*"([^"]*)", *"([^"]*)"/\1 \2/; s/ *$//' | sort) \
    <(sed -nE 's/^\.It Cm ([a-z0-9 ]+)( Li (.*))?$/\1 \3/p' man/hv-test.5 | sed 's/\\&//g; s/ *$//; s/^\(.*[^ ]\)  */\1 /' | sort) |
    sed -n 's/^[<>]/& /p' | report 'man/hv-test.5 has the verbs of the table, with their arguments'

{ # the editor knows them, too
    tr '\n' ' ' <src/test/verbs.c | grep -oE '\{ VERB_[A-Z0-9_]+, *"[^"]*"' | sed 's/.*"\(.*\)"/\1/' | while read -r verb; do
        grep -qE "hvtVerb .*[|(]$verb\\\\[|)]" data/vim/syntax/hvt.vim || echo "$verb"
    done
} 2>&1 | report 'data/vim/syntax/hvt.vim has the verbs of the table'

# What users copy: the examples of boot tests are right, and their README has each.
for script in examples/boot-tests/*.hvt; do
    settings=$(grep -o '\${[a-z]*}' "$script" | grep -vF '${folder}' | sort -u | sed 's/^..\(.*\)}$/\1=x/' | paste -sd,)
    "$build/src/hv" test --check ${settings:+--set "$settings"} "$script"
    grep -q "${script##*/}" examples/boot-tests/README.md || echo "$script: README.md does not have it"
done 2>&1 | report 'the examples of hv test are right'

# --- layers ---------------------------------------------------------------------------------------

# A folder includes what is below it.
sources | xargs grep -nE '^ *# *include "[a-z]+/' | awk -F'[:"/]' '
    BEGIN {
        split("base:0 guest:0 keys:1 libkvm:1 memory:1 block:2 bus:2 net:2 remote:2 boot:3 devices:3 reading:3 vcpu:3 machine:4 " \
              "cli:5 ui:5 test:6", pairs, " ")
        for (i in pairs) { split(pairs[i], p, ":"); level[p[1]] = p[2] }
    }
    {
        own = $2
        for (i = 3; i <= NF; i++) if ($i ~ /include/) other = $(i + 1)
        if (own == other) next
        if (!(own in level) || !(other in level)) print $0 ": a folder that has no level"
        else if (level[own] <= level[other] || (own == "ui" && other == "machine"))
            print $0 ": " own " is not above " other
    }' 2>&1 | report 'includes go down only'

# --- data and calls -------------------------------------------------------------------------------

objects | awk 'END { if (NR < 50) print NR " objects" }' | report "$build has the objects of the source"

# Mutable data of file scope: several machines could not live in one process, tests not run after
# one another.
mutable="
src/base/error.c:q what G_DEFINE_QUARK makes
src/base/log.c:max_level the process has one log
src/bus/device.c:limit guest_bug: what is written goes to the one log
src/bus/device.c:lock of that
"
objects | while read -r source object; do
    objdump -t "$object" | awk -v source="$source" '
        / O \.(data|bss|tdata|tbss)/ && !/\.data\.rel\.ro/ { sub(/\..*/, "", $NF); print source ":" $NF }'
done 2>&1 | except "$mutable" 2>&1 | report 'no mutable data of file scope'

# Calls that end the process, write to the terminal, allocate or lock have no place where a guest
# can reach: all of src/devices and src/block.
calls="
src/block/chain.c:g_malloc0 runs before there is a guest
src/block/format.c:g_malloc0 runs before there is a guest
src/block/image.c:g_strdup_printf runs in hv, before there is a guest
src/block/copy.c:g_malloc for tools only
src/block/mapped.c:g_mutex_lock around work on its thread; the owner's, to change its map and to drain
src/block/overlay.c:g_malloc0 when it is opened
src/block/concat.c:g_mutex_lock the owner's, to drain
src/block/qcow2-backing.c:g_mutex_lock for tools, while nothing is in flight
src/block/qcow2-pack.c:g_mutex_lock for tools, while nothing is in flight
src/block/qcow2-resize.c:g_mutex_lock for tools, and on the thread of the machine
src/block/qcow2.c:g_malloc0 runs before there is a guest
src/block/qcow2.c:g_strdup_printf for tools only
src/block/raw.c:g_malloc0 when it is opened
src/block/raw.c:g_mutex_lock the owner's, to drain and to grow; one flush at a time on threads
src/block/remote.c:g_malloc0 when it is opened
src/block/remote.c:g_mutex_lock its queue, between the device and the disk's thread; the owner's on that
src/block/faults.c:g_malloc0 when somebody sets the first fault
src/block/faults.c:g_mutex_lock the owner's, to drain, to try again and to end
src/block/uring.c:g_mutex_lock the owner's, to drain and to end
src/block/volatile.c:g_malloc0 when it is opened
src/block/volatile.c:g_malloc when it is opened
src/block/volatile.c:g_mutex_lock its table, on threads of disks and tools
src/block/worker.c:g_mutex_lock a disk's queue, between the device and the disk's threads
src/block/zeroes.c:g_malloc0 when it is opened
src/devices/ahci.c:g_malloc0 in init: the drives' buffers
src/devices/nvme-queue.c:g_malloc0 in init: commands and tables
src/devices/q35-host.c:aligned_alloc in init: the BIOS shadow; failure is an error
src/devices/vga.c:g_malloc0 in init: the bitmaps
src/devices/vga.c:g_malloc0_n in init: the bitmaps
"
banned='^(abort|_?_?exit|quick_exit|_Exit|__assert_fail|g_assertion_.*|g_log.*|g_print.*|g_error.*|perror'
banned+='|(__)?v?f?printf(_chk)?|puts|putchar|fputs|fputc|fwrite'
banned+='|malloc|calloc|realloc|aligned_alloc|g_malloc.*|g_realloc.*|g_strdup_printf'
banned+='|g_mutex_(lock|trylock)|pthread_mutex_.*)$'
objects | grep -E '^src/(devices|block)/' | while read -r source object; do
    nm -u "$object" | awk -v source="$source" -v banned="$banned" \
        '$2 ~ banned { print source ":" $2 }'
done 2>&1 | except "$calls" 2>&1 | report 'devices and disks make no call that ends, prints, allocates or locks'

# --- size -----------------------------------------------------------------------------------------

long="
"
sources | xargs wc -l | awk '$2 != "total" && $1 > 600 { print $2 " " $1 " lines" }' |
    except "$long" 2>&1 | report 'no file has more than 600 lines'

# --- headers --------------------------------------------------------------------------------------

modules='glib-2.0 jansson'
pkg-config --exists sdl2 SDL2_ttf && modules="$modules sdl2 SDL2_ttf"
read -ra flags < <(pkg-config --cflags $modules)
for header in $(find src -name '*.h'); do
    case $header in src/ui/*) [[ $modules == *sdl2* ]] || continue ;; esac
    echo "#include \"${header#src/}\"" |
        ${CC:-cc} -std=gnu11 -D_GNU_SOURCE -fsyntax-only -Isrc -I"$build/src/devices" "${flags[@]}" \
            -x c - 2>&1 | sed "s|^|$header: |"
done | report 'each header compiles alone'

[ -z "$quick" ] || exit $failed

# --- tools ----------------------------------------------------------------------------------------

for tool in mandoc clang-format cppcheck clang-tidy; do
    command -v $tool >/dev/null || echo "$tool is not installed"
done | report 'the tools are there'

mandoc -T lint -W warning man/* 2>&1 | report 'the manual is well-formed'

find src tests examples -name '*.[ch]' | sort | xargs clang-format --dry-run 2>&1 |
    grep -E ': (warning|error):' | report 'clang-format changes nothing'

# cppcheck does not read system headers; these macros of theirs it has to know.
macros=$build/lint-macros.h
cat >"$macros" <<'END'
#define G_DEFINE_QUARK(a, b)
#define G_DEFINE_AUTOPTR_CLEANUP_FUNC(a, b)
#define G_GNUC_PRINTF(a, b)
#define json_array_foreach(array, i, item) for (i = 0; (item = json_array_get(array, i)); i++)
END
# internalAstError: it gives up on compound literals in arguments. What else it is wrong about:
wrong="
src/base/fds.c:nullPointer accept4 may be given no address
src/memory/bus.c:memleak it is returned
src/memory/guest.c:uninitvar it is the caller's
src/net/slirp.c:deallocret the number is wanted, not the file
src/machine/display.c:memleak act() frees it, on the machine's thread
"
cppcheck -q -j "$(nproc)" --enable=warning,performance,portability --std=c11 --inline-suppr \
    --library=gtk,posix,gnu,sdl --include="$macros" -Isrc -I"$build/src/devices" \
    --suppress=missingInclude --suppress=internalAstError \
    --template='{file}:{id} in line {line}: {message}' src 2>&1 |
    except "$wrong" 2>&1 | report cppcheck

# clang-tidy wants clang's options: those of the build that ./dev test has.
[ -f build-clang/build.ninja ] || CC=clang meson setup build-clang -Dwerror=true >/dev/null
ninja -C build-clang firmware/dsdt.inc >/dev/null
wrong="
src/memory/bus.c:clang-analyzer-core.NullDereference a mapping that counts has a region
src/devices/ps2-keyboard.c:clang-analyzer-core.UndefinedBinaryOperatorResult the bit is one of 8
"
find src -name '*.c' | xargs -P "$(nproc)" -n 4 clang-tidy --quiet -p build-clang 2>/dev/null |
    sed -nE 's/.*(src\/[^:]*):([0-9]+):[0-9]+: (warning|error): (.*) \[([^],]*).*/\1:\5 in line \2: \4/p' |
    sort -u | except "$wrong" 2>&1 | report clang-tidy

exit $failed
