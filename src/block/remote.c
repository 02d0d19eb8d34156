/* Disks on a server; see remote.h. A request goes to hv-remote in pieces that fit a slot of the
 * memory that both see; one thread takes the answers and calls `done`.
 *
 * What hv-remote says is not trusted: an answer to nothing, of another size, or its end makes all
 * requests fail from then on. The memory's content is data for the guest and nothing else.
 *
 * Locks: the owner's, then `mutex`, a leaf. The thread takes the owner's lock only without it. */
#include "block/remote.h"

#include "base/error.h"
#include "base/log.h"
#include "block/cursor.h"
#include "block/remote-hello.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ERRNO_MAX = 133 };

/* A request that is under way. */
struct transfer {
    struct disk_request *request; /* NULL: free */
    struct cursor cursor;         /* what of its memory has no piece yet */
    uint64_t given;               /* bytes that have; of a flush, whether it has */
    unsigned pieces;              /* in flight */
    int error;
};

/* A piece of it. */
struct piece {
    struct transfer *transfer; /* NULL: free */
    uint64_t id;
    uint64_t skip, length; /* READ: of the slot's bytes, those that were asked for */
    struct cursor cursor;  /* READ: where they go */
};

struct remote {
    struct disk disk;
    int socket, wake; /* wake: an eventfd for the thread */
    uint8_t *area;
    uint64_t size; /* the server's; disk.size is whole sectors */
    uint32_t flags;
    GThread *thread;
    struct log_limit log; /* the thread's */

    GMutex mutex; /* protects what follows */
    GCond idle;   /* nothing is in flight */
    struct piece pieces[REMOTE_SLOTS];
    /* All but the one that is given its pieces have one in flight. */
    struct transfer transfers[REMOTE_SLOTS + 1], *current;
    struct disk_request *first, **last; /* have no transfer yet */
    struct disk_request *through;       /* for the thread: finished, `error` says how */
    struct disk_request *held;          /* writes for which the server has no room */
    uint64_t next_id;
    unsigned in_flight; /* requests, from submit until after `done` */
    bool giving_up, asked, broken, stopping;
};

/* Somebody who waits in remote_now. */
struct waiter {
    struct disk_request request;
    GCond cond;
    bool done;
};

static struct remote *of(struct disk *disk)
{
    return (struct remote *)disk;
}

