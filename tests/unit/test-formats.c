/* Image formats that are only read: every sector of what qemu-img makes, of images put together
 * here byte by byte where it makes none, and what is said of damaged ones. */
#include "base/error.h"
#include "block/bytes.h"
#include "block/concat.h"
#include "block/crc32c.h"
#include "block/format.h"
#include "block/mapped.h"
#include "block/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MIB = 1 << 20, PIECE = 192 * 1024 + 512 };

static char *folder; /* of all files */

static char *in_folder(const char *name)
{
    return g_build_filename(folder, name, NULL);
}

/* --- opening as hv would ---------------------------------------------------------------------- */

static struct disk *open_named(const char *name, const char *format_name, GError **error);

static struct disk *open_file(const char *name, GError **error)
{
    g_autofree char *path = in_folder(name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    struct disk *file = raw_open(fd, name, true, error);
    if (!file)
        close(fd);
    return file;
}

/* The image over the files that it names. */
static struct disk *open_over(struct disk *file, const struct format *format, const char *name,
                              GError **error)
{
    g_autoptr(GPtrArray) links = g_ptr_array_new_with_free_func(format_link_free);
    g_autoptr(GPtrArray) parts = g_ptr_array_new_with_free_func((GDestroyNotify)disk_free);
    struct disk *below = NULL;
    if (format->links && !format->links(file, name, links, error))
        return NULL;
    for (unsigned i = 0; i < links->len; i++) {
        const struct format_link *link = links->pdata[i];
        struct disk *other = open_named(link->name, link->format, error);
        if (other && link->below)
            below = other;
        else if (other)
            g_ptr_array_add(parts, other);
        if (!other)
            break;
    }
    const struct format_parts all = { .name = name,
                                      .file = file,
                                      .below = below,
                                      .part = (struct disk **)parts->pdata,
                                      .part_count = parts->len };
    struct disk *disk = error && *error ? NULL : format->open(&all, error);
    if (disk)
        g_ptr_array_set_free_func(parts, NULL);
    else
        disk_free(below);
    return disk;
}

static struct disk *open_named(const char *name, const char *format_name, GError **error)
{
    struct disk *file = open_file(name, error);
    if (!file)
        return NULL;
    const struct format *format = format_name ? format_named(format_name) : NULL;
    if (!format) {
        g_autofree char *path = in_folder(name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        format = format_probe(fd);
        close(fd);
    }
    g_assert_nonnull(format);
    struct disk *disk = open_over(file, format, name, error);
    if (!disk)
        disk_free(file);
    return disk;
}

/* --- reading ---------------------------------------------------------------------------------- */

struct owner {
    GMutex lock;
    GCond cond;
    unsigned left;
    int error;
};

static void on_done(struct disk_request *request, int error)
{
    struct owner *owner = request->owner;
    owner->error = owner->error ? owner->error : error;
    owner->left--;
    g_cond_signal(&owner->cond);
}

/* All of the disk: in pieces that begin anywhere, several in flight, as a guest reads. */
static int read_as_guest(struct owner *owner, struct disk *disk, uint8_t *to)
{
    enum { FLIGHT = 7 };
    struct disk_request requests[FLIGHT];
    struct iovec iov[FLIGHT][2];
    for (uint64_t at = 0; at < disk->size;) {
        g_mutex_lock(&owner->lock);
        for (unsigned i = 0; i < FLIGHT && at < disk->size; i++) {
            size_t n = MIN(PIECE, disk->size - at), head = n / 3;
            iov[i][0] = (struct iovec){ to + at, head };
            iov[i][1] = (struct iovec){ to + at + head, n - head };
            requests[i] = (struct disk_request){ .op = DISK_READ,
                                                 .offset = at,
                                                 .length = n,
                                                 .iov = iov[i],
                                                 .iov_count = 2,
                                                 .done = on_done,
                                                 .owner = owner };
            owner->left++;
            disk_submit(disk, &requests[i]);
            at += n;
        }
        disk_kick(disk);
        while (owner->left)
            g_cond_wait(&owner->cond, &owner->lock);
        g_mutex_unlock(&owner->lock);
    }
    disk_drain(disk);
    return owner->error;
}

static int read_now(struct disk *disk, uint64_t at, void *to, size_t length)
{
    struct iovec iov = { to, length };
    struct disk_request request = {
        .op = DISK_READ, .offset = at, .length = length, .iov = &iov, .iov_count = 1
    };
    return disk_now(disk, &request);
}

/* The disk is those bytes: read twice, for what is read first is known the second time. It is
 * freed. */
static void assert_disk(struct disk *disk, const uint8_t *bytes, size_t size)
{
    g_autofree uint8_t *seen = g_malloc(size);
    struct owner owner = { .left = 0 };
    disk_attach(disk, &owner.lock, NULL);
    g_assert_cmpuint(disk->size, ==, size);
    g_assert_true(disk->readonly);
    for (unsigned i = 0; i < 2; i++) {
        memset(seen, 0xee, size);
        g_assert_cmpint(read_as_guest(&owner, disk, seen), ==, 0);
        for (size_t at = 0; at < size; at += SECTOR)
            if (memcmp(seen + at, bytes + at, SECTOR))
                g_error("sector %zu differs", at / SECTOR);
    }
    memset(seen, 0xee, size);
    for (size_t at = 0, n; at < size; at += n) {
        n = MIN(PIECE, size - at);
        g_assert_cmpint(read_now(disk, at, seen + at, n), ==, 0);
    }
    g_assert_true(!memcmp(seen, bytes, size));
    disk_free(disk);
}

static struct disk *open_good(const char *name)
{
    g_autoptr(GError) error = NULL;
    struct disk *disk = open_named(name, NULL, &error);
    g_assert_no_error(error);
    g_assert_nonnull(disk);
    return disk;
}

static void assert_refused(const char *name, const char *format, const char *why)
{
    g_autoptr(GError) error = NULL;
    struct disk *disk = open_named(name, format, &error);
    g_assert_null(disk);
    g_assert_nonnull(error);
    if (!strstr(error->message, why) || !g_str_has_prefix(error->message, name))
        g_error("\"%s\" does not say \"%s\"", error->message, why);
}

/* --- files ------------------------------------------------------------------------------------ */

static void save(const char *name, const void *data, size_t size)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = in_folder(name);
    g_file_set_contents(path, data, (gssize)size, &error);
    g_assert_no_error(error);
}

static uint8_t *load(const char *name, gsize *size)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = in_folder(name);
    char *data;
    g_file_get_contents(path, &data, size, &error);
    g_assert_no_error(error);
    return (uint8_t *)data;
}

/* Data, zeros and gaps, in pieces from a sector to megabytes, the same at every run. */
static uint8_t *new_content(size_t size, unsigned seed)
{
    uint8_t *bytes = g_malloc0(size);
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    for (size_t at = 0, n; at < size; at += n) {
        n = (size_t)SECTOR << g_rand_int_range(rand, 0, 13);
        n = MIN(n, size - at);
        if (g_rand_boolean(rand))
            for (size_t i = 0; i < n; i++) /* that compresses a little */
                bytes[at + i] = (uint8_t)(i % 7 ? g_rand_int(rand) : 0);
    }
    return bytes;
}

