/* What each verb of a test script does: one function each, and the table of them. See run.h. */
#include "base/error.h"
#include "test/nearest.h"
#include "test/run.h"

#include <string.h>

enum { PATIENCE_S = 60, END_S = 120 };

static gint64 within(const struct command *command, unsigned seconds)
{
    const struct token *token = command_value(command, "within", 0);
    return token ? token->number : (gint64)seconds * G_USEC_PER_SEC;
}

static const char *text_of(const struct command *command, const char *name)
{
    const struct token *token = command_value(command, name, 0);
    return token ? token->text : NULL;
}

/* --- what is to be seen ---------------------------------------------------------------------- */

/* What a see or log looks for, and where. */
struct look {
    const struct command *command;
    bool screen, serial, consume; /* consume: what was found on the serial port counts once */
    size_t from;
    unsigned changes;
    gint64 quiet;
};

static const char *find(const struct token *wanted, const char *text)
{
    g_autoptr(GMatchInfo) info = NULL;
    int start;
    if (!wanted->regex)
        return strstr(text, wanted->text);
    return g_regex_match(wanted->regex, text, 0, &info) &&
                   g_match_info_fetch_pos(info, 0, &start, NULL)
               ? text + start
               : NULL;
}

/* All of the texts on the screen, or all on the serial port. */
static bool all_in(const struct command *command, const char *text)
{
    const struct token *wanted;
    for (unsigned i = 0; (wanted = command_value(command, "TEXT", i)); i++)
        if (!find(wanted, text))
            return false;
    return true;
}

static bool test_text(struct target *t, void *data, char **note)
{
    struct look *look = data;
    size_t from = MAX(look->from, t->log_start);
    if (look->screen && all_in(look->command, target_screen(t))) {
        *note = g_strdup_printf("%s: on the screen (%s)", look->command->text, t->screen_source);
        return true;
    }
    if (!look->serial || !all_in(look->command, t->log->str + from))
        return false;
    *note = g_strdup_printf("%s: on the serial port", look->command->text);
    if (look->consume)
        t->log_seen = t->log->len;
    return true;
}

/* The last line of a text that is not empty ends as prompts of shells do. */
static bool ends_in_prompt(const char *text)
{
    g_autofree char *copy = g_strchomp(g_strdup(text));
    size_t length = strlen(copy);
    return length && strchr("#$%>", copy[length - 1]);
}

static bool test_prompt(struct target *t, void *data, char **note)
{
    const struct look *look = data;
    bool screen = look->screen && ends_in_prompt(target_screen(t));
    bool serial = look->serial && ends_in_prompt(t->log->str + MAX(look->from, t->log_start));
    if (screen || serial)
        *note = g_strdup_printf("a prompt %s", screen ? "on the screen" : "on the serial port");
    return screen || serial;
}

/* Adds what came nearest to the error. */
static void add_nearest(struct target *t, const struct command *command, GError **error)
{
    const struct token *wanted;
    for (unsigned i = 0; (wanted = command_value(command, "TEXT", i)); i++) {
        g_autofree char *on_screen = NULL, *in_log = NULL;
        if (wanted->regex)
            continue;
        int screen = nearest_part(target_screen(t), wanted->text, &on_screen);
        int log = nearest_part(t->log->str + t->log_start, wanted->text, &in_log);
        bool better = screen >= 0 && (log < 0 || screen <= log);
        const char *nearest = better ? on_screen : in_log;
        if (nearest && (better ? screen : log) > 0)
            g_prefix_error(error, "nearest %s: \"%s\" (distance %d); ",
                           better ? "on the screen" : "on the serial port", nearest,
                           better ? screen : log);
    }
}

static struct look look_of(struct target *t, const struct command *command)
{
    bool screen = command_has(command, "screen");
    bool serial = command_has(command, "serial");
    return (struct look){
        .command = command,
        .screen = screen || !serial,
        .serial = serial || !screen,
        .consume = true,
        .from = t->log_seen,
    };
}

static bool do_see(struct run *run, struct target *t, const struct command *command, GError **error)
{
    struct look look = look_of(t, command);
    wait_test *test = command_has(command, "prompt") ? test_prompt : test_text;
    if (run_wait(run, t, test, &look, within(command, PATIENCE_S), error))
        return true;
    if (error && g_error_matches(*error, HV_ERROR, HV_TIMED_OUT))
        add_nearest(t, command, error);
    return false;
}

