/* Keyboard and tablet: what they say of themselves, and the events of the user (virtio 1.2 section
 * 5.8; event types and codes of Linux's evdev). */
#include "rig/virtio-driver.h"

#include <string.h>

enum { EVENTS, STATUS };
enum { SELECT, SUBSELECT, SIZE, ANSWER = 8 };
enum { NAME = 1, IDS = 3, EVENT_BITS = 0x11, AXIS = 0x12 };
enum { EV_SYN, EV_KEY, EV_REL, EV_ABS, EV_LED = 0x11 };
enum { KEY_A = 30, KEY_LEFTSHIFT = 42, BTN_LEFT = 0x110 };
enum { USAGE_A = 0x04, USAGE_SHIFT = 0xe1 };

struct input {
    struct rig *rig;
    struct driver *driver;
    uint64_t at; /* of the next event */
};

static struct input setup(const char *class, unsigned buffers)
{
    struct input input = { .rig = rig_new(device_class_find(class), NULL) };
    input.driver = driver_start(input.rig, ~UINT64_C(0));
    input.at = driver_room(input.driver, 8 * 256);
    for (unsigned i = 0; i < buffers; i++)
        driver_add(input.driver, EVENTS, &(struct driver_buffer){ input.at + 8 * i, 8, true }, 1);
    driver_run(input.driver, EVENTS);
    return input;
}

static void finish(struct input *input)
{
    rig_free(input->rig);
    driver_free(input->driver);
}

/* More buffers behind those that there were. */
static void provide(struct input *input, unsigned used, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        driver_add(input->driver, EVENTS,
                   &(struct driver_buffer){ input->at + 8 * (used + i), 8, true }, 1);
    driver_run(input->driver, EVENTS);
}

static bool key(struct input *input, uint8_t usage, bool down)
{
    struct device *dev = input->rig->dev;
    g_mutex_lock(&dev->lock);
    bool taken = dev->class->input->key(dev, usage, down);
    g_mutex_unlock(&dev->lock);
    return taken;
}

static void point(struct input *input, unsigned x, unsigned y, int wheel, unsigned buttons)
{
    struct device *dev = input->rig->dev;
    g_mutex_lock(&dev->lock);
    dev->class->input->pointer_at(dev, x, y, wheel, buttons);
    g_mutex_unlock(&dev->lock);
}

static void expect(struct input *input, uint16_t type, uint16_t code, int32_t value)
{
    struct {
        le16 type, code;
        le32 value;
    } event;
    uint32_t written;
    g_assert_true(driver_used(input->driver, EVENTS, NULL, &written));
    g_assert_cmpuint(written, ==, sizeof event);
    driver_get(input->driver, input->at, &event, sizeof event);
    input->at += sizeof event;
    g_assert_cmpuint(le16_get(event.type), ==, type);
    g_assert_cmpuint(le16_get(event.code), ==, code);
    g_assert_cmpint((int32_t)le32_get(event.value), ==, value);
}

static void expect_nothing(struct input *input)
{
    g_assert_false(driver_used(input->driver, EVENTS, NULL, NULL));
}

static unsigned query(struct input *input, uint8_t select, uint8_t subselect)
{
    driver_config_write(input->driver, SELECT, 1, select);
    driver_config_write(input->driver, SUBSELECT, 1, subselect);
    g_assert_cmpuint(driver_config(input->driver, SELECT, 1), ==, select);
    return (unsigned)driver_config(input->driver, SIZE, 1);
}

static bool bit(struct input *input, unsigned number)
{
    return driver_config(input->driver, ANSWER + number / 8, 1) >> number % 8 & 1;
}

static void keyboard_says(void)
{
    struct input k = setup("virtio-keyboard", 0);
    g_assert_cmpuint(query(&k, NAME, 0), ==, strlen("hv virtio keyboard"));
    g_assert_cmpuint(driver_config(k.driver, ANSWER, 1), ==, 'h');
    g_assert_cmpuint(query(&k, IDS, 0), ==, 8);
    g_assert_cmphex(driver_config(k.driver, ANSWER, 2), ==, 6); /* BUS_VIRTUAL */
    g_assert_cmpuint(query(&k, EVENT_BITS, EV_KEY), >=, KEY_A / 8 + 1);
    g_assert_true(bit(&k, KEY_A) && bit(&k, KEY_LEFTSHIFT) && bit(&k, 1));
    g_assert_false(bit(&k, 0));
    g_assert_cmpuint(query(&k, EVENT_BITS, EV_LED), ==, 1);
    g_assert_cmphex(driver_config(k.driver, ANSWER, 1), ==, 7);
    g_assert_cmpuint(query(&k, EVENT_BITS, EV_REL), ==, 0);
    g_assert_cmpuint(query(&k, EVENT_BITS, EV_ABS), ==, 0);
    g_assert_cmpuint(query(&k, AXIS, 0), ==, 0);
    g_assert_cmpuint(query(&k, 0xee, 0), ==, 0);
    finish(&k);
}

