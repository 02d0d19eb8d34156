/* hv-view: the window of a machine, a program of its own. `hv` starts it with the connected display
 * socket; it holds nothing of the machine but a read-only map of its picture, and may end or be
 * killed at any time without the machine noticing.
 *
 * Exit status: 0 the machine is off, or the window was closed and it goes on; 1 the machine's
 * program ended unexpectedly or does not speak our protocol, or the display went away; 2 usage; 3
 * no such machine; 6 there never was a display; 7 the guest crashed.
 *
 * Two threads: this one, which owns SDL and sleeps in SDL_WaitEvent, and the connection's. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "ui/viewer.h"

/* For on_exit: a function that ends the process when a library does (Xlib calls exit when the
 * display server dies). */
struct guard {
    bool ours; /* the process ends by our own will */
};

static void display_died(int status, void *data)
{
    struct guard *guard = data;
    (void)status;
    if (guard->ours) {
        g_free(guard);
        return;
    }
    log_error("window", "the display went away; the machine goes on without a window "
                        "('hv open' shows it again)");
    _exit(HV_FAILED);
}

/* The window systems that are there, the X server first (it decorates windows everywhere). Left
 * alone, SDL ends with drivers that nobody sees. */
static const char *video_drivers(void)
{
    bool x11 = g_getenv("DISPLAY") != NULL, wayland = g_getenv("WAYLAND_DISPLAY") != NULL;
    return x11 && wayland ? "x11,wayland" : x11 ? "x11" : wayland ? "wayland" : NULL;
}

static bool start_sdl(GError **error)
{
    static const char *const hints[][2] = {
        { SDL_HINT_APP_NAME, "hv" },
        { SDL_HINT_NO_SIGNAL_HANDLERS, "1" },
        { SDL_HINT_QUIT_ON_LAST_WINDOW_CLOSE, "0" },
        { SDL_HINT_VIDEO_ALLOW_SCREENSAVER, "1" },
        { SDL_HINT_VIDEO_X11_NET_WM_BYPASS_COMPOSITOR, "0" },
        { SDL_HINT_VIDEO_MINIMIZE_ON_FOCUS_LOSS, "0" },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(hints); i++)
        SDL_SetHint(hints[i][0], hints[i][1]);
    g_setenv("SDL_VIDEO_X11_WMCLASS", "hv", FALSE);
    g_setenv("SDL_VIDEO_WAYLAND_WMCLASS", "hv", FALSE);
    const char *drivers = video_drivers();
    if (!drivers && !g_getenv("SDL_VIDEODRIVER"))
        return hv_fail(error, HV_HOST,
                       "no display: DISPLAY and WAYLAND_DISPLAY are not set; run the "
                       "machine without a window: --headless");
    if (drivers)
        SDL_SetHint(SDL_HINT_VIDEODRIVER, drivers); /* the variable of that name goes before */
    if (SDL_Init(SDL_INIT_VIDEO) < 0)
        return hv_fail(error, HV_HOST,
                       "no display: %s; run the machine without a window: --headless",
                       SDL_GetError());
    return true;
}

static void run(struct viewer *viewer)
{
    SDL_Event event;
    while (!viewer->leaving) {
        int patience = viewer_patience(viewer);
        int came = patience < 0 ? SDL_WaitEvent(&event) : SDL_WaitEventTimeout(&event, patience);
        for (; came; came = SDL_PollEvent(&event))
            viewer_event(viewer, &event);
        viewer_settle(viewer);
    }
}

static int fail(const char *name, GError *error)
{
    log_error(name, "%s", error->message);
    int status = hv_exit_status(error);
    g_error_free(error);
    return status;
}

struct options {
    int fd;
    char *socket, *name, *host_key;
    gboolean full_screen;
};

static void options_free(struct options *options)
{
    g_free(options->socket);
    g_free(options->name);
    g_free(options->host_key);
}

static bool parse(int *argc, char ***argv, struct options *options, GError **error)
{
    const GOptionEntry entries[] = {
        { "fd", 0, 0, G_OPTION_ARG_INT, &options->fd, "the connected display socket", "N" },
        { "socket", 0, 0, G_OPTION_ARG_FILENAME, &options->socket, "connect to this display socket",
          "PATH" },
        { "name", 0, 0, G_OPTION_ARG_STRING, &options->name, "the machine's name", "NAME" },
        { "host-key", 0, 0, G_OPTION_ARG_STRING, &options->host_key,
          "the key for the window's own commands (right-ctrl)", "KEY" },
        { "full-screen", 0, 0, G_OPTION_ARG_NONE, &options->full_screen, "start in full screen",
          NULL },
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(GOptionContext) context = g_option_context_new("- the window of a machine");
    g_option_context_add_main_entries(context, entries, NULL);
    g_autoptr(GError) wrong = NULL;
    if (!g_option_context_parse(context, argc, argv, &wrong))
        return hv_fail(error, HV_USAGE, "%s; see hv-view --help", wrong->message);
    if (*argc > 1)
        return hv_fail(error, HV_USAGE, "'%s' is no option; see hv-view --help", (*argv)[1]);
    if ((options->fd < 0) == !options->socket)
        return hv_fail(error, HV_USAGE,
                       "give either --fd N or --socket PATH (hv does this: "
                       "'hv run' and 'hv open NAME' start the window)");
    return true;
}

int main(int argc, char **argv)
{
    struct options options = { .fd = -1 };
    GError *error = NULL;
    struct guard *guard = g_new0(struct guard, 1); /* outlives main; display_died frees it */
    struct viewer viewer = { 0 };
    viewer.keyboard.host_key = KEY_RIGHT_CTRL;
    signal(SIGPIPE, SIG_IGN);
    connection_block_signals();
    on_exit(display_died, guard);
    guard->ours = true; /* only SDL's libraries end the process behind our back */

    bool good =
        parse(&argc, &argv, &options, &error) &&
        (!options.host_key || keyboard_host_key(&viewer.keyboard, options.host_key, &error)) &&
        (options.fd >= 0 || (options.fd = connection_open(options.socket, &error)) >= 0);
    if (!good) {
        options_free(&options);
        return fail("window", error);
    }
    viewer.name = g_strdup(options.name ? options.name : "");
    if (start_sdl(&error)) {
        guard->ours = false;
        if (viewer_start(&viewer, options.fd, &error)) {
            if (options.full_screen)
                window_set_full_screen(&viewer.window, true);
            run(&viewer);
        }
        viewer_finish(&viewer);
        SDL_Quit();
    }
    guard->ours = true;
    g_free(viewer.name);
    options_free(&options);
    return error ? fail("window", error) : viewer.status;
}
