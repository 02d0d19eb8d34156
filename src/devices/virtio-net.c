/* virtio-net (virtio 1.2 section 5.1): the NIC of guests with virtio drivers.
 *
 * Packets go between the driver's buffers and the cable (net/net.h) without a copy. Checksums and
 * large segments are left to the far end in both directions. With several queue pairs (one for each
 * vCPU) the guest spreads what it sends; what comes is put into the pair whose flow it is of. */
#include "devices/virtio-net.h"

#include "base/error.h"

#include <string.h>

/* Status (section 5.1.4). */
enum { S_LINK_UP = 1, S_ANNOUNCE = 2 };

static const struct field vnet_fields[] = {
    SAVED_ARRAY(struct vnet_regs, vlans),
    { .name = "unicast",
      .type = FIELD_U8,
      .since = 1,
      .offset = offsetof(struct vnet_regs, unicast),
      .width = 1,
      .count = FILTERS * MAC,
      .max = UINT64_MAX },
    { .name = "multicast",
      .type = FIELD_U8,
      .since = 1,
      .offset = offsetof(struct vnet_regs, multicast),
      .width = 1,
      .count = FILTERS * MAC,
      .max = UINT64_MAX },
    SAVED_MAX(struct vnet_regs, unicasts, FILTERS + 1),
    SAVED_MAX(struct vnet_regs, multicasts, FILTERS + 1),
    SAVED_MAX(struct vnet_regs, pairs, PAIRS_MAX),
    SAVED_ARRAY(struct vnet_regs, mac),
    SAVED_ARRAY_MAX(struct vnet_regs, mode, 1),
    SAVED_MAX(struct vnet_regs, announce, 1),
    SAVED_MAX(struct vnet_regs, cable_out, 1),
    SAVED_PAD(struct vnet_regs, pad),
    SAVED_END,
};

static const struct virtio_queue_class receive_class = { "receive", QUEUE_SIZE, 0, true };
static const struct virtio_queue_class transmit_class = { "transmit", QUEUE_SIZE, 0, false };
static const struct virtio_queue_class control_class = { "control", 64, 0, false };

/* Queues: receive and transmit of each pair by turns, then control (section 5.1.2). */
static unsigned control_index(const struct vnet *vnet)
{
    return virtio_has(&vnet->dev, F_MQ) ? 2 * (unsigned)vnet->pairs_option : 2;
}

static const struct virtio_queue_class *queue(struct device *dev, unsigned index)
{
    const struct vnet *vnet = (struct vnet *)dev;
    /* A driver without MQ has its control queue at 2: all are large enough for both. */
    if (index == 2 * vnet->pairs_option)
        return &control_class;
    return index % 2 ? &transmit_class : &receive_class;
}

static unsigned queue_count(struct device *dev)
{
    return 2 * (unsigned)((struct vnet *)dev)->pairs_option + 1;
}

bool vnet_is_on(const struct vnet *vnet)
{
    return vnet->net && !vnet->regs.cable_out && !net_gone(vnet->net);
}

/* --- the cable ------------------------------------------------------------------------------ */

void vnet_watch(struct vnet *vnet)
{
    uint32_t events = 0;
    if (virtio_running(&vnet->dev) && vnet_is_on(vnet) && !virtio_is_lent(&vnet->dev, 0))
        events = (vnet->starved ? 0 : EPOLLIN) | (vnet->blocked ? EPOLLOUT : 0);
    if (events && !vnet->cable.loop) {
        vnet->cable.fd = net_fd(vnet->net);
        loop_add(vnet->dev.loop, &vnet->cable, events);
    } else if (vnet->cable.loop && net_gone(vnet->net)) {
        loop_remove(&vnet->cable); /* it is for ever readable now */
    } else if (vnet->cable.loop) {
        loop_change(&vnet->cable, events);
    }
}

/* --- receiving ------------------------------------------------------------------------------ */

/* The buffers that the next packet goes into. */
struct landing {
    struct chain *chain[RX_CHAINS];
    unsigned chains;
    struct iovec iov[RX_SEGMENTS];
    unsigned segments;
    size_t room;
};

