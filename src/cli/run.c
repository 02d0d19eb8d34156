/* hv run: from options to a machine that runs, and its end. Everything the machine needs is opened
 * here and handed to hv-vmm as descriptors (launch.c); here are the options and the waiting. */
#include "base/error.h"
#include "cli/cli.h"
#include "cli/conf.h"
#include "cli/launch.h"
#include "machine/config.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- options -------------------------------------------------------------------------------- */

static void print_help(void)
{
    printf("usage: hv run IMAGE [options]\n"
           "       hv run DIRECTORY [options]\n"
           "       hv run --kernel FILE [options]\n"
           "       Boots a disk image, a block device, a CD image (ISO), a floppy image or a "
           "kernel in a\n"
           "       window, or a disk on a server (nbd://HOST/EXPORT, https://HOST/FILE); or the "
           "machine that DIRECTORY/vm.conf describes: one of these options "
           "on each\n"
           "       line, such as \"memory = 2G\".\n"
           "\n");
    for (const struct setting *s = config_settings; s->name; s++) {
        g_autofree char *left =
            g_strdup_printf("%c%c%s--%s %s", s->letter ? '-' : ' ', s->letter ? s->letter : ' ',
                            s->letter ? ", " : "  ", s->name, s->value ? s->value : "");
        if (strlen(left) > 36)
            printf("  %s\n  %-36s %s\n", left, "", s->help);
        else
            printf("  %-36s %s\n", left, s->help);
    }
    printf("  -n, --dry-run                        print the resolved machine and end\n");
}

static const struct setting *find_setting(const char *word, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    bool is_long = word[1] == '-';
    g_autofree char *name = g_strndup(word + 1 + is_long, strcspn(word + 1 + is_long, "="));
    for (const struct setting *s = config_settings; s->name; s++) {
        if (is_long ? !strcmp(s->name, name) : s->letter && s->letter == word[1])
            return s;
        g_ptr_array_add(names, (void *)(uintptr_t)s->name);
    }
    g_ptr_array_add(names, (void *)(uintptr_t) "dry-run");
    g_ptr_array_add(names, NULL);
    const char *near = hv_nearest(name, (const char *const *)names->pdata);
    hv_fail(error, HV_USAGE, "unknown option %s%s%s%s; see hv run --help", word,
            near ? "; did you mean --" : "", near ? near : "", near ? "?" : "");
    return NULL;
}

/* One word of the command line, and the next when it is the value. */
static bool take_word(struct config *config, char **argv, int *i, GError **error)
{
    char *word = argv[*i];
    if (word[0] != '-' || !word[1]) {
        if (config->image)
            return hv_fail(error, HV_USAGE,
                           "one IMAGE is enough, \"%s\" is too much; --disk adds another", word);
        config->image = g_strdup(word);
        return true;
    }
    const struct setting *s = find_setting(word, error);
    if (!s)
        return false;
    const char *value = NULL;
    bool is_long = word[1] == '-';
    if (is_long && strchr(word, '='))
        value = strchr(word, '=') + 1;
    else if (!is_long && word[2])
        value = word + 2;
    else if (s->kind != SETTING_BOOL) {
        value = argv[*i + 1];
        if (!value)
            return hv_fail(error, HV_USAGE, "%s wants a value: %s", word, s->value);
        ++*i;
    }
    return config_set(config, s, value, error);
}

/* All words. *dry: nothing shall be started; *help: the help was printed. */
static bool take_words(struct config *config, int argc, char **argv, bool *dry, bool *help,
                       GError **error)
{
    for (int i = 0; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            print_help();
            return *help = true;
        }
        if (!strcmp(argv[i], "--dry-run") || !strcmp(argv[i], "-n"))
            *dry = true;
        else if (!take_word(config, argv, &i, error))
            return false;
    }
    return true;
}

/* The settings of a machine's directory, and over them once more the words, which have the last
 * say. NULL with an error. */
static struct config *take_folder(const char *folder, int argc, char **argv, GError **error)
{
    g_autoptr(settings) config = config_new();
    bool dry, help;
    config->folder = g_strdup(folder);
    if (!conf_load(config, folder, error) || !take_words(config, argc, argv, &dry, &help, error))
        return NULL;
    g_clear_pointer(&config->image, g_free);
    return g_steal_pointer(&config);
}

/* --- the machine runs ----------------------------------------------------------------------- */

struct run {
    const struct config *config;
    struct launch *launch;
    pid_t vmm, viewer;
    bool window_gone, unseen; /* the window has ended; there never was one, so the machine ends */
    int window_status;
};

