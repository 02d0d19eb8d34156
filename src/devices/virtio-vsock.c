/* virtio-vsock: streams between programs of the guest and of the host (virtio 1.2 section 5.10).
 *
 * The guest has an address (CID) of its own, the host is 2; both sides connect and listen on ports.
 * The packets are here, the connections in vsock-table.c, the host's programs in vsock-host.c. All
 * of it runs on the device's loop, from DRIVER_OK to reset. What flows in either direction is
 * bounded by credit: nothing is read from the host that the guest has no room for, and what the
 * guest sends ahead of a slow program is held. Connections are not saved: after a restore the
 * driver is told so (TRANSPORT_RESET).
 *
 * Only streams are offered, no SOCK_SEQPACKET. */
#include "devices/vsock.h"

enum { ID = 19, COMMUNICATION_OTHER = 0x078000, HOST_CID = 2, STREAM = 1, FEATURE_STREAM = 0 };
enum { RX, TX, EVENT, QUEUES }; /* section 5.10.2 */
enum { CONFIG_SIZE = 8, TRANSPORT_RESET = 0 };
enum {
    PACKET_MAX = 64 * (int)KIB, /* bytes to the guest at once, so that others have their turn */
    TURN_MAX = (int)MIB,        /* bytes from the guest in one turn */
};
#define FINISH_NS (8 * NS_PER_SECOND) /* for the guest to agree to an end */
#define SLACK_NS  (NS_PER_SECOND / 10)

static struct vsock *vsock_of(struct device *dev)
{
    return (struct vsock *)dev;
}

/* --- what the other parts ask --------------------------------------------------------------- */

void vsock_kick(struct vsock *v, struct connection *c)
{
    bool blocked = c->state == CONNECTION_OPEN && c->readable && !connection_credit(c);
    if (blocked && !c->asked) {
        c->asked = true;
        c->to_send |= 1 << VSOCK_CREDIT_REQUEST;
    }
    if (c->queued || !connection_next(c))
        return;
    c->queued = true;
    g_queue_push_tail_link(&v->ready, &c->link);
    virtio_wake(&v->dev, RX);
}

/* The guest is to hear RST, and nothing else. */
static void end_with_reset(struct vsock *v, struct connection *c, enum connection_state state)
{
    c->state = state;
    c->to_send = 1 << VSOCK_RST;
    vsock_kick(v, c);
}

void vsock_reset(struct vsock *v, struct connection *c)
{
    vsock_host_close(c);
    if (c->state == CONNECTION_ASKS && c->to_send & 1 << VSOCK_REQUEST)
        vsock_free(v, c);
    else
        end_with_reset(v, c, CONNECTION_DEAD);
}

void vsock_wake_by(struct vsock *v, uint64_t deadline)
{
    if (!timer_armed(&v->timer) || deadline < v->timer.deadline)
        timer_set(&v->timer, deadline);
}

/* Those that did not agree to their end in time are reset. */
static void timed_out(void *owner)
{
    struct vsock *v = owner;
    uint64_t now = device_now(&v->dev), next = TIMER_NEVER;
    for (unsigned i = 0; i < v->used; i++) {
        struct connection *c = &v->connections[i];
        if (c->state != CONNECTION_FINISHES || c->deadline == TIMER_NEVER)
            continue;
        if (c->deadline <= now + SLACK_NS)
            vsock_reset(v, c);
        else
            next = MIN(next, c->deadline);
    }
    vsock_host_look(v);
    if (next != TIMER_NEVER)
        timer_set(&v->timer, next);
}

/* --- to the guest --------------------------------------------------------------------------- */

/* Packets that belong to no connection are resets, which wait in a ring of their own. While it is
 * full, no packet is taken from the guest (section 5.10.6.1.2). */
static void reply_reset(struct vsock *v, const struct vsock_header *to)
{
    unsigned at = (v->first_reply + v->reply_count) % VSOCK_REPLIES;
    if (le16_get(to->op) == VSOCK_RST || v->reply_count == VSOCK_REPLIES)
        return;
    v->reply_count++;
    v->replies[at] = (struct vsock_header){
        .from_cid = to->to_cid,
        .to_cid = le64_of(v->cid),
        .from_port = to->to_port,
        .to_port = to->from_port,
        .type = to->type,
        .op = le16_of(VSOCK_RST),
    };
    virtio_wake(&v->dev, RX);
}

static uint32_t send_reply(struct vsock *v, struct chain *chain)
{
    chain_write(chain, &v->replies[v->first_reply], sizeof v->replies[0]);
    v->first_reply = (v->first_reply + 1) % VSOCK_REPLIES;
    if (v->reply_count-- == VSOCK_REPLIES)
        virtio_wake(&v->dev, TX);
    return sizeof v->replies[0];
}

