/* The event loop; see loop.h. `mutex` is a leaf inside the sources' locks; the loop's thread never
 * holds it when it takes one of those. */
#include "base/loop.h"

#include "base/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS = 4,            /* taken from epoll at once */
    POLL_START_NS = 20000, /* the first window */
    POLL_MAX_NS = 200000,  /* a few wake-ups of a thread where they are dear: in a nested machine */
    POLL_TURNS = 64,       /* fruitful polls in a row, before descriptors have their turn */
    POLL_FAILURES = 3,     /* fruitless windows in a row: polling pauses */
    POLL_PAUSE_NS = 50000000,
    GIVE_WAY_NS = 20000, /* asleep, for a thread that waits for a lock */
    GIVE_WAY_MAX = 100,  /* times, should it have no processor */
};

struct loop {
    char *name; /* NULL: turned by hand, for tests */
    int epoll, wake;
    GThread *thread;
    bool may_poll; /* with one processor, polling would keep the guest from it */

    GMutex mutex; /* protects what follows */
    GCond change;
    struct loop_source *sources;
    bool paused, resting, quitting;
    unsigned lists, taken; /* changes of the list so far, and the last one that the thread knows */
    atomic_bool changed;   /* the list, a pause or the end: the thread looks */
    atomic_bool asleep;    /* or about to be: loop_wake must ring */
    atomic_uint waiting;   /* threads in loop_lock */

    /* the thread's */
    GPtrArray *served; /* its copy of the list */
    bool polls;        /* one of them does */
    int64_t window;    /* ns */
    unsigned failures; /* fruitless windows in a row */
    int64_t pause_end; /* no polling before */
};

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void ring(struct loop *loop)
{
    uint64_t one = 1;
    ssize_t ignored = write(loop->wake, &one, sizeof one);
    (void)ignored; /* full means that it is awake already */
}

/* Written with the source's lock held, but the thread looks without: it takes only locks of sources
 * that have work. */
static bool is_waked(const struct loop_source *source)
{
    return __atomic_load_n(&source->waked, __ATOMIC_RELAXED);
}

static void set_waked(struct loop_source *source, bool waked)
{
    __atomic_store_n(&source->waked, waked, __ATOMIC_RELAXED);
}

/* --- the thread ----------------------------------------------------------------------------- */

static void give_way(struct loop *loop)
{
    const struct timespec moment = { .tv_nsec = GIVE_WAY_NS };
    for (int i = 0; i < GIVE_WAY_MAX && atomic_load(&loop->waiting); i++)
        nanosleep(&moment, NULL);
}

/* Before each call. */
static inline void lock_source(struct loop *loop, struct loop_source *source)
{
    if (atomic_load_explicit(&loop->waiting, memory_order_relaxed))
        give_way(loop);
    g_mutex_lock(source->lock);
}

/* A call of a source, unless it was removed. True: there is more to do, or there was something. */
static bool call(struct loop *loop, struct loop_source *source,
                 bool (*op)(struct loop_source *source))
{
    lock_source(loop, source);
    bool result = source->loop == loop && op(source);
    g_mutex_unlock(source->lock);
    return result;
}

static bool ready(struct loop *loop, struct loop_source *source, uint32_t events)
{
    bool more = false;
    lock_source(loop, source);
    if (source->loop == loop && (events || is_waked(source))) {
        set_waked(source, false);
        more = source->ready(source, events);
        if (more)
            set_waked(source, true);
    }
    g_mutex_unlock(source->lock);
    return more;
}

static bool rest(struct loop_source *source)
{
    if (source->rest && source->rest(source))
        set_waked(source, true);
    return is_waked(source);
}

static void relax(void)
{
    for (int i = 0; i < 8; i++)
        __builtin_ia32_pause();
}

/* Looks for work for as long as the window says. True when there was some. */
static bool poll_sources(struct loop *loop)
{
    bool any = false;
    unsigned turns = 0;
    int64_t end = now() + loop->window;
    while (!atomic_load_explicit(&loop->changed, memory_order_relaxed)) {
        bool found = false;
        for (guint i = 0; i < loop->served->len; i++) {
            struct loop_source *source = g_ptr_array_index(loop->served, i);
            if (is_waked(source))
                return true;
            if (source->poll)
                found |= call(loop, source, source->poll);
        }
        any |= found;
        loop->failures = found ? 0 : loop->failures;
        if (found && ++turns == POLL_TURNS)
            break;
        if (found) {
            end = now() + loop->window;
            continue;
        }
        relax();
        if (now() >= end)
            break;
    }
    return any;
}

