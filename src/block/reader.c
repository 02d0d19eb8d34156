/* What formats that are only read have in common; see reader.h. */
#include "block/reader.h"

#include "base/error.h"
#include "block/concat.h"
#include "block/raw.h"

#include <errno.h>
#include <string.h>

/* 8 MiB: with 4 bytes for 64 KiB of disk, as VMDK has it, that is 128 GiB of disk. */
enum { WAYS = 4, SET_BITS = 9, SETS = 1 << SET_BITS };

/* What `peek` reads, and so changed under both locks; see mapped.h. */
struct reader_page {
    uint64_t number; /* of the page in the file */
    uint8_t *data;   /* NULL: there is none here */
};

bool reader_refuse(GError **error, const char *name, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    g_autofree char *text = g_strdup_vprintf(format, list);
    va_end(list);
    return hv_fail(error, HV_FAILED, "%s: %s", name, text);
}

int reader_bad(struct reader *reader, bool wait, const char *what)
{
    const char *name = reader->mapped.worker.disk.name;
    if (wait && log_limit_pass(&reader->log, name ? name : reader->name))
        log_warn(name ? name : reader->name, "the image is damaged: %s", what);
    return EIO;
}

int reader_data(struct reader *reader, bool wait, uint64_t at, uint64_t length,
                struct extent *extent)
{
    if (at >= reader->end)
        return reader_bad(reader, wait, "data lies behind the end of the file");
    *extent = (struct extent){ .kind = EXTENT_DATA, .length = length, .at = at };
    return 0;
}

/* --- pages of the file ----------------------------------------------------------------------- */

static unsigned set_of(uint64_t number)
{
    return (unsigned)(number * 0x9e3779b97f4a7c15u >> (64 - SET_BITS)); /* Fibonacci hashing */
}

static int read_page(struct reader *reader, uint64_t number, uint8_t *page)
{
    struct iovec iov = { page, READER_PAGE };
    struct disk_request request = {
        .op = DISK_READ,
        .at = number * READER_PAGE,
        .length = READER_PAGE,
        .iov = &iov,
        .iov_count = 1,
    };
    int error = reader->file->ops->now(reader->file, &request);
    if (!error && reader->format->patch)
        reader->format->patch(reader, number * READER_PAGE, page);
    return error;
}

static int load(struct reader *reader, uint64_t number, const uint8_t **data)
{
    unsigned set = set_of(number);
    uint8_t *page = g_try_malloc(READER_PAGE);
    int error = page ? read_page(reader, number, page) : ENOMEM;
    if (error) {
        g_free(page);
        return error;
    }
    struct reader_page *slot = &reader->pages[set * WAYS + reader->turn[set]++ % WAYS];
    mapped_lock(&reader->mapped);
    uint8_t *old = slot->data;
    *slot = (struct reader_page){ number, page };
    mapped_unlock(&reader->mapped);
    g_free(old);
    *data = page;
    return 0;
}

int reader_look(struct reader *reader, uint64_t at, bool wait, const uint8_t **bytes)
{
    uint64_t number = at / READER_PAGE;
    const struct reader_page *slot = &reader->pages[set_of(number) * WAYS];
    const uint8_t *data = NULL;
    for (unsigned i = 0; i < WAYS && !data; i++)
        if (slot[i].number == number)
            data = slot[i].data;
    if (!data) {
        int error = wait ? load(reader, number, &data) : EAGAIN;
        if (error)
            return error;
    }
    *bytes = data + at % READER_PAGE;
    return 0;
}

/* Stops at the end of the page. */
int reader_run(struct reader *reader, uint64_t at, uint64_t first, uint64_t *count,
               enum reader_order order, bool wait, bool *set)
{
    unsigned flip = order == READER_HIGH_FIRST ? 7 : 0;
    const uint8_t *bytes;
    int error = reader_look(reader, at + first / 8, wait, &bytes);
    if (error)
        return error;
    uint64_t bit = first % 8;
    uint64_t room = (READER_PAGE - (at + first / 8) % READER_PAGE) * 8;
    uint64_t end = MIN(room, bit + *count), start = bit;
    *set = bytes[0] >> (bit ^ flip) & 1;
    uint8_t whole = *set ? 0xff : 0;
    while (bit < end && *set == (bytes[bit / 8] >> (bit % 8 ^ flip) & 1))
        bit += bit % 8 || bytes[bit / 8] != whole ? 1 : 8;
    *count = MIN(bit, end) - start;
    return 0;
}

/* --- the map --------------------------------------------------------------------------------- */

