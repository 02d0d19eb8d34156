/* What waits to be sent over a socket that keeps messages apart. Never blocks: what the other side
 * does not take waits in memory of a fixed size, and what finds no room there is dropped, as on a
 * wire. Small packets go in batches. One thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct outbox {
    int fd;
    uint8_t *bytes; /* of the packets that wait, each behind its length; from `first` to `end` */
    size_t first, end;
    unsigned count;
    bool blocked; /* the socket has no room: not before it is writable again */
    bool gone;    /* so is the other side */
    uint64_t sent, dropped;
};

enum { OUTBOX_SIZE = 1 << 20, OUTBOX_PARTS = 4 };

void outbox_init(struct outbox *box, int fd); /* fd stays the caller's */
void outbox_finish(struct outbox *box);

/* Sends, or keeps, one packet of at most OUTBOX_PARTS parts. */
void outbox_put(struct outbox *box, const struct iovec *iov, unsigned count);
/* Sends what waits: when a round of work is over, and when the socket is writable again. */
void outbox_flush(struct outbox *box);
/* So much waits that whoever makes packets should rest. */
bool outbox_pressed(const struct outbox *box);
