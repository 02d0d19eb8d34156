/* The table of image formats; see format.h. */
#include "block/format.h"

#include "base/error.h"
#include "base/log.h"
#include "block/raw.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

const struct format *const formats[] = {
    &qcow2_format, &vdi_format, &vhd_format, &vhdx_format, &vmdk_format, NULL,
};

static struct disk *open_raw(const struct format_parts *parts, GError **error)
{
    uint64_t size = 0;
    (void)error;
    if (!raw_length(parts->file, &size) && size % SECTOR)
        log_warn(parts->name,
                 "its size, %" G_GUINT64_FORMAT " bytes, is no multiple of 512: the last "
                 "sector is filled up with zeros",
                 size);
    return parts->file;
}

static bool create_raw(int fd, const char *name, const struct format_wish *wish, GError **error)
{
    if (wish->below || wish->cluster || wish->compression)
        return hv_fail(error, HV_USAGE, "%s: a raw image lies on no other, and has no clusters",
                       name);
    return TEMP_FAILURE_RETRY(ftruncate(fd, (off_t)wish->size)) == 0 ||
           hv_fail(error, HV_FAILED, "%s: %s", name, g_strerror(errno));
}

const struct format raw_format = {
    .name = "raw",
    .what = "a raw disk image",
    .written = true,
    .open = open_raw,
    .create = create_raw,
    .resize = raw_resize,
};

void format_link_free(void *data)
{
    struct format_link *link = data;
    g_free(link->name);
    g_free(link->format);
    g_free(link);
}

void format_link_add(GPtrArray *links, const char *name, const char *format, bool below)
{
    struct format_link *link = g_new0(struct format_link, 1);
    link->name = g_strdup(name);
    link->format = g_strdup(format);
    link->below = below;
    g_ptr_array_add(links, link);
}

const struct format *format_named(const char *name)
{
    for (unsigned i = 0; formats[i]; i++)
        if (!strcmp(formats[i]->name, name))
            return formats[i];
    return strcmp(name, raw_format.name) ? NULL : &raw_format;
}

char *format_names(void)
{
    GString *text = g_string_new(NULL);
    g_string_append_printf(text, "\"%s\"", raw_format.name);
    for (unsigned i = 0; formats[i]; i++)
        g_string_append_printf(text, "%s\"%s\"", formats[i + 1] ? ", " : " or ", formats[i]->name);
    return g_string_free(text, FALSE);
}

static bool read_at(int fd, void *to, size_t size, uint64_t offset)
{
    struct iovec iov = { to, size };
    int error = raw_transfer(&raw_system_io, fd, false, &iov, 1, offset);
    errno = error;
    return !error;
}

const struct format *format_probe(int fd)
{
    struct format_head head = { .size = 0 };
    off_t end = lseek(fd, 0, SEEK_CUR), size = lseek(fd, 0, SEEK_END);
    if (size < 0 || lseek(fd, end, SEEK_SET) < 0 || !read_at(fd, head.head, FORMAT_HEAD, 0))
        return NULL;
    head.size = (uint64_t)size;
    if (size >= SECTOR && !read_at(fd, head.tail, SECTOR, head.size - SECTOR))
        return NULL;
    for (unsigned i = 0; formats[i]; i++)
        if (formats[i]->probe(&head))
            return formats[i];
    return &raw_format;
}
