/* Hyper-V's disk images (VHDX), fixed, dynamic and differencing, to be read: [MS-VHDX]. Numbers in
 * brackets are its sections.
 *
 * Of two headers the one with the higher sequence number counts. If it names a log, the image was
 * not closed, and the file is read as it would be after a replay (vhdx-log.c). A table of regions
 * says where the metadata and the table of blocks (BAT) are. Between the entries of the blocks of
 * each chunk, 2^23 sectors, stands one for a bit map of its sectors: in a differencing image those
 * of a block that is partially present. */
#include "block/vhdx.h"
#include "block/bytes.h"
#include "block/crc32c.h"
#include "block/reader.h"
#include "block/utf16.h"

#include <string.h>

enum { HEADERS_AT = 64 << 10, HEADER_STEP = 64 << 10, REGIONS_AT = 192 << 10 };
/* The header [2.2.2], little-endian like all. */
enum {
    HEADER = 4096,
    SUM_AT = 4,
    SEQUENCE_AT = 8,
    CONTENT_AT = 32, /* DataWriteGuid */
    LOG_GUID_AT = 48,
    LOG_VERSION_AT = 64,
    VERSION_AT = 66,
    LOG_LENGTH_AT = 68,
    LOG_AT = 72,
};
/* Tables of regions [2.2.3] and of metadata [2.6.1]. */
enum {
    TABLE = 64 << 10,
    REGION_COUNT_AT = 8,
    REGION_ENTRIES_AT = 16,
    META_COUNT_AT = 10,
    META_ENTRIES_AT = 32,
    ENTRY = 32,
    ENTRIES_MOST = 2047,
    REQUIRED = 1,      /* of a region's flags at 28 */
    META_USER = 1,     /* of an item's at 24 */
    META_REQUIRED = 4, /* of those too */
};
enum { BLOCK_LARGEST = 256 << 20, LOCATOR_LARGEST = 64 << 10, LOCATOR_ENTRY = 12, GUID_TEXT = 39 };
#define CHUNK_SECTORS (1ull << 23)
#define SIZE_LARGEST  (64ull << 40)

/* States of an entry of the BAT [2.5.1]. */
enum { NOT_PRESENT, UNDEFINED, ZEROED, UNMAPPED, PRESENT = 6, PARTIALLY };

struct vhdx {
    struct reader reader;
    struct vhdx_log *log;               /* NULL: the image was closed */
    uint64_t table, table_length;       /* bytes: the BAT */
    uint64_t metadata, metadata_length; /* bytes: that region */
    uint64_t block, ratio;              /* bytes of a block; how many are a chunk */
    bool differencing;
    char *parent;     /* its path */
    char *linkage[2]; /* what the parent's content may be called */
};

static const uint8_t bat_guid[] = { 0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                    0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08 };
static const uint8_t metadata_guid[] = { 0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
                                         0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e };
static const uint8_t locator_type[] = { 0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a,
                                        0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13 };

static bool probe(const struct format_head *head)
{
    return !memcmp(head->head, "vhdxfile", 8);
}

bool vhdx_sum_fits(const uint8_t *bytes, size_t length, size_t sum_at)
{
    static const uint8_t zeros[4];
    uint32_t crc = crc32c_add(~0u, bytes, sum_at);
    crc = crc32c_add(crc, zeros, 4);
    crc = crc32c_add(crc, bytes + sum_at + 4, length - sum_at - 4);
    return ~crc == le32_at(bytes + sum_at);
}

/* "{d1-d2-d3-d4-d5}", as parent locators have it. */
static void guid_text(char text[GUID_TEXT], const uint8_t *guid)
{
    static const int8_t order[] = { 3,  2, 1, 0,  -1, 5,  4,  -1, 7,  6,
                                    -1, 8, 9, -1, 10, 11, 12, 13, 14, 15 };
    *text++ = '{';
    for (unsigned i = 0; i < G_N_ELEMENTS(order); i++) {
        if (order[i] < 0) {
            *text++ = '-';
            continue;
        }
        *text++ = "0123456789abcdef"[guid[order[i]] >> 4];
        *text++ = "0123456789abcdef"[guid[order[i]] & 15];
    }
    memcpy(text, "}", 2);
}

