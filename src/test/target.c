/* A machine under test; see target.h. */
#include "test/target.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOG_MAX = 64 << 20, START_MS = 20000 };

/* --- the serial port's text ------------------------------------------------------------------ */

enum { PLAIN, ESCAPE, SEQUENCE, TITLE };

/* ECMA-48 section 5.4: ESC [ ... up to a byte from @ on; ESC ] ... up to BEL, as xterm has it. */
static void take_serial(struct target *t, const char *bytes, ssize_t count)
{
    for (ssize_t i = 0; i < count; i++) {
        char c = bytes[i];
        switch (t->escape) {
        case PLAIN:
            if (c == '\033')
                t->escape = ESCAPE;
            else if (c != '\r' && c != '\0' && t->log->len < LOG_MAX)
                g_string_append_c(t->log, c);
            break;
        case ESCAPE:
            t->escape = c == '[' ? SEQUENCE : c == ']' ? TITLE : PLAIN;
            break;
        case SEQUENCE:
            if (c >= '@' && c <= '~')
                t->escape = PLAIN;
            break;
        case TITLE:
            if (c == '\a' || c == '\033')
                t->escape = PLAIN;
            break;
        }
    }
}

/* Reads what a pipe has; closes it at its end. */
static void drain(struct target *t, int *fd, GString *messages)
{
    char chunk[4096];
    ssize_t n = -1;
    while (*fd >= 0 && (n = read(*fd, chunk, sizeof chunk)) > 0)
        if (messages)
            g_string_append_len(messages, chunk, n);
        else
            take_serial(t, chunk, n);
    if (*fd >= 0 && n == 0) {
        close(*fd);
        *fd = -1;
    }
}

/* --- start and end --------------------------------------------------------------------------- */

struct target *target_new(const struct vm *vm, const char *name, const char *folder,
                          const char *network)
{
    struct target *t = g_new0(struct target, 1);
    t->vm = vm;
    t->name = g_strdup(name);
    t->folder = g_strdup(folder);
    t->network = g_strdup(network);
    t->log = g_string_new(NULL);
    t->messages = g_string_new(NULL);
    t->screen = g_strdup("");
    t->input = t->output = t->errors = t->view.fd = -1;
    g_queue_init(&t->happened);
    return t;
}

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void disconnect(struct target *t)
{
    target_ask_no_port(t);
    client_close(t->control);
    client_close(t->events);
    if (t->view.fd >= 0)
        view_close(&t->view);
    t->control = t->events = NULL;
    t->view = (struct view){ .fd = -1 };
    close_end(&t->input);
}

/* What hv said of the crash: the words of its event, which it may not have lived to send. */
static char *crash_words(const struct target *t)
{
    const char *prefix = "hv: error: ", *line = strstr(t->messages->str, prefix);
    line = line ? line + strlen(prefix) : "the guest crashed";
    return g_strndup(line, strcspn(line, "\n"));
}

/* Has hv ended? Then nothing of it is left. */
static bool reap(struct target *t, bool wait)
{
    int status;
    pid_t pid = t->pid ? waitpid(t->pid, &status, wait ? 0 : WNOHANG) : 0;
    if (pid != t->pid || !pid)
        return !t->pid;
    t->status = WIFEXITED(status) ? WEXITSTATUS(status) : HV_FAILED;
    t->pid = 0;
    drain(t, &t->output, NULL);
    drain(t, &t->errors, t->messages);
    if (t->status == HV_CRASHED && !t->crash && !t->crash_wanted)
        t->crash = crash_words(t);
    close_end(&t->output);
    close_end(&t->errors);
    disconnect(t);
    return true;
}

void target_kill(struct target *t)
{
    t->expected_end = true;
    if (!t->pid)
        return;
    if (t->control)
        target_call(t, "stop", json_pack("{s:s}", "how", "kill"), NULL);
    else
        kill(t->pid, SIGKILL);
    reap(t, true);
}

