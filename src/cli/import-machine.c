/* Machines of other programs; see import-machine.h. The directory is filled under a name of its own
 * and gets its name when it is complete. */
#include "cli/import-machine.h"

#include "base/error.h"
#include "block/chain.h"
#include "block/copy.h"
#include "block/format.h"
#include "cli/conf.h"
#include "cli/import-ovf.h"
#include "cli/import-package.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A disk that gets larger than this many times its file is no disk but a trap: what systems write
 * is packed to a quarter or so, and zeros take no room. */
enum { EXPANSION = 32, SLACK = 64 << 20 };

struct import {
    const struct package *package;
    const struct ovf *ovf;
    char *folder, *temporary; /* the directory; NULL: it has its name */
};

/* --- disks ----------------------------------------------------------------------------------- */

struct conversion {
    const char *name; /* of the new file */
    int fd;
    uint64_t most; /* bytes that it may take */
    unsigned shown;
    bool too_large;
};

static bool go_on(void *opaque, uint64_t done, uint64_t whole)
{
    struct conversion *c = opaque;
    unsigned percent = (unsigned)((double)done / (double)whole * 100);
    struct stat info;
    c->too_large = fstat(c->fd, &info) == 0 && (uint64_t)info.st_blocks * 512 > c->most;
    if (isatty(2) && percent != c->shown)
        fprintf(stderr, "\r%s: %3u %%%s", c->name, c->shown = percent, percent < 100 ? "" : "\n");
    return !c->too_large && !package_interrupted(NULL);
}

static bool convert(struct disk *from, const struct import *import, struct conversion *c,
                    GError **error)
{
    const struct format_wish wish = { .size = from->size };
    g_autofree char *path = g_build_filename(import->temporary, c->name, NULL);
    c->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (c->fd < 0)
        return hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno));
    struct disk *to = NULL;
    if (qcow2_format.create(c->fd, c->name, &wish, error)) {
        int fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 3);
        g_autoptr(image_chain) chain = chain_new(fd, c->name, &qcow2_format, false);
        to = chain_disk(chain, error);
    }
    GError *why = NULL;
    const struct copy copy = { .from = from, .to = to, .progress = go_on, .opaque = c };
    bool ok = to && copy_disk(&copy, &why);
    disk_free(to);
    ok =
        ok && (fsync(c->fd) == 0 || hv_fail(&why, HV_FAILED, "%s: %s", c->name, g_strerror(errno)));
    close(c->fd);
    if (c->too_large)
        hv_fail(error, HV_FAILED,
                "%s would be more than %d times as large as what it is made of: hv takes that for "
                "a trap (hv image convert makes it anyway)",
                from->name, EXPANSION);
    else if (why)
        g_propagate_error(error, why);
    else if (!ok && to)
        package_interrupted(error);
    return ok;
}

static uint64_t chain_size(const struct chain *chain)
{
    struct stat info;
    uint64_t size = fstat(chain->fd, &info) == 0 ? (uint64_t)info.st_size : 0;
    for (guint i = 0; i < chain->parts->len; i++)
        size += chain_size(g_ptr_array_index(chain->parts, i));
    return size + (chain->below ? chain_size(chain->below) : 0);
}

static bool convert_image(const struct import *import, const struct ovf_drive *drive,
                          const char *path, const char *name, GError **error)
{
    const struct chain_rules rules = { .readonly = true };
    g_autoptr(image_chain) chain = chain_open(path, &rules, error);
    if (!chain)
        return false;
    if (chain->format == &raw_format && drive->packed_format)
        return hv_fail(error, HV_FAILED, "%s: its content is no disk image, as it should be", path);
    struct conversion c = { .name = name, .shown = 101 };
    c.most = chain_size(chain) * EXPANSION + SLACK;
    struct disk *disk = chain_disk(chain, error);
    bool ok = disk && convert(disk, import, &c, error);
    disk_free(disk);
    return ok;
}

static bool empty_disk(const struct import *import, const struct ovf_drive *drive, const char *name,
                       GError **error)
{
    const struct format_wish wish = { .size = (drive->capacity + SECTOR - 1) / SECTOR * SECTOR };
    g_autofree char *path = g_build_filename(import->temporary, name, NULL);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno));
    bool ok = qcow2_format.create(fd, name, &wish, error) &&
              (fsync(fd) == 0 || hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno)));
    close(fd);
    return ok;
}

/* --- files ----------------------------------------------------------------------------------- */

/* A copy of a file of the package in the new directory. */
static bool take_copy(const struct import *import, const char *file, const char *path,
                      GError **error)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno));
    bool ok = package_copy(import->package, file, fd, error) &&
              (fsync(fd) == 0 || hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno)));
    close(fd);
    return ok;
}

/* What went wrong with a copy went wrong with the file that its user knows, and is not what the
 * user typed. */
static void fail_with(GError **error, GError *why, const char *path, const char *file)
{
    g_auto(GStrv) parts = g_strsplit(why->message, path, -1);
    g_autofree char *message = g_strjoinv(file, parts);
    hv_fail(error, HV_FAILED, "%s", message);
    g_error_free(why);
}

static bool import_disk(const struct import *import, const struct ovf_drive *drive,
                        const char *name, GError **error)
{
    GError *why = NULL;
    g_autofree char *copy = g_build_filename(import->temporary, "source", NULL);
    g_autofree char *there = package_path(import->package, drive->file, &why);
    if (there)
        convert_image(import, drive, there, name, &why);
    else if (!why && take_copy(import, drive->file, copy, &why))
        convert_image(import, drive, copy, name, &why);
    unlink(copy);
    if (!why)
        return true;
    fail_with(error, why, copy, drive->file);
    return false;
}

