/* Drafts of scripts from what a user does: src/test/recorder.c. */
#include "test/recorder.h"

#include <string.h>

enum {
    SHIFT = 0xe1,
    CTRL = 0xe0,
    ALT = 0xe2,
    RIGHT_SHIFT = 0xe5,
    ENTER = 0x28,
    DELETE = 0x4c,
    A = 4
};

static void press(struct recorder *r, const uint8_t *keys, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        recorder_key(r, keys[i], true);
    for (unsigned i = count; i-- > 0;)
        recorder_key(r, keys[i], false);
}

#define PRESS(...)                                                                                 \
    press(&r, (const uint8_t[]){ __VA_ARGS__ }, sizeof(const uint8_t[]){ __VA_ARGS__ })

/* Characters that follow each other are one line; other keys have lines of their own. */
static void keys(void)
{
    g_autoptr(key_map) map = key_map_us();
    struct recorder r;
    recorder_init(&r, map);
    PRESS(A);
    PRESS(SHIFT, A);
    PRESS(RIGHT_SHIFT, 0x34); /* " */
    PRESS(0x31);              /* \ */
    PRESS(ENTER);
    PRESS(CTRL, ALT, DELETE);
    PRESS(CTRL, A);
    PRESS(0x51); /* down */
    PRESS(0x9a); /* SysReq: without a name */
    PRESS(A + 1);
    recorder_text(&r, "p\xc3\xa4ste\n");
    recorder_key(&r, SHIFT, false); /* up without down */
    g_assert_cmpstr(recorder_lines(&r), ==,
                    "  type \"aA\\\"\\\\\\n\"\n"
                    "  key ctrl+alt+delete\n"
                    "  key ctrl+a\n"
                    "  key down\n"
                    "  # a key without a name was pressed\n"
                    "  type \"bp\xc3\xa4ste\\n\"\n");
    recorder_finish(&r);
}

/* More keys are held than there is room for. */
static void many_held(void)
{
    g_autoptr(key_map) map = key_map_us();
    struct recorder r;
    recorder_init(&r, map);
    for (unsigned turn = 0; turn < 3; turn++)
        for (unsigned usage = 0xe0; usage < 0xe8; usage++)
            recorder_key(&r, (uint8_t)usage, true);
    PRESS(A);
    g_assert_true(g_str_has_prefix(recorder_lines(&r), "  key ctrl+shift+alt+"));
    recorder_finish(&r);
}

static void mouse(void)
{
    g_autoptr(key_map) map = key_map_us();
    struct recorder r;
    recorder_init(&r, map);
    PRESS(A);
    recorder_click(&r, "", 3, 4, "Say \"OK\"");
    recorder_click(&r, "right ", 3, 4, NULL);
    recorder_scroll(&r, -2);
    recorder_line(&r, "eject");
    g_assert_cmpstr(recorder_lines(&r), ==,
                    "  type \"a\"\n  click \"Say \\\"OK\\\"\"\n  click right at 3,4\n"
                    "  scroll down 2\n  eject\n");
    recorder_finish(&r);
}

/* What is waited for is new, as near to the screen's end as may be, and has no numbers in it. */
static void seen(void)
{
    static const struct {
        const char *before, *now, *line;
    } screens[] = {
        { "", "SeaBIOS\nNo bootable device.\n\n", "  see screen \"No bootable device.\"\n" },
        { "login: \n", "login: root\nPassword:\n", "  see screen \"Password:\"\n" },
        { "a\n", "a\n12:34:56 eth0 is up 10\n", "  see screen \"is up\"\n" },
        { "a\n", "a\n", "" },
        { "prompt$\n", "12 345\n9$\n", "" },
        { "x\n", "x\nit says \"hi\"\n", "  see screen \"it says \\\"hi\\\"\"\n" },
    };
    g_autoptr(key_map) map = key_map_us();
    for (size_t i = 0; i < G_N_ELEMENTS(screens); i++) {
        struct recorder r;
        recorder_init(&r, map);
        recorder_saw(&r, screens[i].before, screens[i].now);
        g_assert_cmpstr(recorder_lines(&r), ==, screens[i].line);
        recorder_finish(&r);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/recorder/keys", keys);
    g_test_add_func("/recorder/many-held", many_held);
    g_test_add_func("/recorder/mouse", mouse);
    g_test_add_func("/recorder/seen", seen);
    return g_test_run();
}
