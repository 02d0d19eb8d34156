/* How the arguments of a verb are read by what its line in the table says; see verbs.h.
 *
 * `arguments` becomes a tree once for each use; the words are then matched from left to right, and
 * one word decides which way to go. What could have stood where the matching ends is what an error
 * names. */
#include "base/error.h"
#include "test/verbs.h"

#include <string.h>

/* The kinds of values. */
static bool is_text(struct token *word)
{
    return word->kind == TOKEN_STRING || word->kind == TOKEN_REGEX;
}

static bool is_string(struct token *word)
{
    return word->kind == TOKEN_STRING;
}

static bool is_piece(struct token *word)
{
    return word->kind == TOKEN_STRING || word->kind == TOKEN_SECRET;
}

static bool is_name(struct token *word)
{
    return word->kind == TOKEN_BARE;
}

static bool is_file(struct token *word)
{
    return word->kind == TOKEN_BARE || word->kind == TOKEN_STRING;
}

static bool is_anything(struct token *word)
{
    (void)word;
    return true;
}

static const struct {
    const char *name, *means;
    bool (*is)(struct token *word);
} types[] = {
    { "TEXT", "\"text\" or /pattern/", is_text },
    { "STRING", "a string in quotes", is_string },
    { "PIECE", "a string in quotes or secret:NAME", is_piece },
    { "WORD", "a word", is_name },
    { "FILE", "a file's name", is_file },
    { "DURATION", "a time, such as 500ms, 10s or 2m", token_duration },
    { "COUNT", "a number", token_count },
    { "PORT", "a port from 1 to 65535", token_port },
    { "PERCENT", "a percentage, such as 5%", token_percent },
    { "POINT", "a point, such as 400,300", token_point },
    { "REST", "a command", is_anything },
};

enum node_kind { NODE_WORD, NODE_VALUE, NODE_SEQUENCE, NODE_CHOICE };

struct node {
    enum node_kind kind;
    bool optional, repeated;
    const char *text; /* of a word or value, its length beside it: a part of `arguments` */
    size_t length;
    GPtrArray *children; /* of a sequence or choice */
};

static void node_free(void *data)
{
    struct node *node = data;
    if (node->children)
        g_ptr_array_free(node->children, true);
    g_free(node);
}

static struct node *node_new(enum node_kind kind)
{
    struct node *node = g_new0(struct node, 1);
    node->kind = kind;
    if (kind == NODE_SEQUENCE || kind == NODE_CHOICE)
        node->children = g_ptr_array_new_with_free_func(node_free);
    return node;
}

/* a | b | c, up to a closing bracket or the end. */
static struct node *read_choice(const char **at)
{
    struct node *choice = node_new(NODE_CHOICE), *sequence = node_new(NODE_SEQUENCE), *last = NULL;
    g_ptr_array_add(choice->children, sequence);
    for (; **at && **at != ']' && **at != ')'; *at += strspn(*at, " ")) {
        size_t length = strcspn(*at, " .[]()|");
        if (**at == '|') {
            sequence = node_new(NODE_SEQUENCE);
            g_ptr_array_add(choice->children, sequence);
            ++*at;
            continue;
        }
        if (g_str_has_prefix(*at, "...")) {
            last->repeated = true;
            *at += strlen("...");
            continue;
        }
        if (**at == '[' || **at == '(') {
            bool optional = *(*at)++ == '[';
            last = read_choice(at);
            last->optional = optional;
            length = 1; /* what closes it */
        } else {
            last = node_new(g_ascii_isupper(**at) ? NODE_VALUE : NODE_WORD);
            last->text = *at;
            last->length = length;
        }
        g_ptr_array_add(sequence->children, last);
        *at += length;
    }
    return choice;
}

static bool value_fits(const struct node *node, struct token *word)
{
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++)
        if (strlen(types[i].name) == node->length &&
            !strncmp(types[i].name, node->text, node->length))
            return types[i].is(word);
    return false;
}

static bool word_fits(const struct node *node, const struct token *word)
{
    return word->kind == TOKEN_BARE && strlen(word->text) == node->length &&
           !strncmp(word->text, node->text, node->length);
}

/* May the node begin with the word? Adds what it may begin with to `wanted`. */
static bool may_begin(const struct node *node, struct token *word, GPtrArray *wanted)
{
    bool fits = false;
    if (node->kind == NODE_WORD || node->kind == NODE_VALUE) {
        g_ptr_array_add(wanted, (void *)(uintptr_t)node);
        return word && (node->kind == NODE_WORD ? word_fits(node, word) : value_fits(node, word));
    }
    for (guint i = 0; i < node->children->len; i++) {
        const struct node *child = g_ptr_array_index(node->children, i);
        fits |= may_begin(child, word, wanted);
        if (node->kind == NODE_SEQUENCE && !child->optional)
            break;
    }
    return fits;
}

struct match {
    GPtrArray *words;
    unsigned next;
    GArray *found;     /* struct argument */
    GPtrArray *wanted; /* the nodes that could have stood at `next` */
};

