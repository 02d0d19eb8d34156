/* OVA archives, and OVF descriptions with files beside them; see import-package.h. */
#include "cli/import-package.h"

#include "base/error.h"
#include "cli/import-xml.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MEMBERS_MAX = 1024, MANIFEST_MAX = 256 << 10, BUFFER = 256 << 10 };

/* A sum of the manifest. */
struct sum {
    GChecksumType kind;
    char *digest; /* in small hexadecimal digits */
};

struct package {
    char *path, *folder; /* of the archive or description; where the files are, NULL: inside */
    int fd;              /* of the archive */
    uint64_t size;       /* bytes of it */
    GHashTable *members; /* of an archive: its files' names */
    char *name;          /* the description's */
    char *text, *manifest;
    size_t length;
    GHashTable *sums; /* char * -> struct sum; NULL: there is no manifest */
};

static void sum_free(void *data)
{
    struct sum *sum = data;
    g_free(sum->digest);
    g_free(sum);
}

void package_free(struct package *package)
{
    if (!package)
        return;
    if (package->fd >= 0)
        close(package->fd);
    g_clear_pointer(&package->sums, g_hash_table_unref);
    g_hash_table_unref(package->members);
    g_free(package->path);
    g_free(package->folder);
    g_free(package->name);
    g_free(package->text);
    g_free(package->manifest);
    g_free(package);
}

const char *package_description(const struct package *package, size_t *length)
{
    *length = package->length;
    return package->text;
}

bool package_unchecked(const struct package *package)
{
    return !package->sums;
}

bool package_interrupted(GError **error)
{
    sigset_t pending;
    bool any = sigpending(&pending) == 0 &&
               (sigismember(&pending, SIGINT) > 0 || sigismember(&pending, SIGTERM) > 0 ||
                sigismember(&pending, SIGHUP) > 0);
    return any && !hv_fail(error, HV_FAILED, "interrupted: nothing is left of the machine");
}

/* --- the archive ----------------------------------------------------------------------------- */

/* Plain tar only: that is what an OVA is, and the less can be wrong. */
static struct archive *open_tar(const struct package *package, GError **error)
{
    struct archive *tar = archive_read_new();
    if (tar && lseek(package->fd, 0, SEEK_SET) == 0 &&
        archive_read_support_format_tar(tar) == ARCHIVE_OK &&
        archive_read_open_fd(tar, package->fd, BUFFER) == ARCHIVE_OK)
        return tar;
    archive_read_free(tar);
    hv_fail(error, HV_USAGE, "%s: this is neither an OVA (a tar archive) nor an OVF description",
            package->path);
    return NULL;
}

static bool tar_failed(const struct package *package, struct archive *tar, GError **error)
{
    const char *why = archive_error_string(tar);
    g_autofree char *shown = g_utf8_make_valid(why ? why : "", -1);
    return hv_fail(error, HV_FAILED, "%s: the archive cannot be read: %s", package->path, shown);
}

/* A name without "./" in front; NULL for what is no file. */
static const char *member_name(struct archive_entry *entry)
{
    const char *name = archive_entry_pathname(entry);
    if (!name)
        name = archive_entry_pathname_utf8(entry);
    if (!name || archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry))
        return NULL;
    return g_str_has_prefix(name, "./") ? name + 2 : name;
}

static bool judge_member(const struct package *package, struct archive_entry *entry,
                         const char *name, GError **error)
{
    g_autofree char *valid = g_utf8_make_valid(name, -1);
    g_autofree char *shown = g_strescape(valid, NULL);
    g_auto(GStrv) parts = g_strsplit(name, "/", -1);
    if (*name == '/' || g_strv_contains((const char *const *)parts, ".."))
        return hv_fail(error, HV_FAILED,
                       "%s: it holds \"%s\", a name that leads elsewhere: it is no OVA to trust",
                       package->path, shown);
    if (archive_entry_sparse_count(entry) > 0 || archive_entry_size(entry) < 0 ||
        (uint64_t)archive_entry_size(entry) > package->size)
        return hv_fail(error, HV_FAILED, "%s: %s has a size that the archive has no room for",
                       package->path, shown);
    if (g_hash_table_size(package->members) >= MEMBERS_MAX)
        return hv_fail(error, HV_FAILED, "%s: it holds more than %d files", package->path,
                       MEMBERS_MAX);
    return g_hash_table_add(package->members, g_strdup(name)) ||
           hv_fail(error, HV_FAILED, "%s: it holds %s twice", package->path, shown);
}

