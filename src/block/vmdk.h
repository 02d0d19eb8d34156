/* The parts of the reader of VMDK images: "Virtual Disk Format 1.1" and "5.0" of VMware. */
#pragma once
#include "block/reader.h"

/* --- the description (vmdk-descriptor.c) --- */

enum vmdk_kind { VMDK_ZERO, VMDK_FLAT, VMDK_SPARSE };

/* A line about an extent. */
struct vmdk_line {
    enum vmdk_kind kind;
    uint64_t sectors, offset; /* of the disk; FLAT: where in its file it begins, sectors */
    char *name;               /* of its file; NULL: it has none */
};

enum { VMDK_LINES = 1024, VMDK_TEXT = 64 << 10, VMDK_CID = 9 };

struct vmdk_descriptor {
    char cid[VMDK_CID], parent_cid[VMDK_CID]; /* as hexadecimal text */
    char *parent;                             /* its path; NULL: the disk lies on no other */
    bool differencing;
    struct vmdk_line *lines; /* at most VMDK_LINES */
    unsigned count;
};

/* Parses `text`, of less than VMDK_TEXT bytes and ended by a 0. With `extents`, their lines are
 * wanted and judged too. It is cleared on failure, and by the caller else. */
bool vmdk_parse(struct vmdk_descriptor *descriptor, const char *text, const char *name,
                bool extents, GError **error);
void vmdk_clear(struct vmdk_descriptor *descriptor);

/* --- sparse extents (vmdk-sparse.c) --- */

struct vmdk_extent {
    enum vmdk_kind kind;
    bool packed, markers,
        zeros;                 /* SPARSE: grains are compressed; and have a header; can be zeros */
    uint32_t entries;          /* of a grain table */
    uint64_t start, length;    /* bytes of the disk */
    uint64_t base, end;        /* where its file begins and ends in reader.file */
    uint64_t at;               /* FLAT: bytes in that file */
    uint64_t directory, grain; /* bytes in that file; bytes of a grain */
};

/* The grain that was unpacked last; `work`. */
struct vmdk_unpacker;

/* What a sparse extent's file begins with, of which `file` is the disk. Its length is the caller's
 * to judge; *capacity is what the header says. Where its description is goes to text_at and
 * text_size (0: it has none), bytes. */
struct vmdk_sparse {
    uint64_t capacity, text_at, text_size;
};
bool vmdk_judge_sparse(struct vmdk_extent *extent, struct disk *file, const char *name,
                       struct vmdk_sparse *sparse, GError **error);
int vmdk_find_sparse(struct reader *reader, const struct vmdk_extent *sparse, uint64_t offset,
                     bool wait, struct extent *extent);

/* For grains of up to that many bytes; NULL where there is no memory. */
struct vmdk_unpacker *vmdk_unpacker_new(uint64_t grain);
void vmdk_unpacker_free(struct vmdk_unpacker *unpacker);
/* `length` bytes at `within` of the grain that lies packed at `at` of reader.file. */
int vmdk_unpack(struct reader *reader, struct vmdk_unpacker *unpacker,
                const struct vmdk_extent *sparse, uint64_t at, uint64_t within, void *to,
                size_t length);
