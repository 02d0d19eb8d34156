/* Packets between guest and user-mode network; see packet.h. Offsets are those of the RFCs; all
 * bytes are read and written through get16 and its like, for nothing is aligned. */
#include "net/packet.h"

#include "net/segment.h"

#include <glib.h>
#include <string.h>

enum { TYPE_AT = 12, ARP = 0x0806, IPV4 = 0x0800, IPV6 = 0x86dd };
enum { ARP_LENGTH = 28, ARP_ETHERNET = 1 };
enum { ICMP = 1, TCP = 6, UDP = 17, FRAGMENT = 44, ICMPV6 = 58 };

/* RFC 791 section 3.1, RFC 8200 section 3; offsets into the IP header. */
enum {
    IP4_LENGTH = 2,
    IP4_ID = 4,
    IP4_FRAGMENT = 6,
    IP4_PROTOCOL = 9,
    IP4_SUM = 10,
    IP4_SOURCE = 12,
    IP4_TARGET = 16,
    IP4_SIZE = 20,
    IP6_LENGTH = 4,
    IP6_NEXT = 6,
    IP6_SOURCE = 8,
    IP6_TARGET = 24,
    IP6_SIZE = 40,
};
enum { MORE_FRAGMENTS = 0x2000, FRAGMENT_OFFSET = 0x1fff };

/* RFC 9293 section 3.1, RFC 768. */
enum {
    TCP_SOURCE = 0,
    TCP_TARGET = 2,
    TCP_OFFSET = 12,
    TCP_FLAGS = 13,
    TCP_SUM = 16,
    TCP_URGENT = 18,
    TCP_SIZE = 20,
    TCP_SYN = 2,
    TCP_URG = 0x20,
    TCP_END = 0,
    TCP_NOP = 1,
    TCP_MSS = 2,
    TCP_MSS_SIZE = 4,
    UDP_TARGET = 2,
    UDP_LENGTH = 4,
    UDP_SUM = 6,
    UDP_SIZE = 8,
    UDP_TFTP = 69,
};

/* RFC 4861 section 4: what hosts send to routers, and its least length. */
enum {
    ICMP_SIZE = 8,
    NDP_ROUTER_SOLICIT = 133,
    NDP_ROUTER = 134,
    NDP_SOLICIT = 135,
    NDP_ADVERT = 136,
    NDP_REDIRECT = 137,
    NDP_SIZE = 24,
};

/* A guest that offers no size means these (RFC 9293 section 3.7.1); none that means to be served
 * offers less than MSS_LEAST. */
enum { MSS_DEFAULT4 = 536, MSS_DEFAULT6 = 1220, MSS_LEAST = 64 };

static unsigned get16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put_memory16(uint8_t *at, uint16_t value)
{
    memcpy(at, &value, sizeof value);
}

/* --- what a frame holds --------------------------------------------------------------------- */

struct parts {
    uint8_t *ip;       /* the IP header */
    uint8_t *upper;    /* what follows it */
    size_t length;     /* of that, in bytes */
    unsigned protocol; /* of that */
    bool v6, fragment;
};

static uint64_t pseudo_sum(const struct parts *p)
{
    uint64_t sum =
        p->v6 ? checksum_add(0, p->ip + IP6_SOURCE, 32) : checksum_add(0, p->ip + IP4_SOURCE, 8);
    uint8_t tail[4] = { 0, (uint8_t)p->protocol };
    put16(tail + 2, (unsigned)p->length);
    return checksum_add(sum, tail, sizeof tail);
}

static uint8_t *checksum_of(const struct parts *p)
{
    return p->upper + (p->protocol == TCP ? TCP_SUM : UDP_SUM);
}

/* The whole checksum of a TCP segment or a UDP datagram, whatever stands there. */
static void write_checksum(const struct parts *p)
{
    put_memory16(checksum_of(p), 0);
    uint16_t sum = checksum_fold(checksum_add(pseudo_sum(p), p->upper, p->length));
    put_memory16(checksum_of(p), sum || p->protocol == TCP ? sum : 0xffff); /* 0: there is none */
}

static void write_ip4_checksum(uint8_t *ip)
{
    put16(ip + IP4_SUM, 0);
    put_memory16(ip + IP4_SUM, checksum_fold(checksum_add(0, ip, IP4_SIZE)));
}

