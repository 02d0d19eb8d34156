/* Packets between a guest and the user-mode network: what is let through, completed, marked and
 * cut; rules of published ports; the outbox. */
#include "net/packet.h"

#include "base/error.h"
#include "net/outbox.h"
#include "net/ports.h"
#include "net/segment.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ETHERNET = 14, IP4 = 20, IP6 = 40, TCP = 20, UDP = 8 };
enum { SYN = 2, ACK = 16, URG = 32 };

static void put16(uint8_t *at, size_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static unsigned get16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

/* --- frames --------------------------------------------------------------------------------- */

struct frame {
    uint8_t bytes[NET_FRAME_MAX + 64];
    size_t length;
    uint8_t *ip, *upper;
    bool v6;
};

static uint64_t pseudo(const struct frame *f, unsigned protocol, size_t length)
{
    uint8_t tail[4] = { 0, (uint8_t)protocol };
    put16(tail + 2, length);
    uint64_t sum = checksum_add(0, f->ip + (f->v6 ? 8 : 12), f->v6 ? 32 : 8);
    return checksum_add(sum, tail, 4);
}

/* Whether the checksum of what is in a frame is right. */
static bool sound(const struct frame *f)
{
    unsigned protocol = f->ip[f->v6 ? 6 : 9];
    size_t length = f->v6 ? get16(f->ip + 4) : get16(f->ip + 2) - IP4;
    if (!f->v6 && checksum_fold(checksum_add(0, f->ip, IP4)))
        return false;
    return checksum_fold(checksum_add(pseudo(f, protocol, length), f->upper, length)) == 0;
}

/* An IP packet from 10.0.2.15 to 10.0.2.2 (or the like in IPv6) with `size` bytes in it. */
static void make(struct frame *f, bool v6, unsigned protocol, size_t size)
{
    static const uint8_t four[] = { 10, 0, 2, 15, 10, 0, 2, 2 };
    memset(f->bytes, 0, ETHERNET + IP6 + size);
    f->v6 = v6;
    f->ip = f->bytes + ETHERNET;
    f->upper = f->ip + (v6 ? IP6 : IP4);
    f->length = (size_t)(f->upper - f->bytes) + size;
    f->bytes[6] = 0x52;
    put16(f->bytes + 12, v6 ? 0x86dd : 0x0800);
    f->ip[0] = v6 ? 0x60 : 0x45;
    if (v6) {
        put16(f->ip + 4, size);
        f->ip[6] = (uint8_t)protocol;
        f->ip[7] = 64;
        f->ip[8] = f->ip[24] = 0xfe;
        f->ip[23] = 15;
        f->ip[39] = 2;
    } else {
        put16(f->ip + 2, IP4 + size);
        f->ip[8] = 64;
        f->ip[9] = (uint8_t)protocol;
        memcpy(f->ip + 12, four, 8);
    }
}

static void fill_checksums(struct frame *f)
{
    unsigned protocol = f->ip[f->v6 ? 6 : 9];
    size_t length = f->v6 ? get16(f->ip + 4) : get16(f->ip + 2) - IP4;
    uint8_t *at = f->upper + (protocol == 6 ? 16 : 6);
    if (!f->v6) {
        put16(f->ip + 10, 0);
        uint16_t sum = checksum_fold(checksum_add(0, f->ip, IP4));
        memcpy(f->ip + 10, &sum, 2);
    }
    put16(at, 0);
    uint16_t sum = checksum_fold(checksum_add(pseudo(f, protocol, length), f->upper, length));
    memcpy(at, &sum, 2);
}

static void make_tcp(struct frame *f, bool v6, unsigned flags, size_t payload, unsigned mss)
{
    size_t head = TCP + (mss ? 4 : 0);
    make(f, v6, 6, head + payload);
    put16(f->upper, 40000);
    put16(f->upper + 2, 80);
    f->upper[12] = (uint8_t)(head / 4 << 4);
    f->upper[13] = (uint8_t)flags;
    if (mss) {
        memcpy(f->upper + TCP, (const uint8_t[]){ 2, 4 }, 2);
        put16(f->upper + TCP + 2, mss);
    }
    for (size_t i = 0; i < payload; i++)
        f->upper[head + i] = (uint8_t)(i * 3);
    fill_checksums(f);
}

static void make_udp(struct frame *f, bool v6, size_t payload)
{
    make(f, v6, 17, UDP + payload);
    put16(f->upper, 5000);
    put16(f->upper + 2, 53);
    put16(f->upper + 4, UDP + payload);
    for (size_t i = 0; i < payload; i++)
        f->upper[UDP + i] = (uint8_t)(i * 7);
    fill_checksums(f);
}

/* The same from the other side. */
static void turn_around(struct frame *f)
{
    uint8_t swap[16];
    size_t width = f->v6 ? 16 : 4;
    uint8_t *from = f->ip + (f->v6 ? 8 : 12), *to = from + width;
    memcpy(swap, from, width);
    memcpy(from, to, width);
    memcpy(to, swap, width);
    memcpy(swap, f->upper, 2);
    memcpy(f->upper, f->upper + 2, 2);
    memcpy(f->upper + 2, swap, 2);
    fill_checksums(f);
}

/* --- what comes out ------------------------------------------------------------------------- */

struct got {
    unsigned count;
    struct net_header headers[200];
    struct frame frames[64]; /* of the first */
};

static void take(void *opaque, const struct net_header *header, const struct iovec *iov,
                 unsigned count)
{
    struct got *got = opaque;
    g_assert_cmpuint(got->count, <, G_N_ELEMENTS(got->headers));
    got->headers[got->count] = *header;
    if (got->count < G_N_ELEMENTS(got->frames)) {
        struct frame *f = &got->frames[got->count];
        f->length = 0;
        for (unsigned i = 0; i < count; i++) {
            memcpy(f->bytes + f->length, iov[i].iov_base, iov[i].iov_len);
            f->length += iov[i].iov_len;
        }
        f->v6 = f->bytes[12] == 0x86;
        f->ip = f->bytes + ETHERNET;
        f->upper = f->ip + (f->v6 ? IP6 : IP4);
    }
    got->count++;
}

struct rig {
    struct packet_flows flows;
    struct frame in;
    struct got got;
};

static struct rig *rig_new(void)
{
    struct rig *rig = g_new0(struct rig, 1);
    packet_init(&rig->flows);
    return rig;
}

static bool from_guest(struct rig *rig, const struct net_header *header)
{
    const struct net_header plain = { 0 };
    const struct packet_sink sink = { take, &rig->got };
    rig->got.count = 0;
    /* A copy of just its size: reads past it are seen by the sanitizer. */
    g_autofree uint8_t *exact = g_memdup2(rig->in.bytes, rig->in.length);
    bool ok =
        packet_from_guest(&rig->flows, header ? *header : plain, exact, rig->in.length, &sink);
    g_assert_true(ok || !rig->got.count);
    return ok;
}

static void to_guest(struct rig *rig)
{
    const struct packet_sink sink = { take, &rig->got };
    rig->got.count = 0;
    g_autofree uint8_t *exact = g_memdup2(rig->in.bytes, rig->in.length);
    packet_to_guest(&rig->flows, exact, rig->in.length, &sink);
}

/* --- tests ---------------------------------------------------------------------------------- */

/* TSO: the segment stays whole, its checksum is made. */
static void whole_segments(void)
{
    g_autofree struct rig *rig = rig_new();
    for (unsigned v6 = 0; v6 < 2; v6++) {
        make_tcp(&rig->in, v6, ACK, 60000, 0);
        size_t start = (size_t)(rig->in.upper - rig->in.bytes);
        uint16_t partial = (uint16_t)~checksum_fold(pseudo(&rig->in, 6, TCP + 60000));
        memcpy(rig->in.upper + 16, &partial, 2);
        struct net_header header = {
            .flags = NET_NEEDS_CHECKSUM,
            .segment_type = v6 ? NET_TCP6 : NET_TCP4,
            .segment_size = le16_of(1448),
            .checksum_start = le16_of((uint16_t)start),
            .checksum_offset = le16_of(16),
        };
        g_assert_true(from_guest(rig, &header));
        g_assert_cmpuint(rig->got.count, ==, 1);
        g_assert_cmpuint(rig->got.frames[0].length, ==, rig->in.length);
        g_assert_true(sound(&rig->got.frames[0]));
        header.checksum_start = le16_of(0xfff0);
        g_assert_false(from_guest(rig, &header));
        header.checksum_start = le16_of((uint16_t)start);
        header.checksum_offset = le16_of(15);
        g_assert_false(from_guest(rig, &header));
        header.checksum_offset = le16_of(16);
        header.segment_type = v6 ? NET_TCP4 : NET_TCP6;
        g_assert_false(from_guest(rig, &header));
        header.segment_type = 2;
        g_assert_false(from_guest(rig, &header));
    }
}

static void urgent_data(void)
{
    g_autofree struct rig *rig = rig_new();
    make_tcp(&rig->in, false, ACK | URG, 10, 0);
    put16(rig->in.upper + 18, 0xffff);
    fill_checksums(&rig->in);
    g_assert_true(from_guest(rig, NULL));
    const struct frame *f = &rig->got.frames[0];
    g_assert_cmphex(f->upper[13], ==, ACK);
    g_assert_cmpuint(get16(f->upper + 18), ==, 0);
    g_assert_true(sound(f));
    /* In fragments it cannot be seen: no TCP in fragments. */
    put16(rig->in.ip + 6, 0x2000);
    fill_checksums(&rig->in);
    g_assert_false(from_guest(rig, NULL));
}

/* The guest's offer is raised on its way in and is the size of segments on the way back. */
static void segment_sizes(void)
{
    static const unsigned offers[] = { 1460, 1380, 536, 8960 };
    g_autofree struct rig *rig = rig_new();
    for (unsigned v6 = 0; v6 < 2; v6++)
        for (size_t i = 0; i < G_N_ELEMENTS(offers); i++) {
            make_tcp(&rig->in, v6, SYN, 0, offers[i]);
            g_assert_true(from_guest(rig, NULL));
            g_assert_cmpuint(get16(rig->got.frames[0].upper + TCP + 2), >, 65000);
            g_assert_true(sound(&rig->got.frames[0]));

            make_tcp(&rig->in, v6, SYN | ACK, 0, 65481);
            turn_around(&rig->in);
            to_guest(rig);
            g_assert_cmpuint(get16(rig->got.frames[0].upper + TCP + 2), ==, offers[i]);
            g_assert_true(sound(&rig->got.frames[0]));

            make_tcp(&rig->in, v6, ACK, 30000, 0);
            turn_around(&rig->in);
            to_guest(rig);
            g_assert_cmpuint(rig->got.count, ==, 1);
            const struct net_header *h = &rig->got.headers[0];
            const struct frame *f = &rig->got.frames[0];
            g_assert_cmpuint(h->flags, ==, NET_NEEDS_CHECKSUM);
            g_assert_cmpuint(h->segment_type, ==, v6 ? NET_TCP6 : NET_TCP4);
            g_assert_cmpuint(le16_get(h->segment_size), ==, offers[i]);
            g_assert_cmpuint(le16_get(h->header_length), ==, ETHERNET + (v6 ? IP6 : IP4) + TCP);
            uint8_t copy[NET_FRAME_MAX];
            memcpy(copy, f->bytes, f->length);
            g_assert_true(checksum_complete(h, copy, f->length));
            g_assert_cmpuint(f->length, ==, rig->in.length);
            g_assert_true(!memcmp(copy, rig->in.bytes, f->length));
        }
}

/* What the guest takes in one packet is none; and a connection that was forgotten has the least. */
static void small_and_forgotten(void)
{
    g_autofree struct rig *rig = rig_new();
    make_tcp(&rig->in, false, ACK, 1460, 0);
    turn_around(&rig->in);
    to_guest(rig);
    g_assert_cmpuint(rig->got.headers[0].segment_type, ==, NET_PLAIN);
    g_assert_cmpuint(rig->got.headers[0].flags, ==, NET_DATA_VALID);
    g_assert_true(sound(&rig->got.frames[0]));
    make_tcp(&rig->in, false, SYN, 0, 1000);
    g_assert_true(from_guest(rig, NULL));
    make_tcp(&rig->in, false, ACK, 5000, 0);
    put16(rig->in.upper, 41000); /* another connection */
    turn_around(&rig->in);
    to_guest(rig);
    g_assert_cmpuint(le16_get(rig->got.headers[0].segment_size), ==, 1000);
    /* No option: RFC 9293 section 3.7.1. */
    make_tcp(&rig->in, false, SYN, 0, 0);
    g_assert_true(from_guest(rig, NULL));
    make_tcp(&rig->in, false, ACK, 5000, 0);
    turn_around(&rig->in);
    to_guest(rig);
    g_assert_cmpuint(le16_get(rig->got.headers[0].segment_size), ==, 536);
}

static void broken_options(void)
{
    static const uint8_t options[][8] = {
        { 2, 0, 5, 5 }, { 2, 1, 5, 5 }, { 2, 200, 5, 5 },
        { 1, 1, 1, 2 }, { 8, 3, 2, 4 }, { 2, 3, 1 },
    };
    g_autofree struct rig *rig = rig_new();
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        make_tcp(&rig->in, false, SYN, 0, 1460);
        memcpy(rig->in.upper + TCP, options[i], 4);
        fill_checksums(&rig->in);
        g_assert_true(from_guest(rig, NULL));
        g_assert_cmpmem(rig->got.frames[0].upper + TCP, 4, options[i], 4);
    }
    /* The size at an odd offset. */
    make_tcp(&rig->in, false, SYN, 4, 1460);
    rig->in.upper[12] = 7 << 4;
    memcpy(rig->in.upper + TCP, (const uint8_t[]){ 1, 2, 4, 5, 0xb4, 0, 0, 0 }, 8);
    fill_checksums(&rig->in);
    g_assert_true(from_guest(rig, NULL));
    g_assert_true(sound(&rig->got.frames[0]));
}

