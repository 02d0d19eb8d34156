/* Queues that the kernel serves (bus/vhost.h, virtio_lend), with a kernel that is played here: it
 * refuses what Linux refuses (linux/vhost.h; drivers/vhost), serves split rings when the test says
 * so, and fails when it is told to. The card is virtio-net. */
#include "base/loop.h"
#include "bus/ring.h"
#include "bus/vhost.h"
#include "rig/virtio-driver.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { RX, TX, CONTROL, PAIR = 2 };
enum { HEADER = sizeof(struct net_header), FRAME = 100 };
#define FEATURE(bit) (UINT64_C(1) << (bit))
static const uint64_t linux_features = FEATURE(VIRTIO_INDIRECT_DESC) | FEATURE(VIRTIO_EVENT_IDX) |
                                       FEATURE(VIRTIO_VERSION_1) | FEATURE(15) /* MRG_RXBUF */;
/* As much of a driver as the played kernel can serve. */
static const uint64_t simple = FEATURE(VIRTIO_VERSION_1) | FEATURE(VIRTIO_RING_RESET);

/* --- the kernel ----------------------------------------------------------------------------- */

struct ring {
    unsigned size;
    uint16_t next;
    struct vhost_vring_addr at;
    int kick, call, error, backend;
};
static struct kernel {
    uint64_t features, acked;
    bool owned, memory;
    unsigned calls, fail; /* fail: this call (from 1) is answered with EIO */
    struct ring ring[PAIR];
} kernel;

static void kernel_fresh(void)
{
    kernel = (struct kernel){ .features = linux_features };
    for (unsigned i = 0; i < PAIR; i++)
        kernel.ring[i] = (struct ring){ .kick = -1, .call = -1, .error = -1, .backend = -1 };
}

static int ring_control(struct ring *ring, unsigned long request, void *argument)
{
    struct vhost_vring_state *state = argument;
    const struct vhost_vring_file *file = argument;
    bool on = ring->backend >= 0;
    switch (request) {
    case VHOST_SET_VRING_NUM:
        if (on || !state->num || state->num & (state->num - 1))
            return on ? -EBUSY : -EINVAL;
        ring->size = state->num;
        return 0;
    case VHOST_SET_VRING_BASE:
        if (on || state->num > 0xffff)
            return on ? -EBUSY : -EINVAL;
        ring->next = (uint16_t)state->num;
        return 0;
    case VHOST_GET_VRING_BASE:
        state->num = ring->next;
        return 0;
    case VHOST_SET_VRING_ADDR:
        ring->at = *(const struct vhost_vring_addr *)argument;
        return 0;
    case VHOST_SET_VRING_KICK:
        ring->kick = file->fd;
        return 0;
    case VHOST_SET_VRING_CALL:
        ring->call = file->fd;
        return 0;
    case VHOST_SET_VRING_ERR:
        ring->error = file->fd;
        return 0;
    case VHOST_NET_SET_BACKEND:
        g_assert_true(file->fd < 0 || (ring->size && ring->at.desc_user_addr && ring->kick >= 0));
        ring->backend = file->fd;
        return 0;
    default:
        g_error("an ioctl that Linux does not have: %lx", request);
    }
}

static int kernel_control(int fd, unsigned long request, void *argument)
{
    g_assert_cmpint(fd, >=, 0);
    if (++kernel.calls == kernel.fail)
        return -EIO;
    if (request == VHOST_GET_FEATURES) {
        *(uint64_t *)argument = kernel.features;
        return 0;
    }
    if (request == VHOST_SET_OWNER) {
        g_assert_false(kernel.owned);
        kernel.owned = true;
        return 0;
    }
    if (!kernel.owned)
        return -EPERM;
    if (request == VHOST_SET_FEATURES) {
        kernel.acked = *(uint64_t *)argument;
        return kernel.acked & ~kernel.features ? -EOPNOTSUPP : 0;
    }
    if (request == VHOST_SET_MEM_TABLE) {
        kernel.memory = true;
        return 0;
    }
    unsigned index = *(unsigned *)argument;
    g_assert_cmpuint(index, <, PAIR);
    return ring_control(&kernel.ring[index], request, argument);
}
static const struct vhost_io io = { kernel_control };

static bool is_on(unsigned index)
{
    return kernel.ring[index].backend >= 0;
}

