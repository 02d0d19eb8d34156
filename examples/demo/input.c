/* Keyboard, mouse and the clock's tick. 8042 and PS/2 (IBM PS/2 Hardware Interface Technical
 * Reference), PIC pair (Intel 8259A), RTC update interrupt (MC146818). The processor sleeps in HLT
 * and handles what the interrupt handlers put into a small queue: an idle demo costs the host one
 * wake-up a second. */
#include "demo.h"

enum {
    PIC1 = 0x20,
    PIC2 = 0xa0,
    DATA = 0x60,
    STATUS = 0x64,
    COMMAND = 0x64,
    RTC_INDEX = 0x70,
    RTC_DATA = 0x71
};
enum { STATUS_OUTPUT = 1, STATUS_INPUT = 2, STATUS_MOUSE = 0x20 };
enum { IRQ_KEYBOARD = 1, IRQ_CASCADE = 2, IRQ_RTC = 8, IRQ_MOUSE = 12, FIRST_VECTOR = 0x20 };
enum { QUEUE_SIZE = 256 };

struct gate {
    uint16_t offset_low, selector;
    uint8_t stack, type;
    uint16_t offset_middle;
    uint32_t offset_high, zero;
};

struct frame;

/* Byte, and where it came from. */
enum source { FROM_KEYBOARD, FROM_MOUSE, FROM_RTC };

static struct gate idt[48];
static volatile struct {
    uint8_t byte, source;
} queue[QUEUE_SIZE];
static volatile unsigned queue_in, queue_out;
static uint8_t packet[3], packet_length;
static bool extended;

static void queue_put(enum source source, uint8_t byte)
{
    if (queue_in - queue_out == QUEUE_SIZE)
        return;
    queue[queue_in % QUEUE_SIZE].byte = byte;
    queue[queue_in % QUEUE_SIZE].source = (uint8_t)source;
    queue_in++;
}

static void end_of_interrupt(unsigned irq)
{
    if (irq >= 8)
        outb(PIC2, 0x20);
    outb(PIC1, 0x20);
}

__attribute__((interrupt)) static void on_8042(struct frame *frame)
{
    (void)frame;
    uint8_t status = inb(STATUS);
    if (status & STATUS_OUTPUT)
        queue_put(status & STATUS_MOUSE ? FROM_MOUSE : FROM_KEYBOARD, inb(DATA));
    end_of_interrupt(IRQ_MOUSE); /* for the keyboard one too many: nothing is in service there */
}

__attribute__((interrupt)) static void on_rtc(struct frame *frame)
{
    (void)frame;
    outb(RTC_INDEX, 0x0c);
    inb(RTC_DATA);
    queue_put(FROM_RTC, 0);
    end_of_interrupt(IRQ_RTC);
}

__attribute__((interrupt)) static void on_nothing(struct frame *frame)
{
    (void)frame;
}

static void gate_set(unsigned vector, void (*handler)(struct frame *))
{
    uint64_t offset = (uint64_t)handler;
    idt[vector] = (struct gate){
        .offset_low = (uint16_t)offset,
        .selector = 24,
        .type = 0x8e,
        .offset_middle = (uint16_t)(offset >> 16),
        .offset_high = (uint32_t)(offset >> 32),
    };
}

static void pic_start(void)
{
    static const uint8_t words[2][4] = { { 0x11, FIRST_VECTOR, 1 << IRQ_CASCADE, 1 },
                                         { 0x11, FIRST_VECTOR + 8, IRQ_CASCADE, 1 } };
    const unsigned wanted = 1 << IRQ_KEYBOARD | 1 << IRQ_CASCADE | 1 << IRQ_RTC | 1 << IRQ_MOUSE;
    for (int chip = 0; chip < 2; chip++) {
        uint16_t port = chip ? PIC2 : PIC1;
        outb(port, words[chip][0]);
        for (int i = 1; i < 4; i++)
            outb(port + 1, words[chip][i]);
        outb(port + 1, (uint8_t)(~wanted >> 8 * chip));
    }
}

/* The controller takes 64k status reads at most: it may be absent. */
static void wait_status(uint8_t bit, uint8_t value)
{
    for (int patience = 0; patience < 0x4000 && (inb(STATUS) & bit) != value; patience++)
        ;
}

static void write_port(uint16_t port, uint8_t value)
{
    wait_status(STATUS_INPUT, 0);
    outb(port, value);
}

static uint8_t read_answer(void)
{
    wait_status(STATUS_OUTPUT, STATUS_OUTPUT);
    return inb(DATA);
}

static bool tell_mouse(uint8_t command)
{
    write_port(COMMAND, 0xd4);
    write_port(DATA, command);
    return read_answer() == 0xfa;
}

static void rtc_start(void)
{
    outb(RTC_INDEX, 0x0b);
    uint8_t control = inb(RTC_DATA);
    outb(RTC_INDEX, 0x0b);
    outb(RTC_DATA, (uint8_t)((control & 0x8f) | 0x10)); /* only the update interrupt */
    outb(RTC_INDEX, 0x0c);
    inb(RTC_DATA);
}

