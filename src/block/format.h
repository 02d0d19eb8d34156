/* Image formats: which there are, what other files an image needs, and how it becomes a disk.
 *
 * A format is one entry of the table in format.c, and a file of its own that defines it (qcow2.c
 * ...). What an image contains is hostile: sizes, counts and offsets are judged before they are
 * used, tables that are kept in memory are bounded, and nothing is opened by name here. */
#pragma once
#include "block/disk.h"

/* The beginning of a file and its last sector, as far as there are any; zeros otherwise. */
enum { FORMAT_HEAD = 1024 };
struct format_head {
    uint8_t head[FORMAT_HEAD], tail[SECTOR];
    uint64_t size; /* of the file, bytes */
};

/* Another file that an image names. */
struct format_link {
    char *name; /* a path with "/", of any bytes but 0; relative ones start at the image's folder */
    char *format; /* as hv's formats are called; NULL: the image does not say */
    bool below;   /* the disk that it lies on; otherwise one of its own parts, in their order */
};
void format_link_free(void *link); /* a GDestroyNotify */
void format_link_add(GPtrArray *links, const char *name, const char *format, bool below);

/* What becomes a disk. It owns all of them from then on; on failure they stay the caller's. */
struct format_parts {
    const char *name;   /* for messages */
    struct disk *file;  /* raw.c; readonly when the disk shall be */
    struct disk *below; /* readonly; NULL: none */
    struct disk *const *part;
    unsigned part_count;
};

/* What is wrong with an image, and how it is used. */
struct format_report {
    uint64_t corruptions;                    /* what may give wrong data, now or later */
    uint64_t leaks;                          /* clusters that are taken and not used */
    uint64_t corruptions_fixed, leaks_fixed; /* of them */
    uint64_t clusters;                       /* of the disk */
    uint64_t allocated, packed;              /* of them */
    uint64_t end;                            /* bytes of the file up to the last cluster in use */
};

/* Takes what there is to tell about an image: a text, or, where that is NULL, a number. */
typedef void format_teller(void *opaque, const char *key, const char *text, uint64_t number);

/* What a new image shall be; zeros and NULL leave it to the format. */
struct format_wish {
    uint64_t size;                    /* bytes, a multiple of SECTOR, more than 0 */
    const char *below, *below_format; /* the image it lies on, as it is to name that */
    uint64_t cluster;                 /* bytes */
    const char *compression;          /* "zlib", "zstd" */
};

struct format {
    const char *name; /* "qcow2": as users write it in format= */
    const char *what; /* "a qcow2 disk image" */
    bool written;     /* else only readonly disks can be had */
    bool (*probe)(const struct format_head *head);
    /* Adds a struct format_link for each file that it needs. NULL: none ever. `file` is raw.c's. */
    bool (*links)(struct disk *file, const char *name, GPtrArray *links, GError **error);
    struct disk *(*open)(const struct format_parts *parts, GError **error);
    /* Makes an image of an empty file. NULL: it cannot. */
    bool (*create)(int fd, const char *name, const struct format_wish *wish, GError **error);
    /* Another size for a disk that `open` made. Shrinking drops what is behind the new end; nothing
     * is in flight then. Growing may be done beside requests, without the owner's lock. 0 or a
     * positive errno; ENOTSUP: not in this version of the format, with these snapshots. NULL: it
     * cannot. */
    int (*resize)(struct disk *disk, uint64_t size);
    /* Writes whole clusters, or 2 MiB from a multiple of that, to where the disk reads as zeros,
     * and compresses what gets smaller. 0 or a positive errno. On a thread that may wait, when
     * nothing else is written. NULL: it cannot. */
    int (*pack)(struct disk *disk, const void *from, uint64_t length, uint64_t offset);
    /* Has the image say that it lies on another file, in the format of that name (NULL: it does
     * not say); or, with NULL for both, on none. What it does not have itself is seen there the
     * next time it is opened. It names either the one or the other, whenever this is cut short.
     * NULL: it cannot. */
    bool (*rebase)(struct disk *disk, const char *below, const char *format, GError **error);
    /* Compares what the image says of itself, and corrects it when `repair`. False when it could
     * not be told. `file` is raw.c's, writable for a repair, and stays the caller's. NULL: there
     * is nothing to compare. */
    bool (*check)(struct disk *file, const char *name, bool repair, struct format_report *report,
                  GError **error);
    /* What `hv image info` shows beside name and size, of a disk that `open` made. NULL: nothing.
     */
    void (*tell)(struct disk *disk, format_teller *tell, void *opaque);
};

/* All formats but raw, which is what no other is; NULL at the end. */
extern const struct format *const formats[];
extern const struct format raw_format;
extern const struct format qcow2_format;
extern const struct format vdi_format;
extern const struct format vhd_format;
extern const struct format vhdx_format;
extern const struct format vmdk_format;

/* The format with that name, "raw" too; NULL. */
const struct format *format_named(const char *name);
/* All names, as a sentence has them: "raw", "qcow2" or "vdi". */
char *format_names(void);
/* What a file looks like: raw_format when like nothing else; NULL with errno when it cannot be
 * read. The file position stays. */
const struct format *format_probe(int fd);
