/* Programs that are killed in the midst of their work on a qcow2 image: a guest's writes, and the
 * verbs of hv image. What was flushed is there, the image is right, and what it is made into is
 * there as a whole or not at all. `-m slow` kills 250 for each kind of image. */
#include "block/chain.h"
#include "block/disk.h"
#include "block/format.h"
#include "block/qcow2.h"
#include "block/raw.h"
#include "rig/image.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SECTORS = 16384,
    LARGEST = 24576,
    MOST = 300, /* sectors of an operation */
    FIRST_US = 40000,
    KILLS = 6,
    SLOW_KILLS = 250,
};

/* What the victim has begun, and what of that was flushed: operations, counted from 1. */
struct progress {
    gint begun, flushed; /* atomic */
};

/* An image, and what is known of it. */
struct life {
    char *path, *below, *other, *target;
    bool over, snapshots;
    unsigned seed, first;   /* number of the operation that comes next */
    uint64_t sectors, wish; /* it has; shall have */
    uint32_t *now;          /* what each sector has: the number of its operation */
    struct progress *progress;
    uint32_t *then; /* what the snapshot has */
    uint64_t then_sectors;
    uint32_t *copied; /* the target; NULL: there is none */
    uint64_t copied_sectors;
    GBytes *file; /* the image's, while nothing may change it */
};

/* --- a guest ---------------------------------------------------------------------------------- */

struct operation {
    enum disk_op op;
    uint64_t first, count; /* sectors */
    uint32_t value;
};

/* The same for the same number, so the judge knows what the victim did. */
static struct operation operation(const struct life *life, unsigned number)
{
    static const enum disk_op ops[] = { DISK_WRITE, DISK_WRITE,        DISK_WRITE, DISK_FLUSH,
                                        DISK_WRITE, DISK_WRITE_ZEROES, DISK_WRITE, DISK_DISCARD };
    const guint32 seeds[] = { life->seed, number };
    GRand *rand = g_rand_new_with_seed_array(seeds, 2);
    struct operation operation = {
        .op = ops[g_rand_int_range(rand, 0, G_N_ELEMENTS(ops))],
        .first = (uint64_t)g_rand_int_range(rand, 0, (gint32)life->sectors - MOST),
        .count = (uint64_t)g_rand_int_range(rand, 1, MOST),
    };
    if (operation.op == DISK_DISCARD || g_rand_int_range(rand, 0, 4) == 0) {
        operation.first = operation.first / 128 * 128;
        operation.count = 128;
    }
    if (operation.op == DISK_WRITE && g_rand_int_range(rand, 0, 8)) /* else zeros, to compact */
        operation.value = number;
    g_rand_free(rand);
    return operation;
}

static bool touches(const struct operation *o, uint64_t sector)
{
    return o->op != DISK_FLUSH && sector >= o->first && sector < o->first + o->count;
}

static struct disk *open_image(const char *path, bool readonly)
{
    g_autoptr(GError) error = NULL;
    const struct chain_rules rules = { .format = "qcow2", .readonly = readonly };
    g_autoptr(image_chain) chain = chain_open(path, &rules, &error);
    g_assert_no_error(error);
    struct disk *disk = chain_disk(chain, &error);
    g_assert_no_error(error);
    return disk;
}

static void carry_out(struct disk *disk, const struct operation *o)
{
    static uint32_t data[MOST][SECTOR / sizeof(uint32_t)];
    struct iovec iov = { data, o->count * SECTOR };
    struct disk_request request = { .op = o->op };
    if (o->op != DISK_FLUSH) {
        request.offset = o->first * SECTOR;
        request.length = o->count * SECTOR;
    }
    for (uint64_t i = 0; i < o->count && o->op == DISK_WRITE; i++)
        data[i][0] = data[i][127] = o->value;
    if (o->op == DISK_WRITE) {
        request.iov = &iov;
        request.iov_count = 1;
    }
    g_assert_cmpint(disk_now(disk, &request), ==, 0);
}

G_NORETURN static void guest(const struct life *life)
{
    struct disk *disk = open_image(life->path, false);
    for (unsigned number = life->first;; number++) {
        struct operation o = operation(life, number);
        g_atomic_int_set(&life->progress->begun, (gint)number);
        carry_out(disk, &o);
        if (o.op == DISK_FLUSH)
            g_atomic_int_set(&life->progress->flushed, (gint)number);
    }
}

/* --- judging ---------------------------------------------------------------------------------- */