static bool land(struct virtqueue *queue, struct landing *l)
{
    struct chain *chain = virtqueue_pop(queue);
    if (!chain)
        return false;
    l->chain[l->chains++] = chain;
    for (unsigned i = 0; i < chain->in_count && l->segments < RX_SEGMENTS; i++) {
        l->iov[l->segments++] = chain->in[i];
        l->room += chain->in[i].iov_len;
    }
    return true;
}

/* Enough buffers for a packet of so many bytes, or as many as there are. */
static bool prepare(const struct vnet *vnet, struct virtqueue *queue, struct landing *l,
                    size_t length)
{
    bool merge = virtio_has(&vnet->dev, F_MRG_RXBUF);
    size_t wanted = HEADER + NET_ETHERNET + 4 + vnet->mtu;
    if (virtio_has(&vnet->dev, F_GUEST_TSO4) || virtio_has(&vnet->dev, F_GUEST_TSO6) ||
        virtio_has(&vnet->dev, F_GUEST_USO4))
        wanted = NET_PACKET_MAX;
    wanted = MIN(wanted, length);
    l->chains = l->segments = 0;
    l->room = 0;
    do {
        if (!land(queue, l))
            break;
    } while (merge && l->room < wanted && l->chains < RX_CHAINS && l->segments < RX_SEGMENTS);
    return l->chains;
}

static void give_back(struct landing *l, unsigned from)
{
    for (unsigned i = l->chains; i-- > from;)
        virtqueue_unpop(l->chain[i]);
    l->chains = from;
}

/* Pushes the buffers that the packet fills, and tells in its header how many these are. */
static void deliver(struct vnet *vnet, struct landing *l, size_t length)
{
    uint32_t filled[RX_CHAINS];
    unsigned used = 0;
    for (size_t left = length; left && used < l->chains; used++) {
        filled[used] = (uint32_t)MIN(left, l->chain[used]->in_bytes);
        left -= filled[used];
    }
    give_back(l, used);
    guest_list_written(vnet->dev.board->guest, l->iov, l->segments);
    /* num_buffers, after all else: the header may be split over segments as the driver likes. */
    struct chain *first = l->chain[0];
    struct iovec *iov = first->in;
    le16 buffers = le16_of((uint16_t)used);
    const uint8_t *from = (const uint8_t *)&buffers;
    size_t at = offsetof(struct net_header, buffers);
    for (unsigned i = 0, done = 0; i < first->in_count && done < sizeof buffers; i++) {
        for (; at < iov[i].iov_len && done < sizeof buffers; at++)
            ((uint8_t *)iov[i].iov_base)[at] = from[done++];
        at -= MIN(at, iov[i].iov_len);
    }
    for (unsigned i = 0; i < used; i++)
        virtqueue_push(l->chain[i], filled[i]);
}

/* The first bytes of the frame that was received, copied: the guest may change the buffers. */
static bool peek(const struct landing *l, size_t length, uint8_t *frame)
{
    size_t skip = HEADER, done = 0;
    memset(frame, 0, PEEK);
    for (unsigned i = 0; i < l->segments && done < MIN(length - HEADER, PEEK); i++) {
        size_t have = l->iov[i].iov_len;
        if (skip < have) {
            size_t n = MIN(have - skip, MIN(length - HEADER, PEEK) - done);
            memcpy(frame + done, (uint8_t *)l->iov[i].iov_base + skip, n);
            done += n;
        }
        skip -= MIN(skip, have);
    }
    return done >= NET_ETHERNET;
}

/* --- flows ---------------------------------------------------------------------------------- */

/* Which flow a frame is of, the same in both directions: addresses and ports, added. 0 for all that
 * is no TCP or UDP over IP. */
static unsigned flow_of(const uint8_t *frame)
{
    const uint8_t *ip = frame + NET_ETHERNET;
    unsigned type = (unsigned)(frame[ETHERTYPE] << 8 | frame[ETHERTYPE + 1]), sum = 0;
    unsigned first = 0, end = 0, ports = 0;
    if (type == 0x0800 && ip[0] >> 4 == 4 && (ip[9] == 6 || ip[9] == 17)) {
        first = 12;
        end = 20;
        ports = (ip[0] & 15u) * 4;
    } else if (type == 0x86dd && (ip[6] == 6 || ip[6] == 17)) {
        first = 8;
        end = ports = 40;
    }
    for (unsigned i = first; i < end; i += 2)
        sum += (unsigned)(ip[i] << 8 | ip[i + 1]);
    if (ports && NET_ETHERNET + ports + 4 <= PEEK)
        sum += (unsigned)(ip[ports] << 8 | ip[ports + 1]) +
               (unsigned)(ip[ports + 2] << 8 | ip[ports + 3]);
    return (sum ^ sum >> 8) % FLOWS;
}