/* qemu-img with those arguments, in the folder; false when it is not installed. */
static bool qemu_img(const char *first, ...)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_autoptr(GError) error = NULL;
    g_autofree char *said = NULL;
    g_autofree char *program = g_find_program_in_path("qemu-img");
    int status = 0;
    if (!program) {
        g_test_skip("qemu-img is not installed");
        return false;
    }
    g_ptr_array_add(argv, program);
    va_list list;
    va_start(list, first);
    for (const char *arg = first; arg; arg = va_arg(list, const char *))
        g_ptr_array_add(argv, (char *)arg);
    va_end(list);
    g_ptr_array_add(argv, NULL);
    g_spawn_sync(folder, (char **)argv->pdata, NULL, G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL,
                 &said, &status, &error);
    g_assert_no_error(error);
    if (status)
        g_error("qemu-img %s: %s", first, said);
    return true;
}

/* --- what qemu-img makes ---------------------------------------------------------------------- */

struct made {
    const char *name;   /* of the test */
    const char *format; /* qemu-img's */
    const char *options;
    size_t size;
};

static const struct made all_made[] = {
    { "vdi/dynamic", "vdi", "static=off", 13 * MIB + 1024 },
    { "vdi/fixed", "vdi", "static=on", 5 * MIB },
    { "vdi/tiny", "vdi", "static=off", SECTOR },
    { "vhd/dynamic", "vpc", "subformat=dynamic", 13 * MIB + 1024 },
    { "vhd/exact", "vpc", "subformat=dynamic,force_size=on", 21 * MIB + 1536 },
    { "vhd/fixed", "vpc", "subformat=fixed", 5 * MIB },
    { "vhd/fixed-exact", "vpc", "subformat=fixed,force_size=on", 5 * MIB },
    { "vhdx/dynamic", "vhdx", "subformat=dynamic,block_size=1M", 13 * MIB + 1024 },
    { "vhdx/small", "vhdx", "subformat=dynamic,block_size=1M", 5 * MIB },
    { "vhdx/large-blocks", "vhdx", "subformat=dynamic,block_size=64M", 66 * MIB },
    { "vhdx/fixed", "vhdx", "subformat=fixed,block_size=8M", 9 * MIB },
    { "vmdk/monolithic-sparse", "vmdk", "subformat=monolithicSparse", 9 * MIB },
    { "vmdk/monolithic-flat", "vmdk", "subformat=monolithicFlat", 5 * MIB + 1024 },
    { "vmdk/split-sparse", "vmdk", "subformat=twoGbMaxExtentSparse", 9 * MIB },
    { "vmdk/split-flat", "vmdk", "subformat=twoGbMaxExtentFlat", 5 * MIB },
    { "vmdk/stream", "vmdk", "subformat=streamOptimized", 37 * MIB },
    { NULL },
};

static bool make(const struct made *made)
{
    g_autofree uint8_t *bytes = new_content(made->size, 1);
    save("raw.img", bytes, made->size);
    return qemu_img("convert", "-f", "raw", "-O", made->format, "-o", made->options, "raw.img",
                    "made.img", NULL);
}

static void made_by_qemu(gconstpointer data)
{
    const struct made *made = data;
    gsize size, raw_size;
    if (!make(made) ||
        !qemu_img("convert", "-f", made->format, "-O", "raw", "made.img", "back.img", NULL))
        return;
    g_autofree uint8_t *bytes = load("raw.img", &raw_size);
    g_autofree uint8_t *back = load("back.img", &size); /* some formats round up */
    g_assert_cmpuint(size, >=, raw_size);
    g_assert_true(!memcmp(back, bytes, raw_size));
    assert_disk(open_good("made.img"), back, size);
}

/* --- damaged ---------------------------------------------------------------------------------- */

struct damage {
    const char *made; /* the name in all_made */
    int64_t at;       /* from the end when negative */
    uint64_t value;   /* little-endian */
    unsigned width;
    const char *why;
};

static const struct damage damages[] = {
    { "vdi/tiny", 0x44, 0x10000, 4, "version 1.0" },
    { "vdi/tiny", 0x4c, 4, 4, "VBoxManage clonemedium" },
    { "vdi/tiny", 0x4c, 3, 4, "differencing" },
    { "vdi/tiny", 0x4c, 9, 4, "unknown type, 9" },
    { "vdi/tiny", 0x154, 513, 4, "begin at sectors" },
    { "vdi/tiny", 0x154, 0xfffffe00, 4, "table of blocks is cut off" },
    { "vdi/tiny", 0x168, 4096, 4, "4096 bytes, not 512" },
    { "vdi/tiny", 0x170, 0, 8, "disk of 0 bytes" },
    { "vdi/tiny", 0x170, 1ull << 63, 8, "1 blocks are a disk of 9223372036854775808" },
    { "vdi/tiny", 0x178, 3 << 20, 4, "blocks have 3145728 bytes" },
    { "vdi/tiny", 0x178, 0, 4, "blocks have 0 bytes" },
    { "vdi/tiny", 0x180, 0xffffffff, 4, "table of blocks is cut off" },
    { "vmdk/monolithic-sparse", 0, 0x44574f43, 4, "COWD" },
    { "vmdk/monolithic-sparse", 4, 4, 4, "version 4" },
    { "vmdk/monolithic-sparse", 4, 0, 4, "version 0" },
    { "vmdk/monolithic-sparse", 12, 0, 8, "0 sectors" },
    { "vmdk/monolithic-sparse", 12, 1ull << 62, 8, "sectors cannot be" },
    { "vmdk/monolithic-sparse", 12, 1ull << 50, 8, "directory is not within" },
    { "vmdk/monolithic-sparse", 20, 0, 8, "grains have 0 sectors" },
    { "vmdk/monolithic-sparse", 20, 100, 8, "grains have 100 sectors" },
    { "vmdk/monolithic-sparse", 20, 1ull << 63, 8, "grains have 9223372036854775808" },
    { "vmdk/monolithic-sparse", 28, 1ull << 60, 8, "description is not within" },
    { "vmdk/monolithic-sparse", 36, 1ull << 60, 8, "description is not within" },
    { "vmdk/monolithic-sparse", 36, 200, 8, "description has 102400 bytes" },
    { "vmdk/monolithic-sparse", 44, 0, 4, "have 0 entries" },
    { "vmdk/monolithic-sparse", 44, UINT32_MAX, 4, "have 4294967295 entries" },
    { "vmdk/monolithic-sparse", 56, 0, 8, "directory is not within" },
    { "vmdk/monolithic-sparse", 56, 1ull << 62, 8, "directory is not within" },
    { "vmdk/monolithic-sparse", 56, UINT64_MAX, 8, "its end is missing" },
    { "vmdk/monolithic-sparse", 73, '\n', 4, "as if it were text" },
    { "vmdk/stream", 77, 2, 2, "unknown way, 2" },
    { NULL },
};

static const struct made *find_made(const char *name)
{
    const struct made *made = all_made;
    while (strcmp(made->name, name))
        made++;
    return made;
}

static void damaged_is_refused(void)
{
    const char *last = "";
    for (const struct damage *d = damages; d->made; last = d++->made) {
        gsize size;
        if (strcmp(last, d->made) &&
            (!make(find_made(d->made)) ||
             !qemu_img("dd", "if=made.img", "of=good.img", "-f", "raw", "-O", "raw", NULL)))
            return;
        g_autofree uint8_t *bytes = load("good.img", &size);
        int64_t at = d->at < 0 ? (int64_t)size + d->at : d->at;
        for (unsigned i = 0; i < d->width; i++)
            bytes[at + i] = (uint8_t)(d->value >> 8 * i);
        save("made.img", bytes, size);
        assert_refused("made.img", NULL, d->why);
    }
}

