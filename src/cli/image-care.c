/* hv image check, compact and commit. */
#include "base/error.h"
#include "block/copy.h"
#include "block/format.h"
#include "block/image.h"
#include "block/raw.h"
#include "cli/cli.h"
#include "cli/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* --- check ----------------------------------------------------------------------------------- */

struct checking {
    bool repair, json;
    const char *format;
};

static void print_report(const struct checking *checking, const struct format_report *r)
{
    if (checking->json) {
        json_t *json = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "corruptions",
                                 (json_int_t)r->corruptions, "corruptions_fixed",
                                 (json_int_t)r->corruptions_fixed, "leaks", (json_int_t)r->leaks,
                                 "leaks_fixed", (json_int_t)r->leaks_fixed, "clusters",
                                 (json_int_t)r->clusters, "allocated", (json_int_t)r->allocated,
                                 "packed", (json_int_t)r->packed, "end", (json_int_t)r->end);
        json_dumpf(json, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(json);
        return;
    }
    printf("%" PRIu64 " of %" PRIu64 " clusters in use, %" PRIu64 " of them compressed\n",
           r->allocated, r->clusters, r->packed);
    if (!r->corruptions && !r->leaks)
        printf("no errors\n");
    if (r->corruptions)
        printf("%" PRIu64 " corruptions, %" PRIu64 " repaired\n", r->corruptions,
               r->corruptions_fixed);
    if (r->leaks)
        printf("%" PRIu64 " leaked clusters, %" PRIu64 " given back\n", r->leaks, r->leaks_fixed);
}

/* False with an error, also when the image is not right at the end. */
static bool check(const struct checking *checking, const char *path, GError **error)
{
    g_autofree char *machines = machines_dir(NULL);
    const struct chain_rules rules = {
        .readonly = !checking->repair,
        .format = checking->format,
        .machines = machines,
        .alone = true,
    };
    struct format_report report = { .clusters = 0 };
    g_autoptr(image_chain) chain = chain_open(path, &rules, error);
    if (!chain)
        return false;
    if (!chain->format->check)
        return hv_fail(error, HV_USAGE, "%s is %s: there is nothing to check in that", path,
                       chain->format->what);
    struct disk *file = raw_open(chain->fd, chain->name, rules.readonly, error);
    if (!file)
        return false;
    chain->fd = -1;
    bool ok = chain->format->check(file, chain->name, checking->repair, &report, error);
    disk_free(file);
    if (!ok)
        return false;
    print_report(checking, &report);
    uint64_t left = report.corruptions - report.corruptions_fixed;
    uint64_t leaks = report.leaks - report.leaks_fixed;
    if (left)
        return hv_fail(error, HV_FAILED, "%s is corrupt%s", path,
                       checking->repair ? "" : ": --repair may mend it");
    return !leaks ||
           hv_fail(error, HV_FAILED,
                   "%s has leaked clusters, which do no harm: --repair gives them back", path);
}

int image_check_verb(int argc, char **argv)
{
    struct checking checking = { .repair = false };
    const struct flag flags[] = {
        { "repair", &checking.repair, NULL },
        { "json", &checking.json, NULL },
        { "format", NULL, &checking.format },
        { .name = NULL },
    };
    GError *error = NULL;
    int count = cli_flags("image", argc, argv, flags);
    if (count < 0)
        return count == -2 ? HV_OK : HV_USAGE;
    if (count != 1)
        return cli_usage("image", "check: one file is wanted");
    if ((checking.format && !image_format(checking.format, &error)) ||
        !check(&checking, argv[0], &error))
        return cli_fail(error);
    return HV_OK;
}

/* --- compact and commit ------------------------------------------------------------------------
 */

/* Opens the image for writing, has it treated, and closes it. */
static int treat(const char *verb, int argc, char **argv, bool commits,
                 bool (*treatment)(struct image *image, const char *path, GError **error))
{
    const char *format = NULL;
    bool trust = false;
    const struct flag flags[] = {
        { "format", NULL, &format },
        { "trust-backing", &trust, NULL },
        { .name = NULL },
    };
    GError *error = NULL;
    struct image image;
    int count = cli_flags("image", argc, argv, flags);
    if (count < 0)
        return count == -2 ? HV_OK : HV_USAGE;
    if (count != 1)
        return cli_usage("image", "%s: one file is wanted", verb);
    const struct chain_rules rules = { .format = format, .trusted = trust, .commits = commits };
    if ((!format || image_format(format, &error)) && image_start(&image, argv[0], rules, &error)) {
        treatment(&image, argv[0], &error);
        image_end(&image);
    }
    return error ? cli_fail(error) : HV_OK;
}

static bool compact(struct image *image, const char *path, GError **error)
{
    (void)path;
    return copy_compact(image->disk, error);
}

int image_compact_verb(int argc, char **argv)
{
    return treat("compact", argc, argv, false, compact);
}

/* What of an image the empty one that takes its place is to have too. */
struct keeping {
    struct format_wish wish;
    bool snapshots; /* which an empty one would not have */
};

static void keep(void *opaque, const char *key, const char *text, uint64_t number)
{
    struct keeping *keeping = opaque;
    (void)text;
    if (!strcmp(key, "cluster"))
        keeping->wish.cluster = number;
    keeping->snapshots |= g_str_has_prefix(key, "snapshot ");
}

/* Puts an empty image, with the rights of the old one, in the place of one whose data are below
 * now. A symbolic link to it stays. */
static bool empty(const char *path, const struct format *format, const struct format_wish *wish,
                  GError **error)
{
    struct new_file file;
    struct stat info;
    g_autofree char *real = realpath(path, NULL);
    if (!real || stat(real, &info) < 0)
        return hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno));
    bool ok = new_file_start(&file, real, true, error) &&
              format->create(file.fd, path, wish, error) &&
              (fchmod(file.fd, info.st_mode & 07777) == 0 ||
               hv_fail(error, HV_FAILED, "%s: %s", path, g_strerror(errno))) &&
              new_file_finish(&file, error);
    new_file_drop(&file);
    return ok;
}

static bool commit(struct image *image, const char *path, GError **error)
{
    const struct chain *chain = image->chain;
    if (!chain->below)
        return hv_fail(error, HV_USAGE, "%s lies on no other image", path);
    if (!chain->below->format->written)
        return hv_fail(error, HV_USAGE, "%s is %s, which hv cannot write: convert %s instead",
                       chain->below->name, chain->below->format->what, path);
    struct keeping keeping = { .wish = { .size = image->disk->size,
                                         .below = chain->below->named,
                                         .below_format = chain->below->format->name } };
    if (chain->format->tell)
        chain->format->tell(image->disk, keep, &keeping);
    if (keeping.snapshots)
        return hv_fail(error, HV_USAGE, "%s has snapshots, which would be lost", path);
    struct disk *below = chain->below->disk;
    int reason = 0;
    if (below->size < image->disk->size)
        reason = chain->below->format->resize
                     ? chain->below->format->resize(below, image->disk->size)
                     : ENOTSUP;
    bool ok = !reason || hv_fail(error, HV_FAILED, "%s: cannot be made as large as %s: %s",
                                 below->name, path, g_strerror(reason));
    return ok && copy_own(image->disk, below, error) &&
           empty(path, chain->format, &keeping.wish, error);
}

int image_commit_verb(int argc, char **argv)
{
    return treat("commit", argc, argv, true, commit);
}
