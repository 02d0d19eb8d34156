/* A stream of bytes between a device (a serial port, a debug port) and something of the host.
 *
 * Two sides: the device writes with stream_write, under its own lock, and never waits; the host
 * side gives bytes to the device through device_class.receive. Implementations: machine/streams.c.
 */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct device;

struct stream {
    /* Takes all of it; what a slow reader cannot take is dropped and counted. */
    void (*write)(struct stream *stream, const uint8_t *data, size_t length);
    /* The device has room again after `receive` took less than it was offered. */
    void (*ready)(struct stream *stream);
};

static inline void stream_write(struct stream *stream, const uint8_t *data, size_t length)
{
    if (stream)
        stream->write(stream, data, length);
}
static inline void stream_ready(struct stream *stream)
{
    if (stream && stream->ready)
        stream->ready(stream);
}