/* An entry of a table that is wrong harms nobody but who reads what it is for. */
static void assert_damaged_block(size_t bad_at, size_t good_at)
{
    uint8_t sector[SECTOR];
    struct disk *disk = open_good("made.img");
    g_assert_cmpint(read_now(disk, bad_at, sector, SECTOR), ==, EIO);
    g_assert_cmpint(read_now(disk, good_at, sector, SECTOR), ==, 0);
    g_assert_cmpint(read_now(disk, disk->size, sector, SECTOR), ==, EINVAL);
    disk_free(disk);
}

static void vdi_damaged_block(void)
{
    gsize size;
    if (!make(find_made("vdi/dynamic")))
        return;
    g_autofree uint8_t *bytes = load("made.img", &size);
    memset(bytes + le32_at(bytes + 0x154) + 4 * 3, 0xdd, 4);
    save("made.img", bytes, size);
    assert_damaged_block(3 * MIB + 512, 4 * MIB);
}

/* VirtualBox marks what was discarded. */
static void vdi_discarded_block(void)
{
    gsize size, raw_size;
    if (!make(find_made("vdi/dynamic")))
        return;
    g_autofree uint8_t *bytes = load("made.img", &size);
    g_autofree uint8_t *raw = load("raw.img", &raw_size);
    memset(bytes + le32_at(bytes + 0x154) + 4 * 3, 0xff, 4);
    bytes[le32_at(bytes + 0x154) + 4 * 3] = 0xfe;
    memset(raw + 3 * MIB, 0, MIB);
    save("made.img", bytes, size);
    assert_disk(open_good("made.img"), raw, raw_size);
}

/* --- VHD ---------------------------------------------------------------------------------------
 */

static void put_be(uint8_t *to, uint64_t value, unsigned width)
{
    for (unsigned i = 0; i < width; i++)
        to[i] = (uint8_t)(value >> 8 * (width - 1 - i));
}

static void vhd_sum(uint8_t *bytes, size_t length, size_t sum_at)
{
    uint32_t sum = 0;
    put_be(bytes + sum_at, 0, 4);
    for (size_t i = 0; i < length; i++)
        sum += bytes[i];
    put_be(bytes + sum_at, ~sum, 4);
}

enum { CHILD_BLOCK = 2 * MIB, CHILD_TABLE = 2048, CHILD_NAME = 4096, CHILD_DATA = 8192 };

/* A child of `parent`: every third sector of its second block, and the whole fourth one, are its
 * own. `bytes`, what is on the disk of `size`, becomes what the child shows. */
static void save_child(const char *name, const uint8_t *parent, const char *parent_name,
                       uint8_t *bytes, size_t size)
{
    size_t stride = CHILD_BLOCK + SECTOR, length = CHILD_DATA + 2 * stride + 512;
    g_autofree uint8_t *file = g_malloc0(length);
    uint8_t *header = file + 512, *table = file + CHILD_TABLE;
    unsigned entries = (unsigned)((size + CHILD_BLOCK - 1) / CHILD_BLOCK);
    memcpy(file, "conectix", 8);
    put_be(file + 8, 2, 4);
    put_be(file + 12, 0x10000, 4);
    put_be(file + 16, 512, 8);
    put_be(file + 40, size, 8);
    put_be(file + 48, size, 8);
    put_be(file + 60, 4, 4);
    memset(file + 68, 0xc1, 16);
    vhd_sum(file, 512, 64);
    memcpy(file + length - 512, file, 512);

    memcpy(header, "cxsparse", 8);
    put_be(header + 8, UINT64_MAX, 8);
    put_be(header + 16, CHILD_TABLE, 8);
    put_be(header + 24, 0x10000, 4);
    put_be(header + 28, entries, 4);
    put_be(header + 32, CHILD_BLOCK, 4);
    memcpy(header + 40, parent + 68, 16);
    for (size_t i = 0; parent_name[i]; i++) {
        header[64 + 2 * i + 1] = 'x'; /* the locator comes first */
        file[CHILD_NAME + 2 * i] = (uint8_t)parent_name[i];
    }
    put_be(header + 576, 0x57327275, 4);
    put_be(header + 580, 512, 4);
    put_be(header + 584, 2 * strlen(parent_name), 4);
    put_be(header + 592, CHILD_NAME, 8);
    vhd_sum(header, 1024, 36);

    memset(table, 0xff, 4 * entries);
    put_be(table + 4 * 1, CHILD_DATA / 512, 4);
    put_be(table + 4 * 3, (CHILD_DATA + stride) / 512, 4);
    for (unsigned b = 0; b < 2; b++) {
        uint8_t *block = file + CHILD_DATA + b * stride, *data = block + SECTOR;
        for (unsigned i = 0; i < CHILD_BLOCK / SECTOR; i++) {
            memset(data + i * SECTOR, (int)(0x40 + i % 64), SECTOR);
            if (!b && i % 3)
                continue;
            block[i / 8] |= (uint8_t)(0x80 >> i % 8);
            memcpy(bytes + (2 * b + 1) * CHILD_BLOCK + i * SECTOR, data + i * SECTOR, SECTOR);
        }
    }
    save(name, file, length);
}

static void vhd_differencing(void)
{
    gsize size, file_size;
    if (!make(find_made("vhd/dynamic")) ||
        !qemu_img("convert", "-O", "raw", "made.img", "back.img", NULL))
        return;
    g_autofree uint8_t *bytes = load("back.img", &size), *parent = load("made.img", &file_size);
    save_child("child.vhd", parent, ".\\made.img", bytes, size);
    assert_disk(open_good("child.vhd"), bytes, size);
    save_child("child.vhd", parent, "C:\\disks\\made.img", bytes, size);
    assert_disk(open_good("child.vhd"), bytes, size);
    parent[68] ^= 1;
    save_child("child.vhd", parent, "made.img", bytes, size);
    assert_refused("child.vhd", NULL, "made.img is not the image");

    struct disk *file = open_file("child.vhd", NULL);
    g_autoptr(GError) error = NULL;
    const struct format_parts alone = { .name = "child.vhd", .file = file };
    g_assert_null(format_named("vhd")->open(&alone, &error));
    g_assert_nonnull(strstr(error->message, "only differences"));
    disk_free(file);
}

/* The copy of the footer serves when the one at the end is lost. */
static void vhd_copied_footer(void)
{
    gsize size, file_size;
    if (!make(find_made("vhd/exact")))
        return;
    g_autofree uint8_t *bytes = load("raw.img", &size), *file = load("made.img", &file_size);
    save("made.img", file, file_size - 512);
    assert_disk(open_good("made.img"), bytes, size);
}

static void vhd_damaged_block(void)
{
    gsize size;
    if (!make(find_made("vhd/dynamic")))
        return;
    g_autofree uint8_t *bytes = load("made.img", &size);
    uint64_t table = be64_at(bytes + 512 + 16);
    memset(bytes + table + 4 * 3, 0xdd, 4);
    save("made.img", bytes, size);
    assert_damaged_block(6 * MIB + 512, 8 * MIB);
}

