/* hv test --kernel K -- COMMAND; see short.h.
 *
 * The guest is a target (target.h) with a root file system made here (guest-root.h). Its kernel's
 * log comes over the first serial port, what the command writes over the second one, by way of a
 * FIFO, in frames (frames.h). One thread; nothing here waits but poll. */
#include "test/short.h"

#include "base/error.h"
#include "guest/init.h"
#include "machine/config.h"
#include "memory/guest.h"
#include "test/crash.h"
#include "test/frames.h"
#include "test/guest-root.h"
#include "test/ktap.h"
#include "test/patience.h"
#include "test/scratch.h"
#include "test/target.h"
#include "test/tokens.h"
#include "test/vm-words.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

/* Beside the command's own, in the manner of timeout(1). git bisect run takes 125 for "cannot be
 * tested", other statuses up to 127 for a bad version, and those above for a reason to stop. */
enum {
    STATUS_CRASHED = 123,
    STATUS_TIMED_OUT = 124,
    STATUS_UNTESTED = 125,
    STATUS_NOT_FOUND = 127,
    STATUS_BISECT_STOPS = 128,
    STATUS_SIGNALLED = 128,
    STATUS_SKIP = 77, /* of the command, as in Automake's tests */
};

enum {
    LIMIT_S = 600,  /* the preset of --limit */
    SILENCE_S = 60, /* in which a kernel has to say something */
    REST_S = 10,    /* for the guest to power off, when its command has ended */
    TRACE_S = 1,    /* for what a kernel says behind the first line of a crash */
    LINES = 25,     /* of its log that are shown */
};

struct short_run {
    struct config *config; /* of what goes to hv run */
    const char *root, *output, *limit, *watch;
    bool bisect, ktap;
    char **words; /* the command; NULL: none */

    struct vm vm;
    char *folder; /* a temporary one: the FIFO and the root file system */
    struct target *target;
    struct frames frames;
    struct ktap results; /* with --ktap */
    int channel, signals;
    unsigned watched; /* enum crash_set */
    size_t judged;    /* of the log */
    char *crash;      /* its first line */
    int stopped;      /* the status when a signal came, or nobody reads the output; 0: neither */
    gint64 busy;      /* microseconds: so long the host was, with other things */
};

/* --- the command line ------------------------------------------------------------------------ */

bool short_wanted(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--kernel") || g_str_has_prefix(argv[i], "--kernel="))
            return true;
    return false;
}

bool short_bisects(char **words)
{
    for (; *words && strcmp(*words, "--"); words++)
        if (!strcmp(*words, "--bisect"))
            return true;
    return false;
}

/* Options of hv run that make sense here. */
static const struct setting *setting_named(const char *name)
{
    static const char *const allowed[] = { "kernel", "initrd", "append", "memory", "cpus",
                                           "cpu",    "disk",   "cdrom",  "floppy", "device",
                                           "net",    "clock",  "hpet",   "trace",  NULL };
    for (const struct setting *s = config_settings; s->name; s++)
        if (!strcmp(s->name, name) && g_strv_contains(allowed, name))
            return s;
    return NULL;
}

static bool unknown(const char *word, const char *name, GError **error)
{
    static const char *const known[] = { "kernel", "initrd", "append", "memory", "cpus",  "cpu",
                                         "disk",   "cdrom",  "floppy", "device", "net",   "clock",
                                         "hpet",   "trace",  "root",   "output", "limit", "watch",
                                         "bisect", "ktap",   NULL };
    const char *near = hv_nearest(name, known);
    return hv_fail(error, HV_USAGE,
                   "%s: with --kernel there is no such option%s%s%s; see man hv-test", word,
                   near ? "; did you mean --" : "", near ? near : "", near ? "?" : "");
}

