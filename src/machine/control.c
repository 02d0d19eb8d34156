/* The control socket; see control.h. */
#include "machine/control.h"

#include "base/cp437.h"
#include "base/error.h"
#include "base/fds.h"
#include "base/log.h"
#include "machine/display.h"
#include "machine/info.h"
#include "machine/media.h"
#include "machine/typist.h"

#include <errno.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MAX_CLIENTS = 16,
    REQUEST_MAX = 65536,   /* bytes of one line */
    BACKLOG_MAX = 1 << 20, /* bytes that a client may leave unread */
};

/* JSON-RPC 2.0 section 5.1. Our own errors are the exit statuses (base/error.h). */
enum { RPC_PARSE = -32700, RPC_INVALID = -32600, RPC_NO_METHOD = -32601, RPC_BAD_PARAMS = -32602 };

struct client {
    struct control *control;
    int fd; /* -1: free */
    guint in_source, out_source;
    GString *in, *out;
    int passed; /* the descriptor that came beside the request; -1: none */
    bool events;
};

struct control {
    struct machine *machine;
    struct display *display;
    struct typist *typist;
    int listener;
    struct client clients[MAX_CLIENTS];
};

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

/* Takes over the reference to json. */
static void tell(struct client *c, json_t *json)
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
    for (unsigned i = 0; i < MAX_CLIENTS; i++)
        if (control->clients[i].fd >= 0 && control->clients[i].events)
            tell(&control->clients[i], json_incref(json));
    json_decref(json);
}

/* --- methods -------------------------------------------------------------------------------- */

/* Answers with a result, or NULL and an error. */
typedef json_t *method(struct client *c, const json_t *params, GError **error);

static const char *state_word(const struct machine *machine)
{
    static const char *const words[] = { "running", "paused", "disk-full", "crashed", "off" };
    return words[machine_state(machine)];
}

static json_t *method_info(struct client *c, const json_t *params, GError **error)
{
    const struct config *config = machine_config(c->control->machine);
    (void)params, (void)error;
    return json_pack("{s:s, s:s, s:s, s:i, s:I, s:I, s:i, s:b, s:s*, s:o, s:o*, s:o*}", "name",
                     config->name, "state", state_word(c->control->machine), "why",
                     machine_why(c->control->machine), "pid", (int)getpid(), "memory",
                     (json_int_t)config->memory, "cpus", (json_int_t)config->cpus, "viewers",
                     (int)display_viewers(c->control->display), "typing",
                     typist_busy(c->control->typist), "net", config->net, "disks",
                     info_disks(c->control->machine), "guest-memory",
                     info_memory(c->control->machine), "vhost", info_vhost(c->control->machine));
}

static void kill_machine(struct machine *machine)
{
    machine_power_off(machine, machine_state(machine) == STATE_CRASHED ? HV_CRASHED : HV_OK);
}

enum { ANY_STATE = ~0u };

/* What "stop" does, and in which states that means anything. */
static const struct {
    const char *how;
    void (*run)(struct machine *machine);
    unsigned states; /* bits of enum display_state */
    const char *otherwise;
} stops[] = {
    { "shutdown", machine_press_power, 1u << STATE_RUNNING,
      "its power button is heard only while it runs; --resume or --kill" },
    { "kill", kill_machine, ANY_STATE, NULL },
    { "reset", machine_reset, ANY_STATE & ~(1u << STATE_DISK_FULL),
      "what it writes would be lost; --resume when there is space, or --kill" },
    { "pause", machine_pause, 1u << STATE_RUNNING, "only a running machine can be paused" },
    { "resume", machine_resume, 1u << STATE_PAUSED | 1u << STATE_DISK_FULL,
      "only a paused machine can be resumed" },
};

static json_t *method_stop(struct client *c, const json_t *params, GError **error)
{
    struct machine *machine = c->control->machine;
    const json_t *wish = json_object_get(params, "how");
    const char *how = wish ? json_string_value(wish) : "shutdown";
    for (size_t i = 0; how && i < G_N_ELEMENTS(stops); i++) {
        if (strcmp(stops[i].how, how))
            continue;
        if (!(stops[i].states & 1u << machine_state(machine))) {
            hv_fail(error, HV_WRONG_STATE, "it is %s: %s", state_word(machine), stops[i].otherwise);
            return NULL;
        }
        stops[i].run(machine);
        return json_pack("{s:s}", "state", state_word(machine));
    }
    hv_fail(error, HV_USAGE, "how: \"%s\": shutdown, kill, reset, pause or resume is wanted",
            how ? how : "");
    return NULL;
}

