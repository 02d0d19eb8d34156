/* The machines that run: their directories and control sockets. */
#include "base/error.h"
#include "base/fds.h"
#include "block/image.h"
#include "cli/cli.h"
#include "cli/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

char *machines_dir(GError **error)
{
    const char *runtime = g_getenv("XDG_RUNTIME_DIR");
    g_autofree char *dir = NULL;
    if (runtime && *runtime)
        dir = g_build_filename(runtime, "hv", NULL);
    else
        dir = g_strdup_printf("/tmp/hv-%u", (unsigned)getuid());
    struct stat info;
    if (g_mkdir_with_parents(dir, 0700) < 0 || lstat(dir, &info) < 0) {
        hv_fail(error, HV_FAILED, "%s: cannot be made: %s", dir, g_strerror(errno));
        return NULL;
    }
    if (!S_ISDIR(info.st_mode) || info.st_uid != getuid() || info.st_mode & 022) {
        hv_fail(error, HV_FAILED, "%s: is not a directory of yours alone: remove it", dir);
        return NULL;
    }
    return g_steal_pointer(&dir);
}

/* With its lock held: a machine that is just taking the name sees that its directory went. */
static void remove_dead(const char *dir, const char *name)
{
    static const char *const files[] = {
        "control", "display", "images", "lock", "net", "vsock",
    };
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autofree char *lock_path = g_build_filename(path, "lock", NULL);
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
    int fd = open(lock_path, O_RDWR | O_CLOEXEC);
    bool ours = fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) == 0;
    for (size_t i = 0; ours && i < G_N_ELEMENTS(files); i++) {
        g_autofree char *file = g_build_filename(path, files[i], NULL);
        unlink(file);
    }
    rmdir(path); /* when it is empty */
    if (fd >= 0)
        close(fd);
}

GPtrArray *machines_running(GError **error)
{
    g_autofree char *path = machines_dir(error);
    if (!path)
        return NULL;
    g_autoptr(GDir) dir = g_dir_open(path, 0, error);
    if (!dir)
        return NULL;
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    const char *name;
    while ((name = g_dir_read_name(dir))) {
        if (machine_runs(path, name))
            g_ptr_array_add(names, g_strdup(name));
        else
            remove_dead(path, name);
    }
    return names;
}

/* --- one machine ---------------------------------------------------------------------------- */

