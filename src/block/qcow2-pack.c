/* Compressed clusters of qcow2 images: deflate without zlib's header, or zstd. The last one that
 * was unpacked is kept, for who reads on. What comes out is never more than a cluster. New ones are
 * put one behind the other, whatever clusters of the file they lie in: each counts as a reference
 * to all that its sectors are in. */
#include "block/qcow2-core.h"

#include "block/raw.h"

#include <errno.h>
#include <zlib.h>
#include <zstd.h>

enum {
    ZSTD_WINDOW = 22,    /* bits: twice the largest cluster; a frame can ask for much more */
    DEFLATE_WINDOW = 12, /* bits: what others unpack with */
};

static bool inflate_all(void **state, const uint8_t *from, size_t size, uint8_t *to, size_t length)
{
    z_stream *stream = *state;
    if (!stream) {
        stream = g_try_new0(z_stream, 1);
        if (!stream || inflateInit2(stream, -MAX_WBITS) != Z_OK) {
            g_free(stream);
            return false;
        }
        *state = stream;
    }
    if (inflateReset(stream) != Z_OK)
        return false;
    stream->next_in = (Bytef *)(uintptr_t)from;
    stream->avail_in = (uInt)size;
    stream->next_out = to;
    stream->avail_out = (uInt)length;
    inflate(stream, Z_FINISH); /* the end of the data is not always known */
    return !stream->avail_out;
}

static bool unzstd_all(void **state, const uint8_t *from, size_t size, uint8_t *to, size_t length)
{
    ZSTD_inBuffer in = { from, size, 0 };
    ZSTD_outBuffer out = { to, length, 0 };
    if (!*state)
        *state = ZSTD_createDCtx();
    ZSTD_DCtx *stream = *state;
    if (!stream || ZSTD_isError(ZSTD_DCtx_reset(stream, ZSTD_reset_session_only)) ||
        ZSTD_isError(ZSTD_DCtx_setParameter(stream, ZSTD_d_windowLogMax, ZSTD_WINDOW)))
        return false;
    while (out.pos < out.size) {
        size_t moved = in.pos + out.pos;
        if (ZSTD_isError(ZSTD_decompressStream(stream, &out, &in)) || in.pos + out.pos == moved)
            return false;
    }
    return true;
}

void qcow2_forget_unpacked(struct qcow2 *qcow2)
{
    qcow2->unpacked_entry = 0;
    qcow2->pack_at = 0; /* its clusters may be free now */
}

/* Data that went bad; the image as such may be right. */
static int complain(struct qcow2 *qcow2, uint64_t at)
{
    if (log_limit_pass(&qcow2->limit, qcow2->name))
        log_warn(qcow2->name, "the compressed cluster at %" G_GUINT64_FORMAT " cannot be unpacked",
                 at);
    return EIO;
}

static int unpack_cluster(struct qcow2 *qcow2, uint64_t entry)
{
    uint64_t at, size;
    bool zstd = qcow2->header.compression;
    if (!qcow2_packed_range(qcow2, entry, &at, &size))
        return qcow2_corrupt(qcow2, "the place of a compressed cluster", at);
    if (!qcow2->packed)
        qcow2->packed = g_try_malloc(2 * qcow2->cluster); /* of which the entry has the bits */
    if (!qcow2->unpacked)
        qcow2->unpacked = g_try_malloc(qcow2->cluster);
    if (!qcow2->packed || !qcow2->unpacked)
        return ENOMEM;
    qcow2->unpacked_entry = 0;
    int error = raw_read(qcow2->mapped.file, qcow2->packed, size, at);
    if (error)
        return error;
    if (!(zstd ? unzstd_all : inflate_all)(&qcow2->inflater, qcow2->packed, size, qcow2->unpacked,
                                           qcow2->cluster))
        return complain(qcow2, at);
    qcow2->unpacked_entry = entry;
    return 0;
}

int qcow2_unpack(struct mapped *mapped, const struct extent *extent, uint64_t offset, void *to,
                 size_t length)
{
    struct qcow2 *qcow2 = qcow2_of(mapped);
    size_t within = offset & (qcow2->cluster - 1);
    int error = qcow2->unpacked_entry == extent->at ? 0 : unpack_cluster(qcow2, extent->at);
    if (error || length > qcow2->cluster - within)
        return error ? error : EINVAL;
    memcpy(to, qcow2->unpacked + within, length);
    return 0;
}

/* --- packing --------------------------------------------------------------------------------- */

