/* Temporary folders; see scratch.h. */
#include "test/scratch.h"

#include <ftw.h>
#include <stdio.h>

enum { OPEN_FOLDERS = 16 };

char *scratch_new(GError **error)
{
    return g_dir_make_tmp("hv-test-XXXXXX", error);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status, (void)kind, (void)where;
    remove(path);
    return 0;
}

void scratch_free(char *folder)
{
    if (folder)
        nftw(folder, remove_one, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    g_free(folder);
}
