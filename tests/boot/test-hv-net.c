/* hv-net with a guest that speaks by hand: addresses, connections both ways, large segments,
 * published ports, restriction, and dying. Argument: hv-net. */
#include "boot/net-guest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *hv_net(void)
{
    return g_getenv("HV_NET");
}

static struct net_guest *start(const char *rules, bool restricted)
{
    struct net_guest *g = net_guest_new(hv_net(), rules, restricted, NULL);
    g_assert_nonnull(g);
    return g;
}

static int on_loopback(int type, uint16_t *port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, type, 0);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&address, sizeof address), ==, 0);
    g_assert_cmpint(getsockname(fd, (struct sockaddr *)&address, &size), ==, 0);
    *port = ntohs(address.sin_port);
    if (type == SOCK_STREAM)
        g_assert_cmpint(listen(fd, 16), ==, 0);
    return fd;
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr = { htonl(INADDR_LOOPBACK) },
                                   .sin_port = htons(port) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    close(fd);
    return -1;
}

/* A port of the host that is free now. */
static uint16_t free_port(void)
{
    uint16_t port;
    close(on_loopback(SOCK_STREAM, &port));
    return port;
}

static void addresses(void)
{
    struct net_guest *g = start("", false);
    g_assert_cmphex(net_guest_dhcp(g, 2000), ==, net_address("10.0.2.15"));
    net_guest_arp(g, net_address("10.0.2.2"));
    g_assert_true(net_guest_receive(g, 2000));
    static const uint8_t router[] = { 0x52, 0x55, 10, 0, 2, 2 };
    g_assert_cmpmem(g->frame + 22, 6, router, 6);
    net_guest_free(g);
}

/* The host's end of a connection of the guest. */
static int accepted(int listener)
{
    struct pollfd wait = { listener, POLLIN, 0 };
    g_assert_cmpint(poll(&wait, 1, 2000), ==, 1);
    return accept(listener, NULL, NULL);
}

static void from_host(void)
{
    enum { ALL = 1 << 20 };
    uint16_t port;
    int listener = on_loopback(SOCK_STREAM, &port);
    struct net_guest *g = start("", false);
    struct net_tcp t;
    g_assert_true(net_tcp_connect(&t, g, net_address("10.0.2.2"), port, 2000));
    g_assert_cmpuint(t.mss, ==, 1460);
    int host = accepted(listener);
    g_assert_cmpint(fcntl(host, F_SETFL, O_NONBLOCK), ==, 0);
    g_autofree uint8_t *data = g_malloc(ALL);
    for (size_t i = 0; i < ALL; i++)
        data[i] = (uint8_t)(i * 7 + (i >> 9));
    size_t written = 0, read = 0;
    while (read < ALL) {
        ssize_t n = written < ALL ? write(host, data + written, ALL - written) : 0;
        written += n > 0 ? (size_t)n : 0;
        const uint8_t *at;
        n = net_tcp_receive(&t, &at, 2000);
        g_assert_cmpint(n, >, 0);
        g_assert_true(!memcmp(at, data + read, (size_t)n));
        read += (size_t)n;
        if (n > 1460) {
            g_assert_cmpuint(g->header.segment_type, ==, NET_TCP4);
            g_assert_cmpuint(g->header.flags, ==, NET_NEEDS_CHECKSUM);
            g_assert_cmpuint(le16_get(g->header.segment_size), ==, 1460);
        }
    }
    g_assert_cmpuint(t.large, >, 0);
    close(host);
    net_tcp_close(&t);
    g_assert_true(t.finished);
    close(listener);
    net_guest_free(g);
}

