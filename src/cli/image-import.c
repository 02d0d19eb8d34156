/* hv image import: becomes hv-import, which may not be there. */
#include "base/error.h"
#include "cli/cli.h"
#include "cli/image.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

int image_import_verb(int argc, char **argv)
{
    const struct flag flags[] = { { .name = NULL } };
    GError *error = NULL;
    int count = cli_flags("image", argc, argv, flags);
    if (count < 0)
        return count == -2 ? HV_OK : HV_USAGE;
    if (count < 1 || count > 2)
        return cli_usage("image", "import: an OVA or OVF file is wanted, and perhaps a directory");
    g_autofree char *program = program_path("hv-import");
    char *arguments[] = { program, argv[0], count == 2 ? argv[1] : NULL, NULL };
    execv(program, arguments);
    if (errno == ENOENT)
        hv_fail(&error, HV_HOST,
                "hv was built without libarchive and libxml2, so it cannot import machines");
    else
        hv_fail(&error, HV_HOST, "%s: %s", program, g_strerror(errno));
    return cli_fail(error);
}