/* USO: each piece is a datagram of its own. */
static void large_datagrams_in(void)
{
    g_autofree struct rig *rig = rig_new();
    for (unsigned v6 = 0; v6 < 2; v6++) {
        make_udp(&rig->in, v6, 3500);
        struct net_header header = { .segment_type = NET_UDP_L4, .segment_size = le16_of(1000) };
        g_assert_true(from_guest(rig, &header));
        g_assert_cmpuint(rig->got.count, ==, 4);
        for (unsigned i = 0; i < 4; i++) {
            size_t piece = i < 3 ? 1000 : 500;
            const struct frame *f = &rig->got.frames[i];
            g_assert_cmpuint(get16(f->upper + 4), ==, UDP + piece);
            g_assert_true(!memcmp(f->upper + UDP, rig->in.upper + UDP + i * 1000, piece));
            g_assert_true(sound(f));
        }
        header.segment_size = le16_of(0);
        g_assert_false(from_guest(rig, &header));
        header.segment_size = le16_of(1);
        g_assert_false(from_guest(rig, &header));
    }
}

/* RFC 791 and RFC 8200: fragments of at most 1500 bytes, which come to the datagram again. */
static void large_datagrams_out(void)
{
    g_autofree struct rig *rig = rig_new();
    for (unsigned v6 = 0; v6 < 2; v6++) {
        make_udp(&rig->in, v6, 9000);
        turn_around(&rig->in);
        to_guest(rig);
        g_assert_cmpuint(rig->got.count, ==, 7);
        size_t at = 0;
        for (unsigned i = 0; i < rig->got.count; i++) {
            const struct frame *f = &rig->got.frames[i];
            const uint8_t *piece = f->upper + (v6 ? 8 : 0);
            size_t length = f->length - (size_t)(piece - f->bytes);
            unsigned place = get16(v6 ? f->upper + 2 : f->ip + 6);
            bool more = v6 ? place & 1 : place & 0x2000;
            g_assert_cmpuint(f->length - ETHERNET, <=, 1500);
            g_assert_cmpuint(v6 ? place & ~7u : (place & 0x1fff) * 8, ==, at);
            g_assert_true(more == (i + 1 < rig->got.count));
            g_assert_true(!memcmp(piece, rig->in.upper + at, length));
            if (v6)
                g_assert_cmpuint(f->ip[6] * 256 + f->upper[0], ==, 44 * 256 + 17);
            else
                g_assert_cmpuint(checksum_fold(checksum_add(0, f->ip, IP4)), ==, 0);
            at += length;
        }
        g_assert_cmpuint(at, ==, UDP + 9000);
    }
}

