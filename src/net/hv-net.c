/* hv-net: a machine's network, in processes of its own that have neither the guest's memory nor its
 * disks. Started by hv with open descriptors, whose numbers stand in the arguments; it opens no
 * path (libslirp reads /etc/resolv.conf).
 *
 *   hv-net keep frames=N control=N ports=N [ready=N] name=NAME [restrict]
 *       keeps a "serve" running: starts it anew when it dies, until the machine has ended
 *   hv-net serve ...the same...
 *       the user-mode network (net/slirp.h) between the frame socket and this host
 *   hv-net hub listener=N folder=N path=PATH
 *       a switch between machines (net/hub.h)
 *
 * The keeper never touches what the guest sends. Each "serve" is a new program (execve), so that
 * one which is broken into or broken teaches nothing about the addresses of the next. */
#include "base/error.h"
#include "base/fds.h"
#include "base/log.h"
#include "net/hub.h"
#include "net/net-control.h"
#include "net/outbox.h"
#include "net/slirp.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    BATCH = 32, /* packets taken from the guest at once */
    SOCKETS_MAX = 4096,
    HOPELESS = 3, /* exit status of "serve": another would fare no better */
};

/* The most address space of "serve": libslirp keeps 64 KiB for each packet that it holds, and a
 * guest decides how many that are. */
#define SERVE_BYTES (UINT64_C(3) << 30)

#if defined __SANITIZE_ADDRESS__
#define SANITIZED
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define SANITIZED
#endif
#endif

struct arguments {
    int frames, control, ports, ready, listener, folder;
    const char *name, *path;
    bool restricted;
};

/* --- serve ---------------------------------------------------------------------------------- */

struct serve {
    struct outbox out;
    struct net_view view;
    struct probe probe;
    struct net_control *control;
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    uint8_t *packets; /* BATCH times NET_PACKET_MAX */
};

static void to_guest(void *opaque, const struct net_header *header, const struct iovec *iov,
                     unsigned count)
{
    struct serve *s = opaque;
    struct iovec parts[OUTBOX_PARTS] = { { (void *)(uintptr_t)header, sizeof *header } };
    g_assert(count < OUTBOX_PARTS); /* our own packet_to_guest */
    memcpy(parts + 1, iov, count * sizeof *iov);
    outbox_put(&s->out, parts, count + 1);
}

/* What the guest has sent, at most a batch; false when the machine has gone. */
static bool from_guest(struct serve *s, short events)
{
    for (unsigned i = 0; i < BATCH; i++) {
        s->parts[i] = (struct iovec){ s->packets + (size_t)i * NET_PACKET_MAX, NET_PACKET_MAX };
        s->messages[i].msg_hdr = (struct msghdr){ .msg_iov = &s->parts[i], .msg_iovlen = 1 };
    }
    int count = recvmmsg(s->out.fd, s->messages, BATCH, MSG_DONTWAIT, NULL);
    if (count < 0)
        return errno == EAGAIN || errno == EINTR || errno == ENOMEM || errno == ENOBUFS;
    for (int i = 0; i < count; i++) {
        struct net_header header;
        uint8_t *packet = s->parts[i].iov_base;
        size_t length = s->messages[i].msg_len;
        if (!length && events & POLLHUP)
            return false;
        if (length < sizeof header || s->messages[i].msg_hdr.msg_flags & MSG_TRUNC)
            continue;
        s->view.received++;
        struct probe_answer answer =
            probe_take(&s->probe, packet + sizeof header, length - sizeof header);
        if (answer.port)
            net_control_accepts(s->control, answer.slot, answer.port);
        if (answer.ours)
            continue;
        memcpy(&header, packet, sizeof header);
        slirp_net_input(s->view.net, &header, packet + sizeof header, length - sizeof header);
    }
    return count > 0 || !(events & POLLHUP);
}

