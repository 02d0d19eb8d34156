/* The root file system of a kernel under test; see guest-root.h. */
#include "test/guest-root.h"

#include "base/error.h"
#include "cli/cli.h"
#include "guest/init.h"
#include "test/closure.h"
#include "test/newc.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* A file of the host that has to be in the guest; what the kernel makes is there anyway. */
static bool is_file(const char *path)
{
    return g_file_test(path, G_FILE_TEST_IS_REGULAR) && !g_str_has_prefix(path, "/proc/") &&
           !g_str_has_prefix(path, "/sys/") && !g_str_has_prefix(path, "/dev/");
}

/* What a word of the command names here: a file, or a program in $PATH. NULL: neither. */
static char *file_of(const char *word, bool program)
{
    g_autofree char *path = g_canonicalize_filename(word, NULL);
    if (*word && is_file(path))
        return g_steal_pointer(&path);
    g_autofree char *found =
        program && *word && !strchr(word, '/') ? g_find_program_in_path(word) : NULL;
    return found ? g_canonicalize_filename(found, NULL) : NULL;
}

/* The programs and files that the words name. `first` becomes the first one's path. */
static bool add_words(struct closure *closure, char *const *words, char **first, GError **error)
{
    for (unsigned i = 0; words[i]; i++) {
        g_autofree char *path = file_of(words[i], i == 0);
        if (!path && i == 0)
            return hv_fail(error, HV_FAILED,
                           "%s: this host has no such program: --root DIR gives "
                           "the guest a root file system that has it",
                           words[i]);
        if (path && !closure_add(closure, path, error))
            return false;
        if (i == 0)
            *first = g_steal_pointer(&path);
    }
    return true;
}

/* A line for a shell: what in it looks like a word and is a file here, or a program that the
 * guest's shell does not have. */
static bool add_line(struct closure *closure, const char *line, GHashTable *have, GError **error)
{
    g_auto(GStrv) words = g_strsplit_set(line, " \t\n;|&()<>\"'`$=", -1);
    for (unsigned i = 0; words[i]; i++) {
        g_autofree char *path = file_of(words[i], !g_hash_table_contains(have, words[i]));
        if (path && !closure_add(closure, path, error))
            return false;
    }
    return true;
}

/* The names that the host's busybox goes by: "bin/ls" and so on. NULL: there is none. */
static char **busybox_links(const char *busybox)
{
    char *argv[] = { (char *)(uintptr_t)busybox, (char *)"--list-full", NULL };
    g_autofree char *output = NULL;
    int status;
    if (!busybox ||
        !g_spawn_sync(NULL, argv, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &output, NULL,
                      &status, NULL) ||
        !g_spawn_check_wait_status(status, NULL))
        return NULL;
    return g_strsplit(output, "\n", -1);
}

static GHashTable *names_of(char **links)
{
    GHashTable *names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (char **link = links; link && *link; link++)
        g_hash_table_add(names, g_path_get_basename(*link));
    return names;
}

static bool put_links(struct newc *newc, char **links, GError **error)
{
    for (char **link = links; link && *link; link++) {
        g_autofree char *path = g_strconcat("/", *link, NULL);
        if (**link && !newc_link(newc, path, "/bin/busybox", error))
            return false;
    }
    return true;
}

static bool put_etc(struct newc *newc, GError **error)
{
    static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n", group[] = "root:x:0:\n",
                      hosts[] = "127.0.0.1 localhost\n";
    static const char cache[] = "/etc/ld.so.cache"; /* says where the libraries are */
    return newc_text(newc, "/etc/passwd", 0644, passwd, strlen(passwd), error) &&
           newc_text(newc, "/etc/group", 0644, group, strlen(group), error) &&
           newc_text(newc, "/etc/hosts", 0644, hosts, strlen(hosts), error) &&
           newc_folder(newc, "/root", error) &&
           (access(cache, R_OK) < 0 || newc_file(newc, cache, cache, error));
}

/* The root that holds what the command needs. */
static bool put_own(struct newc *newc, char *const *words, char **first, GError **error)
{
    struct closure closure;
    g_autofree char *busybox = g_find_program_in_path("busybox"), *here = g_get_current_dir();
    g_auto(GStrv) links = busybox_links(busybox);
    g_autoptr(GHashTable) have = names_of(links);
    closure_start(&closure, NULL);
    bool ok = words[1] || is_file(words[0]) ? add_words(&closure, words, first, error)
                                            : add_line(&closure, words[0], have, error);
    if (ok && !links && access("/bin/sh", X_OK) == 0)
        ok = closure_add(&closure, "/bin/sh", error);
    guint wanted = closure.files->len;
    ok = ok && (!links || closure_add(&closure, busybox, error));
    for (guint i = 0; ok && i < closure.files->len; i++) {
        const char *path = g_ptr_array_index(closure.files, i);
        bool box = i >= wanted && !strcmp(path, busybox);
        ok = newc_file(newc, box ? "/bin/busybox" : path, path, error);
    }
    ok = ok && put_links(newc, links, error) && put_etc(newc, error) &&
         (!strcmp(here, "/") || newc_folder(newc, here, error));
    closure_finish(&closure);
    return ok;
}

static bool put_init(struct newc *newc, const struct guest_root *root, const char *first,
                     GError **error)
{
    g_autoptr(GByteArray) order = g_byte_array_new();
    g_autofree char *program = program_path("hv-init"), *here = g_get_current_dir();
    const char *how = root->words[1] || first ? INIT_WORDS : INIT_SHELL;
    bool own = !root->folder && !root->bare;
    const char *folder = own ? here : "/";
    if (access(program, R_OK) < 0)
        return hv_fail(error, HV_HOST,
                       "%s: %s: hv was built without it (it wants a C library to "
                       "link statically with)",
                       program, g_strerror(errno));
    g_byte_array_append(order, (const guint8 *)how, (guint)strlen(how) + 1);
    g_byte_array_append(order, (const guint8 *)folder, (guint)strlen(folder) + 1);
    for (unsigned i = 0; root->words[i]; i++) {
        const char *word = i == 0 && first ? first : root->words[i];
        g_byte_array_append(order, (const guint8 *)word, (guint)strlen(word) + 1);
    }
    if (order->len > INIT_ORDER_MAX)
        return hv_fail(error, HV_USAGE, "the command is longer than %d bytes: put it in a file",
                       INIT_ORDER_MAX);
    return newc_file(newc, INIT_PROGRAM, program, error) &&
           newc_text(newc, INIT_ORDER, 0600, order->data, order->len, error);
}

/* The kernel opens it for the init, before there is anything else in /dev. */
static bool put_dev(struct newc *newc, GError **error)
{
    return newc_folder(newc, "/dev", error) && newc_device(newc, "/dev/console", 5, 1, error);
}

bool guest_root_write(const struct guest_root *root, const char *file, GError **error)
{
    struct newc newc;
    g_autofree char *first = NULL;
    int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return hv_fail(error, HV_HOST, "%s: %s", file, g_strerror(errno));
    newc_start(&newc, fd, root->limit);
    bool ok = (!root->folder || newc_tree(&newc, root->folder, error)) &&
              (root->folder || root->bare || put_own(&newc, root->words, &first, error)) &&
              put_dev(&newc, error) && put_init(&newc, root, first, error) &&
              newc_end(&newc, error);
    newc_finish(&newc);
    close(fd);
    return ok;
}
