/* qcow2 images, inside: what qcow2*.c share. The layout is that of QEMU's docs/interop/qcow2.rst,
 * whose terms are used here.
 *
 * A table of an image, L2 or of refcounts, is cached in pieces of at most 4 KiB, as it is in the
 * file. L1 and the refcount table are in memory as a whole.
 *
 * Everything is protected by the disk's `work` (block/mapped.h). What qcow2_peek reads, and so is
 * changed with the owner's lock held too: l1, the pieces of l2, `end`, `quick` and
 * `corrupt`. */
#pragma once
#include "base/log.h"
#include "block/bytes.h"
#include "block/mapped.h"
#include "block/qcow2.h"

#include <endian.h>
#include <string.h>

enum {
    QCOW2_HEAD = 512, /* bytes: the sector with all fields that change */
    QCOW2_V2_LENGTH = 72,
    QCOW2_V3_LENGTH = 104,
    MIN_CLUSTER_BITS = 9,
    MAX_CLUSTER_BITS = 21,
    MAX_L1 = 32 << 20, /* bytes */
    MAX_REFCOUNT_TABLE = 8 << 20,
    MAX_SNAPSHOTS = 65536,
    MAX_SNAPSHOT_TABLE = 16 << 20,
    MAX_BACKING_NAME = 1023,
    PIECE = 4096, /* bytes at most */
    SUBCLUSTERS = 32,
};
#define MAX_FILE (1ULL << 55) /* bytes; entries have 56 bits */

/* Incompatible features. */
enum { QCOW2_DIRTY = 1, QCOW2_CORRUPT = 2, QCOW2_DATA_FILE = 4, QCOW2_ZSTD = 8, QCOW2_SUB = 16 };
enum { QCOW2_LAZY = 1 }; /* a compatible one */

/* Header extensions. */
enum { EXT_END = 0, EXT_BITMAPS = 0x23852875, EXT_FEATURES = 0x6803f857 };
#define EXT_BACKING   0xe2792acaU
#define EXT_DATA_FILE 0x44415441U

/* Of L1 and L2 entries. */
#define ENTRY_COPIED 0x8000000000000000ULL /* refcount 1: may be written in place */
#define ENTRY_PACKED 0x4000000000000000ULL
#define ENTRY_OFFSET 0x00fffffffffffe00ULL
#define ENTRY_ZERO   1ULL

struct qcow2_header {
    uint32_t version;
    uint64_t backing_at;
    uint32_t backing_length;
    uint32_t cluster_bits;
    uint64_t size;
    uint32_t encryption;
    uint32_t l1_size; /* entries */
    uint64_t l1_at;
    uint64_t refcount_table_at;
    uint32_t refcount_table_clusters;
    uint32_t snapshots;
    uint64_t snapshots_at;
    uint64_t incompatible, compatible, autoclear;
    uint32_t refcount_order;
    uint32_t length;
    uint8_t compression;
};

/* Some bytes of a table. */
struct table_piece {
    uint64_t index; /* of the piece among those of its kind; NO_PIECE: none is here */
    uint8_t *data;  /* allocated when first used */
    bool dirty, used;
};
#define NO_PIECE UINT64_MAX

enum { TABLE_WAYS = 8 };

/* Pieces in sets of TABLE_WAYS; a piece has its place in the set of its index. */
struct table_cache {
    struct table_piece *pieces;
    unsigned sets;  /* a power of two */
    unsigned dirty; /* pieces */
    size_t size;    /* bytes of a piece */
};

/* Clusters that lost a reference. */
struct qcow2_loss {
    uint64_t first, count; /* clusters */
    uint64_t stamp;        /* mapped_age */
};

/* Part of a table in memory that is not in the file yet: entries from `first` to before `end`. */
struct table_change {
    size_t first, end;
};

