/* Jobs; see jobs.h. */
#include "test/jobs.h"

#include "base/error.h"
#include "cli/cli.h"
#include "machine/config.h"
#include "test/command-run.h"
#include "test/resume.h"
#include "test/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- plans ----------------------------------------------------------------------------------- */

/* What hv run makes of the machine's settings. */
static guint64 memory_of(const struct vm *vm)
{
    g_autoptr(settings) config = config_new();
    const struct setting *memory = config_settings;
    while (memory->name && strcmp(memory->name, "memory"))
        memory++;
    for (guint i = 0; i < vm->settings->len; i++) {
        const struct vm_setting *setting = g_ptr_array_index(vm->settings, i);
        if (!strcmp(setting->key, memory->name))
            config_set(config, memory, setting->value, NULL);
    }
    return config->memory;
}

struct plan *plan_new(const struct source *source, const struct script *script, GHashTable *values,
                      const char *combination)
{
    struct plan *plan = g_new0(struct plan, 1);
    g_autofree char *file = g_path_get_basename(source->path);
    plan->source = source;
    plan->values = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    GHashTableIter all;
    gpointer key, value;
    g_hash_table_iter_init(&all, values);
    while (g_hash_table_iter_next(&all, &key, &value))
        g_hash_table_insert(plan->values, g_strdup(key), g_strdup(value));
    plan->title = g_strconcat(script->title, combination, NULL);
    plan->label = g_strconcat(file, combination, NULL);
    g_strdelimit(plan->label, "/", '_');
    for (guint i = 0; i < script->vms->len; i++)
        plan->memory += memory_of(g_ptr_array_index(script->vms, i));
    return plan;
}

struct plan *plan_command(char **words, guint64 memory)
{
    struct plan *plan = g_new0(struct plan, 1);
    char **command = words;
    while (strcmp(*command++, "--"))
        ;
    plan->words = words;
    plan->title = g_strjoinv(" ", command);
    plan->label = g_strdup("command");
    plan->memory = memory;
    return plan;
}

void plan_free(void *data)
{
    struct plan *plan = data;
    g_clear_pointer(&plan->values, g_hash_table_unref);
    g_free(plan->title);
    g_free(plan->label);
    g_free(plan);
}

static bool is_taken(const GPtrArray *plans, const char *label)
{
    for (guint i = 0; i < plans->len; i++)
        if (!strcmp(((const struct plan *)g_ptr_array_index(plans, i))->label, label))
            return true;
    return false;
}

void plan_add(GPtrArray *plans, struct plan *plan)
{
    g_autofree char *label = g_strdup(plan->label);
    for (unsigned i = 2; is_taken(plans, plan->label); i++) {
        g_free(plan->label);
        plan->label = g_strdup_printf("%s (%u)", label, i);
    }
    g_ptr_array_add(plans, plan);
}

/* --- in a job's process ---------------------------------------------------------------------- */

struct job_run {
    struct run run;
    int out; /* the pipe */
};

static void tell_result(struct run *run, const struct result *result)
{
    g_autofree char *line = result_to_json(result);
    size_t left = strlen(line), done = 0;
    while (left) {
        ssize_t n = write(((struct job_run *)run)->out, line + done, left);
        if (n < 0 && errno != EINTR)
            return; /* nobody wants to know */
        done += (size_t)MAX(n, 0);
        left -= (size_t)MAX(n, 0);
    }
}

static G_GNUC_NORETURN void do_job(const struct jobs *jobs, guint64 turn, const struct plan *plan,
                                   const char *folder, int out)
{
    struct job_run job = {
        .run = { .finished = tell_result,
                 .pictures = jobs->pictures,
                 .seed = jobs->seed + (uint32_t)turn,
                 .stop = run_signals() },
        .out = out,
    };
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN); /* without anybody to tell, its machines still end in order */
    if (plan->words) {
        struct result *result = command_run(plan->words, folder);
        tell_result(&job.run, result);
        result_free(result);
        _exit(0);
    }
    if (!run_source(&job.run, plan->source, plan->values, folder))
        resume_save(plan, folder, job.run.seed, NULL); /* without it nobody can go on, no more */
    run_finish(&job.run);
    _exit(0);
}

/* --- in the one that starts them ------------------------------------------------------------- */

