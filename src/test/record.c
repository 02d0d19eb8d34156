/* Recording; see record.h. Between the machine and its window stands this process: what goes by on
 * the display socket is handed on as it is, and what the user does is written down. One thread. */
#include "test/record.h"

#include "base/error.h"
#include "base/fds.h"
#include "bus/input.h"
#include "cli/cli.h"
#include "keys/layout.h"
#include "test/recorder.h"
#include "test/run.h"
#include "test/target.h"
#include "test/vm-words.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAUSE_US = 2 * G_USEC_PER_SEC }; /* the user has looked at something */

struct record {
    const char *file;
    struct vm vm;
    struct target *target;
    struct recorder recorder;
    int machine, viewer; /* the two sockets */
    pid_t window;
    int signals;
    uint32_t buttons;
    gint64 last;  /* when there was input */
    char *before; /* the screen's text then */
    bool over, closed;
};

/* --- what goes by ----------------------------------------------------------------------------- */

/* The word under the pointer, when it is on the screen once. */
static const char *word_at(struct record *r, uint32_t x, uint32_t y)
{
    const GArray *words = target_words(r->target);
    const struct word *found = NULL;
    unsigned count = 0;
    for (guint i = 0; words && i < words->len && !found; i++) {
        const struct word *word = &g_array_index(words, struct word, i);
        if (x - word->x < word->width && y - word->y < word->height)
            found = word;
    }
    for (guint i = 0; found && i < words->len; i++)
        count += strstr(g_array_index(words, struct word, i).text, found->text) != NULL;
    return count == 1 ? found->text : NULL;
}

static void note_pointer(struct record *r, const struct display_message *message)
{
    static const struct {
        uint32_t bit;
        const char *word;
    } buttons[] = { { BUTTON_LEFT, "" }, { BUTTON_RIGHT, "right " }, { BUTTON_MIDDLE, "middle " } };
    const struct view *view = &r->target->view;
    uint32_t pressed = message->d & ~r->buttons;
    uint32_t x = (uint32_t)((uint64_t)message->a * view->width / (POINTER_RANGE + 1));
    uint32_t y = (uint32_t)((uint64_t)message->b * view->height / (POINTER_RANGE + 1));
    r->buttons = message->d;
    for (size_t i = 0; i < G_N_ELEMENTS(buttons); i++)
        if (pressed & buttons[i].bit && message->kind == DISPLAY_POINTER_AT)
            recorder_click(&r->recorder, buttons[i].word, x, y, word_at(r, x, y));
        else if (pressed & buttons[i].bit)
            recorder_line(&r->recorder, "# a click of a mouse, which has no place");
    if (message->c)
        recorder_scroll(&r->recorder, (int)message->c);
}

static void note_action(struct record *r, uint32_t action)
{
    static const char *const lines[] = {
        [ACTION_SHUT_DOWN] = "poweroff", [ACTION_POWER_OFF] = "power cut", [ACTION_RESET] = "reset",
        [ACTION_PAUSE] = "pause",        [ACTION_RESUME] = "resume",       [ACTION_EJECT] = "eject",
    };
    r->over |= action == ACTION_SHUT_DOWN || action == ACTION_POWER_OFF;
    if (action < G_N_ELEMENTS(lines) && lines[action])
        recorder_line(&r->recorder, lines[action]);
}

/* What the user had waited for comes before what he then did. */
static void note_pause(struct record *r)
{
    gint64 now = g_get_monotonic_time();
    const char *screen = target_screen(r->target);
    if (now - r->last >= PAUSE_US)
        recorder_saw(&r->recorder, r->before, screen);
    r->last = now;
    g_free(r->before);
    r->before = g_strdup(screen);
}

static void note(struct record *r, const struct display_message *message)
{
    bool motion = message->kind == DISPLAY_POINTER || message->kind == DISPLAY_POINTER_AT;
    if (motion && message->d == r->buttons && !message->c)
        return;
    if (message->kind == DISPLAY_KEY && !message->b) {
        recorder_key(&r->recorder, (uint8_t)message->a, false);
        return;
    }
    note_pause(r);
    if (motion)
        note_pointer(r, message);
    else if (message->kind == DISPLAY_KEY)
        recorder_key(&r->recorder, (uint8_t)message->a, true);
    else if (message->kind == DISPLAY_ACTION)
        note_action(r, message->a);
    else if (message->kind == DISPLAY_PASTE) {
        g_autofree char *text = g_strndup(message->text, MIN(message->a, DISPLAY_TEXT_MAX));
        recorder_text(&r->recorder, text);
    }
}

/* Hands a message on; false when one of the two has ended. */
static bool hand_on(struct record *r, int from, int to)
{
    struct display_message message;
    int frame = -1;
    unsigned count = 0;
    ssize_t n = fds_receive(from, &message, sizeof message, &frame, 1, &count, NULL);
    if (n == (ssize_t)sizeof message && from == r->viewer)
        note(r, &message);
    bool ok = n > 0 && fds_send(to, &message, (size_t)n, &frame, count, NULL);
    fds_close(&frame, count);
    return ok;
}

