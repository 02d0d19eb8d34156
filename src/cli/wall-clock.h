/* What a machine's real-time clock shows when it starts: the option --clock. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* How many seconds a clock is ahead of `now`, a time in UTC, by what a user says: utc or local,
 * which is the time in `zone`; either or none, for utc, with a difference, +2y or -90d, behind it;
 * or a date, with or without a time. The clock's time is in the years 1970 to 9999. */
bool wall_clock_ahead(const char *text, GDateTime *now, GTimeZone *zone, int64_t *seconds,
                      GError **error);
