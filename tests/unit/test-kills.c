/* Programs that are killed in the midst of writing to a qcow2 image: what was flushed is there, and
 * the image is right. `-m slow` kills a thousand. */
#include "block/chain.h"
#include "block/disk.h"
#include "block/format.h"
#include "block/qcow2.h"
#include "block/raw.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECTORS = 16384, MOST = 300 /* sectors of an operation */, MAX_US = 40000 };

/* What the victim has begun, and what of that was flushed: operations, counted from 1. */
struct progress {
    gint begun, flushed; /* atomic */
};

struct operation {
    enum disk_op op;
    uint64_t first, count; /* sectors */
};

/* The same for the same number, so the judge knows what the victim did. */
static struct operation operation(unsigned seed, unsigned number)
{
    static const enum disk_op ops[] = { DISK_WRITE, DISK_WRITE,        DISK_WRITE, DISK_FLUSH,
                                        DISK_WRITE, DISK_WRITE_ZEROES, DISK_WRITE, DISK_DISCARD };
    const guint32 seeds[] = { seed, number };
    GRand *rand = g_rand_new_with_seed_array(seeds, 2);
    struct operation operation = {
        .op = ops[g_rand_int_range(rand, 0, G_N_ELEMENTS(ops))],
        .first = (uint64_t)g_rand_int_range(rand, 0, SECTORS - MOST),
        .count = (uint64_t)g_rand_int_range(rand, 1, MOST),
    };
    if (operation.op == DISK_DISCARD || g_rand_int_range(rand, 0, 4) == 0) {
        operation.first = operation.first / 128 * 128;
        operation.count = 128;
    }
    g_rand_free(rand);
    return operation;
}

static struct disk *open_image(const char *path)
{
    g_autoptr(GError) error = NULL;
    const struct chain_rules rules = { .format = "qcow2" };
    g_autoptr(image_chain) chain = chain_open(path, &rules, &error);
    g_assert_no_error(error);
    struct disk *disk = chain_disk(chain, &error);
    g_assert_no_error(error);
    return disk;
}

static void carry_out(struct disk *disk, const struct operation *o, unsigned number)
{
    static uint32_t data[MOST][SECTOR / sizeof(uint32_t)];
    struct iovec iov = { data, o->count * SECTOR };
    struct disk_request request = { .op = o->op };
    if (o->op != DISK_FLUSH) {
        request.offset = o->first * SECTOR;
        request.length = o->count * SECTOR;
    }
    for (uint64_t i = 0; i < o->count && o->op == DISK_WRITE; i++)
        data[i][0] = data[i][127] = number;
    if (o->op == DISK_WRITE) {
        request.iov = &iov;
        request.iov_count = 1;
    }
    g_assert_cmpint(disk_now(disk, &request), ==, 0);
}

G_NORETURN static void victim(const char *path, unsigned seed, unsigned number,
                              struct progress *progress)
{
    struct disk *disk = open_image(path);
    for (;; number++) {
        struct operation o = operation(seed, number);
        g_atomic_int_set(&progress->begun, (gint)number);
        carry_out(disk, &o, number);
        if (o.op == DISK_FLUSH)
            g_atomic_int_set(&progress->flushed, (gint)number);
    }
}

/* Each sector is what it was at the last flush, or what an operation after that made of it. `now`
 * gets what it is. */
static void judge(struct disk *disk, unsigned seed, unsigned first, const struct progress *progress,
                  uint32_t *now)
{
    g_autofree uint32_t *flushed = g_memdup2(now, SECTORS * sizeof *now);
    g_autofree uint8_t *zeroed = g_malloc0(SECTORS);
    g_autofree uint32_t *data = g_malloc(SECTORS * SECTOR);
    unsigned kept = (unsigned)progress->flushed, last = (unsigned)progress->begun;
    for (unsigned n = first; n <= kept; n++) {
        struct operation o = operation(seed, n);
        /* A discard may leave what was there. */
        for (uint64_t s = o.first; o.op != DISK_FLUSH && s < o.first + o.count; s++) {
            zeroed[s] = o.op == DISK_DISCARD;
            flushed[s] = o.op == DISK_WRITE ? n : o.op == DISK_DISCARD ? flushed[s] : 0;
        }
    }
    g_assert_cmpint(disk_read(disk, data, SECTORS * SECTOR, 0), ==, 0);
    for (uint64_t s = 0; s < SECTORS; s++) {
        uint32_t is = data[s * SECTOR / 4];
        bool good = is == flushed[s] || (!is && zeroed[s]);
        for (unsigned n = MAX(first, kept + 1); n <= last && !good; n++) {
            struct operation o = operation(seed, n);
            bool here = o.op != DISK_FLUSH && s >= o.first && s < o.first + o.count;
            good = here && is == (o.op == DISK_WRITE ? n : 0);
        }
        if (!good)
            g_error("sector %" G_GUINT64_FORMAT " is of %u, was of %u at flush %u of %u", s, is,
                    flushed[s], kept, last);
        now[s] = is;
    }
}

static void check(const char *path)
{
    struct format_report report;
    g_autoptr(GError) error = NULL;
    struct disk *file = raw_open(open(path, O_RDONLY | O_CLOEXEC), path, true, &error);
    g_assert_no_error(error);
    qcow2_check(file, path, false, &report, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(report.corruptions, ==, 0);
    g_assert_cmpuint(report.leaks, ==, 0);
    disk_free(file);
}

static void kills(gconstpointer options)
{
    char path[] = "/var/tmp/hv-kills-XXXXXX";
    g_autoptr(GError) error = NULL;
    g_autofree uint32_t *now = g_new0(uint32_t, SECTORS);
    unsigned seed = g_test_rand_int() & INT_MAX, rounds = g_test_slow() ? 250 : 12, first = 1;
    struct progress *progress =
        mmap(NULL, sizeof *progress, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int fd = mkstemp(path);
    g_assert_true(qcow2_create(fd, path, options, &error));
    close(fd);
    for (unsigned i = 0; i < rounds; i++, first = (unsigned)progress->begun + 1) {
        *progress = (struct progress){ (gint)first - 1, (gint)first - 1 };
        pid_t pid = fork();
        if (pid == 0)
            victim(path, seed, first, progress);
        while (g_atomic_int_get(&progress->begun) < (gint)first)
            g_usleep(100);
        g_usleep((gulong)g_test_rand_int_range(0, MAX_US));
        int status = 0;
        kill(pid, SIGKILL);
        g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
        g_assert_true(WIFSIGNALED(status));
        struct disk *disk = open_image(path); /* which mends what is to be mended */
        judge(disk, seed, first, progress, now);
        disk_free(disk);
        check(path);
    }
    munmap(progress, sizeof *progress);
    g_unlink(path);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        struct qcow2_options options;
    } images[] = {
        { "/kills/plain", { .size = SECTORS * SECTOR } },
        { "/kills/small-clusters", { .size = SECTORS * SECTOR, .cluster = 4096 } },
        { "/kills/subclusters", { .size = SECTORS * SECTOR, .extended = true } },
        { "/kills/lazy", { .size = SECTORS * SECTOR, .lazy = true } },
    };
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(images); i++)
        g_test_add_data_func(images[i].name, &images[i].options, kills);
    return g_test_run();
}
