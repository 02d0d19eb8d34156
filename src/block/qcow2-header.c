/* The header of a qcow2 image and its extensions: read, judged, and the few fields of it that
 * change. All that is not understood stays as it is. */
#include "block/qcow2-core.h"

#include "base/error.h"
#include "block/raw.h"

#include <errno.h>

/* Byte offsets of the fields ("Header"). */
enum {
    AT_VERSION = 4,
    AT_BACKING = 8,
    AT_BACKING_LENGTH = 16,
    AT_CLUSTER_BITS = 20,
    AT_SIZE = 24,
    AT_ENCRYPTION = 32,
    AT_L1_SIZE = 36,
    AT_L1 = 40,
    AT_REFCOUNT_TABLE = 48,
    AT_REFCOUNT_TABLE_CLUSTERS = 56,
    AT_SNAPSHOTS = 60,
    AT_SNAPSHOT_TABLE = 64,
    AT_INCOMPATIBLE = 72,
    AT_COMPATIBLE = 80,
    AT_AUTOCLEAR = 88,
    AT_REFCOUNT_ORDER = 96,
    AT_LENGTH = 100,
    AT_COMPRESSION = 104,
    EXT_HEAD = 8,
    FEATURE = 48, /* bytes of an entry of the feature name table */
    V2_REFCOUNT_ORDER = 4,
};

static void decode(const uint8_t *head, struct qcow2_header *header)
{
    *header = (struct qcow2_header){
        .version = be32_at(head + AT_VERSION),
        .backing_at = be64_at(head + AT_BACKING),
        .backing_length = be32_at(head + AT_BACKING_LENGTH),
        .cluster_bits = be32_at(head + AT_CLUSTER_BITS),
        .size = be64_at(head + AT_SIZE),
        .encryption = be32_at(head + AT_ENCRYPTION),
        .l1_size = be32_at(head + AT_L1_SIZE),
        .l1_at = be64_at(head + AT_L1),
        .refcount_table_at = be64_at(head + AT_REFCOUNT_TABLE),
        .refcount_table_clusters = be32_at(head + AT_REFCOUNT_TABLE_CLUSTERS),
        .snapshots = be32_at(head + AT_SNAPSHOTS),
        .snapshots_at = be64_at(head + AT_SNAPSHOT_TABLE),
        .refcount_order = V2_REFCOUNT_ORDER,
        .length = QCOW2_V2_LENGTH,
    };
    if (header->version < 3)
        return;
    header->incompatible = be64_at(head + AT_INCOMPATIBLE);
    header->compatible = be64_at(head + AT_COMPATIBLE);
    header->autoclear = be64_at(head + AT_AUTOCLEAR);
    header->refcount_order = be32_at(head + AT_REFCOUNT_ORDER);
    header->length = be32_at(head + AT_LENGTH);
    if (header->length > AT_COMPRESSION)
        header->compression = head[AT_COMPRESSION];
}

uint8_t *qcow2_extension(struct disk *file, const struct qcow2_header *header, uint32_t type,
                         size_t *length)
{
    uint64_t at = header->length;
    uint64_t end = header->backing_at ? header->backing_at : 1ULL << header->cluster_bits;
    uint8_t head[EXT_HEAD];
    while (at + EXT_HEAD <= end && !raw_read(file, head, sizeof head, at)) {
        uint32_t found = be32_at(head), size = be32_at(head + 4);
        at += EXT_HEAD;
        if (found == EXT_END || size > end - at)
            break;
        if (found == type) {
            uint8_t *data = g_try_malloc((gsize)size + 1);
            if (!data || raw_read(file, data, size, at)) {
                g_free(data);
                return NULL;
            }
            data[size] = 0;
            *length = size;
            return data;
        }
        at += (uint64_t)(size + 7ULL) / 8 * 8;
    }
    return NULL;
}

/* --- judging --------------------------------------------------------------------------------- */

