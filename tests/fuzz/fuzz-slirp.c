/* A fuzz target for what a guest sends to the user-mode network, through the real libslirp. The
 * input is a list of packets, each behind its length (two bytes, little-endian) as it comes over
 * the frame socket. Nothing leaves the process: the calls that would reach the host's network are
 * replaced here, for libslirp too. */
#include "net/probe.h"
#include "net/segment.h"
#include "net/slirp.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A connection is on its way for ever; what is sent is gone. */
__attribute__((visibility("default"))) int connect(int fd, const struct sockaddr *to,
                                                   socklen_t length)
{
    (void)fd, (void)to, (void)length;
    errno = EINPROGRESS;
    return -1;
}

__attribute__((visibility("default"))) ssize_t sendto(int fd, const void *data, size_t length,
                                                      int flags, const struct sockaddr *to,
                                                      socklen_t room)
{
    (void)fd, (void)data, (void)flags, (void)to, (void)room;
    return (ssize_t)length;
}

/* What the guest gets is read, all of it, for the sanitizer. */
static void take(void *opaque, const struct net_header *header, const struct iovec *iov,
                 unsigned count)
{
    unsigned *sum = opaque;
    *sum += header->flags;
    for (unsigned i = 0; i < count; i++)
        for (size_t at = 0; at < iov[i].iov_len; at++)
            *sum += ((const uint8_t *)iov[i].iov_base)[at];
}

/* Checksums are in nobody's way: a guest that means harm can make them. */
static void mend(struct net_header *header, uint8_t *frame, size_t length)
{
    enum { IP = 14, IP4 = 20, IP6 = 40, ICMP_SUM = 2, TCP_SUM = 16, UDP_SUM = 6 };
    if (length < IP + IP4)
        return;
    bool v6 = frame[12] == 0x86;
    size_t upper = v6 ? IP + IP6 : IP + IP4;
    unsigned protocol = frame[v6 ? IP + 6 : IP + 9];
    if (!v6) {
        memset(frame + IP + 10, 0, 2);
        uint16_t sum = checksum_fold(checksum_add(0, frame + IP, IP4));
        memcpy(frame + IP + 10, &sum, 2);
    }
    if (protocol == 6 || protocol == 17) {
        header->flags = NET_NEEDS_CHECKSUM;
        header->checksum_start = le16_of((uint16_t)upper);
        header->checksum_offset = le16_of(protocol == 6 ? TCP_SUM : UDP_SUM);
        if (!v6 && frame[IP + 6] & 0x3f)
            header->flags = 0;
        return;
    }
    size_t end = v6 ? upper + frame[IP + 4] * 256u + frame[IP + 5]
                    : IP + frame[IP + 2] * 256u + frame[IP + 3];
    if (end > length || end < upper + ICMP_SUM + 2)
        return;
    uint64_t sum = 0;
    if (v6) {
        const uint8_t tail[4] = { 0, (uint8_t)protocol, frame[IP + 4], frame[IP + 5] };
        sum = checksum_add(checksum_add(0, frame + IP + 8, 32), tail, 4);
    }
    memset(frame + upper + ICMP_SUM, 0, 2);
    uint16_t folded = checksum_fold(checksum_add(sum, frame + upper, end - upper));
    memcpy(frame + upper + ICMP_SUM, &folded, 2);
}

static void turn(struct slirp *net, GArray *fds)
{
    g_array_set_size(fds, 0);
    slirp_net_prepare(net, fds, false);
    poll((struct pollfd *)fds->data, fds->len, 0);
    slirp_net_work(net);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { PACKETS = 64 };
    unsigned sum = 0, packets = 0;
    const struct packet_sink sink = { take, &sum };
    struct slirp *net = slirp_net_new("fuzz", size & 1, &sink);
    struct probe probe = { .sink = sink, .wanted = { 22, [PROBES - 1] = 80 } };
    g_autoptr(GArray) fds = g_array_new(false, false, sizeof(struct pollfd));
    while (size >= 2 && packets++ < PACKETS) {
        size_t length = MIN((size_t)(data[0] | data[1] << 8), size - 2);
        struct net_header header = { 0 };
        data += 2;
        size -= 2;
        memcpy(&header, data, MIN(length, sizeof header));
        size_t frame = length > sizeof header ? length - sizeof header : 0;
        g_autofree uint8_t *copy = g_memdup2(data + length - frame, frame);
        if (copy && header.buffers.raw % 4)
            mend(&header, copy, frame);
        if (copy && !probe_take(&probe, copy, frame).ours)
            slirp_net_input(net, &header, copy, frame);
        turn(net, fds);
        data += length;
        size -= length;
    }
    slirp_net_free(net);
    return 0;
}
