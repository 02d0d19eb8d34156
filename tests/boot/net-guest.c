/* A guest without a machine; see net-guest.h. */
#include "boot/net-guest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { GUEST_ADDRESS = 0x0a00020f };

unsigned net_get16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}
uint32_t net_get32(const uint8_t *at)
{
    return (uint32_t)net_get16(at) << 16 | net_get16(at + 2);
}
void net_put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}
void net_put32(uint8_t *at, uint32_t value)
{
    net_put16(at, value >> 16);
    net_put16(at + 2, value & 0xffff);
}
uint32_t net_address(const char *text)
{
    struct in_addr address = { 0 };
    g_assert_cmpint(inet_pton(AF_INET, text, &address), ==, 1);
    return ntohl(address.s_addr);
}

static uint32_t sum_of(const uint8_t *at, size_t length)
{
    uint64_t sum = 0;
    for (size_t i = 0; i + 1 < length; i += 2)
        sum += net_get16(at + i);
    if (length & 1)
        sum += (unsigned)at[length - 1] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint32_t)sum;
}

static unsigned folded(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

static uint32_t pseudo(const uint8_t *ip, size_t length)
{
    return sum_of(ip + 12, 8) + ip[9] + (uint32_t)length;
}

bool net_sound(const uint8_t *frame, size_t length)
{
    const uint8_t *ip = frame + 14;
    size_t all = net_get16(ip + 2);
    if (length < 34 || length < 14 + all || folded(sum_of(ip, 20)) != 0xffff)
        return false;
    return folded(pseudo(ip, all - 20) + sum_of(ip + 20, all - 20)) == 0xffff;
}

/* --- hv-net --------------------------------------------------------------------------------- */

static int listen_at(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    g_strlcpy(address.sun_path, path, sizeof address.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&address, sizeof address), ==, 0);
    g_assert_cmpint(listen(fd, 16), ==, 0);
    return fd;
}

struct net_guest *net_guest_new(const char *hv_net, const char *rules, bool restricted, char **why)
{
    struct net_guest *g = g_new0(struct net_guest, 1);
    int ends[2], ready[2];
    static const uint8_t mac[6] = { 0x52, 1, 2, 3, 4, 5 };
    memcpy(g->mac, mac, 6);
    g->next_port = 40000;
    g->dir = g_dir_make_tmp("hv-net.XXXXXX", NULL);
    g_autofree char *path = g_build_filename(g->dir, "net", NULL);
    g->control = listen_at(path);
    g->ports = memfd_create("ports", 0);
    g_assert_cmpint(write(g->ports, rules, strlen(rules)), ==, (ssize_t)strlen(rules));
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), ==, 0);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ready), ==, 0);
    g->keeper = fork();
    if (g->keeper == 0) {
        char words[4][32];
        g_snprintf(words[0], 32, "frames=%d", ends[1]);
        g_snprintf(words[1], 32, "control=%d", g->control);
        g_snprintf(words[2], 32, "ports=%d", g->ports);
        g_snprintf(words[3], 32, "ready=%d", ready[1]);
        close(ends[0]);
        close(ready[0]);
        execl(hv_net, "hv-net", "keep", words[0], words[1], words[2], words[3], "name=test",
              restricted ? "restrict" : NULL, NULL);
        _exit(127);
    }
    close(ends[1]);
    close(ready[1]);
    g->frames = ends[0];
    char text[512] = "";
    ssize_t n = read(ready[0], text, sizeof text - 1);
    close(ready[0]);
    if (n > 0 && strstr(text, "\"status\":0"))
        return g;
    if (why)
        *why = g_strdup(text);
    waitpid(g->keeper, NULL, 0);
    g->keeper = -1;
    net_guest_free(g);
    return NULL;
}

void net_guest_free(struct net_guest *g)
{
    int status = -1;
    g_autofree char *path = g_build_filename(g->dir, "net", NULL);
    close(g->frames);
    for (int i = 0; g->keeper > 0 && i < 500 && waitpid(g->keeper, &status, WNOHANG) == 0; i++)
        g_usleep(10000);
    if (g->keeper > 0) {
        g_assert_true(WIFEXITED(status));
        g_assert_cmpint(WEXITSTATUS(status), ==, 0);
    }
    close(g->control);
    close(g->ports);
    unlink(path);
    rmdir(g->dir);
    g_free(g->dir);
    g_free(g);
}

