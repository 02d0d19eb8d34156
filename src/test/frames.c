/* The frames of a guest's init; see frames.h. */
#include "test/frames.h"

#include "guest/init.h"

void frames_start(struct frames *f)
{
    *f = (struct frames){ .pending = g_byte_array_new(),
                          .output = g_byte_array_new(),
                          .errors = g_byte_array_new() };
}

void frames_finish(struct frames *f)
{
    g_byte_array_unref(f->pending);
    g_byte_array_unref(f->output);
    g_byte_array_unref(f->errors);
    g_free(f->failure);
}

static void fail(struct frames *f, char *why)
{
    if (f->failure)
        g_free(why);
    else
        f->failure = why;
}

/* Only a guest that has written to the port itself, or a host that could not keep up, gets here. */
static void fail_frames(struct frames *f)
{
    fail(f, g_strdup("what the guest's second serial port says is damaged: either the host "
                     "could not keep up, or something in the guest writes to it, too"));
}

static void take_status(struct frames *f, const uint8_t *data, size_t length)
{
    uint64_t bytes = 0;
    if (length != FRAME_STATUS_SIZE) {
        fail_frames(f);
        return;
    }
    for (unsigned i = 0; i < 8; i++)
        bytes |= (uint64_t)data[1 + i] << 8 * i;
    if (bytes != f->bytes)
        fail_frames(f);
    f->status = data[0];
    f->ended = true;
}

static void take_frame(struct frames *f, uint8_t type, const uint8_t *data, size_t length)
{
    switch (type) {
    case FRAME_BEGIN:
        f->begun++;
        break;
    case FRAME_OUTPUT:
    case FRAME_ERRORS:
        g_byte_array_append(type == FRAME_OUTPUT ? f->output : f->errors, data, (guint)length);
        f->bytes += length;
        break;
    case FRAME_STATUS:
        take_status(f, data, length);
        break;
    case FRAME_FAILED: {
        g_autofree char *why = g_strndup((const char *)data, length);
        g_autofree char *valid = g_utf8_make_valid(why, -1);
        fail(f, g_strdup_printf("the guest could not run the command: %s", valid));
        break;
    }
    default:
        fail_frames(f);
    }
}

void frames_take(struct frames *f, const uint8_t *data, size_t length)
{
    size_t at = 0;
    g_byte_array_append(f->pending, data, (guint)length);
    while (!f->ended && !f->failure && f->pending->len - at >= FRAME_HEAD) {
        const uint8_t *head = f->pending->data + at;
        size_t size = head[1] | (size_t)head[2] << 8;
        if (size > FRAME_DATA_MAX) {
            fail_frames(f);
            break;
        }
        if (f->pending->len - at < FRAME_HEAD + size)
            break;
        take_frame(f, head[0], head + FRAME_HEAD, size);
        at += FRAME_HEAD + size;
    }
    /* Behind the end there is nothing to read. */
    g_byte_array_remove_range(f->pending, 0, f->ended || f->failure ? f->pending->len : (guint)at);
}