/* The next packet's length, or more; 0: there is none. And the pair that is to get it: the one that
 * last sent for its flow (section 5.1.6.5.5). */
static size_t next_packet(struct vnet *vnet, unsigned *pair)
{
    uint8_t packet[HEADER + PEEK] = { 0 };
    size_t length = net_peek(vnet->net, packet, vnet->regs.pairs > 1 ? sizeof packet : 0);
    *pair = 0;
    if (length > HEADER && vnet->regs.pairs > 1)
        *pair = vnet->flows[flow_of(packet + HEADER)];
    if (*pair >= vnet->regs.pairs)
        *pair = 0;
    return length;
}

/* --- both directions ------------------------------------------------------------------------ */

/* The next packet is out of the way; `starved`: it waits for buffers. False: there is none. */
static bool receive_one(struct vnet *vnet)
{
    struct landing landing;
    uint8_t frame[PEEK];
    unsigned pair;
    size_t length = next_packet(vnet, &pair);
    if (!length)
        return false;
    struct virtqueue *queue = virtio_queue(&vnet->dev, 2 * pair);
    vnet->starved = !prepare(vnet, queue, &landing, length);
    if (vnet->starved)
        return true;
    length = net_receive(vnet->net, landing.iov, landing.segments);
    if (length > HEADER && peek(&landing, length, frame) && vnet_passes(vnet, frame))
        deliver(vnet, &landing, length);
    else
        give_back(&landing, 0);
    virtqueue_flush(queue);
    return length > HEADER;
}

static bool receive_all(struct vnet *vnet)
{
    bool got = true;
    vnet->starved = false;
    for (unsigned i = 0; i < VIRTQUEUE_BATCH && got && vnet_is_on(vnet) && !vnet->starved; i++)
        got = receive_one(vnet);
    vnet_watch(vnet);
    return got && vnet_is_on(vnet);
}

/* Sends what a chain holds; false: the cable has no room. */
static bool send_chain(struct vnet *vnet, struct chain *chain, unsigned pair)
{
    struct net_header header;
    struct iovec iov[SEND_SEGMENTS];
    if (!vnet_is_on(vnet) || chain->out_count + 1 > SEND_SEGMENTS ||
        !chain_read(chain, &header, sizeof header))
        return true;
    if (vnet->regs.pairs > 1 && chain->out_count && chain->out[0].iov_len >= NET_ETHERNET) {
        uint8_t frame[PEEK] = { 0 };
        memcpy(frame, chain->out[0].iov_base, MIN(chain->out[0].iov_len, sizeof frame));
        vnet->flows[flow_of(frame)] = (uint8_t)pair;
    }
    iov[0] = (struct iovec){ &header, sizeof header };
    memcpy(iov + 1, chain->out, chain->out_count * sizeof *iov);
    return net_send(vnet->net, iov, chain->out_count + 1);
}

static bool transmit(struct vnet *vnet, unsigned index)
{
    struct virtqueue *queue = virtio_queue(&vnet->dev, index);
    struct chain *chain;
    unsigned count = 0;
    while (count < VIRTQUEUE_BATCH && !vnet->blocked && (chain = virtqueue_pop(queue))) {
        vnet->blocked = !send_chain(vnet, chain, index / 2);
        if (vnet->blocked)
            virtqueue_unpop(chain);
        else
            virtqueue_push(chain, 0);
        count++;
    }
    virtqueue_flush(queue);
    if (vnet->blocked)
        vnet_watch(vnet);
    return count == VIRTQUEUE_BATCH && !vnet->blocked;
}

/* What waited for room goes on, or goes nowhere. */
static void unblock(struct vnet *vnet)
{
    vnet->blocked = false;
    for (unsigned i = 1; i < 2 * vnet->pairs_option; i += 2)
        virtio_wake(&vnet->dev, i);
}

