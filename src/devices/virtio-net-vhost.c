/* virtio-net's queues served by the kernel (vhost-net), where its cable is a tap device.
 *
 * All pairs in use are lent, or none is. A tap device's further queues are on while their pair is
 * lent; else all that comes is in its first one, where the device itself looks. What the kernel
 * makes no sense of comes back, and the device judges it as it judges everything without a vhost.
 * One thing is different for the driver: its filters are not applied. They are no promise (section
 * 5.1.6.5.1), and its network stack looks at every address again. */
#include "base/log.h"
#include "bus/vhost.h"
#include "devices/virtio-net.h"

#include <sys/eventfd.h>
#include <unistd.h>

/* What shapes rings and headers, and is no secret between driver and device. */
static uint64_t shape(const struct device *dev)
{
    static const uint8_t features[] = { F_MRG_RXBUF, VIRTIO_INDIRECT_DESC, VIRTIO_EVENT_IDX,
                                        VIRTIO_VERSION_1, VIRTIO_RING_PACKED };
    uint64_t bits = 0;
    for (size_t i = 0; i < G_N_ELEMENTS(features); i++)
        bits |= (uint64_t)virtio_has(dev, features[i]) << features[i];
    return bits;
}

/* The vhost of a pair, ready for its first ring. */
static bool prepare(struct vnet *vnet, unsigned pair)
{
    const struct net_vhost *kernel = net_vhost(vnet->net, pair);
    struct device *dev = &vnet->dev;
    if (!vnet->vhost[pair])
        vnet->vhost[pair] = vhost_new(kernel->vhost, kernel->io, dev->name);
    return vhost_prepare(vnet->vhost[pair], dev->board->guest, shape(dev)) &&
           net_set_queue(vnet->net, pair, true);
}

static bool ring_on(struct vhost *vhost, unsigned side, const struct virtio_ring *ring, int error,
                    int tap)
{
    struct virtio_ring unused = *ring;
    if (!vhost_ring_on(vhost, side, ring, error))
        return false;
    bool ok = vhost_net_connect(vhost, side, tap);
    if (!ok)
        vhost_ring_off(vhost, side, &unused);
    return ok;
}

static bool begin(struct device *dev, unsigned index, const struct virtio_ring *ring)
{
    struct vnet *vnet = (struct vnet *)dev;
    unsigned pair = index / 2;
    bool first = !vnet->vhost[pair] || !vhost_rings(vnet->vhost[pair]);
    if ((!first || prepare(vnet, pair)) &&
        ring_on(vnet->vhost[pair], index % 2, ring, vnet->errors.fd,
                net_vhost(vnet->net, pair)->tap)) {
        vnet_watch(vnet);
        return true;
    }
    if (first)
        net_set_queue(vnet->net, pair, false);
    vnet->vhost_failed = true;
    loop_wake(&vnet->errors); /* the others come back, too */
    return false;
}

static void set_call(struct device *dev, unsigned index, int call)
{
    vhost_set_call(((struct vnet *)dev)->vhost[index / 2], index % 2, call);
}

static bool end(struct device *dev, unsigned index, struct virtio_ring *ring)
{
    struct vnet *vnet = (struct vnet *)dev;
    struct vhost *vhost = vnet->vhost[index / 2];
    vhost_net_disconnect(vhost, index % 2);
    bool known = vhost_ring_off(vhost, index % 2, ring);
    if (!vhost_rings(vhost))
        net_set_queue(vnet->net, index / 2, false);
    vnet_watch(vnet);
    return known;
}

const struct virtio_server vnet_server = { begin, set_call, end };

/* --- when ----------------------------------------------------------------------------------- */

bool vnet_errors_ready(struct loop_source *source, uint32_t events)
{
    struct vnet *vnet = source->opaque;
    uint64_t count;
    (void)events;
    if (read(source->fd, &count, sizeof count) == (ssize_t)sizeof count) {
        guest_bug(&vnet->dev, "the kernel cannot make sense of a queue");
        vnet->vhost_failed = true;
    }
    vnet_lend(vnet);
    return false;
}

/* Where the kernel says that something is wrong. */
static bool open_errors(struct vnet *vnet)
{
    if (vnet->errors.loop)
        return true;
    vnet->errors.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (vnet->errors.fd >= 0 && loop_add(vnet->dev.loop, &vnet->errors, EPOLLIN))
        return true;
    if (vnet->errors.fd >= 0)
        close(vnet->errors.fd);
    return false;
}

static void lend_all(struct vnet *vnet, bool may)
{
    for (unsigned i = 0; i < 2 * vnet->pairs_option; i++) {
        bool lend = may && i / 2 < vnet->regs.pairs && !vnet->vhost_failed;
        if (lend)
            virtio_lend(&vnet->dev, i);
        else
            virtio_recall(&vnet->dev, i);
    }
}

void vnet_lend(struct vnet *vnet)
{
    if (!vnet->net || !net_vhost(vnet->net, 0))
        return;
    bool was = virtio_is_lent(&vnet->dev, 0);
    bool may = virtio_running(&vnet->dev) && vnet_is_on(vnet) && !vnet->vhost_failed &&
               net_vhost(vnet->net, vnet->regs.pairs - 1u) && open_errors(vnet);
    lend_all(vnet, may);
    if (vnet->vhost_failed)
        lend_all(vnet, false);
    if (was != virtio_is_lent(&vnet->dev, 0))
        log_info(vnet->dev.name, was ? "hv serves its queues" : "the kernel serves its queues");
    vnet_watch(vnet);
}

void vnet_forget_errors(struct vnet *vnet)
{
    bool open = vnet->errors.loop;
    loop_remove(&vnet->errors);
    if (open)
        close(vnet->errors.fd);
    vnet->vhost_failed = false;
}

void vnet_finish(struct device *dev)
{
    struct vnet *vnet = (struct vnet *)dev;
    for (unsigned i = 0; i < PAIRS_MAX; i++)
        vhost_free(vnet->vhost[i]);
}
