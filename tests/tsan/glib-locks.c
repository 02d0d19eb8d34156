/* GLib's locks for ThreadSanitizer (-Db_sanitize=thread). GLib itself is not instrumented and its
 * locks are futexes, so the sanitizer sees none of them and takes everything for a race. These
 * replace them, in the program, by the locks of the C library, which it knows. */
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <stdlib.h>

static void *fresh(void **where, void *made, void (*drop)(void *))
{
    void *expected = NULL;
    if (__atomic_compare_exchange_n(where, &expected, made, FALSE, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
        return made;
    drop(made);
    return expected;
}

static void drop_mutex(void *mutex)
{
    pthread_mutex_destroy(mutex);
    free(mutex);
}

static void drop_cond(void *cond)
{
    pthread_cond_destroy(cond);
    free(cond);
}

/* Zeroed ones are initialised by their first use. */
static pthread_mutex_t *mutex_of(GMutex *mutex)
{
    pthread_mutex_t *own = __atomic_load_n(&mutex->p, __ATOMIC_ACQUIRE);
    if (own)
        return own;
    own = malloc(sizeof *own);
    pthread_mutex_init(own, NULL);
    return fresh(&mutex->p, own, drop_mutex);
}

static pthread_cond_t *cond_of(GCond *cond)
{
    pthread_cond_t *own = __atomic_load_n(&cond->p, __ATOMIC_ACQUIRE);
    pthread_condattr_t attributes;
    if (own)
        return own;
    own = malloc(sizeof *own);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(own, &attributes);
    return fresh(&cond->p, own, drop_cond);
}

void g_mutex_init(GMutex *mutex)
{
    mutex->p = NULL;
}

void g_mutex_clear(GMutex *mutex)
{
    if (mutex->p)
        drop_mutex(mutex->p);
    mutex->p = NULL;
}

void g_mutex_lock(GMutex *mutex)
{
    if (pthread_mutex_lock(mutex_of(mutex)))
        abort();
}

gboolean g_mutex_trylock(GMutex *mutex)
{
    return pthread_mutex_trylock(mutex_of(mutex)) == 0;
}

void g_mutex_unlock(GMutex *mutex)
{
    if (pthread_mutex_unlock(mutex_of(mutex)))
        abort();
}

void g_cond_init(GCond *cond)
{
    cond->p = NULL;
}

void g_cond_clear(GCond *cond)
{
    if (cond->p)
        drop_cond(cond->p);
    cond->p = NULL;
}

void g_cond_wait(GCond *cond, GMutex *mutex)
{
    pthread_cond_wait(cond_of(cond), mutex_of(mutex));
}

gboolean g_cond_wait_until(GCond *cond, GMutex *mutex, gint64 end)
{
    struct timespec t = { end / G_USEC_PER_SEC, end % G_USEC_PER_SEC * 1000 };
    return pthread_cond_timedwait(cond_of(cond), mutex_of(mutex), &t) != ETIMEDOUT;
}

void g_cond_signal(GCond *cond)
{
    pthread_cond_signal(cond_of(cond));
}

void g_cond_broadcast(GCond *cond)
{
    pthread_cond_broadcast(cond_of(cond));
}
