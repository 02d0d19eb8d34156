/* hv-vmm: one machine, and nothing else. Started by hv with a socket, over which it gets one JSON
 * description and, beside it, the files it needs as open descriptors (a CD that is put in later
 * comes over the control socket); it answers with one line when the machine runs, or with why it
 * does not. It opens no path.
 *
 *   {"config": {...}, "files": {"kvm": 0, "control": 1, ..., "disks": [{"fd": 5, "bus": "ahci",
 * ...}]}}
 */
#include "base/error.h"
#include "base/fds.h"
#include "base/log.h"
#include "block/chain.h"
#include "block/format.h"
#include "block/overlay.h"
#include "block/volatile.h"
#include "block/zeroes.h"
#include "boot/direct.h"
#include "bus/host-socket.h"
#include "machine/control.h"
#include "machine/direct.h"
#include "machine/display.h"
#include "machine/drives.h"
#include "machine/inputs.h"
#include "machine/machine.h"
#include "machine/streams.h"
#include "machine/trace.h"
#include "machine/typist.h"

#include <errno.h>
#include <glib-unix.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { DESCRIPTION_MAX = 131072, ROM_MAX = 16 << 20 };

struct vmm {
    struct machine *machine;
    struct display *display;
    bool told_to_stop; /* SIGTERM came once */
    bool had_viewer_or_none_wanted;
};

/* --- the description ------------------------------------------------------------------------ */

struct files {
    int fds[FDS_MAX];
    unsigned count;
    json_t *table;
};

/* The descriptor of that name; -1 when the description has none. */
static int file_of(const struct files *files, const json_t *index)
{
    json_int_t i = json_is_integer(index) ? json_integer_value(index) : -1;
    return i >= 0 && i < (json_int_t)files->count ? files->fds[i] : -1;
}

static int file_named(const struct files *files, const char *name)
{
    return file_of(files, json_object_get(files->table, name));
}

struct pages {
    void *start;
    size_t size;
};

enum rom_kind { ROM_FIRMWARE, ROM_OPTION };

/* As many bytes as its BAR has, the last ones 0, for an option ROM of `size` bytes. */
static size_t option_size(size_t size)
{
    size_t bar = size ? 4096 : 0;
    while (bar < size)
        bar *= 2;
    return bar;
}

static void unmap(void *data)
{
    struct pages *pages = data;
    munmap(pages->start, pages->size);
    g_free(pages);
}

/* A ROM in pages of its own, so that the guest can be shown them as they are. A copy, not a map of
 * the file: that may change or shrink. */
