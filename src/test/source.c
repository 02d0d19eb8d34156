/* The lines of a test script and of what it includes; see script.h. */
#include "base/error.h"
#include "test/script.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum {
    LARGEST = 1 << 20,  /* bytes of all files */
    DEEPEST = 8,        /* files that include each other */
    MOST_VALUES = 1000, /* of one key of the matrix */
};

void script_problem(GPtrArray *problems, const struct place *place, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *message = g_strdup_vprintf(format, args);
    va_end(args);
    g_ptr_array_add(problems, g_strdup_printf("%s:%u:%u: %s", place->file, place->line,
                                              place->column, message));
}

static void line_free(void *data)
{
    struct line *line = data;
    g_free(line->text);
    g_free(line);
}

static void key_free(void *data)
{
    struct matrix_key *key = data;
    g_free(key->name);
    g_ptr_array_free(key->values, true);
    g_free(key);
}

/* The levels by which a line is indented; reports what is none. */
static unsigned indent_of(struct source *source, const char *text, struct place *place)
{
    size_t spaces = strspn(text, " ");
    if (text[spaces] == '\t') {
        place->column = (unsigned)spaces + 1;
        script_problem(source->problems, place, "a tab: lines are indented by two spaces a level");
    } else if (spaces % 2) {
        place->column = (unsigned)spaces + 1;
        script_problem(source->problems, place, "%zu spaces: each level has two", spaces);
    }
    return (unsigned)spaces / 2;
}

/* The name of a file whose lines belong before this one, beside the one that names it: `include
 * FILE`, `from FILE MARK`; NULL when the line names none. */
static char *included(struct source *source, const struct line *line)
{
    unsigned column;
    g_autoptr(GError) error = NULL;
    bool from = g_str_has_prefix(line->text, "from ");
    if (!from && !g_str_has_prefix(line->text, "include ") && strcmp(line->text, "include"))
        return NULL;
    g_autoptr(GPtrArray) words = tokens_split(line->text, &column, &error);
    if (from && (line->indent || !words || words->len != 3))
        return NULL;
    if (!from && (!words || words->len != 2)) {
        script_problem(source->problems, &line->place, "include: the name of one file is wanted");
        return NULL;
    }
    const struct token *name = g_ptr_array_index(words, 1);
    if (g_path_is_absolute(name->text))
        return g_strdup(name->text);
    g_autofree char *folder = g_path_get_dirname(line->place.file);
    return strcmp(folder, ".") ? g_build_filename(folder, name->text, NULL) : g_strdup(name->text);
}

static size_t size_of(const struct source *source)
{
    size_t size = 0;
    for (guint i = 0; i < source->lines->len; i++)
        size += strlen(((struct line *)g_ptr_array_index(source->lines, i))->text) + 1;
    return size;
}

/* All of a file, which may be a pipe, or what tells that it is larger than a script can be. */
static GString *read_bytes(const char *path, GError **error)
{
    enum { PIECE = 1 << 16 };
    GString *text = g_string_new(NULL);
    ssize_t n = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && text->len <= LARGEST) {
        gsize length = text->len;
        g_string_set_size(text, length + PIECE);
        n = read(fd, text->str + length, PIECE);
        int why = errno;
        g_string_set_size(text, length + (gsize)MAX(n, 0));
        errno = why;
        if (n <= 0)
            break;
    }
    if (n < 0) {
        hv_fail(error, HV_FAILED, "%s: %s%s", path, g_strerror(errno),
                errno == EISDIR ? "; its scripts are wanted, by their names" : "");
        g_string_free(g_steal_pointer(&text), true);
    }
    if (fd >= 0)
        close(fd);
    return text;
}

