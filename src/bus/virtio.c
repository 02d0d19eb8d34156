/* Virtio over PCI (virtio 1.2 sections 2 to 4.1); see virtio.h.
 *
 * The driver's settings of a queue are copied and checked when it enables the queue. Doorbells are
 * eventfds on the device's loop from DRIVER_OK to reset: the hypervisor signals them at a write to
 * the notification address, and where it cannot, the register's write function wakes the source. */
#include "bus/virtio-core.h"

#include "base/error.h"
#include "base/log.h"
#include "bus/ring.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static const struct field queue_fields[] = {
    SAVED(struct queue_regs, descriptors), SAVED(struct queue_regs, driver),
    SAVED(struct queue_regs, device),      SAVED(struct queue_regs, size),
    SAVED(struct queue_regs, vector),      SAVED(struct queue_regs, next_avail),
    SAVED(struct queue_regs, next_used),   SAVED_MAX(struct queue_regs, enabled, 1),
    SAVED_PAD(struct queue_regs, pad),     SAVED_END,
};
static const struct field virtio_fields[] = {
    SAVED_STRUCTS(struct virtio_regs, queue, queue_fields),
    SAVED(struct virtio_regs, features),
    SAVED(struct virtio_regs, device_select),
    SAVED(struct virtio_regs, driver_select),
    SAVED(struct virtio_regs, config_vector),
    SAVED(struct virtio_regs, queue_select),
    SAVED(struct virtio_regs, status),
    SAVED(struct virtio_regs, generation),
    SAVED_MAX(struct virtio_regs, isr, ISR_QUEUE | ISR_CONFIG),
    SAVED_PAD(struct virtio_regs, pad),
    SAVED_END,
};
const struct state virtio_state = STATE(struct virtio, regs, 1, virtio_fields);

/* --- for devices ---------------------------------------------------------------------------- */

struct virtqueue *virtio_queue(struct device *dev, unsigned index)
{
    return dev->virtio->queues[index];
}

bool virtio_has(const struct device *dev, unsigned feature)
{
    return dev->virtio->regs.features >> feature & 1;
}

bool virtio_running(const struct device *dev)
{
    return dev->virtio->running;
}

void virtio_wake(struct device *dev, unsigned index)
{
    loop_wake(&dev->virtio->doors[index].source);
}

/* --- interrupts (section 4.1.5) ------------------------------------------------------------- */

static void interrupt(struct device *dev, uint16_t vector, uint8_t isr)
{
    struct virtio *v = dev->virtio;
    if (pci_msix_enabled(dev)) {
        if (vector != NO_VECTOR)
            pci_msix_notify(dev, vector);
        return;
    }
    v->regs.isr |= isr;
    pci_interrupt(dev, true);
}

void virtio_interrupt(struct device *dev, unsigned index)
{
    interrupt(dev, dev->virtio->regs.queue[index].vector, ISR_QUEUE);
}

void virtio_config_changed(struct device *dev)
{
    struct virtio *v = dev->virtio;
    v->regs.generation++;
    if (v->regs.status & STATUS_DRIVER_OK)
        interrupt(dev, v->regs.config_vector, ISR_CONFIG);
}

void virtio_broken(struct device *dev, const char *why)
{
    struct virtio *v = dev->virtio;
    guest_bug(dev, "%s: the device needs a reset", why);
    v->running = false;
    virtio_update_lent(v);
    for (unsigned i = 0; i < v->count; i++)
        virtqueue_disable(v->queues[i]);
    if (v->regs.status & STATUS_NEEDS_RESET)
        return;
    v->regs.status |= STATUS_NEEDS_RESET;
    if (v->regs.status & STATUS_DRIVER_OK)
        interrupt(dev, v->regs.config_vector, ISR_CONFIG);
}

/* --- doorbells ------------------------------------------------------------------------------ */

static bool serve(struct door *door)
{
    struct virtio *v = door->dev->virtio;
    struct virtqueue *queue = v->queues[door->index];
    if (!v->running || !queue->active)
        return false;
    if (!queue->class->waits)
        virtqueue_notify(queue, false);
    bool pending = virtqueue_pending(queue);
    uint16_t at = queue->next_avail;
    bool more = v->class->serve(door->dev, door->index) && v->running;
    door->stuck = pending && !more && queue->next_avail == at;
    return more;
}

