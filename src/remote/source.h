/* Where hv-remote has a disk from: what is common to NBD servers and files on web servers. One
 * thread. */
#pragma once
#include "base/remote-protocol.h"

#include <glib.h>
#include <poll.h>
#include <stdbool.h>

/* A request of the disk, in its slot; `busy` from source_class.start until source_answer. */
struct job {
    bool busy;
    struct remote_request request;
    uint8_t *data;
};

struct source;
struct source_class {
    /* Takes up a request. source_answer may be called from here. */
    void (*start)(struct source *source, struct job *job);
    /* Works, and waits until `client` has events or there is more work. */
    void (*turn)(struct source *source, struct pollfd *client);
    /* Whoever waits for the requests in flight will not wait long. */
    void (*give_up)(struct source *source);
};

struct source {
    const struct source_class *class;
    char *name; /* for messages: the URL without what is secret in it */
    int socket; /* to the disk */
    uint64_t size;
    uint32_t flags; /* REMOTE_READONLY ... */
    char mark[REMOTE_MARK];
    struct job jobs[REMOTE_SLOTS]; /* by their slots */
};

/* The answer to a job, which is free then. */
void source_answer(struct source *source, struct job *job, int error);

/* A line for people, about the source. What servers say may be part of it: only text is written. */
void source_warn(const struct source *source, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* How long a server that does not answer is tried again. */
enum { SOURCE_PATIENCE_US = 60 * 1000 * 1000 };

/* Both reach the server; NULL with an error. The URL's scheme is theirs, or this hv was built
 * without them. */
struct source *nbd_source_new(const char *url, GError **error);
struct source *http_source_new(const char *url, GError **error);
