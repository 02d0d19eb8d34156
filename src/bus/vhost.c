/* vhost; see vhost.h. The order of the calls is the kernel's: owner, features and memory of the
 * device, then size, base, addresses and eventfds of a ring, and last its backend, which starts it.
 */
#include "bus/vhost.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/vhost.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct vhost {
    int fd;
    const struct vhost_io *io;
    char *name;
    bool owned;  /* it has a worker, which knows our memory */
    uint32_t on; /* a bit for each ring */
};

static int system_control(int fd, unsigned long request, void *argument)
{
    return ioctl(fd, request, argument) < 0 ? -errno : 0;
}

const struct vhost_io vhost_system_io = { system_control };

struct vhost *vhost_new(int fd, const struct vhost_io *io, const char *name)
{
    struct vhost *vhost = g_new0(struct vhost, 1);
    vhost->fd = fd;
    vhost->io = io;
    vhost->name = g_strdup(name);
    return vhost;
}

void vhost_free(struct vhost *vhost)
{
    if (!vhost)
        return;
    g_free(vhost->name);
    g_free(vhost);
}

unsigned vhost_rings(const struct vhost *vhost)
{
    return (unsigned)__builtin_popcount(vhost->on);
}

static bool control(struct vhost *vhost, unsigned long request, void *argument, const char *what)
{
    int result = vhost->io->control(vhost->fd, request, argument);
    if (result < 0)
        log_info(vhost->name, "vhost: %s: %s", what, g_strerror(-result));
    return result == 0;
}

/* --- the device ----------------------------------------------------------------------------- */

/* The RAM that is always shown; a buffer elsewhere is an error to the kernel. */
static bool set_memory(struct vhost *vhost, struct guest *guest)
{
    union {
        struct vhost_memory head;
        uint8_t
            bytes[sizeof(struct vhost_memory) + GUEST_PIECES * sizeof(struct vhost_memory_region)];
    } table = { .head = { .nregions = 0 } };
    struct guest_piece pieces[GUEST_PIECES];
    unsigned count = guest_pieces(guest, pieces);
    for (unsigned i = 0; i < count; i++)
        table.head.regions[i] = (struct vhost_memory_region){
            .guest_phys_addr = pieces[i].at.raw,
            .memory_size = pieces[i].size,
            .userspace_addr = (uintptr_t)pieces[i].host,
        };
    table.head.nregions = count;
    return control(vhost, VHOST_SET_MEM_TABLE, &table, "memory");
}

bool vhost_prepare(struct vhost *vhost, struct guest *guest, uint64_t features)
{
    uint64_t known = 0;
    if (!control(vhost, VHOST_GET_FEATURES, &known, "features"))
        return false;
    if (features & ~known) {
        log_info(vhost->name,
                 "vhost: the kernel has not all features that the guest uses (%#" PRIx64 ")",
                 features & ~known);
        return false;
    }
    vhost->owned = vhost->owned || control(vhost, VHOST_SET_OWNER, NULL, "owner");
    return vhost->owned && control(vhost, VHOST_SET_FEATURES, &features, "features") &&
           set_memory(vhost, guest);
}

/* --- rings ---------------------------------------------------------------------------------- */

static bool set_file(struct vhost *vhost, unsigned long request, unsigned index, int fd,
                     const char *what)
{
    struct vhost_vring_file file = { .index = index, .fd = fd };
    return control(vhost, request, &file, what);
}

static bool set_state(struct vhost *vhost, unsigned long request, unsigned index, unsigned value,
                      const char *what)
{
    struct vhost_vring_state state = { .index = index, .num = value };
    return control(vhost, request, &state, what);
}

static void forget_files(struct vhost *vhost, unsigned index)
{
    set_file(vhost, VHOST_SET_VRING_KICK, index, VHOST_FILE_UNBIND, "kick");
    set_file(vhost, VHOST_SET_VRING_CALL, index, VHOST_FILE_UNBIND, "call");
    set_file(vhost, VHOST_SET_VRING_ERR, index, VHOST_FILE_UNBIND, "error");
}

/* A ring's position: of a packed one both, with their wrap counters as virtio 1.2 has them. */
static unsigned base_of(const struct virtio_ring *ring)
{
    return ring->next_avail | (ring->packed ? (unsigned)ring->next_used << 16 : 0);
}

bool vhost_ring_on(struct vhost *vhost, unsigned index, const struct virtio_ring *ring, int error)
{
    struct vhost_vring_addr address = {
        .index = index,
        .desc_user_addr = (uintptr_t)ring->descriptors,
        .avail_user_addr = (uintptr_t)ring->driver,
        .used_user_addr = (uintptr_t)ring->device,
    };
    bool ok = set_state(vhost, VHOST_SET_VRING_NUM, index, ring->size, "size") &&
              set_state(vhost, VHOST_SET_VRING_BASE, index, base_of(ring), "base") &&
              control(vhost, VHOST_SET_VRING_ADDR, &address, "address") &&
              set_file(vhost, VHOST_SET_VRING_KICK, index, ring->kick, "kick") &&
              set_file(vhost, VHOST_SET_VRING_CALL, index, ring->call, "call") &&
              set_file(vhost, VHOST_SET_VRING_ERR, index, error, "error");
    if (ok)
        vhost->on |= 1u << index;
    else
        forget_files(vhost, index);
    return ok;
}

bool vhost_ring_off(struct vhost *vhost, unsigned index, struct virtio_ring *ring)
{
    struct vhost_vring_state state = { .index = index };
    bool known = control(vhost, VHOST_GET_VRING_BASE, &state, "base");
    if (known) {
        ring->next_avail = (uint16_t)state.num;
        /* Of a split ring all that was taken is used: no position of its own. */
        ring->next_used = ring->packed ? (uint16_t)(state.num >> 16) : ring->next_avail;
    }
    forget_files(vhost, index);
    vhost->on &= ~(1u << index);
    return known;
}

void vhost_set_call(struct vhost *vhost, unsigned index, int call)
{
    set_file(vhost, VHOST_SET_VRING_CALL, index, call, "call");
}

/* --- vhost-net ------------------------------------------------------------------------------ */

bool vhost_net_connect(struct vhost *vhost, unsigned index, int tap)
{
    return set_file(vhost, VHOST_NET_SET_BACKEND, index, tap, "tap");
}

void vhost_net_disconnect(struct vhost *vhost, unsigned index)
{
    set_file(vhost, VHOST_NET_SET_BACKEND, index, VHOST_FILE_UNBIND, "tap");
}
