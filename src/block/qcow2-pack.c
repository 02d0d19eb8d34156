/* Compressed clusters of qcow2 images: deflate without zlib's header, or zstd. The last one that
 * was unpacked is kept, for who reads on. What comes out is never more than a cluster. */
#include "block/qcow2-core.h"

#include "block/raw.h"

#include <errno.h>
#include <zlib.h>
#include <zstd.h>

enum { ZSTD_WINDOW = 22 /* bits: twice the largest cluster; a frame can ask for much more */ };

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

void qcow2_free_packer(struct qcow2 *qcow2)
{
    if (qcow2->header.compression)
        ZSTD_freeDCtx(qcow2->inflater);
    else if (qcow2->inflater)
        inflateEnd(qcow2->inflater);
    if (!qcow2->header.compression)
        g_free(qcow2->inflater);
    g_free(qcow2->packed);
    g_free(qcow2->unpacked);
}