static void wake_thread(struct remote *remote)
{
    const uint64_t one = 1;
    while (write(remote->wake, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

/* --- with the mutex held ------------------------------------------------------------------------
 */

static bool holds(const struct remote *remote, const struct disk_request *request, int error)
{
    return (error == ENOSPC || error == EDQUOT) && request->done && request->op != DISK_READ &&
           remote->disk.full && !remote->giving_up;
}

/* The thread does the rest. */
static void put_through(struct remote *remote, struct disk_request *request, int error)
{
    struct disk_request **list = &remote->through;
    if (holds(remote, request, error))
        list = &remote->held;
    request->error = request->done && (error == ENOSPC || error == EDQUOT) ? EIO : error;
    request->next = *list;
    *list = request;
}

static void end_transfer(struct remote *remote, struct transfer *transfer)
{
    put_through(remote, transfer->request, transfer->error);
    transfer->request = NULL;
}

/* What can be answered without hv-remote: true with the answer. */
static bool answers_itself(const struct remote *remote, const struct disk_request *request,
                           int *error)
{
    *error = request->error;
    if (*error)
        return true;
    if (request->op == DISK_WRITE && (request->at | request->length) % SECTOR)
        *error = EINVAL;
    else if (remote->broken)
        *error = EIO;
    return *error || (request->op == DISK_FLUSH && remote->disk.readonly) ||
           (request->op != DISK_FLUSH && !request->length) ||
           (request->op == DISK_DISCARD && !(remote->flags & REMOTE_CAN_DISCARD));
}

static void take_request(struct remote *remote)
{
    struct disk_request *request = remote->first;
    struct transfer *transfer = remote->transfers;
    int error;
    while (transfer->request)
        transfer++; /* there is one: see `transfers` */
    remote->first = request->next;
    if (!remote->first)
        remote->last = &remote->first;
    if (answers_itself(remote, request, &error)) {
        put_through(remote, request, error);
        return;
    }
    *transfer = (struct transfer){ .request = request, .cursor = { request->iov, 0 } };
    remote->current = transfer;
}

/* A piece of the request, and the message about it. False: no more is to be asked for, for the rest
 * lies behind the end. */
static bool cut_piece(struct remote *remote, struct transfer *transfer, unsigned slot,
                      struct remote_request *message)
{
    static const uint32_t ops[] = {
        [DISK_READ] = REMOTE_READ,         [DISK_WRITE] = REMOTE_WRITE,
        [DISK_FLUSH] = REMOTE_FLUSH,       [DISK_DISCARD] = REMOTE_DISCARD,
        [DISK_WRITE_ZEROES] = REMOTE_ZERO,
    };
    const struct disk_request *request = transfer->request;
    struct piece *piece = &remote->pieces[slot];
    uint8_t *data = remote->area + (size_t)slot * REMOTE_SLOT;
    uint64_t at = request->at + transfer->given, rest = request->length - transfer->given;
    *message = (struct remote_request){ .op = ops[request->op], .slot = slot, .offset = at };
    *piece = (struct piece){ .length = 0 };
    if (request->op == DISK_READ) {
        rest = at < remote->size ? MIN(rest, remote->size - at) : 0;
        piece->skip = at % SECTOR;
        piece->length = MIN(rest, REMOTE_SLOT - piece->skip);
        piece->cursor = transfer->cursor;
        message->offset = at - piece->skip;
        message->length = MIN((piece->skip + piece->length + SECTOR - 1) / SECTOR * SECTOR,
                              remote->size - message->offset);
        if (!rest)
            return false;
        struct iovec skipped[64]; /* the transfer's cursor goes on behind this piece */
        size_t n, left = piece->length;
        for (; left; left -= n)
            cursor_take(&transfer->cursor, left, skipped, G_N_ELEMENTS(skipped), &n);
    } else if (request->op == DISK_WRITE) {
        piece->length = message->length = MIN(rest, REMOTE_SLOT);
        cursor_read(&transfer->cursor, data, piece->length);
    } else if (request->op == DISK_WRITE_ZEROES && !(remote->flags & REMOTE_CAN_ZERO)) {
        message->op = REMOTE_WRITE;
        piece->length = message->length = MIN(rest, REMOTE_SLOT);
        memset(data, 0, piece->length);
    } else if (request->op != DISK_FLUSH) {
        piece->length = message->length = MIN(rest, REMOTE_RANGE);
    } else {
        message->offset = 0;
        transfer->given = 1;
    }
    piece->transfer = transfer;
    message->id = piece->id = remote->next_id++;
    transfer->given += piece->length;
    transfer->pieces++;
    return true;
}

/* All of the transfer has been given to pieces. */
static bool is_given(const struct transfer *transfer)
{
    const struct disk_request *request = transfer->request;
    return transfer->error ||
           (request->op == DISK_FLUSH ? transfer->given : transfer->given == request->length);
}

static void zero_behind_end(struct transfer *transfer)
{
    cursor_zero(&transfer->cursor, transfer->request->length - transfer->given);
    transfer->given = transfer->request->length;
}

static bool send_messages(const struct remote *remote, struct remote_request *messages,
                          unsigned count)
{
    struct mmsghdr headers[REMOTE_SLOTS];
    struct iovec iov[REMOTE_SLOTS];
    for (unsigned i = 0; i < count; i++) {
        iov[i] = (struct iovec){ &messages[i], sizeof messages[i] };
        headers[i] = (struct mmsghdr){ .msg_hdr = { .msg_iov = &iov[i], .msg_iovlen = 1 } };
    }
    /* There is room for as many as can be in flight, unless hv-remote does not listen. */
    for (unsigned sent = 0; sent < count;) {
        int n = sendmmsg(remote->socket, headers + sent, count - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        sent += (unsigned)n;
    }
    return true;
}

/* Gives waiting requests the free slots. */
static void pump(struct remote *remote)
{
    struct remote_request messages[REMOTE_SLOTS];
    unsigned count = 0, slot = 0;
    while (remote->current || remote->first) {
        struct transfer *transfer = remote->current;
        if (!transfer) {
            take_request(remote);
            continue;
        }
        while (slot < REMOTE_SLOTS && remote->pieces[slot].transfer)
            slot++;
        if (slot == REMOTE_SLOTS && !is_given(transfer))
            break;
        if (!is_given(transfer) && cut_piece(remote, transfer, slot, &messages[count]))
            count++;
        else if (!is_given(transfer))
            zero_behind_end(transfer);
        if (!is_given(transfer))
            continue;
        remote->current = NULL;
        if (!transfer->pieces)
            end_transfer(remote, transfer);
    }
    if (count && !send_messages(remote, messages, count))
        remote->broken = true;
    if (remote->through || remote->broken)
        wake_thread(remote);
}

static void queue(struct remote *remote, struct disk_request *request)
{
    request->next = NULL;
    *remote->last = request;
    remote->last = &request->next;
    remote->in_flight++;
}

/* Everything that is in flight fails. */
static void fail_all(struct remote *remote)
{
    for (unsigned i = 0; i < REMOTE_SLOTS; i++)
        remote->pieces[i].transfer = NULL;
    remote->current = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(remote->transfers); i++) {
        remote->transfers[i].error = EIO;
        if (remote->transfers[i].request)
            end_transfer(remote, &remote->transfers[i]);
    }
    while (remote->first)
        take_request(remote);
}

/* --- the thread ---------------------------------------------------------------------------------
 */

/* Takes an answer; false when it makes no sense. */
static bool take_reply(struct remote *remote, const struct remote_reply *reply)
{
    if (reply->slot >= REMOTE_SLOTS || reply->error < 0)
        return false;
    struct piece *piece = &remote->pieces[reply->slot];
    g_mutex_lock(&remote->mutex);
    struct transfer *transfer = piece->id == reply->id ? piece->transfer : NULL;
    g_mutex_unlock(&remote->mutex);
    if (!transfer)
        return false;
    /* The piece is this thread's until it is freed. */
    if (!reply->error && transfer->request->op == DISK_READ)
        cursor_write(&piece->cursor, remote->area + (size_t)reply->slot * REMOTE_SLOT + piece->skip,
                     piece->length);
    g_mutex_lock(&remote->mutex);
    if (reply->error && !transfer->error)
        transfer->error = reply->error > ERRNO_MAX ? EIO : reply->error;
    piece->transfer = NULL;
    if (!--transfer->pieces && is_given(transfer)) {
        if (transfer == remote->current)
            remote->current = NULL;
        end_transfer(remote, transfer);
    }
    g_mutex_unlock(&remote->mutex);
    return true;
}

/* What came; false when nothing can come any more. */
static bool take_replies(struct remote *remote)
{
    for (unsigned i = 0; i < REMOTE_SLOTS; i++) {
        struct remote_reply reply;
        ssize_t n = recv(remote->socket, &reply, sizeof reply, MSG_DONTWAIT | MSG_TRUNC);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        if (n != (ssize_t)sizeof reply || !take_reply(remote, &reply))
            return false;
    }
    return true;
}

/* With no lock held. */
static void finish(struct remote *remote, struct disk_request *request)
{
    static const char *const verbs[] = { "read", "write", "flush", "discard", "zeroing" };
    struct disk *disk = &remote->disk;
    int error = request->error;
    if (error && log_limit_pass(&remote->log, disk->name))
        log_warn(disk->name,
                 "%s of %" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT " failed: %s",
                 verbs[request->op], request->length, request->at, g_strerror(error));
    if (!request->done) {
        struct waiter *waiter = request->owner;
        g_mutex_lock(&remote->mutex);
        waiter->done = true;
        g_cond_signal(&waiter->cond);
        g_mutex_unlock(&remote->mutex);
        return;
    }
    if (disk->lock)
        g_mutex_lock(disk->lock);
    disk_finish(request, error);
    disk_end_batch(disk);
    if (disk->lock)
        g_mutex_unlock(disk->lock);
}

static void finish_all(struct remote *remote)
{
    g_mutex_lock(&remote->mutex);
    while (remote->through) {
        struct disk_request *request = remote->through;
        remote->through = request->next;
        g_mutex_unlock(&remote->mutex);
        finish(remote, request);
        g_mutex_lock(&remote->mutex);
        if (--remote->in_flight == 0)
            g_cond_broadcast(&remote->idle);
    }
    bool tell = remote->held && !remote->asked;
    remote->asked |= tell;
    g_mutex_unlock(&remote->mutex);
    if (tell)
        remote->disk.full(remote->disk.full_opaque, &remote->disk, ENOSPC);
}

static gpointer serve(gpointer data)
{
    struct remote *remote = data;
    struct pollfd fds[] = { { remote->socket, POLLIN, 0 }, { remote->wake, POLLIN, 0 } };
    bool alive = true, stopping = false;
    while (!stopping) {
        uint64_t count;
        if (poll(fds, 2, -1) < 0)
            continue;
        if (fds[1].revents && read(remote->wake, &count, sizeof count) < 0 && errno != EAGAIN)
            log_warn(remote->disk.name, "eventfd: %s", g_strerror(errno));
        bool well = !fds[0].revents || take_replies(remote);
        g_mutex_lock(&remote->mutex);
        remote->broken |= !well;
        if (remote->broken)
            fail_all(remote);
        else
            pump(remote);
        bool ended = alive && remote->broken;
        stopping = remote->stopping;
        g_mutex_unlock(&remote->mutex);
        if (ended) {
            log_warn(remote->disk.name, "hv-remote has ended: the disk is gone");
            fds[0].fd = -1; /* no end of what it says now */
            alive = false;
        }
        finish_all(remote);
    }
    return NULL;
}

/* --- the disk's operations ----------------------------------------------------------------------
 */

static void remote_submit(struct disk *disk, struct disk_request *request)
{
    struct remote *remote = of(disk);
    g_mutex_lock(&remote->mutex);
    if (!remote->in_flight)
        remote->giving_up = false;
    queue(remote, request);
    g_mutex_unlock(&remote->mutex);
}

static void remote_kick(struct disk *disk)
{
    struct remote *remote = of(disk);
    g_mutex_lock(&remote->mutex);
    pump(remote);
    g_mutex_unlock(&remote->mutex);
}

static bool remote_busy(struct disk *disk)
{
    struct remote *remote = of(disk);
    g_mutex_lock(&remote->mutex);
    bool busy = remote->in_flight;
    g_mutex_unlock(&remote->mutex);
    return busy;
}

static int remote_now(struct disk *disk, const struct disk_request *request)
{
    struct remote *remote = of(disk);
    struct waiter waiter = { .request = *request };
    waiter.request.done = NULL;
    waiter.request.tally = NULL;
    waiter.request.error = 0;
    waiter.request.owner = &waiter;
    g_cond_init(&waiter.cond);
    g_mutex_lock(&remote->mutex);
    queue(remote, &waiter.request);
    pump(remote);
    while (!waiter.done)
        g_cond_wait(&waiter.cond, &remote->mutex);
    g_mutex_unlock(&remote->mutex);
    g_cond_clear(&waiter.cond);
    return waiter.request.error;
}

static int remote_piece(struct disk *disk, uint64_t offset, uint64_t length,
                        struct disk_piece *piece)
{
    (void)disk;
    piece->mapped = true;
    piece->at = offset;
    piece->length = length;
    return 0;
}

static void remote_drain(struct disk *disk)
{
    struct remote *remote = of(disk);
    g_mutex_lock(&remote->mutex);
    pump(remote);
    while (remote->in_flight)
        g_cond_wait(&remote->idle, &remote->mutex);
    g_mutex_unlock(&remote->mutex);
}

static void remote_retry(struct disk *disk, bool give_up)
{
    struct remote *remote = of(disk);
    struct remote_request message = { .op = REMOTE_GIVE_UP };
    g_mutex_lock(&remote->mutex);
    if (give_up && remote->in_flight) {
        remote->giving_up = true;
        if (!send_messages(remote, &message, 1))
            remote->broken = true;
    }
    while (remote->held) {
        struct disk_request *request = remote->held;
        remote->held = request->next;
        request->error = 0;
        remote->in_flight--; /* `queue` counts it again */
        queue(remote, request);
        if (give_up)
            request->error = EIO;
    }
    remote->asked = false;
    pump(remote);
    wake_thread(remote);
    g_mutex_unlock(&remote->mutex);
}

static void release(struct remote *remote)
{
    if (remote->area)
        munmap(remote->area, REMOTE_AREA);
    if (remote->wake >= 0)
        close(remote->wake);
    g_mutex_clear(&remote->mutex);
    g_cond_clear(&remote->idle);
    g_free(remote->disk.name);
    g_free(remote->disk.identity);
    g_free(remote->disk.mark);
    g_free(remote);
}

static void remote_free(struct disk *disk)
{
    struct remote *remote = of(disk);
    remote_retry(disk, true);
    remote_drain(disk);
    g_mutex_lock(&remote->mutex);
    remote->stopping = true;
    wake_thread(remote);
    g_mutex_unlock(&remote->mutex);
    g_thread_join(remote->thread);
    close(remote->socket);
    release(remote);
}

static const struct disk_ops remote_ops = {
    .submit = remote_submit,
    .kick = remote_kick,
    .busy = remote_busy,
    .now = remote_now,
    .piece = remote_piece,
    .drain = remote_drain,
    .free = remote_free,
    .retry = remote_retry,
};

/* --- opening ------------------------------------------------------------------------------------
 */

/* A disk that is written has whole sectors only; of one that is read, the last is filled up. */
static void settle(struct remote *remote, const struct remote_hello *hello, bool readonly)
{
    uint64_t whole = hello->size / SECTOR * SECTOR;
    remote->flags = hello->flags;
    remote->size = readonly ? hello->size : whole;
    remote->disk.size = readonly ? (hello->size + SECTOR - 1) / SECTOR * SECTOR : whole;
    remote->disk.readonly = readonly;
    remote->disk.far = hello->flags & REMOTE_KEEP;
    remote->disk.mark = *hello->mark ? g_strdup(hello->mark) : NULL;
}

struct disk *remote_open(int socket, const char *name, bool readonly, GError **error)
{
    struct remote *remote = g_new0(struct remote, 1);
    struct remote_hello hello;
    remote->disk.ops = &remote_ops;
    remote->disk.name = g_strdup(name);
    remote->socket = socket;
    remote->last = &remote->first;
    remote->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g_mutex_init(&remote->mutex);
    g_cond_init(&remote->idle);
    bool ok =
        remote->wake >= 0 || hv_fail(error, HV_HOST, "%s: eventfd: %s", name, g_strerror(errno));
    ok = ok && remote_greet(socket, name, readonly, &remote->area, &hello, error);
    if (ok)
        settle(remote, &hello, readonly);
    if (ok)
        remote->thread = g_thread_try_new("disk", serve, remote, error);
    if (remote->thread)
        return &remote->disk;
    release(remote);
    return NULL;
}
