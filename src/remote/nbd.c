/* Disks on NBD servers, by libnbd (libnbd(3)); one connection, requests in any number.
 *
 * When the connection is lost, requests in flight wait for the next one, and are sent again there;
 * after a while without one they fail, as all later ones until there is one again.
 *
 * A server that answered a write has it, but may lose it until it answered a flush; and that it was
 * not started anew while there was no connection nobody can know. So when a connection is lost with
 * writes that no flush followed, flushes fail from then on, as those of a local disk that could not
 * write (block/raw.c). */
#include "base/error.h"
#include "remote/source.h"

#include <errno.h>
#include <libnbd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

enum {
    OPEN_US = 30 * 1000 * 1000,
    PAUSE_US = 200 * 1000, /* between connections that fail */
    PAUSE_MAX_US = 4 * 1000 * 1000,
    LAST_US = 5 * 1000 * 1000, /* for requests that were given up */
    SILENCE_MS = 30 * 1000,    /* of a host that is gone */
};

struct sent {
    bool sent, answered;
    int error;
    uint64_t written; /* a flush: nbd_source.written when it was sent */
};

struct nbd_source {
    struct source source;
    char *url;
    struct nbd_handle *nbd; /* NULL: none */
    bool ready;             /* it is connected, and the export is the one it was */
    int64_t lost;           /* when it was not any more; 0: ready, or nobody waited yet */
    int64_t next;           /* when to try again */
    int64_t pause;
    int64_t last;              /* when what is in flight fails; 0: not so far */
    uint64_t written, flushed; /* answered writes, and those of them that a flush followed */
    bool flush_failed;
    bool hurry; /* there is an answer already */
    struct sent sent[REMOTE_SLOTS];
};

/* What libnbd says went wrong: without the function's name. */
static const char *reason(void)
{
    const char *text = nbd_get_error();
    const char *rest = text ? strstr(text, ": ") : NULL;
    return rest ? rest + 2 : text ? text : "the connection was closed";
}

/* --- the connection ------------------------------------------------------------------------- */

/* A host that vanishes is noticed, and a disk that takes its time is not taken for one. */
static void watch_connection(int fd)
{
    static const int on = 1, idle = 10, interval = 5, count = 4, silence = SILENCE_MS;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence, sizeof silence);
}

static bool is_over(const struct nbd_source *n)
{
    return nbd_aio_is_dead(n->nbd) || nbd_aio_is_closed(n->nbd);
}

static bool begin(struct nbd_source *n)
{
    n->nbd = nbd_create();
    if (!n->nbd)
        return false;
    nbd_set_uri_allow_local_file(n->nbd,
                                 true); /* of keys and certificates; the URL is the user's */
    return nbd_aio_connect_uri(n->nbd, n->url) == 0;
}

/* The size and the flags of the export; false with an error. */
static bool judge(struct nbd_source *n, uint64_t *size, uint32_t *flags, GError **error)
{
    enum { SECTOR_BYTES = 512 };
    int64_t bytes = nbd_get_size(n->nbd);
    int64_t block = nbd_get_block_size(n->nbd, LIBNBD_SIZE_MINIMUM);
    if (bytes <= 0)
        return hv_fail(error, HV_FAILED, "the server's disk is empty");
    if (block > SECTOR_BYTES)
        return hv_fail(error, HV_FAILED,
                       "the server has blocks of %lld bytes, and a disk's sectors have 512",
                       (long long)block);
    *size = (uint64_t)bytes;
    *flags = (nbd_is_read_only(n->nbd) > 0 ? REMOTE_READONLY : 0) |
             (nbd_can_trim(n->nbd) > 0 ? REMOTE_CAN_DISCARD : 0) |
             (nbd_can_zero(n->nbd) > 0 ? REMOTE_CAN_ZERO : 0);
    return true;
}

static void end_connection(struct nbd_source *n)
{
    nbd_close(n->nbd);
    n->nbd = NULL;
    n->ready = false;
    for (unsigned i = 0; i < REMOTE_SLOTS; i++)
        n->sent[i] = (struct sent){ .sent = false }; /* after nbd_close: it may have set them */
}

/* It is lost, or could not be had. */
static void lose(struct nbd_source *n, const char *why)
{
    int64_t now = g_get_monotonic_time();
    if (n->ready) {
        source_warn(&n->source, "the connection is lost (%s); trying again", why);
        n->lost = now;
        n->pause = 0;
        if (n->written > n->flushed && !n->flush_failed) {
            n->flush_failed = true;
            source_warn(&n->source, "the server may have lost what was written since the last "
                                    "flush: flushes fail from now on");
        }
    }
    end_connection(n);
    n->next = now + n->pause;
    n->pause = CLAMP(n->pause * 2, PAUSE_US, PAUSE_MAX_US);
}