struct qcow2 {
    struct mapped mapped;
    char *name;
    struct qcow2_header header;
    uint8_t head[QCOW2_HEAD]; /* as it is in the file */
    uint64_t cluster;         /* bytes */
    unsigned bits;            /* of that */
    unsigned sub_bits;        /* of granules */
    unsigned entry_bits;      /* of bytes of an L2 entry: 3, or 4 with subclusters */
    unsigned slice_bits;      /* of entries in a piece of an L2 table */
    unsigned l1_bits;         /* of bytes of the disk that an L1 entry is for */
    bool writable;            /* the file, and who opened it wants that */
    bool quick;               /* no subclusters, nothing wrong: see qcow2_peek */
    bool corrupt;             /* no more writes */
    bool marked;              /* the dirty bit is set in the file */
    bool broken;              /* nothing more may be written, not even what is in memory */
    bool losing;              /* references were lost count of: the dirty bit stays */
    bool lazy;                /* refcounts are not kept up to date */
    uint64_t end;    /* bytes of the file that are or were used: from there on it reads as zeros */
    uint64_t virgin; /* clusters: nothing in the file named one from there on when it was opened */

    uint64_t *l1;
    size_t l1_size;
    struct table_change l1_change;
    struct table_cache l2;

    uint64_t *refcount_table;
    size_t refcount_table_size;   /* entries */
    size_t refcount_table_used;   /* those from there on are 0 */
    uint64_t next_table_at;       /* where it moves to; the header does not say so yet */
    uint64_t next_table_clusters; /* 0: it stays */
    struct table_change refcount_table_change;
    struct table_cache refcounts;
    unsigned refs_bits;  /* of refcounts in a piece */
    unsigned block_bits; /* in a block of them */
    uint64_t cursor;     /* clusters: where to look for free ones */

    /* In order; those before `lost_settling` are in no table of the file any more. */
    struct qcow2_loss *lost;
    size_t lost_count, lost_settling, lost_room;
    uint64_t lost_clusters; /* of the others */
    /* Free clusters to be used first. */
    struct qcow2_loss *reuse;
    unsigned reuse_count;

    struct qcow2_snapshot *snapshots; /* header.snapshots of them */
    uint64_t snapshot_table_length;

    uint8_t *packed, *unpacked; /* allocated when first needed */
    uint64_t unpacked_entry;    /* what is there; 0: nothing */
    void *inflater, *deflater;  /* of zlib or zstd */
    uint64_t pack_at; /* bytes: where the next one goes that is compressed; 0: a new cluster */
    struct log_limit limit;
};

static inline struct qcow2 *qcow2_of(struct mapped *mapped)
{
    return (struct qcow2 *)mapped;
}

static inline void put_be16(void *to, uint16_t value)
{
    value = htobe16(value);
    memcpy(to, &value, sizeof value);
}

static inline void put_be32(void *to, uint32_t value)
{
    value = htobe32(value);
    memcpy(to, &value, sizeof value);
}

static inline void put_be64(void *to, uint64_t value)
{
    value = htobe64(value);
    memcpy(to, &value, sizeof value);
}

/* The offset names a cluster of the file that can be used for something. */
static inline bool qcow2_sane(const struct qcow2 *qcow2, uint64_t at)
{
    return !(at & (qcow2->cluster - 1)) && at >= qcow2->cluster && at < qcow2->end;
}

/* --- qcow2-header.c: */

/* Reads the beginning of the file and judges it. */
bool qcow2_read_header(struct disk *file, const char *name, uint8_t head[QCOW2_HEAD],
                       struct qcow2_header *header, GError **error);
/* The data of a header extension, to be freed, with a 0 after it; NULL when there is none, or no
 * such image. */
uint8_t *qcow2_extension(struct disk *file, const struct qcow2_header *header, uint32_t type,
                         size_t *length);
/* Writes the fields that change to the file: features, the size, the places of L1, the refcount
 * table and the name of the disk below. */
int qcow2_write_header(struct qcow2 *qcow2);
/* Before anything is changed: the dirty bit. EIO: nothing may be. */
int qcow2_begin(struct qcow2 *qcow2);
/* What the image says cannot be: no more writes, and the corrupt bit. EIO. */
int qcow2_corrupt(struct qcow2 *qcow2, const char *what, uint64_t where);