/* What the sending of a packet means for its connection. False: it is no more. */
static bool sent(struct vsock *v, struct connection *c, unsigned op)
{
    c->told = c->forwarded;
    c->to_send &= (uint8_t) ~(1u << op | 1u << VSOCK_CREDIT_UPDATE);
    if (op == VSOCK_SHUTDOWN && c->state == CONNECTION_FINISHES) {
        c->deadline = device_now(&v->dev) + FINISH_NS;
        vsock_wake_by(v, c->deadline);
    }
    if (op != VSOCK_RST)
        return true;
    vsock_forget(v, c);
    if (c->fd >= 0)
        return true; /* it drains */
    vsock_free(v, c);
    return false;
}

/* The bytes of a packet of the connection, put into the chain; 0: there was none after all. */
static uint32_t send_packet(struct vsock *v, struct connection *c, unsigned op, struct chain *chain)
{
    uint32_t length = 0;
    if (op == VSOCK_RW) {
        struct iovec iov[VSOCK_IOV];
        unsigned count;
        size_t room = MIN((size_t)PACKET_MAX, connection_credit(c));
        vsock_slice(chain->in, chain->in_count, sizeof(struct vsock_header), room, iov, &count);
        length = vsock_host_read(v, c, iov, count);
        if (!length)
            return 0;
        for (uint32_t left = length, i = 0; left; i++) {
            uint32_t n = (uint32_t)MIN(left, iov[i].iov_len);
            guest_host_written(v->dev.board->guest, iov[i].iov_base, n);
            left -= n;
        }
        c->sent += length;
    }
    struct vsock_header header = {
        .from_cid = le64_of(HOST_CID),
        .to_cid = le64_of(v->cid),
        .from_port = le32_of(c->host_port),
        .to_port = le32_of(c->guest_port),
        .length = le32_of(length),
        .type = le16_of(STREAM),
        .op = le16_of((uint16_t)op),
        .flags = le32_of(op == VSOCK_SHUTDOWN ? c->host_shutdown : 0),
        .buffer = le32_of(c->buffer),
        .forwarded = le32_of(c->forwarded),
    };
    chain_write(chain, &header, sizeof header);
    return (uint32_t)sizeof header + length;
}

/* One packet of those that are due, the connections taking turns. */
static uint32_t send_next(struct vsock *v, struct chain *chain)
{
    if (v->reply_count)
        return send_reply(v, chain);
    while (v->ready.head) {
        struct connection *c = v->ready.head->data;
        unsigned op = connection_next(c);
        uint32_t length = op ? send_packet(v, c, op, chain) : 0;
        if (op && !length)
            continue; /* something else is due now */
        g_queue_unlink(&v->ready, &c->link);
        c->queued = false;
        if (length && sent(v, c, op))
            vsock_kick(v, c);
        if (length)
            return length;
    }
    return 0;
}

static bool serve_rx(struct vsock *v)
{
    struct virtqueue *queue = virtio_queue(&v->dev, RX);
    bool more = false;
    for (unsigned i = 0; i < VIRTQUEUE_BATCH; i++) {
        more = v->reply_count || v->ready.head;
        struct chain *chain = more ? virtqueue_pop(queue) : NULL;
        if (!chain) {
            more = false; /* without buffers, the driver's next ones bring us back */
            break;
        }
        if (chain->in_bytes <= sizeof(struct vsock_header)) {
            virtqueue_push(chain, 0);
            virtio_broken(&v->dev, "a receive buffer has no room for a packet");
            return false;
        }
        uint32_t length = send_next(v, chain);
        if (length)
            virtqueue_push(chain, length);
        else
            virtqueue_unpop(chain);
    }
    virtqueue_flush(queue);
    return more;
}

/* --- from the guest ------------------------------------------------------------------------- */

static void on_request(struct vsock *v, const struct vsock_header *header)
{
    uint32_t host_port = le32_get(header->to_port), guest_port = le32_get(header->from_port);
    struct connection *c = vsock_host_offer(v, host_port, guest_port);
    if (!c) {
        reply_reset(v, header);
        return;
    }
    c->guest_buffer = le32_get(header->buffer);
    c->guest_forwarded = le32_get(header->forwarded);
    c->to_send = 1 << VSOCK_RESPONSE;
    vsock_kick(v, c);
}

static void on_response(struct vsock *v, struct connection *c, const struct vsock_header *header,
                        struct chain *chain)
{
    (void)header, (void)chain;
    vsock_host_accepted(v, c);
}

static void on_rst(struct vsock *v, struct connection *c, const struct vsock_header *header,
                   struct chain *chain)
{
    (void)header, (void)chain;
    if (c->state == CONNECTION_DRAINS && c->fd >= 0) {
        c->to_send = 0; /* it needs no answer */
        vsock_forget(v, c);
        return;
    }
    vsock_host_close(c);
    vsock_free(v, c);
}

