/* The PS/2 keyboard; see ps2.h.
 *
 * Manuals: IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-Key)";
 * Microsoft Keyboard Scan Code Specification 1.3a and USB HID to PS/2 Scan Code Translation Table.
 *
 * Left to the host: typematic repetition (repeated key downs come in). The cursor keys are sent
 * without the shifts that a real keyboard fakes around them. In set 3 all keys are alike: FB to FD
 * are acknowledged without effect. */
#include "devices/ps2.h"

#include <string.h>

const struct field ps2_fifo_fields[] = {
    SAVED_ARRAY(struct ps2_fifo, bytes),
    SAVED_MAX(struct ps2_fifo, head, PS2_FIFO_MASK),
    SAVED_MAX(struct ps2_fifo, count, PS2_FIFO_SIZE),
    SAVED_END,
};

/* --- scan codes ----------------------------------------------------------------------------- */

#define E0(code) (0xe000 | (code))

enum {
    USAGE_PRINT = 0x46,
    USAGE_PAUSE = 0x48,
    USAGE_HANGUL = 0x90,
    USAGE_HANJA = 0x91,
    USAGE_MODIFIERS = 0xe0,
};
enum { MODIFIER_CTRL = 0x11, MODIFIER_SHIFT = 0x22, MODIFIER_ALT = 0x44 };

/* clang-format off */
/* By usage of HID page 7: the codes of set 2 (with E0 or without) and set 3; 0: no such key. From
 * 0xe8 on stand multimedia keys, where Linux and its keyboards have them, as the page has none. */