static bool import_drive(const struct import *import, guint i, GError **error)
{
    const struct ovf_drive *drive = g_ptr_array_index(import->ovf->drives, i);
    g_autofree char *name = ovf_drive_name(import->ovf, i);
    g_autofree char *path = g_build_filename(import->temporary, name, NULL);
    if (!drive->file)
        return empty_disk(import, drive, name, error);
    return drive->cd ? take_copy(import, drive->file, path, error)
                     : import_disk(import, drive, name, error);
}

/* --- the directory --------------------------------------------------------------------------- */

static bool write_conf(const struct import *import, GError **error)
{
    g_autofree char *path = g_build_filename(import->temporary, conf_name, NULL);
    g_autofree char *text = ovf_to_conf(import->ovf);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    size_t length = strlen(text);
    bool ok = fd >= 0 && write(fd, text, length) == (ssize_t)length && fsync(fd) == 0;
    if (!ok)
        hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno));
    if (fd >= 0)
        close(fd);
    return ok;
}

/* Would hv run take it? What does not fit is said before anything is copied. */
static bool conf_right(const struct ovf *ovf, const char *file, GError **error)
{
    g_autofree char *text = ovf_to_conf(ovf);
    struct config *config = config_new();
    g_autoptr(GError) why = NULL;
    bool ok = conf_parse(config, text, strlen(text), conf_name, ".", &why);
    config_free(config);
    return ok || hv_fail(error, HV_FAILED, "%s asks for what hv has not: %s", file, why->message);
}

/* What the directory is called when nobody says it. */
static char *name_of(const struct ovf *ovf, const char *file)
{
    enum { NAME_MAX_LENGTH = 40 };
    g_autofree char *base = g_path_get_basename(file);
    char *dot = strrchr(base, '.');
    if (dot && dot > base)
        *dot = 0;
    char *name = g_strndup(ovf->name && *ovf->name ? ovf->name : base, NAME_MAX_LENGTH);
    for (char *c = name; *c; c++)
        if (!g_ascii_isalnum(*c) && !strchr(".-_", *c))
            *c = '-';
    if (g_ascii_isalnum(*name))
        return name;
    g_free(name);
    return g_strdup("machine");
}

static bool sync_folder(const char *path, GError **error)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (!ok)
        hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno));
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool start_folder(struct import *import, GError **error)
{
    g_autofree char *pattern = g_strdup_printf("%s.part-XXXXXX", import->folder);
    struct stat info;
    if (lstat(import->folder, &info) == 0)
        hv_fail(error, HV_WRONG_STATE,
                "%s exists: name another directory for the machine, behind the file",
                import->folder);
    else if (!g_mkdtemp_full(pattern, 0777))
        hv_fail(error, HV_FAILED, "%s: %s", import->folder, g_strerror(errno));
    else
        import->temporary = g_steal_pointer(&pattern);
    return import->temporary;
}

static bool finish_folder(struct import *import, GError **error)
{
    g_autofree char *parent = g_path_get_dirname(import->folder);
    if (!sync_folder(import->temporary, error) || package_interrupted(error))
        return false;
    int failed = renameat2(AT_FDCWD, import->temporary, AT_FDCWD, import->folder, RENAME_NOREPLACE);
    if (failed && errno == EINVAL) /* a file system that does not know how */
        failed = rename(import->temporary, import->folder);
    if (failed)
        return hv_fail(error, HV_FAILED, "%s: %s", import->folder, g_strerror(errno));
    g_clear_pointer(&import->temporary, g_free);
    return sync_folder(parent, error);
}

/* With all files in it, if it was not finished. */
static void drop_folder(struct import *import)
{
    g_autoptr(GDir) dir = import->temporary ? g_dir_open(import->temporary, 0, NULL) : NULL;
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(import->temporary, name, NULL);
        unlink(path);
    }
    if (import->temporary)
        rmdir(import->temporary);
    g_free(import->temporary);
    g_free(import->folder);
}

static void tell(const struct import *import)
{
    const struct ovf *ovf = import->ovf;
    for (guint i = 0; i < ovf->differences->len; i++)
        fprintf(stderr, "hv: %s\n", (const char *)g_ptr_array_index(ovf->differences, i));
    if (package_unchecked(import->package))
        fprintf(stderr, "hv: there is no manifest: whether the files are whole is not known\n");
}

static void block_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

static bool make(struct import *import, GError **error)
{
    block_signals(); /* from here on somebody has to clean up */
    bool ok = start_folder(import, error);
    for (guint i = 0; ok && i < import->ovf->drives->len; i++)
        ok = import_drive(import, i, error);
    return ok && write_conf(import, error) && finish_folder(import, error);
}

bool import_machine(const char *file, const char *folder, GError **error)
{
    g_autoptr(open_package) package = package_open(file, error);
    size_t length;
    const char *text = package ? package_description(package, &length) : NULL;
    g_autoptr(ovf_machine) ovf = text ? ovf_parse(text, length, file, error) : NULL;
    if (!ovf || !conf_right(ovf, file, error))
        return false;
    struct import import = { .package = package, .ovf = ovf };
    import.folder = folder ? g_strdup(folder) : name_of(ovf, file);
    for (size_t n = strlen(import.folder); n > 1 && import.folder[n - 1] == '/'; n--)
        import.folder[n - 1] = 0;
    bool ok = make(&import, error);
    if (ok) {
        tell(&import);
        printf("%s is a machine: hv run %s starts it\n", import.folder, import.folder);
    }
    drop_folder(&import);
    return ok;
}
