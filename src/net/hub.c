/* A switch between machines; see hub.h. It learns where addresses are from the packets' sources
 * (IEEE 802.1D section 7.8). A machine that does not read loses packets, as on a wire, and keeps
 * nobody else from theirs. */
#include "net/hub.h"

#include "base/fds.h"
#include "net/net.h"
#include "net/outbox.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CLIENTS = 64,
    STATIONS = 1024, /* places for addresses */
    BATCH = 32,      /* packets of one machine before the next has its turn */
    FIRST_MS = 5000, /* for the first machine to come */
};

struct station {
    uint8_t address[6];
    uint8_t client; /* + 1; 0: free */
};

struct hub {
    int listener, folder;
    const char *path;
    unsigned count;
    bool resting;                   /* no descriptors are left */
    struct outbox clients[CLIENTS]; /* fd -1: free */
    struct station stations[STATIONS];
    uint8_t packet[NET_PACKET_MAX];
};

static struct station *station_of(struct hub *hub, const uint8_t *address)
{
    uint32_t hash = 0;
    for (unsigned i = 0; i < 6; i++)
        hash = hash * 31 + address[i];
    return &hub->stations[hash % STATIONS];
}

static void leave(struct hub *hub, unsigned client)
{
    close(hub->clients[client].fd);
    outbox_finish(&hub->clients[client]);
    hub->clients[client].fd = -1;
    hub->count--;
    for (unsigned i = 0; i < STATIONS; i++)
        if (hub->stations[i].client == client + 1)
            hub->stations[i].client = 0;
}

/* All who wait: what is said from now on, they hear. */
static void greet(struct hub *hub)
{
    int fd;
    while ((fd = fds_accept(hub->listener)) >= 0) {
        unsigned place = 0;
        while (place < CLIENTS && hub->clients[place].fd >= 0)
            place++;
        if (place == CLIENTS) {
            close(fd);
            continue;
        }
        outbox_init(&hub->clients[place], fd);
        hub->count++;
    }
    hub->resting = fd == FDS_NONE_LEFT;
}

/* A packet of a client, to the client where its target is or, when that is unknown or many, to all
 * others. */
static void forward(struct hub *hub, unsigned from, size_t length)
{
    const uint8_t *target = hub->packet + sizeof(struct net_header), *source = target + 6;
    if (length < sizeof(struct net_header) + NET_ETHERNET || source[0] & 1)
        return;
    struct station *own = station_of(hub, source);
    memcpy(own->address, source, sizeof own->address);
    own->client = (uint8_t)(from + 1);
    const struct station *there = station_of(hub, target);
    bool known = there->client && !memcmp(there->address, target, sizeof there->address);
    const struct iovec packet = { hub->packet, length };
    for (unsigned i = 0; i < CLIENTS; i++)
        if (hub->clients[i].fd >= 0 && i != from && (!known || there->client == i + 1))
            outbox_put(&hub->clients[i], &packet, 1);
}

/* False when the client has gone. */
static bool listen_to(struct hub *hub, unsigned client, short events)
{
    for (unsigned i = 0; i < BATCH; i++) {
        ssize_t n = recv(hub->clients[client].fd, hub->packet, sizeof hub->packet,
                         MSG_DONTWAIT | MSG_TRUNC);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        if (n == 0 && events & POLLHUP)
            return false;
        if (n <= (ssize_t)sizeof hub->packet)
            forward(hub, client, (size_t)n);
    }
    return true;
}

/* Whether nobody is left. Who is about to connect holds the lock: then not yet. */
static bool ended(struct hub *hub)
{
    struct pollfd waiting = { .fd = hub->listener, .events = POLLIN };
    if (hub->count || flock(hub->folder, LOCK_EX | LOCK_NB) < 0)
        return false;
    bool last = poll(&waiting, 1, 0) == 0;
    if (last)
        unlink(hub->path);
    flock(hub->folder, LOCK_UN);
    return last;
}

static void turn(struct hub *hub, int timeout)
{
    struct pollfd fds[CLIENTS + 1];
    for (unsigned i = 0; i < CLIENTS; i++) {
        const struct outbox *c = &hub->clients[i];
        short events = c->fd >= 0 && c->count ? POLLIN | POLLOUT : POLLIN;
        fds[i] = (struct pollfd){ .fd = c->fd, .events = events };
    }
    fds[CLIENTS] = (struct pollfd){ .fd = hub->resting ? -1 : hub->listener, .events = POLLIN };
    hub->resting = false;
    if (poll(fds, CLIENTS + 1, timeout) < 0)
        return;
    if (fds[CLIENTS].revents)
        greet(hub);
    for (unsigned i = 0; i < CLIENTS; i++) {
        if (hub->clients[i].fd >= 0 && fds[i].revents & POLLOUT)
            hub->clients[i].blocked = false;
        if (hub->clients[i].fd >= 0 && fds[i].revents & ~POLLOUT &&
            !listen_to(hub, i, fds[i].revents))
            leave(hub, i);
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        if (hub->clients[i].fd >= 0 && hub->clients[i].count && !hub->clients[i].blocked)
            outbox_flush(&hub->clients[i]);
}

void hub_serve(int listener, int folder, const char *path)
{
    struct hub *hub = g_new0(struct hub, 1);
    *hub = (struct hub){ .listener = listener, .folder = folder, .path = path };
    for (unsigned i = 0; i < CLIENTS; i++)
        hub->clients[i].fd = -1;
    turn(hub, FIRST_MS);
    while (!ended(hub))
        turn(hub, hub->count ? hub->resting ? FDS_REST_MS : -1 : FDS_REST_MS);
    g_free(hub);
}
