/* The host's end of byte streams: serial ports and the firmware's log on descriptors.
 *
 * Each stream has one thread for each direction: a guest never waits for a slow reader, what does
 * not fit into 64 KiB is dropped and counted. The writer's thread starts with the first byte. */
#pragma once
#include "bus/stream.h"

struct host_stream;

/* Takes over the descriptors; -1: that direction leads nowhere. */
struct host_stream *host_stream_new(const char *name, int in, int out);
/* What the device plugs. */
struct stream *host_stream_plug(struct host_stream *stream);
/* Bytes from the host go to dev->class->receive while the stream is not held; it is held at first.
 */
bool host_stream_attach(struct host_stream *stream, struct device *dev, GError **error);
/* Held, the device gets nothing, and what the host writes waits: for as long as the machine is
 * paused. When this returns nothing is being given any more. */
void host_stream_hold(struct host_stream *stream, bool held);
/* Waits at most a second for what the guest wrote to reach the descriptor. */
void host_stream_flush(struct host_stream *stream);
