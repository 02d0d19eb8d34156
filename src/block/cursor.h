/* A place in a list of spans of host memory, for who goes through it piece by piece. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct cursor {
    const struct iovec *iov;
    size_t skip; /* bytes of *iov that are done; less than it has, but at the end */
};

/* The next spans, up to `length` bytes and `most` spans, into `to`: how many they are and, in
 * `taken`, their bytes. The list must have `length` bytes left. The cursor moves past them. */
unsigned cursor_take(struct cursor *cursor, size_t length, struct iovec *to, unsigned most,
                     size_t *taken);
/* Copies the next `length` bytes out of the list or into it. */
void cursor_read(struct cursor *cursor, void *to, size_t length);
void cursor_write(struct cursor *cursor, const void *from, size_t length);
void cursor_zero(struct cursor *cursor, size_t length);
