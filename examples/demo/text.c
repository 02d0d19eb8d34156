/* Lines of text, put together piece by piece. UART: National PC16550D. */
#include "demo.h"

/* The compiler may call these two. */
void *memset(void *to, int value, size_t size);
void *memcpy(void *to, const void *from, size_t size);

void *memset(void *to, int value, size_t size)
{
    void *at = to;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(value) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, size_t size)
{
    void *at = to;
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(size) : : "memory");
    return to;
}

void line_clear(struct line *line)
{
    line->length = 0;
    line->text[0] = '\0';
}

void line_char(struct line *line, char c)
{
    if (line->length >= LINE_MOST - 1)
        return;
    line->text[line->length++] = c;
    line->text[line->length] = '\0';
}

void line_text(struct line *line, const char *text)
{
    while (*text)
        line_char(line, *text++);
}

void line_hex(struct line *line, uint64_t value, unsigned digits)
{
    while (digits-- > 0)
        line_char(line, "0123456789abcdef"[value >> 4 * digits & 15]);
}

void line_number(struct line *line, uint64_t value)
{
    char digits[20];
    int count = 0;
    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    while (count > 0)
        line_char(line, digits[--count]);
}

void line_two_digits(struct line *line, unsigned value)
{
    line_char(line, (char)('0' + value / 10 % 10));
    line_char(line, (char)('0' + value % 10));
}

/* In the largest unit that gives a whole number, or nearly so. */
void line_size(struct line *line, uint64_t bytes)
{
    static const char *const units[] = { " B", " KiB", " MiB", " GiB", " TiB" };
    unsigned unit = 0;
    while (unit < 4 && (bytes >= 10240 || (bytes >= 1024 && bytes % 1024 == 0))) {
        bytes /= 1024;
        unit++;
    }
    line_number(line, bytes);
    line_text(line, units[unit]);
}

void line_pad(struct line *line, unsigned column)
{
    while (line->length < column && line->length < LINE_MOST - 1)
        line_char(line, ' ');
}

enum { COM1 = 0x3f8, LINE_CONTROL = 3, LINE_STATUS = 5, WORDS_OF_8 = 3, READY = 0x20 };

static void send(char c)
{
    enum { PATIENCE = 1000 };
    for (int i = 0; i < PATIENCE && !(inb(COM1 + LINE_STATUS) & READY); i++)
        ;
    outb(COM1, (uint8_t)c);
}

void line_send(const struct line *line)
{
    outb(COM1 + LINE_CONTROL, WORDS_OF_8);
    for (unsigned i = 0; i < line->length; i++)
        send(line->text[i]);
    send('\r');
    send('\n');
}