static bool door_ready(struct loop_source *source, uint32_t events)
{
    (void)events;
    return serve(source->opaque);
}

/* What the device left for lack of room elsewhere is no work until it wakes the queue: who asked
 * again and again would keep a processor busy for as long as a peer does not read. */
static bool has_work(const struct door *door)
{
    const struct virtqueue *queue = door->dev->virtio->queues[door->index];
    return !door->stuck && !queue->class->waits && virtqueue_pending(queue);
}

static bool door_poll(struct loop_source *source)
{
    struct door *door = source->opaque;
    struct virtio *v = door->dev->virtio;
    if (!v->running)
        return false;
    if (has_work(door)) {
        if (serve(door))
            loop_wake(source);
        return true;
    }
    return door->index == 0 && v->class->poll && v->class->poll(door->dev);
}

static bool door_rest(struct loop_source *source)
{
    struct door *door = source->opaque;
    struct virtio *v = door->dev->virtio;
    struct virtqueue *queue = v->queues[door->index];
    if (!v->running)
        return false;
    if (!queue->class->waits)
        virtqueue_notify(queue, true);
    return has_work(door);
}

static void set_doorbell(struct virtio *v, unsigned index, bool on)
{
    const struct board *board = v->dev->board;
    struct door *door = &v->doors[index];
    uint64_t address = v->notify_base + VIRTIO_NOTIFY_STRIDE * index;
    if (door->source.fd < 0 || door->registered == on || !board->ops->doorbell)
        return;
    bool done = board->ops->doorbell(board->opaque, address, door->source.fd, on);
    door->registered = on && done;
}

static void set_doorbells(struct virtio *v, bool on)
{
    for (unsigned i = 0; i < v->count; i++)
        set_doorbell(v, i, on);
}

/* Puts the doorbells where the BAR is. */
void virtio_place_doorbells(struct virtio *v)
{
    uint64_t base = 0;
    if (v->running && pci_bar_address(v->dev, VIRTIO_BAR, &base))
        base += VIRTIO_NOTIFY;
    else
        base = 0;
    if (base != v->notify_base)
        set_doorbells(v, false);
    v->notify_base = base;
    if (base)
        set_doorbells(v, true);
}

static void open_door(struct virtio *v, unsigned index)
{
    struct door *door = &v->doors[index];
    if (door->source.loop || !v->regs.queue[index].enabled)
        return;
    door->stuck = false;
    door->source.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); /* without: woken by the register */
    if (!loop_add(v->dev->loop, &door->source, EPOLLIN | EPOLLET) && door->source.fd >= 0) {
        close(door->source.fd);
        door->source.fd = -1;
    }
}

static void close_door(struct virtio *v, unsigned index)
{
    struct door *door = &v->doors[index];
    loop_remove(&door->source);
    if (door->source.fd >= 0)
        close(door->source.fd);
    door->source.fd = -1;
}

/* --- reset and start ------------------------------------------------------------------------ */

static void queue_fresh(struct virtio *v, unsigned index)
{
    v->regs.queue[index] = (struct queue_regs){
        .size = v->queues[index]->class->size,
        .vector = NO_VECTOR,
    };
}

static void regs_fresh(struct virtio *v)
{
    memset(&v->regs, 0, sizeof v->regs);
    v->regs.config_vector = NO_VECTOR;
    for (unsigned i = 0; i < v->count; i++)
        queue_fresh(v, i);
}

static bool is_drained(const struct virtio *v)
{
    for (unsigned i = 0; i < v->count; i++)
        if (virtqueue_in_flight(v->queues[i]))
            return false;
    return true;
}

void virtio_drained(struct device *dev)
{
    struct virtio *v = dev->virtio;
    for (unsigned i = 0; v->queue_draining && i < v->count; i++)
        if (v->queue_draining >> i & 1 && !virtqueue_in_flight(v->queues[i]))
            v->queue_draining &= ~(UINT64_C(1) << i);
    if (v->draining && is_drained(v))
        v->draining = 0;
}

