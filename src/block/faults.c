/* Faults of a disk; see faults.h. All with the owner's lock held.
 *
 * A disk with faults has other operations in place of its own, with these before them. Only what a
 * fault may concern waits in a list here, until its time has come: a failed request too, for `done`
 * is never called from inside disk_submit. The time is the guest's, so a paused machine misses
 * nothing, and the clock's thread is who goes on with it. What a device may have in flight bounds
 * the list. */
#include "block/faults.h"

#include "base/clock.h"

#include <errno.h>

struct entry {
    struct entry *next;
    struct disk_request *request;
    uint64_t due; /* guest ns */
};

struct faults {
    struct disk *disk;
    struct disk_faults set;
    const struct disk_ops *own; /* the disk's */
    struct disk_ops ops;        /* a copy of them, with those from here */
    struct timer timer;
    struct entry *first, **last; /* by when they are due */
    unsigned queued;
    struct entry *held; /* writes that found no room, the last one first */
    bool told;          /* the machine, since its last answer */
    bool giving_up;     /* what finds no room fails, until nothing is queued */
};

/* --- judging ------------------------------------------------------------------------------------
 */

static bool writes(const struct disk_request *request)
{
    return request->op == DISK_WRITE || request->op == DISK_WRITE_ZEROES;
}

static bool is_bad(const struct disk_faults *set, const struct disk_request *request)
{
    if (!writes(request) && request->op != DISK_READ)
        return false;
    uint64_t first = request->offset / SECTOR, end = first + request->length / SECTOR;
    for (unsigned i = 0; i < set->bad_count; i++) {
        const struct fault_range *bad = &set->bad[i];
        if (first <= bad->last && end > bad->first && (writes(request) ? bad->write : bad->read))
            return true;
    }
    return false;
}

static bool is_concerned(const struct disk_faults *set, const struct disk_request *request)
{
    return set->delay || (set->full && writes(request)) || is_bad(set, request);
}

/* --- the list -----------------------------------------------------------------------------------
 */

static void arm(struct faults *faults)
{
    timer_set(&faults->timer, faults->first ? faults->first->due : TIMER_NEVER);
}

static void add(struct faults *faults, struct entry *entry, uint64_t delay)
{
    entry->due = clock_now(faults->timer.clock) + delay;
    entry->next = NULL;
    *faults->last = entry;
    faults->last = &entry->next;
    faults->queued++;
}

static struct entry *take(struct faults *faults)
{
    struct entry *entry = faults->first;
    faults->first = entry->next;
    if (!faults->first)
        faults->last = &faults->first;
    faults->queued--;
    return entry;
}

static void fail(struct faults *faults, struct entry *entry)
{
    struct disk_request *request = entry->request;
    g_free(entry);
    disk_tell_failed(faults->disk, EIO);
    disk_finish(request, EIO);
}

static void hold(struct faults *faults, struct entry *entry)
{
    entry->next = faults->held;
    faults->held = entry;
    if (!faults->told)
        faults->disk->full(faults->disk->full_opaque, faults->disk, ENOSPC);
    faults->told = true;
}

/* What an entry has come to; true when its request is through. */
static bool serve(struct faults *faults, struct entry *entry)
{
    struct disk_request *request = entry->request;
    bool no_room = faults->set.full && writes(request);
    bool gives_up = faults->giving_up || !faults->disk->full;
    if (is_bad(&faults->set, request) || (no_room && gives_up)) {
        fail(faults, entry);
        return true;
    }
    if (no_room) {
        hold(faults, entry);
        return false;
    }
    g_free(entry);
    faults->own->submit(faults->disk, request);
    return false;
}

/* At most as many as there are: `done` may submit others. */
static void serve_until(struct faults *faults, uint64_t time)
{
    bool through = false;
    for (unsigned n = faults->queued; n && faults->first && faults->first->due <= time; n--)
        through |= serve(faults, take(faults));
    if (faults->own->kick)
        faults->own->kick(faults->disk);
    if (through)
        disk_end_batch(faults->disk);
    arm(faults);
}

