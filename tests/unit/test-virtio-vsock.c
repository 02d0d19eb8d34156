/* virtio-vsock (virtio 1.2 section 5.10): both sides connect and listen, credit both ways, ends of
 * all kinds, and what a guest must not do. The guest is the rig's driver, the host a UNIX socket.
 */
#include "devices/vsock.h"
#include "rig/virtio-driver.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fds.h"

enum { RX, TX, EVENT };
enum { CID = 77, HOST = 2, RX_SIZE = 4096 + 44, RX_COUNT = 32, PAYLOAD = 65536, GUEST_PORT = 1234 };

struct fixture {
    struct rig *rig;
    struct driver *driver;
    struct vsock *vsock;
    struct sockaddr_un address;
    socklen_t address_size;
    struct host_socket socket;
    uint64_t out;                /* a header and PAYLOAD bytes */
    uint64_t in[DRIVER_ENTRIES]; /* by id: where a receive buffer is */
    uint32_t buffer, forwarded;  /* what our packets say of us */
    uint32_t from_cid, type;     /* what they say, rightly or not */
    uint8_t payload[PAYLOAD];    /* of the packet that came last */
};

static void settle(struct fixture *f)
{
    for (unsigned i = 0; i < 4; i++)
        driver_turn(f->driver);
}

static void give_buffers(struct fixture *f, unsigned count, uint32_t size)
{
    for (unsigned i = 0; i < count; i++) {
        struct driver_buffer buffer = { driver_room(f->driver, size), size, true };
        f->in[driver_add(f->driver, RX, &buffer, 1)] = buffer.at;
    }
    driver_run(f->driver, RX);
    settle(f);
}

static void begin(struct fixture *f, unsigned buffers)
{
    static const char *const options[] = { "cid", "77", NULL };
    *f = (struct fixture){ .buffer = 65536, .from_cid = CID, .type = 1 };
    f->rig = rig_new(device_class_find("virtio-vsock"), options);
    f->vsock = (struct vsock *)f->rig->dev;
    f->socket.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    f->address.sun_family = AF_UNIX;
    int n =
        snprintf(f->address.sun_path + 1, sizeof f->address.sun_path - 1, "hv-test-%d", getpid());
    f->address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (unsigned)n);
    g_assert_cmpint(bind(f->socket.fd, (struct sockaddr *)&f->address, f->address_size), ==, 0);
    g_assert_cmpint(listen(f->socket.fd, 64), ==, 0);
    device_plug(f->rig->dev, "socket", &f->socket);
    f->driver = driver_start(f->rig, ~UINT64_C(0));
    f->out = driver_room(f->driver, sizeof(struct vsock_header) + PAYLOAD);
    give_buffers(f, buffers, RX_SIZE);
}

static void end(struct fixture *f)
{
    driver_free(f->driver);
    rig_free(f->rig);
    close(f->socket.fd);
}

/* --- the host's programs -------------------------------------------------------------------- */

static int program(struct fixture *f, const char *says)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&f->address, f->address_size), ==, 0);
    g_assert_cmpint(send(fd, says, strlen(says), MSG_NOSIGNAL), ==, (ssize_t)strlen(says));
    settle(f);
    return fd;
}

static void hears(int fd, const char *text)
{
    char got[128] = "";
    g_assert_cmpint(recv(fd, got, sizeof got - 1, 0), ==, (ssize_t)strlen(text));
    g_assert_cmpstr(got, ==, text);
}

static void hears_nothing(int fd)
{
    char byte;
    g_assert_cmpint(recv(fd, &byte, 1, 0), ==, -1);
    g_assert_cmpint(errno, ==, EAGAIN);
}

static void hears_end(int fd)
{
    char byte;
    g_assert_cmpint(recv(fd, &byte, 1, 0), ==, 0);
}

static void says(struct fixture *f, int fd, const char *text)
{
    g_assert_cmpint(send(fd, text, strlen(text), MSG_NOSIGNAL), ==, (ssize_t)strlen(text));
    settle(f);
}

/* --- the guest ------------------------------------------------------------------------------ */

static void guest_packet(struct fixture *f, unsigned op, uint32_t host_port, uint32_t guest_port,
                         uint32_t flags, const void *data, uint32_t length, uint32_t told_length)
{
    struct vsock_header header = {
        .from_cid = le64_of(f->from_cid),
        .to_cid = le64_of(HOST),
        .from_port = le32_of(guest_port),
        .to_port = le32_of(host_port),
        .length = le32_of(told_length),
        .type = le16_of((uint16_t)f->type),
        .op = le16_of((uint16_t)op),
        .flags = le32_of(flags),
        .buffer = le32_of(f->buffer),
        .forwarded = le32_of(f->forwarded),
    };
    driver_put(f->driver, f->out, &header, sizeof header);
    if (length)
        driver_put(f->driver, f->out + sizeof header, data, length);
    const struct driver_buffer buffers[] = {
        { f->out, sizeof header, false },
        { f->out + sizeof header, length, false },
    };
    unsigned id = driver_add(f->driver, TX, buffers, length ? 2 : 1), back;
    uint32_t written;
    driver_run(f->driver, TX);
    settle(f);
    g_assert_true(driver_used(f->driver, TX, &back, &written));
    g_assert_cmpuint(back, ==, id);
    g_assert_cmpuint(written, ==, 0);
}

