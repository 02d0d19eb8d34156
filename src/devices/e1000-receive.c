/* The 82540EM's receive ring (section 3.2): packets to descriptors, through its filters.
 *
 * A packet is received into a buffer of ours and written to the ring when that has room; until
 * then it waits there, and more wait at the far end. */
#include "e1000.h"

#include "net/segment.h"

#include <string.h>

enum { LONGEST = 1522 }; /* without RCTL.LPE, with its CRC */
enum { TYPE_PAUSE = 0x8808, TYPE_IP4 = 0x0800, PROTOCOL_TCP = 6, PROTOCOL_UDP = 17 };

/* 3.2.3 */
struct descriptor {
    le64 address;
    le16 length, checksum;
    uint8_t status, errors;
    le16 special;
};
enum {
    STATUS_DD = 0x01,
    STATUS_EOP = 0x02,
    STATUS_IXSM = 0x04,
    STATUS_VP = 0x08,
    STATUS_TCPCS = 0x20,
    STATUS_IPCS = 0x40,
    STATUS_PIF = 0x80,
};
enum { ERROR_TCPE = 0x20, ERROR_IPE = 0x40, ERROR_RXE = 0x80 };

static unsigned get16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

/* --- filters (10.3, 13.5) ------------------------------------------------------------------- */

static bool exact_match(const struct e1000 *e, const uint8_t *frame)
{
    enum { AS_SOURCE = 0x10000, AS_MASK = 0x30000, ETHERNET_ADDRESS = 6 };
    const uint32_t valid = 0x80000000;
    for (unsigned i = 0; i < ADDRESSES; i++) {
        uint32_t low = e->regs.address[2 * i], high = e->regs.address[2 * i + 1];
        if (!(high & valid) || (high & AS_MASK) > AS_SOURCE)
            continue;
        const uint8_t *a = (high & AS_MASK) == AS_SOURCE ? frame + ETHERNET_ADDRESS : frame;
        if (low == (a[0] | a[1] << 8 | a[2] << 16 | (uint32_t)a[3] << 24) &&
            (high & 0xffff) == (a[4] | (uint32_t)a[5] << 8))
            return true;
    }
    return false;
}

/* 13.5.1: twelve of the address's last bits, by RCTL.MO. */
static bool multicast_match(const struct e1000 *e, const uint8_t *to)
{
    static const uint8_t shifts[] = { 4, 3, 2, 0 };
    unsigned shift = shifts[e->regs.r[R_RCTL] >> RCTL_MO_SHIFT & 3];
    unsigned bit = (to[4] | (unsigned)to[5] << 8) >> shift & 0xfff;
    return e->regs.multicast[bit / 32] >> (bit % 32) & 1;
}

static bool tagged(const struct e1000 *e, const uint8_t *frame, size_t length)
{
    return length >= NET_ETHERNET + TAG && get16(frame + 12) == (e->regs.r[R_VET] & 0xffff);
}

static bool vlan_match(const struct e1000 *e, const uint8_t *frame)
{
    uint32_t rctl = e->regs.r[R_RCTL];
    unsigned tag = get16(frame + 14), id = tag & 0xfff;
    if (!(rctl & RCTL_VFE))
        return true;
    if (rctl & RCTL_CFIEN && !(tag & 0x1000) != !(rctl & RCTL_CFI))
        return false;
    return e->regs.vlans[id / 32] >> (id % 32) & 1;
}

/* Does the frame pass? *inexact: only by the hash or for want of a filter. */
static bool accept(struct e1000 *e, const uint8_t *frame, size_t length, bool *inexact)
{
    uint32_t rctl = e->regs.r[R_RCTL];
    bool broadcast = !memcmp(frame, "\xff\xff\xff\xff\xff\xff", 6), multicast = frame[0] & 1;
    *inexact = false;
    if (length + TAG > LONGEST && !(rctl & RCTL_LPE)) {
        e1000_count(e, STAT_ROC, 1);
        return false;
    }
    if (get16(frame + 12) == TYPE_PAUSE && !(rctl & RCTL_PMCF))
        return false;
    if (tagged(e, frame, length) && !vlan_match(e, frame))
        return false;
    if ((broadcast && rctl & RCTL_BAM) || exact_match(e, frame))
        return true;
    *inexact = true;
    if (multicast)
        return rctl & RCTL_MPE || (!broadcast && multicast_match(e, frame));
    return rctl & RCTL_UPE;
}

/* --- checksums (3.2.9) ---------------------------------------------------------------------- */

