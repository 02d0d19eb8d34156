/* hv run IMAGE -- COMMAND: a disk boots, somebody logs in, the command runs, and its status is
 * ours.
 *
 * What it writes comes over the first serial port. Where the guest has no login on that, the
 * command's shell is started from the one on the screen. One thread. */
#include "base/error.h"
#include "cli/cli.h"
#include "test/acts.h"
#include "test/crash.h"
#include "test/vm-words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* As hv test --kernel has them. */
enum { STATUS_CRASHED = 123, STATUS_TIMED_OUT = 124, STATUS_UNTESTED = 125 };

enum {
    LIMIT_S = 600,     /* the preset of --limit: from the start to the command's end */
    LOGIN_S = 60,      /* from a name to a prompt */
    END_S = 120,       /* for the guest to shut down */
    LINE_BYTES = 4000, /* bytes that a terminal takes as one line: termios(3), canonical mode */
};

struct guest_command {
    char *line;        /* for the guest's shell */
    const char *login; /* USER or USER,secret:NAME */
    gint64 limit;      /* microseconds */
    bool throwaway;
    struct vm vm;
    struct run run;
    struct target *target;

    bool on_screen;     /* that is where the login is */
    const char *before; /* the screen when it was typed there: still the question */
    GString *sign;      /* a line that the shell writes before and behind the command's output */
    size_t from, shown; /* of the log: where the sign is looked for; what has been printed */
    int status;
};

/* --- the command line ------------------------------------------------------------------------ */

/* An option of ours; *ours is false when it is none. */
static bool take_option(struct guest_command *c, char **argv, int *i, int end, bool *ours,
                        GError **error)
{
    g_auto(GStrv) sides = g_strsplit(argv[*i], "=", 2);
    const char *value = sides[1] ? strchr(argv[*i], '=') + 1 : *i + 1 < end ? argv[*i + 1] : NULL;
    struct token limit = { .text = (char *)(uintptr_t)value };
    bool login = !strcmp(sides[0], "--login");
    *ours = true;
    if (!strcmp(sides[0], "--throwaway") && !sides[1])
        return c->throwaway = true;
    if (!login && strcmp(sides[0], "--limit")) {
        *ours = false;
        return true;
    }
    if (!value)
        return hv_fail(error, HV_USAGE, "%s wants a value", sides[0]);
    *i += !sides[1];
    if (login)
        c->login = value;
    else if (!token_duration(&limit))
        return hv_fail(error, HV_USAGE, "--limit %s: a time is wanted, such as 30s or 5m", value);
    else
        c->limit = limit.number;
    return true;
}

/* One word is a line for the shell; several are a program and its arguments. */
static char *line_of(char **words)
{
    if (!words[1])
        return g_strdup(words[0]);
    GString *line = g_string_new(NULL);
    for (; *words; words++) {
        g_autofree char *quoted = g_shell_quote(*words);
        g_string_append_printf(line, "%s%s", line->len ? " " : "", quoted);
    }
    return g_string_free(line, false);
}

static bool take_words(struct guest_command *c, int argc, char **argv, GError **error)
{
    int end = 0;
    while (strcmp(argv[end], "--"))
        end++;
    for (int i = 0; i < end; i++) {
        bool ours;
        if (!take_option(c, argv, &i, end, &ours, error) ||
            (!ours && !vm_words_take(c->vm.settings, argv, &i, end, error)))
            return false;
    }
    if (end + 1 == argc)
        return hv_fail(error, HV_USAGE, "behind -- a command is wanted");
    c->line = line_of(argv + end + 1);
    return (strlen(c->line) < LINE_BYTES && !strchr(c->line, '\n')) ||
           hv_fail(error, HV_USAGE,
                   "the command is to be one line of at most %d bytes: put it into a file of the "
                   "guest's",
                   LINE_BYTES);
}

/* --- logging in ------------------------------------------------------------------------------ */

