/* vsock listen|connect PORT: standard input and output as one end of a stream over the virtio
 * socket of a Linux guest; connect is to the host. Ends when both directions have. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static void die(const char *what)
{
    fprintf(stderr, "vsock: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* False: there is no more. */
static int copy(int from, int to)
{
    static char bytes[65536];
    ssize_t n = read(from, bytes, sizeof bytes);
    for (ssize_t done = 0, m; done < n; done += m)
        if ((m = write(to, bytes + done, (size_t)(n - done))) <= 0)
            die("write");
    if (n < 0)
        die("read");
    return n > 0;
}

int main(int argc, char **argv)
{
    struct sockaddr_vm address = { .svm_family = AF_VSOCK };
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0), in = 0, out = 1;
    if (argc != 3 || fd < 0)
        die("socket");
    int listens = !strcmp(argv[1], "listen");
    address.svm_port = (unsigned)strtoul(argv[2], NULL, 10);
    address.svm_cid = listens ? VMADDR_CID_ANY : VMADDR_CID_HOST;
    if (!listens && connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("connect");
    if (listens) {
        int listener = fd;
        if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
            listen(listener, 8) < 0 || (fd = accept(listener, NULL, NULL)) < 0)
            die("listen");
    }
    while (in >= 0 || out >= 0) {
        struct pollfd wishes[2] = { { in, POLLIN, 0 }, { out >= 0 ? fd : -1, POLLIN, 0 } };
        poll(wishes, 2, -1);
        if (wishes[0].revents && !copy(0, fd)) {
            shutdown(fd, SHUT_WR);
            in = -1;
        }
        if (wishes[1].revents && !copy(fd, 1))
            out = -1;
    }
    return 0;
}