static void guest_says(struct fixture *f, unsigned op, uint32_t host_port)
{
    guest_packet(f, op, host_port, GUEST_PORT, 0, NULL, 0, 0);
}

static void guest_writes(struct fixture *f, uint32_t host_port, const void *data, uint32_t length)
{
    guest_packet(f, VSOCK_RW, host_port, GUEST_PORT, 0, data, length, length);
}

/* The next packet for the guest; its buffer goes back. False: there is none. */
static bool guest_next(struct fixture *f, struct vsock_header *header)
{
    unsigned id;
    uint32_t written;
    if (!driver_used(f->driver, RX, &id, &written))
        return false;
    g_assert_cmpuint(written, >=, sizeof *header);
    driver_get(f->driver, f->in[id], header, sizeof *header);
    g_assert_cmpuint(le32_get(header->length), ==, written - sizeof *header);
    driver_get(f->driver, f->in[id] + sizeof *header, f->payload, written - sizeof *header);
    struct driver_buffer buffer = { f->in[id], RX_SIZE, true };
    f->in[driver_add(f->driver, RX, &buffer, 1)] = buffer.at;
    driver_run(f->driver, RX);
    settle(f);
    return true;
}

static struct vsock_header guest_hears(struct fixture *f, unsigned op, uint32_t host_port)
{
    struct vsock_header header;
    g_assert_true(guest_next(f, &header));
    g_assert_cmpuint(le16_get(header.op), ==, op);
    g_assert_cmpuint(le64_get(header.from_cid), ==, HOST);
    g_assert_cmpuint(le64_get(header.to_cid), ==, CID);
    g_assert_cmpuint(le32_get(header.from_port), ==, host_port);
    g_assert_cmpuint(le32_get(header.to_port), ==, GUEST_PORT);
    g_assert_cmpuint(le16_get(header.type), ==, f->type);
    return header;
}

static void guest_hears_nothing(struct fixture *f)
{
    struct vsock_header header;
    g_assert_false(guest_next(f, &header));
}

/* A program that is connected to the guest's port; *host_port is its own. */
static int connected(struct fixture *f, uint32_t *host_port)
{
    char text[32] = "";
    int fd = program(f, "CONNECT 1234\n");
    struct vsock_header header;
    g_assert_true(guest_next(f, &header));
    g_assert_cmpuint(le16_get(header.op), ==, VSOCK_REQUEST);
    *host_port = le32_get(header.from_port);
    guest_says(f, VSOCK_RESPONSE, *host_port);
    g_assert_cmpint(recv(fd, text, sizeof text - 1, 0), >, 3);
    return fd;
}

/* A program that listens on the port, and its connection with the guest. */
static int accepted(struct fixture *f, int listener)
{
    char line[32];
    int fd;
    unsigned count;
    g_assert_cmpint(fds_receive(listener, line, sizeof line, &fd, 1, &count, NULL), ==, 5);
    g_assert_cmpuint(count, ==, 1);
    g_assert_cmpint(memcmp(line, "1234\n", 5), ==, 0);
    g_assert_cmpint(fcntl(fd, F_GETFL) & O_NONBLOCK, ==, 0); /* a program's own choice */
    fcntl(fd, F_SETFL, O_NONBLOCK);
    settle(f);
    return fd;
}

/* --- tests ---------------------------------------------------------------------------------- */

static void config(void)
{
    struct fixture f;
    begin(&f, RX_COUNT);
    g_assert_cmpuint(driver_config(f.driver, 0, 8), ==, CID);
    g_assert_cmpuint(driver_offered(f.driver) & 7, ==, 1); /* streams, no seqpacket */
    g_assert_cmpuint(rig_config_read(f.rig, 2, 2), ==, 0x1040 + 19);
    end(&f);
}

static void host_connects(void)
{
    struct fixture f;
    begin(&f, RX_COUNT);
    int fd = program(&f, "CONNECT 1234\nhello"); /* it need not wait for the answer */
    struct vsock_header header = guest_hears(&f, VSOCK_REQUEST, 0x40000000);
    g_assert_cmpuint(le32_get(header.buffer), ==, VSOCK_BUFFER);
    g_assert_cmpuint(le32_get(header.forwarded), ==, 0);
    guest_hears_nothing(&f);
    hears_nothing(fd);

    guest_says(&f, VSOCK_RESPONSE, 0x40000000);
    hears(fd, "OK 1073741824\n");
    header = guest_hears(&f, VSOCK_RW, 0x40000000);
    g_assert_cmpuint(le32_get(header.length), ==, 5);
    g_assert_cmpint(memcmp(f.payload, "hello", 5), ==, 0);

    guest_writes(&f, 0x40000000, "world", 5);
    hears(fd, "world");
    says(&f, fd, "bye");
    header = guest_hears(&f, VSOCK_RW, 0x40000000);
    g_assert_cmpuint(le32_get(header.forwarded), ==, 5); /* what the program has */

    close(fd);
    settle(&f);
    header = guest_hears(&f, VSOCK_SHUTDOWN, 0x40000000);
    g_assert_cmpuint(le32_get(header.flags), ==, VSOCK_NEITHER);
    g_assert_cmpuint(f.vsock->in_use, ==, 1);
    guest_says(&f, VSOCK_RST, 0x40000000);
    guest_hears_nothing(&f);
    g_assert_cmpuint(f.vsock->in_use, ==, 0);
    end(&f);
}

