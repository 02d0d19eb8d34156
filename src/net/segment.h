/* What a NIC without offloads needs done in software: checksums, and large segments of TCP and UDP
 * cut into packets (virtio 1.2 section 5.1.6, RFC 9293, RFC 8200). Pure functions on a packet in
 * host memory; nothing in it is trusted. */
#pragma once
#include "net/net.h"

/* A large segment and how much of it was cut off. The frame is changed in place. */
struct segmenter {
    uint8_t *frame;
    size_t length;
    unsigned network, transport, headers; /* where headers begin, and where all of them end */
    unsigned size;                        /* payload bytes of each packet */
    size_t cut;                           /* payload bytes so far */
    uint32_t sequence;                    /* TCP */
    uint16_t id;                          /* IPv4 */
    uint8_t flags;                        /* TCP */
    bool tcp, ip6;
};

/* False: it is no segment that could be cut. The frame must stay as long as the segmenter. */
bool segment_begin(struct segmenter *s, const struct net_header *header, uint8_t *frame,
                   size_t length);
bool segment_more(const struct segmenter *s);
/* The next packet, with all its checksums: headers and payload, until the next call. */
void segment_next(struct segmenter *s, struct iovec part[2]);

/* Completes the checksum that the header says is missing; false when it lies outside the frame. */
bool checksum_complete(const struct net_header *header, uint8_t *frame, size_t length);
/* Adds the bytes to a sum of 16-bit words as they lie in memory, from an even offset on. */
uint64_t checksum_add(uint64_t sum, const uint8_t *bytes, size_t length);
/* What is written into a checksum field, again as it lies in memory. */
uint16_t checksum_fold(uint64_t sum);
