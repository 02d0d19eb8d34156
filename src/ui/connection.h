/* The viewer's end of the display socket: a thread that sleeps until the machine, a signal or an
 * outgoing message has something for it. What the machine says is joined into a model; the window's
 * thread takes it when it gets to it. Nothing here waits for the machine. */
#pragma once
#include "ui/protocol.h"

struct connection;

/* SIGTERM, SIGINT and SIGHUP arrive with the updates: to be called before there are threads. */
void connection_block_signals(void);

/* Takes over the connected socket. `wake` is called on the connection's thread, once until the
 * next connection_take. */
struct connection *connection_new(int socket, void (*wake)(void *data), void *data, GError **error);
void connection_free(struct connection *connection);

/* Connects to a machine's display socket. Returns the descriptor, -1 with an error. */
int connection_open(const char *path, GError **error);

struct update {
    struct model model; /* a copy; its damage is what came since the last update */
    const uint32_t
        *pixels;     /* of the frame, read-only, changing under us; NULL before the greeting */
    bool gone;       /* the machine hung up or broke the protocol */
    bool signalled;  /* SIGTERM, SIGINT or SIGHUP: close the window */
    char *complaint; /* why, when the protocol was broken; belongs to the connection */
};
void connection_take(struct connection *connection, struct update *update);

/* Queues a message. When the machine does not read: motion is joined, presses of keys are dropped
 * beyond a bound, releases and actions are kept. */
void connection_send(struct connection *connection, const struct display_message *message);