/* --- headers and log -------------------------------------------------------------------------- */

static bool read_header(struct vhdx *vhdx, uint8_t *header, GError **error)
{
    struct reader *reader = &vhdx->reader;
    uint8_t both[2][HEADER];
    const uint8_t *best = NULL;
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *h = both[i];
        if (!reader_copy_file(reader->file, reader->name, HEADERS_AT + i * HEADER_STEP, h, HEADER,
                              error))
            return false;
        if (!memcmp(h, "head", 4) && vhdx_sum_fits(h, HEADER, SUM_AT) &&
            (!best || le64_at(h + SEQUENCE_AT) > le64_at(best + SEQUENCE_AT)))
            best = h;
    }
    if (!best)
        return reader_refuse(error, reader->name, "both headers of the VHDX image are damaged");
    if (le16_at(best + VERSION_AT) != 1)
        return reader_refuse(error, reader->name, "it is a VHDX image of version %u, not 1",
                             le16_at(best + VERSION_AT));
    memcpy(header, best, HEADER);
    return true;
}

static bool read_log(struct vhdx *vhdx, const uint8_t *header, GError **error)
{
    static const uint8_t none[GUID_SIZE];
    struct reader *reader = &vhdx->reader;
    if (!memcmp(header + LOG_GUID_AT, none, GUID_SIZE))
        return true;
    if (le16_at(header + LOG_VERSION_AT))
        return reader_refuse(error, reader->name, "its log has version %u, not 0",
                             le16_at(header + LOG_VERSION_AT));
    vhdx->log =
        vhdx_log_open(reader->file, reader->name, header + LOG_GUID_AT, le64_at(header + LOG_AT),
                      le32_at(header + LOG_LENGTH_AT), reader->end, error);
    if (vhdx->log)
        reader->end = vhdx_log_end(vhdx->log);
    return vhdx->log;
}

/* --- regions ---------------------------------------------------------------------------------- */

static bool judge_region(struct vhdx *vhdx, const uint8_t *entry, GError **error)
{
    const struct reader *reader = &vhdx->reader;
    uint64_t at = le64_at(entry + 16), length = le32_at(entry + 24);
    bool bat = !memcmp(entry, bat_guid, GUID_SIZE);
    if (!bat && memcmp(entry, metadata_guid, GUID_SIZE)) {
        if (le32_at(entry + 28) & REQUIRED)
            return reader_refuse(error, reader->name,
                                 "it has a region that must be understood, and is not known");
        return true;
    }
    if (at % VHDX_ALIGN || !at || at > reader->end || length > reader->end - at)
        return reader_refuse(error, reader->name, "one of its regions is not within the file");
    *(bat ? &vhdx->table : &vhdx->metadata) = at;
    *(bat ? &vhdx->table_length : &vhdx->metadata_length) = length;
    return true;
}

static bool read_regions(struct vhdx *vhdx, uint8_t *table, GError **error)
{
    struct reader *reader = &vhdx->reader;
    bool found = false;
    for (unsigned i = 0; i < 2 && !found; i++) {
        if (!reader_copy(reader, REGIONS_AT + i * TABLE, table, TABLE, error))
            return false;
        found = !memcmp(table, "regi", 4) && vhdx_sum_fits(table, TABLE, SUM_AT) &&
                le32_at(table + REGION_COUNT_AT) <= ENTRIES_MOST;
    }
    if (!found)
        return reader_refuse(error, reader->name, "both of its tables of regions are damaged");
    for (uint32_t i = 0; i < le32_at(table + REGION_COUNT_AT); i++)
        if (!judge_region(vhdx, table + REGION_ENTRIES_AT + i * ENTRY, error))
            return false;
    if (!vhdx->table || !vhdx->metadata || vhdx->metadata_length < TABLE)
        return reader_refuse(error, reader->name, "it lacks a region that each VHDX image has");
    return true;
}

