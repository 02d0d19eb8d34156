/* qcow2 images: random histories against a model and against qemu-img, which must find nothing
 * wrong with what is left; what qemu-img makes; snapshots; damage; hostile images. */
#include "base/error.h"
#include "block/mapped.h"
#include "block/qcow2.h"
#include "block/raw.h"
#include "rig/image.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ENTRY_COPIED_ 0x8000000000000000ULL

static void random_history(gconstpointer data)
{
    const struct image_shape *shape = data;
    struct history history;
    if (!image_have_judge())
        return;
    history_start(&history, shape, HISTORY_DISK);
    history_reopen(&history);
    for (unsigned round = 1; round <= 600; round++) {
        history_step(&history, round);
        if (round % 200 == 0) {
            history_close(&history);
            image_judge(history.path);
            image_compare(history.path, history.model, HISTORY_DISK);
            history_reopen(&history);
            history_check_read(&history, 0, HISTORY_DISK);
        }
    }
    history_end(&history);
}

/* --- snapshots ------------------------------------------------------------------------------- */

static void snapshots(gconstpointer data)
{
    const struct image_shape *shape = data;
    g_autofree uint8_t *then = NULL;
    g_autoptr(GError) error = NULL;
    struct qcow2_info info;
    struct history history;
    if (!image_have_judge())
        return;
    history_start(&history, shape, HISTORY_DISK);
    for (unsigned part = 0; part < 3; part++) {
        history_reopen(&history);
        for (unsigned round = 1; round <= 100; round++)
            history_step(&history, part * 1000 + round);
        history_close(&history);
        image_judge(history.path);
        if (part == 0) {
            then = g_memdup2(history.model, HISTORY_DISK);
            g_assert_cmpint(image_run(NULL, "qemu-img snapshot -c first %s", history.path), ==, 0);
        }
    }
    struct disk *file = image_open_file(history.path, true);
    g_assert_true(qcow2_get_info(file, history.path, &info, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(info.snapshots->len, ==, 1);
    const struct qcow2_snapshot *snapshot =
        &g_array_index(info.snapshots, struct qcow2_snapshot, 0);
    g_assert_cmpstr(snapshot->name, ==, "first");
    g_assert_cmpstr(snapshot->id, ==, "1");
    g_assert_cmpuint(snapshot->size, ==, HISTORY_DISK);
    g_array_unref(info.snapshots);

    struct format_parts parts = { history.path, file, history_below(&history), NULL, 0 };
    g_assert_null(qcow2_open_snapshot(&parts, "second", &error));
    g_assert_nonnull(strstr(error->message, "no snapshot second"));
    g_clear_error(&error);
    struct disk *disk = qcow2_open_snapshot(&parts, "first", &error);
    g_assert_no_error(error);
    g_assert_true(disk->readonly);
    image_own(&history.owner, disk);
    g_assert_cmpint(image_transfer(&history.owner, DISK_READ, 0, history.data, HISTORY_DISK), ==,
                    0);
    g_assert_cmpmem(history.data, HISTORY_DISK, then, HISTORY_DISK);
    history_close(&history);
    g_assert_cmpint(image_run(NULL, "qemu-img snapshot -a first %s", history.path), ==, 0);
    image_judge(history.path);
    image_compare(history.path, then, HISTORY_DISK);
    history_end(&history);
}

/* --- other sizes -------------------------------------------------------------------------------
 */

static void sizes(gconstpointer data)
{
    const struct image_shape *shape = data;
    static const size_t sizes_[] = { HISTORY_DISK + 512 * 7, 40 << 20, 2 << 20, 1024 * 1024 + 1536,
                                     HISTORY_DISK };
    const size_t most = 40 << 20;
    struct history history;
    if (!image_have_judge())
        return;
    history_start(&history, shape, most);
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes_); i++) {
        history_reopen(&history);
        for (unsigned round = 1; round <= 60; round++)
            history_step(&history, i * 1000 + round);
        disk_drain(history.owner.disk);
        int error = qcow2_format.resize(history.owner.disk, sizes_[i]);
        g_assert_cmpint(error, ==, 0);
        if (sizes_[i] < history.disk)
            memset(history.model + sizes_[i], 0, most - sizes_[i]);
        history.disk = sizes_[i];
        history_check_read(&history, 0, history.disk);
        history_close(&history);
        image_judge(history.path);
        image_compare(history.path, history.model, history.disk);
    }
    history_end(&history);
}

