/* hv image: the table of its verbs, and how they open and make files. */
#include "cli/image.h"

#include "base/error.h"
#include "block/copy.h"
#include "block/format.h"
#include "cli/cli.h"
#include "cli/remote.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct verb image_verbs[] = {
    { "info", "FILE [--json]", "what an image is, and what it lies on", image_info_verb },
    { "map", "FILE [--json]", "where its data are", image_map_verb },
    { "create", "FILE SIZE", "a new, empty disk", image_create_verb },
    { "convert", "FROM TO [--force]", "a copy of a disk in another format", image_convert_verb },
    { "check", "FILE [--repair] [--json]", "is an image right?", image_check_verb },
    { "compact", "FILE", "give back the room of zeros", image_compact_verb },
    { "commit", "FILE", "write its data into the image that it lies on", image_commit_verb },
    { "rebase", "FILE --backing BASE|none [--unsafe]", "have it lie on another image",
      image_rebase_verb },
    { "import", "FILE [DIRECTORY]", "a machine of an OVA or OVF file", image_import_verb },
    { "resize", "FILE [+|-]SIZE [--shrink]", "make a disk larger, or smaller", image_resize_verb },
    { .name = NULL },
};

int verb_image(int argc, char **argv)
{
    if (argc < 1 || !strcmp(argv[0], "--help") || !strcmp(argv[0], "-h")) {
        cli_list("hv image", image_verbs);
        printf("\nThe page of all of them: man hv-image.\n");
        return argc < 1 ? HV_USAGE : HV_OK;
    }
    const char *names[G_N_ELEMENTS(image_verbs)];
    for (size_t i = 0; i < G_N_ELEMENTS(image_verbs); i++) {
        names[i] = image_verbs[i].name;
        if (names[i] && !strcmp(names[i], argv[0]))
            return image_verbs[i].run(argc - 1, argv + 1);
    }
    const char *near = hv_nearest(argv[0], names);
    return cli_usage("image", "there is no verb \"%s\"%s%s%s", argv[0],
                     near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

/* --- images ---------------------------------------------------------------------------------- */

bool image_start(struct image *image, const char *path, struct chain_rules rules, GError **error)
{
    g_autofree char *machines = machines_dir(NULL); /* only to name who has the image */
    *image = (struct image){ .disk = NULL };
    rules.machines = machines;
    image->chain = remote_or_file(path, &rules, error);
    if (image->chain)
        image->disk = chain_disk(image->chain, error);
    if (!image->disk)
        image_end(image);
    return image->disk;
}

const struct format *image_format(const char *name, GError **error)
{
    const struct format *format = format_named(name);
    g_autofree char *names = format ? NULL : format_names();
    if (!format)
        hv_fail(error, HV_USAGE, "format %s: %s is what there is", name, names);
    return format;
}

void image_end(struct image *image)
{
    disk_free(image->disk);
    chain_free(image->chain);
    *image = (struct image){ .disk = NULL };
}

/* --- new files ------------------------------------------------------------------------------- */

/* Without a name, where the file system can do that: whatever ends hv, nothing is left of it. */
static int open_new(struct new_file *file)
{
    g_autofree char *folder = g_path_get_dirname(file->path);
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);
    if (fd >= 0)
        return fd;
    file->temporary = g_strdup_printf("%s.part-XXXXXX", file->path);
    fd = g_mkstemp_full(file->temporary, O_RDWR | O_CLOEXEC, 0644);
    if (fd < 0)
        g_clear_pointer(&file->temporary, g_free);
    return fd;
}

bool new_file_start(struct new_file *file, const char *path, bool force, GError **error)
{
    struct stat info;
    *file = (struct new_file){ .fd = -1 };
    if (!force && lstat(path, &info) == 0)
        return hv_fail(error, HV_WRONG_STATE, "%s exists: --force replaces it", path);
    if (force && stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return hv_fail(error, HV_USAGE, "%s is no file", path);
    file->path = g_strdup(path);
    file->force = force;
    file->fd = open_new(file);
    if (file->fd >= 0)
        return true;
    hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno));
    new_file_drop(file);
    return false;
}

