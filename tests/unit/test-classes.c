/* What every device class must do, checked for each of them: its table covers each byte of its
 * state, a save loads into the same bytes, every truncated save is refused, all widths at all
 * offsets and 10^5 random accesses are survived (under the sanitizers where they are on). */
#include "rig/rig.h"

#include <string.h>

static void saves_every_byte(const void *data)
{
    const struct device_class *class = data;
    if (class->state.size)
        g_assert_cmpuint(state_gap(&class->state), ==, class->state.size);
}

/* Deterministic noise, so that a failure comes again. */
static void noise(uint8_t *bytes, size_t size, guint32 seed)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)g_rand_int(rand);
}

static void scribble(struct rig *rig, guint32 seed, size_t size)
{
    g_autofree uint8_t *code = g_malloc(size);
    noise(code, size, seed);
    rig_run(rig, code, size);
}

static void round_trip(const void *data)
{
    for (guint32 seed = 0; seed < 20; seed++) {
        struct rig *rig = rig_new(data, NULL);
        scribble(rig, seed, 2000);
        rig_disk_run(rig);
        g_assert_true(rig_round_trip(rig));
        rig_free(rig);
    }
}

static void truncation(const void *data)
{
    struct rig *rig = rig_new(data, NULL);
    g_autoptr(GByteArray) out = g_byte_array_new();
    device_save(rig->dev, out);
    size_t step = out->len / 500 + 1;
    for (size_t cut = 0; cut < out->len; cut += step) {
        const uint8_t *in = out->data;
        size_t length = cut;
        g_autoptr(GError) error = NULL;
        g_assert_false(device_load(rig->dev, &in, &length, &error));
        g_assert_nonnull(error);
    }
    rig_free(rig);
}

/* A hostile save: any bytes at all. The device may refuse or take them, and must live on. */
static void hostile_load(const void *data)
{
    for (guint32 seed = 0; seed < 50; seed++) {
        struct rig *rig = rig_new(data, NULL);
        g_autoptr(GByteArray) out = g_byte_array_new();
        device_save(rig->dev, out);
        size_t pci = rig->dev->pci ? sizeof(uint32_t) + PCI_HEADER_SIZE : 0;
        if (out->len > pci + 4)
            noise(out->data + pci + 4, out->len - pci - 4, seed);
        const uint8_t *in = out->data;
        size_t length = out->len;
        if (device_load(rig->dev, &in, &length, NULL))
            scribble(rig, seed, 500);
        rig_free(rig);
    }
}

static void sweep(const void *data)
{
    struct rig *rig = rig_new(data, NULL);
    const struct region *r = rig->dev->class->regions;
    for (; r && r->kind != REGION_END; r++) {
        uint64_t base = r->kind == REGION_BAR ? rig_bar(rig, (unsigned)r->base) : r->base;
        uint64_t size = MIN(r->size, 8192);
        for (uint64_t at = 0; at < size; at++)
            for (unsigned width = 1; width <= 8; width *= 2) {
                if (r->kind == REGION_PORTS && width < 8) {
                    rig_out(rig, base + at, width, (uint32_t)(at * 0x01010101u));
                    rig_in(rig, base + at, width);
                } else if (r->kind != REGION_PORTS) {
                    rig_store(rig, base + at, width, at * UINT64_C(0x0101010101010101));
                    rig_load(rig, base + at, width);
                }
            }
    }
    rig_free(rig);
}

static void random_accesses(const void *data)
{
    struct rig *rig = rig_new(data, NULL);
    for (guint32 seed = 100; seed < 110; seed++)
        scribble(rig, seed, 60000); /* about 10^5 accesses in all */
    rig_free(rig);
}

/* Whatever happened before, a reset device is like a new one. */
static void reset_is_fresh(const void *data)
{
    for (guint32 seed = 0; seed < 10; seed++) {
        struct rig *used = rig_new(data, NULL), *fresh = rig_new(data, NULL);
        scribble(used, seed, 3000);
        rig_disk_run(used);
        clock_set(fresh->board.clock, clock_now(used->board.clock));
        device_reset(used->dev);
        rig_disk_run(used);
        device_reset(fresh->dev);
        g_autoptr(GByteArray) a = g_byte_array_new();
        g_autoptr(GByteArray) b = g_byte_array_new();
        device_save(used->dev, a);
        device_save(fresh->dev, b);
        if (!(used->dev->class->flags & CLASS_KEEPS_STATE)) {
            g_assert_cmpuint(a->len, ==, b->len);
            for (guint i = 0; i < a->len; i++)
                if (a->data[i] != b->data[i])
                    g_error("%s: byte %u of the state survives a reset", used->dev->class->name, i);
        }
        rig_free(used);
        rig_free(fresh);
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(const void *class);
    } checks[] = {
        { "saves-every-byte", saves_every_byte },
        { "round-trip", round_trip },
        { "truncation", truncation },
        { "hostile-load", hostile_load },
        { "width-sweep", sweep },
        { "random-accesses", random_accesses },
        { "reset-is-fresh", reset_is_fresh },
    };
    g_test_init(&argc, &argv, NULL);
    for (const struct device_class *const *class = device_classes; *class; class ++)
        for (size_t i = 0; i < G_N_ELEMENTS(checks); i++) {
            g_autofree char *path = g_strdup_printf("/%s/%s", (*class)->name, checks[i].name);
            g_test_add_data_func(path, *class, checks[i].run);
        }
    return g_test_run();
}
