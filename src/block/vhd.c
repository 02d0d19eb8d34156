/* Virtual PC's and Hyper-V's older disk images (VHD), fixed, dynamic and differencing, to be read:
 * "Virtual Hard Disk Image Format Specification" 1.0 of Microsoft.
 *
 * A footer at the end says what it is; all but fixed ones have a copy of it at the beginning, and a
 * table of blocks, each of them behind a bit map of its sectors. In a differencing image a sector
 * whose bit is clear is the parent's. In a dynamic one the bits say nothing that is not zero anyway
 * and are not looked at. The size of the disk is the footer's current size; the geometry, which is
 * often less, is only what Virtual PC made of it. */
#include "block/bytes.h"
#include "block/reader.h"
#include "block/utf16.h"

#include <string.h>

/* All numbers are big-endian. The footer ("Hard Disk Footer Format"): */
enum {
    FOOTER = 512,
    VERSION_AT = 12,
    NEXT_AT = 16, /* of the dynamic header */
    SIZE_AT = 48,
    TYPE_AT = 60,
    FOOTER_SUM_AT = 64,
    ID_AT = 68,
};
/* The header of dynamic and differencing images ("Dynamic Disk Header Format"): */
enum {
    HEADER = 1024,
    TABLE_AT = 16,
    HEADER_VERSION_AT = 24,
    ENTRIES_AT = 28,
    BLOCK_AT = 32,
    HEADER_SUM_AT = 36,
    PARENT_ID_AT = 40,
    PARENT_NAME_AT = 64,
    PARENT_NAME = 512,
    LOCATORS_AT = 576,
    LOCATORS = 8,
    LOCATOR = 24,
    LOCATOR_MOST = 8192, /* bytes of a path */
    ID = 16,
};
enum { FIXED = 2, DYNAMIC, DIFFERENCING };
#define VERSION       0x00010000u
#define FREE          0xffffffffu
#define RELATIVE      0x57327275u /* "W2ru" */
#define BLOCK_LARGEST (256u << 20)
static const char cookie[] = "conectix", header_cookie[] = "cxsparse";

struct vhd {
    struct reader reader;
    uint8_t footer[FOOTER], header[HEADER];
    uint32_t type;
    uint64_t table, block; /* bytes: in the file; of a block */
    uint64_t bits;         /* of its bit map, whole sectors */
};

/* The ones' complement of the sum of all bytes but those of the sum. */
static bool sum_fits(const uint8_t *bytes, size_t length, size_t sum_at)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < length; i++)
        if (i < sum_at || i >= sum_at + 4)
            sum += bytes[i];
    return ~sum == be32_at(bytes + sum_at);
}

static bool is_footer(const uint8_t *bytes)
{
    return !memcmp(bytes, cookie, 8) && sum_fits(bytes, FOOTER, FOOTER_SUM_AT);
}

static bool probe(const struct format_head *head)
{
    return !memcmp(head->head, cookie, 8) || is_footer(head->tail);
}

/* --- opening --------------------------------------------------------------------------------- */

/* The one at the end, or else the copy. */
static bool find_footer(struct vhd *vhd, GError **error)
{
    struct reader *reader = &vhd->reader;
    if (reader->end < FOOTER)
        return reader_refuse(error, reader->name, "it is too small for a VHD image");
    if (!reader_copy(reader, reader->end - FOOTER, vhd->footer, FOOTER, error))
        return false;
    if (is_footer(vhd->footer))
        return true;
    if (!reader_copy(reader, 0, vhd->footer, FOOTER, error))
        return false;
    if (is_footer(vhd->footer) && be32_at(vhd->footer + TYPE_AT) != FIXED)
        return true;
    return reader_refuse(error, reader->name, "it is no VHD image, or its footer is damaged");
}

