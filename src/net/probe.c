/* Asking the guest whether a port is open; see probe.h. */
#include "net/probe.h"

#include "net/segment.h"

#include <glib.h>
#include <string.h>

enum {
    SOURCE_PORT = 65000, /* and a slot's number: beyond those that this host's programs get */
    STEP_US = 100 * 1000,
};

/* Offsets into a frame without options in its IPv4 header. */
enum { TO = 0, FROM = 6, TYPE = 12, IP = 14, TCP = IP + 20, END = TCP + 20 };
enum { IP_PROTOCOL = IP + 9, IP_SUM = IP + 10, IP_SOURCE = IP + 12, IP_TARGET = IP + 16 };
enum { TCP_TARGET = TCP + 2, TCP_NUMBER = TCP + 4 };
enum { TCP_FLAGS = TCP + 13, TCP_SUM = TCP + 16 };
enum { ARP_OPERATION = 20, ARP_SENDER = 22, ARP_SENDER_IP = 28, ARP_END = 42, ARP_REPLY = 2 };
enum { SYN = 2, RST = 4, ACK = 16 };

/* As libslirp's router has it. */
#define ROUTER_MAC "\x52\x55\x0a\x00\x02\x02"
#define ROUTER     "\x0a\x00\x02\x02"
#define GUEST      "\x0a\x00\x02\x0f"

/* To all: who has the guest's address? IPv4 on Ethernet, a request. */
static const char arp_request[] =
    "\xff\xff\xff\xff\xff\xff" ROUTER_MAC "\x08\x06"
    "\x00\x01\x08\x00\x06\x04\x00\x01" ROUTER_MAC ROUTER "\x00\x00\x00\x00\x00\x00" GUEST;

/* A segment to the guest without what send_segment fills in: 40 bytes, "don't fragment", 64 hops,
 * TCP; five words of header, a window of 64 KiB. */
static const char segment[] = "\x00\x00\x00\x00\x00\x00" ROUTER_MAC "\x08\x00"
                              "\x45\x00\x00\x28\x00\x00\x40\x00\x40\x06\x00\x00" ROUTER GUEST
                              "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x50\x00\xff\xff"
                              "\x00\x00\x00\x00";
G_STATIC_ASSERT(sizeof arp_request - 1 == ARP_END);
G_STATIC_ASSERT(sizeof segment - 1 == END);

static unsigned get16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void send_frame(const struct probe *probe, const void *frame, size_t length)
{
    static const struct net_header plain = { 0 };
    const struct iovec part = { (void *)(uintptr_t)frame, length };
    probe->sink.take(probe->sink.opaque, &plain, &part, 1);
}

/* A SYN, whose sequence number is 0, or the reset behind it. */
static void send_segment(const struct probe *probe, const uint8_t *mac, unsigned slot, uint8_t flag)
{
    uint8_t frame[END];
    static const uint8_t pseudo[] = { 0, 6, 0, END - TCP };
    memcpy(frame, segment, sizeof frame);
    memcpy(frame + TO, mac, 6);
    put16(frame + TCP, SOURCE_PORT + slot);
    put16(frame + TCP_TARGET, probe->wanted[slot]);
    frame[TCP_FLAGS] = flag;
    frame[TCP_NUMBER + 3] = flag == RST;
    uint16_t sum = checksum_fold(checksum_add(0, frame + IP, TCP - IP));
    memcpy(frame + IP_SUM, &sum, sizeof sum);
    sum = checksum_fold(
        checksum_add(checksum_add(checksum_add(0, pseudo, sizeof pseudo), frame + IP_SOURCE, 8),
                     frame + TCP, END - TCP));
    memcpy(frame + TCP_SUM, &sum, sizeof sum);
    send_frame(probe, frame, sizeof frame);
}

static bool waits(const struct probe *probe)
{
    for (unsigned i = 0; i < PROBES; i++)
        if (probe->wanted[i])
            return true;
    return false;
}

void probe_want(struct probe *probe, unsigned slot, uint16_t port)
{
    probe->wanted[slot] = port;
}

int probe_work(struct probe *probe)
{
    int64_t now = g_get_monotonic_time();
    if (!waits(probe))
        return -1;
    if (now >= probe->next) {
        send_frame(probe, arp_request, ARP_END);
        probe->asked = true;
        probe->next = now + STEP_US;
    }
    return (int)((probe->next - now + 999) / 1000);
}

/* The slot to which a segment answers; -1: it is none of ours. */
static int slot_of(const struct probe *probe, const uint8_t *frame, size_t length)
{
    if (length < END || get16(frame + TYPE) != 0x0800 || frame[IP] != 0x45 ||
        frame[IP_PROTOCOL] != 6 || memcmp(frame + IP_SOURCE, GUEST ROUTER, 8) != 0)
        return -1;
    unsigned slot = get16(frame + TCP_TARGET) - SOURCE_PORT;
    return slot < PROBES && probe->wanted[slot] && get16(frame + TCP) == probe->wanted[slot]
               ? (int)slot
               : -1;
}

struct probe_answer probe_take(struct probe *probe, const uint8_t *frame, size_t length)
{
    struct probe_answer answer = { 0 };
    if (!waits(probe))
        return answer;
    if (probe->asked && length >= ARP_END && get16(frame + TYPE) == 0x0806 &&
        get16(frame + ARP_OPERATION) == ARP_REPLY && !memcmp(frame + ARP_SENDER_IP, GUEST, 4)) {
        probe->asked = false;
        for (unsigned i = 0; i < PROBES; i++)
            if (probe->wanted[i])
                send_segment(probe, frame + ARP_SENDER, i, SYN);
        return answer;
    }
    int slot = slot_of(probe, frame, length);
    answer.ours = slot >= 0;
    if (slot < 0 || (frame[TCP_FLAGS] & (SYN | ACK | RST)) != (SYN | ACK))
        return answer;
    answer.slot = (unsigned)slot;
    answer.port = probe->wanted[slot];
    send_segment(probe, frame + FROM, answer.slot, RST);
    probe->wanted[slot] = 0;
    return answer;
}
