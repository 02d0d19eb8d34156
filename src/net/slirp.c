/* The user-mode network; see slirp.h. Only this file knows libslirp.
 *
 * libslirp would be looked after twice a second for ever. Here that is done only as long as its
 * timers can have something to do: after the last packet or byte, until the longest of them has
 * run out; then once a minute until idle UDP sockets have been closed; then no more. */
#include "net/slirp.h"

#include "base/error.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <slirp/libslirp.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BUSY_MS = 75 * 1000,    /* the longest of its TCP timers */
    AGEING_MS = 300 * 1000, /* its UDP sockets live 240 s */
    AGEING_STEP_MS = 60 * 1000,
};

struct deadline {
    SlirpTimerCb run;
    void *opaque;
    int64_t at; /* ms; -1: not set */
};

struct slirp {
    Slirp *slirp;
    char *name;
    struct packet_sink sink;
    struct packet_flows flows;
    struct deadline timer; /* for router advertisements, the only one it has */
    GArray *fds;           /* of the caller, from slirp_net_prepare to slirp_net_work */
    guint first;           /* of ours in it */
    bool pressed;
    bool speaks_ip6; /* the guest does: it wants to be advertised to */
    bool resolved;   /* it may have said where it is: what waits for that can go */
    unsigned published, polled;
    int64_t active; /* ms: when something last happened */
    uint64_t refused;
    struct log_limit limit;
};

static int64_t now_ms(void)
{
    return g_get_monotonic_time() / 1000;
}

/* --- what libslirp calls -------------------------------------------------------------------- */

static ssize_t send_packet(const void *bytes, size_t length, void *opaque)
{
    struct slirp *net = opaque;
    /* Its own buffer, which it is done with: it may be changed. */
    packet_to_guest(&net->flows, (uint8_t *)(uintptr_t)bytes, length, &net->sink);
    return (ssize_t)length;
}

static void guest_error(const char *message, void *opaque)
{
    struct slirp *net = opaque;
    if (log_limit_pass(&net->limit, net->name))
        log_info(net->name, "%s", message);
}

static int64_t clock_ns(void *opaque)
{
    (void)opaque;
    return g_get_monotonic_time() * 1000;
}

static void *timer_new(SlirpTimerCb run, void *timer_opaque, void *opaque)
{
    struct slirp *net = opaque;
    net->timer = (struct deadline){ run, timer_opaque, -1 };
    return &net->timer;
}

static void timer_free(void *timer, void *opaque)
{
    (void)opaque;
    ((struct deadline *)timer)->at = -1;
}

static void timer_mod(void *timer, int64_t at, void *opaque)
{
    (void)opaque;
    ((struct deadline *)timer)->at = at;
}

static void ignore_fd(int fd, void *opaque)
{
    (void)fd, (void)opaque; /* slirp_net_prepare asks for all of them */
}

static void ignore_notice(void *opaque)
{
    (void)opaque; /* it is looked after when each round of packets is over */
}

static const SlirpCb callbacks = {
    .send_packet = send_packet,
    .guest_error = guest_error,
    .clock_get_ns = clock_ns,
    .timer_new = timer_new,
    .timer_free = timer_free,
    .timer_mod = timer_mod,
    .register_poll_fd = ignore_fd,
    .unregister_poll_fd = ignore_fd,
    .notify = ignore_notice,
};

/* --- life ----------------------------------------------------------------------------------- */

/* What GLib and libslirp have to say: a guest can cause it as often as it likes. */
static void log_of_library(const char *domain, GLogLevelFlags level, const char *text, void *data)
{
    struct slirp *net = data;
    (void)domain, (void)level;
    guest_error(text, net);
}

static struct in_addr address4(const char *text)
{
    struct in_addr address = { 0 };
    inet_pton(AF_INET, text, &address);
    return address;
}

static struct in6_addr address6(const char *text)
{
    struct in6_addr address = IN6ADDR_ANY_INIT;
    inet_pton(AF_INET6, text, &address);
    return address;
}