void target_free(struct target *t)
{
    if (!t)
        return;
    target_kill(t);
    g_queue_clear_full(&t->happened, g_free);
    g_string_free(t->log, true);
    g_string_free(t->messages, true);
    g_free(t->name);
    g_free(t->folder);
    g_free(t->network);
    g_free(t->screen);
    g_free(t->stands_still);
    g_free(t->crash);
    g_free(t->said);
    g_free(t);
}

static bool is_set(const struct vm *vm, const char *key)
{
    for (guint i = 0; i < vm->settings->len; i++)
        if (!strcmp(((struct vm_setting *)g_ptr_array_index(vm->settings, i))->key, key))
            return true;
    return false;
}

static GPtrArray *command_line(struct target *t, bool throwaway)
{
    GPtrArray *argv = g_ptr_array_new_with_free_func(g_free);
    const char *image = NULL;
    g_ptr_array_add(argv, g_file_read_link("/proc/self/exe", NULL));
    g_ptr_array_add(argv, g_strdup("run"));
    g_ptr_array_add(argv, g_strdup("--headless"));
    g_ptr_array_add(argv, g_strdup_printf("--name=%s", t->name));
    g_ptr_array_add(argv, g_strdup("--serial=stdio"));
    if (throwaway)
        g_ptr_array_add(argv, g_strdup("--throwaway"));
    else if (t->cuts && !is_set(t->vm, "volatile")) /* from 1 on */
        g_ptr_array_add(argv, g_strdup_printf("--volatile=%u", MAX(t->seed, 1)));
    if (t->network && !is_set(t->vm, "net"))
        g_ptr_array_add(argv, g_strdup_printf("--net=socket=%s", t->network));
    for (guint i = 0; i < t->vm->settings->len; i++) {
        const struct vm_setting *s = g_ptr_array_index(t->vm->settings, i);
        if (!strcmp(s->key, "image"))
            image = s->value;
        else
            g_ptr_array_add(argv, s->value ? g_strdup_printf("--%s=%s", s->key, s->value)
                                           : g_strdup_printf("--%s", s->key));
    }
    if (image)
        g_ptr_array_add(argv, g_strdup(image));
    g_ptr_array_add(argv, NULL);
    return argv;
}

char *target_file(const struct target *t, const char *name)
{
    return *name == '/' ? g_strdup(name) : g_build_filename(t->folder, name, NULL);
}

/* FILE[,OPTION...] must have the sum that the script says. */
static bool check_sum(const struct target *t, const struct vm_setting *setting, GError **error)
{
    enum { PIECE = 1 << 16 };
    g_autofree char *file = g_strndup(setting->value, strcspn(setting->value, ","));
    g_autofree char *path = target_file(t, file);
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    g_autofree guchar *piece = g_malloc(PIECE);
    ssize_t n = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && (n = read(fd, piece, PIECE)) > 0)
        g_checksum_update(sum, piece, n);
    if (fd < 0 || n < 0)
        hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno));
    else if (strcmp(g_checksum_get_string(sum), setting->sha256))
        hv_fail(error, HV_FAILED, "%s: its sum is %s, not the one that the script has", path,
                g_checksum_get_string(sum));
    else
        n = 1;
    if (fd >= 0)
        close(fd);
    return n == 1;
}

static bool check_sums(const struct target *t, GError **error)
{
    for (guint i = 0; i < t->vm->settings->len; i++) {
        const struct vm_setting *setting = g_ptr_array_index(t->vm->settings, i);
        if (setting->sha256 && !check_sum(t, setting, error))
            return false;
    }
    return true;
}

/* There is no machine, when hv has ended, or ends now: the guest was faster than we, or why. */
static bool explain_end(struct target *t, GError **error)
{
    enum { ENDS_US = 2000000, STEP_US = 5000 };
    for (unsigned i = 0; !reap(t, false) && i < ENDS_US / STEP_US; i++)
        g_usleep(STEP_US);
    if (t->pid)
        return false;
    g_clear_error(error);
    return !t->status || hv_fail(error, t->status, "%s: %s",
                                 t->status == HV_CRASHED ? "the guest crashed" : "hv run ended",
                                 g_strstrip(t->messages->str));
}

