/* calls ADDRESS PORT COUNT PARALLEL: so many connections to that port, behind which somebody
 * echoes, some of them at the same time. Each sends a line of its own, ends its direction, and must
 * get the line back and then the end. Stops at the first that fails. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 64, LINE = 64, PATIENCE_MS = 60000 };

struct call {
    unsigned number;
    bool sent;
    size_t came;
    char line[LINE];
};

static struct pollfd polls[MOST];
static struct call calls[MOST];

static void fail(const struct call *call, const char *what)
{
    fprintf(stderr, "call %u: %s (%s)\n", call->number, what, strerror(errno));
    exit(1);
}

static void start(unsigned slot, unsigned number, const struct sockaddr_in *to)
{
    struct call *call = &calls[slot];
    *call = (struct call){ .number = number };
    snprintf(call->line, sizeof call->line, "this is call number %u\n", number);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 ||
        (connect(fd, (const struct sockaddr *)to, sizeof *to) < 0 && errno != EINPROGRESS))
        fail(call, "no connection");
    polls[slot] = (struct pollfd){ .fd = fd, .events = POLLOUT };
}

/* True when the call is over, and right. */
static bool go_on(struct pollfd *p, struct call *call)
{
    char bytes[LINE];
    size_t length = strlen(call->line);
    if (!call->sent) {
        if (write(p->fd, call->line, length) != (ssize_t)length || shutdown(p->fd, SHUT_WR) < 0)
            fail(call, "it cannot be sent");
        call->sent = true;
        p->events = POLLIN;
        return false;
    }
    ssize_t n = read(p->fd, bytes, sizeof bytes);
    if (n < 0)
        fail(call, "no answer");
    if (call->came + (size_t)n > length || memcmp(bytes, call->line + call->came, (size_t)n) != 0)
        fail(call, "another answer");
    call->came += (size_t)n;
    if (n == 0 && call->came < length)
        fail(call, "it was cut off");
    return n == 0;
}

int main(int argc, char **argv)
{
    struct sockaddr_in to = { .sin_family = AF_INET };
    unsigned count = argc == 5 ? (unsigned)atoi(argv[3]) : 0, begun = 0, done = 0;
    unsigned parallel = argc == 5 ? (unsigned)atoi(argv[4]) : 0;
    if (!count || !parallel || parallel > MOST || parallel > count ||
        inet_pton(AF_INET, argv[1], &to.sin_addr) != 1)
        return 2;
    to.sin_port = htons((unsigned short)atoi(argv[2]));
    while (begun < parallel) {
        start(begun, begun, &to);
        begun++;
    }
    while (done < count) {
        if (poll(polls, parallel, PATIENCE_MS) <= 0) {
            fprintf(stderr, "%u of %u calls are done, and no more are answered\n", done, count);
            return 1;
        }
        for (unsigned i = 0; i < parallel; i++) {
            if (!polls[i].revents || !go_on(&polls[i], &calls[i]))
                continue;
            close(polls[i].fd);
            polls[i].fd = -1;
            done++;
            if (begun < count)
                start(i, begun++, &to);
        }
    }
    return 0;
}
