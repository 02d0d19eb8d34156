/* The connections of virtio-vsock: their table, their ports, their credit (virtio 1.2 section
 * 5.10.6.3) and what is held for host programs that read slowly. No system calls. */
#include "devices/vsock.h"

#include <string.h>

enum { FIRST_HOST_PORT = 0x40000000 }; /* of connections that the host makes */

void vsock_table_init(struct vsock *v)
{
    v->limit = VSOCK_CONNECTIONS;
    v->next_port = FIRST_HOST_PORT;
    g_queue_init(&v->ready);
    g_queue_init(&v->listeners);
}

struct connection *vsock_new(struct vsock *v, enum connection_state state, int fd, bool of_guest)
{
    struct connection *c = v->free;
    unsigned limit = v->limit;
    if (v->in_use >= limit || (of_guest && v->of_guest >= limit - MIN(limit / 2, VSOCK_OF_HOST)))
        return NULL;
    if (c)
        v->free = c->next;
    else if (v->used < VSOCK_CONNECTIONS)
        c = &v->connections[v->used++];
    else
        return NULL;
    uint32_t generation = c->generation + 1;
    *c = (struct connection){
        .state = state,
        .fd = fd,
        .generation = generation,
        .of_guest = of_guest,
        .deadline = TIMER_NEVER,
        .link = { .data = c },
    };
    v->in_use++;
    v->of_guest += of_guest;
    return c;
}

void vsock_free(struct vsock *v, struct connection *c)
{
    vsock_forget(v, c);
    connection_drop_held(c);
    if (c->queued)
        g_queue_unlink(&v->ready, &c->link);
    if (c->state == CONNECTION_LISTENS)
        g_queue_unlink(&v->listeners, &c->link);
    v->in_use--;
    v->of_guest -= c->of_guest;
    v->buffers -= c->buffer;
    c->queued = false;
    c->buffer = 0;
    c->state = CONNECTION_FREE;
    c->next = v->free;
    v->free = c;
}

/* --- ports ---------------------------------------------------------------------------------- */

static struct connection **bucket(struct vsock *v, uint32_t host_port, uint32_t guest_port)
{
    uint32_t hash = (host_port ^ guest_port * 0x9e3779b1u) * 0x85ebca6bu;
    return &v->buckets[hash >> 24];
}

struct connection *vsock_find(struct vsock *v, uint32_t host_port, uint32_t guest_port)
{
    struct connection *c = *bucket(v, host_port, guest_port);
    while (c && (c->host_port != host_port || c->guest_port != guest_port))
        c = c->next;
    return c;
}

/* Large buffers for all as long as small ones remain for all that may yet come. */
static uint32_t promise(const struct vsock *v)
{
    uint32_t kept = VSOCK_CONNECTIONS * VSOCK_SMALL_BUFFER;
    return v->buffers + kept + VSOCK_BUFFER <= VSOCK_BUFFERS ? VSOCK_BUFFER : VSOCK_SMALL_BUFFER;
}

void vsock_enter(struct vsock *v, struct connection *c, uint32_t host_port, uint32_t guest_port)
{
    struct connection **first = bucket(v, host_port, guest_port);
    c->host_port = host_port;
    c->guest_port = guest_port;
    c->buffer = promise(v);
    v->buffers += c->buffer;
    c->known = true;
    c->next = *first;
    *first = c;
}

void vsock_forget(struct vsock *v, struct connection *c)
{
    struct connection **at = bucket(v, c->host_port, c->guest_port);
    if (!c->known)
        return;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    c->known = false;
}

uint32_t vsock_free_port(struct vsock *v, uint32_t guest_port)
{
    uint32_t port;
    do {
        port = v->next_port++;
        if (v->next_port == (uint32_t)VSOCK_ANY_PORT)
            v->next_port = FIRST_HOST_PORT;
    } while (vsock_find(v, port, guest_port)); /* at most as often as there are connections */
    return port;
}

/* --- credit --------------------------------------------------------------------------------- */

uint32_t connection_held(const struct connection *c)
{
    return c->received - c->forwarded;
}

uint32_t connection_credit(const struct connection *c)
{
    uint32_t flying = c->sent - c->guest_forwarded; /* a lie makes it large, and costs the guest */
    return flying < c->guest_buffer ? c->guest_buffer - flying : 0;
}

/* The guest learns of it with the next packet, or by one of its own when it may soon be stuck. */
void connection_forward(struct connection *c, uint32_t length)
{
    c->forwarded += length;
    if (c->state == CONNECTION_OPEN && c->forwarded != c->told &&
        c->received - c->told > c->buffer / 2)
        c->to_send |= 1 << VSOCK_CREDIT_UPDATE;
}

unsigned connection_next(const struct connection *c)
{
    static const uint8_t order[] = { VSOCK_RST,           VSOCK_REQUEST,
                                     VSOCK_RESPONSE,      VSOCK_RW,
                                     VSOCK_SHUTDOWN,      VSOCK_CREDIT_UPDATE,
                                     VSOCK_CREDIT_REQUEST };
    bool rw = c->state == CONNECTION_OPEN && c->readable && !(c->host_shutdown & VSOCK_NO_SEND) &&
              !(c->guest_shutdown & VSOCK_NO_RECEIVE) && connection_credit(c);
    unsigned bits = c->to_send | (unsigned)rw << VSOCK_RW;
    for (size_t i = 0; i < G_N_ELEMENTS(order); i++)
        if (bits & 1u << order[i])
            return order[i];
    return 0;
}

/* --- what is held --------------------------------------------------------------------------- */

bool connection_hold(struct connection *c, const struct iovec *iov, unsigned count,
                     uint32_t missing)
{
    if (!c->held)
        c->held = g_try_malloc(c->buffer);
    if (!c->held)
        return false;
    uint32_t end = c->held_first + connection_held(c) - missing;
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *from = iov[i].iov_base;
        for (size_t left = iov[i].iov_len; left;) {
            uint32_t at = end % c->buffer;
            size_t n = MIN(left, c->buffer - at);
            memcpy(c->held + at, from, n);
            from += n;
            left -= n;
            end += (uint32_t)n;
        }
    }
    return true;
}

unsigned connection_spans(const struct connection *c, struct iovec iov[2])
{
    uint32_t held = c->held ? connection_held(c) : 0;
    if (!held)
        return 0;
    uint32_t first = MIN(held, c->buffer - c->held_first);
    iov[0] = (struct iovec){ c->held + c->held_first, first };
    iov[1] = (struct iovec){ c->held, held - first };
    return held > first ? 2 : 1;
}

void connection_drop_held(struct connection *c)
{
    g_free(c->held);
    c->held = NULL;
    c->held_first = 0;
}

size_t vsock_slice(const struct iovec *from, unsigned count, size_t skip, size_t length,
                   struct iovec *to, unsigned *used)
{
    size_t total = 0;
    *used = 0;
    for (unsigned i = 0; i < count && total < length && *used < VSOCK_IOV; i++) {
        size_t passed = MIN(skip, from[i].iov_len);
        size_t n = MIN(from[i].iov_len - passed, length - total);
        skip -= passed;
        if (!n)
            continue;
        to[(*used)++] = (struct iovec){ (uint8_t *)from[i].iov_base + passed, n };
        total += n;
    }
    return total;
}
