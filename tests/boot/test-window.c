/* hv-view in a real X server (Xvfb), before a fake machine: what it shows is read back from the
 * server's frame buffer, keys and clicks come from xdotool. With HV_WINDOW_SHOTS=DIRECTORY, the
 * screen is kept as an .xwd file at the steps worth looking at. */
#include <X11/XWDFile.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "boot/fake-machine.h"
#include "bus/input.h"
#include "ui/keyboard.h"
#include "ui/window.h"

struct desk {
    GPid server, viewer;
    char *directory; /* of the server's frame buffer and of HOME */
    char *display;
    struct fake_machine fake;
    int x, y; /* the window */
};

static const char *view_program;

/* --- the desk: an X server and a window ------------------------------------------------------ */

static void die_with_parent(gpointer data)
{
    (void)data;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static void start_server(struct desk *desk)
{
    int ends[2];
    char number[16] = "";
    g_assert_cmpint(pipe(ends), ==, 0);
    desk->directory = g_dir_make_tmp("hv-window-XXXXXX", NULL);
    g_autofree char *fd = g_strdup_printf("%d", ends[1]);
    char *argv[] = { "Xvfb",          "-displayfd", fd,          "-screen", "0",
                     "1280x1024x24",  "-noreset",   "-nolisten", "tcp",     "-fbdir",
                     desk->directory, NULL };
    g_autoptr(GError) error = NULL;
    g_spawn_async(NULL, argv, NULL,
                  G_SPAWN_SEARCH_PATH | G_SPAWN_LEAVE_DESCRIPTORS_OPEN | G_SPAWN_DO_NOT_REAP_CHILD |
                      G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_STDERR_TO_DEV_NULL,
                  die_with_parent, NULL, &desk->server, &error);
    g_assert_no_error(error);
    close(ends[1]);
    g_assert_cmpint(read(ends[0], number, sizeof number - 1), >, 0);
    close(ends[0]);
    desk->display = g_strdup_printf(":%d", atoi(number));
}

static GPid start_program(struct desk *desk, char **argv)
{
    GPid pid = 0;
    g_auto(GStrv) environment = g_get_environ();
    environment = g_environ_setenv(environment, "DISPLAY", desk->display, TRUE);
    environment = g_environ_setenv(environment, "HOME", desk->directory, TRUE);
    environment = g_environ_setenv(environment, "SDL_RENDER_DRIVER", "software", FALSE);
    /* For builds with sanitizers: the libraries that SDL loads leak a little. */
    environment = g_environ_setenv(environment, "ASAN_OPTIONS", "detect_leaks=0", TRUE);
    environment = g_environ_unsetenv(environment, "WAYLAND_DISPLAY");
    environment = g_environ_unsetenv(environment, "XDG_CONFIG_HOME");
    g_autoptr(GError) error = NULL;
    g_spawn_async(NULL, argv, environment,
                  G_SPAWN_LEAVE_DESCRIPTORS_OPEN | G_SPAWN_DO_NOT_REAP_CHILD |
                      G_SPAWN_STDOUT_TO_DEV_NULL,
                  die_with_parent, NULL, &pid, &error);
    g_assert_no_error(error);
    return pid;
}

static void start_viewer(struct desk *desk)
{
    g_autofree char *fd = g_strdup_printf("%d", desk->fake.window);
    char *argv[] = { (char *)view_program, "--fd", fd, "--name", "demo", NULL };
    desk->viewer = start_program(desk, argv);
    close(desk->fake.window);
}

static char *xdotool(struct desk *desk, const char *arguments)
{
    g_autofree char *line = g_strdup_printf("env DISPLAY=%s xdotool %s", desk->display, arguments);
    char *out = NULL;
    g_autoptr(GError) error = NULL;
    g_spawn_command_line_sync(line, &out, NULL, NULL, &error);
    g_assert_no_error(error);
    return out;
}

static void act(struct desk *desk, const char *arguments)
{
    g_free(xdotool(desk, arguments));
}

/* A letter with the host key, which is given as a keycode: for the keysym Control_R xdotool holds
 * the left one too. */
static void host(struct desk *desk, const char *letter)
{
    g_autofree char *arguments = g_strdup_printf("keydown 105 key %s keyup 105", letter);
    act(desk, arguments);
}

static void find_window(struct desk *desk)
{
    g_autofree char *out = NULL;
    for (unsigned attempt = 0; attempt < 50; attempt++) {
        g_free(out);
        out = xdotool(desk, "search --onlyvisible --name demo getwindowgeometry --shell");
        char *x = strstr(out, "X="), *y = strstr(out, "Y=");
        if (x && y) {
            desk->x = atoi(x + 2);
            desk->y = atoi(y + 2);
            return;
        }
        g_usleep(100 * 1000);
    }
    g_error("the window did not appear");
}

static void window_size(struct desk *desk, int *width, int *height)
{
    g_autofree char *out =
        xdotool(desk, "search --onlyvisible --name demo getwindowgeometry --shell");
    char *w = strstr(out, "WIDTH="), *h = strstr(out, "HEIGHT=");
    g_assert_true(w && h);
    *width = atoi(w + 6);
    *height = atoi(h + 7);
}

static void desk_prepare(struct desk *desk)
{
    *desk = (struct desk){ 0 };
    start_server(desk);
    fake_start(&desk->fake);
}

static void desk_start(struct desk *desk)
{
    desk_prepare(desk);
    start_viewer(desk);
    find_window(desk);
}

/* The viewer's exit status, -1 for a signal. */
static int wait_viewer(struct desk *desk)
{
    int status = 0;
    for (unsigned attempt = 0; attempt < 100; attempt++) {
        if (waitpid(desk->viewer, &status, WNOHANG) == desk->viewer) {
            desk->viewer = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        }
        g_usleep(50 * 1000);
    }
    g_error("the viewer did not end");
}

static void desk_finish(struct desk *desk)
{
    if (desk->viewer) {
        kill(desk->viewer, SIGKILL);
        waitpid(desk->viewer, NULL, 0);
    }
    if (desk->server) {
        kill(desk->server, SIGTERM);
        waitpid(desk->server, NULL, 0);
    }
    fake_finish(&desk->fake);
    g_autofree char *line = g_strdup_printf("rm -rf %s", desk->directory);
    g_spawn_command_line_sync(line, NULL, NULL, NULL, NULL);
    g_free(desk->directory);
    g_free(desk->display);
}

/* --- what is on the screen ------------------------------------------------------------------- */

static uint32_t big_endian(const char *file, size_t offset)
{
    uint32_t value;
    memcpy(&value, file + offset, sizeof value);
    return GUINT32_FROM_BE(value);
}

/* A pixel of the window, from the server's XWD file. */
static uint32_t pixel(struct desk *desk, int x, int y)
{
    g_autofree char *path = g_build_filename(desk->directory, "Xvfb_screen0", NULL);
    g_autofree char *file = NULL;
    gsize length = 0;
    g_assert_true(g_file_get_contents(path, &file, &length, NULL));
    size_t header = big_endian(file, offsetof(XWDFileHeader, header_size));
    size_t colours = big_endian(file, offsetof(XWDFileHeader, ncolors));
    size_t stride = big_endian(file, offsetof(XWDFileHeader, bytes_per_line));
    size_t at = header + colours * sizeof(XWDColor) + (size_t)(desk->y + y) * stride +
                (size_t)(desk->x + x) * 4;
    uint32_t value;
    g_assert_cmpuint(at + 4, <=, length);
    memcpy(&value, file + at, sizeof value);
    return value & 0xffffff;
}

static bool pixel_becomes(struct desk *desk, int x, int y, uint32_t colour)
{
    uint32_t seen = 0;
    for (unsigned attempt = 0; attempt < 50; attempt++) {
        seen = pixel(desk, x, y);
        if (seen == colour)
            return true;
        g_usleep(50 * 1000);
    }
    g_test_message("pixel %d,%d is %06x, not %06x", x, y, seen, colour);
    return false;
}

static bool pixel_changes(struct desk *desk, int x, int y, uint32_t from)
{
    for (unsigned attempt = 0; attempt < 50; attempt++) {
        if (pixel(desk, x, y) != from)
            return true;
        g_usleep(50 * 1000);
    }
    return false;
}

static void shot(struct desk *desk, const char *name)
{
    const char *directory = g_getenv("HV_WINDOW_SHOTS");
    if (!directory)
        return;
    g_usleep(300 * 1000);
    g_autofree char *line =
        g_strdup_printf("cp %s/Xvfb_screen0 %s/%s.xwd", desk->directory, directory, name);
    g_spawn_command_line_sync(line, NULL, NULL, NULL, NULL);
}

enum { RED = 0xc02020, GREEN = 0x20c020, BLUE = 0x2020c0, WHITE = 0xf0f0f0 };

/* Four fields of colour in 640 x 480. */
static void show_fields(struct desk *desk)
{
    static const uint32_t colours[] = { RED, GREEN, BLUE, WHITE };
    fake_hello(&desk->fake, "demo");
    desk->fake.width = 640;
    for (uint32_t i = 0; i < 4; i++)
        fake_fill(&desk->fake, (struct rectangle){ i % 2 * 320, i / 2 * 240, 320, 240 },
                  colours[i]);
    fake_mode(&desk->fake, 640, 480);
    fake_state(&desk->fake, STATE_RUNNING, 2, 0, "");
    g_assert_true(pixel_becomes(desk, 100, STRIP_POINTS + 100, RED));
}

/* --- the tests
 * ------------------------------------------------------------------------------------ */

static void picture(void)
{
    struct desk desk;
    int width, height;
    desk_start(&desk);
    window_size(&desk, &width, &height); /* before the machine said anything: a text screen */
    g_assert_cmpint(width, ==, 720);
    g_assert_cmpint(height, ==, 540 + STRIP_POINTS);

    show_fields(&desk);
    window_size(&desk, &width, &height);
    g_assert_cmpint(width, ==, 640);
    g_assert_cmpint(height, ==, 480 + STRIP_POINTS);
    g_assert_true(pixel_becomes(&desk, 639, STRIP_POINTS, GREEN));
    g_assert_true(pixel_becomes(&desk, 0, STRIP_POINTS + 479, BLUE));
    g_assert_true(pixel_becomes(&desk, 639, STRIP_POINTS + 479, WHITE));
    shot(&desk, "picture");

    /* What is not told as damaged is not taken: only the damaged part changes. */
    fake_fill(&desk.fake, (struct rectangle){ 0, 0, 200, 200 }, 0x123456);
    fake_damage(&desk.fake, (struct rectangle){ 50, 60, 70, 80 });
    g_assert_true(pixel_becomes(&desk, 50, STRIP_POINTS + 60, 0x123456));
    g_assert_true(pixel_becomes(&desk, 119, STRIP_POINTS + 139, 0x123456));
    g_assert_cmphex(pixel(&desk, 49, STRIP_POINTS + 60), ==, RED);
    g_assert_cmphex(pixel(&desk, 120, STRIP_POINTS + 139), ==, RED);

    /* A text mode fills the same 4:3. */
    desk.fake.width = 720;
    fake_fill(&desk.fake, (struct rectangle){ 0, 0, 720, 400 }, BLUE);
    fake_fill(&desk.fake, (struct rectangle){ 0, 390, 720, 10 }, WHITE);
    fake_mode(&desk.fake, 720, 400);
    g_assert_true(pixel_becomes(&desk, 719, STRIP_POINTS + 539, WHITE));
    g_assert_true(pixel_becomes(&desk, 719, STRIP_POINTS + 500, BLUE));

    /* A user's size stays: the picture keeps its shape in it. */
    act(&desk, "search --onlyvisible --name demo windowsize 900 430");
    g_assert_true(pixel_becomes(&desk, 450, STRIP_POINTS + 399, WHITE));
    g_assert_true(pixel_becomes(&desk, 182, STRIP_POINTS + 200, 0x000000));
    g_assert_true(pixel_becomes(&desk, 183, STRIP_POINTS + 200, BLUE));

    fake_state(&desk.fake, STATE_OFF, 0, 0, "");
    g_assert_cmpint(wait_viewer(&desk), ==, 0);
    desk_finish(&desk);
}

static void keys(void)
{
    struct desk desk;
    desk_start(&desk);
    show_fields(&desk);
    act(&desk, "mousemove --sync 600 500");

    act(&desk, "key a");
    g_assert_true(fake_expect(&desk.fake, DISPLAY_KEY, KEY_A));
    g_assert_cmpuint(desk.fake.last.b, ==, 1);
    g_assert_true(fake_expect(&desk.fake, DISPLAY_KEY, KEY_A));
    g_assert_cmpuint(desk.fake.last.b, ==, 0);
    static const struct {
        const char *name;
        uint8_t usage;
    } some[] = { { "Pause", KEY_PAUSE },
                 { "Print", KEY_PRINT },
                 { "F12", 0x45 },
                 { "KP_Enter", 0x58 },
                 { "Super_L", KEY_LEFT_META },
                 { "XF86AudioMute", 0x7f },
                 { "Delete", KEY_DELETE },
                 { "ISO_Level3_Shift", KEY_RIGHT_ALT } };
    for (size_t i = 0; i < G_N_ELEMENTS(some); i++) {
        g_autofree char *arguments = g_strdup_printf("key %s", some[i].name);
        act(&desk, arguments);
        g_assert_true(fake_expect(&desk.fake, DISPLAY_KEY, some[i].usage));
        g_assert_true(fake_expect(&desk.fake, DISPLAY_KEY, some[i].usage));
        g_assert_cmpuint(desk.fake.last.b, ==, 0);
    }

    /* The host key and what is pressed with it stay here. */
    host(&desk, "c");
    g_assert_true(fake_expect(&desk.fake, DISPLAY_KEY, KEY_LEFT_CTRL));
    g_assert_true(fake_expect(&desk.fake, DISPLAY_KEY, KEY_LEFT_ALT));
    g_assert_true(fake_expect(&desk.fake, DISPLAY_KEY, KEY_DELETE));
    g_assert_true(fake_expect(&desk.fake, DISPLAY_KEY, KEY_DELETE));
    g_assert_true(fake_expect(&desk.fake, DISPLAY_KEY, KEY_LEFT_ALT));
    g_assert_true(fake_expect(&desk.fake, DISPLAY_KEY, KEY_LEFT_CTRL));
    g_assert_cmpuint(desk.fake.last.b, ==, 0);
    g_assert_true(fake_quiet(&desk.fake, 200));

    host(&desk, "p");
    g_assert_true(fake_expect(&desk.fake, DISPLAY_ACTION, ACTION_PAUSE));
    fake_state(&desk.fake, STATE_PAUSED, 0, 0, "");
    g_assert_true(pixel_changes(&desk, 100, STRIP_POINTS + 100, RED)); /* dimmed */
    shot(&desk, "paused");
    host(&desk, "p");
    g_assert_true(fake_expect(&desk.fake, DISPLAY_ACTION, ACTION_RESUME));
    fake_state(&desk.fake, STATE_RUNNING, 0, 0, "");
    g_assert_true(pixel_becomes(&desk, 100, STRIP_POINTS + 100, RED));

    /* A key held while the focus goes is released. */
    act(&desk, "search --onlyvisible --name demo windowfocus --sync");
    act(&desk, "keydown b");
    g_assert_true(fake_expect(&desk.fake, DISPLAY_KEY, KEY_B));
    act(&desk, "windowfocus 0");
    do
        g_assert_true(fake_expect(&desk.fake, DISPLAY_KEY, KEY_B));
    while (desk.fake.last.b);
    act(&desk, "keyup b");
    kill(desk.viewer, SIGTERM);
    g_assert_cmpint(wait_viewer(&desk), ==, 0);
    desk_finish(&desk);
}

static void mouse(void)
{
    struct desk desk;
    desk_start(&desk);
    show_fields(&desk);
    act(&desk, "mousemove --sync 600 500");
    act(&desk, "mousemove_relative --sync 5 5");
    g_assert_true(fake_quiet(&desk.fake, 200)); /* not grabbed */
    act(&desk, "click 1");
    g_assert_true(fake_quiet(&desk.fake, 300)); /* the click that grabs is not the guest's */
    shot(&desk, "grabbed");

    act(&desk, "mousemove_relative -- 7 -3");
    int dx = 0, dy = 0;
    while (dx != 7 || dy != -3) {
        g_assert_false(fake_quiet(&desk.fake, 3000));
        g_assert_cmpuint(desk.fake.last.kind, ==, DISPLAY_POINTER);
        dx += (int)desk.fake.last.a;
        dy += (int)desk.fake.last.b;
    }
    act(&desk, "click 3");
    g_assert_false(fake_quiet(&desk.fake, 3000));
    g_assert_cmpuint(desk.fake.last.d, ==, 2);
    g_assert_false(fake_quiet(&desk.fake, 3000));
    g_assert_cmpuint(desk.fake.last.d, ==, 0);
    act(&desk, "click 4");
    g_assert_false(fake_quiet(&desk.fake, 3000));
    g_assert_cmpint((int)desk.fake.last.c, ==, 1);

    act(&desk, "key 105"); /* the host key alone frees it */
    g_usleep(200 * 1000);
    act(&desk, "mousemove_relative --sync 5 5");
    g_assert_true(fake_quiet(&desk.fake, 300));
    desk_finish(&desk);
}

/* A guest that takes positions: the host's pointer is the guest's, and nothing is grabbed. */
static void positions(void)
{
    struct desk desk;
    desk_start(&desk);
    show_fields(&desk);
    const struct display_message absolute = { .kind = DISPLAY_STATE, .d = DISPLAY_ABSOLUTE };
    fake_send(&desk.fake, &absolute);
    g_usleep(300 * 1000);
    act(&desk, "mousemove --sync 600 500");
    g_assert_true(fake_quiet(&desk.fake, 0) || desk.fake.last.kind == DISPLAY_POINTER_AT);
    while (!fake_quiet(&desk.fake, 300))
        g_assert_cmpuint(desk.fake.last.kind, ==, DISPLAY_POINTER_AT);
    uint32_t x = desk.fake.last.a, y = desk.fake.last.b;
    g_assert_cmpuint(x, >, 0);
    g_assert_cmpuint(x, <, POINTER_RANGE);
    act(&desk, "mousemove_relative --sync 100 50");
    while (!fake_quiet(&desk.fake, 300))
        g_assert_cmpuint(desk.fake.last.kind, ==, DISPLAY_POINTER_AT);
    g_assert_cmpuint(desk.fake.last.a, >, x + 1000);
    g_assert_cmpuint(desk.fake.last.b, >, y + 500);
    x = desk.fake.last.a;

    act(&desk, "mousedown 1");
    g_assert_false(fake_quiet(&desk.fake, 3000));
    g_assert_cmpuint(desk.fake.last.kind, ==, DISPLAY_POINTER_AT);
    g_assert_cmpuint(desk.fake.last.d, ==, BUTTON_LEFT);
    g_assert_cmpuint(desk.fake.last.a, ==, x);
    act(&desk, "mousemove_relative --sync -- -50 0"); /* not grabbed: it moves as it is told */
    g_assert_false(fake_quiet(&desk.fake, 3000));
    g_assert_cmpuint(desk.fake.last.d, ==, BUTTON_LEFT);
    g_assert_cmpuint(desk.fake.last.a, <, x);
    act(&desk, "mouseup 1");
    while (!fake_quiet(&desk.fake, 300))
        continue;
    g_assert_cmpuint(desk.fake.last.d, ==, 0);
    act(&desk, "click 5");
    g_assert_false(fake_quiet(&desk.fake, 3000));
    g_assert_cmpuint(desk.fake.last.kind, ==, DISPLAY_POINTER_AT);
    g_assert_cmpint((int)desk.fake.last.c, ==, -1);

    const struct display_message relative = { .kind = DISPLAY_STATE };
    fake_send(&desk.fake, &relative); /* its driver is gone: as before */
    g_usleep(300 * 1000);
    act(&desk, "mousemove_relative --sync 5 5");
    g_assert_true(fake_quiet(&desk.fake, 300));
    desk_finish(&desk);
}

static void overlays(void)
{
    struct desk desk;
    desk_start(&desk);
    show_fields(&desk);
    act(&desk, "mousemove --sync 600 500");

    host(&desk, "h");
    g_assert_true(pixel_changes(&desk, 10, STRIP_POINTS + 10, RED));
    shot(&desk, "help");
    act(&desk, "key Escape"); /* for the help, not for the guest */
    g_assert_true(pixel_becomes(&desk, 10, STRIP_POINTS + 10, RED));
    g_assert_true(fake_quiet(&desk.fake, 200));

    for (unsigned menu = 0; menu < 3; menu++) {
        static const char *const names[] = { "menu-machine", "menu-keys", "menu-view" };
        host(&desk, "m");
        for (unsigned i = 0; i < menu; i++)
            act(&desk, "key Right");
        act(&desk, "key Down");
        act(&desk, "key Down");
        shot(&desk, names[menu]);
        act(&desk, "key Escape");
    }
    host(&desk, "m");
    act(&desk, "key Down");
    act(&desk, "key Return");
    g_assert_true(fake_expect(&desk.fake, DISPLAY_ACTION, ACTION_PAUSE));

    /* Reset asks first, and Cancel cancels. */
    host(&desk, "r");
    g_assert_true(pixel_changes(&desk, 10, STRIP_POINTS + 10, RED));
    act(&desk, "key Escape");
    g_assert_true(pixel_becomes(&desk, 10, STRIP_POINTS + 10, RED));
    host(&desk, "r");
    act(&desk, "key Return");
    g_assert_true(fake_expect(&desk.fake, DISPLAY_ACTION, ACTION_RESET));

    /* Closing asks: power off by the second button. */
    host(&desk, "q");
    g_assert_true(pixel_changes(&desk, 10, STRIP_POINTS + 10, RED));
    shot(&desk, "close");
    act(&desk, "key Down");
    act(&desk, "key Return");
    g_assert_true(fake_expect(&desk.fake, DISPLAY_ACTION, ACTION_POWER_OFF));

    /* The screenshot lands in Pictures. */
    host(&desk, "s");
    g_autofree char *pictures = g_build_filename(desk.directory, "Pictures", NULL);
    const char *file = NULL;
    for (unsigned attempt = 0; attempt < 50 && !file; attempt++) {
        g_autoptr(GDir) dir = g_dir_open(pictures, 0, NULL);
        file = dir ? g_intern_string(g_dir_read_name(dir)) : NULL;
        g_usleep(50 * 1000);
    }
    g_assert_nonnull(file);
    g_assert_true(g_str_has_prefix(file, "demo-") && g_str_has_suffix(file, ".png"));
    shot(&desk, "message");

    /* Keep running in the background: the window goes, the machine hears nothing of it. */
    host(&desk, "q");
    act(&desk, "key Down");
    act(&desk, "key Down");
    act(&desk, "key Return");
    g_assert_cmpint(wait_viewer(&desk), ==, 0);
    desk_finish(&desk);
}

/* A click on a point of the window. */
static void click(struct desk *desk, int x, int y)
{
    g_autofree char *arguments =
        g_strdup_printf("mousemove --sync %d %d click 1", desk->x + x, desk->y + y);
    act(desk, arguments);
}

static void comforts(void)
{
    struct desk desk;
    desk_start(&desk);
    show_fields(&desk);

    /* The menus with the mouse; the guest hears nothing of the clicks. */
    click(&desk, 30, 10);
    click(&desk, 60, STRIP_POINTS + 17);
    g_assert_true(fake_expect(&desk.fake, DISPLAY_ACTION, ACTION_PAUSE));
    click(&desk, 30, 10);
    click(&desk, 500, 300); /* beside the menu: closes it and is no grab */
    act(&desk, "mousemove_relative --sync 5 5");
    g_assert_true(fake_quiet(&desk.fake, 200));

    /* The disk's lamp goes out by itself. */
    fake_state(&desk.fake, STATE_RUNNING, 0, 1, "");
    shot(&desk, "disk");

    /* The clipboard, in pieces. */
    g_autofree char *xclip = g_find_program_in_path("xclip");
    if (xclip) {
        g_autofree char *line = g_strdup_printf(
            "sh -c \"printf '%%0300d' 7 | env DISPLAY=%s xclip -selection clipboard\"",
            desk.display);
        g_assert_true(g_spawn_command_line_sync(line, NULL, NULL, NULL, NULL));
        host(&desk, "v");
        g_assert_true(fake_expect(&desk.fake, DISPLAY_PASTE, 200));
        g_assert_true(fake_expect(&desk.fake, DISPLAY_PASTE, 100));
        g_assert_cmpint(desk.fake.last.text[99], ==, '7');
    }
    desk_finish(&desk);
}

/* A row of the letters H and A of the VGA's font, at a character cell. */
static void draw_letters(struct fake_machine *fake, const char *letters, uint32_t column,
                         uint32_t row)
{
    static const uint8_t font[2][16] = {
        { 0, 0, 0x10, 0x38, 0x6c, 0xc6, 0xc6, 0xfe, 0xc6, 0xc6, 0xc6, 0xc6 },
        { 0, 0, 0xc6, 0xc6, 0xc6, 0xc6, 0xfe, 0xc6, 0xc6, 0xc6, 0xc6, 0xc6 },
    };
    for (; *letters; letters++, column++) {
        for (uint32_t i = 0; i < 16 * 8 && *letters != ' '; i++) {
            uint32_t x = column * 8 + i % 8, y = row * 16 + i / 8;
            bool ink = font[*letters == 'H'][i / 8] >> (7 - i % 8) & 1;
            fake->pixels[y * fake->width + x] = ink ? 0xaaaaaa : 0;
        }
    }
}

/* The drag with the host key held copies text, and the guest hears nothing of it. */
static void selecting(void)
{
    g_autofree char *xclip = g_find_program_in_path("xclip");
    if (!xclip) {
        g_test_skip("needs the clipboard (package xclip)");
        return;
    }
    struct desk desk;
    desk_start(&desk);
    show_fields(&desk);
    struct rectangle all = { 0, 0, 640, 480 };
    fake_fill(&desk.fake, all, 0);
    draw_letters(&desk.fake, "AHAH HAHA", 2, 1);
    draw_letters(&desk.fake, "HHH AAA", 0, 2);
    fake_damage(&desk.fake, all);
    g_assert_true(pixel_becomes(&desk, 2, STRIP_POINTS + 200, 0));

    g_autofree char *from = g_strdup_printf(
        "keydown 105 mousemove --sync %d %d mousedown 1 mousemove --sync %d %d", desk.x + 7 * 8 + 2,
        desk.y + STRIP_POINTS + 20, desk.x + 2 * 8 + 5, desk.y + STRIP_POINTS + 40);
    act(&desk, from);
    g_assert_true(pixel_changes(&desk, 400, STRIP_POINTS + 24, 0)); /* to the end of the line */
    shot(&desk, "selection");
    act(&desk, "mouseup 1 keyup 105");
    g_assert_true(pixel_becomes(&desk, 400, STRIP_POINTS + 24, 0));
    g_assert_true(fake_quiet(&desk.fake, 200));

    g_autofree char *line =
        g_strdup_printf("env DISPLAY=%s xclip -selection clipboard -o", desk.display);
    g_autofree char *copied = NULL;
    g_assert_true(g_spawn_command_line_sync(line, &copied, NULL, NULL, NULL));
    g_assert_cmpstr(copied, ==, "HAHA\nHHH");
    desk_finish(&desk);
}

/* What takes a window manager: full screen, and the question before closing. */
static void managed(void)
{
    g_autofree char *manager = g_find_program_in_path("openbox");
    if (!manager) {
        g_test_skip("needs a window manager (package openbox)");
        return;
    }
    struct desk desk;
    desk_prepare(&desk);
    GPid openbox = start_program(&desk, (char *[]){ manager, NULL });
    g_usleep(500 * 1000);
    start_viewer(&desk);
    find_window(&desk);
    show_fields(&desk);
    act(&desk, "search --onlyvisible --name demo windowfocus --sync");

    host(&desk, "f"); /* no strip, the whole width, the picture's shape */
    for (unsigned attempt = 0; attempt < 50 && desk.x != 0; attempt++) {
        g_usleep(100 * 1000);
        find_window(&desk);
    }
    g_assert_true(pixel_becomes(&desk, 1, (1024 - 960) / 2 + 1, RED));
    g_assert_true(pixel_becomes(&desk, 1278, (1024 + 960) / 2 - 2, WHITE));
    g_assert_cmphex(pixel(&desk, 600, 20), ==, 0);
    shot(&desk, "full");
    act(&desk, "mousemove --sync 600 0"); /* the top edge brings the strip */
    g_assert_true(pixel_changes(&desk, 600, 20, 0));
    shot(&desk, "full-strip");
    act(&desk, "mousemove --sync 600 500");
    g_assert_true(pixel_becomes(&desk, 600, 20, 0));
    host(&desk, "f");
    for (unsigned attempt = 0; attempt < 50 && desk.x == 0; attempt++) {
        g_usleep(100 * 1000);
        find_window(&desk);
    }
    g_assert_true(pixel_becomes(&desk, 1, STRIP_POINTS + 1, RED));
    int width, height;
    window_size(&desk, &width, &height);
    g_assert_cmpint(width, ==, 640);
    g_assert_cmpint(height, ==, 480 + STRIP_POINTS);
    shot(&desk, "managed");

    act(&desk, "key alt+F4"); /* the window manager's: close */
    g_assert_true(pixel_changes(&desk, 10, STRIP_POINTS + 10, RED));
    act(&desk, "key Return");
    g_assert_true(fake_expect(&desk.fake, DISPLAY_ACTION, ACTION_SHUT_DOWN));
    g_assert_true(pixel_becomes(&desk, 10, STRIP_POINTS + 10, RED)); /* it waits for the guest */
    fake_state(&desk.fake, STATE_OFF, 0, 0, "");
    g_assert_cmpint(wait_viewer(&desk), ==, 0);
    kill(openbox, SIGTERM);
    waitpid(openbox, NULL, 0);
    desk_finish(&desk);
}

static void endings(void)
{
    struct desk desk;
    desk_start(&desk);
    show_fields(&desk);
    act(&desk, "mousemove --sync 600 500");
    fake_state(&desk.fake, STATE_CRASHED, 0, 0, "triple fault at cs:ip f000:fff0");
    close(desk.fake.socket);
    desk.fake.socket = -1;
    g_assert_true(pixel_changes(&desk, 10, STRIP_POINTS + 10, RED));
    shot(&desk, "crashed");
    host(&desk, "q"); /* no question: nothing is left to keep */
    g_assert_cmpint(wait_viewer(&desk), ==, 7);
    desk_finish(&desk);

    desk_start(&desk); /* a machine that breaks the protocol */
    show_fields(&desk);
    act(&desk, "mousemove --sync 600 500");
    fake_send(&desk.fake, &(struct display_message){ .kind = DISPLAY_MODE, .a = 5000, .b = 5000 });
    g_assert_true(pixel_changes(&desk, 10, STRIP_POINTS + 10, RED));
    shot(&desk, "broken");
    host(&desk, "q");
    g_assert_cmpint(wait_viewer(&desk), ==, 1);
    desk_finish(&desk);

    desk_start(&desk); /* the display server dies */
    show_fields(&desk);
    kill(desk.server, SIGKILL);
    waitpid(desk.server, NULL, 0);
    desk.server = 0;
    g_assert_cmpint(wait_viewer(&desk), ==, 1);
    desk_finish(&desk);
}

/* A still picture: how often the window's process wakes up. */
static unsigned long switches(GPid pid)
{
    unsigned long total = 0;
    g_autofree char *tasks = g_strdup_printf("/proc/%d/task", pid);
    g_autoptr(GDir) dir = g_dir_open(tasks, 0, NULL);
    const char *task;
    while ((task = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(tasks, task, "status", NULL);
        g_autofree char *text = NULL;
        g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
        total += strtoul(strstr(text, "\nvoluntary_ctxt_switches:") + 25, NULL, 10);
    }
    return total;
}

static void idle(void)
{
    struct desk desk;
    desk_start(&desk);
    show_fields(&desk);
    g_usleep(1000 * 1000);
    unsigned long before = switches(desk.viewer);
    g_usleep(4000 * 1000);
    unsigned long wakeups = switches(desk.viewer) - before;
    g_test_message("%lu wake-ups in 4 s", wakeups);
    g_assert_cmpuint(wakeups, <=, 8);
    kill(desk.viewer, SIGTERM);
    g_assert_cmpint(wait_viewer(&desk), ==, 0);
    desk_finish(&desk);
}

/* With DISPLAY as given (NULL: unset), the viewer says how to do without. */
static void refuse_display(const char *display)
{
    struct fake_machine fake;
    fake_start(&fake);
    g_autofree char *fd = g_strdup_printf("%d", fake.window);
    char *argv[] = { (char *)view_program, "--fd", fd, NULL };
    g_auto(GStrv) environment = g_get_environ();
    environment = g_environ_unsetenv(environment, "DISPLAY");
    environment = g_environ_unsetenv(environment, "WAYLAND_DISPLAY");
    environment = g_environ_unsetenv(environment, "SDL_VIDEODRIVER");
    environment = g_environ_setenv(environment, "ASAN_OPTIONS", "detect_leaks=0", TRUE);
    if (display)
        environment = g_environ_setenv(environment, "DISPLAY", display, TRUE);
    g_autofree char *text = NULL;
    int status = 0;
    g_assert_true(g_spawn_sync(NULL, argv, environment, G_SPAWN_LEAVE_DESCRIPTORS_OPEN, NULL, NULL,
                               NULL, &text, &status, NULL));
    g_assert_cmpint(WEXITSTATUS(status), ==, 6);
    g_assert_nonnull(strstr(text, "no display"));
    g_assert_nonnull(strstr(text, "--headless"));
    close(fake.window);
    fake_finish(&fake);
}

static void no_display(void)
{
    refuse_display(NULL);
    refuse_display(":9999"); /* nobody there */
}

static void lacking(void)
{
    g_test_skip("needs Xvfb and xdotool (packages xvfb and xdotool)");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_cmpint(argc, ==, 2);
    view_program = argv[1];
    g_test_add_func("/window/no-display", no_display);
    g_autofree char *server = g_find_program_in_path("Xvfb");
    g_autofree char *hands = g_find_program_in_path("xdotool");
    if (!server || !hands) {
        g_test_add_func("/window/on-screen", lacking);
        return g_test_run();
    }
    g_test_add_func("/window/picture", picture);
    g_test_add_func("/window/keys", keys);
    g_test_add_func("/window/mouse", mouse);
    g_test_add_func("/window/positions", positions);
    g_test_add_func("/window/overlays", overlays);
    g_test_add_func("/window/comforts", comforts);
    g_test_add_func("/window/selecting", selecting);
    g_test_add_func("/window/managed", managed);
    g_test_add_func("/window/endings", endings);
    g_test_add_func("/window/idle", idle);
    return g_test_run();
}
