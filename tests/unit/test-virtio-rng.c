/* The entropy device: how much a buffer gets, and what becomes of wrong ones (virtio 1.2 section
 * 5.4). */
#include "rig/virtio-driver.h"

#include <string.h>

enum { ROOM = 4096 };

static struct driver *setup(struct rig **rig, uint64_t *at)
{
    *rig = rig_new(device_class_find("virtio-rng"), NULL);
    struct driver *driver = driver_start(*rig, ~UINT64_C(0));
    *at = driver_room(driver, ROOM);
    return driver;
}

static void identity(void)
{
    struct rig *rig;
    uint64_t at;
    struct driver *driver = setup(&rig, &at);
    g_assert_cmphex(rig_config_read(rig, PCI_VENDOR, 2), ==, 0x1af4);
    g_assert_cmphex(rig_config_read(rig, PCI_DEVICE, 2), ==, 0x1044);
    g_assert_cmpuint(driver_read(driver, DRIVER_NUM_QUEUES, 2), ==, 1);
    g_assert_cmphex(driver->config, ==, 0); /* there is no device configuration */
    driver_free(driver);
    rig_free(rig);
}

/* Whole buffers, one from another, and an interrupt. */
static void fills(void)
{
    struct rig *rig;
    uint64_t at;
    struct driver *driver = setup(&rig, &at);
    unsigned id, got;
    uint32_t written;
    uint8_t first[64], second[64];
    id = driver_add(driver, 0, &(struct driver_buffer){ at, 64, true }, 1);
    driver_add(driver, 0, &(struct driver_buffer){ at + 64, 64, true }, 1);
    g_assert_true(driver_wanted(driver, 0));
    driver_run(driver, 0);
    g_assert_true(rig_line(rig, "intx")->level);
    g_assert_cmphex(driver_isr(driver), ==, 1);
    g_assert_true(driver_used(driver, 0, &got, &written));
    g_assert_cmpuint(got, ==, id);
    g_assert_cmpuint(written, ==, 64);
    g_assert_true(driver_used(driver, 0, NULL, &written));
    g_assert_cmpuint(written, ==, 64);
    g_assert_false(driver_used(driver, 0, NULL, NULL));
    driver_get(driver, at, first, 64);
    driver_get(driver, at + 64, second, 64);
    g_assert_true(memcmp(first, second, 64));
    driver_free(driver);
    rig_free(rig);
}

/* A large buffer gets a part, and is told how much; a chain of several counts as one. */
static void bounded(void)
{
    struct rig *rig;
    uint64_t at;
    struct driver *driver = setup(&rig, &at);
    uint32_t written;
    const struct driver_buffer parts[] = { { at, 10, true }, { at + 100, 20, true } };
    uint8_t between[80];
    driver_add(driver, 0, parts, 2);
    driver_run(driver, 0);
    g_assert_true(driver_used(driver, 0, NULL, &written));
    g_assert_cmpuint(written, ==, 30);
    driver_get(driver, at + 10, between, sizeof between);
    for (unsigned i = 0; i < sizeof between; i++)
        g_assert_cmpuint(between[i], ==, 0);
    driver_add(driver, 0, &(struct driver_buffer){ at, ROOM, true }, 1);
    driver_run(driver, 0);
    g_assert_true(driver_used(driver, 0, NULL, &written));
    g_assert_cmpuint(written, >, 0);
    g_assert_cmpuint(written, <, ROOM);
    driver_free(driver);
    rig_free(rig);
}

/* A buffer that cannot be written to is the driver's mistake (section 5.4.6.1). */
static void no_room(void)
{
    struct rig *rig;
    uint64_t at;
    struct driver *driver = setup(&rig, &at);
    driver_add(driver, 0, &(struct driver_buffer){ at, 64, false }, 1);
    driver_run(driver, 0);
    g_assert_cmphex(driver_status(driver) & DRIVER_NEEDS_RESET, ==, DRIVER_NEEDS_RESET);
    driver_free(driver);
    driver = driver_start(rig, ~UINT64_C(0)); /* a reset heals it */
    at = driver_room(driver, 64);
    driver_add(driver, 0, &(struct driver_buffer){ at, 64, true }, 1);
    driver_run(driver, 0);
    g_assert_true(driver_used(driver, 0, NULL, NULL));
    driver_free(driver);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-rng/identity", identity);
    g_test_add_func("/virtio-rng/fills", fills);
    g_test_add_func("/virtio-rng/bounded", bounded);
    g_test_add_func("/virtio-rng/no-room", no_room);
    return g_test_run();
}
