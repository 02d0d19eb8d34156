/* The first words between a disk on a server and its hv-remote; see remote-hello.h. */
#include "block/remote-hello.h"

#include "base/error.h"
#include "base/fds.h"
#include "block/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OPEN_MS = 90 * 1000 /* longer than hv-remote tries */ };

/* The memory, of which hv-remote gets a descriptor; the answer is awaited. */
static bool greet(int socket, const char *name, uint8_t **memory, struct remote_hello *hello,
                  GError **error)
{
    const struct remote_request message = { .op = REMOTE_OPEN };
    int fd = memfd_create("hv-remote", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    void *area = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, REMOTE_AREA) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        area = mmap(NULL, REMOTE_AREA, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    bool ok = area != MAP_FAILED;
    if (!ok)
        hv_fail(error, HV_HOST, "%s: there is no memory for its data: %s", name, g_strerror(errno));
    else
        *memory = area;
    ok = ok && fds_send(socket, &message, sizeof message, &fd, 1, error);
    if (fd >= 0)
        close(fd);
    if (!ok)
        return false;
    struct pollfd poller = { socket, POLLIN, 0 };
    int ready;
    do
        ready = poll(&poller, 1, OPEN_MS);
    while (ready < 0 && errno == EINTR);
    if (ready <= 0)
        return hv_fail(error, HV_TIMED_OUT, "%s: there is no answer", name);
    if (recv(socket, hello, sizeof *hello, MSG_DONTWAIT | MSG_TRUNC) != (ssize_t)sizeof *hello)
        return hv_fail(error, HV_FAILED, "%s: hv-remote ended without a word", name);
    return true;
}

/* What hv-remote says was said by a server: only text goes to a terminal. */
static void clean(char *text, size_t size)
{
    text[size - 1] = 0;
    for (char *c = text; *c; c++)
        if (!g_ascii_isprint(*c))
            *c = '?';
}

static bool judge(struct remote_hello *hello, const char *name, bool readonly, GError **error)
{
    clean(hello->text, sizeof hello->text);
    clean(hello->mark, sizeof hello->mark);
    if (hello->status != HV_OK)
        return hv_fail(error, CLAMP(hello->status, HV_FAILED, HV_CRASHED), "%s: %s", name,
                       hello->text);
    if (hello->version != REMOTE_VERSION)
        return hv_fail(error, HV_FAILED, "%s: hv-remote is of another version than hv", name);
    if (!hello->size || hello->size > INT64_MAX - SECTOR || (!readonly && hello->size < SECTOR))
        return hv_fail(error, HV_FAILED, "%s: a size of %" G_GUINT64_FORMAT " bytes is no disk's",
                       name, hello->size);
    if (!readonly && hello->flags & REMOTE_READONLY)
        return hv_fail(error, HV_FAILED,
                       "%s: the server lets nobody write to it; --throwaway or readonly needs no "
                       "writing",
                       name);
    return true;
}

bool remote_greet(int socket, const char *name, bool readonly, uint8_t **memory,
                  struct remote_hello *hello, GError **error)
{
    *memory = NULL;
    return greet(socket, name, memory, hello, error) && judge(hello, name, readonly, error);
}
