/* The demo: what its files know of each other. One processor, 64-bit mode, interrupts only while
 * asleep, the first 4 GiB of memory mapped one to one. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the real-mode part found (boot.S has the same offsets). */
struct boot_info {
    uint16_t e820_count, mode, width, height, pitch, unused;
    uint32_t frame_buffer;
};

struct e820_entry {
    uint64_t base, length;
    uint32_t type, attributes;
};

#define BOOT_INFO ((const struct boot_info *)0x5f00)
#define E820      ((const struct e820_entry *)0x5000)
#define FONT      ((const uint8_t *)0x4000)

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint16_t inw(uint16_t port)
{
    uint16_t value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

/* text.c: a line that grows. */
enum { LINE_MOST = 128 };

struct line {
    unsigned length;
    char text[LINE_MOST];
};

void line_clear(struct line *line);
void line_char(struct line *line, char c);
void line_text(struct line *line, const char *text);
void line_hex(struct line *line, uint64_t value, unsigned digits);
void line_number(struct line *line, uint64_t value);
void line_two_digits(struct line *line, unsigned value);
void line_size(struct line *line, uint64_t bytes);
void line_pad(struct line *line, unsigned column);
/* Sends the line to COM1, for whoever watches without eyes. */
void line_send(const struct line *line);

/* screen.c: drawing. Coordinates outside the screen are cut off. */
enum { GLYPH_WIDTH = 8, GLYPH_HEIGHT = 16 };

struct box {
    int x, y, width, height;
};

int screen_width(void);
int screen_height(void);
uint32_t screen_backdrop(int y); /* the background's colour in that row */
void screen_clear(const struct box *covered, unsigned count);
void screen_fill(struct box box, uint32_t colour);
void screen_panel(struct box box, uint32_t fill, uint32_t border);
void screen_text(int x, int y, const char *text, uint32_t colour);
/* Letters 2 (level 1) or 4 (level 2) times as large, with smooth edges. */
void screen_big_text(int x, int y, const char *text, uint32_t colour, int level);
void pointer_show(int x, int y);
void pointer_hide(void);

/* machine.c: what the guest can find out about its machine. */
enum { PCI_MOST = 32, TABLES_MOST = 16 };

struct pci_function {
    uint8_t bus, slot, function, class, subclass, interface;
    uint16_t vendor, device;
};

struct machine {
    char vendor[13], brand[49], hypervisor[13];
    unsigned family, model, stepping, processors;
    struct line features;
    uint64_t memory;
    unsigned pci_count;
    struct pci_function pci[PCI_MOST];
    unsigned table_count;
    char tables[TABLES_MOST][5];
    uint32_t sleep_port;
    unsigned sleep_type;
};

struct moment {
    unsigned year, month, day, weekday, hour, minute, second;
};

void machine_find(struct machine *machine);
const char *pci_name(const struct pci_function *f);
const char *e820_name(uint32_t type);
void rtc_read(struct moment *now);
void machine_power_off(const struct machine *machine);
void machine_reboot(void);

/* input.c: keyboard and mouse of the 8042, one tick a second of the RTC, all by interrupt. */
struct input {
    bool down[256]; /* scan code set 1; +0x80 after E0 */
    uint8_t last;   /* the last one that went down; 0 before */
    bool shift, caps, num, scroll;
    int mouse_x, mouse_y;
    bool mouse_present;
    uint8_t buttons;
};

/* What input_wait() saw. */
enum event_kind { EVENT_KEY_DOWN, EVENT_KEY_UP, EVENT_MOUSE, EVENT_TICK };

struct event {
    enum event_kind kind;
    uint8_t code;
};

void input_start(struct input *input, int width, int height);
/* Sleeps until something happens. */
struct event input_wait(struct input *input);
bool input_pending(void);
/* The character of a key as typed on a US keyboard, or 0. */
char input_character(const struct input *input, uint8_t code);