static bool follows(const struct extent *next, const struct extent *extent)
{
    return next->kind == extent->kind && next->kind != EXTENT_PACKED &&
           (next->kind != EXTENT_DATA || next->at == extent->at + extent->length);
}

/* Pieces that go on in the next block are one. */
static int find_joined(struct mapped *mapped, uint64_t offset, uint64_t length, bool wait,
                       struct extent *extent)
{
    struct reader *reader = (struct reader *)mapped;
    struct extent next;
    int error = reader->format->find(reader, offset, wait, extent);
    while (!error && extent->length < length) {
        if (reader->format->find(reader, offset + extent->length, wait, &next) ||
            !follows(&next, extent))
            break;
        extent->length += next.length;
    }
    return error;
}

bool reader_peek(struct mapped *mapped, uint64_t offset, uint64_t length, struct extent *extent)
{
    return !find_joined(mapped, offset, length, false, extent);
}

int reader_map(struct mapped *mapped, uint64_t offset, uint64_t length, struct extent *extent)
{
    return find_joined(mapped, offset, length, true, extent);
}

/* --- opening and closing --------------------------------------------------------------------- */

bool reader_copy_file(struct disk *file, const char *name, uint64_t at, void *to, size_t length,
                      GError **error)
{
    uint64_t end = 0;
    int failed = raw_length(file, &end);
    if (!failed && (at > end || length > end - at))
        return reader_refuse(error, name,
                             "the image is cut off: it has only %" G_GUINT64_FORMAT " bytes", end);
    if (!failed)
        failed = raw_read(file, to, length, at);
    return !failed || reader_refuse(error, name, "cannot be read: %s", g_strerror(failed));
}

bool reader_copy(struct reader *reader, uint64_t at, void *to, size_t length, GError **error)
{
    if (at > reader->end || length > reader->end - at)
        return reader_refuse(error, reader->name,
                             "the image is cut off: it has only %" G_GUINT64_FORMAT " bytes",
                             reader->end);
    for (size_t done = 0, n; done < length; done += n) {
        const uint8_t *bytes;
        int failed = reader_look(reader, at + done, true, &bytes);
        if (failed)
            return reader_refuse(error, reader->name, "cannot be read: %s", g_strerror(failed));
        n = MIN(length - done, READER_PAGE - (at + done) % READER_PAGE);
        memcpy((uint8_t *)to + done, bytes, n);
    }
    return true;
}

/* Frees all but the reader itself. */
static void clear(struct reader *reader)
{
    if (reader->format->finish)
        reader->format->finish(reader);
    for (unsigned i = 0; reader->pages && i < SETS * WAYS; i++)
        g_free(reader->pages[i].data);
    g_free(reader->pages);
    g_free(reader->turn);
}

void reader_close(struct mapped *mapped)
{
    clear((struct reader *)mapped);
}

void reader_free(struct reader *reader)
{
    clear(reader);
    g_free(reader->mapped.worker.disk.mark);
    g_free(reader);
}

static bool no_memory(const char *name, GError **error)
{
    return hv_fail(error, HV_HOST, "%s: there is no memory to open it", name);
}

struct reader *reader_new(const struct reader_format *format, const struct format_parts *parts,
                          GError **error)
{
    struct reader *reader = g_try_malloc0(format->size);
    if (!reader) {
        no_memory(parts->name, error);
        return NULL;
    }
    reader->format = format;
    reader->name = parts->name;
    reader->file = parts->file;
    reader->granule = READER_PAGE;
    reader->pages = g_try_new0(struct reader_page, SETS * WAYS);
    reader->turn = g_try_malloc0(SETS);
    int failed = raw_length(parts->file, &reader->end);
    bool ok = reader->pages && reader->turn ? !failed : no_memory(parts->name, error);
    if (failed)
        reader_refuse(error, parts->name, "cannot be read: %s", g_strerror(failed));
    if (ok && format->judge(reader, parts, error))
        return reader;
    reader_free(reader);
    return NULL;
}

struct disk *reader_open(const struct reader_format *format, const struct format_parts *parts,
                         GError **error)
{
    struct reader *reader = reader_new(format, parts, error);
    if (!reader)
        return NULL;
    if (!mapped_init(&reader->mapped, &format->mapped, parts->name, reader->file, parts->below,
                     reader->granule)) {
        no_memory(parts->name, error);
        if (reader->file != parts->file)
            concat_dissolve(reader->file);
        reader_free(reader);
        return NULL;
    }
    reader->mapped.worker.disk.readonly = true;
    return &reader->mapped.worker.disk;
}