static int end_status(const struct run *run, int status)
{
    if (run->unseen)
        return HV_HOST;
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    fprintf(stderr, "hv: the machine's process was ended by signal %d (%s)\n", WTERMSIG(status),
            strsignal(WTERMSIG(status)));
    return HV_FAILED;
}

/* Reaps children; true when hv run is over, with its status. */
static bool reap(struct run *run, int *result)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == run->vmm) {
            *result = end_status(run, status);
            return true;
        }
        if (pid != run->viewer)
            continue;
        run->viewer = -1;
        run->window_gone = true;
        run->window_status = status;
    }
    return false;
}

/* The window has ended and the machine has not. True when hv run is over: it was closed to let the
 * machine run in the background. */
static bool without_window(struct run *run)
{
    const char *name = run->config->name;
    int status = run->window_status;
    run->window_gone = false;
    if (WIFEXITED(status) && WEXITSTATUS(status) == HV_OK) {
        printf("%s runs on in the background; hv open %s shows it\n", name, name);
        return true;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == HV_HOST) {
        run->unseen = true; /* hv-view said why; the guest has done nothing yet */
        kill(run->vmm, SIGKILL);
    } else {
        fprintf(stderr, "hv: the window is gone; %s runs on: hv open %s shows it again\n", name,
                name);
    }
    return false;
}

/* The terminal's size, to a virtio console. A serial port has no way to tell it. */
static void tell_size(const struct config *config)
{
    struct winsize size;
    struct client *client = NULL;
    if (!strcmp(config->console, "virtio") && !strcmp(config->serial, "stdio") &&
        ioctl(1, TIOCGWINSZ, &size) == 0)
        client = client_open(config->name, NULL);
    if (!client)
        return;
    json_t *terminal = json_pack("{s:i, s:i}", "columns", size.ws_col, "rows", size.ws_row);
    json_decref(client_call(client, "set", json_pack("{s:o}", "terminal", terminal), NULL));
    client_close(client);
}

/* Waits for the machine's end, or until its window was closed to let it run in the background. */
static int wait_for_end(struct run *run, const sigset_t *signals)
{
    /* A machine that is ending closes its window too: it is given that moment. */
    const struct timespec moment = { .tv_nsec = 500 * 1000 * 1000 };
    int result = HV_OK;
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    while (!reap(run, &result)) {
        if (run->window_gone) {
            if (sigtimedwait(&child, NULL, &moment) < 0 && without_window(run))
                break;
            continue;
        }
        int signal = sigwaitinfo(signals, NULL);
        if (signal == SIGWINCH)
            tell_size(run->config);
        if (signal == SIGTERM || signal == SIGINT || signal == SIGHUP)
            kill(run->vmm, SIGTERM); /* the first asks the guest, the second pulls the plug */
    }
    return result;
}

static sigset_t catch_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGWINCH);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return set;
}

static int run_machine(struct config *config, GError **error)
{
    sigset_t signals = catch_signals();
    struct run run = { .config = config, .viewer = -1 };
    run.launch = launch_prepare(config, error);
    if (!run.launch)
        return -1;
    run.vmm = launch_start(run.launch, error);
    if (run.vmm < 0) {
        launch_free(run.launch);
        return -1;
    }
    int status = HV_OK;
    if (!config->headless) {
        int display = display_connect(config->name, error);
        run.viewer = display < 0 ? -1 : viewer_start(display, config->name, error);
        run.unseen = run.viewer < 0;
        if (run.unseen)
            kill(run.vmm, SIGKILL); /* it has done nothing yet */
    }
    tell_size(config);
    status = wait_for_end(&run, &signals);
    launch_free(run.launch);
    return *error ? -1 : status;
}

int verb_run(int argc, char **argv)
{
    if (g_strv_contains((const char *const *)argv, "--"))
        return run_in_guest(argc, argv);
    g_autoptr(settings) config = config_new();
    GError *error = NULL;
    bool dry = false, help = false;
    if (!take_words(config, argc, argv, &dry, &help, &error))
        return cli_fail(error);
    if (help)
        return HV_OK;
    if (config->image && g_file_test(config->image, G_FILE_TEST_IS_DIR)) {
        struct config *whole = take_folder(config->image, argc, argv, &error);
        if (!whole)
            return cli_fail(error);
        config_free(config);
        config = whole;
    }
    if (!launch_resolve(config, &error))
        return cli_fail(error);
    if (dry) {
        json_t *json = config_to_json(config);
        g_autofree char *text = json_dumps(json, JSON_INDENT(2));
        json_decref(json);
        puts(text);
        return HV_OK;
    }
    int status = run_machine(config, &error);
    return error ? cli_fail(error) : status;
}
