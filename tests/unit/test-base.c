/* The ground everything stands on: errors, field tables, the clock, guest memory, the buses. */
#include "base/clock.h"
#include "base/error.h"
#include "base/state.h"
#include "memory/bus.h"
#include "memory/guest.h"

#include <string.h>
#include <time.h>

/* --- errors --------------------------------------------------------------------------------- */

static void nearest(void)
{
    static const char *const known[] = { "memory", "cpus", "disk", "headless", NULL };
    g_assert_cmpstr(hv_nearest("memroy", known), ==, "memory");
    g_assert_cmpstr(hv_nearest("disks", known), ==, "disk");
    g_assert_null(hv_nearest("qwertyuiop", known));
}

/* --- state ---------------------------------------------------------------------------------- */

struct inner {
    uint16_t pair[2];
};
struct regs {
    uint64_t wide;
    struct inner inner[2];
    uint8_t index;
    bool flag;
    uint8_t pad[6];
};
struct thing {
    int host_side;
    struct regs regs;
};

static const struct field inner_fields[] = { SAVED_ARRAY(struct inner, pair), SAVED_END };
static const struct field thing_fields[] = {
    SAVED(struct regs, wide),         SAVED_STRUCTS(struct regs, inner, inner_fields),
    SAVED_MAX(struct regs, index, 9), SAVED(struct regs, flag),
    SAVED_PAD(struct regs, pad),      SAVED_END,
};
static const struct field short_fields[] = { SAVED(struct regs, wide), SAVED_END };

static void state_walk(void)
{
    const struct state state = STATE(struct thing, regs, 1, thing_fields);
    struct thing a = { .regs = { .wide = 77, .inner[1].pair[0] = 5, .index = 9, .flag = true } };
    struct thing b = { 0 };
    g_autoptr(GByteArray) out = g_byte_array_new();
    state_save(&state, &a, out);
    const uint8_t *in = out->data;
    size_t length = out->len;
    g_assert_true(state_load(&state, &b, &in, &length, NULL));
    g_assert_cmpuint(length, ==, 0);
    g_assert_cmpmem(&a.regs, sizeof a.regs, &b.regs, sizeof b.regs);
    g_assert_cmpuint(state_gap(&state), ==, state.size);

    const struct state lacking = STATE(struct thing, regs, 1, short_fields);
    g_assert_cmpuint(state_gap(&lacking), ==, offsetof(struct regs, inner));

    a.regs.index = 10; /* above its max: the file is not trusted */
    g_byte_array_set_size(out, 0);
    state_save(&state, &a, out);
    in = out->data;
    length = out->len;
    g_autoptr(GError) error = NULL;
    g_assert_false(state_load(&state, &b, &in, &length, &error));
    g_assert_nonnull(strstr(error->message, "index is out of range"));
}

/* --- clock ---------------------------------------------------------------------------------- */

struct alarm {
    struct timer timer;
    GMutex lock;
    unsigned rang;
    uint64_t at;
    struct alarm *other; /* cancelled by this one */
};

static void ring(void *owner)
{
    struct alarm *alarm = owner;
    alarm->rang++;
    alarm->at = clock_now(alarm->timer.clock);
    if (alarm->other)
        timer_cancel(&alarm->other->timer);
}

/* A deadline that no guest lives to see, as a hostile saved state may have, is waited for asleep.
 */
