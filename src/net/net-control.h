/* The control socket of hv-net: newline-delimited JSON-RPC 2.0 as that of the machine
 * (man/hv-control.7), with the methods events, info, probe, publish and unpublish. One thread, that
 * of hv-net's loop; a client that does not read is dropped. */
#pragma once
#include "net/outbox.h"
#include "net/ports.h"
#include "net/probe.h"
#include "net/slirp.h"

struct net_control;

/* What it tells of and changes; all stay the caller's. */
struct net_view {
    struct slirp *net;
    struct ports *ports;
    int ports_fd; /* where the rules are kept */
    const struct outbox *out;
    struct probe *probe; /* a slot for each client */
    uint64_t received;
    bool restricted;
};

struct net_control *net_control_new(int listener, struct net_view *view);
/* Appends what is to be polled for to fds (struct pollfd); and after poll on that array. */
void net_control_prepare(struct net_control *control, GArray *fds);
void net_control_work(struct net_control *control, const GArray *fds);
/* The probe's news: the port that this slot waited for is open. */
void net_control_accepts(struct net_control *control, unsigned slot, uint16_t port);