static bool find_ip4(struct parts *p, size_t left)
{
    /* Headers with options are left out: hosts do not send them, and libslirp moves what follows
     * them with memcpy over itself. */
    if (left < IP4_SIZE || p->ip[0] != 0x45)
        return false;
    size_t length = get16(p->ip + IP4_LENGTH);
    unsigned fragment = get16(p->ip + IP4_FRAGMENT);
    if (length < IP4_SIZE || length > left)
        return false;
    p->upper = p->ip + IP4_SIZE;
    p->length = length - IP4_SIZE;
    p->protocol = p->ip[IP4_PROTOCOL];
    p->fragment = fragment & (MORE_FRAGMENTS | FRAGMENT_OFFSET);
    return (fragment & FRAGMENT_OFFSET) * 8 + length <= 65535;
}

static bool find_ip6(struct parts *p, size_t left)
{
    if (left < IP6_SIZE || p->ip[0] >> 4 != 6)
        return false;
    p->upper = p->ip + IP6_SIZE;
    p->length = get16(p->ip + IP6_LENGTH);
    p->protocol = p->ip[IP6_NEXT];
    p->v6 = true;
    return p->length <= left - IP6_SIZE && p->length <= PACKET_MTU - IP6_SIZE;
}

/* The parts of an IP packet whose lengths are sound. */
static bool find_parts(struct parts *p, uint8_t *frame, size_t length)
{
    *p = (struct parts){ .ip = frame + NET_ETHERNET };
    switch (get16(frame + TYPE_AT)) {
    case IPV4:
        return find_ip4(p, length - NET_ETHERNET);
    case IPV6:
        return find_ip6(p, length - NET_ETHERNET);
    default:
        return false;
    }
}

static size_t tcp_header(const struct parts *p)
{
    return (size_t)(p->upper[TCP_OFFSET] >> 4) * 4;
}

static bool sound_tcp(const struct parts *p)
{
    return p->length >= TCP_SIZE && tcp_header(p) >= TCP_SIZE && tcp_header(p) <= p->length;
}

/* The option of a TCP header that has the maximum segment size; NULL when there is none. */
static uint8_t *find_mss(const struct parts *p)
{
    uint8_t *at = p->upper + TCP_SIZE, *end = p->upper + tcp_header(p);
    while (at < end && *at != TCP_END) {
        if (*at == TCP_NOP) {
            at++;
            continue;
        }
        if (end - at < 2 || at[1] < 2 || at[1] > end - at)
            return NULL;
        if (*at == TCP_MSS && at[1] == TCP_MSS_SIZE)
            return at + 2;
        at += at[1];
    }
    return NULL;
}

/* --- sizes of segments ---------------------------------------------------------------------- */

void packet_init(struct packet_flows *flows)
{
    memset(flows, 0, sizeof *flows);
    flows->smallest[0] = NET_MTU - IP4_SIZE - TCP_SIZE;
    flows->smallest[1] = NET_MTU - IP6_SIZE - TCP_SIZE;
}

void packet_finish(struct packet_flows *flows)
{
    fragments_finish(&flows->fragments);
}

/* A connection by the other host's address and both ports; there is one guest. */
static uint32_t flow_tag(const struct parts *p, bool from_guest)
{
    const uint8_t *ports = p->upper;
    const uint8_t *other = p->v6 ? p->ip + (from_guest ? IP6_TARGET : IP6_SOURCE)
                                 : p->ip + (from_guest ? IP4_TARGET : IP4_SOURCE);
    unsigned a = get16(ports + (from_guest ? TCP_SOURCE : TCP_TARGET));
    unsigned b = get16(ports + (from_guest ? TCP_TARGET : TCP_SOURCE));
    uint64_t tag = (uint64_t)a << 16 | b;
    for (unsigned i = 0; i < (p->v6 ? 16 : 4); i++)
        tag = (tag ^ other[i]) * UINT64_C(0x100000001b3);
    return (uint32_t)(tag ^ tag >> 32);
}