/* IPv4 and TCP or UDP on it, as RXCSUM asks for; all else is left to software (IXSM). */
static void check(const struct e1000 *e, const uint8_t *frame, size_t length, struct descriptor *d)
{
    enum { IP_LENGTH = 2, IP_FRAGMENT = 6, IP_PROTOCOL = 9, IP_ADDRESSES = 12, UDP_FIELD = 6 };
    unsigned at = tagged(e, frame, length) ? NET_ETHERNET + TAG : NET_ETHERNET;
    uint32_t rxcsum = e->regs.r[R_RXCSUM];
    d->status |= STATUS_IXSM;
    if (length < at + 20 || get16(frame + at - 2) != TYPE_IP4 || frame[at] >> 4 != 4)
        return;
    const uint8_t *ip = frame + at;
    size_t header = (ip[0] & 15u) * 4u, total = get16(ip + IP_LENGTH);
    if (header < 20 || total < header || total > length - at)
        return;
    if (rxcsum & RXCSUM_IPOFL) {
        d->status = (uint8_t)((d->status & ~STATUS_IXSM) | STATUS_IPCS);
        d->errors |= checksum_fold(checksum_add(0, ip, header)) ? ERROR_IPE : 0;
    }
    unsigned protocol = ip[IP_PROTOCOL];
    size_t own = total - header, needed = protocol == PROTOCOL_TCP ? 20 : 8;
    if (!(rxcsum & RXCSUM_TUOFL) || (protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP) ||
        own < needed || get16(ip + IP_FRAGMENT) & 0x3fff)
        return;
    if (protocol == PROTOCOL_UDP && !get16(ip + header + UDP_FIELD))
        return; /* it has none */
    d->status = (uint8_t)((d->status & ~STATUS_IXSM) | STATUS_TCPCS);
    if (e->header.flags & NET_DATA_VALID)
        return;
    uint8_t tail[4] = { 0, (uint8_t)protocol, (uint8_t)(own >> 8), (uint8_t)own };
    uint64_t sum = checksum_add(checksum_add(0, tail, 4), ip + IP_ADDRESSES, 8);
    d->errors |= checksum_fold(checksum_add(sum, ip + header, own)) ? ERROR_TCPE : 0;
}

/* --- the ring ------------------------------------------------------------------------------- */

static uint32_t free_descriptors(const struct e1000 *e)
{
    uint32_t size = e1000_ring_size(e, R_RDLEN), head = e->regs.r[R_RDH], tail = e->regs.r[R_RDT];
    if (head >= size || tail >= size)
        return 0;
    return (tail + size - head) % size;
}

bool e1000_can_receive(const struct e1000 *e)
{
    return pci_master(&e->dev) && e->regs.r[R_RCTL] & RCTL_EN && !e->rx_stuck &&
           free_descriptors(e) >= (e->waiting ? e->rx_needs : 1);
}

static size_t buffer_size(uint32_t rctl)
{
    unsigned shift = rctl >> RCTL_BSIZE_SHIFT & 3;
    if (!(rctl & RCTL_BSEX) || !shift)
        return (size_t)2048 >> shift;
    return (size_t)32768 >> shift;
}

/* RXDMT0 at the step over RCTL.RDMTS's part of the ring (13.4.22). */
static void check_threshold(struct e1000 *e, uint32_t before)
{
    uint32_t part = 2u << (e->regs.r[R_RCTL] >> RCTL_RDMTS_SHIFT & 3);
    uint32_t threshold = e1000_ring_size(e, R_RDLEN) / part;
    if (before > threshold && free_descriptors(e) <= threshold)
        e1000_cause(e, INT_RXDMT0);
}

/* A packet was stored: RXT0 now, or after a pause (13.4.30, 13.4.31). */
static void earn_interrupt(struct e1000 *e, size_t length)
{
    uint64_t delay = e->regs.r[R_RDTR] * UINT64_C(1024);
    if (length <= e->regs.r[R_RSRPD])
        e1000_cause(e, INT_SRPD);
    if (!delay) {
        e1000_cause(e, INT_RXT0);
        return;
    }
    uint64_t now = device_now(&e->dev);
    if (e->regs.rx_limit == TIMER_NEVER && e->regs.r[R_RADV])
        e->regs.rx_limit = now + e->regs.r[R_RADV] * UINT64_C(1024);
    e->regs.rx_deadline = MIN(now + delay, e->regs.rx_limit);
}

