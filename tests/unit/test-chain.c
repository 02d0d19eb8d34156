/* Images and the files they lie on: which of them hv opens, and which not. */
#include "base/error.h"
#include "block/chain.h"
#include "block/disk.h"
#include "block/format.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { SIZE = 1 << 20 };

/* A folder of its own, on a disk: files in memory may have no attributes. */
struct place {
    char folder[32];
    char *inner; /* a folder below it */
};

static char *in(const char *folder, const char *name)
{
    return g_build_filename(folder, name, NULL);
}

static void set_up(struct place *place, gconstpointer data)
{
    (void)data;
    strcpy(place->folder, "/var/tmp/hv-chain-XXXXXX");
    g_assert_nonnull(g_mkdtemp(place->folder));
    place->inner = in(place->folder, "inner");
    g_assert_cmpint(g_mkdir(place->inner, 0700), ==, 0);
}

static void tear_down(struct place *place, gconstpointer data)
{
    char *remove[] = { "rm", "-r", place->folder, NULL };
    (void)data;
    g_assert_true(
        g_spawn_sync(NULL, remove, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL));
    g_free(place->inner);
}

static void make(const char *folder, const char *name, const char *format, const char *below,
                 const char *below_format)
{
    g_autofree char *path = in(folder, name);
    g_autoptr(GError) error = NULL;
    const struct format_wish wish = { .size = SIZE, .below = below, .below_format = below_format };
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    format_named(format)->create(fd, name, &wish, &error);
    g_assert_no_error(error);
    close(fd);
}

/* What opening says: NULL when it works. */
static char *try(const struct place *place, const char *name, struct chain_rules rules)
{
    g_autofree char *path = in(place->folder, name);
    g_autoptr(GError) error = NULL;
    rules.readonly = true;
    g_autoptr(image_chain) chain = chain_open(path, &rules, &error);
    g_assert_true(!chain == !!error);
    struct disk *disk = chain ? chain_disk(chain, &error) : NULL;
    if (disk) {
        g_assert_cmpuint(disk->size, ==, SIZE);
        disk_free(disk);
    }
    return error ? g_strdup(error->message) : NULL;
}

static void says(const struct place *place, const char *name, struct chain_rules rules,
                 const char *pattern)
{
    g_autofree char *said = try(place, name, rules);
    if (!pattern && said)
        g_error("%s: %s", name, said);
    if (pattern && (!said || !g_regex_match_simple(pattern, said, 0, 0)))
        g_error("%s: \"%s\" is wanted, it says: %s", name, pattern, said ? said : "nothing");
}

static const struct chain_rules none;

static void folders(struct place *place, gconstpointer data)
{
    g_autofree char *absolute = in(place->inner, "base.img");
    g_autoptr(GPtrArray) list = g_ptr_array_new();
    (void)data;
    make(place->inner, "base.img", "raw", NULL, NULL);
    make(place->inner, "up.qcow2", "qcow2", "../raw.img", "raw");
    make(place->folder, "raw.img", "raw", NULL, NULL);
    make(place->folder, "inside.qcow2", "qcow2", "inner/base.img", "raw");
    make(place->folder, "absolute.qcow2", "qcow2", absolute, "raw");
    make(place->folder, "up.qcow2", "qcow2", "../etc/passwd", "raw");
    make(place->folder, "passwd.qcow2", "qcow2", "/etc/passwd", "raw");
    make(place->folder, "chain.qcow2", "qcow2", "inner/up.qcow2", "qcow2");
    make(place->folder, "gone.qcow2", "qcow2", "gone.img", "raw");
    says(place, "inside.qcow2", none, NULL);
    says(place, "absolute.qcow2", none, "outside its folder.*backing=FILE.*--trust-backing");
    says(place, "up.qcow2", none, "outside its folder");
    says(place, "passwd.qcow2", none, "lies on \"/etc/passwd\", outside its folder");
    says(place, "chain.qcow2", none, "up.qcow2 lies on \"../raw.img\", outside its folder");
    says(place, "gone.qcow2", none, "\"gone.img\": No such file");

    g_ptr_array_add(list, absolute);
    says(place, "absolute.qcow2", (struct chain_rules){ .allowed = list }, NULL);
    says(place, "passwd.qcow2", (struct chain_rules){ .allowed = list }, "outside its folder");
    says(place, "absolute.qcow2", (struct chain_rules){ .trusted = true }, NULL);
    says(place, "chain.qcow2", (struct chain_rules){ .trusted = true }, NULL);
}

/* A symbolic link that the user made in the folder is no way out for an image. */
static void links(struct place *place, gconstpointer data)
{
    g_autofree char *link = in(place->folder, "link");
    (void)data;
    g_assert_cmpint(symlink("/etc", link), ==, 0);
    make(place->folder, "by-link.qcow2", "qcow2", "link/passwd", "raw");
    make(place->folder, "magic.qcow2", "qcow2", "/proc/self/fd/0", "raw");
    says(place, "by-link.qcow2", none, "outside its folder");
    says(place, "magic.qcow2", none, "outside its folder");
}

