/* The far end of the cable against src/net: offloads and room of a NIC from the first bytes, the
 * rest is one packet. Whatever it says, packets come out that fit, and an end. */
#include "net/net.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fds[2];
    unsigned packets = 0;
    if (size < 3 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fds) < 0)
        return 0;
    struct net *net = net_new(fds[0], false, "fuzz");
    net_set_offloads(net, data[0]);
    size_t room = data[1] | (size_t)data[2] << 8, length;
    g_autofree uint8_t *buffer = g_malloc(room); /* of that size: a byte more is seen */
    size_t head = MIN(room, 5);
    struct iovec iov[2] = { { buffer, head }, { buffer + head, room - head } };
    if (send(fds[1], data + 3, size - 3, 0) >= 0)
        while ((length = net_receive(net, iov, 2))) {
            g_assert(length <= room && ++packets <= 1501);
            g_assert(net_send(net, iov, 2) || packets > 1);
        }
    g_assert(!net_pending(net));
    net_free(net);
    close(fds[1]);
    return 0;
}