static void remember(struct packet_flows *flows, const struct parts *p, unsigned mss)
{
    uint32_t tag = flow_tag(p, true);
    mss = mss < MSS_LEAST ? MSS_LEAST : mss;
    flows->table[tag % PACKET_FLOWS] = (struct packet_flow){ tag, (uint16_t)mss };
    if (flows->smallest[p->v6] > mss)
        flows->smallest[p->v6] = (uint16_t)mss;
}

static unsigned recall(const struct packet_flows *flows, const struct parts *p)
{
    uint32_t tag = flow_tag(p, false);
    const struct packet_flow *flow = &flows->table[tag % PACKET_FLOWS];
    return flow->mss && flow->tag == tag ? flow->mss : flows->smallest[p->v6];
}

/* --- from the guest ------------------------------------------------------------------------- */

/* True, and *changed when its checksum is to be made again. */
static bool judge_tcp(struct packet_flows *flows, const struct parts *p, bool *changed)
{
    if (!sound_tcp(p))
        return false;
    /* libslirp sends what lies behind the stream to the other side when the urgent pointer says so
     * (CVE-2026-9539). Urgent data is data like any other here, as RFC 6093 would have it. */
    if (p->upper[TCP_FLAGS] & TCP_URG || get16(p->upper + TCP_URGENT)) {
        p->upper[TCP_FLAGS] &= (uint8_t)~TCP_URG;
        put16(p->upper + TCP_URGENT, 0);
        *changed = true;
    }
    if (p->upper[TCP_FLAGS] & TCP_SYN) {
        uint8_t *mss = find_mss(p);
        remember(flows, p, mss ? get16(mss) : p->v6 ? MSS_DEFAULT6 : MSS_DEFAULT4);
        if (mss) {
            put16(mss, PACKET_MTU - (p->v6 ? IP6_SIZE : IP4_SIZE) - TCP_SIZE);
            *changed = true;
        }
    }
    return true;
}

static bool judge_udp(const struct parts *p)
{
    unsigned length = p->length >= UDP_SIZE ? get16(p->upper + UDP_LENGTH) : 0;
    return length >= UDP_SIZE && length <= p->length && get16(p->upper + UDP_TARGET) != UDP_TFTP;
}

static bool judge_icmp6(const struct parts *p)
{
    if (p->length < ICMP_SIZE)
        return false;
    switch (p->upper[0]) {
    case NDP_SOLICIT:
    case NDP_ADVERT:
        return p->length >= NDP_SIZE;
    case NDP_ROUTER:
    case NDP_REDIRECT:
        return false; /* the guest is no router */
    default:
        return true;
    }
}

/* Addresses that hosts send from. Only a neighbour solicitation has none yet. */
static bool judge_source(const struct parts *p)
{
    static const uint8_t none[16];
    if (!p->v6)
        return p->ip[IP4_SOURCE] < 224;
    if (p->ip[IP6_SOURCE] == 0xff)
        return false;
    return p->protocol == ICMPV6 || memcmp(p->ip + IP6_SOURCE, none, sizeof none);
}

static bool judge_arp(const uint8_t *arp, size_t length)
{
    return length >= ARP_LENGTH && get16(arp) == ARP_ETHERNET && get16(arp + 2) == IPV4 &&
           arp[4] == 6 && arp[5] == 4;
}

static void pass(const struct packet_sink *sink, void *frame, size_t length)
{
    const struct net_header plain = { .segment_type = NET_PLAIN };
    sink->take(sink->opaque, &plain, &(struct iovec){ frame, length }, 1);
}

/* The datagrams that a large one stands for (virtio 1.2 section 5.1.6.2, USO): the headers in
 * front of each piece of the payload, in place, for the piece before it is done with. */
static bool cut_datagram(uint8_t *frame, struct parts *p, unsigned size,
                         const struct packet_sink *sink)
{
    enum { PIECES = 128 };
    uint8_t headers[NET_ETHERNET + IP6_SIZE + UDP_SIZE];
    size_t head = (size_t)(p->upper - frame) + UDP_SIZE, left = p->length - UDP_SIZE;
    if (!size || left / size > PIECES)
        return false;
    memcpy(headers, frame, head);
    uint8_t *payload = p->upper + UDP_SIZE;
    for (size_t piece; left; left -= piece, payload += piece) {
        piece = left < size ? left : size;
        struct parts part = *p;
        uint8_t *start = payload - head;
        memcpy(start, headers, head);
        part.ip = start + NET_ETHERNET;
        part.upper = payload - UDP_SIZE;
        part.length = UDP_SIZE + piece;
        if (p->v6) {
            put16(part.ip + IP6_LENGTH, (unsigned)part.length);
        } else {
            put16(part.ip + IP4_LENGTH, (unsigned)(IP4_SIZE + part.length));
            write_ip4_checksum(part.ip);
        }
        put16(part.upper + UDP_LENGTH, (unsigned)part.length);
        write_checksum(&part);
        pass(sink, start, head + piece);
    }
    return true;
}

