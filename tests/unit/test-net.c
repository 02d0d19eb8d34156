/* The cable: packets as they are, segments cut, checksums completed, a hostile or absent far end.
 */
#include "net/net.h"

#include "base/clock.h"
#include "net/segment.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEADER = sizeof(struct net_header), IP4 = 20, IP6 = 40, TCP = 20, UDP = 8 };
enum { ALL = NET_CAN_CHECKSUM | NET_CAN_TCP4 | NET_CAN_TCP6 | NET_CAN_USO | NET_CAN_ECN };

struct fixture {
    struct net *net;
    int far;
    uint8_t packet[NET_PACKET_MAX + 16], got[NET_PACKET_MAX + 16];
};

static void set_up(struct fixture *f, const void *unused)
{
    int fds[2], size = 1 << 20;
    (void)unused;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), ==, 0);
    f->far = fds[1];
    setsockopt(f->far, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    fcntl(f->far, F_SETFL, O_NONBLOCK);
    f->net = net_new(fds[0], false, "test");
}

static void tear_down(struct fixture *f, const void *unused)
{
    (void)unused;
    net_free(f->net);
    if (f->far >= 0)
        close(f->far);
}

static void arrive(struct fixture *f, size_t length)
{
    g_assert_cmpint(send(f->far, f->packet, length, 0), ==, (ssize_t)length);
}

static size_t receive(struct fixture *f, size_t room)
{
    struct iovec iov[2] = { { f->got, HEADER }, { f->got + HEADER, room - HEADER } };
    memset(f->got, 0x5a, sizeof f->got);
    return net_receive(f->net, iov, 2);
}

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}
static unsigned get16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}
static void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value & 0xffff);
}
static uint32_t get32(const uint8_t *at)
{
    return get16(at) << 16 | get16(at + 2);
}

