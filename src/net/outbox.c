/* What waits to be sent; see outbox.h. */
#include "net/outbox.h"

#include <errno.h>
#include <glib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    BATCH = 64,   /* packets in one system call */
    LARGE = 4096, /* not worth a copy: sent at once */
    PRESSED = OUTBOX_SIZE / 4,
};

void outbox_init(struct outbox *box, int fd)
{
    *box = (struct outbox){ .fd = fd, .bytes = g_malloc(OUTBOX_SIZE) };
}

void outbox_finish(struct outbox *box)
{
    g_clear_pointer(&box->bytes, g_free);
}

bool outbox_pressed(const struct outbox *box)
{
    return box->end - box->first > PRESSED;
}

/* True when errno says that the socket has no room; else the other side is gone, or has refused
 * this packet. */
static bool no_room(struct outbox *box)
{
    if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM || errno == EINTR) {
        box->blocked = true;
        return true;
    }
    box->gone = errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN;
    return false;
}

static uint32_t length_at(const struct outbox *box, size_t at)
{
    uint32_t length;
    memcpy(&length, box->bytes + at, sizeof length);
    return length;
}

static void forget(struct outbox *box, unsigned count)
{
    for (; count && box->count; count--, box->count--)
        box->first += sizeof(uint32_t) + length_at(box, box->first);
    if (!box->count)
        box->first = box->end = 0;
}

static void send_batch(struct outbox *box)
{
    struct mmsghdr messages[BATCH] = { { .msg_len = 0 } };
    struct iovec parts[BATCH];
    unsigned count = MIN(box->count, (unsigned)BATCH);
    size_t at = box->first;
    for (unsigned i = 0; i < count; i++) {
        uint32_t length = length_at(box, at);
        parts[i] = (struct iovec){ box->bytes + at + sizeof length, length };
        messages[i].msg_hdr = (struct msghdr){ .msg_iov = &parts[i], .msg_iovlen = 1 };
        at += sizeof length + length;
    }
    int sent = sendmmsg(box->fd, messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) {
        box->sent += (unsigned)sent;
        forget(box, (unsigned)sent);
    } else if (!no_room(box)) {
        box->dropped++;
        forget(box, 1);
    }
}

void outbox_flush(struct outbox *box)
{
    box->blocked = false;
    while (box->count && !box->blocked)
        send_batch(box);
}

static void keep(struct outbox *box, const struct iovec *iov, unsigned count, uint32_t length)
{
    if (OUTBOX_SIZE - (box->end - box->first) < sizeof length + length) {
        box->dropped++;
        return;
    }
    if (OUTBOX_SIZE - box->end < sizeof length + length) {
        memmove(box->bytes, box->bytes + box->first, box->end - box->first);
        box->end -= box->first;
        box->first = 0;
    }
    memcpy(box->bytes + box->end, &length, sizeof length);
    box->end += sizeof length;
    for (unsigned i = 0; i < count; i++) {
        memcpy(box->bytes + box->end, iov[i].iov_base, iov[i].iov_len);
        box->end += iov[i].iov_len;
    }
    box->count++;
}

void outbox_put(struct outbox *box, const struct iovec *iov, unsigned count)
{
    size_t length = 0;
    for (unsigned i = 0; i < count; i++)
        length += iov[i].iov_len;
    if (!box->blocked && (length >= LARGE || box->count >= BATCH)) {
        outbox_flush(box);
        if (!box->blocked && length >= LARGE) {
            const struct msghdr message = { .msg_iov = (struct iovec *)iov, .msg_iovlen = count };
            if (sendmsg(box->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
                box->sent++;
                return;
            }
            if (!no_room(box)) {
                box->dropped++;
                return;
            }
        }
    }
    keep(box, iov, count, (uint32_t)length);
}
