/* One turn of hv test --kernel --repeat; see command-run.h. One thread. */
#include "test/command-run.h"

#include "test/short.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    STATUS_SKIP = 77,      /* of the command, as in Automake's tests */
    STATUS_UNTESTED = 125, /* with --bisect */
    TOLD_MAX = 2000,       /* bytes of the output that a failure tells */
};

static bool write_to(const char *file)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool ok = fd >= 0 && dup2(fd, 1) == 1 && dup2(fd, 2) == 2;
    if (fd >= 0)
        close(fd);
    return ok;
}

/* The end of what it has written, in whole lines. */
static char *last_words(const char *file)
{
    g_autofree char *text = NULL;
    gsize length = 0;
    if (!g_file_get_contents(file, &text, &length, NULL))
        return g_strdup("");
    const char *from = text;
    if (length > TOLD_MAX) {
        from = text + length - TOLD_MAX;
        from += strcspn(from, "\n");
        from += *from == '\n';
    }
    return g_strchomp(g_utf8_make_valid(from, -1));
}

struct result *command_run(char **words, const char *folder)
{
    struct result *result = result_new("the command");
    g_autofree char *file = g_build_filename(folder, "output.txt", NULL);
    g_autoptr(GPtrArray) all = g_ptr_array_new();
    const gint64 began = g_get_monotonic_time();
    g_ptr_array_add(all, (char *)"--output");
    g_ptr_array_add(all, (char *)(uintptr_t)folder);
    for (char **word = words; *word; word++)
        g_ptr_array_add(all, *word);
    g_ptr_array_add(all, NULL);
    if (g_mkdir_with_parents(folder, 0777) < 0 || !write_to(file)) {
        result->outcome = OUTCOME_FAILED;
        result->message = g_strdup_printf("%s: %s", file, g_strerror(errno));
        return result;
    }
    int status = short_test_busy((int)all->len - 1, (char **)all->pdata, &result->busy);
    fflush(NULL);
    result->wall = g_get_monotonic_time() - began;
    result->outcome = status == (short_bisects(words) ? STATUS_UNTESTED : STATUS_SKIP)
                          ? OUTCOME_SKIPPED
                      : status ? OUTCOME_FAILED
                               : OUTCOME_OK;
    result_add(result, MOMENT_LOG, result->wall, g_strdup(file));
    if (status) {
        g_autofree char *said = last_words(file);
        result->message = g_strdup_printf("status %d%s%s", status, *said ? ":\n" : "", said);
    }
    return result;
}
