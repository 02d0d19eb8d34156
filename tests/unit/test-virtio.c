/* The virtio core (virtio 1.2 sections 2 to 4.1) by what a driver sees of it: transport,
 * negotiation, both kinds of ring, interrupts, resets. The device is virtio-blk; its requests wait
 * in the rig's disk. Most tests run with split and with packed rings. */
#include "base/log.h"
#include "base/loop.h"
#include "bus/ring.h"
#include "rig/virtio-driver.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { T_IN = 0, T_OUT = 1, HEADER = 16, NO_VECTOR = 0xffff, WRAP = 0x8000 };
enum { BIT_AVAIL = 1 << 7, BIT_USED = 1 << 15 };
#define FEATURE(bit) (UINT64_C(1) << (bit))
static const uint64_t plain = FEATURE(VIRTIO_VERSION_1) | FEATURE(VIRTIO_RING_PACKED);
static const uint64_t all = ~UINT64_C(0);

static const struct kind {
    const char *name, *packed;
} kinds[] = { { "split", "off" }, { "packed", "on" } };

static struct rig *rig_of(const struct kind *kind)
{
    const char *const options[] = { "queues", "2", "packed", kind->packed, NULL };
    return rig_new(device_class_find("virtio-blk"), options);
}

static bool is_packed(const struct kind *kind)
{
    return !strcmp(kind->packed, "on");
}

static struct driver *open_driver(const struct kind *kind, uint64_t features)
{
    struct driver *driver = driver_start(rig_of(kind), features);
    g_assert_cmpuint(driver_status(driver), ==,
                     DRIVER_ACKNOWLEDGE | DRIVER_DRIVER | DRIVER_FEATURES_OK | DRIVER_OK);
    g_assert_true(driver->queue[0].packed == is_packed(kind));
    return driver;
}

/* Queues of `size` entries, and no indirect tables. */
static struct driver *open_small(const struct kind *kind, uint64_t features, unsigned size)
{
    struct driver *driver = driver_find(rig_of(kind));
    driver_reset(driver);
    g_assert_true(
        driver_negotiate(driver, driver_offered(driver) & (features | FEATURE(VIRTIO_VERSION_1))));
    g_assert_true(driver_queue(driver, 0, size));
    g_assert_true(driver_queue(driver, 1, size));
    driver_ok(driver);
    return driver;
}

static void done(struct driver *driver)
{
    struct rig *rig = driver->rig;
    driver_free(driver);
    rig_free(rig);
}

/* A read or write of `bytes` at a sector; the status lies behind the header. */
static unsigned add(struct driver *driver, unsigned queue, unsigned type, uint64_t sector,
                    uint64_t at, uint32_t bytes)
{
    uint64_t header = driver_room(driver, HEADER + 1);
    const struct {
        le32 type, reserved;
        le64 sector;
    } h = { le32_of(type), { 0 }, le64_of(sector) };
    driver_put(driver, header, &h, sizeof h);
    driver_put(driver, header + HEADER, "\xee", 1);
    const struct driver_buffer buffers[] = { { header, HEADER, false },
                                             { at, bytes, type == T_IN },
                                             { header + HEADER, 1, true } };
    return driver_add(driver, queue, buffers, G_N_ELEMENTS(buffers));
}

static unsigned intx(struct driver *driver)
{
    return rig_line(driver->rig, "intx")->rises;
}

static bool is_broken(struct driver *driver)
{
    return driver_status(driver) & DRIVER_NEEDS_RESET;
}

/* A read is done, and the device answers. */
static void works(struct driver *driver, unsigned queue)
{
    unsigned id, back;
    uint32_t written;
    uint64_t at = driver_room(driver, 512);
    memset(driver->rig->disk->data + 512, 0x5a, 512);
    id = add(driver, queue, T_IN, 1, at, 512);
    driver_run(driver, queue);
    rig_disk_run(driver->rig);
    driver_turn(driver);
    g_assert_true(driver_used(driver, queue, &back, &written));
    g_assert_cmpuint(back, ==, id);
    g_assert_cmpuint(written, ==, 513);
    uint8_t data[512];
    driver_get(driver, at, data, sizeof data);
    g_assert_true(data[0] == 0x5a && data[511] == 0x5a);
    g_assert_false(driver_used(driver, queue, NULL, NULL));
}

/* --- the function and its structures (section 4.1) ------------------------------------------ */

static void identity(const void *kind)
{
    struct rig *rig = rig_of(kind);
    g_assert_cmphex(rig_config_read(rig, PCI_VENDOR, 2), ==, 0x1af4);
    g_assert_cmphex(rig_config_read(rig, PCI_DEVICE, 2), ==, 0x1042);
    g_assert_cmpuint(rig_config_read(rig, PCI_REVISION, 1), >=, 1);
    unsigned types = 0, length_of[8] = { 0 };
    for (unsigned at = rig_config_read(rig, PCI_CAPABILITIES, 1); at;
         at = rig_config_read(rig, at + 1, 1))
        if (rig_config_read(rig, at, 1) == 9) {
            unsigned type = rig_config_read(rig, at + 3, 1);
            types |= 1u << type;
            length_of[type] = rig_config_read(rig, at + 12, 4);
            g_assert_cmpuint(rig_config_read(rig, at + 8, 4) % 4, ==, 0);
        }
    g_assert_cmphex(types, ==, 0x3e);
    g_assert_cmpuint(length_of[1], >=, 56);
    struct driver *driver = driver_find(rig);
    g_assert_cmpuint(driver_read(driver, DRIVER_NUM_QUEUES, 2), ==, 2);
    g_assert_cmpuint(length_of[2], >=, 2 * driver->notify_multiplier);
    done(driver);
}

static void negotiation(const void *kind)
{
    struct driver *driver = driver_find(rig_of(kind));
    driver_reset(driver);
    uint64_t offered = driver_offered(driver);
    g_assert_true(offered & FEATURE(VIRTIO_VERSION_1) && offered & FEATURE(VIRTIO_RING_RESET) &&
                  offered & FEATURE(VIRTIO_EVENT_IDX) && offered & FEATURE(VIRTIO_INDIRECT_DESC));
    g_assert_true(!!(offered & FEATURE(VIRTIO_RING_PACKED)) == is_packed(kind));
    for (unsigned half = 2; half < 70; half += 31) {
        driver_write(driver, DRIVER_DEVICE_FEATURE_SELECT, 4, half);
        g_assert_cmphex(driver_read(driver, DRIVER_DEVICE_FEATURE, 4), ==, 0);
        driver_write(driver, DRIVER_FEATURE_SELECT, 4, half);
        driver_write(driver, DRIVER_FEATURE, 4, UINT32_MAX);
        g_assert_cmphex(driver_read(driver, DRIVER_FEATURE, 4), ==, 0);
    }
    /* Bits that were not offered, and a driver of before 1.0. */
    g_assert_false(driver_negotiate(driver, offered | FEATURE(63)));
    driver_reset(driver);
    g_assert_false(driver_negotiate(driver, offered & ~FEATURE(VIRTIO_VERSION_1)));
    driver_ok(driver); /* which says FEATURES_OK again */
    g_assert_cmphex(driver_status(driver) & (DRIVER_OK | DRIVER_FEATURES_OK), ==, 0);
    driver_reset(driver);
    g_assert_true(driver_negotiate(driver, offered));
    /* What was agreed stays (section 2.2.1). */
    driver_write(driver, DRIVER_FEATURE_SELECT, 4, 1);
    driver_write(driver, DRIVER_FEATURE, 4, 0);
    g_assert_cmphex(driver_read(driver, DRIVER_FEATURE, 4), ==, offered >> 32);
    done(driver);
}

static void status(const void *kind)
{
    struct driver *driver = driver_find(rig_of(kind));
    driver_reset(driver);
    driver_write(driver, DRIVER_STATUS, 1, DRIVER_OK); /* without FEATURES_OK */
    g_assert_cmphex(driver_status(driver), ==, 0);
    driver_write(driver, DRIVER_STATUS, 1, DRIVER_ACKNOWLEDGE);
    driver_write(driver, DRIVER_STATUS, 1, DRIVER_DRIVER); /* bits are not taken back */
    g_assert_cmphex(driver_status(driver), ==, DRIVER_ACKNOWLEDGE | DRIVER_DRIVER);
    driver_write(driver, DRIVER_STATUS, 1, DRIVER_NEEDS_RESET | 128);
    g_assert_cmphex(driver_status(driver), ==, DRIVER_ACKNOWLEDGE | DRIVER_DRIVER | 128);
    /* Queues wait for the features. */
    driver_write(driver, DRIVER_QUEUE_ENABLE, 2, 1);
    g_assert_cmpuint(driver_read(driver, DRIVER_QUEUE_ENABLE, 2), ==, 0);
    driver_write(driver, DRIVER_STATUS, 1, 0);
    g_assert_cmphex(driver_status(driver), ==, 0);
    done(driver);
}

