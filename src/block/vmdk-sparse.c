/* Sparse extents of VMDK images ("Hosted Sparse Extents" and "Stream-Optimized Compressed Sparse
 * Extents" of the specification): a directory of grain tables, which name the grains, usually of
 * 64 KiB. In a stream they are compressed, and the header that counts stands at the end. */
#include "block/bytes.h"
#include "block/vmdk.h"

#include <errno.h>
#include <string.h>
#include <zlib.h>

/* The header, little-endian; offsets and sizes in it are sectors. */
enum {
    VERSION_AT = 4,
    FLAGS_AT = 8,
    CAPACITY_AT = 12,
    GRAIN_AT = 20,
    TEXT_AT = 28,
    TEXT_SIZE_AT = 36,
    ENTRIES_AT = 44,
    DIRECTORY_AT = 56,
    NEWLINES_AT = 73,
    COMPRESSION_AT = 77,
    HEADER = 512,
};
enum { NEWLINES = 1, ZERO_GRAINS = 4, COMPRESSED = 1 << 16, MARKERS = 1 << 17 };
enum { DEFLATE = 1, VERSION_LAST = 3, MARKER = 12, ZERO_GRAIN = 1 };
enum { GRAIN_LARGEST = 2 << 20, ENTRIES_LARGEST = 1 << 16, FOOTER_FROM_END = 1024 };
#define AT_END UINT64_MAX /* the directory: as the footer has it */

/* --- opening ---------------------------------------------------------------------------------- */

static bool judge_header(const uint8_t *header, const char *name, GError **error)
{
    uint32_t flags = le32_at(header + FLAGS_AT);
    if (!memcmp(header, "COWD", 4))
        return reader_refuse(error, name,
                             "it is a snapshot of an ESX server (COWD): export the disk there");
    if (memcmp(header, "KDMV", 4))
        return reader_refuse(error, name, "it is no sparse extent of a VMDK image");
    if (!le32_at(header + VERSION_AT) || le32_at(header + VERSION_AT) > VERSION_LAST)
        return reader_refuse(error, name, "it is a VMDK image of version %u, not 1 to 3",
                             le32_at(header + VERSION_AT));
    if ((flags & NEWLINES) && memcmp(header + NEWLINES_AT, "\n \r\n", 4))
        return reader_refuse(error, name,
                             "it was copied as if it were text, and is damaged: copy it anew");
    if ((flags & COMPRESSED) && le16_at(header + COMPRESSION_AT) != DEFLATE)
        return reader_refuse(error, name, "it is compressed in an unknown way, %u",
                             le16_at(header + COMPRESSION_AT));
    return true;
}

static bool judge_sizes(struct vmdk_extent *extent, const uint8_t *header, uint64_t file_size,
                        const char *name, GError **error)
{
    uint64_t capacity = le64_at(header + CAPACITY_AT), grain = le64_at(header + GRAIN_AT);
    uint64_t directory = le64_at(header + DIRECTORY_AT);
    extent->entries = le32_at(header + ENTRIES_AT);
    if (!capacity || capacity > INT64_MAX / SECTOR)
        return reader_refuse(error, name, "a disk of %" G_GUINT64_FORMAT " sectors cannot be",
                             capacity);
    if (!is_power(grain) || grain < READER_PAGE / SECTOR || grain > GRAIN_LARGEST / SECTOR)
        return reader_refuse(error, name, "its grains have %" G_GUINT64_FORMAT " sectors", grain);
    if (!extent->entries || extent->entries > ENTRIES_LARGEST)
        return reader_refuse(error, name, "its grain tables have %u entries", extent->entries);
    uint64_t tables = (capacity - 1) / (grain * extent->entries) + 1;
    if (!directory || directory > file_size / SECTOR ||
        tables > (file_size - directory * SECTOR) / 4)
        return reader_refuse(error, name, "its grain directory is not within the file");
    extent->grain = grain * SECTOR;
    extent->directory = directory * SECTOR;
    return true;
}

bool vmdk_judge_sparse(struct vmdk_extent *extent, struct disk *file, const char *name,
                       struct vmdk_sparse *sparse, GError **error)
{
    uint8_t header[HEADER];
    uint64_t size = file->size;
    if (!reader_copy_file(file, name, 0, header, HEADER, error) ||
        !judge_header(header, name, error))
        return false;
    sparse->text_at = le64_at(header + TEXT_AT);
    sparse->text_size = le64_at(header + TEXT_SIZE_AT);
    if (le64_at(header + DIRECTORY_AT) == AT_END) {
        bool footer = size >= HEADER + FOOTER_FROM_END;
        if (footer && !reader_copy_file(file, name, size - FOOTER_FROM_END, header, HEADER, error))
            return false;
        if (!footer || memcmp(header, "KDMV", 4))
            return reader_refuse(error, name, "the image is cut off: its end is missing");
        if (!judge_header(header, name, error))
            return false;
    }
    uint32_t flags = le32_at(header + FLAGS_AT);
    extent->kind = VMDK_SPARSE;
    extent->packed = flags & COMPRESSED;
    extent->markers = flags & MARKERS;
    extent->zeros = flags & ZERO_GRAINS;
    if (!judge_sizes(extent, header, size, name, error))
        return false;
    sparse->capacity = le64_at(header + CAPACITY_AT) * SECTOR;
    if (sparse->text_at > size / SECTOR || sparse->text_size > size / SECTOR - sparse->text_at)
        return reader_refuse(error, name, "its description is not within the file");
    sparse->text_at *= SECTOR;
    sparse->text_size *= SECTOR;
    return true;
}