/* One descriptor with `length` bytes of the packet. */
static bool fill(struct e1000 *e, const struct descriptor *status, const uint8_t *bytes,
                 size_t length, bool last)
{
    uint32_t size = e1000_ring_size(e, R_RDLEN), head = e->regs.r[R_RDH];
    gpa at = GPA(e1000_base(e, R_RDBAL) + (uint64_t)head * sizeof *status);
    struct descriptor d;
    le64 address;
    if (!pci_read(&e->dev, at, &address, sizeof address)) {
        guest_bug(&e->dev, "the receive ring is not in memory");
        e->rx_stuck = true;
        return false;
    }
    d = *status;
    d.length = le16_of((uint16_t)length);
    d.status = (uint8_t)(last ? d.status : d.status & ~STATUS_EOP);
    if (!pci_write(&e->dev, GPA(le64_get(address)), bytes, length))
        d.errors |= ERROR_RXE;
    /* All of it at once, after the data: the driver watches the status. */
    pci_write(&e->dev, GPA(at.raw + sizeof address), &d.length, sizeof d - sizeof address);
    e->regs.r[R_RDH] = head + 1 == size ? 0 : head + 1;
    return true;
}

/* Stores the waiting packet. False: there is not enough room now. */
static bool store(struct e1000 *e)
{
    uint8_t *frame = e->packet;
    size_t length = e->waiting - sizeof e->header, room = buffer_size(e->regs.r[R_RCTL]);
    uint32_t before = free_descriptors(e);
    bool inexact;
    if (length < FRAME_MIN) { /* as a sender on a wire would have padded it */
        memset(frame + length, 0, FRAME_MIN - length);
        length = FRAME_MIN;
    }
    if (!accept(e, frame, length, &inexact))
        return true;
    struct descriptor d = { .status = STATUS_DD | STATUS_EOP };
    d.status |= inexact ? STATUS_PIF : 0;
    check(e, frame, length, &d);
    bool strip = e->regs.r[R_CTRL] & CTRL_VME && tagged(e, frame, length);
    size_t start = strip ? TAG : 0;
    /* The CRC is there when it is not stripped, but it is zero: no driver looks at it. */
    size_t total = length - start + (e->regs.r[R_RCTL] & RCTL_SECRC ? 0 : TAG);
    uint32_t needs = (uint32_t)((total + room - 1) / room);
    if (needs > before) {
        if (needs < e1000_ring_size(e, R_RDLEN)) {
            e->rx_needs = needs;
            return false;
        }
        e1000_count(e, STAT_RNBC, 1);
        e1000_count(e, STAT_MPC, 1);
        e1000_cause(e, INT_RXO);
        return true;
    }
    memset(frame + length, 0, TAG);
    size_t from = e->regs.r[R_RXCSUM] & RXCSUM_PCSS;
    if (from < length - start && !strip) {
        uint16_t sum = (uint16_t)~checksum_fold(checksum_add(0, frame + from, length - from));
        d.checksum = (le16){ sum };
    }
    if (strip) {
        d.status |= STATUS_VP;
        d.special = le16_of((uint16_t)get16(frame + 14));
        memmove(frame + TAG, frame, 12);
    }
    e1000_count_frames(e, STAT_PRC64, (uint32_t)length + TAG, 1);
    if (frame[start] & 1)
        e1000_count(e, memcmp(frame + start, "\xff\xff\xff\xff\xff\xff", 6) ? STAT_MPRC : STAT_BPRC,
                    1);
    for (size_t done = 0; done < total; done += room) {
        size_t n = MIN(room, total - done);
        if (!fill(e, &d, frame + start + done, n, done + n == total))
            return true;
    }
    check_threshold(e, before);
    earn_interrupt(e, length + TAG);
    return true;
}

static bool fetch(struct e1000 *e)
{
    struct iovec iov[] = {
        { &e->header, sizeof e->header },
        { e->packet, FRAME_MAX - TAG },
    };
    if (e1000_loopback(e) || !e1000_phy_link(e))
        return false;
    e->waiting = net_receive(e->net, iov, G_N_ELEMENTS(iov));
    e->rx_needs = 1;
    return e->waiting;
}

bool e1000_receive(struct e1000 *e)
{
    for (unsigned budget = NET_BATCH; budget; budget--) {
        if (!e1000_can_receive(e) || (!e->waiting && !fetch(e)))
            return false;
        if (!store(e))
            return false;
        e->waiting = 0;
    }
    return true;
}
