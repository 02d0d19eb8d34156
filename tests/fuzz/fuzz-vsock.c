/* virtio-vsock from both sides at once: a guest that says anything, and programs of the host that
 * come, talk and go at any time. A step is a byte that says what, and one that says which. Nothing
 * may be held beyond the credit, and in the end nothing may be left. */
#include "devices/vsock.h"
#include "rig/virtio-driver.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fds.h"

enum { RX, TX, EVENT };
enum { PROGRAMS = 8, BUFFERS = 8, BUFFER = 700, PAYLOAD = 32768, STARTS = 4, CID = 3 };

struct fuzz {
    struct rig *rig;
    struct driver *driver;
    struct vsock *vsock;
    struct sockaddr_un address;
    socklen_t address_size;
    struct host_socket socket;
    const uint8_t *data;
    size_t size;
    uint64_t out;
    int programs[PROGRAMS];
    unsigned starts;
};

static uint8_t next(struct fuzz *f)
{
    uint8_t byte = f->size ? *f->data : 0;
    f->data += f->size != 0;
    f->size -= f->size != 0;
    return byte;
}

static void forget(struct fuzz *f, unsigned i)
{
    if (f->programs[i] >= 0)
        close(f->programs[i]);
    f->programs[i] = -1;
}

static void give(struct fuzz *f)
{
    struct driver_buffer buffer = { driver_room(f->driver, BUFFER), BUFFER, true };
    driver_add(f->driver, RX, &buffer, 1);
    driver_kick(f->driver, RX);
}

static void start(struct fuzz *f)
{
    if (f->starts++ == STARTS)
        return;
    if (f->driver) {
        driver_reset(f->driver);
        driver_free(f->driver);
    }
    f->driver = driver_start(f->rig, f->starts % 2 ? ~UINT64_C(0) : 0);
    f->out = driver_room(f->driver, sizeof(struct vsock_header) + PAYLOAD);
    for (unsigned i = 0; i < BUFFERS; i++)
        give(f);
}

/* --- steps ---------------------------------------------------------------------------------- */

/* Mostly sound: a header of any bytes gets nowhere. */
static void guest_speaks(struct fuzz *f, uint8_t which)
{
    uint32_t length = (uint32_t)next(f) << (which >> 5);
    uint8_t wrong = next(f), ports = next(f), flags = next(f), room = next(f), read = next(f);
    struct vsock_header header = {
        .from_cid = le64_of(wrong == 1 ? 4 : CID),
        .to_cid = le64_of(wrong == 2 ? 1 : 2),
        .from_port = le32_of(ports & 3),
        .to_port = le32_of(ports & 4 ? ports >> 4 : 0x40000000u + (ports >> 4)),
        .length = le32_of(wrong == 3 ? length + 1 : length),
        .type = le16_of(wrong == 4 ? 2 : 1),
        .op = le16_of(which & 15),
        .flags = le32_of(flags),
        .buffer = le32_of((uint32_t)room << (ports & 15)),
        .forwarded = le32_of((uint32_t)read << (ports & 7)),
    };
    struct driver_buffer parts[] = {
        { f->out, sizeof header, false },
        { f->out + sizeof header, length, false },
    };
    if (f->driver->queue[TX].left < 2)
        return;
    driver_put(f->driver, f->out, &header, sizeof header);
    driver_add(f->driver, TX, parts, length ? 2 : 1);
    driver_kick(f->driver, TX);
    loop_turn(f->rig->dev->loop);
    while (driver_used(f->driver, TX, NULL, NULL))
        continue;
}

static void guest_listens(struct fuzz *f, uint8_t which)
{
    (void)which;
    uint32_t written;
    unsigned id;
    while (driver_used(f->driver, RX, &id, &written)) {
        g_assert(written >= sizeof(struct vsock_header) && written <= BUFFER);
        if (f->driver->top + 65536 < RIG_RAM)
            give(f);
    }
}

static void program_comes(struct fuzz *f, uint8_t which)
{
    static const char *const lines[] = { "CONNECT 1\n",  "CONNECT 2\nearly", "LISTEN 1\n",
                                         "LISTEN 2\n",   "CONNECT 0",        "\n",
                                         "CONNECT 3\n2", "LISTEN x\n" };
    const char *line = lines[which / PROGRAMS % G_N_ELEMENTS(lines)];
    forget(f, which % PROGRAMS);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&f->address, f->address_size) < 0)
        close(fd);
    else
        f->programs[which % PROGRAMS] = fd;
    send(f->programs[which % PROGRAMS], line, strlen(line), MSG_NOSIGNAL);
}

