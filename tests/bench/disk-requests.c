/* What a disk costs without a guest: reads of 4 KiB from the page cache, DEPTH at a time, by an
 * owner that polls, as virtio-blk does.
 *
 *   disk-requests COUNT [DEPTH [threads]]
 *
 * Run under `valgrind --tool=callgrind` with two COUNTs: the difference of the instructions,
 * divided by that of the counts, is what one request costs. Prints nothing but the time for each.
 */
#include "base/loop.h"
#include "block/disk.h"
#include "block/raw.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { UNIT = 4096, UNITS = 4096, MOST = 256 };

struct bench {
    struct disk *disk;
    unsigned in_flight, done;
    struct request {
        struct disk_request disk;
        struct iovec iov;
    } requests[MOST];
};

static void on_done(struct disk_request *request, int error)
{
    struct bench *bench = request->owner;
    if (error)
        abort();
    bench->in_flight--;
    bench->done++;
}

int main(int argc, char **argv)
{
    unsigned count = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
    unsigned depth = CLAMP(argc > 3 ? (unsigned)atoi(argv[3]) : 32, 1, MOST);
    static struct bench bench;
    static uint8_t data[MOST][UNIT];
    GMutex lock;
    g_autoptr(GError) error = NULL;
    int fd = argc > 1 ? open(argv[1], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
    if (fd < 0) {
        fputs("usage: disk-requests FILE COUNT [DEPTH [threads]], FILE must not exist\n", stderr);
        return 1;
    }
    unlink(argv[1]);
    g_mutex_init(&lock);
    for (unsigned i = 0; i < UNITS; i++)
        if (write(fd, data[0], UNIT) != UNIT)
            return 1;
    bench.disk = raw_open(fd, "bench.img", false, &error);
    struct loop *loop = loop_new(NULL);
    if (!bench.disk)
        return 1;
    if (argc > 4 && !strcmp(argv[4], "threads"))
        raw_use_threads(bench.disk);
    disk_attach(bench.disk, &lock, loop);

    int64_t start = g_get_monotonic_time();
    unsigned at = 0;
    for (unsigned left = count; left;) {
        unsigned batch = MIN(left, depth);
        g_mutex_lock(&lock);
        for (unsigned i = 0; i < batch; i++) {
            struct request *request = &bench.requests[i];
            request->iov = (struct iovec){ data[i], UNIT };
            request->disk = (struct disk_request){
                .op = DISK_READ,
                .offset = (uint64_t)(at = (at + 1237) % UNITS) * UNIT,
                .length = UNIT,
                .iov = &request->iov,
                .iov_count = 1,
                .done = on_done,
                .owner = &bench,
            };
            disk_submit(bench.disk, &request->disk);
        }
        bench.in_flight += batch;
        disk_kick(bench.disk);
        while (bench.in_flight && disk_poll(bench.disk))
            continue;
        g_mutex_unlock(&lock);
        if (bench.in_flight)
            disk_drain(bench.disk);
        left -= batch;
    }
    printf("%.0f ns for each of %u requests, %u at a time\n",
           count ? (double)(g_get_monotonic_time() - start) * 1000 / count : 0, bench.done, depth);
    disk_free(bench.disk);
    loop_free(loop);
    return 0;
}
