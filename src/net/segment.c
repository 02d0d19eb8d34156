/* Cutting segments; see segment.h. */
#include "net/segment.h"

#include <string.h>

enum { TYPE_IP4 = 0x0800, TYPE_IP6 = 0x86dd, TYPE_VLAN = 0x8100, TYPE_QINQ = 0x88a8 };
enum { IP4_HEADER = 20, IP6_HEADER = 40, TCP_HEADER = 20, UDP_HEADER = 8 };
enum { PROTOCOL_TCP = 6, PROTOCOL_UDP = 17 };
enum { TCP_SEQUENCE = 4, TCP_OFFSET = 12, TCP_FLAGS = 13, TCP_CHECKSUM = 16 };
enum { UDP_LENGTH = 4, UDP_CHECKSUM = 6 };
enum { FLAG_FIN = 0x01, FLAG_PSH = 0x08, FLAG_CWR = 0x80 };
enum { IP4_LENGTH = 2, IP4_ID = 4, IP4_FRAGMENT = 6, IP4_PROTOCOL = 9, IP4_CHECKSUM = 10 };
enum { IP6_LENGTH = 4 };
enum {
    VLAN_TAGS = 2,
    HEADERS_MAX = 256,
    PACKETS_MAX = 1500, /* 64 KiB of the smallest payload that TCP stacks use, 48 bytes */
};

static unsigned get16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

