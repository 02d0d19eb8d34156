/* virtio-net's parts: the device (virtio-net.c), and what its driver asks of it over the control
 * queue, among which are the filters of received packets (virtio-net-control.c). */
#pragma once
#include "bus/virtio.h"
#include "net/net.h"

/* Feature bits (section 5.1.3). */
enum {
    F_CSUM = 0,
    F_GUEST_CSUM = 1,
    F_MTU = 3,
    F_MAC = 5,
    F_GUEST_TSO4 = 7,
    F_GUEST_TSO6 = 8,
    F_GUEST_ECN = 9,
    F_HOST_TSO4 = 11,
    F_HOST_TSO6 = 12,
    F_HOST_ECN = 13,
    F_MRG_RXBUF = 15,
    F_STATUS = 16,
    F_CTRL_VQ = 17,
    F_CTRL_RX = 18,
    F_CTRL_VLAN = 19,
    F_CTRL_RX_EXTRA = 20,
    F_GUEST_ANNOUNCE = 21,
    F_MQ = 22,
    F_CTRL_MAC_ADDR = 23,
    F_GUEST_USO4 = 54,
    F_GUEST_USO6 = 55,
    F_HOST_USO = 56,
};
#define BIT(feature) (UINT64_C(1) << (feature))

/* The modes that CTRL_RX switches (section 5.1.6.5.1), by command. */
enum {
    RX_PROMISCUOUS = 0,
    RX_ALL_MULTICAST = 1,
    RX_ALL_UNICAST = 2,
    RX_NO_MULTICAST = 3,
    RX_NO_UNICAST = 4,
    RX_NO_BROADCAST = 5,
    RX_MODES = 6,
};
enum {
    MAC = 6,
    PAIRS_MAX = NET_PAIRS_MAX,
    QUEUE_SIZE = 256,
    FILTERS = 64, /* addresses of each kind; with more, all pass */
    VLANS = 4096,
    ETHERTYPE = 12,
    ETHERTYPE_VLAN = 0x8100,
    HEADER = sizeof(struct net_header),
    PEEK = 64, /* bytes of a frame that filters and steering look at */
    RX_SEGMENTS = 64,
    RX_CHAINS = 64, /* of 1.5 KiB for a 64 KiB packet, and some */
    SEND_SEGMENTS = 256,
    CONTROL_BATCH = 8,
    FLOWS = 256,
};

struct net_config {
    uint8_t mac[MAC];
    le16 status, max_pairs, mtu;
};

struct vnet_regs {
    uint64_t vlans[VLANS / 64];
    uint8_t unicast[FILTERS][MAC], multicast[FILTERS][MAC];
    uint16_t unicasts, multicasts; /* more than FILTERS: all */
    uint16_t pairs;                /* in use */
    uint8_t mac[MAC];
    uint8_t mode[RX_MODES];
    uint8_t announce;
    uint8_t cable_out; /* what the user did: survives a reset of the driver */
    uint8_t pad[4];
};

struct vhost;

struct vnet {
    struct device dev;
    struct net *net;
    GBytes *rom;
    char *mac_option;
    uint64_t pairs_option, mtu;
    uint8_t mac[MAC];
    struct loop_source cable; /* readable: packets came; writable: it has room again */
    bool starved;             /* packets wait for receive buffers */
    bool blocked;             /* a transmit queue waits for room */
    uint8_t flows[FLOWS];     /* the pair that last sent for each hash */
    struct vhost *vhost[PAIRS_MAX];
    struct loop_source errors; /* of those */
    bool vhost_failed;         /* they are left alone until the next start */
    struct vnet_regs regs;
};

/* It has a cable that leads somewhere. */
bool vnet_is_on(const struct vnet *vnet);
/* The loop watches the cable for what there may be to do. */
void vnet_watch(struct vnet *vnet);

/* virtio-net-vhost.c: the queues go to the kernel, or come back, as is right by now. */
void vnet_lend(struct vnet *vnet);
bool vnet_errors_ready(struct loop_source *source, uint32_t events);
void vnet_forget_errors(struct vnet *vnet); /* the driver is gone, and so are its mistakes */
void vnet_finish(struct device *dev);
extern const struct virtio_server vnet_server;

/* Is the frame, of which the first PEEK bytes are given, for this NIC? */
bool vnet_passes(const struct vnet *vnet, const uint8_t *frame);
/* Serves the control queue; true: it left work over. */
bool vnet_control(struct vnet *vnet, unsigned index);
