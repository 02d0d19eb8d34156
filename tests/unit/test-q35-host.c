/* The host bridge: both ways to configuration space, ECAM's place, the shadow of the BIOS area. */
#include "rig/rig.h"

#include <string.h>

enum { PCIEXBAR = 0x60, PAM = 0x90, SMRAM = 0x9d, ESMRAMC = 0x9e, ROM_SIZE = 256 << 10 };

/* The bridge at 00:00.0 of a board whose RAM leaves the legacy hole open, as a machine's does. */
struct bridge {
    struct rig *rig; /* lends its board */
    struct device *dev;
    GBytes *rom;
};

static void setup(struct bridge *b)
{
    b->rig = rig_new(device_class_find("pvpanic"), NULL);
    struct guest *guest = b->rig->board.guest;
    guest_slot_set(guest, 0, GPA(0), LEGACY_BASE, guest_ram_host(guest, GPA(0), LEGACY_BASE), 0);
    uint8_t *rom = g_malloc(ROM_SIZE);
    for (unsigned i = 0; i < ROM_SIZE; i++)
        rom[i] = (uint8_t)(i >> 12); /* each page its number */
    b->rom = g_bytes_new_take(rom, ROM_SIZE);
    b->dev = device_create(device_class_find("q35-host"), &b->rig->board, NULL);
    g_assert_true(device_plug(b->dev, "rom", b->rom));
    pci_place(b->dev, 0, NULL);
    g_assert_true(device_start(b->dev, NULL));
}

static void teardown(struct bridge *b)
{
    device_destroy(b->dev);
    rig_free(b->rig);
    g_bytes_unref(b->rom);
}

static void put(struct bridge *b, unsigned reg, unsigned width, uint32_t value)
{
    rig_out(b->rig, 0xcf8, 4, 0x80000000 | (reg & 0xfc));
    rig_out(b->rig, 0xcfc + (reg & 3), width, value);
}

static uint32_t get(struct bridge *b, unsigned reg, unsigned width)
{
    rig_out(b->rig, 0xcf8, 4, 0x80000000 | (reg & 0xfc));
    return rig_in(b->rig, 0xcfc + (reg & 3), width);
}

/* A byte as the guest reads it, -1 where nobody's memory is. */
static int peek(struct bridge *b, uint64_t at)
{
    uint8_t byte;
    return guest_read(b->rig->board.guest, GPA(at), &byte, 1) ? byte : -1;
}

static bool poke(struct bridge *b, uint64_t at, uint8_t byte)
{
    return guest_write(b->rig->board.guest, GPA(at), &byte, 1);
}

static void mechanism_one(void)
{
    struct bridge b;
    setup(&b);
    g_assert_cmphex(get(&b, 0, 4), ==, 0x29c08086);
    g_assert_cmphex(get(&b, 2, 2), ==, 0x29c0);
    g_assert_cmphex(get(&b, 0xb, 1), ==, 0x06);
    g_assert_cmphex(rig_in(b.rig, 0xcf8, 4), ==, 0x80000008);
    rig_out(b.rig, 0xcf8, 4, 0xffffffff);
    g_assert_cmphex(rig_in(b.rig, 0xcf8, 4), ==, 0x80fffffc);
    g_assert_cmphex(rig_in(b.rig, 0xcfc, 4), ==, 0xffffffff); /* bus 255 */
    rig_out(b.rig, 0xcf8, 4, 0x80000000 | 5 << 11);
    g_assert_cmphex(rig_in(b.rig, 0xcfc, 4), ==, 0xffffffff); /* an empty slot */
    rig_out(b.rig, 0xcf8, 4, 0);
    g_assert_cmphex(rig_in(b.rig, 0xcfc, 4), ==, 0xffffffff); /* not enabled */
    put(&b, 0xdc, 4, 0x12345678);
    put(&b, 0xdd, 1, 0xaa);
    g_assert_cmphex(get(&b, 0xdc, 4), ==, 0x1234aa78);
    teardown(&b);
}

static void reset_port_inside_address(void)
{
    struct bridge b;
    setup(&b);
    static const struct region one = { REGION_PORTS, 0, 1, W8, NULL, NULL };
    bus_map(b.rig->board.bus, b.rig->dev, NULL, &one, SPACE_PORTS, 0xcf9);
    rig_out(b.rig, 0xcf8, 4, 0x80001204);
    rig_out(b.rig, 0xcf9, 1, 0xff);
    g_assert_cmphex(rig_in(b.rig, 0xcf8, 4), ==, 0x80001204);
    bus_unmap(b.rig->board.bus, b.rig->dev, &one);
    teardown(&b);
}

