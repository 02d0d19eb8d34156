/* Prints what is typed on COM1 while all other processors spin; Esc ends it, with status 0. The
 * keys of the i8042 or, with VIRTIO, of a virtio keyboard (1.2 section 5.8), by polling, on a US
 * layout. Scan codes of set 1 and Linux's key codes are the same here. */
#include "driver.h"

enum { MIB = 1 << 20, TRAMPOLINE = 0x8000, KEYBOARD = 18, EVENTS = 32 };
enum { LEFT_SHIFT = 42, KEY_SPACE = 57, KEY_ESC = 1, EV_KEY = 1, KEY_UP = 0x80 };

/* pause; jmp to it, in 16-bit code. */
static const uint8_t spin[] = { 0xf3, 0x90, 0xeb, 0xfc };

static void occupy_others(void)
{
    volatile uint8_t *code = (volatile uint8_t *)TRAMPOLINE;
    for (unsigned i = 0; i < sizeof spin; i++)
        code[i] = spin[i];
    mmio_write(LAPIC + LAPIC_SVR, 0x1ff);
    mmio_write(LAPIC + LAPIC_ICR, 0xc4500);
    for (int i = 0; i < 300; i++)
        inb(0x80);
    mmio_write(LAPIC + LAPIC_ICR, 0xc4600 | TRAMPOLINE >> 12);
}

static void take_key(unsigned code, bool down)
{
    static const char plain[] = "\0\0331234567890-=\b\tqwertyuiop[]\n\0asdfghjkl;'`\0\\zxcvbnm,./";
    static const char shifted[] =
        "\0\033!@#$%^&*()_+\b\tQWERTYUIOP{}\n\0ASDFGHJKL:\"~\0|ZXCVBNM<>?";
    static bool shift;
    char text[2] = { 0, 0 };
    if (code == LEFT_SHIFT)
        shift = down;
    else if (code == KEY_SPACE)
        text[0] = ' ';
    else if (code < sizeof plain)
        text[0] = (shift ? shifted : plain)[code];
    if (down && code == KEY_ESC)
        leave(0);
    if (down && text[0])
        print(text);
}

#ifdef VIRTIO
struct event {
    uint16_t type, code;
    uint32_t value;
};
static struct ring ring = { .size = EVENTS };
static volatile struct event events[EVENTS];

static void user_main(void)
{
    uint16_t descriptor;
    uint32_t length;
    for (;;) {
        if (!ring_take(&ring, &descriptor, &length)) {
            __asm__ volatile("pause");
            continue;
        }
        if (events[descriptor].type == EV_KEY && events[descriptor].value <= 1)
            take_key(events[descriptor].code, events[descriptor].value);
        ring_offer(&ring, descriptor);
        ring_show(&ring);
    }
}

uint8_t main(void)
{
    struct ring *const rings[] = { &ring };
    serial_init();
    virtio_start(KEYBOARD, 0, rings, 1);
    for (uint16_t i = 0; i < EVENTS; i++) {
        ring.descriptors[i] =
            (struct ring_descriptor){ (uint64_t)&events[i], sizeof events[i], DESC_WRITE, 0 };
        ring_offer(&ring, i);
    }
    ring_show(&ring);
    occupy_others();
    print("keys ready\n");
    driver_run(user_main);
}
#else
static void user_main(void)
{
    for (;;) {
        while (!(inb(KBD_COMMAND) & 1))
            __asm__ volatile("pause");
        uint8_t code = inb(KBD_DATA);
        take_key(code & ~KEY_UP, !(code & KEY_UP));
    }
}

uint8_t main(void)
{
    serial_init();
    occupy_others();
    print("keys ready\n");
    user_run(user_main, 32 * MIB, LAPIC & ~(2u * MIB - 1), 2 * MIB);
}
#endif
