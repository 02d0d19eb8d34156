/* The 82540EM: EEPROM, PHY and link, both rings with their offloads and filters, interrupt
 * moderation, and rings that make no sense. */
#include "base/loop.h"
#include "net/segment.h"
#include "rig/rig.h"

#include <string.h>

enum {
    CTRL = 0x0000,
    STATUS = 0x0008,
    EECD = 0x0010,
    EERD = 0x0014,
    MDIC = 0x0020,
    VET = 0x0038,
    ICR = 0x00c0,
    ITR = 0x00c4,
    ICS = 0x00c8,
    IMS = 0x00d0,
    IMC = 0x00d8,
    RCTL = 0x0100,
    TCTL = 0x0400,
    PBA = 0x1000,
    RDBAL = 0x2800,
    RDLEN = 0x2808,
    RDH = 0x2810,
    RDT = 0x2818,
    RDTR = 0x2820,
    RADV = 0x282c,
    TDBAL = 0x3800,
    TDLEN = 0x3808,
    TDH = 0x3810,
    TDT = 0x3818,
    TIDV = 0x3820,
    TADV = 0x382c,
    RXCSUM = 0x5000,
    MTA = 0x5200,
    RA = 0x5400,
    VFTA = 0x5600,
};
enum { TXDW = 1, TXQE = 2, LSC = 4, RXDMT0 = 0x10, RXO = 0x40, RXT0 = 0x80, MDAC = 0x200 };
enum { EN = 2, UPE = 8, MPE = 0x10, LPE = 0x20, BAM = 0x8000, SECRC = 0x4000000, VFE = 0x40000 };
enum { EOP = 1, IFCS = 2, IC = 4, TSE = 4, RS = 8, DEXT = 0x20, VLE = 0x40, IDE = 0x80 };
enum { HEADER = sizeof(struct net_header), RING = 32, TX_RING = 0x10000, RX_RING = 0x11000 };
enum { TX_DATA = 0x20000, RX_DATA = 0x40000, RX_BUFFER = 2048 };
enum { DD = 1, RX_EOP = 2, IXSM = 4, VP = 8, TCPCS = 0x20, IPCS = 0x40, PIF = 0x80 };

static const uint8_t mac[] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };

struct fixture {
    struct rig *rig;
    unsigned tail; /* TDT */
    uint8_t packet[NET_PACKET_MAX];
};

static uint32_t get(struct fixture *f, unsigned offset)
{
    return (uint32_t)rig_load(f->rig, rig_bar(f->rig, 0) + offset, 4);
}

static void put(struct fixture *f, unsigned offset, uint32_t value)
{
    rig_store(f->rig, rig_bar(f->rig, 0) + offset, 4, value);
}

static void to_guest(struct fixture *f, uint64_t at, const void *data, size_t length)
{
    g_assert_true(guest_write(f->rig->board.guest, GPA(at), data, length));
}

static void from_guest(struct fixture *f, uint64_t at, void *data, size_t length)
{
    g_assert_true(guest_read(f->rig->board.guest, GPA(at), data, length));
}

