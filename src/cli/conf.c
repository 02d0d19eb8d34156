/* Machines with a directory; see conf.h. */
#include "cli/conf.h"

#include "base/error.h"
#include "cli/url.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char conf_name[] = "vm.conf";

enum { CONF_MAX = 64 << 10 /* bytes of the file */ };

/* --- paths ----------------------------------------------------------------------------------- */

/* Makes a relative path start at the folder, unless it is a word that means something else. */
static void anchor(char **path, const char *folder, const char *const *words)
{
    if (!*path || g_path_is_absolute(*path) || url_is_disk(*path) ||
        (words && g_strv_contains(words, *path)))
        return;
    char *whole = g_build_filename(folder, *path, NULL);
    g_free(*path);
    *path = whole;
}

static void anchor_list(GPtrArray *list, const char *folder)
{
    for (guint i = 0; i < list->len; i++)
        anchor((char **)&list->pdata[i], folder, NULL);
}

static void anchor_drives(GPtrArray *drives, const char *folder, const char *const *words)
{
    for (guint i = 0; i < drives->len; i++) {
        struct drive *drive = g_ptr_array_index(drives, i);
        anchor(&drive->file, folder, words);
        anchor_list(drive->backing, folder);
    }
}

/* The paths among the words of --net. */
static void anchor_net(char **net, const char *folder)
{
    static const char *const keys[] = { "socket=", "pcap=" };
    g_auto(GStrv) words = g_strsplit(*net ? *net : "", ",", -1);
    for (char **word = words; *word; word++)
        for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
            size_t length = strlen(keys[i]);
            if (strncmp(*word, keys[i], length) || !(*word)[length] || (*word)[length] == '/')
                continue;
            g_autofree char *path = g_build_filename(folder, *word + length, NULL);
            g_free(*word);
            *word = g_strconcat(keys[i], path, NULL);
        }
    if (*net) {
        g_free(*net);
        *net = g_strjoinv(",", words);
    }
}

static void anchor_all(struct config *config, const char *folder)
{
    static const char *const floppy_words[] = { "none", NULL };
    static const char *const firmware_words[] = { "bios", NULL };
    static const char *const serial_words[] = { "stdio", "pty", "none", NULL };
    anchor_drives(config->disks, folder, NULL);
    anchor_drives(config->cdroms, folder, NULL);
    anchor_drives(config->floppies, folder, floppy_words);
    anchor(&config->firmware, folder, firmware_words);
    anchor(&config->kernel, folder, NULL);
    anchor_list(config->initrds, folder);
    anchor(&config->serial, folder, serial_words);
    anchor(&config->serial2, folder, serial_words);
    anchor_net(&config->net, folder);
}

/* --- lines ----------------------------------------------------------------------------------- */

struct reading {
    struct config *config;
    const char *name;
    unsigned line;
    GHashTable *seen; /* name of a setting -> its line */
};

static bool wrong(const struct reading *reading, GError **error, const char *format, ...)
    G_GNUC_PRINTF(3, 4);
static bool wrong(const struct reading *reading, GError **error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *message = g_strdup_vprintf(format, args);
    va_end(args);
    return hv_fail(error, HV_USAGE, "%s:%u: %s", reading->name, reading->line, message);
}