/* A small file of the archive as text; NULL with an error. */
static char *read_text(const struct package *package, struct archive *tar,
                       struct archive_entry *entry, const char *name, size_t max, size_t *length,
                       GError **error)
{
    size_t size = (size_t)archive_entry_size(entry);
    if (size > max) {
        hv_fail(error, HV_FAILED, "%s: %s has more than %zu KiB", package->path, name, max >> 10);
        return NULL;
    }
    char *text = g_malloc0(size + 1);
    la_ssize_t got = archive_read_data(tar, text, size);
    if (got == (la_ssize_t)size) {
        *length = size;
        return text;
    }
    if (got < 0)
        tar_failed(package, tar, error);
    else
        hv_fail(error, HV_FAILED, "%s: %s is cut off", package->path, name);
    g_free(text);
    return NULL;
}

static bool look_at_member(struct package *package, struct archive *tar,
                           struct archive_entry *entry, GError **error)
{
    const char *name = member_name(entry);
    size_t length;
    if (!name)
        return true;
    if (!judge_member(package, entry, name, error))
        return false;
    if (g_str_has_suffix(name, ".ovf")) {
        if (package->text)
            return hv_fail(error, HV_FAILED, "%s: it holds two descriptions", package->path);
        package->name = g_strdup(name);
        package->text = read_text(package, tar, entry, name, XML_TEXT_MAX, &package->length, error);
        return package->text;
    }
    if (g_str_has_suffix(name, ".mf")) {
        if (package->manifest)
            return hv_fail(error, HV_FAILED, "%s: it holds two manifests", package->path);
        package->manifest = read_text(package, tar, entry, name, MANIFEST_MAX, &length, error);
        return package->manifest;
    }
    return true;
}

static bool open_archive(struct package *package, GError **error)
{
    struct archive *tar = open_tar(package, error);
    struct archive_entry *entry;
    int status = ARCHIVE_EOF;
    bool ok = tar;
    while (ok && ((status = archive_read_next_header(tar, &entry)) == ARCHIVE_OK ||
                  status == ARCHIVE_WARN))
        ok = look_at_member(package, tar, entry, error);
    if (ok && status != ARCHIVE_EOF)
        ok = tar_failed(package, tar, error);
    archive_read_free(tar);
    if (ok && !package->text)
        return hv_fail(error, HV_USAGE,
                       "%s: this archive holds no OVF description, so it is no OVA", package->path);
    return ok;
}

/* --- the manifest ---------------------------------------------------------------------------- */

/* "SHA256(name)= digest" (DSP0243, 5.1); false for what is no such line. */
static bool take_sum(GHashTable *sums, const char *line)
{
    static const struct {
        const char *name;
        GChecksumType kind;
    } kinds[] = { { "SHA1", G_CHECKSUM_SHA1 },
                  { "SHA256", G_CHECKSUM_SHA256 },
                  { "SHA512", G_CHECKSUM_SHA512 } };
    const char *open = strchr(line, '('), *close = strrchr(line, ')');
    const char *equals = close ? strchr(close, '=') : NULL;
    if (!open || !equals || close < open)
        return false;
    g_autofree char *kind = g_strstrip(g_strndup(line, (gsize)(open - line)));
    g_autofree char *digest = g_strstrip(g_ascii_strdown(equals + 1, -1));
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        if (g_ascii_strcasecmp(kind, kinds[i].name) != 0)
            continue;
        struct sum *sum = g_new(struct sum, 1);
        *sum = (struct sum){ kinds[i].kind, g_steal_pointer(&digest) };
        g_hash_table_insert(sums, g_strndup(open + 1, (gsize)(close - open - 1)), sum);
        return true;
    }
    return false;
}