static bool is_bare(unsigned index)
{
    const struct ring *r = &kernel.ring[index];
    return r->backend < 0 && r->kick < 0 && r->call < 0 && r->error < 0;
}

/* Takes all that is available and uses it, one descriptor each. How many. */
static unsigned kernel_serves(unsigned index)
{
    struct ring *r = &kernel.ring[index];
    const uint16_t *avail = (const uint16_t *)(uintptr_t)r->at.avail_user_addr;
    uint16_t *used = (uint16_t *)(uintptr_t)r->at.used_user_addr;
    unsigned count = 0;
    g_assert_true(is_on(index) && kernel.memory);
    for (; r->next != avail[1]; r->next++, count++) {
        uint32_t *entry = (uint32_t *)(void *)(used + 2) + 2 * (used[1] % r->size);
        entry[0] = avail[2 + r->next % r->size];
        entry[1] = 0;
        used[1]++;
    }
    if (count)
        g_assert_cmpint(eventfd_write(r->call, 1), ==, 0);
    return count;
}

/* --- the machine ---------------------------------------------------------------------------- */

static struct rig *rig_of(bool vhost)
{
    kernel_fresh();
    struct rig *rig = rig_new(device_class_find("virtio-net"), NULL);
    if (vhost)
        net_add_vhost(rig->net, -1, open("/dev/null", O_RDWR | O_CLOEXEC), &io);
    return rig;
}

static struct driver *open_driver(uint64_t features)
{
    struct driver *driver = driver_start(rig_of(true), features);
    driver_turn(driver);
    return driver;
}

static void done(struct driver *driver)
{
    struct rig *rig = driver->rig;
    driver_free(driver);
    rig_free(rig);
    g_assert_true(is_bare(RX) && is_bare(TX));
}

static void send_frames(struct driver *driver, unsigned count)
{
    const struct driver_buffer buffer = { driver_room(driver, HEADER + FRAME), HEADER + FRAME,
                                          false };
    for (unsigned i = 0; i < count; i++)
        driver_add(driver, TX, &buffer, 1);
    driver_run(driver, TX);
}

static unsigned sent(struct driver *driver)
{
    unsigned count = 0;
    while (driver_used(driver, TX, NULL, NULL))
        count++;
    return count;
}

static unsigned passed(struct driver *driver)
{
    static uint8_t packet[NET_PACKET_MAX];
    unsigned count = 0;
    while (rig_packet_out(driver->rig, packet, sizeof packet))
        count++;
    return count;
}

static GByteArray *state_of(struct driver *driver)
{
    GByteArray *out = g_byte_array_new();
    device_save(driver->rig->dev, out);
    return out;
}

/* --- tests ---------------------------------------------------------------------------------- */

/* From DRIVER_OK to reset, and no other time. */
static void life(void)
{
    struct driver *driver = driver_find(rig_of(true));
    driver_reset(driver);
    g_assert_true(driver_negotiate(driver, driver_offered(driver) & linux_features));
    for (unsigned i = 0; i < 3; i++)
        driver_queue(driver, i, 64);
    g_assert_cmpuint(kernel.calls, ==, 0);
    driver_ok(driver);
    g_assert_true(is_on(RX) && is_on(TX));
    g_assert_cmphex(kernel.acked, ==, linux_features);
    g_assert_cmpuint(kernel.ring[TX].size, ==, 64);
    g_assert_cmpint(kernel.ring[RX].backend, ==, net_fd(driver->rig->net));
    g_assert_cmpint(kernel.ring[RX].error, >=, 0);
    driver_reset(driver);
    g_assert_true(is_bare(RX) && is_bare(TX));
    unsigned calls = kernel.calls;
    driver_turn(driver);
    g_assert_cmpuint(kernel.calls, ==, calls);
    done(driver);
}

/* The table names all RAM but the hole below 1 MiB. */
static int memory_control(int fd, unsigned long request, void *argument)
{
    const struct vhost_memory *table = argument;
    (void)fd;
    if (request == VHOST_GET_FEATURES)
        *(uint64_t *)argument = linux_features;
    if (request != VHOST_SET_MEM_TABLE)
        return 0;
    g_assert_cmpuint(table->nregions, ==, 3);
    static const uint64_t wanted[][2] = { { 0, LEGACY_BASE },
                                          { LEGACY_END, 2 * GIB - LEGACY_END },
                                          { 4 * GIB, GIB } };
    for (unsigned i = 0; i < 3; i++) {
        g_assert_cmphex(table->regions[i].guest_phys_addr, ==, wanted[i][0]);
        g_assert_cmphex(table->regions[i].memory_size, ==, wanted[i][1]);
        g_assert_cmphex(table->regions[i].userspace_addr - table->regions[0].userspace_addr, ==,
                        i == 2 ? 2 * GIB : wanted[i][0]);
    }
    return 0;
}