/* What the header of the guest's packet may say of it. */
static bool judge_header(const struct net_header *header, const struct parts *p,
                         const uint8_t *frame)
{
    bool partial = header->flags & NET_NEEDS_CHECKSUM;
    bool stream = p->protocol == TCP, datagram = p->protocol == UDP;
    if (partial && (p->fragment || (!stream && !datagram)))
        return false;
    if (partial && (le16_get(header->checksum_start) != p->upper - frame ||
                    le16_get(header->checksum_offset) != checksum_of(p) - p->upper))
        return false;
    switch (header->segment_type & ~NET_ECN) {
    case NET_PLAIN:
        return true;
    case NET_TCP4:
        return stream && !p->v6;
    case NET_TCP6:
        return stream && p->v6;
    case NET_UDP:
    case NET_UDP_L4:
        return datagram && !p->fragment;
    default:
        return false;
    }
}

static bool judge_upper(struct packet_flows *flows, const struct parts *p, bool *changed)
{
    switch (p->protocol) {
    case TCP:
        return judge_tcp(flows, p, changed);
    case UDP:
        return judge_udp(p);
    case ICMP:
        return !p->v6 && p->length >= ICMP_SIZE;
    case ICMPV6:
        return p->v6 && judge_icmp6(p);
    default:
        return false;
    }
}

/* A fragment of a datagram, which goes on when it is whole. TCP is not sent in fragments. */
static bool collect(struct packet_flows *flows, const uint8_t *frame, const struct parts *p,
                    const struct packet_sink *sink)
{
    if (p->protocol != UDP && p->protocol != ICMP)
        return false;
    size_t length;
    uint8_t *whole =
        fragments_add(&flows->fragments, frame, p->length, g_get_monotonic_time() / 1000, &length);
    const struct net_header plain = { .segment_type = NET_PLAIN };
    return !whole || packet_from_guest(flows, plain, whole, length, sink);
}

bool packet_from_guest(struct packet_flows *flows, struct net_header header, uint8_t *frame,
                       size_t length, const struct packet_sink *sink)
{
    struct parts p;
    if (length < NET_ETHERNET || length > NET_FRAME_MAX || frame[6] & 1)
        return false;
    if (get16(frame + TYPE_AT) == ARP) {
        if (!judge_arp(frame + NET_ETHERNET, length - NET_ETHERNET))
            return false;
        pass(sink, frame, length);
        return true;
    }
    bool incomplete = header.flags & NET_NEEDS_CHECKSUM;
    if (!find_parts(&p, frame, length) || !judge_source(&p) || !judge_header(&header, &p, frame))
        return false;
    if (p.fragment)
        return collect(flows, frame, &p, sink);
    if (!judge_upper(flows, &p, &incomplete))
        return false;
    if ((header.segment_type & ~NET_ECN) == NET_UDP_L4)
        return cut_datagram(frame, &p, le16_get(header.segment_size), sink);
    if (incomplete)
        write_checksum(&p);
    pass(sink, frame, (size_t)(p.upper - frame) + p.length);
    return true;
}

/* --- to the guest --------------------------------------------------------------------------- */