static bool read_manifest(struct package *package, GError **error)
{
    if (!package->manifest)
        return true;
    package->sums = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, sum_free);
    g_auto(GStrv) lines = g_strsplit(package->manifest, "\n", -1);
    for (unsigned i = 0; lines[i]; i++)
        if (*g_strstrip(lines[i]) && !take_sum(package->sums, lines[i]))
            return hv_fail(error, HV_FAILED,
                           "%s: line %u of its manifest is no sum that hv knows (SHA1, SHA256, "
                           "SHA512)",
                           package->path, i + 1);
    return true;
}

/* A file's sum as it is computed; NULL: the manifest has none of it. */
static GChecksum *new_sum(const struct package *package, const char *name)
{
    const struct sum *sum = package->sums ? g_hash_table_lookup(package->sums, name) : NULL;
    return sum ? g_checksum_new(sum->kind) : NULL;
}

static bool sum_right(const struct package *package, const char *name, GChecksum *computed,
                      GError **error)
{
    const struct sum *sum = computed ? g_hash_table_lookup(package->sums, name) : NULL;
    if (!package->sums || (sum && !strcmp(g_checksum_get_string(computed), sum->digest)))
        return true;
    return hv_fail(error, HV_FAILED,
                   sum ? "%s: %s is damaged or was changed: its sum is not the manifest's"
                       : "%s: the manifest has no sum of %s",
                   package->path, name);
}

static bool description_right(const struct package *package, GError **error)
{
    g_autoptr(GChecksum) sum = new_sum(package, package->name);
    if (sum)
        g_checksum_update(sum, (const guchar *)package->text, (gssize)package->length);
    return sum_right(package, package->name, sum, error);
}

/* --- opening --------------------------------------------------------------------------------- */

/* All of a small file, with a 0 behind it; NULL with an error, or without one when it is not there
 * and need not be. */
static char *read_small(const char *path, size_t max, bool optional, size_t *length, GError **error)
{
    struct stat info;
    char *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT && optional)
        return NULL;
    if (fd < 0 || fstat(fd, &info) < 0) {
        hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno));
    } else if (!S_ISREG(info.st_mode) || (uint64_t)info.st_size > max) {
        hv_fail(error, HV_FAILED, "%s: a file of at most %zu KiB is wanted", path, max >> 10);
    } else {
        text = g_malloc0(max + 1);
        ssize_t got = read(fd, text, max);
        *length = got > 0 ? (size_t)got : 0;
    }
    if (fd >= 0)
        close(fd);
    return text;
}

static bool open_folder(struct package *package, GError **error)
{
    size_t length;
    package->folder = g_path_get_dirname(package->path);
    package->name = g_path_get_basename(package->path);
    package->text = read_small(package->path, XML_TEXT_MAX, false, &package->length, error);
    if (!package->text)
        return false;
    const char *dot = strrchr(package->path, '.');
    size_t stem = dot && !strchr(dot, '/') ? (size_t)(dot - package->path) : strlen(package->path);
    g_autofree char *manifest = g_strdup_printf("%.*s.mf", (int)stem, package->path);
    GError *why = NULL;
    package->manifest = read_small(manifest, MANIFEST_MAX, true, &length, &why);
    if (!why)
        return true;
    g_propagate_error(error, why);
    return false;
}

/* Does it begin as XML does, with or without a byte order mark, in 8 or 16 bits? */
static bool begins_as_xml(int fd)
{
    char head[64] = "";
    ssize_t length = pread(fd, head, sizeof head - 1, 0);
    for (ssize_t i = 0; i < length; i++)
        if (head[i] && !g_ascii_isspace(head[i]) && !strchr("\xef\xbb\xbf\xff\xfe", head[i]))
            return head[i] == '<';
    return false;
}

struct package *package_open(const char *path, GError **error)
{
    g_autoptr(open_package) package = g_new0(struct package, 1);
    struct stat info;
    package->path = g_strdup(path);
    package->members = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    package->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (package->fd < 0 || fstat(package->fd, &info) < 0) {
        hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno));
        return NULL;
    }
    if (!S_ISREG(info.st_mode)) {
        hv_fail(error, HV_USAGE, "%s: a file is wanted, an OVA or an OVF description", path);
        return NULL;
    }
    package->size = (uint64_t)info.st_size;
    bool ok =
        begins_as_xml(package->fd) ? open_folder(package, error) : open_archive(package, error);
    if (ok && read_manifest(package, error) && description_right(package, error))
        return g_steal_pointer(&package);
    return NULL;
}

