/* Screenshots; see screenshot.h. */
#include "ui/screenshot.h"

#include <errno.h>
#include <fcntl.h>
#include <png.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "ui/viewer.h"

/* A file that did not exist: two pictures in one second get two names. */
static FILE *create(const char *directory, const char *name, char **path, GError **error)
{
    g_autofree char *stem = g_strdup(*name ? name : "hv");
    g_strdelimit(stem, "/", '-');
    if (*stem == '.')
        *stem = '-';
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autofree char *time = g_date_time_format(now, "%Y-%m-%d-%H%M%S");
    for (unsigned attempt = 1; attempt < 100; attempt++) {
        g_autofree char *number = attempt > 1 ? g_strdup_printf("-%u", attempt) : g_strdup("");
        g_autofree char *file = g_strdup_printf("%s-%s%s.png", stem, time, number);
        g_free(*path);
        *path = g_build_filename(directory, file, NULL);
        int fd = open(*path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        FILE *stream = fd >= 0 ? fdopen(fd, "wb") : NULL;
        if (stream)
            return stream;
        if (errno != EEXIST) {
            if (fd >= 0)
                close(fd);
            break;
        }
    }
    hv_fail(error, HV_HOST, "%s: cannot create the picture: %s", *path, g_strerror(errno));
    return NULL;
}

char *screenshot_write(const char *directory, const char *name, const uint32_t *pixels,
                       uint32_t width, uint32_t height, GError **error)
{
    g_autofree char *path = NULL;
    if (g_mkdir_with_parents(directory, 0777) < 0) {
        hv_fail(error, HV_HOST, "%s: cannot create the folder: %s", directory, g_strerror(errno));
        return NULL;
    }
    FILE *file = create(directory, name, &path, error);
    if (!file)
        return NULL;
    size_t count = (size_t)width * height;
    g_autofree uint8_t *rgb = g_malloc(count * 3);
    for (size_t i = 0; i < count; i++) {
        uint32_t pixel = pixels[i];
        rgb[i * 3] = (uint8_t)(pixel >> 16);
        rgb[i * 3 + 1] = (uint8_t)(pixel >> 8);
        rgb[i * 3 + 2] = (uint8_t)pixel;
    }
    png_image image = {
        .version = PNG_IMAGE_VERSION, .width = width, .height = height, .format = PNG_FORMAT_RGB
    };
    bool good = png_image_write_to_stdio(&image, file, 0, rgb, 0, NULL);
    if (fclose(file) != 0 || !good) {
        hv_fail(error, HV_HOST, "%s: cannot write the picture: %s", path,
                good ? g_strerror(errno) : image.message);
        unlink(path);
        return NULL;
    }
    return g_steal_pointer(&path);
}

void screenshot_take(struct viewer *viewer)
{
    const struct model *model = &viewer->update.model;
    if (!viewer->update.pixels || !model->width) {
        viewer_say(viewer, "There is no picture yet");
        return;
    }
    const char *pictures = g_get_user_special_dir(G_USER_DIRECTORY_PICTURES);
    g_autofree char *fallback = g_build_filename(g_get_home_dir(), "Pictures", NULL);
    g_autoptr(GError) error = NULL;
    g_autofree char *path =
        screenshot_write(pictures ? pictures : fallback, viewer->name, viewer->update.pixels,
                         model->width, model->height, &error);
    if (!path)
        viewer_say(viewer, "No screenshot: %s", error->message);
    else if (g_str_has_prefix(path, g_get_home_dir()))
        viewer_say(viewer, "Saved ~%s", path + strlen(g_get_home_dir()));
    else
        viewer_say(viewer, "Saved %s", path);
}
