/* One TCP connection to this host through the user-mode network, for tests/bench: "send PORT MIB"
 * or "receive PORT MIB" on COM1 says what passes over it. The bytes are those of 32-bit numbers
 * that count up and begin anew with each MiB; what comes is compared. Exits with status 0 when all
 * has come, or when the host has hung up after it had all (peer.c in tests/bench); prints the ticks
 * of the TSC that it took.
 *
 * A driver that polls (driver.h), and a TCP (RFC 9293) that knows no loss: it sends what the window
 * lets it, in large segments where the device takes them (virtio 1.2 section 5.1.6.2), and
 * acknowledges all that has come each time it looks, as Linux does in a busy system. Wants the
 * network of hv and QEMU: it is 10.0.2.15, the host is 10.0.2.2. */
#include "driver.h"

enum { MIB = 1 << 20, NET = 1 };
enum { F_CSUM = 0, F_GUEST_CSUM = 1, F_GUEST_TSO4 = 7, F_HOST_TSO4 = 11, F_MRG_RXBUF = 15 };
#define BIT(feature) (UINT64_C(1) << (feature))

/* Where things lie in RAM: receive buffers, the MiB, headers of what is sent. */
enum {
    RX_AT = 16 * MIB,
    DATA_AT = 18 * MIB,
    TX_AT = 20 * MIB,
    RX_BYTES = 4096,
    TX_BYTES = 128,
    PER_SLOT = 4, /* descriptors: headers, and data in up to two pieces */
    SLOTS = RING_MAX / PER_SLOT,
};
enum { MAC = 6, VNET = 12, ETHERNET = 14, IP = 20, TCP = 20, MSS = 1460, WINDOW = 65535 };
enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };
enum { US = 0x0a00020f, HOST = 0x0a000202, OUR_PORT = 2000 };

static struct ring receive = { .size = RING_MAX }, transmit = { .size = RING_MAX };
static uint64_t features;
static const uint8_t our_mac[MAC] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
static uint8_t host_mac[MAC];
static bool resolved;
static uint8_t *const data = (uint8_t *)(uint64_t)DATA_AT;

/* --- bytes ---------------------------------------------------------------------------------- */

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value);
}

static uint32_t add(uint32_t sum, const uint8_t *bytes, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++)
        sum += i & 1 ? bytes[i] : (uint32_t)bytes[i] << 8;
    return (sum & 0xffff) + (sum >> 16);
}

static uint16_t fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static uint32_t swapped(uint32_t sum)
{
    return (uint32_t)fold(sum) >> 8 | (fold(sum) & 0xffu) << 8;
}

static void copy(uint8_t *to, const uint8_t *from, uint32_t length)
{
    while (length--)
        *to++ = *from++;
}

/* --- sending -------------------------------------------------------------------------------- */

static uint64_t free_slots = ~UINT64_C(0);

static uint8_t *new_slot(unsigned *slot)
{
    uint16_t descriptor;
    uint32_t length;
    do {
        while (ring_take(&transmit, &descriptor, &length))
            free_slots |= BIT(descriptor / PER_SLOT);
    } while (!free_slots);
    *slot = (unsigned)__builtin_ctzll(free_slots);
    free_slots &= ~BIT(*slot);
    uint8_t *bytes = (uint8_t *)(uint64_t)(TX_AT + *slot * TX_BYTES);
    for (unsigned i = 0; i < TX_BYTES; i++)
        bytes[i] = 0;
    return bytes;
}

/* The headers, and `length` bytes of the stream from `at` on. */
static void send_slot(unsigned slot, uint32_t headers, uint32_t at, uint32_t length)
{
    struct ring_descriptor *d = &transmit.descriptors[slot * PER_SLOT];
    d[0] = (struct ring_descriptor){ TX_AT + slot * TX_BYTES, headers, 0, 0 };
    while (length) {
        uint32_t offset = at % MIB, piece = length < MIB - offset ? length : MIB - offset;
        d->flags = DESC_NEXT;
        d->next = (uint16_t)(d + 1 - transmit.descriptors);
        *++d = (struct ring_descriptor){ DATA_AT + offset, piece, 0, 0 };
        at += piece;
        length -= piece;
    }
    ring_offer(&transmit, (uint16_t)(slot * PER_SLOT));
}

static void send_arp(const uint8_t *to, uint16_t operation)
{
    unsigned slot;
    uint8_t *frame = new_slot(&slot) + VNET, *arp = frame + ETHERNET;
    for (unsigned i = 0; i < MAC; i++)
        frame[i] = to ? to[i] : 0xff;
    copy(frame + MAC, our_mac, MAC);
    put16(frame + 12, 0x0806);
    put32(arp, 0x00010800);
    put32(arp + 4, 0x06040000 | operation);
    copy(arp + 8, our_mac, MAC);
    put32(arp + 14, US);
    if (to)
        copy(arp + 18, to, MAC);
    put32(arp + 24, HOST);
    send_slot(slot, VNET + 60, 0, 0);
    ring_show(&transmit);
}

