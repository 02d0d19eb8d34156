/* Disks in image formats that are only read (vdi.c, vhd.c, vhdx.c, vmdk.c): what they have in
 * common. A format judges the image when it is opened, and later says where the piece at an offset
 * is. Its tables it looks at through a cache of the file's pages: opening reads next to nothing,
 * and no image, whatever it claims to be, takes more memory than the cache has. */
#pragma once
#include "base/log.h"
#include "block/format.h"
#include "block/mapped.h"

enum { READER_PAGE = 4096 };

struct reader;
struct reader_page;

struct reader_format {
    struct mapped_format mapped; /* READER_MAPPED, and perhaps `unpack` */
    size_t size;                 /* of the format's struct, whose first member is the reader */
    /* Reads what is at fixed places and fills the struct. Sets disk.size. */
    bool (*judge)(struct reader *reader, const struct format_parts *parts, GError **error);
    /* What is at `offset`, up to the end of its block at most. 0 or a positive errno; EAGAIN when
     * that takes I/O and it shall not `wait`. Called as mapped_format's peek and map. */
    int (*find)(struct reader *reader, uint64_t offset, bool wait, struct extent *extent);
    void (*patch)(struct reader *reader, uint64_t at, uint8_t *page); /* as it was read; NULL */
    void (*finish)(struct reader *reader); /* frees what `judge` made of it, or half of it; NULL */
};

struct reader {
    struct mapped mapped;
    const struct reader_format *format;
    const char *name;  /* while it is judged */
    struct disk *file; /* whose pages they are: that of the parts, until `judge` says otherwise */
    uint64_t end;      /* of that, bytes */
    uint64_t granule;  /* for mapped_init; READER_PAGE until `judge` says otherwise */
    struct reader_page *pages;
    uint8_t *turn;        /* of each set of pages: which one makes room next */
    struct log_limit log; /* `work` */
};

#define READER_MAPPED .peek = reader_peek, .map = reader_map, .close = reader_close
bool reader_peek(struct mapped *mapped, uint64_t offset, uint64_t length, struct extent *extent);
int reader_map(struct mapped *mapped, uint64_t offset, uint64_t length, struct extent *extent);
void reader_close(struct mapped *mapped);

/* As struct format's `open`. */
struct disk *reader_open(const struct reader_format *format, const struct format_parts *parts,
                         GError **error);
/* An image that is judged only: for `links`, which finds out on the way. No disk comes of it. */
struct reader *reader_new(const struct reader_format *format, const struct format_parts *parts,
                          GError **error);
void reader_free(struct reader *reader);

/* The byte at `at` of the file, and those behind it up to the end of its page. Behind the end of
 * the file there are zeros. They stay until the next call, or until a lock of `find` is given up.
 */
int reader_look(struct reader *reader, uint64_t at, bool wait, const uint8_t **bytes);
/* A range of the file as reader_look has it, or an error with a sentence: in `judge`. What does not
 * lie in the file is an error. */
bool reader_copy(struct reader *reader, uint64_t at, void *to, size_t length, GError **error);
/* The same straight from a file, for `links`. */
bool reader_copy_file(struct disk *file, const char *name, uint64_t at, void *to, size_t length,
                      GError **error);

/* Of the bits from `first` on in the map at `at` of the file, *count at most: how many are alike
 * (it may stop early), and what they are. */
enum reader_order { READER_LOW_FIRST, READER_HIGH_FIRST }; /* bits in their byte */
int reader_run(struct reader *reader, uint64_t at, uint64_t first, uint64_t *count,
               enum reader_order order, bool wait, bool *set);

/* The end of `find` for what lies in the file: what begins behind its end does not. */
int reader_data(struct reader *reader, bool wait, uint64_t at, uint64_t length,
                struct extent *extent);
/* An entry of a table that makes no sense: EIO, and a line in the log. */
int reader_bad(struct reader *reader, bool wait, const char *what);
/* An image that is refused: "NAME: what is wrong". */
bool reader_refuse(GError **error, const char *name, const char *format, ...) G_GNUC_PRINTF(3, 4);

static inline bool is_power(uint64_t n)
{
    return n && !(n & (n - 1));
}