static void tablet_says(void)
{
    struct input t = setup("virtio-tablet", 0);
    query(&t, EVENT_BITS, EV_KEY);
    g_assert_true(bit(&t, BTN_LEFT) && bit(&t, BTN_LEFT + 1) && bit(&t, BTN_LEFT + 2));
    g_assert_cmpuint(query(&t, EVENT_BITS, EV_ABS), ==, 1);
    g_assert_cmphex(driver_config(t.driver, ANSWER, 1), ==, 3);
    g_assert_cmpuint(query(&t, AXIS, 1), ==, 20);
    g_assert_cmpuint(driver_config(t.driver, ANSWER, 4), ==, 0);
    g_assert_cmpuint(driver_config(t.driver, ANSWER + 4, 4), ==, POINTER_RANGE);
    g_assert_cmpuint(query(&t, AXIS, 2), ==, 0);
    finish(&t);
}

static void keys(void)
{
    struct input k = setup("virtio-keyboard", 32);
    g_assert_true(key(&k, USAGE_SHIFT, true));
    g_assert_true(rig_line(k.rig, "intx")->level);
    expect(&k, EV_KEY, KEY_LEFTSHIFT, 1);
    expect(&k, EV_SYN, 0, 0);
    key(&k, USAGE_A, true);
    expect(&k, EV_KEY, KEY_A, 1);
    expect(&k, EV_SYN, 0, 0);
    key(&k, USAGE_A, true); /* the host repeats */
    expect(&k, EV_KEY, KEY_A, 2);
    expect(&k, EV_SYN, 0, 0);
    key(&k, USAGE_A, false);
    expect(&k, EV_KEY, KEY_A, 0);
    expect(&k, EV_SYN, 0, 0);
    key(&k, USAGE_A, false);            /* it is up */
    g_assert_true(key(&k, 0x00, true)); /* no key at all */
    expect_nothing(&k);
    finish(&k);
}

/* Without buffers a press is refused, and a release made up for. */
static void keys_wait(void)
{
    struct input k = setup("virtio-keyboard", 3);
    g_assert_true(key(&k, USAGE_A, true));
    g_assert_true(key(&k, USAGE_A, false)); /* its EV_SYN finds no buffer */
    g_assert_false(key(&k, USAGE_SHIFT, true));
    expect(&k, EV_KEY, KEY_A, 1);
    expect(&k, EV_SYN, 0, 0);
    expect(&k, EV_KEY, KEY_A, 0);
    expect_nothing(&k);
    g_assert_true(rig_round_trip(k.rig));
    unsigned before = k.rig->source_changes;
    uint64_t first = k.at - 24;
    uint64_t next = k.at;
    k.at = first;
    provide(&k, 3, 4);
    k.at = next;
    g_assert_cmpuint(k.rig->source_changes, >, before);
    expect(&k, EV_SYN, 0, 0);
    g_assert_true(key(&k, USAGE_SHIFT, true));
    expect(&k, EV_KEY, KEY_LEFTSHIFT, 1);
    expect(&k, EV_SYN, 0, 0);
    g_assert_true(key(&k, USAGE_SHIFT, false)); /* one buffer is left */
    expect(&k, EV_KEY, KEY_LEFTSHIFT, 0);
    g_assert_true(key(&k, USAGE_SHIFT, false));
    expect_nothing(&k);
    finish(&k);
}

static void status(struct input *input, uint16_t type, uint16_t code, uint32_t value)
{
    const struct {
        le16 type, code;
        le32 value;
    } event = { le16_of(type), le16_of(code), le32_of(value) };
    uint64_t at = driver_room(input->driver, sizeof event);
    driver_put(input->driver, at, &event, sizeof event);
    driver_add(input->driver, STATUS, &(struct driver_buffer){ at, sizeof event, false }, 1);
    driver_run(input->driver, STATUS);
    g_assert_true(driver_used(input->driver, STATUS, NULL, NULL));
}

static unsigned lamps(struct input *input)
{
    struct device *dev = input->rig->dev;
    g_mutex_lock(&dev->lock);
    unsigned lit = dev->class->input->lamps(dev);
    g_mutex_unlock(&dev->lock);
    return lit;
}

