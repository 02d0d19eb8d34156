/* From a config to a machine; see launch.h. All paths are opened here, as the user; hv-vmm gets
 * descriptors only. */
#include "cli/launch.h"

#include "base/error.h"
#include "base/fds.h"
#include "block/chain.h"
#include "block/floppy.h"
#include "block/format.h"
#include "block/image.h"
#include "cli/beside.h"
#include "cli/cli.h"
#include "cli/network.h"
#include "cli/terminal.h"
#include "cli/url.h"
#include "keys/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OTHER_FILES = 64 /* that are no disks; more than there are */ };

struct launch {
    struct config *config;
    char *root, *dir; /* of all machines; of this one */
    int fds[FDS_MAX];
    unsigned count;
    json_t *files;   /* name -> index into fds */
    json_t *disks;   /* for hv-vmm */
    json_t *keys;    /* what types which character; NULL: US */
    GString *images; /* what the file "images" holds */
    struct terminal *terminal;
    struct network network;
};

static const char *const firmware_dirs[] = {
    "/usr/share/seabios",       "/usr/share/qemu",    "/usr/share/kvm",
    "/usr/local/share/seabios", "/usr/lib/ipxe/qemu", NULL,
};

/* --- files ---------------------------------------------------------------------------------- */

/* Takes over fd; -1 with the error for a room that is full. */
static int add_fd(struct launch *launch, int fd)
{
    g_assert(launch->count < FDS_MAX); /* those of disks leave room for the others */
    launch->fds[launch->count] = fd;
    return (int)launch->count++;
}

static void add_file(struct launch *launch, const char *name, int fd)
{
    json_object_set_new(launch->files, name, json_integer(add_fd(launch, fd)));
}

static void add_files(struct launch *launch, const char *name, const int *fds, unsigned count)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < count; i++)
        json_array_append_new(list, json_integer(add_fd(launch, fds[i])));
    json_object_set_new(launch->files, name, list);
}

static bool open_kvm(struct launch *launch, GError **error)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        add_file(launch, "kvm", fd);
        return true;
    }
    if (errno == ENOENT || errno == ENXIO || errno == ENODEV)
        return hv_fail(error, HV_HOST,
                       "/dev/kvm: there is none: this host cannot run virtual machines, or its "
                       "firmware has virtualisation turned off, or the module is not loaded "
                       "(modprobe kvm_intel or kvm_amd)");
    if (errno == EACCES || errno == EPERM)
        return hv_fail(error, HV_HOST,
                       "/dev/kvm: you may not use it: add yourself to its group (sudo adduser %s "
                       "kvm) and log in again",
                       g_get_user_name());
    return hv_fail(error, HV_HOST, "/dev/kvm: %s", g_strerror(errno));
}

static int open_rom(const char *const *names)
{
    for (const char *const *name = names; *name; name++)
        for (const char *const *dir = firmware_dirs; *dir; dir++) {
            g_autofree char *path = g_build_filename(*dir, *name, NULL);
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            if (fd >= 0)
                return fd;
        }
    return -1;
}

static bool open_firmware(struct launch *launch, GError **error)
{
    static const char *const bios[] = { "bios-256k.bin", "bios.bin", NULL };
    static const char *const vga[] = { "vgabios-stdvga.bin", NULL };
    const char *wish = launch->config->firmware;
    bool own = strcmp(wish, "bios");
    int fd = own ? open(wish, O_RDONLY | O_CLOEXEC) : open_rom(bios);
    struct stat info;
    if (fd < 0 && !own)
        return hv_fail(error, HV_HOST,
                       "SeaBIOS is not installed: apt install seabios, or give --firmware FILE");
    if (fd < 0 || fstat(fd, &info) < 0)
        return hv_fail(error, HV_FAILED, "--firmware %s: %s", wish, g_strerror(errno));
    if (own && (!S_ISREG(info.st_mode) || info.st_size < 65536 || info.st_size > 16 << 20 ||
                info.st_size % 4096))
        return hv_fail(
            error, HV_FAILED,
            "--firmware %s: %lld bytes: a ROM image has 64 KiB to 16 MiB, in whole 4 KiB "
            "pages",
            wish, (long long)info.st_size);
    add_file(launch, "firmware", fd);
    fd = open_rom(vga);
    if (fd >= 0)
        add_file(launch, "vga", fd);
    return true;
}

