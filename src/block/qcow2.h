/* qcow2 images, native: read and written. For the rest of hv there is qcow2_format in the table of
 * formats, and here what is not about using one as a disk. All on threads that may wait. */
#pragma once
#include "block/format.h"

/* --- making one */

struct qcow2_options {
    uint64_t size;       /* of the disk, bytes */
    uint32_t cluster;    /* bytes, a power of two from 512 to 2 MiB; 0: 64 KiB */
    unsigned version;    /* 2 or 3; 0: 3 */
    unsigned refcount;   /* bits, a power of two from 1 to 64; 0: 16. Version 3 */
    bool zstd;           /* for compressed clusters. Version 3 */
    bool extended;       /* 32 subclusters in each cluster of at least 16 KiB. Version 3 */
    bool lazy;           /* lazy refcounts. Version 3 */
    const char *backing; /* the disk below, as the image shall name it; NULL: none */
    const char *format;  /* hv's name of its format; NULL: not said */
};
/* Makes the empty file an image. */
bool qcow2_create(int fd, const char *name, const struct qcow2_options *options, GError **error);

/* --- what is in one */

/* An internal snapshot. */
struct qcow2_snapshot {
    char *id, *name;
    uint64_t l1_at, l1_size; /* entries */
    uint64_t size;           /* of the disk then, bytes; 0: the image does not say */
    uint64_t state;          /* bytes of the machine's state that was kept with it */
    int64_t when;            /* seconds since 1970 */
};
void qcow2_snapshot_clear(void *snapshot); /* a GDestroyNotify for elements of a GArray */

struct qcow2_info {
    unsigned version, refcount_bits;
    uint64_t size, cluster;
    bool dirty, corrupt, lazy, zstd, extended;
    GArray *snapshots; /* of struct qcow2_snapshot; g_array_unref */
};
bool qcow2_get_info(struct disk *file, const char *name, struct qcow2_info *info, GError **error);

/* The disk as a snapshot has it, readonly; `snapshot` is its id or its name. Otherwise as
 * qcow2_format.open. */
struct disk *qcow2_open_snapshot(const struct format_parts *parts, const char *snapshot,
                                 GError **error);

/* --- whether it is right */

/* False when it could not be told. `file` must be writable for a repair, and is not closed. */
bool qcow2_check(struct disk *file, const char *name, bool repair, struct format_report *report,
                 GError **error);
