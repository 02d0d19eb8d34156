/* Packets on a descriptor; see net.h. Holds the descriptors of the far end and of the capture, and
 * one buffer, which exists once a packet came that may have needed it.
 *
 * A packet is received straight into the NIC's buffers, with the rest of our own buffer behind
 * them; what needs treatment is then gathered there, judged as that copy, and given out again. */
#include "net/net.h"

#include "base/log.h"
#include "net/segment.h"
#include "net/trouble.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20 /* Linux 6.2 */
#define TUN_F_USO6 0x40
#endif

enum {
    HEADER = sizeof(struct net_header),
    ROOM = NET_PACKET_MAX + 1, /* tells a packet that is too long from one that just fits */
    SPANS = 128,               /* of a NIC's buffers that are received into straight */
    DISCARD_MAX = 4096,
};

struct net {
    char *name;
    int fd, capture; /* capture: -1 when off */
    bool tap, gone, uso;
    unsigned offloads;
    uint8_t *buffer;          /* ROOM bytes, or NULL */
    struct segmenter segment; /* in buffer */
    bool cutting;             /* the segment is not yet given out */
    struct net_vhost vhost[NET_PAIRS_MAX];
    unsigned vhosts;
    bool faulty;
    struct trouble *trouble; /* NULL: it was never faulty */
};