/* RFC 1071 as it is written there: 16-bit words in network order. */
static uint32_t sum_words(uint32_t sum, const uint8_t *at, size_t length)
{
    for (size_t i = 0; i < length; i++)
        sum += i & 1 ? at[i] : (uint32_t)at[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

/* A segment's description and the packet made of it: what a guest's or host's stack hands over. */
struct shape {
    bool ip6, udp;
    unsigned tags, options, extension; /* VLAN tags, bytes of TCP options and of IPv6 extensions */
    unsigned payload, size;
    uint32_t sequence;
    uint8_t flags, ecn;
    uint16_t id;
};

static size_t header_length(const struct shape *s)
{
    return NET_ETHERNET + 4 * s->tags + (s->ip6 ? IP6 + s->extension : IP4) +
           (s->udp ? UDP : TCP + s->options);
}

static uint32_t pseudo(const uint8_t *ip, bool ip6, unsigned protocol, size_t length)
{
    uint8_t tail[4] = { 0, (uint8_t)protocol };
    put16(tail + 2, (unsigned)length);
    return sum_words(sum_words(0, tail, 4), ip + (ip6 ? 8 : 12), ip6 ? 32 : 8);
}

static size_t build(struct fixture *f, const struct shape *s)
{
    uint8_t *frame = f->packet + HEADER, *ip = frame + NET_ETHERNET + 4 * s->tags;
    uint8_t *at = ip + (s->ip6 ? IP6 + s->extension : IP4);
    unsigned own = s->udp ? UDP : TCP + s->options, protocol = s->udp ? 17 : 6;
    memset(f->packet, 0, HEADER + header_length(s));
    for (unsigned i = 0; i < 12; i++)
        frame[i] = (uint8_t)(2 + i);
    for (unsigned i = 0; i < s->tags; i++)
        put32(frame + 12 + 4 * i, (i + 1 < s->tags ? 0x88a80000u : 0x81000000u) | (5 + i));
    put16(ip - 2, s->ip6 ? 0x86dd : 0x0800);
    ip[0] = s->ip6 ? 0x60 : 0x45;
    if (s->ip6) {
        put16(ip + 4, s->extension + own + s->payload);
        ip[6] = (uint8_t)protocol;
        for (unsigned i = 8; i < 40; i++)
            ip[i] = (uint8_t)(i * 7);
    } else {
        put16(ip + 2, IP4 + own + s->payload);
        put16(ip + 4, s->id);
        put16(ip + 6, 0x4000); /* don't fragment */
        ip[8] = 64;
        ip[9] = (uint8_t)protocol;
        put32(ip + 12, 0x0a000001);
        put32(ip + 16, 0x0a000002);
        put16(ip + 10, ~sum_words(0, ip, IP4) & 0xffff);
    }
    put32(at, 0x1234abcd); /* ports */
    if (s->udp) {
        put16(at + 4, UDP + s->payload);
    } else {
        put32(at + 4, s->sequence);
        put32(at + 8, 0xdeadbeef);
        at[12] = (uint8_t)((own / 4) << 4);
        at[13] = s->flags;
        memset(at + TCP, 1, s->options);
    }
    put16(at + (s->udp ? 6 : 16), pseudo(ip, s->ip6, protocol, own + s->payload));
    for (unsigned i = 0; i < s->payload; i++)
        at[own + i] = (uint8_t)(i * 31 + (i >> 8));
    struct net_header header = {
        .flags = NET_NEEDS_CHECKSUM,
        .segment_type = (uint8_t)((s->udp   ? NET_UDP_L4
                                   : s->ip6 ? NET_TCP6
                                            : NET_TCP4) |
                                  s->ecn),
        .header_length = le16_of((uint16_t)header_length(s)),
        .segment_size = le16_of((uint16_t)s->size),
        .checksum_start = le16_of((uint16_t)(at - frame)),
        .checksum_offset = le16_of(s->udp ? 6 : 16),
    };
    memcpy(f->packet, &header, HEADER);
    return HEADER + header_length(s) + s->payload;
}

/* Is what was received packet `index` of the segment, at `done` bytes of payload? Its payload. */
static unsigned check_piece(struct fixture *f, const struct shape *s, size_t length, unsigned done,
                            unsigned index)
{
    const uint8_t *frame = f->got + HEADER, *ip = frame + NET_ETHERNET + 4 * s->tags;
    const uint8_t *at = ip + (s->ip6 ? IP6 + s->extension : IP4);
    size_t headers = header_length(s), rest = (size_t)(f->got + length - at);
    unsigned payload = (unsigned)(length - HEADER - headers);
    g_assert_cmpuint(payload, ==, MIN(s->size, s->payload - done));
    if (s->ip6) {
        g_assert_cmpuint(get16(ip + 4), ==, rest + s->extension);
    } else {
        g_assert_cmpuint(get16(ip + 2), ==, rest + IP4);
        g_assert_cmpuint(get16(ip + 4), ==, (s->id + index) & 0xffff);
        g_assert_cmphex(sum_words(0, ip, IP4), ==, 0xffff);
    }
    g_assert_cmphex(sum_words(pseudo(ip, s->ip6, s->udp ? 17 : 6, rest), at, rest), ==, 0xffff);
    g_assert_cmpmem(at + rest - payload, payload, f->packet + HEADER + headers + done, payload);
    if (s->udp) {
        g_assert_cmpuint(get16(at + 4), ==, rest);
        g_assert_cmphex(get16(at + 6), !=, 0);
        return payload;
    }
    g_assert_cmphex(get32(at + 4), ==, (uint32_t)(s->sequence + done));
    bool last = done + payload == s->payload;
    uint8_t flags = (uint8_t)(s->flags & ~(last ? 0 : 0x09) & ~(done ? 0x80 : 0));
    g_assert_cmphex(at[13], ==, flags);
    return payload;
}

static void check_cut(struct fixture *f, const struct shape *s)
{
    size_t length = build(f, s);
    unsigned done = 0;
    arrive(f, length);
    for (unsigned index = 0; done < s->payload; index++) {
        length = receive(f, 9000);
        g_assert_cmpuint(length, >, 0);
        struct net_header header;
        memcpy(&header, f->got, HEADER);
        g_assert_cmpuint(header.flags, ==, 0);
        g_assert_cmpuint(header.segment_type, ==, NET_PLAIN);
        done += check_piece(f, s, length, done, index);
        g_assert_true(net_pending(f->net) == (done < s->payload));
    }
    g_assert_cmpuint(receive(f, 9000), ==, 0);
}

static void cut(struct fixture *f, const void *unused)
{
    (void)unused;
    check_cut(f, &(struct shape){ .payload = 4000,
                                  .size = 1448,
                                  .options = 12,
                                  .flags = 0x99,
                                  .sequence = 0xfffffff0,
                                  .id = 0xffff });
    check_cut(f, &(struct shape){ .ip6 = true, .payload = 65000, .size = 1428, .flags = 0x18 });
    check_cut(f, &(struct shape){ .udp = true, .payload = 3001, .size = 1000, .tags = 1 });
    check_cut(f, &(struct shape){ .payload = 100, .size = 1448, .flags = 0x18 });
}

/* Whatever stack it comes from: the pieces make the whole again, and all checksums are right. */
static void cut_random(struct fixture *f, const void *unused)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(3);
    (void)unused;
    for (unsigned i = 0; i < 300; i++) {
        struct shape s = {
            .ip6 = g_rand_boolean(rand),
            .udp = g_rand_boolean(rand),
            .tags = (unsigned)g_rand_int_range(rand, 0, 3),
            .payload = (unsigned)g_rand_int_range(rand, 1, i % 8 ? 6000 : 65000),
            .size = (unsigned)g_rand_int_range(rand, i % 8 ? 8 : 64, 8000),
            .sequence = g_rand_int(rand),
            .flags = (uint8_t)g_rand_int(rand),
            .id = (uint16_t)g_rand_int(rand),
        };
        s.options = s.udp ? 0 : 4 * (unsigned)g_rand_int_range(rand, 0, 11);
        s.extension = s.ip6 ? 8 * (unsigned)g_rand_int_range(rand, 0, 3) : 0;
        s.ecn = s.udp || g_rand_boolean(rand) ? 0 : NET_ECN;
        check_cut(f, &s);
    }
}

/* A NIC that takes segments gets them as they are, and without a copy. */
static void pass(struct fixture *f, const void *unused)
{
    struct shape s = { .payload = 30000, .size = 1448, .flags = 0x18 };
    (void)unused;
    net_set_offloads(f->net, ALL);
    size_t length = build(f, &s);
    arrive(f, length);
    g_assert_cmpuint(receive(f, NET_PACKET_MAX), ==, length);
    g_assert_cmpmem(f->got, (int)length, f->packet, (int)length);
    /* Segments with ECN only where they are understood, and none where checksums are not. */
    s.ecn = NET_ECN;
    arrive(f, length = build(f, &s));
    g_assert_cmpuint(receive(f, NET_PACKET_MAX), ==, length);
    net_set_offloads(f->net, ALL & ~(unsigned)NET_CAN_ECN);
    check_cut(f, &s);
    net_set_offloads(f->net, NET_CAN_TCP4);
    check_cut(f, &s);
    net_set_offloads(f->net, NET_CAN_CHECKSUM | NET_CAN_TCP6 | NET_CAN_USO);
    check_cut(f, &s);
    net_set_offloads(f->net, NET_CAN_CHECKSUM | NET_CAN_TCP4 | NET_CAN_TCP6);
    check_cut(f, &(struct shape){ .udp = true, .payload = 3000, .size = 1000 });
}

static void complete(struct fixture *f, const void *unused)
{
    struct shape s = { .payload = 999, .size = 1448, .flags = 0x18 };
    struct net_header header;
    (void)unused;
    for (unsigned udp = 0; udp < 2; udp++) {
        s.udp = udp;
        size_t length = build(f, &s);
        f->packet[1] = NET_PLAIN;
        arrive(f, length);
        g_assert_cmpuint(receive(f, 2000), ==, length);
        check_piece(f, &s, length, 0, 0);
        g_assert_cmpuint(f->got[0], ==, 0);
        net_set_offloads(f->net, NET_CAN_VALID);
        arrive(f, length);
        g_assert_cmpuint(receive(f, 2000), ==, length);
        check_piece(f, &s, length, 0, 0);
        g_assert_cmpuint(f->got[0], ==, NET_DATA_VALID);
        net_set_offloads(f->net, NET_CAN_CHECKSUM);
        arrive(f, length);
        g_assert_cmpuint(receive(f, 2000), ==, length);
        g_assert_cmpmem(f->got, (int)length, f->packet, (int)length);
        net_set_offloads(f->net, 0);
    }
    /* DATA_VALID is for who negotiated checksums. */
    header = (struct net_header){ .flags = NET_DATA_VALID };
    memcpy(f->packet, &header, HEADER);
    arrive(f, 100);
    g_assert_cmpuint(receive(f, 2000), ==, 100);
    g_assert_cmpuint(f->got[0], ==, 0);
    net_set_offloads(f->net, NET_CAN_VALID);
    arrive(f, 100);
    g_assert_cmpuint(receive(f, 2000), ==, 100);
    g_assert_cmpuint(f->got[0], ==, NET_DATA_VALID);
}

/* What does not fit or makes no sense is lost, and the next packet comes. */
static void lost(struct fixture *f, const void *unused)
{
    struct shape s = { .payload = 1000, .size = 100, .flags = 0x18 };
    (void)unused;
    memset(f->packet, 0, HEADER);
    arrive(f, 61);                 /* larger than the room below */
    arrive(f, NET_PACKET_MAX + 1); /* than any packet */
    arrive(f, HEADER + NET_ETHERNET - 1);
    arrive(f, 3);
    arrive(f, 60);
    g_assert_cmpuint(receive(f, 60), ==, 60);
    g_assert_cmpuint(receive(f, 60), ==, 0);

    size_t length = build(f, &s);
    static const struct {
        unsigned at;
        uint8_t value;
    } wrong[] = {
        { 0, 0 },           /* no checksum wanted */
        { 1, NET_UDP },     /* UDP fragments */
        { 1, NET_TCP6 },    /* not IPv6 */
        { 1, 0x77 },        /* unknown */
        { 4, 0 },           /* segments of 0 bytes */
        { 7, 0xff },        /* a checksum outside */
        { 6, 33 },          /* not at the end of IP's header */
        { 8, 6 },           /* not TCP's */
        { HEADER + 13, 6 }, /* ARP */
        { HEADER + 14, 0x44 },
        { HEADER + 14, 0x4f },
        { HEADER + 20, 0x20 }, /* a fragment */
        { HEADER + 23, 17 },
        { HEADER + 34 + 12, 0x40 }, /* short and long TCP headers */
    };
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        uint8_t right = f->packet[wrong[i].at];
        f->packet[wrong[i].at] = wrong[i].value;
        arrive(f, length);
        g_assert_cmpuint(receive(f, 2000), ==, 0);
        f->packet[wrong[i].at] = right;
    }
    arrive(f, HEADER + 14 + IP4 + TCP); /* headers only */
    g_assert_cmpuint(receive(f, 2000), ==, 0);
    build(f, &(struct shape){ .payload = 60000, .size = 1 }); /* an endless flood */
    arrive(f, 60000);
    g_assert_cmpuint(receive(f, 2000), ==, 0);
    check_cut(f, &s);
}

