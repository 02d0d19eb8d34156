/* The machine's clock; see clock.h for who may call what. */
#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define FAR_NS (24 * 3600 * NS_PER_SECOND) /* the longest sleep */

struct clock {
    bool manual;
    pthread_t thread;
    bool has_thread;

    /* Guest time = host monotonic time + offset while running, else `stopped_at`. */
    _Atomic int64_t offset;
    _Atomic uint64_t stopped_at;
    atomic_bool running;

    pthread_mutex_t lock; /* protects what follows; a leaf */
    pthread_cond_t changed;
    pthread_cond_t idle; /* no callback is running */
    GSequence *timers;   /* sorted by deadline */
    bool in_callback, quit;
};

static uint64_t host_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

static int by_deadline(const void *a, const void *b, void *unused)
{
    const struct timer *x = a, *y = b;
    (void)unused;
    return (x->deadline > y->deadline) - (x->deadline < y->deadline);
}

/* The first timer that is due at `now`, taken from the queue; NULL when none. Clock lock held. */
static struct timer *take_due(struct clock *clock, uint64_t now)
{
    GSequenceIter *first = g_sequence_get_begin_iter(clock->timers);
    if (g_sequence_iter_is_end(first))
        return NULL;
    struct timer *timer = g_sequence_get(first);
    return timer->deadline <= now ? timer : NULL;
}

static void unqueue(struct timer *timer)
{
    if (timer->place)
        g_sequence_remove(timer->place);
    timer->place = NULL;
    timer->deadline = TIMER_NEVER;
}

/* Runs a due timer. Its owner's lock comes before the clock's, so let go, take both in order, and
 * look again: the owner may have moved or cancelled it meanwhile. Called and left with the clock
 * lock held. */
static void run_timer(struct clock *clock, struct timer *timer, uint64_t now)
{
    clock->in_callback = true;
    pthread_mutex_unlock(&clock->lock);
    g_mutex_lock(timer->lock);
    pthread_mutex_lock(&clock->lock);
    bool due = timer->place && timer->deadline <= now;
    if (due)
        unqueue(timer);
    pthread_mutex_unlock(&clock->lock);
    if (due)
        timer->run(timer->owner);
    g_mutex_unlock(timer->lock);
    pthread_mutex_lock(&clock->lock);
    clock->in_callback = false;
    pthread_cond_broadcast(&clock->idle);
}

static void *clock_thread(void *data)
{
    struct clock *clock = data;
    pthread_mutex_lock(&clock->lock);
    while (!clock->quit) {
        GSequenceIter *first = g_sequence_get_begin_iter(clock->timers);
        if (!atomic_load(&clock->running) || g_sequence_iter_is_end(first)) {
            pthread_cond_wait(&clock->changed, &clock->lock);
            continue;
        }
        uint64_t now = clock_now(clock);
        struct timer *timer = take_due(clock, now);
        if (timer) {
            run_timer(clock, timer, now);
            continue;
        }
        timer = g_sequence_get(first);
        /* Host time, which wraps around long after any guest; a deadline may be anything. */
        uint64_t ahead = MIN(timer->deadline - now, FAR_NS);
        uint64_t wake = now - (uint64_t)atomic_load(&clock->offset) + ahead;
        struct timespec until = { .tv_sec = (time_t)(wake / NS_PER_SECOND),
                                  .tv_nsec = (long)(wake % NS_PER_SECOND) };
        if (until.tv_sec < 0)
            until.tv_sec = INT32_MAX;
        pthread_cond_timedwait(&clock->changed, &clock->lock, &until);
    }
    pthread_mutex_unlock(&clock->lock);
    return NULL;
}

