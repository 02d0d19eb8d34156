/* The keyboard controller, the keyboard and the mouse, as a driver meets them. */
#include "rig/rig.h"

#include <string.h>

enum { DATA = 0x60, STATUS = 0x64, COMMAND = 0x64 };
enum { FULL = 1, SYSTEM = 4, AUX = 0x20 };
enum { KEY_A = 0x04, KEY_PRINT = 0x46, KEY_PAUSE = 0x48, KEY_RIGHT = 0x4f };
enum { CTRL = 0xe0, SHIFT = 0xe1, ALT = 0xe2 };

/* Interrupts of both ports on, translation as `config` says. */
static struct rig *setup(unsigned config)
{
    struct rig *rig = rig_new(device_class_find("i8042"), NULL);
    rig_out(rig, COMMAND, 1, 0x60);
    rig_out(rig, DATA, 1, config | 3);
    return rig;
}

static bool key(struct rig *rig, unsigned usage, bool down)
{
    g_mutex_lock(&rig->dev->lock);
    bool taken = rig->dev->class->input->key(rig->dev, (uint8_t)usage, down);
    g_mutex_unlock(&rig->dev->lock);
    return taken;
}

static void move(struct rig *rig, int dx, int dy, int wheel, unsigned buttons)
{
    g_mutex_lock(&rig->dev->lock);
    rig->dev->class->input->pointer(rig->dev, dx, dy, wheel, buttons);
    g_mutex_unlock(&rig->dev->lock);
}

/* A look, and another one for a byte that has waited for the first. */
static unsigned status_soon(struct rig *rig)
{
    if (!(rig_in(rig, STATUS, 1) & FULL))
        clock_advance(rig->board.clock, 1000000, 0);
    return rig_in(rig, STATUS, 1);
}

/* All bytes there are, as text: "1c f0 1c". `aux`: from the mouse, else from the keyboard; a byte
 * of the other one is marked. */
static const char *drain(struct rig *rig, bool aux)
{
    static char text[2048];
    text[0] = 0;
    for (unsigned i = 0; i < 300; i++) {
        unsigned status = status_soon(rig);
        if (!(status & FULL))
            break;
        bool from_aux = status & AUX;
        g_snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s%02x", i ? " " : "",
                   from_aux != aux ? "!" : "", rig_in(rig, DATA, 1));
        clock_advance(rig->board.clock, 1000000, 0);
    }
    return text;
}

static const char *keyboard(struct rig *rig, unsigned byte)
{
    rig_out(rig, DATA, 1, byte);
    return drain(rig, false);
}

static const char *mouse(struct rig *rig, unsigned byte)
{
    rig_out(rig, COMMAND, 1, 0xd4);
    rig_out(rig, DATA, 1, byte);
    return drain(rig, true);
}

static const char *controller(struct rig *rig, unsigned command)
{
    rig_out(rig, COMMAND, 1, command);
    return drain(rig, false);
}

static void controller_commands(void)
{
    struct rig *rig = setup(0);
    g_assert_cmphex(rig_in(rig, STATUS, 1) & SYSTEM, ==, 0);
    g_assert_cmpstr(controller(rig, 0xaa), ==, "55");
    g_assert_cmphex(rig_in(rig, STATUS, 1) & SYSTEM, ==, SYSTEM);
    g_assert_cmpstr(controller(rig, 0xab), ==, "00");
    g_assert_cmpstr(controller(rig, 0xa9), ==, "00");
    g_assert_cmpstr(controller(rig, 0x20), ==, "07");
    g_assert_cmpstr(controller(rig, 0xa7), ==, "");
    g_assert_cmpstr(controller(rig, 0xad), ==, "");
    g_assert_cmpstr(controller(rig, 0x20), ==, "37");
    controller(rig, 0xa8);
    controller(rig, 0xae);
    g_assert_cmpstr(controller(rig, 0x20), ==, "07");
    rig_out(rig, COMMAND, 1, 0x65); /* RAM */
    rig_out(rig, DATA, 1, 0x99);
    g_assert_cmpstr(controller(rig, 0x25), ==, "99");
    rig_out(rig, COMMAND, 1, 0xd2); /* the loops */
    rig_out(rig, DATA, 1, 0x5a);
    g_assert_cmpstr(drain(rig, false), ==, "5a");
    rig_out(rig, COMMAND, 1, 0xd3);
    g_assert_cmphex(rig_in(rig, STATUS, 1) & 8, ==, 8);
    rig_out(rig, DATA, 1, 0xa5);
    g_assert_true(rig_line(rig, "mouse")->level);
    g_assert_false(rig_line(rig, "kbd")->level);
    g_assert_cmpstr(drain(rig, true), ==, "a5");
    g_assert_cmpstr(controller(rig, 0xd0), ==, "c3");
    controller(rig, 0xdd);
    g_assert_cmpstr(controller(rig, 0xd0), ==, "c1");
    rig_free(rig);
}

