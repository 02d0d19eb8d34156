/* fw_cfg: the table of items, the ports and the DMA interface (QEMU docs/specs/fw_cfg.rst). */
#include "bus/fw-cfg.h"

#include "rig/rig.h"

#include <string.h>

enum { SELECTOR = 0x510, DATA = 0x511, DMA_HIGH = 0x514, DMA_LOW = 0x518 };
enum { ERROR = 1, READ = 2, SKIP = 4, SELECT = 8, WRITE = 16 };
enum { ACCESS_AT = 0x8000, BUFFER = 0x9000, MISSING = 0x3fff };

/* --- the table ------------------------------------------------------------------------------ */

static GBytes *text(const char *string)
{
    return g_bytes_new(string, strlen(string));
}

static void table_sorted(void)
{
    struct fw_cfg *fw = fw_cfg_new();
    g_assert_true(fw_cfg_add_file(fw, "etc/b", text("bb")));
    g_assert_true(fw_cfg_add_file(fw, "bootorder", text("o")));
    g_assert_true(fw_cfg_add_file(fw, "etc/a", text("a")));
    g_assert_true(fw_cfg_add_file(fw, "etc/b", text("BBB"))); /* replaces */
    static const char *const names[] = { "bootorder", "etc/a", "etc/b" };
    static const uint32_t sizes[] = { 1, 1, 3 };
    gsize size;
    const uint8_t *dir = g_bytes_get_data(fw_cfg_find(fw, FW_CFG_FILE_DIR), &size);
    g_assert_cmpuint(size, ==, 4 + 3 * 64);
    g_assert_cmpmem(dir, 4, "\0\0\0\3", 4);
    for (unsigned i = 0; i < 3; i++) {
        const uint8_t *entry = dir + 4 + i * 64;
        uint8_t head[8] = { 0, 0, 0, (uint8_t)sizes[i], 0, (uint8_t)(FW_CFG_FILE_FIRST + i) };
        g_assert_cmpmem(entry, 8, head, 8);
        g_assert_cmpstr((const char *)entry + 8, ==, names[i]);
        g_assert_true(fw_cfg_find(fw, (uint16_t)(FW_CFG_FILE_FIRST + i)) ==
                      fw_cfg_find_file(fw, names[i]));
    }
    g_assert_null(fw_cfg_find(fw, FW_CFG_FILE_FIRST + 3));
    g_assert_null(fw_cfg_find_file(fw, "etc/c"));
    fw_cfg_free(fw);
}

static void table_refuses(void)
{
    struct fw_cfg *fw = fw_cfg_new();
    g_autofree char *fits = g_strnfill(FW_CFG_NAME_MAX, 'x');
    g_autofree char *too_long = g_strnfill(FW_CFG_NAME_MAX + 1, 'x');
    g_assert_true(fw_cfg_add_file(fw, fits, text("1")));
    g_assert_false(fw_cfg_add_file(fw, too_long, text("1")));
    g_assert_false(fw_cfg_add_file(fw, "", text("1")));
    g_assert_false(fw_cfg_add_file(fw, "\xc3\xa4", text("1")));
    for (unsigned i = 1; i < FW_CFG_FILES_MAX; i++) {
        g_autofree char *name = g_strdup_printf("f%u", i);
        g_assert_true(fw_cfg_add_file(fw, name, text("1")));
    }
    g_assert_false(fw_cfg_add_file(fw, "one more", text("1")));
    fw_cfg_free(fw);
}

/* --- ports ---------------------------------------------------------------------------------- */

static void choose(struct rig *rig, uint16_t key)
{
    rig_out(rig, SELECTOR, 2, key);
}

static void expect(struct rig *rig, const char *bytes, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        g_assert_cmphex(rig_in(rig, DATA, 1), ==, (uint8_t)bytes[i]);
}

static void ports(void)
{
    struct rig *rig = rig_new(device_class_find("fw-cfg"), NULL);
    expect(rig, "QEMU", 4); /* key 0 is selected after a reset */
    choose(rig, FW_CFG_ID);
    expect(rig, "\3\0\0\0\0\0", 6); /* beyond the end: zeros */
    choose(rig, FW_CFG_FILE_FIRST);
    expect(rig, "0123", 4);
    choose(rig, FW_CFG_FILE_FIRST | 0x4000); /* to write: the same item, from its start */
    rig_out(rig, DATA, 1, 'x');              /* and not written */
    expect(rig, "0123456789\0", 11);
    choose(rig, MISSING);
    expect(rig, "\0\0", 2);
    choose(rig, FW_CFG_FILE_FIRST | 0x8000); /* the architecture's own keys are others */
    expect(rig, "\0", 1);
    g_assert_cmphex(rig_in(rig, DMA_HIGH, 4), ==, 0x554d4551); /* "QEMU" as it lies in memory */
    g_assert_cmphex(rig_in(rig, DMA_LOW, 4), ==, 0x47464320);
    rig_free(rig);
}

/* --- DMA ------------------------------------------------------------------------------------ */