static void guest_refuses(void)
{
    struct fixture f;
    begin(&f, RX_COUNT);
    int fd = program(&f, "CONNECT 1234\n");
    guest_hears(&f, VSOCK_REQUEST, 0x40000000);
    guest_says(&f, VSOCK_RST, 0x40000000);
    hears_end(fd);
    close(fd);
    /* A program that does not wait for the answer: the guest is told. */
    fd = program(&f, "CONNECT 1234\n");
    guest_hears(&f, VSOCK_REQUEST, 0x40000001);
    close(fd);
    settle(&f);
    guest_hears(&f, VSOCK_RST, 0x40000001);
    g_assert_cmpuint(f.vsock->in_use, ==, 0);
    end(&f);
}

static void wrong_lines(void)
{
    static const char *const lines[] = {
        "CONNECT\n",
        "CONNECT \n",
        "CONNECT x\n",
        "CONNECT -1\n",
        "CONNECT 4294967295\n",
        "\n",
        "connect 1\n",
        "CONNECT 1 2\n",
        "LISTEN \n",
        "CONNECT 4294967296\n",
        "GET / HTTP/1.1 and so on and so forth, far too long",
    };
    struct fixture f;
    begin(&f, RX_COUNT);
    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++) {
        int fd = program(&f, lines[i]);
        char byte;
        bool waits = recv(fd, &byte, 1, 0) < 0 && errno == EAGAIN;
        g_assert_false(waits);
        close(fd);
    }
    guest_hears_nothing(&f);
    /* One that comes in pieces is right. */
    int fd = program(&f, "CON");
    says(&f, fd, "NECT 12");
    says(&f, fd, "34\n");
    guest_hears(&f, VSOCK_REQUEST, 0x40000000);
    close(fd);
    settle(&f);
    end(&f);
}

static void guest_connects(void)
{
    struct fixture f;
    begin(&f, RX_COUNT);
    guest_says(&f, VSOCK_REQUEST, 80);
    guest_hears(&f, VSOCK_RST, 80); /* nobody listens */

    int listener = program(&f, "LISTEN 80\n");
    hears(listener, "OK\n");
    int second = program(&f, "LISTEN 80\n");
    hears_end(second);
    close(second);

    guest_says(&f, VSOCK_REQUEST, 80);
    guest_hears(&f, VSOCK_RESPONSE, 80);
    int fd = accepted(&f, listener);
    guest_writes(&f, 80, "GET", 3);
    hears(fd, "GET");
    says(&f, fd, "200");
    guest_hears(&f, VSOCK_RW, 80);
    g_assert_cmpint(memcmp(f.payload, "200", 3), ==, 0);

    guest_packet(&f, VSOCK_SHUTDOWN, 80, GUEST_PORT, VSOCK_NEITHER, NULL, 0, 0);
    guest_hears(&f, VSOCK_RST, 80); /* section 5.10.6.5: the clean end */
    hears_end(fd);
    close(fd);

    close(listener);
    settle(&f);
    guest_says(&f, VSOCK_REQUEST, 80);
    guest_hears(&f, VSOCK_RST, 80);
    g_assert_cmpuint(f.vsock->in_use, ==, 0);
    end(&f);
}

/* The guest never gets more than it has room for. */
static void credit_to_guest(void)
{
    struct fixture f;
    uint32_t port;
    char text[1000];
    begin(&f, RX_COUNT);
    f.buffer = 100;
    int fd = connected(&f, &port);
    memset(text, 'x', sizeof text);
    g_assert_cmpint(send(fd, text, sizeof text, 0), ==, sizeof text);
    settle(&f);
    struct vsock_header header = guest_hears(&f, VSOCK_RW, port);
    g_assert_cmpuint(le32_get(header.length), ==, 100);
    guest_hears(&f, VSOCK_CREDIT_REQUEST, port);
    guest_hears_nothing(&f);
    f.forwarded = 40;
    guest_says(&f, VSOCK_CREDIT_UPDATE, port);
    header = guest_hears(&f, VSOCK_RW, port);
    g_assert_cmpuint(le32_get(header.length), ==, 40);
    guest_hears(&f, VSOCK_CREDIT_REQUEST, port);
    guest_says(&f, VSOCK_CREDIT_UPDATE, port); /* no news: not asked again */
    guest_hears_nothing(&f);
    f.forwarded = 1000000; /* more than was ever sent: as good as none */
    guest_says(&f, VSOCK_CREDIT_UPDATE, port);
    guest_hears_nothing(&f);
    f.forwarded = 140;
    f.buffer = 65536;
    guest_says(&f, VSOCK_CREDIT_UPDATE, port);
    header = guest_hears(&f, VSOCK_RW, port);
    g_assert_cmpuint(le32_get(header.length), ==, 860);
    guest_hears_nothing(&f);
    close(fd);
    settle(&f);
    end(&f);
}