static void resets(void)
{
    struct rig *rig = setup(0);
    rig_out(rig, COMMAND, 1, 0xfe);
    g_assert_cmpuint(rig->requests[BOARD_RESET], ==, 1);
    rig_out(rig, COMMAND, 1, 0xff); /* pulses nothing */
    rig_out(rig, COMMAND, 1, 0xd1);
    rig_out(rig, DATA, 1, 0x03);
    g_assert_cmpuint(rig->requests[BOARD_RESET], ==, 1);
    rig_out(rig, COMMAND, 1, 0xd1);
    rig_out(rig, DATA, 1, 0x02);
    g_assert_cmpuint(rig->requests[BOARD_RESET], ==, 2);
    rig_free(rig);
}

static void keyboard_commands(void)
{
    struct rig *rig = setup(0);
    g_assert_cmpstr(keyboard(rig, 0xff), ==, "fa aa");
    g_assert_cmpstr(keyboard(rig, 0xee), ==, "ee");
    g_assert_cmpstr(keyboard(rig, 0xf2), ==, "fa ab 83");
    g_assert_cmpstr(keyboard(rig, 0xfe), ==, "83"); /* resend */
    g_assert_cmpstr(keyboard(rig, 0x12), ==, "fe"); /* no command */
    g_assert_cmpstr(keyboard(rig, 0xf3), ==, "fa");
    g_assert_cmpstr(keyboard(rig, 0x00), ==, "fa");
    unsigned told = rig->source_changes;
    g_assert_cmpstr(keyboard(rig, 0xed), ==, "fa");
    g_assert_cmpstr(keyboard(rig, LAMP_NUM | LAMP_CAPS), ==, "fa");
    g_assert_cmpuint(rig->source_changes, ==, told + 1);
    g_assert_cmpuint(rig->dev->class->input->lamps(rig->dev), ==, LAMP_NUM | LAMP_CAPS);
    keyboard(rig, 0xed);
    g_assert_cmpstr(keyboard(rig, 0xf4), ==, "fa"); /* a command in place of the operand */
    g_assert_cmpuint(rig->dev->class->input->lamps(rig->dev), ==, LAMP_NUM | LAMP_CAPS);
    keyboard(rig, 0xf5);
    g_assert_true(key(rig, KEY_A, true)); /* dropped */
    g_assert_cmpstr(drain(rig, false), ==, "");
    keyboard(rig, 0xf4);
    key(rig, KEY_A, true);
    g_assert_cmpstr(drain(rig, false), ==, "1c");
    rig_free(rig);
}

/* Press and release of a key, as the driver reads them. */
static const char *stroke(struct rig *rig, unsigned usage)
{
    g_assert_true(key(rig, usage, true));
    g_assert_true(key(rig, usage, false));
    return drain(rig, false);
}

