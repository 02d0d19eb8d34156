/* Messages with file descriptors beside them, over UNIX sockets (SCM_RIGHTS). This is how hv hands
 * hv-vmm its files and how a viewer gets the frame. Any thread may call everything here. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* The most descriptors beside one message; the kernel's own limit (SCM_MAX_FD) is 253. */
enum { FDS_MAX = 192 };

/* Sends `length` (at least 1) bytes with `count` descriptors. On a socket that keeps messages apart
 * the message goes whole or not at all; on a stream, the rest of a message that went in part is
 * sent after it. A peer that is gone is an error, not a SIGPIPE. */
bool fds_send(int socket, const void *data, size_t length, const int *fds, unsigned count,
              GError **error);

/* Receives one message (on a stream: what is there) of at most `size` bytes, with at most `room`
 * descriptors, which belong to the caller from then on, are closed on exec and are counted in
 * *count. Returns its length, 0 at the end, -1 with an error. A message that is longer or brings
 * more descriptors is an error and everything that came with it is closed. */
ssize_t fds_receive(int socket, void *data, size_t size, int *fds, unsigned room, unsigned *count,
                    GError **error);

/* Accepts who connects to a listening UNIX socket: the connection, which does not block and is
 * closed on exec. NOBODY: the caller went again, or belongs to another user. NONE_LEFT: for want of
 * descriptors or memory; the caller waits on, and poll would say so again at once, so do not look
 * for FDS_REST_MS. */
enum { FDS_NOBODY = -1, FDS_NONE_LEFT = -2, FDS_REST_MS = 500 };
int fds_accept(int listener);

/* Closes them all; for what was received and turned out wrong. */
void fds_close(const int *fds, unsigned count);