static uint8_t noise(uint32_t at)
{
    return (uint8_t)((at * 2654435761u) >> 24);
}

/* Reads what is there, and compares. */
static uint32_t read_noise(int fd, uint32_t at)
{
    uint8_t bytes[4096];
    ssize_t n;
    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0)
        for (ssize_t i = 0; i < n; i++)
            g_assert_cmpuint(bytes[i], ==, noise(at++));
    return at;
}

static uint32_t write_noise(struct fixture *f, uint32_t port, uint32_t at, uint32_t length)
{
    g_autofree uint8_t *bytes = g_malloc(length);
    for (uint32_t i = 0; i < length; i++)
        bytes[i] = noise(at + i);
    guest_writes(f, port, bytes, length);
    return at + length;
}

/* What a program does not read is held, up to the credit; then it all arrives, and the guest learns
 * that there is room again. */
static void credit_from_guest(void)
{
    struct fixture f;
    struct vsock_header header;
    uint32_t port, written = 0, read = 0, forwarded = 0;
    begin(&f, RX_COUNT);
    int fd = connected(&f, &port);
    for (unsigned round = 0; round < 6; round++) {
        for (;;) {
            guest_says(&f, VSOCK_CREDIT_REQUEST, port);
            while (guest_next(&f, &header))
                forwarded = le32_get(header.forwarded);
            uint32_t room = VSOCK_BUFFER - (written - forwarded);
            if (!room)
                break;
            written = write_noise(&f, port, written, MIN(room, 50000));
        }
        g_assert_cmpuint(written, >=, read + VSOCK_BUFFER); /* and what the socket holds */
        guest_hears_nothing(&f);
        for (uint32_t before = read - 1; before != read;) {
            before = read;
            read = read_noise(fd, read);
            settle(&f);
        }
        g_assert_cmpuint(read, ==, written);
        guest_hears(&f, VSOCK_CREDIT_UPDATE, port);
        while (guest_next(&f, &header))
            g_assert_cmpuint(le16_get(header.op), ==, VSOCK_CREDIT_UPDATE);
    }
    g_assert_null(f.vsock->connections[0].held);
    close(fd);
    settle(&f);
    end(&f);
}

/* More than the credit is a violation, and ends this connection alone. */
static void credit_violation(void)
{
    struct fixture f;
    struct vsock_header header;
    uint32_t port, other_port, forwarded = 0, written = 0;
    begin(&f, RX_COUNT);
    int fd = connected(&f, &port), other = connected(&f, &other_port);
    for (;;) {
        guest_says(&f, VSOCK_CREDIT_REQUEST, port);
        while (guest_next(&f, &header))
            forwarded = le32_get(header.forwarded);
        if (written - forwarded == VSOCK_BUFFER)
            break;
        written = write_noise(&f, port, written, MIN(VSOCK_BUFFER - (written - forwarded), 60000));
    }
    guest_writes(&f, port, "x", 1);
    guest_hears(&f, VSOCK_RST, port);
    g_assert_cmpuint(read_noise(fd, 0), <=, written);
    guest_writes(&f, other_port, "fine", 4);
    hears(other, "fine");
    close(fd);
    close(other);
    end(&f);
}

static void half_closed(void)
{
    struct fixture f;
    uint32_t port;
    begin(&f, RX_COUNT);
    /* The program has said all, and listens on. */
    int fd = connected(&f, &port);
    says(&f, fd, "request");
    shutdown(fd, SHUT_WR);
    settle(&f);
    guest_hears(&f, VSOCK_RW, port);
    struct vsock_header header = guest_hears(&f, VSOCK_SHUTDOWN, port);
    g_assert_cmpuint(le32_get(header.flags), ==, VSOCK_NO_SEND);
    guest_writes(&f, port, "answer", 6);
    hears(fd, "answer");
    guest_packet(&f, VSOCK_SHUTDOWN, port, GUEST_PORT, VSOCK_NEITHER, NULL, 0, 0);
    guest_hears(&f, VSOCK_RST, port);
    hears_end(fd);
    close(fd);
    /* The guest has said all. */
    fd = connected(&f, &port);
    guest_writes(&f, port, "request", 7);
    guest_packet(&f, VSOCK_SHUTDOWN, port, GUEST_PORT, VSOCK_NO_SEND, NULL, 0, 0);
    hears(fd, "request");
    hears_end(fd);
    says(&f, fd, "answer");
    guest_hears(&f, VSOCK_RW, port);
    close(fd);
    settle(&f);
    header = guest_hears(&f, VSOCK_SHUTDOWN, port);
    g_assert_cmpuint(le32_get(header.flags), ==, VSOCK_NEITHER);
    guest_says(&f, VSOCK_RST, port);
    /* The guest wants no more: the program cannot send. */
    fd = connected(&f, &port);
    guest_packet(&f, VSOCK_SHUTDOWN, port, GUEST_PORT, VSOCK_NO_RECEIVE, NULL, 0, 0);
    g_assert_cmpint(send(fd, "x", 1, MSG_NOSIGNAL), ==, -1);
    g_assert_cmpint(errno, ==, EPIPE);
    guest_writes(&f, port, "still", 5);
    hears(fd, "still");
    close(fd);
    settle(&f);
    header = guest_hears(&f, VSOCK_SHUTDOWN, port);
    g_assert_cmpuint(le32_get(header.flags), ==, VSOCK_NEITHER);
    guest_says(&f, VSOCK_RST, port);
    g_assert_cmpuint(f.vsock->in_use, ==, 0);
    end(&f);
}

