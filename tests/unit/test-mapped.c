/* The disk over a format's map: requests that lie in several pieces go to them in parts, and to the
 * thread only when they must. The format here has granule i of the disk, by i % 4: in the file,
 * from the end backwards (0, 1), in the disk below (2), nowhere (3). */
#include "block/mapped.h"
#include "block/raw.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

enum { GRANULE = 4096, GRANULES = 64, SIZE = GRANULE * GRANULES, BELOW = SIZE - 16 * GRANULE };

struct toy {
    struct mapped mapped;
    unsigned asked; /* by the thread */
};

static bool toy_peek(struct mapped *mapped, uint64_t offset, uint64_t length, struct extent *extent)
{
    static const enum extent_kind kinds[] = { EXTENT_DATA, EXTENT_DATA, EXTENT_BELOW, EXTENT_ZERO };
    uint64_t i = offset / GRANULE, within = offset % GRANULE;
    (void)mapped;
    (void)length;
    *extent = (struct extent){
        .kind = kinds[i % 4],
        .writable = true,
        .length = GRANULE - within,
        .at = SIZE - (i + 1) * GRANULE + within,
    };
    return true;
}

static int toy_map(struct mapped *mapped, uint64_t offset, uint64_t length, struct extent *extent)
{
    ((struct toy *)mapped)->asked++;
    toy_peek(mapped, offset, length, extent);
    return 0;
}

static const struct mapped_format toy_format = { .name = "toy", .peek = toy_peek, .map = toy_map };

/* --- the disk, and a model of it ---------------------------------------------------------------
 */

struct fixture {
    GMutex lock;
    GCond cond;
    struct disk *disk, *file;
    unsigned in_flight, failed;
    uint8_t model[SIZE];
};

static struct disk *make_file(uint8_t seed, uint64_t size)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = NULL;
    g_autofree uint8_t *data = g_malloc(size);
    int fd = g_file_open_tmp("hv-mapped-XXXXXX", &path, &error);
    g_assert_no_error(error);
    g_unlink(path);
    for (uint64_t i = 0; i < size; i++)
        data[i] = (uint8_t)(seed + i / 512 * 7 + i);
    g_assert_cmpint(pwrite(fd, data, size, 0), ==, (ssize_t)size);
    struct disk *disk = raw_open(fd, "part", false, &error);
    g_assert_no_error(error);
    return disk;
}

static void set_up(struct fixture *f, gconstpointer data)
{
    struct toy *toy = g_new0(struct toy, 1);
    struct disk *below = make_file(101, BELOW);
    (void)data;
    f->file = make_file(3, SIZE);
    g_assert_true(mapped_init(&toy->mapped, &toy_format, "toy", f->file, below, GRANULE));
    f->disk = &toy->mapped.worker.disk;
    f->disk->size = SIZE;
    g_mutex_init(&f->lock);
    g_cond_init(&f->cond);
    disk_attach(f->disk, &f->lock, NULL);
    g_assert_cmpint(disk_read(f->disk, f->model, SIZE, 0), ==, 0);
    toy->asked = 0;
}

static void tear_down(struct fixture *f, gconstpointer data)
{
    (void)data;
    disk_free(f->disk);
    g_mutex_clear(&f->lock);
    g_cond_clear(&f->cond);
}

static unsigned asked(const struct fixture *f)
{
    return ((struct toy *)f->disk)->asked;
}

struct wish {
    struct disk_request request;
    struct iovec iov[3];
    struct fixture *fixture;
    unsigned answers;
};

static void on_done(struct disk_request *request, int error)
{
    struct wish *wish = request->owner;
    wish->answers++;
    wish->fixture->failed += error != 0;
    wish->fixture->in_flight--;
    g_cond_signal(&wish->fixture->cond);
}

static void ask(struct fixture *f, struct wish *wish, enum disk_op op, uint64_t offset, void *data,
                uint64_t length)
{
    uint8_t *at = data;
    size_t part = length / 3;
    *wish = (struct wish){
        .request = { .op = op,
                     .offset = offset,
                     .length = length,
                     .iov = wish->iov,
                     .iov_count = 3,
                     .done = on_done,
                     .owner = wish },
        .iov = { { at, part }, { at + part, part }, { at + 2 * part, length - 2 * part } },
        .fixture = f,
    };
    f->in_flight++;
    disk_submit(f->disk, &wish->request);
}

static void wait(struct fixture *f)
{
    disk_kick(f->disk);
    while (f->in_flight)
        g_cond_wait(&f->cond, &f->lock);
}

static void transfer(struct fixture *f, enum disk_op op, uint64_t offset, void *data,
                     uint64_t length)
{
    struct wish wish;
    g_mutex_lock(&f->lock);
    ask(f, &wish, op, offset, data, length);
    wait(f);
    g_assert_cmpuint(wish.answers, ==, 1);
    g_mutex_unlock(&f->lock);
}

