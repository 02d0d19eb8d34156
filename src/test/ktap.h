/* Results of tests as the kernel's print them: TAP 13 and 14, and KTAP 1 and 2
 * (Documentation/dev-tools/ktap.rst). One thread. */
#pragma once
#include <glib.h>
#include <stdbool.h>

struct ktap {
    GString *line;           /* one that is not complete */
    unsigned passed, failed; /* test points; those that are nested count, too */
    unsigned points;         /* of the outermost level, since its version line */
    int planned;             /* of these; -1: there was no plan */
    bool misfit, bailed;     /* a plan was not kept; "Bail out!" */
};

void ktap_start(struct ktap *ktap);
void ktap_take(struct ktap *ktap, const void *data, size_t length);
/* At the end of the output: what is wrong with it, to be freed; NULL: all is well. */
char *ktap_finish(struct ktap *ktap);
