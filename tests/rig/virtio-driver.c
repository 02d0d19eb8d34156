/* The driver; see virtio-driver.h. One thread. */
#include "rig/virtio-driver.h"

#include <string.h>

enum {
    DEFAULT_SIZE = 64,
    MANY_TURNS = 100000,
    MESSAGE_ADDRESS = 0xfee00000,
    MESSAGE_DATA = 0x40,
};
/* Capabilities (section 4.1.4): where their bytes lie, and cfg_type. */
enum {
    CAP_VENDOR = 0x09,
    CAP_MSIX = 0x11,
    CAP_TYPE = 3,
    CAP_BAR = 4,
    CAP_OFFSET = 8,
    CAP_MORE = 16
};
enum { CFG_COMMON = 1, CFG_NOTIFY, CFG_ISR, CFG_DEVICE };
/* Descriptors (section 2.7.5). */
enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4, USED_NO_NOTIFY = 1 };

struct desc {
    le64 address;
    le32 length;
    le16 flags, next;
};

/* --- structures ----------------------------------------------------------------------------- */

static unsigned capability(struct rig *rig, unsigned after, unsigned id)
{
    unsigned at = rig_config_read(rig, after ? after + 1 : PCI_CAPABILITIES, 1);
    for (unsigned i = 0; at && i < 48; i++) {
        if (rig_config_read(rig, at, 1) == id)
            return at;
        at = rig_config_read(rig, at + 1, 1);
    }
    return 0;
}

struct driver *driver_find(struct rig *rig)
{
    struct driver *driver = g_new0(struct driver, 1);
    driver->rig = rig;
    driver->top = 0x10000;
    uint64_t *const structures[] = { [CFG_COMMON] = &driver->common,
                                     [CFG_NOTIFY] = &driver->notify,
                                     [CFG_ISR] = &driver->isr,
                                     [CFG_DEVICE] = &driver->config };
    for (unsigned at = 0; (at = capability(rig, at, CAP_VENDOR));) {
        unsigned type = rig_config_read(rig, at + CAP_TYPE, 1);
        unsigned bar = rig_config_read(rig, at + CAP_BAR, 1);
        if (type < CFG_COMMON || type > CFG_DEVICE || *structures[type])
            continue; /* the first of a kind is the device's choice */
        *structures[type] = rig_bar(rig, bar) + rig_config_read(rig, at + CAP_OFFSET, 4);
        if (type == CFG_NOTIFY)
            driver->notify_multiplier = rig_config_read(rig, at + CAP_MORE, 4);
    }
    g_assert_true(driver->common && driver->notify && driver->isr);
    return driver;
}

void driver_free(struct driver *driver)
{
    g_free(driver);
}

uint64_t driver_read(struct driver *driver, unsigned offset, unsigned width)
{
    return rig_load(driver->rig, driver->common + offset, width);
}

void driver_write(struct driver *driver, unsigned offset, unsigned width, uint64_t value)
{
    rig_store(driver->rig, driver->common + offset, width, value);
}

uint8_t driver_status(struct driver *driver)
{
    return (uint8_t)driver_read(driver, DRIVER_STATUS, 1);
}

uint64_t driver_config(struct driver *driver, unsigned offset, unsigned width)
{
    return rig_load(driver->rig, driver->config + offset, width);
}

void driver_config_write(struct driver *driver, unsigned offset, unsigned width, uint64_t value)
{
    rig_store(driver->rig, driver->config + offset, width, value);
}

uint8_t driver_isr(struct driver *driver)
{
    return (uint8_t)rig_load(driver->rig, driver->isr, 1);
}

uint64_t driver_room(struct driver *driver, uint64_t size)
{
    uint64_t align = size >= 4096 ? 4096 : 16;
    uint64_t at = (driver->top + align - 1) / align * align;
    driver->top = at + size;
    g_assert_cmpuint(driver->top, <=, RIG_RAM);
    g_autofree uint8_t *zeroes = g_malloc0(size);
    driver_put(driver, at, zeroes, size);
    return at;
}