static bool rest_sources(struct loop *loop)
{
    bool more = false;
    for (guint i = 0; i < loop->served->len; i++) {
        struct loop_source *source = g_ptr_array_index(loop->served, i);
        if (source->rest || is_waked(source))
            more |= call(loop, source, rest);
    }
    return more;
}

/* How long the wait for work was decides whether polling would have paid. A single long one may be
 * another program that had the processor: the window halves, and a few of them end it. Where the
 * loop shares a processor with the guest that it waits for, every wait is short and yet no polling
 * finds anything: that shows in windows that fail. */
static void adapt(struct loop *loop, int64_t start)
{
    int64_t end = now(), waited = end - start;
    if (loop->window && ++loop->failures >= POLL_FAILURES) {
        loop->failures = 0;
        loop->pause_end = end + POLL_PAUSE_NS;
    }
    if (!loop->may_poll || !loop->polls || end < loop->pause_end)
        loop->window = 0;
    else if (waited > POLL_MAX_NS)
        loop->window = loop->window > POLL_START_NS ? loop->window / 2 : 0;
    else if (waited > loop->window)
        loop->window = CLAMP(loop->window * 2, POLL_START_NS, POLL_MAX_NS);
}

/* Waits, at most `timeout` ms, and serves what is ready. True: there is more to do. */
static bool take_events(struct loop *loop, int timeout)
{
    struct epoll_event events[EVENTS];
    bool more = false;
    int count = epoll_wait(loop->epoll, events, EVENTS, timeout);
    atomic_store(&loop->asleep, false);
    for (int i = 0; i < count; i++)
        if (events[i].data.ptr)
            more |= ready(loop, events[i].data.ptr, events[i].events);
    for (guint i = 0; i < loop->served->len; i++) {
        struct loop_source *source = g_ptr_array_index(loop->served, i);
        if (atomic_load_explicit(&loop->changed, memory_order_relaxed))
            return true; /* a pause waits for no more than the call at work */
        if (is_waked(source))
            more |= ready(loop, source, 0);
    }
    return more;
}

/* A new list, a pause; false: the end. */
static bool take_changes(struct loop *loop)
{
    g_mutex_lock(&loop->mutex);
    loop->resting = loop->paused;
    if (loop->resting)
        g_cond_broadcast(&loop->change);
    while (loop->paused && !loop->quitting)
        g_cond_wait(&loop->change, &loop->mutex);
    loop->resting = false;
    atomic_store(&loop->changed, false);
    g_ptr_array_set_size(loop->served, 0);
    loop->polls = false;
    for (struct loop_source *s = loop->sources; s; s = s->next) {
        g_ptr_array_add(loop->served, s);
        loop->polls |= s->poll != NULL;
    }
    loop->taken = loop->lists;
    g_cond_broadcast(&loop->change);
    bool go = !loop->quitting;
    g_mutex_unlock(&loop->mutex);
    return go;
}

static gpointer run(gpointer data)
{
    struct loop *loop = data;
    bool more = false;
    for (;;) {
        if (atomic_load(&loop->changed) && !take_changes(loop))
            return NULL;
        int64_t start = now();
        if (!more && loop->window)
            more = poll_sources(loop);
        if (!more) {
            atomic_store(&loop->asleep, true); /* who wakes a source from here on, rings */
            more = rest_sources(loop);
        }
        bool slept = !more && !atomic_load(&loop->changed);
        more = take_events(loop, slept ? -1 : 0);
        if (slept)
            adapt(loop, start);
    }
}

/* --- life and sources ----------------------------------------------------------------------- */

struct loop *loop_new(const char *name)
{
    struct loop *loop = g_new0(struct loop, 1);
    loop->name = g_strdup(name);
    loop->epoll = loop->wake = -1;
    loop->may_poll = sysconf(_SC_NPROCESSORS_ONLN) > 1;
    loop->served = g_ptr_array_new();
    g_mutex_init(&loop->mutex);
    g_cond_init(&loop->change);
    return loop;
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    g_mutex_lock(&loop->mutex);
    loop->quitting = true;
    atomic_store(&loop->changed, true);
    g_cond_broadcast(&loop->change);
    g_mutex_unlock(&loop->mutex);
    if (loop->thread) {
        ring(loop);
        g_thread_join(loop->thread);
    }
    if (loop->epoll >= 0)
        close(loop->epoll);
    if (loop->wake >= 0)
        close(loop->wake);
    g_ptr_array_unref(loop->served);
    g_mutex_clear(&loop->mutex);
    g_cond_clear(&loop->change);
    g_free(loop->name);
    g_free(loop);
}

