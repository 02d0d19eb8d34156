/* hv test: boot tests in a language of their own (man hv-test(1), hv-test(5)). Results are TAP 14:
 * a test point for each step of each script, with each combination of its matrix. */
#include "base/error.h"
#include "cli/cli.h"
#include "test/html.h"
#include "test/jobs.h"
#include "test/junit.h"
#include "test/record.h"
#include "test/resume.h"
#include "test/short.h"

#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Beside those of hv(1); as in Automake's tests. */
enum { STATUS_SKIPPED = 77, STATUS_NOT_RUN = 99 };

struct tests {
    unsigned number, failed, done; /* test points; `done` are neither failed nor skipped */
    bool broken;                   /* a script is none */
    bool check;                    /* nothing is run */
    struct junit junit;
    struct html html;
    GHashTable *set;    /* char * to char *: values of --set */
    GPtrArray *sources; /* struct source: the plans' places point into them */
    struct jobs jobs;
};

/* As TAP 14 has it: a # that begins no directive is escaped. */
static void print_plain(const char *start, const char *text)
{
    fputs(start, stdout);
    for (; *text; text++) {
        if (*text == '#' || *text == '\\')
            putchar('\\');
        putchar(*text == '\n' ? ' ' : *text);
    }
}

/* Each of its lines as a comment. */
static void print_comment(const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++)
        printf("# %s\n", *line);
}

static void tell_result(void *opaque, const char *test, const struct result *result)
{
    static const char *const words[] = { "ok", "ok", "not ok", "ok" };
    struct tests *tests = opaque;
    for (guint i = 0; i < result->moments->len; i++) {
        g_autofree char *line = moment_line(g_ptr_array_index(result->moments, i));
        if (line)
            print_comment(line);
    }
    if (result->message)
        print_comment(result->message);
    printf("# %.1f s, of which the host was busy %.1f s\n", (double)result->wall / G_USEC_PER_SEC,
           (double)result->busy / G_USEC_PER_SEC);
    printf("%s %u", words[result->outcome], ++tests->number);
    print_plain(" - ", test);
    print_plain(": ", result->title);
    puts(result->outcome == OUTCOME_SKIPPED ? " # SKIP"
         : result->outcome == OUTCOME_SOFT  ? " # TODO a soft failure"
                                            : "");
    fflush(stdout);
    junit_add(&tests->junit, test, result);
    if (tests->jobs.pictures)
        html_add(&tests->html, test, result);
    tests->failed += result->outcome == OUTCOME_FAILED;
    tests->done += result->outcome == OUTCOME_OK || result->outcome == OUTCOME_SOFT;
}

static bool has_problems(const struct script *script)
{
    for (guint i = 0; i < script->problems->len; i++)
        fprintf(stderr, "%s\n", (const char *)g_ptr_array_index(script->problems, i));
    return script->problems->len;
}

/* The script with these values of its matrix is to be done. */
static void plan_once(struct tests *tests, const struct source *source, GHashTable *values,
                      const char *combination)
{
    struct script *script = script_parse(source, values, "");
    bool wrong = has_problems(script);
    tests->broken |= wrong;
    if (!wrong)
        plan_add(tests->jobs.plans, plan_new(source, script, values, combination));
    script_free(script);
}

/* A value of a matrix may name those of --set and of keys above its own. */
static char *filled(const char *text, GHashTable *values)
{
    GString *value = g_string_new(text);
    GHashTableIter all;
    gpointer key, known;
    g_hash_table_iter_init(&all, values);
    while (g_hash_table_iter_next(&all, &key, &known)) {
        g_autofree char *name = g_strdup_printf("${%s}", (const char *)key);
        g_string_replace(value, name, known, 0);
    }
    return g_string_free(value, false);
}

/* Adds the files that it names by a pattern, from the script's folder on; else the value itself, as
 * shells do (glob(7)). */
static void add_files(GPtrArray *all, const struct source *source, const char *value)
{
    g_autofree char *folder = g_path_get_dirname(source->path);
    g_autofree char *pattern = g_build_filename(*value == '/' ? "" : folder, value, NULL);
    size_t own = *value == '/' ? 0 : strlen(folder) + 1;
    glob_t found;
    if (strpbrk(value, "*?[") && glob(pattern, 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++)
            g_ptr_array_add(all, g_strdup(found.gl_pathv[i] + own));
        globfree(&found);
    } else {
        g_ptr_array_add(all, g_strdup(value));
    }
}

/* What a key of the matrix is, one after the other; NULL when that cannot be said. */
static GPtrArray *values_of(const struct source *source, const struct matrix_key *key,
                            GHashTable *values)
{
    GPtrArray *all = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 0; i < key->values->len; i++) {
        g_autofree char *value = filled(g_ptr_array_index(key->values, i), values);
        if (strstr(value, "${")) {
            fprintf(stderr, "%s:%u:%u: %s: a value knows those of --set and of keys above it\n",
                    key->place.file, key->place.line, key->place.column, value);
            g_ptr_array_free(all, true);
            return NULL;
        }
        add_files(all, source, value);
    }
    return all;
}