static size_t deflate_all(void **state, const uint8_t *from, size_t size, uint8_t *to, size_t room)
{
    z_stream *stream = *state;
    if (!stream) {
        stream = g_try_new0(z_stream, 1);
        if (!stream || deflateInit2(stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -DEFLATE_WINDOW,
                                    MAX_MEM_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK) {
            g_free(stream);
            return 0;
        }
        *state = stream;
    }
    if (deflateReset(stream) != Z_OK)
        return 0;
    stream->next_in = (Bytef *)(uintptr_t)from;
    stream->avail_in = (uInt)size;
    stream->next_out = to;
    stream->avail_out = (uInt)room;
    return deflate(stream, Z_FINISH) == Z_STREAM_END ? room - stream->avail_out : 0;
}

static size_t zstd_all(void **state, const uint8_t *from, size_t size, uint8_t *to, size_t room)
{
    if (!*state)
        *state = ZSTD_createCCtx();
    size_t length = *state ? ZSTD_compress2(*state, to, room, from, size) : 0;
    return ZSTD_isError(length) ? 0 : length;
}

/* The bytes that a cluster becomes, in `packed`; 0: it gets no smaller. */
static size_t pack_cluster(struct qcow2 *qcow2, const uint8_t *from)
{
    if (!qcow2->packed)
        qcow2->packed = g_try_malloc(2 * qcow2->cluster);
    if (!qcow2->packed)
        return 0;
    return (qcow2->header.compression ? zstd_all : deflate_all)(
        &qcow2->deflater, from, qcow2->cluster, qcow2->packed, qcow2->cluster - 1);
}

/* One more reference to a cluster that has some; false: it cannot have more. */
static bool share(struct qcow2 *qcow2, uint64_t cluster)
{
    uint64_t had;
    return !qcow2_get_refcount(qcow2, cluster, &had) && had &&
           !qcow2_set_refcount(qcow2, cluster, had + 1);
}

/* Room for that many bytes, referenced once more: behind what was packed last, as far as there is
 * some, and in a new cluster. */
static int find_room(struct qcow2 *qcow2, size_t length, uint64_t *at)
{
    uint64_t last = qcow2->pack_at >> qcow2->bits, first, count;
    uint64_t room = qcow2->pack_at ? qcow2->cluster - (qcow2->pack_at & (qcow2->cluster - 1)) : 0;
    bool blank;
    *at = qcow2->pack_at;
    if (length <= room && share(qcow2, last))
        return 0;
    int error = qcow2_allocate_clusters(qcow2, 1, &first, &count, &blank);
    if (error)
        return error;
    if (length <= room || !room || first != last + 1 || !share(qcow2, last))
        *at = first << qcow2->bits;
    return 0;
}

static void give_up_room(struct qcow2 *qcow2, uint64_t at, size_t length)
{
    uint64_t first = at >> qcow2->bits, last = (at + length - 1) >> qcow2->bits;
    if (qcow2_release(qcow2, first, last - first + 1))
        qcow2->losing = true;
    qcow2->pack_at = 0;
}

static void enter_packed(struct qcow2 *qcow2, struct table_piece *slice, uint64_t offset,
                         uint64_t entry)
{
    uint8_t *place_of = qcow2_entry(qcow2, slice, qcow2_slice_entry(qcow2, offset));
    qcow2_lose_entry(qcow2, be64_at(place_of));
    mapped_lock(&qcow2->mapped);
    memset(place_of, 0, 1ULL << qcow2->entry_bits);
    put_be64(place_of, entry);
    qcow2->mapped.dirty = true;
    mapped_unlock(&qcow2->mapped);
    table_dirty(&qcow2->l2, slice);
}

/* What is in `packed` becomes the cluster at `offset` of the disk. */
static int put_packed(struct qcow2 *qcow2, uint64_t offset, size_t length)
{
    unsigned x = 62 - (qcow2->bits - 8); /* bits of the place in the file */
    struct table_piece *slice;
    uint64_t at;
    int error = qcow2_own_slice(qcow2, offset, &slice);
    if (!error)
        error = find_room(qcow2, length, &at);
    if (error)
        return error;
    uint64_t sectors = (at % SECTOR + length - 1) / SECTOR;
    error = at >> x ? EFBIG : raw_write(qcow2->mapped.file, qcow2->packed, length, at);
    if (!error)
        error = qcow2_slice(qcow2, offset, &slice); /* it is still in memory */
    if (error || !slice) {
        give_up_room(qcow2, at, length);
        return error ? error : EIO;
    }
    enter_packed(qcow2, slice, offset, ENTRY_PACKED | sectors << x | at);
    qcow2->pack_at = (at + length) & (qcow2->cluster - 1) ? at + length : 0;
    return 0;
}

/* A whole cluster; `length` is what the disk has of it. */
static int write_packed(struct qcow2 *qcow2, const uint8_t *from, uint64_t length, uint64_t offset)
{
    g_mutex_lock(&qcow2->mapped.work);
    size_t size = pack_cluster(qcow2, from);
    int error = size ? put_packed(qcow2, offset, size) : 0;
    g_mutex_unlock(&qcow2->mapped.work);
    return size ? error : disk_write(&qcow2->mapped.worker.disk, from, length, offset);
}

int qcow2_pack(struct disk *disk, const void *from, uint64_t length, uint64_t offset)
{
    struct qcow2 *qcow2 = (struct qcow2 *)disk;
    uint64_t cluster = qcow2->cluster;
    g_autofree uint8_t *last = NULL; /* the disk's, filled up */
    int error = disk->readonly || offset & (cluster - 1) ? EINVAL : 0;
    for (uint64_t done = 0, n; done < length && !error; done += n) {
        const uint8_t *data = (const uint8_t *)from + done;
        n = MIN(cluster, length - done);
        if (n < cluster) {
            last = g_try_malloc0(cluster);
            if (!last || offset + length != disk->size)
                return last ? EINVAL : ENOMEM;
            data = memcpy(last, data, n);
        }
        if (data[0] || memcmp(data, data + 1, n - 1) != 0)
            error = write_packed(qcow2, data, n, offset + done);
    }
    return error;
}

void qcow2_free_packer(struct qcow2 *qcow2)
{
    if (qcow2->header.compression)
        ZSTD_freeDCtx(qcow2->inflater);
    else if (qcow2->inflater)
        inflateEnd(qcow2->inflater);
    if (qcow2->header.compression)
        ZSTD_freeCCtx(qcow2->deflater);
    else if (qcow2->deflater)
        deflateEnd(qcow2->deflater);
    if (!qcow2->header.compression) {
        g_free(qcow2->inflater);
        g_free(qcow2->deflater);
    }
    g_free(qcow2->packed);
    g_free(qcow2->unpacked);
}