static bool lets(struct rig *rig, void (*spoil)(struct frame *f))
{
    spoil(&rig->in);
    return from_guest(rig, NULL);
}

static void no_version(struct frame *f)
{
    f->ip[0] = 0x55;
}
static void options4(struct frame *f)
{
    f->ip[0] = 0x46;
}
static void long_ip(struct frame *f)
{
    put16(f->ip + 2, f->length);
}
static void short_ip(struct frame *f)
{
    put16(f->ip + 2, IP4 - 1);
}
static void multicast_source(struct frame *f)
{
    f->ip[12] = 224;
}
static void multicast_card(struct frame *f)
{
    f->bytes[6] = 1;
}
static void other_protocol(struct frame *f)
{
    f->ip[9] = 2;
}
static void other_type(struct frame *f)
{
    put16(f->bytes + 12, 0x88f8);
}
static void past_the_end(struct frame *f)
{
    put16(f->ip + 6, 0x1fff);
}
static void short_udp(struct frame *f)
{
    put16(f->upper + 4, 7);
}
static void long_udp(struct frame *f)
{
    put16(f->upper + 4, 5000);
}
static void tftp(struct frame *f)
{
    put16(f->upper + 2, 69);
}
static void cut_off(struct frame *f)
{
    f->length = ETHERNET + 19;
}
static void no_ethernet(struct frame *f)
{
    f->length = 13;
}
static void nothing(struct frame *f)
{
    (void)f;
}