static void read_file(struct source *source, const char *path, const struct place *from,
                      unsigned depth)
{
    g_autoptr(GError) error = NULL;
    char *file = g_strdup(path);
    g_ptr_array_add(source->files, file);
    struct place place = { file, 1, 1 };
    g_autoptr(GString) text = read_bytes(path, &error);
    if (!text) {
        if (from)
            script_problem(source->problems, from, "%s", error->message);
        else
            g_ptr_array_add(source->problems, g_strdup(error->message));
        return;
    }
    if (g_str_has_prefix(text->str, "\xef\xbb\xbf")) /* a byte order mark, of Windows' editors */
        g_string_erase(text, 0, 3);
    bool plain = strlen(text->str) == text->len && g_utf8_validate(text->str, -1, NULL);
    if (text->len + size_of(source) > LARGEST || !plain) {
        script_problem(source->problems, &place, "%s is no script: it %s", path,
                       plain ? "has more than 1 MiB" : "is no text");
        return;
    }
    g_auto(GStrv) lines = g_strsplit(text->str, "\n", -1);
    for (place.line = 1; lines[place.line - 1]; place.line++) {
        char *content = g_strchomp(lines[place.line - 1]);
        size_t start = strspn(content, " \t");
        if (!content[start] || content[start] == '#')
            continue;
        place.column = 1;
        struct line *line = g_new0(struct line, 1);
        line->indent = indent_of(source, content, &place);
        line->text = g_strdup(content + start);
        line->place = (struct place){ file, place.line, (unsigned)start + 1 };
        g_autofree char *next = included(source, line);
        if (!next) {
            g_ptr_array_add(source->lines, line);
            continue;
        }
        guint first = source->lines->len;
        if (depth < DEEPEST)
            read_file(source, next, &line->place, depth + 1);
        else
            script_problem(source->problems, &line->place,
                           "%s: more than %d files include each other", next, DEEPEST);
        for (; first < source->lines->len; first++)
            ((struct line *)g_ptr_array_index(source->lines, first))->indent += line->indent;
        if (g_str_has_prefix(line->text, "from "))
            g_ptr_array_add(source->lines, line);
        else
            line_free(line);
    }
}

/* NULL: there is none. */
static struct matrix_key *key_named(const struct source *source, const char *name)
{
    for (guint i = 0; i < source->keys->len; i++) {
        struct matrix_key *key = g_ptr_array_index(source->keys, i);
        if (!strcmp(key->name, name))
            return key;
    }
    return NULL;
}

/* KEY = VALUE, VALUE ... */
static void read_key(struct source *source, const struct line *line)
{
    g_auto(GStrv) sides = g_strsplit(line->text, "=", 2);
    if (!sides[1] || !*g_strstrip(sides[0]) || !*g_strstrip(sides[1])) {
        script_problem(source->problems, &line->place, "KEY = VALUE, VALUE ... is wanted");
        return;
    }
    if (!strcmp(sides[0], SCRIPT_FOLDER)) {
        script_problem(source->problems, &line->place,
                       SCRIPT_FOLDER ": it is a folder of the run's own, and hv test makes it");
        return;
    }
    struct matrix_key *key = key_named(source, sides[0]);
    if (!key) { /* else more values of a key from a line above */
        key = g_new0(struct matrix_key, 1);
        key->name = g_strdup(sides[0]);
        key->values = g_ptr_array_new_with_free_func(g_free);
        key->place = line->place;
        g_ptr_array_add(source->keys, key);
    }
    g_auto(GStrv) values = g_strsplit(sides[1], ",", MOST_VALUES);
    for (char **value = values; *value; value++)
        g_ptr_array_add(key->values, g_strdup(g_strstrip(*value)));
}

static void read_matrix(struct source *source)
{
    bool inside = false;
    for (guint i = 0; i < source->lines->len; i++) {
        const struct line *line = g_ptr_array_index(source->lines, i);
        if (inside && line->indent == 1)
            read_key(source, line);
        else
            inside = line->indent == 0 && !strcmp(line->text, "matrix");
    }
}

struct source *source_read(const char *path)
{
    struct source *source = g_new0(struct source, 1);
    source->path = g_strdup(path);
    source->files = g_ptr_array_new_with_free_func(g_free);
    source->lines = g_ptr_array_new_with_free_func(line_free);
    source->keys = g_ptr_array_new_with_free_func(key_free);
    source->problems = g_ptr_array_new_with_free_func(g_free);
    read_file(source, path, NULL, 0);
    read_matrix(source);
    return source;
}

void source_free(struct source *source)
{
    if (!source)
        return;
    g_free(source->path);
    g_ptr_array_free(source->files, true);
    g_ptr_array_free(source->lines, true);
    g_ptr_array_free(source->keys, true);
    g_ptr_array_free(source->problems, true);
    g_free(source);
}