static void send_packets(struct fixture *f, const void *unused)
{
    struct iovec iov[3] = { { f->packet, HEADER }, { f->packet + HEADER, 14 }, { f->packet, 100 } };
    unsigned sent = 0;
    (void)unused;
    memset(f->packet, 7, 200);
    g_assert_true(net_send(f->net, iov, 3));
    g_assert_cmpint(recv(f->far, f->got, sizeof f->got, 0), ==, 126);
    g_assert_true(net_send(f->net, iov, 1)); /* too short: lost */
    iov[2].iov_len = NET_FRAME_MAX;
    g_assert_true(net_send(f->net, iov, 3)); /* too long */
    g_assert_cmpint(recv(f->far, f->got, sizeof f->got, 0), ==, -1);
    iov[2].iov_len = 1000;
    while (net_send(f->net, iov, 3))
        g_assert_cmpuint(sent++, <, 100000);
    for (; sent; sent--)
        g_assert_cmpint(recv(f->far, f->got, sizeof f->got, 0), ==, 1026);
    g_assert_cmpint(recv(f->far, f->got, sizeof f->got, 0), ==, -1);
    g_assert_true(net_send(f->net, iov, 3));
}

/* Nobody there: packets are lost and nothing else happens, until there is another far end. */
static void gone(struct fixture *f, const void *unused)
{
    struct iovec iov = { f->packet, 100 };
    int fds[2];
    (void)unused;
    memset(f->packet, 0, 100);
    arrive(f, 100);
    close(f->far);
    f->far = -1;
    g_assert_cmpuint(receive(f, 2000), ==, 100);
    g_assert_cmpuint(receive(f, 2000), ==, 0);
    g_assert_true(net_gone(f->net));
    g_assert_true(net_send(f->net, &iov, 1));
    net_discard(f->net);
    int number = net_fd(f->net);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), ==, 0);
    net_connect(f->net, fds[0]);
    f->far = fds[1];
    g_assert_false(net_gone(f->net));
    g_assert_cmpint(net_fd(f->net), ==, number);
    arrive(f, 100);
    g_assert_cmpuint(receive(f, 2000), ==, 100);
    g_assert_cmpuint(receive(f, 2000), ==, 0); /* and does not wait */
    close(f->far);
    f->far = -1;
    g_assert_true(net_send(f->net, &iov, 1));
    g_assert_true(net_gone(f->net));
}

