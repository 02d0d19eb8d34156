/* Keys of the window become keys of the guest, or, with the host key held, commands of the viewer.
 * No SDL: scancodes are USB HID usages of page 7, which SDL's are too; SDL's codes above them (for
 * the keys of the consumer page) are mapped to the usages that page 7 leaves free. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* HID usages that the viewer itself talks about (HUT 1.12 section 10). */
enum {
    KEY_A = 0x04,
    KEY_B = 0x05,
    KEY_C = 0x06,
    KEY_E = 0x08,
    KEY_F = 0x09,
    KEY_G = 0x0a,
    KEY_H = 0x0b,
    KEY_I = 0x0c,
    KEY_K = 0x0e,
    KEY_M = 0x10,
    KEY_O = 0x12,
    KEY_P = 0x13,
    KEY_Q = 0x14,
    KEY_R = 0x15,
    KEY_S = 0x16,
    KEY_U = 0x18,
    KEY_V = 0x19,
    KEY_1 = 0x1e,
    KEY_ENTER = 0x28,
    KEY_ESCAPE = 0x29,
    KEY_BACKSPACE = 0x2a,
    KEY_TAB = 0x2b,
    KEY_SPACE = 0x2c,
    KEY_F1 = 0x3a,
    KEY_F2,
    KEY_F3,
    KEY_F4,
    KEY_F5,
    KEY_F6,
    KEY_F7,
    KEY_PRINT = 0x46,
    KEY_SCROLL_LOCK = 0x47,
    KEY_PAUSE = 0x48,
    KEY_HOME = 0x4a,
    KEY_DELETE = 0x4c,
    KEY_END = 0x4d,
    KEY_RIGHT = 0x4f,
    KEY_LEFT = 0x50,
    KEY_DOWN = 0x51,
    KEY_UP = 0x52,
    KEY_MENU = 0x65,
    KEY_LEFT_CTRL = 0xe0,
    KEY_LEFT_SHIFT,
    KEY_LEFT_ALT,
    KEY_LEFT_META,
    KEY_RIGHT_CTRL,
    KEY_RIGHT_SHIFT,
    KEY_RIGHT_ALT,
    KEY_RIGHT_META,
};

enum keyboard_verdict {
    KEYBOARD_NOTHING, /* the host key itself, or nothing to do */
    KEYBOARD_GUEST,   /* *usage goes to the guest */
    KEYBOARD_COMMAND, /* *usage was pressed with the host key held */
    KEYBOARD_TAPPED,  /* the host key was pressed and released alone */
};

struct keyboard {
    uint8_t host_key;
    bool host_held, host_used;
    bool down[256]; /* as the guest knows it */
};

/* False when no key has that name; the error lists them. */
bool keyboard_host_key(struct keyboard *keyboard, const char *name, GError **error);
/* The name of the host key for people: "Right Ctrl". */
const char *keyboard_host_name(const struct keyboard *keyboard);

enum keyboard_change { KEYBOARD_UP, KEYBOARD_DOWN, KEYBOARD_REPEAT };

/* Judges a key event of the window. A repeat (the host's typematic) passes as another press; the
 * repeat or release of a key that the guest does not hold is nothing. */
enum keyboard_verdict keyboard_event(struct keyboard *keyboard, uint32_t scancode,
                                     enum keyboard_change change, uint8_t *usage);

/* All keys up, for the loss of the focus and the viewer's own dialogs: calls `release` for each key
 * that the guest holds. */
void keyboard_release(struct keyboard *keyboard, void (*release)(void *data, uint8_t usage),
                      void *data);
