/* Host errors: each place in the source that calls the host for an image (tests/rig/sites.h has the
 * table) has a call fail with each error that it may have. The guest gets an error, or the machine
 * pauses for room and goes on; what was flushed is there, and the image is right. `-m slow` fails
 * each call of each scenario so. */
#undef main
#include "block/chain.h"
#include "block/concat.h"
#include "block/format.h"
#include "block/image.h"
#include "block/overlay.h"
#include "block/zeroes.h"
#include "cli/image.h"
#include "rig/failing-host.h"
#include "rig/image.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

/* --- scenarios --------------------------------------------------------------------------------
 */

struct file {
    char *path;
    GBytes *bytes; /* NULL: it is not there */
};

struct scenario {
    const struct way *way;
    const struct image_shape *shape;
    struct history history;
    GArray *files;   /* of struct file: what there is before */
    uint8_t *before; /* the disk has then */
    size_t size;
    const char *folder;
    bool tool, zeroes, strung; /* disk_now; over zeroes.c; a disk of two files */
    bool unflushed; /* the last flush failed, or a failure was while the image was closed */
    char *target;   /* of verbs that make one */
    char *image;    /* what a verb or a reader is for */
    char **argv;
    /* Of each sector: what the guest may see now, and what may be left when all is lost that was
     * not flushed. By round; 0: zeros; BEFORE: as at first. */
    uint64_t *seen, *kept;
};
enum { BEFORE = 63, WRITES = 40, TRIES = 30 };

struct way {
    const char *name;
    void (*run)(struct scenario *scenario);   /* with the failure */
    void (*judge)(struct scenario *scenario); /* what is left */
};

/* A failure that took from the disk what the guest wrote. */
static bool lost(const struct scenario *scenario)
{
    return host.failed && !host_hides() && (host.what == CALL_SYNC || scenario->unflushed);
}

/* What a request may end with. */
static void judge_error(const struct scenario *scenario, int error)
{
    if (!error)
        return;
    bool room = !scenario->tool && (host.failure == FAIL_ENOSPC || host.failure == FAIL_FULL);
    if (!host.failed || host_hides() || (room && host.what != CALL_SYNC))
        g_error("call %u failed with %s, and the guest got %s", host.at,
                failures[host.failure].name, g_strerror(error));
    g_assert_true(error == EIO || error == failures[host.failure].error);
}

/* --- a guest ---------------------------------------------------------------------------------- */

static bool is_value(const struct scenario *scenario, const uint8_t *is, size_t at, unsigned bit)
{
    uint8_t sector[SECTOR] = { 0 };
    if (bit == BEFORE)
        return at < scenario->size && !memcmp(is, scenario->before + at, SECTOR);
    if (bit)
        image_fill(sector, at, SECTOR, bit);
    return !memcmp(is, sector, SECTOR);
}

/* Those of `allowed` that it is. */
static uint64_t values(const struct scenario *scenario, const uint8_t *is, size_t at,
                       uint64_t allowed)
{
    uint64_t found = 0;
    for (uint64_t left = allowed; left; left &= left - 1) {
        unsigned bit = (unsigned)__builtin_ctzll(left);
        found |= is_value(scenario, is, at, bit) ? 1ULL << bit : 0;
    }
    return found;
}

/* Reads with all well; `seen` is narrowed to what is there. */
static void look(struct scenario *scenario, size_t at, size_t length)
{
    struct history *history = &scenario->history;
    bool on = host.on, full = host.full;
    host.on = host.full = false;
    g_assert_cmpint(image_transfer(&history->owner, DISK_READ, at, history->data, length), ==, 0);
    host.on = on;
    host.full = full;
    for (size_t i = 0; i < length; i += SECTOR) {
        uint64_t *seen = &scenario->seen[(at + i) / SECTOR];
        uint64_t found = values(scenario, history->data + i, at + i, *seen);
        if (!found)
            g_error("%s: sector %zu is wrong after call %u failed with %s", scenario->shape->name,
                    (at + i) / SECTOR, host.at, failures[host.failure].name);
        *seen = found;
    }
}

/* As a guest does, or a tool. */
static int ask(struct scenario *scenario, enum disk_op op, size_t at, size_t length)
{
    struct history *history = &scenario->history;
    bool moves = op <= DISK_WRITE;
    struct iovec iov = { history->data, length };
    const struct disk_request request = {
        .op = op, .offset = at, .length = length, .iov = moves ? &iov : NULL, .iov_count = moves
    };
    return scenario->tool
               ? disk_now(history->owner.disk, &request)
               : image_transfer(&history->owner, op, at, moves ? history->data : NULL, length);
}