static struct token *next_word(const struct match *m)
{
    return m->next < m->words->len ? g_ptr_array_index(m->words, m->next) : NULL;
}

static void add(struct match *m, const struct node *named, struct token *word)
{
    char *name = g_strndup(named->text, named->length);
    struct argument argument = { g_intern_string(name), word };
    g_free(name);
    g_array_append_val(m->found, argument);
}

static bool match_node(struct match *m, const struct node *node, const struct node *name);

/* A word names the value behind it, and itself when there is none. */
static bool match_sequence(struct match *m, const struct node *sequence)
{
    const struct node *name = NULL;
    for (guint i = 0; i < sequence->children->len; i++) {
        const struct node *child = g_ptr_array_index(sequence->children, i);
        const struct node *next =
            i + 1 < sequence->children->len ? g_ptr_array_index(sequence->children, i + 1) : NULL;
        bool names = child->kind == NODE_WORD && next && next->kind == NODE_VALUE;
        if (!match_node(m, child, names ? NULL : name ? name : child))
            return false;
        name = names ? child : NULL;
    }
    return true;
}

/* `name`: under which the word is to be found; NULL: under none. */
static bool match_once(struct match *m, const struct node *node, const struct node *name)
{
    struct token *word = next_word(m);
    if (node->kind == NODE_VALUE || node->kind == NODE_WORD) {
        if (name)
            add(m, name, word);
        m->next++;
        return true;
    }
    for (guint i = 0; i < node->children->len; i++) {
        const struct node *child = g_ptr_array_index(node->children, i);
        g_autoptr(GPtrArray) unused = g_ptr_array_new();
        if (may_begin(child, word, unused))
            return match_sequence(m, child);
    }
    return false;
}

static bool match_node(struct match *m, const struct node *node, const struct node *name)
{
    for (unsigned times = 0;; times++) {
        if (!may_begin(node, next_word(m), m->wanted))
            return times || node->optional;
        g_ptr_array_set_size(m->wanted, 0);
        if (!match_once(m, node, name))
            return false;
        if (!node->repeated)
            return true;
    }
}

/* What was wanted, in words: "prompt, \"text\" or /pattern/". */
static char *wanted_list(const struct match *m)
{
    GString *list = g_string_new(NULL);
    for (guint i = 0; i < m->wanted->len; i++) {
        const struct node *node = g_ptr_array_index(m->wanted, i);
        g_autofree char *name = g_strndup(node->text, node->length);
        const char *means = name;
        for (size_t t = 0; node->kind == NODE_VALUE && t < G_N_ELEMENTS(types); t++)
            if (!strcmp(types[t].name, name))
                means = types[t].means;
        const char *between = i == 0 ? "" : i + 1 < m->wanted->len ? ", " : " or ";
        g_string_append_printf(list, "%s%s", between, means);
    }
    return g_string_free(list, false);
}

static const char *nearest_wanted(const struct match *m, const struct token *word)
{
    g_autoptr(GPtrArray) known = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 0; i < m->wanted->len; i++) {
        const struct node *node = g_ptr_array_index(m->wanted, i);
        if (node->kind == NODE_WORD)
            g_ptr_array_add(known, g_strndup(node->text, node->length));
    }
    g_ptr_array_add(known, NULL);
    return word && word->kind == TOKEN_BARE
               ? g_intern_string(hv_nearest(word->text, (const char *const *)known->pdata))
               : NULL;
}

static void refuse(const struct test_verb *verb, const struct match *m, GError **error)
{
    const struct token *word = next_word(m);
    const char *near = nearest_wanted(m, word);
    g_autofree char *wanted = wanted_list(m);
    const char *end = m->wanted->len ? " is wanted" : "nothing more is wanted";
    if (!word)
        hv_fail(error, HV_USAGE, "behind \"%s\", %s%s", verb->name, wanted, end);
    else if (near)
        hv_fail(error, HV_USAGE, "\"%s\": did you mean \"%s\"?", word->text, near);
    else
        hv_fail(error, HV_USAGE, "\"%s\": %s%s", word->text, wanted, end);
}

GArray *grammar_match(const struct test_verb *verb, GPtrArray *words, unsigned from,
                      unsigned *wrong, GError **error)
{
    const char *at = verb->arguments;
    struct node *tree = read_choice(&at);
    struct match m = {
        .words = words,
        .next = from,
        .found = g_array_new(false, false, sizeof(struct argument)),
        .wanted = g_ptr_array_new(),
    };
    bool rest = !strcmp(verb->arguments, "REST");
    bool ok =
        match_sequence(&m, g_ptr_array_index(tree->children, 0)) && (rest || m.next == words->len);
    if (!ok) {
        refuse(verb, &m, error);
        *wrong = m.next;
        g_array_free(g_steal_pointer(&m.found), true);
    }
    g_ptr_array_free(m.wanted, true);
    node_free(tree);
    return m.found;
}
