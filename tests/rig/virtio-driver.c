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
/* Descriptors (sections 2.7.5 and 2.8.13), suppression (2.7.6, 2.7.8, 2.8.14). */
enum {
    DESC_NEXT = 1,
    DESC_WRITE = 2,
    DESC_INDIRECT = 4,
    DESC_AVAIL = 1 << 7,
    DESC_USED = 1 << 15,
    USED_NO_NOTIFY = 1,
    AVAIL_NO_INTERRUPT = 1,
    WRAP = 1 << 15,
    EVENTS_ON = 0,
    EVENTS_OFF = 1,
    EVENTS_AT = 2,
};

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
    rig->turns = 0; /* when the device has its turn is for the test to say */
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

/* Members that the other side may look at meanwhile (indices, flags): in order with what was put
 * before, or is got after. */
static uint16_t *shared(struct driver *driver, uint64_t at)
{
    void *host = guest_ram_host(driver->rig->board.guest, GPA(at), sizeof(uint16_t));
    g_assert_nonnull(host);
    return host;
}

static uint16_t get16(struct driver *driver, uint64_t at)
{
    return __atomic_load_n(shared(driver, at), __ATOMIC_ACQUIRE);
}

static uint32_t get32(struct driver *driver, uint64_t at)
{
    le32 value;
    driver_get(driver, at, &value, sizeof value);
    return le32_get(value);
}

static void put16(struct driver *driver, uint64_t at, uint16_t value)
{
    __atomic_store_n(shared(driver, at), value, __ATOMIC_SEQ_CST);
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
    driver_write(driver, DRIVER_QUEUE_SELECT, 2, index);
    unsigned offered = (unsigned)driver_read(driver, DRIVER_QUEUE_SIZE, 2);
    if (!offered)
        return false;
    *queue = (struct driver_queue){ .size = (uint16_t)MIN(MIN(size, offered), DRIVER_ENTRIES) };
    queue->left = queue->size;
    queue->packed = has(driver, VIRTIO_RING_PACKED);
    if (queue->packed)
        queue->available = queue->seen = WRAP;
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
    struct driver *driver = driver_find(rig);
    driver_reset(driver);
    uint64_t offered = driver_offered(driver);
    wanted |= UINT64_C(1) << VIRTIO_VERSION_1;
    g_assert_true(driver_negotiate(driver, offered & wanted));
    driver->indirect = has(driver, VIRTIO_INDIRECT_DESC);
    unsigned queues = (unsigned)driver_read(driver, DRIVER_NUM_QUEUES, 2);
    for (unsigned i = 0; i < queues; i++)
        driver_queue(driver, i, DEFAULT_SIZE);
    driver_ok(driver);
    return driver;
}

/* --- adding (sections 2.7.13, 2.8.21) ------------------------------------------------------- */

/* A position of a packed ring goes on. */
static uint16_t advance(const struct driver_queue *queue, uint16_t position, unsigned by)
{
    unsigned index = (position & ~WRAP) + by;
    return (uint16_t)(index < queue->size
                          ? index | (position & WRAP)
                          : (index - queue->size) | ((position & WRAP) ^ (unsigned)WRAP));
}

void driver_descriptor(struct driver *driver, uint64_t table, unsigned index, uint64_t at,
                       uint32_t length, unsigned a, unsigned b)
{
    const struct desc desc = { le64_of(at), le32_of(length), le16_of((uint16_t)a),
                               le16_of((uint16_t)b) };
    driver_put(driver, table + index * sizeof desc, &desc, sizeof desc);
}

static unsigned flags_of(const struct driver_buffer *buffers, unsigned i, unsigned count)
{
    return (i + 1 < count ? DESC_NEXT : 0) | (buffers[i].in ? DESC_WRITE : 0);
}

/* Takes an entry off the free list: a descriptor, or the id of a packed chain. */
static uint16_t take(struct driver_queue *queue)
{
    uint16_t index = queue->free;
    queue->free = queue->next[index];
    return index;
}

