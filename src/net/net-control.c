/* The control socket of hv-net; see net-control.h. */
#include "net/net-control.h"

#include "base/error.h"
#include "base/fds.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS = PROBES, REQUEST_MAX = 4096 };

/* JSON-RPC 2.0 section 5.1. Our own errors are the exit statuses (base/error.h). */
enum { RPC_PARSE = -32700, RPC_INVALID = -32600, RPC_NO_METHOD = -32601 };

struct client {
    int fd;   /* -1: free */
    guint at; /* in the array of poll */
    bool events;
    size_t length;
    char in[REQUEST_MAX];
};

struct net_control {
    struct net_view *view;
    int listener;
    guint at;
    gint64 rests_until; /* us: no descriptors are left for clients */
    struct client clients[CLIENTS];
};

struct net_control *net_control_new(int listener, struct net_view *view)
{
    struct net_control *control = g_new0(struct net_control, 1);
    control->view = view;
    control->listener = listener;
    for (unsigned i = 0; i < CLIENTS; i++)
        control->clients[i].fd = -1;
    return control;
}

/* --- methods -------------------------------------------------------------------------------- */

static json_t *list_ports(const struct ports *ports)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < ports->count; i++) {
        char text[PORT_TEXT];
        port_format(&ports->list[i], text);
        json_array_append_new(list, json_string(text));
    }
    return list;
}

static json_t *method_info(struct net_control *control, struct client *c, const json_t *params,
                           GError **error)
{
    const struct net_view *view = control->view;
    (void)c, (void)params, (void)error;
    return json_pack("{s:i, s:b, s:o, s:i, s:I, s:I, s:I, s:I}", "pid", (int)getpid(), "restrict",
                     view->restricted, "ports", list_ports(view->ports), "connections",
                     (int)slirp_net_sockets(view->net), "received", (json_int_t)view->received,
                     "refused", (json_int_t)slirp_net_refused(view->net), "sent",
                     (json_int_t)view->out->sent, "dropped", (json_int_t)view->out->dropped);
}

static const char *rule_of(const json_t *params, GError **error)
{
    const char *text = json_string_value(json_object_get(params, "port"));
    if (!text)
        hv_fail(error, HV_USAGE, "port: a string is wanted, such as 8080:80");
    return text;
}

static unsigned slot_of(const struct net_control *control, const struct client *c)
{
    return (unsigned)(c - control->clients);
}

static void drop(struct net_control *control, struct client *c)
{
    probe_want(control->view->probe, slot_of(control, c), 0);
    close(c->fd);
    c->fd = -1;
}

/* Takes over the reference. What is told is small: a client whose socket is full does not read. */
static bool tell(struct client *c, json_t *json)
{
    g_autofree char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    if (!text)
        return true;
    g_autofree char *line = g_strconcat(text, "\n", NULL);
    ssize_t length = (ssize_t)strlen(line);
    return send(c->fd, line, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL) == length;
}

/* To all that asked for events; who asked for the change hears of it before the answer. */
static void tell_port(struct net_control *control, const struct port *port, bool published)
{
    char text[PORT_TEXT];
    port_format(port, text);
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *c = &control->clients[i];
        if (c->fd >= 0 && c->events &&
            !tell(c, json_pack("{s:s, s:s, s:{s:s, s:b}}", "jsonrpc", "2.0", "method", "port",
                               "params", "port", text, "published", published)))
            drop(control, c);
    }
}

static json_t *method_publish(struct net_control *control, struct client *c, const json_t *params,
                              GError **error)
{
    struct net_view *view = control->view;
    struct port port;
    (void)c;
    struct ports with = *view->ports;
    const char *text = rule_of(params, error);
    if (!text || !port_parse(text, &port, error))
        return NULL;
    if (port.udp && view->restricted) { /* libslirp would drop the guest's answers */
        hv_fail(error, HV_USAGE, "port %s: with restrict, only TCP ports can be published", text);
        return NULL;
    }
    if (!ports_add(&with, &port, error) || !slirp_net_open(view->net, &port, error))
        return NULL;
    *view->ports = with;
    ports_save(view->ports, view->ports_fd);
    tell_port(control, &port, true);
    return json_object();
}

static json_t *method_unpublish(struct net_control *control, struct client *c, const json_t *params,
                                GError **error)
{
    struct net_view *view = control->view;
    struct port port;
    (void)c;
    const char *text = rule_of(params, error);
    if (!text || !ports_remove(view->ports, text, &port, error))
        return NULL;
    slirp_net_close(view->net, &port);
    ports_save(view->ports, view->ports_fd);
    tell_port(control, &port, false);
    return json_object();
}

/* The event comes behind the answer: the guest has to be asked first. */
static json_t *method_probe(struct net_control *control, struct client *c, const json_t *params,
                            GError **error)
{
    json_int_t port = json_integer_value(json_object_get(params, "port"));
    if (port < 1 || port > UINT16_MAX) {
        hv_fail(error, HV_USAGE, "port: a number from 1 to 65535 is wanted");
        return NULL;
    }
    probe_want(control->view->probe, slot_of(control, c), (uint16_t)port);
    return json_object();
}