static json_t *method_screen_text(struct client *c, const json_t *params, GError **error)
{
    struct device *dev = machine_display(c->control->machine);
    g_autofree struct screen_text *text = g_new0(struct screen_text, 1);
    (void)params, (void)error;
    device_lock(dev);
    dev->class->screen->text(dev, text);
    device_unlock(dev);
    json_t *lines = json_array();
    for (uint32_t row = 0; row < text->rows; row++) {
        g_autoptr(GString) line = g_string_new(NULL);
        for (uint32_t column = 0; column < text->columns; column++)
            g_string_append_unichar(line,
                                    cp437_character(text->cell[row * text->columns + column].code));
        g_strchomp(line->str);
        json_array_append_new(lines, json_string(line->str));
    }
    return json_pack("{s:b, s:i, s:i, s:o}", "graphics", text->rows == 0, "columns",
                     (int)text->columns, "rows", (int)text->rows, "lines", lines);
}

static json_t *method_send_key(struct client *c, const json_t *params, GError **error)
{
    uint8_t usages[TYPIST_CHORD];
    unsigned count = 0;
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(params, "keys"), i, item)
    {
        const char *name = json_string_value(item);
        if (!name || count == TYPIST_CHORD) {
            hv_fail(error, HV_USAGE, "keys: at most %d names of keys are wanted", TYPIST_CHORD);
            return NULL;
        }
        if (!(usages[count++] = typist_key_named(name))) {
            const char *near = typist_key_near(name);
            hv_fail(error, HV_USAGE, "there is no key \"%s\"%s%s%s", name,
                    near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
            return NULL;
        }
    }
    if (!count) {
        hv_fail(error, HV_USAGE, "keys: a list of names of keys is wanted");
        return NULL;
    }
    if (!typist_chord(c->control->typist, usages, count)) {
        hv_fail(error, HV_WRONG_STATE, "the guest has not read what was typed before");
        return NULL;
    }
    return json_object();
}

static json_t *method_send_text(struct client *c, const json_t *params, GError **error)
{
    const char *text = json_string_value(json_object_get(params, "text"));
    if (!text) {
        hv_fail(error, HV_USAGE, "text: a string is wanted");
        return NULL;
    }
    unsigned left_out = typist_text(c->control->typist, text, strlen(text));
    return json_pack("{s:i}", "left_out", (int)left_out);
}

static json_t *method_eject(struct client *c, const json_t *params, GError **error)
{
    return media_eject(c->control->machine, params, error) ? json_object() : NULL;
}

static bool set_cd(struct client *c, const json_t *value, GError **error)
{
    return media_set(c->control->machine, MEDIUM_CD, value, &c->passed, error);
}

static bool set_fd(struct client *c, const json_t *value, GError **error)
{
    return media_set(c->control->machine, MEDIUM_FLOPPY, value, &c->passed, error);
}

/* How much of its memory the guest is to use. Done when its balloon driver has got there. */
static bool set_memory(struct client *c, const json_t *value, GError **error)
{
    uint64_t most = machine_config(c->control->machine)->memory;
    json_int_t bytes = json_integer_value(value);
    struct device *dev = info_find(c->control->machine, info_has_memory);
    if (bytes < (json_int_t)MIB || (uint64_t)bytes > most)
        return hv_fail(error, HV_USAGE,
                       "memory: from 1 MiB to the machine's %" G_GUINT64_FORMAT
                       " MiB are possible, in bytes",
                       most / MIB);
    if (!dev)
        return hv_fail(error, HV_WRONG_STATE, "memory: the machine has no virtio-balloon");
    device_lock(dev);
    bool heard = dev->class->memory_wish(dev, (uint64_t)bytes);
    device_unlock(dev);
    return heard || hv_fail(error, HV_WRONG_STATE,
                            "memory: the guest has no balloon driver running; it will hear of it "
                            "when it starts one");
}

static bool has_terminal(const struct device_class *class)
{
    return class->terminal_resized;
}

static bool set_terminal(struct client *c, const json_t *value, GError **error)
{
    int columns, rows;
    struct device *dev = info_find(c->control->machine, has_terminal);
    if (json_unpack((json_t *)(uintptr_t)value, "{s:i, s:i}", "columns", &columns, "rows", &rows) ||
        columns < 0 || columns > UINT16_MAX || rows < 0 || rows > UINT16_MAX)
        return hv_fail(error, HV_USAGE, "terminal: numbers of columns and rows are wanted");
    if (!dev)
        return hv_fail(error, HV_WRONG_STATE, "terminal: the machine has no virtio-console");
    device_lock(dev);
    dev->class->terminal_resized(dev, (unsigned)columns, (unsigned)rows);
    device_unlock(dev);
    return true;
}

