/* A volatile write cache; see volatile.h. One thread of a worker (worker.h) carries out what comes,
 * with disk_now below, so a full host and its errors are the worker's. Blocks lie in a ring by age,
 * and in a hash table; both are made when the disk is opened. */
#include "block/volatile.h"

#include "base/log.h"
#include "block/cursor.h"
#include "block/worker.h"

#include <errno.h>
#include <string.h>

enum {
    BLOCK = 4096,
    SECTORS = BLOCK / SECTOR,
    WHOLE = (1 << SECTORS) - 1,
    BLOCKS = VOLATILE_MAX / BLOCK,
    RUN = 64,             /* blocks that go down in one write */
    ZEROS_MAX = 16 << 20, /* bytes of zeros that are kept; more at once are not */
    NONE = BLOCKS,        /* no place in the ring */
};

struct block {
    uint64_t number; /* its place on the disk, in blocks */
    uint8_t *data;   /* NULL: zeros */
    uint32_t next;   /* with the same hash: a place in the ring, or NONE */
    uint8_t mask;    /* which sectors are kept: bit 0 is the first */
};

struct cache {
    struct worker worker;
    struct disk *below;
    GMutex lock; /* protects what follows: tools call disk_now on other threads */
    struct block *ring;
    uint32_t *heads; /* by hash */
    uint32_t oldest, count;
    uint32_t seed;
    bool cut;
};

static struct cache *of(struct disk *disk)
{
    return (struct cache *)disk;
}

/* --- the table ----------------------------------------------------------------------------------
 */

static struct block *at_age(const struct cache *cache, uint32_t age)
{
    return &cache->ring[(cache->oldest + age) % BLOCKS];
}

static struct block *find(const struct cache *cache, uint64_t number)
{
    uint32_t at = cache->heads[number % BLOCKS];
    while (at != NONE && cache->ring[at].number != number)
        at = cache->ring[at].next;
    return at == NONE ? NULL : &cache->ring[at];
}

/* There is room for it. */
static struct block *add(struct cache *cache, uint64_t number)
{
    uint32_t at = (cache->oldest + cache->count++) % BLOCKS;
    uint32_t *head = &cache->heads[number % BLOCKS];
    cache->ring[at] = (struct block){ .number = number, .next = *head };
    *head = at;
    return &cache->ring[at];
}

static void remove_oldest(struct cache *cache)
{
    struct block *block = at_age(cache, 0);
    uint32_t *link = &cache->heads[block->number % BLOCKS];
    while (*link != cache->oldest)
        link = &cache->ring[*link].next;
    *link = block->next;
    g_clear_pointer(&block->data, g_free);
    cache->oldest = (cache->oldest + 1) % BLOCKS;
    cache->count--;
}

/* The part of a range that lies in one block. */
struct part {
    uint64_t number;
    unsigned first, sectors;
    uint8_t mask;
};

static struct part part_at(uint64_t at, uint64_t end)
{
    struct part part = { .number = at / BLOCK, .first = (unsigned)(at % BLOCK / SECTOR) };
    part.sectors = (unsigned)(MIN(end, (part.number + 1) * BLOCK) - at) / SECTOR;
    part.mask = (uint8_t)((1u << part.sectors) - 1) << part.first & WHOLE;
    return part;
}

/* The sectors of a block that lie in a range. */
static uint8_t mask_in(const struct block *block, uint64_t at, uint64_t end)
{
    uint64_t from = block->number * BLOCK, to = from + BLOCK;
    return MAX(from, at) < MIN(to, end) ? part_at(MAX(from, at), MIN(to, end)).mask : 0;
}

/* --- down ---------------------------------------------------------------------------------------
 */

static int pass(const struct cache *cache, const struct disk_request *request)
{
    struct disk_request copy = *request;
    copy.offset = request->at;
    return disk_now(cache->below, &copy);
}

static int zero_below(const struct cache *cache, uint64_t at, uint64_t length)
{
    const struct disk_request zero = { .op = DISK_WRITE_ZEROES, .offset = at, .length = length };
    return disk_now(cache->below, &zero);
}

/* These sectors of a block. */
static int write_sectors(const struct cache *cache, const struct block *block, uint8_t mask)
{
    int error = 0;
    for (unsigned first = 0, end; !error && first < SECTORS; first = end + 1) {
        for (end = first; end < SECTORS && mask & 1 << end;)
            end++;
        uint64_t at = block->number * BLOCK + first * SECTOR, length = (end - first) * SECTOR;
        if (length && block->data)
            error = disk_write(cache->below, block->data + first * SECTOR, length, at);
        else if (length)
            error = zero_below(cache, at, length);
    }
    return error;
}

