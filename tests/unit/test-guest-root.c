/* What `hv test --kernel` gives its guest: the archive, the libraries of programs, and the frames
 * in which the guest's init answers. */
#include "base/error.h"
#include "guest/init.h"
#include "test/closure.h"
#include "test/frames.h"
#include "test/ktap.h"
#include "test/newc.h"

#include <elf.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* --- the archive ----------------------------------------------------------------------------- */

static char *new_folder(void)
{
    char *folder = g_dir_make_tmp("test-guest-root-XXXXXX", NULL);
    g_assert_nonnull(folder);
    return folder;
}

static void remove_folder(const char *folder)
{
    char *argv[] = { (char *)"rm", (char *)"-rf", (char *)(uintptr_t)folder, NULL };
    g_assert_true(
        g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL));
}

static unsigned field(const char *head, unsigned n)
{
    char digits[9] = { 0 };
    memcpy(digits, head + 6 + n * 8, 8);
    return (unsigned)strtoul(digits, NULL, 16);
}

/* "NAME MODE SIZE DEVICE CONTENT" of each entry, as the kernel would read them. */
static char *entries(int fd)
{
    GString *all = g_string_new(NULL);
    off_t size = lseek(fd, 0, SEEK_END);
    g_autofree char *bytes = g_malloc0((gsize)size + 1);
    g_assert_cmpint(pread(fd, bytes, (size_t)size, 0), ==, size);
    for (size_t at = 0; at < (size_t)size;) {
        const char *head = bytes + at, *name = head + 110;
        g_assert_true(!strncmp(head, "070701", 6));
        g_assert_cmpuint(field(head, 2), ==, 0); /* of root */
        g_assert_cmpuint(field(head, 3), ==, 0);
        g_assert_cmpuint(strlen(name) + 1, ==, field(head, 11));
        size_t data = (at + 110 + field(head, 11) + 3) / 4 * 4;
        g_string_append_printf(all, "%s %o %u %u:%u %.*s\n", name, field(head, 1), field(head, 6),
                               field(head, 9), field(head, 10), (int)field(head, 6), bytes + data);
        at = (data + field(head, 6) + 3) / 4 * 4;
    }
    return g_string_free(all, false);
}

static void archive(void)
{
    g_autofree char *folder = new_folder(), *file = g_build_filename(folder, "a", NULL);
    int fd = open(file, O_RDWR | O_CREAT, 0600);
    struct newc newc;
    GError *error = NULL;
    newc_start(&newc, fd, 1 << 20);
    g_assert_true(newc_text(&newc, "/a/b/text", 0640, "12345", 5, &error));
    g_assert_true(newc_text(&newc, "/a/b/text", 0640, "again", 5, &error)); /* is there */
    g_assert_true(newc_link(&newc, "/a/link", "b/text", &error));
    g_assert_true(newc_device(&newc, "/dev/console", 5, 1, &error));
    g_assert_true(newc_end(&newc, &error));
    newc_finish(&newc);
    g_autofree char *all = entries(fd);
    g_assert_cmpstr(all, ==,
                    "a 40755 0 0:0 \n"
                    "a/b 40755 0 0:0 \n"
                    "a/b/text 100640 5 0:0 12345\n"
                    "a/link 120777 6 0:0 b/text\n"
                    "dev 40755 0 0:0 \n"
                    "dev/console 20600 0 5:1 \n"
                    "TRAILER!!! 0 0 0:0 \n");
    close(fd);
    remove_folder(folder);
}