struct clock *clock_new(bool manual)
{
    struct clock *clock = g_new0(struct clock, 1);
    clock->manual = manual;
    clock->timers = g_sequence_new(NULL);
    pthread_mutex_init(&clock->lock, NULL);
    pthread_cond_init(&clock->idle, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&clock->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return clock;
}

void clock_free(struct clock *clock)
{
    if (!clock)
        return;
    if (clock->has_thread) {
        pthread_mutex_lock(&clock->lock);
        clock->quit = true;
        pthread_cond_signal(&clock->changed);
        pthread_mutex_unlock(&clock->lock);
        pthread_join(clock->thread, NULL);
    }
    g_assert(g_sequence_is_empty(clock->timers)); /* owners end before their clock */
    g_sequence_free(clock->timers);
    pthread_cond_destroy(&clock->changed);
    pthread_cond_destroy(&clock->idle);
    pthread_mutex_destroy(&clock->lock);
    g_free(clock);
}

uint64_t clock_now(struct clock *clock)
{
    if (clock->manual || !atomic_load(&clock->running))
        return atomic_load(&clock->stopped_at);
    return host_now() + (uint64_t)atomic_load(&clock->offset);
}

void clock_set(struct clock *clock, uint64_t now)
{
    atomic_store(&clock->stopped_at, now);
}

/* The thread starts with the first timer that needs it: a machine that sets none never wakes. */
static void wake_thread(struct clock *clock)
{
    if (clock->manual)
        return;
    if (!clock->has_thread)
        clock->has_thread = pthread_create(&clock->thread, NULL, clock_thread, clock) == 0;
    pthread_cond_signal(&clock->changed);
}

void clock_start(struct clock *clock)
{
    pthread_mutex_lock(&clock->lock);
    if (!atomic_load(&clock->running)) {
        atomic_store(&clock->offset, (int64_t)(atomic_load(&clock->stopped_at) - host_now()));
        atomic_store(&clock->running, true);
        if (!g_sequence_is_empty(clock->timers))
            wake_thread(clock);
    }
    pthread_mutex_unlock(&clock->lock);
}

void clock_stop(struct clock *clock)
{
    pthread_mutex_lock(&clock->lock);
    if (atomic_load(&clock->running)) {
        atomic_store(&clock->stopped_at, clock_now(clock));
        atomic_store(&clock->running, false);
    }
    while (clock->in_callback)
        pthread_cond_wait(&clock->idle, &clock->lock);
    pthread_mutex_unlock(&clock->lock);
}

void clock_advance(struct clock *clock, uint64_t ns, unsigned limit)
{
    uint64_t end = atomic_load(&clock->stopped_at) + ns;
    pthread_mutex_lock(&clock->lock);
    struct timer *timer;
    for (unsigned ran = 0; (!limit || ran < limit) && (timer = take_due(clock, end)); ran++) {
        uint64_t now = MAX(timer->deadline, atomic_load(&clock->stopped_at));
        atomic_store(&clock->stopped_at, now);
        run_timer(clock, timer, now);
    }
    atomic_store(&clock->stopped_at, end);
    pthread_mutex_unlock(&clock->lock);
}

void timer_init(struct timer *timer, struct clock *clock, GMutex *lock, void (*run)(void *owner),
                void *owner)
{
    *timer = (struct timer){
        .clock = clock, .lock = lock, .run = run, .owner = owner, .deadline = TIMER_NEVER
    };
}

void timer_set(struct timer *timer, uint64_t deadline)
{
    struct clock *clock = timer->clock;
    pthread_mutex_lock(&clock->lock);
    if (deadline == timer->deadline) {
        pthread_mutex_unlock(&clock->lock);
        return;
    }
    unqueue(timer);
    timer->deadline = deadline;
    if (deadline != TIMER_NEVER) {
        timer->place = g_sequence_insert_sorted(clock->timers, timer, by_deadline, NULL);
        if (g_sequence_iter_is_begin(timer->place)) /* else the thread wakes early enough */
            wake_thread(clock);
    }
    pthread_mutex_unlock(&clock->lock);
}

void timer_cancel(struct timer *timer)
{
    timer_set(timer, TIMER_NEVER);
}

void timer_poke(struct timer *timer)
{
    timer_set(timer, 0);
}

bool timer_armed(const struct timer *timer)
{
    pthread_mutex_lock(&timer->clock->lock);
    bool armed = timer->deadline != TIMER_NEVER;
    pthread_mutex_unlock(&timer->clock->lock);
    return armed;
}

void timer_finish(struct timer *timer)
{
    if (!timer->clock)
        return;
    timer_cancel(timer);
    /* The thread may hold a pointer to it still, between its two looks. */
    pthread_mutex_lock(&timer->clock->lock);
    while (timer->clock->in_callback && !timer->clock->manual)
        pthread_cond_wait(&timer->clock->idle, &timer->clock->lock);
    pthread_mutex_unlock(&timer->clock->lock);
}

uint64_t muldiv64(uint64_t value, uint64_t multiplier, uint64_t divisor)
{
    unsigned __int128 wide = (unsigned __int128)value * multiplier / divisor;
    return wide > UINT64_MAX ? UINT64_MAX : (uint64_t)wide;
}
