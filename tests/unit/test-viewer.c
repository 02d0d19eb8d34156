/* hv-view without a window: sizes, keys, and a machine that is not to be trusted. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fds.h"
#include "ui/connection.h"
#include "ui/geometry.h"
#include "ui/keyboard.h"

/* --- sizes ----------------------------------------------------------------------------------- */

static void assert_box(struct box box, int x, int y, int width, int height)
{
    g_assert_cmpint(box.x, ==, x);
    g_assert_cmpint(box.y, ==, y);
    g_assert_cmpint(box.width, ==, width);
    g_assert_cmpint(box.height, ==, height);
}

static void aspect(void)
{
    assert_box(geometry_shown(720, 400), 0, 0, 720, 540); /* text */
    assert_box(geometry_shown(320, 200), 0, 0, 320, 240); /* mode 13h */
    assert_box(geometry_shown(640, 350), 0, 0, 640, 480); /* EGA */
    assert_box(geometry_shown(360, 480), 0, 0, 640, 480); /* mode X */
    assert_box(geometry_shown(640, 480), 0, 0, 640, 480);
    assert_box(geometry_shown(1280, 1024), 0, 0, 1280, 1024); /* square pixels, not 4:3 */
    assert_box(geometry_shown(1920, 1080), 0, 0, 1920, 1080);
}

static void placing(void)
{
    struct box room = { 0, 30, 1600, 1000 };
    assert_box(geometry_place(800, 600, SCALING_FIT, room), 133, 30, 1333, 1000);
    assert_box(geometry_place(640, 480, SCALING_INTEGER, room), 160, 50, 1280, 960);
    assert_box(geometry_place(640, 480, SCALING_ONE_TO_ONE, room), 480, 290, 640, 480);
    /* too large: fitted, never cut */
    assert_box(geometry_place(3200, 1000, SCALING_INTEGER, room), 0, 280, 1600, 500);
    assert_box(geometry_place(3200, 1000, SCALING_ONE_TO_ONE, room), 0, 280, 1600, 500);
    struct box none = { 0, 30, 1, 1 };
    struct box place = geometry_place(4096, 1, SCALING_FIT, none);
    g_assert_cmpint(place.width, >=, 1);
    g_assert_cmpint(place.height, >=, 1);
}

static void positions(void)
{
    g_assert_cmpuint(geometry_scale(133, 133, 1333, 32767), ==, 0);
    g_assert_cmpuint(geometry_scale(133 + 1332, 133, 1333, 32767), ==, 32767);
    g_assert_cmpuint(geometry_scale(133 + 666, 133, 1333, 32767), ==, 16384);
    g_assert_cmpuint(geometry_scale(-1000, 133, 1333, 32767), ==, 0);
    g_assert_cmpuint(geometry_scale(5000, 133, 1333, 32767), ==, 32767);
    g_assert_cmpuint(geometry_scale(5, 5, 1, 32767), ==, 0);
    g_assert_cmpuint(geometry_scale(INT32_MAX, INT32_MIN, INT32_MAX, 32767), ==, 32767);
}

static void natural(void)
{
    struct box most = { 0, 0, 1900, 1000 };
    assert_box(geometry_natural(720, 400, SCALING_FIT, most), 0, 0, 720, 540);
    assert_box(geometry_natural(320, 200, SCALING_FIT, most), 0, 0, 640, 480);
    assert_box(geometry_natural(720, 400, SCALING_INTEGER, most), 0, 0, 720, 400);
    assert_box(geometry_natural(320, 200, SCALING_ONE_TO_ONE, most), 0, 0, 320, 200);
    assert_box(geometry_natural(3840, 2160, SCALING_FIT, most), 0, 0, 1777, 1000);
    for (uint32_t w = 1; w <= 4096; w += 45) {
        for (uint32_t h = 1; h <= 2160; h += 127) {
            struct box size = geometry_natural(w, h, SCALING_FIT, most);
            g_assert_true(size.width >= 1 && size.width <= most.width);
            g_assert_true(size.height >= 1 && size.height <= most.height);
        }
    }
}

/* --- keys ------------------------------------------------------------------------------------ */

static void assert_key(struct keyboard *keyboard, uint32_t scancode, enum keyboard_change change,
                       enum keyboard_verdict verdict)
{
    uint8_t usage;
    g_assert_cmpint(keyboard_event(keyboard, scancode, change, &usage), ==, verdict);
}