/* The machine meant by NAME, which may be the path of its directory, or by none. */
static char *resolve(const char *wish, GError **error)
{
    bool is_path = wish && (strchr(wish, '/') || !strcmp(wish, ".") || !strcmp(wish, ".."));
    g_autofree char *of_folder = is_path ? launch_folder_name(wish, error) : NULL;
    if (is_path && !of_folder)
        return NULL;
    const char *name = is_path ? of_folder : wish;
    g_autoptr(GPtrArray) names = machines_running(error);
    if (!names)
        return NULL;
    for (guint i = 0; name && i < names->len; i++)
        if (!strcmp(g_ptr_array_index(names, i), name))
            return g_strdup(name);
    if (!name && names->len == 1)
        return g_strdup(g_ptr_array_index(names, 0));
    if (!name) {
        hv_fail(error, names->len ? HV_USAGE : HV_NOT_FOUND,
                names->len ? "several machines run: say which (hv list)" : "no machine runs");
        return NULL;
    }
    g_ptr_array_add(names, NULL);
    const char *near = hv_nearest(name, (const char *const *)names->pdata);
    hv_fail(error, HV_NOT_FOUND, "no machine \"%s\" runs%s%s%s; hv list shows those that do", name,
            near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return NULL;
}

static int connect_to(const char *name, const char *file, int type, GError **error)
{
    g_autofree char *dir = machines_dir(error);
    if (!dir)
        return -1;
    g_autofree char *path = g_build_filename(dir, name, file, NULL);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (strlen(path) < sizeof address.sun_path) {
        strcpy(address.sun_path, path);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
            return fd;
    } else {
        errno = ENAMETOOLONG;
    }
    hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

int display_connect(const char *name, GError **error)
{
    return connect_to(name, "display", SOCK_SEQPACKET, error);
}

int vsock_connect(const char *name, GError **error)
{
    g_autofree char *found = resolve(name, error);
    return found ? connect_to(found, "vsock", SOCK_STREAM, error) : -1;
}

struct client {
    char *name;
    int fd;
    GString *in;
    int id;
};

static struct client *open_client(const char *name, const char *file, GError **error)
{
    g_autofree char *found = resolve(name, error);
    int fd = found ? connect_to(found, file, SOCK_STREAM, error) : -1;
    if (fd < 0)
        return NULL;
    struct client *client = g_new0(struct client, 1);
    client->name = g_steal_pointer(&found);
    client->fd = fd;
    client->in = g_string_new(NULL);
    return client;
}

struct client *client_open(const char *name, GError **error)
{
    return open_client(name, "control", error);
}

struct client *client_open_network(const char *name, GError **error)
{
    g_autofree char *found = resolve(name, error), *dir = found ? machines_dir(error) : NULL;
    g_autofree char *path = dir ? g_build_filename(dir, found, "net", NULL) : NULL;
    if (path && !g_file_test(path, G_FILE_TEST_EXISTS)) {
        hv_fail(error, HV_WRONG_STATE, "%s: its network is not the network \"user\"", found);
        return NULL;
    }
    return path ? open_client(found, "net", error) : NULL;
}

void client_close(struct client *client)
{
    if (!client)
        return;
    close(client->fd);
    g_free(client->name);
    g_string_free(client->in, true);
    g_free(client);
}

const char *client_name(const struct client *client)
{
    return client->name;
}

int client_fd(const struct client *client)
{
    return client->fd;
}

/* The next line as JSON; NULL at the end, or when none came in time (timed_out). */
static json_t *receive(struct client *client, int timeout_ms, bool *timed_out)
{
    char chunk[4096], *end;
    *timed_out = false;
    while (!(end = memchr(client->in->str, '\n', client->in->len))) {
        struct pollfd wait = { client->fd, POLLIN, 0 };
        int ready = poll(&wait, 1, timeout_ms);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready == 0) {
            *timed_out = true;
            return NULL;
        }
        ssize_t n = read(client->fd, chunk, sizeof chunk);
        if (n <= 0)
            return NULL;
        g_string_append_len(client->in, chunk, n);
    }
    size_t length = (size_t)(end - client->in->str);
    json_t *json = json_loadb(client->in->str, length, 0, NULL);
    g_string_erase(client->in, 0, (gssize)length + 1);
    return json;
}

json_t *client_call(struct client *client, const char *method, json_t *params, GError **error)
{
    return client_pass(client, method, params, -1, error);
}

json_t *client_pass(struct client *client, const char *method, json_t *params, int fd,
                    GError **error)
{
    enum { ANSWER_MS = 10000 };
    json_t *request = json_pack("{s:s, s:i, s:s, s:o*}", "jsonrpc", "2.0", "id", ++client->id,
                                "method", method, "params", params);
    g_autofree char *text = json_dumps(request, JSON_COMPACT);
    json_decref(request);
    g_autofree char *line = g_strconcat(text, "\n", NULL);
    bool timed_out = false;
    json_t *reply = NULL, *result = NULL;
    const json_t *id;
    /* A request that is refused before its end is answered all the same, with no id. */
    fds_send(client->fd, line, strlen(line), &fd, fd >= 0, NULL);
    do {
        json_decref(reply);
        reply = receive(client, ANSWER_MS, &timed_out);
        id = json_object_get(reply, "id");
    } while (reply && !json_is_null(id) && json_integer_value(id) != client->id);
    if (!reply) {
        hv_fail(error, timed_out ? HV_TIMED_OUT : HV_FAILED, "%s does not answer", client->name);
        return NULL;
    }
    const json_t *failure = json_object_get(reply, "error");
    if (failure)
        hv_fail(error, CLAMP((int)json_integer_value(json_object_get(failure, "code")), 1, 7),
                "%s: %s", client->name, json_string_value(json_object_get(failure, "message")));
    else
        result = json_incref(json_object_get(reply, "result"));
    json_decref(reply);
    return result;
}

json_t *client_event(struct client *client, int timeout_ms, bool *ended)
{
    bool timed_out;
    json_t *event = receive(client, timeout_ms, &timed_out);
    *ended = !event && !timed_out;
    return event;
}

/* --- programs ------------------------------------------------------------------------------- */

char *program_path(const char *name)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = g_path_get_dirname(self ? self : "");
    g_autofree char *beside = g_build_filename(dir, name, NULL);
    if (g_file_test(beside, G_FILE_TEST_IS_EXECUTABLE))
        return g_steal_pointer(&beside);
    return g_build_filename(dir, "..", "libexec", "hv", name, NULL);
}

int program_start(const char *program, char **argv, const int *fds, unsigned count, bool quiet)
{
    /* Unlike fork, this waits for exec: until then the child holds copies of all that is open here,
     * and with them the locks of images and of the name, which might outlive a short machine. */
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none;
    pid_t pid;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    /* A session of its own: a Ctrl-C in the terminal is for hv. */
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
    for (int i = 0; quiet && i < 3; i++)
        posix_spawn_file_actions_addopen(&files, i, "/dev/null", O_RDWR, 0);
    for (unsigned i = 0; i < count; i++) /* onto itself: it stays open */
        posix_spawn_file_actions_adddup2(&files, fds[i], fds[i]);
    int result = posix_spawn(&pid, program, &files, &attributes, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    return result;
}

/* Runs in the child. */
static void keep_display(void *data)
{
    fcntl(GPOINTER_TO_INT(data), F_SETFD, 0);
    setsid(); /* a Ctrl-C in the terminal is for hv */
}

int viewer_start(int display, const char *name, GError **error)
{
    g_autofree char *program = program_path("hv-view");
    g_autofree char *number = g_strdup_printf("%d", display);
    char *argv[] = { program,          (char *)"--fd",          number,
                     (char *)"--name", (char *)(uintptr_t)name, NULL };
    GPid pid = -1;
    g_autoptr(GError) why = NULL;
    if (!g_spawn_async(NULL, argv, NULL, G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_LEAVE_DESCRIPTORS_OPEN,
                       keep_display, GINT_TO_POINTER(display), &pid, &why)) {
        hv_fail(error, HV_HOST, "%s: the window cannot be opened: %s", program, why->message);
        pid = -1;
    }
    close(display);
    return pid;
}
