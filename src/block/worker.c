/* The thread of a disk; see worker.h. Submitters hold their own lock and take `mutex` inside it;
 * the worker takes the owner's lock for `done` only while it does not hold `mutex`. */
#include "block/worker.h"

#include "base/log.h"

#include <errno.h>

static bool is_full(int error)
{
    return error == ENOSPC || error == EDQUOT;
}

/* Says that the host's disk is full and waits for an answer: another try? */
static bool hold(struct worker *worker, int error)
{
    struct disk *disk = &worker->disk;
    g_mutex_lock(&worker->mutex);
    bool again = !worker->giving_up && disk->full; /* with nobody to tell, nobody would answer */
    worker->held = again ? HELD : NOT_HELD;
    g_mutex_unlock(&worker->mutex);
    if (!again)
        return false;
    disk->full(disk->full_opaque, disk, error);
    g_mutex_lock(&worker->mutex);
    while (worker->held == HELD && !worker->giving_up)
        g_cond_wait(&worker->wake, &worker->mutex);
    again = worker->held == RETRY;
    worker->held = NOT_HELD;
    g_mutex_unlock(&worker->mutex);
    return again;
}

static int carry_out(struct worker *worker, const struct disk_request *request)
{
    static const char *const verbs[] = { "read", "write", "flush", "discard", "zeroing" };
    if (request->error)
        return request->error;
    int error = worker->run(worker, request);
    while (is_full(error) && (request->op == DISK_WRITE || request->op == DISK_WRITE_ZEROES))
        error = hold(worker, error) ? worker->run(worker, request) : EIO;
    if (error && log_limit_pass(&worker->log, worker->disk.name))
        log_warn(worker->disk.name,
                 "%s of %" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT " failed: %s",
                 verbs[request->op], request->length, request->offset, g_strerror(error));
    return error;
}

static void finish_request(struct worker *worker, struct disk_request *request, int error)
{
    GMutex *lock = worker->disk.lock;
    if (lock)
        g_mutex_lock(lock);
    request->done(request, error);
    if (lock)
        g_mutex_unlock(lock);
}

static gpointer serve(gpointer data)
{
    struct worker *worker = data;
    g_mutex_lock(&worker->mutex);
    for (;;) {
        struct disk_request *request = worker->first;
        if (!request && worker->stopping)
            break;
        if (!request) {
            g_cond_wait(&worker->wake, &worker->mutex);
            continue;
        }
        worker->first = request->next;
        if (!worker->first)
            worker->last = &worker->first;
        g_mutex_unlock(&worker->mutex);
        finish_request(worker, request, carry_out(worker, request));
        g_mutex_lock(&worker->mutex);
        if (--worker->in_flight == 0) {
            worker->giving_up = worker->stopping;
            g_cond_broadcast(&worker->idle);
        }
    }
    g_mutex_unlock(&worker->mutex);
    return NULL;
}

static void worker_submit(struct disk *disk, struct disk_request *request)
{
    struct worker *worker = (struct worker *)disk;
    g_mutex_lock(&worker->mutex);
    if (!worker->thread)
        worker->thread = g_thread_new("disk", serve, worker);
    *worker->last = request;
    worker->last = &request->next;
    worker->in_flight++;
    g_cond_signal(&worker->wake);
    g_mutex_unlock(&worker->mutex);
}

static void worker_drain(struct disk *disk)
{
    struct worker *worker = (struct worker *)disk;
    g_mutex_lock(&worker->mutex);
    while (worker->in_flight)
        g_cond_wait(&worker->idle, &worker->mutex);
    g_mutex_unlock(&worker->mutex);
}

static void worker_retry(struct disk *disk, bool give_up)
{
    struct worker *worker = (struct worker *)disk;
    g_mutex_lock(&worker->mutex);
    if (give_up)
        worker->giving_up = worker->in_flight > 0;
    else if (worker->held == HELD)
        worker->held = RETRY;
    g_cond_signal(&worker->wake);
    g_mutex_unlock(&worker->mutex);
}

static void worker_free(struct disk *disk)
{
    struct worker *worker = (struct worker *)disk;
    g_mutex_lock(&worker->mutex);
    worker->stopping = worker->giving_up = true;
    g_cond_signal(&worker->wake);
    g_mutex_unlock(&worker->mutex);
    if (worker->thread)
        g_thread_join(worker->thread);
    worker->finish(worker);
    g_mutex_clear(&worker->mutex);
    g_cond_clear(&worker->wake);
    g_cond_clear(&worker->idle);
    g_free(disk->name);
    g_free(disk->identity);
    g_free(worker);
}

static const struct disk_ops worker_ops = {
    .submit = worker_submit,
    .drain = worker_drain,
    .free = worker_free,
    .retry = worker_retry,
};

void worker_init(struct worker *worker, const char *name,
                 int (*run)(struct worker *worker, const struct disk_request *request),
                 void (*finish)(struct worker *worker))
{
    worker->disk.ops = &worker_ops;
    worker->disk.name = g_strdup(name);
    worker->run = run;
    worker->finish = finish;
    worker->last = &worker->first;
    g_mutex_init(&worker->mutex);
    g_cond_init(&worker->wake);
    g_cond_init(&worker->idle);
}