static void protocols(struct place *place, gconstpointer data)
{
    static const char *const names[] = { "nbd://localhost/x", "json:{\"driver\":\"raw\"}",
                                         "file:/etc/passwd", "fat:/etc" };
    (void)data;
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        make(place->folder, "odd.qcow2", "qcow2", names[i], "raw");
        says(place, "odd.qcow2", none, "which is no file");
        says(place, "odd.qcow2", (struct chain_rules){ .trusted = true }, "which is no file");
    }
}

static void circles(struct place *place, gconstpointer data)
{
    (void)data;
    make(place->folder, "self.qcow2", "qcow2", "self.qcow2", "qcow2");
    make(place->folder, "a.qcow2", "qcow2", "b.qcow2", "qcow2");
    make(place->folder, "b.qcow2", "qcow2", "a.qcow2", "qcow2");
    says(place, "self.qcow2", none, "lies on itself");
    says(place, "a.qcow2", none, "lies on itself");
    make(place->folder, "0.qcow2", "qcow2", NULL, NULL);
    for (unsigned i = 1; i <= CHAIN_DEPTH; i++) {
        g_autofree char *name = g_strdup_printf("%u.qcow2", i);
        g_autofree char *below = g_strdup_printf("%u.qcow2", i - 1);
        make(place->folder, name, "qcow2", below, "qcow2");
    }
    says(place, "31.qcow2", none, NULL);
    says(place, "32.qcow2", none, "too many files");
}

static void formats_below(struct place *place, gconstpointer data)
{
    (void)data;
    make(place->folder, "raw.img", "raw", NULL, NULL);
    make(place->folder, "base.qcow2", "qcow2", NULL, NULL);
    make(place->folder, "silent-raw.qcow2", "qcow2", "raw.img", NULL);
    make(place->folder, "silent.qcow2", "qcow2", "base.qcow2", NULL);
    make(place->folder, "odd.qcow2", "qcow2", "raw.img", "qed");
    make(place->folder, "as-raw.qcow2", "qcow2", "base.qcow2", "raw");
    says(place, "silent-raw.qcow2", none, NULL);
    says(place, "silent.qcow2", none, "does not say in which format");
    says(place, "silent.qcow2", (struct chain_rules){ .trusted = true }, NULL);
    says(place, "odd.qcow2", none, "\"qed\", which hv does not know");
    says(place, "as-raw.qcow2", none, NULL); /* as it says: what it looks like counts for nothing */
}

/* A guest of a raw disk writes a qcow2 image there, which lies on somebody's file. */
static void raw_stays_raw(struct place *place, gconstpointer data)
{
    g_autofree char *path = in(place->folder, "disk.img"), *other = in(place->folder, "x.qcow2");
    g_autofree char *image = NULL;
    gsize length;
    g_autoptr(GError) error = NULL;
    struct chain_rules rules = { .readonly = false };
    (void)data;
    make(place->folder, "disk.img", "raw", NULL, NULL);
    struct chain *chain = chain_open(path, &rules, &error);
    g_assert_no_error(error);
    chain_free(chain);
    if (getxattr(path, "user.hv.format", NULL, 0) < 0) {
        g_test_skip("no attributes on this file system");
        return;
    }
    make(place->folder, "x.qcow2", "qcow2", "passwd", "raw");
    g_assert_true(g_file_get_contents(other, &image, &length, NULL));
    int fd = open(path, O_WRONLY);
    g_assert_cmpint(pwrite(fd, image, length, 0), ==, (gssize)length);
    close(fd);
    says(place, "disk.img", none, "was a raw disk.*looks like a qcow2.*format=raw");
    says(place, "x.qcow2", none, "passwd"); /* which has a different story */

    rules.format = "raw";
    chain = chain_open(path, &rules, &error);
    g_assert_no_error(error);
    g_assert_true(chain->format == &raw_format);
    chain_free(chain);

    make(place->folder, "disk.img", "qcow2", NULL, NULL); /* by the user this time */
    rules.format = "qcow2";
    chain = chain_open(path, &rules, &error);
    g_assert_no_error(error);
    chain_free(chain);
    says(place, "disk.img", none, NULL);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*test)(struct place *place, gconstpointer data);
    } tests[] = {
        { "/chain/folders", folders },
        { "/chain/links", links },
        { "/chain/protocols", protocols },
        { "/chain/circles", circles },
        { "/chain/formats-below", formats_below },
        { "/chain/raw-stays-raw", raw_stays_raw },
    };
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add(tests[i].name, struct place, NULL, set_up, tests[i].test, tear_down);
    return g_test_run();
}