/* All of it, by accesses of wrong widths and at wrong places. */
static void widths(const void *kind)
{
    struct driver *driver = driver_find(rig_of(kind));
    driver_reset(driver);
    driver_write(driver, DRIVER_QUEUE_DESC, 8, UINT64_C(0x1122334455667788));
    g_assert_cmphex(driver_read(driver, DRIVER_QUEUE_DESC, 8), ==, UINT64_C(0x1122334455667788));
    g_assert_cmphex(driver_read(driver, DRIVER_QUEUE_DESC + 4, 4), ==, 0x11223344);
    driver_write(driver, DRIVER_QUEUE_DESC + 4, 4, 0xaabbccdd);
    g_assert_cmphex(driver_read(driver, DRIVER_QUEUE_DESC, 8), ==, UINT64_C(0xaabbccdd55667788));
    driver_write(driver, DRIVER_QUEUE_DESC, 2, 0); /* neither whole nor half */
    g_assert_cmphex(driver_read(driver, DRIVER_QUEUE_DESC, 4), ==, 0x55667788);
    driver_write(driver, DRIVER_QUEUE_SIZE, 1, 1);
    driver_write(driver, DRIVER_QUEUE_SIZE + 1, 1, 1);
    g_assert_cmpuint(driver_read(driver, DRIVER_QUEUE_SIZE, 2), ==, 256);
    driver_write(driver, DRIVER_STATUS, 4, 0x01010101);
    g_assert_cmphex(driver_status(driver), ==, 0);
    driver_write(driver, DRIVER_QUEUE_SELECT, 2, 2); /* there is none */
    driver_write(driver, DRIVER_QUEUE_DESC, 8, 1);
    driver_write(driver, DRIVER_QUEUE_RESET, 2, 1);
    for (unsigned at = DRIVER_QUEUE_SIZE; at < 0x40; at += 2)
        if (at != DRIVER_QUEUE_VECTOR && at != DRIVER_QUEUE_NOTIFY_OFF &&
            at != DRIVER_QUEUE_NOTIFY_DATA)
            g_assert_cmphex(driver_read(driver, at, 2), ==, 0);
    g_assert_cmphex(rig_load(driver->rig, driver->isr + 1, 1), ==, 0);
    g_assert_cmphex(rig_load(driver->rig, driver->notify, 4), ==, 0);
    done(driver);
}

/* What was said when the queue was enabled counts until its reset (section 4.1.4.3.2). */
static void frozen(const void *kind)
{
    struct driver *driver = open_driver(kind, all);
    static const struct {
        unsigned offset, width;
    } fields[] = { { DRIVER_QUEUE_SIZE, 2 },
                   { DRIVER_QUEUE_DESC, 8 },
                   { DRIVER_QUEUE_DRIVER, 8 },
                   { DRIVER_QUEUE_DEVICE, 8 },
                   { DRIVER_QUEUE_ENABLE, 2 } };
    driver_write(driver, DRIVER_QUEUE_SELECT, 2, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(fields); i++) {
        uint64_t was = driver_read(driver, fields[i].offset, fields[i].width);
        driver_write(driver, fields[i].offset, fields[i].width, 0);
        driver_write(driver, fields[i].offset, fields[i].width, 0xfff0);
        g_assert_cmphex(driver_read(driver, fields[i].offset, fields[i].width), ==, was);
    }
    works(driver, 0);
    done(driver);
}

static void sizes(const void *kind)
{
    static const struct {
        unsigned size;
        bool split, packed;
    } cases[] = { { 0, false, false },     { 1, true, true },      { 2, true, true },
                  { 3, false, true },      { 255, false, true },   { 256, true, true },
                  { 257, false, false },   { 1024, false, false }, { 0x8000, false, false },
                  { 0xffff, false, false } };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct driver *driver = driver_find(rig_of(kind));
        driver_reset(driver);
        driver_negotiate(driver, driver_offered(driver) & plain);
        driver_write(driver, DRIVER_QUEUE_SIZE, 2, cases[i].size);
        for (unsigned part = 0; part < 3; part++)
            driver_write(driver, DRIVER_QUEUE_DESC + 8 * part, 8, 0x10000 + 0x4000 * part);
        driver_write(driver, DRIVER_QUEUE_ENABLE, 2, 1);
        bool good = is_packed(kind) ? cases[i].packed : cases[i].split;
        g_assert_cmpuint(driver_read(driver, DRIVER_QUEUE_ENABLE, 2), ==, good);
        g_assert_true(is_broken(driver) == !good);
        done(driver);
    }
}

static void areas(const void *kind)
{
    static const struct {
        uint64_t part[3];
    } cases[] = {
        { { 0x10008, 0x14000, 0x18000 } },       { { 0x10000, 0x14001, 0x18000 } },
        { { 0x10000, 0x14000, 0x18002 } },       { { RIG_RAM - 256, 0x14000, 0x18000 } },
        { { 0x10000, RIG_RAM - 2, 0x18000 } },   { { 0x10000, 0x14000, RIG_RAM } },
        { { 0x10000000, 0x14000, 0x18000 } }, /* a BAR */
        { { -UINT64_C(16), 0x14000, 0x18000 } }, { { 0x10000, -UINT64_C(4), 0x18000 } },
        { { 0x10000, 0x14000, -UINT64_C(4) } },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct driver *driver = driver_find(rig_of(kind));
        driver_reset(driver);
        driver_negotiate(driver, driver_offered(driver) & plain);
        for (unsigned part = 0; part < 3; part++)
            driver_write(driver, DRIVER_QUEUE_DESC + 8 * part, 8, cases[i].part[part]);
        driver_write(driver, DRIVER_QUEUE_ENABLE, 2, 1);
        g_assert_cmpuint(driver_read(driver, DRIVER_QUEUE_ENABLE, 2), ==, 0);
        g_assert_true(is_broken(driver));
        driver_write(driver, DRIVER_STATUS, 1, 0xff); /* it takes a reset */
        driver_turn(driver);
        g_assert_false(virtio_running(driver->rig->dev));
        driver_reset(driver);
        g_assert_false(is_broken(driver));
        done(driver);
    }
}

/* The window in configuration space (section 4.1.4.9), which firmware uses in real mode. */
static void config_window(const void *kind)
{
    struct driver *driver = open_driver(kind, plain);
    struct rig *rig = driver->rig;
    unsigned at = rig_config_read(rig, PCI_CAPABILITIES, 1);
    while (rig_config_read(rig, at, 1) != 9 || rig_config_read(rig, at + 3, 1) != 5)
        at = rig_config_read(rig, at + 1, 1);
    uint32_t base = (uint32_t)(driver->common - rig_bar(rig, 4));
    rig_config_write(rig, at + 4, 1, 4);
    rig_config_write(rig, at + 8, 4, base + DRIVER_STATUS);
    rig_config_write(rig, at + 12, 4, 1);
    g_assert_cmphex(rig_config_read(rig, at + 16, 1), ==, driver_status(driver));
    rig_config_write(rig, at + 8, 4, base + DRIVER_NUM_QUEUES);
    rig_config_write(rig, at + 12, 4, 2);
    g_assert_cmphex(rig_config_read(rig, at + 16, 2), ==, 2);
    rig_config_write(rig, at + 8, 4, base + DRIVER_QUEUE_SELECT);
    rig_config_write(rig, at + 16, 2, 1);
    g_assert_cmphex(driver_read(driver, DRIVER_QUEUE_SELECT, 2), ==, 1);
    /* Nothing happens outside the BAR, at another BAR, at lengths that are none. */
    static const struct {
        uint32_t bar, offset, length;
    } wrong[] = { { 1, 0, 4 }, { 4, 0x4000, 4 }, { 4, 0xfffffffc, 4 }, { 4, 0x3ffe, 4 },
                  { 4, 2, 4 }, { 4, 0x16, 8 },   { 4, 0x16, 0 },       { 4, 0x16, 3 } };
    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        rig_config_write(rig, at + 4, 1, wrong[i].bar);
        rig_config_write(rig, at + 8, 4, wrong[i].offset);
        rig_config_write(rig, at + 12, 4, wrong[i].length);
        rig_config_write(rig, at + 16, 4, 0);
        rig_config_read(rig, at + 16, 4);
        g_assert_cmphex(driver_read(driver, DRIVER_QUEUE_SELECT, 2), ==, 1);
    }
    /* With the BARs off it is the only way. */
    rig_config_write(rig, at + 4, 1, 4);
    rig_config_write(rig, PCI_COMMAND, 2, 0);
    rig_config_write(rig, at + 8, 4, base + DRIVER_STATUS);
    rig_config_write(rig, at + 12, 4, 1);
    rig_config_write(rig, at + 16, 1, 0);
    g_assert_cmphex(rig_config_read(rig, at + 16, 1), ==, 0);
    done(driver);
}

