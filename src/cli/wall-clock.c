/* What a real-time clock shows; see wall-clock.h. */
#include "cli/wall-clock.h"

#include "base/error.h"

#include <string.h>

enum { FIRST_YEAR = 1970, LAST_YEAR = 9999, AMOUNT_MAX = 100000000 };

static GDateTime *add_seconds(GDateTime *time, int amount)
{
    return g_date_time_add_seconds(time, amount);
}

static const struct {
    char unit;
    GDateTime *(*add)(GDateTime *time, int amount); /* NULL: the year is not in 1 to 9999 */
} units[] = {
    { 's', add_seconds },          { 'm', g_date_time_add_minutes }, { 'h', g_date_time_add_hours },
    { 'd', g_date_time_add_days }, { 'w', g_date_time_add_weeks },   { 'y', g_date_time_add_years },
};

/* +2y, -90d or nothing. */
static bool parse_difference(const char *text, int *amount, unsigned *unit)
{
    char *end;
    *amount = 0;
    *unit = 0;
    if (!*text)
        return true;
    if ((text[0] != '+' && text[0] != '-') || !g_ascii_isdigit(text[1]))
        return false;
    uint64_t number = g_ascii_strtoull(text + 1, &end, 10);
    *amount = (int)MIN(number, AMOUNT_MAX) * (text[0] == '-' ? -1 : 1);
    while (*unit < G_N_ELEMENTS(units) && units[*unit].unit != *end)
        ++*unit;
    return *unit < G_N_ELEMENTS(units) && !end[1] && number <= AMOUNT_MAX;
}

static GDateTime *parse_date(const char *text)
{
    g_autoptr(GTimeZone) utc = g_time_zone_new_utc();
    g_autofree char *midnight = strchr(text, 'T') ? NULL : g_strconcat(text, "T00:00:00", NULL);
    return g_date_time_new_from_iso8601(midnight ? midnight : text, utc);
}

bool wall_clock_ahead(const char *text, GDateTime *now, GTimeZone *zone, int64_t *seconds,
                      GError **error)
{
    g_autoptr(GTimeZone) utc = g_time_zone_new_utc();
    const char *difference = text;
    int amount;
    unsigned unit;
    if (g_str_has_prefix(text, "local"))
        difference += strlen("local");
    else if (g_str_has_prefix(text, "utc"))
        difference += strlen("utc");
    bool is_local = *text == 'l';
    g_autoptr(GDateTime) date = parse_date(text), then = NULL;
    if (!*text || (!date && !parse_difference(difference, &amount, &unit)))
        return hv_fail(
            error, HV_USAGE,
            "--clock %s: \"utc\", \"local\", a difference such as +2y or -90d (with s, m, h, "
            "d, w or y), a date, or a time such as 2028-02-29T23:59:00 is wanted",
            text);
    if (!date) {
        g_autoptr(GDateTime) there = g_date_time_to_timezone(now, is_local ? zone : utc);
        then = units[unit].add(there, amount);
    }
    GDateTime *shown = date ? date : then;
    int year = shown ? g_date_time_get_year(shown) : 0;
    if (year < FIRST_YEAR || year > LAST_YEAR)
        return hv_fail(error, HV_USAGE, "--clock %s: the years %d to %d are possible", text,
                       FIRST_YEAR, LAST_YEAR);
    int64_t offset = date ? 0 : g_date_time_get_utc_offset(then) / G_USEC_PER_SEC;
    *seconds = g_date_time_to_unix(shown) + offset - g_date_time_to_unix(now);
    return true;
}
