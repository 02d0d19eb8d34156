/* The commands of a test script; see script.h. */
#include "test/script.h"

#include "base/error.h"
#include "machine/config.h"
#include "test/crash.h"

#include <string.h>

void vm_setting_free(void *data)
{
    struct vm_setting *setting = data;
    g_free(setting->value);
    g_free(setting->sha256);
    g_free(setting);
}

static void vm_free(void *data)
{
    struct vm *vm = data;
    g_free(vm->name);
    g_ptr_array_free(vm->settings, true);
    g_free(vm);
}

static void command_free(void *data)
{
    struct command *command = data;
    g_free(command->text);
    g_free(command->rest);
    g_free(command->machine);
    g_free(command->bug);
    g_ptr_array_free(command->words, true);
    if (command->arguments)
        g_array_free(command->arguments, true);
    if (command->block)
        g_ptr_array_free(command->block, true);
    g_free(command);
}

/* --- a line --------------------------------------------------------------------------------- */

struct parser {
    GHashTable *values;
    const char *folder;
    struct script *script;
    struct line **lines; /* with ${NAME} replaced */
    guint count, next;
    const char *file; /* the script's own name, as places have it */
    bool titled;      /* by a line of that */
};

static void problem_at(struct parser *p, const struct line *line, unsigned column,
                       const char *message)
{
    struct place place = line->place;
    place.column += column - 1;
    script_problem(p->script->problems, &place, "%s", message);
}

/* Of a line that is deeper than the lines that can be here. */
static void too_deep(struct parser *p, const struct line *line, unsigned indent)
{
    unsigned spaces = line->place.column - 1, most = spaces - 2 * (line->indent - indent);
    script_problem(p->script->problems, &line->place,
                   "it is indented by %u spaces, and %u are the most that can be here", spaces,
                   most);
}