/* Does the text end in what waits for a name, a password, or a command? */
static bool ends_in(const char *text, const char *what)
{
    g_autofree char *copy = g_strchomp(g_strdup(text));
    return g_str_has_suffix(copy, what);
}

static const char *shown(struct guest_command *c)
{
    return c->on_screen ? target_screen(c->target) : c->target->log->str + c->from;
}

/* A login or a shell, on the serial port or, when nothing has come from that, on the screen. */
static bool test_console(struct target *t, void *data, char **note)
{
    struct guest_command *c = data;
    (void)note;
    c->on_screen = !t->log->len;
    return ends_in(shown(c), "login:") || (!c->on_screen && act_prompt(shown(c)));
}

static bool test_answered(struct target *t, void *data, char **note)
{
    struct guest_command *c = data;
    (void)t, (void)note;
    g_autofree char *now = g_strchomp(g_strdup(shown(c)));
    if (!g_strcmp0(now, c->before))
        return false;
    return ends_in(shown(c), "assword:") || ends_in(shown(c), "login:") || act_prompt(shown(c));
}

/* Types a line where the login is, and waits until something answers it. */
static bool answer(struct guest_command *c, const char *text, GError **error)
{
    g_autofree char *line = g_strconcat(text, "\n", NULL);
    g_autofree char *before = c->on_screen ? g_strchomp(g_strdup(shown(c))) : NULL;
    c->from = c->target->log->len;
    c->before = before;
    if (c->on_screen ? !act_type_text(&c->run, c->target, line, error)
                     : !target_write(c->target, line, error))
        return false;
    return run_wait(&c->run, c->target, test_answered, c, (gint64)LOGIN_S * G_USEC_PER_SEC, error);
}

static bool log_in(struct guest_command *c, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(c->login, ",secret:", 2);
    const char *secret = parts[1] ? g_getenv(parts[1]) : NULL;
    if (parts[1] && !secret)
        return hv_fail(error, HV_USAGE, "--login %s: the environment has no %s", c->login,
                       parts[1]);
    if (!run_wait(&c->run, c->target, test_console, c, c->limit, error))
        return false;
    if (!ends_in(shown(c), "login:"))
        return true;
    if (!answer(c, parts[0], error))
        return false;
    if (ends_in(shown(c), "assword:") && !secret)
        return hv_fail(error, HV_FAILED,
                       "the guest wants a password for %s: --login %s,secret:NAME takes it from "
                       "the environment's NAME",
                       parts[0], parts[0]);
    if (ends_in(shown(c), "assword:") && !answer(c, secret, error))
        return false;
    return act_prompt(shown(c)) ||
           hv_fail(error, HV_FAILED, "the guest does not let %s in", parts[0]);
}

/* --- the command ----------------------------------------------------------------------------- */

static void print_until(struct guest_command *c, size_t end)
{
    if (end > c->shown)
        fwrite(c->target->log->str + c->shown, 1, end - c->shown, stdout);
    fflush(stdout);
    c->shown = MAX(c->shown, end);
}

/* Prints what has come; what could be the beginning of the sign waits. */
static bool test_done(struct target *t, void *data, char **note)
{
    struct guest_command *c = data;
    const char *text = t->log->str, *first = strstr(text + c->from, c->sign->str);
    const char *start = first ? strchr(first, '\n') : NULL;
    (void)note;
    if (!start)
        return false;
    c->shown = MAX(c->shown, (size_t)(start + 1 - text));
    const char *last = strstr(text + c->shown, c->sign->str);
    if (!last || !strchr(last, '\n')) {
        size_t ready = last ? (size_t)(last - text) : t->log->len - MIN(t->log->len, c->sign->len);
        print_until(c, ready);
        return false;
    }
    print_until(c, (size_t)(last - text));
    c->status = atoi(last + c->sign->len);
    return true;
}