/* There is a connection, again: is the export still what it was? */
static void arrive(struct nbd_source *n)
{
    g_autoptr(GError) error = NULL;
    uint64_t size = 0;
    uint32_t flags = 0;
    const uint32_t needed = n->source.flags & (REMOTE_CAN_DISCARD | REMOTE_CAN_ZERO);
    bool same = judge(n, &size, &flags, &error) && size == n->source.size &&
                (flags & needed) == needed &&
                (n->source.flags & REMOTE_READONLY || !(flags & REMOTE_READONLY));
    if (!same) {
        source_warn(&n->source, "the server has another disk there now");
        lose(n, "");
        return;
    }
    watch_connection(nbd_aio_get_fd(n->nbd));
    source_warn(&n->source, "connected again");
    n->ready = true;
    n->lost = 0;
}

/* --- requests ------------------------------------------------------------------------------- */

/* Called by libnbd, from inside nbd_aio_notify_* and the like. */
static int answered(void *opaque, int *error)
{
    struct sent *sent = opaque;
    sent->answered = true;
    sent->error = *error;
    return 1; /* libnbd forgets the command */
}

static void send_job(struct nbd_source *n, struct job *job)
{
    const struct remote_request *r = &job->request;
    struct sent *sent = &n->sent[r->slot];
    nbd_completion_callback done = { .callback = answered, .user_data = sent };
    int64_t cookie = -1;
    *sent = (struct sent){ .sent = true, .written = n->written };
    switch ((enum remote_op)r->op) {
    case REMOTE_READ:
        cookie = nbd_aio_pread(n->nbd, job->data, r->length, r->offset, done, 0);
        break;
    case REMOTE_WRITE:
        cookie = nbd_aio_pwrite(n->nbd, job->data, r->length, r->offset, done, 0);
        break;
    case REMOTE_FLUSH:
        cookie = nbd_aio_flush(n->nbd, done, 0);
        break;
    case REMOTE_DISCARD:
        cookie = nbd_aio_trim(n->nbd, r->length, r->offset, done, 0);
        break;
    case REMOTE_ZERO:
        cookie = nbd_aio_zero(n->nbd, r->length, r->offset, done, 0);
        break;
    case REMOTE_OPEN:
    case REMOTE_GIVE_UP:
        break;
    }
    if (cookie < 0) {
        int error = nbd_get_errno();
        answered(sent, &error);
        n->hurry = true;
    }
}

/* Sends what is to be sent, or says what need not be. */
static void push(struct nbd_source *n)
{
    for (unsigned i = 0; i < REMOTE_SLOTS; i++) {
        struct job *job = &n->source.jobs[i];
        if (!job->busy || n->sent[i].sent)
            continue;
        bool flush = job->request.op == REMOTE_FLUSH;
        if (flush && n->flush_failed)
            source_answer(&n->source, job, EIO);
        else if (flush && n->ready && nbd_can_flush(n->nbd) <= 0)
            source_answer(&n->source, job, 0); /* it has no cache, says the server */
        else if (n->ready)
            send_job(n, job);
    }
}

static void take_answers(struct nbd_source *n)
{
    for (unsigned i = 0; i < REMOTE_SLOTS; i++) {
        struct sent *sent = &n->sent[i];
        struct job *job = &n->source.jobs[i];
        if (!sent->answered)
            continue;
        bool flush = job->request.op == REMOTE_FLUSH;
        bool writes = job->request.op == REMOTE_WRITE || job->request.op == REMOTE_ZERO;
        if (flush && sent->error) {
            n->flush_failed = true;
            sent->error = EIO;
        } else if (flush) {
            n->flushed = MAX(n->flushed, sent->written);
        } else if (writes && !sent->error) {
            n->written++;
        }
        source_answer(&n->source, job, sent->error);
        *sent = (struct sent){ .sent = false };
    }
}

static void fail_jobs(struct nbd_source *n)
{
    for (unsigned i = 0; i < REMOTE_SLOTS; i++)
        if (n->source.jobs[i].busy)
            source_answer(&n->source, &n->source.jobs[i], EIO);
}

/* libnbd fails what is in flight when the connection ends, a server what comes while it ends: that
 * is to be sent again. */