/* Replaces ${NAME}. */
static char *replace_values(struct parser *p, const struct line *line)
{
    GString *text = g_string_new(NULL);
    const char *at = line->text, *open;
    while ((open = strstr(at, "${"))) {
        const char *close = strchr(open, '}');
        if (!close)
            break;
        g_autofree char *name = g_strndup(open + 2, (gsize)(close - open) - 2);
        const char *value =
            strcmp(name, SCRIPT_FOLDER) ? g_hash_table_lookup(p->values, name) : p->folder;
        g_string_append_len(text, at, open - at);
        if (!value) {
            g_autofree const char **known =
                (const char **)g_hash_table_get_keys_as_array(p->values, NULL);
            const char *near = hv_nearest(name, known);
            g_autofree char *message = g_strdup_printf(
                "${%s} has no value, from the matrix or --set%s%s%s", name,
                near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
            problem_at(p, line, (unsigned)(open - line->text) + 1, message);
        }
        g_string_append(text, value ? value : "");
        at = close + 1;
    }
    g_string_append(text, at);
    return g_string_free(text, false);
}

/* The verb that begins at words[from], where `place` allows; *length: how many words its name has.
 */
static const struct test_verb *find_verb(GPtrArray *words, unsigned from, unsigned *length)
{
    const struct token *first = g_ptr_array_index(words, from);
    const struct token *second = from + 1 < words->len ? g_ptr_array_index(words, from + 1) : NULL;
    const struct test_verb *found = NULL;
    g_autofree char *both = second ? g_strjoin(" ", first->text, second->text, NULL) : NULL;
    for (const struct test_verb *verb = test_verbs; verb->name; verb++) {
        bool two = strchr(verb->name, ' ');
        if (first->kind != TOKEN_BARE || strcmp(verb->name, two && both ? both : first->text))
            continue;
        found = verb;
        *length = two ? 2 : 1;
        if (two) /* "see image" is no "see" */
            break;
    }
    return found;
}

static const char *near_verb(const char *word, unsigned places)
{
    g_autoptr(GPtrArray) known = g_ptr_array_new();
    for (const struct test_verb *verb = test_verbs; verb->name; verb++)
        if (verb->places & places)
            g_ptr_array_add(known, (void *)(uintptr_t)verb->name);
    if (places & IN_VM)
        for (const struct setting *s = config_settings; s->name; s++)
            g_ptr_array_add(known, (void *)(uintptr_t)s->name);
    g_ptr_array_add(known, NULL);
    return hv_nearest(word, (const char *const *)known->pdata);
}

static void unknown(struct parser *p, const struct line *line, const struct token *word,
                    unsigned places)
{
    const char *near = near_verb(word->text, places);
    g_autofree char *message =
        g_strdup_printf("\"%s\" is no %s%s%s%s", word->text, places & IN_VM ? "setting" : "verb",
                        near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    problem_at(p, line, word->column, message);
}

/* What may stand before a verb: `on NAME`, `after DURATION`, `soft`. Returns the verb's word. */
static unsigned take_prefixes(struct parser *p, const struct line *line, struct command *command)
{
    unsigned at = 0;
    for (;;) {
        struct token *word =
            at + 1 < command->words->len ? g_ptr_array_index(command->words, at) : NULL;
        struct token *value = word ? g_ptr_array_index(command->words, at + 1) : NULL;
        if (!word || word->kind != TOKEN_BARE)
            return at;
        if (!strcmp(word->text, "on") && value->kind == TOKEN_BARE) {
            g_free(command->machine);
            command->machine = g_strdup(value->text);
            at += 2;
        } else if (!strcmp(word->text, "after")) {
            if (!token_duration(value))
                problem_at(p, line, value->column, "a time is wanted, such as 500ms, 10s or 2m");
            command->after = value->number;
            at += 2;
        } else if (!strcmp(word->text, "soft")) {
            command->soft = true;
            at++;
        } else {
            return at;
        }
    }
}

static bool takes_prefixes(const struct test_verb *verb)
{
    return verb->id == VERB_STEP || (verb->places & IN_BODY && verb->id != VERB_INCLUDE);
}

/* bug=ID at the end of a command that is soft, or may fail softly. */
static void take_bug(struct command *command)
{
    bool soft = false;
    const struct token *last = NULL;
    for (guint i = 0; i < command->words->len; i++) {
        last = g_ptr_array_index(command->words, i);
        soft |= last->kind == TOKEN_BARE && !strcmp(last->text, "soft");
    }
    if (!soft || !g_str_has_prefix(last->text, "bug="))
        return;
    command->bug = g_strdup(last->text + strlen("bug="));
    g_ptr_array_set_size(command->words, (int)command->words->len - 1);
}

/* The line behind the verb, as it stands there, for a shell. */
static void take_rest(struct command *command, const struct line *line, unsigned from)
{
    const struct token *first = g_ptr_array_index(command->words, from);
    command->rest = g_strdup(line->text + first->at);
    size_t length = strlen(g_strchomp(command->rest));
    if (length > 1 && command->rest[length - 1] == '&' && command->rest[length - 2] != '&') {
        command->rest[length - 1] = '\0';
        g_strchomp(command->rest);
        command->background = true;
    }
}

/* What a shell reads need not be words of ours: quotes that we do not know. */
static GPtrArray *split_line(struct parser *p, const struct line *line)
{
    unsigned column;
    g_autoptr(GError) error = NULL;
    static const char *const raw[] = { "guest ", "host " };
    GPtrArray *words = tokens_split(line->text, &column, &error);
    for (size_t i = 0; !words && i < G_N_ELEMENTS(raw); i++) {
        const char *verb = strstr(line->text, raw[i]);
        if (!verb || column <= (unsigned)(verb - line->text) + strlen(raw[i]))
            continue;
        g_autofree char *front = g_strndup(line->text, (gsize)(verb - line->text) + strlen(raw[i]));
        g_autofree char *plain = g_strconcat(front, "COMMAND", NULL);
        words = tokens_split(plain, &column, NULL);
    }
    if (!words)
        problem_at(p, line, column, error->message);
    return words;
}

static struct command *read_command(struct parser *p, const struct line *line, unsigned places)
{
    unsigned length = 0, wrong = 0;
    g_autoptr(GError) error = NULL;
    GPtrArray *words = split_line(p, line);
    if (!words)
        return NULL;
    struct command *command = g_new0(struct command, 1);
    command->place = line->place;
    command->text = g_strdup(line->text);
    command->words = words;
    unsigned from = take_prefixes(p, line, command);
    take_bug(command);
    const struct token *first = g_ptr_array_index(words, MIN(from, words->len - 1));
    const struct test_verb *verb = from < words->len ? find_verb(words, from, &length) : NULL;
    bool alone = verb && from && !takes_prefixes(verb);
    if (!verb || alone || !(verb->places & places)) {
        if (alone)
            problem_at(p, line, first->column,
                       "that verb stands alone: a step may have a machine, on NAME step");
        else if (verb)
            problem_at(p, line, first->column, "that verb cannot stand here");
        else
            unknown(p, line, first, places);
        command_free(command);
        return NULL;
    }
    command->verb = verb;
    command->arguments = grammar_match(verb, words, from + length, &wrong, &error);
    if (!command->arguments) {
        const struct token *at = wrong < words->len ? g_ptr_array_index(words, wrong) : NULL;
        problem_at(p, line, at ? at->column : (unsigned)g_utf8_strlen(line->text, -1) + 1,
                   error->message);
        command_free(command);
        return NULL;
    }
    if (!strcmp(verb->arguments, "REST"))
        take_rest(command, line, from + length);
    return command;
}

/* --- blocks --------------------------------------------------------------------------------- */

static const struct line *peek(const struct parser *p)
{
    return p->next < p->count ? p->lines[p->next] : NULL;
}

static void skip_block(struct parser *p, unsigned indent)
{
    while (peek(p) && peek(p)->indent >= indent)
        p->next++;
}

/* An option of hv run: KEY [VALUE], of which the value is the rest of the line. */
static bool read_setting(struct parser *p, struct vm *vm, const struct line *line, const char *key,
                         const char *rest)
{
    const struct setting *s = config_settings;
    bool image = !strcmp(key, "image");
    while (s->name && strcmp(s->name, key))
        s++;
    if (!image && !s->name)
        return false;
    bool wants_value = image || s->kind != SETTING_BOOL;
    if (wants_value != (*rest != '\0'))
        problem_at(p, line, 1, wants_value ? "it wants a value" : "it takes no value");
    struct vm_setting *setting = g_new0(struct vm_setting, 1);
    setting->key = g_intern_string(key);
    setting->value = *rest ? g_strdup(rest) : NULL;
    setting->place = line->place;
    g_ptr_array_add(vm->settings, setting);
    return true;
}

static void set_sha256(struct parser *p, struct vm *vm, const struct line *line, const char *sum)
{
    enum { DIGITS = 64 };
    struct vm_setting *last =
        vm->settings->len ? g_ptr_array_index(vm->settings, vm->settings->len - 1) : NULL;
    if (strlen(sum) != DIGITS || strspn(sum, "0123456789abcdef") != DIGITS)
        problem_at(p, line, 1, "sha256: 64 digits of a sum are wanted, as sha256sum prints them");
    else if (!last || !last->value)
        problem_at(p, line, 1, "sha256: the line before names no file");
    else
        last->sha256 = g_strdup(sum);
}

static void read_vm_line(struct parser *p, struct vm *vm, const struct line *line)
{
    size_t length = strcspn(line->text, " \t");
    g_autofree char *key = g_strndup(line->text, length);
    /* A comment begins with a # behind a space. */
    g_autofree char *rest = g_strdup(line->text + length);
    char *comment = strstr(rest, " #");
    if (comment)
        *comment = '\0';
    g_strstrip(rest);
    if (!strcmp(key, "keep"))
        vm->keep = true;
    else if (!strcmp(key, "sha256"))
        set_sha256(p, vm, line, rest);
    else if (!read_setting(p, vm, line, key, rest)) {
        struct token word = { .text = key, .column = 1 };
        unknown(p, line, &word, IN_VM);
    }
}

/* NULL: there is none. */
static struct vm *vm_named(const struct script *script, const char *name)
{
    for (guint i = 0; i < script->vms->len; i++) {
        struct vm *vm = g_ptr_array_index(script->vms, i);
        if (!strcmp(vm->name, name))
            return vm;
    }
    return NULL;
}

static void read_vm(struct parser *p, const struct command *command)
{
    const struct token *name = command_value(command, "WORD", 0);
    struct vm *vm = vm_named(p->script, name ? name->text : "vm");
    /* The outer file may add options to a machine of one that it includes. */
    if (vm && (vm->place.file == p->file) == (command->place.file == p->file))
        script_problem(p->script->problems, &command->place,
                       "there is a machine \"%s\" already: vm NAME", vm->name);
    if (!vm) {
        vm = g_new0(struct vm, 1);
        vm->name = g_strdup(name ? name->text : "vm");
        vm->settings = g_ptr_array_new_with_free_func(vm_setting_free);
        vm->place = command->place;
        g_ptr_array_add(p->script->vms, vm);
    }
    for (; peek(p) && peek(p)->indent; p->next++) {
        if (peek(p)->indent == 1)
            read_vm_line(p, vm, peek(p));
        else
            too_deep(p, peek(p), 1);
    }
}

/* The commands at this level of indentation. */
static GPtrArray *read_block(struct parser *p, unsigned indent);

static void read_own_block(struct parser *p, struct command *command, unsigned indent)
{
    bool deeper = peek(p) && peek(p)->indent > indent;
    switch (command->verb->block) {
    case BLOCK_NONE:
        break;
    case BLOCK_MAY:
        if (deeper)
            command->block = read_block(p, indent + 1);
        break;
    case BLOCK_MUST:
        if (!deeper)
            script_problem(p->script->problems, &command->place,
                           "what belongs to it is missing: lines indented by two spaces more");
        command->block = read_block(p, indent + 1);
        break;
    case BLOCK_VM:
        read_vm(p, command);
        break;
    case BLOCK_MATRIX:
        skip_block(p, indent + 1); /* source.c has read it */
        break;
    }
}

static void check_watch(struct parser *p, const struct line *line, const struct command *command)
{
    const struct token *name;
    unsigned set;
    for (unsigned i = 0; (name = command_value(command, "WORD", i)); i++)
        if (!crash_named(name->text, &set)) {
            g_autofree char *message =
                g_strdup_printf("\"%s\": linux, warn, boot or none is wanted", name->text);
            problem_at(p, line, name->column, message);
        }
}

static GPtrArray *read_block(struct parser *p, unsigned indent)
{
    GPtrArray *block = g_ptr_array_new_with_free_func(command_free);
    const struct line *line;
    while ((line = peek(p)) && line->indent >= indent) {
        p->next++;
        if (line->indent > indent) {
            too_deep(p, line, indent);
            skip_block(p, indent + 1);
            continue;
        }
        struct command *command =
            read_command(p, line, indent ? IN_BODY : (unsigned)IN_FILE | IN_BODY);
        if (!command) {
            skip_block(p, indent + 1);
            continue;
        }
        read_own_block(p, command, indent);
        const struct token *title = command_value(command, "STRING", 0);
        switch (command->verb->id) {
        case VERB_TEST:
            /* An included file may be a test of its own: ours is the outer one's name. */
            if (!p->titled || line->place.file == p->file) {
                g_free(p->script->title);
                p->script->title = g_strdup(title->text);
                p->titled |= line->place.file == p->file;
            }
            command_free(command);
            break;
        case VERB_VM:
        case VERB_MATRIX:
            command_free(command);
            break;
        case VERB_WATCH:
            check_watch(p, line, command);
            g_ptr_array_add(block, command);
            break;
        default:
            g_ptr_array_add(block, command);
        }
    }
    return block;
}

/* --- the whole ------------------------------------------------------------------------------ */

/* Each command's machine is there; where none is said, it is that of the line above the block. */
static void check_machines(struct script *script, GPtrArray *block, const char *machine)
{
    for (guint i = 0; i < block->len; i++) {
        struct command *command = g_ptr_array_index(block, i);
        if (!command->machine)
            command->machine = g_strdup(machine);
        if (command->machine && !vm_named(script, command->machine))
            script_problem(script->problems, &command->place, "there is no machine \"%s\"",
                           command->machine);
        if (command->block)
            check_machines(script, command->block, command->machine);
    }
}

struct script *script_parse(const struct source *source, GHashTable *values, const char *folder)
{
    struct script *script = g_new0(struct script, 1);
    script->title = g_path_get_basename(source->path);
    script->vms = g_ptr_array_new_with_free_func(vm_free);
    script->problems = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 0; i < source->problems->len; i++)
        g_ptr_array_add(script->problems, g_strdup(g_ptr_array_index(source->problems, i)));

    g_autofree struct line *lines = g_new0(struct line, source->lines->len);
    g_autofree struct line **list = g_new0(struct line *, source->lines->len);
    struct parser p = { .values = values,
                        .folder = folder,
                        .script = script,
                        .lines = list,
                        .count = source->lines->len,
                        .file = source->files->len ? g_ptr_array_index(source->files, 0) : NULL };
    for (guint i = 0; i < p.count; i++) {
        lines[i] = *(struct line *)g_ptr_array_index(source->lines, i);
        lines[i].text = replace_values(&p, &lines[i]);
        list[i] = &lines[i];
    }
    script->commands = read_block(&p, 0);
    check_machines(script, script->commands, NULL);
    script_check_marks(script);
    if (!script->vms->len && !script->problems->len) {
        const struct place start = { source->path, 1, 1 };
        script_problem(script->problems, &start, "there is no machine: a line \"vm\" is missing");
    }
    for (guint i = 0; i < p.count; i++)
        g_free(lines[i].text);
    return script;
}

void script_free(struct script *script)
{
    if (!script)
        return;
    g_free(script->title);
    g_ptr_array_free(script->vms, true);
    g_ptr_array_free(script->commands, true);
    g_ptr_array_free(script->problems, true);
    g_free(script);
}

const struct token *command_value(const struct command *command, const char *name, unsigned n)
{
    for (guint i = 0; command->arguments && i < command->arguments->len; i++) {
        const struct argument *argument = &g_array_index(command->arguments, struct argument, i);
        if (!strcmp(argument->name, name) && n-- == 0)
            return argument->word;
    }
    return NULL;
}

bool command_has(const struct command *command, const char *name)
{
    return command_value(command, name, 0);
}