/* A folder becomes the root: with its modes, its links as they are, and without sockets. */
static void tree(void)
{
    g_autofree char *folder = new_folder(), *root = g_build_filename(folder, "root", NULL);
    g_autofree char *etc = g_build_filename(root, "etc", NULL);
    g_autofree char *secret = g_build_filename(etc, "secret", NULL);
    g_autofree char *link = g_build_filename(etc, "link", NULL);
    g_autofree char *fifo = g_build_filename(etc, "fifo", NULL);
    g_autofree char *file = g_build_filename(folder, "a", NULL);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    g_snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", etc);
    g_assert_cmpint(g_mkdir(root, 0755), ==, 0);
    g_assert_cmpint(g_mkdir(etc, 0700), ==, 0);
    g_assert_true(g_file_set_contents(secret, "xyz", 3, NULL));
    g_assert_cmpint(g_chmod(secret, 04711), ==, 0);
    g_assert_cmpint(symlink("/nowhere", link), ==, 0);
    g_assert_cmpint(mkfifo(fifo, 0666), ==, 0);
    g_assert_cmpint(g_chmod(fifo, 0666), ==, 0);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), fd = open(file, O_RDWR | O_CREAT, 0600);
    g_assert_cmpint(bind(listener, (struct sockaddr *)&address, sizeof address), ==, 0);

    struct newc newc;
    GError *error = NULL;
    newc_start(&newc, fd, 1 << 20);
    g_assert_true(newc_tree(&newc, root, &error));
    newc_finish(&newc);
    g_autofree char *all = entries(fd);
    g_assert_nonnull(strstr(all, "etc 40700 0 0:0 \n"));
    g_assert_nonnull(strstr(all, "etc/secret 104711 3 0:0 xyz\n"));
    g_assert_nonnull(strstr(all, "etc/link 120777 8 0:0 /nowhere\n"));
    g_assert_nonnull(strstr(all, "etc/fifo 10666 0 0:0 \n"));
    g_assert_null(strstr(all, "socket"));
    close(fd);
    close(listener);
    remove_folder(folder);
}

/* What does not fit into the guest's RAM is refused before it is written. */
static void too_large(void)
{
    g_autofree char *folder = new_folder(), *file = g_build_filename(folder, "a", NULL);
    g_autofree char *large = g_build_filename(folder, "large", NULL);
    int fd = open(file, O_RDWR | O_CREAT, 0600);
    struct newc newc;
    g_autoptr(GError) error = NULL;
    g_assert_true(g_file_set_contents(large, "", 0, NULL));
    g_assert_cmpint(truncate(large, 300 << 20), ==, 0);
    newc_start(&newc, fd, 100 << 20);
    g_assert_false(newc_file(&newc, "/large", large, &error));
    g_assert_error(error, HV_ERROR, HV_USAGE);
    g_assert_nonnull(strstr(error->message, "takes 300 MiB"));
    g_assert_nonnull(strstr(error->message, "room for 100 MiB"));
    g_assert_cmpint(lseek(fd, 0, SEEK_END), ==, 0);
    newc_finish(&newc);
    close(fd);
    remove_folder(folder);
}

/* --- libraries ------------------------------------------------------------------------------- */

enum { STRINGS = 0x400, DYNAMIC = 0x200 };

/* A 64-bit file that needs those libraries. */
static char *write_program(const char *folder, const char *name, const char *runpath,
                           const char *const *needed)
{
    char bytes[0x800] = { 0 };
    Elf64_Ehdr head = { .e_type = ET_DYN,
                        .e_machine = EM_X86_64,
                        .e_phoff = sizeof head,
                        .e_phentsize = sizeof(Elf64_Phdr),
                        .e_phnum = 2 };
    memcpy(head.e_ident, "\177ELF\2\1\1", 7);
    const Elf64_Phdr headers[2] = {
        { .p_type = PT_LOAD, .p_vaddr = 0x10000, .p_filesz = sizeof bytes },
        { .p_type = PT_DYNAMIC, .p_offset = DYNAMIC, .p_filesz = 8 * sizeof(Elf64_Dyn) },
    };
    Elf64_Dyn *dynamic = (Elf64_Dyn *)(void *)(bytes + DYNAMIC);
    size_t at = 1;
    memcpy(bytes, &head, sizeof head);
    memcpy(bytes + sizeof head, headers, sizeof headers);
    for (; needed && *needed; needed++) {
        *dynamic++ = (Elf64_Dyn){ DT_NEEDED, { at } };
        at += (size_t)g_snprintf(bytes + STRINGS + at, 64, "%s", *needed) + 1;
    }
    if (runpath) {
        *dynamic++ = (Elf64_Dyn){ DT_RUNPATH, { at } };
        g_snprintf(bytes + STRINGS + at, 64, "%s", runpath);
    }
    *dynamic = (Elf64_Dyn){ DT_STRTAB, { 0x10000 + STRINGS } };
    char *path = g_build_filename(folder, name, NULL);
    g_assert_true(g_file_set_contents(path, bytes, sizeof bytes, NULL));
    return path;
}

