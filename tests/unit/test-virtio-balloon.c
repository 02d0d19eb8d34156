/* The balloon: pages that go to the host, reports of free ones, statistics (virtio 1.2 section
 * 5.5). */
#include "rig/virtio-driver.h"

#include <string.h>

enum { INFLATE, DEFLATE, STATS, HINTS, REPORTS };
enum { F_STATS = 1 << 1, F_OOM = 1 << 2, F_POISON = 1 << 4, F_REPORTING = 1 << 5 };
enum { PAGES = 0, ACTUAL = 4, POISON = 12 };
enum { PAGE = 4096 };

static struct driver *setup(uint64_t features)
{
    const uint64_t transport = ~UINT64_C(0) << 24;
    struct rig *rig = rig_new(device_class_find("virtio-balloon"), NULL);
    return driver_start(rig, transport | features);
}

static void finish(struct driver *driver)
{
    rig_free(driver->rig);
    driver_free(driver);
}

/* Pages full of ones. */
static uint64_t full_pages(struct driver *driver, unsigned count)
{
    uint64_t at = driver_room(driver, count * PAGE);
    g_autofree uint8_t *ones = g_malloc(count * PAGE);
    memset(ones, 1, count * PAGE);
    driver_put(driver, at, ones, count * PAGE);
    return at;
}

static unsigned first_byte(struct driver *driver, uint64_t at)
{
    uint8_t byte;
    driver_get(driver, at, &byte, 1);
    return byte;
}

/* Gives page numbers to a queue. */
static void give(struct driver *driver, unsigned queue, const uint32_t *pages, unsigned count)
{
    uint64_t at = driver_room(driver, 4 * count);
    driver_put(driver, at, pages, 4 * count);
    driver_add(driver, queue, &(struct driver_buffer){ at, 4 * count, false }, 1);
    driver_run(driver, queue);
    g_assert_true(driver_used(driver, queue, NULL, NULL));
}

static bool wish(struct driver *driver, uint64_t bytes)
{
    struct device *dev = driver->rig->dev;
    g_mutex_lock(&dev->lock);
    bool heard = dev->class->memory_wish(dev, bytes);
    g_mutex_unlock(&dev->lock);
    return heard;
}

static bool ask(struct driver *driver, struct memory_statistics *statistics)
{
    struct device *dev = driver->rig->dev;
    g_mutex_lock(&dev->lock);
    bool known = dev->class->memory_ask(dev, statistics);
    g_mutex_unlock(&dev->lock);
    driver_turn(driver);
    return known;
}

static void configuration(void)
{
    struct driver *driver = setup(F_STATS);
    g_assert_cmphex(driver_offered(driver) & 0xff, ==, F_STATS | F_OOM | F_POISON | F_REPORTING);
    g_assert_cmpuint(driver_config(driver, PAGES, 4), ==, 0);
    driver_isr(driver);
    g_assert_true(wish(driver, RIG_RAM - 3 * PAGE));
    g_assert_cmpuint(driver_config(driver, PAGES, 4), ==, 3);
    g_assert_cmphex(driver_isr(driver), ==, 2);
    g_assert_true(wish(driver, 2 * RIG_RAM)); /* never more than there is */
    g_assert_cmpuint(driver_config(driver, PAGES, 4), ==, 0);
    driver_config_write(driver, ACTUAL, 4, 2);
    g_assert_cmpuint(driver_config(driver, ACTUAL, 4), ==, 2);
    wish(driver, RIG_RAM - PAGE);
    driver_reset(driver); /* the driver's pages are its own again, the wish stands */
    g_assert_cmpuint(driver_config(driver, ACTUAL, 4), ==, 0);
    g_assert_cmpuint(driver_config(driver, PAGES, 4), ==, 1);
    g_assert_false(wish(driver, RIG_RAM)); /* nobody listens */
    finish(driver);
}

/* What goes into the balloon is gone, whichever way the numbers count, and nothing beside it. */
static void inflates(void)
{
    struct driver *driver = setup(0);
    uint64_t at = full_pages(driver, 10);
    uint32_t first = (uint32_t)(at / PAGE);
    const uint32_t pages[] = { first + 4, first + 3, first + 2, first + 6,
                               first + 7, first + 9, 0xffffffff };
    give(driver, INFLATE, pages, G_N_ELEMENTS(pages));
    for (unsigned i = 0; i < 10; i++) {
        bool gone = (i >= 2 && i <= 4) || i == 6 || i == 7 || i == 9;
        g_assert_cmpuint(first_byte(driver, at + i * PAGE), ==, !gone);
        g_assert_cmpuint(first_byte(driver, at + (i + 1) * PAGE - 1), ==, !gone);
    }
    give(driver, DEFLATE, pages, 1);
    driver_put(driver, at + 4 * PAGE, "\7", 1); /* it can be used again */
    g_assert_cmpuint(first_byte(driver, at + 4 * PAGE), ==, 7);
    finish(driver);
}

/* Every other page of more than a turn is to do: those left are the guest's still, the next chain
 * has its turn. Backwards or not, neighbours count as one. */
