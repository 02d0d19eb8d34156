/* Queues that somebody else serves in the device's place (struct virtio_server in virtio.h): who
 * has which queue when.
 *
 * A lent queue's doorbell is not on the loop, its eventfd is the server's. Its interrupts are the
 * server's too: an eventfd that KVM turns into the message of the queue's vector, as long as that
 * is routed and not masked. In all other cases (the line, a masked vector, no eventfds on this
 * host) it is an eventfd on the loop, which does what a queue of the device's own does. */
#include "bus/msix.h"
#include "bus/ring.h"
#include "bus/virtio-core.h"

#include <sys/eventfd.h>
#include <unistd.h>

/* --- interrupts of lent queues -------------------------------------------------------------- */

static bool was_called(struct door *door)
{
    uint64_t count;
    return read(door->called.fd, &count, sizeof count) == (ssize_t)sizeof count;
}

bool virtio_called(struct loop_source *source, uint32_t events)
{
    struct door *door = source->opaque;
    (void)events;
    if (door->lent && was_called(door))
        virtio_interrupt(door->dev, door->index);
    return false;
}

static int call_of(const struct virtio *v, unsigned index)
{
    int line = pci_msix_line(v->dev, v->regs.queue[index].vector);
    return line >= 0 ? line : v->doors[index].called.fd;
}

void virtio_place_calls(struct virtio *v)
{
    for (unsigned i = 0; i < v->count; i++) {
        struct door *door = &v->doors[i];
        int call = door->lent ? call_of(v, i) : -1;
        if (!door->lent || call == door->call)
            continue;
        door->call = call;
        v->class->server->set_call(v->dev, i, call);
    }
}

void virtio_msix_written(struct device *dev)
{
    virtio_place_calls(dev->virtio);
}

/* --- lending and taking back ---------------------------------------------------------------- */

static bool open_called(struct virtio *v, unsigned index)
{
    struct door *door = &v->doors[index];
    door->called.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (door->called.fd >= 0 && loop_add(v->dev->loop, &door->called, EPOLLIN))
        return true;
    if (door->called.fd >= 0)
        close(door->called.fd);
    return false;
}

/* The queue is the device's again, and looked at. */
static void give_back(struct virtio *v, unsigned index)
{
    struct door *door = &v->doors[index];
    loop_remove(&door->called);
    if (v->running && was_called(door))
        virtio_interrupt(v->dev, index);
    close(door->called.fd);
    if (v->running && loop_add(v->dev->loop, &door->source, EPOLLIN | EPOLLET))
        loop_wake(&door->source);
}

static void lend(struct virtio *v, unsigned index)
{
    struct door *door = &v->doors[index];
    struct virtio_ring ring;
    if (!open_called(v, index)) {
        door->wanted = false;
        return;
    }
    if (!virtqueue_lend(v->queues[index], &ring)) {
        loop_remove(&door->called);
        close(door->called.fd);
        door->wanted = false;
        return;
    }
    loop_remove(&door->source);
    door->lent = true;
    ring.kick = door->source.fd;
    ring.call = door->call = call_of(v, index);
    if (v->class->server->begin(v->dev, index, &ring)) {
        virtio_ring_bell(door); /* drivers may fill queues before */
        return;
    }
    door->wanted = door->lent = false;
    virtqueue_return(v->queues[index], &ring);
    give_back(v, index);
}

static void take_back(struct virtio *v, unsigned index)
{
    struct virtio_ring ring;
    virtqueue_ring(v->queues[index], &ring);
    v->doors[index].lent = false;
    bool known = v->class->server->end(v->dev, index, &ring);
    known &= virtqueue_return(v->queues[index], &ring);
    give_back(v, index);
    if (!known)
        virtio_broken(v->dev, "the host does not know where it got to in a ring");
}

void virtio_update_lent(struct virtio *v)
{
    for (unsigned i = 0; v->class->server && i < v->count; i++) {
        struct door *door = &v->doors[i];
        bool should = v->running && !v->still && pci_master(v->dev) && door->wanted &&
                      v->regs.queue[i].enabled && door->source.fd >= 0;
        if (should && !door->lent)
            lend(v, i);
        else if (!should && door->lent)
            take_back(v, i);
    }
    virtio_place_calls(v);
}

void virtio_ring_bell(struct door *door)
{
    uint64_t one = 1;
    if (!door->lent) {
        loop_wake(&door->source);
        return;
    }
    ssize_t ignored = write(door->source.fd, &one, sizeof one);
    (void)ignored; /* full means that it rings already */
}

/* --- for devices ---------------------------------------------------------------------------- */

bool virtio_lend(struct device *dev, unsigned index)
{
    dev->virtio->doors[index].wanted = true;
    virtio_update_lent(dev->virtio);
    return dev->virtio->doors[index].wanted;
}

void virtio_recall(struct device *dev, unsigned index)
{
    dev->virtio->doors[index].wanted = false;
    virtio_update_lent(dev->virtio);
}

bool virtio_is_lent(const struct device *dev, unsigned index)
{
    return dev->virtio->doors[index].lent;
}

bool virtio_hold(struct device *dev, bool still)
{
    struct virtio *v = dev->virtio;
    bool was = v->still;
    v->still = still;
    virtio_update_lent(v);
    return was;
}
