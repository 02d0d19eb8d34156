# shellcheck shell=bash disable=SC2154 # name, HV and the images' paths are the runner's
# A guest of images/linux-shell.sh with a published port behind which it echoes, and a web server on this
# host's loopback.

# net_web: the folder web as port $web of 127.0.0.1, and one more free port. Once is enough.
net_web() {
    [ -z "${web:-}" ] || return 0
    mkdir web
    head -c 1048576 /dev/urandom >piece
    read -ra free < <(free_ports 2)
    web=${free[0]} echo=${free[1]}
    python3 -m http.server --directory web --bind 127.0.0.1 "$web" >/dev/null 2>web.log &
    helpers+=($!)
    python3 - "$web" <<'END'
import socket, sys, time
for _ in range(600):
    try:
        socket.create_connection(('127.0.0.1', int(sys.argv[1]))).close()
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

# call COUNT SECONDS: so many connections to the guest, one after the other. One that is refused or cut off is
# tried again until the time is over.
call() {
    python3 - "$echo" "$@" <<'END'
import socket, sys, time
port, count, limit = map(int, sys.argv[1:])
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
END
}
