/* virtio-net (virtio 1.2 section 5.1) with a far end that does not read, and a driver that asks for
 * too much. */
#include "base/loop.h"
#include "net/net.h"
#include "rig/virtio-driver.h"

#include <string.h>

enum { RX, TX, CONTROL };
enum { HEADER = sizeof(struct net_header), FRAME = 1514, MANY = 100000 };
#define F_CTRL_VQ (UINT64_C(1) << 17)

static struct driver *open_driver(uint64_t features)
{
    return driver_start(rig_new(device_class_find("virtio-net"), NULL), features);
}

static void done(struct driver *driver)
{
    struct rig *rig = driver->rig;
    driver_free(driver);
    rig_free(rig);
}

/* Sends until the far end has no room; how many packets are through. */
static unsigned fill(struct driver *driver, uint64_t at)
{
    const struct driver_buffer buffer = { at, HEADER + FRAME, false };
    unsigned sent = 0;
    for (unsigned i = 0; i < MANY; i++, sent++) {
        driver_add(driver, TX, &buffer, 1);
        driver_run(driver, TX);
        if (!driver_used(driver, TX, NULL, NULL))
            return sent;
    }
    g_assert_not_reached();
}

/* A full cable is no work: the loop rests until there is room, and nothing is lost. */
static void blocked(void)
{
    static uint8_t packet[NET_PACKET_MAX];
    struct driver *driver = open_driver(0);
    uint64_t at = driver_room(driver, 4096);
    unsigned sent = fill(driver, at), seen = 0;
    g_assert_cmpuint(sent, >, 0);
    g_assert_false(loop_turn(driver->rig->dev->loop));
    driver_kick(driver, TX); /* one look for each notification */
    driver_turn(driver);
    g_assert_false(loop_turn(driver->rig->dev->loop));
    while (seen < sent + 1) {
        size_t length = rig_packet_out(driver->rig, packet, sizeof packet);
        g_assert_cmpuint(length, ==, HEADER + FRAME);
        seen++;
        driver_turn(driver);
    }
    g_assert_true(driver_used(driver, TX, NULL, NULL));
    g_assert_false(driver_used(driver, TX, NULL, NULL));
    done(driver);
}

/* What waits for a cable that is taken out gets lost, as on a wire. */
static void unplugged(void)
{
    struct driver *driver = open_driver(0);
    struct device *dev = driver->rig->dev;
    fill(driver, driver_room(driver, 4096));
    g_mutex_lock(&dev->lock);
    dev->class->set_cable(dev, false);
    g_mutex_unlock(&dev->lock);
    driver_turn(driver);
    g_assert_true(driver_used(driver, TX, NULL, NULL));
    done(driver);
}

static void add_buffer(struct driver *driver, uint64_t at)
{
    const struct driver_buffer buffer = { at, HEADER + FRAME, true };
    driver_add(driver, RX, &buffer, 1);
}

static void arrive(struct driver *driver)
{
    static const uint8_t packet[HEADER + FRAME];
    g_assert_true(rig_packet_in(driver->rig, packet, sizeof packet));
    driver_turn(driver);
}

/* Receive buffers that nobody waits for come without a notification (sections 2.7.7 and 2.7.10). */
static void told(const void *features)
{
    struct driver *driver = open_driver(*(const uint64_t *)features);
    uint64_t at = driver_room(driver, 4096);
    add_buffer(driver, at);
    g_assert_true(driver_wanted(driver, RX));
    driver_run(driver, RX);
    for (unsigned i = 0; i < 3; i++) {
        arrive(driver); /* fills the buffer */
        g_assert_true(driver_used(driver, RX, NULL, NULL));
        g_assert_false(driver_used(driver, RX, NULL, NULL));
        add_buffer(driver, at);
        g_assert_false(driver_wanted(driver, RX));
        driver->queue[RX].added = 0; /* so there is no kick */
        arrive(driver);
        arrive(driver); /* and this one waits */
        g_assert_true(driver_used(driver, RX, NULL, NULL));
        g_assert_false(driver_used(driver, RX, NULL, NULL));
        add_buffer(driver, at);
        g_assert_true(driver_wanted(driver, RX));
        driver_run(driver, RX);
        g_assert_true(driver_used(driver, RX, NULL, NULL));
        add_buffer(driver, at);
        g_assert_false(driver_wanted(driver, RX));
        driver->queue[RX].added = 0;
    }
    done(driver);
}

/* Section 5.1.6.5.2: a list of addresses as long as a descriptor can make it is refused. */
static void addresses(void)
{
    enum { PIECE = 64 * 1024, PIECES = 12, CLASS_MAC = 1, TABLE_SET = 0, OK = 0, ERROR = 1 };
    static const unsigned counts[] = { 0, 1, 64, 65, 8192, 8193, 131070 };
    struct driver *driver = open_driver(F_CTRL_VQ);
    uint64_t head = driver_room(driver, 16), zeroes = driver_room(driver, PIECE);
    for (size_t i = 0; i < G_N_ELEMENTS(counts); i++) {
        uint8_t bytes[7] = { CLASS_MAC, TABLE_SET, 0, 0, 0, 0, 0xee }, ack;
        struct driver_buffer buffers[PIECES + 2] = { { head, 6, false } };
        le32 count = le32_of(counts[i]);
        memcpy(bytes + 2, &count, sizeof count);
        driver_put(driver, head, bytes, sizeof bytes);
        for (unsigned n = 0; n < PIECES; n++)
            buffers[1 + n] = (struct driver_buffer){ zeroes, PIECE, false };
        buffers[PIECES + 1] = (struct driver_buffer){ head + 6, 1, true };
        driver_add(driver, CONTROL, buffers, G_N_ELEMENTS(buffers));
        driver_run(driver, CONTROL);
        g_assert_true(driver_used(driver, CONTROL, NULL, NULL));
        driver_get(driver, head + 6, &ack, 1);
        g_assert_cmpuint(ack, ==, counts[i] <= 8192 ? OK : ERROR);
    }
    done(driver);
}

int main(int argc, char **argv)
{
    static const uint64_t none = 0, by_index = UINT64_C(1) << VIRTIO_EVENT_IDX;
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-net/blocked", blocked);
    g_test_add_func("/virtio-net/unplugged", unplugged);
    g_test_add_func("/virtio-net/addresses", addresses);
    g_test_add_data_func("/virtio-net/told", &none, told);
    g_test_add_data_func("/virtio-net/told-by-index", &by_index, told);
    return g_test_run();
}
