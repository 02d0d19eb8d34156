/* Messages with descriptors over UNIX sockets: whole, bounded, nothing leaks. */
#include "base/fds.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void make_pair(int type, int ends[2])
{
    g_assert_cmpint(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends), ==, 0);
}

static unsigned open_fds(void)
{
    g_autoptr(GDir) dir = g_dir_open("/proc/self/fd", 0, NULL);
    unsigned count = 0;
    while (g_dir_read_name(dir))
        count++;
    return count;
}

static void send_and_receive(void)
{
    int ends[2], fds[4];
    unsigned count = 99;
    char text[16] = "";
    make_pair(SOCK_SEQPACKET, ends);
    int file = memfd_create("test", MFD_CLOEXEC);
    g_assert_cmpint(write(file, "frame", 5), ==, 5);

    g_assert_true(fds_send(ends[0], "hello", 6, &file, 1, NULL));
    g_assert_cmpint(fds_receive(ends[1], text, sizeof text, fds, 4, &count, NULL), ==, 6);
    g_assert_cmpstr(text, ==, "hello");
    g_assert_cmpuint(count, ==, 1);
    g_assert_cmpint(fds[0], !=, file);
    g_assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
    g_assert_cmpint(pread(fds[0], text, 5, 0), ==, 5);
    g_assert_cmpmem(text, 5, "frame", 5);
    fds_close(fds, count);

    g_assert_true(fds_send(ends[0], "bare", 5, NULL, 0, NULL));
    g_assert_cmpint(fds_receive(ends[1], text, sizeof text, NULL, 0, &count, NULL), ==, 5);
    g_assert_cmpuint(count, ==, 0);

    close(ends[0]);
    g_assert_cmpint(fds_receive(ends[1], text, sizeof text, fds, 4, &count, NULL), ==, 0);
    close(ends[1]);
    close(file);
}

static void too_much(void)
{
    int ends[2], fds[FDS_MAX], many[200];
    unsigned count;
    char text[4];
    make_pair(SOCK_SEQPACKET, ends);
    unsigned before = open_fds();

    /* a longer message, more descriptors than room, more than fit the control buffer */
    for (unsigned i = 0; i < G_N_ELEMENTS(many); i++)
        many[i] = ends[0];
    g_assert_true(fds_send(ends[0], "longer", 6, many, 2, NULL));
    g_autoptr(GError) error = NULL;
    g_assert_cmpint(fds_receive(ends[1], text, sizeof text, fds, 4, &count, &error), ==, -1);
    g_assert_nonnull(strstr(error->message, "longer message"));
    g_assert_cmpuint(count, ==, 0);
    g_assert_cmpuint(open_fds(), ==, before);

    g_assert_true(fds_send(ends[0], "x", 1, many, 3, NULL));
    g_assert_cmpint(fds_receive(ends[1], text, sizeof text, fds, 2, &count, NULL), ==, -1);
    g_assert_cmpuint(open_fds(), ==, before);

    g_assert_false(fds_send(ends[0], "x", 1, many, FDS_MAX + 1, NULL));
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof many)];
    } control = { 0 };
    struct iovec part = { text, 1 };
    struct msghdr message = { .msg_iov = &part,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen = sizeof control.bytes };
    control.align.cmsg_level = SOL_SOCKET;
    control.align.cmsg_type = SCM_RIGHTS;
    control.align.cmsg_len = CMSG_LEN(sizeof many);
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), many, sizeof many);
    g_assert_cmpint(sendmsg(ends[0], &message, 0), ==, 1);
    g_assert_cmpint(fds_receive(ends[1], text, sizeof text, fds, FDS_MAX, &count, NULL), ==, -1);
    g_assert_cmpuint(open_fds(), ==, before);
    close(ends[0]);
    close(ends[1]);
}

static void peer_gone(void)
{
    int ends[2];
    make_pair(SOCK_SEQPACKET, ends);
    close(ends[1]);
    g_autoptr(GError) error = NULL;
    g_assert_false(fds_send(ends[0], "x", 1, NULL, 0, &error)); /* and no SIGPIPE */
    g_assert_nonnull(error);
    close(ends[0]);
}

static gpointer read_all(gpointer data)
{
    int socket = GPOINTER_TO_INT(data), fds[2];
    unsigned count, total_fds = 0;
    char part[5000];
    size_t total = 0;
    ssize_t got;
    while ((got = fds_receive(socket, part, sizeof part, fds, 2, &count, NULL)) > 0) {
        total += (size_t)got;
        total_fds += count;
        fds_close(fds, count);
    }
    g_assert_cmpint(got, ==, 0);
    g_assert_cmpuint(total_fds, ==, 1);
    return GSIZE_TO_POINTER(total);
}

/* A long text over a stream arrives whole, its descriptor once. */
static void stream(void)
{
    enum { LENGTH = 1 << 20 };
    int ends[2];
    g_autofree char *text = g_malloc0(LENGTH);
    make_pair(SOCK_STREAM, ends);
    GThread *reader = g_thread_new("reader", read_all, GINT_TO_POINTER(ends[1]));
    g_assert_true(fds_send(ends[0], text, LENGTH, &ends[0], 1, NULL));
    close(ends[0]);
    g_assert_cmpuint(GPOINTER_TO_SIZE(g_thread_join(reader)), ==, LENGTH);
    close(ends[1]);
}

/* A connection that does not block and is not inherited; nobody when who knocked went again. */
static void accepts(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    g_autofree char *folder = g_dir_make_tmp("hv-test-XXXXXX", NULL);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", folder);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(listener, (struct sockaddr *)&address, sizeof address), ==, 0);
    g_assert_cmpint(listen(listener, 4), ==, 0);
    g_assert_cmpint(fds_accept(listener), ==, FDS_NOBODY);
    g_assert_cmpint(connect(peer, (struct sockaddr *)&address, sizeof address), ==, 0);

    enum { DESCRIPTORS = 64 };
    int taken[DESCRIPTORS], count = 0;
    struct rlimit limit, none;
    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    none = limit;
    none.rlim_cur = DESCRIPTORS;
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &none), ==, 0);
    while (count < DESCRIPTORS && (taken[count] = dup(listener)) >= 0)
        count++;
    g_assert_cmpint(fds_accept(listener), ==, FDS_NONE_LEFT);
    fds_close(taken, (unsigned)count);
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);

    int fd = fds_accept(listener); /* it has waited */
    g_assert_cmpint(fd, >=, 0);
    g_assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    g_assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    g_assert_cmpint(fds_accept(listener), ==, FDS_NOBODY);
    close(fd);
    close(peer);
    close(listener);
    unlink(address.sun_path);
    rmdir(folder);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/fds/send-and-receive", send_and_receive);
    g_test_add_func("/fds/too-much", too_much);
    g_test_add_func("/fds/peer-gone", peer_gone);
    g_test_add_func("/fds/stream", stream);
    g_test_add_func("/fds/accepts", accepts);
    return g_test_run();
}