/* Gives a file without a name its own, or, when that is to be replaced, one to be renamed. */
static bool name_new(struct new_file *file)
{
    g_autofree char *open_file = g_strdup_printf("/proc/self/fd/%d", file->fd);
    if (linkat(AT_FDCWD, open_file, AT_FDCWD, file->path, AT_SYMLINK_FOLLOW) == 0)
        return true;
    if (errno != EEXIST || !file->force)
        return false;
    g_autofree char *name = g_strdup_printf("%s.part-%08x", file->path, g_random_int());
    if (linkat(AT_FDCWD, open_file, AT_FDCWD, name, AT_SYMLINK_FOLLOW) < 0)
        return false;
    file->temporary = g_steal_pointer(&name);
    return true;
}

bool new_file_finish(struct new_file *file, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(file->path);
    int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = TEMP_FAILURE_RETRY(fsync(file->fd)) == 0 && (file->temporary || name_new(file)) &&
              (!file->temporary || rename(file->temporary, file->path) == 0) && dir >= 0 &&
              TEMP_FAILURE_RETRY(fsync(dir)) == 0;
    if (!ok)
        hv_fail(error, HV_FAILED, "%s: %s", file->path, g_strerror(errno));
    else
        g_clear_pointer(&file->temporary, g_free);
    if (dir >= 0)
        close(dir);
    return ok;
}

void new_file_drop(struct new_file *file)
{
    if (file->temporary)
        unlink(file->temporary);
    if (file->fd >= 0)
        close(file->fd);
    g_free(file->temporary);
    g_free(file->path);
    *file = (struct new_file){ .fd = -1 };
}

/* --- how far it is --------------------------------------------------------------------------- */

enum { BAR = 50 };

static bool draw_bar(void *opaque, uint64_t done, uint64_t whole)
{
    struct image_progress *progress = opaque;
    unsigned percent = (unsigned)((double)done / (double)whole * 100);
    if (percent + 1 == progress->shown)
        return true;
    char bar[BAR + 1] = "";
    memset(bar, ' ', BAR);
    memset(bar, '#', MIN(percent, 100U) * BAR / 100);
    fprintf(stderr, "\r[%s] %3u %%", bar, percent);
    progress->shown = percent + 1;
    return true;
}

void image_progress_start(struct image_progress *progress, struct copy *copy)
{
    progress->shown = 0;
    copy->progress = isatty(2) ? draw_bar : NULL;
    copy->opaque = progress;
}

void image_progress_end(struct image_progress *progress)
{
    if (progress->shown)
        fputc('\n', stderr);
}

/* --- sizes ----------------------------------------------------------------------------------- */

static const char units[] = "KMGTP";

bool image_size(const char *text, uint64_t *size, GError **error)
{
    char *end = NULL;
    uint64_t number = g_ascii_isdigit(*text) ? g_ascii_strtoull(text, &end, 10) : 0;
    const char *unit = end && *end ? strchr(units, g_ascii_toupper(*end)) : NULL;
    unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
    const char *rest = unit ? end + 1 : end;
    if (rest && !strcmp(rest, "iB"))
        rest += 2;
    if (!rest || *rest || number > (UINT64_C(1) << 62) >> shift)
        return hv_fail(error, HV_USAGE, "\"%s\": a size such as 512M or 8G is wanted", text);
    *size = number << shift;
    return true;
}

char *image_size_text(uint64_t size)
{
    unsigned unit = 0;
    double shown = (double)size;
    for (; shown >= 1024 && unit < strlen(units); unit++)
        shown /= 1024;
    if (!unit)
        return g_strdup_printf("%" G_GUINT64_FORMAT " bytes", size);
    return g_strdup_printf("%.*f %ciB", shown == (double)(uint64_t)shown ? 0 : 1, shown,
                           units[unit - 1]);
}