static void change(struct scenario *scenario, enum disk_op op, size_t at, size_t length,
                   unsigned round)
{
    struct history *history = &scenario->history;
    image_fill(history->data, at, length, round);
    int error = ask(scenario, op, at, length);
    judge_error(scenario, error);
    uint64_t now = op == DISK_WRITE ? 1ULL << round : 1;
    for (size_t s = at / SECTOR; s < (at + length) / SECTOR; s++) {
        scenario->seen[s] = error || op == DISK_DISCARD ? scenario->seen[s] | now | 1 : now;
        scenario->kept[s] |= scenario->seen[s];
    }
    look(scenario, at, length);
}

static void flush(struct scenario *scenario)
{
    int error = ask(scenario, DISK_FLUSH, 0, 0);
    judge_error(scenario, error);
    scenario->unflushed = error;
    if (!error)
        memcpy(scenario->kept, scenario->seen, scenario->history.disk / SECTOR * 8);
}

static void resize(struct scenario *scenario, size_t size)
{
    struct history *history = &scenario->history;
    struct disk *disk = history->owner.disk;
    size_t before = disk->size;
    disk_drain(disk);
    int error = qcow2_format.resize(disk, size);
    if (error) {
        g_assert_true(host.failed && !host_hides());
        host.full = false;
        error = qcow2_format.resize(disk, size);
        judge_error(scenario, error);
    }
    for (size_t s = MIN(before, size) / SECTOR; s < MAX(before, size) / SECTOR; s++) {
        scenario->kept[s] |= scenario->seen[s] | 1;
        scenario->seen[s] = error ? scenario->seen[s] | 1 : 1;
    }
    history->disk = disk->size;
}

/* The disk, as it is opened for a guest; NULL: it could not be. */
static struct disk *open_chain(const char *path, bool readonly)
{
    g_autoptr(GError) error = NULL;
    const struct chain_rules rules = { .readonly = readonly, .trusted = true };
    g_autoptr(image_chain) chain = chain_open(path, &rules, &error);
    struct disk *disk = chain ? chain_disk(chain, &error) : NULL;
    if (!disk) {
        g_assert_nonnull(error);
        g_assert_true(host.failed);
        if (host_hides() || !host.on)
            g_error("call %u failed with %s: %s", host.at, failures[host.failure].name,
                    error->message);
    }
    return disk;
}

static struct disk *open_strung(const struct scenario *scenario)
{
    struct disk *parts[2];
    for (unsigned i = 0; i < G_N_ELEMENTS(parts); i++)
        parts[i] = image_open_file(g_array_index(scenario->files, struct file, i).path, false);
    return concat_new("strung", parts, G_N_ELEMENTS(parts));
}

static bool open_guest(struct scenario *scenario, bool readonly)
{
    struct disk *disk =
        scenario->strung ? open_strung(scenario) : open_chain(scenario->image, readonly);
    if (!disk)
        return false;
    if (scenario->zeroes)
        disk = zeroes_open(disk, true);
    image_own(&scenario->history.owner, disk);
    disk_set_full(disk, host_on_full, NULL);
    scenario->history.disk = disk->size;
    return true;
}

static void run_guest(struct scenario *scenario)
{
    static const enum disk_op ops[] = { DISK_WRITE, DISK_FLUSH, DISK_WRITE,   DISK_READ,
                                        DISK_WRITE, DISK_READ,  DISK_DISCARD, DISK_WRITE_ZEROES };
    struct history *history = &scenario->history;
    bool sized = !scenario->zeroes && strcmp(scenario->shape->name, "raw") != 0 &&
                 !image_is_old(scenario->shape);
    if (!open_guest(scenario, false))
        return;
    for (unsigned round = 1; round < WRITES; round++) {
        enum disk_op op = ops[g_rand_int_range(history->rand, 0, (int)G_N_ELEMENTS(ops))];
        size_t at, length;
        history_pick(history, &at, &length);
        if (sized && round % 16 == 0)
            resize(scenario, round % 32 ? 1024 * 1024 + 1536 : 8 << 20);
        else if (op == DISK_FLUSH)
            flush(scenario);
        else if (op != DISK_READ)
            change(scenario, op, at, length, round);
        else
            judge_error(scenario, ask(scenario, op, at, length));
    }
    flush(scenario);
    bool before = host.failed;
    history_close(history);
    scenario->unflushed |= host.full || (host.failed && !before);
}