static void ecam(void)
{
    struct bridge b;
    setup(&b);
    struct rig *rig = b.rig;
    g_assert_cmphex(get(&b, PCIEXBAR, 4), ==, 0xe0000000); /* the default, disabled */
    g_assert_cmphex(rig_load(rig, 0xe0000000, 4), ==, 0xffffffff);
    put(&b, PCIEXBAR, 4, 0xb0000001);
    g_assert_cmphex(rig_load(rig, 0xb0000000, 4), ==, 0x29c08086);
    g_assert_cmphex(rig_load(rig, 0xb0000002, 2), ==, 0x29c0);
    g_assert_cmphex(rig_load(rig, 0xb0000100, 4), ==, 0);          /* no extended capability */
    g_assert_cmphex(rig_load(rig, 0xb0100000, 4), ==, 0xffffffff); /* bus 1 */
    g_assert_cmphex(rig_load(rig, 0xb0008000, 4), ==, 0xffffffff); /* device 1 */
    /* It moves itself, by its own window. */
    rig_store(rig, 0xb0000060, 4, 0xec000005); /* 64 MiB */
    g_assert_cmphex(rig_load(rig, 0xb0000000, 4), ==, 0xffffffff);
    g_assert_cmphex(rig_load(rig, 0xec000060, 4), ==, 0xec000005);
    put(&b, PCIEXBAR, 4, 0xec000001); /* 256 MiB: bits 27:26 are no address bits now */
    g_assert_cmphex(get(&b, PCIEXBAR, 4), ==, 0xe0000001);
    g_assert_cmphex(rig_load(rig, 0xe0000000, 4), ==, 0x29c08086);
    put(&b, PCIEXBAR + 4, 4, 0xffffffff);
    g_assert_cmphex(get(&b, PCIEXBAR + 4, 4), ==, 0xf);
    g_assert_cmphex(rig_load(rig, 0xfe0000000, 4), ==, 0x29c08086);
    put(&b, PCIEXBAR, 4, 0xe0000007); /* a reserved length */
    g_assert_cmphex(rig_load(rig, 0xfe0000000, 4), ==, 0xffffffff);
    put(&b, PCIEXBAR, 4, 0xe0000001);
    device_reset(b.dev);
    g_assert_cmphex(rig_load(rig, 0xfe0000000, 4), ==, 0xffffffff);
    teardown(&b);
}

static void rom_at_reset(void)
{
    struct bridge b;
    setup(&b);
    g_assert_cmpint(peek(&b, 0xe0000), ==, 0x20);
    g_assert_cmpint(peek(&b, 0xfffff), ==, 0x3f);
    g_assert_cmpint(peek(&b, 0xc0000), ==, -1);
    g_assert_cmpint(peek(&b, 0xdffff), ==, -1);
    g_assert_false(poke(&b, 0xf0000, 1));
    teardown(&b);
}

/* What SeaBIOS does: all of it RAM, copy itself, then parts read-only. */
static void shadow(void)
{
    struct bridge b;
    setup(&b);
    for (unsigned i = 1; i <= 6; i++)
        put(&b, PAM + i, 1, 0x33);
    g_assert_cmpint(peek(&b, 0xeffff), ==, 0);
    g_assert_cmpint(peek(&b, 0xf0000), ==, 0x30); /* PAM0 not yet */
    put(&b, PAM, 1, 0x30);
    g_assert_cmpint(peek(&b, 0xf0000), ==, 0);
    for (uint32_t at = 0xc0000; at < 0x100000; at += 0x1000)
        g_assert_true(poke(&b, at, (uint8_t)(at >> 12)));
    put(&b, PAM + 1, 1, 0x13); /* C4000: read-only */
    g_assert_true(poke(&b, 0xc3fff, 1));
    g_assert_false(poke(&b, 0xc4000, 1));
    g_assert_cmpint(peek(&b, 0xc4000), ==, 0xc4);
    put(&b, PAM, 1, 0x10);
    g_assert_false(poke(&b, 0xf0000, 1));
    g_assert_cmpint(peek(&b, 0xf0000), ==, 0xf0);
    device_reset(b.dev);
    g_assert_cmpint(peek(&b, 0xf0000), ==, 0x30);
    g_assert_cmpint(peek(&b, 0xc0000), ==, -1);
    put(&b, PAM + 1, 1, 0x33); /* reset forgets no DRAM */
    g_assert_cmpint(peek(&b, 0xc4000), ==, 0xc4);
    teardown(&b);
}

