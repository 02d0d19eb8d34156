/* Results; see result.h. */
#include "test/result.h"

#include <string.h>

static void moment_free(void *data)
{
    struct moment *moment = data;
    g_free(moment->text);
    g_free(moment);
}

struct result *result_new(const char *title)
{
    struct result *result = g_new0(struct result, 1);
    result->title = g_strdup(title);
    result->moments = g_ptr_array_new_with_free_func(moment_free);
    return result;
}

void result_free(void *data)
{
    struct result *result = data;
    g_free(result->title);
    g_free(result->message);
    g_ptr_array_free(result->moments, true);
    g_free(result);
}

void result_add(struct result *result, enum moment_kind kind, gint64 at, char *text)
{
    struct moment *moment = g_new(struct moment, 1);
    *moment = (struct moment){ kind, at, text };
    g_ptr_array_add(result->moments, moment);
}

char *moment_line(const struct moment *moment)
{
    static const char *const before[] = {
        [MOMENT_NOTE] = "",
        [MOMENT_PICTURE] = "picture: ",
        [MOMENT_LOG] = "log: ",
    };
    return moment->kind == MOMENT_SERIAL ? NULL
                                         : g_strconcat(before[moment->kind], moment->text, NULL);
}

char *result_to_json(const struct result *result)
{
    json_t *moments = json_array();
    for (guint i = 0; i < result->moments->len; i++) {
        const struct moment *moment = g_ptr_array_index(result->moments, i);
        json_array_append_new(moments, json_pack("[i, I, s]", (int)moment->kind,
                                                 (json_int_t)moment->at, moment->text));
    }
    json_t *json = json_pack("{s:s, s:i, s:s*, s:I, s:I, s:I, s:o}", "title", result->title,
                             "outcome", (int)result->outcome, "message", result->message, "began",
                             (json_int_t)result->began, "wall", (json_int_t)result->wall, "busy",
                             (json_int_t)result->busy, "moments", moments);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    char *line = g_strconcat(text ? text : "", "\n", NULL);
    free(text);
    json_decref(json);
    return line;
}

static bool take_moments(struct result *result, json_t *moments)
{
    json_t *moment;
    size_t i;
    json_array_foreach(moments, i, moment)
    {
        int kind;
        json_int_t at;
        const char *text;
        if (json_unpack(moment, "[i, I, s]", &kind, &at, &text) || kind < 0 || kind > MOMENT_SERIAL)
            return false;
        result_add(result, (enum moment_kind)kind, at, g_strdup(text));
    }
    return true;
}

struct result *result_from_json(const char *text)
{
    const char *title, *message = NULL;
    int outcome;
    json_int_t began, wall, busy;
    json_t *json = json_loads(text, 0, NULL), *moments;
    struct result *result = NULL;
    if (!json_unpack(json, "{s:s, s:i, s?s, s:I, s:I, s:I, s:o}", "title", &title, "outcome",
                     &outcome, "message", &message, "began", &began, "wall", &wall, "busy", &busy,
                     "moments", &moments) &&
        outcome >= 0 && outcome <= OUTCOME_SKIPPED) {
        result = result_new(title);
        result->outcome = (enum outcome)outcome;
        result->message = g_strdup(message);
        result->began = began;
        result->wall = wall;
        result->busy = busy;
        if (!take_moments(result, moments))
            g_clear_pointer(&result, result_free);
    }
    json_decref(json);
    return result;
}
