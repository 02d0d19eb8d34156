/* A PS/2 keyboard and a PS/2 mouse, each as logic of its own: bytes from the host and events of the
 * user in, bytes for the host out. They belong to the i8042, which has the ports, the lines, the
 * pace and the lock. Nothing here keeps pointers or knows of time. */
#pragma once
#include "base/state.h"

enum { PS2_FIFO_SIZE = 64, PS2_FIFO_MASK = PS2_FIFO_SIZE - 1 };

struct ps2_fifo {
    uint8_t bytes[PS2_FIFO_SIZE];
    uint8_t head, count;
};

extern const struct field ps2_fifo_fields[]; /* ps2-keyboard.c */
#define SAVED_PS2_FIFO(T, m)                                                                       \
    {                                                                                              \
        .name = #m, .type = FIELD_STRUCT, .since = 1, .offset = offsetof(T, m),                    \
        .width = sizeof(struct ps2_fifo), .count = 1, .fields = ps2_fifo_fields                    \
    }

static inline bool ps2_fifo_room(const struct ps2_fifo *fifo, unsigned bytes)
{
    return fifo->count + bytes <= PS2_FIFO_SIZE;
}

/* Nothing happens when it is full. */
static inline void ps2_fifo_put(struct ps2_fifo *fifo, uint8_t byte)
{
    if (!ps2_fifo_room(fifo, 1))
        return;
    fifo->bytes[(fifo->head + fifo->count) & PS2_FIFO_MASK] = byte;
    fifo->count++;
}

static inline uint8_t ps2_fifo_take(struct ps2_fifo *fifo)
{
    uint8_t byte = fifo->bytes[fifo->head & PS2_FIFO_MASK];
    if (fifo->count) {
        fifo->head = (fifo->head + 1) & PS2_FIFO_MASK;
        fifo->count--;
    }
    return byte;
}

static inline void ps2_fifo_clear(struct ps2_fifo *fifo)
{
    *fifo = (struct ps2_fifo){ .count = 0 };
}

/* What both answer. */
enum { PS2_ACK = 0xfa, PS2_NAK = 0xfe, PS2_PASSED = 0xaa };

/* What a device would send next: replies go before what the user did. */
enum ps2_next { PS2_NOTHING, PS2_REPLY, PS2_EVENT };

struct ps2_keyboard {
    struct ps2_fifo replies, codes;
    uint8_t owed[32];  /* by usage, a bit each: releases that found no room, sent when there is */
    uint8_t command;   /* whose operand is awaited; 0: none */
    uint8_t set;       /* of scan codes, 1 to 3 */
    uint8_t lamps;     /* of enum lamp */
    uint8_t rate;      /* typematic; stored */
    uint8_t last;      /* byte sent, for "resend" */
    uint8_t modifiers; /* held: bit n is usage 0xe0 + n */
    uint8_t print;     /* which of its codes PrintScreen went down with */
    bool scanning;
    bool breaks; /* set 3: releases are sent */
    uint8_t pad[3];
};
extern const struct field ps2_keyboard_fields[];

void ps2_keyboard_reset(struct ps2_keyboard *keyboard);
/* False when there is no room for the code of a key that goes down. */
bool ps2_keyboard_key(struct ps2_keyboard *keyboard, uint8_t usage, bool down);
void ps2_keyboard_write(struct ps2_keyboard *keyboard, uint8_t byte);
enum ps2_next ps2_keyboard_next(const struct ps2_keyboard *keyboard);
uint8_t ps2_keyboard_take(struct ps2_keyboard *keyboard);

/* Translates a byte of set 2 into set 1 as the 8042 does; false for the release prefix, which is
 * kept in *released and becomes bit 7 of the byte that follows. */
bool ps2_translate(bool *released, uint8_t *byte);

enum { PS2_BUTTONS = 0x1f }; /* enum pointer_button, then the two at the side */

struct ps2_mouse {
    int64_t dx, dy, wheel; /* not sent yet: right, down, away from the user */
    struct ps2_fifo replies, packets;
    uint8_t buttons, sent_buttons;
    uint8_t command; /* whose operand is awaited; 0: none */
    uint8_t resolution, rate;
    uint8_t id;       /* 0: standard, 3: with a wheel, 4: with five buttons */
    uint8_t last;     /* byte sent, for "resend" */
    uint8_t knock[2]; /* the last sample rates, newest first */
    bool reporting, remote, scaling, wrap;
    uint8_t pad[7];
};
extern const struct field ps2_mouse_fields[];

void ps2_mouse_reset(struct ps2_mouse *mouse);
void ps2_mouse_move(struct ps2_mouse *mouse, int dx, int dy, int wheel, unsigned buttons);
void ps2_mouse_write(struct ps2_mouse *mouse, uint8_t byte);
enum ps2_next ps2_mouse_next(const struct ps2_mouse *mouse);
uint8_t ps2_mouse_take(struct ps2_mouse *mouse);