static void key_codes(void)
{
    struct keyboard keyboard = { .host_key = KEY_RIGHT_CTRL };
    uint8_t usage;
    for (uint32_t code = KEY_A; code <= KEY_RIGHT_META; code++) {
        if (code == KEY_RIGHT_CTRL)
            continue;
        g_assert_cmpint(keyboard_event(&keyboard, code, KEYBOARD_DOWN, &usage), ==, KEYBOARD_GUEST);
        g_assert_cmpuint(usage, ==, code);
    }
    assert_key(&keyboard, 0, KEYBOARD_DOWN, KEYBOARD_NOTHING);
    assert_key(&keyboard, 3, KEYBOARD_DOWN, KEYBOARD_NOTHING);
    assert_key(&keyboard, 500, KEYBOARD_DOWN, KEYBOARD_NOTHING);
    assert_key(&keyboard, UINT32_MAX, KEYBOARD_DOWN, KEYBOARD_NOTHING);
    g_assert_cmpint(keyboard_event(&keyboard, 261, KEYBOARD_DOWN, &usage), ==, KEYBOARD_GUEST);
    g_assert_cmphex(usage, ==, 0xe8); /* play */
}

static void host_key(void)
{
    struct keyboard keyboard = { .host_key = KEY_RIGHT_CTRL };
    assert_key(&keyboard, KEY_RIGHT_CTRL, KEYBOARD_DOWN, KEYBOARD_NOTHING);
    assert_key(&keyboard, KEY_RIGHT_CTRL, KEYBOARD_REPEAT, KEYBOARD_NOTHING);
    assert_key(&keyboard, KEY_RIGHT_CTRL, KEYBOARD_UP, KEYBOARD_TAPPED);

    assert_key(&keyboard, KEY_RIGHT_CTRL, KEYBOARD_DOWN, KEYBOARD_NOTHING);
    assert_key(&keyboard, KEY_F, KEYBOARD_DOWN, KEYBOARD_COMMAND);
    assert_key(&keyboard, KEY_F, KEYBOARD_REPEAT, KEYBOARD_NOTHING); /* once */
    assert_key(&keyboard, KEY_RIGHT_CTRL, KEYBOARD_UP, KEYBOARD_NOTHING);
    assert_key(&keyboard, KEY_F, KEYBOARD_UP, KEYBOARD_NOTHING);

    /* Pressed before the host key: its release is the guest's. */
    assert_key(&keyboard, KEY_A, KEYBOARD_DOWN, KEYBOARD_GUEST);
    assert_key(&keyboard, KEY_A, KEYBOARD_REPEAT, KEYBOARD_GUEST);
    assert_key(&keyboard, KEY_RIGHT_CTRL, KEYBOARD_DOWN, KEYBOARD_NOTHING);
    assert_key(&keyboard, KEY_A, KEYBOARD_UP, KEYBOARD_GUEST);

    g_autoptr(GError) error = NULL;
    g_assert_true(keyboard_host_key(&keyboard, "right-alt", NULL));
    g_assert_cmpstr(keyboard_host_name(&keyboard), ==, "Right Alt");
    g_assert_false(keyboard_host_key(&keyboard, "left", &error));
    g_assert_cmpint(hv_exit_status(error), ==, HV_USAGE);
    g_assert_nonnull(strstr(error->message, "right-ctrl, left-ctrl"));
}

static void note(void *data, uint8_t usage)
{
    g_string_append_printf(data, " %x", usage);
}

static void release(void)
{
    struct keyboard keyboard = { .host_key = KEY_RIGHT_CTRL };
    g_autoptr(GString) released = g_string_new("");
    assert_key(&keyboard, KEY_LEFT_ALT, KEYBOARD_DOWN, KEYBOARD_GUEST);
    assert_key(&keyboard, KEY_TAB, KEYBOARD_DOWN, KEYBOARD_GUEST);
    assert_key(&keyboard, KEY_RIGHT_CTRL, KEYBOARD_DOWN, KEYBOARD_NOTHING);
    keyboard_release(&keyboard, note, released);
    g_assert_cmpstr(released->str, ==, " 2b e2");
    keyboard_release(&keyboard, note, released);
    g_assert_cmpstr(released->str, ==, " 2b e2");
    assert_key(&keyboard, KEY_TAB, KEYBOARD_UP, KEYBOARD_NOTHING);
    assert_key(&keyboard, KEY_TAB, KEYBOARD_REPEAT, KEYBOARD_NOTHING);
    assert_key(&keyboard, KEY_F, KEYBOARD_DOWN, KEYBOARD_GUEST); /* the host key was let go too */
}