/* Once for each combination of the keys from the n-th on. */
static void plan_matrix(struct tests *tests, const struct source *source, unsigned n,
                        GHashTable *values, const char *combination)
{
    if (n == source->keys->len) {
        plan_once(tests, source, values, combination);
        return;
    }
    const struct matrix_key *key = g_ptr_array_index(source->keys, n);
    if (g_hash_table_contains(tests->set, key->name)) {
        plan_matrix(tests, source, n + 1, values, combination);
        return;
    }
    g_autoptr(GPtrArray) all = values_of(source, key, values);
    tests->broken |= !all;
    for (guint i = 0; !tests->broken && i < all->len; i++) {
        char *value = g_ptr_array_index(all, i);
        g_autofree char *longer = g_strdup_printf("%s %s=%s", combination, key->name, value);
        g_hash_table_insert(values, key->name, value);
        plan_matrix(tests, source, n + 1, values, longer);
        g_hash_table_remove(values, key->name);
    }
}

/* KEY=VALUE,KEY=VALUE ... A part without = belongs to the value before it. */
static bool take_set(struct tests *tests, const char *list)
{
    g_auto(GStrv) parts = g_strsplit(list, ",", -1);
    for (char **part = parts; *part; part++) {
        char *equals = strchr(*part, '=');
        if (!equals || equals == *part)
            return false;
        GString *value = g_string_new(equals + 1);
        char *key = g_strndup(*part, (gsize)(equals - *part));
        for (; part[1] && !strchr(part[1], '='); part++)
            g_string_append_printf(value, ",%s", part[1]);
        g_hash_table_insert(tests->set, key, g_string_free(value, false));
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

/* A number of --jobs or --repeat: at least 1. */
static bool take_count(const char *flag, const char *text, unsigned *count)
{
    guint64 value;
    if (!text)
        return true;
    if (!g_ascii_string_to_unsigned(text, 10, 1, 1000000, &value, NULL)) {
        cli_usage("test", "--%s %s: a number from 1 on is wanted", flag, text);
        return false;
    }
    *count = (unsigned)value;
    return true;
}

/* One by chance, when none is given. */
static bool take_seed(const char *text, uint32_t *seed)
{
    guint64 value = g_random_int();
    if (text && !g_ascii_string_to_unsigned(text, 10, 0, UINT32_MAX, &value, NULL)) {
        cli_usage("test", "--seed %s: a number from 0 to %u is wanted", text, UINT32_MAX);
        return false;
    }
    *seed = (uint32_t)value;
    return true;
}

static int status_of(const struct tests *tests)
{
    if (tests->broken)
        return tests->check ? HV_USAGE : STATUS_NOT_RUN;
    if (tests->failed)
        return HV_FAILED;
    return tests->check || tests->done ? HV_OK : STATUS_SKIPPED;
}

static bool write_results(struct tests *tests, const char *junit, const char *html, GError **error)
{
    return (!junit || junit_write(&tests->junit, junit, error)) &&
           (!html || html_write(&tests->html, html, error));
}

/* Does what is planned; the status. */
static int run_plans(struct tests *tests, const char *junit, const char *html)
{
    GError *error = NULL;
    puts("TAP version 14");
    junit_init(&tests->junit);
    html_init(&tests->html);
    bool done = jobs_run(&tests->jobs, &error);
    if (tests->jobs.repeat != 1)
        printf("# %u runs, %u failed\n", tests->jobs.runs, tests->jobs.failed);
    if (done)
        printf("1..%u\n", tests->number);
    else
        printf("Bail out! %s\n", error->message);
    bool written = write_results(tests, junit, html, done ? &error : NULL);
    junit_finish(&tests->junit);
    html_finish(&tests->html);
    return !done || !written ? cli_fail(error) : status_of(tests);
}

static void read_scripts(struct tests *tests, char **files)
{
    for (; *files; files++) {
        struct source *source = source_read(*files);
        g_autoptr(GHashTable) values = copy_of(tests->set);
        plan_matrix(tests, source, 0, values, "");
        g_ptr_array_add(tests->sources, source);
    }
}

/* Of hv test --kernel: is the option one of jobs? `value`: it has one, the next word. */
static bool is_for_jobs(const char *word, bool *value)
{
    static const char *const names[] = { "--repeat", "--jobs", "--output", "--junit", "--html" };
    *value = !strcmp(word, "-j");
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        size_t length = strlen(names[i]);
        if (!strncmp(word, names[i], length) && (!word[length] || word[length] == '=')) {
            *value = !word[length];
            return true;
        }
    }
    return !strcmp(word, "--until-fail") || g_str_has_prefix(word, "-j");
}

/* hv test --kernel with options of jobs: `own` are those, `words` the rest. */
static int run_command(char **own, int own_count, char **words, int words_count)
{
    enum { STATUS_UNTESTED = 125, STATUS_BISECT_STOPS = 128 };
    const char *junit = NULL, *html = NULL, *parallel = NULL, *repeat = NULL;
    struct tests tests = {
        .jobs = { .output = "hv-test", .parallel = 1, .repeat = 1, .finished = tell_result }
    };
    const struct flag flags[] = {
        { "html", NULL, &html },
        { "jobs", NULL, &parallel, NULL, 'j' },
        { "junit", NULL, &junit },
        { "output", NULL, &tests.jobs.output },
        { "repeat", NULL, &repeat },
        { "until-fail", &tests.jobs.until_fail, NULL },
        { .name = NULL },
    };
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) plans = g_ptr_array_new_with_free_func(plan_free);
    guint64 memory = 0;
    bool bisect = short_bisects(words);
    int wrong = bisect ? STATUS_BISECT_STOPS : HV_USAGE;
    if (cli_flags("test", own_count, own, flags) < 0)
        return wrong;
    if (tests.jobs.until_fail && !repeat)
        tests.jobs.repeat = 0;
    if (!take_count("jobs", parallel, &tests.jobs.parallel) ||
        !take_count("repeat", repeat, &tests.jobs.repeat))
        return wrong;
    if (!short_check(words_count, words, &memory, &error)) {
        cli_usage("test", "%s", error->message);
        return wrong;
    }
    tests.jobs.plans = plans;
    tests.jobs.opaque = &tests;
    plan_add(plans, plan_command(words, memory));
    int status = run_plans(&tests, junit, html);
    return bisect && status == STATUS_SKIPPED ? STATUS_UNTESTED : status;
}