/* What is wrong with a dynamic image whose sums are right. */
static void vhd_wrong(void)
{
    static const struct {
        unsigned at, width;
        uint64_t value;
        const char *why;
    } wrong[] = {
        { 48, 8, 0, "0 bytes cannot be" },
        { 48, 8, UINT64_MAX, "cannot be" },
        { 48, 8, 1ull << 40, "blocks are a disk of 1099511627776" },
        { 60, 4, 6, "unknown type, 6" },
        { 60, 4, 2, "cut off" },
        { 12, 4, 0x20000, "version 2" },
        { 16, 8, UINT64_MAX, "cut off" },
        { 16, 8, 1024, "dynamic header is damaged" },
        { 512 + 16, 8, 1ull << 40, "not within the file" },
        { 512 + 16, 8, 513, "not within the file" },
        { 512 + 28, 4, UINT32_MAX, "not within the file" },
        { 512 + 32, 4, 0, "blocks have 0 bytes" },
        { 512 + 32, 4, 1u << 31, "blocks have 2147483648 bytes" },
        { 512 + 24, 4, 0x20000, "version 2" },
    };
    gsize size;
    if (!make(find_made("vhd/exact")))
        return;
    g_autofree uint8_t *good = load("made.img", &size);
    g_autofree uint8_t *bytes = g_malloc(size);
    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        memcpy(bytes, good, size);
        put_be(bytes + wrong[i].at, wrong[i].value, wrong[i].width);
        vhd_sum(bytes, 512, 64);
        vhd_sum(bytes + 512, 1024, 36);
        memcpy(bytes + size - 512, bytes, 512);
        save("made.img", bytes, size);
        assert_refused("made.img", "vhd", wrong[i].why);
    }
}

/* --- VHDX --------------------------------------------------------------------------------------
 */