static uint64_t make_table(struct driver *driver, struct driver_queue *queue, unsigned id,
                           const struct driver_buffer *buffers, unsigned count)
{
    if (!queue->table[id])
        queue->table[id] = driver_room(driver, DRIVER_BUFFERS * sizeof(struct desc));
    for (unsigned i = 0; i < count; i++) {
        unsigned flags = flags_of(buffers, i, count), next = i + 1 < count ? i + 1 : 0;
        driver_descriptor(driver, queue->table[id], i, buffers[i].at, buffers[i].length,
                          queue->packed ? 0 : flags, queue->packed ? flags & DESC_WRITE : next);
    }
    return queue->table[id];
}

static unsigned add_split(struct driver *driver, struct driver_queue *queue,
                          const struct driver_buffer *buffers, unsigned count, bool indirect)
{
    uint16_t head = take(queue), at = head;
    if (indirect)
        driver_descriptor(driver, queue->desc, head,
                          make_table(driver, queue, head, buffers, count),
                          (uint32_t)(count * sizeof(struct desc)), DESC_INDIRECT, 0);
    for (unsigned i = 0; i < count && !indirect; i++) {
        bool more = i + 1 < count;
        uint16_t next = more ? take(queue) : 0;
        driver_descriptor(driver, queue->desc, at, buffers[i].at, buffers[i].length,
                          flags_of(buffers, i, count), next);
        if (more)
            queue->next[at] = next;
        at = more ? next : at;
    }
    driver_offer(driver, queue, head);
    return head;
}

void driver_offer(struct driver *driver, struct driver_queue *queue, unsigned head)
{
    put16(driver, queue->avail + 4 + 2u * (queue->available % queue->size), (uint16_t)head);
    put16(driver, queue->avail + 2, ++queue->available);
}

void driver_offer_packed(struct driver *driver, struct driver_queue *queue, uint16_t position,
                         uint64_t at, uint32_t length, unsigned id, unsigned flags)
{
    uint64_t entry = queue->desc + (position & ~WRAP) * sizeof(struct desc);
    const struct desc desc = { le64_of(at), le32_of(length), le16_of((uint16_t)id), { 0 } };
    driver_put(driver, entry, &desc, offsetof(struct desc, next));
    put16(driver, entry + offsetof(struct desc, next),
          (uint16_t)(flags | (position & WRAP ? DESC_AVAIL : DESC_USED)));
}

/* The first descriptor is made available last. */
static unsigned add_packed(struct driver *driver, struct driver_queue *queue,
                           const struct driver_buffer *buffers, unsigned count, bool indirect)
{
    unsigned id = take(queue);
    if (indirect)
        driver_offer_packed(driver, queue, queue->available,
                            make_table(driver, queue, id, buffers, count),
                            (uint32_t)(count * sizeof(struct desc)), id, DESC_INDIRECT);
    for (unsigned i = count; i-- && !indirect;)
        driver_offer_packed(driver, queue, advance(queue, queue->available, i), buffers[i].at,
                            buffers[i].length, id, flags_of(buffers, i, count));
    queue->available = advance(queue, queue->available, indirect ? 1 : count);
    return id;
}

unsigned driver_add(struct driver *driver, unsigned index, const struct driver_buffer *buffers,
                    unsigned count)
{
    struct driver_queue *queue = &driver->queue[index];
    bool indirect = driver->indirect;
    uint16_t entries = (uint16_t)(indirect ? 1 : count);
    g_assert_cmpuint(count, >, 0);
    g_assert_cmpuint(count, <=, DRIVER_BUFFERS);
    g_assert_cmpuint(queue->left, >=, entries);
    queue->left = (uint16_t)(queue->left - entries);
    queue->added = (uint16_t)(queue->added + (queue->packed ? entries : 1));
    unsigned id = queue->packed ? add_packed(driver, queue, buffers, count, indirect)
                                : add_split(driver, queue, buffers, count, indirect);
    queue->chained[id] = entries;
    return id;
}