static void mend(const char *path)
{
    struct format_report report;
    g_autoptr(GError) error = NULL;
    struct disk *file = image_open_file(path, false);
    qcow2_check(file, path, true, &report, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(report.corruptions, ==, report.corruptions_fixed);
    disk_free(file);
}

static void judge_guest(struct scenario *scenario)
{
    struct history *history = &scenario->history;
    bool image = strcmp(scenario->shape->name, "raw") != 0;
    bool was_lost = lost(scenario);
    g_assert_true(open_guest(scenario, false));
    for (size_t s = 0; s < history->disk / SECTOR && was_lost; s++)
        scenario->seen[s] |= scenario->kept[s];
    look(scenario, 0, history->disk);
    history_close(history);
    if (image && image_is_old(scenario->shape))
        mend(scenario->image);
    if (image)
        image_check(scenario->image, false);
}

/* --- readers ---------------------------------------------------------------------------------- */

static void read_all(struct scenario *scenario, bool well)
{
    struct history *history = &scenario->history;
    size_t step = 300 * 1024;
    for (size_t at = 0; at < scenario->size; at += step) {
        size_t length = MIN(step, scenario->size - at);
        int error = image_transfer(&history->owner, DISK_READ, at, history->data, length);
        if (well)
            g_assert_cmpint(error, ==, 0);
        judge_error(scenario, error);
        g_assert_true(error || !memcmp(history->data, scenario->before + at, length));
    }
}

/* An image that is only read: what fails is an error of that request, and of no other. */
static void run_reader(struct scenario *scenario)
{
    if (!open_guest(scenario, true))
        return;
    g_assert_cmpuint(scenario->history.disk, >=, scenario->size);
    read_all(scenario, false);
    host_stop();
    read_all(scenario, true);
    history_close(&scenario->history);
}

/* hv run --throwaway. */
static void run_throwaway(struct scenario *scenario)
{
    struct history *history = &scenario->history;
    g_autoptr(GError) error = NULL;
    struct disk *below = open_chain(scenario->image, true);
    struct disk *disk = below ? overlay_open(below, &error) : NULL;
    if (!disk) {
        g_assert_true(host.failed && !host_hides());
        disk_free(below);
        return;
    }
    image_own(&history->owner, disk);
    disk_set_full(disk, host_on_full, NULL);
    history->disk = disk->size;
    for (unsigned round = 1; round <= 6; round++) {
        size_t at, length;
        history_pick(history, &at, &length);
        change(scenario, round % 3 ? DISK_WRITE : DISK_WRITE_ZEROES, at, length, round);
    }
    look(scenario, 0, scenario->size);
    history_close(history);
}

static void judge_untouched(struct scenario *scenario)
{
    for (guint i = 0; i < scenario->files->len; i++) {
        const struct file *file = &g_array_index(scenario->files, struct file, i);
        g_autofree char *all = NULL;
        gsize length = 0;
        if (!file->bytes)
            continue;
        g_assert_true(g_file_get_contents(file->path, &all, &length, NULL));
        g_autoptr(GBytes) is = g_bytes_new_take(g_steal_pointer(&all), length);
        g_assert_true(g_bytes_equal(is, file->bytes));
    }
}

/* --- verbs ------------------------------------------------------------------------------------ */

static int call_verb(char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } verbs[] = {
        { "check", image_check_verb },     { "commit", image_commit_verb },
        { "compact", image_compact_verb }, { "convert", image_convert_verb },
        { "create", image_create_verb },   { "info", image_info_verb },
        { "map", image_map_verb },         { "rebase", image_rebase_verb },
        { "resize", image_resize_verb },
    };
    g_auto(GStrv) copy = g_strdupv(argv);
    char *arguments[16] = { NULL }; /* which are put in another order */
    int count = (int)g_strv_length(copy);
    memcpy(arguments, copy, (size_t)count * sizeof *copy);
    fflush(NULL);
    int out = dup(1), err = dup(2), null = open("/dev/null", O_WRONLY | O_CLOEXEC), result = -1;
    dup2(null, 1);
    dup2(null, 2);
    for (unsigned i = 0; i < G_N_ELEMENTS(verbs); i++)
        if (!strcmp(verbs[i].name, argv[0]))
            result = verbs[i].run(count - 1, arguments + 1);
    fflush(NULL);
    dup2(out, 1);
    dup2(err, 2);
    close(out);
    close(err);
    close(null);
    return result;
}

