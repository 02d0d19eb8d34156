/* hv-init: the first program in a guest of `hv test --kernel`. It makes the usual file systems,
 * runs the command as init.h says, tells what it writes and its status over the second serial port,
 * and powers off. It is linked statically and stands alone in the guest: nothing of it runs on the
 * host. One thread. */
#include "guest/init.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum { NOT_FOUND = 127, NOT_RUN = 126, SIGNALLED = 128, PIPE_MAX = 65536 };

/* Where the channel cannot be used, the kernel's log has to tell. */
static void log_line(const char *what)
{
    int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        fd = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0)
        dprintf(fd, "hv-init: %s: %s\n", what, strerror(errno));
}

static void off(void)
{
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}

static void write_all(int fd, const void *data, size_t length)
{
    const char *bytes = data;
    while (length) {
        ssize_t n = write(fd, bytes, length);
        if (n < 0 && errno != EINTR) {
            log_line(INIT_CHANNEL);
            off();
        }
        bytes += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
}

static void tell(int channel, enum init_frame type, const void *data, size_t length)
{
    unsigned char frame[FRAME_HEAD + FRAME_DATA_MAX] = { (unsigned char)type, length & 0xff,
                                                         (unsigned char)(length >> 8) };
    memcpy(frame + FRAME_HEAD, data, length);
    write_all(channel, frame, FRAME_HEAD + length);
}

/* --- the guest's file systems ---------------------------------------------------------------- */

/* What a kernel without devtmpfs does not make. */
static void make_nodes(void)
{
    static const struct {
        const char *path;
        unsigned major, minor;
    } nodes[] = {
        { "/dev/null", 1, 3 },   { "/dev/zero", 1, 5 },    { "/dev/full", 1, 7 },
        { "/dev/random", 1, 8 }, { "/dev/urandom", 1, 9 }, { "/dev/kmsg", 1, 11 },
        { "/dev/tty", 5, 0 },    { "/dev/console", 5, 1 }, { "/dev/ttyS0", 4, 64 },
        { INIT_CHANNEL, 4, 65 },
    };
    for (size_t i = 0; i < sizeof nodes / sizeof nodes[0]; i++)
        mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor));
}

/* A kernel may be without some of them: the command sees what is missing. */
static void mount_all(void)
{
    static const struct {
        const char *type, *path, *options;
    } systems[] = {
        { "proc", "/proc", NULL },
        { "sysfs", "/sys", NULL },
        { "debugfs", "/sys/kernel/debug", NULL },
        { "tracefs", "/sys/kernel/tracing", NULL },
        { "devtmpfs", "/dev", "mode=0755" },
        { "devpts", "/dev/pts", "mode=0620,ptmxmode=0666" },
        { "tmpfs", "/dev/shm", "mode=1777" },
    };
    umask(0);
    /* They may hold what the command needs, and the root is in RAM anyway. */
    mkdir("/run", 0755);
    if (mkdir("/tmp", 01777) < 0)
        chmod("/tmp", 01777);
    for (size_t i = 0; i < sizeof systems / sizeof systems[0]; i++) {
        mkdir(systems[i].path, 0755);
        mount(systems[i].type, systems[i].path, systems[i].type, 0, systems[i].options);
    }
    umask(022);
    make_nodes();
    static const char *const links[][2] = { { "/proc/self/fd", "/dev/fd" },
                                            { "/proc/self/fd/0", "/dev/stdin" },
                                            { "/proc/self/fd/1", "/dev/stdout" },
                                            { "/proc/self/fd/2", "/dev/stderr" } };
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++)
        if (symlink(links[i][0], links[i][1]) < 0)
            continue; /* it is there */
}

static int open_channel(void)
{
    struct termios mode;
    int fd = open(INIT_CHANNEL, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || tcgetattr(fd, &mode) < 0) {
        log_line(INIT_CHANNEL " (the kernel needs a driver for the PC's serial ports, "
                              "CONFIG_SERIAL_8250, built in)");
        off();
    }
    cfmakeraw(&mode);
    mode.c_cflag |= CLOCAL;
    cfsetspeed(&mode, B115200);
    tcsetattr(fd, TCSANOW, &mode);
    return fd;
}

/* --- the command ----------------------------------------------------------------------------- */

struct order {
    char text[INIT_ORDER_MAX];
    char *words[INIT_WORDS_MAX + 4]; /* of the command, from words[2] on; room for sh -c before */
    char *how, *folder;
};

static bool read_order(struct order *order)
{
    int fd = open(INIT_ORDER, O_RDONLY | O_CLOEXEC);
    size_t length = 0, count = 0;
    ssize_t n = 0;
    while (fd >= 0 && length < INIT_ORDER_MAX &&
           (n = read(fd, order->text + length, INIT_ORDER_MAX - length)) > 0)
        length += (size_t)n;
    if (fd < 0 || n < 0 || !length || order->text[length - 1])
        return false;
    close(fd);
    for (char *at = order->text; at < order->text + length; at += strlen(at) + 1) {
        if (count == 0)
            order->how = at;
        else if (count == 1)
            order->folder = at;
        else if (count - 2 < INIT_WORDS_MAX)
            order->words[count] = at;
        count++;
    }
    return count > 2;
}

