/* What is to be seen: the verbs that look at the screen, the serial port and the events. */
#include "test/acts.h"

#include "base/error.h"
#include "test/nearest.h"

#include <string.h>

const char *act_find_part(const struct token *wanted, const char *text, size_t *length)
{
    g_autoptr(GMatchInfo) info = NULL;
    int start, end;
    if (!wanted->regex) {
        *length = strlen(wanted->text);
        return strstr(text, wanted->text);
    }
    if (!g_regex_match(wanted->regex, text, 0, &info) ||
        !g_match_info_fetch_pos(info, 0, &start, &end))
        return NULL;
    *length = (size_t)(end - start);
    return text + start;
}

const char *act_find(const struct token *wanted, const char *text)
{
    size_t length;
    return act_find_part(wanted, text, &length);
}

/* All of the texts on the screen, or all on the serial port. */
static bool all_in(const struct command *command, const char *text)
{
    const struct token *wanted;
    for (unsigned i = 0; (wanted = command_value(command, "TEXT", i)); i++)
        if (!act_find(wanted, text))
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
    if (!look->serial || !all_in(look->command, t->log->str + from)) {
        if (!look->screen || !target_guess(t) || !all_in(look->command, t->screen))
            return false;
        *note = g_strdup_printf("%s: on the screen (%s)", look->command->text, t->screen_source);
        return true;
    }
    *note = g_strdup_printf("%s: on the serial port", look->command->text);
    if (look->consume)
        t->log_seen = t->log->len;
    return true;
}

/* The last line of a text that is not empty ends as prompts of shells do. */
bool act_prompt(const char *text)
{
    g_autofree char *copy = g_strchomp(g_strdup(text));
    size_t length = strlen(copy);
    return length && strchr("#$%>", copy[length - 1]);
}

bool act_test_prompt(struct target *t, void *data, char **note)
{
    const struct look *look = data;
    bool screen = look->screen && act_prompt(target_screen(t));
    bool serial = look->serial && act_prompt(t->log->str + MAX(look->from, t->log_start));
    if (screen || serial)
        *note = g_strdup_printf("a prompt %s", screen ? "on the screen" : "on the serial port");
    return screen || serial;
}

void act_add_nearest(struct target *t, const struct command *command, GError **error)
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

bool act_see(struct run *run, struct target *t, const struct command *command, GError **error)
{
    struct look look = look_of(t, command);
    wait_test *test = command_has(command, "prompt") ? act_test_prompt : test_text;
    if (run_wait(run, t, test, &look, act_within(command, ACT_PATIENCE_S), error))
        return true;
    if (error && g_error_matches(*error, HV_ERROR, HV_TIMED_OUT))
        act_add_nearest(t, command, error);
    return false;
}

bool act_log(struct run *run, struct target *t, const struct command *command, GError **error)
{
    struct look look = { .command = command, .serial = true, .from = t->log_start };
    if (run_wait(run, t, test_text, &look, act_within(command, ACT_PATIENCE_S), error))
        return true;
    if (error && g_error_matches(*error, HV_ERROR, HV_TIMED_OUT))
        act_add_nearest(t, command, error);
    return false;
}

static bool test_any(struct target *t, void *data, char **note)
{
    struct look *look = data;
    const struct token *wanted;
    (void)note;
    for (unsigned i = 0; (wanted = command_value(look->command, "TEXT", i)); i++)
        if ((look->screen && act_find(wanted, target_screen(t))) ||
            (look->serial && act_find(wanted, t->log->str + MAX(look->from, t->log_start))))
            return true;
    return false;
}

