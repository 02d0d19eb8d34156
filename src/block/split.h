/* Requests cut into parts, which go to different places: a request that lies in several pieces of
 * an image. A disk has room for some of them, which is made once; nothing is allocated for each.
 * With the owner's lock held. */
#pragma once
#include "block/cursor.h"
#include "block/disk.h"

enum {
    SPLIT_PARTS = 8,
    SPLIT_SPANS = 96,       /* of all parts together */
    SPLIT_LENGTH = 2 << 20, /* bytes of a request that is worth it, and may be zeroed on the spot */
};

struct split {
    struct split *next; /* free */
    struct splits *splits;
    struct disk_request *whole;
    struct cursor cursor;
    uint64_t cut; /* bytes, so far */
    unsigned part_count, span_count;
    unsigned left; /* parts that are not done */
    int error;     /* the first of any part */
    struct disk_request parts[SPLIT_PARTS];
    struct iovec spans[SPLIT_SPANS];
};

struct splits {
    struct split *all, *free;
};

/* A request to be cut, which then is the split's; NULL: there is no room. */
struct split *split_begin(struct splits *splits, struct disk_request *request);
/* The next part, to be read from or written to `at`; false: there is no room for it, and the split
 * is to be given up. */
bool split_cut(struct split *split, uint64_t length, uint64_t at);
/* The same with zeros, which are there at once. */
void split_zero(struct split *split, uint64_t length);
/* No part was submitted. */
void split_give_up(struct split *split);
void splits_free(struct splits *splits);