static void on_time(void *owner)
{
    struct faults *faults = owner;
    serve_until(faults, clock_now(faults->timer.clock));
}

/* Held writes get back into the list, in the order in which they came. */
static void unhold(struct faults *faults)
{
    struct entry *held = faults->held;
    faults->held = NULL;
    faults->told = false;
    if (held && !faults->first)
        faults->last = &held->next;
    while (held) {
        struct entry *next = held->next;
        held->due = 0;
        held->next = faults->first;
        faults->first = held;
        faults->queued++;
        held = next;
    }
}

/* --- the disk's operations ----------------------------------------------------------------------
 */

static void faults_submit(struct disk *disk, struct disk_request *request)
{
    struct faults *faults = disk->faults;
    struct entry *entry = NULL;
    if (!faults->queued && !faults->held)
        faults->giving_up = false;
    if (!request->error && is_concerned(&faults->set, request))
        entry = g_try_new(struct entry, 1);
    if (!entry) {
        faults->own->submit(disk, request);
        return;
    }
    entry->request = request;
    add(faults, entry, faults->set.delay);
    if (faults->first == entry)
        arm(faults);
}

static bool faults_busy(struct disk *disk)
{
    struct faults *faults = disk->faults;
    return faults->queued || faults->held || (faults->own->busy && faults->own->busy(disk));
}

/* The clock may stand still: nothing waits for its time. Held writes, which nobody would answer
 * while somebody waits here, are given up. */
static void faults_drain(struct disk *disk)
{
    struct faults *faults = disk->faults;
    for (bool busy = true; busy;) {
        g_mutex_lock(disk->lock);
        faults->giving_up = faults->giving_up || faults->held;
        unhold(faults);
        serve_until(faults, TIMER_NEVER);
        g_mutex_unlock(disk->lock);
        faults->own->drain(disk);
        g_mutex_lock(disk->lock);
        busy = faults->queued || faults->held;
        g_mutex_unlock(disk->lock);
    }
}

static void faults_retry(struct disk *disk, bool give_up)
{
    struct faults *faults = disk->faults;
    g_mutex_lock(disk->lock);
    faults->giving_up |= give_up;
    unhold(faults);
    arm(faults);
    g_mutex_unlock(disk->lock);
    if (faults->own->retry)
        faults->own->retry(disk, give_up);
}

/* --- setting them -------------------------------------------------------------------------------
 */

static struct faults *faults_new(struct disk *disk, struct clock *clock)
{
    struct faults *faults = g_new0(struct faults, 1);
    faults->disk = disk;
    faults->own = disk->ops;
    faults->ops = *disk->ops;
    faults->ops.submit = faults_submit;
    faults->ops.busy = faults_busy;
    faults->ops.drain = faults_drain;
    faults->ops.retry = faults_retry;
    faults->last = &faults->first;
    timer_init(&faults->timer, clock, disk->lock, on_time, faults);
    return faults;
}

void faults_set(struct disk *disk, struct clock *clock, const struct disk_faults *set)
{
    bool any = set->full || set->delay || set->bad_count;
    if (!disk->faults && !any)
        return;
    if (!disk->faults)
        disk->faults = faults_new(disk, clock);
    struct faults *faults = disk->faults;
    faults->set = *set;
    /* What waits is judged anew, and at once: all in a list by time have one delay. Without faults
     * nothing is left in it, and nothing comes. */
    if (!set->full)
        unhold(faults);
    serve_until(faults, TIMER_NEVER);
    disk->ops = any ? &faults->ops : faults->own;
}

struct disk_faults faults_get(const struct disk *disk)
{
    return disk->faults ? disk->faults->set : (struct disk_faults){ .delay = 0 };
}

void faults_free(struct disk *disk)
{
    struct faults *faults = disk->faults;
    static const struct disk_faults none;
    if (!faults)
        return;
    disk_give_up(disk);
    disk_drain(disk);
    g_mutex_lock(disk->lock);
    faults_set(disk, faults->timer.clock, &none);
    g_mutex_unlock(disk->lock);
    timer_finish(&faults->timer);
    g_clear_pointer(&disk->faults, g_free);
}