/* Requests come and go while it grows: by an L1 table that is moved each few times. */
struct busy {
    struct history history;
    int stop; /* atomic */
};

static gpointer keep_busy(void *data)
{
    struct busy *busy = data;
    for (unsigned round = 1; !g_atomic_int_get(&busy->stop); round++)
        history_step(&busy->history, round * 8 + 1); /* without opening it again */
    return NULL;
}

static void grows_in_use(gconstpointer data)
{
    const size_t most = 24 << 20, stride = (1 << 20) + 512;
    size_t size = HISTORY_DISK;
    struct busy busy = { 0 };
    struct history *history = &busy.history;
    if (!image_have_judge())
        return;
    history_start(history, data, most);
    history_reopen(history);
    GThread *thread = g_thread_new("busy", keep_busy, &busy);
    for (; size + stride <= most; size += stride) {
        g_assert_cmpint(qcow2_format.resize(history->owner.disk, size + stride), ==, 0);
        g_usleep(2000);
    }
    g_atomic_int_set(&busy.stop, 1);
    g_thread_join(thread);
    history->disk = size;
    history_check_read(history, 0, size);
    uint8_t *last = history->model + size - 4096;
    memset(last, 7, 4096);
    g_assert_cmpint(image_transfer(&history->owner, DISK_WRITE, size - 4096, last, 4096), ==, 0);
    history_check_read(history, 0, size);
    history_close(history);
    image_judge(history->path);
    image_compare(history->path, history->model, size);
    history_end(history);
}

/* --- damage ------------------------------------------------------------------------------------
 */

/* A small image in memory, with a change, as a file. */
static void put_image(const char *path, size_t at, const void *change, size_t length)
{
    g_autofree char *all = NULL;
    gsize size = 0;
    g_autoptr(GError) error = NULL;
    const struct qcow2_options options = {
        .size = 1 << 20, .cluster = 4096, .format = "raw", .backing = "base.img"
    };
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    g_assert_true(qcow2_create(fd, path, &options, &error));
    g_assert_no_error(error);
    close(fd);
    g_assert_true(g_file_get_contents(path, &all, &size, NULL));
    memcpy(all + at, change, length);
    g_assert_true(g_file_set_contents(path, all, (gssize)size, NULL));
}

static uint64_t big(uint64_t value, unsigned bytes)
{
    return htobe64(value << (64 - 8 * bytes));
}

