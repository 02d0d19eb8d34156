/* The virtio console: bytes both ways, the control queues, the size (virtio 1.2 section 5.3). */
#include "rig/virtio-driver.h"

#include <string.h>

enum { RECEIVE, TRANSMIT, FROM_DEVICE, TO_DEVICE };
enum { SIZE = 1, MULTIPORT = 2, EMERGENCY = 4 };
enum { READY, ADD, REMOVE, PORT_READY, CONSOLE, RESIZE, OPEN };

static unsigned readies;

static void count_ready(struct stream *stream)
{
    (void)stream;
    readies++;
}

static struct driver *setup(uint64_t features)
{
    static const char *const options[] = { "columns", "132", "rows", "43", NULL };
    struct rig *rig = rig_new(device_class_find("virtio-console"), options);
    const uint64_t transport = ~UINT64_C(0) << 24;
    readies = 0;
    rig->stream.ready = count_ready;
    return driver_start(rig, transport | features);
}

static void finish(struct driver *driver)
{
    rig_free(driver->rig);
    driver_free(driver);
}

static size_t give(struct driver *driver, const char *text)
{
    struct device *dev = driver->rig->dev;
    g_mutex_lock(&dev->lock);
    size_t taken = dev->class->receive(dev, (const uint8_t *)text, strlen(text));
    g_mutex_unlock(&dev->lock);
    return taken;
}

static void control(struct driver *driver, uint16_t event, uint16_t value)
{
    struct {
        le32 port;
        le16 event, value;
    } message = { le32_of(0), le16_of(event), le16_of(value) };
    uint64_t at = driver_room(driver, sizeof message);
    driver_put(driver, at, &message, sizeof message);
    driver_add(driver, TO_DEVICE, &(struct driver_buffer){ at, sizeof message, false }, 1);
    driver_run(driver, TO_DEVICE);
    g_assert_true(driver_used(driver, TO_DEVICE, NULL, NULL));
}

/* Buffers of 16 bytes for the device, one after another; gives the first. */
static uint64_t provide(struct driver *driver, unsigned queue, unsigned count)
{
    uint64_t first = driver_room(driver, 16 * count);
    for (unsigned i = 0; i < count; i++)
        driver_add(driver, queue, &(struct driver_buffer){ first + 16 * i, 16, true }, 1);
    driver_run(driver, queue);
    return first;
}

/* The next control message of the device, at *at. */
static void expect(struct driver *driver, uint64_t *at, uint16_t event, uint16_t value,
                   uint32_t length)
{
    struct {
        le32 port;
        le16 event, value;
    } message;
    uint32_t written;
    g_assert_true(driver_used(driver, FROM_DEVICE, NULL, &written));
    driver_get(driver, *at, &message, sizeof message);
    g_assert_cmpuint(le32_get(message.port), ==, 0);
    g_assert_cmpuint(le16_get(message.event), ==, event);
    g_assert_cmpuint(le16_get(message.value), ==, value);
    g_assert_cmpuint(written, ==, length);
    *at += 16;
}

static void configuration(void)
{
    struct driver *driver = setup(SIZE);
    g_assert_cmphex(driver_offered(driver) & 7, ==, SIZE | MULTIPORT | EMERGENCY);
    g_assert_cmpuint(driver_config(driver, 0, 2), ==, 132);
    g_assert_cmpuint(driver_config(driver, 2, 2), ==, 43);
    g_assert_cmpuint(driver_config(driver, 4, 4), ==, 1);
    driver_config_write(driver, 8, 4, 'E');
    g_assert_cmpmem(driver->rig->output->data, driver->rig->output->len, "E", 1);
    finish(driver);
}

static void transmits(void)
{
    struct driver *driver = setup(0);
    uint64_t at = driver_room(driver, 64);
    driver_put(driver, at, "hello, world", 12);
    const struct driver_buffer parts[] = { { at, 7, false }, { at + 7, 5, false } };
    driver_add(driver, TRANSMIT, parts, 2);
    driver_run(driver, TRANSMIT);
    g_assert_true(driver_used(driver, TRANSMIT, NULL, NULL));
    g_assert_cmpmem(driver->rig->output->data, driver->rig->output->len, "hello, world", 12);
    finish(driver);
}