static bool judge_header(struct vhd *vhd, uint64_t size, GError **error)
{
    struct reader *reader = &vhd->reader;
    const char *name = reader->name;
    const uint8_t *header = vhd->header;
    if (!reader_copy(reader, be64_at(vhd->footer + NEXT_AT), vhd->header, HEADER, error))
        return false;
    if (memcmp(header, header_cookie, 8) || !sum_fits(header, HEADER, HEADER_SUM_AT))
        return reader_refuse(error, name, "its dynamic header is damaged");
    uint32_t version = be32_at(header + HEADER_VERSION_AT), entries = be32_at(header + ENTRIES_AT);
    if (version >> 16 != VERSION >> 16)
        return reader_refuse(error, name, "its dynamic header has version %u, not 1",
                             version >> 16);
    vhd->block = be32_at(header + BLOCK_AT);
    vhd->table = be64_at(header + TABLE_AT);
    vhd->bits = (vhd->block / SECTOR / 8 + SECTOR - 1) / SECTOR * SECTOR;
    if (!is_power(vhd->block) || vhd->block < READER_PAGE || vhd->block > BLOCK_LARGEST)
        return reader_refuse(error, name, "its blocks have %" G_GUINT64_FORMAT " bytes",
                             vhd->block);
    if (size > entries * vhd->block)
        return reader_refuse(error, name,
                             "it says that its %u blocks are a disk of %" G_GUINT64_FORMAT " bytes",
                             entries, size);
    if (vhd->table % SECTOR || vhd->table > reader->end ||
        entries * 4ull > reader->end - vhd->table)
        return reader_refuse(error, name, "its table of blocks is not within the file");
    return true;
}

/* A UUID, as children name it too. */
static void set_mark(char mark[2 * ID + 1], const uint8_t *id)
{
    for (unsigned i = 0; i < ID; i++) {
        mark[2 * i] = "0123456789abcdef"[id[i] >> 4];
        mark[2 * i + 1] = "0123456789abcdef"[id[i] & 15];
    }
    mark[2 * ID] = 0;
}

static bool judge_image(struct vhd *vhd, GError **error)
{
    struct reader *reader = &vhd->reader;
    struct disk *disk = &reader->mapped.worker.disk;
    if (!find_footer(vhd, error))
        return false;
    uint32_t version = be32_at(vhd->footer + VERSION_AT);
    uint64_t size = be64_at(vhd->footer + SIZE_AT) / SECTOR * SECTOR;
    char mark[2 * ID + 1];
    vhd->type = be32_at(vhd->footer + TYPE_AT);
    if (version >> 16 != VERSION >> 16)
        return reader_refuse(error, reader->name, "it is a VHD image of version %u, not 1",
                             version >> 16);
    if (vhd->type < FIXED || vhd->type > DIFFERENCING)
        return reader_refuse(error, reader->name, "it is a VHD image of an unknown type, %u",
                             vhd->type);
    if (!size || size > INT64_MAX)
        return reader_refuse(error, reader->name, "a disk of %" G_GUINT64_FORMAT " bytes cannot be",
                             size);
    if (vhd->type == FIXED && size > reader->end - FOOTER)
        return reader_refuse(error, reader->name,
                             "the image is cut off: of %" G_GUINT64_FORMAT
                             " bytes, %" G_GUINT64_FORMAT " are there",
                             size, reader->end - FOOTER);
    set_mark(mark, vhd->footer + ID_AT);
    disk->size = size;
    disk->mark = g_strdup(mark);
    return vhd->type == FIXED || judge_header(vhd, size, error);
}

static bool judge(struct reader *reader, const struct format_parts *parts, GError **error)
{
    struct vhd *vhd = (struct vhd *)reader;
    char mark[2 * ID + 1];
    if (!judge_image(vhd, error))
        return false;
    if (vhd->type != DIFFERENCING)
        return true;
    set_mark(mark, vhd->header + PARENT_ID_AT);
    if (!parts->below)
        return reader_refuse(error, parts->name, "it holds only differences to another image");
    if (parts->below->mark && strcmp(mark, parts->below->mark))
        return reader_refuse(error, parts->name,
                             "%s is not the image that it holds the differences to: that has been "
                             "changed, or replaced",
                             parts->below->name);
    return true;
}

