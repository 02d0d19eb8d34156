/* The typist gives the keyboard what it takes, in order, and never more; text becomes the keys of
 * a US keyboard (HUT 1.12 section 10). */
#include "machine/typist.h"

#include "rig/rig.h"

#include <string.h>

enum { SHIFT = 0xe1, CTRL = 0xe0, ALT = 0xe2, DEL = 0x4c, KEYS_MAX = 1 << 19 };

#define HOLD_NS (NS_PER_SECOND / 10)

/* A keyboard that has room for so many keys until the guest reads them. */
struct keyboard {
    struct device dev;
    unsigned room, queued;
    unsigned taken, refused;
    bool down[256];
    uint16_t log[KEYS_MAX]; /* usage, and 0x100 for down */
    unsigned lamps;
    bool lost;
    struct input_source *source;
    struct board board;
};

static bool take_key(struct device *dev, uint8_t usage, bool down)
{
    struct keyboard *k = (struct keyboard *)dev;
    g_assert_false(g_mutex_trylock(&dev->lock)); /* held by the caller, as device.h says */
    if (down && k->queued >= k->room) {
        k->refused++;
        return false;
    }
    k->queued++;
    k->down[usage] = down;
    g_assert_cmpuint(k->taken, <, KEYS_MAX);
    k->log[k->taken++] = (uint16_t)(usage | (down ? 0x100 : 0));
    input_changed(k->source); /* a device may call back at once */
    return true;
}

static bool is_idle(struct device *dev)
{
    return !((struct keyboard *)dev)->queued;
}

static unsigned has_lost(struct device *dev)
{
    struct keyboard *k = (struct keyboard *)dev;
    unsigned lost = k->lost ? KEYS_LOST : 0;
    k->lost = false;
    return lost;
}

static unsigned lit(struct device *dev)
{
    return ((struct keyboard *)dev)->lamps;
}

static const struct input_class input = {
    .key = take_key, .idle = is_idle, .lost = has_lost, .lamps = lit
};
static const struct device_class class = { .name = "fake-keyboard", .input = &input };

static struct device *the_keyboard(void *opaque)
{
    return &((struct keyboard *)opaque)->dev;
}

static struct keyboard *keyboard_new(unsigned room, struct typist **typist)
{
    struct keyboard *k = g_new0(struct keyboard, 1);
    k->dev.class = &class;
    k->board.clock = clock_new(true);
    k->dev.board = &k->board;
    g_mutex_init(&k->dev.lock);
    k->room = room;
    *typist = typist_new(&k->board, the_keyboard, k);
    k->source = typist_source(*typist);
    return k;
}

static void keyboard_free(struct keyboard *k, struct typist *typist)
{
    typist_free(typist);
    clock_free(k->board.clock);
    g_free(k);
}

/* How many characters of the text are not typed, for whatever reason. */
static unsigned text(struct typist *t, const char *what, size_t length)
{
    struct typist_answer answer = typist_text(t, what, length);
    unsigned rest = 0;
    for (size_t i = answer.taken; i < length; i++)
        rest += (what[i] & 0xc0) != 0x80;
    return answer.left_out + rest;
}

/* The guest reads up to `count` keys. */
static void guest_reads(struct keyboard *k, unsigned count)
{
    g_mutex_lock(&k->dev.lock);
    k->queued -= MIN(count, k->queued);
    input_changed(k->source);
    g_mutex_unlock(&k->dev.lock);
    clock_advance(k->board.clock, 0, 0);
}

static void guest_reads_all(struct keyboard *k, struct typist *typist)
{
    for (unsigned i = 0; i < KEYS_MAX && typist_busy(typist); i++) {
        guest_reads(k, 1);
        clock_advance(k->board.clock, HOLD_NS, 0);
    }
    g_assert_false(typist_busy(typist));
}

static void expect(const struct keyboard *k, const uint16_t *strokes, unsigned count)
{
    g_assert_cmpuint(k->taken, ==, count);
    for (unsigned i = 0; i < count; i++)
        g_assert_cmphex(k->log[i], ==, strokes[i]);
}

/* --- what is typed --------------------------------------------------------------------------- */

