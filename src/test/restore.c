/* Going back to a mark; see run.h. A machine cannot be saved yet, so what led to the mark is done
 * again. */
#include "test/acts.h"

/* The shortest way: on from the mark that was gone back to last before. The depth is bounded by the
 * script's length: each mark leads to one above it. */
static bool play(struct run *run, const struct command *mark, GError **error)
{
    const struct command *after = script_restored(run->script, mark);
    const struct command *first =
        after ? script_mark(run->script, command_mark(after)->text) : NULL;
    return (!first || play(run, first, error)) &&
           (run->skip || run_between(run, after, mark, error));
}

bool run_restore(struct run *run, const struct command *mark, GError **error)
{
    for (guint i = 0; i < run->targets->len; i++) {
        struct target *t = g_ptr_array_index(run->targets, i);
        target_kill(t);
        g_clear_pointer(&t->crash, g_free);
    }
    run_end_helpers(run); /* those from before the mark are started again */
    run->silent = true;
    bool ok = play(run, mark, error);
    run->silent = false;
    return ok;
}

bool act_restore(struct run *run, struct target *t, const struct command *command, GError **error)
{
    const struct patience whole = run->whole;
    unsigned watch = run->watch;
    const char *name = command_mark(command)->text;
    gint64 start = g_get_monotonic_time();
    (void)t;
    bool ok = run_restore(run, script_mark(run->script, name), error);
    if (command->verb->id == VERB_RESTORE) { /* the limit goes on; those of `from` begin */
        run->whole = whole;
        run->watch = watch;
    }
    run_note(run, "played again up to the mark %s: %.1f s", name,
             (double)(g_get_monotonic_time() - start) / G_USEC_PER_SEC);
    return ok;
}