static void refused(void)
{
    static void (*const spoilers[])(struct frame * f) = {
        no_version,     options4,       long_ip,    short_ip,     multicast_source,
        multicast_card, other_protocol, other_type, past_the_end, short_udp,
        long_udp,       tftp,           cut_off,    no_ethernet,
    };
    g_autofree struct rig *rig = rig_new();
    for (size_t i = 0; i < G_N_ELEMENTS(spoilers); i++) {
        make_udp(&rig->in, false, 100);
        g_assert_true(lets(rig, nothing));
        g_test_message("%zu", i);
        g_assert_false(lets(rig, spoilers[i]));
    }
    /* TCP: headers that are longer than what there is, or shorter than a header. */
    static const unsigned offsets[] = { 0, 4, 6, 15 };
    for (size_t i = 0; i < G_N_ELEMENTS(offsets); i++) {
        make_tcp(&rig->in, false, ACK, 0, 0);
        rig->in.upper[12] = (uint8_t)(offsets[i] << 4);
        g_assert_false(from_guest(rig, NULL));
    }
    /* What only routers say; a solicitation that is too short; packets from nowhere. */
    static const uint8_t types[] = { 134, 137, 135 };
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        make(&rig->in, true, 58, 16);
        rig->in.upper[0] = types[i];
        g_assert_false(from_guest(rig, NULL));
    }
    make_udp(&rig->in, true, 10);
    memset(rig->in.ip + 8, 0, 16);
    g_assert_false(from_guest(rig, NULL));
    /* ARP in a frame that is too short for it, or of other networks. */
    memset(rig->in.bytes, 0, 64);
    static const uint8_t arp[] = { 8, 6, 0, 1, 8, 0, 6, 4, 0, 1 };
    memcpy(rig->in.bytes + 12, arp, sizeof arp);
    rig->in.length = 42;
    g_assert_true(from_guest(rig, NULL));
    rig->in.length = 41;
    g_assert_false(from_guest(rig, NULL));
    rig->in.length = 42;
    rig->in.bytes[18] = 7;
    g_assert_false(from_guest(rig, NULL));
}

