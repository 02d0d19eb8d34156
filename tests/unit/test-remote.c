/* Disks on a server, with a peer that is hv-remote as it should be, or anything else. */
#include "base/error.h"
#include "base/fds.h"
#include "base/log.h"
#include "base/remote-protocol.h"
#include "block/raw.h"
#include "block/remote.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SIZE = 3 << 20, MANY = 200 };

/* What the peer does with the next request. */
enum manner {
    WELL,
    BACKWARDS, /* collects what comes, and answers the last first */
    SILENT,
    WRONG_ID,
    WRONG_SLOT,
    FREE_SLOT, /* of a request that is not in flight */
    TWICE,
    SHORT,
    LONG,
    NEGATIVE,
    STRANGE_ERROR,
    NO_ROOM,
    DIES,
};

struct peer {
    int socket;
    GThread *thread;
    struct remote_hello hello;
    size_t hello_length;
    atomic_int manner;    /* of enum manner */
    uint8_t *area, *data; /* data: SIZE + 512 bytes */
    unsigned requests[REMOTE_GIVE_UP + 1];
    uint64_t longest;
};

static void answer(const struct peer *peer, const struct remote_request *request, int error)
{
    uint8_t bytes[64] = { 0 };
    struct remote_reply reply = { request->id, request->slot, error };
    size_t length = sizeof reply;
    switch ((enum manner)peer->manner) {
    case WRONG_ID:
        reply.id += 1000;
        break;
    case WRONG_SLOT:
        reply.slot = UINT32_MAX;
        break;
    case FREE_SLOT:
        reply.slot = REMOTE_SLOTS - 1;
        break;
    case SHORT:
        length--;
        break;
    case LONG:
        length++;
        break;
    case NEGATIVE:
        reply.error = -EIO;
        break;
    case STRANGE_ERROR:
        reply.error = INT32_MAX;
        break;
    case NO_ROOM:
        reply.error = ENOSPC;
        break;
    default:
        break;
    }
    memcpy(bytes, &reply, sizeof reply);
    for (unsigned i = 0; i < (peer->manner == TWICE ? 2 : 1); i++)
        g_assert_cmpint(send(peer->socket, bytes, length, MSG_NOSIGNAL), ==, (ssize_t)length);
}

static void carry_out(struct peer *peer, const struct remote_request *request)
{
    uint8_t *slot = peer->area + (size_t)request->slot * REMOTE_SLOT;
    uint64_t end = request->offset + request->length;
    bool data = request->op == REMOTE_READ || request->op == REMOTE_WRITE;
    g_assert_cmpuint(request->slot, <, REMOTE_SLOTS);
    g_assert_cmpuint(request->offset % 512, ==, 0);
    g_assert_cmpuint(end, <=, peer->hello.size);
    g_assert_true(request->length % 512 == 0 || end == peer->hello.size);
    g_assert_cmpuint(request->length, <=, data ? REMOTE_SLOT : REMOTE_RANGE);
    peer->longest = MAX(peer->longest, request->length);
    if (request->op == REMOTE_READ)
        memcpy(slot, peer->data + request->offset, request->length);
    if (request->op == REMOTE_WRITE)
        memcpy(peer->data + request->offset, slot, request->length);
    if (request->op == REMOTE_ZERO)
        memset(peer->data + request->offset, 0, request->length);
}

