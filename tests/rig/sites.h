/* Read before each source file of src/block and of hv image (cc -include) for test-sites.c: each
 * place in them that calls the host, or raw.c for that, is in a table, and says so when it does. */
#pragma once
#include "block/raw.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

struct site {
    const char *file, *call;
    int line;
    unsigned failed; /* how calls of it did: bits by enum failure of test-sites.c */
    unsigned wanted; /* how they should */
};

/* The calls that a thread is in. */
void site_enter(struct site *site);
void site_leave(void);
/* What the next call to the host is for: a disk's request; what raw.c makes of it. */
void site_mark(struct site *site);
void site_mark_raw(struct site *site);

/* The table is a section of the program. */
#define SITE_NEW(name)                                                                             \
    static struct site here_ = { .file = __FILE__, .call = #name, .line = __LINE__ };              \
    static struct site *entry_ __attribute__((section("sites"), used)) = &here_

#define SITE(name, arguments)                                                                      \
    ({                                                                                             \
        SITE_NEW(name);                                                                            \
        (void)entry_;                                                                              \
        site_enter(&here_);                                                                        \
        __auto_type result_ = name arguments;                                                      \
        site_leave();                                                                              \
        result_;                                                                                   \
    })

/* Of a call through a pointer. */
#define SITE_MARK(mark, name, first)                                                               \
    (({                                                                                            \
         SITE_NEW(name);                                                                           \
         (void)entry_;                                                                             \
         mark(&here_);                                                                             \
     }),                                                                                           \
     (first))

#ifdef SITES_RAW /* raw.c itself */
#define readv(fd, ...)    readv(SITE_MARK(site_mark_raw, readv, fd), __VA_ARGS__)
#define writev(fd, ...)   writev(SITE_MARK(site_mark_raw, writev, fd), __VA_ARGS__)
#define sync(fd)          sync(SITE_MARK(site_mark_raw, sync, fd))
#define allocate(fd, ...) allocate(SITE_MARK(site_mark_raw, allocate, fd), __VA_ARGS__)
#define truncate(fd, ...) truncate(SITE_MARK(site_mark_raw, truncate, fd), __VA_ARGS__)
#else
#define raw_move(...)     SITE(raw_move, (__VA_ARGS__))
#define raw_read(...)     SITE(raw_read, (__VA_ARGS__))
#define raw_write(...)    SITE(raw_write, (__VA_ARGS__))
#define raw_sync(...)     SITE(raw_sync, (__VA_ARGS__))
#define raw_punch(...)    SITE(raw_punch, (__VA_ARGS__))
#define raw_zero(...)     SITE(raw_zero, (__VA_ARGS__))
#define raw_truncate(...) SITE(raw_truncate, (__VA_ARGS__))
#define raw_transfer(...) SITE(raw_transfer, (__VA_ARGS__))
#define now(disk, ...)    now(SITE_MARK(site_mark, now, disk), __VA_ARGS__)
#define pread(...)        SITE(pread, (__VA_ARGS__))
#define pwrite(...)       SITE(pwrite, (__VA_ARGS__))
#define preadv(...)       SITE(preadv, (__VA_ARGS__))
#define pwritev(...)      SITE(pwritev, (__VA_ARGS__))
#define ftruncate(...)    SITE(ftruncate, (__VA_ARGS__))
#define fsync(...)        SITE(fsync, (__VA_ARGS__))
#define linkat(...)       SITE(linkat, (__VA_ARGS__))
#define rename(...)       SITE(rename, (__VA_ARGS__))
#endif