static uint32_t *read_numbers(struct disk *disk)
{
    uint64_t sectors = disk->size / SECTOR;
    g_autofree uint32_t *data = g_malloc(disk->size);
    uint32_t *numbers = g_new0(uint32_t, LARGEST);
    g_assert_cmpuint(sectors, <=, LARGEST);
    g_assert_cmpint(disk_read(disk, data, disk->size, 0), ==, 0);
    for (uint64_t s = 0; s < sectors; s++) {
        numbers[s] = data[s * SECTOR / 4];
        g_assert_cmpuint(data[s * SECTOR / 4 + 127], ==, numbers[s]);
    }
    return numbers;
}

/* Each sector is what it was at the last flush, or what an operation after that made of it. */
static void judge_guest(struct life *life, const uint32_t *now)
{
    g_autofree uint8_t *zeroed = g_malloc0(LARGEST);
    unsigned kept = (unsigned)life->progress->flushed, last = (unsigned)life->progress->begun;
    for (unsigned n = life->first; n <= kept; n++) {
        struct operation o = operation(life, n);
        /* A discard may leave what was there. */
        for (uint64_t s = o.first; o.op != DISK_FLUSH && s < o.first + o.count; s++) {
            zeroed[s] = o.op == DISK_DISCARD;
            life->now[s] = o.op == DISK_DISCARD ? life->now[s] : o.value;
        }
    }
    for (uint64_t s = 0; s < life->sectors; s++) {
        bool good = now[s] == life->now[s] || (!now[s] && zeroed[s]);
        for (unsigned n = MAX(life->first, kept + 1); n <= last && !good; n++) {
            struct operation o = operation(life, n);
            good = touches(&o, s) && now[s] == o.value;
        }
        if (!good)
            g_error("sector %" G_GUINT64_FORMAT " is of %u, was of %u at flush %u of %u", s, now[s],
                    life->now[s], kept, last);
    }
    life->first = last + 1;
}

/* Another size, or the one it had; what was cut off may be there still. */
static void judge_size(struct life *life, const uint32_t *now, uint64_t sectors, bool finished)
{
    g_assert_true(sectors == life->wish || (!finished && sectors == life->sectors));
    uint64_t kept = MIN(life->wish, life->sectors);
    for (uint64_t s = 0; s < sectors; s++)
        g_assert_true(now[s] == life->now[s] || (s >= kept && !now[s]));
    life->sectors = sectors;
}

static bool same(const uint32_t *a, uint64_t a_sectors, const uint32_t *b, uint64_t b_sectors)
{
    return a && b && a_sectors == b_sectors && !memcmp(a, b, a_sectors * sizeof *a);
}

/* What was there, all of it, or all of the new one. */
static void judge_target(struct life *life, bool finished)
{
    if (!g_file_test(life->target, G_FILE_TEST_EXISTS)) {
        g_assert_true(!finished && !life->copied);
        return;
    }
    struct disk *disk = open_image(life->target, true);
    uint64_t sectors = disk->size / SECTOR;
    g_autofree uint32_t *is = read_numbers(disk);
    disk_free(disk);
    bool new = same(is, sectors, life->now, life->sectors);
    g_assert_true(new || (!finished && same(is, sectors, life->copied, life->copied_sectors)));
    image_check(life->target, false);
    g_free(life->copied);
    life->copied = g_steal_pointer(&is);
    life->copied_sectors = sectors;
}

static GBytes *bytes_of(const char *path)
{
    char *all = NULL;
    gsize length = 0;
    g_assert_true(g_file_get_contents(path, &all, &length, NULL));
    return g_bytes_new_take(all, length);
}

static void judge_snapshot(const struct life *life)
{
    struct format_parts parts = { life->path, image_open_file(life->path, true), NULL, NULL, 0 };
    g_autoptr(GError) error = NULL;
    struct disk *disk = qcow2_open_snapshot(&parts, "then", &error);
    g_assert_no_error(error);
    g_autofree uint32_t *numbers = read_numbers(disk);
    g_assert_true(same(numbers, disk->size / SECTOR, life->then, life->then_sectors));
    disk_free(disk);
}

/* --- victims ---------------------------------------------------------------------------------- */

/* What is done to an image until it is killed. The limit is of the time that it gets, and follows
 * from how long it takes. */
struct verb {
    const char *name;
    const char *arguments[4]; /* of hv image; NULL: a guest; @: the image, >: the target, #: a size,
                               * %: what it may lie on */
    bool resizes, converts;
    bool after_guest; /* which was killed too */
    bool over;        /* only what lies on another */
};

static const struct verb verbs[] = {
    { "guest", { NULL } },
    { "resize", { "resize", "@", "#", "--shrink" }, .resizes = true },
    { "convert", { "convert", "--force", "@", ">" }, .converts = true },
    { "compact", { "compact", "@" } },
    { "repair", { "check", "--repair", "@" }, .after_guest = true },
    { "commit", { "commit", "@" }, .over = true },
    { "rebase", { "rebase", "--backing", "%", "@" }, .over = true },
};

