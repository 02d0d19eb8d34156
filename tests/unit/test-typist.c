/* The typist gives the keyboard what it takes, in order, and never more; text becomes the keys of
 * a US keyboard (HUT 1.12 section 10). */
#include "machine/typist.h"

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

static const struct input_class input = { .key = take_key, .idle = is_idle };
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
    g_free(typist);
    clock_free(k->board.clock);
    g_free(k);
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
    g_assert_cmpuint(typist_text(t, "a1\nA~", 5), ==, 0);
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
        g_assert_cmpuint(typist_text(t, &c, 1), ==, 0);
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
    const char text[] = "x\xc3\xa4\xe2\x82\xac\0y\r"; /* ä and € are one character each, and NUL */
    g_assert_cmpuint(typist_text(t, text, sizeof text - 1), ==, 3);
    guest_reads_all(k, t);
    const uint16_t wanted[] = { 0x11b, 0x1b, 0x11c, 0x1c, 0x128, 0x28 };
    expect(k, wanted, G_N_ELEMENTS(wanted));
    keyboard_free(k, t);
}

static void chord(void)
{
    struct typist *t;
    struct keyboard *k = keyboard_new(100, &t);
    const uint8_t keys[] = { CTRL, ALT, DEL };
    typist_chord(t, keys, 3);
    for (unsigned i = 0; i < 10; i++)
        guest_reads(k, 1);
    g_assert_cmpuint(k->taken, ==, 3); /* down as long as a finger would hold them */
    clock_advance(k->board.clock, HOLD_NS - 1, 0);
    g_assert_cmpuint(k->taken, ==, 3);
    guest_reads_all(k, t);
    const uint16_t wanted[] = { 0x100 | CTRL, 0x100 | ALT, 0x100 | DEL, DEL, ALT, CTRL };
    expect(k, wanted, G_N_ELEMENTS(wanted));
    typist_chord(t, keys, 0);
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
    typist_text(t, "abc", 3);
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
        g_assert_cmphex(typist_key_named(known[i].name), ==, known[i].usage);
    static const char *const unknown[] = { "", "ctlr", "f13", "!", "ab", "\xc3\xa4", "ctrl " };
    for (size_t i = 0; i < G_N_ELEMENTS(unknown); i++)
        g_assert_cmphex(typist_key_named(unknown[i]), ==, 0);
    g_assert_cmpstr(typist_key_near("ctlr"), ==, "ctrl");
    g_assert_cmpstr(typist_key_near("pagedwon"), ==, "pagedown");
    g_assert_null(typist_key_near("zzzzzz"));
}

/* --- how fast -------------------------------------------------------------------------------- */

/* Text waits until the guest has read what came before; a queue is never filled by it. */
static void text_is_paced(void)
{
    struct typist *t;
    struct keyboard *k = keyboard_new(16, &t);
    typist_text(t, "hello", 5);
    g_assert_cmpuint(k->taken, ==, 1);
    for (unsigned i = 1; i < 10; i++) {
        g_assert_true(typist_busy(t));
        g_assert_cmpuint(k->queued, ==, 1);
        guest_reads(k, 1);
        g_assert_cmpuint(k->taken, ==, i + 1);
    }
    g_assert_false(typist_busy(t));
    guest_reads(k, 1);
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
    typist_text(t, "abc", 3);
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
    g_autofree char *text = g_strnfill(LENGTH, 'A');
    g_assert_cmpuint(typist_text(t, text, LENGTH), ==, 0);
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
    g_autofree char *text = g_strnfill(LENGTH, 'a');
    unsigned lost = 0;
    for (unsigned i = 0; i < LENGTH; i += 7)
        text[i] = 'A'; /* two lengths, so that the room ends inside one of them */
    for (unsigned i = 0; i < 6; i++)
        lost += typist_text(t, text, LENGTH);
    g_assert_cmpuint(lost, >, 0);
    const uint8_t keys[] = { CTRL, ALT, DEL };
    for (unsigned i = 0; i < 100; i++)
        typist_chord(t, keys, 3);
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
    g_autofree char *text = g_strnfill(1 << 20, 'a');
    typist_key(t, 0x1d, true);
    typist_text(t, text, 1 << 20);
    for (unsigned i = 0; i < 1000; i++)
        typist_key(t, 0x1b, true); /* dropped, but for one perhaps */
    typist_key(t, 0x1b, false);
    typist_key(t, 0x1d, false);
    k->room = 1;
    guest_reads_all(k, t);
    nothing_stays_down(k);
    keyboard_free(k, t);
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
    g_free(t);
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
    typist_text(t, "ab", 2);
    for (unsigned i = 1; i <= 4; i++) {
        clock_advance(k->board.clock, NS_PER_SECOND / 1000, 0);
        g_assert_cmpuint(k->taken, <=, i);
        clock_advance(k->board.clock, NS_PER_SECOND / 500, 0);
    }
    g_assert_cmpuint(k->taken, ==, 4);
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
    return g_test_run();
}
