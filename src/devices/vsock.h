/* What the parts of virtio-vsock share (virtio 1.2 section 5.10). Everything with its lock held. */
#pragma once
#include "bus/device.h"
#include "bus/host-socket.h"
#include "bus/virtio.h"

enum {
    VSOCK_CONNECTIONS = 1024, /* in all states, */
    VSOCK_OF_HOST = 128,      /* of which the guest leaves these to the host */
    VSOCK_BUCKETS = 256,
    VSOCK_BUFFER = 256 * (int)KIB, /* what the guest may send ahead of a slow host program */
    VSOCK_SMALL_BUFFER = 16 * (int)KIB,
    VSOCK_BUFFERS = 64 * (int)MIB, /* of all connections together; beyond, they are small */
    VSOCK_IOV = 64,                /* spans of one system call */
    VSOCK_LINE = 32,               /* "CONNECT 4294967294\n" */
    VSOCK_REPLIES = 128,           /* resets of what is no connection, while the guest reads none */
    VSOCK_ANY_PORT = -1,           /* as uint32_t: VMADDR_PORT_ANY, which is no port */
};

/* struct virtio_vsock_hdr, section 5.10.6 */
struct vsock_header {
    le64 from_cid, to_cid;
    le32 from_port, to_port;
    le32 length;
    le16 type, op;
    le32 flags;
    le32 buffer, forwarded; /* buf_alloc, fwd_cnt */
};

enum vsock_op {
    VSOCK_REQUEST = 1,
    VSOCK_RESPONSE,
    VSOCK_RST,
    VSOCK_SHUTDOWN,
    VSOCK_RW,
    VSOCK_CREDIT_UPDATE,
    VSOCK_CREDIT_REQUEST,
    VSOCK_OPS,
};

/* VSOCK_SHUTDOWN's flags: the sender of the packet will do so no more. */
enum { VSOCK_NO_RECEIVE = 1, VSOCK_NO_SEND = 2, VSOCK_NEITHER = 3 };

enum connection_state {
    CONNECTION_FREE,
    CONNECTION_GREETS,   /* a host program has not said yet what it wants */
    CONNECTION_LISTENS,  /* it takes connections of the guest to host_port */
    CONNECTION_ASKS,     /* it wants guest_port, and the guest has not answered */
    CONNECTION_OPEN,     /* bytes may flow; the guest may not know yet */
    CONNECTION_DRAINS,   /* the guest is done with it; what it sent is on the way to the host */
    CONNECTION_FINISHES, /* the host is done with it; no descriptor; the guest is to say RST */
    CONNECTION_DEAD,     /* no descriptor; the guest is to be told */
};

/* A connection between a host program and the guest, or what may become one. */
struct connection {
    enum connection_state state;
    int fd; /* of the host's side; -1: closed */
    uint32_t generation;
    uint32_t host_port, guest_port;
    bool known; /* in the table of ports */
    bool of_guest;
    bool queued;            /* in `ready` */
    bool readable;          /* fd may have bytes; false: an event will tell */
    bool hung_up;           /* the other end of fd is closed */
    bool watched;           /* for room to write */
    bool asked;             /* for credit, which has not come */
    uint8_t to_send;        /* bits 1 << vsock_op */
    uint8_t host_shutdown;  /* VSOCK_NO_...: what we told the guest, or are about to */
    uint8_t guest_shutdown; /* what it told us */

    /* From the guest: what it may send, what it sent, what of it the host has, and how much of that
     * the guest knows (section 5.10.6.3). The counters wrap around. */
    uint32_t buffer, received, forwarded, told;
    /* To the guest: the same, from the other side. */
    uint32_t guest_buffer, guest_forwarded, sent;
    /* received - forwarded bytes that the host has not taken: a ring of `buffer` bytes. */
    uint8_t *held;
    uint32_t held_first;

    uint64_t deadline; /* of CONNECTION_FINISHES; TIMER_NEVER before it is told */
    char line[VSOCK_LINE];
    unsigned line_length;

    struct connection *next; /* with this hash; or the next free one */
    GList link;              /* in `ready` or `listeners` */
};

struct vsock {
    struct device dev;
    struct host_socket *socket; /* NULL: only the guest has a side */
    uint64_t cid;