static void set_2(void)
{
    struct rig *rig = setup(0);
    g_assert_cmpstr(stroke(rig, KEY_A), ==, "1c f0 1c");
    g_assert_cmpstr(stroke(rig, KEY_RIGHT), ==, "e0 74 e0 f0 74");
    g_assert_cmpstr(stroke(rig, 0x40), ==, "83 f0 83"); /* F7 */
    g_assert_cmpstr(stroke(rig, 0x68), ==, "08 f0 08"); /* F13 */
    g_assert_cmpstr(stroke(rig, KEY_PAUSE), ==, "e1 14 77 e1 f0 14 f0 77");
    g_assert_cmpstr(stroke(rig, KEY_PRINT), ==, "e0 12 e0 7c e0 f0 7c e0 f0 12");
    g_assert_cmpstr(stroke(rig, 0x90), ==, "f2"); /* Hangul */
    g_assert_cmpstr(stroke(rig, 0x00), ==, "");
    rig_free(rig);
}

static void translated(void)
{
    struct rig *rig = setup(0x40);
    g_assert_cmpstr(stroke(rig, KEY_A), ==, "1e 9e");
    g_assert_cmpstr(stroke(rig, KEY_RIGHT), ==, "e0 4d e0 cd");
    g_assert_cmpstr(stroke(rig, 0x29), ==, "01 81");       /* Esc */
    g_assert_cmpstr(stroke(rig, 0x40), ==, "41 c1");       /* F7 */
    g_assert_cmpstr(stroke(rig, 0x45), ==, "58 d8");       /* F12 */
    g_assert_cmpstr(stroke(rig, 0x68), ==, "64 e4");       /* F13 */
    g_assert_cmpstr(stroke(rig, 0x73), ==, "76 f6");       /* F24 */
    g_assert_cmpstr(stroke(rig, 0x64), ==, "56 d6");       /* beside the left Shift */
    g_assert_cmpstr(stroke(rig, 0x87), ==, "73 f3");       /* Ro */
    g_assert_cmpstr(stroke(rig, 0x89), ==, "7d fd");       /* Yen */
    g_assert_cmpstr(stroke(rig, 0x7f), ==, "e0 20 e0 a0"); /* mute */
    g_assert_cmpstr(stroke(rig, KEY_PAUSE), ==, "e1 1d 45 e1 9d c5");
    g_assert_cmpstr(stroke(rig, KEY_PRINT), ==, "e0 2a e0 37 e0 b7 e0 aa");
    key(rig, ALT, true);
    g_assert_cmpstr(drain(rig, false), ==, "38");
    g_assert_cmpstr(stroke(rig, KEY_PRINT), ==, "54 d4"); /* SysRq */
    key(rig, ALT, false);
    key(rig, CTRL, true);
    g_assert_cmpstr(drain(rig, false), ==, "b8 1d");
    g_assert_cmpstr(stroke(rig, KEY_PAUSE), ==, "e0 46 e0 c6"); /* Break */
    key(rig, KEY_PRINT, true);
    key(rig, CTRL, false);
    key(rig, KEY_PRINT, false); /* up as it went down, whatever is held by then */
    g_assert_cmpstr(drain(rig, false), ==, "e0 37 9d e0 b7");
    g_assert_cmpstr(keyboard(rig, 0xf2), ==, "fa ab 41"); /* replies are translated too */
    rig_free(rig);
}

static void other_sets(void)
{
    struct rig *rig = setup(0);
    keyboard(rig, 0xf0);
    g_assert_cmpstr(keyboard(rig, 0), ==, "fa 02");
    keyboard(rig, 0xf0);
    g_assert_cmpstr(keyboard(rig, 4), ==, "fe");
    keyboard(rig, 0xf0);
    keyboard(rig, 1);
    g_assert_cmpstr(stroke(rig, KEY_RIGHT), ==, "e0 4d e0 cd");
    g_assert_cmpstr(stroke(rig, KEY_PAUSE), ==, "e1 1d 45 e1 9d c5");
    keyboard(rig, 0xf0);
    keyboard(rig, 3);
    g_assert_cmpstr(stroke(rig, KEY_RIGHT), ==, "6a f0 6a");
    keyboard(rig, 0xf9); /* make only */
    g_assert_cmpstr(stroke(rig, KEY_RIGHT), ==, "6a");
    rig_free(rig);
}

