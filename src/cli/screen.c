/* hv screen: what a machine's screen shows, as text, as a picture, or awaited. */
#include "base/display-protocol.h"
#include "base/error.h"
#include "base/fds.h"
#include "cli/cli.h"

#include <errno.h>
#include <png.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* A viewer's end of the display socket. */
struct view {
    int fd;
    const uint32_t *frame;
    size_t frame_bytes;
    uint32_t width, height;
};

static bool view_open(struct view *view, const char *name, GError **error)
{
    struct display_message hello;
    int frame = -1;
    unsigned count = 0;
    *view = (struct view){ .fd = display_connect(name, error) };
    if (view->fd < 0)
        return false;
    if (fds_receive(view->fd, &hello, sizeof hello, &frame, 1, &count, NULL) != sizeof hello ||
        hello.kind != DISPLAY_HELLO || count != 1)
        return hv_fail(error, HV_FAILED, "%s: its display does not answer", name);
    view->frame_bytes = hello.a | (size_t)hello.b << 32;
    void *map = mmap(NULL, view->frame_bytes, PROT_READ, MAP_SHARED, frame, 0);
    close(frame);
    if (map == MAP_FAILED)
        return hv_fail(error, HV_FAILED, "%s: its screen cannot be read: %s", name,
                       g_strerror(errno));
    view->frame = map;
    return true;
}

static void view_close(struct view *view)
{
    if (view->frame)
        munmap((void *)(uintptr_t)view->frame, view->frame_bytes);
    if (view->fd >= 0)
        close(view->fd);
}

enum wait_result { WAIT_CHANGED, WAIT_TIMED_OUT, WAIT_ENDED };

/* Takes messages until the picture has come or changed, the machine ends or the time is over. */
static enum wait_result view_wait(struct view *view, int timeout_ms)
{
    struct display_message message;
    gint64 end = g_get_monotonic_time() + (gint64)timeout_ms * 1000;
    for (;;) {
        struct pollfd wait = { view->fd, POLLIN, 0 };
        gint64 left = (end - g_get_monotonic_time()) / 1000;
        if (left <= 0 || poll(&wait, 1, (int)left) <= 0)
            return WAIT_TIMED_OUT;
        if (recv(view->fd, &message, sizeof message, 0) != sizeof message)
            return WAIT_ENDED;
        if (message.kind == DISPLAY_MODE) {
            view->width = message.a;
            view->height = message.b;
        }
        if (message.kind == DISPLAY_DAMAGE)
            return WAIT_CHANGED;
    }
}

static bool write_png(const struct view *view, const char *path, GError **error)
{
    png_image image = { .version = PNG_IMAGE_VERSION,
                        .width = view->width,
                        .height = view->height,
                        .format = PNG_FORMAT_BGRA };
    size_t pixels = (size_t)view->width * view->height;
    if (!pixels || pixels > view->frame_bytes / 4)
        return hv_fail(error, HV_FAILED, "the machine shows no picture");
    g_autofree uint32_t *copy = g_new(uint32_t, pixels);
    for (size_t i = 0; i < pixels; i++)
        copy[i] = view->frame[i] | 0xff000000;
    bool to_stdout = !strcmp(path, "-");
    int done = to_stdout ? png_image_write_to_stdio(&image, stdout, 0, copy, 0, NULL)
                         : png_image_write_to_file(&image, path, 0, copy, 0, NULL);
    return done || hv_fail(error, HV_FAILED, "%s: %s", path, image.message);
}

static int screen_png(const char *name, const char *path)
{
    enum { FIRST_PICTURE_MS = 5000 };
    GError *error = NULL;
    struct view view;
    bool ok = view_open(&view, name, &error);
    if (ok && view_wait(&view, FIRST_PICTURE_MS) != WAIT_CHANGED)
        ok = hv_fail(&error, HV_FAILED, "%s shows no picture", name);
    ok = ok && write_png(&view, path, &error);
    view_close(&view);
    return ok ? HV_OK : cli_fail(error);
}