static bool has(const struct closure *closure, const char *name)
{
    for (guint i = 0; i < closure->files->len; i++)
        if (g_str_has_suffix(g_ptr_array_index(closure->files, i), name))
            return true;
    return false;
}

/* What a library needs is needed too; what both need is there once; a circle ends. */
static void libraries(void)
{
    g_autofree char *folder = new_folder(), *own = g_build_filename(folder, "own", NULL);
    const char *const folders[] = { folder, NULL };
    const char *const of_program[] = { "liba.so", "libb.so", NULL },
                      *const of_a[] = { "libc.so", NULL },
                      *const of_b[] = { "libc.so", "liba.so", NULL };
    g_assert_cmpint(g_mkdir(own, 0755), ==, 0);
    g_autofree char *program = write_program(folder, "program", "$ORIGIN/own", of_program);
    g_free(write_program(folder, "liba.so", NULL, of_a));
    g_free(write_program(own, "libb.so", NULL, of_b));
    g_free(write_program(folder, "libc.so", NULL, of_b + 1));
    struct closure closure;
    GError *error = NULL;
    closure_start(&closure, folders);
    g_assert_true(closure_add(&closure, program, &error));
    g_assert_cmpuint(closure.files->len, ==, 4);
    g_assert_true(has(&closure, "/own/libb.so"));
    g_assert_true(has(&closure, "/libc.so"));

    /* A library that is nowhere. */
    const char *const gone[] = { "libgone.so", NULL };
    g_autofree char *other = write_program(folder, "other", NULL, gone);
    g_assert_false(closure_add(&closure, other, &error));
    g_assert_nonnull(strstr(error->message, "libgone.so"));
    g_clear_error(&error);
    closure_finish(&closure);
    remove_folder(folder);
}

/* A script wants the program in its first line, and env what that finds. */
static void scripts(void)
{
    g_autofree char *folder = new_folder(), *script = g_build_filename(folder, "s", NULL);
    const char *const folders[] = { folder, NULL };
    g_autofree char *program = write_program(folder, "program", NULL, NULL);
    g_autofree char *text = g_strdup_printf("#!%s -x\nexit\n", program);
    g_assert_true(g_file_set_contents(script, text, -1, NULL));
    struct closure closure;
    closure_start(&closure, folders);
    g_assert_true(closure_add(&closure, script, NULL));
    g_assert_cmpuint(closure.files->len, ==, 2);
    g_assert_true(has(&closure, "/program"));
    closure_finish(&closure);
    remove_folder(folder);
}

/* Damaged files name nothing, and nothing beside them is read. */
static void damaged(void)
{
    g_autofree char *folder = new_folder();
    const char *const folders[] = { folder, NULL }, *const needed[] = { "liba.so", NULL };
    g_free(write_program(folder, "liba.so", NULL, NULL));
    g_autofree char *program = write_program(folder, "program", NULL, needed), *bytes = NULL;
    gsize size;
    g_assert_true(g_file_get_contents(program, &bytes, &size, NULL));
    for (gsize i = 0; i < size; i += i < 0x280 ? 1 : 61) {
        g_autofree char *copy = g_memdup2(bytes, size);
        copy[i] = (char)0xff;
        g_autofree char *path = g_build_filename(folder, "damaged", NULL);
        g_assert_true(g_file_set_contents(path, copy, (gssize)(i % 3 ? size : i), NULL));
        struct closure closure;
        closure_start(&closure, folders);
        closure_add(&closure, path, NULL);
        closure_finish(&closure);
    }
    remove_folder(folder);
}

/* --- frames ---------------------------------------------------------------------------------- */

static void take(struct frames *frames, char type, const void *data, size_t length)
{
    const uint8_t head[] = { (uint8_t)type, (uint8_t)length, (uint8_t)(length >> 8) };
    frames_take(frames, head, sizeof head);
    for (size_t i = 0; i < length; i++)
        frames_take(frames, (const uint8_t *)data + i, 1);
}

