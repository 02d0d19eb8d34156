/* The demo of hv: a small program on a bootable disk that shows its machine and answers keyboard
 * and mouse. Draws only what changes, and sleeps in between. */
#include "demo.h"

enum {
    PANEL = 0x131c36,
    BORDER = 0x34457a,
    TEXT = 0xdbe4f8,
    DIM = 0x8c9ac2,
    ACCENT = 0x5ad1ff,
    WARM = 0xffb65c,
    GREEN = 0x7fe0a0,
    KEY = 0x22305a,
    KEY_DOWN = 0x5ad1ff,
    KEY_TEXT_DOWN = 0x08101f,
    BUTTON_HOT = 0x2c4486,
};
enum { CANVAS_WIDTH = 1024, CANVAS_HEIGHT = 768, LINE = 18, PADDING = 14 };
enum { KEY_ESC = 0x01, KEY_F10 = 0x44, NONE = -1 };

/* Where everything is, on a canvas of 1024x768 in the middle of the screen. */
static const struct box cpu_box = { 24, 104, 480, 152 };
static const struct box memory_box = { 24, 272, 480, 216 };
static const struct box pci_box = { 520, 104, 480, 216 };
static const struct box firmware_box = { 520, 336, 480, 152 };
static const struct box keyboard_box = { 24, 504, 632, 240 };
static const struct box typed_box = { 672, 504, 328, 176 };
static const struct box clock_box = { 744, 20, 256, 64 };

enum { BUTTON_OFF, BUTTON_REBOOT, BUTTONS, NO_BUTTON = -1 };
static const struct {
    struct box box;
    const char *text, *key;
    uint32_t colour;
} buttons[BUTTONS] = {
    { { 672, 696, 156, 48 }, "Power off", "Esc", WARM },
    { { 844, 696, 156, 48 }, "Reboot", "F10", ACCENT },
};

static struct machine machine;
static struct input input;
static int left, top; /* of the canvas */
static int hot = NO_BUTTON;

static struct box place(struct box box)
{
    box.x += left;
    box.y += top;
    return box;
}

static void write(int x, int y, const char *text, uint32_t colour)
{
    screen_text(left + x, top + y, text, colour);
}

static void panel(struct box box, const char *title)
{
    screen_panel(place(box), PANEL, BORDER);
    write(box.x + PADDING, box.y + 10, title, ACCENT);
}

/* A name in grey and a value beside it; returns the next line's y. */
static int row(struct box box, int y, const char *name, const char *value)
{
    write(box.x + PADDING, y, name, DIM);
    write(box.x + PADDING + 12 * GLYPH_WIDTH, y, value, TEXT);
    return y + LINE;
}

static void draw_processor(void)
{
    struct line line;
    int y = cpu_box.y + 36;
    panel(cpu_box, "PROCESSOR");
    const char *brand = machine.brand;
    while (*brand == ' ')
        brand++;
    y = row(cpu_box, y, "Model", *brand ? brand : machine.vendor);
    line_clear(&line);
    line_text(&line, machine.vendor);
    line_text(&line, ", family ");
    line_number(&line, machine.family);
    line_text(&line, " model ");
    line_number(&line, machine.model);
    line_text(&line, " stepping ");
    line_number(&line, machine.stepping);
    y = row(cpu_box, y, "Identity", line.text);
    line_clear(&line);
    line_number(&line, machine.processors);
    line_text(&line, machine.processors == 1 ? " processor" : " processors");
    y = row(cpu_box, y, "Count", line.text);
    y = row(cpu_box, y, "Hypervisor",
            machine.hypervisor[0] ? machine.hypervisor : "none to be seen");

    /* The features on as many lines as they need, broken between words. */
    enum { COLUMNS = 44 };
    line_clear(&line);
    const char *name = "Features";
    for (const char *at = machine.features.text; *at;) {
        unsigned length = 0;
        while (at[length] && at[length] != ' ')
            length++;
        if (line.length + length > COLUMNS) {
            y = row(cpu_box, y, name, line.text);
            name = "";
            line_clear(&line);
        }
        for (; length; length--)
            line_char(&line, *at++);
        line_char(&line, ' ');
        at += *at == ' ';
    }
    row(cpu_box, y, name, line.text);
}

