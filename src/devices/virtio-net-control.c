/* virtio-net's control queue and receive filters (virtio 1.2 section 5.1.6.5). */
#include "devices/virtio-net.h"

#include <string.h>

/* Commands (section 5.1.6.5). */
enum {
    CTRL_RX = 0,
    CTRL_MAC = 1,
    MAC_TABLE_SET = 0,
    MAC_ADDRESS_SET = 1,
    CTRL_VLAN = 2,
    VLAN_ADD = 0,
    VLAN_DELETE = 1,
    CTRL_ANNOUNCE = 3,
    ANNOUNCE_ACK = 0,
    CTRL_MQ = 4,
    MQ_PAIRS_SET = 0,
    CTRL_OK = 0,
    CTRL_ERROR = 1,
    ENTRIES_MAX = 8192, /* of a list of addresses: all are read, which takes a while */
};

/* --- receive filter (section 5.1.6.5.1) ----------------------------------------------------- */

static bool listed(const uint8_t list[][MAC], unsigned count, const uint8_t *address)
{
    for (unsigned i = 0; i < MIN(count, FILTERS); i++)
        if (!memcmp(list[i], address, MAC))
            return true;
    return count > FILTERS;
}

static bool vlan_passes(const struct vnet *vnet, const uint8_t *frame)
{
    if (!virtio_has(&vnet->dev, F_CTRL_VLAN) ||
        (frame[ETHERTYPE] << 8 | frame[ETHERTYPE + 1]) != ETHERTYPE_VLAN)
        return true;
    unsigned id = (unsigned)(frame[ETHERTYPE + 2] << 8 | frame[ETHERTYPE + 3]) % VLANS;
    return vnet->regs.vlans[id / 64] >> id % 64 & 1;
}

bool vnet_passes(const struct vnet *vnet, const uint8_t *frame)
{
    static const uint8_t broadcast[MAC] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    const struct vnet_regs *r = &vnet->regs;
    if (!vlan_passes(vnet, frame))
        return false;
    if (r->mode[RX_PROMISCUOUS])
        return true;
    if (!memcmp(frame, broadcast, MAC))
        return !r->mode[RX_NO_BROADCAST];
    if (frame[0] & 1)
        return !r->mode[RX_NO_MULTICAST] &&
               (r->mode[RX_ALL_MULTICAST] || listed(r->multicast, r->multicasts, frame));
    if (r->mode[RX_NO_UNICAST])
        return false;
    return r->mode[RX_ALL_UNICAST] || !memcmp(frame, r->mac, MAC) ||
           listed(r->unicast, r->unicasts, frame);
}

/* --- the control queue (section 5.1.6.5) ---------------------------------------------------- */

static bool set_mode(struct vnet *vnet, struct chain *chain, uint8_t command)
{
    uint8_t on;
    if (command >= RX_MODES || !chain_read(chain, &on, sizeof on))
        return false;
    vnet->regs.mode[command] = on != 0;
    return true;
}

/* One of the two lists of MAC_TABLE_SET. */
static bool read_table(struct chain *chain, uint8_t list[][MAC], uint16_t *count)
{
    le32 entries;
    uint8_t lost[MAC];
    if (!chain_read(chain, &entries, sizeof entries) || le32_get(entries) > ENTRIES_MAX ||
        le32_get(entries) * MAC > chain->out_bytes)
        return false;
    uint32_t wanted = le32_get(entries);
    *count = (uint16_t)MIN(wanted, FILTERS + 1);
    for (uint32_t i = 0; i < wanted; i++)
        if (!chain_read(chain, i < FILTERS ? list[i] : lost, MAC))
            return false;
    return true;
}

static bool set_mac(struct vnet *vnet, struct chain *chain, uint8_t command)
{
    struct vnet_regs *r = &vnet->regs;
    if (command == MAC_ADDRESS_SET)
        return chain->out_bytes == MAC && chain_read(chain, r->mac, MAC);
    return command == MAC_TABLE_SET && read_table(chain, r->unicast, &r->unicasts) &&
           read_table(chain, r->multicast, &r->multicasts);
}

static bool set_vlan(struct vnet *vnet, struct chain *chain, uint8_t command)
{
    le16 id;
    if (command > VLAN_DELETE || !chain_read(chain, &id, sizeof id) || le16_get(id) >= VLANS)
        return false;
    uint64_t bit = UINT64_C(1) << le16_get(id) % 64, *word = &vnet->regs.vlans[le16_get(id) / 64];
    *word = command == VLAN_ADD ? *word | bit : *word & ~bit;
    return true;
}

static bool set_pairs(struct vnet *vnet, struct chain *chain, uint8_t command)
{
    le16 pairs;
    if (command != MQ_PAIRS_SET || !virtio_has(&vnet->dev, F_MQ) ||
        !chain_read(chain, &pairs, sizeof pairs) || !le16_get(pairs) ||
        le16_get(pairs) > vnet->pairs_option)
        return false;
    vnet->regs.pairs = le16_get(pairs);
    vnet_lend(vnet);
    return true;
}

static bool command(struct vnet *vnet, struct chain *chain)
{
    uint8_t head[2]; /* class, command */
    if (!chain_read(chain, head, sizeof head))
        return false;
    switch (head[0]) {
    case CTRL_RX:
        return set_mode(vnet, chain, head[1]);
    case CTRL_MAC:
        return set_mac(vnet, chain, head[1]);
    case CTRL_VLAN:
        return set_vlan(vnet, chain, head[1]);
    case CTRL_ANNOUNCE:
        vnet->regs.announce = false;
        return head[1] == ANNOUNCE_ACK;
    case CTRL_MQ:
        return set_pairs(vnet, chain, head[1]);
    default:
        return false;
    }
}

bool vnet_control(struct vnet *vnet, unsigned index)
{
    struct virtqueue *queue = virtio_queue(&vnet->dev, index);
    struct chain *chain;
    unsigned count = 0;
    while (count < CONTROL_BATCH && (chain = virtqueue_pop(queue))) {
        uint8_t ack = command(vnet, chain) ? CTRL_OK : CTRL_ERROR;
        chain_write(chain, &ack, sizeof ack);
        virtqueue_push(chain, chain->written);
        count++;
    }
    virtqueue_flush(queue);
    return count == CONTROL_BATCH;
}
