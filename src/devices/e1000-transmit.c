/* The 82540EM's transmit ring (section 3.3): descriptors to packets for the far end.
 *
 * A packet is taken when all of it is there, and TDH moves when it is sent: nothing is held
 * between two turns but the checksum contexts. Payload goes from guest memory to the far end
 * without a copy; only the headers that the chip changes are copied, once. Segments go whole, with
 * the far end's kind of header (net.h), so TCP segmentation costs one packet. */
#include "e1000.h"

#include "net/segment.h"

#include <string.h>

enum {
    BUDGET = 32, /* steps of one turn, so that other threads get at the lock */
    PACKET_DESCRIPTORS = 256,
    SPANS = 256,
    HEAD = 256, /* bytes that may be changed: offsets and HDRLEN have 8 bits */
};

/* All formats (3.3.3, 3.3.5, 3.3.6): the address or offsets, then two words. */
struct descriptor {
    le64 address;
    le32 lower, upper;
};
enum {
    CMD_EOP = 0x01,
    CMD_IC = 0x04,  /* legacy */
    CMD_TSE = 0x04, /* extended */
    CMD_RS = 0x08,
    CMD_RPS = 0x10,
    CMD_DEXT = 0x20,
    CMD_VLE = 0x40,
    CMD_IDE = 0x80,
    TUCMD_TCP = 0x01,
    TUCMD_IP = 0x02,
    POPTS_IXSM = 0x01,
    POPTS_TXSM = 0x02,
    STATUS_DD = 0x01,
};

struct packet {
    struct descriptor descriptor[PACKET_DESCRIPTORS];
    struct iovec span[SPANS];
    unsigned descriptors, spans;
    size_t length;
    bool lost;        /* it cannot be sent */
    bool extended;    /* its first descriptor decides on checksums */
    uint8_t options;  /* POPTS, or the legacy command */
    uint8_t command;  /* of its last descriptor */
    uint16_t special; /* the tag, of its last one */
    uint8_t css, cso; /* legacy */
    struct net_header header;
    uint8_t head[TAG + HEAD]; /* after room for a tag */
    size_t head_length;
};

static uint8_t command(const struct descriptor *d)
{
    return (uint8_t)(le32_get(d->lower) >> 24);
}

static bool is_context(const struct descriptor *d)
{
    return command(d) & CMD_DEXT && !(le32_get(d->lower) >> 20 & 15);
}

bool e1000_can_transmit(const struct e1000 *e)
{
    uint32_t size = e1000_ring_size(e, R_TDLEN), head = e->regs.r[R_TDH], tail = e->regs.r[R_TDT];
    return pci_master(&e->dev) && e->regs.r[R_TCTL] & TCTL_EN && head != tail && head < size &&
           tail < size;
}

/* --- descriptors ---------------------------------------------------------------------------- */

static gpa descriptor_at(const struct e1000 *e, uint32_t index)
{
    return GPA(e1000_base(e, R_TDBAL) + (uint64_t)index * sizeof(struct descriptor));
}

/* Reports it, when that is wanted (3.3.3.2), and earns the interrupt. */
static void complete(struct e1000 *e, uint32_t index, const struct descriptor *d)
{
    uint8_t cmd = command(d);
    if (!(cmd & (CMD_RS | CMD_RPS)))
        return;
    le32 upper = le32_of(le32_get(d->upper) | STATUS_DD);
    pci_write(&e->dev, GPA(descriptor_at(e, index).raw + offsetof(struct descriptor, upper)),
              &upper, sizeof upper);
    uint64_t delay = e->regs.r[R_TIDV] * UINT64_C(1024), now;
    if (!(cmd & CMD_IDE) || !delay) {
        e1000_cause(e, INT_TXDW);
        return;
    }
    now = device_now(&e->dev);
    if (e->regs.tx_limit == TIMER_NEVER && e->regs.r[R_TADV])
        e->regs.tx_limit = now + e->regs.r[R_TADV] * UINT64_C(1024);
    e->regs.tx_deadline = MIN(now + delay, e->regs.tx_limit);
}

static void load_context(struct e1000 *e, const struct descriptor *d)
{
    uint64_t offsets = le64_get(d->address);
    uint32_t upper = le32_get(d->upper);
    e->regs.context[command(d) & CMD_TSE ? 1 : 0] = (struct e1000_context){
        .ip_start = (uint8_t)offsets,
        .ip_field = (uint8_t)(offsets >> 8),
        .ip_end = (uint16_t)(offsets >> 16),
        .data_start = (uint8_t)(offsets >> 32),
        .data_field = (uint8_t)(offsets >> 40),
        .data_end = (uint16_t)(offsets >> 48),
        .header_length = (uint8_t)(upper >> 8),
        .mss = (uint16_t)(upper >> 16),
        .command = command(d),
    };
}