static uint32_t memory_colour(uint32_t type)
{
    return type == 1 ? GREEN : type == 2 ? BORDER : WARM;
}

/* One stripe for the first 4 GiB, then the map as text. */
static void draw_memory(void)
{
    enum { MOST_LINES = 10, DENSE_LINE = 15 };
    unsigned count = BOOT_INFO->e820_count;
    unsigned shown = count > MOST_LINES ? MOST_LINES - 1 : count;
    struct line line;
    panel(memory_box, "MEMORY");
    line_clear(&line);
    line_size(&line, machine.memory);
    line_text(&line, " usable");
    write(memory_box.x + memory_box.width - PADDING - (int)line.length * GLYPH_WIDTH,
          memory_box.y + 10, line.text, GREEN);

    struct box stripe = { memory_box.x + PADDING, memory_box.y + 36, memory_box.width - 2 * PADDING,
                          14 };
    screen_fill(place(stripe), 0x0a1024);
    int y = memory_box.y + 58;
    for (unsigned i = 0; i < count; i++) {
        const struct e820_entry *e = &E820[i];
        uint64_t end = e->base + e->length;
        if (e->base < 1ull << 32) {
            int from = (int)(e->base * (uint64_t)stripe.width >> 32);
            int to = end >> 32 ? stripe.width : (int)(end * (uint64_t)stripe.width >> 32);
            struct box part = { stripe.x + from, stripe.y, to > from ? to - from : 1,
                                stripe.height };
            screen_fill(place(part), memory_colour(e->type));
        }
        if (i >= shown)
            continue;
        line_clear(&line);
        line_hex(&line, e->base, 12);
        line_text(&line, " - ");
        line_hex(&line, end - 1, 12);
        line_pad(&line, 29);
        line_size(&line, e->length);
        line_pad(&line, 40);
        write(memory_box.x + PADDING, y, line.text, TEXT);
        write(memory_box.x + PADDING + 41 * GLYPH_WIDTH, y, e820_name(e->type),
              memory_colour(e->type) == BORDER ? DIM : memory_colour(e->type));
        y += DENSE_LINE;
    }
    if (count > shown) {
        line_clear(&line);
        line_text(&line, "and ");
        line_number(&line, count - shown);
        line_text(&line, " more");
        write(memory_box.x + PADDING, y, line.text, DIM);
    }
}

static void draw_pci(void)
{
    enum { MOST_LINES = 9 };
    struct line line;
    panel(pci_box, "PCI DEVICES");
    int y = pci_box.y + 36;
    unsigned shown = machine.pci_count > MOST_LINES ? MOST_LINES : machine.pci_count;
    for (unsigned i = 0; i < shown; i++) {
        const struct pci_function *f = &machine.pci[i];
        line_clear(&line);
        line_hex(&line, f->bus, 2);
        line_char(&line, ':');
        line_hex(&line, f->slot, 2);
        line_char(&line, '.');
        line_hex(&line, f->function, 1);
        write(pci_box.x + PADDING, y, line.text, DIM);
        write(pci_box.x + PADDING + 9 * GLYPH_WIDTH, y, pci_name(f), TEXT);
        line_clear(&line);
        line_hex(&line, f->vendor, 4);
        line_char(&line, ':');
        line_hex(&line, f->device, 4);
        write(pci_box.x + pci_box.width - PADDING - 9 * GLYPH_WIDTH, y, line.text, DIM);
        y += LINE;
    }
    line_clear(&line);
    line_number(&line, machine.pci_count);
    write(pci_box.x + pci_box.width - PADDING - (int)line.length * GLYPH_WIDTH, pci_box.y + 10,
          line.text, GREEN);
}

