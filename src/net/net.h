/* The network interface: a cable between a NIC (virtio-net, e1000) and what is at its far end.
 *
 * The far end is a descriptor on which each read and each write is one packet: a UNIX socket of
 * type SOCK_SEQPACKET (hv-net, or a socket network between machines) or a tap device. A packet is a
 * struct net_header and an Ethernet frame of at most NET_FRAME_MAX bytes; it may be a large segment
 * (`segment_type`) or lack its checksum (`flags`), as virtio 1.2 section 5.1.6 has it. What the NIC
 * cannot take of this is made good here: net_receive cuts segments and completes checksums.
 *
 * All functions are called with the NIC's lock held. The far end is not trusted. */
#pragma once
#include "memory/guest.h"

#include <sys/types.h>

/* virtio 1.2 section 5.1.6, struct virtio_net_hdr; num_buffers is always there. */
struct net_header {
    uint8_t flags;
    uint8_t segment_type;
    le16 header_length;  /* of all headers of a segment, a hint */
    le16 segment_size;   /* payload bytes of each packet that the segment stands for */
    le16 checksum_start; /* with NET_NEEDS_CHECKSUM */
    le16 checksum_offset;
    le16 buffers;
};
enum { NET_NEEDS_CHECKSUM = 1, NET_DATA_VALID = 2 }; /* flags */
enum { NET_PLAIN, NET_TCP4 = 1, NET_UDP = 3, NET_TCP6 = 4, NET_UDP_L4 = 5, NET_ECN = 0x80 };

enum {
    NET_ETHERNET = 14,
    NET_MTU = 1500,
    NET_FRAME_MAX = 65535 + NET_ETHERNET + 4, /* a 64 KiB IP packet with a VLAN tag */
    NET_PACKET_MAX = NET_FRAME_MAX + (int)sizeof(struct net_header),
};

/* Six bytes as 52:54:00:12:34:56; false for all else. */
bool net_parse_mac(const char *text, uint8_t mac[6]);

/* What a NIC takes from the cable beyond whole packets with checksums. */
enum net_offload {
    NET_CAN_CHECKSUM = 1, /* the guest completes checksums */
    NET_CAN_TCP4 = 2,
    NET_CAN_TCP6 = 4,
    NET_CAN_USO = 8,
    NET_CAN_ECN = 16,   /* segments with NET_ECN; else those are cut */
    NET_CAN_VALID = 32, /* NET_DATA_VALID, although the guest completes no checksums */
};

enum { NET_BATCH = 64 }; /* packets that a NIC takes in one turn, so that others have theirs */

struct clock;
struct net;
struct vhost_io;

/* Over an open descriptor, which it owns; made non-blocking. `tap`: it is a tap device with a
 * 12-byte vnet header (IFF_VNET_HDR, TUNSETVNETHDRSZ). */
struct net *net_new(int fd, bool tap, const char *name);
void net_free(struct net *net); /* NULL is allowed */
/* Every packet that passes is also written to fd, in pcap format (Ethernet, microseconds), until
 * the file's disk is full. Owned. Before the first packet. */
void net_capture(struct net *net, int fd);

/* A bad cable, to see what the guest makes of it. */
enum { NET_LOSS_ALL = 1000000 };
struct net_faults {
    uint32_t loss;  /* how many of NET_LOSS_ALL packets get lost, in both directions */
    uint32_t seed;  /* of the chance in that */
    uint64_t delay; /* ns of guest time by which what the NIC sends is late */
};
/* In place of those from before; nothing in it: it is a good cable again. `lock`: the NIC's. The
 * clock must outlive the net. What the kernel sends and receives for the NIC does not pass here. */
void net_set_faults(struct net *net, struct clock *clock, GMutex *lock,
                    const struct net_faults *set);
struct net_faults net_get_faults(const struct net *net);

/* The kernel may serve a NIC of its own (bus/vhost.h) with a queue of the tap device, for each pair
 * of the NIC's queues. */
struct net_vhost {
    int tap, vhost; /* vhost: an open /dev/vhost-net */
    const struct vhost_io *io;
};
enum { NET_PAIRS_MAX = 8 };
/* Those of the next pair. tap: a further queue of the tap device, switched off; -1 for the first
 * pair, whose is net_fd. Owned. */
void net_add_vhost(struct net *net, int tap, int vhost, const struct vhost_io *io);
/* NULL: there is none for that pair. */
const struct net_vhost *net_vhost(const struct net *net, unsigned pair);
/* Switches the tap device's queue on or off; what has come to it is lost then. The first one is
 * always on. */
bool net_set_queue(struct net *net, unsigned pair, bool on);

/* Another far end for one that is gone (the network process was started again). Owned. While the
 * NIC's cable is out: then it does not watch net_fd, whose number stays the same. */
void net_connect(struct net *net, int fd);

int net_fd(const struct net *net);
/* The far end hung up: net_fd is for ever readable then, and nothing is to be had from it. Seen by
 * the first net_send or net_receive that meets it. */
bool net_gone(const struct net *net);
void net_set_offloads(struct net *net, unsigned offloads);
/* Does the far end know large UDP segments? A tap device of an older kernel loses them. */
bool net_knows_uso(const struct net *net);

/* Sends a packet that starts with its struct net_header. False: the far end has no room, try again
 * when net_fd is writable. A far end that is gone, or a packet that it refuses (too short, too
 * long), is a lost packet and true. */
bool net_send(struct net *net, const struct iovec *iov, unsigned count);
/* At most how many bytes net_receive gives next; 0: nothing is there. What is known of the packet's
 * first bytes, header included, is in `to`. */
size_t net_peek(struct net *net, void *to, size_t length);
/* Receives one packet with its header into iov, without a copy when it needs no treatment. The
 * bytes; 0: none is there now. A packet that does not fit, or makes no sense, is dropped. iov may
 * be written to although nothing is received. `buffers` of the header has no meaning. */
size_t net_receive(struct net *net, const struct iovec *iov, unsigned count);
/* Cut segments are waiting in memory: net_fd will not say so. */
bool net_pending(const struct net *net);
/* Throws away what has come: for a NIC whose cable is out or which is off. */
void net_discard(struct net *net);