static void discard(struct fixture *f, const void *unused)
{
    (void)unused;
    memset(f->packet, 0, 100);
    arrive(f, 100);
    arrive(f, build(f, &(struct shape){ .payload = 5000, .size = 1000 }));
    g_assert_cmpuint(receive(f, 2000), ==, 100);
    g_assert_cmpuint(receive(f, 2000), >, 1000);
    g_assert_true(net_pending(f->net));
    arrive(f, 100);
    net_discard(f->net);
    g_assert_false(net_pending(f->net));
    g_assert_cmpuint(receive(f, 2000), ==, 0);
}

static void capture(struct fixture *f, const void *unused)
{
    g_autofree char *path = NULL;
    g_autofree char *data = NULL;
    gsize size;
    struct iovec iov = { f->packet, 112 };
    (void)unused;
    int fd = g_file_open_tmp("hv-net-XXXXXX", &path, NULL);
    net_capture(f->net, fd);
    memset(f->packet, 0, HEADER);
    memset(f->packet + HEADER, 0x42, 2000);
    g_assert_true(net_send(f->net, &iov, 1));
    arrive(f, 72);
    g_assert_cmpuint(receive(f, 2000), ==, 72);
    g_assert_true(g_file_get_contents(path, &data, &size, NULL));
    g_assert_cmpuint(size, ==, 24 + 16 + 100 + 16 + 60);
    static const uint8_t head[] = { 0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0 };
    g_assert_cmpmem(data, 16, head, 16);
    g_assert_cmpuint(data[20], ==, 1); /* Ethernet */
    uint32_t record[4];
    memcpy(record, data + 24, 16);
    g_assert_cmpuint(record[1], <, 1000000);
    g_assert_cmpuint(record[2], ==, 100);
    g_assert_cmpuint(record[3], ==, 100);
    g_assert_cmpmem(data + 40, 100, f->packet + HEADER, 100);
    memcpy(record, data + 140, 16);
    g_assert_cmpuint(record[2], ==, 60);
    g_unlink(path);
    /* A full disk ends the capture and nothing else. */
    fd = open("/dev/full", O_WRONLY);
    if (fd >= 0)
        net_capture(f->net, fd);
    g_assert_true(net_send(f->net, &iov, 1));
    arrive(f, 72);
    g_assert_cmpuint(receive(f, 2000), ==, 72);
}

