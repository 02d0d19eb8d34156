/* The machine's clock and its timers.
 *
 * Guest time is in nanoseconds, starts at 0, stops while the machine is paused and is saved with
 * it. Deadlines are absolute guest times. Nothing ticks: the clock's thread sleeps until the
 * nearest deadline, and for ever when there is none. Locks: clock_now takes none; timer_set,
 * timer_cancel and timer_poke may be called with any device lock held (the clock's own lock is a
 * leaf); callbacks run on the clock's thread with the timer's lock held. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define NS_PER_SECOND UINT64_C(1000000000)
#define TIMER_NEVER   UINT64_MAX

struct clock;

/* Embedded in its owner. All fields belong to the clock. */
struct timer {
    struct clock *clock;
    GMutex *lock; /* held around `run`: the owner's */
    void (*run)(void *owner);
    void *owner;
    uint64_t deadline; /* guest ns; TIMER_NEVER while not set */
    GSequenceIter *place;
};

/* A stopped clock at time 0. With `manual`, it has no thread: clock_advance is its time (tests). */
struct clock *clock_new(bool manual);
void clock_free(struct clock *clock);

/* Time runs, or stands still. No callback is running or starts after clock_stop returned; do not
 * call it with a device lock held. */
void clock_start(struct clock *clock);
void clock_stop(struct clock *clock);

/* Guest time in ns. */
uint64_t clock_now(struct clock *clock);

/* Only while stopped: the saved time, on load. */
void clock_set(struct clock *clock, uint64_t now);

/* A manual clock: lets ns pass, running the timers that come due in order of their deadlines. At
 * most `limit` callbacks run (0: no limit); a caller with hostile devices bounds them. */
void clock_advance(struct clock *clock, uint64_t ns, unsigned limit);

void timer_init(struct timer *timer, struct clock *clock, GMutex *lock, void (*run)(void *owner),
                void *owner);
/* Arms, or moves, the timer; a deadline in the past runs at once, on the clock's thread. The
 * owner's lock is held. TIMER_NEVER cancels. */
void timer_set(struct timer *timer, uint64_t deadline);
void timer_cancel(struct timer *timer);
/* Makes the timer due now, for who does not own it: any lock but the clock's may be held, the
 * owner's need not be. Its owner may be setting it meanwhile, and wins. */
void timer_poke(struct timer *timer);
bool timer_armed(const struct timer *timer);
/* The owner ends: cancels. The owner's lock is not held and nobody sets the timer again. */
void timer_finish(struct timer *timer);

/* value * multiplier / divisor without overflow in between; saturates. */
uint64_t muldiv64(uint64_t value, uint64_t multiplier, uint64_t divisor);