/* A guest that closes is done at once; a slow program gets everything all the same. */
static void drains(void)
{
    struct fixture f;
    struct vsock_header header;
    uint32_t port, written = 0, forwarded = 0, read = 0;
    begin(&f, RX_COUNT);
    int fd = connected(&f, &port);
    while (written - forwarded < VSOCK_BUFFER / 2) {
        written = write_noise(&f, port, written, 30000);
        guest_says(&f, VSOCK_CREDIT_REQUEST, port);
        while (guest_next(&f, &header))
            forwarded = le32_get(header.forwarded);
    }
    guest_packet(&f, VSOCK_SHUTDOWN, port, GUEST_PORT, VSOCK_NEITHER, NULL, 0, 0);
    guest_hears(&f, VSOCK_RST, port);
    guest_says(&f, VSOCK_RW, port);
    guest_hears(&f, VSOCK_RST, port); /* no such connection */
    for (uint32_t before = read - 1; before != read;) {
        before = read;
        read = read_noise(fd, read);
        settle(&f);
    }
    g_assert_cmpuint(read, ==, written);
    hears_end(fd);
    g_assert_cmpuint(f.vsock->in_use, ==, 0);
    g_assert_cmpuint(f.vsock->buffers, ==, 0);
    close(fd);
    end(&f);
}

/* Operations that are out of place end what they are about, and nothing else. */
static void misuse(void)
{
    static const struct {
        const char *what;
        unsigned op;
        uint32_t length, told, cid, type;
        bool unknown; /* no such connection */
        bool silent;  /* and no answer */
        bool survives;
    } cases[] = {
        { "no operation", 0, 0, 0, CID, 1 },
        { "an unknown operation", 8, 0, 0, CID, 1 },
        { "a large one", 0xffff, 0, 0, CID, 1 },
        { "a request twice", VSOCK_REQUEST, 0, 0, CID, 1 },
        { "an answer to nothing", VSOCK_RESPONSE, 0, 0, CID, 1 },
        { "more bytes than the packet has", VSOCK_RW, 4, 5, CID, 1 },
        { "far more", VSOCK_RW, 4, UINT32_MAX, CID, 1 },
        { "fewer are fine", VSOCK_RW, 4, 3, CID, 1, .silent = true, .survives = true },
        { "none are fine", VSOCK_RW, 0, 0, CID, 1, .silent = true, .survives = true },
        { "another's address", VSOCK_RW, 4, 4, CID + 1, 1, .survives = true },
        { "seqpacket", VSOCK_RW, 4, 4, CID, 2, .survives = true },
        { "bytes to nobody", VSOCK_RW, 4, 4, CID, 1, .unknown = true, .survives = true },
        { "credit to nobody", VSOCK_CREDIT_REQUEST, 0, 0, CID, 1, .unknown = true,
          .survives = true },
        { "the end of nothing", VSOCK_SHUTDOWN, 0, 0, CID, 1, .unknown = true, .survives = true },
        { "a reset of nothing", VSOCK_RST, 0, 0, CID, 1, .unknown = true, .silent = true,
          .survives = true },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct fixture f;
        uint32_t port;
        g_test_message("%s", cases[i].what);
        begin(&f, RX_COUNT);
        int fd = connected(&f, &port);
        uint32_t to = cases[i].unknown ? port + 1 : port;
        f.from_cid = cases[i].cid;
        f.type = cases[i].type;
        guest_packet(&f, cases[i].op, to, GUEST_PORT, 0, "abcd", cases[i].length, cases[i].told);
        if (!cases[i].silent)
            guest_hears(&f, VSOCK_RST, to);
        guest_hears_nothing(&f);
        f.from_cid = CID;
        f.type = 1;
        if (cases[i].survives) {
            says(&f, fd, "alive");
            guest_hears(&f, VSOCK_RW, port);
        } else {
            hears_end(fd);
            g_assert_cmpuint(f.vsock->in_use, ==, 0);
        }
        g_assert_cmpuint(driver_status(f.driver) & DRIVER_NEEDS_RESET, ==, 0);
        close(fd);
        end(&f);
    }
}

