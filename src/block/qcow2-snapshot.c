/* Internal snapshots of qcow2 images: the table of them ("Snapshots"). They are listed, read and
 * kept; none are made. */
#include "block/qcow2-core.h"

#include "base/error.h"
#include "block/raw.h"

#include <errno.h>

enum {
    ENTRY = 40, /* bytes without what varies */
    AT_L1 = 0,
    AT_L1_SIZE = 8,
    AT_ID_LENGTH = 12,
    AT_NAME_LENGTH = 14,
    AT_SECONDS = 16,
    AT_STATE = 32,
    AT_EXTRA_LENGTH = 36,
    EXTRA = 16, /* bytes of the extra data that are of interest */
};

void qcow2_snapshot_clear(void *data)
{
    struct qcow2_snapshot *snapshot = data;
    g_free(snapshot->id);
    g_free(snapshot->name);
}

/* They go to terminals and into JSON. */
static char *read_text(struct disk *file, uint64_t at, size_t length)
{
    g_autofree char *text = g_try_malloc(length + 1);
    if (!text || raw_read(file, text, length, at))
        return NULL;
    text[length] = 0;
    return g_utf8_make_valid(text, -1);
}

static bool table_sane(const struct qcow2 *qcow2, const struct qcow2_snapshot *snapshot)
{
    return snapshot->l1_size <= MAX_L1 / 8 &&
           (!snapshot->l1_size || (qcow2_sane(qcow2, snapshot->l1_at) &&
                                   snapshot->l1_size * 8 <= qcow2->end - snapshot->l1_at));
}

/* The entry at *at, which becomes the place of the next one. 0 or a positive errno. */
static int read_entry(const struct qcow2 *qcow2, uint64_t *at, struct qcow2_snapshot *snapshot)
{
    struct disk *file = qcow2->mapped.file;
    uint8_t head[ENTRY], extra[EXTRA] = { 0 };
    int error = raw_read(file, head, sizeof head, *at);
    size_t extra_length = be32_at(head + AT_EXTRA_LENGTH);
    size_t id = be16_at(head + AT_ID_LENGTH), name = be16_at(head + AT_NAME_LENGTH);
    if (!error && extra_length > MAX_SNAPSHOT_TABLE)
        error = EINVAL;
    if (!error)
        error = raw_read(file, extra, MIN(extra_length, sizeof extra), *at + ENTRY);
    if (error)
        return error;
    *snapshot = (struct qcow2_snapshot){
        .id = read_text(file, *at + ENTRY + extra_length, id),
        .name = read_text(file, *at + ENTRY + extra_length + id, name),
        .l1_at = be64_at(head + AT_L1),
        .l1_size = be32_at(head + AT_L1_SIZE),
        .size = be64_at(extra + 8),
        .state = extra_length >= 8 ? be64_at(extra) : be32_at(head + AT_STATE),
        .when = be32_at(head + AT_SECONDS),
    };
    *at += (ENTRY + extra_length + id + name + 7) / 8 * 8;
    if (!snapshot->id || !snapshot->name)
        return ENOMEM;
    return table_sane(qcow2, snapshot) ? 0 : EINVAL;
}

bool qcow2_read_snapshots(struct qcow2 *qcow2, const char *name, GError **error)
{
    uint32_t count = qcow2->header.snapshots;
    uint64_t start = qcow2->header.snapshots_at, at = start;
    if (!count)
        return true;
    qcow2->snapshots = g_try_new0(struct qcow2_snapshot, count);
    int failure = qcow2->snapshots ? 0 : ENOMEM;
    for (uint32_t i = 0; i < count && !failure; i++) {
        if (at - start > MAX_SNAPSHOT_TABLE || at >= qcow2->end)
            failure = EINVAL;
        else
            failure = read_entry(qcow2, &at, &qcow2->snapshots[i]);
    }
    qcow2->snapshot_table_length = at - start;
    if (failure == EINVAL)
        return hv_fail(error, HV_FAILED, "%s: the snapshot table of this qcow2 image is damaged",
                       name);
    if (failure)
        return hv_fail(error, HV_FAILED, "%s: its snapshot table cannot be read: %s", name,
                       g_strerror(failure));
    return true;
}

void qcow2_free_snapshots(struct qcow2 *qcow2)
{
    for (uint32_t i = 0; qcow2->snapshots && i < qcow2->header.snapshots; i++)
        qcow2_snapshot_clear(&qcow2->snapshots[i]);
    g_free(qcow2->snapshots);
}

bool qcow2_get_info(struct disk *file, const char *name, struct qcow2_info *info, GError **error)
{
    struct qcow2 qcow2 = { 0 };
    const struct qcow2_header *header = &qcow2.header;
    bool ok =
        qcow2_load(&qcow2, file, name, false, error) && qcow2_read_snapshots(&qcow2, name, error);
    if (ok) {
        *info = (struct qcow2_info){
            .version = header->version,
            .refcount_bits = 1U << header->refcount_order,
            .size = header->size,
            .cluster = qcow2.cluster,
            .dirty = header->incompatible & QCOW2_DIRTY,
            .corrupt = header->incompatible & QCOW2_CORRUPT,
            .lazy = header->compatible & QCOW2_LAZY,
            .zstd = header->incompatible & QCOW2_ZSTD,
            .extended = header->incompatible & QCOW2_SUB,
            .snapshots = g_array_new(false, false, sizeof(struct qcow2_snapshot)),
        };
        g_array_set_clear_func(info->snapshots, qcow2_snapshot_clear);
        for (uint32_t i = 0; i < header->snapshots; i++) {
            g_array_append_val(info->snapshots, qcow2.snapshots[i]);
            qcow2.snapshots[i] = (struct qcow2_snapshot){ .id = NULL };
        }
    }
    qcow2_unload(&qcow2);
    return ok;
}