/* A NIC's list of many small buffers is no other packet. */
static void many_spans(struct fixture *f, const void *unused)
{
    struct iovec iov[400];
    (void)unused;
    for (unsigned count = 100; count <= 400; count += 300) {
        for (unsigned i = 0; i < count; i++)
            iov[i] = (struct iovec){ f->got + i * 17, 17 };
        memset(f->packet, 0, HEADER);
        for (unsigned i = HEADER; i < 1700; i++)
            f->packet[i] = (uint8_t)(i * 13);
        arrive(f, 1700);
        memset(f->got, 0, sizeof f->got);
        g_assert_cmpuint(net_receive(f->net, iov, count), ==, 1700);
        g_assert_cmpmem(f->got, 1700, f->packet, 1700);
        arrive(f, count * 17u + 1);
        g_assert_cmpuint(net_receive(f->net, iov, count), ==, 0);
    }
}

/* How long the next packet is, and how it begins, before it is taken. */
static void peeked(struct fixture *f, const void *unused)
{
    uint8_t front[20];
    (void)unused;
    for (unsigned i = 0; i < 1700; i++)
        f->packet[i] = i < HEADER ? 0 : (uint8_t)(i * 13);
    g_assert_cmpuint(net_peek(f->net, NULL, 0), ==, 0);
    arrive(f, 1700);
    arrive(f, build(f, &(struct shape){ .payload = 5000, .size = 1000 }));
    for (unsigned i = 0; i < 2; i++)
        g_assert_cmpuint(net_peek(f->net, NULL, 0), ==, 1700);
    g_assert_cmpuint(net_peek(f->net, front, sizeof front), ==, 1700);
    g_assert_cmpuint(front[19], ==, (uint8_t)(19 * 13));
    g_assert_cmpuint(receive(f, 2000), ==, 1700);
    for (unsigned packets = 0; packets < 5; packets++) {
        g_assert_cmpuint(net_peek(f->net, NULL, 0), >=, HEADER + NET_ETHERNET + IP4 + TCP + 1000);
        g_assert_cmpuint(receive(f, 2000), ==, HEADER + NET_ETHERNET + IP4 + TCP + 1000);
    }
    g_assert_cmpuint(net_peek(f->net, NULL, 0), ==, 0);
    close(f->far);
    f->far = -1;
    g_assert_false(net_gone(f->net));
    g_assert_cmpuint(net_peek(f->net, NULL, 0), ==, 0);
    g_assert_true(net_gone(f->net));
    g_assert_cmpuint(net_peek(f->net, NULL, 0), ==, 0);
}