static void misuse_of_queues(void)
{
    struct fixture f;
    begin(&f, RX_COUNT);
    /* Less than a header: taken, and ignored. */
    struct driver_buffer stub = { f.out, 43, false };
    driver_add(f.driver, TX, &stub, 1);
    driver_run(f.driver, TX);
    g_assert_true(driver_used(f.driver, TX, NULL, NULL));
    guest_hears_nothing(&f);
    g_assert_cmpuint(driver_status(f.driver) & DRIVER_NEEDS_RESET, ==, 0);
    end(&f);
    /* Buffers in which no byte fits. */
    begin(&f, 0);
    give_buffers(&f, 1, sizeof(struct vsock_header));
    guest_says(&f, VSOCK_REQUEST, 80);
    g_assert_cmpuint(driver_status(f.driver) & DRIVER_NEEDS_RESET, !=, 0);
    driver_reset(f.driver);
    end(&f);
}

/* Without receive buffers, so many resets wait; then the guest's packets do. None is lost. */
static void flood_of_packets(void)
{
    struct fixture f;
    struct vsock_header header;
    unsigned sent = 0, taken = 0, heard = 0;
    begin(&f, 0);
    for (unsigned turn = 0; turn < 20; turn++) {
        for (unsigned i = 0; i < 16 && f.driver->queue[TX].left; i++, sent++) {
            struct vsock_header request = { le64_of(CID),       le64_of(HOST),
                                            le32_of(sent),      le32_of(9),
                                            .type = le16_of(1), .op = le16_of(VSOCK_REQUEST) };
            struct driver_buffer buffer = { driver_room(f.driver, sizeof request), sizeof request,
                                            false };
            driver_put(f.driver, buffer.at, &request, sizeof request);
            driver_add(f.driver, TX, &buffer, 1);
        }
        driver_run(f.driver, TX);
        settle(&f);
        while (driver_used(f.driver, TX, NULL, NULL))
            taken++;
    }
    g_assert_cmpuint(taken, ==, VSOCK_REPLIES);
    g_assert_cmpuint(sent, >, taken);
    give_buffers(&f, RX_COUNT, RX_SIZE);
    while (guest_next(&f, &header)) {
        g_assert_cmpuint(le16_get(header.op), ==, VSOCK_RST);
        g_assert_cmpuint(le32_get(header.to_port), ==, heard++);
    }
    while (driver_used(f.driver, TX, NULL, NULL))
        taken++;
    g_assert_cmpuint(heard, ==, sent);
    g_assert_cmpuint(taken, ==, sent);
    end(&f);
}

static void flood_of_connections(void)
{
    struct fixture f;
    struct vsock_header header;
    unsigned open = 0, refused = 0;
    begin(&f, RX_COUNT);
    int listener = program(&f, "LISTEN 80\n");
    hears(listener, "OK\n");
    f.vsock->limit = 300;
    int fds[300];
    for (uint32_t i = 0; i < 400; i++) {
        unsigned count;
        char line[32];
        guest_packet(&f, VSOCK_REQUEST, 80, 5000 + i, 0, NULL, 0, 0);
        g_assert_true(guest_next(&f, &header));
        if (le16_get(header.op) == VSOCK_RST) {
            refused++;
            continue;
        }
        g_assert_cmpuint(le16_get(header.op), ==, VSOCK_RESPONSE);
        g_assert_cmpint(fds_receive(listener, line, sizeof line, &fds[open++], 1, &count, NULL), >,
                        0);
        g_assert_cmpuint(le32_get(header.buffer), ==,
                         open <= 192 ? VSOCK_BUFFER : VSOCK_SMALL_BUFFER);
    }
    g_assert_cmpuint(open, ==, 300 - VSOCK_OF_HOST);
    g_assert_cmpuint(open + refused, ==, 400);
    uint32_t port;
    int fd = connected(&f, &port); /* the host has its share */
    guest_writes(&f, port, "here", 4);
    hears(fd, "here");
    close(fd);
    for (unsigned i = 0; i < open; i++)
        close(fds[i]);
    settle(&f);
    for (unsigned i = 0; i < open + 1; i++) {
        g_assert_true(guest_next(&f, &header));
        g_assert_cmpuint(le16_get(header.op), ==, VSOCK_SHUTDOWN);
    }
    for (uint32_t i = 0; i < 400; i++)
        guest_packet(&f, VSOCK_RST, 80, 5000 + i, 0, NULL, 0, 0);
    g_assert_cmpuint(f.vsock->in_use, ==, 2); /* the listener, and the one of the host */
    close(listener);
    end(&f);
}