bool net_parse_mac(const char *text, uint8_t mac[6])
{
    for (unsigned i = 0; i < 6; i++, text += 3) {
        int high = g_ascii_xdigit_value(text[0]);
        int low = high < 0 ? -1 : g_ascii_xdigit_value(text[1]);
        if (low < 0 || text[2] != (i < 5 ? ':' : 0))
            return false;
        mac[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* --- life ----------------------------------------------------------------------------------- */

static void set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0)
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

struct net *net_new(int fd, bool tap, const char *name)
{
    struct net *net = g_new0(struct net, 1);
    net->name = g_strdup(name);
    net->fd = fd;
    net->capture = -1;
    net->tap = tap;
    net->uso = !tap || ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6) == 0;
    set_nonblocking(fd);
    net_set_offloads(net, 0);
    return net;
}

void net_free(struct net *net)
{
    if (!net)
        return;
    trouble_free(net->trouble);
    close(net->fd);
    if (net->capture >= 0)
        close(net->capture);
    for (unsigned i = 0; i < net->vhosts; i++) {
        close(net->vhost[i].vhost);
        if (i)
            close(net->vhost[i].tap);
    }
    g_free(net->buffer);
    g_free(net->name);
    g_free(net);
}

void net_connect(struct net *net, int fd)
{
    set_nonblocking(fd);
    if (dup3(fd, net->fd, O_CLOEXEC) >= 0) {
        net->gone = net->cutting = false;
        net_set_offloads(net, net->offloads);
    }
    close(fd);
}

int net_fd(const struct net *net)
{
    return net->fd;
}

bool net_gone(const struct net *net)
{
    return net->gone;
}

static void set_gone(struct net *net)
{
    if (!net->gone)
        log_info(net->name, "nobody is at the other end of the cable any more");
    net->gone = true;
}

/* --- the kernel in the NIC's place ---------------------------------------------------------- */

void net_add_vhost(struct net *net, int tap, int vhost, const struct vhost_io *io)
{
    if (net->vhosts < NET_PAIRS_MAX)
        net->vhost[net->vhosts++] = (struct net_vhost){ tap < 0 ? net->fd : tap, vhost, io };
}

const struct net_vhost *net_vhost(const struct net *net, unsigned pair)
{
    return pair < net->vhosts ? &net->vhost[pair] : NULL;
}

bool net_set_queue(struct net *net, unsigned pair, bool on)
{
    struct ifreq request = { .ifr_flags = on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE };
    if (!pair || ioctl(net->vhost[pair].tap, TUNSETQUEUE, &request) == 0)
        return true;
    log_info(net->name, "queue %u of the tap device cannot be switched %s: %s", pair,
             on ? "on" : "off", g_strerror(errno));
    return false;
}

/* --- offloads ------------------------------------------------------------------------------- */

/* A tap cuts and completes for us what the NIC cannot take. */
static void set_tap(struct net *net)
{
    unsigned flags = 0, uso = TUN_F_USO4 | TUN_F_USO6;
    if (net->offloads & NET_CAN_CHECKSUM)
        flags |= TUN_F_CSUM;
    if (net->offloads & NET_CAN_TCP4)
        flags |= TUN_F_TSO4;
    if (net->offloads & NET_CAN_TCP6)
        flags |= TUN_F_TSO6;
    if (net->offloads & NET_CAN_ECN && flags & (TUN_F_TSO4 | TUN_F_TSO6))
        flags |= TUN_F_TSO_ECN;
    if (net->offloads & NET_CAN_USO && net->uso && ioctl(net->fd, TUNSETOFFLOAD, flags | uso) == 0)
        return;
    if (ioctl(net->fd, TUNSETOFFLOAD, flags) < 0)
        log_warn(net->name, "the tap device takes no offloads: %s", g_strerror(errno));
}

bool net_knows_uso(const struct net *net)
{
    return net->uso;
}

void net_set_offloads(struct net *net, unsigned offloads)
{
    /* A segment always lacks its checksum. */
    net->offloads = offloads & NET_CAN_CHECKSUM ? offloads : offloads & NET_CAN_VALID;
    if (net->tap)
        set_tap(net);
}

/* What is to be done with a packet before the NIC may have it. */
enum treatment { PASS, CLEAR_VALID, COMPLETE, CUT };

static enum treatment treatment(const struct net *net, const struct net_header *header)
{
    static const struct {
        uint8_t type;
        unsigned offload;
    } segments[] = {
        { NET_TCP4, NET_CAN_TCP4 },
        { NET_TCP6, NET_CAN_TCP6 },
        { NET_UDP_L4, NET_CAN_USO },
    };
    if (header->segment_type != NET_PLAIN) {
        for (size_t i = 0; i < G_N_ELEMENTS(segments); i++)
            if ((header->segment_type & ~(unsigned)NET_ECN) == segments[i].type &&
                net->offloads & segments[i].offload &&
                (!(header->segment_type & NET_ECN) || net->offloads & NET_CAN_ECN))
                return PASS;
        return CUT;
    }
    if (header->flags & NET_NEEDS_CHECKSUM)
        return net->offloads & NET_CAN_CHECKSUM ? PASS : COMPLETE;
    if (header->flags && !(net->offloads & (NET_CAN_CHECKSUM | NET_CAN_VALID)))
        return CLEAR_VALID;
    return PASS;
}

/* --- iovecs --------------------------------------------------------------------------------- */

static size_t iov_length(const struct iovec *iov, unsigned count)
{
    size_t sum = 0;
    for (unsigned i = 0; i < count; i++)
        sum += iov[i].iov_len;
    return sum;
}

/* Copies between the front of iov and flat memory; the bytes copied. */
static size_t iov_copy(const struct iovec *iov, unsigned count, uint8_t *flat, size_t length,
                       bool to_iov)
{
    size_t done = 0;
    for (unsigned i = 0; i < count && done < length; i++) {
        size_t n = MIN(iov[i].iov_len, length - done);
        if (to_iov)
            memcpy(iov[i].iov_base, flat + done, n);
        else
            memcpy(flat + done, iov[i].iov_base, n);
        done += n;
    }
    return done;
}

/* The same between two lists. */
static void iov_scatter(const struct iovec *from, unsigned parts, const struct iovec *to,
                        unsigned count)
{
    size_t at = 0;
    for (unsigned part = 0, i = 0; part < parts; part++) {
        uint8_t *bytes = from[part].iov_base;
        size_t left = from[part].iov_len;
        while (left && i < count) {
            size_t n = MIN(left, to[i].iov_len - at);
            memcpy((uint8_t *)to[i].iov_base + at, bytes, n);
            bytes += n;
            left -= n;
            at += n;
            if (at == to[i].iov_len) {
                at = 0;
                i++;
            }
        }
    }
}

/* --- capture (the classic pcap format) ------------------------------------------------------ */

struct pcap_header {
    uint32_t magic;
    uint16_t major, minor;
    uint32_t zone, accuracy, longest, link;
};
struct pcap_record {
    uint32_t seconds, microseconds, stored, length;
};
enum { PCAP_ETHERNET = 1, PCAP_LONGEST = 262144 };

static bool capture_write(struct net *net, const void *data, size_t length)
{
    if (net->capture < 0)
        return false;
    ssize_t n;
    do
        n = write(net->capture, data, length);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)length)
        return true;
    log_warn(net->name, "the packets are not captured any further: %s",
             n < 0 ? g_strerror(errno) : "there is no room");
    close(net->capture);
    net->capture = -1;
    return false;
}

