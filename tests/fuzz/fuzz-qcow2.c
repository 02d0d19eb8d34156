/* qcow2 images: the input is an image, whose last byte says what is done with it. Shared by
 * libFuzzer and the replay of the corpus, as fuzz-device.c. */
#include "base/log.h"
#include "block/qcow2.h"
#include "block/raw.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { READONLY = 1, CHECK = 2, REPAIR = 4, SNAPSHOT = 8, SPAN = 40 * 1024 };

static struct disk *open_copy(const uint8_t *data, size_t size, bool readonly)
{
    int fd = memfd_create("image", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        g_error("no file");
    return raw_open(fd, "image", readonly, NULL);
}

static void use(struct disk *disk, uint8_t *buffer)
{
    const uint64_t places[] = { 0, 1024, 30 * 512, 65536, disk->size / 2 / 512 * 512, disk->size };
    for (unsigned i = 0; i < G_N_ELEMENTS(places); i++) {
        uint64_t at = MIN(places[i], disk->size - 512),
                 length = MIN((uint64_t)SPAN, disk->size - at);
        struct iovec iov = { buffer, length };
        struct disk_request request = { .offset = at, .length = length, .iov = &iov };
        request.iov_count = 1;
        for (unsigned op = DISK_READ; op <= DISK_WRITE_ZEROES; op++) {
            request.op = (enum disk_op)((op + i) % 5);
            disk_now(disk, &request);
        }
    }
}

static void check(struct disk *file, bool repair)
{
    struct format_report report;
    g_autoptr(GError) error = NULL;
    struct qcow2_info info;
    if (qcow2_check(file, "image", repair, &report, &error) != !error)
        g_error("a failure without a word, or words without one");
    if (qcow2_get_info(file, "image", &info, NULL))
        g_array_unref(info.snapshots);
}

static void open_and_use(struct disk *file, bool snapshot, uint8_t *buffer)
{
    g_autoptr(GError) error = NULL;
    struct format_parts parts = { "image", file, NULL, NULL, 0 };
    struct disk *disk =
        snapshot ? qcow2_open_snapshot(&parts, "1", &error) : qcow2_format.open(&parts, &error);
    if (!disk != !!error)
        g_error("a failure without a word, or words without one");
    if (disk)
        use(disk, buffer);
    disk_free(disk ? disk : file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t buffer[SPAN];
    if (size < 2)
        return 0;
    unsigned how = data[size - 1];
    struct disk *file = open_copy(data, size - 1, how & READONLY);
    g_autoptr(GPtrArray) links = g_ptr_array_new_with_free_func(format_link_free);
    if (!file)
        return 0;
    log_set_level(LOG_ERROR);
    memset(buffer, 0x5a, sizeof buffer);
    qcow2_format.links(file, "image", links, NULL);
    if (how & (CHECK | REPAIR))
        check(file, how & REPAIR);
    open_and_use(file, how & SNAPSHOT, buffer);
    return 0;
}
