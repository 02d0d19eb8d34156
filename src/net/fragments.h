/* IPv4 datagrams put together from their fragments (RFC 791 section 3.2). hv-net does this itself:
 * libslirp 4.7.0 as Debian compiles it corrupts its memory when a last fragment comes first. One
 * thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FRAGMENTS_PLACES = 16, FRAGMENTS_BLOCKS = 8192 };

struct fragments {
    struct datagram {
        uint8_t key[11];  /* addresses, identification, protocol */
        int64_t since;    /* ms; 0: nothing here */
        size_t got, size; /* bytes of payload; size 0: the last fragment has not come */
        uint8_t have[FRAGMENTS_BLOCKS / 8];
        uint8_t *frame; /* the first fragment's headers and the whole payload */
    } places[FRAGMENTS_PLACES];
};

void fragments_finish(struct fragments *fragments);

/* Takes one fragment: an Ethernet frame with an IPv4 packet that has no options and `payload` bytes
 * behind its header. When its datagram is whole, returns that as a frame of *length bytes, until
 * the next call; else NULL. What overlaps, or does not fit together, is forgotten. */
uint8_t *fragments_add(struct fragments *fragments, const uint8_t *frame, size_t payload,
                       int64_t now, size_t *length);