    struct loop_source source; /* on an epoll of its own, so that connections come and go cheaply */
    struct timer timer;
    int epoll;
    bool paused; /* the host has no descriptors left: the listener is not looked at for a while */
    bool announce_reset; /* TRANSPORT_RESET is due on the event queue */

    unsigned limit; /* of connections: fewer where the process may have few descriptors */
    unsigned used;  /* entries that were ever used; those after them were not touched */
    unsigned in_use, of_guest;
    uint32_t buffers; /* bytes promised to the guest */
    uint32_t next_port;
    struct connection *free, *buckets[VSOCK_BUCKETS];
    GQueue ready, listeners;
    struct vsock_header replies[VSOCK_REPLIES];
    unsigned first_reply, reply_count;
    struct connection connections[VSOCK_CONNECTIONS];
};

/* --- vsock-table.c: connections, their ports and credit; no system calls ---------------------- */

void vsock_table_init(struct vsock *v);
/* A connection in the given state; NULL when there are too many. */
struct connection *vsock_new(struct vsock *v, enum connection_state state, int fd, bool of_guest);
void vsock_free(struct vsock *v, struct connection *c); /* its descriptor is closed */
struct connection *vsock_find(struct vsock *v, uint32_t host_port, uint32_t guest_port);
/* Enters it into the table of ports, with a buffer; the ports are not in use. */
void vsock_enter(struct vsock *v, struct connection *c, uint32_t host_port, uint32_t guest_port);
void vsock_forget(struct vsock *v, struct connection *c);
/* A host port for a connection to guest_port. */
uint32_t vsock_free_port(struct vsock *v, uint32_t guest_port);

uint32_t connection_held(const struct connection *c);
/* Bytes that the guest has room for, and that it thinks that we have room for. */
uint32_t connection_credit(const struct connection *c);
/* The host took `length` bytes more. */
void connection_forward(struct connection *c, uint32_t length);
/* The op of the packet that is to be sent next; 0: none. */
unsigned connection_next(const struct connection *c);
/* Appends to what is held; false without memory. There is room: the guest kept to its credit.
 * `missing` bytes were received, but are not held yet; these are the first of them. */
bool connection_hold(struct connection *c, const struct iovec *iov, unsigned count,
                     uint32_t missing);
/* What is held, as at most two spans. */
unsigned connection_spans(const struct connection *c, struct iovec iov[2]);
void connection_drop_held(struct connection *c);

/* Spans of `from` after its first `skip` bytes, at most `length` bytes and VSOCK_IOV spans of them.
 * Returns the bytes. */
size_t vsock_slice(const struct iovec *from, unsigned count, size_t skip, size_t length,
                   struct iovec *to, unsigned *used);

/* --- vsock-host.c: the host's sockets --------------------------------------------------------- */

void vsock_host_start(struct vsock *v);
/* Closes all connections; programs that listen stay. */
void vsock_host_stop(struct vsock *v);
void vsock_host_finish(struct vsock *v);
/* The pause of a host without descriptors is over. */
void vsock_host_look(struct vsock *v);
void vsock_host_close(struct connection *c);
/* The guest connects to a host port: hands a socket to who listens there. The connection, or NULL
 * when it is refused. */
struct connection *vsock_host_offer(struct vsock *v, uint32_t host_port, uint32_t guest_port);
/* The guest accepted the host's connection. */
void vsock_host_accepted(struct vsock *v, struct connection *c);
/* Bytes for the host; what it does not take now is held. */
void vsock_host_write(struct vsock *v, struct connection *c, const struct iovec *iov,
                      unsigned count, uint32_t length);
/* Bytes from the host, at most as many as the spans have. 0: none; c->readable is false, or the
 * connection has changed. */
uint32_t vsock_host_read(struct vsock *v, struct connection *c, struct iovec *iov, unsigned count);
/* The guest shut its side down, as c->guest_shutdown says. */
void vsock_host_shutdown(const struct connection *c);

/* --- virtio-vsock.c: what the others ask of it ------------------------------------------------ */

/* Something may be there to send. */
void vsock_kick(struct vsock *v, struct connection *c);
/* Ends a connection by force: the guest gets a RST; one that it never heard of is freed. */
void vsock_reset(struct vsock *v, struct connection *c);
/* Wakes the device by `deadline` (guest time). */
void vsock_wake_by(struct vsock *v, uint64_t deadline);
