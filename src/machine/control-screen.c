/* Methods of the control socket about the screen. */
#include "machine/control-core.h"

#include "base/cp437.h"
#include "base/error.h"
#include "machine/screen-reader.h"

#include <string.h>

/* The lines of a text screen, each without its trailing blanks; none in a graphics mode. */
static json_t *lines_of_cells(struct device *dev, struct screen_text *text)
{
    json_t *lines = json_array();
    device_lock(dev);
    dev->class->screen->text(dev, text);
    device_unlock(dev);
    for (uint32_t row = 0; row < text->rows; row++) {
        g_autoptr(GString) line = g_string_new(NULL);
        for (uint32_t column = 0; column < text->columns; column++)
            g_string_append_unichar(line,
                                    cp437_character(text->cell[row * text->columns + column].code));
        json_array_append_new(lines, json_string(g_strchomp(line->str)));
    }
    return lines;
}

/* Lines that each have an end, as an array. */
static GStrv lines_of_text(char *text)
{
    size_t length = strlen(text);
    if (length)
        text[length - 1] = '\0';
    return g_strsplit(text, "\n", -1);
}

/* What the known glyphs of a picture say, and how many cells it has. */
static json_t *lines_of_picture(struct client *c, struct screen_text *text, GError **error)
{
    struct screen_says says;
    bool read = screen_reader_read(c->control->reader, &says);
    g_autofree char *owned = g_steal_pointer(&says.text);
    if (!read) {
        hv_fail(error, HV_FAILED, "the screen is not read in time: the host is very busy");
        return NULL;
    }
    text->columns = says.columns;
    text->rows = says.rows;
    json_t *array = json_array();
    g_auto(GStrv) lines = lines_of_text(owned);
    for (unsigned i = 0; lines[i]; i++)
        json_array_append_new(array, json_string(lines[i]));
    return array;
}

json_t *control_screen_text(struct client *c, const json_t *params, GError **error)
{
    g_autofree struct screen_text *text = g_new0(struct screen_text, 1);
    const json_t *glyphs = json_object_get(params, "glyphs");
    if (glyphs && !json_is_boolean(glyphs)) {
        hv_fail(error, HV_USAGE, "glyphs: true or false is wanted");
        return NULL;
    }
    json_t *lines = lines_of_cells(machine_display(c->control->machine), text);
    bool graphics = text->rows == 0;
    if (graphics && json_is_true(glyphs)) {
        json_decref(lines);
        lines = lines_of_picture(c, text, error);
    }
    return !lines ? NULL
                  : json_pack("{s:b, s:i, s:i, s:o}", "graphics", graphics, "columns",
                              (int)text->columns, "rows", (int)text->rows, "lines", lines);
}

/* --- texts that are waited for -------------------------------------------------------------- */

/* Tells of each text that the screen has, once. Whether any is left to be waited for. */
static bool look_for(struct client *c, GStrv lines)
{
    bool left = false;
    for (unsigned i = 0; c->fd >= 0 && i < CONTROL_WATCHES; i++) {
        unsigned row = 0;
        while (c->watches[i] && lines[row] && !strstr(lines[row], c->watches[i]))
            row++;
        left |= c->watches[i] && !lines[row];
        if (!c->watches[i] || !lines[row])
            continue;
        json_t *params = json_pack("{s:s, s:i, s:s}", "text", c->watches[i], "row", (int)row,
                                   "line", lines[row]);
        g_clear_pointer(&c->watches[i], g_free);
        control_tell(c, json_pack("{s:s, s:s, s:o}", "jsonrpc", "2.0", "method", "screen", "params",
                                  params));
    }
    return left;
}

void control_screen_changed(void *opaque)
{
    struct control *control = opaque;
    g_autofree char *text = screen_reader_last(control->reader).text;
    g_auto(GStrv) lines = lines_of_text(text);
    bool left = false;
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
        if (control->clients[i].fd >= 0)
            left |= look_for(&control->clients[i], lines);
    if (!left)
        screen_reader_watch(control->reader, false);
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
    screen_reader_watch(c->control->reader, true);
    return json_object();
}

void control_forget_watches(struct client *c)
{
    bool left = false;
    for (unsigned i = 0; i < CONTROL_WATCHES; i++)
        g_clear_pointer(&c->watches[i], g_free);
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
        for (unsigned j = 0; c->control->clients[i].fd >= 0 && j < CONTROL_WATCHES; j++)
            left |= c->control->clients[i].watches[j] != NULL;
    if (!left)
        screen_reader_watch(c->control->reader, false);
}