static bool open_area(struct peer *peer)
{
    struct remote_request request;
    int fd = -1;
    unsigned count = 0;
    if (fds_receive(peer->socket, &request, sizeof request, &fd, 1, &count, NULL) !=
        (ssize_t)sizeof request)
        return false;
    g_assert_cmpuint(request.op, ==, REMOTE_OPEN);
    g_assert_cmpuint(count, ==, 1);
    g_assert_cmpint(fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK, !=, 0);
    peer->area = mmap(NULL, REMOTE_AREA, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    g_assert_true(peer->area != MAP_FAILED);
    close(fd);
    return send(peer->socket, &peer->hello, peer->hello_length, MSG_NOSIGNAL) > 0;
}

static gpointer serve(gpointer data)
{
    struct peer *peer = data;
    struct remote_request request, all[REMOTE_SLOTS];
    unsigned kept = 0;
    bool open = open_area(peer);
    while (open && recv(peer->socket, &request, sizeof request, 0) == (ssize_t)sizeof request) {
        g_assert_cmpuint(request.op, <=, REMOTE_GIVE_UP);
        peer->requests[request.op]++;
        if (request.op == REMOTE_GIVE_UP || peer->manner == SILENT)
            continue;
        if (peer->manner == DIES)
            break;
        carry_out(peer, &request);
        if (peer->manner != BACKWARDS) {
            answer(peer, &request, 0);
            continue;
        }
        all[kept++] = request;
        uint8_t byte;
        if (recv(peer->socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0)
            while (kept)
                answer(peer, &all[--kept], 0);
    }
    close(peer->socket);
    if (peer->area)
        munmap(peer->area, REMOTE_AREA);
    return NULL;
}

/* Starts it; its other end. */
static int peer_start(struct peer *peer)
{
    int ends[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), ==, 0);
    peer->socket = ends[1];
    peer->data = g_malloc0(SIZE + 512);
    for (unsigned i = 0; i < SIZE + 512; i++)
        peer->data[i] = (uint8_t)(i / 512 * 7 + i);
    peer->thread = g_thread_new("peer", serve, peer);
    return ends[0];
}

static const struct remote_hello usual = {
    .version = REMOTE_VERSION,
    .size = SIZE,
    .flags = REMOTE_CAN_DISCARD | REMOTE_CAN_ZERO,
};

static struct disk *open_peer(struct peer *peer, const struct remote_hello *hello, bool readonly)
{
    g_autoptr(GError) error = NULL;
    *peer = (struct peer){ .hello = *hello, .hello_length = sizeof *hello };
    struct disk *disk = remote_open(peer_start(peer), "far.img", readonly, &error);
    g_assert_no_error(error);
    return disk;
}

static void end_peer(struct peer *peer, struct disk *disk)
{
    disk_free(disk);
    g_thread_join(peer->thread);
    g_free(peer->data);
}

/* --- an owner ----------------------------------------------------------------------------------
 */

struct owner {
    GMutex lock;
    GCond cond;
    unsigned done, errors, full;
    int error;
};

static void on_done(struct disk_request *request, int error)
{
    struct owner *owner = request->owner;
    g_assert_false(g_mutex_trylock(&owner->lock));
    owner->done++;
    owner->errors += error != 0;
    owner->error = error;
    g_cond_signal(&owner->cond);
}

static void on_full(void *opaque, struct disk *disk, int error)
{
    struct owner *owner = opaque;
    (void)disk;
    g_assert_cmpint(error, ==, ENOSPC);
    g_mutex_lock(&owner->lock);
    owner->full++;
    g_cond_signal(&owner->cond);
    g_mutex_unlock(&owner->lock);
}

static void attach(struct owner *owner, struct disk *disk)
{
    *owner = (struct owner){ .done = 0 };
    disk_attach(disk, &owner->lock, NULL);
    disk_set_full(disk, on_full, owner);
}

static struct disk_request request_of(struct owner *owner, enum disk_op op, struct iovec *iov,
                                      uint64_t offset, uint64_t length)
{
    return (struct disk_request){ .op = op,
                                  .offset = offset,
                                  .length = length,
                                  .iov = iov,
                                  .iov_count = iov != NULL,
                                  .done = on_done,
                                  .owner = owner };
}

static void start(struct owner *owner, struct disk *disk, struct disk_request *request)
{
    g_mutex_lock(&owner->lock);
    disk_submit(disk, request);
    disk_kick(disk);
    g_mutex_unlock(&owner->lock);
}

static void await(struct owner *owner, unsigned done, unsigned full)
{
    g_mutex_lock(&owner->lock);
    while (owner->done < done || owner->full < full)
        g_cond_wait(&owner->cond, &owner->lock);
    g_mutex_unlock(&owner->lock);
}

/* --- as it should be ---------------------------------------------------------------------------
 */

static void test_transfers(void)
{
    struct peer peer;
    struct disk *disk = open_peer(&peer, &usual, false);
    g_autofree uint8_t *data = g_malloc(SIZE);
    g_assert_cmpuint(disk->size, ==, SIZE);
    g_assert_false(disk->readonly || disk->far);

    g_assert_cmpint(disk_read(disk, data, SIZE, 0), ==, 0); /* in pieces */
    g_assert_cmpmem(data, SIZE, peer.data, SIZE);
    g_assert_cmpuint(peer.longest, ==, REMOTE_SLOT);
    memset(data, 0x5a, 300 << 10);
    g_assert_cmpint(disk_write(disk, data, 300 << 10, 1024), ==, 0);
    g_assert_cmpint(peer.data[1023], !=, 0x5a);
    g_assert_cmpmem(peer.data + 1024, 300 << 10, data, 300 << 10);

    /* As what lies on it reads: any range, zeros behind the end. */
    memset(data, 1, 700);
    g_assert_cmpint(raw_read(disk, data, 300, 999), ==, 0);
    g_assert_cmpmem(data, 300, peer.data + 999, 300);
    g_assert_cmpint(raw_read(disk, data, 700, SIZE - 100), ==, 0);
    g_assert_cmpmem(data, 100, peer.data + SIZE - 100, 100);
    for (unsigned i = 100; i < 700; i++)
        g_assert_cmpint(data[i], ==, 0);
    g_assert_cmpint(raw_write(disk, data, 512, 0), ==, EROFS);

    struct disk_request zero = { .op = DISK_WRITE_ZEROES, .offset = 512, .length = 1 << 20 };
    g_assert_cmpint(disk_now(disk, &zero), ==, 0);
    g_assert_cmpint(peer.data[512], ==, 0);
    g_assert_cmpint(peer.data[511], !=, 0);
    g_assert_cmpuint(peer.requests[REMOTE_ZERO], ==, 1);
    zero.op = DISK_DISCARD;
    g_assert_cmpint(disk_now(disk, &zero), ==, 0);
    struct disk_request flush = { .op = DISK_FLUSH };
    g_assert_cmpint(disk_now(disk, &flush), ==, 0);
    g_assert_cmpuint(peer.requests[REMOTE_FLUSH], ==, 1);
    g_assert_cmpuint(peer.requests[REMOTE_DISCARD], ==, 1);
    end_peer(&peer, disk);
}

/* A server without discard and zeroing. */
static void test_poor_server(void)
{
    struct peer peer;
    struct remote_hello hello = usual;
    hello.flags = 0;
    struct disk *disk = open_peer(&peer, &hello, false);
    struct disk_request request = { .op = DISK_WRITE_ZEROES, .offset = 512, .length = 1 << 20 };
    g_assert_cmpint(disk_now(disk, &request), ==, 0);
    for (unsigned i = 0; i < 1 << 20; i++)
        g_assert_cmpint(peer.data[512 + i], ==, 0);
    g_assert_cmpint(peer.data[512 + (1 << 20) + 1], !=, 0);
    request.op = DISK_DISCARD;
    g_assert_cmpint(disk_now(disk, &request), ==, 0);
    g_assert_cmpuint(peer.requests[REMOTE_ZERO] + peer.requests[REMOTE_DISCARD], ==, 0);
    end_peer(&peer, disk);
}

/* A size that is no multiple of 512: the rest is zeros, or, to be written to, not there. */
static void test_odd_size(void)
{
    struct peer peer;
    struct remote_hello hello = usual;
    uint8_t sector[512];
    hello.size = SIZE - 100;
    struct disk *disk = open_peer(&peer, &hello, true);
    g_assert_cmpuint(disk->size, ==, SIZE);
    g_assert_cmpint(disk_read(disk, sector, 512, SIZE - 512), ==, 0);
    g_assert_cmpmem(sector, 412, peer.data + SIZE - 512, 412);
    for (unsigned i = 412; i < 512; i++)
        g_assert_cmpint(sector[i], ==, 0);
    end_peer(&peer, disk);
    disk = open_peer(&peer, &hello, false);
    g_assert_cmpuint(disk->size, ==, SIZE - 512);
    end_peer(&peer, disk);
}

/* More than there are slots, large and small, answered in any order. */
static void test_many(void)
{
    struct peer peer;
    struct owner owner;
    struct disk *disk = open_peer(&peer, &usual, true);
    struct disk_request requests[MANY];
    struct iovec iov[MANY];
    attach(&owner, disk);
    peer.manner = BACKWARDS;
    g_mutex_lock(&owner.lock);
    for (unsigned i = 0; i < MANY; i++) {
        uint64_t length = i % 3 ? 4096 : 512 << 10, offset = i * 4096;
        iov[i] = (struct iovec){ g_malloc0(length), length };
        requests[i] = request_of(&owner, DISK_READ, &iov[i], offset, length);
        disk_submit(disk, &requests[i]);
    }
    disk_kick(disk);
    g_assert_true(disk->ops->busy(disk));
    g_mutex_unlock(&owner.lock);
    disk_drain(disk);
    g_assert_cmpuint(owner.done, ==, MANY);
    g_assert_cmpuint(owner.errors, ==, 0);
    for (unsigned i = 0; i < MANY; i++) {
        g_assert_true(!memcmp(iov[i].iov_base, peer.data + i * 4096, iov[i].iov_len));
        g_free(iov[i].iov_base);
    }
    end_peer(&peer, disk);
}

/* Refusals are told later too, and read-only disks need no flush of the server. */
static void test_refusals(void)
{
    struct peer peer;
    struct owner owner;
    struct disk *disk = open_peer(&peer, &usual, true);
    uint8_t sector[512] = { 0 };
    struct iovec iov = { sector, sizeof sector };
    attach(&owner, disk);
    struct disk_request request = request_of(&owner, DISK_WRITE, &iov, 0, 512);
    start(&owner, disk, &request);
    await(&owner, 1, 0);
    g_assert_cmpint(owner.error, ==, EROFS);
    request = request_of(&owner, DISK_READ, &iov, SIZE, 512);
    start(&owner, disk, &request);
    await(&owner, 2, 0);
    g_assert_cmpint(owner.error, ==, EINVAL);
    request = request_of(&owner, DISK_FLUSH, NULL, 0, 0);
    start(&owner, disk, &request);
    await(&owner, 3, 0);
    g_assert_cmpint(owner.error, ==, 0);
    g_assert_cmpuint(peer.requests[REMOTE_FLUSH], ==, 0);
    end_peer(&peer, disk);
}

/* A server whose disk is full holds the write until there is room, or until that is given up. */
static void test_full(void)
{
    struct peer peer;
    struct owner owner;
    struct disk *disk = open_peer(&peer, &usual, false);
    uint8_t sector[512] = { 0x77 };
    struct iovec iov = { sector, sizeof sector };
    attach(&owner, disk);
    peer.manner = NO_ROOM;
    g_assert_cmpint(disk_write(disk, sector, 512, 0), ==, ENOSPC);
    struct disk_request request = request_of(&owner, DISK_WRITE, &iov, 0, 512);
    start(&owner, disk, &request);
    await(&owner, 0, 1);
    g_assert_cmpuint(owner.done, ==, 0);
    disk_retry(disk);
    await(&owner, 0, 2);
    peer.manner = WELL;
    disk_retry(disk);
    await(&owner, 1, 2);
    g_assert_cmpint(owner.error, ==, 0);
    peer.manner = NO_ROOM;
    start(&owner, disk, &request);
    await(&owner, 1, 3);
    disk_give_up(disk);
    await(&owner, 2, 3);
    g_assert_cmpint(owner.error, ==, EIO);
    peer.manner = WELL;
    start(&owner, disk, &request); /* all is forgiven */
    await(&owner, 3, 3);
    g_assert_cmpint(owner.error, ==, 0);
    g_assert_cmpuint(peer.requests[REMOTE_GIVE_UP], ==, 1);
    end_peer(&peer, disk);
}

/* --- anything else -----------------------------------------------------------------------------
 */

/* After an answer that makes no sense everything fails, now and later. */
static void test_hostile(void)
{
    static const enum manner manners[] = { WRONG_ID, WRONG_SLOT, FREE_SLOT, SHORT,
                                           LONG,     NEGATIVE,   DIES };
    for (unsigned i = 0; i < G_N_ELEMENTS(manners); i++) {
        struct peer peer;
        struct owner owner;
        struct disk *disk = open_peer(&peer, &usual, false);
        uint8_t data[2][4096] = { { 0 } };
        struct iovec iov[2] = { { data[0], 4096 }, { data[1], 4096 } };
        attach(&owner, disk);
        peer.manner = SILENT;
        struct disk_request one = request_of(&owner, DISK_WRITE, &iov[0], 0, 4096);
        struct disk_request two = request_of(&owner, DISK_READ, &iov[1], 8192, 4096);
        start(&owner, disk, &one);
        while (!*(volatile unsigned *)&peer.requests[REMOTE_WRITE])
            g_usleep(1000);
        peer.manner = manners[i];
        start(&owner, disk, &two);
        await(&owner, 2, 0);
        g_assert_cmpuint(owner.errors, ==, 2);
        g_assert_cmpint(owner.error, ==, EIO);
        g_assert_cmpint(disk_read(disk, data, 512, 0), ==, EIO);
        struct disk_request flush = request_of(&owner, DISK_FLUSH, NULL, 0, 0);
        start(&owner, disk, &flush);
        disk_drain(disk);
        g_assert_cmpuint(owner.errors, ==, 3);
        end_peer(&peer, disk);
    }
}

static void test_twice(void)
{
    struct peer peer;
    struct disk *disk = open_peer(&peer, &usual, false);
    uint8_t sector[512];
    peer.manner = TWICE;
    g_assert_cmpint(disk_read(disk, sector, 512, 0), ==, 0);
    int error = 0;
    for (unsigned i = 0; i < 10 && !error; i++) /* the second answer may still be on its way */
        error = disk_read(disk, sector, 512, 0);
    g_assert_cmpint(error, ==, EIO);
    end_peer(&peer, disk);
}

static void test_strange_error(void)
{
    struct peer peer;
    struct disk *disk = open_peer(&peer, &usual, false);
    g_autofree uint8_t *data = g_malloc(1 << 20);
    peer.manner = STRANGE_ERROR;
    g_assert_cmpint(disk_read(disk, data, 1 << 20, 0), ==, EIO);
    peer.manner = WELL; /* it was this request's alone */
    g_assert_cmpint(disk_read(disk, data, 1 << 20, 0), ==, 0);
    end_peer(&peer, disk);
}

static void refused(const struct remote_hello *hello, size_t length, bool readonly, int code,
                    const char *says)
{
    g_autoptr(GError) error = NULL;
    struct peer peer = { .hello = *hello, .hello_length = length };
    int fd = peer_start(&peer);
    g_assert_null(remote_open(fd, "far.img", readonly, &error));
    g_assert_error(error, HV_ERROR, code);
    g_assert_nonnull(strstr(error->message, says));
    close(fd); /* still the caller's */
    g_thread_join(peer.thread);
    g_free(peer.data);
}

static void test_hellos(void)
{
    struct remote_hello hello = usual;
    refused(&hello, sizeof hello - 1, true, HV_FAILED, "without a word");
    hello.version++;
    refused(&hello, sizeof hello, true, HV_FAILED, "another version");
    hello = usual;
    hello.size = 0;
    refused(&hello, sizeof hello, true, HV_FAILED, "0 bytes");
    hello.size = UINT64_MAX;
    refused(&hello, sizeof hello, true, HV_FAILED, "bytes is no disk's");
    hello.size = 511;
    refused(&hello, sizeof hello, false, HV_FAILED, "511 bytes");
    hello = usual;
    hello.flags |= REMOTE_READONLY;
    refused(&hello, sizeof hello, false, HV_FAILED, "lets nobody write");
    hello = usual;
    hello.status = HV_HOST;
    memset(hello.text, '\33', sizeof hello.text); /* not ended, and not for a terminal */
    refused(&hello, sizeof hello, true, HV_HOST, "far.img: ????");
    hello.status = INT32_MIN;
    refused(&hello, sizeof hello, true, HV_FAILED, "far.img: ????");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_set_level(LOG_ERROR);
    g_test_add_func("/remote/transfers", test_transfers);
    g_test_add_func("/remote/poor-server", test_poor_server);
    g_test_add_func("/remote/odd-size", test_odd_size);
    g_test_add_func("/remote/many", test_many);
    g_test_add_func("/remote/refusals", test_refusals);
    g_test_add_func("/remote/full", test_full);
    g_test_add_func("/remote/hostile", test_hostile);
    g_test_add_func("/remote/twice", test_twice);
    g_test_add_func("/remote/strange-error", test_strange_error);
    g_test_add_func("/remote/hellos", test_hellos);
    return g_test_run();
}
