/* What is done to the machine: switching it on and off, its cable, its drives. */
#include "test/acts.h"

#include "base/error.h"

#include <string.h>

static bool test_ended(struct target *t, void *data, char **note)
{
    (void)data, (void)note;
    return !t->pid;
}

bool act_boot(struct run *run, struct target *t, const struct command *command, GError **error)
{
    (void)command;
    (void)run;
    if (t->pid)
        target_kill(t);
    g_autoptr(GError) why = NULL;
    if (target_start(t, !t->vm->keep, &why))
        return true;
    if (t->crash) /* before hv could be asked anything: `crash` may be next */
        return true;
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

bool act_off(struct run *run, struct target *t, const struct command *command, GError **error)
{
    t->expected_end = true;
    if (!run_wait(run, t, test_ended, NULL, act_within(command, ACT_END_S), error))
        return false;
    return !t->status || hv_fail(error, t->status, "hv run ended with status %d: %s", t->status,
                                 g_strstrip(t->messages->str));
}

bool act_poweroff(struct run *run, struct target *t, const struct command *command, GError **error)
{
    return target_call(t, "stop", json_pack("{s:s}", "how", "shutdown"), error) &&
           act_off(run, t, command, error);
}

bool act_reboot(struct run *run, struct target *t, const struct command *command, GError **error)
{
    return act_poweroff(run, t, command, error) && act_boot(run, t, command, error);
}

bool act_power_cut(struct run *run, struct target *t, const struct command *command, GError **error)
{
    (void)command;
    if (!t->pid)
        return hv_fail(error, HV_WRONG_STATE, "the machine does not run");
    target_kill(t);
    const char *lost = t->cuts ? strstr(t->messages->str, "power cut: ") : NULL;
    if (lost)
        run_note(run, "%.*s: --seed %u has the same chance", (int)strcspn(lost, "\n"), lost,
                 run->seed);
    return true;
}

static bool stop_how(struct target *t, const char *how, GError **error)
{
    return target_call(t, "stop", json_pack("{s:s}", "how", how), error);
}

bool act_reset(struct run *run, struct target *t, const struct command *command, GError **error)
{
    (void)run, (void)command;
    t->log_start = t->log_seen = t->log->len;
    return stop_how(t, "reset", error);
}

bool act_pause(struct run *run, struct target *t, const struct command *command, GError **error)
{
    (void)run, (void)command;
    return stop_how(t, "pause", error);
}

bool act_resume(struct run *run, struct target *t, const struct command *command, GError **error)
{
    (void)run, (void)command;
    return stop_how(t, "resume", error);
}

/* --- faults ---------------------------------------------------------------------------------- */

/* Milliseconds of guest time, rounded up: 0 would be none. */
static json_int_t milliseconds(const struct token *duration)
{
    return (duration->number + 999) / 1000;
}

/* The same chance for each use: with --seed it is the one of an earlier run. */
static bool lose(struct run *run, struct target *t, gint64 percent, GError **error)
{
    if (percent)
        run_note(run, "packets get lost by chance: --seed %u does the same again", run->seed);
    return target_call(t, "fault",
                       json_pack("{s:s, s:I, s:I}", "kind", "net-loss", "percent",
                                 (json_int_t)percent, "seed", (json_int_t)run->seed),
                       error);
}

bool act_net(struct run *run, struct target *t, const struct command *command, GError **error)
{
    const struct token *loss = command_value(command, "loss", 0);
    const struct token *delay = command_value(command, "delay", 0);
    if (loss)
        return lose(run, t, loss->number, error);
    if (delay)
        return target_call(t, "fault",
                           json_pack("{s:s, s:I}", "kind", "net-delay", "ms", milliseconds(delay)),
                           error);
    if (command_has(command, "good"))
        return target_call(t, "fault", json_pack("{s:s}", "kind", "net-good"), error);
    return target_call(t, "set",
                       json_pack("{s:s}", "net", command_has(command, "on") ? "on" : "off"), error);
}

bool act_disk(struct run *run, struct target *t, const struct command *command, GError **error)
{
    const struct token *number = command_value(command, "COUNT", 0);
    const struct token *slow = command_value(command, "slow", 0);
    const struct token *first = command_value(command, "error", 0);
    const struct token *last = command_value(command, "to", 0);
    json_t *params = json_object();
    (void)run;
    json_object_set_new(params, "kind",
                        json_string(slow                           ? "disk-slow"
                                    : first                        ? "disk-error"
                                    : command_has(command, "full") ? "disk-full"
                                                                   : "disk-good"));
    if (number)
        json_object_set_new(params, "disk", json_integer(number->number));
    if (slow)
        json_object_set_new(params, "ms", json_integer(milliseconds(slow)));
    if (first)
        json_object_set_new(params, "sector", json_integer(first->number));
    if (last)
        json_object_set_new(params, "last", json_integer(last->number));
    if (command_has(command, "read") || command_has(command, "write"))
        json_object_set_new(params, "of",
                            json_string(command_has(command, "read") ? "read" : "write"));
    return target_call(t, "fault", params, error);
}

/* --- drives ---------------------------------------------------------------------------------- */

bool act_eject(struct run *run, struct target *t, const struct command *command, GError **error)
{
    (void)run;
    return target_call(
        t, "eject", json_pack("{s:s}", "drive", command_has(command, "fd") ? "fd" : "cd"), error);
}

/* `hv set` knows how; files are found as in the script's vm. */
bool act_set(struct run *run, struct target *t, const struct command *command, GError **error)
{
    g_autofree char *hv = g_file_read_link("/proc/self/exe", error), *errors = NULL;
    char *argv[] = { hv, (char *)"set", t->name, (char *)(uintptr_t)act_text(command, "WORD"),
                     NULL };
    int status;
    (void)run;
    if (!hv || !g_spawn_sync(t->folder, argv, NULL, 0, target_set_up_child, NULL, NULL, &errors,
                             &status, error))
        return false;
    return g_spawn_check_wait_status(status, NULL) ||
           hv_fail(error, HV_FAILED, "%s", g_strstrip(errors));
}