/* --- the session ------------------------------------------------------------------------------ */

static bool open_window(struct record *r, GError **error)
{
    int pair[2];
    r->machine = display_connect(r->target->name, error);
    if (r->machine < 0)
        return false;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return hv_fail(error, HV_HOST, "no sockets for a window");
    r->viewer = pair[0];
    r->window = viewer_start(pair[1], r->target->name, error);
    return r->window > 0;
}

/* Until the machine is off, the window closed, or a signal comes. */
static void follow(struct record *r)
{
    while (!r->closed && r->target->pid) {
        struct pollfd fds[TARGET_FDS + 3] = { { r->machine, POLLIN, 0 },
                                              { r->viewer, POLLIN, 0 },
                                              { r->signals, POLLIN, 0 } };
        poll(fds, 3 + target_fds(r->target, fds + 3), -1);
        target_pump(r->target);
        if (fds[0].revents && !hand_on(r, r->machine, r->viewer)) {
            close(r->machine); /* the machine ends: hv run follows */
            r->machine = -1;
        }
        r->closed = fds[2].revents ||
                    (fds[1].revents && !hand_on(r, r->viewer, r->machine) && r->machine >= 0);
    }
}

static bool write_script(struct record *r, GError **error)
{
    g_autofree char *name = g_path_get_basename(r->file);
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autofree char *date = g_date_time_format(now, "%Y-%m-%d");
    g_string_printf(text,
                    "# A draft, recorded by hv test --record on %s: see hv-test(5). What is waited "
                    "for is a guess.\ntest \"%s\"\nvm\n",
                    date, name);
    for (guint i = 0; i < r->vm.settings->len; i++) {
        const struct vm_setting *s = g_ptr_array_index(r->vm.settings, i);
        bool file = !strcmp(s->key, "image") && !strstr(s->value, "://");
        g_autofree char *path = file ? g_canonicalize_filename(s->value, NULL) : NULL;
        g_string_append_printf(text, "  %s%s%s\n", s->key, s->value ? " " : "",
                               path       ? path
                               : s->value ? s->value
                                          : "");
    }
    g_string_append_printf(text, "\nboot\n%s", recorder_lines(&r->recorder));
    return g_file_set_contents(r->file, text->str, (gssize)text->len, error);
}

static bool record(struct record *r, GError **error)
{
    bool ok = target_start(r->target, true, error) && open_window(r, error);
    if (!ok)
        return false;
    printf("what you do in the window becomes %s; it ends with the machine or the window\n",
           r->file);
    fflush(stdout);
    follow(r);
    if (!r->over && !r->target->pid)
        recorder_line(&r->recorder, r->target->status == HV_OK ? "off" : "# the guest crashed");
    return write_script(r, error);
}

/* The layout by which the keys are read is the machine's. */
static struct key_map *map_of(const struct vm *vm, GError **error)
{
    const char *layout = NULL;
    for (guint i = 0; i < vm->settings->len; i++) {
        const struct vm_setting *s = g_ptr_array_index(vm->settings, i);
        layout = strcmp(s->key, "layout") ? layout : s->value;
    }
    return layout ? layout_open(layout, error) : key_map_us();
}

static int run_session(struct record *r)
{
    GError *error = NULL;
    g_autofree char *name = g_strdup_printf("test-%d-record", (int)getpid());
    g_autofree char *folder = g_get_current_dir();
    g_autoptr(key_map) map = map_of(&r->vm, &error);
    if (!map)
        return cli_fail(error);
    r->signals = run_signals();
    r->target = target_new(&r->vm, name, folder, NULL);
    r->before = g_strdup("");
    r->last = g_get_monotonic_time();
    recorder_init(&r->recorder, map);
    bool ok = record(r, &error);
    target_free(r->target);
    if (r->machine >= 0)
        close(r->machine);
    if (r->viewer >= 0)
        close(r->viewer);
    if (r->window > 0)
        waitpid(r->window, NULL, 0);
    close(r->signals);
    recorder_finish(&r->recorder);
    g_free(r->before);
    return ok ? HV_OK : cli_fail(error);
}

int record_test(int argc, char **argv)
{
    GError *error = NULL;
    struct record r = {
        .vm = { .settings = vm_words_new() },
        .machine = -1,
        .viewer = -1,
        .file = argc ? argv[0] : NULL,
    };
    bool ok = r.file || hv_fail(&error, HV_USAGE, "--record wants the name of a script");
    for (int i = 1; ok && i < argc; i++)
        ok = vm_words_take(r.vm.settings, argv, &i, argc, &error);
    int status = ok ? run_session(&r) : cli_fail(error);
    g_ptr_array_free(r.vm.settings, true);
    return status;
}
