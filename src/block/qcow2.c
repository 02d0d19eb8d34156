/* qcow2 images as disks: opening and closing. What is where is qcow2-map.c's, writing
 * qcow2-write.c's. */
#include "block/qcow2-core.h"

#include "base/error.h"
#include "block/raw.h"

#include <errno.h>

enum {
    L2_SETS = 128,      /* at most: 4 MiB */
    REFCOUNT_SETS = 16, /* 512 KiB */
};

/* How far behind the end of the file clusters are left unused because damaged tables name them. */
#define FAR (4ULL << 30)

/* Tables read for repairing a dirty image when it is opened. */
#define REPAIR_BUDGET (1ULL << 30)

/* --- in memory ------------------------------------------------------------------------------- */

static unsigned log2_of(uint64_t power)
{
    return (unsigned)__builtin_ctzll(power);
}

static void derive(struct qcow2 *qcow2, uint64_t length)
{
    const struct qcow2_header *header = &qcow2->header;
    bool sub = header->incompatible & QCOW2_SUB;
    qcow2->bits = header->cluster_bits;
    qcow2->cluster = 1ULL << qcow2->bits;
    qcow2->sub_bits = qcow2->bits - (sub ? log2_of(SUBCLUSTERS) : 0);
    qcow2->entry_bits = sub ? 4 : 3;
    qcow2->l1_bits = 2 * qcow2->bits - qcow2->entry_bits;
    unsigned piece_bits = MIN(qcow2->bits, log2_of(PIECE));
    qcow2->slice_bits = piece_bits - qcow2->entry_bits;
    qcow2->refs_bits = piece_bits + 3 - header->refcount_order;
    qcow2->block_bits = qcow2->bits + 3 - header->refcount_order;
    qcow2->l1_size = header->l1_size;
    qcow2->end = (length + qcow2->cluster - 1) / qcow2->cluster * qcow2->cluster;
}

/* Sets for all pieces that the disk has, when these are few. */
static unsigned l2_sets(const struct qcow2 *qcow2)
{
    uint64_t pieces = (qcow2->header.size >> (qcow2->bits + qcow2->slice_bits)) + 1;
    unsigned sets = 1;
    while (sets < L2_SETS && sets * TABLE_WAYS < pieces)
        sets *= 2;
    return sets;
}

static void find_virgin(struct qcow2 *qcow2)
{
    uint64_t most = qcow2->end;
    for (size_t i = 0; i < qcow2->l1_size; i++)
        most = MAX(most, (qcow2->l1[i] & ENTRY_OFFSET) + qcow2->cluster);
    for (size_t i = 0; i < qcow2->refcount_table_size; i++)
        if (qcow2->refcount_table[i] < MAX_FILE)
            most = MAX(most, qcow2->refcount_table[i] + qcow2->cluster);
    most = MIN(most, qcow2->end + FAR);
    qcow2->virgin = (most + qcow2->cluster - 1) >> qcow2->bits;
}

static int load_counts(struct qcow2 *qcow2)
{
    const struct qcow2_header *header = &qcow2->header;
    size_t size = header->refcount_table_clusters * qcow2->cluster / 8;
    qcow2->refcount_table_size = size;
    qcow2->refcount_table = g_try_new(uint64_t, size);
    if (!qcow2->refcount_table || !table_init(&qcow2->refcounts, REFCOUNT_SETS, PIECE))
        return ENOMEM;
    qcow2->refcounts.size = qcow2->l2.size;
    int error =
        table_read_all(qcow2->mapped.file, header->refcount_table_at, qcow2->refcount_table, size);
    for (size_t i = 0; i < size && !error; i++)
        if (qcow2->refcount_table[i])
            qcow2->refcount_table_used = i + 1;
    return error;
}

bool qcow2_load(struct qcow2 *qcow2, struct disk *file, const char *name, bool counted,
                GError **error)
{
    uint64_t length = 0;
    qcow2->mapped.file = file;
    qcow2->name = g_strdup(name);
    if (!qcow2_read_header(file, name, qcow2->head, &qcow2->header, error))
        return false;
    int failure = raw_length(file, &length);
    derive(qcow2, length);
    qcow2->l1 = g_try_new(uint64_t, qcow2->l1_size);
    if (!qcow2->l1 || !table_init(&qcow2->l2, l2_sets(qcow2), MIN(qcow2->cluster, PIECE)))
        failure = ENOMEM;
    if (!failure)
        failure = table_read_all(file, qcow2->header.l1_at, qcow2->l1, qcow2->l1_size);
    if (!failure && counted)
        failure = load_counts(qcow2);
    if (failure)
        return hv_fail(error, HV_FAILED, "%s: its tables cannot be read: %s", name,
                       g_strerror(failure));
    find_virgin(qcow2);
    qcow2->writable = counted && !file->readonly;
    qcow2->quick = qcow2->entry_bits == 3;
    qcow2->marked = qcow2->header.incompatible & QCOW2_DIRTY;
    qcow2->lazy = qcow2->header.compatible & QCOW2_LAZY;
    return !counted || qcow2_read_snapshots(qcow2, name, error);
}

