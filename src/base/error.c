/* Errors for people; see error.h. Any thread may call everything here. */
#include "base/error.h"

#include <string.h>

G_DEFINE_QUARK(hv - error - quark, hv_error)

int hv_exit_status(const GError *error)
{
    if (!error)
        return HV_OK;
    return error->domain == HV_ERROR ? error->code : HV_FAILED;
}

bool hv_fail(GError **error, enum hv_error code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *message = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error_literal(error, HV_ERROR, code, message);
    return false;
}

/* Levenshtein distance; both words are shorter than LONGEST_WORD. */
enum { LONGEST_WORD = 64 };

static unsigned distance(const char *a, const char *b)
{
    unsigned row[LONGEST_WORD];
    size_t width = strlen(b);
    for (unsigned j = 0; j <= width; j++)
        row[j] = j;
    for (unsigned i = 1; a[i - 1]; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= width; j++) {
            unsigned replace = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = MIN(replace, MIN(row[j], row[j - 1]) + 1);
        }
    }
    return row[width];
}

const char *hv_nearest(const char *typed, const char *const *known)
{
    const char *best = NULL;
    size_t length = strlen(typed);
    if (length >= LONGEST_WORD)
        return NULL;
    unsigned limit = (unsigned)length / 3 + 1; /* farther than this is no help */
    for (; *known; known++) {
        if (strlen(*known) >= LONGEST_WORD)
            continue;
        unsigned d = distance(typed, *known);
        if (d <= limit) {
            limit = d - (d > 0);
            best = *known;
            if (d == 0)
                break;
        }
    }
    return best;
}