/* A feature that only the image has a name for. */
static bool refuse_feature(struct disk *file, const char *name, const struct qcow2_header *header,
                           unsigned bit, GError **error)
{
    size_t length = 0;
    g_autofree uint8_t *table = qcow2_extension(file, header, EXT_FEATURES, &length);
    char found[FEATURE - 1] = "";
    for (size_t at = 0; table && at + FEATURE <= length; at += FEATURE)
        if (table[at] == 0 && table[at + 1] == bit)
            memcpy(found, table + at + 2, FEATURE - 2);
    for (char *c = found; *c; c++)
        if (*c < ' ' || *c > '~') /* it goes to a terminal */
            *c = '?';
    return hv_fail(error, HV_FAILED,
                   "%s: this qcow2 image needs a feature that is not supported: %s (bit %u)", name,
                   *found ? found : "unknown", bit);
}

static bool judge_features(struct disk *file, const char *name, const struct qcow2_header *header,
                           GError **error)
{
    static const char *const methods[] = { "", "AES", "LUKS" };
    uint64_t known = QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_DATA_FILE | QCOW2_ZSTD | QCOW2_SUB;
    if (header->encryption)
        return hv_fail(error, HV_FAILED, "%s: encrypted qcow2 images are not supported (%s)", name,
                       header->encryption < G_N_ELEMENTS(methods) ? methods[header->encryption]
                                                                  : "an unknown method");
    if (header->incompatible & ~known)
        return refuse_feature(file, name, header,
                              (unsigned)__builtin_ctzll(header->incompatible & ~known), error);
    if (header->incompatible & QCOW2_DATA_FILE)
        return hv_fail(error, HV_FAILED,
                       "%s: qcow2 images with an external data file are not supported; "
                       "qemu-img convert makes one file of them",
                       name);
    if (header->compression > 1 ||
        (header->compression == 1) != !!(header->incompatible & QCOW2_ZSTD))
        return hv_fail(error, HV_FAILED, "%s: its compression type (%u) is not supported", name,
                       header->compression);
    return true;
}

/* A table of `size` bytes: where it can be, and within the file? */
static bool table_fits(const struct qcow2_header *header, uint64_t at, uint64_t size, uint64_t end)
{
    uint64_t cluster = 1ULL << header->cluster_bits;
    return !size || (at % cluster == 0 && at >= cluster && at < end && size <= end - at);
}

static const char *find_fault(const struct qcow2_header *header, uint64_t end)
{
    bool sub = header->incompatible & QCOW2_SUB;
    if (header->cluster_bits < MIN_CLUSTER_BITS || header->cluster_bits > MAX_CLUSTER_BITS ||
        (sub && header->cluster_bits < 14))
        return "its cluster size";
    uint64_t cluster = 1ULL << header->cluster_bits;
    if (header->version > 2 && (header->length < QCOW2_V3_LENGTH || header->length % 8))
        return "the length of its header";
    if (header->length > cluster)
        return "the length of its header";
    if (header->refcount_order > 6)
        return "the width of its refcounts";
    if (header->backing_at &&
        (header->backing_at < header->length || header->backing_at >= cluster ||
         header->backing_length > MAX_BACKING_NAME ||
         header->backing_length > cluster - header->backing_at))
        return "the place of its backing file's name";
    unsigned l1_bits = 2 * header->cluster_bits - (sub ? 4 : 3);
    if (header->l1_size > MAX_L1 / 8 || header->size > (uint64_t)INT64_MAX - cluster ||
        (header->size + (1ULL << l1_bits) - 1) >> l1_bits > header->l1_size)
        return "its size, or that of its L1 table";
    if (!table_fits(header, header->l1_at, header->l1_size * 8ULL, end))
        return "the place of its L1 table";
    if (!header->refcount_table_clusters ||
        header->refcount_table_clusters > MAX_REFCOUNT_TABLE / cluster ||
        !table_fits(header, header->refcount_table_at, header->refcount_table_clusters * cluster,
                    end))
        return "its refcount table";
    if (header->snapshots > MAX_SNAPSHOTS ||
        !table_fits(header, header->snapshots_at, header->snapshots ? 1 : 0, end))
        return "its snapshot table";
    return NULL;
}

