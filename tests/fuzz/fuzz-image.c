/* The parser of an image format (FUZZ_FORMAT): the input is the image's file, and all other files
 * that it names. It becomes a disk or is refused; what can be read is read, at both ends and here
 * and there between. Sums are made right first, for a fuzzer guesses none. A VHDX image, megabytes
 * of zeros, is packed: records of a page's number and length (16 bits each) and as many bytes.
 * Shared by libFuzzer and the replay of the corpus, as fuzz-device.c. */
#include "base/log.h"
#include "block/bytes.h"
#include "block/crc32c.h"
#include "block/format.h"
#include "block/raw.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CHUNK = 64 << 10, READS = 16, PARTS = 4 };

/* --- sums ------------------------------------------------------------------------------------- */

enum { PAGE = 4096, VHDX_SIZE = 8 << 20, KIB = 1024 };

static void put(uint8_t *to, uint32_t value, bool big)
{
    for (unsigned i = 0; i < 4; i++)
        to[big ? 3 - i : i] = (uint8_t)(value >> 8 * i);
}

static void mend_crc(uint8_t *bytes, size_t length)
{
    put(bytes + 4, 0, false);
    put(bytes + 4, ~crc32c_add(~0u, bytes, length), false);
}

static uint8_t *unpack_vhdx(const uint8_t *data, size_t size)
{
    uint8_t *image = g_malloc0(VHDX_SIZE);
    while (size >= 4) {
        size_t at = (size_t)le16_at(data) * PAGE % VHDX_SIZE, n = le16_at(data + 2);
        n = MIN(n, MIN(size - 4, VHDX_SIZE - at));
        memcpy(image + at, data + 4, n);
        data += 4 + n;
        size -= 4 + n;
    }
    mend_crc(image + 64 * KIB, PAGE);
    mend_crc(image + 128 * KIB, PAGE);
    mend_crc(image + 192 * KIB, 64 * KIB); /* the copy stays wrong: that takes long */
    for (size_t at = 1 << 20; at < VHDX_SIZE; at += PAGE) {
        uint32_t length = le32_at(image + at + 8);
        if (!memcmp(image + at, "loge", 4) && length >= PAGE && length <= VHDX_SIZE - at)
            mend_crc(image + at, length);
    }
    return image;
}

static void mend_vhd_sum(uint8_t *bytes, size_t length, size_t sum_at)
{
    uint32_t sum = 0;
    put(bytes + sum_at, 0, true);
    for (size_t i = 0; i < length; i++)
        sum += bytes[i];
    put(bytes + sum_at, ~sum, true);
}

static uint8_t *mend_vhd(const uint8_t *data, size_t size)
{
    uint8_t *image = g_memdup2(data, size);
    if (size >= 2048) {
        mend_vhd_sum(image, 512, 64);
        mend_vhd_sum(image + 512, 1024, 36);
    }
    if (size >= 512)
        mend_vhd_sum(image + size - 512, 512, 64);
    return image;
}

/* --- the disk --------------------------------------------------------------------------------- */

static struct disk *new_file(const uint8_t *data, size_t size)
{
    static const uint8_t zeros[PAGE];
    int fd = memfd_create("image", MFD_CLOEXEC);
    bool ok = fd >= 0 && ftruncate(fd, (off_t)size) == 0;
    for (size_t at = 0, n; ok && at < size; at += n) {
        n = MIN(size - at, PAGE);
        if (memcmp(data + at, zeros, n))
            ok = pwrite(fd, data + at, n, (off_t)at) == (ssize_t)n;
    }
    if (!ok)
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
    g_autofree uint8_t *mended = NULL;
    if (!strcmp(FUZZ_FORMAT, "vhdx")) {
        data = mended = unpack_vhdx(data, size);
        size = VHDX_SIZE;
    } else if (!strcmp(FUZZ_FORMAT, "vhd")) {
        data = mended = mend_vhd(data, size);
    }
    struct disk *file = new_file(data, size);
    if (file)
        open_image(format, file, data, size);
    return 0;
}
