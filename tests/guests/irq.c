/* Interrupts end to end: PIT channel 0 (IRQ0) and the RTC's periodic interrupt (IRQ8) tick a
 * hundred times each, the keyboard controller's output buffer (IRQ1) and the UART's empty
 * transmitter (IRQ4) once; through the PIC pair, or with -DAPIC through the I/O APIC. */
#include "guest.h"

enum { TICKS = 100, PATIENCE = 5000, LETTER_A = 0x1e };

static volatile uint32_t ticks, beats, keys, empties;
static volatile uint8_t key;

static void on_tick(void)
{
    ticks++;
}

static void on_key(void)
{
    key = inb(KBD_DATA);
    keys++;
}

static void on_serial(void)
{
    if ((inb(COM1 + 2) & 7) == 2)
        empties++;
}

static void on_beat(void)
{
    outb(RTC, 0x0c);
    if (inb(RTC + 1) & 0x40)
        beats++;
}

static irq_handler *const handlers[16] = {
    [0] = on_tick, [1] = on_key, [4] = on_serial, [8] = on_beat
};

/* The PIT's ticks are the clock by which the others may be late. */
static bool wait_for(const char *what, volatile uint32_t *count, uint32_t enough)
{
    uint32_t start = ticks;
    while (*count < enough && ticks - start < PATIENCE)
        sleep_once();
    print(what);
    print_number(*count);
    print(*count >= enough ? " ok\n" : " FAILED\n");
    return *count >= enough;
}

static void kbd_write(uint16_t port, uint8_t value)
{
    for (int patience = 10000; patience > 0 && inb(KBD_COMMAND) & 2; patience--)
        ;
    outb(port, value);
}

uint8_t main(void)
{
    serial_init();
#ifdef APIC
    interrupts_start(handlers, true);
#else
    interrupts_start(handlers, false);
#endif
    outb(PIT_COMMAND, 0x34); /* channel 0, both bytes, mode 2: 1000 Hz */
    outb(PIT0, 1193 & 0xff);
    outb(PIT0, 1193 >> 8);
    bool good = wait_for("pit ", &ticks, TICKS);

    outb(RTC, 0x0c);
    inb(RTC + 1);
    outb(RTC, 0x0a);
    outb(RTC + 1, 0x26); /* 32768 Hz / 2^5: 1024 Hz */
    outb(RTC, 0x0b);
    outb(RTC + 1, 0x42); /* periodic interrupt, 24 h */
    good &= wait_for("rtc ", &beats, TICKS);
    outb(RTC, 0x0b);
    outb(RTC + 1, 0x02);

    kbd_write(KBD_COMMAND, 0x60); /* interrupt on, no translation */
    kbd_write(KBD_DATA, 0x01);
    kbd_write(KBD_COMMAND, 0xd2); /* the next byte as if it came from the keyboard */
    kbd_write(KBD_DATA, LETTER_A);
    good &= wait_for("keyboard ", &keys, 1) && key == LETTER_A;

    outb(COM1 + 1, 0x02);
    while (!empties && ticks < 10 * PATIENCE)
        sleep_once();
    outb(COM1 + 1, 0);
    good &= wait_for("serial ", &empties, 1);

    print(good ? "OK\n" : "FAILED\n");
    return !good;
}
