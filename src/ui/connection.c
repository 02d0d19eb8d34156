/* The viewer's end of the display socket; see connection.h.
 *
 * Two threads: the connection's own, which alone reads the socket, and the window's, which calls
 * the functions of the header. The lock is held for copies only, never around a system call that
 * waits. */
#include "ui/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fds.h"

enum { QUEUE_MAX = 4096 }; /* messages to a machine that does not read */

struct connection {
    /* set before the thread starts, then constant */
    int socket, signals, kick;
    GThread *thread;
    void (*wake)(void *data);
    void *data;

    GMutex lock; /* of everything below */
    struct model model;
    void *frame;
    bool gone, signalled, woken, leaving;
    char *complaint;
    GQueue queue; /* of struct display_message, not yet sent */
};

/* --- receiving ------------------------------------------------------------------------------- */

/* Maps the frame. Its seals keep the machine from making it smaller under us (a SIGBUS). */
static void *map_frame(int fd, size_t bytes, GError **error)
{
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK)) {
        hv_fail(error, HV_FAILED, "the machine sent a frame that is not sealed against shrinking");
        return NULL;
    }
    void *frame = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (frame == MAP_FAILED) {
        hv_fail(error, HV_FAILED, "cannot map the machine's frame: %s", g_strerror(errno));
        return NULL;
    }
    return frame;
}

static void tell(struct connection *connection)
{
    bool wake = !connection->woken;
    connection->woken = true;
    g_mutex_unlock(&connection->lock);
    if (wake)
        connection->wake(connection->data);
    g_mutex_lock(&connection->lock);
}

/* One message. False at the end of the connection. */
static bool receive(struct connection *connection, GError **error)
{
    struct display_message message;
    int fd = -1;
    unsigned count = 0;
    ssize_t length =
        fds_receive(connection->socket, &message, sizeof message, &fd, 1, &count, error);
    if (length <= 0)
        return false;
    struct stat file = { 0 };
    uint64_t bytes = count && fstat(fd, &file) == 0 ? (uint64_t)file.st_size : 0;
    g_mutex_lock(&connection->lock);
    bool good = protocol_take(&connection->model, &message, (size_t)length, count, bytes, error);
    if (good && count) {
        connection->frame = map_frame(fd, connection->model.frame_bytes, error);
        good = connection->frame != NULL;
    }
    if (good)
        tell(connection);
    g_mutex_unlock(&connection->lock);
    fds_close(&fd, count);
    return good;
}

/* --- sending --------------------------------------------------------------------------------- */

