/* detect-zeroes: what is written and zero takes no room, and nothing else changes. */
#include "block/zeroes.h"

#include "block/disk.h"
#include "block/format.h"
#include "block/qcow2.h"
#include "block/raw.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE = 8 << 20 };

struct owner {
    GMutex lock;
    GCond cond;
    struct disk *disk, *image;
    int fd; /* of the file, beside the disk's own */
    unsigned finished;
    int error;
};

static void on_done(struct disk_request *request, int error)
{
    struct owner *owner = request->owner;
    owner->error = error ? error : owner->error;
    owner->finished++;
    g_cond_signal(&owner->cond);
}

static void start(struct owner *owner, struct disk_request *request, enum disk_op op,
                  uint64_t offset, struct iovec *iov, unsigned count)
{
    *request = (struct disk_request){
        .op = op, .offset = offset, .iov = iov, .iov_count = count, .done = on_done, .owner = owner
    };
    for (unsigned i = 0; i < count; i++)
        request->length += iov[i].iov_len;
    disk_submit(owner->disk, request);
}

/* In two spans, the first of them odd. */
static int transfer(struct owner *owner, enum disk_op op, uint64_t offset, void *data,
                    size_t length)
{
    struct iovec iov[2] = { { data, length / 3 },
                            { (uint8_t *)data + length / 3, length - length / 3 } };
    struct disk_request request;
    g_mutex_lock(&owner->lock);
    owner->finished = 0;
    owner->error = 0;
    start(owner, &request, op, offset, iov, length ? 2 : 0);
    disk_kick(owner->disk);
    while (!owner->finished)
        g_cond_wait(&owner->cond, &owner->lock);
    g_mutex_unlock(&owner->lock);
    g_assert_cmpint(request.op, ==, op); /* it stays its owner's */
    return owner->error;
}

static void open_disk(struct owner *owner, const struct format *format, bool unmap,
                      const struct raw_io *io)
{
    g_autoptr(GError) error = NULL;
    int fd = memfd_create("zeroes", MFD_CLOEXEC);
    const struct format_wish wish = { .size = SIZE };
    *owner = (struct owner){ .fd = dup(fd) };
    g_assert_true(format->create(fd, "disk", &wish, &error));
    struct disk *file = raw_open(fd, "disk", false, &error);
    if (io)
        raw_set_io(file, io);
    owner->image = format->open(&(struct format_parts){ .name = "disk", .file = file }, &error);
    g_assert_no_error(error);
    owner->disk = zeroes_open(owner->image, unmap);
    g_mutex_init(&owner->lock);
    disk_attach(owner->disk, &owner->lock, NULL);
}

static void close_disk(struct owner *owner)
{
    disk_drain(owner->disk);
    disk_free(owner->disk);
    close(owner->fd);
}

static uint64_t room(const struct owner *owner)
{
    struct stat info;
    g_assert_cmpint(fstat(owner->fd, &info), ==, 0);
    return (uint64_t)info.st_blocks * 512;
}

static void check(struct owner *owner, const uint8_t *model)
{
    g_autofree uint8_t *data = g_malloc(SIZE);
    g_assert_cmpint(transfer(owner, DISK_READ, 0, data, SIZE), ==, 0);
    g_assert_cmpint(memcmp(data, model, SIZE), ==, 0);
}

static bool is_zero(struct owner *owner, uint64_t at, uint64_t length)
{
    struct disk_piece piece;
    disk_drain(owner->disk);
    g_assert_cmpint(disk_piece(owner->disk, at, length, &piece), ==, 0);
    return piece.zero && piece.length == length;
}

static void room_of_zeros(gconstpointer data)
{
    const struct format *format = data;
    for (unsigned unmap = 0; unmap < 2; unmap++) {
        struct owner owner;
        g_autofree uint8_t *model = g_malloc0(SIZE), *zeros = g_malloc0(SIZE);
        open_disk(&owner, format, unmap, NULL);
        uint64_t empty = room(&owner);
        g_assert_cmpint(transfer(&owner, DISK_WRITE, 0, zeros, SIZE), ==, 0);
        g_assert_true(is_zero(&owner, 0, SIZE) || format == &raw_format);
        if (unmap || format != &raw_format)
            g_assert_cmpuint(room(&owner), <=, empty + 65536);
        memset(model + (1 << 20), 5, 2 << 20);
        g_assert_cmpint(transfer(&owner, DISK_WRITE, 1 << 20, model + (1 << 20), 2 << 20), ==, 0);
        uint64_t full = room(&owner);
        g_assert_cmpuint(full, >=, empty + (2 << 20));
        memset(model + (1 << 20), 0, 1 << 20);
        g_assert_cmpint(transfer(&owner, DISK_WRITE, 1 << 20, zeros, 1 << 20), ==, 0);
        for (unsigned i = 0; i < 2; i++)
            g_assert_cmpint(transfer(&owner, DISK_FLUSH, 0, NULL, 0), ==, 0);
        disk_drain(owner.disk);
        if (unmap)
            g_assert_cmpuint(room(&owner), <=, full - (1 << 20) + 65536);
        check(&owner, model);
        close_disk(&owner);
    }
}