static void check_disk(struct scenario *scenario, const char *path)
{
    struct history *history = &scenario->history;
    struct disk *disk = open_chain(path, true);
    size_t size = MIN(scenario->size, disk->size);
    g_assert_cmpint(disk_read(disk, history->data, size, 0), ==, 0);
    g_assert_true(!memcmp(history->data, scenario->before, size));
    disk_free(disk);
}

static void run_verb(struct scenario *scenario)
{
    int status = call_verb(scenario->argv);
    g_assert_cmpint(status, >=, 0);
    if (host.failed && host_hides())
        g_assert_cmpint(status, ==, 0);
    if (!host.failed)
        g_assert_cmpint(status, ==, 0);
    host_stop();
    /* What was there is there, or what was to come, and nothing else. */
    g_autoptr(GDir) dir = g_dir_open(scenario->folder, 0, NULL);
    const char *name;
    while ((name = g_dir_read_name(dir)))
        g_assert_null(strstr(name, ".part-"));
    if (scenario->target && !g_file_test(scenario->target, G_FILE_TEST_EXISTS))
        g_assert_cmpint(status, !=, 0);
    else if (scenario->target && strcmp(scenario->argv[0], "create") != 0)
        check_disk(scenario, scenario->target);
}

/* The second try, with all well, does it. */
static void judge_verb(struct scenario *scenario)
{
    bool makes = scenario->target;
    if (scenario->image && strcmp(scenario->argv[0], "check") != 0) {
        check_disk(scenario, scenario->image);
        mend(scenario->image);
    }
    if (makes)
        g_unlink(scenario->target);
    g_assert_cmpint(call_verb(scenario->argv), ==, 0);
    if (scenario->image) {
        check_disk(scenario, scenario->image);
        image_check(scenario->image, false);
    }
    if (makes)
        g_unlink(scenario->target);
}

/* An image with a wrong entry: it is marked, when that can be written. */
static void run_damaged(struct scenario *scenario)
{
    uint8_t data[4096] = { 7 };
    if (!open_guest(scenario, false))
        return;
    struct image_owner *owner = &scenario->history.owner;
    g_assert_cmpint(image_transfer(owner, DISK_WRITE, 0, data, sizeof data), !=, 0);
    host_stop(); /* that was perhaps not why */
    g_assert_cmpint(image_transfer(owner, DISK_WRITE, 0, data, sizeof data), !=, 0);
    g_assert_cmpint(image_transfer(owner, DISK_WRITE, 1 << 20, data, sizeof data), !=, 0);
    history_close(&scenario->history);
}

/* The list of a machine's images, which is told without. */
static void run_list(struct scenario *scenario)
{
    struct disk *disk = open_chain(scenario->image, true);
    g_autofree char *path = image_path("list"), *all = NULL;
    if (!disk)
        return;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    image_write_list(fd, &disk, 1);
    close(fd);
    g_assert_true(g_file_get_contents(path, &all, NULL, NULL));
    g_assert_true((host.failed && !host_hides()) ||
                  (g_str_has_prefix(all, disk->identity) && g_str_has_suffix(all, "\n")));
    g_unlink(path);
    disk_free(disk);
}

/* More than the refcounts that there are have room for. */
static void run_filler(struct scenario *scenario)
{
    if (!open_guest(scenario, false))
        return;
    size_t step = 256 * 1024;
    for (unsigned round = 1; round * step < scenario->history.disk; round++) {
        change(scenario, DISK_WRITE, (round - 1) * step, step, round);
        if (round % 4 == 0)
            flush(scenario);
    }
    flush(scenario);
    bool before = host.failed;
    history_close(&scenario->history);
    scenario->unflushed |= host.full || (host.failed && !before);
}

static void judge_nothing(struct scenario *scenario)
{
    (void)scenario;
}

static const struct way guest = { "guest", run_guest, judge_guest },
                        reader = { "reader", run_reader, judge_untouched },
                        throwaway = { "throwaway", run_throwaway, judge_untouched },
                        filler = { "filler", run_filler, judge_guest },
                        list = { "list", run_list, judge_untouched },
                        damaged = { "damaged", run_damaged, judge_nothing },
                        verb = { "verb", run_verb, judge_verb };

/* --- preparing -------------------------------------------------------------------------------- */

enum { CAPACITY = 10 << 20 /* bytes of a model */ };

/* Before a scenario: what was done to the image. */
enum past { FRESH, USED, UNCLEAN, SNAPSHOT, BITMAP, FLAGS, BLOCKS, LEAK, ENTRY };

