/* The host's side of virtio-vsock: programs of the host on a UNIX socket of the machine.
 *
 * A program says on a new connection what it wants, in one line (Firecracker's convention, as far
 * as it goes):
 *
 *   CONNECT PORT   to connect to a port of the guest: "OK HOSTPORT" comes back, then its bytes
 *   LISTEN PORT    to have the guest's connections to a port of the host: "OK" comes back, then
 *                  for each of them a line with the guest's port, and its socket beside it
 *
 * What is refused is closed. All sockets are in an epoll of their own, which is one source of the
 * device's loop; they report edges, so that a connection costs no call but those that move bytes.
 * Nothing here waits: what a program does not take is held, up to the credit that the guest was
 * given. The socket of a machine takes programs of the same user only. */
#include "devices/vsock.h"

#include "base/fds.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 64, ACCEPTS = 16, FDS_KEPT = 256 }; /* of one turn; for the rest of the machine */
#define LISTENER UINT64_MAX                         /* what epoll says of the machine's socket */
#define REST_NS  (FDS_REST_MS * UINT64_C(1000000))

/* --- epoll ---------------------------------------------------------------------------------- */

static bool watch(struct vsock *v, struct connection *c, int op, uint32_t events)
{
    struct epoll_event event = { .events = events | EPOLLIN | EPOLLET };
    event.data.u64 = (uint64_t)c->generation << 32 | (uint32_t)(c - v->connections);
    return epoll_ctl(v->epoll, op, c->fd, &event) == 0;
}

/* For room to write as well, or not any more. What is ready already is reported again. */
static void watch_room(struct vsock *v, struct connection *c, bool on)
{
    if (c->watched != on)
        watch(v, c, EPOLL_CTL_MOD, on ? EPOLLOUT : 0);
    c->watched = on;
}

static void watch_listener(struct vsock *v, bool on)
{
    struct epoll_event event = { .events = on ? EPOLLIN : 0, .data.u64 = LISTENER };
    v->paused = !on;
    if (v->socket)
        epoll_ctl(v->epoll, EPOLL_CTL_MOD, v->socket->fd, &event);
}

void vsock_host_close(struct connection *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->forwarded = c->received;
    connection_drop_held(c);
}

static void drop(struct vsock *v, struct connection *c)
{
    vsock_host_close(c);
    vsock_free(v, c);
}

/* --- bytes ---------------------------------------------------------------------------------- */

/* The bytes sent; 0: no room. -1: the program takes no more. */
static ssize_t try_send(int fd, struct iovec *iov, unsigned count)
{
    struct msghdr message = { .msg_iov = iov, .msg_iovlen = count };
    ssize_t n;
    do
        n = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 && errno == EAGAIN ? 0 : n;
}

/* The program is done with some of it; `flags` are for the guest. */
static void host_ended(struct vsock *v, struct connection *c, uint8_t flags)
{
    c->host_shutdown |= flags;
    c->to_send |= 1 << VSOCK_SHUTDOWN;
    if (c->host_shutdown == VSOCK_NEITHER) {
        vsock_host_close(c);
        c->state = CONNECTION_FINISHES;
    }
    vsock_kick(v, c);
}

/* Nothing is held any more. */
static void drained(struct vsock *v, struct connection *c)
{
    connection_drop_held(c);
    watch_room(v, c, false);
    if (c->state == CONNECTION_DRAINS) {
        vsock_host_close(c);
        if (!c->known)
            vsock_free(v, c);
    } else if (c->guest_shutdown & VSOCK_NO_SEND) {
        shutdown(c->fd, SHUT_WR);
    }
}

/* The program takes no more bytes: what is held is for nobody. */
static void deaf(struct vsock *v, struct connection *c)
{
    connection_forward(c, connection_held(c));
    drained(v, c);
    if (c->state == CONNECTION_OPEN)
        host_ended(v, c, VSOCK_NO_RECEIVE);
}

static void flush(struct vsock *v, struct connection *c)
{
    struct iovec iov[2];
    unsigned count;
    while ((count = connection_spans(c, iov))) {
        ssize_t n = try_send(c->fd, iov, count);
        if (n < 0) {
            deaf(v, c);
            return;
        }
        if (n == 0) {
            watch_room(v, c, true);
            return;
        }
        c->held_first = (c->held_first + (uint32_t)n) % c->buffer;
        connection_forward(c, (uint32_t)n);
    }
    vsock_kick(v, c);
    drained(v, c);
}

void vsock_host_write(struct vsock *v, struct connection *c, const struct iovec *iov,
                      unsigned count, uint32_t length)
{
    struct iovec part[VSOCK_IOV];
    unsigned used;
    uint32_t done = 0;
    bool room = !c->held;
    while (done < length) {
        size_t n = vsock_slice(iov, count, done, length - done, part, &used);
        ssize_t sent = room ? try_send(c->fd, part, used) : 0;
        if (sent < 0) {
            deaf(v, c);
            return;
        }
        if (sent > 0) {
            connection_forward(c, (uint32_t)sent);
            done += (uint32_t)sent;
            continue;
        }
        room = false;
        if (!connection_hold(c, part, used, length - done)) {
            vsock_reset(v, c);
            return;
        }
        done += (uint32_t)n;
    }
    if (c->held)
        watch_room(v, c, true);
    vsock_kick(v, c);
}