static void far_timer(void)
{
    struct clock *clock = clock_new(false);
    struct alarm a = { 0 };
    struct timespec before, after;
    g_mutex_init(&a.lock);
    timer_init(&a.timer, clock, &a.lock, ring, &a);
    timer_set(&a.timer, TIMER_NEVER - 1);
    clock_start(clock);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    g_usleep(200 * 1000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    g_assert_cmpint((after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec, <,
                    50 * 1000000);
    timer_finish(&a.timer);
    clock_free(clock);
    g_mutex_clear(&a.lock);
}

static void timers(void)
{
    struct clock *clock = clock_new(true);
    struct alarm a = { .rang = 0 }, b = { .rang = 0 };
    g_mutex_init(&a.lock);
    g_mutex_init(&b.lock);
    timer_init(&a.timer, clock, &a.lock, ring, &a);
    timer_init(&b.timer, clock, &b.lock, ring, &b);
    timer_set(&b.timer, 200);
    timer_set(&a.timer, 100);
    clock_advance(clock, 99, 0);
    g_assert_cmpuint(a.rang, ==, 0);
    clock_advance(clock, 1, 0);
    g_assert_cmpuint(a.rang, ==, 1);
    g_assert_false(timer_armed(&a.timer));
    clock_advance(clock, 1000, 0);
    g_assert_cmpuint(b.at, ==, 200);
    a.other = &b;
    timer_set(&a.timer, 2000);
    timer_set(&b.timer, 2001);
    clock_advance(clock, 1000, 0);
    g_assert_cmpuint(a.rang, ==, 2);
    g_assert_cmpuint(b.rang, ==, 1);
    timer_finish(&a.timer);
    timer_finish(&b.timer);
    clock_free(clock);
}

/* The real clock: a deadline in the past runs soon, on the clock's thread; none while stopped. */
static void real_clock(void)
{
    struct clock *clock = clock_new(false);
    struct alarm a = { .rang = 0 };
    g_mutex_init(&a.lock);
    timer_init(&a.timer, clock, &a.lock, ring, &a);
    g_mutex_lock(&a.lock);
    timer_set(&a.timer, 0);
    g_mutex_unlock(&a.lock);
    g_assert_cmpuint(clock_now(clock), ==, 0);
    clock_start(clock);
    bool rang = false;
    while (!rang) { /* the test's time-out bounds it */
        g_mutex_lock(&a.lock);
        rang = a.rang > 0;
        g_mutex_unlock(&a.lock);
        g_thread_yield();
    }
    clock_stop(clock);
    uint64_t stopped = clock_now(clock);
    g_assert_cmpuint(stopped, >, 0);
    g_assert_cmpuint(clock_now(clock), ==, stopped);
    timer_finish(&a.timer);
    clock_free(clock);
}

/* --- guest memory --------------------------------------------------------------------------- */

static void guest_copies(void)
{
    struct guest *guest = guest_new(4 * MIB, NULL);
    unsigned ram = guest_slot_new(guest), rom = guest_slot_new(guest);
    g_assert_true(guest_slot_set(guest, ram, GPA(0), MIB, guest_ram_host(guest, GPA(0), MIB), 0));
    g_assert_true(guest_slot_set(guest, rom, GPA(MIB), 4096, guest_ram_host(guest, GPA(MIB), 4096),
                                 SLOT_READONLY));
    g_assert_false(guest_slot_set(guest, rom, GPA(4096), 4096, NULL, 0)); /* overlaps */
    g_assert_false(guest_slot_set(guest, rom, GPA(MIB + 1), 4096, NULL, 0));

    uint32_t word = 0x12345678, back = 0;
    g_assert_true(guest_write(guest, GPA(MIB - 4), &word, 4));
    g_assert_true(guest_read(guest, GPA(MIB - 4), &back, 4));
    g_assert_cmphex(back, ==, word);
    g_assert_false(guest_write(guest, GPA(MIB - 2), &word, 4)); /* reaches into the ROM */
    g_assert_true(guest_read(guest, GPA(MIB - 2), &back, 4));
    g_assert_false(guest_read(guest, GPA(MIB + 4094), &back, 4));
    g_assert_false(guest_read(guest, GPA(UINT64_MAX - 1), &back, 4));
    back = 0;
    g_assert_true(guest_read(guest, GPA(MIB - 4), &back, 4)); /* nothing was half done */
    g_assert_cmphex(back, ==, word);

    struct iovec iov[2];
    unsigned used = 0;
    g_assert_true(guest_span(guest, GPA(0x1000), 0x1000, true, iov, &used, 2));
    g_assert_true(guest_span(guest, GPA(0x2000), 0x1000, true, iov, &used, 2));
    g_assert_cmpuint(used, ==, 1); /* joined */
    g_assert_true(guest_span(guest, GPA(0x9000), 0x1000, true, iov, &used, 2));
    g_assert_false(guest_span(guest, GPA(0x20000), 0x1000, true, iov, &used, 2));
    g_assert_false(guest_span(guest, GPA(MIB), 16, true, iov, &used, 2));
    g_assert_cmpuint(used, ==, 2);
    guest_free(guest);
}

static bool is_filled(struct guest *guest, uint64_t at)
{
    uint8_t byte;
    g_assert_true(guest_read(guest, GPA(at), &byte, 1));
    return byte == 7;
}

/* What is discarded: whole pages of writable RAM, whatever else lies in the range. */
static void guest_discards(void)
{
    enum { PAGE = 4096, ROM = 0x20000, VIDEO = 0x40000, FAR = 0x80000 };
    static const struct {
        uint64_t at, size;
        unsigned flags;
    } slots[] = {
        { 0, ROM, 0 }, { ROM, 0x10000, SLOT_READONLY }, { FAR, 0x10000, 0 }, /* and a hole */
    };
    struct guest *guest = guest_new(MIB, NULL);
    g_autofree uint8_t *video = g_malloc0(2 * PAGE);
    uint8_t *aligned = (uint8_t *)(((uintptr_t)video + PAGE - 1) & ~(uintptr_t)(PAGE - 1));
    memset(guest_ram_host(guest, GPA(0), MIB), 7, MIB);
    for (size_t i = 0; i < G_N_ELEMENTS(slots); i++)
        g_assert_true(guest_slot_set(guest, guest_slot_new(guest), GPA(slots[i].at), slots[i].size,
                                     guest_ram_host(guest, GPA(slots[i].at), slots[i].size),
                                     slots[i].flags));
    g_assert_true(guest_slot_set(guest, guest_slot_new(guest), GPA(VIDEO), PAGE, aligned, 0));
    memset(aligned, 7, PAGE);

    g_assert_cmpuint(guest_discard(guest, GPA(PAGE + 1), 2 * PAGE), ==, PAGE);
    g_assert_true(is_filled(guest, 2 * PAGE - 1) && is_filled(guest, 3 * PAGE));
    g_assert_false(is_filled(guest, 2 * PAGE) || is_filled(guest, 3 * PAGE - 1));
    g_assert_cmpuint(guest_discard(guest, GPA(PAGE), PAGE - 1), ==, 0);
    g_assert_cmpuint(guest_discard(guest, GPA(UINT64_MAX - PAGE), PAGE), ==, 0);
    g_assert_cmpuint(guest_discard(guest, GPA(PAGE), UINT64_MAX), ==, 0);
    g_assert_cmpuint(guest_discard(guest, GPA(0x50000), PAGE), ==, 0);
    g_assert_cmpuint(guest_discard(guest, GPA(ROM - PAGE), UINT64_C(1) << 60), ==, PAGE + 0x10000);
    g_assert_true(is_filled(guest, ROM) && is_filled(guest, VIDEO));
    g_assert_false(is_filled(guest, ROM - PAGE) || is_filled(guest, FAR));
    guest_free(guest);
}

static void guest_dirty(void)
{
    struct guest *guest = guest_new(MIB, NULL);
    unsigned slot = guest_slot_new(guest);
    uint64_t bitmap[4] = { 0 };
    g_assert_true(
        guest_slot_set(guest, slot, GPA(0), MIB, guest_ram_host(guest, GPA(0), MIB), SLOT_LOG));
    g_assert_false(guest_slot_dirty(guest, slot, bitmap));
    g_assert_true(guest_write(guest, GPA(0x41fff), "ab", 2));
    g_assert_true(guest_slot_dirty(guest, slot, bitmap));
    g_assert_cmphex(bitmap[1], ==, 6);
    g_assert_false(guest_slot_dirty(guest, slot, bitmap));
    guest_free(guest);
}

/* --- buses ---------------------------------------------------------------------------------- */

static unsigned last_width;
static uint64_t last_offset, last_value;

static uint64_t echo_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)dev;
    last_width = width;
    last_offset = offset;
    return 0x1122334455667788u >> offset * 8 & (width == 8 ? UINT64_MAX : (1ull << width * 8) - 1);
}

