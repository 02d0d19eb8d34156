/* Event loops: by hand, step by step; and with their thread, against many others. */
#include "base/loop.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROUNDS = 2000 };

/* What a device would be: a lock, a source, and what it did. */
struct owner {
    struct loop_source source;
    GMutex lock;
    GCond cond;
    unsigned readies, polls, rests; /* calls */
    uint32_t events;                /* of the last `ready` */
    unsigned work;                  /* units that are left; `ready` does one at a time */
    unsigned done;
    bool resting; /* the guest is to notify: `rest` was the last call */
};

static void notify(int fd)
{
    uint64_t one = 1;
    g_assert_cmpint(write(fd, &one, sizeof one), ==, sizeof one);
}

static bool on_ready(struct loop_source *source, uint32_t events)
{
    struct owner *owner = source->opaque;
    owner->readies++;
    owner->events = events;
    owner->resting = false;
    if (owner->work) {
        owner->work--;
        owner->done++;
        g_cond_signal(&owner->cond);
    }
    return owner->work;
}

static bool on_poll(struct loop_source *source)
{
    struct owner *owner = source->opaque;
    owner->polls++;
    bool found = owner->work;
    if (found)
        on_ready(source, 0);
    return found;
}

static bool on_rest(struct loop_source *source)
{
    struct owner *owner = source->opaque;
    owner->rests++;
    owner->resting = true;
    return owner->work;
}

static void init(struct owner *owner, int fd)
{
    memset(owner, 0, sizeof *owner);
    g_mutex_init(&owner->lock);
    g_cond_init(&owner->cond);
    owner->source =
        (struct loop_source){ .fd = fd, .lock = &owner->lock, .opaque = owner, .ready = on_ready };
}

static void add(struct loop *loop, struct owner *owner, uint32_t events)
{
    g_mutex_lock(&owner->lock);
    g_assert_true(loop_add(loop, &owner->source, events));
    g_mutex_unlock(&owner->lock);
}

static void remove_source(struct owner *owner)
{
    g_mutex_lock(&owner->lock);
    loop_remove(&owner->source);
    g_assert_null(owner->source.loop);
    g_mutex_unlock(&owner->lock);
}

static void wake(struct owner *owner)
{
    g_mutex_lock(&owner->lock);
    loop_wake(&owner->source);
    g_mutex_unlock(&owner->lock);
}

/* Waits until so much work is done. */
static void await(struct owner *owner, unsigned done)
{
    int64_t end = g_get_monotonic_time() + 20 * G_TIME_SPAN_SECOND;
    g_mutex_lock(&owner->lock);
    while (owner->done < done)
        g_assert_true(g_cond_wait_until(&owner->cond, &owner->lock, end));
    g_mutex_unlock(&owner->lock);
}

static void give(struct owner *owner, unsigned work)
{
    g_mutex_lock(&owner->lock);
    owner->work += work;
    g_mutex_unlock(&owner->lock);
}

/* --- by hand --------------------------------------------------------------------------------- */

static void serves_descriptors(void)
{
    struct owner owner;
    struct loop *loop = loop_new(NULL);
    int fd = eventfd(0, EFD_NONBLOCK);
    g_assert_false(loop_turn(loop)); /* nothing was ever added */
    init(&owner, fd);
    add(loop, &owner, EPOLLIN | EPOLLET);
    loop_turn(loop);
    g_assert_cmpuint(owner.readies, ==, 0);
    notify(fd);
    loop_turn(loop);
    g_assert_cmpuint(owner.readies, ==, 1);
    g_assert_cmpuint(owner.events, ==, EPOLLIN);
    loop_turn(loop); /* edge-triggered: needs no read */
    g_assert_cmpuint(owner.readies, ==, 1);
    notify(fd);
    loop_turn(loop);
    g_assert_cmpuint(owner.readies, ==, 2);

    remove_source(&owner);
    notify(fd);
    loop_turn(loop);
    g_assert_cmpuint(owner.readies, ==, 2);
    remove_source(&owner); /* not added: nothing */
    wake(&owner);
    loop_turn(loop);
    g_assert_cmpuint(owner.readies, ==, 2);
    loop_free(loop);
    close(fd);
}

static void serves_what_is_left(void)
{
    struct owner owner;
    struct loop *loop = loop_new(NULL);
    init(&owner, -1);
    add(loop, &owner, 0);
    owner.work = 3;
    wake(&owner);
    g_assert_true(loop_turn(loop));
    g_assert_cmpuint(owner.done, ==, 1); /* one call each turn: others have theirs */
    g_assert_true(loop_turn(loop));
    loop_turn(loop);
    g_assert_cmpuint(owner.done, ==, 3);
    g_assert_cmpuint(owner.events, ==, 0);
    g_assert_false(loop_turn(loop));
    g_assert_cmpuint(owner.readies, ==, 3);
    loop_free(loop);
}