static void text_to_strokes(void)
{
    struct typist *t;
    struct keyboard *k = keyboard_new(100, &t);
    g_assert_cmpuint(text(t, "a1\nA~", 5), ==, 0);
    guest_reads_all(k, t);
    const uint16_t wanted[] = {
        0x104, 0x04, 0x11e, 0x1e,          0x128, 0x28, 0x100 | SHIFT,
        0x104, 0x04, SHIFT, 0x100 | SHIFT, 0x135, 0x35, SHIFT,
    };
    expect(k, wanted, G_N_ELEMENTS(wanted));
    keyboard_free(k, t);
}

/* Every printable character makes one stroke of its own, no two the same. */
static void every_character(void)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    for (char c = ' '; c <= '~'; c++) {
        struct typist *t;
        struct keyboard *k = keyboard_new(100, &t);
        g_assert_cmpuint(text(t, &c, 1), ==, 0);
        guest_reads_all(k, t);
        bool shift = k->log[0] == (0x100 | SHIFT);
        g_assert_cmpuint(k->taken, ==, shift ? 4 : 2);
        g_assert_true(
            g_hash_table_add(seen, GUINT_TO_POINTER((k->log[shift] & 0xffu) | shift << 8)));
        g_assert_cmpint(g_ascii_isupper(c) || (c && strchr("!@#$%^&*()_+{}|:\"~<>?", c)), ==,
                        shift);
        keyboard_free(k, t);
    }
    g_assert_cmpuint(g_hash_table_size(seen), ==, 95);
}

static void left_out(void)
{
    struct typist *t;
    struct keyboard *k = keyboard_new(100, &t);
    const char odd[] = "x\xc3\xa4\xe2\x82\xac\0y\r"; /* ä and € are one character each, and NUL */
    g_assert_cmpuint(text(t, odd, sizeof odd - 1), ==, 3);
    guest_reads_all(k, t);
    const uint16_t wanted[] = { 0x11b, 0x1b, 0x11c, 0x1c, 0x128, 0x28 };
    expect(k, wanted, G_N_ELEMENTS(wanted));
    keyboard_free(k, t);
}

static void chord(void)
{
    struct typist *t;
    struct keyboard *k = keyboard_new(100, &t);
    typist_chord(t, &(struct chord){ { CTRL, ALT, DEL } }, true);
    for (unsigned i = 0; i < 10; i++)
        guest_reads(k, 1);
    g_assert_cmpuint(k->taken, ==, 3); /* down as long as a finger would hold them */
    clock_advance(k->board.clock, HOLD_NS - 1, 0);
    g_assert_cmpuint(k->taken, ==, 3);
    guest_reads_all(k, t);
    const uint16_t wanted[] = { 0x100 | CTRL, 0x100 | ALT, 0x100 | DEL, DEL, ALT, CTRL };
    expect(k, wanted, G_N_ELEMENTS(wanted));
    typist_chord(t, &(struct chord){ { 0 } }, true);
    g_assert_false(typist_busy(t));
    keyboard_free(k, t);
}

/* The queue of a BIOS that took the keys but whose guest has not asked for them yet. */
static void bios_set(struct keyboard *k, uint16_t head, uint16_t tail)
{
    const uint16_t queue[] = { head, tail };
    g_assert_true(guest_write(k->board.guest, GPA(0x41a), queue, sizeof queue));
}