/* One option, and its value where that is the next word. */
static bool take_option(struct short_run *run, char **argv, int *i, int end, GError **error)
{
    const struct {
        const char *name;
        const char **value;
    } own[] = { { "root", &run->root },
                { "output", &run->output },
                { "limit", &run->limit },
                { "watch", &run->watch } };
    const char *word = argv[*i], *equals = strchr(word, '='), *value = equals ? equals + 1 : NULL;
    bool is_long = g_str_has_prefix(word, "--");
    g_autofree char *name = is_long ? g_strndup(word + 2, strcspn(word + 2, "=")) : NULL;
    const char **to = NULL;
    for (size_t k = 0; is_long && k < G_N_ELEMENTS(own); k++)
        to = !strcmp(own[k].name, name) ? own[k].value : to;
    const struct setting *setting = is_long && !to ? setting_named(name) : NULL;
    if (!is_long)
        return hv_fail(error, HV_USAGE, "\"%s\": with --kernel the command stands behind --", word);
    if (!strcmp(word, "--bisect"))
        return run->bisect = true;
    if (!strcmp(word, "--ktap"))
        return run->ktap = true;
    if (!to && !setting)
        return unknown(word, name, error);
    if (!value && (to || setting->kind != SETTING_BOOL)) {
        value = *i + 1 < end ? argv[++*i] : NULL;
        if (!value)
            return hv_fail(error, HV_USAGE, "%s wants a value", word);
    }
    if (to) {
        *to = value;
        return true;
    }
    if (!config_set(run->config, setting, value, error))
        return false;
    if (strcmp(setting->name, "initrd") && strcmp(setting->name, "append") &&
        strcmp(setting->name, "memory"))
        vm_words_add(run->vm.settings, setting->name, value);
    return true;
}

static bool take_words(struct short_run *run, int argc, char **argv, GError **error)
{
    int end = 0;
    while (end < argc && strcmp(argv[end], "--"))
        end++;
    for (int i = 0; i < end; i++)
        if (!take_option(run, argv, &i, end, error))
            return false;
    run->words = argv + end + (end < argc);
    if (!*run->words || !**run->words)
        return hv_fail(error, HV_USAGE,
                       "what shall run in the guest? -- COMMAND, behind the options, says it");
    return true;
}

static bool check_words(struct short_run *run, gint64 *limit, GError **error)
{
    const uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    struct token duration = { .number = (gint64)LIMIT_S * G_USEC_PER_SEC };
    g_autofree char *text = g_strdup(run->limit);
    duration.text = text;
    if (text && (!token_duration(&duration) || duration.number <= 0))
        return hv_fail(error, HV_USAGE, "--limit %s: a time is wanted, such as 90s, 10m or 2h",
                       text);
    if (run->watch && !crash_named(run->watch, &run->watched))
        return hv_fail(error, HV_USAGE, "--watch %s: linux, warn or none is wanted", run->watch);
    if (run->root && !g_file_test(run->root, G_FILE_TEST_IS_DIR))
        return hv_fail(error, HV_USAGE, "--root %s: a folder is wanted", run->root);
    if (!run->config->memory)
        run->config->memory = CLAMP(host / 4, 64 * MIB, 2 * GIB) / MIB * MIB;
    *limit = duration.number;
    return true;
}

/* --- the machine ----------------------------------------------------------------------------- */

static bool make_root(struct short_run *run, const char *file, GError **error)
{
    const struct guest_root root = {
        .folder = run->root,
        .bare = run->config->initrds->len > 0,
        .words = run->words,
        /* It is in RAM twice while the kernel unpacks it, and gets half of that at most. */
        .limit = run->config->memory / 5 * 2,
    };
    return guest_root_write(&root, file, error);
}

