/* virtio-blk (virtio 1.2 section 5.2): a hard disk for guests with virtio drivers. One queue for
 * each vCPU, all served by the device's loop. Payload goes from the driver's buffers to the disk as
 * it is. */
#include "bus/virtio.h"

#include "base/error.h"
#include "block/disk.h"

#include <string.h>

/* Feature bits (section 5.2.3). */
enum {
    F_SEG_MAX = 2,
    F_RO = 5,
    F_BLK_SIZE = 6,
    F_FLUSH = 9,
    F_TOPOLOGY = 10,
    F_CONFIG_WCE = 11,
    F_MQ = 12,
    F_DISCARD = 13,
    F_WRITE_ZEROES = 14,
};
/* Request types and statuses (section 5.2.6). */
enum {
    T_IN = 0,
    T_OUT = 1,
    T_FLUSH = 4,
    T_GET_ID = 8,
    T_DISCARD = 11,
    T_WRITE_ZEROES = 13,
    S_OK = 0,
    S_IOERR = 1,
    S_UNSUPPORTED = 2,
    ID_LENGTH = 20,
};
enum {
    QUEUES_MAX = 16,
    QUEUE_SIZE = 256,
    SEGMENTS = QUEUE_SIZE - 2, /* of one request: header and status take two */
    RANGES = 64,               /* of one discard or write zeroes */
    RANGE_SECTORS = 1 << 21,   /* 1 GiB */
    PHYSICAL_SHIFT = 3,        /* the host's blocks have 4 KiB */
};

/* Section 5.2.6. */
struct header {
    le32 type, reserved;
    le64 sector;
};
struct range {
    le64 sector;
    le32 sectors, flags;
};
enum { RANGE_UNMAP = 1 };

/* Section 5.2.4, up to the last member that is used here. */
struct blk_config {
    le64 capacity;
    le32 size_max, seg_max;
    struct {
        le16 cylinders;
        uint8_t heads, sectors;
    } geometry;
    le32 blk_size;
    struct {
        uint8_t physical_block_exp, alignment_offset;
        le16 min_io_size;
        le32 opt_io_size;
    } topology;
    uint8_t writeback, unused;
    le16 num_queues;
    le32 max_discard_sectors, max_discard_seg, discard_sector_alignment;
    le32 max_write_zeroes_sectors, max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap, unused1[3];
};

struct blk_regs {
    uint8_t write_through; /* the driver turned the write cache off */
};

struct blk {
    struct device dev;
    struct disk *disk;
    char *serial;
    uint64_t queues;
    struct blk_regs regs;
};

/* A request between pop and push. A discard has several ranges, one disk request after the other.
 */
struct request {
    struct disk_request disk;
    struct blk *blk;
    uint32_t type, written;
    uint16_t ranges, next; /* of a discard */
    bool sync;             /* a flush follows: the write cache is off */
};

static const struct field blk_fields[] = {
    SAVED_MAX(struct blk_regs, write_through, 1),
    SAVED_END,
};

static const struct virtio_queue_class queue_class = { "requests", QUEUE_SIZE,
                                                       sizeof(struct request) };

/* --- requests ------------------------------------------------------------------------------- */

static void next_range(struct blk *blk, struct chain *chain);

static void go_on(struct blk *blk, struct request *request)
{
    if (request->next < request->ranges) {
        next_range(blk, chain_of(request));
    } else {
        request->sync = false;
        request->disk.op = DISK_FLUSH;
        disk_submit(blk->disk, &request->disk);
    }
    disk_kick(blk->disk);
}

static void disk_done(struct disk_request *done, int error)
{
    struct request *request = done->owner;
    struct blk *blk = request->blk;
    struct chain *chain = chain_of(request);
    if (!error && request->type == T_IN)
        guest_list_written(blk->dev.board->guest, done->iov, done->iov_count);
    /* After a reset nothing more is started: the driver waits for what is. */
    if (!error && (request->next < request->ranges || request->sync) && virtio_running(&blk->dev))
        go_on(blk, request);
    else
        virtqueue_push_status(chain, error ? 0 : request->written, error ? S_IOERR : S_OK);
}

static void submit(struct blk *blk, struct request *request, enum disk_op op, uint64_t sector,
                   uint64_t length)
{
    request->disk.op = op;
    request->disk.offset = sector * SECTOR;
    request->disk.length = length;
    request->disk.done = disk_done;
    request->disk.owner = request;
    disk_submit(blk->disk, &request->disk);
}

/* Is what was written to be on stable storage when it is answered? (section 5.2.6.2) */
static bool is_write_through(const struct blk *blk)
{
    return blk->regs.write_through || !virtio_has(&blk->dev, F_FLUSH);
}

