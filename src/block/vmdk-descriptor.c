/* The description of a VMDK image: lines of text ("The Descriptor File" of the specification), a
 * file of their own or a part of a sparse extent. */
#include "block/utf16.h"
#include "block/vmdk.h"

#include <string.h>

void vmdk_clear(struct vmdk_descriptor *descriptor)
{
    for (unsigned i = 0; i < descriptor->count; i++)
        g_free(descriptor->lines[i].name);
    g_free(descriptor->lines);
    g_free(descriptor->parent);
    *descriptor = (struct vmdk_descriptor){ .lines = NULL };
}

/* --- extents: ACCESS SECTORS TYPE ["FILE" [OFFSET]] ----------------------------------------------
 */

static const struct {
    const char *type;
    enum vmdk_kind kind;
    const char *why_not; /* NULL: it can be read */
} types[] = {
    { "FLAT", VMDK_FLAT, NULL },
    { "VMFS", VMDK_FLAT, NULL },
    { "SPARSE", VMDK_SPARSE, NULL },
    { "ZERO", VMDK_ZERO, NULL },
    { "VMFSSPARSE", VMDK_ZERO, "it is a snapshot of an ESX server (COWD): export the disk there" },
    { "SESPARSE", VMDK_ZERO,
      "it is a snapshot of an ESX server (SESparse): export the disk there" },
    { "VMFSRDM", VMDK_ZERO, "it stands for a device of the host that it was made on" },
    { "VMFSRAW", VMDK_ZERO, "it stands for a device of the host that it was made on" },
};

/* A number at *text, which moves past it and the spaces behind it. */
static bool take_number(const char **text, uint64_t *value)
{
    char *end;
    if (!g_ascii_isdigit(**text))
        return false;
    *value = g_ascii_strtoull(*text, &end, 10);
    *text = end;
    while (g_ascii_isspace(**text))
        (*text)++;
    return true;
}

/* The file's name is between the first and the last quotation mark. */
static bool take_name(const char **text, char **name)
{
    const char *first = strchr(*text, '"'), *last = strrchr(*text, '"');
    if (!first || last <= first + 1)
        return false;
    *name = g_strndup(first + 1, (gsize)(last - first - 1));
    *text = last + 1;
    while (g_ascii_isspace(**text))
        (*text)++;
    return true;
}

static bool parse_extent(struct vmdk_descriptor *descriptor, const char *text, const char *name,
                         GError **error)
{
    struct vmdk_line line = { .name = NULL };
    unsigned i = 0;
    size_t length = 0;
    if (take_number(&text, &line.sectors))
        length = strcspn(text, " \t");
    while (i < G_N_ELEMENTS(types) &&
           (strlen(types[i].type) != length || g_ascii_strncasecmp(text, types[i].type, length)))
        i++;
    if (i == G_N_ELEMENTS(types) || !line.sectors || line.sectors > INT64_MAX / SECTOR)
        return reader_refuse(error, name, "its description has an extent that makes no sense");
    if (types[i].why_not)
        return reader_refuse(error, name, "%s", types[i].why_not);
    line.kind = types[i].kind;
    text += length;
    bool named = line.kind == VMDK_ZERO || take_name(&text, &line.name);
    if (line.kind == VMDK_FLAT)
        take_number(&text, &line.offset);
    if (!named || line.offset > INT64_MAX / SECTOR || descriptor->count == VMDK_LINES) {
        g_free(line.name);
        return reader_refuse(error, name,
                             named ? "its description has extents beyond all bounds"
                                   : "its description has an extent without a file");
    }
    descriptor->lines[descriptor->count++] = line;
    return true;
}

/* --- keys: KEY = VALUE, quoted or not ------------------------------------------------------------
 */

static char *unquote(const char *value)
{
    char *text = g_strstrip(g_strdup(value));
    size_t length = strlen(text);
    if (length >= 2 && text[0] == '"' && text[length - 1] == '"') {
        text[length - 1] = 0;
        memmove(text, text + 1, length - 1);
    }
    return text;
}

static void copy_cid(char cid[VMDK_CID], const char *value)
{
    uint64_t number = g_ascii_strtoull(value, NULL, 16);
    for (unsigned i = 0; i < VMDK_CID - 1; i++)
        cid[i] = "0123456789abcdef"[number >> 4 * (VMDK_CID - 2 - i) & 15];
    cid[VMDK_CID - 1] = 0;
}

static void parse_key(struct vmdk_descriptor *descriptor, const char *line, const char *equals)
{
    g_autofree char *key = g_strstrip(g_strndup(line, (gsize)(equals - line)));
    g_autofree char *value = unquote(equals + 1);
    if (!g_ascii_strcasecmp(key, "CID")) {
        copy_cid(descriptor->cid, value);
    } else if (!g_ascii_strcasecmp(key, "parentCID")) {
        copy_cid(descriptor->parent_cid, value);
        descriptor->differencing = strcmp(descriptor->parent_cid, "ffffffff");
    } else if (!g_ascii_strcasecmp(key, "parentFileNameHint") && !descriptor->parent) {
        descriptor->parent = windows_path(value);
    }
}

/* A word that begins an extent's line; what comes behind it, or NULL. */
static const char *behind_access(const char *line)
{
    static const char *const words[] = { "RW", "RDONLY", "NOACCESS" };
    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
        size_t length = strlen(words[i]);
        if (!g_ascii_strncasecmp(line, words[i], length) && g_ascii_isspace(line[length])) {
            line += length;
            while (g_ascii_isspace(*line))
                line++;
            return line;
        }
    }
    return NULL;
}

static bool parse_lines(struct vmdk_descriptor *descriptor, char *const *lines, const char *name,
                        bool extents, GError **error)
{
    for (; *lines; lines++) {
        const char *line = g_strstrip(*lines), *equals = strchr(line, '=');
        const char *extent = *line == '#' ? NULL : behind_access(line);
        if (extent && extents && !parse_extent(descriptor, extent, name, error))
            return false;
        if (!extent && equals && *line != '#')
            parse_key(descriptor, line, equals);
    }
    if (extents && !descriptor->count)
        return reader_refuse(error, name, "its description has no extents");
    if (descriptor->differencing && !descriptor->parent)
        return reader_refuse(error, name,
                             "it holds differences to another image, but no name of it");
    return true;
}

bool vmdk_parse(struct vmdk_descriptor *descriptor, const char *text, const char *name,
                bool extents, GError **error)
{
    *descriptor = (struct vmdk_descriptor){ .count = 0 };
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    descriptor->lines = g_try_new0(struct vmdk_line, VMDK_LINES);
    if (!descriptor->lines)
        return reader_refuse(error, name, "there is no memory to open it");
    if (parse_lines(descriptor, lines, name, extents, error))
        return true;
    vmdk_clear(descriptor);
    return false;
}