static const struct {
    uint16_t set2;
    uint8_t set3;
} codes[256] = {
    /* letters */
    [0x04] = { 0x1c, 0x1c }, [0x05] = { 0x32, 0x32 }, [0x06] = { 0x21, 0x21 },
    [0x07] = { 0x23, 0x23 }, [0x08] = { 0x24, 0x24 }, [0x09] = { 0x2b, 0x2b },
    [0x0a] = { 0x34, 0x34 }, [0x0b] = { 0x33, 0x33 }, [0x0c] = { 0x43, 0x43 },
    [0x0d] = { 0x3b, 0x3b }, [0x0e] = { 0x42, 0x42 }, [0x0f] = { 0x4b, 0x4b },
    [0x10] = { 0x3a, 0x3a }, [0x11] = { 0x31, 0x31 }, [0x12] = { 0x44, 0x44 },
    [0x13] = { 0x4d, 0x4d }, [0x14] = { 0x15, 0x15 }, [0x15] = { 0x2d, 0x2d },
    [0x16] = { 0x1b, 0x1b }, [0x17] = { 0x2c, 0x2c }, [0x18] = { 0x3c, 0x3c },
    [0x19] = { 0x2a, 0x2a }, [0x1a] = { 0x1d, 0x1d }, [0x1b] = { 0x22, 0x22 },
    [0x1c] = { 0x35, 0x35 }, [0x1d] = { 0x1a, 0x1a },
    /* 1 to 9, 0 */
    [0x1e] = { 0x16, 0x16 }, [0x1f] = { 0x1e, 0x1e }, [0x20] = { 0x26, 0x26 },
    [0x21] = { 0x25, 0x25 }, [0x22] = { 0x2e, 0x2e }, [0x23] = { 0x36, 0x36 },
    [0x24] = { 0x3d, 0x3d }, [0x25] = { 0x3e, 0x3e }, [0x26] = { 0x46, 0x46 },
    [0x27] = { 0x45, 0x45 },
    /* Enter, Esc, Backspace, Tab, Space */
    [0x28] = { 0x5a, 0x5a }, [0x29] = { 0x76, 0x08 }, [0x2a] = { 0x66, 0x66 },
    [0x2b] = { 0x0d, 0x0d }, [0x2c] = { 0x29, 0x29 },
    /* - = [ ] \ (and its place on European keyboards) ; ' ` , . / */
    [0x2d] = { 0x4e, 0x4e }, [0x2e] = { 0x55, 0x55 }, [0x2f] = { 0x54, 0x54 },
    [0x30] = { 0x5b, 0x5b }, [0x31] = { 0x5d, 0x5c }, [0x32] = { 0x5d, 0x53 },
    [0x33] = { 0x4c, 0x4c }, [0x34] = { 0x52, 0x52 }, [0x35] = { 0x0e, 0x0e },
    [0x36] = { 0x41, 0x41 }, [0x37] = { 0x49, 0x49 }, [0x38] = { 0x4a, 0x4a },
    /* Caps Lock, F1 to F12 */
    [0x39] = { 0x58, 0x14 }, [0x3a] = { 0x05, 0x07 }, [0x3b] = { 0x06, 0x0f },
    [0x3c] = { 0x04, 0x17 }, [0x3d] = { 0x0c, 0x1f }, [0x3e] = { 0x03, 0x27 },
    [0x3f] = { 0x0b, 0x2f }, [0x40] = { 0x83, 0x37 }, [0x41] = { 0x0a, 0x3f },
    [0x42] = { 0x01, 0x47 }, [0x43] = { 0x09, 0x4f }, [0x44] = { 0x78, 0x56 },
    [0x45] = { 0x07, 0x5e },
    /* PrintScreen (see print_code), Scroll Lock, Pause (see pause_code) */
    [USAGE_PRINT] = { E0(0x7c), 0x57 }, [0x47] = { 0x7e, 0x5f }, [USAGE_PAUSE] = { 0x77, 0x62 },
    /* Insert, Home, PgUp, Delete, End, PgDn, right, left, down, up */
    [0x49] = { E0(0x70), 0x67 }, [0x4a] = { E0(0x6c), 0x6e }, [0x4b] = { E0(0x7d), 0x6f },
    [0x4c] = { E0(0x71), 0x64 }, [0x4d] = { E0(0x69), 0x65 }, [0x4e] = { E0(0x7a), 0x6d },
    [0x4f] = { E0(0x74), 0x6a }, [0x50] = { E0(0x6b), 0x61 }, [0x51] = { E0(0x72), 0x60 },
    [0x52] = { E0(0x75), 0x63 },
    /* keypad: Num Lock, / * - + Enter, 1 to 9, 0, . */
    [0x53] = { 0x77, 0x76 }, [0x54] = { E0(0x4a), 0x77 }, [0x55] = { 0x7c, 0x7e },
    [0x56] = { 0x7b, 0x84 }, [0x57] = { 0x79, 0x7c }, [0x58] = { E0(0x5a), 0x79 },
    [0x59] = { 0x69, 0x69 }, [0x5a] = { 0x72, 0x72 }, [0x5b] = { 0x7a, 0x7a },
    [0x5c] = { 0x6b, 0x6b }, [0x5d] = { 0x73, 0x73 }, [0x5e] = { 0x74, 0x74 },
    [0x5f] = { 0x6c, 0x6c }, [0x60] = { 0x75, 0x75 }, [0x61] = { 0x7d, 0x7d },
    [0x62] = { 0x70, 0x70 }, [0x63] = { 0x71, 0x71 },
    /* the key beside the left Shift, Application, Power, keypad = */
    [0x64] = { 0x61, 0x13 }, [0x65] = { E0(0x2f), 0x8d }, [0x66] = { E0(0x37), 0 },
    [0x67] = { 0x0f, 0 },
    /* F13 to F24 */
    [0x68] = { 0x08, 0x7f }, [0x69] = { 0x10, 0x80 }, [0x6a] = { 0x18, 0x81 },
    [0x6b] = { 0x20, 0x82 }, [0x6c] = { 0x28, 0x83 }, [0x6d] = { 0x30, 0 }, [0x6e] = { 0x38, 0 },
    [0x6f] = { 0x40, 0 }, [0x70] = { 0x48, 0 }, [0x71] = { 0x50, 0 }, [0x72] = { 0x57, 0 },
    [0x73] = { 0x5f, 0 },
    /* mute, louder, softer */
    [0x7f] = { E0(0x23), 0 }, [0x80] = { E0(0x32), 0 }, [0x81] = { E0(0x21), 0 },
    /* Brazil: keypad . ; with Japan: Ro, Katakana/Hiragana, Yen, Henkan, Muhenkan, keypad , */
    [0x85] = { 0x6d, 0x7b }, [0x87] = { 0x51, 0x51 }, [0x88] = { 0x13, 0x87 },
    [0x89] = { 0x6a, 0x5d }, [0x8a] = { 0x64, 0x86 }, [0x8b] = { 0x67, 0x85 }, [0x8c] = { 0x27, 0 },
    /* Korea: Hangul, Hanja (sent at the press only); Japan: Katakana, Hiragana, Zenkaku */
    [USAGE_HANGUL] = { 0xf2, 0 }, [USAGE_HANJA] = { 0xf1, 0 }, [0x92] = { 0x63, 0 },
    [0x93] = { 0x62, 0 }, [0x94] = { 0x5f, 0 },
    /* left Ctrl, Shift, Alt, GUI; right ones */
    [0xe0] = { 0x14, 0x11 }, [0xe1] = { 0x12, 0x12 }, [0xe2] = { 0x11, 0x19 },
    [0xe3] = { E0(0x1f), 0x8b }, [0xe4] = { E0(0x14), 0x58 }, [0xe5] = { 0x59, 0x59 },
    [0xe6] = { E0(0x11), 0x39 }, [0xe7] = { E0(0x27), 0x8c },
    /* play, stop, previous, next; louder, softer, mute; WWW, back, forward, stop, search */
    [0xe8] = { E0(0x34), 0 }, [0xe9] = { E0(0x3b), 0 }, [0xea] = { E0(0x15), 0 },
    [0xeb] = { E0(0x4d), 0 }, [0xed] = { E0(0x32), 0 }, [0xee] = { E0(0x21), 0 },
    [0xef] = { E0(0x23), 0 }, [0xf0] = { E0(0x3a), 0 }, [0xf1] = { E0(0x38), 0 },
    [0xf2] = { E0(0x30), 0 }, [0xf3] = { E0(0x28), 0 }, [0xf4] = { E0(0x10), 0 },
    /* sleep, refresh, calculator */
    [0xf8] = { E0(0x3f), 0 }, [0xfa] = { E0(0x20), 0 }, [0xfb] = { E0(0x2b), 0 },
};
/* clang-format on */

