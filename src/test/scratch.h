/* A temporary folder for one test, and its end with all that is in it. Any thread. */
#pragma once
#include <glib.h>

/* An empty folder that is the user's only, in $TMPDIR or /tmp. To be given to scratch_free; NULL
 * with an error. */
char *scratch_new(GError **error);
/* Removes it. What cannot be removed stays, as in what somebody has mounted there. */
void scratch_free(char *folder);