/* What looks like a frame in the output is output. */
static void frames_apart(void)
{
    static const uint8_t end[FRAME_STATUS_SIZE] = { 42, 12 };
    struct frames frames;
    frames_start(&frames);
    take(&frames, FRAME_BEGIN, "", 0);
    take(&frames, FRAME_OUTPUT, "s\11\0\0\0\0\0", 7);
    take(&frames, FRAME_ERRORS, "wrong", 5);
    g_assert_false(frames.ended);
    take(&frames, FRAME_STATUS, end, sizeof end);
    g_assert_true(frames.ended);
    g_assert_null(frames.failure);
    g_assert_cmpint(frames.status, ==, 42);
    g_assert_cmpuint(frames.begun, ==, 1);
    g_assert_cmpmem(frames.output->data, frames.output->len, "s\11\0\0\0\0\0", 7);
    g_assert_cmpmem(frames.errors->data, frames.errors->len, "wrong", 5);
    take(&frames, FRAME_OUTPUT, "more", 4); /* behind the end */
    g_assert_cmpuint(frames.output->len, ==, 7);
    frames_finish(&frames);
}

/* Lost bytes are noticed: by what is no frame, or by the count at the end. */
static void frames_lost(void)
{
    static const uint8_t end[FRAME_STATUS_SIZE] = { 0, 5 };
    struct frames frames;
    frames_start(&frames);
    take(&frames, FRAME_OUTPUT, "1234", 4);
    take(&frames, FRAME_STATUS, end, sizeof end);
    g_assert_nonnull(frames.failure);
    frames_finish(&frames);
    frames_start(&frames);
    frames_take(&frames, (const uint8_t *)"o\377\377rest", 7);
    g_assert_nonnull(frames.failure);
    frames_finish(&frames);
    frames_start(&frames);
    take(&frames, FRAME_FAILED, "no memory\377", 10);
    g_assert_nonnull(strstr(frames.failure, "no memory"));
    frames_finish(&frames);
}

/* --- results --------------------------------------------------------------------------------- */

static void ktap(void)
{
    static const struct {
        const char *text, *wrong; /* a part of the message; NULL: all is well */
    } cases[] = {
        { "TAP version 13\n1..2\nok 1 a\nok 2 - b # SKIP no such thing\n", NULL },
        { "KTAP version 1\n1..1\n  KTAP version 1\n  1..2\n  ok 1 a\n  ok 2 b\nok 1 all", NULL },
        { "1..1\r\nok 1\r\n", NULL },
        { "ok 1 a\nnot ok 2 b # TODO later\nok 3\n1..3\n", NULL },
        { "noise: not ok\n# not ok 1\nok 1\n", NULL },
        { "TAP version 13\n1..1\nok 1\nTAP version 13\n1..2\nok 1\nok 2\n", NULL },
        { "1..2\nok 1 a\nnot ok 2 b\n", "1 of 2" },
        { "1..1\n    not ok 1 inside\nok 1\n", "1 of 2" },
        { "ok 1\nnot ok 2 \\# TODO is its name\n", "1 of 2" },
        { "1..3\nok 1\nok 2\n", "planned" },
        { "1..1\nok 1\nok 2\n", "planned" },
        { "TAP version 13\n1..2\nok 1\nTAP version 13\n1..1\nok 1\n", "planned" },
        { "1..2\nok 1\nBail out! no disk\n", "bailed" },
        { "hello\n", "no test point" },
        { "", "no test point" },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct ktap results;
        ktap_start(&results);
        for (const char *at = cases[i].text; *at; at++)
            ktap_take(&results, at, 1);
        g_autofree char *wrong = ktap_finish(&results);
        g_test_message("%s -> %s", cases[i].text, wrong);
        g_assert_true(cases[i].wrong ? wrong && strstr(wrong, cases[i].wrong) : !wrong);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/guest-root/archive", archive);
    g_test_add_func("/guest-root/tree", tree);
    g_test_add_func("/guest-root/too-large", too_large);
    g_test_add_func("/guest-root/libraries", libraries);
    g_test_add_func("/guest-root/scripts", scripts);
    g_test_add_func("/guest-root/damaged", damaged);
    g_test_add_func("/guest-root/frames", frames_apart);
    g_test_add_func("/guest-root/frames-lost", frames_lost);
    g_test_add_func("/guest-root/ktap", ktap);
    return g_test_run();
}