/* Reads and writes. The sector is judged before it becomes an offset: no product wraps. */
static void transfer(struct blk *blk, struct chain *chain, uint64_t sector)
{
    struct request *request = chain_request(chain);
    bool in = request->type == T_IN;
    uint32_t bytes = in ? chain->in_bytes : chain->out_bytes;
    if (bytes % SECTOR || sector > blk->disk->size / SECTOR || (!in && blk->disk->readonly)) {
        virtqueue_push_status(chain, 0, S_IOERR);
        return;
    }
    request->disk.iov = in ? chain->in : chain->out;
    request->disk.iov_count = in ? chain->in_count : chain->out_count;
    request->written = in ? bytes : 0;
    request->sync = !in && is_write_through(blk);
    submit(blk, request, in ? DISK_READ : DISK_WRITE, sector, bytes);
}

/* The next range of a discard or write zeroes; they were counted when the request came. */
static void next_range(struct blk *blk, struct chain *chain)
{
    struct request *request = chain_request(chain);
    struct range range;
    chain_read(chain, &range, sizeof range);
    request->next++;
    uint32_t flags = le32_get(range.flags), sectors = le32_get(range.sectors);
    bool discard = request->type == T_DISCARD;
    bool wrong = sectors > RANGE_SECTORS || le64_get(range.sector) > blk->disk->size / SECTOR ||
                 blk->disk->readonly;
    if (flags & ~(unsigned)RANGE_UNMAP || (discard && flags)) {
        virtqueue_push_status(chain, 0, S_UNSUPPORTED);
    } else if (wrong) {
        virtqueue_push_status(chain, 0, S_IOERR);
    } else {
        /* A discard need not leave zeros (section 5.2.6.2), so only that one may be a hint. */
        submit(blk, request, discard ? DISK_DISCARD : DISK_WRITE_ZEROES, le64_get(range.sector),
               (uint64_t)sectors * SECTOR);
    }
}

static void start_ranges(struct blk *blk, struct chain *chain)
{
    struct request *request = chain_request(chain);
    uint32_t count = chain->out_bytes / sizeof(struct range);
    if (!count || chain->out_bytes % sizeof(struct range) || count > RANGES) {
        virtqueue_push_status(chain, 0, S_IOERR);
        return;
    }
    request->ranges = (uint16_t)count;
    request->sync = request->type == T_WRITE_ZEROES && is_write_through(blk);
    next_range(blk, chain);
}

static void get_id(struct blk *blk, struct chain *chain)
{
    char id[ID_LENGTH] = { 0 };
    const char *serial = *blk->serial ? blk->serial : blk->disk->name;
    memcpy(id, serial, MIN(strlen(serial), sizeof id));
    bool ok = chain_write(chain, id, MIN(sizeof id, chain->in_bytes));
    virtqueue_push_status(chain, chain->written, ok ? S_OK : S_IOERR);
}

static void start_request(struct blk *blk, struct chain *chain)
{
    struct header header;
    struct request *request = chain_request(chain);
    request->blk = blk;
    request->ranges = request->next = 0;
    request->written = 0;
    request->sync = false;
    request->disk.iov_count = 0;
    if (!chain_cut_status(chain)) {
        virtqueue_push(chain, 0); /* nowhere to say what is wrong */
        return;
    }
    if (!chain_read(chain, &header, sizeof header)) {
        virtqueue_push_status(chain, 0, S_IOERR);
        return;
    }
    request->type = le32_get(header.type);
    switch (request->type) {
    case T_IN:
    case T_OUT:
        transfer(blk, chain, le64_get(header.sector));
        break;
    case T_FLUSH:
        submit(blk, request, DISK_FLUSH, 0, 0);
        break;
    case T_GET_ID:
        get_id(blk, chain);
        break;
    case T_DISCARD:
    case T_WRITE_ZEROES:
        start_ranges(blk, chain);
        break;
    default:
        virtqueue_push_status(chain, 0, S_UNSUPPORTED);
    }
}

/* --- queues --------------------------------------------------------------------------------- */

/* Shows the driver the answers of a batch. */
static void flush_queues(void *opaque)
{
    struct blk *blk = opaque;
    for (unsigned i = 0; i < blk->queues; i++)
        virtqueue_flush(virtio_queue(&blk->dev, i));
}