/* --- the protocol ---------------------------------------------------------------------------- */

static bool take(struct model *model, struct display_message message)
{
    return protocol_take(model, &message, sizeof message, message.kind == DISPLAY_HELLO, 1 << 21,
                         NULL);
}

static struct model greeted(void)
{
    struct model model = { 0 };
    g_assert_true(take(&model, (struct display_message){
                                   .kind = DISPLAY_HELLO, .a = 640 * 480 * 4, .text = "demo" }));
    return model;
}

static void protocol(void)
{
    struct model model = greeted();
    g_assert_cmpstr(model.name, ==, "demo");
    g_assert_true(take(&model, (struct display_message){ DISPLAY_MODE, 640, 480, 0, 0, "" }));
    g_assert_true(model.changed_mode);
    g_assert_cmpuint(model.damage.width, ==, 640);

    model.damage = (struct rectangle){ 0 };
    g_assert_true(take(&model, (struct display_message){ DISPLAY_DAMAGE, 10, 20, 5, 5, "" }));
    g_assert_true(take(&model, (struct display_message){ DISPLAY_DAMAGE, 100, 10, 1, 1, "" }));
    g_assert_cmpuint(model.damage.x, ==, 10);
    g_assert_cmpuint(model.damage.y, ==, 10);
    g_assert_cmpuint(model.damage.width, ==, 91);
    g_assert_cmpuint(model.damage.height, ==, 15);

    g_assert_true(take(
        &model, (struct display_message){ DISPLAY_STATE, STATE_DISK_FULL, 5, 9, 1, "disk full" }));
    g_assert_cmpint(model.state, ==, STATE_DISK_FULL);
    g_assert_true(model.pasting);
    g_assert_false(model.absolute);
    g_assert_cmpstr(model.reason, ==, "disk full");
    g_assert_true(take(&model, (struct display_message){ .kind = 77 })); /* a newer machine's */
}

static void hostile_protocol(void)
{
    struct model fresh = { 0 }, model;
    struct display_message hello = { .kind = DISPLAY_HELLO, .a = 100 };
    g_autoptr(GError) error = NULL;
    /* before the greeting, and wrong greetings */
    g_assert_false(take(&fresh, (struct display_message){ DISPLAY_MODE, 1, 1, 0, 0, "" }));
    g_assert_false(protocol_take(&fresh, &hello, sizeof hello, 0, 0, NULL));
    g_assert_false(protocol_take(&fresh, &hello, sizeof hello, 1, 99, NULL));
    g_assert_false(protocol_take(&fresh, &hello, sizeof hello - 1, 1, 100, &error));
    g_assert_nonnull(strstr(error->message, "same version"));
    hello.b = 1; /* 4 GiB and 100 bytes */
    g_assert_false(protocol_take(&fresh, &hello, sizeof hello, 1, 100, NULL));
    hello.a = hello.b = 0;
    g_assert_false(protocol_take(&fresh, &hello, sizeof hello, 1, 100, NULL));
    g_assert_false(fresh.greeted);

    /* sizes outside the frame, also those whose product overflows */
    static const uint32_t modes[][2] = { { 641, 480 },      { 640, 481 },     { 0, 1 },
                                         { 1, 0 },          { 65536, 65536 }, { 0x80000000, 2 },
                                         { UINT32_MAX, 1 }, { 1, 100000 } };
    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        model = greeted();
        g_assert_false(take(
            &model, (struct display_message){ DISPLAY_MODE, modes[i][0], modes[i][1], 0, 0, "" }));
        g_assert_cmpuint(model.width, ==, 0);
    }
    model = greeted();
    g_assert_false(take(&model, (struct display_message){ .kind = DISPLAY_HELLO, .a = 100 }));
    g_assert_false(take(&model, (struct display_message){ .kind = DISPLAY_STATE, .a = 5 }));
    struct display_message plain = { .kind = DISPLAY_DAMAGE };
    g_assert_false(protocol_take(&model, &plain, sizeof plain, 1, 0, NULL)); /* a stray fd */

    /* whatever damage says, the joined rectangle is inside the mode */
    g_assert_true(take(&model, (struct display_message){ DISPLAY_MODE, 640, 400, 0, 0, "" }));
    g_autoptr(GRand) random = g_rand_new_with_seed(1);
    for (unsigned i = 0; i < 20000; i++) {
        uint32_t v[4];
        for (unsigned j = 0; j < 4; j++)
            v[j] = g_rand_boolean(random) ? g_rand_int(random)
                                          : (uint32_t)g_rand_int_range(random, 0, 700);
        if (i % 7 == 0)
            model.damage = (struct rectangle){ 0 };
        g_assert_true(
            take(&model, (struct display_message){ DISPLAY_DAMAGE, v[0], v[1], v[2], v[3], "" }));
        g_assert_cmpuint(model.damage.x + model.damage.width, <=, 640);
        g_assert_cmpuint(model.damage.y + model.damage.height, <=, 400);
    }
}