static bool cable_ready(struct loop_source *source, uint32_t events)
{
    struct vnet *vnet = source->opaque;
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR) && vnet->blocked)
        unblock(vnet);
    return receive_all(vnet) && !vnet->starved;
}

static bool serve(struct device *dev, unsigned index)
{
    struct vnet *vnet = (struct vnet *)dev;
    if (index == control_index(vnet))
        return vnet_control(vnet, index);
    if (index % 2)
        return transmit(vnet, index);
    return receive_all(vnet) && !vnet->starved; /* buffers came for what waits */
}

/* --- negotiation, configuration ------------------------------------------------------------- */

static uint64_t offer(struct device *dev)
{
    const struct vnet *vnet = (struct vnet *)dev;
    bool uso = !vnet->net || net_knows_uso(vnet->net);
    return BIT(F_CSUM) | BIT(F_GUEST_CSUM) | BIT(F_MTU) | BIT(F_MAC) | BIT(F_GUEST_TSO4) |
           BIT(F_GUEST_TSO6) | BIT(F_GUEST_ECN) | BIT(F_HOST_TSO4) | BIT(F_HOST_TSO6) |
           BIT(F_HOST_ECN) | BIT(F_MRG_RXBUF) | BIT(F_STATUS) | BIT(F_CTRL_VQ) | BIT(F_CTRL_RX) |
           BIT(F_CTRL_VLAN) | BIT(F_CTRL_RX_EXTRA) | BIT(F_GUEST_ANNOUNCE) | BIT(F_CTRL_MAC_ADDR) |
           (uso ? BIT(F_GUEST_USO4) | BIT(F_GUEST_USO6) | BIT(F_HOST_USO) : 0) |
           (vnet->pairs_option > 1 ? BIT(F_MQ) : 0);
}

/* What a feature needs (section 5.1.3.1). */
static bool accept(struct device *dev, uint64_t features)
{
    static const struct {
        uint64_t feature, needs;
    } needs[] = {
        { BIT(F_GUEST_TSO4) | BIT(F_GUEST_TSO6) | BIT(F_GUEST_USO4) | BIT(F_GUEST_USO6),
          BIT(F_GUEST_CSUM) },
        { BIT(F_HOST_TSO4) | BIT(F_HOST_TSO6) | BIT(F_HOST_USO), BIT(F_CSUM) },
        { BIT(F_CTRL_RX) | BIT(F_CTRL_VLAN) | BIT(F_CTRL_RX_EXTRA) | BIT(F_GUEST_ANNOUNCE) |
              BIT(F_MQ) | BIT(F_CTRL_MAC_ADDR),
          BIT(F_CTRL_VQ) },
    };
    (void)dev;
    for (size_t i = 0; i < G_N_ELEMENTS(needs); i++)
        if (features & needs[i].feature && !(features & needs[i].needs))
            return false;
    return true;
}

static void config_read(struct device *dev, uint8_t *config)
{
    const struct vnet *vnet = (struct vnet *)dev;
    struct net_config *c = (struct net_config *)(void *)config;
    memcpy(c->mac, vnet->regs.mac, MAC);
    c->status = le16_of((uint16_t)((vnet->net && !vnet->regs.cable_out ? S_LINK_UP : 0) |
                                   (vnet->regs.announce ? S_ANNOUNCE : 0)));
    c->max_pairs = le16_of((uint16_t)vnet->pairs_option);
    c->mtu = le16_of((uint16_t)vnet->mtu);
}

static void set_cable(struct device *dev, bool in)
{
    struct vnet *vnet = (struct vnet *)dev;
    if (vnet->regs.cable_out == !in)
        return;
    vnet->regs.cable_out = !in;
    if (!in)
        vnet_lend(vnet); /* back, so that what came can be thrown away */
    vnet->regs.announce = in && virtio_has(dev, F_GUEST_ANNOUNCE);
    if (vnet->net)
        net_discard(vnet->net);
    virtio_config_changed(dev);
    if (vnet->blocked)
        unblock(vnet);
    vnet_lend(vnet);
    vnet_watch(vnet);
}

/* --- life ----------------------------------------------------------------------------------- */