void input_start(struct input *input, int width, int height)
{
    input->mouse_x = width / 2;
    input->mouse_y = height / 2;

    write_port(COMMAND, 0xad); /* both quiet while we talk */
    write_port(COMMAND, 0xa7);
    for (int i = 0; i < 16 && inb(STATUS) & STATUS_OUTPUT; i++)
        inb(DATA);
    write_port(COMMAND, 0xa8);
    input->mouse_present = tell_mouse(0xf6) && tell_mouse(0xf4);
    write_port(COMMAND, 0xae);
    write_port(COMMAND, 0x60);
    write_port(DATA, 0x43); /* both interrupts, scan code set 1 */

    for (unsigned vector = 0; vector < sizeof idt / sizeof idt[0]; vector++)
        gate_set(vector, on_nothing);
    gate_set(FIRST_VECTOR + IRQ_KEYBOARD, on_8042);
    gate_set(FIRST_VECTOR + IRQ_MOUSE, on_8042);
    gate_set(FIRST_VECTOR + IRQ_RTC, on_rtc);
    struct __attribute__((packed)) {
        uint16_t limit;
        uint64_t base;
    } pointer = { sizeof idt - 1, (uint64_t)idt };
    __asm__ volatile("lidt %0" : : "m"(pointer));
    pic_start();
    rtc_start();
}

static bool take_mouse(struct input *input, uint8_t byte)
{
    if (packet_length == 0 && !(byte & 8)) /* out of step */
        return false;
    packet[packet_length++] = byte;
    if (packet_length < sizeof packet)
        return false;
    packet_length = 0;
    input->mouse_x += packet[1] - (packet[0] & 0x10 ? 256 : 0);
    input->mouse_y -= packet[2] - (packet[0] & 0x20 ? 256 : 0);
    if (input->mouse_x < 0)
        input->mouse_x = 0;
    if (input->mouse_x >= screen_width())
        input->mouse_x = screen_width() - 1;
    if (input->mouse_y < 0)
        input->mouse_y = 0;
    if (input->mouse_y >= screen_height())
        input->mouse_y = screen_height() - 1;
    input->buttons = packet[0] & 7;
    return true;
}

static void set_lamps(struct input *input)
{
    write_port(DATA, 0xed);
    write_port(DATA, (uint8_t)(input->scroll | input->num << 1 | input->caps << 2));
}

enum {
    KEY_SHIFT_LEFT = 0x2a,
    KEY_SHIFT_RIGHT = 0x36,
    KEY_CAPS = 0x3a,
    KEY_NUM = 0x45,
    KEY_SCROLL = 0x46
};

static bool take_key(struct input *input, uint8_t byte, struct event *event)
{
    if (byte == 0xe0) {
        extended = true;
        return false;
    }
    if (byte >= 0xe1) /* the answer to a command, or Pause's prefix */
        return false;
    uint8_t code = (uint8_t)((byte & 0x7f) | (extended ? 0x80 : 0));
    bool pressed = !(byte & 0x80), fresh = pressed && !input->down[code];
    extended = false;
    if (code == (0x80 | KEY_SHIFT_LEFT)) /* the shift that surrounds grey keys */
        return false;
    input->down[code] = pressed;
    input->shift = input->down[KEY_SHIFT_LEFT] || input->down[KEY_SHIFT_RIGHT];
    if (pressed)
        input->last = code;
    if (fresh && (code == KEY_CAPS || code == KEY_NUM || code == KEY_SCROLL)) {
        input->caps ^= code == KEY_CAPS;
        input->num ^= code == KEY_NUM;
        input->scroll ^= code == KEY_SCROLL;
        set_lamps(input);
    }
    *event = (struct event){ pressed ? EVENT_KEY_DOWN : EVENT_KEY_UP, code };
    return true;
}

bool input_pending(void)
{
    return queue_in != queue_out;
}

struct event input_wait(struct input *input)
{
    struct event event = { EVENT_TICK, 0 };
    for (;;) {
        while (!input_pending())
            __asm__ volatile("sti; hlt; cli" : : : "memory");
        uint8_t byte = queue[queue_out % QUEUE_SIZE].byte;
        uint8_t source = queue[queue_out % QUEUE_SIZE].source;
        queue_out++;
        if (source == FROM_RTC)
            return event;
        if (source == FROM_MOUSE && take_mouse(input, byte)) {
            event.kind = EVENT_MOUSE;
            return event;
        }
        if (source == FROM_KEYBOARD && take_key(input, byte, &event))
            return event;
    }
}

/* Set 1 from 0x02, a US keyboard: plain and shifted. */
static const char plain[] = "1234567890-=\b\tqwertyuiop[]\n\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 ";
static const char shifted[] = "!@#$%^&*()_+\b\tQWERTYUIOP{}\n\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0*\0 ";

char input_character(const struct input *input, uint8_t code)
{
    enum { FIRST = 2 };
    if (code == 0x9c) /* grey Enter */
        return '\n';
    if (code == 0xb5) /* grey slash */
        return '/';
    if (code == 0x4a || code == 0x4e)
        return code == 0x4a ? '-' : '+';
    if (code < FIRST || code - FIRST >= (int)sizeof plain - 1)
        return 0;
    char low = plain[code - FIRST];
    bool letter = low >= 'a' && low <= 'z';
    return input->shift != (letter && input->caps) ? shifted[code - FIRST] : low;
}