/* Of any length, at any address, and with as many carries as there can be. */
static void checksums(struct fixture *f, const void *unused)
{
    (void)unused;
    for (unsigned round = 0; round < 2000; round++) {
        size_t length = round < 600 ? round / 2 : (size_t)g_random_int_range(0, 65536);
        uint8_t *at = f->packet + g_random_int_range(0, 16);
        for (size_t i = 0; i < length; i++)
            at[i] = round & 1 ? 0xff : (uint8_t)g_random_int();
        uint16_t sum = checksum_fold(checksum_add(0, at, length));
        uint8_t stored[2];
        memcpy(stored, &sum, 2);
        g_assert_cmphex(get16(stored), ==, (uint16_t)~sum_words(0, at, length));
    }
}

/* --- a bad cable --------------------------------------------------------------------------------
 */

static bool send_one(struct fixture *f, uint32_t number)
{
    uint8_t packet[HEADER + 60] = { 0 };
    struct iovec iov[2] = { { packet, HEADER + 1 }, { packet + HEADER + 1, 59 } };
    memcpy(packet + HEADER + 20, &number, sizeof number);
    return net_send(f->net, iov, 2);
}

/* The next packet's number at the far end; -1: none is there. */
static int64_t next_far(struct fixture *f)
{
    uint32_t number;
    ssize_t n = recv(f->far, f->got, sizeof f->got, MSG_DONTWAIT);
    memcpy(&number, f->got + HEADER + 20, sizeof number);
    g_assert_true(n < 0 || n == HEADER + 60);
    return n < 0 ? -1 : (int64_t)number;
}

/* Sends and receives so many with a seed; which arrived in `map`, and how many. */
static unsigned lossy(struct fixture *f, struct clock *clock, GMutex *lock, uint32_t loss,
                      uint32_t seed, GString *map)
{
    enum { PACKETS = 2000 };
    const struct net_faults faults = { .loss = loss, .seed = seed };
    unsigned arrived = 0;
    g_string_truncate(map, 0);
    net_set_faults(f->net, clock, lock, &faults);
    for (uint32_t i = 0; i < PACKETS; i++) {
        g_assert_true(send_one(f, i));
        int64_t got = next_far(f);
        g_assert_true(got == i || got == -1);
        arrive(f, HEADER + 60);
        size_t back = receive(f, 2000);
        g_assert_true(back == 0 || back == HEADER + 60);
        arrived += (got == i) + (back != 0);
        g_string_append_printf(map, "%d%d", got == i, back != 0);
    }
    g_assert_cmpint(next_far(f), ==, -1);
    return arrived;
}