static void bios_queue(void)
{
    struct typist *t;
    struct keyboard *k = keyboard_new(100, &t);
    k->board.guest = guest_new(MIB, NULL);
    g_assert_true(guest_slot_set(k->board.guest, guest_slot_new(k->board.guest), GPA(0), MIB,
                                 guest_ram_host(k->board.guest, GPA(0), MIB), 0));
    clock_advance(k->board.clock, NS_PER_SECOND, 0);
    bios_set(k, 0x1e, 0x1e);
    text(t, "abc", 3);
    guest_reads(k, 1);
    bios_set(k, 0x1e, 0x20); /* the BIOS has the a */
    guest_reads(k, 2);
    g_assert_cmpuint(k->taken, ==, 2);
    clock_advance(k->board.clock, NS_PER_SECOND / 10, 0);
    g_assert_cmpuint(k->taken, ==, 2); /* the b waits */
    bios_set(k, 0x20, 0x20);
    clock_advance(k->board.clock, NS_PER_SECOND / 100, 0);
    g_assert_cmpuint(k->taken, ==, 3);
    bios_set(k, 0x20,
             0x36); /* half of it is used: the loader is busy, the next would soon be lost */
    for (unsigned i = 0; i < 1000; i++) {
        guest_reads(k, 1);
        clock_advance(k->board.clock, NS_PER_SECOND / 100, 0);
    }
    g_assert_cmpuint(k->taken, ==, 4); /* the release of the b */
    bios_set(k, 0x22, 0x24); /* an operating system does not look there: no queue that moves */
    for (unsigned i = 0; i < 200; i++) {
        guest_reads(k, 1);
        clock_advance(k->board.clock, NS_PER_SECOND / 100, 0);
    }
    g_assert_false(typist_busy(t));
    struct guest *guest = g_steal_pointer(&k->board.guest);
    keyboard_free(k, t);
    guest_free(guest);
}

static void names(void)
{
    static const struct {
        const char *name;
        uint8_t usage;
    } known[] = {
        { "ctrl", 0xe0 },   { "CTRL", 0xe0 },  { "F12", 0x45 },   { "del", 0x4c },
        { "delete", 0x4c }, { "a", 0x04 },     { "Z", 0x1d },     { "0", 0x27 },
        { "1", 0x1e },      { "/", 0x38 },     { "enter", 0x28 }, { "space", 0x2c },
        { "-", 0x2d },      { "altgr", 0xe6 }, { "up", 0x52 },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(known); i++)
        g_assert_cmphex(key_named(known[i].name), ==, known[i].usage);
    static const char *const unknown[] = { "", "ctlr", "f13", "!", "ab", "\xc3\xa4", "ctrl " };
    for (size_t i = 0; i < G_N_ELEMENTS(unknown); i++)
        g_assert_cmphex(key_named(unknown[i]), ==, 0);
    g_assert_cmpstr(key_near("ctlr"), ==, "ctrl");
    g_assert_cmpstr(key_near("pagedwon"), ==, "pagedown");
    g_assert_null(key_near("zzzzzz"));
}

/* --- how fast -------------------------------------------------------------------------------- */

/* Text waits until the guest has read what came before; a queue is never filled by it. */
static void text_is_paced(void)
{
    struct typist *t;
    struct keyboard *k = keyboard_new(16, &t);
    text(t, "hello", 5);
    g_assert_cmpuint(k->taken, ==, 1);
    for (unsigned i = 1; i < 10; i++) {
        g_assert_true(typist_busy(t));
        g_assert_cmpuint(k->queued, ==, 1);
        guest_reads(k, 1);
        g_assert_cmpuint(k->taken, ==, i + 1);
    }
    g_assert_true(typist_busy(t)); /* the last one is not taken yet */
    guest_reads(k, 1);
    g_assert_false(typist_busy(t));
    g_assert_cmpuint(k->taken, ==, 10);
    g_assert_cmpuint(k->refused, ==, 0);
    keyboard_free(k, t);
}

/* A person's keys fill the keyboard's queue, wait beyond that, and none is lost or overtaken. */
static void keys_wait(void)
{
    struct typist *t;
    struct keyboard *k = keyboard_new(4, &t);
    for (uint8_t usage = 4; usage < 24; usage++)
        typist_key(t, usage, true);
    g_assert_cmpuint(k->taken, ==, 4);
    g_assert_true(typist_busy(t));
    guest_reads(k, 2);
    g_assert_cmpuint(k->taken, ==, 6);
    guest_reads_all(k, t);
    g_assert_cmpuint(k->taken, ==, 20);
    for (unsigned i = 0; i < 20; i++)
        g_assert_cmphex(k->log[i], ==, 0x100 | (4 + i));
    keyboard_free(k, t);
}

/* A guest that reads nothing costs nothing: no key is offered until it does. */
static void deaf_guest(void)
{
    struct typist *t;
    struct keyboard *k = keyboard_new(0, &t);
    text(t, "abc", 3);
    typist_key(t, 4, true);
    g_assert_cmpuint(k->taken, ==, 0);
    g_assert_cmpuint(k->refused, ==, 2); /* once for each caller */
    k->room = 1;
    guest_reads_all(k, t);
    g_assert_cmpuint(k->taken, ==, 7);
    keyboard_free(k, t);
}

