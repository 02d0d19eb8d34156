/* From what the user said to a whole machine: names, sizes and devices that were left open, and
 * what does not go together; see launch.h. */
#include "base/error.h"
#include "block/image.h"
#include "cli/conf.h"
#include "cli/guess.h"
#include "cli/launch.h"
#include "cli/network.h"
#include "cli/remote.h"
#include "cli/url.h"
#include "cli/wall-clock.h"
#include "memory/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Descriptors and the description's length are limited (FDS_MAX, hv-vmm). */
enum { INITRDS_MAX = 32, APPEND_MAX = 16384 };

static uint64_t host_memory(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGE_SIZE);
}

/* A name for the machine from that of its image or directory: letters, digits, dot, dash. */
static char *name_from(const char *path, bool is_folder)
{
    g_autofree char *whole = g_canonicalize_filename(path, NULL); /* "." has a name too */
    g_autofree char *base = url_is_disk(path) ? url_name(path) : g_path_get_basename(whole);
    char *dot = is_folder ? NULL : strrchr(base, '.');
    if (dot && dot > base)
        *dot = 0;
    for (char *c = base; *c; c++)
        if (!g_ascii_isalnum(*c) && !strchr(".-_", *c))
            *c = '-';
    if (!g_ascii_isalnum(base[0]))
        return g_strdup("machine");
    return g_strndup(base, 40);
}

char *launch_folder_name(const char *folder, GError **error)
{
    g_autoptr(settings) config = config_new();
    if (!conf_load(config, folder, error))
        return NULL;
    return config->name ? g_strdup(config->name) : name_from(folder, true);
}

/* A machine keeps its CID as long as it keeps its name. Only one host's machines have to differ,
 * and for no more than what a guest knows itself by. */
static uint64_t cid_from(const char *name)
{
    enum { FIRST_CID = 3 };
    return FIRST_CID + g_str_hash(name) % (UINT32_MAX - FIRST_CID);
}

static bool check_name(const char *name, GError **error)
{
    bool ok = g_ascii_isalnum(name[0]) && strlen(name) <= 40;
    for (const char *c = name; *c; c++)
        ok = ok && (g_ascii_isalnum(*c) || strchr(".-_", *c));
    return ok || hv_fail(error, HV_USAGE,
                         "--name %s: up to 40 letters, digits, dots and dashes are possible", name);
}

static bool probe(const char *path, struct image_info *info, GError **error)
{
    if (url_is_disk(path))
        return remote_probe(path, info, error);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno));
    bool ok = image_probe(fd, path, info, error);
    close(fd);
    return ok;
}

/* Is the image a disk, a CD, a floppy or a kernel? A CD becomes the first CD, a floppy the first
 * floppy, anything else the first disk. */
static bool resolve_image(struct config *config, GError **error)
{
    struct image_info info;
    bool ok = probe(config->image, &info, error);
    if (ok && info.kind == IMAGE_KERNEL && !config->kernel) {
        config->kernel = g_strdup(config->image);
        return true;
    }
    if (!ok || !image_usable(&info, config->image, error))
        return false;
    bool cd = info.kind == IMAGE_CD, floppy = info.kind == IMAGE_FLOPPY;
    struct drive *drive = drive_new(config->image, cd);
    drive->bus = g_strdup(cd       ? drive_bus_names[DRIVE_AHCI]
                          : floppy ? drive_bus_names[DRIVE_FLOPPY]
                                   : NULL);
    drive->readonly = cd;
    g_ptr_array_insert(cd ? config->cdroms : floppy ? config->floppies : config->disks, 0, drive);
    if (!config->boot)
        config->boot = g_strdup(cd ? "cd,disk" : floppy ? "floppy,disk,cd" : NULL);
    return true;
}

static bool check_console(const struct config *config, GError **error)
{
    return !strcmp(config->console, "serial") || !strcmp(config->console, "virtio") ||
           hv_fail(error, HV_USAGE, "--console %s: serial or virtio is wanted", config->console);
}

static bool check_boot(const struct config *config, GError **error)
{
    g_auto(GStrv) words = g_strsplit(config->boot, ",", -1);
    if (!words[0])
        return hv_fail(error, HV_USAGE, "--boot: a list of disk, cd, floppy and net is wanted");
    for (char **word = words; *word; word++)
        if (strcmp(*word, "disk") && strcmp(*word, "cd") && strcmp(*word, "floppy") &&
            strcmp(*word, "net"))
            return hv_fail(error, HV_USAGE,
                           "--boot %s: \"%s\": a list of disk, cd, floppy and net is wanted",
                           config->boot, *word);
    return true;
}