static int open_boot_file(const char *option, const char *path, GError **error)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &info) < 0) {
        hv_fail(error, HV_FAILED, "%s %s: %s", option, path, g_strerror(errno));
    } else if (!S_ISREG(info.st_mode)) {
        hv_fail(error, HV_USAGE, "%s %s: a file is wanted, this is %s", option, path,
                S_ISDIR(info.st_mode) ? "a directory" : "none");
    } else {
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

/* The kernel and its initrds instead of a firmware. With --multiboot, arguments follow the name. */
static bool open_kernel(struct launch *launch, GError **error)
{
    const struct config *config = launch->config;
    json_t *initrds = json_array();
    json_object_set_new(launch->files, "initrds", initrds);
    int fd = open_boot_file("--kernel", config->kernel, error);
    if (fd < 0)
        return false;
    add_file(launch, "kernel", fd);
    for (guint i = 0; i < config->initrds->len; i++) {
        const char *text = g_ptr_array_index(config->initrds, i);
        g_autofree char *path =
            g_strndup(text, config->multiboot ? strcspn(text, " ") : strlen(text));
        fd = open_boot_file("--initrd", path, error);
        if (fd < 0)
            return false;
        json_array_append_new(initrds, json_integer(add_fd(launch, fd)));
    }
    return true;
}

/* --boot net: the network card's part of the firmware. */
static bool open_nic_rom(struct launch *launch, GError **error)
{
    static const char *const virtio[] = { "pxe-virtio.rom", NULL };
    static const char *const e1000[] = { "pxe-e1000.rom", NULL };
    g_auto(GStrv) boot = g_strsplit(launch->config->boot ? launch->config->boot : "", ",", -1);
    if (!g_strv_contains((const char *const *)boot, "net"))
        return true;
    int fd = open_rom(strstr(launch->config->net, "model=e1000") ? e1000 : virtio);
    if (fd < 0)
        return hv_fail(error, HV_HOST, "--boot net: iPXE is not installed: apt install ipxe-qemu");
    add_file(launch, "nic-rom", fd);
    return true;
}

char *launch_shown_name(const char *path)
{
    g_autofree char *base = g_path_get_basename(path);
    return g_utf8_make_valid(base, -1); /* file names are bytes, JSON is not */
}

/* The files of an image for hv-vmm; NULL with an error. */
static json_t *describe_chain(struct launch *launch, struct chain *chain, GError **error)
{
    if (launch->count + OTHER_FILES >= FDS_MAX) {
        hv_fail(error, HV_USAGE, "%s: the disks have too many files (%d)", chain->name,
                FDS_MAX - OTHER_FILES);
        return NULL;
    }
    g_autofree char *shown = chain->remote ? url_name(chain->path) : launch_shown_name(chain->path);
    json_t *item = json_pack("{s:i, s:s, s:s}", "fd", add_fd(launch, chain->fd), "name", shown,
                             "format", chain->format->name);
    chain->fd = -1; /* the launch's */
    if (chain->remote)
        json_object_set_new(item, "remote", json_true());
    if (chain->below)
        json_object_set_new(item, "below", describe_chain(launch, chain->below, error));
    bool ok = !chain->below || json_object_get(item, "below");
    for (guint i = 0; ok && i < chain->parts->len; i++) {
        json_t *part = describe_chain(launch, g_ptr_array_index(chain->parts, i), error);
        json_t *parts = json_object_get(item, "parts");
        if (!parts)
            json_object_set_new(item, "parts", parts = json_array());
        ok = part && json_array_append_new(parts, part) == 0;
    }
    if (ok)
        return item;
    json_decref(item);
    return NULL;
}

static bool open_drive(struct launch *launch, const struct drive *drive, GError **error)
{
    const struct chain_rules rules = {
        .readonly = drive->readonly || launch->config->throwaway,
        .format = drive->format,
        .machines = launch->root,
        .allowed = drive->backing,
        .trusted = launch->config->trust_backing,
    };
    g_autoptr(image_chain) chain = beside_open(drive->file, &rules, launch->config->folder, error);
    if (!chain)
        return false;
    g_autofree char *identities = chain_identities(chain);
    g_string_append_printf(launch->images, "%s\n", identities);
    json_t *item = describe_chain(launch, chain, error);
    if (!item)
        return false;
    json_object_update_new(item,
                           json_pack("{s:s, s:b, s:b, s:s*, s:s*}", "bus", drive->bus, "readonly",
                                     (int)drive->readonly, "cd", (int)drive->cd, "options",
                                     drive->options, "detect-zeroes", drive->zeroes));
    json_array_append_new(launch->disks, item);
    return true;
}

/* Floppies have a few sizes only; "none" is a drive without one. */
static bool open_floppy(struct launch *launch, const struct drive *drive, GError **error)
{
    struct stat info;
    if (!strcmp(drive->file, "none")) {
        json_array_append_new(launch->disks, json_pack("{s:s}", "bus", drive->bus));
        return true;
    }
    if (stat(drive->file, &info) == 0 && S_ISREG(info.st_mode) &&
        !floppy_format((uint64_t)info.st_size))
        return hv_fail(error, HV_USAGE,
                       "--floppy %s: %lld bytes: floppies have 160, 180, 320, 360, 720, 1200, "
                       "1440, 1680, 1722 or 2880 KiB; --disk takes any size",
                       drive->file, (long long)info.st_size);
    return open_drive(launch, drive, error);
}

/* Disks come first on the controller's ports, then CDs; a machine without a CD has an empty drive,
 * if there is a port for it. */
static bool open_drives(struct launch *launch, GError **error)
{
    const char *ahci = drive_bus_names[DRIVE_AHCI];
    const struct config *config = launch->config;
    unsigned ports = config->cdroms->len;
    for (guint i = 0; i < config->disks->len; i++)
        ports += !strcmp(((struct drive *)g_ptr_array_index(config->disks, i))->bus, ahci);
    guint drives = config->disks->len + config->cdroms->len + config->floppies->len;
    if (config->floppies->len > FLOPPY_DRIVES)
        return hv_fail(error, HV_USAGE, "--floppy: at most %d are possible", FLOPPY_DRIVES);
    if (ports > AHCI_PORTS || drives > DRIVES_MAX)
        return hv_fail(error, HV_USAGE,
                       "at most %d disks and CDs are possible on AHCI, and %d in all", AHCI_PORTS,
                       DRIVES_MAX);
    for (guint i = 0; i < config->disks->len; i++)
        if (!open_drive(launch, g_ptr_array_index(config->disks, i), error))
            return false;
    for (guint i = 0; i < config->cdroms->len; i++)
        if (!open_drive(launch, g_ptr_array_index(config->cdroms, i), error))
            return false;
    for (guint i = 0; i < config->floppies->len; i++)
        if (!open_floppy(launch, g_ptr_array_index(config->floppies, i), error))
            return false;
    if (!config->cdroms->len && ports < AHCI_PORTS && drives < DRIVES_MAX)
        json_array_append_new(launch->disks, json_pack("{s:s, s:b}", "bus", ahci, "cd", 1));
    return true;
}

/* What the guest writes to a serial port, in a file or a FIFO that has a reader. */
static bool open_serial_file(struct launch *launch, const char *option, const char *file,
                             const char *key, GError **error)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return hv_fail(error, HV_FAILED, "%s %s: %s", option, file, g_strerror(errno));
    add_file(launch, key, fd);
    return true;
}