/* --- too much -------------------------------------------------------------------------------- */

static void nothing_stays_down(const struct keyboard *k)
{
    for (unsigned i = 0; i < 256; i++)
        if (k->down[i])
            g_error("key %#x stays down", i);
}

/* The longest paste of a window (64 KiB, all with Shift) arrives whole. */
static void long_text(void)
{
    enum { LENGTH = 64 * 1024 };
    struct typist *t;
    struct keyboard *k = keyboard_new(1, &t);
    g_autofree char *long_one = g_strnfill(LENGTH, 'A');
    g_assert_cmpuint(text(t, long_one, LENGTH), ==, 0);
    guest_reads_all(k, t);
    g_assert_cmpuint(k->taken, ==, 4 * LENGTH);
    nothing_stays_down(k);
    keyboard_free(k, t);
}

/* What is more than the room is dropped whole characters at a time, and said so: no key, and no
 * Shift, stays down for ever. */
static void too_much_text(void)
{
    enum { LENGTH = 30000 };
    struct typist *t;
    struct keyboard *k = keyboard_new(0, &t);
    g_autofree char *long_one = g_strnfill(LENGTH, 'a');
    unsigned lost = 0;
    for (unsigned i = 0; i < LENGTH; i += 7)
        long_one[i] = 'A'; /* two lengths, so that the room ends inside one of them */
    for (unsigned i = 0; i < 6; i++)
        lost += text(t, long_one, LENGTH);
    g_assert_cmpuint(lost, >, 0);
    for (unsigned i = 0; i < 100; i++)
        typist_chord(t, &(struct chord){ { CTRL, ALT, DEL } }, true);
    k->room = 1;
    guest_reads_all(k, t);
    nothing_stays_down(k);
    unsigned characters = 0;
    for (unsigned i = 0; i < k->taken; i++)
        characters += k->log[i] == 0x104;
    g_assert_cmpuint(characters, ==, 6 * LENGTH - lost);
    keyboard_free(k, t);
}

/* A key that went down before the room was full comes up, whatever happens between. */
static void release_has_room(void)
{
    struct typist *t;
    struct keyboard *k = keyboard_new(0, &t);
    g_autofree char *long_one = g_strnfill(1 << 20, 'a');
    typist_key(t, 0x1d, true);
    text(t, long_one, 1 << 20);
    for (unsigned i = 0; i < 1000; i++)
        typist_key(t, 0x1b, true); /* dropped, but for one perhaps */
    typist_key(t, 0x1b, false);
    typist_key(t, 0x1d, false);
    k->room = 1;
    guest_reads_all(k, t);
    nothing_stays_down(k);
    keyboard_free(k, t);
}

/* --- what a guest throws away ---------------------------------------------------------------- */

/* The guest resets the keyboard, with what it has not read. */
static void guest_forgets(struct keyboard *k)
{
    g_mutex_lock(&k->dev.lock);
    k->lost = k->queued > 0;
    k->queued = 0;
    input_changed(k->source);
    g_mutex_unlock(&k->dev.lock);
    clock_advance(k->board.clock, 0, 0);
}

/* A key that the guest threw away is typed again, with the Shift that it belongs to. */
static void thrown_away(void)
{
    struct typist *t;
    struct keyboard *k = keyboard_new(100, &t);
    text(t, "A", 1);
    guest_reads(k, 1); /* Shift */
    guest_forgets(k);  /* A */
    guest_reads(k, 1);
    guest_reads(k, 1);
    guest_forgets(k); /* the release of A */
    guest_reads_all(k, t);
    const uint16_t wanted[] = { 0x100 | SHIFT, 0x104, 0x100 | SHIFT, 0x104, 0x04, 0x04, SHIFT };
    expect(k, wanted, G_N_ELEMENTS(wanted));
    k->lost = true; /* what was lost before is no matter */
    text(t, "a", 1);
    guest_reads_all(k, t);
    g_assert_cmpuint(k->taken, ==, G_N_ELEMENTS(wanted) + 2);
    keyboard_free(k, t);
}

static unsigned times_typed;

