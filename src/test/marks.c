/* The marks of a test script, and what goes back to them; see script.h. */
#include "test/script.h"

#include "base/error.h"

#include <string.h>

/* Called for each command in the order of the lines, until one is false. */
typedef bool visit_function(const struct command *command, bool repeated, void *data);

static bool visit(const GPtrArray *block, bool repeated, visit_function *function, void *data)
{
    for (guint i = 0; i < block->len; i++) {
        const struct command *command = g_ptr_array_index(block, i);
        if (!function(command, repeated, data) ||
            (command->block &&
             !visit(command->block, repeated || command->verb->id == VERB_REPEAT, function, data)))
            return false;
    }
    return true;
}

const struct token *command_mark(const struct command *command)
{
    const struct token *word = command_value(command, "WORD", 0);
    return word ? word : command_value(command, "FILE", 0);
}

static bool goes_back(const struct command *command)
{
    return command->verb->id == VERB_RESTORE || command->verb->id == VERB_FROM;
}

struct search {
    const char *name;
    const struct command *mark;
    const struct command *before; /* what went back last */
};

static bool search_name(const struct command *command, bool repeated, void *data)
{
    struct search *search = data;
    (void)repeated;
    if (command->verb->id == VERB_MARK && !strcmp(command_mark(command)->text, search->name))
        search->mark = command;
    return !search->mark;
}

const struct command *script_mark(const struct script *script, const char *name)
{
    struct search search = { .name = name };
    visit(script->commands, false, search_name, &search);
    return search.mark;
}

static bool search_before(const struct command *command, bool repeated, void *data)
{
    struct search *search = data;
    (void)repeated;
    if (goes_back(command))
        search->before = command;
    return command != search->mark;
}

const struct command *script_restored(const struct script *script, const struct command *mark)
{
    struct search search = { .mark = mark };
    visit(script->commands, false, search_before, &search);
    return search.before;
}

/* --- what is wrong ---------------------------------------------------------------------------- */

struct check {
    struct script *script;
    GHashTable *known;   /* char *: the marks so far */
    const char *kept_by; /* a machine that keeps what is written; NULL: none */
};

static void check_use(struct check *check, const struct command *command, const struct place *place,
                      const char *name)
{
    GPtrArray *problems = check->script->problems;
    if (!g_hash_table_contains(check->known, name)) {
        g_autofree const char **known =
            (const char **)g_hash_table_get_keys_as_array(check->known, NULL);
        const char *near = hv_nearest(name, known);
        script_problem(problems, place, "there is no mark \"%s\" above%s%s%s", name,
                       near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }
    if (command->machine)
        script_problem(problems, &command->place, "all machines go back: no \"on %s\"",
                       command->machine);
    if (check->kept_by && command->verb->id == VERB_RESTORE)
        script_problem(problems, &command->place,
                       "the machine \"%s\" has keep: what it wrote cannot be taken back",
                       check->kept_by);
}

static bool check_command(const struct command *command, bool repeated, void *data)
{
    struct check *check = data;
    if (command->verb->id != VERB_MARK && !goes_back(command))
        return true;
    const struct token *word = command_mark(command);
    struct place place = command->place;
    place.column += word->column - 1;
    if (goes_back(command))
        check_use(check, command, &place, word->text);
    else if (repeated)
        script_problem(check->script->problems, &command->place,
                       "a mark is one moment: it cannot stand in a repeat");
    else if (!g_hash_table_add(check->known, word->text))
        script_problem(check->script->problems, &place, "there is a mark \"%s\" already",
                       word->text);
    return true;
}

void script_check_marks(struct script *script)
{
    g_autoptr(GHashTable) known = g_hash_table_new(g_str_hash, g_str_equal);
    struct check check = { .script = script, .known = known };
    for (guint i = 0; i < script->vms->len; i++) {
        const struct vm *vm = g_ptr_array_index(script->vms, i);
        if (vm->keep)
            check.kept_by = vm->name;
    }
    visit(script->commands, false, check_command, &check);
}
