/* The threads of a disk, for what must block. They are started as requests come, and each carries
 * out one request at a time. What a kind of disk adds is how that is done. */
#pragma once
#include "base/log.h"
#include "block/disk.h"

#include <stdatomic.h>

enum { WORKER_THREADS = 4 };

struct worker {
    struct disk disk;
    /* Carries a request out, on a thread of the worker or of disk_now, with no lock held: 0 or a
     * positive errno.
     * May be called again for the same request after ENOSPC or EDQUOT. */
    int (*run)(struct worker *worker, const struct disk_request *request);
    void (*finish)(struct worker *worker); /* closes what the kind of disk opened */
    /* NULL, or what worker_later asked for: on a thread of the worker that has nothing else to do,
     * with no lock held. */
    void (*later)(struct worker *worker);
    unsigned most; /* threads */

    /* Writes that do not fit fail, until nothing is in flight. Changed with the mutex held. */
    atomic_bool giving_up;

    GMutex mutex; /* protects what follows; a leaf */
    GCond wake;   /* a thread: there is work, or an end */
    GCond answer; /* held writes: try again, or give up */
    GCond idle;   /* drain: nothing is in flight */
    GThread *threads[WORKER_THREADS];
    unsigned thread_count, waiting; /* of them, for work */
    struct disk_request *first, **last;
    unsigned queued, in_flight;
    unsigned tries; /* answers so far */
    bool asked;     /* the machine was told that the host's disk is full */
    bool stopping;
    gint64 due;    /* of `later`, in g_get_monotonic_time; 0: nothing was asked for */
    guint refusal; /* the main loop's source that refuses requests: there is no thread */
    struct log_limit log;
};

/* Initialises a zeroed worker, the first member of its disk, with at most `threads` threads. `name`
 * is copied; disk.size and disk.readonly are the caller's. disk_free frees it with g_free, after
 * `finish`. */
void worker_init(struct worker *worker, const char *name, unsigned threads,
                 int (*run)(struct worker *worker, const struct disk_request *request),
                 void (*finish)(struct worker *worker));

/* For a disk that has the worker beside an engine of its own, and so disk_ops of its own. The
 * owner's lock is held around worker_take, and may be around worker_busy. */
void worker_take(struct worker *worker, struct disk_request *request);
bool worker_busy(struct worker *worker);
/* Has `later` called once, in about so many microseconds, if that was not asked for yet; not any
 * more when the disk is freed. From `run`. */
void worker_later(struct worker *worker, gint64 delay);
/* Before a new request while nothing else is in flight: writes are held again. */
void worker_forgive(struct worker *worker);
/* disk_ops */
int worker_now(struct disk *disk, const struct disk_request *request);
void worker_drain(struct disk *disk);
void worker_retry(struct disk *disk, bool give_up);
void worker_free(struct disk *disk);