/* True when the message is off our hands. */
static bool send_now(struct connection *connection, const struct display_message *message)
{
    ssize_t sent;
    do
        sent = send(connection->socket, message, sizeof *message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    /* Other errors: the machine is gone; the reading side finds out. */
    return sent >= 0 || (errno != EAGAIN && errno != ENOBUFS);
}

static void send_queue(struct connection *connection)
{
    struct display_message *message;
    while ((message = g_queue_peek_head(&connection->queue)) && send_now(connection, message)) {
        g_queue_pop_head(&connection->queue);
        g_free(message);
    }
}

/* Adds motion to the last message when that is motion with the same buttons. */
static bool join_motion(struct display_message *last, const struct display_message *message)
{
    bool at = message->kind == DISPLAY_POINTER_AT;
    if (!last || last->kind != message->kind || (!at && message->kind != DISPLAY_POINTER) ||
        last->d != message->d)
        return false;
    last->a = at ? message->a : last->a + message->a;
    last->b = at ? message->b : last->b + message->b;
    last->c += message->c;
    return true;
}

void connection_send(struct connection *connection, const struct display_message *message)
{
    g_mutex_lock(&connection->lock);
    bool press = message->kind == DISPLAY_PASTE || (message->kind == DISPLAY_KEY && message->b);
    bool queued = !g_queue_is_empty(&connection->queue);
    if (connection->gone || (!queued && send_now(connection, message))) {
        g_mutex_unlock(&connection->lock);
        return;
    }
    if (!join_motion(g_queue_peek_tail(&connection->queue), message) &&
        !(press && g_queue_get_length(&connection->queue) >= QUEUE_MAX))
        g_queue_push_tail(&connection->queue, g_memdup2(message, sizeof *message));
    g_mutex_unlock(&connection->lock);
    if (!queued)
        eventfd_write(connection->kick, 1);
}

/* --- the thread ------------------------------------------------------------------------------ */

/* Nothing more to hear from the machine; signals still are. */
static void hang_up(struct connection *connection, const GError *error)
{
    g_mutex_lock(&connection->lock);
    connection->gone = true;
    if (error && !connection->complaint)
        connection->complaint = g_strdup(error->message);
    tell(connection);
    g_mutex_unlock(&connection->lock);
}

static gpointer connection_thread(gpointer data)
{
    struct connection *connection = data;
    for (;;) {
        g_mutex_lock(&connection->lock);
        bool leaving = connection->leaving, gone = connection->gone;
        short out = g_queue_is_empty(&connection->queue) ? 0 : POLLOUT;
        g_mutex_unlock(&connection->lock);
        if (leaving)
            return NULL;
        struct pollfd wait[] = { { connection->kick, POLLIN, 0 },
                                 { connection->signals, POLLIN, 0 },
                                 { gone ? -1 : connection->socket, (short)(POLLIN | out), 0 } };
        if (poll(wait, G_N_ELEMENTS(wait), -1) < 0)
            continue;
        if (wait[0].revents) {
            eventfd_t ignored;
            eventfd_read(connection->kick, &ignored);
        }
        if (wait[1].revents & POLLIN) {
            struct signalfd_siginfo info;
            ssize_t got = read(connection->signals, &info, sizeof info);
            g_mutex_lock(&connection->lock);
            connection->signalled = got == sizeof info;
            tell(connection);
            g_mutex_unlock(&connection->lock);
        }
        if (wait[2].revents & POLLOUT) {
            g_mutex_lock(&connection->lock);
            send_queue(connection);
            g_mutex_unlock(&connection->lock);
        }
        g_autoptr(GError) error = NULL;
        if (wait[2].revents & (POLLIN | POLLHUP | POLLERR) && !receive(connection, &error))
            hang_up(connection, error);
    }
}

/* --- for the window's thread ----------------------------------------------------------------- */

static sigset_t signal_set(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    return signals;
}

void connection_block_signals(void)
{
    sigset_t signals = signal_set();
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

struct connection *connection_new(int socket, void (*wake)(void *data), void *data, GError **error)
{
    int type = 0;
    socklen_t length = sizeof type;
    if (getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &length) < 0 || type != SOCK_SEQPACKET) {
        hv_fail(error, HV_USAGE, "descriptor %d is not a machine's display socket", socket);
        return NULL;
    }
    sigset_t signals = signal_set();
    struct connection *connection = g_new0(struct connection, 1);
    connection->socket = socket;
    connection->signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    connection->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    connection->wake = wake;
    connection->data = data;
    g_mutex_init(&connection->lock);
    g_queue_init(&connection->queue);
    if (connection->signals < 0 || connection->kick < 0) {
        hv_fail(error, HV_HOST, "cannot make a signal or event descriptor: %s", g_strerror(errno));
        connection_free(connection);
        return NULL;
    }
    connection->thread = g_thread_new("display", connection_thread, connection);
    return connection;
}

void connection_free(struct connection *connection)
{
    if (!connection)
        return;
    if (connection->thread) {
        g_mutex_lock(&connection->lock);
        send_queue(connection); /* what the machine still takes of it */
        connection->leaving = true;
        g_mutex_unlock(&connection->lock);
        eventfd_write(connection->kick, 1);
        g_thread_join(connection->thread);
    }
    if (connection->frame)
        munmap(connection->frame, connection->model.frame_bytes);
    g_queue_clear_full(&connection->queue, g_free);
    fds_close((int[]){ connection->socket, connection->signals, connection->kick }, 3);
    g_mutex_clear(&connection->lock);
    g_free(connection->complaint);
    g_free(connection);
}

int connection_open(const char *path, GError **error)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof address.sun_path) {
        hv_fail(error, HV_USAGE, "%s: this path is too long for a socket", path);
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
        hv_fail(error, HV_NOT_FOUND, "%s: cannot connect: %s; is the machine running? (hv list)",
                path, g_strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

void connection_take(struct connection *connection, struct update *update)
{
    g_mutex_lock(&connection->lock);
    update->model = connection->model;
    update->pixels = connection->frame;
    update->gone = connection->gone;
    update->signalled = connection->signalled;
    update->complaint = connection->complaint;
    connection->model.damage = (struct rectangle){ 0 };
    connection->model.changed_mode = false;
    connection->woken = false;
    g_mutex_unlock(&connection->lock);
}