static bool do_log(struct run *run, struct target *t, const struct command *command, GError **error)
{
    struct look look = { .command = command, .serial = true, .from = t->log_start };
    if (run_wait(run, t, test_text, &look, within(command, PATIENCE_S), error))
        return true;
    if (error && g_error_matches(*error, HV_ERROR, HV_TIMED_OUT))
        add_nearest(t, command, error);
    return false;
}

static bool test_any(struct target *t, void *data, char **note)
{
    struct look *look = data;
    const struct token *wanted;
    (void)note;
    for (unsigned i = 0; (wanted = command_value(look->command, "TEXT", i)); i++)
        if ((look->screen && find(wanted, target_screen(t))) ||
            (look->serial && find(wanted, t->log->str + MAX(look->from, t->log_start))))
            return true;
    return false;
}

/* None of it now, nor, when a time is given, in that. */
static bool refuse_text(struct run *run, struct target *t, struct look *look, GError **error)
{
    g_autoptr(GError) why = NULL;
    if (run_wait(run, t, test_any, look, within(look->command, 0), &why))
        return hv_fail(error, HV_FAILED, "it is there");
    if (g_error_matches(why, HV_ERROR, HV_TIMED_OUT))
        return true;
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

static bool do_not_see(struct run *run, struct target *t, const struct command *command,
                       GError **error)
{
    struct look look = look_of(t, command);
    return refuse_text(run, t, &look, error);
}

static bool do_not_log(struct run *run, struct target *t, const struct command *command,
                       GError **error)
{
    struct look look = { .command = command, .serial = true, .from = t->log_start };
    return refuse_text(run, t, &look, error);
}

static bool test_still(struct target *t, void *data, char **note)
{
    const struct look *look = data;
    (void)note;
    return g_get_monotonic_time() - t->changed_at >= look->quiet;
}

/* The screen's changes wake the wait; its quiet does not: it is awaited in steps of what is
 * missing. */
static bool do_still(struct run *run, struct target *t, const struct command *command,
                     GError **error)
{
    struct look look = { .quiet = command_value(command, "DURATION", 0)->number };
    gint64 end = g_get_monotonic_time() + within(command, PATIENCE_S);
    for (;;) {
        g_autoptr(GError) why = NULL;
        gint64 now = g_get_monotonic_time(), missing = look.quiet - (now - t->changed_at);
        if (run_wait(run, t, test_still, &look, CLAMP(missing, 1000, MAX(end - now, 1000)), &why))
            return true;
        if (!g_error_matches(why, HV_ERROR, HV_TIMED_OUT) || g_get_monotonic_time() >= end) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
    }
}

static bool test_change(struct target *t, void *data, char **note)
{
    const struct look *look = data;
    (void)note;
    return t->changes != look->changes;
}

static bool do_change(struct run *run, struct target *t, const struct command *command,
                      GError **error)
{
    struct look look = { .changes = t->changes };
    return run_wait(run, t, test_change, &look, within(command, PATIENCE_S), error);
}

static bool test_event(struct target *t, void *data, char **note)
{
    GList *found = g_queue_find_custom(&t->happened, data, (GCompareFunc)strcmp);
    (void)note;
    if (!found)
        return false;
    g_free(found->data);
    g_queue_delete_link(&t->happened, found);
    return true;
}

static bool do_event(struct run *run, struct target *t, const struct command *command,
                     GError **error)
{
    return run_wait(run, t, test_event, (void *)(uintptr_t)text_of(command, "WORD"),
                    within(command, PATIENCE_S), error);
}

static bool do_screenshot(struct run *run, struct target *t, const struct command *command,
                          GError **error)
{
    const char *name = text_of(command, "WORD");
    g_autofree char *file = g_strdup_printf("%s/%s.png", run->output, name ? name : t->vm->name);
    if (g_mkdir_with_parents(run->output, 0777) < 0)
        return hv_fail(error, HV_FAILED, "%s: cannot be made", run->output);
    run_note(run, "picture: %s", file);
    return target_picture(t, file, error);
}

/* --- the machine ----------------------------------------------------------------------------- */

static bool test_ended(struct target *t, void *data, char **note)
{
    (void)data, (void)note;
    return !t->pid;
}

static bool do_boot(struct run *run, struct target *t, const struct command *command,
                    GError **error)
{
    (void)command;
    (void)run;
    if (t->pid)
        target_kill(t);
    return target_start(t, !t->vm->keep, error);
}

static bool do_off(struct run *run, struct target *t, const struct command *command, GError **error)
{
    t->expected_end = true;
    return run_wait(run, t, test_ended, NULL, within(command, END_S), error);
}

static bool do_poweroff(struct run *run, struct target *t, const struct command *command,
                        GError **error)
{
    return target_call(t, "stop", json_pack("{s:s}", "how", "shutdown"), error) &&
           do_off(run, t, command, error);
}

static bool do_reboot(struct run *run, struct target *t, const struct command *command,
                      GError **error)
{
    return do_poweroff(run, t, command, error) && do_boot(run, t, command, error);
}

static bool do_power_cut(struct run *run, struct target *t, const struct command *command,
                         GError **error)
{
    (void)run, (void)command;
    if (!t->pid)
        return hv_fail(error, HV_WRONG_STATE, "the machine does not run");
    target_kill(t);
    return true;
}

static bool stop_how(struct target *t, const char *how, GError **error)
{
    return target_call(t, "stop", json_pack("{s:s}", "how", how), error);
}

static bool do_reset(struct run *run, struct target *t, const struct command *command,
                     GError **error)
{
    (void)run, (void)command;
    t->log_start = t->log_seen = t->log->len;
    return stop_how(t, "reset", error);
}

static bool do_pause(struct run *run, struct target *t, const struct command *command,
                     GError **error)
{
    (void)run, (void)command;
    return stop_how(t, "pause", error);
}

static bool do_resume(struct run *run, struct target *t, const struct command *command,
                      GError **error)
{
    (void)run, (void)command;
    return stop_how(t, "resume", error);
}

static bool do_net(struct run *run, struct target *t, const struct command *command, GError **error)
{
    (void)run;
    return target_call(t, "set",
                       json_pack("{s:s}", "net", command_has(command, "on") ? "on" : "off"), error);
}

static bool do_eject(struct run *run, struct target *t, const struct command *command,
                     GError **error)
{
    (void)run;
    return target_call(
        t, "eject", json_pack("{s:s}", "drive", command_has(command, "fd") ? "fd" : "cd"), error);
}

/* --- input ----------------------------------------------------------------------------------- */

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
static bool type_text(struct run *run, struct target *t, const char *text, GError **error)
{
    return target_call(t, "send.text", json_pack("{s:s}", "text", text), error) &&
           run_wait(run, t, test_typed, NULL, (gint64)PATIENCE_S * G_USEC_PER_SEC, error);
}

static bool do_type(struct run *run, struct target *t, const struct command *command,
                    GError **error)
{
    const struct token *piece;
    bool serial = command_has(command, "serial"), ok = true;
    for (unsigned i = 0; ok && (piece = command_value(command, "PIECE", i)); i++) {
        const char *text = secret(piece, error);
        ok = text && (serial ? target_write(t, text, error) : type_text(run, t, text, error));
    }
    return ok;
}

static bool do_key(struct run *run, struct target *t, const struct command *command, GError **error)
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
    return run_wait(run, t, test_typed, NULL, (gint64)PATIENCE_S * G_USEC_PER_SEC, error);
}