/* The 8042's table from set 2 to set 1; above it all is as it was, but for two keys. */
static const uint8_t translation[128] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
};

bool ps2_translate(bool *released, uint8_t *byte)
{
    if (*byte == 0xf0) {
        *released = true;
        return false;
    }
    uint8_t code = *byte;
    if (code < sizeof translation)
        code = translation[code];
    else if (code == 0x83)
        code = 0x41;
    else if (code == 0x84)
        code = 0x54;
    *byte = *released ? code | 0x80 : code;
    *released = false;
    return true;
}

/* A sequence being made; the longest, of Pause, has 8 bytes. */
struct sequence {
    uint8_t bytes[8];
    unsigned length;
};

static void add(struct sequence *s, uint8_t byte)
{
    if (s->length < sizeof s->bytes)
        s->bytes[s->length++] = byte;
}

static void add_code(struct sequence *s, uint16_t code, bool down)
{
    if (code >> 8)
        add(s, (uint8_t)(code >> 8));
    if (!down)
        add(s, 0xf0);
    add(s, (uint8_t)code);
}

/* PrintScreen pretends a Shift, which it does not need with Shift or Ctrl; with Alt it is SysRq. It
 * goes up with the code it went down with. */
static void print_code(struct ps2_keyboard *keyboard, struct sequence *s, bool down)
{
    enum { PLAIN, SHIFTED, SYSRQ };
    if (down) {
        uint8_t held = keyboard->modifiers;
        keyboard->print = held & MODIFIER_ALT                       ? SYSRQ
                          : held & (MODIFIER_CTRL | MODIFIER_SHIFT) ? SHIFTED
                                                                    : PLAIN;
    }
    if (keyboard->print == SYSRQ) {
        add_code(s, 0x84, down);
        return;
    }
    if (keyboard->print == PLAIN && down)
        add_code(s, E0(0x12), true);
    add_code(s, E0(0x7c), down);
    if (keyboard->print == PLAIN && !down)
        add_code(s, E0(0x12), false);
}

/* Pause has no release: all of it is sent at the press. With Ctrl it is Break. */
static void pause_code(const struct ps2_keyboard *keyboard, struct sequence *s)
{
    if (keyboard->modifiers & MODIFIER_CTRL) {
        add_code(s, E0(0x7e), true);
        add_code(s, E0(0x7e), false);
        return;
    }
    add(s, 0xe1);
    add(s, 0x14);
    add(s, 0x77);
    add(s, 0xe1);
    add_code(s, 0x14, false);
    add_code(s, 0x77, false);
}

