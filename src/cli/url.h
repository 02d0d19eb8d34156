/* URLs that name disks on servers. */
#pragma once
#include <stdbool.h>

/* Does that name a disk on a server, and no file? */
bool url_is_disk(const char *path);
/* One on a web server, which is never written to. */
bool url_is_web(const char *url);
/* The last word of it, as a file's name. */
char *url_name(const char *url);
/* Without user and password, and without what stands behind the file's name: that may be secret. */
char *url_plain(const char *url);
