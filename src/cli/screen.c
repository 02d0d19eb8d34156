/* hv screen: what a machine's screen shows, as text, as a picture, or awaited. */
#include "base/error.h"
#include "cli/cli.h"
#include "cli/view.h"

#include <stdio.h>
#include <string.h>

enum { FIRST_PICTURE_MS = 5000 };

/* hv screen's options, and what it has of the machine. */
struct look {
    bool text, json, pixels;
    const char *png, *wait;
    guint64 timeout; /* seconds */
    struct client *client;
    struct view view;
};

/* The picture comes soon after the greeting. */
static bool want_picture(struct look *look, GError **error)
{
    return look->view.width || view_wait(&look->view, FIRST_PICTURE_MS) == VIEW_CHANGED ||
           hv_fail(error, HV_FAILED, "%s shows no picture", client_name(look->client));
}

/* --- text ------------------------------------------------------------------------------------ */

/* The characters of a text screen, from the machine. *graphics: there are none, it shows pixels. */
static bool read_cells(struct look *look, bool *graphics, GError **error)
{
    json_t *result = client_call(look->client, "screen.text", NULL, error), *line;
    if (!result)
        return false;
    *graphics = json_is_true(json_object_get(result, "graphics"));
    uint32_t columns = (uint32_t)json_integer_value(json_object_get(result, "columns"));
    uint32_t rows = (uint32_t)json_integer_value(json_object_get(result, "rows"));
    if (!*graphics && columns <= SCREEN_MAX_COLUMNS && rows <= SCREEN_MAX_ROWS) {
        g_autofree gunichar *codes = g_new(gunichar, (size_t)columns * rows + 1);
        size_t row;
        for (size_t i = 0; i < (size_t)columns * rows; i++)
            codes[i] = ' ';
        json_array_foreach(json_object_get(result, "lines"), row, line)
        {
            const char *at = json_string_value(line);
            for (uint32_t i = 0; row < rows && at && *at && i < columns; i++) {
                codes[row * columns + i] = g_utf8_get_char(at);
                at = g_utf8_next_char(at);
            }
        }
        reading_set_cells(look->view.reading, codes, columns, rows, look->view.width,
                          look->view.height);
    }
    json_decref(result);
    return true;
}

/* Reads the screen. With `guess`, by tesseract when there is nothing else to be read; without it,
 * or when that fails, there is no text, and `error` says why. */
static bool read_screen(struct look *look, bool guess, GError **error)
{
    struct view *view = &look->view;
    bool graphics = true;
    if (!look->pixels && !read_cells(look, &graphics, error))
        return false;
    if (!graphics)
        return true;
    if (!want_picture(look, error))
        return false;
    view_read(view);
    return !guess || reading_guess(view->reading, view->frame, view->width, view->height, error);
}

/* The words with their boxes, in pixels of the picture, and all lines. */
static json_t *screen_json(struct look *look)
{
    struct reading *reading = look->view.reading;
    uint32_t columns, rows;
    json_t *words = json_array(), *lines = json_array();
    g_auto(GStrv) text = g_strsplit(reading_text(reading), "\n", -1);
    for (unsigned i = 0; text[i] && text[i + 1]; i++) /* behind the last end there is no line */
        json_array_append_new(lines, json_string(text[i]));
    const GArray *found = reading_words(reading);
    for (unsigned i = 0; i < found->len; i++) {
        const struct word *word = &g_array_index(found, struct word, i);
        json_array_append_new(words, json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:s}", "text",
                                               word->text, "line", (int)word->line, "x",
                                               (int)word->x, "y", (int)word->y, "width",
                                               (int)word->width, "height", (int)word->height,
                                               "source", reading_source_name(word->source)));
    }
    reading_size(reading, &columns, &rows);
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:o, s:o}", "source",
                     reading_source_name(reading_source(reading)), "columns", (int)columns, "rows",
                     (int)rows, "width", (int)look->view.width, "height", (int)look->view.height,
                     "lines", lines, "words", words);
}