static void hostile_text(void)
{
    struct model model = greeted();
    struct display_message state = { .kind = DISPLAY_STATE };
    memset(state.text, 0xff, sizeof state.text); /* not ended, not UTF-8 */
    g_assert_true(take(&model, state));
    g_assert_true(g_utf8_validate(model.reason, -1, NULL));
    g_assert_cmpuint(strlen(model.reason), <=, DISPLAY_TEXT_MAX);
    memset(state.text, 'x', sizeof state.text);
    memcpy(state.text, "a\nb\033[2J", 7);
    g_assert_true(take(&model, state));
    g_assert_true(g_str_has_prefix(model.reason, "a b [2Jxxx"));
    g_assert_cmpuint(strlen(model.reason), ==, DISPLAY_TEXT_MAX);
}

static void text_pieces(void)
{
    g_autoptr(GString) text = g_string_new("");
    for (unsigned i = 0; i < 300; i++)
        g_string_append(text, i % 3 == 0 ? "a" : i % 3 == 1 ? "\u00e9" : "\U0001f600");
    g_autoptr(GString) joined = g_string_new("");
    for (size_t done = 0, piece; done < text->len; done += piece) {
        piece = protocol_text_piece(text->str + done, text->len - done);
        g_assert_cmpuint(piece, >, 0);
        g_assert_cmpuint(piece, <=, DISPLAY_TEXT_MAX);
        g_assert_true(g_utf8_validate(text->str + done, (gssize)piece, NULL));
        g_string_append_len(joined, text->str + done, (gssize)piece);
    }
    g_assert_cmpstr(joined->str, ==, text->str);
    char none[300];
    memset(none, 0x80, sizeof none);
    g_assert_cmpuint(protocol_text_piece(none, sizeof none), ==, DISPLAY_TEXT_MAX);
    g_assert_cmpuint(protocol_text_piece("", 0), ==, 0);
}

/* --- the connection -------------------------------------------------------------------------- */

struct news {
    GMutex lock;
    GCond came;
    bool waiting;
};

static void wake(void *data)
{
    struct news *news = data;
    g_mutex_lock(&news->lock);
    news->waiting = true;
    g_cond_signal(&news->came);
    g_mutex_unlock(&news->lock);
}

static void wait_news(struct news *news)
{
    int64_t end = g_get_monotonic_time() + 5 * G_USEC_PER_SEC;
    g_mutex_lock(&news->lock);
    while (!news->waiting)
        g_assert_true(g_cond_wait_until(&news->came, &news->lock, end));
    news->waiting = false;
    g_mutex_unlock(&news->lock);
}

static struct connection *connect_pair(struct news *news, int *machine)
{
    int ends[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), ==, 0);
    *machine = ends[1];
    *news = (struct news){ 0 };
    struct connection *connection = connection_new(ends[0], wake, news, NULL);
    g_assert_nonnull(connection);
    return connection;
}