/* --- commands -------------------------------------------------------------------------------- */

/* What stands on the screen behind the last echo of a command, from its end on. */
struct typed_command {
    const char *line;
    const struct token *wanted;
    unsigned changes;
};

static bool test_output(struct target *t, void *data, char **note)
{
    const struct typed_command *typed = data;
    const char *screen = target_screen(t), *echo = g_strrstr(screen, typed->line);
    const char *output = echo ? echo + strlen(typed->line) : screen;
    if (t->changes == typed->changes || !strchr(output, '\n') || !ends_in_prompt(output))
        return false;
    if (typed->wanted && !find(typed->wanted, output))
        return false;
    *note = g_strdup_printf("run \"%s\": done", typed->line);
    return true;
}

static bool do_run(struct run *run, struct target *t, const struct command *command, GError **error)
{
    struct look look = { .command = command, .screen = true };
    struct typed_command typed = { text_of(command, "STRING"), command_value(command, "->", 0), 0 };
    if (!run_wait(run, t, test_prompt, &look, (gint64)PATIENCE_S * G_USEC_PER_SEC, error)) {
        g_prefix_error(error, "the screen shows no prompt: ");
        return false;
    }
    typed.changes = t->changes;
    return type_text(run, t, typed.line, error) && type_text(run, t, "\n", error) &&
           run_wait(run, t, test_output, &typed, within(command, PATIENCE_S), error);
}

/* The status that a command's last line on the serial port tells. */
struct answer {
    char *sign;
    size_t from;
    int status;
};

