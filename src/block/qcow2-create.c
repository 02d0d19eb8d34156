/* New qcow2 images: the header, a refcount table with the blocks for what is there, and an L1 table
 * without entries, in that order. */
#include "block/qcow2-core.h"

#include "base/error.h"
#include "block/raw.h"

#include <errno.h>
#include <unistd.h>

struct layout {
    unsigned bits, order, length; /* of a cluster; of refcounts; of the header */
    uint64_t cluster;             /* bytes */
    uint64_t table, blocks, l1;   /* clusters each has */
    uint64_t l1_size;             /* entries */
    uint64_t total;               /* clusters */
};

static bool judge(const struct qcow2_options *options, const char *name, GError **error)
{
    bool new = options->zstd || options->extended || options->lazy || options->refcount != 16;
    uint32_t cluster = options->cluster;
    if (cluster & (cluster - 1) || cluster < 512 || cluster > 2 << 20)
        return hv_fail(error, HV_USAGE,
                       "%s: the cluster size must be a power of two from 512 bytes to 2 MiB", name);
    if (options->version < 2 || options->version > 3)
        return hv_fail(error, HV_USAGE, "%s: there is no qcow2 version %u", name, options->version);
    if (options->version < 3 && new)
        return hv_fail(error, HV_USAGE, "%s: these options need qcow2 version 3", name);
    if (options->extended && cluster < 16384)
        return hv_fail(error, HV_USAGE, "%s: subclusters need clusters of 16 KiB at least", name);
    if (!options->refcount || options->refcount > 64 || options->refcount & (options->refcount - 1))
        return hv_fail(error, HV_USAGE,
                       "%s: the width of refcounts must be a power of two from 1 to 64 bits", name);
    if (!options->size || options->size % SECTOR || options->size > (uint64_t)INT64_MAX - cluster)
        return hv_fail(error, HV_USAGE, "%s: the size of a disk must be a multiple of 512 bytes",
                       name);
    return true;
}

static bool plan(const struct qcow2_options *options, struct layout *layout)
{
    unsigned bits = (unsigned)__builtin_ctz(options->cluster);
    unsigned l1_bits = 2 * bits - (options->extended ? 4 : 3);
    *layout = (struct layout){
        .bits = bits,
        .order = (unsigned)__builtin_ctz(options->refcount),
        .length = options->version < 3 ? QCOW2_V2_LENGTH : QCOW2_V3_LENGTH + 8,
        .cluster = options->cluster,
        .l1_size = (options->size + (1ULL << l1_bits) - 1) >> l1_bits,
        .table = 1,
        .blocks = 1,
    };
    uint64_t per_block = (layout->cluster * 8) >> layout->order, before;
    layout->l1 = (layout->l1_size * 8 + layout->cluster - 1) >> bits;
    do { /* the blocks count themselves */
        before = layout->total;
        layout->total = 1 + layout->table + layout->blocks + layout->l1;
        layout->blocks = (layout->total + per_block - 1) / per_block;
        layout->table = (layout->blocks * 8 + layout->cluster - 1) >> bits;
    } while (layout->total != before);
    return layout->l1_size <= MAX_L1 / 8;
}

/* --- the header ------------------------------------------------------------------------------ */

/* Appends an extension; false when it does not fit. */
static bool extend(uint8_t *head, size_t *at, size_t end, uint32_t type, const void *data,
                   size_t length)
{
    size_t whole = 8 + (length + 7) / 8 * 8;
    if (*at + whole > end)
        return false;
    put_be32(head + *at, type);
    put_be32(head + *at + 4, (uint32_t)length);
    memcpy(head + *at + 8, data, length);
    *at += whole;
    return true;
}

const char *qcow2_foreign_name(const char *format)
{
    return strcmp(format, "vhd") ? format : "vpc";
}

static void name_features(uint8_t *head, size_t *at, size_t end)
{
    static const struct {
        uint8_t kind, bit;
        char name[46];
    } features[] = {
        { 0, 0, "dirty bit" },           { 0, 1, "corrupt bit" },    { 0, 3, "compression type" },
        { 0, 4, "extended L2 entries" }, { 1, 0, "lazy refcounts" },
    };
    _Static_assert(sizeof features[0] == 48, "an entry of the feature name table");
    extend(head, at, end, EXT_FEATURES, features, sizeof features);
}