G_NORETURN static void run_verb(const struct life *life, const struct verb *verb)
{
    const char *argv[8] = { g_getenv("HV"), "image" };
    g_autofree char *size = g_strdup_printf("%" G_GUINT64_FORMAT, life->wish * SECTOR);
    for (unsigned i = 0; i < G_N_ELEMENTS(verb->arguments) && verb->arguments[i]; i++) {
        const char *a = verb->arguments[i];
        argv[i + 2] = *a == '@'   ? life->path
                      : *a == '>' ? life->target
                      : *a == '#' ? size
                      : *a == '%' ? (life->wish % 2 ? "below.qcow2" : "other.qcow2")
                                  : a;
    }
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    dup2(null, 1);
    execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

/* True: it was through before it could be killed. */
static bool kill_one(struct life *life, const struct verb *verb, unsigned *limit)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        if (verb->arguments[0])
            run_verb(life, verb);
        guest(life);
    }
    while (!verb->arguments[0] && g_atomic_int_get(&life->progress->begun) < (gint)life->first)
        g_usleep(100);
    g_usleep(
        (gulong)g_test_rand_int_range(g_test_rand_bit() ? (gint32)*limit / 2 : 0, (gint32)*limit));
    kill(pid, SIGKILL);
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    if (WIFSIGNALED(status)) {
        *limit = verb->arguments[0] ? *limit + *limit / 8 : *limit;
        return false;
    }
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 0);
    *limit = MAX(*limit - *limit / 8, 1000);
    return true;
}

static void remove_parts(const struct life *life)
{
    g_autofree char *folder = g_path_get_dirname(life->path);
    GDir *dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        if (strstr(name, ".part-"))
            g_unlink(path);
    }
    g_dir_close(dir);
}

/* True when it was killed. */
static bool round_of(struct life *life, const struct verb *verb, unsigned *limit)
{
    const gint none = (gint)life->first - 1;
    unsigned guest_limit = FIRST_US;
    *life->progress = (struct progress){ none, none };
    if (verb->after_guest)
        kill_one(life, &verbs[0], &guest_limit);
    if (verb->converts)
        life->file = bytes_of(life->path);
    life->wish = (uint64_t)g_test_rand_int_range(SECTORS / 2, LARGEST + 1);
    bool finished = kill_one(life, verb, limit);
    if (verb->converts) {
        g_autoptr(GBytes) file = bytes_of(life->path);
        g_assert_true(g_bytes_equal(file, life->file));
    }
    g_clear_pointer(&life->file, g_bytes_unref);

    struct disk *disk = open_image(life->path, false); /* which mends what is to be mended */
    uint64_t sectors = disk->size / SECTOR;
    g_autofree uint32_t *now = read_numbers(disk);
    disk_free(disk);
    if (verb->resizes)
        judge_size(life, now, sectors, finished);
    else if (verb->arguments[0] && !verb->after_guest)
        g_assert_true(same(now, sectors, life->now, life->sectors));
    else
        judge_guest(life, now);
    g_free(life->now);
    life->now = g_steal_pointer(&now);
    image_check(life->path, false);
    if (g_test_slow() && image_have_judge())
        image_judge(life->path);
    if (verb->converts)
        judge_target(life, finished);
    if (verb->over) {
        disk_free(open_image(life->below, false));
        disk_free(open_image(life->other, false));
        image_check(life->below, false);
        image_check(life->other, false);
    }
    if (life->then)
        judge_snapshot(life);
    remove_parts(life);
    return !finished;
}

/* --- lives ------------------------------------------------------------------------------------ */

struct kind {
    const char *name;
    struct qcow2_options options;
    bool over, snapshots;
};

static void make(const char *path, const struct qcow2_options *options)
{
    g_autoptr(GError) error = NULL;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    qcow2_create(fd, path, options, &error);
    g_assert_no_error(error);
    close(fd);
}

static void write_some(struct life *life, const char *path, unsigned count)
{
    struct disk *disk = open_image(path, false);
    for (unsigned i = 0; i < count; i++, life->first++) {
        struct operation o = operation(life, life->first);
        carry_out(disk, &o);
    }
    g_free(life->now);
    life->now = read_numbers(disk);
    disk_free(disk);
}

/* qemu-img makes it; hv keeps it. */
static void take_snapshot(struct life *life)
{
    if (life->then)
        g_assert_cmpint(image_run(NULL, "qemu-img snapshot -d then %s", life->path), ==, 0);
    g_assert_cmpint(image_run(NULL, "qemu-img snapshot -c then %s", life->path), ==, 0);
    g_free(life->then);
    life->then = g_memdup2(life->now, LARGEST * sizeof *life->now);
    life->then_sectors = life->sectors;
}

