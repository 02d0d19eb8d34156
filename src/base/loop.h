/* An event loop: one thread that sleeps until a descriptor is ready, and after work polls for a
 * while instead. The data plane of a device (its virtqueues, NVMe queues, packets) runs on the
 * device's loop; the thread starts with the first source.
 *
 * Each source has the lock of its owner: the loop takes it around every call, and the owner holds
 * it when it adds, changes or removes the source, so a removed source is never called again (its
 * memory and its lock stay until loop_settle or loop_free). A call does a bounded batch of work and
 * never waits.
 *
 * Polling is adaptive, as KVM's halt polling is: a descriptor that became ready soon after the
 * loop went to sleep makes the window longer, one that came late ends it. An idle loop sleeps. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct loop;

struct loop_source {
    int fd; /* -1: none, only polled and waked */
    GMutex *lock;
    void *opaque;
    /* The descriptor is ready (`events` of epoll), or the source was waked or left work over
     * (events 0). True: there is more to do; it is called again after the others had a turn. */
    bool (*ready)(struct loop_source *source, uint32_t events);
    /* Optional. Looks for work without being told; true: it found some. Called in turns between
     * `ready` and sleep. */
    bool (*poll)(struct loop_source *source);
    /* Optional. The loop is about to sleep: ask the guest for notifications again. True: there is
     * work after all, `ready` is called. */
    bool (*rest)(struct loop_source *source);

    /* the loop's */
    struct loop *loop; /* NULL: not added */
    struct loop_source *next;
    uint32_t events; /* watched for */
    bool waked;
};

/* name: of the thread. NULL: it has none and is turned by hand, for tests. */
struct loop *loop_new(const char *name);
/* Ends the thread. Without sources, or when none of them will be used again. NULL is allowed. */
void loop_free(struct loop *loop);

/* Epoll events (EPOLLIN, EPOLLOUT, EPOLLET for eventfds, which then need no read). False when the
 * host has no thread or no room: logged, the source is not added. */
bool loop_add(struct loop *loop, struct loop_source *source, uint32_t events);
void loop_change(struct loop_source *source, uint32_t events); /* 0: not watched for now */
void loop_remove(struct loop_source *source);                  /* nothing when not added */
/* The thread has forgotten the sources that were removed so far. With no source's lock held, never
 * from the loop's thread. */
void loop_settle(struct loop *loop);
/* Has `ready` called soon. Any thread, with the source's lock held; nothing when not added. */
void loop_wake(struct loop_source *source);

/* Takes the lock of a source from another thread: waits at most for the call that is being made and
 * does not race with the next one. A busy loop that unlocks has locked again before a thread that
 * waited is awake; it lets this one go first. NULL: there is no such loop. */
void loop_lock(struct loop *loop, GMutex *lock);

/* After loop_pause no source is being called, and none will be until loop_resume. With no source's
 * lock held, from one thread. NULL is allowed. */
void loop_pause(struct loop *loop);
void loop_resume(struct loop *loop);

/* Of a loop without a thread: serves each source once that is ready. True: there may be more. */
bool loop_turn(struct loop *loop);