/* Adds a descriptor's buffer to the packet. */
static void add(struct e1000 *e, struct packet *p, const struct descriptor *d)
{
    uint32_t lower = le32_get(d->lower), upper = le32_get(d->upper);
    bool extended = command(d) & CMD_DEXT;
    size_t length = lower & (extended ? 0xfffff : 0xffff);
    if (!p->descriptors++) {
        p->extended = extended;
        p->options = (uint8_t)(extended ? upper >> 8 : command(d));
        p->cso = (uint8_t)(lower >> 16);
        p->css = (uint8_t)(upper >> 8);
    }
    p->command = command(d);
    p->special = (uint16_t)(upper >> 16);
    p->length += length;
    if (p->length > NET_FRAME_MAX - TAG || is_context(d) || !pci_master(&e->dev) ||
        !guest_span(e->dev.board->guest, GPA(le64_get(d->address)), length, false, p->span,
                    &p->spans, SPANS))
        p->lost = true;
    if (p->length > NET_FRAME_MAX)
        p->length = NET_FRAME_MAX; /* far from any overflow */
}

/* --- checksums and segmentation (3.3.3.1, 3.3.7, 3.5) --------------------------------------- */

/* The sum of the frame's bytes from `from` to before `to`. */
static uint64_t sum_range(const struct iovec *iov, unsigned count, size_t from, size_t to)
{
    uint64_t sum = 0;
    size_t at = 0;
    for (unsigned i = 0; i < count; at += iov[i++].iov_len) {
        size_t first = MAX(from, at), last = MIN(to, at + iov[i].iov_len);
        if (first >= last)
            continue;
        uint64_t part = checksum_add(0, (uint8_t *)iov[i].iov_base + (first - at), last - first);
        /* From an odd offset on the bytes have changed places in their words (RFC 1071). */
        uint16_t folded = (uint16_t)~checksum_fold(part);
        sum += (first - from) & 1 ? GUINT16_SWAP_LE_BE(folded) : folded;
    }
    return sum;
}

/* Inserts the checksum of [start, end) at `field`; end 0: to the last byte. What the far end can do
 * as well is left to it. Offsets outside the packet do nothing, as the manual says. */
static void insert_checksum(struct packet *p, const struct iovec *iov, unsigned count,
                            unsigned start, unsigned field, unsigned end, bool defer)
{
    size_t to = end ? end + 1u : p->length;
    if (start >= to || to > p->length || field + 2u > p->head_length)
        return;
    if (defer && to == p->length && field >= start) {
        p->header.flags = NET_NEEDS_CHECKSUM;
        p->header.checksum_start = le16_of((uint16_t)start);
        p->header.checksum_offset = le16_of((uint16_t)(field - start));
        return;
    }
    uint16_t sum = checksum_fold(sum_range(iov, count, start, to));
    memcpy(p->head + TAG + field, &sum, sizeof sum);
}

