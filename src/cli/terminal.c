/* The terminal as a serial console; see terminal.h. A thread copies stdin into a pipe. */
#include "cli/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

enum { WAY_OUT = 0x1d /* Ctrl-] */ };

struct terminal {
    struct termios before;
    bool raw;
    int in, out; /* the pipe */
};

/* Ends with the process. */
static void *copy(void *data)
{
    struct terminal *terminal = data;
    char bytes[256];
    ssize_t n;
    while ((n = read(0, bytes, sizeof bytes)) > 0 || (n < 0 && errno == EINTR)) {
        const char *out = n > 0 ? memchr(bytes, WAY_OUT, (size_t)n) : NULL;
        if (terminal->raw && out) {
            kill(getpid(), SIGTERM);
            n = out - bytes;
        }
        for (ssize_t done = 0, w; done < n; done += w)
            if ((w = write(terminal->out, bytes + done, (size_t)(n - done))) <= 0)
                return NULL;
    }
    close(terminal->out);
    return NULL;
}

struct terminal *terminal_open(const char *what)
{
    struct terminal *terminal = g_new0(struct terminal, 1);
    int ends[2];
    if (isatty(0) && tcgetattr(0, &terminal->before) == 0) {
        terminal->raw = true;
        terminal_make_raw(0, true);
        fprintf(stderr, "hv: this terminal is the machine's %s; Ctrl-] shuts it down\r\n", what);
    }
    if (!terminal->raw) { /* a pipe or a file needs no watching */
        terminal->in = fcntl(0, F_DUPFD_CLOEXEC, 3);
        return terminal;
    }
    if (pipe2(ends, O_CLOEXEC) == 0) {
        terminal->in = ends[0];
        terminal->out = ends[1];
        g_thread_unref(g_thread_new("terminal", copy, terminal));
    }
    return terminal;
}

int terminal_input(struct terminal *terminal)
{
    return terminal->in;
}

void terminal_close(struct terminal *terminal)
{
    if (terminal && terminal->raw)
        tcsetattr(0, TCSADRAIN, &terminal->before);
}

void terminal_make_raw(int fd, bool messages)
{
    struct termios mode;
    if (tcgetattr(fd, &mode) == 0) {
        cfmakeraw(&mode);
        if (messages)
            mode.c_oflag |= OPOST;
        tcsetattr(fd, TCSANOW, &mode);
    }
}