uint32_t vsock_host_read(struct vsock *v, struct connection *c, struct iovec *iov, unsigned count)
{
    struct msghdr message = { .msg_iov = iov, .msg_iovlen = count };
    ssize_t n;
    do
        n = recvmsg(c->fd, &message, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        return (uint32_t)n;
    c->readable = false;
    if (n == 0)
        host_ended(v, c, c->hung_up ? VSOCK_NEITHER : VSOCK_NO_SEND);
    else if (errno != EAGAIN)
        vsock_reset(v, c);
    return 0;
}

void vsock_host_shutdown(const struct connection *c)
{
    if (c->guest_shutdown & VSOCK_NO_RECEIVE)
        shutdown(c->fd, SHUT_RD);
    if (c->guest_shutdown & VSOCK_NO_SEND && !c->held)
        shutdown(c->fd, SHUT_WR);
}

/* --- what programs want --------------------------------------------------------------------- */

static struct connection *listener_of(const struct vsock *v, uint32_t port)
{
    for (GList *l = v->listeners.head; l; l = l->next)
        if (((struct connection *)l->data)->host_port == port)
            return l->data;
    return NULL;
}

static bool say(struct connection *c, const char *text)
{
    struct iovec iov = { (void *)(uintptr_t)text, strlen(text) };
    return try_send(c->fd, &iov, 1) == (ssize_t)iov.iov_len;
}

/* "CONNECT PORT" or "LISTEN PORT"; false: neither, or it cannot be. */
static bool obey(struct vsock *v, struct connection *c)
{
    guint64 port;
    const char *space = strchr(c->line, ' ');
    if (!space || !g_ascii_string_to_unsigned(space + 1, 10, 0, UINT32_MAX - 1, &port, NULL))
        return false;
    if (g_str_has_prefix(c->line, "LISTEN ")) {
        if (listener_of(v, (uint32_t)port) || !say(c, "OK\n"))
            return false;
        c->state = CONNECTION_LISTENS;
        c->host_port = (uint32_t)port;
        g_queue_push_tail_link(&v->listeners, &c->link);
        return true;
    }
    if (!g_str_has_prefix(c->line, "CONNECT "))
        return false;
    c->state = CONNECTION_ASKS;
    vsock_enter(v, c, vsock_free_port(v, (uint32_t)port), (uint32_t)port);
    c->to_send = 1 << VSOCK_REQUEST;
    vsock_kick(v, c);
    return true;
}

/* Takes the first line and nothing behind it, which is the guest's. */
static void greet(struct vsock *v, struct connection *c)
{
    for (;;) {
        char *to = c->line + c->line_length;
        size_t room = sizeof c->line - c->line_length;
        ssize_t n = room ? recv(c->fd, to, room, MSG_PEEK | MSG_DONTWAIT) : 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return; /* there will be an edge */
        const char *end = n > 0 ? memchr(to, '\n', (size_t)n) : NULL;
        if (n > 0)
            n = recv(c->fd, to, end ? (size_t)(end - to) + 1 : (size_t)n, MSG_DONTWAIT);
        if (n <= 0) {
            drop(v, c);
            return;
        }
        c->line_length += (unsigned)n;
        if (!end)
            continue;
        c->line[c->line_length - 1] = 0;
        if (!obey(v, c))
            drop(v, c);
        return;
    }
}

void vsock_host_accepted(struct vsock *v, struct connection *c)
{
    char text[VSOCK_LINE];
    snprintf(text, sizeof text, "OK %u\n", c->host_port);
    if (!say(c, text)) {
        vsock_reset(v, c);
        return;
    }
    c->state = CONNECTION_OPEN;
    c->readable = true; /* who knows */
    vsock_kick(v, c);
}

struct connection *vsock_host_offer(struct vsock *v, uint32_t host_port, uint32_t guest_port)
{
    struct connection *listener = listener_of(v, host_port);
    int ends[2];
    char text[VSOCK_LINE];
    if (!listener || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return NULL;
    struct connection *c = vsock_new(v, CONNECTION_OPEN, ends[0], true);
    bool ok = c && watch(v, c, EPOLL_CTL_ADD, 0);
    snprintf(text, sizeof text, "%u\n", guest_port);
    ok = ok && fds_send(listener->fd, text, strlen(text), &ends[1], 1, NULL);
    close(ends[1]);
    if (ok) {
        vsock_enter(v, c, host_port, guest_port);
        return c;
    }
    if (c)
        drop(v, c);
    else
        close(ends[0]);
    return NULL;
}

/* --- events --------------------------------------------------------------------------------- */

static void accept_programs(struct vsock *v)
{
    for (unsigned i = 0; i < ACCEPTS; i++) {
        int fd = fds_accept(v->socket->fd);
        if (fd == FDS_NONE_LEFT) {
            watch_listener(v, false);
            vsock_wake_by(v, clock_now(v->dev.board->clock) + REST_NS);
        }
        if (fd < 0)
            return; /* level-triggered: who is left comes again */
        struct connection *c = vsock_new(v, CONNECTION_GREETS, fd, false);
        if (!c)
            close(fd);
        else if (!watch(v, c, EPOLL_CTL_ADD, 0))
            drop(v, c);
    }
}

/* A program that listens says nothing; it goes. */
static void hear_listener(struct vsock *v, struct connection *c)
{
    char byte;
    if (recv(c->fd, &byte, 1, MSG_DONTWAIT) >= 0 || (errno != EAGAIN && errno != EINTR))
        drop(v, c);
}

static void serve_open(struct vsock *v, struct connection *c, uint32_t events)
{
    bool read_up = c->host_shutdown & VSOCK_NO_SEND || c->guest_shutdown & VSOCK_NO_RECEIVE;
    c->readable |= c->hung_up || events & EPOLLIN;
    if (c->held)
        flush(v, c); /* may be the end of it */
    if (c->state == CONNECTION_OPEN && c->hung_up && read_up)
        host_ended(v, c, VSOCK_NEITHER);
    else if (c->state == CONNECTION_OPEN)
        vsock_kick(v, c);
}

static void serve(struct vsock *v, struct connection *c, uint32_t events)
{
    c->hung_up |= (events & (EPOLLHUP | EPOLLERR)) != 0; /* it is told once */
    if (c->state == CONNECTION_GREETS)
        greet(v, c);
    switch (c->state) {
    case CONNECTION_LISTENS:
        hear_listener(v, c);
        break;
    case CONNECTION_ASKS:
        if (c->hung_up)
            vsock_reset(v, c);
        break;
    case CONNECTION_OPEN:
    case CONNECTION_DRAINS:
        serve_open(v, c, events);
        break;
    default:
        break;
    }
}

static bool ready(struct loop_source *source, uint32_t ignored)
{
    struct vsock *v = source->opaque;
    struct epoll_event events[EVENTS];
    (void)ignored;
    int count = epoll_wait(v->epoll, events, EVENTS, 0);
    for (int i = 0; i < count; i++) {
        uint64_t who = events[i].data.u64;
        if (who == LISTENER) {
            accept_programs(v);
            continue;
        }
        struct connection *c = &v->connections[(uint32_t)who % VSOCK_CONNECTIONS];
        if (c->generation == who >> 32 && c->fd >= 0)
            serve(v, c, events[i].events);
    }
    return count == EVENTS;
}

/* --- life ----------------------------------------------------------------------------------- */

/* A guest that opens connections must not cost the machine its last descriptors. */
static unsigned limit(void)
{
    struct rlimit fds;
    if (getrlimit(RLIMIT_NOFILE, &fds) < 0)
        return VSOCK_OF_HOST;
    rlim_t most = fds.rlim_cur > 2 * FDS_KEPT ? fds.rlim_cur - FDS_KEPT : fds.rlim_cur / 2;
    return (unsigned)MIN(most, VSOCK_CONNECTIONS);
}

/* Once, for all the starts of drivers. */
static bool open_epoll(struct vsock *v)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u64 = LISTENER };
    v->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (v->epoll < 0 ||
        (v->socket && epoll_ctl(v->epoll, EPOLL_CTL_ADD, v->socket->fd, &event) < 0)) {
        log_warn(v->dev.name, "it has no host side: %s", g_strerror(errno));
        return false;
    }
    v->limit = limit();
    v->source =
        (struct loop_source){ .fd = v->epoll, .lock = &v->dev.lock, .opaque = v, .ready = ready };
    return true;
}

void vsock_host_start(struct vsock *v)
{
    if (v->epoll < 0 && !open_epoll(v))
        return;
    if (v->paused)
        watch_listener(v, true);
    loop_add(v->dev.loop, &v->source, EPOLLIN);
}

void vsock_host_look(struct vsock *v)
{
    if (v->paused)
        watch_listener(v, true);
}

void vsock_host_stop(struct vsock *v)
{
    loop_remove(&v->source);
    for (unsigned i = 0; i < v->used; i++) {
        struct connection *c = &v->connections[i];
        if (c->state != CONNECTION_FREE && c->state != CONNECTION_GREETS &&
            c->state != CONNECTION_LISTENS)
            drop(v, c);
    }
}

void vsock_host_finish(struct vsock *v)
{
    for (unsigned i = 0; i < v->used; i++)
        if (v->connections[i].state != CONNECTION_FREE)
            drop(v, &v->connections[i]);
    if (v->epoll >= 0)
        close(v->epoll);
    v->epoll = -1;
}
