/* The small verbs for machines that run: list, info, stop, set, eject, open; and devices. */
#include "base/error.h"
#include "block/chain.h"
#include "block/format.h"
#include "block/image.h"
#include "bus/device.h"
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/launch.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Takes the verb's arguments apart: flags, then at most one NAME. -1 when it may go on, else the
 * status to end with. */
static int only_name(const char *verb, int argc, char **argv, const struct flag *flags,
                     const char **name)
{
    int left = cli_flags(verb, argc, argv, flags);
    if (left < 0)
        return left == -2 ? HV_OK : HV_USAGE;
    if (left > 1)
        return cli_usage(verb, "one NAME is enough, \"%s\" is too much", argv[1]);
    *name = left ? argv[0] : NULL;
    return -1;
}

static const struct flag no_flags[] = { { .name = NULL } };

static void print_json(const json_t *json)
{
    g_autofree char *text = json_dumps(json, JSON_INDENT(2));
    puts(text);
}

/* Calls a method of the machine, with an open file (-1: none); prints the result when asked. */
static int call_with(const char *name, const char *method, json_t *params, int fd, bool print)
{
    GError *error = NULL;
    struct client *client = client_open(name, &error);
    if (!client) {
        json_decref(params);
        return cli_fail(error);
    }
    json_t *result = client_pass(client, method, params, fd, &error);
    client_close(client);
    if (!result)
        return cli_fail(error);
    if (print)
        print_json(result);
    json_decref(result);
    return HV_OK;
}

static int call(const char *name, const char *method, json_t *params, bool print)
{
    return call_with(name, method, params, -1, print);
}

int verb_list(int argc, char **argv)
{
    const char *name = NULL;
    int status = only_name("list", argc, argv, no_flags, &name);
    if (status >= 0)
        return status;
    GError *error = NULL;
    g_autoptr(GPtrArray) names = machines_running(&error);
    if (!names)
        return cli_fail(error);
    for (guint i = 0; i < names->len; i++) {
        struct client *client = client_open(g_ptr_array_index(names, i), NULL);
        json_t *info = client ? client_call(client, "info", NULL, NULL) : NULL;
        client_close(client);
        const json_t *memory = json_object_get(info, "memory");
        if (i == 0)
            printf("%-20s %-10s %8s %5s %8s\n", "NAME", "STATE", "MEMORY", "CPUS", "PID");
        printf("%-20s %-10s %6lldMi %5lld %8lld\n", (char *)g_ptr_array_index(names, i),
               info ? json_string_value(json_object_get(info, "state")) : "silent",
               json_integer_value(memory) >> 20, json_integer_value(json_object_get(info, "cpus")),
               json_integer_value(json_object_get(info, "pid")));
        json_decref(info);
    }
    return HV_OK;
}

/* What hv-net says, when the machine has one. */
static void add_network(json_t *info, const char *name)
{
    struct client *network = client_open_network(name, NULL);
    json_t *more = network ? client_call(network, "info", NULL, NULL) : NULL;
    if (more)
        json_object_set_new(info, "network", more);
    client_close(network);
}

int verb_info(int argc, char **argv)
{
    enum { TRIES = 5, WAIT_US = 50 * 1000, FRESH_MS = 500 };
    const char *name = NULL;
    bool cpus = false;
    const struct flag flags[] = { { "cpus", &cpus, NULL }, { .name = NULL } };
    int status = only_name("info", argc, argv, flags, &name);
    if (status >= 0)
        return status;
    if (cpus)
        return call(name, "cpus", NULL, true);
    GError *error = NULL;
    struct client *client = client_open(name, &error);
    json_t *info = NULL;
    /* The first call has the guest's balloon driver report anew, which takes it a moment. */
    for (unsigned i = 0; client && !error && i < TRIES; i++) {
        if (i)
            g_usleep(WAIT_US);
        json_decref(info);
        info = client_call(client, "info", NULL, &error);
        const json_t *guest = json_object_get(info, "guest-memory");
        const json_t *age = json_object_get(guest, "age-ms");
        if (!guest || (age && json_integer_value(age) < FRESH_MS))
            break;
    }
    if (!info) {
        client_close(client);
        return cli_fail(error);
    }
    add_network(info, client_name(client));
    client_close(client);
    print_json(info);
    json_decref(info);
    return HV_OK;
}