/* What the first source needs. Mutex held. */
static bool begin(struct loop *loop)
{
    g_autoptr(GError) error = NULL;
    struct epoll_event event = { .events = EPOLLIN | EPOLLET };
    if (loop->epoll < 0)
        loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (loop->wake < 0)
        loop->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll < 0 || loop->wake < 0 ||
        (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->wake, &event) < 0 && errno != EEXIST)) {
        log_warn(loop->name, "it cannot be served: %s", g_strerror(errno));
        return false;
    }
    if (loop->name && !loop->thread)
        loop->thread = g_thread_try_new(loop->name, run, loop, &error);
    if (error)
        log_warn(loop->name, "it cannot be served: %s", error->message);
    return !error;
}

static bool watch(struct loop *loop, struct loop_source *source, int op, uint32_t events)
{
    /* Epoll tells of a hang-up even who wants to hear nothing: once is enough. */
    struct epoll_event event = { .events = events ? events : EPOLLET, .data.ptr = source };
    if (source->fd < 0 || epoll_ctl(loop->epoll, op, source->fd, &event) == 0)
        return true;
    log_warn(loop->name, "a descriptor cannot be watched: %s", g_strerror(errno));
    return false;
}

/* Mutex held. */
static void list_changed(struct loop *loop)
{
    loop->lists++;
    atomic_store(&loop->changed, true);
    ring(loop);
}

bool loop_add(struct loop *loop, struct loop_source *source, uint32_t events)
{
    g_mutex_lock(&loop->mutex);
    bool ok = begin(loop) && watch(loop, source, EPOLL_CTL_ADD, events);
    if (ok) {
        source->loop = loop;
        source->events = events;
        set_waked(source, false);
        source->next = loop->sources;
        loop->sources = source;
        list_changed(loop);
    }
    g_mutex_unlock(&loop->mutex);
    return ok;
}

void loop_change(struct loop_source *source, uint32_t events)
{
    if (source->loop && source->events != events &&
        watch(source->loop, source, EPOLL_CTL_MOD, events))
        source->events = events;
}

void loop_remove(struct loop_source *source)
{
    struct loop *loop = source->loop;
    if (!loop)
        return;
    g_mutex_lock(&loop->mutex);
    struct loop_source **at = &loop->sources;
    while (*at != source)
        at = &(*at)->next;
    *at = source->next;
    watch(loop, source, EPOLL_CTL_DEL, 0);
    source->loop = NULL;
    list_changed(loop);
    g_mutex_unlock(&loop->mutex);
}

void loop_settle(struct loop *loop)
{
    g_mutex_lock(&loop->mutex);
    unsigned wanted = loop->lists;
    while (loop->thread && !loop->resting && (int)(loop->taken - wanted) < 0)
        g_cond_wait(&loop->change, &loop->mutex);
    g_mutex_unlock(&loop->mutex);
}

void loop_wake(struct loop_source *source)
{
    struct loop *loop = source->loop;
    if (!loop || is_waked(source))
        return;
    set_waked(source, true);
    atomic_thread_fence(memory_order_seq_cst); /* rest_sources: the other way round, no lock */
    if (atomic_load(&loop->asleep))
        ring(loop);
}

void loop_lock(struct loop *loop, GMutex *lock)
{
    if (!loop) {
        g_mutex_lock(lock);
        return;
    }
    atomic_fetch_add(&loop->waiting, 1);
    g_mutex_lock(lock);
    atomic_fetch_sub(&loop->waiting, 1);
}

void loop_pause(struct loop *loop)
{
    if (!loop)
        return;
    g_mutex_lock(&loop->mutex);
    loop->paused = true;
    atomic_store(&loop->changed, true);
    if (loop->thread) {
        ring(loop);
        while (!loop->resting)
            g_cond_wait(&loop->change, &loop->mutex);
    }
    g_mutex_unlock(&loop->mutex);
}

void loop_resume(struct loop *loop)
{
    if (!loop)
        return;
    g_mutex_lock(&loop->mutex);
    loop->paused = false;
    g_cond_broadcast(&loop->change);
    g_mutex_unlock(&loop->mutex);
}

bool loop_turn(struct loop *loop)
{
    if (loop->epoll < 0 || loop->paused || !take_changes(loop))
        return false;
    bool more = rest_sources(loop);
    return take_events(loop, 0) || more;
}
