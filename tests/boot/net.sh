# shellcheck shell=bash disable=SC2154 # name, HV and the images' paths are the runner's
# What the tests of network cards share: a guest of images/linux-shell.sh with a published port behind
# which it echoes, and a web server on this host's loopback, by IPv4 and IPv6.

# The address of this host that the guest's 10.0.2.2 is.
net_host=127.0.0.1

# net_web: the folder web as port $web of $net_host and ::1, and more free ports. Once is enough.
net_web() {
    [ -z "${web:-}" ] || return 0
    mkdir web
    head -c 1048576 /dev/urandom >piece
    cp piece web/piece
    read -ra free < <(free_ports 3)
    web=${free[0]} upload=${free[1]} echo=${free[2]}
    python3 -m http.server --directory web --bind "$net_host" "$web" >/dev/null 2>web.log &
    helpers+=($!)
    python3 -m http.server --directory web --bind ::1 "$web" >/dev/null 2>web6.log &
    helpers+=($!)
    python3 - "$web" <<'END'
import socket, sys, time
for host in '127.0.0.1', '::1':
    for _ in range(600):
        try:
            socket.create_connection((host, int(sys.argv[1]))).close()
            break
        except OSError:
            time.sleep(0.1)
END
}

# net_guest MODEL [ARGUMENTS]: the guest, with its address from DHCP.
net_guest() {
    local model=$1
    shift
    : >known
    net_web
    start --kernel "$linux_shell/vmlinuz" --initrd "$linux_shell/initrd" --memory 512M --cpus 1 \
        --append 'console=ttyS0 quiet' --serial pty --net "user,model=$model" -p "$echo:7" "$@"
    guest_shell 120
    guest 'ip link set eth0 up; udhcpc -i eth0 -q -n -f -s /bin/dhcp 2>/dev/null'
    grep -qx 'lease: 10.0.2.15 router 10.0.2.2 dns 10.0.2.3' said || fail "DHCP: $(cat said)"
    guest 'ping -c 3 -i 0.2 10.0.2.2 | grep -q " 0% packet loss"'
    guest 'echo-server 7 </dev/null >/dev/null 2>&1 &'
}

# free_ports COUNT: ports of this host that nobody uses just now.
free_ports() {
    python3 -c 'import socket, sys
all = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in all: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in all))' "$1"
}

# pieces MIB: that much of it.
pieces() { for _ in $(seq "$1"); do cat piece; done; }

# net_transfers MIB BACK: so many MiB to the guest by HTTP, and so many from it.
net_transfers() {
    local sum began=$SECONDS
    pieces "$1" >web/big
    sum=$(md5sum <web/big)
    guest "wget -qO- http://10.0.2.2:$web/big | md5sum" 300
    [ "$(cat said)" = "$sum" ] || fail 'other bytes came to the guest'
    echo "# $1 MiB to the guest: $((SECONDS - began)) s"
    began=$SECONDS
    # It hangs up when it has all: busybox's nc does not tell when its input has ended.
    rm -f listens
    mkfifo listens
    python3 - "$upload" "$2" "$net_host" >came <<'END' &
import hashlib, socket, sys
with socket.create_server((sys.argv[3], int(sys.argv[1]))) as server:
    open('listens', 'w').close()
    with server.accept()[0] as s:
        left, sum = int(sys.argv[2]) << 20, hashlib.md5()
        while left and (piece := s.recv(min(left, 65536))):
            sum.update(piece)
            left -= len(piece)
print(sum.hexdigest(), ' -')
END
    guest "wget -qO /tmp/piece http://10.0.2.2:$web/piece" 60
    : <listens # opens when the server does
    guest "for i in \$(seq $2); do cat /tmp/piece; done | nc 10.0.2.2 $upload" 200
    wait $!
    [ "$(cat came)" = "$(pieces "$2" | md5sum)" ] || fail 'other bytes came from the guest'
    echo "# $2 MiB from the guest: $((SECONDS - began)) s"
}

# net_ipv6: an address by router advertisement, and a page from this host's ::1.
net_ipv6() {
    guest 'until ip -6 address show dev eth0 | grep -q "fec0:.*/64"; do sleep 0.2; done'
    guest 'while ip -6 address show dev eth0 | grep -q tentative; do sleep 0.2; done'
    guest "wget -qO- http://[fec0::2]:$web/piece | md5sum"
    [ "$(cat said)" = "$(md5sum <piece)" ] || fail 'other bytes came by IPv6'
}

# net_names: the name server of this host answers the guest's questions. Only in the lab, whose
# resolv.conf nobody else reads and vanishes with it.
net_names() {
    [ -n "${HV_LAB:-}" ] || return 0
    echo 'nameserver 127.0.0.1' >/etc/resolv.conf
    python3 - <<'END' &
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(('127.0.0.1', 53))
while True:
    query, who = server.recvfrom(4096)
    end = query.index(b'\0', 12) + 5
    question, known = query[12:end], query[12:end].startswith(b'\x07example\0\0\x01')
    count = b'\0\x01' if known else b'\0\0'
    answer = b'\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04' + bytes([192, 0, 2, 7]) if known else b''
    flags = b'\x81\x80' if b'\x07example\0' in question else b'\x81\x83'
    server.sendto(query[:2] + flags + b'\0\x01' + count + b'\0\0\0\0' + question + answer, who)
END
    helpers+=($!)
    # The server may not listen yet.
    guest 'for i in 1 2 3 4 5; do nslookup example | grep -q 192.0.2.7 && break; sleep 1; done; [ $i -lt 5 ]'
    guest 'nslookup nobody.invalid 2>&1; true'
    grep -q NXDOMAIN said || fail "a name that nobody has: $(cat said)"
}