/* --- interrupts (section 4.1.4.5, 4.1.5) ---------------------------------------------------- */

static void isr(const void *kind)
{
    struct driver *driver = open_driver(kind, plain);
    struct rig_line *line = rig_line(driver->rig, "intx");
    works(driver, 1);
    g_assert_true(line->level);
    g_assert_cmphex(rig_config_read(driver->rig, PCI_STATUS, 2) & PCI_STATUS_INTX, !=, 0);
    rig_config_write(driver->rig, PCI_COMMAND, 2, 0x406); /* INTx off */
    g_assert_false(line->level);
    rig_config_write(driver->rig, PCI_COMMAND, 2, 6);
    g_assert_true(line->level);
    g_assert_cmphex(driver_isr(driver), ==, 1);
    g_assert_false(line->level);
    g_assert_cmphex(driver_isr(driver), ==, 0);

    uint8_t generation = (uint8_t)driver_read(driver, DRIVER_GENERATION, 1);
    driver->rig->dev->class->disk_resized(driver->rig->dev, 0);
    g_assert_cmpuint(driver_read(driver, DRIVER_GENERATION, 1), !=, generation);
    g_assert_true(line->level);
    g_assert_cmphex(driver_isr(driver), ==, 2);
    g_assert_cmpuint(driver->rig->msis, ==, 0);
    driver_reset(driver);
    driver->rig->dev->class->disk_resized(driver->rig->dev, 0); /* nobody listens */
    g_assert_cmphex(driver_isr(driver), ==, 0);
    done(driver);
}

struct vectors {
    struct driver *driver;
    uint64_t table, pending;
    unsigned control;
};

static struct vectors with_msix(const struct kind *kind)
{
    struct vectors m = { .driver = driver_find(rig_of(kind)) };
    struct rig *rig = m.driver->rig;
    driver_reset(m.driver);
    driver_negotiate(m.driver, driver_offered(m.driver) & plain);
    driver_msix(m.driver);
    driver_queue(m.driver, 0, 16);
    driver_queue(m.driver, 1, 16);
    driver_ok(m.driver);
    unsigned at = rig_config_read(rig, PCI_CAPABILITIES, 1);
    while (rig_config_read(rig, at, 1) != 0x11)
        at = rig_config_read(rig, at + 1, 1);
    m.control = at + 2;
    uint32_t table = rig_config_read(rig, at + 4, 4), pba = rig_config_read(rig, at + 8, 4);
    m.table = rig_bar(rig, table & 7) + (table & ~7u);
    m.pending = rig_bar(rig, pba & 7) + (pba & ~7u);
    g_assert_cmpuint(rig_config_read(rig, m.control, 2) & 0x7ff, ==, 2); /* three vectors */
    return m;
}

static void msix(const void *kind)
{
    struct vectors m = with_msix(kind);
    struct rig *rig = m.driver->rig;
    works(m.driver, 0);
    g_assert_cmpuint(rig->msis, ==, 1);
    g_assert_cmphex(rig->last_msi.data, ==, 0x41);
    works(m.driver, 1);
    g_assert_cmpuint(rig->msis, ==, 2);
    g_assert_cmphex(rig->last_msi.data, ==, 0x42);
    g_assert_cmphex(rig->last_msi.address, ==, 0xfee00000);
    rig->dev->class->disk_resized(rig->dev, 0);
    g_assert_cmphex(rig->last_msi.data, ==, 0x40);
    g_assert_cmpuint(intx(m.driver), ==, 0);
    g_assert_cmphex(driver_isr(m.driver), ==, 0); /* not used with MSI-X */

    driver_write(m.driver, DRIVER_QUEUE_SELECT, 2, 0);
    driver_write(m.driver, DRIVER_QUEUE_VECTOR, 2, 3); /* there is none */
    g_assert_cmphex(driver_read(m.driver, DRIVER_QUEUE_VECTOR, 2), ==, NO_VECTOR);
    driver_write(m.driver, DRIVER_CONFIG_VECTOR, 2, 0x1234);
    g_assert_cmphex(driver_read(m.driver, DRIVER_CONFIG_VECTOR, 2), ==, NO_VECTOR);
    works(m.driver, 0);
    rig->dev->class->disk_resized(rig->dev, 0);
    g_assert_cmpuint(rig->msis, ==, 3);
    driver_write(m.driver, DRIVER_QUEUE_VECTOR, 2, 2);
    works(m.driver, 0);
    g_assert_cmpuint(rig->msis, ==, 4);
    g_assert_cmphex(rig->last_msi.data, ==, 0x42);
    done(m.driver);
}