static void padding(void)
{
    g_autofree struct rig *rig = rig_new();
    make_udp(&rig->in, false, 1);
    size_t length = rig->in.length;
    memset(rig->in.bytes + length, 0xaa, 60 - length);
    rig->in.length = 60;
    g_assert_true(from_guest(rig, NULL));
    g_assert_cmpuint(rig->got.frames[0].length, ==, length);
}

/* A fragment of a datagram of `all` bytes: `size` of them from `at` on. Whether it is taken. */
static bool piece(struct rig *rig, size_t at, size_t size, size_t all, unsigned id)
{
    struct frame *f = &rig->in;
    make(f, false, 17, size);
    put16(f->ip + 4, id);
    put16(f->ip + 6, at / 8 | (at + size < all ? 0x2000u : 0));
    for (size_t i = 0; i < size; i++)
        f->upper[i] = (uint8_t)((at + i) * 11);
    uint8_t header[UDP] = { 0x13, 0x88, 0, 53 }; /* without a checksum */
    put16(header + 4, all);
    if (at == 0)
        memcpy(f->upper, header, MIN(size, sizeof header));
    return from_guest(rig, NULL);
}

static void fragments(void)
{
    enum { ALL = 4000 };
    static const struct {
        size_t at, size;
    } pieces[] = { { 0, 1480 }, { 1480, 1480 }, { 2960, 1040 } };
    static const unsigned orders[][3] = { { 0, 1, 2 }, { 2, 1, 0 }, { 1, 2, 0 }, { 2, 0, 1 } };
    g_autofree struct rig *rig = rig_new();
    for (unsigned o = 0; o < G_N_ELEMENTS(orders); o++)
        for (unsigned i = 0; i < 3; i++) {
            g_assert_true(piece(rig, pieces[orders[o][i]].at, pieces[orders[o][i]].size, ALL, o));
            g_assert_cmpuint(rig->got.count, ==, i == 2);
            if (i < 2)
                continue;
            const struct frame *f = &rig->got.frames[0];
            g_assert_cmpuint(get16(f->ip + 2), ==, IP4 + ALL);
            g_assert_cmpuint(get16(f->ip + 6), ==, 0);
            g_assert_cmpuint(checksum_fold(checksum_add(0, f->ip, IP4)), ==, 0);
            for (size_t at = UDP; at < ALL; at++)
                g_assert_cmphex(f->upper[at], ==, (uint8_t)(at * 11));
        }
    /* What overlaps is forgotten, and the rest does not make a datagram of it. */
    g_assert_true(piece(rig, 0, 1480, ALL, 9));
    g_assert_true(piece(rig, 1472, 1480, ALL, 9));
    g_assert_cmpuint(rig->got.count, ==, 0);
    g_assert_true(piece(rig, 1480, 1480, ALL, 9));
    g_assert_true(piece(rig, 2960, 1040, ALL, 9));
    g_assert_cmpuint(rig->got.count, ==, 0);
    /* Two ends; a length that is no block; more than a datagram can be; more of them than places.
     */
    g_assert_true(piece(rig, 2960, 1040, ALL, 10));
    g_assert_true(piece(rig, 2968, 1032, ALL, 10));
    g_assert_true(piece(rig, 0, 1479, ALL, 11));
    g_assert_true(piece(rig, 65000, 515, 65515, 12));
    g_assert_false(piece(rig, 65000, 520, 65520, 13));
    for (unsigned i = 0; i < 100; i++)
        g_assert_true(piece(rig, 0, 1480, ALL, 100 + i));
    g_assert_cmpuint(rig->got.count, ==, 0);
    packet_finish(&rig->flows);
}