struct job {
    const struct plan *plan;
    char *title, *folder;
    pid_t pid;          /* 0: it has ended */
    int in;             /* the pipe; -1: at its end */
    GString *line;      /* what has come of the next result */
    GPtrArray *results; /* those not told yet */
    bool failed;
};

static void job_free(void *data)
{
    struct job *job = data;
    if (job->in >= 0)
        close(job->in); /* first: nobody reads it, and it is not to wait for that */
    if (job->pid) {
        kill(job->pid, SIGTERM);
        waitpid(job->pid, NULL, 0);
    }
    g_string_free(job->line, true);
    g_ptr_array_free(job->results, true);
    g_free(job->title);
    g_free(job->folder);
    g_free(job);
}

static struct job *start(const struct jobs *jobs, guint64 number, GError **error)
{
    const struct plan *plan = g_ptr_array_index(jobs->plans, (guint)(number % jobs->plans->len));
    g_autofree char *turn =
        jobs->repeat == 1 ? g_strdup("")
                          : g_strdup_printf(" #%" G_GUINT64_FORMAT, number / jobs->plans->len + 1);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) {
        hv_fail(error, HV_HOST, "no pipe for a test: %s", g_strerror(errno));
        return NULL;
    }
    struct job *job = g_new0(struct job, 1);
    job->plan = plan;
    job->title = g_strconcat(plan->title, turn, NULL);
    job->folder = g_strdup_printf("%s/%s%s", jobs->output, plan->label, turn);
    job->in = ends[0];
    job->line = g_string_new(NULL);
    job->results = g_ptr_array_new_with_free_func(result_free);
    fflush(NULL);
    job->pid = fork();
    if (job->pid == 0) {
        close(ends[0]);
        do_job(jobs, number / jobs->plans->len, plan, job->folder, ends[1]);
    }
    close(ends[1]);
    if (job->pid < 0) {
        hv_fail(error, HV_HOST, "no process for a test: %s", g_strerror(errno));
        job->pid = 0;
        g_clear_pointer(&job, job_free);
    }
    return job;
}

/* A step that nobody wrote: what the job's process did not live to tell. */
static void add_failure(struct job *job, const char *why)
{
    struct result *result = result_new("hv test itself");
    result->outcome = OUTCOME_FAILED;
    result->message = g_strdup(why);
    g_ptr_array_add(job->results, result);
}

/* The machines of a job that did not live to end them. Their hv run has got the one signal that is
 * but a wish to the guest. */
static void kill_machines(pid_t pid)
{
    g_autofree char *start = g_strdup_printf(RUN_MACHINE, (int)pid, "");
    g_autoptr(GPtrArray) names = machines_running(NULL);
    for (guint i = 0; names && i < names->len; i++) {
        const char *name = g_ptr_array_index(names, i);
        struct client *client = g_str_has_prefix(name, start) ? client_open(name, NULL) : NULL;
        if (client)
            json_decref(client_call(client, "stop", json_pack("{s:s}", "how", "kill"), NULL));
        client_close(client);
    }
}