/* RFC 791 section 3.2. libslirp's packets have no options. */
static void fragment_ip4(uint8_t *frame, const struct parts *p, const struct packet_sink *sink)
{
    enum { ROOM = (NET_MTU - IP4_SIZE) / 8 * 8 };
    const struct net_header plain = { .segment_type = NET_PLAIN };
    uint8_t headers[NET_ETHERNET + IP4_SIZE];
    memcpy(headers, frame, sizeof headers);
    for (size_t at = 0; at < p->length; at += ROOM) {
        size_t piece = p->length - at < ROOM ? p->length - at : ROOM;
        uint8_t *ip = headers + NET_ETHERNET;
        put16(ip + IP4_LENGTH, (unsigned)(IP4_SIZE + piece));
        put16(ip + IP4_FRAGMENT,
              (unsigned)(at / 8) | (at + piece < p->length ? MORE_FRAGMENTS : 0));
        write_ip4_checksum(ip);
        const struct iovec iov[] = { { headers, sizeof headers }, { p->upper + at, piece } };
        sink->take(sink->opaque, &plain, iov, 2);
    }
}

/* RFC 8200 section 4.5. */
static void fragment_ip6(struct packet_flows *flows, uint8_t *frame, const struct parts *p,
                         const struct packet_sink *sink)
{
    enum { OWN = 8, ROOM = (NET_MTU - IP6_SIZE - OWN) / 8 * 8, MORE = 1 };
    const struct net_header plain = { .segment_type = NET_PLAIN };
    uint8_t headers[NET_ETHERNET + IP6_SIZE + OWN] = { 0 };
    uint8_t *ip = headers + NET_ETHERNET, *own = ip + IP6_SIZE;
    memcpy(headers, frame, NET_ETHERNET + IP6_SIZE);
    ip[IP6_NEXT] = FRAGMENT;
    own[0] = (uint8_t)p->protocol;
    flows->fragment_id++;
    put16(own + 4, flows->fragment_id >> 16);
    put16(own + 6, flows->fragment_id & 0xffff);
    for (size_t at = 0; at < p->length; at += ROOM) {
        size_t piece = p->length - at < ROOM ? p->length - at : ROOM;
        put16(ip + IP6_LENGTH, (unsigned)(OWN + piece));
        put16(own + 2, (unsigned)at | (at + piece < p->length ? MORE : 0));
        const struct iovec iov[] = { { headers, sizeof headers }, { p->upper + at, piece } };
        sink->take(sink->opaque, &plain, iov, 2);
    }
}

/* libslirp offers its own 64 KiB; the guest gets what it would offer itself. */
static void lower_mss(const struct packet_flows *flows, const struct parts *p)
{
    uint8_t *mss = p->upper[TCP_FLAGS] & TCP_SYN ? find_mss(p) : NULL;
    unsigned limit = recall(flows, p);
    if (!mss || get16(mss) <= limit)
        return;
    put16(mss, limit);
    write_checksum(p);
}

static struct net_header segment_header(const uint8_t *frame, const struct parts *p, unsigned mss)
{
    size_t start = (size_t)(p->upper - frame);
    put_memory16(checksum_of(p), (uint16_t)~checksum_fold(pseudo_sum(p)));
    return (struct net_header){
        .flags = NET_NEEDS_CHECKSUM,
        .segment_type = p->v6 ? NET_TCP6 : NET_TCP4,
        .header_length = le16_of((uint16_t)(start + tcp_header(p))),
        .segment_size = le16_of((uint16_t)mss),
        .checksum_start = le16_of((uint16_t)start),
        .checksum_offset = le16_of(TCP_SUM),
        .buffers = le16_of(1),
    };
}

void packet_to_guest(struct packet_flows *flows, uint8_t *frame, size_t length,
                     const struct packet_sink *sink)
{
    struct parts p;
    struct net_header header = { .buffers = le16_of(1) };
    if (length < NET_ETHERNET || length > NET_FRAME_MAX)
        return;
    bool ip = find_parts(&p, frame, length);
    if (ip && p.protocol == TCP && !p.fragment && sound_tcp(&p)) {
        unsigned mss = recall(flows, &p);
        lower_mss(flows, &p);
        header.flags = NET_DATA_VALID; /* libslirp has made it just now */
        if (p.length - tcp_header(&p) > mss)
            header = segment_header(frame, &p, mss);
    } else if (ip && (size_t)(p.upper - p.ip) + p.length > NET_MTU) {
        if (p.v6)
            fragment_ip6(flows, frame, &p, sink);
        else
            fragment_ip4(frame, &p, sink);
        return;
    }
    sink->take(sink->opaque, &header, &(struct iovec){ frame, length }, 1);
}
