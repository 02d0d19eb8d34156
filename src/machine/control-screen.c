/* Methods of the control socket about the screen. */
#include "machine/control-core.h"

#include "base/cp437.h"
#include "base/error.h"

#include <string.h>

enum { LOOK_MS = 50 };

/* The lines of a text screen, each without its trailing blanks; none in a graphics mode. */
static GPtrArray *read_lines(struct machine *machine, struct screen_text *text)
{
    struct device *dev = machine_display(machine);
    GPtrArray *lines = g_ptr_array_new_with_free_func(g_free);
    device_lock(dev);
    dev->class->screen->text(dev, text);
    device_unlock(dev);
    for (uint32_t row = 0; row < text->rows; row++) {
        GString *line = g_string_new(NULL);
        for (uint32_t column = 0; column < text->columns; column++)
            g_string_append_unichar(line,
                                    cp437_character(text->cell[row * text->columns + column].code));
        g_ptr_array_add(lines, g_strchomp(g_string_free(line, false)));
    }
    return lines;
}

json_t *control_screen_text(struct client *c, const json_t *params, GError **error)
{
    g_autofree struct screen_text *text = g_new0(struct screen_text, 1);
    g_autoptr(GPtrArray) read = read_lines(c->control->machine, text);
    (void)params, (void)error;
    json_t *lines = json_array();
    for (guint i = 0; i < read->len; i++)
        json_array_append_new(lines, json_string(g_ptr_array_index(read, i)));
    return json_pack("{s:b, s:i, s:i, s:o}", "graphics", text->rows == 0, "columns",
                     (int)text->columns, "rows", (int)text->rows, "lines", lines);
}

/* --- texts that are waited for -------------------------------------------------------------- */

/* Tells of each text that the screen has, once. Whether any is left to be waited for. */
static bool look_for(struct client *c, const GPtrArray *lines)
{
    bool left = false;
    for (unsigned i = 0; c->fd >= 0 && i < CONTROL_WATCHES; i++) {
        guint row = 0;
        while (c->watches[i] && row < lines->len &&
               !strstr(g_ptr_array_index(lines, row), c->watches[i]))
            row++;
        left |= c->watches[i] && row == lines->len;
        if (!c->watches[i] || row == lines->len)
            continue;
        json_t *params = json_pack("{s:s, s:i, s:s}", "text", c->watches[i], "row", (int)row,
                                   "line", (const char *)g_ptr_array_index(lines, row));
        g_clear_pointer(&c->watches[i], g_free);
        control_tell(c, json_pack("{s:s, s:s, s:o}", "jsonrpc", "2.0", "method", "screen", "params",
                                  params));
    }
    return left;
}

static gboolean look(void *data)
{
    struct control *control = data;
    g_autofree struct screen_text *text = g_new0(struct screen_text, 1);
    g_autoptr(GPtrArray) lines = read_lines(control->machine, text);
    bool left = false;
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
        if (control->clients[i].fd >= 0)
            left |= look_for(&control->clients[i], lines);
    if (!left)
        control->screen_timer = 0;
    return left;
}

/* The event comes after the answer, also when the screen has the text already. */
json_t *control_screen_watch(struct client *c, const json_t *params, GError **error)
{
    const char *text = json_string_value(json_object_get(params, "text"));
    unsigned i = 0;
    if (!text || !*text || strlen(text) > CONTROL_WATCH_TEXT) {
        hv_fail(error, HV_USAGE, "text: a string of 1 to %d bytes is wanted", CONTROL_WATCH_TEXT);
        return NULL;
    }
    while (i < CONTROL_WATCHES && c->watches[i])
        i++;
    if (i == CONTROL_WATCHES) {
        hv_fail(error, HV_WRONG_STATE, "text: %d are waited for already", CONTROL_WATCHES);
        return NULL;
    }
    c->watches[i] = g_strdup(text);
    if (!c->control->screen_timer)
        c->control->screen_timer = g_timeout_add(LOOK_MS, look, c->control);
    return json_object();
}

void control_forget_watches(struct client *c)
{
    for (unsigned i = 0; i < CONTROL_WATCHES; i++)
        g_clear_pointer(&c->watches[i], g_free);
}
