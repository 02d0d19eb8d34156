/* Virtio entropy device: random bytes of the host (virtio 1.2 section 5.4).
 *
 * A buffer gets at most REQUEST bytes: the device may use less of it than there is (section
 * 5.4.6.2), and drivers ask again. No state, no configuration. Served on the device's loop. */
#include "bus/virtio.h"

#include <errno.h>
#include <sys/random.h>

enum {
    ID = 4,
    CLASS_CODE = 0x00ff00, /* no class fits */
    QUEUE = 0,
    REQUEST = 1024, /* bytes for one chain; a turn's 64 chains are 64 KiB */
};

/* At least one byte; 0 when the host gives none. */
static size_t random_bytes(uint8_t *to, size_t length)
{
    ssize_t n;
    do
        n = getrandom(to, length, 0);
    while (n < 0 && errno == EINTR);
    return n > 0 ? (size_t)n : 0;
}

static bool serve(struct device *dev, unsigned index)
{
    struct virtqueue *queue = virtio_queue(dev, index);
    for (unsigned i = 0; i < VIRTQUEUE_BATCH; i++) {
        uint8_t bytes[REQUEST];
        struct chain *chain = virtqueue_pop(queue);
        if (!chain)
            break;
        size_t n = random_bytes(bytes, MIN(chain->in_bytes, sizeof bytes));
        bool given = n && chain_write(chain, bytes, n);
        virtqueue_push(chain, given ? (uint32_t)n : 0);
        if (!given) {
            virtio_broken(dev, "a buffer for random bytes got none");
            break;
        }
    }
    virtqueue_flush(queue);
    return virtqueue_pending(queue);
}

static const struct virtio_queue_class *queue_class(struct device *dev, unsigned index)
{
    static const struct virtio_queue_class requests = { .name = "requestq", .size = 64 };
    (void)dev, (void)index;
    return &requests;
}

const struct device_class virtio_rng_class = {
    .name = "virtio-rng",
    .help = "random numbers for the guest",
    .size = sizeof(struct device),
    .flags = CLASS_LOOP,
    .regions = virtio_regions,
    .pci = VIRTIO_PCI(ID, CLASS_CODE),
    .virtio =
        &(const struct virtio_class){
            .id = ID,
            .queues = QUEUE + 1,
            .queue = queue_class,
            .serve = serve,
        },
    .options =
        (const struct option[]){
            VIRTIO_OPTION_PACKED,
            { .name = NULL },
        },
    .state = { .name = "virtio-rng", .version = 1 },
};
