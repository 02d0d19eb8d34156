/* The host's end of the connection that tests/guests/net.c makes: listens on a port of 127.0.0.1
 * that it prints, and serves one connection after the other, until it is killed.
 *
 *   peer send      sends as long as somebody listens
 *   peer receive   reads up to the end and hangs up; resets the connection when other bytes came
 *
 * The bytes are those of 32-bit numbers that count up and begin anew with each MiB. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MIB = 1 << 20 };
static uint32_t numbers[MIB / 4];

static void send_all(int fd)
{
    for (size_t at = 0;;) {
        ssize_t n = write(fd, (uint8_t *)numbers + at, MIB - at);
        if (n <= 0)
            return;
        at = (at + (size_t)n) % MIB;
    }
}

static void receive_all(int fd)
{
    static uint8_t bytes[MIB];
    const struct linger reset = { 1, 0 };
    ssize_t n;
    for (size_t at = 0; (n = read(fd, bytes, MIB - at)) > 0; at = (at + (size_t)n) % MIB)
        if (memcmp(bytes, (uint8_t *)numbers + at, (size_t)n)) {
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            return;
        }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t size = sizeof address;
    const char *what = argc == 2 ? argv[1] : "";
    if (strcmp(what, "send") && strcmp(what, "receive")) {
        fputs("usage: peer send|receive\n", stderr);
        return 1;
    }
    for (uint32_t i = 0; i < MIB / 4; i++)
        numbers[i] = i;
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) < 0 ||
        listen(listener, 16) < 0 || getsockname(listener, (struct sockaddr *)&address, &size) < 0) {
        perror("peer");
        return 1;
    }
    printf("%u\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            continue;
        if (*what == 's')
            send_all(fd);
        else
            receive_all(fd);
        close(fd);
    }
}
