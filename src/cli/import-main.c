/* hv-import: `hv image import`, which hv becomes (image-import.c). A program of its own: libarchive
 * and libxml2 would have to be loaded at each start of hv. */
#include "base/error.h"
#include "cli/import-machine.h"

#include <locale.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    GError *error = NULL;
    setlocale(LC_CTYPE, "");
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "hv-import: hv image import starts it\n");
        return HV_USAGE;
    }
    if (import_machine(argv[1], argc == 3 ? argv[2] : NULL, &error))
        return HV_OK;
    int status = hv_exit_status(error);
    fprintf(stderr, "hv: %s\n", error->message);
    g_error_free(error);
    return status;
}