/* PCI 3.0 section 6.8.2.9: masked vectors are pending, and sent once when they are not. */
static void msix_masks(const void *kind)
{
    struct vectors m = with_msix(kind);
    struct rig *rig = m.driver->rig;
    rig_store(rig, m.table + 16 + 12, 4, 0xffffffff);
    g_assert_cmphex(rig_load(rig, m.table + 16 + 12, 4), ==, 1);
    works(m.driver, 0);
    works(m.driver, 0);
    g_assert_cmpuint(rig->msis, ==, 0);
    g_assert_cmphex(rig_load(rig, m.pending, 8), ==, 2);
    rig_store(rig, m.pending, 8, 0); /* read-only */
    g_assert_cmphex(rig_load(rig, m.pending, 4), ==, 2);
    rig_store(rig, m.table + 16 + 8, 4, 0x77); /* the message may change while it is masked */
    rig_store(rig, m.table + 16 + 12, 4, 0);
    g_assert_cmpuint(rig->msis, ==, 1);
    g_assert_cmphex(rig->last_msi.data, ==, 0x77);
    g_assert_cmphex(rig_load(rig, m.pending, 8), ==, 0);

    rig_config_write(rig, m.control, 2, 0xc000); /* all */
    works(m.driver, 0);
    works(m.driver, 1);
    g_assert_cmpuint(rig->msis, ==, 1);
    g_assert_cmphex(rig_load(rig, m.pending, 8), ==, 6);
    rig_config_write(rig, m.control, 2, 0x8000);
    g_assert_cmpuint(rig->msis, ==, 3);
    g_assert_cmphex(rig_load(rig, m.pending, 8), ==, 0);

    /* A message is a write of the function's: none without bus mastering. */
    add(m.driver, 0, T_IN, 0, driver_room(m.driver, 512), 512);
    driver_run(m.driver, 0);
    rig_config_write(rig, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    rig->dev->class->disk_resized(rig->dev, 0);
    g_assert_cmpuint(rig->msis, ==, 3);
    g_assert_cmphex(rig_load(rig, m.pending, 8), ==, 1);
    rig_config_write(rig, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    g_assert_cmpuint(rig->msis, ==, 4);
    g_assert_cmphex(rig->last_msi.data, ==, 0x40);
    /* The rest of the BAR. */
    g_assert_cmphex(rig_load(rig, m.table + 3 * 16, 8), ==, 0);
    rig_store(rig, m.table + 3 * 16, 8, UINT64_MAX);
    g_assert_cmphex(rig_load(rig, m.table + 3 * 16, 8), ==, 0);
    rig_store(rig, m.table, 8, UINT64_C(0x1fee00000));
    g_assert_cmphex(rig_load(rig, m.table, 8), ==, UINT64_C(0x1fee00000));
    g_assert_cmphex(rig_load(rig, m.table + 4, 4), ==, 1);
    g_assert_cmphex(rig_load(rig, m.table + 4088, 8), ==, 0);
    done(m.driver);
}

/* --- suppression (sections 2.7.7, 2.7.10, 2.8.10) ------------------------------------------- */

static void finish(struct driver *driver, unsigned count)
{
    while (count--)
        g_assert_true(rig_disk_step(driver->rig));
    driver_turn(driver);
}

static unsigned collect(struct driver *driver, unsigned queue)
{
    unsigned count = 0;
    while (driver_used(driver, queue, NULL, NULL))
        count++;
    return count;
}

static void flags(const void *kind)
{
    struct driver *driver = open_driver(kind, plain);
    uint64_t at = driver_room(driver, 512);
    driver_turn(driver);
    driver_interrupts(driver, 0, false);
    add(driver, 0, T_IN, 0, at, 512);
    g_assert_true(driver_wanted(driver, 0));
    driver_kick(driver, 0);
    driver_turn(driver);
    finish(driver, 1);
    g_assert_cmpuint(collect(driver, 0), ==, 1);
    g_assert_cmpuint(intx(driver), ==, 0);
    driver_interrupts(driver, 0, true);
    add(driver, 0, T_IN, 0, at, 512);
    driver_run(driver, 0);
    finish(driver, 1);
    g_assert_cmpuint(intx(driver), ==, 1);
    /* While it works through a queue that does not end, it does not want to be told. */
    for (unsigned i = 0; i < 21; i++)
        add(driver, 1, T_IN, 0, at, 512);
    driver_kick(driver, 1);
    loop_turn(driver->rig->dev->loop);
    g_assert_false(driver_wanted(driver, 1));
    driver_turn(driver);
    g_assert_true(driver_wanted(driver, 1));
    rig_disk_run(driver->rig);
    done(driver);
}

/* Each kick and each interrupt, twice around the ring. */
static void event_index(const void *kind)
{
    const uint64_t features = plain | FEATURE(VIRTIO_EVENT_IDX);
    struct driver *driver = open_small(kind, features, 8);
    uint64_t at = driver_room(driver, 512);
    unsigned interrupts = 0;
    driver->queue[0].quiet = true;
    driver_turn(driver);
    for (unsigned i = 0; i < 40; i++) {
        /* One: the device sleeps and wants the kick. It interrupts for the first one. */
        driver_event(driver, 0, 0);
        add(driver, 0, T_IN, 0, at, 512);
        g_assert_true(driver_wanted(driver, 0));
        driver_run(driver, 0);
        finish(driver, 1);
        g_assert_cmpuint(collect(driver, 0), ==, 1);
        g_assert_cmpuint(driver_isr(driver), ==, 1);
        g_assert_cmpuint(intx(driver), ==, ++interrupts);
        /* Two, and the interrupt is wanted for the second: at the last descriptor of its chain. */
        add(driver, 0, T_IN, 0, at, 512);
        g_assert_true(driver_wanted(driver, 0));
        driver_kick(driver, 0);
        add(driver, 0, T_IN, 0, at, 512);
        driver_event(driver, 0, driver->queue[0].packed ? 3 : 1);
        driver_turn(driver);
        finish(driver, 1);
        g_assert_cmpuint(driver_isr(driver), ==, 0);
        finish(driver, 1);
        g_assert_cmpuint(driver_isr(driver), ==, 1);
        g_assert_cmpuint(intx(driver), ==, ++interrupts);
        g_assert_cmpuint(collect(driver, 0), ==, 2);
        /* Nothing new is seen: no interrupt, no kick. */
        driver_event(driver, 0, 6);
        add(driver, 0, T_IN, 0, at, 512);
        driver_run(driver, 0);
        g_assert_false(driver_wanted(driver, 0));
        finish(driver, 1);
        g_assert_cmpuint(driver_isr(driver), ==, 0);
        g_assert_cmpuint(collect(driver, 0), ==, 1);
    }
    g_assert_cmpuint(intx(driver), ==, interrupts);
    done(driver);
}

/* --- chains --------------------------------------------------------------------------------- */

/* Pops on behalf of the device. */
static struct chain *pop(struct driver *driver, unsigned queue)
{
    struct device *dev = driver->rig->dev;
    g_mutex_lock(&dev->lock);
    struct chain *chain = virtqueue_pop(virtio_queue(dev, queue));
    g_mutex_unlock(&dev->lock);
    return chain;
}

static void push(struct driver *driver, struct chain *chain, uint32_t written)
{
    struct device *dev = driver->rig->dev;
    struct virtqueue *queue = chain->queue;
    g_mutex_lock(&dev->lock);
    virtqueue_push(chain, written);
    virtqueue_flush(queue);
    g_mutex_unlock(&dev->lock);
}

static void contents(const void *kind)
{
    for (unsigned indirect = 0; indirect < 2; indirect++) {
        struct driver *driver = open_driver(kind, plain | FEATURE(VIRTIO_INDIRECT_DESC));
        driver->indirect = indirect;
        uint64_t at = driver_room(driver, 4096);
        driver_put(driver, at, "abcdefgh", 8);
        const struct driver_buffer buffers[] = { { at, 3, false },
                                                 { at + 3, 5, false },
                                                 { at + 100, 2, true },
                                                 { at + 102, 4, true },
                                                 { at + 200, 7, true } };
        unsigned id = driver_add(driver, 0, buffers, 5), back;
        uint32_t written;
        struct chain *chain = pop(driver, 0);
        char text[9] = "";
        g_assert_nonnull(chain);
        g_assert_null(pop(driver, 0));
        g_assert_cmpuint(virtqueue_in_flight(chain->queue), ==, 1);
        g_assert_cmpuint(chain->out_bytes, ==, 8);
        g_assert_cmpuint(chain->in_bytes, ==, 13);
        g_assert_false(chain_read(chain, text, 9));
        g_assert_true(chain_read(chain, text, 2) && chain_read(chain, text + 2, 0));
        g_assert_true(chain_read(chain, text + 2, 6));
        g_assert_cmpstr(text, ==, "abcdefgh");
        g_assert_false(chain_read(chain, text, 1));
        gpa address;
        g_assert_true(chain_in_address(chain, 0, &address));
        g_assert_cmphex(address.raw, ==, at + 100);
        g_assert_true(chain_cut_status(chain));
        g_assert_false(chain_write(chain, "0123456789abc", 13));
        g_assert_true(chain_write(chain, "0123456789ab", 12));
        g_assert_false(chain_cut_status(chain));
        g_assert_false(chain_in_address(chain, 3, &address));
        struct virtqueue *queue = chain->queue;
        g_mutex_lock(&driver->rig->dev->lock);
        virtqueue_push_status(chain, chain->written, 9);
        virtqueue_flush(queue);
        g_mutex_unlock(&driver->rig->dev->lock);
        g_assert_true(driver_used(driver, 0, &back, &written));
        g_assert_cmpuint(back, ==, id);
        g_assert_cmpuint(written, ==, 13);
        char in[14] = "";
        driver_get(driver, at + 100, in, 6);
        driver_get(driver, at + 200, in + 6, 7);
        g_assert_cmpmem(in, 13, "0123456789ab\x09", 13);
        done(driver);
    }
}

/* More pieces than a chain has room of its own for, `stride` bytes apart: those that are neighbours
 * may be joined, but never what is read with what is written. */
static void try_long(const void *kind, unsigned stride)
{
    struct driver *driver = open_driver(kind, plain | FEATURE(VIRTIO_INDIRECT_DESC));
    struct driver_queue *queue = &driver->queue[0];
    bool packed = queue->packed;
    uint64_t data = driver_room(driver, 2 * 1024 * 16);
    static const unsigned counts[] = { 17, 18, 19, 64, 256, 1024 };
    uint16_t position = WRAP;
    for (unsigned round = 0; round < 3; round++)
        for (unsigned c = 0; c < G_N_ELEMENTS(counts); c++) {
            unsigned n = counts[c];
            uint64_t table = 0xc0000;
            for (unsigned i = 0; i < n; i++) {
                bool in = i >= n / 2, more = i + 1 < n;
                unsigned bits = in ? 2 : 0;
                driver_put(driver, data + stride * i, &(uint32_t){ i }, 4);
                driver_descriptor(driver, table, i, data + stride * i, 4, packed ? 0 : bits | more,
                                  packed ? bits : i + 1);
            }
            if (packed) {
                driver_offer_packed(driver, queue, position, table, 16 * n, 7, 4);
                position =
                    (uint16_t)((position & 0x7fff) == queue->size - 1 ? (position & WRAP) ^ WRAP
                                                                      : position + 1);
            } else {
                driver_descriptor(driver, queue->desc, 0, table, 16 * n, 4, 0);
                driver_offer(driver, queue, 0);
            }
            struct chain *chain = pop(driver, 0);
            g_assert_nonnull(chain);
            g_assert_cmpuint(chain->out_bytes, ==, 4 * (n / 2));
            g_assert_cmpuint(chain->in_bytes, ==, 4 * (n - n / 2));
            gpa first_in;
            g_assert_true(chain_in_address(chain, 0, &first_in));
            g_assert_cmphex(first_in.raw, ==, data + stride * (n / 2));
            if (stride > 4)
                g_assert_cmpuint(chain->out_count + chain->in_count, ==, n);
            for (uint32_t i = 0, value; i < n / 2; i++) {
                g_assert_true(chain_read(chain, &value, 4));
                g_assert_cmpuint(value, ==, i);
            }
            push(driver, chain, 0);
        }
    g_assert_false(is_broken(driver));
    done(driver);
}

static void long_chains(const void *kind)
{
    try_long(kind, 32);
    try_long(kind, 4);
}

/* Buffers of no bytes are no buffers, wherever they point. */
static void zero_length(const void *kind)
{
    struct driver *driver = open_driver(kind, plain);
    uint64_t at = driver_room(driver, 4096);
    const struct driver_buffer none[] = { { at, 0, false }, { 0xffffffffff, 0, false } };
    driver_add(driver, 0, none, 2);
    struct chain *chain = pop(driver, 0);
    g_assert_nonnull(chain);
    g_assert_cmpuint(chain->out_count + chain->in_count, ==, 0);
    g_assert_false(chain_cut_status(chain));
    push(driver, chain, 0);
    const struct driver_buffer some[] = {
        { at, 16, false }, { at, 0, false }, { at + 16, 0, true }, { at + 16, 1, true }
    };
    driver_add(driver, 0, some, 4);
    chain = pop(driver, 0);
    g_assert_nonnull(chain);
    g_assert_true(chain->out_count == 1 && chain->in_count == 1);
    g_assert_true(chain->out[0].iov_len == 16 && chain->in[0].iov_len == 1);
    push(driver, chain, 1);
    g_assert_cmpuint(collect(driver, 0), ==, 2);
    works(driver, 0);
    done(driver);
}

/* What was put back comes again, the same or as the driver has changed it. */
static void unpop(const void *kind)
{
    struct driver *driver = open_small(kind, plain, 4);
    uint64_t at = driver_room(driver, 64);
    for (unsigned i = 0; i < 50; i++) {
        const struct driver_buffer two[] = { { at, 8, false }, { at + 8, 8, true } };
        unsigned first = driver_add(driver, 0, two, 1 + i % 2), id;
        unsigned second = driver_add(driver, 0, two, 1);
        struct chain *a = pop(driver, 0), *b = pop(driver, 0);
        g_assert_true(a && b && !pop(driver, 0));
        virtqueue_unpop(b);
        g_assert_true(virtqueue_pending(virtio_queue(driver->rig->dev, 0)));
        b = pop(driver, 0);
        g_assert_true(b && !pop(driver, 0));
        virtqueue_unpop(b);
        virtqueue_unpop(a);
        g_assert_cmpuint(virtqueue_in_flight(virtio_queue(driver->rig->dev, 0)), ==, 0);
        a = pop(driver, 0);
        b = pop(driver, 0);
        g_assert_true(a && b);
        g_assert_cmpuint(a->in_bytes, ==, i % 2 ? 8 : 0);
        push(driver, b, 0); /* out of order */
        push(driver, a, 0);
        g_assert_true(driver_used(driver, 0, &id, NULL) && id == second);
        g_assert_true(driver_used(driver, 0, &id, NULL) && id == first);
    }
    g_assert_false(is_broken(driver));
    done(driver);
}

/* Chains of all lengths around a small ring, finished out of order. */
static void wraps(const void *kind)
{
    struct driver *driver = open_small(kind, plain, is_packed(kind) ? 7 : 8);
    uint64_t at = driver_room(driver, 64);
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    const struct driver_buffer buffers[] = {
        { at, 1, false }, { at + 2, 2, false }, { at + 5, 3, true }, { at + 9, 4, true }
    };
    struct chain *held[8];
    unsigned id_of[8], holds = 0, lengths[8], out = 0;
    for (unsigned i = 0; i < 5000; i++) {
        unsigned n = (unsigned)g_rand_int_range(rand, 1, 5);
        if (driver->queue[0].left >= n && g_rand_boolean(rand)) {
            id_of[holds] = driver_add(driver, 0, buffers, n);
            held[holds] = pop(driver, 0);
            g_assert_nonnull(held[holds]);
            lengths[holds++] = n;
            out += n;
        } else if (holds) {
            unsigned which = (unsigned)g_rand_int_range(rand, 0, (gint32)holds), id;
            uint32_t written;
            g_assert_cmpuint(held[which]->out_bytes + held[which]->in_bytes, ==,
                             lengths[which] * (lengths[which] + 1) / 2);
            push(driver, held[which], lengths[which]);
            g_assert_true(driver_used(driver, 0, &id, &written));
            g_assert_cmpuint(id, ==, id_of[which]);
            g_assert_cmpuint(written, ==, lengths[which]);
            out -= lengths[which];
            holds--;
            held[which] = held[holds];
            id_of[which] = id_of[holds];
            lengths[which] = lengths[holds];
        }
        g_assert_cmpuint(driver->queue[0].left + out, ==, driver->queue[0].size);
    }
    while (holds)
        push(driver, held[--holds], 0);
    g_assert_false(is_broken(driver));
    done(driver);
}

/* --- rings that no driver should make ------------------------------------------------------- */

enum { TABLE = 0x80000, DATA = 0x90000 };
struct descriptor {
    uint64_t at;
    uint32_t length;
    unsigned flags, next; /* next: split only; 0x1000: none given, the one behind */
};
struct bad {
    const char *name;
    struct descriptor ring[4], table[4]; /* both until the first with flags NONE */
};
enum { NONE = 0xffff };
#define END                                                                                        \
    {                                                                                              \
        0, 0, NONE, 0                                                                              \
    }
static const struct bad both_bad[] = {
    { "outside RAM", { { RIG_RAM, 1, 0, 0 }, END }, { END } },
    { "across the end of RAM", { { RIG_RAM - 4, 8, 2, 0 }, END }, { END } },
    { "a BAR", { { 0x10000000, 4, 2, 0 }, END }, { END } },
    { "at the end of all addresses", { { UINT64_MAX, 2, 0, 0 }, END }, { END } },
    { "too long", { { DATA, UINT32_MAX, 0, 0 }, END }, { END } },
    { "readable after writable", { { DATA, 8, 3, 1 }, { DATA, 8, 0, 0 }, END }, { END } },
    { "an empty table", { { TABLE, 0, 4, 0 }, END }, { END } },
    { "a table of odd length", { { TABLE, 24, 4, 0 }, END }, { { DATA, 8, 0, 0 }, END } },
    { "a table that is not aligned", { { TABLE + 4, 16, 4, 0 }, END }, { END } },
    { "a table outside RAM", { { RIG_RAM, 16, 4, 0 }, END }, { END } },
    { "a table across the end", { { RIG_RAM - 16, 32, 4, 0 }, END }, { END } },
    { "a table that is too long", { { TABLE, 1025 * 16, 4, 0 }, END }, { END } },
    { "a table of 4 GiB", { { TABLE, 0xfffffff0, 4, 0 }, END }, { END } },
    { "a table and more",
      { { TABLE, 16, 5, 1 }, { DATA, 8, 0, 0 }, END },
      { { DATA, 8, 0, 0 }, END } },
    { "readable after writable in a table",
      { { TABLE, 32, 4, 0 }, END },
      { { DATA, 8, 3, 1 }, { DATA, 8, 0, 0 }, END } },
    { "outside RAM in a table",
      { { TABLE, 32, 4, 0 }, END },
      { { DATA, 8, 1, 1 }, { RIG_RAM, 8, 0, 0 }, END } },
    { .name = NULL },
};
static const struct bad split_bad[] = {
    { "a loop", { { DATA, 8, 1, 0 }, END }, { END } },
    { "a longer loop", { { DATA, 8, 1, 1 }, { DATA, 8, 1, 2 }, { DATA, 8, 1, 1 }, END }, { END } },
    { "next outside", { { DATA, 8, 1, 64 }, END }, { END } },
    { "next far outside", { { DATA, 8, 1, 0xffff }, END }, { END } },
    { "a table in a table", { { TABLE, 16, 4, 0 }, END }, { { TABLE, 16, 4, 0 }, END } },
    { "next outside the table", { { TABLE, 16, 4, 0 }, END }, { { DATA, 8, 1, 1 }, END } },
    { "a loop in a table",
      { { TABLE, 32, 4, 0 }, END },
      { { DATA, 8, 1, 1 }, { DATA, 8, 1, 0 }, END } },
    { .name = NULL },
};
static const struct bad packed_bad[] = {
    { "a table within a chain",
      { { DATA, 8, 1, 0 }, { TABLE, 16, 4, 0 }, END },
      { { DATA, 8, 0, 0 }, END } },
    { .name = NULL },
};

static void offer_bad(struct driver *driver, const struct bad *bad)
{
    struct driver_queue *queue = &driver->queue[0];
    for (unsigned i = 0; bad->table[i].flags != NONE; i++) {
        const struct descriptor *d = &bad->table[i];
        driver_descriptor(driver, TABLE, i, d->at, d->length, queue->packed ? 0 : d->flags,
                          queue->packed ? d->flags : d->next);
    }
    for (unsigned i = 0; bad->ring[i].flags != NONE; i++) {
        const struct descriptor *d = &bad->ring[i];
        if (queue->packed)
            driver_offer_packed(driver, queue, (uint16_t)(WRAP + i), d->at, d->length, 1, d->flags);
        else
            driver_descriptor(driver, queue->desc, i, d->at, d->length, d->flags, d->next);
    }
    if (!queue->packed)
        driver_offer(driver, queue, 0);
}

/* After that: the device is out of order until it is reset, and then it works. */
static void expect_broken(struct driver *driver, const char *name)
{
    uint8_t *before = g_malloc(RIG_RAM),
            *ram = guest_ram_host(driver->rig->board.guest, GPA(0), RIG_RAM);
    driver_kick(driver, 0);
    driver_turn(driver);
    if (!is_broken(driver))
        g_error("%s: the device takes it", name);
    g_assert_cmphex(driver_isr(driver), ==, 2); /* section 2.1.2 */
    memcpy(before, ram, RIG_RAM);
    driver_kick(driver, 0);
    driver_kick(driver, 1);
    driver_turn(driver);
    rig_disk_run(driver->rig);
    driver_turn(driver);
    g_assert_cmpmem(before, RIG_RAM, ram, RIG_RAM);
    g_free(before);
    driver_reset(driver);
    g_assert_true(driver_negotiate(driver, driver_offered(driver) & plain));
    driver->top = 0x10000;
    driver->indirect = false;
    driver_queue(driver, 0, 16);
    driver_ok(driver);
    works(driver, 0);
}

static void try_bad(const struct kind *kind, const struct bad *bad)
{
    for (; bad->name; bad++) {
        struct driver *driver = open_driver(kind, plain | FEATURE(VIRTIO_INDIRECT_DESC));
        driver_turn(driver);
        offer_bad(driver, bad);
        expect_broken(driver, bad->name);
        done(driver);
    }
}

static void malformed(const void *kind)
{
    try_bad(kind, both_bad);
    try_bad(kind, is_packed(kind) ? packed_bad : split_bad);
    /* Tables that were not negotiated. */
    struct driver *driver = open_driver(kind, plain);
    driver_turn(driver);
    offer_bad(driver,
              &(const struct bad){ "", { { TABLE, 16, 4, 0 }, END }, { { DATA, 8, 0, 0 }, END } });
    expect_broken(driver, "a table that was not negotiated");
    done(driver);
}

static void bad_indices(void)
{
    static const uint16_t indices[] = { 65, 0x8000, 0xffff };
    for (unsigned i = 0; i < G_N_ELEMENTS(indices); i++) {
        struct driver *driver = open_driver(&kinds[0], plain);
        driver_turn(driver);
        driver_put(driver, driver->queue[0].avail + 2, &indices[i], 2);
        expect_broken(driver, "an index beyond the ring");
        done(driver);
    }
    struct driver *driver = open_driver(&kinds[0], plain);
    driver_turn(driver);
    driver_offer(driver, &driver->queue[0], 64);
    expect_broken(driver, "a head outside the table");
    done(driver);
}

/* The same head over and over: more requests than the ring has entries. */
static void too_many(const void *kind)
{
    struct driver *driver = open_small(kind, plain, 4);
    struct driver_queue *queue = &driver->queue[0];
    driver_turn(driver);
    uint64_t at = driver_room(driver, 512);
    add(driver, 0, T_IN, 0, at, 512);
    driver_run(driver, 0);
    for (unsigned i = 0; i < 5 && !is_broken(driver); i++) {
        if (queue->packed)
            for (unsigned j = 0; j < 3; j++, queue->available++) {
                if ((queue->available & 0x7fff) == queue->size)
                    queue->available = (queue->available & WRAP) ^ WRAP;
                driver_offer_packed(driver, queue, queue->available, at + 16 * j, j < 2 ? 16 : 1, 0,
                                    j < 2);
            }
        else
            driver_offer(driver, queue, 0);
        driver_run(driver, 0);
    }
    g_assert_true(is_broken(driver));
    rig_disk_run(driver->rig);
    driver_reset(driver);
    done(driver);
}

/* A chain of as many descriptors as the ring has is one; of more, it does not end. */
static void longest(const void *kind)
{
    for (unsigned endless = 0; endless < 2; endless++) {
        struct driver *driver = open_small(kind, plain, 8);
        struct driver_queue *queue = &driver->queue[0];
        uint64_t at = driver_room(driver, 4096);
        for (unsigned i = 0; i < 8; i++)
            if (queue->packed)
                driver_offer_packed(driver, queue, (uint16_t)(WRAP + i), at + 32 * i, 8, 0,
                                    i < 7 || endless);
            else
                driver_descriptor(driver, queue->desc, i, at + 32 * i, 8, i < 7 || endless,
                                  (i + 1) % 8);
        if (!queue->packed)
            driver_offer(driver, queue, 0);
        struct chain *chain = pop(driver, 0);
        g_assert_true(!!chain == !endless);
        g_assert_true(is_broken(driver) == endless);
        if (chain) {
            g_assert_cmpuint(chain->out_bytes, ==, 64);
            push(driver, chain, 0);
        }
        done(driver);
    }
}

/* A guest that breaks rings as fast as it can does not fill the log. */
static void log_rate(void)
{
    g_autofree char *name = NULL;
    g_autofree char *text = NULL;
    int fd = g_file_open_tmp("hv-log-XXXXXX", &name, NULL), err = dup(STDERR_FILENO);
    g_assert_cmpint(fd, >=, 0);
    struct driver *driver = open_driver(&kinds[0], plain);
    log_set_level(LOG_INFO);
    dup2(fd, STDERR_FILENO);
    for (unsigned i = 0; i < 200; i++) {
        driver_offer(driver, &driver->queue[0], 64);
        driver_run(driver, 0);
        driver_write(driver, DRIVER_STATUS, 1, 0);
        driver_negotiate(driver, driver_offered(driver) & plain);
        driver->top = 0x10000;
        driver_queue(driver, 0, 16);
        driver_ok(driver);
    }
    dup2(err, STDERR_FILENO);
    log_set_level(LOG_WARN);
    g_assert_true(g_file_get_contents(name, &text, NULL, NULL));
    g_assert_nonnull(strstr(text, "virtio-blk: guest: a descriptor index outside the table"));
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    g_assert_cmpuint(g_strv_length(lines), <, 30);
    close(fd);
    close(err);
    unlink(name);
    done(driver);
}

/* --- resets --------------------------------------------------------------------------------- */

static uint8_t *snapshot(struct driver *driver)
{
    return g_memdup2(guest_ram_host(driver->rig->board.guest, GPA(0), RIG_RAM), RIG_RAM);
}

static void expect_same(struct driver *driver, uint8_t *before)
{
    const uint8_t *ram = guest_ram_host(driver->rig->board.guest, GPA(0), RIG_RAM);
    for (unsigned i = 0; i < RIG_RAM; i++)
        if (ram[i] != before[i])
            g_error("byte %#x of RAM changed", i);
    g_free(before);
}

/* Until what is in flight is done the status is not 0, and afterwards nothing happens. */
static void device_reset_drains(const void *kind)
{
    struct driver *driver = open_driver(kind, all);
    uint64_t at = driver_room(driver, 4096);
    memset(driver->rig->disk->data, 0xab, 4096);
    for (unsigned i = 0; i < 6; i++)
        add(driver, i & 1, T_IN, i, at + 512 * i, 512);
    driver_kick(driver, 0);
    driver_kick(driver, 1);
    driver_turn(driver);
    g_assert_cmpuint(driver->rig->disk->waiting, ==, 6);
    unsigned interrupts = intx(driver);
    driver_write(driver, DRIVER_STATUS, 1, 0);
    for (unsigned i = 0; i < 6; i++) {
        g_assert_cmphex(driver_status(driver), !=, 0);
        driver_write(driver, DRIVER_STATUS, 1, DRIVER_ACKNOWLEDGE); /* too early: nothing */
        driver_write(driver, DRIVER_STATUS, 1, 0);
        driver_write(driver, DRIVER_QUEUE_ENABLE, 2, 1);
        driver_kick(driver, i & 1);
        driver_turn(driver);
        g_assert_true(rig_disk_finish(driver->rig, 5 - i));
    }
    g_assert_cmphex(driver_status(driver), ==, 0);
    g_assert_false(driver_used(driver, 0, NULL, NULL));
    g_assert_false(driver_used(driver, 1, NULL, NULL));
    uint8_t *ram = snapshot(driver);
    driver_kick(driver, 0);
    driver_turn(driver);
    driver->rig->dev->class->disk_resized(driver->rig->dev, 0);
    expect_same(driver, ram);
    g_assert_cmpuint(intx(driver), ==, interrupts);
    g_assert_cmphex(driver_isr(driver), ==, 0);
    g_assert_cmpuint(driver_read(driver, DRIVER_QUEUE_ENABLE, 2), ==, 0);

    /* The next driver. */
    driver_reset(driver);
    driver_negotiate(driver, driver_offered(driver));
    driver_queue(driver, 0, 16);
    driver_ok(driver);
    works(driver, 0);
    done(driver);
}

/* The reset of the whole machine, as the chipset does it. */
static void machine_reset(const void *kind)
{
    struct driver *driver = open_driver(kind, all);
    add(driver, 0, T_IN, 0, driver_room(driver, 512), 512);
    driver_run(driver, 0);
    driver->rig->dev->class->disk_resized(driver->rig->dev, 0);
    g_assert_true(rig_line(driver->rig, "intx")->level);
    rig_disk_run(driver->rig);
    device_reset(driver->rig->dev);
    g_assert_false(rig_line(driver->rig, "intx")->level);
    g_assert_cmphex(rig_config_read(driver->rig, PCI_COMMAND, 2), ==, 0);
    uint8_t *ram = snapshot(driver);
    driver_turn(driver);
    expect_same(driver, ram);
    done(driver);
}

/* Section 2.6.1. */
static void queue_reset(const void *kind)
{
    struct driver *driver = open_driver(kind, all);
    uint64_t at = driver_room(driver, 4096);
    add(driver, 0, T_IN, 0, at, 512);
    add(driver, 0, T_IN, 1, at + 512, 512);
    driver_run(driver, 0);
    add(driver, 1, T_IN, 2, at + 1024, 512);
    driver_run(driver, 1);
    driver_write(driver, DRIVER_QUEUE_SELECT, 2, 0);
    driver_write(driver, DRIVER_QUEUE_RESET, 2, 1);
    for (unsigned i = 0; i < 2; i++) {
        g_assert_cmpuint(driver_read(driver, DRIVER_QUEUE_RESET, 2), ==, 1);
        driver_write(driver, DRIVER_QUEUE_ENABLE, 2, 1); /* too early */
        g_assert_cmpuint(driver_read(driver, DRIVER_QUEUE_ENABLE, 2), ==, 0);
        g_assert_true(rig_disk_step(driver->rig));
    }
    g_assert_cmpuint(driver_read(driver, DRIVER_QUEUE_RESET, 2), ==, 0);
    g_assert_cmpuint(driver_read(driver, DRIVER_QUEUE_ENABLE, 2), ==, 0);
    g_assert_cmpuint(driver_read(driver, DRIVER_QUEUE_SIZE, 2), ==, 256);
    g_assert_cmpuint(driver_read(driver, DRIVER_QUEUE_DESC, 8), ==, 0);
    g_assert_cmphex(driver_read(driver, DRIVER_QUEUE_VECTOR, 2), ==, NO_VECTOR);
    g_assert_false(driver_used(driver, 0, NULL, NULL));
    uint8_t *ram = snapshot(driver);
    driver_kick(driver, 0);
    driver_turn(driver);
    expect_same(driver, ram);
    /* The other one goes on, and this one starts again, of another size. */
    rig_disk_run(driver->rig);
    g_assert_cmpuint(collect(driver, 1), ==, 1);
    works(driver, 1);
    g_assert_true(driver_queue(driver, 0, 8));
    g_assert_cmpuint(driver_read(driver, DRIVER_QUEUE_ENABLE, 2), ==, 1);
    works(driver, 0);
    works(driver, 1);
    done(driver);
}

/* Whatever was in flight at a reset, the whole ring is there again afterwards. */
static void reset_counts(const void *kind)
{
    struct driver *driver = open_small(kind, plain | FEATURE(VIRTIO_RING_RESET), 8);
    for (unsigned i = 0; i < 8; i++) {
        driver->top = 0x20000;
        uint64_t at = driver_room(driver, 512);
        add(driver, 0, T_IN, 0, at, 512);
        add(driver, 0, T_IN, 0, at, 512);
        driver_run(driver, 0);
        g_assert_cmpuint(driver->rig->disk->waiting, ==, 2);
        if (i & 1) {
            driver_write(driver, DRIVER_QUEUE_SELECT, 2, 0);
            driver_write(driver, DRIVER_QUEUE_RESET, 2, 1);
            rig_disk_run(driver->rig);
        } else {
            driver_reset(driver);
            driver_negotiate(driver, driver_offered(driver) & (plain | FEATURE(VIRTIO_RING_RESET)));
            driver_ok(driver);
        }
        driver_queue(driver, 0, 8);
        works(driver, 0);
        g_assert_false(is_broken(driver));
    }
    done(driver);
}

/* It is only what was negotiated. */
static void no_queue_reset(const void *kind)
{
    struct driver *driver = open_driver(kind, plain);
    driver_write(driver, DRIVER_QUEUE_SELECT, 2, 0);
    driver_write(driver, DRIVER_QUEUE_RESET, 2, 1);
    g_assert_cmpuint(driver_read(driver, DRIVER_QUEUE_RESET, 2), ==, 0);
    g_assert_cmpuint(driver_read(driver, DRIVER_QUEUE_ENABLE, 2), ==, 1);
    works(driver, 0);
    done(driver);
}

/* Both kinds of reset while a queue is in the other one. */
static void mixed_resets(const void *kind)
{
    struct driver *driver = open_driver(kind, all);
    add(driver, 0, T_IN, 0, driver_room(driver, 512), 512);
    driver_run(driver, 0);
    driver_write(driver, DRIVER_QUEUE_SELECT, 2, 0);
    driver_write(driver, DRIVER_QUEUE_RESET, 2, 1);
    driver_write(driver, DRIVER_STATUS, 1, 0);
    g_assert_cmphex(driver_status(driver), !=, 0);
    rig_disk_run(driver->rig);
    g_assert_cmphex(driver_status(driver), ==, 0);
    g_assert_cmpuint(driver_read(driver, DRIVER_QUEUE_RESET, 2), ==, 0);
    /* A broken device, with requests in flight. */
    driver_reset(driver);
    driver->indirect = false;
    driver_negotiate(driver, driver_offered(driver) & (plain | FEATURE(VIRTIO_RING_RESET)));
    driver_queue(driver, 0, 16);
    driver_ok(driver);
    add(driver, 0, T_IN, 0, driver_room(driver, 512), 512);
    driver_run(driver, 0);
    const struct driver_buffer wrong = { RIG_RAM, 16, false };
    driver_add(driver, 0, &wrong, 1);
    driver_run(driver, 0);
    g_assert_true(is_broken(driver));
    driver_write(driver, DRIVER_QUEUE_SELECT, 2, 0);
    driver_write(driver, DRIVER_QUEUE_RESET, 2, 1);
    driver_write(driver, DRIVER_QUEUE_ENABLE, 2, 1);
    driver_write(driver, DRIVER_STATUS, 1, 0);
    g_assert_cmphex(driver_status(driver), !=, 0);
    rig_disk_run(driver->rig);
    g_assert_cmphex(driver_status(driver), ==, 0);
    g_assert_false(driver_used(driver, 0, NULL, NULL));
    done(driver);
}

/* --- bus mastering, state ------------------------------------------------------------------- */

static void no_master(const void *kind)
{
    struct driver *driver = open_driver(kind, all);
    driver_turn(driver);
    rig_config_write(driver->rig, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    add(driver, 0, T_IN, 0, driver_room(driver, 512), 512);
    uint8_t *ram = snapshot(driver);
    driver_run(driver, 0);
    g_assert_cmpuint(driver->rig->disk->submitted, ==, 0);
    expect_same(driver, ram);
    /* It comes back: the kick is not lost. */
    rig_config_write(driver->rig, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    driver_turn(driver);
    g_assert_cmpuint(driver->rig->disk->submitted, ==, 1);
    rig_disk_run(driver->rig);
    g_assert_cmpuint(collect(driver, 0), ==, 1);
    done(driver);
}

/* What comes back while the function may not write is lost, nothing is written, and the driver is
 * told when it may again. */
static void no_master_in_flight(const void *kind)
{
    struct driver *driver = open_driver(kind, all);
    add(driver, 0, T_OUT, 0, driver_room(driver, 512), 512);
    driver_run(driver, 0);
    g_assert_cmpuint(driver->rig->disk->submitted, ==, 1);
    rig_config_write(driver->rig, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    uint8_t *ram = snapshot(driver);
    rig_disk_run(driver->rig);
    driver_turn(driver);
    expect_same(driver, ram);
    rig_config_write(driver->rig, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    g_assert_true(is_broken(driver));
    driver_reset(driver);
    g_assert_cmphex(driver_status(driver), ==, 0);
    done(driver);
}

/* The state in the middle of the ring goes to another machine, which goes on there. */
static void migrate(const void *kind)
{
    struct driver *driver = open_small(kind, plain | FEATURE(VIRTIO_EVENT_IDX), 8);
    uint64_t at = driver_room(driver, 512);
    for (unsigned i = 0; i < 20; i++) {
        for (unsigned j = 0; j < i % 5; j++)
            works(driver, 0);
        driver->top = 0x20000;
        /* Available, not yet taken. */
        add(driver, 0, T_IN, 0, at, 512);
        /* One that the device holds is taken again there. */
        struct chain *held = i & 1 ? pop(driver, 0) : NULL;
        g_autoptr(GByteArray) state = g_byte_array_new();
        device_save(driver->rig->dev, state);
        if (held)
            virtqueue_unpop(held);
        struct rig *old = driver->rig;
        driver->rig = rig_of(kind);
        memcpy(guest_ram_host(driver->rig->board.guest, GPA(0), RIG_RAM),
               guest_ram_host(old->board.guest, GPA(0), RIG_RAM), RIG_RAM);
        const uint8_t *in = state->data;
        size_t length = state->len;
        g_autoptr(GError) error = NULL;
        g_assert_true(device_load(driver->rig->dev, &in, &length, &error));
        g_assert_no_error(error);
        g_assert_true(rig_line(driver->rig, "intx")->level == rig_line(old, "intx")->level);
        rig_free(old);
        driver_turn(driver); /* without a kick */
        rig_disk_run(driver->rig);
        driver_turn(driver);
        g_assert_cmpuint(collect(driver, 0), ==, 1);
        driver_isr(driver);
    }
    done(driver);
}

/* Of state files that no device wrote: positions outside, features that were never offered. */
static void wrong_state(const void *kind)
{
    struct driver *driver = open_driver(kind, all);
    g_autoptr(GByteArray) state = g_byte_array_new();
    device_save(driver->rig->dev, state);
    g_autoptr(GRand) rand = g_rand_new_with_seed(3);
    for (unsigned i = 0; i < 3000; i++) {
        struct rig *rig = rig_of(kind);
        g_autofree uint8_t *bytes = g_memdup2(state->data, state->len);
        for (unsigned n = 0; n < 1 + i % 4; n++)
            bytes[g_rand_int_range(rand, 0, (gint32)state->len)] = (uint8_t)g_rand_int(rand);
        const uint8_t *in = bytes;
        size_t length = state->len;
        if (device_load(rig->dev, &in, &length, NULL))
            for (unsigned n = 0; n < 4; n++)
                loop_turn(rig->dev->loop);
        rig_free(rig);
    }
    done(driver);
}

/* --- doorbells and lines (board_ops) -------------------------------------------------------- */

struct short_ways {
    struct board_ops ops;
    unsigned open, sent, bells;
    uint64_t bell[8];
    int fd[8];
};

static struct short_ways *ways_of(void *opaque)
{
    /* The rig's board has the rig as its opaque; the table of functions is ours. */
    struct rig *rig = opaque;
    return (struct short_ways *)(uintptr_t)rig->board.ops;
}
static int line_open(void *opaque)
{
    return (int)ways_of(opaque)->open++;
}
static void line_route(void *opaque, int line, uint64_t address, uint32_t data)
{
    (void)line;
    struct rig *rig = opaque;
    rig->last_msi = (struct msi){ address, data };
}
static void line_send(void *opaque, int line)
{
    (void)line;
    ways_of(opaque)->sent++;
}
static void line_close(void *opaque, int line)
{
    (void)line;
    ways_of(opaque)->open--;
}
static bool doorbell(void *opaque, uint64_t address, int fd, bool on)
{
    struct short_ways *ways = ways_of(opaque);
    unsigned i = 0;
    while (i < ways->bells && ways->bell[i] != address)
        i++;
    g_assert_true(on == (i == ways->bells)); /* neither twice nor what is not there */
    if (on) {
        ways->bell[ways->bells] = address;
        ways->fd[ways->bells++] = fd;
    } else {
        g_assert_cmpint(ways->fd[i], ==, fd);
        ways->bells--;
        ways->bell[i] = ways->bell[ways->bells];
        ways->fd[i] = ways->fd[ways->bells];
    }
    return true;
}

static void short_ways(const void *kind)
{
    struct rig *rig = rig_of(kind);
    struct short_ways ways = { .ops = *rig->board.ops };
    const struct board_ops *own = rig->board.ops;
    ways.ops.line_open = line_open;
    ways.ops.line_route = line_route;
    ways.ops.line_send = line_send;
    ways.ops.line_close = line_close;
    ways.ops.doorbell = doorbell;
    rig->board.ops = &ways.ops;
    struct driver *driver = driver_find(rig);
    driver_reset(driver);
    g_assert_true(driver_negotiate(driver, driver_offered(driver)));
    driver_msix(driver);
    driver_queue(driver, 0, 16);
    driver_queue(driver, 1, 16);
    g_assert_cmpuint(ways.open + ways.bells, ==, 0); /* from DRIVER_OK only */
    driver_ok(driver);
    g_assert_cmpuint(ways.open, ==, 3);
    g_assert_cmpuint(ways.bells, ==, 2);
    for (unsigned i = 0; i < 2; i++) {
        add(driver, i, T_IN, 0, driver_room(driver, 512), 512);
        for (unsigned j = 0; j < 2; j++)
            if (ways.bell[j] == driver->queue[i].doorbell)
                g_assert_cmpint(write(ways.fd[j], &(uint64_t){ 1 }, 8), ==, 8);
        driver_turn(driver);
        rig_disk_run(rig);
        driver_turn(driver);
        g_assert_cmpuint(collect(driver, i), ==, 1);
        g_assert_cmpuint(ways.sent, ==, i + 1);
    }
    g_assert_cmpuint(rig->msis, ==, 0);
    /* They follow the BAR, and the queues. */
    uint32_t bar = rig_config_read(rig, PCI_BAR + 16, 4);
    rig_config_write(rig, PCI_BAR + 16, 4, bar + 0x100000);
    for (unsigned j = 0; j < 2; j++)
        g_assert_true(ways.bells == 2 && ways.bell[j] >= bar + 0x100000);
    rig_config_write(rig, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    g_assert_cmpuint(ways.bells, ==, 0);
    rig_config_write(rig, PCI_BAR + 16, 4, bar);
    rig_config_write(rig, PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
    g_assert_cmpuint(ways.bells, ==, 2);
    driver_write(driver, DRIVER_QUEUE_SELECT, 2, 1);
    driver_write(driver, DRIVER_QUEUE_RESET, 2, 1);
    g_assert_cmpuint(ways.bells, ==, 1);
    driver_queue(driver, 1, 8);
    g_assert_cmpuint(ways.bells, ==, 2);
    works(driver, 1);
    driver_reset(driver);
    g_assert_cmpuint(ways.open + ways.bells, ==, 0);
    driver_negotiate(driver, driver_offered(driver));
    driver_ok(driver);
    done(driver);
    g_assert_cmpuint(ways.open + ways.bells, ==, 0);
    (void)own;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(const void *kind);
    } tests[] = {
        { "identity", identity },
        { "negotiation", negotiation },
        { "status", status },
        { "widths", widths },
        { "frozen", frozen },
        { "sizes", sizes },
        { "areas", areas },
        { "config-window", config_window },
        { "isr", isr },
        { "msix", msix },
        { "msix-masks", msix_masks },
        { "flags", flags },
        { "event-index", event_index },
        { "contents", contents },
        { "long-chains", long_chains },
        { "zero-length", zero_length },
        { "unpop", unpop },
        { "wraps", wraps },
        { "malformed", malformed },
        { "too-many", too_many },
        { "longest", longest },
        { "device-reset", device_reset_drains },
        { "machine-reset", machine_reset },
        { "queue-reset", queue_reset },
        { "reset-counts", reset_counts },
        { "no-queue-reset", no_queue_reset },
        { "mixed-resets", mixed_resets },
        { "no-master", no_master },
        { "no-master-in-flight", no_master_in_flight },
        { "migrate", migrate },
        { "wrong-state", wrong_state },
        { "short-ways", short_ways },
    };
    g_test_init(&argc, &argv, NULL);
    for (unsigned k = 0; k < G_N_ELEMENTS(kinds); k++)
        for (unsigned i = 0; i < G_N_ELEMENTS(tests); i++) {
            g_autofree char *path = g_strdup_printf("/virtio/%s/%s", kinds[k].name, tests[i].name);
            g_test_add_data_func(path, &kinds[k], tests[i].run);
        }
    g_test_add_func("/virtio/split/bad-indices", bad_indices);
    g_test_add_func("/virtio/log-rate", log_rate);
    return g_test_run();
}