/* Every key of a 105-key board has a code of its own, in both sets. */
static void all_keys(void)
{
    for (unsigned config = 0; config <= 0x40; config += 0x40) {
        struct rig *rig = setup(config);
        g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
        unsigned keys = 0;
        for (unsigned usage = 0; usage < 256; usage++) {
            bool board = (usage >= 0x04 && usage <= 0x65) || (usage >= 0xe0 && usage <= 0xe7);
            if (!board || usage == 0x32) /* on no board beside 0x31, and its twin */
                continue;
            const char *codes = stroke(rig, usage);
            g_assert_cmpuint(strlen(codes), >=, 5);
            g_assert_true(g_hash_table_add(seen, g_strdup(codes)));
            keys++;
        }
        g_assert_cmpuint(keys, ==, 105);
        rig_free(rig);
    }
}

static void interrupts(void)
{
    struct rig *rig = setup(0);
    struct rig_line *line = rig_line(rig, "kbd");
    key(rig, KEY_RIGHT, true); /* two bytes */
    g_assert_true(line->level);
    g_assert_cmpuint(line->rises, ==, 1);
    g_assert_cmphex(rig_in(rig, DATA, 1), ==, 0xe0);
    g_assert_false(line->level);
    g_assert_cmphex(rig_in(rig, DATA, 1), ==, 0xe0); /* the same byte, for chained handlers */
    clock_advance(rig->board.clock, 5000000, 0);     /* it might poll: once only */
    g_assert_true(line->level);
    g_assert_cmpuint(line->rises, ==, 2);
    g_assert_cmphex(rig_in(rig, DATA, 1), ==, 0x74);
    rig_out(rig, COMMAND, 1, 0x60); /* interrupts off */
    rig_out(rig, DATA, 1, 0);
    clock_advance(rig->board.clock, 5000000, 0);
    key(rig, KEY_A, true);
    g_assert_cmphex(rig_in(rig, STATUS, 1) & (FULL | AUX), ==, FULL);
    g_assert_false(line->level);
    rig_free(rig);
}

/* EDK2's driver: every 20 ms it takes all bytes there are, has room for 32, and makes one key of
 * them. Each access takes as long as `access` says, in ns, and between two the guest may stand
 * still. */
static void poller(uint64_t access, uint64_t standstill)
{
    enum { KEYS = 200, ROOM = 32 };
    struct rig *rig = setup(0x40);
    struct clock *clock = rig->board.clock;
    unsigned typed = 0, waiting = 0, strokes = 0;
    for (unsigned tick = 0; tick < 4 * KEYS && strokes < 2 * KEYS; tick++) {
        for (; rig_in(rig, STATUS, 1) & FULL; waiting++) {
            clock_advance(clock, access, 0);
            g_assert_cmphex(rig_in(rig, DATA, 1) & 0x7f, ==, 0x1e); /* A, translated */
            g_assert_cmpuint(waiting, <, ROOM);
            /* Who types gives the next one as soon as this is taken. */
            if (typed < 2 * KEYS && rig->dev->class->input->idle(rig->dev))
                key(rig, KEY_A, !(typed++ & 1));
            clock_advance(clock, tick % 7 || waiting ? access : access + standstill, 0);
        }
        for (bool made = false; waiting && !made; waiting--)
            made = strokes++ & 1;
        if (!typed)
            key(rig, KEY_A, !(typed++ & 1));
        clock_advance(clock, 20 * 1000 * 1000, 0);
    }
    g_assert_cmpuint(strokes, ==, 2 * KEYS);
    rig_free(rig);
}

static void pollers(void)
{
    poller(2000, 0);
    poller(400000, 0);
    poller(400000, 10 * 1000 * 1000);
}

static void port_off_keeps_keys(void)
{
    struct rig *rig = setup(0);
    controller(rig, 0xad);
    key(rig, KEY_A, true);
    g_assert_cmpstr(drain(rig, false), ==, "");
    rig_out(rig, COMMAND, 1, 0xae);
    g_assert_cmpstr(drain(rig, false), ==, "1c");
    rig_free(rig);
}

