/* The threads of a disk; see worker.h. Submitters hold their own lock and take `mutex` inside it; a
 * thread takes the owner's lock for `done` only while it does not hold `mutex`. */
#include "block/worker.h"

#include "base/log.h"

#include <errno.h>

static bool is_full(int error)
{
    return error == ENOSPC || error == EDQUOT;
}

/* Says, once for each try, that the host's disk is full, and waits for an answer: another try? */
static bool hold(struct worker *worker, int error)
{
    struct disk *disk = &worker->disk;
    g_mutex_lock(&worker->mutex);
    unsigned tries = worker->tries;
    bool wait = !worker->giving_up && disk->full; /* with nobody to tell, nobody would answer */
    bool tell = wait && !worker->asked;
    worker->asked |= tell;
    g_mutex_unlock(&worker->mutex);
    if (tell)
        disk->full(disk->full_opaque, disk, error);
    if (!wait)
        return false;
    g_mutex_lock(&worker->mutex);
    while (worker->tries == tries && !worker->giving_up)
        g_cond_wait(&worker->answer, &worker->mutex);
    bool again = worker->tries != tries;
    g_mutex_unlock(&worker->mutex);
    return again;
}

static void report(struct worker *worker, const struct disk_request *request, int error)
{
    static const char *const verbs[] = { "read", "write", "flush", "discard", "zeroing" };
    g_mutex_lock(&worker->mutex);
    bool pass = log_limit_pass(&worker->log, worker->disk.name);
    g_mutex_unlock(&worker->mutex);
    if (pass)
        log_warn(worker->disk.name,
                 "%s of %" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT " failed: %s",
                 verbs[request->op], request->length, request->offset, g_strerror(error));
    disk_tell_failed(&worker->disk, error);
}

static int carry_out(struct worker *worker, const struct disk_request *request)
{
    if (request->error)
        return request->error;
    /* Whoever gives up waits in disk_drain, and nobody wants what a guest asked for before: it may
     * be terabytes. Writes are carried out. */
    if (request->op == DISK_READ && atomic_load_explicit(&worker->giving_up, memory_order_relaxed))
        return EIO;
    int error = worker->run(worker, request);
    while (is_full(error)) /* metadata are written for any request */
        error = hold(worker, error) ? worker->run(worker, request) : EIO;
    if (error)
        report(worker, request, error);
    return error;
}

static void finish_request(struct worker *worker, struct disk_request *request, int error)
{
    GMutex *lock = worker->disk.lock;
    if (lock)
        g_mutex_lock(lock);
    disk_finish(request, error);
    disk_end_batch(&worker->disk);
    if (lock)
        g_mutex_unlock(lock);
    g_mutex_lock(&worker->mutex);
    if (--worker->in_flight == 0)
        g_cond_broadcast(&worker->idle);
    g_mutex_unlock(&worker->mutex);
}

/* The next request, when there is one. Mutex held. */
static struct disk_request *take_first(struct worker *worker)
{
    struct disk_request *request = worker->first;
    if (!request)
        return NULL;
    worker->first = request->next;
    if (!worker->first)
        worker->last = &worker->first;
    worker->queued--;
    return request;
}

/* Until there is work, or something is due. Mutex held. */
static void wait_for_work(struct worker *worker)
{
    worker->waiting++;
    if (!worker->due) {
        g_cond_wait(&worker->wake, &worker->mutex);
    } else if (!g_cond_wait_until(&worker->wake, &worker->mutex, worker->due) && !worker->first &&
               !worker->stopping) {
        worker->due = 0;
        worker->waiting--;
        g_mutex_unlock(&worker->mutex);
        worker->later(worker);
        g_mutex_lock(&worker->mutex);
        return;
    }
    worker->waiting--;
}

static gpointer serve(gpointer data)
{
    struct worker *worker = data;
    g_mutex_lock(&worker->mutex);
    for (;;) {
        struct disk_request *request = take_first(worker);
        if (!request && worker->stopping)
            break;
        if (!request) {
            wait_for_work(worker);
            continue;
        }
        g_mutex_unlock(&worker->mutex);
        finish_request(worker, request, carry_out(worker, request));
        g_mutex_lock(&worker->mutex);
    }
    g_mutex_unlock(&worker->mutex);
    return NULL;
}

void worker_later(struct worker *worker, gint64 delay)
{
    g_mutex_lock(&worker->mutex);
    if (!worker->due)
        worker->due = g_get_monotonic_time() + delay;
    g_mutex_unlock(&worker->mutex);
}

/* --- a host without threads --------------------------------------------------------------------
 */

/* Fails what no thread will carry out. With no lock held. */
static void refuse_queued(struct worker *worker)
{
    for (;;) {
        g_mutex_lock(&worker->mutex);
        struct disk_request *request = worker->thread_count ? NULL : take_first(worker);
        g_mutex_unlock(&worker->mutex);
        if (!request)
            return;
        report(worker, request, EAGAIN);
        finish_request(worker, request, EAGAIN);
    }
}