/* hv eject [NAME] [cd|fd]; a single word is a machine that runs, or a drive. */
int verb_eject(int argc, char **argv)
{
    int left = cli_flags("eject", argc, argv, no_flags);
    if (left < 0)
        return left == -2 ? HV_OK : HV_USAGE;
    g_autofree char *machines = left == 1 ? machines_dir(NULL) : NULL;
    const char *last = left ? argv[left - 1] : NULL;
    bool drive = last && (!strcmp(last, "cd") || !strcmp(last, "fd")) &&
                 !(machines && machine_runs(machines, last));
    if (left > 2 || (left == 2 && !drive))
        return cli_usage("eject", "at most a NAME, and cd or fd, are wanted");
    return call(left == 2 || !drive ? (left ? argv[0] : NULL) : NULL, "eject",
                json_pack("{s:s}", "drive", drive ? last : "cd"), false);
}

static int set_medium(const char *name, const char *key, const char *file, bool readonly)
{
    if (!strcmp(file, "none"))
        return call(name, "set", json_pack("{s:n}", key), false);
    GError *error = NULL;
    g_autofree char *machines = machines_dir(&error);
    const struct chain_rules rules = { .readonly = readonly, .machines = machines };
    g_autoptr(image_chain) chain = machines ? chain_open(file, &rules, &error) : NULL;
    if (chain && chain->format != &raw_format)
        hv_fail(&error, HV_USAGE, "%s is %s: a CD or floppy is a raw image", file,
                chain->format->what);
    if (error)
        return cli_fail(error);
    g_autofree char *shown = launch_shown_name(file);
    return call_with(name, "set", json_pack("{s:s}", key, shown), chain->fd, false);
}

static int set_cd(const char *name, const char *file)
{
    return set_medium(name, "cd", file, true);
}

/* FILE[,readonly]: with its tab closed. */
static int set_fd(const char *name, const char *value)
{
    bool readonly = g_str_has_suffix(value, ",readonly");
    g_autofree char *file = g_strndup(value, strlen(value) - (readonly ? strlen(",readonly") : 0));
    return set_medium(name, "fd", file, readonly);
}

static int set_memory(const char *name, const char *value)
{
    g_autoptr(settings) config = config_new();
    GError *error = NULL;
    const struct setting *s = config_settings;
    while (strcmp(s->name, "memory"))
        s++;
    if (!config_set(config, s, value, &error))
        return cli_fail(error);
    return call(name, "set", json_pack("{s:I}", "memory", (json_int_t)config->memory), false);
}

/* A guest hears of it at once, but on AHCI: what a SATA disk says of its size is read when it is
 * found. */
static void say_when(struct client *client, unsigned number)
{
    json_t *info = client_call(client, "info", NULL, NULL);
    const json_t *disk = json_array_get(json_object_get(info, "disks"), number ? number - 1 : 0);
    const char *bus = json_string_value(json_object_get(disk, "bus"));
    if (bus && !strcmp(bus, drive_bus_names[DRIVE_AHCI]))
        fprintf(stderr, "hv: a guest looks at the size of a SATA disk when it starts: it sees the "
                        "new one then\n");
    json_decref(info);
}

/* [+]SIZE; number 0: the only one. */
static int set_disk(const char *name, unsigned number, const char *value)
{
    uint64_t size;
    bool more = *value == '+';
    GError *error = NULL;
    struct client *client =
        image_size(value + more, &size, &error) ? client_open(name, &error) : NULL;
    if (!client)
        return cli_fail(error);
    json_t *wish = json_pack("{s:{s:i, s:I, s:b}}", "disk", "number", (int)number, "size",
                             (json_int_t)size, "more", (int)more);
    json_t *done = client_call(client, "set", wish, &error);
    if (done)
        say_when(client, number);
    client_close(client);
    json_decref(done);
    return done ? HV_OK : cli_fail(error);
}

static int set_only_disk(const char *name, const char *value)
{
    return set_disk(name, 0, value);
}

/* Is the key disk1, disk2 ...? Its number; 0: it is not. */
static unsigned disk_number(const char *key)
{
    const char *digits = key + strlen("disk");
    if (!g_str_has_prefix(key, "disk") || !g_ascii_isdigit(*digits) || strlen(digits) > 3 ||
        digits[strspn(digits, "0123456789")])
        return 0;
    return (unsigned)g_ascii_strtoull(digits, NULL, 10);
}

