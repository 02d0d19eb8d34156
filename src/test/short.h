/* hv test --kernel: one command in a guest of its own, without a script (man hv-test(1)). */
#pragma once
#include <stdbool.h>

/* Are these words of `hv test` for it? */
bool short_wanted(int argc, char **argv);
int short_test(int argc, char **argv);
