/* The PS/2 mouse; see ps2.h.
 *
 * Manuals: IBM PS/2 Hardware Interface Technical Reference, "Mouse"; Microsoft's IntelliMouse
 * extensions (the knock on the sample rate). The sample rate is stored, not kept: packets come as
 * fast as the guest reads them. */
#include "devices/ps2.h"

#include <glib.h>

enum { MOTION_MAX = 4096, WHEEL_MAX = 64 };
enum { STATUS_REMOTE = 0x40, STATUS_REPORTING = 0x20, STATUS_SCALING = 0x10 };

const struct field ps2_mouse_fields[] = {
    SAVED(struct ps2_mouse, dx),
    SAVED(struct ps2_mouse, dy),
    SAVED(struct ps2_mouse, wheel),
    SAVED_PS2_FIFO(struct ps2_mouse, replies),
    SAVED_PS2_FIFO(struct ps2_mouse, packets),
    SAVED_MAX(struct ps2_mouse, buttons, PS2_BUTTONS),
    SAVED_MAX(struct ps2_mouse, sent_buttons, PS2_BUTTONS),
    SAVED(struct ps2_mouse, command),
    SAVED(struct ps2_mouse, resolution),
    SAVED(struct ps2_mouse, rate),
    SAVED_MAX(struct ps2_mouse, id, 4),
    SAVED(struct ps2_mouse, last),
    SAVED_ARRAY(struct ps2_mouse, knock),
    SAVED(struct ps2_mouse, reporting),
    SAVED(struct ps2_mouse, remote),
    SAVED(struct ps2_mouse, scaling),
    SAVED(struct ps2_mouse, wrap),
    SAVED_PAD(struct ps2_mouse, pad),
    SAVED_END,
};

/* At most `limit` either way; the rest stays for the next packet, so that a counter never has to
 * overflow and the overflow bits stay clear. */
static int take_motion(int64_t *motion, int limit)
{
    int part = (int)CLAMP(*motion, -limit, limit);
    *motion -= part;
    return part;
}

/* Scaling 2:1, of reports in stream mode only. */
static int scale(int counts)
{
    static const uint8_t small[] = { 0, 1, 1, 3, 6, 9 };
    int size = ABS(counts);
    int scaled = size < (int)sizeof small ? small[size] : 2 * size;
    return counts < 0 ? -scaled : scaled;
}

static void put_packet(struct ps2_mouse *mouse, struct ps2_fifo *fifo, bool scaling)
{
    int limit = scaling ? 127 : 255;
    int x = take_motion(&mouse->dx, limit), y = -take_motion(&mouse->dy, limit);
    if (scaling) {
        x = scale(x);
        y = scale(y);
    }
    ps2_fifo_put(fifo,
                 (uint8_t)((mouse->buttons & 7) | 8 | (x < 0 ? 0x10 : 0) | (y < 0 ? 0x20 : 0)));
    ps2_fifo_put(fifo, (uint8_t)x);
    ps2_fifo_put(fifo, (uint8_t)y);
    if (mouse->id == 3)
        ps2_fifo_put(fifo, (uint8_t)-take_motion(&mouse->wheel, 7));
    else if (mouse->id == 4)
        ps2_fifo_put(fifo, (uint8_t)((-take_motion(&mouse->wheel, 7) & 0x0f) |
                                     (mouse->buttons >> 3 & 3) << 4));
    else
        mouse->wheel = 0;
    mouse->sent_buttons = mouse->buttons;
}

/* Motion is gathered while a packet waits; a change of the buttons gets a packet of its own as long
 * as there is room. */
static void report(struct ps2_mouse *mouse)
{
    enum { LONGEST = 4 };
    bool clicked = mouse->buttons != mouse->sent_buttons;
    bool moved = mouse->dx || mouse->dy || mouse->wheel;
    if (!mouse->reporting || mouse->remote || mouse->wrap)
        return;
    if ((clicked && ps2_fifo_room(&mouse->packets, LONGEST)) || (moved && !mouse->packets.count))
        put_packet(mouse, &mouse->packets, mouse->scaling);
}

void ps2_mouse_move(struct ps2_mouse *mouse, int dx, int dy, int wheel, unsigned buttons)
{
    mouse->dx = CLAMP(mouse->dx, -MOTION_MAX, MOTION_MAX) + CLAMP(dx, -MOTION_MAX, MOTION_MAX);
    mouse->dy = CLAMP(mouse->dy, -MOTION_MAX, MOTION_MAX) + CLAMP(dy, -MOTION_MAX, MOTION_MAX);
    mouse->wheel =
        mouse->id ? CLAMP(mouse->wheel, -WHEEL_MAX, WHEEL_MAX) + CLAMP(wheel, -WHEEL_MAX, WHEEL_MAX)
                  : 0;
    mouse->buttons = buttons & PS2_BUTTONS & (mouse->id == 4 ? PS2_BUTTONS : 7);
    if (!mouse->reporting && !mouse->remote)
        mouse->dx = mouse->dy = mouse->wheel = 0;
    report(mouse);
}

