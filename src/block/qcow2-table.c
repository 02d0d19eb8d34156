/* Tables of a qcow2 image in memory: in pieces, in a cache of bounded size, or as a whole. */
#include "block/qcow2-core.h"

#include "block/raw.h"

#include <errno.h>
#include <stdlib.h>

enum { AT_ONCE = 64 /* pieces in one system call */, ENTRIES_AT_ONCE = 512 };

bool table_init(struct table_cache *cache, unsigned sets, size_t size)
{
    cache->pieces = g_try_new0(struct table_piece, sets * TABLE_WAYS);
    cache->sets = sets;
    cache->size = size;
    for (unsigned i = 0; cache->pieces && i < sets * TABLE_WAYS; i++)
        cache->pieces[i].index = NO_PIECE;
    return cache->pieces;
}

void table_free(struct table_cache *cache)
{
    for (unsigned i = 0; cache->pieces && i < cache->sets * TABLE_WAYS; i++)
        g_free(cache->pieces[i].data);
    g_free(cache->pieces);
    cache->pieces = NULL;
}

/* One that is empty, or else one that was not used since the last search. */
struct table_piece *table_victim(struct table_cache *cache, uint64_t index)
{
    struct table_piece *set = &cache->pieces[(index & (cache->sets - 1)) * TABLE_WAYS];
    struct table_piece *victim = NULL;
    for (unsigned i = 0; i < TABLE_WAYS; i++)
        if (set[i].index == NO_PIECE)
            return &set[i];
    for (unsigned i = 0; i < TABLE_WAYS; i++)
        if (!set[i].dirty && (!victim || (victim->used && !set[i].used)))
            victim = &set[i];
    for (unsigned i = 0; i < TABLE_WAYS; i++)
        set[i].used = false;
    return victim;
}

/* --- writing --------------------------------------------------------------------------------- */

struct place_of {
    uint64_t at;
    struct table_piece *piece;
};

static int by_place(const void *a, const void *b)
{
    const struct place_of *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Those that follow each other in the file with one call. */
static int write_sorted(struct qcow2 *qcow2, struct table_cache *cache, struct place_of *list,
                        unsigned count)
{
    struct iovec iov[AT_ONCE];
    int error = 0;
    for (unsigned i = 0, n; i < count && !error; i += n) {
        for (n = 0; i + n < count && n < AT_ONCE && list[i + n].at == list[i].at + n * cache->size;
             n++)
            iov[n] = (struct iovec){ list[i + n].piece->data, cache->size };
        error = raw_move(qcow2->mapped.file, true, iov, n, list[i].at);
        for (unsigned k = 0; k < n && !error; k++)
            list[i + k].piece->dirty = false;
        cache->dirty -= error ? 0 : n;
    }
    return error;
}

int table_write(struct qcow2 *qcow2, struct table_cache *cache,
                uint64_t (*place)(const struct qcow2 *qcow2, uint64_t index))
{
    unsigned count = 0;
    if (!cache->dirty)
        return 0;
    struct place_of *list = g_try_new(struct place_of, cache->dirty);
    if (!list)
        return ENOMEM;
    for (unsigned i = 0; i < cache->sets * TABLE_WAYS && count < cache->dirty; i++) {
        struct table_piece *piece = &cache->pieces[i];
        if (piece->dirty)
            list[count++] = (struct place_of){ place(qcow2, piece->index), piece };
    }
    qsort(list, count, sizeof *list, by_place);
    int error = write_sorted(qcow2, cache, list, count);
    g_free(list);
    return error;
}

/* --- as a whole ------------------------------------------------------------------------------ */

int table_read_all(struct disk *file, uint64_t at, uint64_t *table, size_t size)
{
    int error = raw_read(file, table, size * 8, at);
    for (size_t i = 0; i < size && !error; i++)
        table[i] = be64toh(table[i]);
    return error;
}

int table_write_change(struct disk *file, uint64_t at, const uint64_t *table,
                       struct table_change *change)
{
    uint64_t some[ENTRIES_AT_ONCE];
    int error = 0;
    size_t n;
    for (size_t i = change->first; i < change->end && !error; i += n) {
        n = MIN(change->end - i, (size_t)ENTRIES_AT_ONCE);
        for (size_t k = 0; k < n; k++)
            some[k] = htobe64(table[i + k]);
        error = raw_write(file, some, n * 8, at + i * 8);
    }
    if (!error)
        *change = (struct table_change){ 0, 0 };
    return error;
}