/* --- tests -------------------------------------------------------------------------------------
 */

static void read_in_parts(struct fixture *f, gconstpointer data)
{
    uint8_t got[SIZE];
    (void)data;
    /* Data, data, below, zeros; two such rows would be six parts and two of zeros. */
    for (uint64_t at = 0; at + 8 * GRANULE <= SIZE; at += 1536) {
        memset(got, 0xee, sizeof got);
        transfer(f, DISK_READ, at, got, 8 * GRANULE);
        g_assert_cmpmem(got, 8 * GRANULE, f->model + at, 8 * GRANULE);
    }
    g_assert_cmpuint(asked(f), ==, 0);
    g_assert_cmpuint(f->failed, ==, 0);
}

static void write_in_parts(struct fixture *f, gconstpointer data)
{
    uint8_t some[GRANULE], got[SIZE];
    (void)data;
    memset(some, 0x5a, sizeof some);
    transfer(f, DISK_WRITE, GRANULE / 2, some, GRANULE);
    g_assert_cmpuint(asked(f), ==, 0);
    memcpy(f->model + GRANULE / 2, some, GRANULE);
    g_assert_cmpint(disk_read(f->disk, got, SIZE, 0), ==, 0);
    g_assert_cmpmem(got, SIZE, f->model, SIZE);
}

static void many_pieces_are_for_the_thread(struct fixture *f, gconstpointer data)
{
    uint8_t got[SIZE];
    (void)data;
    transfer(f, DISK_READ, 0, got, SIZE);
    g_assert_cmpuint(asked(f), >, 0);
    g_assert_cmpmem(got, SIZE, f->model, SIZE);
}

static void zeros_alone_have_an_end(struct fixture *f, gconstpointer data)
{
    uint8_t got[2 * GRANULE];
    uint64_t at = BELOW + 2 * GRANULE; /* where the disk below has ended */
    (void)data;
    memset(got, 0xee, sizeof got);
    transfer(f, DISK_READ, at, got, sizeof got);
    g_assert_cmpmem(got, sizeof got, f->model + at, sizeof got);
    g_assert_cmpuint(got[0], ==, 0);
}

/* More at once than there is room to cut. */
static void all_at_once(struct fixture *f, gconstpointer data)
{
    enum { MANY = 200 };
    struct wish *wishes = g_new0(struct wish, MANY);
    uint8_t *got = g_malloc(MANY * 2 * GRANULE);
    (void)data;
    g_mutex_lock(&f->lock);
    for (unsigned i = 0; i < MANY; i++)
        ask(f, &wishes[i], DISK_READ, i * 512, got + (size_t)i * 2 * GRANULE, 2 * GRANULE);
    wait(f);
    g_mutex_unlock(&f->lock);
    for (unsigned i = 0; i < MANY; i++) {
        g_assert_cmpuint(wishes[i].answers, ==, 1);
        g_assert_cmpmem(got + (size_t)i * 2 * GRANULE, 2 * GRANULE, f->model + (size_t)i * 512,
                        2 * GRANULE);
    }
    g_assert_cmpuint(f->failed, ==, 0);
    g_free(got);
    g_free(wishes);
}

static ssize_t no_end(int fd, const struct iovec *iov, int count, off_t offset)
{
    errno = EIO;
    return offset >= SIZE - GRANULE ? -1 : preadv(fd, iov, count, offset);
}

/* The first granule lies at the end of the file. */
static int bad_result(struct disk_request *request, int result)
{
    return request->at >= SIZE - GRANULE ? -EIO : result;
}

static void a_part_fails(struct fixture *f, gconstpointer data)
{
    struct raw_io io = raw_system_io;
    uint8_t got[4 * GRANULE];
    (void)data;
    io.readv = no_end;
    io.result = bad_result;
    raw_set_io(f->file, &io);
    transfer(f, DISK_READ, 0, got, sizeof got);
    g_assert_cmpuint(f->failed, ==, 1);
    transfer(f, DISK_READ, GRANULE, got, sizeof got);
    g_assert_cmpuint(f->failed, ==, 1);
    g_assert_cmpmem(got, sizeof got, f->model + GRANULE, sizeof got);
    g_assert_cmpuint(asked(f), ==, 0);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *path;
        void (*run)(struct fixture *f, gconstpointer data);
    } tests[] = {
        { "/mapped/read-in-parts", read_in_parts },
        { "/mapped/write-in-parts", write_in_parts },
        { "/mapped/many-pieces-are-for-the-thread", many_pieces_are_for_the_thread },
        { "/mapped/zeros-alone-have-an-end", zeros_alone_have_an_end },
        { "/mapped/all-at-once", all_at_once },
        { "/mapped/a-part-fails", a_part_fails },
    };
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add(tests[i].path, struct fixture, NULL, set_up, tests[i].run, tear_down);
    return g_test_run();
}