static bool serve(struct device *dev, unsigned index)
{
    struct blk *blk = (struct blk *)dev;
    struct virtqueue *queue = virtio_queue(dev, index);
    struct chain *chain;
    unsigned count = 0;
    while (count < VIRTQUEUE_BATCH && (chain = virtqueue_pop(queue))) {
        start_request(blk, chain);
        count++;
    }
    disk_kick(blk->disk);
    disk_poll(blk->disk);   /* what finished at once, as reads from the page cache do */
    virtqueue_flush(queue); /* of what needs no disk */
    return count == VIRTQUEUE_BATCH;
}

static bool poll(struct device *dev)
{
    return disk_poll(((struct blk *)dev)->disk);
}

static const struct virtio_queue_class *queue(struct device *dev, unsigned index)
{
    (void)dev, (void)index;
    return &queue_class;
}

static unsigned queue_count(struct device *dev)
{
    return (unsigned)((struct blk *)dev)->queues;
}

/* --- configuration -------------------------------------------------------------------------- */

static uint64_t offer(struct device *dev)
{
    const struct blk *blk = (struct blk *)dev;
    uint64_t features = 1 << F_SEG_MAX | 1 << F_BLK_SIZE | 1 << F_FLUSH | 1 << F_TOPOLOGY |
                        1 << F_CONFIG_WCE | 1 << F_MQ;
    return features | (blk->disk->readonly ? 1 << F_RO : 1 << F_DISCARD | 1 << F_WRITE_ZEROES);
}

static void config_read(struct device *dev, uint8_t *config)
{
    const struct blk *blk = (struct blk *)dev;
    struct blk_config *c = (struct blk_config *)(void *)config;
    c->capacity = le64_of(blk->disk->size / SECTOR);
    c->seg_max = le32_of(SEGMENTS);
    c->blk_size = le32_of(SECTOR);
    c->topology.physical_block_exp = PHYSICAL_SHIFT;
    c->topology.min_io_size = le16_of(1 << PHYSICAL_SHIFT);
    c->writeback = !blk->regs.write_through;
    c->num_queues = le16_of((uint16_t)blk->queues);
    c->max_discard_sectors = c->max_write_zeroes_sectors = le32_of(RANGE_SECTORS);
    c->max_discard_seg = c->max_write_zeroes_seg = le32_of(RANGES);
    c->discard_sector_alignment = le32_of(1 << PHYSICAL_SHIFT);
    c->write_zeroes_may_unmap = 1;
}

static void config_write(struct device *dev, unsigned offset, unsigned width, uint32_t value)
{
    struct blk *blk = (struct blk *)dev;
    if (offset == offsetof(struct blk_config, writeback) && width == 1 &&
        virtio_has(dev, F_CONFIG_WCE))
        blk->regs.write_through = !(value & 1);
}

static void disk_resized(struct device *dev, unsigned index)
{
    (void)index;
    virtio_config_changed(dev);
}

static bool init(struct device *dev, GError **error)
{
    struct blk *blk = (struct blk *)dev;
    if (blk->disk) {
        disk_set_batch(blk->disk, flush_queues, blk);
        return true;
    }
    return hv_fail(error, HV_USAGE, "%s: it has no disk: --disk FILE,bus=virtio gives it one",
                   dev->name);
}

static void reset(struct device *dev)
{
    ((struct blk *)dev)->regs.write_through = false;
}

static void stop(struct device *dev, uint32_t index)
{
    if (index == VIRTIO_ANY)
        reset(dev);
}

static const struct virtio_class blk_virtio = {
    .id = 2,
    .queues = QUEUES_MAX,
    .config_size = sizeof(struct blk_config),
    .queue = queue,
    .queue_count = queue_count,
    .offer = offer,
    .config_read = config_read,
    .config_write = config_write,
    .serve = serve,
    .poll = poll,
    .stop = stop,
};

static const struct option blk_options[] = {
    { "serial", "the serial number the guest reads (20 characters; the image's name)",
      OPTION_STRING, offsetof(struct blk, serial), "", 0, 0 },
    { "queues", "request queues", OPTION_UINT, offsetof(struct blk, queues), "1", 1, QUEUES_MAX },
    VIRTIO_OPTION_PACKED,
    { .name = NULL },
};

const struct device_class virtio_blk_class = {
    .name = "virtio-blk",
    .help = "virtio hard disk",
    .size = sizeof(struct blk),
    .flags = CLASS_LOOP,
    .regions = virtio_regions,
    .options = blk_options,
    .plugs = (const struct plug[]){ { "disk", PLUG_DISK, offsetof(struct blk, disk) },
                                    { .name = NULL } },
    .state = STATE(struct blk, regs, 1, blk_fields),
    .pci = VIRTIO_PCI(2, 0x010000),
    .virtio = &blk_virtio,
    .init = init,
    .reset = reset,
    .disk_resized = disk_resized,
};
