/* The time that a guest could have run: that of the clock, less what its vCPUs waited for a
 * processor that others of this host had (schedstat of their threads). A test's limits count it, so
 * that a busy host makes a test slower and does not make it fail. One thread. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>

struct patience {
    pid_t pid;       /* of hv-vmm; 0: none, all time counts */
    gint64 began;    /* monotonic, microseconds */
    gint64 waited;   /* by the vCPU that waited longest, at that time */
    gint64 excused;  /* microseconds that do not count: shorter waits found the host busy */
    gint64 limit;    /* microseconds of guest time */
    gint64 wall_end; /* when it is over in any case */
};

/* A wait begins. */
void patience_start(struct patience *patience, pid_t pid, gint64 limit);
/* Microseconds of guest time that are left; 0 or less: it is over. */
gint64 patience_left(const struct patience *patience);
/* How much of the time so far the host was busy with other things. */
gint64 patience_busy(const struct patience *patience);
