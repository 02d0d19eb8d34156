/* Commands in the guest. */
#include "test/acts.h"

#include "base/error.h"

#include <string.h>

/* What stands on the screen behind the last echo of a command, from its end on. */
struct typed_command {
    const char *line;
    const struct token *wanted, *soft; /* NULL: nothing */
    unsigned changes;
    bool failed_softly; /* the second is there */
};

static bool test_output(struct target *t, void *data, char **note)
{
    struct typed_command *typed = data;
    const char *screen = target_screen(t), *echo = g_strrstr(screen, typed->line);
    const char *output = echo ? echo + strlen(typed->line) : screen;
    if (t->changes == typed->changes || !strchr(output, '\n') || !act_prompt(output))
        return false;
    bool found = !typed->wanted || act_find(typed->wanted, output);
    typed->failed_softly = !found && typed->soft && act_find(typed->soft, output);
    if (!found && !typed->failed_softly)
        return false;
    *note = g_strdup_printf("run \"%s\": done", typed->line);
    return true;
}

bool act_run(struct run *run, struct target *t, const struct command *command, GError **error)
{
    struct look look = { .command = command, .screen = true };
    struct typed_command typed = { .line = act_text(command, "STRING"),
                                   .wanted = command_value(command, "->", 0),
                                   .soft = command_value(command, "soft", 0) };
    if (!run_wait(run, t, act_test_prompt, &look, (gint64)ACT_PATIENCE_S * G_USEC_PER_SEC, error)) {
        g_prefix_error(error, "the screen shows no prompt: ");
        return false;
    }
    typed.changes = t->changes;
    if (!act_type_text(run, t, typed.line, error) || !act_type_text(run, t, "\n", error) ||
        !run_wait(run, t, test_output, &typed, act_within(command, ACT_PATIENCE_S), error))
        return false;
    if (typed.failed_softly) {
        g_autofree char *message =
            g_strdup_printf("%s:%u: %s: the output has %s", command->place.file,
                            command->place.line, command->text, typed.soft->text);
        run_fail_softly(run, command, message);
    }
    return true;
}

/* What a command printed on the serial port, between two lines that tell where: the second has its
 * status. */
struct answer {
    char *sign;
    size_t from, start, end;
    int status;
};

static bool test_begun(struct target *t, void *data, char **note)
{
    struct answer *answer = data;
    (void)note;
    return strstr(t->log->str + answer->from, answer->sign);
}

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

/* As long as the test may take: what a guest has to do can take its time. By a root shell on the
 * serial port: the script has logged in there, or the guest starts one. The quotes keep the echo of
 * the line from looking like what it prints. */
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
    if (!run_wait(run, t, test_begun, &answer, (gint64)ACT_END_S * G_USEC_PER_SEC, error)) {
        g_prefix_error(error, "no shell on the serial port answers: ");
        return false;
    }
    if (!run_wait(run, t, test_answer, &answer, run->whole.limit, error))
        return false;
    t->log_seen = t->log->len;
    g_free(t->said);
    t->said = g_strndup(t->log->str + answer.start, answer.end - answer.start);
    return !answer.status || hv_fail(error, HV_FAILED, "it ended with status %d: %s", answer.status,
                                     g_strchomp(t->said));
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