/* --- metadata --------------------------------------------------------------------------------- */

enum item { PARAMETERS, DISK_SIZE, SECTOR_SIZE, LOCATOR, DISK_ID, PHYSICAL_SIZE, ITEMS };
static const struct {
    uint8_t guid[GUID_SIZE];
    uint32_t least; /* bytes */
} known_items[ITEMS] = {
    [PARAMETERS] = { { 0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa,
                       0x44, 0xe7, 0x6b },
                     8 },
    [DISK_SIZE] = { { 0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8,
                      0x3b, 0xf4, 0xb8 },
                    8 },
    [SECTOR_SIZE] = { { 0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33,
                        0xa8, 0xfa, 0xab, 0x5f },
                      4 },
    [LOCATOR] = { { 0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48,
                    0x34, 0xab, 0x0c },
                  20 },
    [DISK_ID] = { { 0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0,
                    0x00, 0xc7, 0x46 },
                  16 },
    [PHYSICAL_SIZE] = { { 0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88,
                          0x52, 0x51, 0xc5, 0x56 },
                        4 },
};

struct place_of {
    uint64_t at; /* bytes in the file; 0: there is none */
    uint32_t length;
};

static bool judge_item(struct vhdx *vhdx, const uint8_t *entry, struct place_of *places,
                       GError **error)
{
    const char *name = vhdx->reader.name;
    uint32_t offset = le32_at(entry + 16), length = le32_at(entry + 20);
    uint32_t flags = le32_at(entry + 24);
    unsigned i = 0;
    while (i < ITEMS && memcmp(entry, known_items[i].guid, GUID_SIZE))
        i++;
    if (flags & META_USER)
        i = ITEMS;
    if (i == ITEMS)
        return !(flags & META_REQUIRED) ||
               reader_refuse(error, name,
                             "it has metadata that must be understood, and is not known");
    if (offset < TABLE || offset > vhdx->metadata_length ||
        length > vhdx->metadata_length - offset || length < known_items[i].least)
        return reader_refuse(error, name, "one of its items of metadata is not where it should be");
    places[i] = (struct place_of){ vhdx->metadata + offset, length };
    return true;
}

/* The value of one of the known items that are numbers. */
static bool read_number(struct vhdx *vhdx, const struct place_of *place, unsigned width,
                        uint64_t *value, GError **error)
{
    uint8_t bytes[8] = { 0 };
    if (!place->at)
        return reader_refuse(error, vhdx->reader.name,
                             "it lacks metadata that each VHDX image has");
    bool ok = reader_copy(&vhdx->reader, place->at, bytes, width, error);
    *value = le64_at(bytes);
    return ok;
}

/* A key and its value [2.6.2.6.2]. */
static void read_key(struct vhdx *vhdx, const char *key, const char *value)
{
    static const char *const paths[] = { "absolute_win32_path", "volume_path", "relative_path" };
    static const char *const linkages[] = { "parent_linkage", "parent_linkage2" };
    for (unsigned i = 0; i < G_N_ELEMENTS(linkages); i++)
        if (!strcmp(key, linkages[i]) && !vhdx->linkage[i])
            vhdx->linkage[i] = g_ascii_strdown(value, -1);
    /* A relative one is wanted, whenever it comes. */
    for (unsigned i = 0; i < G_N_ELEMENTS(paths); i++)
        if (!strcmp(key, paths[i]) && (!vhdx->parent || !strcmp(key, "relative_path"))) {
            char *path = windows_path(value);
            if (path) {
                g_free(vhdx->parent);
                vhdx->parent = path;
            }
        }
}