static GBytes *read_rom(int fd, enum rom_kind kind)
{
    off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    size = CLAMP(size, 0, ROM_MAX + 1); /* too large: machine_new says so */
    struct pages *pages = g_new(struct pages, 1);
    pages->size = option_size((size_t)size) + 1;
    pages->start =
        mmap(NULL, pages->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    off_t done = 0;
    while (pages->start != MAP_FAILED && done < size) {
        ssize_t n = pread(fd, (char *)pages->start + done, (size_t)(size - done), done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += n;
    }
    size_t shown = kind == ROM_OPTION ? option_size((size_t)done) : (size_t)done;
    return g_bytes_new_with_free_func(pages->start, shown, unmap, pages);
}

/* The files of an image; NULL when the description is wrong. */
static struct chain *chain_from(const struct files *files, const json_t *item, bool readonly)
{
    const char *name = json_string_value(json_object_get(item, "name"));
    const char *format = json_string_value(json_object_get(item, "format"));
    const json_t *below = json_object_get(item, "below");
    int fd = file_of(files, json_object_get(item, "fd"));
    if (fd < 0 || !name || !format || !format_named(format))
        return NULL;
    g_autoptr(image_chain) chain = chain_new(fd, name, format_named(format), readonly);
    chain->remote = json_is_true(json_object_get(item, "remote"));
    if (below && !(chain->below = chain_from(files, below, true)))
        return NULL;
    size_t i;
    json_t *part;
    json_array_foreach(json_object_get(item, "parts"), i, part)
    {
        struct chain *next = chain_from(files, part, readonly);
        if (!next)
            return NULL;
        g_ptr_array_add(chain->parts, next);
    }
    return g_steal_pointer(&chain);
}

static struct disk *open_disk(const struct files *files, const json_t *item, bool throwaway,
                              const struct format **format, GError **error)
{
    bool readonly = json_is_true(json_object_get(item, "readonly"));
    bool overlay = throwaway && !readonly;
    g_autoptr(image_chain) chain = chain_from(files, item, readonly || overlay);
    if (!chain) {
        hv_fail(error, HV_USAGE, "the machine's description: a disk is wrong");
        return NULL;
    }
    struct disk *disk = chain_disk(chain, error);
    if (!overlay)
        *format = chain->format;
    if (!disk || !overlay)
        return disk;
    return overlay_open(disk, error);
}

static bool open_drives(struct drives *to, const struct files *files, const struct config *config,
                        GError **error)
{
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(files->table, "disks"), i, item)
    {
        const char *bus = json_string_value(json_object_get(item, "bus"));
        unsigned number = 0;
        while (bus && number < DRIVE_BUSES && strcmp(bus, drive_bus_names[number]))
            number++;
        if (to->count == DRIVES_MAX || !bus || number == DRIVE_BUSES)
            return hv_fail(error, HV_USAGE, "the machine's description: a drive is wrong");
        struct machine_drive *drive = &to->drive[to->count++];
        drive->bus = number;
        drive->is_cd = json_is_true(json_object_get(item, "cd"));
        drive->options = json_string_value(json_object_get(item, "options"));
        if (!json_object_get(item, "fd"))
            continue; /* a CD or floppy drive without one */
        if (!(drive->disk = open_disk(files, item, config->throwaway, &drive->format, error)))
            return false;
        const char *zeroes = json_string_value(json_object_get(item, "detect-zeroes"));
        drive->image = drive->disk;
        if (config->volatile_seed && number != DRIVE_FLOPPY && !drive->disk->readonly)
            drive->disk = drive->cache =
                volatile_open(drive->disk, (uint32_t)config->volatile_seed);
        if (zeroes && strcmp(zeroes, "off") && !drive->disk->readonly)
            drive->disk = zeroes_open(drive->disk, !strcmp(zeroes, "unmap"));
    }
    return true;
}

static struct host_stream *stream_on(const struct files *files, const char *name, const char *in,
                                     const char *out)
{
    int in_fd = file_named(files, in), out_fd = file_named(files, out);
    return in_fd < 0 && out_fd < 0 ? NULL : host_stream_new(name, in_fd, out_fd);
}

/* What the kernel needs to serve the network card's queues. */
static void take_vhosts(struct machine_files *parts, const struct files *files)
{
    const json_t *vhosts = json_object_get(files->table, "vhost");
    const json_t *queues = json_object_get(files->table, "net-queues");
    for (size_t i = 0; i < MIN(json_array_size(vhosts), NIC_PAIRS_MAX); i++) {
        int vhost = file_of(files, json_array_get(vhosts, i));
        int queue = i ? file_of(files, json_array_get(queues, i - 1)) : -1;
        if (vhost < 0 || (i && queue < 0))
            break;
        parts->vhost[i] = vhost;
        parts->net_queue[i] = queue;
        parts->vhosts++;
    }
}

/* The text of a module: its file's name without folders, and its arguments. */
static char *module_text(const char *file, const char *arguments)
{
    g_autofree char *base = g_path_get_basename(file);
    return g_strconcat(base, arguments && *arguments ? " " : NULL, arguments, NULL);
}

/* The kernel to start without firmware, for the machine's life; NULL when there is none. */
static struct boot_kernel *kernel_of(const struct files *files, const struct config *config)
{
    int fd = file_named(files, "kernel");
    if (fd < 0)
        return NULL;
    const json_t *fds = json_object_get(files->table, "initrds");
    unsigned count = (unsigned)MIN(json_array_size(fds), config->initrds->len);
    struct boot_kernel *kernel = g_new0(struct boot_kernel, 1);
    struct boot_file *initrds = g_new0(struct boot_file, count);
    const char *name = config->kernel ? config->kernel : "the kernel";
    kernel->file = (struct boot_file){ fd, name, module_text(name, NULL) };
    kernel->append = config->append;
    kernel->multiboot = config->multiboot;
    kernel->initrds = initrds;
    kernel->initrd_count = count;
    for (unsigned i = 0; i < count; i++) {
        const char *text = g_ptr_array_index(config->initrds, i);
        g_auto(GStrv) words = g_strsplit(text, " ", config->multiboot ? 2 : 1);
        initrds[i].fd = file_of(files, json_array_get(fds, i));
        initrds[i].name = text;
        initrds[i].text = config->multiboot ? module_text(words[0], words[1]) : NULL;
    }
    return kernel;
}

/* For the machine's life. */
static struct host_socket *socket_on(const struct files *files, const char *name)
{
    int fd = file_named(files, name);
    struct host_socket *socket = fd >= 0 ? g_new(struct host_socket, 1) : NULL;
    if (socket)
        socket->fd = fd;
    return socket;
}

/* --- the machine's end ---------------------------------------------------------------------- */

/* The process ends without taking KVM's objects apart: the kernel does that faster. Images are
 * closed: not every guest flushes what it wrote before it goes. */
static void end(struct vmm *vmm)
{
    display_stop(vmm->display);
    machine_close_disks(vmm->machine);
    _exit(machine_exit_status(vmm->machine));
}

/* A crashed machine stays for who looks at its last picture, and ends when nobody does. */
static void end_if_unseen(void *opaque)
{
    struct vmm *vmm = opaque;
    if (machine_state(vmm->machine) == STATE_CRASHED && !display_viewers(vmm->display))
        machine_power_off(vmm->machine, HV_CRASHED);
}

static void last_viewer_gone(void *opaque)
{
    struct vmm *vmm = opaque;
    vmm->had_viewer_or_none_wanted = true;
    end_if_unseen(vmm);
}

static gboolean end_later(void *data)
{
    end(data);
    return G_SOURCE_REMOVE;
}

static void state_told(void *opaque, enum display_state state, const char *why)
{
    struct vmm *vmm = opaque;
    (void)why;
    if (state == STATE_OFF)
        g_idle_add_full(G_PRIORITY_LOW, end_later, vmm, NULL); /* after the events went out */
    if (state == STATE_CRASHED && vmm->had_viewer_or_none_wanted)
        end_if_unseen(vmm);
}

/* SIGTERM, SIGINT, SIGHUP: the first asks the guest to shut down, the second pulls the plug. */
static gboolean signalled(int fd, GIOCondition condition, void *data)
{
    struct vmm *vmm = data;
    struct signalfd_siginfo info;
    (void)condition;
    if (read(fd, &info, sizeof info) != (ssize_t)sizeof info)
        return G_SOURCE_CONTINUE;
    if (vmm->told_to_stop || machine_state(vmm->machine) != STATE_RUNNING)
        machine_pull_plug(vmm->machine);
    else
        machine_press_power(vmm->machine);
    vmm->told_to_stop = true;
    return G_SOURCE_CONTINUE;
}

/* Each connection of virtio-vsock is a descriptor, and the usual limit of 1024 is from a time when
 * select(2) was common. */
static void raise_fd_limit(void)
{
    enum { WANTED = 4096 };
    struct rlimit fds;
    if (getrlimit(RLIMIT_NOFILE, &fds) == 0 && fds.rlim_cur < WANTED) {
        fds.rlim_cur = MIN((rlim_t)WANTED, fds.rlim_max);
        setrlimit(RLIMIT_NOFILE, &fds);
    }
}

static int signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* before any thread starts: all inherit it */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file at the size limit is an error like ENOSPC, not the end */
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* --- start ---------------------------------------------------------------------------------- */

static bool receive(int socket, json_t **description, struct files *files, GError **error)
{
    g_autofree char *text = g_malloc(DESCRIPTION_MAX);
    json_error_t parse;
    ssize_t length =
        fds_receive(socket, text, DESCRIPTION_MAX, files->fds, FDS_MAX, &files->count, error);
    if (length < 0)
        return false;
    if (length == 0)
        return hv_fail(error, HV_USAGE, "no description came: hv-vmm is started by hv");
    *description = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &parse);
    if (!*description)
        return hv_fail(error, HV_USAGE, "the machine's description: %s", parse.text);
    files->table = json_object_get(*description, "files");
    return true;
}

