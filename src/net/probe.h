/* Does the guest accept TCP connections at a port? Asked by packets of our own, as from the router
 * 10.0.2.2: libslirp accepts for the guest before it has asked it, so a connection through a
 * published port shows nothing.
 *
 * Nothing of an answer is kept: ARP asks where 10.0.2.15 is, the answer brings a SYN for each port
 * that somebody waits for, a SYN with ACK brings the news, and a reset for the guest, whose program
 * hears of nothing. What gets lost is asked again a moment later. One thread, that of hv-net's
 * loop.
 *
 * ARP: RFC 826, TCP: RFC 9293 section 3.1 */
#pragma once
#include "net/packet.h"

enum { PROBES = 8 };

struct probe {
    struct packet_sink sink; /* to the guest */
    uint16_t wanted[PROBES]; /* ports; 0: none */
    int64_t next;            /* us: when to ask again */
    bool asked;              /* where the guest is, and not answered: one answer counts */
};

/* Waits for a port, in place of what that slot waited for; 0: for nothing. */
void probe_want(struct probe *probe, unsigned slot, uint16_t port);
/* Asks when it is time; how long until the next time, in ms; -1: nobody waits. */
int probe_work(struct probe *probe);
/* A frame of the guest. */
struct probe_answer {
    bool ours;     /* nobody else is to see the frame */
    uint16_t port; /* is open, and the slot waits for nothing from now on; 0: no news */
    unsigned slot;
};
struct probe_answer probe_take(struct probe *probe, const uint8_t *frame, size_t length);