int net_guest_control(struct net_guest *g)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    g_snprintf(address.sun_path, sizeof address.sun_path, "%s/net", g->dir);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&address, sizeof address), ==, 0);
    return fd;
}

char *net_guest_line(int control)
{
    GString *line = g_string_new(NULL);
    struct pollfd wait = { control, POLLIN, 0 };
    char c = 0;
    while (c != '\n' && poll(&wait, 1, 3000) > 0 && read(control, &c, 1) == 1)
        g_string_append_c(line, c);
    return g_string_free(line, false);
}

char *net_guest_call(struct net_guest *g, const char *request)
{
    int fd = net_guest_control(g);
    g_assert_cmpint(write(fd, request, strlen(request)), ==, (ssize_t)strlen(request));
    char *line = net_guest_line(fd);
    close(fd);
    return line;
}

pid_t net_guest_pid(struct net_guest *g)
{
    g_autofree char *line =
        net_guest_call(g, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"info\"}\n");
    const char *at = strstr(line, "\"pid\":");
    return at ? (pid_t)g_ascii_strtoll(at + 6, NULL, 10) : -1;
}

/* --- frames --------------------------------------------------------------------------------- */

void net_guest_send(struct net_guest *g, const struct net_header *header, const void *frame,
                    size_t length)
{
    const struct net_header plain = { 0 };
    struct iovec iov[] = { { (void *)(uintptr_t)(header ? header : &plain), sizeof plain },
                           { (void *)(uintptr_t)frame, length } };
    const struct msghdr message = { .msg_iov = iov, .msg_iovlen = 2 };
    g_assert_cmpint(sendmsg(g->frames, &message, 0), ==, (ssize_t)(length + sizeof plain));
}

static bool is_arp(const struct net_guest *g, unsigned operation)
{
    return g->length >= 42 && net_get16(g->frame + 12) == 0x0806 &&
           net_get16(g->frame + 20) == operation;
}

void net_guest_arp(struct net_guest *g, uint32_t address)
{
    uint8_t f[42] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    static const uint8_t head[] = { 8, 6, 0, 1, 8, 0, 6, 4, 0, 1 };
    memcpy(f + 6, g->mac, 6);
    memcpy(f + 12, head, sizeof head);
    memcpy(f + 22, g->mac, 6);
    net_put32(f + 28, GUEST_ADDRESS);
    net_put32(f + 38, address);
    net_guest_send(g, NULL, f, sizeof f);
}

static void answer_arp(struct net_guest *g)
{
    uint8_t f[42];
    memcpy(f, g->frame, sizeof f);
    memcpy(f, g->frame + 6, 6);
    memcpy(f + 6, g->mac, 6);
    net_put16(f + 20, 2);
    memcpy(f + 22, g->mac, 6);
    memcpy(f + 28, g->frame + 38, 4);
    memcpy(f + 32, g->frame + 22, 10);
    net_guest_send(g, NULL, f, sizeof f);
}

bool net_guest_receive(struct net_guest *g, int ms)
{
    gint64 until = g_get_monotonic_time() + ms * 1000;
    for (;;) {
        int left = (int)((until - g_get_monotonic_time()) / 1000);
        struct pollfd wait = { g->frames, POLLIN, 0 };
        if (poll(&wait, 1, MAX(left, 0)) <= 0)
            return false;
        struct iovec iov[] = { { &g->header, sizeof g->header }, { g->frame, sizeof g->frame } };
        struct msghdr message = { .msg_iov = iov, .msg_iovlen = 2 };
        ssize_t n = recvmsg(g->frames, &message, MSG_DONTWAIT);
        if (n <= (ssize_t)sizeof g->header)
            return false;
        g->length = (size_t)n - sizeof g->header;
        if (!is_arp(g, 1))
            return true;
        answer_arp(g);
    }
}

