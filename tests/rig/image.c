/* Images under test; see image.h. */
#include "rig/image.h"

#include "base/error.h"
#include "block/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- a disk and its owner ----------------------------------------------------------------------
 */

static void on_done(struct disk_request *request, int error)
{
    struct image_owner *owner = request->owner;
    owner->error = error;
    owner->finished = true;
    g_cond_signal(&owner->cond);
}

int image_transfer(struct image_owner *owner, enum disk_op op, uint64_t offset, void *data,
                   uint64_t length)
{
    size_t part = data ? length / 3 : 0;
    struct iovec iov[2] = { { data, part }, { (uint8_t *)data + part, length - part } };
    struct disk_request request = {
        .op = op,
        .offset = offset,
        .length = length,
        .iov = data ? iov : NULL,
        .iov_count = data ? 2 : 0,
        .done = on_done,
        .owner = owner,
    };
    g_mutex_lock(&owner->lock);
    owner->finished = false;
    disk_submit(owner->disk, &request);
    disk_kick(owner->disk);
    while (!owner->finished)
        g_cond_wait(&owner->cond, &owner->lock);
    g_mutex_unlock(&owner->lock);
    return owner->error;
}

struct disk *image_open_file(const char *path, bool readonly)
{
    g_autoptr(GError) error = NULL;
    int fd = open(path, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    struct disk *file = raw_open(fd, path, readonly, &error);
    g_assert_no_error(error);
    return file;
}

struct disk *image_try_open(const char *path, bool readonly, struct disk *below, GError **error)
{
    struct format_parts parts = { path, image_open_file(path, readonly), below, NULL, 0 };
    struct disk *disk = qcow2_format.open(&parts, error);
    if (!disk) {
        disk_free(parts.file);
        disk_free(below);
    }
    return disk;
}

void image_own(struct image_owner *owner, struct disk *disk)
{
    *owner = (struct image_owner){ .disk = disk };
    g_mutex_init(&owner->lock);
    g_cond_init(&owner->cond);
    disk_attach(disk, &owner->lock, NULL);
}

void image_open_disk(struct image_owner *owner, const char *path, bool readonly, struct disk *below)
{
    g_autoptr(GError) error = NULL;
    struct disk *disk = image_try_open(path, readonly, below, &error);
    g_assert_no_error(error);
    image_own(owner, disk);
}

/* --- the judge ---------------------------------------------------------------------------------
 */

static char *folder;

void image_folder_make(const char *where)
{
    folder = g_mkdtemp(g_strconcat(where, "/hv-image-XXXXXX", NULL));
    if (!folder)
        folder = g_dir_make_tmp("hv-image-XXXXXX", NULL);
}

void image_folder_drop(void)
{
    g_rmdir(folder);
    g_clear_pointer(&folder, g_free);
}

char *image_path(const char *name)
{
    return g_build_filename(folder, name, NULL);
}

int image_run(char **output, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    g_autofree char *line = g_strdup_vprintf(format, list);
    va_end(list);
    g_autofree char *out = NULL, *err = NULL;
    g_autoptr(GError) error = NULL;
    int status = 0;
    g_spawn_command_line_sync(line, &out, &err, &status, &error);
    g_assert_no_error(error);
    if (output)
        *output = g_strconcat(out, err, NULL);
    else if (status)
        g_test_message("%s: %s%s", line, out, err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool image_have_judge(void)
{
    g_autofree char *program = g_find_program_in_path("qemu-img");
    if (!program)
        g_test_skip("qemu-img is not installed (./dev test does that)");
    return program;
}

void image_judge(const char *path)
{
    g_assert_cmpint(image_run(NULL, "qemu-img check -q %s", path), ==, 0); /* 3: leaks */
    image_check(path, false);
}

void image_check(const char *path, bool leaks_allowed)
{
    struct format_report report;
    g_autoptr(GError) error = NULL;
    struct disk *file = image_open_file(path, true);
    qcow2_check(file, path, false, &report, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(report.corruptions, ==, 0);
    if (!leaks_allowed)
        g_assert_cmpuint(report.leaks, ==, 0);
    disk_free(file);
}

void image_compare(const char *path, const uint8_t *model, size_t size)
{
    g_autofree char *raw = image_path("seen.raw"), *seen = NULL;
    gsize length = 0;
    g_assert_cmpint(image_run(NULL, "qemu-img convert -O raw %s %s", path, raw), ==, 0);
    g_assert_true(g_file_get_contents(raw, &seen, &length, NULL));
    g_assert_cmpuint(length, ==, size);
    for (size_t i = 0; i < size; i += 512)
        if (memcmp(seen + i, model + i, 512) != 0)
            g_error("sector %zu of %s is not what was written", i / 512, path);
    g_unlink(raw);
}

/* --- random histories --------------------------------------------------------------------------
 */

const struct image_shape image_shapes[] = {
    { "plain", NULL, { .size = HISTORY_DISK }, false },
    { "over-raw", NULL, { .size = HISTORY_DISK, .format = "raw" }, true },
    { "v2", NULL, { .size = HISTORY_DISK, .version = 2 }, false },
    { "v2-over",
      NULL,
      { .size = HISTORY_DISK, .version = 2, .cluster = 4096, .format = "raw" },
      true },
    { "c512", NULL, { .size = HISTORY_DISK, .cluster = 512 }, false },
    { "c512-64bit", NULL, { .size = HISTORY_DISK, .cluster = 512, .refcount = 64 }, false },
    { "c1k-over", NULL, { .size = HISTORY_DISK, .cluster = 1024, .format = "raw" }, true },
    { "c2m", NULL, { .size = HISTORY_DISK, .cluster = 2 << 20 }, false },
    { "c4k-1bit", NULL, { .size = HISTORY_DISK, .cluster = 4096, .refcount = 1 }, false },
    { "c4k-4bit-over",
      NULL,
      { .size = HISTORY_DISK, .cluster = 4096, .refcount = 4, .format = "raw" },
      true },
    { "lazy", NULL, { .size = HISTORY_DISK, .cluster = 8192, .lazy = true }, false },
    { "lazy-over", NULL, { .size = HISTORY_DISK, .lazy = true, .format = "raw" }, true },
    { "lazy-sub-8bit",
      NULL,
      { .size = HISTORY_DISK, .lazy = true, .extended = true, .refcount = 8 },
      false },
    { "c16k-32bit", NULL, { .size = HISTORY_DISK, .cluster = 16384, .refcount = 32 }, false },
    { "sub16k", NULL, { .size = HISTORY_DISK, .cluster = 16384, .extended = true }, false },
    { "sub64k-over", NULL, { .size = HISTORY_DISK, .extended = true, .format = "raw" }, true },
    { "zstd", NULL, { .size = HISTORY_DISK, .zstd = true }, false },
    { "qemu", "compat=1.1", { .size = HISTORY_DISK }, false },
    { "qemu-v2", "compat=0.10,cluster_size=512", { .size = HISTORY_DISK }, false },
    { "qemu-2bit", "refcount_bits=2,cluster_size=2048", { .size = HISTORY_DISK }, false },
    { "qemu-sub", "extended_l2=on,cluster_size=32k", { .size = HISTORY_DISK }, false },
    { "qemu-prealloc", "preallocation=metadata,cluster_size=4k", { .size = HISTORY_DISK }, false },
    { "packed", "cluster_size=64k", { .size = HISTORY_DISK }, false, true },
    { "packed-v2", "compat=0.10,cluster_size=4k", { .size = HISTORY_DISK }, false, true },
    { "packed-512", "cluster_size=512", { .size = HISTORY_DISK }, false, true },
    { "packed-2m", "cluster_size=2M", { .size = HISTORY_DISK }, false, true },
    { "packed-zstd",
      "compression_type=zstd,cluster_size=32k",
      { .size = HISTORY_DISK },
      false,
      true },
    { "packed-sub", "extended_l2=on,cluster_size=64k", { .size = HISTORY_DISK }, false, true },
};

const size_t image_shape_count = G_N_ELEMENTS(image_shapes);

bool image_is_old(const struct image_shape *shape)
{
    return shape->made.version == 2 || (shape->options && strstr(shape->options, "compat=0.10"));
}

static void make(const struct image_shape *shape, const char *path, const char *below)
{
    g_autoptr(GError) error = NULL;
    struct qcow2_options options = shape->made;
    g_autofree char *name = g_path_get_basename(below);
    options.backing = shape->below ? name : NULL;
    if (shape->packed) {
        g_assert_cmpint(image_run(NULL, "qemu-img convert -c -f raw -O qcow2 -o %s %s %s",
                                  shape->options, below, path),
                        ==, 0);
        return;
    }
    if (shape->options) {
        g_assert_cmpint(image_run(NULL, "qemu-img create -q -f qcow2 -o %s %s %d", shape->options,
                                  path, HISTORY_DISK),
                        ==, 0);
        return;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    g_assert_true(qcow2_create(fd, path, &options, &error));
    g_assert_no_error(error);
    close(fd);
}

void image_fill(uint8_t *to, size_t at, size_t length, unsigned round)
{
    for (size_t i = 0; i < length; i += 8) {
        uint64_t word = (at + i) * 0x9e3779b97f4a7c15ULL + round;
        memcpy(to + i, &word, 8);
    }
}

struct disk *history_below(const struct history *history)
{
    return history->shape->below ? image_open_file(history->below, true) : NULL;
}

void history_close(struct history *history)
{
    disk_free(history->owner.disk);
    history->owner.disk = NULL;
}

void history_reopen(struct history *history)
{
    history_close(history);
    image_open_disk(&history->owner, history->path, false, history_below(history));
    g_assert_cmpuint(history->owner.disk->size, ==, history->disk);
}

void history_pick(struct history *history, size_t *at, size_t *length)
{
    static const int most[] = { 1, 4, 16, 64, 300, 2500 };
    GRand *rand = history->rand;
    int sectors = most[g_rand_int_range(rand, 0, G_N_ELEMENTS(most))];
    *at = (size_t)g_rand_int_range(rand, 0, (gint32)(history->disk / 512)) * 512;
    *length = (size_t)g_rand_int_range(rand, 1, sectors + 1) * 512;
    if (g_rand_boolean(rand))
        *at = *at / 65536 * 65536;
    *length = MIN(*length, history->disk - *at);
}

void history_check_read(struct history *history, size_t at, size_t length)
{
    g_assert_cmpint(image_transfer(&history->owner, DISK_READ, at, history->data, length), ==, 0);
    for (size_t i = 0; i < length; i += 512)
        if (memcmp(history->data + i, history->model + at + i, 512) != 0)
            g_error("%s: sector %zu is wrong: %02x not %02x", history->path, (at + i) / 512,
                    history->data[i], history->model[at + i]);
}

void history_learn_discard(struct history *history, size_t at, size_t length)
{
    g_assert_cmpint(image_transfer(&history->owner, DISK_READ, at, history->data, length), ==, 0);
    static const uint8_t zeros[512];
    for (size_t i = 0; i < length; i += 512)
        g_assert_true(!memcmp(history->data + i, zeros, 512) ||
                      !memcmp(history->data + i, history->model + at + i, 512));
    memcpy(history->model + at, history->data, length);
}

void history_step(struct history *history, unsigned round)
{
    size_t at, length;
    history_pick(history, &at, &length);
    switch (g_rand_int_range(history->rand, 0, 16)) {
    case 0:
        g_assert_cmpint(image_transfer(&history->owner, DISK_FLUSH, 0, NULL, 0), ==, 0);
        break;
    case 1:
    case 2:
        g_assert_cmpint(image_transfer(&history->owner, DISK_DISCARD, at, NULL, length), ==, 0);
        history_learn_discard(history, at, length);
        break;
    case 3:
    case 4:
        g_assert_cmpint(image_transfer(&history->owner, DISK_WRITE_ZEROES, at, NULL, length), ==,
                        0);
        memset(history->model + at, 0, length);
        break;
    case 5:
        if (round % 8 == 0)
            history_reopen(history);
        break;
    case 6:
    case 7:
    case 8:
    case 9:
        history_check_read(history, at, length);
        break;
    default:
        image_fill(history->model + at, at, length, round);
        memcpy(history->data, history->model + at, length);
        g_assert_cmpint(image_transfer(&history->owner, DISK_WRITE, at, history->data, length), ==,
                        0);
    }
}

void history_prepare(struct history *history)
{
    const struct image_shape *shape = history->shape;
    size_t size = shape->packed ? HISTORY_DISK : HISTORY_BELOW;
    history->disk = HISTORY_DISK;
    memset(history->model, 0, HISTORY_DISK);
    if (shape->below)
        image_fill(history->model, 0, HISTORY_BELOW, 77);
    for (size_t at = 0; shape->packed && at < HISTORY_DISK; at += 65536) /* compresses */
        memset(history->model + at, (int)(at >> 16), MIN(60000, HISTORY_DISK - at));
    if (shape->below || shape->packed)
        g_assert_true(
            g_file_set_contents(history->below, (char *)history->model, (gssize)size, NULL));
    make(shape, history->path, history->below);
}

void history_start(struct history *history, const struct image_shape *shape, size_t most)
{
    *history = (struct history){
        .rand = g_rand_new_with_seed(g_test_rand_int() >> 1),
        .model = g_malloc0(most),
        .data = g_malloc(most),
        .path = image_path("image.qcow2"),
        .below = image_path("below.raw"),
        .shape = shape,
    };
    history_prepare(history);
}

void history_end(struct history *history)
{
    history_close(history);
    g_rand_free(history->rand);
    g_unlink(history->path);
    g_unlink(history->below);
    g_free(history->model);
    g_free(history->data);
    g_free(history->path);
    g_free(history->below);
}
