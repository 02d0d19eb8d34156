/* A disk whose requests are served one after the other by a thread of its own, started at the first
 * request. What a kind of disk adds is how one request is carried out. */
#pragma once
#include "base/log.h"
#include "block/disk.h"

struct worker {
    struct disk disk;
    /* Carries a request out, on the worker's thread with no lock held: 0 or a positive errno. May
     * be called again for the same request after ENOSPC or EDQUOT. */
    int (*run)(struct worker *worker, const struct disk_request *request);
    void (*finish)(struct worker *worker); /* closes what the kind of disk opened */

    struct log_limit log; /* the worker's thread */

    GMutex mutex; /* protects what follows; a leaf */
    GCond wake;   /* the worker: there is work, an end, or an answer for the held request */
    GCond idle;   /* drain: nothing is in flight */
    GThread *thread;
    struct disk_request *first, **last;
    unsigned in_flight;
    enum { NOT_HELD, HELD, RETRY } held;
    bool giving_up; /* writes that do not fit fail, until nothing is in flight */
    bool stopping;
};

/* Initialises a zeroed worker, the first member of its disk. `name` is copied; disk.size and
 * disk.readonly are the caller's. disk_free frees it with g_free, after `finish`. */
void worker_init(struct worker *worker, const char *name,
                 int (*run)(struct worker *worker, const struct disk_request *request),
                 void (*finish)(struct worker *worker));