size_t net_ip4(struct net_guest *g, uint8_t *frame, unsigned protocol, uint32_t from, uint32_t to,
               const void *payload, size_t length)
{
    static const uint8_t router[] = { 0x52, 0x55, 10, 0, 2, 2 };
    uint8_t *ip = frame + 14;
    memcpy(frame, router, 6);
    memcpy(frame + 6, g->mac, 6);
    net_put16(frame + 12, 0x0800);
    memset(ip, 0, 20);
    ip[0] = 0x45;
    net_put16(ip + 2, (unsigned)(20 + length));
    ip[8] = 64;
    ip[9] = (uint8_t)protocol;
    net_put32(ip + 12, from);
    net_put32(ip + 16, to);
    net_put16(ip + 10, ~sum_of(ip, 20) & 0xffff);
    if (length)
        memcpy(ip + 20, payload, length);
    return 34 + length;
}

/* --- DHCP (RFC 2131) ------------------------------------------------------------------------ */

static uint32_t dhcp_message(struct net_guest *g, uint8_t type, uint32_t wish, uint8_t wanted,
                             int ms)
{
    uint8_t p[8 + 300] = { 0 }, frame[400];
    uint8_t *bootp = p + 8, *option = bootp + 240;
    net_put16(p, 68);
    net_put16(p + 2, 67);
    net_put16(p + 4, sizeof p);
    bootp[0] = bootp[1] = 1;
    bootp[2] = 6;
    net_put32(bootp + 4, 0x12345678);
    memcpy(bootp + 28, g->mac, 6);
    net_put32(bootp + 236, 0x63825363);
    memcpy(option, (const uint8_t[]){ 53, 1, type }, 3);
    option += 3;
    if (wish) {
        memcpy(option, (const uint8_t[]){ 50, 4 }, 2);
        net_put32(option + 2, wish);
        option += 6;
    }
    *option = 255;
    size_t length = net_ip4(g, frame, 17, 0, 0xffffffff, p, sizeof p);
    memset(frame, 0xff, 6);
    net_guest_send(g, NULL, frame, length);
    gint64 until = g_get_monotonic_time() + ms * 1000;
    while (g_get_monotonic_time() < until &&
           net_guest_receive(g, (int)((until - g_get_monotonic_time()) / 1000))) {
        const uint8_t *answer = g->frame + 42;
        if (g->length > 42 + 243 && g->frame[23] == 17 && net_get16(g->frame + 36) == 68 &&
            net_get32(answer + 4) == 0x12345678 && answer[240] == 53 && answer[242] == wanted)
            return net_get32(answer + 16);
    }
    return 0;
}

uint32_t net_guest_dhcp(struct net_guest *g, int ms)
{
    uint32_t offer = dhcp_message(g, 1, 0, 2, ms);
    return offer ? dhcp_message(g, 3, offer, 5, ms) : 0;
}

/* --- TCP ------------------------------------------------------------------------------------ */

void net_tcp_send(struct net_tcp *t, unsigned flags, const void *data, size_t length)
{
    bool syn = flags & NET_SYN;
    size_t head = syn ? 24 : 20;
    g_autofree uint8_t *segment = g_malloc0(head + length);
    g_autofree uint8_t *frame = g_malloc(34 + head + length);
    net_put16(segment, t->port);
    net_put16(segment + 2, t->other_port);
    net_put32(segment + 4, t->sent);
    net_put32(segment + 8, flags & NET_ACK ? t->received : 0);
    segment[12] = (uint8_t)(head / 4 << 4);
    segment[13] = (uint8_t)flags;
    net_put16(segment + 14, 65535);
    if (syn)
        memcpy(segment + 20, (const uint8_t[]){ 2, 4, 1460 >> 8, 1460 & 0xff }, 4);
    if (length)
        memcpy(segment + head, data, length);
    size_t all = net_ip4(t->g, frame, 6, GUEST_ADDRESS, t->other, segment, head + length);
    net_put16(frame + 34 + 16, folded(pseudo(frame + 14, head + length)));
    const struct net_header header = {
        .flags = NET_NEEDS_CHECKSUM,
        .segment_type = length > 1460 ? NET_TCP4 : NET_PLAIN,
        .segment_size = le16_of(1460),
        .header_length = le16_of(54),
        .checksum_start = le16_of(34),
        .checksum_offset = le16_of(16),
    };
    net_guest_send(t->g, &header, frame, all);
    t->sent += (uint32_t)length + syn + !!(flags & NET_FIN);
}

