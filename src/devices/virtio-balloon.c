/* Virtio memory balloon: the guest gives memory back to the host (virtio 1.2 section 5.5).
 *
 * Three ways: the host wishes a smaller guest (`memory_wish`) and the driver fills the balloon with
 * pages; the driver reports pages that are free anyway (5.5.6.7), on by default; and it tells how
 * much it uses (5.5.6.3). What the guest gives is discarded (guest_discard) and reads as zeroes.
 *
 * The wish outlives a reset of the guest. Statistics are not saved: they are asked for again. The
 * queues are served on the device's loop. */
#include "bus/virtio.h"

#include <stdlib.h>
#include <string.h>

enum {
    ID = 5,
    CLASS_CODE = 0x00ff00, /* no class fits */
    PAGE_SHIFT = 12,
    /* Bounds of a turn; more in one chain is left with the guest. A run of pages is a system call.
     */
    PAGES_AT_ONCE = 8192,
    PAGES_COPIED = 256, /* as many as Linux's driver puts into a chain */
    RUNS_AT_ONCE = 2 * PAGES_COPIED,
};
#define BYTES_AT_ONCE (256 * MIB)

/* Features, section 5.5.3. */
enum { STATS_VQ = 1, DEFLATE_ON_OOM = 2, PAGE_POISON = 4, PAGE_REPORTING = 5 };
#define BIT(feature) (UINT64_C(1) << (feature))

/* Queues, section 5.5.2. Drivers (Linux before 6.11) count only those whose feature they accepted,
 * so the free pages may be reported on queue 2 or 3 as well: see role_of. */
enum { INFLATE, DEFLATE, STATS, HINTS, REPORTS, QUEUES };

/* The device configuration, section 5.5.4. */
struct balloon_config {
    le32 pages, actual, hint_command, poison;
};
enum { CONFIG_ACTUAL = 4, CONFIG_POISON = 12 };

/* A statistic, section 5.5.6.3. */
struct statistic {
    le16 tag;
    uint8_t value[8];
} __attribute__((packed));

struct balloon_regs {
    uint32_t wish;   /* pages that the host wants in the balloon */
    uint32_t actual; /* pages in it, as the driver says */
    uint32_t poison; /* what free pages hold, with PAGE_POISON */
};

struct balloon {
    struct device dev;
    struct balloon_regs regs;
    struct chain *asking; /* the buffer for statistics, which the driver gets when we want some */
    struct memory_statistics statistics;
    bool reported; /* they have come, since the driver started */
    bool wanted;   /* somebody asked while the driver had the buffer */
};

static const struct field balloon_fields[] = {
    SAVED(struct balloon_regs, wish),
    SAVED(struct balloon_regs, actual),
    SAVED(struct balloon_regs, poison),
    SAVED_END,
};

static struct balloon *balloon_of(struct device *dev)
{
    return (struct balloon *)dev;
}

/* --- pages ---------------------------------------------------------------------------------- */

/* What may still be done in this turn. */
struct budget {
    uint64_t bytes;
    unsigned runs;
};

