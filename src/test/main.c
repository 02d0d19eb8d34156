/* hv test: boot tests in a language of their own (man hv-test(1), hv-test(5)). Results are TAP 14:
 * a test point for each step of each script, with each combination of its matrix. */
#include "base/error.h"
#include "cli/cli.h"
#include "test/html.h"
#include "test/junit.h"
#include "test/run.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Beside those of hv(1); as in Automake's tests. */
enum { STATUS_SKIPPED = 77, STATUS_NOT_RUN = 99 };

struct tests {
    unsigned number, failed, done; /* test points; `done` are neither failed nor skipped */
    bool broken;                   /* a script is none */
    const char *output;
    struct junit junit;
    struct html html;
    bool pictures;   /* for that */
    GHashTable *set; /* char * to char *: values of --set */
    char *prefix;    /* of the test points' names */
};

static struct tests *tests_of(struct run *run);

/* One line of TAP: nothing in it may begin a directive. */
static void print_plain(const char *start, const char *text)
{
    g_autofree char *plain = g_strdup(text);
    g_strdelimit(plain, "\n#", ' ');
    printf("%s%s", start, plain);
}

static void print_result(struct run *run, const struct result *result)
{
    static const char *const words[] = { "ok", "ok", "not ok", "ok" };
    struct tests *tests = tests_of(run);
    for (guint i = 0; i < result->moments->len; i++) {
        g_autofree char *line = moment_line(g_ptr_array_index(result->moments, i));
        if (line)
            printf("# %s\n", line);
    }
    if (result->message)
        printf("# %s\n", result->message);
    printf("# %.1f s, of which the host was busy %.1f s\n", (double)result->wall / G_USEC_PER_SEC,
           (double)result->busy / G_USEC_PER_SEC);
    printf("%s %u", words[result->outcome], ++tests->number);
    print_plain(" - ", tests->prefix);
    print_plain(": ", result->title);
    puts(result->outcome == OUTCOME_SKIPPED ? " # SKIP"
         : result->outcome == OUTCOME_SOFT  ? " # TODO a soft failure"
                                            : "");
    fflush(stdout);
    junit_add(&tests->junit, tests->prefix, result);
    if (tests->pictures)
        html_add(&tests->html, tests->prefix, result);
    tests->failed += result->outcome == OUTCOME_FAILED;
    tests->done += result->outcome == OUTCOME_OK || result->outcome == OUTCOME_SOFT;
}

struct test_run {
    struct run run;
    struct tests *tests;
};

static struct tests *tests_of(struct run *run)
{
    return ((struct test_run *)run)->tests;
}

static bool has_problems(const struct script *script)
{
    for (guint i = 0; i < script->problems->len; i++)
        fprintf(stderr, "%s\n", (const char *)g_ptr_array_index(script->problems, i));
    return script->problems->len;
}

/* The script with these values of its matrix. */
static void run_once(struct tests *tests, const struct source *source, GHashTable *values,
                     const char *combination, bool check)
{
    struct script *script = script_parse(source, values);
    if (has_problems(script)) {
        tests->broken = true;
    } else if (!check) {
        struct test_run test = { .run = { .finished = print_result, .pictures = tests->pictures },
                                 .tests = tests };
        g_autofree char *name = g_path_get_basename(source->path);
        g_autofree char *output = g_strdup_printf("%s/%s%s", tests->output, name, combination);
        tests->prefix = g_strconcat(script->title, combination, NULL);
        run_script(&test.run, script, source->path, output);
        run_finish(&test.run);
        g_free(tests->prefix);
    }
    script_free(script);
}

/* Once for each combination of the keys from the n-th on. */
static void run_matrix(struct tests *tests, const struct source *source, unsigned n,
                       GHashTable *values, const char *combination, bool check)
{
    if (n == source->keys->len) {
        run_once(tests, source, values, combination, check);
        return;
    }
    const struct matrix_key *key = g_ptr_array_index(source->keys, n);
    if (g_hash_table_contains(tests->set, key->name)) {
        run_matrix(tests, source, n + 1, values, combination, check);
        return;
    }
    for (guint i = 0; i < key->values->len && !(check && tests->broken); i++) {
        const char *value = g_ptr_array_index(key->values, i);
        g_autofree char *longer = g_strdup_printf("%s %s=%s", combination, key->name, value);
        g_hash_table_insert(values, key->name, (char *)(uintptr_t)value);
        run_matrix(tests, source, n + 1, values, longer, check);
    }
}

/* KEY=VALUE,KEY=VALUE ... */
static bool take_set(struct tests *tests, const char *list)
{
    g_auto(GStrv) pairs = g_strsplit(list, ",", -1);
    for (char **pair = pairs; *pair; pair++) {
        char *equals = strchr(*pair, '=');
        if (!equals || equals == *pair)
            return false;
        g_hash_table_insert(tests->set, g_strndup(*pair, (gsize)(equals - *pair)),
                            g_strdup(equals + 1));
    }
    return true;
}

static GHashTable *copy_of(GHashTable *set)
{
    GHashTable *copy = g_hash_table_new(g_str_hash, g_str_equal);
    GHashTableIter all;
    gpointer key, value;
    g_hash_table_iter_init(&all, set);
    while (g_hash_table_iter_next(&all, &key, &value))
        g_hash_table_insert(copy, key, value);
    return copy;
}

static int status_of(const struct tests *tests, bool check)
{
    if (tests->broken)
        return check ? HV_USAGE : STATUS_NOT_RUN;
    if (tests->failed)
        return HV_FAILED;
    return check || tests->done ? HV_OK : STATUS_SKIPPED;
}

int verb_test(int argc, char **argv)
{
    bool check = false;
    const char *set = NULL, *junit = NULL, *html = NULL;
    g_autoptr(GHashTable) values = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    struct tests tests = { .output = "hv-test", .set = values };
    const struct flag flags[] = {
        { "check", &check, NULL }, { "output", NULL, &tests.output }, { "set", NULL, &set },
        { "junit", NULL, &junit }, { "html", NULL, &html },           { .name = NULL },
    };
    int left = cli_flags("test", argc, argv, flags);
    if (left < 0)
        return left == -2 ? HV_OK : HV_USAGE;
    if (!left)
        return cli_usage("test", "a script is wanted");
    if (set && !take_set(&tests, set))
        return cli_usage("test", "--set %s: KEY=VALUE,... is wanted", set);
    if (!check)
        puts("TAP version 14");
    junit_init(&tests.junit);
    html_init(&tests.html);
    tests.pictures = html != NULL;
    for (int i = 0; i < left; i++) {
        struct source *source = source_read(argv[i]);
        g_autoptr(GHashTable) own = copy_of(values);
        run_matrix(&tests, source, 0, own, "", check);
        source_free(source);
    }
    if (!check)
        printf("1..%u\n", tests.number);
    GError *error = NULL;
    bool written = check || !junit || junit_write(&tests.junit, junit, &error);
    written = written && (check || !html || html_write(&tests.html, html, &error));
    junit_finish(&tests.junit);
    html_finish(&tests.html);
    if (!written)
        return cli_fail(error);
    return status_of(&tests, check);
}