static void start(struct device *dev)
{
    struct vnet *vnet = (struct vnet *)dev;
    unsigned offloads = (virtio_has(dev, F_GUEST_CSUM) ? NET_CAN_CHECKSUM : 0) |
                        (virtio_has(dev, F_GUEST_TSO4) ? NET_CAN_TCP4 : 0) |
                        (virtio_has(dev, F_GUEST_TSO6) ? NET_CAN_TCP6 : 0) |
                        (virtio_has(dev, F_GUEST_ECN) ? NET_CAN_ECN : 0);
    if (virtio_has(dev, F_GUEST_USO4) && virtio_has(dev, F_GUEST_USO6))
        offloads |= NET_CAN_USO;
    if (!vnet->net)
        return;
    net_discard(vnet->net); /* what came before was for nobody */
    net_set_offloads(vnet->net, offloads);
    vnet_lend(vnet);
    vnet_watch(vnet);
}

static void stop(struct device *dev, uint32_t index)
{
    struct vnet *vnet = (struct vnet *)dev;
    struct vnet_regs *r = &vnet->regs;
    if (index != VIRTIO_ANY)
        return;
    loop_remove(&vnet->cable);
    vnet_forget_errors(vnet);
    vnet->starved = vnet->blocked = false;
    *r = (struct vnet_regs){ .pairs = 1, .cable_out = r->cable_out };
    r->mode[RX_PROMISCUOUS] = 1; /* until the driver says otherwise */
    memcpy(r->mac, vnet->mac, MAC);
}

static void loaded(struct device *dev)
{
    struct vnet *vnet = (struct vnet *)dev;
    /* Switches on the way must learn where the guest is now (section 5.1.6.5.4). */
    if (!virtio_has(dev, F_GUEST_ANNOUNCE) || vnet->regs.cable_out)
        return;
    vnet->regs.announce = true;
    virtio_config_changed(dev);
}

static bool init(struct device *dev, GError **error)
{
    struct vnet *vnet = (struct vnet *)dev;
    vnet->cable =
        (struct loop_source){ .fd = -1, .lock = &dev->lock, .opaque = vnet, .ready = cable_ready };
    vnet->errors = (struct loop_source){
        .fd = -1, .lock = &dev->lock, .opaque = vnet, .ready = vnet_errors_ready
    };
    if (!net_parse_mac(vnet->mac_option, vnet->mac) || vnet->mac[0] & 1)
        return hv_fail(error, HV_USAGE,
                       "%s: mac=%s: an address of one card is wanted, as 52:54:00:12:34:56",
                       dev->name, vnet->mac_option);
    return pci_option_rom(dev, vnet->rom, error);
}

static const struct virtio_class vnet_virtio = {
    .id = 1,
    .queues = 2 * PAIRS_MAX + 1,
    .config_size = sizeof(struct net_config),
    .queue = queue,
    .queue_count = queue_count,
    .offer = offer,
    .accept = accept,
    .config_read = config_read,
    .start = start,
    .serve = serve,
    .stop = stop,
    .server = &vnet_server,
};

static const struct option vnet_options[] = {
    { "mac", "the NIC's address", OPTION_STRING, offsetof(struct vnet, mac_option),
      "52:54:00:12:34:56", 0, 0 },
    { "queues", "pairs of queues", OPTION_UINT, offsetof(struct vnet, pairs_option), "1", 1,
      PAIRS_MAX },
    { "mtu", "the largest packet, in bytes", OPTION_UINT, offsetof(struct vnet, mtu), "1500", 68,
      65535 },
    VIRTIO_OPTION_PACKED,
    { .name = NULL },
};

const struct device_class virtio_net_class = {
    .name = "virtio-net",
    .help = "virtio network card",
    .size = sizeof(struct vnet),
    .flags = CLASS_LOOP | CLASS_KEEPS_STATE, /* the cable stays where it is */
    .regions = virtio_regions,
    .options = vnet_options,
    .plugs = (const struct plug[]){ { "net", PLUG_NET, offsetof(struct vnet, net) },
                                    { "rom", PLUG_BLOB, offsetof(struct vnet, rom) },
                                    { .name = NULL } },
    .state = STATE(struct vnet, regs, 1, vnet_fields),
    .pci = VIRTIO_PCI(1, 0x020000),
    .virtio = &vnet_virtio,
    .init = init,
    .loaded = loaded,
    .finish = vnet_finish,
    .set_cable = set_cable,
};
