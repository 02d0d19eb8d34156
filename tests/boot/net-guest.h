/* A guest without a machine: the far end of hv-net's frame socket, speaking Ethernet by hand. */
#pragma once
#include "net/net.h"

#include <glib.h>

/* A running hv-net and its guest. */
struct net_guest {
    int frames, control, ports;
    pid_t keeper;
    char *dir;
    uint8_t mac[6];
    uint32_t next_port;
    struct net_header header; /* of the packet received last */
    uint8_t frame[NET_FRAME_MAX];
    size_t length;
};

/* rules: what the ports file starts with. NULL when it does not start; then its message is in
 * *why. */
struct net_guest *net_guest_new(const char *hv_net, const char *rules, bool restricted, char **why);
/* Hangs up; fails when hv-net does not end by itself. */
void net_guest_free(struct net_guest *g);
/* A connection to its control socket, and the next line that comes from one: "" when none does. */
int net_guest_control(struct net_guest *g);
char *net_guest_line(int control);
/* A call of its control socket; the answer's line. */
char *net_guest_call(struct net_guest *g, const char *request);
/* The pid of the process that serves; -1 when it does not answer. */
pid_t net_guest_pid(struct net_guest *g);

void net_guest_send(struct net_guest *g, const struct net_header *header, const void *frame,
                    size_t length);
/* The next packet, at most ms later; ARP requests for the guest are answered on the way. */
bool net_guest_receive(struct net_guest *g, int ms);

/* DHCP from discover to acknowledge; the address, 0 when none came in time. */
uint32_t net_guest_dhcp(struct net_guest *g, int ms);
void net_guest_arp(struct net_guest *g, uint32_t address);

/* A TCP connection of the guest, from whichever side. */
struct net_tcp {
    struct net_guest *g;
    uint32_t other;
    uint16_t port, other_port;
    uint32_t sent, received; /* sequence numbers */
    unsigned mss;            /* the other's offer */
    bool finished;           /* it has sent its FIN */
    unsigned large;          /* segments that stand for several packets */
};
bool net_tcp_connect(struct net_tcp *t, struct net_guest *g, uint32_t to, uint16_t port, int ms);
bool net_tcp_accept(struct net_tcp *t, struct net_guest *g, int ms);
/* Sends one segment, of any length: its checksum is left to the other side. */
void net_tcp_send(struct net_tcp *t, unsigned flags, const void *data, size_t length);
/* What comes next in order: its length in t->g->frame at *at; -1 when nothing came. Acknowledged.
 */
ssize_t net_tcp_receive(struct net_tcp *t, const uint8_t **at, int ms);
void net_tcp_close(struct net_tcp *t);

enum { NET_FIN = 1, NET_SYN = 2, NET_RST = 4, NET_PSH = 8, NET_ACK = 16, NET_URG = 32 };
uint32_t net_address(const char *text); /* in the order of the host */
/* An IPv4 packet's headers and payload in one frame; its length. */
size_t net_ip4(struct net_guest *g, uint8_t *frame, unsigned protocol, uint32_t from, uint32_t to,
               const void *payload, size_t length);
unsigned net_get16(const uint8_t *at);
uint32_t net_get32(const uint8_t *at);
void net_put16(uint8_t *at, unsigned value);
void net_put32(uint8_t *at, uint32_t value);
/* Whether the checksums of the frame are right: of IPv4, and of TCP or UDP in it. */
bool net_sound(const uint8_t *frame, size_t length);
