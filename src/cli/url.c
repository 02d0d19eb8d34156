/* URLs of disks; see url.h. */
#include "cli/url.h"

#include <glib.h>
#include <string.h>

static const char *const web[] = { "http://", "https://", NULL };
static const char *const nbd[] = { "nbd://", "nbds://", "nbd+unix://", "nbds+unix://", NULL };

static bool begins_with(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (!g_ascii_strncasecmp(text, *words, strlen(*words)))
            return true;
    return false;
}

bool url_is_web(const char *url)
{
    return begins_with(url, web);
}

bool url_is_disk(const char *path)
{
    return url_is_web(path) || begins_with(path, nbd);
}

char *url_plain(const char *url)
{
    const char *host = strstr(url, "://") + 3;
    const char *at = memrchr(host, '@', strcspn(host, "/?#"));
    const char *rest = at ? at + 1 : host;
    g_autofree char *plain =
        g_strdup_printf("%.*s%.*s", (int)(host - url), url, (int)strcspn(rest, "?#"), rest);
    return g_utf8_make_valid(plain, -1);
}

char *url_name(const char *url)
{
    g_autofree char *plain = url_plain(url);
    char *path = strstr(plain, "://") + 3;
    for (size_t n = strlen(path); n && path[n - 1] == '/'; n--)
        path[n - 1] = 0;
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    return g_strdup(*name && name[0] != '.' ? name : "disk");
}