void driver_put(struct driver *driver, uint64_t at, const void *data, size_t length)
{
    g_assert_true(guest_write(driver->rig->board.guest, GPA(at), data, length));
}

void driver_get(struct driver *driver, uint64_t at, void *data, size_t length)
{
    g_assert_true(guest_read(driver->rig->board.guest, GPA(at), data, length));
}

static uint16_t get16(struct driver *driver, uint64_t at)
{
    le16 value;
    driver_get(driver, at, &value, sizeof value);
    return le16_get(value);
}

static uint32_t get32(struct driver *driver, uint64_t at)
{
    le32 value;
    driver_get(driver, at, &value, sizeof value);
    return le32_get(value);
}

static void put16(struct driver *driver, uint64_t at, uint16_t value)
{
    le16 wire = le16_of(value);
    driver_put(driver, at, &wire, sizeof wire);
}

/* --- negotiation (section 3.1) -------------------------------------------------------------- */

void driver_reset(struct driver *driver)
{
    driver_write(driver, DRIVER_STATUS, 1, 0);
    for (unsigned i = 0; driver_status(driver) && i < MANY_TURNS; i++) {
        if (!loop_turn(driver->rig->dev->loop))
            rig_disk_step(driver->rig);
    }
    g_assert_cmpuint(driver_status(driver), ==, 0);
    memset(driver->queue, 0, sizeof driver->queue);
    driver->features = 0;
}

uint64_t driver_offered(struct driver *driver)
{
    driver_write(driver, DRIVER_DEVICE_FEATURE_SELECT, 4, 0);
    uint64_t low = driver_read(driver, DRIVER_DEVICE_FEATURE, 4);
    driver_write(driver, DRIVER_DEVICE_FEATURE_SELECT, 4, 1);
    return low | driver_read(driver, DRIVER_DEVICE_FEATURE, 4) << 32;
}

bool driver_negotiate(struct driver *driver, uint64_t features)
{
    driver_write(driver, DRIVER_STATUS, 1, DRIVER_ACKNOWLEDGE);
    driver_write(driver, DRIVER_STATUS, 1, DRIVER_ACKNOWLEDGE | DRIVER_DRIVER);
    for (unsigned half = 0; half < 2; half++) {
        driver_write(driver, DRIVER_FEATURE_SELECT, 4, half);
        driver_write(driver, DRIVER_FEATURE, 4, (uint32_t)(features >> 32 * half));
    }
    driver_write(driver, DRIVER_STATUS, 1, DRIVER_ACKNOWLEDGE | DRIVER_DRIVER | DRIVER_FEATURES_OK);
    driver->features = features;
    return driver_status(driver) & DRIVER_FEATURES_OK;
}

static bool has(const struct driver *driver, unsigned feature)
{
    return driver->features >> feature & 1;
}

bool driver_queue(struct driver *driver, unsigned index, unsigned size)
{
    struct driver_queue *queue = &driver->queue[index];
    g_assert_false(has(driver, VIRTIO_RING_PACKED));
    driver_write(driver, DRIVER_QUEUE_SELECT, 2, index);
    unsigned offered = (unsigned)driver_read(driver, DRIVER_QUEUE_SIZE, 2);
    if (!offered)
        return false;
    *queue = (struct driver_queue){ .size = (uint16_t)MIN(MIN(size, offered), DRIVER_ENTRIES) };
    queue->left = queue->size;
    for (unsigned i = 0; i < queue->size; i++)
        queue->next[i] = (uint16_t)(i + 1);
    queue->desc = driver_room(driver, 16u * queue->size);
    queue->avail = driver_room(driver, 6 + 2u * queue->size);
    queue->used = driver_room(driver, 6 + 8u * queue->size);
    queue->doorbell = driver->notify + driver_read(driver, DRIVER_QUEUE_NOTIFY_OFF, 2) *
                                           (uint64_t)driver->notify_multiplier;
    driver_write(driver, DRIVER_QUEUE_SIZE, 2, queue->size);
    const uint64_t parts[] = { queue->desc, queue->avail, queue->used };
    for (unsigned i = 0; i < G_N_ELEMENTS(parts); i++) {
        driver_write(driver, DRIVER_QUEUE_DESC + 8 * i, 4, (uint32_t)parts[i]);
        driver_write(driver, DRIVER_QUEUE_DESC + 8 * i + 4, 4, parts[i] >> 32);
    }
    if (pci_msix_enabled(driver->rig->dev)) {
        driver_write(driver, DRIVER_QUEUE_VECTOR, 2, index + 1);
        g_assert_cmpuint(driver_read(driver, DRIVER_QUEUE_VECTOR, 2), ==, index + 1);
    }
    driver_write(driver, DRIVER_QUEUE_ENABLE, 2, 1);
    return true;
}

