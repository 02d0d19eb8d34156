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

/* By a root shell on the serial port: the script has logged in there, or the guest starts one. As
 * long as the test may take: what a guest has to do can take its time. The quotes keep the echo of
 * the line from looking like what it prints. `input` (may be NULL) is what the command reads. */
static bool shell(struct run *run, struct target *t, const char *text, const char *end,
                  const char *input, GError **error)
{
    struct answer answer = { .from = t->log->len };
    unsigned number = g_random_int();
    g_autofree char *sign = g_strdup_printf("=hv=%u=", number);
    g_autofree char *line =
        g_strdup_printf("echo \"=hv\"=%u=; %s%s echo \"=hv\"=%u=$?\n", number, text, end, number);
    answer.sign = sign;
    if (!target_write(t, line, error))
        return false;
    if (!run_wait(run, t, test_begun, &answer, (gint64)ACT_END_S * G_USEC_PER_SEC, error)) {
        g_prefix_error(error, "no shell on the serial port answers: ");
        return false;
    }
    if ((input && !target_write(t, input, error)) ||
        !run_wait(run, t, test_answer, &answer, run->whole.limit, error))
        return false;
    t->log_seen = t->log->len;
    g_free(t->said);
    t->said = g_strndup(t->log->str + answer.start, answer.end - answer.start);
    return !answer.status || hv_fail(error, HV_FAILED, "it ended with status %d: %s", answer.status,
                                     g_strchomp(t->said));
}

bool act_guest(struct run *run, struct target *t, const struct command *command, GError **error)
{
    return shell(run, t, command->rest, command->background ? " &" : ";", NULL, error);
}

/* With line ends. */
static char *in_base64(const char *bytes, gsize length)
{
    int state = 0, rest = 0;
    char *text = g_malloc((length / 3 + 1) * 4 + length / 48 + 8);
    gsize end = g_base64_encode_step((const guchar *)bytes, length, true, text, &state, &rest);
    end += g_base64_encode_close(true, text + end, &state, &rest);
    text[end] = '\0';
    return text;
}

/* In parts that Linux keeps for a terminal whose reader is slow (64 KiB), in lines as a terminal
 * takes them (termios(3)), and not echoed. */
bool act_copy(struct run *run, struct target *t, const struct command *command, GError **error)
{
    enum { MOST = 16 << 20, PART = 24 << 10 };
    g_autofree char *from = target_file(t, act_text(command, "FILE"));
    g_autofree char *to = g_shell_quote(act_text(command, "to")), *bytes = NULL;
    gsize length;
    if (!g_file_get_contents(from, &bytes, &length, error))
        return false;
    if (length > MOST)
        return hv_fail(error, HV_FAILED, "%s: more than %d MiB are too many for a serial port",
                       from, MOST >> 20);
    g_autofree char *begin = g_strdup_printf("stty -echo; >%s", to);
    bool ok = shell(run, t, begin, ";", NULL, error);
    for (gsize at = 0; ok && at < length; at += PART) {
        g_autofree char *part = in_base64(bytes + at, MIN(length - at, (gsize)PART));
        g_autofree char *line = g_strdup_printf("head -c %zu | base64 -d >>%s", strlen(part), to);
        ok = shell(run, t, line, ";", part, error);
    }
    g_autofree char *done =
        g_strdup_printf("stty echo; [ $(wc -c <%s) -eq %" G_GSIZE_FORMAT " ]", to, length);
    return shell(run, t, done, ";", NULL, ok ? error : NULL) && ok;
}

bool act_skip(struct run *run, struct target *t, const struct command *command, GError **error)
{
    const char *program = act_text(command, "host"), *file = act_text(command, "file");
    g_autofree char *found = program ? g_find_program_in_path(program) : NULL;
    g_autofree char *path = file ? target_file(t, file) : NULL;
    bool there = program ? found != NULL
                 : file  ? g_file_test(path, G_FILE_TEST_EXISTS)
                         : g_file_test("/dev/kvm", G_FILE_TEST_EXISTS);
    (void)error;
    run->skip = !there;
    if (!there)
        run_note(run, "%s: it is missing", command->text);
    return true;
}