static void fill(uint8_t *head, const struct qcow2_options *options, const struct layout *layout)
{
    memcpy(head, "QFI\xfb", 4);
    put_be32(head + 4, options->version);
    put_be32(head + 20, layout->bits);
    put_be64(head + 24, options->size);
    put_be32(head + 36, (uint32_t)layout->l1_size);
    put_be64(head + 40, (1 + layout->table + layout->blocks) << layout->bits);
    put_be64(head + 48, layout->cluster);
    put_be32(head + 56, (uint32_t)layout->table);
    if (options->version < 3)
        return;
    put_be64(head + 72, (options->zstd ? QCOW2_ZSTD : 0) | (options->extended ? QCOW2_SUB : 0));
    put_be64(head + 80, options->lazy ? QCOW2_LAZY : 0);
    put_be32(head + 96, layout->order);
    put_be32(head + 100, layout->length);
    head[104] = options->zstd;
}

/* The first cluster. False: the names do not fit. */
static bool fill_cluster(uint8_t *head, const struct qcow2_options *options,
                         const struct layout *layout)
{
    size_t at = layout->length, name = options->backing ? strlen(options->backing) : 0;
    size_t end = layout->cluster - 8; /* for the end of the extensions */
    if (name > MAX_BACKING_NAME || name > end - at)
        return false;
    end -= name;
    fill(head, options, layout);
    if (name && options->format) {
        const char *format = qcow2_foreign_name(options->format);
        if (!extend(head, &at, end, EXT_BACKING, format, strlen(format)))
            return false;
    }
    if (options->version > 2)
        name_features(head, &at, end);
    at += 8;
    if (name) {
        put_be64(head + 8, at);
        put_be32(head + 16, (uint32_t)name);
        memcpy(head + at, options->backing, name);
    }
    return true;
}

/* --- writing --------------------------------------------------------------------------------- */

static int put(int fd, const void *from, size_t length, uint64_t at)
{
    struct iovec iov = { (void *)(uintptr_t)from, length };
    return raw_transfer(&raw_system_io, fd, true, &iov, 1, at);
}

/* `buffer` is a cluster. */
static int write_all(int fd, const struct layout *layout, uint8_t *buffer, const uint8_t *head)
{
    uint64_t per_block = (layout->cluster * 8) >> layout->order, first = 1 + layout->table;
    uint64_t length = layout->total << layout->bits;
    int error = TEMP_FAILURE_RETRY(ftruncate(fd, (off_t)length)) < 0 ? errno : 0;
    for (uint64_t i = 0; i < layout->blocks && !error; i++) {
        uint8_t entry[8];
        put_be64(entry, (first + i) << layout->bits);
        memset(buffer, 0, layout->cluster);
        for (uint64_t k = 0; k < per_block && i * per_block + k < layout->total; k++)
            qcow2_put_count(buffer, layout->order, k, 1);
        error = put(fd, entry, sizeof entry, layout->cluster + i * 8);
        if (!error)
            error = put(fd, buffer, layout->cluster, (first + i) << layout->bits);
    }
    return error ? error : put(fd, head, layout->cluster, 0);
}

bool qcow2_create(int fd, const char *name, const struct qcow2_options *options, GError **error)
{
    struct qcow2_options full = *options;
    struct layout layout;
    full.cluster = full.cluster ? full.cluster : 65536;
    full.version = full.version ? full.version : 3;
    full.refcount = full.refcount ? full.refcount : 16;
    if (!judge(&full, name, error))
        return false;
    if (!plan(&full, &layout))
        return hv_fail(error, HV_USAGE,
                       "%s: a disk of that size needs larger clusters than %u bytes", name,
                       full.cluster);
    g_autofree uint8_t *head = g_try_malloc0(layout.cluster);
    g_autofree uint8_t *buffer = g_try_malloc(layout.cluster);
    if (!head || !buffer)
        return hv_fail(error, HV_HOST, "%s: there is no memory for it", name);
    if (!fill_cluster(head, &full, &layout))
        return hv_fail(error, HV_USAGE, "%s: the name of the disk below is too long", name);
    int failure = write_all(fd, &layout, buffer, head);
    return !failure ||
           hv_fail(error, HV_FAILED, "%s: cannot be written: %s", name, g_strerror(failure));
}