/* --- ports ---------------------------------------------------------------------------------- */

static void good_rules(void)
{
    static const struct {
        const char *text, *full;
    } rules[] = {
        { "8080:80", "127.0.0.1:8080:80/tcp" },
        { "0.0.0.0:2222:22", "0.0.0.0:2222:22/tcp" },
        { "53:5353/udp", "127.0.0.1:53:5353/udp" },
        { "192.168.1.2:1:65535/tcp", "192.168.1.2:1:65535/tcp" },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rules); i++) {
        struct port port, again;
        char text[PORT_TEXT];
        g_assert_true(port_parse(rules[i].text, &port, NULL));
        port_format(&port, text);
        g_assert_cmpstr(text, ==, rules[i].full);
        g_assert_true(port_parse(text, &again, NULL));
        g_assert_true(port_same(&port, &again));
    }
}

static void wrong_rules(void)
{
    static const char *const rules[] = {
        "",         ":",      "80",         "80:",    ":80",      "0:80",          "80:0",
        "65536:80", "80:80/", "80:80/sctp", "a:b",    "80:80:80", "1.2.3:80:80",   "::1:80:80",
        "80:80:",   "-1:80",  "+80:80",     " 80:80", "80:80 ",   "1.2.3.4:1:2:3", "080000:80",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rules); i++) {
        struct port port;
        g_autoptr(GError) error = NULL;
        g_test_message("%s", rules[i]);
        g_assert_false(port_parse(rules[i], &port, &error));
        g_assert_cmpint(hv_exit_status(error), ==, HV_USAGE);
    }
}

