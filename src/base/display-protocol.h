/* The display socket: what hv-vmm and a viewer (hv-view, hv screen) tell each other.
 *
 * SOCK_SEQPACKET on $XDG_RUNTIME_DIR/hv/NAME/display; each packet is one struct display_message of
 * fixed size, in host byte order (both ends are on one machine). The server greets with
 * DISPLAY_HELLO and, beside it, the descriptor of the frame: a sealed memfd that the viewer maps
 * read-only, rows of `width` 32-bit pixels 0x00RRGGBB without gaps. The viewer checks every
 * geometry against the size of what it mapped. Neither end trusts the other to read: what cannot be
 * sent is joined (damage, state) or dropped (pointer motion), never waited for. */
#pragma once
#include <stdint.h>

enum { DISPLAY_VERSION = 2, DISPLAY_TEXT_MAX = 200, DISPLAY_NAME_MAX = 64 };

enum display_kind {
    /* from the machine */
    DISPLAY_HELLO =
        1,          /* version, frame bytes (a = low, b = high half), text = the machine's name */
    DISPLAY_MODE,   /* a x b pixels from now on; the whole frame changed */
    DISPLAY_DAMAGE, /* a, b, c, d: x, y, width, height of what changed */
    DISPLAY_STATE,  /* a: enum display_state, b: lamps (enum lamp), c: disk activity (a counter),
                       d: enum display_flag; text: why it is not running */
    /* from the viewer */
    DISPLAY_KEY = 0x100, /* a: HID usage, b: 1 down 0 up */
    DISPLAY_POINTER,     /* a, b: relative motion (int32_t), c: wheel (int32_t), d: buttons */
    DISPLAY_POINTER_AT,  /* a, b: position, 0..POINTER_RANGE over the picture, c, d as above */
    DISPLAY_PASTE,  /* text of `a` bytes, UTF-8, to be typed on the keyboard; goes on with more */
    DISPLAY_ACTION, /* a: enum display_action */
};

enum display_state { STATE_RUNNING, STATE_PAUSED, STATE_DISK_FULL, STATE_CRASHED, STATE_OFF };

enum display_flag {
    DISPLAY_TYPING = 1,   /* pasted text is being typed */
    DISPLAY_ABSOLUTE = 2, /* the guest takes positions of the pointer: DISPLAY_POINTER_AT */
};

enum display_action {
    ACTION_SHUT_DOWN = 1, /* press the power button */
    ACTION_POWER_OFF,     /* pull the plug */
    ACTION_RESET,
    ACTION_PAUSE,
    ACTION_RESUME,
    ACTION_EJECT, /* the CD */
};

struct display_message {
    uint32_t kind; /* enum display_kind */
    uint32_t a, b, c, d;
    char text[DISPLAY_TEXT_MAX];
};