static bool prepare(struct short_run *run, GError **error)
{
    run->folder = scratch_new(error);
    if (!run->folder)
        return false;
    g_autofree char *fifo = g_build_filename(run->folder, "channel", NULL);
    g_autofree char *root = g_build_filename(run->folder, "root.cpio", NULL);
    g_autofree char *here = g_get_current_dir();
    g_autofree char *append = g_strdup_printf(
        "console=ttyS0,115200 earlyprintk=serial,ttyS0,115200 rdinit=%s%s%s", INIT_PROGRAM,
        run->config->append ? " " : "", run->config->append ? run->config->append : "");
    g_autofree char *memory = g_strdup_printf("%" G_GUINT64_FORMAT "M", run->config->memory / MIB);
    if (!make_root(run, root, error))
        return false;
    if (mkfifo(fifo, 0600) < 0 ||
        (run->channel = open(fifo, O_RDONLY | O_NONBLOCK | O_CLOEXEC)) < 0)
        return hv_fail(error, HV_HOST, "%s: %s", fifo, g_strerror(errno));
    for (guint i = 0; i < run->config->initrds->len; i++)
        vm_words_add(run->vm.settings, "initrd", g_ptr_array_index(run->config->initrds, i));
    vm_words_add(run->vm.settings, "initrd", root);
    vm_words_add(run->vm.settings, "memory", memory);
    vm_words_add(run->vm.settings, "append", append);
    vm_words_add(run->vm.settings, "serial2", fifo);
    if (!run->config->net)
        vm_words_add(run->vm.settings, "net", "none");
    g_autofree char *name = g_strdup_printf("test-%d", (int)getpid());
    run->target = target_new(&run->vm, name, here, NULL);
    return target_start(run->target, true, error);
}

static void clean_up(struct short_run *run)
{
    target_free(run->target);
    if (run->channel >= 0)
        close(run->channel);
    scratch_free(run->folder);
}

/* --- while it runs --------------------------------------------------------------------------- */

/* Writes what a reader has room for; false when it is gone. */
static bool pass_on(int fd, GByteArray *bytes, bool ready)
{
    ssize_t n = bytes->len && ready ? write(fd, bytes->data, MIN(bytes->len, PIPE_BUF)) : 0;
    if (n > 0)
        g_byte_array_remove_range(bytes, 0, (guint)n);
    return n >= 0 || errno == EINTR || errno == EAGAIN;
}

static void take_channel(struct short_run *run)
{
    uint8_t piece[1 << 16];
    ssize_t n;
    while ((n = read(run->channel, piece, sizeof piece)) > 0) {
        guint before = run->frames.output->len;
        frames_take(&run->frames, piece, (size_t)n);
        if (run->ktap)
            ktap_take(&run->results, run->frames.output->data + before,
                      run->frames.output->len - before);
    }
}

static void judge(struct short_run *run)
{
    const GString *log = run->target->log;
    size_t from = run->judged;
    while (from && log->str[from - 1] != '\n')
        from--;
    if (!run->crash && log->len > from)
        run->crash = crash_find(log->str + from, run->watched);
    if (!run->crash && run->target->crash && run->watched)
        run->crash = g_strdup(run->target->crash);
    run->judged = log->len;
}

/* Waits at most that long for news, and takes them. False: it is to stop. */
static bool take_news(struct short_run *run, gint64 timeout_us)
{
    struct pollfd fds[TARGET_FDS + 4];
    unsigned n = 0;
    bool left = run->frames.output->len || run->frames.errors->len;
    fds[n++] = (struct pollfd){ run->frames.output->len ? 1 : -1, POLLOUT, 0 };
    fds[n++] = (struct pollfd){ run->frames.errors->len ? 2 : -1, POLLOUT, 0 };
    fds[n++] = (struct pollfd){ run->signals, POLLIN, 0 };
    /* At its end a FIFO is ready for ever. */
    fds[n++] =
        (struct pollfd){ run->target->pid && !run->frames.ended ? run->channel : -1, POLLIN, 0 };
    n += target_fds(run->target, fds + n);
    if (run->target->pid || left)
        poll(fds, n, (int)CLAMP((timeout_us + 999) / 1000, 0, G_MAXINT));
    target_pump(run->target);
    take_channel(run);
    judge(run);
    struct signalfd_siginfo info;
    if (fds[2].revents && read(run->signals, &info, sizeof info) == sizeof info)
        run->stopped = STATUS_SIGNALLED + (int)info.ssi_signo;
    else if (!pass_on(1, run->frames.output, fds[0].revents) ||
             !pass_on(2, run->frames.errors, fds[1].revents))
        run->stopped = STATUS_SIGNALLED + SIGPIPE;
    return !run->stopped;
}

