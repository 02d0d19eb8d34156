/* What the machine told its window: messages of base/display-protocol.h, judged. The machine holds
 * the guest, so nothing it says is trusted: not sizes, not text, not the order of messages. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/display-protocol.h"
#include "bus/screen.h"

/* The largest frame that is mapped; the largest picture is 34 MiB. */
#define FRAME_BYTES_MAX ((size_t)SCREEN_MAX_WIDTH * SCREEN_MAX_HEIGHT * sizeof(uint32_t))

struct model {
    bool greeted;            /* DISPLAY_HELLO came */
    size_t frame_bytes;      /* how much of the frame's file may be read; 0 before the greeting */
    uint32_t width, height;  /* 0 before the first mode */
    struct rectangle damage; /* joined since it was last taken; inside the mode; width 0: none */
    enum display_state state;
    uint32_t lamps, disk;
    bool pasting;
    bool absolute;     /* the guest takes positions of the pointer */
    bool changed_mode; /* since last taken */
    char name[DISPLAY_TEXT_MAX + 1];
    char reason[DISPLAY_TEXT_MAX + 1];
};

/* Takes a message of `length` bytes that came with `fds` descriptors, of which the frame's file
 * has file_bytes. False when the other end does not follow the protocol: hang up. A kind that is
 * not known is skipped. */
bool protocol_take(struct model *model, const struct display_message *message, size_t length,
                   unsigned fds, uint64_t file_bytes, GError **error);

/* The smallest rectangle with both inside; an empty one (width or height 0) adds nothing. */
struct rectangle rectangle_join(struct rectangle a, struct rectangle b);

/* The length of the first piece of UTF-8 text that fits a message without cutting a character;
 * 0 only for empty text. Bytes that are no UTF-8 are cut anywhere. */
size_t protocol_text_piece(const char *text, size_t length);