static void count_typed(void *opaque)
{
    (void)opaque;
    times_typed++;
}

/* Told once for each text, when the guest has the last of it. A person's keys are no text. */
static void told_when_typed(void)
{
    struct typist *t;
    struct keyboard *k = keyboard_new(100, &t);
    times_typed = 0;
    typist_on_typed(t, count_typed, NULL);
    text(t, "ab", 2);
    for (unsigned i = 0; i < 3; i++)
        guest_reads(k, 1);
    g_assert_cmpuint(times_typed, ==, 0);
    guest_reads(k, 1);
    g_assert_cmpuint(times_typed, ==, 1);
    typist_key(t, 0x04, true);
    guest_reads_all(k, t);
    g_assert_cmpuint(times_typed, ==, 1);
    text(t, "a", 1);
    typist_key(t, 0x04, true); /* behind it */
    guest_reads_all(k, t);
    g_assert_cmpuint(times_typed, ==, 2);
    keyboard_free(k, t);
}

/* --- Caps Lock ------------------------------------------------------------------------------- */

/* A lit Caps Lock is turned off before text, once the guest has put the lamp out. */
static void caps_lock(void)
{
    enum { CAPS = 0x39 };
    struct typist *t;
    struct keyboard *k = keyboard_new(100, &t);
    k->lamps = LAMP_CAPS;
    text(t, "a", 1);
    for (unsigned i = 0; i < 5; i++) {
        clock_advance(k->board.clock, NS_PER_SECOND / 100, 0);
        guest_reads(k, 1);
    }
    g_assert_cmpuint(k->taken, ==, 2); /* the lamp is still on */
    k->lamps = 0;
    clock_advance(k->board.clock, NS_PER_SECOND / 10, 0);
    guest_reads_all(k, t);
    const uint16_t wanted[] = { 0x100 | CAPS, CAPS, 0x104, 0x04 };
    expect(k, wanted, G_N_ELEMENTS(wanted));

    k->taken = 0; /* a guest that means something else by the lamp gets the text, and one tap */
    k->lamps = LAMP_CAPS;
    text(t, "a", 1);
    guest_reads_all(k, t);
    text(t, "a", 1);
    guest_reads_all(k, t);
    const uint16_t again[] = { 0x100 | CAPS, CAPS, 0x104, 0x04, 0x104, 0x04 };
    expect(k, again, G_N_ELEMENTS(again));
    keyboard_free(k, t);
}

/* --- a PS/2 keyboard and a guest that is slow, stalls, and resets it ---------------------------
 */

enum { DATA = 0x60, COMMAND = 0x64, FULL = 1, RESET = 0xff, DISABLE = 0xf5, ENABLE = 0xf4 };

struct reader {
    struct rig *rig;
    bool shift;
    GString *got;
};

/* A byte of scan code set 1 as a US keyboard means it. */
static void read_code(struct reader *r, unsigned code)
{
    static const char plain[] = "\0\0331234567890-=\b\tqwertyuiop[]\n\0asdfghjkl;'`\0\\zxcvbnm,./";
    static const char shifted[] =
        "\0\033!@#$%^&*()_+\b\tQWERTYUIOP{}\n\0ASDFGHJKL:\"~\0|ZXCVBNM<>?";
    if ((code & 0x7f) == 0x2a)
        r->shift = !(code & 0x80);
    else if (code == 0x39)
        g_string_append_c(r->got, ' ');
    else if (!(code & 0x80) && code < sizeof plain)
        g_string_append_c(r->got, (r->shift ? shifted : plain)[code]);
}

static bool read_byte(struct reader *r, unsigned *byte)
{
    clock_advance(r->rig->board.clock, 400 * 1000, 0);
    bool full = rig_in(r->rig, COMMAND, 1) & FULL;
    *byte = full ? (unsigned)rig_in(r->rig, DATA, 1) : 0;
    clock_advance(r->rig->board.clock, 0, 0);
    return full;
}