static void refusals(void)
{
    static const struct {
        size_t at;
        unsigned bytes;
        uint64_t value;
        bool readable;
        const char *message;
    } cases[] = {
        { 0, 4, 0x51464900, false, "no qcow2 image" },
        { 4, 4, 1, false, "version 1" },
        { 4, 4, 4, false, "version 4" },
        { 8, 8, 1 << 20, false, "backing file's name" },
        { 16, 4, 1024, false, "backing file's name" },
        { 20, 4, 8, false, "cluster size" },
        { 20, 4, 22, false, "cluster size" },
        { 20, 4, 0x80000000, false, "cluster size" },
        { 24, 8, 0, false, "0 bytes" },
        { 24, 8, UINT64_MAX, false, "its size" },
        { 24, 8, 1ULL << 40, false, "its size" },
        { 32, 4, 1, false, "encrypted qcow2 images are not supported (AES)" },
        { 32, 4, 2, false, "(LUKS)" },
        { 36, 4, 0, false, "L1 table" },
        { 36, 4, UINT32_MAX, false, "L1 table" },
        { 40, 8, 0, false, "L1 table" },
        { 40, 8, 4097, false, "L1 table" },
        { 40, 8, 1ULL << 62, false, "L1 table" },
        { 48, 8, 1ULL << 40, false, "refcount table" },
        { 56, 4, 0, false, "refcount table" },
        { 56, 4, UINT32_MAX, false, "refcount table" },
        { 60, 4, 1 << 20, false, "snapshot table" },
        { 72, 8, 2, true, "hv image check --repair" },
        { 72, 8, 4, false, "external data file" },
        { 72, 8, 8, false, "compression type" },
        { 72, 8, 1 << 5, false, "not supported: unknown (bit 5)" },
        { 72, 8, 1ULL << 63, false, "(bit 63)" },
        { 96, 4, 7, false, "refcounts" },
        { 100, 4, 72, false, "header" },
        { 100, 4, 8192, false, "header" },
    };
    g_autofree char *path = image_path("refused.qcow2");
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        uint64_t value = big(cases[i].value, cases[i].bytes);
        g_autoptr(GError) error = NULL;
        put_image(path, cases[i].at, &value, cases[i].bytes);
        struct disk *disk = image_try_open(path, false, NULL, &error);
        g_assert_null(disk);
        if (!strstr(error->message, cases[i].message))
            g_error("case %u: %s", i, error->message);
        g_clear_error(&error);
        disk = image_try_open(path, true, NULL, &error);
        g_assert_cmpint(!disk, ==, !cases[i].readable);
        disk_free(disk);
    }
    g_unlink(path);
}

/* A feature is refused by the name that the image has for it. */
static void names_features(void)
{
    g_autofree char *path = image_path("feature.qcow2"), *all = NULL;
    gsize size = 0;
    g_autoptr(GError) error = NULL;
    uint64_t value = big(1 << 9, 8);
    put_image(path, 72, &value, 8);
    g_assert_true(g_file_get_contents(path, &all, &size, NULL));
    char *entry = memmem(all, 4096, "dirty bit", 9);
    g_assert_nonnull(entry);
    entry[-1] = 9;
    memcpy(entry, "time\033travel", 11);
    g_assert_true(g_file_set_contents(path, all, (gssize)size, NULL));
    g_assert_null(image_try_open(path, true, NULL, &error));
    g_assert_nonnull(strstr(error->message, "time?travel (bit 9)"));
    g_unlink(path);
}

static void backing_links(void)
{
    g_autofree char *path = image_path("links.qcow2");
    g_autoptr(GPtrArray) links = g_ptr_array_new_with_free_func(format_link_free);
    g_autoptr(GError) error = NULL;
    put_image(path, 0, "QFI", 3);
    struct disk *file = image_open_file(path, true);
    g_assert_true(qcow2_format.links(file, path, links, &error));
    g_assert_cmpuint(links->len, ==, 1);
    const struct format_link *link = links->pdata[0];
    g_assert_cmpstr(link->name, ==, "base.img");
    g_assert_cmpstr(link->format, ==, "raw");
    g_assert_true(link->below);
    disk_free(file);
    g_unlink(path);
}

/* Entries are judged when they are used: that request fails, nothing is written from then on, and
 * the image is marked. */
