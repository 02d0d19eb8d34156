/* The control socket; see control.h. */
#include "machine/control.h"

#include "base/error.h"
#include "base/fds.h"
#include "base/log.h"
#include "machine/control-core.h"
#include "machine/screen-reader.h"
#include "machine/typist.h"

#include <errno.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    REQUEST_MAX = 65536,   /* bytes of one line */
    BACKLOG_MAX = 1 << 20, /* bytes that a client may leave unread */
};

/* JSON-RPC 2.0 section 5.1. Our own errors are the exit statuses (base/error.h). */
enum { RPC_PARSE = -32700, RPC_INVALID = -32600, RPC_NO_METHOD = -32601, RPC_BAD_PARAMS = -32602 };

/* --- clients -------------------------------------------------------------------------------- */

static void close_passed(struct client *c)
{
    if (c->passed >= 0)
        close(c->passed);
    c->passed = -1;
}

static void drop(struct client *c)
{
    g_clear_handle_id(&c->in_source, g_source_remove);
    g_clear_handle_id(&c->out_source, g_source_remove);
    close(c->fd);
    c->fd = -1;
    close_passed(c);
    control_forget_watches(c);
    g_string_free(c->in, true);
    g_string_free(c->out, true);
}

/* Writes what the socket takes. False when the client is gone. */
static bool flush(struct client *c)
{
    while (c->out->len) {
        ssize_t n = send(c->fd, c->out->str, c->out->len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        if (n <= 0)
            return false;
        g_string_erase(c->out, 0, n);
    }
    return true;
}

static gboolean writable(int fd, GIOCondition condition, void *data)
{
    struct client *c = data;
    (void)fd, (void)condition;
    if (!flush(c)) {
        c->out_source = 0;
        drop(c);
        return G_SOURCE_REMOVE;
    }
    if (c->out->len)
        return G_SOURCE_CONTINUE;
    c->out_source = 0;
    return G_SOURCE_REMOVE;
}

void control_tell(struct client *c, json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    if (!text)
        return;
    g_string_append(c->out, text);
    g_string_append_c(c->out, '\n');
    free(text);
    if (!flush(c) || c->out->len > BACKLOG_MAX)
        drop(c);
    else if (c->out->len && !c->out_source)
        c->out_source = g_unix_fd_add(c->fd, G_IO_OUT, writable, c);
}

static void broadcast(struct control *control, const char *event, json_t *params)
{
    json_t *json =
        json_pack("{s:s, s:s, s:o}", "jsonrpc", "2.0", "method", event, "params", params);
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
        if (control->clients[i].fd >= 0 && control->clients[i].events)
            control_tell(&control->clients[i], json_incref(json));
    json_decref(json);
}

/* --- methods -------------------------------------------------------------------------------- */

const char *control_state_word(const struct machine *machine)
{
    static const char *const words[] = { "running", "paused", "disk-full", "crashed", "off" };
    return words[machine_state(machine)];
}

static json_t *method_events(struct client *c, const json_t *params, GError **error)
{
    (void)params, (void)error;
    c->events = true;
    return json_pack("{s:s, s:s}", "state", control_state_word(c->control->machine), "why",
                     machine_why(c->control->machine));
}

/* `params` are the parameters that there can be; NULL: the method says. */
static const struct {
    const char *name, *params;
    method *run;
} methods[] = {
    { "cpus", "", control_cpus },
    { "eject", "drive", control_eject },
    { "events", "", method_events },
    { "fault", "kind disk sector last of ms percent seed", control_fault },
    { "info", "", control_info },
    { "screen.text", "glyphs", control_screen_text },
    { "screen.watch", "text", control_screen_watch },
    { "send.key", "keys", control_send_key },
    { "send.keys", "chords", control_send_keys },
    { "send.pointer", "x y dx dy wheel buttons", control_send_pointer },
    { "send.text", "text", control_send_text },
    { "set", NULL, control_set },
    { "stop", "how", control_stop },
};

/* --- requests ------------------------------------------------------------------------------- */

static json_t *failure(json_t *id, int code, const char *message)
{
    return !id ? NULL
               : json_pack("{s:s, s:O, s:{s:i, s:s}}", "jsonrpc", "2.0", "id", id, "error", "code",
                           code, "message", message);
}

/* A parameter that the method does not have, when there is one: a typing error is none to obey. */
static bool unknown(const char *known, const json_t *params, GError **error)
{
    g_auto(GStrv) words = g_strsplit(known, " ", -1);
    void *at = json_object_iter((json_t *)(uintptr_t)params);
    for (; at; at = json_object_iter_next((json_t *)(uintptr_t)params, at)) {
        const char *key = json_object_iter_key(at);
        const char *near = hv_nearest(key, (const char *const *)words);
        if (!*key || !g_strv_contains((const char *const *)words, key))
            return !hv_fail(error, HV_USAGE, "%s: there is no such parameter%s%s%s", key,
                            near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }
    return false;
}

/* Carries out a request that is one. `id` is NULL when it wants no answer. */
static json_t *run(struct client *c, const char *name, const json_t *params, json_t *id)
{
    g_autoptr(GError) error = NULL;
    if (params && !json_is_object(params))
        return failure(id, RPC_BAD_PARAMS, "\"params\": an object is wanted");
    for (size_t i = 0; i < G_N_ELEMENTS(methods); i++) {
        if (strcmp(methods[i].name, name))
            continue;
        json_t *result = methods[i].params && unknown(methods[i].params, params, &error)
                             ? NULL
                             : methods[i].run(c, params, &error);
        if (result && id)
            return json_pack("{s:s, s:O, s:o}", "jsonrpc", "2.0", "id", id, "result", result);
        json_decref(result);
        return error ? failure(id, hv_exit_status(error), error->message) : NULL;
    }
    return failure(id, RPC_NO_METHOD, "there is no such method");
}

/* The answer to a line; NULL when it wants none (JSON-RPC 2.0 section 4.1). What is no request at
 * all is told so. */
static json_t *answer(struct client *c, const char *line, size_t length)
{
    json_error_t parse;
    json_t *request = json_loadb(line, length, JSON_REJECT_DUPLICATES, &parse);
    json_t *id = json_object_get(request, "id"), *reply = NULL;
    const char *name = json_string_value(json_object_get(request, "method"));
    bool sound_id = !id || json_is_string(id) || json_is_number(id) || json_is_null(id);
    g_autofree char *why = g_utf8_make_valid(parse.text, -1); /* it quotes the request */
    if (!request)
        reply = failure(json_null(), RPC_PARSE, why);
    else if (!sound_id)
        reply = failure(json_null(), RPC_INVALID, "\"id\": a string or a number is wanted");
    else if (!name)
        reply = failure(id ? id : json_null(), RPC_INVALID, "\"method\": a string is wanted");
    else
        reply = run(c, name, json_object_get(request, "params"), id);
    json_decref(request);
    return reply;
}

/* Answers the whole lines of what came. False when the client is to be dropped. */
static bool answer_lines(struct client *c)
{
    char *end;
    while ((end = memchr(c->in->str, '\n', c->in->len))) {
        size_t length = (size_t)(end - c->in->str);
        if (length > REQUEST_MAX)
            return false;
        json_t *reply = answer(c, c->in->str, length);
        if (c->fd < 0) { /* an event of its own was too much for it */
            json_decref(reply);
            return true;
        }
        g_string_erase(c->in, 0, (gssize)length + 1);
        if (reply)
            control_tell(c, reply);
        if (c->fd < 0)
            return true;
    }
    if (!c->in->len)
        close_passed(c); /* the request that it came with did not want it */
    return c->in->len <= REQUEST_MAX;
}

/* Takes what is there. False at the end, and when more descriptors came than are taken. */
static bool take(struct client *c, bool *refused)
{
    char chunk[4096];
    unsigned count;
    int passed;
    g_autoptr(GError) error = NULL;
    ssize_t n = fds_receive(c->fd, chunk, sizeof chunk, &passed, 1, &count, &error);
    bool second = n > 0 && count && c->passed >= 0;
    if (second)
        close(passed);
    else if (n > 0 && count)
        c->passed = passed;
    *refused = n < 0 || second;
    if (n > 0)
        g_string_append_len(c->in, chunk, n);
    return n > 0 && !second;
}

static gboolean readable(int fd, GIOCondition condition, void *data)
{
    struct client *c = data;
    bool refused;
    (void)fd, (void)condition;
    bool fine = take(c, &refused);
    if (fine && !answer_lines(c)) {
        fine = false;
        refused = c->fd >= 0;
    }
    if (c->fd >= 0 && refused) {
        g_autofree char *why =
            g_strdup_printf("a request has at most %d bytes and one descriptor", REQUEST_MAX);
        control_tell(c, failure(json_null(), RPC_INVALID, why));
    }
    if (c->fd >= 0 && !fine)
        drop(c);
    return c->fd >= 0;
}

static gboolean greet(int fd, GIOCondition condition, void *data);

static gboolean listen_again(void *data)
{
    struct control *control = data;
    g_unix_fd_add(control->listener, G_IO_IN, greet, control);
    return G_SOURCE_REMOVE;
}

static gboolean greet(int fd, GIOCondition condition, void *data)
{
    struct control *control = data;
    (void)condition;
    int socket = fds_accept(fd);
    struct client *c = NULL;
    if (socket == FDS_NONE_LEFT) {
        g_timeout_add(FDS_REST_MS, listen_again, control);
        return G_SOURCE_REMOVE;
    }
    for (unsigned i = 0; socket >= 0 && i < CONTROL_CLIENTS && !c; i++)
        if (control->clients[i].fd < 0)
            c = &control->clients[i];
    if (!c) {
        if (socket >= 0)
            close(socket);
        return G_SOURCE_CONTINUE;
    }
    *c = (struct client){ .control = control, .fd = socket, .passed = -1 };
    c->in = g_string_new(NULL);
    c->out = g_string_new(NULL);
    c->in_source = g_unix_fd_add(socket, G_IO_IN, readable, c);
    return G_SOURCE_CONTINUE;
}

/* --- events --------------------------------------------------------------------------------- */

static void state_event(void *opaque, enum display_state state, const char *why)
{
    struct control *control = opaque;
    (void)state;
    broadcast(control, "state",
              json_pack("{s:s, s:s, s:i}", "state", control_state_word(control->machine), "why",
                        why, "status", machine_exit_status(control->machine)));
}

static void other_event(void *opaque, const char *name, const char *text)
{
    broadcast(opaque, name, json_pack("{s:s}", "text", text));
}

/* The guest has taken all that was to be typed; if nothing came since. */
static gboolean tell_typed(void *data)
{
    struct control *control = data;
    if (!typist_busy(control->typist))
        broadcast(control, "typed", json_object());
    return G_SOURCE_REMOVE;
}

static void typed(void *control)
{
    g_idle_add_full(G_PRIORITY_DEFAULT, tell_typed, control, NULL);
}

struct control *control_new(struct machine *machine, struct display *display, struct typist *typist,
                            int listener)
{
    struct control *control = g_new0(struct control, 1);
    *control = (struct control){
        .machine = machine, .display = display, .typist = typist, .listener = listener
    };
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
        control->clients[i].fd = -1;
    control->reader = screen_reader_new(machine, display, control_screen_changed, control);
    typist_on_typed(typist, typed, control);
    machine_listen(machine, &(struct machine_listener){ state_event, other_event, control });
    listen_again(control);
    return control;
}
