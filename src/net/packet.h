/* Packets between a guest and the user-mode network: what comes from the guest is judged, and what
 * goes to it becomes what a network card may receive. Pure functions over bytes; one thread.
 *
 * libslirp speaks an Ethernet of 64 KiB frames, so that one segment crosses it whole: a large
 * segment of the guest (TSO) goes in as it is, with its checksum completed, and a large TCP packet
 * that comes out is marked as a segment of what the guest's own maximum segment size says. For that
 * the guest's offers are raised on their way in, and remembered. Other packets than TCP are cut
 * into IP fragments.
 *
 * IPv4: RFC 791, TCP: RFC 9293, UDP: RFC 768, IPv6 and its fragments: RFC 8200 */
#pragma once
#include "net/fragments.h"
#include "net/net.h"

#include <stdbool.h>
#include <sys/uio.h>

/* The largest IP packet that is given to libslirp, and its if_mtu. */
enum { PACKET_MTU = 65521 };

/* The maximum segment sizes that the guest offered, for each of its connections; see
 * packet_init. */
enum { PACKET_FLOWS = 4096 };
struct packet_flows {
    struct packet_flow {
        uint32_t tag; /* of addresses and ports */
        uint16_t mss; /* 0: no connection here */
    } table[PACKET_FLOWS];
    uint16_t smallest[2];       /* of IPv4 and IPv6: for a connection that has lost its place */
    uint32_t fragment_id;       /* of IPv6 */
    struct fragments fragments; /* of the guest's datagrams */
};
void packet_init(struct packet_flows *flows);
void packet_finish(struct packet_flows *flows);

/* Takes packets that are ready for the other side, as struct net_header and bytes. */
struct packet_sink {
    void (*take)(void *opaque, const struct net_header *header, const struct iovec *iov,
                 unsigned count);
    void *opaque;
};

/* A packet of the guest, which is changed on the way. What may be given to libslirp is handed to
 * the sink, once or in pieces (USO), without offloads left in its header; what no sane guest sends,
 * or libslirp cannot be trusted with, is dropped: then false. */
bool packet_from_guest(struct packet_flows *flows, struct net_header header, uint8_t *frame,
                       size_t length, const struct packet_sink *sink);

/* A frame of libslirp, which is changed on the way: to the sink, whole or in IP fragments. */
void packet_to_guest(struct packet_flows *flows, uint8_t *frame, size_t length,
                     const struct packet_sink *sink);