static bool read_locator(struct vhdx *vhdx, const struct place_of *place, GError **error)
{
    uint32_t length = MIN(place->length, LOCATOR_LARGEST);
    g_autofree uint8_t *bytes = g_try_malloc(length);
    if (!bytes)
        return reader_refuse(error, vhdx->reader.name, "there is no memory to open it");
    if (!reader_copy(&vhdx->reader, place->at, bytes, length, error))
        return false;
    if (memcmp(bytes, locator_type, GUID_SIZE))
        return reader_refuse(error, vhdx->reader.name, "its parent is no VHDX image");
    uint16_t count = le16_at(bytes + 18);
    for (unsigned i = 0; i < count && 20 + (i + 1) * LOCATOR_ENTRY <= length; i++) {
        const uint8_t *e = bytes + 20 + i * LOCATOR_ENTRY;
        uint32_t key_at = le32_at(e), value_at = le32_at(e + 4);
        uint16_t key_length = le16_at(e + 8), value_length = le16_at(e + 10);
        if (key_at > length || key_length > length - key_at || value_at > length ||
            value_length > length - value_at)
            continue;
        g_autofree char *key = utf16_text(bytes + key_at, key_length, false);
        g_autofree char *value = utf16_text(bytes + value_at, value_length, false);
        if (key && value)
            read_key(vhdx, key, value);
    }
    return true;
}

/* The items that say what disk it is, and what they must be. */
static bool judge_disk(struct vhdx *vhdx, const struct place_of *places, GError **error)
{
    struct reader *reader = &vhdx->reader;
    const char *name = reader->name;
    uint64_t parameters = 0, size = 0, sector = 0;
    if (!read_number(vhdx, &places[PARAMETERS], 8, &parameters, error) ||
        !read_number(vhdx, &places[DISK_SIZE], 8, &size, error) ||
        !read_number(vhdx, &places[SECTOR_SIZE], 4, &sector, error))
        return false;
    vhdx->block = (uint32_t)parameters;
    vhdx->differencing = parameters >> 33 & 1;
    if (sector != SECTOR)
        return reader_refuse(error, name,
                             "its sectors have %" G_GUINT64_FORMAT " bytes, and disks with others "
                             "than 512 cannot be shown",
                             sector);
    if (!is_power(vhdx->block) || vhdx->block < VHDX_ALIGN || vhdx->block > BLOCK_LARGEST)
        return reader_refuse(error, name, "its blocks have %" G_GUINT64_FORMAT " bytes",
                             vhdx->block);
    if (!size || size % SECTOR || size > SIZE_LARGEST)
        return reader_refuse(error, name, "a disk of %" G_GUINT64_FORMAT " bytes cannot be", size);
    vhdx->ratio = CHUNK_SECTORS * SECTOR / vhdx->block;
    uint64_t blocks = (size + vhdx->block - 1) / vhdx->block;
    uint64_t entries = vhdx->differencing
                           ? (blocks + vhdx->ratio - 1) / vhdx->ratio * (vhdx->ratio + 1)
                           : blocks + (blocks - 1) / vhdx->ratio;
    if (entries * 8 > vhdx->table_length)
        return reader_refuse(error, name, "its table of blocks is too small for the disk");
    reader->mapped.worker.disk.size = size;
    if (vhdx->differencing && !places[LOCATOR].at)
        return reader_refuse(error, name,
                             "it holds differences to another image, but no name of it");
    return !vhdx->differencing || read_locator(vhdx, &places[LOCATOR], error);
}

/* `table` is a buffer of its size. */
static bool read_metadata(struct vhdx *vhdx, uint8_t *table, GError **error)
{
    struct reader *reader = &vhdx->reader;
    struct place_of places[ITEMS] = { { 0 } };
    if (!reader_copy(reader, vhdx->metadata, table, TABLE, error))
        return false;
    uint16_t count = le16_at(table + META_COUNT_AT);
    if (memcmp(table, "metadata", 8) || count > ENTRIES_MOST)
        return reader_refuse(error, reader->name, "its table of metadata is damaged");
    for (unsigned i = 0; i < count; i++)
        if (!judge_item(vhdx, table + META_ENTRIES_AT + i * ENTRY, places, error))
            return false;
    return judge_disk(vhdx, places, error);
}