static bool set_net(struct client *c, const json_t *value, GError **error)
{
    const char *word = json_string_value(value);
    bool in = word && !strcmp(word, "on");
    if (!in && (!word || strcmp(word, "off")))
        return hv_fail(error, HV_USAGE, "net: \"on\" or \"off\" is wanted");
    return machine_set_cable(c->control->machine, in, error);
}

/* Only larger. Without a number it is the machine's one disk. */
static bool set_disk(struct client *c, const json_t *value, GError **error)
{
    struct drives *drives = machine_drives(c->control->machine);
    json_int_t size = 0;
    int number = 0, more = false;
    if (json_unpack((json_t *)(uintptr_t)value, "{s:I, s?i, s?b}", "size", &size, "number", &number,
                    "more", &more) ||
        size <= 0 || number < 0)
        return hv_fail(error, HV_USAGE, "disk: a size in bytes, and which number, are wanted");
    if (!number && drives_disk(drives, 2))
        return hv_fail(error, HV_USAGE, "disk: it has more than one: disk1, disk2 ...");
    struct machine_drive *drive = drives_disk(drives, number ? (unsigned)number : 1);
    if (!drive)
        return hv_fail(error, HV_WRONG_STATE, "disk%d: it has no such disk", number ? number : 1);
    if (machine_state(c->control->machine) == STATE_DISK_FULL)
        return hv_fail(error, HV_WRONG_STATE,
                       "disk: the machine waits for room on the host's disk: `hv stop --resume` "
                       "lets it go on when there is some");
    return drives_grow(drive, (uint64_t)size, more, error);
}

static json_t *method_set(struct client *c, const json_t *params, GError **error)
{
    static const struct {
        const char *key;
        bool (*set)(struct client *c, const json_t *value, GError **error);
    } things[] = {
        { "cd", set_cd },         { "disk", set_disk }, { "fd", set_fd },
        { "memory", set_memory }, { "net", set_net },   { "terminal", set_terminal },
    };
    const char *keys[G_N_ELEMENTS(things) + 1] = { NULL };
    const char *key = json_object_iter_key(json_object_iter((json_t *)(uintptr_t)params));
    if (!key || json_object_size(params) != 1) {
        hv_fail(error, HV_USAGE, "one thing to be set is wanted, such as cd");
        return NULL;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(things); i++) {
        if (!strcmp(things[i].key, key))
            return things[i].set(c, json_object_get(params, key), error) ? json_object() : NULL;
        keys[i] = things[i].key;
    }
    const char *near = hv_nearest(key, keys);
    hv_fail(error, HV_USAGE, "there is nothing called \"%s\" to be set%s%s%s", key,
            near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return NULL;
}

static json_t *method_events(struct client *c, const json_t *params, GError **error)
{
    (void)params, (void)error;
    c->events = true;
    return json_pack("{s:s, s:s}", "state", state_word(c->control->machine), "why",
                     machine_why(c->control->machine));
}

static const struct {
    const char *name;
    method *run;
} methods[] = {
    { "info", method_info },
    { "stop", method_stop },
    { "screen.text", method_screen_text },
    { "send.key", method_send_key },
    { "send.text", method_send_text },
    { "eject", method_eject },
    { "set", method_set },
    { "events", method_events },
};

/* --- requests ------------------------------------------------------------------------------- */

static json_t *failure(json_t *id, int code, const char *message)
{
    return !id ? NULL
               : json_pack("{s:s, s:O, s:{s:i, s:s}}", "jsonrpc", "2.0", "id", id, "error", "code",
                           code, "message", message);
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
        json_t *result = methods[i].run(c, params, &error);
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
            tell(c, reply);
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
        tell(c, failure(json_null(), RPC_INVALID, why));
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
    for (unsigned i = 0; socket >= 0 && i < MAX_CLIENTS && !c; i++)
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
              json_pack("{s:s, s:s, s:i}", "state", state_word(control->machine), "why", why,
                        "status", machine_exit_status(control->machine)));
}

static void other_event(void *opaque, const char *name, const char *text)
{
    broadcast(opaque, name, json_pack("{s:s}", "text", text));
}

struct control *control_new(struct machine *machine, struct display *display, struct typist *typist,
                            int listener)
{
    struct control *control = g_new0(struct control, 1);
    *control = (struct control){ machine, display, typist, listener, { { .fd = 0 } } };
    for (unsigned i = 0; i < MAX_CLIENTS; i++)
        control->clients[i].fd = -1;
    machine_listen(machine, &(struct machine_listener){ state_event, other_event, control });
    listen_again(control);
    return control;
}