/* A listener that takes no connections: the guest is refused, and nobody waits. */
static void lazy_listener(void)
{
    struct fixture f;
    struct vsock_header header = { .op = le16_of(VSOCK_RESPONSE) };
    begin(&f, RX_COUNT);
    int listener = program(&f, "LISTEN 80\n");
    for (uint32_t i = 0; i < 800 && le16_get(header.op) == VSOCK_RESPONSE; i++) {
        guest_packet(&f, VSOCK_REQUEST, 80, 5000 + i, 0, NULL, 0, 0);
        g_assert_true(guest_next(&f, &header));
    }
    g_assert_cmpuint(le16_get(header.op), ==, VSOCK_RST);
    close(listener);
    end(&f);
}

/* A guest that does not answer the end of a connection hears RST 8 seconds later. */
static void silent_guest(void)
{
    struct fixture f;
    uint32_t port;
    begin(&f, RX_COUNT);
    g_assert_false(timer_armed(&f.vsock->timer));
    int fd = connected(&f, &port);
    close(fd);
    settle(&f);
    guest_hears(&f, VSOCK_SHUTDOWN, port);
    clock_advance(f.rig->board.clock, 7 * NS_PER_SECOND, 0);
    settle(&f);
    guest_hears_nothing(&f);
    clock_advance(f.rig->board.clock, 2 * NS_PER_SECOND, 0);
    settle(&f);
    guest_hears(&f, VSOCK_RST, port);
    g_assert_cmpuint(f.vsock->in_use, ==, 0);
    g_assert_false(timer_armed(&f.vsock->timer));
    end(&f);
}

/* A program that goes without having read everything: the guest learns that it was too early. */
static void program_dies(void)
{
    struct fixture f;
    uint32_t port;
    begin(&f, RX_COUNT);
    int fd = connected(&f, &port);
    guest_writes(&f, port, "unread", 6);
    close(fd);
    settle(&f);
    guest_hears(&f, VSOCK_RST, port);
    g_assert_cmpuint(f.vsock->in_use, ==, 0);
    end(&f);
}

/* A program that is gone before it was heard leaves nothing behind. */
static void program_flees(void)
{
    static const char *const lines[] = { "", "CONN", "CONNECT 1234\n", "LISTEN 80\n" };
    struct fixture f;
    begin(&f, RX_COUNT);
    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        g_assert_cmpint(connect(fd, (struct sockaddr *)&f.address, f.address_size), ==, 0);
        send(fd, lines[i], strlen(lines[i]), MSG_NOSIGNAL);
        close(fd);
        settle(&f);
        guest_hears_nothing(&f);
        g_assert_cmpuint(f.vsock->in_use, ==, 0);
    }
    end(&f);
}

/* A host without descriptors: who comes waits for half a second, and nothing spins. */
static void no_descriptors(void)
{
    struct fixture f;
    struct rlimit before, none;
    begin(&f, RX_COUNT);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&f.address, f.address_size), ==, 0);
    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &before), ==, 0);
    none = (struct rlimit){ (rlim_t)fd + 1, before.rlim_max };
    int filler[64];
    unsigned fillers = 0;
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &none), ==, 0);
    while (fillers < 64 && (filler[fillers] = dup(fd)) >= 0)
        fillers++;
    settle(&f);
    g_assert_true(f.vsock->paused);
    g_assert_true(timer_armed(&f.vsock->timer));
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &before), ==, 0);
    fds_close(filler, fillers);
    settle(&f);
    g_assert_cmpuint(f.vsock->in_use, ==, 0);
    clock_advance(f.rig->board.clock, FDS_REST_MS * UINT64_C(1000000), 0);
    settle(&f);
    g_assert_cmpuint(f.vsock->in_use, ==, 1);
    close(fd);
    end(&f);
}

static void driver_again(void)
{
    struct fixture f;
    uint32_t port;
    begin(&f, RX_COUNT);
    int fd = connected(&f, &port), listener = program(&f, "LISTEN 80\n");
    hears(listener, "OK\n");
    driver_reset(f.driver);
    hears_end(fd);
    close(fd);
    fd = program(&f, "CONNECT 1234\n"); /* waits for the driver */
    driver_free(f.driver);
    f.driver = driver_start(f.rig, 0);
    f.out = driver_room(f.driver, sizeof(struct vsock_header) + PAYLOAD);
    give_buffers(&f, 8, RX_SIZE);
    guest_hears(&f, VSOCK_REQUEST, port + 1);
    guest_says(&f, VSOCK_REQUEST, 80);
    guest_hears(&f, VSOCK_RESPONSE, 80);
    int from_guest = accepted(&f, listener);
    close(from_guest);
    close(listener);
    close(fd);
    end(&f);
}