# net_pid: that of hv-net, which serves the machine's network; its keeper has another. vmm_pid: hv-vmm's.
net_pid() { "$HV" info "$name" | python3 -c 'import json, sys; print(json.load(sys.stdin)["network"]["pid"])'; }
vmm_pid() { "$HV" info "$name" | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])'; }

# call COUNT SECONDS [PID]: so many connections to the guest, one after the other. One that is refused
# or cut off is tried again until the time is over. With PID, that process is killed at their start.
# Says how many milliseconds they took: of themselves, for on an emulated host the start of a program
# takes seconds.
call() {
    python3 - "$echo" "$@" <<'END'
import os, signal, socket, sys, time
port, count, limit, *pid = map(int, sys.argv[1:])
if pid:
    os.kill(pid[0], signal.SIGKILL)
began = time.monotonic()
done = 0
while done < count:
    text = b'call %d\n' % done
    try:
        with socket.create_connection(('127.0.0.1', port), timeout=5) as s:
            s.sendall(text)
            s.shutdown(socket.SHUT_WR)
            came = b''
            while piece := s.recv(4096):
                came += piece
        if came == text:
            done += 1
            continue
        what = 'answered %r' % came
    except OSError as error:
        what = str(error)
    if time.monotonic() > began + limit:
        sys.exit('call %d of %d: %s' % (done, count, what))
    time.sleep(0.02)
print(int((time.monotonic() - began) * 1000))
END
}

# holds PID: how many descriptors it has, and how many KiB of memory of its own.
holds() {
    ls "/proc/$1/fd" | wc -l
    sed -n 's/^RssAnon:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$1/status"
}

# settled PID: the same when it has got rid of what lingers: libslirp keeps the socket of a connection
# that is over for ten seconds.
settled() {
    local fds=none last end=$((SECONDS + 40))
    until [ "$fds" = "${last:-}" ] || [ $SECONDS -gt $end ]; do
        last=$fds
        sleep 6
        fds=$(holds "$1" | head -1)
    done
    holds "$1"
}

# net_calls COUNT: so many connections through the published port, 16 at a time, after some hundreds that
# fill what is kept for the next: they cost no descriptor and no memory, neither hv-net nor the machine.
net_calls() {
    local calls net vmm pid before after began=$SECONDS
    calls=$(dirname "$HV")/../tests/boot/calls
    call 1 30 >/dev/null
    net=$(net_pid) vmm=$(vmm_pid)
    "$calls" "$echo" $(($1 < 1000 ? $1 : 1000)) 16 2>refused || fail "$(cat refused)"
    settled "$net" >"held-$net"
    holds "$vmm" >"held-$vmm"
    "$calls" "$echo" "$1" 16 2>refused || fail "$(cat refused)"
    echo "# $1 calls: $((SECONDS - began)) s"
    [ "$(net_pid)" = "$net" ] || fail 'hv-net has been started anew'
    settled "$net" >/dev/null
    for pid in $net $vmm; do
        mapfile -t before <"held-$pid"
        mapfile -t after < <(holds "$pid")
        echo "# $(cat "/proc/$pid/comm"): ${before[0]} descriptors and ${before[1]} KiB before," \
            "${after[0]} and ${after[1]} after"
        [ "${after[0]}" -le "${before[0]}" ] || fail "$1 calls leave descriptors behind"
        [ "${after[1]}" -le $((before[1] + 4096)) ] || fail "$1 calls leave memory behind"
    done
}

# net_cable: the guest sees it pulled and plugged, and has its network back.
net_cable() {
    local carrier=/sys/class/net/eth0/carrier
    "$HV" set "$name" net=off
    guest "until [ \$(cat $carrier) = 0 ]; do sleep 0.1; done"
    "$HV" set "$name" net=on
    guest "until [ \$(cat $carrier) = 1 ]; do sleep 0.1; done"
    call 1 20 >/dev/null
}

# net_killed: hv-net dies five times during a download; new connections work soon after.
net_killed() {
    local took
    pieces 8 >web/part
    for _ in 1 2 3 4 5; do
        guest "(while :; do timeout 5 wget -qO /dev/null http://10.0.2.2:$web/part; done) </dev/null >/dev/null 2>&1 & loop=\$!"
        call 5 20 >/dev/null
        took=$(call 1 20 "$(net_pid)")
        echo "# a call $took ms after hv-net was killed"
        # Two seconds, on a host that is not emulated.
        [ "$took" -lt ${HV_LAB:+1}0000 ] || [ "$took" -lt 2000 ] || fail "the network was gone for $took ms"
        guest 'kill $loop; wget -qO- http://10.0.2.2:'"$web"'/piece | md5sum'
        [ "$(cat said)" = "$(md5sum <piece)" ] || fail 'other bytes came after hv-net was killed'
    done
    guest 'cat /sys/class/net/eth0/carrier'
    [ "$(cat said)" = 1 ] || fail 'the guest has no carrier'
}