bool qcow2_read_header(struct disk *file, const char *name, uint8_t head[QCOW2_HEAD],
                       struct qcow2_header *header, GError **error)
{
    uint64_t end = 0;
    int failure = raw_length(file, &end);
    if (!failure)
        failure = raw_read(file, head, QCOW2_HEAD, 0);
    if (failure)
        return hv_fail(error, HV_FAILED, "%s: cannot be read: %s", name, g_strerror(failure));
    if (memcmp(head, "QFI\xfb", 4) != 0)
        return hv_fail(error, HV_FAILED, "%s: this is no qcow2 image", name);
    decode(head, header);
    if (header->version < 2 || header->version > 3)
        return hv_fail(error, HV_FAILED, "%s: qcow2 version %u is not supported", name,
                       header->version);
    /* Tables end with the last cluster of the file, which may not be there as a whole. */
    uint64_t round = header->cluster_bits <= MAX_CLUSTER_BITS ? 1ULL << header->cluster_bits : 1;
    const char *fault = end > MAX_FILE ? "the size of the file"
                                       : find_fault(header, (end + round - 1) / round * round);
    if (fault)
        return hv_fail(error, HV_FAILED, "%s: the header of this qcow2 image cannot be right: %s",
                       name, fault);
    if (!judge_features(file, name, header, error))
        return false;
    if (!header->size)
        return hv_fail(error, HV_USAGE, "%s: the disk in this qcow2 image has no room: 0 bytes",
                       name);
    return true;
}

/* --- changes --------------------------------------------------------------------------------- */

int qcow2_write_header(struct qcow2 *qcow2)
{
    const struct qcow2_header *header = &qcow2->header;
    uint8_t *head = qcow2->head;
    put_be64(head + AT_BACKING, header->backing_at);
    put_be32(head + AT_BACKING_LENGTH, header->backing_length);
    put_be64(head + AT_SIZE, header->size);
    put_be32(head + AT_L1_SIZE, header->l1_size);
    put_be64(head + AT_L1, header->l1_at);
    put_be64(head + AT_REFCOUNT_TABLE, header->refcount_table_at);
    put_be32(head + AT_REFCOUNT_TABLE_CLUSTERS, header->refcount_table_clusters);
    if (header->version > 2) {
        put_be64(head + AT_INCOMPATIBLE, header->incompatible);
        put_be64(head + AT_AUTOCLEAR, header->autoclear);
    }
    return raw_write(qcow2->mapped.file, head, QCOW2_HEAD, 0);
}

int qcow2_begin(struct qcow2 *qcow2)
{
    if (qcow2->corrupt || qcow2->broken || !qcow2->writable)
        return EIO;
    if (qcow2->marked || qcow2->header.version < 3)
        return 0;
    uint64_t before = qcow2->header.incompatible;
    qcow2->header.incompatible |= QCOW2_DIRTY;
    int error = qcow2_write_header(qcow2);
    if (!error)
        error = raw_sync(qcow2->mapped.file);
    if (error)
        qcow2->header.incompatible = before;
    qcow2->marked = !error;
    return error;
}

int qcow2_corrupt(struct qcow2 *qcow2, const char *what, uint64_t where)
{
    const char *name = qcow2->name;
    if (log_limit_pass(&qcow2->limit, name))
        log_warn(name, "the image is damaged: %s (0x%" G_GINT64_MODIFIER "x)%s", what, where,
                 qcow2->writable && !qcow2->corrupt
                     ? "; nothing more is written to it. `hv image check --repair` may help"
                     : "");
    if (!qcow2->writable || qcow2->corrupt)
        return EIO;
    mapped_lock(&qcow2->mapped);
    qcow2->corrupt = true;
    qcow2->quick = false;
    mapped_unlock(&qcow2->mapped);
    if (qcow2->header.version > 2) {
        qcow2->header.incompatible |= QCOW2_CORRUPT;
        if (qcow2_write_header(qcow2) || raw_sync(qcow2->mapped.file))
            log_warn(name, "the image cannot be marked as damaged");
    }
    return EIO;
}
