/* The network of a machine; see network.h. hv-net gets descriptors only, as the machine does. */
#include "cli/network.h"

#include "base/error.h"
#include "cli/cli.h"
#include "net/ports.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- what was asked for --------------------------------------------------------------------- */

static bool collect_ports(const struct config *config, struct ports *ports, GError **error)
{
    *ports = (struct ports){ .count = 0 };
    for (guint i = 0; i < config->publish->len; i++) {
        struct port port;
        if (!port_parse(g_ptr_array_index(config->publish, i), &port, error) ||
            !ports_add(ports, &port, error)) {
            g_prefix_error(error, "--publish: ");
            return false;
        }
    }
    return true;
}

bool network_resolve(struct config *config, bool virtio, GError **error)
{
    g_auto(nic_settings) nic = { .kind = NIC_NONE };
    struct ports ports;
    if (!nic_parse(config->net ? config->net : "user", &nic, error) ||
        !collect_ports(config, &ports, error))
        return false;
    if (ports.count && nic.kind != NIC_USER)
        return hv_fail(error, HV_USAGE,
                       "--publish is for the network \"user\"; on any other, the guest has an "
                       "address of its own");
    if (nic.kind != NIC_NONE && !nic.has_mac)
        nic_name_mac(&nic, config->name);
    if (nic.kind != NIC_NONE && !nic.model)
        nic.model = g_strdup(virtio || nic.vhost == NIC_VHOST_ON ? "virtio" : "e1000");
    if (nic.vhost == NIC_VHOST_ON && strcmp(nic.model, "virtio"))
        return hv_fail(error, HV_USAGE, "--net: vhost=on is for the card model=virtio");
    if (nic.vhost == NIC_VHOST_ON && nic.capture)
        return hv_fail(error, HV_USAGE,
                       "--net: vhost=on: hv does not see the packets that pcap= is to have");
    for (unsigned i = 0; nic.restricted && i < ports.count; i++)
        if (ports.list[i].udp) /* libslirp would drop the guest's answers */
            return hv_fail(error, HV_USAGE,
                           "--publish %s: with restrict, only TCP ports can be published",
                           (char *)g_ptr_array_index(config->publish, i));
    g_free(config->net);
    config->net = nic_format(&nic);
    for (unsigned i = 0; i < ports.count; i++) {
        char text[PORT_TEXT];
        port_format(&ports.list[i], text);
        g_free(config->publish->pdata[i]);
        config->publish->pdata[i] = g_strdup(text);
    }
    return true;
}

static struct nic nic_of(const struct config *config)
{
    struct nic nic = { .kind = NIC_NONE };
    if (config->net)
        nic_parse(config->net, &nic, NULL);
    return nic;
}

bool network_has_control(const struct config *config)
{
    g_auto(nic_settings) nic = nic_of(config);
    return nic.kind == NIC_USER;
}

/* --- hv-net --------------------------------------------------------------------------------- */

/* A descriptor for hv-net, as the argument that names it. */
struct pass {
    const char *name;
    int fd;
};

/* Starts hv-net in a role, with descriptors and further words; those that are left NULL end the
 * list. `quiet`: it outlives hv and has no use for its terminal. */
static bool start_net(const char *role, const struct pass passes[4], const char *const words[3],
                      bool quiet, GError **error)
{
    g_autofree char *program = program_path("hv-net");
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(argv, g_strdup("hv-net"));
    g_ptr_array_add(argv, g_strdup(role));
    for (unsigned i = 0; i < 4 && passes[i].name; i++)
        g_ptr_array_add(argv, g_strdup_printf("%s=%d", passes[i].name, passes[i].fd));
    for (unsigned i = 0; i < 3 && words[i]; i++)
        g_ptr_array_add(argv, g_strdup(words[i]));
    g_ptr_array_add(argv, NULL);
    int fds[4];
    unsigned count = 0;
    for (; count < 4 && passes[count].name; count++)
        fds[count] = passes[count].fd;
    int result = program_start(program, (char **)argv->pdata, fds, count, quiet);
    if (result == ENOENT)
        return hv_fail(error, HV_FAILED, "%s: is not installed; --net none runs without it",
                       program);
    return result == 0 ||
           hv_fail(error, HV_HOST, "%s cannot be started: %s", program, g_strerror(result));
}

/* The rules, in memory that outlives those who serve them. */
static int ports_file(const struct config *config)
{
    struct ports ports;
    int fd = memfd_create("ports", MFD_CLOEXEC);
    collect_ports(config, &ports, NULL); /* resolved: they are right */
    if (fd >= 0 && ftruncate(fd, PORTS_PAGE) == 0)
        ports_save(&ports, fd);
    return fd;
}

static bool open_user(struct network *n, const struct config *config, const struct nic *nic,
                      int control, GError **error)
{
    int frames[2] = { -1, -1 }, ready[2] = { -1, -1 }, ports = ports_file(config);
    bool waits = config->publish->len > 0;
    const enum __socket_type type = SOCK_SEQPACKET | SOCK_CLOEXEC;
    bool ok = ports >= 0 && socketpair(AF_UNIX, type, 0, frames) == 0 &&
              (!waits || socketpair(AF_UNIX, type, 0, ready) == 0);
    if (!ok)
        hv_fail(error, HV_HOST, "the network cannot be opened: %s", g_strerror(errno));
    const struct pass passes[4] = {
        { "frames", frames[1] },
        { "control", control },
        { "ports", ports },
        { waits ? "ready" : NULL, ready[1] },
    };
    g_autofree char *name = g_strconcat("name=", config->name, NULL);
    const char *const words[3] = { name, nic->restricted ? "restrict" : NULL };
    ok = ok && start_net("keep", passes, words, false, error);
    const int done[] = { frames[1], ready[1], ports };
    for (unsigned i = 0; i < G_N_ELEMENTS(done); i++)
        if (done[i] >= 0)
            close(done[i]);
    n->frames = frames[0];
    n->ready = ready[0];
    return ok;
}