void qcow2_unload(struct qcow2 *qcow2)
{
    qcow2_free_snapshots(qcow2);
    qcow2_free_packer(qcow2);
    table_free(&qcow2->l2);
    table_free(&qcow2->refcounts);
    g_free(qcow2->l1);
    g_free(qcow2->refcount_table);
    g_free(qcow2->lost);
    g_free(qcow2->reuse);
    g_free(qcow2->name);
}

/* --- a disk ---------------------------------------------------------------------------------- */

static void close_image(struct mapped *mapped)
{
    struct qcow2 *qcow2 = qcow2_of(mapped);
    if (qcow2->writable)
        qcow2_end(qcow2);
    qcow2_unload(qcow2);
}

static const struct mapped_format calls = {
    .name = "qcow2",
    .keeps = true,
    .peek = qcow2_peek,
    .map = qcow2_map,
    .unpack = qcow2_unpack,
    .allocate = qcow2_allocate,
    .commit = qcow2_commit,
    .cancel = qcow2_cancel,
    .zero = qcow2_zero,
    .flush = qcow2_flush,
    .owes = qcow2_owes,
    .close = close_image,
};

static bool repair(struct qcow2 *qcow2, const char *name, GError **error)
{
    struct format_report report = { 0 };
    int failure = qcow2_compare(qcow2, true, REPAIR_BUDGET, &report);
    if (failure == E2BIG)
        return hv_fail(error, HV_FAILED,
                       "%s was not closed by who used it last, and is too large to be looked "
                       "through now: run `hv image check --repair`",
                       name);
    if (failure)
        return hv_fail(error, HV_FAILED, "%s was not closed, and cannot be repaired: %s", name,
                       g_strerror(failure));
    if (report.corruptions > report.corruptions_fixed)
        return hv_fail(error, HV_FAILED,
                       "%s is damaged and cannot be written to; it can be read (readonly)", name);
    if (report.corruptions_fixed || report.leaks_fixed)
        log_info(name,
                 "it was not closed: %" G_GUINT64_FORMAT " refcounts corrected, %" G_GUINT64_FORMAT
                 " clusters given back",
                 report.corruptions_fixed, report.leaks_fixed);
    return true;
}

/* What must be done before anything is written. */
static bool prepare_writing(struct qcow2 *qcow2, const char *name, GError **error)
{
    struct qcow2_header *header = &qcow2->header;
    if (!qcow2->writable)
        return true;
    if (header->incompatible & QCOW2_CORRUPT)
        return hv_fail(error, HV_FAILED,
                       "%s is marked as damaged, and is not written to: run `hv image check "
                       "--repair`, or use it readonly",
                       name);
    if (header->incompatible & QCOW2_DIRTY && !repair(qcow2, name, error))
        return false;
    if (!header->autoclear)
        return true;
    header->autoclear = 0; /* none of those features is kept up to date */
    int failure = qcow2_write_header(qcow2);
    if (!failure)
        failure = raw_sync(qcow2->mapped.file);
    return !failure ||
           hv_fail(error, HV_FAILED, "%s: cannot be written to: %s", name, g_strerror(failure));
}

static bool switch_to(struct qcow2 *qcow2, const char *name, const char *snapshot, GError **error)
{
    const struct qcow2_snapshot *found = NULL;
    if (!qcow2_read_snapshots(qcow2, name, error))
        return false;
    for (uint32_t i = 0; i < qcow2->header.snapshots && !found; i++)
        if (!strcmp(qcow2->snapshots[i].id, snapshot))
            found = &qcow2->snapshots[i];
    for (uint32_t i = 0; i < qcow2->header.snapshots && !found; i++)
        if (!strcmp(qcow2->snapshots[i].name, snapshot))
            found = &qcow2->snapshots[i];
    if (!found)
        return hv_fail(error, HV_USAGE, "%s has no snapshot %s", name, snapshot);
    uint64_t size = found->size ? found->size : qcow2->header.size;
    if (size > INT64_MAX ||
        (size + (1ULL << qcow2->l1_bits) - 1) >> qcow2->l1_bits > found->l1_size)
        return hv_fail(error, HV_FAILED, "%s: the L1 table of snapshot %s is too small", name,
                       snapshot);
    g_free(qcow2->l1);
    qcow2->l1_size = found->l1_size;
    qcow2->l1 = g_try_new(uint64_t, qcow2->l1_size);
    int failure = qcow2->l1
                      ? table_read_all(qcow2->mapped.file, found->l1_at, qcow2->l1, qcow2->l1_size)
                      : ENOMEM;
    qcow2->header.size = size;
    return !failure || hv_fail(error, HV_FAILED, "%s: snapshot %s cannot be read: %s", name,
                               snapshot, g_strerror(failure));
}

