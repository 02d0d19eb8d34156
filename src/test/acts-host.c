/* Commands on the host. The machines' serial ports and screens are read while one runs. */
#include "test/acts.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KEPT_MAX = 64 << 10, TOLD_MAX = 2000 };

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

/* A command that is waited for. */
struct helper {
    GPid pid;
    int fds[3]; /* its end (a pidfd), output and errors; -1: closed */
    GString *output, *errors;
};

/* The end of what a pipe has; of long outputs only that is kept. */
static void take_output(int *fd, GString *text)
{
    char chunk[4096];
    ssize_t n;
    while (*fd >= 0 && (n = read(*fd, chunk, sizeof chunk)) != 0) {
        if (n < 0 && errno != EINTR)
            return;
        g_string_append_len(text, chunk, MAX(n, 0));
        if (text->len > 2 * KEPT_MAX)
            g_string_erase(text, 0, (gssize)(text->len - KEPT_MAX));
    }
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Waits for its end, and gets its status. What it started itself may go on. */
static bool await(struct run *run, struct helper *helper, int *status, GError **error)
{
    bool ended = false;
    bool ok = helper->fds[0] >= 0 || hv_fail(error, HV_HOST, "pidfd_open: %s", g_strerror(errno));
    while (ok && !ended && (ok = run_attend(run, helper->fds, G_N_ELEMENTS(helper->fds), error))) {
        ended = waitpid(helper->pid, status, WNOHANG) != 0;
        take_output(&helper->fds[1], helper->output);
        take_output(&helper->fds[2], helper->errors);
    }
    if (!ok) {
        kill(-helper->pid, SIGKILL);
        waitpid(helper->pid, status, 0);
    }
    return ok;
}

/* What it had to say at last. To be freed. */
static char *last_words(struct helper *helper)
{
    g_autofree char *all =
        g_strconcat(g_strchomp(helper->output->str), *helper->output->str ? "\n" : "",
                    g_strchomp(helper->errors->str), NULL);
    size_t length = strlen(all);
    return length > TOLD_MAX ? g_strconcat("...", all + length - TOLD_MAX, NULL)
                             : g_steal_pointer(&all);
}

static bool end_well(struct run *run, struct helper *helper, GError **error)
{
    int status = 0;
    g_autoptr(GError) why = NULL;
    bool over = await(run, helper, &status, &why);
    if (!over || !g_spawn_check_wait_status(status, &why)) {
        g_autofree char *words = last_words(helper);
        return hv_fail(error, over ? HV_FAILED : (enum hv_error)why->code, "%s%s%s", why->message,
                       *words ? ": " : "", words);
    }
    if (*g_strchomp(helper->output->str))
        run_note(run, "%s", helper->output->str);
    return true;
}

bool act_host(struct run *run, struct target *t, const struct command *command, GError **error)
{
    g_auto(GStrv) environment = host_environment(t);
    char *argv[] = { (char *)"/bin/sh", (char *)"-c", command->rest, NULL };
    bool waits = !command->background;
    struct helper helper = { .fds = { -1, -1, -1 } };
    if (!g_spawn_async_with_pipes(
            t->folder, argv, environment, G_SPAWN_DO_NOT_REAP_CHILD, lead_a_group, NULL,
            &helper.pid, NULL, waits ? &helper.fds[1] : NULL, waits ? &helper.fds[2] : NULL, error))
        return false;
    if (!waits) {
        g_array_append_val(run->helpers, helper.pid);
        return true;
    }
    fcntl(helper.fds[1], F_SETFL, O_NONBLOCK);
    fcntl(helper.fds[2], F_SETFL, O_NONBLOCK);
    helper.output = g_string_new(NULL);
    helper.errors = g_string_new(NULL);
    helper.fds[0] = pidfd_open(helper.pid, 0);
    bool ok = end_well(run, &helper, error);
    for (unsigned i = 0; i < G_N_ELEMENTS(helper.fds); i++)
        if (helper.fds[i] >= 0)
            close(helper.fds[i]);
    g_string_free(helper.output, true);
    g_string_free(helper.errors, true);
    return ok;
}