void driver_ok(struct driver *driver)
{
    driver_write(driver, DRIVER_STATUS, 1,
                 DRIVER_ACKNOWLEDGE | DRIVER_DRIVER | DRIVER_FEATURES_OK | DRIVER_OK);
}

void driver_msix(struct driver *driver)
{
    struct rig *rig = driver->rig;
    unsigned at = capability(rig, 0, CAP_MSIX);
    g_assert_cmpuint(at, !=, 0);
    unsigned vectors = (rig_config_read(rig, at + 2, 2) & 0x7ff) + 1;
    uint32_t table = rig_config_read(rig, at + 4, 4);
    uint64_t entry = rig_bar(rig, table & 7) + (table & ~7u);
    for (unsigned i = 0; i < vectors; i++, entry += 16) {
        rig_store(rig, entry, 4, MESSAGE_ADDRESS);
        rig_store(rig, entry + 4, 4, 0);
        rig_store(rig, entry + 8, 4, MESSAGE_DATA + i);
        rig_store(rig, entry + 12, 4, 0);
    }
    rig_config_write(rig, at + 2, 2, 0x8000);
    driver_write(driver, DRIVER_CONFIG_VECTOR, 2, 0);
}

struct driver *driver_start(struct rig *rig, uint64_t wanted)
{
    const uint64_t never = UINT64_C(1) << VIRTIO_RING_PACKED;
    struct driver *driver = driver_find(rig);
    driver_reset(driver);
    uint64_t offered = driver_offered(driver);
    wanted = (wanted | UINT64_C(1) << VIRTIO_VERSION_1) & ~never;
    g_assert_true(driver_negotiate(driver, offered & wanted));
    driver->indirect = has(driver, VIRTIO_INDIRECT_DESC);
    unsigned queues = (unsigned)driver_read(driver, DRIVER_NUM_QUEUES, 2);
    for (unsigned i = 0; i < queues; i++)
        driver_queue(driver, i, DEFAULT_SIZE);
    driver_ok(driver);
    return driver;
}

/* --- rings (section 2.7) -------------------------------------------------------------------- */

static void put_desc(struct driver *driver, uint64_t table, unsigned index,
                     const struct driver_buffer *buffer, uint16_t flags, uint16_t next)
{
    const struct desc desc = {
        .address = le64_of(buffer->at),
        .length = le32_of(buffer->length),
        .flags = le16_of((uint16_t)(flags | (buffer->in ? DESC_WRITE : 0))),
        .next = le16_of(next),
    };
    driver_put(driver, table + index * sizeof desc, &desc, sizeof desc);
}

/* Takes a descriptor off the free list. */
static uint16_t take(struct driver_queue *queue)
{
    uint16_t index = queue->free;
    g_assert_cmpuint(queue->left, >, 0);
    queue->left--;
    queue->free = queue->next[index];
    return index;
}