static struct disk *open_image(const struct format_parts *parts, const char *snapshot,
                               GError **error)
{
    struct qcow2 *qcow2 = g_try_new0(struct qcow2, 1);
    bool writable = !snapshot && !parts->file->readonly;
    bool ok = qcow2 ? qcow2_load(qcow2, parts->file, parts->name, writable, error)
                    : hv_fail(error, HV_HOST, "%s: there is no memory for it", parts->name);
    if (ok)
        ok = snapshot ? switch_to(qcow2, parts->name, snapshot, error)
                      : prepare_writing(qcow2, parts->name, error);
    if (ok && !mapped_init(&qcow2->mapped, &calls, parts->name, parts->file, parts->below,
                           1ULL << qcow2->sub_bits))
        ok = hv_fail(error, HV_HOST, "%s: there is no memory for it", parts->name);
    if (!ok) {
        if (qcow2)
            qcow2_unload(qcow2);
        g_free(qcow2);
        return NULL;
    }
    struct disk *disk = &qcow2->mapped.worker.disk;
    disk->size = (qcow2->header.size + SECTOR - 1) / SECTOR * SECTOR;
    disk->readonly = !writable;
    return disk;
}

struct disk *qcow2_open_snapshot(const struct format_parts *parts, const char *snapshot,
                                 GError **error)
{
    return open_image(parts, snapshot, error);
}

/* --- the format ------------------------------------------------------------------------------ */

static struct disk *open_top(const struct format_parts *parts, GError **error)
{
    return open_image(parts, NULL, error);
}

static bool probe(const struct format_head *head)
{
    return !memcmp(head->head, "QFI\xfb", 4); /* of a version that is not known too */
}

/* The names that are found in images, where hv has others. */
static char *format_of(const char *found)
{
    static const char *const names[][2] = {
        { "vpc", "vhd" },
        { "file", "raw" },
        { "host_device", "raw" },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
        if (!strcmp(found, names[i][0]))
            return g_strdup(names[i][1]);
    return g_strdup(found);
}

static bool links(struct disk *file, const char *name, GPtrArray *links_, GError **error)
{
    uint8_t head[QCOW2_HEAD];
    struct qcow2_header header;
    char backing[MAX_BACKING_NAME + 1] = "";
    size_t length = 0;
    if (!qcow2_read_header(file, name, head, &header, error))
        return false;
    if (!header.backing_at || !header.backing_length)
        return true;
    int failure = raw_read(file, backing, header.backing_length, header.backing_at);
    if (failure || strlen(backing) != header.backing_length)
        return hv_fail(error, HV_FAILED, "%s: the name of its backing file cannot be read", name);
    g_autofree char *format = (char *)qcow2_extension(file, &header, EXT_BACKING, &length);
    struct format_link *link = g_new0(struct format_link, 1);
    link->name = g_strdup(backing);
    link->format = format && *format ? format_of(format) : NULL;
    link->below = true;
    g_ptr_array_add(links_, link);
    return true;
}

static bool create(int fd, const char *name, const struct format_wish *wish, GError **error)
{
    const char *kind = wish->compression;
    struct qcow2_options options = {
        .size = wish->size,
        .cluster = (uint32_t)MIN(wish->cluster, UINT32_MAX),
        .zstd = kind && !strcmp(kind, "zstd"),
        .backing = wish->below,
        .format = wish->below_format,
    };
    if (kind && !options.zstd && strcmp(kind, "zlib"))
        return hv_fail(error, HV_USAGE, "%s: \"zlib\" and \"zstd\" are the compressions of qcow2",
                       name);
    return qcow2_create(fd, name, &options, error);
}

static void tell(struct disk *disk, format_teller *say, void *opaque)
{
    struct qcow2 *qcow2 = (struct qcow2 *)disk;
    const struct qcow2_header *header = &qcow2->header;
    say(opaque, "version", NULL, header->version);
    say(opaque, "cluster", NULL, qcow2->cluster);
    say(opaque, "compression", header->incompatible & QCOW2_ZSTD ? "zstd" : "zlib", 0);
    say(opaque, "refcount_bits", NULL, 1U << header->refcount_order);
    if (header->incompatible & QCOW2_SUB)
        say(opaque, "subclusters", NULL, SUBCLUSTERS);
    if (qcow2->lazy)
        say(opaque, "refcounts", "lazy", 0);
    if (header->incompatible & QCOW2_DIRTY)
        say(opaque, "state", "was not closed: it is repaired when it is opened for writing", 0);
    if (header->incompatible & QCOW2_CORRUPT)
        say(opaque, "state", "corrupt: hv image check --repair", 0);
    /* Those of a readonly disk were not of interest so far. */
    bool known = qcow2->snapshots || qcow2_read_snapshots(qcow2, disk->name, NULL);
    if (!known)
        say(opaque, "state", "its snapshot table cannot be read", 0);
    for (uint32_t i = 0; i < header->snapshots && known; i++) {
        g_autofree char *key = g_strdup_printf("snapshot %s", qcow2->snapshots[i].id);
        say(opaque, key, qcow2->snapshots[i].name, 0);
    }
}

const struct format qcow2_format = {
    .name = "qcow2",
    .what = "a qcow2 disk image",
    .written = true,
    .probe = probe,
    .links = links,
    .open = open_top,
    .create = create,
    .check = qcow2_check,
    .resize = qcow2_resize,
    .pack = qcow2_pack,
    .rebase = qcow2_rebase,
    .tell = tell,
};