static void send_hello(int machine, int seals)
{
    struct display_message hello = { .kind = DISPLAY_HELLO, .a = 4096 };
    int frame = memfd_create("frame", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    g_assert_cmpint(ftruncate(frame, 4096), ==, 0);
    g_assert_cmpint(pwrite(frame, "\x01\x02\x03\x04", 4, 0), ==, 4);
    g_assert_cmpint(fcntl(frame, F_ADD_SEALS, seals), ==, 0);
    g_assert_true(fds_send(machine, &hello, sizeof hello, &frame, 1, NULL));
    close(frame);
}

static void greeting(void)
{
    struct news news;
    struct update update;
    int machine;
    struct connection *connection = connect_pair(&news, &machine);
    send_hello(machine, F_SEAL_SHRINK);
    wait_news(&news);
    connection_take(connection, &update);
    g_assert_true(update.model.greeted);
    g_assert_cmphex(update.pixels[0], ==, 0x04030201);
    g_assert_false(update.gone);
    close(machine);
    wait_news(&news);
    connection_take(connection, &update);
    g_assert_true(update.gone);
    g_assert_null(update.complaint); /* it just ended */
    connection_free(connection);

    connection = connect_pair(&news, &machine); /* a frame that could shrink under us */
    send_hello(machine, F_SEAL_GROW);
    wait_news(&news);
    connection_take(connection, &update);
    g_assert_true(update.gone);
    g_assert_nonnull(strstr(update.complaint, "sealed"));
    g_assert_null(update.pixels);
    connection_free(connection);
    close(machine);
}

static struct display_message receive(int machine)
{
    struct display_message message = { 0 };
    g_assert_cmpint(recv(machine, &message, sizeof message, 0), ==, sizeof message);
    return message;
}

/* A machine that does not read is not waited for; nothing that matters is lost, in order. */
static void deaf_machine(void)
{
    enum { PRESSES = 20000 };
    struct news news;
    int machine;
    struct connection *connection = connect_pair(&news, &machine);
    struct display_message key = { .kind = DISPLAY_KEY, .b = 1 };
    for (key.a = 0; key.a < PRESSES; key.a++)
        connection_send(connection, &key);
    struct display_message motion = { .kind = DISPLAY_POINTER, .a = 1, .b = (uint32_t)-2 };
    for (unsigned i = 0; i < 1000; i++)
        connection_send(connection, &motion);
    key.b = 0;
    connection_send(connection, &key);
    motion.kind = DISPLAY_POINTER_AT;
    for (motion.a = 0; motion.a < 1000; motion.a++)
        connection_send(connection, &motion);

    uint32_t next = 0;
    struct display_message message;
    while ((message = receive(machine)).kind == DISPLAY_KEY) {
        g_assert_cmpuint(message.a, ==, next++);
        g_assert_cmpuint(message.b, ==, 1);
    }
    g_assert_cmpuint(next, <, PRESSES); /* the rest was dropped */
    g_assert_cmpuint(next, >, 4000);
    g_assert_cmpuint(message.a, ==, 1000); /* joined */
    g_assert_cmpint((int)message.b, ==, -2000);
    message = receive(machine);
    g_assert_cmpuint(message.kind, ==, DISPLAY_KEY);
    g_assert_cmpuint(message.b, ==, 0);
    message = receive(machine);
    g_assert_cmpuint(message.kind, ==, DISPLAY_POINTER_AT);
    g_assert_cmpuint(message.a, ==, 999); /* the last position */
    connection_free(connection);
    close(machine);
}

static void wrong_socket(void)
{
    struct news news = { 0 };
    int ends[2];
    g_autoptr(GError) error = NULL;
    g_assert_cmpint(pipe(ends), ==, 0);
    g_assert_null(connection_new(ends[0], wake, &news, &error));
    g_assert_cmpint(hv_exit_status(error), ==, HV_USAGE);
    close(ends[0]);
    close(ends[1]);
    g_clear_error(&error);
    g_assert_cmpint(connection_open("/nowhere/display", &error), ==, -1);
    g_assert_cmpint(hv_exit_status(error), ==, HV_NOT_FOUND);
    g_assert_nonnull(strstr(error->message, "hv list"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    connection_block_signals();
    g_test_add_func("/viewer/aspect", aspect);
    g_test_add_func("/viewer/placing", placing);
    g_test_add_func("/viewer/positions", positions);
    g_test_add_func("/viewer/natural-size", natural);
    g_test_add_func("/viewer/key-codes", key_codes);
    g_test_add_func("/viewer/host-key", host_key);
    g_test_add_func("/viewer/release", release);
    g_test_add_func("/viewer/protocol", protocol);
    g_test_add_func("/viewer/hostile-protocol", hostile_protocol);
    g_test_add_func("/viewer/hostile-text", hostile_text);
    g_test_add_func("/viewer/text-pieces", text_pieces);
    g_test_add_func("/viewer/greeting", greeting);
    g_test_add_func("/viewer/deaf-machine", deaf_machine);
    g_test_add_func("/viewer/wrong-socket", wrong_socket);
    return g_test_run();
}
