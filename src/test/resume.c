/* Opening a run at a step; see resume.h. A machine cannot be saved yet, so what leads to the step
 * is done again. */
#include "test/resume.h"

#include "base/error.h"
#include "cli/cli.h"
#include "test/run.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char file_name[] = "run.json";

bool resume_save(const struct plan *plan, const char *folder, uint32_t seed, GError **error)
{
    g_autofree char *file = g_build_filename(folder, file_name, NULL);
    g_autofree char *script = g_canonicalize_filename(plan->source->path, NULL);
    json_t *values = json_object();
    GHashTableIter all;
    gpointer key, value;
    g_hash_table_iter_init(&all, plan->values);
    while (g_hash_table_iter_next(&all, &key, &value))
        json_object_set_new(values, key, json_string(value));
    json_t *json =
        json_pack("{s:s, s:o, s:I}", "script", script, "values", values, "seed", (json_int_t)seed);
    char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    bool ok = text && g_mkdir_with_parents(folder, 0777) == 0
                  ? g_file_set_contents(file, text, -1, error)
                  : hv_fail(error, HV_FAILED, "%s: cannot be written", file);
    free(text);
    json_decref(json);
    return ok;
}

char *resume_line(const char *folder, unsigned step)
{
    g_autofree char *where = g_strdup_printf("%s@%u", folder, step);
    g_autofree char *quoted = g_shell_quote(where);
    return g_strdup_printf("open it: hv test --resume %s", quoted);
}

/* What resume_save wrote. */
struct resume {
    char *folder, *script;
    GHashTable *values; /* char * to char * */
    uint32_t seed;
    unsigned step;
};

static bool load(struct resume *resume, const char *where, GError **error)
{
    const char *at = strrchr(where, '@');
    guint64 step;
    if (!at || !g_ascii_string_to_unsigned(at + 1, 10, 1, 100000, &step, NULL))
        return hv_fail(error, HV_USAGE, "--resume %s: RUN@STEP is wanted, as a failure tells it",
                       where);
    g_autofree char *folder = g_strndup(where, (gsize)(at - where)), *text = NULL;
    g_autofree char *file = g_build_filename(folder, file_name, NULL);
    if (!g_file_get_contents(file, &text, NULL, error))
        return false;
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *values, *value;
    const char *script, *key;
    json_int_t seed;
    bool ok = !json_unpack(json, "{s:s, s:o, s:I}", "script", &script, "values", &values, "seed",
                           &seed) &&
              json_is_object(values);
    if (ok) {
        resume->folder = g_steal_pointer(&folder);
        resume->script = g_strdup(script);
        resume->seed = (uint32_t)seed;
        resume->step = (unsigned)step;
        json_object_foreach(values, key, value) if (json_is_string(value))
            g_hash_table_insert(resume->values, g_strdup(key), g_strdup(json_string_value(value)));
    }
    json_decref(json);
    return ok || hv_fail(error, HV_FAILED, "%s: is not what hv test writes of a run", file);
}

static void tell(struct run *run, const struct result *result)
{
    (void)run;
    printf("step %u, %s: %s\n", run->results->len, result->title,
           result->message ? result->message : "done");
    fflush(stdout);
}

/* Windows for all machines that run; then the user has them. */
static void leave_to_user(struct run *run)
{
    g_autofree char *hv = g_file_read_link("/proc/self/exe", NULL);
    for (guint i = 0; hv && i < run->targets->len; i++) {
        const struct target *t = g_ptr_array_index(run->targets, i);
        char *argv[] = { hv, (char *)"open", t->name, NULL };
        if (!t->pid)
            continue;
        printf("%s is yours: hv open, screen, send ... %s\n", t->vm->name, t->name);
        g_spawn_async(NULL, argv, NULL, 0, target_set_up_child, NULL, NULL, NULL);
    }
    printf("step %u is next: %s\n", run->halt, run->now->title);
    fflush(stdout);
    for (bool any = true; any && !run->stopped;) {
        any = false;
        run_pause(run, G_USEC_PER_SEC);
        for (guint i = 0; i < run->targets->len; i++)
            any |= ((struct target *)g_ptr_array_index(run->targets, i))->pid != 0;
    }
}

static int run_again(const struct resume *resume)
{
    struct source *source = source_read(resume->script);
    struct script *script = script_parse(source, resume->values, "");
    int status = HV_FAILED;
    for (guint i = 0; i < script->problems->len; i++)
        fprintf(stderr, "%s\n", (const char *)g_ptr_array_index(script->problems, i));
    if (!script->problems->len) {
        struct run run = { .finished = tell,
                           .seed = resume->seed,
                           .halt = resume->step,
                           .halted = leave_to_user,
                           .stop = run_signals() };
        g_autofree char *output = g_build_filename(resume->folder, "resumed", NULL);
        status = run_source(&run, source, resume->values, output) ? HV_OK : HV_FAILED;
        run_finish(&run);
    }
    script_free(script);
    source_free(source);
    return status;
}

int resume_test(const char *where)
{
    GError *error = NULL;
    g_autoptr(GHashTable) values = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    struct resume resume = { .values = values };
    int status = load(&resume, where, &error) ? run_again(&resume) : cli_fail(error);
    g_free(resume.folder);
    g_free(resume.script);
    return status;
}
