/* The virtio core with its loop in a thread of its own, as in a machine: a driver that sleeps until
 * it is interrupted and kicks only when it is asked to, a disk that finishes requests whenever it
 * likes, resets of the device and of its queues in the middle. A lost kick or a lost interrupt ends
 * in a wait that does not; a race is ThreadSanitizer's to find. */
#include "base/loop.h"
#include "rig/virtio-driver.h"

#include <string.h>
#include <unistd.h>

enum { QUEUES = 2, SIZE = 16, ROUNDS = 3000, PATIENCE = 10 * G_USEC_PER_SEC };

/* The doorbells of the board: eventfds. */
struct ways {
    struct board_ops ops;
    uint64_t address[QUEUES];
    int fd[QUEUES];
};
struct bench {
    struct rig *rig;
    struct driver *driver;
    struct ways ways;
    GThread *disk;
    gint stop;
    GRand *rand;
    struct lent {
        bool used[SIZE];      /* buffers that the device has */
        unsigned owner[SIZE]; /* by the chain's id */
        unsigned out;         /* chains */
    } lent[QUEUES];
    unsigned done; /* chains that came back */
};

static bool doorbell(void *opaque, uint64_t address, int fd, bool on)
{
    struct rig *rig = opaque;
    struct ways *ways = (struct ways *)(uintptr_t)rig->board.ops;
    for (unsigned i = 0; i < QUEUES; i++)
        if (on ? !ways->address[i] : ways->address[i] == address) {
            ways->address[i] = on ? address : 0;
            ways->fd[i] = fd;
            return true;
        }
    return false;
}

static gpointer disk(gpointer data)
{
    struct bench *b = data;
    g_autoptr(GRand) rand = g_rand_new_with_seed(7);
    while (!g_atomic_int_get(&b->stop)) {
        if (g_rand_int_range(rand, 0, 8) == 0)
            g_usleep((gulong)g_rand_int_range(rand, 0, 200));
        if (!rig_disk_finish(b->rig, (unsigned)g_rand_int_range(rand, 0, 4)))
            rig_disk_step(b->rig);
    }
    return NULL;
}

static unsigned interrupts(struct bench *b)
{
    g_mutex_lock(&b->rig->dev->lock);
    unsigned count = b->rig->msis;
    g_mutex_unlock(&b->rig->dev->lock);
    return count;
}

static void start(struct bench *b, uint64_t features)
{
    struct driver *driver = b->driver;
    int64_t until = g_get_monotonic_time() + PATIENCE;
    driver_write(driver, DRIVER_STATUS, 1, 0);
    while (driver_status(driver))
        g_assert_true(g_get_monotonic_time() < until);
    memset(driver->queue, 0, sizeof driver->queue);
    memset(b->lent, 0, sizeof b->lent);
    driver->top = 0x20000;
    g_assert_true(driver_negotiate(driver, driver_offered(driver) &
                                               (features | UINT64_C(1) << VIRTIO_VERSION_1 |
                                                UINT64_C(1) << VIRTIO_RING_PACKED)));
    driver_msix(driver);
    for (unsigned i = 0; i < QUEUES; i++)
        driver_queue(driver, i, SIZE);
    driver_ok(driver);
}

/* By the register, or by the eventfd as the hypervisor does it. */
static void kick(struct bench *b, unsigned queue)
{
    uint64_t one = 1;
    if (g_rand_boolean(b->rand)) {
        driver_kick(b->driver, queue);
        return;
    }
    g_mutex_lock(&b->rig->dev->lock); /* the table */
    b->driver->queue[queue].added = 0;
    for (unsigned i = 0; i < QUEUES; i++)
        if (b->ways.address[i] == b->driver->queue[queue].doorbell)
            g_assert_cmpint(write(b->ways.fd[i], &one, sizeof one), ==, sizeof one);
    g_mutex_unlock(&b->rig->dev->lock);
}

/* A read of one sector; three descriptors. */
static void add(struct bench *b, unsigned queue)
{
    struct lent *lent = &b->lent[queue];
    unsigned i = 0;
    while (lent->used[i])
        i++;
    uint64_t at = 0x80000 + 1024u * (queue * SIZE + i);
    const uint8_t header[16] = { [8] = (uint8_t)g_rand_int_range(b->rand, 0, 200) };
    driver_put(b->driver, at, header, sizeof header);
    const struct driver_buffer buffers[] = { { at, 16, false },
                                             { at + 16, 512, true },
                                             { at + 528, 1, true } };
    lent->owner[driver_add(b->driver, queue, buffers, 3)] = i;
    lent->used[i] = true;
    lent->out++;
}