struct row {
    const char *name;
    const struct way *way;
    const char *shape; /* of image_shapes; NULL: qemu-img makes it: */
    enum past past;
    const char *format;       /* of that, with its options */
    const char *arguments[7]; /* of the verb; @: the image, >: the target */
    bool slow, ring, tool, zeroes, strung;
};

/* A name that does not fit beside the header. */
#define FAR_8 "./././././././././././././././././"
#define FAR   FAR_8 FAR_8 FAR_8 FAR_8 FAR_8 FAR_8 FAR_8 FAR_8 FAR_8 FAR_8 FAR_8 FAR_8

static const struct row rows[] = {
    { "plain", &guest, "plain", FRESH },
    { "plain-ring", &guest, "plain", FRESH, .ring = true },
    { "raw", &guest, "raw", FRESH },
    { "raw-ring", &guest, "raw", FRESH, .ring = true },
    { "over-raw", &guest, "over-raw", FRESH },
    { "v2", &guest, "v2", USED },
    { "c512-64bit", &guest, "c512-64bit", FRESH },
    { "sub64k-over", &guest, "sub64k-over", FRESH },
    { "packed", &guest, "packed", FRESH },
    { "packed-sub", &guest, "packed-sub", FRESH },
    { "unclean", &guest, "c512", UNCLEAN },
    { "unclean-lazy", &guest, "lazy-over", UNCLEAN },
    { "snapshot", &guest, "sub16k", SNAPSHOT },
    { "bitmap", &guest, "plain", BITMAP },
    { "v2-over", &guest, "v2-over", USED, .slow = true },
    { "c512", &guest, "c512", USED, .slow = true },
    { "c1k-over", &guest, "c1k-over", FRESH, .slow = true },
    { "c2m", &guest, "c2m", FRESH, .slow = true },
    { "c4k-4bit-over", &guest, "c4k-4bit-over", USED, .slow = true },
    { "lazy", &guest, "lazy", USED, .slow = true },
    { "qemu-v2", &guest, "qemu-v2", SNAPSHOT, .slow = true },
    { "qemu-prealloc", &guest, "qemu-prealloc", FRESH, .slow = true },
    { "packed-512", &guest, "packed-512", SNAPSHOT, .slow = true },
    { "packed-zstd", &guest, "packed-zstd", USED, .slow = true },
    { "grow-refcounts", &filler, "c512-64bit", FRESH },
    { "tool", &guest, "over-raw", USED, .tool = true },
    { "zeroes", &guest, "plain", USED, .zeroes = true },
    { "zeroes-tool", &guest, "plain", USED, .zeroes = true, .tool = true },
    { "strung", &guest, "raw", FRESH, .strung = true },
    { "strung-tool", &guest, "raw", FRESH, .strung = true, .tool = true },
    { "list", &list, "plain", USED },
    { "damaged", &damaged, "plain", ENTRY },
    { "throwaway", &throwaway, "plain", USED },
    { "vdi", &reader, .format = "-O vdi" },
    { "vhd", &reader, .format = "-O vpc" },
    { "vhd-fixed", &reader, .format = "-O vpc -o subformat=fixed" },
    { "vhdx", &reader, .format = "-O vhdx" },
    { "vmdk", &reader, .format = "-O vmdk" },
    { "vmdk-flat", &reader, .format = "-O vmdk -o subformat=monolithicFlat" },
    { "vmdk-split", &reader, .format = "-O vmdk -o subformat=twoGbMaxExtentSparse" },
    { "vmdk-stream", &reader, .format = "-O vmdk -o subformat=streamOptimized" },
    { "vmdk-strung", &reader, .format = "", .strung = true },
    { "qcow2-read", &reader, .format = "-c -O qcow2" },
    { "info", &verb, "plain", SNAPSHOT, .arguments = { "info", "@" } },
    { "map", &verb, "plain", USED, .arguments = { "map", "@" } },
    { "create", &verb, .arguments = { "create", ">", "4M" } },
    { "convert", &verb, "plain", USED, .arguments = { "convert", "@", ">" } },
    { "grow", &verb, "c4k-1bit", USED, .arguments = { "resize", "@", "+40M" } },
    { "grow-over", &verb, "c4k-4bit-over", USED, .arguments = { "resize", "@", "+4M" } },
    { "grow-c512", &verb, "c512", USED, .arguments = { "resize", "@", "+1M" } },
    { "shrink", &verb, "c512", USED, .arguments = { "resize", "--shrink", "@", "1M" } },
    { "compact", &verb, "plain", USED, .arguments = { "compact", "@" } },
    { "commit", &verb, "over-raw", USED, .arguments = { "commit", "--trust-backing", "@" } },
    { "convert-compress", &verb, "plain", USED,
      .arguments = { "convert", "--compress", "@", ">" } },
    { "replace", &verb, "packed", FRESH,
      .arguments = { "convert", "--force", "--format", "raw", "@", ">" } },
    { "rebase", &verb, "over-raw", USED, .arguments = { "rebase", "--backing", "none", "@" } },
    { "rebase-same", &verb, "c512", USED,
      .arguments = { "rebase", "--backing", "below.raw", "--backing-format", "raw", "@" } },
    { "rebase-far", &verb, "plain", USED,
      .arguments = { "rebase", "--backing", FAR "below.raw", "--backing-format", "raw", "@" } },
    { "repair", &verb, "c512", UNCLEAN, .arguments = { "check", "--repair", "@" } },
    { "repair-lazy", &verb, "lazy", UNCLEAN, .arguments = { "check", "--repair", "@" } },
    { "repair-bitmap", &verb, "plain", BITMAP, .arguments = { "check", "--repair", "@" } },
    { "repair-flags", &verb, "plain", FLAGS, .arguments = { "check", "--repair", "@" } },
    { "repair-blocks", &verb, "c512", BLOCKS, .arguments = { "check", "--repair", "@" } },
    { "repair-leak", &verb, "plain", LEAK, .arguments = { "check", "--repair", "@" } },
    { "repair-snapshot", &verb, "plain", SNAPSHOT, .arguments = { "check", "--repair", "@" } },
};

