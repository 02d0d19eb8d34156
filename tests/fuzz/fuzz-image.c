/* The parser of an image format (FUZZ_FORMAT): the input is the image's file, and all other files
 * that it names. It becomes a disk or is refused; what can be read is read, at both ends and here
 * and there between. Shared by libFuzzer and the replay of the corpus, as fuzz-device.c. */
#include "base/log.h"
#include "block/format.h"
#include "block/raw.h"

#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CHUNK = 64 << 10, READS = 16, PARTS = 4 };

static struct disk *new_file(const uint8_t *data, size_t size)
{
    int fd = memfd_create("image", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        g_error("no file");
    struct disk *file = raw_open(fd, "image", true, NULL);
    if (!file)
        close(fd);
    return file;
}

static void read_at(struct disk *disk, uint64_t at)
{
    static uint8_t buffer[CHUNK];
    struct iovec iov = { buffer, MIN(sizeof buffer, disk->size - at) };
    const struct disk_request request = {
        .op = DISK_READ, .offset = at, .length = iov.iov_len, .iov = &iov, .iov_count = 1
    };
    disk_now(disk, &request);
}

static void read_some(struct disk *disk)
{
    uint64_t step = disk->size / READS / SECTOR * SECTOR;
    for (unsigned i = 0; i < READS; i++)
        read_at(disk, i * step);
    if (disk->size > CHUNK)
        read_at(disk, disk->size - CHUNK);
}

/* What it names, and the disk. */
static void open_image(const struct format *format, struct disk *file, const uint8_t *data,
                       size_t size)
{
    g_autoptr(GPtrArray) links = g_ptr_array_new_with_free_func(format_link_free);
    g_autoptr(GError) error = NULL;
    struct disk *part[PARTS], *below = NULL, *disk = NULL;
    unsigned count = 0;
    bool ok = !format->links || format->links(file, "image", links, &error);
    for (unsigned i = 0; ok && i < links->len; i++) {
        const struct format_link *link = links->pdata[i];
        if (link->below && !below)
            below = new_file(data, size);
        else if (!link->below && count < PARTS)
            part[count++] = new_file(data, size);
    }
    const struct format_parts parts = {
        .name = "image", .file = file, .below = below, .part = part, .part_count = count
    };
    if (ok)
        disk = format->open(&parts, &error);
    if (!disk != !!error)
        g_error("%s", disk ? error->message : "a failure without a word");
    if (disk) {
        g_assert(disk->size && disk->size % SECTOR == 0 && disk->readonly);
        read_some(disk);
        disk_free(disk);
        return;
    }
    disk_free(file);
    disk_free(below);
    for (unsigned i = 0; i < count; i++)
        disk_free(part[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct format *format;
    if (!format) {
        log_set_level(LOG_ERROR);
        format = format_named(FUZZ_FORMAT);
    }
    struct disk *file = new_file(data, size);
    if (file)
        open_image(format, file, data, size);
    return 0;
}
