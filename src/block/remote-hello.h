/* The first words between a disk on a server and its hv-remote. */
#pragma once
#include "base/remote-protocol.h"

#include <glib.h>
#include <stdbool.h>

/* Makes the memory that both see, which is the caller's then whatever comes of it (NULL: there is
 * none), and waits for the answer: false with an error when it cannot be used. Its texts end, and
 * can be shown on a terminal. */
bool remote_greet(int socket, const char *name, bool readonly, uint8_t **memory,
                  struct remote_hello *hello, GError **error);
