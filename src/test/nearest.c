/* Near misses; see nearest.h. */
#include "test/nearest.h"

#include <glib.h>
#include <string.h>

enum { LONGEST = 256 };

/* Sellers' algorithm: the distance of `wanted` to any part of the line, and where that ends and
 * begins. */
static unsigned distance(const char *line, size_t length, const char *wanted, size_t want,
                         size_t *start, size_t *end)
{
    unsigned row[LONGEST + 1], best = (unsigned)want;
    size_t from[LONGEST + 1];
    for (unsigned i = 0; i <= want; i++) {
        row[i] = i;
        from[i] = 0;
    }
    *start = *end = 0;
    for (size_t j = 0; j < length; j++) {
        unsigned diagonal = row[0];
        size_t begun = from[0];
        from[0] = j + 1;
        for (size_t i = 1; i <= want; i++) {
            unsigned above = row[i];
            size_t above_from = from[i];
            unsigned replace = diagonal + (wanted[i - 1] != line[j]);
            row[i] = replace;
            size_t origin = begun;
            if (above + 1 < row[i]) {
                row[i] = above + 1;
                origin = above_from;
            }
            if (row[i - 1] + 1 < row[i]) {
                row[i] = row[i - 1] + 1;
                origin = from[i - 1];
            }
            diagonal = above;
            begun = above_from;
            from[i] = origin;
        }
        if (row[want] < best) {
            best = row[want];
            *start = from[want];
            *end = j + 1;
        }
    }
    return best;
}

int nearest_part(const char *text, const char *wanted, char **part)
{
    size_t want = strlen(wanted), start, end;
    unsigned best = (unsigned)want / 2 + 1; /* farther than this is no help */
    *part = NULL;
    if (!want || want > LONGEST)
        return -1;
    while (*text) {
        size_t length = strcspn(text, "\n");
        unsigned d = distance(text, length, wanted, want, &start, &end);
        if (d < best) {
            best = d;
            g_free(*part);
            *part = g_strndup(text + start, end - start);
        }
        text += length + (text[length] != '\0');
    }
    return *part ? (int)best : -1;
}