/* None of it now, nor, when a time is given, in that. */
static bool refuse_text(struct run *run, struct target *t, struct look *look, GError **error)
{
    g_autoptr(GError) why = NULL;
    if (run_wait(run, t, test_any, look, act_within(look->command, 0), &why))
        return hv_fail(error, HV_FAILED, "it is there");
    if (g_error_matches(why, HV_ERROR, HV_TIMED_OUT) ||
        g_error_matches(why, HV_ERROR, HV_WRONG_STATE)) /* it has ended: nothing comes any more */
        return true;
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

bool act_not_see(struct run *run, struct target *t, const struct command *command, GError **error)
{
    struct look look = look_of(t, command);
    return refuse_text(run, t, &look, error);
}

bool act_not_log(struct run *run, struct target *t, const struct command *command, GError **error)
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
bool act_still(struct run *run, struct target *t, const struct command *command, GError **error)
{
    struct look look = { .quiet = command_value(command, "DURATION", 0)->number };
    gint64 end = g_get_monotonic_time() + act_within(command, ACT_PATIENCE_S);
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

bool act_change(struct run *run, struct target *t, const struct command *command, GError **error)
{
    struct look look = { .changes = t->changes };
    return run_wait(run, t, test_change, &look, act_within(command, ACT_PATIENCE_S), error);
}

static bool test_event(struct target *t, void *data, char **note)
{
    const struct look *look = data;
    (void)note;
    for (GList *event = t->happened.head; event; event = event->next)
        if (command_has(look->command, event->data)) {
            if (!strcmp(event->data, "disk-full"))
                g_clear_pointer(&t->stands_still, g_free);
            g_free(event->data);
            g_queue_delete_link(&t->happened, event);
            return true;
        }
    return false;
}

bool act_event(struct run *run, struct target *t, const struct command *command, GError **error)
{
    struct look look = { .command = command };
    return run_wait(run, t, test_event, &look, act_within(command, ACT_PATIENCE_S), error);
}

static bool test_port(struct target *t, void *data, char **note)
{
    const struct look *look = data;
    gint64 port = command_value(look->command, "PORT", 0)->number;
    if (t->pid && !t->asks) /* hv-net was started anew */
        target_ask_port(t, (unsigned)port, NULL);
    (void)note;
    return t->open_port == port;
}

bool act_port(struct run *run, struct target *t, const struct command *command, GError **error)
{
    struct look look = { .command = command };
    bool open = target_ask_port(t, (unsigned)command_value(command, "PORT", 0)->number, error) &&
                run_wait(run, t, test_port, &look, act_within(command, ACT_PATIENCE_S), error);
    target_ask_no_port(t);
    return open;
}

static bool test_crash(struct target *t, void *data, char **note)
{
    (void)data, (void)note;
    return t->crash;
}

/* The texts of a crash; the line that told of it may not be the first that has them. */
static bool test_last_words(struct target *t, void *data, char **note)
{
    const struct look *look = data;
    const struct token *wanted;
    (void)note;
    for (unsigned i = 0; (wanted = command_value(look->command, "TEXT", i)); i++)
        if (!act_find(wanted, look->crash) && !act_find(wanted, target_screen(t)) &&
            !act_find(wanted, t->log->str + t->log_start) && !act_find(wanted, t->messages->str))
            return false;
    return true;
}

/* What the watch finds is what the test waits for. The guest may say more of it, or end by it. */
bool act_crash(struct run *run, struct target *t, const struct command *command, GError **error)
{
    enum { LAST_WORDS_S = 5 };
    struct look look = { .command = command };
    if (!run->watch)
        run_note(run, "watch none: only the panic device and triple faults count");
    if (!run_wait(run, t, test_crash, &look, act_within(command, ACT_PATIENCE_S), error)) {
        if (error && g_error_matches(*error, HV_ERROR, HV_TIMED_OUT))
            g_prefix_error(error, "no crash: ");
        return false;
    }
    g_autofree char *crash = g_steal_pointer(&t->crash);
    t->crash_wanted = t->expected_end = true;
    run_note(run, "%s crashed, as it should: %s", t->vm->name, crash);
    look.crash = crash;
    g_autoptr(GError) why = NULL;
    return run_wait(run, t, test_last_words, &look, (gint64)LAST_WORDS_S * G_USEC_PER_SEC, &why) ||
           hv_fail(error, HV_FAILED, "it crashed otherwise: %s", crash);
}

bool act_screenshot(struct run *run, struct target *t, const struct command *command,
                    GError **error)
{
    const char *name = act_text(command, "WORD");
    g_autofree char *file = g_strdup_printf("%s/%s.png", run->output, name ? name : t->vm->name);
    if (g_mkdir_with_parents(run->output, 0777) < 0)
        return hv_fail(error, HV_FAILED, "%s: cannot be made", run->output);
    run_file(run, MOMENT_PICTURE, file);
    return target_picture(t, file, error);
}