static void damage_is_contained(void)
{
    static const uint64_t entries[] = {
        ENTRY_COPIED_ | 0x200,          /* misaligned */
        ENTRY_COPIED_ | 0x7fffffff0000, /* behind the end of the file */
        0x4000000000000000 | 1ULL << 50 /* compressed, there too */
    };
    g_autofree char *path = image_path("damaged.qcow2"), *all = NULL;
    uint8_t data[4096] = { 7 };
    gsize size = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(entries); i++) {
        struct image_owner owner;
        g_autoptr(GError) error = NULL;
        g_clear_pointer(&all, g_free);
        put_image(path, 0, "QFI", 3);
        image_open_disk(&owner, path, false, NULL);
        g_assert_cmpint(image_transfer(&owner, DISK_WRITE, 0, data, 4096), ==, 0);
        disk_free(owner.disk);
        g_assert_true(g_file_get_contents(path, &all, &size, NULL));
        uint64_t l1 = 0, bad = htobe64(entries[i]);
        memcpy(&l1, all + 40, 8);
        memcpy(&l1, all + be64toh(l1), 8);
        memcpy(all + (be64toh(l1) & ~ENTRY_COPIED_) + 8, &bad, 8); /* of the second cluster */
        g_assert_true(g_file_set_contents(path, all, (gssize)size, NULL));

        image_open_disk(&owner, path, false, NULL);
        g_assert_cmpint(image_transfer(&owner, DISK_READ, 0, data, 4096), ==, 0);
        g_assert_cmpint(data[0], ==, 7);
        g_assert_cmpint(image_transfer(&owner, DISK_READ, 4096, data, 4096), ==, EIO);
        g_assert_cmpint(image_transfer(&owner, DISK_WRITE, 0, data, 512), ==, EIO);
        g_assert_cmpint(image_transfer(&owner, DISK_WRITE, 65536, data, 4096), ==, EIO);
        g_assert_cmpint(image_transfer(&owner, DISK_READ, 0, data, 4096), ==, 0);
        disk_free(owner.disk);
        g_assert_null(image_try_open(path, false, NULL, &error));
        g_assert_nonnull(strstr(error->message, "marked as damaged"));
    }
    g_unlink(path);
}

/* A refcount of 0 for what is in use must not lead to its being used twice. */
static void tables_are_not_overwritten(void)
{
    g_autofree char *path = image_path("overlap.qcow2");
    uint8_t data[4096] = { 7 };
    struct image_owner owner;
    struct format_report report;
    uint16_t none = 0;
    for (unsigned cluster = 0; cluster < 4; cluster++) {
        put_image(path, 2 * 4096 + cluster * 2, &none, 2);
        image_open_disk(&owner, path, false, NULL);
        g_assert_cmpint(image_transfer(&owner, DISK_WRITE, 0, data, 4096), ==, EIO);
        disk_free(owner.disk);
        struct disk *file = image_open_file(path, false);
        g_assert_true(qcow2_check(file, path, true, &report, NULL));
        g_assert_cmpuint(report.corruptions, ==, 1);
        g_assert_cmpuint(report.corruptions_fixed, ==, 1);
        disk_free(file);
        image_open_disk(&owner, path, false, NULL); /* not marked any more */
        g_assert_cmpint(image_transfer(&owner, DISK_WRITE, 0, data, 4096), ==, 0);
        disk_free(owner.disk);
    }
    g_unlink(path);
}

