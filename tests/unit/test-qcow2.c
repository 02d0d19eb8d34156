/* qcow2 images: random histories against a model and against qemu-img, which must find nothing
 * wrong with what is left; what qemu-img makes; snapshots; damage; hostile images. */
#include "base/error.h"
#include "block/qcow2.h"
#include "block/raw.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ENTRY_COPIED_ 0x8000000000000000ULL

/* --- a disk and its owner ----------------------------------------------------------------------
 */

struct owner {
    GMutex lock;
    GCond cond;
    struct disk *disk;
    bool finished;
    int error;
};

static void on_done(struct disk_request *request, int error)
{
    struct owner *owner = request->owner;
    owner->error = error;
    owner->finished = true;
    g_cond_signal(&owner->cond);
}

static int transfer(struct owner *owner, enum disk_op op, uint64_t offset, void *data,
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

static struct disk *open_file(const char *path, bool readonly)
{
    g_autoptr(GError) error = NULL;
    int fd = open(path, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    struct disk *file = raw_open(fd, path, readonly, &error);
    g_assert_no_error(error);
    return file;
}

/* The image as a disk over `below`, which it owns; NULL with an error. */
static struct disk *try_open(const char *path, bool readonly, struct disk *below, GError **error)
{
    struct format_parts parts = { path, open_file(path, readonly), below, NULL, 0 };
    struct disk *disk = qcow2_format.open(&parts, error);
    if (!disk) {
        disk_free(parts.file);
        disk_free(below);
    }
    return disk;
}

static void own(struct owner *owner, struct disk *disk)
{
    *owner = (struct owner){ .disk = disk };
    g_mutex_init(&owner->lock);
    g_cond_init(&owner->cond);
    disk_attach(disk, &owner->lock, NULL);
}

static void open_disk(struct owner *owner, const char *path, bool readonly, struct disk *below)
{
    g_autoptr(GError) error = NULL;
    struct disk *disk = try_open(path, readonly, below, &error);
    g_assert_no_error(error);
    own(owner, disk);
}

/* --- the judge ---------------------------------------------------------------------------------
 */

static char *folder;

static char *path_of(const char *name)
{
    return g_build_filename(folder, name, NULL);
}

/* Runs a command line; its exit status. */
G_GNUC_PRINTF(2, 3) static int run(char **output, const char *format, ...)
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

static bool have_judge(void)
{
    g_autofree char *program = g_find_program_in_path("qemu-img");
    if (!program)
        g_test_skip("qemu-img is not installed (./dev test does that)");
    return program;
}

static void judge(const char *path)
{
    struct format_report report;
    g_autoptr(GError) error = NULL;
    g_assert_cmpint(run(NULL, "qemu-img check -q %s", path), ==, 0); /* 3: leaks */
    struct disk *file = open_file(path, true);
    g_assert_true(qcow2_check(file, path, false, &report, &error));
    g_assert_cmpuint(report.corruptions, ==, 0);
    g_assert_cmpuint(report.leaks, ==, 0);
    disk_free(file);
}

/* What qemu-img sees in an image must be the model. */
static void compare(const char *path, const uint8_t *model, size_t size)
{
    g_autofree char *raw = path_of("seen.raw"), *seen = NULL;
    gsize length = 0;
    g_assert_cmpint(run(NULL, "qemu-img convert -O raw %s %s", path, raw), ==, 0);
    g_assert_true(g_file_get_contents(raw, &seen, &length, NULL));
    g_assert_cmpuint(length, ==, size);
    for (size_t i = 0; i < size; i += 512)
        if (memcmp(seen + i, model + i, 512) != 0)
            g_error("sector %zu of %s is not what was written", i / 512, path);
    g_unlink(raw);
}

/* --- random histories --------------------------------------------------------------------------
 */

enum { DISK = 3 * 1024 * 1024 + 512 * 5, BELOW = 2 * 1024 * 1024 + 512 };

struct shape {
    const char *name;
    const char *options; /* of qemu-img; NULL: it is made here */
    struct qcow2_options made;
    bool below;
    bool packed; /* made from what is below, in compressed clusters */
};

static const struct shape shapes[] = {
    { "plain", NULL, { .size = DISK }, false },
    { "over-raw", NULL, { .size = DISK, .format = "raw" }, true },
    { "v2", NULL, { .size = DISK, .version = 2 }, false },
    { "v2-over", NULL, { .size = DISK, .version = 2, .cluster = 4096, .format = "raw" }, true },
    { "c512", NULL, { .size = DISK, .cluster = 512 }, false },
    { "c512-64bit", NULL, { .size = DISK, .cluster = 512, .refcount = 64 }, false },
    { "c1k-over", NULL, { .size = DISK, .cluster = 1024, .format = "raw" }, true },
    { "c2m", NULL, { .size = DISK, .cluster = 2 << 20 }, false },
    { "c4k-1bit", NULL, { .size = DISK, .cluster = 4096, .refcount = 1 }, false },
    { "c4k-4bit-over",
      NULL,
      { .size = DISK, .cluster = 4096, .refcount = 4, .format = "raw" },
      true },
    { "lazy", NULL, { .size = DISK, .cluster = 8192, .lazy = true }, false },
    { "sub16k", NULL, { .size = DISK, .cluster = 16384, .extended = true }, false },
    { "sub64k-over", NULL, { .size = DISK, .extended = true, .format = "raw" }, true },
    { "zstd", NULL, { .size = DISK, .zstd = true }, false },
    { "qemu", "compat=1.1", { .size = DISK }, false },
    { "qemu-v2", "compat=0.10,cluster_size=512", { .size = DISK }, false },
    { "qemu-2bit", "refcount_bits=2,cluster_size=2048", { .size = DISK }, false },
    { "qemu-sub", "extended_l2=on,cluster_size=32k", { .size = DISK }, false },
    { "qemu-prealloc", "preallocation=metadata,cluster_size=4k", { .size = DISK }, false },
    { "packed", "cluster_size=64k", { .size = DISK }, false, true },
    { "packed-v2", "compat=0.10,cluster_size=4k", { .size = DISK }, false, true },
    { "packed-512", "cluster_size=512", { .size = DISK }, false, true },
    { "packed-2m", "cluster_size=2M", { .size = DISK }, false, true },
    { "packed-zstd", "compression_type=zstd,cluster_size=32k", { .size = DISK }, false, true },
    { "packed-sub", "extended_l2=on,cluster_size=64k", { .size = DISK }, false, true },
};

static void make_image(const struct shape *shape, const char *path, const char *below)
{
    g_autoptr(GError) error = NULL;
    struct qcow2_options options = shape->made;
    options.backing = shape->below ? below : NULL;
    if (shape->packed) {
        g_assert_cmpint(run(NULL, "qemu-img convert -c -f raw -O qcow2 -o %s %s %s", shape->options,
                            below, path),
                        ==, 0);
        return;
    }
    if (shape->options) {
        g_assert_cmpint(
            run(NULL, "qemu-img create -q -f qcow2 -o %s %s %d", shape->options, path, DISK), ==,
            0);
        return;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    g_assert_true(qcow2_create(fd, path, &options, &error));
    g_assert_no_error(error);
    close(fd);
}

/* Sectors that say where they come from. */
static void fill(uint8_t *to, size_t at, size_t length, unsigned round)
{
    for (size_t i = 0; i < length; i += 8) {
        uint64_t word = (at + i) * 0x9e3779b97f4a7c15ULL + round;
        memcpy(to + i, &word, 8);
    }
}

struct history {
    struct owner owner;
    GRand *rand;
    uint8_t *model, *data;
    const char *path, *below;
    const struct shape *shape;
    size_t disk;
};

static void reopen(struct history *history)
{
    if (history->owner.disk)
        disk_free(history->owner.disk);
    open_disk(&history->owner, history->path, false,
              history->shape->below ? open_file(history->below, true) : NULL);
    g_assert_cmpuint(history->owner.disk->size, ==, history->disk);
}

static void pick(struct history *history, size_t *at, size_t *length)
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

static void check_read(struct history *history, size_t at, size_t length)
{
    g_assert_cmpint(transfer(&history->owner, DISK_READ, at, history->data, length), ==, 0);
    for (size_t i = 0; i < length; i += 512)
        if (memcmp(history->data + i, history->model + at + i, 512) != 0)
            g_error("%s: sector %zu is wrong: %02x not %02x", history->path, (at + i) / 512,
                    history->data[i], history->model[at + i]);
}

/* What a discard left is for the disk to say, within what it may be: as before, or zeros, or, where
 * it never had zeros to offer, what is below. It must not change later. */
static void learn_discard(struct history *history, size_t at, size_t length)
{
    g_assert_cmpint(transfer(&history->owner, DISK_READ, at, history->data, length), ==, 0);
    static const uint8_t zeros[512];
    for (size_t i = 0; i < length; i += 512)
        g_assert_true(!memcmp(history->data + i, zeros, 512) ||
                      !memcmp(history->data + i, history->model + at + i, 512));
    memcpy(history->model + at, history->data, length);
}

static void step(struct history *history, unsigned round)
{
    size_t at, length;
    pick(history, &at, &length);
    switch (g_rand_int_range(history->rand, 0, 16)) {
    case 0:
        g_assert_cmpint(transfer(&history->owner, DISK_FLUSH, 0, NULL, 0), ==, 0);
        break;
    case 1:
    case 2:
        g_assert_cmpint(transfer(&history->owner, DISK_DISCARD, at, NULL, length), ==, 0);
        learn_discard(history, at, length);
        break;
    case 3:
    case 4:
        g_assert_cmpint(transfer(&history->owner, DISK_WRITE_ZEROES, at, NULL, length), ==, 0);
        memset(history->model + at, 0, length);
        break;
    case 5:
        if (round % 8 == 0)
            reopen(history);
        break;
    case 6:
    case 7:
    case 8:
    case 9:
        check_read(history, at, length);
        break;
    default:
        fill(history->model + at, at, length, round);
        memcpy(history->data, history->model + at, length);
        g_assert_cmpint(transfer(&history->owner, DISK_WRITE, at, history->data, length), ==, 0);
    }
}

/* The image, with what it lies on, or is made of. */
static void prepare(struct history *history)
{
    const struct shape *shape = history->shape;
    size_t size = shape->packed ? DISK : BELOW;
    if (shape->below)
        fill(history->model, 0, BELOW, 77);
    for (size_t at = 0; shape->packed && at < DISK; at += 65536) /* compresses */
        memset(history->model + at, (int)(at >> 16), MIN(60000, DISK - at));
    if (shape->below || shape->packed)
        g_assert_true(
            g_file_set_contents(history->below, (char *)history->model, (gssize)size, NULL));
    make_image(shape, history->path, history->below);
}

static void random_history(gconstpointer data)
{
    const struct shape *shape = data;
    g_autofree char *path = path_of("image.qcow2"), *below = path_of("below.raw");
    struct history history = {
        .rand = g_rand_new_with_seed(g_test_rand_int() >> 1),
        .model = g_malloc0(DISK),
        .data = g_malloc(DISK),
        .path = path,
        .below = below,
        .shape = shape,
        .disk = DISK,
    };
    if (!have_judge())
        return;
    prepare(&history);
    reopen(&history);
    for (unsigned round = 1; round <= 600; round++) {
        step(&history, round);
        if (round % 200 == 0) {
            disk_free(history.owner.disk);
            history.owner.disk = NULL;
            judge(path);
            compare(path, history.model, DISK);
            reopen(&history);
            check_read(&history, 0, DISK);
        }
    }
    disk_free(history.owner.disk);
    g_rand_free(history.rand);
    g_free(history.model);
    g_free(history.data);
    g_unlink(path);
    g_unlink(below);
}

/* --- power cuts ------------------------------------------------------------------------------ */

/* What a file was asked to do, in order. */
struct host_call {
    enum { HOST_WRITE, HOST_ZERO, HOST_SIZE, HOST_SYNC } what;
    uint64_t at, length;
    uint8_t *data;
};

/* The host of one file. The calls are made one at a time. */
static struct {
    GArray *calls; /* NULL: they are not noted */
    unsigned fail; /* which call fails, counted down; 0: none */
    int error;     /* how */
    bool lost;     /* it was a sync: what it was for is lost, and the guest knows */
} host;

static bool fails(void)
{
    if (!host.fail || --host.fail)
        return false;
    errno = host.error;
    return true;
}

static void note(int what, uint64_t at, uint64_t length, uint8_t *data)
{
    struct host_call call = { what, at, length, data };
    if (host.calls)
        g_array_append_val(host.calls, call);
    else
        g_free(data);
}

static ssize_t host_read(int fd, const struct iovec *iov, int count, off_t offset)
{
    return fails() ? -1 : preadv(fd, iov, count, offset);
}

static ssize_t host_write(int fd, const struct iovec *iov, int count, off_t offset)
{
    GByteArray *all = g_byte_array_new();
    if (fails())
        return -1;
    for (int i = 0; i < count; i++)
        g_byte_array_append(all, iov[i].iov_base, (guint)iov[i].iov_len);
    guint length = all->len;
    note(HOST_WRITE, (uint64_t)offset, length, g_byte_array_free(all, false));
    return pwritev(fd, iov, count, offset);
}

static int host_sync(int fd)
{
    (void)fd;
    if (fails()) {
        host.lost = true;
        return -1;
    }
    note(HOST_SYNC, 0, 0, NULL);
    return 0;
}

static int host_allocate(int fd, int mode, off_t offset, off_t length)
{
    if (fails())
        return -1;
    note(HOST_ZERO, (uint64_t)offset, (uint64_t)length, NULL);
    return fallocate(fd, mode, offset, length);
}

static int host_truncate(int fd, off_t size)
{
    if (fails())
        return -1;
    note(HOST_SIZE, (uint64_t)size, 0, NULL);
    return ftruncate(fd, size);
}

static const struct raw_io host_io = { host_read,     host_write,    host_sync,
                                       host_allocate, host_truncate, NULL };

static void clear_call(void *data)
{
    g_free(((struct host_call *)data)->data);
}

/* As reopen, with the host above. */
static void open_on_host(struct history *history)
{
    g_autoptr(GError) error = NULL;
    struct disk *file = open_file(history->path, false);
    raw_set_io(file, &host_io);
    raw_use_threads(file);
    struct format_parts parts = { history->path, file,
                                  history->shape->below ? open_file(history->below, true) : NULL,
                                  NULL, 0 };
    struct disk *disk = qcow2_format.open(&parts, &error);
    g_assert_no_error(error);
    own(&history->owner, disk);
}

/* What was asked of the disk since the last flush that was answered. */
struct wish {
    enum disk_op op;
    size_t at, length;
    unsigned round;
    guint calls; /* of the host, when it was made */
};

/* The file after a power cut: all up to the last sync before `end`, and of the rest any sectors. */
static void replay(GByteArray *file, GRand *rand, guint end)
{
    guint synced = 0;
    for (guint i = 0; i < end; i++)
        if (g_array_index(host.calls, struct host_call, i).what == HOST_SYNC)
            synced = i;
    for (guint i = 0; i < end; i++) {
        const struct host_call *call = &g_array_index(host.calls, struct host_call, i);
        unsigned luck = (unsigned)g_rand_int_range(rand, 0, 4); /* of 3 sectors; 0: none; 3: all */
        bool sure = i < synced || luck == 3;
        if (call->what == HOST_SYNC || (!sure && !luck))
            continue;
        if (call->what == HOST_SIZE) {
            guint before = file->len;
            g_byte_array_set_size(file, (guint)call->at);
            if (file->len > before)
                memset(file->data + before, 0, file->len - before);
            continue;
        }
        for (uint64_t done = 0, n; done < call->length; done += n) {
            uint64_t at = call->at + done;
            n = MIN(call->length - done, 512 - at % 512);
            if (!sure && g_rand_int_range(rand, 0, 3) >= (int)luck)
                continue;
            if (at + n > file->len) {
                guint before = file->len;
                if (call->what == HOST_ZERO)
                    continue;
                g_byte_array_set_size(file, (guint)(at + n));
                memset(file->data + before, 0, file->len - before);
            }
            if (call->what == HOST_ZERO)
                memset(file->data + at, 0, n);
            else
                memcpy(file->data + at, call->data + done, n);
        }
    }
}

/* Every sector is as it was flushed, or as something later would have it. */
static void check_survivors(struct history *history, const uint8_t *flushed, GArray *wishes,
                            guint first, guint end)
{
    uint8_t sector[512];
    g_assert_cmpint(transfer(&history->owner, DISK_READ, 0, history->data, DISK), ==, 0);
    for (size_t at = 0; at < DISK; at += 512) {
        bool good = !memcmp(history->data + at, flushed + at, 512);
        for (guint i = first; i < wishes->len && !good; i++) {
            const struct wish *wish = &g_array_index(wishes, struct wish, i);
            if (wish->calls >= end || at < wish->at || at >= wish->at + wish->length)
                continue;
            memset(sector, 0, 512);
            if (wish->op == DISK_WRITE)
                fill(sector, at, 512, wish->round);
            good = !memcmp(history->data + at, sector, 512);
        }
        if (!good)
            g_error("%s: sector %zu is lost", history->shape->name, at / 512);
    }
}

struct flush {
    guint wishes, calls; /* so many were there when it was answered */
    uint8_t *model;
};

static void cut(struct history *history, const GByteArray *base, GArray *wishes, GArray *flushes)
{
    GByteArray *file = g_byte_array_new();
    guint end = (guint)g_rand_int_range(history->rand, 0, (int)host.calls->len + 1);
    const struct flush *last = &g_array_index(flushes, struct flush, 0);
    g_autoptr(GError) error = NULL;
    struct format_report report;
    for (guint i = 1; i < flushes->len; i++)
        if (g_array_index(flushes, struct flush, i).calls <= end)
            last = &g_array_index(flushes, struct flush, i);
    g_byte_array_append(file, base->data, base->len);
    replay(file, history->rand, end);
    g_assert_true(g_file_set_contents(history->path, (char *)file->data, (gssize)file->len, NULL));
    g_byte_array_unref(file);

    struct disk *look = open_file(history->path, true);
    g_assert_true(qcow2_check(look, history->path, false, &report, &error));
    if (!history->shape->made.lazy)
        g_assert_cmpuint(report.corruptions, ==, 0);
    disk_free(look);
    reopen(history);
    check_survivors(history, last->model, wishes, last->wishes, end);
    disk_free(history->owner.disk);
    history->owner.disk = NULL;
    look = open_file(history->path, true);
    g_assert_true(qcow2_check(look, history->path, false, &report, &error));
    g_assert_cmpuint(report.corruptions, ==, 0);
    if (history->shape->made.version != 2 && !strstr(history->shape->name, "v2"))
        g_assert_cmpuint(report.leaks, ==, 0);
    disk_free(look);
}

/* Answers; and takes down what was asked. */
static void ask(struct history *history, GArray *wishes, GArray *flushes, unsigned round)
{
    struct wish wish = { .round = round, .calls = host.calls->len };
    int what = g_rand_int_range(history->rand, 0, 12);
    pick(history, &wish.at, &wish.length);
    wish.op = what < 2   ? DISK_FLUSH
              : what < 4 ? DISK_DISCARD
              : what < 6 ? DISK_WRITE_ZEROES
                         : DISK_WRITE;
    g_array_append_val(wishes, wish);
    if (wish.op == DISK_FLUSH) {
        g_assert_cmpint(transfer(&history->owner, DISK_FLUSH, 0, NULL, 0), ==, 0);
        struct flush flush = { wishes->len, host.calls->len, g_memdup2(history->model, DISK) };
        g_array_append_val(flushes, flush);
        return;
    }
    if (wish.op == DISK_WRITE)
        fill(history->model + wish.at, wish.at, wish.length, round);
    else if (wish.op == DISK_WRITE_ZEROES)
        memset(history->model + wish.at, 0, wish.length);
    memcpy(history->data, history->model + wish.at, wish.length);
    g_assert_cmpint(transfer(&history->owner, wish.op, wish.at,
                             wish.op == DISK_WRITE ? history->data : NULL, wish.length),
                    ==, 0);
    if (wish.op == DISK_DISCARD)
        learn_discard(history, wish.at, wish.length);
}

static void power_cuts(gconstpointer data)
{
    const unsigned cuts = g_test_slow() ? 1000 : 12;
    g_autofree char *path = path_of("cut.qcow2"), *below = path_of("below.raw"), *all = NULL;
    GArray *wishes = g_array_new(false, false, sizeof(struct wish));
    GArray *flushes = g_array_new(false, false, sizeof(struct flush));
    struct history history = {
        .rand = g_rand_new_with_seed(g_test_rand_int() >> 1),
        .model = g_malloc0(DISK),
        .data = g_malloc(DISK),
        .path = path,
        .below = below,
        .shape = data,
        .disk = DISK,
    };
    gsize length = 0;
    if (!have_judge())
        return;
    prepare(&history);
    g_assert_true(g_file_get_contents(path, &all, &length, NULL));
    GByteArray *base = g_byte_array_new();
    g_byte_array_append(base, (uint8_t *)all, (guint)length);
    struct flush nothing = { 0, 0, g_memdup2(history.model, DISK) };
    g_array_append_val(flushes, nothing);
    host.calls = g_array_new(false, false, sizeof(struct host_call));
    g_array_set_clear_func(host.calls, clear_call);
    open_on_host(&history);
    for (unsigned round = 1; round <= 80; round++)
        ask(&history, wishes, flushes, round);
    disk_free(history.owner.disk);
    history.owner.disk = NULL;
    for (unsigned i = 0; i < cuts; i++)
        cut(&history, base, wishes, flushes);
    for (guint i = 0; i < flushes->len; i++)
        g_free(g_array_index(flushes, struct flush, i).model);
    g_array_unref(host.calls);
    host.calls = NULL;
    g_array_unref(wishes);
    g_array_unref(flushes);
    g_byte_array_unref(base);
    g_rand_free(history.rand);
    g_free(history.model);
    g_free(history.data);
    g_unlink(path);
    g_unlink(below);
}

/* --- host errors ----------------------------------------------------------------------------- */

/* One call to the host fails; what the guest was told failed may be there or not, all else is. */
static void one_failure(struct history *history, unsigned which, int error)
{
    g_autofree uint8_t *before = g_malloc(DISK);
    static const uint8_t zeros[512];
    memset(history->model, 0, DISK);
    prepare(history);
    open_on_host(history);
    host.fail = which;
    host.error = error;
    host.lost = false;
    for (unsigned round = 1; round <= 30; round++) {
        static const enum disk_op ops[] = { DISK_WRITE, DISK_FLUSH,   DISK_WRITE,       DISK_READ,
                                            DISK_WRITE, DISK_DISCARD, DISK_WRITE_ZEROES };
        enum disk_op op = ops[g_rand_int_range(history->rand, 0, (int)G_N_ELEMENTS(ops))];
        size_t at, length;
        pick(history, &at, &length);
        if (op == DISK_FLUSH)
            at = length = 0;
        memcpy(before, history->model, DISK);
        if (op == DISK_WRITE)
            fill(history->model + at, at, length, round);
        if (op == DISK_WRITE_ZEROES)
            memset(history->model + at, 0, length);
        memcpy(history->data, history->model + at, length);
        bool moves = op == DISK_READ || op == DISK_WRITE;
        int failed = transfer(&history->owner, op, at, moves ? history->data : NULL, length);
        g_assert_true(!failed || failed == EIO || failed == error);
        if (op == DISK_READ && !failed)
            g_assert_true(!memcmp(history->data, history->model + at, length));
        if (op == DISK_READ || op == DISK_FLUSH)
            continue;
        unsigned left = host.fail;
        host.fail = 0;
        g_assert_cmpint(transfer(&history->owner, DISK_READ, at, history->data, length), ==, 0);
        host.fail = left;
        for (size_t i = 0; i < length; i += 512) {
            const uint8_t *now = history->data + i;
            bool good = !memcmp(now, history->model + at + i, 512);
            if (failed || op == DISK_DISCARD)
                good = good || !memcmp(now, before + at + i, 512) || !memcmp(now, zeros, 512);
            if (!good)
                g_error("%s: sector %zu after call %u failed", history->shape->name, (at + i) / 512,
                        which);
        }
        memcpy(history->model + at, history->data, length);
    }
    host.fail = 0;
    reopen(history);
    if (!host.lost)
        check_read(history, 0, DISK);
    disk_free(history->owner.disk);
    history->owner.disk = NULL;
    struct format_report report;
    struct disk *look = open_file(history->path, true);
    g_assert_true(qcow2_check(look, history->path, false, &report, NULL));
    g_assert_cmpuint(report.corruptions, ==, 0);
    if (!strstr(history->shape->name, "v2"))
        g_assert_cmpuint(report.leaks, ==, 0);
    disk_free(look);
    g_unlink(history->path);
}

static void host_errors(gconstpointer data)
{
    static const int errors[] = { EIO, ENOSPC };
    g_autofree char *path = path_of("errors.qcow2"), *below = path_of("below.raw");
    struct history history = {
        .rand = g_rand_new_with_seed(g_test_rand_int() >> 1),
        .model = g_malloc0(DISK),
        .data = g_malloc(DISK),
        .path = path,
        .below = below,
        .shape = data,
        .disk = DISK,
    };
    if (!have_judge())
        return;
    unsigned step_ = g_test_slow() ? 1 : 13;
    for (unsigned which = 1 + g_test_rand_int() % step_ % 13; which < 120; which += step_)
        one_failure(&history, which, errors[which / step_ % 2]);
    g_rand_free(history.rand);
    g_free(history.model);
    g_free(history.data);
    g_unlink(below);
}

/* --- snapshots ------------------------------------------------------------------------------- */

static void snapshots(gconstpointer data)
{
    const struct shape *shape = data;
    g_autofree char *path = path_of("snapshot.qcow2"), *below = path_of("below.raw");
    g_autofree uint8_t *then = NULL;
    g_autoptr(GError) error = NULL;
    struct qcow2_info info;
    struct history history = {
        .rand = g_rand_new_with_seed(g_test_rand_int() >> 1),
        .model = g_malloc0(DISK),
        .data = g_malloc(DISK),
        .path = path,
        .below = below,
        .shape = shape,
        .disk = DISK,
    };
    if (!have_judge())
        return;
    prepare(&history);
    for (unsigned part = 0; part < 3; part++) {
        reopen(&history);
        for (unsigned round = 1; round <= 100; round++)
            step(&history, part * 1000 + round);
        disk_free(history.owner.disk);
        history.owner.disk = NULL;
        judge(path);
        if (part == 0) {
            then = g_memdup2(history.model, DISK);
            g_assert_cmpint(run(NULL, "qemu-img snapshot -c first %s", path), ==, 0);
        }
    }
    struct disk *file = open_file(path, true);
    g_assert_true(qcow2_get_info(file, path, &info, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(info.snapshots->len, ==, 1);
    const struct qcow2_snapshot *snapshot =
        &g_array_index(info.snapshots, struct qcow2_snapshot, 0);
    g_assert_cmpstr(snapshot->name, ==, "first");
    g_assert_cmpstr(snapshot->id, ==, "1");
    g_assert_cmpuint(snapshot->size, ==, DISK);
    g_array_unref(info.snapshots);

    struct format_parts parts = { path, file, shape->below ? open_file(below, true) : NULL, NULL,
                                  0 };
    g_assert_null(qcow2_open_snapshot(&parts, "second", &error));
    g_assert_nonnull(strstr(error->message, "no snapshot second"));
    g_clear_error(&error);
    struct disk *disk = qcow2_open_snapshot(&parts, "first", &error);
    g_assert_no_error(error);
    g_assert_true(disk->readonly);
    own(&history.owner, disk);
    g_assert_cmpint(transfer(&history.owner, DISK_READ, 0, history.data, DISK), ==, 0);
    g_assert_cmpmem(history.data, DISK, then, DISK);
    disk_free(disk);
    g_assert_cmpint(run(NULL, "qemu-img snapshot -a first %s", path), ==, 0);
    judge(path);
    compare(path, then, DISK);
    g_rand_free(history.rand);
    g_free(history.model);
    g_free(history.data);
    g_unlink(path);
    g_unlink(below);
}

/* --- other sizes -------------------------------------------------------------------------------
 */

static void sizes(gconstpointer data)
{
    const struct shape *shape = data;
    g_autofree char *path = path_of("size.qcow2"), *below = path_of("below.raw");
    static const size_t sizes_[] = { DISK + 512 * 7, 40 << 20, 2 << 20, 1024 * 1024 + 1536, DISK };
    const size_t most = 40 << 20;
    struct history history = {
        .rand = g_rand_new_with_seed(g_test_rand_int() >> 1),
        .model = g_malloc0(most),
        .data = g_malloc(most),
        .path = path,
        .below = below,
        .shape = shape,
        .disk = DISK,
    };
    if (!have_judge())
        return;
    prepare(&history);
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes_); i++) {
        reopen(&history);
        for (unsigned round = 1; round <= 60; round++)
            step(&history, i * 1000 + round);
        disk_drain(history.owner.disk);
        int error = qcow2_format.resize(history.owner.disk, sizes_[i]);
        g_assert_cmpint(error, ==, 0);
        if (sizes_[i] < history.disk)
            memset(history.model + sizes_[i], 0, most - sizes_[i]);
        history.disk = sizes_[i];
        check_read(&history, 0, history.disk);
        disk_free(history.owner.disk);
        history.owner.disk = NULL;
        judge(path);
        compare(path, history.model, history.disk);
    }
    g_rand_free(history.rand);
    g_free(history.model);
    g_free(history.data);
    g_unlink(path);
    g_unlink(below);
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
    g_autofree char *path = path_of("refused.qcow2");
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        uint64_t value = big(cases[i].value, cases[i].bytes);
        g_autoptr(GError) error = NULL;
        put_image(path, cases[i].at, &value, cases[i].bytes);
        struct disk *disk = try_open(path, false, NULL, &error);
        g_assert_null(disk);
        if (!strstr(error->message, cases[i].message))
            g_error("case %u: %s", i, error->message);
        g_clear_error(&error);
        disk = try_open(path, true, NULL, &error);
        g_assert_cmpint(!disk, ==, !cases[i].readable);
        disk_free(disk);
    }
    g_unlink(path);
}

/* A feature is refused by the name that the image has for it. */
static void names_features(void)
{
    g_autofree char *path = path_of("feature.qcow2"), *all = NULL;
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
    g_assert_null(try_open(path, true, NULL, &error));
    g_assert_nonnull(strstr(error->message, "time?travel (bit 9)"));
    g_unlink(path);
}

static void backing_links(void)
{
    g_autofree char *path = path_of("links.qcow2");
    g_autoptr(GPtrArray) links = g_ptr_array_new_with_free_func(format_link_free);
    g_autoptr(GError) error = NULL;
    put_image(path, 0, "QFI", 3);
    struct disk *file = open_file(path, true);
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
    g_autofree char *path = path_of("damaged.qcow2"), *all = NULL;
    uint8_t data[4096] = { 7 };
    gsize size = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(entries); i++) {
        struct owner owner;
        g_autoptr(GError) error = NULL;
        g_clear_pointer(&all, g_free);
        put_image(path, 0, "QFI", 3);
        open_disk(&owner, path, false, NULL);
        g_assert_cmpint(transfer(&owner, DISK_WRITE, 0, data, 4096), ==, 0);
        disk_free(owner.disk);
        g_assert_true(g_file_get_contents(path, &all, &size, NULL));
        uint64_t l1 = 0, bad = htobe64(entries[i]);
        memcpy(&l1, all + 40, 8);
        memcpy(&l1, all + be64toh(l1), 8);
        memcpy(all + (be64toh(l1) & ~ENTRY_COPIED_) + 8, &bad, 8); /* of the second cluster */
        g_assert_true(g_file_set_contents(path, all, (gssize)size, NULL));

        open_disk(&owner, path, false, NULL);
        g_assert_cmpint(transfer(&owner, DISK_READ, 0, data, 4096), ==, 0);
        g_assert_cmpint(data[0], ==, 7);
        g_assert_cmpint(transfer(&owner, DISK_READ, 4096, data, 4096), ==, EIO);
        g_assert_cmpint(transfer(&owner, DISK_WRITE, 0, data, 512), ==, EIO);
        g_assert_cmpint(transfer(&owner, DISK_WRITE, 65536, data, 4096), ==, EIO);
        g_assert_cmpint(transfer(&owner, DISK_READ, 0, data, 4096), ==, 0);
        disk_free(owner.disk);
        g_assert_null(try_open(path, false, NULL, &error));
        g_assert_nonnull(strstr(error->message, "marked as damaged"));
    }
    g_unlink(path);
}

/* A refcount of 0 for what is in use must not lead to its being used twice. */
static void tables_are_not_overwritten(void)
{
    g_autofree char *path = path_of("overlap.qcow2");
    uint8_t data[4096] = { 7 };
    struct owner owner;
    struct format_report report;
    uint16_t none = 0;
    for (unsigned cluster = 0; cluster < 4; cluster++) {
        put_image(path, 2 * 4096 + cluster * 2, &none, 2);
        open_disk(&owner, path, false, NULL);
        g_assert_cmpint(transfer(&owner, DISK_WRITE, 0, data, 4096), ==, EIO);
        disk_free(owner.disk);
        struct disk *file = open_file(path, false);
        g_assert_true(qcow2_check(file, path, true, &report, NULL));
        g_assert_cmpuint(report.corruptions, ==, 1);
        g_assert_cmpuint(report.corruptions_fixed, ==, 1);
        disk_free(file);
        open_disk(&owner, path, false, NULL); /* not marked any more */
        g_assert_cmpint(transfer(&owner, DISK_WRITE, 0, data, 4096), ==, 0);
        disk_free(owner.disk);
    }
    g_unlink(path);
}

/* All of the refcounts lost: they are made anew. */
static void repairs(gconstpointer data)
{
    const struct shape *shape = data;
    g_autofree char *path = path_of("repair.qcow2"), *below = path_of("below.raw"), *all = NULL;
    gsize size = 0;
    struct format_report report;
    g_autoptr(GError) error = NULL;
    struct history history = {
        .rand = g_rand_new_with_seed(g_test_rand_int() >> 1),
        .model = g_malloc0(DISK),
        .data = g_malloc(DISK),
        .path = path,
        .below = below,
        .shape = shape,
        .disk = DISK,
    };
    if (!have_judge())
        return;
    prepare(&history);
    reopen(&history);
    for (unsigned round = 1; round <= 100; round++)
        step(&history, round);
    disk_free(history.owner.disk);
    history.owner.disk = NULL;
    g_assert_true(g_file_get_contents(path, &all, &size, NULL));
    uint64_t table = 0;
    memcpy(&table, all + 48, 8);
    memset(all + be64toh(table), g_rand_boolean(history.rand) ? 0 : 0x41, 64);
    g_assert_true(g_file_set_contents(path, all, (gssize)size, NULL));
    struct disk *file = open_file(path, false);
    g_assert_true(qcow2_check(file, path, true, &report, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(report.corruptions, >, 0);
    g_assert_cmpuint(report.corruptions_fixed, ==, report.corruptions);
    disk_free(file);
    judge(path);
    compare(path, history.model, DISK);
    g_rand_free(history.rand);
    g_free(history.model);
    g_free(history.data);
    g_unlink(path);
    g_unlink(below);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    folder = g_mkdtemp(g_strdup("/dev/shm/hv-qcow2-XXXXXX")); /* thousands of flushes */
    if (!folder)
        folder = g_dir_make_tmp("hv-qcow2-XXXXXX", NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(shapes); i++) {
        g_autofree char *path = g_strconcat("/qcow2/history/", shapes[i].name, NULL);
        g_test_add_data_func(path, &shapes[i], random_history);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(shapes); i++) {
        g_autofree char *path = g_strconcat("/qcow2/power-cut/", shapes[i].name, NULL);
        g_test_add_data_func(path, &shapes[i], power_cuts);
    }
    static const struct {
        const char *name;
        GTestDataFunc run;
    } for_all[] = {
        { "host-errors", host_errors },
        { "snapshots", snapshots },
        { "sizes", sizes },
        { "repairs", repairs },
    };
    for (unsigned k = 0; k < G_N_ELEMENTS(for_all); k++)
        for (unsigned i = 0; i < G_N_ELEMENTS(shapes); i++) {
            g_autofree char *path =
                g_strconcat("/qcow2/", for_all[k].name, "/", shapes[i].name, NULL);
            if (for_all[k].run != snapshots || shapes[i].made.refcount != 1)
                g_test_add_data_func(path, &shapes[i], for_all[k].run);
        }
    g_test_add_func("/qcow2/refusals", refusals);
    g_test_add_func("/qcow2/names-features", names_features);
    g_test_add_func("/qcow2/backing-links", backing_links);
    g_test_add_func("/qcow2/damage-is-contained", damage_is_contained);
    g_test_add_func("/qcow2/tables-are-not-overwritten", tables_are_not_overwritten);
    int result = g_test_run();
    g_rmdir(folder);
    g_free(folder);
    return result;
}