static void put_le(uint8_t *to, uint64_t value, unsigned width)
{
    for (unsigned i = 0; i < width; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static void vhdx_sum(uint8_t *bytes, size_t length, size_t sum_at)
{
    put_le(bytes + sum_at, 0, 4);
    put_le(bytes + sum_at, ~crc32c_add(~0u, bytes, length), 4);
}

enum { VHDX_HEADERS = 64 << 10, VHDX_REGIONS = 192 << 10, LOG_SECTOR = 4096 };

/* Where the BAT is, or the metadata. */
static uint8_t *vhdx_region(uint8_t *file, bool bat)
{
    const uint8_t *entry = file + VHDX_REGIONS + 16;
    if ((entry[0] == 0x66) != bat)
        entry += 32;
    return file + le64_at(entry + 16);
}

/* The header that counts. */
static uint8_t *vhdx_header(uint8_t *file)
{
    uint8_t *first = file + VHDX_HEADERS, *second = first + VHDX_HEADERS;
    return le64_at(second + 8) > le64_at(first + 8) ? second : first;
}

static uint8_t *vhdx_item(uint8_t *file, uint8_t first_of_guid)
{
    uint8_t *table = vhdx_region(file, false), *entry = table + 32;
    while (entry[0] != first_of_guid)
        entry += 32;
    return table + le32_at(entry + 16);
}

static void utf16(uint8_t *to, const char *text)
{
    for (size_t i = 0; text[i]; i++)
        put_le(to + 2 * i, (uint8_t)text[i], 2);
}

static void vhdx_guid_text(char *text, const uint8_t *g)
{
    g_snprintf(text, 40, "{%02X%02X%02X%02X-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x}",
               g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12],
               g[13], g[14], g[15]);
}

/* Makes a differencing image of a dynamic one: a parent's locator among its metadata. */
static void vhdx_add_parent(uint8_t *file, const uint8_t *linkage, const char *path)
{
    static const uint8_t guid[] = { 0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45,
                                    0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c };
    static const uint8_t type[] = { 0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a,
                                    0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13 };
    enum { AT = 512 << 10, LENGTH = 1024 };
    uint8_t *table = vhdx_region(file, false), *locator = table + AT;
    uint16_t count = le16_at(table + 10);
    uint8_t *entry = table + 32 + 32 * count;
    char text[40];
    vhdx_item(file, 0x37)[4] |= 2;
    put_le(table + 10, count + 1u, 2);
    memcpy(entry, guid, sizeof guid);
    put_le(entry + 16, AT, 4);
    put_le(entry + 20, LENGTH, 4);
    put_le(entry + 24, 4, 4);
    memcpy(locator, type, sizeof type);
    put_le(locator + 18, 2, 2);
    put_le(locator + 20, 100, 4); /* key, value, lengths */
    put_le(locator + 24, 200, 4);
    put_le(locator + 28, 2 * strlen("parent_linkage"), 2);
    put_le(locator + 30, 2 * 38, 2);
    utf16(locator + 100, "parent_linkage");
    vhdx_guid_text(text, linkage);
    utf16(locator + 200, text);
    put_le(locator + 32, 300, 4);
    put_le(locator + 36, 400, 4);
    put_le(locator + 40, 2 * strlen("relative_path"), 2);
    put_le(locator + 42, 2 * strlen(path), 2);
    utf16(locator + 300, "relative_path");
    utf16(locator + 400, path);
}

static void vhdx_differencing(void)
{
    gsize size, parent_size, file_size;
    if (!make(find_made("vhdx/dynamic")))
        return;
    g_autofree uint8_t *bytes = load("raw.img", &size), *parent = load("made.img", &parent_size);
    g_autofree uint8_t *own = new_content(size, 2);
    save("parent.vhdx", parent, parent_size);
    save("raw.img", own, size);
    if (!qemu_img("convert", "-f", "raw", "-O", "vhdx", "-o", "subformat=fixed,block_size=1M",
                  "raw.img", "made.img", NULL))
        return;
    g_autofree uint8_t *made = load("made.img", &file_size);
    size_t bits_at = (file_size + MIB - 1) / MIB * MIB, child_size = bits_at + MIB;
    g_autofree uint8_t *child = g_malloc0(child_size);
    memcpy(child, made, file_size);
    uint8_t *bat = vhdx_region(child, true), *bits = child + bits_at;
    vhdx_add_parent(child, vhdx_header(parent) + 32, ".\\parent.vhdx");
    memcpy(bytes, own, size); /* all is its own, but: */
    g_autofree uint8_t *below = new_content(size, 1);
    put_le(bat + 8 * 1, 0, 8); /* a block of the parent */
    memcpy(bytes + MIB, below + MIB, MIB);
    put_le(bat + 8 * 3, 2, 8); /* zeros */
    memset(bytes + 3 * MIB, 0, MIB);
    g_assert_cmpint(bat[8 * 7], ==, 6);
    bat[8 * 7] = 7; /* partially present: some sectors of each */
    put_le(bat + 8 * 4096, bits_at | 6, 8);
    for (unsigned i = 0; i < MIB / SECTOR; i++) {
        uint64_t bit = 7 * MIB / SECTOR + i;
        if (i % 5 > 2 || (i > 600 && i < 1400))
            bits[bit / 8] |= (uint8_t)(1 << bit % 8);
        else
            memcpy(bytes + bit * SECTOR, below + bit * SECTOR, SECTOR);
    }
    save("child.vhdx", child, child_size);
    assert_disk(open_good("child.vhdx"), bytes, size);

    bat[8 * 4096] = 0; /* no bit map */
    save("made.img", child, child_size);
    assert_damaged_block(7 * MIB, 4 * MIB);

    parent[VHDX_HEADERS + 32] ^= 1;
    parent[2 * VHDX_HEADERS + 32] ^= 1;
    vhdx_sum(parent + VHDX_HEADERS, 4096, 4);
    vhdx_sum(parent + 2 * VHDX_HEADERS, 4096, 4);
    save("parent.vhdx", parent, parent_size);
    assert_refused("child.vhdx", NULL, "parent.vhdx is not the image");
}

/* --- its log */

struct log_maker {
    uint8_t *file, *log;
    uint32_t length, at, tail;
    uint64_t sequence;
};

static void log_start(struct log_maker *m, uint8_t *file, size_t file_size, uint32_t at)
{
    uint8_t *header = vhdx_header(file);
    *m = (struct log_maker){ .file = file, .length = le32_at(header + 68), .at = at, .tail = at };
    m->log = file + le64_at(header + 72);
    m->sequence = 7;
    memset(header + 48, 0x17, 16);
    vhdx_sum(header, 4096, 4);
    g_assert_cmpuint(le64_at(header + 72) + m->length, <=, file_size);
}

/* An entry that writes one page, or (page NULL) zeros to `length` bytes. */
static void log_add(struct log_maker *m, uint64_t at, const uint8_t *page, uint64_t length,
                    uint64_t file_size)
{
    uint8_t entry[2 * LOG_SECTOR] = "loge", *d = entry + 64, *data = entry + LOG_SECTOR;
    uint32_t size = page ? sizeof entry : LOG_SECTOR;
    put_le(entry + 8, size, 4);
    put_le(entry + 12, m->tail, 4);
    put_le(entry + 16, m->sequence, 8);
    put_le(entry + 24, 1, 4);
    memset(entry + 32, 0x17, 16);
    put_le(entry + 48, file_size, 8);
    put_le(entry + 56, file_size, 8);
    memcpy(d, page ? "desc" : "zero", 4);
    put_le(d + 16, at, 8);
    put_le(d + 24, m->sequence, 8);
    if (page) {
        memcpy(d + 4, page + LOG_SECTOR - 4, 4);
        memcpy(d + 8, page, 8);
        memcpy(data, "data", 4);
        put_le(data + 4, m->sequence >> 32, 4);
        memcpy(data + 8, page + 8, LOG_SECTOR - 12);
        put_le(data + LOG_SECTOR - 4, m->sequence, 4);
    } else {
        put_le(d + 8, length, 8);
    }
    vhdx_sum(entry, size, 4);
    for (uint32_t i = 0; i < size; i += LOG_SECTOR, m->at = (m->at + LOG_SECTOR) % m->length)
        memcpy(m->log + m->at, entry + i, LOG_SECTOR);
    m->sequence++;
}

/* An image whose first page of the BAT is only in its log, in an entry after one that clears it;
 * a log that begins at `at`. qemu-img agrees. */
static void check_log(uint32_t at)
{
    gsize size, file_size;
    struct log_maker m;
    if (!make(find_made("vhdx/small")))
        return;
    g_autofree uint8_t *bytes = load("raw.img", &size), *file = load("made.img", &file_size);
    uint8_t *bat = vhdx_region(file, true);
    uint8_t page[LOG_SECTOR], none[LOG_SECTOR] = { 0 };
    memcpy(page, bat, sizeof page);
    memset(bat, 0, sizeof page);
    log_start(&m, file, file_size, at);
    m.sequence = 2; /* one that is over */
    log_add(&m, (uint64_t)(bat - file), none, 0, file_size);
    m.tail = m.at;
    m.sequence = 7;
    log_add(&m, (uint64_t)(bat - file), NULL, 2 * LOG_SECTOR, file_size);
    log_add(&m, (uint64_t)(bat - file), page, 0, file_size);
    log_add(&m, (uint64_t)(bat - file) + 4 * LOG_SECTOR, NULL, LOG_SECTOR, file_size);
    save("made.img", file, file_size);
    assert_disk(open_good("made.img"), bytes, size);
    if (at + 8 * LOG_SECTOR > m.length) /* qemu 7.2 replays only the part at the beginning */
        return;
    if (!qemu_img("check", "-q", "-f", "vhdx", "-r", "all", "made.img", NULL) ||
        !qemu_img("convert", "-f", "vhdx", "-O", "raw", "made.img", "back.img", NULL))
        return;
    g_autofree uint8_t *back = load("back.img", &size);
    g_assert_true(!memcmp(back, bytes, size));
}

static void vhdx_log(void)
{
    check_log(0);
    check_log(LOG_SECTOR * 7);
}

static void vhdx_log_round_the_end(void)
{
    for (uint32_t n = 2; n < 7; n++)
        check_log(MIB - LOG_SECTOR * n);
}

/* Entries that are torn, and a log for another file's length. */
static void vhdx_log_torn(void)
{
    gsize size, file_size;
    struct log_maker m;
    if (!make(find_made("vhdx/small")))
        return;
    g_autofree uint8_t *bytes = load("raw.img", &size), *file = load("made.img", &file_size);
    uint8_t *bat = vhdx_region(file, true);
    uint8_t none[LOG_SECTOR] = { 0 }, page[LOG_SECTOR];
    memcpy(page, bat, sizeof page);
    log_start(&m, file, file_size, 0);
    log_add(&m, (uint64_t)(bat - file), page, 0, file_size);
    m.log[m.at + 100] = 0; /* there is nothing */
    log_add(&m, (uint64_t)(bat - file), none, 0, file_size);
    m.log[m.at - 100] ^= 1; /* the last one did not reach the disk whole */
    save("made.img", file, file_size);
    assert_disk(open_good("made.img"), bytes, size);

    log_start(&m, file, file_size, 0);
    log_add(&m, (uint64_t)(bat - file), page, 0, file_size + MIB);
    save("made.img", file, file_size);
    assert_refused("made.img", NULL, "cut off: its log wants");

    log_start(&m, file, file_size, 0); /* with no entry of its own, it says nothing */
    memset(m.log, 0, m.length);
    save("made.img", file, file_size);
    assert_disk(open_good("made.img"), bytes, size);
}

/* What is written to data goes by the log too. */
static void vhdx_log_data(void)
{
    gsize size, file_size;
    struct log_maker m;
    if (!make(find_made("vhdx/small")))
        return;
    g_autofree uint8_t *bytes = load("raw.img", &size), *file = load("made.img", &file_size);
    uint8_t *bat = vhdx_region(file, true), page[LOG_SECTOR];
    memset(page, 0x5c, sizeof page);
    log_start(&m, file, file_size, 0);
    for (unsigned b = 0; b < 2; b++) /* a block that is there */
        if (bat[8 * b] == 6) {
            log_add(&m, (le64_at(bat + 8 * b) & ~0xfffffull) + 3 * LOG_SECTOR, page, 0, file_size);
            memcpy(bytes + b * MIB + 3 * LOG_SECTOR, page, sizeof page);
        }
    g_assert_cmpuint(m.sequence, >, 7);
    save("made.img", file, file_size);
    assert_disk(open_good("made.img"), bytes, size);
}

static void vhdx_damaged_block(void)
{
    gsize size;
    if (!make(find_made("vhdx/small")))
        return;
    g_autofree uint8_t *bytes = load("made.img", &size);
    uint8_t *bat = vhdx_region(bytes, true);
    for (unsigned state = 4; state < 8; state++) {
        put_le(bat + 8 * 3, state | (state == 6 ? 1ull << 62 : 1ull << 22), 8);
        save("made.img", bytes, size);
        assert_damaged_block(3 * MIB + 512, 4 * MIB);
    }
}

/* What is wrong with an image whose sums are right. */
static void vhdx_wrong(void)
{
    static const struct {
        uint8_t item; /* of the metadata, by the first byte of its GUID; 0: the file */
        uint8_t sum;  /* 'h': of the header, 'r': of the table of regions, made right again */
        unsigned at, width;
        uint64_t value;
        const char *why;
    } wrong[] = {
        { 0x37, 0, 0, 4, 0, "blocks have 0 bytes" },
        { 0x37, 0, 0, 4, 3 << 20, "blocks have 3145728 bytes" },
        { 0x37, 0, 0, 4, 512 << 20, "blocks have 536870912 bytes" },
        { 0x37, 0, 4, 4, 2, "no name of it" },
        { 0x24, 0, 0, 8, 0, "0 bytes cannot be" },
        { 0x24, 0, 0, 8, 513, "513 bytes cannot be" },
        { 0x24, 0, 0, 8, 1ull << 62, "cannot be" },
        { 0x24, 0, 0, 8, 1ull << 45, "too small for the disk" },
        { 0x1d, 0, 0, 4, 4096, "4096 bytes, and disks with others" },
        { 0, 0, 0, 1, 0, "no VHDX image" },
        { 0, 0, VHDX_HEADERS + 100, 1, 1, "" }, /* one header is enough */
        { 0, 'h', VHDX_HEADERS + 66, 2, 2, "version 2" },
        { 0, 'h', VHDX_HEADERS + 48, 8, 1, "" }, /* a log without entries */
        { 0, 0, VHDX_REGIONS + 16, 1, 1, "" },   /* there is a copy */
        { 0, 'r', VHDX_REGIONS + 16, 1, 1, "lacks a region" },
        { 0, 'r', VHDX_REGIONS + 32, 8, 1ull << 62, "not within the file" },
        { 0, 'r', VHDX_REGIONS + 32, 8, 0, "not within the file" },
        { 0, 'r', VHDX_REGIONS + 8, 4, 1, "lacks a region" },
    };
    gsize size;
    if (!make(find_made("vhdx/small")))
        return;
    g_autofree uint8_t *good = load("made.img", &size);
    g_autofree uint8_t *bytes = g_malloc(size);
    memcpy(good + VHDX_HEADERS, vhdx_header(good), 4096); /* the first one is the newer */
    put_le(good + VHDX_HEADERS + 8, 1ull << 40, 8);
    vhdx_sum(good + VHDX_HEADERS, 4096, 4);
    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        memcpy(bytes, good, size);
        uint8_t *to = wrong[i].item ? vhdx_item(bytes, wrong[i].item) : bytes;
        put_le(to + wrong[i].at, wrong[i].value, wrong[i].width);
        if (wrong[i].sum == 'h')
            vhdx_sum(bytes + VHDX_HEADERS, 4096, 4);
        else if (wrong[i].sum == 'r')
            vhdx_sum(bytes + VHDX_REGIONS, 64 << 10, 4);
        save("made.img", bytes, size);
        g_test_message("%u: %s", i, wrong[i].why);
        if (*wrong[i].why)
            assert_refused("made.img", "vhdx", wrong[i].why);
        else
            disk_free(open_good("made.img"));
    }
    memset(bytes + VHDX_HEADERS, 0, 4096);
    memset(bytes + 2 * VHDX_HEADERS, 0, 4096);
    save("made.img", bytes, size);
    assert_refused("made.img", "vhdx", "both headers");
    save("made.img", bytes, 100 << 10);
    assert_refused("made.img", "vhdx", "cut off");
}

