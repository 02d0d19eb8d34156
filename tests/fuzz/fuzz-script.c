/* The parser of test scripts: the input is a script. What it says is wrong has its place, and what
 * is right is commands whose words are its own. Shared by libFuzzer and the replay of the corpus,
 * as fuzz-device.c. */
#include "test/script.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* FILE:LINE:COLUMN: and a sentence without control characters. */
static void check_problems(const GPtrArray *problems, const char *path)
{
    for (guint i = 0; i < problems->len; i++) {
        const char *text = g_ptr_array_index(problems, i), *at = text + strlen(path);
        unsigned line, column;
        if (!g_str_has_prefix(text, path) || sscanf(at, ":%u:%u: ", &line, &column) != 2 || !line ||
            !column || !g_utf8_validate(text, -1, NULL))
            g_error("a problem without its place: %s", text);
    }
}

static unsigned check_commands(const GPtrArray *commands, const char *path)
{
    unsigned count = 0;
    for (guint i = 0; i < commands->len; i++) {
        const struct command *command = g_ptr_array_index(commands, i);
        g_assert_nonnull(command->verb);
        g_assert_cmpstr(command->place.file, ==, path);
        g_assert_cmpint(command->after, >=, 0);
        for (guint a = 0; command->arguments && a < command->arguments->len; a++)
            g_assert_true(g_ptr_array_find(
                command->words, g_array_index(command->arguments, struct argument, a).word, NULL));
        count += 1 + (command->block ? check_commands(command->block, path) : 0);
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("script", MFD_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(write(fd, data, size), ==, (ssize_t)size);
    g_assert_cmpint(lseek(fd, 0, SEEK_SET), ==, 0);
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autoptr(GHashTable) values = g_hash_table_new(g_str_hash, g_str_equal);
    struct source *source = source_read(path);
    for (guint i = 0; i < source->keys->len; i++) {
        const struct matrix_key *key = g_ptr_array_index(source->keys, i);
        if (key->values->len)
            g_hash_table_insert(values, key->name, g_ptr_array_index(key->values, 0));
    }
    struct script *script = script_parse(source, values, "");
    check_problems(source->problems, path);
    check_problems(script->problems, path);
    if (!script->problems->len)
        g_assert_cmpuint(check_commands(script->commands, path), <=, size);
    script_free(script);
    source_free(source);
    close(fd);
    return 0;
}
