/* Byte streams on descriptors: what a paused machine's device gets, and a writer nobody reads. */
#include "machine/streams.h"

#include "bus/device.h"

#include <string.h>
#include <unistd.h>

/* A device that takes what it is given, or as much of it as there is room. */
struct taker {
    struct device dev;
    struct host_stream *stream;
    char got[64];
    size_t length, room;
    int in[2], out[2];
};

static size_t receive(struct device *dev, const uint8_t *data, size_t length)
{
    struct taker *taker = (struct taker *)dev;
    size_t n = MIN(length, taker->room);
    memcpy(taker->got + taker->length, data, n);
    taker->length += n;
    taker->room -= n;
    return n;
}

static const struct device_class taker_class = { .name = "taker", .receive = receive };

/* The reader's thread lives as long as the process, and the taker with it. */
static struct taker *taker_new(void)
{
    struct taker *taker = g_new0(struct taker, 1);
    taker->dev.class = &taker_class;
    taker->room = sizeof taker->got;
    g_mutex_init(&taker->dev.lock);
    g_assert_cmpint(pipe(taker->in), ==, 0);
    g_assert_cmpint(pipe(taker->out), ==, 0);
    taker->stream = host_stream_new("taker", taker->in[0], taker->out[1]);
    g_assert_true(host_stream_attach(taker->stream, &taker->dev, NULL));
    return taker;
}

static size_t taken(struct taker *taker)
{
    g_mutex_lock(&taker->dev.lock);
    size_t length = taker->length;
    g_mutex_unlock(&taker->dev.lock);
    return length;
}

/* Has it got so many bytes, in a while? */
static bool gets(struct taker *taker, size_t length)
{
    for (unsigned i = 0; i < 200 && taken(taker) < length; i++)
        g_usleep(10000);
    return taken(taker) == length;
}

static bool gets_none(struct taker *taker)
{
    size_t before = taken(taker);
    g_usleep(50000);
    return taken(taker) == before;
}

static void send(struct taker *taker, const char *text)
{
    g_assert_cmpint(write(taker->in[1], text, strlen(text)), ==, (ssize_t)strlen(text));
}

static void held(void)
{
    struct taker *taker = taker_new();
    send(taker, "early");
    g_assert_true(gets_none(taker)); /* the machine has not started */
    host_stream_hold(taker->stream, false);
    g_assert_true(gets(taker, 5));
    host_stream_hold(taker->stream, true);
    send(taker, " late");
    g_assert_true(gets_none(taker));
    host_stream_hold(taker->stream, false);
    g_assert_true(gets(taker, 10));
    g_assert_cmpmem(taker->got, 10, "early late", 10);
}

/* A device without room gets the rest when it has some, and not while it is held. */
static void room(void)
{
    struct taker *taker = taker_new();
    taker->room = 3;
    host_stream_hold(taker->stream, false);
    send(taker, "abcdef");
    g_assert_true(gets(taker, 3));
    host_stream_hold(taker->stream, true);
    g_mutex_lock(&taker->dev.lock);
    taker->room = 3;
    stream_ready(host_stream_plug(taker->stream));
    g_mutex_unlock(&taker->dev.lock);
    g_assert_true(gets_none(taker));
    host_stream_hold(taker->stream, false);
    g_assert_true(gets(taker, 6));
    g_assert_cmpmem(taker->got, 6, "abcdef", 6);
}

static void written(void)
{
    struct taker *taker = taker_new();
    char text[6];
    stream_write(host_stream_plug(taker->stream), (const uint8_t *)"answer", 6);
    host_stream_flush(taker->stream);
    g_assert_cmpint(read(taker->out[0], text, sizeof text), ==, 6);
    g_assert_cmpmem(text, 6, "answer", 6);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/streams/held", held);
    g_test_add_func("/streams/room", room);
    g_test_add_func("/streams/written", written);
    return g_test_run();
}