static bool open_serial2(struct launch *launch, GError **error)
{
    const char *wish = launch->config->serial2;
    return !wish || !strcmp(wish, "none") ||
           open_serial_file(launch, "--serial2", wish, "serial2-out", error);
}

static bool open_serial(struct launch *launch, GError **error)
{
    const char *wish = launch->config->serial;
    if (!strcmp(wish, "none"))
        return true;
    if (!strcmp(wish, "stdio")) {
        launch->terminal =
            terminal_open(strcmp(launch->config->console, "virtio") ? "serial port" : "console");
        add_file(launch, "serial-in", terminal_input(launch->terminal));
        add_file(launch, "serial-out", fcntl(1, F_DUPFD_CLOEXEC, 3));
        return true;
    }
    if (!strcmp(wish, "pty")) {
        int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0)
            return hv_fail(error, HV_HOST, "--serial pty: %s", g_strerror(errno));
        printf("serial port: %s\n", ptsname(fd));
        fflush(stdout);
        /* A slave end of our own: until somebody opens it, reads would fail. */
        int slave = open(ptsname(fd), O_RDWR | O_NOCTTY | O_CLOEXEC);
        terminal_make_raw(slave, false);
        add_file(launch, "serial-keep", slave);
        add_file(launch, "serial-in", fd);
        add_file(launch, "serial-out", fcntl(fd, F_DUPFD_CLOEXEC, 3));
        return true;
    }
    return open_serial_file(launch, "--serial", wish, "serial-out", error);
}

