/* hv-remote: a disk on a server, for a machine or a tool. Started by hv with one end of a socket
 * pair and a URL; the other end goes to hv-vmm (block/remote.c), which has no network. It has
 * neither guest memory nor files, and ends with the last who has that other end.
 *
 *   hv-remote SOCKET URL
 *
 * What a server says is hostile; the sources bound it. What comes over the socket is hv's own, and
 * an error in it ends the program. */
#include "base/error.h"
#include "base/fds.h"
#include "base/log.h"
#include "remote/source.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

struct service {
    int socket;
    struct source *source; /* NULL: it could not be opened, `why` */
    GError *why;
    uint8_t *area;
};

void source_answer(struct source *source, struct job *job, int error)
{
    const struct remote_reply reply = { job->request.id, job->request.slot, error };
    job->busy = false;
    while (send(source->socket, &reply, sizeof reply, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

void source_warn(const struct source *source, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    for (char *c = text; *c; c++)
        if (!g_ascii_isprint(*c))
            *c = '?';
    log_warn(source->name, "%s", text);
}

/* --- the socket ----------------------------------------------------------------------------- */

static bool take_area(struct service *service, int fd)
{
    if (fcntl(fd, F_GET_SEALS) < 0 || !(fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK) ||
        lseek(fd, 0, SEEK_END) != REMOTE_AREA)
        return false;
    void *area = mmap(NULL, REMOTE_AREA, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (area == MAP_FAILED)
        return false;
    if (service->area)
        munmap(service->area, REMOTE_AREA);
    service->area = area;
    for (unsigned i = 0; service->source && i < REMOTE_SLOTS; i++) {
        if (service->source->jobs[i].busy)
            return false;
        service->source->jobs[i].data = service->area + (size_t)i * REMOTE_SLOT;
    }
    return true;
}

static bool say_hello(const struct service *service)
{
    const struct source *source = service->source;
    struct remote_hello hello = { .version = REMOTE_VERSION };
    if (source) {
        hello.size = source->size;
        hello.flags = source->flags;
        memcpy(hello.mark, source->mark, sizeof hello.mark);
    } else {
        hello.status = hv_exit_status(service->why);
        g_strlcpy(hello.text, service->why->message, sizeof hello.text);
    }
    return send(service->socket, &hello, sizeof hello, MSG_NOSIGNAL) == (ssize_t)sizeof hello &&
           source;
}

static bool in_range(const struct source *source, const struct remote_request *request)
{
    bool data = request->op == REMOTE_READ || request->op == REMOTE_WRITE;
    return request->length <= (data ? (uint64_t)REMOTE_SLOT : REMOTE_RANGE) &&
           request->offset <= source->size && request->length <= source->size - request->offset;
}

/* A request; false when it makes no sense. */
static bool take_request(struct service *service, const struct remote_request *request)
{
    struct source *source = service->source;
    if (request->op == REMOTE_GIVE_UP) {
        source->class->give_up(source);
        return true;
    }
    if (request->op == REMOTE_OPEN || request->op > REMOTE_GIVE_UP || !service->area ||
        request->slot >= REMOTE_SLOTS || source->jobs[request->slot].busy ||
        !in_range(source, request))
        return false;
    struct job *job = &source->jobs[request->slot];
    job->busy = true;
    job->request = *request;
    source->class->start(source, job);
    return true;
}

/* A message; false at the end. */
static bool take_message(struct service *service)
{
    struct remote_request request;
    int fd = -1;
    unsigned count = 0;
    if (fds_receive(service->socket, &request, sizeof request, &fd, 1, &count, NULL) !=
        (ssize_t)sizeof request)
        return false;
    bool opens = request.op == REMOTE_OPEN && count == 1;
    bool ok = opens ? take_area(service, fd) && say_hello(service)
                    : !count && service->source && take_request(service, &request);
    if (count)
        close(fd);
    return ok;
}

static void serve(struct service *service)
{
    struct pollfd client = { service->socket, POLLIN, 0 };
    unsigned batch;
    for (;;) {
        client.revents = 0;
        if (service->source)
            service->source->class->turn(service->source, &client);
        else if (poll(&client, 1, -1) < 0)
            continue;
        for (batch = 0; client.revents && batch < REMOTE_SLOTS; batch++) {
            if (!take_message(service))
                return;
            struct pollfd more = { service->socket, POLLIN, 0 };
            client.revents = poll(&more, 1, 0) > 0 ? more.revents : 0;
        }
    }
}

/* --- start ---------------------------------------------------------------------------------- */

static struct source *open_source(const char *url, GError **error)
{
    if (g_str_has_prefix(url, "nbd"))
        return nbd_source_new(url, error);
    return http_source_new(url, error);
}

#ifndef HAVE_NBD
struct source *nbd_source_new(const char *url, GError **error)
{
    (void)url;
    hv_fail(error, HV_HOST, "hv was built without libnbd");
    return NULL;
}
#endif
#ifndef HAVE_CURL
struct source *http_source_new(const char *url, GError **error)
{
    (void)url;
    hv_fail(error, HV_HOST, "hv was built without libcurl");
    return NULL;
}
#endif

/* All that hv had open beside the socket is closed on exec; this is for what hv was started with.
 */
static void confine(int socket)
{
    const struct rlimit none = { 0, 0 };
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    setrlimit(RLIMIT_CORE, &none);
    if (socket > 3)
        close_range(3, (unsigned)socket - 1, 0);
    close_range((unsigned)socket + 1, ~0u, 0);
}

/* Ends the program when nobody has the socket's other end, whatever it waits for meanwhile: a name
 * server, or somebody who does not answer. */
static gpointer watch(gpointer data)
{
    struct pollfd client = { GPOINTER_TO_INT(data), 0, 0 };
    while (poll(&client, 1, -1) <= 0)
        ;
    _exit(HV_OK);
}

int main(int argc, char **argv)
{
    struct service service = { .socket = argc == 3 ? (int)strtol(argv[1], NULL, 10) : -1 };
    if (service.socket < 3) {
        fputs("hv-remote is started by hv; see hv(1)\n", stderr);
        return HV_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    if (g_getenv("HV_VERBOSE"))
        log_set_level(LOG_INFO);
    confine(service.socket);
    g_thread_unref(g_thread_new("watch", watch, GINT_TO_POINTER(service.socket)));
    service.source = open_source(argv[2], &service.why);
    if (service.source)
        service.source->socket = service.socket;
    serve(&service);
    _exit(HV_OK); /* the kernel takes it apart */
}
