/* Messages with file descriptors; see fds.h, unix(7) and cmsg(3). */
#include "base/fds.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"

/* Room for the descriptors' header, aligned as cmsg(3) wants it. */
union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
};

static ssize_t send_once(int socket, const void *data, size_t length, const int *fds,
                         unsigned count)
{
    union control control = { 0 };
    struct iovec part = { (void *)data, length };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    if (count) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof *fds);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof *fds);
        memcpy(CMSG_DATA(header), fds, count * sizeof *fds);
    }
    ssize_t sent;
    do
        sent = sendmsg(socket, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent;
}

bool fds_send(int socket, const void *data, size_t length, const int *fds, unsigned count,
              GError **error)
{
    if (!length || count > FDS_MAX)
        return hv_fail(error, HV_FAILED, "cannot send a message of %zu bytes and %u descriptors",
                       length, count);
    const char *rest = data;
    while (length) {
        ssize_t sent = send_once(socket, rest, length, fds, count);
        if (sent < 0)
            return hv_fail(error, HV_FAILED, "cannot send to the other program: %s",
                           g_strerror(errno));
        rest += sent;
        length -= (size_t)sent;
        count = 0; /* they went with the first byte */
    }
    return true;
}

/* Takes the descriptors of a received message into fds; those without room are closed. Returns how
 * many came. */
static unsigned take_fds(struct msghdr *message, int *fds, unsigned room, unsigned *count)
{
    unsigned came = 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header;
         header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        size_t here = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < here; i++, came++) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
            if (*count < room)
                fds[(*count)++] = fd;
            else
                close(fd);
        }
    }
    return came;
}

ssize_t fds_receive(int socket, void *data, size_t size, int *fds, unsigned room, unsigned *count,
                    GError **error)
{
    union control control = { 0 };
    struct iovec part = { data, size };
    struct msghdr message = { .msg_iov = &part,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen = sizeof control.bytes };
    ssize_t got;
    *count = 0;
    do
        got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0) {
        hv_fail(error, HV_FAILED, "cannot receive from the other program: %s", g_strerror(errno));
        return -1;
    }
    unsigned came = take_fds(&message, fds, room, count);
    if (came > room || message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
        fds_close(fds, *count);
        *count = 0;
        hv_fail(error, HV_FAILED,
                "the other program sent a longer message or more descriptors than "
                "expected: are both from the same version of hv?");
        return -1;
    }
    return got;
}

int fds_accept(int listener)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        bool lacking = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
        return lacking ? FDS_NONE_LEFT : FDS_NOBODY;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == getuid())
        return fd;
    close(fd);
    return FDS_NOBODY;
}

void fds_close(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
}