/* --trace firmware: what the firmware writes to its debug port comes here. */
static void open_log(struct launch *launch)
{
    const char *trace = launch->config->trace;
    g_auto(GStrv) words = g_strsplit(trace ? trace : "", ",", -1);
    int fd =
        g_strv_contains((const char *const *)words, "firmware") ? fcntl(2, F_DUPFD_CLOEXEC, 3) : -1;
    if (fd >= 0)
        add_file(launch, "log", fd);
}

/* --- the machine's directory ---------------------------------------------------------------- */

/* A listening socket in the machine's directory; -1 with an error. */
static int listen_on(struct launch *launch, const char *name, int type, GError **error)
{
    g_autofree char *path = g_build_filename(launch->dir, name, NULL);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof address.sun_path) {
        hv_fail(error, HV_FAILED, "%s: too long for a socket: a shorter --name helps", path);
        return -1;
    }
    strcpy(address.sun_path, path);
    unlink(path); /* of a machine that died; ours is not there yet: the lock says so */
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        chmod(path, 0600) == 0 && listen(fd, 16) == 0)
        return fd;
    hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool add_listener(struct launch *launch, const char *name, int type, GError **error)
{
    int fd = listen_on(launch, name, type, error);
    if (fd >= 0)
        add_file(launch, name, fd);
    return fd >= 0;
}

/* The network; hv-net, where there is one, starts while the machine does. */
static bool open_network(struct launch *launch, GError **error)
{
    struct network *network = &launch->network;
    bool control = network_has_control(launch->config);
    int listener = control ? listen_on(launch, "net", SOCK_STREAM, error) : -1;
    bool ok = (listener >= 0 || !control) && network_open(network, launch->config, listener, error);
    if (listener >= 0)
        close(listener);
    if (network->frames >= 0)
        add_file(launch, "net", network->frames);
    if (network->capture >= 0)
        add_file(launch, "pcap", network->capture);
    if (network->pairs) {
        add_files(launch, "vhost", network->vhost, network->pairs);
        add_files(launch, "net-queues", network->queue, network->pairs - 1);
    }
    return ok;
}

/* The locked file "lock" of the machine's directory; -1 with errno. Somebody who cleans up after
 * dead machines may remove a directory without a lock at any time: then it is made again. */
static int lock_name(const char *dir)
{
    enum { TRIES = 1000, TRY_US = 1000 };
    g_autofree char *path = g_build_filename(dir, "lock", NULL);
    for (unsigned i = 0; i < TRIES; i++) {
        struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        struct stat ours, there;
        if (mkdir(dir, 0700) < 0 && errno != EEXIST)
            return -1;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0 && errno == ENOENT)
            continue;
        if (fd < 0)
            return -1;
        bool locked = fcntl(fd, F_OFD_SETLK, &lock) == 0;
        int error = errno;
        bool cleaned = !locked && fcntl(fd, F_OFD_GETLK, &lock) == 0 &&
                       (lock.l_type == F_UNLCK || lock.l_len == 1);
        if (locked && fstat(fd, &ours) == 0 && stat(path, &there) == 0 &&
            ours.st_ino == there.st_ino)
            return fd;
        close(fd);
        errno = error;
        if (!locked && !cleaned)
            return -1;
        g_usleep(TRY_US);
    }
    return -1;
}

static bool claim_name(struct launch *launch, GError **error)
{
    launch->root = machines_dir(error);
    if (!launch->root)
        return false;
    launch->dir = g_build_filename(launch->root, launch->config->name, NULL);
    int fd = lock_name(launch->dir);
    if (fd < 0 && errno != EAGAIN)
        return hv_fail(error, HV_FAILED, "%s: %s", launch->dir, g_strerror(errno));
    if (fd < 0)
        return hv_fail(error, HV_WRONG_STATE,
                       "a machine \"%s\" runs already: hv open %s shows it, --name gives this one "
                       "another name",
                       launch->config->name, launch->config->name);
    add_file(launch, "lock", fd);
    return true;
}

/* The file "images", which the machine writes anew when a CD is changed. */
static bool write_images(struct launch *launch, GError **error)
{
    g_autofree char *path = g_build_filename(launch->dir, "images", NULL);
    const GString *text = launch->images;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text->str, text->len) != (ssize_t)text->len)
        return hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno));
    add_file(launch, "images", fd);
    return true;
}