/* Stops everything and forgets what the driver set. */
static void begin_reset(struct virtio *v)
{
    uint8_t shown = v->regs.status;
    v->running = false;
    for (unsigned i = 0; i < v->count; i++)
        v->doors[i].wanted = false;
    virtio_update_lent(v);
    virtio_place_doorbells(v); /* away */
    for (unsigned i = 0; i < v->count; i++) {
        close_door(v, i);
        virtqueue_disable(v->queues[i]);
    }
    if (v->class->stop)
        v->class->stop(v->dev, VIRTIO_ANY);
    pci_msix_release(v->dev);
    regs_fresh(v);
    pci_interrupt(v->dev, false);
    v->queue_draining = 0;
    if (!v->draining && !is_drained(v))
        v->draining = shown ? shown : STATUS_ACKNOWLEDGE;
}

static bool enable_queue(struct virtio *v, unsigned index)
{
    struct queue_regs *q = &v->regs.queue[index];
    struct device *dev = v->dev;
    const struct ring_setup setup = {
        .descriptors = q->descriptors,
        .driver = q->driver,
        .device = q->device,
        .size = q->size,
        .packed = virtio_has(dev, VIRTIO_RING_PACKED),
        .event_idx = virtio_has(dev, VIRTIO_EVENT_IDX),
        .indirect = virtio_has(dev, VIRTIO_INDIRECT_DESC),
        .next_avail = q->next_avail,
        .next_used = q->next_used,
    };
    const char *wrong = virtqueue_enable(v->queues[index], &setup);
    if (wrong)
        virtio_broken(dev, wrong);
    virtqueue_mute(v->queues[index], !pci_master(dev));
    return !wrong;
}

/* The command register was written. A request that came back meanwhile is lost for good, and its
 * driver would wait for it. */
void virtio_master(struct virtio *v)
{
    bool mute = !pci_master(v->dev);
    if (mute)
        virtio_update_lent(v); /* back, before they are mute */
    for (unsigned i = 0; i < v->count; i++)
        if (!virtqueue_mute(v->queues[i], mute))
            virtio_broken(v->dev, "requests came back while it could not master the bus");
    for (unsigned i = 0; i < v->count && v->running && !mute; i++)
        loop_wake(&v->doors[i].source);
    virtio_update_lent(v);
}

/* DRIVER_OK. */
static void start(struct virtio *v)
{
    v->running = true;
    for (unsigned i = 0; i < v->count; i++)
        open_door(v, i);
    virtio_place_doorbells(v);
    pci_msix_claim(v->dev);
    if (v->class->start)
        v->class->start(v->dev);
    for (unsigned i = 0; i < v->count; i++)
        loop_wake(&v->doors[i].source); /* drivers may fill queues before */
}

static bool features_fit(struct virtio *v)
{
    uint64_t features = v->regs.features;
    return !(features & ~v->offered) && features >> VIRTIO_VERSION_1 & 1 &&
           (!v->class->accept || v->class->accept(v->dev, features));
}

/* Bits can be set, one after the other, and all cleared by 0 (section 2.1.2). */
void virtio_set_status(struct virtio *v, uint8_t value)
{
    uint8_t set = value & (uint8_t)~v->regs.status;
    if (!value) {
        begin_reset(v);
        return;
    }
    if (set & STATUS_FEATURES_OK && !features_fit(v))
        set &= (uint8_t)~STATUS_FEATURES_OK;
    set &=
        STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK | STATUS_FAILED;
    if (set & STATUS_DRIVER_OK && !((v->regs.status | set) & STATUS_FEATURES_OK))
        set &= (uint8_t)~STATUS_DRIVER_OK;
    v->regs.status |= set;
    if (set & STATUS_DRIVER_OK && !(v->regs.status & STATUS_NEEDS_RESET))
        start(v);
}

void virtio_enable_queue(struct virtio *v, unsigned index)
{
    struct queue_regs *q = &v->regs.queue[index];
    bool packed = virtio_has(v->dev, VIRTIO_RING_PACKED);
    if (q->enabled || v->queue_draining >> index & 1 || !(v->regs.status & STATUS_FEATURES_OK) ||
        v->regs.status & STATUS_NEEDS_RESET)
        return;
    q->next_avail = q->next_used = packed ? 0x8000 : 0;
    q->enabled = enable_queue(v, index);
    if (q->enabled && v->running) { /* after a reset of this queue alone */
        open_door(v, index);
        virtio_place_doorbells(v);
        loop_wake(&v->doors[index].source);
        virtio_update_lent(v);
    }
}