static void ended(struct job *job)
{
    int status = 0;
    waitpid(job->pid, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        kill_machines(job->pid);
    job->pid = 0;
    close(job->in);
    job->in = -1;
    if (WIFEXITED(status) && !WEXITSTATUS(status) && !job->line->len)
        return;
    g_autofree char *why = WIFSIGNALED(status)
                               ? g_strdup_printf("it was ended by signal %d (%s)", WTERMSIG(status),
                                                 strsignal(WTERMSIG(status)))
                               : g_strdup_printf("it ended with status %d", WEXITSTATUS(status));
    add_failure(job, why);
}

/* Takes what a job has to say. */
static void take(struct job *job)
{
    char chunk[65536], *end;
    ssize_t n = read(job->in, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR)
        return;
    g_string_append_len(job->line, chunk, MAX(n, 0));
    while ((end = strchr(job->line->str, '\n'))) {
        *end = '\0';
        struct result *result = result_from_json(job->line->str);
        if (result)
            g_ptr_array_add(job->results, result);
        else
            add_failure(job, "a result that cannot be read");
        g_string_erase(job->line, 0, end + 1 - job->line->str);
    }
    if (n <= 0)
        ended(job);
}

/* Bytes that more machines may have. */
static guint64 memory_left(void)
{
    g_autofree char *text = NULL;
    guint64 kilobytes = 0;
    const char *line = g_file_get_contents("/proc/meminfo", &text, NULL, NULL)
                           ? strstr(text, "MemAvailable:")
                           : NULL;
    if (!line || sscanf(line, "MemAvailable: %" G_GUINT64_FORMAT, &kilobytes) != 1)
        return G_MAXUINT64;
    return kilobytes / 10 * 9 * 1024;
}

/* Is there a next job, and room for it? Machines take their memory slowly: what the running ones
 * may still take counts as taken. */
static bool has_room(const struct jobs *jobs, const GPtrArray *running, guint64 next,
                     guint64 memory)
{
    if (jobs->repeat && next >= (guint64)jobs->repeat * jobs->plans->len)
        return false;
    guint64 taken = 0;
    unsigned alive = 0;
    for (guint i = 0; i < running->len; i++) {
        const struct job *job = g_ptr_array_index(running, i);
        alive += job->pid != 0;
        taken += job->pid ? job->plan->memory : 0;
    }
    const struct plan *plan = g_ptr_array_index(jobs->plans, (guint)(next % jobs->plans->len));
    return alive < jobs->parallel && (!alive || taken + plan->memory <= memory);
}

/* Tells what is there of the first job, and of those behind it when it has ended. False when a step
 * has failed and that ends all. */
static bool tell(struct jobs *jobs, GPtrArray *running)
{
    while (running->len) {
        struct job *job = g_ptr_array_index(running, 0);
        while (job->results->len) {
            const struct result *result = g_ptr_array_index(job->results, 0);
            job->failed |= result->outcome == OUTCOME_FAILED;
            jobs->finished(jobs->opaque, job->title, result);
            g_ptr_array_remove_index(job->results, 0);
        }
        if (job->pid)
            return true;
        jobs->runs++;
        jobs->failed += job->failed;
        bool enough = job->failed && jobs->until_fail;
        g_ptr_array_remove_index(running, 0);
        if (enough)
            return false;
    }
    return true;
}

/* Waits for news of the jobs and takes them; false when a signal came. */
static bool wait_for(GPtrArray *running, int signals)
{
    g_autofree struct pollfd *fds = g_new0(struct pollfd, (gsize)running->len + 1);
    struct signalfd_siginfo signal;
    for (guint i = 0; i < running->len; i++)
        fds[i] = (struct pollfd){ ((struct job *)g_ptr_array_index(running, i))->in, POLLIN, 0 };
    fds[running->len] = (struct pollfd){ signals, POLLIN, 0 };
    if (poll(fds, running->len + 1, -1) < 0)
        return errno == EINTR;
    for (guint i = 0; i < running->len; i++)
        if (fds[i].fd >= 0 && fds[i].revents)
            take(g_ptr_array_index(running, i));
    return !fds[running->len].revents || read(signals, &signal, sizeof signal) < 0;
}

/* A signal came: the jobs are to end, and tell where they were. A second one waits for nothing. */
static void end_all(struct jobs *jobs, GPtrArray *running, int signals)
{
    for (guint i = 0; i < running->len; i++) {
        const struct job *job = g_ptr_array_index(running, i);
        if (job->pid)
            kill(job->pid, SIGTERM);
    }
    while (running->len && wait_for(running, signals))
        tell(jobs, running);
}

static bool run_all(struct jobs *jobs, GPtrArray *running, int signals, GError **error)
{
    const guint64 memory = memory_left();
    guint64 next = 0;
    for (;;) {
        while (has_room(jobs, running, next, memory)) {
            struct job *job = start(jobs, next, error);
            if (!job)
                return false;
            g_ptr_array_add(running, job);
            next++;
        }
        if (!running->len)
            return true;
        if (!wait_for(running, signals)) {
            end_all(jobs, running, signals);
            return hv_fail(error, HV_FAILED, "ended by a signal");
        }
        if (!tell(jobs, running))
            return true;
    }
}

bool jobs_run(struct jobs *jobs, GError **error)
{
    g_autoptr(GPtrArray) running = g_ptr_array_new_with_free_func(job_free);
    int signals = run_signals();
    bool ok = !jobs->plans->len || run_all(jobs, running, signals, error);
    g_ptr_array_set_size(running, 0);
    if (signals >= 0)
        close(signals);
    return ok;
}