static void to_host(void)
{
    uint16_t port;
    int listener = on_loopback(SOCK_STREAM, &port);
    struct net_guest *g = start("", false);
    struct net_tcp t;
    uint8_t data[60000], got[sizeof data];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 5 + (i >> 8));
    g_assert_true(net_tcp_connect(&t, g, net_address("10.0.2.2"), port, 2000));
    int host = accepted(listener);
    for (unsigned i = 0; i < 8; i++) {
        net_tcp_send(&t, NET_ACK | NET_PSH, data, sizeof data);
        for (size_t at = 0; at < sizeof got;) {
            ssize_t n = read(host, got + at, sizeof got - at);
            g_assert_cmpint(n, >, 0);
            at += (size_t)n;
        }
        g_assert_cmpmem(got, sizeof got, data, sizeof data);
    }
    /* Urgent data is data: an urgent pointer far behind it shows the host nothing else. */
    net_tcp_send(&t, NET_ACK | NET_URG, "urgent", 6);
    g_assert_cmpint(recv(host, got, 6, MSG_WAITALL), ==, 6);
    g_assert_cmpmem(got, 6, "urgent", 6);
    close(host);
    close(listener);
    net_guest_free(g);
}

static void large_datagram(void)
{
    uint16_t port;
    int host = on_loopback(SOCK_DGRAM, &port);
    struct net_guest *g = start("", false);
    uint8_t datagram[8 + 5] = { 0x30, 0x39 }, frame[100], whole[6000], data[5000];
    net_put16(datagram + 2, port);
    net_put16(datagram + 4, sizeof datagram);
    memcpy(datagram + 8, "hello", 5);
    net_guest_arp(g, net_address("10.0.2.2"));
    g_assert_true(net_guest_receive(g, 2000));
    net_guest_send(g, NULL, frame,
                   net_ip4(g, frame, 17, net_address("10.0.2.15"), net_address("10.0.2.2"),
                           datagram, sizeof datagram));
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    g_assert_cmpint(recvfrom(host, data, sizeof data, 0, (struct sockaddr *)&from, &size), ==, 5);
    memset(data, 'x', sizeof data);
    g_assert_cmpint(sendto(host, data, sizeof data, 0, (struct sockaddr *)&from, size), ==,
                    sizeof data);
    size_t got = 0;
    for (bool more = true; more;) {
        g_assert_true(net_guest_receive(g, 2000));
        const uint8_t *ip = g->frame + 14;
        unsigned length = net_get16(ip + 2), place = net_get16(ip + 6);
        g_assert_cmpuint(length, <=, 1500);
        g_assert_cmpuint((place & 0x1fff) * 8, ==, got);
        memcpy(whole + got, ip + 20, length - 20);
        got += length - 20;
        more = place & 0x2000;
    }
    g_assert_cmpuint(got, ==, 8 + sizeof data);
    g_assert_cmpmem(whole + 8, sizeof data, data, sizeof data);
    close(host);
    net_guest_free(g);
}

/* A datagram from the host through a published port; whether the guest's answer comes back. */
static bool visit_udp(struct net_guest *g, uint16_t port)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_addr = { htonl(INADDR_LOOPBACK) },
                              .sin_port = htons(port) };
    int host = socket(AF_INET, SOCK_DGRAM, 0);
    char text[8] = "";
    uint8_t frame[100], answer[8 + 4] = { 0 };
    g_assert_cmpint(sendto(host, "ask", 3, 0, (struct sockaddr *)&to, sizeof to), ==, 3);
    do
        g_assert_true(net_guest_receive(g, 2000));
    while (g->frame[14 + 9] != 17);
    const uint8_t *udp = g->frame + 34;
    g_assert_cmpuint(net_get16(udp + 2), ==, 53);
    g_assert_cmpmem(udp + 8, 3, "ask", 3);
    memcpy(answer, udp + 2, 2);
    memcpy(answer + 2, udp, 2);
    net_put16(answer + 4, sizeof answer);
    memcpy(answer + 8, "here", 4);
    size_t length = net_ip4(g, frame, 17, net_get32(g->frame + 30), net_get32(g->frame + 26),
                            answer, sizeof answer);
    net_guest_send(g, NULL, frame, length);
    struct pollfd wait = { host, POLLIN, 0 };
    bool came = poll(&wait, 1, 500) == 1 && recv(host, text, sizeof text, 0) == 4;
    close(host);
    return came;
}

static void published_udp(void)
{
    uint16_t port = free_port();
    g_autofree char *rules = g_strdup_printf("%u:53/udp\n", port);
    struct net_guest *g = start(rules, false);
    g_assert_true(visit_udp(g, port));
    g_assert_true(visit_udp(g, port));
    net_guest_free(g);
}