void net_capture(struct net *net, int fd)
{
    const struct pcap_header header = { 0xa1b2c3d4, 2, 4, 0, 0, PCAP_LONGEST, PCAP_ETHERNET };
    if (net->capture >= 0)
        close(net->capture);
    net->capture = fd;
    capture_write(net, &header, sizeof header);
}

/* One write for each record: whoever reads the file meanwhile sees whole ones. */
static void capture(struct net *net, const struct iovec *iov, unsigned count, size_t length)
{
    if (net->capture < 0)
        return;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint32_t bytes = (uint32_t)(length - HEADER);
    struct pcap_record record = { (uint32_t)now.tv_sec, (uint32_t)(now.tv_nsec / 1000), bytes,
                                  bytes };
    /* The packet's header is before the frame, and no shorter than the record. */
    enum { BEFORE = sizeof record - HEADER };
    g_autofree uint8_t *all = g_try_malloc(BEFORE + length);
    if (!all)
        return;
    iov_copy(iov, count, all + BEFORE, length, false);
    memcpy(all, &record, sizeof record);
    capture_write(net, all, BEFORE + length);
}

/* --- sending -------------------------------------------------------------------------------- */

static bool transmit(struct net *net, const struct iovec *iov, unsigned count, size_t length)
{
    ssize_t n;
    if (net->gone)
        return true;
    struct msghdr message = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = count };
    do
        n = net->tap ? writev(net->fd, iov, (int)count)
                     : sendmsg(net->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == ENOBUFS))
        return false;
    if (n < 0 && (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN || errno == EBADFD))
        set_gone(net);
    if (n >= 0)
        capture(net, iov, count, length);
    return true;
}

bool net_send(struct net *net, const struct iovec *iov, unsigned count)
{
    size_t length = iov_length(iov, count);
    if (length < HEADER + NET_ETHERNET || length > NET_PACKET_MAX)
        return true;
    if (G_UNLIKELY(net->faulty) &&
        (trouble_loses(net->trouble) || trouble_delays(net->trouble, iov, count, length)))
        return true;
    return transmit(net, iov, count, length);
}

void net_set_faults(struct net *net, struct clock *clock, GMutex *lock,
                    const struct net_faults *set)
{
    net->faulty = set->loss || set->delay;
    if (!net->trouble && net->faulty)
        net->trouble = trouble_new(net, clock, lock, transmit);
    if (net->trouble)
        trouble_set(net->trouble, set);
}

struct net_faults net_get_faults(const struct net *net)
{
    return net->trouble ? *trouble_get(net->trouble) : (struct net_faults){ .loss = 0 };
}

/* --- receiving ------------------------------------------------------------------------------ */

/* What a read may answer beside a packet. */
enum { NOTHING = 0, OVERLONG = -1 };

/* What a read answered means that nobody is there any more. */
static bool is_end(ssize_t n)
{
    return n == 0 || (n < 0 && errno != EAGAIN && errno != ENOBUFS && errno != ENOMEM);
}

/* One packet: its length, NOTHING, or OVERLONG: it is lost. */
static ssize_t fetch(struct net *net, struct iovec *iov, unsigned count)
{
    struct msghdr message = { .msg_iov = iov, .msg_iovlen = count };
    ssize_t n;
    do
        n = net->tap ? readv(net->fd, iov, (int)count)
                     : recvmsg(net->fd, &message, MSG_DONTWAIT | MSG_TRUNC);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EFAULT || errno == EINVAL))
        return OVERLONG; /* a tap device's words for it */
    if (is_end(n))
        set_gone(net);
    if (n <= 0)
        return NOTHING;
    return n > NET_PACKET_MAX || message.msg_flags & MSG_TRUNC ? OVERLONG : n;
}

/* Straight into iov as far as it goes (`direct`), then into the buffer, at the same offset. */
static ssize_t fetch_into(struct net *net, const struct iovec *iov, unsigned count, size_t direct)
{
    struct iovec all[SPANS + 1];
    if (direct >= ROOM) {
        memcpy(all, iov, count * sizeof *iov);
        return fetch(net, all, count);
    }
    if (!net->buffer)
        net->buffer = g_try_malloc(ROOM);
    if (!net->buffer) {
        uint8_t lost;
        all[0] = (struct iovec){ &lost, 1 };
        return fetch(net, all, 1) == NOTHING ? NOTHING : OVERLONG;
    }
    if (direct)
        memcpy(all, iov, count * sizeof *iov);
    else
        count = 0;
    all[count++] = (struct iovec){ net->buffer + direct, ROOM - direct };
    return fetch(net, all, count);
}