static void draw_firmware(void)
{
    struct line line;
    panel(firmware_box, "SCREEN AND FIRMWARE");
    int y = firmware_box.y + 36;
    line_clear(&line);
    line_number(&line, BOOT_INFO->width);
    line_text(&line, " x ");
    line_number(&line, BOOT_INFO->height);
    line_text(&line, ", 32 bits a pixel, VBE mode ");
    line_hex(&line, BOOT_INFO->mode, 3);
    y = row(firmware_box, y, "Mode", line.text);
    line_clear(&line);
    line_hex(&line, BOOT_INFO->frame_buffer, 8);
    line_text(&line, ", ");
    line_size(&line, (uint64_t)BOOT_INFO->pitch * BOOT_INFO->height);
    y = row(firmware_box, y, "Frame", line.text);
    line_clear(&line);
    for (unsigned i = 0; i < machine.table_count && i < 8; i++) {
        line_text(&line, machine.tables[i]);
        line_char(&line, ' ');
    }
    y = row(firmware_box, y, "ACPI", machine.table_count ? line.text : "no tables");
    line_clear(&line);
    line_text(&line, "S5 is ");
    line_number(&line, machine.sleep_type);
    line_text(&line, " to port ");
    line_hex(&line, machine.sleep_port, 4);
    y = row(firmware_box, y, "Power off", line.text);
    row(firmware_box, y, "Mouse", input.mouse_present ? "PS/2, moves the pointer" : "none answers");
}

static void draw_clock(void)
{
    static const char days[] = "SundayMondayTuesdayWednesdayThursdayFridaySaturday";
    static const uint8_t day_ends[] = { 0, 6, 12, 19, 28, 36, 42, 50 };
    static unsigned drawn_day;
    static struct line drawn;
    struct moment now;
    struct line line;
    rtc_read(&now);
    line_clear(&line);
    line_two_digits(&line, now.hour);
    line_char(&line, ':');
    line_two_digits(&line, now.minute);
    line_char(&line, ':');
    line_two_digits(&line, now.second);
    for (unsigned i = 0; i < line.length; i++) { /* only the digits that changed */
        int x = clock_box.x + clock_box.width - (int)(line.length - i) * 2 * GLYPH_WIDTH;
        char digit[2] = { line.text[i], '\0' };
        if (drawn.text[i] == digit[0])
            continue;
        for (int at = 0; at < 2 * GLYPH_HEIGHT; at++)
            screen_fill((struct box){ left + x, top + clock_box.y + at, 2 * GLYPH_WIDTH, 1 },
                        screen_backdrop(top + clock_box.y + at));
        screen_big_text(left + x, top + clock_box.y, digit, TEXT, 1);
    }
    drawn = line;
    if (drawn_day == now.day)
        return;
    drawn_day = now.day;
    line_clear(&line);
    for (unsigned i = day_ends[now.weekday]; i < day_ends[now.weekday + 1]; i++)
        line_char(&line, days[i]);
    line_text(&line, "  ");
    line_number(&line, now.year);
    line_char(&line, '-');
    line_two_digits(&line, now.month);
    line_char(&line, '-');
    line_two_digits(&line, now.day);
    for (int at = 0; at < GLYPH_HEIGHT; at++)
        screen_fill(
            (struct box){ left + clock_box.x, top + clock_box.y + 40 + at, clock_box.width, 1 },
            screen_backdrop(top + clock_box.y + 40 + at));
    write(clock_box.x + clock_box.width - (int)line.length * GLYPH_WIDTH, clock_box.y + 40,
          line.text, DIM);
}

static void draw_button(int which)
{
    struct box box = buttons[which].box;
    screen_panel(place(box), which == hot ? BUTTON_HOT : PANEL, buttons[which].colour);
    write(box.x + 16, box.y + 16, buttons[which].text, TEXT);
    int length = 0;
    while (buttons[which].key[length])
        length++;
    write(box.x + box.width - 16 - length * GLYPH_WIDTH, box.y + 16, buttons[which].key,
          buttons[which].colour);
}