static const struct setting *find(const struct reading *reading, const char *name, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    for (const struct setting *s = config_settings; s->name; s++) {
        if (!strcmp(s->name, name))
            return s;
        g_ptr_array_add(names, (void *)(uintptr_t)s->name);
    }
    g_ptr_array_add(names, NULL);
    const char *near = hv_nearest(name, (const char *const *)names->pdata);
    wrong(reading, error, "there is no setting \"%s\"%s%s%s; hv run --help lists them", name,
          near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return NULL;
}

static bool repeatable(const struct setting *s)
{
    return s->kind == SETTING_LIST || s->kind == SETTING_DRIVE;
}

/* Ends a value before its comment, which starts behind a space; what stands in double quotes is
 * taken as it is. */
static bool trim_value(const struct reading *reading, char **value, GError **error)
{
    char *text = *value;
    if (*text == '"') {
        char *end = strchr(text + 1, '"');
        char *rest = end ? end + 1 + strspn(end + 1, " \t") : NULL;
        if (!end || (*rest && *rest != '#'))
            return wrong(reading, error, "a value in quotes ends with a quote, and the line too");
        *end = 0;
        *value = text + 1;
        return true;
    }
    for (char *c = text; *c; c++)
        if (*c == '#' && (c == text || g_ascii_isspace(c[-1]))) {
            *c = 0;
            break;
        }
    g_strchomp(text);
    return true;
}

static bool take_line(struct reading *reading, char *line, GError **error)
{
    g_strstrip(line);
    if (!*line || *line == '#')
        return true;
    for (const char *c = line; *c; c++)
        if (g_ascii_iscntrl(*c) && *c != '\t')
            return wrong(reading, error, "there is a control character in it");
    size_t length = strcspn(line, "= \t#\"");
    g_autofree char *name = g_strndup(line, length);
    char *rest = line + length + strspn(line + length, " \t");
    const struct setting *s = find(reading, name, error);
    if (!s)
        return false;
    char *value = *rest == '=' ? rest + 1 + strspn(rest + 1, " \t") : NULL;
    if (!value && *rest && *rest != '#')
        return wrong(reading, error, "%s: \"%s = VALUE\" is wanted", name, name);
    if (!value && s->kind != SETTING_BOOL)
        return wrong(reading, error, "%s wants a value: %s = %s", name, name, s->value);
    if (value && !trim_value(reading, &value, error))
        return false;
    unsigned before = GPOINTER_TO_UINT(g_hash_table_lookup(reading->seen, s->name));
    if (before && !repeatable(s))
        return wrong(reading, error, "%s: line %u has it already", name, before);
    g_hash_table_insert(reading->seen, (void *)(uintptr_t)s->name, GUINT_TO_POINTER(reading->line));
    g_autoptr(GError) reason = NULL;
    if (value && !*value)
        return wrong(reading, error, "%s wants a value%s%s", name, s->value ? ": " : "",
                     s->value ? s->value : " (on or off), or none at all");
    if (config_set(reading->config, s, value, &reason))
        return true;
    return wrong(reading, error, "%s", reason->message + strspn(reason->message, "-"));
}

bool conf_parse(struct config *config, const char *text, size_t length, const char *name,
                const char *folder, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    struct reading reading = { .config = config, .name = name, .seen = seen };
    const char *end = text + length;
    while (text < end) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        size_t size = (size_t)((stop ? stop : end) - text);
        g_autofree char *line = g_strndup(text, size);
        reading.line++;
        if (memchr(text, 0, size))
            return wrong(&reading, error, "this is no text");
        if (!take_line(&reading, line, error))
            return false;
        text += size + 1;
    }
    anchor_all(config, folder);
    return true;
}

bool conf_load(struct config *config, const char *folder, GError **error)
{
    g_autofree char *path = g_build_filename(folder, conf_name, NULL);
    g_autofree char *shown = g_utf8_make_valid(path, -1);
    g_autofree char *text = g_malloc(CONF_MAX + 1);
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT && g_file_test(folder, G_FILE_TEST_IS_DIR))
        return hv_fail(error, HV_USAGE,
                       "%s is a directory without %s, so it is no machine: give a disk or CD image",
                       folder, conf_name);
    bool ok = fd >= 0 && fstat(fd, &info) == 0;
    ssize_t length = ok && S_ISREG(info.st_mode) ? read(fd, text, CONF_MAX + 1) : 0;
    if (!ok || length < 0)
        hv_fail(error, HV_FAILED, "%s: %s", shown, g_strerror(errno));
    if (fd >= 0)
        close(fd);
    if (!ok || length < 0)
        return false;
    if (!S_ISREG(info.st_mode) || length > CONF_MAX)
        return hv_fail(error, HV_USAGE, "%s: a text file of at most %d KiB is wanted", shown,
                       CONF_MAX >> 10);
    return conf_parse(config, text, (size_t)length, shown, folder, error);
}
