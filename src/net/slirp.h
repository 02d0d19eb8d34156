/* The user-mode network: libslirp between the guest's packets and sockets of this host.
 *
 * The guest finds 10.0.2.0/24 and fec0::/64: a router at .2 (which is also this host's loopback)
 * and ::2, name servers at .3 and ::3, and DHCP that gives it .15. One thread. */
#pragma once
#include "net/net.h"
#include "net/packet.h"
#include "net/ports.h"

#include <poll.h>

struct slirp;

/* `restricted`: the guest reaches neither this host nor any other, but published ports work.
 * Packets for the guest go to the sink. */
struct slirp *slirp_net_new(const char *name, bool restricted, const struct packet_sink *sink);
void slirp_net_free(struct slirp *net);

/* A packet of the guest; `frame` is changed. */
void slirp_net_input(struct slirp *net, const struct net_header *header, uint8_t *frame,
                     size_t length);

/* Opens a port of this host, or closes it. */
bool slirp_net_open(struct slirp *net, const struct port *port, GError **error);
void slirp_net_close(struct slirp *net, const struct port *port);

/* Appends what is to be polled for to fds (struct pollfd), and says how long at most, in ms; -1:
 * for ever. `pressed`: the guest does not keep up, take nothing more for it. */
int slirp_net_prepare(struct slirp *net, GArray *fds, bool pressed);
/* After poll on that array, and before the guest's packets: it looks at the clock. */
void slirp_net_work(struct slirp *net);
/* How many sockets it has beside those of published ports. */
unsigned slirp_net_sockets(const struct slirp *net);
uint64_t slirp_net_refused(const struct slirp *net); /* packets of the guest that were dropped */