static void asks_before_it_sleeps(void)
{
    struct owner owner;
    struct loop *loop = loop_new(NULL);
    init(&owner, -1);
    owner.source.rest = on_rest;
    add(loop, &owner, 0);
    g_assert_false(loop_turn(loop));
    g_assert_cmpuint(owner.rests, ==, 1);
    owner.work = 1; /* came between the last look and the request for notifications */
    loop_turn(loop);
    g_assert_cmpuint(owner.done, ==, 1);
    loop_free(loop);
}

static void watches_what_is_wanted(void)
{
    struct owner owner;
    struct loop *loop = loop_new(NULL);
    int pair[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
    init(&owner, pair[0]);
    add(loop, &owner, EPOLLIN);
    loop_turn(loop);
    g_assert_cmpuint(owner.readies, ==, 0);
    loop_change(&owner.source, EPOLLIN | EPOLLOUT);
    loop_turn(loop);
    g_assert_cmpuint(owner.events, ==, EPOLLOUT);
    loop_change(&owner.source, 0);
    g_assert_cmpint(write(pair[1], "x", 1), ==, 1);
    unsigned before = owner.readies;
    loop_turn(loop);
    g_assert_cmpuint(owner.readies, ==, before);

    close(pair[1]); /* epoll always tells of a hang-up: once */
    for (int i = 0; i < 5; i++)
        loop_turn(loop);
    g_assert_cmpuint(owner.readies, <=, before + 1);
    loop_change(&owner.source, EPOLLIN);
    loop_turn(loop);
    g_assert_cmpuint(owner.events & (EPOLLIN | EPOLLHUP), ==, EPOLLIN | EPOLLHUP);
    loop_free(loop);
    close(pair[0]);
}

static void refuses_what_epoll_does(void)
{
    struct owner owner;
    struct loop *loop = loop_new(NULL);
    init(&owner, open("/", O_RDONLY | O_DIRECTORY)); /* is always ready: EPERM */
    g_assert_cmpint(owner.source.fd, >=, 0);
    g_mutex_lock(&owner.lock);
    g_assert_false(loop_add(loop, &owner.source, EPOLLIN));
    loop_wake(&owner.source); /* not added: nothing */
    g_mutex_unlock(&owner.lock);
    close(owner.source.fd);
    loop_free(loop);
    loop_free(NULL);
    loop_pause(NULL);
    loop_resume(NULL);
}

/* --- with its thread ------------------------------------------------------------------------- */

static void wakes_are_not_lost(void)
{
    struct owner owner;
    struct loop *loop = loop_new("test");
    init(&owner, -1);
    owner.source.rest = on_rest;
    add(loop, &owner, 0);
    for (unsigned i = 1; i <= ROUNDS; i++) {
        g_mutex_lock(&owner.lock);
        owner.work++;
        loop_wake(&owner.source);
        g_mutex_unlock(&owner.lock);
        await(&owner, i);
        if (i % 500 == 0)
            g_usleep(500); /* asleep for sure */
    }
    loop_free(loop);
}

static void descriptors_are_not_lost(void)
{
    struct owner owner;
    struct loop *loop = loop_new("test");
    int fd = eventfd(0, EFD_NONBLOCK);
    init(&owner, fd);
    owner.source.poll = on_poll;
    owner.source.rest = on_rest;
    add(loop, &owner, EPOLLIN | EPOLLET);
    /* A guest: notifies only when it was asked to. */
    for (unsigned i = 1; i <= ROUNDS; i++) {
        g_mutex_lock(&owner.lock);
        owner.work++;
        bool wanted = owner.resting;
        g_mutex_unlock(&owner.lock);
        if (wanted)
            notify(fd);
        await(&owner, i);
    }
    loop_free(loop);
    close(fd);
}

/* The thread sleeps when nothing happens, and an idle one uses no time at all. */
static void idle_sleeps(void)
{
    struct owner owner;
    struct loop *loop = loop_new("test");
    init(&owner, -1);
    owner.source.poll = on_poll;
    owner.source.rest = on_rest;
    add(loop, &owner, 0);
    for (unsigned i = 1; i <= 100; i++) {
        give(&owner, 1);
        wake(&owner);
        await(&owner, i);
    }
    g_usleep(20000); /* ends the window */
    give(&owner, 1);
    wake(&owner);
    await(&owner, 101);
    g_usleep(20000);
    g_mutex_lock(&owner.lock);
    unsigned polls = owner.polls, rests = owner.rests;
    g_mutex_unlock(&owner.lock);
    g_usleep(20000);
    g_mutex_lock(&owner.lock);
    g_assert_cmpuint(owner.polls, ==, polls);
    g_assert_cmpuint(owner.rests, ==, rests);
    g_mutex_unlock(&owner.lock);
    loop_free(loop);
}

static void pauses(void)
{
    struct owner owner;
    struct loop *loop = loop_new("test");
    int fd = eventfd(0, EFD_NONBLOCK);
    loop_pause(loop); /* before there is a thread */
    loop_resume(loop);
    init(&owner, fd);
    add(loop, &owner, EPOLLIN | EPOLLET);
    for (unsigned i = 1; i <= 200; i++) {
        loop_pause(loop);
        owner.work++; /* without the lock: nobody is called */
        unsigned done = owner.done;
        if (i % 2)
            notify(fd);
        else
            wake(&owner);
        if (i % 50 == 0)
            g_usleep(1000);
        g_assert_cmpuint(owner.done, ==, done);
        loop_resume(loop);
        await(&owner, i); /* what came meanwhile was not lost */
    }
    loop_pause(loop);
    loop_free(loop); /* ends a paused one, too */
    close(fd);
}

/* Sources come and go while others work; what was removed and settled may be freed. */
static gpointer come_and_go(gpointer data)
{
    struct loop *loop = data;
    for (int i = 0; i < 200; i++) {
        struct owner *owner = g_new(struct owner, 1);
        int fd = eventfd(0, EFD_NONBLOCK);
        init(owner, fd);
        owner->source.poll = on_poll;
        owner->source.rest = on_rest;
        owner->work = 3;
        add(loop, owner, EPOLLIN | EPOLLET);
        notify(fd);
        if (i % 2)
            await(owner, 3);
        g_mutex_lock(&owner->lock);
        loop_remove(&owner->source);
        unsigned done = owner->done;
        g_mutex_unlock(&owner->lock);
        loop_settle(loop);
        g_assert_cmpuint(owner->done, ==, done); /* never called again */
        g_mutex_clear(&owner->lock);
        g_cond_clear(&owner->cond);
        memset(owner, 0xa5, sizeof *owner);
        g_free(owner);
        close(fd);
    }
    return NULL;
}

static void sources_come_and_go(void)
{
    struct owner owner;
    struct loop *loop = loop_new("test");
    GThread *threads[3];
    init(&owner, -1);
    add(loop, &owner, 0);
    for (int i = 0; i < 3; i++)
        threads[i] = g_thread_new("comer", come_and_go, loop);
    for (unsigned i = 1; i <= 500; i++) {
        if (i % 50 == 0)
            loop_pause(loop);
        give(&owner, 1);
        wake(&owner);
        if (i % 50 == 0)
            loop_resume(loop);
        await(&owner, i);
    }
    for (int i = 0; i < 3; i++)
        g_thread_join(threads[i]);
    loop_free(loop);
}

/* A turn that takes a while, with more to do after it, for ever. */
static bool on_long_ready(struct loop_source *source, uint32_t events)
{
    struct owner *owner = source->opaque;
    int64_t end = g_get_monotonic_time() + 1000;
    (void)events;
    g_atomic_int_inc(&owner->readies);
    while (g_get_monotonic_time() < end)
        ;
    return true;
}

/* Whoever takes the lock by loop_lock waits for the turn at work, and for no other (a host that
 * gives this thread no processor for long makes it a few), also where both have one processor. */
static void lets_others_go_first(void)
{
    enum { TIMES = 50, TURNS = 6 };
    struct owner owner;
    struct loop *loop = loop_new("test");
    unsigned turns = 0;
    cpu_set_t all, one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    g_assert_cmpint(sched_getaffinity(0, sizeof all, &all), ==, 0);
    g_assert_cmpint(sched_setaffinity(0, sizeof one, &one), ==, 0);
    init(&owner, -1);
    owner.source.ready = on_long_ready;
    add(loop, &owner, 0);
    wake(&owner);
    for (unsigned i = 0; i < TIMES; i++) {
        g_usleep(3000);
        unsigned before = g_atomic_int_get(&owner.readies);
        loop_lock(loop, &owner.lock);
        turns += owner.readies - before;
        g_mutex_unlock(&owner.lock);
    }
    g_assert_cmpuint(owner.readies, >, TIMES);
    g_assert_cmpuint(turns, <, TIMES * TURNS);
    g_test_message("%u turns for %u locks", turns, TIMES);
    loop_free(loop);
    g_assert_cmpint(sched_setaffinity(0, sizeof all, &all), ==, 0);
    loop_lock(NULL, &owner.lock);
    g_assert_false(g_mutex_trylock(&owner.lock));
    g_mutex_unlock(&owner.lock);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/loop/serves-descriptors", serves_descriptors);
    g_test_add_func("/loop/serves-what-is-left", serves_what_is_left);
    g_test_add_func("/loop/asks-before-it-sleeps", asks_before_it_sleeps);
    g_test_add_func("/loop/watches-what-is-wanted", watches_what_is_wanted);
    g_test_add_func("/loop/refuses-what-epoll-does", refuses_what_epoll_does);
    g_test_add_func("/loop/wakes-are-not-lost", wakes_are_not_lost);
    g_test_add_func("/loop/descriptors-are-not-lost", descriptors_are_not_lost);
    g_test_add_func("/loop/idle-sleeps", idle_sleeps);
    g_test_add_func("/loop/pauses", pauses);
    g_test_add_func("/loop/sources-come-and-go", sources_come_and_go);
    g_test_add_func("/loop/lets-others-go-first", lets_others_go_first);
    return g_test_run();
}