static int test_kernel(int argc, char **argv)
{
    g_autoptr(GPtrArray) own = g_ptr_array_new();
    g_autoptr(GPtrArray) words = g_ptr_array_new();
    bool jobs = false, value = false;
    int i = 0;
    for (; i < argc && strcmp(argv[i], "--"); i++) {
        bool mine = is_for_jobs(argv[i], &value);
        jobs |= mine && !g_str_has_prefix(argv[i], "--output");
        g_ptr_array_add(mine ? own : words, argv[i]);
        if (mine && value && i + 1 < argc && strcmp(argv[i + 1], "--"))
            g_ptr_array_add(own, argv[++i]);
    }
    for (; i < argc; i++)
        g_ptr_array_add(words, argv[i]);
    g_ptr_array_add(own, NULL);
    g_ptr_array_add(words, NULL);
    if (!jobs)
        return short_test(argc, argv);
    return run_command((char **)own->pdata, (int)own->len - 1, (char **)words->pdata,
                       (int)words->len - 1);
}

int verb_test(int argc, char **argv)
{
    const char *junit = NULL, *html = NULL, *parallel = NULL, *repeat = NULL;
    const char *seed = NULL, *resume = NULL;
    struct tests tests = {
        .jobs = { .output = "hv-test", .parallel = 1, .repeat = 1, .finished = tell_result }
    };
    if (short_wanted(argc, argv))
        return test_kernel(argc, argv);
    if (argc && !strcmp(argv[0], "--record"))
        return record_test(argc - 1, argv + 1);
    g_autoptr(GPtrArray) sets = g_ptr_array_new();
    const struct flag flags[] = {
        { "check", &tests.check, NULL },
        { "html", NULL, &html },
        { "jobs", NULL, &parallel, NULL, 'j' },
        { "junit", NULL, &junit },
        { "output", NULL, &tests.jobs.output },
        { "repeat", NULL, &repeat },
        { "resume", NULL, &resume },
        { "seed", NULL, &seed },
        { "set", NULL, NULL, sets },
        { "until-fail", &tests.jobs.until_fail, NULL },
        { .name = NULL },
    };
    int left = cli_flags("test", argc, argv, flags);
    if (left < 0)
        return left == -2 ? HV_OK : HV_USAGE;
    if (resume)
        return left ? cli_usage("test", "--resume knows its script") : resume_test(resume);
    if (!left)
        return cli_usage("test", "a script is wanted");
    if (tests.jobs.until_fail && !repeat)
        tests.jobs.repeat = 0;
    if (!take_count("jobs", parallel, &tests.jobs.parallel) ||
        !take_count("repeat", repeat, &tests.jobs.repeat))
        return HV_USAGE;
    if (!take_seed(seed, &tests.jobs.seed))
        return HV_USAGE;
    g_autoptr(GHashTable) values = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_autoptr(GPtrArray) sources = g_ptr_array_new_with_free_func((GDestroyNotify)source_free);
    g_autoptr(GPtrArray) plans = g_ptr_array_new_with_free_func(plan_free);
    tests.set = values;
    tests.sources = sources;
    tests.jobs.plans = plans;
    tests.jobs.opaque = &tests;
    tests.jobs.pictures = html != NULL;
    for (guint i = 0; i < sets->len; i++)
        if (!take_set(&tests, g_ptr_array_index(sets, i)))
            return cli_usage("test", "--set %s: KEY=VALUE,... is wanted",
                             (const char *)g_ptr_array_index(sets, i));
    if (g_hash_table_contains(values, SCRIPT_FOLDER))
        return cli_usage("test", "--set " SCRIPT_FOLDER
                                 ": it is a folder of the run's own, and hv test makes it");
    read_scripts(&tests, argv);
    return tests.check || !plans->len ? status_of(&tests) : run_plans(&tests, junit, html);
}