static unsigned add_indirect(struct driver *driver, struct driver_queue *queue,
                             const struct driver_buffer *buffers, unsigned count)
{
    uint16_t head = take(queue);
    if (!queue->table[head])
        queue->table[head] = driver_room(driver, DRIVER_BUFFERS * sizeof(struct desc));
    for (unsigned i = 0; i < count; i++)
        put_desc(driver, queue->table[head], i, &buffers[i], i + 1 < count ? DESC_NEXT : 0,
                 (uint16_t)(i + 1 < count ? i + 1 : 0));
    const struct driver_buffer table = { queue->table[head],
                                         (uint32_t)(count * sizeof(struct desc)), false };
    put_desc(driver, queue->desc, head, &table, DESC_INDIRECT, 0);
    queue->chained[head] = 1;
    return head;
}

static unsigned add_direct(struct driver *driver, struct driver_queue *queue,
                           const struct driver_buffer *buffers, unsigned count)
{
    uint16_t head = take(queue), at = head;
    for (unsigned i = 0; i < count; i++) {
        bool more = i + 1 < count;
        uint16_t next = more ? take(queue) : 0;
        put_desc(driver, queue->desc, at, &buffers[i], more ? DESC_NEXT : 0, next);
        if (more)
            queue->next[at] = next;
        at = more ? next : at;
    }
    queue->chained[head] = (uint16_t)count;
    return head;
}

unsigned driver_add(struct driver *driver, unsigned index, const struct driver_buffer *buffers,
                    unsigned count)
{
    struct driver_queue *queue = &driver->queue[index];
    g_assert_cmpuint(count, >, 0);
    g_assert_cmpuint(count, <=, DRIVER_BUFFERS);
    unsigned head = driver->indirect ? add_indirect(driver, queue, buffers, count)
                                     : add_direct(driver, queue, buffers, count);
    put16(driver, queue->avail + 4 + 2u * (queue->available % queue->size), (uint16_t)head);
    put16(driver, queue->avail + 2, ++queue->available);
    return head;
}

bool driver_wanted(struct driver *driver, unsigned index)
{
    const struct driver_queue *queue = &driver->queue[index];
    if (!has(driver, VIRTIO_EVENT_IDX))
        return !(get16(driver, queue->used) & USED_NO_NOTIFY);
    uint16_t event = get16(driver, queue->used + 4 + 8u * queue->size);
    return (uint16_t)(queue->available - event - 1) <
           (uint16_t)(queue->available - queue->kicked); /* section 2.7.7.2 */
}

void driver_kick(struct driver *driver, unsigned index)
{
    driver->queue[index].kicked = driver->queue[index].available;
    rig_store(driver->rig, driver->queue[index].doorbell, 2, index);
}

void driver_turn(struct driver *driver)
{
    for (unsigned i = 0; loop_turn(driver->rig->dev->loop); i++)
        g_assert_cmpuint(i, <, MANY_TURNS);
}

void driver_run(struct driver *driver, unsigned index)
{
    driver_kick(driver, index);
    driver_turn(driver);
}

bool driver_used(struct driver *driver, unsigned index, unsigned *id, uint32_t *written)
{
    struct driver_queue *queue = &driver->queue[index];
    if (!queue->size || get16(driver, queue->used + 2) == queue->seen)
        return false;
    uint64_t element = queue->used + 4 + 8u * (queue->seen % queue->size);
    uint32_t head = get32(driver, element);
    g_assert_cmpuint(head, <, queue->size);
    g_assert_cmpuint(queue->chained[head], >, 0); /* it was made available, and comes back once */
    if (id)
        *id = head;
    if (written)
        *written = get32(driver, element + 4);
    uint16_t last = (uint16_t)head;
    for (unsigned i = 1; i < queue->chained[head]; i++)
        last = queue->next[last];
    queue->left = (uint16_t)(queue->left + queue->chained[head]);
    queue->next[last] = queue->free;
    queue->free = (uint16_t)head;
    queue->chained[head] = 0;
    queue->seen++;
    if (has(driver, VIRTIO_EVENT_IDX)) /* an interrupt for the next one */
        put16(driver, queue->avail + 4 + 2u * queue->size, queue->seen);
    return true;
}