/* --- VMDK --------------------------------------------------------------------------------------
 */

static void save_text(const char *name, const char *text)
{
    save(name, text, strlen(text));
}

/* What qemu-img sees in it is what the disk has. */
static void assert_as_qemu(const char *name)
{
    gsize size;
    if (!qemu_img("convert", "-f", "vmdk", "-O", "raw", name, "back.img", NULL))
        return;
    g_autofree uint8_t *back = load("back.img", &size);
    assert_disk(open_good(name), back, size);
}

/* Files of several kinds, the parts of one disk. */
static void vmdk_extents(void)
{
    g_autofree uint8_t *bytes = new_content(9 * MIB, 3);
    static const struct {
        const char *name, *subformat;
        size_t at, size;
    } files[] = {
        { "a-s001.vmdk", "subformat=monolithicSparse", 0, 2 * MIB },
        { "a-s002.vmdk", "subformat=monolithicSparse", 2 * MIB, MIB + 64 * 1024 },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(files); i++) {
        save("raw.img", bytes + files[i].at, files[i].size);
        if (!qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", files[i].subformat, "raw.img",
                      files[i].name, NULL))
            return;
    }
    save("a flat \"one\".img", bytes + 4 * MIB, 3 * MIB + 512);
    save_text("a.vmdk", "# Disk DescriptorFile\nversion=1\nCID=1234abcd\nparentCID=ffffffff\n"
                        "createType=\"custom\"\n\n# Extents\r\n"
                        "RW 4096 SPARSE \"a-s001.vmdk\"\r\n"
                        "RW 3 FLAT \"a flat \"one\".img\" 1\n"
                        "RW 1001 ZERO\n"
                        "RW 2176 SPARSE \"a-s002.vmdk\"\n"
                        "RW 6141 FLAT \"a flat \"one\".img\" 4\n"
                        "RDONLY 4 VMFS \"a flat \"one\".img\"\n"
                        "ddb.encoding = \"UTF-8\"\n");
    g_autofree uint8_t *disk = g_malloc0(14 * MIB), *to = disk;
    g_autofree uint8_t *flat = g_memdup2(bytes + 4 * MIB, 3 * MIB + 512);
    memcpy(to, bytes, 2 * MIB);
    to += 2 * MIB;
    memcpy(to, flat + 512, 3 * 512);
    to += (3 + 1001) * 512;
    memcpy(to, bytes + 2 * MIB, MIB + 64 * 1024);
    to += MIB + 64 * 1024;
    memcpy(to, flat + 4 * 512, 6141 * 512);
    to += 6141 * 512;
    memcpy(to, flat, 4 * 512);
    to += 4 * 512;
    size_t size = (size_t)(to - disk);
    to = NULL;
    assert_disk(open_good("a.vmdk"), disk, size);

    save_text("a.vmdk", "# Disk DescriptorFile\nversion=1\nCID=1234abcd\nparentCID=ffffffff\n"
                        "createType=\"twoGbMaxExtentSparse\"\n"
                        "RW 4096 SPARSE \"a-s001.vmdk\"\n"
                        "RW 2176 SPARSE \"a-s002.vmdk\"\n");
    assert_as_qemu("a.vmdk");
}

static bool qemu_io(const char *name, const char *first, const char *second)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *program = g_find_program_in_path("qemu-io");
    char *argv[] = { program, "-f",           "vmdk",       "-c", (char *)first,
                     "-c",    (char *)second, (char *)name, NULL };
    int status = 0;
    if (!program) {
        g_test_skip("qemu-io is not installed");
        return false;
    }
    g_spawn_sync(folder, argv, NULL, G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL, NULL, &status,
                 &error);
    g_assert_no_error(error);
    g_assert_cmpint(status, ==, 0);
    return true;
}