static void memory(void)
{
    static const struct vhost_io watching = { memory_control };
    struct guest *guest = guest_new(3 * GIB, NULL);
    g_assert_true(guest_show_ram(guest));
    struct vhost *vhost = vhost_new(0, &watching, "test");
    g_assert_true(vhost_prepare(vhost, guest, linux_features));
    vhost_free(vhost);
    guest_free(guest);
}

/* Kicks reach the kernel although they come by the register, its calls reach the driver. */
static void served(void)
{
    struct driver *driver = open_driver(simple);
    eventfd_t kicks;
    eventfd_read(kernel.ring[TX].kick, &kicks); /* of the start */
    send_frames(driver, 3);
    g_assert_cmpint(eventfd_read(kernel.ring[TX].kick, &kicks), ==, 0);
    g_assert_cmpuint(sent(driver), ==, 0);
    g_assert_cmpuint(kernel_serves(TX), ==, 3);
    driver_isr(driver);
    driver_turn(driver);
    g_assert_true(driver_isr(driver) & 1);
    g_assert_cmpuint(sent(driver), ==, 3);
    g_assert_cmpuint(passed(driver), ==, 0);
    done(driver);
}

/* Whoever serves it, the device is in the same state, and each goes on where the other was. */
static void same_state(void)
{
    GByteArray *state[2] = { NULL };
    for (unsigned vhost = 0; vhost < 2; vhost++) {
        struct driver *driver = driver_start(rig_of(vhost), simple);
        driver_turn(driver);
        for (unsigned i = 0; i < 5; i++) {
            send_frames(driver, 50);
            if (vhost)
                g_assert_cmpuint(kernel_serves(TX), ==, 50);
            driver_turn(driver);
            g_assert_cmpuint(sent(driver), ==, 50);
        }
        driver_isr(driver);
        send_frames(driver, 2);
        if (!vhost)
            driver_isr(driver);
        else
            g_assert_cmpuint(sent(driver), ==, 0);
        if (vhost) { /* the machine stands still, and then the device does it */
            device_pause(driver->rig->dev);
            g_assert_true(is_bare(RX) && is_bare(TX));
            struct device *dev = driver->rig->dev;
            g_mutex_lock(&dev->lock);
            virtio_recall(dev, RX);
            virtio_recall(dev, TX);
            g_mutex_unlock(&dev->lock);
            device_resume(dev);
            driver_turn(driver);
            driver_isr(driver);
        }
        g_assert_cmpuint(sent(driver), ==, 2);
        g_assert_cmpuint(passed(driver), ==, vhost ? 2 : 252);
        state[vhost] = state_of(driver);
        g_assert_true(rig_round_trip(driver->rig));
        done(driver);
    }
    g_assert_cmpuint(state[0]->len, ==, state[1]->len);
    g_assert_true(!memcmp(state[0]->data, state[1]->data, state[0]->len));
    g_byte_array_unref(state[0]);
    g_byte_array_unref(state[1]);
}

/* A position that cannot be had is one that the device must not guess. */
static void lost(void)
{
    struct driver *driver = open_driver(simple);
    send_frames(driver, 1);
    kernel_serves(TX);
    kernel.fail = kernel.calls + 2; /* after the first ring's backend: its base */
    device_pause(driver->rig->dev);
    device_resume(driver->rig->dev);
    driver_turn(driver);
    g_assert_true(is_bare(RX) && is_bare(TX));
    g_assert_true(driver_status(driver) & DRIVER_NEEDS_RESET);
    done(driver);
}

/* Saving alone changes nothing for the kernel. */
static void saved(void)
{
    struct driver *driver = open_driver(simple);
    send_frames(driver, 7);
    kernel_serves(TX);
    g_autoptr(GByteArray) one = state_of(driver);
    g_assert_true(is_on(RX) && is_on(TX));
    g_assert_cmpuint(kernel.ring[TX].next, ==, 7);
    g_autoptr(GByteArray) two = state_of(driver);
    g_assert_true(one->len == two->len && !memcmp(one->data, two->data, one->len));
    driver_turn(driver);
    g_assert_cmpuint(sent(driver), ==, 7);
    done(driver);
}