static bool collect(struct bench *b, unsigned queue)
{
    bool any = false;
    unsigned id;
    while (driver_used(b->driver, queue, &id, NULL)) {
        b->lent[queue].used[b->lent[queue].owner[id]] = false;
        b->lent[queue].out--;
        b->done++;
        any = true;
    }
    return any;
}

/* Sleeps until something came back. */
static void wait(struct bench *b, unsigned queue)
{
    int64_t until = g_get_monotonic_time() + PATIENCE;
    while (b->lent[queue].out) {
        unsigned before = interrupts(b);
        driver_event(b->driver, queue, 0);
        driver_interrupts(b->driver, queue, true);
        if (b->driver->queue[queue].packed && b->driver->features >> VIRTIO_EVENT_IDX & 1)
            driver_event(b->driver, queue, 0);
        if (collect(b, queue))
            continue;
        while (interrupts(b) == before)
            if (g_get_monotonic_time() > until)
                g_error("queue %u: neither an answer nor an interrupt", queue);
        driver_interrupts(b->driver, queue, g_rand_boolean(b->rand));
        collect(b, queue);
    }
}

static void round_trip(struct bench *b, uint64_t features)
{
    unsigned queue = (unsigned)g_rand_int_range(b->rand, 0, QUEUES);
    unsigned count = (unsigned)g_rand_int_range(b->rand, 1, SIZE / 3 + 1);
    while (count-- && b->driver->queue[queue].left >= 3) {
        add(b, queue);
        if (driver_wanted(b->driver, queue))
            kick(b, queue);
    }
    switch (g_rand_int_range(b->rand, 0, 40)) {
    case 0:
        start(b, features);
        break;
    case 1:
        driver_write(b->driver, DRIVER_QUEUE_SELECT, 2, queue);
        driver_write(b->driver, DRIVER_QUEUE_RESET, 2, 1);
        while (driver_read(b->driver, DRIVER_QUEUE_RESET, 2))
            g_thread_yield();
        b->lent[queue] = (struct lent){ .out = 0 };
        b->driver->top = 0x30000 + 0x4000 * queue;
        driver_queue(b->driver, queue, SIZE);
        break;
    case 2:
        loop_pause(b->rig->dev->loop);
        loop_resume(b->rig->dev->loop);
        break;
    case 3: /* bus mastering goes, and comes back; what the disk did meanwhile is lost */
        rig_config_write(b->rig, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
        rig_config_write(b->rig, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        if (driver_status(b->driver) & DRIVER_NEEDS_RESET)
            start(b, features);
        break;
    default:
        if (g_rand_boolean(b->rand))
            wait(b, queue);
        else
            collect(b, queue);
    }
}

static void stress(bool packed, uint64_t features)
{
    const char *const options[] = { "queues", "2", "packed", packed ? "on" : "off", NULL };
    struct bench *b = g_new0(struct bench, 1);
    b->rand = g_rand_new_with_seed(11);
    b->rig = rig_new_threaded(device_class_find("virtio-blk"), options);
    b->ways.ops = *b->rig->board.ops;
    b->ways.ops.doorbell = doorbell;
    b->rig->board.ops = &b->ways.ops;
    b->driver = driver_find(b->rig);
    b->disk = g_thread_new("disk", disk, b);
    features |= UINT64_C(1) << VIRTIO_RING_RESET;
    start(b, features);
    for (unsigned i = 0; i < ROUNDS; i++)
        round_trip(b, features);
    for (unsigned i = 0; i < QUEUES; i++)
        wait(b, i);
    g_assert_cmphex(driver_status(b->driver) & DRIVER_NEEDS_RESET, ==, 0);
    g_assert_cmpuint(b->done, >, ROUNDS / 4);
    g_atomic_int_set(&b->stop, 1);
    g_thread_join(b->disk);
    driver_free(b->driver);
    rig_free(b->rig); /* with the thread still there */
    g_rand_free(b->rand);
    g_free(b);
}

static void split(void)
{
    stress(false, 0);
}
static void split_events(void)
{
    stress(false, UINT64_C(1) << VIRTIO_EVENT_IDX);
}
static void packed(void)
{
    stress(true, 0);
}
static void packed_events(void)
{
    stress(true, UINT64_C(1) << VIRTIO_EVENT_IDX);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-threads/split", split);
    g_test_add_func("/virtio-threads/split-events", split_events);
    g_test_add_func("/virtio-threads/packed", packed);
    g_test_add_func("/virtio-threads/packed-events", packed_events);
    return g_test_run();
}