/* Input waits outside until the driver has room for it. */
static void receives(void)
{
    struct driver *driver = setup(0);
    char text[32];
    uint32_t written;
    g_assert_cmpuint(give(driver, "early"), ==, 0);
    g_assert_cmpuint(readies, ==, 0);
    uint64_t at = provide(driver, RECEIVE, 1);
    g_assert_cmpuint(readies, ==, 1);
    g_assert_cmpuint(give(driver, "0123456789abcdefXYZ"), ==, 16);
    g_assert_true(rig_line(driver->rig, "intx")->level);
    g_assert_true(driver_used(driver, RECEIVE, NULL, &written));
    g_assert_cmpuint(written, ==, 16);
    driver_get(driver, at, text, 16);
    g_assert_cmpmem(text, 16, "0123456789abcdef", 16);
    at = driver_room(driver, 16);
    driver_add(driver, RECEIVE, &(struct driver_buffer){ at, 16, true }, 1);
    g_assert_true(driver_wanted(driver, RECEIVE)); /* the device waits for it */
    driver_run(driver, RECEIVE);
    g_assert_cmpuint(readies, ==, 2);
    g_assert_cmpuint(give(driver, "XYZ"), ==, 3);
    g_assert_true(driver_used(driver, RECEIVE, NULL, &written));
    g_assert_cmpuint(written, ==, 3);
    finish(driver);
}

/* Nothing held: what the driver gave is still there after a save. */
static void keeps_buffers(void)
{
    struct driver *driver = setup(0);
    provide(driver, RECEIVE, 4);
    g_assert_cmpuint(virtqueue_in_flight(virtio_queue(driver->rig->dev, RECEIVE)), ==, 0);
    g_assert_false(loop_turn(driver->rig->dev->loop)); /* and they are no work */
    g_assert_true(rig_round_trip(driver->rig));
    finish(driver);
}

static void multiport(void)
{
    struct driver *driver = setup(SIZE | MULTIPORT);
    control(driver, READY, 1);
    uint64_t at = provide(driver, FROM_DEVICE, 8); /* what was due waited for buffers */
    expect(driver, &at, ADD, 0, 8);
    g_assert_false(driver_used(driver, FROM_DEVICE, NULL, NULL));
    provide(driver, RECEIVE, 1);
    g_assert_cmpuint(give(driver, "x"), ==, 0); /* no port yet */
    control(driver, PORT_READY, 1);
    g_assert_cmpuint(readies, ==, 1);
    expect(driver, &at, CONSOLE, 1, 8);
    uint64_t resize = at;
    expect(driver, &at, RESIZE, 0, 12);
    uint8_t size[4];
    driver_get(driver, resize + 8, size, 4);
    g_assert_cmpuint(size[0], ==, 43); /* rows first, as Linux reads it */
    g_assert_cmpuint(size[2], ==, 132);
    expect(driver, &at, OPEN, 1, 8);
    g_assert_cmpuint(give(driver, "x"), ==, 1);
    finish(driver);
}

static void resize(struct driver *driver, unsigned columns, unsigned rows)
{
    struct device *dev = driver->rig->dev;
    g_mutex_lock(&dev->lock);
    dev->class->terminal_resized(dev, columns, rows);
    g_mutex_unlock(&dev->lock);
}

static void resizes(void)
{
    struct driver *driver = setup(SIZE | MULTIPORT);
    control(driver, PORT_READY, 1);
    uint64_t at = provide(driver, FROM_DEVICE, 8);
    expect(driver, &at, CONSOLE, 1, 8);
    expect(driver, &at, RESIZE, 0, 12);
    expect(driver, &at, OPEN, 1, 8);
    resize(driver, 80, 25);
    uint8_t size[4];
    driver_get(driver, at + 8, size, 4);
    expect(driver, &at, RESIZE, 0, 12);
    g_assert_cmpuint(size[0], ==, 25);
    g_assert_cmpuint(size[2], ==, 80);
    finish(driver);

    driver = setup(SIZE); /* without ports, the configuration tells it */
    resize(driver, 80, 25);
    g_assert_cmphex(driver_isr(driver), ==, 2);
    g_assert_cmpuint(driver_config(driver, 0, 2), ==, 80);
    finish(driver);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-console/configuration", configuration);
    g_test_add_func("/virtio-console/transmits", transmits);
    g_test_add_func("/virtio-console/receives", receives);
    g_test_add_func("/virtio-console/keeps-buffers", keeps_buffers);
    g_test_add_func("/virtio-console/multiport", multiport);
    g_test_add_func("/virtio-console/resizes", resizes);
    return g_test_run();
}