static struct connection {
    uint16_t port;
    uint32_t mss;
    uint32_t acknowledged, next, window; /* what we send, from number 0 on: our SYN */
    uint32_t first, expected;            /* what the host sends */
    bool open, ended, answer;
} tcp;

/* The TCP header's checksum; without it, what the device needs to complete it. */
static void put_checksum(uint8_t *vnet, uint8_t *segment, uint32_t header, uint32_t length)
{
    uint32_t sum = add(6 + header + length, segment - 8, 8); /* RFC 9293 section 3.1 */
    if (features & BIT(F_CSUM)) {
        put16(segment + 16, fold(sum));
        vnet[0] = 1; /* needs it */
        vnet[6] = ETHERNET + IP;
        vnet[8] = 16;
        return;
    }
    sum = add(sum, segment, header);
    for (uint32_t done = 0, at = tcp.next - 1; done < length;) {
        uint32_t offset = (at + done) % MIB, left = MIB - offset;
        uint32_t piece = length - done < left ? length - done : left;
        sum = done % 2 ? swapped(sum) : sum;
        sum = add(sum, data + offset, piece);
        sum = done % 2 ? swapped(sum) : sum;
        done += piece;
    }
    put16(segment + 16, (uint16_t)~fold(sum));
}

/* With so much of the stream behind the headers. */
static void send_segment(uint8_t flags, uint32_t length)
{
    unsigned slot;
    uint8_t *vnet = new_slot(&slot), *ip = vnet + VNET + ETHERNET, *segment = ip + IP;
    uint32_t header = TCP + (flags & SYN ? 4 : 0);
    copy(vnet + VNET, host_mac, MAC);
    copy(vnet + VNET + MAC, our_mac, MAC);
    put16(vnet + VNET + 12, 0x0800);
    put16(ip, 0x4500);
    put16(ip + 2, IP + header + length);
    put32(ip + 8, 64u << 24 | 6 << 16);
    put32(ip + 12, US);
    put32(ip + 16, HOST);
    put16(ip + 10, (uint16_t)~fold(add(0, ip, IP)));
    put16(segment, OUR_PORT);
    put16(segment + 2, tcp.port);
    put32(segment + 4, tcp.next);
    put32(segment + 8, flags & ACK ? tcp.expected : 0);
    put16(segment + 12, header << 10 | flags);
    put16(segment + 14, WINDOW);
    if (flags & SYN)
        put32(segment + TCP, 0x02040000 | MSS);
    put_checksum(vnet, segment, header, length);
    if (length > tcp.mss) {
        vnet[1] = 1; /* a large segment, of TCP over IPv4 */
        vnet[2] = ETHERNET + IP + TCP;
        vnet[4] = (uint8_t)tcp.mss;
        vnet[5] = (uint8_t)(tcp.mss >> 8);
    }
    send_slot(slot, VNET + ETHERNET + IP + header, tcp.next - 1, length);
    tcp.next += length + (flags & (SYN | FIN) ? 1 : 0);
    tcp.answer = false;
}

/* --- receiving ------------------------------------------------------------------------------ */

static void post(uint16_t buffer)
{
    receive.descriptors[buffer] =
        (struct ring_descriptor){ RX_AT + buffer * RX_BYTES, RX_BYTES, DESC_WRITE, 0 };
    ring_offer(&receive, buffer);
}

static void wrong(const char *what)
{
    print(what);
    leave(4);
}

static void take_arp(const uint8_t *arp)
{
    if (get16(arp + 6) == 1 && get32(arp + 24) == US)
        send_arp(arp + 8, 2);
    if (get16(arp + 6) == 2 && get32(arp + 14) == HOST) {
        copy(host_mac, arp + 8, MAC);
        resolved = true;
    }
}

static void take_payload(const uint8_t *bytes, uint32_t length)
{
    for (uint32_t i = 0, at = tcp.expected - tcp.first; i < length; i++)
        if (bytes[i] != data[(at + i) % MIB])
            wrong("other bytes came\n");
    tcp.expected += length;
}

/* What the headers of a frame say; how much payload is to be taken, which begins at `start`. */
static uint32_t take_headers(const uint8_t *frame, uint32_t *start, bool *last)
{
    const uint8_t *ip = frame + ETHERNET, *segment = ip + IP;
    uint32_t header = (segment[12] >> 4) * 4u, length = get16(ip + 2) - IP - header;
    uint8_t flags = segment[13];
    if (ip[0] != 0x45 || ip[9] != 6 || get16(segment) != tcp.port || get16(segment + 2) != OUR_PORT)
        return 0;
    if (flags & RST)
        wrong("the connection was reset\n");
    if (flags & SYN) {
        tcp.first = tcp.expected = get32(segment + 4) + 1;
        if (header > TCP && get16(segment + TCP) == 0x0204 && get16(segment + TCP + 2) < tcp.mss)
            tcp.mss = get16(segment + TCP + 2);
        tcp.open = tcp.answer = true;
        length = 0;
    } else if (get32(segment + 4) != tcp.expected) {
        tcp.answer = true;
        return 0;
    }
    uint32_t acknowledged = get32(segment + 8);
    if (acknowledged - tcp.acknowledged <= tcp.next - tcp.acknowledged)
        tcp.acknowledged = acknowledged;
    tcp.window = get16(segment + 14);
    *start = ETHERNET + IP + header;
    *last = flags & FIN;
    return length;
}

