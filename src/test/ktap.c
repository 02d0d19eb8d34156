/* Results in KTAP; see ktap.h. */
#include "test/ktap.h"

#include <string.h>

enum { LINE_MAX_KEPT = 4096 }; /* what is behind that in a line says nothing here */

void ktap_start(struct ktap *ktap)
{
    *ktap = (struct ktap){ .line = g_string_new(NULL), .planned = -1 };
}

/* The outermost level is complete, or another program's begins. */
static void end_plan(struct ktap *ktap)
{
    if (ktap->planned >= 0 && (unsigned)ktap->planned != ktap->points)
        ktap->misfit = true;
    ktap->planned = -1;
    ktap->points = 0;
}

/* The word behind the line's #: SKIP, TODO, XFAIL; a \# is none. */
static bool has_directive(const char *line, const char *word)
{
    for (const char *at = line; (at = strchr(at, '#')); at++)
        if (at == line || at[-1] != '\\') {
            const char *text = at + 1 + strspn(at + 1, " ");
            if (!g_ascii_strncasecmp(text, word, strlen(word)))
                return true;
        }
    return false;
}

static void take_point(struct ktap *ktap, const char *line, bool ok, bool outermost)
{
    bool excused =
        has_directive(line, "TODO") || has_directive(line, "SKIP") || has_directive(line, "XFAIL");
    if (ok || excused)
        ktap->passed++;
    else
        ktap->failed++;
    ktap->points += outermost;
}

static void take_line(struct ktap *ktap)
{
    const char *line = ktap->line->str, *text = line + strspn(line, " \t");
    bool outermost = text == line;
    if (g_str_has_prefix(text, "ok ") || !strcmp(text, "ok"))
        take_point(ktap, text, true, outermost);
    else if (g_str_has_prefix(text, "not ok ") || !strcmp(text, "not ok"))
        take_point(ktap, text, false, outermost);
    else if (g_str_has_prefix(text, "Bail out!"))
        ktap->bailed = true;
    else if (outermost &&
             (g_str_has_prefix(text, "TAP version ") || g_str_has_prefix(text, "KTAP version ")))
        end_plan(ktap);
    else if (outermost && g_str_has_prefix(text, "1..") && g_ascii_isdigit(text[3]))
        ktap->planned = (int)MIN(g_ascii_strtoull(text + 3, NULL, 10), G_MAXINT);
}

void ktap_take(struct ktap *ktap, const void *data, size_t length)
{
    for (const char *at = data; length; at++, length--) {
        if (*at == '\n') {
            take_line(ktap);
            g_string_truncate(ktap->line, 0);
        } else if (*at != '\r' && *at && ktap->line->len < LINE_MAX_KEPT) {
            g_string_append_c(ktap->line, *at);
        }
    }
}

char *ktap_finish(struct ktap *ktap)
{
    take_line(ktap);
    g_string_free(ktap->line, true);
    end_plan(ktap);
    if (ktap->bailed)
        return g_strdup("the tests bailed out");
    if (ktap->failed)
        return g_strdup_printf("%u of %u test points failed", ktap->failed,
                               ktap->failed + ktap->passed);
    if (ktap->misfit)
        return g_strdup("there are more or fewer test points than were planned");
    return ktap->passed ? NULL : g_strdup("the command wrote no test point (ok ..., not ok ...)");
}