static void mouse_forget(struct ps2_mouse *mouse)
{
    ps2_fifo_clear(&mouse->packets);
    mouse->dx = mouse->dy = mouse->wheel = 0;
}

static void mouse_defaults(struct ps2_mouse *mouse)
{
    mouse_forget(mouse);
    mouse->rate = 100;
    mouse->resolution = 2;
    mouse->reporting = mouse->remote = mouse->scaling = mouse->wrap = false;
}

void ps2_mouse_reset(struct ps2_mouse *mouse)
{
    *mouse = (struct ps2_mouse){ .id = 0 };
    mouse_defaults(mouse);
}

/* The rates 200, 100, 80 in a row make it an IntelliMouse; 200, 200, 80 one with five buttons. */
static void mouse_rate(struct ps2_mouse *mouse, uint8_t rate)
{
    if (rate == 80 && mouse->knock[1] == 200 && mouse->knock[0] == 100)
        mouse->id = 3;
    if (rate == 80 && mouse->knock[1] == 200 && mouse->knock[0] == 200)
        mouse->id = 4;
    mouse->knock[1] = mouse->knock[0];
    mouse->knock[0] = mouse->rate = rate;
}

static void mouse_status(struct ps2_mouse *mouse)
{
    uint8_t b = mouse->buttons;
    ps2_fifo_put(&mouse->replies, (uint8_t)((mouse->remote ? STATUS_REMOTE : 0) |
                                            (mouse->reporting ? STATUS_REPORTING : 0) |
                                            (mouse->scaling ? STATUS_SCALING : 0) | (b & 1) << 2 |
                                            (b & 4) >> 1 | (b & 2) >> 1));
    ps2_fifo_put(&mouse->replies, mouse->resolution);
    ps2_fifo_put(&mouse->replies, mouse->rate);
}

/* Commands that set a mode; false for others. */
static bool mouse_mode(struct ps2_mouse *mouse, uint8_t byte)
{
    switch (byte) {
    case 0xe6:
    case 0xe7:
        mouse->scaling = byte == 0xe7;
        return true;
    case 0xea: /* stream mode */
    case 0xf0: /* remote mode */
        mouse->remote = byte == 0xf0;
        mouse_forget(mouse);
        return true;
    case 0xec:
    case 0xee:
        mouse->wrap = byte == 0xee;
        mouse_forget(mouse);
        return true;
    case 0xf4:
    case 0xf5:
        mouse->reporting = byte == 0xf4;
        mouse_forget(mouse);
        return true;
    case 0xf6:
        mouse_defaults(mouse);
        return true;
    default:
        return false;
    }
}

static void mouse_command(struct ps2_mouse *mouse, uint8_t byte)
{
    ps2_fifo_put(&mouse->replies, PS2_ACK);
    if (mouse_mode(mouse, byte))
        return;
    switch (byte) {
    case 0xe8: /* resolution */
    case 0xf3: /* sample rate */
        mouse->command = byte;
        break;
    case 0xe9:
        mouse_status(mouse);
        break;
    case 0xeb: /* read data */
        put_packet(mouse, &mouse->replies, false);
        break;
    case 0xf2:
        ps2_fifo_put(&mouse->replies, mouse->id);
        break;
    case 0xff:
        ps2_mouse_reset(mouse);
        ps2_fifo_put(&mouse->replies, PS2_ACK);
        ps2_fifo_put(&mouse->replies, PS2_PASSED);
        ps2_fifo_put(&mouse->replies, 0);
        break;
    default:
        ps2_fifo_clear(&mouse->replies);
        ps2_fifo_put(&mouse->replies, byte == 0xfe ? mouse->last : PS2_NAK);
    }
}

void ps2_mouse_write(struct ps2_mouse *mouse, uint8_t byte)
{
    uint8_t command = mouse->command;
    mouse->command = 0;
    ps2_fifo_clear(&mouse->replies);
    ps2_fifo_clear(&mouse->packets); /* a packet cut short by a command is not taken up again */
    if (mouse->wrap && byte != 0xec && byte != 0xff) {
        ps2_fifo_put(&mouse->replies, byte);
    } else if (command) {
        ps2_fifo_put(&mouse->replies, PS2_ACK);
        if (command == 0xf3)
            mouse_rate(mouse, byte);
        else
            mouse->resolution = byte & 3;
    } else {
        mouse_command(mouse, byte);
    }
}

enum ps2_next ps2_mouse_next(const struct ps2_mouse *mouse)
{
    if (mouse->replies.count)
        return PS2_REPLY;
    return mouse->packets.count && !mouse->command ? PS2_EVENT : PS2_NOTHING;
}

uint8_t ps2_mouse_take(struct ps2_mouse *mouse)
{
    if (mouse->replies.count) {
        mouse->last = ps2_fifo_take(&mouse->replies);
    } else {
        mouse->last = ps2_fifo_take(&mouse->packets);
        report(mouse);
    }
    return mouse->last;
}