/* In the child. */
static void run(struct order *order, int output, int errors)
{
    char shell[] = "/bin/sh", flag[] = "-c";
    char **argv = order->words + 2;
    int none = open("/dev/null", O_RDONLY);
    setsid();
    dup2(none, 0);
    dup2(output, 1);
    dup2(errors, 2);
    if (none > 2)
        close(none);
    clearenv();
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
    setenv("HOME", access("/root", X_OK) == 0 ? "/root" : "/", 1);
    setenv("USER", "root", 1);
    setenv("TERM", "dumb", 1);
    if (chdir(order->folder) < 0 && chdir("/") < 0)
        fprintf(stderr, "%s: %s\n", order->folder, strerror(errno));
    if (!strcmp(order->how, INIT_SHELL) && access(shell, X_OK) == 0) {
        argv = order->words;
        argv[0] = shell;
        argv[1] = flag;
    }
    signal(SIGPIPE, SIG_DFL);
    execvp(argv[0], argv);
    int why = errno;
    fprintf(stderr, "hv: %s: %s\n", argv[0], strerror(why));
    fflush(stderr);
    _exit(why == ENOENT ? NOT_FOUND : NOT_RUN);
}

/* What a pipe has, told; false at its end, or when it has nothing now. */
static bool pass_on(int channel, int pipe, enum init_frame type, uint64_t *bytes)
{
    char data[FRAME_DATA_MAX];
    ssize_t n = read(pipe, data, sizeof data);
    if (n <= 0)
        return n < 0 && errno == EINTR;
    tell(channel, type, data, (size_t)n);
    *bytes += (uint64_t)n;
    return true;
}

/* Reaps all that ends here; true when the command has. */
static bool has_ended(pid_t command, int *status)
{
    bool ended = false;
    pid_t pid;
    int one;
    while ((pid = waitpid(-1, &one, WNOHANG)) > 0)
        if (pid == command) {
            ended = true;
            *status = WIFEXITED(one) ? WEXITSTATUS(one) : SIGNALLED + WTERMSIG(one);
        }
    return ended;
}

static void on_child(int number)
{
    (void)number; /* it only ends ppoll */
}

/* Until the command has ended and what it wrote is told; what it left running may go on writing and
 * is not waited for. */
static int follow(int channel, pid_t command, const int *pipes, uint64_t *bytes)
{
    static const enum init_frame types[] = { FRAME_OUTPUT, FRAME_ERRORS };
    struct pollfd fds[2] = { { pipes[0], POLLIN, 0 }, { pipes[1], POLLIN, 0 } };
    sigset_t open_mask;
    int status = 0;
    bool ended;
    sigemptyset(&open_mask);
    do {
        ended = has_ended(command, &status);
        if (!ended)
            ppoll(fds, 2, NULL, &open_mask);
        for (int i = 0; i < 2; i++) {
            if (ended)
                for (uint64_t last = *bytes + PIPE_MAX;
                     *bytes < last && pass_on(channel, pipes[i], types[i], bytes);)
                    ;
            else if (fds[i].revents & (POLLIN | POLLHUP) &&
                     !pass_on(channel, pipes[i], types[i], bytes) && fds[i].revents & POLLHUP)
                fds[i].fd = -1;
        }
    } while (!ended);
    return status;
}

int main(void)
{
    struct order order = { .how = NULL };
    mount_all();
    int channel = open_channel(), output[2], errors[2];
    tell(channel, FRAME_BEGIN, "", 0);
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    signal(SIGCHLD, on_child);
    pid_t pid = -1;
    if (read_order(&order) && pipe2(output, O_CLOEXEC) == 0 && pipe2(errors, O_CLOEXEC) == 0)
        pid = fork();
    if (pid == 0) {
        sigprocmask(SIG_UNBLOCK, &child, NULL);
        run(&order, output[1], errors[1]);
    }
    if (pid < 0) {
        const char *why = strerror(errno);
        tell(channel, FRAME_FAILED, why, strlen(why));
    } else {
        uint64_t bytes = 0;
        unsigned char end[FRAME_STATUS_SIZE];
        close(output[1]);
        close(errors[1]);
        fcntl(output[0], F_SETFL, O_NONBLOCK);
        fcntl(errors[0], F_SETFL, O_NONBLOCK);
        end[0] = (unsigned char)follow(channel, pid, (const int[]){ output[0], errors[0] }, &bytes);
        for (unsigned i = 0; i < 8; i++)
            end[1 + i] = (unsigned char)(bytes >> 8 * i);
        sync();
        tell(channel, FRAME_STATUS, end, sizeof end);
    }
    tcdrain(channel);
    off();
}