/* As drivers do it: what is there before the answer are keys. */
static void send_command(struct reader *r, unsigned command)
{
    unsigned byte = 0;
    rig_out(r->rig, DATA, 1, command);
    for (unsigned i = 0; i < 100 && byte != 0xfa; i++)
        if (read_byte(r, &byte) && byte != 0xfa)
            read_code(r, byte);
    g_assert_cmphex(byte, ==, 0xfa);
    if (command != RESET)
        return;
    g_assert_true(read_byte(r, &byte));
    g_assert_cmphex(byte, ==, 0xaa);
    r->shift = false; /* a driver's keyboard is a new one */
}

static struct device *of_rig(void *opaque)
{
    return ((struct rig *)opaque)->dev;
}

static void restless_guest(void)
{
    enum { LENGTH = 4000 };
    struct rig *rig = rig_new(device_class_find("i8042"), NULL);
    struct reader reader = { .rig = rig, .got = g_string_new(NULL) };
    struct typist *t = typist_new(&rig->board, of_rig, rig);
    device_plug(rig->dev, "source", typist_source(t));
    rig_out(rig, COMMAND, 1, 0x60);
    rig_out(rig, DATA, 1, 0x41);
    g_autofree char *wanted = g_malloc0(LENGTH + 1);
    for (unsigned i = 0; i < LENGTH; i++)
        wanted[i] = (char)g_test_rand_int_range(' ', '~' + 1);
    g_assert_cmpuint(text(t, wanted, LENGTH), ==, 0);
    unsigned byte, rounds = 0;
    while (typist_busy(t)) {
        g_assert_cmpuint(rounds++, <, 100 * LENGTH);
        unsigned what = (unsigned)g_test_rand_int_range(0, 100);
        if (what < 80) {
            if (read_byte(&reader, &byte))
                read_code(&reader, byte);
        } else if (what < 90) {
            clock_advance(rig->board.clock, (uint64_t)g_test_rand_int_range(0, 50) * 1000000, 0);
        } else if (what < 92) {
            send_command(&reader, RESET);
        } else if (what < 94) {
            send_command(&reader, DISABLE);
            clock_advance(rig->board.clock, 1000000, 0);
            send_command(&reader, ENABLE);
        } else if (what < 96) { /* the port, for a while */
            rig_out(rig, COMMAND, 1, 0xad);
            clock_advance(rig->board.clock, 1000000, 0);
            rig_out(rig, COMMAND, 1, 0xae);
        } else if (what < 98) { /* lamps */
            send_command(&reader, 0xed);
            send_command(&reader, LAMP_NUM);
        }
    }
    if (strcmp(reader.got->str, wanted)) {
        unsigned at = 0;
        while (reader.got->str[at] == wanted[at])
            at++;
        g_error("at %u: '%.8s', wanted '%.8s'", at, reader.got->str + at, wanted + at);
    }
    g_string_free(reader.got, true);
    typist_free(t);
    rig_free(rig);
}

/* --- several keyboards ------------------------------------------------------------------------ */

static struct keyboard *listening;

static struct device *the_listening(void *opaque)
{
    (void)opaque;
    return listening ? &listening->dev : NULL;
}

/* The guest changes keyboards while a key is down: it comes up where it went down. */
static void another_keyboard(void)
{
    struct typist *of_first, *of_second, *t;
    struct keyboard *first = keyboard_new(100, &of_first);
    struct keyboard *second = keyboard_new(100, &of_second);
    listening = NULL;
    t = typist_new(&first->board, the_listening, NULL);
    typist_key(t, 0x04, true); /* nobody listens yet: it waits */
    g_assert_true(typist_busy(t));
    listening = first;
    typist_key(t, 0x05, true);
    listening = second;
    typist_key(t, 0x04, false);
    typist_key(t, 0x06, true);
    typist_key(t, 0x06, false);
    typist_key(t, 0x05, false);
    const uint16_t on_first[] = { 0x104, 0x105, 0x04, 0x05 };
    const uint16_t on_second[] = { 0x106, 0x06 };
    expect(first, on_first, G_N_ELEMENTS(on_first));
    expect(second, on_second, G_N_ELEMENTS(on_second));
    typist_free(t);
    keyboard_free(second, of_second);
    keyboard_free(first, of_first);
}