static void losing(struct fixture *f, const void *unused)
{
    GMutex lock = { 0 };
    struct clock *clock = clock_new(true);
    g_autoptr(GString) first = g_string_new(NULL), again = g_string_new(NULL);
    (void)unused;
    unsigned arrived = lossy(f, clock, &lock, NET_LOSS_ALL / 20, 7, first);
    g_assert_cmpuint(arrived, >, 4000 - 300);
    g_assert_cmpuint(arrived, <, 4000 - 100);
    lossy(f, clock, &lock, NET_LOSS_ALL / 20, 7, again);
    g_assert_cmpstr(first->str, ==, again->str); /* by chance, and by the seed alone */
    lossy(f, clock, &lock, NET_LOSS_ALL / 20, 8, again);
    g_assert_cmpstr(first->str, !=, again->str);
    g_assert_cmpuint(lossy(f, clock, &lock, NET_LOSS_ALL, 7, again), ==, 0);
    g_assert_cmpuint(lossy(f, clock, &lock, 0, 7, again), ==, 4000);
    net_free(g_steal_pointer(&f->net));
    clock_free(clock);
}

static void late(struct fixture *f, const void *unused)
{
    enum { DELAY = 1000 };
    GMutex lock = { 0 };
    struct clock *clock = clock_new(true);
    const struct net_faults delay = { .delay = DELAY }, good = { .delay = 0 };
    uint32_t sent = 0;
    (void)unused;
    net_set_faults(f->net, clock, &lock, &delay);
    g_assert_cmpuint(net_get_faults(f->net).delay, ==, DELAY);
    for (int64_t i = 0; i < 3; i++, clock_advance(clock, 10, 0))
        g_assert_true(send_one(f, (uint32_t)i));
    clock_advance(clock, DELAY - 31, 0);
    g_assert_cmpint(next_far(f), ==, -1);
    for (int64_t i = 0; i < 3; i++) {
        clock_advance(clock, i ? 10 : 1, 0);
        g_assert_cmpint(next_far(f), ==, i);
        g_assert_cmpint(next_far(f), ==, -1);
    }
    arrive(f, HEADER + 60); /* the other direction is as fast as ever */
    g_assert_cmpuint(receive(f, 2000), ==, HEADER + 60);

    /* A far end that does not read: nothing gets lost, and it goes on when there is room. */
    for (; sent < 5000; sent++)
        g_assert_true(send_one(f, sent));
    clock_advance(clock, DELAY + 200 * 1000000, 0);
    for (uint32_t i = 0; i < sent; i++) {
        int64_t got = next_far(f);
        if (got < 0) {
            clock_advance(clock, 200 * 1000000, 0);
            got = next_far(f);
        }
        g_assert_cmpint(got, ==, i);
    }

    /* What waits has bounds: of 100000 packets the last ones are lost. */
    for (uint32_t i = 0; i < 100000; i++)
        g_assert_true(send_one(f, i));
    net_set_faults(f->net, clock, &lock, &good); /* and it is sent when the cable is good again */
    g_assert_cmpint(next_far(f), ==, 0);
    while (next_far(f) >= 0)
        ;
    g_assert_true(send_one(f, 77));
    g_assert_cmpint(next_far(f), ==, 77);
    net_set_faults(f->net, clock, &lock, &delay);
    send_one(f, 1);
    net_free(g_steal_pointer(&f->net));
    clock_free(clock);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(struct fixture *f, const void *unused);
    } tests[] = {
        { "/net/cut", cut },         { "/net/cut-random", cut_random },
        { "/net/pass", pass },       { "/net/complete", complete },
        { "/net/lost", lost },       { "/net/send", send_packets },
        { "/net/gone", gone },       { "/net/discard", discard },
        { "/net/capture", capture }, { "/net/many-spans", many_spans },
        { "/net/peek", peeked },     { "/net/checksums", checksums },
        { "/net/losing", losing },   { "/net/late", late },
    };
    g_test_init(&argc, &argv, NULL);
    g_log_set_always_fatal(G_LOG_LEVEL_CRITICAL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add(tests[i].name, struct fixture, NULL, set_up, tests[i].run, tear_down);
    return g_test_run();
}
