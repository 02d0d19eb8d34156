/* What the user does: typing. */
#include "test/acts.h"

#include "base/error.h"

static const char *secret(const struct token *token, GError **error)
{
    const char *value = token->kind == TOKEN_SECRET ? g_getenv(token->text) : token->text;
    if (!value)
        hv_fail(error, HV_USAGE, "secret:%s: the environment has no %s", token->text, token->text);
    return value;
}

static bool test_typed(struct target *t, void *data, char **note)
{
    (void)data, (void)note;
    json_t *info = t->control ? client_call(t->control, "info", NULL, NULL) : NULL;
    bool typing = json_is_true(json_object_get(info, "typing"));
    json_decref(info);
    return !typing;
}

/* Types it, and waits until the guest has taken all. */
bool act_type_text(struct run *run, struct target *t, const char *text, GError **error)
{
    return target_call(t, "send.text", json_pack("{s:s}", "text", text), error) &&
           run_wait(run, t, test_typed, NULL, (gint64)ACT_PATIENCE_S * G_USEC_PER_SEC, error);
}

bool act_type(struct run *run, struct target *t, const struct command *command, GError **error)
{
    const struct token *piece;
    bool serial = command_has(command, "serial"), ok = true;
    for (unsigned i = 0; ok && (piece = command_value(command, "PIECE", i)); i++) {
        const char *text = secret(piece, error);
        ok = text && (serial ? target_write(t, text, error) : act_type_text(run, t, text, error));
    }
    return ok;
}

bool act_key(struct run *run, struct target *t, const struct command *command, GError **error)
{
    const struct token *word;
    for (unsigned i = 0; (word = command_value(command, "WORD", i)); i++) {
        json_t *keys = json_array();
        g_auto(GStrv) names = g_strsplit(word->text, "+", -1);
        for (char **name = names; *name; name++)
            json_array_append_new(keys, json_string(*name));
        if (!target_call(t, "send.key", json_pack("{s:o}", "keys", keys), error))
            return false;
    }
    return run_wait(run, t, test_typed, NULL, (gint64)ACT_PATIENCE_S * G_USEC_PER_SEC, error);
}