/* All of the refcounts lost: they are made anew. */
static void repairs(gconstpointer data)
{
    const struct image_shape *shape = data;
    g_autofree char *all = NULL;
    gsize size = 0;
    struct format_report report;
    g_autoptr(GError) error = NULL;
    struct history history;
    if (!image_have_judge())
        return;
    history_start(&history, shape, HISTORY_DISK);
    history_reopen(&history);
    for (unsigned round = 1; round <= 100; round++)
        history_step(&history, round);
    history_close(&history);
    g_assert_true(g_file_get_contents(history.path, &all, &size, NULL));
    uint64_t table = 0;
    memcpy(&table, all + 48, 8);
    memset(all + be64toh(table), g_rand_boolean(history.rand) ? 0 : 0x41, 64);
    g_assert_true(g_file_set_contents(history.path, all, (gssize)size, NULL));
    struct disk *file = image_open_file(history.path, false);
    g_assert_true(qcow2_check(file, history.path, true, &report, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(report.corruptions, >, 0);
    g_assert_cmpuint(report.corruptions_fixed, ==, report.corruptions);
    disk_free(file);
    image_judge(history.path);
    image_compare(history.path, history.model, HISTORY_DISK);
    history_end(&history);
}

/* --- room given back without a flush -----------------------------------------------------------
 */

static unsigned punches;

static int count_punches(int fd, int mode, off_t offset, off_t length)
{
    g_atomic_int_inc((int *)&punches);
    return fallocate(fd, mode, offset, length);
}

/* A disk of so many MiB, with a cluster for everything. */
static void open_preallocated(struct image_owner *owner, const char *path, unsigned mib)
{
    static const struct raw_io io = { preadv, pwritev, fdatasync, count_punches, ftruncate, NULL };
    g_autoptr(GError) error = NULL;
    g_assert_cmpint(
        image_run(NULL, "qemu-img create -q -f qcow2 -o preallocation=metadata %s %uM", path, mib),
        ==, 0);
    struct format_parts parts = { path, image_open_file(path, false), NULL, NULL, 0 };
    raw_set_io(parts.file, &io);
    struct disk *disk = qcow2_format.open(&parts, &error);
    g_assert_no_error(error);
    image_own(owner, disk);
    punches = 0;
}

static int64_t room_of(const char *path)
{
    struct stat st;
    g_assert_cmpint(stat(path, &st), ==, 0);
    return (int64_t)st.st_blocks * 512;
}

static void room_after_a_while(void)
{
    enum { MIB = 1 << 20 };
    struct image_owner owner;
    if (!image_have_judge())
        return;
    g_autofree char *path = image_path("while.qcow2"), *data = g_malloc(4 * MIB);
    memset(data, 0x77, 4 * MIB);
    open_preallocated(&owner, path, 16);
    g_assert_cmpint(((struct mapped *)owner.disk)->patience, <=, 10 * G_USEC_PER_SEC);
    ((struct mapped *)owner.disk)->patience = 20000;
    g_assert_cmpint(image_transfer(&owner, DISK_WRITE, 0, data, 4 * MIB), ==, 0);
    g_assert_cmpint(room_of(path), >=, 4 * MIB);
    g_assert_cmpint(image_transfer(&owner, DISK_DISCARD, 0, NULL, 4 * MIB), ==, 0);
    for (unsigned i = 0; i < 500 && room_of(path) >= MIB; i++)
        g_usleep(10000);
    g_assert_cmpint(room_of(path), <, MIB);
    disk_free(owner.disk);
    image_judge(path);
    g_unlink(path);
}

static void room_of_many(void)
{
    struct image_owner owner;
    if (!image_have_judge())
        return;
    g_autofree char *path = image_path("many.qcow2");
    open_preallocated(&owner, path, 1024);
    g_assert_cmpint(image_transfer(&owner, DISK_DISCARD, 0, NULL, 128 << 20), ==, 0);
    g_assert_cmpuint(punches, ==, 0); /* the map in the file still has it */
    g_assert_cmpint(image_transfer(&owner, DISK_DISCARD, 128 << 20, NULL, 896 << 20), ==, 0);
    g_assert_cmpuint(punches, >, 0);
    disk_free(owner.disk);
    image_judge(path);
    g_unlink(path);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        GTestDataFunc run;
    } for_all[] = {
        { "history", random_history },    { "snapshots", snapshots }, { "sizes", sizes },
        { "grows-in-use", grows_in_use }, { "repairs", repairs },
    };
    g_test_init(&argc, &argv, NULL);
    image_folder_make(IN_MEMORY);
    for (unsigned k = 0; k < G_N_ELEMENTS(for_all); k++)
        for (size_t i = 0; i < image_shape_count; i++) {
            const struct image_shape *shape = &image_shapes[i];
            g_autofree char *path = g_strconcat("/qcow2/", for_all[k].name, "/", shape->name, NULL);
            if (for_all[k].run != snapshots || shape->made.refcount != 1)
                g_test_add_data_func(path, shape, for_all[k].run);
        }
    g_test_add_func("/qcow2/refusals", refusals);
    g_test_add_func("/qcow2/names-features", names_features);
    g_test_add_func("/qcow2/backing-links", backing_links);
    g_test_add_func("/qcow2/damage-is-contained", damage_is_contained);
    g_test_add_func("/qcow2/tables-are-not-overwritten", tables_are_not_overwritten);
    g_test_add_func("/qcow2/room-after-a-while", room_after_a_while);
    g_test_add_func("/qcow2/room-of-many", room_of_many);
    int result = g_test_run();
    image_folder_drop();
    return result;
}