/* The next packet of the segment that is being cut; 0: it is at its end. */
static size_t give_segment(struct net *net, const struct iovec *iov, unsigned count, size_t room)
{
    struct net_header header = { .flags = net->offloads & NET_CAN_VALID ? NET_DATA_VALID : 0 };
    struct iovec part[3] = { { &header, HEADER } };
    while (net->cutting) {
        segment_next(&net->segment, part + 1);
        net->cutting = segment_more(&net->segment);
        size_t length = iov_length(part, 3);
        if (length > room)
            continue;
        iov_scatter(part, 3, iov, count);
        return length;
    }
    return 0;
}

/* Takes a packet that came: what the NIC is given for it, 0: nothing (yet). */
static size_t treat(struct net *net, const struct iovec *iov, unsigned count, size_t direct,
                    size_t room, size_t length)
{
    struct net_header header;
    if (length < HEADER + NET_ETHERNET)
        return 0;
    if (direct < HEADER) { /* its front may be there, its end is here */
        iov_copy(iov, count, net->buffer, direct, false);
        memcpy(&header, net->buffer, HEADER);
    } else {
        iov_copy(iov, count, (uint8_t *)&header, HEADER, false);
    }
    enum treatment what = treatment(net, &header);
    if (what == PASS && length <= direct)
        return length;
    if (what == CLEAR_VALID && length <= direct) {
        header.flags = 0;
        iov_copy(iov, count, (uint8_t *)&header, HEADER, true);
        return length;
    }
    if (!net->buffer && !(net->buffer = g_try_malloc(ROOM)))
        return 0;
    iov_copy(iov, count, net->buffer, MIN(direct, length), false);
    uint8_t *frame = net->buffer + HEADER;
    if (what == CUT) {
        net->cutting = segment_begin(&net->segment, &header, frame, length - HEADER);
        return give_segment(net, iov, count, room);
    }
    if (length > room || (what == COMPLETE && !checksum_complete(&header, frame, length - HEADER)))
        return 0;
    if (what == COMPLETE || what == CLEAR_VALID)
        header = (struct net_header){ .flags = what == COMPLETE && net->offloads & NET_CAN_VALID
                                                   ? NET_DATA_VALID
                                                   : 0 };
    memcpy(net->buffer, &header, HEADER);
    iov_copy(iov, count, net->buffer, length, true);
    return length;
}

size_t net_peek(struct net *net, void *to, size_t length)
{
    ssize_t n;
    if (net->cutting || (net->tap && !net->gone))
        return NET_PACKET_MAX;
    if (net->gone)
        return 0;
    do
        n = recv(net->fd, to, length, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (is_end(n))
        set_gone(net);
    return n > 0 ? (size_t)n : 0;
}

size_t net_receive(struct net *net, const struct iovec *iov, unsigned count)
{
    size_t room = iov_length(iov, count), direct = count <= SPANS ? room : 0, given;
    if (net->cutting && (given = give_segment(net, iov, count, room)))
        return given;
    for (unsigned i = 0; i < NET_BATCH && !net->gone; i++) {
        ssize_t length = fetch_into(net, iov, count, direct);
        if (length == NOTHING)
            return 0;
        if (length == OVERLONG || (G_UNLIKELY(net->faulty) && trouble_loses(net->trouble)))
            continue;
        if (net->capture >= 0 && length >= HEADER + NET_ETHERNET) {
            size_t inside = direct < (size_t)length ? direct : (size_t)length;
            struct iovec flat = { net->buffer, (size_t)length };
            if (inside < (size_t)length)
                iov_copy(iov, count, net->buffer, inside, false);
            if (inside < (size_t)length)
                capture(net, &flat, 1, (size_t)length);
            else
                capture(net, iov, count, (size_t)length);
        }
        if ((given = treat(net, iov, count, direct, room, (size_t)length)))
            return given;
    }
    return 0;
}

bool net_pending(const struct net *net)
{
    return net->cutting;
}

void net_discard(struct net *net)
{
    net->cutting = false;
    for (unsigned i = 0; i < DISCARD_MAX && !net->gone; i++) {
        uint8_t lost;
        struct iovec iov = { &lost, 1 };
        if (fetch(net, &iov, 1) == NOTHING)
            return;
    }
}
