/* Disks on a server: read and written by hv-remote, another process, over a socket. */
#pragma once
#include "block/disk.h"

/* A disk over the socket of an hv-remote (base/remote-protocol.h), which it owns from then on; on
 * failure that stays the caller's. Waits until hv-remote has reached the server or says why not.
 * Without `readonly` it is an error when the server lets nobody write.
 *
 * It may be below a format that is not written, as raw.c's disks are (block/raw.h). */
struct disk *remote_open(int socket, const char *name, bool readonly, GError **error);
