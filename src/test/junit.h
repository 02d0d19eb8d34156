/* Results as JUnit's XML, which CI systems read. One thread. */
#pragma once
#include "test/result.h"

struct junit {
    GString *cases;
    unsigned tests, failures, skipped;
};

void junit_init(struct junit *junit);
/* One step of the test called so. */
void junit_add(struct junit *junit, const char *test, const struct result *result);
/* Writes them all to the file; false with an error. */
bool junit_write(const struct junit *junit, const char *path, GError **error);
void junit_finish(struct junit *junit);
