/* A view of a machine's screen; see view.h. */
#include "cli/view.h"

#include <errno.h>
#include <fcntl.h>
#include <png.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fds.h"
#include "cli/cli.h"

/* The picture's file. Its seals keep the machine from making it smaller under us (a SIGBUS). */
static bool map_frame(struct view *view, const char *name, int frame, GError **error)
{
    struct stat file;
    int seals = fcntl(frame, F_GET_SEALS);
    if (fstat(frame, &file) < 0 || (uint64_t)file.st_size < view->frame_bytes || seals < 0 ||
        !(seals & F_SEAL_SHRINK))
        return hv_fail(error, HV_FAILED, "%s: its display sends no proper picture", name);
    void *map = mmap(NULL, view->frame_bytes, PROT_READ, MAP_SHARED, frame, 0);
    if (map == MAP_FAILED)
        return hv_fail(error, HV_FAILED, "%s: its screen cannot be read: %s", name,
                       g_strerror(errno));
    view->frame = map;
    return true;
}

bool view_open(struct view *view, const char *name, GError **error)
{
    struct display_message hello;
    int frame = -1;
    unsigned count = 0;
    *view = (struct view){ .fd = display_connect(name, error), .reading = reading_new() };
    if (view->fd < 0)
        return false;
    if (fds_receive(view->fd, &hello, sizeof hello, &frame, 1, &count, NULL) != sizeof hello ||
        hello.kind != DISPLAY_HELLO || count != 1) {
        fds_close(&frame, count);
        return hv_fail(error, HV_FAILED, "%s: its display does not answer", name);
    }
    view->frame_bytes = hello.a | (size_t)hello.b << 32;
    bool mapped = map_frame(view, name, frame, error);
    close(frame);
    return mapped;
}

void view_close(struct view *view)
{
    if (view->frame)
        munmap((void *)(uintptr_t)view->frame, view->frame_bytes);
    if (view->fd >= 0)
        close(view->fd);
    reading_free(view->reading);
    *view = (struct view){ .fd = -1 };
}

/* Grows `changed` by a part of the picture; what is outside of it does not count. */
static void add_damage(struct view *view, uint32_t x, uint32_t y, uint32_t width, uint32_t height)
{
    struct rectangle *changed = &view->changed;
    x = MIN(x, view->width);
    y = MIN(y, view->height);
    uint32_t right = x + MIN(width, view->width - x), bottom = y + MIN(height, view->height - y);
    if (right == x || bottom == y)
        return;
    if (changed->width) {
        right = MAX(right, changed->x + changed->width);
        bottom = MAX(bottom, changed->y + changed->height);
        x = MIN(x, changed->x);
        y = MIN(y, changed->y);
    }
    *changed = (struct rectangle){ x, y, right - x, bottom - y };
}

static bool set_mode(struct view *view, uint32_t width, uint32_t height)
{
    if (!width || !height || width > SCREEN_MAX_WIDTH || height > SCREEN_MAX_HEIGHT ||
        (size_t)width * height > view->frame_bytes / sizeof *view->frame)
        return false;
    view->width = width;
    view->height = height;
    view->changed = (struct rectangle){ 0, 0, width, height };
    return true;
}

enum view_news view_take(struct view *view)
{
    struct display_message message;
    enum view_news news = VIEW_NOTHING;
    for (;;) {
        ssize_t length = recv(view->fd, &message, sizeof message, MSG_DONTWAIT);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && errno == EAGAIN)
            return news;
        if (length != sizeof message)
            return VIEW_ENDED;
        if (message.kind == DISPLAY_MODE && !set_mode(view, message.a, message.b))
            return VIEW_ENDED;
        if (message.kind == DISPLAY_DAMAGE) {
            add_damage(view, message.a, message.b, message.c, message.d);
            news = VIEW_CHANGED;
        }
    }
}

enum view_news view_wait(struct view *view, int timeout_ms)
{
    gint64 end = g_get_monotonic_time() + (gint64)timeout_ms * 1000;
    for (;;) {
        struct pollfd wait = { view->fd, POLLIN, 0 };
        enum view_news news = view_take(view);
        gint64 left = (end - g_get_monotonic_time() + 999) / 1000;
        if (news != VIEW_NOTHING || left <= 0)
            return news;
        poll(&wait, 1, (int)left);
    }
}

bool view_read(struct view *view)
{
    struct rectangle changed = view->changed;
    view->changed = (struct rectangle){ 0 };
    return view->width &&
           reading_update(view->reading, view->frame, view->width, view->height, changed);
}

bool view_png(const struct view *view, const char *path, GError **error)
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
