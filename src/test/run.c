/* Runs a test script; see run.h. What each verb does is in acts.c. */
#include "test/run.h"

#include "base/error.h"
#include "test/crash.h"
#include "test/resume.h"
#include "test/scratch.h"

#include <glib/gstdio.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

int run_signals(void)
{
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    return signalfd(-1, &ends, SFD_CLOEXEC);
}

/* --- waiting --------------------------------------------------------------------------------- */

static void add_moment(struct run *run, enum moment_kind kind, char *text)
{
    if (!run->silent)
        result_add(run->now, kind, g_get_monotonic_time() - run->began,
                   g_utf8_make_valid(text, -1));
    g_free(text);
}

void run_note(struct run *run, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add_moment(run, MOMENT_NOTE, g_strdup_vprintf(format, args));
    va_end(args);
}

void run_file(struct run *run, enum moment_kind kind, const char *path)
{
    add_moment(run, kind, g_strdup(path));
}

/* The lines that are new on the serial port; the last one may still grow. */
static void note_serial(struct run *run, struct target *t, bool all)
{
    const char *end;
    while (t->log_noted < t->log->len &&
           ((end = strchr(t->log->str + t->log_noted, '\n')) || all)) {
        const char *start = t->log->str + t->log_noted;
        size_t length = end ? (size_t)(end - start) : strlen(start);
        const char *name = run->targets->len > 1 ? t->vm->name : "";
        add_moment(run, MOMENT_SERIAL,
                   g_strdup_printf("%s%s%.*s", name, *name ? ": " : "", (int)length, start));
        t->log_noted += length + (end != NULL);
    }
}

/* What is new on the serial port and the screen is looked at for crashes. */
static void judge(struct run *run, struct target *t)
{
    if (t->crash_wanted) {
        note_serial(run, t, false);
        t->log_judged = t->log->len;
        return;
    }
    /* From the start of the line that was not complete. */
    size_t from = MAX(t->log_judged, t->log_start);
    while (from > t->log_start && t->log->str[from - 1] != '\n')
        from--;
    if (!t->crash && t->log->len > from)
        t->crash = crash_find(t->log->str + from, run->watch);
    t->log_judged = t->log->len;
    note_serial(run, t, false);
    /* To read a picture takes a while, and not every one has to be. */
    gint64 now = g_get_monotonic_time();
    if (t->crash || t->screen_judged == t->changes || now - t->screen_judged_at < G_USEC_PER_SEC)
        return;
    t->screen_judged = t->changes;
    t->screen_judged_at = now;
    t->crash = crash_find(target_screen(t), run->watch);
}

/* Takes the news of all machines, after waiting for some, or for one of `others` (-1: none) to be
 * readable, at most that long. */
static void take_news_or(struct run *run, const int *others, unsigned number, gint64 timeout_us)
{
    g_autofree struct pollfd *fds =
        g_new(struct pollfd, (gsize)run->targets->len * TARGET_FDS + number + 1);
    unsigned count = 0;
    for (unsigned i = 0; i < number; i++)
        fds[count++] = (struct pollfd){ others[i], POLLIN, 0 };
    for (guint i = 0; i < run->targets->len; i++)
        count += target_fds(g_ptr_array_index(run->targets, i), fds + count);
    if (run->stop >= 0)
        fds[count++] = (struct pollfd){ run->stop, POLLIN, 0 };
    poll(fds, count, (int)CLAMP((timeout_us + 999) / 1000, 0, G_MAXINT));
    run->stopped |= run->stop >= 0 && fds[count - 1].revents;
    for (guint i = 0; i < run->targets->len; i++) {
        struct target *t = g_ptr_array_index(run->targets, i);
        target_pump(t);
        judge(run, t);
    }
}

static void take_news(struct run *run, gint64 timeout_us)
{
    take_news_or(run, NULL, 0, timeout_us);
}

bool run_attend(struct run *run, const int *others, unsigned number, GError **error)
{
    gint64 left = patience_left(&run->whole);
    if (run->stopped)
        return hv_fail(error, HV_FAILED, "the test was ended from outside");
    if (left <= 0)
        return hv_fail(error, HV_TIMED_OUT, "the limit of it all is over");
    take_news_or(run, others, number, left);
    return true;
}

