/* hv image rebase: an image gets to lie on another one, and shows the same. */
#include "base/error.h"
#include "base/log.h"
#include "block/copy.h"
#include "block/format.h"
#include "block/image.h"
#include "cli/cli.h"
#include "cli/image.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct rebasing {
    const char *path;
    const char *backing; /* as the image shall name it; NULL: none */
    const char *backing_format, *format;
    bool careless, trust;
};

/* What the image is to lie on, opened; nothing when that is nothing, or is not there and need not
 * be. */
static bool open_backing(const struct rebasing *rebasing, struct image *image, GError **error)
{
    const char *format = rebasing->backing_format;
    const struct chain_rules rules = {
        .readonly = true,
        .format = format,
        .trusted = rebasing->trust,
    };
    *image = (struct image){ .disk = NULL };
    if (!rebasing->backing)
        return true;
    g_autofree char *folder = g_path_get_dirname(rebasing->path);
    g_autofree char *path = g_path_is_absolute(rebasing->backing)
                                ? g_strdup(rebasing->backing)
                                : g_build_filename(folder, rebasing->backing, NULL);
    if (rebasing->careless && access(path, F_OK) < 0)
        return format ||
               hv_fail(error, HV_USAGE,
                       "%s is not there: --backing-format is to say what it will be", path);
    return image_start(image, path, rules, error);
}

/* The image is none of those that it shall lie on. */
static bool no_circle(const char *path, const struct image *backing, GError **error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    g_autofree char *own = fd < 0 ? NULL : image_identity(fd);
    if (fd >= 0)
        close(fd);
    if (!own || !backing->disk)
        return true; /* what is wrong with it is found when it is opened */
    g_auto(GStrv) others = g_strsplit(backing->disk->identity, "\n", -1);
    return !g_strv_contains((const char *const *)others, own) ||
           hv_fail(error, HV_USAGE, "%s cannot lie on itself", path);
}

static void find_snapshot(void *opaque, const char *key, const char *text, uint64_t number)
{
    bool *found = opaque;
    (void)text;
    (void)number;
    *found |= g_str_has_prefix(key, "snapshot ");
}

/* What is different in the new place becomes the image's own. */
static bool keep_content(struct image *image, struct disk *backing, GError **error)
{
    const struct chain *below = image->chain->below;
    struct copy copy = { .from = below ? below->disk : NULL, .to = image->disk };
    struct image_progress progress;
    bool snapshots = false;
    image->chain->format->tell(image->disk, find_snapshot, &snapshots);
    if (snapshots)
        return hv_fail(error, HV_USAGE,
                       "%s has snapshots, which would show something else on another image",
                       image->disk->name);
    image_progress_start(&progress, &copy);
    bool ok = copy_differences(&copy, backing, error);
    image_progress_end(&progress);
    return ok;
}

static bool rebase_open(const struct rebasing *rebasing, struct image *image,
                        const struct image *backing, GError **error)
{
    const struct format *format = image->chain->format;
    const char *below = backing->chain ? backing->chain->format->name : rebasing->backing_format;
    if (!format->rebase)
        return hv_fail(error, HV_USAGE, "%s is %s, which lies on no other image", rebasing->path,
                       format->what);
    if (!rebasing->careless && !keep_content(image, backing->disk, error))
        return false;
    return format->rebase(image->disk, rebasing->backing, rebasing->backing ? below : NULL, error);
}

static bool rebase(const struct rebasing *rebasing, GError **error)
{
    const struct chain_rules rules = {
        .format = rebasing->format,
        .trusted = rebasing->trust,
        .alone = rebasing->careless,
    };
    struct image image, backing;
    if ((rebasing->format && !image_format(rebasing->format, error)) ||
        (rebasing->backing_format && !image_format(rebasing->backing_format, error)) ||
        !open_backing(rebasing, &backing, error))
        return false;
    bool ok = no_circle(rebasing->path, &backing, error) &&
              image_start(&image, rebasing->path, rules, error);
    if (ok) {
        ok = rebase_open(rebasing, &image, &backing, error);
        image_end(&image);
    }
    image_end(&backing);
    if (ok && rebasing->backing && !chain_reaches(rebasing->path, rebasing->backing))
        log_warn(rebasing->path,
                 "%s is outside its folder: hv uses it with backing=FILE or --trust-backing only",
                 rebasing->backing);
    return ok;
}

int image_rebase_verb(int argc, char **argv)
{
    struct rebasing rebasing = { .path = NULL };
    const struct flag flags[] = {
        { "backing", NULL, &rebasing.backing },
        { "backing-format", NULL, &rebasing.backing_format },
        { "format", NULL, &rebasing.format },
        { "unsafe", &rebasing.careless, NULL },
        { "trust-backing", &rebasing.trust, NULL },
        { .name = NULL },
    };
    GError *error = NULL;
    int count = cli_flags("image", argc, argv, flags);
    if (count < 0)
        return count == -2 ? HV_OK : HV_USAGE;
    if (count != 1 || !rebasing.backing || !*rebasing.backing)
        return cli_usage("image",
                         "rebase: a file, and --backing FILE or --backing none, is wanted");
    rebasing.path = argv[0];
    if (!strcmp(rebasing.backing, "none"))
        rebasing.backing = NULL;
    return rebase(&rebasing, &error) ? HV_OK : cli_fail(error);
}
