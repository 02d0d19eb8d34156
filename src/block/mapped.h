/* Disks whose sectors lie somewhere else: in another place of one file, in the disk below, nowhere
 * (zeros), or packed. Image formats (qcow2.c, vdi.c ...) and throwaway overlays are such disks;
 * what is common to all is here: a format says where a range is, and makes places for new data.
 *
 * Requests take one of two ways. The fast one, with the owner's lock held: `peek` knows without I/O
 * that the whole range is one piece, and the request goes on to the file, or to the disk below, as
 * it is; or a few pieces, and it goes there in parts (split.h). All others are carried out one
 * after the other on a thread, which may read and write metadata; it holds the disk's `work` mutex
 * meanwhile.
 *
 * So of what a format keeps in memory, what `peek` looks at is changed only with both `work` and
 * the owner's lock held (mapped_lock), and may be read with either; all else is protected by
 * `work`. Locks: `work` of a disk, then of the one below it, then the owner's lock. */
#pragma once
#include "block/disk.h"
#include "block/split.h"
#include "block/worker.h"

enum extent_kind {
    EXTENT_BELOW,  /* in the disk below; zeros where there is none, or behind its end */
    EXTENT_DATA,   /* in the file, byte for byte */
    EXTENT_ZERO,   /* zeros */
    EXTENT_PACKED, /* for `unpack` */
};

/* A piece of a disk that is alike. */
struct extent {
    enum extent_kind kind;
    bool writable;   /* EXTENT_DATA: may be written in place */
    uint64_t length; /* bytes from where was asked, more than 0; may be more than was asked for */
    uint64_t at;     /* EXTENT_DATA: bytes in the file; EXTENT_PACKED: what the format likes */
};

/* Room for new data: whole granules of the disk that follow each other, and of the file. It may
 * have more on both sides than was asked for, up to 2 MiB, which is filled with what the guest
 * sees. */
struct place {
    uint64_t start, length; /* bytes of the disk, at least one granule */
    uint64_t at;            /* bytes in the file */
    bool blank;             /* what is not written reads as zeros */
    unsigned pieces;        /* the format's: what it made, for `commit` and `cancel` */
};

struct mapped;

/* What a format implements; all but `peek` and `map` may be NULL. Functions that return int give 0
 * or a positive errno and run with `work` held. Ranges lie within the disk. */
struct mapped_format {
    const char *name;
    /* What is read of a disk below that is far away (disk.far) is written here too, if this one is
     * writable: it is fetched once. */
    bool keeps;
    /* The piece at `offset`, as far as `length` bytes of it matter. `peek` is from what is in
     * memory only, false when that does not do: with the owner's lock held, quick, no lock of its
     * own. */
    bool (*peek)(struct mapped *mapped, uint64_t offset, uint64_t length, struct extent *extent);
    int (*map)(struct mapped *mapped, uint64_t offset, uint64_t length, struct extent *extent);
    /* `length` bytes from `offset` on, all within the piece. */
    int (*unpack)(struct mapped *mapped, const struct extent *extent, uint64_t offset, void *to,
                  size_t length);

    /* Writing. A place for the granule of `offset` and as many after it as are wanted for `length`
     * bytes and are easily had; then, when the data is there, what the guest shall see; or, when
     * it could not be written, nothing. */
    int (*allocate)(struct mapped *mapped, uint64_t offset, uint64_t length, struct place *place);
    int (*commit)(struct mapped *mapped, const struct place *place);
    void (*cancel)(struct mapped *mapped, const struct place *place);
    /* Whole granules (and the disk's last, shorter one) shall read as zeros. When `discard`, their
     * room is to be given back. ENOTSUP: zeros must be written, a discard need not be heeded. */
    int (*zero)(struct mapped *mapped, uint64_t offset, uint64_t length, bool discard);
    /* Everything that was written to stable storage: data, and then what says where it is. NULL:
     * raw_sync of the file. */
    int (*flush)(struct mapped *mapped);
    /* Would a flush give room back to the host? Then one comes by itself, after `patience`, whether
     * the guest asks for one or not. */
    bool (*owes)(struct mapped *mapped);
    /* The end; nothing is in flight any more. Frees what the format has, but not `mapped`. */
    void (*close)(struct mapped *mapped);
};

struct mapped {
    struct worker worker; /* of one thread */
    const struct mapped_format *format;
    struct disk *file;  /* raw.c; of what is never written any kind */
    struct disk *below; /* NULL: none. Readonly */
    uint64_t granule;   /* bytes, a power of two: what is allocated and zeroed as a whole */
    /* A flush needs `format->flush`; changed under both locks. While not, the file's will do. */
    bool dirty;
    gint64 patience; /* microseconds */

    bool keeping;  /* it writes what it read of a disk that is far (disk.gathers); `work` */
    uint64_t kept; /* bytes, since the last flush; `work` */

    GMutex work;
    uint8_t *bounce; /* of a granule; `work` */

    /* The owner's lock: requests in the file that took the fast way, by the parity of the age they
     * began in. */
    bool attached;
    unsigned flights[2];
    uint64_t age;
    struct splits splits;
};

/* Initialises a zeroed disk, the first member of the format's own struct; size and readonly are the
 * caller's. It owns file and below from then on. `name` is copied. False where there is no memory
 * for a granule; the caller keeps all then. Granules are at most 2 MiB. */
bool mapped_init(struct mapped *mapped, const struct mapped_format *format, const char *name,
                 struct disk *file, struct disk *below, uint64_t granule);

/* Around changes of what `peek` reads. With `work` held, or before the first request. */
void mapped_lock(struct mapped *mapped);
void mapped_unlock(struct mapped *mapped);

/* Room in the file that the map does not name any more may still be read or written by requests in
 * flight, and is not to be used anew before they are through: stamp it with mapped_age when it is
 * given up; it may be used when mapped_settled. With `work` held. */
uint64_t mapped_age(struct mapped *mapped);
bool mapped_settled(struct mapped *mapped, uint64_t stamp);

/* What the guest sees of a range, wherever it lies. With `work` held; for formats too. */
int mapped_read(struct mapped *mapped, uint64_t offset, void *to, size_t length);