/* A keyboard that does not tell whether the guest took a key gets text at a pace of its own. */
static void own_pace(void)
{
    static const struct input_class blind = { .key = take_key };
    static const struct device_class blind_class = { .name = "blind", .input = &blind };
    struct typist *t;
    struct keyboard *k = keyboard_new(100, &t);
    k->dev.class = &blind_class;
    text(t, "ab", 2);
    for (unsigned i = 1; i <= 4; i++) {
        clock_advance(k->board.clock, NS_PER_SECOND / 1000, 0);
        g_assert_cmpuint(k->taken, <=, i);
        clock_advance(k->board.clock, NS_PER_SECOND / 500, 0);
    }
    g_assert_cmpuint(k->taken, ==, 4);
    keyboard_free(k, t);
}

/* The guest has left a keyboard with a key in it that it will never look at: it goes to the other
 * one, and nothing stays down on the first. */
static void left_keyboard(void)
{
    struct typist *of_first, *of_second, *t;
    struct keyboard *first = keyboard_new(100, &of_first);
    struct keyboard *second = keyboard_new(100, &of_second);
    listening = first;
    t = typist_new(&first->board, the_listening, NULL);
    first->source = second->source = typist_source(t);
    text(t, "AB", 2);
    guest_reads(first, 1); /* Shift; the A is in the queue */
    listening = second;
    guest_reads(second, 0);
    g_assert_cmpuint(second->taken, ==, 0);
    clock_advance(first->board.clock, 2 * NS_PER_SECOND, 0);
    for (unsigned i = 0; i < 100 && typist_busy(t); i++) {
        guest_reads(second, 1);
        clock_advance(first->board.clock, HOLD_NS, 0);
    }
    nothing_stays_down(first);
    const uint16_t wanted[] = {
        0x100 | SHIFT, 0x104, 0x04, SHIFT, 0x100 | SHIFT, 0x105, 0x05, SHIFT,
    };
    expect(second, wanted, G_N_ELEMENTS(wanted));
    typist_free(t);
    keyboard_free(second, of_second);
    keyboard_free(first, of_first);
}

/* A keyboard that does not tell when the guest takes a key is asked; and is not waited for for
 * ever. */
static void silent_keyboard(void)
{
    static const struct input_class silent = { .key = take_key, .idle = is_idle, .silent = true };
    static const struct device_class silent_class = { .name = "silent", .input = &silent };
    struct typist *t;
    struct keyboard *k = keyboard_new(100, &t);
    k->dev.class = &silent_class;
    k->source = NULL;
    text(t, "ab", 2);
    clock_advance(k->board.clock, NS_PER_SECOND / 10, 0);
    g_assert_cmpuint(k->taken, ==, 1);
    k->queued = 0;
    clock_advance(k->board.clock, NS_PER_SECOND / 100, 0);
    g_assert_cmpuint(k->taken, ==, 2);
    for (unsigned i = 0; i < 20; i++)
        clock_advance(k->board.clock, NS_PER_SECOND / 20, 0);
    g_assert_cmpuint(k->taken, ==, 4);
    g_assert_false(typist_busy(t));
    keyboard_free(k, t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/typist/text", text_to_strokes);
    g_test_add_func("/typist/every-character", every_character);
    g_test_add_func("/typist/left-out", left_out);
    g_test_add_func("/typist/chord", chord);
    g_test_add_func("/typist/bios-queue", bios_queue);
    g_test_add_func("/typist/names", names);
    g_test_add_func("/typist/text-is-paced", text_is_paced);
    g_test_add_func("/typist/keys-wait", keys_wait);
    g_test_add_func("/typist/deaf-guest", deaf_guest);
    g_test_add_func("/typist/long-text", long_text);
    g_test_add_func("/typist/too-much-text", too_much_text);
    g_test_add_func("/typist/release-has-room", release_has_room);
    g_test_add_func("/typist/another-keyboard", another_keyboard);
    g_test_add_func("/typist/own-pace", own_pace);
    g_test_add_func("/typist/thrown-away", thrown_away);
    g_test_add_func("/typist/told-when-typed", told_when_typed);
    g_test_add_func("/typist/caps-lock", caps_lock);
    g_test_add_func("/typist/restless-guest", restless_guest);
    g_test_add_func("/typist/left-keyboard", left_keyboard);
    g_test_add_func("/typist/silent-keyboard", silent_keyboard);
    return g_test_run();
}