/* The keyboard's picture: rows of keys, each as wide as so many quarters of a plain one; code 0 is
 * a gap. */
struct key {
    uint8_t code, quarters;
    char label[6];
};

static const struct key keys[] = {
    { 0x01, 4, "Esc" },    { 0, 4, "" },         { 0x3b, 4, "F1" },   { 0x3c, 4, "F2" },
    { 0x3d, 4, "F3" },     { 0x3e, 4, "F4" },    { 0, 2, "" },        { 0x3f, 4, "F5" },
    { 0x40, 4, "F6" },     { 0x41, 4, "F7" },    { 0x42, 4, "F8" },   { 0, 2, "" },
    { 0x43, 4, "F9" },     { 0x44, 4, "F10" },   { 0x57, 4, "F11" },  { 0x58, 4, "F12" },
    { 0, 1, "" },          { 0xd2, 4, "Ins" },   { 0xc7, 4, "Hom" },  { 0xc9, 4, "PgU" },
    { 0, 0, "" },          { 0x29, 4, "`" },     { 0x02, 4, "1" },    { 0x03, 4, "2" },
    { 0x04, 4, "3" },      { 0x05, 4, "4" },     { 0x06, 4, "5" },    { 0x07, 4, "6" },
    { 0x08, 4, "7" },      { 0x09, 4, "8" },     { 0x0a, 4, "9" },    { 0x0b, 4, "0" },
    { 0x0c, 4, "-" },      { 0x0d, 4, "=" },     { 0x0e, 8, "Back" }, { 0, 1, "" },
    { 0xd3, 4, "Del" },    { 0xcf, 4, "End" },   { 0xd1, 4, "PgD" },  { 0, 0, "" },
    { 0x0f, 6, "Tab" },    { 0x10, 4, "Q" },     { 0x11, 4, "W" },    { 0x12, 4, "E" },
    { 0x13, 4, "R" },      { 0x14, 4, "T" },     { 0x15, 4, "Y" },    { 0x16, 4, "U" },
    { 0x17, 4, "I" },      { 0x18, 4, "O" },     { 0x19, 4, "P" },    { 0x1a, 4, "[" },
    { 0x1b, 4, "]" },      { 0x2b, 6, "\\" },    { 0, 1, "" },        { 0x45, 4, "Num" },
    { 0xb5, 4, "/" },      { 0x37, 4, "*" },     { 0, 0, "" },        { 0x3a, 7, "Caps" },
    { 0x1e, 4, "A" },      { 0x1f, 4, "S" },     { 0x20, 4, "D" },    { 0x21, 4, "F" },
    { 0x22, 4, "G" },      { 0x23, 4, "H" },     { 0x24, 4, "J" },    { 0x25, 4, "K" },
    { 0x26, 4, "L" },      { 0x27, 4, ";" },     { 0x28, 4, "'" },    { 0x1c, 9, "Enter" },
    { 0, 1, "" },          { 0x4a, 4, "-" },     { 0x4e, 4, "+" },    { 0x9c, 4, "Ent" },
    { 0, 0, "" },          { 0x2a, 9, "Shift" }, { 0x2c, 4, "Z" },    { 0x2d, 4, "X" },
    { 0x2e, 4, "C" },      { 0x2f, 4, "V" },     { 0x30, 4, "B" },    { 0x31, 4, "N" },
    { 0x32, 4, "M" },      { 0x33, 4, "," },     { 0x34, 4, "." },    { 0x35, 4, "/" },
    { 0x36, 11, "Shift" }, { 0, 1, "" },         { 0x46, 4, "Scr" },  { 0xc8, 4, "\x18" },
    { 0xdd, 4, "Men" },    { 0, 0, "" },         { 0x1d, 6, "Ctrl" }, { 0xdb, 4, "Win" },
    { 0x38, 5, "Alt" },    { 0x39, 30, "" },     { 0xb8, 5, "Alt" },  { 0xdc, 4, "Win" },
    { 0x9d, 6, "Ctrl" },   { 0, 1, "" },         { 0xcb, 4, "\x1b" }, { 0xd0, 4, "\x19" },
    { 0xcd, 4, "\x1a" },
};
enum { KEYS = sizeof keys / sizeof keys[0], KEY_QUARTER = 8, KEY_HEIGHT = 27, KEY_STEP = 31 };

