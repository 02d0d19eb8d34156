/* Image formats that are only read: every sector of what qemu-img makes, of images put together
 * here byte by byte where it makes none, and what is said of damaged ones. */
#include "base/error.h"
#include "block/bytes.h"
#include "block/concat.h"
#include "block/format.h"
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
    { "vdi/dynamic", "vdi", "static=off", 37 * MIB + 1024 },
    { "vdi/fixed", "vdi", "static=on", 5 * MIB },
    { "vdi/tiny", "vdi", "static=off", SECTOR },
    { "vhd/dynamic", "vpc", "subformat=dynamic", 37 * MIB + 1024 },
    { "vhd/exact", "vpc", "subformat=dynamic,force_size=on", 21 * MIB + 1536 },
    { "vhd/fixed", "vpc", "subformat=fixed", 5 * MIB },
    { "vhd/fixed-exact", "vpc", "subformat=fixed,force_size=on", 5 * MIB },
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