static void echo_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    (void)dev;
    last_width = width;
    last_offset = offset;
    last_value = value;
}

static void bus_widths(void)
{
    static const struct region words = { REGION_MMIO, 0, 8, W32, echo_read, echo_write };
    static const struct region bytes = { REGION_PORTS, 0, 4, W8, echo_read, echo_write };
    struct bus *bus = bus_new();
    struct bus_reader reader = { .generation = 0 };
    bus_add_reader(bus, &reader);
    g_assert_true(bus_map(bus, NULL, NULL, &words, SPACE_MMIO, 0x1000));
    g_assert_true(bus_map(bus, NULL, NULL, &bytes, SPACE_PORTS, 0x60));
    g_assert_false(bus_map(bus, NULL, NULL, &bytes, SPACE_PORTS, 0xffff)); /* beyond the space */
    uint64_t value = 0;

    g_assert_true(bus_load(bus, &reader, 0x1000, &value, 4));
    g_assert_cmphex(value, ==, 0x55667788);
    g_assert_true(bus_load(bus, &reader, 0x1000, &value, 8)); /* split */
    g_assert_cmphex(value, ==, 0x1122334455667788);
    value = 0;
    g_assert_true(bus_load(bus, &reader, 0x1006, &value, 1)); /* cut out */
    g_assert_cmphex(value, ==, 0x22);
    g_assert_cmpuint(last_width, ==, 4);
    last_value = 0;
    bus_store(bus, &reader, 0x1001, &value, 1); /* no byte enable selects it */
    g_assert_cmphex(last_value, ==, 0);
    g_assert_true(bus_in(bus, &reader, 0x62, &value, 4)); /* two answer, two do not */
    g_assert_cmphex(value, ==, 0xffff5566);
    value = 0;
    g_assert_false(bus_in(bus, &reader, 0x80, &value, 2));
    g_assert_cmphex(value, ==, 0xffff);
    value = 0xaabb;
    bus_out(bus, &reader, 0x60, &value, 2);
    g_assert_cmphex(last_value, ==, 0xaa);
    g_assert_cmpuint(last_offset, ==, 1);
    bus_unmap(bus, NULL, &bytes);
    g_assert_false(bus_in(bus, &reader, 0x60, &value, 1));
    bus_free(bus);
}

