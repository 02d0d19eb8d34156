/* What a disk on a server (block/remote.c, in hv-vmm or hv) and hv-remote, which talks to the
 * server, say to each other: messages of fixed sizes on a SOCK_SEQPACKET pair, in the host's byte
 * order, and memory that both see for what is read and written.
 *
 * Neither end trusts the other. hv-remote listens to a server that may be hostile; all that a wrong
 * answer of it may cost is the disk's requests, which fail. */
#pragma once
#include <stdint.h>

enum {
    REMOTE_VERSION = 1,
    REMOTE_SLOTS = 64,       /* requests in flight */
    REMOTE_SLOT = 128 << 10, /* bytes of the memory for each, and the most of a read or write */
    REMOTE_AREA = REMOTE_SLOTS * REMOTE_SLOT,
    REMOTE_RANGE = 256 << 20, /* the most bytes of a request without data */
    REMOTE_MARK = 40,
    REMOTE_TEXT = 400,
};

enum remote_op {
    /* The first: the memory, a memfd that cannot shrink, comes beside it. The answer is a
     * remote_hello. Another process that takes over the socket begins with it again. */
    REMOTE_OPEN,
    REMOTE_READ,
    REMOTE_WRITE,
    REMOTE_FLUSH,
    REMOTE_DISCARD,
    REMOTE_ZERO,
    REMOTE_GIVE_UP, /* no answer: all in flight is to be answered now */
};

/* Ranges of READ begin at a multiple of 512 and end at one or at the disk's end; others have both
 * at multiples. */
struct remote_request {
    uint32_t op;
    uint32_t slot; /* its data are at slot * REMOTE_SLOT; not in use by another in flight */
    uint64_t id;   /* to be repeated in the answer */
    uint64_t offset, length;
};

struct remote_reply {
    uint64_t id;
    uint32_t slot;
    int32_t error; /* 0 or an errno */
};

enum {
    REMOTE_READONLY = 1 << 0,
    REMOTE_CAN_DISCARD = 1 << 1,
    REMOTE_CAN_ZERO = 1 << 2,
    REMOTE_KEEP = 1 << 3, /* what was read once should be kept: it never changes, and is far away */
};

struct remote_hello {
    uint32_t version;
    int32_t status; /* HV_OK, or of enum hv_error: it cannot be opened, `text` says why */
    uint32_t flags, unused;
    uint64_t size;          /* bytes */
    char mark[REMOTE_MARK]; /* a name for the content, another when that changes; may be "" */
    char text[REMOTE_TEXT];
};