static bool add(struct ports *ports, const char *text)
{
    struct port port;
    g_assert_true(port_parse(text, &port, NULL));
    return ports_add(ports, &port, NULL);
}

static void lists_of_rules(void)
{
    struct ports ports = { .count = 0 }, loaded;
    struct port removed;
    g_assert_true(add(&ports, "8080:80"));
    g_assert_false(add(&ports, "8080:81"));
    g_assert_true(add(&ports, "8080:80/udp"));
    g_assert_true(add(&ports, "192.168.1.2:8080:80"));
    int fd = memfd_create("ports", MFD_CLOEXEC);
    ports_save(&ports, fd);
    ports_load(&loaded, fd);
    g_assert_cmpuint(loaded.count, ==, 3);
    /* Two have that port: it wants to be told which. */
    g_assert_false(ports_remove(&ports, "8080", &removed, NULL));
    g_assert_false(ports_remove(&ports, "8081", &removed, NULL));
    g_assert_false(ports_remove(&ports, "8080:81", &removed, NULL));
    g_assert_false(ports_remove(&ports, "", &removed, NULL));
    g_assert_true(ports_remove(&ports, "192.168.1.2:8080", &removed, NULL));
    g_assert_true(ports_remove(&ports, "8080:80", &removed, NULL));
    g_assert_false(removed.udp);
    ports_save(&ports, fd);
    ports_load(&loaded, fd);
    g_assert_cmpuint(loaded.count, ==, 1);
    g_assert_true(loaded.list[0].udp);
    for (unsigned i = 1; i < PORTS_MAX; i++) {
        g_autofree char *text = g_strdup_printf("255.255.255.255:%u:65535/tcp", 60000 + i);
        g_assert_true(add(&ports, text));
    }
    g_assert_false(add(&ports, "1:1"));
    ports_save(&ports, fd);
    ports_load(&loaded, fd);
    g_assert_cmpuint(loaded.count, ==, PORTS_MAX);
    /* What is no rule is left out. */
    g_assert_cmpint(pwrite(fd, "junk\n1:2\n\0\0", 11, 0), ==, 11);
    ports_load(&loaded, fd);
    g_assert_cmpuint(loaded.count, ==, 1);
    close(fd);
}