void run_pause(struct run *run, gint64 us)
{
    gint64 end = g_get_monotonic_time() + us, now;
    while (us && !run->stopped && (now = g_get_monotonic_time()) < end)
        take_news(run, end - now);
}

/* A guest that has said and shown nothing for a while may be dead in silence. */
static void look_for_life(struct run *run, struct target *t)
{
    bool stuck;
    if (t->crash || t->crash_wanted || !run->watch)
        return;
    g_autofree char *cpus = target_cpus(t, &stuck);
    if (stuck || t->stands_still)
        t->crash = g_strdup_printf("no progress: %s", stuck ? cpus : t->stands_still);
}

static bool has_crashed(struct run *run, GError **error)
{
    if (run->stopped)
        return !hv_fail(error, HV_FAILED, "the test was ended from outside");
    for (guint i = 0; i < run->targets->len; i++) {
        const struct target *t = g_ptr_array_index(run->targets, i);
        if (t->crash)
            return !hv_fail(error, HV_CRASHED, "%s crashed: %s", t->vm->name, t->crash);
        if (!t->pid && t->control == NULL && !t->expected_end && t->status)
            return !hv_fail(error, HV_CRASHED, "%s ended with status %d: %s", t->vm->name,
                            t->status, t->messages->str);
    }
    return false;
}

/* What the host was busy while it lasted counts neither for the step nor for the whole test. */
static gint64 end_wait(struct run *run, const struct patience *patience)
{
    gint64 busy = patience_busy(patience);
    run->now->busy += busy;
    run->whole.excused += busy;
    return busy;
}

static bool out_of_time(struct run *run, const struct patience *patience, bool whole,
                        GError **error)
{
    double busy = (double)end_wait(run, patience) / G_USEC_PER_SEC;
    if (whole)
        return hv_fail(error, HV_TIMED_OUT, "the limit of it all is over (host busy %.1f s)",
                       (double)run->whole.excused / G_USEC_PER_SEC);
    return hv_fail(error, HV_TIMED_OUT, "not in %.1f s of guest time (host busy %.1f s)",
                   (double)patience->limit / G_USEC_PER_SEC, busy);
}

bool run_wait(struct run *run, struct target *t, wait_test *test, void *data, gint64 within,
              GError **error)
{
    enum { QUIET_US = 5 * G_USEC_PER_SEC, SHORT_US = 2000, SHARE = 3, LONG_US = 300000 };
    gint64 quiet_since = g_get_monotonic_time();
    struct patience patience;
    patience_start(&patience, target_vmm(t), within);
    take_news(run, 0);
    for (;;) {
        g_autofree char *note = NULL;
        gint64 began = g_get_monotonic_time();
        if (test(t, data, &note)) {
            if (note)
                run_note(run, "%s", note);
            end_wait(run, &patience);
            return true;
        }
        /* On a slow host, reading a picture that changes all the time is not to take the guest its
         * processor. */
        gint64 took = g_get_monotonic_time() - began;
        if (took > SHORT_US)
            g_usleep((gulong)MIN(took * SHARE, LONG_US));
        gint64 whole = patience_left(&run->whole) + patience_busy(&patience);
        gint64 left = MIN(patience_left(&patience), whole);
        if (has_crashed(run, error)) {
            end_wait(run, &patience);
            return false;
        }
        if (left <= 0)
            return out_of_time(run, &patience, whole <= 0, error);
        if (!t->pid) { /* it has said its last words */
            end_wait(run, &patience);
            return test(t, data, &note) ||
                   hv_fail(error, HV_WRONG_STATE, "%s does not run", t->vm->name);
        }
        size_t heard = t->log->len;
        unsigned changes = t->changes;
        take_news(run, MIN(left, QUIET_US));
        if (t->log->len != heard || t->changes != changes) {
            quiet_since = g_get_monotonic_time();
        } else if (g_get_monotonic_time() - quiet_since >= QUIET_US) {
            look_for_life(run, t);
            quiet_since = g_get_monotonic_time();
        }
    }
}

