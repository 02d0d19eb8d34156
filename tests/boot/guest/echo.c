/* echo PORT: a TCP server that sends back what it gets, up to 64 connections at a time, by IPv4 and
 * IPv6. No process and no thread for a connection: a guest on an emulated host serves thousands. */
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 64 };

/* False: the connection is over. */
static int echo(int fd)
{
    char bytes[4096];
    ssize_t n = read(fd, bytes, sizeof bytes);
    return n > 0 && write(fd, bytes, (size_t)n) == n;
}

int main(int argc, char **argv)
{
    struct sockaddr_in6 address = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT };
    struct pollfd polls[MOST + 1] = { { .fd = socket(AF_INET6, SOCK_STREAM, 0),
                                        .events = POLLIN } };
    int count = 1, on = 1;
    address.sin6_port = htons((unsigned short)atoi(argc == 2 ? argv[1] : "0"));
    setsockopt(polls[0].fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(polls[0].fd, (struct sockaddr *)&address, sizeof address) || listen(polls[0].fd, 64)) {
        perror("echo");
        return 1;
    }
    for (;;) {
        polls[0].events = count <= MOST ? POLLIN : 0;
        if (poll(polls, (nfds_t)count, -1) < 0)
            return 1;
        for (int i = count - 1; i > 0; i--)
            if (polls[i].revents && !echo(polls[i].fd)) {
                close(polls[i].fd);
                polls[i] = polls[--count];
            }
        int fd = polls[0].revents ? accept(polls[0].fd, NULL, NULL) : -1;
        if (fd >= 0)
            polls[count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
    }
}