/* What came of it: 0, and the command's status is in the frames, or a status of our own. */
struct verdict {
    int status;
    char *why;
};

static struct verdict verdict_of(int status, char *why)
{
    return (struct verdict){ status, why };
}

/* The guest has ended, or its command. */
static struct verdict at_end(struct short_run *run)
{
    const struct target *t = run->target;
    if (run->crash)
        return verdict_of(STATUS_CRASHED, g_strdup_printf("the guest crashed: %s", run->crash));
    if (run->frames.failure)
        return verdict_of(STATUS_UNTESTED, g_strdup(run->frames.failure));
    if (run->frames.begun > 1)
        return verdict_of(STATUS_CRASHED,
                          g_strdup("the guest started again before the command had ended"));
    if (run->frames.ended)
        return verdict_of(0, NULL);
    if (t->status == HV_CRASHED)
        return verdict_of(STATUS_CRASHED,
                          g_strdup_printf("the guest crashed: %s", g_strstrip(t->messages->str)));
    if (t->status)
        return verdict_of(STATUS_UNTESTED, g_strdup_printf("hv run ended with status %d: %s",
                                                           t->status, t->messages->str));
    const char *no = strstr(t->log->str, "hv-init: ");
    if (no)
        return verdict_of(STATUS_UNTESTED, g_strdup_printf("the guest's init could not go on: %.*s",
                                                           (int)strcspn(no, "\n"), no));
    return verdict_of(STATUS_CRASHED, g_strdup("the guest ended before the command had"));
}

static struct verdict follow(struct short_run *run, gint64 limit)
{
    struct patience whole, silence, rest;
    pid_t vmm = target_vmm(run->target);
    bool resting = false;
    patience_start(&whole, vmm, limit);
    patience_start(&silence, vmm, (gint64)SILENCE_S * G_USEC_PER_SEC);
    for (;;) {
        struct frames *f = &run->frames;
        gint64 left = patience_left(&whole);
        run->busy = MAX(run->busy, patience_busy(&whole));
        bool silent = !run->target->log->len && !f->begun;
        bool over = f->ended || f->failure || run->crash || f->begun > 1;
        if (!run->target->pid)
            break;
        if (over && !resting) {
            resting = true;
            patience_start(&rest, vmm, (gint64)(run->crash ? TRACE_S : REST_S) * G_USEC_PER_SEC);
        }
        if (resting)
            left = patience_left(&rest);
        else if (silent)
            left = MIN(left, patience_left(&silence));
        if (left <= 0 && silent && !resting && patience_left(&whole) > 0)
            return verdict_of(STATUS_UNTESTED,
                              g_strdup("the kernel says nothing: it does not start, or has no "
                                       "driver for a serial console (CONFIG_SERIAL_8250_CONSOLE)"));
        if (left <= 0 && !resting)
            return verdict_of(STATUS_TIMED_OUT,
                              g_strdup_printf("%s after %" G_GINT64_FORMAT
                                              " s of guest time: --limit gives it more",
                                              f->begun ? "the command still runs"
                                                       : "the guest has not started its init",
                                              limit / G_USEC_PER_SEC));
        if (left <= 0)
            break;
        if (!take_news(run, left))
            return verdict_of(run->stopped, NULL);
    }
    target_kill(run->target);
    take_news(run, 0);
    return at_end(run);
}

/* The rest of the output, however slow its reader is. */
static void pass_rest(struct short_run *run)
{
    while ((run->frames.output->len || run->frames.errors->len) && take_news(run, G_USEC_PER_SEC))
        ;
}