static struct device *keyboard(void *machine)
{
    return inputs_choose(machine_devices(machine), INPUT_KEYS);
}

static bool start(struct vmm *vmm, int socket, GError **error)
{
    json_t *description = NULL;
    struct files files = { .count = 0 };
    if (!receive(socket, &description, &files, error))
        return false;
    struct config *config = config_from_json(json_object_get(description, "config"), error);
    if (!config)
        return false;
    struct boot_kernel *kernel = kernel_of(&files, config);
    struct machine_files parts = {
        .kvm = file_named(&files, "kvm"),
        .drives = g_new0(struct drives, 1),
        .kernel = kernel,
        .firmware = kernel ? direct_rom() : read_rom(file_named(&files, "firmware"), ROM_FIRMWARE),
        .vga_rom = read_rom(file_named(&files, "vga"), ROM_OPTION),
        .serial = stream_on(&files, "serial0", "serial-in", "serial-out"),
        .serial2 = stream_on(&files, "serial1", "", "serial2-out"),
        .firmware_log = stream_on(&files, "firmware-log", "", "log"),
        .images = file_named(&files, "images"),
        .vsock = socket_on(&files, "vsock"),
        .nic_rom = file_named(&files, "nic-rom") < 0
                       ? NULL
                       : read_rom(file_named(&files, "nic-rom"), ROM_OPTION),
        .net = file_named(&files, "net"),
        .net_tap = config->net && g_str_has_prefix(config->net, "tap="),
        .capture = file_named(&files, "pcap"),
    };
    take_vhosts(&parts, &files);
    if (!open_drives(parts.drives, &files, config, error))
        return false;
    vmm->machine = machine_new(config, &parts, error);
    if (!vmm->machine)
        return false;
    vmm->had_viewer_or_none_wanted = config->headless;
    vmm->display = display_new(vmm->machine, file_named(&files, "display"), error);
    if (!vmm->display)
        return false;
    struct typist *typist = typist_new(machine_board(vmm->machine), keyboard, vmm->machine);
    const json_t *keys = json_object_get(description, "keys");
    struct key_map *map = keys ? key_map_from_json(keys) : NULL;
    if (keys && !map)
        return hv_fail(error, HV_USAGE, "the machine's description: \"keys\" is wrong");
    if (map)
        typist_set_map(typist, map);
    inputs_set_source(machine_devices(vmm->machine), typist_source(typist));
    display_set_typist(vmm->display, typist);
    display_on_last_gone(vmm->display, last_viewer_gone, vmm);
    control_new(vmm->machine, vmm->display, typist, file_named(&files, "control"));
    machine_listen(vmm->machine, &(struct machine_listener){ .state = state_told, .opaque = vmm });
    if (config->trace && !trace_start(machine_board(vmm->machine)->bus, config->trace, error))
        return false;
    display_start(vmm->display);
    machine_start(vmm->machine);
    json_decref(description);
    return true;
}

