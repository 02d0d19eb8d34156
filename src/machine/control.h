/* The control socket: newline-delimited JSON-RPC 2.0, one method for each thing that the commands
 * do, and a stream of events for who asks (man/hv-control.7). Served on the machine's thread;
 * requests are bounded, with one descriptor at most beside each, and a client that does not read is
 * dropped, never waited for. */
#pragma once
#include "machine/machine.h"

struct control;
struct display;
struct typist;

/* Serves clients that connect to the listening socket. */
struct control *control_new(struct machine *machine, struct display *display, struct typist *typist,
                            int listener);
