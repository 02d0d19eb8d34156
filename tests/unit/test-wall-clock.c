/* --clock: what a machine's clock is to show. Now is 2026-11-24 12:00 UTC. */
#include "cli/wall-clock.h"

#include "base/error.h"

#include <string.h>

enum { HOUR = 3600, DAY = 24 * HOUR };

struct fixture {
    GDateTime *now;
    GTimeZone *zone; /* of Sweden */
};

static void set_up(struct fixture *f, const void *unused)
{
    (void)unused;
    f->now = g_date_time_new_utc(2026, 11, 24, 12, 0, 0.75);
    f->zone = g_time_zone_new_identifier("CET-1CEST,M3.5.0,M10.5.0/3");
    g_assert_nonnull(f->zone);
}

static void tear_down(struct fixture *f, const void *unused)
{
    (void)unused;
    g_date_time_unref(f->now);
    g_time_zone_unref(f->zone);
}

static void understood(struct fixture *f, const void *unused)
{
    (void)unused;
    static const struct {
        const char *text;
        int64_t ahead;
    } cases[] = {
        { "utc", 0 },
        { "local", HOUR },
        { "+90s", 90 },
        { "-5m", -300 },
        { "+36h", 36 * HOUR },
        { "-1d", -DAY },
        { "+2w", 14 * DAY },
        { "+2y", (365 + 366) * DAY }, /* with the 29th of February of 2028 */
        { "utc-1y", -365 * DAY },
        { "local+1d", DAY + HOUR },
        { "local+200d", 200 * DAY + HOUR }, /* the same time of the day, in summer */
        { "local+4800h", 200 * DAY + 2 * HOUR },
        { "2026-11-24", -12 * HOUR },
        { "2026-11-24T12:00:01", 1 },
        { "2026-11-24T13:00:02+01:00", 2 },
        { "1970-01-01", -INT64_C(1795521600) },
        { "9999-12-31T23:59:59", INT64_C(253402300799) - 1795521600 },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        int64_t ahead = 0;
        bool ok = wall_clock_ahead(cases[i].text, f->now, f->zone, &ahead, &error);
        g_assert_no_error(error);
        g_assert_true(ok);
        g_test_message("%s", cases[i].text);
        g_assert_cmpint(ahead, ==, cases[i].ahead);
    }
}

static void refused(struct fixture *f, const void *unused)
{
    (void)unused;
    static const char *const texts[] = {
        "",
        "now",
        "+",
        "+y",
        "+2",
        "2y",
        "+2M",
        "+2yy",
        "+-2y",
        "utc2y",
        "localtime",
        "+8000y",
        "-57y",
        "+100000000y",
        "+100000001s",
        "-100000000w",
        "-100000000h",
        "+99999999999999999999s",
        "2026-13-01",
        "2026-02-29",
        "1969-12-31",
        "2026-11-24T",
        "12:00",
        "2026-11-24 12:00:00",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(GError) error = NULL;
        int64_t ahead = 0;
        g_test_message("%s", texts[i]);
        g_assert_false(wall_clock_ahead(texts[i], f->now, f->zone, &ahead, &error));
        g_assert_cmpint(error->code, ==, HV_USAGE);
        g_assert_nonnull(strstr(error->message, "--clock "));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add("/wall-clock/understood", struct fixture, NULL, set_up, understood, tear_down);
    g_test_add("/wall-clock/refused", struct fixture, NULL, set_up, refused, tear_down);
    return g_test_run();
}
