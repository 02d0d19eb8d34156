/* Byte streams on descriptors; see streams.h. A stream lives as long as the process. */
#include "machine/streams.h"

#include "base/error.h"
#include "base/log.h"
#include "bus/device.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { ROOM = 65536 };

struct host_stream {
    struct stream stream;
    char *name;
    int in, out;
    struct device *dev;

    GMutex lock; /* a leaf: the device's may be held */
    GCond changed;
    bool writing;  /* the thread was started */
    bool failed;   /* it cannot be */
    bool held;     /* the device gets nothing */
    bool room;     /* the device took less than it was offered, and now has room */
    uint8_t *ring; /* of ROOM bytes; NULL before the first */
    size_t begin, used;
    uint64_t dropped;
};

static bool write_all(int fd, const uint8_t *data, size_t length)
{
    while (length) {
        ssize_t done = write(fd, data, length);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        data += done;
        length -= (size_t)done;
    }
    return true;
}

static void *writer(void *data)
{
    struct host_stream *s = data;
    uint8_t chunk[4096];
    bool alive = true;
    g_mutex_lock(&s->lock);
    for (;;) {
        while (!s->used)
            g_cond_wait(&s->changed, &s->lock);
        size_t n = MIN(s->used, MIN(sizeof chunk, ROOM - s->begin));
        memcpy(chunk, s->ring + s->begin, n);
        g_mutex_unlock(&s->lock);
        /* A reader that has gone is no reason to stop the guest: its bytes go nowhere. */
        alive = alive && write_all(s->out, chunk, n);
        g_mutex_lock(&s->lock);
        s->begin = (s->begin + n) % ROOM;
        s->used -= n;
        if (!s->used)
            g_cond_broadcast(&s->changed);
    }
    return NULL;
}

/* At the first byte, whenever the guest writes it: a host that is short of memory or threads then
 * loses what the guest says, not the guest. Locked. */
static bool start_writer(struct host_stream *s)
{
    if (s->writing || s->failed)
        return s->writing;
    g_autoptr(GError) error = NULL;
    s->ring = g_try_malloc(ROOM);
    GThread *thread = s->ring ? g_thread_try_new(s->name, writer, s, &error) : NULL;
    s->writing = thread != NULL;
    s->failed = !thread;
    if (thread)
        g_thread_unref(thread);
    else
        log_warn(s->name, "what the guest writes is lost: %s",
                 error ? error->message : "the host has no memory");
    return s->writing;
}

static void stream_take(struct stream *stream, const uint8_t *data, size_t length)
{
    struct host_stream *s = (struct host_stream *)stream;
    if (s->out < 0)
        return;
    g_mutex_lock(&s->lock);
    size_t fits = start_writer(s) ? MIN(length, ROOM - s->used) : 0;
    for (size_t i = 0; i < fits; i++)
        s->ring[(s->begin + s->used + i) % ROOM] = data[i];
    s->used += fits;
    s->dropped += length - fits;
    if (fits && s->used == fits)
        g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
}

static void stream_has_room(struct stream *stream)
{
    struct host_stream *s = (struct host_stream *)stream;
    g_mutex_lock(&s->lock);
    s->room = true;
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
}

/* Offers bytes to the device until it took them all; nothing while the stream is held. */
static void give(struct host_stream *s, const uint8_t *data, size_t length)
{
    while (length) {
        size_t taken = 0;
        g_mutex_lock(&s->dev->lock);
        g_mutex_lock(&s->lock);
        bool held = s->held;
        s->room = held; /* the device's lock keeps `ready` out until it was offered */
        g_mutex_unlock(&s->lock);
        if (!held)
            taken = s->dev->class->receive(s->dev, data, length);
        g_mutex_unlock(&s->dev->lock);
        data += taken;
        length -= taken;
        if (!length)
            break;
        g_mutex_lock(&s->lock);
        while (!s->room || s->held)
            g_cond_wait(&s->changed, &s->lock);
        g_mutex_unlock(&s->lock);
    }
}

static void *reader(void *data)
{
    struct host_stream *s = data;
    uint8_t chunk[512];
    for (;;) {
        ssize_t n = read(s->in, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return NULL;
        give(s, chunk, (size_t)n);
    }
}

struct host_stream *host_stream_new(const char *name, int in, int out)
{
    struct host_stream *s = g_new0(struct host_stream, 1);
    s->stream = (struct stream){ stream_take, stream_has_room };
    s->name = g_strdup(name);
    s->in = in;
    s->out = out;
    s->held = true;
    g_mutex_init(&s->lock);
    g_cond_init(&s->changed);
    return s;
}

struct stream *host_stream_plug(struct host_stream *stream)
{
    return &stream->stream;
}

bool host_stream_attach(struct host_stream *s, struct device *dev, GError **error)
{
    g_autoptr(GError) why = NULL;
    s->dev = dev;
    if (s->in < 0 || !dev->class->receive)
        return true;
    GThread *thread = g_thread_try_new(s->name, reader, s, &why);
    if (!thread)
        return hv_fail(error, HV_HOST, "%s: %s", s->name, why->message);
    g_thread_unref(thread);
    return true;
}

void host_stream_hold(struct host_stream *s, bool held)
{
    g_mutex_lock(&s->lock);
    s->held = held;
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
    if (!held || !s->dev)
        return;
    g_mutex_lock(&s->dev->lock); /* until what is given just now was taken */
    g_mutex_unlock(&s->dev->lock);
}

void host_stream_flush(struct host_stream *s)
{
    gint64 end = g_get_monotonic_time() + G_TIME_SPAN_SECOND;
    g_mutex_lock(&s->lock);
    while (s->used && g_cond_wait_until(&s->changed, &s->lock, end))
        continue;
    if (s->dropped)
        log_warn(s->name, "%" G_GUINT64_FORMAT " bytes were dropped: nobody read them in time",
                 s->dropped);
    g_mutex_unlock(&s->lock);
}