/* The sooner of two times in ms, of which -1 is never. */
static int sooner(int a, int b)
{
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

static void serve_for_ever(struct serve *s)
{
    g_autoptr(GArray) fds = g_array_new(false, false, sizeof(struct pollfd));
    for (;;) {
        g_array_set_size(fds, 0);
        struct pollfd frames = { .fd = s->out.fd,
                                 .events = s->out.count ? POLLIN | POLLOUT : POLLIN };
        g_array_append_val(fds, frames);
        net_control_prepare(s->control, fds);
        int wait = sooner(slirp_net_prepare(s->view.net, fds, outbox_pressed(&s->out)),
                          probe_work(&s->probe));
        if (poll((struct pollfd *)fds->data, fds->len, wait) < 0)
            continue;
        short events = g_array_index(fds, struct pollfd, 0).revents;
        if (events & POLLOUT)
            outbox_flush(&s->out);
        slirp_net_work(s->view.net);
        if (events & ~POLLOUT && !from_guest(s, events))
            return;
        net_control_work(s->control, fds);
        if (!s->out.blocked)
            outbox_flush(&s->out);
    }
}

/* Opens the rules' ports. A first start is all or nothing; later, the others go on. */
static bool open_ports(struct serve *s, bool first, GError **error)
{
    for (unsigned i = 0; i < s->view.ports->count; i++) {
        g_autoptr(GError) why = NULL;
        if (slirp_net_open(s->view.net, &s->view.ports->list[i], &why))
            continue;
        if (first) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        log_warn("network", "%s", why->message);
    }
    return true;
}

/* Tells hv, when that waits, that all ports are open, or why not. */
static void report(int ready, const GError *why)
{
    json_t *json =
        json_pack("{s:i, s:s}", "status", hv_exit_status(why), "message", why ? why->message : "");
    g_autofree char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    if (text)
        fds_send(ready, text, strlen(text), NULL, 0, NULL);
    close(ready);
}

static void limit(int what, rlim_t most)
{
    struct rlimit now;
    if (getrlimit((__rlimit_resource_t)what, &now) < 0)
        return;
    now.rlim_cur = MIN(most, now.rlim_max);
    setrlimit((__rlimit_resource_t)what, &now);
}

static void confine(void)
{
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_NOFILE, SOCKETS_MAX);
#ifndef SANITIZED /* whose shadow alone is larger */
    limit(RLIMIT_AS, SERVE_BYTES);
#endif
}

/* Libslirp has two buffers of 128 KiB for each connection, and none is used up. From the heap,
 * which grows and is hardly ever given back, thousands of short connections would end up with every
 * page of theirs touched. A packet's 64 KiB stay there. */
static void return_large_memory(void)
{
    enum { LARGE = 96 << 10 };
    mallopt(M_MMAP_THRESHOLD, LARGE);
}

static int serve(const struct arguments *args)
{
    g_autoptr(GError) error = NULL;
    struct serve *s = g_new0(struct serve, 1);
    struct ports ports;
    confine();
    return_large_memory();
    ports_load(&ports, args->ports);
    outbox_init(&s->out, args->frames);
    s->packets = g_malloc((size_t)BATCH * NET_PACKET_MAX);
    const struct packet_sink sink = { to_guest, s };
    s->view = (struct net_view){
        .net = slirp_net_new(args->name, args->restricted, &sink),
        .ports = &ports,
        .ports_fd = args->ports,
        .out = &s->out,
        .probe = &s->probe,
        .restricted = args->restricted,
    };
    bool ok = open_ports(s, args->ready >= 0, &error);
    if (args->ready >= 0)
        report(args->ready, error);
    if (!ok)
        return HOPELESS;
    s->probe.sink = sink;
    s->control = net_control_new(args->control, &s->view);
    serve_for_ever(s);
    return HV_OK;
}

/* --- keep ----------------------------------------------------------------------------------- */