struct slirp *slirp_net_new(const char *name, bool restricted, const struct packet_sink *sink)
{
    struct slirp *net = g_new0(struct slirp, 1);
    net->name = g_strdup(name);
    net->sink = *sink;
    net->timer.at = -1;
    packet_init(&net->flows);
    g_log_set_default_handler(log_of_library, net);
    const SlirpConfig config = {
        .version = 3,
        .restricted = restricted,
        .in_enabled = true,
        .vnetwork = address4("10.0.2.0"),
        .vnetmask = address4("255.255.255.0"),
        .vhost = address4("10.0.2.2"),
        .vdhcp_start = address4("10.0.2.15"),
        .vnameserver = address4("10.0.2.3"),
        .in6_enabled = true,
        .vprefix_addr6 = address6("fec0::"),
        .vprefix_len = 64,
        .vhost6 = address6("fec0::2"),
        .vnameserver6 = address6("fec0::3"),
        .vhostname = name,
        .if_mtu = PACKET_MTU,
        .if_mru = PACKET_MTU,
    };
    net->slirp = slirp_new(&config, &callbacks, net);
    return net;
}

void slirp_net_free(struct slirp *net)
{
    slirp_cleanup(net->slirp);
    packet_finish(&net->flows);
    g_free(net->name);
    g_free(net);
}

/* --- packets -------------------------------------------------------------------------------- */

static void give(void *opaque, const struct net_header *header, const struct iovec *iov,
                 unsigned count)
{
    struct slirp *net = opaque;
    (void)header, (void)count; /* one part: packet_from_guest changes frames in place */
    slirp_input(net->slirp, iov->iov_base, (int)iov->iov_len);
}

void slirp_net_input(struct slirp *net, const struct net_header *header, uint8_t *frame,
                     size_t length)
{
    const struct packet_sink sink = { give, net };
    if (!packet_from_guest(&net->flows, *header, frame, length, &sink)) {
        net->refused++;
        return;
    }
    enum { TYPE = 12 }; /* 0x0800: IPv4, 0x0806: ARP, 0x86dd: IPv6 */
    bool ip6 = frame[TYPE] != 8, arp = !ip6 && frame[TYPE + 1];
    net->speaks_ip6 |= ip6;
    net->resolved |= ip6 || arp;
    if (!arp)
        net->active = now_ms();
}

/* --- published ports ------------------------------------------------------------------------ */

static struct sockaddr_in host_side(const struct port *port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons(port->host),
        .sin_addr = { port->address },
    };
}

/* The descriptor that the next system call which makes one will give. */
static int next_descriptor(void)
{
    int fd = eventfd(0, EFD_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd;
}

/* Libslirp listens with room for one caller, and the kernel resets others who call at that moment.
 * Does it with more room when the descriptor is the one that listens at the address, as it should.
 */
static void make_room(int fd, const struct sockaddr_in *host)
{
    enum { CALLERS = 256 };
    struct sockaddr_in at = { .sin_family = AF_UNSPEC };
    socklen_t size = sizeof at, length = sizeof(int);
    int listens = 0;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens &&
        getsockname(fd, (struct sockaddr *)&at, &size) == 0 && at.sin_family == AF_INET &&
        at.sin_port == host->sin_port)
        listen(fd, CALLERS);
}

bool slirp_net_open(struct slirp *net, const struct port *port, GError **error)
{
    struct sockaddr_in host = host_side(port);
    /* No address: the one that DHCP gives out. */
    struct sockaddr_in guest = { .sin_family = AF_INET, .sin_port = htons(port->guest) };
    char text[PORT_TEXT];
    port_format(port, text);
    int fd = next_descriptor();
    errno = 0;
    if (slirp_add_hostxfwd(net->slirp, (struct sockaddr *)&host, sizeof host,
                           (struct sockaddr *)&guest, sizeof guest,
                           port->udp ? SLIRP_HOSTFWD_UDP : 0) == 0) {
        if (!port->udp)
            make_room(fd, &host);
        net->published++;
        return true;
    }
    if (errno == EADDRINUSE)
        return hv_fail(error, HV_WRONG_STATE,
                       "port %s: another program of this host uses %s port %u already", text,
                       port->udp ? "UDP" : "TCP", port->host);
    if (errno == EACCES || errno == EPERM)
        return hv_fail(error, HV_HOST,
                       "port %s: ports below 1024 are root's on this host (sysctl "
                       "net.ipv4.ip_unprivileged_port_start); take a higher one",
                       text);
    if (errno == EADDRNOTAVAIL)
        return hv_fail(error, HV_HOST, "port %s: this host does not have that address", text);
    return hv_fail(error, HV_FAILED, "port %s: %s", text, g_strerror(errno));
}