static bool key_lit(uint8_t code)
{
    return input.down[code] || (code == 0x3a && input.caps) || (code == 0x45 && input.num) ||
           (code == 0x46 && input.scroll);
}

/* Draws the key with this code, or all of them for code 0. */
static void draw_keys(uint8_t code)
{
    int x = keyboard_box.x + PADDING, y = keyboard_box.y + 40;
    for (int i = 0; i < KEYS; i++) {
        const struct key *key = &keys[i];
        if (key->quarters == 0) {
            x = keyboard_box.x + PADDING;
            y += KEY_STEP;
            continue;
        }
        int width = key->quarters * KEY_QUARTER;
        if (key->code != 0 && (code == 0 || code == key->code)) {
            bool lit = key_lit(key->code);
            int length = 0;
            while (key->label[length])
                length++;
            screen_panel((struct box){ left + x, top + y, width - 3, KEY_HEIGHT },
                         lit ? KEY_DOWN : KEY, lit ? KEY_DOWN : BORDER);
            write(x + (width - 3 - length * GLYPH_WIDTH) / 2, y + 6, key->label,
                  lit ? KEY_TEXT_DOWN : TEXT);
        }
        x += width;
    }
}

static void draw_scan_code(void)
{
    struct line line;
    line_clear(&line);
    line_text(&line, "last key ");
    if (input.last & 0x80)
        line_text(&line, "e0 ");
    line_hex(&line, input.last & 0x7f, 2);
    line_pad(&line, 14);
    struct box box = { keyboard_box.x + keyboard_box.width - PADDING - 14 * GLYPH_WIDTH,
                       keyboard_box.y + 10, 14 * GLYPH_WIDTH, GLYPH_HEIGHT };
    screen_fill(place(box), PANEL);
    write(box.x, box.y, line.text, DIM);
}

/* What was typed, with a block as the cursor; a full box starts anew. */
enum { TYPED_COLUMNS = 36, TYPED_ROWS = 7 };
static int typed_column, typed_row;
static uint8_t typed_lengths[TYPED_ROWS];

static struct box typed_cell(int column, int row)
{
    return (struct box){ left + typed_box.x + PADDING + column * GLYPH_WIDTH,
                         top + typed_box.y + 38 + row * LINE, GLYPH_WIDTH, GLYPH_HEIGHT };
}

static void draw_cursor(uint32_t colour)
{
    struct box cell = typed_cell(typed_column, typed_row);
    screen_fill((struct box){ cell.x, cell.y + 13, GLYPH_WIDTH, 2 }, colour);
}

static void typed_new_line(void)
{
    typed_lengths[typed_row] = (uint8_t)typed_column;
    typed_column = 0;
    if (++typed_row == TYPED_ROWS) {
        struct box first = typed_cell(0, 0);
        screen_fill((struct box){ first.x, first.y, TYPED_COLUMNS * GLYPH_WIDTH + GLYPH_WIDTH,
                                  TYPED_ROWS * LINE },
                    PANEL);
        typed_row = 0;
    }
}

static void type(char c)
{
    draw_cursor(PANEL);
    if (c == '\b') {
        if (typed_column > 0)
            typed_column--;
        else if (typed_row > 0)
            typed_column = typed_lengths[--typed_row];
        screen_fill(typed_cell(typed_column, typed_row), PANEL);
    } else if (c == '\n') {
        typed_new_line();
    } else if (c != '\t') {
        struct box cell = typed_cell(typed_column, typed_row);
        screen_text(cell.x, cell.y, (const char[]){ c, '\0' }, TEXT);
        if (++typed_column == TYPED_COLUMNS)
            typed_new_line();
    }
    draw_cursor(ACCENT);
}