/* --- opening ---------------------------------------------------------------------------------- */

/* For `links`: before there is a parent. */
static bool judge_alone(struct reader *reader, const struct format_parts *parts, GError **error)
{
    struct vhdx *vhdx = (struct vhdx *)reader;
    uint8_t header[HEADER], kind[8];
    char mark[GUID_TEXT];
    if (!reader_copy_file(reader->file, parts->name, 0, kind, sizeof kind, error))
        return false;
    if (memcmp(kind, "vhdxfile", sizeof kind))
        return reader_refuse(error, parts->name, "it is no VHDX image");
    g_autofree uint8_t *table = g_try_malloc(TABLE);
    if (!table)
        return reader_refuse(error, parts->name, "there is no memory to open it");
    if (!read_header(vhdx, header, error) || !read_log(vhdx, header, error) ||
        !read_regions(vhdx, table, error) || !read_metadata(vhdx, table, error))
        return false;
    guid_text(mark, header + CONTENT_AT);
    reader->mapped.worker.disk.mark = g_strdup(mark);
    return true;
}

static bool judge(struct reader *reader, const struct format_parts *parts, GError **error)
{
    const struct vhdx *vhdx = (struct vhdx *)reader;
    if (!judge_alone(reader, parts, error))
        return false;
    if (!vhdx->differencing)
        return true;
    if (!parts->below)
        return reader_refuse(error, parts->name, "it holds only differences to another image");
    const char *mark = parts->below->mark;
    bool same = !mark || (!vhdx->linkage[0] && !vhdx->linkage[1]);
    for (unsigned i = 0; i < 2 && !same; i++)
        same = vhdx->linkage[i] && !strcmp(vhdx->linkage[i], mark);
    if (!same)
        return reader_refuse(error, parts->name,
                             "%s is not the image that it holds the differences to: that has been "
                             "changed, or replaced",
                             parts->below->name);
    return true;
}

static void finish(struct reader *reader)
{
    struct vhdx *vhdx = (struct vhdx *)reader;
    vhdx_log_free(vhdx->log);
    g_free(vhdx->parent);
    g_free(vhdx->linkage[0]);
    g_free(vhdx->linkage[1]);
}

/* --- the map ---------------------------------------------------------------------------------- */

static void patch(struct reader *reader, uint64_t at, uint8_t *page)
{
    const struct vhdx *vhdx = (struct vhdx *)reader;
    if (vhdx->log)
        vhdx_log_patch(vhdx->log, at, page);
}

/* Entry `index` of the BAT: state and place in the file. */
static int look_up(struct vhdx *vhdx, uint64_t index, bool wait, unsigned *state, uint64_t *at)
{
    const uint8_t *bytes;
    int error = reader_look(&vhdx->reader, vhdx->table + index * 8, wait, &bytes);
    if (error)
        return error;
    uint64_t entry = le64_at(bytes);
    *state = entry & 7;
    *at = entry >> 20 << 20;
    return 0;
}

static int find_data(struct vhdx *vhdx, bool wait, uint64_t at, uint64_t within, uint64_t length,
                     struct extent *extent)
{
    struct reader *reader = &vhdx->reader;
    if (at >= reader->end)
        return reader_bad(reader, wait, "a block lies behind the end of the file");
    int error = reader_data(reader, wait, at + within, length, extent);
    if (!error && vhdx->log && vhdx_log_touches(vhdx->log, at + within, length))
        extent->kind = EXTENT_PACKED; /* not as it lies in the file */
    return error;
}