static GBytes *bytes_of(const char *path)
{
    char *all = NULL;
    gsize length = 0;
    return g_file_get_contents(path, &all, &length, NULL) ? g_bytes_new_take(all, length) : NULL;
}

static void put_bytes(const char *path, GBytes *bytes)
{
    gsize length = 0;
    const void *data = g_bytes_get_data(bytes, &length);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    g_assert_cmpint(write(fd, data, length), ==, length);
    close(fd);
}

static uint64_t be64(const char *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return GUINT64_FROM_BE(value);
}

/* Wrong flags; refcounts without blocks; an entry that no cluster can have. */
static void damage(const char *path, enum past past)
{
    g_autofree char *all = NULL;
    gsize size = 0;
    g_assert_true(g_file_get_contents(path, &all, &size, NULL));
    char *l1 = all + be64(all + 40);
    char *l2 = all + (be64(l1) & 0x00fffffffffffe00);
    if (past == FLAGS)
        l1[0] = (char)(l1[0] ^ 0x80), l2[0] = (char)(l2[0] ^ 0x80);
    else if (past == LEAK) /* the last cluster of the first block */
        memcpy(all + be64(all + be64(all + 48)) + 65534, "\0\1", 2);
    else if (past == ENTRY)
        memcpy(l2, "\x80\0\0\0\0\0\2\0", 8);
    else
        memset(all + be64(all + 48), 0, 64);
    g_autoptr(GBytes) bytes = g_bytes_new_take(g_steal_pointer(&all), size);
    put_bytes(path, bytes);
}

static void use(struct history *history, enum past past)
{
    g_autoptr(GBytes) unclean = NULL;
    if (past == FRESH)
        return;
    history_reopen(history);
    for (unsigned round = 1; round <= 40; round++)
        history_step(history, round);
    if (past == UNCLEAN)
        unclean = bytes_of(history->path);
    if (past >= FLAGS) { /* so that there is an entry */
        memset(history->model, 7, 4096);
        g_assert_cmpint(image_transfer(&history->owner, DISK_WRITE, 0, history->model, 4096), ==,
                        0);
    }
    history_close(history);
    if (past == UNCLEAN)
        put_bytes(history->path, unclean);
    else if (past == SNAPSHOT)
        g_assert_cmpint(image_run(NULL, "qemu-img snapshot -c then %s", history->path), ==, 0);
    else if (past == BITMAP)
        g_assert_cmpint(image_run(NULL, "qemu-img bitmap --add %s some", history->path), ==, 0);
    else if (past >= FLAGS)
        damage(history->path, past);
}

static void add_file(struct scenario *scenario, const char *path)
{
    struct file file = { g_strdup(path), bytes_of(path) };
    g_array_append_val(scenario->files, file);
}