/* --- the parent ------------------------------------------------------------------------------- */

/* The first relative path; NULL. */
static char *relative_path(struct vhd *vhd)
{
    for (unsigned i = 0; i < LOCATORS; i++) {
        const uint8_t *locator = vhd->header + LOCATORS_AT + i * LOCATOR;
        uint8_t text[LOCATOR_MOST];
        uint32_t length = be32_at(locator + 8);
        if (be32_at(locator) == RELATIVE && length <= sizeof text &&
            reader_copy(&vhd->reader, be64_at(locator + 16), text, length, NULL)) {
            char *path = utf16_path(text, length, false);
            if (path)
                return path;
        }
    }
    return NULL;
}

/* For `links`: as `judge`, before there is a parent. */
static bool judge_alone(struct reader *reader, const struct format_parts *parts, GError **error)
{
    (void)parts;
    return judge_image((struct vhd *)reader, error);
}

static const struct reader_format alone = { .size = sizeof(struct vhd), .judge = judge_alone };

static bool links(struct disk *file, const char *name, GPtrArray *links, GError **error)
{
    const struct format_parts parts = { .name = name, .file = file };
    struct vhd *vhd = (struct vhd *)reader_new(&alone, &parts, error);
    if (!vhd)
        return false;
    char *path = NULL;
    bool differences = vhd->type == DIFFERENCING;
    if (differences)
        path = relative_path(vhd);
    if (differences && !path)
        path = utf16_path(vhd->header + PARENT_NAME_AT, PARENT_NAME, true);
    reader_free(&vhd->reader);
    if (differences && !path)
        return reader_refuse(error, name,
                             "it holds differences to another image, but no name of it");
    if (path)
        format_link_add(links, path, "vhd", true);
    g_free(path);
    return true;
}

/* --- the map --------------------------------------------------------------------------------- */

static int find(struct reader *reader, uint64_t offset, bool wait, struct extent *extent)
{
    const struct vhd *vhd = (struct vhd *)reader;
    if (vhd->type == FIXED)
        return reader_data(reader, wait, offset, reader->mapped.worker.disk.size - offset, extent);
    uint64_t block = offset / vhd->block, within = offset % vhd->block;
    bool own = true;
    uint64_t length = vhd->block - within;
    const uint8_t *bytes;
    int error = reader_look(reader, vhd->table + block * 4, wait, &bytes);
    if (error)
        return error;
    uint64_t at = (uint64_t)be32_at(bytes) * SECTOR;
    if (be32_at(bytes) == FREE) {
        *extent = (struct extent){ .kind = EXTENT_BELOW, .length = length };
        return 0;
    }
    if (at >= reader->end)
        return reader_bad(reader, wait, "a block lies behind the end of the file");
    if (vhd->type == DIFFERENCING) {
        uint64_t sectors = (length + SECTOR - 1) / SECTOR;
        error = reader_run(reader, at, within / SECTOR, &sectors, READER_HIGH_FIRST, wait, &own);
        length = sectors * SECTOR - within % SECTOR;
    }
    if (error)
        return error;
    if (own)
        return reader_data(reader, wait, at + vhd->bits + within, length, extent);
    *extent = (struct extent){ .kind = EXTENT_BELOW, .length = length };
    return 0;
}

static const struct reader_format vhd_reader = {
    .mapped = { .name = "vhd", READER_MAPPED },
    .size = sizeof(struct vhd),
    .judge = judge,
    .find = find,
};

static struct disk *open_vhd(const struct format_parts *parts, GError **error)
{
    return reader_open(&vhd_reader, parts, error);
}

const struct format vhd_format = {
    .name = "vhd",
    .what = "a VHD disk image",
    .probe = probe,
    .links = links,
    .open = open_vhd,
};