/* hv-vmm has its own idea of a US keyboard, which costs no time. */
static bool open_layout(struct launch *launch, GError **error)
{
    const char *name = launch->config->layout;
    g_autoptr(key_map) map = name ? layout_open(name, error) : NULL;
    if (map && strcmp(name, "us"))
        launch->keys = key_map_to_json(map);
    return map || !name;
}

struct launch *launch_prepare(struct config *config, GError **error)
{
    struct launch *launch = g_new0(struct launch, 1);
    launch->config = config;
    launch->files = json_object();
    launch->disks = json_array();
    launch->images = g_string_new(NULL);
    launch->network = (struct network){ .frames = -1, .capture = -1, .ready = -1 };
    open_log(launch);
    bool ok = open_kvm(launch, error) && open_layout(launch, error) &&
              (config->kernel ? open_kernel(launch, error)
                              : open_firmware(launch, error) && open_nic_rom(launch, error)) &&
              claim_name(launch, error) && open_drives(launch, error) &&
              open_serial(launch, error) && open_serial2(launch, error) &&
              add_listener(launch, "control", SOCK_STREAM, error) &&
              add_listener(launch, "display", SOCK_SEQPACKET, error) &&
              add_listener(launch, "vsock", SOCK_STREAM, error);
    ok = ok && write_images(launch, error);
    if (ok && !config->headless && !g_getenv("DISPLAY") && !g_getenv("WAYLAND_DISPLAY"))
        ok = hv_fail(error, HV_HOST,
                     "there is no display to open a window on: --headless runs without one");
    if (!ok || !open_network(launch, error)) {
        launch_free(launch);
        return NULL;
    }
    return launch;
}

/* --- the process ---------------------------------------------------------------------------- */

static bool send_description(struct launch *launch, int socket, GError **error)
{
    json_object_set(launch->files, "disks", launch->disks);
    json_t *json = json_pack("{s:o, s:O, s:O*}", "config", config_to_json(launch->config), "files",
                             launch->files, "keys", launch->keys);
    g_autofree char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    return fds_send(socket, text, strlen(text), launch->fds, launch->count, error);
}

/* hv-vmm's one line: it runs, or why not. */
static bool read_answer(int socket, GError **error)
{
    char text[4096];
    ssize_t n = recv(socket, text, sizeof text, 0);
    json_t *answer = n > 0 ? json_loadb(text, (size_t)n, 0, NULL) : NULL;
    int status = HV_FAILED;
    const char *message = "hv-vmm ended without a word";
    json_unpack(answer, "{s:i, s:s}", "status", &status, "message", &message);
    bool ok = answer && status == HV_OK;
    if (!ok)
        hv_fail(error, CLAMP(status, HV_FAILED, HV_CRASHED), "%s", message);
    json_decref(answer);
    return ok;
}

pid_t launch_start(struct launch *launch, GError **error)
{
    int ends[2];
    g_autofree char *program = program_path("hv-vmm");
    if (!network_ready(&launch->network, error))
        return -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
        hv_fail(error, HV_FAILED, "socketpair: %s", g_strerror(errno));
        return -1;
    }
    pid_t pid = fork();
    if (pid == 0) {
        g_autofree char *number = g_strdup_printf("%d", ends[1]);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setsid(); /* a Ctrl-C in the terminal is for hv */
        fcntl(ends[1], F_SETFD, 0);
        execl(program, "hv-vmm", "--fd", number, (char *)NULL);
        fprintf(stderr, "hv: %s: %s\n", program, strerror(errno));
        _exit(127);
    }
    close(ends[1]);
    bool ok = pid > 0 && send_description(launch, ends[0], error) && read_answer(ends[0], error);
    close(ends[0]);
    if (ok)
        return pid;
    if (pid > 0)
        waitpid(pid, NULL, 0);
    if (error && !*error)
        hv_fail(error, HV_FAILED, "%s cannot be started", program);
    return -1;
}

void launch_free(struct launch *launch)
{
    terminal_close(launch->terminal);
    fds_close(launch->fds, launch->count);
    json_decref(launch->files);
    json_decref(launch->disks);
    json_decref(launch->keys);
    g_string_free(launch->images, true);
    g_free(launch->root);
    g_free(launch->dir);
    g_free(launch);
}
