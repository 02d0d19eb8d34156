/* Another disk below a qcow2 image: its name and its format in the header. Both change with the
 * write of one sector, the first one, so that the image names either the one or the other. A name
 * that does not fit there is in the header's cluster before, where nobody looks for it yet. */
#include "block/qcow2-core.h"

#include "base/error.h"
#include "block/raw.h"

enum { EXT_HEAD = 8 };

/* What is behind the fixed fields, to the end of the first cluster. */
struct extensions {
    const uint8_t *from;
    size_t at, end; /* the next one; where they end at the latest */
};

/* The next one, whole; 0: there is none. */
static uint32_t next_extension(struct extensions *all, const uint8_t **start, size_t *whole)
{
    if (all->at + EXT_HEAD > all->end)
        return 0;
    const uint8_t *here = all->from + all->at;
    uint32_t type = be32_at(here);
    uint64_t size = EXT_HEAD + (be32_at(here + 4) + 7ULL) / 8 * 8;
    if (type == EXT_END || size > all->end - all->at)
        return 0;
    *start = here;
    *whole = size;
    all->at += size;
    return type;
}

static size_t put_format(uint8_t *to, const char *format)
{
    const char *name = qcow2_foreign_name(format);
    size_t length = strlen(name), whole = EXT_HEAD + (length + 7) / 8 * 8;
    put_be32(to, EXT_BACKING);
    put_be32(to + 4, (uint32_t)length);
    memcpy(to + EXT_HEAD, name, length);
    return whole;
}

/* The first sector with another format and all other extensions, or without those that only give
 * features a name. The place behind the last; 0: they do not fit. */
static size_t fill(struct qcow2 *qcow2, uint8_t *head, struct extensions all, const char *format,
                   bool names)
{
    size_t at = qcow2->header.length, whole;
    const uint8_t *start;
    uint32_t type;
    memcpy(head, qcow2->head, QCOW2_HEAD);
    memset(head + at, 0, QCOW2_HEAD - at);
    if (format)
        at += put_format(head + at, format);
    while ((type = next_extension(&all, &start, &whole))) {
        if (type == EXT_BACKING || (type == EXT_FEATURES && !names))
            continue;
        if (whole + EXT_HEAD > QCOW2_HEAD - at)
            return 0;
        memcpy(head + at, start, whole);
        at += whole;
    }
    return at + EXT_HEAD;
}

/* Where in the first cluster the name can be written now; 0: nowhere. */
static size_t place_of_name(const struct qcow2 *qcow2, size_t used, size_t extensions, size_t name)
{
    const struct qcow2_header *header = &qcow2->header;
    if (name <= QCOW2_HEAD - used)
        return used;
    size_t at = MAX((size_t)QCOW2_HEAD, extensions);
    size_t old = header->backing_at, old_end = old + header->backing_length;
    if (!old || old_end <= at || at + name <= old)
        return at + name <= qcow2->cluster ? at : 0;
    return old_end + name <= qcow2->cluster ? old_end : 0;
}

static bool failed(const struct qcow2 *qcow2, int reason, GError **error)
{
    return !reason ||
           hv_fail(error, HV_FAILED, "%s: cannot be written: %s", qcow2->name, g_strerror(reason));
}

static bool change(struct qcow2 *qcow2, const char *below, const char *format, GError **error)
{
    struct qcow2_header *header = &qcow2->header;
    uint8_t head[QCOW2_HEAD], before[QCOW2_HEAD];
    size_t name = below ? strlen(below) : 0, whole;
    uint64_t old_at = header->backing_at;
    uint32_t old_length = header->backing_length;
    const uint8_t *start;
    g_autofree uint8_t *cluster = g_try_malloc(qcow2->cluster);
    if (!cluster)
        return hv_fail(error, HV_HOST, "%s: there is no memory for it", qcow2->name);
    int reason = raw_read(qcow2->mapped.file, cluster, qcow2->cluster, 0);
    if (reason)
        return failed(qcow2, reason, error);
    struct extensions all = { cluster, header->length, old_at ? old_at : qcow2->cluster };
    struct extensions last = all;
    size_t used = fill(qcow2, head, all, format, true);
    if (!used)
        used = fill(qcow2, head, all, format, false);
    while (next_extension(&last, &start, &whole))
        continue;
    size_t at = used && name <= MAX_BACKING_NAME
                    ? place_of_name(qcow2, used, MIN(last.at + EXT_HEAD, all.end), name)
                    : 0;
    if (!at)
        return hv_fail(error, HV_FAILED,
                       "%s: its header has no room for that name: hv image convert makes a new "
                       "image of it",
                       qcow2->name);
    if (at + name <= QCOW2_HEAD)
        memcpy(head + at, below ? below : "", name);
    else
        reason = raw_write(qcow2->mapped.file, below, name, at);
    if (!reason)
        reason = raw_sync(qcow2->mapped.file);
    if (reason)
        return failed(qcow2, reason, error);
    memcpy(before, qcow2->head, QCOW2_HEAD);
    memcpy(qcow2->head, head, QCOW2_HEAD);
    header->backing_at = name ? at : 0;
    header->backing_length = (uint32_t)name;
    reason = qcow2_write_header(qcow2);
    if (!reason)
        reason = raw_sync(qcow2->mapped.file);
    if (reason) {
        memcpy(qcow2->head, before, QCOW2_HEAD);
        header->backing_at = old_at;
        header->backing_length = old_length;
    }
    return failed(qcow2, reason, error);
}

bool qcow2_rebase(struct disk *disk, const char *below, const char *format, GError **error)
{
    struct qcow2 *qcow2 = (struct qcow2 *)disk;
    g_mutex_lock(&qcow2->mapped.work);
    int reason = qcow2_begin(qcow2);
    if (!reason)
        reason = qcow2_write_back(qcow2); /* what the image has itself now is to be there first */
    bool ok = failed(qcow2, reason, error) && change(qcow2, below, format, error);
    g_mutex_unlock(&qcow2->mapped.work);
    return ok;
}
