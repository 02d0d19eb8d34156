/* Tap devices, and the kernel's server of a card on one (vhost-net). Both are opened here, as the
 * user; the machine gets descriptors.
 *
 * A tap device of several queues (ip tuntap add ... multi_queue) gives each pair of queues of the
 * card one, where the kernel serves them. One that does not exist is made, if the user may do that,
 * and goes with the machine. */
#include "cli/network.h"

#include "base/error.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ABOUT "network"

enum { HEADER = 12 }; /* struct net_header */

/* --- what there is -------------------------------------------------------------------------- */

struct look {
    bool exists, is_tap;
    bool used; /* somebody has it open; not known of one that is down */
};

static bool ethtool(int socket, const char *name, void *data)
{
    struct ifreq request = { .ifr_data = data };
    g_strlcpy(request.ifr_name, name, sizeof request.ifr_name);
    return ioctl(socket, SIOCETHTOOL, &request) == 0;
}

static struct look look_at(const char *name)
{
    struct ethtool_drvinfo driver = { .cmd = ETHTOOL_GDRVINFO };
    struct ethtool_value link = { .cmd = ETHTOOL_GLINK };
    struct look look = { .exists = if_nametoindex(name) != 0 };
    int socket_ = look.exists ? socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
    if (socket_ < 0)
        return look;
    look.is_tap = ethtool(socket_, name, &driver) && !strcmp(driver.driver, "tun") &&
                  !strcmp(driver.bus_info, "tap");
    look.used = look.is_tap && ethtool(socket_, name, &link) && link.data;
    close(socket_);
    return look;
}

static bool tap_failed(const char *name, bool exists, int why, GError **error)
{
    bool forbidden = why == EPERM || why == EACCES;
    if (forbidden)
        return hv_fail(error, HV_HOST,
                       "--net tap=%s: %s: an administrator can make one for you (sudo ip tuntap "
                       "add %s mode tap user %s)",
                       name, exists ? "it is somebody else's" : "there is no such device", name,
                       g_get_user_name());
    if (why == EBUSY)
        return hv_fail(error, HV_WRONG_STATE, "--net tap=%s: another program uses it", name);
    if (why == EINVAL)
        return hv_fail(error, HV_USAGE, "--net tap=%s: this is no tap device", name);
    return hv_fail(error, HV_HOST, "--net tap=%s: %s", name, g_strerror(why));
}

/* --- vhost-net ------------------------------------------------------------------------------ */

/* Why the kernel is not to serve the card; NULL: it may. */
static const char *no_vhost(const struct nic *nic)
{
    if (nic->vhost == NIC_VHOST_OFF)
        return "it is not wanted";
    if (nic->model && strcmp(nic->model, "virtio"))
        return "the card is no virtio-net";
    if (nic->capture)
        return "packets are captured";
    return NULL;
}

static bool vhost_failed(int why, GError **error)
{
    bool absent = why == ENOENT || why == ENXIO || why == ENODEV;
    return hv_fail(error, HV_HOST, "--net: vhost=on: /dev/vhost-net: %s",
                   absent          ? "this host does not have it (sudo modprobe vhost_net)"
                   : why == EACCES ? "you may not use it (sudo adduser USER kvm)"
                                   : g_strerror(why));
}

/* One for each pair of queues that the card may have. */
static bool open_vhosts(struct network *n, const struct nic *nic, unsigned wanted, GError **error)
{
    const char *why = no_vhost(nic);
    while (!why && n->pairs < wanted) {
        int fd = open("/dev/vhost-net", O_RDWR | O_CLOEXEC);
        if (fd < 0 && !n->pairs && nic->vhost == NIC_VHOST_ON)
            return vhost_failed(errno, error);
        if (fd < 0)
            why = g_strerror(errno);
        else
            n->vhost[n->pairs++] = fd;
    }
    if (!n->pairs)
        log_info(ABOUT, "no vhost-net: %s", why);
    return true;
}

static void close_vhosts(struct network *n, unsigned from)
{
    while (n->pairs > from)
        close(n->vhost[--n->pairs]);
}

/* --- the tap device ------------------------------------------------------------------------- */

static int open_tun(const char *name, GError **error)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && (errno == ENOENT || errno == ENXIO || errno == ENODEV))
        hv_fail(error, HV_HOST,
                "--net tap=%s: /dev/net/tun: this host has no tap devices (modprobe tun)", name);
    else if (fd < 0)
        hv_fail(error, HV_HOST, "--net tap=%s: /dev/net/tun: %s", name, g_strerror(errno));
    return fd;
}

/* 0, or why not. */
static int attach(int fd, const char *name, bool several)
{
    struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
    request.ifr_flags = (short)(request.ifr_flags | (several ? IFF_MULTI_QUEUE : 0));
    g_strlcpy(request.ifr_name, name, sizeof request.ifr_name);
    return ioctl(fd, TUNSETIFF, &request) == 0 ? 0 : errno;
}

/* Further queues, switched off until the card's pair is in use. */
static void open_queues(struct network *n, const char *name)
{
    struct ifreq off = { .ifr_flags = IFF_DETACH_QUEUE };
    unsigned count = 1;
    for (int fd; count < n->pairs; count++) {
        if ((fd = open_tun(name, NULL)) < 0)
            break;
        if (attach(fd, name, true) || ioctl(fd, TUNSETQUEUE, &off) < 0) {
            close(fd);
            break;
        }
        n->queue[count - 1] = fd;
    }
    close_vhosts(n, count);
}

/* One that was made just now: an address is for the administrator. */
static void bring_up(const char *name)
{
    struct ifreq request = { .ifr_flags = 0 };
    int socket_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    g_strlcpy(request.ifr_name, name, sizeof request.ifr_name);
    if (socket_ < 0)
        return;
    if (ioctl(socket_, SIOCGIFFLAGS, &request) == 0) {
        request.ifr_flags |= IFF_UP;
        ioctl(socket_, SIOCSIFFLAGS, &request);
    }
    close(socket_);
}

static bool open_device(struct network *n, const char *name, GError **error)
{
    const struct look look = look_at(name);
    int header = HEADER;
    if (look.exists && (!look.is_tap || look.used))
        return tap_failed(name, true, look.is_tap ? EBUSY : EINVAL, error);
    n->frames = open_tun(name, error);
    if (n->frames < 0)
        return false;
    /* One that exists has as many queues as it was made for. */
    bool several = n->pairs > 1;
    int why = attach(n->frames, name, several);
    if (why == EINVAL)
        why = attach(n->frames, name, several = !several);
    if (!why && ioctl(n->frames, TUNSETVNETHDRSZ, &header) < 0)
        why = errno;
    if (why)
        return tap_failed(name, look.exists, why, error);
    if (!look.exists)
        bring_up(name);
    if (several)
        open_queues(n, name);
    else
        close_vhosts(n, 1);
    return true;
}

bool tap_open(struct network *n, const struct nic *nic, unsigned cpus, GError **error)
{
    const char *name = nic->target;
    if (strlen(name) >= IFNAMSIZ || strpbrk(name, "/% \t"))
        return hv_fail(error, HV_USAGE, "--net tap=%s: this is no name of a device", name);
    if (open_vhosts(n, nic, MIN(cpus, NIC_PAIRS_MAX), error) && open_device(n, name, error))
        return true;
    close_vhosts(n, 0);
    return false;
}