static void put16(uint8_t *at, size_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* --- checksums (RFC 1071) ------------------------------------------------------------------- */

static uint64_t word(const uint8_t *bytes, size_t length)
{
    uint64_t w = 0;
    memcpy(&w, bytes, length);
    return w;
}

/* By 64-bit words (section 2 (B)), eight for each turn of the loop, and the carries beside them:
 * every byte that a guest sends comes through here. */
uint64_t checksum_add(uint64_t sum, const uint8_t *bytes, size_t length)
{
    enum { WORD = 8, BLOCK = 8 * WORD };
    __extension__ unsigned __int128 total = 0;
    for (; length >= BLOCK; bytes += BLOCK, length -= BLOCK)
#pragma GCC unroll 8
        for (unsigned i = 0; i < BLOCK; i += WORD)
            total += word(bytes + i, WORD);
    for (; length >= WORD; bytes += WORD, length -= WORD)
        total += word(bytes, WORD);
    total += word(bytes, length);
    uint64_t low = (uint64_t)total;
    return sum + (low & UINT32_MAX) + (low >> 32) + (uint64_t)(total >> 64);
}

uint16_t checksum_fold(uint64_t sum)
{
    sum = (sum & UINT32_MAX) + (sum >> 32);
    sum = (sum & UINT32_MAX) + (sum >> 32);
    sum = (sum & UINT16_MAX) + (sum >> 16);
    sum = (sum & UINT16_MAX) + (sum >> 16);
    return (uint16_t)~sum;
}

bool checksum_complete(const struct net_header *header, uint8_t *frame, size_t length)
{
    size_t start = le16_get(header->checksum_start);
    size_t field = start + le16_get(header->checksum_offset);
    if (field + 2 > length)
        return false;
    /* The field holds the sum of the pseudo header. 0 would mean "none" to UDP. */
    uint16_t sum = checksum_fold(checksum_add(0, frame + start, length - start));
    sum = sum ? sum : UINT16_MAX;
    memcpy(frame + field, &sum, 2);
    return true;
}

/* --- segments ------------------------------------------------------------------------------- */

/* Where the network header begins, after Ethernet's and its tags; 0: nowhere. */
static unsigned find_network(const uint8_t *frame, size_t length, unsigned *type)
{
    unsigned at = NET_ETHERNET;
    for (unsigned tags = 0; tags <= VLAN_TAGS && at <= length; tags++, at += 4) {
        *type = get16(frame + at - 2);
        if (*type != TYPE_VLAN && *type != TYPE_QINQ)
            return at;
    }
    return 0;
}

/* The length of the network header agrees with where the checksum starts? */
static bool judge_network(const struct segmenter *s, unsigned type, unsigned protocol)
{
    const uint8_t *ip = s->frame + s->network;
    if (type != (unsigned)(s->ip6 ? TYPE_IP6 : TYPE_IP4))
        return false;
    if (s->ip6) /* extension headers may lie between */
        return s->transport >= s->network + IP6_HEADER && ip[0] >> 4 == 6;
    return s->transport >= s->network + IP4_HEADER && ip[0] >> 4 == 4 &&
           s->transport == s->network + (ip[0] & 15u) * 4 && ip[IP4_PROTOCOL] == protocol &&
           !(get16(ip + IP4_FRAGMENT) & 0x3fff);
}

static bool judge_transport(struct segmenter *s, const struct net_header *header)
{
    const uint8_t *at = s->frame + s->transport;
    unsigned fixed = s->tcp ? TCP_HEADER : UDP_HEADER;
    if (s->transport + fixed > s->length ||
        le16_get(header->checksum_offset) != (s->tcp ? TCP_CHECKSUM : UDP_CHECKSUM))
        return false;
    unsigned own = s->tcp ? (at[TCP_OFFSET] >> 4) * 4u : fixed;
    s->headers = s->transport + own;
    return own >= fixed && s->headers < s->length && s->headers <= HEADERS_MAX;
}

bool segment_begin(struct segmenter *s, const struct net_header *header, uint8_t *frame,
                   size_t length)
{
    unsigned kind = header->segment_type & ~(unsigned)NET_ECN, type = 0;
    *s = (struct segmenter){ .frame = frame, .length = length };
    s->tcp = kind == NET_TCP4 || kind == NET_TCP6;
    s->network = find_network(frame, length, &type);
    s->ip6 = kind == NET_TCP6 || (kind == NET_UDP_L4 && type == TYPE_IP6);
    s->transport = le16_get(header->checksum_start);
    s->size = le16_get(header->segment_size);
    if ((!s->tcp && kind != NET_UDP_L4) || !(header->flags & NET_NEEDS_CHECKSUM) || !s->network ||
        s->transport >= length || !s->size)
        return false;
    if (!judge_network(s, type, s->tcp ? PROTOCOL_TCP : PROTOCOL_UDP) ||
        !judge_transport(s, header) || (length - s->headers) / s->size > PACKETS_MAX)
        return false;
    const uint8_t *tcp = frame + s->transport;
    s->id = (uint16_t)get16(frame + s->network + IP4_ID);
    if (s->tcp) {
        s->sequence = get16(tcp + TCP_SEQUENCE) << 16 | get16(tcp + TCP_SEQUENCE + 2);
        s->flags = tcp[TCP_FLAGS];
    }
    return true;
}

bool segment_more(const struct segmenter *s)
{
    return s->headers + s->cut < s->length;
}

static void write_network(struct segmenter *s, size_t payload)
{
    uint8_t *ip = s->frame + s->network;
    size_t length = s->headers - s->network + payload;
    if (s->ip6) {
        put16(ip + IP6_LENGTH, length - IP6_HEADER);
        return;
    }
    put16(ip + IP4_LENGTH, length);
    put16(ip + IP4_ID, s->id++);
    put16(ip + IP4_CHECKSUM, 0);
    uint16_t sum = checksum_fold(checksum_add(0, ip, s->transport - s->network));
    memcpy(ip + IP4_CHECKSUM, &sum, 2);
}

static uint64_t pseudo_header(const struct segmenter *s, size_t length)
{
    const uint8_t *ip = s->frame + s->network;
    uint8_t tail[4] = { 0, s->tcp ? PROTOCOL_TCP : PROTOCOL_UDP };
    put16(tail + 2, length);
    return checksum_add(checksum_add(0, tail, 4), ip + (s->ip6 ? 8 : 12), s->ip6 ? 32 : 8);
}

void segment_next(struct segmenter *s, struct iovec part[2])
{
    uint8_t *at = s->frame + s->transport, *payload = s->frame + s->headers + s->cut;
    size_t left = s->length - s->headers - s->cut, length = MIN(left, s->size);
    size_t own = s->headers - s->transport;
    uint8_t *field = at + (s->tcp ? TCP_CHECKSUM : UDP_CHECKSUM);
    write_network(s, length);
    if (s->tcp) {
        uint8_t flags = s->flags;
        if (s->cut)
            flags &= (uint8_t)~FLAG_CWR; /* RFC 3168: once */
        if (length < left)
            flags &= (uint8_t) ~(FLAG_FIN | FLAG_PSH);
        at[TCP_FLAGS] = flags;
        put16(at + TCP_SEQUENCE, s->sequence >> 16);
        put16(at + TCP_SEQUENCE + 2, s->sequence);
        s->sequence += (uint32_t)length;
    } else {
        put16(at + UDP_LENGTH, own + length);
    }
    put16(field, 0);
    uint64_t sum = checksum_add(pseudo_header(s, own + length), at, own);
    uint16_t folded = checksum_fold(checksum_add(sum, payload, length));
    folded = folded ? folded : UINT16_MAX;
    memcpy(field, &folded, 2);
    s->cut += length;
    part[0] = (struct iovec){ s->frame, s->headers };
    part[1] = (struct iovec){ payload, length };
}