static void answer(int socket, int status, const char *message)
{
    json_t *json = json_pack("{s:i, s:s}", "status", status, "message", message);
    g_autofree char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    if (text)
        fds_send(socket, text, strlen(text), NULL, 0, NULL);
    close(socket);
}

int main(int argc, char **argv)
{
    struct vmm vmm = { .machine = NULL };
    g_autoptr(GError) error = NULL;
    if (argc != 3 || strcmp(argv[1], "--fd")) {
        fputs("hv-vmm is started by hv; see hv(1)\n", stderr);
        return HV_USAGE;
    }
    if (g_getenv("HV_VERBOSE"))
        log_set_level(LOG_INFO);
    /* Few threads allocate, and rarely: one arena for all costs less memory than one for each. */
    mallopt(M_ARENA_MAX, 1);
    raise_fd_limit();
    size_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed && seed)
        json_object_seed(seed); /* jansson would open /dev/urandom, and hv-vmm opens no path */
    int socket = (int)strtol(argv[2], NULL, 10), signal_fd = signals();
    if (!start(&vmm, socket, &error)) {
        answer(socket, hv_exit_status(error), error->message);
        _exit(hv_exit_status(error));
    }
    g_unix_fd_add(signal_fd, G_IO_IN, signalled, &vmm);
    answer(socket, HV_OK, "");
    malloc_trim(0); /* the description and the tables have been read */
    for (;;)
        g_main_context_iteration(NULL, true);
}