static void on_shutdown(struct vsock *v, struct connection *c, const struct vsock_header *header,
                        struct chain *chain)
{
    (void)chain;
    c->guest_shutdown |= le32_get(header->flags) & VSOCK_NEITHER;
    if (c->state == CONNECTION_OPEN)
        vsock_host_shutdown(c);
    if (c->guest_shutdown != VSOCK_NEITHER)
        return;
    if (c->held) {
        end_with_reset(v, c, CONNECTION_DRAINS);
    } else {
        vsock_host_close(c);
        end_with_reset(v, c, CONNECTION_DEAD);
    }
}

static void on_rw(struct vsock *v, struct connection *c, const struct vsock_header *header,
                  struct chain *chain)
{
    uint32_t length = le32_get(header->length);
    if (length > chain->out_bytes || length > c->buffer - connection_held(c) ||
        c->guest_shutdown & VSOCK_NO_SEND) {
        guest_bug(&v->dev, "%u bytes on port %u, which has room for %u", length, c->guest_port,
                  c->buffer - connection_held(c));
        vsock_reset(v, c);
        return;
    }
    c->received += length;
    if (c->state == CONNECTION_OPEN && !(c->host_shutdown & VSOCK_NO_RECEIVE))
        vsock_host_write(v, c, chain->out, chain->out_count, length);
    else
        connection_forward(c, length); /* to nobody */
}

static void on_credit_update(struct vsock *v, struct connection *c,
                             const struct vsock_header *header, struct chain *chain)
{
    (void)v, (void)c, (void)header, (void)chain; /* every packet is one */
}

static void on_credit_request(struct vsock *v, struct connection *c,
                              const struct vsock_header *header, struct chain *chain)
{
    (void)v, (void)header, (void)chain;
    c->to_send |= 1 << VSOCK_CREDIT_UPDATE;
}

/* What a guest may say to a connection, and in which states. */
enum {
    ASKS = 1 << CONNECTION_ASKS,
    LIVES = 1 << CONNECTION_OPEN | 1 << CONNECTION_FINISHES,
    ANY = ASKS | LIVES | 1 << CONNECTION_DRAINS | 1 << CONNECTION_DEAD,
};
static const struct {
    unsigned states;
    void (*run)(struct vsock *v, struct connection *c, const struct vsock_header *header,
                struct chain *chain);
} ops[VSOCK_OPS] = {
    [VSOCK_RESPONSE] = { ASKS, on_response },
    [VSOCK_RST] = { ANY, on_rst },
    [VSOCK_SHUTDOWN] = { LIVES, on_shutdown },
    [VSOCK_RW] = { LIVES, on_rw },
    [VSOCK_CREDIT_UPDATE] = { LIVES, on_credit_update },
    [VSOCK_CREDIT_REQUEST] = { LIVES, on_credit_request },
};

static void take_op(struct vsock *v, struct connection *c, const struct vsock_header *header,
                    struct chain *chain)
{
    unsigned op = le16_get(header->op);
    c->guest_buffer = le32_get(header->buffer);
    c->guest_forwarded = le32_get(header->forwarded);
    if (connection_credit(c))
        c->asked = false;
    if (op < VSOCK_OPS && ops[op].states & 1u << c->state) {
        ops[op].run(v, c, header, chain);
    } else if (!(c->to_send & 1 << VSOCK_RST)) { /* else its end is on the way */
        guest_bug(&v->dev, "operation %u on port %u is out of place", op, c->guest_port);
        vsock_reset(v, c);
    }
    if (c->state == CONNECTION_OPEN)
        vsock_kick(v, c);
}

static void take_packet(struct vsock *v, const struct vsock_header *header, struct chain *chain)
{
    bool ours = le64_get(header->from_cid) == v->cid && le64_get(header->to_cid) == HOST_CID;
    if (!ours || le16_get(header->type) != STREAM) {
        guest_bug(&v->dev,
                  "a packet of type %u from %" G_GINT64_MODIFIER "u to %" G_GINT64_MODIFIER "u",
                  le16_get(header->type), le64_get(header->from_cid), le64_get(header->to_cid));
        reply_reset(v, header);
        return;
    }
    struct connection *c = vsock_find(v, le32_get(header->to_port), le32_get(header->from_port));
    if (c)
        take_op(v, c, header, chain);
    else if (le16_get(header->op) == VSOCK_REQUEST)
        on_request(v, header);
    else
        reply_reset(v, header);
}