/* The older way: reads from the ROM, writes to DRAM, so a BIOS is copied onto itself. */
static void write_only(void)
{
    struct bridge b;
    setup(&b);
    put(&b, PAM, 1, 0x20);
    g_assert_cmpint(peek(&b, 0xf1234), ==, 0x31);
    rig_store(b.rig, 0xf1234, 1, 0x99); /* writes of a read-only slot come as MMIO */
    rig_store(b.rig, 0xe0000, 1, 0x99); /* not open for writes */
    g_assert_cmpint(peek(&b, 0xf1234), ==, 0x31);
    put(&b, PAM, 1, 0x10);
    put(&b, PAM + 5, 1, 0x11);
    g_assert_cmpint(peek(&b, 0xf1234), ==, 0x99);
    g_assert_cmpint(peek(&b, 0xe0000), ==, 0);
    rig_store(b.rig, 0xf1234, 1, 0x55);
    g_assert_cmpint(peek(&b, 0xf1234), ==, 0x99);
    teardown(&b);
}

static unsigned slot_changes;

static int count_slot(void *opaque, unsigned slot, gpa at, uint64_t size, void *host,
                      unsigned flags)
{
    (void)opaque, (void)slot, (void)at, (void)size, (void)host, (void)flags;
    slot_changes++;
    return 0;
}

static void few_slot_changes(void)
{
    static const struct slot_provider provider = { count_slot, NULL };
    struct bridge b;
    setup(&b);
    guest_set_provider(b.rig->board.guest, &provider, NULL);
    slot_changes = 0;
    put(&b, PAM + 1, 1, 0x33);
    g_assert_cmpuint(slot_changes, ==, 1); /* 32 KiB in one slot */
    put(&b, PAM + 1, 1, 0x33);
    put(&b, 0xdc, 4, 1);
    g_assert_cmpuint(slot_changes, ==, 1);
    put(&b, PAM, 1, 0x30);
    g_assert_cmpuint(slot_changes, ==, 3); /* the ROM's slot away, DRAM's in */
    teardown(&b);
}

static void smram_lock(void)
{
    struct bridge b;
    setup(&b);
    g_assert_cmphex(get(&b, SMRAM, 1), ==, 0x02);
    g_assert_cmphex(get(&b, ESMRAMC, 1), ==, 0x38);
    put(&b, SMRAM, 1, 0x4a);
    put(&b, ESMRAMC, 1, 0x83);
    g_assert_cmphex(get(&b, SMRAM, 1), ==, 0x4a);
    g_assert_cmphex(get(&b, ESMRAMC, 1), ==, 0xbb);
    put(&b, SMRAM, 1, 0x5a);
    g_assert_cmphex(get(&b, SMRAM, 1), ==, 0x1a); /* the lock closes D_OPEN */
    put(&b, SMRAM, 1, 0x42);
    put(&b, ESMRAMC, 1, 0);
    g_assert_cmphex(get(&b, SMRAM, 1), ==, 0x1a);
    g_assert_cmphex(get(&b, ESMRAMC, 1), ==, 0xbb);
    device_reset(b.dev);
    put(&b, SMRAM, 1, 0x42);
    g_assert_cmphex(get(&b, SMRAM, 1), ==, 0x42);
    teardown(&b);
}

static void load_shows_again(void)
{
    struct bridge a, b;
    setup(&a);
    setup(&b);
    put(&a, PCIEXBAR, 4, 0xb0000001);
    put(&a, PAM, 1, 0x30);
    put(&a, SMRAM, 1, 0x1a);
    g_autoptr(GByteArray) out = g_byte_array_new();
    device_save(a.dev, out);
    const uint8_t *in = out->data;
    size_t length = out->len;
    g_assert_true(device_load(b.dev, &in, &length, NULL));
    g_assert_cmphex(rig_load(b.rig, 0xb0000000, 4), ==, 0x29c08086);
    g_assert_cmphex(rig_load(b.rig, 0xb0000054, 4), ==, 0x23db); /* a read-only register */
    g_assert_cmpint(peek(&b, 0xf0000), ==, 0);
    put(&b, SMRAM, 1, 0);
    g_assert_cmphex(get(&b, SMRAM, 1), ==, 0x1a);
    teardown(&a);
    teardown(&b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/q35-host/mechanism-one", mechanism_one);
    g_test_add_func("/q35-host/reset-port-inside-address", reset_port_inside_address);
    g_test_add_func("/q35-host/ecam", ecam);
    g_test_add_func("/q35-host/rom-at-reset", rom_at_reset);
    g_test_add_func("/q35-host/shadow", shadow);
    g_test_add_func("/q35-host/write-only", write_only);
    g_test_add_func("/q35-host/few-slot-changes", few_slot_changes);
    g_test_add_func("/q35-host/smram-lock", smram_lock);
    g_test_add_func("/q35-host/load-shows-again", load_shows_again);
    return g_test_run();
}