/* Is the event one of the last `added` before `index`? (sections 2.7.7.2, 2.8.10) */
static bool passed(uint16_t event, uint16_t index, uint16_t added)
{
    return (uint16_t)(index - event - 1) < added;
}

bool driver_wanted(struct driver *driver, unsigned index)
{
    const struct driver_queue *queue = &driver->queue[index];
    if (queue->packed) {
        uint16_t at = get16(driver, queue->used), flags = get16(driver, queue->used + 2);
        uint16_t event = at & (uint16_t)~WRAP;
        if (flags != EVENTS_AT)
            return flags == EVENTS_ON;
        if ((at ^ queue->available) & WRAP)
            event = (uint16_t)(event - queue->size);
        return passed(event, queue->available & (uint16_t)~WRAP, queue->added);
    }
    if (!has(driver, VIRTIO_EVENT_IDX))
        return !(get16(driver, queue->used) & USED_NO_NOTIFY);
    return passed(get16(driver, queue->used + 4 + 8u * queue->size), queue->available,
                  queue->added);
}

void driver_kick(struct driver *driver, unsigned index)
{
    driver->queue[index].added = 0;
    rig_store(driver->rig, driver->queue[index].doorbell, 2, index);
}

/* --- interrupts ----------------------------------------------------------------------------- */

void driver_interrupts(struct driver *driver, unsigned index, bool on)
{
    const struct driver_queue *queue = &driver->queue[index];
    if (queue->packed)
        put16(driver, queue->avail + 2, on ? EVENTS_ON : EVENTS_OFF);
    else
        put16(driver, queue->avail, on ? 0 : AVAIL_NO_INTERRUPT);
}

void driver_event(struct driver *driver, unsigned index, unsigned after)
{
    const struct driver_queue *queue = &driver->queue[index];
    if (queue->packed) {
        put16(driver, queue->avail, advance(queue, queue->seen, after));
        put16(driver, queue->avail + 2, EVENTS_AT);
    } else {
        put16(driver, queue->avail + 4 + 2u * queue->size, (uint16_t)(queue->seen + after));
    }
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

/* The id and the length of the next used chain, if there is one. */
static bool next_used(struct driver *driver, const struct driver_queue *queue, uint32_t *id,
                      uint32_t *written)
{
    if (queue->packed) {
        uint64_t entry = queue->desc + (queue->seen & ~WRAP) * sizeof(struct desc);
        unsigned flags = get16(driver, entry + offsetof(struct desc, next));
        bool wrap = queue->seen & WRAP;
        if (!!(flags & DESC_AVAIL) != wrap || !!(flags & DESC_USED) != wrap)
            return false;
        *id = get16(driver, entry + offsetof(struct desc, flags));
        *written = get32(driver, entry + offsetof(struct desc, length));
        return true;
    }
    uint64_t element = queue->used + 4 + 8u * (queue->seen % queue->size);
    if (get16(driver, queue->used + 2) == queue->seen)
        return false;
    *id = get32(driver, element);
    *written = get32(driver, element + 4);
    return true;
}

bool driver_used(struct driver *driver, unsigned index, unsigned *id, uint32_t *written)
{
    struct driver_queue *queue = &driver->queue[index];
    uint32_t head, length;
    if (!queue->size || !next_used(driver, queue, &head, &length))
        return false;
    g_assert_cmpuint(head, <, queue->size);
    uint16_t chained = queue->chained[head], last = (uint16_t)head;
    g_assert_cmpuint(chained, >, 0); /* it was made available, and comes back once */
    if (id)
        *id = head;
    if (written)
        *written = length;
    for (unsigned i = 1; i < chained && !queue->packed; i++)
        last = queue->next[last];
    queue->left = (uint16_t)(queue->left + chained);
    queue->next[last] = queue->free;
    queue->free = (uint16_t)head;
    queue->chained[head] = 0;
    queue->seen = queue->packed ? advance(queue, queue->seen, chained) : queue->seen + 1;
    if (has(driver, VIRTIO_EVENT_IDX) && !queue->quiet)
        driver_event(driver, index, 0); /* an interrupt for the next one */
    return true;
}