/* The quotes keep the echo of the line from looking like what it prints. */
static bool run_line(struct guest_command *c, GError **error)
{
    unsigned number = g_random_int();
    g_string_printf(c->sign, "=hv=%u=", number);
    g_autofree char *quoted = g_shell_quote(c->line);
    g_autofree char *line =
        g_strdup_printf("echo \"=hv\"=%u=; sh -c %s; echo \"=hv\"=%u=$?\n", number, quoted, number);
    static const char shell[] = "setsid sh </dev/ttyS0 >/dev/ttyS0 2>&1 &\n";
    if (c->on_screen && !act_type_text(&c->run, c->target, shell, error))
        return false;
    c->from = c->shown = c->target->log->len;
    return target_write(c->target, line, error) &&
           run_wait(&c->run, c->target, test_done, c, c->limit, error);
}

static bool test_ended(struct target *t, void *data, char **note)
{
    (void)data, (void)note;
    return !t->pid;
}

/* What it wrote is to be on its disks. */
static void shut_down(struct guest_command *c)
{
    c->target->expected_end = true;
    if (!c->throwaway &&
        (!target_call(c->target, "stop", json_pack("{s:s}", "how", "shutdown"), NULL) ||
         !run_wait(&c->run, c->target, test_ended, NULL, (gint64)END_S * G_USEC_PER_SEC, NULL)))
        fprintf(stderr, "hv: the guest does not shut down: its plug is pulled\n");
    target_kill(c->target);
}

/* --- all of it ------------------------------------------------------------------------------- */

static int status_of(const GError *error)
{
    return g_error_matches(error, HV_ERROR, HV_CRASHED)     ? STATUS_CRASHED
           : g_error_matches(error, HV_ERROR, HV_TIMED_OUT) ? STATUS_TIMED_OUT
           : g_error_matches(error, HV_ERROR, HV_USAGE)     ? HV_USAGE
                                                            : STATUS_UNTESTED;
}

static void show_log(const struct guest_command *c)
{
    enum { LINES = 10 };
    g_auto(GStrv) lines = g_strsplit(c->target->log->str, "\n", -1);
    guint all = g_strv_length(lines);
    for (guint i = all > LINES ? all - LINES : 0; i < all; i++)
        fprintf(stderr, "serial: %s\n", lines[i]);
}

static int run_command(struct guest_command *c)
{
    g_autofree char *name = g_strdup_printf(RUN_MACHINE, (int)getpid(), "command");
    g_autofree char *folder = g_get_current_dir();
    GError *error = NULL;
    c->target = target_new(&c->vm, name, folder, NULL);
    c->run = (struct run){
        .targets = g_ptr_array_new(),
        .now = result_new("command"),
        .began = g_get_monotonic_time(),
        .stop = run_signals(),
        .watch = CRASH_LINUX | CRASH_BOOT,
    };
    g_ptr_array_add(c->run.targets, c->target);
    patience_start(&c->run.whole, 0, c->limit);
    bool ok =
        target_start(c->target, c->throwaway, &error) && log_in(c, &error) && run_line(c, &error);
    if (ok)
        shut_down(c);
    int status = ok ? c->status : status_of(error);
    if (!ok) {
        show_log(c);
        cli_fail(error);
    }
    target_free(c->target);
    g_ptr_array_free(c->run.targets, true);
    result_free(c->run.now);
    close(c->run.stop);
    return status;
}

int run_in_guest(int argc, char **argv)
{
    GError *error = NULL;
    struct guest_command c = {
        .login = "root",
        .limit = (gint64)LIMIT_S * G_USEC_PER_SEC,
        .vm = { .settings = vm_words_new() },
        .sign = g_string_new(NULL),
    };
    int status = take_words(&c, argc, argv, &error) ? run_command(&c) : cli_fail(error);
    g_ptr_array_free(c.vm.settings, true);
    g_string_free(c.sign, true);
    g_free(c.line);
    return status;
}