static void clear_file(void *data)
{
    struct file *file = data;
    g_unlink(file->path);
    g_free(file->path);
    g_clear_pointer(&file->bytes, g_bytes_unref);
}

static void prepare_shape(struct scenario *scenario, const struct row *row)
{
    static const struct image_shape raw = { .name = "raw", .options = "", .below = false };
    struct history *history = &scenario->history;
    for (size_t i = 0; i < image_shape_count; i++)
        if (!strcmp(image_shapes[i].name, row->shape))
            scenario->shape = &image_shapes[i];
    if (!strcmp(row->shape, "raw")) {
        scenario->shape = &raw;
        scenario->image = g_strdup(history->below);
        return;
    }
    history->shape = scenario->shape;
    history_prepare(history);
    use(history, row->past);
    scenario->image = g_strdup(history->path);
    add_file(scenario, history->path);
}

/* The raw image in two files, and a VMDK descriptor of both. */
static void prepare_strung(struct scenario *scenario)
{
    static const char text[] = "# Disk DescriptorFile\nversion=1\nCID=1234abcd\n"
                               "parentCID=ffffffff\ncreateType=\"custom\"\n"
                               "RW 2048 FLAT \"part-1\" 0\nRW 2049 FLAT \"part-2\" 0\n";
    const char *model = (char *)scenario->history.model;
    g_autofree char *first = image_path("part-1"), *second = image_path("part-2");
    g_assert_true(g_file_set_contents(first, model, 1 << 20, NULL));
    g_assert_true(g_file_set_contents(second, model + (1 << 20), HISTORY_BELOW - (1 << 20), NULL));
    add_file(scenario, first);
    add_file(scenario, second);
    g_free(scenario->image);
    scenario->image = image_path("image");
    g_assert_true(g_file_set_contents(scenario->image, text, -1, NULL));
    add_file(scenario, scenario->image);
}

static void prepare(struct scenario *scenario, const struct row *row)
{
    struct history *history = &scenario->history;
    *scenario = (struct scenario){
        .way = row->way,
        .tool = row->tool,
        .zeroes = row->zeroes,
        .strung = row->strung,
        .files = g_array_new(false, false, sizeof(struct file)),
        .seen = g_new(uint64_t, CAPACITY / SECTOR),
        .kept = g_new(uint64_t, CAPACITY / SECTOR),
        .argv = g_new0(char *, G_N_ELEMENTS(row->arguments) + 1),
    };
    g_array_set_clear_func(scenario->files, clear_file);
    *history = (struct history){
        .rand = g_rand_new_with_seed(7),
        .model = g_malloc0(CAPACITY),
        .data = g_malloc(CAPACITY),
        .path = image_path("image.qcow2"),
        .below = image_path("below.raw"),
    };
    image_fill(history->model, 0, HISTORY_BELOW, 77);
    g_assert_true(g_file_set_contents(history->below, (char *)history->model, HISTORY_BELOW, NULL));
    if (row->shape) {
        prepare_shape(scenario, row);
    }
    if (row->strung) {
        prepare_strung(scenario);
    } else if (row->format) {
        scenario->image = image_path("image");
        g_assert_cmpint(image_run(NULL, "qemu-img convert -f raw %s %s %s", row->format,
                                  history->below, scenario->image),
                        ==, 0);
        add_file(scenario, scenario->image);
    }
    add_file(scenario, history->below);
    for (unsigned i = 0; i < G_N_ELEMENTS(row->arguments) && row->arguments[i]; i++) {
        const char *a = row->arguments[i];
        if (*a == '>')
            scenario->target = image_path("target.qcow2");
        scenario->argv[i] = g_strdup(*a == '@'   ? scenario->image
                                     : *a == '>' ? scenario->target
                                                 : a);
    }
    scenario->before = g_malloc0(CAPACITY);
    if (scenario->image) {
        struct disk *disk = open_chain(scenario->image, true);
        scenario->size = disk->size;
        if (row->past != ENTRY)
            g_assert_cmpint(disk_read(disk, scenario->before, disk->size, 0), ==, 0);
        disk_free(disk);
    }
}

static void restore(struct scenario *scenario)
{
    for (guint i = 0; i < scenario->files->len; i++) {
        const struct file *file = &g_array_index(scenario->files, struct file, i);
        put_bytes(file->path, file->bytes);
    }
    scenario->unflushed = false;
    g_rand_set_seed(scenario->history.rand, 7);
    for (size_t s = 0; s < CAPACITY / SECTOR; s++)
        scenario->seen[s] = scenario->kept[s] = s < scenario->size / SECTOR ? 1ULL << BEFORE : 1;
}

