/* Results as JUnit's XML; see junit.h. There is no specification; this is what Jenkins, GitLab and
 * GitHub's actions take: testsuites, testsuite, testcase, and in that failure, skipped, system-out.
 */
#include "test/junit.h"

#include "base/error.h"

#include <string.h>

void junit_init(struct junit *junit)
{
    *junit = (struct junit){ .cases = g_string_new(NULL) };
}

void junit_finish(struct junit *junit)
{
    g_string_free(junit->cases, true);
}

/* XML 1.0 section 2.2: most control characters cannot be in a document, not even escaped. */
static char *escape(const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);
    for (char *c = valid; *c; c++)
        if ((unsigned char)*c < ' ' && *c != '\n' && *c != '\t')
            *c = ' ';
    return g_markup_escape_text(valid, -1);
}

static void add_element(GString *xml, const char *name, const char *message)
{
    g_autofree char *text = escape(message ? message : "");
    g_string_append_printf(xml, "      <%s message=\"%s\"/>\n", name, text);
}

void junit_add(struct junit *junit, const char *test, const struct result *result)
{
    char seconds[G_ASCII_DTOSTR_BUF_SIZE];
    g_autofree char *class = escape(test), *name = escape(result->title);
    g_ascii_formatd(seconds, sizeof seconds, "%.3f", (double)result->wall / G_USEC_PER_SEC);
    g_string_append_printf(junit->cases,
                           "    <testcase classname=\"%s\" name=\"%s\" time=\"%s\">\n", class, name,
                           seconds);
    junit->tests++;
    if (result->outcome == OUTCOME_FAILED) {
        junit->failures++;
        add_element(junit->cases, "failure", result->message);
    } else if (result->outcome == OUTCOME_SKIPPED) {
        junit->skipped++;
        add_element(junit->cases, "skipped", result->message);
    }
    g_string_append(junit->cases, "      <system-out>");
    for (guint i = 0; i < result->moments->len; i++) {
        g_autofree char *line = moment_line(g_ptr_array_index(result->moments, i));
        g_autofree char *text = escape(line ? line : "");
        if (line)
            g_string_append_printf(junit->cases, "%s\n", text);
    }
    g_string_append(junit->cases, "</system-out>\n    </testcase>\n");
}

bool junit_write(const struct junit *junit, const char *path, GError **error)
{
    g_autofree char *xml =
        g_strdup_printf("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                        "<testsuites>\n"
                        "  <testsuite name=\"hv test\" tests=\"%u\" failures=\"%u\" "
                        "skipped=\"%u\">\n"
                        "%s  </testsuite>\n"
                        "</testsuites>\n",
                        junit->tests, junit->failures, junit->skipped, junit->cases->str);
    return g_file_set_contents(path, xml, -1, error);
}
