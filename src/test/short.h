/* hv test --kernel: one command in a guest of its own, without a script (man hv-test(1)). */
#pragma once
#include <glib.h>
#include <stdbool.h>

/* Are these words of `hv test` for it? */
bool short_wanted(int argc, char **argv);
/* Do they want the statuses of git bisect run? */
bool short_bisects(char **words);
int short_test(int argc, char **argv);
/* The same; `busy`, if not NULL, becomes how many microseconds of it the host was busy. */
int short_test_busy(int argc, char **argv, gint64 *busy);
/* Are the words right? Then `memory` becomes the bytes of RAM of the guest. */
bool short_check(int argc, char **argv, guint64 *memory, GError **error);