void net_control_accepts(struct net_control *control, unsigned slot, uint16_t port)
{
    struct client *c = &control->clients[slot];
    if (!tell(c, json_pack("{s:s, s:s, s:{s:i}}", "jsonrpc", "2.0", "method", "accepts", "params",
                           "port", (int)port)))
        drop(control, c);
}

static json_t *method_events(struct net_control *control, struct client *c, const json_t *params,
                             GError **error)
{
    (void)params, (void)error;
    c->events = true;
    return json_pack("{s:o}", "ports", list_ports(control->view->ports));
}

static const struct {
    const char *name;
    json_t *(*run)(struct net_control *control, struct client *c, const json_t *params,
                   GError **error);
} methods[] = {
    { "events", method_events },       /* tells of changes from now on */
    { "info", method_info },           /* what there is, and has been done */
    { "probe", method_probe },         /* asks the guest for an open port */
    { "publish", method_publish },     /* opens a port of this host */
    { "unpublish", method_unpublish }, /* closes it */
};

/* --- requests ------------------------------------------------------------------------------- */

static json_t *failure(json_t *id, int code, const char *message)
{
    return json_pack("{s:s, s:O, s:{s:i, s:s}}", "jsonrpc", "2.0", "id", id, "error", "code", code,
                     "message", message);
}

static json_t *run(struct net_control *control, struct client *c, const char *name,
                   const json_t *params, json_t *id)
{
    g_autoptr(GError) error = NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(methods); i++) {
        if (strcmp(methods[i].name, name))
            continue;
        json_t *result = methods[i].run(control, c, params, &error);
        if (result)
            return json_pack("{s:s, s:O, s:o}", "jsonrpc", "2.0", "id", id, "result", result);
        return failure(id, hv_exit_status(error), error->message);
    }
    return failure(id, RPC_NO_METHOD, "there is no such method");
}

/* The answer to a line; NULL when it wants none (JSON-RPC 2.0 section 4.1). */
static json_t *answer(struct net_control *control, struct client *c, const char *line,
                      size_t length)
{
    json_t *request = json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL), *reply;
    json_t *id = json_object_get(request, "id");
    const char *name = json_string_value(json_object_get(request, "method"));
    if (!request)
        reply = failure(json_null(), RPC_PARSE, "a JSON object is wanted");
    else if (!name)
        reply = failure(id ? id : json_null(), RPC_INVALID, "\"method\": a string is wanted");
    else
        reply = run(control, c, name, json_object_get(request, "params"), id ? id : json_null());
    if (request && name && !id)
        g_clear_pointer(&reply, json_decref);
    json_decref(request);
    return reply;
}

static void read_client(struct net_control *control, struct client *c)
{
    ssize_t n = recv(c->fd, c->in + c->length, sizeof c->in - c->length, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        drop(control, c);
        return;
    }
    c->length += (size_t)n;
    char *end;
    while ((end = memchr(c->in, '\n', c->length))) {
        size_t length = (size_t)(end - c->in);
        json_t *reply = answer(control, c, c->in, length);
        if (c->fd < 0) { /* an event of its own was too much for it */
            json_decref(reply);
            return;
        }
        if (!tell(c, reply)) {
            drop(control, c);
            return;
        }
        c->length -= length + 1;
        memmove(c->in, end + 1, c->length);
    }
    if (c->length == sizeof c->in) {
        tell(c, failure(json_null(), RPC_INVALID, "the request is too long"));
        drop(control, c);
    }
}

static void greet(struct net_control *control)
{
    int fd = fds_accept(control->listener);
    if (fd == FDS_NONE_LEFT)
        control->rests_until = g_get_monotonic_time() + FDS_REST_MS * 1000;
    for (unsigned i = 0; fd >= 0 && i < CLIENTS; i++) {
        struct client *c = &control->clients[i];
        if (c->fd < 0) {
            c->fd = fd;
            c->length = 0;
            c->events = false;
            c->at = G_MAXUINT;
            return;
        }
    }
    if (fd >= 0)
        close(fd);
}

static guint watch(GArray *fds, int fd)
{
    struct pollfd entry = { .fd = fd, .events = POLLIN };
    g_array_append_val(fds, entry);
    return fds->len - 1;
}

void net_control_prepare(struct net_control *control, GArray *fds)
{
    bool rests = control->rests_until > g_get_monotonic_time();
    control->at = watch(fds, rests ? -1 : control->listener);
    for (unsigned i = 0; i < CLIENTS; i++)
        control->clients[i].at = watch(fds, control->clients[i].fd);
}

void net_control_work(struct net_control *control, const GArray *fds)
{
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *c = &control->clients[i];
        if (c->fd >= 0 && g_array_index(fds, struct pollfd, c->at).revents)
            read_client(control, c);
    }
    if (g_array_index(fds, struct pollfd, control->at).revents)
        greet(control);
}