/* All that stops DMA gives the queues back, and what allows it lends them again. */
static void interruptions(void)
{
    struct driver *driver = open_driver(simple);
    struct device *dev = driver->rig->dev;
    device_pause(dev);
    device_pause(dev);
    g_assert_true(is_bare(RX) && is_bare(TX));
    device_resume(dev);
    g_assert_true(is_on(RX) && is_on(TX));
    rig_config_write(driver->rig, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    g_assert_true(is_bare(RX) && is_bare(TX));
    rig_config_write(driver->rig, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    g_assert_true(is_on(RX) && is_on(TX));
    for (unsigned in = 0; in < 2; in++) {
        g_mutex_lock(&dev->lock);
        dev->class->set_cable(dev, in);
        g_mutex_unlock(&dev->lock);
        g_assert_true(in ? is_on(RX) && is_on(TX) : is_bare(RX) && is_bare(TX));
    }
    driver_write(driver, DRIVER_QUEUE_SELECT, 2, TX); /* section 2.6.1 */
    driver_write(driver, DRIVER_QUEUE_RESET, 2, 1);
    g_assert_true(is_on(RX) && is_bare(TX));
    driver_queue(driver, TX, 32);
    g_assert_true(is_on(RX) && is_on(TX));
    g_assert_cmpuint(kernel.ring[TX].size, ==, 32);
    send_frames(driver, 1);
    g_assert_cmpuint(kernel_serves(TX), ==, 1);
    driver_turn(driver);
    g_assert_cmpuint(sent(driver), ==, 1);
    done(driver);
}

/* The kernel has no such rings: the device serves them, and tries no more. */
static void refused(void)
{
    kernel_fresh();
    struct rig *rig = rig_of(true);
    kernel.features &= ~FEATURE(VIRTIO_EVENT_IDX);
    struct driver *driver = driver_start(rig, simple | FEATURE(VIRTIO_EVENT_IDX));
    g_assert_true(is_bare(RX) && is_bare(TX));
    send_frames(driver, 2);
    g_assert_cmpuint(sent(driver), ==, 2);
    g_assert_cmpuint(passed(driver), ==, 2);
    done(driver);
}

/* Whichever call fails, the network works, and nothing stays bound. */
static void failures(void)
{
    unsigned calls = 0;
    for (unsigned fail = 1; !calls || fail <= calls; fail++) {
        struct rig *rig = rig_of(true);
        kernel.fail = fail;
        struct driver *driver = driver_start(rig, simple);
        kernel.fail = 0;
        driver_turn(driver);
        if (is_on(RX) && is_on(TX)) {
            calls = kernel.calls;
        } else {
            g_assert_true(is_bare(RX) && is_bare(TX));
            send_frames(driver, 2);
            g_assert_cmpuint(sent(driver), ==, 2);
            g_assert_cmpuint(passed(driver), ==, 2);
        }
        done(driver);
    }
    g_assert_cmpuint(calls, >=, 18);
}

/* What the kernel cannot make sense of is the device's to judge. */
static void errors(void)
{
    struct driver *driver = open_driver(simple);
    send_frames(driver, 1);
    g_assert_cmpint(eventfd_write(kernel.ring[TX].error, 1), ==, 0);
    driver_turn(driver);
    driver_turn(driver); /* of the queues that came back in the first */
    g_assert_true(is_bare(RX) && is_bare(TX));
    g_assert_cmpuint(sent(driver), ==, 1); /* there was nothing wrong with it */
    g_assert_false(driver_status(driver) & DRIVER_NEEDS_RESET);
    driver_descriptor(driver, driver->queue[TX].desc, 3, 0, 0, 1, 999);
    driver_offer(driver, &driver->queue[TX], 3);
    driver_run(driver, TX);
    g_assert_true(driver_status(driver) & DRIVER_NEEDS_RESET);
    done(driver);

    driver = open_driver(simple);
    driver_descriptor(driver, driver->queue[TX].desc, 3, 0, 0, 1, 999);
    driver_offer(driver, &driver->queue[TX], 3);
    g_assert_cmpint(eventfd_write(kernel.ring[TX].error, 1), ==, 0);
    driver_turn(driver);
    driver_turn(driver); /* of the queues that came back in the first */
    g_assert_true(driver_status(driver) & DRIVER_NEEDS_RESET);
    done(driver);
}

/* --- MSI-X ---------------------------------------------------------------------------------- */

enum { LINES = 4, LINE_FD = 1000 };
static struct board_lines {
    bool open[LINES];
    uint32_t data[LINES], committed[LINES];
} lines;

static int line_open(void *opaque)
{
    (void)opaque;
    for (int i = 0; i < LINES; i++)
        if (!lines.open[i]) {
            lines.open[i] = true;
            return i;
        }
    return -1;
}

static void line_route(void *opaque, int line, uint64_t address, uint32_t data)
{
    (void)opaque, (void)address;
    lines.data[line] = data;
}

static int line_fd(void *opaque, int line)
{
    (void)opaque;
    memcpy(lines.committed, lines.data, sizeof lines.data);
    return LINE_FD + line;
}

static void line_send(void *opaque, int line)
{
    line_fd(opaque, line);
    ((struct rig *)opaque)->msis++;
}

static void line_close(void *opaque, int line)
{
    (void)opaque;
    lines.open[line] = false;
}

/* The kernel calls the guest without us, as long as the vector is not masked (PCI 3.0 section
 * 6.8.2). */
static void direct(void)
{
    struct rig *rig = rig_of(true);
    struct board_ops ops = *rig->board.ops;
    lines = (struct board_lines){ .open = { false } };
    ops.line_open = line_open;
    ops.line_route = line_route;
    ops.line_send = line_send;
    ops.line_fd = line_fd;
    ops.line_close = line_close;
    rig->board.ops = &ops;
    struct driver *driver = driver_find(rig);
    driver_reset(driver);
    g_assert_true(driver_negotiate(driver, driver_offered(driver) & simple));
    driver_msix(driver);
    for (unsigned i = 0; i < 3; i++)
        driver_queue(driver, i, 64);
    driver_ok(driver);
    int line = kernel.ring[TX].call - LINE_FD;
    g_assert_true(line >= 0 && line < LINES && lines.open[line]);
    g_assert_cmphex(lines.committed[line], ==, 0x40 + TX + 1);
    g_assert_cmpint(kernel.ring[RX].call, !=, kernel.ring[TX].call);

    uint64_t entry = rig_bar(rig, 1) + 16 * (TX + 1);
    unsigned before = rig->msis;
    rig_store(rig, entry + 12, 4, 1); /* masked */
    g_assert_cmpint(kernel.ring[TX].call, <, LINE_FD);
    g_assert_cmpint(kernel.ring[RX].call, >=, LINE_FD);
    rig_store(rig, entry + 8, 4, 0x77);
    send_frames(driver, 1);
    kernel_serves(TX);
    driver_turn(driver);
    g_assert_cmpuint(rig->msis, ==, before);
    g_assert_cmphex(rig_load(rig, rig_bar(rig, 1) + 0x800, 4), ==, 1u << (TX + 1));
    rig_store(rig, entry + 12, 4, 0);
    g_assert_cmpuint(rig->msis, ==, before + 1);
    g_assert_cmpint(kernel.ring[TX].call, ==, LINE_FD + line);
    g_assert_cmphex(lines.committed[line], ==, 0x77);

    driver_write(driver, DRIVER_QUEUE_SELECT, 2, TX);
    driver_write(driver, DRIVER_QUEUE_VECTOR, 2, 0xffff); /* none: nobody is to be told */
    g_assert_cmpint(kernel.ring[TX].call, <, LINE_FD);
    driver_reset(driver);
    for (unsigned i = 0; i < LINES; i++)
        g_assert_false(lines.open[i]);
    done(driver);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vhost/life", life);
    g_test_add_func("/vhost/memory", memory);
    g_test_add_func("/vhost/served", served);
    g_test_add_func("/vhost/same-state", same_state);
    g_test_add_func("/vhost/saved", saved);
    g_test_add_func("/vhost/interruptions", interruptions);
    g_test_add_func("/vhost/refused", refused);
    g_test_add_func("/vhost/failures", failures);
    g_test_add_func("/vhost/lost", lost);
    g_test_add_func("/vhost/errors", errors);
    g_test_add_func("/vhost/direct", direct);
    return g_test_run();
}
