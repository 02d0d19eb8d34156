/* Going through lists of spans; see cursor.h. */
#include "block/cursor.h"

#include <glib.h>
#include <string.h>

/* The next span, of at most `length` bytes. */
static struct iovec next(struct cursor *cursor, size_t length)
{
    while (cursor->skip == cursor->iov->iov_len) /* empty ones too */
        *cursor = (struct cursor){ cursor->iov + 1, 0 };
    struct iovec span = {
        (uint8_t *)cursor->iov->iov_base + cursor->skip,
        MIN(cursor->iov->iov_len - cursor->skip, length),
    };
    cursor->skip += span.iov_len;
    return span;
}

unsigned cursor_take(struct cursor *cursor, size_t length, struct iovec *to, unsigned most,
                     size_t *taken)
{
    unsigned count = 0;
    *taken = 0;
    while (*taken < length && count < most) {
        to[count] = next(cursor, length - *taken);
        *taken += to[count++].iov_len;
    }
    return count;
}

void cursor_read(struct cursor *cursor, void *to, size_t length)
{
    for (size_t done = 0; done < length;) {
        struct iovec span = next(cursor, length - done);
        memcpy((uint8_t *)to + done, span.iov_base, span.iov_len);
        done += span.iov_len;
    }
}

void cursor_write(struct cursor *cursor, const void *from, size_t length)
{
    for (size_t done = 0; done < length;) {
        struct iovec span = next(cursor, length - done);
        memcpy(span.iov_base, (const uint8_t *)from + done, span.iov_len);
        done += span.iov_len;
    }
}

void cursor_zero(struct cursor *cursor, size_t length)
{
    for (size_t done = 0; done < length;) {
        struct iovec span = next(cursor, length - done);
        memset(span.iov_base, 0, span.iov_len);
        done += span.iov_len;
    }
}