/* Section 2.6.1. */
void virtio_reset_queue(struct virtio *v, unsigned index)
{
    if (!virtio_has(v->dev, VIRTIO_RING_RESET) || !v->regs.queue[index].enabled)
        return;
    v->regs.queue[index].enabled = false;
    virtio_update_lent(v);
    set_doorbell(v, index, false);
    close_door(v, index);
    virtqueue_disable(v->queues[index]);
    if (v->class->stop)
        v->class->stop(v->dev, index);
    queue_fresh(v, index);
    if (virtqueue_in_flight(v->queues[index]))
        v->queue_draining |= UINT64_C(1) << index;
}

/* --- life ----------------------------------------------------------------------------------- */

struct virtio *virtio_new(struct device *dev)
{
    struct virtio *v = g_new0(struct virtio, 1);
    v->dev = dev;
    v->class = dev->class->virtio;
    return v;
}

bool virtio_start(struct device *dev, GError **error)
{
    struct virtio *v = dev->virtio;
    if (!dev->pci)
        return hv_fail(error, HV_FAILED, "%s: a virtio device wants a PCI slot", dev->name);
    v->count = v->class->queue_count ? v->class->queue_count(dev) : v->class->queues;
    for (unsigned i = 0; i < v->count; i++) {
        v->queues[i] = virtqueue_new(dev, i, v->class->queue(dev, i));
        v->doors[i] = (struct door){
            .source = { .fd = -1,
                        .lock = &dev->lock,
                        .opaque = &v->doors[i],
                        .ready = door_ready,
                        .poll = door_poll,
                        .rest = door_rest },
            .dev = dev,
            .index = i,
            .called = { .fd = -1,
                        .lock = &dev->lock,
                        .opaque = &v->doors[i],
                        .ready = virtio_called },
        };
    }
    v->offered = (v->class->offer ? v->class->offer(dev) : v->class->features) |
                 UINT64_C(1) << VIRTIO_INDIRECT_DESC | UINT64_C(1) << VIRTIO_EVENT_IDX |
                 UINT64_C(1) << VIRTIO_VERSION_1 | UINT64_C(1) << VIRTIO_RING_RESET |
                 (uint64_t)dev->packed << VIRTIO_RING_PACKED;
    virtio_add_capabilities(v);
    pci_msix_vectors(dev, v->count + 1);
    return true;
}

void virtio_reset(struct device *dev)
{
    begin_reset(dev->virtio);
}

void virtio_save(struct device *dev, GByteArray *out)
{
    struct virtio *v = dev->virtio;
    for (unsigned i = 0; i < v->count; i++)
        if (virtqueue_is_enabled(v->queues[i]))
            virtqueue_positions(v->queues[i], &v->regs.queue[i].next_avail,
                                &v->regs.queue[i].next_used);
    state_save(&virtio_state, v, out);
}

void virtio_loaded(struct device *dev)
{
    struct virtio *v = dev->virtio;
    bool negotiated = v->regs.status & (STATUS_FEATURES_OK | STATUS_DRIVER_OK);
    if (negotiated) /* until then the driver may ask for anything */
        v->regs.features &= v->offered;
    for (unsigned i = negotiated ? v->count : 0; i < VIRTIO_QUEUES; i++)
        v->regs.queue[i].enabled = 0;
    for (unsigned i = 0; i < v->count; i++)
        if (v->regs.queue[i].enabled && !(v->regs.status & STATUS_NEEDS_RESET))
            v->regs.queue[i].enabled = enable_queue(v, i);
    if (v->regs.status & STATUS_DRIVER_OK && !(v->regs.status & STATUS_NEEDS_RESET))
        start(v);
    pci_interrupt(dev, v->regs.isr && !pci_msix_enabled(dev));
}

void virtio_finish(struct device *dev)
{
    struct virtio *v = dev->virtio;
    g_mutex_lock(&dev->lock); /* the loop's thread runs still */
    if (v->count)
        begin_reset(v);
    g_mutex_unlock(&dev->lock);
    loop_settle(dev->loop);
    for (unsigned i = 0; i < v->count; i++)
        virtqueue_free(v->queues[i]);
    g_free(v);
    dev->virtio = NULL;
}