static void finish(struct scenario *scenario)
{
    struct history *history = &scenario->history;
    g_array_unref(scenario->files);
    g_strfreev(scenario->argv);
    g_free(scenario->seen);
    g_free(scenario->kept);
    g_free(scenario->before);
    g_free(scenario->image);
    g_free(scenario->target);
    g_rand_free(history->rand);
    g_free(history->model);
    g_free(history->data);
    g_free(history->path);
    g_free(history->below);
}

/* --- failing ---------------------------------------------------------------------------------- */

static void once(struct scenario *scenario, enum failure failure, unsigned at)
{
    restore(scenario);
    host_start(failure, at);
    scenario->way->run(scenario);
    host_stop();
    scenario->way->judge(scenario);
}

/* Has a place not had this yet? */
static bool is_news(const struct trace *trace, enum failure failure)
{
    for (unsigned i = 0; i < DEEPEST; i++)
        if (trace->sites[i] && !(trace->sites[i]->failed & (1U << failure)))
            return true;
    return false;
}

static void fail_all(struct scenario *scenario, const GArray *traces, bool each, unsigned *runs)
{
    for (guint i = 0; i < traces->len; i++) {
        const struct trace *trace = &g_array_index(traces, struct trace, i);
        for (unsigned k = 0; k < DEEPEST; k++)
            if (trace->sites[k])
                trace->sites[k]->wanted |= possible_failures[trace->call];
        for (enum failure f = 0; f < NONE; f++)
            if (possible_failures[trace->call] & (1U << f) && (each || is_news(trace, f))) {
                once(scenario, f, i + 1);
                ++*runs;
            }
    }
}

static void run_row(gconstpointer data)
{
    const struct row *row = data;
    struct scenario scenario;
    unsigned runs = 0;
    if (!image_have_judge())
        return;
    if (row->slow && !g_test_slow()) {
        g_test_skip("-m slow");
        return;
    }
    image_folder_make(row->ring ? "/var/tmp" : IN_MEMORY);
    prepare(&scenario, row);
    g_autofree char *folder = g_path_get_dirname(scenario.history.below);
    scenario.folder = folder;
    GArray *traces = host.traces = g_array_new(false, true, sizeof(struct trace));
    if (row->format)
        g_assert_true(!memcmp(scenario.before, scenario.history.model, HISTORY_BELOW));
    once(&scenario, NONE, 0);
    fail_all(&scenario, traces, g_test_slow(), &runs);
    /* Threads: the calls of two runs are not always the same, and what is missed once is tried
     * again. */
    for (unsigned i = 0, before = 0; i < TRIES && before != runs; i++) {
        before = runs;
        fail_all(&scenario, traces, false, &runs);
    }
    g_test_message("%u calls, %u failures", traces->len, runs);
    g_array_unref(traces);
    finish(&scenario);
    image_folder_drop();
}

/* Places that no scenario gets to. */
static const struct {
    const char *file, *call;
} excused[] = {
    { "mapped.c", "raw_sync" },        /* all formats that are written have a flush of their own */
    { "remote-hello.c", "ftruncate" }, /* of memory shared with another process, not of an image */
};

static bool is_excused(const struct site *site)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(excused); i++)
        if (g_str_has_suffix(site->file, excused[i].file) && !strcmp(site->call, excused[i].call))
            return true;
    return false;
}

/* Every place was there, and failed in each way that it can. */
static void all_failed(void)
{
    extern struct site *__start_sites[], *__stop_sites[];
    unsigned count = 0, never = 0;
    for (struct site **at = __start_sites; at < __stop_sites; at++, count++) {
        const struct site *site = *at;
        if (site->wanted && (site->failed & site->wanted) == site->wanted)
            continue;
        never += !is_excused(site);
        g_test_message("%s:%d: %s %s (%x of %x)", site->file, site->line, site->call,
                       site->wanted ? "did not fail in each way" : "was never called", site->failed,
                       site->wanted);
    }
    g_test_message("%u places", count);
    g_assert_cmpuint(count, >, 50);
    g_assert_cmpuint(never, ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *path = g_strconcat("/sites/", rows[i].name, NULL);
        g_test_add_data_func(path, &rows[i], run_row);
    }
    g_test_add_func("/sites/all", all_failed);
    return g_test_run();
}