static bool ended(struct nbd_source *n)
{
    bool end = is_over(n);
    for (unsigned i = 0; i < REMOTE_SLOTS; i++)
        end = end || (n->sent[i].answered && n->sent[i].error == ESHUTDOWN);
    if (!end)
        return false;
    for (unsigned i = 0; i < REMOTE_SLOTS; i++)
        if (n->sent[i].answered && n->sent[i].error)
            n->sent[i].answered = false;
    take_answers(n);
    return true;
}

static bool any_busy(const struct nbd_source *n)
{
    for (unsigned i = 0; i < REMOTE_SLOTS; i++)
        if (n->source.jobs[i].busy)
            return true;
    return false;
}

/* What the time brings. */
static void look_at_clock(struct nbd_source *n)
{
    int64_t now = g_get_monotonic_time();
    if (n->last && !any_busy(n))
        n->last = 0;
    if (n->last && now >= n->last) {
        if (n->nbd)
            lose(n, "requests are given up");
        fail_jobs(n);
    }
    if (n->lost && now - n->lost > SOURCE_PATIENCE_US)
        fail_jobs(n);
    if (!n->nbd && now >= n->next && !begin(n))
        lose(n, reason());
}

/* Turns libnbd's wheels once; waits at most so long. */
static void work(struct nbd_source *n, struct pollfd *client, int wait_ms)
{
    struct pollfd fds[2] = { *client, { .fd = -1 } };
    unsigned direction = n->nbd ? nbd_aio_get_direction(n->nbd) : 0;
    if (n->nbd)
        fds[1].fd = nbd_aio_get_fd(n->nbd);
    fds[1].events = (direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                    (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0);
    if (poll(fds, 2, wait_ms) < 0)
        return;
    client->revents = fds[0].revents;
    short events = fds[1].revents;
    if (!n->nbd || !events)
        return;
    if (direction & LIBNBD_AIO_DIRECTION_READ && events & ~POLLOUT)
        nbd_aio_notify_read(n->nbd);
    else if (direction & LIBNBD_AIO_DIRECTION_WRITE)
        nbd_aio_notify_write(n->nbd);
}

static void nbd_turn(struct source *source, struct pollfd *client)
{
    enum { TICK_MS = 100 };
    struct nbd_source *n = (struct nbd_source *)source;
    look_at_clock(n);
    push(n);
    work(n, client, n->hurry ? 0 : n->ready && !n->last ? -1 : TICK_MS);
    n->hurry = false;
    if (n->nbd && ended(n))
        lose(n, reason());
    else if (n->nbd && !n->ready && nbd_aio_is_ready(n->nbd))
        arrive(n);
    take_answers(n);
}

static void nbd_start(struct source *source, struct job *job)
{
    (void)source; /* the next turn sends it */
    (void)job;
}

static void nbd_give_up(struct source *source)
{
    struct nbd_source *n = (struct nbd_source *)source;
    if (!n->ready)
        fail_jobs(n);
    else if (!n->last)
        n->last = g_get_monotonic_time() + LAST_US;
}

static const struct source_class nbd_class = {
    .start = nbd_start,
    .turn = nbd_turn,
    .give_up = nbd_give_up,
};

/* --- the first connection ------------------------------------------------------------------- */

static bool connect_first(struct nbd_source *n, GError **error)
{
    int64_t end = g_get_monotonic_time() + OPEN_US;
    struct pollfd nobody = { .fd = -1 };
    if (!begin(n))
        return hv_fail(error, HV_FAILED, "%s", reason());
    while (!nbd_aio_is_ready(n->nbd)) {
        if (g_get_monotonic_time() > end)
            return hv_fail(error, HV_TIMED_OUT, "the server does not answer");
        work(n, &nobody, 1000);
        if (is_over(n))
            return hv_fail(error, HV_FAILED, "%s", reason());
    }
    return judge(n, &n->source.size, &n->source.flags, error);
}

struct source *nbd_source_new(const char *url, GError **error)
{
    struct nbd_source *n = g_new0(struct nbd_source, 1);
    n->source.class = &nbd_class;
    n->source.name = g_strndup(url, strcspn(url, "?#")); /* keys' files stand behind that */
    n->url = g_strdup(url);
    if (connect_first(n, error)) {
        watch_connection(nbd_aio_get_fd(n->nbd));
        n->ready = true;
        return &n->source;
    }
    nbd_close(n->nbd);
    g_free(n->source.name);
    g_free(n->url);
    g_free(n);
    return NULL;
}