/* Waits for the machine's sockets: they come a few milliseconds after hv's start. */
static bool connect_to(struct target *t, GError **error)
{
    enum { STEP_US = 5000 };
    for (unsigned i = 0; i < START_MS * 1000 / STEP_US; i++) {
        g_autoptr(GError) why = NULL;
        if (reap(t, false))
            return explain_end(t, error);
        drain(t, &t->output, NULL);
        drain(t, &t->errors, t->messages);
        if ((t->control = client_open(t->name, &why)))
            break;
        g_usleep(STEP_US);
    }
    if (!t->control)
        return hv_fail(error, HV_TIMED_OUT, "the machine does not answer: %s", t->messages->str);
    t->events = client_open(t->name, error);
    json_t *state = t->events ? client_call(t->events, "events", NULL, error) : NULL;
    json_decref(state);
    return state && view_open(&t->view, t->name, error);
}

void target_set_up_child(void *unused)
{
    sigset_t none;
    (void)unused;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
}

bool target_start(struct target *t, bool throwaway, GError **error)
{
    g_autoptr(GPtrArray) argv = command_line(t, throwaway);
    g_autoptr(GError) why = NULL;
    if (t->pid)
        return hv_fail(error, HV_WRONG_STATE, "the machine runs already");
    if (!check_sums(t, error))
        return false;
    t->log_start = t->log_seen = t->log->len;
    t->escape = PLAIN;
    t->expected_end = t->crash_wanted = false;
    g_string_truncate(t->messages, 0);
    g_queue_clear_full(&t->happened, g_free);
    g_clear_pointer(&t->stands_still, g_free);
    if (!g_spawn_async_with_pipes(t->folder, (char **)argv->pdata, NULL, G_SPAWN_DO_NOT_REAP_CHILD,
                                  target_set_up_child, NULL, &t->pid, &t->input, &t->output,
                                  &t->errors, &why))
        return hv_fail(error, HV_HOST, "hv run cannot be started: %s", why->message);
    fcntl(t->input, F_SETFL, O_NONBLOCK);
    fcntl(t->output, F_SETFL, O_NONBLOCK);
    fcntl(t->errors, F_SETFL, O_NONBLOCK);
    t->seed++;
    t->screen_old = true;
    t->changed_at = g_get_monotonic_time();
    return connect_to(t, error) || explain_end(t, error);
}

/* --- news ------------------------------------------------------------------------------------ */

unsigned target_fds(const struct target *t, struct pollfd *fds)
{
    const int all[TARGET_FDS] = { t->output, t->errors, t->view.fd,
                                  t->events ? client_fd(t->events) : -1,
                                  t->asks ? client_fd(t->asks) : -1 };
    unsigned count = 0;
    for (unsigned i = 0; i < TARGET_FDS; i++)
        if (all[i] >= 0)
            fds[count++] = (struct pollfd){ all[i], POLLIN, 0 };
    return count;
}

/* What nobody waits for is forgotten in the end: guests can make more of it than a test wants. */
static void happened(struct target *t, const char *name)
{
    enum { MOST = 256 };
    g_queue_push_tail(&t->happened, g_strdup(name));
    if (t->happened.length > MOST)
        g_free(g_queue_pop_head(&t->happened));
}