/* --- qcow2-table.c: */

bool table_init(struct table_cache *cache, unsigned sets, size_t size);
void table_free(struct table_cache *cache);
static inline struct table_piece *table_find(const struct table_cache *cache, uint64_t index)
{
    struct table_piece *piece = &cache->pieces[(index & (cache->sets - 1)) * TABLE_WAYS];
    for (unsigned i = 0; i < TABLE_WAYS; i++)
        if (piece[i].index == index)
            return &piece[i];
    return NULL;
}
/* The piece that can be used for `index`; all others of its set were used later, or are dirty.
 * NULL: all are dirty. */
struct table_piece *table_victim(struct table_cache *cache, uint64_t index);
/* Writes all dirty pieces to the places that `place` says, in their order. */
int table_write(struct qcow2 *qcow2, struct table_cache *cache,
                uint64_t (*place)(const struct qcow2 *qcow2, uint64_t index));
static inline void table_dirty(struct table_cache *cache, struct table_piece *piece)
{
    cache->dirty += !piece->dirty;
    piece->dirty = true;
}
/* Tables that are in memory as a whole. */
int table_read_all(struct disk *file, uint64_t at, uint64_t *table, size_t size);
int table_write_change(struct disk *file, uint64_t at, const uint64_t *table,
                       struct table_change *change);
static inline void table_changed(struct table_change *change, size_t index)
{
    bool none = change->first == change->end;
    change->first = none ? index : MIN(change->first, index);
    change->end = none ? index + 1 : MAX(change->end, index + 1);
}

/* --- qcow2-map.c: */

bool qcow2_peek(struct mapped *mapped, uint64_t offset, uint64_t length, struct extent *extent);
int qcow2_map(struct mapped *mapped, uint64_t offset, uint64_t length, struct extent *extent);
/* The piece of an L2 table for an offset of the disk; NULL: there is no such table. */
int qcow2_slice(struct qcow2 *qcow2, uint64_t offset, struct table_piece **slice);
uint64_t qcow2_slice_at(const struct qcow2 *qcow2, uint64_t index);
static inline unsigned qcow2_slice_entry(const struct qcow2 *qcow2, uint64_t offset)
{
    return (unsigned)(offset >> qcow2->bits) & ((1U << qcow2->slice_bits) - 1);
}
static inline uint64_t qcow2_slice_index(const struct qcow2 *qcow2, uint64_t offset)
{
    return offset >> (qcow2->bits + qcow2->slice_bits);
}
static inline uint8_t *qcow2_entry(const struct qcow2 *qcow2, const struct table_piece *slice,
                                   unsigned i)
{
    return slice->data + ((size_t)i << qcow2->entry_bits);
}
/* Where the data of a compressed cluster lie; false: they cannot. */
bool qcow2_packed_range(const struct qcow2 *qcow2, uint64_t entry, uint64_t *at, uint64_t *length);

/* --- qcow2-pack.c: */

int qcow2_unpack(struct mapped *mapped, const struct extent *extent, uint64_t offset, void *to,
                 size_t length);
int qcow2_pack(struct disk *disk, const void *from, uint64_t length, uint64_t offset);
void qcow2_forget_unpacked(struct qcow2 *qcow2);
void qcow2_free_packer(struct qcow2 *qcow2);

/* --- qcow2-refcount.c: */

int qcow2_get_refcount(struct qcow2 *qcow2, uint64_t cluster, uint64_t *count);
int qcow2_set_refcount(struct qcow2 *qcow2, uint64_t cluster,
                       uint64_t count); /* ENOENT: no block */
/* The `i`th of counts that are 1 << order bits wide. */
void qcow2_put_count(uint8_t *counts, unsigned order, size_t i, uint64_t count);
/* For repairs: makes the block of refcounts, all 0, behind everything; or forgets it. */
int qcow2_rebuild_block(struct qcow2 *qcow2, size_t i);
void qcow2_drop_block(struct qcow2 *qcow2, size_t i);
/* Makes up to `want` clusters that follow each other used, at least one: which, how many, and
 * whether they read as zeros. */