static bool test_answer(struct target *t, void *data, char **note)
{
    struct answer *answer = data;
    const char *at = strstr(t->log->str + answer->from, answer->sign);
    (void)note;
    if (!at || !strchr(at, '\n'))
        return false;
    answer->status = atoi(at + strlen(answer->sign));
    return true;
}

/* By a root shell on the serial port: the script has logged in there, or the guest starts one. */
static bool do_guest(struct run *run, struct target *t, const struct command *command,
                     GError **error)
{
    struct answer answer = { .from = t->log->len };
    unsigned number = g_random_int();
    g_autofree char *line = g_strdup_printf("%s%s echo \"=hv\"=%u=$?\n", command->rest,
                                            command->background ? " &" : ";", number);
    g_autofree char *sign = g_strdup_printf("=hv=%u=", number);
    answer.sign = sign;
    if (!target_write(t, line, error))
        return false;
    if (!run_wait(run, t, test_answer, &answer, (gint64)END_S * G_USEC_PER_SEC, error)) {
        g_prefix_error(error, "no shell on the serial port answers: ");
        return false;
    }
    t->log_seen = t->log->len;
    return !answer.status || hv_fail(error, HV_FAILED, "it ended with status %d", answer.status);
}

static bool do_host(struct run *run, struct target *t, const struct command *command,
                    GError **error)
{
    g_autofree char *output = NULL, *errors = NULL;
    char *argv[] = { (char *)"/bin/sh", (char *)"-c", command->rest, NULL };
    int status;
    g_autoptr(GError) why = NULL;
    (void)run;
    if (command->background)
        return g_spawn_async(t->folder, argv, NULL, 0, NULL, NULL, NULL, error);
    if (!g_spawn_sync(t->folder, argv, NULL, 0, NULL, NULL, &output, &errors, &status, error))
        return false;
    if (g_spawn_check_wait_status(status, &why))
        return true;
    return hv_fail(error, HV_FAILED, "%s: %s%s", why->message, g_strchomp(output),
                   g_strchomp(errors));
}

static bool do_skip(struct run *run, struct target *t, const struct command *command,
                    GError **error)
{
    const char *program = text_of(command, "host"), *file = text_of(command, "file");
    g_autofree char *found = program ? g_find_program_in_path(program) : NULL;
    g_autofree char *path = file ? g_build_filename(t->folder, file, NULL) : NULL;
    bool there = program ? found != NULL
                 : file  ? g_file_test(*file == '/' ? file : path, G_FILE_TEST_EXISTS)
                         : g_file_test("/dev/kvm", G_FILE_TEST_EXISTS);
    (void)error;
    run->skip = !there;
    if (!there)
        run_note(run, "%s: it is missing", command->text);
    return true;
}

static bool do_nothing(struct run *run, struct target *t, const struct command *command,
                       GError **error)
{
    (void)run, (void)t, (void)command, (void)error;
    return true;
}

static const struct {
    enum verb_id id;
    bool (*run)(struct run *run, struct target *t, const struct command *command, GError **error);
} actions[] = {
    { VERB_SKIP, do_skip },
    { VERB_STEP, do_nothing },
    { VERB_BOOT, do_boot },
    { VERB_REBOOT, do_reboot },
    { VERB_POWEROFF, do_poweroff },
    { VERB_OFF, do_off },
    { VERB_POWER_CUT, do_power_cut },
    { VERB_RESET, do_reset },
    { VERB_PAUSE, do_pause },
    { VERB_RESUME, do_resume },
    { VERB_SEE, do_see },
    { VERB_NOT_SEE, do_not_see },
    { VERB_LOG, do_log },
    { VERB_NOT_LOG, do_not_log },
    { VERB_STILL, do_still },
    { VERB_CHANGE, do_change },
    { VERB_EVENT, do_event },
    { VERB_TYPE, do_type },
    { VERB_KEY, do_key },
    { VERB_RUN, do_run },
    { VERB_GUEST, do_guest },
    { VERB_HOST, do_host },
    { VERB_NET, do_net },
    { VERB_EJECT, do_eject },
    { VERB_SCREENSHOT, do_screenshot },
};

bool verb_do(struct run *run, const struct command *command, GError **error)
{
    for (size_t i = 0; i < G_N_ELEMENTS(actions); i++)
        if (actions[i].id == command->verb->id)
            return actions[i].run(run, run_target(run, command), command, error);
    return hv_fail(error, HV_FAILED, "nothing is known of how this is done");
}