/* By the program's path, so that it goes by its name (ps, killall, valgrind); by the link when
 * another file is there by now: then the path ends in " (deleted)". */
static pid_t start(char **argv)
{
    char path[PATH_MAX];
    pid_t pid = fork();
    if (pid)
        return pid;
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length > 0) {
        path[length] = 0;
        execv(path, argv);
    }
    execv("/proc/self/exe", argv);
    _exit(HOPELESS);
}

/* Without one that dies as soon as it lives, a new one comes at once; else with pauses that grow to
 * a second, within which a guest still has its network back in time. */
static int keep(char **argv, int ready)
{
    enum { LONG_US = 1000 * 1000, PAUSE_US = 10 * 1000, PAUSE_MAX_US = 1000 * 1000 };
    gulong pause = 0;
    struct log_limit limit = { 0 };
    argv[1] = (char *)"serve";
    for (;;) {
        gint64 began = g_get_monotonic_time();
        int status = 0;
        pid_t pid = start(argv);
        if (ready >= 0)
            close(ready); /* its end is the answer, when it dies before it gives one */
        ready = -1;
        if (pid > 0)
            while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        if (pid > 0 && WIFEXITED(status) &&
            (WEXITSTATUS(status) == HV_OK || WEXITSTATUS(status) == HOPELESS))
            return WEXITSTATUS(status);
        if (pid > 0 && log_limit_pass(&limit, "network"))
            log_warn("network", "hv-net ended (%s %d) and is started anew",
                     WIFSIGNALED(status) ? "signal" : "status",
                     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        bool lived = pid > 0 && g_get_monotonic_time() - began > LONG_US;
        pause = lived ? 0 : CLAMP(pause * 2, PAUSE_US, PAUSE_MAX_US);
        g_usleep(pause);
        for (char **word = argv; *word; word++) /* nobody waits for it any more */
            if (g_str_has_prefix(*word, "ready="))
                *word = (char *)"ready=-1";
    }
}

/* --- start ---------------------------------------------------------------------------------- */

static bool take_argument(struct arguments *args, const char *word)
{
    const struct {
        const char *name;
        int *number;
        const char **text;
    } known[] = {
        { "frames=", &args->frames, NULL },     { "control=", &args->control, NULL },
        { "ports=", &args->ports, NULL },       { "ready=", &args->ready, NULL },
        { "listener=", &args->listener, NULL }, { "folder=", &args->folder, NULL },
        { "name=", NULL, &args->name },         { "path=", NULL, &args->path },
    };
    if (!strcmp(word, "restrict"))
        return args->restricted = true;
    for (size_t i = 0; i < G_N_ELEMENTS(known); i++) {
        if (!g_str_has_prefix(word, known[i].name))
            continue;
        const char *value = word + strlen(known[i].name);
        if (known[i].number)
            *known[i].number = (int)strtol(value, NULL, 10);
        else
            *known[i].text = value;
        return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    struct arguments args = { -1, -1, -1, -1, -1, -1, NULL, NULL, false };
    bool ok = argc > 2;
    for (int i = 2; ok && i < argc; i++)
        ok = take_argument(&args, argv[i]);
    const char *role = argc > 1 ? argv[1] : "";
    bool user = args.frames >= 0 && args.control >= 0 && args.ports >= 0 && args.name;
    signal(SIGPIPE, SIG_IGN);
    if (g_getenv("HV_VERBOSE"))
        log_set_level(LOG_INFO);
    if (ok && user && !strcmp(role, "serve"))
        return serve(&args);
    if (ok && user && !strcmp(role, "keep"))
        return keep(argv, args.ready);
    if (ok && args.listener >= 0 && args.folder >= 0 && args.path && !strcmp(role, "hub")) {
        hub_serve(args.listener, args.folder, args.path);
        return HV_OK;
    }
    fputs("hv-net is started by hv; see hv(1)\n", stderr);
    return HV_USAGE;
}