static void vmdk_differencing(void)
{
    if (!make(find_made("vmdk/monolithic-sparse")))
        return;
    gsize size;
    g_autofree uint8_t *parent = load("made.img", &size);
    save("parent.vmdk", parent, size);
    if (!qemu_img("create", "-q", "-f", "vmdk", "-o", "zeroed_grain=on", "-F", "vmdk", "-b",
                  "parent.vmdk", "child.vmdk", NULL) ||
        !qemu_io("child.vmdk", "write -P 0x77 1000k 300k", "write -z 6M 2M"))
        return;
    assert_as_qemu("child.vmdk");

    char *cid = memmem(parent, 4096, "\nCID=", 5);
    g_assert_nonnull(cid);
    cid[5] = cid[5] == '1' ? '2' : '1';
    save("parent.vmdk", parent, size);
    assert_refused("child.vmdk", NULL, "parent.vmdk is not the image");
}

/* A child in several parts has one parent. */
static void vmdk_differencing_split(void)
{
    gsize size, raw_size, part_size;
    if (!make(find_made("vmdk/monolithic-sparse")))
        return;
    g_autofree uint8_t *parent = load("made.img", &size), *bytes = load("raw.img", &raw_size);
    save("parent.vmdk", parent, size);
    if (!qemu_img("create", "-q", "-f", "vmdk", "p1.vmdk", "2M", NULL) ||
        !qemu_io("p1.vmdk", "write -P 0x77 500k 300k", "flush"))
        return;
    g_autofree uint8_t *part = load("p1.vmdk", &part_size);
    save("p2.vmdk", part, part_size);
    save_text("child.vmdk", "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=fffffffe\n"
                            "parentFileNameHint=\"C:\\vm\\parent.vmdk\"\n"
                            "RW 4096 SPARSE \"p1.vmdk\"\nRW 4096 SPARSE \"p2.vmdk\"\n");
    assert_refused("child.vmdk", NULL, "parent.vmdk is not the image");
    g_autofree char *cid = g_strndup((char *)memmem(parent, 4096, "\nCID=", 5) + 5, 8);
    g_autofree char *text =
        g_strdup_printf("# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=%s\n"
                        "parentFileNameHint=\"C:\\vm\\parent.vmdk\"\n"
                        "RW 4096 SPARSE \"p1.vmdk\"\nRW 4096 SPARSE \"p2.vmdk\"\n",
                        cid);
    save_text("child.vmdk", text);
    struct disk *disk = open_named("parent.vmdk", NULL, NULL);
    g_autofree uint8_t *below = g_malloc(4 * MIB);
    g_assert_cmpint(read_now(disk, 0, below, 4 * MIB), ==, 0);
    disk_free(disk);
    g_assert_true(!memcmp(below, bytes, 4 * MIB));
    for (unsigned i = 0; i < 2; i++) /* qemu copied zeros around them to whole grains */
        memset(below + i * 2 * MIB + 448 * 1024, 0, 384 * 1024);
    for (unsigned i = 0; i < 2; i++)
        memset(below + i * 2 * MIB + 500 * 1024, 0x77, 300 * 1024);
    assert_disk(open_good("child.vmdk"), below, 4 * MIB);
}

static void vmdk_zeroed_grains(void)
{
    if (!qemu_img("create", "-q", "-f", "vmdk", "-o", "zeroed_grain=on", "made.img", "4M", NULL) ||
        !qemu_io("made.img", "write -P 0x42 0 4M", "write -z 1M 1M"))
        return;
    assert_as_qemu("made.img");
}

/* Grains whose stream, or whose header, is damaged; those around are well. */
static void vmdk_damaged_grain(void)
{
    gsize size;
    if (!make(find_made("vmdk/stream")))
        return;
    g_autofree uint8_t *bytes = load("made.img", &size), *good = g_memdup2(bytes, size);
    uint8_t *directory = bytes + le64_at(bytes + 56) * 512;
    uint8_t *table = bytes + le32_at(directory) * 512;
    unsigned grains[512], count = 0;
    for (unsigned i = 0; i < 512; i++)
        if (le32_at(table + 4 * i))
            grains[count++] = i;
    g_assert_cmpuint(count, >, 3);
    uint8_t *grain = bytes + (size_t)le32_at(table + 4 * grains[1]) * 512;
    size_t bad = (size_t)grains[1] * 65536, well = (size_t)grains[2] * 65536;
    memset(grain + 12 + 20, 0xff, 30);
    save("made.img", bytes, size);
    assert_damaged_block(bad, well);
    memcpy(bytes, good, size);
    memset(grain + 8, 0xff, 4);
    save("made.img", bytes, size);
    assert_damaged_block(bad, well);
    memset(grain + 8, 0, 4);
    save("made.img", bytes, size);
    assert_damaged_block(bad, well);
    memcpy(bytes, good, size);
    memset(table + 4 * grains[1], 0xee, 4);
    save("made.img", bytes, size);
    assert_damaged_block(bad, well);
    memset(directory, 0xee, 4); /* the table of the first 32 MiB */
    save("made.img", bytes, size);
    assert_damaged_block(bad, 33 * MIB);
}

/* A stream as ovftool writes it: the header says only that the directory is at the end. */
static void vmdk_footer(void)
{
    gsize size, raw_size;
    if (!make(find_made("vmdk/stream")))
        return;
    g_autofree uint8_t *bytes = load("made.img", &size), *raw = load("raw.img", &raw_size);
    size_t end = (size + 511) / 512 * 512;
    g_autofree uint8_t *stream = g_malloc0(end + 3 * 512);
    memcpy(stream, bytes, size);
    memcpy(stream + end + 512, bytes, 512);
    put_le(stream + end, 1, 8);
    put_le(stream + end + 12, 3, 4);
    put_le(stream + 56, UINT64_MAX, 8);
    save("made.img", stream, end + 3 * 512);
    assert_disk(open_good("made.img"), raw, raw_size);
    save("made.img", stream, end);
    assert_refused("made.img", NULL, "its end is missing");
}

/* Descriptions that are wrong. */
static void vmdk_wrong(void)
{
#define HEAD "# Disk DescriptorFile\nversion=1\nCID=1\n"
    static const struct {
        const char *text, *why;
    } wrong[] = {
        { HEAD, "no extents" },
        { HEAD "RW 0 ZERO\n", "makes no sense" },
        { HEAD "RW 18446744073709551615 ZERO\n", "makes no sense" },
        { HEAD "RW 99999999999999999999999 ZERO\n", "makes no sense" },
        { HEAD "RW -1 ZERO\n", "makes no sense" },
        { HEAD "RW 8 ODD \"x\"\n", "makes no sense" },
        { HEAD "RW 18014398509481983 ZERO\nRW 18014398509481983 ZERO\n", "beyond all bounds" },
        { HEAD "RW 8 FLAT flat.img 0\n", "without a file" },
        { HEAD "RW 8 FLAT \"\" 0\n", "without a file" },
        { HEAD "RW 8 FLAT \"flat.img\" 18446744073709551615\n", "beyond all bounds" },
        { HEAD "RW 9 FLAT \"flat.img\" 0\n", "cut off" },
        { HEAD "RW 8 FLAT \"flat.img\" 1\n", "cut off" },
        { HEAD "RW 8 SPARSE \"flat.img\"\n", "no sparse extent" },
        { HEAD "RW 8 VMFSSPARSE \"flat.img\"\n", "ESX server (COWD)" },
        { HEAD "RW 8 SESPARSE \"flat.img\"\n", "ESX server (SESparse)" },
        { HEAD "RW 8 VMFSRDM \"flat.img\"\n", "a device of the host" },
        { HEAD "parentCID=5\nRW 8 ZERO\n", "no name of it" },
        { "COWD", "COWD" },
    };
#undef HEAD
    uint8_t flat[4096] = { 1 };
    save("flat.img", flat, sizeof flat);
    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        uint8_t padded[1024] = { 0 };
        memcpy(padded, wrong[i].text, strlen(wrong[i].text));
        save("made.img", padded, sizeof padded);
        g_test_message("%u: %s", i, wrong[i].why);
        g_autoptr(GError) error = NULL;
        struct disk *disk = open_named("made.img", "vmdk", &error);
        g_assert_null(disk);
        g_assert_nonnull(error);
        if (!strstr(error->message, wrong[i].why))
            g_error("\"%s\" does not say \"%s\"", error->message, wrong[i].why);
    }
    GString *text = g_string_new("# Disk DescriptorFile\n");
    for (unsigned i = 0; i < 1025; i++)
        g_string_append(text, "RW 1 ZERO\n");
    save("made.img", text->str, text->len);
    assert_refused("made.img", NULL, "beyond all bounds");
    g_string_set_size(text, 70000);
    save("made.img", text->str, text->len);
    assert_refused("made.img", NULL, "description has 70000 bytes");
    g_string_free(text, TRUE);
}