/* The network cable. */
static int set_net(const char *name, const char *value)
{
    return call(name, "set", json_pack("{s:s}", "net", value), false);
}

static int change_port(const char *name, const char *method, const char *rule)
{
    GError *error = NULL;
    struct client *network = client_open_network(name, &error);
    json_t *done =
        network ? client_call(network, method, json_pack("{s:s}", "port", rule), &error) : NULL;
    client_close(network);
    json_decref(done);
    return done ? HV_OK : cli_fail(error);
}

static int add_port(const char *name, const char *rule)
{
    return change_port(name, "publish", rule);
}

static int remove_port(const char *name, const char *rule)
{
    return change_port(name, "unpublish", rule);
}

int verb_set(int argc, char **argv)
{
    static const struct {
        const char *key;
        int (*set)(const char *name, const char *value);
    } things[] = {
        { "cd", set_cd },         { "disk", set_only_disk }, { "fd", set_fd },
        { "memory", set_memory }, { "net", set_net },        { "port+", add_port },
        { "port-", remove_port },
    };
    const char *keys[G_N_ELEMENTS(things) + 1] = { NULL };
    int left = cli_flags("set", argc, argv, no_flags);
    if (left < 0)
        return left == -2 ? HV_OK : HV_USAGE;
    const char *name = left == 2 ? argv[0] : NULL, *word = left ? argv[left - 1] : "";
    const char *equals = strchr(word, '=');
    if (left > 2 || !equals || !equals[1])
        return cli_usage("set", "KEY=VALUE is wanted, such as cd=FILE or port+=8080:80");
    g_autofree char *key = g_strndup(word, (gsize)(equals - word));
    if (disk_number(key))
        return set_disk(name, disk_number(key), equals + 1);
    for (size_t i = 0; i < G_N_ELEMENTS(things); i++) {
        if (!strcmp(things[i].key, key))
            return things[i].set(name, equals + 1);
        keys[i] = things[i].key;
    }
    const char *near = hv_nearest(key, keys);
    return cli_usage("set", "there is nothing called \"%s\" to be set%s%s%s", key,
                     near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

int verb_stop(int argc, char **argv)
{
    bool kill = false, reset = false, pause = false, resume = false;
    const struct flag flags[] = {
        { "kill", &kill, NULL },     { "reset", &reset, NULL }, { "pause", &pause, NULL },
        { "resume", &resume, NULL }, { .name = NULL },
    };
    const char *name = NULL;
    int status = only_name("stop", argc, argv, flags, &name);
    if (status >= 0)
        return status;
    if (kill + reset + pause + resume > 1)
        return cli_usage("stop", "one of --kill, --reset, --pause and --resume at a time");
    const char *how = kill     ? "kill"
                      : reset  ? "reset"
                      : pause  ? "pause"
                      : resume ? "resume"
                               : "shutdown";
    return call(name, "stop", json_pack("{s:s}", "how", how), false);
}

int verb_open(int argc, char **argv)
{
    const char *name = NULL;
    int status = only_name("open", argc, argv, no_flags, &name);
    if (status >= 0)
        return status;
    GError *error = NULL;
    struct client *client = client_open(name, &error);
    if (!client)
        return cli_fail(error);
    int display = display_connect(client_name(client), &error);
    int pid = display < 0 ? -1 : viewer_start(display, client_name(client), &error);
    client_close(client);
    if (pid < 0)
        return cli_fail(error);
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : HV_FAILED;
}

int verb_devices(int argc, char **argv)
{
    int left = cli_flags("devices", argc, argv, no_flags);
    if (left < 0)
        return left == -2 ? HV_OK : HV_USAGE;
    for (const struct device_class *const *class = device_classes; *class; class ++) {
        if (left && strcmp((*class)->name, argv[0]))
            continue;
        printf("%-16s %s\n", (*class)->name, (*class)->help);
        for (const struct option *o = (*class)->options; left && o && o->name; o++)
            printf("    %s=%s: %s\n", o->name, o->preset ? o->preset : "", o->help);
    }
    if (left && !device_class_find(argv[0])) {
        fprintf(stderr, "hv: there is no device class \"%s\"; hv devices lists them\n", argv[0]);
        return HV_NOT_FOUND;
    }
    return HV_OK;
}