/* What only goes with a kernel, and what does not go with one. */
static bool check_kernel(const struct config *config, GError **error)
{
    const char *needs = config->initrds->len ? "--initrd"
                        : config->append     ? "--append"
                        : config->multiboot  ? "--multiboot"
                                             : NULL;
    const char *clash = config->firmware ? "--firmware" : config->boot ? "--boot" : NULL;
    if (!config->kernel && needs)
        return hv_fail(error, HV_USAGE, "%s is for a kernel: --kernel FILE names it", needs);
    if (config->kernel && clash)
        return hv_fail(error, HV_USAGE, "%s: a kernel is started without firmware: leave it out",
                       clash);
    if (config->initrds->len > INITRDS_MAX)
        return hv_fail(error, HV_USAGE, "--initrd: at most %d are possible", INITRDS_MAX);
    if (config->append && strlen(config->append) > APPEND_MAX)
        return hv_fail(error, HV_USAGE, "--append: at most %d bytes are possible", APPEND_MAX);
    return true;
}

/* The drives that the user left open: what the guest has drivers for. */
static void choose_buses(struct config *config, bool virtio)
{
    for (guint i = 0; i < config->disks->len; i++) {
        struct drive *drive = g_ptr_array_index(config->disks, i);
        if (!drive->bus)
            drive->bus = g_strdup(drive_bus_names[virtio ? DRIVE_VIRTIO : DRIVE_AHCI]);
    }
}

/* The options of a disk are its controller's, and that on AHCI is not its own. */
static bool check_disks(const struct config *config, GError **error)
{
    for (guint i = 0; i < config->disks->len; i++) {
        const struct drive *drive = g_ptr_array_index(config->disks, i);
        if (drive->options && !strcmp(drive->bus, drive_bus_names[DRIVE_AHCI]))
            return hv_fail(error, HV_USAGE,
                           "--disk %s: a disk on AHCI has no option \"%s\"; bus=virtio or bus=nvme "
                           "may have it",
                           drive->file, drive->options);
    }
    return true;
}

static bool resolve_clock(struct config *config, const struct guess *guess, GError **error)
{
    if (!config->clock && !guess->windows)
        return true;
    int64_t ahead;
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_autoptr(GTimeZone) zone = g_time_zone_new_local();
    if (!wall_clock_ahead(config->clock ? config->clock : "local", now, zone, &ahead, error))
        return false;
    g_free(config->clock);
    config->clock = g_strdup_printf("%+" G_GINT64_FORMAT "s", ahead);
    return true;
}

bool launch_resolve(struct config *config, GError **error)
{
    uint64_t host = host_memory();
    if ((config->image && !resolve_image(config, error)) || !check_kernel(config, error))
        return false;
    struct guess guess = guess_guest(config);
    choose_buses(config, guess.virtio);
    if (!config->memory)
        config->memory = CLAMP(host / 4, 64 * MIB, 4 * GIB) / MIB * MIB;
    config->memory = config->memory / MIB * MIB;
    if (config->memory > host)
        return hv_fail(error, HV_HOST,
                       "--memory: this host has %" G_GUINT64_FORMAT
                       " MiB in all; %" G_GUINT64_FORMAT " MiB are too much for a guest",
                       host / MIB, config->memory / MIB);
    if (!config->cpus)
        config->cpus = (uint64_t)CLAMP(sysconf(_SC_NPROCESSORS_ONLN), 1, 4);
    if (!config->cpu)
        config->cpu = g_strdup("host");
    if (!config->boot)
        config->boot = g_strdup(config->floppies->len ? "disk,cd,floppy" : "disk,cd");
    if (!config->firmware)
        config->firmware = g_strdup("bios");
    if (!config->serial)
        config->serial = g_strdup(config->headless && isatty(0) && isatty(1) ? "stdio" : "none");
    if (!config->console)
        config->console = g_strdup("serial");
    if (!config->name)
        config->name = config->folder ? name_from(config->folder, true)
                                      : name_from(config->image    ? config->image
                                                  : config->kernel ? config->kernel
                                                                   : config->firmware,
                                                  false);
    if (!config->cid)
        config->cid = cid_from(config->name);
    return check_name(config->name, error) && check_console(config, error) &&
           check_boot(config, error) && check_disks(config, error) &&
           resolve_clock(config, &guess, error) && network_resolve(config, guess.virtio, error);
}