static void take_event(struct target *t, const json_t *event)
{
    const char *name = json_string_value(json_object_get(event, "method"));
    const json_t *params = json_object_get(event, "params");
    const char *state = json_string_value(json_object_get(params, "state"));
    const char *why = json_string_value(json_object_get(params, "why"));
    if (!name)
        return;
    happened(t, name);
    if (state) {
        happened(t, state);
        g_free(t->stands_still);
        t->stands_still = strcmp(state, "disk-full") ? NULL : g_strdup(why ? why : state);
    }
    if (!t->crash && !t->crash_wanted &&
        (!strcmp(name, "panic") || (state && !strcmp(state, "crashed"))))
        t->crash = g_strdup(why && *why ? why : "the guest crashed");
}

static void take_answers(struct target *t)
{
    bool ended = false;
    json_t *event;
    while (t->asks && (event = client_event(t->asks, 0, &ended))) {
        const json_t *params = json_object_get(event, "params");
        t->open_port = (unsigned)json_integer_value(json_object_get(params, "port"));
        json_decref(event);
    }
    if (ended)
        target_ask_no_port(t);
}

void target_pump(struct target *t)
{
    bool ended = false;
    json_t *event;
    enum view_news news;
    drain(t, &t->output, NULL);
    drain(t, &t->errors, t->messages);
    while (t->events && (event = client_event(t->events, 0, &ended))) {
        take_event(t, event);
        json_decref(event);
    }
    take_answers(t);
    while (t->view.fd >= 0 && (news = view_take(&t->view)) == VIEW_CHANGED) {
        t->screen_old = true;
        t->changed_at = g_get_monotonic_time();
        t->changes++;
    }
    if (t->view.fd >= 0 && news == VIEW_ENDED)
        view_close(&t->view);
    if (ended) {
        client_close(t->events);
        t->events = NULL;
    }
    reap(t, ended);
}

/* The characters of a text screen, from the machine; NULL when it shows graphics. */
static char *read_cells(struct target *t)
{
    json_t *result = client_call(t->control, "screen.text", NULL, NULL), *line;
    GString *text = g_string_new(NULL);
    size_t i;
    bool graphics = !result || json_is_true(json_object_get(result, "graphics"));
    t->columns = graphics ? 0 : (unsigned)json_integer_value(json_object_get(result, "columns"));
    json_array_foreach(json_object_get(result, "lines"), i, line)
        g_string_append_printf(text, "%s\n", json_string_value(line));
    json_decref(result);
    return g_string_free(text, graphics);
}

const char *target_screen(struct target *t)
{
    if (!t->screen_old || !t->control)
        return t->screen;
    t->screen_old = false;
    char *cells = read_cells(t);
    if (!cells && t->view.width)
        view_read(&t->view);
    g_free(t->screen);
    t->screen = cells ? cells : g_strdup(t->view.reading ? reading_text(t->view.reading) : "");
    t->screen_source = cells ? "cells"
                             : reading_source_name(t->view.reading ? reading_source(t->view.reading)
                                                                   : READING_NONE);
    return t->screen;
}

bool target_guess(struct target *t)
{
    gint64 still = g_get_monotonic_time() - t->changed_at;
    if (t->guessed == t->changes || still < VIEW_STILL_MS * 1000)
        return false;
    target_screen(t); /* what can be read is no guess */
    t->guessed = t->changes;
    if (t->columns || !t->view.width || !t->view.reading ||
        !reading_guess(t->view.reading, t->view.frame, t->view.width, t->view.height, NULL) ||
        !strcmp(t->screen, reading_text(t->view.reading)))
        return false;
    g_free(t->screen);
    t->screen = g_strdup(reading_text(t->view.reading));
    t->screen_source = reading_source_name(READING_OCR);
    return true;
}

/* The cells that the text was made of; its lines may be shorter than the screen's. */
static void set_cells(struct target *t)
{
    g_auto(GStrv) lines = g_strsplit(t->screen, "\n", -1);
    guint rows = g_strv_length(lines);
    rows -= rows > 0; /* behind the last line end */
    g_autofree gunichar *codes = g_new0(gunichar, (gsize)rows * t->columns + 1);
    for (guint row = 0; row < rows; row++) {
        const char *at = lines[row];
        for (unsigned i = 0; i < t->columns; i++) {
            codes[row * t->columns + i] = *at ? g_utf8_get_char(at) : ' ';
            at += *at ? g_utf8_next_char(at) - at : 0;
        }
    }
    reading_set_cells(t->view.reading, codes, t->columns, rows, t->view.width, t->view.height);
}

