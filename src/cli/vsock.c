/* hv vsock: standard input and output as one end of a stream to a program in the guest. The other
 * side of the machine's socket is src/devices/vsock-host.c. */
#include "base/error.h"
#include "base/fds.h"
#include "cli/cli.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 65536 };

/* One direction. */
struct flow {
    int from, to;
    bool ended; /* nothing more comes, or nobody takes it */
    size_t first, count;
    char bytes[CHUNK];
};

/* Moves what can be moved. False: `from` has ended, or `to` takes no more. */
static bool flow_read(struct flow *flow)
{
    ssize_t n = read(flow->from, flow->bytes, sizeof flow->bytes);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    flow->first = 0;
    flow->count = n > 0 ? (size_t)n : 0;
    return n > 0;
}

static bool flow_write(struct flow *flow)
{
    ssize_t n = write(flow->to, flow->bytes + flow->first, flow->count);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    if (n < 0)
        return false;
    flow->first += (size_t)n;
    flow->count -= (size_t)n;
    return true;
}

/* What poll is to look for: a flow waits for bytes, or for room for those it has. */
static struct pollfd flow_wish(const struct flow *flow)
{
    if (flow->ended)
        return (struct pollfd){ .fd = -1 };
    return flow->count ? (struct pollfd){ .fd = flow->to, .events = POLLOUT }
                       : (struct pollfd){ .fd = flow->from, .events = POLLIN };
}

static bool flow_move(struct flow *flow)
{
    return flow->count ? flow_write(flow) : flow_read(flow);
}

/* Until both sides have said all, or the guest's program is gone. False: the output is gone.
 * *input_ended is kept from one connection to the next. */
static bool pump(int stream, bool *input_ended)
{
    g_autofree struct flow *in = g_new0(struct flow, 1), *out = g_new0(struct flow, 1);
    in->from = STDIN_FILENO;
    out->to = STDOUT_FILENO;
    in->to = out->from = stream;
    in->ended = *input_ended;
    if (in->ended)
        shutdown(stream, SHUT_WR);
    while (!in->ended || !out->ended) {
        struct pollfd wishes[2] = { flow_wish(in), flow_wish(out) };
        if (out->ended) /* what is left to see is that it hangs up */
            wishes[1] = (struct pollfd){ .fd = stream };
        if (poll(wishes, 2, -1) < 0 && errno != EINTR)
            return false;
        if (wishes[0].revents && !flow_move(in)) {
            *input_ended |= !in->count;
            in->ended = true;
            shutdown(stream, SHUT_WR);
        }
        if (out->ended && wishes[1].revents)
            break;
        if (!out->ended && wishes[1].revents && !flow_move(out)) {
            if (out->count)
                return false;
            out->ended = true;
        }
    }
    return true;
}

/* The machine's answer to a request, up to its newline and nothing behind it; false: it hung up. */
static bool read_line(int fd, char *line, size_t size)
{
    for (size_t at = 0; at + 1 < size;) {
        ssize_t n = read(fd, line + at, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        if (line[at++] == '\n') {
            line[at - 1] = 0;
            return true;
        }
    }
    return false;
}

static bool ask(int fd, const char *what, unsigned port)
{
    char line[64];
    g_autofree char *request = g_strdup_printf("%s %u\n", what, port);
    return fds_send(fd, request, strlen(request), NULL, 0, NULL) &&
           read_line(fd, line, sizeof line) && g_str_has_prefix(line, "OK");
}

static int serve_listener(int fd, bool keep)
{
    bool input_ended = false;
    do {
        GError *error = NULL;
        char line[64];
        int stream = -1;
        unsigned count = 0;
        ssize_t n = fds_receive(fd, line, sizeof line, &stream, 1, &count, &error);
        if (n < 0)
            return cli_fail(error);
        if (n == 0 || !count) {
            fprintf(stderr, "hv: the machine ended\n");
            return HV_WRONG_STATE;
        }
        bool fine = pump(stream, &input_ended);
        close(stream);
        if (!fine)
            return HV_FAILED;
    } while (keep);
    return HV_OK;
}

int verb_vsock(int argc, char **argv)
{
    bool listen = false, keep = false;
    const struct flag flags[] = { { "listen", &listen, NULL },
                                  { "keep", &keep, NULL },
                                  { .name = NULL } };
    int left = cli_flags("vsock", argc, argv, flags);
    guint64 port;
    if (left < 0)
        return left == -2 ? HV_OK : HV_USAGE;
    if (left < 1 || left > 2)
        return cli_usage("vsock", "a PORT is wanted, and before it the machine's NAME");
    if (!g_ascii_string_to_unsigned(argv[left - 1], 10, 0, UINT32_MAX - 1, &port, NULL))
        return cli_usage("vsock", "PORT %s: a number up to 4294967294 is wanted", argv[left - 1]);
    if (keep && !listen)
        return cli_usage("vsock", "--keep goes with --listen");
    GError *error = NULL;
    int fd = vsock_connect(left == 2 ? argv[0] : NULL, &error);
    if (fd < 0)
        return cli_fail(error);
    bool input_ended = false;
    int status = HV_OK;
    if (!ask(fd, listen ? "LISTEN" : "CONNECT", (unsigned)port)) {
        fprintf(stderr,
                listen ? "hv: somebody listens on port %u already\n"
                       : "hv: no program of the guest listens on port %u\n",
                (unsigned)port);
        status = HV_FAILED;
    } else if (listen) {
        status = serve_listener(fd, keep);
    } else {
        status = pump(fd, &input_ended) ? HV_OK : HV_FAILED;
    }
    close(fd);
    return status;
}