static void draw_all(void)
{
    const struct box covered[] = { place(cpu_box),      place(memory_box),   place(pci_box),
                                   place(firmware_box), place(keyboard_box), place(typed_box) };
    screen_clear(covered, sizeof covered / sizeof covered[0]);
    screen_big_text(left + 24, top + 16, "hv", ACCENT, 2);
    screen_big_text(left + 108, top + 20, "This is a PC.", TEXT, 1);
    write(110, 60, "A small program that the BIOS started from a disk shows what it finds.", DIM);
    draw_clock();
    draw_processor();
    draw_memory();
    draw_pci();
    draw_firmware();
    panel(keyboard_box, "KEYBOARD");
    draw_keys(0);
    panel(typed_box, "TYPE SOMETHING");
    draw_cursor(ACCENT);
    for (int i = 0; i < BUTTONS; i++)
        draw_button(i);
}

/* "demo: WHAT A B" on the serial port; no numbers below 0. */
static void report(const char *what, int a, int b)
{
    struct line line;
    line_clear(&line);
    line_text(&line, "demo: ");
    line_text(&line, what);
    for (int i = 0; i < 2; i++) {
        int value = i == 0 ? a : b;
        if (value < 0)
            continue;
        line_char(&line, ' ');
        line_number(&line, (uint64_t)value);
    }
    line_send(&line);
}

static int button_at(int x, int y)
{
    for (int i = 0; i < BUTTONS; i++) {
        struct box box = place(buttons[i].box);
        if (x >= box.x && x < box.x + box.width && y >= box.y && y < box.y + box.height)
            return i;
    }
    return NO_BUTTON;
}

static void press(int which)
{
    if (which != NO_BUTTON)
        report(buttons[which].text, NONE, NONE);
    if (which == BUTTON_OFF)
        machine_power_off(&machine);
    if (which == BUTTON_REBOOT)
        machine_reboot();
}

static void on_mouse(void)
{
    static uint8_t before;
    int over = button_at(input.mouse_x, input.mouse_y), old = hot;
    if (over != hot) {
        hot = over;
        for (int i = 0; i < BUTTONS; i++)
            if (i == old || i == hot)
                draw_button(i);
    }
    report("mouse", input.mouse_x, input.mouse_y);
    if (before & 1 && !(input.buttons & 1)) /* on release, as everywhere */
        press(over);
    before = input.buttons;
}

static void on_key(struct event event)
{
    draw_keys(event.code);
    if (event.kind != EVENT_KEY_DOWN)
        return;
    draw_scan_code();
    report("key", event.code, NONE);
    char c = input_character(&input, event.code);
    if (c)
        type(c);
    if (event.code == KEY_ESC)
        press(BUTTON_OFF);
    if (event.code == KEY_F10)
        press(BUTTON_REBOOT);
}

void main(void);

void main(void)
{
    left = (screen_width() - CANVAS_WIDTH) / 2;
    top = (screen_height() - CANVAS_HEIGHT) / 2;
    left = left < 0 ? 0 : left;
    top = top < 0 ? 0 : top;
    machine_find(&machine);
    input_start(&input, screen_width(), screen_height());
    draw_all();
    pointer_show(input.mouse_x, input.mouse_y);
    report("ready", screen_width(), screen_height());
    for (;;) {
        struct event event = input_wait(&input);
        if (event.kind == EVENT_MOUSE && input_pending() && !input.buttons)
            continue; /* only the newest place counts */
        pointer_hide();
        if (event.kind == EVENT_TICK)
            draw_clock();
        else if (event.kind == EVENT_MOUSE)
            on_mouse();
        else
            on_key(event);
        pointer_show(input.mouse_x, input.mouse_y);
    }
}