void slirp_net_close(struct slirp *net, const struct port *port)
{
    struct sockaddr_in host = host_side(port);
    if (slirp_remove_hostxfwd(net->slirp, (struct sockaddr *)&host, sizeof host,
                              port->udp ? SLIRP_HOSTFWD_UDP : 0) == 0)
        net->published--;
}

/* --- sockets -------------------------------------------------------------------------------- */

static const struct {
    int slirp;
    short poll;
} events[] = {
    { SLIRP_POLL_IN, POLLIN },   { SLIRP_POLL_OUT, POLLOUT }, { SLIRP_POLL_PRI, POLLPRI },
    { SLIRP_POLL_ERR, POLLERR }, { SLIRP_POLL_HUP, POLLHUP },
};

static int add_poll(int fd, int wanted, void *opaque)
{
    struct slirp *net = opaque;
    struct pollfd entry = { .fd = fd };
    if (net->pressed)
        wanted &= SLIRP_POLL_OUT;
    for (size_t i = 0; i < G_N_ELEMENTS(events); i++)
        entry.events |= wanted & events[i].slirp ? events[i].poll : 0;
    if (!wanted)
        entry.fd = -1; /* poll would tell of its end again and again */
    g_array_append_val(net->fds, entry);
    net->polled++;
    return (int)net->fds->len - 1;
}

static int get_events(int index, void *opaque)
{
    const struct slirp *net = opaque;
    int got = 0;
    short found = g_array_index(net->fds, struct pollfd, index).revents;
    for (size_t i = 0; i < G_N_ELEMENTS(events); i++)
        got |= found & events[i].poll ? events[i].slirp : 0;
    return got;
}

unsigned slirp_net_sockets(const struct slirp *net)
{
    return net->polled > net->published ? net->polled - net->published : 0;
}

uint64_t slirp_net_refused(const struct slirp *net)
{
    return net->refused;
}

/* How long nothing needs to be done, given what libslirp asks for. */
static int64_t rest(const struct slirp *net, uint32_t asked)
{
    int64_t now = now_ms(), quiet = now - net->active, wait = INT64_MAX;
    if (net->active && quiet < BUSY_MS)
        wait = asked;
    else if (net->active && quiet < AGEING_MS && slirp_net_sockets(net))
        wait = AGEING_STEP_MS;
    if (net->timer.at >= 0 && net->speaks_ip6)
        wait = MIN(wait, MAX(net->timer.at - now, 0));
    return wait;
}

int slirp_net_prepare(struct slirp *net, GArray *fds, bool pressed)
{
    uint32_t asked = AGEING_STEP_MS;
    net->fds = fds;
    net->first = fds->len;
    net->pressed = pressed;
    net->polled = 0;
    slirp_pollfds_fill(net->slirp, &asked, add_poll, net);
    int64_t wait = net->resolved ? 0 : rest(net, asked);
    net->resolved = false;
    return wait == INT64_MAX ? -1 : (int)wait;
}

void slirp_net_work(struct slirp *net)
{
    for (guint i = net->first; i < net->first + net->polled; i++)
        if (g_array_index(net->fds, struct pollfd, i).revents) {
            net->active = now_ms();
            break;
        }
    if (net->timer.at >= 0 && net->speaks_ip6 && net->timer.at <= now_ms()) {
        net->timer.at = -1;
        net->timer.run(net->timer.opaque);
    }
    slirp_pollfds_poll(net->slirp, 0, get_events, net);
}