/* --- what comes of it ------------------------------------------------------------------------ */

static void show_log(struct short_run *run, bool tail)
{
    g_autofree char *file = g_build_filename(run->output, "kernel.log", NULL);
    const GString *log = run->target ? run->target->log : NULL;
    if (!log || !log->len)
        return;
    const char *from = log->str + log->len - 1;
    for (unsigned lines = 0; from > log->str && (from[-1] != '\n' || ++lines < LINES);)
        from--;
    if (tail)
        fprintf(stderr, "%s%s", from, g_str_has_suffix(from, "\n") ? "" : "\n");
    if (g_mkdir_with_parents(run->output, 0777) == 0 &&
        g_file_set_contents(file, log->str, (gssize)log->len, NULL))
        fprintf(stderr, "hv: the kernel's log: %s\n", file);
}

static int bisect_status(int status)
{
    return status == STATUS_SKIP || status == STATUS_NOT_FOUND ? STATUS_UNTESTED
           : status >= STATUS_SIGNALLED                        ? 1
                                                               : status;
}

/* What the output says of a command that has succeeded. */
static void judge_results(struct short_run *run, struct verdict *verdict)
{
    char *wrong = ktap_finish(&run->results);
    if (!verdict->status && !run->frames.status && wrong) {
        *verdict = verdict_of(HV_FAILED, wrong);
        return;
    }
    g_free(wrong);
}

static int run_short(struct short_run *run, gint64 limit)
{
    g_autoptr(GError) error = NULL;
    struct verdict verdict;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    run->signals = signalfd(-1, &set, SFD_CLOEXEC);
    if (prepare(run, &error)) {
        verdict = follow(run, limit);
        target_kill(run->target);
        if (!run->stopped)
            pass_rest(run);
    } else {
        verdict = verdict_of(STATUS_UNTESTED, g_strdup(error->message));
    }
    if (run->ktap)
        judge_results(run, &verdict);
    int status = verdict.status;
    if (!status)
        status = run->bisect ? bisect_status(run->frames.status) : run->frames.status;
    if (status && !run->stopped)
        show_log(run, verdict.status >= STATUS_CRASHED);
    if (verdict.why)
        fprintf(stderr, "hv: %s\n", verdict.why);
    g_free(verdict.why);
    return status;
}

static bool read_words(struct short_run *run, int argc, char **argv, gint64 *limit, GError **error)
{
    return take_words(run, argc, argv, error) && check_words(run, limit, error);
}

bool short_check(int argc, char **argv, guint64 *memory, GError **error)
{
    g_autoptr(settings) config = config_new();
    g_autoptr(GPtrArray) options = vm_words_new();
    struct short_run run = { .config = config, .vm = { .settings = options } };
    gint64 limit = 0;
    bool ok = read_words(&run, argc, argv, &limit, error);
    *memory = config->memory;
    return ok;
}

int short_test_busy(int argc, char **argv, gint64 *busy)
{
    g_autoptr(settings) config = config_new();
    g_autoptr(GPtrArray) options = vm_words_new();
    struct short_run run = {
        .config = config,
        .output = "hv-test",
        .watched = CRASH_LINUX,
        .vm = { .name = (char *)"guest", .settings = options },
        .channel = -1,
    };
    g_autoptr(GError) error = NULL;
    gint64 limit = 0;
    if (!read_words(&run, argc, argv, &limit, &error)) {
        fprintf(stderr, "hv test: %s\n", error->message);
        return run.bisect ? STATUS_BISECT_STOPS : HV_USAGE;
    }
    frames_start(&run.frames);
    if (run.ktap)
        ktap_start(&run.results);
    int status = run_short(&run, limit);
    if (busy)
        *busy = run.busy;
    clean_up(&run);
    frames_finish(&run.frames);
    g_free(run.crash);
    return status;
}

int short_test(int argc, char **argv)
{
    return short_test_busy(argc, argv, NULL);
}