/* The oldest one, and those kept after it that lie behind it on the disk. */
static int write_oldest(struct cache *cache)
{
    struct iovec iov[RUN];
    const struct block *first = at_age(cache, 0);
    unsigned run = 0;
    for (; run < MIN(RUN, cache->count); run++) {
        const struct block *block = at_age(cache, run);
        if (block->mask != WHOLE || !block->data || block->number != first->number + run)
            break;
        iov[run] = (struct iovec){ block->data, BLOCK };
    }
    const struct disk_request write = { .op = DISK_WRITE,
                                        .offset = first->number * BLOCK,
                                        .length = (uint64_t)run * BLOCK,
                                        .iov = iov,
                                        .iov_count = run };
    int error = run ? disk_now(cache->below, &write) : write_sectors(cache, first, first->mask);
    for (unsigned n = MAX(run, 1); !error && n; n--)
        remove_oldest(cache);
    return error;
}

static int write_all(struct cache *cache)
{
    const struct disk_request flush = { .op = DISK_FLUSH };
    int error = 0;
    while (!error && cache->count)
        error = write_oldest(cache);
    return error ? error : disk_now(cache->below, &flush);
}

/* --- requests -----------------------------------------------------------------------------------
 */

/* Not kept: what was kept there before is older. */
static int write_through(struct cache *cache, const struct disk_request *request)
{
    int error = pass(cache, request);
    for (uint32_t age = 0; !error && age < cache->count; age++) {
        struct block *block = at_age(cache, age);
        block->mask &= (uint8_t)~mask_in(block, request->at, request->at + request->length);
    }
    return error;
}

/* `from` NULL: zeros. ENOMEM: it is not kept, all else is as it was. */
static int keep(struct cache *cache, const struct part *part, struct cursor *from)
{
    struct block *block = find(cache, part->number);
    int error = 0;
    while (!error && !block && cache->count == BLOCKS)
        error = write_oldest(cache);
    if (error)
        return error;
    if (!block)
        block = add(cache, part->number);
    if (from && !block->data)
        block->data = g_try_malloc0(BLOCK);
    if (from && !block->data)
        return ENOMEM;
    if (from)
        cursor_read(from, block->data + part->first * SECTOR, part->sectors * SECTOR);
    else if (part->mask == WHOLE)
        g_clear_pointer(&block->data, g_free);
    else if (block->data)
        memset(block->data + part->first * SECTOR, 0, part->sectors * SECTOR);
    block->mask |= part->mask;
    return 0;
}

static int do_write(struct cache *cache, const struct disk_request *request)
{
    struct cursor cursor = { request->iov, 0 };
    uint64_t at = request->at, end = at + request->length;
    bool zeros = request->op == DISK_WRITE_ZEROES;
    if (zeros && request->length > ZEROS_MAX)
        return write_through(cache, request);
    while (at < end) {
        struct part part = part_at(at, end);
        int error = keep(cache, &part, zeros ? NULL : &cursor);
        if (error)
            return error == ENOMEM ? write_through(cache, request) : error;
        at += part.sectors * SECTOR;
    }
    return 0;
}

static bool has_all(const struct cache *cache, uint64_t at, uint64_t end)
{
    while (at < end) {
        struct part part = part_at(at, end);
        const struct block *block = find(cache, part.number);
        if (!block || part.mask & ~block->mask)
            return false;
        at += part.sectors * SECTOR;
    }
    return true;
}

static void skip(struct cursor *cursor, size_t length)
{
    struct iovec spans[4];
    for (size_t taken; length; length -= taken)
        cursor_take(cursor, length, spans, G_N_ELEMENTS(spans), &taken);
}

static int do_read(const struct cache *cache, const struct disk_request *request)
{
    struct cursor cursor = { request->iov, 0 };
    uint64_t at = request->at, end = at + request->length;
    int error = has_all(cache, at, end) ? 0 : pass(cache, request);
    if (error || !cache->count)
        return error;
    while (at < end) {
        struct part part = part_at(at, end);
        const struct block *block = find(cache, part.number);
        for (unsigned n = part.first; n < part.first + part.sectors; n++) {
            if (!block || !(block->mask & 1 << n))
                skip(&cursor, SECTOR);
            else if (block->data)
                cursor_write(&cursor, block->data + n * SECTOR, SECTOR);
            else
                cursor_zero(&cursor, SECTOR);
        }
        at += part.sectors * SECTOR;
    }
    return 0;
}