/* --- steps ----------------------------------------------------------------------------------- */

struct target *run_target(struct run *run, const struct command *command)
{
    for (guint i = 0; command->machine && i < run->targets->len; i++) {
        struct target *t = g_ptr_array_index(run->targets, i);
        if (!strcmp(t->vm->name, command->machine))
            return t;
    }
    return g_ptr_array_index(run->targets, 0);
}

static struct result *begin(struct run *run, const char *title)
{
    struct result *result = result_new(title);
    result->began = g_get_monotonic_time() - run->began;
    g_ptr_array_add(run->results, result);
    return run->now = result;
}

/* The last lines of a text, as notes. */
static void note_tail(struct run *run, const char *what, const char *text, unsigned count)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    guint all = g_strv_length(lines), shown = 0;
    while (all && !*g_strstrip(lines[all - 1]))
        all--;
    for (guint i = all > count ? all - count : 0; i < all; i++, shown++)
        run_note(run, "%s: %s", what, lines[i]);
}

/* Where a machine's files of this step are: without their endings. To be freed. */
static char *file_base(struct run *run, const struct target *t)
{
    return g_strdup_printf("%s/%s-%u", run->output, t->vm->name, run->results->len);
}

static void keep_picture(struct run *run, struct target *t)
{
    g_autofree char *base = file_base(run, t), *picture = g_strconcat(base, ".png", NULL);
    if (g_mkdir_with_parents(run->output, 0777) == 0 && target_picture(t, picture, NULL))
        run_file(run, MOMENT_PICTURE, picture);
}

static void keep_pictures(struct run *run)
{
    for (guint i = 0; i < run->targets->len; i++) {
        struct target *t = g_ptr_array_index(run->targets, i);
        if (t->pid)
            keep_picture(run, t);
    }
}

/* What there is to be seen of a failure: pictures, logs, last lines. */
static void keep_evidence(struct run *run)
{
    enum { SERIAL_LINES = 5, SCREEN_LINES = 25 };
    for (guint i = 0; i < run->targets->len; i++) {
        struct target *t = g_ptr_array_index(run->targets, i);
        g_autofree char *base = file_base(run, t), *log = g_strconcat(base, ".serial.txt", NULL);
        note_tail(run, "screen", target_screen(t), SCREEN_LINES);
        bool stuck;
        g_autofree char *cpus = target_cpus(t, &stuck);
        if (cpus)
            note_tail(run, "processors", cpus, G_MAXUINT);
        note_tail(run, "serial", t->log->str + t->log_start, SERIAL_LINES);
        note_tail(run, "hv", t->messages->str, SCREEN_LINES);
        if (t->pid)
            keep_picture(run, t);
        if (t->log->len && g_mkdir_with_parents(run->output, 0777) == 0 &&
            g_file_set_contents(log, t->log->str, -1, NULL))
            run_file(run, MOMENT_LOG, log);
    }
}

static void end(struct run *run, enum outcome outcome, const char *message)
{
    struct result *result = run->now;
    result->wall = g_get_monotonic_time() - run->began - result->began;
    result->outcome = MAX(outcome, result->outcome);
    if (message) {
        g_free(result->message);
        result->message = g_strdup(message);
    }
    for (guint i = 0; i < run->targets->len; i++)
        note_serial(run, g_ptr_array_index(run->targets, i), true);
    if (outcome == OUTCOME_FAILED) {
        g_autofree char *line = resume_line(run->output, run->results->len);
        keep_evidence(run);
        run_note(run, "%s", line);
    }
    if (outcome != OUTCOME_FAILED && run->pictures)
        keep_pictures(run);
    if (run->finished)
        run->finished(run, result);
    run->now = NULL;
}

/* Is the command about the whole test? Then it is done. */
static bool set_up(struct run *run, const struct command *command)
{
    unsigned set;
    const struct token *token;
    switch (command->verb->id) {
    case VERB_WATCH:
        run->watch = 0;
        for (unsigned i = 0; (token = command_value(command, "WORD", i)); i++)
            run->watch |= crash_named(token->text, &set) ? set : 0;
        return true;
    case VERB_LIMIT:
        patience_start(&run->whole, 0, command_value(command, "DURATION", 0)->number);
        return true;
    default:
        return false;
    }
}

