/* The control socket over a machine that is none: the protocol, requests that are wrong, and
 * clients that misbehave. */
#include "machine/control.h"

#include "base/error.h"
#include "base/fds.h"
#include "block/disk.h"
#include "block/raw.h"
#include "block/zeroes.h"
#include "machine/display.h"
#include "machine/typist.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* --- the machine ----------------------------------------------------------------------------- */

static struct {
    enum display_state state;
    struct config *config;
    struct typist *typist;
    struct machine_listener listener;
    struct device keyboard, display;
    struct board board;
    unsigned presses, resets, keys;
    bool has_cd, no_drive, cable_out;
    GPtrArray *devices;
    bool has_card, kernel_serves;
    struct net_faults cable;
    uint64_t memory; /* as wished */
    bool deaf;       /* no balloon driver */
    unsigned columns, rows, growths;
    struct drives drives;
    struct disk *cd;
    enum medium medium; /* what was put in last */
    int x, y, wheel;
    unsigned buttons;
    bool at, busy; /* the last motion was a position; the guest takes no keys */
    struct onlooker *onlooker;
    struct picture picture;
    bool looked_on, graphics;
    FILE *record; /* of what is asked and answered, a line each, for control-schema.py */
} fake;

static struct device *the_keyboard(void *opaque)
{
    (void)opaque;
    return &fake.keyboard;
}

enum display_state machine_state(const struct machine *machine)
{
    (void)machine;
    return fake.state;
}

const char *machine_why(const struct machine *machine)
{
    (void)machine;
    return "";
}

int machine_exit_status(const struct machine *machine)
{
    (void)machine;
    return HV_OK;
}

const struct config *machine_config(const struct machine *machine)
{
    (void)machine;
    return fake.config;
}

struct device *machine_display(struct machine *machine)
{
    (void)machine;
    return &fake.display;
}

void machine_listen(struct machine *machine, const struct machine_listener *listener)
{
    (void)machine;
    fake.listener = *listener;
}

static void set_state(enum display_state state)
{
    fake.state = state;
    fake.listener.state(fake.listener.opaque, state, "");
}

void machine_press_power(struct machine *machine)
{
    (void)machine;
    fake.presses++;
}

void machine_pull_plug(struct machine *machine)
{
    (void)machine;
    set_state(STATE_OFF);
}

void machine_pause(struct machine *machine)
{
    (void)machine;
    set_state(STATE_PAUSED);
}

void machine_resume(struct machine *machine)
{
    (void)machine;
    set_state(STATE_RUNNING);
}

void machine_reset(struct machine *machine)
{
    (void)machine;
    fake.resets++;
    fake.listener.event(fake.listener.opaque, "reset", "");
    set_state(STATE_RUNNING);
}

bool machine_eject(struct machine *machine, enum medium kind, GError **error)
{
    (void)machine;
    if (kind == MEDIUM_FLOPPY)
        return hv_fail(error, HV_WRONG_STATE, "no floppy is in a drive");
    return fake.has_cd || hv_fail(error, HV_WRONG_STATE, "no CD is in a drive");
}

struct drives *machine_drives(struct machine *machine)
{
    (void)machine;
    return &fake.drives;
}

bool machine_look(struct machine *machine, struct vcpu_look *looks, GError **error)
{
    static const enum vcpu_doing doing[] = { VCPU_RUNS, VCPU_HALTED, VCPU_STUCK, VCPU_WAITS };
    (void)machine, (void)error;
    for (unsigned i = 0; i < (unsigned)fake.config->cpus; i++)
        looks[i] = (struct vcpu_look){ doing[i % 4], G_MAXUINT64 >> i, 16U << i % 3, i % 4 };
    return true;
}

bool machine_set_cable(struct machine *machine, bool in, GError **error)
{
    (void)machine, (void)error;
    fake.cable_out = !in;
    return true;
}

bool machine_net_faults(struct machine *machine, struct net_faults *faults)
{
    (void)machine;
    *faults = fake.cable;
    return fake.has_card;
}

bool machine_set_net_faults(struct machine *machine, const struct net_faults *faults,
                            GError **error)
{
    (void)machine;
    fake.cable = *faults;
    return !fake.kernel_serves || hv_fail(error, HV_WRONG_STATE, "the kernel serves it");
}

bool machine_insert(struct machine *machine, enum medium kind, struct disk *disk, GError **error)
{
    (void)machine;
    fake.medium = kind;
    if (fake.no_drive)
        return hv_fail(error, HV_WRONG_STATE, "it has no CD drive");
    disk_free(fake.cd);
    fake.cd = disk;
    fake.has_cd = true;
    fake.listener.event(fake.listener.opaque, "insert", disk->name);
    return true;
}

const GPtrArray *machine_devices(struct machine *machine)
{
    (void)machine;
    return fake.devices;
}

unsigned display_viewers(struct display *display)
{
    (void)display;
    return 0;
}

void display_set_onlooker(struct display *display, struct onlooker *onlooker)
{
    (void)display;
    fake.onlooker = onlooker;
}

/* The display's thread, which has time at once. */
void display_look_on(struct display *display, bool on)
{
    (void)display;
    fake.looked_on = on;
    if (on)
        fake.onlooker->seen(fake.onlooker, &fake.picture,
                            (struct rectangle){ 0, 0, fake.picture.width, fake.picture.height },
                            true);
}

static bool take_key(struct device *dev, uint8_t usage, bool down)
{
    (void)dev, (void)usage, (void)down;
    fake.keys++;
    return true;
}

static bool is_idle(struct device *dev)
{
    (void)dev;
    return !fake.busy;
}

static void move_by(struct device *dev, int dx, int dy, int wheel, unsigned buttons)
{
    (void)dev;
    fake.x = dx, fake.y = dy, fake.wheel = wheel, fake.buttons = buttons, fake.at = false;
}

static void move_to(struct device *dev, unsigned x, unsigned y, int wheel, unsigned buttons)
{
    move_by(dev, (int)x, (int)y, wheel, buttons);
    fake.at = true;
}

static void two_lines(struct device *dev, struct screen_text *text)
{
    (void)dev;
    memset(text, 0, sizeof *text);
    if (fake.graphics)
        return;
    text->columns = 4;
    text->rows = 2;
    text->cell[0].code = 'O', text->cell[1].code = 'K';
    text->cell[4].code = 0xe1; /* sharp s in code page 437 */
}

static bool wish(struct device *dev, uint64_t bytes)
{
    (void)dev;
    fake.memory = bytes;
    return !fake.deaf;
}

static bool statistics(struct device *dev, struct memory_statistics *said)
{
    (void)dev;
    *said = (struct memory_statistics){ .known = 1u << MEMORY_FREE | 1u << MEMORY_TOTAL,
                                        .reported = true,
                                        .balloon = 4096 };
    said->value[MEMORY_FREE] = 1000;
    said->value[MEMORY_TOTAL] = UINT64_MAX; /* a guest may say anything */
    return !fake.deaf;
}

static void resized(struct device *dev, unsigned columns, unsigned rows)
{
    (void)dev;
    fake.columns = columns;
    fake.rows = rows;
}

static void disk_resized(struct device *dev, unsigned index)
{
    (void)dev;
    g_assert_cmpuint(index, ==, 3);
    fake.growths++;
}