static void bounded(void)
{
    enum { ROOM = 1400, BOUND = 512 };
    struct driver *driver = setup(0);
    uint32_t pages[ROOM];
    for (unsigned i = 0; i < ROOM; i++)
        pages[i] = 0x100000 + 2 * i; /* outside RAM: as much work, and nothing happens */
    uint64_t at = full_pages(driver, 4);
    pages[BOUND - 1] = (uint32_t)(at / PAGE);
    pages[BOUND + 256] = (uint32_t)(at / PAGE) + 2;
    give(driver, INFLATE, pages, ROOM);
    g_assert_cmpuint(first_byte(driver, at), ==, 0);
    g_assert_cmpuint(first_byte(driver, at + 2 * PAGE), ==, 1);
    for (unsigned i = 0; i < ROOM; i++)
        pages[i] = 0x100000 + ROOM - i;
    pages[ROOM - 1] = (uint32_t)(at / PAGE) + 2;
    give(driver, INFLATE, pages, ROOM);
    g_assert_cmpuint(first_byte(driver, at + 2 * PAGE), ==, 0);
    finish(driver);
}

static void report(struct driver *driver, unsigned queue, uint64_t at, unsigned bytes)
{
    const struct driver_buffer parts[] = { { at, bytes, true },
                                           { at / PAGE * PAGE + 4 * PAGE, PAGE, true } };
    driver_add(driver, queue, parts, 2);
    driver_run(driver, queue);
    g_assert_true(driver_used(driver, queue, NULL, NULL));
}

/* Free pages: whole ones only. */
static void reports(void)
{
    struct driver *driver = setup(F_REPORTING | F_STATS);
    uint64_t at = full_pages(driver, 6);
    report(driver, REPORTS, at + 100, 2 * PAGE);
    const unsigned expected[] = { 1, 0, 1, 1, 0, 1 };
    for (unsigned i = 0; i < 6; i++)
        g_assert_cmpuint(first_byte(driver, at + i * PAGE), ==, expected[i]);
    finish(driver);
}

/* Drivers that count only the queues of accepted features report on another one. */
static void compact_queues(void)
{
    struct driver *driver = setup(F_REPORTING | F_STATS);
    uint64_t at = full_pages(driver, 5);
    report(driver, HINTS, at, PAGE);
    g_assert_cmpuint(first_byte(driver, at), ==, 0);
    finish(driver);
    driver = setup(F_REPORTING);
    at = full_pages(driver, 5);
    report(driver, STATS, at, PAGE);
    g_assert_cmpuint(first_byte(driver, at), ==, 0);
    finish(driver);
}

/* Free pages that hold poison keep it (section 5.5.6.7.2). */
static void poison(void)
{
    for (uint32_t value = 0; value < 2; value++) {
        struct driver *driver = setup(F_REPORTING | F_POISON);
        uint64_t at = full_pages(driver, 5);
        driver_config_write(driver, POISON, 4, value * 0x01010101);
        report(driver, REPORTS, at, PAGE);
        g_assert_cmpuint(first_byte(driver, at), ==, value);
        finish(driver);
    }
}

static void put_statistic(struct driver *driver, uint64_t at, uint16_t tag, uint64_t value)
{
    driver_put(driver, at, &tag, 2);
    driver_put(driver, at + 2, &value, 8);
}

/* One buffer goes to and fro; the device holds it until somebody asks. */
static void statistics(void)
{
    struct driver *driver = setup(F_STATS);
    struct memory_statistics told;
    uint64_t at = driver_room(driver, 30);
    const struct driver_buffer buffer = { at, 30, false };
    g_assert_true(ask(driver, &told));
    g_assert_false(told.reported);
    put_statistic(driver, at, MEMORY_FREE, 1000);
    put_statistic(driver, at + 10, MEMORY_TOTAL, 5000);
    put_statistic(driver, at + 20, 77, 1); /* a tag of a later version */
    driver_add(driver, STATS, &buffer, 1);
    driver_run(driver, STATS);
    g_assert_true(driver_used(driver, STATS, NULL, NULL)); /* asked before it was there */
    driver_add(driver, STATS, &buffer, 1);
    driver_run(driver, STATS);
    g_assert_false(driver_used(driver, STATS, NULL, NULL)); /* held */
    g_assert_true(rig_round_trip(driver->rig));

    driver_config_write(driver, ACTUAL, 4, 3);
    g_assert_true(ask(driver, &told));
    g_assert_true(told.reported);
    g_assert_cmphex(told.known, ==, 1u << MEMORY_FREE | 1u << MEMORY_TOTAL);
    g_assert_cmpuint(told.value[MEMORY_FREE], ==, 1000);
    g_assert_cmpuint(told.value[MEMORY_TOTAL], ==, 5000);
    g_assert_cmpuint(told.balloon, ==, 3 * PAGE);
    g_assert_true(driver_used(driver, STATS, NULL, NULL)); /* the question for the next */
    put_statistic(driver, at, MEMORY_FREE, 2000);
    driver_add(driver, STATS, &buffer, 1);
    driver_run(driver, STATS);
    g_assert_true(ask(driver, &told));
    g_assert_cmpuint(told.value[MEMORY_FREE], ==, 2000);

    driver_add(driver, STATS, &buffer, 1);
    driver_run(driver, STATS);
    driver_reset(driver); /* with the buffer held */
    g_assert_false(ask(driver, &told));
    finish(driver);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-balloon/configuration", configuration);
    g_test_add_func("/virtio-balloon/inflates", inflates);
    g_test_add_func("/virtio-balloon/bounded", bounded);
    g_test_add_func("/virtio-balloon/reports", reports);
    g_test_add_func("/virtio-balloon/compact-queues", compact_queues);
    g_test_add_func("/virtio-balloon/poison", poison);
    g_test_add_func("/virtio-balloon/statistics", statistics);
    return g_test_run();
}