static bool idle(struct rig *rig)
{
    return rig->dev->class->input->idle(rig->dev);
}

static void full_queue(void)
{
    struct rig *rig = setup(0x40);
    unsigned pressed = 0;
    g_assert_true(idle(rig));
    while (key(rig, KEY_A + pressed, true))
        pressed++;
    g_assert_cmpuint(pressed, >=, 16);
    g_assert_cmpuint(pressed, <, 100);
    for (unsigned i = 0; i < pressed; i++)
        g_assert_true(key(rig, KEY_A + i, false)); /* always */
    g_assert_false(key(rig, KEY_A, true));         /* in order: not before those */
    g_assert_false(idle(rig));
    unsigned told = rig->source_changes;
    g_autofree char *codes = g_strdup(drain(rig, false));
    g_assert_true(idle(rig));
    g_assert_cmpuint(rig->source_changes, >, told);
    g_assert_cmpuint((strlen(codes) + 1) / 3, ==, 2 * pressed);
    g_assert_nonnull(strstr(codes, "9e")); /* A is up */
    g_assert_cmpstr(stroke(rig, KEY_A), ==, "1e 9e");
    rig_free(rig);
}

static void mouse_commands(void)
{
    struct rig *rig = setup(0x40);
    g_assert_cmpstr(mouse(rig, 0xff), ==, "fa aa 00");
    g_assert_cmpstr(mouse(rig, 0xf2), ==, "fa 00");
    g_assert_cmpstr(mouse(rig, 0xe9), ==, "fa 00 02 64");
    g_assert_cmpstr(mouse(rig, 0xe8), ==, "fa");
    g_assert_cmpstr(mouse(rig, 3), ==, "fa");
    mouse(rig, 0xe7);
    mouse(rig, 0xf4);
    g_assert_cmpstr(mouse(rig, 0xe9), ==, "fa 30 03 64");
    g_assert_cmpstr(mouse(rig, 0xf6), ==, "fa");
    g_assert_cmpstr(mouse(rig, 0xe9), ==, "fa 00 02 64");
    g_assert_cmpstr(mouse(rig, 0x01), ==, "fe");
    mouse(rig, 0xee); /* wrap */
    g_assert_cmpstr(mouse(rig, 0xf4), ==, "f4");
    g_assert_cmpstr(mouse(rig, 0xec), ==, "fa");
    g_assert_cmpstr(mouse(rig, 0xe9), ==, "fa 00 02 64");
    rig_free(rig);
}

static void knock(struct rig *rig, unsigned a, unsigned b, unsigned c)
{
    const unsigned rates[] = { a, b, c };
    for (unsigned i = 0; i < 3; i++) {
        mouse(rig, 0xf3);
        g_assert_cmpstr(mouse(rig, rates[i]), ==, "fa");
    }
}

static void packets(void)
{
    struct rig *rig = setup(0x40);
    move(rig, 5, 5, 0, 0); /* not enabled: lost */
    mouse(rig, 0xf4);
    move(rig, 5, 3, 0, BUTTON_LEFT);
    g_assert_true(rig_line(rig, "mouse")->level);
    g_assert_cmpstr(drain(rig, true), ==, "29 05 fd"); /* up is positive */
    move(rig, -2, -4, 0, BUTTON_RIGHT | BUTTON_MIDDLE);
    g_assert_cmpstr(drain(rig, true), ==, "1e fe 04");
    move(rig, 0, 0, 3, BUTTON_RIGHT | BUTTON_MIDDLE); /* no wheel yet */
    g_assert_cmpstr(drain(rig, true), ==, "");
    move(rig, 600, 0, 0, 0); /* in pieces, nothing lost */
    g_assert_cmpstr(drain(rig, true), ==, "08 ff 00 08 ff 00 08 5a 00");
    mouse(rig, 0xe7);
    move(rig, 4, 8, 0, 0);
    g_assert_cmpstr(drain(rig, true), ==, "28 06 f0"); /* scaled 2:1 */
    rig_free(rig);
}