static gboolean refuse_later(gpointer data)
{
    struct worker *worker = data;
    g_mutex_lock(&worker->mutex);
    worker->refusal = 0;
    g_mutex_unlock(&worker->mutex);
    refuse_queued(worker);
    return G_SOURCE_REMOVE;
}

/* One more thread. A worker that has none at all and gets none has its requests refused by the main
 * loop: `done` is never called from inside disk_submit. Mutex held. */
static void start_thread(struct worker *worker)
{
    GThread *thread = g_thread_try_new("disk", serve, worker, NULL);
    if (thread)
        worker->threads[worker->thread_count++] = thread;
    else if (!worker->thread_count && !worker->refusal)
        worker->refusal = g_idle_add(refuse_later, worker);
}

/* --- the disk's operations ----------------------------------------------------------------------
 */

void worker_take(struct worker *worker, struct disk_request *request)
{
    request->next = NULL;
    g_mutex_lock(&worker->mutex);
    *worker->last = request;
    worker->last = &request->next;
    worker->queued++;
    worker->in_flight++;
    if (worker->queued > worker->waiting && worker->thread_count < worker->most)
        start_thread(worker);
    g_cond_signal(&worker->wake);
    g_mutex_unlock(&worker->mutex);
}

bool worker_busy(struct worker *worker)
{
    g_mutex_lock(&worker->mutex);
    bool busy = worker->in_flight > 0;
    g_mutex_unlock(&worker->mutex);
    return busy;
}

void worker_forgive(struct worker *worker)
{
    if (!atomic_load_explicit(&worker->giving_up, memory_order_relaxed))
        return;
    g_mutex_lock(&worker->mutex);
    if (!worker->in_flight)
        worker->giving_up = worker->stopping;
    g_mutex_unlock(&worker->mutex);
}

static void worker_submit(struct disk *disk, struct disk_request *request)
{
    struct worker *worker = (struct worker *)disk;
    worker_forgive(worker);
    worker_take(worker, request);
}

void worker_drain(struct disk *disk)
{
    struct worker *worker = (struct worker *)disk;
    refuse_queued(worker);
    g_mutex_lock(&worker->mutex);
    while (worker->in_flight)
        g_cond_wait(&worker->idle, &worker->mutex);
    g_mutex_unlock(&worker->mutex);
}

void worker_retry(struct disk *disk, bool give_up)
{
    struct worker *worker = (struct worker *)disk;
    g_mutex_lock(&worker->mutex);
    if (give_up)
        worker->giving_up = true;
    else if (worker->asked)
        worker->tries++;
    worker->asked = false;
    g_cond_broadcast(&worker->answer);
    g_mutex_unlock(&worker->mutex);
}

void worker_free(struct disk *disk)
{
    struct worker *worker = (struct worker *)disk;
    g_mutex_lock(&worker->mutex);
    worker->stopping = true;
    worker->giving_up = true;
    if (worker->refusal)
        g_source_remove(worker->refusal);
    g_cond_broadcast(&worker->wake);
    g_cond_broadcast(&worker->answer);
    g_mutex_unlock(&worker->mutex);
    refuse_queued(worker);
    for (unsigned i = 0; i < worker->thread_count; i++)
        g_thread_join(worker->threads[i]);
    worker->finish(worker);
    g_mutex_clear(&worker->mutex);
    g_cond_clear(&worker->wake);
    g_cond_clear(&worker->answer);
    g_cond_clear(&worker->idle);
    g_free(disk->name);
    g_free(disk->identity);
    g_free(disk->mark);
    g_free(worker);
}

int worker_now(struct disk *disk, const struct disk_request *request)
{
    struct worker *worker = (struct worker *)disk;
    return worker->run(worker, request);
}

static bool any_in_flight(struct disk *disk)
{
    return worker_busy((struct worker *)disk);
}

static const struct disk_ops worker_ops = {
    .submit = worker_submit,
    .busy = any_in_flight,
    .now = worker_now,
    .drain = worker_drain,
    .free = worker_free,
    .retry = worker_retry,
};

void worker_init(struct worker *worker, const char *name, unsigned threads,
                 int (*run)(struct worker *worker, const struct disk_request *request),
                 void (*finish)(struct worker *worker))
{
    worker->disk.ops = &worker_ops;
    worker->disk.name = g_strdup(name);
    worker->run = run;
    worker->finish = finish;
    worker->most = MIN(threads, WORKER_THREADS);
    worker->last = &worker->first;
    g_mutex_init(&worker->mutex);
    g_cond_init(&worker->wake);
    g_cond_init(&worker->answer);
    g_cond_init(&worker->idle);
}