static unsigned open_fds(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", (int)pid);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    unsigned count = 0;
    while (dir && g_dir_read_name(dir))
        count++;
    return count;
}

/* One connection from the host through a published port, with a byte each way. */
static void visit(struct net_guest *g, uint16_t port)
{
    struct net_tcp t;
    const uint8_t *at;
    char byte = 0;
    int host = connect_to(port);
    g_assert_cmpint(host, >=, 0);
    g_assert_true(net_tcp_accept(&t, g, 5000));
    g_assert_cmpuint(t.mss, <=, 1460);
    g_assert_cmpint(write(host, "?", 1), ==, 1);
    g_assert_cmpint(net_tcp_receive(&t, &at, 5000), ==, 1);
    g_assert_cmpint(*at, ==, '?');
    net_tcp_send(&t, NET_ACK | NET_PSH, "!", 1);
    g_assert_cmpint(read(host, &byte, 1), ==, 1);
    g_assert_cmpint(byte, ==, '!');
    net_tcp_send(&t, NET_FIN | NET_ACK, NULL, 0);
    g_assert_cmpint(read(host, &byte, 1), ==, 0);
    const struct linger now = { 1, 0 }; /* no TIME_WAIT: the host would run out of ports */
    if (true)
        setsockopt(host, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(host);
    while (!t.finished && net_tcp_receive(&t, &at, 5000) >= 0)
        ;
}

static void published(void)
{
    enum { VISITS = 10000 };
    uint16_t port = free_port();
    g_autofree char *rules = g_strdup_printf("%u:80\n", port);
    struct net_guest *g = start(rules, false);
    visit(g, port);
    pid_t pid = net_guest_pid(g);
    unsigned before = open_fds(pid);
    for (unsigned i = 0; i < VISITS; i++)
        visit(g, port);
    g_assert_cmpint(net_guest_pid(g), ==, pid);
    g_assert_cmpuint(open_fds(pid), <=, before + 2);
    net_guest_free(g);
}

/* Many who call at the same moment find room, although hv-net does not come to accept them. */
static void many_at_once(void)
{
    enum { CALLERS = 64 };
    uint16_t port = free_port();
    g_autofree char *rules = g_strdup_printf("%u:80\n", port);
    struct net_guest *g = start(rules, false);
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr = { htonl(INADDR_LOOPBACK) },
                                   .sin_port = htons(port) };
    int hosts[CALLERS];
    unsigned connected = 0;
    pid_t pid = net_guest_pid(g);
    g_assert_cmpint(kill(pid, SIGSTOP), ==, 0);
    for (unsigned i = 0; i < CALLERS; i++) {
        hosts[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (connect(hosts[i], (struct sockaddr *)&address, sizeof address) < 0)
            g_assert_cmpint(errno, ==, EINPROGRESS);
    }
    for (unsigned i = 0; i < CALLERS; i++) { /* who finds no room is heard a second later */
        struct pollfd wait = { hosts[i], POLLOUT, 0 };
        connected += poll(&wait, 1, 5) == 1 && wait.revents == POLLOUT;
    }
    g_assert_cmpint(kill(pid, SIGCONT), ==, 0);
    g_assert_cmpuint(connected, ==, CALLERS);
    for (unsigned i = 0; i < CALLERS; i++)
        close(hosts[i]);
    net_guest_free(g);
}

static void port_changes(void)
{
    uint16_t port = free_port();
    struct net_guest *g = start("", false);
    g_assert_cmpint(connect_to(port), ==, -1);
    g_autofree char *add = g_strdup_printf("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"publish\","
                                           "\"params\":{\"port\":\"%u:80\"}}\n",
                                           port);
    g_autofree char *done = net_guest_call(g, add);
    g_assert_nonnull(strstr(done, "\"result\""));
    g_autofree char *twice = net_guest_call(g, add);
    g_assert_nonnull(strstr(twice, "published already"));
    visit(g, port);
    /* The rules outlive the process. */
    kill(net_guest_pid(g), SIGKILL);
    g_usleep(100000);
    g_assert_cmphex(net_guest_dhcp(g, 2000), !=, 0);
    visit(g, port);
    g_autofree char *remove =
        g_strdup_printf("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"unpublish\","
                        "\"params\":{\"port\":\"%u\"}}\n",
                        port);
    g_autofree char *gone = net_guest_call(g, remove);
    g_assert_nonnull(strstr(gone, "\"result\""));
    g_assert_cmpint(connect_to(port), ==, -1);
    g_autofree char *none = net_guest_call(g, remove);
    g_assert_nonnull(strstr(none, "not published"));
    net_guest_free(g);
}

static void ask(int control, const char *request)
{
    g_assert_cmpint(write(control, request, strlen(request)), ==, (ssize_t)strlen(request));
}

/* The next segment to the guest with these flags; what else comes is passed over. */
static const uint8_t *next_segment(struct net_guest *g, unsigned flags)
{
    while (net_guest_receive(g, 2000))
        if (g->length >= 54 && g->frame[12] == 8 && !g->frame[13] && g->frame[23] == 6 &&
            g->frame[47] == flags)
            return g->frame + 34;
    return NULL;
}

/* Answers the next SYN to the port. */
static void answer_syn(struct net_guest *g, unsigned port, unsigned flags)
{
    const uint8_t *tcp;
    do {
        tcp = next_segment(g, NET_SYN);
        g_assert_nonnull(tcp);
        g_assert_true(net_sound(g->frame, g->length));
    } while (net_get16(tcp + 2) != port);
    struct net_tcp t = { .g = g, .other = net_address("10.0.2.2"), .port = (uint16_t)port };
    t.other_port = (uint16_t)net_get16(tcp);
    t.received = net_get32(tcp + 4) + 1;
    net_tcp_send(&t, flags, NULL, 0);
}

/* Asked until the port is open; also where no program of this host, and nobody else, is heard. */
static void asked_for_a_port(void)
{
    struct net_guest *g = start("", true);
    int control = net_guest_control(g);
    g_autofree char *wrong =
        net_guest_call(g, "{\"id\":1,\"method\":\"probe\",\"params\":{\"port\":65536}}\n");
    g_assert_nonnull(strstr(wrong, "port: a number from 1 to 65535 is wanted"));
    ask(control, "{\"id\":1,\"method\":\"probe\",\"params\":{\"port\":22}}\n");
    g_autofree char *begun = net_guest_line(control);
    g_assert_nonnull(strstr(begun, "\"result\""));
    answer_syn(g, 22, NET_RST | NET_ACK);
    answer_syn(g, 22, NET_RST | NET_ACK);
    ask(control, "{\"id\":2,\"method\":\"probe\",\"params\":{\"port\":80}}\n");
    g_autofree char *again = net_guest_line(control);
    g_assert_nonnull(strstr(again, "\"result\""));
    answer_syn(g, 80, NET_SYN | NET_ACK);
    const uint8_t *reset = next_segment(g, NET_RST);
    g_assert_true(net_sound(g->frame, g->length));
    g_assert_cmpuint(net_get32(reset + 4), ==, 1);
    g_autofree char *open = net_guest_line(control);
    g_assert_nonnull(strstr(open, "\"accepts\""));
    g_assert_nonnull(strstr(open, "\"port\":80}"));
    /* Nobody asks any more, when the question is answered and when its connection ends. */
    g_assert_null(next_segment(g, NET_SYN));
    ask(control, "{\"id\":3,\"method\":\"probe\",\"params\":{\"port\":81}}\n");
    g_assert_nonnull(next_segment(g, NET_SYN));
    close(control);
    while (next_segment(g, NET_SYN))
        ;
    net_guest_free(g);
}

static void port_in_use(void)
{
    uint16_t port;
    int taken = on_loopback(SOCK_STREAM, &port);
    g_autofree char *rules = g_strdup_printf("%u:80\n", port), *why = NULL;
    g_assert_null(net_guest_new(hv_net(), rules, false, &why));
    g_assert_nonnull(strstr(why, "uses TCP port"));
    close(taken);
}

static void restricted(void)
{
    uint16_t port, open = free_port();
    int listener = on_loopback(SOCK_STREAM, &port);
    g_autofree char *rules = g_strdup_printf("%u:80\n", open);
    struct net_guest *g = start(rules, true);
    struct net_tcp t;
    g_assert_cmphex(net_guest_dhcp(g, 2000), !=, 0);
    g_assert_false(net_tcp_connect(&t, g, net_address("10.0.2.2"), port, 500));
    visit(g, open);
    close(listener);
    net_guest_free(g);
}

/* Killed again and again, it is back within two seconds, and gives the same address. */
static void killed(void)
{
    enum { KILLS = 100, BACK_MS = 2000 };
    uint16_t port;
    int listener = on_loopback(SOCK_STREAM, &port);
    struct net_guest *g = start("", false);
    for (unsigned i = 0; i < KILLS; i++) {
        struct net_tcp t;
        const uint8_t *at;
        gint64 began = g_get_monotonic_time();
        g_assert_cmphex(net_guest_dhcp(g, BACK_MS), ==, net_address("10.0.2.15"));
        g_assert_true(net_tcp_connect(&t, g, net_address("10.0.2.2"), port, BACK_MS));
        g_assert_cmpint(g_get_monotonic_time() - began, <, BACK_MS * 1000);
        int host = accepted(listener);
        g_assert_cmpint(write(host, "data", 4), ==, 4);
        g_assert_cmpint(net_tcp_receive(&t, &at, 2000), ==, 4);
        kill(net_guest_pid(g), SIGKILL);
        close(host);
    }
    close(listener);
    net_guest_free(g);
}

/* A guest that reads nothing costs no more than what the queue holds, and blocks nobody. */
static void deaf_guest(void)
{
    uint16_t port;
    int listener = on_loopback(SOCK_STREAM, &port), hosts[16];
    struct net_guest *g = start("", false);
    g_autofree char *data = g_malloc0(1 << 20);
    for (unsigned i = 0; i < G_N_ELEMENTS(hosts); i++) {
        struct net_tcp t;
        g_assert_true(net_tcp_connect(&t, g, net_address("10.0.2.2"), port, 2000));
        hosts[i] = accepted(listener);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(hosts); i++)
        g_assert_cmpint(send(hosts[i], data, 1 << 20, MSG_DONTWAIT), >, 0);
    for (unsigned i = 0; i < 20; i++) {
        gint64 began = g_get_monotonic_time();
        net_guest_arp(g, net_address("10.0.2.2"));
        g_assert_cmpint(net_guest_pid(g), >, 0);
        g_assert_cmpint(g_get_monotonic_time() - began, <, 500000);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(hosts); i++)
        close(hosts[i]);
    close(listener);
    net_guest_free(g);
}

static guint64 wake_ups(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status", (int)pid), *text = NULL;
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    const char *at = strstr(text, "\nvoluntary_ctxt_switches:");
    return g_ascii_strtoull(at + 25, NULL, 10);
}

static void idle(void)
{
    uint16_t port = free_port();
    g_autofree char *rules = g_strdup_printf("%u:80\n", port);
    struct net_guest *g = start(rules, false);
    pid_t pid = net_guest_pid(g);
    net_guest_arp(g, net_address("10.0.2.2"));
    g_assert_true(net_guest_receive(g, 2000));
    g_usleep(50000);
    guint64 before = wake_ups(pid), keeper = wake_ups(g->keeper);
    g_usleep(2 * G_USEC_PER_SEC);
    g_assert_cmpuint(wake_ups(pid), ==, before);
    g_assert_cmpuint(wake_ups(g->keeper), ==, keeper);
    net_guest_free(g);
}

/* --- a switch between machines -------------------------------------------------------------- */

struct hub {
    char *dir, *path;
    pid_t pid;
};

static int dial(const struct hub *hub)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    g_strlcpy(address.sun_path, hub->path, sizeof address.sun_path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&address, sizeof address), ==, 0);
    return fd;
}

