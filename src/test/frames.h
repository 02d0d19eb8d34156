/* What the init of `hv test --kernel` says (guest/init.h), from the bytes of its channel. The guest
 * writes what it likes: everything here is judged. One thread. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct frames {
    GByteArray *pending;         /* a frame that is not complete */
    GByteArray *output, *errors; /* the command's, which the owner takes out */
    uint64_t bytes;              /* of both, ever */
    unsigned begun;              /* how often the init has said that it runs */
    bool ended;                  /* the command has, with `status` */
    int status;
    char *failure; /* why it did not run, or what is wrong with the frames; NULL: nothing */
};

void frames_start(struct frames *frames);
void frames_finish(struct frames *frames);
void frames_take(struct frames *frames, const uint8_t *data, size_t length);