/* The disk below may leave what it has there, so what is kept comes first: it may be zeros. */
static int do_discard(struct cache *cache, const struct disk_request *request)
{
    uint64_t at = request->at, end = at + request->length;
    int error = 0;
    for (uint32_t age = 0; !error && age < cache->count; age++) {
        struct block *block = at_age(cache, age);
        uint8_t mask = block->mask & mask_in(block, at, end);
        error = write_sectors(cache, block, mask);
        if (!error)
            block->mask &= (uint8_t)~mask;
    }
    return error ? error : pass(cache, request);
}

static int volatile_run(struct worker *worker, const struct disk_request *request)
{
    struct cache *cache = of(&worker->disk);
    int error = EINVAL;
    g_mutex_lock(&cache->lock);
    switch (request->op) {
    case DISK_READ:
        error = do_read(cache, request);
        break;
    case DISK_WRITE:
    case DISK_WRITE_ZEROES:
        error = do_write(cache, request);
        break;
    case DISK_FLUSH:
        error = write_all(cache);
        break;
    case DISK_DISCARD:
        error = do_discard(cache, request);
        break;
    }
    g_mutex_unlock(&cache->lock);
    return error;
}

/* --- the end ------------------------------------------------------------------------------------
 */

/* A number by chance, always the same for a block and a seed (splitmix64). */
static uint64_t chance(uint32_t seed, uint64_t number)
{
    uint64_t x = number * UINT64_C(0x9e3779b97f4a7c15) + ((uint64_t)seed << 32 | seed) + 1;
    for (unsigned round = 0; round < 2; round++) {
        x += UINT64_C(0x9e3779b97f4a7c15);
        x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
        x ^= x >> 31;
    }
    return x;
}

/* All of a block, none of it, or some of its sectors. */
static uint8_t survivors(const struct cache *cache, const struct block *block)
{
    uint64_t number = chance(cache->seed, block->number);
    const uint8_t luck[] = { WHOLE, 0, (uint8_t)(number >> 32) };
    return block->mask & luck[number % G_N_ELEMENTS(luck)];
}

static void lose(struct cache *cache)
{
    const struct disk_request flush = { .op = DISK_FLUSH };
    int kept = 0, left = 0;
    for (; cache->count; remove_oldest(cache)) {
        const struct block *block = at_age(cache, 0);
        uint8_t mask = survivors(cache, block);
        kept += __builtin_popcount(block->mask);
        if (!write_sectors(cache, block, mask))
            left += __builtin_popcount(mask);
    }
    disk_now(cache->below, &flush);
    log_warn(
        cache->worker.disk.name,
        "power cut: %d of %d sectors that were written and not flushed are lost (--volatile %u)",
        kept - left, kept, cache->seed);
}

static void volatile_finish(struct worker *worker)
{
    struct cache *cache = of(&worker->disk);
    int error = 0;
    if (cache->cut)
        lose(cache);
    else
        error = write_all(cache);
    if (error)
        log_warn(worker->disk.name, "what it had kept in memory is lost: %s", g_strerror(error));
    while (cache->count)
        remove_oldest(cache);
    disk_free(cache->below);
    g_mutex_clear(&cache->lock);
    g_free(cache->ring);
    g_free(cache->heads);
}

void volatile_cut(struct disk *disk)
{
    of(disk)->cut = true;
}

void volatile_follow(struct disk *disk)
{
    disk->size = of(disk)->below->size;
}

struct disk *volatile_open(struct disk *below, uint32_t seed)
{
    struct cache *cache = g_new0(struct cache, 1);
    struct disk *disk = &cache->worker.disk;
    worker_init(&cache->worker, below->name, 1, volatile_run, volatile_finish);
    g_mutex_init(&cache->lock);
    cache->below = below;
    cache->seed = seed;
    cache->ring = g_new0(struct block, BLOCKS);
    cache->heads = g_new(uint32_t, BLOCKS);
    for (unsigned i = 0; i < BLOCKS; i++)
        cache->heads[i] = NONE;
    disk->size = below->size;
    disk->readonly = below->readonly;
    disk->identity = g_strdup(below->identity);
    disk->mark = g_strdup(below->mark);
    return disk;
}
