/* Names of Windows; see utf16.h. */
#include "block/utf16.h"

#include "block/bytes.h"

#include <glib.h>
#include <string.h>

enum { MOST = 4096 };

char *utf16_text(const uint8_t *bytes, size_t length, bool big_endian)
{
    gunichar2 text[MOST];
    glong count = 0;
    length = MIN(length / 2, MOST);
    while ((size_t)count < length) {
        uint16_t c = big_endian ? be16_at(bytes + 2 * count) : le16_at(bytes + 2 * count);
        if (!c)
            break;
        text[count++] = c;
    }
    return g_utf16_to_utf8(text, count, NULL, NULL, NULL);
}

char *windows_path(const char *text)
{
    g_autofree char *path = g_strdup(text);
    g_strdelimit(path, "\\", '/');
    const char *from = path, *slash = strrchr(path, '/');
    if (*path == '/' || (g_ascii_isalpha(path[0]) && path[1] == ':'))
        from = slash ? slash + 1 : path + 2;
    while (g_str_has_prefix(from, "./"))
        from += 2;
    return *from ? g_strdup(from) : NULL;
}

char *utf16_path(const uint8_t *bytes, size_t length, bool big_endian)
{
    g_autofree char *text = utf16_text(bytes, length, big_endian);
    return text ? windows_path(text) : NULL;
}