static bool show_text(struct look *look, GError **error)
{
    if ((look->json && !want_picture(look, error)) || !read_screen(look, true, error))
        return false;
    if (look->json) {
        json_t *object = screen_json(look);
        json_dumpf(object, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        json_decref(object);
        putchar('\n');
    } else {
        fputs(reading_text(look->view.reading), stdout);
    }
    return true;
}

/* Does the screen's text match? *alive: it could be read, or there is just no text. */
static bool matches(struct look *look, const GRegex *regex, bool guess, bool *alive)
{
    g_autoptr(GError) error = NULL;
    *alive = read_screen(look, guess, &error) || hv_exit_status(error) == HV_WRONG_STATE;
    return *alive && g_regex_match(regex, reading_text(look->view.reading), 0, NULL);
}

/* Waits until the text on the screen matches: it looks when the picture changes, and not between.
 * What has to be guessed, which takes seconds, waits until the picture is still. */
static int wait_text(struct look *look, const GRegex *regex)
{
    GError *error = NULL;
    if (!view_open(&look->view, client_name(look->client), &error))
        return cli_fail(error);
    gint64 end = g_get_monotonic_time() + (gint64)look->timeout * G_USEC_PER_SEC;
    bool alive = true, guess = false;
    gint64 left;
    while (alive && (left = (end - g_get_monotonic_time()) / 1000) > 0) {
        if (matches(look, regex, guess, &alive))
            return HV_OK;
        left = MAX((end - g_get_monotonic_time()) / 1000, 1);
        enum view_news news =
            alive ? view_wait(&look->view, (int)(guess ? left : MIN(left, VIEW_STILL_MS)))
                  : VIEW_ENDED;
        alive = news != VIEW_ENDED;
        guess = news == VIEW_NOTHING && !guess;
    }
    /* The guessing may have taken longer than there was time. */
    if (alive && view_take(&look->view) != VIEW_ENDED && matches(look, regex, false, &alive))
        return HV_OK;
    const char *text = reading_text(look->view.reading);
    fprintf(stderr, "hv: %s: %s /%s/%s%s\n", client_name(look->client),
            alive ? "not seen in time:" : "it ended before it showed", look->wait,
            *text ? "; its screen:\n" : "", text);
    return alive ? HV_TIMED_OUT : HV_WRONG_STATE;
}

static int screen_wait(struct look *look)
{
    GError *error = NULL;
    g_autoptr(GRegex) regex = g_regex_new(look->wait, G_REGEX_MULTILINE, 0, &error);
    if (regex)
        return wait_text(look, regex);
    int status = cli_usage("screen", "--wait %s: %s", look->wait, error->message);
    g_error_free(error);
    return status;
}

/* --- the verb -------------------------------------------------------------------------------- */

static int screen_run(struct look *look)
{
    GError *error = NULL;
    if (look->wait)
        return screen_wait(look);
    bool ok = view_open(&look->view, client_name(look->client), &error);
    if (ok && look->png)
        ok = want_picture(look, &error) && view_png(&look->view, look->png, &error);
    else if (ok)
        ok = show_text(look, &error);
    return ok ? HV_OK : cli_fail(error);
}

int verb_screen(int argc, char **argv)
{
    struct look look = { .view = { .fd = -1 } };
    const char *timeout = "60";
    const struct flag flags[] = {
        { "text", &look.text, NULL },
        { "json", &look.json, NULL },
        { "png", NULL, &look.png },
        { "wait", NULL, &look.wait },
        { "timeout", NULL, &timeout },
        { "pixels", &look.pixels, NULL },
        { .name = NULL },
    };
    int left = cli_flags("screen", argc, argv, flags);
    if (left < 0)
        return left == -2 ? HV_OK : HV_USAGE;
    if (left > 1 || look.text + look.json + (look.png != NULL) + (look.wait != NULL) != 1)
        return cli_usage("screen", "one of --text, --json, --png FILE and --wait REGEX is wanted");
    if (look.pixels && look.png)
        return cli_usage("screen", "--pixels is how text is read; --png writes no text");
    if (!g_ascii_string_to_unsigned(timeout, 10, 0, 1000000, &look.timeout, NULL))
        return cli_usage("screen", "--timeout %s: a number of seconds is wanted", timeout);
    GError *error = NULL;
    look.client = client_open(left ? argv[0] : NULL, &error);
    if (!look.client)
        return cli_fail(error);
    int status = screen_run(&look);
    view_close(&look.view);
    client_close(look.client);
    return status;
}