void run_fail_softly(struct run *run, const struct command *command, const char *message)
{
    run->now->outcome = MAX(run->now->outcome, OUTCOME_SOFT);
    run_note(run, "soft%s%s: %s", command->bug ? " " : "", command->bug ? command->bug : "",
             message);
}

static bool do_block(struct run *run, GPtrArray *block, GError **error);

/* One command with what stands before it and below it. A soft one does not fail the step. */
static bool do_command(struct run *run, const struct command *command, GError **error)
{
    g_autoptr(GError) why = NULL;
    if (run->after && command != run->after)
        return !command->block || do_block(run, command->block, error);
    run->arrived = run->until && command == run->until;
    bool picture = run->silent && command->verb->id == VERB_SCREENSHOT; /* there is one */
    if (run->after || run->arrived || picture || set_up(run, command)) {
        run->after = NULL;
        return true;
    }
    bool ok = true, own = false; /* own: it failed itself, not a command below it */
    run_pause(run, command->after);
    if (command->verb->id == VERB_REPEAT) {
        gint64 times = command_value(command, "COUNT", 0)->number;
        for (gint64 i = 1; ok && i <= times; i++)
            if (!(ok = do_block(run, command->block, &why)))
                g_prefix_error(&why, "the %" G_GINT64_FORMAT ". time: ", i);
    } else {
        ok = verb_do(run, command, &why);
        own = !ok;
        if (ok && command->block)
            ok = do_block(run, command->block, &why);
    }
    if (ok)
        return true;
    if (own)
        g_prefix_error(&why, "%s:%u: %s: ", command->place.file, command->place.line,
                       command->text);
    if (!command->soft) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    run_fail_softly(run, command, why->message);
    return true;
}

static bool do_block(struct run *run, GPtrArray *block, GError **error)
{
    for (guint i = 0; i < block->len && !run->skip && !run->arrived; i++)
        if (!do_command(run, g_ptr_array_index(block, i), error))
            return false;
    return true;
}

bool run_between(struct run *run, const struct command *after, const struct command *until,
                 GError **error)
{
    run->after = after;
    run->until = until;
    bool ok = do_block(run, run->script->commands, error);
    run->after = run->until = NULL;
    run->arrived = false;
    return ok;
}

/* Does a command of the script's own level are a step of their own: with what belongs to it. */
static bool is_step(const struct command *command)
{
    return command->verb->id == VERB_STEP || command->verb->id == VERB_FROM || command->block;
}

/* The command that the test begins with: the last `from`, which does what it needs of those before.
 */
static guint first_of(const GPtrArray *commands)
{
    guint first = commands->len;
    while (first &&
           ((struct command *)g_ptr_array_index(commands, first - 1))->verb->id != VERB_FROM)
        first--;
    return first ? first - 1 : 0;
}

/* What stands between the steps, as a step with the test's own name; when no more is there than
 * conditions that are met, it is none. False: one failed. */
static bool do_between(struct run *run, guint *i, GError **error)
{
    const GPtrArray *all = run->script->commands;
    bool ok = true, done = false;
    begin(run, run->script->title);
    while (ok && !run->skip && *i < all->len && !is_step(g_ptr_array_index(all, *i))) {
        const struct command *command = g_ptr_array_index(all, (*i)++);
        if (set_up(run, command))
            continue;
        ok = do_command(run, command, error);
        done |= command->verb->id != VERB_SKIP || run->skip;
    }
    if (!done) {
        g_ptr_array_set_size(run->results, (int)run->results->len - 1);
        run->now = NULL;
    }
    return ok;
}

