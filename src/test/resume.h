/* hv test --resume: a run that failed, once more up to a step, which is left to the user. */
#pragma once
#include "test/jobs.h"

/* Writes what it takes to the run's folder. */
bool resume_save(const struct plan *plan, const char *folder, uint32_t seed, GError **error);
/* What there is to type, for a step by its number. To be freed. */
char *resume_line(const char *folder, unsigned step);

/* RUN@STEP: does the script up to the step, and opens the windows of its machines. Ends when all
 * are off, with hv's status. */
int resume_test(const char *where);
