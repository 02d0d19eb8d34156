/* VMware's disk images (VMDK), to be read: "Virtual Disk Format 1.1" and "5.0" of VMware.
 *
 * Either one sparse file with its description inside, or a description that names other files,
 * the extents, which follow each other on the disk: flat or sparse ones, or zeros. All files are
 * strung together and are one file to what lies above (concat.c), so that there is one cache, one
 * thread and one parent for all. An image whose description has another parent's content id than
 * ffffffff holds differences to that. */
#include "block/vmdk.h"

#include "block/concat.h"
#include "block/raw.h"

#include <string.h>

struct vmdk {
    struct reader reader;
    struct vmdk_extent *extents;
    unsigned count;
    struct vmdk_unpacker *unpacker; /* NULL: nothing is compressed */
};

static const char text_magic[] = "# Disk DescriptorFile";

static bool is_text(const uint8_t *head)
{
    return !memcmp(head, text_magic, sizeof text_magic - 1);
}

static bool probe(const struct format_head *head)
{
    return !memcmp(head->head, "KDMV", 4) || !memcmp(head->head, "COWD", 4) || is_text(head->head);
}

/* --- the description ---------------------------------------------------------------------------
 */

static bool parse_at(struct disk *file, const char *name, uint64_t at, uint64_t size, bool extents,
                     struct vmdk_descriptor *descriptor, GError **error)
{
    if (size >= VMDK_TEXT)
        return reader_refuse(error, name, "its description has %" G_GUINT64_FORMAT " bytes", size);
    g_autofree char *text = g_try_malloc0(size + 1);
    if (!text)
        return reader_refuse(error, name, "there is no memory to open it");
    return reader_copy_file(file, name, at, text, size, error) &&
           vmdk_parse(descriptor, text, name, extents, error);
}

/* What there is: the text of a description, with extents; or in a sparse file, which becomes
 * *extent. The descriptor is empty where a sparse file has none. */
static bool read_description(struct disk *file, const char *name, struct vmdk_extent *extent,
                             struct vmdk_sparse *sparse, struct vmdk_descriptor *descriptor,
                             GError **error)
{
    uint8_t head[sizeof text_magic] = { 0 };
    uint64_t size = 0;
    int failed = raw_length(file, &size);
    if (!failed)
        failed = raw_read(file, head, MIN(sizeof head, size), 0);
    if (failed)
        return reader_refuse(error, name, "cannot be read: %s", g_strerror(failed));
    *descriptor = (struct vmdk_descriptor){ .count = 0 };
    *extent = (struct vmdk_extent){ .kind = VMDK_ZERO };
    if (is_text(head))
        return parse_at(file, name, 0, size, true, descriptor, error);
    if (!vmdk_judge_sparse(extent, file, name, sparse, error))
        return false;
    return !sparse->text_at ||
           parse_at(file, name, sparse->text_at, sparse->text_size, false, descriptor, error);
}