static void to_set_1(struct sequence *s)
{
    struct sequence set2 = *s;
    bool released = false;
    s->length = 0;
    for (unsigned i = 0; i < set2.length; i++)
        if (ps2_translate(&released, &set2.bytes[i]))
            add(s, set2.bytes[i]);
}

static struct sequence sequence_of(struct ps2_keyboard *keyboard, uint8_t usage, bool down)
{
    struct sequence s = { .length = 0 };
    if (keyboard->set == 3) {
        if (codes[usage].set3 && (down || keyboard->breaks))
            add_code(&s, codes[usage].set3, down);
        return s;
    }
    if (usage == USAGE_PRINT)
        print_code(keyboard, &s, down);
    else if (usage == USAGE_PAUSE && down)
        pause_code(keyboard, &s);
    else if (usage != USAGE_PAUSE && codes[usage].set2 &&
             (down || (usage != USAGE_HANGUL && usage != USAGE_HANJA)))
        add_code(&s, codes[usage].set2, down);
    if (keyboard->set == 1)
        to_set_1(&s);
    return s;
}

/* --- the keyboard --------------------------------------------------------------------------- */

const struct field ps2_keyboard_fields[] = {
    SAVED_PS2_FIFO(struct ps2_keyboard, replies),
    SAVED_PS2_FIFO(struct ps2_keyboard, codes),
    SAVED_ARRAY(struct ps2_keyboard, owed),
    SAVED(struct ps2_keyboard, command),
    SAVED_MAX(struct ps2_keyboard, set, 3),
    SAVED_MAX(struct ps2_keyboard, lamps, 7),
    SAVED(struct ps2_keyboard, rate),
    SAVED(struct ps2_keyboard, last),
    SAVED(struct ps2_keyboard, modifiers),
    SAVED(struct ps2_keyboard, print),
    SAVED(struct ps2_keyboard, scanning),
    SAVED(struct ps2_keyboard, breaks),
    SAVED_PAD(struct ps2_keyboard, pad),
    SAVED_END,
};

static bool put_sequence(struct ps2_keyboard *keyboard, const struct sequence *s)
{
    if (!ps2_fifo_room(&keyboard->codes, s->length))
        return false;
    for (unsigned i = 0; i < s->length; i++)
        ps2_fifo_put(&keyboard->codes, s->bytes[i]);
    return true;
}

/* Sends releases that found no room; true when none is left. */
static bool pay_owed(struct ps2_keyboard *keyboard)
{
    for (unsigned i = 0; i < sizeof keyboard->owed; i++)
        while (keyboard->owed[i]) {
            unsigned bit = (unsigned)__builtin_ctz(keyboard->owed[i]);
            struct sequence s = sequence_of(keyboard, (uint8_t)(i * 8 + bit), false);
            if (!put_sequence(keyboard, &s))
                return false;
            keyboard->owed[i] &= (uint8_t) ~(1U << bit);
        }
    return true;
}

static void hold_modifier(struct ps2_keyboard *keyboard, uint8_t usage, bool down)
{
    if (usage < USAGE_MODIFIERS || usage >= USAGE_MODIFIERS + 8)
        return;
    uint8_t bit = (uint8_t)(1U << (usage - USAGE_MODIFIERS));
    keyboard->modifiers = (uint8_t)(down ? keyboard->modifiers | bit : keyboard->modifiers & ~bit);
}

bool ps2_keyboard_key(struct ps2_keyboard *keyboard, uint8_t usage, bool down)
{
    bool sent = !keyboard->scanning;
    if (keyboard->scanning && pay_owed(keyboard)) {
        struct sequence s = sequence_of(keyboard, usage, down);
        sent = put_sequence(keyboard, &s);
    }
    if (!sent && down)
        return false;
    if (!sent)
        keyboard->owed[usage / 8] |= (uint8_t)(1U << usage % 8);
    hold_modifier(keyboard, usage, down);
    return true;
}

static void clear_codes(struct ps2_keyboard *keyboard)
{
    ps2_fifo_clear(&keyboard->codes);
    memset(keyboard->owed, 0, sizeof keyboard->owed);
}

static void keyboard_defaults(struct ps2_keyboard *keyboard)
{
    clear_codes(keyboard);
    keyboard->command = 0;
    keyboard->set = 2;
    keyboard->rate = 0x2b; /* 10.9 characters a second after half a second */
    keyboard->breaks = true;
    keyboard->scanning = true;
}

