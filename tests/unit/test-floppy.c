/* The sizes of floppies, and which drives take them. */
#include "block/floppy.h"

static void sizes(void)
{
    static const struct {
        uint64_t kib;
        unsigned cylinders, heads, sectors;
        enum floppy_drive drive;
    } expected[] = {
        { 160, 40, 1, 8, FLOPPY_360K },    { 180, 40, 1, 9, FLOPPY_360K },
        { 320, 40, 2, 8, FLOPPY_360K },    { 360, 40, 2, 9, FLOPPY_360K },
        { 720, 80, 2, 9, FLOPPY_1440K },   { 1200, 80, 2, 15, FLOPPY_1200K },
        { 1440, 80, 2, 18, FLOPPY_1440K }, { 1680, 80, 2, 21, FLOPPY_2880K },
        { 1722, 82, 2, 21, FLOPPY_2880K }, { 2880, 80, 2, 36, FLOPPY_2880K },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(expected); i++) {
        const struct floppy_format *f = floppy_format(expected[i].kib * 1024);
        g_assert_nonnull(f);
        g_assert_cmpuint(f->cylinders, ==, expected[i].cylinders);
        g_assert_cmpuint(f->heads, ==, expected[i].heads);
        g_assert_cmpuint(f->sectors, ==, expected[i].sectors);
        g_assert_cmpuint(f->drive, ==, expected[i].drive);
        g_assert_true(floppy_fits(f->drive, f));
        g_assert_false(floppy_fits(FLOPPY_NO_DRIVE, f));
        g_assert_null(floppy_format(expected[i].kib * 1024 + 512));
    }
    g_assert_null(floppy_format(0));
    g_assert_null(floppy_format(1 << 20));
}

static void fits(enum floppy_drive drive, unsigned kib, bool expected)
{
    g_assert_cmpint(floppy_fits(drive, floppy_format(kib * 1024)), ==, expected);
}

static void drives(void)
{
    fits(FLOPPY_360K, 160, true);
    fits(FLOPPY_360K, 1200, false);
    fits(FLOPPY_1200K, 360, true);
    fits(FLOPPY_1200K, 1200, true);
    fits(FLOPPY_1200K, 1440, false);
    fits(FLOPPY_1440K, 1200, false);
    fits(FLOPPY_1440K, 720, true);
    fits(FLOPPY_1440K, 1722, true);
    fits(FLOPPY_1440K, 2880, false);
    fits(FLOPPY_2880K, 720, true);
    fits(FLOPPY_2880K, 2880, true);
    fits(FLOPPY_2880K, 360, false);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/floppy/sizes", sizes);
    g_test_add_func("/floppy/drives", drives);
    return g_test_run();
}
