/* A host whose calls fail, one of a run: the calls of all images go through here (the linker's
 * --wrap), from places in the source that are in a table (sites.h). */
#pragma once
#include "block/disk.h"
#include "rig/sites.h"

enum failure { FAIL_EIO, FAIL_ENOSPC, FAIL_EINTR, FAIL_EAGAIN, FAIL_SHORT, FAIL_FULL, NONE };
struct failure_kind {
    const char *name;
    int error;
};
extern const struct failure_kind failures[];

enum call { CALL_READ, CALL_WRITE, CALL_SYNC, CALL_ROOM, CALL_NAME };
/* How each kind of call may fail: bits by enum failure. */
extern const unsigned possible_failures[];

enum { DEEPEST = 4 };

/* A call that was made, and the places that it was made from. */
struct trace {
    enum call call;
    struct site *sites[DEEPEST];
};

struct failing_host {
    GMutex mutex;
    bool on, full;
    unsigned calls, at; /* which one fails, from 1; 0: none */
    enum failure failure;
    bool failed;     /* it did */
    enum call what;  /* that was it */
    unsigned pauses; /* the machine was told that the disk is full */
    GArray *traces;  /* of a run in which none fails */
    const struct uring_events *events;
};
extern struct failing_host host;

void host_start(enum failure failure, unsigned at);
void host_stop(void);
/* The failure is one that must not be noticed. */
bool host_hides(void);
/* For disk_set_full: the machine pauses; at the second try there is room. */
void host_on_full(void *opaque, struct disk *disk, int error);