/* --- outbox --------------------------------------------------------------------------------- */

/* Nobody reads: it keeps what fits, drops the rest, and what was kept comes in order later. */
static void full_outbox(void)
{
    enum { SIZE = 3000, MANY = 1000 };
    int ends[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), ==, 0);
    struct outbox box;
    outbox_init(&box, ends[0]);
    uint8_t packet[SIZE] = { 0 }, got[65536];
    for (unsigned i = 0; i < MANY; i++) {
        put16(packet, i);
        outbox_put(&box, &(struct iovec){ packet, SIZE }, 1);
    }
    g_assert_true(outbox_pressed(&box));
    g_assert_cmpuint(box.dropped, >, 0);
    unsigned read = 0;
    for (;;) {
        ssize_t n = recv(ends[1], got, sizeof got, MSG_DONTWAIT);
        if (n < 0) {
            if (!box.count)
                break;
            outbox_flush(&box);
            continue;
        }
        g_assert_cmpint(n, ==, SIZE);
        g_assert_cmpuint(get16(got), ==, read); /* the last ones were dropped */
        read++;
    }
    g_assert_cmpuint(read + box.dropped, ==, MANY);
    g_assert_cmpuint(read, ==, box.sent);
    g_assert_false(outbox_pressed(&box));
    close(ends[1]);
    outbox_put(&box, &(struct iovec){ packet, SIZE }, 1);
    outbox_flush(&box);
    g_assert_true(box.gone);
    outbox_finish(&box);
    close(ends[0]);
}

static void outbox_order(void)
{
    int ends[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), ==, 0);
    struct outbox box;
    outbox_init(&box, ends[0]);
    g_autofree uint8_t *large = g_malloc0(60000), *got = g_malloc(65536);
    large[0] = 'b';
    outbox_put(&box, (struct iovec[]){ { (void *)(uintptr_t) "a", 1 } }, 1);
    g_assert_cmpint(recv(ends[1], got, 65536, MSG_DONTWAIT), ==, -1); /* waits for more */
    outbox_put(&box, (struct iovec[]){ { large, 10 }, { large + 10, 59990 } }, 2);
    outbox_put(&box, (struct iovec[]){ { (void *)(uintptr_t) "c", 1 } }, 1);
    outbox_flush(&box);
    static const ssize_t lengths[] = { 1, 60000, 1 };
    for (unsigned i = 0; i < 3; i++) {
        g_assert_cmpint(recv(ends[1], got, 65536, MSG_DONTWAIT), ==, lengths[i]);
        g_assert_cmpint(got[0], ==, (int)('a' + i));
    }
    outbox_finish(&box);
    close(ends[0]);
    close(ends[1]);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/packet/whole-segments", whole_segments);
    g_test_add_func("/packet/urgent-data", urgent_data);
    g_test_add_func("/packet/segment-sizes", segment_sizes);
    g_test_add_func("/packet/small-and-forgotten", small_and_forgotten);
    g_test_add_func("/packet/broken-options", broken_options);
    g_test_add_func("/packet/large-datagrams-in", large_datagrams_in);
    g_test_add_func("/packet/large-datagrams-out", large_datagrams_out);
    g_test_add_func("/packet/refused", refused);
    g_test_add_func("/packet/padding", padding);
    g_test_add_func("/packet/fragments", fragments);
    g_test_add_func("/ports/good-rules", good_rules);
    g_test_add_func("/ports/wrong-rules", wrong_rules);
    g_test_add_func("/ports/lists-of-rules", lists_of_rules);
    g_test_add_func("/outbox/full", full_outbox);
    g_test_add_func("/outbox/order", outbox_order);
    return g_test_run();
}
