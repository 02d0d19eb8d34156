/* The page of results; see html.h. For each step it has a table in the order of time: what was seen
 * or done, with the pictures, and beside it what came from the serial ports meanwhile. */
#include "test/html.h"

#include <string.h>

enum { LOG_MAX = 256 << 10 }; /* bytes of a log that the page has: its end */

static const struct {
    const char *class, *word;
} outcomes[] = {
    [OUTCOME_OK] = { "ok", "passed" },
    [OUTCOME_SOFT] = { "soft", "failed softly" },
    [OUTCOME_FAILED] = { "failed", "failed" },
    [OUTCOME_SKIPPED] = { "skipped", "skipped" },
};

static const char style[] =
    ":root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }\n"
    "body { max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }\n"
    "h1, h2, h3 { font-weight: 600; } h2 { margin-top: 2.5rem; }\n"
    "summary { cursor: pointer; } summary h3 { display: inline; font-size: 1rem; }\n"
    "details.step { border-left: .4rem solid gray; padding: .2rem 0 .2rem .8rem; margin: .5rem 0; "
    "}\n"
    "details.ok { border-color: #2a8f4b; } details.soft { border-color: #c79a00; }\n"
    "details.failed { border-color: #c8322b; } p.failed { color: #c8322b; font-weight: 600; }\n"
    "table { border-collapse: collapse; width: 100%; table-layout: fixed; }\n"
    "td { vertical-align: top; padding: .1rem .6rem .1rem 0; overflow-wrap: anywhere; }\n"
    "col.at { width: 6rem; } col.serial { width: 45%; }\n"
    "td.at { text-align: right; color: gray; font-variant-numeric: tabular-nums; }\n"
    "td.serial, pre { font: 12px/1.35 ui-monospace, monospace; white-space: pre-wrap; }\n"
    "img { max-width: 100%; border: 1px solid gray; }\n"
    ".time { color: gray; font-size: .9rem; }\n";

/* HTML 5 has no way to write most control characters. */
static void append_text(GString *html, const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);
    for (char *c = valid; *c; c++)
        if (((unsigned char)*c < ' ' && *c != '\n' && *c != '\t') || *c == 0x7f)
            *c = ' ';
    g_autofree char *escaped = g_markup_escape_text(valid, -1);
    g_string_append(html, escaped);
}

static void append_picture(GString *html, const char *path)
{
    g_autofree char *bytes = NULL;
    gsize length;
    if (!g_file_get_contents(path, &bytes, &length, NULL)) {
        append_text(html, path);
        return;
    }
    g_autofree char *text = g_base64_encode((const guchar *)bytes, length);
    g_string_append_printf(html, "<img alt=\"the screen\" src=\"data:image/png;base64,%s\">", text);
}

static void append_log(GString *html, const char *path)
{
    g_autofree char *text = NULL;
    gsize length;
    if (!g_file_get_contents(path, &text, &length, NULL)) {
        append_text(html, path);
        return;
    }
    g_string_append(html, "<details><summary>");
    append_text(html, path);
    g_string_append(html, "</summary><pre>");
    append_text(html, text + (length > LOG_MAX ? length - LOG_MAX : 0));
    g_string_append(html, "</pre></details>");
}

static void append_moment(GString *html, const struct moment *moment)
{
    g_string_append_printf(html, "<tr><td class=\"at\">%.2f s</td><td>",
                           (double)moment->at / G_USEC_PER_SEC);
    switch (moment->kind) {
    case MOMENT_NOTE:
        append_text(html, moment->text);
        break;
    case MOMENT_PICTURE:
        append_picture(html, moment->text);
        break;
    case MOMENT_LOG:
        append_log(html, moment->text);
        break;
    case MOMENT_SERIAL:
        g_string_append(html, "</td><td class=\"serial\">");
        append_text(html, moment->text);
        break;
    }
    g_string_append(html, "</td></tr>\n");
}

static bool has_serial(const struct result *result)
{
    for (guint i = 0; i < result->moments->len; i++)
        if (((struct moment *)g_ptr_array_index(result->moments, i))->kind == MOMENT_SERIAL)
            return true;
    return false;
}

void html_init(struct html *html)
{
    *html = (struct html){ .tests = g_string_new(NULL) };
}

void html_finish(struct html *html)
{
    g_string_free(html->tests, true);
    g_free(html->test);
}

void html_add(struct html *html, const char *test, const struct result *result)
{
    GString *out = html->tests;
    if (g_strcmp0(html->test, test)) {
        g_free(html->test);
        html->test = g_strdup(test);
        g_string_append(out, "<h2>");
        append_text(out, test);
        g_string_append(out, "</h2>\n");
    }
    html->counts[result->outcome]++;
    g_string_append_printf(out, "<details class=\"step %s\"%s><summary><h3>",
                           outcomes[result->outcome].class,
                           result->outcome == OUTCOME_FAILED ? " open" : "");
    append_text(out, result->title);
    g_string_append_printf(out,
                           "</h3> <span class=\"time\">%s, %.1f s, of which the host was busy "
                           "%.1f s</span></summary>\n",
                           outcomes[result->outcome].word, (double)result->wall / G_USEC_PER_SEC,
                           (double)result->busy / G_USEC_PER_SEC);
    if (result->message) {
        g_string_append_printf(out, "<p class=\"%s\">", outcomes[result->outcome].class);
        append_text(out, result->message);
        g_string_append(out, "</p>\n");
    }
    g_string_append_printf(out, "<table><col class=\"at\"><col>%s\n",
                           has_serial(result) ? "<col class=\"serial\">" : "");
    for (guint i = 0; i < result->moments->len; i++)
        append_moment(out, g_ptr_array_index(result->moments, i));
    g_string_append(out, "</table></details>\n");
}

bool html_write(struct html *html, const char *path, GError **error)
{
    g_autoptr(GString) page = g_string_new("<!DOCTYPE html>\n<html lang=\"en\"><head>"
                                           "<meta charset=\"utf-8\"><title>hv test</title>\n"
                                           "<style>\n");
    g_string_append_printf(page, "%s</style></head><body>\n<h1>hv test</h1>\n<p>", style);
    for (unsigned i = 0; i < G_N_ELEMENTS(outcomes); i++)
        if (html->counts[i] || i == OUTCOME_OK)
            g_string_append_printf(page, "%s%u %s", i ? ", " : "", html->counts[i],
                                   outcomes[i].word);
    g_string_append_printf(page, "</p>\n%s</body></html>\n", html->tests->str);
    return g_file_set_contents(path, page->str, (gssize)page->len, error);
}
