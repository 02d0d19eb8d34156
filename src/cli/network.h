/* What a machine's network needs of the host: open descriptors, and hv-net. */
#pragma once
#include "machine/config.h"
#include "machine/nic.h"

/* Decides what was left open of --net and --publish, and checks them. virtio: the guest has drivers
 * for that. */
bool network_resolve(struct config *config, bool virtio, GError **error);

struct network {
    int frames;  /* for the machine's card; -1: there is no network */
    int capture; /* for its packets; -1 */
    int ready;   /* where hv-net will say whether the published ports are open; -1 */

    /* Pairs of queues that the kernel can serve; 0: none. */
    unsigned pairs;
    int vhost[NIC_PAIRS_MAX];     /* an open /dev/vhost-net each */
    int queue[NIC_PAIRS_MAX - 1]; /* of the tap device, for those after the first */
};

/* Opens the network of a resolved config. `control`: the listening socket for hv-net's control, of
 * which it gets a copy; -1 where there is none. */
bool network_open(struct network *network, const struct config *config, int control,
                  GError **error);
/* tap.c: the part of a card on a tap device. */
bool tap_open(struct network *network, const struct nic *nic, unsigned cpus, GError **error);
/* Waits until the published ports are open. */
bool network_ready(struct network *network, GError **error);
/* Whether hv-net serves this machine and has a control socket. */
bool network_has_control(const struct config *config);