static bool level(struct fixture *f)
{
    return rig_line(f->rig, "intx")->level;
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

/* RFC 1071 word by word. */
static uint32_t sum_words(uint32_t sum, const uint8_t *at, size_t length)
{
    for (size_t i = 0; i < length; i++)
        sum += i & 1 ? at[i] : (uint32_t)at[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

static void set_up(struct fixture *f, const void *unused)
{
    (void)unused;
    f->rig = rig_new(device_class_find("e1000"), NULL);
    put(f, TDBAL, TX_RING);
    put(f, TDLEN, RING * 16);
    put(f, TCTL, EN);
    put(f, RDBAL, RX_RING);
    put(f, RDLEN, RING * 16);
    for (unsigned i = 0; i < RING; i++) {
        uint64_t descriptor[2] = { RX_DATA + i * RX_BUFFER, 0 };
        to_guest(f, RX_RING + i * 16, descriptor, 16);
    }
    put(f, RDT, RING - 1);
    put(f, RCTL, EN | BAM | SECRC);
}

static void tear_down(struct fixture *f, const void *unused)
{
    (void)unused;
    g_assert_true(rig_round_trip(f->rig));
    rig_free(f->rig);
}

/* --- registers, EEPROM, PHY ------------------------------------------------------------------ */

static void registers(struct fixture *f, const void *unused)
{
    (void)unused;
    g_assert_cmphex(rig_config_read(f->rig, 0, 4), ==, 0x100e8086);
    g_assert_cmphex(rig_config_read(f->rig, 8, 4) >> 8, ==, 0x020000);
    g_assert_cmphex(rig_config_read(f->rig, 0x2c, 4), ==, 0x001e8086);
    g_assert_cmphex(get(f, STATUS) & 0xff, ==, 0x83); /* up, full duplex, 1000 Mbit/s */
    g_assert_cmphex(get(f, PBA), ==, 0x00100030);
    g_assert_cmphex(get(f, VET), ==, 0x8100);
    put(f, RDLEN, 0xffffffff);
    g_assert_cmphex(get(f, RDLEN), ==, 0xfff80);
    put(f, RDBAL, 0xffffffff);
    g_assert_cmphex(get(f, RDBAL), ==, 0xfffffff0);
    /* The 82542's places, and the way through I/O ports. */
    g_assert_cmphex(get(f, 0x110), ==, 0xfffffff0);
    put(f, 0x428, 0x1000);
    g_assert_cmphex(get(f, TDLEN), ==, 0x1000);
    put(f, 0x204, 0x12345678);
    g_assert_cmphex(get(f, MTA + 4), ==, 0x12345678);
    uint64_t io = f->rig->dev->pci->bars[2].shown_at;
    rig_out(f->rig, io, 4, TDLEN);
    g_assert_cmphex(rig_in(f->rig, io, 4), ==, TDLEN);
    g_assert_cmphex(rig_in(f->rig, io + 4, 4), ==, 0x1000);
    rig_out(f->rig, io + 4, 4, 0x2000);
    g_assert_cmphex(get(f, TDLEN), ==, 0x2000);
    rig_out(f->rig, io, 4, 0x20000);
    g_assert_cmphex(rig_in(f->rig, io + 4, 4), ==, 0);
    /* CTRL.RST: the MAC's registers, not the tables or PCI. */
    put(f, IMS, LSC);
    put(f, RA, 0);
    put(f, VFTA, 7);
    put(f, CTRL, 0x04000000);
    g_assert_cmphex(get(f, TDLEN), ==, 0);
    g_assert_cmphex(get(f, IMS), ==, 0);
    g_assert_cmphex(get(f, RCTL), ==, 0);
    g_assert_cmphex(get(f, CTRL), ==, 0x241);
    g_assert_cmphex(get(f, RA), ==, 0x12005452);
    g_assert_cmphex(get(f, RA + 4), ==, 0x80005634);
    g_assert_cmphex(get(f, VFTA), ==, 7);
    g_assert_cmphex(rig_config_read(f->rig, 4, 2) & 7, ==, 7);
}

static unsigned eerd(struct fixture *f, unsigned word)
{
    put(f, EERD, word << 8 | 1);
    uint32_t value = get(f, EERD);
    g_assert_cmphex(value & 0xff10, ==, word << 8 | 0x10);
    return value >> 16;
}

/* A bit to the serial EEPROM; what it answers after the clock's edge. */
static unsigned tick(struct fixture *f, unsigned bit)
{
    uint32_t base = 0x42 | bit << 2; /* REQ, CS */
    put(f, EECD, base);
    put(f, EECD, base | 1);
    unsigned out = get(f, EECD) >> 3 & 1;
    put(f, EECD, base);
    return out;
}

static void eeprom(struct fixture *f, const void *unused)
{
    unsigned sum = 0;
    (void)unused;
    for (unsigned i = 0; i < 64; i++)
        sum += eerd(f, i);
    g_assert_cmphex(sum & 0xffff, ==, 0xbaba);
    g_assert_cmphex(eerd(f, 0), ==, 0x5452);
    g_assert_cmphex(eerd(f, 1), ==, 0x1200);
    g_assert_cmphex(eerd(f, 2), ==, 0x5634);
    g_assert_cmphex(eerd(f, 0x0d), ==, 0x100e);
    put(f, EECD, 0x40);
    g_assert_cmphex(get(f, EECD), ==, 0x1c8); /* there, granted, ready, 64 words */
    for (unsigned word = 0; word < 64; word += 21) {
        static const unsigned read[] = { 0, 0, 1, 1, 0 }; /* idle bits before the start bit */
        for (size_t i = 0; i < G_N_ELEMENTS(read); i++)
            tick(f, read[i]);
        for (unsigned bit = 6; bit--;)
            tick(f, word >> bit & 1);
        g_assert_cmpuint(get(f, EECD) & 8, ==, 0); /* the dummy bit */
        for (unsigned next = word; next < word + 2; next++) {
            unsigned value = 0;
            for (unsigned bit = 0; bit < 16; bit++)
                value = value << 1 | tick(f, 0);
            g_assert_cmphex(value, ==, eerd(f, next % 64));
        }
        put(f, EECD, 0x40);
    }
}

static unsigned phy(struct fixture *f, unsigned number)
{
    put(f, MDIC, 2u << 26 | 1 << 21 | number << 16);
    uint32_t value = get(f, MDIC);
    g_assert_cmphex(value >> 28, ==, 1); /* ready, no error */
    return value & 0xffff;
}

static void phy_put(struct fixture *f, unsigned number, unsigned value)
{
    put(f, MDIC, 1u << 26 | 1 << 21 | number << 16 | value);
    g_assert_cmphex(get(f, MDIC) >> 28, ==, 1);
}

static void cable(struct fixture *f, bool in)
{
    g_mutex_lock(&f->rig->dev->lock);
    f->rig->dev->class->set_cable(f->rig->dev, in);
    g_mutex_unlock(&f->rig->dev->lock);
    rig_turn(f->rig, RIG_TURNS);
}

static void phy_and_link(struct fixture *f, const void *unused)
{
    (void)unused;
    g_assert_cmphex(phy(f, 2), ==, 0x0141);
    g_assert_cmphex(phy(f, 3) & 0xfff0, ==, 0x0c20);
    g_assert_cmphex(phy(f, 1), ==, 0x796d); /* link, negotiated */
    g_assert_cmphex(phy(f, 10), ==, 0x3c00);
    g_assert_cmphex(phy(f, 17) & 0xec00, ==, 0xac00); /* 1000, full, resolved, link */
    put(f, MDIC, 2u << 26 | 3 << 21 | 2 << 16);
    g_assert_cmphex(get(f, MDIC) >> 28, ==, 5); /* nobody at address 3 */
    get(f, ICR);
    put(f, MDIC, 2u << 26 | 1 << 21 | 1 << 29);
    g_assert_cmphex(get(f, ICR), ==, MDAC);

    /* The cable: LSC each time, and MII's link bit tells once that it was out. */
    put(f, IMS, LSC);
    cable(f, false);
    g_assert_true(level(f));
    g_assert_cmphex(get(f, ICR), ==, LSC);
    g_assert_false(level(f));
    g_assert_cmphex(get(f, STATUS) & 2, ==, 0);
    cable(f, true);
    g_assert_true(level(f));
    g_assert_cmphex(get(f, ICR), ==, LSC);
    g_assert_cmphex(get(f, STATUS) & 2, ==, 2);
    g_assert_cmphex(phy(f, 1) & 4, ==, 0);
    g_assert_cmphex(phy(f, 1) & 4, ==, 4);
    /* Negotiating again, power down, no gigabit. */
    phy_put(f, 0, 0x1340);
    g_assert_cmphex(phy(f, 0), ==, 0x1140);
    g_assert_cmphex(get(f, ICR), ==, LSC);
    phy_put(f, 0, 0x1940);
    g_assert_cmphex(get(f, STATUS) & 2, ==, 0);
    g_assert_cmphex(get(f, ICR), ==, LSC);
    phy_put(f, 9, 0);
    phy_put(f, 0, 0x1140);
    g_assert_cmphex(get(f, STATUS) & 0xc2, ==, 0x42); /* 100 Mbit/s */
}

/* --- transmission ---------------------------------------------------------------------------- */

/* Puts a descriptor at TDT, without telling. */
static void descriptor(struct fixture *f, uint64_t address, uint32_t lower, uint32_t upper)
{
    struct {
        uint64_t address;
        uint32_t lower, upper;
    } d = { address, lower, upper };
    to_guest(f, TX_RING + f->tail * 16, &d, sizeof d);
    f->tail = (f->tail + 1) % RING;
}

static void go(struct fixture *f)
{
    put(f, TDT, f->tail);
}

static unsigned status(struct fixture *f, unsigned index)
{
    uint8_t value;
    from_guest(f, TX_RING + index * 16 + 12, &value, 1);
    return value & 15;
}

static size_t sent(struct fixture *f)
{
    return rig_packet_out(f->rig, f->packet, sizeof f->packet);
}

/* A frame of `length` bytes at TX_DATA. */
static void frame(struct fixture *f, uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(i * 7 + 2);
    to_guest(f, TX_DATA, bytes, length);
}

static void transmit(struct fixture *f, const void *unused)
{
    uint8_t bytes[3000];
    (void)unused;
    frame(f, bytes, sizeof bytes);
    /* One descriptor, and one of three pieces, the middle one empty. */
    descriptor(f, TX_DATA, (EOP | IFCS | RS) << 24 | 100, 0);
    go(f);
    g_assert_cmpuint(sent(f), ==, HEADER + 100);
    g_assert_cmpmem(f->packet + HEADER, 100, bytes, 100);
    for (unsigned i = 0; i < HEADER; i++)
        g_assert_cmpuint(f->packet[i], ==, 0);
    g_assert_cmpuint(status(f, 0), ==, DD);
    g_assert_cmpuint(get(f, TDH), ==, 1);
    g_assert_cmphex(get(f, ICR) & (TXDW | TXQE), ==, TXDW | TXQE);
    descriptor(f, TX_DATA, 10, 0);
    descriptor(f, TX_DATA, 0, 0);
    go(f);
    g_assert_cmpuint(sent(f), ==, 0); /* no end yet */
    g_assert_cmpuint(get(f, TDH), ==, 1);
    descriptor(f, TX_DATA + 10, EOP << 24 | 1400, 0);
    go(f);
    g_assert_cmpuint(sent(f), ==, HEADER + 1410);
    g_assert_cmpmem(f->packet + HEADER, 1410, bytes, 1410);
    g_assert_cmpuint(status(f, 3), ==, 0); /* no RS */
    g_assert_cmphex(get(f, ICR), ==, TXQE);
    /* Many, over the ring's end; none while TCTL.EN is off. */
    put(f, TCTL, 0);
    for (unsigned i = 0; i < RING - 1; i++)
        descriptor(f, TX_DATA, (EOP | RS) << 24 | (60 + i), 0);
    go(f);
    g_assert_cmpuint(sent(f), ==, 0);
    put(f, TCTL, EN);
    for (unsigned i = 0; i < RING - 1; i++)
        g_assert_cmpuint(sent(f), ==, HEADER + 60 + i);
    g_assert_cmpuint(get(f, TDH), ==, f->tail);
    /* TCTL.PSP pads. */
    put(f, TCTL, EN | 8);
    descriptor(f, TX_DATA, EOP << 24 | 20, 0);
    go(f);
    g_assert_cmpuint(sent(f), ==, HEADER + 60);
    g_assert_cmpmem(f->packet + HEADER, 20, bytes, 20);
    g_assert_cmpuint(f->packet[HEADER + 20], ==, 0);
    /* GPTC, and the octets with 4 bytes of CRC; reading clears. */
    g_assert_cmpuint(get(f, 0x4080), ==, 2 + RING - 1 + 1);
    g_assert_cmpuint(get(f, 0x4080), ==, 0);
    g_assert_cmpuint(get(f, 0x4090), ==,
                     104 + 1414 + (RING - 1) * 64 + (RING - 1) * (RING - 2) / 2 + 24);
    g_assert_cmpuint(get(f, 0x4094), ==, 0);
    g_assert_cmpuint(get(f, 0x4090), ==, 0);
}

/* The cable is full: the ring stands still, and goes on when there is room. */
static void transmit_blocked(struct fixture *f, const void *unused)
{
    uint8_t bytes[1400];
    unsigned queued = 0, came = 0;
    (void)unused;
    frame(f, bytes, sizeof bytes);
    while (queued < 10000) {
        descriptor(f, TX_DATA, EOP << 24 | 1400, 0);
        go(f);
        if (get(f, TDH) != f->tail)
            break;
        queued++;
    }
    g_assert_cmpuint(queued, <, 10000);
    g_assert_false(loop_turn(f->rig->dev->loop)); /* and does not try again and again */
    while (sent(f) == HEADER + 1400)
        came++;
    g_assert_cmpuint(came, ==, queued + 1);
    g_assert_cmpuint(get(f, TDH), ==, f->tail);
}

/* An IP packet as Linux hands it over: length 0, the pseudo header's sum in the checksum. */
struct ip_shape {
    bool ip6, udp;
    unsigned payload, mss;
};

static unsigned make_ip(struct fixture *f, const struct ip_shape *s, uint8_t *bytes, bool segments)
{
    unsigned ip = 14, at = ip + (s->ip6 ? 40 : 20), own = s->udp ? 8 : 20;
    unsigned length = own + s->payload;
    memset(bytes, 0, at + own);
    memcpy(bytes, "\x02\x00\x00\x00\x00\x01", 6);
    memcpy(bytes + 6, mac, 6);
    put16(bytes + 12, s->ip6 ? 0x86dd : 0x0800);
    bytes[ip] = s->ip6 ? 0x60 : 0x45;
    bytes[ip + (s->ip6 ? 6 : 9)] = s->udp ? 17 : 6;
    for (unsigned i = s->ip6 ? 8 : 12; i < at - ip; i++)
        bytes[ip + i] = (uint8_t)(i + 1);
    if (!segments)
        put16(bytes + ip + (s->ip6 ? 4 : 2), s->ip6 ? length : length + 20);
    put16(bytes + at, 0x1234);
    if (s->udp)
        put16(bytes + at + 4, segments ? 0 : length);
    else
        bytes[at + 12] = 0x50;
    uint8_t tail[4] = { 0, s->udp ? 17 : 6 };
    put16(tail + 2, segments ? 0 : length);
    put16(bytes + at + (s->udp ? 6 : 16),
          sum_words(sum_words(0, tail, 4), bytes + ip + (s->ip6 ? 8 : 12), s->ip6 ? 32 : 8));
    for (unsigned i = 0; i < s->payload; i++)
        bytes[at + own + i] = (uint8_t)(i * 3 + (i >> 8));
    to_guest(f, TX_DATA, bytes, at + own + s->payload);
    return at + own + s->payload;
}

static void context(struct fixture *f, const struct ip_shape *s, unsigned length, bool segments)
{
    unsigned ip = 14, at = ip + (s->ip6 ? 40 : 20), own = s->udp ? 8 : 20;
    uint64_t offsets = ip | (uint64_t)(ip + 10) << 8 | (uint64_t)(at - 1) << 16 |
                       (uint64_t)at << 32 | (uint64_t)(at + (s->udp ? 6 : 16)) << 40;
    uint32_t command = DEXT | RS | (s->udp ? 0 : 1) | (s->ip6 ? 0 : 2) | (segments ? TSE : 0);
    descriptor(f, offsets, command << 24 | (length - at - own),
               segments ? s->mss << 16 | (at + own) << 8 : 0);
}

/* The checksums of a received packet are right, once those that are missing are filled in. */
static void check_sums(const struct ip_shape *s, struct net_header *header, uint8_t *bytes,
                       size_t length)
{
    uint8_t *ip = bytes + 14, *at = ip + (s->ip6 ? 40 : 20);
    if (header->flags & NET_NEEDS_CHECKSUM)
        g_assert_true(checksum_complete(header, bytes, length));
    if (!s->ip6) {
        g_assert_cmphex(sum_words(0, ip, 20), ==, 0xffff);
        g_assert_cmpuint(get16(ip + 2), ==, length - 14);
    } else {
        g_assert_cmpuint(get16(ip + 4), ==, length - 54);
    }
    size_t own = length - (size_t)(at - bytes);
    uint8_t tail[4] = { 0, s->udp ? 17 : 6 };
    put16(tail + 2, (unsigned)own);
    uint32_t sum = sum_words(sum_words(0, tail, 4), ip + (s->ip6 ? 8 : 12), s->ip6 ? 32 : 8);
    g_assert_cmphex(sum_words(sum, at, own), ==, 0xffff);
}

static void checksums(struct fixture *f, const void *unused)
{
    uint8_t bytes[4000];
    struct net_header header;
    (void)unused;
    for (unsigned i = 0; i < 4; i++) {
        struct ip_shape s = { i & 1, i & 2, 777, 0 };
        unsigned length = make_ip(f, &s, bytes, false);
        context(f, &s, length, false);
        descriptor(f, TX_DATA, DEXT << 24 | 1 << 20 | 60, s.ip6 ? 2 << 8 : 3 << 8);
        descriptor(f, TX_DATA + 60, (EOP | DEXT | RS) << 24 | 1 << 20 | (length - 60), 0);
        go(f);
        g_assert_cmpuint(sent(f), ==, HEADER + length);
        memcpy(&header, f->packet, HEADER);
        g_assert_cmpuint(header.flags, ==, NET_NEEDS_CHECKSUM);
        g_assert_cmpuint(header.segment_type, ==, NET_PLAIN);
        check_sums(&s, &header, f->packet + HEADER, length);
    }
    /* A legacy descriptor with IC: from CSS to the end, into CSO. */
    frame(f, bytes, 300);
    descriptor(f, TX_DATA, (EOP | IC) << 24 | 50u << 16 | 300, 34 << 8);
    go(f);
    g_assert_cmpuint(sent(f), ==, HEADER + 300);
    memcpy(&header, f->packet, HEADER);
    g_assert_cmpuint(le16_get(header.checksum_start), ==, 34);
    g_assert_cmpuint(le16_get(header.checksum_offset), ==, 16);
    /* A field before the start, and an end before the packet's: the chip does it. */
    descriptor(f, 35ull << 32 | 20ull << 40 | 160ull << 48, (uint32_t)DEXT << 24, 0);
    descriptor(f, TX_DATA, DEXT << 24 | 1 << 20 | 81, 2 << 8);
    descriptor(f, TX_DATA + 81, (EOP | DEXT) << 24 | 1 << 20 | 219, 0);
    go(f);
    g_assert_cmpuint(sent(f), ==, HEADER + 300);
    g_assert_cmpuint(f->packet[0], ==, 0);
    g_assert_cmphex(get16(f->packet + HEADER + 20), ==, ~sum_words(0, bytes + 35, 126) & 0xffff);
    put16(bytes + 20, get16(f->packet + HEADER + 20));
    g_assert_cmpmem(f->packet + HEADER, 300, bytes, 300);
    /* Offsets outside do nothing. */
    descriptor(f, TX_DATA, (EOP | IC) << 24 | 99u << 16 | 100, 34 << 8);
    descriptor(f, TX_DATA, (EOP | IC) << 24 | 40u << 16 | 100, 100 << 8);
    go(f);
    g_assert_cmpuint(sent(f), ==, HEADER + 100);
    g_assert_cmpuint(f->packet[0], ==, 0);
    g_assert_cmpuint(sent(f), ==, HEADER + 100);
    g_assert_cmpuint(f->packet[0], ==, 0);
}

/* TCP segmentation: one packet with a header that says how it is to be cut. */
static void segmentation(struct fixture *f, const void *unused)
{
    g_autofree uint8_t *bytes = g_malloc(65600);
    static const struct {
        struct ip_shape s;
        uint8_t type;
    } cases[] = {
        { { false, false, 60000, 1448 }, NET_TCP4 }, { { true, false, 5001, 1428 }, NET_TCP6 },
        { { false, true, 4000, 1000 }, NET_UDP_L4 }, { { true, true, 4000, 999 }, NET_UDP_L4 },
        { { false, false, 1000, 1448 }, NET_PLAIN }, /* fits into one */
    };
    (void)unused;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        const struct ip_shape *s = &cases[i].s;
        unsigned length = make_ip(f, s, bytes, true), at = s->ip6 ? 54 : 34, pieces = 0;
        unsigned headers = at + (s->udp ? 8 : 20), came = 0;
        context(f, s, length, true);
        descriptor(f, TX_DATA, (uint32_t)(DEXT | TSE) << 24 | 1 << 20 | headers, 3 << 8);
        for (unsigned done = headers; done < length; done += 4096) {
            unsigned n = MIN(length - done, 4096), end = done + n == length ? EOP | RS : 0;
            descriptor(f, TX_DATA + done, (DEXT | TSE | end) << 24 | 1 << 20 | n, 0);
        }
        go(f);
        g_assert_cmpuint(sent(f), ==, HEADER + length);
        struct net_header header;
        memcpy(&header, f->packet, HEADER);
        g_assert_cmpuint(header.flags, ==, NET_NEEDS_CHECKSUM);
        g_assert_cmpuint(header.segment_type, ==, cases[i].type);
        if (header.segment_type) {
            g_assert_cmpuint(le16_get(header.segment_size), ==, s->mss);
            g_assert_cmpuint(le16_get(header.header_length), ==, headers);
            struct segmenter cutter;
            g_assert_true(segment_begin(&cutter, &header, f->packet + HEADER, length));
            for (; segment_more(&cutter); pieces++) {
                struct iovec part[2];
                uint8_t piece[2000];
                struct net_header none = { .flags = 0 };
                segment_next(&cutter, part);
                memcpy(piece, part[0].iov_base, part[0].iov_len);
                memcpy(piece + part[0].iov_len, part[1].iov_base, part[1].iov_len);
                g_assert_cmpmem(part[1].iov_base, (int)part[1].iov_len, bytes + headers + came,
                                (int)part[1].iov_len);
                came += (unsigned)part[1].iov_len;
                check_sums(s, &none, piece, part[0].iov_len + part[1].iov_len);
            }
            g_assert_cmpuint(came, ==, s->payload);
        } else {
            check_sums(s, &header, f->packet + HEADER, length);
            pieces = 1;
        }
        g_assert_cmpuint(get(f, 0x40d4), ==, pieces);     /* TPT */
        g_assert_cmpuint(get(f, 0x40f8), ==, pieces > 1); /* TSCTC */
    }
    /* A context that makes no sense: the packet is lost, the ring goes on. */
    unsigned length = make_ip(f, &cases[0].s, bytes, true);
    for (unsigned i = 0; i < 3; i++) {
        struct ip_shape s = { false, false, 60000, i == 0 ? 0 : 1448 };
        context(f, &s, length, true);
        descriptor(f, TX_DATA, (EOP | DEXT | TSE | RS) << 24 | 1 << 20 | (i == 1 ? 30 : length),
                   3 << 8);
        unsigned last = (f->tail + RING - 1) % RING;
        if (i == 2) /* HDRLEN shorter than TCP's header */
            to_guest(f, TX_RING + (last + RING - 1) % RING * 16 + 13, "\x28", 1);
        go(f);
        g_assert_cmpuint(sent(f), ==, 0);
        g_assert_cmpuint(status(f, last), ==, DD);
    }
}

/* --- reception ------------------------------------------------------------------------------- */

struct received {
    uint64_t address;
    uint16_t length, checksum;
    uint8_t status, errors;
    uint16_t special;
};

static struct received received(struct fixture *f, unsigned index)
{
    struct received d;
    from_guest(f, RX_RING + index * 16, &d, sizeof d);
    return d;
}

/* A frame to `to` with a type and a pattern; flags of its header. */
static void arrive(struct fixture *f, const uint8_t *to, unsigned type, size_t length)
{
    memset(f->packet, 0, HEADER);
    memcpy(f->packet + HEADER, to, 6);
    memcpy(f->packet + HEADER + 6, "\x02\0\0\0\0\1", 6);
    put16(f->packet + HEADER + 12, type);
    for (size_t i = 14; i < length; i++)
        f->packet[HEADER + i] = (uint8_t)(i * 5);
    g_assert_true(rig_packet_in(f->rig, f->packet, HEADER + length));
}

static void receive(struct fixture *f, const void *unused)
{
    uint8_t got[10000];
    (void)unused;
    arrive(f, mac, 0x88b5, 1000);
    struct received d = received(f, 0);
    g_assert_cmpuint(d.length, ==, 1000);
    g_assert_cmphex(d.status, ==, DD | RX_EOP | IXSM);
    g_assert_cmphex(d.errors, ==, 0);
    from_guest(f, RX_DATA, got, 1000);
    g_assert_cmpmem(got, 1000, f->packet + HEADER, 1000);
    /* The packet checksum (3.2.3): from RXCSUM.PCSS on. */
    g_assert_cmphex(GUINT16_SWAP_LE_BE(d.checksum), ==, sum_words(0, f->packet + HEADER, 1000));
    put(f, RXCSUM, 14);
    g_assert_cmpuint(get(f, RDH), ==, 1);
    g_assert_cmphex(get(f, ICR) & RXT0, ==, RXT0);
    /* Short ones were padded on the wire; the CRC when it is not stripped. */
    put(f, RCTL, EN | BAM);
    arrive(f, mac, 0x88b5, 42);
    d = received(f, 1);
    g_assert_cmpuint(d.length, ==, 64);
    g_assert_cmphex(GUINT16_SWAP_LE_BE(d.checksum), ==, sum_words(0, f->packet + HEADER + 14, 28));
    from_guest(f, RX_DATA + RX_BUFFER, got, 60);
    g_assert_cmpuint(got[41], !=, 0);
    g_assert_cmpuint(got[42], ==, 0);
    /* 1522 bytes with the CRC at most, but for LPE; then over several descriptors. */
    put(f, RCTL, EN | BAM | SECRC);
    arrive(f, mac, 0x88b5, 1519);
    g_assert_cmpuint(get(f, RDH), ==, 2);
    g_assert_cmpuint(get(f, 0x40ac), ==, 1); /* ROC */
    arrive(f, mac, 0x88b5, 1518);
    g_assert_cmpuint(get(f, RDH), ==, 3);
    put(f, RCTL, EN | BAM | SECRC | LPE);
    arrive(f, mac, 0x88b5, 9000);
    g_assert_cmpuint(get(f, RDH), ==, 8);
    for (unsigned i = 0; i < 5; i++) {
        d = received(f, 3 + i);
        g_assert_cmpuint(d.length, ==, i < 4 ? 2048 : 9000 - 4 * 2048);
        g_assert_cmphex(d.status & (DD | RX_EOP), ==, i < 4 ? DD : DD | RX_EOP);
        from_guest(f, RX_DATA + (3 + i) * RX_BUFFER, got + i * 2048, d.length);
    }
    g_assert_cmpmem(got, 9000, f->packet + HEADER, 9000);
    /* Buffer sizes: 256, and 4096 with BSEX. */
    put(f, RCTL, EN | BAM | SECRC | 3 << 16);
    arrive(f, mac, 0x88b5, 600);
    g_assert_cmpuint(get(f, RDH), ==, 11);
    g_assert_cmpuint(received(f, 10).length, ==, 88);
    put(f, RCTL, EN | BAM | SECRC | LPE | 3 << 16 | 1 << 25);
    arrive(f, mac, 0x88b5, 4097);
    g_assert_cmpuint(get(f, RDH), ==, 13);
    g_assert_cmpuint(received(f, 11).length, ==, 4096);
    g_assert_cmpuint(get(f, 0x4074), ==, 6); /* GPRC */
    g_assert_cmpuint(get(f, 0x4088), ==, 1004 + 64 + 1522 + 9004 + 604 + 4101);
}

/* Without descriptors packets wait at the far end, unwatched; RDT brings them. */
static void receive_waits(struct fixture *f, const void *unused)
{
    (void)unused;
    put(f, IMS, RXT0 | RXDMT0 | RXO);
    for (unsigned i = 0; i < RING + 8; i++)
        arrive(f, mac, 0x88b5, 100 + i);
    g_assert_cmpuint(get(f, RDH), ==, RING - 1);
    g_assert_false(loop_turn(f->rig->dev->loop));
    g_assert_cmphex(get(f, ICR) & (RXT0 | RXDMT0 | RXO), ==, RXT0 | RXDMT0);
    put(f, RDT, 3);
    g_assert_cmpuint(get(f, RDH), ==, 3);
    g_assert_cmpuint(received(f, RING - 1).length, ==, 100 + RING - 1);
    g_assert_cmpuint(received(f, 2).length, ==, 100 + RING + 2);
    /* A long one waits for all its descriptors. */
    put(f, RDT, 7);
    put(f, RCTL, EN | BAM | SECRC | LPE);
    put(f, RDT, 8);
    g_assert_cmpuint(get(f, RDH), ==, 8);
    arrive(f, mac, 0x88b5, 5000);
    put(f, RDT, 9);
    g_assert_cmpuint(get(f, RDH), ==, 8);
    g_assert_false(loop_turn(f->rig->dev->loop));
    put(f, RDT, 11);
    g_assert_cmpuint(get(f, RDH), ==, 11);
    /* One that no ring of this size takes is lost, and said to be. */
    get(f, ICR);
    put(f, RCTL, EN | BAM | SECRC | LPE | 3 << 16);
    put(f, RDT, 10);
    arrive(f, mac, 0x88b5, 256 * RING);
    arrive(f, mac, 0x88b5, 200);
    g_assert_cmphex(get(f, ICR) & (RXO | RXT0), ==, RXO | RXT0);
    g_assert_cmpuint(get(f, RDH), ==, 12);
    g_assert_cmpuint(get(f, 0x4010), ==, 1); /* MPC */
    /* What came while RCTL.EN was off does not come later. */
    put(f, RCTL, 0);
    arrive(f, mac, 0x88b5, 200);
    put(f, RCTL, EN);
    g_assert_cmpuint(get(f, RDH), ==, 12);
}

/* A far end that is gone is no work, and another one may come. */
static void hang_up(struct fixture *f, const void *unused)
{
    uint8_t bytes[100];
    (void)unused;
    put(f, RDT, 0); /* no room: not watched */
    arrive(f, mac, 0x88b5, 100);
    rig_hang_up(f->rig);
    rig_turn(f->rig, 10);
    g_assert_false(loop_turn(f->rig->dev->loop));
    put(f, RDT, RING - 1);
    rig_turn(f->rig, 10);
    g_assert_cmpuint(get(f, RDH), ==, 1); /* what was sent before still comes */
    g_assert_true(net_gone(f->rig->net));
    g_assert_false(loop_turn(f->rig->dev->loop));
    frame(f, bytes, sizeof bytes);
    descriptor(f, TX_DATA, (EOP | RS) << 24 | 100, 0);
    go(f);
    g_assert_cmpuint(status(f, 0), ==, DD);
}

static void filters(struct fixture *f, const void *unused)
{
    static const uint8_t other[] = { 2, 3, 4, 5, 6, 7 }, group[] = { 1, 0, 0x5e, 0x7f, 0xab, 0xcd };
    static const uint8_t all[] = { 255, 255, 255, 255, 255, 255 };
    static const unsigned shifts[] = { 4, 3, 2, 0 };
    unsigned head = 0;
    (void)unused;
    put(f, RCTL, EN | SECRC);
    arrive(f, other, 0x88b5, 100);
    arrive(f, group, 0x88b5, 100);
    arrive(f, all, 0x88b5, 100);
    arrive(f, mac, 0x8808, 100); /* a pause frame is for the MAC */
    g_assert_cmpuint(get(f, RDH), ==, 0);
    put(f, RCTL, EN | SECRC | BAM);
    arrive(f, all, 0x88b5, 100);
    g_assert_cmpuint(get(f, RDH), ==, ++head);
    g_assert_cmphex(received(f, 0).status & PIF, ==, 0);
    put(f, RCTL, EN | SECRC | UPE);
    arrive(f, group, 0x88b5, 100);
    arrive(f, other, 0x88b5, 100);
    g_assert_cmpuint(get(f, RDH), ==, ++head);
    g_assert_cmphex(received(f, 1).status & PIF, ==, PIF);
    put(f, RCTL, EN | SECRC | MPE);
    arrive(f, other, 0x88b5, 100);
    arrive(f, group, 0x88b5, 100);
    g_assert_cmpuint(get(f, RDH), ==, ++head);
    /* The last of the 16 addresses; not while it is not valid. */
    put(f, RCTL, EN | SECRC);
    put(f, RA + 8 * 15, 0x05040302);
    put(f, RA + 8 * 15 + 4, 0x0706);
    arrive(f, other, 0x88b5, 100);
    g_assert_cmpuint(get(f, RDH), ==, head);
    put(f, RA + 8 * 15 + 4, 0x80000706);
    arrive(f, other, 0x88b5, 100);
    g_assert_cmpuint(get(f, RDH), ==, ++head);
    g_assert_cmphex(received(f, head - 1).status & PIF, ==, 0);
    /* The table's bit for each position of RCTL.MO. */
    for (unsigned mo = 0; mo < 4; mo++) {
        unsigned bit = (0xab | 0xcd << 8) >> shifts[mo] & 0xfff;
        put(f, RCTL, EN | SECRC | mo << 12);
        put(f, MTA + bit / 32 * 4, ~(1u << bit % 32));
        arrive(f, group, 0x88b5, 100);
        g_assert_cmpuint(get(f, RDH), ==, head);
        put(f, MTA + bit / 32 * 4, 1u << bit % 32);
        arrive(f, group, 0x88b5, 100);
        g_assert_cmpuint(get(f, RDH), ==, ++head);
        g_assert_cmphex(received(f, head - 1).status & PIF, ==, PIF);
        put(f, MTA + bit / 32 * 4, 0);
    }
    g_assert_cmpuint(get(f, 0x407c), ==, 5); /* MPRC */
    g_assert_cmpuint(get(f, 0x4078), ==, 1); /* BPRC */
}

static void vlan(struct fixture *f, const void *unused)
{
    uint8_t bytes[100], got[100];
    unsigned id;
    (void)unused;
    /* Insertion: behind the addresses, and checksums move with it. */
    frame(f, bytes, sizeof bytes);
    put(f, CTRL, 0x40000241);
    descriptor(f, TX_DATA, (EOP | VLE | IC) << 24 | 50u << 16 | 100, 0xa123u << 16 | 34 << 8);
    go(f);
    g_assert_cmpuint(sent(f), ==, HEADER + 104);
    g_assert_cmpmem(f->packet + HEADER, 12, bytes, 12);
    g_assert_cmphex(get16(f->packet + HEADER + 12), ==, 0x8100);
    g_assert_cmphex(get16(f->packet + HEADER + 14), ==, 0xa123);
    g_assert_cmpmem(f->packet + HEADER + 16, 88, bytes + 12, 88);
    struct net_header header;
    memcpy(&header, f->packet, HEADER);
    g_assert_cmpuint(le16_get(header.checksum_start), ==, 38);
    /* Stripping. */
    arrive(f, mac, 0x8100, 104);
    struct received d = received(f, 0);
    g_assert_cmpuint(d.length, ==, 100);
    g_assert_cmphex(d.status & VP, ==, VP);
    g_assert_cmphex(d.special, ==, get16(f->packet + HEADER + 14));
    from_guest(f, RX_DATA, got, 100);
    g_assert_cmpmem(got, 12, f->packet + HEADER, 12);
    g_assert_cmpmem(got + 12, 88, f->packet + HEADER + 16, 88);
    id = d.special & 0xfff;
    /* The filter is for tagged frames only. */
    put(f, RCTL, EN | BAM | SECRC | VFE);
    arrive(f, mac, 0x8100, 104);
    g_assert_cmpuint(get(f, RDH), ==, 1);
    arrive(f, mac, 0x88b5, 104);
    g_assert_cmpuint(get(f, RDH), ==, 2);
    put(f, VFTA + id / 32 * 4, 1u << id % 32);
    arrive(f, mac, 0x8100, 104);
    g_assert_cmpuint(get(f, RDH), ==, 3);
    put(f, CTRL, 0x241);
    arrive(f, mac, 0x8100, 104);
    d = received(f, 3);
    g_assert_cmpuint(d.length, ==, 104);
    g_assert_cmphex(d.status & VP, ==, 0);
}

static void receive_checksums(struct fixture *f, const void *unused)
{
    uint8_t bytes[1000];
    struct net_header header = { .flags = 0 };
    unsigned head = 0;
    (void)unused;
    put(f, RCTL, EN | UPE | SECRC);
    put(f, RXCSUM, 0x300);
    for (unsigned i = 0; i < 4; i++) { /* TCP and UDP, right and wrong */
        struct ip_shape s = { false, i & 1, 400, 0 };
        unsigned length = make_ip(f, &s, bytes, false), field = s.udp ? 40 : 50;
        put16(bytes + 24, ~sum_words(0, bytes + 14, 20) & 0xffff);
        header.checksum_start = le16_of(34);
        header.checksum_offset = le16_of((uint16_t)(field - 34));
        g_assert_true(checksum_complete(&header, bytes, length));
        bytes[length - 1] ^= (uint8_t)(i & 2);
        memset(f->packet, 0, HEADER);
        memcpy(f->packet + HEADER, bytes, length);
        g_assert_true(rig_packet_in(f->rig, f->packet, HEADER + length));
        g_assert_cmphex(received(f, head).status & (IXSM | TCPCS | IPCS), ==, TCPCS | IPCS);
        g_assert_cmphex(received(f, head++).errors, ==, i & 2 ? 0x20 : 0);
        /* The far end's word is believed, IP's checksum is looked at; completed ones are right. */
        f->packet[0] = NET_DATA_VALID;
        f->packet[HEADER + 25] ^= (uint8_t)(i & 2);
        g_assert_true(rig_packet_in(f->rig, f->packet, HEADER + length));
        g_assert_cmphex(received(f, head).status & (IXSM | TCPCS | IPCS), ==, TCPCS | IPCS);
        g_assert_cmphex(received(f, head++).errors, ==, i & 2 ? 0x40 : 0);
        header.flags = NET_NEEDS_CHECKSUM;
        make_ip(f, &s, bytes, false);
        memcpy(f->packet, &header, HEADER);
        memcpy(f->packet + HEADER, bytes, length);
        g_assert_true(rig_packet_in(f->rig, f->packet, HEADER + length));
        g_assert_cmphex(received(f, head++).errors, ==, 0x40); /* IP's is 0 */
        uint8_t got[1000];
        from_guest(f, RX_DATA + (head - 1) * RX_BUFFER, got, length);
        uint8_t tail[4] = { 0, s.udp ? 17 : 6 };
        put16(tail + 2, length - 34);
        g_assert_cmphex(
            sum_words(sum_words(sum_words(0, tail, 4), got + 26, 8), got + 34, length - 34), ==,
            0xffff);
        header.flags = 0;
    }
    /* Large segments are cut before they get here. */
    struct ip_shape s = { false, false, 900, 300 };
    unsigned length = make_ip(f, &s, bytes, false);
    header = (struct net_header){ NET_NEEDS_CHECKSUM, NET_TCP4,    le16_of(54), le16_of(300),
                                  le16_of(34),        le16_of(16), le16_of(0) };
    memcpy(f->packet, &header, HEADER);
    memcpy(f->packet + HEADER, bytes, length);
    g_assert_true(rig_packet_in(f->rig, f->packet, HEADER + length));
    g_assert_cmpuint(get(f, RDH), ==, head + 3);
    g_assert_cmpuint(received(f, head + 2).length, ==, 354);
    g_assert_cmphex(received(f, head + 2).errors, ==, 0);
    g_assert_cmphex(received(f, head + 2).status & (IXSM | TCPCS | IPCS), ==, TCPCS | IPCS);
    put(f, RXCSUM, 0);
    g_assert_true(rig_packet_in(f->rig, f->packet, HEADER + length));
    g_assert_cmphex(received(f, head + 3).status & (IXSM | TCPCS | IPCS), ==, IXSM);
}

/* --- interrupts ------------------------------------------------------------------------------ */

static void pass(struct fixture *f, uint64_t ns)
{
    clock_advance(f->rig->board.clock, ns, 0);
}

static void causes(struct fixture *f, const void *unused)
{
    (void)unused;
    get(f, ICR);
    put(f, ICS, RXT0);
    g_assert_false(level(f));
    put(f, IMS, RXT0 | LSC);
    g_assert_true(level(f));
    g_assert_cmphex(get(f, IMS), ==, RXT0 | LSC);
    put(f, IMC, RXT0);
    g_assert_false(level(f));
    put(f, IMS, RXT0);
    g_assert_true(level(f));
    put(f, ICR, RXT0); /* writing ones clears too */
    g_assert_false(level(f));
    put(f, ICS, LSC | TXDW);
    g_assert_cmphex(get(f, ICR), ==, LSC | TXDW);
    g_assert_cmphex(get(f, ICR), ==, 0);
    g_assert_false(level(f));
    /* MSI: a message for each rising edge, and no line. */
    rig_config_write(f->rig, 0xf4, 4, 0xfee00000);
    rig_config_write(f->rig, 0xfc, 2, 0x4041);
    rig_config_write(f->rig, 0xf2, 2, 1);
    put(f, ICS, LSC);
    g_assert_cmpuint(f->rig->msis, ==, 1);
    g_assert_cmphex(f->rig->last_msi.data, ==, 0x4041);
    put(f, ICS, RXT0);
    g_assert_cmpuint(f->rig->msis, ==, 1);
    get(f, ICR);
    put(f, ICS, RXT0);
    g_assert_cmpuint(f->rig->msis, ==, 2);
    g_assert_false(level(f));
}

/* ITR: 256 ns units between two interrupts. */
static void throttling(struct fixture *f, const void *unused)
{
    (void)unused;
    get(f, ICR);
    put(f, ITR, 400); /* 102.4 us */
    put(f, IMS, RXT0);
    arrive(f, mac, 0x88b5, 100);
    g_assert_true(level(f));
    get(f, ICR);
    pass(f, 50000);
    arrive(f, mac, 0x88b5, 100);
    g_assert_false(level(f));
    pass(f, 52399);
    g_assert_false(level(f));
    pass(f, 1);
    g_assert_true(level(f));
    get(f, ICR);
    pass(f, 200000);
    arrive(f, mac, 0x88b5, 100);
    g_assert_true(level(f));
}

/* RDTR starts again with each packet, RADV does not; the same of TIDV and TADV. */
static void delays(struct fixture *f, const void *unused)
{
    uint8_t bytes[100];
    (void)unused;
    get(f, ICR);
    put(f, RDTR, 10);
    put(f, RADV, 25);
    put(f, IMS, RXT0);
    for (unsigned i = 0; i < 3; i++) {
        arrive(f, mac, 0x88b5, 100);
        g_assert_false(level(f));
        pass(f, 9 * 1024);
    }
    g_assert_true(level(f)); /* after 25 units, by RADV */
    g_assert_cmphex(get(f, ICR), ==, RXT0);
    arrive(f, mac, 0x88b5, 100);
    pass(f, 10 * 1024 - 1);
    g_assert_false(level(f));
    pass(f, 1);
    g_assert_true(level(f));
    /* Masked, nothing is armed, and ICR tells all the same. */
    get(f, ICR);
    put(f, IMC, RXT0);
    arrive(f, mac, 0x88b5, 100);
    g_assert_cmphex(get(f, ICR), ==, 0);
    pass(f, 11 * 1024);
    g_assert_cmphex(get(f, ICR), ==, RXT0);
    /* FPD flushes. */
    put(f, IMS, RXT0);
    arrive(f, mac, 0x88b5, 100);
    g_assert_false(level(f));
    put(f, RDTR, 0x8000000a);
    g_assert_true(level(f));
    get(f, ICR);

    put(f, IMS, TXDW);
    put(f, TIDV, 10);
    put(f, TADV, 12);
    frame(f, bytes, sizeof bytes);
    descriptor(f, TX_DATA, (uint32_t)(EOP | RS | IDE) << 24 | 100, 0);
    go(f);
    g_assert_false(level(f));
    pass(f, 8 * 1024);
    descriptor(f, TX_DATA, (uint32_t)(EOP | RS | IDE) << 24 | 100, 0);
    go(f);
    pass(f, 4 * 1024 - 1);
    g_assert_false(level(f));
    pass(f, 1);
    g_assert_true(level(f));
    get(f, ICR);
    descriptor(f, TX_DATA, (EOP | RS) << 24 | 100, 0); /* without IDE at once */
    go(f);
    g_assert_true(level(f));
}

/* --- what no driver does --------------------------------------------------------------------- */

static void nonsense(struct fixture *f, const void *unused)
{
    uint8_t bytes[100];
    (void)unused;
    /* A ring that is not in memory, or whose head is not in it. */
    put(f, TDBAL, 0xfff00000);
    put(f, TDT, 5);
    put(f, RDBAL, 0xfff00000);
    arrive(f, mac, 0x88b5, 100);
    g_assert_false(loop_turn(f->rig->dev->loop));
    g_assert_cmpuint(get(f, TDH), ==, 0);
    g_assert_cmpuint(get(f, RDH), ==, 0);
    put(f, TDBAL, TX_RING);
    put(f, TDH, 0xffff);
    put(f, RDH, 0xffff);
    arrive(f, mac, 0x88b5, 100);
    g_assert_false(loop_turn(f->rig->dev->loop));
    g_assert_cmpuint(get(f, TDH), ==, 0xffff);
    put(f, TDH, 0);
    put(f, TDT, 0);
    put(f, TDLEN, 0);
    put(f, TDT, 1);
    g_assert_false(loop_turn(f->rig->dev->loop));
    put(f, TDT, 0);
    put(f, TDLEN, RING * 16);
    /* A full ring without an end is done with; data that is not in memory is lost. */
    frame(f, bytes, sizeof bytes);
    for (unsigned i = 0; i < RING - 1; i++)
        descriptor(f, TX_DATA, RS << 24 | 0xffff, 0);
    go(f);
    g_assert_cmpuint(get(f, TDH), ==, RING - 1);
    g_assert_cmpuint(status(f, RING - 2), ==, DD);
    descriptor(f, 0xffffff00, (EOP | RS) << 24 | 100, 0);
    descriptor(f, UINT64_MAX - 10, (EOP | DEXT | RS) << 24 | 1 << 20 | 0xfffff, 0);
    descriptor(f, TX_DATA, (EOP | RS) << 24 | 13, 0); /* no Ethernet header */
    descriptor(f, TX_DATA, (EOP | RS) << 24 | 99, 0);
    go(f);
    g_assert_cmpuint(sent(f), ==, HEADER + 99);
    g_assert_cmpuint(sent(f), ==, 0);
    /* No bus mastering: nothing moves; with it, all does. */
    rig_config_write(f->rig, 4, 2, 3);
    descriptor(f, TX_DATA, (EOP | RS) << 24 | 98, 0);
    go(f);
    g_assert_cmpuint(sent(f), ==, 0);
    rig_config_write(f->rig, 4, 2, 7);
    g_assert_cmpuint(sent(f), ==, HEADER + 98);
    /* A buffer that is not in memory: the packet is reported as wrong. */
    put(f, RDBAL, RX_RING);
    put(f, RDH, 0);
    uint64_t nowhere = 0xfffffffffffffff0;
    to_guest(f, RX_RING + 1 * 16, &nowhere, 8);
    put(f, RDT, 5);
    arrive(f, mac, 0x88b5, 100);
    arrive(f, mac, 0x88b5, 100);
    g_assert_cmphex(received(f, 1).errors, ==, 0x80);
}

static void loopback(struct fixture *f, const void *unused)
{
    uint8_t bytes[200];
    (void)unused;
    for (unsigned i = 0; i < 2; i++) { /* the MAC's and the PHY's */
        put(f, RCTL, EN | UPE | MPE | SECRC | (i ? 0 : 0x40));
        if (i)
            phy_put(f, 0, 0x4140);
        frame(f, bytes, sizeof bytes);
        for (unsigned k = 0; k < 5; k++)
            descriptor(f, TX_DATA, (EOP | RS) << 24 | 200, 0);
        go(f);
        g_assert_cmpuint(sent(f), ==, 0);
        g_assert_cmpuint(get(f, RDH), ==, 5 * (i + 1));
        uint8_t got[200];
        from_guest(f, RX_DATA, got, 200);
        g_assert_cmpmem(got, 200, bytes, 200);
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(struct fixture *f, const void *unused);
    } tests[] = {
        { "registers", registers },
        { "eeprom", eeprom },
        { "phy-and-link", phy_and_link },
        { "transmit", transmit },
        { "transmit-blocked", transmit_blocked },
        { "checksums", checksums },
        { "segmentation", segmentation },
        { "receive", receive },
        { "receive-waits", receive_waits },
        { "hang-up", hang_up },
        { "filters", filters },
        { "vlan", vlan },
        { "receive-checksums", receive_checksums },
        { "causes", causes },
        { "throttling", throttling },
        { "delays", delays },
        { "nonsense", nonsense },
        { "loopback", loopback },
    };
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_autofree char *path = g_strdup_printf("/e1000/%s", tests[i].name);
        g_test_add(path, struct fixture, NULL, set_up, tests[i].run, tear_down);
    }
    return g_test_run();
}