static void hub_start(struct hub *hub)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    hub->dir = g_dir_make_tmp("hv-hub.XXXXXX", NULL);
    hub->path = g_build_filename(hub->dir, "lab", NULL);
    g_strlcpy(address.sun_path, hub->path, sizeof address.sun_path);
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);
    int folder = open(hub->dir, O_RDONLY | O_DIRECTORY);
    g_assert_cmpint(bind(listener, (struct sockaddr *)&address, sizeof address), ==, 0);
    g_assert_cmpint(listen(listener, 16), ==, 0);
    hub->pid = fork();
    if (hub->pid == 0) {
        char words[2][32];
        g_autofree char *path = g_strconcat("path=", hub->path, NULL);
        g_snprintf(words[0], 32, "listener=%d", listener);
        g_snprintf(words[1], 32, "folder=%d", folder);
        execl(hv_net(), "hv-net", "hub", words[0], words[1], path, NULL);
        _exit(127);
    }
    close(listener);
    close(folder);
}

static void say(int fd, uint8_t to, uint8_t from, size_t length)
{
    uint8_t packet[70000] = { 0 };
    memset(packet + 12, to, 6);
    packet[12 + 6] = 2;
    packet[12 + 11] = from;
    if (to != 0xff) {
        memset(packet + 12, 0, 6);
        packet[12] = 2;
        packet[12 + 5] = to;
    }
    g_assert_cmpint(send(fd, packet, length, 0), ==, (ssize_t)length);
}

