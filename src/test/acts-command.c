/* Commands in the guest and on the host. */
#include "test/acts.h"

#include "base/error.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

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
    if (t->changes == typed->changes || !strchr(output, '\n') || !act_prompt(output))
        return false;
    if (typed->wanted && !act_find(typed->wanted, output))
        return false;
    *note = g_strdup_printf("run \"%s\": done", typed->line);
    return true;
}

bool act_run(struct run *run, struct target *t, const struct command *command, GError **error)
{
    struct look look = { .command = command, .screen = true };
    struct typed_command typed = { act_text(command, "STRING"), command_value(command, "->", 0),
                                   0 };
    if (!run_wait(run, t, act_test_prompt, &look, (gint64)ACT_PATIENCE_S * G_USEC_PER_SEC, error)) {
        g_prefix_error(error, "the screen shows no prompt: ");
        return false;
    }
    typed.changes = t->changes;
    return act_type_text(run, t, typed.line, error) && act_type_text(run, t, "\n", error) &&
           run_wait(run, t, test_output, &typed, act_within(command, ACT_PATIENCE_S), error);
}

/* What a command printed on the serial port, between two lines that tell where: the second has its
 * status. */
struct answer {
    char *sign;
    size_t from, start, end;
    int status;
};

static bool test_answer(struct target *t, void *data, char **note)
{
    struct answer *answer = data;
    const char *text = t->log->str, *first = strstr(text + answer->from, answer->sign);
    const char *start = first ? strchr(first, '\n') : NULL;
    const char *last = start ? strstr(start, answer->sign) : NULL;
    (void)note;
    if (!last || !strchr(last, '\n'))
        return false;
    answer->start = (size_t)(start + 1 - text);
    answer->end = (size_t)(last - text);
    answer->status = atoi(last + strlen(answer->sign));
    return true;
}

/* By a root shell on the serial port: the script has logged in there, or the guest starts one. The
 * quotes keep the echo of the line from looking like what it prints. */
bool act_guest(struct run *run, struct target *t, const struct command *command, GError **error)
{
    struct answer answer = { .from = t->log->len };
    unsigned number = g_random_int();
    g_autofree char *sign = g_strdup_printf("=hv=%u=", number);
    g_autofree char *line =
        g_strdup_printf("echo \"=hv\"=%u=; %s%s echo \"=hv\"=%u=$?\n", number, command->rest,
                        command->background ? " &" : ";", number);
    answer.sign = sign;
    if (!target_write(t, line, error))
        return false;
    if (!run_wait(run, t, test_answer, &answer, (gint64)ACT_END_S * G_USEC_PER_SEC, error)) {
        g_prefix_error(error, "no shell on the serial port answers: ");
        return false;
    }
    t->log_seen = t->log->len;
    g_free(t->said);
    t->said = g_strndup(t->log->str + answer.start, answer.end - answer.start);
    return !answer.status || hv_fail(error, HV_FAILED, "it ended with status %d: %s", answer.status,
                                     g_strchomp(t->said));
}

/* The end of a text that an environment takes: proc(5) and execve(2) know of 128 KiB a string. */
static const char *end_of(const char *text)
{
    const size_t most = 100000, length = strlen(text);
    return text + (length > most ? length - most : 0);
}

/* Its environment tells of the machine. */
static char **host_environment(const struct target *t)
{
    g_autofree char *hv = g_file_read_link("/proc/self/exe", NULL);
    const struct {
        const char *name, *value;
    } all[] = {
        { "HV", hv ? hv : "hv" },
        { "HV_MACHINE", t->name },
        { "HV_SAID", t->said ? t->said : "" },
        { "HV_SERIAL", t->log->str + t->log_start },
        { "HV_MESSAGES", t->messages->str },
    };
    char **environment = g_get_environ();
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        environment = g_environ_setenv(environment, all[i].name, end_of(all[i].value), true);
    return environment;
}

static void lead_a_group(void *unused)
{
    setpgid(0, 0);
    target_set_up_child(unused);
}

bool act_host(struct run *run, struct target *t, const struct command *command, GError **error)
{
    g_autofree char *output = NULL, *errors = NULL;
    g_auto(GStrv) environment = host_environment(t);
    char *argv[] = { (char *)"/bin/sh", (char *)"-c", command->rest, NULL };
    int status;
    g_autoptr(GError) why = NULL;
    GPid pid;
    if (command->background) {
        if (!g_spawn_async(t->folder, argv, environment, G_SPAWN_DO_NOT_REAP_CHILD, lead_a_group,
                           NULL, &pid, error))
            return false;
        g_array_append_val(run->helpers, pid);
        return true;
    }
    if (!g_spawn_sync(t->folder, argv, environment, 0, target_set_up_child, NULL, &output, &errors,
                      &status, error))
        return false;
    if (!g_spawn_check_wait_status(status, &why))
        return hv_fail(error, HV_FAILED, "%s: %s%s", why->message, g_strchomp(output),
                       g_strchomp(errors));
    if (*g_strchomp(output))
        run_note(run, "%s", output);
    return true;
}

bool act_skip(struct run *run, struct target *t, const struct command *command, GError **error)
{
    const char *program = act_text(command, "host"), *file = act_text(command, "file");
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