static const struct input_class input = {
    .key = take_key, .idle = is_idle, .pointer = move_by, .pointer_at = move_to
};
static const struct screen_class screen = { .text = two_lines };
static const struct device_class class = { .name = "fake",
                                           .input = &input,
                                           .screen = &screen,
                                           .memory_wish = wish,
                                           .memory_ask = statistics,
                                           .terminal_resized = resized,
                                           .disk_resized = disk_resized };

/* --- the other end --------------------------------------------------------------------------- */

static struct sockaddr_un address;

static int dial(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&address, sizeof address), ==, 0);
    return fd;
}

/* Lets the machine's thread do what is to be done now. */
static void serve(void)
{
    while (g_main_context_iteration(NULL, false))
        ;
}

/* Sends all of it while the machine works; false when it hung up. */
static bool put(int fd, const char *bytes, size_t length)
{
    while (length) {
        ssize_t n = send(fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            return false;
        if (n > 0) {
            bytes += n;
            length -= (size_t)n;
        }
        serve();
    }
    return true;
}

/* The next line; NULL when there is none. */
static char *line_from(int fd)
{
    GString *line = g_string_new(NULL);
    char c;
    serve();
    while (recv(fd, &c, 1, MSG_DONTWAIT) == 1) {
        if (c == '\n')
            return g_string_free(line, false);
        g_string_append_c(line, c);
    }
    g_string_free(line, true);
    return NULL;
}

static json_t *recorded(const char *request, const char *reply)
{
    json_t *json = json_loads(reply, JSON_REJECT_DUPLICATES, NULL);
    g_assert_nonnull(json);
    g_assert_cmpstr(json_string_value(json_object_get(json, "jsonrpc")), ==, "2.0");
    if (fake.record)
        fprintf(fake.record, "%s\n%s\n", request, reply);
    return json;
}

static json_t *ask(int fd, const char *request)
{
    g_autofree char *line = g_strconcat(request, "\n", NULL);
    g_assert_true(put(fd, line, strlen(line)));
    g_autofree char *reply = line_from(fd);
    if (!reply)
        return NULL;
    return recorded(request, reply);
}

/* The request fails with this code, and the connection lives on. */
static void fails(int fd, const char *request, int code)
{
    json_t *reply = ask(fd, request);
    const json_t *error = json_object_get(reply, "error");
    if (!error || json_integer_value(json_object_get(error, "code")) != code) {
        g_autofree char *text = json_dumps(reply, 0);
        g_error("%.200s: %s, wanted %d", request, text, code);
    }
    g_assert_nonnull(json_string_value(json_object_get(error, "message")));
    g_assert_null(json_object_get(reply, "result"));
    json_decref(reply);
    reply = ask(fd, "{\"jsonrpc\":\"2.0\",\"id\":\"still\",\"method\":\"info\"}");
    g_assert_cmpstr(json_string_value(json_object_get(reply, "id")), ==, "still");
    json_decref(reply);
}

static bool hung_up(int fd)
{
    char byte;
    serve();
    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

/* --- tests ----------------------------------------------------------------------------------- */

static void answers(void)
{
    int fd = dial();
    json_t *reply = ask(fd, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"info\"}");
    const json_t *result = json_object_get(reply, "result");
    g_assert_cmpint(json_integer_value(json_object_get(reply, "id")), ==, 7);
    g_assert_cmpstr(json_string_value(json_object_get(result, "name")), ==, "fake");
    g_assert_cmpstr(json_string_value(json_object_get(result, "state")), ==, "running");
    json_decref(reply);

    reply = ask(fd, "{\"id\":1,\"method\":\"screen.text\",\"params\":{}}");
    const json_t *lines = json_object_get(json_object_get(reply, "result"), "lines");
    g_assert_cmpuint(json_array_size(lines), ==, 2);
    g_assert_true(g_str_has_prefix(json_string_value(json_array_get(lines, 0)), "OK"));
    g_assert_true(g_str_has_prefix(json_string_value(json_array_get(lines, 1)), "\xc3\x9f"));
    json_decref(reply);

    fake.keys = 0;
    json_decref(
        ask(fd, "{\"id\":1,\"method\":\"send.key\",\"params\":{\"keys\":[\"ctrl\",\"c\"]}}"));
    clock_advance(fake.board.clock, NS_PER_SECOND, 0); /* the keys are held for a while */
    g_assert_cmpuint(fake.keys, ==, 4);
    reply = ask(fd, "{\"id\":1,\"method\":\"send.text\",\"params\":{\"text\":\"a\xe2\x82\xac\"}}");
    g_assert_cmpuint(fake.keys, ==, 6);
    g_assert_cmpint(
        json_integer_value(json_object_get(json_object_get(reply, "result"), "left_out")), ==, 1);
    json_decref(reply);
    close(fd);
    serve();
}

static void memory(void)
{
    int fd = dial();
    const char *set = "{\"id\":1,\"method\":\"set\",\"params\":{\"memory\":33554432}}";
    fails(fd, set, HV_WRONG_STATE); /* no balloon */
    g_ptr_array_add(fake.devices, &fake.keyboard);
    json_t *reply = ask(fd, set);
    g_assert_nonnull(json_object_get(reply, "result"));
    json_decref(reply);
    g_assert_cmpuint(fake.memory, ==, 32 << 20);
    fails(fd, "{\"id\":1,\"method\":\"set\",\"params\":{\"memory\":67108865}}", HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"set\",\"params\":{\"memory\":-1}}", HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"set\",\"params\":{\"memory\":\"1G\"}}", HV_USAGE);

    reply = ask(fd, "{\"id\":1,\"method\":\"info\"}");
    const json_t *said = json_object_get(json_object_get(reply, "result"), "guest-memory");
    g_assert_cmpint(json_integer_value(json_object_get(said, "balloon")), ==, 4096);
    g_assert_cmpint(json_integer_value(json_object_get(said, "free")), ==, 1000);
    g_assert_cmpint(json_integer_value(json_object_get(said, "total")), ==, INT64_MAX);
    g_assert_null(json_object_get(said, "caches"));
    json_decref(reply);

    fake.deaf = true;
    fails(fd, set, HV_WRONG_STATE);
    reply = ask(fd, "{\"id\":1,\"method\":\"info\"}");
    g_assert_null(json_object_get(json_object_get(reply, "result"), "guest-memory"));
    json_decref(reply);
    fake.deaf = false;
    g_ptr_array_set_size(fake.devices, 0);
    close(fd);
    serve();
}

#define SET_DISK(value) "{\"id\":1,\"method\":\"set\",\"params\":{\"disk\":" value "}}"

static struct machine_drive *add_disk(uint64_t size, bool readonly)
{
    g_autoptr(GError) error = NULL;
    struct machine_drive *drive = &fake.drives.drive[fake.drives.count++];
    int fd = memfd_create("disk", MFD_CLOEXEC);
    g_assert_cmpint(ftruncate(fd, (off_t)size), ==, 0);
    *drive = (struct machine_drive){
        .disk = raw_open(fd, "d.img", readonly, &error),
        .bus = DRIVE_VIRTIO,
        .format = &raw_format,
        .device = &fake.keyboard,
        .index = 3,
    };
    g_assert_no_error(error);
    drive->image = drive->disk;
    drive->disk = zeroes_open(drive->image, false);
    disk_attach(drive->disk, &fake.keyboard.lock, NULL);
    return drive;
}

/* Its size and its number, as info has them. */
static void check_disk(int fd, unsigned number, uint64_t size)
{
    json_t *reply = ask(fd, "{\"id\":1,\"method\":\"info\"}");
    const json_t *disks = json_object_get(json_object_get(reply, "result"), "disks");
    const json_t *disk = json_array_get(disks, number - 1);
    g_assert_cmpint(json_integer_value(json_object_get(disk, "number")), ==, (int)number);
    g_assert_cmpint(json_integer_value(json_object_get(disk, "size")), ==, (json_int_t)size);
    g_assert_cmpstr(json_string_value(json_object_get(disk, "bus")), ==, "virtio");
    json_decref(reply);
}

static void looks_at_cpus(void)
{
    int fd = dial();
    unsigned was = (unsigned)fake.config->cpus;
    fake.config->cpus = 5;
    json_t *reply = ask(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"cpus\"}");
    const json_t *cpus = json_object_get(json_object_get(reply, "result"), "cpus");
    const json_t *stuck = json_array_get(cpus, 2);
    g_assert_cmpuint(json_array_size(cpus), ==, 5);
    g_assert_cmpstr(json_string_value(json_object_get(stuck, "state")), ==, "stuck");
    g_assert_cmpstr(json_string_value(json_object_get(stuck, "address")), ==, "0x3fffffffffffffff");
    g_assert_cmpint(json_integer_value(json_object_get(stuck, "bits")), ==, 64);
    json_decref(reply);
    fails(fd, "{\"id\":1,\"method\":\"cpus\",\"params\":{\"n\":1}}", 2);
    fake.config->cpus = was;
    close(fd);
}

static void disk_grows(void)
{
    int fd = dial();
    fails(fd, SET_DISK("{\"size\":8192}"), HV_WRONG_STATE); /* no disk */
    fake.drives.drive[fake.drives.count++].is_cd = true;
    struct machine_drive *one = add_disk(4096, false);
    json_decref(ask(fd, SET_DISK("{\"size\":8192}")));
    g_assert_cmpuint(fake.growths, ==, 1);
    check_disk(fd, 1, 8192);
    json_decref(ask(fd, SET_DISK("{\"size\":512,\"more\":true,\"number\":1}")));
    g_assert_cmpuint(fake.growths, ==, 2);
    check_disk(fd, 1, 8704);
    uint64_t length;
    g_assert_cmpint(raw_length(one->image, &length), ==, 0);
    g_assert_cmpuint(length, ==, 8704);

    struct machine_drive *two = add_disk(4096, true);
    fails(fd, SET_DISK("{\"size\":16384}"), HV_USAGE); /* which one? */
    fails(fd, SET_DISK("{\"size\":16384,\"number\":2}"), HV_WRONG_STATE);
    fails(fd, SET_DISK("{\"size\":16384,\"number\":3}"), HV_WRONG_STATE);
    fails(fd, SET_DISK("{\"size\":16384,\"number\":-1}"), HV_USAGE);
    fails(fd, SET_DISK("{\"size\":8704,\"number\":1}"), HV_USAGE);
    fails(fd, SET_DISK("{\"size\":4096,\"number\":1}"), HV_USAGE);
    fails(fd, SET_DISK("{\"size\":16385,\"number\":1}"), HV_USAGE);
    fails(fd, SET_DISK("{\"size\":-512,\"number\":1}"), HV_USAGE);
    fails(fd, SET_DISK("{\"size\":9223372036854775296,\"number\":1,\"more\":true}"), HV_USAGE);
    fails(fd, SET_DISK("{\"number\":1}"), HV_USAGE);
    fails(fd, SET_DISK("\"8G\""), HV_USAGE);
    fake.state = STATE_DISK_FULL;
    fails(fd, SET_DISK("{\"size\":16384,\"number\":1}"), HV_WRONG_STATE);
    fake.state = STATE_RUNNING;
    one->format = NULL; /* --throwaway */
    fails(fd, SET_DISK("{\"size\":16384,\"number\":1}"), HV_WRONG_STATE);
    g_assert_cmpuint(fake.growths, ==, 2);
    check_disk(fd, 1, 8704);
    disk_free(one->disk);
    disk_free(two->disk);
    fake.drives.count = 0;
    close(fd);
    serve();
}

#define FAULT(params) "{\"id\":1,\"method\":\"fault\",\"params\":{\"kind\":" params "}}"

/* What it answers, or info's part of that name, as text. */
static void says(int fd, const char *request, const char *part, const char *wanted)
{
    json_t *reply = ask(fd, request);
    const json_t *result = json_object_get(reply, "result");
    const json_t *disk = json_array_get(json_object_get(result, "disks"), 0);
    if (part)
        result = json_object_get(strcmp(part, "faults") ? result : disk, part);
    g_autofree char *text = result ? json_dumps(result, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    g_assert_cmpstr(text, ==, wanted);
    json_decref(reply);
}

static void disk_faults(void)
{
    static const char info[] = "{\"id\":1,\"method\":\"info\"}";
    int fd = dial();
    fails(fd, FAULT("\"disk-full\""), HV_WRONG_STATE); /* no disk */
    struct machine_drive *one = add_disk(4096, false);
    says(fd, info, "faults", NULL);
    says(fd, FAULT("\"disk-error\",\"sector\":7"), NULL, "{}");
    says(fd, FAULT("\"disk-error\",\"sector\":0,\"last\":2,\"of\":\"read\",\"disk\":1"), NULL,
         "{}");
    says(fd, FAULT("\"disk-slow\",\"ms\":250"), NULL, "{}");
    says(fd, FAULT("\"disk-full\""), NULL, "{}");
    says(fd, info, "faults",
         "{\"errors\":[{\"last\":7,\"read\":true,\"sector\":7,\"write\":true},"
         "{\"last\":2,\"read\":true,\"sector\":0,\"write\":false}],"
         "\"full\":true,\"slow-ms\":250}");
    struct disk_faults faults = faults_get(one->disk);
    g_assert_cmpuint(faults.delay, ==, NS_PER_SECOND / 4);
    for (unsigned i = 2; i < FAULTS_RANGES; i++)
        says(fd, FAULT("\"disk-error\",\"sector\":7"), NULL, "{}");
    fails(fd, FAULT("\"disk-error\",\"sector\":7"), HV_WRONG_STATE);
    says(fd, FAULT("\"disk-good\""), NULL, "{}");
    says(fd, info, "faults", NULL);

    static const char *const wrong[] = {
        FAULT("\"disk-eror\""),
        FAULT("7"),
        FAULT("\"disk-error\""),
        FAULT("\"disk-error\",\"sector\":-1"),
        FAULT("\"disk-error\",\"sector\":\"7\""),
        FAULT("\"disk-error\",\"sector\":8"), /* it has 0 to 7 */
        FAULT("\"disk-error\",\"sector\":3,\"last\":2"),
        FAULT("\"disk-error\",\"sector\":3,\"last\":9223372036854775807"),
        FAULT("\"disk-error\",\"sector\":3,\"of\":\"both\""),
        FAULT("\"disk-error\",\"sector\":3,\"of\":1"),
        FAULT("\"disk-error\",\"sector\":3,\"ms\":5"),
        FAULT("\"disk-slow\""),
        FAULT("\"disk-slow\",\"ms\":3600001"),
        FAULT("\"disk-slow\",\"ms\":1.5"),
        FAULT("\"disk-full\",\"disk\":0"),
        FAULT("\"disk-full\",\"disk\":1000000"),
        FAULT("\"disk-full\",\"percent\":3"),
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++)
        fails(fd, wrong[i], HV_USAGE);
    struct machine_drive *two = add_disk(4096, true);
    fails(fd, FAULT("\"disk-slow\",\"ms\":1"), HV_USAGE); /* which one? */
    fails(fd, FAULT("\"disk-slow\",\"ms\":1,\"disk\":3"), HV_WRONG_STATE);
    fails(fd, FAULT("\"disk-full\",\"disk\":2"), HV_WRONG_STATE); /* read-only */
    says(fd, FAULT("\"disk-slow\",\"ms\":1,\"disk\":2"), NULL, "{}");
    fails(fd, "{\"id\":1,\"method\":\"fault\",\"params\":{\"sort\":1}}", HV_USAGE);
    says(fd, info, "faults", NULL);
    disk_free(one->disk);
    disk_free(two->disk);
    fake.drives.count = 0;
    close(fd);
    serve();
}

static void net_faults(void)
{
    static const char info[] = "{\"id\":1,\"method\":\"info\"}";
    int fd = dial();
    fails(fd, FAULT("\"net-good\""), HV_WRONG_STATE); /* no card */
    fake.has_card = true;
    says(fd, FAULT("\"net-loss\",\"percent\":2.5,\"seed\":4294967295"), NULL,
         "{\"seed\":4294967295}");
    g_assert_cmpuint(fake.cable.loss, ==, NET_LOSS_ALL / 40);
    says(fd, FAULT("\"net-delay\",\"ms\":100"), NULL, "{\"seed\":4294967295}");
    says(fd, info, "net-faults", "{\"delay-ms\":100,\"loss-percent\":2.5,\"seed\":4294967295}");
    says(fd, FAULT("\"net-loss\",\"percent\":0"), NULL, "{}");
    g_assert_cmpuint(fake.cable.delay, ==, NS_PER_SECOND / 10);
    json_decref(ask(fd, FAULT("\"net-loss\",\"percent\":100"))); /* a seed by chance */
    says(fd, FAULT("\"net-good\""), NULL, "{}");
    g_assert_cmpuint(fake.cable.loss + fake.cable.delay, ==, 0);
    says(fd, info, "net-faults", NULL);
    fails(fd, FAULT("\"net-loss\""), HV_USAGE);
    fails(fd, FAULT("\"net-loss\",\"percent\":101"), HV_USAGE);
    fails(fd, FAULT("\"net-loss\",\"percent\":-1"), HV_USAGE);
    fails(fd, FAULT("\"net-loss\",\"percent\":\"5%\""), HV_USAGE);
    fails(fd, FAULT("\"net-loss\",\"percent\":5,\"seed\":4294967296"), HV_USAGE);
    fails(fd, FAULT("\"net-delay\""), HV_USAGE);
    fails(fd, FAULT("\"net-delay\",\"ms\":1,\"disk\":1"), HV_USAGE);
    fake.kernel_serves = true;
    fails(fd, FAULT("\"net-delay\",\"ms\":1"), HV_WRONG_STATE);
    fake.kernel_serves = fake.has_card = false;
    close(fd);
    serve();
}

#define SET_TERMINAL(value) "{\"id\":1,\"method\":\"set\",\"params\":{\"terminal\":" value "}}"

static void terminal(void)
{
    int fd = dial();
    fails(fd, SET_TERMINAL("{\"columns\":80,\"rows\":25}"), HV_WRONG_STATE);
    g_ptr_array_add(fake.devices, &fake.keyboard);
    json_decref(ask(fd, SET_TERMINAL("{\"columns\":80,\"rows\":25}")));
    g_assert_cmpuint(fake.columns, ==, 80);
    g_assert_cmpuint(fake.rows, ==, 25);
    fails(fd, SET_TERMINAL("{\"columns\":65536,\"rows\":25}"), HV_USAGE);
    fails(fd, SET_TERMINAL("{\"columns\":80,\"rows\":-1}"), HV_USAGE);
    fails(fd, SET_TERMINAL("{\"columns\":80}"), HV_USAGE);
    fails(fd, SET_TERMINAL("null"), HV_USAGE);
    g_ptr_array_set_size(fake.devices, 0);
    close(fd);
    serve();
}

static void bad_requests(void)
{
    int fd = dial();
    fails(fd, "", -32700);
    fails(fd, "{", -32700);
    fails(fd, "hello", -32700);
    fails(fd, "{\"method\":\"info\",\"method\":\"stop\"}", -32700); /* a key twice */
    fails(fd, "{\"id\":1,\"method\":\"info\"} {}", -32700);
    fails(fd, "{\"method\":\"\xff\"}", -32700);
    fails(fd, "{\"method\":\"in\xc3\"}", -32700); /* cut in the middle of a character */
    fails(fd, "\"\xe2\x82\xac\xe2\x82\xac", -32700);
    fails(fd, "{\"method\":\"\\u0000\"}", -32700);
    fails(fd, "[]", -32600);
    fails(fd, "[{\"id\":1,\"method\":\"info\"}]", -32600);
    fails(fd, "{}", -32600);
    fails(fd, "{\"id\":1}", -32600);
    fails(fd, "{\"id\":1,\"method\":7}", -32600);
    fails(fd, "{\"id\":1,\"method\":\"\"}", -32601);
    fails(fd, "{\"id\":1,\"method\":\"reboot\"}", -32601);
    fails(fd, "{\"id\":{},\"method\":\"info\"}", -32600);
    fails(fd, "{\"id\":[1],\"method\":\"info\"}", -32600);
    fails(fd, "{\"id\":true,\"method\":\"info\"}", -32600);
    g_autoptr(GString) deep = g_string_new(NULL);
    for (unsigned i = 0; i < 30000; i++)
        g_string_append_c(deep, '[');
    fails(fd, deep->str, -32700);

    /* JSON's NUL byte is one of the request, not its end. */
    g_assert_true(put(fd, "{}\0\n", 4));
    g_autofree char *reply = line_from(fd);
    g_assert_nonnull(strstr(reply, "-32700"));
    close(fd);
    serve();
}

static void wrong_params(void)
{
    int fd = dial();
    fails(fd, "{\"id\":1,\"method\":\"stop\",\"params\":{\"how\":\"gently\"}}", HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"stop\",\"params\":{\"how\":1}}", HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"send.text\"}", HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"send.text\",\"params\":{\"text\":1}}", HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"send.text\",\"params\":[\"a\"]}", -32602);
    fails(fd, "{\"id\":1,\"method\":\"info\",\"params\":7}", -32602);
    fails(fd, "{\"id\":1,\"method\":\"stop\",\"params\":null}", -32602);
    fails(fd, "{\"id\":1,\"method\":\"send.key\"}", HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"send.key\",\"params\":{\"keys\":[]}}", HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"send.key\",\"params\":{\"keys\":[1]}}", HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"send.key\",\"params\":{\"keys\":[\"ctlr\"]}}", HV_USAGE);
    fails(fd,
          "{\"id\":1,\"method\":\"send.key\",\"params\":{\"keys\":[\"a\",\"b\",\"c\",\"d\",\"e\","
          "\"f\",\"g\",\"h\",\"i\"]}}",
          HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"eject\"}", HV_WRONG_STATE);
    g_assert_cmpuint(fake.presses, ==, 0);
    close(fd);
    serve();
}

/* The power button of a machine that cannot hear it is an error, not silence. */
static void stop_in_each_state(void)
{
    static const char press[] = "{\"id\":1,\"method\":\"stop\"}";
    int fd = dial();
    json_decref(ask(fd, press));
    g_assert_cmpuint(fake.presses, ==, 1);
    fake.state = STATE_PAUSED;
    fails(fd, press, HV_WRONG_STATE);
    fails(fd, "{\"id\":1,\"method\":\"stop\",\"params\":{\"how\":\"pause\"}}", HV_WRONG_STATE);
    fake.state = STATE_CRASHED;
    fails(fd, press, HV_WRONG_STATE);
    fails(fd, "{\"id\":1,\"method\":\"stop\",\"params\":{\"how\":\"resume\"}}", HV_WRONG_STATE);
    g_assert_cmpuint(fake.presses, ==, 1);
    json_decref(ask(fd, "{\"id\":1,\"method\":\"stop\",\"params\":{\"how\":\"reset\"}}"));
    g_assert_cmpuint(fake.resets, ==, 1);
    g_assert_cmpint(fake.state, ==, STATE_RUNNING);
    fails(fd, "{\"id\":1,\"method\":\"stop\",\"params\":{\"how\":\"resume\"}}", HV_WRONG_STATE);
    fake.state = STATE_DISK_FULL;
    fails(fd, "{\"id\":1,\"method\":\"stop\",\"params\":{\"how\":\"reset\"}}", HV_WRONG_STATE);
    g_assert_cmpuint(fake.resets, ==, 1);
    fake.state = STATE_RUNNING;
    close(fd);
    serve();
}

/* A request without an id is carried out, but neither answered nor refused; one that is no request
 * at all has no id either, and is told so. JSON-RPC 2.0 sections 4.1 and 5. */
static void notifications(void)
{
    int fd = dial();
    unsigned resets = fake.resets;
    static const char *const silent[] = {
        "{\"jsonrpc\":\"2.0\",\"method\":\"stop\",\"params\":{\"how\":\"reset\"}}\n",
        "{\"method\":\"info\"}\n",
        "{\"method\":\"reboot\"}\n",
        "{\"method\":\"eject\"}\n",
        "{\"method\":\"info\",\"params\":7}\n",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(silent); i++) {
        g_assert_true(put(fd, silent[i], strlen(silent[i])));
        g_assert_null(line_from(fd));
    }
    g_assert_cmpuint(fake.resets, ==, resets + 1);
    json_t *reply = ask(fd, "{\"id\":null,\"method\":\"info\"}");
    g_assert_true(json_is_null(json_object_get(reply, "id")));
    g_assert_nonnull(json_object_get(reply, "result"));
    json_decref(reply);
    fails(fd, "{\"method\":1}", -32600);
    close(fd);
    serve();
}

/* --- descriptors ------------------------------------------------------------------------------ */

static unsigned open_files(void)
{
    unsigned count = 0;
    g_autoptr(GDir) dir = g_dir_open("/proc/self/fd", 0, NULL);
    while (g_dir_read_name(dir))
        count++;
    return count;
}

/* An image of so many bytes; 0: no image at all. */
static int image(off_t size)
{
    int fd = size ? memfd_create("image", MFD_CLOEXEC) : open("/dev/null", O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    g_assert_true(!size || ftruncate(fd, size) == 0);
    return fd;
}

/* Sends the text with so many descriptors of one image beside it, and keeps none. */
static void pass(int socket, const char *text, int fd, unsigned count)
{
    int fds[FDS_MAX];
    for (unsigned i = 0; i < count; i++)
        fds[i] = fd;
    g_assert_true(fds_send(socket, text, strlen(text), fds, count, NULL));
    close(fd);
}

static int code_of(int socket)
{
    g_autofree char *line = line_from(socket);
    json_t *reply = line ? json_loads(line, 0, NULL) : NULL;
    g_assert_nonnull(reply);
    int code = (int)json_integer_value(json_object_get(json_object_get(reply, "error"), "code"));
    json_decref(reply);
    return code;
}

#define SET_CD "{\"id\":1,\"method\":\"set\",\"params\":{\"cd\":\"a.iso\"}}"

static void another_cd(void)
{
    int fd = dial();
    pass(fd, SET_CD "\n", image(4096), 1);
    g_assert_cmpint(code_of(fd), ==, 0);
    g_assert_nonnull(fake.cd);
    g_assert_cmpstr(fake.cd->name, ==, "a.iso");
    g_assert_cmpuint(fake.cd->size, ==, 4096);
    g_assert_true(fake.cd->readonly);

    /* In pieces, the file with the first of them; the next request has none. */
    pass(fd, "{\"id\":1,\"method\":\"set\",", image(8192), 1);
    g_assert_null(line_from(fd));
    static const char rest[] = "\"params\":{\"cd\":\"b\"}}\n" SET_CD "\n";
    g_assert_true(put(fd, rest, sizeof rest - 1));
    g_assert_cmpint(code_of(fd), ==, 0);
    g_assert_cmpint(code_of(fd), ==, HV_USAGE);
    g_assert_cmpstr(fake.cd->name, ==, "b");
    g_assert_cmpuint(fake.cd->size, ==, 8192);

    /* Behind a request that wants none, in the same breath. */
    pass(fd, "{\"id\":1,\"method\":\"info\"}\n" SET_CD "\n", image(512), 1);
    g_assert_cmpint(code_of(fd), ==, 0);
    g_assert_cmpint(code_of(fd), ==, 0);
    g_assert_cmpuint(fake.cd->size, ==, 512);

    json_decref(ask(fd, "{\"id\":1,\"method\":\"set\",\"params\":{\"cd\":null}}"));
    json_decref(ask(fd, "{\"id\":1,\"method\":\"eject\",\"params\":{\"drive\":\"cd\"}}"));
    g_clear_pointer(&fake.cd, disk_free);
    fake.has_cd = false;
    fails(fd, "{\"id\":1,\"method\":\"set\",\"params\":{\"cd\":null}}", HV_WRONG_STATE);
    close(fd);
    serve();
}

/* A floppy can be written to when its file can. */
static void another_floppy(void)
{
    static const char set[] = "{\"id\":1,\"method\":\"set\",\"params\":{\"fd\":\"f\"}}\n";
    int fd = dial(), file = image(1474560);
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", file);
    int readonly = open(path, O_RDONLY | O_CLOEXEC);
    pass(fd, set, readonly, 1);
    g_assert_cmpint(code_of(fd), ==, 0);
    g_assert_cmpint(fake.medium, ==, MEDIUM_FLOPPY);
    g_assert_true(fake.cd->readonly);
    pass(fd, set, file, 1);
    g_assert_cmpint(code_of(fd), ==, 0);
    g_assert_false(fake.cd->readonly);
    g_clear_pointer(&fake.cd, disk_free);
    fake.has_cd = false;
    fails(fd, "{\"id\":1,\"method\":\"set\",\"params\":{\"fd\":null}}", HV_WRONG_STATE);
    fails(fd, "{\"id\":1,\"method\":\"eject\",\"params\":{\"drive\":\"fd\"}}", HV_WRONG_STATE);
    fails(fd, "{\"id\":1,\"method\":\"eject\",\"params\":{\"drive\":\"tape\"}}", HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"eject\",\"params\":{\"drive\":1}}", HV_USAGE);
    close(fd);
    serve();
}

/* Nothing that comes beside a request stays open. */
static void files_nobody_wants(void)
{
    int fd = dial();
    serve();
    unsigned before = open_files();
    fails(fd, SET_CD, HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"set\"}", HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"set\",\"params\":[]}", -32602);
    fails(fd, "{\"id\":1,\"method\":\"set\",\"params\":{\"dc\":\"a\"}}", HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"set\",\"params\":{\"cd\":null,\"b\":1}}", HV_USAGE);
    pass(fd, "{\"id\":1,\"method\":\"info\"}\n", image(4096), 1);
    g_assert_cmpint(code_of(fd), ==, 0);
    fails(fd, SET_CD, HV_USAGE); /* that file is not for this one */
    pass(fd, "{\"id\":1,\"method\":\"set\",\"params\":{\"cd\":7}}\n", image(4096), 1);
    g_assert_cmpint(code_of(fd), ==, HV_USAGE);
    pass(fd, SET_CD "\n", image(0), 1);
    g_assert_cmpint(code_of(fd), ==, HV_USAGE); /* no image */
    fake.no_drive = true;
    pass(fd, SET_CD "\n", image(4096), 1);
    g_assert_cmpint(code_of(fd), ==, HV_WRONG_STATE);
    fake.no_drive = false;
    g_assert_cmpuint(open_files(), ==, before);
    g_assert_null(fake.cd);

    /* A request that is never finished keeps one file, and a second is too much. */
    pass(fd, "{", image(4096), 1);
    serve();
    g_assert_cmpuint(open_files(), ==, before + 1);
    pass(fd, "{", image(4096), 1);
    g_assert_cmpint(code_of(fd), ==, -32600);
    g_assert_true(hung_up(fd));
    g_assert_cmpuint(open_files(), ==, before - 1);
    close(fd);

    static const unsigned counts[] = { 2, FDS_MAX };
    for (size_t i = 0; i < G_N_ELEMENTS(counts); i++) {
        fd = dial();
        pass(fd, SET_CD "\n", image(4096), counts[i]);
        g_assert_cmpint(code_of(fd), ==, -32600);
        g_assert_true(hung_up(fd));
        close(fd);
    }
    fd = dial(); /* who leaves takes his file along */
    pass(fd, "{", image(4096), 1);
    serve();
    close(fd);
    serve();
    g_assert_cmpuint(open_files(), ==, before - 2);
    g_assert_null(fake.cd);
}

/* One line in many pieces, and many lines in one piece. */
static void framing(void)
{
    static const char line[] = "{\"id\":1,\"method\":\"info\"}\n";
    int fd = dial();
    for (const char *c = line; *c; c++)
        g_assert_true(put(fd, c, 1));
    g_autofree char *reply = line_from(fd);
    g_assert_nonnull(reply);

    g_autoptr(GString) many = g_string_new(NULL);
    for (unsigned i = 0; i < 1000; i++)
        g_string_append(many, line);
    g_string_append(many, "{\"id\":1"); /* and one that is never finished */
    g_assert_true(put(fd, many->str, many->len));
    for (unsigned i = 0; i < 1000; i++) {
        g_autofree char *each = line_from(fd);
        g_assert_nonnull(each);
    }
    g_assert_null(line_from(fd));
    close(fd);
    serve();
}

/* A request without an end is refused, told so, and the connection closed; 64 KiB are not. */
static void too_long(void)
{
    int fd = dial();
    g_autofree char *long_text = g_strnfill(60000, 'a');
    g_autofree char *fits = g_strconcat(
        "{\"id\":1,\"method\":\"send.text\",\"params\":{\"text\":\"", long_text, "\"}}", NULL);
    json_t *reply = ask(fd, fits);
    g_assert_nonnull(json_object_get(reply, "result"));
    json_decref(reply);

    g_autofree char *endless = g_strnfill(1 << 20, ' ');
    g_assert_false(put(fd, endless, 1 << 20));
    g_autofree char *said = line_from(fd);
    g_assert_nonnull(said);
    g_assert_nonnull(strstr(said, "-32600"));
    g_assert_nonnull(strstr(said, "65536"));
    g_assert_true(hung_up(fd));
    close(fd);

    fd = dial(); /* a line of 66000 bytes is as much too long as one without an end */
    g_autofree char *text = g_strnfill(66000, ' ');
    text[65999] = '\n';
    put(fd, text, 66000);
    g_autofree char *again = line_from(fd);
    g_assert_nonnull(again);
    g_assert_nonnull(strstr(again, "-32600"));
    g_assert_true(hung_up(fd));
    close(fd);
    serve();
}

/* Who asks and asks and never reads is dropped; the others do not notice. */
static void never_reads(void)
{
    static const char line[] = "{\"id\":1,\"method\":\"info\"}\n";
    int deaf = dial(), other = dial();
    unsigned sent = 0;
    while (sent < 100000 && put(deaf, line, sizeof line - 1))
        sent++;
    g_assert_cmpuint(sent, >, 1000);
    g_assert_cmpuint(sent, <, 100000);
    json_t *reply = ask(other, "{\"id\":1,\"method\":\"info\"}");
    g_assert_nonnull(reply);
    json_decref(reply);

    int deaf_to_events = dial(); /* the same for events */
    g_assert_true(put(deaf_to_events, "{\"id\":1,\"method\":\"events\"}\n", 27));
    serve();
    for (unsigned i = 0; i < 100000; i++)
        fake.listener.event(fake.listener.opaque, "reset", "");
    serve();
    char chunk[65536];
    ssize_t n;
    while ((n = recv(deaf_to_events, chunk, sizeof chunk, MSG_DONTWAIT)) > 0)
        serve();
    g_assert_cmpint(n, ==, 0); /* what it was told before, then the end */
    close(deaf);
    close(deaf_to_events);
    close(other);
    serve();
}

/* A slow reader gets all that it asked for. */
static void slow_reader(void)
{
    static const char line[] = "{\"id\":1,\"method\":\"info\"}\n";
    int fd = dial();
    enum { REQUESTS = 3000 };
    for (unsigned i = 0; i < REQUESTS; i++)
        g_assert_true(put(fd, line, sizeof line - 1));
    for (unsigned i = 0; i < REQUESTS; i++) {
        g_autofree char *reply = line_from(fd);
        g_assert_nonnull(reply);
        g_assert_nonnull(strstr(reply, "\"result\""));
    }
    close(fd);
    serve();
}

static void events(void)
{
    int fd = dial(), quiet = dial();
    json_t *reply = ask(fd, "{\"id\":1,\"method\":\"events\"}");
    g_assert_nonnull(json_object_get(reply, "result"));
    json_decref(reply);
    /* Its own request brings an event and the answer. */
    json_t *event = ask(fd, "{\"id\":2,\"method\":\"stop\",\"params\":{\"how\":\"pause\"}}");
    g_assert_cmpstr(json_string_value(json_object_get(event, "method")), ==, "state");
    g_assert_cmpstr(json_string_value(json_object_get(json_object_get(event, "params"), "state")),
                    ==, "paused");
    json_decref(event);
    g_autofree char *answer = line_from(fd);
    g_assert_nonnull(strstr(answer, "\"id\":2"));
    g_assert_null(line_from(quiet));
    fake.state = STATE_RUNNING;
    close(fd);
    close(quiet);
    serve();
}

/* The next line is this event; one of its parameters is checked. */
static void event_is(int fd, const char *name, const char *key, const char *value)
{
    g_autofree char *line = line_from(fd);
    if (!line)
        g_error("no event %s", name);
    json_t *event = recorded("", line);
    const json_t *params = json_object_get(event, "params");
    g_assert_cmpstr(json_string_value(json_object_get(event, "method")), ==, name);
    if (key)
        g_assert_cmpstr(json_string_value(json_object_get(params, key)), ==, value);
    json_decref(event);
}

static void every_event(void)
{
    static const char *const events[][2] = {
        { "reset", "by the guest" },
        { "reset", "" },
        { "crash", "registers" },
        { "insert", "a.iso" },
        { "eject", "" },
        { "shutdown", "asked" },
        { "panic", "" },
        { "net", "off" },
        { "disk-error", "a.img: no" },
    };
    int fd = dial();
    json_decref(ask(fd, "{\"id\":1,\"method\":\"events\"}"));
    for (size_t i = 0; i < G_N_ELEMENTS(events); i++) {
        fake.listener.event(fake.listener.opaque, events[i][0], events[i][1]);
        event_is(fd, events[i][0], "text", events[i][1]);
    }
    set_state(STATE_RUNNING);
    event_is(fd, "state", "state", "running");
    close(fd);
    serve();
}

#define TEXT_IS(text) "{\"id\":1,\"method\":\"send.text\",\"params\":{\"text\":\"" text "\"}}"

static bool typing(json_t *reply)
{
    bool on = json_is_true(json_object_get(json_object_get(reply, "result"), "typing"));
    json_decref(reply);
    return on;
}

/* Who wants to know is told when the guest has taken all. */
static void typed_event(void)
{
    int fd = dial(), quiet = dial();
    json_decref(ask(fd, "{\"id\":1,\"method\":\"events\"}"));
    fake.busy = true;
    g_assert_true(typing(ask(fd, TEXT_IS("ab"))));
    fake.busy = false;
    clock_advance(fake.board.clock, NS_PER_SECOND, 0);
    typist_key(fake.typist, 0x04, true); /* the fake keyboard tells nobody */
    event_is(fd, "typed", NULL, NULL);
    g_assert_null(line_from(quiet));
    close(fd);
    close(quiet);
    serve();
}

/* Keys in chords: what has no room is not accepted. */
static void many_chords(void)
{
    int fd = dial();
    fake.keys = 0;
    json_t *reply = ask(fd, "{\"id\":1,\"method\":\"send.keys\",\"params\":{\"chords\":"
                            "[[\"shift\",\"a\"],[100],[\"f2\"]]}}");
    g_assert_cmpint(
        json_integer_value(json_object_get(json_object_get(reply, "result"), "accepted")), ==, 3);
    g_assert_cmpuint(fake.keys, ==, 8);
    json_decref(reply);
    fake.keys = 0; /* all are judged before the first */
    fails(fd, "{\"id\":1,\"method\":\"send.keys\",\"params\":{\"chords\":[[\"a\"],[]]}}", HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"send.keys\",\"params\":{\"chords\":[[\"a\"],7]}}", HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"send.keys\",\"params\":{\"chords\":[[256]]}}", HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"send.keys\",\"params\":{\"chords\":{}}}", HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"send.keys\"}", HV_USAGE);
    g_assert_cmpuint(fake.keys, ==, 0);
    fake.busy = true;
    json_decref(ask(fd, TEXT_IS("a")));
    g_autofree char *text = g_strnfill(60000, 'a');
    g_autofree char *request =
        g_strdup_printf("{\"id\":1,\"method\":\"send.text\",\"params\":{\"text\":\"%s\"}}", text);
    json_int_t accepted = 0;
    for (unsigned i = 0; i < 3; i++) {
        reply = ask(fd, request);
        accepted +=
            json_integer_value(json_object_get(json_object_get(reply, "result"), "accepted"));
        json_decref(reply);
    }
    g_assert_cmpint(accepted, >=, 65536);
    g_assert_cmpint(accepted, <, 3 * 60000);
    fails(fd, "{\"id\":1,\"method\":\"send.key\",\"params\":{\"keys\":[\"a\"]}}", HV_WRONG_STATE);
    fake.busy = false;
    fake.keys = 0;
    typist_key(fake.typist, 0x04, false);
    clock_advance(fake.board.clock, NS_PER_SECOND, 0);
    g_assert_cmpuint(fake.keys, >=, 2 * accepted);
    close(fd);
    serve();
}

#define POINTER(params) "{\"id\":1,\"method\":\"send.pointer\",\"params\":{" params "}}"

static void pointer(void)
{
    int fd = dial();
    fails(fd, POINTER("\"x\":1,\"y\":1"), HV_WRONG_STATE); /* no device */
    g_ptr_array_add(fake.devices, &fake.keyboard);
    json_decref(ask(fd, POINTER("\"x\":32767,\"y\":0,\"buttons\":[\"left\",\"middle\"]")));
    g_assert_true(fake.at && fake.x == 32767 && fake.y == 0);
    g_assert_cmpuint(fake.buttons, ==, BUTTON_LEFT | BUTTON_MIDDLE);
    json_decref(ask(fd, POINTER("\"dx\":-10,\"dy\":20,\"wheel\":-3")));
    g_assert_true(!fake.at && fake.x == -10 && fake.y == 20 && fake.wheel == -3 && !fake.buttons);
    fails(fd, POINTER("\"x\":32768,\"y\":0"), HV_USAGE);
    fails(fd, POINTER("\"x\":-1"), HV_USAGE);
    fails(fd, POINTER("\"x\":\"1\""), HV_USAGE);
    fails(fd, POINTER("\"x\":1.5"), HV_USAGE);
    fails(fd, POINTER("\"dy\":10001"), HV_USAGE);
    fails(fd, POINTER("\"wheel\":101"), HV_USAGE);
    fails(fd, POINTER("\"buttons\":\"left\""), HV_USAGE);
    fails(fd, POINTER("\"buttons\":[\"up\"]"), HV_USAGE);
    fails(fd, POINTER("\"button\":[\"left\"]"), HV_USAGE); /* no such parameter */
    fails(fd, "{\"id\":1,\"method\":\"stop\",\"params\":{\"hwo\":\"kill\"}}", HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"info\",\"params\":{\"\":1}}", HV_USAGE);
    g_ptr_array_set_size(fake.devices, 0);
    close(fd);
    serve();
}

#define WATCH(text) "{\"id\":1,\"method\":\"screen.watch\",\"params\":{\"text\":\"" text "\"}}"

static void screen_watch(void)
{
    int fd = dial();
    json_decref(ask(fd, WATCH("K")));
    event_is(fd, "screen", "line", "OK");
    g_assert_false(fake.looked_on); /* nothing is left to be waited for */
    for (unsigned i = 0; i < 8; i++)
        json_decref(ask(fd, WATCH("nothing")));
    fails(fd, WATCH("more"), HV_WRONG_STATE);
    fails(fd, WATCH(""), HV_USAGE);
    fails(fd, "{\"id\":1,\"method\":\"screen.watch\"}", HV_USAGE);
    g_autofree char *text = g_strnfill(129, 'a');
    g_autofree char *request = g_strdup_printf(WATCH("%s"), text);
    fails(fd, request, HV_USAGE);
    g_assert_true(fake.looked_on);
    close(fd);
    serve();
    g_assert_false(fake.looked_on);
}

/* A picture without a known glyph has no lines; the boot tests have those with. */
static void screen_of_glyphs(void)
{
    static uint32_t pixels[64 * 32];
    int fd = dial();
    fake.graphics = true;
    fake.picture = (struct picture){ 64, 32, pixels };
    for (unsigned i = 0; i < 3; i++) {
        static const char *const params[] = { "", "\"glyphs\":false", "\"glyphs\":true" };
        g_autofree char *request =
            g_strdup_printf("{\"id\":1,\"method\":\"screen.text\",\"params\":{%s}}", params[i]);
        json_t *reply = ask(fd, request), *result = json_object_get(reply, "result");
        g_assert_true(json_is_true(json_object_get(result, "graphics")));
        g_assert_cmpuint(json_array_size(json_object_get(result, "lines")), ==, 0);
        json_decref(reply);
    }
    fails(fd, "{\"id\":1,\"method\":\"screen.text\",\"params\":{\"glyphs\":1}}", HV_USAGE);
    json_decref(ask(fd, WATCH("K")));
    fake.graphics = false;
    fake.onlooker->seen(fake.onlooker, &fake.picture, (struct rectangle){ 0, 0, 1, 1 }, false);
    event_is(fd, "screen", "line", "OK");
    close(fd);
    serve();
}

/* More clients than there is room for are turned away; room comes back with those that leave. */
static void many_clients(void)
{
    enum { CLIENTS = 16 };
    int fds[CLIENTS];
    for (unsigned i = 0; i < CLIENTS; i++) {
        fds[i] = dial();
        serve();
    }
    int extra = dial();
    g_assert_true(hung_up(extra));
    close(extra);
    close(fds[3]);
    serve();
    fds[3] = dial();
    for (unsigned i = 0; i < CLIENTS; i++) {
        json_t *reply = ask(fds[i], "{\"id\":1,\"method\":\"info\"}");
        g_assert_nonnull(reply);
        json_decref(reply);
        close(fds[i]);
    }
    serve();
}

/* A client that leaves without its answers, or in the middle of a request, is no matter. */
static void leaves_early(void)
{
    for (unsigned i = 0; i < 50; i++) {
        int fd = dial();
        g_assert_true(send(fd, "{\"id\":1,\"method\":\"info\"}\n{\"id\"", 31, 0) == 31);
        close(fd);
        serve();
    }
    int fd = dial();
    json_t *reply = ask(fd, "{\"id\":1,\"method\":\"info\"}");
    g_assert_nonnull(reply);
    json_decref(reply);
    close(fd);
    serve();
}

/* No descriptor is left for who connects: it waits, the machine's thread does not spin, the other
 * clients are served; and when there is one again it is its turn. */
static void no_descriptors(void)
{
    int other = dial(), waiting = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    enum { DESCRIPTORS = 64 };
    int taken[DESCRIPTORS], count = 0;
    struct rlimit limit, none;
    serve();
    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    none = limit;
    none.rlim_cur = DESCRIPTORS;
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &none), ==, 0);
    while (count < DESCRIPTORS && (taken[count] = dup(other)) >= 0)
        count++;
    g_assert_cmpint(connect(waiting, (struct sockaddr *)&address, sizeof address), ==, 0);
    unsigned turns = 0;
    while (turns < 1000 && g_main_context_iteration(NULL, false))
        turns++;
    g_assert_cmpuint(turns, <, 1000);
    json_t *reply = ask(other, "{\"id\":1,\"method\":\"info\"}");
    g_assert_nonnull(reply);
    json_decref(reply);
    fds_close(taken, (unsigned)count);
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    for (unsigned i = 0; i < 100; i++) { /* it looks again, in half a second */
        g_usleep(20000);
        serve();
    }
    reply = ask(waiting, "{\"id\":1,\"method\":\"info\"}");
    g_assert_nonnull(reply);
    json_decref(reply);
    close(waiting);
    close(other);
    serve();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fake.config = config_new();
    fake.config->name = g_strdup("fake");
    fake.keyboard.class = fake.display.class = &class;
    g_mutex_init(&fake.keyboard.lock);
    fake.board.clock = clock_new(true);
    fake.keyboard.board = &fake.board;
    g_mutex_init(&fake.display.lock);
    fake.config->memory = 64 << 20;
    fake.devices = g_ptr_array_new();

    g_autofree char *folder = g_dir_make_tmp("hv-test-XXXXXX", NULL);
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof address.sun_path, "%s/control", folder);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    g_assert_cmpint(bind(listener, (struct sockaddr *)&address, sizeof address), ==, 0);
    g_assert_cmpint(listen(listener, 16), ==, 0);
    struct typist *typist = fake.typist = typist_new(&fake.board, the_keyboard, NULL);
    const char *record = g_getenv("CONTROL_RECORD");
    fake.record = record ? fopen(record, "w") : NULL;
    struct control *control = control_new(NULL, NULL, typist, listener);

    g_test_add_func("/control/answers", answers);
    g_test_add_func("/control/memory", memory);
    g_test_add_func("/control/cpus", looks_at_cpus);
    g_test_add_func("/control/disk-grows", disk_grows);
    g_test_add_func("/control/disk-faults", disk_faults);
    g_test_add_func("/control/net-faults", net_faults);
    g_test_add_func("/control/terminal", terminal);
    g_test_add_func("/control/bad-requests", bad_requests);
    g_test_add_func("/control/wrong-params", wrong_params);
    g_test_add_func("/control/stop-in-each-state", stop_in_each_state);
    g_test_add_func("/control/notifications", notifications);
    g_test_add_func("/control/another-cd", another_cd);
    g_test_add_func("/control/another-floppy", another_floppy);
    g_test_add_func("/control/files-nobody-wants", files_nobody_wants);
    g_test_add_func("/control/framing", framing);
    g_test_add_func("/control/too-long", too_long);
    g_test_add_func("/control/never-reads", never_reads);
    g_test_add_func("/control/slow-reader", slow_reader);
    g_test_add_func("/control/events", events);
    g_test_add_func("/control/every-event", every_event);
    g_test_add_func("/control/typed-event", typed_event);
    g_test_add_func("/control/many-chords", many_chords);
    g_test_add_func("/control/pointer", pointer);
    g_test_add_func("/control/screen-watch", screen_watch);
    g_test_add_func("/control/screen-of-glyphs", screen_of_glyphs);
    g_test_add_func("/control/many-clients", many_clients);
    g_test_add_func("/control/leaves-early", leaves_early);
    g_test_add_func("/control/no-descriptors", no_descriptors);
    int status = g_test_run();
    if (fake.record)
        fclose(fake.record);
    unlink(address.sun_path);
    rmdir(folder);
    close(listener);
    g_free(control);
    typist_free(typist);
    config_free(fake.config);
    return status;
}