/* The lines of a text screen; NULL with an error. *graphics: there are none, it shows pixels. */
static GString *read_text(struct client *client, bool *graphics, GError **error)
{
    json_t *result = client_call(client, "screen.text", NULL, error);
    if (!result)
        return NULL;
    GString *text = g_string_new(NULL);
    size_t i;
    json_t *line;
    json_array_foreach(json_object_get(result, "lines"), i, line)
        g_string_append_printf(text, "%s\n", json_string_value(line));
    *graphics = json_is_true(json_object_get(result, "graphics"));
    json_decref(result);
    return text;
}

static int screen_text(struct client *client)
{
    GError *error = NULL;
    bool graphics;
    g_autoptr(GString) text = read_text(client, &graphics, &error);
    if (!text)
        return cli_fail(error);
    if (graphics) {
        fprintf(stderr, "hv: %s shows graphics, not text: --png FILE takes a picture\n",
                client_name(client));
        return HV_WRONG_STATE;
    }
    fputs(text->str, stdout);
    return HV_OK;
}

/* Waits until the text on the screen matches: it looks when the picture changes, and not between.
 */
static int screen_wait(struct client *client, const char *pattern, unsigned seconds)
{
    GError *error = NULL;
    g_autoptr(GRegex) regex = g_regex_new(pattern, G_REGEX_MULTILINE, 0, &error);
    struct view view = { .fd = -1 };
    if (!regex) {
        int status = cli_usage("screen", "--wait %s: %s", pattern, error->message);
        g_error_free(error);
        return status;
    }
    if (!view_open(&view, client_name(client), &error)) {
        view_close(&view);
        return cli_fail(error);
    }
    gint64 end = g_get_monotonic_time() + seconds * G_USEC_PER_SEC;
    g_autoptr(GString) text = NULL;
    bool found = false, alive = true;
    while (!found && alive && g_get_monotonic_time() < end) {
        bool graphics;
        if (text)
            g_string_free(text, true);
        text = read_text(client, &graphics, &error);
        found = text && g_regex_match(regex, text->str, 0, NULL);
        gint64 left = (end - g_get_monotonic_time()) / 1000;
        alive = text && (found || view_wait(&view, (int)MAX(left, 1)) != WAIT_ENDED);
    }
    view_close(&view);
    if (found)
        return HV_OK;
    fprintf(stderr, "hv: %s: %s /%s/%s%s\n", client_name(client),
            alive ? "not seen in time:" : "it ended before it showed", pattern,
            text ? "; its screen:\n" : "", text ? text->str : "");
    g_clear_error(&error);
    return alive ? HV_TIMED_OUT : HV_WRONG_STATE;
}

int verb_screen(int argc, char **argv)
{
    bool text = false;
    const char *png = NULL, *wait = NULL, *timeout = "60";
    const struct flag flags[] = {
        { "text", &text, NULL },       { "png", NULL, &png }, { "wait", NULL, &wait },
        { "timeout", NULL, &timeout }, { .name = NULL },
    };
    int left = cli_flags("screen", argc, argv, flags);
    if (left < 0)
        return left == -2 ? HV_OK : HV_USAGE;
    if (left > 1 || text + (png != NULL) + (wait != NULL) != 1)
        return cli_usage("screen", "one of --text, --png FILE and --wait REGEX is wanted");
    guint64 seconds;
    if (!g_ascii_string_to_unsigned(timeout, 10, 0, 1000000, &seconds, NULL))
        return cli_usage("screen", "--timeout %s: a number of seconds is wanted", timeout);
    GError *error = NULL;
    struct client *client = client_open(left ? argv[0] : NULL, &error);
    if (!client)
        return cli_fail(error);
    int status = text   ? screen_text(client)
                 : wait ? screen_wait(client, wait, (unsigned)seconds)
                        : screen_png(client_name(client), png);
    client_close(client);
    return status;
}