/* The next segment of the connection; its TCP header. */
static const uint8_t *next_segment(struct net_tcp *t, int ms)
{
    gint64 until = g_get_monotonic_time() + ms * 1000;
    do {
        int left = (int)((until - g_get_monotonic_time()) / 1000);
        if (!net_guest_receive(t->g, MAX(left, 0)))
            return NULL;
        const uint8_t *ip = t->g->frame + 14;
        if (t->g->length >= 54 && net_get16(t->g->frame + 12) == 0x0800 && ip[9] == 6 &&
            net_get32(ip + 12) == t->other && net_get16(ip + 20) == t->other_port &&
            net_get16(ip + 22) == t->port)
            return ip + 20;
    } while (g_get_monotonic_time() < until);
    return NULL;
}

static unsigned offered(const uint8_t *tcp)
{
    return (tcp[12] >> 4) >= 6 && tcp[20] == 2 ? net_get16(tcp + 22) : 0;
}

bool net_tcp_connect(struct net_tcp *t, struct net_guest *g, uint32_t to, uint16_t port, int ms)
{
    *t = (struct net_tcp){ .g = g, .other = to, .other_port = port, .sent = 1000 };
    t->port = (uint16_t)g->next_port++;
    net_tcp_send(t, NET_SYN, NULL, 0);
    const uint8_t *tcp = next_segment(t, ms);
    if (!tcp || (tcp[13] & (NET_SYN | NET_ACK | NET_RST)) != (NET_SYN | NET_ACK))
        return false;
    t->received = net_get32(tcp + 4) + 1;
    t->mss = offered(tcp);
    net_tcp_send(t, NET_ACK, NULL, 0);
    return true;
}

bool net_tcp_accept(struct net_tcp *t, struct net_guest *g, int ms)
{
    gint64 until = g_get_monotonic_time() + ms * 1000;
    do {
        if (!net_guest_receive(g, ms))
            return false;
        const uint8_t *ip = g->frame + 14, *tcp = ip + 20;
        if (g->length < 54 || ip[9] != 6 || tcp[13] != NET_SYN)
            continue;
        *t = (struct net_tcp){ .g = g, .other = net_get32(ip + 12), .sent = 5000 };
        t->other_port = (uint16_t)net_get16(tcp);
        t->port = (uint16_t)net_get16(tcp + 2);
        t->received = net_get32(tcp + 4) + 1;
        t->mss = offered(tcp);
        net_tcp_send(t, NET_SYN | NET_ACK, NULL, 0);
        return true;
    } while (g_get_monotonic_time() < until);
    return false;
}

ssize_t net_tcp_receive(struct net_tcp *t, const uint8_t **at, int ms)
{
    const uint8_t *tcp;
    while ((tcp = next_segment(t, ms))) {
        const uint8_t *ip = t->g->frame + 14;
        size_t head = (size_t)(tcp[12] >> 4) * 4, length = net_get16(ip + 2) - 20 - head;
        if (tcp[13] & NET_RST)
            return -1;
        if (net_get32(tcp + 4) != t->received || (!length && !(tcp[13] & NET_FIN)))
            continue;
        t->finished |= tcp[13] & NET_FIN;
        t->received += (uint32_t)length + !!(tcp[13] & NET_FIN);
        t->large += t->g->header.segment_type == NET_TCP4;
        net_tcp_send(t, NET_ACK, NULL, 0);
        *at = tcp + head;
        return (ssize_t)length;
    }
    return -1;
}

/* The guest's FIN, and the other's. */
void net_tcp_close(struct net_tcp *t)
{
    const uint8_t *ignored;
    net_tcp_send(t, NET_FIN | NET_ACK, NULL, 0);
    while (!t->finished && net_tcp_receive(t, &ignored, 2000) >= 0)
        ;
}