/* Runs one operation and returns the control word afterwards. */
static uint32_t dma(struct rig *rig, uint32_t control, uint32_t length, uint64_t address)
{
    struct {
        uint32_t control, length;
        uint64_t address;
    } access = { GUINT32_TO_BE(control), GUINT32_TO_BE(length), GUINT64_TO_BE(address) };
    g_assert_true(guest_write(rig->board.guest, GPA(ACCESS_AT), &access, sizeof access));
    rig_out(rig, DMA_LOW, 4, GUINT32_TO_BE(ACCESS_AT));
    g_assert_true(guest_read(rig->board.guest, GPA(ACCESS_AT), &access, 4));
    return GUINT32_FROM_BE(access.control);
}

static void buffer_is(struct rig *rig, uint64_t at, const char *bytes, unsigned count)
{
    uint8_t buffer[32];
    g_assert_true(guest_read(rig->board.guest, GPA(at), buffer, count));
    g_assert_cmpmem(buffer, count, bytes, count);
}

static uint32_t select_key(uint16_t key)
{
    return (uint32_t)key << 16 | SELECT;
}

static void dma_reads(void)
{
    struct rig *rig = rig_new(device_class_find("fw-cfg"), NULL);
    g_assert_true(guest_write(rig->board.guest, GPA(BUFFER), "................", 16));
    g_assert_cmphex(dma(rig, select_key(FW_CFG_FILE_FIRST), 0, 0), ==, 0);
    g_assert_cmphex(dma(rig, READ, 4, BUFFER), ==, 0);
    buffer_is(rig, BUFFER, "0123....", 8);
    g_assert_cmphex(dma(rig, SKIP, 3, 0), ==, 0);
    expect(rig, "7", 1); /* the ports go on where DMA stopped */
    g_assert_cmphex(dma(rig, READ, 5, BUFFER), ==, 0);
    buffer_is(rig, BUFFER, "89\0\0\0...", 8);
    g_assert_cmphex(dma(rig, select_key(FW_CFG_FILE_FIRST) | SKIP, UINT32_MAX, 0), ==, 0);
    g_assert_cmphex(dma(rig, READ, 2, BUFFER), ==, 0);
    buffer_is(rig, BUFFER, "\0\0\0", 3);
    g_assert_cmphex(dma(rig, select_key(FW_CFG_FILE_FIRST) | READ | SKIP, 2, BUFFER), ==, 0);
    buffer_is(rig, BUFFER, "01", 2); /* read goes before skip */
    rig_free(rig);
}

static void dma_errors(void)
{
    struct rig *rig = rig_new(device_class_find("fw-cfg"), NULL);
    uint32_t chosen = select_key(FW_CFG_FILE_FIRST);
    g_assert_true(guest_write(rig->board.guest, GPA(BUFFER), "....", 4));
    g_assert_cmphex(dma(rig, chosen | WRITE, 4, BUFFER), ==, ERROR);
    expect(rig, "0123", 4); /* not written */
    g_assert_cmphex(dma(rig, chosen | READ, 4, RIG_RAM - 2), ==, ERROR);
    g_assert_cmphex(dma(rig, chosen | READ, 4, UINT64_MAX - 1), ==, ERROR);
    g_assert_cmphex(dma(rig, chosen | READ, UINT32_MAX, BUFFER), ==, ERROR); /* 4 GiB of zeros */
    /* A descriptor outside RAM changes nothing and harms nobody. */
    rig_out(rig, DMA_HIGH, 4, UINT32_MAX);
    rig_out(rig, DMA_LOW, 4, UINT32_MAX);
    /* The upper half counts for one operation only. */
    g_assert_cmphex(dma(rig, chosen | READ, 4, BUFFER), ==, 0);
    buffer_is(rig, BUFFER, "0123", 4);
    rig_out(rig, DMA_HIGH, 4, GUINT32_TO_BE(1));
    g_assert_cmphex(dma(rig, chosen | READ, 4, BUFFER), ==, (chosen | READ)); /* not found there */
    rig_free(rig);
}

static void restored(void)
{
    struct rig *rig = rig_new(device_class_find("fw-cfg"), NULL);
    struct rig *second = rig_new(device_class_find("fw-cfg"), NULL);
    choose(rig, FW_CFG_FILE_FIRST);
    expect(rig, "012", 3);
    g_autoptr(GByteArray) out = g_byte_array_new();
    device_save(rig->dev, out);
    const uint8_t *in = out->data;
    size_t length = out->len;
    g_assert_true(device_load(second->dev, &in, &length, NULL));
    expect(second, "3456", 4);
    rig_free(rig);
    rig_free(second);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/fw-cfg/table/sorted", table_sorted);
    g_test_add_func("/fw-cfg/table/refuses", table_refuses);
    g_test_add_func("/fw-cfg/ports", ports);
    g_test_add_func("/fw-cfg/dma/reads", dma_reads);
    g_test_add_func("/fw-cfg/dma/errors", dma_errors);
    g_test_add_func("/fw-cfg/restored", restored);
    return g_test_run();
}