const GArray *target_words(struct target *t)
{
    target_screen(t);
    if (!t->view.reading)
        return NULL;
    if (t->columns)
        set_cells(t);
    return reading_words(t->view.reading);
}

/* --- what is done to it ---------------------------------------------------------------------- */

bool target_call(struct target *t, const char *method, json_t *params, GError **error)
{
    if (!t->control) {
        json_decref(params);
        return hv_fail(error, HV_WRONG_STATE, "the machine does not run: boot starts it");
    }
    json_t *result = client_call(t->control, method, params, error);
    json_decref(result);
    return result;
}

bool target_ask_port(struct target *t, unsigned port, GError **error)
{
    if (!t->control)
        return hv_fail(error, HV_WRONG_STATE, "the machine does not run: boot starts it");
    target_ask_no_port(t);
    t->open_port = 0;
    t->asks = client_open_network(t->name, error);
    json_t *result =
        t->asks ? client_call(t->asks, "probe", json_pack("{s:i}", "port", (int)port), error)
                : NULL;
    json_decref(result);
    if (!result)
        target_ask_no_port(t);
    return result;
}

void target_ask_no_port(struct target *t)
{
    client_close(t->asks);
    t->asks = NULL;
}

pid_t target_vmm(struct target *t)
{
    json_t *info = t->control ? client_call(t->control, "info", NULL, NULL) : NULL;
    pid_t pid = (pid_t)json_integer_value(json_object_get(info, "pid"));
    json_decref(info);
    return pid;
}

char *target_cpus(struct target *t, bool *stuck)
{
    json_t *result = t->control ? client_call(t->control, "cpus", NULL, NULL) : NULL, *cpu;
    GString *lines = g_string_new(NULL);
    size_t i;
    *stuck = false;
    bool moves = false;
    json_array_foreach(json_object_get(result, "cpus"), i, cpu)
    {
        const char *state = json_string_value(json_object_get(cpu, "state"));
        const char *address = json_string_value(json_object_get(cpu, "address"));
        if (!state || !address || !strcmp(state, "waiting"))
            continue;
        bool dead = !strcmp(state, "stuck");
        *stuck |= dead;
        moves |= !dead;
        g_string_append_printf(lines, "%sCPU %zu: %s at %s, %d bits, ring %d",
                               lines->len ? "\n" : "", i,
                               dead ? "halted with interrupts off" : state, address,
                               (int)json_integer_value(json_object_get(cpu, "bits")),
                               (int)json_integer_value(json_object_get(cpu, "ring")));
    }
    *stuck = *stuck && !moves;
    json_decref(result);
    return g_string_free(lines, !lines->len);
}

bool target_write(struct target *t, const char *text, GError **error)
{
    size_t left = strlen(text);
    while (left) {
        ssize_t n = t->input < 0 ? -1 : write(t->input, text, left);
        if (n < 0 && (t->input < 0 || (errno != EAGAIN && errno != EINTR)))
            return hv_fail(error, HV_WRONG_STATE, "the serial port takes nothing");
        text += MAX(n, 0);
        left -= (size_t)MAX(n, 0);
        struct pollfd wait = { t->input, POLLOUT, 0 };
        if (left && poll(&wait, 1, START_MS) <= 0)
            return hv_fail(error, HV_TIMED_OUT, "the serial port takes nothing");
        target_pump(t);
    }
    return true;
}

bool target_picture(struct target *t, const char *path, GError **error)
{
    if (t->view.fd < 0)
        return hv_fail(error, HV_WRONG_STATE, "the machine does not run");
    return view_png(&t->view, path, error);
}