bool network_ready(struct network *n, GError **error)
{
    if (n->ready < 0)
        return true;
    char text[4096];
    ssize_t length = recv(n->ready, text, sizeof text, 0);
    json_t *answer = length > 0 ? json_loadb(text, (size_t)length, 0, NULL) : NULL;
    int status = HV_FAILED;
    const char *message = "hv-net ended without a word";
    json_unpack(answer, "{s:i, s:s}", "status", &status, "message", &message);
    if (status != HV_OK)
        hv_fail(error, CLAMP(status, HV_FAILED, HV_CRASHED), "--publish: %s", message);
    json_decref(answer);
    close(n->ready);
    n->ready = -1;
    return status == HV_OK;
}

/* --- socket --------------------------------------------------------------------------------- */

static bool socket_failed(const char *path, const char *why, GError **error)
{
    return hv_fail(error, HV_FAILED, "--net socket=%s: %s", path, why);
}

/* Waits its turn: who starts a hub, connects to one or ends one does so alone. */
static bool take_lock(int folder)
{
    enum { TRIES = 500, TRY_US = 10000 };
    for (unsigned i = 0; i < TRIES; i++) {
        if (flock(folder, LOCK_EX | LOCK_NB) == 0)
            return true;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return false;
        g_usleep(TRY_US);
    }
    return false;
}

/* A hub at the address, where nobody listens. It gets an opening of the folder of its own: a lock
 * belongs to the opening. */
static bool start_hub(const struct sockaddr_un *address, const char *folder_path, GError **error)
{
    const char *path = address->sun_path;
    struct stat info;
    if (lstat(path, &info) == 0 && !S_ISSOCK(info.st_mode))
        return socket_failed(path, "there is something else than a socket", error);
    unlink(path); /* its hub is dead */
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int folder = open(folder_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    mode_t mask = umask(0177);
    bool ok = listener >= 0 && folder >= 0 &&
              bind(listener, (const struct sockaddr *)address, sizeof *address) == 0 &&
              listen(listener, 64) == 0;
    umask(mask);
    if (!ok)
        socket_failed(path, g_strerror(errno), error);
    g_autofree char *word = g_strconcat("path=", path, NULL);
    const struct pass passes[4] = { { "listener", listener }, { "folder", folder } };
    const char *const words[3] = { word };
    ok = ok && start_net("hub", passes, words, true, error);
    if (listener >= 0)
        close(listener);
    if (folder >= 0)
        close(folder);
    return ok;
}

static bool join(struct network *n, const struct sockaddr_un *address, const char *folder_path,
                 GError **error)
{
    const struct sockaddr *to = (const struct sockaddr *)address;
    n->frames = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (n->frames < 0)
        return socket_failed(address->sun_path, g_strerror(errno), error);
    if (connect(n->frames, to, sizeof *address) == 0)
        return true;
    if (errno == EPROTOTYPE)
        return socket_failed(address->sun_path, "another program listens there", error);
    if (errno != ENOENT && errno != ECONNREFUSED)
        return socket_failed(address->sun_path, g_strerror(errno), error);
    if (!start_hub(address, folder_path, error))
        return false;
    return connect(n->frames, to, sizeof *address) == 0 ||
           socket_failed(address->sun_path, g_strerror(errno), error);
}

static bool open_socket(struct network *n, const char *given, GError **error)
{
    g_autofree char *path = g_canonicalize_filename(given, NULL);
    g_autofree char *folder_path = g_path_get_dirname(path);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (g_strlcpy(address.sun_path, path, sizeof address.sun_path) >= sizeof address.sun_path)
        return hv_fail(error, HV_USAGE, "--net socket=%s: too long for a socket", given);
    int folder = open(folder_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return socket_failed(given, g_strerror(errno), error);
    bool ok = take_lock(folder) ? join(n, &address, folder_path, error)
                                : hv_fail(error, HV_TIMED_OUT, "--net socket=%s: %s stays locked",
                                          given, folder_path);
    close(folder); /* and the lock with it */
    return ok;
}

/* --- all of it ------------------------------------------------------------------------------ */

static bool open_capture(struct network *n, const char *path, GError **error)
{
    struct stat info;
    n->capture = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0600);
    bool opened = n->capture >= 0 && fstat(n->capture, &info) == 0;
    /* The card waits for each packet's write: a pipe's reader could hold up the guest. ENXIO is
     * what a pipe without one says. */
    if (opened ? !S_ISREG(info.st_mode) : errno == ENXIO)
        return hv_fail(error, HV_USAGE, "--net: pcap=%s: a file is wanted, this is none", path);
    return opened || hv_fail(error, HV_FAILED, "--net: pcap=%s: %s", path, g_strerror(errno));
}

bool network_open(struct network *network, const struct config *config, int control, GError **error)
{
    g_auto(nic_settings) nic = nic_of(config);
    *network = (struct network){ .frames = -1, .capture = -1, .ready = -1 };
    if (nic.capture && !open_capture(network, nic.capture, error))
        return false;
    switch (nic.kind) {
    case NIC_USER:
        return open_user(network, config, &nic, control, error);
    case NIC_TAP:
        return tap_open(network, &nic, (unsigned)config->cpus, error);
    case NIC_SOCKET:
        return open_socket(network, nic.target, error);
    case NIC_NONE:
        return true;
    }
    return false;
}