/* --- files ----------------------------------------------------------------------------------- */

static bool write_all(int fd, const uint8_t *data, size_t length, const char *name, GError **error)
{
    while (length) {
        ssize_t done = write(fd, data, length);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return hv_fail(error, HV_FAILED, "%s: a copy of it cannot be written: %s", name,
                           done ? g_strerror(errno) : "no room");
        data += done;
        length -= (size_t)done;
    }
    return true;
}

/* The member that the archive is at, into the file. */
static bool copy_member(const struct package *package, struct archive *tar, uint64_t size,
                        const char *name, int to, GError **error)
{
    g_autoptr(GChecksum) sum = new_sum(package, name);
    g_autofree uint8_t *data = g_malloc(BUFFER);
    la_ssize_t got;
    while ((got = archive_read_data(tar, data, BUFFER)) > 0) {
        if (package_interrupted(error) || !write_all(to, data, (size_t)got, name, error))
            return false;
        if (sum)
            g_checksum_update(sum, data, got);
        size -= MIN((uint64_t)got, size);
    }
    if (got < 0)
        return tar_failed(package, tar, error);
    if (size)
        return hv_fail(error, HV_FAILED, "%s: %s is cut off", package->path, name);
    return sum_right(package, name, sum, error);
}

static bool copy_from_archive(const struct package *package, const char *name, int to,
                              GError **error)
{
    struct archive_entry *entry;
    int status;
    if (!g_hash_table_contains(package->members, name))
        return hv_fail(error, HV_FAILED, "%s: it does not hold %s, which its description names",
                       package->path, name);
    struct archive *tar = open_tar(package, error);
    if (!tar)
        return false;
    while ((status = archive_read_next_header(tar, &entry)) == ARCHIVE_OK || status == ARCHIVE_WARN)
        if (!g_strcmp0(member_name(entry), name))
            break;
    bool ok = status == ARCHIVE_OK || status == ARCHIVE_WARN
                  ? copy_member(package, tar, (uint64_t)archive_entry_size(entry), name, to, error)
                  : tar_failed(package, tar, error);
    archive_read_free(tar);
    return ok;
}

/* A file beside the description: a plain one, no link to somewhere else. -1 with an error. */
static int open_beside(const struct package *package, const char *name, GError **error)
{
    g_autofree char *path = g_build_filename(package->folder, name, NULL);
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode))
        return fd;
    hv_fail(error, HV_FAILED, "%s: %s", path,
            fd >= 0          ? "this is no file"
            : errno == ELOOP ? "this is a link: hv takes files beside the description only"
                             : g_strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Reads all of it, into the file, unless that is -1, and checks its sum. */
static bool copy_beside(const struct package *package, const char *name, int to, GError **error)
{
    g_autoptr(GChecksum) sum = new_sum(package, name);
    g_autofree uint8_t *data = g_malloc(BUFFER);
    int fd = open_beside(package, name, error);
    ssize_t got = 0;
    bool ok = fd >= 0;
    while (ok && (sum || to >= 0) && (got = read(fd, data, BUFFER)) > 0) {
        if (sum)
            g_checksum_update(sum, data, got);
        ok = !package_interrupted(error) &&
             (to < 0 || write_all(to, data, (size_t)got, name, error));
    }
    if (ok && got < 0)
        ok = hv_fail(error, HV_FAILED, "%s: %s", name, g_strerror(errno));
    if (fd >= 0)
        close(fd);
    return ok && sum_right(package, name, sum, error);
}

char *package_path(const struct package *package, const char *name, GError **error)
{
    if (!package->folder || !copy_beside(package, name, -1, error))
        return NULL;
    return g_build_filename(package->folder, name, NULL);
}

bool package_copy(const struct package *package, const char *name, int to, GError **error)
{
    return package->folder ? copy_beside(package, name, to, error)
                           : copy_from_archive(package, name, to, error);
}