static void program_writes(struct fuzz *f, uint8_t which)
{
    static const uint8_t zeroes[PAYLOAD];
    send(f->programs[which % PROGRAMS], zeroes, (size_t)next(f) << (which >> 5), MSG_NOSIGNAL);
}

/* Reads, or takes the connection that a listener is handed, in the listener's place. */
static void program_reads(struct fuzz *f, uint8_t which)
{
    g_autofree char *bytes = g_malloc(65536);
    int fd = -1;
    unsigned count = 0, i = which % PROGRAMS;
    if (f->programs[i] >= 0)
        fds_receive(f->programs[i], bytes, 65536, &fd, 1, &count, NULL);
    if (!count)
        return;
    unsigned to = which / PROGRAMS % PROGRAMS;
    forget(f, to);
    f->programs[to] = fd;
}

static void program_ends(struct fuzz *f, uint8_t which)
{
    static const int how[] = { SHUT_RD, SHUT_WR, SHUT_RDWR };
    if (which >> 6 == 3)
        forget(f, which % PROGRAMS);
    else
        shutdown(f->programs[which % PROGRAMS], how[which >> 6]);
}

static void time_passes(struct fuzz *f, uint8_t which)
{
    clock_advance(f->rig->board.clock, (uint64_t)which << 26, 100);
}

static void turns(struct fuzz *f, uint8_t which)
{
    for (unsigned i = 0; i < which % 8u; i++)
        loop_turn(f->rig->dev->loop);
}

static void restarts(struct fuzz *f, uint8_t which)
{
    if (which > 200)
        start(f);
}

/* --- the run -------------------------------------------------------------------------------- */

static void check(const struct vsock *v)
{
    unsigned used = 0;
    uint32_t buffers = 0;
    for (unsigned i = 0; i < v->used; i++) {
        const struct connection *c = &v->connections[i];
        used += c->state != CONNECTION_FREE;
        buffers += c->buffer;
        g_assert(connection_held(c) <= c->buffer || c->state == CONNECTION_FREE);
        g_assert((c->state == CONNECTION_FREE || c->fd < 0) ? !c->held : true);
        g_assert(c->state != CONNECTION_FREE || !c->queued);
    }
    g_assert(used == v->in_use && buffers == v->buffers && buffers <= VSOCK_BUFFERS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const steps[])(struct fuzz * f, uint8_t which) = {
        guest_speaks, guest_speaks, program_comes, program_writes, program_reads,  guest_listens,
        turns,        turns,        program_ends,  time_passes,    program_writes, restarts,
    };
    struct fuzz f = { .data = data, .size = MIN(size, 4096), .address.sun_family = AF_UNIX };
    f.address_size = sizeof f.address;
    f.socket.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(f.socket.fd, (struct sockaddr *)&f.address, sizeof(sa_family_t)) < 0 || /* any name */
        getsockname(f.socket.fd, (struct sockaddr *)&f.address, &f.address_size) < 0 ||
        listen(f.socket.fd, PROGRAMS) < 0)
        g_error("fuzz: no socket");
    for (unsigned i = 0; i < PROGRAMS; i++)
        f.programs[i] = -1;
    f.rig = rig_new(device_class_find("virtio-vsock"), NULL);
    f.vsock = (struct vsock *)f.rig->dev;
    device_plug(f.rig->dev, "socket", &f.socket);
    start(&f);
    while (f.size) {
        uint8_t step = next(&f), which = next(&f);
        steps[step % G_N_ELEMENTS(steps)](&f, which);
        check(f.vsock);
    }
    /* When the guest starts anew and all programs are gone, so are the connections. */
    f.starts = 0;
    f.driver->top = 0x10000;
    start(&f);
    for (unsigned i = 0; i < PROGRAMS; i++)
        forget(&f, i);
    for (unsigned i = 0; i < 8; i++) {
        driver_turn(f.driver);
        clock_advance(f.rig->board.clock, 10 * NS_PER_SECOND, 100);
        guest_listens(&f, 0);
    }
    check(f.vsock);
    g_assert(f.vsock->in_use == 0);
    driver_free(f.driver);
    rig_free(f.rig);
    close(f.socket.fd);
    return 0;
}