static void put16(uint8_t *at, size_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* A packet for TCP segmentation: the headers become those of one large packet. False: the context
 * makes no sense. */
static bool make_segment(struct packet *p, const struct e1000_context *c)
{
    enum { IP4_LENGTH = 2, IP6_LENGTH = 4, IP6_HEADER = 40, UDP_LENGTH = 4 };
    uint8_t *frame = p->head + TAG;
    bool tcp = c->command & TUCMD_TCP, ip4 = c->command & TUCMD_IP;
    unsigned fixed = tcp ? 20 : 8;
    if (!c->mss || c->header_length > p->head_length || c->data_start + fixed > c->header_length ||
        c->ip_start < NET_ETHERNET || c->ip_start + (ip4 ? 20u : 40u) > c->data_start ||
        c->data_field < c->data_start || c->data_field + 2u > c->header_length)
        return false;
    size_t own = p->length - c->data_start;
    if (ip4)
        put16(frame + c->ip_start + IP4_LENGTH, p->length - c->ip_start);
    else
        put16(frame + c->ip_start + IP6_LENGTH, p->length - c->ip_start - IP6_HEADER);
    if (!tcp)
        put16(frame + c->data_start + UDP_LENGTH, own);
    /* The driver left the pseudo header's sum without the length in the field. */
    uint8_t length[2];
    put16(length, own);
    uint64_t sum = checksum_add(checksum_add(0, frame + c->data_field, 2), length, 2);
    uint16_t folded = (uint16_t)~checksum_fold(sum);
    memcpy(frame + c->data_field, &folded, 2);
    if (p->length > c->header_length + (size_t)c->mss) {
        p->header.segment_type = tcp ? (ip4 ? NET_TCP4 : NET_TCP6) : NET_UDP_L4;
        p->header.segment_size = le16_of(c->mss);
        p->header.header_length = le16_of(c->header_length);
    }
    return true;
}

static void offload(struct e1000 *e, struct packet *p, const struct iovec *iov, unsigned count)
{
    bool segment = p->extended && p->command & CMD_TSE;
    const struct e1000_context *c = &e->regs.context[segment ? 1 : 0];
    if (!p->extended) {
        if (p->options & CMD_IC && p->cso)
            insert_checksum(p, iov, count, p->css, p->cso, 0, true);
        return;
    }
    if (segment && !make_segment(p, c)) {
        guest_bug(&e->dev, "a context that is not one of TCP segmentation");
        p->lost = true;
        return;
    }
    if (p->options & POPTS_IXSM || segment) {
        if ((size_t)c->ip_field + 2 <= p->head_length && (!segment || c->command & TUCMD_IP)) {
            if (segment)
                memset(p->head + TAG + c->ip_field, 0, 2);
            insert_checksum(p, iov, count, c->ip_start, c->ip_field, c->ip_end, false);
        }
    }
    if (p->options & POPTS_TXSM || segment)
        insert_checksum(p, iov, count, c->data_start, c->data_field, segment ? 0 : c->data_end,
                        true);
}

/* 9.2: the tag goes behind the addresses. */
static size_t insert_tag(struct e1000 *e, struct packet *p)
{
    enum { ADDRESSES_LENGTH = 12 };
    memmove(p->head, p->head + TAG, ADDRESSES_LENGTH);
    put16(p->head + ADDRESSES_LENGTH, e->regs.r[R_VET]);
    put16(p->head + ADDRESSES_LENGTH + 2, p->special);
    if (p->header.flags)
        p->header.checksum_start = le16_of((uint16_t)(le16_get(p->header.checksum_start) + TAG));
    if (p->header.segment_type)
        p->header.header_length = le16_of((uint16_t)(le16_get(p->header.header_length) + TAG));
    return TAG;
}

/* --- packets -------------------------------------------------------------------------------- */

static void count(struct e1000 *e, const struct packet *p, size_t length)
{
    uint32_t packets = 1, size = (uint32_t)length, last = size;
    const uint8_t *to = p->head + TAG;
    if (p->header.segment_type) {
        uint32_t headers = le16_get(p->header.header_length);
        uint32_t mss = le16_get(p->header.segment_size), payload = size - headers;
        packets = (payload + mss - 1) / mss;
        last = headers + payload - (packets - 1) * mss;
        size = headers + mss;
        e1000_count(e, STAT_TSCTC, 1);
    }
    if (packets > 1)
        e1000_count_frames(e, STAT_PTC64, size + TAG, packets - 1);
    e1000_count_frames(e, STAT_PTC64, last + TAG, 1);
    if (!memcmp(to, "\xff\xff\xff\xff\xff\xff", 6))
        e1000_count(e, STAT_BPTC, packets);
    else if (to[0] & 1)
        e1000_count(e, STAT_MPTC, packets);
}

/* MAC and PHY loopback: the packet comes in again, or is lost for want of a descriptor. */
static void loop_back(struct e1000 *e, const struct packet *p, const struct iovec *iov,
                      unsigned parts)
{
    size_t length = 0;
    for (unsigned i = 1; i < parts; i++) {
        if (iov[i].iov_len > FRAME_MAX - TAG - length || p->header.segment_type)
            return; /* longer than any frame on a wire */
        memcpy(e->packet + length, iov[i].iov_base, iov[i].iov_len);
        length += iov[i].iov_len;
    }
    if (p->header.flags)
        checksum_complete(&p->header, e->packet, length);
    e->header = (struct net_header){ .flags = NET_PLAIN };
    e->waiting = sizeof e->header + length;
    e->rx_needs = 1;
    e1000_receive(e);
    e->waiting = 0;
}

/* Sends what was collected; false: there is no room at the far end. */
static bool send_packet(struct e1000 *e, struct packet *p)
{
    static const uint8_t zeroes[FRAME_MIN];
    struct iovec iov[SPANS + 3];
    unsigned parts = 0, from = 0;
    size_t skip = 0, length = p->length;
    p->head_length = MIN(p->length, HEAD);
    if (p->lost || p->length < NET_ETHERNET)
        return true;
    iov[parts++] = (struct iovec){ &p->header, sizeof p->header };
    iov[parts++] = (struct iovec){ p->head + TAG, p->head_length };
    for (; skip < p->head_length; from++) {
        size_t n = MIN(p->span[from].iov_len, p->head_length - skip);
        memcpy(p->head + TAG + skip, p->span[from].iov_base, n);
        skip += n;
        if (n < p->span[from].iov_len)
            iov[parts++] =
                (struct iovec){ (uint8_t *)p->span[from].iov_base + n, p->span[from].iov_len - n };
    }
    for (; from < p->spans; from++)
        iov[parts++] = p->span[from];
    offload(e, p, iov + 1, parts - 1);
    if (p->lost)
        return true;
    count(e, p, length);
    if (p->command & CMD_VLE && e->regs.r[R_CTRL] & CTRL_VME) {
        iov[1].iov_base = p->head;
        iov[1].iov_len += insert_tag(e, p);
        length += TAG;
    }
    if (length < FRAME_MIN && e->regs.r[R_TCTL] & TCTL_PSP)
        iov[parts++] = (struct iovec){ (uint8_t *)(uintptr_t)zeroes, FRAME_MIN - length };
    if (e1000_loopback(e)) {
        loop_back(e, p, iov, parts);
        return true;
    }
    return !e1000_phy_link(e) || net_send(e->net, iov, parts);
}

enum step { STEP_DONE, STEP_WAIT, STEP_BLOCKED };

/* Takes a context descriptor or a packet from TDH. */
static enum step step(struct e1000 *e, struct packet *p)
{
    uint32_t size = e1000_ring_size(e, R_TDLEN), first = e->regs.r[R_TDH], at = first;
    bool end = false;
    while (!end && at != e->regs.r[R_TDT] && p->descriptors < PACKET_DESCRIPTORS) {
        struct descriptor *d = &p->descriptor[p->descriptors];
        if (!pci_read(&e->dev, descriptor_at(e, at), d, sizeof *d)) {
            guest_bug(&e->dev, "the transmit ring is not in memory");
            return STEP_WAIT;
        }
        uint32_t next = at + 1 == size ? 0 : at + 1;
        if (is_context(d) && !p->descriptors) {
            load_context(e, d);
            complete(e, at, d);
            e->regs.r[R_TDH] = next;
            return STEP_DONE;
        }
        add(e, p, d);
        end = command(d) & CMD_EOP;
        at = next;
    }
    /* Without its end it waits for more, unless there can be no more. */
    uint32_t tail = e->regs.r[R_TDT];
    if (!end && p->descriptors < PACKET_DESCRIPTORS && (tail + 1 == size ? 0 : tail + 1) != first)
        return STEP_WAIT;
    if (!end)
        guest_bug(&e->dev, "a packet without an end");
    if (end && !send_packet(e, p))
        return STEP_BLOCKED;
    for (unsigned i = 0; i < p->descriptors; i++)
        complete(e, (first + i) % size, &p->descriptor[i]);
    e->regs.r[R_TDH] = at;
    return STEP_DONE;
}

static uint32_t pending(const struct e1000 *e)
{
    uint32_t size = e1000_ring_size(e, R_TDLEN), head = e->regs.r[R_TDH], tail = e->regs.r[R_TDT];
    return size ? (tail + size - head) % size : 0;
}

bool e1000_transmit(struct e1000 *e)
{
    struct packet packet;
    enum step result = STEP_DONE;
    uint32_t before = pending(e), low = (e->regs.r[R_TXDCTL] >> 25) * 8; /* LWTHRESH */
    unsigned budget = BUDGET;
    e->tx_blocked = false;
    while (budget && e1000_can_transmit(e) && result == STEP_DONE) {
        packet.descriptors = packet.spans = 0;
        packet.length = 0;
        packet.lost = false;
        packet.header = (struct net_header){ .flags = 0 };
        result = step(e, &packet);
        budget--;
    }
    e->tx_blocked = result == STEP_BLOCKED;
    if (before && budget < BUDGET && e->regs.r[R_TDH] == e->regs.r[R_TDT])
        e1000_cause(e, INT_TXQE);
    if (before >= low && pending(e) < low)
        e1000_cause(e, INT_TXD_LOW);
    return result == STEP_DONE && e1000_can_transmit(e);
}