static bool serve_tx(struct vsock *v)
{
    struct virtqueue *queue = virtio_queue(&v->dev, TX);
    unsigned taken = 0;
    uint64_t bytes = 0;
    struct chain *chain;
    while (taken < VIRTQUEUE_BATCH && bytes < TURN_MAX && v->reply_count < VSOCK_REPLIES &&
           (chain = virtqueue_pop(queue))) {
        struct vsock_header header;
        if (chain_read(chain, &header, sizeof header))
            take_packet(v, &header, chain);
        else
            guest_bug(&v->dev, "a packet without a header");
        taken++;
        bytes += chain->out_bytes;
        virtqueue_push(chain, 0);
    }
    virtqueue_flush(queue);
    return v->reply_count < VSOCK_REPLIES && virtqueue_pending(queue);
}

/* --- events --------------------------------------------------------------------------------- */

/* Section 5.10.6.7: the driver gives its connections up, and reads its CID again. */
static bool serve_event(struct vsock *v)
{
    struct virtqueue *queue = virtio_queue(&v->dev, EVENT);
    le32 id = le32_of(TRANSPORT_RESET);
    struct chain *chain = v->announce_reset ? virtqueue_pop(queue) : NULL;
    if (!chain)
        return false;
    v->announce_reset = !chain_write(chain, &id, sizeof id);
    virtqueue_push(chain, chain->written);
    virtqueue_flush(queue);
    return v->announce_reset && virtqueue_pending(queue);
}

/* --- the class ------------------------------------------------------------------------------ */

static const struct virtio_queue_class *vsock_queue(struct device *dev, unsigned index)
{
    /* What is in TX may have to wait as well: for room for replies. */
    static const struct virtio_queue_class queues[QUEUES] = {
        [RX] = { "rx", 256, .waits = true },
        [TX] = { "tx", 256, .waits = true },
        [EVENT] = { "event", 16, .waits = true },
    };
    (void)dev;
    return &queues[index];
}

static void vsock_config_read(struct device *dev, uint8_t *config)
{
    uint64_t cid = vsock_of(dev)->cid;
    for (unsigned i = 0; i < CONFIG_SIZE; i++)
        config[i] = (uint8_t)(cid >> 8 * i);
}

static void vsock_start(struct device *dev)
{
    vsock_host_start(vsock_of(dev));
    virtio_wake(dev, EVENT);
}

static bool vsock_serve(struct device *dev, unsigned index)
{
    struct vsock *v = vsock_of(dev);
    return index == RX ? serve_rx(v) : index == TX ? serve_tx(v) : serve_event(v);
}

static void vsock_stop(struct device *dev, uint32_t index)
{
    struct vsock *v = vsock_of(dev);
    if (index != VIRTIO_ANY)
        return; /* no chain is ever kept, and the connections live on */
    vsock_host_stop(v);
    timer_cancel(&v->timer);
    v->first_reply = v->reply_count = 0;
    v->announce_reset = false;
}

static bool vsock_init(struct device *dev, GError **error)
{
    struct vsock *v = vsock_of(dev);
    (void)error;
    v->epoll = -1;
    vsock_table_init(v);
    timer_init(&v->timer, dev->board->clock, &dev->lock, timed_out, v);
    return true;
}

static void vsock_loaded(struct device *dev)
{
    vsock_of(dev)->announce_reset = true;
    virtio_wake(dev, EVENT);
}

static void vsock_finish(struct device *dev)
{
    struct vsock *v = vsock_of(dev);
    if (!v->limit)
        return; /* it never started */
    vsock_host_finish(v);
    timer_finish(&v->timer);
}

static const struct virtio_class vsock_virtio = {
    .id = ID,
    .queues = QUEUES,
    .config_size = CONFIG_SIZE,
    .features = UINT64_C(1) << FEATURE_STREAM,
    .queue = vsock_queue,
    .config_read = vsock_config_read,
    .start = vsock_start,
    .serve = vsock_serve,
    .stop = vsock_stop,
};

const struct device_class virtio_vsock_class = {
    .name = "virtio-vsock",
    .help = "streams between programs of the guest and the host",
    .size = sizeof(struct vsock),
    .regions = virtio_regions,
    .options =
        (const struct option[]){
            { "cid", "the guest's address", OPTION_UINT, offsetof(struct vsock, cid), "3", 3,
              UINT32_MAX - 1 },
            VIRTIO_OPTION_PACKED,
            { .name = NULL },
        },
    .plugs =
        (const struct plug[]){
            { "socket", PLUG_SOCKET, offsetof(struct vsock, socket) },
            { .name = NULL },
        },
    .state = { .name = "virtio-vsock", .version = 1 },
    .pci = VIRTIO_PCI(ID, COMMUNICATION_OTHER),
    .virtio = &vsock_virtio,
    .flags = CLASS_LOOP,
    .init = vsock_init,
    .loaded = vsock_loaded,
    .finish = vsock_finish,
};