void ps2_keyboard_reset(struct ps2_keyboard *keyboard)
{
    *keyboard = (struct ps2_keyboard){ .lamps = 0 };
    keyboard_defaults(keyboard);
}

/* The operand of a command; false when the byte is a command itself. */
static bool keyboard_operand(struct ps2_keyboard *keyboard, uint8_t byte)
{
    uint8_t command = keyboard->command;
    bool per_key = command >= 0xfb && command <= 0xfd; /* keys are listed until a command comes */
    if (byte >= 0xed || !command)
        return false;
    if (!per_key)
        keyboard->command = 0;
    if (command == 0xf0 && byte > 3) {
        ps2_fifo_put(&keyboard->replies, PS2_NAK);
        return true;
    }
    ps2_fifo_put(&keyboard->replies, PS2_ACK);
    if (command == 0xed)
        keyboard->lamps = byte & 7;
    else if (command == 0xf3)
        keyboard->rate = byte & 0x7f;
    else if (command == 0xf0 && byte) {
        keyboard->set = byte;
        clear_codes(keyboard);
    } else if (command == 0xf0)
        ps2_fifo_put(&keyboard->replies, keyboard->set);
    return true;
}

/* Commands that are answered otherwise than by ACK; false for the rest. */
static bool keyboard_answer(struct ps2_keyboard *keyboard, uint8_t byte)
{
    enum { ECHO = 0xee, RESEND = 0xfe, FIRST = 0xed };
    if (byte == ECHO)
        ps2_fifo_put(&keyboard->replies, ECHO);
    else if (byte == RESEND)
        ps2_fifo_put(&keyboard->replies, keyboard->last);
    else if (byte < FIRST || byte == 0xef || byte == 0xf1)
        ps2_fifo_put(&keyboard->replies, PS2_NAK);
    else
        return false;
    return true;
}

void ps2_keyboard_write(struct ps2_keyboard *keyboard, uint8_t byte)
{
    uint8_t held = keyboard->modifiers;
    if (keyboard_operand(keyboard, byte))
        return;
    ps2_fifo_clear(&keyboard->replies); /* a command ends what went before */
    keyboard->command = 0;
    if (keyboard_answer(keyboard, byte))
        return;
    ps2_fifo_put(&keyboard->replies, PS2_ACK);
    switch (byte) {
    case 0xed: /* lamps */
    case 0xf0: /* scan code set */
    case 0xf3: /* typematic rate */
    case 0xfb: /* set 3, per key */
    case 0xfc:
    case 0xfd:
        keyboard->command = byte;
        break;
    case 0xf2: /* identify */
        ps2_fifo_put(&keyboard->replies, 0xab);
        ps2_fifo_put(&keyboard->replies, 0x83);
        break;
    case 0xf4: /* enable */
        clear_codes(keyboard);
        keyboard->scanning = true;
        break;
    case 0xf5: /* defaults, and disable */
    case 0xf6: /* defaults */
        keyboard_defaults(keyboard);
        keyboard->scanning = byte == 0xf6;
        break;
    case 0xf7: /* set 3: all keys typematic; make only */
    case 0xf9:
        keyboard->breaks = false;
        break;
    case 0xf8: /* set 3: make and break; and typematic */
    case 0xfa:
        keyboard->breaks = true;
        break;
    default: /* 0xff: reset and self-test */
        ps2_keyboard_reset(keyboard);
        keyboard->modifiers = held; /* the user's fingers are where they were */
        ps2_fifo_put(&keyboard->replies, PS2_ACK);
        ps2_fifo_put(&keyboard->replies, PS2_PASSED);
    }
}

enum ps2_next ps2_keyboard_next(const struct ps2_keyboard *keyboard)
{
    /* While a command waits for its operand, the keyboard does not scan. */
    if (keyboard->replies.count)
        return PS2_REPLY;
    return keyboard->codes.count && !keyboard->command ? PS2_EVENT : PS2_NOTHING;
}

uint8_t ps2_keyboard_take(struct ps2_keyboard *keyboard)
{
    if (keyboard->replies.count) {
        keyboard->last = ps2_fifo_take(&keyboard->replies);
    } else {
        keyboard->last = ps2_fifo_take(&keyboard->codes);
        pay_owed(keyboard);
    }
    return keyboard->last;
}