/* The next packet's source, or -1 when none comes. */
static int hears(int fd, size_t length)
{
    uint8_t packet[70000];
    struct pollfd wait = { fd, POLLIN, 0 };
    if (poll(&wait, 1, 100) < 1)
        return -1;
    g_assert_cmpint(recv(fd, packet, sizeof packet, 0), ==, (ssize_t)length);
    return packet[12 + 11];
}

static void between_machines(void)
{
    struct hub hub;
    hub_start(&hub);
    int a = dial(&hub), b = dial(&hub), c = dial(&hub);
    say(a, 0xff, 1, 60); /* to all */
    g_assert_cmpint(hears(b, 60), ==, 1);
    g_assert_cmpint(hears(c, 60), ==, 1);
    g_assert_cmpint(hears(a, 60), ==, -1);
    say(b, 1, 2, NET_PACKET_MAX); /* to who is known, in the largest packet */
    g_assert_cmpint(hears(a, NET_PACKET_MAX), ==, 2);
    g_assert_cmpint(hears(c, 0), ==, -1);
    say(c, 9, 3, 60); /* to who is not */
    g_assert_cmpint(hears(a, 60), ==, 3);
    g_assert_cmpint(hears(b, 60), ==, 3);
    say(a, 0xff, 1, 12 + 13); /* no frame */
    g_assert_cmpint(hears(b, 0), ==, -1);
    /* One that reads nothing loses packets; the others go on. */
    for (unsigned i = 0; i < 1000; i++) {
        say(a, 0xff, 1, 5000);
        while (hears(b, 5000) != 1)
            ;
    }
    close(c);
    close(a);
    close(b);
    int status;
    g_assert_cmpint(waitpid(hub.pid, &status, 0), ==, hub.pid);
    g_assert_cmpint(status, ==, 0);
    g_assert_false(g_file_test(hub.path, G_FILE_TEST_EXISTS));
    rmdir(hub.dir);
    g_free(hub.dir);
    g_free(hub.path);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (argc > 1)
        g_setenv("HV_NET", argv[1], true);
    signal(SIGPIPE, SIG_IGN);
    g_test_add_func("/net/addresses", addresses);
    g_test_add_func("/net/from-host", from_host);
    g_test_add_func("/net/to-host", to_host);
    g_test_add_func("/net/large-datagram", large_datagram);
    g_test_add_func("/net/published-udp", published_udp);
    g_test_add_func("/net/port-changes", port_changes);
    g_test_add_func("/net/asked-for-a-port", asked_for_a_port);
    g_test_add_func("/net/port-in-use", port_in_use);
    g_test_add_func("/net/restricted", restricted);
    g_test_add_func("/net/deaf-guest", deaf_guest);
    g_test_add_func("/net/idle", idle);
    g_test_add_func("/net/between-machines", between_machines);
    g_test_add_func("/net/killed", killed);
    g_test_add_func("/net/many-at-once", many_at_once);
    g_test_add_func("/net/published", published);
    return g_test_run();
}
