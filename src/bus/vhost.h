/* The kernel as the server of virtqueues (linux/vhost.h): the ioctls of a vhost device, for any
 * device that lends its queues (virtio_lend). Only vhost-net has a function of its own here.
 *
 * The kernel's worker reads and writes guest RAM by itself, as a device's loop does. What it writes
 * is not told to dirty tracking: it reaches RAM that is always shown, of which no slot has a log;
 * video memory and what lies in the hole below 1 MiB it does not see.
 *
 * All functions are called with the device's lock held. */
#pragma once
#include "bus/virtio.h"

struct vhost;

/* The system call it makes, so that tests can be the kernel. 0 or -errno. */
struct vhost_io {
    int (*control)(int fd, unsigned long request, void *argument);
};
extern const struct vhost_io vhost_system_io;

/* Over an open /dev/vhost-*, which stays the caller's. name: for messages. */
struct vhost *vhost_new(int fd, const struct vhost_io *io, const char *name);
void vhost_free(struct vhost *vhost); /* no ring is on; NULL is allowed */

/* Before the first ring is on: memory is that of the guest now, and `features` were negotiated
 * (those the device's own serving depends on, and those of rings). False: the kernel cannot, and
 * says why in the log. */
bool vhost_prepare(struct vhost *vhost, struct guest *guest, uint64_t features);

/* Ring `index` of this vhost device from now on. `error`: an eventfd that is signalled when the
 * ring makes no sense to the kernel. False: it stays off. */
bool vhost_ring_on(struct vhost *vhost, unsigned index, const struct virtio_ring *ring, int error);
/* Nothing is in flight after it. Sets where the ring goes on; false: it is not known. */
bool vhost_ring_off(struct vhost *vhost, unsigned index, struct virtio_ring *ring);
void vhost_set_call(struct vhost *vhost, unsigned index, int call);
unsigned vhost_rings(const struct vhost *vhost); /* that are on */

/* What ring `index` of a vhost-net leads to: a tap device's queue. From here on it is served. */
bool vhost_net_connect(struct vhost *vhost, unsigned index, int tap);
void vhost_net_disconnect(struct vhost *vhost, unsigned index);
