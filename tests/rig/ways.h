/* The ways in which disks are served, for tests that run on all of them. */
#pragma once
#include <fcntl.h>
#include <glib.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum way { WAY_RING, WAY_MEMORY, WAY_THREADS, WAYS };

/* A test that runs in each way, as /ring/NAME, /memory/NAME, /threads/NAME. */
struct way_test {
    const char *path;
    void (*run)(void);
};

/* The way of the test that runs. */
static enum way way;

/* Of a file system on a disk, for what lies in memory needs no ring. */
static inline int way_file(void)
{
    char path[] = "/var/tmp/hv-test-XXXXXX";
    if (way == WAY_MEMORY)
        return memfd_create("test", MFD_CLOEXEC);
    int fd = mkostemp(path, O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    unlink(path);
    return fd;
}

static inline void way_run_ring(gconstpointer test)
{
    way = WAY_RING;
    ((const struct way_test *)test)->run();
}

static inline void way_run_memory(gconstpointer test)
{
    way = WAY_MEMORY;
    ((const struct way_test *)test)->run();
}

static inline void way_run_threads(gconstpointer test)
{
    way = WAY_THREADS;
    ((const struct way_test *)test)->run();
}

static inline void way_add_tests(const struct way_test *tests, size_t count)
{
    static const struct {
        const char *name;
        void (*run)(gconstpointer test);
    } ways[WAYS] = {
        [WAY_RING] = { "/ring", way_run_ring },
        [WAY_MEMORY] = { "/memory", way_run_memory },
        [WAY_THREADS] = { "/threads", way_run_threads },
    };
    for (size_t i = 0; i < count * WAYS; i++) {
        g_autofree char *path = g_strconcat(ways[i % WAYS].name, tests[i / WAYS].path, NULL);
        g_test_add_data_func(path, &tests[i / WAYS], ways[i % WAYS].run);
    }
}
