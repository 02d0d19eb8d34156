/* What the user does with the mouse: places are what stands on the screen, or pixels of it. */
#include "test/acts.h"

#include "base/error.h"
#include "bus/input.h"

#include <string.h>

enum { CLICK_US = 50 * 1000 }; /* how long a button is held: guests look now and then */

/* A text on the screen, and where. */
struct spot {
    const struct token *wanted;
    unsigned count; /* how often it is there */
    uint32_t x, y;  /* the middle of the first */
    GString *all;   /* where each is, for people */
};

/* The words of one line from the n-th on, with a space between them; where each begins in that goes
 * to `starts`. */
static GString *line_of(const GArray *words, guint n, GArray *starts)
{
    GString *line = g_string_new(NULL);
    const uint32_t number = g_array_index(words, struct word, n).line;
    for (; n < words->len && g_array_index(words, struct word, n).line == number; n++) {
        gsize start = line->len + (line->len > 0);
        g_array_append_val(starts, start);
        g_string_append_printf(line, "%s%s", line->len ? " " : "",
                               g_array_index(words, struct word, n).text);
    }
    return line;
}

static void add_place(struct spot *spot, const struct word *first, const struct word *last)
{
    uint32_t x = (first->x + last->x + last->width) / 2, y = first->y + first->height / 2;
    if (!spot->count++) {
        spot->x = x;
        spot->y = y;
    }
    g_string_append_printf(spot->all, "%s%u,%u", spot->all->len ? " and " : "", x, y);
}

/* Each time that the line, which begins with the n-th word, has what is wanted. */
static guint look_in_line(struct spot *spot, const GArray *words, guint n)
{
    g_autoptr(GArray) starts = g_array_new(false, false, sizeof(gsize));
    g_autoptr(GString) line = line_of(words, n, starts);
    const char *from = line->str, *found;
    size_t length;
    while ((found = act_find_part(spot->wanted, from, &length)) && length) {
        guint first = 0, last = 0;
        for (guint i = 0; i < starts->len; i++) {
            gsize start = g_array_index(starts, gsize, i);
            if (start <= (gsize)(found - line->str))
                first = i;
            if (start < (gsize)(found - line->str) + length)
                last = i;
        }
        add_place(spot, &g_array_index(words, struct word, n + first),
                  &g_array_index(words, struct word, n + last));
        from = found + length;
    }
    return n + starts->len;
}

static bool test_place(struct target *t, void *data, char **note)
{
    struct spot *spot = data;
    const GArray *words = target_words(t);
    spot->count = 0;
    g_string_truncate(spot->all, 0);
    for (guint n = 0; words && n < words->len;)
        n = look_in_line(spot, words, n);
    if (spot->count)
        *note = g_strdup_printf("\"%s\": on the screen at %s (%s)", spot->wanted->text,
                                spot->all->str, t->screen_source);
    return spot->count;
}

/* The pixel that a command is about: that of `at`, or the middle of its text, which is waited for.
 */
static bool find_place(struct run *run, struct target *t, const struct command *command,
                       uint32_t *x, uint32_t *y, GError **error)
{
    const struct token *point = command_value(command, "at", 0);
    g_autoptr(GString) all = g_string_new(NULL);
    struct spot spot = { .wanted = command_value(command, "TEXT", 0), .all = all };
    if (point) {
        *x = (uint32_t)point->number;
        *y = (uint32_t)point->second;
        return (*x < t->view.width && *y < t->view.height) ||
               hv_fail(error, HV_FAILED, "the picture has %u x %u pixels", t->view.width,
                       t->view.height);
    }
    if (command_value(command, "image", 0))
        return act_find_picture(run, t, command, x, y, error);
    if (!run_wait(run, t, test_place, &spot, act_within(command, ACT_PATIENCE_S), error)) {
        if (error && g_error_matches(*error, HV_ERROR, HV_TIMED_OUT))
            act_add_nearest(t, command, error);
        return false;
    }
    if (spot.count > 1)
        return hv_fail(error, HV_FAILED, "it is there %u times: at X,Y says which, %s", spot.count,
                       all->str);
    *x = spot.x;
    *y = spot.y;
    return true;
}

/* The pointer is there, with a button pressed or none. */
static bool point_at(struct target *t, uint32_t x, uint32_t y, const char *button, GError **error)
{
    json_t *params = json_pack("{s:i, s:i, s:o}", "x", pointer_position(x, t->view.width), "y",
                               pointer_position(y, t->view.height), "buttons",
                               button ? json_pack("[s]", button) : json_array());
    return target_call(t, "send.pointer", params, error);
}

bool act_move(struct run *run, struct target *t, const struct command *command, GError **error)
{
    uint32_t x, y;
    return find_place(run, t, command, &x, &y, error) && point_at(t, x, y, NULL, error);
}

bool act_click(struct run *run, struct target *t, const struct command *command, GError **error)
{
    uint32_t x, y;
    const char *button = command_has(command, "right")    ? "right"
                         : command_has(command, "middle") ? "middle"
                                                          : "left";
    if (!find_place(run, t, command, &x, &y, error) || !point_at(t, x, y, NULL, error))
        return false;
    bool ok = true;
    for (unsigned i = 0; ok && i < (command_has(command, "double") ? 2 : 1); i++) {
        ok = point_at(t, x, y, button, error);
        run_pause(run, CLICK_US);
        ok = ok && point_at(t, x, y, NULL, error);
        run_pause(run, CLICK_US);
    }
    return ok;
}

bool act_scroll(struct run *run, struct target *t, const struct command *command, GError **error)
{
    enum { MOST = 100 };
    const struct token *count = command_value(command, "COUNT", 0);
    gint64 steps = count ? count->number : 1;
    (void)run;
    if (steps > MOST)
        return hv_fail(error, HV_FAILED, "at most %d steps at a time", MOST);
    return target_call(
        t, "send.pointer",
        json_pack("{s:i}", "wheel", (int)(command_has(command, "up") ? steps : -steps)), error);
}