static void start(struct life *life, const struct kind *kind)
{
    struct qcow2_options options = kind->options;
    *life = (struct life){
        .path = image_path("image.qcow2"),
        .below = image_path("below.qcow2"),
        .other = image_path("other.qcow2"),
        .target = image_path("target.qcow2"),
        .seed = g_test_rand_int() & INT_MAX,
        .first = 1,
        .sectors = SECTORS,
        .now = g_new0(uint32_t, LARGEST),
    };
    life->progress = mmap(NULL, sizeof *life->progress, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    options.size = SECTORS * SECTOR;
    if (kind->over) {
        make(life->other, &options);
        write_some(life, life->other, 30);
        make(life->below, &options);
        write_some(life, life->below, 100);
        options.backing = "below.qcow2";
        options.format = "qcow2";
    }
    make(life->path, &options);
    if (kind->snapshots) {
        write_some(life, life->path, 100);
        take_snapshot(life);
    }
}

/* qemu-img sees the same, though of a snapshot no more than the disk has now. */
static void judge_at_end(const struct life *life, const char *which, const uint32_t *numbers,
                         uint64_t sectors)
{
    g_autofree char *raw = image_path("seen.raw");
    g_assert_cmpint(image_run(NULL, "qemu-img convert %s -O raw %s %s", which, life->path, raw), ==,
                    0);
    struct disk *disk = image_open_file(raw, true);
    g_autofree uint32_t *seen = read_numbers(disk);
    g_assert_cmpuint(disk->size, ==, life->sectors * SECTOR);
    sectors = MIN(sectors, life->sectors);
    g_assert_true(same(seen, sectors, numbers, sectors));
    disk_free(disk);
    g_unlink(raw);
}

static void end(struct life *life)
{
    g_unlink(life->path);
    g_unlink(life->below);
    g_unlink(life->other);
    g_unlink(life->target);
    g_free(life->path);
    g_free(life->below);
    g_free(life->other);
    g_free(life->target);
    g_free(life->now);
    g_free(life->then);
    g_free(life->copied);
    munmap(life->progress, sizeof *life->progress);
}

static void kills(gconstpointer data)
{
    const struct kind *kind = data;
    unsigned limits[G_N_ELEMENTS(verbs)], killed[G_N_ELEMENTS(verbs)] = { 0 }, count = 0;
    struct life life;
    if (!g_getenv("HV")) {
        g_test_skip("HV does not say where hv is (meson test does)");
        return;
    }
    if (kind->snapshots && !image_have_judge())
        return;
    for (unsigned i = 0; i < G_N_ELEMENTS(verbs); i++)
        limits[i] = FIRST_US;
    start(&life, kind);
    for (unsigned i = 0; count < (g_test_slow() ? SLOW_KILLS : KILLS); i++) {
        unsigned v = i % G_N_ELEMENTS(verbs);
        if (verbs[v].over && !kind->over)
            continue;
        bool dead = round_of(&life, &verbs[v], &limits[v]);
        count += dead;
        killed[v] += dead;
        if (kind->snapshots && i % 16 == 15)
            take_snapshot(&life);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(verbs); i++)
        g_test_message("%s: %u kills of %s", kind->name, killed[i], verbs[i].name);
    if (kind->snapshots) {
        judge_at_end(&life, "-f qcow2", life.now, life.sectors);
        judge_at_end(&life, "-f qcow2 -l snapshot.name=then", life.then, life.then_sectors);
    }
    end(&life);
}

int main(int argc, char **argv)
{
    static const struct kind kinds[] = {
        { "/kills/plain", { .cluster = 65536 } },
        { "/kills/small-clusters", { .cluster = 4096 } },
        { "/kills/subclusters", { .extended = true } },
        { "/kills/lazy", { .lazy = true } },
        { "/kills/over", { .cluster = 65536 }, .over = true },
        { "/kills/over-small-lazy", { .cluster = 8192, .lazy = true }, .over = true },
        { "/kills/snapshots", { .cluster = 65536 }, .snapshots = true },
        { "/kills/snapshots-small", { .cluster = 4096 }, .snapshots = true },
        { "/kills/snapshots-subclusters", { .extended = true }, .snapshots = true },
    };
    g_test_init(&argc, &argv, NULL);
    image_folder_make(IN_MEMORY);
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++)
        g_test_add_data_func(kinds[i].name, &kinds[i], kills);
    int result = g_test_run();
    image_folder_drop();
    return result;
}