/* After a restore the driver is told that its connections are gone. */
static void restored(void)
{
    struct fixture f;
    begin(&f, RX_COUNT);
    struct driver_buffer buffer = { driver_room(f.driver, 16), 4, true };
    uint32_t written;
    driver_add(f.driver, EVENT, &buffer, 1);
    driver_run(f.driver, EVENT);
    settle(&f);
    g_assert_false(driver_used(f.driver, EVENT, NULL, NULL));
    g_autoptr(GByteArray) state = g_byte_array_new();
    device_save(f.rig->dev, state);
    const uint8_t *in = state->data;
    size_t length = state->len;
    g_assert_true(device_load(f.rig->dev, &in, &length, NULL));
    settle(&f);
    uint32_t id = 0xffffffff;
    g_assert_true(driver_used(f.driver, EVENT, NULL, &written));
    g_assert_cmpuint(written, ==, 4);
    driver_get(f.driver, buffer.at, &id, sizeof id);
    g_assert_cmpuint(id, ==, 0);
    /* And not again, when it starts anew. */
    driver_reset(f.driver);
    end(&f);
}

/* Without the host's socket the device is there, and refuses. */
static void alone(void)
{
    struct fixture f;
    begin(&f, RX_COUNT);
    driver_free(f.driver);
    rig_free(f.rig);
    f.rig = rig_new(device_class_find("virtio-vsock"), (const char *const[]){ "cid", "77", NULL });
    f.driver = driver_start(f.rig, ~UINT64_C(0));
    f.out = driver_room(f.driver, sizeof(struct vsock_header) + PAYLOAD);
    give_buffers(&f, 4, RX_SIZE);
    guest_says(&f, VSOCK_REQUEST, 80);
    guest_hears(&f, VSOCK_RST, 80);
    end(&f);
}

/* Bytes both ways at the same time, in pieces of all sizes, through small buffers. */
static void both_ways(void)
{
    enum { TOTAL = 2 << 20 };
    struct fixture f;
    struct vsock_header header;
    uint32_t port, to_host = 0, at_host = 0, to_guest = 0, at_guest = 0, forwarded = 0;
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    begin(&f, RX_COUNT);
    int fd = connected(&f, &port);
    while (at_host < TOTAL || at_guest < TOTAL) {
        uint8_t bytes[20000];
        uint32_t n = (uint32_t)g_rand_int_range(rand, 1, sizeof bytes);
        n = MIN(n, TOTAL - to_guest);
        for (uint32_t i = 0; i < n; i++)
            bytes[i] = noise(to_guest + i);
        ssize_t done = n ? send(fd, bytes, n, MSG_NOSIGNAL) : 0;
        to_guest += done > 0 ? (uint32_t)done : 0;
        n = (uint32_t)g_rand_int_range(rand, 1, 60000);
        n = MIN(MIN(n, TOTAL - to_host), VSOCK_BUFFER - (to_host - forwarded));
        if (n)
            to_host = write_noise(&f, port, to_host, n);
        if (g_rand_int_range(rand, 0, 3) == 0)
            at_host = read_noise(fd, at_host);
        settle(&f);
        for (unsigned i = 0; i < 8 && guest_next(&f, &header); i++) {
            forwarded = le32_get(header.forwarded);
            for (uint32_t b = 0; b < le32_get(header.length); b++)
                g_assert_cmpuint(f.payload[b], ==, noise(at_guest++));
        }
        f.forwarded = at_guest;
        guest_says(&f, VSOCK_CREDIT_UPDATE, port);
    }
    g_assert_cmpuint(at_host, ==, TOTAL);
    g_assert_cmpuint(at_guest, ==, TOTAL);
    close(fd);
    end(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-vsock/config", config);
    g_test_add_func("/virtio-vsock/host-connects", host_connects);
    g_test_add_func("/virtio-vsock/guest-refuses", guest_refuses);
    g_test_add_func("/virtio-vsock/wrong-lines", wrong_lines);
    g_test_add_func("/virtio-vsock/guest-connects", guest_connects);
    g_test_add_func("/virtio-vsock/credit-to-guest", credit_to_guest);
    g_test_add_func("/virtio-vsock/credit-from-guest", credit_from_guest);
    g_test_add_func("/virtio-vsock/credit-violation", credit_violation);
    g_test_add_func("/virtio-vsock/half-closed", half_closed);
    g_test_add_func("/virtio-vsock/drains", drains);
    g_test_add_func("/virtio-vsock/misuse", misuse);
    g_test_add_func("/virtio-vsock/misuse-of-queues", misuse_of_queues);
    g_test_add_func("/virtio-vsock/flood-of-packets", flood_of_packets);
    g_test_add_func("/virtio-vsock/flood-of-connections", flood_of_connections);
    g_test_add_func("/virtio-vsock/lazy-listener", lazy_listener);
    g_test_add_func("/virtio-vsock/silent-guest", silent_guest);
    g_test_add_func("/virtio-vsock/program-dies", program_dies);
    g_test_add_func("/virtio-vsock/program-flees", program_flees);
    g_test_add_func("/virtio-vsock/no-descriptors", no_descriptors);
    g_test_add_func("/virtio-vsock/driver-again", driver_again);
    g_test_add_func("/virtio-vsock/restored", restored);
    g_test_add_func("/virtio-vsock/alone", alone);
    g_test_add_func("/virtio-vsock/both-ways", both_ways);
    return g_test_run();
}