static int compare_pages(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Discards pages, neighbours together, in whatever order they come. */
static void discard_pages(struct device *dev, uint32_t *pages, unsigned count,
                          struct budget *budget)
{
    qsort(pages, count, sizeof *pages, compare_pages);
    for (unsigned i = 0, end; i < count && budget->runs; i = end) {
        for (end = i + 1; end < count && pages[end] <= pages[end - 1] + UINT64_C(1); end++)
            continue;
        uint64_t first = pages[i], last = pages[end - 1];
        guest_discard(dev->board->guest, GPA(first << PAGE_SHIFT),
                      (last - first + 1) << PAGE_SHIFT);
        budget->runs--;
    }
}

/* Takes the page numbers of a chain. */
static void inflate(struct device *dev, struct chain *chain, struct budget *budget)
{
    le32 raw[PAGES_COPIED];
    uint32_t pages[PAGES_COPIED];
    while (budget->runs && budget->bytes && chain->out_bytes >= sizeof raw[0]) {
        unsigned n = MIN(chain->out_bytes / (uint32_t)sizeof raw[0], PAGES_COPIED);
        if (!chain_read(chain, raw, n * sizeof raw[0]))
            break;
        for (unsigned i = 0; i < n; i++)
            pages[i] = le32_get(raw[i]);
        discard_pages(dev, pages, n, budget);
        budget->bytes -= MIN(budget->bytes, n * (BYTES_AT_ONCE / PAGES_AT_ONCE));
    }
}

/* Pages that are free for now: the chain's buffers are these pages. Free memory that holds poison
 * has to keep it, and zeroes are what discarded pages hold (section 5.5.6.7.2). */
static void take_report(struct balloon *balloon, const struct chain *chain, struct budget *budget)
{
    struct device *dev = &balloon->dev;
    if (virtio_has(dev, PAGE_POISON) && balloon->regs.poison)
        return;
    for (unsigned i = 0; i < chain->in_count && budget->bytes && budget->runs; i++) {
        gpa at;
        uint64_t length = MIN(chain->in[i].iov_len, BYTES_AT_ONCE);
        if (chain_in_address(chain, i, &at))
            guest_discard(dev->board->guest, at, length);
        budget->bytes -= MIN(budget->bytes, length);
        budget->runs--;
    }
}

static bool serve_pages(struct balloon *balloon, struct virtqueue *queue, unsigned role)
{
    struct chain *chain;
    struct budget budget = { BYTES_AT_ONCE, RUNS_AT_ONCE };
    for (unsigned i = 0; i < VIRTQUEUE_BATCH && budget.bytes && budget.runs; i++) {
        if (!(chain = virtqueue_pop(queue)))
            break;
        if (role == INFLATE)
            inflate(&balloon->dev, chain, &budget);
        else if (role == REPORTS)
            take_report(balloon, chain, &budget);
        virtqueue_push(chain, 0); /* DEFLATE: pages come back when they are touched */
    }
    virtqueue_flush(queue);
    return virtqueue_pending(queue);
}

/* --- statistics ----------------------------------------------------------------------------- */

static void take_statistics(struct balloon *balloon, struct chain *chain)
{
    struct memory_statistics *statistics = &balloon->statistics;
    *statistics = (struct memory_statistics){ .known = 0 };
    struct statistic one;
    for (unsigned i = 0; i < 64 && chain_read(chain, &one, sizeof one); i++) {
        unsigned tag = le16_get(one.tag);
        if (tag >= MEMORY_STATISTICS)
            continue;
        memcpy(&statistics->value[tag], one.value, sizeof one.value);
        statistics->known |= 1u << tag;
    }
    statistics->time = device_now(&balloon->dev);
    balloon->reported = true;
}

/* The driver fills the buffer again when it gets it back. */
static bool ask(struct balloon *balloon)
{
    struct chain *chain = balloon->asking;
    if (!chain)
        return false;
    balloon->asking = NULL;
    balloon->wanted = false;
    virtqueue_push(chain, 0);
    virtqueue_flush(chain->queue);
    return true;
}

/* One buffer goes to and fro. More than one is more than the driver is to give. */
static bool serve_statistics(struct balloon *balloon, struct virtqueue *queue)
{
    struct chain *chain = virtqueue_pop(queue);
    if (!chain)
        return false;
    ask(balloon);
    take_statistics(balloon, chain);
    balloon->asking = chain;
    if (balloon->wanted)
        ask(balloon);
    return virtqueue_pending(queue);
}

/* --- the device ----------------------------------------------------------------------------- */

/* What a queue is for, by the features that the driver accepted. */
static unsigned role_of(const struct device *dev, unsigned index)
{
    if (index < STATS || (index == STATS && virtio_has(dev, STATS_VQ)))
        return index;
    return REPORTS;
}

static bool serve(struct device *dev, unsigned index)
{
    struct balloon *balloon = balloon_of(dev);
    unsigned role = role_of(dev, index);
    struct virtqueue *queue = virtio_queue(dev, index);
    return role == STATS ? serve_statistics(balloon, queue) : serve_pages(balloon, queue, role);
}

static const struct virtio_queue_class *queue_class(struct device *dev, unsigned index)
{
    static const struct virtio_queue_class queues[QUEUES] = {
        [INFLATE] = { .name = "inflateq", .size = 128 },
        [DEFLATE] = { .name = "deflateq", .size = 128 },
        [STATS] = { .name = "statsq", .size = 128 },
        [HINTS] = { .name = "free_page_vq", .size = 128 },
        [REPORTS] = { .name = "reporting_vq", .size = 128 },
    };
    (void)dev;
    return &queues[index < QUEUES ? index : 0];
}

/* Without a driver there is no balloon: its pages are the guest's again. */
static void forget_driver(struct balloon *balloon)
{
    balloon->regs.actual = balloon->regs.poison = 0;
    balloon->reported = balloon->wanted = false;
}

static void stop(struct device *dev, uint32_t index)
{
    struct balloon *balloon = balloon_of(dev);
    if (index == VIRTIO_ANY)
        forget_driver(balloon);
    if (index != VIRTIO_ANY && index != STATS)
        return;
    if (balloon->asking)
        virtqueue_push(balloon->asking, 0);
    balloon->asking = NULL;
}

static void config_read(struct device *dev, uint8_t *bytes)
{
    const struct balloon_regs *r = &balloon_of(dev)->regs;
    const struct balloon_config config = {
        .pages = le32_of(r->wish),
        .actual = le32_of(r->actual),
        .poison = le32_of(r->poison),
    };
    memcpy(bytes, &config, sizeof config);
}

static void config_write(struct device *dev, unsigned offset, unsigned width, uint32_t value)
{
    struct balloon_regs *r = &balloon_of(dev)->regs;
    if (offset == CONFIG_ACTUAL && width == sizeof r->actual)
        r->actual = value;
    if (offset == CONFIG_POISON && width == sizeof r->poison)
        r->poison = value;
}

/* --- the host's side ------------------------------------------------------------------------ */

static bool memory_wish(struct device *dev, uint64_t bytes)
{
    struct balloon *balloon = balloon_of(dev);
    uint64_t size = guest_ram_size(dev->board->guest);
    uint64_t pages = (size - MIN(bytes, size)) >> PAGE_SHIFT;
    balloon->regs.wish = (uint32_t)MIN(pages, UINT32_MAX);
    if (virtio_running(dev))
        virtio_config_changed(dev);
    return virtio_running(dev);
}

static bool memory_ask(struct device *dev, struct memory_statistics *statistics)
{
    struct balloon *balloon = balloon_of(dev);
    if (!virtio_running(dev))
        return false;
    *statistics = balloon->statistics;
    statistics->balloon = (uint64_t)balloon->regs.actual << PAGE_SHIFT;
    statistics->reported = balloon->reported;
    if (!ask(balloon))
        balloon->wanted = true; /* the driver has the buffer */
    return true;
}

static void reset(struct device *dev)
{
    forget_driver(balloon_of(dev));
}

const struct device_class virtio_balloon_class = {
    .name = "virtio-balloon",
    .help = "memory that the guest gives back",
    .size = sizeof(struct balloon),
    .flags = CLASS_LOOP | CLASS_KEEPS_STATE, /* the host's wish */
    .regions = virtio_regions,
    .pci = VIRTIO_PCI(ID, CLASS_CODE),
    .virtio =
        &(const struct virtio_class){
            .id = ID,
            .queues = QUEUES,
            .config_size = sizeof(struct balloon_config),
            .features =
                BIT(STATS_VQ) | BIT(DEFLATE_ON_OOM) | BIT(PAGE_POISON) | BIT(PAGE_REPORTING),
            .queue = queue_class,
            .config_read = config_read,
            .config_write = config_write,
            .serve = serve,
            .stop = stop,
        },
    .options =
        (const struct option[]){
            VIRTIO_OPTION_PACKED,
            { .name = NULL },
        },
    .state = STATE(struct balloon, regs, 1, balloon_fields),
    .reset = reset,
    .memory_wish = memory_wish,
    .memory_ask = memory_ask,
};