static bool links(struct disk *file, const char *name, GPtrArray *links, GError **error)
{
    struct vmdk_descriptor descriptor;
    struct vmdk_extent extent;
    struct vmdk_sparse sparse;
    if (!read_description(file, name, &extent, &sparse, &descriptor, error))
        return false;
    for (unsigned i = 0; i < descriptor.count; i++)
        if (descriptor.lines[i].name)
            format_link_add(links, descriptor.lines[i].name, "raw", false);
    if (descriptor.differencing)
        format_link_add(links, descriptor.parent, "vmdk", true);
    vmdk_clear(&descriptor);
    return true;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* The extent of a line, whose file is `file` (NULL: it has none) and begins at `base` of all. */
static bool judge_extent(struct vmdk_extent *extent, const struct vmdk_line *line,
                         struct disk *file, uint64_t base, GError **error)
{
    struct vmdk_sparse sparse;
    *extent = (struct vmdk_extent){ .kind = line->kind };
    if (line->kind == VMDK_SPARSE && !vmdk_judge_sparse(extent, file, file->name, &sparse, error))
        return false;
    extent->length = line->sectors * SECTOR;
    extent->at = line->offset * SECTOR;
    if (!file)
        return true;
    extent->base = base;
    extent->end = base + file->size;
    if (line->kind == VMDK_SPARSE && extent->length > sparse.capacity)
        return reader_refuse(error, file->name,
                             "it is an extent of %" G_GUINT64_FORMAT
                             " bytes, not of %" G_GUINT64_FORMAT,
                             sparse.capacity, extent->length);
    if (line->kind == VMDK_FLAT &&
        (extent->at > file->size || extent->length > file->size - extent->at))
        return reader_refuse(error, file->name,
                             "the image is cut off: it has only %" G_GUINT64_FORMAT " bytes",
                             file->size);
    return true;
}

/* The extents that a description names. */
static bool judge_lines(struct vmdk *vmdk, const struct vmdk_descriptor *descriptor,
                        const struct format_parts *parts, GError **error)
{
    uint64_t base = parts->file->size, start = 0;
    unsigned next = 0;
    for (unsigned i = 0; i < descriptor->count; i++) {
        const struct vmdk_line *line = &descriptor->lines[i];
        struct vmdk_extent *extent = &vmdk->extents[i];
        struct disk *file = NULL;
        if (line->name && next == parts->part_count)
            return reader_refuse(error, parts->name, "its extent %s is missing", line->name);
        if (line->name)
            file = parts->part[next++];
        if (!judge_extent(extent, line, file, base, error))
            return false;
        extent->start = start;
        base += file ? file->size : 0;
        if (extent->length > INT64_MAX - start)
            return reader_refuse(error, parts->name, "its extents are beyond all bounds");
        start += extent->length;
    }
    vmdk->count = descriptor->count;
    vmdk->reader.mapped.worker.disk.size = start;
    return true;
}

/* All files as one. From here on there is no failure but of memory. */
static bool string_files(struct vmdk *vmdk, const struct format_parts *parts, GError **error)
{
    struct reader *reader = &vmdk->reader;
    g_autofree struct disk **files = g_try_new(struct disk *, parts->part_count + 1u);
    struct disk *all = NULL;
    if (files) {
        files[0] = parts->file;
        for (unsigned i = 0; i < parts->part_count; i++)
            files[i + 1] = parts->part[i];
        all = concat_new(parts->name, files, parts->part_count + 1);
    }
    if (!all)
        return reader_refuse(error, parts->name, "there is no memory for its extents");
    reader->file = all;
    reader->end = all->size;
    return true;
}

static bool judge_parent(const struct vmdk_descriptor *descriptor, const struct format_parts *parts,
                         GError **error)
{
    if (!descriptor->differencing)
        return true;
    if (!parts->below)
        return reader_refuse(error, parts->name, "it holds only differences to another image");
    if (parts->below->mark && strcmp(parts->below->mark, descriptor->parent_cid))
        return reader_refuse(error, parts->name,
                             "%s is not the image that it holds the differences to: that has been "
                             "changed, or replaced",
                             parts->below->name);
    return true;
}

static bool judge_extents(struct vmdk *vmdk, const struct vmdk_descriptor *descriptor,
                          const struct vmdk_extent *whole, uint64_t capacity,
                          const struct format_parts *parts, GError **error)
{
    struct reader *reader = &vmdk->reader;
    uint64_t packed = 0;
    vmdk->extents = g_try_new0(struct vmdk_extent, MAX(descriptor->count, 1));
    if (!vmdk->extents)
        return reader_refuse(error, parts->name, "there is no memory to open it");
    if (whole->kind == VMDK_SPARSE) {
        vmdk->count = 1;
        vmdk->extents[0] = *whole;
        vmdk->extents[0].length = reader->mapped.worker.disk.size = capacity;
        vmdk->extents[0].end = parts->file->size;
        reader->end = parts->file->size;
    } else if (!judge_lines(vmdk, descriptor, parts, error)) {
        return false;
    }
    for (unsigned i = 0; i < vmdk->count; i++)
        if (vmdk->extents[i].packed)
            packed = MAX(packed, vmdk->extents[i].grain);
    if (packed)
        vmdk->unpacker = vmdk_unpacker_new(packed);
    if (packed && !vmdk->unpacker)
        return reader_refuse(error, parts->name, "there is no memory to unpack it");
    reader->granule = MAX(reader->granule, packed);
    return whole->kind == VMDK_SPARSE || string_files(vmdk, parts, error);
}

static bool judge(struct reader *reader, const struct format_parts *parts, GError **error)
{
    struct vmdk *vmdk = (struct vmdk *)reader;
    struct vmdk_descriptor descriptor;
    struct vmdk_extent whole;
    struct vmdk_sparse sparse = { .capacity = 0 };
    if (!read_description(parts->file, parts->name, &whole, &sparse, &descriptor, error))
        return false;
    if (*descriptor.cid)
        reader->mapped.worker.disk.mark = g_strdup(descriptor.cid);
    bool ok = judge_parent(&descriptor, parts, error) &&
              judge_extents(vmdk, &descriptor, &whole, sparse.capacity, parts, error);
    vmdk_clear(&descriptor);
    return ok;
}

static void finish(struct reader *reader)
{
    struct vmdk *vmdk = (struct vmdk *)reader;
    vmdk_unpacker_free(vmdk->unpacker);
    g_free(vmdk->extents);
}

/* --- the map ---------------------------------------------------------------------------------- */

static const struct vmdk_extent *extent_at(const struct vmdk *vmdk, uint64_t offset)
{
    unsigned low = 0, high = vmdk->count;
    while (high - low > 1) {
        unsigned middle = low + (high - low) / 2;
        if (vmdk->extents[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    return &vmdk->extents[low];
}

static int find(struct reader *reader, uint64_t offset, bool wait, struct extent *extent)
{
    const struct vmdk_extent *e = extent_at((struct vmdk *)reader, offset);
    uint64_t within = offset - e->start;
    if (e->kind == VMDK_SPARSE)
        return vmdk_find_sparse(reader, e, offset, wait, extent);
    if (e->kind == VMDK_FLAT)
        return reader_data(reader, wait, e->base + e->at + within, e->length - within, extent);
    *extent = (struct extent){ .kind = EXTENT_ZERO, .length = e->length - within };
    return 0;
}

static int unpack(struct mapped *mapped, const struct extent *extent, uint64_t offset, void *to,
                  size_t length)
{
    struct vmdk *vmdk = (struct vmdk *)mapped;
    const struct vmdk_extent *e = extent_at(vmdk, offset);
    return vmdk_unpack(&vmdk->reader, vmdk->unpacker, e, extent->at, (offset - e->start) % e->grain,
                       to, length);
}

static const struct reader_format vmdk_reader = {
    .mapped = { .name = "vmdk", READER_MAPPED, .unpack = unpack },
    .size = sizeof(struct vmdk),
    .judge = judge,
    .find = find,
    .finish = finish,
};

static struct disk *open_vmdk(const struct format_parts *parts, GError **error)
{
    return reader_open(&vmdk_reader, parts, error);
}

const struct format vmdk_format = {
    .name = "vmdk",
    .what = "a VMDK disk image",
    .probe = probe,
    .links = links,
    .open = open_vmdk,
};