static int find_partial(struct vhdx *vhdx, uint64_t offset, bool wait, uint64_t at,
                        struct extent *extent)
{
    struct reader *reader = &vhdx->reader;
    uint64_t chunk = offset / vhdx->block / vhdx->ratio, within = offset % vhdx->block;
    uint64_t sectors = (vhdx->block - within + SECTOR - 1) / SECTOR, bits;
    unsigned state;
    bool own;
    int error = look_up(vhdx, chunk * (vhdx->ratio + 1) + vhdx->ratio, wait, &state, &bits);
    if (error)
        return error;
    if (state != PRESENT || bits >= reader->end)
        return reader_bad(reader, wait, "a block has no bit map");
    error = reader_run(reader, bits, offset / SECTOR % CHUNK_SECTORS, &sectors, READER_LOW_FIRST,
                       wait, &own);
    if (error)
        return error;
    uint64_t length = sectors * SECTOR - within % SECTOR;
    if (own)
        return find_data(vhdx, wait, at, within, length, extent);
    *extent = (struct extent){ .kind = EXTENT_BELOW, .length = length };
    return 0;
}

static int find(struct reader *reader, uint64_t offset, bool wait, struct extent *extent)
{
    struct vhdx *vhdx = (struct vhdx *)reader;
    uint64_t block = offset / vhdx->block, within = offset % vhdx->block, at;
    unsigned state;
    int error = look_up(vhdx, block + block / vhdx->ratio, wait, &state, &at);
    if (error)
        return error;
    *extent = (struct extent){ .kind = EXTENT_ZERO, .length = vhdx->block - within };
    switch (state) {
    case NOT_PRESENT:
        extent->kind = vhdx->differencing ? EXTENT_BELOW : EXTENT_ZERO;
        return 0;
    case UNDEFINED:
    case ZEROED:
    case UNMAPPED:
        return 0;
    case PRESENT:
        return find_data(vhdx, wait, at, within, vhdx->block - within, extent);
    case PARTIALLY:
        if (vhdx->differencing)
            return find_partial(vhdx, offset, wait, at, extent);
    }
    return reader_bad(reader, wait, "a block is in no state that there is");
}

/* Data that the log changes: the pages of the file have it. */
static int unpack(struct mapped *mapped, const struct extent *extent, uint64_t offset, void *to,
                  size_t length)
{
    struct reader *reader = (struct reader *)mapped;
    struct extent now;
    (void)extent;
    int error = find(reader, offset, true, &now);
    for (size_t done = 0, n; done < length && !error; done += n) {
        const uint8_t *bytes;
        uint64_t at = now.at + done;
        n = MIN(length - done, READER_PAGE - at % READER_PAGE);
        error = reader_look(reader, at, true, &bytes);
        if (!error)
            memcpy((uint8_t *)to + done, bytes, n);
    }
    return error;
}

static const struct reader_format vhdx_reader = {
    .mapped = { .name = "vhdx", READER_MAPPED, .unpack = unpack },
    .size = sizeof(struct vhdx),
    .judge = judge,
    .find = find,
    .patch = patch,
    .finish = finish,
};
static const struct reader_format alone = {
    .size = sizeof(struct vhdx),
    .judge = judge_alone,
    .patch = patch,
    .finish = finish,
};

static bool links(struct disk *file, const char *name, GPtrArray *links, GError **error)
{
    const struct format_parts parts = { .name = name, .file = file };
    struct vhdx *vhdx = (struct vhdx *)reader_new(&alone, &parts, error);
    if (!vhdx)
        return false;
    bool ok = !vhdx->differencing || vhdx->parent;
    if (!ok)
        reader_refuse(error, name, "it holds differences to another image, but no name of it");
    else if (vhdx->differencing)
        format_link_add(links, vhdx->parent, "vhdx", true);
    reader_free(&vhdx->reader);
    return ok;
}

static struct disk *open_vhdx(const struct format_parts *parts, GError **error)
{
    return reader_open(&vhdx_reader, parts, error);
}

const struct format vhdx_format = {
    .name = "vhdx",
    .what = "a VHDX disk image",
    .probe = probe,
    .links = links,
    .open = open_vhdx,
};