static unsigned width_count[9];

static uint64_t count_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)dev;
    width_count[width]++;
    g_assert_cmpuint(offset % width, ==, 0);
    return width == 8 ? UINT64_C(0x1122334455667788) : 0x55 + offset;
}

static void count_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    (void)dev, (void)value;
    width_count[width]++;
    g_assert_cmpuint(offset % width, ==, 0);
}

/* KVM cuts an access at the end of a page: 4 bytes become 1 and 3, and 8 any two numbers. A device
 * sees widths that it has, at offsets that are multiples of them, and no byte beyond. */
static void bus_odd_lengths(void)
{
    static const struct region any = { REGION_MMIO,          0,          0x1000,
                                       W8 | W16 | W32 | W64, count_read, count_write };
    struct bus *bus = bus_new();
    struct bus_reader reader = { .generation = 0 };
    bus_add_reader(bus, &reader);
    g_assert_true(bus_map(bus, NULL, NULL, &any, SPACE_MMIO, 0x1000));
    for (unsigned length = 1; length <= 8; length++)
        for (unsigned at = 0; at < 8; at++) {
            g_autofree uint8_t *data = g_malloc0(length); /* the sanitizer guards its end */
            g_assert_true(bus_load(bus, &reader, 0x1000 + at, data, length));
            bus_store(bus, &reader, 0x1000 + at, data, length);
        }
    for (unsigned width = 0; width <= 8; width++)
        g_assert_true(!width_count[width] == !(width && !(width & (width - 1))));
    uint8_t three[3] = { 0 };
    g_assert_true(bus_load(bus, &reader, 0x1000, three, 3));
    g_assert_cmphex(three[0], ==, 0x55);
    g_assert_cmphex(three[2], ==, 0x57);
    bus_free(bus);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/error/nearest", nearest);
    g_test_add_func("/state/walk", state_walk);
    g_test_add_func("/clock/timers", timers);
    g_test_add_func("/clock/far", far_timer);
    g_test_add_func("/clock/real", real_clock);
    g_test_add_func("/guest/copies", guest_copies);
    g_test_add_func("/guest/dirty", guest_dirty);
    g_test_add_func("/guest/discards", guest_discards);
    g_test_add_func("/bus/widths", bus_widths);
    g_test_add_func("/bus/odd-lengths", bus_odd_lengths);
    return g_test_run();
}
