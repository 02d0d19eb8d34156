/* VirtualBox's disk images (VDI), fixed and dynamic, to be read. There is no specification: header
 * 1.1 as VirtualBox writes it (VDICore.h of its public sources names the fields).
 *
 * The disk is made of blocks, usually of 1 MiB; a table has for each the number of its place among
 * those in the file. Differencing images name their parent by a UUID that only VirtualBox's own
 * list of disks can resolve, and are refused. */
#include "block/bytes.h"
#include "block/reader.h"

#include <string.h>

/* Little-endian, at these places: */
enum {
    SIGNATURE_AT = 0x40,
    VERSION_AT = 0x44,
    TYPE_AT = 0x4c,
    TABLE_AT = 0x154,
    DATA_AT = 0x158,
    SECTOR_AT = 0x168,
    SIZE_AT = 0x170,
    BLOCK_AT = 0x178,
    EXTRA_AT = 0x17c,
    BLOCKS_AT = 0x180,
    HEADER_SIZE = 0x1c8,
};
#define SIGNATURE     0xbeda107fu
#define VERSION_1_1   0x00010001u
#define FREE          0xffffffffu /* never written */
#define ZERO          0xfffffffeu /* discarded */
#define BLOCK_LARGEST (256u << 20)
enum { DYNAMIC = 1, FIXED, UNDO, DIFFERENCING };

struct vdi {
    struct reader reader;
    uint64_t table, data;   /* bytes in the file */
    uint64_t block, stride; /* bytes of a block; from one to the next in the file */
};

static bool probe(const struct format_head *head)
{
    return le32_at(head->head + SIGNATURE_AT) == SIGNATURE;
}

static bool judge_kind(const char *name, const uint8_t *header, GError **error)
{
    uint32_t version = le32_at(header + VERSION_AT), type = le32_at(header + TYPE_AT);
    if (le32_at(header + SIGNATURE_AT) != SIGNATURE)
        return reader_refuse(error, name, "it is no VDI image");
    if (version != VERSION_1_1)
        return reader_refuse(error, name, "it is a VDI image of version %u.%u, not 1.1",
                             version >> 16, version & 0xffff);
    if (type == UNDO || type == DIFFERENCING)
        return reader_refuse(error, name,
                             "it is a differencing VDI image, and only VirtualBox knows its "
                             "parent: make a whole one with VBoxManage clonemedium");
    if (type != DYNAMIC && type != FIXED)
        return reader_refuse(error, name, "it is a VDI image of an unknown type, %u", type);
    return true;
}

static bool judge(struct reader *reader, const struct format_parts *parts, GError **error)
{
    struct vdi *vdi = (struct vdi *)reader;
    uint8_t header[HEADER_SIZE];
    if (!reader_copy(reader, 0, header, sizeof header, error) ||
        !judge_kind(parts->name, header, error))
        return false;
    uint64_t size = le64_at(header + SIZE_AT);
    uint32_t extra = le32_at(header + EXTRA_AT), blocks = le32_at(header + BLOCKS_AT);
    vdi->table = le32_at(header + TABLE_AT);
    vdi->data = (uint64_t)le32_at(header + DATA_AT) + extra;
    vdi->block = le32_at(header + BLOCK_AT);
    vdi->stride = vdi->block + extra;
    if (le32_at(header + SECTOR_AT) != SECTOR)
        return reader_refuse(error, parts->name, "its sectors have %u bytes, not 512",
                             le32_at(header + SECTOR_AT));
    if (!is_power(vdi->block) || vdi->block < READER_PAGE || vdi->block > BLOCK_LARGEST)
        return reader_refuse(error, parts->name, "its blocks have %" G_GUINT64_FORMAT " bytes",
                             vdi->block);
    if (!size || size > blocks * vdi->block)
        return reader_refuse(error, parts->name,
                             "it says that its %u blocks are a disk of %" G_GUINT64_FORMAT " bytes",
                             blocks, size);
    if (vdi->table % SECTOR || vdi->data % SECTOR || extra % SECTOR)
        return reader_refuse(error, parts->name, "its parts do not begin at sectors");
    if (vdi->table > reader->end || blocks * 4ull > reader->end - vdi->table)
        return reader_refuse(error, parts->name, "its table of blocks is cut off");
    reader->mapped.worker.disk.size = (size + SECTOR - 1) / SECTOR * SECTOR;
    return true;
}

static int find(struct reader *reader, uint64_t offset, bool wait, struct extent *extent)
{
    const struct vdi *vdi = (struct vdi *)reader;
    uint64_t block = offset / vdi->block, within = offset % vdi->block;
    const uint8_t *bytes;
    int error = reader_look(reader, vdi->table + block * 4, wait, &bytes);
    if (error)
        return error;
    uint32_t entry = le32_at(bytes);
    if (entry != FREE && entry != ZERO)
        return reader_data(reader, wait, vdi->data + entry * vdi->stride + within,
                           vdi->block - within, extent);
    *extent = (struct extent){ .kind = EXTENT_ZERO, .length = vdi->block - within };
    return 0;
}

static const struct reader_format vdi_reader = {
    .mapped = { .name = "vdi", READER_MAPPED },
    .size = sizeof(struct vdi),
    .judge = judge,
    .find = find,
};

static struct disk *open_vdi(const struct format_parts *parts, GError **error)
{
    return reader_open(&vdi_reader, parts, error);
}

const struct format vdi_format = {
    .name = "vdi",
    .what = "a VirtualBox disk image (VDI)",
    .probe = probe,
    .open = open_vdi,
};