static void wheel(void)
{
    struct rig *rig = setup(0x40);
    knock(rig, 200, 100, 80);
    g_assert_cmpstr(mouse(rig, 0xf2), ==, "fa 03");
    mouse(rig, 0xf4);
    move(rig, 0, 0, 1, 0);
    g_assert_cmpstr(drain(rig, true), ==, "08 00 00 ff"); /* away is negative */
    move(rig, 0, 0, -2, 8);
    g_assert_cmpstr(drain(rig, true), ==, "08 00 00 02");
    knock(rig, 200, 200, 80);
    g_assert_cmpstr(mouse(rig, 0xf2), ==, "fa 04");
    move(rig, 0, 0, 1, 8);
    g_assert_cmpstr(drain(rig, true), ==, "08 00 00 1f");
    move(rig, 0, 0, 0, 16);
    g_assert_cmpstr(drain(rig, true), ==, "08 00 00 20");
    mouse(rig, 0xff);
    g_assert_cmpstr(mouse(rig, 0xf2), ==, "fa 00");
    rig_free(rig);
}

static void coalescing(void)
{
    struct rig *rig = setup(0x40);
    mouse(rig, 0xf4);
    for (unsigned i = 0; i < 100; i++)
        move(rig, 1, 0, 0, 0); /* the guest looks away */
    g_assert_cmpstr(drain(rig, true), ==, "08 01 00 08 63 00");
    move(rig, 1, 0, 0, 0);
    move(rig, 1, 0, 0, 1); /* a click is kept apart */
    move(rig, 0, 0, 0, 0);
    g_assert_cmpstr(drain(rig, true), ==, "08 01 00 09 01 00 08 00 00");
    rig_free(rig);
}

static void remote_mode(void)
{
    struct rig *rig = setup(0x40);
    mouse(rig, 0xf0);
    move(rig, 7, 0, 0, BUTTON_LEFT);
    g_assert_cmpstr(drain(rig, true), ==, "");
    g_assert_cmpstr(mouse(rig, 0xeb), ==, "fa 09 07 00");
    g_assert_cmpstr(mouse(rig, 0xeb), ==, "fa 09 00 00");
    g_assert_cmpstr(mouse(rig, 0xe9), ==, "fa 44 02 64");
    rig_free(rig);
}

static void both(void)
{
    struct rig *rig = setup(0x40);
    mouse(rig, 0xf4);
    key(rig, KEY_A, true);
    move(rig, 1, 0, 0, 0);
    g_assert_cmpstr(drain(rig, false), ==, "1e !08 !01 !00");
    controller(rig, 0xa7);
    move(rig, 1, 0, 0, 0);
    key(rig, KEY_A, false);
    g_assert_cmpstr(drain(rig, false), ==, "9e");
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/i8042/controller-commands", controller_commands);
    g_test_add_func("/i8042/resets", resets);
    g_test_add_func("/i8042/keyboard-commands", keyboard_commands);
    g_test_add_func("/i8042/set-2", set_2);
    g_test_add_func("/i8042/translated", translated);
    g_test_add_func("/i8042/other-sets", other_sets);
    g_test_add_func("/i8042/all-keys", all_keys);
    g_test_add_func("/i8042/interrupts", interrupts);
    g_test_add_func("/i8042/pollers", pollers);
    g_test_add_func("/i8042/port-off-keeps-keys", port_off_keeps_keys);
    g_test_add_func("/i8042/full-queue", full_queue);
    g_test_add_func("/i8042/mouse-commands", mouse_commands);
    g_test_add_func("/i8042/packets", packets);
    g_test_add_func("/i8042/wheel", wheel);
    g_test_add_func("/i8042/coalescing", coalescing);
    g_test_add_func("/i8042/remote-mode", remote_mode);
    g_test_add_func("/i8042/both", both);
    return g_test_run();
}