/* Which are no whole blocks, or not only zeros. */
static void others_are_written(gconstpointer data)
{
    struct owner owner;
    g_autofree uint8_t *model = g_malloc0(SIZE);
    open_disk(&owner, data, true, NULL);
    memset(model, 9, 1 << 20);
    g_assert_cmpint(transfer(&owner, DISK_WRITE, 0, model, 1 << 20), ==, 0);
    memset(model + 512, 0, 512);
    g_assert_cmpint(transfer(&owner, DISK_WRITE, 512, model + 512, 512), ==, 0);
    memset(model + 65536, 0, 65536);
    model[131071] = 1; /* the last byte */
    g_assert_cmpint(transfer(&owner, DISK_WRITE, 65536, model + 65536, 65536), ==, 0);
    memset(model + 262144, 0, 65536);
    model[262144 + 30000] = 1;
    g_assert_cmpint(transfer(&owner, DISK_WRITE, 262144, model + 262144, 65536), ==, 0);
    memset(model + 524288 + 4096, 0, 8192); /* blocks of a cluster */
    g_assert_cmpint(transfer(&owner, DISK_WRITE, 524288 + 4096, model + 524288 + 4096, 8192), ==,
                    0);
    check(&owner, model);
    g_assert_cmpint(transfer(&owner, DISK_WRITE, SIZE, model, 4096), ==, EINVAL);
    close_disk(&owner);
}

/* Many at a time, zeros and others, each to a place of its own. */
static void many(gconstpointer data)
{
    enum { COUNT = 64, EACH = 65536 };
    struct owner owner;
    struct disk_request requests[COUNT];
    struct iovec iov[COUNT];
    g_autofree uint8_t *model = g_malloc0(SIZE);
    open_disk(&owner, data, true, NULL);
    for (unsigned round = 0; round < 20; round++) {
        g_mutex_lock(&owner.lock);
        owner.finished = 0;
        for (unsigned i = 0; i < COUNT; i++) {
            uint8_t *at = model + (size_t)i * EACH;
            memset(at, g_test_rand_int() & 1 ? 0 : (int)round + 1, EACH);
            iov[i] = (struct iovec){ at, EACH };
            start(&owner, &requests[i], DISK_WRITE, (uint64_t)i * EACH, &iov[i], 1);
        }
        disk_kick(owner.disk);
        while (owner.finished < COUNT)
            g_cond_wait(&owner.cond, &owner.lock);
        g_mutex_unlock(&owner.lock);
        g_assert_cmpint(owner.error, ==, 0);
    }
    check(&owner, model);
    close_disk(&owner);
}

static ssize_t no_write(int fd, const struct iovec *iov, int count, off_t offset)
{
    (void)fd, (void)iov, (void)count, (void)offset;
    errno = EIO;
    return -1;
}

static int no_allocate(int fd, int mode, off_t offset, off_t length)
{
    (void)fd, (void)mode, (void)offset, (void)length;
    errno = EOPNOTSUPP;
    return -1;
}

static void errors_are_passed_on(void)
{
    struct raw_io io = raw_system_io;
    struct owner owner;
    g_autofree uint8_t *zeros = g_malloc0(8192);
    io.writev = no_write;
    io.allocate = no_allocate;
    open_disk(&owner, &raw_format, true, &io);
    g_assert_cmpint(transfer(&owner, DISK_WRITE, 0, zeros, 8192), ==, EIO);
    close_disk(&owner);
}

int main(int argc, char **argv)
{
    static const struct format *const kinds[] = { &raw_format, &qcow2_format };
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *room_ = g_strconcat("/zeroes/room/", kinds[i]->name, NULL);
        g_autofree char *others = g_strconcat("/zeroes/others/", kinds[i]->name, NULL);
        g_autofree char *many_ = g_strconcat("/zeroes/many/", kinds[i]->name, NULL);
        g_test_add_data_func(room_, kinds[i], room_of_zeros);
        g_test_add_data_func(others, kinds[i], others_are_written);
        g_test_add_data_func(many_, kinds[i], many);
    }
    g_test_add_func("/zeroes/errors", errors_are_passed_on);
    return g_test_run();
}