/* --- the fast way ------------------------------------------------------------------------------
 */

/* What was read once is known: a read within a block goes straight to the file, and to no thread.
 */
static void warm_reads_go_straight(void)
{
    static const char *const names[] = { "vdi/dynamic",       "vhd/dynamic",
                                         "vhdx/dynamic",      "vmdk/monolithic-sparse",
                                         "vmdk/split-sparse", "vmdk/split-flat" };
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        gsize size;
        uint8_t sector[SECTOR];
        struct owner owner = { .left = 0 };
        if (!make(find_made(names[i])))
            return;
        g_autofree uint8_t *bytes = load("raw.img", &size);
        struct disk *disk = open_good("made.img");
        const struct disk *straight = disk;
        disk_attach(disk, &owner.lock, NULL);
        uint64_t at = 0;
        while (!bytes[at + 1])
            at += SECTOR;
        g_assert_cmpint(read_now(disk, at, sector, sizeof sector), ==, 0);
        struct iovec iov = { sector, sizeof sector };
        struct disk_request request = { .op = DISK_READ,
                                        .offset = at,
                                        .length = SECTOR,
                                        .iov = &iov,
                                        .iov_count = 1,
                                        .done = on_done,
                                        .owner = &owner };
        g_mutex_lock(&owner.lock);
        owner.left = 1;
        disk_submit(disk, &request);
        g_assert_false(worker_busy((struct worker *)straight));
        g_assert_true(disk->ops->busy(disk));
        disk_kick(disk);
        while (owner.left)
            g_cond_wait(&owner.cond, &owner.lock);
        g_mutex_unlock(&owner.lock);
        g_assert_cmpmem(sector, SECTOR, bytes + at, SECTOR);
        disk_free(disk);
    }
}

/* --- disks strung together ----------------------------------------------------------------------
 */

static struct disk *string_parts(bool readonly, unsigned seed, uint8_t **bytes, size_t *size)
{
    static const size_t sizes[] = { 512, 3 * MIB + 512, 64 * 1024, 1024, 2 * MIB };
    struct disk *parts[G_N_ELEMENTS(sizes)];
    *bytes = new_content(8 * MIB, seed);
    *size = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        save("raw.img", *bytes + *size, sizes[i]);
        g_autofree char *path = in_folder("raw.img");
        int fd = open(path, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
        parts[i] = raw_open(fd, "part", readonly, NULL);
        g_assert_nonnull(parts[i]);
        g_unlink(path); /* it stays for the one who has it open */
        *size += sizes[i];
    }
    return concat_new("whole", parts, G_N_ELEMENTS(sizes));
}

static void concat_reads(void)
{
    g_autofree uint8_t *bytes = NULL;
    size_t size;
    struct disk *disk = string_parts(true, 4, &bytes, &size);
    assert_disk(disk, bytes, size);
}

static void concat_writes(void)
{
    g_autofree uint8_t *bytes = NULL, *news = new_content(8 * MIB, 5);
    uint8_t sector[SECTOR];
    size_t size;
    struct disk *disk = string_parts(false, 4, &bytes, &size);
    g_assert_false(disk->readonly);
    struct iovec iov = { news, 3 * MIB + 4096 };
    struct disk_request request = {
        .op = DISK_WRITE, .length = iov.iov_len, .iov = &iov, .iov_count = 1
    };
    g_assert_cmpint(disk_now(disk, &request), ==, 0);
    memcpy(bytes, news, iov.iov_len);
    struct disk_request zero = { .op = DISK_WRITE_ZEROES, .offset = 3 * MIB, .length = 512 * 1024 };
    g_assert_cmpint(disk_now(disk, &zero), ==, 0);
    memset(bytes + zero.offset, 0, zero.length);
    struct disk_request flush = { .op = DISK_FLUSH };
    g_assert_cmpint(disk_now(disk, &flush), ==, 0);
    request.offset = size - SECTOR;
    g_assert_cmpint(disk_now(disk, &request), ==, EINVAL);
    g_assert_cmpint(read_now(disk, size, sector, SECTOR), ==, EINVAL);
    disk->readonly = true; /* for the next */
    assert_disk(disk, bytes, size);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    folder = g_dir_make_tmp("hv-formats-XXXXXX", NULL);
    g_assert_nonnull(folder);
    for (const struct made *made = all_made; made->name; made++) {
        g_autofree char *path = g_strconcat("/", made->name, NULL);
        g_test_add_data_func(path, made, made_by_qemu);
    }
    g_test_add_func("/damaged", damaged_is_refused);
    g_test_add_func("/vdi/damaged-block", vdi_damaged_block);
    g_test_add_func("/vdi/discarded-block", vdi_discarded_block);
    g_test_add_func("/vhd/differencing", vhd_differencing);
    g_test_add_func("/vhd/copied-footer", vhd_copied_footer);
    g_test_add_func("/vhd/damaged-block", vhd_damaged_block);
    g_test_add_func("/vhd/wrong", vhd_wrong);
    g_test_add_func("/vhdx/differencing", vhdx_differencing);
    g_test_add_func("/vhdx/log", vhdx_log);
    g_test_add_func("/vhdx/log-round-the-end", vhdx_log_round_the_end);
    g_test_add_func("/vhdx/log-torn", vhdx_log_torn);
    g_test_add_func("/vhdx/log-data", vhdx_log_data);
    g_test_add_func("/vhdx/damaged-block", vhdx_damaged_block);
    g_test_add_func("/vhdx/wrong", vhdx_wrong);
    g_test_add_func("/vmdk/extents", vmdk_extents);
    g_test_add_func("/vmdk/differencing", vmdk_differencing);
    g_test_add_func("/vmdk/differencing-split", vmdk_differencing_split);
    g_test_add_func("/vmdk/zeroed-grains", vmdk_zeroed_grains);
    g_test_add_func("/vmdk/damaged-grain", vmdk_damaged_grain);
    g_test_add_func("/vmdk/footer", vmdk_footer);
    g_test_add_func("/vmdk/wrong", vmdk_wrong);
    g_test_add_func("/warm-reads-go-straight", warm_reads_go_straight);
    g_test_add_func("/concat/reads", concat_reads);
    g_test_add_func("/concat/writes", concat_writes);
    int result = g_test_run();
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    for (const char *name; dir && (name = g_dir_read_name(dir));) {
        g_autofree char *path = in_folder(name);
        g_unlink(path);
    }
    g_rmdir(folder);
    g_free(folder);
    return result;
}