int qcow2_allocate_clusters(struct qcow2 *qcow2, uint64_t want, uint64_t *first, uint64_t *count,
                            bool *blank);
/* The same for exactly that many, behind everything in the file. */
int qcow2_allocate_row(struct qcow2 *qcow2, uint64_t count, uint64_t *first);
/* Takes a reference to each away, at once; those without any are free. */
int qcow2_release(struct qcow2 *qcow2, uint64_t first, uint64_t count);
/* Where in the file the header says, or soon will say, that the refcount table is. */
uint64_t qcow2_refcount_table_at(const struct qcow2 *qcow2);
/* A failure is EIO, whatever it is: after it there is no other try. */
int qcow2_sync(struct qcow2 *qcow2);
/* Refcounts, and what names their blocks, to stable storage, together with all data. */
int qcow2_write_refcounts(struct qcow2 *qcow2);

/* --- qcow2-order.c: */

/* Clusters, of which the map in memory has just lost a reference: to be taken away when the file
 * does not have it either. */
void qcow2_lose(struct qcow2 *qcow2, uint64_t first, uint64_t count);
/* The same for what an L2 entry names. */
void qcow2_lose_entry(struct qcow2 *qcow2, uint64_t entry);
/* Everything to stable storage, in the order in which the image is right at each moment. */
int qcow2_write_back(struct qcow2 *qcow2);
int qcow2_flush(struct mapped *mapped);
bool qcow2_owes(struct mapped *mapped); /* are there losses that are not given back? */
/* Takes the references away that are due. */
int qcow2_settle(struct qcow2 *qcow2);
/* Before the file is closed, with nothing in flight: it is as if nobody had had it open. */
void qcow2_end(struct qcow2 *qcow2);

/* --- qcow2-write.c: the calls of struct mapped_format */

int qcow2_allocate(struct mapped *mapped, uint64_t offset, uint64_t length, struct place *place);
int qcow2_commit(struct mapped *mapped, const struct place *place);
void qcow2_cancel(struct mapped *mapped, const struct place *place);
int qcow2_zero(struct mapped *mapped, uint64_t offset, uint64_t length, bool discard);
/* Gives back what is behind the end; what shows through there then is nobody's. */
int qcow2_drop(struct qcow2 *qcow2, uint64_t offset, uint64_t length);
/* The piece of an L2 table that may be changed; the table is made, or a copy of it. */
int qcow2_own_slice(struct qcow2 *qcow2, uint64_t offset, struct table_piece **slice);

/* --- qcow2-resize.c: */

int qcow2_resize(struct disk *disk, uint64_t size); /* as struct format has it */

/* --- qcow2-backing.c: */

/* as struct format has it */
bool qcow2_rebase(struct disk *disk, const char *below, const char *format, GError **error);

/* --- qcow2-create.c: */

/* What other programs call the format. */
const char *qcow2_foreign_name(const char *format);

/* --- qcow2-snapshot.c: */

bool qcow2_read_snapshots(struct qcow2 *qcow2, const char *name, GError **error);
void qcow2_free_snapshots(struct qcow2 *qcow2);

/* --- qcow2-check.c: */

/* Compares all refcounts with what names the clusters, and corrects them. With a budget (bytes of
 * tables to be read) that is used up: E2BIG. */
int qcow2_compare(struct qcow2 *qcow2, bool repair, uint64_t budget, struct format_report *report);

/* --- qcow2.c: */

/* Fills a zeroed one from the file, but for `mapped`, of which it sets `file` only. `counted`: what
 * is about refcounts too, as writing needs it. qcow2_unload frees it all, also after a failure. */
bool qcow2_load(struct qcow2 *qcow2, struct disk *file, const char *name, bool counted,
                GError **error);
void qcow2_unload(struct qcow2 *qcow2);