/* --- the map ---------------------------------------------------------------------------------- */

int vmdk_find_sparse(struct reader *reader, const struct vmdk_extent *sparse, uint64_t offset,
                     bool wait, struct extent *extent)
{
    uint64_t place = offset - sparse->start, size = sparse->end - sparse->base;
    uint64_t grain = place / sparse->grain, within = place % sparse->grain;
    uint64_t table = sparse->directory + grain / sparse->entries * 4, entry = 0;
    const uint8_t *bytes;
    int error = reader_look(reader, sparse->base + table, wait, &bytes);
    if (error)
        return error;
    table = (uint64_t)le32_at(bytes) * SECTOR;
    if (table) {
        table += grain % sparse->entries * 4;
        if (table >= size)
            return reader_bad(reader, wait, "a grain table lies behind the end of its file");
        error = reader_look(reader, sparse->base + table, wait, &bytes);
        if (error)
            return error;
        entry = le32_at(bytes);
    }
    *extent = (struct extent){
        .kind = EXTENT_BELOW,
        .length = MIN(sparse->grain - within, sparse->length - place),
    };
    if (!entry)
        return 0;
    if (entry == ZERO_GRAIN && sparse->zeros) {
        extent->kind = EXTENT_ZERO;
        return 0;
    }
    if (entry * SECTOR >= size)
        return reader_bad(reader, wait, "a grain lies behind the end of its file");
    extent->kind = sparse->packed ? EXTENT_PACKED : EXTENT_DATA;
    extent->at = sparse->base + entry * SECTOR + (sparse->packed ? 0 : within);
    return 0;
}

/* --- compressed grains --------------------------------------------------------------------------
 */

/* Deflate makes nothing larger than by a few bytes in 16 KiB. */
static size_t packed_most(uint64_t grain)
{
    return grain + grain / 1024 + 64;
}

struct vmdk_unpacker {
    z_stream stream;
    uint64_t at; /* where what is in `grain` was packed; 0: nothing is */
    uint8_t *packed, *grain;
};

struct vmdk_unpacker *vmdk_unpacker_new(uint64_t grain)
{
    struct vmdk_unpacker *unpacker = g_try_new0(struct vmdk_unpacker, 1);
    if (!unpacker)
        return NULL;
    unpacker->packed = g_try_malloc(packed_most(grain));
    unpacker->grain = g_try_malloc(grain);
    if (unpacker->packed && unpacker->grain && inflateInit(&unpacker->stream) == Z_OK)
        return unpacker;
    g_free(unpacker->packed);
    g_free(unpacker->grain);
    g_free(unpacker);
    return NULL;
}

void vmdk_unpacker_free(struct vmdk_unpacker *unpacker)
{
    if (!unpacker)
        return;
    inflateEnd(&unpacker->stream);
    g_free(unpacker->packed);
    g_free(unpacker->grain);
    g_free(unpacker);
}

static int read_file(struct reader *reader, void *to, size_t length, uint64_t at)
{
    struct iovec iov = { to, length };
    struct disk_request request = {
        .op = DISK_READ, .at = at, .length = length, .iov = &iov, .iov_count = 1
    };
    return reader->file->ops->now(reader->file, &request);
}

/* How much there is to be unpacked, and where. Without markers nobody says, and it ends by itself.
 */
static int find_packed(struct reader *reader, const struct vmdk_extent *sparse, uint64_t *at,
                       size_t *length)
{
    uint8_t marker[MARKER];
    *length = (size_t)MIN(packed_most(sparse->grain), sparse->end - *at);
    if (!sparse->markers)
        return 0;
    int error = read_file(reader, marker, sizeof marker, *at);
    *at += sizeof marker;
    if (!error && (*at >= sparse->end || !le32_at(marker + 8) || le32_at(marker + 8) > *length))
        return reader_bad(reader, true, "a compressed grain has an impossible length");
    *length = le32_at(marker + 8);
    return error;
}

/* What the stream gives becomes the grain. Less than a whole one is right only at the extent's end.
 */
static int inflate_grain(struct reader *reader, struct vmdk_unpacker *unpacker,
                         const struct vmdk_extent *sparse, size_t length)
{
    z_stream *stream = &unpacker->stream;
    if (inflateReset(stream) != Z_OK)
        return EIO;
    stream->next_in = unpacker->packed;
    stream->avail_in = (uInt)length;
    stream->next_out = unpacker->grain;
    stream->avail_out = (uInt)sparse->grain;
    int result = inflate(stream, Z_FINISH);
    bool full = !stream->avail_out;
    if (result != Z_STREAM_END && !(result == Z_BUF_ERROR && full))
        return reader_bad(reader, true, "a compressed grain cannot be unpacked");
    if (stream->avail_out > sparse->grain - SECTOR)
        return reader_bad(reader, true, "a compressed grain is empty");
    memset(stream->next_out, 0, stream->avail_out);
    return 0;
}

int vmdk_unpack(struct reader *reader, struct vmdk_unpacker *unpacker,
                const struct vmdk_extent *sparse, uint64_t at, uint64_t within, void *to,
                size_t length)
{
    if (unpacker->at != at) {
        uint64_t from = at;
        size_t packed;
        unpacker->at = 0;
        int error = find_packed(reader, sparse, &from, &packed);
        if (!error)
            error = read_file(reader, unpacker->packed, packed, from);
        if (!error)
            error = inflate_grain(reader, unpacker, sparse, packed);
        if (error)
            return error;
        unpacker->at = at;
    }
    memcpy(to, unpacker->grain + within, length);
    return 0;
}