/* A frame, which begins in this buffer and may go on in those that come next. */
static void take_frame(uint16_t buffer, uint32_t filled)
{
    const uint8_t *bytes = (uint8_t *)(uint64_t)(RX_AT + buffer * RX_BYTES);
    unsigned buffers = bytes[10];
    uint32_t start = 0, left = 0, at = VNET;
    bool last = false;
    if (get16(bytes + VNET + 12) == 0x0806)
        take_arp(bytes + VNET + ETHERNET);
    else if (get16(bytes + VNET + 12) == 0x0800)
        left = take_headers(bytes + VNET, &start, &last);
    tcp.answer |= left || last;
    for (at += start;; at = 0) {
        uint32_t piece = left < filled - at ? left : filled - at;
        take_payload(bytes + at, piece);
        left -= piece;
        post(buffer);
        if (--buffers == 0)
            break;
        while (!ring_take(&receive, &buffer, &filled))
            continue;
        bytes = (uint8_t *)(uint64_t)(RX_AT + buffer * RX_BYTES);
    }
    if (left)
        wrong("a frame is too short\n");
    tcp.ended |= last;
    tcp.expected += last;
}

/* All that has come. */
static void look(void)
{
    uint16_t buffer;
    uint32_t filled;
    if (!ring_take(&receive, &buffer, &filled)) {
        __asm__ volatile("pause");
        return;
    }
    do
        take_frame(buffer, filled);
    while (ring_take(&receive, &buffer, &filled));
    ring_show(&receive);
}

/* --- what is to be done --------------------------------------------------------------------- */

static char command; /* 's' or 'r' */
static uint32_t mibs;

/* The next segment that the window lets us send; false: it has to wait, or there is none. */
static bool send_next(uint32_t end)
{
    uint32_t room = tcp.window - (tcp.next - tcp.acknowledged), left = end - tcp.next;
    uint32_t length = features & BIT(F_HOST_TSO4) ? 65535 - IP - TCP : MSS;
    if ((int32_t)room <= 0 || (int32_t)left <= 0) /* behind the end: our FIN */
        return false;
    if (room < length)
        length = room;
    length = length >= left ? left : length - length % tcp.mss; /* no small ones on the way */
    if (length)
        send_segment(ACK | (length == left ? PSH : 0), length);
    return length;
}

static void send_all(void)
{
    uint32_t end = 1 + mibs * MIB;
    for (bool closed = false; !tcp.ended; look()) {
        bool sent = false;
        while (send_next(end))
            sent = true;
        if (tcp.next == end && !closed) {
            send_segment(FIN | ACK, 0);
            sent = closed = true;
        }
        if (sent)
            ring_show(&transmit);
    }
}

static void receive_all(void)
{
    while (tcp.expected - tcp.first < mibs * MIB) {
        look();
        if (tcp.answer) {
            send_segment(ACK, 0);
            ring_show(&transmit);
        }
    }
}

static void user_main(void)
{
    uint32_t *words = (uint32_t *)data;
    for (uint32_t i = 0; i < MIB / 4; i++)
        words[i] = i;
    for (uint16_t i = 0; i < receive.size; i++)
        post(i);
    ring_show(&receive);
    send_arp(0, 1);
    while (!resolved)
        look();
    uint64_t start = ticks();
    tcp.mss = MSS;
    send_segment(SYN, 0);
    ring_show(&transmit);
    while (!tcp.open)
        look();
    send_segment(ACK, 0);
    ring_show(&transmit);
    if (command == 's')
        send_all();
    else
        receive_all();
    print("ticks ");
    print_number((uint32_t)((ticks() - start) >> 10));
    print(" K, features ");
    print_hex((uint32_t)features);
    print("\n");
    leave(0);
}

static uint8_t read_char(void)
{
    while (!(inb(COM1 + 5) & 1))
        continue;
    return inb(COM1);
}

static uint32_t read_number(void)
{
    uint32_t number = 0;
    for (uint8_t c; (c = read_char()) >= '0' && c <= '9';)
        number = number * 10 + c - '0';
    return number;
}

uint8_t main(void)
{
    struct ring *const rings[] = { &receive, &transmit };
    outb(COM1 + 3, 3); /* 8 bits; serial_init would empty the FIFO, where the line may be already */
    command = (char)read_char();
    while (read_char() != ' ')
        continue;
    tcp.port = (uint16_t)read_number();
    mibs = read_number();
    features = virtio_start(NET,
                            BIT(F_CSUM) | BIT(F_GUEST_CSUM) | BIT(F_GUEST_TSO4) | BIT(F_HOST_TSO4) |
                                BIT(F_MRG_RXBUF),
                            rings, 2);
    if (!(features & BIT(F_MRG_RXBUF)))
        wrong("no mergeable buffers\n");
    driver_run(user_main);
}