static void lamps_follow(void)
{
    struct input k = setup("virtio-keyboard", 4);
    status(&k, EV_LED, 1, 1);
    g_assert_cmpuint(lamps(&k), ==, LAMP_CAPS);
    status(&k, EV_LED, 0, 1);
    status(&k, EV_LED, 2, 1);
    status(&k, EV_LED, 9, 1); /* none that it has */
    status(&k, EV_KEY, 1, 0);
    g_assert_cmpuint(lamps(&k), ==, LAMP_CAPS | LAMP_NUM | LAMP_SCROLL);
    status(&k, EV_LED, 1, 0);
    g_assert_cmpuint(lamps(&k), ==, LAMP_NUM | LAMP_SCROLL);
    driver_reset(k.driver);
    g_assert_cmpuint(lamps(&k), ==, 0);
    finish(&k);
}

static bool active(struct input *input)
{
    struct device *dev = input->rig->dev;
    g_mutex_lock(&dev->lock);
    bool yes = dev->class->input->active(dev);
    g_mutex_unlock(&dev->lock);
    return yes;
}

static void active_with_a_driver(void)
{
    struct input k = setup("virtio-keyboard", 4);
    g_assert_true(active(&k));
    key(&k, USAGE_A, true);
    driver_reset(k.driver);
    g_assert_false(active(&k));
    g_assert_true(key(&k, USAGE_A, true)); /* goes nowhere, and holds up nobody */
    g_assert_true(rig_round_trip(k.rig));
    finish(&k);
}

static void pointer(void)
{
    struct input t = setup("virtio-tablet", 60);
    point(&t, 100, 200, 0, 0);
    expect(&t, EV_ABS, 0, 100);
    expect(&t, EV_ABS, 1, 200);
    expect(&t, EV_SYN, 0, 0);
    point(&t, 100, 200, 0, 0); /* nothing new */
    expect_nothing(&t);
    point(&t, 100, 201, -2, BUTTON_LEFT);
    expect(&t, EV_ABS, 1, 201);
    expect(&t, EV_REL, 8, -2);
    expect(&t, EV_KEY, BTN_LEFT, 1);
    expect(&t, EV_SYN, 0, 0);
    point(&t, 1000000, 201, 0, BUTTON_RIGHT | BUTTON_MIDDLE);
    expect(&t, EV_ABS, 0, POINTER_RANGE);
    expect(&t, EV_KEY, BTN_LEFT, 0);
    expect(&t, EV_KEY, BTN_LEFT + 1, 1);
    expect(&t, EV_KEY, BTN_LEFT + 2, 1);
    expect(&t, EV_SYN, 0, 0);
    expect_nothing(&t);
    finish(&t);
}

/* A driver without buffers misses no click and not where the pointer went; motion is joined. */
static void clicks_wait(void)
{
    struct input t = setup("virtio-tablet", 1);
    point(&t, 10, 0, 0, 0);
    expect(&t, EV_ABS, 0, 10);
    for (unsigned i = 11; i <= 20; i++)
        point(&t, i, 0, 1, 0);
    point(&t, 20, 0, 0, BUTTON_LEFT);
    point(&t, 20, 0, 0, 0);
    for (unsigned i = 0; i < 100; i++) /* more clicks than anybody makes: the last state counts */
        point(&t, 30 + i % 2, 0, 0, i % 2 ? 0 : BUTTON_RIGHT);
    expect_nothing(&t);
    g_assert_true(rig_round_trip(t.rig));
    uint64_t next = t.at;
    t.at -= 8;
    provide(&t, 1, 60);
    t.at = next;
    /* its first report was not over, so that what came after is joined to it */
    expect(&t, EV_ABS, 0, 20);
    expect(&t, EV_REL, 8, 10);
    expect(&t, EV_SYN, 0, 0);
    expect(&t, EV_KEY, BTN_LEFT, 1);
    expect(&t, EV_SYN, 0, 0);
    expect(&t, EV_KEY, BTN_LEFT, 0);
    expect(&t, EV_SYN, 0, 0);
    expect(&t, EV_ABS, 0, 30);
    expect(&t, EV_KEY, BTN_LEFT + 1, 1);
    finish(&t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-keyboard/says", keyboard_says);
    g_test_add_func("/virtio-keyboard/keys", keys);
    g_test_add_func("/virtio-keyboard/keys-wait", keys_wait);
    g_test_add_func("/virtio-keyboard/lamps", lamps_follow);
    g_test_add_func("/virtio-keyboard/active", active_with_a_driver);
    g_test_add_func("/virtio-tablet/says", tablet_says);
    g_test_add_func("/virtio-tablet/pointer", pointer);
    g_test_add_func("/virtio-tablet/clicks-wait", clicks_wait);
    return g_test_run();
}
