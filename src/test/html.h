/* Results as one page of HTML that needs no other file. One thread. */
#pragma once
#include "test/result.h"

struct html {
    GString *tests; /* what the page has of them */
    char *test;     /* the one that is open; NULL: none */
    unsigned counts[OUTCOME_SKIPPED + 1];
};

void html_init(struct html *html);
void html_finish(struct html *html);
/* A step of a test. Its pictures and logs are read now. */
void html_add(struct html *html, const char *test, const struct result *result);
bool html_write(struct html *html, const char *path, GError **error);