static bool do_steps(struct run *run)
{
    bool ok = true;
    const GPtrArray *all = run->script->commands;
    for (guint i = first_of(all); ok && i < all->len;) {
        const struct command *command = g_ptr_array_index(all, i);
        const struct token *title = command_value(command, "STRING", 0);
        g_autoptr(GError) error = NULL;
        if (run->halt && run->results->len + 1 == run->halt) {
            begin(run, title ? title->text : command->text);
            run->silent = true;
            run->halted(run);
            return true;
        }
        if (is_step(command)) {
            begin(run, title ? title->text : command->text);
            ok = do_command(run, command, &error);
            i++;
        } else {
            ok = do_between(run, &i, &error);
        }
        if (!run->now)
            continue;
        /* No crash is passed over because nothing was waited for any more. */
        if (ok && !run->skip && i == all->len) {
            take_news(run, 0);
            ok = !has_crashed(run, &error);
        }
        end(run,
            !ok         ? OUTCOME_FAILED
            : run->skip ? OUTCOME_SKIPPED
                        : OUTCOME_OK,
            error ? error->message : NULL);
        if (run->skip)
            break;
    }
    return ok;
}

void run_end_helpers(struct run *run)
{
    const int patience_ms = 10000;
    for (guint i = 0; i < run->helpers->len; i++)
        kill(-g_array_index(run->helpers, GPid, i), SIGTERM);
    for (guint i = 0; i < run->helpers->len; i++) {
        GPid pid = g_array_index(run->helpers, GPid, i);
        struct pollfd end = { pidfd_open(pid, 0), POLLIN, 0 };
        if (end.fd < 0 || poll(&end, 1, patience_ms) != 1)
            kill(-pid, SIGKILL);
        waitpid(pid, NULL, 0);
        if (end.fd >= 0)
            close(end.fd);
    }
    g_array_set_size(run->helpers, 0);
}

static bool cuts_power(const GPtrArray *block)
{
    bool found = false;
    for (guint i = 0; !found && i < block->len; i++) {
        const struct command *command = g_ptr_array_index(block, i);
        found =
            command->verb->id == VERB_POWER_CUT || (command->block && cuts_power(command->block));
    }
    return found;
}

/* The machines of the script, not yet started. */
static void add_targets(struct run *run, const char *folder, const char *network)
{
    for (guint i = 0; i < run->script->vms->len; i++) {
        const struct vm *vm = g_ptr_array_index(run->script->vms, i);
        g_autofree char *name = g_strdup_printf(RUN_MACHINE, (int)getpid(), vm->name);
        struct target *target = target_new(vm, name, folder, network);
        target->cuts = cuts_power(run->script->commands);
        target->seed = run->seed;
        g_ptr_array_add(run->targets, target);
    }
}

bool run_source(struct run *run, const struct source *source, GHashTable *values,
                const char *output)
{
    const gint64 limit = (gint64)3600 * G_USEC_PER_SEC;
    g_autofree char *folder = g_path_get_dirname(source->path);
    g_autoptr(GError) error = NULL;
    run->results = g_ptr_array_new_with_free_func(result_free);
    run->targets = g_ptr_array_new_with_free_func((GDestroyNotify)target_free);
    run->helpers = g_array_new(false, false, sizeof(GPid));
    run->output = g_strdup(output);
    run->watch = CRASH_LINUX | CRASH_BOOT;
    run->began = g_get_monotonic_time();
    patience_start(&run->whole, 0, limit);
    run->folder = scratch_new(&error);
    run->script = script_parse(source, values, run->folder ? run->folder : "");
    if (!run->folder) {
        begin(run, run->script->title);
        end(run, OUTCOME_FAILED, error->message);
        return false;
    }
    g_autofree char *network =
        run->script->vms->len > 1 ? g_strdup_printf("%s/hv-test-%d", g_get_tmp_dir(), (int)getpid())
                                  : NULL;
    add_targets(run, folder, network);
    bool ok = do_steps(run);
    g_ptr_array_set_size(run->targets, 0);
    run_end_helpers(run);
    if (network)
        g_unlink(network);
    return ok;
}

void run_finish(struct run *run)
{
    g_ptr_array_free(run->results, true);
    g_ptr_array_free(run->targets, true);
    g_array_free(run->helpers, true);
    script_free(run->script);
    scratch_free(run->folder);
    g_free(run->output);
}
